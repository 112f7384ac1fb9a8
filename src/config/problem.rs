//! What is wrong with a configuration, and where: the text that the operator reads.
//!
//! A problem is one line: file, line, key, what was found, what to write. Its text never holds a secret: whoever reports a value that could be
//! one leaves it out. [`Findings`] gathers problems and warnings while the file is read, so that one run shows all of them in the file's order.

use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};

/// One thing that keeps a configuration from being used. Prints as `FILE:LINE: KEY: FOUND: HINT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The configuration file.
    pub file: PathBuf,
    /// Its line, from 1. What is missing altogether is reported at the table that lacks it.
    pub line: usize,
    /// The character in that line, from 1.
    pub column: usize,
    /// The key with its tables and its place in lists, such as `client[0].networks[1]`; empty where the text is not TOML.
    pub key: String,
    /// What was found there.
    pub found: String,
    /// What to write or do.
    pub hint: String,
}

/// Something that works, and is probably not meant. Prints like a [`Problem`], with `warning: ` before the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning(pub Problem);

/// Why there is no configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problems {
    /// The file could not be read at all.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the operating system said, and what to do.
        reason: String,
    },
    /// What is wrong in it, in the file's order; never empty.
    Found(Vec<Problem>),
}

impl Problems {
    /// The exit status by the convention of sysexits.h: 66 (EX_NOINPUT) or 78 (EX_CONFIG).
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Unreadable { .. } => 66,
            Self::Found(_) => 78,
        }
    }

    /// The problems of the text; none if there was no text.
    pub fn list(&self) -> &[Problem] {
        match self {
            Self::Unreadable { .. } => &[],
            Self::Found(problems) => problems,
        }
    }
}

impl Problem {
    fn write(&self, f: &mut fmt::Formatter<'_>, severity: &str) -> fmt::Result {
        write!(f, "{}:{}: {severity}", self.file.display(), self.line)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}: {}", self.found, self.hint)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, "")
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f, "warning: ")
    }
}

/// One line for each, without a final line end.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { file, reason } => write!(f, "{}: {reason}", file.display()),
            Self::Found(problems) => {
                for (i, problem) in problems.iter().enumerate() {
                    if i > 0 {
                        f.write_str("\n")?;
                    }
                    problem.fmt(f)?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for Problems {}

/// Where a value stands.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub key: String,
    /// Octets from the start of the text.
    pub offset: usize,
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub value: T,
    pub place: Place,
}

/// The problems and warnings so far. It is written to from wherever a value is read, hence the cells.
pub(super) struct Findings<'t> {
    file: &'t Path,
    text: &'t str,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Warning>>,
}

impl<'t> Findings<'t> {
    pub fn new(text: &'t str, file: &'t Path) -> Self {
        Self { file, text, problems: RefCell::default(), warnings: RefCell::default() }
    }

    pub fn problem(&self, place: &Place, found: impl Into<String>, hint: impl Into<String>) {
        let problem = self.at(place, found.into(), hint.into());
        let mut problems = self.problems.borrow_mut();
        // A table may be opened, and a key read, in more than one place; the operator hears of it once.
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }

    pub fn warning(&self, place: &Place, found: impl Into<String>, hint: impl Into<String>) {
        self.warnings.borrow_mut().push(Warning(self.at(place, found.into(), hint.into())));
    }

    /// The line of a place, to point at it from another one.
    pub fn line(&self, place: &Place) -> usize {
        self.position(place.offset).0
    }

    /// The problems in the file's order.
    pub fn problems(self) -> Problems {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| (problem.line, problem.column));
        Problems::Found(problems)
    }

    /// The warnings in the file's order, unless there is a problem.
    pub fn finish(self) -> Result<Vec<Warning>, Problems> {
        if !self.problems.borrow().is_empty() {
            return Err(self.problems());
        }
        let mut warnings = self.warnings.into_inner();
        warnings.sort_by_key(|Warning(warning)| (warning.line, warning.column));
        Ok(warnings)
    }

    fn at(&self, place: &Place, found: String, hint: String) -> Problem {
        let (line, column) = self.position(place.offset);
        Problem { file: self.file.to_owned(), line, column, key: place.key.clone(), found, hint }
    }

    fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_in_the_order_of_the_file() {
        let findings = Findings::new("a = 1\nbä = 2\n", Path::new("x.toml"));
        findings.problem(&Place { key: "second".into(), offset: 9 }, "2 is wrong", "write 3");
        findings.problem(&Place { key: "first".into(), offset: 4 }, "1 is wrong", "write 2");
        let Err(problems) = findings.finish() else { panic!("problems") };
        assert_eq!(problems.to_string(), "x.toml:1: first: 1 is wrong: write 2\nx.toml:2: second: 2 is wrong: write 3");
        assert_eq!(problems.list().iter().map(|p| (p.line, p.column)).collect::<Vec<_>>(), [(1, 5), (2, 3)]);
    }

    #[test]
    fn a_warning_is_no_problem() {
        let findings = Findings::new("", Path::new("x.toml"));
        findings.warning(&Place { key: "hostname".into(), offset: 0 }, "\"relay\" has no domain", "write one");
        let shown: Vec<String> = findings.finish().expect("no problem").iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["x.toml:1: warning: hostname: \"relay\" has no domain: write one"]);
    }
}
