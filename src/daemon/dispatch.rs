//! The one task that owns the scheduler: it hears of what was accepted and what ended, and starts attempts.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::attempt::{self, STORE_RETRY};
use super::ledger::Books;
use super::{Phase, Shared};
use crate::clock::Timestamp;
use crate::mail::{DeliveryId, Queued};
use crate::schedule::{Decision, Ended, Scheduler};
use crate::store::Spool;
use crate::telemetry;

/// What the dispatcher hears.
#[derive(Debug)]
pub(super) enum Event {
    /// These were accepted.
    Add(Vec<Queued>),
    /// An attempt ended.
    Ended(Ended),
    /// The store has recorded the end of an attempt.
    Settled {
        /// Which delivery.
        delivery: DeliveryId,
        /// Recipients that are not settled.
        remaining: u16,
        /// For those: the earliest time of the next attempt.
        due: Timestamp,
    },
    /// An attempt did not begin, because the store could not record it.
    PutBack {
        /// Which.
        delivery: DeliveryId,
        /// When to try again.
        due: Timestamp,
    },
    /// Somebody wants to know or to change something: this is done with the scheduler, between two decisions.
    Ask(Question),
}

/// See [`Event::Ask`].
pub(super) struct Question(pub Box<Asked>);

/// What is done with the scheduler, at that time.
type Asked = dyn FnOnce(&mut Scheduler, Timestamp) + Send;

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Question")
    }
}

/// How many events are heard before the next attempts start.
const BATCH: usize = 256;

/// Runs until the shutdown has come and the attempts under way have ended, or its grace is over. Returns how many deliveries stay queued.
pub(super) async fn run<S: Spool>(shared: Arc<Shared<S>>, mut scheduler: Scheduler, mut events: mpsc::UnboundedReceiver<Event>) -> usize {
    let mut attempts = JoinSet::new();
    let mut books = Books::default();
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let now = shared.clock.now();
        let phase = shared.shutdown.phase();
        if phase == Phase::Running {
            let decisions: Vec<Decision> = std::iter::from_fn(|| scheduler.next(now)).collect();
            // What is reserved is durable before anything of it is used. What was given back or used up may wait: until it is recorded it counts
            // as in flight, and after a crash as used.
            let starts = decisions.iter().any(|decision| matches!(decision, Decision::Attempt { .. }));
            let kept = !starts && !books.are_late(now) || books.keep(&shared, &mut scheduler).await;
            for decision in decisions {
                match decision {
                    Decision::Expire { delivery } => {
                        attempts.spawn(attempt::expire(shared.clone(), delivery));
                    }
                    Decision::Attempt { delivery, account, recipients } if kept => {
                        attempts.spawn(attempt::run(shared.clone(), delivery, account, recipients));
                    }
                    Decision::Attempt { delivery, .. } => scheduler.put_back(now, delivery, now + STORE_RETRY),
                }
            }
        }
        if phase == Phase::Ending || (phase == Phase::Stopping && attempts.is_empty()) {
            attempts.shutdown().await;
            books.keep(&shared, &mut scheduler).await;
            let counts = scheduler.counts();
            return counts.active + counts.ready + counts.deferred + counts.held;
        }
        let deadline = scheduler.deadline(now).filter(|_| phase == Phase::Running);
        let wait = deadline.into_iter().chain(books.due()).min().map(|deadline| deadline.since(now));
        tokio::select! {
            _ = events.recv_many(&mut batch, BATCH) => {}
            Some(_) = attempts.join_next(), if !attempts.is_empty() => {}
            () = super::sleep(wait) => {}
            () = shared.shutdown.reached(next(phase)) => {}
        }
        let now = shared.clock.now();
        for event in batch.drain(..) {
            match event {
                Event::Add(queued) => queued.into_iter().for_each(|queued| scheduler.add(now, queued)),
                Event::Ended(ended) => {
                    for change in scheduler.ended(now, &ended) {
                        telemetry::gate(&change);
                        shared.alarm_of_gate(&change);
                    }
                    books.note(now);
                }
                Event::Settled { delivery, remaining, due } => scheduler.settled(now, delivery, remaining, due),
                Event::PutBack { delivery, due } => {
                    scheduler.put_back(now, delivery, due);
                    books.note(now);
                }
                Event::Ask(Question(question)) => question(&mut scheduler, now),
            }
        }
    }
}

fn next(phase: Phase) -> Phase {
    match phase {
        Phase::Running => Phase::Stopping,
        Phase::Stopping | Phase::Ending => Phase::Ending,
    }
}
