//! The log in a file of its own, with those before it beside it: `relay.log`, `relay.log.1`, `relay.log.2` …
//!
//! The file is begun anew when it would grow beyond its size, and when it is older than it may be, as lines come. It is opened anew when that is
//! asked for, so that something else may rotate it. What cannot be written there, because the disk is full or the directory is gone, goes to
//! standard error; it is tried again with every write, and a line that was cut off is taken back.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::events;
use super::lines::Output;

/// Where the file is, and when it is begun anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSettings {
    /// Its path.
    pub path: PathBuf,
    /// Octets that it has at most, or one write if that is more.
    pub size: u64,
    /// How old it becomes at most.
    pub age: Option<Duration>,
    /// How many are kept besides it.
    pub kept: usize,
}

/// The file that is written.
#[derive(Debug)]
pub(super) struct LogFile<E> {
    settings: FileSettings,
    open: Option<Open>,
    /// Where lines go that cannot be written.
    elsewhere: E,
    /// That was told.
    troubled: bool,
}

#[derive(Debug)]
struct Open {
    file: File,
    size: u64,
    begun: SystemTime,
}

impl Open {
    fn new(path: &Path, now: SystemTime) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(path)?;
        let known = file.metadata()?;
        // Where the file system does not know when a file began, its age counts from here.
        let begun = known.created().unwrap_or(now);
        Ok(Self { file, size: known.len(), begun })
    }

    /// All of it or nothing.
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(lines) {
            // If even that cannot be done, half a line stays.
            let _ = self.file.set_len(self.size);
            return Err(error);
        }
        self.size += lines.len() as u64;
        Ok(())
    }
}

impl<E: Write> LogFile<E> {
    /// Opens it.
    ///
    /// # Errors
    /// As the system has them.
    pub fn open(settings: FileSettings, elsewhere: E) -> io::Result<Self> {
        let open = Some(Open::new(&settings.path, SystemTime::now())?);
        Ok(Self { settings, open, elsewhere, troubled: false })
    }

    fn put_at(&mut self, now: SystemTime, lines: &[u8]) {
        let written = self.try_put(now, lines);
        match written {
            Err(_) => {
                let _ = self.elsewhere.write_all(lines).and_then(|()| self.elsewhere.flush());
            }
            Ok(()) if self.troubled => {
                self.troubled = false;
                events::log_file_written(&self.settings.path);
            }
            Ok(()) => {}
        }
        if let Err(error) = written {
            self.trouble(&error);
        }
    }

    fn try_put(&mut self, now: SystemTime, lines: &[u8]) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|open| self.settings.is_over(open, now, lines.len())) {
            // What cannot be put aside is written on.
            match self.settings.put_aside() {
                Ok(()) => self.open = None,
                Err(error) => self.trouble(&error),
            }
        }
        if self.open.is_none() {
            self.open = Some(Open::new(&self.settings.path, now)?);
        }
        self.open.as_mut().map_or(Ok(()), |open| open.append(lines))
    }

    fn trouble(&mut self, error: &io::Error) {
        if !self.troubled {
            self.troubled = true;
            events::log_file_failed(&self.settings.path, &error.to_string());
        }
    }
}

impl<E: Write + Send> Output for LogFile<E> {
    fn put(&mut self, lines: &[u8]) {
        self.put_at(SystemTime::now(), lines);
    }

    fn reopen(&mut self) {
        // That it is there at once is what whoever has moved the old one waits for.
        self.open = Open::new(&self.settings.path, SystemTime::now()).map_err(|error| self.trouble(&error)).ok();
    }
}

impl FileSettings {
    fn is_over(&self, open: &Open, now: SystemTime, more: usize) -> bool {
        let old = |age: Duration| now.duration_since(open.begun).is_ok_and(|grown| grown >= age);
        open.size > 0 && (open.size + more as u64 > self.size || self.age.is_some_and(old))
    }

    /// Gives each file the next number; the last ones go.
    fn put_aside(&self) -> io::Result<()> {
        let numbered = |number: usize| {
            let mut path = self.path.clone().into_os_string();
            path.push(format!(".{number}"));
            PathBuf::from(path)
        };
        let mut surplus = self.kept;
        while surplus > 0 && remove(&numbered(surplus))? {
            surplus += 1;
        }
        for number in (1..self.kept).rev() {
            match fs::rename(numbered(number), numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        if self.kept == 0 { remove(&self.path).map(drop) } else { fs::rename(&self.path, numbered(1)) }
    }
}

/// Whether there was something to remove.
fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(path: &Path, size: u64, age: Option<Duration>, kept: usize) -> LogFile<Vec<u8>> {
        let settings = FileSettings { path: path.to_owned(), size, age, kept };
        LogFile::open(settings, Vec::new()).expect("it can be opened")
    }

    fn text(path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn a_file_that_has_grown_or_aged_is_begun_anew_and_so_many_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, now) = (folder.path().join("relay.log"), SystemTime::now());
        let mut log = log(&path, 10, Some(Duration::from_secs(60)), 2);
        for line in ["1234\n", "5678\n", "a\n", "b\n"] {
            log.put_at(now, line.as_bytes());
        }
        assert_eq!((text(&path), text(&folder.path().join("relay.log.1"))), ("a\nb\n".to_owned(), "1234\n5678\n".to_owned()));
        let begun = log.open.as_ref().expect("open").begun;
        log.put_at(begun + Duration::from_secs(59), b"c\n");
        assert_eq!(text(&path), "a\nb\nc\n");
        log.put_at(begun + Duration::from_secs(60), b"d\n");
        log.put_at(begun + Duration::from_secs(60), b"too long for it\n");
        let names = |number: usize| text(&folder.path().join(format!("relay.log.{number}")));
        assert_eq!((text(&path).as_str(), names(1).as_str(), names(2).as_str()), ("too long for it\n", "d\n", "a\nb\nc\n"));
        assert!(!folder.path().join("relay.log.3").exists(), "the oldest is gone");
        log.settings.kept = 1;
        log.put_at(now, b"e\n");
        assert_eq!((text(&path).as_str(), names(1).as_str()), ("e\n", "too long for it\n"));
        assert!(!folder.path().join("relay.log.2").exists(), "fewer are kept than before");
        assert!(log.elsewhere.is_empty());
    }

    #[test]
    fn a_file_that_was_moved_away_is_there_again_when_that_is_asked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, moved) = (folder.path().join("relay.log"), folder.path().join("moved"));
        let mut log = log(&path, 1_000, None, 1);
        log.put(b"before\n");
        fs::rename(&path, &moved).expect("moved");
        log.put(b"still there\n");
        log.reopen();
        assert!(path.exists());
        log.put(b"after\n");
        assert_eq!((text(&moved).as_str(), text(&path).as_str()), ("before\nstill there\n", "after\n"));
    }

    #[test]
    fn what_cannot_be_written_there_goes_elsewhere_until_it_can() {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = folder.path().join("log");
        fs::create_dir(&directory).expect("made");
        let mut log = log(&directory.join("relay.log"), 1_000, None, 1);
        fs::remove_dir_all(&directory).expect("removed");
        log.reopen();
        log.put(b"one\n");
        log.put(b"two\n");
        assert_eq!(log.elsewhere, b"one\ntwo\n");
        fs::create_dir(&directory).expect("made again");
        log.put(b"three\n");
        assert_eq!(text(&directory.join("relay.log")), "three\n");
        assert_eq!(log.elsewhere, b"one\ntwo\n");
    }

    #[test]
    fn a_full_disk_loses_no_line_and_leaves_no_half_one() {
        // Every write to it fails as on a full disk.
        let mut log = log(Path::new("/dev/full"), 1_000, None, 1);
        log.put(b"one\n");
        assert!(log.troubled);
        assert_eq!(log.elsewhere, b"one\n");
    }
}
