//! The catalogue of upstream replies and the judgement of what happened upstream. Pure.

mod report;
mod verdict;

pub use report::{Cause, End, Report, Step, Trouble};
pub use verdict::{Disposition, Judgement, Outcome, Pause, PauseLength, Scope};
