//! The whole configuration as it is understood, each value with where it comes from: what `check --effective` prints.
//!
//! What was written is taken from the file. What was not is noted by whoever decides on it ([`Findings::default`]) under the key where it could be
//! written. So the text is a configuration itself, with the same meaning, but for secrets, which are not shown.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::problem::Findings;
use super::reader::{self, Document, Section};
use super::schema::{Form, SCHEMA};
use crate::units::format_duration;

/// What stands in the place of a secret.
const HIDDEN: &str = "(hidden)";
/// Keys whose value is one.
const SECRETS: &[&str] = &["password_hash"];
/// Keys that say where one is.
const PLACES: &[&str] = &[
    "password_file",
    "password_credential",
    "password_env",
    "client_secret_file",
    "client_secret_credential",
    "client_secret_env",
    "token_file",
    "token_credential",
    "token_env",
];
/// Where the origins begin.
const COLUMN: usize = 60;

/// What a key means that was not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A value, as it would be written, and where it comes from.
    Value(String, String),
    /// The same as another key.
    As(String),
}

/// A value of a configuration as it is written there.
pub(super) trait Shown {
    fn shown(&self) -> String;
}

impl<T: Shown + ?Sized> Shown for &T {
    fn shown(&self) -> String {
        (**self).shown()
    }
}

impl Shown for str {
    fn shown(&self) -> String {
        toml::Value::from(self).to_string()
    }
}

impl Shown for String {
    fn shown(&self) -> String {
        self.as_str().shown()
    }
}

impl Shown for PathBuf {
    fn shown(&self) -> String {
        self.to_string_lossy().as_ref().shown()
    }
}

impl Shown for Duration {
    fn shown(&self) -> String {
        format_duration(*self).shown()
    }
}

impl<T: Shown> Shown for Option<T> {
    fn shown(&self) -> String {
        self.as_ref().map_or_else(|| "none".shown(), Shown::shown)
    }
}

impl Shown for Vec<&str> {
    fn shown(&self) -> String {
        format!("[{}]", self.iter().map(Shown::shown).collect::<Vec<_>>().join(", "))
    }
}

macro_rules! shown_as_it_prints {
    ($($number:ty),*) => {
        $(impl Shown for $number {
            fn shown(&self) -> String {
                format!("{self:?}")
            }
        })*
    };
}
shown_as_it_prints!(bool, u16, u32, u64, usize, f64);

/// The text, and the files that the configuration names.
pub(super) fn print(document: &Document<'_>, findings: &Findings<'_>) -> (String, Vec<(String, PathBuf)>) {
    let mut known = BTreeMap::new();
    let mut files = Vec::new();
    for section in sections(document) {
        for key in section.keys() {
            let Some(value) = section.value(key) else { continue };
            let place = section.place_of(key);
            if let Some(path) = value.as_str().filter(|_| key.ends_with("_file")) {
                files.push((findings.shown(&place), PathBuf::from(path)));
            }
            known.insert(place.key.clone(), (written(value), findings.shown(&place)));
        }
    }
    let mut text = String::new();
    for section in sections(document) {
        let mut lines = Vec::new();
        for key in section.keys() {
            let Some((value, origin)) = meaning(&section.place_of(key).key, &known, findings) else { continue };
            let (value, mark) = match (SECRETS.contains(key), PLACES.contains(key)) {
                (true, _) => (HIDDEN.shown(), String::new()),
                (_, true) => (value, format!("; the secret itself: {HIDDEN}")),
                _ => (value, String::new()),
            };
            let is_told_only = match section.place_of(key).key.as_str() {
                // What it includes stands here already.
                "include" => true,
                // An address that is written is had, or the relay does not start.
                "admin.listen" => !section.has(key),
                _ => false,
            };
            let line = format!("{}{key} = {value}", if is_told_only { "# " } else { "" });
            lines.push(format!("{line:COLUMN$}  # {origin}{mark}\n"));
        }
        if !lines.is_empty() {
            let header = section.header();
            let blank = if text.is_empty() { "" } else { "\n" };
            text.push_str(&header.map_or_else(String::new, |header| format!("{blank}{header}\n")));
            text.extend(lines);
        }
    }
    (text, files)
}

/// Every table that was written, and of those that stand there once the others too; before the routes the one that need not be written.
fn sections<'t>(document: &Document<'t>) -> Vec<Section<'t>> {
    let of = |form, name| match form {
        Form::Top => vec![document.top()],
        Form::One => vec![document.one(name)],
        Form::Many => document.implied(name).into_iter().chain(document.many(name)).collect(),
    };
    SCHEMA.iter().flat_map(|table| of(table.form, table.name)).collect()
}

/// The value of a key and where it comes from, if it has one.
fn meaning(key: &str, known: &BTreeMap<String, (String, String)>, findings: &Findings<'_>) -> Option<(String, String)> {
    let mut own = key.to_owned();
    let table = |key: &str| key.rsplit_once('.').map(|(table, _)| table.to_owned());
    let from = |own: &str, origin: String| match own {
        _ if own == key => origin,
        _ if table(own) == table(key) => format!("as {}, {origin}", own.rsplit('.').next().unwrap_or(own)),
        _ => format!("as {}, {origin}", own.replace(reader::UNWRITTEN, "")),
    };
    // A key that is the same as another may lead to one that is the same as a third: account, route, all accounts.
    for _ in 0..4 {
        if let Some((value, origin)) = known.get(&own) {
            return Some((value.clone(), from(&own, origin.clone())));
        }
        match findings.default_of(&own)? {
            Meaning::Value(value, origin) => return Some((value, from(&own, origin))),
            Meaning::As(other) => own = other,
        }
    }
    None
}

/// A value as it can be written on one line.
fn written(value: &DeValue<'_>) -> String {
    let joined = |parts: Vec<String>| parts.join(", ");
    match value {
        DeValue::String(text) => text.as_ref().shown(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(datetime) => datetime.to_string(),
        DeValue::Array(array) => format!("[{}]", joined(array.iter().map(|value| written(value.get_ref())).collect())),
        DeValue::Table(table) => {
            let entries = table.iter().map(|(key, value)| format!("{} = {}", key.get_ref(), written(value.get_ref())));
            format!("{{ {} }}", joined(entries.collect()))
        }
    }
}
