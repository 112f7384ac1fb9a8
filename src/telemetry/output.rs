//! Where log lines go and how they look: standard error, as JSON or for people.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;

use super::lines::{Lines, Log};
use super::{Format, Level, Settings};

/// How the level of the log is set, once there is a log.
static SETTER: OnceLock<Box<dyn Fn(Level) + Send + Sync>> = OnceLock::new();

/// Logs from that level on.
pub fn set_level(level: Level) {
    if let Some(set) = SETTER.get() {
        set(level);
    }
}

/// Libraries speak only when something is wrong; what they have to say otherwise is not an operator's business.
fn filter(level: Level) -> EnvFilter {
    EnvFilter::new(format!("warn,hve_relay={}", level.as_str()))
}

/// Sends what the settings ask for to standard error, as long as the log that is returned lives. Once for each process: of a second call nothing
/// is heard.
///
/// # Errors
/// If the system gives no thread to write it.
pub fn start(settings: Settings) -> io::Result<Log> {
    let lines = Lines::start(io::stderr())?;
    let terminal = io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter(settings.level)).with_writer(lines.clone()).with_target(false);
    let pretty = match settings.format {
        Format::Auto => terminal,
        Format::Json => false,
        Format::Pretty => true,
    };
    // Of a second log of the process nothing is heard, and its level is nobody's.
    if pretty {
        let builder = builder.with_ansi(terminal).with_filter_reloading();
        let handle = builder.reload_handle();
        if builder.try_init().is_ok() {
            let _ = SETTER.set(Box::new(move |level| drop(handle.reload(filter(level)))));
        }
    } else {
        let builder = builder.json().flatten_event(true).with_current_span(false).with_span_list(false).with_filter_reloading();
        let handle = builder.reload_handle();
        if builder.try_init().is_ok() {
            let _ = SETTER.set(Box::new(move |level| drop(handle.reload(filter(level)))));
        }
    }
    Ok(Log(lines))
}
