//! `hve-relay password`: the hash of a password, for `password_hash` of a `[[user]]`.
//!
//! At a terminal it is asked for twice and not shown; from a pipe or a file it is one line. It is never an argument, which every user of the
//! machine could see.

use std::io::{self, BufRead, IsTerminal, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use ring::rand::{SecureRandom, SystemRandom};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::{EX_IOERR, EX_USAGE};
use crate::intake::PasswordHash;
use crate::secret::Secret;

/// Octets of a salt (RFC 9106 §3.1).
const SALT: usize = 16;

/// Why there is no hash.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("cannot read the password: {0}")]
    Input(#[from] io::Error),
    #[error("the two are not the same")]
    NotTheSame,
    #[error("an empty password is none")]
    Empty,
    #[error("the system gives no random numbers")]
    NoSalt,
}

/// Prints the hash to standard output, what else there is to say to standard error. Exit status 0, 64 (no password) or 74.
pub(super) fn run() -> ExitCode {
    match hash() {
        Ok(hash) => {
            // A reader that has gone away wanted nothing.
            let _ = writeln!(io::stdout(), "{}", hash.as_str());
            ExitCode::SUCCESS
        }
        Err(fault) => {
            let _ = writeln!(io::stderr(), "hve-relay: {fault}");
            ExitCode::from(if matches!(fault, Fault::NotTheSame | Fault::Empty) { EX_USAGE } else { EX_IOERR })
        }
    }
}

fn hash() -> Result<PasswordHash, Fault> {
    let password = if io::stdin().is_terminal() {
        let first = asked("Password: ")?;
        if asked("Again: ")? != first {
            return Err(Fault::NotTheSame);
        }
        first
    } else {
        line()?
    };
    if password.is_empty() {
        return Err(Fault::Empty);
    }
    let mut salt = [0; SALT];
    SystemRandom::new().fill(&mut salt).map_err(|_| Fault::NoSalt)?;
    PasswordHash::of(&Secret::new(password.to_string()), &salt).map_err(|_| Fault::NoSalt)
}

/// Asks at the terminal, which shows nothing of the answer.
fn asked(prompt: &str) -> io::Result<Zeroizing<String>> {
    let _quiet = Quiet::begin()?;
    let mut terminal = io::stderr();
    write!(terminal, "{prompt}")?;
    terminal.flush()?;
    let line = line();
    // The line end was not shown either.
    let _ = writeln!(terminal);
    line
}

fn line() -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::with_capacity(1_024));
    io::stdin().lock().read_line(&mut line)?;
    let text = line.strip_suffix('\n').unwrap_or(&line);
    Ok(Zeroizing::new(text.strip_suffix('\r').unwrap_or(text).to_owned()))
}

/// A terminal that does not show what is typed, until this goes.
struct Quiet(Termios);

impl Quiet {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin().as_fd())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin().as_fd(), OptionalActions::Flush, &quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // If this fails the terminal is gone.
        let _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Now, &self.0);
    }
}
