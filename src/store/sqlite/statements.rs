//! What an operation writes, statement by statement. All run inside a transaction of the writer's.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Result, params};

use crate::clock::Timestamp;
use crate::mail::{AccountName, Class, Delivery, DeliveryId, Gathered, Kind, Message, QueueId, Recipient, Reported, RouteName};
use crate::smtp::Mailbox;
use crate::store::{Ailment, AlarmRow, Anchor, BudgetRow, Letter, NewMessage, Parted, Settlement, Standing, Start, Suspended, Telling};

/// Where the content of a new message is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Stored<'a> {
    /// In the database.
    Row(&'a [u8]),
    /// In its file.
    File,
}

/// What a settlement left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// The message is still there.
    Message,
    /// The message is gone.
    Nothing,
    /// The message is gone; its content's file is to follow.
    File,
}

/// Writes a message with its content and its deliveries.
pub(super) fn accept(connection: &Connection, message: &Message, deliveries: &[Delivery], content: Stored) -> Result<()> {
    let id = message.id.number();
    let (stored_in, octets) = match content {
        Stored::Row(octets) => ("row", Some(octets)),
        Stored::File => ("file", None),
    };
    connection
        .prepare_cached(
            "INSERT INTO message (id, accepted_at, kind, client, peer, reverse_path, author, subject, message_id, size, eight_bit, smtputf8,
             stored_in, priority, ret, envid) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
        )?
        .execute(params![
            id,
            message.accepted_at.as_millis(),
            kind(message.kind),
            message.client.as_str(),
            message.peer.map(|peer| peer.to_string()),
            message.reverse_path.mailbox().map_or("", |mailbox| mailbox.as_str()),
            message.author.as_ref().map(|author| author.as_str()),
            message.subject,
            message.message_id,
            message.size as i64,
            message.eight_bit,
            message.smtputf8,
            stored_in,
            message.priority.as_str(),
            message.dsn.ret.map(|ret| ret.to_string()),
            message.dsn.envid,
        ])?;
    if let Some(octets) = octets {
        connection.prepare_cached("INSERT INTO content (message, octets) VALUES (?1, ?2)")?.execute(params![id, octets])?;
    }
    let mut insert_delivery =
        connection.prepare_cached("INSERT INTO delivery (message, part, route, class, attempts, due) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    let mut insert_recipient = connection
        .prepare_cached("INSERT INTO recipient (message, part, ordinal, address, notify, orcpt) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    for delivery in deliveries {
        let Delivery { id: DeliveryId { part, .. }, route, class, attempts, due, recipients } = delivery;
        insert_delivery.execute(params![id, part, route.as_str(), class.as_str(), attempts, due.as_millis()])?;
        for recipient in recipients {
            let Recipient { ordinal, address, dsn } = recipient;
            let (notify, orcpt) = (dsn.notify.map(|notify| notify.to_string()), dsn.orcpt.as_ref().map(|orcpt| orcpt.to_string()));
            insert_recipient.execute(params![id, part, ordinal, address.as_str(), notify, orcpt])?;
        }
    }
    Ok(())
}

/// Writes a message that was queued before, as it stood then. False if one of that name is there: it stays as it is.
pub(super) fn bring_in(connection: &Connection, letter: &Letter, content: Stored) -> Result<bool> {
    let Letter { message, parts, deliveries } = letter;
    let id = message.id.number();
    if connection.prepare_cached("SELECT 1 FROM message WHERE id = ?1")?.exists([id])? {
        return Ok(false);
    }
    let plain: Vec<Delivery> = deliveries.iter().map(|standing| standing.delivery.clone()).collect();
    accept(connection, message, &plain, content)?;
    connection.prepare_cached("UPDATE message SET parts = ?2 WHERE id = ?1")?.execute(params![id, parts])?;
    let update = "UPDATE delivery SET held = ?3, hold_reason = ?4, doubts = ?5, last_reply = ?6 WHERE message = ?1 AND part = ?2";
    let mut update = connection.prepare_cached(update)?;
    for Standing { delivery, held, hold_reason, doubts, last_reply } in deliveries {
        update.execute(params![id, delivery.id.part, held, hold_reason, doubts, last_reply])?;
    }
    Ok(true)
}

/// Marks a delivery as being attempted. False if there is none of that name.
pub(super) fn start(connection: &Connection, Start { delivery, account, recipients }: &Start, now: Timestamp) -> Result<bool> {
    connection
        .prepare_cached("UPDATE delivery SET account = ?3, trying = ?4, started = ?5 WHERE message = ?1 AND part = ?2")?
        .execute(params![delivery.message.number(), delivery.part, account.as_str(), recipients, now.as_millis()])
        .map(|rows| rows == 1)
}

/// Writes the end of an attempt, and what is told of it. Does nothing if the delivery is not there: it was settled
/// before, or removed.
pub(super) fn settle(connection: &Connection, settlement: &Settlement) -> Result<(Left, Vec<Option<u16>>)> {
    let Settlement { delivery: DeliveryId { message, part }, due, attempts, last_reply, hold, in_doubt, .. } = settlement;
    let id = message.number();
    let updated = connection
        .prepare_cached(
            "UPDATE delivery SET account = NULL, trying = NULL, started = NULL, due = ?3, attempts = ?4, last_reply = ?5,
                    held = held OR ?6 IS NOT NULL, hold_reason = ifnull(?6, hold_reason), doubts = doubts + ?7
              WHERE message = ?1 AND part = ?2",
        )?
        .execute(params![id, part, due.as_millis(), attempts, last_reply, hold, in_doubt])?;
    if updated == 0 {
        return Ok((Left::Message, vec![None; settlement.parted.len()]));
    }
    let mut delete_recipient = connection.prepare_cached("DELETE FROM recipient WHERE message = ?1 AND part = ?2 AND ordinal = ?3")?;
    for ordinal in &settlement.settled {
        delete_recipient.execute(params![id, part, ordinal])?;
    }
    let parted = settlement.parted.iter().map(|parted| part_from(connection, settlement.delivery, parted)).collect::<Result<_>>()?;
    tell(connection, &settlement.telling)?;
    if connection.prepare_cached("SELECT 1 FROM recipient WHERE message = ?1 AND part = ?2")?.exists(params![id, part])? {
        return Ok((Left::Message, parted));
    }
    remove(connection, settlement.delivery).map(|left| (left, parted))
}

/// Moves recipients that are not settled into a new delivery; returns its number, or `None` if none of them is there.
fn part_from(connection: &Connection, DeliveryId { message, part }: DeliveryId, parted: &Parted) -> Result<Option<u16>> {
    let (id, Parted { ordinals, route, due }) = (message.number(), parted);
    let number: u16 = connection
        .prepare_cached(
            "UPDATE message SET parts = 1 + max(parts, (SELECT max(part) FROM delivery WHERE message = id)) WHERE id = ?1 RETURNING parts",
        )?
        .query_row([id], |row| row.get(0))?;
    connection
        .prepare_cached(
            "INSERT INTO delivery (message, part, route, class, attempts, due, last_reply, doubts, warned)
             SELECT message, ?3, ?4, class, attempts, ?5, last_reply, doubts, warned FROM delivery WHERE message = ?1 AND part = ?2",
        )?
        .execute(params![id, part, number, route.as_str(), due.as_millis()])?;
    let mut moved = 0;
    let mut update = connection.prepare_cached("UPDATE recipient SET part = ?3 WHERE message = ?1 AND part = ?2 AND ordinal = ?4")?;
    for ordinal in ordinals {
        moved += update.execute(params![id, part, number, ordinal])?;
    }
    if moved == 0 {
        connection.prepare_cached("DELETE FROM delivery WHERE message = ?1 AND part = ?2")?.execute(params![id, number])?;
    }
    Ok((moved > 0).then_some(number))
}

/// Marks that a delivery's delay was told, and writes what is told. False if it is not there, or was marked before.
pub(super) fn warn(connection: &Connection, DeliveryId { message, part }: DeliveryId, telling: &Telling) -> Result<bool> {
    let mark = "UPDATE delivery SET warned = 1 WHERE message = ?1 AND part = ?2 AND warned = 0";
    if connection.prepare_cached(mark)?.execute(params![message.number(), part])? == 0 {
        return Ok(false);
    }
    tell(connection, telling).map(|()| true)
}

/// Removes what is gathered for a reader up to a mark, and writes the notice that tells of it.
pub(super) fn digest(connection: &Connection, reader: &Mailbox, mark: i64, notice: Option<&NewMessage>) -> Result<()> {
    connection.prepare_cached("DELETE FROM gathered WHERE reader = ?1 AND id <= ?2")?.execute(params![reader.as_str(), mark])?;
    notice.map_or(Ok(()), |notice| accept_own(connection, notice))
}

/// Writes what is told.
fn tell(connection: &Connection, Telling { notices, gathered }: &Telling) -> Result<()> {
    notices.iter().try_for_each(|notice| accept_own(connection, notice))?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO gathered (reader, at, message, client, accepted_at, subject, envid, address, orcpt, action, status, diagnostic, remote_mta,
         last_attempt) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?;
    gathered.iter().try_for_each(|Gathered { reader, at, message, client, accepted_at, subject, envid, recipient }| {
        let Reported { address, orcpt, action, status, diagnostic, remote_mta, last_attempt } = recipient;
        let row = params![
            reader.as_str(),
            at.as_millis(),
            message.number(),
            client.as_str(),
            accepted_at.as_millis(),
            subject,
            envid,
            address.as_str(),
            orcpt.as_ref().map(|orcpt| orcpt.to_string()),
            action.as_str(),
            status.to_string(),
            diagnostic,
            remote_mta,
            last_attempt.map(Timestamp::as_millis),
        ];
        insert.execute(row).map(drop)
    })
}

/// Writes a message of the relay's own.
pub(super) fn accept_own(connection: &Connection, NewMessage { message, deliveries, content }: &NewMessage) -> Result<()> {
    accept(connection, message, deliveries, Stored::Row(content))
}

/// Removes a delivery with its recipients, and with its message if it was the last. Does nothing if it is not there.
pub(super) fn remove(connection: &Connection, DeliveryId { message, part }: DeliveryId) -> Result<Left> {
    let id = message.number();
    connection.prepare_cached("DELETE FROM recipient WHERE message = ?1 AND part = ?2")?.execute(params![id, part])?;
    let removed = connection.prepare_cached("DELETE FROM delivery WHERE message = ?1 AND part = ?2")?.execute(params![id, part])?;
    if removed == 0 || connection.prepare_cached("SELECT 1 FROM delivery WHERE message = ?1")?.exists([id])? {
        return Ok(Left::Message);
    }
    let in_row = connection.prepare_cached("DELETE FROM content WHERE message = ?1")?.execute([id])? > 0;
    connection.prepare_cached("DELETE FROM message WHERE id = ?1")?.execute([id])?;
    Ok(if in_row { Left::Nothing } else { Left::File })
}

/// Marks deliveries as held by an operator, or as not held. Those that are not there are left out.
pub(super) fn hold(connection: &Connection, deliveries: &[DeliveryId], held: bool) -> Result<()> {
    let mut update = connection.prepare_cached("UPDATE delivery SET held = ?3, hold_reason = '' WHERE message = ?1 AND part = ?2")?;
    deliveries.iter().try_for_each(|id| update.execute(params![id.message.number(), id.part, held]).map(drop))
}

pub(super) fn reroute(connection: &Connection, moves: &[(DeliveryId, RouteName, Class)]) -> Result<()> {
    let mut update = connection.prepare_cached("UPDATE delivery SET route = ?3, class = ?4 WHERE message = ?1 AND part = ?2")?;
    let mut one = |(id, route, class): &(DeliveryId, RouteName, Class)| {
        update.execute(params![id.message.number(), id.part, route.as_str(), class.as_str()])
    };
    moves.iter().try_for_each(|to| one(to).map(drop))
}

/// Writes what is used of budgets; of several rows for the same line only the last.
pub(super) fn keep_budget<'a>(connection: &Connection, rows: impl Iterator<Item = &'a BudgetRow>) -> Result<()> {
    let of = |row: &'a BudgetRow| (row.account.as_ref().map_or("", AccountName::as_str), row.limit.as_str(), row.index);
    // In the order of the table, which is the cheapest to write.
    let lines: BTreeMap<_, _> = rows.map(|row| (of(row), row)).collect();
    for ((account, limit, index), BudgetRow { at, amount, .. }) in lines {
        if *amount == 0 {
            let delete = "DELETE FROM budget WHERE account = ?1 AND limit_name = ?2 AND idx = ?3";
            connection.prepare_cached(delete)?.execute(params![account, limit, index])?;
            continue;
        }
        connection
            .prepare_cached(
                "INSERT INTO budget (account, limit_name, idx, at, amount) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT DO UPDATE SET at = excluded.at, amount = excluded.amount",
            )?
            .execute(params![account, limit, index, at.map(Timestamp::as_millis), amount])?;
    }
    Ok(())
}

/// Forgets what is used of all budgets.
pub(super) fn forget_budget(connection: &Connection) -> Result<()> {
    connection.prepare_cached("DELETE FROM budget")?.execute([]).map(drop)
}

/// Remembers where the clocks stand.
pub(super) fn keep_anchor(connection: &Connection, Anchor { boot_id, boot, at, ahead }: &Anchor) -> Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO anchor (one, boot_id, boot, at, ahead) VALUES (1, ?1, ?2, ?3, ?4)")?
        .execute(params![boot_id, boot, at.as_millis(), ahead])
        .map(drop)
}

/// Remembers that an account is suspended, in place of what was said about it before.
pub(super) fn suspend(connection: &Connection, Suspended { account, until, reason }: &Suspended) -> Result<()> {
    connection
        .prepare_cached("INSERT OR REPLACE INTO suspension (account, until, reason) VALUES (?1, ?2, ?3)")?
        .execute(params![account.as_str(), until.map(Timestamp::as_millis), reason])
        .map(drop)
}

/// Forgets that an account is suspended.
pub(super) fn resume(connection: &Connection, account: &AccountName) -> Result<()> {
    connection.prepare_cached("DELETE FROM suspension WHERE account = ?1")?.execute([account.as_str()]).map(drop)
}

/// Remembers these alarms in place of all that were.
pub(super) fn keep_alarms(connection: &Connection, alarms: &[AlarmRow]) -> Result<()> {
    connection.prepare_cached("DELETE FROM alarm")?.execute([])?;
    let mut insert = connection.prepare_cached("INSERT INTO alarm (name, since, why, cleared, told) VALUES (?1, ?2, ?3, ?4, ?5)")?;
    alarms.iter().try_for_each(|AlarmRow { name, since, why, cleared, told }| {
        insert.execute(params![name, since.as_millis(), why, cleared.map(Timestamp::as_millis), told]).map(drop)
    })
}

/// Remembers this in place of all that was known of health.
pub(super) fn keep_health(connection: &Connection, health: &[Ailment], anchor: &Anchor) -> Result<()> {
    let millis = |length: Option<Duration>| length.map(|length| i64::try_from(length.as_millis()).unwrap_or(i64::MAX));
    connection.prepare_cached("DELETE FROM health")?.execute([])?;
    let mut insert = connection.prepare_cached(
        "INSERT INTO health (holder, about, since, met, until, level, logins, passed, uses, scope, length, lasts, every, limit_name, step, kind,
         reason, advice) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
    )?;
    for it in health {
        insert.execute(params![
            it.holder,
            it.about,
            it.since.as_millis(),
            it.met.as_millis(),
            it.until.as_millis(),
            it.level,
            it.logins,
            it.passed,
            it.using,
            it.scope,
            it.length,
            millis(it.lasts),
            millis(it.every),
            it.limit,
            it.step,
            it.kind,
            it.reason,
            it.advice,
        ])?;
    }
    let Anchor { boot_id, boot, at, ahead } = anchor;
    connection
        .prepare_cached("INSERT OR REPLACE INTO health_anchor (one, boot_id, boot, at, ahead) VALUES (1, ?1, ?2, ?3, ?4)")?
        .execute(params![boot_id, boot, at.as_millis(), ahead])
        .map(drop)
}

/// Remembers the highest id given out.
pub(super) fn raise_newest(connection: &Connection, id: QueueId) -> Result<()> {
    connection.prepare_cached("UPDATE newest SET message = ?1 WHERE message < ?1")?.execute([id.number()]).map(drop)
}

/// The highest id ever given out.
pub(super) fn newest(connection: &Connection) -> Result<Option<QueueId>> {
    let number: Option<i64> = connection.query_row("SELECT message FROM newest", [], |row| row.get(0)).optional()?;
    Ok(number.and_then(QueueId::from_number))
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Mail => "mail",
        Kind::Notice => "notice",
    }
}
