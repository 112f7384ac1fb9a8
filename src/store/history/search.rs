//! Finding stories: by name at once, by terms day by day, newest first.

use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension, Result, Row, params, params_from_iter};

use super::terms::{self, FAILED, What};
use super::values::{Attempt, Chapter, Left, Past, PastDelivery, Story};
use crate::clock::Timestamp;
use crate::mail::{Class, Kind, QueueId};
use crate::smtp::EnhancedStatus;

/// Stories in one answer, at most.
pub const LIMIT_MAX: usize = 200;
/// How long a question may take, about: after that what was found by then is the answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);
/// Attempts of one message that are told, at most: a large message may have twenty deliveries, each tried some hundred times.
const CHAPTERS_MAX: i64 = 2_000;
/// How far it is counted which of several terms is the rarest.
const COUNTED: i64 = 1_000;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Search {
    /// What is searched for.
    pub what: What,
    /// Only messages that came in since then.
    pub since: Option<Timestamp>,
    /// Only messages that failed for somebody.
    pub failed: bool,
    /// Only messages that came in before this one.
    pub before: Option<QueueId>,
    /// At most so many.
    pub limit: usize,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// What fits, newest first.
    pub stories: Vec<Story>,
    /// There may be more that came in before this one.
    pub next: Option<QueueId>,
}

/// Answers a question.
pub(super) fn find(connection: &Connection, search: &Search) -> Result<Found> {
    if let What::Message(id) = &search.what {
        if let Some(story) = story(connection, *id)? {
            return Ok(Found { stories: vec![story], next: None });
        }
        // Thirteen letters may be a word as well.
        return find(connection, &Search { what: What::words(&id.to_string()), ..search.clone() });
    }
    Query { connection, search, until: Instant::now() + PATIENCE }.run()
}

struct Query<'q> {
    connection: &'q Connection,
    search: &'q Search,
    until: Instant,
}

impl Query<'_> {
    fn run(&self) -> Result<Found> {
        let wanted: &[String] = if let What::Terms(terms) = &self.search.what { terms } else { &[] };
        let mut hashes: Vec<i64> = wanted.iter().map(|term| terms::hash(term)).collect();
        hashes.extend(self.search.failed.then(|| terms::hash(FAILED)));
        let bound = |order| {
            let select = format!("SELECT id FROM message ORDER BY id {order} LIMIT 1");
            Ok::<_, rusqlite::Error>(self.connection.query_row(&select, [], |row| row.get(0)).optional()?.and_then(QueueId::from_number))
        };
        let (Some(first), Some(last)) = (bound("ASC")?, bound("DESC")?) else { return Ok(Found::default()) };
        let first = self.search.since.map_or(first, |since| first.max(QueueId::first_at(since)));
        // Behind the last, so that it is among them.
        let mut before = self.search.before.map_or(i64::MAX, QueueId::number).min(last.number().saturating_add(1));
        let mut found = Found::default();
        let mut day = QueueId::from_number(before.saturating_sub(1)).map_or(0, terms::day);
        while day >= terms::day(first) && before > first.number() {
            // One more than is asked for, to know whether more follow.
            let room = self.search.limit.min(LIMIT_MAX) + 1 - found.stories.len();
            let ids = if hashes.is_empty() { self.newest(first, before, room)? } else { self.of_day(day, &hashes, first, before, room)? };
            for id in &ids {
                before = id.number();
                let Some(story) = story(self.connection, *id)? else { continue };
                let terms = terms::of(&story.message);
                if wanted.iter().any(|term| !terms.contains(term)) {
                    continue;
                }
                if found.stories.len() == self.search.limit.min(LIMIT_MAX) {
                    found.next = found.stories.last().map(|story| story.message.id);
                    return Ok(found);
                }
                found.stories.push(story);
            }
            if self.until <= Instant::now() {
                found.next = QueueId::from_number(before);
                return Ok(found);
            }
            // A day that gave as many as were asked for may have more.
            if ids.len() < room {
                if hashes.is_empty() {
                    return Ok(found);
                }
                day -= 1;
            }
        }
        Ok(found)
    }

    fn newest(&self, first: QueueId, before: i64, room: usize) -> Result<Vec<QueueId>> {
        let mut select = self.connection.prepare_cached("SELECT id FROM message WHERE id >= ?1 AND id < ?2 ORDER BY id DESC LIMIT ?3")?;
        let ids = select.query_map(params![first.number(), before, room as i64], |row| row.get(0))?;
        ids.filter_map(|id| id.map(QueueId::from_number).transpose()).collect()
    }

    /// Those of one day that have all the terms, going through the rarest of them.
    fn of_day(&self, day: i64, hashes: &[i64], first: QueueId, before: i64, room: usize) -> Result<Vec<QueueId>> {
        let mut count =
            self.connection.prepare_cached("SELECT count(*) FROM (SELECT 1 FROM term WHERE day = ?1 AND hash = ?2 LIMIT ?3)")?;
        let mut counted = Vec::with_capacity(hashes.len());
        for hash in hashes {
            let rows: i64 = count.query_row([day, *hash, COUNTED], |row| row.get(0))?;
            if rows == 0 {
                return Ok(Vec::new());
            }
            counted.push((rows, *hash));
        }
        counted.sort_unstable();
        let mut select = self.connection.prepare_cached(&select_of_day(hashes.len()))?;
        let parameters = [day, first.number(), before, room as i64].into_iter().chain(counted.iter().map(|(_, hash)| *hash));
        let ids = select.query_map(params_from_iter(parameters), |row| row.get(0))?;
        ids.filter_map(|id| id.map(QueueId::from_number).transpose()).collect()
    }
}

/// The messages of day ?1 between ?2 and ?3 that have the terms ?5, ?6, …, newest first, ?4 at most.
fn select_of_day(terms: usize) -> String {
    let further = (1..terms).map(|i| {
        let parameter = i + 5;
        format!(" AND EXISTS (SELECT 1 FROM term t{i} WHERE t{i}.day = ?1 AND t{i}.hash = ?{parameter} AND t{i}.message = t.message)")
    });
    let further: String = further.collect();
    format!(
        "SELECT t.message FROM term t WHERE t.day = ?1 AND t.hash = ?5 AND t.message >= ?2 AND t.message < ?3{further}
          ORDER BY t.message DESC LIMIT ?4"
    )
}

const SELECT_MESSAGE: &str =
    "SELECT id, accepted_at, kind, client, peer, reverse_path, author, subject, message_id, size, priority, deliveries
                                FROM message WHERE id = ?1";
const SELECT_ATTEMPTS: &str = "SELECT part, started, ended, account, relay, sender, came_to, status, step, reply, ordinals, due
                                 FROM attempt WHERE message = ?1 ORDER BY part, started, n LIMIT ?2";

/// A message with all that happened to it.
pub(super) fn story(connection: &Connection, id: QueueId) -> Result<Option<Story>> {
    let Some(message) = connection.prepare_cached(SELECT_MESSAGE)?.query_row([id.number()], past).optional()? else { return Ok(None) };
    let mut select = connection.prepare_cached(SELECT_ATTEMPTS)?;
    let chapters = select.query_map([id.number(), CHAPTERS_MAX], chapter)?.collect::<Result<_>>()?;
    Ok(Some(Story { message, chapters }))
}

const SELECT_SETTLED: &str = "SELECT part, came_to, ordinals FROM attempt WHERE message = ?1 AND came_to NOT IN ('deferred', 'in-doubt')";

/// The recipients of a message of whom it is known what became of them for good. No message has an address twice.
pub(super) fn settled(connection: &Connection, id: QueueId) -> Result<Vec<(String, Left)>> {
    let Some(message) = connection.prepare_cached(SELECT_MESSAGE)?.query_row([id.number()], past).optional()? else {
        return Ok(Vec::new());
    };
    let mut select = connection.prepare_cached(SELECT_SETTLED)?;
    let mut rows = select.query([id.number()])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let (part, left): (u16, _) = (row.get(0)?, row.get_ref(1)?.as_str()?.parse());
        let (Some(delivery), Ok(left)) = (message.deliveries.iter().find(|delivery| delivery.part == part), left) else { continue };
        let address = |ordinal: u16| delivery.recipients.get(usize::from(ordinal)).cloned().flatten();
        found.extend(ordinals(row.get_ref(2)?.as_str()?).into_iter().filter_map(address).map(|address| (address, left)));
    }
    Ok(found)
}

fn past(row: &Row) -> Result<Past> {
    let number: i64 = row.get(0)?;
    Ok(Past {
        id: QueueId::from_number(number).ok_or(rusqlite::Error::IntegralValueOutOfRange(0, number))?,
        accepted_at: Timestamp::from_millis(row.get(1)?),
        kind: if row.get_ref(2)?.as_str()? == "notice" { Kind::Notice } else { Kind::Mail },
        client: row.get(3)?,
        peer: row.get(4)?,
        reverse_path: row.get(5)?,
        author: row.get(6)?,
        subject: row.get(7)?,
        message_id: row.get(8)?,
        size: row.get::<_, i64>(9)?.unsigned_abs(),
        priority: row.get(10)?,
        deliveries: deliveries(row.get_ref(11)?.as_str()?),
    })
}

fn chapter(row: &Row) -> Result<Chapter> {
    let answer = Attempt {
        left: row.get_ref(6)?.as_str()?.parse().unwrap_or(Left::Deferred),
        // What this version cannot read is of the class that says the least (RFC 3463 §3.1).
        status: row.get_ref(7)?.as_str()?.parse().unwrap_or(EnhancedStatus::new(4, 0, 0)),
        step: row.get(8)?,
        reply: row.get(9)?,
        ordinals: ordinals(row.get_ref(10)?.as_str()?),
        due: row.get::<_, Option<_>>(11)?.map(Timestamp::from_millis),
    };
    Ok(Chapter {
        part: row.get(0)?,
        started: Timestamp::from_millis(row.get(1)?),
        ended: Timestamp::from_millis(row.get(2)?),
        account: row.get(3)?,
        relay: row.get(4)?,
        sender: row.get(5)?,
        answer,
    })
}

/// Deliveries as they are written in the table; of what cannot be read nothing is known.
pub(super) fn deliveries(text: &str) -> Vec<PastDelivery> {
    let rows: Vec<(u16, String, String, Vec<Option<String>>)> = serde_json::from_str(text).unwrap_or_default();
    let delivery = |(part, class, route, recipients): (u16, String, String, Vec<Option<String>>)| {
        let class = if class == Class::External.as_str() { Class::External } else { Class::Internal };
        PastDelivery { part, class, route, recipients }
    };
    rows.into_iter().map(delivery).collect()
}

/// Numbers from `0-3,7`.
pub(super) fn ordinals(text: &str) -> Vec<u16> {
    let run = |run: &str| {
        let (first, last) = run.split_once('-').unwrap_or((run, run));
        Some(first.parse::<u16>().ok()?..=last.parse().ok()?)
    };
    text.split(',').filter_map(run).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::super::tables;
    use super::*;

    #[test]
    fn no_question_goes_through_a_whole_table() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let connection = tables::open(&temp.path().join("history.db")).expect("opened");
        let plan = |select: &str| -> Vec<String> {
            let mut select = connection.prepare(&format!("EXPLAIN QUERY PLAN {select}")).expect("prepared");
            let mut steps = Vec::new();
            let mut rows = select.raw_query();
            while let Some(row) = rows.next().expect("a plan") {
                steps.push(row.get(3).expect("text"));
            }
            steps
        };
        for select in [&select_of_day(1), &select_of_day(3), SELECT_MESSAGE, SELECT_ATTEMPTS, SELECT_SETTLED] {
            let steps = plan(select);
            assert!(!steps.is_empty());
            let wrong = steps.iter().find(|step| step.starts_with("SCAN") && !step.contains("CONSTANT") || step.contains("TEMP B-TREE"));
            assert_eq!(wrong, None, "{select}: {steps:?}");
        }
        assert!(plan(&select_of_day(2)).iter().all(|step| step.contains("PRIMARY KEY") || step.contains("SUBQUERY")));
    }
}
