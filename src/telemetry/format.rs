//! How a line looks: a JSON object, or fields for people. Both show addresses as they may be shown.

use std::fmt::{self, Debug, Write};
use std::sync::{Arc, PoisonError, RwLock};

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::redact::Redactor;

/// How addresses are shown at present; it may be replaced while the relay runs.
pub(super) type Shown = Arc<RwLock<Redactor>>;

/// One object for each event: `timestamp`, `level`, `message` and the event's fields.
#[derive(Debug)]
pub(super) struct Json(pub Shown);

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let redactor = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut line = String::with_capacity(512);
        line.push_str("{\"timestamp\":\"");
        SystemTime.format_time(&mut Writer::new(&mut line))?;
        write!(line, "\",\"level\":\"{}\"", event.metadata().level())?;
        event.record(&mut Object { line: &mut line, redactor: &redactor });
        line.push_str("}\n");
        writer.write_str(&line)
    }
}

/// Members of an object, each behind a comma.
struct Object<'a> {
    line: &'a mut String,
    redactor: &'a Redactor,
}

impl Object<'_> {
    fn member(&mut self, field: &Field, value: &impl Serialize) {
        // The names of fields are names of Rust, and what is written here can be written as JSON.
        if let Ok(value) = serde_json::to_string(value) {
            let _ = write!(self.line, ",\"{}\":{value}", field.name());
        }
    }
}

impl Visit for Object<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.member(field, &self.redactor.shown(field.name(), value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.member(field, &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.member(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.member(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.member(field, &value);
    }
}

/// The message, and behind it `name=value` for each field.
#[derive(Debug)]
pub(super) struct Fields(pub Shown);

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let redactor = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut words = Words { writer, redactor: &redactor, first: true, result: Ok(()) };
        fields.record(&mut words);
        words.result
    }
}

struct Words<'a, 'w> {
    writer: Writer<'w>,
    redactor: &'a Redactor,
    first: bool,
    result: fmt::Result,
}

impl Words<'_, '_> {
    fn word(&mut self, field: &Field, value: &dyn fmt::Display) {
        let blank = if std::mem::take(&mut self.first) { "" } else { " " };
        let name = field.name();
        let written = match (name, self.writer.has_ansi_escapes()) {
            ("message", _) => write!(self.writer, "{blank}{value}"),
            (_, true) => write!(self.writer, "{blank}\x1b[2m{name}=\x1b[0m{value}"),
            (_, false) => write!(self.writer, "{blank}{name}={value}"),
        };
        self.result = self.result.and(written);
    }
}

impl Visit for Words<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let value = format!("{value:?}");
        let shown = self.redactor.shown(field.name(), &value);
        self.word(field, &shown);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let shown = self.redactor.shown(field.name(), value);
        // In quotes, so that it is seen where it ends.
        self.word(field, &format_args!("{shown:?}"));
    }
}
