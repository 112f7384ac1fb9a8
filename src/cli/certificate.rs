//! `hve-relay certificate`: a certificate that signs itself, for listeners with TLS where nobody issues one.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use rustls::pki_types::ServerName;

use super::{EX_IOERR, EX_USAGE};
use crate::tls;

/// A device's clock may be slow.
const BEFORE: Duration = Duration::from_secs(86_400);

/// What is made, and where.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A name or an address by which devices reach the relay; may be given more than once.
    #[arg(long = "name", value_name = "NAME", required = true, value_parser = name)]
    names: Vec<String>,
    /// The folder for relay.pem (the certificate) and relay.key (its key, closed to other users).
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How long it is valid.
    #[arg(long, value_name = "DAYS", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36500))]
    days: u32,
}

/// Writes the two files and prints what to write into the configuration. Exit status 0, 64 (a name that cannot be) or 74.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let now = SystemTime::now();
    let until = now + Duration::from_secs(u64::from(arguments.days) * 86_400);
    let (certificate, key) = match tls::self_signed(&arguments.names, now - BEFORE, until) {
        Ok(made) => made,
        Err(error) => {
            let _ = writeln!(io::stderr(), "hve-relay: no certificate can be made for {}: {error}", arguments.names.join(", "));
            return ExitCode::from(EX_USAGE);
        }
    };
    let (certificate_file, key_file) = (arguments.out.join("relay.pem"), arguments.out.join("relay.key"));
    let files = [(&key_file, key.as_str(), 0o640), (&certificate_file, certificate.as_str(), 0o644)];
    // Both or none.
    let in_the_way = files.iter().find(|(path, ..)| path.exists()).map(|(path, ..)| (*path, io::ErrorKind::AlreadyExists.into()));
    let write_all = || files.into_iter().try_for_each(|(path, text, mode)| write(path, text, mode).map_err(|error| (path, error)));
    if let Err((path, error)) = in_the_way.map_or_else(write_all, Err) {
        let _ = writeln!(io::stderr(), "hve-relay: cannot write {}: {error}", path.display());
        return ExitCode::from(EX_IOERR);
    }
    let shown = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
    let _ = writeln!(
        io::stdout(),
        "certificate_file = {:?}\nkey_file = {:?}  # must be readable for the relay's user: chgrp hve-relay",
        shown(&certificate_file),
        shown(&key_file)
    );
    ExitCode::SUCCESS
}

fn name(text: &str) -> Result<String, &'static str> {
    ServerName::try_from(text).map(|_| text.to_owned()).map_err(|_| "neither a name nor an address")
}

/// Writes a file that is not there yet.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
