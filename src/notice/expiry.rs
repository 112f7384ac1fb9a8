//! When it is time to announce that a secret or certificate ends. Pure.
//!
//! Each stage before the end is announced once while the relay runs, and again after a restart; a later end (the certificate was replaced)
//! begins anew. What has ended is announced every day.

use crate::clock::Timestamp;

/// Days before the end from which it is an alarm, and worth a warning.
pub const SOON: i64 = 30;
/// Days before the end.
const STAGES: &[i64] = &[SOON, 14, 7, 3, 1];
const DAY: i64 = 86_400_000;

/// What was announced of one secret or certificate.
#[derive(Debug, Default)]
pub struct Expiry {
    /// The end, and the number of days before it.
    announced: Option<(Timestamp, i64)>,
}

impl Expiry {
    /// Whether the end is to be announced now.
    pub fn is_due(&mut self, end: Timestamp, now: Timestamp) -> bool {
        let Some(stage) = stage(end, now) else { return false };
        self.announced.replace((end, stage)) != Some((end, stage))
    }
}

/// Whole days that are left, rounded up; 0 if it has ended.
pub fn days_left(end: Timestamp, now: Timestamp) -> i64 {
    let left = end.as_millis().saturating_sub(now.as_millis());
    left.max(0).div_euclid(DAY) + i64::from(left > 0 && left % DAY > 0)
}

/// The stage that was reached last: days before the end, or none yet. Behind the end the days since then count on, below zero.
fn stage(end: Timestamp, now: Timestamp) -> Option<i64> {
    let left = end.as_millis().saturating_sub(now.as_millis());
    if left <= 0 { Some(left.div_euclid(DAY)) } else { STAGES.iter().rev().copied().find(|days| left <= days * DAY) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(days: i64) -> Timestamp {
        Timestamp::from_millis(days * DAY)
    }

    #[test]
    fn announces_each_stage_once() {
        let mut expiry = Expiry::default();
        let end = day(100);
        let due: Vec<i64> =
            (0..24 * 103).filter(|hour| expiry.is_due(end, Timestamp::from_millis(hour * DAY / 24))).map(|hour| hour / 24).collect();
        assert_eq!(due, [70, 86, 93, 97, 99, 100, 100, 101, 102]);
    }

    #[test]
    fn a_later_end_begins_anew() {
        let mut expiry = Expiry::default();
        assert!(expiry.is_due(day(5), day(0)));
        assert!(!expiry.is_due(day(5), day(0)));
        assert!(!expiry.is_due(day(400), day(0)));
        assert!(expiry.is_due(day(406), day(401)));
    }

    #[test]
    fn counts_days_that_have_begun() {
        for (end, now, days) in [(day(2), day(0), 2), (day(2), Timestamp::from_millis(1), 2), (day(2), day(2), 0), (day(2), day(9), 0)] {
            assert_eq!(days_left(end, now), days);
        }
    }
}
