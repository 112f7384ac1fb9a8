//! Who may send what: clients by network, recipient classes, admission of connections, repair of headers. Pure.

mod settings;

pub use settings::{ClientSettings, Settings};
