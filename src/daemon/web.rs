//! The page's listener: the operator's routes over TCP, with TLS or without.
//!
//! Where nobody has written an address and the usual one cannot be had, mail is carried without the page: two relays on one machine, or another
//! program on the port, are no reason to refuse mail. An address that was written is bound or the relay does not start, as with every listener.
//!
//! A reload may change all of it. What is to be shown, and which listeners are open, is one value (`Door`) that all of them watch.
//!
//! *Limits.* [`CONNECTIONS`] at a time, each for [`LIFETIME`]; further ones wait outside. A request's header has [`HEADER_TIME`] and
//! [`HEADER_SIZE`] octets, and an idle connection no longer than that.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::shown::Shown;
use super::sockets::{Going, Opened, Opening, Sockets};
use super::{Fault, Inherited, Phase, Shutdown};
use crate::admin::{Access, AccessSettings, Parting, Peer};
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

/// The page as it is configured: where it listens, and who may come in.
pub(super) struct Web {
    access: Arc<Access>,
    places: Arc<Semaphore>,
    clock: Clock,
    sockets: Sockets,
    door: watch::Sender<Arc<Door>>,
    /// What was configured last.
    last: Option<Admin>,
}

/// What a connection meets; another configuration puts another in its place.
#[derive(Default)]
struct Door {
    /// The listeners that are open, by their numbers.
    open: Vec<usize>,
    shown: Option<Shown>,
    /// Which configuration it belongs to. Whoever has come in by another one is asked to come again.
    version: usize,
}

/// What is to be open, with what it shows.
pub(super) struct OpeningPage {
    config: Admin,
    sockets: Opening,
    shown: Option<Shown>,
    /// What could not be had, and need not.
    unavailable: Vec<Fault>,
}

/// One listener of the page, to be served.
pub(super) struct PageListener {
    number: usize,
    listener: Arc<TcpListener>,
    door: watch::Receiver<Arc<Door>>,
    places: Arc<Semaphore>,
    clock: Clock,
}

impl Web {
    /// So far it is nowhere.
    pub fn new(clock: Clock) -> Self {
        Self {
            access: Arc::new(Access::new(AccessSettings::default(), clock)),
            places: Arc::new(Semaphore::new(CONNECTIONS)),
            clock,
            sockets: Sockets::default(),
            door: watch::Sender::new(Arc::default()),
            last: None,
        }
    }

    /// Who may come in.
    pub fn access(&self) -> Arc<Access> {
        self.access.clone()
    }

    /// See [`Sockets::going`].
    pub fn going(&self, config: &Admin) -> Going {
        self.sockets.going(&config.listen)
    }

    /// Binds what is configured and not open yet. All goes on as it is until [`Self::follow`].
    ///
    /// # Errors
    /// All addresses that were written and cannot be bound, and the certificate if it cannot be used. Then nothing has changed.
    pub fn open(&mut self, config: &Admin, inherited: &mut Inherited, going: &Going) -> Result<OpeningPage, Vec<Fault>> {
        let (sockets, unavailable) = match self.sockets.open(&config.listen, inherited, going) {
            Err(faults) if !config.is_written => (Ok(Opening::default()), faults),
            opened => (opened, Vec::new()),
        };
        let files = config.certificate.clone().zip(config.listen.first());
        let shown =
            files.map(|(files, address)| Shown::load(files, self.clock.now()).map_err(|why| Fault::Certificate { address: *address, why }));
        match (sockets, shown.transpose()) {
            (Ok(sockets), Ok(shown)) => Ok(OpeningPage { config: config.clone(), sockets, shown, unavailable }),
            (sockets, shown) => Err(sockets.err().into_iter().flatten().chain(shown.err()).collect()),
        }
    }

    /// Goes on by it. Returns the listeners that are new, for somebody to serve. If anything has changed, connections end with the answer that
    /// they wait for: their browsers come again, and are served by the new rules.
    pub fn follow(&mut self, opening: OpeningPage) -> Vec<PageListener> {
        let OpeningPage { config, sockets, shown, unavailable } = opening;
        for fault in unavailable {
            if let Fault::Bind { address, why, .. } = fault {
                telemetry::admin_unavailable(address, &why.to_string());
            }
        }
        let open = sockets.each().map(|(number, _)| number).collect();
        let new = self.sockets.follow(sockets);
        let bound = self.sockets.bound();
        // First of all, so that nobody is let in by rules that are gone.
        self.access.change(AccessSettings {
            users: config.users.iter().map(|user| (user.name.clone(), user.password.clone())).collect(),
            tokens: config.tokens.clone(),
            names: config.names.clone(),
            on_loopback: bound.iter().all(|address| address.ip().is_loopback()),
            secure: shown.is_some(),
            port: bound.first().map_or(0, SocketAddr::port),
        });
        let version = self.door.borrow().version + usize::from(self.last.as_ref() != Some(&config));
        self.door.send_replace(Arc::new(Door { open, shown, version }));
        self.last = Some(config);
        let page = |Opened { number, bound, socket }| {
            telemetry::admin_listening(bound);
            let (door, places) = (self.door.subscribe(), self.places.clone());
            PageListener { number, listener: socket, door, places, clock: self.clock }
        };
        new.into_iter().map(page).collect()
    }
}

impl OpeningPage {
    /// See [`Opening::listen`].
    pub fn listen(&mut self, going: &Going) -> Result<(), Fault> {
        self.sockets.listen(going)
    }
}

impl PageListener {
    /// Serves the routes until the relay ends or the listener is no longer configured, and then to the end of what was begun.
    pub async fn serve(self, router: Router, shutdown: Shutdown) {
        let Self { number, listener, door, places, clock } = self;
        let mut conversations = JoinSet::new();
        let ending = shutdown.reached(Phase::Ending);
        let gone = until(door.clone(), move |door| !door.open.contains(&number));
        tokio::pin!(ending, gone);
        loop {
            // The semaphore is never closed.
            let next = async { (places.clone().acquire_owned().await, listener.accept().await) };
            tokio::select! {
                () = &mut ending => break,
                () = &mut gone => break,
                (place, accepted) = next => match accepted {
                    Ok((stream, peer)) => {
                        let (router, door, shutdown) = (router.clone(), door.clone(), shutdown.clone());
                        conversations.spawn(async move {
                            let _ = timeout(LIFETIME, converse(stream, peer, router, door, clock, shutdown)).await;
                            drop(place);
                        });
                    }
                    Err(_) => tokio::time::sleep(EXHAUSTED).await,
                },
                Some(_) = conversations.join_next(), if !conversations.is_empty() => {}
            }
        }
        drop(listener);
        // Whoever holds the routes holds what they ask.
        drop(router);
        conversations.join_all().await;
    }
}

/// Waits for a change of the door.
async fn until(mut door: watch::Receiver<Arc<Door>>, change: impl Fn(&Door) -> bool) {
    // When nobody is left to change it the relay is stopping, and the page with it, later.
    if door.wait_for(|door| change(door)).await.is_err() {
        std::future::pending().await
    }
}

async fn converse(stream: TcpStream, peer: SocketAddr, router: Router, door: watch::Receiver<Arc<Door>>, clock: Clock, shutdown: Shutdown) {
    // Events are small, and each is to be seen at once.
    let _ = stream.set_nodelay(true);
    let peer = peer.ip().to_canonical();
    let entered = door.borrow().clone();
    let version = entered.version;
    let leave = (until(door, move |door| door.version != version), shutdown.reached(Phase::Ending));
    let Some(shown) = &entered.shown else { return speak(stream, peer, router, leave).await };
    let handshake = TlsAcceptor::from(shown.config(clock.now()).await).accept(stream);
    match timeout(HANDSHAKE, handshake).await {
        Ok(Ok(stream)) => speak(stream, peer, router, leave).await,
        Ok(Err(error)) => telemetry::tls_failed(peer, &error.to_string()),
        Err(_) => telemetry::tls_failed(peer, "the browser did not finish the handshake in time"),
    }
}

/// Answers until the browser goes, or until it is to leave: then to the end of the answer that it waits for. If it has not asked for anything
/// yet, it may do so once, unless the relay ends.
async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: IpAddr,
    router: Router,
    (changed, ending): (impl Future<Output = ()>, impl Future<Output = ()>),
) {
    let (parting, told) = watch::channel(false);
    let (asked, mut has_asked) = watch::channel(false);
    let routes = TowerToHyperService::new(router.layer(Extension(Peer(peer))).layer(Extension(Parting(told))));
    let service = service_fn(move |request| {
        asked.send_replace(true);
        routes.call(request)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(HEADER_SIZE);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    // hyper hangs up at once on a browser from which nothing has come so far, although its request may be on the way.
    let changed = async {
        changed.await;
        let _ = has_asked.wait_for(|asked| *asked).await;
    };
    // However it ends: the browser is gone, or was told.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = changed => {}
        () = ending => {}
    }
    parting.send_replace(true);
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}
