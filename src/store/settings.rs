//! Where the queue lies and what must stay free.

use std::path::PathBuf;

/// The embedded store's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The directory that holds database, contents and lock; one process at a time.
    pub data_dir: PathBuf,
    /// Octets of the file system that must stay free; below, new mail gets 452.
    pub reserve: u64,
    /// The largest message in octets, assumed where a client announces no size.
    pub message_size: u64,
}
