//! `hve-relay check`: says all that is wrong with a configuration, or what it will do.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::config::Config;
use crate::intake::Overlap;

/// Problems and warnings go to standard error, one on a line; the summary of a good configuration to standard output, and which client's
/// networks lie in another's.
/// Exit status 0, 66 (EX_NOINPUT: no such file) or 78 (EX_CONFIG: problems), as in sysexits.h.
pub fn run(path: &Path) -> ExitCode {
    // A reader that has gone away, such as `head`, changes nothing about the result.
    match Config::load(path) {
        Ok((config, warnings)) => {
            for warning in &warnings {
                let _ = writeln!(io::stderr(), "{warning}");
            }
            let _ = writeln!(io::stdout(), "{}: {config}", path.display());
            for Overlap { decides, inner, other, outer } in config.intake.overlaps() {
                let _ = writeln!(
                    io::stdout(),
                    "{inner} lies in {outer} of client \"{other}\": connections from there are client \"{decides}\""
                );
            }
            ExitCode::SUCCESS
        }
        Err(problems) => {
            let _ = writeln!(io::stderr(), "{problems}");
            ExitCode::from(problems.exit_status())
        }
    }
}
