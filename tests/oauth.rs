//! End to end with OAuth: the real relay gets its tokens from a simulated Microsoft Entra over TLS and logs in with them at the simulated
//! endpoint, which knows each token and refuses it in the service's own words.

mod support;

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hve_relay::clock::Clock;
use hve_relay::secret::Secret;
use hve_relay::sim::{App, AppProof, Issuer, Seen, Settings, Sim, Taken, Times, TokenAction, TokenEndpoint};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use support::client::Client;
use support::relay::{PATIENCE, Relay, Setup};
use support::{account, field, mail, until};
use tokio::runtime::Runtime;

const TO: &[&str] = &["you@contoso.com"];
const CLIENT_ID: &str = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
const SECRET: &str = "s3cret~Client.Va1ue&with=all+kinds of%signs";
const APP_KEY: &str = include_str!("support/app.key");

/// A tenant with its token endpoint, its mail endpoint, and what the relay must know of them.
struct Tenant {
    runtime: Runtime,
    issuer: Issuer,
    tokens: TokenEndpoint,
    sim: Sim,
    setup: Setup,
}

impl Tenant {
    /// With so many accounts that log in through one application.
    fn new(accounts: usize, app: App) -> Self {
        Self::with(accounts, app, |_| {}, "")
    }

    /// With another mail endpoint, and further lines of `[[app]]`.
    fn with(accounts: usize, app: App, change: impl FnOnce(&mut Settings), lines: &str) -> Self {
        let runtime = support::runtime();
        let certificate = match &app.proof {
            AppProof::Certificate(pem) => Some(pem.clone()),
            AppProof::Secret(_) => None,
        };
        let issuer = Issuer::new(vec![app]);
        let tokens = runtime.block_on(TokenEndpoint::start(issuer.clone())).expect("the token endpoint starts");
        let sim = support::endpoint(&runtime, accounts, |settings| {
            settings.issuer = Some(issuer.clone());
            change(settings);
        });
        let setup = support::setup(&sim, 0);
        let file = |name: &str, text: &str| {
            let path = setup.folder().join(name);
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("mode set");
            path.display().to_string()
        };
        let proof = match certificate {
            None => format!("client_secret_file = {:?}", file("app.secret", &format!("{SECRET}\n"))),
            Some(pem) => format!("certificate_file = {:?}\nkey_file = {:?}", file("app.pem", &pem), file("app.key", APP_KEY)),
        };
        let (url, ca) = (tokens.url(), file("login-ca.pem", tokens.ca_pem()));
        let mut toml = format!(
            "[log]\nlevel = \"trace\"\n[[app]]\nname = \"hve\"\nclient_id = {CLIENT_ID:?}\n{proof}\ntoken_url = {url:?}\ntls_ca_file = {ca:?}\n{lines}\n"
        );
        for n in 1..=accounts {
            toml += &format!("[[account]]\naddress = {:?}\napp = \"hve\"\n", account(n));
        }
        let setup = setup.with(&toml).client("affinity = \"none\"");
        Self { runtime, issuer, tokens, sim, setup }
    }

    fn start(&self) -> Relay {
        Relay::start(&self.setup.write())
    }

    fn secret_file(&self) -> PathBuf {
        self.setup.folder().join("app.secret")
    }

    fn taken(&self, relay: &Relay, messages: u64) -> Vec<Taken> {
        match self.runtime.block_on(self.sim.wait_for(messages, PATIENCE)) {
            Ok(taken) => taken,
            Err(error) => panic!("{error}\n{:?}\n{}", self.tokens.seen(), relay.log_text()),
        }
    }

    fn asked(&self, relay: &Relay, met: impl FnMut(&Seen) -> bool) -> Seen {
        self.runtime
            .block_on(self.tokens.wait_until(met, PATIENCE))
            .unwrap_or_else(|seen| panic!("the token endpoint has seen {seen:?}\n{}", relay.log_text()))
    }

    /// Drops every connection, so that the next message needs a login.
    fn hang_up(&self) {
        self.runtime.block_on(self.sim.down());
        // A connection of another test may have the port for a moment.
        until("the port to be free", || self.runtime.block_on(self.sim.up()).is_ok());
    }

    /// What must be true of every test's end: the client kept to the protocol, no mail was lost or failed, and no secret is in the log.
    fn is_well(&self, relay: &Relay) {
        assert!(self.sim.counters().violations.is_empty(), "{:?}", self.sim.counters().violations);
        assert!(self.sim.counters().logins.iter().all(|login| login.encrypted));
        assert_eq!(relay.logged(|line| line["status"] == "bounced" || line["status"] == "expired").len(), 0, "{}", relay.log_text());
        let log = relay.log_text();
        for secret in [SECRET, "Va1ue", "eyJ", "PRIVATE KEY", "pa55-of-the-proxy", "client_assertion", "Bearer"] {
            assert!(!log.contains(secret), "the log shows {secret}:\n{log}");
        }
    }
}

fn with_secret() -> App {
    App::new(CLIENT_ID, AppProof::Secret(Secret::new(SECRET.to_owned())))
}

/// A certificate for the application's key, until the beginning of a day.
fn certificate((year, month, day): (i32, u8, u8)) -> String {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(year, month, day));
    params.self_signed(&KeyPair::from_pem(APP_KEY).expect("a key")).expect("a certificate").pem()
}

fn send(client: &mut Client, subject: &str) -> String {
    client.accepted("app@contoso.com", TO, &mail(subject, b"text\r\n"))
}

fn event(relay: &Relay, name: &str) -> serde_json::Value {
    relay.wait_for(name, |line| line["event"] == name)
}

fn text<'v>(line: &'v serde_json::Value, field: &str) -> &'v str {
    line[field].as_str().unwrap_or_default()
}

#[test]
fn twenty_accounts_share_one_request_for_a_token() {
    let tenant = Tenant::new(20, with_secret());
    // Long enough that every account has a message to send before the token is there.
    tenant.tokens.set_faults(vec![(TokenAction::Delay(Duration::from_millis(500)), Times::Always)]);
    let relay = tenant.start();
    let mut client = Client::hello(relay.address);
    for n in 0..60 {
        send(&mut client, &format!("n{n}"));
    }
    let taken = tenant.taken(&relay, 60);
    let accounts: std::collections::BTreeSet<&str> = taken.iter().map(|taken| taken.account.as_str()).collect();
    assert!(accounts.len() > 1, "several accounts sent: {accounts:?}");
    let seen = tenant.tokens.seen();
    assert_eq!((seen.requests.len(), seen.outcomes("issued"), seen.most_open), (1, 1, 1), "{seen:?}");
    let fetched = event(&relay, "token-fetched");
    assert_eq!((text(&fetched, "app"), fetched["life"].as_u64()), ("hve", Some(3_600)));
    assert_eq!(relay.logged(|line| line["status"] == "deferred").len(), 0);
    tenant.is_well(&relay);
}

#[test]
fn a_certificate_takes_the_place_of_a_secret() {
    let tenant = Tenant::new(2, App::new(CLIENT_ID, AppProof::Certificate(certificate((2099, 1, 1)))));
    let relay = tenant.start();
    let mut client = Client::hello(relay.address);
    // Two tokens, because no assertion may be used twice.
    for n in 1..=2 {
        send(&mut client, &format!("n{n}"));
        tenant.taken(&relay, n);
        tenant.issuer.end_all();
        tenant.hang_up();
    }
    let seen = tenant.tokens.seen();
    assert_eq!((seen.requests.len(), seen.outcomes("issued")), (2, 2), "{seen:?}");
    tenant.is_well(&relay);
}

#[test]
fn a_stale_token_leads_to_a_fresh_one_and_to_the_same_attempt() {
    let tenant = Tenant::new(1, with_secret());
    let relay = tenant.start();
    let mut client = Client::hello(relay.address);
    send(&mut client, "first");
    tenant.taken(&relay, 1);
    tenant.issuer.end_all();
    tenant.hang_up();
    let id = send(&mut client, "second");
    let taken = tenant.taken(&relay, 2);
    assert_eq!(field(&taken[1], "Subject"), ["second"]);
    relay.wait_for("removed", |line| line["event"] == "removed" && line["queue_id"] == id.as_str());
    let counters = tenant.sim.counters();
    assert_eq!((counters.refused("5.7.142"), counters.logins.iter().filter(|login| login.accepted).count()), (1, 2));
    assert_eq!(tenant.tokens.seen().outcomes("issued"), 2);
    assert_eq!(relay.logged(|line| line["status"] == "deferred" || line["event"] == "account-paused").len(), 0);
    tenant.is_well(&relay);
}

#[test]
fn a_token_that_is_always_stale_is_asked_for_once_more_and_no_oftener_in_an_attempt() {
    let tenant = Tenant::new(1, App { refused_before_end: Duration::from_secs(7_200), ..with_secret() });
    let relay = tenant.start();
    send(&mut Client::hello(relay.address), "kept");
    let paused = event(&relay, "account-paused");
    assert!(text(&paused, "reason").contains("5.5.127"), "{paused}");
    let deferred = relay.logged(|line| line["status"] == "deferred").len();
    let seen = tenant.tokens.seen();
    assert!(seen.requests.len() <= 2 * deferred + 2, "{deferred} attempts, {seen:?}");
    tenant.issuer.set_apps(vec![with_secret()]);
    tenant.taken(&relay, 1);
    tenant.is_well(&relay);
}

#[test]
fn a_token_is_renewed_before_its_end_and_never_shown_too_late() {
    let app = App { life: Duration::from_secs(4), refused_before_end: Duration::from_millis(300), ..with_secret() };
    let tenant = Tenant::with(2, app, |_| {}, "renew_before = \"2s\"");
    let relay = tenant.start();
    let mut client = Client::hello(relay.address);
    let mut sent = 0;
    while tenant.tokens.seen().outcomes("issued") < 3 {
        sent += 1;
        send(&mut client, &format!("n{sent}"));
        tenant.taken(&relay, sent);
        // Each message logs in anew, so that the age of the token is always tried.
        tenant.hang_up();
    }
    let counters = tenant.sim.counters();
    assert_eq!((counters.refused("5.5.127"), counters.refused("5.7.142")), (0, 0));
    assert!(counters.logins.len() > 3, "{} logins", counters.logins.len());
    assert_eq!(tenant.tokens.seen().most_open, 1);
    tenant.is_well(&relay);
}

#[test]
fn connections_are_closed_before_the_end_of_their_token() {
    let life = Duration::from_secs(8);
    let tenant = Tenant::new(2, App { life, refused_before_end: Duration::ZERO, ..with_secret() });
    let relay = tenant.start();
    send(&mut Client::hello(relay.address), "one");
    tenant.taken(&relay, 1);
    let known = Instant::now();
    tenant.runtime.block_on(tenant.sim.wait_until(|seen| seen.open == 0, PATIENCE)).expect("it is closed");
    assert!(known.elapsed() < life, "closed after {:?}", known.elapsed());
    assert_eq!(tenant.sim.counters().command("QUIT"), 1, "in order, not by the server");
    tenant.is_well(&relay);
}

#[test]
fn a_wrong_secret_keeps_all_mail_alarms_once_and_is_put_right_without_a_restart() {
    let tenant = Tenant::new(3, with_secret());
    let config = tenant.setup.write();
    fs::write(tenant.secret_file(), "wr0ng-secret").expect("written");
    let relay = Relay::start(&config);
    let mut client = Client::hello(relay.address);
    for n in 0..10 {
        send(&mut client, &format!("n{n}"));
    }
    let refused = event(&relay, "token-refused");
    assert_eq!((text(&refused, "level"), text(&refused, "app")), ("ERROR", "hve"));
    assert!(text(&refused, "reason").contains("invalid_client: AADSTS7000215: Invalid client secret provided."), "{refused}");
    assert!(text(&refused, "reason").contains("correlation id 8f3e0c9a-"), "{refused}");
    assert!(text(&refused, "advice").contains(&tenant.secret_file().display().to_string()), "{refused}");
    tenant.asked(&relay, |seen| seen.outcomes("invalid_client") >= 4);
    assert_eq!(relay.logged(|line| line["event"] == "token-refused").len(), 1, "once for the state, not for each try");
    assert_eq!((tenant.sim.counters().messages, tenant.sim.counters().connections), (0, 0), "nothing is said to the mail endpoint");
    fs::write(tenant.secret_file(), SECRET).expect("written");
    tenant.taken(&relay, 10);
    event(&relay, "token-fetched");
    assert!(!relay.log_text().contains("wr0ng-secret"));
    tenant.is_well(&relay);
}

#[test]
fn a_secret_that_has_vanished_is_an_alarm_and_no_end() {
    let tenant = Tenant::new(1, with_secret());
    let relay = tenant.start();
    fs::remove_file(tenant.secret_file()).expect("removed");
    send(&mut Client::hello(relay.address), "kept");
    let refused = event(&relay, "token-refused");
    assert!(text(&refused, "reason").contains("app.secret cannot be read"), "{refused}");
    assert!(tenant.tokens.seen().requests.is_empty());
    fs::write(tenant.secret_file(), SECRET).expect("written");
    tenant.taken(&relay, 1);
    tenant.is_well(&relay);
}

#[test]
fn trouble_of_the_token_endpoint_passes_and_loses_nothing() {
    let stranger = TcpListener::bind("127.0.0.1:0").expect("a port");
    stranger.set_nonblocking(true).expect("set");
    let elsewhere = format!("Location: https://{}/token\r\n", stranger.local_addr().expect("an address"));
    let huge = format!("{{\"access_token\":\"{}\"}}", "x".repeat(1 << 20));
    let echo = format!("{{\"error\":\"server_error\",\"error_description\":\"client_secret={SECRET}\"}}");
    for (case, action, told) in [
        ("500", TokenAction::http(500, "", "oops"), "HTTP 500"),
        ("503 with words", TokenAction::http(503, "", "{\"error\":\"temporarily_unavailable\"}"), "temporarily_unavailable"),
        ("429", TokenAction::http(429, "Retry-After: 1\r\n", ""), "HTTP 429"),
        ("a redirect", TokenAction::http(307, &elsewhere, ""), "HTTP 307"),
        ("a page", TokenAction::http(200, "", "<html>log in to the guest network</html>"), "holds no token"),
        ("a huge answer", TokenAction::http(200, "", &huge), "could not be read"),
        ("an echo", TokenAction::http(400, "", &echo), "not shown"),
        ("no HTTP", TokenAction::Say(b"220 smtp.example ESMTP\r\n".to_vec()), "failed"),
        ("nothing", TokenAction::Say(Vec::new()), "failed"),
        ("half an answer", TokenAction::Say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_vec()), "could not be read"),
    ] {
        let tenant = Tenant::new(1, with_secret());
        tenant.tokens.set_faults(vec![(action, Times::First(1))]);
        let relay = tenant.start();
        send(&mut Client::hello(relay.address), "kept");
        let unavailable = event(&relay, "token-unavailable");
        assert!(text(&unavailable, "reason").contains(told), "{case}: {unavailable}");
        tenant.taken(&relay, 1);
        let seen = tenant.tokens.seen();
        assert_eq!((seen.outcomes("fault"), seen.outcomes("issued")), (1, 1), "{case}: {seen:?}");
        tenant.is_well(&relay);
    }
    assert!(stranger.accept().is_err(), "a redirect was followed");
}

#[test]
fn a_token_endpoint_that_says_nothing_is_left_in_time() {
    let tenant = Tenant::new(1, with_secret());
    tenant.tokens.set_faults(vec![(TokenAction::Silence, Times::First(1))]);
    let tenant = Tenant { setup: tenant.setup.with("[upstream]\nconnect = \"500ms\""), ..tenant };
    let relay = tenant.start();
    send(&mut Client::hello(relay.address), "kept");
    let unavailable = event(&relay, "token-unavailable");
    assert!(text(&unavailable, "reason").contains("did not answer within 500ms"), "{unavailable}");
    tenant.taken(&relay, 1);
    tenant.is_well(&relay);
}

#[test]
fn a_token_endpoint_of_another_authority_is_told_no_secret() {
    let tenant = Tenant::new(1, with_secret());
    let config = tenant.setup.write();
    fs::write(tenant.setup.folder().join("login-ca.pem"), tenant.sim.ca_pem()).expect("written");
    let relay = Relay::start(&config);
    send(&mut Client::hello(relay.address), "kept");
    let unavailable = event(&relay, "token-unavailable");
    assert!(text(&unavailable, "reason").contains("TLS with 127.0.0.1"), "{unavailable}");
    assert!(text(&unavailable, "advice").contains("tls_ca_file"), "{unavailable}");
    assert!(tenant.tokens.seen().requests.is_empty());
    tenant.is_well(&relay);
}

#[test]
fn an_application_without_its_permission_alarms_and_keeps_the_mail() {
    let tenant = Tenant::new(2, App { permitted: false, ..with_secret() });
    let relay = tenant.start();
    let mut client = Client::hello(relay.address);
    send(&mut client, "kept");
    let refused = relay.wait_for("the refusal", |line| text(line, "reason").contains("5.7.144"));
    assert!(text(&refused, "advice").contains("Mail.Send"), "{refused}");
    assert_eq!(text(&refused, "event"), "app-paused");
    relay.wait_for("a login without mail", |line| line["event"] == "login-tried" && text(line, "reason").contains("5.7.144"));
    assert_eq!(relay.logged(|line| line["event"] == "alarm-raised").len(), 1, "for both of its accounts");
    tenant.issuer.set_apps(vec![with_secret()]);
    tenant.taken(&relay, 1);
    tenant.is_well(&relay);
}

#[test]
fn an_account_that_the_application_is_not_allowed_for_rests_and_the_others_go_on() {
    let tenant = Tenant::new(2, App { accounts: Some(vec![account(2)]), ..with_secret() });
    let relay = tenant.start();
    let mut client = Client::hello(relay.address);
    for n in 0..6 {
        send(&mut client, &format!("n{n}"));
    }
    let taken = tenant.taken(&relay, 6);
    assert!(taken.iter().all(|taken| taken.account == account(2)));
    let paused = event(&relay, "account-paused");
    assert_eq!(text(&paused, "account"), account(1));
    assert!(text(&paused, "advice").contains("Add-HVEAppAccess"), "{paused}");
    tenant.is_well(&relay);
}

#[test]
fn a_server_that_does_not_take_tokens_gets_none() {
    let tenant = Tenant::with(1, with_secret(), |settings| settings.mechanisms = vec![hve_relay::sim::Mechanism::Login], "");
    let relay = tenant.start();
    send(&mut Client::hello(relay.address), "kept");
    let paused = event(&relay, "route-paused");
    assert!(text(&paused, "reason").contains("not XOAUTH2"), "{paused}");
    assert!(tenant.sim.counters().logins.is_empty());
    tenant.is_well(&relay);
}

#[test]
fn an_end_that_comes_near_is_announced_at_start_and_by_check() {
    let date = (Clock::wall() + Duration::from_secs(6 * 86_400)).date();
    let parts: Vec<i32> = date.split('-').map(|part| part.parse().expect("a number")).collect();
    let tenant = Tenant::new(1, App::new(CLIENT_ID, AppProof::Certificate(certificate((parts[0], parts[1] as u8, parts[2] as u8)))));
    let relay = tenant.start();
    let ends = event(&relay, "credential-ends");
    assert_eq!(
        (text(&ends, "level"), text(&ends, "used_by"), text(&ends, "what"), ends["days"].as_i64()),
        ("ERROR", "app hve", "certificate", Some(6))
    );
    assert!(text(&ends, "ends").starts_with(&date), "{ends}");
    let alarm = event(&relay, "alarm-raised");
    assert!(text(&alarm, "alarm").starts_with("certificate-ending ") && text(&alarm, "why").contains(&date), "{alarm}");
    let check = Command::new(env!("CARGO_BIN_EXE_hve-relay")).args(["check", "--config"]).arg(tenant.setup.write()).output().expect("run");
    let said = String::from_utf8_lossy(&check.stderr);
    assert!(check.status.success() && said.contains(&format!("ends within 6 days, on {date}")), "{said}");

    let tenant = Tenant::with(1, with_secret(), |_| {}, &format!("client_secret_expires = {date:?}"));
    let relay = tenant.start();
    let ends = event(&relay, "credential-ends");
    assert_eq!((text(&ends, "what"), ends["days"].as_i64()), ("client secret", Some(6)));
    assert_eq!(text(&event(&relay, "alarm-raised"), "alarm"), "secret-ending hve");
}

/// An HTTP proxy that connects where it is told and keeps what it was told; or that refuses with a status.
struct Proxy {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start(refusal: Option<u16>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (address, heads) = (listener.local_addr().expect("an address"), Arc::new(Mutex::new(Vec::new())));
        let kept = heads.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let mut octet = [0];
                    if stream.read(&mut octet).unwrap_or(0) == 0 {
                        break;
                    }
                    head.push(octet[0]);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
                kept.lock().expect("unpoisoned").push(head);
                if let Some(status) = refusal {
                    let _ = stream.write_all(format!("HTTP/1.1 {status} no\r\nContent-Length: 0\r\n\r\n").as_bytes());
                    continue;
                }
                let Ok(onward) = TcpStream::connect(&target) else { continue };
                let _ = stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n");
                let pump = |mut from: TcpStream, mut to: TcpStream| {
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Write);
                    });
                };
                let again = |stream: &TcpStream| stream.try_clone().expect("a second handle");
                pump(again(&stream), again(&onward));
                pump(onward, stream);
            }
        });
        Self { address, heads }
    }

    fn url(&self) -> String {
        format!("http://relay:pa55-of-the-proxy@{}", self.address)
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("unpoisoned").clone()
    }
}

#[test]
fn a_proxy_of_the_environment_is_asked_for_a_tunnel() {
    let (tenant, proxy) = (Tenant::new(1, with_secret()), Proxy::start(None));
    let relay = Relay::start_in(&tenant.setup.write(), &[("HTTPS_PROXY", &proxy.url())]);
    send(&mut Client::hello(relay.address), "through the proxy");
    tenant.taken(&relay, 1);
    let heads = proxy.heads();
    assert_eq!(heads.len(), 1, "the token, and not the mail: {heads:?}");
    let (target, head) = (tenant.tokens.address(), heads[0].to_ascii_lowercase());
    assert!(head.starts_with(&format!("connect {target} http/1.1\r\n")) && head.contains(&format!("host: {target}\r\n")), "{head}");
    assert!(head.contains("proxy-authorization: basic "), "{head}");
    assert_eq!(tenant.tokens.seen().outcomes("issued"), 1);
    tenant.is_well(&relay);
}

#[test]
fn a_host_that_no_proxy_is_for_is_reached_directly() {
    let (tenant, proxy) = (Tenant::new(1, with_secret()), Proxy::start(None));
    let relay = Relay::start_in(&tenant.setup.write(), &[("HTTPS_PROXY", &proxy.url()), ("NO_PROXY", "127.0.0.0/8")]);
    send(&mut Client::hello(relay.address), "past the proxy");
    tenant.taken(&relay, 1);
    assert_eq!(proxy.heads(), Vec::<String>::new());
    tenant.is_well(&relay);
}

#[test]
fn a_proxy_that_refuses_is_named_in_the_log() {
    let (tenant, proxy) = (Tenant::new(1, with_secret()), Proxy::start(Some(407)));
    let relay = Relay::start_in(&tenant.setup.write(), &[("https_proxy", &proxy.url())]);
    send(&mut Client::hello(relay.address), "kept");
    let unavailable = event(&relay, "token-unavailable");
    let wanted = format!("the proxy {} does not connect to {}: HTTP 407", proxy.address, tenant.tokens.address());
    assert!(text(&unavailable, "reason").contains(&wanted), "{unavailable}");
    assert!(text(&unavailable, "advice").contains("HTTPS_PROXY"), "{unavailable}");
    until("another try", || proxy.heads().len() > 1);
    assert!(tenant.tokens.seen().requests.is_empty());
    tenant.is_well(&relay);
}
