//! What goes into the scheduler and comes out of it.

use crate::budget::{self, Used};
use crate::clock::Timestamp;
use crate::mail::{AccountName, DeliveryId, RouteName};
use crate::reply::Pause;

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Try this delivery on this account.
    Attempt {
        /// What.
        delivery: DeliveryId,
        /// On which account.
        account: AccountName,
        /// How many of its recipients, from the first; the others stay queued.
        recipients: u16,
    },
    /// Give this delivery up: its message is older than the queue's lifetime. It is out of the queue.
    Expire {
        /// What.
        delivery: DeliveryId,
    },
}

/// The end of an attempt, as far as accounts and budgets are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Which delivery.
    pub delivery: DeliveryId,
    /// When the attempt had begun.
    pub started: Timestamp,
    /// What the upstream server may have counted.
    pub used: Used,
    /// What the account, or more, must wait for.
    pub pause: Option<Pause>,
}

/// A change of what is used of a budget, to be kept in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetChange {
    /// Whose; none: the tenant's.
    pub account: Option<AccountName>,
    /// What.
    pub change: budget::Change,
}

/// A gate that closed or opened, to be told once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// No attempts until then.
    Closed {
        /// Whose.
        gate: Who,
        /// Until when.
        until: Timestamp,
        /// Why, and who must do what.
        pause: Pause,
    },
    /// Attempts go on.
    Opened {
        /// Whose.
        gate: Who,
    },
}

/// Whom a gate belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// One account.
    Account(AccountName),
    /// All accounts of a route: its endpoint, or the tenant behind it.
    Route(RouteName),
}

/// How many deliveries are where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Attempts under way.
    pub active: usize,
    /// Due, and waiting for an account.
    pub ready: usize,
    /// Deferred to a later time.
    pub deferred: usize,
    /// Held by an operator.
    pub held: usize,
}
