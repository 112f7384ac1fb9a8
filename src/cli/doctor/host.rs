//! The machine: its clock, and what systemd and its journal do with the relay.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::Seen;
use super::findings::{Finding, Level};
use crate::clock::{Clock, Timestamp};
use crate::config::Config;
use crate::daemon;

/// Before this program was written: a clock that says so is wrong.
const WRITTEN: &str = "2026-01-01";
/// A difference that signatures, certificates and logs still bear.
const SMALL: i64 = 30_000;
/// A difference from which assertions and tokens are refused.
const LARGE: i64 = 300_000;

/// Holds the clock against those of the servers that were met.
pub(super) fn clock(seen: &Seen) -> Finding {
    const ABOUT: &str = "clock";
    const TO_DO: &str = "set the clock by the network (timedatectl set-ntp true, or chrony): certificates, tokens and limits go by it";
    let now = Clock::wall();
    if Timestamp::from_date(WRITTEN).is_some_and(|written| now < written) {
        return Finding::fail(ABOUT, format!("it says {now}"), TO_DO);
    }
    let Some((server, ahead)) = seen.dates.iter().min_by_key(|(_, ahead)| ahead.abs()) else {
        return Finding::pass(ABOUT, format!("it says {now}; no server was there to hold it against"));
    };
    let level = match ahead.abs() {
        ..=SMALL => Level::Pass,
        off if off <= LARGE => Level::Warn,
        _ => Level::Fail,
    };
    let found = match ahead / 1_000 {
        -2..=2 => format!("it agrees with that of {server}"),
        seconds @ ..0 => format!("it is {} s behind that of {server}", -seconds),
        seconds => format!("it is {seconds} s ahead of that of {server}"),
    };
    Finding::of(level, ABOUT, found, TO_DO)
}

/// A date in a server's words: that of HTTP, or the one in the greeting of Microsoft's servers (RFC 5322 §3.3).
pub(super) fn date_in(text: &str) -> Option<Timestamp> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let six = |at: usize| words.get(at..at + 6).map(|six| six.join(" "));
    let begins = words.iter().enumerate().filter(|(_, word)| word.len() == 4 && word.ends_with(','));
    let read = |text: String| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(&text).ok();
    begins.filter_map(|(at, _)| six(at).and_then(read)).map(|time| Timestamp::from_millis(time.as_millisecond())).next()
}

/// What systemd and the limits of the process have to do with it. `pid`: of the relay, if it runs.
pub(super) fn service(config: &Config, pid: Option<u32>) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(pid.and_then(|pid| open_files(config, pid)));
    if Path::new("/run/systemd/system").exists() {
        findings.extend(unit());
        findings.extend(journal());
    }
    findings
}

/// Whether the relay may have as many files open as it may have sessions and connections.
fn open_files(config: &Config, pid: u32) -> Option<Finding> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let may = line.split_whitespace().next()?.parse::<u64>().ok()?;
    let needed = daemon::open_files_needed(config);
    let level = if may < needed { Level::Warn } else { Level::Pass };
    let to_do = format!("write LimitNOFILE={} into the systemd unit, or lower limits.sessions", needed.next_multiple_of(1_024));
    Some(Finding::of(level, "open files", format!("the relay may open {may}; with all its sessions it needs {needed}"), to_do))
}

fn unit() -> Option<Finding> {
    const ABOUT: &str = "systemd";
    let output =
        Command::new("systemctl").args(["show", "hve-relay.service", "--property=LoadState,UnitFileState,NRestarts"]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let property = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default();
    if property("LoadState") != "loaded" {
        return None;
    }
    if property("UnitFileState") != "enabled" {
        return Some(Finding::warn(ABOUT, "hve-relay.service does not start with the machine", "systemctl enable hve-relay.service"));
    }
    match property("NRestarts") {
        "" | "0" => Some(Finding::pass(ABOUT, "hve-relay.service starts with the machine")),
        restarts => {
            let to_do = "journalctl -u hve-relay -p err says why; if it is over: systemctl reset-failed hve-relay";
            Some(Finding::warn(ABOUT, format!("hve-relay.service was started again {restarts} times by itself"), to_do))
        }
    }
}

fn journal() -> Option<Finding> {
    let kept = Path::new("/var/log/journal").exists();
    let to_do = "to keep it: mkdir -p /var/log/journal && systemctl restart systemd-journald (or another log collector)";
    (!kept).then(|| Finding::warn("journal", "the log is gone with each start of the machine", to_do))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_date_in_what_servers_say() {
        for (text, date) in [
            ("Wed, 21 Feb 2024 01:08:20 GMT", Some("2024-02-21T01:08:20.000Z")),
            (
                "ic3-transport-smtp-lob-deployment-878945f44-7brv5 Microsoft ESMTP MAIL Service ready at Wed, 21 Feb 2024 01:08:20 +0100 (08DC2DE6714FD732)",
                Some("2024-02-21T00:08:20.000Z"),
            ),
            ("mail.example ESMTP", None),
            ("Hey, you there at 12:00 o'clock GMT", None),
            ("Wed, 21 Feb", None),
        ] {
            assert_eq!(date_in(text).map(|time| time.to_string()).as_deref(), date, "{text}");
        }
    }

    #[test]
    fn a_clock_is_held_against_the_server_that_agrees_best() {
        for (ahead, level, words) in [
            (vec![], Level::Pass, "no server"),
            (vec![900], Level::Pass, "agrees"),
            (vec![-3_600_000, 20_000], Level::Pass, "20 s ahead"),
            (vec![-60_000], Level::Warn, "60 s behind"),
            (vec![400_000], Level::Fail, "400 s ahead"),
        ] {
            let seen = Seen { dates: ahead.iter().map(|ahead| ("login.example".to_owned(), *ahead)).collect() };
            let found = clock(&seen);
            assert_eq!(found.level, level, "{found:?}");
            assert!(found.found.contains(words), "{found:?}");
        }
    }
}
