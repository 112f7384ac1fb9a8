//! Who may send what: clients by network or login, what each may do and how much of it, recipient classes, routes, priorities, admission of
//! connections, repair of headers, and what devices do otherwise than they should. Pure.

mod door;
mod failures;
mod habit;
mod policy;
mod priority;
mod rates;
mod repair;
mod routes;
mod settings;
mod users;

pub use door::{Admission, Door, Standing, Ticket, Visitor};
pub use failures::Failures;
pub use habit::{Count, Habit, HabitSet, Habits};
pub use policy::{Addressee, Policy};
pub use rates::{MOST_PER_MINUTE, Rate};
pub use repair::{Facts, Repair, RepairError};
pub use routes::RouteSettings;
pub use settings::{ClientSettings, LineEndings, Overlap, Pattern, Readers, Settings, is_public};
pub use users::{HashError, PasswordHash, UserSettings, Users};
