//! Log events, one function each, so that a log line is an interface; and metrics.
//!
//! Every line carries `event`, and where they apply `queue_id`, `client` and the outcome fields in Postfix's words (`to`, `relay`, `delay`,
//! `delays`, `dsn`, `status`), so that `grep <queue id>` tells a message's whole life. No function takes a secret or a message's content. Which
//! events there are, with which fields, when and what for, is in the table [`EVENTS`]; a test holds each function to its row.
//!
//! The same functions count (`metrics`), so that an event and its counter cannot drift apart; what is rather a state is asked for when somebody
//! scrapes.
//!
//! Lines go to standard error or into a file (`output`, `file`), by way of a buffer that holds nobody up (`lines`); addresses are shown as the
//! settings say (`redact`).
//!
//! Levels: `error` wants somebody now, `warn` wants somebody, `info` is the mail's own story, `debug` is the dialogue's.

mod catalogue;
mod events;
mod file;
mod format;
mod lines;
mod metrics;
mod output;
mod redact;
mod settings;
mod table;

#[cfg(test)]
mod tests;

pub use catalogue::{Event, Field, Holds, NotARoom, Room, event, events_page};
pub use events::*;
pub use file::FileSettings;
pub use lines::Log;
pub use metrics::{End, METRICS, Metric, State, metrics_page, scrape};
pub use output::{Levels, LogFault, Prepared, hang_up, prepare, present, set_level, shown, start};
pub use settings::{Format, Level, NotAFormat, NotALevel, Redact, Settings};
pub use table::{EVENTS, FIELDS};
