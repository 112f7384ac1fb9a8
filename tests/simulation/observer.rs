//! Two observers that share no code with what they watch, only the numbers of the limits.
//!
//! The [`Upstream`] stands at the server's end. It writes down when it counted what, to the microsecond, and looks through every window.
//! The [`Log`] stands beside the relay. It knows when attempts began and ended, and computes from that alone what could go and when.

use hve_relay::budget::{LimitName, Limits, Unit};
use hve_relay::mail::Class;

/// What the server counted for one account, or for the tenant.
#[derive(Debug, Default)]
pub struct Upstream {
    counted: Vec<Counted>,
}

#[derive(Debug)]
struct Counted {
    micros: i64,
    recipients: u32,
    external: bool,
}

impl Upstream {
    /// The server counts a message. Returns the limit that it breaks, if it breaks one: then HVE would have refused it.
    pub fn count(&mut self, micros: i64, class: Class, recipients: u32, limits: &Limits) -> Result<(), String> {
        let external = class == Class::External;
        if let Some(last) = self.counted.last() {
            let pause = limits.minimum_pause.map_or(0, |pause| pause.as_micros() as i64);
            if micros - last.micros < pause {
                return Err(format!("a pause of {} µs, and {pause} µs are due", micros - last.micros));
            }
        }
        self.counted.push(Counted { micros, recipients, external });
        let (day, minute) = (limits.day.as_micros() as i64, limits.minute.as_micros() as i64);
        let minutely = |counted: &Counted| match limits.external_per_minute {
            Some((_, Unit::Recipients)) if counted.external => counted.recipients,
            _ => u32::from(counted.external),
        };
        type Law<'l> = (&'static str, Option<u32>, i64, &'l dyn Fn(&Counted) -> u32);
        let laws: [Law<'_>; 4] = [
            ("recipients in a day", limits.recipients_per_day, day, &|counted| counted.recipients),
            ("external recipients in a day", limits.external_recipients_per_day.filter(|_| external), day, &|counted| {
                if counted.external { counted.recipients } else { 0 }
            }),
            ("external in a minute", limits.external_per_minute.map(|(most, _)| most).filter(|_| external), minute, &minutely),
            ("messages in a minute", limits.messages_per_minute, minute, &|_| 1),
        ];
        for (what, most, window, units) in laws {
            let Some(most) = most else { continue };
            let inside = self.counted.iter().rev().take_while(|counted| counted.micros >= micros - window);
            let found: u64 = inside.map(|counted| u64::from(units(counted))).sum();
            if found > u64::from(most) {
                return Err(format!("{found} {what}, and {most} are allowed"));
            }
        }
        Ok(())
    }
}

/// An attempt as the relay knows it.
#[derive(Debug, Clone)]
pub struct Spent {
    pub attempt: u64,
    pub account: usize,
    pub external: bool,
    /// What was reserved, and after the end what was used.
    pub recipients: u32,
    /// What was reserved; it counts again if the end was lost.
    pub reserved: u32,
    pub message: bool,
    /// In milliseconds; none while it is under way.
    pub end: Option<i64>,
    /// The disk knows of the end.
    pub kept: bool,
    /// By how many buckets a limit of a day may count it too long.
    pub slack: i64,
}

/// What a limit says to one more unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// It fits at a moment from the first to the second, in milliseconds; now or earlier: it fits now.
    Between(i64, i64),
    /// It takes the end of an attempt, or can never be.
    Unknown,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Log {
    pub spent: Vec<Spent>,
}

impl Log {
    /// Forgets what no window can hold any more.
    pub fn prune(&mut self, now: i64, longest: i64) {
        self.spent.retain(|spent| !spent.kept || spent.end.is_none_or(|end| end + 3 * longest > now));
    }

    /// When one more recipient of a class may go, by each limit of one account or, with `None`, of the tenant.
    pub fn bounds(
        &self,
        now: i64,
        account: Option<usize>,
        limits: &Limits,
        class: Class,
        kept_thousandths: u32,
    ) -> Vec<(LimitName, Bound)> {
        let (day, minute) = (limits.day.as_millis() as i64, limits.minute.as_millis() as i64);
        let bucket = (day + 1_439) / 1_440;
        let external = class == Class::External;
        let mut bounds = Vec::new();
        let mut ask = |name: LimitName, most: Option<u32>, window: i64, units: &dyn Fn(&Spent) -> u32| {
            let Some(most) = most else { return };
            let by_day = matches!(name, LimitName::RecipientsPerDay | LimitName::ExternalRecipientsPerDay);
            let kept = if by_day { (u64::from(most) * u64::from(kept_thousandths)).div_ceil(1_000) } else { 0 };
            let room = u64::from(most) - kept;
            let mut flying = 0;
            let (mut early, mut late) = (Vec::new(), Vec::new());
            for spent in self.spent.iter().filter(|spent| account.is_none_or(|account| spent.account == account)) {
                let units = u64::from(units(spent));
                match spent.end {
                    _ if units == 0 => {}
                    None => flying += units,
                    Some(end) => {
                        // What ended in a millisecond may have ended up to one later.
                        early.push((end + 1 + window, units));
                        late.push((end + 1 + window + if by_day { bucket * (1 + spent.slack) } else { 0 }, units));
                    }
                }
            }
            let bound = match (fits(now, early, flying, room), fits(now, late, flying, room)) {
                (Some(early), Some(late)) => Bound::Between(early, late),
                _ => Bound::Unknown,
            };
            bounds.push((name, bound));
        };
        ask(LimitName::RecipientsPerDay, limits.recipients_per_day, day, &|spent| spent.recipients);
        let outside = |spent: &Spent| if spent.external { spent.recipients } else { 0 };
        ask(LimitName::ExternalRecipientsPerDay, limits.external_recipients_per_day.filter(|_| external), day, &outside);
        if let Some((most, unit)) = limits.external_per_minute.filter(|_| external) {
            let units = |spent: &Spent| match unit {
                Unit::Recipients => outside(spent),
                Unit::Messages => u32::from(spent.external && spent.message),
            };
            ask(LimitName::ExternalPerMinute, Some(most), minute, &units);
        }
        ask(LimitName::MessagesPerMinute, limits.messages_per_minute, minute, &|spent| u32::from(spent.message));
        if let Some(pause) = limits.minimum_pause {
            ask(LimitName::MinimumPause, Some(1), pause.as_millis() as i64, &|spent| u32::from(spent.message));
        }
        bounds
    }
}

/// When one more unit has room, if what is under way uses all; `None` if it never has.
fn fits(now: i64, mut released: Vec<(i64, u64)>, flying: u64, room: u64) -> Option<i64> {
    released.retain(|(at, _)| *at > now);
    released.sort_unstable();
    let mut taken = flying + released.iter().map(|(_, units)| units).sum::<u64>();
    let mut at = now;
    let mut released = released.into_iter();
    while taken + 1 > room {
        let (next, units) = released.next()?;
        taken -= units;
        at = next;
    }
    Some(at)
}
