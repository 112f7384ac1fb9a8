//! End to end: what a client may do and how much of it, and what it does otherwise than it should.

mod support;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::client::Client;
use support::relay::Relay;
use support::{World, mail};

const TO: &[&str] = &["ann@contoso.com"];

/// A relay whose one client has these lines in its configuration.
fn world(lines: &[&str]) -> World {
    World::with(1, |_| {}, |setup| lines.iter().fold(setup, |setup, line| setup.client(line)))
}

fn config(world: &World) -> PathBuf {
    world.setup.folder().join("hve-relay.toml")
}

fn said(world: &World, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_hve-relay"))
        .args(arguments)
        .arg("--config")
        .arg(config(world))
        .stdin(Stdio::null())
        .output()
        .expect("the binary");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The habits of the one client: name and count.
fn habits(world: &World) -> Vec<(String, u64)> {
    let clients: Value = serde_json::from_str(&said(world, &["clients", "--json"])).expect("JSON");
    assert_eq!(clients["clients"].as_array().map(Vec::len), Some(1));
    let habits = clients["clients"][0]["habits"].as_array().expect("habits");
    habits.iter().map(|habit| (habit["habit"].as_str().expect("a name").to_owned(), habit["count"].as_u64().expect("a count"))).collect()
}

#[test]
fn what_devices_do_is_counted_and_shown_and_told_once() {
    let world = world(&[]);
    assert_eq!(habits(&world), []);
    for _ in 0..3 {
        let mut client = Client::connect(world.relay.address);
        client.raw(b"HELO\n");
        assert!(client.reply().starts_with("250 "));
        client.expect("MAIL FROM: <scanner>", "250");
        client.expect("RCPT TO:<ann@contoso.com>", "250");
        client.expect("DATA", "354");
        client.raw(&[b"Subject: scan\n\n\0K\xe4se ", "x".repeat(1_000).as_bytes(), b"\r\n.\r\n"].concat());
        assert!(client.reply().starts_with("250 2.0.0 "));
        client.hang_up();
        assert!(client.closed());
    }
    let names = [
        "bare-lf-in-commands",
        "bare-line-ends",
        "no-helo-name",
        "loose-paths",
        "no-domain",
        "no-quit",
        "no-date",
        "no-from",
        "no-message-id",
        "long-lines",
        "nul",
        "undeclared-8bit",
    ];
    assert_eq!(habits(&world), names.map(|name| (name.to_owned(), 3)));
    let shown = said(&world, &["clients"]);
    for part in ["devices", "127.0.0.0/8", "NUL in content: 3 since ", "last from 127.0.0.1 at "] {
        assert!(shown.contains(part), "{shown}");
    }
    let told = world.relay.logged(|line| line["event"] == "habit");
    let mut told: Vec<&str> = told.iter().map(|line| line["habit"].as_str().expect("a name")).collect();
    told.sort_unstable();
    let mut names = names;
    names.sort_unstable();
    assert_eq!(told, names);
    // It goes all the same, with what was missing.
    for taken in world.taken(3) {
        assert_eq!(taken.violations, []);
    }
}

#[test]
fn what_was_counted_outlives_a_restart_until_it_is_to_be_forgotten() {
    let mut world = world(&[]);
    let bare = |world: &World| {
        let mut client = Client::hello(world.relay.address);
        client.raw(b"NOOP\n");
        assert!(client.reply().starts_with("250 "));
        client.expect("QUIT", "221");
        assert!(client.closed());
    };
    let since = |world: &World| {
        let clients: Value = serde_json::from_str(&said(world, &["clients", "--json"])).expect("JSON");
        clients["since"].as_str().expect("a time").to_owned()
    };
    bare(&world);
    bare(&world);
    let began = since(&world);
    let restart = |world: &mut World| {
        world.relay.signal("TERM");
        assert!(world.relay.ended().success());
        world.relay = Relay::start(&config(world));
    };
    restart(&mut world);
    bare(&world);
    assert_eq!(habits(&world), [("bare-lf-in-commands".to_owned(), 3)]);
    assert_eq!(since(&world), began);
    assert!(world.relay.logged(|line| line["event"] == "habit").is_empty(), "told today already");

    let shown = said(&world, &["clients", "--forget"]);
    assert!(shown.contains("bare LF behind commands: 3 since ") && shown.contains("counted anew"), "{shown}");
    world.relay.wait_for("the word", |line| line["event"] == "habits-forgotten");
    assert_eq!(habits(&world), []);
    let began_anew = since(&world);
    assert_ne!(began_anew, began);
    // At once and for good.
    world.relay.kill();
    world.relay = Relay::start(&config(&world));
    assert_eq!((habits(&world), since(&world)), (Vec::new(), began_anew));

    world.relay.kill();
    std::fs::write(world.setup.data_dir().join("habits.json"), "{").expect("written");
    world.relay = Relay::start(&config(&world));
    world.relay.wait_for("the complaint", |line| line["event"] == "counts-unreadable");
    assert_eq!(habits(&world), []);
}

#[test]
fn a_message_of_another_author_than_the_client_may_send_is_refused_at_its_end() {
    let world = world(&["required_from_domain = \"contoso.com\"", "allowed_senders = [\"app@contoso.com\"]"]);
    let mut client = world.client();
    let from = |from: &str| format!("From: {from}\r\nSubject: x\r\n\r\ntext\r\n").into_bytes();
    for (sender, header, reply) in [
        ("app@contoso.com", from("Boss <boss@evil.example>"), "550 5.7.1 The message's From has an author of evil.example,"),
        ("app@contoso.com", from("a@contoso.com, b@evil.example"), "550 5.7.1 "),
        ("app@contoso.com", from("\"a@contoso.com\" <b@evil.example>"), "550 5.7.1 "),
        ("app@contoso.com", from("a@contoso.com\r\nFrom: b@evil.example"), "550 5.7.1 "),
        ("app@contoso.com", from("Scanner"), "550 5.7.1 The message's From has an author without an address,"),
        ("app@contoso.com", from("Somebody <else@contoso.com>"), "250 2.0.0 "),
        ("", from("Somebody <else@contoso.com>"), "550 5.7.1 MAIL FROM is <> and the message is from else@contoso.com,"),
        ("", from("App <App@contoso.com>"), "250 2.0.0 "),
        // A message without From is its sender's.
        ("app@contoso.com", b"Subject: x\r\n\r\ntext\r\n".to_vec(), "250 2.0.0 "),
    ] {
        let got = client.send(sender, TO, &header);
        assert!(got.starts_with(reply), "<{sender}> {}: {got}", header.escape_ascii());
    }
    client.expect("MAIL FROM:<boss@contoso.com>", "550 5.7.1 ");
    client.expect("QUIT", "221");
    // Nothing else was kept: what was refused at its end is not delivered either.
    world.taken(3);
    assert_eq!(world.relay.logged(|line| line["event"] == "accepted").len(), 3);
    world.relay.stop();
}

#[test]
fn a_client_that_connects_too_often_is_sent_away_at_the_door() {
    let world = world(&["connections_per_minute = 2"]);
    for _ in 0..2 {
        world.client().expect("QUIT", "221");
    }
    let (mut client, greeting) = Client::greeted(world.relay.address);
    assert!(greeting.starts_with("421 4.7.0 Client \"devices\" has had the 2 connections "), "{greeting}");
    assert!(greeting.contains("(connections_per_minute): try again in "), "{greeting}");
    assert!(client.closed());
    let line = world.relay.wait_for("the refusal", |line| line["event"] == "connection-refused");
    assert_eq!(line["reply"], greeting);
}

#[test]
fn a_client_over_its_rates_is_told_to_come_again() {
    let world = world(&["messages_per_minute = 2", "recipients_per_minute = 2"]);
    let mut client = world.client();
    client.accepted("app@contoso.com", TO, &mail("first", b"text\r\n"));
    client.expect("MAIL FROM:<app@contoso.com>", "250");
    client.expect("RCPT TO:<ann@contoso.com>", "250");
    client.expect("RCPT TO:<bob@contoso.com>", "452 4.5.3 Client \"devices\" has had the 2 recipients ");
    client.expect("DATA", "354");
    client.raw(b"Subject: second\r\n\r\n.\r\n");
    assert!(client.reply().starts_with("250 2.0.0 "));
    // A connection of its own is the same client's.
    world.client().expect("MAIL FROM:<app@contoso.com>", "451 4.7.1 Client \"devices\" has had the 2 messages ");
    world.taken(2);
}

#[test]
fn check_tells_which_client_decides_where_networks_overlap() {
    let world =
        World::with(1, |_| {}, |setup| setup.with("[[client]]\nname = \"printers\"\nnetworks = [\"127.0.30.0/24\", \"10.0.0.0/8\"]\n"));
    let shown = said(&world, &["check"]);
    let overlaps: Vec<&str> = shown.lines().filter(|line| line.contains(" lies in ")).collect();
    assert_eq!(overlaps, ["127.0.30.0/24 lies in 127.0.0.0/8 of client \"devices\": connections from there are client \"printers\""]);
}
