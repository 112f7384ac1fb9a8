//! How much mail came and went in each of the last minutes, and what failed last.
//!
//! A message counts once when it is accepted, and once for each attempt in which it was sent, deferred or failed to somebody. Limits:
//! [`MINUTES`] minutes and [`FAILURES`] failures; older ones are forgotten.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Time;
use crate::clock::Timestamp;

/// Minutes that are remembered: six hours.
pub const MINUTES: usize = 360;
/// Failures that are remembered.
pub const FAILURES: usize = 12;

const MINUTE: u64 = 60_000;

/// See the head of this file.
#[derive(Debug, Clone)]
pub struct Flow {
    since: Timestamp,
    /// The number of the last minute, counted from the epoch.
    last: u64,
    /// The last minutes, the newest at the end; never empty.
    minutes: VecDeque<Minute>,
    /// The newest first.
    failures: VecDeque<FailureEntry>,
    /// Something was counted that was not taken to be kept.
    has_changed: bool,
}

/// What happened in a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Minute {
    /// Messages that came in.
    pub accepted: u32,
    /// Attempts that sent a message.
    pub sent: u32,
    /// Attempts after which somebody still waits.
    pub deferred: u32,
    /// Attempts that failed for somebody, and messages that became too old.
    pub failed: u32,
}

/// The last minutes, oldest first; each list has one number for each minute.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Minutes {
    /// Messages that came in.
    pub accepted: Vec<u32>,
    /// Attempts that sent a message.
    pub sent: Vec<u32>,
    /// Attempts after which somebody still waits.
    pub deferred: Vec<u32>,
    /// Attempts that failed for somebody, and messages that became too old.
    pub failed: Vec<u32>,
}

/// A recipient that does not get a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureEntry {
    /// When that was known.
    pub at: Time,
    /// The delivery.
    pub id: String,
    /// Who had sent the message to the relay.
    pub client: String,
    /// The recipient.
    pub to: String,
    /// `failed`, or `expired`: too old.
    pub result: String,
    /// What the upstream server said last.
    pub reply: String,
}

impl Flow {
    /// Nothing yet.
    pub fn new(now: Timestamp) -> Self {
        let (minutes, failures) = (VecDeque::from([Minute::default()]), VecDeque::new());
        Self { since: now, last: number(now), minutes, failures, has_changed: false }
    }

    /// What an earlier run has counted until minute `last`, and nothing since. A run that lies ahead of the clock counts as one until now.
    pub fn restored(now: Timestamp, last: u64, minutes: impl IntoIterator<Item = Minute>, failures: Vec<FailureEntry>) -> Self {
        let mut flow = Self { last: last.min(number(now)), ..Self::new(now) };
        flow.minutes.extend(minutes);
        // That of a new one is the oldest, unless nothing was restored.
        if flow.minutes.len() > 1 {
            flow.minutes.pop_front();
        }
        flow.failures.extend(failures.into_iter().take(FAILURES));
        flow.advance(now);
        flow
    }

    /// Counts something.
    pub fn count(&mut self, now: Timestamp, count: impl FnOnce(&mut Minute)) {
        self.advance(now);
        self.has_changed = true;
        // Never empty.
        if let Some(minute) = self.minutes.back_mut() {
            count(minute);
        }
    }

    /// Remembers a failure; it is not counted by that.
    pub fn failed(&mut self, failure: FailureEntry) {
        self.failures.truncate(FAILURES - 1);
        self.failures.push_front(failure);
        self.has_changed = true;
    }

    /// Whether there is something new to be kept, which is to be done now.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.has_changed)
    }

    /// There is something new to be kept, for what was taken was not.
    pub fn note_changed(&mut self) {
        self.has_changed = true;
    }

    /// The number of the last minute, counted from 1970.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The minutes until then, oldest first.
    pub fn each(&self) -> impl Iterator<Item = &Minute> {
        self.minutes.iter()
    }

    /// Since when the relay runs.
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// The minutes until now, the present one at the end.
    pub fn minutes(&mut self, now: Timestamp) -> Minutes {
        self.advance(now);
        let of = |number: fn(&Minute) -> u32| self.minutes.iter().map(number).collect();
        Minutes {
            accepted: of(|minute| minute.accepted),
            sent: of(|minute| minute.sent),
            deferred: of(|minute| minute.deferred),
            failed: of(|minute| minute.failed),
        }
    }

    /// The last failures, the newest first.
    pub fn failures(&self) -> impl Iterator<Item = &FailureEntry> {
        self.failures.iter()
    }

    /// A clock that was set back counts on in the minute that it had reached.
    fn advance(&mut self, now: Timestamp) {
        let passed = number(now).saturating_sub(self.last);
        self.last += passed;
        for _ in 0..passed.min(MINUTES as u64) {
            self.minutes.push_back(Minute::default());
        }
        let more = self.minutes.len().saturating_sub(MINUTES);
        self.minutes.drain(..more);
    }
}

fn number(now: Timestamp) -> u64 {
    now.since(Timestamp::default()).as_millis() as u64 / MINUTE
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(minute: u64, second: u64) -> Timestamp {
        Timestamp::default() + Duration::from_secs(29_000_000 * 60 + minute * 60 + second)
    }

    fn accept(flow: &mut Flow, now: Timestamp) {
        flow.count(now, |minute| minute.accepted += 1);
    }

    #[test]
    fn each_minute_has_its_own_count_also_if_nothing_happened() {
        let mut flow = Flow::new(at(0, 30));
        accept(&mut flow, at(0, 59));
        accept(&mut flow, at(3, 0));
        accept(&mut flow, at(3, 59));
        // The clock was set back.
        accept(&mut flow, at(1, 0));
        assert_eq!(flow.minutes(at(4, 0)).accepted, [1, 0, 0, 3, 0]);
        assert_eq!(flow.minutes(at(4, 0)).sent, [0; 5]);
    }

    #[test]
    fn another_run_goes_on_where_the_last_one_stopped() {
        let mut flow = Flow::new(at(0, 0));
        (0..3).for_each(|_| accept(&mut flow, at(1, 0)));
        assert!(flow.take_changed() && !flow.take_changed());
        let restored = |now| Flow::restored(now, flow.last(), flow.each().copied().collect::<Vec<_>>(), Vec::new());
        assert_eq!(restored(at(4, 0)).minutes(at(4, 0)).accepted, [0, 3, 0, 0, 0]);
        assert_eq!(restored(at(1, 59)).minutes(at(1, 59)).accepted, [0, 3], "within the same minute");
        assert_eq!(restored(at(0, 30)).minutes(at(0, 30)).accepted, [0, 3], "the clock was set back");
        assert_eq!(restored(at(100_000, 0)).minutes(at(100_000, 0)).accepted, [0; MINUTES]);
        assert!(!restored(at(4, 0)).take_changed());
        assert_eq!(restored(at(4, 0)).since(), at(4, 0));
        let many = vec![Minute { accepted: 1, ..Minute::default() }; 2 * MINUTES];
        assert_eq!(Flow::restored(at(4, 0), number(at(4, 0)), many, Vec::new()).minutes(at(4, 0)).accepted, [1; MINUTES]);
        assert_eq!(Flow::restored(at(4, 0), number(at(4, 0)), Vec::new(), Vec::new()).minutes(at(4, 0)).accepted, [0]);
    }

    #[test]
    fn old_minutes_and_failures_are_forgotten() {
        let mut flow = Flow::new(at(0, 0));
        accept(&mut flow, at(0, 0));
        accept(&mut flow, at(100_000, 0));
        let minutes = flow.minutes(at(100_000, 0)).accepted;
        assert_eq!((minutes.len(), minutes.last()), (MINUTES, Some(&1)));
        assert_eq!(minutes.iter().sum::<u32>(), 1);
        for n in 0..FAILURES + 5 {
            let text = String::new;
            let failure = FailureEntry { at: Time(at(0, 0)), id: n.to_string(), client: text(), to: text(), result: text(), reply: text() };
            flow.failed(failure);
        }
        assert_eq!(flow.failures().count(), FAILURES);
        assert_eq!(flow.failures().next().map(|failure| failure.id.as_str()), Some("16"));
    }
}
