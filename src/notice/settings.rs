//! Who is told what, and how often.

use std::time::Duration;

use crate::smtp::Mailbox;

/// What holds for all notices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Who gets alarms; may be nobody.
    pub operators: Vec<Mailbox>,
    /// How long alarms are gathered into one mail.
    pub alarm_delay: Duration,
    /// Mail that waits longer is an alarm; none: it never is.
    pub queue_age_alarm: Option<Duration>,
    /// Mail that waits for so long is told of to its sender; none: it is not.
    pub delay_warning: Option<Duration>,
    /// What a reader is told after a notice is gathered for so long.
    pub digest_interval: Duration,
    /// Notices to one reader in an hour, at most.
    pub per_hour: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            operators: Vec::new(),
            alarm_delay: Duration::from_secs(60),
            queue_age_alarm: Some(Duration::from_secs(2 * 3_600)),
            // RFC 5321 §4.5.4.1 speaks of four to five days, and senders want to know within a working day.
            delay_warning: Some(Duration::from_secs(4 * 3_600)),
            digest_interval: Duration::from_secs(15 * 60),
            per_hour: 20,
        }
    }
}
