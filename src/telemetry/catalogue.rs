//! The table of events: what each one is called, how loud it is, what it carries, when it is told, and what an operator does about it.
//!
//! `deploy/events.md` is written from here (`hve-relay reference events`), and the functions of `events` are held to it by tests: each emits the
//! level, the room and the fields of its row and no others. The rows are in `table`. A name, once it is here, is an interface: scripts and alerts look for it.

use std::fmt::{self, Write};
use std::str::FromStr;

use super::Level;
use super::table::{EVENTS, FIELDS};

/// One event.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// The value of `event` in its lines.
    pub name: &'static str,
    /// Which part of the relay tells it; its level is set by this name.
    pub room: Room,
    /// The levels that it may have.
    pub levels: &'static [Level],
    /// Names of [`FIELDS`], with blanks between them; not every line has all of them.
    pub fields: &'static str,
    /// When it is told.
    pub when: &'static str,
    /// What an operator does about it; empty if nothing.
    pub advice: &'static str,
}

/// One field of lines. It means the same in all events.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What its values may hold.
    pub holds: Holds,
    /// What it says.
    pub what: &'static str,
}

/// What matters of a field's values where addresses are not to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// Numbers, times, ids and words of the relay's own: no address.
    Words,
    /// A mail address and nothing else.
    Address,
    /// Text from elsewhere, in which addresses may stand.
    Text,
}

/// The parts of the relay that log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Start, end and service manager.
    Daemon,
    /// The configuration.
    Config,
    /// What clients do.
    Session,
    /// What becomes of mail with the upstream servers, and the tokens for them.
    Upstream,
    /// What goes when, and what rests.
    Schedule,
    /// What operators do.
    Admin,
    /// What people are told by mail.
    Notice,
    /// The queue and the history on disk.
    Store,
    /// The log itself.
    Telemetry,
}

/// The rooms as `tracing` knows them.
pub(super) mod target {
    pub const DAEMON: &str = "hve_relay::daemon";
    pub const CONFIG: &str = "hve_relay::config";
    pub const SESSION: &str = "hve_relay::session";
    pub const UPSTREAM: &str = "hve_relay::upstream";
    pub const SCHEDULE: &str = "hve_relay::schedule";
    pub const ADMIN: &str = "hve_relay::admin";
    pub const NOTICE: &str = "hve_relay::notice";
    pub const STORE: &str = "hve_relay::store";
    pub const TELEMETRY: &str = "hve_relay::telemetry";
}

impl Room {
    /// Every room, as it is written in a configuration and on the command line.
    pub const WORDS: &'static [(&'static str, Self)] = &[
        ("daemon", Self::Daemon),
        ("config", Self::Config),
        ("session", Self::Session),
        ("upstream", Self::Upstream),
        ("schedule", Self::Schedule),
        ("admin", Self::Admin),
        ("notice", Self::Notice),
        ("store", Self::Store),
        ("telemetry", Self::Telemetry),
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        Self::WORDS.iter().find(|(_, room)| *room == self).map_or("daemon", |(word, _)| word)
    }

    /// The target of its events, by which their level is set.
    #[cfg(test)]
    pub(super) fn target(self) -> &'static str {
        match self {
            Self::Daemon => target::DAEMON,
            Self::Config => target::CONFIG,
            Self::Session => target::SESSION,
            Self::Upstream => target::UPSTREAM,
            Self::Schedule => target::SCHEDULE,
            Self::Admin => target::ADMIN,
            Self::Notice => target::NOTICE,
            Self::Store => target::STORE,
            Self::Telemetry => target::TELEMETRY,
        }
    }

    /// What it tells of.
    fn title(self) -> &'static str {
        match self {
            Self::Daemon => "start, end and service manager",
            Self::Config => "the configuration",
            Self::Session => "what clients do",
            Self::Upstream => "what becomes of mail with the upstream servers, and the tokens for them",
            Self::Schedule => "what rests, what goes on, what has left the queue",
            Self::Admin => "what operators do",
            Self::Notice => "what people are told by mail",
            Self::Store => "the queue and the history on disk",
            Self::Telemetry => "the log itself",
        }
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Event {
    /// The names of its fields.
    pub fn field_names(&self) -> impl Iterator<Item = &'static str> {
        self.fields.split_ascii_whitespace()
    }
}

/// The text names no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a room is daemon, config, session, upstream, schedule, admin, notice, store or telemetry")]
pub struct NotARoom;

impl FromStr for Room {
    type Err = NotARoom;

    fn from_str(text: &str) -> Result<Self, NotARoom> {
        Self::WORDS.iter().find(|(word, _)| *word == text).map(|(_, room)| *room).ok_or(NotARoom)
    }
}

/// The field of that name.
pub(super) fn field(name: &str) -> Option<&'static Field> {
    FIELDS.binary_search_by(|field| field.name.cmp(name)).ok().map(|place| &FIELDS[place])
}

/// The event of that name.
pub fn event(name: &str) -> Option<&'static Event> {
    EVENTS.iter().find(|event| event.name == name)
}

/// The table as a page of Markdown: `deploy/events.md`.
pub fn events_page() -> String {
    let mut page = String::from(
        "# Events of the log\n\n\
         Written by `hve-relay reference events` from the table in the code; tests hold both against each other.\n\n\
         Each line is an event. In JSON it is one object: `timestamp` (UTC), `level`, `event`, the fields of its row below, and `message`, the same in\n\
         words. A message's own lines carry its `queue_id`, so that `grep` tells its whole life. Levels: `error` wants somebody now, `warn` wants\n\
         somebody, `info` is the mail's own story, `debug` the dialogue's. The rooms are the names by which levels are set.\n",
    );
    for (word, room) in Room::WORDS {
        let _ = write!(page, "\n## {word}: {}\n\n| event | level | fields | when | what to do |\n|---|---|---|---|---|\n", room.title());
        for event in EVENTS.iter().filter(|event| event.room == *room) {
            let levels = event.levels.iter().map(|level| level.as_str()).collect::<Vec<_>>().join(", ");
            let fields = event.field_names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let _ = writeln!(page, "| `{}` | {levels} | {} | {} | {} |", event.name, or_dash(&fields), event.when, or_dash(event.advice));
        }
    }
    page.push_str("\n## Fields\n\n| field | what it says |\n|---|---|\n");
    for field in FIELDS {
        let _ = writeln!(page, "| `{}` | {} |", field.name, field.what);
    }
    page
}

fn or_dash(text: &str) -> &str {
    if text.is_empty() { "–" } else { text }
}
