//! What is limited, in which unit, and the values in which a budget is asked and answers.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::{clock::Timestamp, mail::Class};

/// The limits of one account, or of the tenant. `None`: no limit.
///
/// A limit of zero lets nothing through. The lengths of the windows are the service's own; they are settings so that tests can shorten them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Recipients of any class in every window of a day.
    pub recipients_per_day: Option<u32>,
    /// External recipients in every window of a day.
    pub external_recipients_per_day: Option<u32>,
    /// Messages with external recipients, or external recipients, in every window of a minute.
    pub external_per_minute: Option<(u32, Unit)>,
    /// Messages of any class in every window of a minute.
    pub messages_per_minute: Option<u32>,
    /// The shortest time between the end of one message and the start of the next. Zero is no limit.
    pub minimum_pause: Option<Duration>,
    /// How long a day is.
    pub day: Duration,
    /// How long a minute is.
    pub minute: Duration,
}

impl Limits {
    /// No limits, and windows of 24 hours and 60 seconds.
    pub const NONE: Limits = Limits {
        recipients_per_day: None,
        external_recipients_per_day: None,
        external_per_minute: None,
        messages_per_minute: None,
        minimum_pause: None,
        day: Duration::from_secs(86_400),
        minute: Duration::from_secs(60),
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::NONE
    }
}

/// What `external_per_minute` counts: the service's own texts disagree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Messages with at least one external recipient.
    Messages,
    /// External recipients.
    Recipients,
}

impl Unit {
    /// As it stands in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Recipients => "recipients",
        }
    }
}

/// Which limit. The order is the one in which they are listed, and the first of several that bind equally is the one named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LimitName {
    /// [`Limits::recipients_per_day`].
    RecipientsPerDay,
    /// [`Limits::external_recipients_per_day`].
    ExternalRecipientsPerDay,
    /// [`Limits::external_per_minute`].
    ExternalPerMinute,
    /// [`Limits::messages_per_minute`].
    MessagesPerMinute,
    /// [`Limits::minimum_pause`].
    MinimumPause,
}

impl LimitName {
    /// All of them.
    pub const ALL: [LimitName; 5] =
        [Self::RecipientsPerDay, Self::ExternalRecipientsPerDay, Self::ExternalPerMinute, Self::MessagesPerMinute, Self::MinimumPause];

    /// The key in the configuration; also the name in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RecipientsPerDay => "recipients_per_day",
            Self::ExternalRecipientsPerDay => "external_recipients_per_day",
            Self::ExternalPerMinute => "external_per_minute",
            Self::MessagesPerMinute => "messages_per_minute",
            Self::MinimumPause => "minimum_pause",
        }
    }

    /// Why something waits for it, as a sentence for operators.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::RecipientsPerDay => "the recipients allowed in 24 hours are used up",
            Self::ExternalRecipientsPerDay => "the external recipients allowed in 24 hours are used up",
            Self::ExternalPerMinute => "the external mail allowed in a minute is used up",
            Self::MessagesPerMinute => "the messages allowed in a minute are used up",
            Self::MinimumPause => "the pause after the last message is not over",
        }
    }
}

impl fmt::Display for LimitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a limit")]
pub struct NotALimit;

impl FromStr for LimitName {
    type Err = NotALimit;

    fn from_str(text: &str) -> Result<Self, NotALimit> {
        Self::ALL.into_iter().find(|name| name.as_str() == text).ok_or(NotALimit)
    }
}

/// A share of a day's budget, in thousandths: what a caller of low priority must leave to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Share(u16);

impl Share {
    /// Nothing.
    pub const NONE: Share = Share(0);

    /// So many hundredths; more than 100 is all.
    pub const fn percent(percent: u8) -> Self {
        if percent > 100 { Self(1_000) } else { Self(percent as u16 * 10) }
    }

    /// The share of `max`, in whole units, rounded up: what is kept is kept in full.
    pub fn of(self, max: u32) -> u32 {
        (u64::from(max) * u64::from(self.0)).div_ceil(1_000) as u32
    }
}

/// One message to so many recipients, all of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// What its recipients are.
    pub class: Class,
    /// How many.
    pub recipients: u32,
}

/// What an attempt used of what it had reserved. In doubt, everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// Recipients that the server took, or may have taken.
    pub recipients: u32,
    /// The message counts as one, whoever got it.
    pub message: bool,
}

impl Used {
    /// A definite refusal of everything.
    pub const NOTHING: Used = Used { recipients: 0, message: false };

    /// All of `need`: it was sent, or nobody knows.
    pub fn all(need: Need) -> Self {
        Self { recipients: need.recipients, message: true }
    }
}

/// Why a message cannot go now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// The limit that lets it through last.
    pub limit: LimitName,
    /// When it will, if every attempt in flight uses all that it reserved and nothing else is reserved before; an attempt that gives something
    /// back can make it earlier. `None`: no moment can be told, because it takes the end of an attempt in flight, or because the limit
    /// itself is smaller than what is asked ([`Budget::capacity`](super::Budget::capacity)).
    pub until: Option<Timestamp>,
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.limit.sentence(), self.limit)?;
        match self.until {
            Some(until) => write!(f, " until {until}"),
            None => f.write_str(" until an attempt in flight ends"),
        }
    }
}

/// How a limit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Which.
    pub limit: LimitName,
    /// Units that ended attempts used and that still count.
    pub used: u32,
    /// Units reserved by attempts that have not ended.
    pub in_flight: u32,
    /// How many may be used in a window. `None`: they are counted, but not limited.
    pub max: Option<u32>,
    /// The length of the window.
    pub window: Duration,
    /// When the first of the used units stops counting. `None`: none is used, or it takes the end of an attempt in flight.
    pub frees_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_limit_is_read_as_it_was_written() {
        for name in LimitName::ALL {
            assert_eq!(name.as_str().parse(), Ok(name));
            assert!(!name.sentence().is_empty());
        }
        assert_eq!("recipients".parse::<LimitName>(), Err(NotALimit));
    }

    #[test]
    fn a_share_is_kept_in_full() {
        for (percent, max, kept) in
            [(10, 100_000, 10_000), (10, 2_001, 201), (0, 7, 0), (100, 7, 7), (250, 7, 7), (1, u32::MAX, 42_949_673)]
        {
            assert_eq!(Share::percent(percent).of(max), kept, "{percent} % of {max}");
        }
    }

    #[test]
    fn a_wait_says_what_and_until_when() {
        let wait = Wait { limit: LimitName::ExternalPerMinute, until: Some(Timestamp::from_millis(60_001)) };
        assert_eq!(
            wait.to_string(),
            "the external mail allowed in a minute is used up (external_per_minute) until 1970-01-01T00:01:00.001Z"
        );
    }
}
