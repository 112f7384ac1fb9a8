//! OAuth 2.0 for accounts that have no password: client credentials (RFC 6749 §4.4) with a secret or a certificate, at Microsoft Entra.
//!
//! Many accounts share one application, so there is one [`TokenSource`] for each [`App`], with one cached token, one request at a time and one
//! remembered fault. `memory` decides who gets which token and when a new one is asked for; `answer` judges what the token endpoint says; `http`
//! carries it; `assertion` and `certificate` are the way without a secret; `claims` shows an operator what a token is good for; `expiry` says when to announce that one ends.
//!
//! Invariants: a secret goes to the configured host alone, over verified TLS, and is never in a fault, a log line or a `Debug` form; whatever
//! the endpoint says, mail stays queued; nobody waits for a token while there is one that can still be used.

mod answer;
mod app;
mod assertion;
mod certificate;
mod claims;
mod http;
mod memory;
mod source;

pub use app::{App, ClientProof, NotATokenUrl, SecretPlace, TokenUrl};
pub use certificate::{CertificateFault, ClientCertificate};
pub use claims::Claims;
pub use memory::{News, Token};
pub use source::{Examined, Tell, TokenSource};
