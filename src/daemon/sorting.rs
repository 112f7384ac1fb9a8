//! Queued mail follows the rules of a new configuration.
//!
//! A delivery whose route is gone, or does not take it any more, goes where it would go if it came now; where no route would take it, it stays as
//! it is, and goes on when its route is back. The store knows first: if the power goes in the middle, the next start does the rest. Meanwhile
//! nothing is sent, so that no mail takes a way that has just been closed to it.

use std::sync::Arc;

use super::attempt::STORE_RETRY;
use super::control::{ask, listed};
use super::dispatch::Event;
use super::{Phase, Shared};
use crate::admin::{Range, Target};
use crate::intake::Policy;
use crate::mail::{Class, Delivery, DeliveryId, Message, Queued, RouteName};
use crate::store::{Listed, Spool, StoreError};
use crate::telemetry;

/// Deliveries that are looked at in one go.
const BATCH: usize = 1_000;

/// Whether a delivery's way is not that of the rules, as far as its class is right.
pub(super) fn is_stray(policy: &Policy, queued: &Queued) -> bool {
    policy.elsewhere(&queued.route, &queued.client, queued.class, queued.size).is_some()
}

/// Goes through the whole queue; then mail is sent again. Returns how many deliveries go another way now.
pub(super) async fn all<S: Spool>(shared: &Arc<Shared<S>>) -> usize {
    let (mut after, mut moved) = (None, 0);
    while shared.shutdown.phase() == Phase::Running {
        let page = match shared.store.list(after, BATCH).await {
            Ok(page) => page,
            Err(error) => {
                wait(shared, error).await;
                continue;
            }
        };
        let Some(last) = page.last().map(|last| last.delivery.id) else { break };
        match sort(shared, &page).await {
            Ok(count) => {
                moved += count;
                after = Some(last);
            }
            Err(error) => wait(shared, error).await,
        }
    }
    shared.tell(Event::Sorted);
    moved
}

/// One that was accepted by a session that began before the rules changed.
pub(super) async fn one<S: Spool>(shared: Arc<Shared<S>>, delivery: DeliveryId) {
    // What the store cannot do now, the next start does; the mail waits on its way until then.
    let Ok(found) = listed(&shared, Range::of(Target::Delivery(delivery))).await else { return };
    match sort(&shared, &found).await {
        Ok(_) => drop(ask(&shared, move |scheduler, now| scheduler.retry_now(now, delivery)).await),
        Err(error) => telemetry::store_busy("sending queued mail another way", &error.to_string()),
    }
}

async fn wait<S: Spool>(shared: &Shared<S>, error: StoreError) {
    match error {
        StoreError::Fatal(why) => shared.store_failed(&why),
        error => telemetry::store_busy("sending queued mail another way", &error.to_string()),
    }
    tokio::select! {
        () = tokio::time::sleep(STORE_RETRY) => {}
        () = shared.shutdown.reached(Phase::Stopping) => {}
    }
}

async fn sort<S: Spool>(shared: &Shared<S>, page: &[Listed]) -> Result<usize, StoreError> {
    let setup = shared.setup();
    let moves: Vec<(DeliveryId, RouteName, Class)> =
        page.iter().filter_map(|listed| way(&setup.policy, &listed.message, &listed.delivery)).collect();
    if moves.is_empty() {
        return Ok(0);
    }
    shared.store.reroute(moves.clone()).await?;
    for (id, route, class) in &moves {
        let former = page.iter().find(|listed| listed.delivery.id == *id).map(|listed| &listed.delivery.route);
        telemetry::rerouted(*id, former.unwrap_or(route), route, *class);
    }
    let count = moves.len();
    let follow = ask(shared, move |scheduler, _| {
        for (id, route, class) in &moves {
            scheduler.reroute(*id, route, *class);
        }
    });
    // If the relay is stopping, the next start reads it from the store.
    let _ = follow.await;
    Ok(count)
}

/// The new way of a delivery, if there is one. One recipient outside makes all of it external.
pub(super) fn way(policy: &Policy, message: &Message, delivery: &Delivery) -> Option<(DeliveryId, RouteName, Class)> {
    let outside = delivery.recipients.iter().any(|recipient| policy.class(&recipient.address) == Class::External);
    let class = if outside { Class::External } else { Class::Internal };
    let route = policy.elsewhere(&delivery.route, &message.client, class, message.size).unwrap_or(&delivery.route);
    (*route != delivery.route || class != delivery.class).then(|| (delivery.id, route.clone(), class))
}
