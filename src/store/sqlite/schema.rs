//! The database's tables, how a connection is set up, and which version of the tables this program reads.
//!
//! The tables are meant to be read with `sqlite3 -readonly queue.db` too: `SELECT * FROM queue` shows what waits. Times are milliseconds since
//! the Unix epoch, UTC. The schema's version is `PRAGMA user_version`; a newer one than [`VERSION`] is refused, an older one is brought up.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::OpenError;

/// The version of the tables below.
const VERSION: i64 = 1;
/// How long a statement waits for another process, such as an operator's shell, to let go of the database.
const BUSY: Duration = Duration::from_secs(5);
/// More statements than there are in this store.
const STATEMENTS: usize = 64;

/// The tables of version 1.
fn tables() -> String {
    format!(
        "
-- What was accepted. It never changes; it goes when its last delivery is settled.
CREATE TABLE message (
    id           INTEGER PRIMARY KEY,
    queue_id     TEXT NOT NULL AS ({queue_id}) VIRTUAL,
    accepted_at  INTEGER NOT NULL,
    kind         TEXT NOT NULL CHECK (kind IN ('mail', 'notice')),
    client       TEXT NOT NULL,
    peer         TEXT,
    reverse_path TEXT NOT NULL,  -- empty for <>
    author       TEXT,
    subject      TEXT NOT NULL,
    message_id   TEXT NOT NULL,
    size         INTEGER NOT NULL,
    eight_bit    INTEGER NOT NULL,
    smtputf8     INTEGER NOT NULL,
    stored_in    TEXT NOT NULL CHECK (stored_in IN ('row', 'file'))  -- file: content/<characters 7 and 8>/<queue id>.eml
) STRICT;

-- The octets of messages stored in a row, apart from the messages so that these are read fast.
CREATE TABLE content (
    message INTEGER PRIMARY KEY REFERENCES message,
    octets  BLOB NOT NULL
) STRICT;

-- The recipients of a message that travel together.
CREATE TABLE delivery (
    message  INTEGER NOT NULL REFERENCES message,
    part     INTEGER NOT NULL,
    route    TEXT NOT NULL,
    class    TEXT NOT NULL CHECK (class IN ('internal', 'external')),
    attempts INTEGER NOT NULL,
    due      INTEGER NOT NULL,
    account  TEXT,     -- while an attempt is under way: on which account
    started  INTEGER,  -- and since when; found set after a crash, the attempt's end is not known
    PRIMARY KEY (message, part)
) STRICT, WITHOUT ROWID;

-- Those that are not settled yet.
CREATE TABLE recipient (
    message INTEGER NOT NULL,
    part    INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    address TEXT NOT NULL,
    PRIMARY KEY (message, part, ordinal),
    FOREIGN KEY (message, part) REFERENCES delivery
) STRICT, WITHOUT ROWID;

-- The highest id ever given out, so that none is given twice although messages go.
CREATE TABLE newest (
    message INTEGER NOT NULL
) STRICT;
INSERT INTO newest VALUES (-1);

-- For people.
CREATE VIEW queue AS
SELECT queue_id || '.' || part AS delivery,
       strftime('%Y-%m-%dT%H:%M:%SZ', accepted_at / 1000, 'unixepoch') AS accepted,
       strftime('%Y-%m-%dT%H:%M:%SZ', due / 1000, 'unixepoch') AS next_attempt,
       client, route, class, attempts, account AS attempt_on,
       (SELECT count(*) FROM recipient r WHERE (r.message, r.part) = (d.message, d.part)) AS recipients,
       size, reverse_path, subject
  FROM delivery d JOIN message m ON m.id = d.message
 ORDER BY d.message, d.part;
",
        queue_id = queue_id_expression()
    )
}

/// The text of a queue id from its number (see [`crate::mail::QueueId`]); computed when it is read, so it takes no room.
fn queue_id_expression() -> String {
    let digit = |i: u32| format!("substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', ((id >> {}) & 31) + 1, 1)", 5 * (12 - i));
    (0..13).map(digit).collect::<Vec<_>>().join(" || ")
}

/// Opens the database for writing, and creates or brings up its tables.
///
/// # Errors
/// If it cannot be opened, is damaged, or was written by a newer version.
pub(super) fn open(path: &Path) -> Result<Connection, OpenError> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)?;
    // The first must come before the database has anything in it; on one that has, it changes nothing.
    connection.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA cache_size = -8192;
         PRAGMA journal_size_limit = 67108864;
         PRAGMA wal_autocheckpoint = 0;",
    )?;
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    match found {
        VERSION => {}
        0 => connection.execute_batch(&format!("BEGIN IMMEDIATE; {} PRAGMA user_version = {VERSION}; COMMIT;", tables()))?,
        _ => return Err(OpenError::Version { path: path.to_owned(), found, known: VERSION }),
    }
    Ok(connection)
}

/// Opens the database for reading only.
///
/// # Errors
/// As SQLite has them.
pub(super) fn open_for_reading(path: &Path) -> rusqlite::Result<Connection> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
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
        let mut select = connection.prepare("SELECT delivery, accepted, recipients FROM queue").expect("the view");
        let shown = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).expect("run");
        let shown: Vec<(String, String, i64)> = shown.collect::<Result<_, _>>().expect("read");
        let accepted = "2026-11-21T18:31:21Z".to_owned();
        assert_eq!(shown, [("0000000000007.1".into(), accepted.clone(), 2), ("0000000000007.2".into(), accepted, 1)]);
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
                .execute("INSERT INTO message VALUES (?1, 0, 'mail', 'c', NULL, '', NULL, '', '', 0, 0, 0, 'row')", [number])
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
        open(&path).expect("created").execute_batch("PRAGMA user_version = 9").expect("set");
        let refusal = open(&path).expect_err("newer").to_string();
        assert!(refusal.contains("version 9") && refusal.contains("version 1"), "{refusal}");
    }
}
