//! How long each step of a conversation took, for the metrics: from the end of the step before to its own.

use std::time::{Duration, Instant};

use crate::reply::Step;

/// The steps since the last time that they were taken.
#[derive(Debug)]
pub(super) struct Laps {
    since: Instant,
    taken: Vec<(Step, Duration)>,
}

impl Laps {
    /// The first step begins now.
    pub fn new() -> Self {
        Self { since: Instant::now(), taken: Vec::new() }
    }

    /// The next step begins now, whatever was before it.
    pub fn begin(&mut self) {
        self.since = Instant::now();
    }

    /// This step has ended. If it is the same as the last, such as one of many RCPT, it goes on.
    pub fn lap(&mut self, step: Step) {
        let now = Instant::now();
        let took = now.saturating_duration_since(self.since);
        self.since = now;
        match self.taken.last_mut() {
            Some((last, whole)) if *last == step => *whole += took,
            _ => self.taken.push((step, took)),
        }
    }

    /// What there was.
    pub fn take(&mut self) -> Vec<(Step, Duration)> {
        std::mem::take(&mut self.taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_are_repeated_are_one() {
        let mut laps = Laps::new();
        for step in [Step::Mail, Step::Rcpt, Step::Rcpt, Step::Data] {
            laps.lap(step);
        }
        let steps: Vec<Step> = laps.take().into_iter().map(|(step, _)| step).collect();
        assert_eq!(steps, [Step::Mail, Step::Rcpt, Step::Data]);
        assert!(laps.take().is_empty());
    }
}
