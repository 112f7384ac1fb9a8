//! Which delivery next, on which account, and when; back-off, expiry, pauses. Pure: time comes in with each call.

mod gate;
mod scheduler;
mod settings;
#[cfg(test)]
mod tests;

pub use scheduler::{Change, Counts, Decision, Finished, Scheduler, Who};
pub use settings::{AccountSettings, Settings};
