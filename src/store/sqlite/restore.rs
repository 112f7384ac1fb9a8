//! A backup in place of what is in a data directory. The relay must not run.
//!
//! A backup is older than what it replaces. What it has queued may have left since, so that to send it means that somebody may get it twice: each
//! of its deliveries is marked as in doubt, and held unless the operator wants it sent. What was accepted since is not in it. Budgets are
//! those of the queue that is replaced, if that can still be read, because the backup's would have more free than there is; if not, the caller says.
//!
//! Order: the backup is verified, copied beside the present files (`restore.part`), verified again, and made what it is to be. Then a mark
//! (`restoring`) is set, with which no relay starts; what is there is moved into a folder of its own (`before-restore-…`), the copy is moved
//! into its place, and the mark is removed; each step is durable before the next. If the power goes while the mark is set, restoring once more
//! sets everything right. Nothing that was there is deleted.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, params};

use super::backup::{BackupError, copy_file};
use super::manifest::{Manifest, NotABackup};
use super::place::{Given, Place, create_file, sync_directory};
use super::{OpenError, read, schema, statements};
use crate::clock::Timestamp;
use crate::store::{Anchor, BudgetRow, Ledger, MayHaveLeft};

/// Where the copy is made ready.
pub(super) const STAGE: &str = "restore.part";
/// A database and what SQLite keeps beside it.
const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];

/// What is used of the budgets, and of when that is.
pub type Budgets = (Vec<BudgetRow>, Anchor);

/// Why a backup was not restored. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The folder is not a backup, or not as it was.
    #[error(transparent)]
    NotABackup(#[from] NotABackup),
    /// The data directory or the copied queue cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Copying failed.
    #[error(transparent)]
    Copy(#[from] BackupError),
    /// A file cannot be moved.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl From<rusqlite::Error> for RestoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Open(OpenError::Database(error))
    }
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What the backup said of itself.
    pub manifest: Manifest,
    /// Where that is which was there before, if anything was.
    pub kept: Option<PathBuf>,
    /// The history is the backup's: there was none, or it was damaged.
    pub history: bool,
    /// The queue that was replaced could tell what is used of the budgets.
    pub budgets_known: bool,
}

/// Why what was restored is held.
pub fn from_backup(taken: Timestamp) -> String {
    format!("restored from the backup of {taken}: it may have been delivered since; the message trace tells")
}

/// Restores. `budgets` says what counts as used: it gets the backup's ledger, and what the queue that is replaced has, if that can be read. `told` hears what is being done.
///
/// # Errors
/// Before the mark is set nothing has changed; after that no relay starts until a restore has come to its end.
pub fn restore(
    from: &Path,
    data_dir: &Path,
    mail: MayHaveLeft,
    budgets: impl FnOnce(&Ledger, Option<Budgets>) -> Budgets,
    mut told: impl FnMut(&str),
) -> Result<Restored, RestoreError> {
    // First, so that whoever is in the way is known at once.
    let (place, _lock) = Place::take_unfinished(data_dir)?;
    let _given = Given(data_dir);
    told("verifying the backup");
    Manifest::verify(from, |_| {})?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| RestoreError::File { path, source }
    };
    let stage = data_dir.join(STAGE);
    told("copying");
    let manifest = staged(from, &stage).map_err(failed(&stage))?;
    let manifest = Manifest::verify(&stage, |_| {}).map(|_| manifest)?;
    told("marking what may have left");
    let present = present_budgets(&place);
    let budgets_known = present.is_some();
    adapt(&stage, mail, manifest.taken_at, |ledger| budgets(ledger, present))?;
    let has_history = stage.join("history.db").is_file();
    let history = has_history && !is_sound(&data_dir.join("history.db"));

    told("moving it into place");
    let mark = place.restoring();
    create_mark(&mark).map_err(failed(&mark))?;
    let kept = set_aside(data_dir, history).map_err(failed(data_dir))?;
    let mut names = vec!["queue.db", "content"];
    if history {
        names.push("history.db");
    }
    for name in names {
        move_durably(&stage.join(name), &data_dir.join(name)).map_err(failed(&data_dir.join(name)))?;
    }
    fs::remove_file(&mark).and_then(|()| sync_directory(data_dir)).map_err(failed(&mark))?;
    // What is left of the copy is of no use; if it stays, the next restore removes it.
    let _ = fs::remove_dir_all(&stage);
    Ok(Restored { manifest, kept, history, budgets_known })
}

/// Copies the backup beside the present files.
fn staged(from: &Path, stage: &Path) -> io::Result<Manifest> {
    match fs::remove_dir_all(stage) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    DirBuilder::new().mode(0o700).create(stage)?;
    DirBuilder::new().mode(0o700).create(stage.join("content"))?;
    let manifest = Manifest::verify(from, |_| {}).map_err(io::Error::other)?;
    for name in manifest.names() {
        copy_file(&from.join(name), &stage.join(name))?;
    }
    manifest.write(stage)?;
    Ok(manifest)
}

/// What is used of the budgets now, if the queue that is replaced can tell.
fn present_budgets(place: &Place) -> Option<Budgets> {
    place.database().is_file().then_some(())?;
    let ledger = read::ledger(&schema::open_for_reading(&place.database()).ok()?).ok()?;
    Some((ledger.budget, ledger.anchor?))
}

/// Brings the copied queue up to this version, and makes of it what a queue is that may have been sent already.
fn adapt(stage: &Path, mail: MayHaveLeft, taken_at: i64, budgets: impl FnOnce(&Ledger) -> Budgets) -> Result<(), RestoreError> {
    let connection = schema::open(&Place::at(stage).database())?;
    let (rows, anchor) = budgets(&read::ledger(&connection)?);
    let transaction = connection.unchecked_transaction()?;
    statements::forget_budget(&transaction)?;
    statements::keep_budget(&transaction, rows.iter())?;
    statements::keep_anchor(&transaction, &anchor)?;
    transaction.execute("UPDATE delivery SET doubts = doubts + 1", [])?;
    if mail == MayHaveLeft::Hold {
        let taken = Timestamp::from_millis(taken_at);
        transaction.execute("UPDATE delivery SET held = 1, hold_reason = ?1 WHERE held = 0", params![from_backup(taken)])?;
    }
    transaction.commit()?;
    // One file, to be moved as one.
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(())
}

fn is_sound(database: &Path) -> bool {
    let check = |connection: Connection| connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    database.is_file() && schema::open_for_reading(database).and_then(check).is_ok_and(|verdict| verdict == "ok")
}

fn create_mark(mark: &Path) -> io::Result<()> {
    match create_file(mark) {
        // An earlier restore did not come to its end.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        created => created?.sync_all()?,
    }
    sync_directory(mark.parent().unwrap_or(mark))
}

/// Moves what is there into a folder of its own; returns that, if anything was there.
fn set_aside(data_dir: &Path, history: bool) -> io::Result<Option<PathBuf>> {
    let databases = ["queue.db", "history.db"].into_iter().filter(|name| history || *name == "queue.db");
    let names = databases.flat_map(|name| SUFFIXES.map(|suffix| format!("{name}{suffix}"))).chain(["content".to_owned()]);
    let there: Vec<String> = names.filter(|name| data_dir.join(name).exists()).collect();
    if there.iter().all(|name| name == "content" && fs::read_dir(data_dir.join(name)).is_ok_and(|mut shelves| shelves.next().is_none())) {
        // A directory that was never used has an empty folder, which is in the way.
        let _ = fs::remove_dir(data_dir.join("content"));
        return Ok(None);
    }
    let kept = (1..).map(|number| data_dir.join(format!("before-restore-{number}"))).find(|path| !path.exists());
    let kept = kept.ok_or(io::ErrorKind::AlreadyExists)?;
    DirBuilder::new().mode(0o700).create(&kept)?;
    for name in there {
        fs::rename(data_dir.join(&name), kept.join(&name))?;
    }
    sync_directory(&kept)?;
    sync_directory(data_dir)?;
    Ok(Some(kept))
}

fn move_durably(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_directory(to.parent().unwrap_or(to))
}
