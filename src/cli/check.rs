//! `hve-relay check`: says all that is wrong with a configuration, or what it will do.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::config::Config;

/// Problems and warnings go to standard error, one on a line; the summary of a good configuration to standard output.
/// Exit status 0, 66 (EX_NOINPUT: no such file) or 78 (EX_CONFIG: problems), as in sysexits.h.
pub fn run(path: &Path) -> ExitCode {
    // A reader that has gone away, such as `head`, changes nothing about the result.
    match Config::load(path) {
        Ok((config, warnings)) => {
            for warning in &warnings {
                let _ = writeln!(io::stderr(), "{warning}");
            }
            let _ = writeln!(io::stdout(), "{}: {config}", path.display());
            ExitCode::SUCCESS
        }
        Err(problems) => {
            let _ = writeln!(io::stderr(), "{problems}");
            ExitCode::from(problems.exit_status())
        }
    }
}
