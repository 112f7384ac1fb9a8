//! The listeners: which are open, which are to be, and the tasks that accept on them.
//!
//! A listener is known by its number as long as it is open. What it does with its connections stands in the [`Setup`](super::Setup) under that
//! number, so that it changes together with everything else, and a listener whose number is no longer there ends by itself.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::listener::{self, Entry};
use super::{Fault, Inherited, Phase, Shared, Shutdown};
use crate::clock::Timestamp;
use crate::config;
use crate::session::Settings;
use crate::store::Spool;

/// What is open.
#[derive(Default)]
pub(super) struct Listening {
    tasks: JoinSet<()>,
    open: Vec<Open>,
    /// The number of the next one.
    next: usize,
}

#[derive(Clone, Copy)]
struct Open {
    number: usize,
    /// As it is configured; with port 0 `bound` is another one.
    wanted: SocketAddr,
    bound: SocketAddr,
}

/// What is to be open, in the order of the configuration, each with its socket if it is new.
pub(super) struct Opening(Vec<(Open, Option<TcpListener>)>);

impl Listening {
    /// Binds what is not open yet. The others go on as they are until [`Self::follow`].
    ///
    /// # Errors
    /// If an address cannot be bound; then nothing has changed.
    pub fn open(&mut self, wanted: &[config::Listener], inherited: &mut Inherited) -> Result<Opening, Fault> {
        let mut kept = self.open.clone();
        let mut opening = Vec::new();
        for config::Listener { address, .. } in wanted {
            if let Some(i) = kept.iter().position(|open| open.wanted == *address) {
                opening.push((kept.remove(i), None));
                continue;
            }
            let own = self.open.iter().find(|open| open.bound.port() == address.port()).map(|open| open.bound);
            let (listener, bound) = listen(*address, inherited).map_err(|why| Fault::bind(*address, why, own))?;
            self.next += 1;
            opening.push((Open { number: self.next, wanted: *address, bound }, Some(listener)));
        }
        Ok(Opening(opening))
    }

    /// Accepts on what is new. Returns where it listens now.
    pub fn follow<S: Spool>(&mut self, shared: &Arc<Shared<S>>, Opening(opening): Opening) -> Vec<SocketAddr> {
        let setup = shared.setup();
        self.open = opening.iter().map(|(open, _)| *open).collect();
        for (Open { number, .. }, listener) in opening {
            if let (Some(listener), Some(entry)) = (listener, setup.entries.get(&number)) {
                self.tasks.spawn(listener::run(shared.clone(), listener, entry.clone(), number));
            }
        }
        // Those that have ended are done with.
        while self.tasks.try_join_next().is_some() {}
        self.open.iter().map(|open| open.bound).collect()
    }

    /// Waits until all have ended, and their sessions with them.
    pub async fn ended(mut self, shutdown: &Shutdown) {
        shutdown.reached(Phase::Stopping).await;
        while self.tasks.join_next().await.is_some() {}
    }
}

/// A socket that listens there: the one that was passed on, if there is one. With the address that it has got.
pub(super) fn listen(address: SocketAddr, inherited: &mut Inherited) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = inherited.bound_to(address).map_or_else(|| std::net::TcpListener::bind(address), Ok)?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

impl Opening {
    /// What each does with its connections.
    ///
    /// # Errors
    /// If a certificate cannot be used.
    pub fn entries(&self, listeners: &[config::Listener], session: &Settings, now: Timestamp) -> Result<HashMap<usize, Arc<Entry>>, Fault> {
        let entry = |((open, _), listener): (&(Open, _), &config::Listener)| {
            let entry = Entry::new(listener.clone(), session, open.bound, now);
            entry.map(|entry| (open.number, Arc::new(entry))).map_err(|why| Fault::Certificate { address: open.wanted, why })
        };
        self.0.iter().zip(listeners).map(entry).collect()
    }
}
