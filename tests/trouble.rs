//! End to end, when things go wrong upstream: nothing is lost, nothing fails that need not, no credential leaves.

mod support;

use std::time::Duration;

use hve_relay::sim::{Action, Fault, Identity, Settings, Step};
use support::relay::{PATIENCE, Relay};
use support::{World, account, body, field, mail, setup};

const TO: &[&str] = &["you@contoso.com"];

#[test]
fn a_refused_recipient_fails_alone_and_the_author_is_told() {
    let world = World::new(2);
    let to = ["a@contoso.com", "nobody@contoso.com", "b@contoso.com"];
    let id = world.client().accepted("app@contoso.com", &to, &mail("invoice", b"text\r\n"));
    let taken = world.taken(2);
    let original = taken.iter().find(|taken| field(taken, "Subject") == ["invoice"]).expect("the message");
    assert_eq!(original.recipients.iter().map(|m| m.as_str()).collect::<Vec<_>>(), ["a@contoso.com", "b@contoso.com"]);
    let notice = taken.iter().find(|taken| field(taken, "Subject") != ["invoice"]).expect("the notice");
    assert_eq!(notice.recipients.iter().map(|m| m.as_str()).collect::<Vec<_>>(), ["app@contoso.com"]);
    let text = String::from_utf8_lossy(body(notice));
    for part in ["Final-Recipient: rfc822; nobody@contoso.com", "Action: failed", "Status: 5.1.10", &id] {
        assert!(text.contains(part), "the notice lacks {part}:\n{text}");
    }
    assert!(!text.contains("rfc822; a@contoso.com"));
    assert!(field(notice, "Content-Type")[0].starts_with("multipart/report"));
    assert_eq!(field(notice, "Auto-Submitted"), ["auto-replied"]);
    world.removed(&id);
}

#[test]
fn nothing_is_ever_said_to_the_null_path_nor_about_a_notice() {
    let world = World::new(1);
    let id = world.client().accepted("", &["nobody@contoso.com"], &mail("from-null", b"text\r\n"));
    world.removed(&id);
    // The author does not exist either: the notice fails, and that is the end of it.
    let second = world.client().accepted("nobody.app@contoso.com", &["nobody@contoso.com"], &mail("lost", b"text\r\n"));
    let notice = world.relay.wait_for("a notice", |line| line["event"] == "notice-queued" && line["queue_id"] == second.as_str());
    world.removed(notice["notice"].as_str().expect("an id"));
    assert_eq!(world.sim.counters().messages, 0);
    assert_eq!(world.relay.logged(|line| line["event"] == "notice-queued").len(), 1);
    assert_eq!(world.relay.logged(|line| line["event"] == "notice-impossible").len(), 2);
}

#[test]
fn a_deferred_recipient_is_tried_again_and_the_others_are_not() {
    let world = World::new(1);
    world.faults([Fault::reply(Step::Rcpt, "451 4.7.999 Not now").recipient("b@contoso.com").first(2)]);
    let id = world.client().accepted("app@contoso.com", &["a@contoso.com", "b@contoso.com"], &mail("retry", b"text\r\n"));
    let taken = world.taken(2);
    assert_eq!(taken.iter().map(|t| t.recipients[0].as_str()).collect::<Vec<_>>(), ["a@contoso.com", "b@contoso.com"]);
    assert_eq!(field(&taken[0], "Message-ID"), field(&taken[1], "Message-ID"));
    world.removed(&id);
    let deferred = world.relay.logged(|line| line["status"] == "deferred");
    assert_eq!(deferred.len(), 2);
    assert!(deferred.iter().all(|line| line["to"] == "b@contoso.com" && line["retry"].as_str().is_some_and(|at| !at.is_empty())));
}

#[test]
fn an_account_whose_password_is_refused_rests_and_the_others_carry_its_mail() {
    let world = World::with(3, |_| {}, |setup| setup.client("affinity = \"none\""));
    world.faults([Fault::reply(Step::Auth, "535 5.7.3 Authentication unsuccessful").account(account(2))]);
    let mut client = world.client();
    for n in 0..30 {
        client.accepted("app@contoso.com", TO, &mail(&format!("n{n}"), b"text\r\n"));
    }
    let taken = world.taken(30);
    assert!(taken.iter().all(|taken| taken.account != account(2)));
    assert_eq!(world.relay.logged(|line| line["status"] == "bounced").len(), 0);
    let paused = world.relay.wait_for("the alarm", |line| line["event"] == "account-paused");
    assert_eq!(paused["account"], account(2).as_str());
    assert!(!paused["advice"].as_str().unwrap_or_default().is_empty(), "{paused}");
}

#[test]
fn a_connection_lost_at_any_step_loses_nothing() {
    for step in [
        Step::Greeting,
        Step::Ehlo,
        Step::StartTls,
        Step::Tls,
        Step::EhloInTls,
        Step::Auth,
        Step::Mail,
        Step::Rcpt,
        Step::Data,
        Step::Content { after: 10 },
        Step::EndOfData,
    ] {
        let world = World::new(1);
        world.faults([Fault::new(step, Action::Drop).first(2)]);
        let id = world.client().accepted("app@contoso.com", TO, &mail("kept", b"a text of more than ten octets\r\n"));
        let taken = world.taken(1);
        assert_eq!(field(&taken[0], "Subject"), ["kept"], "{step:?}");
        world.removed(&id);
        assert_eq!(world.relay.logged(|line| line["status"] == "bounced").len(), 0, "{step:?}");
        assert_eq!(world.sim.counters().messages, 1, "{step:?}: exactly one copy");
    }
}

#[test]
fn a_reply_lost_after_the_final_dot_is_in_doubt_and_sent_again() {
    let world = World::new(1);
    world.faults([Fault::new(Step::EndOfData, Action::TakeAndDrop).first(1)]);
    let id = world.client().accepted("app@contoso.com", TO, &mail("twice", b"text\r\n"));
    let taken = world.taken(2);
    assert_eq!(field(&taken[0], "Message-ID"), field(&taken[1], "Message-ID"));
    world.relay.wait_for("the doubt", |line| line["event"] == "in-doubt" && line["queue_id"] == id.as_str());
    world.removed(&id);
}

#[test]
fn an_endpoint_that_says_nothing_is_left_in_time() {
    for step in
        [Step::Greeting, Step::Ehlo, Step::StartTls, Step::EhloInTls, Step::Auth, Step::Mail, Step::Rcpt, Step::Data, Step::EndOfData]
    {
        let limits = "[upstream]\nconnect = \"300ms\"\ngreeting = \"300ms\"\ncommand = \"300ms\"\ndata = \"300ms\"\nblock = \"300ms\"\nend_of_data = \"300ms\"";
        let world = World::with(1, |_| {}, |setup| setup.with(limits));
        world.faults([Fault::new(step, Action::Silence).first(1)]);
        let id = world.client().accepted("app@contoso.com", TO, &mail("patient", b"text\r\n"));
        world.removed(&id);
        assert_eq!(world.relay.logged(|line| line["status"] == "bounced").len(), 0, "{step:?}");
    }
}

#[test]
fn an_endpoint_that_refuses_everything_at_the_door_bounces_nothing() {
    let world = World::new(2);
    world.faults([Fault::reply(Step::Greeting, "554 5.3.2 Not here").first(4)]);
    let id = world.client().accepted("app@contoso.com", TO, &mail("door", b"text\r\n"));
    world.taken(1);
    world.removed(&id);
    assert_eq!(world.relay.logged(|line| line["status"] == "bounced").len(), 0);
}

#[test]
fn mail_waits_for_an_endpoint_that_is_down() {
    let world = World::new(2);
    world.runtime.block_on(world.sim.down());
    let mut client = world.client();
    for n in 0..20 {
        client.accepted("app@contoso.com", TO, &mail(&format!("n{n}"), b"text\r\n"));
    }
    let paused = world.relay.wait_for("the alarm", |line| line["event"] == "route-paused");
    assert_eq!(paused["route"], "hve");
    world.runtime.block_on(world.sim.up()).expect("the port is free");
    world.taken(20);
    world.relay.wait_for("the all-clear", |line| line["event"] == "route-resumed");
    let refused = world.relay.logged(|line| line["event"] == "delivery" && line["status"] == "deferred").len();
    assert!(refused < 20, "a dead endpoint is probed, not hammered: {refused} attempts");
}

#[test]
fn a_server_that_is_not_the_one_meant_gets_no_credential() {
    let names = ["smtp-hve.office365.com"];
    let genuine = Identity::make(&names).expect("an identity");
    for (case, served, trusted) in [
        ("another CA", Identity::make(&names), genuine.ca_pem()),
        ("another name", Identity::make(&["smtp.attacker.example"]), ""),
        ("expired", Identity::expired(&names), ""),
    ] {
        let served = served.expect("an identity");
        let trusted = if trusted.is_empty() { served.ca_pem().to_owned() } else { trusted.to_owned() };
        let runtime = support::runtime();
        let sim = support::endpoint(&runtime, 1, |settings: &mut Settings| settings.identity = Some(served));
        let mut setup = setup(&sim, 1);
        setup.trust(&trusted);
        let relay = Relay::start(&setup.write());
        support::client::Client::hello(relay.address).accepted("app@contoso.com", TO, &mail("secret", b"text\r\n"));
        relay.wait_for("the alarm", |line| line["event"] == "route-paused");
        runtime.block_on(sim.wait_until(|seen| seen.failed_handshakes >= 2, PATIENCE)).expect("it is tried again");
        let seen = sim.counters();
        assert_eq!((seen.logins.len(), seen.command("AUTH"), seen.messages), (0, 0, 0), "{case}");
        assert_eq!(relay.logged(|line| line["status"] == "bounced").len(), 0, "{case}");
    }
}

#[test]
fn without_starttls_no_credential_is_sent() {
    let world = World::new(1);
    world.faults([Fault::reply(Step::Ehlo, "250-mitm.example\n250 AUTH LOGIN PLAIN").first(2)]);
    world.client().accepted("app@contoso.com", TO, &mail("strip", b"text\r\n"));
    world.taken(1);
    assert!(world.sim.counters().logins.iter().all(|login| login.encrypted));
    assert_eq!(world.sim.counters().logins.len(), 1);
}

#[test]
fn plain_text_injected_before_the_handshake_is_not_believed() {
    let world = World::new(1);
    let script =
        b"250-injected.example\r\n250 AUTH PLAIN LOGIN\r\n235 2.7.0 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n250 2.6.0 queued, really\r\n"
            .to_vec();
    world.faults([Fault::new(Step::StartTls, Action::Inject(script)).first(3)]);
    let id = world.client().accepted("app@contoso.com", TO, &mail("genuine", b"text\r\n"));
    let taken = world.taken(1);
    assert_eq!(body(&taken[0]), b"text\r\n");
    world.removed(&id);
    assert_eq!(world.relay.logged(|line| line["status"] == "sent").len(), 1);
    assert_eq!(world.relay.logged(|line| line.to_string().contains("really")).len(), 0);
}

#[test]
fn what_grows_too_old_is_given_up_and_the_author_is_told() {
    let world = World::with(1, |_| {}, |setup| setup.lifetime("1s"));
    world.faults([Fault::reply(Step::Rcpt, "451 4.7.999 Not now").recipient("you@contoso.com")]);
    let id = world.client().accepted("app@contoso.com", TO, &mail("stale", b"text\r\n"));
    let notice = world.taken(1).remove(0);
    assert_eq!(notice.recipients[0].as_str(), "app@contoso.com");
    assert!(String::from_utf8_lossy(body(&notice)).contains("Status: 4.4.7"), "{}", String::from_utf8_lossy(body(&notice)));
    world.relay.wait_for("the end", |line| line["status"] == "expired" && line["queue_id"] == id.as_str());
    world.removed(&id);
}

#[test]
fn external_mail_waits_where_its_budget_is_used_up_and_internal_mail_goes_on() {
    let world = World::with(
        1,
        |settings| settings.limits.external_messages = Some(hve_relay::sim::Limit { count: 2, window: Duration::from_secs(3_600) }),
        |s| s,
    );
    let mut client = world.client();
    for n in 0..4 {
        client.accepted("app@contoso.com", &["x@fabrikam.example"], &mail(&format!("ext{n}"), b"text\r\n"));
    }
    world.relay.wait_for("the pause", |line| line["event"] == "account-paused" && line["class"] == "external");
    client.accepted("app@contoso.com", TO, &mail("internal", b"text\r\n"));
    let taken = world.taken(3);
    assert_eq!(field(&taken[2], "Subject"), ["internal"]);
    assert_eq!(world.relay.logged(|line| line["status"] == "bounced").len(), 0);
}
