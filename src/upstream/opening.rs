//! From a name to a stream on which the server has told what it offers: dial, greeting, EHLO, STARTTLS, handshake, EHLO (RFC 3207), or with
//! implicit TLS dial, handshake, greeting, EHLO (RFC 8314).
//!
//! All of it is ours and not lettre's, because here is where an attacker on the path can speak: what stands in the buffer behind the 220 to
//! STARTTLS came before the handshake and would be read as if the server had said it after (CVE-2011-0411). Here it ends the connection.
//! No credential goes out before the certificate was verified against the configured name, and no mail either, unless the route's
//! [`Security`] is content with less.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::{CertificateError, ClientConfig};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::reply::{Cause, Step, Trouble};
use crate::smtp::Reply;

use super::framing::{Frame, first_reply};
use super::laps::Laps;
use super::stream::Stream;
use super::wire::{CLOSED, describe};
use super::{Endpoint, Offers, Protection, Security};

/// How many of a name's addresses are tried, in the resolver's order.
const ADDRESSES: usize = 6;

/// A stream that the route's security is content with, its last EHLO answered.
pub(super) struct Opened {
    pub(super) stream: Stream,
    pub(super) peer: SocketAddr,
    pub(super) offers: Offers,
    pub(super) protection: Protection,
    pub(super) laps: Laps,
    /// The server's 220.
    pub(super) greeting: Reply,
}

pub(super) async fn open(endpoint: &Endpoint) -> Result<Opened, Trouble> {
    match (connect(endpoint, &endpoint.security).await, &endpoint.security) {
        // RFC 7435 §3: what cannot be encrypted goes in clear. Of the connection on which that turned out nothing more is known.
        (Err(Trouble { step: Step::StartTls | Step::Tls, .. }), Security::Opportunistic(_)) => connect(endpoint, &Security::None).await,
        (opened, _) => opened,
    }
}

async fn connect(endpoint: &Endpoint, security: &Security) -> Result<Opened, Trouble> {
    let mut laps = Laps::new();
    let (stream, peer) = dial(endpoint).await?;
    laps.lap(Step::Connect);
    let opened = |(stream, offers): (Stream, Offers), protection, greeting, mut laps: Laps| {
        laps.lap(Step::Ehlo);
        Opened { stream, peer, offers: offers.without(&endpoint.ignored), protection, laps, greeting }
    };
    if let Security::Implicit(tls) = security {
        let mut secure = Lines::new(handshake(endpoint, tls, stream).await?);
        laps.lap(Step::Tls);
        let greeting = secure.greeting(endpoint).await?;
        laps.lap(Step::Greeting);
        return Ok(opened(secure.hello(endpoint).await?, Protection::Verified, greeting, laps));
    }
    let mut plain = Lines::new(stream);
    let greeting = plain.greeting(endpoint).await?;
    laps.lap(Step::Greeting);
    let offers = plain.ehlo(endpoint).await?;
    laps.lap(Step::Ehlo);
    match security {
        Security::Required(_) if !offers.starttls => {
            let text = "the server does not offer STARTTLS; neither credentials nor mail are sent in clear";
            Err(Trouble { step: Step::StartTls, cause: Cause::Protocol(text.to_owned()) })
        }
        Security::Required(tls) | Security::Implicit(tls) => {
            let stream = secured(endpoint, tls, plain, &mut laps).await?;
            Ok(opened(Lines::new(stream).hello(endpoint).await?, Protection::Verified, greeting, laps))
        }
        Security::Opportunistic(tls) if offers.starttls => {
            let stream = secured(endpoint, tls.config(), plain, &mut laps).await?;
            let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
            let protection = match tls.verify(certificates, &endpoint.server_name) {
                Ok(()) => Protection::Verified,
                Err(_) => Protection::Unverified,
            };
            Ok(opened(Lines::new(stream).hello(endpoint).await?, protection, greeting, laps))
        }
        Security::Opportunistic(_) | Security::None => {
            Ok(opened((Stream::Plain(plain.into_stream(Step::Ehlo)?), offers), Protection::Plain, greeting, laps))
        }
    }
}

/// STARTTLS and the handshake.
async fn secured(
    endpoint: &Endpoint,
    tls: &Arc<ClientConfig>,
    plain: Lines<TcpStream>,
    laps: &mut Laps,
) -> Result<TlsStream<TcpStream>, Trouble> {
    let stream = plain.starttls(endpoint).await?;
    laps.lap(Step::StartTls);
    let stream = handshake(endpoint, tls, stream).await?;
    laps.lap(Step::Tls);
    Ok(stream)
}

/// Tries the addresses of the host one after the other, each under the time limit.
async fn dial(endpoint: &Endpoint) -> Result<(TcpStream, SocketAddr), Trouble> {
    let limit = endpoint.timeouts.connect;
    let trouble = |cause| Trouble { step: Step::Connect, cause };
    let found = match timeout(limit, lookup_host((endpoint.host.as_str(), endpoint.port))).await {
        Err(_) => return Err(trouble(Cause::Lost(format!("{}: the name was not resolved in time", endpoint.host)))),
        Ok(Err(error)) => return Err(trouble(Cause::Lost(format!("{}: {error}", endpoint.host)))),
        Ok(Ok(found)) => found,
    };
    let mut failures = Vec::new();
    for address in found.take(ADDRESSES) {
        match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Commands are small and each waits for its reply: Nagle's algorithm would add a delayed ACK to every step.
                let peer = stream.set_nodelay(true).and_then(|()| stream.peer_addr());
                match peer {
                    Ok(peer) => return Ok((stream, peer)),
                    Err(error) => failures.push(format!("{address}: {error}")),
                }
            }
            Ok(Err(error)) => failures.push(format!("{address}: {error}")),
            Err(_) => failures.push(format!("{address}: no answer within {}", crate::units::format_duration(limit))),
        }
    }
    if failures.is_empty() {
        failures.push(format!("{} has no address", endpoint.host));
    }
    Err(trouble(Cause::Lost(failures.join("; "))))
}

async fn handshake(endpoint: &Endpoint, tls: &Arc<ClientConfig>, stream: TcpStream) -> Result<TlsStream<TcpStream>, Trouble> {
    let limit = endpoint.timeouts.connect;
    let connecting = TlsConnector::from(Arc::clone(tls)).connect(endpoint.server_name.clone(), stream);
    let cause = match timeout(limit, connecting).await {
        Ok(Ok(stream)) => return Ok(stream),
        Ok(Err(error)) => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(fault) => Cause::Tls(format!("{}: {}", endpoint.server_name.to_str(), explain(fault))),
            None => Cause::Lost(describe(&error)),
        },
        Err(_) => Cause::TimedOut(limit),
    };
    Err(Trouble { step: Step::Tls, cause })
}

/// What was wrong, for an operator who looks at the certificate or at the CA file.
fn explain(fault: &rustls::Error) -> String {
    match fault {
        rustls::Error::InvalidCertificate(fault) => match fault {
            CertificateError::NotValidForNameContext { presented, .. } => {
                format!("the server's certificate is not for this name but for {}", presented.join(", "))
            }
            CertificateError::UnknownIssuer => "the server's certificate was not issued by a CA that is trusted here".to_owned(),
            CertificateError::BadSignature => {
                "the server's certificate was not signed by the CA that is trusted here, although it bears that CA's name".to_owned()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!("the server's certificate has expired ({fault})")
            }
            fault => format!("the server's certificate is not acceptable ({fault})"),
        },
        rustls::Error::InvalidMessage(_) => "the server does not speak TLS where it should, or somebody spoke before it".to_owned(),
        fault => format!("the handshake failed ({fault})"),
    }
}

/// Takes only `code`; a refusal is the server's, anything else breaks the protocol.
pub(super) fn expect(step: Step, reply: Reply, code: u16) -> Result<Reply, Trouble> {
    if reply.code == code {
        return Ok(reply);
    }
    let refused = reply.is_transient() || reply.is_permanent();
    let cause = if refused { Cause::Reply(reply) } else { Cause::Protocol(format!("{code} was expected, the server said: {reply}")) };
    Err(Trouble { step, cause })
}

/// Takes any 2yz, as RFC 5321 §4.3.2 has it for most commands.
pub(super) fn expect_positive(step: Step, reply: Reply) -> Result<Reply, Trouble> {
    if reply.is_positive() { Ok(reply) } else { expect(step, reply, 250) }
}

/// The dialogue before lettre takes over: one command, one reply.
struct Lines<S> {
    stream: BufReader<S>,
}

impl Lines<TcpStream> {
    /// The stream on which the server waits for the handshake.
    async fn starttls(mut self, endpoint: &Endpoint) -> Result<TcpStream, Trouble> {
        let reply = self.exchange(Step::StartTls, "STARTTLS\r\n", endpoint.timeouts.command).await?;
        expect(Step::StartTls, reply, 220)?;
        self.into_stream(Step::StartTls)
    }
}

impl Lines<TlsStream<TcpStream>> {
    /// The stream, and what the server offers on it.
    async fn hello(mut self, endpoint: &Endpoint) -> Result<(Stream, Offers), Trouble> {
        let offers = self.ehlo(endpoint).await?;
        Ok((Stream::Tls(Box::new(self.into_stream(Step::Ehlo)?)), offers))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Lines<S> {
    fn new(stream: S) -> Self {
        Self { stream: BufReader::with_capacity(2_048, stream) }
    }

    async fn greeting(&mut self, endpoint: &Endpoint) -> Result<Reply, Trouble> {
        let greeting = self.reply(Step::Greeting, endpoint.timeouts.greeting).await?;
        expect(Step::Greeting, greeting, 220)
    }

    async fn ehlo(&mut self, endpoint: &Endpoint) -> Result<Offers, Trouble> {
        let reply = self.exchange(Step::Ehlo, &format!("EHLO {}\r\n", endpoint.helo), endpoint.timeouts.command).await?;
        Ok(Offers::read(&expect(Step::Ehlo, reply, 250)?))
    }

    async fn exchange(&mut self, step: Step, command: &str, limit: Duration) -> Result<Reply, Trouble> {
        let send = async {
            self.stream.write_all(command.as_bytes()).await?;
            self.stream.flush().await
        };
        match timeout(limit, send).await {
            Ok(Ok(())) => self.reply(step, limit).await,
            Ok(Err(error)) => Err(Trouble { step, cause: Cause::Lost(describe(&error)) }),
            Err(_) => Err(Trouble { step, cause: Cause::TimedOut(limit) }),
        }
    }

    async fn reply(&mut self, step: Step, limit: Duration) -> Result<Reply, Trouble> {
        let cause = match timeout(limit, self.read()).await {
            Ok(Ok(Frame::Whole(reply, _))) => return Ok(reply),
            Ok(Ok(Frame::Malformed(what))) => Cause::Protocol(what),
            Ok(Ok(Frame::Partial)) => Cause::Lost(CLOSED.to_owned()),
            Ok(Err(error)) => Cause::Lost(describe(&error)),
            Err(_) => Cause::TimedOut(limit),
        };
        Err(Trouble { step, cause })
    }

    /// Reads up to the end of one reply and not an octet further out of the buffer. `Partial` means that the stream ended.
    async fn read(&mut self) -> io::Result<Frame> {
        let mut octets = Vec::new();
        loop {
            let available = self.stream.fill_buf().await?;
            if available.is_empty() {
                return Ok(Frame::Partial);
            }
            let line = memchr::memchr(b'\n', available).map_or(available.len(), |end| end + 1);
            octets.extend_from_slice(&available[..line]);
            self.stream.consume(line);
            match first_reply(&octets) {
                Frame::Partial => {}
                frame => return Ok(frame),
            }
        }
    }

    /// The stream itself, if the server has said nothing beyond its last reply.
    fn into_stream(self, step: Step) -> Result<S, Trouble> {
        if self.stream.buffer().is_empty() {
            return Ok(self.stream.into_inner());
        }
        let text = "more was received than the reply: somebody on the path may have put it there; the connection was given up";
        Err(Trouble { step, cause: Cause::Protocol(text.to_owned()) })
    }
}
