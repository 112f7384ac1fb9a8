//! How the end is told to every task: a phase that only grows.

use std::io;
use std::sync::{Arc, OnceLock};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::Shared;
use crate::store::Spool;
use crate::telemetry;

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// In service.
    Running,
    /// No new sessions and no new attempts; what is under way may end.
    Stopping,
    /// The grace is over: sessions close, attempts are dropped where they stand.
    Ending,
}

/// The phase, shared. Clones see the same.
#[derive(Debug, Clone)]
pub struct Shutdown {
    phase: watch::Sender<Phase>,
    fault: Arc<OnceLock<String>>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { phase: watch::Sender::new(Phase::Running), fault: Arc::default() }
    }
}

impl Shutdown {
    /// Goes on to `phase`; never back.
    pub fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let grows = phase > *current;
            *current = phase.max(*current);
            grows
        });
    }

    /// Notes that the relay ends because it must; returns whether this is the first word of it.
    pub fn fail(&self, why: &str) -> bool {
        self.fault.set(why.to_owned()).is_ok()
    }

    /// Why the relay ends, if it must.
    pub fn fault(&self) -> Option<&str> {
        self.fault.get().map(String::as_str)
    }

    /// Where it stands.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Returns once `phase` is reached.
    pub async fn reached(&self, phase: Phase) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.phase.subscribe().wait_for(|current| *current >= phase).await;
    }
}

/// The signals that end the relay, caught from the moment this exists.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches them.
    ///
    /// # Errors
    /// As the system has them.
    pub(super) fn catch() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Turns them into phases: the first SIGTERM or SIGINT stops in order and grants the configured time, the second ends at once.
    pub(super) async fn heed<S: Spool>(mut self, shared: Arc<Shared<S>>) {
        self.next().await;
        let grace = shared.setup().grace;
        telemetry::stopping(grace);
        shared.shutdown.advance(Phase::Stopping);
        // Too late or not, the end is the same.
        let _ = tokio::time::timeout(grace, self.next()).await;
        shared.shutdown.advance(Phase::Ending);
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
