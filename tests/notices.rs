//! Notices end to end: who hears of what became of a message, who does not, and what the notice says.

mod support;

use hve_relay::sim::{Fault, Step};
use support::client::{Client, stuffed};
use support::{World, body, mail};

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
