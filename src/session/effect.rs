//! What goes into a session and what comes out of it.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use crate::intake::{Addressee, Facts, Habit};
use crate::mail::{ClientName, QueueId};
use crate::smtp::{Credentials, Mailbox, MessageDsn, Reply, ReversePath};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input<'a> {
    /// The client sent these.
    Octets(&'a [u8]),
    /// The client will send nothing more.
    Eof,
    /// Time has passed; counts if the deadline has.
    Tick,
    /// The relay is about to stop.
    Shutdown,
    /// All sessions are in use, others wait, and this one is to go; a message that is complete is still kept.
    MakeRoom,
    /// The answer to [`Effect::Open`]: there is room, and this is the message's name; or the refusal for the client. A refusal with 421 ends
    /// the session.
    Opened(Result<QueueId, Reply>),
    /// The answer to [`Effect::Keep`]: the message is durable; or the refusal for the client, and then nothing of it is kept.
    Kept(Result<(), Reply>),
    /// The answer to [`Effect::StartTls`]: from here on octets come out of TLS. A handshake that fails has no answer, it ends the connection.
    TlsEstablished,
    /// The answer to [`Effect::LogIn`]: the client as which the user sends, or the refusal.
    LoggedIn(Result<ClientName, LoginRefusal>),
}

/// Why a login was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginRefusal {
    /// What the client is told; 421 ends the session.
    pub reply: Reply,
    /// How long it waits for that.
    pub after: Duration,
}

/// What is to be done about it, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send these to the client, in one write.
    Send(Vec<u8>),
    /// Make room for a message; answer with [`Input::Opened`].
    Open {
        /// How large the client says it is, or the most that it may be.
        announced: u64,
    },
    /// Append these to the message that was opened last: CRLF line ends only, not dot-stuffed. If that cannot be done, the time to say so
    /// is the answer to [`Effect::Keep`]; no client listens before.
    Content(Vec<u8>),
    /// The message is complete; make it durable and answer with [`Input::Kept`].
    Keep(Envelope),
    /// Drop the message that was opened last. Never follows a [`Effect::Keep`] of the same message.
    Discard,
    /// Begin TLS on this connection, after what was sent before; answer with [`Input::TlsEstablished`]. What has come and was not handed in
    /// belongs to the handshake; nothing that came before it is believed afterwards (RFC 3207 §4.2).
    StartTls,
    /// Find out whose credentials these are; answer with [`Input::LoggedIn`].
    LogIn(Credentials),
    /// Something was refused; for the log. The reply itself is in a [`Effect::Send`].
    Refused {
        /// What the client is told.
        reply: Reply,
        /// What it asked for: the command, fit for a log and without credentials, or a few words about the occasion.
        what: String,
        /// The sender of the transaction, if there is one.
        reverse_path: Option<ReversePath>,
    },
    /// The client does something otherwise than it should; for the count. Once for each message, and not for strangers.
    Noticed(Habit),
    /// Close the connection; nothing follows.
    Close(Ending),
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The client said QUIT.
    Quit,
    /// The client went away without QUIT, between transactions or before DATA, as devices do.
    Gone,
    /// The client went away in the middle of a message; nothing of it was kept.
    GoneInContent,
    /// The client was silent for too long.
    TimedOut,
    /// The client met a limit, or does not speak SMTP.
    TurnedAway,
    /// The peer's address is no client's.
    NotServed,
    /// The relay is about to stop.
    Shutdown,
    /// Others needed its place.
    MadeRoom,
}

impl Ending {
    /// A word for the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quit => "quit",
            Self::Gone => "gone",
            Self::GoneInContent => "gone in content",
            Self::TimedOut => "timed out",
            Self::TurnedAway => "turned away",
            Self::NotServed => "not served",
            Self::Shutdown => "shutdown",
            Self::MadeRoom => "made room",
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a message came, as the `with` of its Received field names it (RFC 5321 §4.4, RFC 3848, RFC 6531 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    /// The greeting and what came of it.
    pub dialect: Dialect,
    /// Under TLS.
    pub tls: bool,
    /// From a user who logged in.
    pub login: bool,
}

/// The kinds of SMTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// After HELO.
    Smtp,
    /// After EHLO.
    Esmtp,
    /// With the SMTPUTF8 parameter.
    Utf8Smtp,
}

impl Protocol {
    /// As in Received. After HELO there is one word only: no other is registered.
    pub fn as_str(self) -> &'static str {
        match (self.dialect, self.tls, self.login) {
            (Dialect::Smtp, ..) => "SMTP",
            (Dialect::Esmtp, false, false) => "ESMTP",
            (Dialect::Esmtp, false, true) => "ESMTPA",
            (Dialect::Esmtp, true, false) => "ESMTPS",
            (Dialect::Esmtp, true, true) => "ESMTPSA",
            (Dialect::Utf8Smtp, false, false) => "UTF8SMTP",
            (Dialect::Utf8Smtp, false, true) => "UTF8SMTPA",
            (Dialect::Utf8Smtp, true, false) => "UTF8SMTPS",
            (Dialect::Utf8Smtp, true, true) => "UTF8SMTPSA",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is known about a message besides its content when its end of data has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Who sent it.
    pub client: ClientName,
    /// From where.
    pub peer: IpAddr,
    /// The user who logged in, if one did.
    pub user: Option<String>,
    /// The name that the client gave itself, if any: letters, digits and `-._:[]`, at most 255; what else was in it is a `?`.
    pub helo: Option<String>,
    /// How it came.
    pub protocol: Protocol,
    /// MAIL FROM.
    pub reverse_path: ReversePath,
    /// RCPT TO in the order given, each once; never empty.
    pub recipients: Vec<Addressee>,
    /// The transaction asked for SMTPUTF8.
    pub smtputf8: bool,
    /// The transaction said BODY=8BITMIME. Content may have octets beyond ASCII although it did not.
    pub eight_bit_declared: bool,
    /// What MAIL asked of notices (RFC 3461).
    pub dsn: MessageDsn,
}

impl Envelope {
    /// What only shows when the envelope is held against the content.
    pub fn habit(&self, facts: &Facts) -> Option<Habit> {
        // RFC 6531 §3.6: with SMTPUTF8 the header may be beyond ASCII without more being said.
        (facts.eight_bit && !self.eight_bit_declared && !self.smtputf8).then_some(Habit::UndeclaredEightBit)
    }
}

/// The transaction that is under way, as far as its trace information needs it (RFC 5321 §4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Underway<'a> {
    /// As in [`Envelope`].
    pub helo: Option<&'a str>,
    /// How it comes.
    pub protocol: Protocol,
    /// MAIL FROM.
    pub reverse_path: &'a ReversePath,
    /// The recipient, if it is the only one.
    pub only_recipient: Option<&'a Mailbox>,
}
