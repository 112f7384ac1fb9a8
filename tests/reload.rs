//! Another configuration while the real relay runs: what changes, what goes on, and that nothing is dropped or lost by it.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use hve_relay::intake::PasswordHash;
use hve_relay::secret::Secret;
use hve_relay::sim::{Limits, Senders, Settings, Sim};
use serde_json::Value;
use support::client::Client;
use support::http::{Answer, Events, get, post, request_over_tls};
use support::relay::{PATIENCE, Relay, Setup};
use support::secure::{Secure, Shown, put};
use support::{PASSWORD, World, account, body, endpoint, mail, runtime, setup, until};

const BINARY: &str = env!("CARGO_BIN_EXE_hve-relay");
const TO: &[&str] = &["you@contoso.com"];
const OUTSIDE: &[&str] = &["them@fabrikam.example"];

/// A relay whose configuration is edited.
struct Reloading {
    world: World,
    config: PathBuf,
}

impl Reloading {
    fn new(accounts: usize, adapt: impl FnOnce(Setup) -> Setup) -> Self {
        let world = World::with(accounts, |_| {}, adapt);
        let config = world.setup.folder().join("hve-relay.toml");
        Self { world, config }
    }

    /// Writes other words into the configuration.
    fn edit(&self, from: &str, to: &str) {
        edit(&self.config, from, to);
    }

    /// Has the relay reload; it must be content with the configuration.
    fn reload(&self) -> Value {
        let said = reload(&self.config);
        assert!(said.status.success(), "{said:?}\n{}", self.world.relay.log_text());
        serde_json::from_slice(&said.stdout).expect("JSON")
    }

    /// Has the relay reload; it must refuse, and say why.
    fn refused(&self, why: &str) {
        let said = reload(&self.config);
        let text = String::from_utf8_lossy(&said.stderr);
        assert_eq!(said.status.code(), Some(78), "{text}");
        assert!(text.contains(why) && text.contains("nothing has changed"), "{text}");
        self.world.relay.wait_for("reload-failed", |line| {
            line["event"] == "reload-failed" && line["problem"].as_str().is_some_and(|problem| problem.contains(why))
        });
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        Command::new(BINARY).args(arguments).arg("--config").arg(&self.config).output().expect("the binary runs")
    }

    fn folder(&self) -> &Path {
        self.world.setup.folder()
    }

    fn sent(&self, client: &mut Client, to: &[&str], subject: &str) -> String {
        client.accepted("app@contoso.com", to, &mail(subject, b"text\r\n"))
    }
}

/// Where it listens, as it says.
fn listens(reloaded: &Value) -> Vec<SocketAddr> {
    let address = |address: &Value| address.as_str().expect("a text").parse().expect("an address");
    reloaded["listeners"].as_array().expect("a list").iter().map(address).collect()
}

fn edit(config: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(config).expect("a configuration");
    assert!(text.contains(from), "{from:?} is not in {text}");
    fs::write(config, text.replacen(from, to, 1)).expect("written");
}

fn reload(config: &Path) -> Output {
    Command::new(BINARY).args(["reload", "--json", "--config"]).arg(config).output().expect("the binary runs")
}

/// Ends what the others do, also when a test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn every_kind_of_change_under_load_drops_no_session_and_loses_no_mail() {
    let relay = Reloading::new(3, |setup| setup);
    let stop = AtomicBool::new(false);
    let sent: BTreeSet<String> = thread::scope(|scope| {
        let (address, ending) = (relay.world.relay.address, Stop(&stop));
        let senders: Vec<_> = (0..4)
            .map(|sender| {
                let stop = &stop;
                scope.spawn(move || {
                    // One session for all of it.
                    let (mut client, mut sent) = (Client::hello(address), BTreeSet::new());
                    while !stop.load(Ordering::Relaxed) {
                        let text = format!("{sender}-{}", sent.len());
                        client.accepted("app@contoso.com", TO, &mail(&text, format!("{text}\r\n").as_bytes()));
                        sent.insert(text);
                    }
                    client.expect("QUIT", "221");
                    sent
                })
            })
            .collect();
        let password = relay.world.setup.folder().join("account2.password");
        let third = format!("[[account]]\naddress = \"{}\"\npassword_file = \"{}\"\n", account(3), password.display());
        let listener = "[[listener]]\naddress = \"127.0.0.1:0\"\n";
        let steps: [(&str, &str); 16] = [
            (&third, ""),
            ("[queue]\n", "[account_limits]\nrecipients_per_day = 50000\n[queue]\n"),
            ("[queue]\n", &format!("{third}connections = 1\n[queue]\n")),
            ("recipients_per_day = 50000", "recipients_per_day = 90000"),
            (listener, &format!("{listener}{listener}")),
            ("networks = [\"127.0.0.0/8\"]\n", "networks = [\"127.0.0.0/8\"]\nweight = 3\naffinity = \"none\"\n"),
            (&format!("{listener}{listener}"), listener),
            ("[[route]]\n", "[[client]]\nname = \"erp\"\nnetworks = [\"10.0.0.0/8\"]\n[[route]]\n"),
            ("hostname = \"relay.contoso.com\"", "hostname = \"other.contoso.com\""),
            ("weight = 3\n", "weight = 0\n"),
            ("weight = 0\n", "weight = 1\n"),
            ("[queue]\n", "[upstream]\nidle = \"1s\"\n[queue]\n"),
            ("[queue]\n", "[history]\nkeep = \"none\"\n[queue]\n"),
            ("keep = \"none\"", "keep = \"1d\""),
            ("listen = \"none\"", "listen = \"127.0.0.1:0\""),
            ("listen = \"127.0.0.1:0\"", "listen = \"none\""),
        ];
        for (from, to) in steps {
            // Mail flows between two changes.
            let taken = relay.world.sim.counters().messages;
            relay.world.taken(taken + 20);
            relay.edit(from, to);
            let said = reload(&relay.config);
            let wanted = if to == "weight = 0\n" { 78 } else { 0 };
            assert_eq!(said.status.code(), Some(wanted), "{to}: {said:?}");
        }
        drop(ending);
        senders.into_iter().flat_map(|sender| sender.join().expect("no session is dropped")).collect()
    });
    let taken = relay.world.taken(sent.len() as u64);
    let mut bodies: Vec<String> = taken.iter().map(|taken| String::from_utf8_lossy(body(taken)).trim().to_owned()).collect();
    bodies.sort();
    assert_eq!(bodies, sent.into_iter().collect::<Vec<_>>(), "each once");
    assert_eq!(relay.world.relay.logged(|line| line["event"] == "reloaded").len(), 15);
}

#[test]
fn a_listener_that_is_gone_accepts_nobody_and_its_sessions_go_on() {
    let relay = Reloading::new(1, |setup| setup);
    let listener = "[[listener]]\naddress = \"127.0.0.1:0\"\n";
    relay.edit(listener, &format!("{listener}{listener}"));
    let listens = listens(&relay.reload());
    assert_eq!((listens.len(), listens[0]), (2, relay.world.relay.address), "the first stays where it is");
    let (mut first, mut second) = (Client::hello(listens[0]), Client::hello(listens[1]));
    relay.edit(&format!("{listener}{listener}"), listener);
    assert_eq!(self::listens(&relay.reload()), [listens[0]]);
    until("the end of the listener", || TcpStream::connect(listens[1]).is_err());
    for client in [&mut first, &mut second] {
        relay.sent(client, TO, "goes-on");
        client.expect("QUIT", "221");
    }
    relay.world.taken(2);
}

#[test]
fn a_session_keeps_to_the_rules_with_which_it_began_and_the_next_one_has_the_new() {
    let relay = Reloading::new(1, |setup| setup);
    let shown = Shown::make("relay.contoso.com");
    shown.install(relay.world.setup.folder());
    let mut old = Client::hello(relay.world.relay.address);
    let folder = relay.world.setup.folder().display().to_string();
    let tls = format!("tls = \"starttls\"\ncertificate_file = \"{folder}/relay.pem\"\nkey_file = \"{folder}/relay.key\"\n");
    relay.edit("[[client]]\n", &format!("{tls}[[client]]\n"));
    relay.edit("networks = [\"127.0.0.0/8\"]", "networks = [\"127.0.0.2/32\"]");
    relay.reload();
    let (_, greeting) = Client::greeted(relay.world.relay.address);
    assert!(greeting.starts_with("554 5.7.1"), "{greeting}");
    relay.sent(&mut old, TO, "as-before");
    let plain = Client::hello_from("127.0.0.2", relay.world.relay.address);
    let mut secure = Secure::starttls(plain, "relay.contoso.com", &shown);
    secure.expect("EHLO scanner.contoso.com", "250");
    secure.accepted("app@contoso.com", TO, &mail("as-now", b"text\r\n"));
    relay.world.taken(2);

    // A certificate that has taken the place of another is shown at once.
    let other = Shown::make("relay.contoso.com");
    other.install(relay.world.setup.folder());
    relay.reload();
    let mut secure = Secure::starttls(Client::hello_from("127.0.0.2", relay.world.relay.address), "relay.contoso.com", &other);
    secure.expect("EHLO scanner.contoso.com", "250");
}

#[test]
fn a_bad_file_changes_nothing_and_all_its_problems_are_told() {
    let relay = Reloading::new(1, |setup| setup);
    relay.edit("accepted_domains = [\"contoso.com\"]", "accepted_domains = [\"fabrikam.example\"]\nacepted_domains = 3");
    relay.edit("retry_min = \"100ms\"", "retry_min = \"soon\"");
    let said = reload(&relay.config);
    let text = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(78), "{text}");
    assert!(text.contains("acepted_domains") && text.contains("retry_min") && text.contains("nothing has changed"), "{text}");
    let failed = relay.world.relay.wait_for_all("problems", 2, |line| line["event"] == "reload-failed");
    assert!(failed[0]["problem"].as_str().expect("a text").contains("hve-relay.toml:"), "{failed:?}");
    assert!(failed.iter().all(|line| line["by"].as_str().expect("a text").starts_with("uid ")), "{failed:?}");
    // What was right in it is not in force either.
    let mut client = relay.world.client();
    relay.sent(&mut client, TO, "as-before");
    assert_eq!(relay.world.taken(1)[0].recipients[0].to_string(), "you@contoso.com");

    relay.world.relay.signal("HUP");
    let failed = relay.world.relay.wait_for_all("problems", 4, |line| line["event"] == "reload-failed");
    assert_eq!(failed[3]["by"], "SIGHUP");
    assert!(relay.world.relay.logged(|line| line["event"] == "reloaded").is_empty());
}

#[test]
fn what_cannot_change_is_refused_in_words() {
    let relay = Reloading::new(1, |setup| setup);
    let socket = relay.world.setup.data_dir().join("control.sock");
    relay.edit("/data\"", "/elsewhere\"");
    let said = Command::new(BINARY).args(["reload", "--socket"]).arg(&socket).output().expect("the binary runs");
    let text = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(78), "{text}");
    assert!(text.contains("data_dir: ") && text.contains("/elsewhere in place of") && text.contains("needs a restart"), "{text}");
    assert!(!relay.world.setup.folder().join("elsewhere").exists());
    relay.edit("/elsewhere\"", "/data\"");

    // An address that somebody else listens on.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound");
    relay.edit("[[client]]\n", &format!("[[listener]]\naddress = \"{address}\"\n[[client]]\n"));
    let said = reload(&relay.config);
    let text = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(78), "{text}");
    assert!(text.contains(&format!("cannot listen on {address}")), "{text}");
    drop(taken);
    assert_eq!(listens(&relay.reload())[1], address);
}

#[test]
fn changed_limits_keep_what_is_used_also_of_an_account_that_comes_back() {
    let relay = Reloading::new(1, |setup| setup.with("[account_limits]\nrecipients_per_day = 2"));
    let mut client = relay.world.client();
    (0..4).for_each(|n| drop(relay.sent(&mut client, TO, &format!("m{n}"))));
    relay.world.taken(2);
    relay.edit("recipients_per_day = 2", "recipients_per_day = 3");
    relay.reload();
    relay.world.taken(3);
    relay.edit("recipients_per_day = 3", "recipients_per_day = 1");
    relay.reload();
    // The account goes and another takes its place; when it comes back, its day is as used as it was.
    let (folder, first) = (relay.world.setup.folder().display().to_string(), account(1));
    let of = |address: &str| format!("[[account]]\naddress = \"{address}\"\npassword_file = \"{folder}/account0.password\"\n");
    relay.edit(&of(&first), &of("hve77@contoso.com"));
    relay.reload();
    relay.edit(&of("hve77@contoso.com"), &of(&first));
    relay.edit("recipients_per_day = 1", "recipients_per_day = 3");
    relay.reload();
    let waits = |budget: &str| {
        let said = Command::new(BINARY).args(["queue", "list", "--json", "--config"]).arg(&relay.config).output().expect("it runs");
        String::from_utf8_lossy(&said.stdout).contains(budget)
    };
    until("the budget", || waits("recipients_per_day"));
    assert_eq!(relay.world.sim.counters().messages, 3);
    relay.edit("recipients_per_day = 3", "recipients_per_day = 4");
    relay.reload();
    relay.world.taken(4);
}

#[test]
fn a_secret_that_was_put_right_is_used_at_once() {
    let runtime = runtime();
    let sim = endpoint(&runtime, 1, |_| {});
    let setup = setup(&sim, 1);
    let config = setup.write();
    // Nothing is tried again by itself.
    edit(&config, "probe = \"400ms\"", "probe = \"1h\"");
    put(&setup.folder().join("account0.password"), "wrong");
    let world = World { relay: Relay::start(&config), runtime, sim, setup };
    world.client().accepted("app@contoso.com", TO, &mail("waits", b"text\r\n"));
    world.relay.wait_for("a suspended account", |line| line["event"] == "account-paused");
    put(&world.setup.folder().join("account0.password"), PASSWORD);
    world.relay.signal("HUP");
    world.taken(1);
    let log = world.relay.log_text();
    assert!(!log.contains(PASSWORD) && !log.contains("wrong\""), "{log}");
}

/// A port that was free a moment ago, at this address.
fn free(address: &str) -> SocketAddr {
    TcpListener::bind((address, 0)).and_then(|listener| listener.local_addr()).expect("a port")
}

/// How many sockets listen on a port.
fn listening_on(port: u16) -> usize {
    // proc_net_tcp(5): the local address with its port, and 0A for a socket that listens.
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let listens = |line: &&str| {
        let mut words = line.split_whitespace().skip(1);
        let here = words.next().is_some_and(|address| address.ends_with(&format!(":{port:04X}")));
        here && words.nth(1) == Some("0A")
    };
    tables.iter().flat_map(|table| table.lines()).filter(listens).count()
}

#[test]
fn a_listener_moves_to_another_address_on_its_port_and_somebody_always_listens() {
    let first = free("127.0.0.1");
    let relay = Reloading::new(1, |setup| setup.listener(&first.to_string()));
    let stop = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        let ending = Stop(&stop);
        let session = scope.spawn(|| {
            let (mut client, mut sent) = (Client::hello(first), 0);
            while !stop.load(Ordering::Relaxed) {
                relay.sent(&mut client, TO, &format!("m{sent}"));
                sent += 1;
            }
            client.expect("QUIT", "221");
            sent
        });
        let knocking = scope.spawn(|| {
            let mut greeted = 0;
            while !stop.load(Ordering::Relaxed) {
                // Who comes in the very moment of a socket's end is reset; refused is nobody.
                match TcpStream::connect(first).and_then(|mut stream| stream.read(&mut [0; 64])) {
                    Ok(read) => greeted += usize::from(read > 0),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
                }
            }
            greeted
        });
        let mut before = first.to_string();
        for ip in ["0.0.0.0", "127.0.0.1", "[::]", "127.0.0.1"] {
            relay.world.taken(relay.world.sim.counters().messages + 20);
            let next = format!("{ip}:{}", first.port());
            relay.edit(&format!("address = \"{before}\""), &format!("address = \"{next}\""));
            assert_eq!(listens(&relay.reload()), [next.parse().expect("an address")]);
            until("the end of the one before", || listening_on(first.port()) == 1);
            let mut client = Client::hello(first);
            client.expect("QUIT", "221");
            before = next;
        }
        drop(ending);
        assert!(knocking.join().expect("never refused") > 0);
        session.join().expect("the session is not dropped")
    });
    relay.world.taken(sent);

    // One that stays makes no room, and nothing has changed.
    let both = format!("[[listener]]\naddress = \"0.0.0.0:{}\"\n[[client]]\n", first.port());
    relay.edit("[[client]]\n", &both);
    relay.refused("the relay itself listens on that port");
    Client::hello(first).expect("QUIT", "221");
}

const USER_PASSWORD: &str = "hunter2 Pa55word";
const TOKEN: &str = "a-t0ken-of-some-length-Pa55word";

fn user(name: &str, salt: &[u8]) -> String {
    let hash = PasswordHash::of(&Secret::new(USER_PASSWORD.to_owned()), salt).expect("hashed");
    format!("[[admin.user]]\nname = \"{name}\"\npassword_hash = \"{}\"\n", hash.as_str())
}

/// With a page, two operators and a token.
fn with_page(setup: Setup, listen: &str) -> Setup {
    let file = setup.folder().join("admin.token");
    put(&file, TOKEN);
    let (anna, bert) = (user("anna", b"a salt for anna"), user("bert", b"a salt for bert"));
    let token = format!("[[admin.token]]\nname = \"deploy\"\ntoken_file = \"{}\"\n", file.display());
    setup.with(&format!("[admin]\nlisten = \"{listen}\"\n{anna}{bert}{token}"))
}

fn log_in(page: SocketAddr, user: &str) -> String {
    let body = format!("{{\"user\": \"{user}\", \"password\": \"{USER_PASSWORD}\"}}");
    let answer = post(page, "/v1/session", &[&format!("Origin: http://{page}")], &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    format!("Cookie: {}", answer.cookie())
}

#[test]
fn who_is_no_operator_any_more_is_logged_out_at_once_and_nobody_else() {
    let relay = Reloading::new(1, |setup| with_page(setup, "127.0.0.1:0"));
    let page = relay.world.relay.page();
    let (anna, bert) = (log_in(page, "anna"), log_in(page, "bert"));
    let mut seen = Events::listen(page, &[&anna]).expect("she may read");
    seen.next().expect("an overview");
    let status = |lines: &[&str]| get(page, "/v1/status", lines).status;
    assert_eq!((status(&[&anna]), status(&[&bert])), (200, 200));
    // What does not concern the page does not disturb it.
    relay.edit("[queue]\n", "[upstream]\nidle = \"1s\"\n[queue]\n");
    relay.reload();
    seen.until("the next minute's", |_| true);
    relay.edit(&user("anna", b"a salt for anna"), &user("anna", b"another salt"));
    relay.reload();
    assert_eq!((status(&[&anna]), status(&[&bert])), (401, 200));
    while seen.next().is_some() {}
    let again = log_in(page, "anna");
    relay.edit(&user("anna", b"another salt"), "");
    relay.reload();
    assert_eq!((status(&[&again]), status(&[&bert])), (401, 200));

    // Tokens and names.
    let (bearer, elsewhere) = (format!("Authorization: Bearer {TOKEN}"), "Host: elsewhere.contoso.com");
    assert_eq!((status(&[&bearer]), status(&[&bearer, elsewhere])), (200, 403));
    relay.edit("[admin]\n", "[admin]\nnames = [\"elsewhere.contoso.com\"]\n");
    relay.reload();
    assert_eq!((status(&[&bearer]), status(&[&bearer, elsewhere])), (200, 200));
    // Who has connected and asks when all is otherwise has an answer all the same.
    let mut early = TcpStream::connect(page).expect("the page's listener");
    assert_eq!(status(&[&bert]), 200, "and so the one before was let in too");
    put(&relay.folder().join("admin.token"), "an0ther-t0ken-of-some-length-Pa55word");
    relay.world.relay.signal("HUP");
    until("the end of the token", || status(&[&bearer]) == 401);
    assert_eq!(status(&[&bert]), 200);
    write!(early, "GET /v1/status HTTP/1.1\r\nHost: {page}\r\n{bert}\r\nConnection: close\r\n\r\n").expect("asked");
    assert_eq!(Answer::read(early).status, 200);
    assert!(!relay.world.relay.log_text().contains("Pa55word"));
}

#[test]
fn the_page_moves_and_whoever_asked_for_that_there_has_the_answer() {
    let relay = Reloading::new(1, |setup| with_page(setup, "127.0.0.1:0"));
    let (page, bearer) = (relay.world.relay.page(), format!("Authorization: Bearer {TOKEN}"));
    let mut seen = Events::listen(page, &[&bearer]).expect("it may read");
    seen.next().expect("an overview");
    // It cannot be had: all stays as it is.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let next = taken.local_addr().expect("bound");
    relay.edit("listen = \"127.0.0.1:0\"", &format!("listen = \"{next}\""));
    relay.refused(&format!("cannot listen on {next}"));
    assert_eq!(get(page, "/v1/status", &[&bearer]).status, 200);
    seen.next().expect("the events go on");
    drop(taken);
    let answer = post(page, "/v1/reload", &[&bearer], "");
    assert_eq!(answer.status, 200, "{answer:?}");
    relay.world.relay.wait_for("the new address", |line| line["event"] == "admin-listening" && line["listener"] == next.to_string());
    while seen.next().is_some() {}
    until("the end of the listener", || TcpStream::connect(page).is_err());
    assert_eq!(get(next, "/v1/status", &[&bearer]).status, 200);

    // With TLS, which takes another address of the same port, and then another certificate in the same files.
    let shown = Shown::make("relay.contoso.com");
    shown.install(relay.folder());
    let (port, folder) = (next.port(), relay.folder().display().to_string());
    let tls = format!("listen = \"0.0.0.0:{port}\"\ncertificate_file = \"{folder}/relay.pem\"\nkey_file = \"{folder}/relay.key\"");
    relay.edit(&format!("listen = \"{next}\""), &tls);
    relay.reload();
    let ask = |shown: &Shown| {
        request_over_tls(next, ("relay.contoso.com", shown), "GET", "/v1/status", &[&bearer], "").map(|answer| answer.status)
    };
    assert_eq!(ask(&shown), Some(200));
    let other = Shown::make("relay.contoso.com");
    other.install(relay.folder());
    relay.reload();
    assert_eq!((ask(&other), ask(&shown)), (Some(200), None));

    // None, and one again.
    relay.edit(&tls, "listen = \"none\"");
    relay.reload();
    until("the end of the page", || TcpStream::connect(next).is_err());
    relay.edit("listen = \"none\"", &format!("listen = \"{next}\""));
    relay.reload();
    assert_eq!(get(next, "/v1/status", &[&bearer]).status, 200);
}

#[test]
fn the_log_changes_its_form_and_no_line_is_lost_torn_or_out_of_place() {
    let runtime = runtime();
    let sim = endpoint(&runtime, 1, |_| {});
    let setup = setup(&sim, 1).with("[log]\nformat = \"json\"");
    let config = setup.write();
    let (errors, file) = (setup.folder().join("stderr"), setup.folder().join("relay.log"));
    let standard_error = fs::File::create(&errors).expect("a file");
    let child = Command::new(BINARY).args(["run", "--config"]).arg(&config).stdin(Stdio::null()).stderr(standard_error).spawn();
    let mut child = Killed(child.expect("the binary starts"));
    let text = || fs::read_to_string(&errors).expect("text");
    until("the start", || text().contains("\"event\":\"started\""));
    let started = text().lines().find(|line| line.contains("\"event\":\"started\"")).map(serde_json::from_str::<Value>);
    let address: SocketAddr = started.expect("a line").expect("JSON")["listeners"].as_str().expect("text").parse().expect("an address");
    let stop = AtomicBool::new(false);
    let accepted: Vec<String> = thread::scope(|scope| {
        let ending = Stop(&stop);
        let sending = || {
            let (mut client, mut accepted) = (Client::hello(address), Vec::new());
            while !stop.load(Ordering::Relaxed) {
                accepted.push(client.accepted("app@contoso.com", TO, &mail("m", b"text\r\n")));
            }
            accepted
        };
        let senders = [scope.spawn(sending), scope.spawn(sending)];
        let into_file = format!("format = \"pretty\"\nfile = \"{}\"", file.display());
        for (from, to) in [
            ("format = \"json\"", "format = \"pretty\""),
            ("format = \"pretty\"", "format = \"auto\""),
            ("format = \"auto\"", "format = \"pretty\""),
            ("format = \"pretty\"", &into_file),
        ] {
            let seen = sim.counters().messages + 20;
            runtime.block_on(sim.wait_for(seen, PATIENCE)).expect("mail flows");
            edit(&config, from, to);
            let said = reload(&config);
            assert!(said.status.success(), "{said:?}");
        }
        runtime.block_on(sim.wait_for(sim.counters().messages + 20, PATIENCE)).expect("mail flows");
        drop(ending);
        senders.into_iter().flat_map(|sender| sender.join().expect("no session is dropped")).collect()
    });
    assert!(Command::new("kill").args(["-TERM", &child.0.id().to_string()]).status().expect("kill").success());
    assert!(child.0.wait().expect("it ends").success());
    let (standard_error, file) = (text(), fs::read_to_string(&file).expect("a file"));
    let is_json = |line: &str| serde_json::from_str::<Value>(line).is_ok_and(|line| line["event"].is_string());
    assert!(file.lines().all(is_json), "the file has JSON alone: {file}");
    let is_pretty = |line: &str| line.contains(" INFO ") && line.contains("event=\"");
    assert!(standard_error.lines().all(|line| is_json(line) != is_pretty(line)), "{standard_error}");
    let forms: Vec<bool> = standard_error.lines().map(is_json).collect();
    assert_eq!(forms.chunk_by(|one, next| one == next).map(|part| part[0]).collect::<Vec<_>>(), [true, false, true, false]);
    let lines = || standard_error.lines().chain(file.lines());
    for id in accepted {
        let is_its = |line: &&str| {
            line.contains(id.as_str()) && ["event=\"accepted\"", "\"event\":\"accepted\""].iter().any(|event| line.contains(event))
        };
        assert_eq!(lines().filter(is_its).count(), 1, "{id}");
    }
}

/// A process that ends with the test.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_operators_socket_moves_and_whoever_asked_at_the_old_one_has_the_answer() {
    let relay = Reloading::new(1, |setup| setup);
    let (old, new) = (relay.world.setup.data_dir().join("control.sock"), relay.folder().join("new.sock"));
    let at =
        |socket: &Path, command: &str| Command::new(BINARY).args([command, "--json", "--socket"]).arg(socket).output().expect("it runs");
    let line = |path: &Path| format!("control_socket = \"{}\"\n[tenant]\n", path.display());
    let nowhere = line(&relay.folder().join("nowhere/new.sock"));
    relay.edit("[tenant]\n", &nowhere);
    let said = at(&old, "reload");
    let text = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.code() == Some(78) && text.contains("cannot listen for operators on"), "{said:?}");
    relay.edit(&nowhere, &line(&new));
    // Together with a problem: then it is not left behind.
    relay.edit("[[client]]\n", "[[listener]]\naddress = \"192.0.2.1:25\"\n[[client]]\n");
    let said = at(&old, "reload");
    assert_eq!(said.status.code(), Some(78), "{said:?}");
    assert!(!new.exists() && at(&old, "status").status.success());
    relay.edit("[[listener]]\naddress = \"192.0.2.1:25\"\n[[client]]\n", "[[client]]\n");
    let said = at(&old, "reload");
    assert!(said.status.success(), "{said:?}");
    assert!(relay.ask(&["status"]).status.success(), "who has the configuration finds the new one");
    until("the end of the old socket", || !old.exists());
    // And back again, by a signal.
    relay.edit(&line(&new), &line(&old));
    relay.world.relay.signal("HUP");
    until("the old place", || at(&old, "status").status.success());
    until("the end of the new one", || !new.exists());
    let Reloading { world, .. } = relay;
    world.relay.stop();
    assert!(!old.exists());
}

/// How many messages the history has of what is looked for; none if there is no history.
fn stories(relay: &Reloading, what: &str) -> Option<usize> {
    let said = relay.ask(&["trace", "--json", what]);
    if String::from_utf8_lossy(&said.stderr).contains("no history is kept") {
        return None;
    }
    let found: Value = serde_json::from_slice(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    found["stories"].as_array().map(Vec::len)
}

#[test]
fn a_history_is_begun_ended_and_gone_on_with() {
    let relay = Reloading::new(1, |setup| setup.with("[history]\nkeep = \"none\""));
    let path = relay.world.setup.data_dir().join("history.db");
    let mut client = relay.world.client();
    let mut settled = |subject: &str| {
        let id = relay.sent(&mut client, TO, subject);
        relay.world.removed(&id);
        id
    };
    let traced = |id: &str| stories(&relay, id);
    let before = settled("before");
    assert_eq!(traced(&before), None);
    // It cannot be had.
    fs::write(&path, "this is no database".repeat(100)).expect("written");
    relay.edit("keep = \"none\"", "keep = \"1d\"");
    relay.refused("no history can be kept: ");
    assert_eq!(traced(&before), None);
    fs::remove_file(&path).expect("removed");
    relay.reload();
    let kept = settled("kept");
    until("its story", || traced(&kept) == Some(1));
    assert_eq!(traced(&before), Some(0));
    relay.edit("keep = \"1d\"", "keep = \"none\"");
    relay.reload();
    let unkept = settled("unkept");
    assert_eq!(traced(&kept), None);
    assert!(path.exists(), "what was kept stays");
    relay.edit("keep = \"none\"", "keep = \"2d\"");
    relay.reload();
    assert_eq!((traced(&kept), traced(&unkept)), (Some(1), Some(0)));
}

#[test]
fn a_history_that_could_not_be_had_is_no_reason_to_refuse_a_reload_and_is_tried_again() {
    let runtime = runtime();
    let sim = endpoint(&runtime, 1, |_| {});
    let setup = setup(&sim, 1).with("[history]\nkeep = \"1d\"");
    let (config, path) = (setup.write(), setup.data_dir().join("history.db"));
    fs::create_dir(setup.data_dir()).expect("a folder");
    fs::write(&path, "this is no database".repeat(100)).expect("written");
    let relay = Reloading { world: World { relay: Relay::start(&config), runtime, sim, setup }, config };
    let unavailable = |times| relay.world.relay.wait_for_all("the damage", times, |line| line["event"] == "history-unavailable");
    unavailable(1);
    relay.reload();
    unavailable(2);
    fs::remove_file(&path).expect("removed");
    relay.reload();
    assert_eq!(stories(&relay, "you@contoso.com"), Some(0));
}

#[test]
fn what_is_not_even_toml_is_told_by_the_log_too() {
    let relay = Reloading::new(1, |setup| setup);
    let text = fs::read_to_string(&relay.config).expect("a configuration");
    for (from, to) in [
        ("[tenant]\n", "[tenant\n"),
        ("hostname = \"relay.contoso.com\"", "hostname = relay.contoso.com"),
        ("[queue]\n", "[queue]\nretry_min = \"1s\n"),
        ("[queue]\n", "[queue]]\n"),
    ] {
        let before = relay.world.relay.logged(|line| line["event"] == "reload-failed").len();
        fs::write(&relay.config, text.replacen(from, to, 1)).expect("written");
        relay.refused("this is not TOML");
        relay.world.relay.wait_for_all("another problem", before + 1, |line| line["event"] == "reload-failed");
    }
    let open = |mode| fs::set_permissions(&relay.config, fs::Permissions::from_mode(mode)).expect("mode set");
    open(0o646);
    relay.refused("can be written by every user of this machine");
    open(0o600);
    fs::write(&relay.config, [text.as_bytes(), b"# \xe4\n"].concat()).expect("written");
    relay.refused("this is not UTF-8 text");
    // Where the mistake hides the socket, the command says which one it is to be told.
    fs::write(&relay.config, text.replacen("data_dir = \"", "data_dir = ", 1)).expect("written");
    let said = reload(&relay.config);
    let told = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.code() == Some(78) && told.contains("this is not TOML") && told.contains("--socket PATH"), "{told}");
    fs::write(&relay.config, text).expect("written");
    relay.reload();
}

/// Another server, which takes any sender from anybody.
fn other(runtime: &tokio::runtime::Runtime) -> Sim {
    let settings = Settings { mechanisms: Vec::new(), senders: Senders::Anybody, limits: Limits::NONE, ..Settings::default() };
    runtime.block_on(Sim::start(settings)).expect("the endpoint starts")
}

fn connector(folder: &Path, other: &Sim) -> String {
    put(&folder.join("other-ca.pem"), other.ca_pem());
    format!(
        "[[route]]\nname = \"connector\"\nkind = \"connector\"\nhost = \"127.0.0.1\"\nport = {}\ntls_ca_file = \"{}/other-ca.pem\"\ntls_server_name = \"smtp-hve.office365.com\"\n",
        other.address().port(),
        folder.display()
    )
}

#[test]
fn queued_mail_goes_where_the_new_routes_send_it_and_a_route_that_is_back_is_found_again() {
    let relay = Reloading::new(1, |setup| setup.patient());
    let other = other(&relay.world.runtime);
    relay.world.runtime.block_on(relay.world.sim.down());
    let mut client = relay.world.client();
    let (inside, outside) = (relay.sent(&mut client, TO, "inside"), relay.sent(&mut client, OUTSIDE, "outside"));
    let deferred = |line: &Value| line["event"] == "delivery" && line["status"] == "deferred";
    relay.world.relay.wait_for_all("attempts", 1, deferred);
    // What is external goes by the new route.
    let hve = "[[route]]\nname = \"hve\"\n";
    relay.edit(hve, &format!("{}{hve}takes = [\"internal\"]\n", connector(relay.world.setup.folder(), &other)));
    relay.edit("kind = \"connector\"\n", "kind = \"connector\"\ntakes = [\"external\"]\n");
    let said = relay.reload();
    assert_eq!(said["rerouted"], 1, "{said}");
    let line = relay.world.relay.wait_for("rerouted", |line| line["event"] == "rerouted");
    assert_eq!((&line["queue_id"], &line["former"], &line["route"]), (&outside.as_str().into(), &"hve".into(), &"connector".into()));
    let retry = || Command::new(BINARY).args(["queue", "retry", "--all", "--config"]).arg(&relay.config).output().expect("it runs");
    assert!(retry().status.success());
    relay.world.removed(&outside);
    assert_eq!(other.taken()[0].recipients[0].to_string(), OUTSIDE[0]);
    assert!(relay.world.relay.logged(|line| line["event"] == "removed" && line["queue_id"] == inside.as_str()).is_empty());
}

#[test]
fn mail_that_was_queued_for_a_route_that_is_gone_is_sent_another_way_also_after_a_crash() {
    let relay = Reloading::new(1, |setup| setup.patient());
    let other = other(&relay.world.runtime);
    relay.world.runtime.block_on(relay.world.sim.down());
    let id = relay.sent(&mut relay.world.client(), OUTSIDE, "outside");
    let Reloading { world, config } = relay;
    let folder = world.setup.folder().to_owned();
    let world = world.crash_and_restart(|_| {
        edit(&config, "name = \"hve\"\n", "name = \"renamed\"\nkind = \"hve\"\ntakes = [\"internal\"]\n");
        edit(&config, "[queue]\n", &format!("{}[queue]\n", connector(&folder, &other)));
    });
    world.removed(&id);
    assert_eq!(other.taken()[0].recipients[0].to_string(), OUTSIDE[0]);
}

#[test]
fn the_service_manager_hears_when_a_reload_begins_and_when_it_is_over() {
    let runtime = runtime();
    let sim = endpoint(&runtime, 1, |_| {});
    let setup = setup(&sim, 1);
    let path = setup.folder().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("an option");
    let next = || {
        let mut octets = [0; 4_096];
        let read = manager.recv(&mut octets).expect("a message");
        String::from_utf8_lossy(&octets[..read]).into_owned()
    };
    let relay = Relay::start_in(&setup.write(), &[("NOTIFY_SOCKET", path.to_str().expect("UTF-8"))]);
    while !next().contains("READY=1") {}
    relay.signal("HUP");
    let mut said = next();
    while said.contains("STATUS=") {
        said = next();
    }
    let began = said.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).expect("when it began");
    assert!(said.contains("RELOADING=1") && began.parse::<u64>().is_ok_and(|began| began > 0), "{said}");
    while !next().contains("READY=1") {}
    relay.wait_for("reloaded", |line| line["event"] == "reloaded");
}
