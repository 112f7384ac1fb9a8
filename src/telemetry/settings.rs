//! What is logged, and in which form.

use std::str::FromStr;

use super::{FileSettings, Levels};

/// What is logged, where, and in which form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The form on standard error; a file has JSON.
    pub format: Format,
    /// What is left out.
    pub levels: Levels,
    /// How addresses are shown.
    pub redact: Redact,
    /// The file; none: standard error.
    pub file: Option<FileSettings>,
}

/// How addresses are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redact {
    /// As they are.
    None,
    /// Their domain alone.
    LocalPart,
    /// As a word that stands for them.
    Hash,
}

impl Redact {
    /// Every way, as it is written in a configuration.
    pub const WORDS: &'static [(&'static str, Self)] = &[("none", Self::None), ("local-part", Self::LocalPart), ("hash", Self::Hash)];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        Self::WORDS.iter().find(|(_, redact)| *redact == self).map_or("none", |(word, _)| word)
    }
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Pretty on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object on a line.
    Json,
    /// For people.
    Pretty,
}

impl Format {
    /// Every form, as it is written in a configuration and on the command line.
    pub const WORDS: &'static [(&'static str, Self)] = &[("auto", Self::Auto), ("json", Self::Json), ("pretty", Self::Pretty)];
}

/// The text names no format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a log format is auto, json or pretty")]
pub struct NotAFormat;

impl FromStr for Format {
    type Err = NotAFormat;

    fn from_str(text: &str) -> Result<Self, NotAFormat> {
        Self::WORDS.iter().find(|(word, _)| *word == text).map(|(_, format)| *format).ok_or(NotAFormat)
    }
}

/// The text names no level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a level is error, warn, info, debug or trace")]
pub struct NotALevel;

impl FromStr for Level {
    type Err = NotALevel;

    fn from_str(text: &str) -> Result<Self, NotALevel> {
        Self::WORDS.iter().find(|(word, _)| *word == text).map(|(_, level)| *level).ok_or(NotALevel)
    }
}

/// The least important events that are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What the operator must act upon.
    Error,
    /// What the operator should look at.
    Warn,
    /// What became of each message.
    Info,
    /// Each connection and reply.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// Every level, as it is written in a configuration.
    pub const WORDS: &'static [(&'static str, Self)] =
        &[("error", Self::Error), ("warn", Self::Warn), ("info", Self::Info), ("debug", Self::Debug), ("trace", Self::Trace)];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        Self::WORDS.iter().find(|(_, level)| *level == self).map_or("info", |(word, _)| word)
    }
}
