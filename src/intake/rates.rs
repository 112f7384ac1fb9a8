//! How much a client may begin in a minute: connections, messages, recipients.
//!
//! Each limit is a governor limiter with a burst of the limit itself: whoever was quiet may use a whole minute's number at once, and then goes
//! on at that pace. In a minute that begins so, nearly twice the limit can be met; for budgets that must hold exactly in every window there is
//! [`crate::budget`], and here nothing is lost by it: the limits keep one client from crowding out others. What was taken is not
//! given back, though a message may be dropped or refused later: the work was done.
//!
//! The limiters are shared by all sessions, and there is a fixed number of them: three for each client of the configuration at most. Time comes
//! in with each question; the same questions in the same order get the same answers.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::ClientSettings;
use crate::clock::Timestamp;
use crate::mail::ClientName;
use crate::smtp::{EnhancedStatus, Reply};
use crate::units::format_duration;

/// The most that a limit can be; governor counts nanoseconds between two.
pub const MOST_PER_MINUTE: u32 = 1_000_000;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rate {
    /// Connections that are let in.
    Connections,
    /// Messages that are begun: MAIL.
    Messages,
    /// Recipients that are accepted: RCPT.
    Recipients,
}

impl Rate {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Connections, Self::Messages, Self::Recipients];

    /// The key in the configuration.
    pub fn key(self) -> &'static str {
        match self {
            Self::Connections => "connections_per_minute",
            Self::Messages => "messages_per_minute",
            Self::Recipients => "recipients_per_minute",
        }
    }

    /// The refusal of one too many; all of them are to be tried again.
    fn refusal(self, client: &ClientName, most: u32, again: Duration) -> Reply {
        // Clients wait in seconds; the next one that begins is not too early.
        let again = format_duration(Duration::from_secs(again.as_millis().div_ceil(1_000).max(1) as u64));
        let key = self.key();
        let (code, status, what) = match self {
            Self::Connections => (421, (4, 7, 0), "connections"),
            Self::Messages => (451, (4, 7, 1), "messages"),
            Self::Recipients => (452, (4, 5, 3), "recipients"),
        };
        let (class, subject, detail) = status;
        let text = format!("Client \"{client}\" has had the {most} {what} that it may have in a minute ({key}): try again in {again}");
        Reply::new(code, EnhancedStatus::new(class, subject, detail), text)
    }
}

/// The limiters of all clients.
#[derive(Debug, Default)]
pub(super) struct Rates(HashMap<(ClientName, Rate), Arc<Meter>>);

#[derive(Debug)]
struct Meter {
    most: NonZeroU32,
    limiter: RateLimiter<NotKeyed, InMemoryState, Hand, NoOpMiddleware<Nanos>>,
    hand: Hand,
}

/// The clock that governor reads: it stands at the latest time that anybody asked at.
#[derive(Debug, Clone, Default)]
struct Hand(Arc<AtomicU64>);

impl Clock for Hand {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(self.0.load(Ordering::Relaxed))
    }
}

impl Rates {
    /// Nothing has been used yet.
    pub fn new<'c>(clients: impl IntoIterator<Item = &'c ClientSettings>) -> Self {
        let meters = clients.into_iter().flat_map(|client| {
            let limits = Rate::ALL.into_iter().filter_map(|rate| Some((rate, client.per_minute(rate)?)));
            limits.map(|(rate, most)| ((client.name.clone(), rate), Arc::new(Meter::new(most))))
        });
        Self(meters.collect())
    }

    /// The same for other clients; where a limit is as before, what has been used of it still counts.
    pub fn renewed<'c>(&self, clients: impl IntoIterator<Item = &'c ClientSettings>) -> Self {
        let mut renewed = Self::new(clients);
        for (which, meter) in &mut renewed.0 {
            if let Some(former) = self.0.get(which).filter(|former| former.most == meter.most) {
                *meter = former.clone();
            }
        }
        renewed
    }

    /// Takes one for a client.
    ///
    /// # Errors
    /// The refusal, if the client has had all that it may have.
    pub fn take(&self, now: Timestamp, client: &ClientName, rate: Rate) -> Result<(), Reply> {
        // Clients without limits are many: for them nothing is looked up by name.
        let Some(meter) = self.0.get(&(client.clone(), rate)) else { return Ok(()) };
        meter.take(now).map_err(|again| rate.refusal(client, meter.most.get(), again))
    }
}

impl Meter {
    fn new(most: NonZeroU32) -> Self {
        let hand = Hand::default();
        // The hand stands at the epoch, from where governor counts.
        Self { most, limiter: RateLimiter::direct_with_clock(Quota::per_minute(most), hand.clone()), hand }
    }

    /// Takes one, or says how long there will be none.
    fn take(&self, now: Timestamp) -> Result<(), Duration> {
        let now = u64::try_from(now.as_millis()).unwrap_or_default().saturating_mul(1_000_000);
        self.hand.0.fetch_max(now, Ordering::Relaxed);
        self.limiter.check().map_err(|until| until.earliest_possible().duration_since(self.hand.now()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_795_285_881_000);

    fn rates(per_minute: u32) -> (Rates, ClientName) {
        let client = ClientName::new("erp");
        let mut settings = ClientSettings::new(client.clone(), Vec::new());
        settings.messages_per_minute = NonZeroU32::new(per_minute);
        settings.recipients_per_minute = NonZeroU32::new(1);
        (Rates::new([&settings, &ClientSettings::new(ClientName::new("other"), Vec::new())]), client)
    }

    #[test]
    fn lets_a_minutes_number_through_at_once_and_then_keeps_the_pace() {
        let (rates, client) = rates(60);
        for _ in 0..60 {
            assert_eq!(rates.take(START, &client, Rate::Messages), Ok(()));
        }
        let refusal = rates.take(START, &client, Rate::Messages).expect_err("too many").to_string();
        assert_eq!(
            refusal,
            "451 4.7.1 Client \"erp\" has had the 60 messages that it may have in a minute (messages_per_minute): try again in 1s"
        );
        for second in 1..=100 {
            let now = START + Duration::from_secs(second);
            assert_eq!(rates.take(now, &client, Rate::Messages), Ok(()), "{second}");
            assert!(rates.take(now, &client, Rate::Messages).is_err(), "{second}");
        }
    }

    #[test]
    fn limits_each_thing_and_each_client_for_itself_and_says_when_to_come_again() {
        let (rates, client) = rates(1);
        assert_eq!(rates.take(START, &client, Rate::Messages), Ok(()));
        assert_eq!(rates.take(START, &client, Rate::Recipients), Ok(()));
        let later = START + Duration::from_millis(17_500);
        let refusal = rates.take(later, &client, Rate::Recipients).expect_err("too many").to_string();
        assert!(refusal.starts_with("452 4.5.3 ") && refusal.ends_with("(recipients_per_minute): try again in 43s"), "{refusal}");
        for _ in 0..1_000 {
            assert_eq!(rates.take(START, &client, Rate::Connections), Ok(()));
            assert_eq!(rates.take(START, &ClientName::new("other"), Rate::Messages), Ok(()));
        }
        // Whoever comes when it was told is served.
        assert_eq!(rates.take(later + Duration::from_secs(43), &client, Rate::Recipients), Ok(()));
    }

    #[test]
    fn what_was_used_still_counts_after_a_reload_that_leaves_the_limit_as_it_was() {
        let (rates, client) = rates(1);
        for rate in [Rate::Messages, Rate::Recipients] {
            assert_eq!(rates.take(START, &client, rate), Ok(()));
        }
        let mut settings = ClientSettings::new(client.clone(), Vec::new());
        settings.messages_per_minute = NonZeroU32::new(1);
        settings.recipients_per_minute = NonZeroU32::new(3);
        let renewed = rates.renewed([&settings]);
        assert!(renewed.take(START, &client, Rate::Messages).is_err());
        assert_eq!(renewed.take(START, &client, Rate::Recipients), Ok(()));
        // Sessions that began before still count, in the same place.
        assert!(rates.take(START + Duration::from_secs(59), &client, Rate::Messages).is_err());
    }

    #[test]
    fn a_clock_that_goes_back_frees_nothing() {
        let (rates, client) = rates(1);
        assert_eq!(rates.take(START, &client, Rate::Messages), Ok(()));
        for millis in [0, -1, i64::MIN, 1_795_285_880_000] {
            assert!(rates.take(Timestamp::from_millis(millis), &client, Rate::Messages).is_err());
        }
        assert_eq!(rates.take(START + Duration::from_secs(60), &client, Rate::Messages), Ok(()));
    }

    #[test]
    fn the_largest_limit_still_counts() {
        let (rates, client) = rates(MOST_PER_MINUTE);
        let taken = (0..MOST_PER_MINUTE + 10).take_while(|_| rates.take(START, &client, Rate::Messages).is_ok()).count();
        assert_eq!(taken, MOST_PER_MINUTE as usize);
    }
}
