//! What is wrong with a data directory, found without changing it; and the way to set it right without deleting anything.
//!
//! Looked at are both databases (`PRAGMA integrity_check`), whether every message has its content and its recipients, and whether every content has
//! its message. While the relay runs, what is just coming or going looks like that for a moment: so each flaw is looked at twice, and files that
//! are young are left out.
//!
//! Repairing moves into `lost+found`: a content without a message as it is; a message that can never be sent as its envelope in JSON, with what
//! there is of its content. The copy is durable before the row goes. A damaged database is beyond this.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use super::letters;
use super::place::{Given, Place, private_directories, sync_directory};
use super::read::{self, length_of};
use super::{OpenError, backup, schema, versions};
use crate::mail::QueueId;

/// Lines of what SQLite finds wrong.
const LINES: usize = 20;
/// A file that is younger may belong to a message that is just coming in.
const YOUNG: Duration = Duration::from_secs(3_600);

/// Something that is wrong. Its text says what.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// A database is damaged.
    #[error("{} is damaged: {what}", path.display())]
    Database {
        /// Which.
        path: PathBuf,
        /// What SQLite says.
        what: String,
    },
    /// A queued message has not the content that was accepted: it is never sent.
    #[error("{id} is queued, and {what}: it can never be sent")]
    Content {
        /// The message.
        id: QueueId,
        /// What is wrong with its content.
        what: String,
    },
    /// A message or a delivery has no recipients: it stays for ever.
    #[error("{id} is queued without recipients: nothing makes it leave")]
    Recipients {
        /// The message.
        id: QueueId,
    },
    /// A content that belongs to no message.
    #[error("{} belongs to no queued message", path.display())]
    Orphan {
        /// Its file.
        path: PathBuf,
    },
}

/// What was looked at, and what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inspected {
    /// Queued messages.
    pub messages: u64,
    /// Contents in files of their own.
    pub files: u64,
    /// What is wrong.
    pub flaws: Vec<Flaw>,
}

/// Looks at a data directory. `running`: a relay uses it meanwhile. `told` hears what is being looked at. Blocks, for minutes where the history is
/// large.
///
/// # Errors
/// If the queue cannot be opened at all, or is of another version than this program's.
pub fn inspect(data_dir: &Path, running: bool, mut told: impl FnMut(&str)) -> Result<Inspected, OpenError> {
    let place = Place::at(data_dir);
    let trouble = |what: &'static str| move |source| OpenError::Directory { what, dir: data_dir.to_owned(), source };
    let database = place.database();
    fs::metadata(&database).map_err(trouble("there is no queue.db that can be read in"))?;
    let connection = schema::open_for_reading(&database)?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if !(1..=versions::VERSION).contains(&found) {
        return Err(OpenError::Version { path: database, found, known: versions::VERSION });
    }
    let mut inspected = Inspected::default();
    told("queue.db");
    inspected.flaws.extend(integrity(&connection, &database, true));
    let is_readable = inspected.flaws.is_empty();
    told("history.db");
    let history = data_dir.join("history.db");
    if history.is_file() {
        match schema::open_for_reading(&history) {
            Ok(history_connection) => inspected.flaws.extend(integrity(&history_connection, &history, false)),
            Err(error) => inspected.flaws.push(Flaw::Database { path: history, what: error.to_string() }),
        }
    }
    if !is_readable {
        // What the rows of a damaged database say is not to be believed.
        return Ok(inspected);
    }
    told("contents");
    // Files first: whatever has a row after that was there before.
    let files = files(&place.content()).map_err(trouble("cannot read the contents in"))?;
    inspected.files = files.len() as u64;
    let mut flaws = rows(&connection, &place, &mut inspected.messages)?;
    let named: HashSet<PathBuf> = read::in_files(&connection)?.into_iter().map(|(id, _)| place.content_of(id)).collect();
    flaws.extend(files.into_iter().filter(|path| !(named.contains(path) || running && is_young(path))).map(|path| Flaw::Orphan { path }));
    if running && !flaws.is_empty() {
        let still = rows(&connection, &place, &mut inspected.messages)?;
        flaws.retain(|flaw| still.contains(flaw) || matches!(flaw, Flaw::Orphan { path } if path.exists()));
    }
    inspected.flaws.extend(flaws);
    Ok(inspected)
}

/// Moves what [`inspect`] found into `lost+found`. The relay must not run. Returns what was moved there, and what could not be set right.
///
/// # Errors
/// If the directory is in use, or a file cannot be written or moved. What was done until then is whole.
pub fn repair(data_dir: &Path, flaws: Vec<Flaw>) -> Result<(Vec<PathBuf>, Vec<Flaw>), OpenError> {
    let (place, _lock) = Place::take(data_dir)?;
    let _given = Given(data_dir);
    let trouble = |what: &'static str| move |source| OpenError::Directory { what, dir: data_dir.to_owned(), source };
    let lost = data_dir.join("lost+found");
    let (left, flaws): (Vec<Flaw>, Vec<Flaw>) = flaws.into_iter().partition(|flaw| matches!(flaw, Flaw::Database { .. }));
    if flaws.is_empty() {
        return Ok((Vec::new(), left));
    }
    let connection = schema::open(&place.database())?;
    let mut moved = Vec::new();
    let mut done = HashSet::new();
    for flaw in flaws {
        match &flaw {
            Flaw::Orphan { path } => {
                private_directories(&lost).map_err(trouble("cannot make lost+found in"))?;
                moved.push(set_aside(path, &lost).map_err(trouble("cannot move a content to lost+found in"))?);
            }
            Flaw::Content { id, .. } | Flaw::Recipients { id } if done.insert(*id) => {
                private_directories(&lost).map_err(trouble("cannot make lost+found in"))?;
                moved.push(letters::keep_envelope(&connection, *id, &lost).map_err(trouble("cannot write to lost+found in"))?);
                let content = letters::keep_content(&connection, &place, *id, &lost).map_err(trouble("cannot write to lost+found in"))?;
                moved.extend(content);
                backup::forget(&connection, *id)?;
                let file = place.content_of(*id);
                if file.is_file() {
                    moved.push(set_aside(&file, &lost).map_err(trouble("cannot move a content to lost+found in"))?);
                }
            }
            Flaw::Content { .. } | Flaw::Recipients { .. } | Flaw::Database { .. } => {}
        }
    }
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok((moved, left))
}

fn integrity(connection: &Connection, path: &Path, foreign_keys: bool) -> Vec<Flaw> {
    let flaw = |what: String| Flaw::Database { path: path.to_owned(), what };
    let lines = |pragma: &str, what: fn(&rusqlite::Row<'_>) -> rusqlite::Result<String>| -> rusqlite::Result<Vec<String>> {
        connection.prepare(pragma)?.query_map([], what)?.take(LINES).collect()
    };
    let mut found = match lines(&format!("PRAGMA integrity_check({LINES})"), |row| row.get(0)) {
        Ok(found) => found,
        Err(error) => return vec![flaw(error.to_string())],
    };
    found.retain(|line| line != "ok");
    if foreign_keys && found.is_empty() {
        let line =
            |row: &rusqlite::Row<'_>| Ok(format!("a row of {} belongs to none of {}", row.get::<_, String>(0)?, row.get::<_, String>(2)?));
        match lines("PRAGMA foreign_key_check", line) {
            Ok(lines) => found.extend(lines),
            Err(error) => found.push(error.to_string()),
        }
    }
    found.into_iter().map(flaw).collect()
}

/// What is wrong with the rows of the queue.
fn rows(connection: &Connection, place: &Place, messages: &mut u64) -> rusqlite::Result<Vec<Flaw>> {
    *messages = connection.query_row("SELECT count(*) FROM message", [], |row| row.get::<_, i64>(0))? as u64;
    let ids = |select: &str| -> rusqlite::Result<Vec<QueueId>> {
        let numbers: Vec<i64> = connection.prepare(select)?.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        Ok(numbers.into_iter().filter_map(QueueId::from_number).collect())
    };
    let without = ids(
        "SELECT id FROM message m WHERE NOT EXISTS (SELECT 1 FROM delivery d WHERE d.message = m.id)
         UNION SELECT message FROM delivery d WHERE NOT EXISTS (SELECT 1 FROM recipient r WHERE (r.message, r.part) = (d.message, d.part))",
    )?;
    let mut flaws: Vec<Flaw> = without.into_iter().map(|id| Flaw::Recipients { id }).collect();
    let lacking = ids("SELECT id FROM message m LEFT JOIN content c ON c.message = m.id
          WHERE stored_in = 'row' AND (c.message IS NULL OR length(c.octets) <> m.size)")?;
    flaws.extend(
        lacking.into_iter().map(|id| Flaw::Content { id, what: "its content is not in the database as it was accepted".to_owned() }),
    );
    for (id, size) in read::in_files(connection)? {
        let path = place.content_of(id);
        let what = match length_of(&path) {
            Some(found) if found == size => continue,
            Some(found) => format!("its content in {} has {found} octets of {size}", path.display()),
            None => format!("its content is not there: {}", path.display()),
        };
        flaws.push(Flaw::Content { id, what });
    }
    Ok(flaws)
}

/// All files with a name as the store gives it.
fn files(content: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let shelves = match fs::read_dir(content) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        shelves => shelves?,
    };
    for shelf in shelves {
        let shelf = shelf?;
        if shelf.file_type()?.is_dir() {
            for file in fs::read_dir(shelf.path())? {
                let file = file?;
                if super::recover::is_ours(&file) {
                    found.push(file.path());
                }
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A file of which the age is not known is young.
fn is_young(path: &Path) -> bool {
    let age = fs::metadata(path).and_then(|facts| facts.modified()).map(|at| at.elapsed().unwrap_or_default());
    age.is_ok_and(|age| age < YOUNG)
}

/// Moves a file into a folder of the same file system, under a name that none has there.
fn set_aside(path: &Path, folder: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let free = |number: u32| folder.join(if number == 0 { name.clone() } else { format!("{name}.{number}") });
    let to = (0..).map(free).find(|to| !to.exists()).ok_or(io::ErrorKind::AlreadyExists)?;
    fs::rename(path, &to)?;
    sync_directory(folder)?;
    sync_directory(path.parent().unwrap_or(folder))?;
    Ok(to)
}
