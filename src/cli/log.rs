//! `hve-relay log`: what the running relay logs, and for a while more or less of it.

use std::process::ExitCode;

use clap::Args;

use super::control::{Contact, Failure, encoded};
use super::show::{self, line};
use crate::admin::{LogEntry, SetLevel, Word};
use crate::telemetry::{Level, Room};

/// What is asked for.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    contact: Contact,
    /// What to log from here on: error, warn, info, debug or trace. Until SIGHUP, or the relay starts again. Without it, what is logged is shown.
    level: Option<Level>,
    /// Only in this room; deploy/events.md says which events each has.
    #[arg(long, requires = "level")]
    room: Option<Room>,
    /// The word that stands for an address in the log, where log.redact is "hash".
    #[arg(long, value_name = "ADDRESS", conflicts_with = "level")]
    word_for: Option<String>,
    /// As JSON, as the relay gives it.
    #[arg(long)]
    json: bool,
}

/// Does it and returns the exit status.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    answer(arguments).map_or_else(|failure| failure.tell(), |()| ExitCode::SUCCESS)
}

fn answer(Arguments { contact, level, room, word_for, json }: &Arguments) -> Result<(), Failure> {
    if let Some(address) = word_for {
        let found: Word = contact.get(&format!("/v1/log/words/{}", encoded(address)))?;
        if *json {
            show::json(&found);
        } else {
            line(found.word);
        }
        return Ok(());
    }
    let entry: LogEntry = match level {
        None => contact.get("/v1/log")?,
        Some(level) => {
            let set = SetLevel { level: level.as_str().to_owned(), room: room.map(|room| room.to_string()) };
            contact.post("/v1/log", &set)?
        }
    };
    if *json {
        show::json(&entry);
        return Ok(());
    }
    line(format_args!("level    {}", entry.level));
    for (room, level) in &entry.rooms {
        line(format_args!("  {room}: {level}"));
    }
    line(format_args!("to       {}", entry.file.as_deref().unwrap_or("standard error")));
    line(format_args!("redact   {}", entry.redact));
    Ok(())
}
