//! The scenarios: what is sent, over what, and what it is compared with; and the run of one.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hve_relay::sim::{Account, Extension, Keep, Limits, Settings, Sim};
use tokio::runtime::{Builder, Runtime};

use crate::load::{Load, Sent};
use crate::process::{Relay, Usage};

/// A run that has not ended by then never will.
const PATIENCE: Duration = Duration::from_secs(180);
/// How often the endpoint is asked whether it has everything: often enough for the figures, rarely enough to cost nothing.
const LOOK: Duration = Duration::from_millis(5);
/// What each reply of the endpoint takes in (e).
const DELAY: Duration = Duration::from_millis(30);

const PASSWORD: &str = "bench-Pa55word";

/// One scenario.
pub struct Scenario {
    pub letter: &'static str,
    pub title: &'static str,
    pub messages: usize,
    /// Octets of a message.
    pub size: usize,
    pub recipients: usize,
    /// Sessions of the load generator at a time.
    pub sessions: usize,
    /// Messages in a session.
    pub per_session: usize,
    pub accounts: usize,
    /// Upstream connections of each account.
    pub connections: usize,
    pub delay: Duration,
    pub mode: Mode,
    pub reference: Reference,
}

/// What the endpoint offers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Neither PIPELINING nor CHUNKING.
    Lockstep,
    /// PIPELINING.
    Pipelining,
    /// Both.
    Chunking,
}

/// What is known of Postfix, and what is aimed at. Rates are messages a second, from the least to the most that was measured.
pub struct Reference {
    pub accepted: Option<f64>,
    pub delivered: Option<(f64, f64)>,
    /// Milliseconds.
    pub p50_p99: Option<(f64, f64)>,
    pub aim_accepted: Option<f64>,
    pub aim_delivered: Option<f64>,
    pub aim_p50_p99: Option<(f64, f64)>,
    pub aim_cpu: Option<f64>,
}

/// What a run gave.
pub struct Figures {
    pub messages: usize,
    pub sent: Sent,
    pub delivered_in: Duration,
    /// Messages a second from the first that the endpoint has taken to the last.
    pub taken_rate: f64,
    /// The same from when the last message was accepted, if many were still to be delivered then.
    pub alone_rate: Option<f64>,
    pub relay: Usage,
    /// Processor time of load generator and endpoint together.
    pub others: Duration,
}

const NOTHING_KNOWN: Reference =
    Reference { accepted: None, delivered: None, p50_p99: None, aim_accepted: None, aim_delivered: None, aim_p50_p99: None, aim_cpu: None };

const MANY_SMALL: Scenario = Scenario {
    letter: "b",
    title: "20 sessions, many 4 KiB messages each",
    messages: 50_000,
    size: 4 << 10,
    recipients: 1,
    sessions: 20,
    per_session: usize::MAX,
    accounts: 5,
    connections: 4,
    delay: Duration::ZERO,
    mode: Mode::Pipelining,
    reference: Reference {
        accepted: Some(690.0),
        delivered: Some((508.0, 508.0)),
        aim_accepted: Some(5_500.0),
        aim_delivered: Some(2_500.0),
        aim_cpu: Some(0.3),
        ..NOTHING_KNOWN
    },
};

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        letter: "a",
        title: "50 sessions at a time, one 10 KiB message each",
        messages: 25_000,
        size: 10 << 10,
        sessions: 50,
        per_session: 1,
        reference: Reference {
            accepted: Some(600.0),
            delivered: Some((441.0, 441.0)),
            p50_p99: Some((30.0, 86.0)),
            aim_accepted: Some(4_800.0),
            aim_delivered: Some(2_200.0),
            aim_p50_p99: Some((5.0, 20.0)),
            aim_cpu: Some(0.3),
        },
        ..MANY_SMALL
    },
    MANY_SMALL,
    Scenario {
        letter: "c",
        title: "10 sessions, 7 MiB scans",
        messages: 300,
        size: 7 << 20,
        sessions: 10,
        reference: Reference { delivered: Some((17.0, 25.0)), aim_delivered: Some(35.0), ..NOTHING_KNOWN },
        ..MANY_SMALL
    },
    Scenario {
        letter: "d",
        title: "20 sessions, 50 recipients a message",
        messages: 5_000,
        recipients: 50,
        reference: Reference { delivered: Some((115.0, 115.0)), aim_delivered: Some(460.0), ..NOTHING_KNOWN },
        ..MANY_SMALL
    },
    Scenario {
        letter: "e",
        title: "30 ms added to each upstream reply, 20 connections, no PIPELINING",
        messages: 2_500,
        delay: DELAY,
        mode: Mode::Lockstep,
        reference: Reference { delivered: Some((116.0, 116.0)), ..NOTHING_KNOWN },
        ..MANY_SMALL
    },
    Scenario {
        letter: "e",
        title: "30 ms added to each upstream reply, 20 connections, PIPELINING",
        messages: 5_000,
        delay: DELAY,
        reference: NOTHING_KNOWN,
        ..MANY_SMALL
    },
    Scenario {
        letter: "e",
        title: "30 ms added to each upstream reply, 20 connections, PIPELINING and CHUNKING",
        messages: 10_000,
        delay: DELAY,
        mode: Mode::Chunking,
        reference: NOTHING_KNOWN,
        ..MANY_SMALL
    },
];

impl Scenario {
    /// Messages a second that the upstream's delay allows, if it has any: a message waits for the replies to MAIL, RCPT, DATA and the final
    /// dot, of which PIPELINING makes two waits, and with CHUNKING one.
    pub fn ceiling(&self) -> Option<f64> {
        let waits = match self.mode {
            Mode::Lockstep => 3.0 + self.recipients as f64,
            Mode::Pipelining => 2.0,
            Mode::Chunking => 1.0,
        };
        (!self.delay.is_zero()).then(|| (self.accounts * self.connections) as f64 / (waits * self.delay.as_secs_f64()))
    }

    /// Runs it with a queue in a new folder under `parent`.
    ///
    /// # Errors
    /// If anything does not go as it should: the figures would be worth nothing.
    pub fn run(&self, parent: &Path, quick: bool) -> io::Result<Figures> {
        let messages = if quick { self.messages / 10 } else { self.messages };
        let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(parent)?;
        // A thread for the endpoint and one for the load, so that neither takes more than a core.
        let (beyond, before) = (thread("endpoint")?, thread("load")?);
        let sim = beyond.block_on(Sim::start(self.endpoint()))?;
        let relay = Relay::start(folder.path(), &self.configuration(folder.path(), &sim)?)?;
        let load = Arc::new(Load::new(relay.address, messages, self.size, self.recipients, self.per_session));
        let others = crate::process::own_processor_time()?;
        let sent = before.spawn(load.run(self.sessions));
        let deadline = Instant::now() + PATIENCE;
        let (mut first_taken, mut alone) = (None, None);
        loop {
            let taken = sim.counters().messages;
            if sent.is_finished() {
                alone.get_or_insert((Instant::now(), taken));
            }
            if taken > 0 {
                first_taken.get_or_insert((Instant::now(), taken));
            }
            if taken >= messages as u64 {
                break;
            }
            if Instant::now() > deadline || (sent.is_finished() && relay.has_ended()) {
                return Err(io::Error::other(format!("{} of {messages} messages were delivered", sim.counters().messages)));
            }
            std::thread::sleep(LOOK);
        }
        let last_taken = Instant::now();
        let relay_usage = relay.usage()?;
        let others = crate::process::own_processor_time()?.saturating_sub(others);
        let sent = before.block_on(sent).map_err(io::Error::other)??;
        let counters = sim.counters();
        if !counters.violations.is_empty() || !counters.refusals.is_empty() {
            return Err(io::Error::other(format!("the endpoint had something against it: {counters:?}")));
        }
        relay.stop()?;
        let rate_since = |(at, taken): (Instant, u64)| (messages as u64 - taken) as f64 / (last_taken - at).as_secs_f64();
        let taken_rate = first_taken.map_or(0.0, rate_since);
        let alone_rate = alone.filter(|(_, taken)| *taken < messages as u64 / 2).map(rate_since);
        Ok(Figures { messages, delivered_in: last_taken - sent.first_accepted, taken_rate, alone_rate, sent, relay: relay_usage, others })
    }

    fn endpoint(&self) -> Settings {
        let accounts = (1..=self.accounts).map(|n| Account::new(address(n), PASSWORD)).collect();
        let mut extensions = Settings::default().extensions;
        extensions.retain(|extension| self.mode != Mode::Lockstep || *extension != Extension::Pipelining);
        if self.mode == Mode::Chunking {
            extensions.push(Extension::Chunking);
        }
        Settings { accounts, extensions, limits: Limits::NONE, delay: self.delay, keep: Keep::Nothing, ..Settings::default() }
    }

    fn configuration(&self, folder: &Path, sim: &Sim) -> io::Result<String> {
        use std::fmt::Write;
        let ca = crate::process::private_file(&folder.join("ca.pem"), sim.ca_pem())?;
        let password = crate::process::private_file(&folder.join("password"), PASSWORD)?;
        let mut toml = format!(
            "data_dir = \"{}\"\nhostname = \"relay.contoso.com\"\n\
             [tenant]\nprofile = \"hve-preview\"\naccepted_domains = [\"contoso.com\"]\n\
             [admin]\nlisten = \"none\"\n\
             [[listener]]\naddress = \"127.0.0.1:0\"\n\
             [[client]]\nname = \"load\"\nnetworks = [\"127.0.0.0/8\"]\n\
             [[route]]\nname = \"hve\"\nhost = \"127.0.0.1\"\nport = {}\ntls_ca_file = \"{ca}\"\ntls_server_name = \"smtp-hve.office365.com\"\n\
             [limits]\nsessions = 1000\nsessions_per_address = 1000\ntransactions = 1000000\n\
             [account_limits]\nrecipients_per_day = \"none\"\n[tenant_limits]\nrecipients_per_day = \"none\"\n",
            folder.join("data").display(),
            sim.address().port()
        );
        for n in 1..=self.accounts {
            let connections = self.connections;
            let account =
                format!("[[account]]\naddress = \"{}\"\npassword_file = \"{password}\"\nconnections = {connections}\n", address(n));
            // Writing to a String cannot fail.
            let _ = toml.write_str(&account);
        }
        Ok(toml)
    }
}

fn address(n: usize) -> String {
    format!("hve{n:02}@contoso.com")
}

fn thread(name: &str) -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(1).thread_name(name).enable_all().build()
}
