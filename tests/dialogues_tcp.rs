//! The scripts of `tests/dialogues/` over TCP: the real binary, and the simulated endpoint behind it.
//!
//! Scripts that want the same arrangement (settings, clients, disk) share one relay and are played there one after the other: step by step,
//! pipelined, octet by octet, and cut at some places. What a script says of the store is held against the relay's log and against what the
//! endpoint took: the content behind what the relay put on top of it, the recipients, the sender. What it says of the log is held against
//! the log. In the end all messages that were answered with 250 have arrived, once for each recipient, and nothing else has.
//!
//! What cannot be arranged from outside, or only with a wait of minutes, is left to `dialogues.rs`: time that passes, a store that takes its
//! time, limits below those that a configuration may have. The test says which scripts these are, and why.

#[path = "support/dialogue.rs"]
mod dialogue;
mod support;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};

use dialogue::{Action, Cut, Inside, Relay, Script, matches, reply_line, scripts};
use hve_relay::config::Config;
use hve_relay::intake::Policy;
use hve_relay::sim::{Limits, Taken};
use serde_json::Value;
use support::relay::{PATIENCE, Relay as Daemon, Setup};
use support::{World, field};

/// Each script is cut at so many places, one at a time.
const PLACES: usize = 8;
/// One relay plays so many scripts at most; the others go to another one at the same time.
const SCRIPTS: usize = 16;

#[test]
fn dialogues_go_over_tcp_as_they_go_with_the_session_itself() {
    let mut stages: BTreeMap<Arrangement, Vec<Script>> = BTreeMap::new();
    let mut left_out = Vec::new();
    let all = scripts();
    let total = all.len();
    for script in all {
        match Arrangement::of(&script) {
            Ok(arrangement) => stages.entry(arrangement).or_default().push(script),
            Err(why) => left_out.push(format!("{}: {why}", script.name)),
        }
    }
    let mut played = 0;
    let mut failures = Vec::new();
    std::thread::scope(|scope| {
        let parts = stages.iter().flat_map(|(arrangement, scripts)| scripts.chunks(SCRIPTS).map(move |part| (arrangement, part)));
        let parts: Vec<_> = parts.map(|(arrangement, part)| (part, scope.spawn(move || play(arrangement, part)))).collect();
        for (part, outcome) in parts {
            match outcome.join().expect("no panic") {
                Ok(Played { sessions, failed }) => {
                    played += part.len();
                    failures.extend(failed);
                    println!("{:3} scripts in {sessions} sessions: {}", part.len(), names(part));
                }
                Err(why) => left_out.extend(part.iter().map(|script| format!("{}: {why}", script.name))),
            }
        }
    });
    println!("{played} of {total} scripts were played over TCP; the others were not:");
    left_out.iter().for_each(|line| println!("  {line}"));
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n"));
    assert!(played >= 40, "only {played} scripts");
}

/// Closing a socket with octets in it that nobody has read resets the connection, and a reset takes the last reply with it on some systems.
#[test]
fn whoever_talks_on_while_turned_away_hears_why_and_an_orderly_end() {
    for (network, said, reply) in [
        ("10.20.0.0/16", "EHLO mfp.example\r\n", "554 5.7.1 127.0.0.1 is not a client"),
        ("127.0.0.0/8", "POST / HTTP/1.1\r\n", "500 5.5.1 This is SMTP, not HTTP"),
        ("127.0.0.0/8", "QUIT\r\n", "221 2.0.0 Bye"),
    ] {
        let world = World::with(1, |_| {}, |setup| setup.networks(network));
        let mut stream = TcpStream::connect(world.relay.address).expect("the relay listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        // More than the relay reads at once.
        stream.write_all(&[said.as_bytes(), &b"NOOP\r\n".repeat(10_000)].concat()).expect("the relay takes it");
        stream.shutdown(Shutdown::Write).expect("still connected");
        let mut replies = String::new();
        stream.read_to_string(&mut replies).expect("an orderly end");
        assert!(replies.lines().last().is_some_and(|last| last.starts_with(reply)), "{replies}");
    }
}

fn names(scripts: &[Script]) -> String {
    scripts.iter().map(|script| script.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// What a relay must be like for a script.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Arrangement {
    /// Keys and values in the words of the scripts.
    settings: Vec<(String, String)>,
    /// The peer is one of its clients.
    serves_peer: bool,
    is_disk_full: bool,
    /// It is told to stop in the course of the script, so that it can serve no other: the script's name.
    stops: Option<String>,
}

impl Arrangement {
    /// # Errors
    /// Why the script cannot be played over a connection.
    fn of(script: &Script) -> Result<Self, String> {
        let serves_peer = Policy::new(script.setup.intake.clone()).client(script.setup.peer).is_some();
        let settings = script.setup.changed.iter().filter(|(key, value)| key != "peer" || value.contains(':')).cloned().collect();
        let mut arrangement = Self { settings, serves_peer, is_disk_full: false, stops: None };
        for (i, step) in script.steps.iter().enumerate() {
            let Action::Inside(inside) = &step.action else { continue };
            match inside {
                inside if inside.only_looks() => {}
                Inside::DiskFull if i == 0 => arrangement.is_disk_full = true,
                Inside::Shutdown if matches!(script.steps.get(i + 1), Some(next) if matches!(next.action, Action::Expect(_))) => {
                    arrangement.stops = Some(script.name.clone());
                }
                Inside::Shutdown => return Err("nobody outside can tell when a session has heard of the stop".to_owned()),
                Inside::Tick(_) => return Err("time cannot be made to pass".to_owned()),
                _ => return Err(format!("{inside:?} cannot be arranged from outside")),
            }
        }
        Ok(arrangement)
    }

    /// Writes it into a configuration.
    fn apply(&self, mut setup: Setup) -> Result<Setup, String> {
        setup = setup.hostname("relay.example").networks(if self.serves_peer { "127.0.0.0/8" } else { "10.20.0.0/16" });
        if self.is_disk_full {
            setup = setup.queue("free_space_reserve = \"1024 GiB\"");
        }
        let mut limits = String::new();
        for (key, value) in &self.settings {
            let list = || format!("[\"{}\"]", value.replace(' ', "\", \""));
            setup = match (key.as_str(), value.as_str()) {
                ("line_endings", value) => setup.client(&format!("line_endings = \"{value}\"")),
                ("allowed_senders" | "allowed_recipients" | "ehlo_keywords_hidden", _) => setup.client(&format!("{key} = {}", list())),
                ("peer", _) if TcpListener::bind("[::]:0").is_err() => return Err("this machine has no IPv6".to_owned()),
                // A socket for both families shows IPv4 peers in IPv6 clothes.
                ("peer", _) => setup.listener("[::]:0"),
                ("accepted_domains", domains) => setup.accepted_domains(domains),
                ("route_takes", class) => setup.takes(class),
                (
                    "message_size" | "recipients" | "transactions" | "command_line" | "header_size" | "errors" | "commands_without_mail",
                    value,
                ) => {
                    limits.push_str(&format!("{key} = {value}\n"));
                    setup
                }
                _ => return Err(format!("{key} = {value} cannot be arranged from outside")),
            };
        }
        Ok(if limits.is_empty() { setup } else { setup.with(&format!("[limits]\n{limits}")) })
    }
}

/// What came of some scripts.
struct Played {
    sessions: usize,
    failed: Vec<String>,
}

/// Plays scripts that want the same arrangement, each in many ways.
///
/// # Errors
/// If there can be no relay of that kind.
fn play(arrangement: &Arrangement, scripts: &[Script]) -> Result<Played, String> {
    let mut stage = Stage::new(arrangement)?;
    let mut played = Played { sessions: 0, failed: Vec::new() };
    for script in scripts {
        let octets = script.octets();
        let places = (1..octets).step_by(octets / PLACES + 1).map(Cut::Before);
        let cuts: Vec<Cut> = [Cut::Steps, Cut::Joined, Cut::Octets].into_iter().chain(places).collect();
        // Whoever is told to stop serves one session.
        let cuts = if arrangement.stops.is_some() { &cuts[..1] } else { &cuts[..] };
        for cut in cuts {
            played.sessions += 1;
            let peer = script.setup.peer.to_canonical().to_string();
            if let Err(why) = script.play(&mut Tcp::connect(&mut stage, peer), *cut) {
                played.failed.push(why);
                return Ok(played);
            }
        }
    }
    played.failed.extend(stage.finish(arrangement.stops.is_some()).err().map(|why| format!("{why}\nafter {}", names(scripts))));
    Ok(played)
}

/// A relay with an endpoint behind it, and what it has said so far.
struct Stage {
    world: World,
    address: SocketAddr,
    /// The queue ids that it gave away.
    ids: BTreeSet<String>,
    /// How often it has refused something: so many lines of its log say so.
    refused: usize,
}

impl Stage {
    fn new(arrangement: &Arrangement) -> Result<Self, String> {
        let runtime = support::runtime();
        let sim = support::endpoint(&runtime, 2, |settings| settings.limits = Limits::NONE);
        let setup = arrangement.apply(support::setup(&sim, 2))?;
        let file = setup.write();
        if let Err(problems) = Config::load(&file) {
            return Err(format!("no configuration allows that: {problems}"));
        }
        let relay = Daemon::start(&file);
        let address = (Ipv4Addr::LOCALHOST, relay.address.port()).into();
        Ok(Self { world: World { runtime, sim, setup, relay }, address, ids: BTreeSet::new(), refused: 0 })
    }

    /// Every message that was acknowledged has arrived once for each recipient, and nothing else has.
    fn finish(mut self, has_stopped: bool) -> Result<(), String> {
        if has_stopped && self.ids.is_empty() {
            let status = self.world.relay.ended();
            return if status.success() { Ok(()) } else { Err(status.to_string()) };
        }
        let mut expected: Vec<(String, String)> = Vec::new();
        for id in &self.ids {
            expected.extend(self.sent(id).into_iter().map(|(to, _)| (id.clone(), to)));
        }
        for id in &self.ids {
            self.world.removed(id);
            let life = self.world.relay.logged(|line| line["queue_id"] == id.as_str());
            if life.last().is_none_or(|last| last["event"] != "removed") {
                return Err(format!("the log goes on after the message has left the queue: {life:#?}"));
            }
        }
        let mut got: Vec<(String, String)> = Vec::new();
        for taken in self.world.sim.taken() {
            if !taken.violations.is_empty() {
                return Err(format!("the endpoint got {:?}: {}", taken.violations, taken.content.escape_ascii()));
            }
            // A script that asks for it is told of its success by the relay itself (RFC 3461 §6.2.7.1), since the endpoint does not offer DSN.
            if field(&taken, "Auto-Submitted") == ["auto-replied"] {
                continue;
            }
            got.extend(taken.recipients.iter().map(|to| (queue_id(&taken), to.to_string())));
        }
        expected.sort();
        got.sort();
        if got == expected { Ok(()) } else { Err(format!("sent: {expected:?}\n got: {got:?}")) }
    }

    /// What the log says of a message's acceptance.
    fn accepted(&self, id: &str) -> Value {
        self.world.relay.wait_for("the message", |line| line["event"] == "accepted" && line["queue_id"] == id)
    }

    /// The recipients that a message was sent to, and their classes, as the log has it; waits until it was sent to all of them.
    fn sent(&self, id: &str) -> Vec<(String, String)> {
        let recipients = self.accepted(id)["nrcpt"].as_u64().expect("a number") as usize;
        let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let is_sent = |line: &Value| line["queue_id"] == id && line["event"] == "delivery" && line["status"] == "sent";
        let lines = self.world.relay.wait_for_all("a delivery", recipients, is_sent);
        lines.iter().map(|line| (text(line, "to"), text(line, "class"))).collect()
    }
}

/// The queue id in the relay's own Received field.
fn queue_id(taken: &Taken) -> String {
    let received = field(taken, "Received").into_iter().next().unwrap_or_default();
    let id = received.split(" id ").nth(1).and_then(|rest| rest.split([' ', ';']).next());
    id.unwrap_or_default().to_owned()
}

/// One connection.
struct Tcp<'s> {
    stage: &'s mut Stage,
    reader: BufReader<TcpStream>,
    /// The peer's address as the script has it; the relay sees this machine's.
    peer: String,
    is_closed: bool,
    /// What was queued and not yet looked at.
    ids: VecDeque<String>,
    looks_at_store: bool,
    /// Refusals that were heard, and those of them that were looked at in the log.
    refused: usize,
    looked_at: Option<usize>,
    shown: Option<Shown>,
}

/// A message that was kept, as the log has it and as it arrived.
struct Shown {
    accepted: Value,
    recipients: Vec<(String, String)>,
    names_recipients: bool,
    taken: Vec<Taken>,
}

impl<'s> Tcp<'s> {
    fn connect(stage: &'s mut Stage, peer: String) -> Self {
        let stream = TcpStream::connect(stage.address).expect("the relay listens");
        // Each piece is a packet.
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        Self {
            stage,
            reader: BufReader::new(stream),
            peer,
            is_closed: false,
            ids: VecDeque::new(),
            looks_at_store: false,
            refused: 0,
            looked_at: None,
            shown: None,
        }
    }

    fn shown(&self) -> Result<&Shown, String> {
        self.shown.as_ref().ok_or_else(|| "write `store keeps` first".to_owned())
    }

    /// The log's lines about so many refusals since the start of the session.
    fn refusals(&self, count: usize) -> Vec<Value> {
        let lines = self.stage.world.relay.wait_for_all("refusals", self.stage.refused + count, |line| line["event"] == "refused");
        lines[self.stage.refused..].to_vec()
    }

    fn next_shown(&mut self) -> Result<Shown, String> {
        let id = self.ids.pop_front().ok_or("the relay kept nothing")?;
        let (accepted, recipients) = (self.stage.accepted(&id), self.stage.sent(&id));
        let taken: Vec<Taken> = self.stage.world.sim.taken().into_iter().filter(|taken| queue_id(taken) == id).collect();
        if taken.is_empty() {
            return Err(format!("{id} did not arrive"));
        }
        Ok(Shown { accepted, recipients, names_recipients: false, taken })
    }
}

impl Relay for Tcp<'_> {
    fn send(&mut self, octets: &[u8]) {
        // A relay that has closed does not listen; what it said before is still there to be read.
        let _ = self.reader.get_mut().write_all(octets);
    }

    fn hang_up(&mut self) {
        let _ = self.reader.get_mut().shutdown(Shutdown::Write);
    }

    fn line(&mut self) -> Result<String, String> {
        let mut octets = Vec::new();
        let read = self.reader.read_until(b'\n', &mut octets).map_err(|error| format!("no line: {error}"))?;
        if read == 0 {
            self.is_closed = true;
            return Err("the relay says nothing more".to_owned());
        }
        let line = reply_line(octets)?;
        if line.starts_with(['4', '5']) && line.as_bytes().get(3) == Some(&b' ') {
            self.refused += 1;
        }
        if let Some((_, id)) = line.split_once(" queued as ") {
            self.ids.push_back(id.to_owned());
            self.stage.ids.insert(id.to_owned());
        }
        Ok(line.replace(&Ipv4Addr::LOCALHOST.to_string(), &self.peer))
    }

    fn is_closed(&mut self) -> bool {
        self.is_closed
    }

    fn inside(&mut self, step: &Inside) -> Result<(), String> {
        let expect = |expected: &str, found: &str| {
            if found == expected { Ok(()) } else { Err(format!("expected: {expected}\n       got: {found}")) }
        };
        let logged = |shown: &Shown, key: &str| shown.accepted[key].as_str().unwrap_or_default().to_owned();
        match step {
            Inside::ExpectNothing => {
                // What comes later is found by whoever reads next.
                let stream = self.reader.get_ref();
                stream.set_nonblocking(true).map_err(|error| error.to_string())?;
                let said = stream.peek(&mut [0]);
                stream.set_nonblocking(false).map_err(|error| error.to_string())?;
                match said {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
                    said => Err(format!("the relay said something, or closed: {said:?}")),
                }
            }
            Inside::Shutdown => {
                self.stage.world.relay.signal("TERM");
                Ok(())
            }
            Inside::Keeps => {
                self.looks_at_store = true;
                self.shown = Some(self.next_shown()?);
                Ok(())
            }
            Inside::From(path) => expect(path, &logged(self.shown()?, "from")),
            Inside::To(recipient) => {
                let shown = self.shown.as_mut().ok_or("write `store keeps` first")?;
                shown.names_recipients = true;
                let found = shown.recipients.iter().position(|(to, class)| format!("{to} {class}") == *recipient);
                let at = found.ok_or_else(|| format!("expected: {recipient}\n       got: {:?}", shown.recipients))?;
                shown.recipients.remove(at);
                // Recipients travel with those of their class.
                let (to, _) = recipient.rsplit_once(' ').ok_or("a recipient and its class")?;
                let arrived = shown.taken.iter().any(|taken| taken.recipients.iter().any(|mailbox| mailbox.as_str() == to));
                if arrived { Ok(()) } else { Err(format!("nothing arrived for {to}")) }
            }
            Inside::Helo(name) => expect(name.strip_prefix('-').unwrap_or(name), &logged(self.shown()?, "helo")),
            Inside::With(protocol) => {
                let shown = self.shown()?;
                let received = field(&shown.taken[0], "Received").remove(0);
                expect(protocol, &logged(shown, "proto"))?;
                if received.contains(&format!(" with {protocol} id ")) { Ok(()) } else { Err(received) }
            }
            Inside::Content(content) => self.shown()?.taken.iter().try_for_each(|taken| arrived_as(content, taken)),
            Inside::Log(what, reply) => {
                let at = self.looked_at.unwrap_or(0);
                self.looked_at = Some(at + 1);
                let line = &self.refusals(at + 1)[at];
                let (found, said) = (line["command"].as_str().unwrap_or_default(), line["reply"].as_str().unwrap_or_default());
                if matches(what, found) && matches(reply, said) { Ok(()) } else { Err(format!("in the log: {found} | {said}")) }
            }
            // In the end nothing has arrived but what was acknowledged; what the client declared is the session's own knowledge.
            Inside::Drops | Inside::Reserves(_) | Inside::Declares(_) | Inside::Habits(_) | Inside::DiskFull => Ok(()),
            Inside::Tick(_)
            | Inside::Handshake
            | Inside::DiskFullAtCommit
            | Inside::DiskFree
            | Inside::StoreWaits
            | Inside::StoreAnswers
            | Inside::OthersWait => Err("cannot be arranged from outside".to_owned()),
        }
    }

    fn finish(&mut self) -> Result<(), String> {
        self.hang_up();
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).map_err(|error| format!("no orderly end: {error}"))?;
        if !rest.is_empty() {
            return Err(format!("the relay also said: {}", rest.escape_ascii()));
        }
        if let Some(shown) = self.shown.as_ref().filter(|shown| shown.names_recipients && !shown.recipients.is_empty()) {
            return Err(format!("also for: {:?}", shown.recipients));
        }
        if self.looks_at_store && !self.ids.is_empty() {
            return Err(format!("the relay also kept {:?}", self.ids));
        }
        let refusals = self.refusals(self.refused);
        if self.looked_at.is_some_and(|looked_at| looked_at < refusals.len()) || refusals.len() > self.refused {
            return Err(format!("{} refusals were heard; in the log: {refusals:?}", self.refused));
        }
        self.stage.refused += self.refused;
        Ok(())
    }
}

/// The content arrived, behind what the relay puts on top: header fields, and their end where the content has none of its own.
fn arrived_as(content: &[u8], taken: &Taken) -> Result<(), String> {
    let whole = [content, b"\r\n"].concat();
    let top = taken.content.strip_suffix(content).or_else(|| taken.content.strip_suffix(&whole[..]));
    let is_header = |top: &[u8]| {
        let end = top.windows(4).position(|four| four == b"\r\n\r\n");
        top.ends_with(b"\r\n") && end.is_none_or(|end| end + 4 == top.len())
    };
    match top.filter(|top| is_header(top)) {
        Some(_) => Ok(()),
        None => Err(format!("expected: {}\n       got: {}", content.escape_ascii(), taken.content.escape_ascii())),
    }
}
