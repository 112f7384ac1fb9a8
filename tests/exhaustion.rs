//! Nothing is exhausted: each way to ask for too much meets its own limit, and others are served meanwhile.

mod support;

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, Stdio};

use serde_json::Value;
use support::client::Client;
use support::{World, mail};

const TO: &[&str] = &["you@contoso.com"];

/// A relay whose log is read by the test itself, or not.
struct Unread {
    child: Child,
    log: BufReader<ChildStderr>,
    address: SocketAddr,
}

impl Unread {
    fn start(world: &World) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hve-relay"))
            .args(["run", "--log", "json", "--config"])
            .arg(world.setup.folder().join("hve-relay.toml"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        let mut unread = Self { child, log, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        loop {
            let mut line = String::new();
            assert!(unread.log.read_line(&mut line).expect("a log") > 0, "the relay does not start");
            let line: Value = serde_json::from_str(&line).expect("JSON");
            if line["event"] == "started" {
                let address = line["listeners"].as_str().and_then(|all| all.split(", ").next()).expect("a listener");
                unread.address = address.parse().expect("an address");
                return unread;
            }
        }
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_reader_of_the_log_that_stops_stops_nobody_else() {
    const COMMANDS: usize = 8_000;
    let mut world = World::with(1, |_| {}, |setup| setup.with("[limits]\nerrors = 10000"));
    world.relay.kill();
    let mut relay = Unread::start(&world);
    // More than a pipe and the relay's own buffer hold.
    let mut client = Client::hello(relay.address);
    let line = format!("{}\r\n", "x".repeat(300));
    for _ in 0..COMMANDS / 100 {
        client.raw(line.repeat(100).as_bytes());
        for _ in 0..100 {
            assert!(client.reply().starts_with("500 5.5.1"));
        }
    }
    client.accepted("app@contoso.com", TO, &mail("unread", b"text\r\n"));
    world.taken(1);

    let mut lines: Vec<Value> = Vec::new();
    let mut next = |lines: &mut Vec<Value>| {
        let mut line = String::new();
        relay.log.read_line(&mut line).expect("a log");
        lines.push(serde_json::from_str(&line).expect("whole lines"));
    };
    while lines.last().is_none_or(|last| last["event"] != "log-lost") {
        next(&mut lines);
    }
    assert!(Command::new("kill").arg(relay.child.id().to_string()).status().expect("kill").success());
    let mut rest = String::new();
    relay.log.read_to_string(&mut rest).expect("to its end");
    assert!(relay.child.wait().expect("an end").success());
    lines.extend(rest.lines().map(|line| serde_json::from_str::<Value>(line).expect("whole lines")));
    assert_eq!(lines.last().expect("lines")["event"], "stopped");
    let lost: u64 = lines.iter().filter(|line| line["event"] == "log-lost").filter_map(|line| line["lines"].as_u64()).sum();
    let told = lines.iter().filter(|line| line["event"] == "refused").count() as u64;
    assert!(lost > 1_000, "{lost}");
    // What else was lost is of the message's life.
    assert!(told + lost >= COMMANDS as u64 && told + lost <= COMMANDS as u64 + 10, "{told} {lost}");
}
