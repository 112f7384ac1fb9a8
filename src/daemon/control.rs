//! The daemon's side of [`crate::admin`]: asks the store what is queued and the scheduler why, and has the operator's changes carried out.
//!
//! A listing comes from the store, which has it all, page by page; what each delivery waits for comes from the scheduler, asked once for a
//! page. What only one of the two knows is just coming or going, and is left out.
//!
//! Changes (`operate`) are carried out by one task, in turn and to the end: an operator who hangs up half-way leaves nothing half done, and two
//! operators cannot leave the store and the scheduler of different minds.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::dispatch::{Event, Question};
use super::reload::Asked;
use super::socket::{self, Socket};
use super::web::PageListener;
use super::{Phase, Shared, Shutdown, counts, letters, monitor, operate, past};
use crate::admin::{
    self, Access, AccountEntry, Accounts, Action, BringIn, BroughtIn, Changed, Clients, Detail, Filter, Operator, Overview, Page, Parts,
    Pieces, Range, Refusal, Relay, Reloaded, Report, ReportQuery, SCAN, Status, Target, Time, Totals, Trace, TraceQuery,
};
use crate::clock::Timestamp;
use crate::intake::Habits;
use crate::mail::{AccountName, DeliveryId};
use crate::schedule::{Scheduler, Wait};
use crate::store::{Listed, Spool, StoreError};
use crate::telemetry::{self, State};

/// Changes that wait for their turn; further ones wait outside.
const TURNS: usize = 16;
/// Deliveries that are looked at in one go, at most: meanwhile other mail waits for the store or the scheduler.
const BATCH: usize = 1_000;
/// How long answers may still take when the relay ends.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A change that waits for its turn.
type Turn = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where operators come in.
pub(super) enum Way {
    /// The socket, until it is told to go.
    Socket(Socket, oneshot::Receiver<()>),
    /// A listener of the page.
    Page(PageListener),
}

/// Serves the operators until the relay ends, by all ways that there are: also while it is stopping, as long as the dispatcher answers. The
/// page's listeners are behind `access`.
pub(super) async fn serve<S: Spool>(shared: Arc<Shared<S>>, access: Arc<Access>, mut ways: mpsc::UnboundedReceiver<Way>) {
    let shutdown = shared.shutdown.clone();
    let (turns, mut waiting) = mpsc::channel::<Turn>(TURNS);
    let control = Control { shared, turns };
    let router = admin::router(control.clone());
    let page_router = admin::gated(router.clone(), access);
    let local_router = router.merge(admin::letters(control));
    let ending = shutdown.clone();
    let serving = async move {
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                () = ending.reached(Phase::Ending) => break,
                Some(way) = ways.recv() => drop(match way {
                    Way::Socket(socket, told) => open.spawn(socket::serve(socket, local_router.clone(), told_or_ending(told, ending.clone()))),
                    Way::Page(page) => open.spawn(page.serve(page_router.clone(), ending.clone())),
                }),
                Some(_) = open.join_next(), if !open.is_empty() => {}
            }
        }
        // Whoever holds the routes holds what they ask.
        drop((local_router, page_router));
        open.join_all().await;
    };
    let changing = async {
        while let Some(turn) = waiting.recv().await {
            turn.await;
        }
    };
    let late = async {
        shutdown.reached(Phase::Ending).await;
        tokio::time::sleep(LAST_WORDS).await;
    };
    tokio::select! {
        _ = async { tokio::join!(serving, changing) } => {}
        () = late => {}
    }
}

async fn told_or_ending(told: oneshot::Receiver<()>, shutdown: Shutdown) {
    tokio::select! {
        // When nobody is left to tell it, the relay is stopping.
        Ok(()) = told => {}
        () = shutdown.reached(Phase::Ending) => {}
    }
}

/// See the head of this file.
struct Control<S> {
    shared: Arc<Shared<S>>,
    turns: mpsc::Sender<Turn>,
}

impl<S> Clone for Control<S> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), turns: self.turns.clone() }
    }
}

impl<S: Spool> Control<S> {
    fn clients(&self, habits: &Habits) -> Clients {
        let clients = self.shared.setup().policy.clients().iter().map(|client| admin::client(client, &habits.of(&client.name))).collect();
        Clients { now: Time(self.shared.clock.now()), since: Time(habits.since()), clients }
    }

    /// Has a change carried out, in turn and to its end, even if nobody waits for its answer any more.
    async fn in_turn<T: Send + 'static>(&self, change: impl Future<Output = Result<T, Refusal>> + Send + 'static) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        let turn = Box::pin(async move {
            let _ = answer.send(change.await);
        });
        self.turns.send(turn).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())?
    }
}

impl<S: Spool> Relay for Control<S> {
    async fn list(&self, range: Range, filter: Filter, limit: usize) -> Result<Page, Refusal> {
        let now = self.shared.clock.now();
        let mut scan = Scan::new(&self.shared, range, filter);
        let mut page = Page { now: Time(now), entries: Vec::new(), next: None };
        // One more than is asked for, to know whether more follow.
        while let Some(found) = scan.next(limit + 1).await? {
            for (listed, wait) in &found {
                if page.entries.len() == limit {
                    page.next = page.entries.last().map(|entry| entry.id.clone());
                    return Ok(page);
                }
                page.entries.push(admin::entry(now, listed, wait));
            }
        }
        page.next = scan.rest();
        Ok(page)
    }

    async fn show(&self, target: Target) -> Result<Detail, Refusal> {
        let listed = listed(&self.shared, Range::of(target)).await?;
        let ids: Vec<DeliveryId> = listed.iter().map(|listed| listed.delivery.id).collect();
        let waits = ask(&self.shared, move |scheduler, now| ids.iter().map(|id| scheduler.why(now, *id)).collect::<Vec<_>>()).await?;
        let deliveries: Vec<(Listed, Option<Wait>)> = listed.into_iter().zip(waits).collect();
        admin::detail(self.shared.clock.now(), &deliveries).ok_or_else(|| not_queued(target))
    }

    async fn count(&self, range: Range, filter: Filter) -> Result<Totals, Refusal> {
        let mut scan = Scan::new(&self.shared, range, filter);
        let (mut totals, mut last) = (Totals::default(), range.after);
        while let Some(found) = scan.next(BATCH).await? {
            for (Listed { delivery, .. }, _) in &found {
                totals.messages += usize::from(last.is_none_or(|last| last.message != delivery.id.message));
                totals.deliveries += 1;
                totals.recipients += delivery.recipients.len();
                last = Some(delivery.id);
            }
        }
        totals.through = last.map(|last| last.to_string());
        totals.next = scan.rest();
        Ok(totals)
    }

    async fn change(&self, action: Action, target: Target, by: Operator) -> Result<Changed, Refusal> {
        let shared = self.shared.clone();
        self.in_turn(async move { operate::one(&shared, action, target, &by).await }).await
    }

    async fn change_all(&self, action: Action, range: Range, filter: Filter, by: Operator) -> Result<Changed, Refusal> {
        let shared = self.shared.clone();
        let change = async move {
            let (mut scan, mut changed) = (Scan::new(&shared, range, filter), Changed::default());
            while let Some(found) = scan.next(BATCH).await? {
                operate::many(&shared, action, found, &by, &mut changed).await?;
            }
            changed.next = scan.rest();
            Ok(changed)
        };
        self.in_turn(change).await
    }

    async fn status(&self) -> Result<Status, Refusal> {
        let doubts = self.shared.doubts.load(Ordering::Relaxed);
        ask(&self.shared, move |scheduler, now| admin::status(now, env!("CARGO_PKG_VERSION"), doubts, scheduler)).await
    }

    async fn overview(&self) -> Result<Overview, Refusal> {
        let doubts = self.shared.doubts.load(Ordering::Relaxed);
        let (now, status, waiting, accounts) = ask(&self.shared, move |scheduler, now| {
            let status = admin::status(now, env!("CARGO_PKG_VERSION"), doubts, scheduler);
            (now, status, scheduler.waiting(now), scheduler.accounts(now))
        })
        .await?;
        let (setup, flow) = (self.shared.setup(), &mut *self.shared.flow());
        let hostname = setup.hostname();
        Ok(admin::overview(Parts { now, hostname, status, waiting: &waiting, accounts: &accounts, flow }))
    }

    async fn accounts(&self) -> Result<Accounts, Refusal> {
        ask(&self.shared, |scheduler, now| admin::accounts(now, scheduler)).await
    }

    async fn habits(&self) -> Result<Clients, Refusal> {
        Ok(self.clients(&self.shared.habits()))
    }

    async fn forget_habits(&self, Operator(by): Operator) -> Result<Clients, Refusal> {
        let counted = {
            let mut habits = self.shared.habits();
            let counted = self.clients(&habits);
            *habits = Habits::new(self.shared.clock.now());
            counted
        };
        counts::save(&self.shared).await;
        telemetry::habits_forgotten(&by);
        Ok(counted)
    }

    async fn state(&self) -> Result<State, Refusal> {
        monitor::state(&self.shared).await
    }

    async fn obstacles(&self) -> Vec<String> {
        monitor::obstacles(&self.shared).await
    }

    async fn trace(&self, query: TraceQuery) -> Result<Trace, Refusal> {
        past::trace(&self.shared, &query).await
    }

    async fn report(&self, query: ReportQuery) -> Result<Report, Refusal> {
        past::report(&self.shared, &query).await
    }

    async fn bring_in(&self, asked: BringIn, mut content: Pieces, by: Operator) -> Result<BroughtIn, Refusal> {
        let (missing, incoming) = match letters::look(&self.shared, asked).await? {
            letters::Found::Had(answer) => {
                content.swallow().await?;
                return Ok(answer);
            }
            letters::Found::Missing(missing) => {
                let incoming = letters::take(&self.shared, &missing, &mut content).await?;
                (missing, incoming)
            }
        };
        let shared = self.shared.clone();
        self.in_turn(async move { letters::keep(&shared, *missing, incoming, &by).await }).await
    }

    async fn suspend(&self, account: AccountName, length: Option<Duration>, reason: String, by: Operator) -> Result<AccountEntry, Refusal> {
        let shared = self.shared.clone();
        self.in_turn(async move { operate::suspend(&shared, account, length, reason, &by).await }).await
    }

    async fn reload(&self, by: Operator) -> Result<Reloaded, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.shared.reloads.send(Asked { by, answer }).await.map_err(|_| stopping())?;
        answered.await.map_err(|_| stopping())?
    }

    async fn resume(&self, account: AccountName, by: Operator) -> Result<AccountEntry, Refusal> {
        let shared = self.shared.clone();
        self.in_turn(async move { operate::resume(&shared, account, &by).await }).await
    }
}

/// Going through a range of the queue, at most [`SCAN`] deliveries of it.
struct Scan<'a, S> {
    shared: &'a Arc<Shared<S>>,
    range: Range,
    filter: Filter,
    left: usize,
    ended: bool,
}

impl<'a, S: Spool> Scan<'a, S> {
    fn new(shared: &'a Arc<Shared<S>>, range: Range, filter: Filter) -> Self {
        Self { shared, range, filter, left: SCAN, ended: false }
    }

    /// The next ones that the filter lets through, each with what it waits for: there may be none among those that were looked at.
    /// `None` at the end of the range, or when enough was looked at.
    async fn next(&mut self, about: usize) -> Result<Option<Vec<(Listed, Wait)>>, Refusal> {
        if self.ended || self.left == 0 {
            return Ok(None);
        }
        let page = self.shared.store.list(self.range.after, about.clamp(1, BATCH).min(self.left)).await;
        let mut listed = page.map_err(|error| unavailable(self.shared, error))?;
        self.left = self.left.saturating_sub(listed.len());
        self.ended = listed.is_empty();
        if let Some(last) = listed.last() {
            self.range.after = Some(last.delivery.id);
        }
        if let Some(through) = self.range.through {
            self.ended |= self.range.after.is_some_and(|after| after >= through);
            listed.retain(|listed| listed.delivery.id <= through);
        }
        listed.retain(|listed| self.filter.admits(listed));
        let ids: Vec<DeliveryId> = listed.iter().map(|listed| listed.delivery.id).collect();
        let waits = ask(self.shared, move |scheduler, now| ids.iter().map(|id| scheduler.why(now, *id)).collect::<Vec<_>>()).await?;
        let known = listed.into_iter().zip(waits).filter_map(|(listed, wait)| Some((listed, wait?)));
        let wanted = self.filter.reason;
        Ok(Some(known.filter(|(_, wait)| wanted.is_none_or(|wanted| wanted == admin::waits_for(&wait.reason))).collect()))
    }

    /// Where to go on, if not all of the range was looked at.
    fn rest(&self) -> Option<String> {
        self.range.after.filter(|_| !self.ended).map(|after| after.to_string())
    }
}

/// All that the store has of a range: for small ones, such as those of [`Range::of`].
pub(super) async fn listed<S: Spool>(shared: &Shared<S>, mut range: Range) -> Result<Vec<Listed>, Refusal> {
    let mut all = Vec::new();
    loop {
        let page = shared.store.list(range.after, BATCH).await.map_err(|error| unavailable(shared, error))?;
        let Some(last) = page.last().map(|last| last.delivery.id) else { return Ok(all) };
        let within = |id: DeliveryId| range.through.is_none_or(|through| id <= through);
        all.extend(page.into_iter().filter(|listed| within(listed.delivery.id)));
        if !within(last) {
            return Ok(all);
        }
        range.after = Some(last);
    }
}

/// Has the dispatcher answer a question, between two decisions.
pub(super) async fn ask<S: Spool, T: Send + 'static>(
    shared: &Shared<S>,
    question: impl FnOnce(&mut Scheduler, Timestamp) -> T + Send + 'static,
) -> Result<T, Refusal> {
    let (answer, answered) = oneshot::channel();
    let question = move |scheduler: &mut Scheduler, now| {
        // Whoever asked may have gone.
        let _ = answer.send(question(scheduler, now));
    };
    shared.tell(Event::Ask(Question(Box::new(question))));
    answered.await.map_err(|_| stopping())
}

/// The store cannot serve; if it never will again, the relay ends.
pub(super) fn unavailable<S: Spool>(shared: &Shared<S>, error: StoreError) -> Refusal {
    match &error {
        StoreError::Fatal(why) => shared.store_failed(why),
        StoreError::Full(_) | StoreError::Unavailable(_) => telemetry::store_busy("answering an operator", &error.to_string()),
    }
    Refusal::Unavailable(error.to_string())
}

pub(super) fn not_queued(target: Target) -> Refusal {
    Refusal::NotFound(format!("{target} is not queued: it never was, or all of its recipients are settled"))
}

fn stopping() -> Refusal {
    Refusal::Unavailable("the relay is stopping; look again when it runs".to_owned())
}
