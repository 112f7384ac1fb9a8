//! The history's tables. They are meant to be read with `sqlite3 -readonly history.db` too. Times are milliseconds since the Unix epoch, UTC.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Result};

use super::OpenError;

/// The version of the tables, which is `PRAGMA user_version`.
const VERSION: i64 = 1;
/// How long a statement waits for another process, such as an operator's shell, to let go of the database.
const BUSY: Duration = Duration::from_secs(5);

const TABLES: &str = "
CREATE TABLE message (
    id           INTEGER PRIMARY KEY,  -- the queue id's number
    accepted_at  INTEGER NOT NULL,
    kind         TEXT NOT NULL,
    client       TEXT NOT NULL,
    peer         TEXT,
    reverse_path TEXT NOT NULL,        -- empty for <>
    author       TEXT,
    subject      TEXT NOT NULL,
    message_id   TEXT NOT NULL,
    size         INTEGER NOT NULL,
    priority     TEXT NOT NULL,
    deliveries   TEXT NOT NULL,        -- JSON: [[part, class, route, [address, ...]], ...]
    whole        INTEGER NOT NULL      -- 0: written by an attempt, as the acceptance was not remembered; deliveries may be missing
) STRICT;

-- Each attempt has one row for each different answer.
CREATE TABLE attempt (
    message  INTEGER NOT NULL,
    part     INTEGER NOT NULL,
    started  INTEGER NOT NULL,
    n        INTEGER NOT NULL,
    ended    INTEGER NOT NULL,
    account  TEXT NOT NULL,     -- empty: it was no attempt
    relay    TEXT NOT NULL,
    sender   TEXT NOT NULL,     -- empty: as it was
    class    TEXT NOT NULL,
    came_to  TEXT NOT NULL,     -- sent, deferred, failed, expired, removed or in-doubt
    status   TEXT NOT NULL,
    step     TEXT NOT NULL,
    reply    TEXT NOT NULL,
    ordinals TEXT NOT NULL,     -- places in the delivery, such as 0-3,7
    due      INTEGER,
    PRIMARY KEY (message, part, started, n)
) STRICT, WITHOUT ROWID;

-- By what a message can be found: see the source, store/history/terms.rs.
CREATE TABLE term (
    day     INTEGER NOT NULL,
    hash    INTEGER NOT NULL,
    message INTEGER NOT NULL,
    PRIMARY KEY (day, hash, message)
) STRICT, WITHOUT ROWID;
";

/// Opens the database for writing, and creates its tables.
///
/// # Errors
/// If it cannot be opened, is damaged, or was written by a newer version.
pub(super) fn open(path: &Path) -> std::result::Result<Connection, OpenError> {
    let failed = |source| OpenError::Database { path: path.to_owned(), source };
    // Whose mail it was is nobody else's business; SQLite gives the log the mode of the database. Where there can be no file, it will say why.
    let _ = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE).map_err(failed)?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(failed)?;
    if !(0..=VERSION).contains(&found) {
        return Err(OpenError::Version { path: path.to_owned(), found, known: VERSION });
    }
    set_up(&mut connection, found).map_err(failed)?;
    Ok(connection)
}

fn set_up(connection: &mut Connection, found: i64) -> Result<()> {
    // NORMAL: a commit is not synced, a checkpoint is. What is there after a power cut is whole, and at most so much older.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = NORMAL;
         PRAGMA cache_size = -16384;
         PRAGMA journal_size_limit = 67108864;
         PRAGMA wal_autocheckpoint = 0;",
    )?;
    if found == 0 {
        let transaction = connection.transaction()?;
        transaction.execute_batch(TABLES)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Opens the database for reading only.
///
/// # Errors
/// As SQLite has them.
pub(super) fn open_for_reading(path: &Path) -> Result<Connection> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

fn connect(path: &Path, access: OpenFlags) -> Result<Connection> {
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    // As for the queue: without it many statements would be prepared anew each time that their parameters change.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY;")?;
    Ok(connection)
}
