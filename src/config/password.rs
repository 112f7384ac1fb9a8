//! Where an account's password or an application's secret comes from: a file, a systemd credential or the environment; never the configuration itself.
//!
//! Nothing said here holds a secret. A file's path is shown only if its folder exists, and the name of a variable never, because the easiest
//! mistake is to write the password itself where its place is asked for.

use std::env;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use toml::de::DeValue;
use zeroize::Zeroizing;

use super::problem::{At, Findings, Reader};
use super::reader::Section;
use super::value::Wrong;
use crate::{
    secret::{NotASecret, Secret},
    upstream::oauth::SecretPlace,
};

/// A kind of secret: the words for it, and the keys under which its place is written.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    what: &'static str,
    /// The keys that people expect to hold it, and that are refused.
    inline: &'static [&'static str],
    /// For a file, a systemd credential and an environment variable.
    keys: [&'static str; 3],
    example: &'static str,
}

/// An account's password.
pub(super) const PASSWORD: Kind = Kind {
    what: "password",
    inline: &["password", "auth"],
    keys: ["password_file", "password_credential", "password_env"],
    example: "/etc/hve-relay/hve01.password",
};

/// An OAuth application's secret.
pub(super) const CLIENT_SECRET: Kind = Kind {
    what: "client secret",
    inline: &["client_secret"],
    keys: ["client_secret_file", "client_secret_credential", "client_secret_env"],
    example: "/etc/hve-relay/app.secret",
};

/// What a program shows that asks the relay for something.
pub(super) const TOKEN: Kind = Kind {
    what: "token",
    inline: &["token"],
    keys: ["token_file", "token_credential", "token_env"],
    example: "/etc/hve-relay/admin.token",
};

/// Where the secret of a table is, and the secret that is there now, unless there is a problem with it.
pub(super) fn read(section: &Section<'_>, findings: &Findings<'_>, kind: Kind) -> Option<(SecretPlace, Secret)> {
    let [file, credential, variable] = kind.keys;
    // Who looks at the configuration has no credentials of systemd; the name is all that can be looked at.
    if findings.reader() == Reader::Person && section.has(credential) && env::var_os("CREDENTIALS_DIRECTORY").is_none() {
        if let Some(At { place, .. }) = section.get(credential, |value: &DeValue<'_>| kind.name(value)) {
            let found = "is a credential of systemd, which only the service itself can look at";
            findings.warning(&place, found, "make sure that its unit has LoadCredential= with this name");
        }
        return None;
    }
    let places = [
        section.get(file, |value: &DeValue<'_>| kind.path(value).map(SecretPlace::File)),
        section.get(credential, |value: &DeValue<'_>| kind.credential(value).map(SecretPlace::File)),
        section.get(variable, |value: &DeValue<'_>| kind.name(value).map(SecretPlace::Variable)),
    ];
    let mut written = kind.keys.into_iter().filter(|key| section.has(key));
    match (written.next(), written.next()) {
        // Written into the configuration itself: that was told as an unknown key.
        (None, _) if kind.inline.iter().any(|key| section.has(key)) => return None,
        (None, _) => {
            let hint = format!("write {file} = {:?}, a file that only the relay can read", kind.example);
            findings.problem(&section.place_of(file), "is missing", hint);
            return None;
        }
        (Some(first), Some(second)) => {
            let found = format!("the {} has a place already, {first}", kind.what);
            findings.problem(&section.place_of(second), found, "keep one of the two");
            return None;
        }
        (Some(_), None) => {}
    }
    let At { value, place } = places.into_iter().flatten().next()?;
    let secret = match &value {
        SecretPlace::File(path) => kind.in_file(path),
        SecretPlace::Variable(name) => kind.in_environment(name),
    };
    match secret {
        Ok(secret) => Some((value, secret)),
        Err(Wrong { found, hint }) => {
            findings.problem(&place, found, hint);
            None
        }
    }
}

impl Kind {
    /// Whether a place for it is written, rightly or not.
    pub fn is_written(self, section: &Section<'_>) -> bool {
        self.keys.into_iter().any(|key| section.has(key))
    }

    fn path(self, value: &DeValue<'_>) -> Result<PathBuf, Wrong> {
        let Self { what, example, .. } = self;
        super::value::path(value).map_err(|_| Wrong {
            found: format!("the value (not shown: it may be the {what} itself) is not an absolute path"),
            hint: format!("write the path of a file that holds the {what}, such as {example:?}"),
        })
    }

    fn name(self, value: &DeValue<'_>) -> Result<String, Wrong> {
        let what = self.what;
        super::value::name(value).map_err(|_| Wrong {
            found: format!("the value (not shown: it may be the {what} itself) is not a name"),
            hint: format!("write the name of the place that holds the {what}: letters, digits, hyphens, dots or underscores"),
        })
    }

    /// See systemd.exec(5), `LoadCredential=`.
    fn credential(self, value: &DeValue<'_>) -> Result<PathBuf, Wrong> {
        let name = self.name(value)?;
        let Some(folder) = env::var_os("CREDENTIALS_DIRECTORY") else {
            return Err(wrong(
                "there are no credentials here (CREDENTIALS_DIRECTORY is not set)",
                format!("run under systemd with LoadCredential=, or write {}", self.keys[0]),
            ));
        };
        Ok(Path::new(&folder).join(name))
    }

    fn in_environment(self, name: &str) -> Result<Secret, Wrong> {
        match env::var(name) {
            Ok(text) => self.secret(&Zeroizing::new(text.into_bytes()), "the environment variable named here"),
            Err(_) => {
                Err(wrong("the environment variable named here (not shown) is not set", format!("set it, or write {}", self.keys[0])))
            }
        }
    }

    fn in_file(self, path: &Path) -> Result<Secret, Wrong> {
        let (what, shown) = (self.what, shown(path, self.what));
        let unreadable = |error: io::Error| wrong(format!("{shown} cannot be read: {}", reason(&error)), "check the file system");
        let file = open(path).map_err(|error| {
            let hint = match error.kind() {
                io::ErrorKind::NotFound => format!("write the {what} into that file, or correct the path"),
                io::ErrorKind::PermissionDenied => {
                    format!("make it readable for the user that the relay runs as: chown it, or chgrp and chmod g+r {shown}")
                }
                _ => format!("write the path of a file that holds the {what}"),
            };
            wrong(format!("{shown} cannot be read: {}", reason(&error)), hint)
        })?;
        let facts = file.metadata().map_err(unreadable)?;
        check_closed(&facts, &shown, &format!("the {what}"))?;
        // With room for all of it from the start, so that growing leaves no copy behind.
        let mut octets = Zeroizing::new(Vec::with_capacity(Secret::LONGEST + 1));
        file.take(Secret::LONGEST as u64 + 1).read_to_end(&mut octets).map_err(unreadable)?;
        self.secret(&octets, &shown)
    }

    fn secret(self, octets: &[u8], place: &str) -> Result<Secret, Wrong> {
        let what = self.what;
        Secret::from_line(octets).map_err(|why| {
            let hint = match why {
                NotASecret::TooLong => format!("put the {what} alone into it"),
                NotASecret::NotText => format!("put the {what} alone into it, as UTF-8"),
                NotASecret::Empty => format!("put the {what} into it"),
                NotASecret::Controls => format!("put the {what} alone into it, on one line"),
            };
            wrong(format!("{place} {why}"), hint)
        })
    }
}

/// Whether a file that holds a private key is there and closed to other users.
pub(super) fn check_private(path: &Path) -> Result<(), Wrong> {
    let shown = path.display().to_string();
    let facts = open(path).and_then(|file| file.metadata()).map_err(|error| {
        wrong(format!("{shown} cannot be read: {}", reason(&error)), "write the path of a file that the relay can read")
    })?;
    check_closed(&facts, &shown, "the key")
}

fn check_closed(facts: &Metadata, shown: &str, what: &str) -> Result<(), Wrong> {
    if !facts.is_file() {
        return Err(wrong(format!("{shown} is not a file"), format!("write the path of a file that holds {what}")));
    }
    match facts.mode() & 0o7777 {
        mode if mode & 0o007 == 0 => Ok(()),
        mode => Err(wrong(format!("{shown} is open to every user of this machine (mode {mode:04o})"), format!("run: chmod o= {shown}"))),
    }
}

fn wrong(found: impl Into<String>, hint: impl Into<String>) -> Wrong {
    Wrong { found: found.into(), hint: hint.into() }
}

/// Opens without waiting, should the path be a pipe that nobody writes to.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

/// The path if its folder is really there; `/Pa55word` and `/x/Pa55word` are not worth the risk.
fn shown(path: &Path, what: &str) -> String {
    match path.parent().filter(|folder| *folder != Path::new("/") && folder.is_dir()) {
        Some(_) => path.display().to_string(),
        None => format!("the file named here (not shown: it may be the {what} itself)"),
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
        PASSWORD.secret(octets, "the file").map(|secret| secret.expose().to_owned()).map_err(|wrong| wrong.found)
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
            assert!(!shown(Path::new(path), "password").contains("Pa55"), "{path}");
        }
        assert_eq!(shown(Path::new("/etc/hve01.password"), "password"), "/etc/hve01.password");
    }
}
