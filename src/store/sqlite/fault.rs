//! What an error of SQLite or of the file system means for the queue, and the latch that makes a fatal one final.
//!
//! After a failed write or sync nobody knows what is on the disk: the kernel may drop the pages and report the next sync as good. So nothing is
//! tried again; the [`Latch`] closes, every later operation fails as fatal, and only a restart, which reads what is really there, opens it.

use std::io;
use std::sync::OnceLock;

use rusqlite::{ErrorCode, ffi};

use crate::store::StoreError;

/// Closes at the first fatal fault and stays closed.
#[derive(Debug, Default)]
pub(super) struct Latch(OnceLock<String>);

impl Latch {
    /// # Errors
    /// [`StoreError::Fatal`] with the first fault, once there was one.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.0.get().map_or(Ok(()), |fault| Err(StoreError::Fatal(fault.clone())))
    }

    /// Closes if the error is fatal; gives the error back.
    pub(super) fn note(&self, error: StoreError) -> StoreError {
        if let StoreError::Fatal(fault) = &error {
            let _ = self.0.set(fault.clone());
        }
        error
    }

    /// Whether it has closed.
    pub(super) fn is_closed(&self) -> bool {
        self.0.get().is_some()
    }
}

/// What an error of the database means.
pub(super) fn of_sqlite(error: &rusqlite::Error) -> StoreError {
    let text = error.to_string();
    let Some(cause) = error.sqlite_error() else {
        // A row that does not read as what was written: somebody edited the database by hand.
        return StoreError::Unavailable(text);
    };
    match cause.code {
        ErrorCode::DiskFull => StoreError::Full(text),
        // The shared memory of the write-ahead log could not grow: a full disk, and no harm is done to what is stored.
        _ if cause.extended_code == ffi::SQLITE_IOERR_SHMSIZE => StoreError::Full(text),
        // Read-only comes from a file system that was remounted after an error, or from a database file that was moved away.
        ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::ReadOnly => StoreError::Fatal(text),
        _ => StoreError::Unavailable(text),
    }
}

/// What an error with a file means, other than of a sync: of that, each is fatal.
pub(super) fn of_file(what: &str, error: &io::Error) -> StoreError {
    let text = format!("{what}: {error}");
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full(text),
        _ if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => StoreError::Fatal(text),
        _ => StoreError::Unavailable(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_full_disk_from_a_failing_one() {
        let of = |code: i32| of_sqlite(&rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        for code in [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_SHMSIZE] {
            assert!(matches!(of(code), StoreError::Full(_)), "{code}");
        }
        for code in
            [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_CORRUPT, ffi::SQLITE_NOTADB, ffi::SQLITE_READONLY_DBMOVED]
        {
            assert!(matches!(of(code), StoreError::Fatal(_)), "{code}");
        }
        for code in [ffi::SQLITE_BUSY, ffi::SQLITE_NOMEM, ffi::SQLITE_CONSTRAINT_PRIMARYKEY] {
            assert!(matches!(of(code), StoreError::Unavailable(_)), "{code}");
        }
        assert!(matches!(of_file("x", &io::Error::from_raw_os_error(28)), StoreError::Full(_)), "ENOSPC");
        assert!(matches!(of_file("x", &io::Error::from_raw_os_error(5)), StoreError::Fatal(_)), "EIO");
        assert!(matches!(of_file("x", &io::Error::from_raw_os_error(24)), StoreError::Unavailable(_)), "EMFILE");
    }

    #[test]
    fn a_fatal_fault_is_final_and_the_first_one_is_told() {
        let latch = Latch::default();
        latch.note(StoreError::Full("full".into()));
        assert_eq!(latch.check(), Ok(()));
        latch.note(StoreError::Fatal("first".into()));
        latch.note(StoreError::Fatal("second".into()));
        assert_eq!(latch.check(), Err(StoreError::Fatal("first".into())));
    }
}
