//! A client's connection, with TLS or without: what is read lives no longer than a read, so that an idle connection holds no buffer of ours.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a client may go on talking after the last reply before its connection is dropped all the same.
const LINGER: Duration = Duration::from_secs(2);
/// What is read at once then.
const LINGER_READ: usize = 4 << 10;

/// A connection.
pub(super) enum Stream {
    /// As it came.
    Plain(TcpStream),
    /// After the handshake.
    Tls {
        /// The stream of what was encrypted.
        stream: Box<TlsStream<TcpStream>>,
        /// Decrypted octets may be waiting although the socket has none.
        has_more: bool,
    },
    /// No more.
    Closed,
}

impl Stream {
    /// Begins TLS; the plain stream is gone whatever comes of it.
    ///
    /// # Errors
    /// If the handshake fails or takes longer than `limit`.
    pub async fn secure(&mut self, config: Arc<ServerConfig>, limit: Duration) -> io::Result<()> {
        let Self::Plain(plain) = std::mem::replace(self, Self::Closed) else {
            return Err(io::Error::other("TLS begins once"));
        };
        let handshake = TlsAcceptor::from(config).accept(plain);
        match timeout(limit, handshake).await {
            // What came with the end of the handshake is decrypted already.
            Ok(stream) => *self = Self::Tls { stream: Box::new(stream?), has_more: true },
            Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "the client did not finish the handshake in time")),
        }
        Ok(())
    }

    /// Version and cipher; empty without TLS.
    pub fn protection(&self) -> String {
        let Self::Tls { stream, .. } = self else { return String::new() };
        let (_, tls) = stream.get_ref();
        let version = tls.protocol_version().and_then(|version| version.as_str()).unwrap_or_default().replace('_', ".");
        let cipher = tls.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or_default();
        format!("{version} {cipher}")
    }

    /// Returns when there may be something to read.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.readable().await,
            Self::Tls { has_more: true, .. } => Ok(()),
            Self::Tls { stream, .. } => stream.get_ref().0.readable().await,
            Self::Closed => Ok(()),
        }
    }

    /// Appends what is there to `buffer`, as far as it has room, and waits for nothing: `None` if there is nothing yet, zero at the end.
    pub async fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
        match self {
            Self::Plain(stream) => match stream.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                read => read.map(Some),
            },
            Self::Tls { stream, has_more } => {
                let mut read = pin!(stream.read_buf(buffer));
                let polled = std::future::poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await;
                *has_more = polled.is_ready();
                match polled {
                    Poll::Pending => Ok(None),
                    // Devices close without the alert that TLS has for it. What was cut off is not kept in either case.
                    Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Some(0)),
                    Poll::Ready(read) => read.map(Some),
                }
            }
            Self::Closed => Ok(Some(0)),
        }
    }

    /// Sends all of it.
    ///
    /// # Errors
    /// If the connection is broken, or the client takes nothing for as long as `limit`.
    pub async fn send(&mut self, octets: &[u8], limit: Duration) -> io::Result<()> {
        let sent = async {
            match self {
                Self::Plain(stream) => stream.write_all(octets).await,
                Self::Tls { stream, .. } => {
                    stream.write_all(octets).await?;
                    stream.flush().await
                }
                Self::Closed => Err(io::ErrorKind::NotConnected.into()),
            }
        };
        match timeout(limit, sent).await {
            Ok(sent) => sent,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its replies")),
        }
    }

    /// Closes the connection in a way that lets the client hear the last reply: what it still sends is read and dropped for a while, or until
    /// `hurry`.
    ///
    /// A socket that is closed with unread octets resets the connection (RFC 1122 §4.2.2.13), and with a reset some systems throw away what
    /// they have received and not yet read. It is those who talk on, being no clients or not speaking SMTP, who most need that reply.
    pub async fn part(self, hurry: impl Future<Output = ()>) {
        let parting = async {
            let mut plain = match self {
                Self::Plain(stream) => stream,
                Self::Tls { mut stream, .. } => {
                    if stream.shutdown().await.is_err() {
                        return;
                    }
                    stream.into_inner().0
                }
                Self::Closed => return,
            };
            if plain.shutdown().await.is_err() {
                // Gone already.
                return;
            }
            let mut dropped = Vec::with_capacity(LINGER_READ);
            while matches!(plain.read_buf(&mut dropped).await, Ok(1..)) {
                dropped.clear();
            }
        };
        tokio::select! {
            () = parting => {}
            () = tokio::time::sleep(LINGER) => {}
            () = hurry => {}
        }
    }
}
