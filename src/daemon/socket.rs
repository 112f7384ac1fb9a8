//! The Unix socket on which the running relay is asked and steered: who may connect, and how many at a time.
//!
//! Whoever may write to the socket may do what an operator does: its mode is 0660, and that is so before anybody can connect. It is bound, then
//! its mode is set, and only then it listens. A file that an earlier relay left behind is removed if nobody answers on it; this one is removed at
//! the end, unless somebody has put another in its place. A reload may put the socket elsewhere: for a moment there are two.
//!
//! *Limits.* [`CONNECTIONS`] at a time, each of them for [`LIFETIME`]; the next ones wait. Two relays that begin in the same instant with one
//! path and with different data directories may both take it; the one that came last is reached.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request};
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use axum::serve::{IncomingStream, Listener};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

use crate::admin::Operator;

/// Read and write for the relay's own user and group.
const MODE: u32 = 0o660;
/// Connections at a time.
pub(super) const CONNECTIONS: usize = 64;
/// How long a connection may last: far beyond what an answer takes.
const LIFETIME: Duration = Duration::from_secs(600);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// How long accepting rests when the process has no descriptors left.
const EXHAUSTED: Duration = Duration::from_millis(250);

/// The socket, listening.
#[derive(Debug)]
pub(super) struct Socket {
    listener: UnixListener,
    places: Arc<Semaphore>,
    _file: SocketFile,
}

/// The socket's file, which goes with this.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode: that it is this one and no other's.
    identity: (u64, u64),
}

impl Socket {
    /// Binds and listens.
    ///
    /// # Errors
    /// If somebody answers there already, if the path is something else than a socket, or as the system has them.
    pub fn bind(path: &Path) -> io::Result<Self> {
        clear(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        let bound = fs::symlink_metadata(path)?;
        let file = SocketFile { path: path.to_owned(), identity: (bound.dev(), bound.ino()) };
        fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
        rustix::net::listen(&socket, BACKLOG)?;
        let listener = UnixListener::from_std(socket.into())?;
        Ok(Self { listener, places: Arc::new(Semaphore::new(CONNECTIONS)), _file: file })
    }
}

/// Removes a socket that nobody listens on any more.
fn clear(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is something else than a socket at this path"));
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers there")),
        Err(error) => Err(error),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if ours {
            // If it stays, the next start finds that nobody answers.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Listener for Socket {
    type Io = Connection;
    type Addr = Operator;

    async fn accept(&mut self) -> (Connection, Operator) {
        loop {
            // The semaphore is never closed.
            let place = self.places.clone().acquire_owned().await.ok();
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let by = stream.peer_cred().map_or_else(|_| "unknown".to_owned(), |peer| format!("uid {}", peer.uid()));
                    return (Connection { stream, lifetime: Box::pin(tokio::time::sleep(LIFETIME)), _place: place }, Operator(by));
                }
                Err(_) => tokio::time::sleep(EXHAUSTED).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Operator> {
        Ok(Operator("the relay".to_owned()))
    }
}

impl Connected<IncomingStream<'_, Socket>> for Operator {
    fn connect_info(stream: IncomingStream<'_, Socket>) -> Self {
        stream.remote_addr().clone()
    }
}

/// Serves the routes on the socket until `stop`, and then to the end of what was begun.
pub(super) async fn serve(socket: Socket, router: Router, stop: impl Future<Output = ()> + Send + 'static) {
    let service = router.layer(from_fn(name_the_operator)).into_make_service_with_connect_info::<Operator>();
    // Accepting does not end by a fault.
    let _ = axum::serve(socket, service).with_graceful_shutdown(stop).await;
}

async fn name_the_operator(ConnectInfo(by): ConnectInfo<Operator>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(by);
    next.run(request).await
}

/// A connection that has an end, and gives its place to the next one then.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    lifetime: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Connection {
    /// Its stream, as long as it may last.
    fn stream(&mut self, cx: &mut Context<'_>) -> io::Result<Pin<&mut UnixStream>> {
        match self.lifetime.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(Pin::new(&mut self.stream)),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream(cx)?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream(cx)?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_for_its_group_and_goes_with_its_relay() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control.sock");
        let socket = Socket::bind(&path).expect("bound");
        assert_eq!(fs::symlink_metadata(&path).expect("there").mode() & 0o7777, MODE);
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn only_what_nobody_answers_on_is_taken_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control.sock");
        let first = Socket::bind(&path).expect("bound");
        assert_eq!(Socket::bind(&path).expect_err("taken").kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());
        drop(first);
        // What a killed relay leaves behind.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
        assert!(path.exists());
        drop(Socket::bind(&path).expect("taken over"));
        fs::write(&path, "a file").expect("written");
        assert_eq!(Socket::bind(&path).expect_err("no socket").kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).expect("kept"), "a file");
    }

    #[tokio::test]
    async fn a_file_that_another_has_put_there_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control.sock");
        let socket = Socket::bind(&path).expect("bound");
        fs::rename(&path, folder.path().join("moved")).expect("moved");
        fs::write(&path, "another's").expect("written");
        drop(socket);
        assert!(path.exists());
    }
}
