//! Notices of the relay: RFC 3464 reports about what failed. Pure.

mod bounce;
mod explain;
mod mime;
mod plain;

pub use bounce::{Bounce, FailedRecipient, Notice, bounce};
