//! SMTP smuggling, end to end: a client sends a message that contains what looks like its end, and behind it a transaction of a stranger's
//! making. Exactly one message must arrive, its own, and nothing in it may look like an end to the next server either.
//!
//! The false ends are all combinations of line ends (CR, LF, CRLF and what else servers have taken for one) before and behind a dot, bare or
//! with a NUL or blanks beside it, that do not contain CRLF DOT CRLF. The simulated endpoint is the judge of what is sent on: it ends
//! content at CRLF DOT CRLF alone and notes every bare CR, bare LF, unstuffed dot and unexpected command.

mod support;

use std::collections::BTreeMap;

use hve_relay::sim::Taken;
use support::client::Client;
use support::{World, body, field};

const END: &[u8] = b"\r\n.\r\n";

/// What a stranger puts behind the false end.
const SMUGGLED: &[&[u8]] = &[
    b"MAIL FROM:<evil@contoso.com>\r\nRCPT TO:<boss@contoso.com>\r\nDATA\r\nFrom: evil@contoso.com\r\nSubject: smuggled\r\n\r\npay me\r\n",
    b"RSET\r\nMAIL FROM:<evil@contoso.com>\nRCPT TO:<boss@contoso.com>\nDATA\nSubject: smuggled\n\npay me\n",
    b"EHLO evil\r\nMAIL FROM:<evil@contoso.com>\r\nRCPT TO:<boss@contoso.com>\r\nBDAT 6 LAST\r\npay me\r\nQUIT\r\n",
];

/// Every false end that there is between these line ends.
fn false_ends() -> Vec<Vec<u8>> {
    let line_ends: [&[u8]; 8] = [b"\n", b"\r", b"\r\n", b"\n\r", b"\r\r\n", b"\n\n", b"\0\r\n", b"\r\n\0"];
    let dots: [&[u8]; 8] = [b".", b".\0", b"\0.", b". ", b".\t", b" .", b"..", b".\x1a"];
    let mut ends = Vec::new();
    for before in line_ends {
        for dot in dots {
            ends.extend(line_ends.iter().map(|behind| [before, dot, behind].concat()));
        }
    }
    ends.retain(|end| !end.windows(END.len()).any(|window| window == END));
    ends
}

#[test]
fn nothing_that_looks_like_an_end_of_data_is_one() {
    let world = World::new(2);
    let mut client = world.client();
    let mut expected = BTreeMap::new();
    let ends = false_ends();
    for (i, end) in ends.iter().enumerate() {
        let subject = format!("good{i}");
        let header = format!("From: app@contoso.com\r\nSubject: {subject}\r\n\r\n");
        send(&mut client, &[header.as_bytes(), b"good", end, SMUGGLED[i % SMUGGLED.len()]]);
        expected.insert(subject, end.escape_ascii().to_string());
    }
    let named = [
        "\\n.\\n",
        "\\n.\\r\\n",
        "\\r.\\r",
        "\\r\\n.\\r",
        "\\r\\n.\\n",
        "\\r.\\r\\n",
        "\\r\\n\\x00.\\r\\n",
        "\\r\\n.\\x00\\r\\n",
        "\\r\\n. \\r\\n",
    ];
    assert!(named.iter().all(|end| expected.values().any(|other| other == end)), "{expected:?}");
    for taken in one_each(&world, ends.len()) {
        let subject = field(&taken, "Subject").remove(0);
        let end = expected.remove(&subject).unwrap_or_else(|| panic!("{subject} arrived twice, or was not sent"));
        let text = String::from_utf8_lossy(body(&taken));
        assert!(text.starts_with("good") && text.contains("pay me"), "{end}: {text}");
    }
    world.relay.stop();
}

#[test]
fn a_false_end_ends_nothing_wherever_it_stands() {
    let world = World::new(2);
    let mut client = world.client();
    let ends: [&[u8]; 6] = [b"\n.\n", b"\r.\r", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r.\r\n"];
    let mut messages = 0;
    for end in ends {
        // As the first octets of all; in the header, in the middle of a field and behind one; as the last octets before the true end.
        let header: &[u8] = b"From: app@contoso.com\r\nSubject: good";
        let text: &[u8] = b"\r\n\r\ngood";
        let smuggled = SMUGGLED[0];
        for parts in [[end, smuggled, header, text], [header, end, smuggled, text], [header, text, smuggled, end], [header, text, end, end]]
        {
            send(&mut client, &parts);
            messages += 1;
        }
    }
    for taken in one_each(&world, messages) {
        assert_eq!(taken.recipients.len(), 1);
    }
}

#[test]
fn a_false_end_ends_nothing_however_it_is_cut() {
    let world = World::new(2);
    let mut client = world.client();
    // What the relay reads and sends at once is a power of two: the false end is put across every such boundary, and sent octet by octet.
    let ends: [&[u8]; 5] = [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r.\r\n"];
    let mut messages = 0;
    for end in ends {
        for boundary in [4 << 10, 16 << 10, 64 << 10] {
            for before in 0..=end.len() {
                let padding = vec![b'x'; boundary - before];
                send(&mut client, &[&padding, end, SMUGGLED[0]]);
                messages += 1;
            }
        }
        begin(&mut client);
        for octet in [b"good", end, SMUGGLED[0], END].concat() {
            client.raw(&[octet]);
        }
        is_queued(&mut client);
        messages += 1;
    }
    one_each(&world, messages);
}

#[test]
fn a_message_that_ends_falsely_only_is_no_message() {
    let world = World::new(1);
    for end in false_ends() {
        let mut client = world.client();
        begin(&mut client);
        client.raw(&[b"good", &end[..], SMUGGLED[0]].concat());
        // Half a message and then nothing more.
        client.hang_up();
        assert!(client.closed(), "{} was answered", end.escape_ascii());
    }
    // Whatever else had been kept would have come before this one, or would come with it.
    let mut client = world.client();
    send(&mut client, &[b"good\r\n"]);
    one_each(&world, 1);
}

/// A transaction of the client's own, up to the 354.
fn begin(client: &mut Client) {
    client.expect("MAIL FROM:<app@contoso.com>", "250 2.1.0");
    client.expect("RCPT TO:<ann@contoso.com>", "250 2.1.5");
    client.expect("DATA", "354");
}

/// The client has ended its message, and this and no more is answered.
fn is_queued(client: &mut Client) {
    let reply = client.reply();
    assert!(reply.starts_with("250 2.0.0 Ok: queued as "), "{reply}");
    assert_eq!(client.command("NOOP"), "250 2.0.0 Ok");
}

/// Sends these as the content of one message, with a true end.
fn send(client: &mut Client, parts: &[&[u8]]) {
    let wire = [&parts.concat(), END].concat();
    assert_eq!(wire.windows(END.len()).filter(|window| *window == END).count(), 1, "{}", wire.escape_ascii());
    begin(client);
    client.raw(&wire);
    is_queued(client);
}

/// Waits for so many messages: exactly these have arrived, for nobody but whom the client named, and the next server can see no end in them.
fn one_each(world: &World, messages: usize) -> Vec<Taken> {
    let all = world.taken(messages as u64);
    for taken in &all {
        let shown = || taken.content.escape_ascii();
        assert_eq!(taken.violations, [], "{}", shown());
        assert_eq!(taken.recipients.iter().map(|to| to.as_str()).collect::<Vec<_>>(), ["ann@contoso.com"]);
        assert_eq!(field(taken, "X-Original-Envelope-From"), ["<app@contoso.com>"]);
        let crlfs = taken.content.windows(2).filter(|two| two == b"\r\n").count();
        for octet in [b'\r', b'\n'] {
            assert_eq!(taken.content.iter().filter(|other| **other == octet).count(), crlfs, "a bare line end: {}", shown());
        }
    }
    let counters = world.sim.counters();
    assert_eq!((all.len(), counters.messages, counters.command("MAIL")), (messages, messages as u64, messages as u64));
    assert_eq!((counters.refused(""), counters.violations), (0, BTreeMap::new()));
    assert_eq!(world.relay.logged(|line| line["event"] == "accepted").len(), messages);
    all
}
