//! How the operator's commands show things: tables that fit the terminal, times from the relay's point of view, and texts without tricks.

use std::io::{self, Write};
use std::time::Duration;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{ColumnConstraint, ContentArrangement, LineStyle, Table};
use serde::Serialize;

use crate::admin::Time;
use crate::clock::Timestamp;
use crate::units::{ByteSize, format_duration};

/// Columns of a table where the terminal has more, or there is none.
const WIDTH: u16 = 150;

/// Prints a line. A reader that has gone away, such as `head`, changes nothing about what was done.
pub(super) fn line(text: impl std::fmt::Display) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Prints a value as JSON.
pub(super) fn json(value: &impl Serialize) {
    line(serde_json::to_string_pretty(value).unwrap_or_default());
}

/// Whether a table has lines between its rows: where most of them take several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lines {
    Between,
    None,
}

/// Columns that a table may take: the terminal's, but not more than can be read.
pub(super) fn width() -> u16 {
    Table::new().width().map_or(WIDTH, |width| width.min(WIDTH))
}

/// A table that fits the terminal. Its first column, the name that other commands want, is never cut.
pub(super) fn table<const N: usize>(lines: Lines, header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let style = match lines {
        Lines::Between => UTF8_HORIZONTAL_ONLY,
        Lines::None => UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none()),
    };
    let mut table = Table::new();
    table.load_style(style).set_content_arrangement(ContentArrangement::Dynamic).set_width(width()).set_header(header);
    for row in rows {
        table.add_row(row.map(|cell| printable(&cell)));
    }
    if let Some(column) = table.column_mut(0) {
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
    // Blanks that only fill up the last column make lines wrap where the terminal is narrower than it says.
    table.trim_fmt()
}

/// A text that came in with mail, without what would steer the terminal.
pub(super) fn printable(text: &str) -> String {
    // The marks that reverse the direction of writing can make a text look like another one (Unicode TR 36 §3.1).
    let steers =
        |c: char| c.is_control() && c != '\n' || matches!(c, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if steers(c) { '\u{FFFD}' } else { c }).collect()
}

/// `1 recipient`, `7 recipients`.
pub(super) fn many(count: u64, one: &str, more: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {more}") }
}

/// Octets in the unit in which there are not too many.
pub(super) fn size(octets: u64) -> String {
    match octets {
        0..10_000 => format!("{octets} B"),
        10_000..10_000_000 => ByteSize((octets >> 10) << 10).to_string(),
        _ => format!("{} MiB", octets >> 20),
    }
}

/// One fact on a line, if there is anything to tell.
pub(super) fn fact(name: &str, value: &str) {
    if !value.is_empty() {
        line(format_args!("{name:<10}  {}", printable(value)));
    }
}

/// A time to come: `18:31:21Z, in 5m`, with its date if it is another day.
pub(super) fn moment(time: Time, now: Time) -> String {
    let (Time(time), Time(now)) = (time, now);
    let ahead = time.since(now);
    if ahead.is_zero() { "now".to_owned() } else { format!("{}, in {}", clock(time, now), span(ahead)) }
}

/// A time that has passed: `2026-11-21T18:31:21Z, 5m ago`.
pub(super) fn past(time: Time, now: Time) -> String {
    let (Time(time), Time(now)) = (time, now);
    format!("{}, {} ago", clock(time, now), span(now.since(time)))
}

/// A time from which on something is counted: the time of today, the day of this week, else the date.
pub(super) fn since(time: Time, now: Time) -> String {
    const A_WEEK: Duration = Duration::from_secs(6 * 86_400);
    let (Time(time), Time(now)) = (time, now);
    let text = clock(time, now);
    match text.split_once('T') {
        None => text,
        Some(_) if now.since(time) < A_WEEK => time.weekday(),
        Some((date, _)) => date.to_owned(),
    }
}

/// A span of time in its two largest units, and not more exactly than it is long.
pub(super) fn span(span: Duration) -> String {
    let unit = match span.as_secs() {
        0 => return format_duration(span),
        1..3_600 => 1,
        3_600..86_400 => 60,
        _ => 3_600,
    };
    format_duration(Duration::from_secs(span.as_secs() / unit * unit))
}

/// The time of day, with its date unless that is today's; to the second.
fn clock(time: Timestamp, now: Timestamp) -> String {
    let (text, today) = (time.to_string(), now.to_string());
    let text = text.split('.').next().unwrap_or_default();
    match text.split_once('T') {
        Some((date, time)) if today.starts_with(date) => format!("{time}Z"),
        _ => format!("{text}Z"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_people_do() {
        let now = Timestamp::from_millis(1_795_285_881_042);
        for (ahead, text) in
            [(0, "now"), (300, "18:31:21Z, in 300ms"), (90_500, "18:32:51Z, in 1m 30s"), (86_400_000, "2026-11-22T18:31:21Z, in 1d")]
        {
            assert_eq!(moment(Time(now + Duration::from_millis(ahead)), Time(now)), text);
        }
        assert_eq!(past(Time(now - Duration::from_secs(61)), Time(now)), "18:30:20Z, 1m 1s ago");
        for (days, text) in [(0, "18:31:21Z"), (1, "Friday"), (5, "Monday"), (6, "2026-11-15"), (40, "2026-10-12")] {
            assert_eq!(since(Time(now - Duration::from_secs(days * 86_400)), Time(now)), text);
        }
    }

    #[test]
    fn a_span_is_not_told_more_exactly_than_it_is_long() {
        for (millis, text) in
            [(300, "300ms"), (1_900, "1s"), (61_000, "1m 1s"), (3_661_000, "1h 1m"), (86_407_000, "1d"), (100_000_000, "1d 3h")]
        {
            assert_eq!(span(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn what_came_with_mail_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\rc\u{202E}d\ne"), "a\u{FFFD}[2Jb\u{FFFD}c\u{FFFD}d\ne");
        assert!(!table(Lines::None, ["id"], [["\x1b]0;x\x07".to_owned()]]).contains('\x1b'));
    }
}
