//! What those who watch the relay see: a real scrape, the alerts and the dashboard that use it, and whether the relay is alive and ready.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use hve_relay::sim::{Action, Fault, Step};
use hve_relay::telemetry::METRICS;
use serde_json::Value;
use support::client::Client;
use support::{World, mail, until};

const TO: &[&str] = &["you@contoso.com"];

/// One request to the relay's socket: status, header and body.
fn get(socket: &Path, path: &str) -> (u16, String, String) {
    let mut stream = UnixStream::connect(socket).expect("the socket");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n").expect("written");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a header that ends");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    (status, head.to_owned(), body.to_owned())
}

fn socket(world: &World) -> PathBuf {
    world.setup.data_dir().join("control.sock")
}

fn scrape(world: &World) -> String {
    let (status, head, body) = get(&socket(world), "/metrics");
    assert_eq!(status, 200, "{body}");
    assert!(head.contains("application/openmetrics-text"), "{head}");
    assert!(body.ends_with("# EOF\n"), "{body}");
    body
}

/// The value of a series, written as in a scrape; none if it is not there.
fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// A relay that has seen everything that a scrape can show, and a client that has not gone.
fn busy() -> (World, Client) {
    let world = World::with(
        1,
        |_| {},
        |setup| {
            setup
                .patient()
                .client("notify = \"none\"")
                .with("[limits]\nsessions_per_address = 1\n[account_limits]\nexternal_per_minute = 1\n[log]\nlevel = \"debug\"")
        },
    );
    world.faults([Fault::reply(Step::Rcpt, "550 5.1.1 nobody here").recipient("gone@contoso.com")]);
    let mut client = world.client();
    let (_, greeting) = Client::greeted(world.relay.address);
    assert!(greeting.starts_with("421 4.7.0 "), "{greeting}");
    // A habit.
    client.raw(b"NOOP\n");
    assert!(client.reply().starts_with("250"));
    let id = client.accepted("app@contoso.com", &["you@contoso.com", "gone@contoso.com"], &mail("both", b"text\r\n"));
    client.expect("MAIL FROM:<app@contoso.com> SIZE=99999999999", "552");
    world.removed(&id);
    for number in ["one", "two"] {
        client.accepted("app@contoso.com", &["you@fabrikam.example"], &mail(number, b"text\r\n"));
    }
    until("what waits for a budget", || {
        value(&scrape(&world), "hve_relay_waiting_deliveries{priority=\"normal\",class=\"external\"}") == Some(1.0)
    });
    (world, client)
}

#[test]
fn a_scrape_says_what_has_happened_and_what_is_so() {
    let (world, _client) = busy();
    let text = scrape(&world);
    let is = |series: &str, wanted: f64| assert_eq!(value(&text, series), Some(wanted), "{series} in\n{text}");
    is("hve_relay_sessions_total{client=\"devices\"}", 1.0);
    is("hve_relay_sessions_open", 1.0);
    is("hve_relay_connections_refused_total{status=\"4.7.0\"}", 1.0);
    is("hve_relay_accepted_messages_total{client=\"devices\"}", 3.0);
    is("hve_relay_accepted_recipients_total{client=\"devices\"}", 4.0);
    is("hve_relay_accept_seconds_count", 3.0);
    is("hve_relay_refusals_total{client=\"devices\",status=\"5.3.4\"}", 1.0);
    is("hve_relay_recipients_total{account=\"hve01@contoso.com\",class=\"internal\",outcome=\"sent\"}", 1.0);
    is("hve_relay_recipients_total{account=\"hve01@contoso.com\",class=\"internal\",outcome=\"bounced\"}", 1.0);
    is("hve_relay_attempts_total{account=\"hve01@contoso.com\",outcome=\"partial\",scope=\"recipient\"}", 1.0);
    is("hve_relay_in_doubt_total{account=\"hve01@contoso.com\"}", 0.0);
    is("hve_relay_budget_limit{holder=\"hve01@contoso.com\",limit=\"external_per_minute\"}", 1.0);
    is("hve_relay_budget_used{holder=\"hve01@contoso.com\",limit=\"external_per_minute\"}", 1.0);
    is("hve_relay_queue_deliveries{state=\"ready\"}", 1.0);
    is("hve_relay_account_usable{account=\"hve01@contoso.com\",class=\"internal\"}", 1.0);
    is("hve_relay_account_usable{account=\"hve01@contoso.com\",class=\"external\"}", 0.0);
    is("hve_relay_habits_total{client=\"devices\",habit=\"bare-lf-in-commands\"}", 1.0);
    is("hve_relay_store_refusals_total{result=\"busy\"}", 0.0);
    is("hve_relay_log_lines_lost_total", 0.0);
    is("hve_relay_ready", 1.0);
    for step in ["connect", "greeting", "ehlo", "starttls", "tls", "auth", "mail", "rcpt", "data", "content", "end-of-data"] {
        let count = value(&text, &format!("hve_relay_upstream_step_seconds_count{{step=\"{step}\"}}"));
        assert!(count.is_some_and(|count| count >= 1.0), "{step} in\n{text}");
    }
    for positive in ["hve_relay_store_commit_seconds_count", "hve_relay_store_spare_bytes", "hve_relay_start_time_seconds"] {
        assert!(value(&text, positive).is_some_and(|value| value > 0.0), "{positive} in\n{text}");
    }
    let left = value(&text, "hve_relay_empty_in_seconds{priority=\"normal\",class=\"external\"}").expect("a forecast");
    assert!(left > 0.0 && left <= 60.0, "{left}");
    let steps = world.relay.wait_for("attempt-ended", |line| line["event"] == "attempt-ended");
    assert!(steps["steps"].as_str().is_some_and(|steps| steps.contains("end of data 0.")), "{steps}");
}

#[test]
fn a_scrape_has_what_the_table_has_and_no_text_of_clients_or_servers() {
    let (world, _client) = busy();
    let text = scrape(&world);
    let known: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a name and a kind");
        let metric = METRICS.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("{name} is not in the table"));
        assert_eq!(metric.kind, kind, "{name}");
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().expect("a name");
        let base = ["_total", "_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        assert!(known.contains(name) || base.is_some_and(|base| known.contains(base)), "{line}");
    }
    for foreign in ["you@", "gone@", "app@", "fabrikam", "nobody here", "s3cret"] {
        assert!(!text.contains(foreign), "{foreign} in\n{text}");
    }
}

/// The names of metrics in the text, as they stand in a scrape.
fn names(text: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let found = text.match_indices("hve_relay_").map(|(at, _)| text[at..].chars().take_while(|c| word(*c)).collect::<String>());
    found.collect()
}

#[test]
fn alerts_and_dashboard_use_only_names_of_a_real_scrape() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).expect(path);
    let (world, _client) = busy();
    // Some series are there only with an application, a certificate or an alarm; their names are in the table.
    let only_with = ["hve_relay_token_left_seconds", "hve_relay_credential_ends_seconds", "hve_relay_alarms_standing"];
    let real: BTreeSet<String> = names(&scrape(&world)).into_iter().chain(only_with.map(str::to_owned)).collect();
    for path in ["deploy/prometheus/alerts.yml", "deploy/grafana/hve-relay.json"] {
        let used = names(&read(path));
        assert!(used.len() > 5, "{path} uses {used:?}");
        let unknown: Vec<&String> = used.difference(&real).collect();
        assert!(unknown.is_empty(), "{path} uses {unknown:?}");
    }
    for name in only_with {
        assert!(METRICS.iter().any(|metric| metric.name == name), "{name}");
    }
    let alerts = read("deploy/prometheus/alerts.yml");
    let (rules, advice) = (alerts.matches("- alert: ").count(), alerts.matches("description: ").count());
    assert!(rules > 5 && rules == advice, "{rules} alerts, {advice} that say what to do");
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/hve-relay.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let queries =
        |panel: &Value| panel["targets"].as_array().is_some_and(|targets| targets.iter().all(|target| target["expr"].is_string()));
    assert!(panels.iter().filter(|panel| panel["type"] != "row").all(queries));
}

#[test]
fn a_relay_is_ready_as_long_as_mail_may_be_sent_to_it_and_says_nothing_about_being_asked() {
    let world = World::with(1, |_| {}, |setup| setup.with("[log]\nlevel = \"trace\""));
    let at = socket(&world);
    let lines = world.relay.log_text();
    assert_eq!(get(&at, "/livez"), (200, get(&at, "/livez").1, "alive\n".to_owned()));
    for _ in 0..3 {
        let (status, _, body) = get(&at, "/readyz");
        assert_eq!((status, body.as_str()), (200, "ready\n"));
        scrape(&world);
    }
    assert_eq!(world.relay.log_text(), lines, "nothing of this is logged");

    let config = world.setup.folder().join("hve-relay.toml");
    let accounts = |what: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hve-relay"));
        command.args(["accounts", what, "hve01@contoso.com", "--config"]).arg(&config).stdin(Stdio::null()).stdout(Stdio::null());
        assert!(command.status().expect("the binary").success());
    };
    accounts("suspend");
    let (status, _, body) = get(&at, "/readyz");
    assert_eq!(status, 503);
    assert!(body.contains("no route can send") && body.contains("hve-relay accounts"), "{body}");
    assert_eq!(value(&scrape(&world), "hve_relay_ready"), Some(0.0));
    assert_eq!(get(&at, "/livez").0, 200, "it is alive all the same");
    accounts("resume");
    assert_eq!(get(&at, "/readyz").0, 200);

    let mut client = world.client();
    client.expect("MAIL FROM:<app@contoso.com>", "250");
    client.expect("RCPT TO:<you@contoso.com>", "250");
    client.expect("DATA", "354");
    world.relay.signal("TERM");
    until("the end of readiness", || get(&at, "/readyz").2.contains("the relay is stopping"));
    client.hang_up();
}

#[test]
fn an_attempt_in_doubt_is_counted() {
    let world = World::with(1, |_| {}, |setup| setup.queue("in_doubt = \"hold\""));
    world.faults([Fault::new(Step::EndOfData, Action::TakeAndDrop).first(1)]);
    world.client().accepted("app@contoso.com", TO, &mail("doubt", b"text\r\n"));
    world.relay.wait_for("in-doubt-held", |line| line["event"] == "in-doubt-held");
    let counted = || {
        let text = scrape(&world);
        let attempts = value(&text, "hve_relay_attempts_total{account=\"hve01@contoso.com\",outcome=\"in-doubt\",scope=\"connection\"}");
        (value(&text, "hve_relay_in_doubt_total{account=\"hve01@contoso.com\"}"), attempts)
    };
    until("both counters", || counted() == (Some(1.0), Some(1.0)));
}
