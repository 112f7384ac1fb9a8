//! End to end, the ways in: TLS, logins, load balancers, several listeners.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hve_relay::intake::{PasswordHash, UserSettings, Users};
use hve_relay::mail::ClientName;
use hve_relay::secret::Secret;
use support::client::Client;
use support::relay::{PATIENCE, Relay, Setup};
use support::secure::{Secure, Shown, put};
use support::{World, field, mail, until};

const TO: &[&str] = &["you@contoso.com"];
const NAME: &str = "relay.contoso.com";
/// What users log in with; no log may show it.
const PASSWORD: &str = "hunter2 Pa55word";

/// A listener more, with a certificate that the test has made; the second of the relay's addresses.
fn listener(setup: Setup, shown: &Shown, lines: &str) -> Setup {
    shown.install(setup.folder());
    let folder = setup.folder().display().to_string();
    setup.with(&format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\ncertificate_file = \"{folder}/relay.pem\"\nkey_file = \"{folder}/relay.key\"\n{lines}"
    ))
}

/// A user `scan` who sends as the client `erp`, which has no networks.
fn with_user(setup: Setup) -> Setup {
    let hash = PasswordHash::of(&Secret::new(PASSWORD.to_owned()), b"salt for a test").expect("hashed");
    let user = format!("[[user]]\nname = \"scan\"\npassword_hash = \"{}\"\nclient = \"erp\"", hash.as_str());
    setup.with(&user).with("[[client]]\nname = \"erp\"")
}

fn plain(user: &str, password: &str) -> String {
    format!("AUTH PLAIN {}", BASE64.encode(format!("\0{user}\0{password}")))
}

fn second(world: &World) -> SocketAddr {
    world.relay.addresses()[1]
}

#[test]
fn mail_comes_over_starttls_and_over_tls_from_the_start() {
    let shown = Shown::make(NAME);
    let world = World::with(
        1,
        |_| {},
        |setup| {
            let folder = setup.folder().display().to_string();
            let setup = listener(setup, &shown, "tls = \"starttls\"");
            setup.with(&format!(
            "[[listener]]\naddress = \"[::1]:0\"\ntls = \"implicit\"\ncertificate_file = \"{folder}/relay.pem\"\nkey_file = \"{folder}/relay.key\"\n\
             [[client]]\nname = \"itself\"\nnetworks = [\"::1\"]"
        ))
        },
    );
    let addresses = world.relay.addresses();
    let mut over_starttls = Secure::starttls(Client::hello(addresses[1]), NAME, &shown);
    assert!(over_starttls.command("MAIL FROM:<app@contoso.com>").starts_with("503"), "what was said before the handshake is forgotten");
    let offers = over_starttls.command("EHLO mfp.contoso.com");
    assert!(!offers.contains("STARTTLS"), "{offers}");
    let first = over_starttls.accepted("app@contoso.com", TO, &mail("starttls", b"text\r\n"));
    let mut implicit = Secure::connect(addresses[2], NAME, &shown);
    implicit.expect("EHLO mfp.contoso.com", "250");
    // Larger than a TLS record, and than what is read at once.
    let large = "0123456789".repeat(7).into_bytes();
    let large: Vec<u8> = std::iter::repeat_n([&large[..], b"\r\n"].concat(), 10_000).flatten().collect();
    let second = implicit.accepted("app@contoso.com", TO, &mail("implicit", &large));
    implicit.expect("QUIT", "221");
    assert!(implicit.closed());

    let mut taken = world.taken(2);
    taken.sort_by_key(|taken| field(taken, "Subject"));
    assert_eq!(support::body(&taken[0]), large);
    for (taken, id) in taken.iter().zip([&second, &first]) {
        assert!(field(taken, "Received")[0].contains(" with ESMTPS id "), "{:?}", field(taken, "Received"));
        let line = world.relay.wait_for("accepted", |line| line["event"] == "accepted" && line["queue_id"] == id.as_str());
        assert!(line["tls"].as_str().is_some_and(|tls| tls.starts_with("TLSv1.3 TLS13_")), "{line}");
    }
    // The first listener has no TLS to offer.
    Client::hello(addresses[0]).expect("STARTTLS", "502 5.5.1");
}

#[test]
fn what_comes_in_plain_text_behind_starttls_is_not_believed() {
    let shown = Shown::make(NAME);
    let world = World::with(1, |_| {}, |setup| listener(setup, &shown, "tls = \"starttls\""));
    let injected = b"EHLO evil\r\nMAIL FROM:<evil@contoso.com>\r\nRCPT TO:<you@contoso.com>\r\nDATA\r\nSubject: evil\r\n\r\n.\r\n";

    // In one segment with STARTTLS, as somebody on the way would do it.
    let mut client = Client::hello(second(&world));
    client.raw(&[b"STARTTLS\r\n", &injected[..]].concat());
    assert!(client.reply().starts_with("220 2.0.0"));
    assert!(client.reply().starts_with("503 5.5.1 Something came behind STARTTLS"));
    assert!(client.closed());
    world.relay.wait_for("the refusal", |line| {
        line["event"] == "refused" && line["command"].as_str().is_some_and(|what| what.contains("STARTTLS"))
    });

    // After the reply: it belongs to the handshake, and is none.
    let mut client = Client::hello(second(&world));
    client.expect("STARTTLS", "220");
    client.raw(injected);
    client.hang_up();
    let mut rest = Vec::new();
    let mut stream = client.into_stream();
    let _ = stream.read_to_end(&mut rest);
    assert!(!rest.starts_with(b"250"), "{}", rest.escape_ascii());
    world.relay.wait_for("the failure", |line| line["event"] == "tls-failed");

    // Before the handshake in the plain session, then a proper handshake: nothing of it is left.
    let mut client = Client::hello(second(&world));
    client.expect("MAIL FROM:<evil@contoso.com>", "250");
    client.expect("RCPT TO:<you@contoso.com>", "250");
    let mut secure = Secure::starttls(client, NAME, &shown);
    assert!(secure.command("DATA").starts_with("503"));
    assert_eq!(world.relay.logged(|line| line["event"] == "accepted").len(), 0);
}

#[test]
fn where_tls_is_required_nothing_goes_without_it() {
    let shown = Shown::make(NAME);
    let world = World::with(1, |_| {}, |setup| listener(setup, &shown, "tls = \"starttls-required\""));
    let mut client = Client::hello(second(&world));
    client.expect("MAIL FROM:<app@contoso.com>", "530 5.7.0 Say STARTTLS first");
    let mut secure = Secure::starttls(client, NAME, &shown);
    secure.expect("EHLO mfp.contoso.com", "250");
    secure.accepted("app@contoso.com", TO, &mail("required", b"text\r\n"));
    world.taken(1);
}

#[test]
fn a_new_certificate_is_shown_without_a_restart_and_a_broken_one_is_not() {
    let (first, second_one) = (Shown::make(NAME), Shown::make(NAME));
    let world = World::with(1, |_| {}, |setup| listener(setup, &first, "tls = \"implicit\""));
    let address = second(&world);
    let folder = world.setup.folder();
    // The new certificate without its key.
    put(&folder.join("relay.pem"), &second_one.pem);
    until("the complaint", || {
        assert!(Secure::connect(address, NAME, &first).command("NOOP").starts_with("250"));
        !world.relay.logged(|line| line["event"] == "certificate-unusable").is_empty()
    });
    put(&folder.join("relay.key"), &second_one.key_pem);
    // Whoever trusts the new one alone is served from some handshake on.
    until("the new certificate", || Secure::is_shown(address, NAME, &second_one));
    assert!(Secure::connect(address, NAME, &second_one).command("NOOP").starts_with("250"));
    assert_eq!(world.relay.logged(|line| line["event"] == "certificate-unusable").len(), 1, "told once");
    world.relay.wait_for("the renewal", |line| line["event"] == "certificate-renewed");
}

#[test]
fn a_handshake_that_is_not_finished_ends_in_time_and_disturbs_nobody() {
    let shown = Shown::make(NAME);
    let world = World::with(
        1,
        |_| {},
        |setup| listener(setup, &shown, "tls = \"implicit\"").with("[timeouts]\nhandshake = \"1s\"\n[limits]\nsessions_per_address = 30"),
    );
    let address = second(&world);
    let mut half_open: Vec<TcpStream> = (0..20)
        .map(|i| {
            let mut stream = TcpStream::connect(address).expect("the relay listens");
            // The header of a handshake record, and none of what it announces.
            stream.write_all(&b"\x16\x03\x01\x02\x00"[..i % 6]).expect("sent");
            stream.set_read_timeout(Some(PATIENCE)).expect("an option");
            stream
        })
        .collect();
    let mut other = Secure::connect(address, NAME, &shown);
    other.expect("EHLO mfp.contoso.com", "250");
    other.accepted("app@contoso.com", TO, &mail("meanwhile", b"text\r\n"));
    for stream in &mut half_open {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("an orderly end");
        assert_eq!(rest, b"");
    }
    let failed = world.relay.wait_for_all("the failures", 20, |line| line["event"] == "tls-failed");
    assert!(failed[0]["why"].as_str().is_some_and(|why| why.contains("in time")), "{}", failed[0]);
}

#[test]
fn half_open_handshakes_make_room_for_who_has_something_to_say() {
    let shown = Shown::make(NAME);
    let lines = "[timeouts]\nhandshake = \"10m\"\n[limits]\nsessions = 6";
    let world = World::with(1, |_| {}, |setup| listener(setup, &shown, "tls = \"starttls\"").with(lines));
    let mut half_open: Vec<Client> = (0..6)
        .map(|_| {
            let mut client = Client::hello(second(&world));
            client.expect("STARTTLS", "220");
            client.raw(b"\x16\x03\x01");
            client
        })
        .collect();
    let mut client = loop {
        // From another address, for this one has all that one may have.
        let mut client = Client::on(Client::from("127.0.0.2", world.relay.address));
        let greeting = client.reply();
        match greeting.starts_with("220 ") {
            true => break client,
            // As long as a handshake may take a while, it is left alone.
            false => assert!(greeting.starts_with("421 4.7.0 ") && client.closed(), "{greeting}"),
        }
    };
    client.expect("EHLO mfp.contoso.com", "250");
    client.accepted("app@contoso.com", TO, &mail("room", b"text\r\n"));
    world.taken(1);
    assert!(half_open[0].closed());
    let failed = world.relay.wait_for("the failure", |line| line["event"] == "tls-failed");
    assert!(failed["why"].as_str().is_some_and(|why| why.contains("others wait")), "{failed}");
}

#[test]
fn a_user_is_served_from_anywhere_and_nobody_else_is() {
    let shown = Shown::make(NAME);
    let rules = "tls = \"starttls\"\nauth = \"offered\"";
    let world = World::with(1, |_| {}, |setup| with_user(listener(setup.networks("10.20.0.0/16"), &shown, rules)));
    let addresses = world.relay.addresses();
    // Where no login is offered a stranger is a stranger.
    let (_, greeting) = Client::greeted(addresses[0]);
    assert!(greeting.starts_with("554 5.7.1 127.0.0.1 is not a client"), "{greeting}");

    let mut client = Client::connect(addresses[1]);
    let offers = client.command("EHLO app.contoso.com");
    assert!(offers.contains("STARTTLS") && !offers.contains("AUTH"), "{offers}");
    client.expect("MAIL FROM:<app@contoso.com>", "530 5.7.0 Log in first");
    client.expect(&plain("scan", PASSWORD), "538 5.7.11");
    let mut secure = Secure::starttls(client, NAME, &shown);
    let offers = secure.command("EHLO app.contoso.com");
    assert!(offers.contains("\n250-AUTH PLAIN LOGIN\n"), "{offers}");
    secure.expect("MAIL FROM:<app@contoso.com>", "530 5.7.0 Log in first");
    secure.expect(&plain("scan", PASSWORD), "235 2.7.0");
    let id = secure.accepted("app@contoso.com", TO, &mail("login", b"text\r\n"));
    let taken = world.taken(1);
    assert!(field(&taken[0], "Received")[0].contains(" with ESMTPSA id "), "{:?}", field(&taken[0], "Received"));
    let line = world.relay.wait_for("accepted", |line| line["event"] == "accepted" && line["queue_id"] == id.as_str());
    assert_eq!((&line["client"], &line["user"]), (&"erp".into(), &"scan".into()));

    // Step by step, in another case.
    let mut secure = Secure::starttls(Client::hello(addresses[1]), NAME, &shown);
    secure.expect("EHLO app.contoso.com", "250");
    secure.expect("AUTH LOGIN", "334 VXNlcm5hbWU6");
    secure.expect(&BASE64.encode("SCAN"), "334 UGFzc3dvcmQ6");
    secure.expect(&BASE64.encode(PASSWORD), "235 2.7.0");
    secure.accepted("app@contoso.com", TO, &mail("login2", b"text\r\n"));
    world.relay.wait_for("logged in", |line| line["event"] == "logged-in" && line["user"] == "SCAN" && line["client"] == "erp");
}

#[test]
fn failed_logins_are_slowed_counted_and_then_no_longer_heard_and_no_log_has_a_password() {
    let shown = Shown::make(NAME);
    let rules = "tls = \"implicit\"\nauth = \"offered\"";
    let world = World::with(1, |_| {}, |setup| with_user(listener(setup, &shown, rules)).with("[limits]\nlogin_failures = 2"));
    let address = second(&world);
    let mut secure = Secure::connect(address, NAME, &shown);
    secure.expect("EHLO app.contoso.com", "250");
    let begun = Instant::now();
    secure.expect(&plain("scan", "wrong Pa55word"), "535 5.7.8");
    let first = begun.elapsed();
    // The password where the name belongs: a name that nobody has is in no log.
    secure.expect(&plain("hunter2-as-a-name", "x"), "535 5.7.8");
    assert!(first >= Duration::from_millis(500) && begun.elapsed() >= Duration::from_millis(1_500), "{first:?} {:?}", begun.elapsed());
    secure.expect(&plain("scan", PASSWORD), "421 4.7.0 2 logins from 127.0.0.1 have failed");
    assert!(secure.closed());
    let mut secure = Secure::connect(address, NAME, &shown);
    secure.expect("EHLO app.contoso.com", "250");
    // It is a client by its address and goes on without.
    secure.accepted("app@contoso.com", TO, &mail("still", b"text\r\n"));
    // From another address the same user logs in.
    let other = Secure::handshake(Client::from("127.0.0.2", address), NAME, &shown);
    let mut other = other;
    assert!(other.reply().starts_with("220"));
    other.expect("EHLO app.contoso.com", "250");
    other.expect(&plain("scan", PASSWORD), "235");

    let failed = world.relay.wait_for_all("the failures", 2, |line| line["event"] == "login-failed");
    assert_eq!((&failed[0]["user"], &failed[0]["failures"]), (&"scan".into(), &1.into()));
    assert_eq!((&failed[1]["user"], &failed[1]["failures"]), (&"".into(), &2.into()));
    let log = world.relay.log_text();
    for secret in ["hunter2", "Pa55word", "aHVudGVyMg", "argon2"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

/// Names could be tried if it took less to refuse those that nobody has.
#[test]
fn an_unknown_name_costs_what_a_wrong_password_costs() {
    let user = |name: &str| {
        let password = PasswordHash::of(&Secret::new(PASSWORD.to_owned()), b"salt for a test").expect("hashed");
        UserSettings { name: name.to_owned(), password, client: ClientName::new("erp") }
    };
    let users = Users::new(vec![user("scan"), user("erp")]);
    let wrong = Secret::new("wrong".to_owned());
    let once = |name: &str| {
        let begun = Instant::now();
        assert_eq!(users.verify(name, &wrong), None);
        begun.elapsed()
    };
    // In turns, so that whatever else the machine does slows both down.
    let (known, unknown): (Vec<Duration>, Vec<Duration>) = (0..15).map(|_| (once("scan"), once("nobody"))).unzip();
    let [known, unknown] = [known, unknown].map(|times| times.into_iter().min().expect("fifteen"));
    assert!(unknown * 3 > known && known * 3 > unknown, "{known:?} {unknown:?}");
}

#[test]
fn a_device_without_tls_logs_in_where_its_client_may() {
    let world = World::with(
        1,
        |_| {},
        |setup| {
            let setup = with_user(setup.client("allow_plaintext_auth = true"));
            setup.with("[[listener]]\naddress = \"127.0.0.1:0\"\nauth = \"required\"")
        },
    );
    let mut client = Client::connect(second(&world));
    assert!(client.command("EHLO mfp.contoso.com").contains("AUTH PLAIN LOGIN"));
    client.expect("MAIL FROM:<scanner@contoso.com>", "530 5.7.0 Log in first");
    client.expect(&plain("scan", PASSWORD), "235");
    client.accepted("scanner@contoso.com", TO, &mail("plaintext", b"text\r\n"));
    assert!(field(&world.taken(1)[0], "Received")[0].contains(" with ESMTPA id "));
}

/// What a balancer sends for a connection from `client`.
fn version_2(client: [u8; 4]) -> Vec<u8> {
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..], &client, &[10, 0, 0, 1, 0xc8, 0x22, 0, 25]].concat()
}

#[test]
fn a_balancer_says_whose_connection_it_passes_on() {
    let shown = Shown::make(NAME);
    let world = World::with(
        1,
        |_| {},
        |setup| {
            let folder = setup.folder().display().to_string();
            listener(setup.networks("10.20.0.0/16"), &shown, "proxy_from = [\"127.0.0.1\"]\ntls = \"starttls\"").with(&format!(
                "[[listener]]\naddress = \"127.0.0.1:0\"\nproxy_from = [\"127.0.0.1\"]\ntls = \"implicit\"\n\
             certificate_file = \"{folder}/relay.pem\"\nkey_file = \"{folder}/relay.key\"\n\
             [limits]\nsessions_per_address = 2\n[timeouts]\nhandshake = \"1s\""
            ))
        },
    );
    let addresses = world.relay.addresses();
    let passed_on = |header: &[u8]| {
        let mut stream = TcpStream::connect(addresses[1]).expect("the relay listens");
        stream.write_all(header).expect("sent");
        Client::on(stream)
    };
    for (header, subject) in [(b"PROXY TCP4 10.20.1.7 10.0.0.1 51234 25\r\n".to_vec(), "v1"), (version_2([10, 20, 1, 8]), "v2")] {
        // A client that talks at once, behind the header in the same segment.
        let mut client = passed_on(&[&header[..], b"EHLO mfp.contoso.com\r\n"].concat());
        assert!(client.reply().starts_with("220 "));
        assert!(client.reply().starts_with("250-"));
        client.accepted("app@contoso.com", TO, &mail(subject, b"text\r\n"));
    }
    let peers = |subject: &str| {
        let taken = world.taken(2);
        let taken = taken.iter().find(|taken| field(taken, "Subject") == [subject]).expect("it arrived").clone();
        field(&taken, "Received")[0].clone()
    };
    assert!(peers("v1").contains("[10.20.1.7]") && peers("v2").contains("[10.20.1.8]"), "{} {}", peers("v1"), peers("v2"));

    // Under TLS from the first octet on.
    let mut stream = TcpStream::connect(addresses[2]).expect("the relay listens");
    stream.write_all(&version_2([10, 20, 1, 9])).expect("sent");
    let mut secure = Secure::handshake(stream, NAME, &shown);
    assert!(secure.reply().starts_with("220 "));

    // The client's address decides who is served, and is counted; the balancer's own is no client.
    assert!(passed_on(b"PROXY TCP4 192.0.2.7 10.0.0.1 1 25\r\n").reply().starts_with("554 5.7.1 192.0.2.7 is not a client"));
    assert!(passed_on(b"PROXY UNKNOWN\r\n").reply().starts_with("554 5.7.1 127.0.0.1 is not a client"));
    let mut held: Vec<Client> = (0..2).map(|_| passed_on(&version_2([10, 20, 1, 10]))).collect();
    assert!(held.iter_mut().all(|client| client.reply().starts_with("220 ")));
    assert!(passed_on(&version_2([10, 20, 1, 10])).reply().starts_with("421 4.7.0 10.20.1.10 has 2 sessions open"));
    assert!(passed_on(&version_2([10, 20, 1, 11])).reply().starts_with("220 "));

    // Without a header nothing is said, in time; and from somebody else a header is no command.
    for wrong in [&b""[..], b"EHLO mfp.contoso.com, which is no header\r\n", b"PROXY TCP4 10.20.1.7\r\n", &b"x".repeat(5_000)] {
        let mut stream = TcpStream::connect(addresses[1]).expect("the relay listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        let _ = stream.write_all(wrong);
        let mut said = Vec::new();
        // What was not read resets the connection; nobody listens at its other end.
        let _ = stream.read_to_end(&mut said);
        assert_eq!(said, b"", "{}", wrong.escape_ascii());
    }
    world.relay.wait_for_all("the failures", 4, |line| line["event"] == "proxy-failed" && line["peer"] == "127.0.0.1");
    let (mut other, greeting) = Client::greeted(addresses[0]);
    assert!(greeting.starts_with("554 5.7.1 127.0.0.1"), "{greeting}");
    assert!(other.closed());
}

#[test]
fn a_header_from_somebody_who_is_no_balancer_is_an_unknown_command() {
    let world = World::with(1, |_| {}, |setup| setup.with("[[listener]]\naddress = \"127.0.0.1:0\"\nproxy_from = [\"127.0.0.9\"]"));
    let mut client = Client::connect(second(&world));
    client.expect("PROXY TCP4 10.20.1.7 10.0.0.1 51234 25", "500 5.5.1");
    client.expect("EHLO mfp.contoso.com", "250-relay.contoso.com Hello 127.0.0.1");
}

#[test]
fn each_listener_serves_its_own_clients() {
    let world = World::with(
        1,
        |_| {},
        |setup| {
            setup.with(
                "[[client]]\nname = \"erp\"\nnetworks = [\"127.0.0.2\"]\n[[listener]]\naddress = \"127.0.0.1:0\"\nclients = [\"erp\"]",
            )
        },
    );
    let address = second(&world);
    let (_, greeting) = Client::greeted(address);
    assert!(greeting.starts_with("554 5.7.1 The client devices is not served on this port"), "{greeting}");
    Client::hello_from("127.0.0.2", address).accepted("app@contoso.com", TO, &mail("erp", b"text\r\n"));
    Client::hello(world.relay.address).accepted("app@contoso.com", TO, &mail("devices", b"text\r\n"));
    world.taken(2);
}

fn run(args: &[&str], input: &str) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hve-relay"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // Whoever says no before reading is right too.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let out = child.wait_with_output().expect("it ends");
    let text = |octets: Vec<u8>| String::from_utf8(octets).expect("text");
    (out.status.code().expect("a status"), text(out.stdout), text(out.stderr))
}

#[test]
fn the_hash_that_the_command_prints_lets_the_user_in() {
    let (status, hash, said) = run(&["password"], &format!("{PASSWORD}\n"));
    assert_eq!((status, said.as_str()), (0, ""));
    let password = PasswordHash::parse(hash.trim_end()).expect("a hash");
    let users = Users::new(vec![UserSettings { name: "scan".to_owned(), password, client: ClientName::new("erp") }]);
    assert!(users.verify("scan", &Secret::new(PASSWORD.to_owned())).is_some());
    assert_ne!(run(&["password"], &format!("{PASSWORD}\n")).1, hash, "each has a salt of its own");
    let (status, hash, said) = run(&["password"], "\n");
    assert_eq!((status, hash.as_str()), (64, ""));
    assert!(said.contains("an empty password is none"), "{said}");
}

#[test]
fn the_end_of_a_certificate_is_announced_to_operators_with_all_that_needs_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let make = |days: &str| {
        let out = folder.path().join(days).display().to_string();
        std::fs::create_dir(&out).expect("made");
        let (status, files, said) = run(&["certificate", "--name", NAME, "--days", days, "--out", &out], "");
        assert_eq!(status, 0, "{said}");
        files
    };
    let (soon, later) = (make("6"), make("60"));
    let mut world = World::with(
        1,
        |_| {},
        |setup| {
            setup
                .with(&format!("[admin]\nlisten = \"127.0.0.1:0\"\n{soon}"))
                .with(&format!("[[listener]]\naddress = \"127.0.0.1:0\"\ntls = \"starttls\"\n{soon}"))
                .with(&format!("[[listener]]\naddress = \"127.0.0.1:0\"\ntls = \"implicit\"\n{later}"))
        },
    );
    let file = folder.path().join("6/relay.pem").display().to_string();
    let ends = world.relay.wait_for("the announcement", |line| line["event"] == "credential-ends");
    assert_eq!((&ends["level"], &ends["name"], &ends["days"]), (&"ERROR".into(), &file.as_str().into(), &6.into()));
    // As the configuration has them: port 0 is whichever is free.
    assert_eq!(ends["used_by"], "listener 127.0.0.1:0, page 127.0.0.1:0");
    let alarm = world.relay.wait_for("the alarm", |line| line["event"] == "alarm-raised");
    assert_eq!(alarm["alarm"], format!("certificate-ending {file}"));
    let why = alarm["why"].as_str().unwrap_or_default();
    assert!(
        why.contains("within 6 days; then clients that look at it send nothing to 127.0.0.1:0, browsers warn of the page. Put"),
        "{why}"
    );
    let (status, _, said) = run(&["check", "--config", &world.setup.write().display().to_string()], "");
    assert_eq!((status, said.matches("6/relay.pem ends within 6 days, on ").count()), (0, 2), "{said}");
    assert!(!said.contains("60/relay.pem"), "{said}");

    // It is looked at once an hour, and at a reload.
    let replace = |days: &str| {
        for name in ["relay.pem", "relay.key"] {
            std::fs::copy(folder.path().join(days).join(name), folder.path().join("6").join(name)).expect("put in its place");
        }
    };
    let cleared = |line: &serde_json::Value| line["event"] == "alarm-cleared" && line["alarm"] == alarm["alarm"];
    make("5");
    replace("60");
    world.relay.signal("HUP");
    world.relay.wait_for("its end", cleared);

    // And whoever does without it after a restart hears no more of it.
    replace("5");
    world.relay.signal("HUP");
    world.relay.wait_for_all("the alarm again", 2, |line| line["event"] == "alarm-raised");
    let queue = rusqlite::Connection::open(world.setup.data_dir().join("queue.db")).expect("the queue");
    let kept = || queue.query_row("SELECT count(*) FROM alarm WHERE cleared IS NULL", [], |row| row.get::<_, i64>(0));
    until("the alarm is kept", || kept().expect("read") == 1);
    drop(queue);
    world.relay.signal("TERM");
    assert!(world.relay.ended().success());
    let config = world.setup.write();
    let without = std::fs::read_to_string(&config).expect("read").replace(&soon, "").replace("tls = \"starttls\"", "tls = \"none\"");
    std::fs::write(&config, without).expect("written");
    world.relay = Relay::start(&config);
    world.relay.wait_for("its end", cleared);
}

#[test]
fn a_certificate_that_the_command_makes_can_be_used_and_is_never_overwritten() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().to_str().expect("UTF-8");
    let (status, said, _) = run(&["certificate", "--name", NAME, "--name", "127.0.0.1", "--out", out], "");
    assert_eq!(status, 0);
    assert!(said.contains(&format!("certificate_file = \"{out}/relay.pem\"\nkey_file = \"{out}/relay.key\"")), "{said}");
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("a file");
    let (pem, key_pem) = (read("relay.pem"), read("relay.key"));
    let certificate = rustls::pki_types::pem::PemObject::from_pem_slice(pem.as_bytes()).expect("PEM");
    let shown = Shown { certificate, pem, key_pem };
    let world = World::with(1, |_| {}, |setup| setup.with(&format!("[[listener]]\naddress = \"127.0.0.1:0\"\ntls = \"implicit\"\n{said}")));
    for name in [NAME, "127.0.0.1"] {
        assert!(Secure::is_shown(second(&world), name, &shown), "{name}");
    }
    assert!(!Secure::is_shown(second(&world), "other.contoso.com", &shown));
    let (status, _, said) = run(&["certificate", "--name", NAME, "--out", out], "");
    assert_eq!(status, 74);
    assert!(said.contains("relay.key"), "{said}");
    assert_eq!(read("relay.pem"), shown.pem);
    assert_eq!(run(&["certificate", "--name", "not a name", "--out", out], "").0, 64);
}

/// Programs that people really send mail with.
#[test]
fn python_and_curl_log_in_over_tls() {
    let shown = Shown::make("localhost");
    let rules = "tls = \"starttls\"\nauth = \"required\"";
    let world = World::with(1, |_| {}, |setup| with_user(listener(setup, &shown, rules)));
    let (address, folder) = (second(&world), world.setup.folder());
    let port = address.port().to_string();
    let script = r#"
import smtplib, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2])
s = smtplib.SMTP("localhost", int(sys.argv[1]), timeout=60)
s.starttls(context=context)
try:
    s.login("scan", "wrong"); sys.exit("logged in with a wrong password")
except smtplib.SMTPAuthenticationError as e:
    assert e.smtp_code == 535, e
s.login("scan", sys.argv[3])
s.sendmail("app@contoso.com", "ann@contoso.com", "Subject: python\n\ntext\n")
s.quit()
"#;
    let ca = folder.join("relay.pem").display().to_string();
    let url = format!("smtp://localhost:{port}");
    let login = format!("scan:{PASSWORD}");
    let programs: [(&str, Vec<&str>, &str); 2] = [
        ("python3", vec!["-", &port, &ca, PASSWORD], script),
        (
            "curl",
            vec![
                "--silent",
                "--show-error",
                "--ssl-reqd",
                "--cacert",
                &ca,
                "--user",
                &login,
                "--mail-from",
                "app@contoso.com",
                "--mail-rcpt",
                "ann@contoso.com",
                "--upload-file",
                "-",
                &url,
            ],
            "Subject: curl\r\n\r\ntext\r\n",
        ),
    ];
    let mut sent = 0;
    for (program, args, input) in programs {
        let Ok(mut child) = Command::new(program).args(&args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
        else {
            println!("{program} is not installed and so was not tried; tests/run installs it");
            continue;
        };
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
        let out = child.wait_with_output().expect("it ends");
        let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{program}: {said}");
        sent += 1;
    }
    for taken in world.taken(sent) {
        assert!(field(&taken, "Received")[0].contains(" with ESMTPSA id "), "{:?}", field(&taken, "Received"));
    }
}
