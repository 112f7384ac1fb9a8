//! What goes into the scheduler and comes out of it.

use crate::budget::{self, Used};
use crate::clock::Timestamp;
use crate::mail::{AccountName, AppName, DeliveryId, RouteName};
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
        /// Whether it was tried a moment ago.
        chance: Chance,
    },
    /// Log in on this account and say good-bye, without any mail: somebody is suspended, and that shows whether it is over. Then comes
    /// [`Scheduler::probed`](super::Scheduler::probed).
    Probe {
        /// On which account.
        account: AccountName,
    },
    /// Give this delivery up: its message is older than the queue's lifetime. It is out of the queue.
    Expire {
        /// What.
        delivery: DeliveryId,
    },
}

/// Whether a delivery that may be one account's trouble, or one connection's, was tried elsewhere a moment ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Chance {
    /// It was not.
    #[default]
    First,
    /// It was, on another account: this is its second chance.
    Elsewhere,
    /// It was, on this account, and no other can take it: this is its second chance, and goes over another connection.
    Again,
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

/// The end of a [`Decision::Probe`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// On which account.
    pub account: AccountName,
    /// When it had begun.
    pub started: Timestamp,
    /// What it met; none: the login passed.
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

/// A gate that closed or opened, or an account that uses more or fewer connections; to be told once.
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
    /// An account uses fewer connections than it did.
    Narrowed {
        /// Which.
        account: AccountName,
        /// So many now.
        using: usize,
        /// So many may be used.
        configured: usize,
        /// Why.
        pause: Pause,
    },
    /// An account uses one connection more than it did.
    Widened {
        /// Which.
        account: AccountName,
        /// So many now.
        using: usize,
        /// So many may be used.
        configured: usize,
    },
}

/// Whom a gate belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// One account.
    Account(AccountName),
    /// All accounts that log in with an application.
    App(AppName),
    /// All accounts of a route: its endpoint; for a route apart the tenant behind it too.
    Route(RouteName),
    /// All accounts of the tenant.
    Tenant,
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
