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
    /// Notices to one recipient in an hour, at most.
    pub per_hour: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            operators: Vec::new(),
            alarm_delay: Duration::from_secs(60),
            queue_age_alarm: Some(Duration::from_secs(2 * 3_600)),
            per_hour: 20,
        }
    }
}
