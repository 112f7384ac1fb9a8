//! The stream that lettre speaks over, with a second handle on it for ourselves.
//!
//! lettre is the command and response engine, but it flattens replies to a line of text, copies content octet by octet, and wants to open the
//! conversation itself. So [`Wire`] is a cheap handle on a shared stream: lettre owns one, the connection another. The wire *taps* all that
//! comes in, so that each reply can be taken from it whole and exact; content and secrets are written through the second handle, around lettre;
//! and it is *muted* at first: lettre's own greeting and EHLO are answered here and never reach the server, which was greeted by
//! [`super::opening`] already. (lettre's reading of an EHLO reply panics on a line of blanks; it must not read a server's.)
//!
//! The lock is taken inside poll functions only, never across an await, and never contended: a connection does one thing at a time.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::TlsFacts;
use super::framing::{Frame, first_reply};
use super::stream::Stream;

/// What lettre is told in place of the server's greeting and its answer to EHLO.
const PRELUDE: &[u8] = b"220 tls\r\n250 tls\r\n";

/// A handle on a stream.
#[derive(Debug, Clone)]
pub(super) struct Wire(Arc<Mutex<Shared>>);

#[derive(Debug)]
struct Shared {
    stream: Stream,
    peer: SocketAddr,
    /// What came in and was not yet taken as a reply. Bounded by what lettre reads for one reply.
    tap: Vec<u8>,
    /// While muted: what lettre has not been told yet. `None` once the stream is live.
    prelude: Option<&'static [u8]>,
    /// How the stream ended, if it did.
    ended: Option<String>,
}

impl Wire {
    pub(super) fn new(stream: Stream, peer: SocketAddr) -> Self {
        Self(Arc::new(Mutex::new(Shared { stream, peer, tap: Vec::new(), prelude: Some(PRELUDE), ended: None })))
    }

    /// From here on what is written goes out, and what comes in is read.
    pub(super) fn unmute(&self) {
        self.shared().prelude = None;
    }

    /// The next reply that came in, if it is there.
    pub(super) fn take_reply(&self) -> Frame {
        let mut shared = self.shared();
        let frame = first_reply(&shared.tap);
        if let Frame::Whole(_, used) = frame {
            shared.tap.drain(..used);
        }
        frame
    }

    /// What came of the TLS handshake, if there was one.
    pub(super) fn tls(&self) -> Option<TlsFacts> {
        self.shared().stream.tls()
    }

    /// How the stream ended, if it did.
    pub(super) fn ended(&self) -> Option<String> {
        self.shared().ended.clone()
    }

    /// Whether the server has said nothing that we did not ask for, and has not closed. Costs at most one read that does not wait.
    pub(super) fn is_quiet(&self) -> bool {
        let mut shared = self.shared();
        if !shared.tap.is_empty() || shared.ended.is_some() {
            return false;
        }
        let mut octet = [0; 1];
        let mut buffer = ReadBuf::new(&mut octet);
        // Whatever is ready is bad news: an end, an error, or a 421. TLS session tickets are taken in without making anything ready.
        let poll = Pin::new(&mut shared.stream).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer);
        if poll.is_ready() {
            shared.ended = Some("the server ended the connection while it was idle".to_owned());
        }
        poll.is_pending()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        // Nothing panics while it holds the lock; a stream is as good as before in any case.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a failed read or write says of the connection.
pub(super) fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => CLOSED.to_owned(),
        _ => format!("the connection broke: {error}"),
    }
}

pub(super) const CLOSED: &str = "the server closed the connection";

impl Shared {
    /// Keeps in mind how the stream ended; the first cause stands.
    fn note<T>(&mut self, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &poll {
            self.ended.get_or_insert_with(|| describe(error));
        }
        poll
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let shared = &mut *self.shared();
        if let Some(prelude) = &mut shared.prelude {
            let (now, later) = prelude.split_at(prelude.len().min(buffer.remaining()));
            buffer.put_slice(now);
            *prelude = later;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let poll = Pin::new(&mut shared.stream).poll_read(cx, buffer);
        if let Poll::Ready(Ok(())) = poll {
            let fresh = &mut buffer.filled_mut()[before..];
            if fresh.is_empty() {
                shared.ended.get_or_insert_with(|| CLOSED.to_owned());
            }
            shared.tap.extend_from_slice(fresh);
            // lettre gives up on text that is not UTF-8. It needs the codes only: the text is taken from the tap.
            fresh.iter_mut().filter(|octet| !octet.is_ascii()).for_each(|octet| *octet = b'?');
        }
        shared.note(poll)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let shared = &mut *self.shared();
        if shared.prelude.is_some() {
            return Poll::Ready(Ok(octets.len()));
        }
        let poll = Pin::new(&mut shared.stream).poll_write(cx, octets);
        shared.note(poll)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shared = &mut *self.shared();
        let poll = Pin::new(&mut shared.stream).poll_flush(cx);
        shared.note(poll)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shared = &mut *self.shared();
        let poll = Pin::new(&mut shared.stream).poll_shutdown(cx);
        shared.note(poll)
    }
}

impl AsyncTokioStream for Wire {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.shared().peer)
    }
}
