//! `[log]`: what is logged, where, and in which form.

use std::time::Duration;

use toml::de::DeValue;

use super::problem::Findings;
use super::reader::{Document, Read, Show};
use super::telemetry::{FileSettings, Format, Level, Levels, Redact, Room, Settings};
use super::value::{self, Wrong};

pub(super) fn settings(document: &Document<'_>, findings: &Findings<'_>) -> Settings {
    let section = document.one("log");
    let mut levels = Levels { level: section.or("level", value::choice("a level", Level::WORDS), Level::Info), rooms: Vec::new() };
    for (room, level) in section.or("levels", Rooms, Vec::new()) {
        levels.set(level, Some(room));
    }
    let file = section.get("file", value::path);
    if let Some(file) = &file
        && file.value.is_dir()
    {
        findings.problem(&file.place, format!("{} is a directory", file.value.display()), "write the path of the file itself");
    }
    // Read whether there is a file or not, so that what is wrong is told.
    let size = section.or("file_size", value::size(1 << 20..=1 << 40), 100 << 20);
    let age = value::or_none(value::duration(Duration::from_secs(3_600)..=Duration::from_secs(3_660 * 86_400)));
    let age = section.or("file_age", age, Some(Duration::from_secs(86_400)));
    let kept = section.or("files_kept", value::count(0..=10_000), 14);
    Settings {
        format: section.or("format", value::choice("a format", Format::WORDS), Format::Auto),
        levels,
        redact: section.or("redact", value::choice("a way to show addresses", Redact::WORDS), Redact::None),
        file: file.map(|file| FileSettings { path: file.value, size, age, kept }),
    }
}

/// `{ session = "debug" }`
struct Rooms;

impl Read<Vec<(Room, Level)>> for Rooms {
    fn read(&self, value: &DeValue<'_>) -> Result<Vec<(Room, Level)>, Wrong> {
        let hint = "write rooms with their levels, such as { session = \"debug\", admin = \"warn\" }";
        let table = value.as_table().ok_or_else(|| Wrong::is_not(value, "a table of levels", hint))?;
        let read = |(name, level): (&str, &DeValue<'_>)| {
            let room = value::choice("a room of the log", Room::WORDS).read(&DeValue::String(name.into()))?;
            Ok((room, value::choice("a level", Level::WORDS).read(level)?))
        };
        table.iter().map(|(name, level)| read((name.get_ref().as_ref(), level.get_ref()))).collect()
    }
}

impl Show<Vec<(Room, Level)>> for Rooms {
    fn show(&self, levels: &Vec<(Room, Level)>) -> String {
        let word = |(room, level): &(Room, Level)| format!("{room} = {:?}", level.as_str());
        if levels.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", levels.iter().map(word).collect::<Vec<_>>().join(", ")) }
    }
}
