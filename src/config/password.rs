//! Where an account's password comes from: a file, a systemd credential or the environment; never the configuration itself.
//!
//! Nothing said here holds a secret. A file's path is shown only if its folder exists, and the name of a variable never, because the easiest
//! mistake is to write the password itself where its place is asked for.

use std::env;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use toml::de::DeValue;
use zeroize::Zeroizing;

use super::problem::{At, Findings};
use super::reader::Section;
use super::value::Wrong;
use crate::secret::{NotASecret, Secret};

/// The account's password, unless there is a problem with it.
pub(super) fn read(account: &Section<'_>, findings: &Findings<'_>) -> Option<Secret> {
    let file = account.get("password_file", path);
    let credential = account.get("password_credential", name);
    let variable = account.get("password_env", name);
    let mut written = ["password_file", "password_credential", "password_env"].into_iter().filter(|key| account.has(key));
    match (written.next(), written.next()) {
        // Written into the configuration itself: that was told as an unknown key.
        (None, _) if account.has("password") => return None,
        (None, _) => {
            let hint = "write password_file = \"/etc/hve-relay/hve01.password\", a file that only the relay can read";
            findings.problem(&account.place_of("password_file"), "is missing", hint);
            return None;
        }
        (Some(first), Some(second)) => {
            findings.problem(&account.place_of(second), format!("the password has a place already, {first}"), "keep one of the two");
            return None;
        }
        (Some(_), None) => {}
    }
    let (place, secret) = if let Some(At { value, place }) = file {
        (place, from_file(&value))
    } else if let Some(At { value, place }) = credential {
        (place, from_credential(&value))
    } else {
        let At { value, place } = variable?;
        (place, from_environment(&value))
    };
    match secret {
        Ok(secret) => Some(secret),
        Err(Wrong { found, hint }) => {
            findings.problem(&place, found, hint);
            None
        }
    }
}

fn path(value: &DeValue<'_>) -> Result<PathBuf, Wrong> {
    super::value::path(value).map_err(|_| Wrong {
        found: "the value (not shown: it may be the password itself) is not an absolute path".to_owned(),
        hint: "write the path of a file that holds the password, such as \"/etc/hve-relay/hve01.password\"".to_owned(),
    })
}

fn name(value: &DeValue<'_>) -> Result<String, Wrong> {
    super::value::name(value).map_err(|_| Wrong {
        found: "the value (not shown: it may be the password itself) is not a name".to_owned(),
        hint: "write the name of the place that holds the password: letters, digits, hyphens, dots or underscores".to_owned(),
    })
}

fn wrong(found: impl Into<String>, hint: impl Into<String>) -> Wrong {
    Wrong { found: found.into(), hint: hint.into() }
}

fn from_environment(name: &str) -> Result<Secret, Wrong> {
    match env::var(name) {
        Ok(text) => secret(&Zeroizing::new(text.into_bytes()), "the environment variable named here"),
        Err(_) => Err(wrong("the environment variable named here (not shown) is not set", "set it, or write password_file")),
    }
}

/// See systemd.exec(5), `LoadCredential=`.
fn from_credential(name: &str) -> Result<Secret, Wrong> {
    let Some(folder) = env::var_os("CREDENTIALS_DIRECTORY") else {
        return Err(wrong(
            "there are no credentials here (CREDENTIALS_DIRECTORY is not set)",
            "run under systemd with LoadCredential=, or write password_file",
        ));
    };
    from_file(&Path::new(&folder).join(name))
}

fn from_file(path: &Path) -> Result<Secret, Wrong> {
    let shown = shown(path);
    let file = open(path).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "write the password into that file, or correct the path".to_owned(),
            io::ErrorKind::PermissionDenied => {
                format!("make it readable for the user that the relay runs as: chown it, or chgrp and chmod g+r {shown}")
            }
            _ => "write the path of a file that holds the password".to_owned(),
        };
        wrong(format!("{shown} cannot be read: {}", reason(&error)), hint)
    })?;
    let facts = file.metadata().map_err(|error| wrong(format!("{shown} cannot be read: {}", reason(&error)), "check the file system"))?;
    if !facts.is_file() {
        return Err(wrong(format!("{shown} is not a file"), "write the path of a file that holds the password"));
    }
    let mode = facts.mode() & 0o7777;
    if mode & 0o007 != 0 {
        return Err(wrong(format!("{shown} is open to every user of this machine (mode {mode:04o})"), format!("run: chmod o= {shown}")));
    }
    // With room for all of it from the start, so that growing leaves no copy behind.
    let mut octets = Zeroizing::new(Vec::with_capacity(Secret::LONGEST + 1));
    file.take(Secret::LONGEST as u64 + 1)
        .read_to_end(&mut octets)
        .map_err(|error| wrong(format!("{shown} cannot be read: {}", reason(&error)), "check the file system"))?;
    secret(&octets, &shown)
}

/// Opens without waiting, should the path be a pipe that nobody writes to.
fn open(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn secret(octets: &[u8], place: &str) -> Result<Secret, Wrong> {
    Secret::from_line(octets).map_err(|why| {
        let hint = match why {
            NotASecret::TooLong => "put the password alone into it",
            NotASecret::NotText => "put the password alone into it, as UTF-8",
            NotASecret::Empty => "put the password into it",
            NotASecret::Controls => "put the password alone into it, on one line",
        };
        wrong(format!("{place} {why}"), hint)
    })
}

/// The path if its folder is really there; `/Pa55word` and `/x/Pa55word` are not worth the risk.
fn shown(path: &Path) -> String {
    match path.parent().filter(|folder| *folder != Path::new("/") && folder.is_dir()) {
        Some(_) => path.display().to_string(),
        None => "the file named here (not shown: it may be the password itself)".to_owned(),
    }
}

/// What the operating system says, without its number.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(octets: &[u8]) -> Result<String, String> {
        secret(octets, "the file").map(|secret| secret.expose().to_owned()).map_err(|wrong| wrong.found)
    }

    #[test]
    fn a_password_ends_before_the_line_end() {
        for octets in ["pass word", "pass word\n", "pass word\r\n"] {
            assert_eq!(of(octets.as_bytes()), Ok("pass word".to_owned()));
        }
        assert_eq!(of(b" pass\t "), Err("the file holds line ends or other controls".to_owned()));
        assert_eq!(of(" päss ".as_bytes()), Ok(" päss ".to_owned()));
    }

    #[test]
    fn refuses_what_no_password_is() {
        for octets in [&b""[..], b"\n", b"\r\n", b"a\nb", b"a\n\n", b"a\0", b"\xff", &[b'x'; 4_097]] {
            assert!(of(octets).is_err(), "{octets:?}");
        }
    }

    #[test]
    fn shows_no_path_that_may_be_a_password() {
        for path in ["/Pa55word", "/Pa55/word", "/tmp/no-such/Pa55"] {
            assert!(!shown(Path::new(path)).contains("Pa55"), "{path}");
        }
        assert_eq!(shown(Path::new("/etc/hve01.password")), "/etc/hve01.password");
    }
}
