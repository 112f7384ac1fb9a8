//! What is wrong with a configuration, and where: the text that the operator reads.
//!
//! A problem is one line: file, line, key, what was found, what to write. Its text never holds a secret: whoever reports a value that could be
//! one leaves it out. [`Findings`] gathers problems and warnings while the file is read, so that one run shows all of them in the file's order.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::effective::Meaning;

/// One thing that keeps a configuration from being used. Prints as `FILE:LINE: KEY: FOUND: HINT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The configuration file, or one that it includes.
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
    /// What is wrong in it, in the file's order, and after that in those that it includes; never empty.
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
    /// Octets from the start of the configuration, of which included files are the continuation.
    pub offset: usize,
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct At<T> {
    pub value: T,
    pub place: Place,
}

/// A file that the configuration includes.
struct Included {
    path: PathBuf,
    text: String,
    /// The octets of the files before it.
    start: usize,
}

/// For whom a configuration is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// A relay that is to run by it.
    Relay,
    /// Somebody who looks at it, without the credentials that systemd gives to the relay alone.
    Person,
}

/// The problems and warnings so far. It is written to from wherever a value is read, hence the cells.
pub(super) struct Findings<'t> {
    file: &'t Path,
    text: &'t str,
    included: RefCell<Vec<Included>>,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Warning>>,
    /// What keys mean that were not written, by key.
    defaults: RefCell<BTreeMap<String, Meaning>>,
    reader: Reader,
}

impl<'t> Findings<'t> {
    pub fn new(text: &'t str, file: &'t Path) -> Self {
        Self::of(text, file, Reader::Relay)
    }

    pub fn of(text: &'t str, file: &'t Path, reader: Reader) -> Self {
        Self {
            file,
            text,
            included: RefCell::default(),
            problems: RefCell::default(),
            warnings: RefCell::default(),
            defaults: RefCell::default(),
            reader,
        }
    }

    /// For whom all this is.
    pub fn reader(&self) -> Reader {
        self.reader
    }

    /// Notes what a key means that was not written.
    pub fn default(&self, key: String, meaning: Meaning) {
        self.defaults.borrow_mut().insert(key, meaning);
    }

    /// What was noted of a key.
    pub fn default_of(&self, key: &str) -> Option<Meaning> {
        self.defaults.borrow().get(key).cloned()
    }

    /// `FILE:LINE`
    pub fn shown(&self, place: &Place) -> String {
        let (file, line, _) = self.position(place.offset);
        format!("{}:{line}", file.display())
    }

    /// Continues the configuration with a file that it includes; returns the offset at which its text begins.
    pub fn include(&self, text: &str, path: &Path) -> usize {
        let mut included = self.included.borrow_mut();
        let end = included.last().map_or(self.text.len(), |last| last.start + last.text.len());
        // One octet apart, so that the end of one is not the start of the next.
        let start = end + 1;
        included.push(Included { path: path.to_owned(), text: text.to_owned(), start });
        start
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

    /// The line of a place as it is called at another one: `12`, or `12 of FILE` where that is in another file.
    pub fn line(&self, place: &Place, from: &Place) -> String {
        let (file, line, _) = self.position(place.offset);
        match self.position(from.offset).0 == file {
            true => line.to_string(),
            false => format!("{line} of {}", file.display()),
        }
    }

    /// Whether there is a problem already.
    pub fn has_problems(&self) -> bool {
        !self.problems.borrow().is_empty()
    }

    /// The problems in the file's order.
    pub fn problems(self) -> Problems {
        let order = self.order();
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(order);
        Problems::Found(problems)
    }

    /// The warnings in the file's order, unless there is a problem.
    pub fn finish(self) -> Result<Vec<Warning>, Problems> {
        if self.has_problems() {
            return Err(self.problems());
        }
        let order = self.order();
        let mut warnings = self.warnings.into_inner();
        warnings.sort_by_key(|Warning(warning)| order(warning));
        Ok(warnings)
    }

    /// By file, line and column.
    fn order(&self) -> impl Fn(&Problem) -> (usize, usize, usize) + use<> {
        let included: Vec<PathBuf> = self.included.borrow().iter().map(|included| included.path.clone()).collect();
        move |problem| (included.iter().position(|file| *file == problem.file).map_or(0, |at| at + 1), problem.line, problem.column)
    }

    fn at(&self, place: &Place, found: String, hint: String) -> Problem {
        let (file, line, column) = self.position(place.offset);
        Problem { file, line, column, key: place.key.clone(), found, hint }
    }

    /// Which file, its line and the character in that line.
    fn position(&self, offset: usize) -> (PathBuf, usize, usize) {
        let included = self.included.borrow();
        let (file, text, offset) = match included.iter().rfind(|included| included.start <= offset) {
            Some(Included { path, text, start }) => (path.as_path(), text.as_str(), offset - start),
            None => (self.file, self.text, offset),
        };
        let before = text.get(..offset).unwrap_or(text);
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        (file.to_owned(), before.matches('\n').count() + 1, before[start..].chars().count() + 1)
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
    fn included_files_come_after_the_one_that_includes_them() {
        let findings = Findings::new("a = 1\n", Path::new("z.toml"));
        let start = findings.include("[b]\nc = 2\n", Path::new("a.toml"));
        let (first, second) = (Place { key: "a".into(), offset: 4 }, Place { key: "b.c".into(), offset: start + 8 });
        findings.problem(&second, "2 is wrong", "write 3");
        findings.problem(&first, "1 is wrong", "write 2");
        assert_eq!((findings.line(&second, &first), findings.line(&second, &second)), ("2 of a.toml".to_owned(), "2".to_owned()));
        assert_eq!(findings.problems().to_string(), "z.toml:1: a: 1 is wrong: write 2\na.toml:2: b.c: 2 is wrong: write 3");
    }

    #[test]
    fn a_warning_is_no_problem() {
        let findings = Findings::new("", Path::new("x.toml"));
        findings.warning(&Place { key: "hostname".into(), offset: 0 }, "\"relay\" has no domain", "write one");
        let shown: Vec<String> = findings.finish().expect("no problem").iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["x.toml:1: warning: hostname: \"relay\" has no domain: write one"]);
    }
}
