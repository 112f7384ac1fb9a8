//! Who is not well, and how it is found out that he is well again.

use super::*;

/// What a decision is, in short.
#[derive(Debug, PartialEq, Eq)]
enum Done {
    Attempt(Attempt),
    Login(AccountName),
}

fn all(s: &mut Scheduler, now: Timestamp) -> Vec<Done> {
    std::iter::from_fn(|| s.next(now))
        .map(|decision| match decision {
            Decision::Attempt { delivery, account, recipients, .. } => Done::Attempt(Attempt { delivery, account, recipients }),
            Decision::Probe { account } => Done::Login(account),
            Decision::Expire { .. } => panic!("nothing is to expire here"),
        })
        .collect()
}

fn logins(s: &mut Scheduler, now: Timestamp) -> Vec<Done> {
    all(s, now).into_iter().filter(|done| matches!(done, Done::Login(_))).collect()
}

fn met(scope: Scope, length: PauseLength, step: Step, kind: &str) -> Pause {
    let reason = format!("{step}: {kind}");
    Pause { scope, class: None, length, every: None, limit: None, step, kind: kind.into(), reason, advice: "Act.".into() }
}

fn refused() -> Pause {
    met(Scope::Account, PauseLength::Suspended, Step::Auth, "authentication-failed")
}

fn login(s: &mut Scheduler, now: Timestamp, number: usize, pause: Option<Pause>) -> Vec<Change> {
    s.probed(now, &Probed { account: name(number), started: now, pause })
}

fn state(s: &Scheduler, now: Timestamp, number: usize) -> State {
    s.accounts(now)[number].health.state
}

fn closed(changes: &[Change]) -> Vec<Who> {
    changes.iter().filter_map(|change| if let Change::Closed { gate, .. } = change { Some(gate.clone()) } else { None }).collect()
}

fn opened(changes: &[Change]) -> Vec<Who> {
    changes.iter().filter_map(|change| if let Change::Opened { gate } = change { Some(gate.clone()) } else { None }).collect()
}

/// A millisecond later: what begins in the very moment of a report says nothing new.
fn then(at: Timestamp) -> Timestamp {
    at + Duration::from_millis(1)
}

#[test]
fn a_refused_password_is_tried_by_a_login_now_and_then_whatever_waits() {
    let mut s = scheduler(2, 1);
    (1..=200).for_each(|n| s.add(START, queued(n, Class::Internal)));
    let first = drain(&mut s, START);
    assert_eq!(closed(&failed(&mut s, START, &first[0], Some(refused()))), [Who::Account(name(0))]);
    let (mut now, mut logins, mut other) = (START, Vec::new(), first[1].clone());
    while now < at(3_600) {
        sent(&mut s, now, &other);
        for done in all(&mut s, now) {
            match done {
                Done::Attempt(attempt) => {
                    assert_eq!(attempt.account, name(1), "the other carries the mail");
                    other = attempt;
                }
                Done::Login(account) => {
                    assert_eq!(account, name(0));
                    logins.push(now);
                    assert_eq!(state(&s, now, 0), State::Probing);
                    // The network, the server, the password: whatever it meets, it comes back no earlier.
                    let trouble = match logins.len() {
                        1 => met(Scope::Connection, PauseLength::BackOff, Step::Connect, "connection-lost"),
                        _ => refused(),
                    };
                    login(&mut s, now, 0, Some(trouble));
                }
            }
        }
        now = now + Duration::from_secs(20);
    }
    assert_eq!(logins, [at(1_200), at(2_400)]);
    let health = s.accounts(at(3_599))[0].health.clone();
    assert_eq!((health.state, health.since, health.until, health.logins), (State::Suspended, Some(START), Some(at(3_600)), 3));
    assert_eq!((health.reason.as_str(), health.advice.as_str()), ("AUTH: authentication-failed", "Act."));
}

#[test]
fn a_login_ends_what_a_login_met_and_nothing_need_wait_for_it() {
    let mut s = scheduler(1, 4);
    s.add(START, queued(1, Class::Internal));
    let attempt = drain(&mut s, START).remove(0);
    failed(&mut s, START, &attempt, Some(refused()));
    assert_eq!(s.why(at(1), id(1)).and_then(|wait| wait.until), Some(at(1_200)));
    assert_eq!(s.deadline(at(1)), Some(at(1_200)));
    assert_eq!(all(&mut s, at(1_200)), [Done::Login(name(0))]);
    assert_eq!(s.why(at(1_200), id(1)).and_then(|wait| wait.until), None, "it may be over at any moment");
    assert_eq!(opened(&login(&mut s, at(1_201), 0, None)), [Who::Account(name(0))]);
    assert_eq!((drain(&mut s, at(1_201)).len(), state(&s, at(1_201), 0)), (1, State::Healthy));
}

#[test]
fn what_a_message_met_a_single_message_tries_once_a_login_has_passed() {
    let mut s = scheduler(1, 4);
    (1..=9).for_each(|n| s.add(START, queued(n, Class::Internal)));
    let punished = || met(Scope::Account, PauseLength::Suspended, Step::Rcpt, "account-punished");
    let burst = drain(&mut s, START);
    burst.iter().for_each(|attempt| drop(failed(&mut s, START, attempt, Some(punished()))));
    assert_eq!(all(&mut s, at(1_200)), [Done::Login(name(0))], "no mail before that");
    assert_eq!(login(&mut s, at(1_201), 0, None), []);
    assert_eq!(state(&s, at(1_201), 0), State::Probing);
    let ahead = drain(&mut s, at(1_201));
    assert_eq!(ahead.len(), 1, "one goes ahead");
    failed(&mut s, at(1_202), &ahead[0], Some(punished()));
    assert_eq!(s.deadline(at(1_202)), Some(at(2_402)));
    assert_eq!(all(&mut s, at(2_402)), [Done::Login(name(0))], "and again it is a login that comes first");
    login(&mut s, at(2_403), 0, None);
    let ahead = drain(&mut s, at(2_403));
    assert_eq!(
        opened(&end(&mut s, at(2_404), &ahead[0], End { started: at(2_403), used: ONE, remaining: 0, due: at(2_404), pause: None })),
        [Who::Account(name(0))]
    );
    assert_eq!(drain(&mut s, at(2_404)).len(), 4);
}

fn with_apps(apps: &[Option<&str>]) -> Scheduler {
    let mut settings = settings(apps.len(), 2, &Limits::NONE);
    for (account, app) in settings.accounts.iter_mut().zip(apps) {
        account.app = app.map(crate::mail::AppName::new);
    }
    Scheduler::new(settings)
}

#[test]
fn an_application_is_one_gate_for_its_accounts_which_take_turns_at_it() {
    let mut s = with_apps(&[Some("mailer"), Some("mailer"), None]);
    (1..=6).for_each(|n| s.add(START, queued(n, Class::Internal)));
    let burst = drain(&mut s, START);
    let of = |number| burst.iter().find(|attempt| attempt.account == name(number)).expect("one").clone();
    let no_consent = || met(Scope::App, PauseLength::Suspended, Step::Auth, "app-permission");
    assert_eq!(closed(&failed(&mut s, START, &of(0), Some(no_consent()))), [Who::App(crate::mail::AppName::new("mailer"))]);
    assert_eq!(closed(&failed(&mut s, START, &of(1), Some(no_consent()))), []);
    assert_eq!((state(&s, START, 0), state(&s, START, 2)), (State::Healthy, State::Healthy), "it is not the account's own");
    assert_eq!(s.troubles(START).iter().map(|trouble| trouble.health.state).collect::<Vec<_>>(), [State::Suspended]);
    sent(&mut s, at(1), &of(2));
    let rest = drain(&mut s, at(1));
    assert!(!rest.is_empty() && rest.iter().all(|attempt| attempt.account == name(2)), "an account with a password goes on: {rest:?}");
    for (seconds, number) in [(1_200, 0), (2_400, 1), (3_600, 0)] {
        assert_eq!(all(&mut s, at(seconds)), [Done::Login(name(number))]);
        login(&mut s, at(seconds), number, Some(no_consent()));
    }
    assert_eq!(all(&mut s, at(4_800)), [Done::Login(name(1))]);
    assert_eq!(opened(&login(&mut s, then(at(4_800)), 1, None)).len(), 1);
    assert_eq!(s.troubles(at(4_801)), []);
}

#[test]
fn the_tenant_is_a_gate_before_its_accounts_and_not_before_a_route_apart() {
    let mut settings = settings(2, 1, &Limits::NONE);
    settings.accounts[1].route = RouteName::new("smarthost");
    settings.apart = vec![RouteName::new("smarthost")];
    let mut s = Scheduler::new(settings);
    s.add(START, queued(1, Class::Internal));
    s.add(START, Queued { route: RouteName::new("smarthost"), ..queued(2, Class::Internal) });
    let burst = drain(&mut s, START);
    let blocked = || met(Scope::Tenant, PauseLength::Suspended, Step::EndOfData, "tenant-blocked");
    assert_eq!(closed(&failed(&mut s, START, &burst[0], Some(blocked()))), [Who::Tenant]);
    assert_eq!(closed(&failed(&mut s, START, &burst[1], Some(blocked()))), [Who::Route(RouteName::new("smarthost"))]);
    assert_eq!(s.suspended(), [Who::Route(RouteName::new("smarthost")), Who::Tenant]);
}

#[test]
fn accounts_that_are_all_suspended_alike_are_one_trouble() {
    let mut s = scheduler(3, 1);
    (1..=3).for_each(|n| s.add(START, queued(n, Class::Internal)));
    let burst = drain(&mut s, START);
    assert_eq!(closed(&failed(&mut s, at(0), &burst[0], Some(refused()))), [Who::Account(name(0))]);
    assert_eq!(closed(&failed(&mut s, at(1), &burst[1], Some(refused()))), [Who::Account(name(1))]);
    let last = failed(&mut s, at(2), &burst[2], Some(refused()));
    assert_eq!(closed(&last), [Who::Tenant], "the last of them makes it the tenant's");
    assert!(matches!(&last[..], [Change::Closed { pause, .. }] if pause.reason == "all 3 accounts: AUTH: authentication-failed"));
    let troubles = s.troubles(at(2));
    assert_eq!((troubles.len(), &troubles[0].who, troubles[0].health.until), (1, &Who::Tenant, Some(at(1_200))));
    assert_eq!(s.suspended(), [Who::Tenant]);
    assert_eq!(all(&mut s, at(1_200)), [Done::Login(name(0))]);
    assert_eq!(login(&mut s, at(1_200), 0, Some(refused())), [], "that it is still so is no news");
    // When it ends for one of them, the others are tried at once; what they meet then is their own.
    assert_eq!((all(&mut s, at(2_399)), all(&mut s, at(2_400))), (vec![], vec![Done::Login(name(1))]));
    assert_eq!(opened(&login(&mut s, then(at(2_400)), 1, None)), [Who::Account(name(1)), Who::Tenant]);
    assert_eq!(logins(&mut s, at(2_402)), [Done::Login(name(2)), Done::Login(name(0))]);
    assert_eq!(opened(&login(&mut s, at(2_403), 0, None)), [Who::Account(name(0))]);
    assert_eq!(closed(&login(&mut s, at(2_403), 2, Some(refused()))), [Who::Account(name(2))]);
}

#[test]
fn different_troubles_are_not_one() {
    let mut s = scheduler(2, 1);
    (1..=2).for_each(|n| s.add(START, queued(n, Class::Internal)));
    let burst = drain(&mut s, START);
    failed(&mut s, START, &burst[0], Some(refused()));
    let blocked = met(Scope::Account, PauseLength::Suspended, Step::Mail, "account-blocked");
    assert_eq!(closed(&failed(&mut s, START, &burst[1], Some(blocked))), [Who::Account(name(1))]);
    assert_eq!(s.troubles(START), []);
}

#[test]
fn too_many_connections_become_fewer_explain_themselves_and_grow_back() {
    let mut s = scheduler(1, 5);
    (1..=20).for_each(|n| s.add(START, queued(n, Class::Internal)));
    let burst = drain(&mut s, START);
    let many = || Some(met(Scope::Account, PauseLength::FewerConnections, Step::Mail, "432 4.3.2 Concurrent connections limit exceeded"));
    let changes = failed(&mut s, at(1), &burst[4], many());
    assert!(matches!(&changes[..], [Change::Narrowed { using: 4, configured: 5, .. }]), "{changes:?}");
    end(&mut s, at(1), &burst[3], End { started: START, used: Used::NOTHING, remaining: 1, due: at(1), pause: many() });
    let status = s.accounts(at(2)).remove(0);
    assert_eq!((status.connections, status.configured, status.active), (3, 5, 3));
    assert_eq!(status.health.state, State::Reduced);
    let reason =
        format!("configured 5 connections, using 3 since {} because MAIL FROM: 432 4.3.2 Concurrent connections limit exceeded", at(1));
    assert_eq!((status.health.reason, status.health.until), (reason, Some(at(601))));
    assert_eq!(drain(&mut s, at(2)), [], "three are in use");
    assert_eq!(s.why(at(2), id(9)).map(|wait| wait.reason), Some(Reason::Connections));
    assert_eq!((drain(&mut s, at(601)).len(), s.news().len()), (1, 1), "one more is tried");
    assert_eq!((drain(&mut s, at(1_201)).len(), state(&s, at(1_201), 0)), (1, State::Healthy));
}

#[test]
fn a_single_connection_that_is_too_much_rests() {
    let mut s = scheduler(1, 1);
    s.add(START, queued(1, Class::Internal));
    let attempt = drain(&mut s, START).remove(0);
    let many = met(Scope::Account, PauseLength::FewerConnections, Step::Mail, "too-many-connections");
    assert_eq!(closed(&failed(&mut s, START, &attempt, Some(many))), [Who::Account(name(0))]);
    assert_eq!(s.deadline(START), Some(at(5)));
}

#[test]
fn what_was_learned_survives_a_restart_and_no_login_comes_early() {
    let settings = settings(3, 5, &Limits::NONE);
    let mut before = Scheduler::new(settings.clone());
    (1..=15).for_each(|n| before.add(START, queued(n, Class::Internal)));
    let burst = drain(&mut before, START);
    let of = |number: usize| burst.iter().filter(move |attempt| attempt.account == name(number));
    failed(&mut before, at(1), of(0).next().expect("one"), Some(refused()));
    let many = met(Scope::Account, PauseLength::FewerConnections, Step::Mail, "too-many-connections");
    failed(&mut before, at(1), of(1).next().expect("one"), Some(many));
    assert!(before.health_changes().is_some() && before.health_changes().is_none());
    let dead = met(Scope::Connection, PauseLength::BackOff, Step::Connect, "connection-lost");
    failed(&mut before, at(2), of(2).next().expect("one"), Some(dead));
    let rows = before.health_changes().expect("it has changed");

    let mut after = Scheduler::new(settings.clone());
    after.restore_health(at(3), rows.clone());
    (1..=15).for_each(|n| after.add(at(3), queued(n, Class::Internal)));
    assert_eq!(after.accounts(at(3))[0].health, before.accounts(at(3))[0].health);
    assert_eq!((after.accounts(at(3))[1].connections, state(&after, at(3), 1)), (4, State::Reduced));
    assert_eq!(all(&mut after, at(3)), [], "the endpoint is closed");
    let ahead = drain(&mut after, at(7));
    assert_eq!(ahead.len(), 1);
    assert_ne!(ahead[0].account, name(0));
    sent(&mut after, at(8), &ahead[0]);
    assert!(drain(&mut after, at(8)).iter().all(|attempt| attempt.account != name(0)));
    assert_eq!(logins(&mut after, at(1_201)), [Done::Login(name(0))]);
    // It is recorded when it begins: the relay that comes after the next crash does not begin it once more.
    let rows = after.health_changes().expect("it has changed");
    let mut later = Scheduler::new(settings);
    later.restore_health(at(1_202), rows);
    assert_eq!((logins(&mut later, at(2_400)), logins(&mut later, at(2_401))), (vec![], vec![Done::Login(name(0))]));
}

#[test]
fn an_operators_word_has_it_tried_at_once() {
    let mut s = with_apps(&[Some("mailer"), Some("mailer")]);
    (1..=2).for_each(|n| s.add(START, queued(n, Class::Internal)));
    let burst = drain(&mut s, START);
    failed(&mut s, START, &burst[0], Some(met(Scope::App, PauseLength::Suspended, Step::Token, "token")));
    failed(&mut s, START, &burst[1], Some(refused()));
    assert_eq!(all(&mut s, at(10)), []);
    assert!(s.suspend(at(10), &name(1), None));
    assert_eq!(all(&mut s, at(10)), [Done::Login(name(1))], "what it shares with others is tried by it");
    login(&mut s, at(11), 1, None);
    assert_eq!(drain(&mut s, at(11)).len(), 2);
}

#[test]
fn what_met_a_password_that_was_replaced_says_nothing_of_the_new_one() {
    for by_reload in [false, true] {
        let mut s = scheduler(1, 3);
        (1..=4).for_each(|n| s.add(START, queued(n, Class::Internal)));
        let burst = drain(&mut s, START);
        failed(&mut s, at(1), &burst[0], Some(refused()));
        match by_reload {
            true => s.try_again(at(2), &Who::Account(name(0))),
            false => assert!(s.suspend(at(2), &name(0), None)),
        }
        // Two are still under way that had begun with the old one.
        assert_eq!(s.ended(at(3), &ended(&burst[1], START, refused())), []);
        let next = drain(&mut s, at(4));
        assert_eq!(next.len(), 2, "and mail goes on");
        let told = s.ended(at(5), &ended(&next[0], at(4), refused()));
        assert!(matches!(told[..], [Change::Closed { .. }]), "{told:?}");
    }
}

fn ended(attempt: &Attempt, started: Timestamp, pause: Pause) -> Ended {
    Ended { delivery: attempt.delivery, started, used: Used::NOTHING, pause: Some(pause) }
}

#[test]
fn a_delivery_goes_elsewhere_than_where_it_was_just_refused_and_again_only_where_no_other_is() {
    let mut s = scheduler(2, 2);
    s.add(START, queued(1, Class::Internal));
    let chance = |s: &mut Scheduler, now| match s.next(now) {
        Some(Decision::Attempt { delivery, account, recipients, chance }) => (Attempt { delivery, account, recipients }, chance),
        other => panic!("{other:?}"),
    };
    let (first, of_first) = chance(&mut s, START);
    assert_eq!(of_first, Chance::First);
    failed(&mut s, START, &first, None);
    s.try_elsewhere(first.delivery, &first.account);
    let (second, of_second) = chance(&mut s, START);
    assert_eq!((of_second, second.account == first.account), (Chance::Elsewhere, false));
    // From here on it waits its time, and may go anywhere.
    failed(&mut s, START, &second, None);
    let (third, of_third) = chance(&mut s, START);
    assert_eq!(of_third, Chance::First);
    failed(&mut s, START, &third, None);
    s.try_elsewhere(third.delivery, &third.account);
    let other = usize::from(third.account == name(0));
    s.suspend(START, &name(other), Some(Suspension { until: None, reason: String::new() }));
    assert_eq!(chance(&mut s, START), (third, Chance::Again), "rather there than nowhere");
}

/// Four accounts that were all refused alike; at 1.
fn all_refused() -> Scheduler {
    let mut s = scheduler(4, 1);
    (1..=8).for_each(|n| s.add(START, queued(n, Class::Internal)));
    let burst = drain(&mut s, START);
    let told: Vec<Change> = burst.iter().flat_map(|attempt| failed_telling(&mut s, at(1), attempt, START)).collect();
    assert!(matches!(told.last(), Some(Change::Closed { gate: Who::Tenant, .. })), "{told:?}");
    s
}

fn failed_telling(s: &mut Scheduler, now: Timestamp, attempt: &Attempt, started: Timestamp) -> Vec<Change> {
    let changes = s.ended(now, &ended(attempt, started, refused()));
    s.settled(now, attempt.delivery, 1, now);
    changes
}

#[test]
fn of_accounts_that_are_all_suspended_alike_one_logs_in_each_time() {
    let mut s = all_refused();
    let probe = s.settings.probe.as_secs();
    let mut tried = Vec::new();
    for round in 1..=4 {
        assert_eq!(logins(&mut s, at(probe * round)), [], "not before its time");
        let done = logins(&mut s, at(1 + probe * round));
        let [Done::Login(account)] = &done[..] else { panic!("{done:?}") };
        tried.push(account.clone());
        let number = (0..4).find(|number| name(*number) == *account).expect("an account");
        login(&mut s, at(2 + probe * round), number, Some(refused()));
    }
    tried.sort_unstable();
    tried.dedup();
    assert_eq!(tried.len(), 4, "they take turns");
    // When it passes, the others are tried at once.
    let last = 1 + probe * 5 + 4;
    let done = logins(&mut s, at(last));
    let [Done::Login(account)] = &done[..] else { panic!("{done:?}") };
    let number = (0..4).find(|number| name(*number) == *account).expect("an account");
    login(&mut s, at(last + 1), number, None);
    assert_eq!(logins(&mut s, at(last + 1)).len(), 3);
}

#[test]
fn an_operators_word_for_one_of_those_that_are_suspended_alike_is_no_trouble_of_the_others() {
    for refused_again in [true, false] {
        let mut s = all_refused();
        assert!(s.suspend(at(10), &name(2), None));
        assert_eq!(s.news(), [], "nothing has shown that it is over");
        assert_eq!(s.suspended(), [Who::Tenant]);
        let attempt = drain(&mut s, at(10)).remove(0);
        assert_eq!(attempt.account, name(2));
        if refused_again {
            assert_eq!(failed_telling(&mut s, at(11), &attempt, at(10)), [], "it is as it was");
            assert_eq!(logins(&mut s, at(11)), []);
            continue;
        }
        let used = Used { recipients: 1, message: true };
        let told = s.ended(at(11), &Ended { delivery: attempt.delivery, started: at(10), used, pause: None });
        assert_eq!(told, [Change::Opened { gate: Who::Tenant }]);
        assert_eq!(logins(&mut s, at(11)).len(), 3, "and the others are tried at once");
    }
}

#[test]
fn what_an_operator_opens_is_told() {
    let mut s = scheduler(2, 1);
    s.add(START, queued(1, Class::Internal));
    let attempt = drain(&mut s, START).remove(0);
    assert_eq!(failed_telling(&mut s, at(1), &attempt, START).len(), 1);
    assert!(s.suspend(at(2), &attempt.account, None));
    assert_eq!(s.news(), [Change::Opened { gate: Who::Account(attempt.account.clone()) }]);
    assert!(s.suspend(at(3), &attempt.account, None));
    assert_eq!(s.news(), []);
}
