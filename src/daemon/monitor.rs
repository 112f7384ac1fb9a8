//! What the relay says of itself to those who watch it: the values of a scrape, and what speaks against its being ready. Nothing of this is logged:
//! it is asked several times a minute, for years.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::control::ask;
use super::endings::Ending;
use super::{Phase, Shared};
use crate::admin::Refusal;
use crate::intake::ClientSettings;
use crate::mail::Class;
use crate::schedule::{AccountStatus, Reason, Scheduler};
use crate::store::{Spool, StoreError};
use crate::telemetry::State;

/// The values of a scrape.
pub(super) async fn state<S: Spool>(shared: &Arc<Shared<S>>) -> Result<State, Refusal> {
    let obstacles = obstacles(shared).await;
    let scheduled = |scheduler: &mut Scheduler, now| State {
        now,
        queue: scheduler.counts(),
        classes: scheduler.classes(now),
        accounts: scheduler.accounts(now),
        tenant: scheduler.tenant(now),
        ..State::default()
    };
    let state = ask(shared, scheduled).await?;
    let setup = shared.setup();
    let endings = setup.endings.clone();
    let ends = move || endings.iter().filter_map(Ending::shown).collect();
    // If the runtime is ending, nobody is left to be told.
    let ends = tokio::task::spawn_blocking(ends).await.unwrap_or_default();
    let habits = {
        let seen = shared.habits();
        let of = |client: &Arc<ClientSettings>| {
            seen.of(&client.name).into_iter().map(|(habit, count)| (client.name.clone(), habit, count.count)).collect::<Vec<_>>()
        };
        setup.policy.clients().iter().flat_map(of).collect()
    };
    Ok(State {
        ready: obstacles.is_empty(),
        sessions: shared.doorway.sessions(),
        alarms: shared.standing(),
        habits,
        spare: shared.store.spare(),
        ends,
        tokens: setup.tokens.each().map(|(app, left)| (app.name.clone(), left.as_secs_f64())).collect(),
        ..state
    })
}

/// What speaks against sending mail here, in words; nothing: the relay is ready.
pub(super) async fn obstacles<S: Spool>(shared: &Arc<Shared<S>>) -> Vec<String> {
    let mut found = Vec::new();
    if shared.shutdown.phase() != Phase::Running {
        found.push("the relay is stopping".to_owned());
    }
    if shared.listening.load(Ordering::Relaxed) == 0 {
        found.push("no listener accepts connections".to_owned());
    }
    if let Err(error) = writable(shared).await {
        found.push(format!("the store takes no mail: {error}"));
    }
    match ask(shared, |scheduler, now| scheduler.accounts(now)).await {
        Err(refusal) => found.push(refusal.to_string()),
        Ok(accounts) if accounts.iter().all(is_stopped) => {
            found.push("no route can send: `hve-relay accounts` says why, and what to do".to_owned());
        }
        Ok(_) => {}
    }
    found
}

/// Room for a message, and a transaction: an empty one, which goes the whole way through the writer and costs no sync.
async fn writable<S: Spool>(shared: &Shared<S>) -> Result<(), StoreError> {
    drop(shared.store.begin(shared.ids.next(shared.clock.now()), 0)?);
    shared.store.hold(Vec::new(), false).await
}

/// Whether the account sends nothing before somebody or something mends it. One whose budgets are used up only waits.
fn is_stopped(account: &AccountStatus) -> bool {
    let stopped = |reason: &Reason| matches!(reason, Reason::Suspended(_) | Reason::Paused { .. });
    Class::ALL.iter().all(|class| account.waits.iter().any(|(waiting, wait)| waiting == class && stopped(&wait.reason)))
}
