//! Notices end to end: who hears of what became of a message, who does not, and what the notice says.

mod support;

use std::collections::BTreeSet;

use hve_relay::sim::{Extension, Fault, Step, Taken};
use support::client::{Client, stuffed};
use support::{World, account, body, field, mail};

const NO_SUCH_USER: &str = "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup";

/// One mail transaction with whatever stands behind the paths; returns the queue id.
fn submit(client: &mut Client, from: &str, to: &[&str], content: &[u8]) -> String {
    client.expect(&format!("MAIL FROM:{from}"), "250");
    for recipient in to {
        client.expect(&format!("RCPT TO:{recipient}"), "250");
    }
    client.expect("DATA", "354");
    client.raw(&stuffed(content));
    let reply = client.reply();
    assert!(reply.starts_with("250 2.0.0 "), "{reply}");
    reply.rsplit(' ').next().expect("an id").to_owned()
}

#[test]
fn a_sender_hears_of_failures_where_it_asked_to_and_in_its_own_terms() {
    let world = World::new(1);
    world.faults(["a", "b", "c", "d"].map(|name| Fault::reply(Step::Rcpt, NO_SUCH_USER).recipient(format!("{name}@contoso.com"))));
    let to = [
        "<a@contoso.com> NOTIFY=NEVER",
        "<b@contoso.com> NOTIFY=SUCCESS,DELAY",
        "<c@contoso.com> ORCPT=rfc822;Sales+2BEurope@contoso.com",
        "<d@contoso.com> NOTIFY=FAILURE",
    ];
    let id = submit(&mut world.client(), "<app@contoso.com> ENVID=PO+20314159", &to, &mail("order", b"text\r\n"));
    let notice = world.taken(1).remove(0);
    let text = String::from_utf8_lossy(body(&notice)).into_owned();
    for part in [
        "Original-Envelope-Id: PO 314159\r\n",
        "Original-Recipient: rfc822; Sales+Europe@contoso.com\r\nFinal-Recipient: rfc822; c@contoso.com\r\n",
        "Final-Recipient: rfc822; d@contoso.com\r\n",
    ] {
        assert!(text.contains(part), "the notice lacks {part}:\n{text}");
    }
    assert!(!text.contains("a@contoso.com") && !text.contains("b@contoso.com"), "{text}");
    world.removed(&id);
}

#[test]
fn a_sender_that_wants_to_hear_nothing_hears_nothing() {
    let world = World::new(1);
    world.faults([Fault::reply(Step::Rcpt, NO_SUCH_USER).recipient("a@contoso.com")]);
    let id = submit(&mut world.client(), "<app@contoso.com>", &["<a@contoso.com> NOTIFY=NEVER"], &mail("order", b"text\r\n"));
    world.removed(&id);
    let told = world.relay.logged(|line| line["event"] == "notice-queued" || line["event"] == "notice-impossible");
    assert_eq!(told, Vec::<serde_json::Value>::new());
}

/// The values of a field in the notices that the endpoint took. One that was in doubt may have come twice.
fn told(taken: &[Taken], name: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let is_notice = |taken: &&Taken| field(taken, "Content-Type").iter().any(|kind| kind.starts_with("multipart/report"));
    let is_new = |taken: &&Taken| seen.insert(field(taken, "Message-ID"));
    let text: String =
        taken.iter().filter(is_notice).filter(is_new).map(|taken| String::from_utf8_lossy(body(taken)).into_owned()).collect();
    text.lines().filter_map(|line| line.strip_prefix(&format!("{name}: "))).map(str::to_owned).collect()
}

fn logged(world: &World, event: &str) -> usize {
    world.relay.logged(|line| line["event"] == event).len()
}

#[test]
fn what_fails_in_bulk_is_told_in_few_notices_and_nothing_of_it_is_lost_in_a_crash() {
    let world = World::with(2, |_| {}, |setup| setup.with("[notices]\ndigest_interval = \"2s\""));
    let mut client = world.client();
    let failing: BTreeSet<String> = (0..60).map(|n| format!("rfc822; nobody{n}@contoso.com")).collect();
    // A domain is the same however it is written.
    let sender = |n: u32| if n.is_multiple_of(2) { "erp@contoso.com" } else { "erp@Contoso.COM" };
    for n in 0..30 {
        client.accepted(sender(n), &[&format!("nobody{n}@contoso.com")], &mail(&format!("invoice-{n}"), b"text\r\n"));
    }
    world.relay.wait_for("something gathered", |line| line["event"] == "notice-gathered");
    // Some have failed and are gathered, others have not been tried.
    let world = world.crash_and_restart(|_| {});
    let mut client = world.client();
    for n in 30..60 {
        client.accepted(sender(n), &[&format!("nobody{n}@contoso.com")], &mail(&format!("invoice-{n}"), b"text\r\n"));
    }
    let mut taken = Vec::new();
    support::until("all to be told", || {
        taken = world.sim.taken();
        told(&taken, "Final-Recipient").into_iter().collect::<BTreeSet<_>>() == failing
    });
    assert_eq!(told(&taken, "Final-Recipient").len(), failing.len(), "each once");
    assert!(taken.len() <= 30, "{} notices", taken.len());
    assert!(taken.iter().all(|taken| taken.recipients.iter().all(|to| to.as_str() == "erp@contoso.com")));
    assert!(logged(&world, "digest-queued") >= 1);
}

#[test]
fn who_waits_for_long_is_told_once_why_and_until_when() {
    let world = World::with(1, |_| {}, |setup| setup.with("[notices]\ndelay_warning = \"200ms\"\ndigest_interval = \"100ms\""));
    world.faults([Fault::reply(Step::Rcpt, "452 4.2.2 Mailbox full")]);
    let to = [
        "<late@contoso.com>",
        "<asked@contoso.com> NOTIFY=DELAY",
        "<quiet@contoso.com> NOTIFY=FAILURE",
        "<never@contoso.com> NOTIFY=NEVER",
    ];
    let id = submit(&mut world.client(), "<app@contoso.com>", &to, &mail("order", b"text\r\n"));
    world.relay.wait_for("the warning", |line| line["event"] == "notice-queued" && line["queue_id"] == id.as_str());

    let world = world.crash_and_restart(|world| world.faults([]));
    world.removed(&id);
    let mut taken = Vec::new();
    let is_warning = |taken: &Taken| field(taken, "Subject") == ["Not delivered yet: order"];
    support::until("the warning", || {
        taken = world.sim.taken();
        taken.iter().any(is_warning)
    });
    let notice = taken.iter().find(|taken| is_warning(taken)).expect("the warning");
    let text = String::from_utf8_lossy(body(notice)).into_owned();
    for part in [
        "452 4.2.2 Mailbox full",
        "will be tried until",
        "Action: delayed\r\nStatus: 4.2.2\r\n",
        "Will-Retry-Until: ",
        "need not send it again",
    ] {
        assert!(text.replace("\r\n", "\n").contains(&part.replace("\r\n", "\n")), "the warning lacks {part}:\n{text}");
    }
    let whom: BTreeSet<String> = told(&taken, "Final-Recipient").into_iter().collect();
    assert_eq!(whom, ["rfc822; asked@contoso.com", "rfc822; late@contoso.com"].map(str::to_owned).into());
    assert_eq!(told(&taken, "Action"), ["delayed", "delayed"], "once");
}

#[test]
fn who_asked_to_hear_of_success_hears_that_the_message_was_passed_on() {
    let world = World::new(1);
    let to =
        ["<a@contoso.com> NOTIFY=SUCCESS ORCPT=rfc822;A@contoso.com", "<b@contoso.com>", "<nobody@contoso.com> NOTIFY=SUCCESS,FAILURE"];
    submit(&mut world.client(), "<app@contoso.com> ENVID=run7 RET=FULL", &to, &mail("order", b"the text\r\n"));
    let taken = world.taken(2);
    assert_eq!(told(&taken, "Final-Recipient"), ["rfc822; a@contoso.com", "rfc822; nobody@contoso.com"]);
    assert_eq!(
        (told(&taken, "Action"), told(&taken, "Original-Envelope-Id")),
        (vec!["relayed".to_owned(), "failed".to_owned()], vec!["run7".to_owned()])
    );
    let text = String::from_utf8_lossy(body(&taken[1])).into_owned();
    assert!(text.contains("Content-Type: message/rfc822\r\n") && text.contains("\r\n\r\nthe text\r\n"), "all of it came back: {text}");
}

#[test]
fn where_the_next_server_tells_of_success_the_relay_does_not() {
    let world = World::with(1, |settings| settings.extensions.push(Extension::Dsn), |setup| setup);
    let to = ["<a@contoso.com> NOTIFY=SUCCESS", "<nobody@contoso.com> NOTIFY=SUCCESS,FAILURE"];
    let id = submit(&mut world.client(), "<app@contoso.com>", &to, &mail("order", b"text\r\n"));
    world.removed(&id);
    assert_eq!(told(&world.taken(2), "Action"), ["failed"]);
}

#[test]
fn a_client_names_who_is_told() {
    for (notify, readers) in
        [("[\"it@contoso.com\", \"night@contoso.com\"]", &["it@contoso.com", "night@contoso.com"][..]), ("\"none\"", &[])]
    {
        let world = World::with(1, |_| {}, |setup| setup.client(&format!("notify = {notify}")));
        let mut client = world.client();
        // Who reads about the client's mail is told of what came from the null path too.
        let id = client.accepted("", &["nobody@contoso.com"], &mail("scan", b"text\r\n"));
        world.removed(&id);
        let taken = world.taken(readers.len() as u64);
        let got: BTreeSet<&str> = taken.iter().flat_map(|taken| &taken.recipients).map(|to| to.as_str()).collect();
        assert_eq!((got, logged(&world, "notice-impossible")), (readers.iter().copied().collect(), 0), "{notify}");
    }
}

#[test]
fn who_does_not_exist_or_would_answer_is_told_nothing() {
    let world = World::with(1, |_| {}, |setup| setup.with("[notices]\ndigest_interval = \"100ms\""));
    let mut client = world.client();
    let impossible =
        |why: &str| world.relay.wait_for(why, |line| line["event"] == "notice-impossible" && line["why"].to_string().contains(why));
    // The account has no mailbox.
    client.accepted("HVE01@contoso.com", &["nobody@contoso.com"], &mail("a", b"text\r\n"));
    impossible("accounts have no mailbox");
    let answer = [&b"Auto-Submitted: auto-replied (vacation)\r\n"[..], &mail("b", b"text\r\n")].concat();
    client.accepted("app@contoso.com", &["nobody@contoso.com"], &answer);
    impossible("automatic reply");

    // The notice to a device whose address does not exist fails; then it is left alone.
    let id = client.accepted("nobody.scanner@contoso.com", &["nobody@contoso.com"], &mail("c", b"text\r\n"));
    let notice = world.relay.wait_for("a notice", |line| line["event"] == "notice-queued" && line["queue_id"] == id.as_str());
    world.removed(notice["notice"].as_str().expect("an id"));
    client.accepted("nobody.scanner@contoso.com", &["nobody@contoso.com"], &mail("d", b"text\r\n"));
    impossible("do not reach");
    assert_eq!((world.sim.counters().messages, logged(&world, "notice-queued")), (0, 1));
}

#[test]
fn operators_hear_once_that_an_account_cannot_send_and_once_that_it_can_again() {
    let world = World::with(
        2,
        |_| {},
        |setup| setup.with("[notices]\noperators = [\"ops@contoso.com\", \"night@contoso.com\"]\nalarm_delay = \"100ms\""),
    );
    world.faults([Fault::reply(Step::Auth, "535 5.7.3 Authentication unsuccessful").account(account(1)).first(3)]);
    let mut client = world.client();
    let mut delivered = 0;
    support::until("the account to be back", || {
        let id = client.accepted("app@contoso.com", &["you@contoso.com"], &mail("order", b"text\r\n"));
        world.removed(&id);
        delivered += 1;
        !world.relay.logged(|line| line["event"] == "alarm-cleared").is_empty()
    });
    let mails = world.relay.wait_for_all("mail to the operators", 2, |line| line["event"] == "alarm-mail");
    mails.iter().for_each(|mail| world.removed(mail["notice"].as_str().expect("an id")));
    let taken = world.taken(delivered + 2);
    let told: Vec<_> = taken.iter().filter(|taken| field(taken, "Auto-Submitted") == ["auto-generated"]).collect();
    let subjects: Vec<_> = told.iter().map(|taken| field(taken, "Subject").remove(0)).collect();
    assert_eq!(subjects, ["cannot send", "sends again"].map(|what| format!("relay.contoso.com: Account hve01@contoso.com {what}")));
    for mail in told {
        assert_eq!(mail.recipients.iter().map(|to| to.as_str()).collect::<Vec<_>>(), ["ops@contoso.com", "night@contoso.com"]);
        assert!(String::from_utf8_lossy(body(mail)).contains("535 5.7.3 Authentication unsuccessful"));
    }
    assert_eq!(world.relay.logged(|line| line["event"] == "alarm-raised").len(), 1, "once per state, not per message");
}

#[test]
fn what_cannot_be_mailed_while_nothing_goes_is_told_as_a_whole_when_it_is_over() {
    let world = World::with(1, |_| {}, |setup| setup.with("[notices]\noperators = [\"ops@contoso.com\"]\nalarm_delay = \"100ms\""));
    world.faults([Fault::reply(Step::Auth, "535 5.7.3 Authentication unsuccessful")]);
    world.client().accepted("app@contoso.com", &["you@contoso.com"], &mail("order", b"text\r\n"));
    world.relay.wait_for_all("a refused login", 3, |line| line["event"] == "account-paused");
    assert_eq!(world.relay.logged(|line| line["event"] == "alarm-mail").len(), 0);

    // The alarm outlives the relay.
    let world = world.crash_and_restart(|world| world.faults([]));
    let taken = world.taken(2);
    let told = taken.iter().find(|taken| field(taken, "Subject") != ["order"]).expect("the mail");
    let text = String::from_utf8_lossy(body(told)).into_owned();
    assert!(text.contains("Account hve01@contoso.com cannot send. That is over already.\r\n") && text.contains("  Until: "), "{text}");
    assert_eq!(world.relay.logged(|line| line["event"] == "alarm-raised").len(), 0);
}

#[test]
fn operators_hear_that_mail_waits_for_too_long_and_that_the_disk_is_low() {
    let notices = "[notices]\noperators = [\"ops@contoso.com\"]\nalarm_delay = \"100ms\"\nqueue_age_alarm = \"1s\"";
    let world = World::with(1, |_| {}, |setup| setup.with(notices));
    world.faults([Fault::reply(Step::Rcpt, "451 4.7.999 Not now").recipient("late@contoso.com")]);
    let id = world.client().accepted("app@contoso.com", &["late@contoso.com"], &mail("order", b"text\r\n"));
    let text = String::from_utf8_lossy(body(&world.taken(1)[0])).into_owned();
    assert!(
        text.contains("Mail has been waiting for too long.\r\n") && text.contains(&id) && text.contains("451 4.7.999 Not now"),
        "{text}"
    );
    world.faults([]);
    let text = String::from_utf8_lossy(body(&world.taken(3)[2])).into_owned();
    assert!(text.contains("No mail has been waiting for too long any more.\r\n"), "{text}");

    let world = World::with(1, |_| {}, |setup| setup.queue("free_space_reserve = \"900 GiB\"").with(notices));
    let text = String::from_utf8_lossy(body(&world.taken(1)[0])).into_owned();
    assert!(text.contains("There is no room for new mail.\r\n"), "{text}");
}
