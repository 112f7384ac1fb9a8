//! Where an upstream server is, how it is recognised, and how long it may take.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::oauth::TokenSource;
use super::{Extension, Turns};
use crate::secret::Secret;
use crate::tls::Opportunistic;

/// The server of a route.
#[derive(Clone)]
pub struct Endpoint {
    /// A name or an address.
    pub host: String,
    /// 587 for HVE.
    pub port: u16,
    /// The name that its certificate must have.
    pub server_name: ServerName<'static>,
    /// How the connection is protected.
    pub security: Security,
    /// What we call ourselves in EHLO.
    pub helo: String,
    /// What is not used there although it is offered.
    pub ignored: Vec<Extension>,
    /// How long each step may take.
    pub timeouts: Timeouts,
}

/// How a connection is protected. A login goes over the first two only, which verify the certificate: TLS 1.2 or later, always.
#[derive(Clone)]
pub enum Security {
    /// STARTTLS (RFC 3207); where it is not offered, or the certificate is not the server's, nothing is sent.
    Required(Arc<ClientConfig>),
    /// TLS from the first octet (RFC 8314 §3.3), on the same terms.
    Implicit(Arc<ClientConfig>),
    /// STARTTLS where it is offered, whatever the certificate; else in clear (RFC 7435). It keeps out who only listens.
    Opportunistic(Arc<Opportunistic>),
    /// In clear.
    None,
}

impl Security {
    /// Whether nothing goes out before the server is known to be the one that is meant.
    pub fn is_verified(&self) -> bool {
        matches!(self, Self::Required(_) | Self::Implicit(_))
    }
}

/// How a connection turned out to be protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protection {
    /// TLS with the server that is meant.
    Verified,
    /// TLS with somebody.
    Unverified,
    /// None.
    Plain,
}

impl Protection {
    /// As logs have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Unverified => "unverified",
            Self::Plain => "none",
        }
    }
}

/// How an account logs in.
#[derive(Debug, Clone)]
pub struct Login {
    /// The user name: for HVE the account's address.
    pub user: String,
    /// What goes with it.
    pub credential: Credential,
    /// Of all logins of this account.
    pub turns: Turns,
}

/// What proves that an account is who it says.
#[derive(Debug, Clone)]
pub enum Credential {
    /// Its own password.
    Password(Secret),
    /// The token of an OAuth application.
    Token(TokenSource),
}

/// Time limits (RFC 5321 §4.5.3.2), each for one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP connection, and TLS handshake.
    pub connect: Duration,
    /// The greeting (§4.5.3.2.1).
    pub greeting: Duration,
    /// Replies to EHLO, STARTTLS, AUTH, MAIL and RCPT (§4.5.3.2.2, .3).
    pub command: Duration,
    /// The 354 to DATA (§4.5.3.2.4).
    pub data: Duration,
    /// Each piece of content (§4.5.3.2.5).
    pub block: Duration,
    /// The reply to the final dot (§4.5.3.2.6).
    pub end_of_data: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        Self {
            connect: Duration::from_secs(30),
            greeting: minutes(5),
            command: minutes(5),
            data: minutes(2),
            block: minutes(3),
            end_of_data: minutes(10),
        }
    }
}

/// How long connections stay warm. HVE documents none of these, so they are modest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSettings {
    /// A connection that nothing used for so long is closed.
    pub idle: Duration,
    /// A connection that is so old is not used again.
    pub age: Duration,
    /// A connection that has carried so many transactions is not used again.
    pub transactions: u32,
}

impl Default for PoolSettings {
    fn default() -> Self {
        Self { idle: Duration::from_secs(60), age: Duration::from_secs(1_800), transactions: 1_000 }
    }
}
