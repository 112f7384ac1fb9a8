//! Another configuration while the real relay runs: what changes, what goes on, and that nothing is dropped or lost by it.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use hve_relay::sim::{Limits, Senders, Settings, Sim};
use serde_json::Value;
use support::client::Client;
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
        let steps: [(&str, &str); 12] = [
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
    assert_eq!(relay.world.relay.logged(|line| line["event"] == "reloaded").len(), 11);
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

    // Who may use the page.
    relay.edit("/elsewhere\"", "/data\"");
    relay.edit("listen = \"none\"\n", "listen = \"127.0.0.1:1\"\n");
    let said = reload(&relay.config);
    let text = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(78), "{text}");
    assert!(text.contains("admin: ") && text.contains("need a restart"), "{text}");
    relay.edit("listen = \"127.0.0.1:1\"\n", "listen = \"none\"\n");

    // An address that somebody else listens on.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
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
