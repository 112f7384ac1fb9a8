//! What goes: what is older than it is kept for, and the oldest where there is more than there may be.
//!
//! One step removes some hundred messages with all that belongs to them, by ranges of the primary keys: a few milliseconds. The tables are
//! ordered by time, so what goes lies together.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Result, params};

use super::terms;
use crate::clock::Timestamp;
use crate::mail::QueueId;

/// Messages that one step removes, at most.
const MESSAGES: i64 = 250;
/// Attempts, or terms, that one step removes, at most.
const ROWS: i64 = 2_000;

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// For how long.
    pub keep: Duration,
    /// In how many octets.
    pub size: u64,
    /// Octets of the file system that the queue is to have for itself.
    pub reserve: u64,
}

/// Removes some of what is to go. Returns whether there may be more.
pub(super) fn step(connection: &Connection, limits: &Limits, now: Timestamp) -> Result<bool> {
    let mut end = QueueId::first_at(now - limits.keep);
    if size(connection)? > limits.size {
        // Whatever the oldest are.
        let select = "SELECT id FROM message ORDER BY id LIMIT 1 OFFSET ?1";
        let further: Option<i64> = connection.prepare_cached(select)?.query_row([MESSAGES], |row| row.get(0)).optional()?;
        end = further.and_then(QueueId::from_number).map_or(end, |further| end.max(further));
    }
    // Days are pruned only as a whole: a term is worth nothing without its message, and nothing is found that has none.
    let (end, day) = (end.number(), terms::day(end));
    let pruned = [
        range(
            connection,
            "SELECT id FROM message WHERE id < ?1 ORDER BY id LIMIT 1 OFFSET ?2",
            "DELETE FROM message WHERE id < ?1",
            end,
            MESSAGES,
        )?,
        range(
            connection,
            "SELECT message FROM attempt WHERE message < ?1 ORDER BY message LIMIT 1 OFFSET ?2",
            "DELETE FROM attempt WHERE message < ?1",
            end,
            ROWS,
        )?,
        old_terms(connection, day)?,
    ];
    Ok(pruned.contains(&true))
}

/// Octets of what is in the database.
pub(super) fn size(connection: &Connection) -> Result<u64> {
    let number = |pragma| connection.prepare_cached(pragma)?.query_row([], |row| row.get::<_, i64>(0));
    let pages = number("PRAGMA page_count")? - number("PRAGMA freelist_count")?;
    Ok(u64::try_from(pages * number("PRAGMA page_size")?).unwrap_or(0))
}

/// Removes rows from the beginning of a table up to `end`: about so many.
fn range(connection: &Connection, select: &str, delete: &str, end: i64, rows: i64) -> Result<bool> {
    let further: Option<i64> = connection.prepare_cached(select)?.query_row([end, rows], |row| row.get(0)).optional()?;
    // A message with more attempts than that is one.
    let end = further.map_or(end, |further| (further + 1).min(end));
    Ok(connection.prepare_cached(delete)?.execute([end])? > 0)
}

fn old_terms(connection: &Connection, day: i64) -> Result<bool> {
    let select = "SELECT day, hash, message FROM term WHERE day < ?1 ORDER BY day, hash, message LIMIT 1 OFFSET ?2";
    let last: Option<(i64, i64, i64)> =
        connection.prepare_cached(select)?.query_row([day, ROWS], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
    let removed = match last {
        Some((day, hash, message)) => connection
            .prepare_cached("DELETE FROM term WHERE (day, hash, message) <= (?1, ?2, ?3)")?
            .execute(params![day, hash, message])?,
        None => connection.prepare_cached("DELETE FROM term WHERE day < ?1")?.execute([day])?,
    };
    Ok(removed > 0)
}
