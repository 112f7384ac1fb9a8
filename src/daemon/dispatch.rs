//! The one task that owns the scheduler: it hears of what was accepted and what ended, and starts attempts.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::attempt::{self, STORE_RETRY};
use super::ledger::{Books, STARTING};
use super::{Phase, Setup, Shared, Upstream, probe, sorting};
use crate::clock::Timestamp;
use crate::mail::{AccountName, DeliveryId, Queued};
use crate::reply::PauseLength;
use crate::schedule::{Chance, Change, Decision, Ended, Probed, Scheduler, Who};
use crate::store::{Spool, Start, StoreError};
use crate::telemetry;
use crate::upstream::Turns;

/// What the dispatcher hears.
#[derive(Debug)]
pub(super) enum Event {
    /// These were accepted.
    Add(Vec<Queued>),
    /// It could not be recorded that these attempts begin, and none does.
    NotBegun(Beginning, StoreError),
    /// An attempt ended; perhaps because a login of these was refused.
    Ended(Ended, Option<Turns>),
    /// The store has recorded the end of an attempt.
    Settled {
        /// Which delivery.
        delivery: DeliveryId,
        /// Recipients that are not settled.
        remaining: u16,
        /// For those: the earliest time of the next attempt.
        due: Timestamp,
        /// They are held from here on.
        held: bool,
        /// The account that they do better without for the moment, and whether the attempt did not count because of that.
        elsewhere: Option<(AccountName, Chance)>,
    },
    /// An attempt did not begin: the store does not know its delivery any more.
    Gone(DeliveryId),
    /// An attempt did not begin, because what it needs is not to be had.
    PutBack {
        /// Which.
        delivery: DeliveryId,
        /// When to try again.
        due: Timestamp,
    },
    /// From here on another configuration is in force.
    Switch(Box<Switch>),
    /// All queued mail is where the configuration sends it.
    Sorted,
    /// A login without mail has ended; the same.
    Probed(Probed, Option<Turns>),
    /// Somebody wants to know or to change something: this is done with the scheduler, between two decisions.
    Ask(Question),
}

/// Attempts that were decided on, each with what [`Upstream::heard`] said then.
type Beginning = Vec<(Start, Chance, u64)>;

/// See [`Event::Switch`].
pub(super) struct Switch {
    pub setup: Arc<Setup>,
    /// What stood in the way of these may have been put right.
    pub try_again: Vec<Who>,
    /// Nothing is sent until [`Event::Sorted`].
    pub resting: bool,
    pub done: oneshot::Sender<()>,
}

impl std::fmt::Debug for Switch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Switch")
    }
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
/// While `resting`, which ends with [`Event::Sorted`], nothing is sent.
pub(super) async fn run<S: Spool>(
    shared: Arc<Shared<S>>,
    mut scheduler: Scheduler,
    mut events: mpsc::UnboundedReceiver<Event>,
    mut resting: bool,
) -> usize {
    let mut attempts = JoinSet::new();
    let mut books = Books::default();
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let now = shared.clock.now();
        let phase = shared.shutdown.phase();
        if phase == Phase::Running && !resting {
            let decisions: Vec<Decision> = std::iter::from_fn(|| scheduler.next(now)).collect();
            let (mut starts, mut probes, setup) = (Vec::new(), Vec::new(), shared.setup());
            for decision in decisions {
                match decision {
                    Decision::Expire { delivery } => drop(attempts.spawn(attempt::expire(shared.clone(), delivery))),
                    Decision::Probe { account } => probes.push(account),
                    Decision::Attempt { delivery, account, recipients, chance } => {
                        // A delivery may come from a route that takes more at a time.
                        let upstream = setup.accounts.get(&account);
                        let (most, heard) = upstream.map_or((recipients, 0), |upstream| (upstream.most, upstream.heard()));
                        starts.push((Start { delivery, account, recipients: recipients.min(most) }, chance, heard));
                    }
                }
            }
            // What is reserved is durable before anything of it is used. What was given back or used up may wait: until it is recorded it counts
            // as in flight, and after a crash as used.
            if !starts.is_empty() {
                begin((&shared, &setup, now), &mut scheduler, &mut books, &mut attempts, starts).await;
            } else if books.are_late(now) || !probes.is_empty() {
                books.keep(&shared, &mut scheduler).await;
            }
            // The time of the next login is recorded too, or a relay that is restarted again and again would try each time.
            begin_probes(&shared, &mut scheduler, &books, &mut attempts, probes);
            tell(&shared, scheduler.news());
        }
        // What was accepted just before is still counted.
        if phase == Phase::Ending || (phase == Phase::Stopping && attempts.is_empty() && events.is_empty()) {
            attempts.shutdown().await;
            books.keep(&shared, &mut scheduler).await;
            let counts = scheduler.counts();
            return counts.active + counts.ready + counts.deferred + counts.held;
        }
        let deadline = scheduler.deadline(now).filter(|_| phase == Phase::Running && !resting);
        let wait = deadline.into_iter().chain(books.due()).min().map(|deadline| deadline.since(now));
        tokio::select! {
            _ = events.recv_many(&mut batch, BATCH) => {}
            Some(_) = attempts.join_next(), if !attempts.is_empty() => {}
            () = super::sleep(wait) => {}
            () = shared.shutdown.reached(next(phase)) => {}
        }
        let now = shared.clock.now();
        let mut changes = Vec::new();
        for event in batch.drain(..) {
            match event {
                Event::Add(queued) => {
                    let setup = shared.setup();
                    for mut queued in queued {
                        // Its session may have begun under other rules.
                        if sorting::is_stray(&setup.policy, &queued) {
                            queued.due = now + STORE_RETRY;
                            drop(attempts.spawn(sorting::one(shared.clone(), queued.id)));
                        }
                        scheduler.add(now, queued);
                    }
                }
                Event::NotBegun(beginning, error) => {
                    books.failed(&shared, &error, STARTING);
                    put_back(now, &mut scheduler, &beginning);
                }
                Event::Ended(ended, refused) => {
                    changes.extend(scheduler.ended(now, &ended));
                    books.note(now);
                    refused.iter().for_each(Turns::hear);
                }
                Event::Probed(probed, refused) => {
                    changes.extend(scheduler.probed(now, &probed));
                    books.note(now);
                    refused.iter().for_each(Turns::hear);
                }
                Event::Settled { delivery, remaining, due, held, elsewhere } => {
                    if held {
                        scheduler.hold(now, delivery, true);
                    }
                    scheduler.settled(now, delivery, remaining, due);
                    match elsewhere {
                        Some((account, Chance::First)) => scheduler.try_elsewhere(delivery, &account),
                        Some((account, _)) => scheduler.avoid(delivery, &account),
                        None => {}
                    }
                }
                Event::Gone(delivery) => {
                    scheduler.put_back(now, delivery, now);
                    scheduler.settled(now, delivery, 0, now);
                    books.note(now);
                }
                Event::PutBack { delivery, due } => {
                    scheduler.put_back(now, delivery, due);
                    books.note(now);
                }
                Event::Switch(switch) => {
                    let Switch { setup, try_again, resting: rests, done } = *switch;
                    scheduler.change(now, setup.schedule.clone());
                    try_again.iter().for_each(|who| scheduler.try_again(now, who));
                    changes.extend(scheduler.news());
                    shared.setup.send_replace(setup);
                    resting = rests;
                    books.note(now);
                    // Whoever asked may have gone.
                    let _ = done.send(());
                }
                Event::Sorted => resting = false,
                Event::Ask(Question(question)) => {
                    question(&mut scheduler, now);
                    changes.extend(scheduler.news());
                    books.note(now);
                }
            }
        }
        // Whoever has read that somebody is suspended finds it so after a crash too.
        if changes.iter().any(suspends) {
            books.keep(&shared, &mut scheduler).await;
        }
        tell(&shared, changes);
    }
}

fn suspends(change: &Change) -> bool {
    matches!(change, Change::Closed { pause, .. } if pause.length == PauseLength::Suspended)
}

/// Tells of gates that closed or opened.
fn tell<S: Spool>(shared: &Shared<S>, changes: Vec<Change>) {
    for change in changes {
        telemetry::gate(&change);
        shared.alarm_of_gate(&change);
    }
}

/// Lets logins without mail begin, if it is recorded that they do; if not, they have ended without a word, and come again when it is their time.
fn begin_probes<S: Spool>(
    shared: &Arc<Shared<S>>,
    scheduler: &mut Scheduler,
    books: &Books,
    attempts: &mut JoinSet<()>,
    probes: Vec<AccountName>,
) {
    let (now, setup) = (shared.clock.now(), shared.setup());
    for account in probes {
        if books.are_kept() {
            let heard = setup.accounts.get(&account).map_or(0, Upstream::heard);
            attempts.spawn(probe::run(shared.clone(), setup.clone(), account, heard, now));
        } else {
            scheduler.probe_put_back(&account);
        }
    }
}

/// Has it recorded that these attempts begin, all at once: what ends meanwhile need not wait for that. Each waits for it by itself, and goes
/// on without another word from here: whatever lies between the end of an attempt and the next on its connection is time lost.
async fn begin<S: Spool>(
    (shared, setup, now): (&Arc<Shared<S>>, &Arc<Setup>, Timestamp),
    scheduler: &mut Scheduler,
    books: &mut Books,
    attempts: &mut JoinSet<()>,
    beginning: Beginning,
) {
    let starts = beginning.iter().map(|(start, ..)| start.clone()).collect();
    let Some(starting) = books.start(shared, scheduler, starts, now).await else {
        // The books are behind and know it.
        return put_back(now, scheduler, &beginning);
    };
    let mut waiting = Vec::with_capacity(beginning.len());
    for (start, chance, heard) in &beginning {
        let (tell, told) = oneshot::channel();
        attempts.spawn(attempt::run(shared.clone(), setup.clone(), (start.clone(), *chance, *heard), now, told));
        waiting.push(tell);
    }
    let shared = shared.clone();
    attempts.spawn(async move {
        match starting.await {
            // Whoever waited may have been ended.
            Ok(started) => waiting.into_iter().zip(started).for_each(|(tell, started)| drop(tell.send(started))),
            Err(error) => shared.tell(Event::NotBegun(beginning, error)),
        }
    });
}

/// None of these begins; they come again after a while.
fn put_back(now: Timestamp, scheduler: &mut Scheduler, beginning: &Beginning) {
    beginning.iter().for_each(|(start, ..)| scheduler.put_back(now, start.delivery, now + STORE_RETRY));
}

fn next(phase: Phase) -> Phase {
    match phase {
        Phase::Running => Phase::Stopping,
        Phase::Stopping | Phase::Ending => Phase::Ending,
    }
}
