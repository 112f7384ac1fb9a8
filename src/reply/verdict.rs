//! What a report means: an outcome for each recipient, and what the account must do.

use std::sync::Arc;
use std::time::Duration;

use crate::budget::LimitName;
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
    /// How often it is tried while it is suspended, if not as the settings say.
    pub every: Option<Duration>,
    /// The limit that the server says is used up.
    pub limit: Option<LimitName>,
    /// At which step the trouble was met: a login alone can show the end of what a login alone has met.
    pub step: Step,
    /// What kind of trouble it is: the name of its entry in the catalogue, or a word of ours where there was no reply. Trouble of the same kind
    /// on all accounts is one trouble.
    pub kind: Arc<str>,
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
    /// No time: the account uses fewer connections than it did. If it used one, as [`Self::BackOff`].
    FewerConnections,
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
    /// The trouble may be that of this account or connection alone: the delivery may be tried at once on another account or connection, once,
    /// and then it counts.
    pub elsewhere: bool,
    /// What becomes of the recipients that stay queued.
    pub rest: Rest,
    /// The recipients, by their places, that failed for replies that nobody knows, in a transaction that the server took for nobody: whether that
    /// was their fault or the account's, other messages must tell.
    pub doubtful: Vec<usize>,
    /// The recipients, by their places, that failed because this route does not take them, and may go by another.
    pub misrouted: Vec<usize>,
    /// The connection ended after the final dot without a reply: the server may have the message.
    pub in_doubt: bool,
}

impl Judgement {
    /// The recipients that failed for a reply that nobody knows stay queued: it may be the account's trouble.
    pub fn defer_doubtful(&mut self) {
        for place in std::mem::take(&mut self.doubtful) {
            self.outcomes[place].disposition = Disposition::Deferred;
        }
        // With nothing else that counts against it, it may be tried on another account at once.
        self.elsewhere |= !self.counts && self.pause.is_none();
        self.counts = self.pause.is_none();
    }
}

/// What becomes of the recipients that stay queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Rest {
    /// They are tried again, together.
    #[default]
    Together,
    /// They are tried again, each in a delivery of its own.
    Apart,
    /// They wait for an operator.
    Held,
}
