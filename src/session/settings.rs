//! What a session keeps to: its limits, and what the listener that it came in by offers.

use std::time::Duration;

use crate::mail::ClientName;

/// What every session of a listener keeps to, whoever the client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The name in the greeting, in the EHLO reply and in Received.
    pub hostname: String,
    /// The largest message in octets: announced as SIZE, enforced on what is stored together with what relaying adds to it.
    pub message_size: u64,
    /// Recipients in one transaction; more get 452 4.5.3 (RFC 5321 §4.5.3.1.10). At least 100 (§4.5.3.1.8).
    pub recipients: usize,
    /// Transactions in one session; then 421.
    pub transactions: usize,
    /// Octets of a command line, its CRLF included (RFC 5321 §4.5.3.1.4 wants 512, more for the extensions' parameters).
    pub command_line: usize,
    /// Octets of a message's header; content with a larger one is refused, because the header is held in memory.
    pub header_size: usize,
    /// Replies 4yz and 5yz in one session; then 421, so that a client gone mad is let go.
    pub errors: usize,
    /// Commands that bring no mail on its way (NOOP, RSET, a greeting, a recipient that is there already, …) since the last message of the
    /// session; then 421.
    pub commands_without_mail: usize,
    /// How long to wait for a command (RFC 5321 §4.5.3.2.7: at least five minutes).
    pub command_timeout: Duration,
    /// How long to wait for the next octets of content (RFC 5321 §4.5.3.2.5: three minutes).
    pub data_timeout: Duration,
    /// How long a TLS handshake may take, and a PROXY header to come.
    pub handshake_timeout: Duration,
    /// How long a peer that is no client by its address may take to log in.
    pub login_timeout: Duration,
    /// What the listener offers.
    pub entrance: Entrance,
}

/// What a listener offers, and whom it is for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entrance {
    /// When TLS begins.
    pub tls: Tls,
    /// Who may or must log in.
    pub auth: Auth,
    /// The clients that are served here; none: all.
    pub clients: Option<Vec<ClientName>>,
}

/// When TLS begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tls {
    /// Never.
    #[default]
    None,
    /// When the client says STARTTLS, if it does (RFC 3207).
    StartTls,
    /// When the client says STARTTLS; before, it may send no mail.
    StartTlsRequired,
    /// With the connection (RFC 8314 §3).
    Implicit,
}

/// Who may or must log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Auth {
    /// Nobody can.
    #[default]
    None,
    /// Everybody can; whoever is no client by its address must.
    Offered,
    /// Everybody must.
    Required,
}

impl Entrance {
    /// Whether STARTTLS is offered.
    pub fn has_starttls(&self) -> bool {
        matches!(self.tls, Tls::StartTls | Tls::StartTlsRequired)
    }

    /// Whether a client is served here.
    pub fn serves(&self, client: &ClientName) -> bool {
        self.clients.as_ref().is_none_or(|clients| clients.contains(client))
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hostname: "localhost".to_owned(),
            message_size: 10_485_760,
            recipients: 1_000,
            transactions: 10_000,
            command_line: 4_096,
            header_size: 256 << 10,
            errors: 50,
            commands_without_mail: 1_000,
            command_timeout: Duration::from_secs(300),
            data_timeout: Duration::from_secs(180),
            handshake_timeout: Duration::from_secs(30),
            login_timeout: Duration::from_secs(60),
            entrance: Entrance::default(),
        }
    }
}
