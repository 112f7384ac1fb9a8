//! What the end-to-end tests share: the real relay, the simulated endpoint over real TLS, and a device.
#![allow(dead_code, missing_docs, reason = "each test binary uses its part of it")]

pub mod browser;
pub mod client;
pub mod http;
pub mod relay;
pub mod secure;
pub mod snapshot;

use hve_relay::sim::{Account, Fault, Settings, Sim, Taken};
use mail_parser::{MessageParser, MessagePart, MimeHeaders, PartType};
use tokio::runtime::Runtime;

use client::Client;
use relay::{PATIENCE, Relay, Setup};

/// The password of every account; no log may show it.
pub const PASSWORD: &str = "s3cret-Pa55word";

/// An endpoint, a relay in front of it, and the runtime that drives the endpoint.
pub struct World {
    pub runtime: Runtime,
    pub sim: Sim,
    pub setup: Setup,
    pub relay: Relay,
}

pub fn account(number: usize) -> String {
    format!("hve{number:02}@contoso.com")
}

/// An endpoint with so many accounts; `change` adapts it.
pub fn endpoint(runtime: &Runtime, accounts: usize, change: impl FnOnce(&mut Settings)) -> Sim {
    let accounts = (1..=accounts).map(|n| Account::new(account(n), PASSWORD)).collect();
    let mut settings = Settings { accounts, ..Settings::default() };
    change(&mut settings);
    runtime.block_on(Sim::start(settings)).expect("the endpoint starts")
}

/// The relay's side of [`endpoint`].
pub fn setup(sim: &Sim, accounts: usize) -> Setup {
    (1..=accounts).fold(Setup::new(sim.address(), sim.ca_pem()), |setup, n| setup.account(&account(n), PASSWORD))
}

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

impl World {
    /// An endpoint and a relay with so many accounts.
    pub fn new(accounts: usize) -> Self {
        Self::with(accounts, |_| {}, |setup| setup)
    }

    /// The same with another endpoint or another configuration.
    pub fn with(accounts: usize, endpoint: impl FnOnce(&mut Settings), adapt: impl FnOnce(Setup) -> Setup) -> Self {
        let runtime = runtime();
        let sim = self::endpoint(&runtime, accounts, endpoint);
        let setup = adapt(self::setup(&sim, accounts));
        let relay = Relay::start(&setup.write());
        Self { runtime, sim, setup, relay }
    }

    pub fn client(&self) -> Client {
        Client::hello(self.relay.address)
    }

    /// Waits until the endpoint has taken so many messages.
    pub fn taken(&self, messages: u64) -> Vec<Taken> {
        match self.runtime.block_on(self.sim.wait_for(messages, PATIENCE)) {
            Ok(taken) => taken,
            Err(error) => panic!("{error}\n{}", self.relay.log_text()),
        }
    }

    pub fn faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.sim.set_faults(faults.into_iter().collect());
    }

    /// Waits until the relay's log says that a message has left the queue.
    pub fn removed(&self, id: &str) {
        self.relay.wait_for("removed", |line| line["event"] == "removed" && line["queue_id"] == id);
    }

    /// kill -9, then `meanwhile`, then a new start on the same data directory.
    pub fn crash_and_restart(mut self, meanwhile: impl FnOnce(&Self)) -> Self {
        self.relay.kill();
        meanwhile(&self);
        self.relay = Relay::start(&self.setup.folder().join("hve-relay.toml"));
        self
    }
}

/// Waits for a condition that nobody announces: looks at it again and again, and gives the processor away in between.
pub fn until(what: &str, mut met: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !met() {
        assert!(std::time::Instant::now() < deadline, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

/// The memory of a process, in octets: what it has in use now.
pub fn resident(pid: u32) -> u64 {
    memory(pid, "VmRSS:")
}

/// The most that it ever had.
pub fn peak(pid: u32) -> u64 {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, of: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a living process");
    let line = status.lines().find(|line| line.starts_with(of)).expect(of);
    1_024 * line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).expect("a number")
}

/// A message with this body.
pub fn mail(subject: &str, body: &[u8]) -> Vec<u8> {
    let mut content = format!("From: App <app@contoso.com>\r\nTo: you@contoso.com\r\nSubject: {subject}\r\nDate: Sat, 21 Nov 2026 10:00:00 +0100\r\nMessage-ID: <{subject}@contoso.com>\r\n\r\n").into_bytes();
    content.extend_from_slice(body);
    content
}

/// What a reader finds in a message: type, file name and decoded content of each part.
pub fn parts(message: &[u8]) -> Vec<(String, Option<String>, Vec<u8>)> {
    let parsed = MessageParser::default().parse(message).expect("a message");
    let content = |part: &MessagePart<'_>| match &part.body {
        PartType::Text(text) | PartType::Html(text) => Some(text.as_bytes().to_vec()),
        PartType::Binary(octets) | PartType::InlineBinary(octets) => Some(octets.to_vec()),
        PartType::Message(_) | PartType::Multipart(_) => None,
    };
    let of = |part: &MessagePart<'_>| part.content_type().map(|of| format!("{}/{}", of.ctype(), of.subtype().unwrap_or_default()));
    let found = |part| Some((of(part).unwrap_or_default(), part.attachment_name().map(str::to_owned), content(part)?));
    parsed.parts.iter().filter_map(found).collect()
}

/// The body of what the endpoint took.
pub fn body(taken: &Taken) -> &[u8] {
    let end = taken.content.windows(4).position(|four| four == b"\r\n\r\n").expect("a header that ends");
    &taken.content[end + 4..]
}

/// The value of a header field as the endpoint got it, unfolded.
pub fn field(taken: &Taken, name: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(&taken.content).replace("\r\n ", " ").replace("\r\n\t", " ");
    let header = text.split("\r\n\r\n").next().unwrap_or_default();
    let prefix = format!("{}:", name.to_ascii_lowercase());
    header
        .lines()
        .filter(|line| line.to_ascii_lowercase().starts_with(&prefix))
        .map(|line| line[prefix.len()..].trim().to_owned())
        .collect()
}
