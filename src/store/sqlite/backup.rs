//! A backup of a data directory, while the relay runs or not: the queue as it is at one moment, the contents that belong to it, and the history.
//!
//! The databases are copied by SQLite's online backup within one read transaction, so that what is written meanwhile is not in the copy and does not
//! begin it anew. Contents are copied after that: a file never changes once it has its name, and one that is gone by then belonged to a message
//! that has left meanwhile, which then leaves the copy too. What is copied is read back, and a manifest written at the very end.
//!
//! Limit: while the queue is copied its log grows, because it cannot be begun anew under a reader.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::manifest::{Manifest, NotABackup};
use super::place::{Place, create_file, private_directories, sync_directory};
use super::{read, schema, versions};
use crate::clock::Clock;
use crate::mail::QueueId;

/// Pages in one step: some 4 MB.
const PAGES: i32 = 1_024;
/// Columns of what a database says of its own integrity; it says `ok` or what is wrong.
const INTEGRITY: &str = "PRAGMA integrity_check(10)";

/// Why there is no backup. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is nothing to be copied.
    #[error("{} has no queue.db: is this the data directory of a relay that has run?", _0.display())]
    NoQueue(PathBuf),
    /// Something is there already.
    #[error("{} is there and not empty: name a folder that is not there yet", _0.display())]
    NotEmpty(PathBuf),
    /// The queue is of a newer version.
    #[error("{} has tables of version {found}, and this program knows version {known}: make the backup with the newer hve-relay", path.display())]
    Version {
        /// The database.
        path: PathBuf,
        /// The version that it has.
        found: i64,
        /// The newest that is understood.
        known: i64,
    },
    /// A database is damaged.
    #[error("{} is damaged: {what}. `hve-relay fsck` says more", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What SQLite says.
        what: String,
    },
    /// Reading or writing failed.
    #[error("{}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A database cannot be read or written.
    #[error("{}: {source}", path.display())]
    Database {
        /// Which.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// What was written cannot be read back.
    #[error("what was written cannot be read back: {0}")]
    Verify(#[from] NotABackup),
}

/// What a backup has, and what it could not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// What is in it.
    pub manifest: Manifest,
    /// The history is in it.
    pub history: bool,
    /// Messages that left while it was made, and are not in it.
    pub left: u64,
    /// Queued messages whose content was not there, as `fsck` would find them. They are in it as they are.
    pub damaged: Vec<QueueId>,
}

/// Makes a backup of a data directory in a folder that is not there yet, or empty. `told` hears what is being done, in octets or pages.
///
/// # Errors
/// Then there is no manifest in the folder, and it is no backup.
pub fn backup(data_dir: &Path, to: &Path, history: bool, mut told: impl FnMut(&str, u64, u64)) -> Result<Made, BackupError> {
    let place = Place::at(data_dir);
    if !place.database().is_file() {
        return Err(BackupError::NoQueue(data_dir.to_owned()));
    }
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| BackupError::File { path, source }
    };
    private_directories(to).map_err(file(to))?;
    if fs::read_dir(to).map_err(file(to))?.next().is_some() {
        return Err(BackupError::NotEmpty(to.to_owned()));
    }
    let copy = Place::at(to);
    let taken_at = Clock::wall().as_millis();
    copy_database(&place.database(), &copy.database(), |done, all| told("queue", done, all))?;
    let mut names = vec!["queue.db".to_owned()];
    let contents = contents(&place, &copy, |done, all| told("contents", done, all))?;
    names.extend(contents.names);
    let has_history = history && data_dir.join("history.db").is_file();
    if has_history {
        copy_database(&data_dir.join("history.db"), &to.join("history.db"), |done, all| told("history", done, all))?;
        names.push("history.db".to_owned());
    }
    sync_directory(to).map_err(file(to))?;
    let manifest = Manifest::of(to, &names, taken_at, contents.counts).map_err(file(to))?;
    manifest.write(to).map_err(file(to))?;
    told("reading back", 0, names.len() as u64);
    Manifest::verify(to, |_| {})?;
    // The folder's own name.
    sync_directory(to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))).map_err(file(to))?;
    Ok(Made { manifest, history: has_history, left: contents.left, damaged: contents.damaged })
}

/// Copies a database as it is at this moment, checks the copy, and makes it durable.
pub(super) fn copy_database(from: &Path, to: &Path, mut told: impl FnMut(u64, u64)) -> Result<(), BackupError> {
    let of = |path: &Path| {
        let path = path.to_owned();
        move |source| BackupError::Database { path, source }
    };
    let io = |source| BackupError::File { path: to.to_owned(), source };
    let source = schema::open_for_reading(from).map_err(of(from))?;
    // From here on the source is as it is now, for this connection.
    source
        .execute_batch("BEGIN")
        .and_then(|()| source.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())))
        .map_err(of(from))?;
    let file = create_file(to).map_err(io)?;
    let mut copy = Connection::open(to).map_err(of(to))?;
    {
        let backup = Backup::new(&source, &mut copy).map_err(of(to))?;
        loop {
            let step = backup.step(PAGES).map_err(of(to))?;
            let progress = backup.progress();
            told((progress.pagecount - progress.remaining) as u64, progress.pagecount as u64);
            match step {
                StepResult::Done => break,
                StepResult::More => {}
                // Neither end is anybody else's to lock.
                _ => std::thread::sleep(std::time::Duration::from_millis(50)),
            }
        }
    }
    // One file, without a log beside it.
    copy.query_row("PRAGMA journal_mode = DELETE", [], |_| Ok(())).map_err(of(to))?;
    let verdict: String = copy.query_row(INTEGRITY, [], |row| row.get(0)).map_err(of(to))?;
    if verdict != "ok" {
        return Err(BackupError::Damaged { path: from.to_owned(), what: verdict });
    }
    drop(copy);
    file.sync_all().map_err(io)
}

struct Contents {
    names: Vec<String>,
    counts: (u64, u64),
    left: u64,
    damaged: Vec<QueueId>,
}

/// Copies the contents that the copied queue names.
fn contents(place: &Place, copy: &Place, mut told: impl FnMut(u64, u64)) -> Result<Contents, BackupError> {
    let database = copy.database();
    let of = |source| BackupError::Database { path: database.clone(), source };
    let connection = Connection::open(&database).map_err(of)?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(of)?;
    if !(1..=versions::VERSION).contains(&found) {
        return Err(BackupError::Version { path: place.database(), found, known: versions::VERSION });
    }
    let in_files = read::in_files(&connection).map_err(of)?;
    let all = in_files.len() as u64;
    let (mut names, mut left, mut damaged) = (Vec::new(), 0, Vec::new());
    for (done, (id, size)) in in_files.into_iter().enumerate() {
        told(done as u64, all);
        let (from, to) = (place.content_of(id), copy.content_of(id));
        match copy_file(&from, &to) {
            Ok(copied) => {
                names.push(Place::name_of(id));
                if copied != size {
                    damaged.push(id);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if is_queued(place, id)? {
                    damaged.push(id);
                } else {
                    forget(&connection, id).map_err(of)?;
                    left += 1;
                }
            }
            Err(source) => return Err(BackupError::File { path: from, source }),
        }
    }
    let count = |what: &str| connection.query_row(&format!("SELECT count(*) FROM {what}"), [], |row| row.get::<_, i64>(0));
    let counts = (count("message").map_err(of)? as u64, count("delivery").map_err(of)? as u64);
    drop(connection);
    Ok(Contents { names, counts, left, damaged })
}

/// Copies a file durably; returns its length.
pub(super) fn copy_file(from: &Path, to: &Path) -> io::Result<u64> {
    let mut source = fs::File::open(from)?;
    let mut file = create_file(to)?;
    let copied = io::copy(&mut source, &mut file)?;
    file.sync_all()?;
    sync_directory(to.parent().unwrap_or(to))?;
    Ok(copied)
}

/// Whether a message is in the queue now.
fn is_queued(place: &Place, id: QueueId) -> Result<bool, BackupError> {
    let of = |source| BackupError::Database { path: place.database(), source };
    let connection = schema::open_for_reading(&place.database()).map_err(of)?;
    let mut select = connection.prepare("SELECT 1 FROM message WHERE id = ?1").map_err(of)?;
    select.exists([id.number()]).map_err(of)
}

/// Removes a message from a queue that nobody uses.
pub(super) fn forget(connection: &Connection, id: QueueId) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    for statement in [
        "DELETE FROM recipient WHERE message = ?1",
        "DELETE FROM delivery WHERE message = ?1",
        "DELETE FROM content WHERE message = ?1",
        "DELETE FROM message WHERE id = ?1",
    ] {
        transaction.execute(statement, [id.number()])?;
    }
    transaction.commit()
}
