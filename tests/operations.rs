//! End to end: what an operator sees of the running relay's queue and accounts, and what becomes of what he does, also across kill -9.

mod support;

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use hve_relay::sim::{Action, Fault, Step};
use serde_json::Value;
use support::relay::Relay;
use support::{World, mail, until};

const TO: &[&str] = &["you@contoso.com"];
const OUTSIDE: &[&str] = &["you@fabrikam.example"];

/// Two external messages in five seconds, from one account at a time.
const SHORT: &str = "[account_limits]\nexternal_per_minute = 2\nminute = \"5s\"";

/// What a command came to.
struct Said {
    status: i32,
    out: String,
    err: String,
}

impl Said {
    fn of(output: Output) -> Self {
        let text = |octets: Vec<u8>| String::from_utf8(octets).expect("text");
        Self { status: output.status.code().expect("an exit status"), out: text(output.stdout), err: text(output.stderr) }
    }

    fn ok(self) -> String {
        assert_eq!(self.status, 0, "{}{}", self.out, self.err);
        self.out
    }

    /// It ended with this status and said this on standard error.
    fn refused(self, status: i32, with: &str) {
        assert_eq!(self.status, status, "{}{}", self.out, self.err);
        assert!(self.err.contains(with), "{:?} does not say {with:?}", self.err);
    }
}

fn hve_relay(arguments: &[&str]) -> Said {
    Said::of(Command::new(env!("CARGO_BIN_EXE_hve-relay")).args(arguments).stdin(Stdio::null()).output().expect("the binary"))
}

trait Operated {
    fn config(&self) -> PathBuf;
    fn socket(&self) -> PathBuf;

    fn operate(&self, line: &str) -> Said {
        let config = self.config().display().to_string();
        let arguments: Vec<&str> = line.split(' ').chain(["--config", &config]).collect();
        hve_relay(&arguments)
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.operate(&format!("{line} --json")).ok()).expect("JSON")
    }

    fn listed(&self, filter: &str) -> Vec<Value> {
        self.json(&format!("queue list{filter}"))["entries"].as_array().expect("entries").clone()
    }

    /// Waits until so many deliveries are listed that wait for this.
    fn waiting(&self, reason: &str, count: usize) -> Vec<Value> {
        let mut found = Vec::new();
        until(&format!("{count} that wait for {reason}"), || {
            found = self.listed(&format!(" --reason {reason}"));
            found.len() == count
        });
        found
    }

    fn account(&self, number: usize) -> Value {
        self.json("accounts")["accounts"][number - 1].clone()
    }
}

impl Operated for World {
    fn config(&self) -> PathBuf {
        self.setup.folder().join("hve-relay.toml")
    }

    fn socket(&self) -> PathBuf {
        self.setup.data_dir().join("control.sock")
    }
}

/// The same world with another configuration.
fn reconfigured(mut world: World, change: impl FnOnce(String) -> String) -> World {
    world.relay.kill();
    let config = world.config();
    let text = std::fs::read_to_string(&config).expect("a configuration");
    std::fs::write(&config, change(text)).expect("written");
    world.relay = Relay::start(&config);
    world
}

fn millis(time: &Value) -> i64 {
    let time: jiff::Timestamp = time.as_str().expect("a time").parse().expect("a time");
    time.as_millisecond()
}

/// When the attempt that sent a message began, on the relay's clock.
fn started(world: &World, entry: &Value) -> i64 {
    let id = entry["id"].as_str().and_then(|id| id.split('.').next()).expect("an id").to_owned();
    let line =
        world.relay.wait_for("the delivery", |line| line["event"] == "delivery" && line["queue_id"] == id && line["status"] == "sent");
    let waited: f64 =
        line["delays"].as_str().and_then(|delays| delays.split('/').next()).and_then(|text| text.parse().ok()).expect("delays");
    millis(&entry["accepted"]) + (waited * 1_000.0).round() as i64
}

#[test]
fn what_waits_for_a_budget_is_told_with_the_time_at_which_it_then_goes() {
    let world = World::with(1, |_| {}, |setup| setup.with(SHORT));
    let mut client = world.client();
    for n in 0..3 {
        client.accepted("app@contoso.com", OUTSIDE, &mail(&format!("n{n}"), b"text\r\n"));
    }
    // Once nothing is under way, the time is final.
    world.relay.wait_for_all("two of them", 2, |line| line["event"] == "removed");
    let entry = world.waiting("budget", 1).remove(0);
    assert_eq!(entry["reason"], "external_per_minute of hve01@contoso.com is used up");
    for (field, value) in [
        ("client", "devices"),
        ("from", "app@contoso.com"),
        ("subject", "n2"),
        ("class", "external"),
        ("priority", "normal"),
        ("route", "hve"),
    ] {
        assert_eq!(entry[field], value, "{field}");
    }
    assert_eq!((entry["recipients"].clone(), entry["attempts"].clone(), entry["held"].clone()), (1.into(), 0.into(), false.into()));
    let table = world.operate("queue list").ok();
    for part in [entry["id"].as_str().expect("an id"), "external_per_minute of", "devices"] {
        assert!(table.contains(part), "{table}");
    }
    let account = world.account(1);
    let wait = &account["waits"][0];
    assert_eq!(
        (account["state"].clone(), wait["class"].clone(), wait["until"].clone()),
        ("ready".into(), "external".into(), entry["until"].clone())
    );
    let budget =
        account["budgets"].as_array().expect("budgets").iter().find(|one| one["limit"] == "external_per_minute").expect("a budget");
    assert_eq!((budget["used"].clone(), budget["max"].clone(), budget["frees_at"].clone()), (2.into(), 2.into(), entry["until"].clone()));
    assert!(world.operate("accounts").ok().contains("external_per_minute 2/2"));
    let (started, promised) = (started(&world, &entry), millis(&entry["until"]));
    assert!((promised..promised + 4_000).contains(&started), "promised {promised}, sent {started}");
    assert_eq!(world.sim.counters().refused(""), 0);
    world.relay.stop();
}

#[test]
fn a_hold_survives_kill_9_and_ends_with_its_release() {
    let world = World::new(1);
    world.runtime.block_on(world.sim.down());
    let id = world.client().accepted("app@contoso.com", TO, &mail("held", b"text\r\n"));
    world.operate(&format!("queue hold {id}")).ok();
    let world = world.crash_and_restart(|world| world.runtime.block_on(world.sim.up()).expect("up"));
    let other = world.client().accepted("app@contoso.com", TO, &mail("other", b"text\r\n"));
    world.removed(&other);
    let entry = world.waiting("held", 1).remove(0);
    assert_eq!(
        (entry["held"].clone(), entry["reason"].clone(), entry["until"].clone()),
        (true.into(), "an operator holds it".into(), Value::Null)
    );
    world.operate(&format!("queue retry {id}")).refused(1, "release it");
    assert!(world.operate(&format!("queue hold {id}")).ok().contains("held already"));
    assert!(world.operate(&format!("queue release {id}.1")).ok().contains("1 delivery released"));
    world.removed(&id);
    let released = world.relay.wait_for("the release", |line| line["event"] == "queue-released");
    assert_eq!((released["queue_id"].clone(), released["client"].clone()), (id.as_str().into(), "devices".into()));
    assert!(released["by"].as_str().is_some_and(|by| by.starts_with("uid ")), "{released}");
    assert_eq!(world.taken(2).len(), 2);
}

#[test]
fn deferred_mail_is_due_once_it_is_retried_also_after_kill_9() {
    let world = reconfigured(World::new(1), |text| text.replace("retry_min = \"100ms\"\nretry_max = \"400ms\"", "retry_min = \"1h\""));
    world.faults([Fault::reply(Step::Rcpt, "451 4.7.999 Not now").first(1)]);
    let id = world.client().accepted("app@contoso.com", TO, &mail("retry", b"text\r\n"));
    let entry = world.waiting("deferred", 1).remove(0);
    assert!(entry["reason"].as_str().is_some_and(|reason| reason.contains("451 4.7.999 Not now")), "{entry}");
    let ahead = millis(&entry["until"]) - millis(&entry["accepted"]);
    assert!((3_000_000..4_200_000).contains(&ahead), "an hour, more or less: {ahead}");
    world.operate("accounts suspend hve01@contoso.com").ok();
    assert!(world.operate(&format!("queue retry {id}")).ok().contains("1 delivery due now"));
    assert_eq!(world.waiting("suspended", 1)[0]["attempts"], 1);
    assert!(world.operate("queue retry --all").ok().contains("0 deliveries due now; 1 delivery not deferred"));
    let world = world.crash_and_restart(|_| {});
    world.waiting("suspended", 1);
    world.operate("accounts resume hve01@contoso.com").ok();
    world.removed(&id);
}

#[test]
fn removing_says_how_many_do_not_get_it_and_leaves_nothing_of_the_content() {
    let world = World::new(1);
    world.operate("accounts suspend hve01@contoso.com").ok();
    let to: Vec<String> = (0..57).map(|n| format!("u{n}@contoso.com")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let large = mail("scan", &b"a line of a scan that is large enough to lie in a file of its own\r\n".repeat(1_000));
    let id = world.client().accepted("app@contoso.com", &to, &large);
    let kept = world.client().accepted("app@contoso.com", TO, &mail("kept", b"text\r\n"));
    world.waiting("suspended", 3);
    let shelf = world.setup.data_dir().join("content").join(&id[6..8]).join(format!("{id}.eml"));
    assert!(shelf.exists());
    world.operate(&format!("queue remove {id}")).refused(64, "57 recipients will not get it");
    assert_eq!(world.listed("").len(), 3, "nothing was removed without a word");
    let said = world.operate(&format!("queue remove {id} --yes")).ok();
    assert!(said.contains("2 deliveries removed; 57 recipients will not get it"), "{said}");
    let lines = world.relay.wait_for_all("both", 2, |line| line["event"] == "queue-removed" && line["queue_id"] == id.as_str());
    assert_eq!(lines.iter().map(|line| line["nrcpt"].as_u64().expect("a number")).sum::<u64>(), 57);
    world.removed(&id);
    assert!(!shelf.exists());
    world.operate(&format!("queue remove {id} --yes")).refused(1, "is not queued");
    let world = world.crash_and_restart(|_| {});
    assert_eq!(world.listed("").iter().map(|entry| entry["id"].clone()).collect::<Vec<_>>(), [format!("{kept}.1")]);
    world.operate("accounts resume hve01@contoso.com").ok();
    world.removed(&kept);
    assert_eq!(world.taken(1).len(), 1);
}

#[test]
fn what_is_under_way_is_not_removed() {
    let world = World::new(1);
    world.faults([Fault::new(Step::EndOfData, Action::Silence)]);
    let id = world.client().accepted("app@contoso.com", TO, &mail("under-way", b"text\r\n"));
    world.waiting("under-way", 1);
    world.operate(&format!("queue remove {id} --yes")).refused(1, "under way");
    let said = world.operate("queue remove --all --yes").ok();
    assert!(said.contains("0 deliveries removed") && said.contains("1 delivery left, as an attempt is under way"), "{said}");
    world.operate(&format!("queue hold {id}")).ok();
    assert_eq!(world.listed("")[0]["held"], true);
    let world = world.crash_and_restart(|world| world.faults([]));
    world.waiting("held", 1);
    world.operate("queue remove --all --yes").ok();
    assert!(world.listed("").is_empty());
}

#[test]
fn a_filter_says_which_mail_is_meant() {
    let world = World::new(1);
    world.operate("accounts suspend hve01@contoso.com").ok();
    let mut client = world.client();
    for n in 0..30 {
        client.accepted("app@contoso.com", if n % 3 == 0 { OUTSIDE } else { TO }, &mail(&format!("n{n}"), b"text\r\n"));
    }
    world.waiting("suspended", 30);
    assert_eq!(world.listed(" --limit 7").len(), 7);
    assert_eq!(world.listed(" --class external").len(), 10);
    assert_eq!(world.listed(" --client nobody").len(), 0);
    assert!(world.operate("queue list --limit 7").ok().contains("There is more"));
    assert!(!world.operate("queue list --limit 30").ok().contains("There is more"));
    assert!(world.operate("queue hold --class external").ok().contains("10 deliveries held"));
    assert_eq!(world.listed(" --reason held").len(), 10);
    assert!(world.operate("queue release --reason held").ok().contains("10 deliveries released"));
    assert!(world.operate("queue remove --class internal --yes").ok().contains("20 deliveries removed; 20 recipients"));
    assert_eq!(world.listed("").len(), 10);
    for (line, said) in [
        ("queue list --class foreign", "internal, external"),
        ("queue list --reason bored", "held"),
        ("queue hold --priority low", "high, normal, bulk"),
    ] {
        world.operate(line).refused(1, said);
    }
    world.operate("queue release").refused(64, "--all");
}

#[test]
fn the_status_tells_what_waits_and_which_accounts_do_not_take_mail() {
    let world = World::with(2, |_| {}, |setup| setup.with("[tenant_limits]\nrecipients_per_day = 1000"));
    assert!(world.operate("status").ok().contains("2 of 2 accounts ready\nqueue: 0 deliveries under way, 0 ready"));
    world.operate("accounts suspend hve01@contoso.com --reason audit").ok();
    world.operate("accounts suspend hve02@contoso.com").ok();
    world.client().accepted("a@contoso.com", TO, &mail("waits", b"x\r\n"));
    world.waiting("suspended", 1);
    let said = world.operate("status").ok();
    for wanted in ["0 of 2 accounts ready", "hve01@contoso.com is suspended: audit", "normal internal", "recipients_per_day"] {
        assert!(said.contains(wanted), "{said}");
    }
    assert_eq!(world.json("status")["queue"]["ready"], 1);
}

#[test]
fn a_suspension_survives_a_restart_and_ends_when_it_is_resumed() {
    let world = World::new(2);
    assert!(world.operate("accounts suspend HVE01@contoso.com --reason audit").ok().contains("until it is resumed"));
    world.operate("accounts suspend hve02@contoso.com --for 2h --reason password").ok();
    let id = world.client().accepted("app@contoso.com", TO, &mail("waits", b"text\r\n"));
    let entry = world.waiting("suspended", 1).remove(0);
    assert_eq!(entry["reason"], "every account that may take it is suspended: password", "the one that ends first");
    let world = world.crash_and_restart(|_| {});
    let (first, second) = (world.account(1), world.account(2));
    assert_eq!((first["state"].clone(), first["until"].clone()), ("suspended".into(), Value::Null));
    assert_eq!(first["reason"], "hve01@contoso.com is suspended: audit");
    assert!((entry["until"].as_str().is_some()) && second["reason"] == "hve02@contoso.com is suspended: password");
    assert!((millis(&second["until"]) - millis(&entry["until"])).abs() < 1_000, "{second} {entry}");
    assert!(world.operate("accounts").ok().contains("audit"));
    assert!(world.operate("accounts resume hve01@contoso.com").ok().contains("hve01@contoso.com is in use"));
    world.removed(&id);
    let delivery = world.relay.wait_for("the delivery", |line| line["event"] == "delivery");
    assert_eq!(delivery["account"], "hve01@contoso.com");
    let world = world.crash_and_restart(|_| {});
    assert_eq!((world.account(1)["state"].clone(), world.account(2)["state"].clone()), ("ready".into(), "suspended".into()));
    world.operate("accounts suspend nobody@contoso.com").refused(1, "there is no account nobody@contoso.com");
    world.operate("accounts suspend hve01@contoso.com --for soon").refused(1, "duration");
    world.operate("accounts suspend hve01@contoso.com --for 0s").refused(1, "lasts");
}

#[test]
fn a_suspension_for_a_time_ends_by_itself() {
    let world = World::new(1);
    world.operate("accounts suspend hve01@contoso.com --for 2s --reason short").ok();
    world.client().accepted("app@contoso.com", TO, &mail("waits", b"text\r\n"));
    let entry = world.waiting("suspended", 1).remove(0);
    let (started, promised) = (started(&world, &entry), millis(&entry["until"]));
    assert!((promised..promised + 4_000).contains(&started), "promised {promised}, sent {started}");
}

#[test]
fn a_message_is_shown_with_all_that_is_known_of_it() {
    let world = World::new(1);
    world.operate("accounts suspend hve01@contoso.com --reason audit").ok();
    let id = world.client().accepted("app@contoso.com", &[TO, OUTSIDE].concat(), &mail("story", b"text\r\n"));
    world.waiting("suspended", 2);
    let detail = world.json(&format!("queue show {}", id.to_lowercase()));
    assert_eq!((detail["message"]["id"].clone(), detail["message"]["peer"].clone()), (id.as_str().into(), "127.0.0.1".into()));
    assert_eq!(detail["message"]["message_id"], "<story@contoso.com>");
    let recipients: Vec<Value> = detail["deliveries"].as_array().expect("both").iter().map(|one| one["recipients"][0].clone()).collect();
    assert_eq!(recipients, [TO[0], OUTSIDE[0]]);
    let shown = world.operate(&format!("queue show {id}.2")).ok();
    for part in
        [&id, "you@fabrikam.example", "every account that may take it is suspended: audit", "accounts resume", "<story@contoso.com>"]
    {
        assert!(shown.contains(part), "{shown}");
    }
    assert!(!shown.contains("you@contoso.com"));
    for (wrong, said) in [("hello", "is no queue id"), ("0000000000000", "is not queued"), (&format!("{id}.9"), "is not queued")] {
        for verb in ["show", "hold", "release", "retry", "remove"] {
            world.operate(&format!("queue {verb} {wrong}")).refused(1, said);
        }
    }
}

#[test]
fn twenty_accounts_are_listed_each_on_its_own() {
    let world = World::new(20);
    let accounts = world.json("accounts");
    let names: Vec<Value> = accounts["accounts"].as_array().expect("accounts").iter().map(|account| account["name"].clone()).collect();
    assert_eq!(names, (1..=20).map(support::account).collect::<Vec<_>>());
    let table = world.operate("accounts").ok();
    for n in 1..=20 {
        assert!(table.contains(&support::account(n)), "{table}");
    }
    assert!(table.lines().all(|line| line.chars().count() <= 150), "{table}");
}

#[test]
fn the_socket_is_for_the_relays_group_and_goes_with_it() {
    let world = World::new(1);
    let (socket, config) = (world.socket(), world.config());
    assert_eq!(std::fs::metadata(&socket).expect("there").mode() & 0o7777, 0o660);
    world.relay.stop();
    assert!(!socket.exists());
    let shown = socket.display().to_string();
    let ask = |arguments: &[&str]| hve_relay(arguments);
    ask(&["queue", "list", "--config", &config.display().to_string()]).refused(69, &shown);
    ask(&["accounts", "--socket", "/nowhere/control.sock"]).refused(69, "no relay answers at /nowhere/control.sock");
    ask(&["accounts", "--config", "/nowhere/hve-relay.toml"]).refused(66, "--socket");
    // What a killed relay leaves behind, and something that is no relay.
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("bound"));
    ask(&["queue", "list", "--socket", &shown]).refused(69, "has ended");
    std::fs::remove_file(&socket).expect("removed");
    let stranger = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
    let thread = std::thread::spawn(move || {
        use std::io::Write;
        stranger.accept().expect("a visitor").0.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").expect("said");
    });
    ask(&["queue", "list", "--socket", &shown]).refused(69, "gave no answer");
    thread.join().expect("a stranger");
}

#[test]
fn the_socket_may_lie_where_operators_can_reach_it() {
    let elsewhere = tempfile::tempdir().expect("a folder");
    let socket = elsewhere.path().join("control.sock");
    let socket_line = format!("control_socket = \"{}\"\n", socket.display());
    let world = reconfigured(World::new(1), |text| format!("{socket_line}{text}"));
    assert!(socket.exists() && world.listed("").is_empty());
    // Of two relays with one socket the second says so and lets the first go on.
    let other = World::new(1);
    let text = std::fs::read_to_string(other.config()).expect("a configuration");
    let shared = other.setup.folder().join("shared.toml");
    std::fs::write(&shared, format!("{socket_line}{}", text.replace("/data\"", "/data2\""))).expect("written");
    let mut second = Relay::spawn(&shared);
    assert_eq!(second.ended().code(), Some(74));
    assert!(second.log_text().contains("another process answers there"), "{}", second.log_text());
    assert!(world.listed("").is_empty());
}
