//! Messages that an operator brings in, out of files or out of a backup.
//!
//! Nothing that the relay has is changed by it: what is queued stays as it is, and of what has left since the message was written the history
//! tells, recipient by recipient. A message that is neither in the store nor with the scheduler has been given to the history, so that nobody who is
//! remembered as settled gets it a second time, however busy the relay is. (What an operator has removed comes back out of files, because he who
//! asks for it wants it, and not out of a backup.) Where there is no history, or it has lost what came just before a crash, nobody
//! knows: for that there is the choice to hold what may have left.
//!
//! The content comes into the store as a session's does. The rest is a change like any other of an operator's, carried out in turn and to its
//! end; whoever is cut off asks once more.

use std::collections::HashSet;
use std::time::Duration;

use super::attempt::queued;
use super::control::{ask, listed, unavailable};
use super::dispatch::Event;
use super::{Shared, sorting};
use crate::admin::{BringIn, BroughtIn, Operator, Outcome, Pieces, Range, Refusal, Target};
use crate::mail::{Delivery, Queued};
use crate::store::history::{Left, Record};
use crate::store::{Incoming, Letter, Spool, Standing, sqlite};
use crate::telemetry;

/// How often it is looked whether a message has left that is about to, and how long it is waited in between.
const LOOKS: usize = 100;
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A message that is asked to be brought in.
pub(super) enum Found {
    /// It is not needed.
    Had(BroughtIn),
    /// It is.
    Missing(Box<Missing>),
}

/// What is missing of a message.
pub(super) struct Missing {
    letter: Letter,
    /// Where it comes from.
    from: String,
    settled: usize,
}

/// Finds out what is missing of it.
pub(super) async fn look<S: Spool>(shared: &Shared<S>, asked: BringIn) -> Result<Found, Refusal> {
    let BringIn { in_doubt, backup_of, envelope } = asked;
    let mut letter = Letter::of(envelope, shared.clock.now()).map_err(Refusal::Invalid)?;
    let (id, size) = (letter.message.id, letter.message.size);
    if !listed(shared, Range::of(Target::Message(id))).await?.is_empty() {
        return Ok(Found::Had(had(Outcome::Queued, 0)));
    }
    // Before the history is asked: what the scheduler has let go of was given to that.
    let mut looks = LOOKS;
    while ask(shared, move |scheduler, _| scheduler.knows(id)).await? {
        looks -= 1;
        if looks == 0 {
            return Err(Refusal::Conflict("it is leaving the queue at this moment; run the same command again".to_owned()));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let is_final = |left: &Left| *left != Left::Removed || backup_of.is_some();
    let settled = shared.history.settled(id).await.map_err(|error| unavailable(shared, error))?;
    let settled: HashSet<String> = settled.into_iter().filter(|(_, left)| is_final(left)).map(|(address, _)| address).collect();
    let left_out = letter.leave_out(|address| settled.contains(&address.to_string()));
    if letter.deliveries.is_empty() {
        return Ok(Found::Had(had(Outcome::Left, left_out)));
    }
    let limit = shared.setup().session.message_size;
    if size > limit {
        let text = format!("it has {size} octets, and limits.message_size is {limit}: raise it, reload, and run the same command again");
        return Err(Refusal::Conflict(text));
    }
    let (from, why) = match backup_of {
        Some(taken) => (format!("from the backup of {}", taken.0), sqlite::from_backup(taken.0)),
        None => ("from files".to_owned(), sqlite::FROM_FILES.to_owned()),
    };
    letter.doubt(in_doubt, &why);
    Ok(Found::Missing(Box::new(Missing { letter, from, settled: left_out })))
}

fn had(outcome: Outcome, settled: usize) -> BroughtIn {
    BroughtIn { outcome, deliveries: 0, settled }
}

/// Takes its content in, which is not yet kept.
pub(super) async fn take<S: Spool>(shared: &Shared<S>, missing: &Missing, content: &mut Pieces) -> Result<S::Incoming, Refusal> {
    let (id, size) = (missing.letter.message.id, missing.letter.message.size);
    let failed = |error| unavailable(shared, error);
    let mut incoming = shared.store.begin(id, size).map_err(failed)?;
    let mut came = 0;
    while let Some(piece) = content.next().await? {
        came += piece.len() as u64;
        if came > size {
            break;
        }
        incoming.write(&piece).await.map_err(failed)?;
    }
    if came == size {
        return Ok(incoming);
    }
    Err(Refusal::Invalid(format!("its content has not the {size} octets that its envelope says")))
}

/// Keeps it, and gives it to the scheduler, by the routes of the present configuration.
pub(super) async fn keep<S: Spool>(
    shared: &Shared<S>,
    missing: Missing,
    content: S::Incoming,
    by: &Operator,
) -> Result<BroughtIn, Refusal> {
    let Missing { mut letter, from, settled } = missing;
    let (setup, message) = (shared.setup(), letter.message.clone());
    let mut moved = Vec::new();
    for Standing { delivery, .. } in &mut letter.deliveries {
        if let Some((id, route, class)) = sorting::way(&setup.policy, &message, delivery) {
            moved.push((id, std::mem::replace(&mut delivery.route, route.clone()), route, class));
            delivery.class = class;
        }
    }
    let queue: Vec<Queued> =
        letter.deliveries.iter().map(|standing| Queued { held: standing.held, ..queued(&message, &standing.delivery) }).collect();
    let deliveries: Vec<Delivery> = letter.deliveries.iter().map(|standing| standing.delivery.clone()).collect();
    let (count, recipients) = (deliveries.len(), letter.recipients());
    shared.ids.pass(message.id);
    if !shared.store.bring_in(letter, content).await.map_err(|error| unavailable(shared, error))? {
        return Ok(had(Outcome::Queued, 0));
    }
    telemetry::queue_brought_in(&message, recipients, &from, &by.0);
    moved.iter().for_each(|(id, former, route, class)| telemetry::rerouted(*id, former, route, *class));
    for delivery in &deliveries {
        if !setup.schedule.accounts.iter().any(|account| account.route == delivery.route) {
            telemetry::route_unknown(delivery.id, &delivery.route);
        }
    }
    shared.history.remember(Record::Parted(Box::new((message, deliveries)))).await;
    shared.tell(Event::Add(queue));
    Ok(BroughtIn { outcome: Outcome::Taken, deliveries: count, settled })
}
