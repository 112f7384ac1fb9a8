//! Sockets that the service manager has bound and passes on (`LISTEN_FDS`, sd_listen_fds(3)): they stay open while the relay is restarted, so
//! that no connection is refused meanwhile.
//!
//! A `[[listener]]` takes over the socket with its address; the others are bound as always. A socket that no listener asks for is a fault,
//! because clients would wait there for somebody who never comes.

use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

/// The sockets that nobody has taken over.
#[derive(Debug, Default)]
pub struct Inherited(Vec<TcpListener>);

impl Inherited {
    /// Takes what the environment says is there. Before the process has threads: the variables are removed, so that no child takes them for
    /// its own.
    ///
    /// # Errors
    /// If one of them is no TCP socket.
    pub fn take() -> io::Result<Self> {
        let mut passed = ListenFd::from_env();
        let sockets = (0..passed.len()).filter_map(|i| passed.take_tcp_listener(i).transpose());
        sockets.collect::<io::Result<_>>().map(Self)
    }

    /// The socket that is bound there, if there is one.
    pub(super) fn bound_to(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let i = self.0.iter().position(|socket| socket.local_addr().is_ok_and(|bound| bound == address))?;
        Some(self.0.swap_remove(i))
    }

    /// An address on which nobody listens yet.
    pub(super) fn left(&self) -> Option<SocketAddr> {
        self.0.iter().find_map(|socket| socket.local_addr().ok())
    }
}
