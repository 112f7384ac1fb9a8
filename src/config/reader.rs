//! What was written: the tables of the file, and the reading of one key at a time.
//!
//! [`Document`] is the parsed text; a [`Section`] is one table of it, or a table that was not written at all, whose keys then all have their
//! defaults. Reading a key returns its value, or records what is wrong with it and returns nothing (or the default), so that the reading of the
//! rest goes on. This is done by hand over TOML's own tables rather than derived with serde, because serde ends at the first error and at the
//! first unknown key, and the operator is to see all of them.

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use super::effective::{Meaning, Shown};
use super::problem::{At, Findings, Place};
use super::schema::{self, Form, SCHEMA, Table};
use super::value::Wrong;

/// Turns a TOML value into what it means.
pub(super) trait Read<T> {
    fn read(&self, value: &DeValue<'_>) -> Result<T, Wrong>;
}

impl<T, F: Fn(&DeValue<'_>) -> Result<T, Wrong>> Read<T> for F {
    fn read(&self, value: &DeValue<'_>) -> Result<T, Wrong> {
        self(value)
    }
}

/// Turns what a value means into how it is written.
pub(super) trait Show<T> {
    fn show(&self, value: &T) -> String;
}

impl<T: Shown, F: Fn(&DeValue<'_>) -> Result<T, Wrong>> Show<T> for F {
    fn show(&self, value: &T) -> String {
        value.shown()
    }
}

/// The parsed file.
pub(super) struct Document<'t> {
    table: &'t DeTable<'t>,
    findings: &'t Findings<'t>,
}

/// One table of the file.
pub(super) struct Section<'t> {
    schema: &'static Table,
    /// Where it stands, or would.
    place: Place,
    /// None if it was not written.
    entries: Option<&'t DeTable<'t>>,
    /// It was written, but not so that it could be read: that was reported, and what it lacks is not known.
    unreadable: bool,
    findings: &'t Findings<'t>,
}

/// Reports what is not TOML: keys written twice, up to the first place where the text cannot be parsed. What the parser says about the rest of
/// the text mostly follows from that place. Its messages say what it expected and quote nothing of the text, which may hold a secret. The text
/// begins at the offset `start` of the configuration.
pub(super) fn report_syntax(text: &str, start: usize, errors: Vec<Error>, findings: &Findings<'_>) {
    let mut errors: Vec<_> = errors.into_iter().map(|error| (error.span().unwrap_or(0..0), error)).collect();
    errors.sort_by_key(|(span, _)| span.start);
    for (span, error) in errors {
        let place = Place { key: String::new(), offset: start + span.start };
        match (error.message(), text.get(span)) {
            ("duplicate key", Some(name)) => findings.problem(&place, format!("{name} is written twice"), "keep one of the two"),
            (message, _) => {
                let found = format!("this is not TOML ({})", message.trim_end_matches(", expected nothing"));
                return findings.problem(&place, found, "look for missing quotes, a missing comma or an open bracket, here or just above");
            }
        }
    }
}

impl<'t> Document<'t> {
    /// Takes the parsed text, and reports the keys that it must not have.
    pub fn new(table: &'t DeTable<'t>, findings: &'t Findings<'t>) -> Self {
        schema::report_unknown(table, findings);
        Self { table, findings }
    }

    /// Takes it for the sake of a few keys.
    pub fn unchecked(table: &'t DeTable<'t>, findings: &'t Findings<'t>) -> Self {
        Self { table, findings }
    }

    /// The keys before the first header.
    pub fn top(&self) -> Section<'t> {
        self.section("", Place { key: String::new(), offset: 0 }, Some(self.table))
    }

    /// A table that may stand in the file once.
    pub fn one(&self, name: &'static str) -> Section<'t> {
        let Some(value) = self.table.get(name) else {
            let mut section = self.section(name, Place { key: name.to_owned(), offset: 0 }, None);
            section.unreadable = schema::is_misspelt(self.table, &SCHEMA[0], name);
            return section;
        };
        let place = Place { key: name.to_owned(), offset: value.span().start };
        if let DeValue::Table(entries) = value.get_ref() {
            return self.section(name, place, Some(entries));
        }
        self.findings.problem(&place, Wrong::is_not(value.get_ref(), "one table", "").found, format!("write [{name}], once"));
        let mut section = self.section(name, place, None);
        section.unreadable = true;
        section
    }

    /// Whether tables of a name were written, rightly or not.
    pub fn has(&self, name: &'static str) -> bool {
        self.value(name).is_some()
    }

    /// The tables of a name that may stand in the file many times, in the file's order. One that is in another is named behind that one:
    /// `admin.user`.
    pub fn many(&self, name: &'static str) -> Vec<Section<'t>> {
        let Some(value) = self.value(name) else { return Vec::new() };
        let found = schema::tables(name, value);
        if value.get_ref().as_array().map(|array| array.len()) != Some(found.len()) {
            let place = Place { key: name.to_owned(), offset: value.span().start };
            self.findings.problem(&place, "this is not a list of tables", format!("write [[{name}]], with two brackets, for each"));
        }
        found.into_iter().map(|(key, offset, entries)| self.section(name, Place { key, offset }, Some(entries))).collect()
    }

    /// A table that stands for one that need not be written.
    pub fn unwritten(&self, name: &'static str) -> Section<'t> {
        self.section(name, Place { key: implied(name), offset: 0 }, None)
    }

    /// The same, if anything was noted of it.
    pub fn implied(&self, name: &'static str) -> Option<Section<'t>> {
        let section = self.unwritten(name);
        section.schema.keys.iter().any(|key| self.findings.default_of(&section.place_of(key).key).is_some()).then_some(section)
    }

    /// The tables of a name of which there must be at least one.
    pub fn at_least_one(&self, name: &'static str, hint: &str) -> Vec<Section<'t>> {
        let value = self.table.get(name);
        let none = value.is_none_or(|value| value.get_ref().as_array().is_some_and(|array| array.is_empty()));
        if none && !schema::is_misspelt(self.table, &SCHEMA[0], name) {
            let place = Place { key: name.to_owned(), offset: value.map_or(0, |value| value.span().start) };
            self.findings.problem(&place, "is missing", format!("write [[{name}]] with {hint}"));
        }
        self.many(name)
    }

    fn value(&self, name: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        match name.split_once('.') {
            None => self.table.get(name),
            Some((outer, inner)) => self.table.get(outer)?.get_ref().as_table()?.get(inner),
        }
    }

    fn section(&self, name: &'static str, place: Place, entries: Option<&'t DeTable<'t>>) -> Section<'t> {
        let schema = schema::find(name).unwrap_or(&SCHEMA[0]);
        Section { schema, place, entries, unreadable: false, findings: self.findings }
    }
}

/// What the place of a table ends in that need not be written, beside `route[0]` and so on.
pub(super) const UNWRITTEN: &str = "[-]";

/// The place of a table that need not be written.
pub(super) fn implied(name: &str) -> String {
    format!("{name}{UNWRITTEN}")
}

impl<'t> Section<'t> {
    /// Its keys, written or not.
    pub fn keys(&self) -> &'static [&'static str] {
        self.schema.keys
    }

    /// As its header is written; none at the top of the file.
    pub fn header(&self) -> Option<String> {
        (self.schema.form != Form::Top).then(|| self.schema.header())
    }

    /// What was written.
    pub fn value(&self, key: &str) -> Option<&'t DeValue<'t>> {
        self.written(key).map(Spanned::get_ref)
    }

    /// Where it stands.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Where a key stands, or the table that lacks it.
    pub fn place_of(&self, key: &str) -> Place {
        let dotted = if self.schema.form == Form::Top { key.to_owned() } else { format!("{}.{key}", self.place.key) };
        let offset = self.written(key).map_or(self.place.offset, |value| value.span().start);
        Place { key: dotted, offset }
    }

    /// Whether the key was written, rightly or not.
    pub fn has(&self, key: &str) -> bool {
        self.written(key).is_some()
    }

    /// A key that may be left out.
    pub fn get<T>(&self, key: &str, read: impl Read<T>) -> Option<At<T>> {
        debug_assert!(self.schema.keys.contains(&key), "{key} is not in the schema of {}", self.schema.name);
        self.read(self.written(key)?, self.place_of(key), &read)
    }

    /// A key with a default.
    pub fn or<T>(&self, key: &str, read: impl Read<T> + Show<T>, default: T) -> T {
        self.or_from(key, read, default, "default")
    }

    /// A key with a default, and where that comes from.
    pub fn or_from<T>(&self, key: &str, read: impl Read<T> + Show<T>, default: T, origin: &str) -> T {
        self.findings.default(self.place_of(key).key, Meaning::Value(read.show(&default), origin.to_owned()));
        self.get(key, read).map_or(default, |found| found.value)
    }

    /// Notes what a key means if it was not written, and where that comes from.
    pub fn note(&self, key: &str, value: impl Shown, origin: &str) {
        self.findings.default(self.place_of(key).key, Meaning::Value(value.shown(), origin.to_owned()));
    }

    /// Notes that a key means, if it was not written, what another one does.
    pub fn same_as(&self, key: &str, other: impl Into<String>) {
        self.findings.default(self.place_of(key).key, Meaning::As(other.into()));
    }

    /// A key that must be there; the hint shows how it is written.
    pub fn need<T>(&self, key: &str, read: impl Read<T>, hint: &str) -> Option<At<T>> {
        self.require(key, hint);
        self.get(key, read)
    }

    /// The elements of a list that can be read, if the list was written; the hint shows how.
    pub fn list<T>(&self, key: &str, read: impl Read<T>, hint: &str) -> Option<At<Vec<At<T>>>> {
        debug_assert!(self.schema.keys.contains(&key), "{key} is not in the schema of {}", self.schema.name);
        let place = self.place_of(key);
        let value = self.written(key)?;
        let Some(elements) = value.get_ref().as_array() else {
            let found = Wrong::is_not(value.get_ref(), "a list", "").found;
            self.findings.problem(&place, found, format!("write {hint}"));
            return None;
        };
        if elements.is_empty() {
            self.findings.problem(&place, "the list is empty", format!("write {hint}"));
        }
        let element = |(i, element): (usize, &Spanned<DeValue<'_>>)| {
            let place = Place { key: format!("{}[{i}]", place.key), offset: element.span().start };
            self.read(element, place, &read)
        };
        let value = elements.iter().enumerate().filter_map(element).collect();
        Some(At { value, place })
    }

    /// One value or a list of them, if it was written; the hint shows how. Of a list that can only be read in part the problems are told.
    pub fn one_or_more<T>(&self, key: &str, read: impl Read<T>, hint: &str) -> Option<Vec<T>> {
        if self.written(key)?.get_ref().is_array() {
            return Some(self.list(key, read, hint)?.value.into_iter().map(|found| found.value).collect());
        }
        self.get(key, read).map(|found| vec![found.value])
    }

    /// A list that must be there; the hint shows how it is written.
    pub fn need_list<T>(&self, key: &str, read: impl Read<T>, hint: &str) -> Vec<At<T>> {
        self.require(key, hint);
        self.list(key, read, hint).map(|found| found.value).unwrap_or_default()
    }

    fn require(&self, key: &str, hint: &str) {
        let misspelt = self.entries.is_some_and(|entries| schema::is_misspelt(entries, self.schema, key));
        if !self.has(key) && !misspelt && !self.unreadable {
            let below = if self.entries.is_some() { String::new() } else { format!(" below {}", self.schema.header()) };
            self.findings.problem(&self.place_of(key), "is missing", format!("write {hint}{below}"));
        }
    }

    fn written(&self, key: &str) -> Option<&'t Spanned<DeValue<'t>>> {
        self.entries?.get(key)
    }

    fn read<T>(&self, value: &Spanned<DeValue<'_>>, place: Place, read: &impl Read<T>) -> Option<At<T>> {
        match read.read(value.get_ref()) {
            Ok(value) => Some(At { value, place }),
            Err(wrong) => {
                self.findings.problem(&place, wrong.found, wrong.hint);
                None
            }
        }
    }
}
