//! The running relay: listeners, sessions, the dispatch loop and shutdown. It turns the actions of the deciding rooms into IO and decides
//! nothing itself.
//!
//! ```text
//! listener ─▶ session task ─▶ store.accept ─▶ 250
//!                                  │ Add
//!                                  ▼
//!            dispatcher (owns the scheduler) ─▶ attempt task ─▶ upstream ─▶ store.settle
//!                                  ▲                                           │ Settled
//!                                  └───────────────────────────────────────────┘
//! operator ─▶ socket ─▶ control ─▶ store, then Ask ─▶ dispatcher
//! SIGHUP ─▶ reload (owns the listeners) ─▶ a new Setup, Switch ─▶ dispatcher
//! ```
//!
//! Invariants: a client sees 250 only after the store has said `Ok`; an attempt begins only after the store has recorded what it reserves and
//! that it begins; an attempt's end frees its account and settles its budgets at once, but the delivery is placed anew only after the store has
//! recorded the end; when the store fails for good the process ends.

mod alarms;
mod attempt;
mod control;
mod counts;
mod descriptors;
mod dispatch;
mod doubt;
mod endings;
mod flow;
mod habits;
mod health;
mod history;
mod inherit;
mod ledger;
mod letters;
mod listener;
mod listening;
mod login;
mod monitor;
mod notices;
mod operate;
mod parting;
mod past;
mod place;
mod probe;
mod reload;
mod service;
mod session;
mod setup;
mod shown;
mod shutdown;
mod socket;
mod sockets;
mod sorting;
mod stream;
mod tokens;
mod web;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::admin::Flow;
use crate::clock::Clock;
use crate::config::Config;
use crate::intake::{Habits, Policy};
use crate::mail::{AccountName, QueueId, QueueIds, Queued, RouteName};
use crate::schedule::{Scheduler, Suspicions};
use crate::store::history::History;
use crate::store::sqlite::{OpenError, Sqlite};
use crate::store::{Spool, StoreError};
use crate::telemetry;
use crate::tls::{CertificateError, TlsError};

use alarms::Board;
use listener::Entry;
use listening::Listening;
use login::Logins;
use notices::Desk;
use place::Doorway;
use reload::{Asked, Last, Reloads};
use setup::{Setup, Upstream};
use shutdown::Signals;
use socket::Socket;
use sockets::Going;
use web::Web;

pub use descriptors::{allowed as open_files_allowed, needed as open_files_needed};
pub use inherit::Inherited;
pub use ledger::boot_id;
pub use shutdown::{Phase, Shutdown};

/// Why the relay could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A listener's address could not be bound.
    #[error("cannot listen on {address}: {why}{hint}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// The system's words.
        why: std::io::Error,
        /// What to do; empty if nothing can be said.
        hint: &'static str,
    },
    /// A socket that was passed on has an address that is no listener's.
    #[error(
        "the service manager has passed on a socket on {0}, which is no [[listener]]'s: write address = \"{0}\" with one, or take it out of the .socket unit"
    )]
    Inherited(SocketAddr),
    /// The operator's socket could not be had.
    #[error("cannot listen for operators on {}: {why}{hint}", path.display())]
    Control {
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        why: io::Error,
        /// What to do; empty if nothing can be said.
        hint: &'static str,
    },
    /// The data directory could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The certificates of a route's authorities could not be had.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A listener's certificate could not be had.
    #[error("cannot offer TLS on {address}: {why}")]
    Certificate {
        /// Which.
        address: SocketAddr,
        /// What is wrong.
        why: CertificateError,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A task ended that never should.
    #[error("a task of the relay ended by itself: {0}")]
    Task(String),
}

/// Runs the relay until a signal ends it. A reload reads the configuration again from `path`.
///
/// # Errors
/// If a listener or the data directory cannot be had at start, or if the store fails for good.
pub async fn run(mut config: Config, path: PathBuf, mut inherited: Inherited) -> Result<(), Fault> {
    let clock = Clock::start();
    descriptors::provide(&mut config);
    // Before anybody can know that the relay runs.
    let signals = Signals::catch().map_err(|error| Fault::Task(error.to_string()))?;
    let hangup = signal(SignalKind::hangup()).map_err(|error| Fault::Task(error.to_string()))?;
    // The lock of the data directory first: of two relays with one configuration, the second should name the first, not a busy port.
    let store = Sqlite::open(&config.store)?;
    store.tell_commits(telemetry::store_committed);
    let (recovered, newest) = (store.recovered(), store.newest());
    if recovered.orphans > 0 {
        telemetry::orphans_removed(recovered.orphans);
    }
    recovered.damaged.iter().for_each(telemetry::content_damaged);
    // Without it mail goes on all the same.
    let history = history::open(&config.history, &config.store.data_dir, config.store.reserve).unwrap_or_else(|error| {
        telemetry::history_unavailable(&error.to_string());
        History::off()
    });
    let (mut listening, mut web, nobody) = (Listening::default(), Web::new(clock), Going::default());
    let opening = listening.open(&config.listeners, &mut inherited, &nobody).map_err(Fault::first)?;
    let page = web.open(&config.admin, &mut inherited, &nobody).map_err(Fault::first)?;
    if let Some(address) = inherited.left() {
        return Err(Fault::Inherited(address));
    }
    let entries = listening::entries(&opening, &config.listeners, &config.session, clock.now()).map_err(Fault::first)?;
    // Whoever asks before the queue is recovered waits for the answer.
    let socket = Socket::bind(&config.control_socket).map_err(|why| Fault::control(&config.control_socket, why))?;

    let now = clock.now();
    let mut scheduler = Scheduler::new(config.schedule.clone());
    let boot_id = ledger::boot_id();
    let names: Vec<AccountName> = config.schedule.accounts.iter().map(|account| account.name.clone()).collect();
    let ledger = store.ledger().await?;
    ledger::restore(&ledger, &mut scheduler, &names, &clock, &boot_id);
    let board = Board::new(&config.notices, ledger.alarms, &scheduler.suspended());
    let desk = Desk::new(&config.notices, ledger.gathering);
    let (mut queued, mut stray, mut doubtful) = (0, false, Vec::new());
    let policy = Policy::new(config.intake.clone());
    let known: HashSet<RouteName> = config.schedule.accounts.iter().map(|account| account.route.clone()).collect();
    store
        .queued(|entry: Queued| {
            queued += 1;
            if sorting::is_stray(&policy, &entry) {
                stray = true;
            } else if !known.contains(&entry.route) {
                telemetry::route_unknown(entry.id, &entry.route);
            }
            match entry.in_doubt {
                Some(_) => doubtful.push(entry),
                None => scheduler.add(now, entry),
            }
        })
        .await?;
    let in_doubt = doubtful.len();
    for record in doubtful.iter().filter_map(|entry| history::in_doubt(entry, now)) {
        history.remember(record).await;
    }
    doubt::found(&store, &config.schedule, now, doubtful).await?.into_iter().for_each(|entry| scheduler.add(now, entry));

    let (dispatcher, events) = mpsc::unbounded_channel();
    let (reloads, asked) = mpsc::channel(1);
    let (ways, opened) = mpsc::unbounded_channel();
    let (access, last) = (web.access(), Last::of(&config));
    let mut reloading = Reloads { path, hangup, asked, sort_first: stray, last, web, ways, sockets: Vec::new() };
    reloading.hear_at(socket);
    reloading.show(page);
    let accounts = config.schedule.accounts.len();
    let shared =
        Arc::new(Shared::new((config, entries), (store, history), newest, (clock, boot_id), (dispatcher, reloads), (board, desk))?);
    shared.doubts.store(in_doubt as u64, Ordering::Relaxed);
    let mut tasks = JoinSet::new();
    let addresses = listening.follow(&shared, opening);
    tasks.spawn(reloading.run(shared.clone(), listening));
    tasks.spawn(alarms::run(shared.clone()));
    tasks.spawn(alarms::watch(shared.clone()));
    tasks.spawn(endings::announce(shared.clone()));
    tasks.spawn(notices::run(shared.clone()));
    tasks.spawn(notices::watch(shared.clone()));
    tasks.spawn(counts::run(shared.clone()));
    let dispatching = tokio::spawn(dispatch::run(shared.clone(), scheduler, events, stray));
    let control = tokio::spawn(control::serve(shared.clone(), access, opened));
    let service = tokio::spawn(service::run(shared.clone()));
    telemetry::started(env!("CARGO_PKG_VERSION"), &addresses, accounts, queued, in_doubt);

    let signals = tokio::spawn(signals.heed(shared.clone()));
    while tasks.join_next().await.is_some() {}
    let left = dispatching.await.map_err(|error| Fault::Task(error.to_string()))?;
    signals.abort();
    service.abort();
    // Nothing is left that an operator could ask.
    shared.shutdown.advance(Phase::Ending);
    control.await.map_err(|error| Fault::Task(error.to_string()))?;
    counts::save(&shared).await;
    // Ended or aborted, they hold nothing any more.
    let _ = service.await;
    let _ = signals.await;
    shared.setup().pool.close_all().await;
    let fault = shared.shutdown.fault().map(str::to_owned);
    // Whoever still held it has ended with the tasks; if not, the store closes with the process.
    if let Ok(Shared { store, history, .. }) = Arc::try_unwrap(shared) {
        // Before the store, which gives the directory free. If the runtime is ending, it was dropped all the same.
        let _ = tokio::task::spawn_blocking(move || drop(history)).await;
        store.close().await;
    }
    match fault {
        Some(why) => Err(Fault::Store(StoreError::Fatal(why))),
        None => {
            telemetry::stopped(left);
            Ok(())
        }
    }
}

/// Waits; for ever if there is nothing to wait for.
async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

/// What to do about an address that cannot be bound, behind a semicolon; empty if nothing can be said.
pub fn bind_hint(why: &io::Error) -> &'static str {
    match why.kind() {
        io::ErrorKind::AddrInUse => "; another program listens there: `ss -ltnp` names it",
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need the capability CAP_NET_BIND_SERVICE (AmbientCapabilities= in the systemd unit), or choose a higher port"
        }
        io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
        _ => "",
    }
}

impl Fault {
    /// The one that is told where one is enough.
    fn first(faults: Vec<Self>) -> Self {
        let none = || Self::Task("something could not be had".to_owned());
        faults.into_iter().next().unwrap_or_else(none)
    }

    fn bind(address: SocketAddr, why: io::Error) -> Self {
        let hint = bind_hint(&why);
        Self::Bind { address, why, hint }
    }

    fn control(path: &Path, why: io::Error) -> Self {
        let hint = match why.kind() {
            io::ErrorKind::AddrInUse => "; give each relay a control_socket of its own",
            io::ErrorKind::AlreadyExists => "; move it away, or write another control_socket",
            io::ErrorKind::NotFound => "; its directory must be there before (RuntimeDirectory= in the systemd unit makes one below /run)",
            io::ErrorKind::PermissionDenied => "; the relay's user must be able to write to its directory",
            _ => "",
        };
        Self::Control { path: path.to_owned(), why, hint }
    }
}

/// What every task of the relay shares, as long as the process lives.
struct Shared<S> {
    store: S,
    history: History,
    clock: Clock,
    boot_id: String,
    ids: QueueIds,
    /// What a reload replaces.
    setup: watch::Sender<Arc<Setup>>,
    doorway: Doorway,
    habits: Mutex<Habits>,
    flow: Mutex<Flow>,
    counts: counts::Files,
    suspicions: Mutex<Suspicions>,
    logins: Logins,
    dispatcher: mpsc::UnboundedSender<dispatch::Event>,
    reloads: mpsc::Sender<Asked>,
    shutdown: Shutdown,
    alarms: Board,
    /// Attempts in doubt since the start, those that were found then included.
    doubts: AtomicU64,
    /// Listeners that accept.
    listening: AtomicUsize,
    desk: Desk,
}

impl<S: Spool> Shared<S> {
    fn new(
        (config, entries): (Config, HashMap<usize, Arc<Entry>>),
        (store, history): (S, History),
        newest: Option<QueueId>,
        (clock, boot_id): (Clock, String),
        (dispatcher, reloads): (mpsc::UnboundedSender<dispatch::Event>, mpsc::Sender<Asked>),
        (board, desk): (Board, Desk),
    ) -> Result<Self, Fault> {
        // Ids of several nodes must differ; the process id is as good as any number to keep two of them apart.
        let node = std::process::id() as u16;
        let counts = counts::Files::of(&config.store.data_dir);
        Ok(Self {
            store,
            history,
            boot_id,
            ids: QueueIds::new(node, newest),
            doorway: Doorway::new(&config.intake),
            habits: Mutex::new(habits::restored(counts::read(&counts.habits), clock.now())),
            flow: Mutex::new(flow::restored(counts::read(&counts.flow), clock.now())),
            counts,
            suspicions: Mutex::default(),
            clock,
            logins: Logins::new(config.login_failures),
            setup: watch::Sender::new(Arc::new(Setup::new(config, entries)?)),
            dispatcher,
            reloads,
            shutdown: Shutdown::default(),
            alarms: board,
            doubts: AtomicU64::new(0),
            listening: AtomicUsize::new(0),
            desk,
        })
    }

    /// What the configuration says now.
    fn setup(&self) -> Arc<Setup> {
        self.setup.borrow().clone()
    }

    fn suspicions(&self) -> MutexGuard<'_, Suspicions> {
        // Each change is whole before anything can panic.
        self.suspicions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn habits(&self) -> MutexGuard<'_, Habits> {
        // Counting cannot panic half-way, so a poisoned lock still guards true numbers.
        self.habits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
