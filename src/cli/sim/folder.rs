//! The folder of a rehearsal: `ca.pem` for its clients, `server.pem` for itself, `taken.jsonl` with a line for each message, and the messages; with
//! a token endpoint also the secret of each application.
//!
//! A folder that was there before is gone on with: messages are numbered on, and the CA stays, so that clients go on trusting it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::secret::Secret;
use crate::sim::{Identity, Taken};

/// The CA's certificate.
const CA: &str = "ca.pem";
/// The endpoint's certificate and its key.
const SERVER: &str = "server.pem";
/// A line for each message.
const INDEX: &str = "taken.jsonl";

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    index: File,
    next: u64,
}

/// A line of the index.
#[derive(Serialize)]
struct Line<'a> {
    file: &'a str,
    at: String,
    account: &'a str,
    reverse_path: String,
    recipients: Vec<&'a str>,
    size: u64,
    sha256: String,
    connection: u64,
    reply: &'a str,
    violations: Vec<String>,
}

impl Folder {
    /// Makes the folder if it is not there.
    pub fn open(path: &Path) -> io::Result<Self> {
        let at = |what: &Path, why: io::Error| io::Error::new(why.kind(), format!("{}: {why}", what.display()));
        fs::create_dir_all(path).map_err(|why| at(path, why))?;
        let numbers = fs::read_dir(path).map_err(|why| at(path, why))?.filter_map(|entry| {
            let name = entry.ok()?.file_name();
            name.to_str()?.strip_suffix(".eml")?.parse::<u64>().ok()
        });
        let next = numbers.max().unwrap_or(0) + 1;
        let index = path.join(INDEX);
        let index = OpenOptions::new().create(true).append(true).open(&index).map_err(|why| at(&index, why))?;
        // As a configuration wants it.
        Ok(Self { path: std::path::absolute(path)?, index, next })
    }

    /// The CA's certificate, for clients.
    pub fn ca(&self) -> PathBuf {
        self.path.join(CA)
    }

    /// Writes the secret of an application where its client can read it from; returns where.
    pub fn secret(&self, name: &str, secret: &Secret) -> io::Result<PathBuf> {
        let path = self.path.join(format!("{name}.secret"));
        write(&path, 0o600, secret.expose())?;
        Ok(path)
    }

    /// The certificate that was shown here before, or a new one for these names.
    pub fn identity(&self, names: &[String]) -> io::Result<Identity> {
        let (ca, server) = (self.path.join(CA), self.path.join(SERVER));
        if let (Ok(ca_pem), Ok(server_pem)) = (fs::read_to_string(&ca), fs::read_to_string(&server)) {
            return Identity::again(&ca_pem, &server_pem)
                .map_err(|why| io::Error::new(why.kind(), format!("{}: {why}; remove it to get a new one", server.display())));
        }
        let identity = Identity::make(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
        write(&server, 0o600, identity.server_pem())?;
        write(&ca, 0o644, identity.ca_pem())?;
        Ok(identity)
    }

    /// Keeps a message; returns the name of its file.
    pub fn keep(&mut self, taken: &Taken) -> io::Result<String> {
        let file = format!("{:06}.eml", self.next);
        self.next += 1;
        fs::write(self.path.join(&file), &taken.content)?;
        let line = Line {
            file: &file,
            at: taken.at.to_string(),
            account: &taken.account,
            reverse_path: taken.reverse_path.to_string(),
            recipients: taken.recipients.iter().map(|recipient| recipient.as_str()).collect(),
            size: taken.size,
            sha256: taken.sha256.iter().map(|octet| format!("{octet:02x}")).collect(),
            connection: taken.connection,
            reply: &taken.reply,
            violations: taken.violations.iter().map(|violation| format!("{violation:?}")).collect(),
        };
        let mut text = serde_json::to_string(&line).map_err(io::Error::other)?;
        text.push('\n');
        self.index.write_all(text.as_bytes())?;
        Ok(file)
    }
}

fn write(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    OpenOptions::new().create(true).write(true).truncate(true).mode(mode).open(path)?.write_all(text.as_bytes())
}
