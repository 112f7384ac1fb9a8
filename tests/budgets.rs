//! End to end: the real binary keeps the limits, in windows that are shortened, against an endpoint that enforces them.

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use hve_relay::sim::{Fault, Limit, Settings, Step};
use support::{World, account, field, mail};

/// Five external messages in two seconds for each account, at both ends.
fn five_in_two_seconds(settings: &mut Settings) {
    settings.limits.external_messages = Some(Limit { count: 5, window: Duration::from_secs(2) });
}

const SAME: &str = "[account_limits]\nexternal_per_minute = 5\nminute = \"2s\"";

const OUTSIDE: &[&str] = &["clerk@fabrikam.example"];

#[test]
fn the_rate_is_used_in_full_and_never_exceeded_across_kill_9() {
    let mut world = World::with(3, five_in_two_seconds, |setup| setup.with(SAME));
    let mut client = world.client();
    let expected: BTreeSet<String> = (0..60).map(|n| format!("n{n}")).collect();
    for subject in &expected {
        client.accepted("app@contoso.com", OUTSIDE, &mail(subject, b"text\r\n"));
    }
    for messages in [15, 30] {
        world.taken(messages);
        world = world.crash_and_restart(|_| {});
    }
    let mut arrived = BTreeSet::new();
    support::until("all of them", || {
        arrived = world.sim.taken().iter().flat_map(|taken| field(taken, "Subject")).collect();
        arrived == expected
    });
    assert_eq!(world.sim.counters().refusals, Default::default(), "the endpoint never had to refuse");
    let used: BTreeSet<String> = world.sim.taken().into_iter().map(|taken| taken.account).collect();
    assert_eq!(used.len(), 3, "what one account cannot carry goes over the others");
    world.relay.stop();
}

#[test]
fn internal_mail_does_not_wait_for_the_external_budget() {
    let hour = |settings: &mut Settings| settings.limits.external_messages = Some(Limit { count: 2, window: Duration::from_secs(3_600) });
    let world = World::with(1, hour, |setup| setup.with("[account_limits]\nexternal_per_minute = 2\nminute = \"1h\""));
    let mut client = world.client();
    for n in 0..5 {
        client.accepted("app@contoso.com", OUTSIDE, &mail(&format!("e{n}"), b"text\r\n"));
    }
    client.accepted("app@contoso.com", &["you@contoso.com"], &mail("internal", b"text\r\n"));
    let subjects: BTreeSet<String> = world.taken(3).iter().flat_map(|taken| field(taken, "Subject")).collect();
    assert_eq!(subjects, ["e0", "e1", "internal"].map(str::to_owned).into());
    assert_eq!(world.sim.counters().refused(""), 0);
}

#[test]
fn a_refused_message_costs_nothing_of_the_rate() {
    let world = World::with(1, five_in_two_seconds, |setup| setup.with("[account_limits]\nexternal_per_minute = 5\nminute = \"1h\""));
    world.faults([Fault::reply(Step::Rcpt, "550 5.1.1 User unknown").recipient("gone@fabrikam.example")]);
    let mut client = world.client();
    for n in 0..20 {
        client.accepted("", &["gone@fabrikam.example"], &mail(&format!("r{n}"), b"text\r\n"));
    }
    world.relay.wait_for_all("the failures", 20, |line| line["status"] == "bounced");
    client.accepted("app@contoso.com", OUTSIDE, &mail("last", b"text\r\n"));
    assert_eq!(field(&world.taken(1)[0], "Subject"), ["last"]);
}

#[test]
fn a_day_without_budget_left_for_all_recipients_goes_as_far_as_it_reaches() {
    let world = World::with(1, |_| {}, |setup| setup.with("[account_limits]\nrecipients_per_day = 30"));
    let to: Vec<String> = (0..50).map(|n| format!("user{n}@contoso.com")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    world.client().accepted("app@contoso.com", &to, &mail("many", b"text\r\n"));
    assert_eq!(world.taken(1)[0].recipients.len(), 30);
    assert_eq!(world.relay.logged(|line| line["status"] == "bounced").len(), 0);
}

#[test]
fn a_printer_is_not_kept_waiting_by_a_run() {
    let priorities = "[[client]]\nname = \"printer\"\nnetworks = [\"127.0.0.1/32\"]\npriority = \"high\"";
    let world = World::with(
        1,
        |settings| settings.delay = Duration::from_millis(5),
        |setup| setup.listener("127.0.0.1:0").networks("127.0.0.2/32").with(priorities),
    );
    // Both clients are on loopback; the run comes from another of its addresses.
    let mut run = support::client::Client::hello_from("127.0.0.2", world.relay.address);
    for n in 0..200 {
        run.accepted("erp@contoso.com", &["you@contoso.com"], &mail(&format!("run{n}"), b"text\r\n"));
    }
    world.client().accepted("printer@contoso.com", &["you@contoso.com"], &mail("scan", b"text\r\n"));
    let before = world.sim.counters().messages;
    let taken = world.taken(201);
    let place = taken.iter().position(|taken| field(taken, "Subject") == ["scan"]).expect("it arrived");
    // What was under way goes before it: as many as there are connections, and as many again that ended while this was looked up.
    assert!(place <= before as usize + 16, "{place} of 201, when {before} had gone");
}

#[test]
fn an_author_that_is_an_account_sends_through_it() {
    let world = World::new(3);
    let own = account(2);
    let content = format!("From: {own}\r\nSubject: own\r\n\r\ntext\r\n");
    for _ in 0..3 {
        world.client().accepted(&own, &["you@contoso.com"], content.as_bytes());
    }
    assert!(world.taken(3).iter().all(|taken| taken.account == own && field(taken, "From") == [own.as_str()]));
}
