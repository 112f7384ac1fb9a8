//! The catalogue of upstream replies and the judgement of what happened upstream. Pure.

mod catalogue;
mod entry;
mod judge;
mod report;
mod upstream_id;
mod verdict;

pub use catalogue::Catalogue;
pub use entry::{Action, Entry, Flaw, NotAStatusRange, Pattern, StatusRange};
pub use judge::{is_stale_token, judge, judge_open, refuses_everything};
pub use report::{Cause, End, Report, Step, TokenFault, Trouble};
pub use upstream_id::upstream_id;
pub use verdict::{Disposition, Judgement, Outcome, Pause, PauseLength, Rest, Scope};

#[cfg(test)]
mod tests;
