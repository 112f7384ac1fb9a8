//! Notices end to end: who hears of what became of a message, who does not, and what the notice says.

mod support;

use hve_relay::sim::{Fault, Step};
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
