//! The one thread that writes the queue, and group commit.
//!
//! Operations come over a channel. The writer takes all that wait (up to [`GROUP_MAX`] or [`GROUP_OCTETS_MAX`]), runs them in one transaction,
//! and answers each after the commit: one sync for all, and no delay added where somebody waits for it. Nobody waits for the end of an attempt:
//! ends gather for up to [`LINGER`] and keep out of the way of what is waited for. If anything in a group fails, the group is rolled back and its
//! operations are run again one by one, each in a transaction of its own, so that only the guilty one fails. What they used of the budgets is
//! written last in each transaction, once for each line of a ledger. To record a delivery on a full disk, the ballast is given up and the log is
//! copied into the database: from then on the log is overwritten in place, and deletions need no more room however long the disk stays full.
//!
//! Invariants: an operation is answered `Ok` only after a commit that was synced; after a fatal fault nothing is written any more. The
//! checkpoint, which copies the log into the database, comes after the answers, from here and not from SQLite's own hook, which would swallow
//! its faults.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use tokio::sync::mpsc::{self, error::TryRecvError};
use tokio::sync::oneshot;

use super::incoming::Body;
use super::place::{Doomed, Place};
use super::space::Ballast;
use super::statements::{self, Left};
use super::{Shared, fault, read};
use crate::clock::Timestamp;
use crate::mail::{AccountName, Class, Content, Delivery, DeliveryId, Message, QueueId, RouteName};
use crate::smtp::Mailbox;
use crate::store::{
    Ailment, AlarmRow, Anchor, Bookkeeping, BudgetRow, Job, Letter, NewMessage, Settlement, Start, StoreError, Suspended, Telling,
};

/// Operations in one transaction, at most.
const GROUP_MAX: usize = 512;
/// Octets of content in one transaction, at most, give or take one operation.
const GROUP_OCTETS_MAX: usize = 32 << 20;
/// How long the ends of attempts gather: what a crash finds unrecorded is in doubt, and no longer wait has proved faster.
const LINGER: Duration = Duration::from_millis(2);
/// Pages in the write-ahead log from which it is copied into the database: SQLite's own default, and measured to be right. The log then stays
/// small and is overwritten in place, which is three times as fast as letting it grow.
const LOG_PAGES: i64 = 1_000;
/// Free pages in the database (64 MiB) from which they are given back to the file system, if they are more than half of it.
const FREE_PAGES: i64 = 16_384;

/// Something to be written.
#[derive(Debug)]
pub(super) enum Operation {
    Accept { message: Message, deliveries: Vec<Delivery>, body: Body },
    BringIn { letter: Letter, body: Body },
    Start { starts: Vec<Begin>, now: Timestamp, bookkeeping: Bookkeeping },
    Settle(Settlement),
    Hold { deliveries: Vec<DeliveryId>, held: bool },
    Reroute(Vec<(DeliveryId, RouteName, Class)>),
    Remove(DeliveryId),
    KeepLedger(Bookkeeping),
    Suspend(Suspended),
    Resume(AccountName),
    KeepHealth { health: Vec<Ailment>, anchor: Anchor },
    KeepAlarms { alarms: Vec<AlarmRow>, mail: Option<NewMessage> },
    Warn { delivery: DeliveryId, telling: Telling },
    Digest { reader: Mailbox, mark: i64, notice: Option<NewMessage> },
}

/// An attempt that begins.
#[derive(Debug)]
pub(super) struct Begin {
    pub(super) start: Start,
    /// What it needs is to be read.
    pub(super) read: bool,
}

/// What was found of an attempt that was to begin.
#[derive(Debug)]
pub(super) enum Found {
    /// It is recorded that it begins; with what was read.
    There(Option<Box<Job>>),
    /// Its delivery is not there.
    Gone,
    /// What it needs cannot be read, for this reason; nothing is recorded of it.
    Unreadable(String),
}

/// An operation and who waits for it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) operation: Operation,
    pub(super) answer: oneshot::Sender<Result<Done, StoreError>>,
}

/// What became of an operation.
#[derive(Debug)]
pub(super) enum Done {
    /// It is recorded.
    Recorded,
    /// The delivery, or the message, was not as it must be.
    NotThere,
    /// It is recorded; for each attempt what was found.
    Started(Vec<Found>),
    /// It is recorded, and these deliveries are new.
    Parted(Vec<Option<u16>>),
    /// It is recorded, and the message has left the queue; if its content was in a file, that goes when this is dropped.
    Removed(Option<Doomed>),
}

/// Counters of what was written.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) commits: AtomicU64,
    pub(super) operations: AtomicU64,
    pub(super) checkpoints: AtomicU64,
    pub(super) told: OnceLock<Told>,
}

/// Who is told of each commit: how many operations it had, and how long it took from its begin to the end of the sync.
pub(super) type Told = fn(usize, Duration);

/// The writer's own things.
pub(super) struct Writer {
    connection: Connection,
    shared: Arc<Shared>,
    ballast: Ballast,
}

/// What an operation did inside a transaction that is not yet committed.
enum Applied {
    Recorded,
    NotThere,
    Started(Vec<Found>),
    Parted(Vec<Option<u16>>),
    /// The message left; whether its content is in a file that is no longer needed.
    Removed {
        message: QueueId,
        in_file: bool,
    },
}

impl Applied {
    fn left(message: QueueId, left: Left) -> Self {
        match left {
            Left::Message => Self::Recorded,
            Left::File => Self::Removed { message, in_file: true },
            Left::Nothing => Self::Removed { message, in_file: false },
        }
    }
}

impl Writer {
    pub(super) fn new(connection: Connection, shared: Arc<Shared>, ballast: Ballast) -> Self {
        Self { connection, shared, ballast }
    }

    /// Writes until all senders are gone and all that they sent is written; then leaves an empty log.
    pub(super) fn run(mut self, requests: mpsc::Receiver<Request>) {
        let mut waiting = Waiting::new(requests, LINGER);
        while let Some(group) = waiting.group() {
            self.record(group);
            self.keep_log_short(LOG_PAGES);
            self.ballast.restore();
        }
        self.finish();
    }

    /// Records a group and answers it.
    fn record(&mut self, mut group: Vec<Request>) {
        // A file stays until it is certain that there will be no row for it.
        group.iter_mut().filter_map(Request::file).for_each(Doomed::keep);
        if let Err(error) = self.begin() {
            group.into_iter().for_each(|request| refuse(request, error.clone()));
            return;
        }
        match self.run_and_commit(&group) {
            Ok(applied) => group.into_iter().zip(applied).for_each(|(request, applied)| self.done(request, applied)),
            Err(fatal @ StoreError::Fatal(_)) => group.into_iter().for_each(|request| refuse(request, fatal.clone())),
            Err(_) => group.into_iter().for_each(|request| self.record_alone(request)),
        }
    }

    fn record_alone(&mut self, request: Request) {
        let once = |writer: &Self| writer.begin().and_then(|()| writer.run_and_commit(std::slice::from_ref(&request)));
        let mut outcome = once(self);
        let new_mail = matches!(request.operation, Operation::Accept { .. } | Operation::BringIn { .. });
        if !new_mail && matches!(outcome, Err(StoreError::Full(_))) {
            self.ballast.release();
            self.keep_log_short(0);
            outcome = once(self);
        }
        match outcome {
            Ok(applied) => std::iter::once(request).zip(applied).for_each(|(request, applied)| self.done(request, applied)),
            Err(error) => refuse(request, error),
        }
    }

    fn begin(&self) -> Result<(), StoreError> {
        self.shared.latch.check()?;
        self.command("BEGIN IMMEDIATE").map_err(|error| self.shared.latch.note(fault::of_sqlite(&error)))
    }

    /// Runs operations in the transaction that has begun and ends it: with all of them, or with none.
    fn run_and_commit(&self, group: &[Request]) -> Result<Vec<Applied>, StoreError> {
        let begun = Instant::now();
        let outcome = self.run_all(group).and_then(|applied| self.command("COMMIT").map(|()| applied));
        let outcome = outcome.map_err(|error| self.shared.latch.note(fault::of_sqlite(&error)));
        if outcome.is_ok() {
            self.shared.counters.commits.fetch_add(1, Ordering::Relaxed);
            self.shared.counters.operations.fetch_add(group.len() as u64, Ordering::Relaxed);
            if let Some(told) = self.shared.counters.told.get() {
                told(group.len(), begun.elapsed());
            }
        } else if !self.connection.is_autocommit() {
            // SQLite itself rolls back after some errors. Where neither it nor we can, the connection is of no use.
            self.command("ROLLBACK").map_err(|error| self.shared.latch.note(StoreError::Fatal(format!("cannot roll back: {error}"))))?;
        }
        outcome
    }

    fn run_all(&self, group: &[Request]) -> rusqlite::Result<Vec<Applied>> {
        let applied =
            group.iter().map(|request| request.operation.apply(&self.connection, &self.shared.place)).collect::<rusqlite::Result<_>>()?;
        let anew = group.iter().rposition(|request| matches!(request.operation.bookkeeping(), Some(Bookkeeping::Anew(..))));
        if anew.is_some() {
            statements::forget_budget(&self.connection)?;
        }
        statements::keep_budget(&self.connection, group[anew.unwrap_or(0)..].iter().flat_map(|request| request.operation.budget()))?;
        if let Some(newest) = group.iter().filter_map(|request| request.operation.new_message()).max() {
            statements::raise_newest(&self.connection, newest)?;
        }
        Ok(applied)
    }

    fn command(&self, command: &str) -> rusqlite::Result<()> {
        self.connection.prepare_cached(command)?.execute([]).map(drop)
    }

    /// What follows from a commit.
    fn done(&self, mut request: Request, applied: Applied) {
        if let (Applied::NotThere, Some(file)) = (&applied, request.file()) {
            // There is no row for it.
            file.doom();
        }
        let done = match applied {
            Applied::Recorded => Done::Recorded,
            Applied::NotThere => Done::NotThere,
            Applied::Started(found) => Done::Started(found),
            Applied::Parted(parts) => Done::Parted(parts),
            Applied::Removed { message, in_file } => Done::Removed(in_file.then(|| Doomed::new(self.shared.place.content_of(message)))),
        };
        match request.operation {
            Operation::Accept { message, deliveries, body } => {
                let content = match body {
                    Body::Row(octets) => Content::Inline(octets),
                    Body::File(file) => Content::File { path: file.path().to_owned(), len: message.size },
                };
                self.shared.recent.keep(message, deliveries, content);
            }
            Operation::Settle(Settlement { delivery, .. }) | Operation::Remove(delivery) => {
                // It is no longer as it was accepted.
                drop(self.shared.recent.take(delivery));
            }
            Operation::Reroute(moves) => moves.iter().for_each(|(delivery, ..)| drop(self.shared.recent.take(*delivery))),
            // Those are not as they were accepted.
            Operation::BringIn { .. }
            | Operation::Start { .. }
            | Operation::Hold { .. }
            | Operation::KeepLedger(_)
            | Operation::Suspend(_)
            | Operation::Resume(_)
            | Operation::KeepHealth { .. }
            | Operation::KeepAlarms { .. }
            | Operation::Warn { .. }
            | Operation::Digest { .. } => {}
        }
        // Whoever waited may have gone.
        let _ = request.answer.send(Ok(done));
    }

    /// Copies the log into the database if it has that many pages.
    fn keep_log_short(&self, pages: i64) {
        if self.shared.latch.is_closed() {
            return;
        }
        let kept = self.checkpoint_from(pages);
        if let Err(error) = kept {
            // A full disk or a busy database: the log grows until the next time. All that is worse is latched.
            self.shared.latch.note(fault::of_sqlite(&error));
        }
    }

    fn checkpoint_from(&self, pages: i64) -> rusqlite::Result<()> {
        let number = |pragma, column| self.connection.prepare_cached(pragma)?.query_row([], |row| row.get::<_, i64>(column));
        if number("PRAGMA wal_checkpoint(NOOP)", 1)? < pages {
            return Ok(());
        }
        number("PRAGMA wal_checkpoint(PASSIVE)", 0)?;
        self.shared.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
        let free = number("PRAGMA freelist_count", 0)?;
        if free > FREE_PAGES && free > number("PRAGMA page_count", 0)? / 2 {
            self.connection.execute_batch("PRAGMA incremental_vacuum(1000)")?;
        }
        Ok(())
    }

    fn finish(self) {
        let closed = if self.shared.latch.is_closed() {
            // Not even the checkpoint that comes with closing may write.
            self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(drop)
        } else {
            self.shared.readers.close();
            self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        };
        // What is not in the database now is in the log, and is read from there at the next start.
        drop(closed);
    }
}

/// What waits for the writer.
struct Waiting {
    requests: mpsc::Receiver<Request>,
    /// Ends of attempts: see the head of this file.
    ends: Vec<Request>,
    /// When they are to be recorded at the latest, if there are any.
    due: Instant,
    linger: Duration,
}

impl Waiting {
    fn new(requests: mpsc::Receiver<Request>, linger: Duration) -> Self {
        Self { requests, ends: Vec::new(), due: Instant::now(), linger }
    }

    /// Waits for the next group. None: nobody is left who could send anything, and all that was sent has been in a group.
    fn group(&mut self) -> Option<Vec<Request>> {
        let (mut group, mut octets) = (Vec::new(), self.ends.iter().map(|end| end.operation.octets()).sum::<usize>());
        let mut next = self.requests.try_recv();
        loop {
            while let Ok(request) = next {
                octets += request.operation.octets();
                self.sort(request, &mut group);
                if group.len() + self.ends.len() >= GROUP_MAX || octets >= GROUP_OCTETS_MAX {
                    group.append(&mut self.ends);
                    return Some(group);
                }
                next = self.requests.try_recv();
            }
            let closed = matches!(next, Err(TryRecvError::Disconnected));
            if closed || self.due <= Instant::now() {
                group.append(&mut self.ends);
            }
            if closed || !group.is_empty() {
                return Some(group).filter(|group| !group.is_empty());
            }
            let waited = if self.ends.is_empty() { self.requests.blocking_recv() } else { receive_until(&mut self.requests, self.due) };
            next = waited.map_or_else(|| self.requests.try_recv(), Ok);
        }
    }

    fn sort(&mut self, request: Request, group: &mut Vec<Request>) {
        if !matches!(request.operation, Operation::Settle(_)) {
            return group.push(request);
        }
        if self.ends.is_empty() {
            self.due = Instant::now() + self.linger;
        }
        self.ends.push(request);
    }
}

/// The next one, if it comes in time.
fn receive_until(requests: &mut mpsc::Receiver<Request>, deadline: Instant) -> Option<Request> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        if let Poll::Ready(next) = requests.poll_recv(&mut Context::from_waker(&waker)) {
            return next;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        thread::park_timeout(left);
    }
}

impl Begin {
    /// Here, and not on one of the connections for reading: the rows are needed for the update anyway, and what cannot be read is not begun.
    fn apply(&self, connection: &Connection, place: &Place, now: Timestamp) -> rusqlite::Result<Found> {
        let job = if self.read {
            match read::job(connection, place, self.start.delivery) {
                Ok(Some(job)) => Some(Box::new(job)),
                Ok(None) => return Ok(Found::Gone),
                Err(error) => {
                    // Some faults end the transaction, and some all writing.
                    let why = fault::of_sqlite(&error);
                    let goes_on = !connection.is_autocommit() && !matches!(why, StoreError::Fatal(_));
                    return if goes_on { Ok(Found::Unreadable(why.to_string())) } else { Err(error) };
                }
            }
        } else {
            None
        };
        let there = statements::start(connection, &self.start, now)?;
        Ok(if there { Found::There(job) } else { Found::Gone })
    }
}

impl Operation {
    fn apply(&self, connection: &Connection, place: &Place) -> rusqlite::Result<Applied> {
        match self {
            Self::Accept { message, deliveries, body } => {
                statements::accept(connection, message, deliveries, body.stored()).map(|()| Applied::Recorded)
            }
            Self::BringIn { letter, body } => {
                let brought = statements::bring_in(connection, letter, body.stored())?;
                Ok(if brought { Applied::Recorded } else { Applied::NotThere })
            }
            Self::Start { starts, now, bookkeeping } => {
                if let Bookkeeping::Anew(_, anchor) = bookkeeping {
                    statements::keep_anchor(connection, anchor)?;
                }
                let found = starts.iter().map(|begin| begin.apply(connection, place, *now));
                found.collect::<rusqlite::Result<_>>().map(Applied::Started)
            }
            Self::Settle(settlement) => {
                let (left, parted) = statements::settle(connection, settlement)?;
                // Where somebody parted, the message is still there.
                let parting = parted.iter().any(Option::is_some);
                Ok(if parting { Applied::Parted(parted) } else { Applied::left(settlement.delivery.message, left) })
            }
            Self::Remove(delivery) => statements::remove(connection, *delivery).map(|left| Applied::left(delivery.message, left)),
            Self::Hold { deliveries, held } => statements::hold(connection, deliveries, *held).map(|()| Applied::Recorded),
            Self::Reroute(moves) => statements::reroute(connection, moves).map(|()| Applied::Recorded),
            Self::KeepLedger(Bookkeeping::Anew(_, anchor)) => statements::keep_anchor(connection, anchor).map(|()| Applied::Recorded),
            Self::KeepLedger(Bookkeeping::Changed(_)) => Ok(Applied::Recorded),
            Self::Suspend(suspended) => statements::suspend(connection, suspended).map(|()| Applied::Recorded),
            Self::Resume(account) => statements::resume(connection, account).map(|()| Applied::Recorded),
            Self::KeepHealth { health, anchor } => statements::keep_health(connection, health, anchor).map(|()| Applied::Recorded),
            Self::KeepAlarms { alarms, mail } => {
                statements::keep_alarms(connection, alarms)?;
                mail.as_ref().map_or(Ok(()), |mail| statements::accept_own(connection, mail)).map(|()| Applied::Recorded)
            }
            Self::Warn { delivery, telling } => {
                statements::warn(connection, *delivery, telling).map(|told| if told { Applied::Recorded } else { Applied::NotThere })
            }
            Self::Digest { reader, mark, notice } => {
                statements::digest(connection, reader, *mark, notice.as_ref()).map(|()| Applied::Recorded)
            }
        }
    }

    fn bookkeeping(&self) -> Option<&Bookkeeping> {
        match self {
            Self::Start { bookkeeping, .. } | Self::KeepLedger(bookkeeping) => Some(bookkeeping),
            _ => None,
        }
    }

    /// What is used of the budgets, for the transaction to write at its end.
    fn budget(&self) -> &[BudgetRow] {
        match self.bookkeeping() {
            Some(Bookkeeping::Changed(budget) | Bookkeeping::Anew(budget, _)) => budget,
            None => &[],
        }
    }

    /// The messages of the relay's own that come with it.
    fn own_messages(&self) -> &[NewMessage] {
        match self {
            Self::Settle(Settlement { telling, .. }) | Self::Warn { telling, .. } => &telling.notices,
            Self::KeepAlarms { mail: own, .. } | Self::Digest { notice: own, .. } => own.as_slice(),
            _ => &[],
        }
    }

    fn new_message(&self) -> Option<QueueId> {
        match self {
            Self::Accept { message, .. } | Self::BringIn { letter: Letter { message, .. }, .. } => Some(message.id),
            _ => self.own_messages().iter().map(|own| own.message.id).max(),
        }
    }

    fn octets(&self) -> usize {
        match self {
            Self::Accept { body: Body::Row(octets), .. } | Self::BringIn { body: Body::Row(octets), .. } => octets.len(),
            _ => self.own_messages().iter().map(|own| own.content.len()).sum(),
        }
    }
}

/// Answers that an operation was not recorded. After a fatal fault that is not certain, and the next start finds out.
fn refuse(mut request: Request, error: StoreError) {
    if !matches!(error, StoreError::Fatal(_)) {
        request.file().into_iter().for_each(Doomed::doom);
    }
    // Whoever waited may have gone.
    let _ = request.answer.send(Err(error));
}

impl Request {
    fn file(&mut self) -> Option<&mut Doomed> {
        match &mut self.operation {
            Operation::Accept { body: Body::File(file), .. } | Operation::BringIn { body: Body::File(file), .. } => Some(file),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
