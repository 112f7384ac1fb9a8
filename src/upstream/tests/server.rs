//! A small scripted server: real TCP, real TLS under a private CA, and rules for where it misbehaves.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::tls::{client_config, server_config};
use crate::upstream::{Endpoint, Security, Timeouts};

pub const NAME: &str = "smtp.hve.example";
const LONG: Duration = Duration::from_secs(20);

/// What the server does instead of what it should.
#[derive(Clone, Copy)]
pub enum Act {
    /// Says this.
    Say(&'static [u8]),
    /// Says this and closes.
    SayAndClose(&'static [u8]),
    /// Closes without a word.
    Close,
    /// Says nothing more.
    Hang,
}

/// When it does so: at commands that begin so, or at `greeting`, `handshake`, `content` (behind its first line, or the beginning of a chunk) and
/// `.`, the end of the content, whether by a dot or by the end of the last chunk.
#[derive(Clone, Copy)]
pub struct Rule {
    pub on: &'static str,
    pub act: Act,
    /// The only connection on which it does, from 0.
    pub connection: Option<usize>,
    /// How many such commands of a connection pass before it does.
    pub after: usize,
}

pub const fn at(on: &'static str, act: Act) -> Rule {
    Rule { on, act, connection: None, after: 0 }
}

pub struct Script {
    pub plain_offers: &'static [&'static str],
    pub offers: &'static [&'static str],
    /// In the clear, in one segment with the 220 to STARTTLS.
    pub injected: &'static [u8],
    pub rules: Vec<Rule>,
    pub certificate: Arc<ServerConfig>,
}

pub const PIPELINED: &[&str] = &["SIZE 157286400", "PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN", "AUTH PLAIN LOGIN"];
pub const LOCKSTEP: &[&str] = &["SIZE 157286400", "AUTH LOGIN XOAUTH2"];
pub const CHUNKED: &[&str] =
    &["SIZE 157286400", "PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING", "DSN", "AUTH PLAIN LOGIN"];
pub const CHUNKED_LOCKSTEP: &[&str] = &["SIZE 157286400", "CHUNKING", "AUTH LOGIN XOAUTH2"];

impl Script {
    pub fn new(ca: &Ca, offers: &'static [&'static str]) -> Self {
        Self { plain_offers: &["SIZE 157286400", "STARTTLS"], offers, injected: b"", rules: Vec::new(), certificate: ca.issue(NAME, 2035) }
    }

    pub fn with(mut self, rules: &[Rule]) -> Self {
        self.rules.extend_from_slice(rules);
        self
    }
}

/// A private CA.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pub file: PathBuf,
    _folder: tempfile::TempDir,
}

impl Ca {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, "hve-relay test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("ca.pem");
        std::fs::write(&file, params.self_signed(&key).expect("a certificate").pem()).expect("written");
        Self { issuer: Issuer::new(params, key), file, _folder: folder }
    }

    pub fn issue(&self, name: &str, year_of_end: i32) -> Arc<ServerConfig> {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year_of_end, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        server_config(certificate.pem(), key.serialize_pem()).expect("a configuration")
    }

    pub fn trusted(&self) -> Arc<ClientConfig> {
        client_config(Some(&self.file)).expect("a configuration")
    }
}

/// What the server has seen.
#[derive(Default, Clone)]
pub struct Seen {
    pub connections: usize,
    /// All commands inside TLS.
    pub commands: Vec<String>,
    /// For each of them: whether it was waited for, so that it came in a write of its own, or first in one.
    pub waited: Vec<bool>,
    /// All lines outside.
    pub clear: Vec<String>,
    /// Each content, dots unstuffed, or each last chunk.
    pub contents: Vec<Vec<u8>>,
}

pub struct Server {
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Server {
    pub async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (script, shared) = (Arc::new(script), seen.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = {
                    let mut seen = shared.lock().expect("unpoisoned");
                    seen.connections += 1;
                    seen.connections - 1
                };
                let session = Session { script: script.clone(), seen: shared.clone(), number, passed: vec![0; script.rules.len()] };
                tokio::spawn(session.run(stream));
            }
        });
        Self { address, seen, accepting }
    }

    pub fn seen(&self) -> Seen {
        self.seen.lock().expect("unpoisoned").clone()
    }

    /// Waits until the server has seen something.
    pub async fn sees(&self, wanted: impl Fn(&Seen) -> bool) {
        let seen = async {
            while !wanted(&self.seen()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(LONG, seen).await.expect("the server never saw it");
    }

    pub fn endpoint(&self, ca: &Ca) -> Endpoint {
        let timeouts = Timeouts { connect: LONG, greeting: LONG, command: LONG, data: LONG, block: LONG, end_of_data: LONG };
        Endpoint {
            host: "127.0.0.1".to_owned(),
            port: self.address.port(),
            server_name: NAME.try_into().expect("a name"),
            security: Security::Required(ca.trusted()),
            helo: "relay.contoso.com".to_owned(),
            ignored: Vec::new(),
            timeouts,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

struct Session {
    script: Arc<Script>,
    seen: Arc<Mutex<Seen>>,
    number: usize,
    /// How often each rule's occasion has come.
    passed: Vec<usize>,
}

/// The connection is over.
struct Over;

impl From<std::io::Error> for Over {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

impl Session {
    async fn run(mut self, stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let _ = self.talk(stream).await;
    }

    async fn talk(&mut self, stream: TcpStream) -> Result<(), Over> {
        let mut plain = BufReader::new(stream);
        self.answer(&mut plain, "greeting", "220 ic3-transport-smtp Microsoft ESMTP MAIL Service ready").await?;
        loop {
            let line = line(&mut plain).await?;
            self.seen.lock().expect("unpoisoned").clear.push(line.clone());
            match line.as_str() {
                "STARTTLS" => break,
                _ => self.answer(&mut plain, &line, &ehlo(self.script.plain_offers)).await?,
            }
        }
        match self.occasion("STARTTLS") {
            Some(act) => self.act(&mut plain, act).await?,
            None => {
                let reply = [&b"220 2.0.0 SMTP server ready\r\n"[..], self.script.injected].concat();
                plain.write_all(&reply).await?;
            }
        }
        if let Some(act) = self.occasion("handshake") {
            self.act(&mut plain, act).await?;
        }
        let mut tls = BufReader::new(TlsAcceptor::from(self.script.certificate.clone()).accept(plain.into_inner()).await?);
        self.commands(&mut tls).await
    }

    async fn commands<S: AsyncRead + AsyncWrite + Unpin>(&mut self, tls: &mut BufReader<S>) -> Result<(), Over> {
        let mut recipients = 0;
        loop {
            let waits = tls.buffer().is_empty();
            let line = line(tls).await?;
            {
                let mut seen = self.seen.lock().expect("unpoisoned");
                seen.commands.push(line.clone());
                seen.waited.push(waits);
            }
            if let Some(size) = line.strip_prefix("BDAT ") {
                self.chunk(tls, size, recipients).await?;
                recipients = 0;
                continue;
            }
            let refused = self.refuses(&line);
            let verb = line.split(' ').next().unwrap_or("").to_ascii_uppercase();
            let usual = match verb.as_str() {
                "EHLO" => ehlo(self.script.offers),
                "AUTH" if line == "AUTH LOGIN" => "334 VXNlcm5hbWU6".to_owned(),
                "AUTH" => "235 2.7.0 Authentication successful".to_owned(),
                "MAIL" => "250 2.1.0 Sender OK".to_owned(),
                "RCPT" => "250 2.1.5 Recipient OK".to_owned(),
                "DATA" if recipients == 0 => "503 5.5.2 Need rcpt command".to_owned(),
                "DATA" => "354 Start mail input; end with <CRLF>.<CRLF>".to_owned(),
                "RSET" => "250 2.0.0 Resetting".to_owned(),
                "QUIT" => "221 2.0.0 Service closing transmission channel".to_owned(),
                // The two answers of AUTH LOGIN: user name, then password.
                _ if line == "aHZlMDFAY29udG9zby5jb20=" => "334 UGFzc3dvcmQ6".to_owned(),
                _ if line == "aHVudGVyMg==" => "235 2.7.0 Authentication successful".to_owned(),
                _ => "500 5.5.1 Unrecognized command".to_owned(),
            };
            recipients = match verb.as_str() {
                "RCPT" if !refused => recipients + 1,
                "MAIL" | "RSET" => 0,
                _ => recipients,
            };
            let forced = self.script.rules.iter().any(|rule| rule.on == "DATA" && matches!(rule.act, Act::Say(b"354 go on\r\n")));
            self.answer(tls, &line, &usual).await?;
            if verb == "DATA" && !refused && (recipients > 0 || forced) {
                self.content(tls).await?;
                let usual =
                    if recipients > 0 { "250 2.6.0 <id> [InternalId=7] Queued mail for delivery" } else { "554 5.5.1 no valid recipients" };
                self.answer(tls, ".", usual).await?;
            }
            if verb == "QUIT" {
                return Err(Over);
            }
        }
    }

    async fn content<S: AsyncRead + AsyncWrite + Unpin>(&mut self, tls: &mut BufReader<S>) -> Result<(), Over> {
        let mut content = Vec::new();
        loop {
            let start = content.len();
            if tls.read_until(b'\n', &mut content).await? == 0 {
                return Err(Over);
            }
            if &content[start..] == b".\r\n" {
                content.truncate(start);
                self.seen.lock().expect("unpoisoned").contents.push(content);
                return Ok(());
            }
            if content[start..].starts_with(b".") && (start == 0 || content[..start].ends_with(b"\r\n")) {
                content.remove(start);
            }
            if let Some(act) = self.occasion("content") {
                self.act(tls, act).await?;
            }
        }
    }

    /// A chunk, which must be the last (RFC 3030 §2).
    async fn chunk<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        tls: &mut BufReader<S>,
        size: &str,
        recipients: usize,
    ) -> Result<(), Over> {
        let size: usize = size.strip_suffix(" LAST").and_then(|size| size.parse().ok()).ok_or(Over)?;
        let mut content = vec![0; size];
        let (begin, rest) = content.split_at_mut(size.min(10));
        tls.read_exact(begin).await?;
        if let Some(act) = self.occasion("content") {
            self.act(tls, act).await?;
        }
        tls.read_exact(rest).await?;
        if recipients == 0 {
            return Ok(send(tls, b"503 5.5.1 no valid recipients\r\n").await?);
        }
        if !self.refuses(".") {
            self.seen.lock().expect("unpoisoned").contents.push(content);
        }
        self.answer(tls, ".", "250 2.6.0 <id> [InternalId=7] Queued mail for delivery").await
    }

    async fn answer<S: AsyncRead + AsyncWrite + Unpin>(&mut self, stream: &mut BufReader<S>, on: &str, usual: &str) -> Result<(), Over> {
        match self.occasion(on) {
            Some(act) => self.act(stream, act).await,
            None => Ok(send(stream, format!("{usual}\r\n").as_bytes()).await?),
        }
    }

    async fn act<S: AsyncRead + AsyncWrite + Unpin>(&mut self, stream: &mut BufReader<S>, act: Act) -> Result<(), Over> {
        match act {
            Act::Say(text) => return Ok(send(stream, text).await?),
            Act::SayAndClose(text) => send(stream, text).await?,
            Act::Close => {}
            Act::Hang => std::future::pending().await,
        }
        Err(Over)
    }

    /// What a rule wants done now.
    fn occasion(&mut self, on: &str) -> Option<Act> {
        let mut act = None;
        for (rule, passed) in self.script.rules.iter().zip(&mut self.passed) {
            if on.starts_with(rule.on) && rule.connection.is_none_or(|only| only == self.number) {
                *passed += 1;
                if act.is_none() && *passed > rule.after {
                    act = Some(rule.act);
                }
            }
        }
        act
    }

    /// Whether a rule is about to refuse the command; does not count as an occasion.
    fn refuses(&self, on: &str) -> bool {
        self.script.rules.iter().zip(&self.passed).any(|(rule, passed)| {
            let here = on.starts_with(rule.on) && rule.connection.is_none_or(|only| only == self.number) && *passed >= rule.after;
            here && matches!(rule.act, Act::Say([b'4' | b'5', ..]))
        })
    }
}

fn ehlo(offers: &[&str]) -> String {
    let mut lines = vec![format!("250-{NAME} Hello [192.0.2.7]")];
    lines.extend(offers.iter().map(|offer| format!("250-{offer}")));
    lines.push("250 HELP".to_owned());
    lines.join("\r\n")
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufReader<S>, octets: &[u8]) -> std::io::Result<()> {
    stream.write_all(octets).await?;
    stream.flush().await
}

async fn line<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufReader<S>) -> Result<String, Over> {
    let mut line = Vec::new();
    if stream.read_until(b'\n', &mut line).await? == 0 {
        return Err(Over);
    }
    let line = line.strip_suffix(b"\r\n").ok_or(Over)?;
    String::from_utf8(line.to_vec()).map_err(|_| Over)
}
