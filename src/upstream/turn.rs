//! Whose turn it is to log in: so that a password that is refused is not refused twenty times before anybody has heard of it.
//!
//! Connections of one account are opened side by side, up to AUTH. There the first goes alone; once it has passed, and as long as the last
//! success is not long ago, a few go together. A refusal is told to all who were sent before whoever sends them had heard of it
//! ([`Turns::hear`]), and they do not try. Who is sent later is sent on purpose, and does. So a wrong password costs one login each time that
//! somebody decides to try it, and [`TOGETHER`] at the most if it was right a moment ago.
//!
//! A refusal of which nobody tells the sender is told to those that come after, until one of them does: nothing stays closed here.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::reply::{Cause, Step, Trouble};

/// Logins of an account at a time, at most.
const TOGETHER: usize = 4;
/// After a success they go together for so long.
const TRUST: Duration = Duration::from_secs(10);

/// The logins of one account; clones are of the same account.
#[derive(Debug, Clone, Default)]
pub struct Turns(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    under_way: usize,
    passed_at: Option<Instant>,
    refusals: u64,
    /// Of how many of them whoever sends attempts has heard.
    heard: u64,
    /// The last one.
    refusal: Option<Trouble>,
}

/// A login under way; dropping it lets the next one try.
struct Turn<'t>(&'t Shared);

impl Turns {
    /// Of how many refusals whoever sends attempts has heard: to be asked for when one is sent.
    pub fn heard(&self) -> u64 {
        self.0.lock().heard
    }

    /// Whoever sends attempts has heard of the refusals: those that are sent from here on try anew.
    pub fn hear(&self) {
        let mut state = self.0.lock();
        state.heard = state.refusals;
    }

    /// Logs in when it may be tried. `heard` is what [`Self::heard`] said when the login was sent.
    ///
    /// # Errors
    /// What the server said; or what it has said to another login, if it refused that and nobody had heard of it then.
    pub(super) async fn log_in<T>(&self, heard: u64, login: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
        let turn = self.take(heard).await?;
        let result = login.await;
        turn.ended(&result);
        result
    }

    async fn take(&self, heard: u64) -> Result<Turn<'_>, Trouble> {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            {
                let mut state = self.0.lock();
                if let Some(refusal) = state.refusal.clone().filter(|_| state.refusals > heard) {
                    return Err(refusal);
                }
                let together = if state.passed_at.is_some_and(|at| at.elapsed() < TRUST) { TOGETHER } else { 1 };
                if state.under_way < together {
                    state.under_way += 1;
                    return Ok(Turn(&self.0));
                }
            }
            changed.await;
        }
    }
}

impl Turn<'_> {
    /// How it ended.
    fn ended<T>(self, result: &Result<T, Trouble>) {
        let mut state = self.0.lock();
        match result {
            Ok(_) => state.passed_at = Some(Instant::now()),
            Err(Trouble { step: Step::Auth, cause: Cause::Reply(reply) }) if reply.is_permanent() => {
                state.refusals += 1;
                (state.passed_at, state.refusal) = (None, result.as_ref().err().cloned());
            }
            // Of the login this says nothing.
            Err(_) => {}
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.lock().under_way -= 1;
        self.0.changed.notify_waiters();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::Step;
    use crate::smtp::Reply;

    fn refused() -> Result<(), Trouble> {
        let reply = Reply::parse(["535 5.7.3 Authentication unsuccessful"]).expect("a reply");
        Err(Trouble { step: Step::Auth, cause: Cause::Reply(reply) })
    }

    #[tokio::test]
    async fn the_first_goes_alone_and_those_that_wait_hear_its_refusal() {
        let turns = Turns::default();
        let first = turns.take(0).await.expect("free");
        let waiting: Vec<_> = (0..19)
            .map(|_| {
                let turns = turns.clone();
                tokio::spawn(async move { turns.take(0).await.map(drop).map_err(|trouble| trouble.to_string()) })
            })
            .collect();
        tokio::task::yield_now().await;
        first.ended(&refused());
        for waiting in waiting {
            let heard = waiting.await.expect("to its end");
            assert_eq!(heard, Err("AUTH: 535 5.7.3 Authentication unsuccessful".to_owned()));
        }
        assert!(turns.take(turns.heard()).await.is_err(), "and who is sent before it is heard of");
        let sent_before = turns.heard();
        turns.hear();
        assert!(turns.take(turns.heard()).await.is_ok(), "who is sent later tries for itself");
        assert!(turns.take(sent_before).await.is_err(), "but not who is late");
    }

    #[tokio::test]
    async fn each_refusal_is_one_login() {
        let turns = Turns::default();
        for _ in 0..3 {
            let sent = turns.heard();
            turns.take(sent).await.expect("somebody wants it tried").ended(&refused());
            for _ in 0..10 {
                assert!(turns.take(sent).await.is_err());
            }
            turns.hear();
        }
    }

    #[tokio::test]
    async fn after_a_success_a_few_go_together() {
        let turns = Turns::default();
        turns.take(0).await.expect("free").ended(&Ok(()));
        let mut held = Vec::new();
        for _ in 0..TOGETHER {
            held.push(turns.take(0).await.expect("free"));
        }
        let fifth = tokio::time::timeout(Duration::ZERO, turns.take(0));
        assert!(fifth.await.is_err(), "and the others wait");
        held.pop().expect("one").ended(&Ok(()));
        assert!(turns.take(0).await.is_ok());
    }

    #[tokio::test]
    async fn what_says_nothing_of_the_login_lets_the_next_one_try() {
        let turns = Turns::default();
        let lost: Result<(), _> = Err(Trouble { step: Step::Auth, cause: Cause::Lost("gone".to_owned()) });
        turns.take(0).await.expect("free").ended(&lost);
        assert!(turns.take(0).await.is_ok());
    }
}
