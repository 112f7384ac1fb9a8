//! Accepting connections: who is let in at all, and a task for each.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use ipnet::IpNet;
use rustls::ServerConfig;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::shown::Shown;
use super::stream::Stream;
use super::{Phase, Setup, Shared, session};
use crate::clock::Timestamp;
use crate::config;
use crate::session::{Settings, Tls};
use crate::smtp::{Parsed, ProxyHeader, Reply};
use crate::store::Spool;
use crate::telemetry;
use crate::tls::CertificateError;

/// How long accepting rests when the process has no descriptors left: long enough for one log line not to become a flood.
const EXHAUSTED: Duration = Duration::from_millis(250);
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
pub(super) async fn run<S: Spool>(shared: Arc<Shared<S>>, listener: TcpListener, entry: Arc<Entry>, number: usize) {
    let mut sessions = JoinSet::new();
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
                Err(error) => {
                    telemetry::accept_failed(last.1.address, &error.to_string());
                    tokio::time::sleep(EXHAUSTED).await;
                }
            },
            Some(_) = sessions.join_next(), if !sessions.is_empty() => {}
        }
    }
    if shared.shutdown.phase() == Phase::Running {
        // Who had connected before the listener went is still served as it was then.
        while let Some(Ok((stream, peer))) = accepted_already(&listener).await {
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

/// A connection that need not be waited for.
async fn accepted_already(listener: &TcpListener) -> Option<io::Result<(TcpStream, SocketAddr)>> {
    let mut accept = pin!(listener.accept());
    std::future::poll_fn(|cx| match accept.as_mut().poll(cx) {
        Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

async fn admit<S: Spool>(shared: Arc<Shared<S>>, setup: Arc<Setup>, entry: Arc<Entry>, mut stream: TcpStream, peer: IpAddr) {
    // Replies are small and each is waited for: without this, delayed acknowledgements cost 40 ms a message.
    let _ = stream.set_nodelay(true);
    let is_balancer = entry.proxy_from.iter().any(|network| network.contains(&peer));
    let connects = |client: IpAddr| setup.policy.connect(shared.clock.now(), client);
    let admission = if is_balancer { Place::take(&shared, None) } else { connects(peer).and_then(|()| Place::take(&shared, Some(peer))) };
    let mut place = match admission {
        Ok(place) => place,
        Err(reply) => return turn_away(&shared, stream, peer, &reply).await,
    };
    let mut client = peer;
    if is_balancer {
        let header = tokio::select! {
            header = header(&mut stream, entry.settings.handshake_timeout) => header,
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
        && let Err(error) = session::secure(&shared, &entry, &mut stream).await
    {
        return telemetry::tls_failed(client, &error.to_string());
    }
    session::run(shared.clone(), setup, &entry, stream, client).await;
    drop(place);
}

/// Says why a connection is not served. On a port that begins with TLS nobody would understand that.
async fn turn_away<S: Spool>(shared: &Shared<S>, stream: TcpStream, peer: IpAddr, reply: &Reply) {
    telemetry::connection_refused(peer, reply);
    let mut octets = Vec::new();
    reply.write_to(&mut octets);
    let mut stream = Stream::Plain(stream);
    // The refusal is a courtesy; a peer that does not take it is refused all the same.
    if stream.send(&octets, REFUSAL).await.is_ok() {
        stream.part(shared.shutdown.reached(Phase::Stopping)).await;
    }
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

/// A session's place at the door, given back however it ends.
struct Place<'a, S: Spool> {
    shared: &'a Shared<S>,
    /// Whose it is; `None` as long as only a balancer is known.
    peer: Option<IpAddr>,
}

impl<'a, S: Spool> Place<'a, S> {
    fn take(shared: &'a Shared<S>, peer: Option<IpAddr>) -> Result<Self, Reply> {
        match peer {
            Some(peer) => shared.door().admit(peer)?,
            None => shared.door().admit_unnamed()?,
        }
        Ok(Self { shared, peer })
    }

    /// Whose connection a balancer has passed on.
    fn name(&mut self, peer: IpAddr) -> Result<(), Reply> {
        self.shared.door().name(peer)?;
        self.peer = Some(peer);
        Ok(())
    }
}

impl<S: Spool> Drop for Place<'_, S> {
    fn drop(&mut self) {
        match self.peer {
            Some(peer) => self.shared.door().leave(peer),
            None => self.shared.door().leave_unnamed(),
        }
    }
}
