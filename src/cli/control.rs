//! Talking to the running relay: one HTTP/1.1 request over its Unix socket, one answer.
//!
//! The socket is the one that the configuration names, or `--socket`. Each request has a connection of its own (`Connection: close`), so that an
//! answer is all that comes until its end. Every failure is a sentence, and has an exit status: 69 if the relay does not answer, 1 if it
//! refuses.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::EX_USAGE;
use crate::admin::ErrorText;
use crate::config::{Config, Problems};

/// sysexits(3): a service is not available.
const EX_UNAVAILABLE: u8 = 69;
/// How long the relay may take to answer. It waits for its disk; a large change is made in many requests.
const PATIENCE: Duration = Duration::from_secs(120);
/// Octets of an answer, at most: a thousand deliveries with fifty recipients each have some five million.
const ANSWER_MAX: u64 = 64 << 20;

/// How to reach the running relay.
#[derive(Debug, Args)]
pub(super) struct Contact {
    /// The running relay's configuration; it names the socket to ask at (control_socket).
    #[arg(long, global = true, value_name = "FILE", default_value = super::CONFIG)]
    config: PathBuf,
    /// The socket itself, in place of the configuration's.
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// Why there is no answer, or what it says against the request.
#[derive(Debug)]
pub(super) enum Failure {
    /// The configuration does not tell the socket.
    Config(Problems),
    /// Nobody answers, or not as a relay would.
    NoAnswer(String),
    /// The relay refuses.
    Refused(String),
    /// It must be asked for in another way.
    Usage(String),
}

impl Failure {
    /// Says it on standard error and returns the exit status.
    pub fn tell(&self) -> ExitCode {
        // Nobody is left to tell if standard error is gone.
        let _ = match self {
            Self::Config(problems) => {
                writeln!(io::stderr(), "{problems}\nhve-relay: --socket PATH names the socket without a configuration")
            }
            _ => writeln!(io::stderr(), "hve-relay: {self}"),
        };
        match self {
            Self::Config(problems) => ExitCode::from(problems.exit_status()),
            Self::NoAnswer(_) => ExitCode::from(EX_UNAVAILABLE),
            Self::Refused(_) => ExitCode::FAILURE,
            Self::Usage(_) => ExitCode::from(EX_USAGE),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(problems) => problems.fmt(f),
            Self::NoAnswer(text) | Self::Refused(text) | Self::Usage(text) => f.write_str(text),
        }
    }
}

impl Contact {
    /// The relay that answers at this socket.
    pub fn at(socket: PathBuf) -> Self {
        Self { config: PathBuf::new(), socket: Some(socket) }
    }

    /// The relay that this configuration names.
    pub fn of(config: &Path) -> Self {
        Self { config: config.to_owned(), socket: None }
    }

    /// Whether the socket was named, and not its configuration.
    pub fn names_socket(&self) -> bool {
        self.socket.is_some()
    }

    /// The configuration that names the socket.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Asks for something.
    ///
    /// # Errors
    /// As of [`Failure`]; so also of the others.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.request("GET", path, 0, io::empty())
    }

    /// Asks for a change.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::Usage(format!("the request cannot be written: {error}")))?;
        self.request("POST", path, body.len() as u64, body.as_slice())
    }

    /// Asks for something to be gone; the answer is what it was.
    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.request("DELETE", path, 0, io::empty())
    }

    /// Hands over something on one line, and behind it so many octets that are read from somewhere.
    pub fn hand<T: DeserializeOwned>(&self, path: &str, line: &impl Serialize, octets: u64, from: impl Read) -> Result<T, Failure> {
        let mut line = serde_json::to_vec(line).map_err(|error| Failure::Usage(format!("the request cannot be written: {error}")))?;
        line.push(b'\n');
        self.request("POST", path, line.len() as u64 + octets, line.as_slice().chain(from))
    }

    fn request<T: DeserializeOwned>(&self, method: &str, path: &str, octets: u64, body: impl Read) -> Result<T, Failure> {
        let socket = match &self.socket {
            Some(socket) => socket.clone(),
            None => Config::control_socket(&self.config).map_err(Failure::Config)?,
        };
        let shown = socket.display();
        let stream =
            UnixStream::connect(&socket).map_err(|error| Failure::NoAnswer(format!("no relay answers at {shown}: {}", advice(&error))))?;
        let answer = exchange(stream, method, path, octets, body);
        let (status, body) = answer.map_err(|error| Failure::NoAnswer(format!("the relay at {shown} gave no answer: {error}")))?;
        if (200..300).contains(&status) {
            let strange = |error| {
                Failure::NoAnswer(format!("the answer of the relay at {shown} cannot be read ({error}): is it of another version?"))
            };
            return serde_json::from_slice(&body).map_err(strange);
        }
        let text = serde_json::from_slice(&body).map_or_else(|_| format!("status {status}"), |ErrorText { error }| error);
        Err(if status >= 500 { Failure::NoAnswer(text) } else { Failure::Refused(text) })
    }
}

/// What to do about a socket that cannot be connected to.
fn advice(error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such socket. Is the relay running, and is this its socket (control_socket in its configuration)?"
        }
        io::ErrorKind::ConnectionRefused => "it left this socket behind and has ended; its log says why",
        io::ErrorKind::PermissionDenied => {
            "you may not use it: be root, the relay's user or in its group, or have control_socket put where you may, such as /run/hve-relay/control.sock"
        }
        _ => return error.to_string(),
    };
    hint.to_owned()
}

/// One request with a body of so many octets, and its answer: status and body.
fn exchange(mut stream: UnixStream, method: &str, path: &str, octets: u64, body: impl Read) -> io::Result<(u16, Vec<u8>)> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {octets}\r\n\r\n"
    );
    let all = head.len() as u64 + octets;
    let sent = match io::copy(&mut head.as_bytes().chain(body).take(all), &mut stream) {
        // Whoever refuses may do so before all of it has come, and hang up.
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Err(error),
        // The relay would wait for the rest.
        Ok(sent) if sent < all => {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "what was sent has become shorter meanwhile"));
        }
        sent => Ok(sent?),
    };
    let mut answer = Vec::new();
    let read = stream.take(ANSWER_MAX).read_to_end(&mut answer).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            io::Error::other(format!("nothing came within {} seconds", PATIENCE.as_secs()))
        }
        _ => error,
    });
    read_answer(&answer).map_err(|error| read.err().or(sent.err()).unwrap_or(error))
}

/// Reads an answer that ends with its connection (RFC 9112 §6.3) or says how long it is. One in chunks is none of the relay's.
fn read_answer(answer: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let strange = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("this is no answer of a relay: {what}"));
    if answer.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it hung up"));
    }
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(|| strange("its header has no end"))?;
    let head = std::str::from_utf8(&answer[..end]).map_err(|_| strange("its header is no text"))?;
    let body = &answer[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).and_then(|rest| rest.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| strange("it has no status"))?;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") && value.parse() != Ok(body.len()) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{} of {value} octets came", body.len())));
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(strange("it comes in chunks"));
        }
    }
    Ok((status, body.to_vec()))
}

/// A path with what is asked for behind it.
pub(super) fn query(path: &str, asked: &impl Serialize) -> String {
    let asked = serde_json::to_value(asked).unwrap_or_default();
    let pairs = asked.as_object().into_iter().flatten().map(|(key, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{key}={}", encoded(&value))
    });
    format!("{path}?{}", pairs.collect::<Vec<_>>().join("&"))
}

/// A text as it may stand in a path or a query (RFC 3986 §2.3).
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for octet in text.bytes() {
        match octet {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'@' => out.push(char::from(octet)),
            _ => out.push_str(&format!("%{octet:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_whole_or_not_at_all() {
        let whole = b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(read_answer(whole).expect("an answer"), (404, b"{}".to_vec()));
        assert_eq!(read_answer(b"HTTP/1.1 200 OK\r\n\r\n[]").expect("an answer"), (200, b"[]".to_vec()));
        for cut in 0..whole.len() {
            assert!(read_answer(&whole[..cut]).is_err(), "{cut} octets were taken for an answer");
        }
        for strange in
            ["SSH-2.0-OpenSSH\r\n\r\n", "HTTP/1.1 2x0 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]
        {
            assert!(read_answer(strange.as_bytes()).is_err(), "{strange}");
        }
    }

    #[test]
    fn names_are_written_so_that_a_path_can_hold_them() {
        assert_eq!(encoded("hve+1@contoso.com/x?ü"), "hve%2B1@contoso.com%2Fx%3F%C3%BC");
    }
}
