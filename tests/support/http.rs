//! A program that speaks HTTP/1.1 to the relay: one request on a connection of its own, or a stream of events.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

use super::relay::PATIENCE;
use super::secure::Shown;

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The cookie that it sets, as a browser sends it back.
    pub fn cookie(&self) -> String {
        self.header("set-cookie").split(';').next().unwrap_or_default().to_owned()
    }

    /// Reads one to the end of its connection.
    pub fn read(stream: impl Read) -> Self {
        let mut reader = BufReader::new(stream);
        let (status, headers) = head(&mut reader);
        let chunked = headers.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked");
        // Not all servers hang up when they are asked to.
        let length = headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse().ok());
        let mut body = String::new();
        if chunked {
            while let Some(chunk) = chunk(&mut reader) {
                body.push_str(&chunk);
            }
        } else {
            reader.take(length.unwrap_or(u64::MAX)).read_to_string(&mut body).expect("a body");
        }
        Self { status, headers, body }
    }
}

/// A request with these lines in its header; without one that says so it is for the address itself.
pub fn request(address: SocketAddr, method: &str, path: &str, lines: &[&str], body: &str) -> Answer {
    let mut stream = connect(address);
    stream.write_all(written(address, method, path, lines, body).as_bytes()).expect("sent");
    Answer::read(stream)
}

pub fn get(address: SocketAddr, path: &str, lines: &[&str]) -> Answer {
    request(address, "GET", path, lines, "")
}

pub fn post(address: SocketAddr, path: &str, lines: &[&str], body: &str) -> Answer {
    request(address, "POST", path, lines, body)
}

/// The same over TLS, for the name in the certificate that is shown; none if the server has another one.
pub fn request_over_tls(
    address: SocketAddr,
    (name, shown): (&'static str, &Shown),
    method: &str,
    path: &str,
    lines: &[&str],
    body: &str,
) -> Option<Answer> {
    let mut roots = RootCertStore::empty();
    roots.add(shown.certificate.clone()).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    let mut tls = ClientConnection::new(config, ServerName::try_from(name).expect("a name")).expect("a client");
    let mut stream = connect(address);
    while tls.is_handshaking() {
        tls.complete_io(&mut stream).ok()?;
    }
    let mut stream = StreamOwned::new(tls, stream);
    stream.write_all(written(address, method, path, lines, body).as_bytes()).expect("sent");
    Some(Answer::read(stream))
}

/// A request as it goes over the wire.
pub fn written(address: SocketAddr, method: &str, path: &str, lines: &[&str], body: &str) -> String {
    let host = if lines.iter().any(|line| line.to_ascii_lowercase().starts_with("host:")) {
        String::new()
    } else {
        format!("Host: {address}\r\n")
    };
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\n{host}Connection: close\r\nContent-Length: {}\r\n{lines}\r\n{body}", body.len())
}

/// Server-sent events.
pub struct Events {
    reader: BufReader<TcpStream>,
    waiting: String,
}

impl Events {
    /// Listens; the answer if there is nothing to listen to.
    pub fn listen(address: SocketAddr, lines: &[&str]) -> Result<Self, u16> {
        let mut stream = connect(address);
        stream.write_all(written(address, "GET", "/v1/events", lines, "").as_bytes()).expect("sent");
        let mut reader = BufReader::new(stream);
        match head(&mut reader) {
            (200, headers) => {
                assert!(headers.contains(&("content-type".to_owned(), "text/event-stream".to_owned())), "{headers:?}");
                Ok(Self { reader, waiting: String::new() })
            }
            (status, _) => Err(status),
        }
    }

    /// The next event's data; none if the stream has ended.
    pub fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((event, rest)) = self.waiting.split_once("\n\n") {
                let data = event.strip_prefix("event: overview\ndata: ").expect("an overview");
                let value = serde_json::from_str(data).expect("JSON");
                self.waiting = rest.to_owned();
                return Some(value);
            }
            let chunk = chunk(&mut self.reader)?;
            self.waiting.push_str(&chunk);
        }
    }

    /// The first event that fits.
    pub fn until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let event = self.next().unwrap_or_else(|| panic!("the events ended before {what}"));
            if fits(&event) {
                return event;
            }
        }
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the page's listener");
    stream.set_read_timeout(Some(PATIENCE)).expect("an option");
    stream
}

fn head(reader: &mut impl BufRead) -> (u16, Vec<(String, String)>) {
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    };
    let first = line();
    let status = first.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status in {first:?}"));
    let mut headers = Vec::new();
    loop {
        let line = line();
        let Some((name, value)) = line.split_once(':') else { return (status, headers) };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}

/// A chunk of a body; none at its end.
fn chunk(reader: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|octets| *octets > 0)?;
    let length = usize::from_str_radix(line.trim(), 16).ok().filter(|length| *length > 0)?;
    let mut chunk = vec![0; length + 2];
    reader.read_exact(&mut chunk).ok()?;
    chunk.truncate(length);
    String::from_utf8(chunk).ok()
}
