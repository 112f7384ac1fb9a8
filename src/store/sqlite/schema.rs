//! How the database is opened, a connection set up, and the tables brought to the version that this program reads.
//!
//! The tables (`versions`) are meant to be read with `sqlite3 -readonly queue.db` too: `SELECT * FROM queue` shows what waits. Their version is
//! `PRAGMA user_version`. A newer one than [`VERSION`] is refused. An older one is brought up in one transaction, after a copy of the database
//! was left beside it (`queue.db.v1`), which is there for good: who goes back to the older program goes back to that, and sends again what
//! has been sent since. Contents that have files of their own are not in the copy.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::OpenError;
use super::place::{create_file, sync_directory};
use super::versions::{self, VERSION};

/// How long a statement waits for another process, such as an operator's shell, to let go of the database.
const BUSY: Duration = Duration::from_secs(5);
/// More statements than there are in this store.
const STATEMENTS: usize = 64;

/// Opens the database for writing, and creates or brings up its tables.
///
/// # Errors
/// If it cannot be opened, is damaged, or was written by a newer version.
pub(super) fn open(path: &Path) -> Result<Connection, OpenError> {
    let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
    // Before anything is written: even to set the connection up may do that.
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if !(0..=VERSION).contains(&found) {
        return Err(OpenError::Version { path: path.to_owned(), found, known: VERSION });
    }
    // The first must come before the database has anything in it; on one that has, it changes nothing.
    connection.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA cache_size = -8192;
         PRAGMA journal_size_limit = 67108864;
         PRAGMA wal_autocheckpoint = 0;",
    )?;
    if (1..VERSION).contains(&found) {
        let copy = path.with_extension(format!("db.v{found}"));
        keep_copy(&connection, &copy).map_err(|source| OpenError::Copy { path: copy, source })?;
    }
    if found < VERSION {
        versions::bring_up(&mut connection, found)?;
    }
    Ok(connection)
}

/// Writes all that is in the database to a file of its own, durably, in place of the one that an earlier try may have left.
fn keep_copy(connection: &Connection, copy: &Path) -> io::Result<()> {
    let part = copy.with_added_extension("part");
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // SQLite fills a file that is there and empty, and leaves it for the owner alone.
    let file = create_file(&part)?;
    let written = connection.execute("VACUUM INTO ?1", [part.to_string_lossy()]).map_err(io::Error::other);
    if let Err(error) = written.and_then(|_| file.sync_all()) {
        // The next try would remove it as well.
        let _ = fs::remove_file(&part);
        return Err(error);
    }
    fs::rename(&part, copy)?;
    sync_directory(copy.parent().unwrap_or(Path::new(".")))
}

/// Opens the database for reading only.
///
/// # Errors
/// As SQLite has them.
pub(super) fn open_for_reading(path: &Path) -> rusqlite::Result<Connection> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

/// Whether a database that is only read is of this program's version.
///
/// # Errors
/// If it is of another.
pub(super) fn check_version(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    match connection.query_row("PRAGMA user_version", [], |row| row.get(0))? {
        VERSION => Ok(()),
        found if (1..VERSION).contains(&found) => Err(OpenError::Older { path: path.to_owned(), found, known: VERSION }),
        found => Err(OpenError::Version { path: path.to_owned(), found, known: VERSION }),
    }
}

fn connect(path: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    // Without it SQLite, built with STAT4, prepares many statements anew each time that their parameters change, to look at the values. There
    // are no statistics here that it could hold them against, and it costs more than running them.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.execute_batch("PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; PRAGMA temp_store = MEMORY;")?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::super::samples;
    use super::super::statements::{self, Stored};
    use super::*;
    use crate::mail::QueueId;

    #[test]
    fn is_set_up_as_promised() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let connection = open(&temp.path().join("queue.db")).expect("opened");
        let pragma = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
        for (name, value) in [("auto_vacuum", 2), ("synchronous", 2), ("foreign_keys", 1), ("trusted_schema", 0)] {
            assert_eq!(pragma(name), Ok(value), "{name}");
        }
        let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).expect("a mode");
        assert_eq!(mode, "wal");
    }

    #[test]
    fn shows_people_what_waits() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let connection = open(&temp.path().join("queue.db")).expect("opened");
        let (message, deliveries) = samples::message(7, &[2, 1]);
        statements::accept(&connection, &message, &deliveries, Stored::Row(b"text")).expect("inserted");
        statements::hold(&connection, &[deliveries[1].id], true).expect("held");
        let mut select =
            connection.prepare("SELECT delivery, accepted, recipients, priority, held, last_reply FROM queue").expect("the view");
        let shown = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?)));
        let shown: Vec<(String, String, i64, String, bool, String)> = shown.expect("run").collect::<Result<_, _>>().expect("read");
        let line = |delivery: &str, recipients, held| {
            (delivery.into(), "2026-11-21T18:31:21Z".into(), recipients, "high".into(), held, String::new())
        };
        assert_eq!(shown, [line("0000000000007.1", 2, false), line("0000000000007.2", 1, true)]);
    }

    #[test]
    fn a_statement_is_prepared_once_whatever_its_parameters() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let writing = open(&temp.path().join("queue.db")).expect("opened");
        let reading = open_for_reading(&temp.path().join("queue.db")).expect("opened");
        for connection in [writing, reading] {
            let mut select = connection.prepare("SELECT ordinal FROM recipient WHERE message = ?1 AND part = ?2").expect("prepared");
            for message in 0..10 {
                assert!(!select.exists([message, 1]).expect("run"));
            }
            assert_eq!(select.get_status(StatementStatus::RePrepare), 0);
        }
    }

    #[test]
    fn shows_queue_ids_as_the_log_does() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let connection = open(&temp.path().join("queue.db")).expect("opened");
        for number in [0, 31, 32, 911_000_123_456_789, i64::MAX] {
            connection
                .execute(
                    "INSERT INTO message (id, accepted_at, kind, client, reverse_path, subject, message_id, size, eight_bit, smtputf8, stored_in)
                     VALUES (?1, 0, 'mail', 'c', '', '', '', 0, 0, 0, 'row')",
                    [number],
                )
                .expect("inserted");
            let text: String =
                connection.query_row("SELECT queue_id FROM message WHERE id = ?1", [number], |row| row.get(0)).expect("computed");
            assert_eq!(Some(text), QueueId::from_number(number).map(|id| id.to_string()));
        }
    }

    #[test]
    fn refuses_the_tables_of_a_newer_version() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let path = temp.path().join("queue.db");
        for foreign in [VERSION + 1, 9, -1] {
            let connection = open(&path).expect("created");
            connection.pragma_update(None, "user_version", foreign).expect("set");
            let refusal = open(&path).expect_err("newer").to_string();
            assert!(refusal.contains(&format!("version {foreign}, ")) && refusal.contains(&format!("version {VERSION};")), "{refusal}");
            connection.pragma_update(None, "user_version", VERSION).expect("set back");
        }
    }

    #[test]
    fn an_upgrade_that_fails_changes_nothing_and_can_be_tried_again() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let path = temp.path().join("queue.db");
        fs::write(&path, include_bytes!("../../../tests/store/v1.db")).expect("written");
        let tables = |path: &Path| -> Vec<String> {
            let connection = Connection::open(path).expect("opened");
            let mut select = connection.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").expect("tables");
            select.query_map([], |row| row.get(0)).expect("run").collect::<Result<_, _>>().expect("read")
        };
        let count = |path: &Path| -> i64 {
            Connection::open(path).and_then(|it| it.query_row("SELECT count(*) FROM recipient", [], |row| row.get(0))).expect("a count")
        };
        // Without a copy nothing is begun.
        let (copy, before) = (path.with_extension("db.v1"), tables(&path));
        fs::create_dir(&copy).expect("in the way");
        assert!(matches!(open(&path), Err(OpenError::Copy { .. })));
        assert_eq!(tables(&path), before);
        fs::remove_dir(&copy).expect("removed");

        // Something is in the way of the last table.
        Connection::open(&path).expect("opened").execute_batch("CREATE TABLE anchor (x)").expect("created");
        let before = tables(&path);
        assert!(matches!(open(&path), Err(OpenError::Database(_))));
        assert_eq!(tables(&path), before);

        Connection::open(&path).expect("opened").execute_batch("DROP TABLE anchor").expect("dropped");
        let connection = open(&path).expect("brought up");
        assert_eq!(connection.query_row("PRAGMA user_version", [], |row| row.get(0)), Ok(VERSION));
        assert_eq!(Connection::open(&copy).and_then(|it| it.query_row("PRAGMA user_version", [], |row| row.get(0))), Ok(1));
        assert!(!tables(&copy).iter().any(|table| table.contains("anchor")), "the copy is of the second try");
        assert_eq!((count(&copy), count(&path)), (10, 10));

        let new = temp.path().join("new.db");
        open(&new).expect("created");
        assert_eq!(tables(&path), tables(&new), "brought up or new, the tables are the same");
    }
}
