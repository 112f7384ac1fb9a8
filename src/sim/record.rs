//! What the simulated endpoint has seen: what it took, and counts of everything that a test may ask about.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::settings::{Keep, Mechanism};
use crate::clock::Timestamp;
use crate::smtp::{Mailbox, ReversePath};

/// One message that the endpoint answered for with 250.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The account that was logged in.
    pub account: String,
    /// MAIL FROM.
    pub reverse_path: ReversePath,
    /// The recipients that were accepted, in order.
    pub recipients: Vec<Mailbox>,
    /// What was asked of notices (RFC 3461), as it was said: of the message, then of each recipient in order.
    pub dsn: Vec<String>,
    /// The content's length in octets, not dot-stuffed, without the final dot.
    pub size: u64,
    /// The content's SHA-256, see [`sha256`].
    pub sha256: [u8; 32],
    /// The content; empty unless [`Keep::All`].
    pub content: Bytes,
    /// When the final dot had come.
    pub at: Timestamp,
    /// On which connection, counted from 1.
    pub connection: u64,
    /// It came over TLS.
    pub encrypted: bool,
    /// The reply, the queue id in it included.
    pub reply: String,
    /// What was wrong with the content, although it was taken.
    pub violations: Vec<Violation>,
}

/// A breach of the protocol by the client that a lenient server would not notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// An LF without its CR in the content; refused with 5.6.11.
    BareLf,
    /// A CR without its LF in the content; refused with 5.6.11.
    BareCr,
    /// A line of content that began with a dot and was not dot-stuffed (RFC 5321 §4.5.2).
    UnstuffedDot,
    /// Octets beyond ASCII in the content, and neither BODY=8BITMIME nor SMTPUTF8 in MAIL.
    Undeclared8Bit,
    /// A command came before the reply to the one before, where PIPELINING was not offered or the one before must be a group's last
    /// (RFC 2920 §3.1); content before the 354 among them.
    Pipelined,
    /// Plain text behind STARTTLS.
    PlaintextBehindStartTls,
    /// The description of a refused token was answered with something else than an empty line.
    AnsweredChallenge,
    /// A command line with a bare CR or LF, with octets that are not UTF-8, or too long.
    BadLine,
}

/// One AUTH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginAttempt {
    /// On which connection, counted from 1.
    pub connection: u64,
    /// The user name as it was given; empty if it did not come to that.
    pub user: String,
    /// How; `None` if the mechanism is unknown.
    pub mechanism: Option<Mechanism>,
    /// Whether it came under TLS.
    pub encrypted: bool,
    /// Whether it was answered with 235.
    pub accepted: bool,
}

/// Counts since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that came in.
    pub connections: u64,
    /// Those open now.
    pub open: u64,
    /// The most that were open at once.
    pub most_open: u64,
    /// TLS handshakes that were completed.
    pub handshakes: u64,
    /// TLS handshakes that failed: the client went away or did not like the certificate.
    pub failed_handshakes: u64,
    /// Every AUTH, in order.
    pub logins: Vec<LoginAttempt>,
    /// Commands by verb, in upper case; unknown ones as `?`.
    pub commands: BTreeMap<&'static str, u64>,
    /// Replies of 4yz and 5yz, by their whole text.
    pub refusals: BTreeMap<String, u64>,
    /// What clients did wrong.
    pub violations: BTreeMap<Violation, u64>,
    /// Messages taken.
    pub messages: u64,
    /// Their recipients.
    pub recipients: u64,
    /// Their content, in octets.
    pub octets: u64,
}

impl Counters {
    /// How often the verb was used.
    pub fn command(&self, verb: &str) -> u64 {
        self.commands.get(verb).copied().unwrap_or(0)
    }

    /// How many replies of 4yz and 5yz contained this text; all of them for an empty text.
    pub fn refused(&self, text: &str) -> u64 {
        self.refusals.iter().filter(|(reply, _)| reply.contains(text)).map(|(_, count)| count).sum()
    }
}

/// What was waited for did not come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct TimedOut {
    /// How long it was waited for.
    pub limit: Duration,
    /// What there was instead.
    pub counters: Counters,
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not within {:?}: {:?}", self.limit, self.counters)
    }
}

/// The hash by which contents are compared.
pub fn sha256(octets: &[u8]) -> [u8; 32] {
    digest(ring::digest::digest(&ring::digest::SHA256, octets))
}

pub(super) fn digest(digest: ring::digest::Digest) -> [u8; 32] {
    // SHA-256 has 32 octets, so the copy is whole.
    let mut octets = [0; 32];
    octets.copy_from_slice(digest.as_ref());
    octets
}

/// Takes a lock; a test that failed while it held it must not hide behind a poisoned one.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[derive(Debug, Default)]
pub(super) struct Records {
    counters: Mutex<Counters>,
    taken: Mutex<Vec<Taken>>,
    changed: Notify,
}

impl Records {
    pub(super) fn counters(&self) -> Counters {
        lock(&self.counters).clone()
    }

    pub(super) fn taken(&self) -> Vec<Taken> {
        lock(&self.taken).clone()
    }

    /// What was taken, which is then forgotten.
    pub(super) fn drain(&self) -> Vec<Taken> {
        std::mem::take(&mut lock(&self.taken))
    }

    /// Changes the counts and wakes who waits for them.
    pub(super) fn note<T>(&self, change: impl FnOnce(&mut Counters) -> T) -> T {
        let result = change(&mut lock(&self.counters));
        self.changed.notify_waiters();
        result
    }

    pub(super) fn violation(&self, violation: Violation) {
        self.note(|counters| *counters.violations.entry(violation).or_default() += 1);
    }

    pub(super) fn refusal(&self, text: &str) {
        self.note(|counters| match counters.refusals.get_mut(text) {
            Some(count) => *count += 1,
            None => drop(counters.refusals.insert(text.to_owned(), 1)),
        });
    }

    pub(super) fn take(&self, taken: Taken, keep: Keep) {
        let (recipients, size) = (taken.recipients.len() as u64, taken.size);
        // The message is there before it is counted: who waited for the count finds it.
        if keep != Keep::Nothing {
            lock(&self.taken).push(taken);
        }
        self.note(|counters| {
            counters.messages += 1;
            counters.recipients += recipients;
            counters.octets += size;
        });
    }

    pub(super) async fn wait_until(&self, mut met: impl FnMut(&Counters) -> bool, limit: Duration) -> Result<(), TimedOut> {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                // Registered before the look, so that no change falls between the two.
                changed.as_mut().enable();
                if met(&lock(&self.counters)) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(limit, wait).await.map_err(|_| TimedOut { limit, counters: self.counters() })
    }
}
