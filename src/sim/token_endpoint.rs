//! The token endpoint of a simulated Microsoft Entra, over TLS: one POST on a connection, judged by the [`Issuer`].
//!
//! Its HTTP is its own and strict: what a lenient server would overlook is told in the record of the request. It obeys scripted faults, which are
//! raw octets, so that anything can be said in place of an answer.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::Identity;
use super::fault::Times;
use super::issuer::{Issuer, Refusal};
use super::record::lock;
use crate::clock::Clock;

/// The path of Entra's endpoint; the tenant is any.
const PATH: &str = "/contoso.onmicrosoft.com/oauth2/v2.0/token";
/// Octets of a request, header and form.
const LONGEST: usize = 64 << 10;

/// A token endpoint that runs. Dropping it closes its port and its connections.
pub struct TokenEndpoint {
    shared: Arc<Shared>,
    address: SocketAddr,
    identity: Identity,
    task: JoinHandle<()>,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRequest {
    /// The application that asked; empty if that cannot be read.
    pub client_id: String,
    /// What it got: `issued`, the `error` field of a refusal, `fault` where a scripted one acted, or what is wrong with its HTTP.
    pub outcome: String,
}

/// What a scripted fault does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenAction {
    /// Sends these octets in place of an answer.
    Say(Vec<u8>),
    /// Waits so long, then goes on as usual.
    Delay(Duration),
    /// Says nothing until the client ends the connection.
    Silence,
}

impl TokenAction {
    /// An HTTP response with further header fields, each with its CRLF.
    pub fn http(status: u16, fields: &str, body: &str) -> Self {
        Self::Say(response(status, fields, body))
    }
}

struct Shared {
    issuer: Issuer,
    authority: String,
    faults: Mutex<Vec<(TokenAction, Times, u32)>>,
    seen: watch::Sender<Seen>,
}

/// What has been seen so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Every request, in the order of their ends.
    pub requests: Vec<TokenRequest>,
    /// Connections now under way, and the most there were at once.
    pub open: usize,
    /// See `open`.
    pub most_open: usize,
}

impl Seen {
    /// How many requests had this outcome.
    pub fn outcomes(&self, outcome: &str) -> usize {
        self.requests.iter().filter(|request| request.outcome == outcome).count()
    }
}

impl TokenEndpoint {
    /// Starts an endpoint on a free port of 127.0.0.1; it is up when this returns.
    ///
    /// # Errors
    /// If the certificate cannot be made or no port is free.
    pub async fn start(issuer: Issuer) -> io::Result<Self> {
        Self::start_at(issuer, (Ipv4Addr::LOCALHOST, 0).into(), Identity::make(&["127.0.0.1", "localhost"])?).await
    }

    /// The same at this address and with this certificate, which must be for it.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn start_at(issuer: Issuer, listen: SocketAddr, identity: Identity) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            issuer,
            authority: address.to_string(),
            faults: Mutex::default(),
            seen: watch::Sender::new(Seen::default()),
        });
        let (acceptor, serving) = (TlsAcceptor::from(identity.server()), shared.clone());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                        connections.spawn(serve(serving.clone(), acceptor.clone(), stream));
                    },
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(Self { shared, address, identity, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its address as an application is configured with it.
    pub fn url(&self) -> String {
        format!("https://{}{PATH}", self.address)
    }

    /// The certificate of the CA that vouches for it.
    pub fn ca_pem(&self) -> &str {
        self.identity.ca_pem()
    }

    /// Puts these faults in force, in place of any others; the first whose turn it is acts, and all count.
    pub fn set_faults(&self, faults: Vec<(TokenAction, Times)>) {
        *lock(&self.shared.faults) = faults.into_iter().map(|(action, times)| (action, times, 0)).collect();
    }

    /// What it has seen so far.
    pub fn seen(&self) -> Seen {
        self.shared.seen.borrow().clone()
    }

    /// The requests since the last call, which it then forgets, so that it can run for days.
    pub fn drain(&self) -> Vec<TokenRequest> {
        let mut requests = Vec::new();
        self.shared.seen.send_modify(|seen| requests = std::mem::take(&mut seen.requests));
        requests
    }

    /// Waits until what it has seen meets a condition, and returns that.
    ///
    /// # Errors
    /// If it has not within `limit`: what it has seen instead.
    pub async fn wait_until(&self, mut met: impl FnMut(&Seen) -> bool, limit: Duration) -> Result<Seen, Seen> {
        let mut changes = self.shared.seen.subscribe();
        match tokio::time::timeout(limit, changes.wait_for(|seen| met(seen))).await {
            Ok(Ok(seen)) => Ok(seen.clone()),
            _ => Err(self.seen()),
        }
    }
}

impl Drop for TokenEndpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Counts a connection as open for as long as it lives.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: Arc<Shared>) -> Self {
        shared.seen.send_modify(|seen| {
            seen.open += 1;
            seen.most_open = seen.most_open.max(seen.open);
        });
        Self(shared)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.seen.send_modify(|seen| seen.open -= 1);
    }
}

async fn serve(shared: Arc<Shared>, acceptor: TlsAcceptor, stream: TcpStream) {
    let _open = Open::new(shared.clone());
    // However it ends, it has ended; what matters of it is in the records.
    let _ = converse(&shared, acceptor, stream).await;
}

async fn converse(shared: &Shared, acceptor: TlsAcceptor, stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = acceptor.accept(stream).await?;
    let form = read(&mut stream, &shared.authority).await?;
    let client_id = form.as_ref().ok().and_then(|form| form.get("client_id").cloned()).unwrap_or_default();
    let record = |outcome: String| {
        let request = TokenRequest { client_id: client_id.clone(), outcome };
        shared.seen.send_modify(|seen| seen.requests.push(request));
    };
    let due = due(&mut lock(&shared.faults));
    match due {
        Some(TokenAction::Say(octets)) => {
            record("fault".to_owned());
            stream.write_all(&octets).await?;
            return stream.shutdown().await;
        }
        Some(TokenAction::Silence) => {
            record("fault".to_owned());
            let mut rest = Vec::new();
            return stream.read_to_end(&mut rest).await.map(drop);
        }
        Some(TokenAction::Delay(pause)) => tokio::time::sleep(pause).await,
        None => {}
    }
    let answer = match form {
        Err(what) => {
            record(what.to_owned());
            response(400, "", "")
        }
        Ok(form) => match shared.issuer.issue(&form, &format!("https://{}{PATH}", shared.authority)) {
            Ok((token, life)) => {
                record("issued".to_owned());
                let seconds = life.as_secs();
                let body = json!({"token_type": "Bearer", "expires_in": seconds, "ext_expires_in": seconds, "access_token": token});
                response(200, "", &body.to_string())
            }
            Err(refusal) => {
                record(refusal.error.to_owned());
                response(refusal.status, "", &refused(&refusal))
            }
        },
    };
    stream.write_all(&answer).await?;
    stream.shutdown().await
}

/// As Entra says it, with its ids behind the text.
fn refused(refusal: &Refusal) -> String {
    const ID: &str = "8f3e0c9a-5d1b-4b6e-9a57-2f3c4d5e6f70";
    let Refusal { error, number, words, .. } = refusal;
    let description = format!(
        "AADSTS{number}: {words} Trace ID: 11111111-2222-4333-8444-555555555555 Correlation ID: {ID} Timestamp: 2026-11-21 10:00:00Z"
    );
    json!({"error": error, "error_description": description, "error_codes": [number], "correlation_id": ID}).to_string()
}

fn response(status: u16, fields: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    // RFC 9110 §5.6.7 wants GMT where RFC 5322 has +0000.
    let date = Clock::wall().rfc5322().replace("+0000", "GMT");
    format!("HTTP/1.1 {status} x\r\nContent-Type: application/json; charset=utf-8\r\nDate: {date}\r\nContent-Length: {length}\r\n{fields}Connection: close\r\n\r\n{body}")
        .into_bytes()
}

fn due(faults: &mut [(TokenAction, Times, u32)]) -> Option<TokenAction> {
    let mut due = None;
    for (action, times, seen) in faults {
        *seen += 1;
        let turn = match times {
            Times::Always => true,
            Times::First(times) => *seen <= *times,
            Times::Nth(time) => *seen == *time,
        };
        if turn && due.is_none() {
            due = Some(action.clone());
        }
    }
    due
}

/// Reads one request; the inner `Err` says what is wrong with it.
async fn read(stream: &mut (impl AsyncRead + Unpin), authority: &str) -> io::Result<Result<HashMap<String, String>, &'static str>> {
    let mut octets = Vec::new();
    let end = loop {
        if let Some(end) = octets.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if octets.len() > LONGEST || stream.read_buf(&mut octets).await? == 0 {
            return Ok(Err("no HTTP request"));
        }
    };
    let head = String::from_utf8_lossy(&octets[..end]).into_owned();
    let mut lines = head.split("\r\n");
    if lines.next() != Some(&format!("POST {PATH} HTTP/1.1")) {
        return Ok(Err("not a POST to the endpoint's path"));
    }
    let fields: Vec<(String, &str)> =
        lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name.to_ascii_lowercase(), value.trim())).collect();
    let field = |name: &str| fields.iter().find(|(found, _)| found == name).map(|(_, value)| *value);
    if field("host") != Some(authority) {
        return Ok(Err("Host is another one"));
    }
    if field("content-type") != Some("application/x-www-form-urlencoded") {
        return Ok(Err("Content-Type is not that of a form"));
    }
    let Some(length) = field("content-length").and_then(|length| length.parse::<usize>().ok()).filter(|length| *length <= LONGEST) else {
        return Ok(Err("no usable Content-Length"));
    };
    let whole = end + 4 + length;
    while octets.len() < whole {
        if stream.read_buf(&mut octets).await? == 0 {
            return Ok(Err("the form is cut off"));
        }
    }
    Ok(if octets.len() > whole { Err("more came than one request") } else { form(&octets[end + 4..]).ok_or("the form cannot be read") })
}

/// A form whose names stand in it once each.
fn form(octets: &[u8]) -> Option<HashMap<String, String>> {
    let mut fields = HashMap::new();
    for pair in std::str::from_utf8(octets).ok()?.split('&') {
        let (name, value) = pair.split_once('=')?;
        if fields.insert(decoded(name)?, decoded(value)?).is_some() {
            return None;
        }
    }
    Some(fields)
}

fn decoded(text: &str) -> Option<String> {
    let mut octets = Vec::new();
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        octets.push(match octet {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(octets).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_forms_and_refuses_what_is_none() {
        let read = form(b"a=x%20y+z&b=%C3%BC&c=").expect("a form");
        assert_eq!((read["a"].as_str(), read["b"].as_str(), read["c"].as_str()), ("x y z", "\u{fc}", ""));
        for bad in [&b""[..], b"a", b"a=1&a=2", b"a=%2", b"a=%zz", b"a=\xff", b"a=%ff"] {
            assert!(form(bad).is_none(), "{bad:?}");
        }
    }
}
