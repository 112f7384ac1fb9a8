//! The grammar of SMTP (RFC 5321), both directions, without a session: addresses and replies. Pure.

mod address;
mod reply;

pub use address::{AddressError, Mailbox, ReversePath};
pub use reply::{EnhancedStatus, NotAStatus, Reply};
