//! `hve-relay run`: from a configuration file to a running relay.

use std::path::Path;
use std::process::ExitCode;

use super::EX_IOERR;
use crate::config::Config;
use crate::daemon::{self, Inherited};
use crate::telemetry::{self, Format};

/// Runs until a signal comes. A form of the log that is asked for here is kept whatever the configuration says. Problems of the configuration go to standard error as `check` prints them.
pub(super) fn run(path: &Path, log: Option<Format>) -> ExitCode {
    // First of all, as long as the process has no threads.
    let inherited = match Inherited::take() {
        Ok(inherited) => inherited,
        Err(error) => {
            eprintln!("hve-relay: a socket that the service manager has passed on cannot be used: {error}");
            return ExitCode::from(EX_IOERR);
        }
    };
    let (config, warnings) = match Config::load(path) {
        Ok(loaded) => loaded,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(problems.exit_status());
        }
    };
    let log = match telemetry::start(config.log.clone(), log, &config.store.data_dir, config.spared()) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("hve-relay: {error}");
            return ExitCode::from(EX_IOERR);
        }
    };
    warnings.iter().for_each(|warning| telemetry::config_warning(&warning.to_string()));
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            log.say(&format!("hve-relay: cannot start: {error}"));
            return ExitCode::from(EX_IOERR);
        }
    };
    match runtime.block_on(daemon::run(config, path.to_owned(), inherited)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            telemetry::failed(&fault.to_string());
            log.say(&format!("hve-relay: {fault}"));
            ExitCode::from(EX_IOERR)
        }
    }
}
