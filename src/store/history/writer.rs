//! The thread that writes the history: what waits goes into one transaction, and when nothing waits, old rows go.
//!
//! It never stops mail. What cannot be written is lost and told ([`Trouble`]): at once, and then again every [`TELL_EVERY`] while it lasts.

use std::fmt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, Result, params};
use tokio::sync::oneshot;

use super::prune::{self, Limits};
use super::terms;
use super::values::{Attempt, Left, Past, PastDelivery, Record, Tried};
use crate::clock::Clock;
use crate::mail::{Delivery, DeliveryId, Kind, Message, QueueId};

/// Records in one transaction, at most.
const GROUP_MAX: usize = 1_024;
/// How long the thread rests after a transaction with fewer: under load many records then share one, and nobody who has one must wake it.
const REST: Duration = Duration::from_millis(50);
/// How old what is not yet synced becomes, about: so much a power cut takes.
pub(super) const SYNC_EVERY: Duration = Duration::from_secs(1);
/// How often old rows are looked for, and how long the thread rests between two batches of them, so that records need not wait.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
const PRUNE_REST: Duration = Duration::from_millis(20);
/// How often it is told again that something is lost.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Something could not be remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// How many records since it was told last.
    pub records: u64,
    /// Why.
    pub why: String,
}

/// What the thread is asked to do.
#[derive(Debug)]
pub(super) enum Errand {
    /// To write this.
    Remember(Record),
    /// To say when all is written that it was asked for before.
    Tell(oneshot::Sender<()>),
}

/// See the head of this file.
pub(super) struct Writer<F> {
    connection: Connection,
    dir: PathBuf,
    /// A reload changes them.
    limits: Arc<Mutex<Limits>>,
    told: F,
    lost: u64,
    told_at: Option<Instant>,
    /// Since when something is written and not synced.
    dirty: Option<Instant>,
    prune_at: Instant,
    space_at: Option<Instant>,
    enough: bool,
}

impl<F> fmt::Debug for Writer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writer")
    }
}

impl<F: Fn(Trouble)> Writer<F> {
    pub(super) fn new(connection: Connection, dir: PathBuf, limits: Arc<Mutex<Limits>>, told: F) -> Self {
        Self { connection, dir, limits, told, lost: 0, told_at: None, dirty: None, prune_at: Instant::now(), space_at: None, enough: true }
    }

    /// Writes until all senders are gone and all that they sent is written.
    pub(super) fn run(mut self, errands: &Receiver<Errand>) {
        loop {
            let now = Instant::now();
            let sync_at = self.dirty.map(|since| since + SYNC_EVERY);
            let wait = sync_at.map_or(self.prune_at, |sync_at| sync_at.min(self.prune_at)).saturating_duration_since(now);
            match errands.recv_timeout(wait) {
                Ok(first) => {
                    let (mut group, mut asked) = (Vec::new(), Vec::new());
                    for errand in std::iter::once(first).chain(errands.try_iter().take(GROUP_MAX - 1)) {
                        match errand {
                            Errand::Remember(record) => group.push(record),
                            Errand::Tell(answer) => asked.push(answer),
                        }
                    }
                    if !group.is_empty() {
                        self.write(&group);
                    }
                    let rests = asked.is_empty() && group.len() < GROUP_MAX;
                    // Whoever asked may have gone.
                    for answer in asked {
                        let _ = answer.send(());
                    }
                    if rests {
                        // Whoever asks cuts it short.
                        std::thread::park_timeout(REST);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            // Also while records never cease to come.
            if self.prune_at <= Instant::now() {
                self.prune();
            }
            if self.dirty.is_some_and(|since| since.elapsed() >= SYNC_EVERY) {
                self.sync("PASSIVE");
            }
        }
        self.sync("TRUNCATE");
    }

    fn write(&mut self, group: &[Record]) {
        let written = if self.has_room() {
            in_transaction(&self.connection, || group.iter().try_for_each(|record| remember(&self.connection, record)))
                .map_err(|error| error.to_string())
        } else {
            Err(format!("less than half of free_space_reserve is free in {}", self.dir.display()))
        };
        match written {
            Ok(()) => {
                self.dirty.get_or_insert_with(Instant::now);
                // The next trouble is a new one.
                self.told_at = self.told_at.filter(|_| self.lost > 0);
            }
            Err(why) => {
                self.lost += group.len() as u64;
                if self.told_at.is_none_or(|told_at| told_at.elapsed() >= TELL_EVERY) {
                    self.told_at = Some(Instant::now());
                    (self.told)(Trouble { records: std::mem::take(&mut self.lost), why });
                }
            }
        }
    }

    /// New mail is refused where less than the reserve is free; what is remembered of mail that waits may take half of that, and no more.
    fn has_room(&mut self) -> bool {
        if self.space_at.is_none_or(|at| at.elapsed() > SYNC_EVERY) {
            self.space_at = Some(Instant::now());
            // Where the file system does not say, SQLite will.
            self.enough = rustix::fs::statvfs(&self.dir)
                .is_ok_and(|found| found.f_bavail.saturating_mul(found.f_frsize) >= self.limits().reserve / 2);
        }
        self.enough
    }

    fn limits(&self) -> Limits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn prune(&mut self) {
        let limits = self.limits();
        let pruned = in_transaction(&self.connection, || prune::step(&self.connection, &limits, Clock::wall()));
        // What could not be pruned now is pruned later.
        let more = pruned.unwrap_or_default();
        if more {
            self.dirty.get_or_insert_with(Instant::now);
        }
        self.prune_at = Instant::now() + if more { PRUNE_REST } else { PRUNE_EVERY };
    }

    /// Copies the log into the database, which syncs both.
    fn sync(&mut self, how: &str) {
        self.dirty = None;
        // If it could not be done, the log grows until the next time.
        let _ = self.connection.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |_| Ok(()));
    }
}

fn in_transaction<T>(connection: &Connection, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let transaction = connection.unchecked_transaction()?;
    // Dropped without a commit, it is rolled back.
    let done = work()?;
    transaction.commit()?;
    Ok(done)
}

/// Writes one record. Twice the same is once.
pub(super) fn remember(connection: &Connection, record: &Record) -> Result<()> {
    match record {
        Record::Accepted(accepted) => {
            let (message, deliveries) = &**accepted;
            accept(connection, message, deliveries, true).map(drop)
        }
        Record::Parted(parted) => {
            let (message, deliveries) = &**parted;
            accept(connection, message, deliveries, false)?;
            deliveries.iter().try_for_each(|delivery| add(connection, message.id, delivery))
        }
        Record::Ended(tried) => {
            let Tried { message, delivery, account, relay, sender, started, ended, answers } = &**tried;
            if !accept(connection, message, std::slice::from_ref(delivery), false)? && !is_whole(connection, message.id)? {
                add(connection, message.id, delivery)?;
            }
            for (n, answer) in answers.iter().enumerate() {
                let Attempt { left, status, step, reply, ordinals, due } = answer;
                insert_attempt(connection)?.execute(params![
                    message.id.number(),
                    delivery.id.part,
                    started.as_millis(),
                    n as i64,
                    ended.as_millis(),
                    account,
                    relay,
                    sender,
                    delivery.class.as_str(),
                    left.as_str(),
                    status.to_string(),
                    step,
                    reply,
                    ranges(ordinals),
                    due.map(|due| due.as_millis()),
                ])?;
            }
            if answers.iter().any(|answer| answer.left.is_failure()) {
                insert_term(connection, message.id, terms::FAILED)?;
            }
            Ok(())
        }
        Record::InDoubt { delivery: DeliveryId { message, part }, account, started, found } => {
            let why = "the relay ended while this attempt was under way: the server may have the message or not, and it is tried again";
            let (id, started, found) = (message.number(), started.as_millis(), found.as_millis());
            let left = Left::InDoubt.as_str();
            let row = params![id, part, started, 0, found, account, "", "", "", left, "4.4.2", "", why, "", Option::<i64>::None];
            insert_attempt(connection)?.execute(row).map(drop)
        }
    }
}

fn insert_attempt(connection: &Connection) -> Result<rusqlite::CachedStatement<'_>> {
    connection.prepare_cached(
        "INSERT OR IGNORE INTO attempt (message, part, started, n, ended, account, relay, sender, class, came_to, status, step, reply, ordinals, due)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
    )
}

/// Writes a message. False if it is there.
fn accept(connection: &Connection, message: &Message, deliveries: &[Delivery], whole: bool) -> Result<bool> {
    let exists = "SELECT 1 FROM message WHERE id = ?1";
    if connection.prepare_cached(exists)?.exists([message.id.number()])? {
        return Ok(false);
    }
    let past = past(message, deliveries);
    connection
        .prepare_cached(
            "INSERT INTO message (id, accepted_at, kind, client, peer, reverse_path, author, subject, message_id, size, priority, deliveries, whole)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
        )?
        .execute(params![
            past.id.number(),
            past.accepted_at.as_millis(),
            kind(past.kind),
            past.client,
            past.peer,
            past.reverse_path,
            past.author,
            past.subject,
            past.message_id,
            past.size as i64,
            past.priority,
            written(&past.deliveries),
            whole,
        ])?;
    terms::of(&past).iter().try_for_each(|term| insert_term(connection, past.id, term))?;
    Ok(true)
}

/// Whether all deliveries of a message are known.
fn is_whole(connection: &Connection, id: QueueId) -> Result<bool> {
    connection.prepare_cached("SELECT 1 FROM message WHERE id = ?1 AND whole = 1")?.exists([id.number()])
}

/// Adds a delivery to a message that does not have it.
fn add(connection: &Connection, id: QueueId, delivery: &Delivery) -> Result<()> {
    let select = "SELECT deliveries FROM message WHERE id = ?1";
    let found: Option<String> = connection.prepare_cached(select)?.query_row([id.number()], |row| row.get(0)).optional()?;
    let Some(mut deliveries) = found.map(|text| super::search::deliveries(&text)) else { return Ok(()) };
    if deliveries.iter().any(|known| known.part == delivery.id.part) {
        return Ok(());
    }
    for recipient in &delivery.recipients {
        insert_term(connection, id, &recipient.address.as_str().to_lowercase())?;
    }
    deliveries.push(past_delivery(delivery));
    connection
        .prepare_cached("UPDATE message SET deliveries = ?2 WHERE id = ?1")?
        .execute(params![id.number(), written(&deliveries)])
        .map(drop)
}

fn insert_term(connection: &Connection, message: QueueId, term: &str) -> Result<()> {
    connection
        .prepare_cached("INSERT OR IGNORE INTO term (day, hash, message) VALUES (?1, ?2, ?3)")?
        .execute(params![terms::day(message), terms::hash(term), message.number()])
        .map(drop)
}

fn past(message: &Message, deliveries: &[Delivery]) -> Past {
    Past {
        id: message.id,
        accepted_at: message.accepted_at,
        kind: message.kind,
        client: message.client.to_string(),
        peer: message.peer.map(|peer| peer.to_string()),
        reverse_path: message.reverse_path.mailbox().map_or_else(String::new, ToString::to_string),
        author: message.author.as_ref().map(ToString::to_string),
        subject: message.subject.clone(),
        message_id: message.message_id.clone(),
        size: message.size,
        priority: message.priority.to_string(),
        deliveries: deliveries.iter().map(past_delivery).collect(),
    }
}

fn past_delivery(delivery: &Delivery) -> PastDelivery {
    let mut recipients = Vec::with_capacity(delivery.recipients.len());
    for recipient in &delivery.recipients {
        recipients.resize(usize::from(recipient.ordinal).max(recipients.len()), None);
        recipients.push(Some(recipient.address.to_string()));
    }
    PastDelivery { part: delivery.id.part, class: delivery.class, route: delivery.route.to_string(), recipients }
}

fn written(deliveries: &[PastDelivery]) -> String {
    let rows: Vec<_> = deliveries.iter().map(|one| (one.part, one.class.as_str(), &one.route, &one.recipients)).collect();
    // Numbers and texts can always be written.
    serde_json::to_string(&rows).unwrap_or_default()
}

/// Ascending numbers as `0-3,7`.
fn ranges(ordinals: &[u16]) -> String {
    let mut text = String::new();
    for run in ordinals.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
        if let (Some(first), Some(last)) = (run.first(), run.last()) {
            let comma = if text.is_empty() { "" } else { "," };
            text += &if first == last { format!("{comma}{first}") } else { format!("{comma}{first}-{last}") };
        }
    }
    text
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Mail => "mail",
        Kind::Notice => "notice",
    }
}

#[cfg(test)]
mod tests {
    use super::super::search;
    use super::*;

    #[test]
    fn places_are_written_in_few_octets_and_read_back() {
        for (ordinals, text) in [(vec![], ""), (vec![4], "4"), (vec![0, 1, 2, 7, 9, 10], "0-2,7,9-10"), ((0..50).collect(), "0-49")] {
            assert_eq!(ranges(&ordinals), text);
            assert_eq!(search::ordinals(text), ordinals);
        }
    }
}
