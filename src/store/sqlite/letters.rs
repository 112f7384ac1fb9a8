//! Messages as files: the content as `QUEUEID.eml`, and beside it the envelope as `QUEUEID.json`, to be looked at, kept, or brought into another queue.
//!
//! Out of a queue at any time; into one that no relay uses by what is here, and into that of a running relay by handing each message to it
//! ([`parcel`]). The content is durable before the envelope that stands for it, and on the way in the content is durable before its row; so after
//! a kill or a power cut each message is there whole or not at all, and the same command once more brings what is missing: a message whose queue
//! id is queued already is left alone.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};

use super::incoming::ROW_MAX;
use super::place::{Doomed, Given, Place, create_file, private_directories, sync_directory};
use super::statements::{self, Stored};
use super::{OpenError, read, schema};
use crate::clock::Clock;
use crate::mail::QueueId;
use crate::store::letter::{Part, To};
use crate::store::{Envelope, Letter, MayHaveLeft};

/// Why what was brought in from files is held.
pub const FROM_FILES: &str = "brought in from files: it may have been delivered since they were written";

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
pub(super) fn envelope(connection: &Connection, id: QueueId) -> rusqlite::Result<Option<Envelope>> {
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
    Ok(Some(Envelope::of(message, parts, deliveries)))
}

/// Brings in every message of a folder, under the queue id that it had, into a queue that no relay uses.
///
/// # Errors
/// If the data directory is in use or cannot be written. What was brought in until then stays.
pub fn import(data_dir: &Path, from: &Path, mail: MayHaveLeft, mut told: impl FnMut(u64, u64)) -> Result<Imported, OpenError> {
    let (place, _lock) = Place::take(data_dir)?;
    let _given = Given(data_dir);
    let connection = schema::open(&place.database())?;
    let envelopes = envelopes(from)?;
    let mut imported = Imported::default();
    for (done, path) in envelopes.iter().enumerate() {
        told(done as u64, envelopes.len() as u64);
        match bring_in(&connection, &place, path, mail) {
            Ok((id, true)) => imported.taken.push(id),
            Ok((id, false)) => imported.queued.push(id),
            Err(Obstacle::Letter(not)) => imported.failed.push(not),
            Err(Obstacle::Queue(source)) => {
                return Err(OpenError::Directory { what: "cannot keep a message in", dir: data_dir.to_owned(), source });
            }
        }
    }
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(imported)
}

/// The envelopes in a folder, in the order of their names.
///
/// # Errors
/// If the folder cannot be read.
pub fn envelopes(from: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let entries = fs::read_dir(from).map_err(|source| OpenError::Directory { what: "cannot read", dir: from.to_owned(), source })?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut envelopes: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|it| it == "json")).collect();
    envelopes.sort();
    Ok(envelopes)
}

/// A message out of a folder or a backup: its envelope, and its content, which has as many octets as that says.
pub struct Parcel {
    /// The envelope.
    pub envelope: Envelope,
    /// The content.
    pub content: Box<dyn Read>,
}

impl std::fmt::Debug for Parcel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Parcel").field(&self.envelope).finish()
    }
}

/// The message of an envelope in a folder.
///
/// # Errors
/// If the envelope is none, or the content is not the one that it means.
pub fn parcel(path: &Path) -> Result<Parcel, NotALetter> {
    let (envelope, _) = letter(path)?;
    let content = Box::new(content_of(path, envelope.size)?);
    Ok(Parcel { envelope, content })
}

/// Reads an envelope.
fn letter(path: &Path) -> Result<(Envelope, Letter), NotALetter> {
    let not = |why| NotALetter { path: path.to_owned(), why };
    let mut text = Vec::new();
    File::open(path).and_then(|file| file.take(Envelope::LONGEST).read_to_end(&mut text)).map_err(|error| not(error.to_string()))?;
    let envelope = Envelope::read(&text).map_err(not)?;
    let letter = Letter::of(envelope.clone(), Clock::wall()).map_err(not)?;
    Ok((envelope, letter))
}

/// The content that belongs to an envelope, which must have so many octets.
fn content_of(envelope: &Path, size: u64) -> Result<File, NotALetter> {
    let path = envelope.with_extension("eml");
    let not = |why| NotALetter { path: path.clone(), why };
    let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
    let (found, file) = opened.map_err(|error| not(error.to_string()))?;
    if found == size { Ok(file) } else { Err(not(format!("it has {found} octets, and its envelope says {size}"))) }
}

/// What stands in the way of a message.
enum Obstacle {
    /// Its files.
    Letter(NotALetter),
    /// The queue.
    Queue(io::Error),
}

impl From<NotALetter> for Obstacle {
    fn from(not: NotALetter) -> Self {
        Self::Letter(not)
    }
}

impl From<io::Error> for Obstacle {
    fn from(error: io::Error) -> Self {
        Self::Queue(error)
    }
}

/// Keeps a message with its content, unless one of its name is queued.
fn bring_in(connection: &Connection, place: &Place, path: &Path, mail: MayHaveLeft) -> Result<(QueueId, bool), Obstacle> {
    let (_, mut letter) = letter(path)?;
    let id = letter.message.id;
    if read::message_of(connection, id).map_err(io::Error::other)?.is_some() {
        return Ok((id, false));
    }
    letter.doubt(mail, FROM_FILES);
    let mut source = content_of(path, letter.message.size)?;
    let mut octets = Vec::new();
    let mut file = None;
    if letter.message.size <= ROW_MAX as u64 {
        source.read_to_end(&mut octets)?;
    } else {
        file = Some(keep_file(place, id, &mut source)?);
    }
    let insert = || {
        let transaction = connection.unchecked_transaction()?;
        statements::bring_in(&transaction, &letter, if file.is_some() { Stored::File } else { Stored::Row(&octets) })?;
        statements::raise_newest(&transaction, id)?;
        transaction.commit()
    };
    insert().map_err(io::Error::other)?;
    if let Some(mut file) = file {
        file.keep();
    }
    Ok((id, true))
}

/// Copies a content into its file, durably; it goes again unless it is kept.
fn keep_file(place: &Place, id: QueueId, source: &mut impl Read) -> io::Result<Doomed> {
    let path = place.content_of(id);
    let part = path.with_extension("eml.part");
    let _ = fs::remove_file(&part);
    let mut written = create_file(&part)?;
    let mut doomed = Doomed::new(part);
    io::copy(source, &mut written)?;
    written.flush()?;
    written.sync_all()?;
    // One that is there is of an earlier try, and has no row.
    let _ = fs::remove_file(&path);
    doomed.rename(path.clone())?;
    sync_directory(path.parent().unwrap_or(&path))?;
    Ok(doomed)
}
