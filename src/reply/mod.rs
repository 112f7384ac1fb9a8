//! The catalogue of upstream replies and the judgement of what happened upstream. Pure.

mod catalogue;
mod judge;
mod report;
mod verdict;

pub use catalogue::{Action, Catalogue, Entry};
pub use judge::{is_stale_token, judge, judge_open};
pub use report::{Cause, End, Report, Step, TokenFault, Trouble};
pub use verdict::{Disposition, Judgement, Outcome, Pause, PauseLength, Scope};

#[cfg(test)]
mod tests;
