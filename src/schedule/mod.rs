//! What goes next, on which account, and when; why the rest waits and until when. Pure: time comes in with each call.
//!
//! The door is [`Scheduler`]: deliveries go in, [`Decision`]s come out, ends of attempts go in again.

mod change;
mod explain;
mod gate;
mod lanes;
mod overview;
mod plan;
mod scheduler;
mod settings;
#[cfg(test)]
mod tests;
mod values;

pub use explain::{AccountStatus, ClassStatus, Reason, Wait};
pub use overview::Waiting;
pub use plan::{Amount, Bottleneck, Cause, Load, Plan, Way, plan};
pub use scheduler::{Scheduler, Suspension};
pub use settings::{ACCOUNTS_MAX, AccountSettings, Affinity, ClientSettings, OnDoubt, Settings};
pub use values::{BudgetChange, Change, Counts, Decision, Ended, Who};
