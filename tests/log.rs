//! The log as an operator has it: in a file that is begun anew, without addresses, and louder or quieter while the relay runs.

mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use hve_relay::sim::{Fault, Step};
use serde_json::Value;
use support::client::Client;
use support::relay::{Relay, events_in};
use support::{World, endpoint, mail, runtime, setup, until};

const TO: &[&str] = &["you@contoso.com"];

/// What `hve-relay log` says, with these arguments.
fn log(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    let config = folder.join("hve-relay.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hve-relay"));
    let output = command.arg("log").args(arguments).arg("--config").arg(config).stdin(Stdio::null()).output().expect("the binary");
    let text = |octets: Vec<u8>| String::from_utf8(octets).expect("text");
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_file_in_place_of_standard_error_goes_on_where_it_was_moved_away() {
    let runtime = runtime();
    let sim = endpoint(&runtime, 1, |_| {});
    let setup = setup(&sim, 1);
    let (path, moved) = (setup.folder().join("relay.log"), setup.folder().join("moved.log"));
    let setup = setup.with(&format!("[log]\nfile = \"{}\"", path.display()));
    let mut relay = Relay::spawn(&setup.write());
    until("the first line", || read(&path).contains("\"started\""));
    let started = events_in(&read(&path)).into_iter().find(|line| line["event"] == "started").expect("it started");
    let address: SocketAddr = started["listeners"].as_str().and_then(|text| text.parse().ok()).expect("an address");
    let first = Client::hello(address).accepted("app@contoso.com", TO, &mail("first", b"text\r\n"));
    until("its end", || read(&path).contains("\"removed\""));

    fs::rename(&path, &moved).expect("moved");
    relay.signal("HUP");
    until("a new file", || path.exists());
    let second = Client::hello(address).accepted("app@contoso.com", TO, &mail("second", b"text\r\n"));
    until("its end", || read(&path).contains("\"removed\""));
    relay.signal("TERM");
    assert!(relay.ended().success(), "{}", relay.log_text());

    let story = |text: &str, id: &str| {
        let of = |line: &Value| (line["queue_id"] == id).then(|| line["event"].as_str().unwrap_or_default().to_owned());
        events_in(text).iter().filter_map(of).collect::<Vec<_>>()
    };
    assert_eq!(story(&read(&moved), &first), ["accepted", "delivery", "removed"]);
    assert_eq!(story(&read(&path), &second), ["accepted", "delivery", "removed"]);
    assert!(!read(&path).contains(&first) && !read(&moved).contains(&second));
    assert!(read(&path).trim_end().ends_with('}') && read(&path).contains("\"stopped\""));
    assert_eq!(relay.log_text(), "", "nothing goes to standard error");
}

#[test]
fn a_full_disk_stops_neither_mail_nor_the_log() {
    let world = World::with(1, |_| {}, |setup| setup.with("[log]\nfile = \"/dev/full\""));
    let id = world.client().accepted("app@contoso.com", TO, &mail("full", b"text\r\n"));
    world.removed(&id);
    let failed = world.relay.wait_for_all("log-file-failed", 1, |line| line["event"] == "log-file-failed");
    assert_eq!(failed.len(), 1);
    assert!(failed[0]["why"].as_str().is_some_and(|why| why.contains("No space left")), "{failed:?}");
    let lines = world.relay.logged(|line| line["queue_id"] == id.as_str());
    assert!(lines.len() >= 3, "{lines:?}");
}

#[test]
fn a_file_that_cannot_be_had_is_told_before_anything_is_begun() {
    let runtime = runtime();
    let sim = endpoint(&runtime, 1, |_| {});
    let setup = setup(&sim, 1);
    let path = setup.folder().join("not-there/relay.log");
    let setup = setup.with(&format!("[log]\nfile = \"{}\"", path.display()));
    let mut relay = Relay::spawn(&setup.write());
    assert_eq!(relay.ended().code(), Some(74));
    let text = relay.log_text();
    assert!(text.contains("cannot write the log to") && text.contains("not-there/relay.log: No such file"), "{text}");
    assert!(!setup.data_dir().exists());
}

#[test]
fn hashed_addresses_are_in_no_line_and_can_still_be_looked_for() {
    let mut world = World::with(1, |_| {}, |setup| setup.with("[log]\nredact = \"hash\"\nlevel = \"debug\""));
    world.faults([
        Fault::reply(Step::Rcpt, "550 5.1.1 <gone@contoso.com>: nobody here").recipient("gone@contoso.com"),
        Fault::reply(Step::Rcpt, "452 4.2.2 mailbox of 'Later@contoso.com' is full").recipient("later@contoso.com").first(1),
    ]);
    let mut client = world.client();
    let id =
        client.accepted("device@contoso.com", &["you@contoso.com", "gone@contoso.com", "later@contoso.com"], &mail("hidden", b"text\r\n"));
    client.expect("MAIL FROM:<device@contoso.com> SIZE=99999999999", "552");
    client.expect("MAIL FROM:<device@contoso.com>", "250");
    client.expect("RCPT TO:<\"quoted you\"@nowhere@contoso.com>", "553");
    client.expect("QUIT", "221");
    world.removed(&id);
    let hidden = |relay: &Relay| {
        let text = relay.log_text().to_lowercase();
        // Message-IDs stay; the mail of this test has one that is no address of its.
        for address in ["you@", "gone@", "later@", "device@", "app@", "quoted you"] {
            assert!(!text.contains(address), "{address} is in the log:\n{text}");
        }
    };
    hidden(&world.relay);
    let word = |world: &World| log(world.setup.folder(), &["--word-for", "YOU@Contoso.com"]).expect("a word").trim().to_owned();
    let you = word(&world);
    let told = world.relay.logged(|line| line["event"] == "delivery" && line["to"] == you.as_str());
    assert_eq!(told.len(), 1, "{you}:\n{}", world.relay.log_text());
    assert!(told[0]["account"].as_str().is_some_and(|account| account.starts_with("hve01@")), "the accounts are shown");
    let gone = log(world.setup.folder(), &["--word-for", "gone@contoso.com"]).expect("a word").trim().to_owned();
    let refused = world.relay.logged(|line| line["to"] == gone.as_str() && line["status"] == "bounced");
    assert_eq!(refused[0]["reply"], format!("550 5.1.1 <{gone}>: nobody here"));
    world = world.crash_and_restart(|_| {});
    assert_eq!(word(&world), you, "the word outlives the process");
    hidden(&world.relay);
}

#[test]
fn a_room_is_made_louder_and_quieter_while_the_relay_runs() {
    let world = World::new(1);
    let folder = world.setup.folder();
    let say = |arguments: &[&str]| log(folder, arguments).expect("done");
    world.client().expect("QUIT", "221");
    assert!(say(&[]).starts_with("level    info\nto       standard error\n"), "{}", say(&[]));
    assert!(say(&["debug", "--room", "session"]).contains("level    info\n  session: debug\n"));
    let set = world.relay.wait_for("log-level-set", |line| line["event"] == "log-level-set");
    assert_eq!((set["to_level"].as_str(), set["room"].as_str()), (Some("debug"), Some("session")));
    assert!(world.relay.logged(|line| line["event"] == "connected").is_empty(), "not before it was asked for");
    let mut client = world.client();
    world.relay.wait_for("connected", |line| line["event"] == "connected");

    say(&["error"]);
    let id = client.accepted("app@contoso.com", TO, &mail("unseen", b"text\r\n"));
    world.taken(1);
    until("its end", || {
        let mut show = Command::new(env!("CARGO_BIN_EXE_hve-relay"));
        show.args(["queue", "show", &id, "--config"]).arg(folder.join("hve-relay.toml"));
        show.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("the binary").code() == Some(1)
    });
    world.relay.signal("HUP");
    until("the configuration's levels", || say(&[]).starts_with("level    info\nto"));
    let seen = client.accepted("app@contoso.com", TO, &mail("seen", b"text\r\n"));
    world.removed(&seen);
    assert!(world.relay.logged(|line| line["queue_id"] == id.as_str()).is_empty(), "nothing was told of what went at level error");
    assert!(log(folder, &["--word-for", "you@contoso.com"]).expect_err("no word").contains("log.redact"));
}
