//! What was accepted, and the parts in which it travels.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;

use super::{NotAQueueId, QueueId};
use crate::clock::Timestamp;
use crate::smtp::{Mailbox, MessageDsn, RecipientDsn, ReversePath};

/// A name from the configuration, cheap to copy. Two names are equal if their texts are.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes the name as it was written.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The name as it was written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A configured sender of mail to us.
    ClientName
);
name!(
    /// One upstream identity: the address of an HVE account, in lower case.
    AccountName
);
name!(
    /// An OAuth application that accounts get their tokens through.
    AppName
);
name!(
    /// Where recipients of a class go.
    RouteName
);

/// Whether a recipient is in the tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Its domain is one of the tenant's accepted domains.
    Internal,
    /// Any other.
    External,
}

impl Class {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Internal, Self::External];

    /// As it stands in the configuration, the store and the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::External => "external",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What goes first when not everything can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Before everything else, and out of the day's reserve.
    High,
    /// What nothing is said about.
    #[default]
    Normal,
    /// What may wait.
    Bulk,
}

impl Priority {
    /// All, the first to go first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Bulk];

    /// As it stands in the configuration, the store and the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Bulk => "bulk",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who wrote a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A client's mail.
    Mail,
    /// A notice of the relay's own (RFC 3464); no notice is ever written about one.
    Notice,
}

/// What is known about an accepted message besides its content and its recipients. It never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its name.
    pub id: QueueId,
    /// When the end of its data had come, or when the notice was written. Expiry counts from here.
    pub accepted_at: Timestamp,
    /// A client's mail or a notice.
    pub kind: Kind,
    /// The client that sent it; for a notice the client of the message it is about.
    pub client: ClientName,
    /// What goes first.
    pub priority: Priority,
    /// Where it came from; none for a notice.
    pub peer: Option<IpAddr>,
    /// MAIL FROM as the client gave it.
    pub reverse_path: ReversePath,
    /// The mailbox of the header's From, as far as there is one that can be read (RFC 5598: the author).
    pub author: Option<Mailbox>,
    /// The Subject, decoded, on one line, cut to 200 characters.
    pub subject: String,
    /// The Message-ID with its brackets.
    pub message_id: String,
    /// Octets of the stored content: what the client sent, in canonical form, and the fields that the relay put on top.
    pub size: u64,
    /// The content has octets beyond ASCII.
    pub eight_bit: bool,
    /// The transaction asked for SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// What MAIL asked of notices about it (RFC 3461).
    pub dsn: MessageDsn,
}

/// The name of a delivery: its message and its number in it, from 1. Written `01KA…Z.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId {
    /// The message.
    pub message: QueueId,
    /// Which of its deliveries, from 1.
    pub part: u16,
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.message, self.part)
    }
}

impl FromStr for DeliveryId {
    type Err = NotAQueueId;

    fn from_str(text: &str) -> Result<Self, NotAQueueId> {
        let (message, part) = text.split_once('.').ok_or(NotAQueueId)?;
        Ok(Self { message: message.parse()?, part: part.parse().map_err(|_| NotAQueueId)? })
    }
}

/// The recipients of one message that travel together: at most 50, of one class, on one route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// Its name.
    pub id: DeliveryId,
    /// Where it goes.
    pub route: RouteName,
    /// What its recipients are.
    pub class: Class,
    /// Those not settled yet.
    pub recipients: Vec<Recipient>,
    /// How many attempts have ended and been counted against it.
    pub attempts: u32,
    /// The earliest time of the next attempt.
    pub due: Timestamp,
}

/// One recipient of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Its place in the delivery as accepted, from 0; it stays when others are settled.
    pub ordinal: u16,
    /// The forward-path.
    pub address: Mailbox,
    /// What RCPT asked of notices about it (RFC 3461).
    pub dsn: RecipientDsn,
}

/// What the scheduler must know of a queued delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// Its name.
    pub id: DeliveryId,
    /// The client that sent the message.
    pub client: ClientName,
    /// What goes first.
    pub priority: Priority,
    /// Who wrote it, if that can be read.
    pub author: Option<Mailbox>,
    /// An operator holds it.
    pub held: bool,
    /// Where it goes.
    pub route: RouteName,
    /// What its recipients are.
    pub class: Class,
    /// How many are not settled yet.
    pub recipients: u16,
    /// Octets of the content.
    pub size: u64,
    /// When the message was accepted.
    pub accepted_at: Timestamp,
    /// The earliest time of the next attempt.
    pub due: Timestamp,
    /// Attempts counted against it.
    pub attempts: u32,
    /// An attempt had been started and its end is not known: the upstream server may have the message.
    pub in_doubt: Option<InDoubt>,
}

/// An attempt whose end is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InDoubt {
    /// On which account.
    pub account: AccountName,
    /// Since when.
    pub started: Timestamp,
    /// To how many of the recipients, from the first.
    pub recipients: u16,
}

impl fmt::Display for InDoubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attempt on {} started {}", self.account, self.started)
    }
}

/// The stored content of a message: octets with CRLF line ends only, not dot-stuffed, ending in CRLF unless empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// All of it.
    Inline(Bytes),
    /// A file that holds it.
    File {
        /// Where.
        path: PathBuf,
        /// Its length in octets.
        len: u64,
    },
}

impl Content {
    /// Octets.
    pub fn len(&self) -> u64 {
        match self {
            Self::Inline(octets) => octets.len() as u64,
            Self::File { len, .. } => *len,
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_id_is_read_as_it_was_written() {
        let id = DeliveryId { message: QueueId::from_number(77).expect("positive"), part: 3 };
        assert_eq!(id.to_string(), "000000000002D.3");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("000000000002D".parse::<DeliveryId>(), Err(NotAQueueId));
    }
}
