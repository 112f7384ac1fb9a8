//! Reading the queue: on connections of its own, on blocking threads, in short transactions, so that writing never waits for it. Only what an
//! attempt needs is read by the writer, which has those rows in its hands anyway.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Params, Result, Row, params};

use super::place::Place;
use super::{fault, schema};
use crate::clock::Timestamp;
use crate::mail::{
    AccountName, Action, Class, ClientName, Content, Delivery, DeliveryId, Gathered, InDoubt, Kind, Message, Priority, QueueId, Queued,
    Recipient, Reported, RouteName,
};
use crate::smtp::{EnhancedStatus, Mailbox, MessageDsn, RecipientDsn, ReversePath};
use crate::store::{Ailment, AlarmRow, Anchor, BudgetRow, Gathering, Job, Ledger, Listed, StoreError, Suspended};

/// Deliveries read at a time, each on a connection of its own that is then kept; more would only contend for the processors.
pub(super) const AT_ONCE: usize = 4;

/// Connections for reading, opened as they are needed.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, idle: Mutex::default() }
    }

    /// Reads with one of the connections. Blocks.
    ///
    /// # Errors
    /// As of the reading, and if no connection can be opened.
    pub(super) fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T>) -> Result<T, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let with = |connection: Connection| {
            // One transaction, so that all its statements see the same queue; there is nothing to commit.
            let transaction = connection.unchecked_transaction()?;
            let found = read(&transaction)?;
            drop(transaction);
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < AT_ONCE {
                idle.push(connection);
            }
            Ok(found)
        };
        idle.map_or_else(|| schema::open_for_reading(&self.path), Ok).and_then(with).map_err(|error| fault::of_sqlite(&error))
    }

    /// Closes those that are not in use.
    pub(super) fn close(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Calls `each` for every queued delivery, oldest first, until it returns false.
pub(super) fn queued(connection: &Connection, mut each: impl FnMut(Queued) -> bool) -> Result<()> {
    let mut select = connection.prepare_cached(
        "SELECT d.message, d.part, m.client, d.route, d.class,
                (SELECT count(*) FROM recipient r WHERE r.message = d.message AND r.part = d.part),
                m.size, m.accepted_at, d.due, d.attempts, d.account, d.started, d.trying, d.held, m.priority, m.author
           FROM delivery d JOIN message m ON m.id = d.message
          ORDER BY d.message, d.part",
    )?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let recipients = row.get(5)?;
        let in_doubt = match (row.get::<_, Option<String>>(10)?, row.get(11)?) {
            (Some(account), Some(started)) => Some(InDoubt {
                account: AccountName::new(account),
                started: Timestamp::from_millis(started),
                recipients: row.get::<_, Option<_>>(12)?.unwrap_or(recipients),
            }),
            _ => None,
        };
        let queued = Queued {
            id: DeliveryId { message: queue_id(row, 0)?, part: row.get(1)? },
            client: ClientName::new(row.get::<_, String>(2)?),
            priority: priority(row, 14)?,
            author: parsed(row, 15)?,
            held: row.get(13)?,
            route: RouteName::new(row.get::<_, String>(3)?),
            class: class(row, 4)?,
            recipients,
            size: octets(row, 6)?,
            accepted_at: Timestamp::from_millis(row.get(7)?),
            due: Timestamp::from_millis(row.get(8)?),
            attempts: row.get(9)?,
            in_doubt,
        };
        if !each(queued) {
            break;
        }
    }
    Ok(())
}

/// A delivery with all that its attempt needs.
pub(super) fn job(connection: &Connection, place: &Place, id: DeliveryId) -> Result<Option<Job>> {
    let select = "SELECT message, part, route, class, attempts, due, last_reply FROM delivery WHERE message = ?1 AND part = ?2";
    let found = connection.prepare_cached(select)?.query_row(key(id), |row| Ok((delivery(row, 0)?, row.get(6)?))).optional()?;
    let Some((mut delivery, last_reply)) = found else { return Ok(None) };
    delivery.recipients = recipients(connection, id)?;
    let (message, content) = connection
        .prepare_cached(
            "SELECT m.id, accepted_at, kind, client, peer, reverse_path, author, subject, message_id, size, eight_bit, smtputf8, priority,
                    ret, envid, stored_in, octets
               FROM message m LEFT JOIN content c ON c.message = m.id WHERE m.id = ?1",
        )?
        .query_row([id.message.number()], |row| Ok((message(row)?, content(row, place)?)))?;
    Ok(Some(Job { message, delivery, content, last_reply }))
}

/// A message, if it is queued.
pub(super) fn message_of(connection: &Connection, id: QueueId) -> Result<Option<Message>> {
    let select =
        "SELECT m.id, accepted_at, kind, client, peer, reverse_path, author, subject, message_id, size, eight_bit, smtputf8, priority,
                ret, envid FROM message m WHERE m.id = ?1";
    connection.prepare_cached(select)?.query_row([id.number()], message).optional()
}

/// What a listing shows of a delivery and its message.
const LISTED: &str =
    "SELECT m.id, accepted_at, kind, client, peer, reverse_path, author, subject, message_id, size, eight_bit, smtputf8, priority,
        ret, envid, d.message, d.part, route, class, attempts, due, held, last_reply, hold_reason, doubts
   FROM delivery d JOIN message m ON m.id = d.message";

/// At most `limit` deliveries behind `after`, oldest first.
pub(super) fn list(connection: &Connection, after: Option<DeliveryId>, limit: usize) -> Result<Vec<Listed>> {
    // No queue id is negative.
    let (message_after, part_after) = after.map_or((-1, 0), key);
    let select = format!("{LISTED} WHERE (d.message, d.part) > (?1, ?2) ORDER BY d.message, d.part LIMIT ?3");
    listed(connection, &select, params![message_after, part_after, limit as i64])
}

/// At most `limit` deliveries of mail that was accepted before `before`, and of whose delay nobody was told, oldest first.
pub(super) fn delayed(connection: &Connection, before: Timestamp, limit: usize) -> Result<Vec<Listed>> {
    // Queue ids grow with time, so that what is younger is not even looked at.
    let select = format!(
        "{LISTED} WHERE d.message <= ?1 AND d.warned = 0 AND m.accepted_at < ?2 AND m.kind = 'mail' ORDER BY d.message, d.part LIMIT ?3"
    );
    listed(connection, &select, params![QueueId::last_of(before).number(), before.as_millis(), limit as i64])
}

fn listed(connection: &Connection, select: &str, parameters: impl Params) -> Result<Vec<Listed>> {
    let mut select = connection.prepare_cached(select)?;
    let found = select.query_map(parameters, |row| {
        Ok(Listed {
            message: message(row)?,
            delivery: delivery(row, 15)?,
            held: row.get(21)?,
            last_reply: row.get(22)?,
            hold_reason: row.get(23)?,
            doubts: row.get(24)?,
        })
    })?;
    let mut listed = found.collect::<Result<Vec<_>>>()?;
    for Listed { delivery, .. } in &mut listed {
        delivery.recipients = recipients(connection, delivery.id)?;
    }
    Ok(listed)
}

/// The first of what is gathered for a reader, and the mark of the last of it.
pub(super) fn gathered(connection: &Connection, reader: &Mailbox, limit: usize) -> Result<(Vec<Gathered>, i64)> {
    let mut select = connection.prepare_cached(
        "SELECT id, reader, at, message, client, accepted_at, subject, envid, address, orcpt, action, status, diagnostic, remote_mta, last_attempt
           FROM gathered WHERE reader = ?1 ORDER BY id LIMIT ?2",
    )?;
    let mut rows = select.query(params![reader.as_str(), limit as i64])?;
    let (mut found, mut mark) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        mark = row.get(0)?;
        found.push(Gathered {
            reader: mailbox(row, 1)?,
            at: Timestamp::from_millis(row.get(2)?),
            message: queue_id(row, 3)?,
            client: ClientName::new(row.get::<_, String>(4)?),
            accepted_at: Timestamp::from_millis(row.get(5)?),
            subject: row.get(6)?,
            envid: row.get(7)?,
            recipient: Reported {
                address: mailbox(row, 8)?,
                orcpt: parsed(row, 9)?,
                action: parsed(row, 10)?.unwrap_or(Action::Failed),
                status: parsed(row, 11)?.unwrap_or(EnhancedStatus::new(5, 0, 0)),
                diagnostic: row.get(12)?,
                remote_mta: row.get(13)?,
                last_attempt: row.get::<_, Option<_>>(14)?.map(Timestamp::from_millis),
            },
        });
    }
    Ok((found, mark))
}

/// What is kept besides messages.
pub(super) fn ledger(connection: &Connection) -> Result<Ledger> {
    let mut budget = connection.prepare("SELECT account, limit_name, idx, at, amount FROM budget ORDER BY account, limit_name, idx")?;
    let budget = budget.query_map([], |row| {
        let account: String = row.get(0)?;
        Ok(BudgetRow {
            account: (!account.is_empty()).then(|| AccountName::new(account)),
            limit: row.get(1)?,
            index: row.get(2)?,
            at: row.get::<_, Option<_>>(3)?.map(Timestamp::from_millis),
            amount: row.get(4)?,
        })
    })?;
    let mut suspended = connection.prepare("SELECT account, until, reason FROM suspension ORDER BY account")?;
    let suspended = suspended.query_map([], |row| {
        let until = row.get::<_, Option<_>>(1)?.map(Timestamp::from_millis);
        Ok(Suspended { account: AccountName::new(row.get::<_, String>(0)?), until, reason: row.get(2)? })
    })?;
    let mut alarms = connection.prepare("SELECT name, since, why, cleared, told FROM alarm ORDER BY name")?;
    let alarms = alarms.query_map([], |row| {
        let (since, cleared) = (Timestamp::from_millis(row.get(1)?), row.get::<_, Option<_>>(3)?.map(Timestamp::from_millis));
        Ok(AlarmRow { name: row.get(0)?, since, why: row.get(2)?, cleared, told: row.get(4)? })
    })?;
    let mut gathering = connection.prepare("SELECT reader, count(*), min(at) FROM gathered GROUP BY reader ORDER BY reader")?;
    let gathering = gathering.query_map([], |row| {
        let count: i64 = row.get(1)?;
        let since = Timestamp::from_millis(row.get(2)?);
        Ok(Gathering { reader: mailbox(row, 0)?, count: usize::try_from(count).unwrap_or(usize::MAX), since })
    })?;
    let anchor = |table: &str| {
        let select = format!("SELECT boot_id, boot, at, ahead FROM {table}");
        let read =
            |row: &Row| Ok(Anchor { boot_id: row.get(0)?, boot: row.get(1)?, at: Timestamp::from_millis(row.get(2)?), ahead: row.get(3)? });
        connection.query_row(&select, [], read).optional()
    };
    let mut health = connection.prepare(
        "SELECT holder, about, since, met, until, level, logins, passed, uses, scope, length, lasts, every, limit_name, step, kind, reason, advice
           FROM health ORDER BY holder, about",
    )?;
    let health = health.query_map([], ailment)?;
    Ok(Ledger {
        budget: budget.collect::<Result<_>>()?,
        anchor: anchor("anchor")?,
        suspended: suspended.collect::<Result<_>>()?,
        alarms: alarms.collect::<Result<_>>()?,
        gathering: gathering.collect::<Result<_>>()?,
        health: health.collect::<Result<_>>()?,
        health_anchor: anchor("health_anchor")?,
    })
}

fn ailment(row: &Row) -> Result<Ailment> {
    let time = |column| row.get(column).map(Timestamp::from_millis);
    let length = |column| {
        row.get::<_, Option<i64>>(column).map(|millis| millis.and_then(|millis| u64::try_from(millis).ok()).map(Duration::from_millis))
    };
    Ok(Ailment {
        holder: row.get(0)?,
        about: row.get(1)?,
        since: time(2)?,
        met: time(3)?,
        until: time(4)?,
        level: row.get(5)?,
        logins: row.get(6)?,
        passed: row.get(7)?,
        using: row.get(8)?,
        scope: row.get(9)?,
        length: row.get(10)?,
        lasts: length(11)?,
        every: length(12)?,
        limit: row.get(13)?,
        step: row.get(14)?,
        kind: row.get(15)?,
        reason: row.get(16)?,
        advice: row.get(17)?,
    })
}

/// The messages whose content is in a file, with its length.
pub(super) fn in_files(connection: &Connection) -> Result<Vec<(QueueId, u64)>> {
    let mut select = connection.prepare("SELECT id, size FROM message WHERE stored_in = 'file' ORDER BY id")?;
    select.query_map([], |row| Ok((queue_id(row, 0)?, octets(row, 1)?)))?.collect()
}

/// How a delivery is named in the tables.
fn key(id: DeliveryId) -> (i64, u16) {
    (id.message.number(), id.part)
}

/// From message, part, route, class, attempts and due, which begin at column `at`; the recipients are to follow.
fn delivery(row: &Row, at: usize) -> Result<Delivery> {
    Ok(Delivery {
        id: DeliveryId { message: queue_id(row, at)?, part: row.get(at + 1)? },
        route: RouteName::new(row.get::<_, String>(at + 2)?),
        class: class(row, at + 3)?,
        recipients: Vec::new(),
        attempts: row.get(at + 4)?,
        due: Timestamp::from_millis(row.get(at + 5)?),
    })
}

fn recipients(connection: &Connection, id: DeliveryId) -> Result<Vec<Recipient>> {
    let select = "SELECT ordinal, address, notify, orcpt FROM recipient WHERE message = ?1 AND part = ?2 ORDER BY ordinal";
    let mut select = connection.prepare_cached(select)?;
    let found = select.query_map(key(id), |row| {
        let dsn = RecipientDsn { notify: parsed(row, 2)?, orcpt: parsed(row, 3)? };
        Ok(Recipient { ordinal: row.get(0)?, address: mailbox(row, 1)?, dsn })
    })?;
    found.collect()
}

/// From the first columns, in the order in which all who ask for a message name them.
fn message(row: &Row) -> Result<Message> {
    Ok(Message {
        id: queue_id(row, 0)?,
        accepted_at: Timestamp::from_millis(row.get(1)?),
        kind: match row.get_ref(2)?.as_str()? {
            "notice" => Kind::Notice,
            _ => Kind::Mail,
        },
        client: ClientName::new(row.get::<_, String>(3)?),
        priority: priority(row, 12)?,
        peer: row.get::<_, Option<String>>(4)?.and_then(|peer| peer.parse().ok()),
        reverse_path: match row.get_ref(5)?.as_str()? {
            "" => ReversePath::Null,
            _ => ReversePath::Mailbox(mailbox(row, 5)?),
        },
        author: parsed(row, 6)?,
        subject: row.get(7)?,
        message_id: row.get(8)?,
        size: octets(row, 9)?,
        eight_bit: row.get(10)?,
        smtputf8: row.get(11)?,
        dsn: MessageDsn { ret: parsed(row, 13)?, envid: row.get(14)? },
    })
}

fn content(row: &Row, place: &Place) -> Result<Content> {
    if row.get_ref(15)?.as_str()? == "file" {
        return Ok(Content::File { path: place.content_of(queue_id(row, 0)?), len: octets(row, 9)? });
    }
    Ok(Content::Inline(Bytes::from(row.get::<_, Vec<u8>>(16)?)))
}

fn queue_id(row: &Row, column: usize) -> Result<QueueId> {
    let number = row.get(column)?;
    QueueId::from_number(number).ok_or(rusqlite::Error::IntegralValueOutOfRange(column, number))
}

fn octets(row: &Row, column: usize) -> Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

fn class(row: &Row, column: usize) -> Result<Class> {
    Ok(if row.get_ref(column)?.as_str()? == Class::External.as_str() { Class::External } else { Class::Internal })
}

fn priority(row: &Row, column: usize) -> Result<Priority> {
    let text = row.get_ref(column)?.as_str()?;
    Ok(Priority::ALL.into_iter().find(|priority| priority.as_str() == text).unwrap_or_default())
}

/// What a client asked, or who wrote a message; what this version cannot read is as good as not there.
fn parsed<T: FromStr>(row: &Row, column: usize) -> Result<Option<T>> {
    Ok(row.get_ref(column)?.as_str_or_null()?.and_then(|text| text.parse().ok()))
}

fn mailbox(row: &Row, column: usize) -> Result<Mailbox> {
    let text = row.get_ref(column)?.as_str()?;
    text.parse().map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}

/// The file's length, if there is one.
pub(super) fn length_of(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|found| found.len())
}
