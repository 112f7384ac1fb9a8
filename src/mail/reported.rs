//! What became of a recipient, as its sender is to be told: at once, or later together with others.

use std::fmt;
use std::str::FromStr;

use super::{ClientName, QueueId};
use crate::clock::Timestamp;
use crate::smtp::{EnhancedStatus, Mailbox, Orcpt};

/// What became of a recipient (RFC 3464 §2.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    /// The forward-path.
    pub address: Mailbox,
    /// The address that the sender had in mind, if it said so (RFC 3461 §4.2).
    pub orcpt: Option<Orcpt>,
    /// What was done about it.
    pub action: Action,
    /// Why, in a number.
    pub status: EnhancedStatus,
    /// Why, in the server's words, or in ours if no server spoke.
    pub diagnostic: String,
    /// The server that said so, if one did.
    pub remote_mta: Option<String>,
    /// When the last attempt ended, if there was one.
    pub last_attempt: Option<Timestamp>,
}

/// What was done about a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// It will not get the message.
    Failed,
    /// It did not fail by itself, the time for it ran out.
    Expired,
    /// It still waits.
    Delayed,
    /// Another server has the message, and will say no more about it.
    Relayed,
}

impl Action {
    /// All of them.
    const ALL: [Self; 4] = [Self::Failed, Self::Expired, Self::Delayed, Self::Relayed];

    /// As it stands in the store and the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Delayed => "delayed",
            Self::Relayed => "relayed",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an action: failed, expired, delayed or relayed")]
pub struct NotAnAction;

impl FromStr for Action {
    type Err = NotAnAction;

    fn from_str(text: &str) -> Result<Self, NotAnAction> {
        Self::ALL.into_iter().find(|action| action.as_str() == text).ok_or(NotAnAction)
    }
}

/// Something that somebody will be told together with other things.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gathered {
    /// Who.
    pub reader: Mailbox,
    /// When it happened.
    pub at: Timestamp,
    /// The message.
    pub message: QueueId,
    /// Its client.
    pub client: ClientName,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Its subject, as in [`super::Message`].
    pub subject: String,
    /// What its sender called it (RFC 3461 §4.4).
    pub envid: Option<String>,
    /// What became of one of its recipients.
    pub recipient: Reported,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_read_as_it_was_written() {
        for action in Action::ALL {
            assert_eq!(action.to_string().parse(), Ok(action));
        }
        assert_eq!("delivered".parse::<Action>(), Err(NotAnAction));
    }
}
