//! What goes next, on which account, and when; why the rest waits and until when. Pure: time comes in with each call.
//!
//! The door is [`Scheduler`]: deliveries go in, [`Decision`]s come out, ends of attempts go in again.

mod change;
mod explain;
mod gate;
mod health;
mod heed;
mod lanes;
mod overview;
mod plan;
mod probing;
mod scheduler;
mod settings;
mod suspicion;
#[cfg(test)]
mod tests;
mod values;
mod width;

pub use explain::{AccountStatus, ClassStatus, Reason, Wait};
pub use gate::Closed;
pub use health::{Health, HealthRow, State, Trouble};
pub use overview::Waiting;
pub use plan::{Amount, Bottleneck, Cause, Load, Plan, Way, plan};
pub use scheduler::{Scheduler, Suspension};
pub use settings::{ACCOUNTS_MAX, AccountSettings, Affinity, ClientSettings, OnDoubt, Settings};
pub use suspicion::{Blame, Suspicions};
pub use values::{BudgetChange, Chance, Change, Counts, Decision, Ended, Probed, Who};
pub use width::Learned;
