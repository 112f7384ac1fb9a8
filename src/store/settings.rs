//! Where the queue lies, what must stay free, and how much of the past is kept.

use std::path::PathBuf;
use std::time::Duration;

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

/// What is kept of the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistorySettings {
    /// For how long; none: nothing is kept.
    pub keep: Option<Duration>,
    /// Octets that it may take; beyond, the oldest goes before its time.
    pub size: u64,
}

impl Default for HistorySettings {
    fn default() -> Self {
        // Three months, as long as Microsoft's own message trace reaches back. The size is measured: 10 million messages take 7.3 GiB.
        Self { keep: Some(Duration::from_secs(90 * 86_400)), size: 8 << 30 }
    }
}
