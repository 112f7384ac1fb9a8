//! `include`: further files of the configuration, such as one for each site or department.
//!
//! Their tables are read as if they stood behind those of the main file: in the order of the list, those that one pattern finds by name. Tables of
//! a kind that may stand there many times are all one list; the others stand in one of the files. What stands before the first table belongs to the
//! main file alone, so no included file can include another, and there are no loops.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::password;
use super::problem::{At, Findings, Place, Problem, Problems};
use super::reader::{Document, report_syntax};
use super::schema::{self, Form, SCHEMA};
use super::value::Wrong;

/// Octets of a configuration file; more is surely another file.
const LONGEST: u64 = 4 << 20;
/// Files that may be included.
const FILES: usize = 1_000;

/// An included file, and what it holds.
pub(super) struct Included {
    path: PathBuf,
    text: String,
}

/// Why there is no text.
enum NoText {
    Io(io::Error),
    TooLarge,
    /// Whoever may write the file decides where mail goes.
    Writable(u32),
    /// In this line.
    NotUtf8(usize),
}

/// The text of the main file.
pub(super) fn text_of(path: &Path) -> Result<String, Problems> {
    // Not only a file: what a shell passes on (`--config <(...)`) will do too.
    let file = File::open(path).map_err(NoText::Io);
    file.and_then(text_in).map_err(|why| {
        let problem = |line, (found, hint): (String, String)| {
            Problems::Found(vec![Problem { file: path.to_owned(), line, column: 1, key: String::new(), found, hint }])
        };
        match why {
            NoText::Io(error) => unreadable(path, &error),
            NoText::TooLarge => {
                let reason = "is too large for a configuration (4 MiB): name the right file".to_owned();
                Problems::Unreadable { file: path.to_owned(), reason }
            }
            NoText::Writable(mode) => problem(1, writable("this file", path, mode)),
            NoText::NotUtf8(line) => problem(line, ("this is not UTF-8 text".to_owned(), "save the file as UTF-8".to_owned())),
        }
    })
}

/// The beginning of the main file, also of one that a relay would not read.
pub(super) fn any_text_of(path: &Path) -> Result<String, Problems> {
    let mut octets = Vec::new();
    File::open(path).and_then(|file| file.take(LONGEST).read_to_end(&mut octets)).map_err(|error| unreadable(path, &error))?;
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

fn unreadable(path: &Path, error: &io::Error) -> Problems {
    Problems::Unreadable { file: path.to_owned(), reason: format!("cannot be read: {}", password::reason(error)) }
}

fn writable(what: &str, path: &Path, mode: u32) -> (String, String) {
    (format!("{what} can be written by every user of this machine (mode {mode:04o})"), format!("run: chmod o-w {}", path.display()))
}

fn text_in(file: File) -> Result<String, NoText> {
    let facts = file.metadata().map_err(NoText::Io)?;
    let mode = facts.mode() & 0o7777;
    if facts.is_file() && mode & 0o002 != 0 {
        return Err(NoText::Writable(mode));
    }
    let mut octets = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut octets).map_err(NoText::Io)?;
    if octets.len() as u64 > LONGEST {
        return Err(NoText::TooLarge);
    }
    String::from_utf8(octets).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        NoText::NotUtf8(error.as_bytes()[..valid].iter().filter(|octet| **octet == b'\n').count() + 1)
    })
}

/// The files that the configuration at `main` includes, each once however often it is named, and never itself.
pub(super) fn read(table: &DeTable<'_>, main: &Path, findings: &Findings<'_>) -> Vec<Included> {
    let patterns = Document::unchecked(table, findings).top().list("include", pattern, "include = [\"conf.d/*.toml\"], or leave it out");
    let identity = |path: &Path| fs::metadata(path).ok().map(|facts| (facts.dev(), facts.ino()));
    let mut seen: Vec<_> = identity(main).into_iter().collect();
    let mut included = Vec::new();
    for At { value: pattern, place } in patterns.into_iter().flat_map(|patterns| patterns.value) {
        for path in named(&main.parent().unwrap_or(Path::new("")).join(pattern), &place, findings) {
            let own = identity(&path);
            if own.is_some_and(|own| seen.contains(&own)) {
                continue;
            }
            seen.extend(own);
            if included.len() == FILES {
                findings.problem(&place, format!("more than {FILES} files are included"), "name the right folder");
                return included;
            }
            match password::open(&path).map_err(NoText::Io).and_then(regular).and_then(text_in) {
                Ok(text) => included.push(Included { path, text }),
                Err(why) => report(&why, &path, &place, findings),
            }
        }
    }
    included
}

/// A pipe or a device may never end.
fn regular(file: File) -> Result<File, NoText> {
    match file.metadata() {
        Ok(facts) if facts.is_file() => Ok(file),
        Ok(_) => Err(NoText::Io(io::Error::other("not a file"))),
        Err(error) => Err(NoText::Io(error)),
    }
}

fn report(why: &NoText, path: &Path, place: &Place, findings: &Findings<'_>) {
    let shown = path.display();
    let (found, hint) = match why {
        NoText::Io(error) => (
            format!("{shown} cannot be read: {}", password::reason(error)),
            "write the path of a file that the relay's user can read".to_owned(),
        ),
        NoText::TooLarge => (format!("{shown} is too large for a configuration (4 MiB)"), "name the right file".to_owned()),
        NoText::Writable(mode) => writable(&shown.to_string(), path, *mode),
        NoText::NotUtf8(line) => (format!("line {line} of {shown} is not UTF-8 text"), "save the file as UTF-8".to_owned()),
    };
    findings.problem(place, found, hint);
}

/// A path, whose last part may have `*` in it.
fn pattern(value: &DeValue<'_>) -> Result<PathBuf, Wrong> {
    let hint = "write the path of a file, or of several with * in the last part, such as \"conf.d/*.toml\"";
    let path = value.as_str().map(PathBuf::from).filter(|path| path.file_name().is_some());
    path.filter(|path| path.parent().is_none_or(|folder| !folder.to_string_lossy().contains('*')))
        .ok_or_else(|| Wrong::is_not(value, "a file or a pattern for files", hint))
}

/// The files that a pattern finds, by name. Hidden files are not among them.
fn named(pattern: &Path, place: &Place, findings: &Findings<'_>) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (pattern.parent(), pattern.file_name().and_then(|name| name.to_str())) else { return Vec::new() };
    if !name.contains('*') {
        return vec![pattern.to_owned()];
    }
    let folder = if folder == Path::new("") { Path::new(".") } else { folder };
    let entries = fs::read_dir(folder).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    let entries = match entries {
        Ok(entries) => entries,
        Err(error) => {
            let found = format!("{} cannot be read: {}", folder.display(), password::reason(&error));
            findings.problem(place, found, "write the path of a folder that is there, or leave it out");
            return Vec::new();
        }
    };
    if let Some(mode) = fs::metadata(folder).ok().map(|facts| facts.mode() & 0o7777).filter(|mode| mode & 0o002 != 0) {
        let found = format!("every user of this machine can put a file into {} (mode {mode:04o})", folder.display());
        findings.warning(place, found, format!("run: chmod o-w {}", folder.display()));
    }
    let fits = |found: &str| !found.starts_with('.') && matches(name, found);
    let mut paths: Vec<PathBuf> = entries
        .iter()
        .filter(|entry| entry.file_name().to_str().is_some_and(fits))
        // As the operator wrote it: without the dot that was put in for a folder that has no name.
        .map(|entry| pattern.with_file_name(entry.file_name()))
        .collect();
    paths.sort_unstable();
    paths
}

/// Whether a name is as the pattern says, where `*` stands for any number of characters.
fn matches(pattern: &str, name: &str) -> bool {
    let (first, rest) = pattern.split_once('*').unwrap_or((pattern, ""));
    let Some(tail) = name.strip_prefix(first) else { return false };
    if !pattern.contains('*') {
        return tail.is_empty();
    }
    tail.char_indices().map(|(at, _)| &tail[at..]).chain([""]).any(|tail| matches(rest, tail))
}

/// Puts what the files hold behind what the main file holds, unless one of them is not TOML.
pub(super) fn merge<'t>(table: &mut DeTable<'t>, included: &'t [Included], main: &Path, findings: &Findings<'_>) {
    for Included { path, text } in included {
        let start = findings.include(text, path);
        let (found, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            report_syntax(text, start, errors, findings);
            continue;
        }
        for (key, value) in found.into_inner() {
            let place = Place { key: key.get_ref().to_string(), offset: start + key.span().start };
            let key = Spanned::new(start + key.span().start..start + key.span().end, key.into_inner());
            add(table, (key, moved(value, start)), &place, main, findings);
        }
    }
}

type Key<'t> = Spanned<std::borrow::Cow<'t, str>>;

fn add<'t>(table: &mut DeTable<'t>, (key, value): (Key<'t>, Spanned<DeValue<'t>>), place: &Place, main: &Path, findings: &Findings<'_>) {
    let name = key.get_ref().to_string();
    if SCHEMA[0].keys.contains(&name.as_str()) {
        let hint = format!("write it in {}, before its first [table]", main.display());
        return findings.problem(place, "an included file holds tables alone", hint);
    }
    let is_list = schema::find(&name).is_some_and(|table| table.form == Form::Many);
    match table.get_mut(name.as_str()) {
        None => {
            table.insert(key, value);
        }
        Some(there) => match (there.get_mut(), value.into_inner()) {
            (DeValue::Array(there), DeValue::Array(more)) if is_list => more.into_iter().for_each(|entry| there.push(entry)),
            _ if is_list => {
                findings.problem(place, "this is not a list of tables", format!("write [[{name}]], with two brackets, for each"))
            }
            _ => {
                let first = Place { key: name.clone(), offset: there.span().start };
                let found = format!("[{name}] stands in line {} already", findings.line(&first, place));
                findings.problem(place, found, "keep it in one of the two files");
            }
        },
    }
}

/// The value where it stands in the whole of the configuration.
fn moved(value: Spanned<DeValue<'_>>, by: usize) -> Spanned<DeValue<'_>> {
    let span = value.span().start + by..value.span().end + by;
    let value = match value.into_inner() {
        DeValue::Array(array) => DeValue::Array(array.into_iter().map(|value| moved(value, by)).collect()),
        DeValue::Table(table) => {
            let shifted = |key: Key<'_>| key.span().start + by..key.span().end + by;
            DeValue::Table(
                table.into_iter().map(|(key, value)| (Spanned::new(shifted(key.clone()), key.into_inner()), moved(value, by))).collect(),
            )
        }
        other => other,
    };
    Spanned::new(span, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_number_of_characters() {
        for (pattern, name) in
            [("*.toml", "a.toml"), ("*", "x"), ("10-*.toml", "10-.toml"), ("*a*b", "xaayb"), ("a.toml", "a.toml"), ("ä*", "äö")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("*.toml", "a.toml~"), ("*.toml", "a.TOML"), ("10-*.toml", "10.toml"), ("*a*b", "ba"), ("a.toml", "a.tomlx"), ("*b", "")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
