//! How much mail came and went in each of the last minutes, and what failed last: counted from the start of the relay, in memory alone.
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
        Self { since: now, last: number(now), minutes: VecDeque::from([Minute::default()]), failures: VecDeque::new() }
    }

    /// Counts something.
    pub fn count(&mut self, now: Timestamp, count: impl FnOnce(&mut Minute)) {
        self.advance(now);
        // Never empty.
        if let Some(minute) = self.minutes.back_mut() {
            count(minute);
        }
    }

    /// Remembers a failure; it is not counted by that.
    pub fn failed(&mut self, failure: FailureEntry) {
        self.failures.truncate(FAILURES - 1);
        self.failures.push_front(failure);
    }

    /// Since when it is counted.
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
