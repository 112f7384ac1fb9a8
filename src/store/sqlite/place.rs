//! The data directory: who may use it, what lies where, and files that vanish unless they are kept.
//!
//! ```text
//! lock                                held by the one process that uses the directory; its pid is in it
//! queue.db, queue.db-wal, -shm        the database
//! queue.db.v1                         what it was before its tables were brought up from version 1
//! history.db, -wal, -shm              what became of mail; see `store::history`
//! content/9F/01KA…Z.eml               a content too large for the database, under characters 7 and 8 of its queue id
//! content/9F/01KA…Z.eml.part          one that is still coming in
//! ballast                             room that is given up when the disk is full
//! restoring                           a restore has begun and not come to its end: nobody opens the queue
//! restore.part/, before-restore-1/    what a restore puts into place, and what it has replaced
//! lost+found/                         what `fsck --repair` has taken out
//! ```
//!
//! Network file systems are refused: their locks and syncs do not keep what this store promises.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, lchown};
use std::path::{Path, PathBuf};

use super::OpenError;
use crate::mail::QueueId;

/// The data directory's paths.
#[derive(Debug, Clone)]
pub(super) struct Place {
    dir: PathBuf,
}

impl Place {
    /// Creates what is missing, for the owner alone, and takes the lock, which lasts as long as the file that is returned.
    ///
    /// # Errors
    /// If the directory cannot be created, is on a network file system, or is in use.
    pub(super) fn take(dir: &Path) -> Result<(Self, File), OpenError> {
        let (place, lock) = Self::take_unfinished(dir)?;
        // Under the lock, so that no restore begins or ends meanwhile.
        if place.restoring().exists() {
            return Err(OpenError::Restoring { dir: dir.to_owned() });
        }
        Ok((place, lock))
    }

    /// The paths alone, of a directory that another process may use.
    pub(super) fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// As [`Self::take`], also where a restore has not come to its end.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub(super) fn take_unfinished(dir: &Path) -> Result<(Self, File), OpenError> {
        let place = Self { dir: dir.to_owned() };
        private_directories(&place.content()).map_err(|source| place.trouble("cannot create the directory", source))?;
        if let Some(name) = network_file_system(dir).map_err(|error| place.trouble("cannot examine the file system", error))? {
            return Err(OpenError::NetworkFileSystem { dir: dir.to_owned(), name });
        }
        let lock = place.lock()?;
        Ok((place, lock))
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn database(&self) -> PathBuf {
        self.dir.join("queue.db")
    }

    pub(super) fn ballast(&self) -> PathBuf {
        self.dir.join("ballast")
    }

    /// Is there while a restore puts its files into place.
    pub(super) fn restoring(&self) -> PathBuf {
        self.dir.join("restoring")
    }

    pub(super) fn content(&self) -> PathBuf {
        self.dir.join("content")
    }

    /// Where the content of a message lies if it is not in the database. Characters 7 and 8 of a queue id change every 8 ms and start over
    /// every 8 s: that spreads the files over 1,024 directories.
    pub(super) fn content_of(&self, id: QueueId) -> PathBuf {
        self.dir.join(Self::name_of(id))
    }

    /// The same within the directory.
    pub(super) fn name_of(id: QueueId) -> String {
        let name = id.to_string();
        let shelf = name.get(6..8).unwrap_or("00");
        format!("content/{shelf}/{name}.eml")
    }

    pub(super) fn trouble(&self, what: &'static str, source: io::Error) -> OpenError {
        OpenError::Directory { what, dir: self.dir.clone(), source }
    }

    fn lock(&self) -> Result<File, OpenError> {
        let cannot = |source| self.trouble("cannot lock the directory", source);
        let path = self.dir.join("lock");
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(cannot)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // The holder may be about to write its pid; then the message goes without it.
                let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(OpenError::InUse { dir: self.dir.clone(), holder: Holder(pid) });
            }
            Err(TryLockError::Error(source)) => return Err(cannot(source)),
        }
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(cannot)?;
        Ok(file)
    }
}

/// The name of the file system that a directory is on, if that lies on another machine.
///
/// # Errors
/// If the file system cannot be asked.
pub fn network_file_system(dir: &Path) -> io::Result<Option<&'static str>> {
    Ok(name_of_network(rustix::fs::statfs(dir)?.f_type as i64))
}

/// The process that holds a data directory, if there is one. It is looked up and not tried: whoever tried would be in the way of a relay that
/// starts in that moment.
pub fn holder(dir: &Path) -> Option<u32> {
    let path = dir.join("lock");
    let (inode, pid) = (fs::metadata(&path).ok()?.ino(), fs::read_to_string(&path).ok()?.trim().parse::<u32>().ok()?);
    // proc_locks(5): number, kind, mode, access, pid, device and inode, range.
    let is_it = |line: &str| {
        let mut words = line.split_whitespace().skip(4);
        words.next() == Some(pid.to_string().as_str())
            && words.next().is_some_and(|place| place.rsplit(':').next() == Some(inode.to_string().as_str()))
    };
    fs::read_to_string("/proc/locks").ok()?.lines().any(is_it).then_some(pid)
}

/// The process that holds a lock, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder(Option<u32>);

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "another process (pid {pid})"),
            None => f.write_str("another process"),
        }
    }
}

/// Gives all that is in a data directory to whom the directory belongs, when this is dropped: whoever replaces or repairs it may be root, and the
/// relay is not.
#[derive(Debug)]
pub(super) struct Given<'a>(pub(super) &'a Path);

impl Drop for Given<'_> {
    fn drop(&mut self) {
        // Root may do that, and nobody else has to.
        let _ = give(self.0);
    }
}

fn give(dir: &Path) -> io::Result<()> {
    let owner = fs::metadata(dir)?;
    if !rustix::process::geteuid().is_root() || owner.uid() == 0 {
        return Ok(());
    }
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let facts = entry.metadata()?;
            if facts.uid() != owner.uid() {
                lchown(entry.path(), Some(owner.uid()), Some(owner.gid()))?;
            }
            if facts.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    Ok(())
}

/// A file that is removed when this is dropped, unless it was kept.
#[derive(Debug)]
pub(super) struct Doomed {
    path: PathBuf,
    kept: bool,
}

impl Doomed {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, kept: false }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// From here on the file stays.
    pub(super) fn keep(&mut self) {
        self.kept = true;
    }

    /// The file is doomed again.
    pub(super) fn doom(&mut self) {
        self.kept = false;
    }

    /// Gives the file another name, which no other file may have.
    ///
    /// # Errors
    /// As the file system has them; the old name is then still the one that is removed.
    pub(super) fn rename(&mut self, path: PathBuf) -> io::Result<()> {
        // Nobody comes in between: whoever wants that name must have had this one before.
        if path.try_exists()? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        fs::rename(&self.path, &path)?;
        self.path = path;
        Ok(())
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed now is swept at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Creates a file for writing that did not exist, and the directory that it lies in, durably, if that is missing.
pub(super) fn create_file(path: &Path) -> io::Result<File> {
    let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match create() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let dir = path.parent().unwrap_or(Path::new("."));
            private_directories(dir)?;
            sync_directory(dir.parent().unwrap_or(dir))?;
            create()
        }
        created => created,
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Makes a directory and those above it, for the owner alone; those that are there stay as they are.
pub(super) fn private_directories(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// The name of the file system if it lies on another machine (numbers: statfs(2)).
fn name_of_network(magic: i64) -> Option<&'static str> {
    match magic as u32 {
        0x6969 => Some("NFS"),
        0x517B | 0xFE53_4D42 => Some("SMB"),
        0xFF53_4D42 => Some("CIFS"),
        0x0102_1997 => Some("9P"),
        0x00C3_6400 => Some("Ceph"),
        0x5346_414F => Some("AFS"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_file_systems_of_other_machines() {
        assert_eq!(name_of_network(0x6969), Some("NFS"));
        assert_eq!(name_of_network(0xFF53_4D42), Some("CIFS"));
        // On some platforms the number is signed and 32 bits wide.
        assert_eq!(name_of_network(i64::from(0xFE53_4D42_u32 as i32)), Some("SMB"));
        assert_eq!(name_of_network(0xEF53), None, "ext4");
        assert_eq!(name_of_network(0x0102_1994), None, "tmpfs");
    }

    #[test]
    fn is_for_the_owner_alone_and_for_one_process() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let dir = temp.path().join("a/b");
        let (place, lock) = Place::take(&dir).expect("first");
        assert_eq!(fs::metadata(place.content()).expect("content").mode() & 0o777, 0o700);
        let second = Place::take(&dir).expect_err("locked").to_string();
        assert!(second.contains(&format!("pid {}", std::process::id())), "{second}");
        assert_eq!(holder(&dir), Some(std::process::id()));
        drop(lock);
        assert_eq!(holder(&dir), None, "although the file still has its pid");
        Place::take(&dir).expect("free again");
    }

    #[test]
    fn a_doomed_file_goes_unless_kept() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let path = temp.path().join("shelf/x.part");
        create_file(&path).expect("created with its directory");
        assert!(create_file(&path).is_err(), "never overwrites");
        let mut file = Doomed::new(path.clone());
        file.rename(temp.path().join("shelf/x")).expect("renamed");
        file.keep();
        drop(file);
        let mut file = Doomed::new(temp.path().join("shelf/x"));
        assert!(file.path().exists());
        file.keep();
        file.doom();
        drop(file);
        assert!(!temp.path().join("shelf/x").exists());
    }
}
