//! What is used of the budgets, between the scheduler and the store.
//!
//! The scheduler says what changed; it is recorded in one transaction with the attempts that need it. After a restart the stored times are
//! brought onto the present clock. Within one boot the boot clock says how much time has really passed, whatever was done to the wall clock
//! meanwhile. After another boot only the wall clock is left: if it had been put forward under the former process, the stored times are put
//! forward too, or they would look older than they are. That it had been put back is not believed: budget would become free too early.
//!
//! What was learned of accounts (`health`) is recorded in the same way, before any attempt or login begins that would follow from it.
//!
//! The relay's time and the boot clock run side by side as long as a process lives, so the anchor that ties them together is written once, with
//! all lines in the new process's time, and again only when the wall clock was set.

use std::collections::BTreeSet;
use std::fs;
use std::future::ready;
use std::time::Duration;

use super::{Shared, health};
use crate::budget;
use crate::clock::{Clock, Timestamp};
use crate::mail::AccountName;
use crate::schedule::{BudgetChange, Scheduler, Suspension};
use crate::store::{Anchor, Bookkeeping, BudgetRow, Ledger, Spool, Start, Starting, StoreError};
use crate::telemetry;

/// Keeps the store's budgets as the scheduler's are.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// By how much the wall clock was ahead when all lines were recorded anew; none: that is to be done.
    ahead: Option<i64>,
    /// Since when something has changed that is not recorded.
    unrecorded: Option<Timestamp>,
    /// What was learned could not be recorded.
    health_lost: bool,
}

/// What could not be done, for the log.
pub(super) const STARTING: &str = "starting attempts";
/// How long a change may wait for the next attempt to be recorded together with its reservation.
const LAG: Duration = Duration::from_millis(100);
/// Milliseconds by which the wall clock may wander against the relay's time before that is recorded. The hardware clock, which carries the time
/// over to another boot, is no more exact.
const WANDER: u64 = 1_000;

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

    /// Whether all that has changed is recorded.
    pub fn are_kept(&self) -> bool {
        self.unrecorded.is_none() && !self.health_lost
    }

    /// Records what changed; until that succeeds, more and more of it.
    pub async fn keep<S: Spool>(&mut self, shared: &Shared<S>, scheduler: &mut Scheduler) {
        if !self.keep_health(shared, scheduler).await {
            return;
        }
        let (bookkeeping, ahead) = self.changes(shared, scheduler);
        if bookkeeping == Bookkeeping::Changed(Vec::new()) {
            self.unrecorded = None;
            return;
        }
        match shared.store.keep_ledger(bookkeeping).await {
            Ok(()) => self.handed_over(ahead),
            Err(error) => self.failed(shared, &error, "recording what is used of the budgets"),
        }
    }

    /// Hands over that attempts begin, and what they reserve. None: nothing is recorded, and none may begin. If it fails later, [`Self::failed`]
    /// must be told.
    pub async fn start<S: Spool>(
        &mut self,
        shared: &Shared<S>,
        scheduler: &mut Scheduler,
        starts: Vec<Start>,
        now: Timestamp,
    ) -> Option<Starting> {
        if !self.keep_health(shared, scheduler).await {
            return None;
        }
        let (bookkeeping, ahead) = self.changes(shared, scheduler);
        let anew = matches!(bookkeeping, Bookkeeping::Anew(..));
        let starting = match shared.store.start(starts, now, bookkeeping).await {
            // What changes next belongs to the new anchor, so that one must be there.
            Ok(starting) if anew => starting.await.map(|started| Box::pin(ready(Ok(started))) as Starting),
            handed_over => handed_over,
        };
        match starting {
            Ok(starting) => {
                self.handed_over(ahead);
                Some(starting)
            }
            Err(error) => {
                self.failed(shared, &error, STARTING);
                None
            }
        }
    }

    /// Records what was learned, if that has changed, or the clock that its times are of. False if it could not.
    async fn keep_health<S: Spool>(&mut self, shared: &Shared<S>, scheduler: &mut Scheduler) -> bool {
        let changed = scheduler.health_changes();
        let stepped = || self.ahead.is_some_and(|recorded| recorded.abs_diff(shared.clock.wall_ahead()) > WANDER);
        let rows = match changed {
            Some(rows) => rows,
            None if self.health_lost || stepped() => scheduler.health_state(),
            None => return true,
        };
        let (at, boot) = shared.clock.reading();
        let anchor = Anchor { boot_id: shared.boot_id.clone(), boot, at, ahead: shared.clock.wall_ahead() };
        match shared.store.keep_health(rows.into_iter().map(health::written).collect(), anchor).await {
            Ok(()) => {
                self.health_lost = false;
                return true;
            }
            Err(StoreError::Fatal(why)) => shared.store_failed(&why),
            Err(error) => telemetry::store_busy("recording how accounts stand", &error.to_string()),
        }
        (self.health_lost, self.unrecorded) = (true, Some(shared.clock.now()));
        false
    }

    /// What is to be recorded, and by how much the wall clock is ahead at this moment.
    fn changes<S: Spool>(&self, shared: &Shared<S>, scheduler: &mut Scheduler) -> (Bookkeeping, i64) {
        let ahead = shared.clock.wall_ahead();
        if self.ahead.is_some_and(|recorded| recorded.abs_diff(ahead) <= WANDER) {
            return (Bookkeeping::Changed(scheduler.budget_changes().into_iter().map(row).collect()), ahead);
        }
        let (at, boot) = shared.clock.reading();
        let anchor = Anchor { boot_id: shared.boot_id.clone(), boot, at, ahead };
        (Bookkeeping::Anew(scheduler.budget_state().into_iter().map(row).collect(), anchor), ahead)
    }

    fn handed_over(&mut self, ahead: i64) {
        // Only what differs by more makes all be recorded anew: so that many small steps count as well, the reference stays.
        let reference = self.ahead.filter(|recorded| recorded.abs_diff(ahead) <= WANDER).unwrap_or(ahead);
        (self.ahead, self.unrecorded) = (Some(reference), None);
    }

    /// What was handed over was not recorded. The scheduler has told the changes and will not tell them again, so all is recorded anew: once
    /// more after a while, whether anything goes or not.
    pub fn failed<S: Spool>(&mut self, shared: &Shared<S>, error: &StoreError, what: &str) {
        match error {
            StoreError::Fatal(why) => shared.store_failed(why),
            error => telemetry::store_busy(what, &error.to_string()),
        }
        (self.ahead, self.unrecorded) = (None, Some(shared.clock.now()));
    }
}

/// Brings the scheduler to where the store's ledger says that things stand.
pub(super) fn restore(ledger: &Ledger, scheduler: &mut Scheduler, accounts: &[AccountName], clock: &Clock, boot_id: &str) {
    let now = clock.now();
    let since = |anchor: &Option<Anchor>| anchor.as_ref().map_or(0, |anchor| shift(anchor, clock, boot_id));
    let (shift, health_shift) = (since(&ledger.anchor), since(&ledger.health_anchor));
    // Also of accounts that are not configured now: they may come back.
    let recorded = ledger.budget.iter().filter_map(|row| row.account.as_ref()).chain(ledger.suspended.iter().map(|row| &row.account));
    let holders: BTreeSet<&AccountName> = accounts.iter().chain(recorded).collect();
    for holder in holders.into_iter().map(Some).chain([None]) {
        let rows: Vec<budget::Row> = ledger.budget.iter().filter(|row| row.account.as_ref() == holder).filter_map(read).collect();
        scheduler.restore(holder, &rows, now, shift);
    }
    let learned = ledger.health.iter().filter_map(|ailment| health::read(ailment.clone(), health_shift));
    scheduler.restore_health(now, learned.collect());
    for suspended in &ledger.suspended {
        let until = suspended.until.map(|until| Timestamp::from_millis(until.as_millis().saturating_add(shift)));
        scheduler.suspend(now, &suspended.account, Some(Suspension { until, reason: suspended.reason.clone() }));
    }
}

/// Milliseconds from the time that the anchor belongs to, to that of this process.
fn shift(anchor: &Anchor, clock: &Clock, boot_id: &str) -> i64 {
    if anchor.boot_id == boot_id { clock.at(anchor.boot).as_millis() - anchor.at.as_millis() } else { anchor.ahead.max(0) }
}

/// Which boot of the machine this is; empty where the system does not tell, and then no two are the same.
pub fn boot_id() -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_times_never_look_older_than_they_are() {
        let clock = Clock::start();
        let (at, boot) = clock.reading();
        let anchor = |boot_id: &str, behind: i64, ahead| Anchor {
            boot_id: boot_id.to_owned(),
            boot,
            at: Timestamp::from_millis(at.as_millis() - behind),
            ahead,
        };
        let hour = 3_600_000;
        // Within a boot the boot clock knows, whatever the wall clock said.
        for (behind, ahead) in [(0, 0), (hour, hour), (hour, 0), (-hour, hour), (-hour, -hour)] {
            assert_eq!(shift(&anchor("this", behind, ahead), &clock, "this"), behind);
        }
        // After another one only what the wall clock was put forward is known for certain.
        for (ahead, wanted) in [(0, 0), (hour, hour), (-hour, 0)] {
            assert_eq!(shift(&anchor("former", hour, ahead), &clock, "this"), wanted);
        }
    }
}
