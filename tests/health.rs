//! End to end: how accounts stand with the real binary, what it costs a refused one, and what the others and the operators see of it.

mod support;

use std::process::{Command, Stdio};

use hve_relay::sim::{Fault, Step};
use serde_json::Value;
use support::relay::Setup;
use support::{World, account, mail, until};

const TO: &[&str] = &["you@contoso.com"];
const REFUSED: &str = "535 5.7.3 Authentication unsuccessful";

fn operate(world: &World, line: &str) -> String {
    let config = world.setup.folder().join("hve-relay.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hve-relay"));
    let output = command.args(line.split(' ')).arg("--config").arg(config).stdin(Stdio::null()).output().expect("the binary");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn json(world: &World, line: &str) -> Value {
    serde_json::from_str(&operate(world, &format!("{line} --json"))).expect("JSON")
}

fn health(world: &World, number: usize) -> Value {
    json(world, "accounts")["accounts"][number - 1]["health"].clone()
}

/// Nothing but an operator has a suspended account tried while a test looks.
fn rarely(setup: Setup) -> Setup {
    setup.probe("1h").client("affinity = \"none\"")
}

fn logins(world: &World, number: usize) -> usize {
    world.sim.counters().logins.iter().filter(|login| login.user.eq_ignore_ascii_case(&account(number))).count()
}

fn send(world: &World, count: usize, subject: &str) {
    let mut client = world.client();
    for n in 0..count {
        client.accepted("app@contoso.com", TO, &mail(&format!("{subject}{n}"), b"text\r\n"));
    }
}

fn nothing_bounced(world: &World) {
    assert_eq!(world.relay.logged(|line| line["status"] == "bounced").len(), 0, "{}", world.relay.log_text());
}

#[test]
fn a_refused_password_costs_one_login_whatever_waits_and_however_often_the_relay_is_restarted() {
    let mut world = World::with(3, |_| {}, rarely);
    world.faults([Fault::reply(Step::Auth, REFUSED).account(account(2))]);
    send(&world, 40, "a");
    world.taken(40);
    world.relay.wait_for("the pause", |line| line["event"] == "account-paused" && line["account"] == account(2).as_str());
    for round in 0..3 {
        world = world.crash_and_restart(|_| {});
        assert_eq!(health(&world, 2)["state"], "suspended");
        send(&world, 20, &format!("b{round}n"));
        world.taken(40 + 20 * (round + 1));
        assert_eq!(world.relay.logged(|line| line["event"] == "alarm-raised").len(), 0, "it was told before");
    }
    assert_eq!(logins(&world, 2), 1, "with several connections, much mail, three restarts");
    let entry = health(&world, 2);
    assert_eq!((entry["kind"].clone(), entry["logins"].clone()), ("authentication-failed".into(), 1.into()), "{entry}");
    assert!(entry["reason"].as_str().is_some_and(|reason| reason.contains(REFUSED)), "{entry}");
    assert!(entry["since"].is_string() && entry["until"].is_string() && entry["advice"].as_str().is_some_and(|it| it.contains("password")));
    assert!(operate(&world, "accounts").contains("suspended since"));
    nothing_bounced(&world);

    // An operator's word has it tried at once, and once.
    operate(&world, &format!("accounts resume {}", account(2)));
    send(&world, 20, "c");
    world.taken(120);
    until("another login", || logins(&world, 2) > 1);
    until("the suspension", || health(&world, 2)["state"] == "suspended");
    send(&world, 20, "e");
    world.taken(140);
    assert_eq!(logins(&world, 2), 2);
    world.faults([]);
    operate(&world, &format!("accounts resume {}", account(2)));
    send(&world, 20, "d");
    let taken = world.taken(160);
    assert!(taken.iter().any(|taken| taken.account == account(2)));
    assert_eq!(health(&world, 2)["state"], "healthy");
}

#[test]
fn a_login_without_mail_finds_out_that_the_password_is_right_again() {
    let world = World::with(2, |_| {}, |setup| setup.client("affinity = \"none\""));
    world.faults([Fault::reply(Step::Auth, REFUSED).account(account(1)).first(3)]);
    send(&world, 6, "n");
    world.taken(6);
    world.relay.wait_for("the alarm", |line| line["event"] == "alarm-raised");
    let mine = |line: &Value| line["event"] == "login-tried" && line["account"] == account(1).as_str();
    world.relay.wait_for("the end", |line| line["event"] == "account-resumed" && line["account"] == account(1).as_str());
    let tried = world.relay.logged(mine);
    let (last, before) = tried.split_last().expect("a login");
    assert!(last["reason"] == "" && before.iter().all(|line| line["reason"].as_str().is_some_and(|reason| reason.contains("5.7.3"))));
    world.relay.wait_for("the all-clear", |line| line["event"] == "alarm-cleared");
    assert_eq!(world.relay.logged(|line| line["event"] == "alarm-raised").len(), 1);
    assert_eq!(world.sim.counters().messages, 6, "no mail was needed for it");
    nothing_bounced(&world);
}

#[test]
fn accounts_that_are_all_refused_alike_are_one_alarm_and_come_back_together() {
    let world = World::with(4, |_| {}, |setup| setup.client("affinity = \"none\""));
    world.faults([Fault::reply(Step::Auth, "535 5.7.139 Authentication unsuccessful, basic auth is blocked")]);
    send(&world, 12, "n");
    let alarm = world.relay.wait_for("the alarm", |line| line["event"] == "alarm-raised" && line["alarm"] == "tenant-suspended");
    assert!(alarm["why"].as_str().is_some_and(|why| why.contains("all 4 accounts") && why.contains("Security Defaults")), "{alarm}");
    let status = operate(&world, "status");
    assert_eq!((status.matches("tenant is suspended").count(), status.matches("hve0").count()), (1, 0), "told once:\n{status}");
    let troubles = json(&world, "status")["troubles"].clone();
    assert_eq!((troubles[0]["whose"].clone(), troubles[0]["kind"].clone()), ("tenant".into(), "basic-auth-blocked".into()));
    world.faults([]);
    world.relay.wait_for("the end", |line| line["event"] == "tenant-resumed");
    world.taken(12);
    until("all to be well", || (1..=4).all(|number| health(&world, number)["state"] == "healthy"));
    let alarms = |event: &str| {
        let lines = world.relay.logged(|line| line["event"] == event);
        lines.iter().filter(|line| line["alarm"] == "tenant-suspended").count()
    };
    assert_eq!((alarms("alarm-raised"), alarms("alarm-cleared")), (1, 1));
    nothing_bounced(&world);
}

#[test]
fn a_tenant_that_is_blocked_keeps_all_mail_and_is_tried_by_a_login_and_then_by_one_message() {
    let world = World::with(3, |_| {}, |setup| setup.client("affinity = \"none\""));
    world.faults([Fault::reply(Step::EndOfData, "550 5.7.705 Access denied, tenant has exceeded threshold").first(4)]);
    send(&world, 10, "n");
    world.relay.wait_for("the pause", |line| line["event"] == "tenant-paused");
    world.taken(10);
    world.relay.wait_for("the end", |line| line["event"] == "tenant-resumed");
    assert_eq!(world.relay.logged(|line| line["event"] == "alarm-raised").len(), 1);
    assert!(!world.relay.logged(|line| line["event"] == "login-tried").is_empty());
    nothing_bounced(&world);
}

#[test]
fn too_many_connections_become_fewer_also_after_a_restart_and_the_mail_flows_on() {
    let world = World::with(1, |_| {}, |setup| setup.pause_max("1h"));
    world.faults([Fault::reply(Step::Mail, "432 4.3.2 Concurrent connections limit exceeded").first(2)]);
    let others: Vec<_> = (0..8).map(|_| world.client()).collect();
    for (n, mut client) in others.into_iter().enumerate() {
        client.accepted("app@contoso.com", TO, &mail(&format!("n{n}"), b"text\r\n"));
    }
    world.taken(8);
    let narrowed = world.relay.wait_for("the lesson", |line| line["event"] == "account-narrowed");
    assert_eq!(narrowed["configured"], 4);
    let world = world.crash_and_restart(|_| {});
    let entry = || json(&world, "accounts")["accounts"][0].clone();
    until("it to be idle", || entry()["state"] == "ready");
    let entry = entry();
    assert_eq!(entry["health"]["state"], "reduced", "{entry}");
    let (max, configured) = (entry["connections"]["max"].as_u64().expect("a number"), entry["connections"]["configured"].clone());
    assert!((1..4).contains(&max) && configured == 4, "{entry}");
    let reason = entry["health"]["reason"].as_str().expect("a text").to_owned();
    assert!(reason.starts_with(&format!("configured 4 connections, using {max} since 2")) && reason.contains("432 4.3.2"), "{reason}");
    send(&world, 8, "m");
    world.taken(16);
    nothing_bounced(&world);
}

const UNHEARD_OF: &str = "550 5.9.9 No";

#[test]
fn an_account_that_refuses_everything_for_reasons_unheard_of_is_suspended_and_no_mail_fails() {
    let world = World::with(3, |_| {}, |setup| setup.client("affinity = \"none\"").probe("1h"));
    world.faults([Fault::reply(Step::EndOfData, UNHEARD_OF).account(account(2))]);
    send(&world, 30, "n");
    let taken = world.taken(30);
    assert!(taken.iter().all(|taken| taken.account != account(2)));
    let alarm = world.relay.wait_for("the alarm", |line| line["event"] == "alarm-raised");
    assert_eq!(alarm["alarm"], format!("account-suspended {}", account(2)));
    assert!(alarm["why"].as_str().is_some_and(|why| why.contains("3 messages in a row") && why.contains(UNHEARD_OF)), "{alarm}");
    assert_eq!(health(&world, 2)["kind"], "refuses-everything");
    nothing_bounced(&world);
}

#[test]
fn a_message_that_alone_is_refused_for_reasons_unheard_of_fails_once_that_is_known() {
    let world = World::with(2, |_| {}, |setup| setup.client("affinity = \"none\""));
    world.faults([Fault::reply(Step::EndOfData, UNHEARD_OF).recipient("odd@contoso.com")]);
    let id = world.client().accepted("app@contoso.com", &["odd@contoso.com"], &mail("odd", b"text\r\n"));
    let tried = |line: &Value| line["event"] == "delivery" && line["queue_id"] == id.as_str();
    let first = world.relay.wait_for_all("an attempt", 2, tried);
    assert!(first.iter().take(2).all(|line| line["status"] == "deferred"), "one refusal proves nothing: {first:?}");
    assert_ne!(first[0]["account"], first[1]["account"], "it is tried on the other account at once");
    // Other mail shows that the accounts are well.
    send(&world, 4, "n");
    world.relay.wait_for("the end", |line| tried(line) && line["status"] == "bounced");
    world.removed(&id);
    let notices = world.relay.logged(|line| line["event"] == "notice-queued");
    assert_eq!((notices.len(), world.relay.logged(|line| line["event"] == "account-paused").len()), (1, 0));
}

#[test]
fn what_may_be_one_connections_trouble_is_tried_on_another_account_at_once_and_then_it_counts() {
    let world = World::with(2, |_| {}, |setup| setup.patient().client("affinity = \"client\""));
    world.faults([Fault::reply(Step::EndOfData, "451 4.7.0 Temporary server error. Please try again later. PRX4").first(1)]);
    let id = world.client().accepted("app@contoso.com", TO, &mail("at-once", b"text\r\n"));
    let taken = world.taken(1);
    let tried = world.relay.logged(|line| line["event"] == "delivery" && line["queue_id"] == id.as_str() && line["status"] == "deferred");
    assert_eq!(tried.len(), 1);
    assert_ne!(tried[0]["account"], taken[0].account.as_str(), "although all mail of the client keeps to one");
    world.removed(&id);
    // Twice is not one connection's trouble: an hour is waited for here.
    world.faults([Fault::reply(Step::EndOfData, "451 4.7.0 Temporary server error. Please try again later. PRX4").first(2)]);
    let id = world.client().accepted("app@contoso.com", TO, &mail("later", b"text\r\n"));
    until("the second attempt", || {
        let entries = json(&world, "queue list")["entries"].clone();
        entries[0]["attempts"] == 1 && entries[0]["waits_for"] == "deferred"
    });
    let tried = world.relay.logged(|line| line["event"] == "delivery" && line["queue_id"] == id.as_str());
    assert_eq!(tried.len(), 2, "{tried:?}");
    assert_ne!(tried[0]["account"], tried[1]["account"]);
}
