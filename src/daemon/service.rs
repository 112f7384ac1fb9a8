//! The relay as a service of systemd: that it is ready, how it stands, that it stops, and that it is alive (sd_notify(3)). Without a service
//! manager nothing of this is done.
//!
//! Alive is what answers: for each sign of life the dispatcher is asked how much is queued, and the store to read a row and to write none. If
//! either does not answer within the interval, no sign is sent, and systemd does what `WatchdogSec=` is for: it starts the relay anew, which
//! recovers its queue.

use std::env;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use super::{Phase, Shared, control};
use crate::schedule::Scheduler;
use crate::store::Spool;
use crate::telemetry;

/// How often the status is renewed where there is no watchdog.
const STATUS: Duration = Duration::from_secs(30);

/// Tells the service manager that the relay is ready, and from then on how it is.
pub(super) async fn run<S: Spool>(shared: Arc<Shared<S>>) {
    if env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    let watchdog = sd_notify::watchdog_enabled();
    // As sd_watchdog_enabled(3) advises: at half the time.
    let interval = watchdog.map_or(STATUS, |limit| limit / 2).max(Duration::from_millis(1));
    ready();
    loop {
        match tokio::time::timeout(interval, status(&shared)).await {
            Ok(Ok(text)) => {
                let alive = watchdog.map(|_| NotifyState::Watchdog);
                tell(&[NotifyState::Status(&text)].into_iter().chain(alive).collect::<Vec<_>>());
            }
            Ok(Err(why)) => telemetry::watchdog_missed(&why),
            Err(_) => telemetry::watchdog_missed("the dispatcher or the store did not answer in time"),
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = shared.shutdown.reached(Phase::Stopping) => break,
        }
    }
    let text = "Stopping: what is under way may end, the rest stays queued";
    tell(&[NotifyState::Stopping, NotifyState::Status(text)]);
}

/// Another configuration is being read: the service manager waits for [`ready`]. It wants to know when that began.
pub(super) fn reloading() {
    if let Ok(began) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, began]);
    }
}

/// The relay is ready, by one configuration or another.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// How the relay stands, as those tell it who must answer for it to be alive.
async fn status<S: Spool>(shared: &Shared<S>) -> Result<String, String> {
    let counts = control::ask(shared, |scheduler: &mut Scheduler, _| scheduler.counts()).await.map_err(|_| "the dispatcher has ended")?;
    // A full disk is trouble that a new start does not mend, and other tasks tell of it.
    let _ = shared.store.list(None, 1).await;
    let _ = shared.store.hold(Vec::new(), false).await;
    let queued = counts.active + counts.ready + counts.deferred + counts.held;
    Ok(format!("{queued} deliveries queued, {} sessions", shared.doorway.sessions()))
}

/// A service manager that does not listen changes nothing.
fn tell(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}
