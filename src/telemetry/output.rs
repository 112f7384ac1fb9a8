//! Where log lines go and how they look, and what of that can be changed while the relay runs.
//!
//! Lines go to standard error, or as JSON into a file. What is logged is said by a level, and by levels for single rooms; an operator may change
//! both until the configuration is read again.
//!
//! The form of lines and where they go change together, under a lock that each line holds from its form to its place in the buffer: so none
//! of the former form comes behind one of the new, or into another's file.

use std::io::{self, IsTerminal, Stderr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layered};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::file::LogFile;
use super::format::{Fields, Json, Shown};
use super::lines::{Lines, Log, Output};
use super::redact::Redactor;
use super::{FileSettings, Format, Level, Redact, Room, Settings};

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogFault {
    /// The system gives no thread that writes it.
    #[error("cannot start the log: {0}")]
    Thread(io::Error),
    /// Its file cannot be opened.
    #[error("cannot write the log to {}: {why} (log.file; its directory must be there, and the relay's user must be able to write to it)", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The system's words.
        why: io::Error,
    },
    /// Addresses are to be hashed, and there is no key for that.
    #[error("cannot use the key in {}: {why} (log.redact = \"hash\")", path.display())]
    Key {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: io::Error,
    },
}

/// What is logged: a level for all, and levels for single rooms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels {
    /// For all rooms that have none of their own.
    pub level: Level,
    /// For single rooms; each stands here once.
    pub rooms: Vec<(Room, Level)>,
}

impl Levels {
    /// The level of a room, or of all.
    pub fn set(&mut self, level: Level, room: Option<Room>) {
        match room {
            None => *self = Self { level, rooms: Vec::new() },
            Some(room) => {
                self.rooms.retain(|(known, _)| *known != room);
                self.rooms.push((room, level));
                self.rooms.sort_unstable();
            }
        }
    }

    /// Libraries speak only when something is wrong; what they have to say otherwise is not an operator's business.
    fn filter(&self) -> EnvFilter {
        let rooms = self.rooms.iter().map(|(room, level)| format!(",hve_relay::{room}={}", level.as_str())).collect::<String>();
        EnvFilter::new(format!("warn,hve_relay={}{rooms}", self.level.as_str()))
    }
}

/// The log of this process, as far as it can be changed.
struct Control {
    lines: Lines,
    form: Arc<RwLock<Form>>,
    /// The form that the command line has asked for, whatever the configuration says.
    forced: Option<Format>,
    shown: Shown,
    filter: reload::Handle<EnvFilter, Registry>,
    present: Mutex<Present>,
}

struct Present {
    /// As the configuration has it.
    configured: Settings,
    levels: Levels,
}

static CONTROL: OnceLock<Control> = OnceLock::new();

/// How lines are written at present.
#[derive(Debug, Clone, Copy)]
enum Form {
    Json,
    Pretty,
}

impl Form {
    fn of(settings: &Settings, forced: Option<Format>) -> Self {
        match (forced.unwrap_or(settings.format), &settings.file) {
            (Format::Json, _) | (_, Some(_)) => Self::Json,
            (Format::Pretty, None) => Self::Pretty,
            (Format::Auto, None) if io::stderr().is_terminal() => Self::Pretty,
            (Format::Auto, None) => Self::Json,
        }
    }
}

/// Writes each event in the form of the moment.
struct Formed<J, P> {
    form: Arc<RwLock<Form>>,
    json: J,
    pretty: P,
}

impl<S: Subscriber, J: Layer<S>, P: Layer<S>> Layer<S> for Formed<J, P> {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        // Held until the line is in the buffer: see the head of this file.
        let form = self.form.read().unwrap_or_else(PoisonError::into_inner);
        match *form {
            Form::Json => self.json.on_event(event, context),
            Form::Pretty => self.pretty.on_event(event, context),
        }
    }
}

/// Sends what the settings ask for where they say, as long as the log that is returned lives. Once for each process: of a second call nothing
/// is heard. A form that is `forced` is kept whatever the settings say, now and later. What is hashed is hashed with a key in the data
/// directory; the `spared` addresses are always shown.
///
/// # Errors
/// If the file or the key cannot be had, or the system gives no thread.
pub fn start(settings: Settings, forced: Option<Format>, data_dir: &Path, spared: Vec<String>) -> Result<Log, LogFault> {
    let shown: Shown = Arc::new(RwLock::new(redactor(settings.redact, data_dir, spared)?));
    let lines = Lines::start(output(settings.file.as_ref())?).map_err(LogFault::Thread)?;
    let form = Arc::new(RwLock::new(Form::of(&settings, forced)));
    let levels = settings.levels.clone();
    let (filter, handle) = reload::Layer::new(levels.filter());
    let layer = || fmt::layer::<Layered<reload::Layer<EnvFilter, Registry>, Registry>>().with_writer(lines.clone()).with_target(false);
    let pretty = layer().with_ansi(io::stderr().is_terminal()).fmt_fields(Fields(shown.clone()));
    let json = layer().event_format(Json(shown.clone()));
    let _ = tracing_subscriber::registry().with(filter).with(Formed { form: form.clone(), json, pretty }).try_init();
    let present = Mutex::new(Present { configured: settings, levels });
    let _ = CONTROL.set(Control { lines: lines.clone(), form, forced, shown, filter: handle, present });
    Ok(Log(lines))
}

/// What SIGHUP does to the log: its file is opened anew, and its levels are those of the configuration again.
pub fn hang_up() {
    if let Some(control) = CONTROL.get() {
        control.lines.reopen();
        let mut present = control.present();
        let configured = present.configured.levels.clone();
        control.set(&mut present, configured);
    }
}

/// New settings with all that they need, to be taken over or dropped.
pub struct Prepared {
    settings: Settings,
    redactor: Redactor,
    /// None: the file, or standard error, stays.
    output: Option<Box<dyn Output>>,
}

/// Has ready what new settings need; so far nothing changes.
///
/// # Errors
/// If the file or the key cannot be had.
pub fn prepare(settings: &Settings, data_dir: &Path, spared: Vec<String>) -> Result<Prepared, LogFault> {
    let redactor = redactor(settings.redact, data_dir, spared)?;
    let stays = CONTROL.get().is_none_or(|control| control.present().configured.file == settings.file);
    let output = if stays { None } else { Some(output(settings.file.as_ref())?) };
    Ok(Prepared { settings: settings.clone(), redactor, output })
}

impl Prepared {
    /// From here on these are the settings: lines before are written as they were meant to be, and where.
    pub fn take_over(self) {
        let Self { settings, redactor, output } = self;
        let Some(control) = CONTROL.get() else { return };
        let mut form = control.form.write().unwrap_or_else(PoisonError::into_inner);
        *form = Form::of(&settings, control.forced);
        match output {
            Some(output) => control.lines.replace(output),
            None => control.lines.reopen(),
        }
        *control.shown.write().unwrap_or_else(PoisonError::into_inner) = redactor;
        drop(form);
        let mut present = control.present();
        let levels = settings.levels.clone();
        present.configured = settings;
        control.set(&mut present, levels);
    }
}

/// Logs from here on what has this level, in one room or in all, until the configuration is read again.
pub fn set_level(level: Level, room: Option<Room>) -> Levels {
    let Some(control) = CONTROL.get() else { return Levels { level, rooms: Vec::new() } };
    let mut present = control.present();
    let mut levels = present.levels.clone();
    levels.set(level, room);
    control.set(&mut present, levels.clone());
    levels
}

/// What is logged at present; none: nothing is.
pub fn present() -> Option<(Settings, Levels)> {
    CONTROL.get().map(|control| {
        let present = control.present();
        (present.configured.clone(), present.levels.clone())
    })
}

/// What stands for an address in the log.
pub fn shown(address: &str) -> String {
    CONTROL.get().map_or_else(
        || address.to_owned(),
        |control| control.shown.read().unwrap_or_else(PoisonError::into_inner).whole(address).into_owned(),
    )
}

impl Control {
    fn present(&self) -> MutexGuard<'_, Present> {
        // No step leaves it half changed.
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, present: &mut Present, levels: Levels) {
        // It fails only when nobody listens any more.
        let _ = self.filter.reload(levels.filter());
        present.levels = levels;
    }
}

fn output(file: Option<&FileSettings>) -> Result<Box<dyn Output>, LogFault> {
    let Some(settings) = file else { return Ok(Box::new(io::stderr())) };
    let opened: io::Result<LogFile<Stderr>> = LogFile::open(settings.clone(), io::stderr());
    opened.map(|log| Box::new(log) as Box<dyn Output>).map_err(|why| LogFault::File { path: settings.path.clone(), why })
}

fn redactor(redact: Redact, data_dir: &Path, spared: Vec<String>) -> Result<Redactor, LogFault> {
    match redact {
        Redact::None => Ok(Redactor::default()),
        Redact::LocalPart => Ok(Redactor::without_local_part(spared)),
        Redact::Hash => Redactor::hashed(data_dir, spared).map_err(|why| LogFault::Key { path: data_dir.join("log.key"), why }),
    }
}
