//! What a report means: an outcome for each recipient, and what the account must do.

use std::time::Duration;

use crate::mail::Class;
use crate::smtp::EnhancedStatus;

use super::Step;

/// What became of one recipient in one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Sent, deferred or failed.
    pub disposition: Disposition,
    /// The status for logs and notices (RFC 3463); ours where the server gave none.
    pub status: EnhancedStatus,
    /// The server's reply, whole, or what happened instead, in words.
    pub diagnostic: String,
    /// At which step.
    pub step: Step,
}

/// Postfix's three ends of an attempt, for one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// The upstream server has it.
    Sent,
    /// It stays queued.
    Deferred,
    /// It failed for good.
    Failed,
}

/// Whose trouble it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One recipient's.
    Recipient,
    /// The message's.
    Message,
    /// The account's.
    Account,
    /// The OAuth application's, and so that of all its accounts.
    App,
    /// The tenant's, and so that of all accounts.
    Tenant,
    /// The connection's or the endpoint's.
    Connection,
}

/// A pause that a report asks for: of the account, or of more (see `scope`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Whom it concerns: `Account`, `App`, `Tenant`, or `Connection` for the endpoint.
    pub scope: Scope,
    /// Only recipients of this class, if any.
    pub class: Option<Class>,
    /// How long.
    pub length: PauseLength,
    /// What was said or what happened, for logs and listings.
    pub reason: String,
    /// Who must do what; empty if it passes by itself.
    pub advice: String,
}

/// How long a pause lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PauseLength {
    /// A time known from the reply's meaning, such as the length of a budget's window.
    For(Duration),
    /// Passing trouble: short at first, longer each time it meets the same account again.
    BackOff,
    /// The operator must act; until then it is tried rarely.
    Suspended,
}

/// All that follows from one report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// For each recipient of the delivery, in order.
    pub outcomes: Vec<Outcome>,
    /// What the account, or more, must wait for.
    pub pause: Option<Pause>,
    /// The attempt counts against the delivery: its next attempt backs off. Trouble that is not the delivery's own does not count.
    pub counts: bool,
    /// The connection ended after the final dot without a reply: the server may have the message.
    pub in_doubt: bool,
}
