//! What happened upstream, as facts: which step, which reply, for which recipient. Judging them is [`super::judge`]'s part.

use std::fmt;
use std::time::Duration;

use crate::smtp::Reply;

use super::PauseLength;

/// A step of the dialogue with an upstream server, in the order in which they come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The OAuth token of the account's application, without which no connection is opened.
    Token,
    /// Name resolution and the TCP connection.
    Connect,
    /// The server's 220.
    Greeting,
    /// EHLO, before or after TLS.
    Ehlo,
    /// STARTTLS up to its 220.
    StartTls,
    /// The TLS handshake and the check of the certificate.
    Tls,
    /// AUTH.
    Auth,
    /// MAIL FROM.
    Mail,
    /// RCPT TO.
    Rcpt,
    /// DATA up to its 354.
    Data,
    /// The content, up to the final dot.
    Content,
    /// The reply to the final dot. From here on the server may have taken the message although we do not know it.
    EndOfData,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Token => "getting a token",
            Self::Connect => "connecting",
            Self::Greeting => "greeting",
            Self::Ehlo => "EHLO",
            Self::StartTls => "STARTTLS",
            Self::Tls => "TLS handshake",
            Self::Auth => "AUTH",
            Self::Mail => "MAIL FROM",
            Self::Rcpt => "RCPT TO",
            Self::Data => "DATA",
            Self::Content => "sending the content",
            Self::EndOfData => "end of data",
        })
    }
}

/// Why a dialogue did not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The server refused.
    Reply(Reply),
    /// The server said nothing within the step's time limit.
    TimedOut(Duration),
    /// The connection could not be made, or ended.
    Lost(String),
    /// The TLS handshake failed, or the certificate is not the server's.
    Tls(String),
    /// The server broke the protocol, or does not offer what we must have.
    Protocol(String),
    /// Our own end failed: the content could not be read, a credential is missing.
    Local(String),
    /// There is no OAuth token.
    Token(TokenFault),
}

/// Why there is no OAuth token. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenFault {
    /// What the token endpoint said, or what happened instead.
    pub reason: String,
    /// How long the application's accounts are left alone.
    pub pause: PauseLength,
    /// Who must do what; empty if it passes by itself.
    pub advice: String,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply(reply) => reply.fmt(f),
            Self::TimedOut(limit) => write!(f, "no answer within {}", crate::units::format_duration(*limit)),
            Self::Lost(what) | Self::Tls(what) | Self::Protocol(what) | Self::Local(what) => f.write_str(what),
            Self::Token(fault) => f.write_str(&fault.reason),
        }
    }
}

/// The step at which a dialogue ended, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{step}: {cause}")]
pub struct Trouble {
    /// Where.
    pub step: Step,
    /// Why.
    pub cause: Cause,
}

/// How a mail transaction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// 2yz to the end of data: the server has the message for every recipient that it had accepted.
    Accepted(Reply),
    /// Every recipient was refused, so nothing was sent.
    NoRecipient,
    /// It stopped before, or nothing is known about what came after the final dot.
    Stopped(Trouble),
}

/// One mail transaction as it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The reply to each RCPT, in the order of the delivery's recipients; `None` where it did not come to that.
    pub recipients: Vec<Option<Reply>>,
    /// How it ended.
    pub end: End,
}
