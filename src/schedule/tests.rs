use std::time::Duration;

use super::*;
use crate::clock::Timestamp;
use crate::mail::{AccountName, Class, ClientName, DeliveryId, QueueId, Queued, RouteName};
use crate::reply::{Pause, PauseLength, Scope};

const START: Timestamp = Timestamp::from_millis(1_795_285_881_000);

fn at(seconds: u64) -> Timestamp {
    START + Duration::from_secs(seconds)
}

fn scheduler(accounts: usize, connections: usize) -> Scheduler {
    let account = |i| AccountSettings { name: AccountName::new(format!("hve{i}@contoso.com")), route: RouteName::new("hve"), connections };
    Scheduler::new(Settings { accounts: (0..accounts).map(account).collect(), ..Settings::default() })
}

fn id(number: i64) -> DeliveryId {
    DeliveryId { message: QueueId::from_number(number).expect("positive"), part: 1 }
}

fn queued(number: i64, class: Class) -> Queued {
    Queued {
        id: id(number),
        client: ClientName::new("devices"),
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

/// Hands out everything that can go now.
fn drain(scheduler: &mut Scheduler, now: Timestamp) -> Vec<(DeliveryId, AccountName)> {
    std::iter::from_fn(|| scheduler.next(now))
        .map(|decision| match decision {
            Decision::Attempt { delivery, account } => (delivery, account),
            Decision::Expire { .. } => panic!("nothing is to expire here"),
        })
        .collect()
}

fn finished(attempt: &(DeliveryId, AccountName), started: Timestamp, remaining: u16, pause: Option<Pause>) -> Finished {
    Finished { delivery: attempt.0, account: attempt.1.clone(), started, remaining, due: started, pause }
}

fn pause(scope: Scope, class: Option<Class>, length: PauseLength) -> Option<Pause> {
    Some(Pause { scope, class, length, reason: "because".into(), advice: String::new() })
}

#[test]
fn rotates_over_the_accounts_and_keeps_their_connections() {
    let mut s = scheduler(3, 2);
    (1..=9).for_each(|n| s.add(START, queued(n, Class::Internal)));
    let first = drain(&mut s, START);
    let order: Vec<&str> = first.iter().map(|(_, account)| &account.as_str()[..4]).collect();
    assert_eq!(order, ["hve0", "hve1", "hve2", "hve0", "hve1", "hve2"]);
    assert_eq!(s.counts(), Counts { active: 6, ready: 3, deferred: 0 });
    s.finish(START, finished(&first[4], START, 0, None));
    let next = drain(&mut s, START);
    assert_eq!(next, [(id(7), first[4].1.clone())], "the freed connection is used at once, for the oldest");
}

#[test]
fn a_deferred_delivery_comes_back_when_it_is_due() {
    let mut s = scheduler(1, 1);
    s.add(START, queued(1, Class::Internal));
    let attempt = drain(&mut s, START).remove(0);
    s.finish(START, Finished { due: at(60), ..finished(&attempt, START, 1, None) });
    assert_eq!(s.next(at(59)), None);
    assert_eq!(s.deadline(), Some(at(60)));
    assert_eq!(drain(&mut s, at(60)).len(), 1);
}

#[test]
fn an_account_in_trouble_rests_while_the_others_carry_on() {
    let mut s = scheduler(2, 1);
    (1..=4).for_each(|n| s.add(START, queued(n, Class::Internal)));
    let first = drain(&mut s, START);
    let changes = s.finish(START, finished(&first[0], START, 1, pause(Scope::Account, None, PauseLength::Suspended)));
    assert!(matches!(&changes[..], [Change::Closed { gate: Who::Account(name), until, .. }] if *name == first[0].1 && *until == at(1_200)));
    assert_eq!(drain(&mut s, START), [], "the only free account is closed");
    s.finish(at(1), finished(&first[1], START, 0, None));
    assert_eq!(drain(&mut s, at(1)), [(id(3), first[1].1.clone())]);
}

#[test]
fn a_closed_class_leaves_the_other_class_alone() {
    let mut s = scheduler(1, 2);
    s.add(START, queued(1, Class::External));
    let attempt = drain(&mut s, START).remove(0);
    let minute = pause(Scope::Account, Some(Class::External), PauseLength::For(Duration::from_secs(60)));
    s.finish(START, finished(&attempt, START, 1, minute));
    s.add(START, queued(2, Class::Internal));
    assert_eq!(drain(&mut s, START).iter().map(|(d, _)| *d).collect::<Vec<_>>(), [id(2)]);
    assert_eq!(s.deadline(), Some(at(60)));
    assert_eq!(drain(&mut s, at(60)).iter().map(|(d, _)| *d).collect::<Vec<_>>(), [id(1)]);
}

#[test]
fn a_dead_endpoint_is_probed_by_one_attempt_at_growing_intervals() {
    let mut s = scheduler(3, 4);
    (1..=50).for_each(|n| s.add(START, queued(n, Class::Internal)));
    let burst = drain(&mut s, START);
    assert_eq!(burst.len(), 12);
    let mut closed = 0;
    for attempt in &burst {
        closed += s.finish(START, finished(attempt, START, 1, pause(Scope::Connection, None, PauseLength::BackOff))).len();
    }
    assert_eq!(closed, 1, "twelve attempts that failed together are one trouble");
    let mut now = START;
    for expected in [5, 10, 20, 40, 80, 160, 320, 600, 600] {
        let opens = s.deadline().expect("a time");
        assert_eq!(opens.since(now), Duration::from_secs(expected));
        now = opens;
        let probe = drain(&mut s, now);
        assert_eq!(probe.len(), 1, "one attempt goes ahead");
        assert!(s.deadline() > Some(now), "and the rest waits for its end, not for a time");
        s.finish(now, finished(&probe[0], now, 1, pause(Scope::Connection, None, PauseLength::BackOff)));
    }
    now = s.deadline().expect("a time");
    let probe = drain(&mut s, now);
    let changes = s.finish(now, finished(&probe[0], now, 0, None));
    assert_eq!(changes, [Change::Opened { gate: Who::Route(RouteName::new("hve")) }]);
    assert_eq!(drain(&mut s, now).len(), 12);
}

#[test]
fn what_is_older_than_the_lifetime_expires_once() {
    let mut s = scheduler(1, 1);
    (1..=3).for_each(|n| s.add(START, queued(n, Class::Internal)));
    let attempt = drain(&mut s, START).remove(0);
    let day = Duration::from_secs(86_400);
    assert_eq!(s.deadline(), Some(START + 5 * day));
    let end = START + 5 * day;
    assert_eq!(s.next(end), Some(Decision::Expire { delivery: id(2) }), "an attempt under way is left to end");
    assert_eq!(s.next(end), Some(Decision::Expire { delivery: id(3) }));
    assert_eq!(s.next(end), None);
    s.finish(end, Finished { due: end, ..finished(&attempt, START, 1, None) });
    assert_eq!(s.next(end + Duration::from_secs(1)), Some(Decision::Expire { delivery: id(1) }));
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
fn an_attempt_that_did_not_begin_frees_its_place() {
    let mut s = scheduler(1, 1);
    s.add(START, queued(1, Class::Internal));
    let (delivery, account) = drain(&mut s, START).remove(0);
    s.put_back(START, delivery, &account, START);
    assert_eq!(drain(&mut s, START), [(delivery, account)]);
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
        let mut s = scheduler(1 + dice(4) as usize, 1 + dice(3) as usize);
        let (mut now, mut added, mut ended) = (START, 0, 0);
        let mut flying: Vec<(DeliveryId, AccountName, Timestamp)> = Vec::new();
        for _ in 0..2_000 {
            if added < 100 && dice(3) == 0 {
                added += 1;
                let class = if dice(2) == 0 { Class::Internal } else { Class::External };
                s.add(now, Queued { accepted_at: now, due: now, ..queued(added, class) });
            }
            while let Some(decision) = s.next(now) {
                match decision {
                    Decision::Attempt { delivery, account } => {
                        assert!(!flying.iter().any(|(other, ..)| *other == delivery), "seed {seed}: handed out twice");
                        flying.push((delivery, account, now));
                    }
                    Decision::Expire { .. } => ended += 1,
                }
            }
            if !flying.is_empty() && dice(2) == 0 {
                let (delivery, account, started) = flying.swap_remove(dice(flying.len() as u64) as usize);
                let scope = [Scope::Account, Scope::Connection, Scope::Tenant][dice(3) as usize];
                let class = [None, Some(Class::External)][dice(2) as usize];
                let length = [PauseLength::BackOff, PauseLength::Suspended, PauseLength::For(Duration::from_secs(60))][dice(3) as usize];
                let trouble = dice(4) == 0;
                let remaining = u16::from(trouble || dice(3) == 0);
                ended += i64::from(remaining == 0);
                let pause = if trouble { pause(scope, class, length) } else { None };
                s.finish(now, Finished { delivery, account, started, remaining, due: now + Duration::from_secs(dice(300)), pause });
            } else if flying.is_empty() && dice(2) == 0 {
                if let Some(deadline) = s.deadline() {
                    now = now.max(deadline);
                }
            } else {
                now = now + Duration::from_millis(dice(2_000));
            }
        }
        for _ in 0..100_000 {
            while let Some(decision) = s.next(now) {
                match decision {
                    Decision::Attempt { delivery, account } => flying.push((delivery, account, now)),
                    Decision::Expire { .. } => ended += 1,
                }
            }
            let Some((delivery, account, started)) = flying.pop() else {
                let Some(deadline) = s.deadline() else { break };
                assert!(deadline > now, "seed {seed}: a deadline in the past with nothing to do would spin");
                now = deadline;
                continue;
            };
            ended += 1;
            s.finish(now, Finished { delivery, account, started, remaining: 0, due: now, pause: None });
        }
        assert_eq!((ended, s.counts()), (added, Counts::default()), "seed {seed}");
    }
}
