//! What goes into the history and what comes out of it.

use std::fmt;
use std::str::FromStr;

use crate::clock::Timestamp;
use crate::mail::{Class, Delivery, DeliveryId, Kind, Message, QueueId};
use crate::smtp::EnhancedStatus;

/// Something to be remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A message was accepted, or written by the relay itself.
    Accepted(Box<(Message, Vec<Delivery>)>),
    /// An attempt ended, or something else that settled recipients.
    Ended(Box<Tried>),
    /// Recipients of a message go on in these deliveries, which it did not have when it was accepted, or of which nothing may be remembered.
    Parted(Box<(Message, Vec<Delivery>)>),
    /// An attempt was found whose end nobody knows.
    InDoubt {
        /// Of which delivery.
        delivery: DeliveryId,
        /// On which account.
        account: String,
        /// When it began.
        started: Timestamp,
        /// When it was found.
        found: Timestamp,
    },
}

/// The end of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// The message, in case that its acceptance was not remembered.
    pub message: Message,
    /// The delivery with the recipients that were not settled before, for the same reason.
    pub delivery: Delivery,
    /// On which account; empty if it was no attempt.
    pub account: String,
    /// The server, `host:port`; empty if it was no attempt.
    pub relay: String,
    /// As whom it went out: MAIL FROM and From; empty if they stayed as they were.
    pub sender: String,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// What became of the recipients: one entry for each different answer.
    pub answers: Vec<Attempt>,
}

/// What became of recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Left {
    /// The server has it.
    Sent,
    /// It is tried again.
    Deferred,
    /// For good: refused.
    Failed,
    /// For good: too old.
    Expired,
    /// For good: an operator removed it.
    Removed,
    /// The relay ended meanwhile: the server may have it or not, and it is tried again.
    InDoubt,
}

impl Left {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Sent, Self::Deferred, Self::Failed, Self::Expired, Self::Removed, Self::InDoubt];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Deferred => "deferred",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Removed => "removed",
            Self::InDoubt => "in-doubt",
        }
    }

    /// Whether the recipients never get it, and it was nobody's wish.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::Expired)
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Left {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|left| left.as_str() == text).ok_or(())
    }
}

/// One answer to an attempt, and whom it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// What became of them.
    pub left: Left,
    /// The status (RFC 3463).
    pub status: EnhancedStatus,
    /// At which step.
    pub step: String,
    /// The server's reply, whole, or what happened instead, in words.
    pub reply: String,
    /// The recipients' places in the delivery, ascending.
    pub ordinals: Vec<u16>,
    /// For deferred ones: the earliest time of the next attempt.
    pub due: Option<Timestamp>,
}

/// What is remembered of a message, as text: nothing is to be done with it any more but to show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// Its name.
    pub id: QueueId,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Who wrote it.
    pub kind: Kind,
    /// Who sent it to the relay.
    pub client: String,
    /// From which address.
    pub peer: Option<String>,
    /// MAIL FROM as the client gave it; empty for the null reverse-path.
    pub reverse_path: String,
    /// Who wrote it, if the header tells.
    pub author: Option<String>,
    /// Its subject, decoded.
    pub subject: String,
    /// Its Message-ID.
    pub message_id: String,
    /// Octets.
    pub size: u64,
    /// Its priority.
    pub priority: String,
    /// Its deliveries as they were accepted, and those that recipients parted into.
    pub deliveries: Vec<PastDelivery>,
}

/// What is remembered of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastDelivery {
    /// Its number, from 1.
    pub part: u16,
    /// What its recipients are.
    pub class: Class,
    /// Where it goes.
    pub route: String,
    /// Its recipients; none: one that was settled before anything was remembered.
    pub recipients: Vec<Option<String>>,
}

/// A message and all that happened to it, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Story {
    /// The message.
    pub message: Past,
    /// The attempts by delivery and time.
    pub chapters: Vec<Chapter>,
}

/// One answer to one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chapter {
    /// Which delivery.
    pub part: u16,
    /// When the attempt began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// On which account; empty if it was no attempt.
    pub account: String,
    /// With which server.
    pub relay: String,
    /// As whom; empty if as it was.
    pub sender: String,
    /// What came of it.
    pub answer: Attempt,
}
