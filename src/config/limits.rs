//! What an account and the tenant may send: `[account_limits]`, what a `[[route]]` or an `[[account]]` says otherwise, and `[tenant_limits]`.
//!
//! Each table starts from the profile's values, and an account from those of its route, which for HVE are `[account_limits]`. More than the profile allows is a warning: it is right
//! where all routes lead elsewhere, and means refusals where they lead to the service.

use std::fmt::Display;
use std::time::Duration;

use super::problem::{At, Findings};
use super::profile::{Kind, Profile, Service};
use super::reader::{Document, Section};
use super::value;
use crate::{
    budget::{Limits, Unit},
    units::format_duration,
};

const UNITS: &[(&str, Unit)] = &[("messages", Unit::Messages), ("recipients", Unit::Recipients)];

/// What an account, a route and the tables of limits have in common.
const AMOUNTS: &[&str] = &[
    "recipients_per_day",
    "external_recipients_per_day",
    "external_per_minute",
    "external_per_minute_unit",
    "messages_per_minute",
    "minimum_pause",
];

/// Far beyond what any service allows, and small enough that sums of it stay exact.
const MOST: u64 = 1_000_000_000;

/// Limits, with the unit that `external_per_minute` has where another table sets it.
#[derive(Clone)]
pub(super) struct Written {
    pub limits: Limits,
    unit: Unit,
    /// The table whose keys say so; none: what is known of the service.
    table: Option<String>,
}

impl From<&Limits> for Written {
    fn from(limits: &Limits) -> Self {
        Self { limits: limits.clone(), unit: limits.external_per_minute.map_or(Unit::Messages, |(_, unit)| unit), table: None }
    }
}

/// `[account_limits]`
pub(super) fn of_every_account(document: &Document<'_>, findings: &Findings<'_>, profile: &Profile) -> Written {
    table(&document.one("account_limits"), findings, profile, &profile.account_limits)
}

/// `[tenant_limits]`
pub(super) fn of_the_tenant(document: &Document<'_>, findings: &Findings<'_>, profile: &Profile) -> Limits {
    table(&document.one("tenant_limits"), findings, profile, &profile.tenant_limits).limits
}

/// What the accounts of a `[[route]]` start from: what it says, else for HVE `[account_limits]`, for other servers what is known of them. How
/// long a day is and how long a minute is the same everywhere.
pub(super) fn of_a_route(section: &Section<'_>, findings: &Findings<'_>, service: &Service, kind: Kind, every: &Written) -> Written {
    let own: Written = (&Limits { day: every.limits.day, minute: every.limits.minute, ..service.limits.clone() }).into();
    amounts(section, findings, service.name, if kind == Kind::Hve { every } else { &own }, &service.limits)
}

/// What an `[[account]]` says otherwise than its route.
pub(super) fn of_an_account(section: &Section<'_>, findings: &Findings<'_>, service: &Service, route: &Written) -> Limits {
    amounts(section, findings, service.name, route, &service.limits).limits
}

/// The most external recipients that may travel together, if it is less than for other mail: where the limit of a minute counts recipients, a
/// delivery of more than that could never go in one piece. The least of those that apply counts, so that every account can take every delivery.
pub(super) fn external_recipients<'l>(limits: impl IntoIterator<Item = &'l Limits>) -> Option<usize> {
    let counted = limits.into_iter().filter_map(|limits| limits.external_per_minute.filter(|(_, unit)| *unit == Unit::Recipients));
    counted.map(|(most, _)| usize::try_from(most).unwrap_or(usize::MAX)).min()
}

fn table(section: &Section<'_>, findings: &Findings<'_>, profile: &Profile, allowed: &Limits) -> Written {
    let mut written = amounts(section, findings, profile.name, &allowed.into(), allowed);
    let limited = allowed.recipients_per_day.or(allowed.external_recipients_per_day).is_some();
    let day = section.get("day", value::duration(Duration::from_secs(1)..=Duration::from_secs(7 * 86_400)));
    warn_of_shorter(day.as_ref(), allowed.day, limited, findings, profile);
    let limited = allowed.external_per_minute.map(|(most, _)| most).or(allowed.messages_per_minute).is_some();
    let minute = section.get("minute", value::duration(Duration::from_millis(100)..=Duration::from_secs(3_600)));
    warn_of_shorter(minute.as_ref(), allowed.minute, limited, findings, profile);
    section.note("day", allowed.day, profile.name);
    section.note("minute", allowed.minute, profile.name);
    let place = minute.as_ref().or(day.as_ref()).map(|written| written.place.clone());
    let limits = &mut written.limits;
    limits.day = day.map_or(allowed.day, |day| day.value);
    limits.minute = minute.map_or(allowed.minute, |minute| minute.value);
    if let Some(place) = place.filter(|_| limits.minute > limits.day) {
        let found = format!("minute, {}, is more than day, {}", format_duration(limits.minute), format_duration(limits.day));
        findings.problem(&place, found, "lower minute, or raise day");
    }
    written
}

/// The keys that stand in all of these tables; `whose` limits are `allowed`.
fn amounts(section: &Section<'_>, findings: &Findings<'_>, whose: &str, default: &Written, allowed: &Limits) -> Written {
    let count = |key, default: Option<u32>, allowed: Option<u32>| {
        let most = section.get(key, value::or_none(value::number(1..=MOST)));
        let Some(At { value, place }) = most else { return default };
        let most = value.map(|most| u32::try_from(most).unwrap_or(u32::MAX));
        if let Some(allowed) = allowed.filter(|allowed| most.is_none_or(|most| most > *allowed)) {
            let most = most.map_or_else(|| "no limit is".to_owned(), |most| format!("{most} are"));
            warn_of_more(At { value: most, place }, allowed, findings, whose);
        }
        most
    };
    let rate = |limit: Option<(u32, Unit)>| limit.map(|(most, _)| most);
    let usual = &default.limits;
    let unit = section.or("external_per_minute_unit", value::choice("a unit", UNITS), default.unit);
    let pause = value::duration(Duration::from_millis(1)..=Duration::from_secs(3_600));
    let limits = Limits {
        recipients_per_day: count("recipients_per_day", usual.recipients_per_day, allowed.recipients_per_day),
        external_recipients_per_day: count(
            "external_recipients_per_day",
            usual.external_recipients_per_day,
            allowed.external_recipients_per_day,
        ),
        external_per_minute: count("external_per_minute", rate(usual.external_per_minute), rate(allowed.external_per_minute))
            .map(|most| (most, unit)),
        messages_per_minute: count("messages_per_minute", usual.messages_per_minute, allowed.messages_per_minute),
        minimum_pause: section.or("minimum_pause", value::or_none(pause), usual.minimum_pause),
        day: usual.day,
        minute: usual.minute,
    };
    // Behind the reading of the values, which notes defaults of its own.
    note_defaults(section, default, whose);
    Written { limits, unit, table: Some(section.place().key.clone()) }
}

/// What those of the keys mean that were not written.
fn note_defaults(section: &Section<'_>, default: &Written, whose: &str) {
    let Written { limits, unit, table } = default;
    if let Some(table) = table {
        for key in AMOUNTS {
            section.same_as(key, format!("{table}.{key}"));
        }
        return;
    }
    section.note("recipients_per_day", limits.recipients_per_day, whose);
    section.note("external_recipients_per_day", limits.external_recipients_per_day, whose);
    section.note("external_per_minute", limits.external_per_minute.map(|(most, _)| most), whose);
    section.note("external_per_minute_unit", UNITS.iter().find(|(_, known)| known == unit).map_or("", |(word, _)| word), whose);
    section.note("messages_per_minute", limits.messages_per_minute, whose);
    section.note("minimum_pause", limits.minimum_pause, whose);
}

fn warn_of_more(written: At<String>, allowed: u32, findings: &Findings<'_>, whose: &str) {
    let found = format!("{} more than the {allowed} that {whose} allows", written.value);
    warn(&At { value: found, place: written.place }, "lower it", findings);
}

fn warn_of_shorter(written: Option<&At<Duration>>, real: Duration, limited: bool, findings: &Findings<'_>, profile: &Profile) {
    if let Some(At { value, place }) = written.filter(|window| limited && window.value < real) {
        let found = format!("{} is shorter than the {} in which {} counts", format_duration(*value), format_duration(real), profile.name);
        warn(&At { value: found, place: place.clone() }, "lengthen it", findings);
    }
}

fn warn(found: &At<impl Display>, remedy: &str, findings: &Findings<'_>) {
    findings.warning(&found.place, found.value.to_string(), format!("{remedy}, unless all routes lead elsewhere"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_that_counts_recipients_is_the_size_of_an_external_delivery() {
        let limits = |most, unit| Limits { external_per_minute: Some((most, unit)), ..Limits::NONE };
        let (ten, seven) = (limits(10, Unit::Recipients), limits(7, Unit::Recipients));
        for (limits, most) in [
            (vec![Limits::NONE], None),
            (vec![limits(3, Unit::Messages)], None),
            (vec![ten.clone(), limits(3, Unit::Messages)], Some(10)),
            (vec![ten, seven, Limits::NONE], Some(7)),
        ] {
            assert_eq!(external_recipients(&limits), most, "{limits:?}");
        }
    }
}
