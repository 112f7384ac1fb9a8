//! The queue's order and the accounts' state.
//!
//! Deliveries that are due stand in lanes, one for each route and class, first come first served; those that wait for a time stand in a
//! tree ordered by it. An attempt is handed out when the head of a lane meets an account of its route that is open for its class and has a
//! connection free: the one with the fewest attempts under way, among equals the one that has rested longest. A lane whose accounts are all
//! closed holds back no other lane.
//!
//! Invariants: a delivery is handed out to one attempt at a time; every delivery that was added is handed out until it is finished or
//! expired; [`Scheduler::deadline`] is never later than the next moment at which [`Scheduler::next`] has something to say.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::mail::{AccountName, Class, DeliveryId, QueueId, Queued, RouteName};
use crate::reply::{Pause, Scope};

use super::Settings;
use super::gate::{Gate, doubled};

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Try this delivery on this account.
    Attempt {
        /// What.
        delivery: DeliveryId,
        /// On which account.
        account: AccountName,
    },
    /// Give this delivery up: its message is older than the queue's lifetime. It is out of the queue.
    Expire {
        /// What.
        delivery: DeliveryId,
    },
}

/// The end of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Which delivery.
    pub delivery: DeliveryId,
    /// On which account.
    pub account: AccountName,
    /// When the attempt had begun.
    pub started: Timestamp,
    /// Recipients that are not settled; with none, the delivery leaves the queue.
    pub remaining: u16,
    /// For those: the earliest time of the next attempt.
    pub due: Timestamp,
    /// What the account, or more, must wait for.
    pub pause: Option<Pause>,
}

/// A gate that closed or opened, to be told once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// No attempts until then.
    Closed {
        /// Whose.
        gate: Who,
        /// Until when.
        until: Timestamp,
        /// Why, and who must do what.
        pause: Pause,
    },
    /// Attempts go on.
    Opened {
        /// Whose.
        gate: Who,
    },
}

/// Whom a gate belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// One account.
    Account(AccountName),
    /// All accounts of a route: its endpoint, or the tenant behind it.
    Route(RouteName),
}

/// How many deliveries are where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Attempts under way.
    pub active: usize,
    /// Due, and waiting for an account.
    pub ready: usize,
    /// Deferred to a later time.
    pub deferred: usize,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Scheduler {
    settings: Settings,
    accounts: Vec<Account>,
    routes: BTreeMap<RouteName, Gates>,
    entries: BTreeMap<DeliveryId, Entry>,
    lanes: BTreeMap<(RouteName, Class), VecDeque<DeliveryId>>,
    waiting: BTreeSet<(Timestamp, DeliveryId)>,
    active: usize,
    ready: usize,
    turn: u64,
}

#[derive(Debug)]
struct Account {
    name: AccountName,
    route: RouteName,
    connections: usize,
    active: usize,
    last_turn: u64,
    gates: Gates,
}

/// One gate for everything and one for each class.
#[derive(Debug, Clone, Default)]
struct Gates {
    all: Gate,
    internal: Gate,
    external: Gate,
}

#[derive(Debug)]
struct Entry {
    route: RouteName,
    class: Class,
    expires: Timestamp,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Ready,
    Waiting(Timestamp),
    Active,
}

impl Scheduler {
    /// An empty queue.
    pub fn new(settings: Settings) -> Self {
        let accounts: Vec<Account> = settings
            .accounts
            .iter()
            .map(|account| Account {
                name: account.name.clone(),
                route: account.route.clone(),
                connections: account.connections,
                active: 0,
                last_turn: 0,
                gates: Gates::default(),
            })
            .collect();
        let routes = accounts.iter().map(|account| (account.route.clone(), Gates::default())).collect();
        Self {
            settings,
            accounts,
            routes,
            entries: BTreeMap::new(),
            lanes: BTreeMap::new(),
            waiting: BTreeSet::new(),
            active: 0,
            ready: 0,
            turn: 0,
        }
    }

    /// A delivery has been accepted, or found at start.
    pub fn add(&mut self, now: Timestamp, queued: Queued) {
        let expires = queued.accepted_at + self.settings.lifetime;
        let entry = Entry { route: queued.route, class: queued.class, expires, place: Place::Active };
        if self.entries.insert(queued.id, entry).is_none() {
            self.active += 1;
        }
        self.place(now, queued.id, queued.due);
    }

    /// What is to be done now, if anything. Call until it returns `None`.
    pub fn next(&mut self, now: Timestamp) -> Option<Decision> {
        while let Some((due, delivery)) = self.waiting.first().copied().filter(|(due, _)| *due <= now) {
            self.waiting.remove(&(due, delivery));
            self.enter_lane(delivery);
        }
        if let Some(delivery) = self.first_idle().filter(|(_, expires)| *expires <= now).map(|(delivery, _)| delivery) {
            self.remove(delivery);
            return Some(Decision::Expire { delivery });
        }
        let mut choice = None;
        for ((route, class), lane) in &self.lanes {
            // The oldest head of all lanes that can move goes first.
            if let Some(head) = lane.front()
                && choice.is_none_or(|(oldest, _)| head < oldest)
                && let Some(account) = self.choose(now, route, *class)
            {
                choice = Some((head, account));
            }
        }
        let (delivery, account) = choice.map(|(delivery, account)| (*delivery, account))?;
        self.hand_out(now, delivery, account);
        Some(Decision::Attempt { delivery, account: self.accounts[account].name.clone() })
    }

    /// An attempt has ended. Returns the gates that this closed or opened.
    pub fn finish(&mut self, now: Timestamp, finished: Finished) -> Vec<Change> {
        let mut changes = Vec::new();
        let Some(account) = self.accounts.iter().position(|account| account.name == finished.account) else {
            debug_assert!(false, "an attempt ended on an account that is not configured");
            return changes;
        };
        let class = self.entries.get(&finished.delivery).map(|entry| entry.class);
        self.accounts[account].active -= 1;
        self.heed(now, account, class, &finished, &mut changes);
        if finished.remaining == 0 {
            self.remove(finished.delivery);
        } else {
            // Trouble that neither closed a gate nor counted must still not spin.
            let due = if finished.pause.is_none() { finished.due.max(now + Duration::from_millis(1)) } else { finished.due };
            self.place(now, finished.delivery, due);
        }
        changes
    }

    /// An attempt that had been handed out did not begin.
    pub fn put_back(&mut self, now: Timestamp, delivery: DeliveryId, account: &AccountName, due: Timestamp) {
        if let Some(account) = self.accounts.iter_mut().find(|known| known.name == *account) {
            account.active -= 1;
            account.gates.release(delivery);
            if let Some(route) = self.routes.get_mut(&account.route) {
                route.release(delivery);
            }
        }
        self.place(now, delivery, due);
    }

    /// The next moment at which time alone changes what [`Scheduler::next`] says.
    pub fn deadline(&self) -> Option<Timestamp> {
        let due = self.waiting.first().map(|(due, _)| *due);
        let expiry = self.first_idle().map(|(_, expires)| expires);
        let gates = self.lanes.iter().filter(|(_, lane)| !lane.is_empty()).flat_map(|((route, class), _)| {
            let shared = self.routes.get(route).and_then(|gates| gates.opens(*class));
            let free = self.accounts.iter().filter(move |account| account.route == *route && account.active < account.connections);
            free.filter_map(move |account| Some(account.gates.opens(*class)?.max(shared?)))
        });
        gates.chain(due).chain(expiry).min()
    }

    /// How many deliveries are where.
    pub fn counts(&self) -> Counts {
        Counts { active: self.active, ready: self.ready, deferred: self.waiting.len() }
    }

    /// The time of the attempt that follows the one counted as number `attempts`: the back-off doubles from `retry_min` to `retry_max`, and
    /// is spread by a tenth either way, by the queue id, so that what failed together does not come back together.
    pub fn retry_at(settings: &Settings, now: Timestamp, message: QueueId, attempts: u32) -> Timestamp {
        let delay = doubled(settings.retry_min, settings.retry_max, attempts.saturating_sub(1));
        let spread = scatter(message.number() as u64 ^ u64::from(attempts)) % 2_001;
        now + delay.mul_f64(0.9 + spread as f64 / 10_000.0)
    }

    fn choose(&self, now: Timestamp, route: &RouteName, class: Class) -> Option<usize> {
        if !self.routes.get(route).is_some_and(|gates| gates.admit(now, class)) {
            return None;
        }
        let free = |account: &Account| account.route == *route && account.active < account.connections && account.gates.admit(now, class);
        let free = self.accounts.iter().enumerate().filter(|(_, account)| free(account));
        free.min_by_key(|(_, account)| (account.active, account.last_turn)).map(|(i, _)| i)
    }

    fn hand_out(&mut self, now: Timestamp, delivery: DeliveryId, account: usize) {
        self.turn += 1;
        let Some(entry) = self.entries.get_mut(&delivery) else { return };
        entry.place = Place::Active;
        if let Some(lane) = self.lanes.get_mut(&(entry.route.clone(), entry.class)) {
            lane.pop_front();
        }
        self.ready -= 1;
        self.active += 1;
        let account = &mut self.accounts[account];
        account.active += 1;
        account.last_turn = self.turn;
        account.gates.pass(now, entry.class, delivery);
        if let Some(route) = self.routes.get_mut(&entry.route) {
            route.pass(now, entry.class, delivery);
        }
    }

    /// Closes, opens or frees the gates that an ended attempt says something about.
    fn heed(&mut self, now: Timestamp, account: usize, class: Option<Class>, finished: &Finished, changes: &mut Vec<Change>) {
        let account = &mut self.accounts[account];
        let Some(route) = self.routes.get_mut(&account.route) else { return };
        let wide = finished.pause.as_ref().is_some_and(|pause| matches!(pause.scope, Scope::Tenant | Scope::Connection));
        for (gates, who, mine) in
            [(&mut account.gates, Who::Account(account.name.clone()), !wide), (route, Who::Route(account.route.clone()), wide)]
        {
            match &finished.pause {
                Some(pause) if mine => {
                    let gate = gates.of(pause.class);
                    if let Some(until) = gate.fail(now, finished.started, pause.length, &self.settings) {
                        changes.push(Change::Closed { gate: who, until, pause: pause.clone() });
                    }
                }
                // An account's own trouble proves that its endpoint answers; an endpoint's trouble proves nothing about the account.
                Some(_) if !wide => {
                    if gates.succeed(finished.started, class) {
                        changes.push(Change::Opened { gate: who });
                    }
                }
                Some(_) => {}
                None => {
                    if gates.succeed(finished.started, class) {
                        changes.push(Change::Opened { gate: who });
                    }
                }
            }
            gates.release(finished.delivery);
        }
    }

    /// Puts an active delivery where it must wait.
    fn place(&mut self, now: Timestamp, delivery: DeliveryId, due: Timestamp) {
        let Some(entry) = self.entries.get_mut(&delivery) else { return };
        debug_assert_eq!(entry.place, Place::Active, "only an active delivery is placed");
        self.active -= 1;
        if due > now {
            entry.place = Place::Waiting(due);
            self.waiting.insert((due, delivery));
        } else {
            self.enter_lane(delivery);
        }
    }

    fn enter_lane(&mut self, delivery: DeliveryId) {
        if let Some(entry) = self.entries.get_mut(&delivery) {
            entry.place = Place::Ready;
            self.ready += 1;
            self.lanes.entry((entry.route.clone(), entry.class)).or_default().push_back(delivery);
        }
    }

    fn remove(&mut self, delivery: DeliveryId) {
        let Some(entry) = self.entries.remove(&delivery) else { return };
        match entry.place {
            Place::Active => self.active -= 1,
            Place::Waiting(due) => {
                self.waiting.remove(&(due, delivery));
            }
            Place::Ready => {
                self.ready -= 1;
                if let Some(lane) = self.lanes.get_mut(&(entry.route, entry.class)) {
                    lane.retain(|other| *other != delivery);
                }
            }
        }
    }

    /// The oldest delivery that is not active, and when it expires. Queue ids sort by time, so the oldest expires first.
    fn first_idle(&self) -> Option<(DeliveryId, Timestamp)> {
        self.entries.iter().find(|(_, entry)| entry.place != Place::Active).map(|(delivery, entry)| (*delivery, entry.expires))
    }
}

impl Gates {
    fn of(&mut self, class: Option<Class>) -> &mut Gate {
        match class {
            None => &mut self.all,
            Some(Class::Internal) => &mut self.internal,
            Some(Class::External) => &mut self.external,
        }
    }

    fn by_class(&self, class: Class) -> &Gate {
        match class {
            Class::Internal => &self.internal,
            Class::External => &self.external,
        }
    }

    fn admit(&self, now: Timestamp, class: Class) -> bool {
        self.all.admits(now) && self.by_class(class).admits(now)
    }

    fn opens(&self, class: Class) -> Option<Timestamp> {
        Some(self.all.opens()?.max(self.by_class(class).opens()?))
    }

    fn pass(&mut self, now: Timestamp, class: Class, delivery: DeliveryId) {
        self.all.pass(now, delivery);
        self.of(Some(class)).pass(now, delivery);
    }

    fn succeed(&mut self, started: Timestamp, class: Option<Class>) -> bool {
        let own = class.is_some_and(|class| self.of(Some(class)).succeed(started));
        self.all.succeed(started) || own
    }

    fn release(&mut self, delivery: DeliveryId) {
        for gate in [&mut self.all, &mut self.internal, &mut self.external] {
            gate.release(delivery);
        }
    }
}

/// Spreads neighbouring numbers over all (the finaliser of SplitMix64).
fn scatter(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
