//! The listeners: which are open (`sockets`), what each does with its connections, and the tasks that accept on them.
//!
//! A listener is known by its number as long as it is open. What it does with its connections stands in the [`Setup`](super::Setup) under that
//! number, so that it changes together with everything else, and a listener whose number is no longer there ends by itself.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::listener::{self, Entry};
use super::sockets::{Going, Opened, Opening, Sockets};
use super::{Fault, Inherited, Phase, Shared, Shutdown};
use crate::clock::Timestamp;
use crate::config::Listener;
use crate::session::Settings;
use crate::store::Spool;

/// What is open.
#[derive(Default)]
pub(super) struct Listening {
    tasks: JoinSet<()>,
    sockets: Sockets,
}

impl Listening {
    /// See [`Sockets::going`].
    pub fn going(&self, wanted: &[Listener]) -> Going {
        self.sockets.going(&addresses(wanted))
    }

    /// Binds what is not open yet. The others go on as they are until [`Self::follow`].
    ///
    /// # Errors
    /// All addresses that cannot be bound; then nothing has changed.
    pub fn open(&mut self, wanted: &[Listener], inherited: &mut Inherited, going: &Going) -> Result<Opening, Vec<Fault>> {
        self.sockets.open(&addresses(wanted), inherited, going)
    }

    /// Accepts on what is new. Returns where it listens now.
    pub fn follow<S: Spool>(&mut self, shared: &Arc<Shared<S>>, opening: Opening) -> Vec<SocketAddr> {
        let setup = shared.setup();
        for Opened { number, socket, .. } in self.sockets.follow(opening) {
            if let Some(entry) = setup.entries.get(&number) {
                self.tasks.spawn(listener::run(shared.clone(), socket, entry.clone(), number));
            }
        }
        // Those that have ended are done with.
        while self.tasks.try_join_next().is_some() {}
        self.sockets.bound()
    }

    /// Waits until all have ended, and their sessions with them.
    pub async fn ended(mut self, shutdown: &Shutdown) {
        shutdown.reached(Phase::Stopping).await;
        while self.tasks.join_next().await.is_some() {}
    }
}

fn addresses(listeners: &[Listener]) -> Vec<SocketAddr> {
    listeners.iter().map(|listener| listener.address).collect()
}

/// What each listener does with its connections, by its number.
///
/// # Errors
/// All certificates that cannot be used.
pub(super) fn entries(
    opening: &Opening,
    listeners: &[Listener],
    session: &Settings,
    now: Timestamp,
) -> Result<HashMap<usize, Arc<Entry>>, Vec<Fault>> {
    let (mut entries, mut faults) = (HashMap::new(), Vec::new());
    for ((number, bound), listener) in opening.each().zip(listeners) {
        match Entry::new(listener.clone(), session, bound, now) {
            Ok(entry) => drop(entries.insert(number, Arc::new(entry))),
            Err(why) => faults.push(Fault::Certificate { address: listener.address, why }),
        }
    }
    if faults.is_empty() { Ok(entries) } else { Err(faults) }
}
