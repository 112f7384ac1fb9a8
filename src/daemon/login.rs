//! Logins: whose password it is, found out where it may take time, and what a failure costs.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use crate::clock::Timestamp;
use crate::intake::{Failures, Users};
use crate::mail::ClientName;
use crate::session::LoginRefusal;
use crate::smtp::{Credentials, EnhancedStatus, Reply};
use crate::telemetry;

/// Passwords that are verified at a time: each takes a processor and the memory that its hash wants, 19 MiB with the usual one.
const TURNS: usize = 2;

/// Who failed to log in.
pub(super) struct Logins {
    failures: Mutex<Failures>,
    turns: Semaphore,
}

impl Logins {
    /// An address is barred after so many failures.
    pub fn new(most_failures: usize) -> Self {
        Self { failures: Mutex::new(Failures::new(most_failures)), turns: Semaphore::new(TURNS) }
    }

    /// Another number of failures; those that there were still count.
    pub fn change(&self, most_failures: usize) {
        self.failures().change(most_failures);
    }

    /// Finds out which of the users' credentials these are. `now` is asked once when they are known and once when they are verified.
    ///
    /// # Errors
    /// The refusal, and how long it is to wait.
    pub async fn log_in(
        &self,
        users: &Arc<Users>,
        peer: IpAddr,
        credentials: Credentials,
        now: impl Fn() -> Timestamp,
    ) -> Result<ClientName, LoginRefusal> {
        self.failures().admit(peer, now()).map_err(|reply| LoginRefusal { reply, after: Default::default() })?;
        let Credentials { user, password } = credentials;
        // Only a name that somebody has is fit for the log: the others may be passwords in the wrong place.
        let known = if users.has(&user) { user.clone() } else { String::new() };
        // The semaphore is never closed.
        let turn = self.turns.acquire().await;
        // Many may have been let in at once, and have failed meanwhile.
        self.failures().admit(peer, now()).map_err(|reply| LoginRefusal { reply, after: Default::default() })?;
        let users = users.clone();
        let verified = tokio::task::spawn_blocking(move || users.verify(&user, &password).cloned()).await;
        drop(turn);
        match verified {
            Ok(Some(client)) => {
                self.failures().succeeded(peer);
                telemetry::logged_in(peer, &known, &client);
                Ok(client)
            }
            Ok(None) => {
                let (after, count) = self.failures().failed(peer, now());
                telemetry::login_failed(peer, &known, count);
                // RFC 4954 §6. It does not say which of the two is wrong.
                let text = "User name or password is wrong: correct them in the device's settings";
                Err(LoginRefusal { reply: Reply::new(535, EnhancedStatus::new(5, 7, 8), text), after })
            }
            Err(_) => {
                let text = "The relay cannot verify passwords at the moment; try again later";
                Err(LoginRefusal { reply: Reply::new(454, EnhancedStatus::new(4, 7, 0), text), after: Default::default() })
            }
        }
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        // Counting cannot panic half-way, so a poisoned lock still guards true numbers.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
