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
