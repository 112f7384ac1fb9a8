mod change;

use std::time::Duration;

use super::*;
use crate::budget::{LimitName, Limits, Share, Unit, Used};
use crate::clock::Timestamp;
use crate::mail::{AccountName, Class, ClientName, DeliveryId, Priority, QueueId, Queued, RouteName};
use crate::reply::{Pause, PauseLength, Scope, Step};

mod health;
mod replies;

const START: Timestamp = Timestamp::from_millis(1_795_285_881_000);
const ONE: Used = Used { recipients: 1, message: true };

fn at(seconds: u64) -> Timestamp {
    START + Duration::from_secs(seconds)
}

/// The moment at which a window that began then has passed: budgets count whole milliseconds, and wait for the next one.
fn freed(seconds: u64) -> Timestamp {
    at(seconds) + Duration::from_millis(1)
}

fn name(i: usize) -> AccountName {
    AccountName::new(format!("hve{i}@contoso.com"))
}

fn settings(accounts: usize, connections: usize, limits: &Limits) -> Settings {
    let account = |i| AccountSettings { name: name(i), route: RouteName::new("hve"), app: None, connections, limits: limits.clone() };
    let clients = vec![ClientSettings { affinity: Affinity::None, ..ClientSettings::new(ClientName::new("devices")) }];
    Settings { accounts: (0..accounts).map(account).collect(), clients, ..Settings::default() }
}

fn scheduler(accounts: usize, connections: usize) -> Scheduler {
    Scheduler::new(settings(accounts, connections, &Limits::NONE))
}

fn id(number: i64) -> DeliveryId {
    DeliveryId { message: QueueId::from_number(number).expect("positive"), part: 1 }
}

fn queued(number: i64, class: Class) -> Queued {
    Queued {
        id: id(number),
        client: ClientName::new("devices"),
        priority: Priority::Normal,
        author: None,
        held: false,
        route: RouteName::new("hve"),
        class,
        recipients: 1,
        size: 1_000,
        accepted_at: START,
        due: START,
        attempts: 0,
        in_doubt: None,
    }
}

/// An attempt that was handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Attempt {
    delivery: DeliveryId,
    account: AccountName,
    recipients: u16,
}

/// Hands out everything that can go now.
fn drain(scheduler: &mut Scheduler, now: Timestamp) -> Vec<Attempt> {
    std::iter::from_fn(|| scheduler.next(now))
        .map(|decision| match decision {
            Decision::Attempt { delivery, account, recipients, .. } => Attempt { delivery, account, recipients },
            Decision::Expire { .. } | Decision::Probe { .. } => panic!("nothing else is to happen here"),
        })
        .collect()
}

/// Ends an attempt that began at `started` and leaves so many recipients until `due`.
fn end(s: &mut Scheduler, now: Timestamp, attempt: &Attempt, end: End) -> Vec<Change> {
    let End { started, used, remaining, due, pause } = end;
    let changes = s.ended(now, &Ended { delivery: attempt.delivery, started, used, pause });
    s.settled(now, attempt.delivery, remaining, due);
    changes
}

/// How an attempt ended.
struct End {
    started: Timestamp,
    used: Used,
    remaining: u16,
    due: Timestamp,
    pause: Option<Pause>,
}

fn sent(s: &mut Scheduler, now: Timestamp, attempt: &Attempt) -> Vec<Change> {
    let used = Used { recipients: u32::from(attempt.recipients), message: true };
    end(s, now, attempt, End { started: now, used, remaining: 0, due: now, pause: None })
}

fn failed(s: &mut Scheduler, now: Timestamp, attempt: &Attempt, pause: Option<Pause>) -> Vec<Change> {
    end(s, now, attempt, End { started: now, used: Used::NOTHING, remaining: 1, due: now, pause })
}

fn pause(scope: Scope, class: Option<Class>, length: PauseLength) -> Option<Pause> {
    let (step, kind, reason) = (Step::EndOfData, "test".into(), "because".into());
    Some(Pause { scope, class, length, every: None, limit: None, step, kind, reason, advice: String::new() })
}

fn external_limit(per_minute: u32) -> Limits {
    Limits { external_per_minute: Some((per_minute, Unit::Messages)), ..Limits::NONE }
}

#[test]
fn spreads_over_the_accounts_and_keeps_their_connections() {
    let mut s = scheduler(3, 2);
    (1..=9).for_each(|n| s.add(START, queued(n, Class::Internal)));
    let first = drain(&mut s, START);
    let order: Vec<&str> = first.iter().map(|attempt| &attempt.account.as_str()[..4]).collect();
    assert_eq!(order, ["hve0", "hve1", "hve2", "hve0", "hve1", "hve2"]);
    assert_eq!(s.counts(), Counts { active: 6, ready: 3, deferred: 0, held: 0 });
    sent(&mut s, START, &first[4]);
    let next = drain(&mut s, START);
    assert_eq!(next, [Attempt { delivery: id(7), ..first[4].clone() }], "the freed connection is used at once, for the oldest");
}

#[test]
fn a_deferred_delivery_comes_back_when_it_is_due() {
    let mut s = scheduler(1, 1);
    s.add(START, queued(1, Class::Internal));
    let attempt = drain(&mut s, START).remove(0);
    end(&mut s, START, &attempt, End { started: START, used: Used::NOTHING, remaining: 1, due: at(60), pause: None });
    assert_eq!(s.next(at(59)), None);
    assert_eq!(s.deadline(at(59)), Some(at(60)));
    assert_eq!(s.why(at(59), id(1)), Some(Wait { reason: Reason::Deferred, until: Some(at(60)) }));
    assert_eq!(drain(&mut s, at(60)).len(), 1);
}

#[test]
fn an_account_in_trouble_rests_while_the_others_carry_on() {
    let mut s = scheduler(2, 1);
    (1..=4).for_each(|n| s.add(START, queued(n, Class::Internal)));
    let first = drain(&mut s, START);
    let changes = failed(&mut s, START, &first[0], pause(Scope::Account, None, PauseLength::Suspended));
    assert!(
        matches!(&changes[..], [Change::Closed { gate: Who::Account(name), until, .. }] if *name == first[0].account && *until == at(1_200))
    );
    assert_eq!(drain(&mut s, START), [], "the only free account is closed");
    sent(&mut s, at(1), &first[1]);
    assert_eq!(drain(&mut s, at(1)), [Attempt { delivery: id(1), ..first[1].clone() }], "it goes by another account at once");
}

#[test]
fn a_closed_class_leaves_the_other_class_alone() {
    let mut s = scheduler(1, 2);
    s.add(START, queued(1, Class::External));
    let attempt = drain(&mut s, START).remove(0);
    let minute = pause(Scope::Account, Some(Class::External), PauseLength::For(Duration::from_secs(60)));
    failed(&mut s, START, &attempt, minute);
    s.add(START, queued(2, Class::Internal));
    assert_eq!(drain(&mut s, START).iter().map(|attempt| attempt.delivery).collect::<Vec<_>>(), [id(2)]);
    assert_eq!(s.deadline(START), Some(at(60)));
    assert!(matches!(s.why(START, id(1)), Some(Wait { reason: Reason::Paused { .. }, until: Some(until) }) if until == at(60)));
    assert_eq!(drain(&mut s, at(60)).iter().map(|attempt| attempt.delivery).collect::<Vec<_>>(), [id(1)]);
}

#[test]
fn a_dead_endpoint_is_probed_by_one_attempt_at_growing_intervals() {
    let mut s = scheduler(3, 4);
    (1..=50).for_each(|n| s.add(START, queued(n, Class::Internal)));
    let burst = drain(&mut s, START);
    assert_eq!(burst.len(), 12);
    let dead = || pause(Scope::Connection, None, PauseLength::BackOff);
    let closed: usize = burst.iter().map(|attempt| failed(&mut s, START, attempt, dead()).len()).sum();
    assert_eq!(closed, 1, "twelve attempts that failed together are one trouble");
    let mut now = START;
    for expected in [5, 10, 20, 40, 80, 160, 320, 600, 600] {
        let opens = s.deadline(now).expect("a time");
        assert_eq!(opens.since(now), Duration::from_secs(expected));
        now = opens;
        let probe = drain(&mut s, now);
        assert_eq!(probe.len(), 1, "one attempt goes ahead");
        assert!(s.deadline(now) > Some(now), "and the rest waits for its end, not for a time");
        failed(&mut s, now, &probe[0], dead());
    }
    now = s.deadline(now).expect("a time");
    let probe = drain(&mut s, now);
    let changes = sent(&mut s, now, &probe[0]);
    assert_eq!(changes, [Change::Opened { gate: Who::Route(RouteName::new("hve")) }]);
    assert_eq!(drain(&mut s, now).len(), 12);
}

#[test]
fn what_is_older_than_the_lifetime_expires_once() {
    let mut s = scheduler(1, 1);
    (1..=3).for_each(|n| s.add(START, queued(n, Class::Internal)));
    let attempt = drain(&mut s, START).remove(0);
    let end_of_life = START + 5 * Duration::from_secs(86_400);
    assert_eq!(s.deadline(START), Some(end_of_life));
    assert_eq!(s.next(end_of_life), Some(Decision::Expire { delivery: id(2) }), "an attempt under way is left to end");
    assert_eq!(s.next(end_of_life), Some(Decision::Expire { delivery: id(3) }));
    assert_eq!(s.next(end_of_life), None);
    failed(&mut s, end_of_life, &attempt, None);
    assert_eq!(s.next(end_of_life), Some(Decision::Expire { delivery: id(1) }));
    assert_eq!(s.counts(), Counts::default());
}

#[test]
fn the_retry_schedule_is_this_list() {
    let settings = Settings::default();
    let message = QueueId::from_number(1 << 40).expect("positive");
    let minutes: Vec<u64> =
        (1..=9).map(|n| (Scheduler::retry_at(&settings, START, message, n).since(START).as_secs_f64() / 60.0).round() as u64).collect();
    for (minutes, nominal) in minutes.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]) {
        assert!((*minutes as f64 - nominal).abs() <= nominal * 0.1 + 0.5, "{minutes} for {nominal}");
    }
    let times: std::collections::BTreeSet<_> =
        (0..100).map(|n| Scheduler::retry_at(&settings, START, QueueId::from_number(n).expect("positive"), 1)).collect();
    assert!(times.len() > 80, "a hundred messages that failed together come back spread out: {}", times.len());
}

#[test]
fn an_attempt_that_did_not_begin_frees_its_place_and_its_budget() {
    let mut s = Scheduler::new(settings(1, 1, &external_limit(1)));
    s.add(START, queued(1, Class::External));
    let attempt = drain(&mut s, START).remove(0);
    s.put_back(START, attempt.delivery, START);
    assert_eq!(drain(&mut s, START), [attempt]);
}

#[test]
fn ten_external_messages_go_at_once_and_the_eleventh_when_the_firsts_window_frees() {
    let mut s = Scheduler::new(settings(1, 20, &external_limit(10)));
    (1..=11).for_each(|n| s.add(START, queued(n, Class::External)));
    let first = drain(&mut s, START);
    assert_eq!(first.len(), 10);
    for (seconds, attempt) in (1..).zip(&first) {
        sent(&mut s, at(seconds), attempt);
    }
    assert_eq!(s.next(at(10)), None);
    let budget = Reason::Budget { account: Some(name(0)), limit: LimitName::ExternalPerMinute };
    assert_eq!(s.why(at(10), id(11)), Some(Wait { reason: budget, until: Some(freed(61)) }));
    assert_eq!(s.deadline(at(10)), Some(freed(61)));
    assert_eq!(drain(&mut s, freed(61)).len(), 1);
}

#[test]
fn twenty_accounts_carry_twenty_times_the_rate_of_one() {
    let mut s = Scheduler::new(settings(20, 4, &external_limit(10)));
    (1..=1_000).for_each(|n| s.add(START, queued(n, Class::External)));
    let mut sent_at = Vec::new();
    let mut now = START;
    while s.counts() != Counts::default() {
        let attempts = drain(&mut s, now);
        for attempt in &attempts {
            sent(&mut s, now, attempt);
            sent_at.push(now);
        }
        if attempts.is_empty() {
            now = s.deadline(now).expect("a time");
        }
    }
    assert_eq!(sent_at.iter().filter(|at| **at == START).count(), 200);
    assert_eq!(now.since(START).as_secs(), 4 * 60, "a thousand in five bursts of two hundred");
}

#[test]
fn a_refusal_gives_its_budget_back_and_doubt_does_not() {
    let mut s = Scheduler::new(settings(1, 1, &external_limit(1)));
    (1..=2).for_each(|n| s.add(START, queued(n, Class::External)));
    let attempt = drain(&mut s, START).remove(0);
    end(&mut s, START, &attempt, End { started: START, used: Used::NOTHING, remaining: 0, due: START, pause: None });
    let attempt = drain(&mut s, START).remove(0);
    end(&mut s, START, &attempt, End { started: START, used: ONE, remaining: 1, due: START, pause: None });
    assert_eq!(s.next(START), None);
    assert_eq!(s.deadline(START), Some(freed(60)));
}

#[test]
fn a_delivery_goes_to_as_many_recipients_as_there_is_budget_for() {
    let limits = Limits { recipients_per_day: Some(70), ..Limits::NONE };
    let mut s = Scheduler::new(settings(1, 4, &limits));
    (1..=2).for_each(|n| s.add(START, Queued { recipients: 50, ..queued(n, Class::Internal) }));
    let attempts = drain(&mut s, START);
    assert_eq!(attempts.iter().map(|attempt| attempt.recipients).collect::<Vec<_>>(), [50, 20]);
    let used = Used { recipients: 20, message: true };
    end(&mut s, START, &attempts[1], End { started: START, used, remaining: 30, due: START, pause: None });
    assert_eq!(s.next(START), None);
    assert!(matches!(s.why(START, id(2)), Some(Wait { reason: Reason::Budget { limit: LimitName::RecipientsPerDay, .. }, .. })));
}

#[test]
fn the_tenants_budget_binds_all_accounts() {
    let tenant = Limits { recipients_per_day: Some(3), ..Limits::NONE };
    let mut s = Scheduler::new(Settings { tenant, ..settings(5, 1, &Limits::NONE) });
    (1..=5).for_each(|n| s.add(START, queued(n, Class::Internal)));
    assert_eq!(drain(&mut s, START).len(), 3);
    assert!(matches!(s.why(START, id(5)), Some(Wait { reason: Reason::Budget { account: None, .. }, .. })));
}

#[test]
fn high_goes_before_normal_and_normal_before_bulk() {
    let mut s = scheduler(1, 1);
    for (n, priority) in [(1, Priority::Bulk), (2, Priority::Normal), (3, Priority::High), (4, Priority::Bulk), (5, Priority::High)] {
        s.add(START, Queued { priority, ..queued(n, Class::Internal) });
    }
    let mut order = Vec::new();
    while let Some(attempt) = drain(&mut s, START).pop() {
        order.push(attempt.delivery);
        sent(&mut s, START, &attempt);
    }
    assert_eq!(order, [3, 5, 2, 1, 4].map(id));
}

#[test]
fn a_reserve_is_for_high_priority_alone() {
    let limits = Limits { recipients_per_day: Some(10), ..Limits::NONE };
    let mut s = Scheduler::new(Settings { reserve: Share::percent(20), ..settings(1, 50, &limits) });
    (1..=20).for_each(|n| s.add(START, queued(n, Class::Internal)));
    assert_eq!(drain(&mut s, START).len(), 8);
    (21..=24).for_each(|n| s.add(START, Queued { priority: Priority::High, ..queued(n, Class::Internal) }));
    assert_eq!(drain(&mut s, START).len(), 2);
}

#[test]
fn a_run_of_one_client_delays_anothers_scan_by_one_message() {
    let mut s = scheduler(1, 1);
    for n in 1..=1_600 {
        s.add(START, Queued { client: ClientName::new("erp"), recipients: 50, ..queued(n, Class::Internal) });
    }
    let running = drain(&mut s, START).remove(0);
    s.add(at(1), queued(2_000, Class::Internal));
    sent(&mut s, at(2), &running);
    assert_eq!(drain(&mut s, at(2))[0].delivery, id(2_000));
}

#[test]
fn clients_share_by_weight_in_recipients() {
    let clients = [("a", 1), ("b", 3)].map(|(name, weight)| ClientSettings { weight, ..ClientSettings::new(ClientName::new(name)) });
    let mut s = Scheduler::new(Settings { clients: clients.into(), ..settings(1, 1, &Limits::NONE) });
    for n in 0..4_000 {
        // One sends small messages, the other large ones.
        let (client, recipients) = if n % 2 == 0 { ("a", 1) } else { ("b", 10) };
        s.add(START, Queued { client: ClientName::new(client), recipients, ..queued(n, Class::Internal) });
    }
    let mut shares = [0_u32; 2];
    while shares.iter().sum::<u32>() < 4_000 {
        let attempt = drain(&mut s, START).remove(0);
        shares[attempt.delivery.message.number() as usize % 2] += u32::from(attempt.recipients);
        sent(&mut s, START, &attempt);
    }
    let ratio = f64::from(shares[1]) / f64::from(shares[0]);
    assert!((2.8..3.2).contains(&ratio), "{shares:?}");
}

#[test]
fn retries_and_new_mail_take_turns() {
    let mut s = scheduler(1, 1);
    (1..=3).for_each(|n| s.add(START, Queued { attempts: 1, ..queued(n, Class::Internal) }));
    (11..=13).for_each(|n| s.add(START, queued(n, Class::Internal)));
    let mut order = Vec::new();
    while let Some(attempt) = drain(&mut s, START).pop() {
        order.push(attempt.delivery);
        sent(&mut s, START, &attempt);
    }
    assert_eq!(order, [11, 1, 12, 2, 13, 3].map(id));
}

#[test]
fn mail_keeps_to_its_account_until_that_is_full() {
    let clients = ["a", "b", "c"].map(|name| ClientSettings::new(ClientName::new(name)));
    let mut s = Scheduler::new(Settings { clients: clients.into(), ..settings(10, 4, &external_limit(2)) });
    let mut first = std::collections::HashMap::new();
    for n in 0..6 {
        let client = ["a", "b", "c"][n as usize % 3];
        s.add(START, Queued { client: ClientName::new(client), ..queued(n, Class::External) });
        let attempt = drain(&mut s, START).remove(0);
        let kept = first.entry(client).or_insert(attempt.account.clone());
        assert_eq!(*kept, attempt.account, "{client}");
        sent(&mut s, START, &attempt);
    }
    s.add(START, Queued { client: ClientName::new("a"), ..queued(100, Class::External) });
    assert_ne!(drain(&mut s, START)[0].account, first["a"], "its account has no budget left, so another takes it");
}

#[test]
fn an_author_that_is_an_account_is_sent_by_it_alone() {
    let mut s = scheduler(3, 1);
    for n in 1..=2 {
        s.add(START, Queued { author: Some("HVE2@contoso.com".parse().expect("a mailbox")), ..queued(n, Class::Internal) });
    }
    let attempts = drain(&mut s, START);
    assert_eq!(attempts.iter().map(|attempt| attempt.account.as_str()).collect::<Vec<_>>(), ["hve2@contoso.com"]);
    assert_eq!(s.why(START, id(2)), Some(Wait { reason: Reason::Connections, until: None }));
}

#[test]
fn a_client_uses_its_own_accounts_only() {
    let own = ClientSettings { accounts: Some(vec![name(1)]), ..ClientSettings::new(ClientName::new("devices")) };
    let none = ClientSettings { accounts: Some(vec![]), ..ClientSettings::new(ClientName::new("nobody")) };
    let mut s = Scheduler::new(Settings { clients: vec![own, none], ..settings(3, 1, &Limits::NONE) });
    s.add(START, queued(1, Class::Internal));
    s.add(START, Queued { client: ClientName::new("nobody"), ..queued(2, Class::Internal) });
    assert_eq!(drain(&mut s, START).iter().map(|attempt| attempt.account.clone()).collect::<Vec<_>>(), [name(1)]);
    assert_eq!(s.why(START, id(2)), Some(Wait { reason: Reason::NoAccount, until: None }));
}

#[test]
fn operators_hold_release_retry_withdraw_and_suspend() {
    let mut s = scheduler(1, 1);
    (1..=3).for_each(|n| s.add(START, queued(n, Class::Internal)));
    assert!(s.hold(START, id(1), true) && !s.hold(START, id(9), true));
    assert_eq!(s.why(START, id(1)), Some(Wait { reason: Reason::Held, until: None }));
    let attempt = drain(&mut s, START).remove(0);
    assert_eq!(attempt.delivery, id(2));
    assert!(!s.withdraw(id(2)), "an attempt is under way");
    end(&mut s, START, &attempt, End { started: START, used: Used::NOTHING, remaining: 1, due: at(600), pause: None });
    assert!(s.withdraw(id(3)) && !s.withdraw(id(3)));
    assert!(s.retry_now(START, id(2)));
    assert!(s.suspend(START, &name(0), Some(Suspension { until: Some(at(60)), reason: "audit".into() })));
    assert_eq!(s.next(START), None);
    assert_eq!(s.why(START, id(2)), Some(Wait { reason: Reason::Suspended("audit".into()), until: Some(at(60)) }));
    assert_eq!(s.deadline(START), Some(at(60)));
    assert!(s.suspend(at(1), &name(0), None));
    assert_eq!(drain(&mut s, START)[0].delivery, id(2));
    assert!(s.hold(START, id(1), false));
    assert_eq!(s.counts(), Counts { active: 1, ready: 1, deferred: 0, held: 0 });
}

#[test]
fn what_is_held_does_not_expire_until_it_is_released() {
    let mut s = scheduler(1, 1);
    s.add(START, Queued { held: true, ..queued(1, Class::Internal) });
    let later = START + 6 * Duration::from_secs(86_400);
    assert_eq!((s.next(later), s.deadline(later)), (None, None));
    assert!(s.hold(later, id(1), false));
    assert_eq!(s.next(later), Some(Decision::Expire { delivery: id(1) }));
}

#[test]
fn forecasts_tell_when_a_class_will_have_gone() {
    let mut s = Scheduler::new(settings(2, 4, &external_limit(10)));
    (1..=100).for_each(|n| s.add(START, queued(n, Class::External)));
    let classes = s.classes(START);
    assert_eq!((classes[0].deliveries, classes[0].recipients), (100, 100));
    assert_eq!(classes[0].empty_at.map(|empty| empty.since(START).as_secs()), Some(240));
}

/// Two accounts of the tenant, which may send to so many in a day, and a route that is no part of it.
fn with_a_route_apart(recipients_per_day: u32) -> Settings {
    let mut settings = settings(2, 4, &Limits::NONE);
    let apart = RouteName::new("connector");
    let alone = AccountSettings { name: AccountName::new("connector"), route: apart.clone(), ..settings.accounts[0].clone() };
    settings.accounts.push(alone);
    settings.apart = vec![apart];
    settings.tenant = Limits { recipients_per_day: Some(recipients_per_day), ..Limits::NONE };
    settings
}

#[test]
fn a_route_apart_neither_uses_the_tenants_budget_nor_waits_for_it() {
    let mut s = Scheduler::new(with_a_route_apart(2));
    let elsewhere = |number| Queued { route: RouteName::new("connector"), ..queued(number, Class::External) };
    (1..=3).for_each(|n| s.add(START, elsewhere(n)));
    (4..=6).for_each(|n| s.add(START, queued(n, Class::Internal)));
    let attempts = drain(&mut s, START);
    let on = |name: &str| attempts.iter().filter(|attempt| attempt.account.as_str() == name).count();
    assert_eq!((on("connector"), attempts.len()), (3, 5), "{attempts:?}");
    let reason = |s: &Scheduler, number| s.why(START, id(number)).map(|wait| wait.reason);
    assert_eq!(reason(&s, 6), Some(Reason::Budget { account: None, limit: LimitName::RecipientsPerDay }));
    // What is sent there and what is put back there change nothing for the tenant.
    let other = |delivery| move |attempt: &&Attempt| attempt.delivery != delivery;
    attempts.iter().filter(other(id(2))).for_each(|attempt| drop(sent(&mut s, at(1), attempt)));
    s.put_back(at(1), id(2), at(1));
    assert_eq!(s.tenant(at(1)).iter().map(|usage| usage.used).sum::<u32>(), 2);
    s.add(at(1), elsewhere(7));
    assert_eq!(drain(&mut s, at(1)).len(), 2);
}

#[test]
fn forecasts_count_for_each_route_what_its_own_accounts_may_send() {
    let mut settings = with_a_route_apart(100);
    settings.accounts[2].limits = Limits { messages_per_minute: Some(1), ..Limits::NONE };
    let mut s = Scheduler::new(settings);
    (1..=3).for_each(|n| s.add(START, Queued { route: RouteName::new("connector"), ..queued(n, Class::External) }));
    (4..=6).for_each(|n| s.add(START, queued(n, Class::Internal)));
    let empty = |classes: &[ClassStatus], class| classes.iter().find(|status| status.class == class).and_then(|status| status.empty_at);
    let classes = s.classes(START);
    assert_eq!(empty(&classes, Class::Internal), Some(START));
    assert_eq!(empty(&classes, Class::External).map(|empty| empty.since(START).as_secs()), Some(120));
    s.add(START, Queued { route: RouteName::new("gone"), ..queued(7, Class::External) });
    assert_eq!(empty(&s.classes(START), Class::External), None, "what has no account is not a matter of time");
}

#[test]
fn what_is_used_survives_a_restart() {
    let limits = external_limit(10);
    let mut s = Scheduler::new(settings(1, 20, &limits));
    (1..=10).for_each(|n| s.add(START, queued(n, Class::External)));
    let attempts = drain(&mut s, START);
    attempts[..9].iter().for_each(|attempt| drop(sent(&mut s, at(1), attempt)));
    // The tenth is under way when the relay ends; a new one begins five seconds later.
    let rows = |account: Option<&AccountName>, changes: &[BudgetChange]| -> Vec<crate::budget::Row> {
        let of = changes.iter().filter(|change| change.account.as_ref() == account);
        of.filter_map(|change| if let crate::budget::Change::Put(row) = change.change { Some(row) } else { None }).collect()
    };
    let state = s.budget_state();
    let mut s = Scheduler::new(settings(1, 20, &limits));
    s.restore(Some(&name(0)), &rows(Some(&name(0)), &state), at(5), 0);
    s.restore(None, &rows(None, &state), at(5), 0);
    (11..=21).for_each(|n| s.add(at(5), queued(n, Class::External)));
    assert_eq!(s.next(at(5)), None);
    assert_eq!(drain(&mut s, freed(61)).len(), 9);
    assert_eq!(s.deadline(freed(61)), Some(freed(65)), "what was in flight counts from the restart");
}

/// A clumsy but obviously right world: every delivery that is added ends in exactly one way, whatever happens to the attempts.
#[test]
fn nothing_is_forgotten_whatever_happens() {
    for seed in 0..200_u64 {
        let mut random = seed;
        let mut dice = move |sides: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % sides
        };
        let limits = Limits { external_per_minute: Some((3, Unit::Messages)), recipients_per_day: Some(200), ..Limits::NONE };
        let limits = if seed % 2 == 0 { limits } else { Limits::NONE };
        let mut s = Scheduler::new(settings(1 + dice(4) as usize, 1 + dice(3) as usize, &limits));
        let (mut now, mut added, mut ended) = (START, 0, 0);
        let mut flying: Vec<(Attempt, Timestamp)> = Vec::new();
        for _ in 0..2_000 {
            if added < 100 && dice(3) == 0 {
                added += 1;
                let class = if dice(2) == 0 { Class::Internal } else { Class::External };
                let client = ClientName::new(["devices", "erp", "shop"][dice(3) as usize]);
                let priority = Priority::ALL[dice(3) as usize];
                s.add(now, Queued { accepted_at: now, due: now, client, priority, ..queued(added, class) });
            }
            while let Some(decision) = s.next(now) {
                match decision {
                    Decision::Attempt { delivery, account, recipients, .. } => {
                        assert!(!flying.iter().any(|(other, _)| other.delivery == delivery), "seed {seed}: handed out twice");
                        flying.push((Attempt { delivery, account, recipients }, now));
                    }
                    Decision::Expire { .. } => ended += 1,
                    Decision::Probe { account } => drop(s.probed(now, &Probed { account, started: now, pause: None })),
                }
            }
            if dice(20) == 0 {
                s.hold(now, id(1 + dice(100) as i64), dice(2) == 0);
            }
            if !flying.is_empty() && dice(2) == 0 {
                let (attempt, started) = flying.swap_remove(dice(flying.len() as u64) as usize);
                let scope = [Scope::Account, Scope::Connection, Scope::Tenant][dice(3) as usize];
                let class = [None, Some(Class::External)][dice(2) as usize];
                let length = [PauseLength::BackOff, PauseLength::Suspended, PauseLength::For(Duration::from_secs(60))][dice(3) as usize];
                let trouble = dice(4) == 0;
                let remaining = u16::from(trouble || dice(3) == 0);
                ended += i64::from(remaining == 0);
                let pause = if trouble { pause(scope, class, length) } else { None };
                let used = if remaining == 0 { ONE } else { Used::NOTHING };
                end(&mut s, now, &attempt, End { started, used, remaining, due: now + Duration::from_secs(dice(300)), pause });
            } else if flying.is_empty() && dice(2) == 0 {
                if let Some(deadline) = s.deadline(now) {
                    now = now.max(deadline);
                }
            } else {
                now = now + Duration::from_millis(dice(2_000));
            }
        }
        (1..=added).for_each(|n| {
            s.hold(now, id(n), false);
        });
        for _ in 0..100_000 {
            while let Some(decision) = s.next(now) {
                match decision {
                    Decision::Attempt { delivery, account, recipients, .. } => {
                        flying.push((Attempt { delivery, account, recipients }, now))
                    }
                    Decision::Expire { .. } => ended += 1,
                    Decision::Probe { account } => drop(s.probed(now, &Probed { account, started: now, pause: None })),
                }
            }
            let Some((attempt, started)) = flying.pop() else {
                let Some(deadline) = s.deadline(now) else { break };
                assert!(deadline > now, "seed {seed}: a deadline in the past with nothing to do would spin");
                now = deadline;
                continue;
            };
            ended += 1;
            end(&mut s, now, &attempt, End { started, used: ONE, remaining: 0, due: now, pause: None });
        }
        assert_eq!((ended, s.counts()), (added, Counts::default()), "seed {seed}");
    }
}
