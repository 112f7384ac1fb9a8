//! Accepting connections: who is let in at all, and a task for each.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ipnet::IpNet;
use rustix::net::SocketFlags;
use rustls::ServerConfig;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::descriptors::{Spare, refuse_in_passing};
use super::place::Place;
use super::shown::Shown;
use super::sockets::BACKLOG;
use super::stream::Stream;
use super::{Phase, Setup, Shared, session};
use crate::clock::Timestamp;
use crate::config;
use crate::session::{Settings, Tls};
use crate::smtp::{Parsed, ProxyHeader, Reply};
use crate::store::Spool;
use crate::telemetry;
use crate::tls::CertificateError;

/// How long a peer that is turned away may take to read why.
const REFUSAL: Duration = Duration::from_secs(5);

/// What a listener does with its connections.
pub(super) struct Entry {
    /// Where it listens.
    pub address: SocketAddr,
    /// What its sessions keep to.
    pub settings: Arc<Settings>,
    shown: Option<Shown>,
    proxy_from: Vec<IpNet>,
}

impl Entry {
    /// As configured, at the address that it has got.
    ///
    /// # Errors
    /// If its certificate cannot be used.
    pub fn new(listener: config::Listener, settings: &Settings, address: SocketAddr, now: Timestamp) -> Result<Self, CertificateError> {
        let settings = Settings { entrance: listener.entrance, ..settings.clone() };
        let shown = listener.certificate.map(|files| Shown::load(files, now)).transpose()?;
        Ok(Self { address, settings: Arc::new(settings), shown, proxy_from: listener.proxy_from })
    }

    /// What TLS shows now.
    ///
    /// # Errors
    /// If there is nothing to show; that is not configured so.
    pub async fn tls(&self, now: Timestamp) -> io::Result<Arc<ServerConfig>> {
        Ok(self.shown.as_ref().ok_or(io::ErrorKind::NotFound)?.config(now).await)
    }
}

/// Accepts until the shutdown comes, or until the listener is no longer configured; then waits for the sessions to end. They watch the shutdown
/// themselves.
pub(super) async fn run<S: Spool>(shared: Arc<Shared<S>>, listener: Arc<TcpListener>, entry: Arc<Entry>, number: usize) {
    let mut sessions = JoinSet::new();
    let mut spare = Spare::new();
    // As the listener was configured last.
    let mut last = (shared.setup(), entry);
    let mut setups = shared.setup.subscribe();
    let mut gone = pin!(async {
        // The sender lives as long as what all tasks share.
        let _ = setups.wait_for(|setup| !setup.entries.contains_key(&number)).await;
    });
    let mut stopping = pin!(shared.shutdown.reached(Phase::Stopping));
    shared.listening.fetch_add(1, Ordering::Relaxed);
    loop {
        tokio::select! {
            () = &mut stopping => break,
            () = &mut gone => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let setup = shared.setup();
                    if let Some(entry) = setup.entries.get(&number).cloned() {
                        last = (setup, entry);
                    }
                    let (setup, entry) = last.clone();
                    sessions.spawn(admit(shared.clone(), setup, entry, stream, peer.ip().to_canonical()));
                }
                Err(error) => spare.refuse_one(&listener, last.1.address, &error).await,
            },
            Some(_) = sessions.join_next(), if !sessions.is_empty() => {}
        }
    }
    if shared.shutdown.phase() == Phase::Running {
        // Who had connected before the listener went is still served as it was then. No more of them than can wait: others may come as quickly as
        // these are taken.
        for _ in 0..BACKLOG {
            let Ok(stream) = accepted_already(&listener) else { break };
            // Who has hung up meanwhile has no address any more.
            let Ok(peer) = stream.peer_addr() else { continue };
            sessions.spawn(admit(shared.clone(), last.0.clone(), last.1.clone(), stream, peer.ip().to_canonical()));
        }
    }
    drop(listener);
    drop(last);
    shared.listening.fetch_sub(1, Ordering::Relaxed);
    tokio::select! {
        () = async { while sessions.join_next().await.is_some() {} } => {}
        () = shared.shutdown.reached(Phase::Ending) => {}
    }
}

/// A connection that need not be waited for: the system itself is asked, for the runtime may not have heard of the last ones.
fn accepted_already(listener: &TcpListener) -> io::Result<TcpStream> {
    let accepted = rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    TcpStream::from_std(accepted.into())
}

async fn admit<S: Spool>(shared: Arc<Shared<S>>, setup: Arc<Setup>, entry: Arc<Entry>, mut stream: TcpStream, peer: IpAddr) {
    // Replies are small and each is waited for: without this, delayed acknowledgements cost 40 ms a message.
    let _ = stream.set_nodelay(true);
    let is_balancer = entry.proxy_from.iter().any(|network| network.contains(&peer));
    let connects = |client: IpAddr| setup.policy.connect(shared.clock.now(), client);
    let admission = if is_balancer { Place::take(&shared, None) } else { connects(peer).and_then(|()| Place::take(&shared, Some(peer))) };
    let place = match admission {
        Ok(place) => place,
        Err(reply) => return turn_away(&shared, stream, peer, &reply).await,
    };
    let mut client = peer;
    if is_balancer {
        let header = tokio::select! {
            header = header(&mut stream, entry.settings.handshake_timeout) => header,
            () = place.asked_to_go() => Err(others_wait()),
            () = shared.shutdown.reached(Phase::Stopping) => return,
        };
        client = match header {
            Ok(ProxyHeader::Client(client)) => client,
            Ok(ProxyHeader::Own) => peer,
            Err(error) => return telemetry::proxy_failed(peer, &error.to_string()),
        };
        if let Err(reply) = connects(client).and_then(|()| place.name(client)) {
            return turn_away(&shared, stream, client, &reply).await;
        }
    }
    let mut stream = Stream::Plain(stream);
    if entry.settings.entrance.tls == Tls::Implicit
        && let Err(error) = session::secure(&shared, &entry, &place, &mut stream).await
    {
        return telemetry::tls_failed(client, &error.to_string());
    }
    session::run(shared.clone(), setup, &entry, &place, stream, client).await;
}

/// Says why a connection is not served. On a port that begins with TLS nobody would understand that.
async fn turn_away<S: Spool>(shared: &Shared<S>, stream: TcpStream, peer: IpAddr, reply: &Reply) {
    telemetry::connection_refused(peer, reply);
    let Ok(_permit) = shared.doorway.turned_away.try_acquire() else { return refuse_in_passing(stream, reply) };
    let mut octets = Vec::new();
    reply.write_to(&mut octets);
    let mut stream = Stream::Plain(stream);
    // The refusal is a courtesy; a peer that does not take it is refused all the same.
    if stream.send(&octets, REFUSAL).await.is_ok() {
        stream.part(shared.shutdown.reached(Phase::Stopping)).await;
    }
}

/// Why a connection ends that others need the place of.
pub(super) fn others_wait() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "all sessions are in use and others wait")
}

/// The header that a balancer sends first. Reads not one octet more.
async fn header(stream: &mut TcpStream, limit: Duration) -> io::Result<ProxyHeader> {
    let whole = async {
        let mut octets = Vec::new();
        loop {
            match ProxyHeader::parse(&octets).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))? {
                Parsed::Whole(header) => return Ok(header),
                Parsed::Missing(missing) => {
                    let begun = octets.len();
                    octets.resize(begun + missing, 0);
                    stream.read_exact(&mut octets[begun..]).await?;
                }
            }
        }
    };
    match tokio::time::timeout(limit, whole).await {
        Ok(header) => header,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no PROXY header in time")),
    }
}
