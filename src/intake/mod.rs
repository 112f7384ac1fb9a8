//! Who may send what: clients by network, recipient classes, admission of connections, repair of headers. Pure.

mod repair;
mod settings;

pub use repair::{Facts, Repair, RepairError};
pub use settings::{ClientSettings, Settings};
