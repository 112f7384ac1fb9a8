//! The HTTP interface of the running relay: what waits, why and until when, and what an operator can do about it.
//!
//! Version 1 of it is [`router`], JSON over HTTP/1.1. It knows nothing of the transport beneath, which hands over who asks as an [`Operator`]
//! in each request's extensions, and nothing of the relay above, which implements [`Relay`]. What goes over the wire are the types of
//! `values`, `past` and `overview`; `words` says in one place what each reason means and what to do about it. `deploy/openapi.json`
//! describes all of it for programs, and is served at `/v1/openapi.json`.
//!
//! Over TCP the same routes stand behind [`gated`], which asks [`Access`] who may, and has the web page (`page/`) in front. The page knows what
//! this interface says and nothing else.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/status` | [`Status`]: counts, what waits by priority and class with a forecast, the tenant's budgets |
//! | `GET /v1/overview` | [`Overview`]: the same, accounts, what waits for what, the last minutes and failures |
//! | `GET /v1/events` | `overview` events, each an [`Overview`], whenever it changes |
//! | `GET /v1/queue?after=&limit=&client=&class=&priority=&reason=` | [`Page`] |
//! | `GET /v1/queue/{id}` | [`Detail`] of a message, or of one delivery (`id.part`) |
//! | `POST /v1/queue/{id}/hold`, `release`, `retry`, `remove`; `DELETE /v1/queue/{id}` | [`Changed`] |
//! | `POST /v1/queue/count` with a [`Selection`] | [`Totals`] |
//! | `POST /v1/queue/hold`, `release`, `retry`, `remove` with a [`Selection`] | [`Changed`] |
//! | `GET /v1/accounts` | [`Accounts`] |
//! | `POST /v1/accounts/{name}/suspend` with a [`Suspend`], `resume` | [`AccountEntry`] |
//! | `GET /v1/habits` | [`Clients`]: what each client does otherwise than the standards have it |
//! | `GET /v1/log` | [`LogEntry`]: what is logged |
//! | `POST /v1/log` with a [`SetLevel`] | the same, changed until the configuration is read again |
//! | `GET /v1/log/words/{address}` | [`Word`]: what stands for an address in the log |
//! | `DELETE /v1/habits` | begins to count anew; [`Clients`] as it was |
//! | `GET /v1/trace?what=&since=&failed=&before=&limit=` | [`Trace`]: what became of messages, newest first |
//! | `GET /v1/report?by=&month=` | [`Report`]: a month, added up |
//!
//! Messages are brought in on the operator's socket alone ([`letters`]): `POST /v1/letters` with a [`BringIn`] on one line and the content behind
//! it is answered [`BroughtIn`]. It is for `hve-relay queue import` and `restore`, and changes with them.
//!
//! For those who watch, outside of the version: `GET /metrics` (OpenMetrics), `/livez` (200 as long as the dispatcher answers) and `/readyz` (200
//! if mail may be sent here, else 503 and a line for each reason). None of the three is logged.
//!
//! What goes wrong is `{"error": "a sentence"}` with status 400 (the request), 404 (nothing of that name), 409 (not in this state) or 503
//! (the relay cannot now). Times are RFC 3339 in UTC, spans are seconds.
//!
//! *Limits.* One request looks at [`SCAN`] deliveries at most and lists [`LIMIT_MAX`]; if more follow, `next` says where to go on, by giving it
//! as `after`. A request's body has 64 KiB at most, but for [`letters`].

mod access;
mod describe;
mod filter;
mod flow;
mod gate;
mod letters;
mod live;
mod log;
mod monitor;
mod overview;
mod page;
mod past;
mod routes;
mod values;
mod words;

use std::future::Future;
use std::time::Duration;

pub use access::{Access, AccessSettings, Proven};
pub use describe::{account, accounts, client, detail, entry, status};
pub use filter::{Filter, NotAnAction, Range, Target};
pub use flow::{FailureEntry, Flow, Minute, Minutes};
pub use gate::{Peer, Session, gated};
pub use letters::{BringIn, BroughtIn, Outcome, Pieces, letters};
pub use live::{LISTENERS, PULSE, Parting};
pub use log::{LogEntry, SetLevel, Word};
pub use overview::{Overview, Parts, WaitingEntry, overview};
pub use past::{
    AttemptEntry, Month, PastEntry, Report, ReportLine, ReportQuery, STORIES, StoryEntry, Trace, TraceQuery, group, report_line, story,
};
pub use routes::router;
pub use values::{
    AccountEntry, Accounts, BudgetEntry, Changed, ClassEntry, ClassWait, ClientEntry, Clients, Connections, Counted, DeliveryEntry, Detail,
    Entry, ErrorText, HabitEntry, HealthEntry, Letter, ListQuery, Page, Reloaded, Selection, Status, Suspend, Time, Totals, TroubleEntry,
    WaitsFor, Why,
};
pub use words::waits_for;

use crate::mail::AccountName;
use crate::telemetry::State;

/// Deliveries that one request looks at, at most.
pub const SCAN: usize = 10_000;
/// Deliveries in one page, where nothing else is asked for.
pub const LIMIT: usize = 100;
/// Deliveries in one page, at most.
pub const LIMIT_MAX: usize = 1_000;
/// The longest suspension with an end.
pub const SUSPENSION_MAX: Duration = Duration::from_secs(366 * 86_400);
/// Characters of what an operator says about a suspension, at most.
pub const REASON_MAX: usize = 500;

/// What the interface asks of the relay. Changes are carried to their end once begun, whoever gave up waiting, one after another.
pub trait Relay: Clone + Send + Sync + 'static {
    /// At most `limit` deliveries of a range that the filter lets through, oldest first.
    fn list(&self, range: Range, filter: Filter, limit: usize) -> impl Future<Output = Result<Page, Refusal>> + Send;

    /// Everything about a message or a delivery.
    fn show(&self, target: Target) -> impl Future<Output = Result<Detail, Refusal>> + Send;

    /// How much of a range the filter lets through.
    fn count(&self, range: Range, filter: Filter) -> impl Future<Output = Result<Totals, Refusal>> + Send;

    /// Does something to one message or delivery: to all of it, or to nothing.
    fn change(&self, action: Action, target: Target, by: Operator) -> impl Future<Output = Result<Changed, Refusal>> + Send;

    /// Does something to all of a range that the filter lets through, as far as it can be done.
    fn change_all(
        &self,
        action: Action,
        range: Range,
        filter: Filter,
        by: Operator,
    ) -> impl Future<Output = Result<Changed, Refusal>> + Send;

    /// The state in one look.
    fn status(&self) -> impl Future<Output = Result<Status, Refusal>> + Send;

    /// The whole in one answer.
    fn overview(&self) -> impl Future<Output = Result<Overview, Refusal>> + Send;

    /// Every account.
    fn accounts(&self) -> impl Future<Output = Result<Accounts, Refusal>> + Send;

    /// Every client, with its habits.
    fn habits(&self) -> impl Future<Output = Result<Clients, Refusal>> + Send;

    /// The values of a scrape.
    fn state(&self) -> impl Future<Output = Result<State, Refusal>> + Send;

    /// What speaks against sending mail here, in words; nothing: the relay is ready.
    fn obstacles(&self) -> impl Future<Output = Vec<String>> + Send;

    /// The same for the last time: from here on habits are counted anew.
    fn forget_habits(&self, by: Operator) -> impl Future<Output = Result<Clients, Refusal>> + Send;

    /// What became of messages.
    fn trace(&self, query: TraceQuery) -> impl Future<Output = Result<Trace, Refusal>> + Send;

    /// A month, added up.
    fn report(&self, query: ReportQuery) -> impl Future<Output = Result<Report, Refusal>> + Send;

    /// Brings in what is missing of a message that was queued before. Whoever was cut off asks once more.
    fn bring_in(&self, asked: BringIn, content: Pieces, by: Operator) -> impl Future<Output = Result<BroughtIn, Refusal>> + Send;

    /// Uses an account no more, for so long or until it is resumed. Attempts under way end.
    fn suspend(
        &self,
        account: AccountName,
        length: Option<Duration>,
        reason: String,
        by: Operator,
    ) -> impl Future<Output = Result<AccountEntry, Refusal>> + Send;

    /// Goes on by what the configuration says now. Returns when that is so.
    fn reload(&self, by: Operator) -> impl Future<Output = Result<Reloaded, Refusal>> + Send;

    /// Uses an account again, also one that rests because of trouble of its own.
    fn resume(&self, account: AccountName, by: Operator) -> impl Future<Output = Result<AccountEntry, Refusal>> + Send;
}

/// What can be done to deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// No further attempt until it is released; one under way ends.
    Hold,
    /// The end of a hold.
    Release,
    /// What is deferred is due now.
    Retry,
    /// Nobody gets it any more. Not while an attempt is under way.
    Remove,
}

/// Who asks, as far as the transport knows, for the log: `uid 1000`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator(pub String);

/// Why something was not done; the text is for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// Nothing has that name.
    #[error("{0}")]
    NotFound(String),
    /// It cannot be done in the state in which things are.
    #[error("{0}")]
    Conflict(String),
    /// The relay cannot now: its store does not serve, or it is stopping.
    #[error("{0}")]
    Unavailable(String),
}
