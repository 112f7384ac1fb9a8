//! What an account, or the tenant, may still send: exact limits in every window, kept across restarts. Pure.
//!
//! A message is reserved in all limits or in none, before its attempt begins; when the attempt has ended, what a definite refusal did not use
//! is given back, and what is used, or in doubt, counts from that end. So the server, which counts at some moment in between, never sees
//! more than a limit in any window of its length.
//!
//! A limit of a minute is a rate of governor cells, a limit of a day a ledger of minute buckets, and the pause between messages a rate of
//! one cell. Every change is a row that the store writes in the transaction of the attempt.
//!
//! *Invariants.* What is in flight counts until it is settled, and after a crash as used at the restart. A reservation that is dropped instead
//! of settled counts until then. A stamp of the future counts as now, for one window and no longer. A rate that is introduced by a reload begins
//! full, because nobody counted before it.
//! *Limits.* A limit of a minute that is introduced by a restart does not know the minute before; a window that is made longer knows only what
//! the shorter one still held. A clock that runs faster than the server's is not noticed.

mod account;
#[cfg(test)]
mod laws;
mod ledger;
mod limits;
mod rate;
mod rows;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use account::{Budget, Reservation};
pub use limits::{LimitName, Limits, Need, NotALimit, Share, Unit, Usage, Used, Wait};
pub use rows::{Change, Row};

/// A window's length in milliseconds; a part of one counts as a whole. Sums of a window and two stamps stay in range.
fn millis(window: Duration) -> i64 {
    i64::try_from(window.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX).min(i64::MAX / 4)
}
