//! As whom mail goes out, by route and by client, end to end.

mod support;

use hve_relay::sim::{Fault, Senders, Settings, Step};
use support::client::Client;
use support::{World, account, body, field, mail};

fn anybody(settings: &mut Settings) {
    settings.senders = Senders::Anybody;
}

#[test]
fn each_client_sends_as_it_is_written_and_else_as_the_route_says() {
    let clients = "[[client]]\nname = \"erp\"\nnetworks = [\"127.0.0.2\"]\nsender = \"noreply@contoso.com\"\n\
                   display_name = \"{author_name} via {client}\"\n\
                   [[client]]\nname = \"printers\"\nnetworks = [\"127.0.0.3\"]\nsender = \"account\"\n\
                   [sender]\ndisplay_name = \"{author} ({account})\"\n";
    let world = World::with(1, anybody, |setup| setup.route("sender = \"keep\"").with(clients));
    for (from, reverse_path, author, original) in [
        ("127.0.0.1", "bounces@contoso.com", "App <app@contoso.com>", None),
        ("127.0.0.2", "noreply@contoso.com", "App via erp <noreply@contoso.com>", Some("App <app@contoso.com>")),
        ("127.0.0.3", "hve01@contoso.com", "\"app@contoso.com (hve01@contoso.com)\" <hve01@contoso.com>", Some("App <app@contoso.com>")),
    ] {
        let mut client = Client::hello_from(from, world.relay.address);
        let id = client.accepted("bounces@contoso.com", &["you@contoso.com"], &mail("hello", b"text\r\n"));
        world.removed(&id);
        let taken = world.sim.taken().pop().expect("the message");
        assert_eq!(taken.reverse_path.to_string(), reverse_path, "{from}");
        assert_eq!(field(&taken, "From"), [author], "{from}");
        assert_eq!(field(&taken, "X-Original-From").first().map(String::as_str), original, "{from}");
        let envelope = original.map(|_| "<bounces@contoso.com>");
        assert_eq!(field(&taken, "X-Original-Envelope-From").first().map(String::as_str), envelope, "{from}");
        assert_eq!(field(&taken, "Reply-To").first().map(String::as_str), original, "{from}");
        assert_eq!(body(&taken), b"text\r\n");
    }
}

#[test]
fn a_notice_goes_out_as_its_policy_says() {
    const NO_SUCH_USER: &str = "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup";
    for (sender, reverse_path, author) in
        [("account", "hve01@contoso.com", "hve01@contoso.com"), ("keep", "", "postmaster@"), ("it@contoso.com", "it@contoso.com", "it@")]
    {
        let world = World::with(1, anybody, |setup| setup.client(&format!("sender = \"{sender}\"\ndisplay_name = \"{{client}}\"")));
        world.faults([Fault::reply(Step::Rcpt, NO_SUCH_USER).recipient("gone@contoso.com")]);
        world.client().accepted("app@contoso.com", &["gone@contoso.com"], &mail("order", b"text\r\n"));
        let notice = world.taken(1).remove(0);
        assert_eq!(notice.reverse_path.to_string(), reverse_path, "{sender}");
        let from = field(&notice, "From").remove(0);
        assert!(from.starts_with("Mail Delivery System <") && from.contains(author), "{sender}: {from}");
    }
}

#[test]
fn a_signature_goes_with_the_from_that_it_vouches_for_and_the_log_says_why() {
    let signature = "DKIM-Signature: v=1; a=rsa-sha256; d=contoso.com; s=k1;\r\n\tbh=x; b=y\r\n";
    let signed = |subject| [signature.as_bytes(), &mail(subject, b"text\r\n")].concat();
    let of_client = "[[client]]\nname = \"archive\"\nnetworks = [\"127.0.0.2\"]\ndkim_signature = \"keep\"\n";
    let world = World::with(1, |_| {}, |setup| setup.with(of_client));
    let removed = world.client().accepted("app@contoso.com", &["you@contoso.com"], &signed("removed"));
    world.removed(&removed);
    let kept = Client::hello_from("127.0.0.2", world.relay.address).accepted("app@contoso.com", &["you@contoso.com"], &signed("kept"));
    world.removed(&kept);
    let own = String::from_utf8(signed("own")).expect("ASCII").replace("app@contoso.com", &account(1));
    let own = world.client().accepted(&account(1), &["you@contoso.com"], own.as_bytes());
    world.removed(&own);

    for taken in world.taken(3) {
        let subject = field(&taken, "Subject").remove(0);
        let there = String::from_utf8_lossy(&taken.content).contains(signature);
        assert_eq!(there, subject != "removed", "{subject}");
    }
    let told = world.relay.logged(|line| line["event"] == "dkim-signature-removed");
    assert_eq!(told.len(), 1, "{told:?}");
    for (name, value) in
        [("queue_id", removed.as_str()), ("client", "devices"), ("sender", "hve01@contoso.com"), ("domains", "contoso.com")]
    {
        assert_eq!(told[0][name], value, "{name} in {}", told[0]);
    }
    assert!(told[0]["message"].as_str().is_some_and(|why| why.contains("vouches for the From that was replaced")), "{}", told[0]);
}
