//! What waits for what, added up: the answer to [`Scheduler::why`] for the whole queue at once.
//!
//! Deliveries of one group (same route, class, priority and accounts) that are due wait for the same, so the accounts are asked once for each
//! group and not for each delivery. It still looks at every delivery, which takes some ten milliseconds for 100,000.

use std::collections::HashMap;

use super::explain::{Reason, Wait};
use super::lanes::AccountSet;
use super::scheduler::{Place, Scheduler};
use crate::clock::Timestamp;
use crate::mail::{Class, Priority};

/// Deliveries that wait for the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// For what, and until when at the earliest.
    pub wait: Wait,
    /// Their priority.
    pub priority: Priority,
    /// Their class.
    pub class: Class,
    /// How many.
    pub deliveries: usize,
    /// Their recipients.
    pub recipients: u64,
    /// When the oldest was accepted.
    pub oldest: Timestamp,
}

/// What deliveries have in common that wait for the same; none: it is no matter of accounts.
type Kind = (Priority, Class, Option<(u16, AccountSet)>, u8);

impl Scheduler {
    /// What waits for what: by priority, class and reason, those with the most deliveries first. What an attempt is under way for does not wait.
    pub fn waiting(&self, now: Timestamp) -> Vec<Waiting> {
        let mut kinds: HashMap<Kind, Waiting> = HashMap::new();
        for entry in self.all() {
            let group = self.group_of(entry);
            let (accounts, place, until) = match entry.place {
                Place::Active | Place::Gone => continue,
                Place::Held(_) => (None, 0, None),
                Place::Waiting(due) => (None, 1, Some(due)),
                Place::Ready => (Some((group.route, group.accounts)), 2, None),
            };
            let kind = (entry.priority, entry.class, accounts, place);
            let waiting = kinds.entry(kind).or_insert_with(|| Waiting {
                wait: match entry.place {
                    Place::Held(_) => Wait { reason: Reason::Held, until: None },
                    Place::Waiting(_) => Wait { reason: Reason::Deferred, until },
                    _ => self.why_ready(now, entry),
                },
                priority: entry.priority,
                class: entry.class,
                deliveries: 0,
                recipients: 0,
                oldest: entry.accepted_at,
            });
            waiting.deliveries += 1;
            waiting.recipients += u64::from(entry.recipients);
            waiting.oldest = waiting.oldest.min(entry.accepted_at);
            if place == 1 {
                waiting.wait.until = waiting.wait.until.min(until);
            }
        }
        let mut merged: Vec<Waiting> = Vec::new();
        for waiting in kinds.into_values() {
            let same = |other: &&mut Waiting| {
                (other.priority, other.class, &other.wait.reason) == (waiting.priority, waiting.class, &waiting.wait.reason)
            };
            match merged.iter_mut().find(same) {
                Some(other) => {
                    other.deliveries += waiting.deliveries;
                    other.recipients += waiting.recipients;
                    other.oldest = other.oldest.min(waiting.oldest);
                    // None is no matter of time.
                    other.wait.until = [other.wait.until, waiting.wait.until].into_iter().flatten().min();
                }
                None => merged.push(waiting),
            }
        }
        merged.sort_by_key(|waiting| (std::cmp::Reverse(waiting.deliveries), waiting.priority, waiting.class, waiting.oldest));
        merged
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::budget::{Limits, Unit};
    use crate::mail::{AccountName, ClientName, DeliveryId, QueueId, Queued, RouteName};
    use crate::schedule::{AccountSettings, Settings, Suspension};

    const START: Timestamp = Timestamp::from_millis(1_795_285_881_000);

    fn queued(number: i64, class: Class, priority: Priority) -> Queued {
        Queued {
            id: DeliveryId { message: QueueId::from_number(number).expect("positive"), part: 1 },
            client: ClientName::new(if number % 2 == 0 { "erp" } else { "devices" }),
            priority,
            author: None,
            held: false,
            route: RouteName::new(if number % 7 == 0 { "elsewhere" } else { "hve" }),
            class,
            recipients: (number % 5 + 1) as u16,
            size: 1_000,
            accepted_at: START + Duration::from_secs(number as u64),
            due: START + Duration::from_secs(if number % 6 == 0 { 3_600 + number as u64 } else { 0 }),
            attempts: 0,
            in_doubt: None,
        }
    }

    /// As [`Scheduler::waiting`] is defined: each delivery asked by itself.
    fn one_by_one(scheduler: &Scheduler, ids: &[Queued]) -> Vec<Waiting> {
        let mut all: Vec<Waiting> = Vec::new();
        for Queued { id, priority, class, recipients, accepted_at, .. } in ids {
            let wait = scheduler.why(START, *id).expect("it is queued");
            if wait.reason == Reason::UnderWay {
                continue;
            }
            let known = all.iter_mut().find(|one| (one.priority, one.class, &one.wait.reason) == (*priority, *class, &wait.reason));
            match known {
                Some(one) => {
                    one.deliveries += 1;
                    one.recipients += u64::from(*recipients);
                    one.oldest = one.oldest.min(*accepted_at);
                    one.wait.until = [one.wait.until, wait.until].into_iter().flatten().min();
                }
                None => all.push(Waiting {
                    wait,
                    priority: *priority,
                    class: *class,
                    deliveries: 1,
                    recipients: u64::from(*recipients),
                    oldest: *accepted_at,
                }),
            }
        }
        all.sort_by_key(|waiting| (std::cmp::Reverse(waiting.deliveries), waiting.priority, waiting.class, waiting.oldest));
        all
    }

    #[test]
    fn what_waits_is_added_up_as_each_delivery_says_by_itself() {
        let account = |n: usize, limits: Limits| AccountSettings {
            name: AccountName::new(format!("hve{n}@contoso.com")),
            route: RouteName::new("hve"),
            app: None,
            connections: 1,
            limits,
        };
        let limits = Limits { external_per_minute: Some((1, Unit::Messages)), ..Limits::NONE };
        let settings = Settings { accounts: vec![account(1, limits.clone()), account(2, limits)], ..Settings::default() };
        let mut scheduler = Scheduler::new(settings);
        let queue: Vec<Queued> = (1..200)
            .map(|n| {
                let class = if n % 3 == 0 { Class::External } else { Class::Internal };
                queued(n, class, Priority::ALL[n as usize % Priority::ALL.len()])
            })
            .collect();
        queue.iter().for_each(|entry| scheduler.add(START, entry.clone()));
        scheduler.hold(START, queue[3].id, true);
        scheduler.suspend(
            START,
            &AccountName::new("hve2@contoso.com"),
            Some(Suspension { until: Some(START + Duration::from_secs(60)), reason: "audit".to_owned() }),
        );
        for _ in 0..3 {
            assert_eq!(scheduler.waiting(START), one_by_one(&scheduler, &queue));
            scheduler.next(START);
        }
        let words = |waiting: Vec<Waiting>| waiting.into_iter().map(|one| format!("{:?}", one.wait.reason)).collect::<Vec<_>>().join(" ");
        let found = words(scheduler.waiting(START));
        for wanted in ["Held", "Deferred", "NoAccount"] {
            assert!(found.contains(wanted), "{found}");
        }
    }
}
