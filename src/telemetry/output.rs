//! Where log lines go and how they look: standard error, as JSON or for people.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

use super::lines::{Lines, Log};
use super::{Format, Settings};

/// Sends what the settings ask for to standard error, as long as the log that is returned lives. Once for each process: of a second call nothing
/// is heard.
///
/// # Errors
/// If the system gives no thread to write it.
pub fn start(settings: Settings) -> io::Result<Log> {
    let lines = Lines::start(io::stderr())?;
    // Libraries speak only when something is wrong; what they have to say otherwise is not an operator's business.
    let filter = EnvFilter::new(format!("warn,hve_relay={}", settings.level.as_str()));
    let terminal = io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines.clone()).with_target(false);
    let pretty = match settings.format {
        Format::Auto => terminal,
        Format::Json => false,
        Format::Pretty => true,
    };
    let _ = if pretty {
        builder.with_ansi(terminal).try_init().is_ok()
    } else {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init().is_ok()
    };
    Ok(Log(lines))
}
