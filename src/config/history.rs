//! `[history]`: how much of the past is kept, and what it cost.

use std::time::Duration;

use super::reader::Document;
use super::{store::HistorySettings, value};

/// In US dollars: what Microsoft takes for a million recipients (High Volume Email's general availability, 2026).
const PRICE_PER_MILLION: f64 = 42.0;

pub(super) fn settings(document: &Document<'_>) -> HistorySettings {
    let section = document.one("history");
    let default = HistorySettings::default();
    HistorySettings {
        // Less than a queue's lifetime would forget what still waits.
        keep: section.or(
            "keep",
            value::or_none(value::duration(Duration::from_secs(3_600)..=Duration::from_secs(3_660 * 86_400))),
            default.keep,
        ),
        size: section.or("size", value::size(64 << 20..=1 << 44), default.size),
    }
}

/// What a million recipients cost.
pub(super) fn price(document: &Document<'_>) -> f64 {
    document.one("history").or("price_per_million", value::price, PRICE_PER_MILLION)
}
