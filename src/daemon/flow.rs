//! What came and went, counted for the page as it is told to the log, and what is kept of that: see `counts`.

use std::sync::{MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::Shared;
use crate::admin::{FailureEntry, Flow, Minute, Time};
use crate::clock::Timestamp;
use crate::mail::{Delivery, Message, Recipient};
use crate::reply::{Disposition, Outcome};
use crate::store::Spool;

/// More than a relay moves in a minute: whatever a file says, its numbers can be added up.
const MOST: u32 = 10_000_000;

/// What is in the file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The number of the last minute, counted from 1970.
    last: u64,
    /// What was accepted, sent, deferred and failed in each minute until then.
    minutes: Vec<[u32; 4]>,
    /// The newest first.
    failures: Vec<FailureEntry>,
}

/// Goes on from what an earlier run has counted.
pub(super) fn restored(kept: Option<Kept>, now: Timestamp) -> Flow {
    let Some(Kept { last, minutes, failures }) = kept else { return Flow::new(now) };
    let minute = |row: [u32; 4]| {
        let [accepted, sent, deferred, failed] = row.map(|count| count.min(MOST));
        Minute { accepted, sent, deferred, failed }
    };
    Flow::restored(now, last, minutes.into_iter().map(minute), failures)
}

/// What is to be kept, if there is anything new. Whoever keeps no history wants no addresses on the disk.
pub(super) fn kept(flow: &mut Flow, failures: bool) -> Option<Kept> {
    let row = |minute: &Minute| [minute.accepted, minute.sent, minute.deferred, minute.failed];
    flow.take_changed().then(|| Kept {
        last: flow.last(),
        minutes: flow.each().map(row).collect(),
        failures: flow.failures().filter(|_| failures).cloned().collect(),
    })
}

impl<S: Spool> Shared<S> {
    /// A message was accepted.
    pub(super) fn has_come(&self) {
        self.flow().count(self.clock.now(), |minute| minute.accepted += 1);
    }

    /// An attempt has ended, with an outcome for each recipient.
    pub(super) fn has_ended(&self, message: &Message, delivery: &Delivery, outcomes: &[Outcome], ended: Timestamp) {
        let is = |disposition| u32::from(outcomes.iter().any(|outcome| outcome.disposition == disposition));
        let mut flow = self.flow();
        flow.count(ended, |minute| {
            minute.sent += is(Disposition::Sent);
            minute.deferred += is(Disposition::Deferred);
            minute.failed += is(Disposition::Failed);
        });
        for (recipient, outcome) in delivery.recipients.iter().zip(outcomes) {
            if outcome.disposition == Disposition::Failed {
                flow.failed(failure(message, delivery, recipient, "failed", &outcome.diagnostic, ended));
            }
        }
    }

    /// A delivery became too old.
    pub(super) fn has_expired(&self, message: &Message, delivery: &Delivery, last_reply: &str, now: Timestamp) {
        let mut flow = self.flow();
        flow.count(now, |minute| minute.failed += 1);
        delivery.recipients.iter().for_each(|recipient| flow.failed(failure(message, delivery, recipient, "expired", last_reply, now)));
    }

    pub(super) fn flow(&self) -> MutexGuard<'_, Flow> {
        // Counting cannot panic half-way, so a poisoned lock still guards true numbers.
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failure(message: &Message, delivery: &Delivery, recipient: &Recipient, result: &str, reply: &str, at: Timestamp) -> FailureEntry {
    FailureEntry {
        at: Time(at),
        id: delivery.id.to_string(),
        client: message.client.to_string(),
        to: recipient.address.to_string(),
        result: result.to_owned(),
        reply: reply.to_owned(),
    }
}
