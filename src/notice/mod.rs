//! Mail of the relay's own: RFC 3464 reports about what became of mail, one by one or many in one, and alarms for the operators. Pure.

mod alarm;
mod digest;
mod expiry;
mod explain;
mod letter;
mod mime;
mod pace;
mod plain;
mod report;
mod settings;
mod status;
mod text;

pub use alarm::{Alarm, AlarmChange, Alarms, NotAnAlarm, OWN, Standing, alarm_mail};
pub use digest::{Digest, digest};
pub use expiry::{Expiry, SOON, days_left};
pub use letter::Notice;
pub use pace::{Course, DIGEST, Pace};
pub use report::{Report, WHOLE, report};
pub use settings::Settings;
