//! Warm connections, by account, and the delivery that uses them.
//!
//! A connection is taken out for one transaction and put back after it. The freshest goes first, so that those beyond what the traffic needs
//! grow idle and are closed. Whether the server has closed one in the meantime is seen before it is used; what slips through that check is
//! caught by [`deliver`], once. A server that ends such connections while a message is on its way leaves it in doubt; where that has happened
//! [`HANG_UPS`] times, the content waits for the replies to the envelope. The pool does not limit how many there are: the scheduler does. It
//! belongs to one configuration: another one gets another ([`Pool::succeeded_by`]).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::mail::AccountName;
use crate::reply::{Action, Catalogue, Cause, End, Report, Step, Trouble, is_stale_token};

use super::{Connection, Endpoint, Login, PoolSettings, Protection, Transaction};

/// An end in the wrong moment may be the network's; a second one is the server's habit. What was learned goes with the process.
const HANG_UPS: u32 = 2;

/// Warm connections; cheap to clone.
#[derive(Clone)]
pub struct Pool {
    settings: PoolSettings,
    shelf: Arc<Mutex<Shelf>>,
}

#[derive(Default)]
struct Shelf {
    /// The freshest is the last of its account.
    warm: HashMap<AccountName, Vec<Connection>>,
    /// How often servers, by host and port, have hung up on a warm connection while a message was on its way.
    hang_ups: HashMap<(String, u16), u32>,
    /// A task is closing what grows idle; there is one while anything is warm.
    swept: bool,
    /// Another pool has taken its place: what comes back is closed.
    closed: bool,
}

/// How an attempt came by its connection, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// It was warm.
    Warm,
    /// It was opened for the attempt.
    Fresh,
    /// A warm one turned out to be dead before MAIL was answered; a fresh one took its place.
    Replaced,
}

/// What came of [`deliver`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The transaction as it went, or why no connection could be opened.
    pub result: Result<Report, Trouble>,
    /// How it came by its connection.
    pub origin: Origin,
    /// How that connection was protected, if there was one.
    pub protection: Option<Protection>,
    /// A part of the content had to be converted, for the server takes only ASCII.
    pub converted: bool,
    /// What the sender asked of notices went with it: the server offers DSN (RFC 3461), and of success it will tell itself.
    pub passed_dsn_on: bool,
    /// The steps that were completed on its connection, and what each took.
    pub steps: Vec<(Step, Duration)>,
    /// It has shown that the server hangs up on connections that have carried messages: see the head of this file.
    pub shows_hang_ups: bool,
}

/// Makes one transaction over a warm connection of the account, or a new one, which is then kept warm.
///
/// If a warm connection is found dead before MAIL was answered, nothing of the message has gone out, and the transaction is made once more
/// on a new one. `pool` must hold connections of this endpoint and login only under this account. Cancelling the future gives up the
/// connection; if that happens behind the final dot, the server may have the message. `login` is as for
/// [`Connection::open`].
pub async fn deliver(
    pool: &Pool,
    endpoint: &Endpoint,
    login: Option<(&Login, u64)>,
    account: &AccountName,
    transaction: &Transaction<'_>,
) -> Attempt {
    let mut origin = Origin::Fresh;
    if let Some(mut connection) = pool.take(account) {
        connection.asks_first = pool.hang_ups(endpoint) >= HANG_UPS;
        let report = connection.transact(transaction).await;
        if !was_dead(&report) {
            let shows_hang_ups = hung_up(&report) && pool.count_hang_up(endpoint) == HANG_UPS;
            return Attempt { shows_hang_ups, ..attempt(pool, account, connection, report, Origin::Warm) };
        }
        origin = Origin::Replaced;
    }
    // In its own place: it is much larger than the rest, and seldom needed.
    match Box::pin(Connection::open(endpoint, login)).await {
        Ok(mut connection) => {
            let report = connection.transact(transaction).await;
            attempt(pool, account, connection, report, origin)
        }
        Err(trouble) => {
            let (protection, converted, passed_dsn_on, shows_hang_ups) = (None, false, false, false);
            Attempt { result: Err(trouble), origin, protection, converted, passed_dsn_on, steps: Vec::new(), shows_hang_ups }
        }
    }
}

/// What came of a transaction on a connection, which goes back to where it can be used again.
fn attempt(pool: &Pool, account: &AccountName, mut connection: Connection, report: Report, origin: Origin) -> Attempt {
    let steps = connection.laps.take();
    let (protection, converted, passed_dsn_on) = (Some(connection.protection()), connection.converted, connection.offers().dsn);
    if is_one_too_many(&report) {
        part_with(connection);
    } else {
        pool.put(account, connection);
    }
    Attempt { result: Ok(report), origin, protection, converted, passed_dsn_on, steps, shows_hang_ups: false }
}

/// The connection ended without a word on the message, which was on its way.
fn hung_up(report: &Report) -> bool {
    let lost = matches!(&report.end, End::Stopped(Trouble { step: Step::EndOfData, cause: Cause::Lost(_) }));
    lost && report.recipients.iter().all(Option::is_none)
}

/// The server says that there are too many connections: this one, of those that there are, is closed.
fn is_one_too_many(report: &Report) -> bool {
    let End::Stopped(Trouble { step, cause: Cause::Reply(reply) }) = &report.end else { return false };
    Catalogue::builtin().lookup(*step, reply).action == Action::FewerConnections
}

/// The connection had ended before MAIL was answered, or its only answer was that it has: 421, or that its token is stale.
fn was_dead(report: &Report) -> bool {
    match &report.end {
        End::Stopped(Trouble { step: Step::Mail, cause: Cause::Lost(_) }) => true,
        End::Stopped(Trouble { step: Step::Mail, cause: Cause::Reply(reply) }) => {
            reply.code == 421 || is_stale_token(Catalogue::builtin(), reply)
        }
        _ => false,
    }
}

impl Pool {
    /// An empty pool.
    pub fn new(settings: PoolSettings) -> Self {
        Self { settings, shelf: Arc::default() }
    }

    /// A connection of the account on which the server still waits for commands, if there is one. Needs a tokio runtime.
    pub fn take(&self, account: &AccountName) -> Option<Connection> {
        loop {
            // Not in the condition: the guard would live through the body.
            let connection = self.shelf().warm.get_mut(account)?.pop()?;
            if connection.is_alive() && !self.is_spent(&connection, Instant::now()) {
                return Some(connection);
            }
            part_with(connection);
        }
    }

    /// Closes the freshest connection of an account: what went wrong on it shall not go wrong on it again. Needs a tokio runtime.
    pub fn renew(&self, account: &AccountName) {
        self.take(account).into_iter().for_each(part_with);
    }

    /// Keeps a connection warm, or closes it if it cannot or should not be used again. Needs a tokio runtime.
    pub fn put(&self, account: &AccountName, connection: Connection) {
        let mut shelf = self.shelf();
        if shelf.closed || !connection.usable() || self.is_spent(&connection, Instant::now()) {
            drop(shelf);
            part_with(connection);
            return;
        }
        shelf.warm.entry(account.clone()).or_default().push(connection);
        if !std::mem::replace(&mut shelf.swept, true) {
            tokio::spawn(sweep(self.settings, Arc::downgrade(&self.shelf)));
        }
    }

    fn hang_ups(&self, endpoint: &Endpoint) -> u32 {
        self.shelf().hang_ups.get(&(endpoint.host.clone(), endpoint.port)).copied().unwrap_or_default()
    }

    /// Returns how many there have been.
    fn count_hang_up(&self, endpoint: &Endpoint) -> u32 {
        let mut shelf = self.shelf();
        let count = shelf.hang_ups.entry((endpoint.host.clone(), endpoint.port)).or_default();
        *count = count.saturating_add(1);
        *count
    }

    /// Another pool takes the place of this one, with the warm connections of the accounts that stay as they were. The others are closed, and
    /// those in use are when they come back. Needs a tokio runtime.
    pub fn succeeded_by(&self, other: &Self, stays: impl Fn(&AccountName) -> bool) {
        let (warm, hang_ups) = {
            let mut shelf = self.shelf();
            shelf.closed = true;
            (std::mem::take(&mut shelf.warm), std::mem::take(&mut shelf.hang_ups))
        };
        other.shelf().hang_ups.extend(hang_ups);
        for (account, connections) in warm {
            let keep = stays(&account);
            connections.into_iter().for_each(|connection| if keep { other.put(&account, connection) } else { part_with(connection) });
        }
    }

    /// How many connections are warm.
    pub fn len(&self) -> usize {
        self.shelf().warm.values().map(Vec::len).sum()
    }

    /// Whether no connection is warm.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes all of them, with a QUIT to each, and waits for that (two seconds at most).
    pub async fn close_all(&self) {
        let warm = std::mem::take(&mut self.shelf().warm);
        let farewells: Vec<_> = warm.into_values().flatten().map(|connection| tokio::spawn(connection.quit())).collect();
        for farewell in farewells {
            let _ = farewell.await;
        }
    }

    fn is_spent(&self, connection: &Connection, now: Instant) -> bool {
        connection.transactions() >= self.settings.transactions
            || connection.age() >= self.settings.age
            || now >= closes_at(&self.settings, connection)
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        lock(&self.shelf)
    }
}

fn lock(shelf: &Mutex<Shelf>) -> MutexGuard<'_, Shelf> {
    // Nothing panics while it holds the lock.
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says good-bye without anybody waiting for it.
fn part_with(connection: Connection) {
    if connection.is_alive() {
        tokio::spawn(connection.quit());
    }
}

/// When a connection that nothing uses is closed: when it has been idle for long enough, or the token that it was opened with nears its end.
fn closes_at(settings: &PoolSettings, connection: &Connection) -> Instant {
    let idle = connection.idle_since() + settings.idle;
    connection.expires_at().map_or(idle, |end| end.min(idle))
}

/// Closes what has been idle for too long or nears the end of its token, as long as anything is warm.
async fn sweep(settings: PoolSettings, shelf: Weak<Mutex<Shelf>>) {
    loop {
        let next = {
            let Some(shelf) = shelf.upgrade() else { return };
            let mut shelf = lock(&shelf);
            let now = Instant::now();
            for connections in shelf.warm.values_mut() {
                connections.extract_if(.., |connection| now >= closes_at(&settings, connection)).for_each(part_with);
            }
            shelf.warm.retain(|_, connections| !connections.is_empty());
            match shelf.warm.values().flatten().map(|connection| closes_at(&settings, connection)).min() {
                Some(next) => next,
                None => {
                    shelf.swept = false;
                    return;
                }
            }
        };
        tokio::time::sleep_until(next.into()).await;
    }
}
