//! The client side of SMTP: dial, TLS, EHLO, AUTH, one mail transaction with a reply for each recipient, warm connections.
//!
//! The dialogue is sequential, so it is straight-line code: [`deliver`] takes a warm [`Connection`] from the [`Pool`] or opens one, makes one
//! [`Transaction`] and gives back what happened as a [`Report`](crate::reply::Report) of facts, which `reply` judges. Every step has its own
//! time limit, and after a lost connection, a time-out or a breach of protocol the connection is never used again. How many connections there
//! are at a time is the scheduler's matter. Where an account has no password, [`oauth`] gets the token that it logs in with.
//!
//! What a server does not offer is done without, or refused here in its place (`adapt`).
//!
//! Invariants: nothing that came before the handshake is believed; no credential goes out before the certificate was verified, and no mail
//! either unless the route's [`Security`] says so; content that could not be read to its end is never ended; a connection is lost at
//! [`Step::EndOfData`](crate::reply::Step) if and only if the end of the content was handed to the socket.

mod adapt;
mod auth;
mod connection;
mod content;
mod envelope;
mod framing;
mod laps;
pub mod oauth;
mod offers;
mod opening;
mod pool;
mod settings;
mod stream;
mod transaction;
mod turn;
mod wire;

#[cfg(test)]
mod tests;

pub use connection::Connection;
pub use offers::{Extension, Offers};
pub use pool::{Attempt, Origin, Pool, deliver};
pub use settings::{Credential, Endpoint, Login, PoolSettings, Protection, Security, Timeouts};
pub use stream::TlsFacts;
pub use transaction::Transaction;
pub use turn::Turns;
