//! What the log says: which levels, and which word stands for an address. It is the process's log, so nobody else need be asked.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::extract::Path;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::routes::read;
use super::{Operator, Refusal};
use crate::telemetry::{self, Level, Levels, Redact, Room};

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// In all rooms that have no level of their own.
    pub level: String,
    /// In single rooms.
    pub rooms: BTreeMap<String, String>,
    /// How addresses are shown.
    pub redact: String,
    /// The file; none: standard error.
    pub file: Option<String>,
}

/// What is to be logged from here on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetLevel {
    /// The level.
    pub level: String,
    /// The room; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<String>,
}

/// What stands for an address in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Word {
    /// What to look for.
    pub word: String,
}

/// The routes below `/v1/log`.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/v1/log", get(show).post(set)).route("/v1/log/words/{address}", get(word))
}

async fn show() -> Result<Json<LogEntry>, Refusal> {
    let none = || Refusal::Unavailable("this process has no log".to_owned());
    let (settings, levels) = telemetry::present().ok_or_else(none)?;
    let Levels { level, rooms } = levels;
    Ok(Json(LogEntry {
        level: level.as_str().to_owned(),
        rooms: rooms.iter().map(|(room, level)| (room.to_string(), level.as_str().to_owned())).collect(),
        redact: settings.redact.as_str().to_owned(),
        file: settings.file.map(|file| file.path.display().to_string()),
    }))
}

async fn set(by: Operator, body: Bytes) -> Result<Json<LogEntry>, Refusal> {
    let SetLevel { level, room } = read(&body)?;
    let invalid = |error: &dyn std::fmt::Display| Refusal::Invalid(error.to_string());
    let level: Level = level.parse().map_err(|error| invalid(&error))?;
    let room: Option<Room> = room.map(|room| room.parse()).transpose().map_err(|error| invalid(&error))?;
    // So that it is told at whichever of the two levels says more.
    if level < Level::Warn {
        telemetry::log_level_set(level, room, &by.0);
        telemetry::set_level(level, room);
    } else {
        telemetry::set_level(level, room);
        telemetry::log_level_set(level, room, &by.0);
    }
    show().await
}

async fn word(Path(address): Path<String>) -> Result<Json<Word>, Refusal> {
    match telemetry::present() {
        Some((settings, _)) if settings.redact == Redact::Hash => Ok(Json(Word { word: telemetry::shown(&address) })),
        _ => Err(Refusal::Conflict("no word stands for an address: the log does not hash them (log.redact)".to_owned())),
    }
}
