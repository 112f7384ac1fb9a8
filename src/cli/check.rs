//! `hve-relay check`: says all that is wrong with a configuration, or what it will do.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::config::{Config, Examined};
use crate::daemon;
use crate::intake::Overlap;

/// sysexits(3): a configuration that cannot be used.
const EX_CONFIG: u8 = 78;

/// What the arguments ask for.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = super::CONFIG)]
    config: PathBuf,
    /// Print the whole configuration as it is understood, each value with where it comes from: a line of a file, a profile, a default. Secrets
    /// are not shown.
    #[arg(long)]
    effective: bool,
}

/// Problems and warnings go to standard error, one on a line; the summary of a good configuration to standard output, and which client's
/// networks lie in another's, or all of its values.
/// Exit status 0, 66 (EX_NOINPUT: no such file) or 78 (EX_CONFIG: problems), as in sysexits.h.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    // A reader that has gone away, such as `head`, changes nothing about the result.
    match Config::examine(&arguments.config) {
        Ok(examined) => {
            for warning in &examined.warnings {
                let _ = writeln!(io::stderr(), "{warning}");
            }
            open_files(&arguments.config, &examined.config);
            if arguments.effective {
                let _ = write!(io::stdout(), "{}", examined.effective);
            } else {
                describe(&arguments.config, &examined.config);
            }
            surroundings(&examined)
        }
        Err(problems) => {
            let _ = writeln!(io::stderr(), "{problems}");
            ExitCode::from(problems.exit_status())
        }
    }
}

/// Warns of a configuration that can need more open files than this process may have.
fn open_files(path: &Path, config: &Config) {
    let (needed, allowed) = (daemon::open_files_needed(config), daemon::open_files_allowed());
    if needed > allowed {
        let _ = writeln!(
            io::stderr(),
            "{}: warning: limits.sessions: {} sessions can need {needed} open files, and from here {allowed} may be opened: raise that limit (LimitNOFILE= in the systemd unit), or lower limits.sessions; until then there are fewer sessions",
            path.display(),
            config.intake.sessions
        );
    }
}

fn describe(path: &Path, config: &Config) {
    let _ = writeln!(io::stdout(), "{}: {config}", path.display());
    for Overlap { decides, inner, other, outer } in config.intake.overlaps() {
        let _ = writeln!(io::stdout(), "{inner} lies in {outer} of client \"{other}\": connections from there are client \"{decides}\"");
    }
}

/// Looks at what this machine has to say: addresses that cannot be listened on, files that the relay's user cannot read.
fn surroundings(Examined { config, files, .. }: &Examined) -> ExitCode {
    let mut status = ExitCode::SUCCESS;
    // Of a relay that runs already nothing is to be found out by trying.
    let runs = UnixStream::connect(&config.control_socket).is_ok();
    let page = config.admin.listen.iter().copied().filter(|_| config.admin.is_written);
    for address in config.listeners.iter().map(|listener| listener.address).chain(page) {
        let Err(error) = TcpListener::bind(address) else { continue };
        if let Some((is_problem, why)) = obstacle(address, &error, runs) {
            let severity = if is_problem { "" } else { "warning: " };
            let _ = writeln!(io::stderr(), "{severity}listener {address}: {why}");
            if is_problem {
                status = ExitCode::from(EX_CONFIG);
            }
        }
    }
    for warning in unreadable(config, files) {
        let _ = writeln!(io::stderr(), "{warning}");
    }
    status
}

/// Whether the relay could not start for that reason, and the reason; none if it is as it should be.
fn obstacle(address: SocketAddr, error: &io::Error, runs: bool) -> Option<(bool, String)> {
    match error.kind() {
        ErrorKind::AddrInUse if runs => None,
        ErrorKind::AddrInUse => Some((
            false,
            format!(
                "another program listens there, which `ss -ltnp 'sport = :{}'` names: unless it is hve-relay.socket, stop it, or choose another port",
                address.port()
            ),
        )),
        ErrorKind::PermissionDenied => {
            Some((false, "this user may not listen there: the relay needs CAP_NET_BIND_SERVICE, as its systemd unit has it".to_owned()))
        }
        ErrorKind::AddrNotAvailable => {
            Some((true, "no interface of this machine has that address: write one of those that `ip address` shows".to_owned()))
        }
        _ => Some((true, format!("cannot be listened on: {error}"))),
    }
}

/// Files that root, who looks, can read and the relay, which runs as the owner of the data directory, cannot.
fn unreadable(config: &Config, files: &[(String, PathBuf)]) -> Vec<String> {
    let Ok(owner) = fs::metadata(&config.store.data_dir) else { return Vec::new() };
    if !rustix::process::geteuid().is_root() || owner.uid() == 0 {
        return Vec::new();
    }
    let open = |path: &Path, bit: u32| {
        let Ok(facts) = fs::metadata(path) else { return true };
        let shift = match (facts.uid() == owner.uid(), facts.gid() == owner.gid()) {
            (true, _) => 6,
            (_, true) => 3,
            _ => 0,
        };
        facts.mode() >> shift & bit != 0
    };
    let blocked = |path: &&(String, PathBuf)| !open(&path.1, 4) || path.1.ancestors().skip(1).any(|folder| !open(folder, 1));
    let told = |(place, path): &(String, PathBuf)| {
        format!(
            "{place}: warning: {path} cannot be read by user {}, who owns {}: run: chgrp {} {path} && chmod g+r {path}",
            owner.uid(),
            config.store.data_dir.display(),
            owner.gid(),
            path = path.display(),
        )
    };
    files.iter().filter(blocked).map(told).collect()
}
