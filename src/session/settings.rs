//! The limits of a session.

use std::time::Duration;

/// What every session keeps to, whoever the client is.
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
    /// How long to wait for a command (RFC 5321 §4.5.3.2.7: at least five minutes).
    pub command_timeout: Duration,
    /// How long to wait for the next octets of content (RFC 5321 §4.5.3.2.5: three minutes).
    pub data_timeout: Duration,
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
            command_timeout: Duration::from_secs(300),
            data_timeout: Duration::from_secs(180),
        }
    }
}
