//! The messages of a backup, one after another, for a running relay that is to have those of them that it lacks.
//!
//! The backup is verified, and then only read. If its tables are of an older version, they are brought up in a copy in the data directory, which
//! goes with this.

use std::fs;
use std::io::{self, Cursor};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension};

use super::backup::copy_file;
use super::letters::{NotALetter, Parcel, envelope};
use super::manifest::Manifest;
use super::place::{Place, private_directories};
use super::restore::{RestoreError, STAGE};
use super::{OpenError, schema};
use crate::clock::Clock;
use crate::mail::QueueId;
use crate::store::Letter;

/// See the head of this file.
#[derive(Debug)]
pub struct Saved {
    /// What the backup says of itself.
    pub manifest: Manifest,
    place: Place,
    connection: Connection,
    _stage: Option<Stage>,
}

/// A folder that goes when this is dropped; if it stays, the next restore removes it.
#[derive(Debug)]
struct Stage(PathBuf);

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Saved {
    /// Verifies a backup and opens it.
    ///
    /// # Errors
    /// If it is none, or not as it was, or cannot be read.
    pub fn open(from: &Path, data_dir: &Path) -> Result<Self, RestoreError> {
        let manifest = Manifest::verify(from, |_| {})?;
        let place = Place::at(from);
        let connection = schema::open_for_reading(&place.database())?;
        match schema::check_version(&connection, &place.database()) {
            Ok(()) => Ok(Self { manifest, place, connection, _stage: None }),
            Err(OpenError::Older { .. }) => {
                drop(connection);
                let folder = data_dir.join(STAGE);
                let (stage, connection) = brought_up(&place, &folder).map_err(|source| RestoreError::File { path: folder, source })?;
                Ok(Self { manifest, place, connection: connection?, _stage: Some(stage) })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// All messages, oldest first.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn ids(&self) -> Result<Vec<QueueId>, RestoreError> {
        let mut select = self.connection.prepare("SELECT id FROM message ORDER BY id")?;
        let numbers: Vec<i64> = select.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        Ok(numbers.into_iter().filter_map(QueueId::from_number).collect())
    }

    /// One of them.
    ///
    /// # Errors
    /// If it is not there as it was accepted, as may be in a backup that has said so when it was made.
    pub fn parcel(&self, id: QueueId) -> Result<Parcel, NotALetter> {
        let not = |why| NotALetter { path: PathBuf::from(id.to_string()), why };
        let found = envelope(&self.connection, id).map_err(|error| not(error.to_string()))?;
        let envelope = found.ok_or_else(|| not("it is not in the backup".to_owned()))?;
        Letter::of(envelope.clone(), Clock::wall()).map_err(not)?;
        let (len, content) = self.content(id).map_err(|error| not(format!("its content is not in the backup: {error}")))?;
        if len == envelope.size() {
            Ok(Parcel { envelope, content })
        } else {
            Err(not(format!("its content has {len} octets in the backup, and its envelope says {}", envelope.size())))
        }
    }

    fn content(&self, id: QueueId) -> io::Result<(u64, Box<dyn io::Read>)> {
        let select = "SELECT octets FROM content WHERE message = ?1";
        let row = self.connection.prepare_cached(select).and_then(|mut select| {
            let row: Option<Vec<u8>> = select.query_row([id.number()], |row| row.get(0)).optional()?;
            Ok(row)
        });
        if let Some(octets) = row.map_err(io::Error::other)? {
            return Ok((octets.len() as u64, Box::new(Cursor::new(octets))));
        }
        let file = fs::File::open(self.place.content_of(id))?;
        Ok((file.metadata()?.len(), Box::new(file)))
    }
}

/// A copy of an older queue with the tables of this version.
fn brought_up(place: &Place, folder: &Path) -> io::Result<(Stage, Result<Connection, OpenError>)> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    private_directories(folder)?;
    let stage = Stage(folder.to_owned());
    let copy = Place::at(folder);
    copy_file(&place.database(), &copy.database())?;
    Ok((stage, schema::open(&copy.database())))
}
