//! What a reload makes of a queue that goes on.

use super::*;

/// Goes on without the accounts of these numbers, and with a change to the others.
fn changed(s: &mut Scheduler, now: Timestamp, change: impl FnOnce(&mut Settings)) {
    let mut settings = s.settings.clone();
    change(&mut settings);
    s.change(now, settings);
}

fn remove(settings: &mut Settings, i: usize) {
    settings.accounts.retain(|account| account.name != name(i));
}

fn day(recipients: u32) -> Limits {
    Limits { recipients_per_day: Some(recipients), ..Limits::NONE }
}

#[test]
fn what_is_queued_goes_on_the_accounts_that_are_left_oldest_first() {
    let mut s = scheduler(2, 1);
    (1..=5).for_each(|n| s.add(START, queued(n, Class::Internal)));
    let first = drain(&mut s, START);
    changed(&mut s, START, |settings| remove(settings, 0));
    assert_eq!(s.counts(), Counts { active: 2, ready: 3, deferred: 0, held: 0 });
    assert_eq!(s.accounts(START).len(), 1);
    // The attempt on the account that is gone ends well.
    sent(&mut s, START, &first[0]);
    assert_eq!(drain(&mut s, START), [], "its connection is nobody's");
    for next in 3..=5 {
        let others = if next == 3 { first[1].clone() } else { Attempt { delivery: id(next - 1), ..first[1].clone() } };
        sent(&mut s, START, &others);
        assert_eq!(drain(&mut s, START), [Attempt { delivery: id(next), account: name(1), recipients: 1 }]);
    }
}

#[test]
fn an_account_that_comes_back_has_used_what_it_used() {
    let mut s = Scheduler::new(settings(1, 3, &day(3)));
    (1..=5).for_each(|n| s.add(START, queued(n, Class::Internal)));
    let begun = drain(&mut s, START);
    assert_eq!(begun.len(), 3);
    sent(&mut s, START, &begun[0]);
    changed(&mut s, at(1), |settings| remove(settings, 0));
    assert_eq!(s.why(at(1), id(4)), Some(Wait { reason: Reason::NoAccount, until: None }));
    // One ends while the account is away, one when it is back, and across it all the day's limit holds.
    sent(&mut s, at(2), &begun[1]);
    changed(&mut s, at(3), |settings| settings.accounts = self::settings(1, 3, &day(3)).accounts);
    assert_eq!(drain(&mut s, at(3)), []);
    failed(&mut s, at(4), &begun[2], None);
    assert_eq!(drain(&mut s, at(4)).len(), 1, "what was given back is free");
    let usage = s.accounts(at(4)).remove(0).usage;
    assert_eq!((usage[0].used, usage[0].in_flight), (2, 1));
}

#[test]
fn what_an_account_used_outlives_a_restart_without_it() {
    let mut s = Scheduler::new(settings(2, 3, &day(3)));
    (1..=3).for_each(|n| s.add(START, Queued { author: Some(name(0).as_str().parse().expect("a mailbox")), ..queued(n, Class::Internal) }));
    let begun = drain(&mut s, START);
    assert!(begun.iter().all(|attempt| attempt.account == name(0)));
    begun.iter().for_each(|attempt| drop(sent(&mut s, START, attempt)));
    let rows: Vec<_> = s
        .budget_state()
        .into_iter()
        .filter(|change| change.account == Some(name(0)))
        .map(|change| match change.change {
            crate::budget::Change::Put(row) => row,
            crate::budget::Change::Remove { .. } => panic!("a state removes nothing"),
        })
        .collect();
    let mut without = settings(2, 3, &day(3));
    remove(&mut without, 0);
    let mut s = Scheduler::new(without);
    s.restore(Some(&name(0)), &rows, at(60), 0);
    assert_eq!(s.accounts(at(60)).len(), 1);
    let kept = s.budget_state().into_iter().filter(|change| change.account == Some(name(0))).count();
    assert_eq!(kept, rows.len(), "a store that writes all anew keeps them");
    s.suspend(START, &name(0), Some(Suspension { until: None, reason: "audit".into() }));
    changed(&mut s, at(61), |settings| settings.accounts = self::settings(2, 3, &day(3)).accounts);
    let back = s.accounts(at(61)).remove(0);
    assert_eq!((back.name, back.usage[0].used, back.suspended.is_some()), (name(0), 3, true));
}

#[test]
fn an_account_is_forgotten_when_nothing_of_it_counts_any_more() {
    let mut s = Scheduler::new(settings(2, 1, &day(3)));
    s.add(START, queued(1, Class::Internal));
    let attempt = drain(&mut s, START).remove(0);
    sent(&mut s, START, &attempt);
    let of_account = |changes: Vec<BudgetChange>| -> Vec<BudgetChange> {
        changes.into_iter().filter(|change| change.account == Some(name(0))).collect()
    };
    assert!(!of_account(s.budget_changes()).is_empty());
    changed(&mut s, at(1), |settings| remove(settings, 0));
    assert_eq!(s.budget_changes(), []);
    changed(&mut s, at(86_400), |_| {});
    assert!(!of_account(s.budget_state()).is_empty());
    changed(&mut s, at(86_400 + 120), |_| {});
    let gone = |change: &BudgetChange| matches!(change.change, crate::budget::Change::Remove { .. });
    let changes = of_account(s.budget_changes());
    assert!(!changes.is_empty() && changes.iter().all(gone), "{changes:?}");
    assert_eq!(of_account(s.budget_state()), []);
}

#[test]
fn other_limits_count_what_is_used() {
    let mut s = Scheduler::new(settings(1, 10, &external_limit(4)));
    (1..=20).for_each(|n| s.add(START, queued(n, Class::External)));
    let begun = drain(&mut s, START);
    assert_eq!(begun.len(), 4);
    begun.iter().take(3).for_each(|attempt| drop(sent(&mut s, START, attempt)));
    changed(&mut s, at(1), |settings| settings.accounts[0].limits = external_limit(2));
    sent(&mut s, at(2), &begun[3]);
    assert_eq!(drain(&mut s, at(59)), []);
    assert_eq!(drain(&mut s, freed(60)).len(), 1, "the one that ended late still counts");
    changed(&mut s, freed(60), |settings| settings.accounts[0].limits = external_limit(5));
    assert_eq!(drain(&mut s, freed(60)).len(), 3);
    changed(&mut s, freed(60), |settings| settings.accounts[0].limits = Limits::NONE);
    assert_eq!(drain(&mut s, freed(60)).len(), 6, "as many as it has connections");
    changed(&mut s, freed(60), |settings| settings.tenant = external_limit(1));
    begun.iter().for_each(|attempt| drop(s.ended(at(61), &Ended { delivery: attempt.delivery, started: START, used: ONE, pause: None })));
    assert_eq!(drain(&mut s, at(61)), [], "the tenant's limit is new, and what was sent a moment ago is not known");
}

#[test]
fn queued_mail_follows_what_its_client_may_use() {
    let mut s = scheduler(2, 1);
    changed(&mut s, START, |settings| settings.clients[0].accounts = Some(vec![name(1)]));
    s.add(START, queued(1, Class::Internal));
    s.add(START, Queued { client: ClientName::new("another"), ..queued(2, Class::Internal) });
    s.hold(START, id(2), true);
    changed(&mut s, START, |settings| {
        settings.clients[0].accounts = Some(Vec::new());
        settings.clients.insert(0, ClientSettings { accounts: Some(vec![name(0)]), ..ClientSettings::new(ClientName::new("another")) });
    });
    assert_eq!(drain(&mut s, START), []);
    s.hold(START, id(2), false);
    assert_eq!(drain(&mut s, START), [Attempt { delivery: id(2), account: name(0), recipients: 1 }]);
    changed(&mut s, START, |settings| settings.clients.clear());
    assert_eq!(drain(&mut s, START), [Attempt { delivery: id(1), account: name(1), recipients: 1 }], "one that is gone may use all");
}

#[test]
fn an_author_that_becomes_an_account_is_pinned_to_it() {
    let mut s = scheduler(1, 9);
    let author = |n| Queued { author: Some("HVE1@Contoso.com".parse().expect("a mailbox")), ..queued(n, Class::Internal) };
    s.add(START, author(1));
    assert_eq!(drain(&mut s, START)[0].account, name(0));
    s.add(START, author(2));
    changed(&mut s, START, |settings| settings.accounts = self::settings(2, 9, &Limits::NONE).accounts);
    assert_eq!(drain(&mut s, START)[0].account, name(1));
}

#[test]
fn an_account_moves_with_what_it_used_and_without_what_was_wrong_there() {
    let mut s = Scheduler::new(settings(1, 2, &day(3)));
    (1..=4).for_each(|n| s.add(START, queued(n, Class::Internal)));
    let begun = drain(&mut s, START);
    failed(&mut s, START, &begun[0], pause(Scope::Account, None, PauseLength::Suspended));
    let other = RouteName::new("connector");
    changed(&mut s, START, |settings| {
        settings.accounts[0].route = other.clone();
        settings.apart = vec![other.clone()];
        settings.tenant = day(1);
    });
    // What began as the tenant's ends as the tenant's.
    sent(&mut s, START, &begun[1]);
    assert_eq!(s.tenant(START)[0].used, 1);
    assert_eq!(drain(&mut s, START), [], "their route has no account");
    assert!([1, 3, 4].into_iter().all(|n| s.reroute(id(n), &other, Class::Internal)));
    assert!(!s.reroute(id(2), &other, Class::Internal), "it is gone");
    let moved = drain(&mut s, START);
    assert_eq!(moved.len(), 2);
    moved.iter().for_each(|attempt| drop(sent(&mut s, START, attempt)));
    assert_eq!(drain(&mut s, START), [], "three of the day are used");
    assert_eq!((s.accounts(START)[0].usage[0].used, s.tenant(START)[0].used), (3, 1));
}

#[test]
fn a_delivery_is_rerouted_wherever_it_waits() {
    let mut s = scheduler(1, 1);
    (1..=4).for_each(|n| s.add(START, queued(n, Class::Internal)));
    let begun = drain(&mut s, START).remove(0);
    s.hold(START, id(2), true);
    s.add(START, Queued { due: at(50), ..queued(5, Class::Internal) });
    let gone = RouteName::new("gone");
    (1..=5).for_each(|n| assert!(s.reroute(id(n), &gone, Class::External)));
    assert_eq!(s.counts(), Counts { active: 1, ready: 2, deferred: 1, held: 1 });
    // What is under way ends as what it was.
    let closed = failed(&mut s, START, &begun, pause(Scope::Account, Some(Class::Internal), PauseLength::For(Duration::from_secs(9))));
    assert_eq!(closed.len(), 1);
    s.hold(START, id(2), false);
    assert_eq!(drain(&mut s, at(100)), []);
    assert_eq!(s.counts(), Counts { active: 0, ready: 5, deferred: 0, held: 0 });
    (1..=5).for_each(|n| assert!(s.reroute(id(n), &RouteName::new("hve"), Class::External)));
    let first = drain(&mut s, at(100)).remove(0);
    sent(&mut s, at(100), &first);
    assert_eq!(s.accounts(at(100))[0].usage[1].used, 1, "it counts as external");
}

#[test]
fn what_may_have_been_put_right_is_tried_at_once() {
    let mut s = scheduler(1, 1);
    (1..=2).for_each(|n| s.add(START, queued(n, Class::Internal)));
    for (scope, who) in
        [(Scope::Account, Who::Account(name(0))), (Scope::Connection, Who::Route(RouteName::new("hve"))), (Scope::Tenant, Who::Tenant)]
    {
        let attempt = drain(&mut s, START).remove(0);
        failed(&mut s, START, &attempt, pause(scope, None, PauseLength::Suspended));
        changed(&mut s, START, |_| {});
        assert_eq!(drain(&mut s, START), [], "a reload by itself opens nothing");
        s.try_again(START, &who);
    }
    assert_eq!(drain(&mut s, START).len(), 1);
}
