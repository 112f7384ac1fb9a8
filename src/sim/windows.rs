//! The budgets of an account, kept in the plainest way that is exact: a log of what was used and when.
//!
//! This is the observer that proves the relay's own budgets right, so it must be right for reasons of its own: no buckets, no rates, one
//! entry for each message, and an entry counts until its window has passed to the nanosecond. What is refused uses nothing.

use std::collections::VecDeque;
use std::time::Instant;

use super::settings::{ExternalUnit, Limit, Limits};

/// What an account has used.
#[derive(Debug)]
pub(super) struct Budgets {
    recipients: Option<Window>,
    external_messages: Option<Window>,
    external_unit: ExternalUnit,
    external_recipients: Option<Window>,
}

/// Which budget was used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exceeded {
    Recipients,
    ExternalMessages,
    ExternalRecipients,
}

impl Budgets {
    pub(super) fn new(limits: &Limits) -> Self {
        let window = |limit: Option<Limit>| limit.map(Window::new);
        Self {
            recipients: window(limits.recipients),
            external_messages: window(limits.external_messages),
            external_unit: limits.external_unit,
            external_recipients: window(limits.external_recipients),
        }
    }

    /// Charges one message with so many recipients, so many of them external: all of it, or, if one budget does not have it, nothing.
    /// `now` must not be before that of an earlier call.
    pub(super) fn charge(&mut self, now: Instant, recipients: u64, external: u64) -> Result<(), Exceeded> {
        let rate = match self.external_unit {
            ExternalUnit::Messages => u64::from(external > 0),
            ExternalUnit::Recipients => external,
        };
        let mut uses = [
            (&mut self.external_messages, rate, Exceeded::ExternalMessages),
            (&mut self.external_recipients, external, Exceeded::ExternalRecipients),
            (&mut self.recipients, recipients, Exceeded::Recipients),
        ];
        for (window, amount, exceeded) in &mut uses {
            if let Some(window) = window
                && !window.has(now, *amount)
            {
                return Err(*exceeded);
            }
        }
        for (window, amount, _) in uses {
            if let Some(window) = window {
                window.add(now, amount);
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Window {
    limit: Limit,
    /// When, and how much; oldest first.
    log: VecDeque<(Instant, u64)>,
    /// The sum of the log.
    used: u64,
}

impl Window {
    fn new(limit: Limit) -> Self {
        Self { limit, log: VecDeque::new(), used: 0 }
    }

    fn has(&mut self, now: Instant, amount: u64) -> bool {
        while let Some((at, used)) = self.log.front()
            && now.duration_since(*at) >= self.limit.window
        {
            self.used -= used;
            self.log.pop_front();
        }
        amount == 0 || self.used + amount <= self.limit.count
    }

    fn add(&mut self, now: Instant, amount: u64) {
        if amount > 0 {
            self.used += amount;
            self.log.push_back((now, amount));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn limited(limits: Limits) -> (Budgets, Instant) {
        (Budgets::new(&limits), Instant::now())
    }

    #[test]
    fn a_minute_frees_to_the_nanosecond() {
        let (mut budgets, start) = limited(Limits::PREVIEW);
        for second in 0..10 {
            assert_eq!(budgets.charge(start + Duration::from_secs(second), 1, 1), Ok(()));
        }
        let instant_before = start + MINUTE - Duration::from_nanos(1);
        assert_eq!(budgets.charge(start + Duration::from_secs(10), 1, 1), Err(Exceeded::ExternalMessages));
        assert_eq!(budgets.charge(instant_before, 1, 1), Err(Exceeded::ExternalMessages));
        assert_eq!(budgets.charge(instant_before, 1, 0), Ok(()), "internal mail is not concerned");
        assert_eq!(budgets.charge(start + MINUTE, 1, 1), Ok(()));
        assert_eq!(budgets.charge(start + MINUTE, 1, 1), Err(Exceeded::ExternalMessages));
    }

    #[test]
    fn a_minute_counts_recipients_where_it_is_told_to() {
        let (mut budgets, start) = limited(Limits { external_unit: ExternalUnit::Recipients, ..Limits::PREVIEW });
        assert_eq!(budgets.charge(start, 9, 9), Ok(()));
        assert_eq!(budgets.charge(start, 3, 2), Err(Exceeded::ExternalMessages));
        assert_eq!(budgets.charge(start, 3, 1), Ok(()));
    }

    #[test]
    fn a_refused_message_uses_nothing() {
        let limits = Limits { external_recipients: Some(Limit { count: 5, window: MINUTE }), ..Limits::PREVIEW };
        let (mut budgets, start) = limited(limits);
        for _ in 0..20 {
            assert_eq!(budgets.charge(start, 6, 6), Err(Exceeded::ExternalRecipients));
        }
        assert_eq!(budgets.charge(start, 5, 5), Ok(()));
        assert_eq!(budgets.charge(start, 1, 1), Err(Exceeded::ExternalRecipients));
    }

    #[test]
    fn recipients_are_counted_whatever_their_class() {
        let (mut budgets, start) = limited(Limits { recipients: Some(Limit { count: 100, window: MINUTE }), ..Limits::NONE });
        assert_eq!(budgets.charge(start, 50, 50), Ok(()));
        assert_eq!(budgets.charge(start, 50, 0), Ok(()));
        assert_eq!(budgets.charge(start, 1, 0), Err(Exceeded::Recipients));
        assert_eq!(budgets.charge(start + MINUTE, 50, 0), Ok(()));
    }

    proptest! {
        #[test]
        fn no_window_of_the_length_holds_more_than_the_limit(
            events in prop::collection::vec((0_u64..40, 1_u64..6), 1..200), count in 1_u64..12, length in 1_u64..60,
        ) {
            let window = Duration::from_millis(length);
            let (mut budgets, start) = limited(Limits { recipients: Some(Limit { count, window }), ..Limits::NONE });
            let mut taken: Vec<(u64, u64)> = Vec::new();
            let mut now = 0;
            for (pause, amount) in events {
                now += pause;
                let used: u64 = taken.iter().filter(|(at, _)| at + length > now).map(|(_, amount)| amount).sum();
                let free = used + amount <= count;
                prop_assert_eq!(budgets.charge(start + Duration::from_millis(now), amount, 0).is_ok(), free);
                if free {
                    taken.push((now, amount));
                }
            }
        }
    }
}
