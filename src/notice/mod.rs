//! Mail of the relay's own: RFC 3464 reports about what failed, and alarms for the operators. Pure.

mod alarm;
mod bounce;
mod explain;
mod letter;
mod mime;
mod plain;
mod settings;
mod text;

pub use alarm::{Alarm, AlarmChange, Alarms, NotAnAlarm, OWN, Standing, alarm_mail};
pub use bounce::{Bounce, FailedRecipient, bounce};
pub use letter::Notice;
pub use settings::Settings;
