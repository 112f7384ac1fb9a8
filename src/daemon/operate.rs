//! What an operator changes: in the store first, and then in the scheduler.
//!
//! If the power goes between the two, the next start takes what the store says: the change is made, although nobody was told so. What must not
//! begin an attempt meanwhile (a removal, a retry) is *claimed* before: the scheduler holds it, in memory alone, until the store has answered.
//! If the store could not do it, the claim is given back and everything is as it was.
//!
//! An attempt under way is never interfered with. A hold takes effect at its end; a removal is refused, because nobody could say whether the
//! recipients get the message or not.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use super::control::{ask, listed, not_queued, unavailable};
use super::{Shared, Upstream, history};
use crate::admin::{self, AccountEntry, Action, Changed, Operator, Range, Refusal, Target};
use crate::clock::Timestamp;
use crate::mail::{AccountName, Delivery, DeliveryId};
use crate::schedule::{Reason, Scheduler, Suspension, Wait};
use crate::smtp::EnhancedStatus;
use crate::store::history::Left;
use crate::store::{Listed, Settlement, Spool, StoreError, Suspended};
use crate::telemetry;
use crate::upstream::{Credential, Login};

/// Does something to one message or delivery: to all of it, or to nothing.
pub(super) async fn one<S: Spool>(shared: &Arc<Shared<S>>, action: Action, target: Target, by: &Operator) -> Result<Changed, Refusal> {
    let listed = listed(shared, Range::of(target)).await?;
    if listed.is_empty() {
        return Err(not_queued(target));
    }
    let ids = ids(&listed);
    let waits = ask(shared, move |scheduler, now| ids.iter().map(|id| scheduler.why(now, *id)).collect::<Option<Vec<_>>>()).await?;
    let Some(waits) = waits else {
        return Err(Refusal::Conflict(format!("{target} is being taken into the queue, or out of it, at this moment; look again")));
    };
    if action == Action::Retry && waits.iter().all(|wait| wait.reason == Reason::Held) {
        return Err(Refusal::Conflict(format!("{target} is held: release it, and it goes on")));
    }
    let mut changed = Changed::default();
    let found = listed.into_iter().zip(waits).collect();
    match action {
        Action::Hold => hold(shared, found, true, by, &mut changed).await?,
        Action::Release => hold(shared, found, false, by, &mut changed).await?,
        Action::Retry => retry(shared, found, by, &mut changed).await?,
        Action::Remove => remove(shared, found, Claiming::AllOrNone, by, &mut changed).await?,
    }
    let none_done = changed.deliveries == 0;
    match action {
        Action::Remove | Action::Retry if changed.under_way > 0 && none_done => {
            let what = if action == Action::Remove { "removed" } else { "tried again" };
            Err(Refusal::Conflict(format!(
                "an attempt to deliver {target} is under way: it cannot be {what} before that ends; hold it, and look again"
            )))
        }
        Action::Remove if none_done => Err(not_queued(target)),
        _ => Ok(changed),
    }
}

/// Does something to deliveries, as far as it can be done.
pub(super) async fn many<S: Spool>(
    shared: &Arc<Shared<S>>,
    action: Action,
    found: Vec<(Listed, Wait)>,
    by: &Operator,
    changed: &mut Changed,
) -> Result<(), Refusal> {
    match action {
        Action::Hold => hold(shared, found, true, by, changed).await,
        Action::Release => hold(shared, found, false, by, changed).await,
        Action::Retry => retry(shared, found, by, changed).await,
        Action::Remove => remove(shared, found, Claiming::WhatCanBe, by, changed).await,
    }
}

/// Uses an account no more, until a time or until it is resumed.
pub(super) async fn suspend<S: Spool>(
    shared: &Shared<S>,
    account: AccountName,
    length: Option<Duration>,
    reason: String,
    by: &Operator,
) -> Result<AccountEntry, Refusal> {
    known(shared, &account)?;
    let until = length.map(|length| shared.clock.now() + length);
    let suspended = Suspended { account: account.clone(), until, reason: reason.clone() };
    shared.store.suspend(suspended).await.map_err(|error| unavailable(shared, error))?;
    telemetry::account_suspended(&account, until, &reason, &by.0);
    steer(shared, account, Some(Suspension { until, reason })).await
}

/// Uses an account again.
pub(super) async fn resume<S: Spool>(shared: &Shared<S>, account: AccountName, by: &Operator) -> Result<AccountEntry, Refusal> {
    known(shared, &account)?;
    shared.store.resume(&account).await.map_err(|error| unavailable(shared, error))?;
    telemetry::account_resumed_by_operator(&account, &by.0);
    // Whatever stood in the way of a token may have been put right: the last refusal is no answer any more.
    if let Some(Upstream { login: Some(Login { credential: Credential::Token(source), .. }), .. }) = shared.setup().accounts.get(&account) {
        source.forgive();
    }
    steer(shared, account, None).await
}

async fn steer<S: Spool>(shared: &Shared<S>, account: AccountName, suspension: Option<Suspension>) -> Result<AccountEntry, Refusal> {
    let missing = unknown(&account);
    let entry = ask(shared, move |scheduler, now| {
        scheduler.suspend(now, &account, suspension);
        scheduler.accounts(now).iter().find(|status| status.name == account).map(admin::account)
    });
    entry.await?.ok_or(missing)
}

fn known<S: Spool>(shared: &Shared<S>, account: &AccountName) -> Result<(), Refusal> {
    if shared.setup().accounts.contains_key(account) { Ok(()) } else { Err(unknown(account)) }
}

fn unknown(account: &AccountName) -> Refusal {
    Refusal::NotFound(format!("there is no account {account}; `hve-relay accounts` lists those that there are"))
}

async fn hold<S: Spool>(
    shared: &Shared<S>,
    found: Vec<(Listed, Wait)>,
    held: bool,
    by: &Operator,
    changed: &mut Changed,
) -> Result<(), Refusal> {
    let (todo, same): (Vec<Listed>, Vec<Listed>) = found.into_iter().map(|(listed, _)| listed).partition(|listed| listed.held != held);
    changed.unchanged += same.len();
    if todo.is_empty() {
        return Ok(());
    }
    let ids = ids(&todo);
    shared.store.hold(ids, held).await.map_err(|error| unavailable(shared, error))?;
    let by = by.0.clone();
    let hold = move |scheduler: &mut Scheduler, now| {
        let tell = if held { telemetry::queue_held } else { telemetry::queue_released };
        let mut done = Changed::default();
        for Listed { message, delivery, .. } in todo {
            // Those that ended meanwhile are not there to be held. Told here, so that what follows from it is told later.
            if scheduler.hold(now, delivery.id, held) {
                tell(delivery.id, &message.client, &by);
                count(&mut done, &delivery);
            }
        }
        done
    };
    let done = ask(shared, hold).await?;
    changed.deliveries += done.deliveries;
    changed.recipients += done.recipients;
    Ok(())
}

async fn retry<S: Spool>(shared: &Arc<Shared<S>>, found: Vec<(Listed, Wait)>, by: &Operator, changed: &mut Changed) -> Result<(), Refusal> {
    let claimed = claim(shared, found, Claiming::WhatCanBe, |reason| *reason == Reason::Deferred, changed).await?;
    let now = shared.clock.now();
    let (done, failure) = each(shared, claimed.deliveries, move |shared, listed| {
        let Listed { delivery, last_reply, .. } = listed;
        let settlement = Settlement::unchanged(&delivery, now, last_reply);
        async move { shared.store.settle(settlement).await.map(|settled| settled.last) }
    })
    .await;
    for (listed, _) in &done {
        telemetry::queue_retried(listed.delivery.id, &listed.message.client, &by.0);
        count(changed, &listed.delivery);
    }
    let due: Vec<DeliveryId> = done.iter().map(|(listed, _)| listed.delivery.id).collect();
    give_back(shared, claimed.claims, move |scheduler, now| {
        due.iter().for_each(|id| {
            scheduler.retry_now(now, *id);
        });
    })
    .await?;
    failure.map_or(Ok(()), |error| Err(unavailable(shared, error)))
}

async fn remove<S: Spool>(
    shared: &Arc<Shared<S>>,
    found: Vec<(Listed, Wait)>,
    claiming: Claiming,
    by: &Operator,
    changed: &mut Changed,
) -> Result<(), Refusal> {
    let claimed = claim(shared, found, claiming, |_| true, changed).await?;
    let remove = |shared: Arc<Shared<S>>, listed: Listed| async move { shared.store.remove(listed.delivery.id).await };
    let (done, failure) = each(shared, claimed.deliveries, remove).await;
    for (listed, last) in &done {
        telemetry::queue_removed(listed.delivery.id, &listed.message.client, listed.delivery.recipients.len(), &by.0);
        if *last {
            telemetry::removed(listed.message.id);
        }
        count(changed, &listed.delivery);
        // RFC 3463 §3.4: the mail system, and not the recipient, is the reason.
        let (status, why) = (EnhancedStatus::new(5, 3, 0), format!("removed by an operator ({})", by.0));
        let (message, delivery) = (listed.message.clone(), listed.delivery.clone());
        shared.history.remember(history::ended(message, delivery, Left::Removed, status, why, shared.clock.now())).await;
    }
    let gone: Vec<DeliveryId> = done.iter().map(|(listed, _)| listed.delivery.id).collect();
    let withdrawn = give_back(shared, claimed.claims, move |scheduler, _| {
        gone.iter().for_each(|id| {
            scheduler.withdraw(*id);
        });
    });
    // They are removed, whether a dispatcher is left to hear of it or not.
    let _ = withdrawn.await;
    failure.map_or(Ok(()), |error| Err(unavailable(shared, error)))
}

/// Whether it helps to claim only some of what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claiming {
    AllOrNone,
    WhatCanBe,
}

/// Deliveries of which the scheduler begins no attempt until they are given back.
struct Claimed {
    /// As they stand in the store since then.
    deliveries: Vec<Listed>,
    claims: Vec<Claim>,
}

struct Claim {
    delivery: DeliveryId,
    /// An operator had held it before.
    held: bool,
}

/// Claims those that wait for a reason that fits, and no attempt is under way. The others are counted.
async fn claim<S: Spool>(
    shared: &Shared<S>,
    found: Vec<(Listed, Wait)>,
    claiming: Claiming,
    fits: fn(&Reason) -> bool,
    changed: &mut Changed,
) -> Result<Claimed, Refusal> {
    let ids: Vec<DeliveryId> = found.iter().map(|(listed, _)| listed.delivery.id).collect();
    let claim = move |scheduler: &mut Scheduler, now| {
        let (mut claims, mut under_way, mut others) = (Vec::new(), 0, 0);
        for delivery in ids {
            match scheduler.why(now, delivery).map(|wait| wait.reason) {
                Some(Reason::UnderWay) => under_way += 1,
                Some(reason) if fits(&reason) => claims.push(Claim { delivery, held: reason == Reason::Held }),
                Some(_) => others += 1,
                // It ended meanwhile.
                None => {}
            }
        }
        if claiming == Claiming::AllOrNone && under_way > 0 {
            claims.clear();
        }
        claims.iter().for_each(|claim| {
            scheduler.hold(now, claim.delivery, true);
        });
        (claims, under_way, others)
    };
    let (claims, under_way, others) = ask(shared, claim).await?;
    changed.under_way += under_way;
    changed.unchanged += others;
    let (Some(first), Some(last)) = (claims.first(), claims.last()) else { return Ok(Claimed { deliveries: Vec::new(), claims }) };
    // Some recipients may have been settled since they were found.
    let range = Range { after: Range::of(Target::Delivery(first.delivery)).after, through: Some(last.delivery) };
    match listed(shared, range).await {
        Ok(mut deliveries) => {
            let claimed: HashSet<DeliveryId> = claims.iter().map(|claim| claim.delivery).collect();
            deliveries.retain(|listed| claimed.contains(&listed.delivery.id));
            Ok(Claimed { deliveries, claims })
        }
        Err(refusal) => {
            // If nobody is left to hear it, nobody is left to begin an attempt.
            let _ = give_back(shared, claims, |_, _| {}).await;
            Err(refusal)
        }
    }
}

/// Gives claims back; `then` follows before any attempt begins.
async fn give_back<S: Spool>(
    shared: &Shared<S>,
    claims: Vec<Claim>,
    then: impl FnOnce(&mut Scheduler, Timestamp) + Send + 'static,
) -> Result<(), Refusal> {
    let give_back = move |scheduler: &mut Scheduler, now| {
        claims.iter().filter(|claim| !claim.held).for_each(|claim| {
            scheduler.hold(now, claim.delivery, false);
        });
        then(scheduler, now);
    };
    ask(shared, give_back).await
}

/// Has the store do something to each delivery, to all at the same time, so that they share its syncs. Returns those to which it was done,
/// in their order, each with its answer; and what prevented the others, if anything did.
async fn each<S: Spool, F: Future<Output = Result<bool, StoreError>> + Send + 'static>(
    shared: &Arc<Shared<S>>,
    deliveries: Vec<Listed>,
    operation: impl Fn(Arc<Shared<S>>, Listed) -> F,
) -> (Vec<(Listed, bool)>, Option<StoreError>) {
    let mut operations = JoinSet::new();
    for listed in deliveries {
        let operation = operation(shared.clone(), listed.clone());
        operations.spawn(async move { (listed, operation.await) });
    }
    let (mut done, mut failure) = (Vec::new(), None);
    while let Some(ended) = operations.join_next().await {
        match ended {
            Ok((listed, Ok(answer))) => done.push((listed, answer)),
            Ok((_, Err(error))) => failure = Some(error),
            Err(error) => failure = Some(StoreError::Unavailable(error.to_string())),
        }
    }
    done.sort_by_key(|(listed, _)| listed.delivery.id);
    (done, failure)
}

fn count(changed: &mut Changed, delivery: &Delivery) {
    changed.deliveries += 1;
    changed.recipients += delivery.recipients.len();
}

fn ids(listed: &[Listed]) -> Vec<DeliveryId> {
    listed.iter().map(|listed| listed.delivery.id).collect()
}
