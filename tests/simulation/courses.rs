//! Courses of many hours with one question each: how fast many accounts are, how fair it is, whether forecasts come true.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use hve_relay::budget::{Limits, Unit, Used};
use hve_relay::clock::Timestamp;
use hve_relay::mail::{Class, ClientName, DeliveryId, Priority, QueueId, Queued, RouteName};
use hve_relay::schedule::{AccountSettings, ClientSettings, Decision, Ended, Scheduler, Settings};

use super::dice::Dice;
use super::observer::Upstream;
use super::world::account;

const START: Timestamp = Timestamp::from_millis(1_795_285_881_000);

fn settings(accounts: usize, connections: usize, limits: &Limits) -> Settings {
    let account = |i| AccountSettings { name: account(i), route: RouteName::new("hve"), app: None, connections, limits: limits.clone() };
    Settings { accounts: (0..accounts).map(account).collect(), ..Settings::default() }
}

fn add(s: &mut Scheduler, number: i64, client: &ClientName, class: Class, recipients: u16) {
    let id = DeliveryId { message: QueueId::from_number(number).expect("positive"), part: 1 };
    let (priority, route) = (Priority::Normal, RouteName::new("hve"));
    let (accepted_at, due, client) = (START, START, client.clone());
    let (author, held, size, attempts, in_doubt) = (None, false, 1_000, 0, None);
    s.add(START, Queued { id, client, priority, author, held, route, class, recipients, size, accepted_at, due, attempts, in_doubt });
}

/// An attempt that the course began.
struct Begun {
    delivery: DeliveryId,
    account: usize,
    recipients: u16,
}

/// Runs until nothing is left or `until`. `lasts` says how many microseconds an attempt takes, and `begun` hears of each. Returns the last end.
fn run(
    s: &mut Scheduler,
    accounts: usize,
    until: Timestamp,
    mut lasts: impl FnMut() -> i64,
    mut begun: impl FnMut(i64, i64, &Begun) -> bool,
) -> Timestamp {
    let names: Vec<_> = (0..accounts).map(account).collect();
    let mut micros = START.as_millis() * 1_000;
    let mut ends: BinaryHeap<Reverse<(i64, DeliveryId, u16, Timestamp)>> = BinaryHeap::new();
    loop {
        let now = Timestamp::from_millis(micros.div_euclid(1_000));
        while let Some(Reverse((_, delivery, recipients, started))) = ends.peek().copied().filter(|Reverse((at, ..))| *at <= micros) {
            ends.pop();
            let used = Used { recipients: u32::from(recipients), message: true };
            s.ended(now, &Ended { delivery, started, used, pause: None });
            s.settled(now, delivery, 0, now);
        }
        while let Some(Decision::Attempt { delivery, account, recipients, .. }) = s.next(now) {
            let account = names.iter().position(|name| *name == account).expect("an account");
            let end = micros + lasts();
            ends.push(Reverse((end, delivery, recipients, now)));
            if !begun(micros, end, &Begun { delivery, account, recipients }) {
                return now;
            }
        }
        s.budget_changes();
        let opens = s.deadline(now).map(|at| at.as_millis() * 1_000);
        let next = [opens, ends.peek().map(|Reverse((at, ..))| *at)].into_iter().flatten().min();
        match next {
            Some(next) if s.counts() != Default::default() && next <= until.as_millis() * 1_000 => micros = next.max(micros),
            _ => return now,
        }
    }
}

#[test]
fn twenty_accounts_carry_twenty_times_the_external_rate_and_are_never_refused() {
    let limits = Limits {
        external_per_minute: Some((10, Unit::Messages)),
        external_recipients_per_day: Some(2_000),
        recipients_per_day: Some(100_000),
        ..Limits::NONE
    };
    let sent_by = |accounts: usize, hours: u64| {
        let mut s = Scheduler::new(settings(accounts, 4, &limits));
        let client = ClientName::new("erp");
        (1..=3_000 * accounts as i64).for_each(|number| add(&mut s, number, &client, Class::External, 1));
        let mut dice = Dice::new(20);
        let mut when = Dice::new(21);
        let mut stamps: Vec<(i64, usize)> = Vec::new();
        let until = START + Duration::from_secs(3_600 * hours);
        let lasts = || 100_000 + dice.below(3_000_000) as i64;
        run(&mut s, accounts, until, lasts, |start, end, begun| {
            stamps.push((start + when.below((end - start) as u64 + 1) as i64, begun.account));
            true
        });
        // The server counts each attempt at some moment of it, and would refuse what is one too many.
        stamps.sort_unstable();
        let mut upstream: Vec<Upstream> = (0..accounts).map(|_| Upstream::default()).collect();
        for (micros, account) in &stamps {
            assert_eq!(upstream[*account].count(*micros, Class::External, 1, &limits), Ok(()), "HVE refuses nothing");
        }
        stamps.len()
    };
    let (one, twenty) = (sent_by(1, 2), sent_by(20, 2));
    assert!(one >= 1_100, "{one} in two hours, and 1,200 would be the limit itself");
    assert!(twenty * 100 >= one * 20 * 98, "{twenty} by twenty accounts, {one} by one");
    assert_eq!(sent_by(20, 23), 20 * 2_000, "and the day's limit of each is used up, and not passed");
}

#[test]
fn clients_of_one_priority_share_by_weight_whatever_they_send() {
    for seed in 0..30 {
        let mut dice = Dice::new(seed);
        let accounts = 1 + dice.below(3) as usize;
        let clients: Vec<ClientSettings> = (0..2 + dice.below(5))
            .map(|i| ClientSettings { weight: 1 + dice.below(5) as u32, ..ClientSettings::new(ClientName::new(format!("client{i}"))) })
            .collect();
        let limits = Limits { messages_per_minute: dice.chance(50).then_some(7), ..Limits::NONE };
        let mut s = Scheduler::new(Settings { clients: clients.clone(), ..settings(accounts, 1 + dice.below(3) as usize, &limits) });
        let mut number = 0;
        let mut owners = vec![0];
        for (owner, client) in clients.iter().enumerate() {
            let most = dice.pick(&[1, 5, 50]);
            for _ in 0..60 * client.weight * 50 / most as u32 {
                number += 1;
                owners.push(owner);
                add(&mut s, number, &client.name, Class::Internal, 1 + dice.below(most) as u16);
            }
        }
        let mut sent = vec![0_u64; clients.len()];
        let forever = START + Duration::from_secs(864_000);
        let lasts = || dice.below(5_000_000) as i64;
        run(&mut s, accounts, forever, lasts, |_, _, begun| {
            let owner = owners[begun.delivery.message.number() as usize];
            sent[owner] += u64::from(begun.recipients);
            // As long as everyone has mail left.
            sent[owner] < 1_000 * u64::from(clients[owner].weight)
        });
        // Two that always have mail are never further apart than one message of each (Goyal et al. 1996, theorem 1).
        for (a, one) in clients.iter().enumerate() {
            for (b, other) in clients.iter().enumerate() {
                let (share, others) = (sent[a] as f64 / f64::from(one.weight), sent[b] as f64 / f64::from(other.weight));
                let apart = 50.0 / f64::from(one.weight) + 50.0 / f64::from(other.weight);
                assert!(
                    (share - others).abs() <= apart,
                    "SEED={seed}: {sent:?} by {:?}",
                    clients.iter().map(|client| client.weight).collect::<Vec<_>>()
                );
            }
        }
    }
}

#[test]
fn a_class_is_empty_when_it_was_forecast_to_be() {
    for seed in 0..100 {
        let mut dice = Dice::new(seed);
        let accounts = 1 + dice.below(5) as usize;
        let limits = Limits {
            recipients_per_day: dice.chance(30).then(|| 100 + dice.below(400) as u32),
            external_recipients_per_day: dice.chance(50).then(|| 20 + dice.below(200) as u32),
            external_per_minute: dice.chance(80).then(|| (1 + dice.below(12) as u32, dice.pick(&[Unit::Messages, Unit::Recipients]))),
            messages_per_minute: dice.chance(30).then(|| 1 + dice.below(20) as u32),
            ..Limits::NONE
        };
        let mut s = Scheduler::new(settings(accounts, 4, &limits));
        let client = ClientName::new("erp");
        let count = 1 + dice.below(1_500) as i64;
        (1..=count).for_each(|number| add(&mut s, number, &client, Class::External, 1));
        let forecast = s.classes(START)[0].empty_at.expect("a forecast");
        let forever = START + Duration::from_secs(86_400 * 365);
        // Longer than the lifetime nothing waits.
        let expected = forecast.min(START + Settings::default().lifetime);
        let empty = run(&mut s, accounts, forever, || 0, |_, _, _| true);
        assert_eq!(empty, expected, "SEED={seed}: {count} on {accounts} accounts with {limits:?}");
    }
}
