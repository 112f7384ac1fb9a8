//! The content of a message while it comes in: small ones stay in memory, large ones go to a file piece by piece.
//!
//! At most [`PIECE`] octets are held in memory, however large the message; each full piece is written by a blocking thread. A content of up
//! to [`ROW_MAX`] octets ends in the database. A larger one is made durable before its row is: written, synced, renamed from `.part`, the
//! directory synced. Without `accept` nothing stays: the file goes when this is dropped.

use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::place::{Doomed, create_file};
use super::space::Claim;
use super::statements::Stored;
use super::{Shared, blocking, fault};
use crate::mail::QueueId;
use crate::store::{self, StoreError};

/// The largest content that is kept in the database. Above it a file of its own is faster (measured between 32 and 64 KiB), and it can be read
/// in pieces.
pub(super) const ROW_MAX: usize = 32 << 10;
/// How much is gathered before it is written to the file.
const PIECE: usize = 128 << 10;

/// A message on its way in.
#[derive(Debug)]
pub struct Incoming {
    shared: Arc<Shared>,
    claim: Claim,
    id: QueueId,
    gathered: Vec<u8>,
    file: Option<Part>,
    written: u64,
    /// A write failed or was given up half-way: what is in the file is not the whole content.
    torn: bool,
}

/// A file that is being written.
#[derive(Debug)]
struct Part {
    file: File,
    doomed: Doomed,
}

/// A content as it is handed to the writer, durable as far as it is in a file.
#[derive(Debug)]
pub(super) enum Body {
    /// For the database.
    Row(Bytes),
    /// In its file, under its final name; removed again unless its row is written.
    File(Doomed),
}

impl Body {
    /// Where it is to be read, once its row is written.
    pub(super) fn stored(&self) -> Stored<'_> {
        match self {
            Self::Row(octets) => Stored::Row(octets),
            Self::File(_) => Stored::File,
        }
    }
}

impl store::Incoming for Incoming {
    async fn write(&mut self, mut octets: &[u8]) -> Result<(), StoreError> {
        self.shared.latch.check()?;
        while !octets.is_empty() {
            let (now, later) = octets.split_at(octets.len().min(PIECE - self.gathered.len()));
            self.gathered.extend_from_slice(now);
            octets = later;
            if self.gathered.len() == PIECE {
                self.write_piece().await?;
            }
        }
        Ok(())
    }
}

impl Incoming {
    pub(super) fn new(shared: Arc<Shared>, claim: Claim, id: QueueId) -> Self {
        Self { shared, claim, id, gathered: Vec::new(), file: None, written: 0, torn: false }
    }

    /// Which message this is the content of.
    pub(super) fn id(&self) -> QueueId {
        self.id
    }

    /// Octets so far.
    pub(super) fn len(&self) -> u64 {
        self.written + self.gathered.len() as u64
    }

    /// Ends the content and makes it durable, unless it is for the database. The claim that comes with it ends when the row is written.
    ///
    /// # Errors
    /// [`StoreError::Full`] if room has become short; else as of the file.
    pub(super) async fn finish(mut self) -> Result<(Body, Claim), StoreError> {
        self.shared.latch.check()?;
        self.claim.confirm(self.gathered.len() as u64)?;
        if self.written == 0 && self.gathered.len() <= ROW_MAX {
            self.claim.spend(self.gathered.len() as u64);
            return Ok((Body::Row(Bytes::from(self.gathered)), self.claim));
        }
        self.write_piece().await?;
        let (part, path) = (self.file.take(), self.shared.place.content_of(self.id));
        let Some(part) = part else { return Err(torn()) };
        let sealed = blocking(move || part.seal(&path)).await.map_err(|error| self.shared.latch.note(error))?;
        Ok((Body::File(sealed), self.claim))
    }

    async fn write_piece(&mut self) -> Result<(), StoreError> {
        if mem::replace(&mut self.torn, true) {
            return Err(torn());
        }
        let (piece, file) = (mem::take(&mut self.gathered), self.file.take());
        let octets = piece.len() as u64;
        let path = self.shared.place.content_of(self.id).with_extension("eml.part");
        // File and buffer travel to the thread and back: if nobody waits any longer, the file is removed where it ends.
        let write = move || {
            let failed = |error: io::Error| fault::of_file("cannot write a content", &error);
            let mut part = match file {
                Some(part) => part,
                None => Part { file: create_file(&path).map_err(failed)?, doomed: Doomed::new(path) },
            };
            part.file.write_all(&piece).map_err(failed)?;
            Ok((part, piece))
        };
        let (part, mut piece) = blocking(write).await.map_err(|error| self.shared.latch.note(error))?;
        piece.clear();
        (self.file, self.gathered, self.torn) = (Some(part), piece, false);
        self.written += octets;
        self.claim.spend(octets);
        Ok(())
    }
}

impl Part {
    fn seal(self, path: &Path) -> Result<Doomed, StoreError> {
        let Self { file, mut doomed } = self;
        // That it cannot be opened, for want of descriptors, is no failed sync.
        let directory = File::open(path.parent().unwrap_or(path)).map_err(|error| fault::of_file("cannot open a directory", &error))?;
        file.sync_data().map_err(|error| of_sync(&error))?;
        doomed.rename(path.to_owned()).map_err(|error| fault::of_file("cannot rename a content", &error))?;
        directory.sync_all().map_err(|error| of_sync(&error))?;
        Ok(doomed)
    }
}

/// A sync that fails for want of room harms this one file; any other failure means that the disk cannot be believed.
fn of_sync(error: &io::Error) -> StoreError {
    match fault::of_file("cannot sync a content", error) {
        full @ StoreError::Full(_) => full,
        StoreError::Unavailable(text) | StoreError::Fatal(text) => StoreError::Fatal(text),
    }
}

fn torn() -> StoreError {
    StoreError::Unavailable("an earlier write of this content did not end".into())
}
