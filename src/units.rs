//! Sizes and durations as people write them in a configuration: `10 MiB`, `10485760`, `5m`, `1h 30m`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A number of octets. Written as a plain number, or with `KB`/`MB`/`GB` (powers of 1,000) or `KiB`/`MiB`/`GiB` (powers of 1,024).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// Why a size or a duration could not be read; the text names the forms that can.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(&'static str);

const SIZE_FORMS: UnitError = UnitError("a size is a number of octets, or a number with KB, MB, GB, KiB, MiB or GiB: 10485760, \"10 MiB\"");
const DURATION_FORMS: UnitError =
    UnitError("a duration is a number with ms, s, m, h or d, and may be a sum: \"30s\", \"5m\", \"1h 30m\", \"5d\"");

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let number: u64 = text[..digits].parse().map_err(|_| SIZE_FORMS)?;
        let unit = match text[digits..].trim() {
            "" | "B" => 1,
            "KB" | "kB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(SIZE_FORMS),
        };
        number.checked_mul(unit).map(ByteSize).ok_or(SIZE_FORMS)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n >= 1 << 30 && n % (1 << 30) == 0 => write!(f, "{} GiB", n >> 30),
            n if n >= 1 << 20 && n % (1 << 20) == 0 => write!(f, "{} MiB", n >> 20),
            n if n >= 1 << 10 && n % (1 << 10) == 0 => write!(f, "{} KiB", n >> 10),
            n => write!(f, "{n}"),
        }
    }
}

/// Reads a duration such as `30s`, `5m` or `1h 30m`.
///
/// # Errors
/// If a part has no number, no unit, an unknown unit, or the sum is too large.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(DURATION_FORMS);
    }
    let mut millis: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or(DURATION_FORMS)?;
        let number: u64 = rest[..digits].parse().map_err(|_| DURATION_FORMS)?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(DURATION_FORMS),
        };
        millis = number.checked_mul(unit).and_then(|n| millis.checked_add(n)).ok_or(DURATION_FORMS)?;
        rest = rest[letters..].trim_start();
    }
    Ok(Duration::from_millis(millis))
}

/// Writes a duration in its two largest units, as [`parse_duration`] reads it: `1h 30m`.
pub fn format_duration(duration: Duration) -> String {
    let mut millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut parts = Vec::new();
    for (name, unit) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if millis >= unit {
            parts.push(format!("{}{name}", millis / unit));
            millis %= unit;
        }
        if parts.len() == 2 {
            break;
        }
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes() {
        for (text, octets) in [("0", 0), ("10485760", 10_485_760), ("10 MiB", 10_485_760), ("32KiB", 32_768), ("7 MB", 7_000_000)] {
            assert_eq!(text.parse(), Ok(ByteSize(octets)), "{text}");
        }
        for text in ["", "MiB", "ten", "1.5 MiB", "1 XB", "99999999999 GiB", "-1"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn reads_durations() {
        for (text, seconds) in [("30s", 30), ("5m", 300), ("1h 30m", 5_400), ("1h30m", 5_400), ("5 d", 432_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "5", "s", "5 weeks", "1h 30", "99999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["10 MiB", "7", "32 KiB"] {
            assert_eq!(text.parse::<ByteSize>().expect(text).to_string(), text);
        }
        for text in ["0s", "250ms", "1h 30m", "5d"] {
            assert_eq!(format_duration(parse_duration(text).expect(text)), text);
        }
    }
}
