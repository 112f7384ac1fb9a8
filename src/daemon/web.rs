//! The page's listener: the operator's routes over TCP, with TLS or without.
//!
//! Where nobody has written an address and the usual one cannot be had, mail is carried without the page: two relays on one machine, or another
//! program on the port, are no reason to refuse mail. An address that was written is bound or the relay does not start, as with every listener.
//!
//! *Limits.* [`CONNECTIONS`] at a time, each for [`LIFETIME`]; further ones wait outside. A request's header has [`HEADER_TIME`] and
//! [`HEADER_SIZE`] octets, and an idle connection no longer than that.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::shown::Shown;
use super::{Fault, Inherited, Phase, Shutdown, listening};
use crate::admin::{self, Access, AccessSettings, Peer};
use crate::clock::Clock;
use crate::config::Admin;
use crate::telemetry;

/// Connections at a time; a browser opens some six for a page.
pub(super) const CONNECTIONS: usize = 192;
/// How long a connection may last. A page that is cut off comes again by itself.
const LIFETIME: Duration = Duration::from_secs(3_600);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a request's header may take, and an idle connection wait for one.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// Octets of a request's header, at most.
const HEADER_SIZE: usize = 32 << 10;
/// How long accepting rests when the process has no descriptors left.
const EXHAUSTED: Duration = Duration::from_millis(250);

/// The listeners, bound.
pub(super) struct Web {
    listeners: Vec<TcpListener>,
    door: Arc<Door>,
}

/// What all of its connections share.
struct Door {
    access: Arc<Access>,
    shown: Option<Shown>,
    clock: Clock,
    places: Arc<Semaphore>,
}

impl Web {
    /// Binds what is configured; none if there is to be no page, or can be none.
    ///
    /// # Errors
    /// If an address that was written cannot be bound, or the certificate cannot be used.
    pub fn bind(config: &Admin, hostname: &str, inherited: &mut Inherited, clock: Clock) -> Result<Option<Self>, Fault> {
        let mut listeners = Vec::new();
        for address in &config.listen {
            match listening::listen(*address, inherited) {
                Ok(bound) => listeners.push(bound),
                Err(why) if config.is_written => return Err(Fault::bind(*address, why, None)),
                Err(why) => telemetry::admin_unavailable(*address, &why.to_string()),
            }
        }
        let Some((_, first)) = listeners.first() else { return Ok(None) };
        let unusable = |why| Fault::Certificate { address: *first, why };
        let shown = config.certificate.clone().map(|files| Shown::load(files, clock.now())).transpose().map_err(unusable)?;
        let settings = AccessSettings {
            users: config.users.iter().map(|user| (user.name.clone(), user.password.clone())).collect(),
            tokens: config.tokens.clone(),
            names: if config.names.is_empty() { vec![hostname.to_lowercase()] } else { config.names.clone() },
            on_loopback: listeners.iter().all(|(_, address)| address.ip().is_loopback()),
            secure: shown.is_some(),
            port: first.port(),
        };
        listeners.iter().for_each(|(_, address)| telemetry::admin_listening(*address));
        let access = Arc::new(Access::new(settings, clock));
        let door = Door { access, shown, clock, places: Arc::new(Semaphore::new(CONNECTIONS)) };
        Ok(Some(Self { listeners: listeners.into_iter().map(|(listener, _)| listener).collect(), door: Arc::new(door) }))
    }

    /// Serves the routes until the relay ends, and then to the end of what was begun.
    pub async fn serve(self, router: Router, shutdown: Shutdown) {
        let router = admin::gated(router, self.door.access.clone());
        let mut accepting = JoinSet::new();
        for listener in self.listeners {
            accepting.spawn(accept(listener, router.clone(), self.door.clone(), shutdown.clone()));
        }
        // Whoever holds the routes holds what they ask.
        drop(router);
        accepting.join_all().await;
    }
}

async fn accept(listener: TcpListener, router: Router, door: Arc<Door>, shutdown: Shutdown) {
    let mut conversations = JoinSet::new();
    let ending = shutdown.reached(Phase::Ending);
    tokio::pin!(ending);
    loop {
        // The semaphore is never closed.
        let next = async { (door.places.clone().acquire_owned().await, listener.accept().await) };
        tokio::select! {
            () = &mut ending => break,
            (place, accepted) = next => match accepted {
                Ok((stream, peer)) => {
                    let (router, door, shutdown) = (router.clone(), door.clone(), shutdown.clone());
                    conversations.spawn(async move {
                        let _ = timeout(LIFETIME, converse(stream, peer, router, &door, shutdown)).await;
                        drop(place);
                    });
                }
                Err(_) => tokio::time::sleep(EXHAUSTED).await,
            },
            Some(_) = conversations.join_next(), if !conversations.is_empty() => {}
        }
    }
    drop(listener);
    conversations.join_all().await;
}

async fn converse(stream: TcpStream, peer: SocketAddr, router: Router, door: &Door, shutdown: Shutdown) {
    // Events are small, and each is to be seen at once.
    let _ = stream.set_nodelay(true);
    let peer = peer.ip().to_canonical();
    let Some(shown) = &door.shown else { return speak(stream, peer, router, shutdown).await };
    let handshake = TlsAcceptor::from(shown.config(door.clock.now()).await).accept(stream);
    match timeout(HANDSHAKE, handshake).await {
        Ok(Ok(stream)) => speak(stream, peer, router, shutdown).await,
        Ok(Err(error)) => telemetry::tls_failed(peer, &error.to_string()),
        Err(_) => telemetry::tls_failed(peer, "the browser did not finish the handshake in time"),
    }
}

async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin, peer: IpAddr, router: Router, shutdown: Shutdown) {
    let service = TowerToHyperService::new(router.layer(Extension(Peer(peer))));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(HEADER_SIZE);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    // However it ends: the browser is gone, or was told.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = shutdown.reached(Phase::Ending) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
