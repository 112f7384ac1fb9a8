//! The durable queue: what was accepted, and what became of it.
//!
//! [`Spool`] is the contract; [`sqlite`] is the embedded implementation. What has left the queue is told by the [`history`], which has a file of
//! its own.
//!
//! Invariants, each held by every implementation:
//! * `accept` returns `Ok` only when message, recipients and content would survive a power cut.
//! * A message stays until each of its recipients is settled; what `settle` records and the notice that follows from it are one transaction.
//! * A call whose future is dropped may have its effect or not, but never half of it. Who gives up `accept` does not know whether the message
//!   is queued: carry it to its end, or the message may lie there until the next start.
//! * A delivery whose attempt was started and never settled is found as such after a restart (in doubt) and is queued again.

pub mod history;
mod letter;
mod settings;
pub mod sqlite;

pub use letter::{Envelope, Letter, MayHaveLeft, Standing};
pub use settings::{HistorySettings, Settings};

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::mail::{AccountName, Class, Content, Delivery, DeliveryId, Gathered, Message, QueueId, Queued, RouteName};
use crate::smtp::Mailbox;

/// Why the store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The disk has not enough room, or no inodes. The client gets 452 and may try again.
    #[error("not enough disk space: {0}")]
    Full(String),
    /// The store cannot serve now. The client gets 451 and may try again.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// A write or a sync failed: nothing that is not yet acknowledged may be believed. The process must end and recover.
    #[error("the store failed: {0}")]
    Fatal(String),
}

/// A message on its way in: its content is written piece by piece, and nothing of it is kept unless it is accepted.
pub trait Incoming: Send {
    /// Appends octets of the content (CRLF line ends, not dot-stuffed).
    fn write(&mut self, octets: &[u8]) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// All that an attempt needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The message.
    pub message: Message,
    /// The delivery, with the recipients that are not settled yet.
    pub delivery: Delivery,
    /// The content.
    pub content: Content,
    /// What the last attempt came to, for its first deferred recipient; empty before the first attempt.
    pub last_reply: String,
}

/// A message that the relay writes itself, with its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// The message.
    pub message: Message,
    /// Its deliveries.
    pub deliveries: Vec<Delivery>,
    /// Its content.
    pub content: Vec<u8>,
}

/// The end of an attempt, to be recorded in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// Which delivery.
    pub delivery: DeliveryId,
    /// The ordinals of the recipients that are settled for good: sent, or failed.
    pub settled: Vec<u16>,
    /// Those that go on in deliveries of their own.
    pub parted: Vec<Parted>,
    /// For those that remain: the earliest time of the next attempt.
    pub due: Timestamp,
    /// For those that remain: what the attempt came to, for people; empty if none was deferred.
    pub last_reply: String,
    /// Attempts counted against the delivery, this one included if it counts.
    pub attempts: u32,
    /// What somebody is told of it.
    pub telling: Telling,
    /// Those that remain are held from here on, for this reason.
    pub hold: Option<String>,
    /// The upstream server may have the message although it did not say so.
    pub in_doubt: bool,
}

impl Settlement {
    /// The end of an attempt after which everything is as it was, due now.
    pub fn unchanged(delivery: &Delivery, now: Timestamp, last_reply: String) -> Self {
        Self {
            delivery: delivery.id,
            settled: Vec::new(),
            parted: Vec::new(),
            due: now,
            last_reply,
            attempts: delivery.attempts,
            telling: Telling::default(),
            hold: None,
            in_doubt: false,
        }
    }
}

/// Recipients that leave their delivery for one of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parted {
    /// Their ordinals, which they keep. If none of them is left to be settled, there is no delivery.
    pub ordinals: Vec<u16>,
    /// Where they go.
    pub route: RouteName,
    /// The earliest time of their next attempt.
    pub due: Timestamp,
}

/// What a settlement left behind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settled {
    /// The message has left the queue, with its content.
    pub last: bool,
    /// The numbers of the deliveries of those that parted, in order; a number is never given twice in a message. None: nobody was there.
    pub parted: Vec<Option<u16>>,
}

/// What somebody is told of mail: recorded together with what it is about, so that nothing is told twice or never.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Telling {
    /// At once.
    pub notices: Vec<NewMessage>,
    /// Later, together with other things.
    pub gathered: Vec<Gathered>,
}

/// How much is gathered for a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gathering {
    /// Whom it is for.
    pub reader: Mailbox,
    /// How many recipients it is about.
    pub count: usize,
    /// When the first of it happened.
    pub since: Timestamp,
}

/// An attempt that is about to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Of which delivery.
    pub delivery: DeliveryId,
    /// On which account.
    pub account: AccountName,
    /// To how many of the recipients, from the first.
    pub recipients: u16,
}

/// Whether an attempt may begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Started {
    /// It is recorded that it begins. This is what it needs, all recipients included.
    Begun(Box<Job>),
    /// The delivery is settled or unknown.
    Gone,
    /// What it needs cannot be read, for this reason; nothing is recorded of it.
    Unreadable(String),
}

/// Attempts that were handed over, until it is recorded that they begin. The answers are in their order. Dropping it takes nothing back.
pub type Starting = Pin<Box<dyn Future<Output = Result<Vec<Started>, StoreError>> + Send>>;

/// What is to be recorded of the budgets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bookkeeping {
    /// These lines changed.
    Changed(Vec<BudgetRow>),
    /// These lines are all there are, and their times are those of this anchor.
    Anew(Vec<BudgetRow>, Anchor),
}

/// What is used of a budget: one line of its ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetRow {
    /// Whose; none: the tenant's.
    pub account: Option<AccountName>,
    /// Which limit, by its name in the configuration.
    pub limit: String,
    /// Which line of that limit's ledger; there is one row for each account, limit and index.
    pub index: u32,
    /// When; none: it is in flight.
    pub at: Option<Timestamp>,
    /// How much; with zero the row goes.
    pub amount: u32,
}

/// Which point of the boot clock is which point of the relay's time, so that a restart knows how much real time has passed although somebody
/// may have set the wall clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anchor {
    /// Which boot (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
    /// Milliseconds of the boot clock.
    pub boot: i64,
    /// The relay's time at that moment.
    pub at: Timestamp,
    /// By how many milliseconds the wall clock was ahead of the relay's time: it may have been set since the relay read it.
    pub ahead: i64,
}

/// An operator's word that an account is not to be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspended {
    /// Which account.
    pub account: AccountName,
    /// Until when; none: until an operator resumes it.
    pub until: Option<Timestamp>,
    /// Why.
    pub reason: String,
}

/// An alarm as the operators know it, so that a restart tells nothing twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlarmRow {
    /// What it is about.
    pub name: String,
    /// When it was raised.
    pub since: Timestamp,
    /// Why.
    pub why: String,
    /// When it was cleared, if it was.
    pub cleared: Option<Timestamp>,
    /// The operators know that it was raised.
    pub told: bool,
}

/// What is not well with an account, or with more, as the scheduler has learned it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ailment {
    /// Whose: `account`, `app` or `route` with a name behind a blank, or `tenant`.
    pub holder: String,
    /// A class of recipients, `connections`, or empty for all mail; there is one row for each holder and this.
    pub about: String,
    /// Since when.
    pub since: Timestamp,
    /// When it was met last.
    pub met: Timestamp,
    /// When it is over, or is looked at again.
    pub until: Timestamp,
    /// How often it was met in a row.
    pub level: u32,
    /// Logins that were tried.
    pub logins: u32,
    /// The last of them passed.
    pub passed: bool,
    /// Connections that are used.
    pub using: Option<u32>,
    /// Whose trouble the server's reply was about.
    pub scope: String,
    /// What it asked for.
    pub length: String,
    /// For how long, if it said so.
    pub lasts: Option<Duration>,
    /// How often it is tried, if not as often as others.
    pub every: Option<Duration>,
    /// The limit that it said was used up.
    pub limit: Option<String>,
    /// At which step it came.
    pub step: String,
    /// Its kind.
    pub kind: String,
    /// What was said.
    pub reason: String,
    /// Who must do what.
    pub advice: String,
}

/// What is kept besides messages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ledger {
    /// What is used of the budgets.
    pub budget: Vec<BudgetRow>,
    /// The anchor that was kept last.
    pub anchor: Option<Anchor>,
    /// The accounts that an operator has suspended.
    pub suspended: Vec<Suspended>,
    /// The alarms that are raised, or of whose end the operators do not know.
    pub alarms: Vec<AlarmRow>,
    /// What is gathered for whom.
    pub gathering: Vec<Gathering>,
    /// What is not well.
    pub health: Vec<Ailment>,
    /// The anchor that its times belong to.
    pub health_anchor: Option<Anchor>,
}

/// A queued delivery, for a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The message.
    pub message: Message,
    /// The delivery, with the recipients that are not settled.
    pub delivery: Delivery,
    /// It is held until an operator releases it.
    pub held: bool,
    /// Why, if it was not an operator who held it.
    pub hold_reason: String,
    /// How many attempts ended so that the upstream server may have the message although it did not say so.
    pub doubts: u32,
    /// What the last attempt came to, for its first deferred recipient; empty before the first attempt.
    pub last_reply: String,
}

/// The durable queue.
pub trait Spool: Send + Sync + 'static {
    /// A message on its way in.
    type Incoming: Incoming;

    /// Octets that new mail may still take: what is free, less the reserve and all messages on their way in.
    fn spare(&self) -> u64;

    /// Makes room for a message of `announced` octets (MAIL's SIZE parameter, RFC 1870); 0 if nothing was announced: then for the largest.
    /// The content may turn out to be larger; `accept` looks again.
    ///
    /// # Errors
    /// [`StoreError::Full`] if what is free, less the reserve and all other messages on their way in, is not enough.
    fn begin(&self, id: QueueId, announced: u64) -> Result<Self::Incoming, StoreError>;

    /// Keeps a message; when this returns `Ok`, it is durable and may be acknowledged. `message.size` is set to what the content has.
    /// Each delivery must have a recipient.
    fn accept(
        &self,
        message: Message,
        deliveries: Vec<Delivery>,
        content: Self::Incoming,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Keeps a message that was queued before, as it stood then; when this returns `Ok`, it is durable. False: one of its name is queued, which
    /// stays as it is, and nothing is kept of this one.
    ///
    /// # Errors
    /// As of `accept`; and if the content has another length than the message says.
    fn bring_in(&self, letter: Letter, content: Self::Incoming) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Calls `each` for every queued delivery, oldest message first. Called once, at start.
    fn queued(&self, each: impl FnMut(Queued) + Send) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Has it recorded that attempts begin, and what changed of the budgets: all in one transaction, so that what an attempt uses is recorded
    /// when it begins. When this returns, it is handed over and stands behind all that was handed over before, but for ends of attempts; what it
    /// returns says when it is recorded. From then on a crash leaves each delivery that has begun in doubt until it is settled.
    fn start(
        &self,
        starts: Vec<Start>,
        now: Timestamp,
        bookkeeping: Bookkeeping,
    ) -> impl Future<Output = Result<Starting, StoreError>> + Send;

    /// A delivery as it stands, without starting an attempt.
    fn load(&self, delivery: DeliveryId) -> impl Future<Output = Result<Option<Job>, StoreError>> + Send;

    /// Records the end of an attempt. A message without recipients left is removed, its content with it.
    /// What is settled already, or was removed, is left as it is, and nobody is told anything a second time.
    fn settle(&self, settlement: Settlement) -> impl Future<Output = Result<Settled, StoreError>> + Send;

    /// What is kept besides messages. Called once, at start.
    fn ledger(&self) -> impl Future<Output = Result<Ledger, StoreError>> + Send;

    /// Records what changed of the budgets. Here as in `start`, of two rows for one line of a ledger the one that is handed over later stays: let
    /// one task hand them over.
    fn keep_ledger(&self, bookkeeping: Bookkeeping) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Records that an operator has suspended an account; `resume` forgets it.
    fn suspend(&self, suspended: Suspended) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// See [`Self::suspend`].
    fn resume(&self, account: &AccountName) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Records that this is all that is not well; its times are those of the anchor.
    fn keep_health(&self, health: Vec<Ailment>, anchor: Anchor) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Records that these are all alarms there are, together with the mail that tells of them, if there is one.
    fn keep_alarms(&self, alarms: Vec<AlarmRow>, mail: Option<NewMessage>) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// At most `limit` queued deliveries of clients' mail that was accepted before `before`, and of whose delay nobody was told, oldest first.
    fn delayed(&self, before: Timestamp, limit: usize) -> impl Future<Output = Result<Vec<Listed>, StoreError>> + Send;

    /// Records that a delivery's delay was told. Returns whether it was: what is settled or was told of before is left as it is.
    fn warn(&self, delivery: DeliveryId, telling: Telling) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// The first `limit` of what is gathered for a reader, and the mark up to which that goes.
    fn gathered(&self, reader: &Mailbox, limit: usize) -> impl Future<Output = Result<(Vec<Gathered>, i64), StoreError>> + Send;

    /// Removes what is gathered for a reader up to a mark, together with recording the notice that tells of it, if there is one.
    fn digest(&self, reader: &Mailbox, mark: i64, notice: Option<NewMessage>) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Records that an operator holds deliveries, or releases them; those that are not there are left out. Mail waits meanwhile: of very many,
    /// give some thousands at a time.
    fn hold(&self, deliveries: Vec<DeliveryId>, held: bool) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Records that deliveries go another way from now on, each as mail of a class; those that are not there are left out. As of [`Self::hold`],
    /// mail waits meanwhile.
    fn reroute(&self, moves: Vec<(DeliveryId, RouteName, Class)>) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Goes on with other numbers; of the directory nothing changes.
    fn follow(&self, settings: &Settings);

    /// Removes a delivery that nobody will get any more, with its message and content if it was the last. Returns whether the message left;
    /// what is not there does not.
    fn remove(&self, delivery: DeliveryId) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// At most `limit` queued deliveries behind `after`, oldest message first. There may be fewer although more are queued; there are none
    /// behind the last.
    fn list(&self, after: Option<DeliveryId>, limit: usize) -> impl Future<Output = Result<Vec<Listed>, StoreError>> + Send;
}
