//! From the relay's own values to those that go over the wire.

use super::{
    AccountEntry, Accounts, BudgetEntry, ClassEntry, ClassWait, ClientEntry, Connections, Counted, DeliveryEntry, Detail, Entry,
    HabitEntry, HealthEntry, Letter, Status, Time, TroubleEntry, Why, words,
};
use crate::budget::Usage;
use crate::clock::Timestamp;
use crate::intake::{ClientSettings, Count, Habit};
use crate::mail::{Class, Kind, Message};
use crate::schedule::{AccountStatus, ClassStatus, Health, Scheduler, Trouble, Wait};
use crate::store::Listed;

/// A delivery in a listing.
pub fn entry(now: Timestamp, listed: &Listed, wait: &Wait) -> Entry {
    let Listed { message, delivery, held, hold_reason, doubts, last_reply } = listed;
    Entry {
        id: delivery.id.to_string(),
        client: message.client.to_string(),
        from: message.reverse_path.to_string(),
        subject: message.subject.clone(),
        recipients: delivery.recipients.len(),
        size: message.size,
        accepted: Time(message.accepted_at),
        age: now.since(message.accepted_at).as_secs(),
        attempts: delivery.attempts,
        priority: message.priority.to_string(),
        class: delivery.class.to_string(),
        route: delivery.route.to_string(),
        held: *held,
        doubts: *doubts,
        why: words::of_delivery(wait, last_reply, hold_reason),
    }
}

/// A message with some of its deliveries; none if there are none. What the scheduler does not know has no wait.
pub fn detail(now: Timestamp, deliveries: &[(Listed, Option<Wait>)]) -> Option<Detail> {
    let (Listed { message, .. }, _) = deliveries.first()?;
    Some(Detail { now: Time(now), message: letter(now, message), deliveries: deliveries.iter().map(delivery).collect() })
}

/// The state in one look.
pub fn status(now: Timestamp, version: &str, doubts: u64, scheduler: &Scheduler) -> Status {
    let (counts, classes, tenant) = (scheduler.counts(), scheduler.classes(now), scheduler.tenant(now));
    let class = |status: &ClassStatus| ClassEntry {
        priority: status.priority.to_string(),
        class: status.class.to_string(),
        deliveries: status.deliveries,
        recipients: status.recipients,
        oldest: Time(status.oldest),
        empty_at: status.empty_at.map(Time),
    };
    Status {
        now: Time(now),
        version: version.to_owned(),
        queue: Counted { under_way: counts.active, ready: counts.ready, deferred: counts.deferred, held: counts.held },
        in_doubt: doubts,
        classes: classes.iter().map(class).collect(),
        tenant: tenant.iter().map(budget).collect(),
        troubles: troubles(now, scheduler),
    }
}

/// Every account.
pub fn accounts(now: Timestamp, scheduler: &Scheduler) -> Accounts {
    let accounts = scheduler.accounts(now).iter().map(account).collect();
    Accounts { now: Time(now), accounts, troubles: troubles(now, scheduler) }
}

fn troubles(now: Timestamp, scheduler: &Scheduler) -> Vec<TroubleEntry> {
    let trouble = |Trouble { who, health: it }: &Trouble| TroubleEntry { whose: words::whose(who), health: health(it) };
    scheduler.troubles(now).iter().map(trouble).collect()
}

fn health(health: &Health) -> HealthEntry {
    HealthEntry {
        state: health.state.as_str().to_owned(),
        class: health.class.map(|class| class.to_string()),
        since: health.since.map(Time),
        until: health.until.map(Time),
        kind: health.kind.clone(),
        reason: health.reason.clone(),
        advice: health.advice.clone(),
        logins: health.logins,
    }
}

/// A client and what it was seen to do.
pub fn client(settings: &ClientSettings, habits: &[(Habit, Count)]) -> ClientEntry {
    let habit = |(habit, seen): &(Habit, Count)| HabitEntry {
        habit: habit.as_str().to_owned(),
        words: habit.words().to_owned(),
        outcome: habit.outcome().to_owned(),
        count: seen.count,
        first: Time(seen.first),
        last: Time(seen.last),
        last_peer: seen.peer.to_string(),
    };
    ClientEntry {
        name: settings.name.to_string(),
        networks: settings.networks.iter().map(ToString::to_string).collect(),
        habits: habits.iter().map(habit).collect(),
    }
}

/// An account. It is ready as long as it takes mail of one class.
pub fn account(status: &AccountStatus) -> AccountEntry {
    let waits: Vec<(Class, Why)> = status.waits.iter().map(|(class, wait)| (*class, words::of_account(&status.name, wait))).collect();
    let idle = [Class::Internal, Class::External].iter().all(|class| waits.iter().any(|(waiting, _)| waiting == class));
    // Of two classes the one that goes on first says how long the account takes nothing at all; what is no matter of time comes last.
    let first = waits.iter().map(|(_, why)| why).filter(|_| idle).min_by_key(|why| (why.until.is_none(), why.until));
    AccountEntry {
        name: status.name.to_string(),
        route: status.route.to_string(),
        state: first.map_or("ready", |why| why.waits_for.as_str()).to_owned(),
        reason: first.map(|why| why.reason.clone()).unwrap_or_default(),
        advice: first.map(|why| why.advice.clone()).unwrap_or_default(),
        until: first.and_then(|why| why.until),
        health: health(&status.health),
        connections: Connections { in_use: status.active, max: status.connections, configured: status.configured },
        waits: waits.into_iter().map(|(class, why)| ClassWait { class: class.to_string(), why }).collect(),
        budgets: status.usage.iter().map(budget).collect(),
    }
}

fn letter(now: Timestamp, message: &Message) -> Letter {
    Letter {
        id: message.id.to_string(),
        kind: match message.kind {
            Kind::Mail => "mail",
            Kind::Notice => "notice",
        }
        .to_owned(),
        client: message.client.to_string(),
        peer: message.peer.map(|peer| peer.to_string()),
        from: message.reverse_path.to_string(),
        author: message.author.as_ref().map(ToString::to_string),
        subject: message.subject.clone(),
        message_id: message.message_id.clone(),
        size: message.size,
        priority: message.priority.to_string(),
        accepted: Time(message.accepted_at),
        age: now.since(message.accepted_at).as_secs(),
    }
}

fn delivery((listed, wait): &(Listed, Option<Wait>)) -> DeliveryEntry {
    let Listed { delivery, held, hold_reason, doubts, last_reply, .. } = listed;
    DeliveryEntry {
        id: delivery.id.to_string(),
        class: delivery.class.to_string(),
        route: delivery.route.to_string(),
        recipients: delivery.recipients.iter().map(|recipient| recipient.address.to_string()).collect(),
        attempts: delivery.attempts,
        due: Time(delivery.due),
        held: *held,
        doubts: *doubts,
        last_reply: last_reply.clone(),
        why: wait.as_ref().map_or_else(words::in_between, |wait| words::of_delivery(wait, last_reply, hold_reason)),
    }
}

fn budget(usage: &Usage) -> BudgetEntry {
    BudgetEntry {
        limit: usage.limit.to_string(),
        used: usage.used,
        in_flight: usage.in_flight,
        max: usage.max,
        window: usage.window.as_secs_f64(),
        frees_at: usage.frees_at.map(Time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{AccountName, RouteName};
    use crate::schedule::Reason;

    #[test]
    fn an_account_is_ready_as_long_as_it_takes_mail_of_one_class() {
        let wait = |reason, until| Wait { reason, until: Some(Timestamp::from_millis(until)) };
        let paused = |until| wait(Reason::Paused { reason: "no".into(), advice: "ask".into() }, until);
        for (waits, state, until) in [
            (vec![], "ready", None),
            (vec![(Class::External, paused(7))], "ready", None),
            (vec![(Class::Internal, wait(Reason::Connections, 5)), (Class::External, paused(7))], "connections", Some(5)),
            (vec![(Class::Internal, paused(9)), (Class::External, paused(7))], "paused", Some(7)),
        ] {
            let status = AccountStatus {
                name: AccountName::new("hve01@contoso.com"),
                route: RouteName::new("hve"),
                active: 1,
                connections: 4,
                configured: 4,
                health: Health::GOOD,
                waits,
                usage: vec![],
                suspended: None,
            };
            let account = account(&status);
            assert_eq!((account.state.as_str(), account.until), (state, until.map(|at| Time(Timestamp::from_millis(at)))));
            assert_eq!(account.reason.is_empty(), state == "ready");
        }
    }
}
