//! What became of mail: what was accepted, and each attempt with its whole reply, for as long as the settings say.
//!
//! A database of its own, `history.db`, beside the queue's, with a thread of its own that writes (`writer`) and prunes (`prune`), and a
//! connection that reads (`search`). Why not in the queue's transactions:
//! * What must never be lost is the queue. Nothing that happens to the history, be it damage, a full disk or a slow query, reaches it; and nobody
//!   waits for the history's disk before he hears 250.
//! * The queue's file stays as small as what waits, so that its log, its copies and its recovery stay fast, whatever `history.keep` says.
//!
//! The price: the history is not synced with each message. A crash of the process loses what was not yet written (a twentieth of a second), a
//! power cut what was not yet synced (a second). The next attempt of a message that was lost brings it back, because a record of an attempt
//! has the message with it; only of what was settled in that moment the log alone tells.
//!
//! Everything that can be asked for is a *term* (`terms`) in one table with the key (day, term, message). So new rows come together at the end
//! of each day's part, whatever the words are, old ones go together, and a question goes from day to day, newest first, until it has enough.
//!
//! Measured with 7.4 million messages with one attempt and eight terms each (5.8 GB, 780 octets a message), unoptimised and on a busy machine: a
//! question takes 20 to 200 ms, whatever is asked for; a step of pruning 4 ms; a month's report of 3 million messages a minute.
//!
//! Limits: [`HistorySettings::size`] octets, beyond which the oldest goes first; some thousand records in memory; a question
//! ends after two seconds with what was found by then.

mod prune;
mod report;
mod search;
mod tables;
mod terms;
mod values;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::oneshot;

pub use report::{Group, Line};
pub use search::{Found, LIMIT_MAX, Search};
pub use terms::What;
pub use values::{Attempt, Chapter, Left, Past, PastDelivery, Record, Story, Tried};
pub use writer::Trouble;

use super::{HistorySettings, StoreError};
use crate::clock::Timestamp;
use crate::mail::QueueId;
use prune::Limits;
use writer::{Errand, Writer};

/// Records that may wait to be written; whoever has more waits outside.
const WAITING_MAX: usize = 4_096;

/// Why there is no history; the message is meant for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database was written by a newer version.
    #[error("{} has tables of version {found}, and this program knows version {known}; it was written by a newer hve-relay", path.display())]
    Version {
        /// The database.
        path: PathBuf,
        /// The version that it has.
        found: i64,
        /// The newest version that is understood.
        known: i64,
    },
    /// The database cannot be used.
    #[error("{}: {source}", path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The thread that writes cannot be had.
    #[error("cannot start the history's writer: {0}")]
    Thread(std::io::Error),
}

/// The history. Dropping it writes what waits; that blocks for as long as it takes.
#[derive(Debug)]
pub struct History {
    /// Locked for moments only, so that one can be opened or closed while the relay runs.
    open: RwLock<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    errands: Option<SyncSender<Errand>>,
    writer: Option<JoinHandle<()>>,
    limits: Arc<Mutex<Limits>>,
    reader: Arc<Reader>,
    /// Apart, because a report may take a minute and a question does not wait for it.
    reporter: Arc<Reader>,
}

/// One after another: the disk answers two no faster.
#[derive(Debug)]
struct Reader {
    path: PathBuf,
    idle: Mutex<Option<Connection>>,
}

impl History {
    /// Opens the history in the data directory, which the caller holds, and creates it if there is none. `reserve` is what must stay free of the
    /// file system, as for the queue. `told` hears of trouble, on the thread that writes. Blocks.
    ///
    /// # Errors
    /// If the database cannot be used. Mail can be relayed without it: see [`Self::off`].
    pub fn open(
        settings: &HistorySettings,
        data_dir: &Path,
        reserve: u64,
        told: impl Fn(Trouble) + Send + 'static,
    ) -> Result<Self, OpenError> {
        let Some(keep) = settings.keep else { return Ok(Self::off()) };
        let path = data_dir.join("history.db");
        let connection = tables::open(&path)?;
        let limits = Arc::new(Mutex::new(Limits { keep, size: settings.size, reserve }));
        let writer = Writer::new(connection, data_dir.to_owned(), limits.clone(), told);
        let (errands, waiting) = sync_channel(WAITING_MAX);
        let writer = std::thread::Builder::new().name("store-history".into()).spawn(move || writer.run(&waiting));
        let writer = Some(writer.map_err(OpenError::Thread)?);
        let reader = || Arc::new(Reader { path: path.clone(), idle: Mutex::default() });
        let open = Open { errands: Some(errands), writer, limits, reader: reader(), reporter: reader() };
        Ok(Self { open: RwLock::new(Some(open)) })
    }

    /// None: what is to be remembered is forgotten, and nothing is found.
    pub fn off() -> Self {
        Self { open: RwLock::new(None) }
    }

    /// Goes on with another one; the one before is closed, and its file stays. Blocks as dropping it does.
    pub fn replace(&self, other: Self) {
        let open = other.open.into_inner().unwrap_or_else(PoisonError::into_inner);
        let former = std::mem::replace(&mut *self.open.write().unwrap_or_else(PoisonError::into_inner), open);
        drop(former);
    }

    /// Keeps so much from now on, if anything is kept at all: see [`Self::replace`].
    pub fn follow(&self, settings: &HistorySettings, reserve: u64) {
        if let (Some(open), Some(keep)) = (&*self.opened(), settings.keep) {
            *open.limits.lock().unwrap_or_else(PoisonError::into_inner) = Limits { keep, size: settings.size, reserve };
        }
    }

    /// Whether there is one.
    pub fn is_kept(&self) -> bool {
        self.opened().is_some()
    }

    /// Has something written soon. Waits only if very much waits already.
    pub async fn remember(&self, record: Record) {
        self.give(Errand::Remember(record)).await;
    }

    async fn give(&self, errand: Errand) {
        let Some(errands) = self.opened().as_ref().and_then(|open| open.errands.clone()) else { return };
        if let Err(TrySendError::Full(errand)) = errands.try_send(errand) {
            // The writer ends after all who send, and if the runtime ends before, so does the process.
            let _ = tokio::task::spawn_blocking(move || errands.send(errand)).await;
        }
    }

    /// What became for good of a message's recipients, as far as it is remembered; also of what was given to be remembered just before.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn settled(&self, message: QueueId) -> Result<Vec<(String, Left)>, StoreError> {
        let Some(reader) = self.opened().as_ref().map(|open| open.reader.clone()) else { return Ok(Vec::new()) };
        self.written().await;
        reader.ask(move |connection| search::settled(connection, message)).await
    }

    /// Waits until all that was given so far is written, or lost.
    async fn written(&self) {
        let (written, is_written) = oneshot::channel();
        self.give(Errand::Tell(written)).await;
        // It may be resting.
        self.opened().iter().flat_map(|open| &open.writer).for_each(|writer| writer.thread().unpark());
        // If the writer is gone, there is nothing that it could still write.
        let _ = is_written.await;
    }

    /// What fits, newest first; also of what was given to be remembered just before.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn find(&self, search: Search) -> Result<Found, StoreError> {
        let Some(reader) = self.opened().as_ref().map(|open| open.reader.clone()) else { return Ok(Found::default()) };
        self.written().await;
        reader.ask(move |connection| search::find(connection, &search)).await
    }

    /// What was sent of the messages that came in from `from` on and before `until`, added up by group.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub async fn report(&self, group: Group, from: Timestamp, until: Timestamp) -> Result<Vec<Line>, StoreError> {
        let ids = QueueId::first_at(from)..QueueId::first_at(until);
        let Some(reporter) = self.opened().as_ref().map(|open| open.reporter.clone()) else { return Ok(Vec::new()) };
        reporter.ask(move |connection| report::report(connection, group, ids)).await
    }

    fn opened(&self) -> RwLockReadGuard<'_, Option<Open>> {
        // It is replaced as a whole.
        self.open.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let reader = self.clone();
        let read = tokio::task::spawn_blocking(move || reader.read(read)).await;
        let unavailable = |why: &dyn std::fmt::Display| StoreError::Unavailable(format!("the history cannot be read: {why}"));
        read.map_err(|ended| unavailable(&ended))?.map_err(|error| unavailable(&error))
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = idle.take().map_or_else(|| tables::open_for_reading(&self.path), Ok)?;
        let transaction = connection.unchecked_transaction()?;
        let found = read(&transaction)?;
        drop(transaction);
        *idle = Some(connection);
        Ok(found)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        drop(self.errands.take());
        // Before the writer closes, so that it can leave an empty log.
        for reader in [&self.reader, &self.reporter] {
            drop(reader.idle.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
        if let Some(writer) = self.writer.take() {
            writer.thread().unpark();
            // It panicked or not: there is nothing left to be done.
            let _ = writer.join();
        }
    }
}

#[cfg(test)]
mod tests;
