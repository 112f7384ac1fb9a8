//! A client of the relay's own listeners, for the commands that try them: where a listener is reached from this machine, and one command and one
//! reply at a time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::Listener;
use crate::session::Tls;
use crate::smtp::Reply;
use crate::tls::{CertificateFiles, Opportunistic};

/// How long each step may take: it is this machine that answers, and some refusals come late on purpose.
const LIMIT: Duration = Duration::from_secs(20);
/// Octets of a reply.
const LONGEST: u64 = 64 << 10;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A conversation with a listener.
pub(super) struct Dialogue {
    stream: BufReader<Box<dyn Stream>>,
}

/// Where a listener is reached from this machine.
pub(super) fn reach(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Addresses of this machine from which something at `to` can be reached.
pub(super) fn own_addresses(to: SocketAddr) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = match to.ip() {
        // All of 127.0.0.0/8 is this machine (RFC 1122 §3.2.1.3).
        IpAddr::V4(_) => vec![Ipv4Addr::LOCALHOST.into(), Ipv4Addr::new(127, 66, 66, 66).into()],
        IpAddr::V6(_) => vec![Ipv6Addr::LOCALHOST.into()],
    };
    // A datagram socket that is connected knows its own address, and sends nothing by that. The addresses are those of documentation.
    let anywhere: [SocketAddr; 2] = match to.ip() {
        IpAddr::V4(_) => [(Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv4Addr::new(192, 0, 2, 1), 9).into()],
        IpAddr::V6(_) => [(Ipv6Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into()],
    };
    let own = std::net::UdpSocket::bind(anywhere[0]).and_then(|socket| {
        socket.connect(anywhere[1])?;
        socket.local_addr()
    });
    addresses.extend(own.ok().map(|own| own.ip()));
    if !to.ip().is_loopback() {
        addresses.push(to.ip());
    }
    addresses.dedup();
    addresses
}

impl Dialogue {
    /// Connects from one of this machine's addresses, begins TLS where the listener begins with it, and takes the greeting. A `client` is who a
    /// balancer says that it is, where the listener wants to hear that.
    ///
    /// # Errors
    /// In words, what did not go.
    pub async fn connect(listener: &Listener, hostname: &str, from: IpAddr, client: Option<IpAddr>) -> Result<(Self, Reply), String> {
        let to = reach(listener.address);
        let connecting = async {
            let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.bind((from, 0).into())?;
            let mut stream = socket.connect(to).await?;
            if let Some(client) = client {
                let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
                let own = if client.is_ipv4() { IpAddr::from(Ipv4Addr::LOCALHOST) } else { Ipv6Addr::LOCALHOST.into() };
                stream.write_all(format!("PROXY {family} {client} {own} 1025 25\r\n").as_bytes()).await?;
            }
            Ok(stream)
        };
        let stream = timely(connecting).await?;
        let stream: Box<dyn Stream> = if listener.entrance.tls == Tls::Implicit {
            secure(listener.certificate.as_ref(), hostname, stream).await?
        } else {
            Box::new(stream)
        };
        let mut dialogue = Self { stream: BufReader::new(stream) };
        let greeting = dialogue.reply().await?;
        Ok((dialogue, greeting))
    }

    /// Begins TLS.
    pub async fn starttls(self, listener: &Listener, hostname: &str) -> Result<Self, String> {
        let stream = secure(listener.certificate.as_ref(), hostname, self.stream.into_inner()).await?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Sends a command and takes its reply.
    pub async fn command(&mut self, command: &str) -> Result<Reply, String> {
        self.send(format!("{command}\r\n").as_bytes()).await?;
        self.reply().await
    }

    /// Sends octets as they are.
    pub async fn send(&mut self, octets: &[u8]) -> Result<(), String> {
        timely(async {
            self.stream.write_all(octets).await?;
            self.stream.flush().await
        })
        .await
    }

    /// Takes the next reply.
    pub async fn reply(&mut self) -> Result<Reply, String> {
        let mut lines: Vec<String> = Vec::new();
        timely(async {
            loop {
                let mut line = String::new();
                if (&mut self.stream).take(LONGEST).read_line(&mut line).await? == 0 {
                    return Err(std::io::Error::other("it hung up"));
                }
                let last = line.as_bytes().get(3) != Some(&b'-');
                lines.push(line.trim_end().to_owned());
                if last || lines.len() > 100 {
                    return Ok(());
                }
            }
        })
        .await?;
        Reply::parse(lines.iter().map(String::as_str)).ok_or_else(|| format!("this is no reply of a mail server: {}", lines.concat()))
    }

    /// Says good-bye.
    pub async fn quit(mut self) {
        // Nothing depends on it.
        let _ = self.command("QUIT").await;
    }
}

/// Whoever holds the certificate is this machine, whatever name is in it.
async fn secure(certificate: Option<&CertificateFiles>, hostname: &str, stream: impl Stream + 'static) -> Result<Box<dyn Stream>, String> {
    let chain = certificate.map(|files| files.chain.as_path());
    let tls = Opportunistic::new(chain, None).map_err(|error| error.to_string())?;
    let name = ServerName::try_from(hostname.to_owned()).map_err(|error| error.to_string())?;
    let secured = timely(TlsConnector::from(tls.config().clone()).connect(name, stream)).await;
    Ok(Box::new(secured.map_err(|why| format!("TLS: {why}"))?))
}

async fn timely<T>(step: impl Future<Output = std::io::Result<T>>) -> Result<T, String> {
    match timeout(LIMIT, step).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
    }
}

/// A stream that is connected, for what is not worth a conversation.
pub(super) async fn answers(address: SocketAddr) -> bool {
    timely(TcpStream::connect(reach(address))).await.is_ok()
}

/// What is answered over HTTP to somebody on this machine who asks for `path`, over TLS if there is a certificate to be shown: all of it, as text.
///
/// # Errors
/// In words, what did not go.
pub(super) async fn asked(
    address: SocketAddr,
    certificate: Option<&CertificateFiles>,
    hostname: &str,
    path: &str,
) -> Result<String, String> {
    let stream = timely(TcpStream::connect(reach(address))).await?;
    let mut stream: Box<dyn Stream> = if certificate.is_some() { secure(certificate, hostname, stream).await? } else { Box::new(stream) };
    timely(async {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes()).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        stream.take(LONGEST).read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    })
    .await
}
