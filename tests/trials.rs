//! End to end: what `hve-relay doctor` finds with a relay, a service and a machine that are well, and with those that are not; and what
//! `hve-relay send-test` says of one message's way.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use hve_relay::secret::Secret;
use hve_relay::sim::{Action, App, AppProof, Fault, Issuer, Mechanism, Step, TokenEndpoint};
use serde_json::Value;
use support::relay::{Relay, Setup};
use support::secure::Shown;
use support::{PASSWORD, World, account, snapshot};

/// What it found, and its exit status.
struct Found {
    status: i32,
    text: String,
    findings: Vec<Value>,
}

fn doctor(config: &Path, arguments: &[&str]) -> Found {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hve-relay"));
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(name);
    }
    let output = command.args(["doctor", "--json", "--config"]).arg(config).args(arguments).stdin(Stdio::null()).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let report: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    let findings = report["findings"].as_array().expect("findings").clone();
    let status = output.status.code().expect("an exit status");
    // The status is that of the worst finding.
    let worst = findings.iter().map(|finding| ["pass", "warn", "fail"].iter().position(|level| finding["level"] == *level)).max().flatten();
    assert_eq!(worst, usize::try_from(status).ok(), "{text}");
    for secret in [PASSWORD, SECRET, "eyJ"] {
        assert!(!text.contains(secret), "{text}");
    }
    Found { status, text, findings }
}

impl Found {
    /// The level of what was found about something, the worst if there is more; with all of it in one text.
    fn about(&self, about: &str) -> (String, String) {
        let found: Vec<&Value> = self.findings.iter().filter(|finding| finding["about"] == about).collect();
        assert!(!found.is_empty(), "nothing about {about} in {}", self.text);
        let level = ["fail", "warn", "pass"].into_iter().find(|level| found.iter().any(|finding| finding["level"] == *level));
        let text = found.iter().map(|finding| format!("{}: {}\n", text(&finding["found"]), text(&finding["to_do"]))).collect();
        (level.expect("a level").to_owned(), text)
    }

    fn is(&self, about: &str, level: &str, words: &[&str]) {
        let (found, text) = self.about(about);
        assert_eq!(found, level, "{about}: {text}");
        for words in words {
            assert!(text.contains(words), "{words:?} is not in {text}");
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

const SECRET: &str = "s3cret~Client.Va1ue";

/// A port that was free a moment ago.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port")
}

/// Strangers may connect to this listener, and loopback is strange to it.
fn strange(setup: Setup, listener: SocketAddr) -> Setup {
    setup.listener(&listener.to_string()).networks("127.3.0.0/16")
}

#[test]
fn a_relay_that_is_well_is_told_so_and_nothing_is_sent() {
    let listener = free();
    let world = World::with(2, |_| {}, |setup| strange(setup, listener));
    let config = world.setup.folder().join("hve-relay.toml");
    let found = doctor(&config, &[]);
    for about in
        ["configuration", "relay", "data directory", "clock", "route hve", "account hve01@contoso.com", "account hve02@contoso.com"]
    {
        assert_eq!(found.about(about).0, "pass", "{}", found.text);
    }
    found.is(&format!("listener {listener}"), "pass", &["the relay answers"]);
    found.is(&format!("open relay {listener}"), "pass", &["turned away at once"]);
    found.is("clock", "pass", &["agrees with that of 127.0.0.1"]);
    found.is("route hve", "pass", &["TLSv1.3", "verified", "CN=Simulated HVE CA", "AUTH LOGIN XOAUTH2", "SIZE 10485760"]);
    let counters = world.sim.counters();
    assert_eq!((counters.messages, counters.logins.len(), counters.violations.len()), (0, 2, 0));

    // What depends on the machine that runs the test is left out.
    let steady = found
        .findings
        .iter()
        .filter(|finding| !["sync", "free space", "free inodes", "open files", "systemd", "journal"].contains(&text(&finding["about"])));
    let page = steady
        .map(|finding| format!("{} {}\n     {}\n", text(&finding["level"]), text(&finding["about"]), text(&finding["found"])))
        .collect::<String>();
    snapshot::same("doctor", &page, &[(&world.setup.folder().display().to_string(), "DIR")]);
    let table =
        Command::new(env!("CARGO_BIN_EXE_hve-relay")).args(["doctor", "--offline", "--config"]).arg(&config).output().expect("it runs");
    let table = String::from_utf8(table.stdout).expect("text");
    assert!(table.lines().all(|line| line.chars().count() <= 150), "{table}");
    assert!(table.contains("pass   relay") && table.contains("passed, "), "{table}");
    assert_eq!(world.sim.counters().logins.len(), 2, "offline is offline");
}

#[test]
fn the_page_is_looked_at_whether_the_relay_runs_or_not() {
    let (page, other) = (free(), TcpListener::bind("127.0.0.1:0").expect("a port"));
    let shown = Shown::make("relay.contoso.com");
    let with_page = |setup: Setup, page: SocketAddr| {
        shown.install(setup.folder());
        let folder = setup.folder().display().to_string();
        let files = format!("certificate_file = \"{folder}/relay.pem\"\nkey_file = \"{folder}/relay.key\"");
        setup.with(&format!("[admin]\nlisten = \"{page}\"\n{files}"))
    };
    let world = World::with(1, |_| {}, |setup| with_page(setup, page));
    let config = world.setup.folder().join("hve-relay.toml");
    let about = format!("page {page}");
    let found = doctor(&config, &["--offline"]);
    found.is(&about, "pass", &["its certificate: ", "ends ", "the relay answers there"]);
    let World { relay, sim, runtime, setup } = world;
    relay.stop();
    doctor(&config, &["--offline"]).is(&about, "pass", &["it can be listened on"]);
    // Somebody who hangs up.
    let address = other.local_addr().expect("bound");
    std::thread::spawn(move || other.incoming().for_each(drop));
    let elsewhere = with_page(support::setup(&sim, 1), address);
    let found = doctor(&elsewhere.write(), &["--offline"]);
    found.is(&format!("page {address}"), "fail", &["connections are taken there, and nobody answers", "write another address"]);
    drop((runtime, setup));
}

#[test]
fn a_refused_password_is_tried_once_and_the_others_all_the_same() {
    let world = World::with(3, |settings| settings.accounts[1].password = Secret::new("another".to_owned()), |setup| setup);
    let config = world.setup.folder().join("hve-relay.toml");
    let found = doctor(&config, &[]);
    assert_eq!(found.status, 2, "{}", found.text);
    found.is("account hve02@contoso.com", "fail", &["AUTH: 535 5.7.3", "password"]);
    found.is("account hve01@contoso.com", "pass", &["logged in with its password"]);
    found.is("account hve03@contoso.com", "pass", &[]);
    assert_eq!(world.sim.counters().logins.len(), 3);
    let found = doctor(&config, &["--account", "HVE01@contoso.com"]);
    assert!(!found.text.contains("account hve02"), "{}", found.text);
    assert_eq!(world.sim.counters().logins.len(), 4);
}

#[test]
fn a_certificate_that_is_not_believed_is_shown_and_gets_no_login() {
    let runtime = support::runtime();
    let sim = support::endpoint(&runtime, 1, |_| {});
    let mut setup = support::setup(&sim, 1);
    let other = hve_relay::sim::Identity::make(&["localhost"]).expect("an identity");
    setup.trust(other.ca_pem());
    let found = doctor(&setup.write(), &[]);
    found.is(
        "route hve",
        "fail",
        &["TLS handshake", "tls_ca_file", "certificate: CN=Simulated HVE endpoint, issued by CN=Simulated HVE CA"],
    );
    assert!(!found.text.contains("account hve01"), "{}", found.text);
    found.is("relay", "pass", &["it does not run"]);
    assert_eq!(sim.counters().logins.len(), 0);
}

#[test]
fn a_server_that_is_silent_or_lacks_what_is_needed_is_named_in_time() {
    let world = World::with(1, |settings| settings.mechanisms = vec![Mechanism::Xoauth2], |setup| setup);
    let config = world.setup.folder().join("hve-relay.toml");
    let found = doctor(&config, &[]);
    found.is("route hve", "fail", &["AUTH XOAUTH2", "it does not offer how"]);
    world.faults([Fault::new(Step::Greeting, Action::Silence)]);
    let found = doctor(&config, &["--timeout", "300ms"]);
    found.is("route hve", "fail", &["greeting: no answer within 300ms"]);
}

/// A tenant's application without or with its permission; what the doctor finds of it.
fn with_app(permitted: bool, secret: &str, lines: &str) -> Found {
    let runtime = support::runtime();
    let proof = AppProof::Secret(Secret::new(SECRET.to_owned()));
    let issuer = Issuer::new(vec![App { permitted, ..App::new("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0", proof) }]);
    let tokens = runtime.block_on(TokenEndpoint::start(issuer.clone())).expect("the token endpoint starts");
    let sim = support::endpoint(&runtime, 2, |settings| settings.issuer = Some(issuer));
    let setup = support::setup(&sim, 0);
    let file = |name: &str, text: &str| {
        support::secure::put(&setup.folder().join(name), text);
        setup.folder().join(name).display().to_string()
    };
    let mut toml = format!(
        "[[app]]\nname = \"hve\"\nclient_id = \"0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0\"\nclient_secret_file = {:?}\ntoken_url = {:?}\ntls_ca_file = {:?}\n{lines}\n",
        file("app.secret", secret),
        tokens.url(),
        file("login-ca.pem", tokens.ca_pem())
    );
    for n in 1..=2 {
        toml += &format!("[[account]]\naddress = {:?}\napp = \"hve\"\n", account(n));
    }
    let setup = setup.with(&toml);
    let found = doctor(&setup.write(), &[]);
    assert_eq!(runtime.block_on(async { tokens.seen() }).requests.len(), 1, "one token for all accounts");
    found
}

#[test]
fn a_token_is_looked_into_and_never_shown() {
    let found = with_app(true, SECRET, "");
    found.is("app hve", "pass", &["aud https://outlook.office.com, roles Mail.Send, appid 0f1e2d3c", "lives for 1h"]);
    found.is("account hve02@contoso.com", "pass", &["logged in with a token"]);

    let found = with_app(false, SECRET, "client_secret_expires = \"2020-01-01\"");
    found.is("app hve", "fail", &["roles none", "the role Mail.Send is missing", "535 5.7.144", "its client secret ends 2020-01-01"]);
    found.is("account hve01@contoso.com", "fail", &["535 5.7.144"]);

    let found = with_app(true, "not the secret", "");
    found.is("app hve", "fail", &["invalid_client"]);
    found.is("account hve01@contoso.com", "fail", &["not tried: app hve has no token"]);
}

#[test]
fn a_listener_that_somebody_else_has_is_found_before_the_start() {
    let runtime = support::runtime();
    let sim = support::endpoint(&runtime, 1, |_| {});
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    std::thread::spawn(move || taken.incoming().flatten().try_for_each(|mut stream| stream.write_all(b"220 other.example ESMTP\r\n")));
    let free = free();
    let setup = support::setup(&sim, 1).listener(&address.to_string()).with(&format!("[[listener]]\naddress = \"{free}\""));
    let found = doctor(&setup.write(), &["--offline"]);
    found.is(&format!("listener {address}"), "fail", &["somebody else answers there: 220 other.example", "ss -ltnp"]);
    found.is(&format!("listener {free}"), "pass", &["it can be listened on"]);
}

/// A server in the relay's name that takes everything; the commands that it was told.
fn open_relay() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = told.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            if stream.write_all(b"220 relay.contoso.com ESMTP\r\n").is_err() {
                continue;
            }
            let reader = BufReader::new(stream.try_clone().expect("cloned"));
            for line in reader.lines().map_while(Result::ok) {
                let reply: &[u8] = if line.contains('%') { b"550 5.7.1 no\r\n" } else { b"250-2.0.0 yes\r\n250 ok\r\n" };
                telling.lock().expect("the commands").push(line);
                if stream.write_all(reply).is_err() {
                    break;
                }
            }
        }
    });
    (address, told)
}

#[test]
fn an_open_relay_is_found_and_gets_no_mail() {
    let runtime = support::runtime();
    let sim = support::endpoint(&runtime, 1, |_| {});
    let (address, told) = open_relay();
    let found = doctor(&strange(support::setup(&sim, 1), address).write(), &["--offline"]);
    assert_eq!(found.status, 2);
    found.is(&format!("open relay {address}"), "fail", &["a stranger", "RCPT TO:<victim@relay-test.example>", "off the network"]);
    let told = told.lock().expect("the commands").clone();
    assert!(told.iter().filter(|line| line.starts_with("RCPT")).count() > 10, "{told:?}");
    assert!(!told.iter().any(|line| line.starts_with("DATA") || line.starts_with("BDAT")), "{told:?}");
    assert!(!found.text.contains("RCPT TO:<victim%"), "{}", found.text);
}

#[test]
fn a_stranger_who_may_log_in_gets_nothing_by_tricks() {
    let listener = free();
    let user = "[[user]]\nname = \"erp\"\npassword_hash = \"$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$y3jCvE+mWJn/bnWbTJhQFbMGD3FgpUTI7xLLv7XhyMw\"\nclient = \"devices\"\n";
    let runtime = support::runtime();
    let sim = support::endpoint(&runtime, 1, |_| {});
    let setup = support::setup(&sim, 1).listener("127.0.0.1:0").networks("10.0.0.0/8");
    let shown = support::secure::Shown::make("relay.contoso.com");
    shown.install(setup.folder());
    let folder = setup.folder().display().to_string();
    let further = format!(
        "[[listener]]\naddress = \"{listener}\"\ntls = \"starttls\"\nauth = \"offered\"\ncertificate_file = \"{folder}/relay.pem\"\nkey_file = \"{folder}/relay.key\"\n"
    );
    let setup = setup.with(&further).with(user);
    let config = setup.write();
    let relay = Relay::start(&config);
    let found = doctor(&config, &["--offline"]);
    found.is(&format!("open relay {listener}"), "pass", &["tricks, and every one was refused"]);
    found.is(&format!("listener {listener}"), "pass", &["its certificate: "]);
    assert_eq!(relay.logged(|line| line["event"] == "accepted").len(), 0);
}

#[test]
fn a_configuration_with_problems_is_all_that_is_looked_at() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("hve-relay.toml");
    std::fs::write(&config, "data_dir = \"relative\"\n").expect("written");
    let found = doctor(&config, &[]);
    found.is("configuration", "fail", &["data_dir"]);
    assert!(found.findings.iter().all(|finding| finding["about"] == "configuration"), "{}", found.text);
    let found = doctor(Path::new("/nowhere/hve-relay.toml"), &[]);
    found.is("configuration", "fail", &["/nowhere/hve-relay.toml cannot be read", "--config"]);
}

/// What `send-test` printed, and its exit status.
fn send_test(config: &Path, arguments: &str) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hve-relay"))
        .args(["send-test", "--config"])
        .arg(config)
        .args(arguments.split(' '))
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    let text = |octets: Vec<u8>| String::from_utf8(octets).expect("text");
    (output.status.code().expect("an exit status"), text(output.stdout), text(output.stderr))
}

/// The queue id differs each time.
fn without_id(text: &str) -> String {
    let id = text.split_whitespace().find(|word| word.len() == 13 && word.starts_with('0')).unwrap_or("no id").to_owned();
    text.replace(&id, "ID")
}

#[test]
fn one_message_is_sent_and_followed_to_what_became_of_it() {
    let listener = free();
    let world = World::with(3, |_| {}, |setup| setup.patient().listener(&listener.to_string()));
    let config = world.setup.folder().join("hve-relay.toml");

    let (status, out, err) = send_test(&config, "--to you@contoso.com --account hve03@contoso.com --from me@contoso.com");
    assert_eq!(status, 0, "{out}{err}");
    snapshot::same("send-test-delivered", &without_id(&out), &[]);
    let taken = world.taken(1).remove(0);
    assert_eq!((taken.account.as_str(), taken.recipients[0].as_str()), ("hve03@contoso.com", "you@contoso.com"), "pinned");

    let (status, out, _) = send_test(&config, "--to nobody1@contoso.com");
    assert_eq!(status, 1, "{out}");
    assert!(out.contains("failed ") && out.contains("550 5.1.10"), "{out}");

    world.faults([Fault::reply(Step::Rcpt, "452 4.2.2 Mailbox full").recipient("full@contoso.com")]);
    let (status, out, _) = send_test(&config, "--to full@contoso.com --wait 2s");
    assert_eq!(status, 75, "{out}");
    assert!(out.contains("\nwaits ") && out.contains("452 4.2.2 Mailbox full") && out.contains("\nstill "), "{out}");

    let (status, out, err) = send_test(&config, "--to you@contoso.com --json");
    assert_eq!(status, 0, "{out}{err}");
    let told: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((told["result"].as_str(), told["reply"].as_str().map(|reply| &reply[..3])), (Some("delivered"), Some("250")), "{out}");
}

#[test]
fn a_message_that_cannot_be_sent_says_why_before_anything_is_queued() {
    let listener = free();
    let world = World::with(1, |_| {}, |setup| strange(setup, listener).client("allowed_senders = [\"app@contoso.com\"]"));
    let config = world.setup.folder().join("hve-relay.toml");
    let (status, _, err) = send_test(&config, "--to you@contoso.com --account other@contoso.com");
    assert_eq!((status, err.contains("there are hve01@contoso.com")), (64, true), "{err}");
    let (status, _, err) = send_test(&config, "--to you@contoso.com");
    assert_eq!((status, err.contains("add a [[client]]")), (1, true), "{err}");
    assert_eq!(world.relay.logged(|line| line["event"] == "accepted").len(), 0);
}

#[test]
fn without_a_relay_there_is_nobody_to_send_to() {
    let runtime = support::runtime();
    let sim = support::endpoint(&runtime, 1, |_| {});
    let setup = support::setup(&sim, 1).listener(&free().to_string());
    let (status, _, err) = send_test(&setup.write(), "--to you@contoso.com");
    assert_eq!((status, err.contains("the relay does not take it at 127.0.0.1")), (69, true), "{err}");
}
