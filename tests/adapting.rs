//! What becomes of mail that an upstream server does not take as it is, end to end: content and addresses beyond ASCII, and size.

mod support;

use hve_relay::sim::{Extension, Settings, sha256};
use support::client::{Client, stuffed};
use support::{World, body, field, mail, parts};

/// An endpoint that offers these besides SIZE and AUTH.
fn offers(extensions: &'static [Extension]) -> impl FnOnce(&mut Settings) {
    |settings| settings.extensions = extensions.to_vec()
}

/// A message with a text, a picture and a forwarded message, `repeat` times as large as the smallest.
fn mixed(subject: &str, repeat: usize) -> Vec<u8> {
    let text = "Die Wäsche ist fertig, grüßt die Maschine.\r\n.\r\n--b?\r\n".repeat(repeat);
    let picture: Vec<u8> = (0..=255_u8).filter(|octet| !matches!(octet, b'\r' | b'\n')).chain(*b"\r\n").collect();
    let mut content = mail(subject, b"");
    content.truncate(content.len() - 2);
    content.extend_from_slice(
        "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
         --b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
            .as_bytes(),
    );
    content.extend_from_slice(text.as_bytes());
    content.extend_from_slice(
        "\r\n--b\r\nContent-Type: image/x-raw; name=\"Küche.raw\"\r\nContent-Transfer-Encoding: binary\r\n\r\n".as_bytes(),
    );
    content.extend_from_slice(&picture.repeat(repeat));
    content
        .extend_from_slice("\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: Grüße\r\n\r\nHallo, Jürgen!\r\n--b--\r\n".as_bytes());
    content
}

/// One transaction that asks for SMTPUTF8; returns the queue id.
fn submit_utf8(client: &mut Client, from: &str, to: &[&str], content: &[u8]) -> String {
    client.expect(&format!("MAIL FROM:<{from}> SMTPUTF8 BODY=8BITMIME"), "250");
    for recipient in to {
        client.expect(&format!("RCPT TO:<{recipient}>"), "250");
    }
    client.expect("DATA", "354");
    client.raw(&stuffed(content));
    let reply = client.reply();
    assert!(reply.starts_with("250 2.0.0 "), "{reply}");
    reply.rsplit(' ').next().expect("an id").to_owned()
}

/// The log's line about a recipient of a message.
fn settled(world: &World, id: &str, to: &str) -> serde_json::Value {
    world.relay.wait_for("the recipient's end", |line| line["event"] == "delivery" && line["queue_id"] == id && line["to"] == to)
}

#[test]
fn where_content_beyond_ascii_is_taken_it_goes_octet_for_octet() {
    let world = World::new(1);
    for (subject, repeat) in [("small", 1), ("large", 1_000)] {
        let content = mixed(subject, repeat);
        let id = world.client().accepted("app@contoso.com", &["you@contoso.com"], &content);
        world.removed(&id);
        let taken = world.sim.taken().pop().expect("the message");
        let sent = &content[content.windows(4).position(|four| four == b"\r\n\r\n").expect("an end") + 4..];
        assert_eq!(sha256(body(&taken)), sha256(sent), "{subject}");
        assert_eq!(taken.violations, [], "{subject}");
    }
    assert_eq!(world.relay.logged(|line| line["event"] == "content-converted").len(), 0);
}

#[test]
fn where_it_is_not_taken_it_is_converted_and_reads_the_same() {
    for extensions in [&[][..], &[Extension::Pipelining], &[Extension::Chunking], &[Extension::Pipelining, Extension::Chunking]] {
        let world = World::with(1, offers(extensions), |setup| setup);
        // The larger one lies in a file, and goes in many pieces.
        for (subject, repeat) in [("small", 1), ("large", 2_000)] {
            let content = mixed(subject, repeat);
            let id = world.client().accepted("app@contoso.com", &["you@contoso.com"], &content);
            world.removed(&id);
            let taken = world.sim.taken().pop().expect("the message");
            assert_eq!(taken.violations, [], "{subject} by {extensions:?}");
            assert!(taken.content.is_ascii() && taken.content.split(|octet| *octet == b'\n').all(|line| line.len() <= 999), "{subject}");
            assert!(parts(&taken.content) == parts(&content), "{subject} by {extensions:?} reads otherwise");
            assert_eq!(field(&taken, "Content-Transfer-Encoding"), ["7bit"]);
            let told = world.relay.wait_for("converted", |line| line["event"] == "content-converted" && line["queue_id"] == id.as_str());
            assert_eq!(told["client"], "devices", "{told}");
        }
        let id = world.client().accepted("app@contoso.com", &["you@contoso.com"], &mail("plain", b"ASCII\r\n"));
        world.removed(&id);
        assert_eq!(body(&world.sim.taken().pop().expect("the message")), b"ASCII\r\n");
        assert_eq!(world.relay.logged(|line| line["event"] == "content-converted").len(), 2, "nothing was converted in the last one");
    }
}

#[test]
fn a_signed_message_that_would_break_is_not_sent_and_its_author_is_told() {
    let world = World::with(1, offers(&[]), |setup| setup);
    let signed = "--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße\r\n--b\r\n\
                  Content-Type: application/pkcs7-signature\r\n\r\nMIIB\r\n--b--\r\n";
    let head = "From: app@contoso.com\r\nMIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=b\r\n\r\n";
    let id = world.client().accepted("app@contoso.com", &["you@contoso.com"], format!("{head}{signed}").as_bytes());
    let told = settled(&world, &id, "you@contoso.com");
    assert_eq!((&told["status"], &told["dsn"]), (&"bounced".into(), &"5.6.3".into()), "{told}");
    assert!(told["reply"].as_str().is_some_and(|reply| reply.starts_with("554 5.6.3 Not sent: ") && reply.contains("8BITMIME")), "{told}");
    let notice = world.taken(1).remove(0);
    assert_eq!(notice.recipients, ["app@contoso.com".parse().expect("a mailbox")]);
    assert!(notice.content.is_ascii() && String::from_utf8_lossy(&notice.content).contains("signed or encrypted"));

    let ascii = signed.replace("Grüße", "Gruesse");
    world.client().accepted("app@contoso.com", &["you@contoso.com"], format!("{head}{ascii}").as_bytes());
    assert_eq!(body(&world.taken(2)[1]), ascii.as_bytes(), "what is signed in ASCII goes as it is");
}

#[test]
fn only_what_needs_smtputf8_fails_without_it() {
    let world = World::with(1, offers(&[Extension::Pipelining, Extension::EightBitMime]), |setup| setup);
    let mut client = world.client();

    // It asked for SMTPUTF8, and needs nothing of it.
    let id = submit_utf8(&mut client, "app@contoso.com", &["you@contoso.com"], &mail("plain", "Größe\r\n".as_bytes()));
    world.removed(&id);
    // Its header can be encoded. The address that MAIL had is not sent on, and stays where it can be read.
    let content = "From: Jürgen <app@contoso.com>\r\nTo: Müller <you@contoso.com>\r\nSubject: Größe\r\n\r\nGröße\r\n";
    let id = submit_utf8(&mut client, "jürgen@contoso.com", &["you@contoso.com"], content.as_bytes());
    world.removed(&id);
    let taken = world.taken(2).remove(1);
    assert_eq!(taken.violations, []);
    assert_eq!(field(&taken, "Subject"), ["=?utf-8?B?R3LDtsOfZQ==?="]);
    assert_eq!(field(&taken, "To"), ["=?utf-8?B?TcO8bGxlcg==?= <you@contoso.com>"]);
    assert_eq!(body(&taken), "Größe\r\n".as_bytes(), "the body is taken as it is");
    // One of its recipients cannot be named.
    let to = ["you@contoso.com", "jürgen@contoso.com"];
    let id = submit_utf8(&mut client, "app@contoso.com", &to, &mail("one", b"text\r\n"));
    assert_eq!(settled(&world, &id, to[0])["status"], "sent");
    let told = settled(&world, &id, to[1]);
    assert_eq!((&told["status"], &told["dsn"]), (&"bounced".into(), &"5.6.7".into()), "{told}");
    // Its header has an address that has no form in ASCII.
    let content = "From: app@contoso.com\r\nTo: <jürgen@contoso.com>\r\n\r\ntext\r\n";
    let id = submit_utf8(&mut client, "app@contoso.com", &["you@contoso.com"], content.as_bytes());
    let told = settled(&world, &id, "you@contoso.com");
    assert_eq!((&told["status"], &told["dsn"]), (&"bounced".into(), &"5.6.7".into()), "{told}");
    assert!(told["reply"].as_str().is_some_and(|reply| reply.contains("the header's To field")), "{told}");
}

#[test]
fn a_kept_sender_beyond_ascii_needs_smtputf8() {
    for (extensions, status) in [(&[][..], "bounced"), (&[Extension::EightBitMime, Extension::SmtpUtf8], "sent")] {
        let anybody = |settings: &mut Settings| {
            offers(extensions)(settings);
            settings.senders = hve_relay::sim::Senders::Anybody;
        };
        let world = World::with(1, anybody, |setup| setup.route("sender = \"keep\""));
        let id = submit_utf8(&mut world.client(), "jürgen@contoso.com", &["you@contoso.com"], &mail("kept", b"text\r\n"));
        let told = settled(&world, &id, "you@contoso.com");
        assert_eq!(told["status"], status, "{told}");
    }
}

#[test]
fn what_is_larger_than_the_server_takes_is_not_offered_to_it() {
    let world = World::with(1, |settings| settings.size_limit = 4_000, |setup| setup);
    let large = mail("large", &b"0123456789012345678901234567890123456789\r\n".repeat(100));
    let id = world.client().accepted("app@contoso.com", &["a@contoso.com", "b@contoso.com"], &large);
    for to in ["a@contoso.com", "b@contoso.com"] {
        let told = settled(&world, &id, to);
        assert_eq!((&told["status"], &told["dsn"]), (&"bounced".into(), &"5.3.4".into()), "{told}");
        assert!(told["reply"].as_str().is_some_and(|reply| reply.contains("at most 4000 (its SIZE)")), "{told}");
    }
    world.removed(&id);
    let taken = world.taken(1);
    assert_eq!(taken[0].recipients, ["app@contoso.com".parse().expect("a mailbox")], "the notice goes");
    assert_eq!(world.sim.counters().commands["MAIL"], 1, "the message itself was not announced");
    assert_eq!(world.relay.logged(|line| line["event"] == "account-paused").len(), 0);
}
