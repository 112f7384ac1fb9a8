//! The simulated HVE endpoint: a server that answers as Microsoft's does, for the demonstration, the tests and the benchmarks.
//!
//! [`Sim::start`] binds a loopback port and serves it until the [`Sim`] is dropped: greeting, EHLO, STARTTLS under a private CA, AUTH, mail
//! transactions, the budgets of HVE accounts, and its reply texts word for word (`replies.rs` says where each comes from). It obeys scripted
//! [`Fault`]s, and it remembers what it was told and what it took, so that a test can say "no credential was sent" or "nothing was refused".
//!
//! It is the relay's counterpart and its observer, so it shares no parser, no decoder and no budget with it: a mistake that both made would
//! not be seen. Its own reader is strict: only CRLF ends a line, only `CRLF.CRLF`, or the last octet of a last chunk, ends the content, and what a lenient server would
//! overlook is counted as a [`Violation`].
//!
//! Beside it stands a [`TokenEndpoint`], Microsoft Entra's: give its [`Issuer`] to the endpoint, and AUTH XOAUTH2 knows the tokens that it issues.
//!
//! Not simulated: BINARYMIME, bounces after acceptance, and anything that a mailbox would do.

mod assertion;
mod auth;
mod chunk;
mod content;
mod dialogue;
mod endpoint;
mod fault;
mod header;
mod identity;
mod issuer;
mod record;
mod replies;
mod settings;
mod token_endpoint;
mod transaction;
mod windows;
mod wire;

pub use endpoint::Sim;
pub use fault::{Action, Fault, Step, Times};
pub use identity::Identity;
pub use issuer::{App, AppProof, Issuer};
pub use record::{Counters, LoginAttempt, Taken, TimedOut, Violation, sha256};
pub use settings::{Account, Extension, ExternalUnit, Keep, Limit, Limits, Mechanism, Profile, Security, Senders, Settings};
pub use token_endpoint::{Seen, TokenAction, TokenEndpoint, TokenRequest};

#[cfg(test)]
mod tests;
