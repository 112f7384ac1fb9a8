//! What goes next, on which account.
//!
//! A delivery that is due waits in a lane (`lanes`), one that waits for a time in a tree ordered by it (`places`). An attempt is handed out when
//! the lane whose turn it is meets (`choice`) an account that is open (`gate`), has a connection free, and has something left in every budget, its own and the
//! tenant's ([`crate::budget`]). Of several such accounts the one that the client or author keeps to is taken, else the one with the most left in
//! its tightest budget. What is reserved then is settled when the attempt ends. If an account has not enough left for all recipients of a
//! delivery and no other has, the attempt goes to as many as there is budget for.
//!
//! Invariants: a delivery is handed out to one attempt at a time; every delivery that was added is handed out until it is finished, removed or
//! expired; nothing is handed out beyond a budget; [`Scheduler::deadline`] is never later than the next moment at which [`Scheduler::next`] has
//! something to say. A decision costs the same however long the queue is.

mod choice;
mod places;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::budget::{self, Budget, Limits, Reservation, Used};
use crate::clock::Timestamp;
use crate::mail::{AccountName, AppName, Class, ClientName, DeliveryId, Priority, QueueId, Queued, RouteName};

use super::gate::{Ahead, Gates, doubled};
use super::health::HealthRow;
use super::lanes::{AccountSet, Lanes};
use super::values::{BudgetChange, Change, Counts, Decision, Ended};
use super::width::Width;
use super::{ACCOUNTS_MAX, AccountSettings, ClientSettings, Settings, Who};

/// See the head of this file.
#[derive(Debug)]
pub struct Scheduler {
    pub(super) settings: Settings,
    /// Those of the settings, in their order, and behind them those that a reload has removed, as long as what they used counts.
    pub(super) accounts: Vec<Account>,
    pub(super) apps: Vec<App>,
    pub(super) routes: Vec<Route>,
    pub(super) tenant: Budget,
    /// Before all accounts that are part of the tenant.
    pub(super) tenant_gates: Gates,
    /// That all of them are suspended alike was told.
    pub(super) told_alike: bool,
    /// Somebody is not well: see `probing`.
    pub(super) ailing: bool,
    /// What was learned has changed since it was asked for.
    pub(super) health_changed: bool,
    /// What was learned when it was told last.
    pub(super) health_told: Option<Vec<HealthRow>>,
    /// Changes that no end of an attempt has brought about.
    pub(super) news: Vec<Change>,
    /// What accounts share that are no part of the tenant: nothing is limited.
    elsewhere: Budget,
    pub(super) clients: Vec<Client>,
    pub(super) client_numbers: HashMap<ClientName, u32>,
    /// All deliveries but those that are held, oldest first.
    pub(super) index: BTreeMap<DeliveryId, u32>,
    /// Those that an operator holds: they do not expire.
    pub(super) held: BTreeMap<DeliveryId, u32>,
    pub(super) entries: Vec<Entry>,
    free: Vec<u32>,
    pub(super) lanes: Lanes,
    waiting: BTreeSet<(Timestamp, u32)>,
    pub(super) flights: HashMap<u32, Flight>,
    ready: usize,
    pub(super) turn: u64,
    /// What was forgotten of budgets and is still recorded.
    pub(super) forgotten: Vec<BudgetChange>,
}

#[derive(Debug)]
pub(super) struct Account {
    pub name: AccountName,
    pub route: u16,
    /// Its application, as a number.
    pub app: Option<usize>,
    /// Connections that it may use.
    pub width: Width,
    pub active: usize,
    pub gates: Gates,
    /// A login without mail is under way.
    pub probing: bool,
    /// The turn in which the last one began.
    pub probed_in: u64,
    /// Closed by an operator.
    pub suspended: Option<Suspension>,
    /// When its trouble, which all accounts have, was put right in the operator's opinion; nothing has shown that yet.
    pub unproven: Option<Timestamp>,
    pub budget: Budget,
    last_turn: u64,
    /// Its name as a number.
    pub mark: u64,
}

/// An operator's word that an account is not to be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspension {
    /// Until when; none: until an operator resumes it.
    pub until: Option<Timestamp>,
    /// Why, in the operator's words.
    pub reason: String,
}

/// What accounts log in with together.
#[derive(Debug)]
pub(super) struct App {
    pub name: AppName,
    pub gates: Gates,
}

#[derive(Debug)]
pub(super) struct Route {
    pub name: RouteName,
    pub gates: Gates,
    pub accounts: AccountSet,
    /// Its accounts are no part of the tenant.
    pub apart: bool,
}

#[derive(Debug)]
pub(super) struct Client {
    pub settings: ClientSettings,
    /// Those of `settings.accounts` that there are; all if it names none.
    accounts: AccountSet,
    /// Its name as a number.
    mark: u64,
}

/// A delivery; small, because there may be a million.
#[derive(Debug)]
pub(super) struct Entry {
    pub id: DeliveryId,
    pub accepted_at: Timestamp,
    pub lane: u32,
    stamp: u32,
    /// The author as a number; zero: there is none.
    pub author: u64,
    pub recipients: u16,
    pub class: Class,
    pub priority: Priority,
    attempted: bool,
    /// The account that it does better without, for the moment.
    pub avoid: Option<u8>,
    /// It was tried a moment ago, and that did not count.
    pub second: bool,
    pub held: bool,
    pub place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Ready,
    Waiting(Timestamp),
    Held(Timestamp),
    Active,
    Gone,
}

/// An attempt under way. It ends as it began, whatever a reload has made of its delivery and its account meanwhile.
#[derive(Debug)]
pub(super) struct Flight {
    pub account: usize,
    class: Class,
    own: Reservation,
    shared: Reservation,
    /// `shared` is of what is no part of the tenant.
    apart: bool,
}

impl Scheduler {
    /// An empty queue, and budgets of which nothing is used.
    pub fn new(settings: Settings) -> Self {
        let mut scheduler = Self {
            tenant: Budget::new(&settings.tenant),
            elsewhere: Budget::new(&Limits::NONE),
            accounts: Vec::new(),
            apps: Vec::new(),
            routes: Vec::new(),
            tenant_gates: Gates::default(),
            told_alike: false,
            ailing: false,
            health_changed: false,
            health_told: None,
            news: Vec::new(),
            clients: Vec::new(),
            client_numbers: HashMap::new(),
            index: BTreeMap::new(),
            entries: Vec::new(),
            free: Vec::new(),
            lanes: Lanes::default(),
            waiting: BTreeSet::new(),
            flights: HashMap::new(),
            ready: 0,
            held: BTreeMap::new(),
            turn: 0,
            forgotten: Vec::new(),
            settings,
        };
        for account in scheduler.settings.accounts.clone().into_iter().take(ACCOUNTS_MAX) {
            let route = scheduler.route(&account.route);
            let app = account.app.clone().map(|app| scheduler.app(app));
            scheduler.routes[usize::from(route)].accounts |= 1 << scheduler.accounts.len();
            scheduler.accounts.push(Account::new(&account, route, app));
        }
        for client in scheduler.settings.clients.clone() {
            scheduler.add_client(client);
        }
        scheduler
    }

    /// A delivery has been accepted, or found at start.
    pub fn add(&mut self, now: Timestamp, queued: Queued) {
        if self.slot(queued.id).is_some() {
            return;
        }
        let client = self.client(&queued.client);
        let route = self.route(&queued.route);
        let author = queued.author.as_ref().map_or(0, |author| hash(author.as_str()));
        let lane = self.lane(queued.priority, route, queued.class, client, author);
        let entry = Entry {
            id: queued.id,
            accepted_at: queued.accepted_at,
            lane,
            stamp: 0,
            author,
            recipients: queued.recipients,
            class: queued.class,
            priority: queued.priority,
            attempted: queued.attempts > 0,
            avoid: None,
            second: false,
            held: queued.held,
            place: Place::Gone,
        };
        let slot = self.free.pop().unwrap_or(self.entries.len() as u32);
        match self.entries.get_mut(slot as usize) {
            Some(old) => *old = Entry { stamp: old.stamp, ..entry },
            None => self.entries.push(entry),
        }
        self.index.insert(queued.id, slot);
        // A due time beyond any that the relay gives comes from a clock that was ahead.
        self.place(now, slot, queued.due.min(now + self.settings.retry_max * 2));
    }

    /// What is to be done now, if anything. Call until it returns `None`.
    pub fn next(&mut self, now: Timestamp) -> Option<Decision> {
        if let Some(decision) = self.tend(now) {
            return Some(decision);
        }
        while let Some((due, slot)) = self.waiting.first().copied().filter(|(due, _)| *due <= now) {
            self.waiting.remove(&(due, slot));
            self.enter_lane(slot);
        }
        if let Some((delivery, expires)) = self.first_idle()
            && expires <= now
        {
            self.remove(delivery);
            return Some(Decision::Expire { delivery });
        }
        let mut choice: Option<(Priority, u64, u32)> = None;
        for group in self.lanes.groups() {
            let Some((time, lane)) = group.first() else { continue };
            let first = (group.priority, time, lane);
            if choice.is_none_or(|best| first < best) && self.can_go(now, group.accounts, group.route, group.class, group.priority) {
                choice = Some(first);
            }
        }
        let (_, _, lane) = choice?;
        self.hand_out(now, lane)
    }

    /// An attempt has ended: its account is free again and its budgets are settled. The delivery stays where it is until [`Self::settled`].
    /// Returns the gates that this closed or opened, to be told.
    pub fn ended(&mut self, now: Timestamp, ended: &Ended) -> Vec<Change> {
        let Some(flight) = self.slot(ended.delivery).and_then(|slot| self.flights.remove(&slot)) else {
            return Vec::new();
        };
        let account = &mut self.accounts[flight.account];
        account.active -= 1;
        account.budget.settle(flight.own, ended.used, now);
        self.shared_mut(flight.apart).settle(flight.shared, ended.used, now);
        self.heed(now, flight.account, flight.class, ended)
    }

    /// What changed although no attempt has ended, to be told.
    pub fn news(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.news)
    }

    /// What changed of the budgets since the last call. It must be durable before an attempt begins that [`Self::next`] handed out before the call.
    pub fn budget_changes(&mut self) -> Vec<BudgetChange> {
        let own = self.accounts.iter_mut().flat_map(|Account { name, budget, .. }| {
            budget.changes().into_iter().map(|change| BudgetChange { account: Some(name.clone()), change })
        });
        let mut changes = std::mem::take(&mut self.forgotten);
        changes.extend(own);
        changes.extend(self.tenant.changes().into_iter().map(|change| BudgetChange { account: None, change }));
        changes
    }

    /// All that is used of the budgets, in place of the changes since the last call: for a store that could not keep those.
    pub fn budget_state(&mut self) -> Vec<BudgetChange> {
        self.budget_changes();
        let put = |account: Option<&AccountName>, row| BudgetChange { account: account.cloned(), change: budget::Change::Put(row) };
        let own = self.accounts.iter().flat_map(|account| account.budget.state().into_iter().map(|row| put(Some(&account.name), row)));
        own.chain(self.tenant.state().into_iter().map(|row| put(None, row))).collect()
    }

    /// The end of an attempt is recorded: the delivery waits for its next one, or with no recipients left is out of the queue.
    pub fn settled(&mut self, now: Timestamp, delivery: DeliveryId, remaining: u16, due: Timestamp) {
        let Some(slot) = self.slot(delivery) else { return };
        if remaining == 0 {
            self.remove(delivery);
            return;
        }
        let entry = &mut self.entries[slot as usize];
        entry.recipients = remaining;
        entry.attempted = true;
        (entry.avoid, entry.second) = (None, false);
        self.place(now, slot, due);
    }

    /// A delivery that waits goes on another account than this one, if another can take it.
    pub fn avoid(&mut self, delivery: DeliveryId, account: &AccountName) {
        let avoid = self.accounts.iter().position(|other| other.name == *account).and_then(|number| u8::try_from(number).ok());
        if let Some(slot) = self.slot(delivery) {
            self.entries[slot as usize].avoid = avoid;
        }
    }

    /// The same for one whose attempt did not count: its next one does, whatever becomes of it.
    pub fn try_elsewhere(&mut self, delivery: DeliveryId, account: &AccountName) {
        self.avoid(delivery, account);
        if let Some(slot) = self.slot(delivery) {
            self.entries[slot as usize].second = true;
        }
    }

    /// An attempt that had been handed out did not begin: nothing is used.
    pub fn put_back(&mut self, now: Timestamp, delivery: DeliveryId, due: Timestamp) {
        let Some(slot) = self.slot(delivery) else { return };
        if let Some(flight) = self.flights.remove(&slot) {
            let account = &mut self.accounts[flight.account];
            account.active -= 1;
            account.budget.settle(flight.own, Used::NOTHING, now);
            self.shared_mut(flight.apart).settle(flight.shared, Used::NOTHING, now);
            for holder in self.holders(flight.account) {
                let Self { accounts, apps, routes, tenant_gates, .. } = self;
                holder.gates(accounts, apps, routes, tenant_gates).release(Ahead::Message(delivery));
            }
        }
        self.place(now, slot, due);
    }

    /// The next moment at which time alone changes what [`Scheduler::next`] says.
    pub fn deadline(&self, now: Timestamp) -> Option<Timestamp> {
        let due = self.waiting.first().map(|(due, _)| *due);
        let expiry = self.first_idle().map(|(_, expires)| expires);
        let groups = self.lanes.groups().filter_map(|group| self.group_opens(now, group));
        groups.chain(due).chain(expiry).chain(self.tends_at()).min()
    }

    /// How many deliveries are where.
    pub fn counts(&self) -> Counts {
        let (ready, deferred) = (self.ready, self.waiting.len());
        Counts { active: self.index.len() - ready - deferred, ready, deferred, held: self.held.len() }
    }

    /// An operator holds a delivery back, or lets it go on. Returns whether there is one by this name.
    pub fn hold(&mut self, now: Timestamp, delivery: DeliveryId, hold: bool) -> bool {
        let Some(slot) = self.slot(delivery) else { return false };
        self.entries[slot as usize].held = hold;
        match self.entries[slot as usize].place {
            // An attempt under way ends first.
            Place::Active | Place::Gone => {}
            Place::Held(due) if !hold => self.move_to(now, slot, due),
            Place::Waiting(due) if hold => self.move_to(now, slot, due),
            Place::Ready if hold => self.move_to(now, slot, now),
            _ => {}
        }
        true
    }

    /// A deferred delivery is due now. Returns whether there is one by this name.
    pub fn retry_now(&mut self, now: Timestamp, delivery: DeliveryId) -> bool {
        let Some(slot) = self.slot(delivery) else { return false };
        if let Place::Waiting(_) = self.entries[slot as usize].place {
            self.move_to(now, slot, now);
        }
        true
    }

    /// Takes a delivery out of the queue, unless an attempt is under way. Returns whether it is out.
    pub fn withdraw(&mut self, delivery: DeliveryId) -> bool {
        let idle = self.slot(delivery).is_some_and(|slot| self.entries[slot as usize].place != Place::Active);
        if idle {
            self.remove(delivery);
        }
        idle
    }

    /// An operator suspends an account, or resumes it (`None`), which also opens its gates. Returns whether there is one by this name.
    pub fn suspend(&mut self, now: Timestamp, name: &AccountName, suspension: Option<Suspension>) -> bool {
        let Some(account) = self.accounts.iter_mut().find(|account| account.name == *name) else { return false };
        let resumed = suspension.is_none();
        account.suspended = suspension;
        match resumed {
            true => self.try_again(now, &Who::Account(name.clone())),
            false => self.look_anew(),
        }
        true
    }

    /// What was used of a budget before a restart. `rows` are those of the account, or with `None` of the tenant. An account that is not in the
    /// settings may come back: what it has used is kept. `shift` is what must be added to their times, in milliseconds.
    pub fn restore(&mut self, account: Option<&AccountName>, rows: &[budget::Row], now: Timestamp, shift: i64) {
        match account {
            None => self.tenant = Budget::restore(&self.settings.tenant, rows, now, shift),
            Some(name) => {
                let limits = self.settings.accounts.iter().find(|account| account.name == *name).map(|account| account.limits.clone());
                let limits = limits.unwrap_or_else(|| self.without_limits());
                self.known(name).budget = Budget::restore(&limits, rows, now, shift);
            }
        }
    }

    /// The time of the attempt that follows the one counted as number `attempts`: the back-off doubles from `retry_min` to `retry_max`, and
    /// is spread by a tenth either way, by the queue id, so that what failed together does not come back together.
    pub fn retry_at(settings: &Settings, now: Timestamp, message: QueueId, attempts: u32) -> Timestamp {
        let delay = doubled(settings.retry_min, settings.retry_max, attempts.saturating_sub(1));
        let spread = scatter(message.number() as u64 ^ u64::from(attempts)) % 2_001;
        now + delay.mul_f64(0.9 + spread as f64 / 10_000.0)
    }
}

impl Account {
    /// One of which nothing was ever used.
    pub fn new(settings: &AccountSettings, route: u16, app: Option<usize>) -> Self {
        Self {
            name: settings.name.clone(),
            route,
            app,
            width: Width::new(settings.connections),
            active: 0,
            unproven: None,
            gates: Gates::default(),
            probing: false,
            probed_in: 1,
            suspended: None,
            budget: Budget::new(&settings.limits),
            last_turn: 0,
            mark: hash(settings.name.as_str()),
        }
    }
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes()
        .fold(0xCBF2_9CE4_8422_2325, |hash, octet| (hash ^ u64::from(octet.to_ascii_lowercase())).wrapping_mul(0x0000_0100_0000_01B3))
}

/// Spreads neighbouring numbers over all (the finaliser of SplitMix64).
fn scatter(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
