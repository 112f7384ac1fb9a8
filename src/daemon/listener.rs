//! Accepting connections: who is let in at all, and a task for each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{Phase, Shared, session};
use crate::store::Spool;
use crate::telemetry;

/// How long accepting rests when the process has no descriptors left: long enough for one log line not to become a flood.
const EXHAUSTED: Duration = Duration::from_millis(250);

/// Accepts until the shutdown comes; then waits for the sessions to end. They watch the shutdown themselves.
pub(super) async fn run<S: Spool>(shared: Arc<Shared<S>>, listener: TcpListener, address: SocketAddr) {
    let mut sessions = JoinSet::new();
    let stopping = shared.shutdown.reached(Phase::Stopping);
    tokio::pin!(stopping);
    loop {
        tokio::select! {
            () = &mut stopping => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    sessions.spawn(admit(shared.clone(), stream, peer));
                }
                Err(error) => {
                    telemetry::accept_failed(address, &error.to_string());
                    tokio::time::sleep(EXHAUSTED).await;
                }
            },
            Some(_) = sessions.join_next(), if !sessions.is_empty() => {}
        }
    }
    drop(listener);
    tokio::select! {
        () = async { while sessions.join_next().await.is_some() {} } => {}
        () = shared.shutdown.reached(Phase::Ending) => {}
    }
}

async fn admit<S: Spool>(shared: Arc<Shared<S>>, mut stream: TcpStream, peer: SocketAddr) {
    let peer = peer.ip().to_canonical();
    let admission = shared.policy.connect(shared.clock.now(), peer).and_then(|()| shared.door().admit(peer));
    if let Err(reply) = admission {
        telemetry::connection_refused(peer, &reply);
        let mut octets = Vec::new();
        reply.write_to(&mut octets);
        // The refusal is a courtesy; a peer that does not take it is refused all the same.
        let _ = tokio::time::timeout(Duration::from_secs(5), stream.write_all(&octets)).await;
        return;
    }
    let place = Place { shared: &shared, peer };
    // Replies are small and each is waited for: without this, delayed acknowledgements cost 40 ms a message.
    let _ = stream.set_nodelay(true);
    session::run(shared.clone(), stream, peer).await;
    drop(place);
}

/// A session's place at the door, given back however it ends.
struct Place<'a, S: Spool> {
    shared: &'a Shared<S>,
    peer: std::net::IpAddr,
}

impl<S: Spool> Drop for Place<'_, S> {
    fn drop(&mut self) {
        self.shared.door().leave(self.peer);
    }
}
