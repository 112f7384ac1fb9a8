//! Which delivery next, on which account, and when; back-off, expiry, pauses. Pure.

mod settings;

pub use settings::{AccountSettings, Settings};
