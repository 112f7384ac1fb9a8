//! End to end: the real binary, a real TCP client, the simulated HVE endpoint over real TLS. What arrives, and in which shape.

mod support;

use std::collections::BTreeSet;

use support::{World, body, field, mail};

#[test]
fn bodies_arrive_octet_for_octet() {
    let world = World::new(2);
    let mut noise: u32 = 1;
    let mut scan = Vec::new();
    while scan.len() < 9_900_000 {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        scan.extend(format!("{noise:010}{:010}{noise:010}{noise:010}{noise:010}{noise:010}{noise:010}\r\n", noise >> 3).bytes());
    }
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", b"".to_vec()),
        ("one-octet", b"x\r\n".to_vec()),
        ("an-empty-line", b"\r\n".to_vec()),
        ("dots", b".\r\n..\r\n...\r\n.x\r\n..x\r\n \r\n.\r\n".to_vec()),
        ("a-long-line", [b"y".repeat(100_000), b"\r\n".to_vec()].concat()),
        ("eight-bit", b"\xff\xfe\x80 K\xe4se \xf0\x9f\x93\xa0\r\n".to_vec()),
        ("a-nul", b"a\0b\r\n".to_vec()),
        ("a-scan", scan),
    ];
    let mut client = world.client();
    for (subject, content) in &bodies {
        client.accepted("app@contoso.com", &["you@contoso.com"], &mail(subject, content));
    }
    let taken = world.taken(bodies.len() as u64);
    for (subject, content) in &bodies {
        let got = taken.iter().find(|taken| field(taken, "Subject") == [*subject]).expect(subject);
        assert!(body(got) == content, "{subject}: {} octets arrived, {} were sent", body(got).len(), content.len());
        assert_eq!(got.violations, [], "{subject}");
        assert_eq!(field(got, "Message-ID"), [format!("<{subject}@contoso.com>")], "the Message-ID never changes");
    }
    world.relay.stop();
}

#[test]
fn the_sender_becomes_the_account_and_the_author_stays_reachable() {
    let world = World::new(1);
    let id = world.client().accepted("bounces@contoso.com", &["you@contoso.com"], &mail("hello", b"text\r\n"));
    let taken = &world.taken(1)[0];
    assert_eq!(taken.reverse_path.to_string(), "hve01@contoso.com");
    assert_eq!(field(taken, "From"), ["App <hve01@contoso.com>"]);
    assert_eq!(field(taken, "Reply-To"), ["App <app@contoso.com>"]);
    assert_eq!(field(taken, "X-Original-From"), ["App <app@contoso.com>"]);
    assert_eq!(field(taken, "X-Original-Envelope-From"), ["<bounces@contoso.com>"]);
    let received = field(taken, "Received").remove(0);
    for part in ["from scanner.contoso.com", "127.0.0.1", "by relay.contoso.com", "ESMTP", &id, "<you@contoso.com>"] {
        assert!(received.contains(part), "{received} lacks {part}");
    }
}

#[test]
fn what_a_device_leaves_out_is_added() {
    let world = World::new(1);
    world.client().accepted("scanner@contoso.com", &["you@contoso.com"], b"Just a line, no header at all\r\n");
    let taken = &world.taken(1)[0];
    assert_eq!(body(taken), b"Just a line, no header at all\r\n");
    for name in ["Date", "Message-ID", "From", "Received"] {
        assert_eq!(field(taken, name).len(), 1, "{name}");
    }
    assert!(field(taken, "From")[0].contains("<hve01@contoso.com>"));
    assert_eq!(field(taken, "Reply-To"), ["<scanner@contoso.com>"]);
}

#[test]
fn however_many_authors_a_device_writes_one_from_leaves() {
    let world = World::new(1);
    let content = b"From: \"scan@contoso.com\" <scan@contoso.com>\r\nFrom: Copier <copier@contoso.com>\r\nSubject: two\r\n\r\ntext\r\n";
    world.client().accepted("scanner@contoso.com", &["you@contoso.com"], content);
    let taken = &world.taken(1)[0];
    assert_eq!(field(taken, "From"), ["\"scan@contoso.com\" <hve01@contoso.com>"]);
    assert_eq!((body(taken), &taken.violations[..]), (&b"text\r\n"[..], &[][..]));
}

#[test]
fn a_header_of_100_kb_passes_unharmed() {
    let world = World::new(1);
    let long: String = (0..1_400).map(|n| format!(" word{n:04}-{}\r\n", "x".repeat(60))).collect();
    let content = format!("From: app@contoso.com\r\nX-Long:\r\n{long}Subject: large\r\nX-One-Line: {}\r\n\r\nbody\r\n", "z".repeat(5_000));
    world.client().accepted("app@contoso.com", &["you@contoso.com"], content.as_bytes());
    let taken = &world.taken(1)[0];
    let text = String::from_utf8_lossy(&taken.content);
    assert!(text.contains(&format!("X-Long:\r\n{long}Subject: large\r\nX-One-Line: {}\r\n", "z".repeat(5_000))));
    assert_eq!(body(taken), b"body\r\n");
}

#[test]
fn signed_content_is_left_alone() {
    let world = World::with(1, |_| {}, |setup| setup.with("[sender]\ndkim_signature = \"keep\""));
    let dkim = "DKIM-Signature: v=1; a=rsa-sha256; d=contoso.com; s=k1;\r\n\th=Subject : To; bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n  b=dGVzdA==\r\n";
    let signed = "--b\r\nContent-Type: text/plain \r\n\r\n trailing blanks  \r\n\t\r\n--b\r\nContent-Type: application/pkcs7-signature\r\n\r\nMIIB\r\n--b--\r\n";
    let content = format!(
        "{dkim}Subject:   odd   spacing \r\nX-Tab:\tvalue\r\nMIME-Version: 1.0\r\nContent-Type: multipart/signed;\r\n boundary=b\r\nFrom: app@contoso.com\r\n\r\n{signed}"
    );
    world.client().accepted("app@contoso.com", &["you@contoso.com"], content.as_bytes());
    let taken = &world.taken(1)[0];
    let text = String::from_utf8_lossy(&taken.content);
    for kept in
        [dkim, "Subject:   odd   spacing \r\nX-Tab:\tvalue\r\nMIME-Version: 1.0\r\nContent-Type: multipart/signed;\r\n boundary=b\r\n"]
    {
        assert!(text.contains(kept), "{kept:?} is not in\n{text}");
    }
    assert_eq!(body(taken), signed.as_bytes());
}

#[test]
fn many_recipients_travel_in_deliveries_of_fifty_and_each_once() {
    let world = World::with(3, |_| {}, |setup| setup.client("affinity = \"none\""));
    let to: Vec<String> = (0..120).map(|n| format!("user{n}@contoso.com")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let id = world.client().accepted("app@contoso.com", &to, &mail("notice", b"text\r\n"));
    let taken = world.taken(3);
    let mut sizes: Vec<usize> = taken.iter().map(|taken| taken.recipients.len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [20, 50, 50]);
    let got: BTreeSet<&str> = taken.iter().flat_map(|taken| &taken.recipients).map(|mailbox| mailbox.as_str()).collect();
    assert_eq!(got, to.into_iter().collect());
    let accounts: BTreeSet<&str> = taken.iter().map(|taken| taken.account.as_str()).collect();
    assert_eq!(accounts.len(), 3, "three deliveries at once are spread over three accounts");
    world.removed(&id);
}

#[test]
fn internal_and_external_recipients_travel_apart() {
    let world = World::new(2);
    let to = ["a@contoso.com", "b@fabrikam.example", "c@contoso.com", "d@fabrikam.example"];
    world.client().accepted("app@contoso.com", &to, &mail("mixed", b"text\r\n"));
    let mut groups: Vec<Vec<String>> =
        world.taken(2).iter().map(|taken| taken.recipients.iter().map(|mailbox| mailbox.to_string()).collect()).collect();
    groups.sort();
    assert_eq!(groups, [["a@contoso.com", "c@contoso.com"], ["b@fabrikam.example", "d@fabrikam.example"]]);
}

#[test]
fn connections_are_reused_for_many_messages() {
    let world = World::new(1);
    let mut client = world.client();
    for n in 0..20 {
        let id = client.accepted("app@contoso.com", &["you@contoso.com"], &mail(&format!("n{n}"), b"text\r\n"));
        world.removed(&id);
    }
    let counters = world.sim.counters();
    assert_eq!((counters.connections, counters.logins.len(), counters.messages), (1, 1, 20));
}

#[test]
fn an_idle_connection_is_closed() {
    let world = World::with(1, |_| {}, |setup| setup.with("[upstream]\nidle = \"200ms\""));
    let id = world.client().accepted("app@contoso.com", &["you@contoso.com"], &mail("one", b"text\r\n"));
    world.removed(&id);
    world.runtime.block_on(world.sim.wait_until(|seen| seen.open == 0, support::relay::PATIENCE)).expect("closed");
    assert_eq!(world.sim.counters().command("QUIT"), 1);
}

#[test]
fn what_is_accepted_always_fits_the_upstream_limit() {
    let world = World::new(1);
    let limit = 10_485_760;
    let header = mail("large", b"");
    let line = [b"z".repeat(76), b"\r\n".to_vec()].concat();
    let (mut accepted, mut refused) = (0, 0);
    for missing in [0, 200, 400, 600, 1_000, 4_000] {
        let mut content = header.clone();
        while content.len() + line.len() <= limit - missing {
            content.extend_from_slice(&line);
        }
        let reply = world.client().send("app@contoso.com", &["you@contoso.com"], &content);
        if reply.starts_with("250") {
            accepted += 1;
        } else {
            assert!(reply.starts_with("552 5.3.4"), "{reply}");
            refused += 1;
        }
    }
    assert!(accepted >= 1 && refused >= 1, "{accepted} accepted, {refused} refused");
    assert_eq!(world.taken(accepted).len() as u64, accepted);
    assert_eq!(world.sim.counters().refused(""), 0, "the endpoint refused something that had been accepted");
    let reply = world.client().command(&format!("MAIL FROM:<app@contoso.com> SIZE={}", limit + 1));
    assert!(reply.starts_with("552 5.3.4"), "{reply}");
}

#[test]
fn a_queue_id_tells_a_messages_whole_life_and_no_line_tells_a_secret() {
    let world = World::new(1);
    let id = world.client().accepted("app@contoso.com", &["you@contoso.com"], &mail("story", b"the text is nobody's business\r\n"));
    world.removed(&id);
    let events: Vec<String> =
        world.relay.logged(|line| line["queue_id"] == id.as_str()).iter().map(|line| line["event"].to_string()).collect();
    assert_eq!(events, ["\"accepted\"", "\"delivery\"", "\"removed\""]);
    let delivery = world.relay.wait_for("delivery", |line| line["event"] == "delivery");
    for (field, value) in
        [("status", "sent"), ("to", "you@contoso.com"), ("account", "hve01@contoso.com"), ("client", "devices"), ("dsn", "2.6.0")]
    {
        assert_eq!(delivery[field], value, "{field} in {delivery}");
    }
    let log = world.relay.log_text();
    for secret in [support::PASSWORD, "nobody's business", "czNjcmV0LVBhNTV3b3Jk"] {
        assert!(!log.contains(secret), "the log shows {secret}");
    }
}
