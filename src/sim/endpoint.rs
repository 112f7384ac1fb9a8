//! The endpoint itself: its listener, its connections, and the handle by which a test holds it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::dialogue::{Dialogue, End};
use super::fault::{Action, Fault, Script, Step};
use super::identity::Identity;
use super::record::{Counters, Records, Taken, TimedOut};
use super::settings::{Account, Security, Settings};
use super::windows::Budgets;
use super::wire::Wire;
use crate::clock::Clock;
use crate::smtp::Mailbox;

/// rustls asks for 4 KiB at a time; from here it gets them with a sixteenth of the system calls.
const SOCKET_BUFFER: usize = 64 * 1024;

/// A simulated HVE endpoint that runs. Dropping it closes its port and its connections.
pub struct Sim {
    service: Arc<Service>,
    address: SocketAddr,
    identity: Identity,
    listening: tokio::sync::Mutex<Option<Listening>>,
}

struct Listening {
    /// Dropping it stops the task too.
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Sim {
    /// Starts an endpoint; it is up when this returns.
    ///
    /// # Errors
    /// If the certificate cannot be made or the address cannot be bound.
    pub async fn start(settings: Settings) -> io::Result<Self> {
        let identity = match &settings.identity {
            Some(identity) => identity.clone(),
            None => Identity::make(&settings.names.iter().map(String::as_str).collect::<Vec<_>>())?,
        };
        let listener = TcpListener::bind(settings.listen).await?;
        let address = listener.local_addr()?;
        let tls = settings.client_ca.as_deref().map_or_else(|| Ok(identity.server()), |ca| identity.server_for(ca))?;
        let service = Arc::new(Service::new(settings, tls));
        let listening = tokio::sync::Mutex::new(Some(listen(listener, Arc::clone(&service))));
        Ok(Self { service, address, identity, listening })
    }

    /// Where it listens, or did before it was taken down.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate of the CA that vouches for it.
    pub fn ca_pem(&self) -> &str {
        self.identity.ca_pem()
    }

    /// Puts these faults in force, in place of any others; none is an empty list. Their counts begin anew.
    pub fn set_faults(&self, faults: Vec<Fault>) {
        self.service.script.set(faults);
    }

    /// Closes the port and drops every connection; when this returns, all of it has happened.
    pub async fn down(&self) {
        if let Some(Listening { stop, task }) = self.listening.lock().await.take() {
            drop(stop);
            // It can only have ended by itself or with the runtime, and is gone either way.
            let _ = task.await;
        }
    }

    /// Listens again on the same port; what was taken, counted and used before remains. Nothing happens if it is up.
    ///
    /// # Errors
    /// If somebody else has taken the port meanwhile.
    pub async fn up(&self) -> io::Result<()> {
        let mut listening = self.listening.lock().await;
        if listening.is_none() {
            // tokio binds with SO_REUSEADDR, so connections that linger in TIME_WAIT do not hold the port.
            let listener = TcpListener::bind(self.address).await?;
            *listening = Some(listen(listener, Arc::clone(&self.service)));
        }
        Ok(())
    }

    /// What it took so far, in order; nothing if nothing is kept.
    pub fn taken(&self) -> Vec<Taken> {
        self.service.records.taken()
    }

    /// What it took since the last call, and then forgets, so that an endpoint can run for days.
    pub fn drain(&self) -> Vec<Taken> {
        self.service.records.drain()
    }

    /// The counts so far.
    pub fn counters(&self) -> Counters {
        self.service.records.counters()
    }

    /// Waits until it has taken so many messages since its start, and returns them all.
    ///
    /// # Errors
    /// If they have not come within `limit`.
    pub async fn wait_for(&self, messages: u64, limit: Duration) -> Result<Vec<Taken>, TimedOut> {
        self.wait_until(|counters| counters.messages >= messages, limit).await?;
        Ok(self.taken())
    }

    /// Waits until the counts meet a condition, which is looked at after every change.
    ///
    /// # Errors
    /// If they have not met it within `limit`.
    pub async fn wait_until(&self, met: impl FnMut(&Counters) -> bool, limit: Duration) -> Result<(), TimedOut> {
        self.service.records.wait_until(met, limit).await
    }
}

/// What all connections share.
pub(super) struct Service {
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    pub(super) script: Script,
    pub(super) records: Records,
    acceptor: TlsAcceptor,
    /// By user name in lower case.
    tenants: HashMap<String, Arc<Tenant>>,
    accepted_domains: HashSet<String>,
    unknown_recipients: Vec<String>,
    internal_id: AtomicU64,
}

/// An account, and what it uses.
#[derive(Debug)]
pub(super) struct Tenant {
    pub(super) account: Account,
    pub(super) budgets: Mutex<Budgets>,
    seats: AtomicUsize,
}

/// One of an account's connections; given back when dropped.
#[derive(Debug)]
pub(super) struct Seat(Arc<Tenant>);

impl Seat {
    /// None if the account has as many as the limit allows.
    pub(super) fn take(tenant: &Arc<Tenant>, limit: Option<usize>) -> Option<Self> {
        let free = |taken: usize| limit.is_none_or(|limit| taken < limit).then_some(taken + 1);
        tenant.seats.fetch_update(Ordering::AcqRel, Ordering::Acquire, free).ok().map(|_| Self(Arc::clone(tenant)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.seats.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Service {
    fn new(settings: Settings, tls: Arc<ServerConfig>) -> Self {
        let lower = |texts: &[String]| texts.iter().map(|text| text.to_lowercase()).collect::<Vec<_>>();
        let tenant = |account: &Account| {
            let budgets = Mutex::new(Budgets::new(&settings.limits));
            (account.user.to_lowercase(), Arc::new(Tenant { account: account.clone(), budgets, seats: AtomicUsize::new(0) }))
        };
        Self {
            clock: Clock::start(),
            script: Script::default(),
            records: Records::default(),
            acceptor: TlsAcceptor::from(tls),
            tenants: settings.accounts.iter().map(tenant).collect(),
            accepted_domains: lower(&settings.accepted_domains).into_iter().collect(),
            unknown_recipients: lower(&settings.unknown_recipients),
            internal_id: AtomicU64::new(4_664_334),
            settings,
        }
    }

    pub(super) fn tenant(&self, user: &str) -> Option<&Arc<Tenant>> {
        self.tenants.get(&user.to_lowercase())
    }

    pub(super) fn is_internal(&self, mailbox: &Mailbox) -> bool {
        self.accepted_domains.contains(&mailbox.domain().to_lowercase())
    }

    pub(super) fn is_unknown(&self, mailbox: &Mailbox) -> bool {
        let address = mailbox.as_str().to_lowercase();
        self.unknown_recipients.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => address.starts_with(beginning),
            None => address == *pattern,
        })
    }

    pub(super) fn next_internal_id(&self) -> u64 {
        self.internal_id.fetch_add(1, Ordering::Relaxed)
    }
}

fn listen(listener: TcpListener, service: Arc<Service>) -> Listening {
    let (stop, mut stopped) = oneshot::channel();
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => drop(connections.spawn(serve(Arc::clone(&service), stream, peer))),
                    // Out of descriptors, or a connection that was gone before it was accepted: the next try may do better.
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
        drop(listener);
        connections.shutdown().await;
    });
    Listening { stop, task }
}

/// Counts a connection as open for as long as it lives.
struct Open(Arc<Service>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.records.note(|counters| counters.open -= 1);
    }
}

async fn serve(service: Arc<Service>, stream: TcpStream, peer: SocketAddr) {
    let connection = service.records.note(|counters| {
        counters.connections += 1;
        counters.open += 1;
        counters.most_open = counters.most_open.max(counters.open);
        counters.connections
    });
    let _open = Open(Arc::clone(&service));
    let dialogue = Dialogue::new(Arc::clone(&service), connection, peer.ip());
    // However it ends, it has ended; what matters of it is in the records.
    let _ = converse(&service, stream, dialogue).await;
}

async fn converse(service: &Service, stream: TcpStream, mut dialogue: Dialogue) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let delay = service.settings.delay;
    let mut wire = Wire::new(BufReader::with_capacity(SOCKET_BUFFER, stream), delay);
    let implicit = service.settings.security == Security::Implicit;
    if !implicit {
        dialogue.greet(&mut wire).await?;
        if dialogue.run(&mut wire).await? == End::Closed {
            return wire.close().await;
        }
    }
    let due = dialogue.due(Step::Tls, &[]);
    match due.map(|fault| fault.action) {
        None | Some(Action::Inject(_)) => {}
        Some(Action::Delay(pause)) => tokio::time::sleep(pause).await,
        Some(Action::Silence) => return wire.fall_silent().await,
        Some(Action::Drop | Action::TakeAndDrop) => return Err(io::ErrorKind::ConnectionAborted.into()),
        Some(Action::Reply(text)) => {
            // Behind the client's first octets, so that it is no injection behind the 220.
            wire.hear().await?;
            wire.reply(&text);
            return wire.flush().await;
        }
    }
    let stream = match service.acceptor.accept(wire.into_stream()).await {
        Ok(stream) => stream,
        Err(error) => {
            service.records.note(|counters| counters.failed_handshakes += 1);
            return Err(error);
        }
    };
    service.records.note(|counters| counters.handshakes += 1);
    let mut dialogue = dialogue.secured();
    let mut wire = Wire::new(stream, delay);
    if implicit {
        dialogue.greet(&mut wire).await?;
    }
    dialogue.run(&mut wire).await?;
    wire.close().await
}
