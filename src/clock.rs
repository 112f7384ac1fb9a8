//! Time as a value.
//!
//! Everything that decides takes `now` as an argument; only [`Clock`] reads the machine's clocks, and only the wiring owns one.
//! The clock is anchored to the wall once, at start, and then follows the boot clock: a wall clock that is stepped while the relay runs
//! neither delays a retry nor repeats one, and time goes on during a suspend.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// A point in time: milliseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The time that passed since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0).max(0) as u64)
    }

    /// As the date-time of RFC 5322 §3.3, in UTC: `Sat, 21 Nov 2026 18:31:21 +0000`.
    pub fn rfc5322(self) -> String {
        self.zoned().strftime("%a, %d %b %Y %H:%M:%S %z").to_string()
    }

    /// The beginning of a day in UTC, written as `2027-01-31`.
    pub fn from_date(text: &str) -> Option<Self> {
        let date: jiff::civil::Date = text.parse().ok()?;
        // The parser takes longer forms too, of which a part would be lost.
        let zoned = date.to_zoned(jiff::tz::TimeZone::UTC).ok().filter(|_| date.to_string() == text)?;
        Some(Self(zoned.timestamp().as_millisecond()))
    }

    /// Its day in UTC: `2027-01-31`.
    pub fn date(self) -> String {
        self.zoned().date().to_string()
    }

    /// The day of the week in UTC, in English: `Monday`.
    pub fn weekday(self) -> String {
        self.zoned().strftime("%A").to_string()
    }

    fn zoned(self) -> jiff::Zoned {
        // Out of range means beyond the year 9999: a stamp that only damaged data can hold; the epoch then stands for it.
        jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_zoned(jiff::tz::TimeZone::UTC)
    }
}

/// RFC 3339 with milliseconds, UTC: `2026-11-21T18:31:21.042Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.zoned().strftime("%Y-%m-%dT%H:%M:%S.%3fZ"))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;

    fn sub(self, duration: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }
}

/// The machine's clock, anchored to the wall when it was started. It never goes back.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    wall_at_start: i64,
    boot_at_start: i64,
}

impl Clock {
    /// Reads the wall; from here on only the boot clock counts.
    pub fn start() -> Self {
        Self { wall_at_start: wall_millis(), boot_at_start: boot_millis() }
    }

    /// What the wall clock says, steps and all: for what is held against the clocks of other machines, and for nothing else.
    pub fn wall() -> Timestamp {
        Timestamp(wall_millis())
    }

    /// The present time.
    pub fn now(&self) -> Timestamp {
        self.at(boot_millis())
    }

    /// By how many milliseconds the wall clock is ahead of the relay's time: somebody may have set it since the start.
    pub fn wall_ahead(&self) -> i64 {
        wall_millis() - self.now().0
    }

    /// The present time together with the reading of the boot clock that it comes from, in milliseconds.
    pub fn reading(&self) -> (Timestamp, i64) {
        let boot = boot_millis();
        (self.at(boot), boot)
    }

    /// The relay's time at a reading of the boot clock, also of an earlier process.
    pub fn at(&self, boot: i64) -> Timestamp {
        Timestamp(self.wall_at_start + boot - self.boot_at_start)
    }
}

fn wall_millis() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}

fn boot_millis() -> i64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec * 1_000 + now.tv_nsec / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_the_dates_of_mail_and_of_logs() {
        let t = Timestamp::from_millis(1_795_285_881_042);
        assert_eq!(t.rfc5322(), "Sat, 21 Nov 2026 18:31:21 +0000");
        assert_eq!(t.to_string(), "2026-11-21T18:31:21.042Z");
    }

    #[test]
    fn reads_and_writes_days() {
        let day = Timestamp::from_date("2027-01-31").expect("a date");
        assert_eq!((day.to_string().as_str(), day.date().as_str()), ("2027-01-31T00:00:00.000Z", "2027-01-31"));
        for text in ["2027-02-30", "2027-1-31", "31.01.2027", "2027-01-31T10:00", "20270131", ""] {
            assert_eq!(Timestamp::from_date(text), None, "{text}");
        }
    }

    #[test]
    fn never_overflows() {
        let end = Timestamp::from_millis(i64::MAX);
        assert_eq!(end + Duration::MAX, end);
        assert_eq!(Timestamp::default().since(end), Duration::ZERO);
        assert!(!end.rfc5322().is_empty());
    }
}
