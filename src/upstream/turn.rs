//! Whose turn it is to log in: so that a password that is refused is not refused twenty times before anybody has heard of it.
//!
//! Connections of one account are opened side by side, up to AUTH. There the first goes alone; once it has passed, and as long as the last
//! success is not long ago, a few go together. When one is refused, those that wait for their turn are told the same and do not try.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::reply::{Cause, Trouble};

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
    refusal: Option<Trouble>,
}

/// A login under way; dropping it lets the next one try.
struct Turn<'t>(&'t Shared);

impl Turns {
    /// How many logins were refused: to be asked for when a connection begins to be opened.
    pub(super) fn refusals(&self) -> u64 {
        self.0.lock().refusals
    }

    /// Logs in when it may be tried. `before` is what [`Self::refusals`] said when the connection began to be opened.
    ///
    /// # Errors
    /// What the server said; or what it has said to another login since then, if it refused that.
    pub(super) async fn log_in<T>(&self, before: u64, login: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
        let turn = self.take(before).await?;
        let result = login.await;
        turn.ended(&result);
        result
    }

    async fn take(&self, before: u64) -> Result<Turn<'_>, Trouble> {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            {
                let mut state = self.0.lock();
                if let Some(refusal) = state.refusal.clone().filter(|_| state.refusals > before) {
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
            Err(Trouble { cause: Cause::Reply(reply), .. }) if reply.is_permanent() => {
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
        assert!(turns.take(0).await.is_err(), "and who was on the way when it came");
        assert!(turns.take(turns.refusals()).await.is_ok(), "who sets out later tries for itself");
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
