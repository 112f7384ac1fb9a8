//! What is used of the budgets, between the scheduler and the store.
//!
//! The scheduler says what changed; it is durable before any attempt begins that needs it. After a restart the stored times are brought onto
//! the present clock: within one boot the boot clock says how much time has really passed, whatever was done to the wall clock meanwhile.

use std::fs;
use std::time::Duration;

use super::Shared;
use crate::budget;
use crate::clock::{Clock, Timestamp};
use crate::mail::AccountName;
use crate::schedule::{BudgetChange, Scheduler, Suspension};
use crate::store::{Anchor, BudgetRow, Ledger, Spool, StoreError};
use crate::telemetry;

/// Keeps the store's budgets as the scheduler's are.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// The store missed some changes: it gets everything anew.
    behind: bool,
    /// Since when something has changed that is not recorded.
    unrecorded: Option<Timestamp>,
}

/// How long a change may wait for the next attempt to be recorded together with its reservation.
const LAG: Duration = Duration::from_millis(100);

impl Books {
    /// Something changed that nothing depends on yet.
    pub fn note(&mut self, now: Timestamp) {
        self.unrecorded.get_or_insert(now);
    }

    /// When what changed is to be recorded, if anything did.
    pub fn due(&self) -> Option<Timestamp> {
        self.unrecorded.map(|since| since + LAG)
    }

    /// Whether that time has come.
    pub fn are_late(&self, now: Timestamp) -> bool {
        self.due().is_some_and(|due| due <= now)
    }

    /// Records what changed; returns whether it is durable.
    pub async fn keep<S: Spool>(&mut self, shared: &Shared<S>, scheduler: &mut Scheduler) -> bool {
        let changes = if self.behind { scheduler.budget_state() } else { scheduler.budget_changes() };
        if changes.is_empty() && !self.behind {
            self.unrecorded = None;
            return true;
        }
        let rows = changes.into_iter().map(row).collect();
        let (at, boot) = shared.clock.reading();
        match shared.store.keep_ledger(rows, self.behind, Anchor { boot_id: shared.boot_id.clone(), boot, at }).await {
            Ok(()) => {
                (self.behind, self.unrecorded) = (false, None);
                return true;
            }
            Err(StoreError::Fatal(why)) => shared.store_failed(&why),
            Err(error) => telemetry::store_busy("recording what is used of the budgets", &error.to_string()),
        }
        self.behind = true;
        // Once more after a while, whether anything goes or not.
        self.unrecorded = Some(at);
        false
    }
}

/// Brings the scheduler to where the store's ledger says that things stand.
pub(super) fn restore(ledger: &Ledger, scheduler: &mut Scheduler, accounts: &[AccountName], clock: &Clock, boot_id: &str) {
    let now = clock.now();
    // Of another boot nothing is known but the wall clock.
    let same_boot = ledger.anchor.as_ref().filter(|anchor| anchor.boot_id == boot_id);
    let shift = same_boot.map_or(0, |anchor| clock.at(anchor.boot).as_millis() - anchor.at.as_millis());
    for holder in accounts.iter().map(Some).chain([None]) {
        let rows: Vec<budget::Row> = ledger.budget.iter().filter(|row| row.account.as_ref() == holder).filter_map(read).collect();
        scheduler.restore(holder, &rows, now, shift);
    }
    for suspended in &ledger.suspended {
        let until = suspended.until.map(|until| Timestamp::from_millis(until.as_millis().saturating_add(shift)));
        scheduler.suspend(&suspended.account, Some(Suspension { until, reason: suspended.reason.clone() }));
    }
}

/// Which boot of the machine this is; empty where the system does not tell, and then no two are the same.
pub(super) fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    if id.trim().is_empty() { format!("unknown, process {}", std::process::id()) } else { id.trim().to_owned() }
}

fn row(BudgetChange { account, change }: BudgetChange) -> BudgetRow {
    let (limit, index, at, amount) = match change {
        budget::Change::Put(row) => (row.limit, row.slot, row.at, row.amount),
        budget::Change::Remove { limit, slot } => (limit, slot, None, 0),
    };
    BudgetRow { account, limit: limit.as_str().to_owned(), index, at, amount }
}

/// A row of a limit that this version does not know says nothing.
fn read(row: &BudgetRow) -> Option<budget::Row> {
    Some(budget::Row { limit: row.limit.parse().ok()?, slot: row.index, at: row.at, amount: row.amount })
}
