//! A warning where a secret or a certificate ends soon, or has ended. That is no problem of the configuration: the relay takes mail and keeps it.

use std::path::Path;

use super::problem::{Findings, Place};
use crate::clock::{Clock, Timestamp};
use crate::notice::{SOON, days_left};
use crate::tls;

/// Of a certificate in a file, whose end nobody knows if it cannot be read.
pub(super) fn warn_of(certificate: &Path, then: &str, place: &Place, hint: &str, findings: &Findings<'_>) {
    if let Some(end) = tls::ends(certificate) {
        let (end, what) = (Timestamp::from_millis(end.saturating_mul(1_000)), certificate.display().to_string());
        warn(end, (&what, then), place, hint, findings);
    }
}

/// `what` is what ends, and `then` what is the matter from then on.
pub(super) fn warn(end: Timestamp, (what, then): (&str, &str), place: &Place, hint: &str, findings: &Findings<'_>) {
    let (date, days) = (end.date(), days_left(end, Clock::wall()));
    match days {
        0 => findings.warning(place, format!("{what} has ended on {date}: {then}"), hint),
        1 => findings.warning(place, format!("{what} ends within a day, on {date}"), hint),
        _ if days <= SOON => findings.warning(place, format!("{what} ends within {days} days, on {date}"), hint),
        _ => {}
    }
}
