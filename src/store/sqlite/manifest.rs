//! What a backup says of itself: which files it has, each with its length and its hash, and when it was made.
//!
//! It is written last, after everything that it names is durable. So a folder with a manifest is a whole backup, and one without is none, whenever the
//! power went.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::place::{create_file, sync_directory};

/// Its name.
const NAME: &str = "backup.json";
/// The version of its form.
const FORMAT: u32 = 1;

/// See the head of this file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    format: u32,
    /// When the copy of the queue was taken: milliseconds since the Unix epoch.
    pub taken_at: i64,
    /// The program that made it.
    pub made_by: String,
    /// Messages in it.
    pub messages: u64,
    /// Deliveries in it.
    pub deliveries: u64,
    files: Vec<Entry>,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// Its path in the backup.
    name: String,
    size: u64,
    sha256: String,
}

/// Why a folder is not a backup that can be restored. The text is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum NotABackup {
    /// There is no manifest.
    #[error("{} has no {NAME}: it is no backup, or one that was not finished", _0.display())]
    NoManifest(PathBuf),
    /// It cannot be read, or is of a version that is not known.
    #[error("{} cannot be understood: {why}", path.display())]
    Unreadable {
        /// The manifest.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A file is not what it was when the backup was made.
    #[error("{} is not as it was when the backup was made: {why}", path.display())]
    Changed {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl Manifest {
    /// Hashes the files, which must be durable already.
    pub(super) fn of(dir: &Path, names: &[String], taken_at: i64, (messages, deliveries): (u64, u64)) -> io::Result<Self> {
        let entry = |name: &String| {
            let (size, sha256) = hash(&dir.join(name))?;
            Ok(Entry { name: name.clone(), size, sha256 })
        };
        let made_by = concat!("hve-relay ", env!("CARGO_PKG_VERSION")).to_owned();
        Ok(Self { format: FORMAT, taken_at, made_by, messages, deliveries, files: names.iter().map(entry).collect::<io::Result<_>>()? })
    }

    /// Writes it, durably. From here on the folder is a backup.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let (path, part) = (dir.join(NAME), dir.join(NAME).with_added_extension("part"));
        let mut file = create_file(&part)?;
        file.write_all(&serde_json::to_vec_pretty(self).map_err(io::Error::other)?)?;
        file.sync_all()?;
        fs::rename(&part, &path)?;
        sync_directory(dir)
    }

    /// Reads it and holds every file against it. `told` hears of each.
    ///
    /// # Errors
    /// If it is not there, or anything is not as it was.
    pub fn verify(dir: &Path, mut told: impl FnMut(&str)) -> Result<Self, NotABackup> {
        let path = dir.join(NAME);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(NotABackup::NoManifest(dir.to_owned())),
            Err(error) => return Err(NotABackup::Unreadable { path, why: error.to_string() }),
        };
        let manifest: Self =
            serde_json::from_slice(&text).map_err(|error| NotABackup::Unreadable { path: path.clone(), why: error.to_string() })?;
        if manifest.format != FORMAT {
            let why = format!("it is of form {}, and this program knows {FORMAT}; it was made by a newer hve-relay", manifest.format);
            return Err(NotABackup::Unreadable { path, why });
        }
        for Entry { name, size, sha256 } in &manifest.files {
            told(name);
            let path = dir.join(name);
            let changed = |why: String| NotABackup::Changed { path: path.clone(), why };
            // Nothing outside is meant.
            if Path::new(name).components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
                return Err(changed("a backup has no such file".to_owned()));
            }
            let (found, hashed) = hash(&path).map_err(|error| changed(error.to_string()))?;
            if found != *size {
                return Err(changed(format!("it has {found} octets, and had {size}")));
            }
            if hashed != *sha256 {
                return Err(changed("its content is another".to_owned()));
            }
        }
        Ok(manifest)
    }

    /// The files, by their path in the backup.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|entry| entry.name.as_str())
    }
}

/// Length and hash of a file.
fn hash(path: &Path) -> io::Result<(u64, String)> {
    let (mut file, mut context, mut size) = (File::open(path)?, Context::new(&SHA256), 0);
    let mut piece = vec![0; 256 << 10];
    loop {
        match file.read(&mut piece)? {
            0 => break,
            read => {
                context.update(&piece[..read]);
                size += read as u64;
            }
        }
    }
    Ok((size, context.finish().as_ref().iter().map(|octet| format!("{octet:02x}")).collect()))
}
