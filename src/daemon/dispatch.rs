//! The one task that owns the scheduler: it hears of what was accepted and what ended, and starts attempts.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::attempt;
use super::{Phase, Shared};
use crate::clock::Timestamp;
use crate::mail::{AccountName, DeliveryId, Queued};
use crate::schedule::{Decision, Finished, Scheduler};
use crate::store::Spool;
use crate::telemetry;

/// What the dispatcher hears.
#[derive(Debug)]
pub(super) enum Event {
    /// These were accepted.
    Add(Vec<Queued>),
    /// An attempt ended, and the store knows.
    Finished(Finished),
    /// An attempt did not begin, because the store could not record it.
    PutBack {
        /// Which.
        delivery: DeliveryId,
        /// On which account it was to be.
        account: AccountName,
        /// When to try again.
        due: Timestamp,
    },
}

/// How many events are heard before the next attempts start.
const BATCH: usize = 256;

/// Runs until the shutdown has come and the attempts under way have ended, or its grace is over. Returns how many deliveries stay queued.
pub(super) async fn run<S: Spool>(shared: Arc<Shared<S>>, mut scheduler: Scheduler, mut events: mpsc::UnboundedReceiver<Event>) -> usize {
    let mut attempts = JoinSet::new();
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let now = shared.clock.now();
        let phase = shared.shutdown.phase();
        if phase == Phase::Running {
            while let Some(decision) = scheduler.next(now) {
                match decision {
                    Decision::Attempt { delivery, account } => attempts.spawn(attempt::run(shared.clone(), delivery, account)),
                    Decision::Expire { delivery } => attempts.spawn(attempt::expire(shared.clone(), delivery)),
                };
            }
        }
        if phase == Phase::Ending || (phase == Phase::Stopping && attempts.is_empty()) {
            attempts.shutdown().await;
            let counts = scheduler.counts();
            return counts.active + counts.ready + counts.deferred;
        }
        let deadline = scheduler.deadline().filter(|_| phase == Phase::Running);
        let wait = deadline.map(|deadline| deadline.since(now));
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
                Event::Finished(finished) => scheduler.finish(now, finished).iter().for_each(telemetry::gate),
                Event::PutBack { delivery, account, due } => scheduler.put_back(now, delivery, &account, due),
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
