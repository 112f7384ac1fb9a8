//! Messages as files: the content as `QUEUEID.eml`, and beside it the envelope as `QUEUEID.json`, to be looked at, kept, or brought into another queue.
//!
//! Out of a queue at any time, into one that no relay uses. The content is durable before the envelope that stands for it, and on the way in the
//! content is durable before its row; so after a kill or a power cut each message is there whole or not at all, and the same command once more
//! brings what is missing: a message whose queue id is queued already is left alone.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::incoming::ROW_MAX;
use super::place::{Doomed, Given, Place, create_file, private_directories, sync_directory};
use super::statements::{self, Stored};
use super::{MayHaveLeft, OpenError, read, schema};
use crate::clock::Timestamp;
use crate::mail::{Class, ClientName, Delivery, DeliveryId, Kind, Message, Priority, QueueId, Recipient, RouteName};
use crate::smtp::{MessageDsn, RecipientDsn, ReversePath};

/// The version of the envelope's form.
const FORMAT: u32 = 1;
/// Octets of an envelope: one has 50 recipients for each delivery, and at most some thousand of those.
const LONGEST: u64 = 64 << 20;

/// An envelope as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    format: u32,
    id: String,
    /// Milliseconds since the Unix epoch.
    accepted_at: i64,
    /// `mail` or `notice`.
    kind: String,
    client: String,
    priority: String,
    peer: Option<String>,
    /// Empty for `<>`.
    from: String,
    author: Option<String>,
    subject: String,
    message_id: String,
    size: u64,
    eight_bit: bool,
    smtputf8: bool,
    ret: Option<String>,
    envid: Option<String>,
    /// The highest number that a delivery got when recipients parted from theirs.
    parts: u32,
    deliveries: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    part: u16,
    route: String,
    class: String,
    attempts: u32,
    due: i64,
    held: bool,
    hold_reason: String,
    doubts: u32,
    /// An attempt is under way, or was cut off.
    under_way: bool,
    last_reply: String,
    recipients: Vec<To>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct To {
    ordinal: u16,
    address: String,
    notify: Option<String>,
    orcpt: Option<String>,
}

/// Why a file cannot be brought in.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct NotALetter {
    /// Which.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

/// What was brought in.
#[derive(Debug, Default)]
pub struct Imported {
    /// Messages.
    pub taken: Vec<QueueId>,
    /// Messages that are queued already.
    pub queued: Vec<QueueId>,
    /// Files that could not be brought in.
    pub failed: Vec<NotALetter>,
}

/// Writes queued messages into a folder: those of `ids`, or all. Those that are not queued, or leave meanwhile, come back in the second list.
///
/// # Errors
/// If the queue cannot be read or the folder not be written.
pub fn export(
    data_dir: &Path,
    ids: Option<&[QueueId]>,
    to: &Path,
    mut told: impl FnMut(u64, u64),
) -> Result<(Vec<QueueId>, Vec<QueueId>), OpenError> {
    let place = Place::at(data_dir);
    let trouble = |what: &'static str, dir: &Path| {
        let dir = dir.to_owned();
        move |source| OpenError::Directory { what, dir, source }
    };
    fs::metadata(place.database()).map_err(trouble("there is no queue.db that can be read in", data_dir))?;
    let connection = schema::open_for_reading(&place.database())?;
    schema::check_version(&connection, &place.database())?;
    private_directories(to).map_err(trouble("cannot make the directory", to))?;
    let ids = match ids {
        Some(ids) => ids.to_vec(),
        None => {
            let mut select = connection.prepare("SELECT id FROM message ORDER BY id")?;
            let numbers: Vec<i64> = select.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            numbers.into_iter().filter_map(QueueId::from_number).collect()
        }
    };
    let (mut written, mut gone) = (Vec::new(), Vec::new());
    for (done, id) in ids.iter().enumerate() {
        told(done as u64, ids.len() as u64);
        let transaction = connection.unchecked_transaction()?;
        let there = envelope(&transaction, *id)?.is_some();
        if there && keep_content(&transaction, &place, *id, to).map_err(trouble("cannot write to", to))?.is_some() {
            keep_envelope(&transaction, *id, to).map_err(trouble("cannot write to", to))?;
            written.push(*id);
        } else {
            gone.push(*id);
        }
    }
    Ok((written, gone))
}

/// Writes a message's envelope, durably.
pub(super) fn keep_envelope(connection: &Connection, id: QueueId, folder: &Path) -> io::Result<PathBuf> {
    let envelope = envelope(connection, id).map_err(io::Error::other)?.ok_or(io::ErrorKind::NotFound)?;
    let path = folder.join(format!("{id}.json"));
    write(&path, &mut serde_json::to_vec_pretty(&envelope).map_err(io::Error::other)?.as_slice())?;
    Ok(path)
}

/// Writes what there is of a message's content, durably; none if there is nothing.
pub(super) fn keep_content(connection: &Connection, place: &Place, id: QueueId, folder: &Path) -> io::Result<Option<PathBuf>> {
    let path = folder.join(format!("{id}.eml"));
    let select = "SELECT octets FROM content WHERE message = ?1";
    let row: Option<Vec<u8>> = connection.query_row(select, [id.number()], |row| row.get(0)).optional().map_err(io::Error::other)?;
    if let Some(octets) = row {
        return write(&path, &mut octets.as_slice()).map(|()| Some(path));
    }
    match File::open(place.content_of(id)) {
        Ok(mut file) => write(&path, &mut file).map(|()| Some(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a file in place of one of the same name, durably.
fn write(path: &Path, from: &mut impl Read) -> io::Result<()> {
    let part = path.with_added_extension("part");
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = create_file(&part)?;
    io::copy(from, &mut file)?;
    file.sync_all()?;
    fs::rename(&part, path)?;
    sync_directory(path.parent().unwrap_or(path))
}

/// A message's envelope, if it is queued.
fn envelope(connection: &Connection, id: QueueId) -> rusqlite::Result<Option<Envelope>> {
    let Some(message) = read::message_of(connection, id)? else { return Ok(None) };
    let parts = connection.query_row("SELECT parts FROM message WHERE id = ?1", [id.number()], |row| row.get(0))?;
    let mut select = connection.prepare_cached(
        "SELECT part, route, class, attempts, due, held, hold_reason, doubts, account IS NOT NULL, last_reply FROM delivery WHERE message = ?1 ORDER BY part",
    )?;
    let found = select.query_map([id.number()], |row| {
        Ok(Part {
            part: row.get(0)?,
            route: row.get(1)?,
            class: row.get(2)?,
            attempts: row.get(3)?,
            due: row.get(4)?,
            held: row.get(5)?,
            hold_reason: row.get(6)?,
            doubts: row.get(7)?,
            under_way: row.get(8)?,
            last_reply: row.get(9)?,
            recipients: Vec::new(),
        })
    })?;
    let mut deliveries = found.collect::<rusqlite::Result<Vec<_>>>()?;
    let select = "SELECT ordinal, address, notify, orcpt FROM recipient WHERE message = ?1 AND part = ?2 ORDER BY ordinal";
    let mut select = connection.prepare_cached(select)?;
    for delivery in &mut deliveries {
        let recipients = select.query_map(params![id.number(), delivery.part], |row| {
            Ok(To { ordinal: row.get(0)?, address: row.get(1)?, notify: row.get(2)?, orcpt: row.get(3)? })
        })?;
        delivery.recipients = recipients.collect::<rusqlite::Result<_>>()?;
    }
    Ok(Some(Envelope {
        format: FORMAT,
        id: message.id.to_string(),
        accepted_at: message.accepted_at.as_millis(),
        kind: if message.kind == Kind::Notice { "notice" } else { "mail" }.to_owned(),
        client: message.client.as_str().to_owned(),
        priority: message.priority.as_str().to_owned(),
        peer: message.peer.map(|peer| peer.to_string()),
        from: message.reverse_path.mailbox().map(|from| from.as_str().to_owned()).unwrap_or_default(),
        author: message.author.map(|author| author.as_str().to_owned()),
        subject: message.subject,
        message_id: message.message_id,
        size: message.size,
        eight_bit: message.eight_bit,
        smtputf8: message.smtputf8,
        ret: message.dsn.ret.map(|ret| ret.to_string()),
        envid: message.dsn.envid,
        parts,
        deliveries,
    }))
}

/// Brings in every message of a folder, under the queue id that it had. The relay must not run.
///
/// # Errors
/// If the data directory is in use or cannot be written. What was brought in until then stays.
pub fn import(data_dir: &Path, from: &Path, mail: MayHaveLeft, mut told: impl FnMut(u64, u64)) -> Result<Imported, OpenError> {
    let (place, _lock) = Place::take(data_dir)?;
    let _given = Given(data_dir);
    let connection = schema::open(&place.database())?;
    let trouble = |what: &'static str, dir: &Path| {
        let dir = dir.to_owned();
        move |source| OpenError::Directory { what, dir, source }
    };
    let entries = fs::read_dir(from).map_err(trouble("cannot read", from))?;
    let mut envelopes: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.extension().is_some_and(|it| it == "json")).collect();
    envelopes.sort();
    let mut imported = Imported::default();
    for (done, path) in envelopes.iter().enumerate() {
        told(done as u64, envelopes.len() as u64);
        match letter(path) {
            Err(why) => imported.failed.push(NotALetter { path: path.clone(), why }),
            Ok(Letter { message, .. }) if read::message_of(&connection, message.id)?.is_some() => imported.queued.push(message.id),
            Ok(letter) => {
                let content = path.with_extension("eml");
                match store(&connection, &place, &letter, &content, mail).map_err(trouble("cannot keep a message in", data_dir))? {
                    Ok(()) => imported.taken.push(letter.message.id),
                    Err(why) => imported.failed.push(NotALetter { path: content, why }),
                }
            }
        }
    }
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(imported)
}

/// A message as it is brought in.
struct Letter {
    message: Message,
    parts: u32,
    deliveries: Vec<(Delivery, Part)>,
}

/// Reads an envelope; each mistake in words.
fn letter(path: &Path) -> Result<Letter, String> {
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(LONGEST).read_to_end(&mut text)).map_err(|error| error.to_string())?;
    let envelope: Envelope = serde_json::from_slice(&text).map_err(|error| format!("it is no envelope: {error}"))?;
    if envelope.format != FORMAT {
        return Err(format!("it is of form {}, and this program knows {FORMAT}", envelope.format));
    }
    let id: QueueId = envelope.id.parse().map_err(|_| format!("{:?} is no queue id", envelope.id))?;
    if envelope.deliveries.is_empty() || envelope.deliveries.iter().any(|part| part.recipients.is_empty()) {
        return Err("a delivery has no recipients".to_owned());
    }
    let address = |text: &str| text.parse().map_err(|error| format!("{text:?} is no address: {error}"));
    let message = Message {
        id,
        accepted_at: Timestamp::from_millis(envelope.accepted_at),
        kind: if envelope.kind == "notice" { Kind::Notice } else { Kind::Mail },
        client: ClientName::new(envelope.client),
        priority: Priority::ALL.into_iter().find(|known| known.as_str() == envelope.priority).unwrap_or_default(),
        peer: envelope.peer.and_then(|peer| peer.parse().ok()),
        reverse_path: if envelope.from.is_empty() { ReversePath::Null } else { ReversePath::Mailbox(address(&envelope.from)?) },
        author: envelope.author.as_deref().map(address).transpose()?,
        subject: envelope.subject,
        message_id: envelope.message_id,
        size: envelope.size,
        eight_bit: envelope.eight_bit,
        smtputf8: envelope.smtputf8,
        dsn: MessageDsn { ret: envelope.ret.and_then(|ret| ret.parse().ok()), envid: envelope.envid },
    };
    let delivery = |part: Part| {
        let recipient = |to: &To| {
            let dsn = RecipientDsn {
                notify: to.notify.as_deref().and_then(|notify| notify.parse().ok()),
                orcpt: to.orcpt.as_deref().and_then(|orcpt| orcpt.parse().ok()),
            };
            Ok(Recipient { ordinal: to.ordinal, address: address(&to.address)?, dsn })
        };
        let recipients = part.recipients.iter().map(recipient).collect::<Result<Vec<_>, String>>()?;
        let class = if part.class == Class::External.as_str() { Class::External } else { Class::Internal };
        let (route, due) = (RouteName::new(part.route.as_str()), Timestamp::from_millis(part.due));
        Ok((Delivery { id: DeliveryId { message: id, part: part.part }, route, class, recipients, attempts: part.attempts, due }, part))
    };
    let deliveries = envelope.deliveries.into_iter().map(delivery).collect::<Result<Vec<_>, String>>()?;
    Ok(Letter { message, parts: envelope.parts, deliveries })
}

/// Keeps a message with its content; the inner error is about the content.
fn store(connection: &Connection, place: &Place, letter: &Letter, content: &Path, mail: MayHaveLeft) -> io::Result<Result<(), String>> {
    let Letter { message, parts, deliveries } = letter;
    let mut source = match File::open(content) {
        Ok(source) => source,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let found = source.metadata()?.len();
    if found != message.size {
        return Ok(Err(format!("it has {found} octets, and its envelope says {}", message.size)));
    }
    let mut octets = Vec::new();
    let mut file = None;
    if found <= ROW_MAX as u64 {
        source.read_to_end(&mut octets)?;
    } else {
        let path = place.content_of(message.id);
        let part = path.with_extension("eml.part");
        let _ = fs::remove_file(&part);
        let mut written = create_file(&part)?;
        let mut doomed = Doomed::new(part);
        io::copy(&mut source, &mut written)?;
        written.flush()?;
        written.sync_all()?;
        // One that is there is of an earlier try, and has no row.
        let _ = fs::remove_file(&path);
        doomed.rename(path.clone())?;
        sync_directory(path.parent().unwrap_or(&path))?;
        file = Some(doomed);
    }
    let insert = || {
        let transaction = connection.unchecked_transaction()?;
        let plain: Vec<Delivery> = deliveries.iter().map(|(delivery, _)| delivery.clone()).collect();
        statements::accept(&transaction, message, &plain, if file.is_some() { Stored::File } else { Stored::Row(&octets) })?;
        transaction.execute("UPDATE message SET parts = ?2 WHERE id = ?1", params![message.id.number(), parts])?;
        for (delivery, part) in deliveries {
            // What was exported may have left since then.
            let hold = part.held || mail == MayHaveLeft::Hold;
            let reason = if part.held {
                part.hold_reason.as_str()
            } else {
                "brought in from files: it may have been delivered since they were written"
            };
            let reason = if hold { reason } else { "" };
            transaction.execute(
                "UPDATE delivery SET held = ?3, hold_reason = ?4, doubts = ?5, last_reply = ?6 WHERE message = ?1 AND part = ?2",
                params![message.id.number(), delivery.id.part, hold, reason, part.doubts.saturating_add(1), part.last_reply],
            )?;
        }
        statements::raise_newest(&transaction, message.id)?;
        transaction.commit()
    };
    insert().map_err(io::Error::other)?;
    if let Some(mut file) = file {
        file.keep();
    }
    Ok(Ok(()))
}
