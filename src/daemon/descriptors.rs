//! Open files: as many as the system allows, shared out so that sessions never use up what deliveries, the store and the log need.
//!
//! The relay raises its own limit to the hard one. Of that, what everything but sessions can need is set aside; each session can need two
//! descriptors, its connection and the file of its message. If fewer sessions fit than are configured, fewer are let in, and whoever is too
//! many hears 421 instead of nothing. Where the system has no descriptors left all the same, [`Spare`] is given up for a moment, to say so.

use std::fs::File;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};

use super::{socket, web};
use crate::config::Config;
use crate::smtp::{EnhancedStatus, Reply};
use crate::telemetry;

/// Connections that are told why they are refused, at a time; further ones are told in passing.
pub(super) const TURNED_AWAY: usize = 32;
/// The databases with their readers, the log, certificates, tokens, the runtime, and something to spare.
const HOUSEHOLD: usize = 64;
/// The connection and the file of a message that comes in or goes out.
const EACH: u64 = 2;
/// How long accepting rests where nothing else can be done.
const REST: Duration = Duration::from_millis(250);
/// How often the log tells that there are no descriptors.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// How many open files a configuration can need.
pub fn needed(config: &Config) -> u64 {
    beside_sessions(config).saturating_add(EACH * config.intake.sessions as u64)
}

/// How many this process may open, once it has raised its limit as far as it may.
pub fn allowed() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// Raises the limit, and takes back what does not fit.
pub(super) fn provide(config: &mut Config) {
    let limit = getrlimit(Resource::Nofile);
    // If it cannot be raised, the one that there is counts.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let allowed = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let fit = (allowed.saturating_sub(beside_sessions(config)) / EACH).max(1);
    let (wanted, needed) = (config.intake.sessions, needed(config));
    if fit < wanted as u64 {
        config.intake.sessions = usize::try_from(fit).unwrap_or(wanted);
        telemetry::sessions_lowered(wanted, config.intake.sessions, allowed, needed);
    }
}

fn beside_sessions(config: &Config) -> u64 {
    let upstream: usize = config.schedule.accounts.iter().map(|account| account.connections).sum();
    let page = if config.admin.listen.is_empty() { 0 } else { web::CONNECTIONS + config.admin.listen.len() };
    (HOUSEHOLD + TURNED_AWAY + config.listeners.len() + socket::CONNECTIONS + page) as u64 + EACH * upstream as u64
}

/// A descriptor in reserve, for one listener.
pub(super) struct Spare {
    held: Option<File>,
    told: Option<Instant>,
    refused: u64,
}

impl Spare {
    /// Takes it.
    pub fn new() -> Self {
        Self { held: take(), told: None, refused: 0 }
    }

    /// A connection could not be accepted: lets one in for as long as it takes to refuse it, so that it need not wait for nothing.
    pub async fn refuse_one(&mut self, listener: &TcpListener, address: SocketAddr, why: &std::io::Error) {
        let was_there = self.held.take().is_some();
        let accepted = tokio::time::timeout(REST, listener.accept()).await;
        if let Ok(Ok((stream, _))) = accepted {
            self.refused += 1;
            let text = "The relay has no open files left: try again later, or raise its limit of open files (LimitNOFILE=)";
            refuse_in_passing(stream, &Reply::new(421, EnhancedStatus::new(4, 3, 2), text));
        } else if !was_there || matches!(accepted, Ok(Err(_))) {
            tokio::time::sleep(REST).await;
        }
        self.held = take();
        if self.told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
            self.told = Some(Instant::now());
            telemetry::accept_failed(address, &why.to_string(), std::mem::take(&mut self.refused));
        }
    }
}

fn take() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Says no and closes, without waiting for anything. A client that has said something already may not hear it.
pub(super) fn refuse_in_passing(stream: TcpStream, reply: &Reply) {
    let mut octets = Vec::new();
    reply.write_to(&mut octets);
    // A fresh connection has room for a line; if not, nothing is lost but a courtesy.
    if let Ok(mut stream) = stream.into_std() {
        let _ = std::io::Write::write(&mut stream, &octets);
    }
}
