//! Who may send what: clients by network, recipient classes, priorities, admission of connections, repair of headers. Pure.

mod door;
mod policy;
mod priority;
mod repair;
mod settings;

pub use door::Door;
pub use policy::{Addressee, Policy};
pub use repair::{Facts, Repair, RepairError};
pub use settings::{ClientSettings, Settings};
