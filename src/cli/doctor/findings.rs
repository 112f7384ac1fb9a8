//! What was found: each with how grave it is and what to do, shown as a table or as JSON.

use std::process::ExitCode;

use serde::Serialize;

use crate::cli::show::{self, Lines, line, many, table};

/// How grave a finding is, the gravest last. The exit status is its place in this list, as monitoring systems have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    /// As it should be.
    Pass,
    /// It works, and will or may not for long.
    Warn,
    /// It does not work.
    Fail,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "WARN",
            Self::Fail => "FAIL",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub level: Level,
    /// What it is about, such as `listener 127.0.0.1:25`.
    pub about: String,
    pub found: String,
    /// What to do; empty if nothing is to be done.
    pub to_do: String,
}

impl Finding {
    pub fn pass(about: impl Into<String>, found: impl Into<String>) -> Self {
        Self { level: Level::Pass, about: about.into(), found: found.into(), to_do: String::new() }
    }

    pub fn warn(about: impl Into<String>, found: impl Into<String>, to_do: impl Into<String>) -> Self {
        Self { level: Level::Warn, about: about.into(), found: found.into(), to_do: to_do.into() }
    }

    pub fn fail(about: impl Into<String>, found: impl Into<String>, to_do: impl Into<String>) -> Self {
        Self { level: Level::Fail, about: about.into(), found: found.into(), to_do: to_do.into() }
    }

    /// A pass as long as `level` says no worse; then with what to do.
    pub fn of(level: Level, about: impl Into<String>, found: impl Into<String>, to_do: impl Into<String>) -> Self {
        let to_do = if level == Level::Pass { String::new() } else { to_do.into() };
        Self { level, about: about.into(), found: found.into(), to_do }
    }
}

/// All that was found.
#[derive(Debug, Serialize)]
struct Report<'a> {
    result: Level,
    findings: &'a [Finding],
}

/// Shows the findings and returns the exit status: 0, 1 if there are warnings, 2 if something fails.
pub(super) fn show(findings: &[Finding], json: bool) -> ExitCode {
    let result = findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Pass);
    if json {
        show::json(&Report { result, findings });
    } else {
        let rows = findings.iter().map(|Finding { level, about, found, to_do }| {
            let found = if to_do.is_empty() { found.clone() } else { format!("{found}\n→ {to_do}") };
            [level.as_str().to_owned(), about.clone(), found]
        });
        line(table(Lines::None, ["", "about", "found"], rows));
        let count = |level| findings.iter().filter(|finding| finding.level == level).count() as u64;
        let warnings = many(count(Level::Warn), "warning", "warnings");
        line(format_args!("{} passed, {warnings}, {} failed", count(Level::Pass), count(Level::Fail)));
    }
    ExitCode::from(result as u8)
}
