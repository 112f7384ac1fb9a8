//! Nothing is exhausted: each way to ask for too much meets its own limit, and others are served meanwhile.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use serde_json::Value;
use support::client::Client;
use support::relay::{PATIENCE, Relay};
use support::{World, mail, peak, resident, until};

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

const MIB: u64 = 1 << 20;

/// So many files may be open in this process too.
fn may_open(files: u64) {
    let limit = getrlimit(Resource::Nofile);
    assert!(limit.maximum.is_none_or(|most| most >= files), "the test needs a hard limit of {files} open files (ulimit -Hn)");
    if limit.current.is_some_and(|most| most < files) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(files), ..limit }).expect("the hard limit allows it");
    }
}

/// The address of a device in a network.
fn device(network: &str, number: usize) -> String {
    format!("{network}.{}.{}", number / 200, 1 + number % 200)
}

/// Connects from an address and returns what the relay says first.
fn greeted_from(local: &str, address: SocketAddr) -> (Client, String) {
    let mut client = Client::on(Client::from(local, address));
    let greeting = client.reply();
    (client, greeting)
}

/// Sends so many of a line at once, while the replies are read until the connection ends.
fn flood(stream: TcpStream, line: &str, times: usize) -> Vec<String> {
    let mut writing = stream.try_clone().expect("a second handle");
    let octets = line.repeat(1_000);
    let writer = std::thread::spawn(move || {
        // It fails as soon as the relay has had enough.
        (0..times / 1_000).all(|_| writing.write_all(octets.as_bytes()).is_ok())
    });
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    let replies = BufReader::new(stream).lines().map_while(Result::ok).collect();
    writer.join().expect("no panic");
    replies
}

#[test]
fn five_thousand_idle_connections_take_little_memory_and_nobody_waits_for_them() {
    const IDLE: usize = 5_000;
    may_open(2 * IDLE as u64);
    let world = World::with(1, |_| {}, |setup| setup.with("[limits]\nsessions = 6000"));
    let (pid, address) = (world.relay.pid(), world.relay.address);
    world.client().accepted("app@contoso.com", TO, &mail("warm-up", b"text\r\n"));
    world.taken(1);
    let before = resident(pid);
    let mut idle: Vec<Client> = (0..IDLE).map(|i| Client::hello_from(&device("127.1", i), address)).collect();
    let grown = resident(pid).saturating_sub(before);
    println!("{IDLE} idle connections take {} KiB", grown >> 10);
    assert!(grown < 64 * MIB, "{grown}");
    let begun = Instant::now();
    world.client().accepted("app@contoso.com", TO, &mail("at-once", b"text\r\n"));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    world.taken(2);
    idle.iter_mut().step_by(50).for_each(|client| drop(client.expect("NOOP", "250 2.0.0")));
}

#[test]
fn three_hundred_large_messages_in_small_pieces_take_little_memory() {
    const SENDERS: usize = 300;
    may_open(3 * SENDERS as u64);
    let world = World::with(1, |_| {}, |setup| setup.with("[limits]\nsessions_per_address = 1000"));
    world.runtime.block_on(world.sim.down());
    let (pid, address) = (world.relay.pid(), world.relay.address);
    world.client().accepted("app@contoso.com", TO, &mail("warm-up", &b"w\r\n".repeat(50_000)));
    let before = resident(pid);
    let mut senders: Vec<Client> = (0..SENDERS).map(|i| Client::hello_from(&device("127.1", i), address)).collect();
    for (i, sender) in senders.iter_mut().enumerate() {
        sender.expect("MAIL FROM:<app@contoso.com> SIZE=10000000", "250");
        sender.expect("RCPT TO:<you@contoso.com>", "250");
        sender.expect("DATA", "354");
        sender.raw(&mail(&format!("n{i}"), b""));
    }
    // As much is gathered for each before it is written as ever will be: the rest of the ten million octets takes time and no more memory, and
    // is left to one of them.
    let piece = [b"s".repeat(998), b"\r\n".to_vec()].concat();
    for _ in 0..200 {
        senders.iter_mut().for_each(|sender| sender.raw(&piece));
    }
    for _ in 200..9_900 {
        senders[0].raw(&piece);
    }
    for sender in &mut senders {
        sender.raw(b".\r\n");
        let reply = sender.reply();
        assert!(reply.starts_with("250 2.0.0"), "{reply}");
    }
    let grown = peak(pid).saturating_sub(before);
    println!("{SENDERS} large messages at a time take {} KiB", grown >> 10);
    assert!(grown < 128 * MIB, "{grown}");
}

#[test]
fn a_client_that_reads_no_replies_is_let_go() {
    let limits = "[limits]\ncommands_without_mail = 1000000\n[timeouts]\ncommand = \"1s\"\n[log]\nlevel = \"debug\"";
    let world = World::with(1, |_| {}, |setup| setup.with(limits));
    let before = resident(world.relay.pid());
    let mut stream = TcpStream::connect(world.relay.address).expect("the relay listens");
    stream.set_write_timeout(Some(PATIENCE)).expect("an option");
    let help = "HELP\r\n".repeat(1_000);
    // Until the relay reads no more, and then closes.
    while stream.write_all(help.as_bytes()).is_ok() {}
    let line = world.relay.wait_for("the end", |line| line["event"] == "disconnected");
    assert!(line.to_string().contains("the client does not read its replies"), "{line}");
    let grown = peak(world.relay.pid()).saturating_sub(before);
    assert!(grown < 16 * MIB, "{grown}");
}

#[test]
fn an_endless_line_takes_no_memory_and_is_refused_at_its_end() {
    let world = World::new(1);
    let before = resident(world.relay.pid());
    let mut client = world.client();
    let piece = b"x".repeat(1 << 20);
    for _ in 0..64 {
        client.raw(&piece);
    }
    client.expect("", "500 5.5.2 The command is longer than 4096 octets");
    client.accepted("app@contoso.com", TO, &mail("after-it", b"text\r\n"));
    let grown = peak(world.relay.pid()).saturating_sub(before);
    assert!(grown < 8 * MIB, "{grown}");
}

#[test]
fn a_hundred_thousand_recipients_and_a_million_commands_meet_their_limits() {
    let world = World::new(1);
    let before = resident(world.relay.pid());
    let mut client = world.client();
    client.expect("MAIL FROM:<app@contoso.com>", "250");
    // Each is another one: those that are there already are no news.
    let mut number = 0;
    let mut stream = client.into_stream();
    let mut reading = BufReader::new(stream.try_clone().expect("a second handle"));
    let writer = std::thread::spawn(move || {
        while number < 100_000 {
            let lines: String = (number..number + 1_000).map(|n| format!("RCPT TO:<u{n}@contoso.com>\r\n")).collect();
            number += 1_000;
            if stream.write_all(lines.as_bytes()).is_err() {
                return;
            }
        }
    });
    let replies: Vec<String> = reading.by_ref().lines().map_while(Result::ok).collect();
    writer.join().expect("no panic");
    let count = |begin: &str| replies.iter().filter(|reply| reply.starts_with(begin)).count();
    assert_eq!((count("250 2.1.5"), count("452 4.5.3"), replies.len()), (1_000, 50, 1_051));
    assert!(replies.last().is_some_and(|last| last.starts_with("421 4.7.0 50 commands were refused")), "{:?}", replies.last());

    let replies = flood(world.client().into_stream(), "NOOP\r\n", 1_000_000);
    // EHLO was the first.
    assert_eq!(replies.iter().filter(|reply| reply.starts_with("250 2.0.0")).count(), 999);
    assert!(replies.last().is_some_and(|last| last.starts_with("421 4.7.0 1000 commands came in a row")), "{:?}", replies.last());
    let grown = peak(world.relay.pid()).saturating_sub(before);
    assert!(grown < 16 * MIB, "{grown}");
    world.client().accepted("app@contoso.com", TO, &mail("meanwhile", b"text\r\n"));
    world.taken(1);
}

#[test]
fn what_one_network_leaves_idle_shuts_nobody_out() {
    let erp = "[[client]]\nname = \"erp\"\nnetworks = [\"127.9.0.0/16\"]\n[limits]\nsessions = 20";
    let world = World::with(1, |_| {}, |setup| setup.with(erp));
    let address = world.relay.address;
    let mut idle = Vec::new();
    let refusal = loop {
        let (client, greeting) = greeted_from(&device("127.1", idle.len()), address);
        match greeting.starts_with("220 ") {
            true => idle.push(client),
            false => break greeting,
        }
    };
    assert_eq!(idle.len(), 15);
    assert!(
        refusal.starts_with("421 4.7.0 The client devices has 15 sessions open, and the 5 of 20 that are left are for others"),
        "{refusal}"
    );
    // Others have their share at once ...
    Client::hello_from("127.9.0.1", address).accepted("app@contoso.com", TO, &mail("erp", b"text\r\n"));
    // ... and so has the network itself as soon as its idlest session may be called idle.
    let mut newcomer = loop {
        let (mut client, greeting) = greeted_from("127.2.0.1", address);
        match greeting.starts_with("220 ") {
            true => break client,
            // The relay leaves it open for a while, so that it hears why: no need to ask again before.
            false => assert!(client.closed()),
        }
    };
    newcomer.expect("EHLO scanner.contoso.com", "250");
    newcomer.accepted("app@contoso.com", TO, &mail("newcomer", b"text\r\n"));
    world.taken(2);
    let farewell = idle[0].reply();
    assert!(farewell.starts_with("421 4.7.0 All sessions are in use and others wait"), "{farewell}");
    idle[1].expect("NOOP", "250");
}

#[test]
fn where_few_files_may_be_open_there_are_fewer_sessions_and_mail_still_goes() {
    let mut world = World::new(1);
    world.relay.kill();
    let config = world.setup.folder().join("hve-relay.toml");
    let limited = || {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 256; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_hve-relay")]).stdin(Stdio::null());
        command
    };
    let checked = limited().args(["check", "--config"]).arg(&config).output().expect("the binary starts");
    let told = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success() && told.contains("limits.sessions: 1000 sessions can need "), "{told}");
    assert!(told.contains(" open files, and from here 256 may be opened"), "{told}");

    world.relay = Relay::spawn_by(limited(), &config).ready();
    let line = world.relay.wait_for("the warning", |line| line["event"] == "sessions-lowered");
    let sessions = line["sessions"].as_u64().expect("a number");
    assert!((20..100).contains(&sessions), "{line}");
    // As many as are let in, each with a message that has a file of its own.
    let mut open = Vec::new();
    let part = mail("file", &b"0123456789\r\n".repeat(20_000));
    let refusal = loop {
        let (mut client, greeting) = greeted_from(&device("127.1", open.len()), world.relay.address);
        if !greeting.starts_with("220 ") {
            break greeting;
        }
        client.expect("EHLO scanner.contoso.com", "250");
        client.expect("MAIL FROM:<app@contoso.com>", "250");
        client.expect("RCPT TO:<you@contoso.com>", "250");
        client.expect("DATA", "354");
        client.raw(&part);
        open.push(client);
    };
    assert!(refusal.starts_with("421 4.7.0 "), "{refusal}");
    assert_eq!(open.len() as u64, sessions);
    for client in &mut open {
        client.raw(b".\r\n");
        let reply = client.reply();
        assert!(reply.starts_with("250 2.0.0"), "{reply}");
    }
    world.taken(sessions);
    assert_eq!(world.relay.logged(|line| line["event"] == "accept-failed").len(), 0);
}

#[test]
fn without_a_descriptor_left_clients_hear_why_and_what_is_open_goes_on() {
    let world = World::new(1);
    let pid = world.relay.pid();
    let mut inside = world.client();
    inside.accepted("app@contoso.com", TO, &mail("before", b"text\r\n"));
    world.taken(1);
    // From here on it can open nothing more, as when other programs use up what the system has.
    let open: Vec<u64> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("a living process")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    let free = (0..).find(|number| !open.contains(number)).expect("a number");
    let process = Pid::from_raw(pid.cast_signed());
    let before =
        prlimit(process, Resource::Nofile, Rlimit { current: Some(free), maximum: getrlimit(Resource::Nofile).maximum }).expect("allowed");
    for _ in 0..10 {
        let (_, greeting) = Client::greeted(world.relay.address);
        assert!(greeting.starts_with("421 4.3.2 The relay has no open files left"), "{greeting}");
    }
    // Over the connection that is open, and the one to the endpoint.
    inside.accepted("app@contoso.com", TO, &mail("within", b"text\r\n"));
    world.taken(2);
    let large = mail("large", &b"0123456789\r\n".repeat(20_000));
    let reply = inside.send("app@contoso.com", TO, &large);
    assert!(reply.starts_with("451 4.3.0"), "{reply}");
    assert_eq!(world.relay.logged(|line| line["event"] == "accept-failed").len(), 1, "told once");
    prlimit(process, Resource::Nofile, before).expect("allowed");
    // One more may be refused whose turn came before.
    until("service", || Client::greeted(world.relay.address).1.starts_with("220 "));
    world.client().accepted("app@contoso.com", TO, &large);
    world.taken(3);
}
