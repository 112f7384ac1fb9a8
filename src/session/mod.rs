//! The receiving side of SMTP as a state machine: octets in, effects out. Pure: no sockets, no clock, no store.

mod settings;

pub use settings::Settings;
