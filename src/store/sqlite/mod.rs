//! The embedded store: one SQLite database, one directory of large contents, one process.
//!
//! * [`Sqlite::open`] takes the directory (`place`), opens the database (`schema`, `versions`) and sets right what a crash left (`recover`).
//! * A content comes in piece by piece (`incoming`), if there is room for it (`space`).
//! * All writing is done by one thread that commits many operations with one sync (`writer`, `statements`); what a fault means, and that a
//!   fatal one is final, is in `fault`.
//! * What is taken out of it and put back: a backup (`backup`, `manifest`, `restore`, and message by message `saved`), messages as files
//!   (`letters`), and what is found wrong and set right (`inspect`).
//! * Reading has its own connections (`read`); what was accepted a moment ago is still in memory (`recent`).
//!
//! Order makes it safe: the file of a content is durable before the row that names it, and the row is gone before the file.
//!
//! Limits: a content that the relay writes itself (a notice) is always in the database, whatever its size. A file system quota that is used up
//! shows as a fatal fault, because SQLite does not tell it from a failed write.

mod backup;
mod fault;
mod incoming;
mod inspect;
mod letters;
mod manifest;
mod place;
mod read;
mod recent;
mod recover;
mod restore;
#[cfg(test)]
mod samples;
mod saved;
mod schema;
mod space;
mod statements;
mod versions;
mod writer;

pub use backup::{BackupError, Made, backup};
pub use incoming::Incoming;
pub use inspect::{Flaw, Inspected, inspect, repair};
pub use letters::{FROM_FILES, Imported, NotALetter, Parcel, envelopes, export, import, parcel};
pub use manifest::{Manifest, NotABackup};
pub use place::{Holder, holder, network_file_system};
pub use recover::{Damaged, Recovered};
pub use restore::{Budgets, RestoreError, Restored, from_backup, restore};
pub use saved::Saved;

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{Semaphore, mpsc, oneshot};

use self::fault::Latch;
use self::place::Place;
use self::read::Readers;
use self::recent::Recent;
use self::space::{Ballast, Space};
use self::writer::{Begin, Counters, Done, Found, Operation, Request, Writer};
use super::{
    Ailment, AlarmRow, Anchor, Bookkeeping, Job, Ledger, Letter, Listed, NewMessage, Settings, Settled, Settlement, Spool, Start, Started,
    Starting, StoreError, Suspended, Telling,
};
use crate::clock::Timestamp;
use crate::mail::{AccountName, Class, Delivery, DeliveryId, Gathered, Message, QueueId, Queued, RouteName};
use crate::smtp::Mailbox;

/// Operations that may wait for the writer before the next one has to wait outside.
const WAITING_MAX: usize = 1_024;
/// Deliveries that are read in one go while all of the queue is.
const QUEUED_AT_ONCE: usize = 256;
/// Deliveries in one page of a listing, at most: with 50 recipients each, some 5 MB.
const LISTED_MAX: usize = 1_000;

/// Why the store could not be opened; the message is meant for the operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the directory.
    #[error("{} is in use by {holder}; each relay needs a data directory of its own, and what replaces or repairs a queue one that no relay uses", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Who has it.
        holder: Holder,
    },
    /// The directory is on another machine.
    #[error("{} is on a network file system ({name}); the queue needs a local disk", dir.display())]
    NetworkFileSystem {
        /// The directory.
        dir: PathBuf,
        /// The file system.
        name: &'static str,
    },
    /// A restore has begun and not come to its end.
    #[error(
        "a restore into {} was cut off: run the same `hve-relay restore` again. What was there before is in its folders before-restore-*",
        dir.display()
    )]
    Restoring {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory cannot be used.
    #[error("{what} {}: {source}", dir.display())]
    Directory {
        /// What failed.
        what: &'static str,
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
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
    /// The database was written by an older version, and is only read.
    #[error(
        "{} has tables of version {found}, and this program reads version {known}: start the relay once, which keeps a copy and brings them up",
        path.display()
    )]
    Older {
        /// The database.
        path: PathBuf,
        /// The version that it has.
        found: i64,
        /// The version that is read.
        known: i64,
    },
    /// The tables are of an older version, and are not brought up before a copy of them is kept.
    #[error("cannot keep a copy of the queue, as the older hve-relay had it, in {}: {source}", path.display())]
    Copy {
        /// The copy.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database cannot be read.
    #[error("the queue's database: {0}")]
    Database(#[from] rusqlite::Error),
}

/// The embedded store. Dropping it writes what is waiting, leaves the write-ahead log empty and gives the directory free; that blocks for as
/// long as it takes, so prefer [`Sqlite::close`] where the runtime goes on.
#[derive(Debug)]
pub struct Sqlite {
    shared: Arc<Shared>,
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
    reading: Arc<Semaphore>,
    message_size: AtomicU64,
    recovered: Recovered,
    newest: Option<QueueId>,
    /// Last, so that the directory is given free last.
    _lock: File,
}

/// What the store, its writer and the contents on their way in have in common.
#[derive(Debug)]
struct Shared {
    place: Place,
    space: Arc<Space>,
    latch: Latch,
    readers: Readers,
    recent: Recent,
    counters: Counters,
}

/// How much was written since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Transactions, each one sync.
    pub commits: u64,
    /// Operations recorded by them.
    pub operations: u64,
    /// Times the write-ahead log was copied into the database.
    pub checkpoints: u64,
    /// Octets that new mail may still take.
    pub spare: u64,
}

impl Shared {
    /// The writer ends when nobody can send it anything.
    fn gone(&self) -> StoreError {
        self.latch.note(StoreError::Fatal("the writer has ended".into()))
    }
}

impl Sqlite {
    /// Opens the store, creates it if there is none, and recovers what a crash left. Blocks.
    ///
    /// # Errors
    /// If the directory cannot be had, or the database cannot be read.
    pub fn open(settings: &Settings) -> Result<Self, OpenError> {
        let (place, lock) = Place::take(&settings.data_dir)?;
        let trouble = |what: &'static str| move |source| OpenError::Directory { what, dir: settings.data_dir.clone(), source };
        let space = Space::new(place.dir().to_owned(), settings.reserve).map_err(trouble("cannot ask for the free space of"))?;
        let space = Arc::new(space);
        // Before the database, which needs room even to be opened.
        let ballast = Ballast::new(place.ballast(), space.clone());
        let connection = schema::open(&place.database())?;
        let newest = statements::newest(&connection)?;
        let recovered = recover::recover(&place, read::in_files(&connection)?).map_err(trouble("cannot read the contents in"))?;
        let readers = Readers::new(place.database());
        let (latch, recent, counters) = (Latch::default(), Recent::default(), Counters::default());
        let shared = Arc::new(Shared { place, space, latch, readers, recent, counters });
        let (requests, waiting) = mpsc::channel(WAITING_MAX);
        let writer = Writer::new(connection, shared.clone(), ballast);
        let writer = std::thread::Builder::new().name("store-writer".into()).spawn(move || writer.run(waiting));
        let writer = writer.map_err(trouble("cannot start the writer of"))?;
        let reading = Arc::new(Semaphore::new(read::AT_ONCE));
        let (requests, writer, message_size) = (Some(requests), Some(writer), AtomicU64::new(settings.message_size));
        Ok(Self { shared, requests, writer, reading, message_size, recovered, newest, _lock: lock })
    }

    /// What was found and done when the store was opened.
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// The highest queue id that was ever stored here, as of the opening: what comes next must be higher.
    pub fn newest(&self) -> Option<QueueId> {
        self.newest
    }

    /// How much was written.
    pub fn stats(&self) -> Stats {
        let Counters { commits, operations, checkpoints, .. } = &self.shared.counters;
        let [commits, operations, checkpoints] = [commits, operations, checkpoints].map(|counter| counter.load(Ordering::Relaxed));
        Stats { commits, operations, checkpoints, spare: self.shared.space.spare() }
    }

    /// Has each commit told, on the writer's own thread: how many operations it had, and how long it took. For the first who asks.
    pub fn tell_commits(&self, told: fn(usize, Duration)) {
        let _ = self.shared.counters.told.set(told);
    }

    /// Drops the store on a blocking thread.
    pub async fn close(self) {
        // It fails only where the runtime is ending; then the store was dropped all the same.
        let _ = tokio::task::spawn_blocking(move || drop(self)).await;
    }

    async fn submit(&self, operation: Operation) -> Result<Done, StoreError> {
        let answered = self.hand_over(operation).await?;
        answered.await.map_err(|_| self.shared.gone())?
    }

    /// What is handed over is recorded in this order, but for ends of attempts: they may come a little later.
    async fn hand_over(&self, operation: Operation) -> Result<oneshot::Receiver<Result<Done, StoreError>>, StoreError> {
        self.shared.latch.check()?;
        let (answer, answered) = oneshot::channel();
        let requests = self.requests.as_ref().ok_or_else(|| self.shared.gone())?;
        requests.send(Request { operation, answer }).await.map_err(|_| self.shared.gone())?;
        Ok(answered)
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection, &Place) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.shared.latch.check()?;
        let shared = self.shared.clone();
        // It is never closed; and if it were, more would be read at once, no less.
        let turn = self.reading.clone().acquire_owned().await;
        let read = move || {
            let _turn = turn;
            shared.readers.read(|connection| read(connection, &shared.place))
        };
        blocking(read).await.map_err(|error| self.shared.latch.note(error))
    }
}

impl Spool for Sqlite {
    type Incoming = Incoming;

    fn spare(&self) -> u64 {
        self.shared.space.spare()
    }

    fn begin(&self, id: QueueId, announced: u64) -> Result<Incoming, StoreError> {
        self.shared.latch.check()?;
        let claim = self.shared.space.claim(if announced == 0 { self.message_size.load(Ordering::Relaxed) } else { announced })?;
        Ok(Incoming::new(self.shared.clone(), claim, id))
    }

    async fn accept(&self, mut message: Message, deliveries: Vec<Delivery>, content: Incoming) -> Result<(), StoreError> {
        if content.id() != message.id || deliveries.iter().any(|delivery| delivery.id.message != message.id) {
            return Err(StoreError::Unavailable(format!("content or deliveries are not of {}", message.id)));
        }
        // Such a message would never be settled.
        if deliveries.is_empty() || deliveries.iter().any(|delivery| delivery.recipients.is_empty()) {
            return Err(StoreError::Unavailable(format!("{} has no recipients", message.id)));
        }
        message.size = content.len();
        let (body, claim) = content.finish().await?;
        self.submit(Operation::Accept { message, deliveries, body }).await?;
        drop(claim);
        Ok(())
    }

    async fn bring_in(&self, letter: Letter, content: Incoming) -> Result<bool, StoreError> {
        let Letter { message, deliveries, .. } = &letter;
        if content.id() != message.id || content.len() != message.size {
            return Err(StoreError::Unavailable(format!("the content is not that of {}", message.id)));
        }
        if deliveries.is_empty() || deliveries.iter().any(|standing| standing.delivery.recipients.is_empty()) {
            return Err(StoreError::Unavailable(format!("{} has no recipients", message.id)));
        }
        let (body, claim) = content.finish().await?;
        let done = self.submit(Operation::BringIn { letter, body }).await?;
        drop(claim);
        Ok(matches!(done, Done::Recorded))
    }

    async fn queued(&self, mut each: impl FnMut(Queued) + Send) -> Result<(), StoreError> {
        self.shared.latch.check()?;
        let shared = self.shared.clone();
        let (chunks, mut read) = mpsc::channel::<Vec<Queued>>(4);
        let reading = blocking(move || {
            shared.readers.read(|connection| {
                let mut chunk = Vec::with_capacity(QUEUED_AT_ONCE);
                read::queued(connection, |queued| {
                    chunk.push(queued);
                    chunk.len() < QUEUED_AT_ONCE || chunks.blocking_send(std::mem::take(&mut chunk)).is_ok()
                })?;
                // Nobody listens any longer if this fails.
                let _ = chunks.blocking_send(chunk);
                Ok(())
            })
        });
        let listing = async {
            while let Some(chunk) = read.recv().await {
                chunk.into_iter().for_each(&mut each);
            }
        };
        let (outcome, ()) = tokio::join!(reading, listing);
        outcome.map_err(|error| self.shared.latch.note(error))
    }

    async fn start(&self, starts: Vec<Start>, now: Timestamp, bookkeeping: Bookkeeping) -> Result<Starting, StoreError> {
        let begin = |start: Start| {
            let recent = self.shared.recent.take(start.delivery);
            (Begin { start, read: recent.is_none() }, recent)
        };
        let (starts, recent): (Vec<Begin>, Vec<Option<Job>>) = starts.into_iter().map(begin).unzip();
        let answered = self.hand_over(Operation::Start { starts, now, bookkeeping }).await?;
        let shared = self.shared.clone();
        let started = |(found, recent): (Found, Option<Job>)| match found {
            Found::Gone => Started::Gone,
            Found::Unreadable(why) => Started::Unreadable(why),
            Found::There(read) => read.or(recent.map(Box::new)).map_or(Started::Gone, Started::Begun),
        };
        Ok(Box::pin(async move {
            match answered.await.map_err(|_| shared.gone())?? {
                Done::Started(found) => Ok(found.into_iter().zip(recent).map(started).collect()),
                other => Err(StoreError::Unavailable(format!("the writer said of attempts that begin: {other:?}"))),
            }
        }))
    }

    async fn load(&self, delivery: DeliveryId) -> Result<Option<Job>, StoreError> {
        self.read(move |connection, place| read::job(connection, place, delivery)).await
    }

    async fn settle(&self, settlement: Settlement) -> Result<Settled, StoreError> {
        let nobody = vec![None; settlement.parted.len()];
        match self.submit(Operation::Settle(settlement)).await? {
            Done::Parted(parted) => Ok(Settled { last: false, parted }),
            done => Ok(Settled { last: left(done).await, parted: nobody }),
        }
    }

    async fn ledger(&self) -> Result<Ledger, StoreError> {
        self.read(|connection, _| read::ledger(connection)).await
    }

    async fn keep_ledger(&self, bookkeeping: Bookkeeping) -> Result<(), StoreError> {
        self.submit(Operation::KeepLedger(bookkeeping)).await.map(drop)
    }

    async fn suspend(&self, suspended: Suspended) -> Result<(), StoreError> {
        self.submit(Operation::Suspend(suspended)).await.map(drop)
    }

    async fn resume(&self, account: &AccountName) -> Result<(), StoreError> {
        self.submit(Operation::Resume(account.clone())).await.map(drop)
    }

    async fn keep_health(&self, health: Vec<Ailment>, anchor: Anchor) -> Result<(), StoreError> {
        self.submit(Operation::KeepHealth { health, anchor }).await.map(drop)
    }

    async fn keep_alarms(&self, alarms: Vec<AlarmRow>, mail: Option<NewMessage>) -> Result<(), StoreError> {
        self.submit(Operation::KeepAlarms { alarms, mail }).await.map(drop)
    }

    async fn delayed(&self, before: Timestamp, limit: usize) -> Result<Vec<Listed>, StoreError> {
        self.read(move |connection, _| read::delayed(connection, before, limit.min(LISTED_MAX))).await
    }

    async fn warn(&self, delivery: DeliveryId, telling: Telling) -> Result<bool, StoreError> {
        self.submit(Operation::Warn { delivery, telling }).await.map(|done| matches!(done, Done::Recorded))
    }

    async fn gathered(&self, reader: &Mailbox, limit: usize) -> Result<(Vec<Gathered>, i64), StoreError> {
        let reader = reader.clone();
        self.read(move |connection, _| read::gathered(connection, &reader, limit)).await
    }

    async fn digest(&self, reader: &Mailbox, mark: i64, notice: Option<NewMessage>) -> Result<(), StoreError> {
        self.submit(Operation::Digest { reader: reader.clone(), mark, notice }).await.map(drop)
    }

    async fn hold(&self, deliveries: Vec<DeliveryId>, held: bool) -> Result<(), StoreError> {
        self.submit(Operation::Hold { deliveries, held }).await.map(drop)
    }

    async fn reroute(&self, moves: Vec<(DeliveryId, RouteName, Class)>) -> Result<(), StoreError> {
        self.submit(Operation::Reroute(moves)).await.map(drop)
    }

    fn follow(&self, settings: &Settings) {
        self.shared.space.keep_free(settings.reserve);
        self.message_size.store(settings.message_size, Ordering::Relaxed);
    }

    async fn remove(&self, delivery: DeliveryId) -> Result<bool, StoreError> {
        Ok(left(self.submit(Operation::Remove(delivery)).await?).await)
    }

    async fn list(&self, after: Option<DeliveryId>, limit: usize) -> Result<Vec<Listed>, StoreError> {
        self.read(move |connection, _| read::list(connection, after, limit.min(LISTED_MAX))).await
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(writer) = self.writer.take() {
            // It panicked or not: there is nothing left to be done.
            let _ = writer.join();
        }
    }
}

/// Whether a message has left the queue. Its content's file is gone then.
async fn left(done: Done) -> bool {
    let Done::Removed(file) = done else { return false };
    if let Some(file) = file {
        // The file goes even if the runtime is ending, and if it did not, the next start would sweep it.
        let _ = tokio::task::spawn_blocking(move || drop(file)).await;
    }
    true
}

/// Runs what blocks on a thread that may be blocked.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, StoreError> + Send + 'static) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(ended) => Err(StoreError::Unavailable(format!("the work was given up: {ended}"))),
    }
}
