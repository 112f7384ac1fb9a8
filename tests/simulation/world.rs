//! A relay in a world that a seed makes up: the real scheduler, and around it clients, accounts, a network, a disk, a clock and an operator.
//!
//! Time is virtual, in microseconds; the relay sees it through a wall clock that a restart may step. Everything that is asserted is computed
//! here or by the observers, from what happened alone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use hve_relay::budget::{self, LimitName, Limits, Row, Used};
use hve_relay::clock::Timestamp;
use hve_relay::mail::{AccountName, Class, DeliveryId, Priority, QueueId, Queued, RouteName};
use hve_relay::reply::{Pause, PauseLength, Scope};
use hve_relay::schedule::{Change, Counts, Decision, Ended, Reason, Scheduler, Settings, Suspension, Who};

use super::dice::Dice;
use super::observer::{Bound, Log, Spent, Upstream};
use super::shape::Shape;

/// What a run looked at, so that a simulation that looks at nothing is noticed.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    pub deliveries: u64,
    pub attempts: u64,
    pub restarts: u64,
    /// Moments at which nothing could go, proven.
    pub idle: u64,
    /// Waits whose reason and time were compared with the log.
    pub waits: u64,
    /// Waits that named a time at which, as then seen, it went.
    pub kept_promises: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.deliveries += other.deliveries;
        self.attempts += other.attempts;
        self.restarts += other.restarts;
        self.idle += other.idle;
        self.waits += other.waits;
        self.kept_promises += other.kept_promises;
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A client goes on with its run of so many messages.
    Arrive {
        client: usize,
        left: u32,
    },
    /// The server counts.
    Stamp(u64),
    /// The relay learns of the end of an attempt.
    End(u64),
    /// The end of an attempt is on the disk.
    Record(DeliveryId),
    Operator,
    Restart,
    /// The relay looks although nothing happened.
    Look,
}

/// A delivery, as the world knows it.
#[derive(Debug)]
struct Item {
    class: Class,
    priority: Priority,
    queued: Queued,
    /// The accounts that may take it.
    accounts: Vec<usize>,
    /// Its recipients that are not settled, by numbers that are unique in the world.
    recipients: Vec<u32>,
    state: State,
    promise: Option<Promise>,
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    Queued,
    Flying,
    /// The attempt has ended, and the disk does not know yet.
    Ended(Vec<(u32, Fate)>, Timestamp),
}

/// What the relay said: nothing of this goes before then.
#[derive(Debug, Clone, Copy)]
struct Promise {
    until: Timestamp,
    /// Something was given back, opened or changed by hand so often when it was said.
    gifts: u64,
    ends: u64,
    starts: u64,
    /// The end of any attempt could change it.
    fragile: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Sent,
    Failed,
    Deferred,
    Expired,
    Withdrawn,
}

#[derive(Debug)]
struct Flight {
    delivery: DeliveryId,
    account: usize,
    started: Timestamp,
    /// What the server does with each recipient of the attempt; it counts those that it takes.
    fates: Vec<(u32, Fate)>,
    /// The reply is lost: the relay must take all for used.
    doubt: bool,
    pause: Option<Pause>,
    stamped: bool,
}

#[derive(Debug)]
struct Closure {
    since: Timestamp,
    until: Timestamp,
    /// It opens by itself; else one attempt goes ahead.
    known: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Gate {
    Route,
    Account(usize),
}

type Rows = BTreeMap<(Option<AccountName>, LimitName, u32), Row>;

pub struct World {
    dice: Dice,
    shape: Shape,
    settings: Settings,
    s: Scheduler,
    /// The true time in microseconds.
    micros: i64,
    /// What the wall clock adds to it, in milliseconds.
    wall: i64,
    stepped: bool,
    calm: bool,
    queue: BTreeMap<DeliveryId, Item>,
    flights: BTreeMap<u64, Flight>,
    events: BinaryHeap<Reverse<(i64, u64, Event)>>,
    numbers: u64,
    rows: Rows,
    log: Log,
    upstream: Vec<Upstream>,
    tenant: Upstream,
    gates: BTreeMap<(Gate, Option<Class>), Closure>,
    suspended: BTreeMap<usize, Option<Timestamp>>,
    /// How often the server took each recipient, how often it may have without the relay knowing, and what became of it.
    taken: Vec<u32>,
    doubts: Vec<u32>,
    fates: Vec<Option<Fate>>,
    gifts: u64,
    ends: u64,
    starts: u64,
    tally: Tally,
}

const ROUTE: &str = "hve";

pub fn account(i: usize) -> AccountName {
    AccountName::new(format!("hve{i}@contoso.com"))
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let shape = Shape::new(&mut dice);
        let settings = shape.settings.clone();
        let accounts = settings.accounts.len();
        let mut world = Self {
            s: Scheduler::new(settings.clone()),
            settings,
            micros: 1_000_000_000 * 86_400,
            wall: dice.below(100_000_000) as i64,
            stepped: false,
            calm: false,
            queue: BTreeMap::new(),
            flights: BTreeMap::new(),
            events: BinaryHeap::new(),
            numbers: 0,
            rows: Rows::new(),
            log: Log::default(),
            upstream: (0..accounts).map(|_| Upstream::default()).collect(),
            tenant: Upstream::default(),
            gates: BTreeMap::new(),
            suspended: BTreeMap::new(),
            taken: Vec::new(),
            doubts: Vec::new(),
            fates: Vec::new(),
            gifts: 0,
            ends: 0,
            starts: 0,
            tally: Tally::default(),
            dice,
            shape,
        };
        for client in 0..world.shape.clients.len() {
            let (at, left) = (world.dice.length(world.shape.span), world.shape.clients[client].messages);
            world.schedule(at, Event::Arrive { client, left });
        }
        for _ in 0..world.shape.operations {
            let at = world.dice.below(world.shape.span.as_micros() as u64) as i64;
            world.schedule(at, Event::Operator);
        }
        for _ in 0..world.shape.restarts {
            let at = world.dice.below(world.shape.span.as_micros() as u64) as i64;
            world.schedule(at, Event::Restart);
        }
        world
    }

    /// Lives until every delivery has come to its end.
    pub fn run(mut self) -> Tally {
        let end_of_trouble = self.micros + self.shape.span.as_micros() as i64;
        let mut steps = 0;
        self.drain(false);
        loop {
            steps += 1;
            assert!(steps < 200_000, "it does not come to an end: {:?}", self.s.counts());
            if self.dice.chance(10) {
                let ahead = self.dice.length(self.shape.span);
                self.schedule(ahead, Event::Look);
            }
            let deadline = self.s.deadline(self.now()).map(|at| self.true_micros(at));
            let next = self.events.peek().map(|Reverse((at, ..))| *at);
            let Some(at) = [deadline, next].into_iter().flatten().min() else {
                if self.calm {
                    break;
                }
                // Only what is held is left, and that waits for an operator alone.
                self.calm_down();
                self.drain(false);
                continue;
            };
            self.micros = self.micros.max(at);
            let mut eventless = true;
            if next == Some(at)
                && let Some(Reverse((_, _, event))) = self.events.pop()
            {
                eventless = event == Event::Look;
                self.happen(event);
            }
            if !self.calm && self.micros > end_of_trouble && !self.events.iter().any(|Reverse((.., event))| lasting(event)) {
                self.calm_down();
                eventless = false;
            }
            self.drain(eventless && deadline != Some(at));
            let longest = self.longest_window();
            self.log.prune(self.true_millis(), longest);
            if self.calm && self.queue.is_empty() {
                break;
            }
        }
        self.check_conservation();
        self.tally
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { client, left } => self.arrive(client, left),
            Event::Stamp(attempt) => self.stamp(attempt, self.micros),
            Event::End(attempt) => self.end(attempt),
            Event::Record(delivery) => self.record(delivery),
            Event::Operator => self.operate(),
            Event::Restart => self.restart(),
            Event::Look => {}
        }
    }

    fn schedule(&mut self, ahead: i64, event: Event) {
        self.numbers += 1;
        self.events.push(Reverse((self.micros + ahead, self.numbers, event)));
    }

    fn true_millis(&self) -> i64 {
        self.micros.div_euclid(1_000)
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.true_millis() + self.wall)
    }

    fn true_micros(&self, at: Timestamp) -> i64 {
        at.as_millis().saturating_sub(self.wall).saturating_mul(1_000)
    }

    fn longest_window(&self) -> i64 {
        let all = self.settings.accounts.iter().map(|account| &account.limits).chain([&self.settings.tenant]);
        all.map(|limits| limits.day.max(limits.minimum_pause.unwrap_or_default())).max().unwrap_or_default().as_millis() as i64
    }

    fn arrive(&mut self, client: usize, left: u32) {
        let (now, dice) = (self.now(), &mut self.dice);
        let who = &self.shape.clients[client];
        let class = if dice.chance(who.external) { Class::External } else { Class::Internal };
        let most = self.shape.recipients(class);
        let count = if dice.chance(50) { 1 } else { 1 + dice.below(u64::from(who.recipients.min(most))) as u32 };
        let priority = dice.pick(&who.priorities);
        let author = dice.pick(&who.authors);
        let number = self.queue_number();
        let first = self.taken.len() as u32;
        let (taken, doubts, fates) = (&mut self.taken, &mut self.doubts, &mut self.fates);
        taken.resize(taken.len() + count as usize, 0);
        doubts.resize(taken.len(), 0);
        fates.resize(taken.len(), None);
        let settings = &self.settings.clients[client];
        let queued = Queued {
            id: DeliveryId { message: QueueId::from_number(number).expect("positive"), part: 1 },
            client: settings.name.clone(),
            priority,
            author: author.clone(),
            held: false,
            route: RouteName::new(ROUTE),
            class,
            recipients: count as u16,
            size: 1_000,
            accepted_at: now,
            due: now,
            attempts: 0,
            in_doubt: None,
        };
        let permitted = |i: &usize| settings.accounts.as_ref().is_none_or(|names| names.contains(&account(*i)));
        let mut accounts: Vec<usize> = (0..self.settings.accounts.len()).filter(permitted).collect();
        let own = author.and_then(|author| accounts.iter().copied().find(|i| author.as_str().eq_ignore_ascii_case(account(*i).as_str())));
        if let Some(own) = own {
            accounts = vec![own];
        }
        self.tally.deliveries += 1;
        self.s.add(now, queued.clone());
        let recipients = (first..first + count).collect();
        self.queue.insert(queued.id, Item { class, priority, queued, accounts, recipients, state: State::Queued, promise: None });
        if left > 1 {
            let gap = self.shape.clients[client].gap;
            let ahead = self.dice.length(gap);
            self.schedule(ahead, Event::Arrive { client, left: left - 1 });
        }
    }

    fn queue_number(&mut self) -> i64 {
        self.numbers += 1;
        self.numbers as i64
    }

    /// Carries out what the scheduler decides until it has nothing more to say, and then looks whether it is right.
    fn drain(&mut self, must_be_idle: bool) {
        let now = self.now();
        loop {
            let mut handed_out = Vec::new();
            while let Some(decision) = self.s.next(now) {
                assert!(!must_be_idle, "{now}: {decision:?} comes before the deadline, and nothing has happened");
                match decision {
                    Decision::Attempt { delivery, account, recipients } => {
                        let account = self.settings.accounts.iter().position(|settings| settings.name == account).expect("an account");
                        handed_out.push(self.check_start(delivery, account, recipients));
                    }
                    Decision::Expire { delivery } => {
                        let item = self.queue.remove(&delivery).expect("a delivery that is queued");
                        assert!(
                            item.state == State::Queued && !item.queued.held,
                            "{delivery} expires while an attempt is under way, or held"
                        );
                        assert!(now >= item.queued.accepted_at + self.settings.lifetime, "{delivery} expires early");
                        item.recipients.iter().for_each(|recipient| self.settle(*recipient, Fate::Expired));
                    }
                }
            }
            self.flush();
            let mut again = false;
            for (attempt, delivery, account, recipients) in handed_out {
                if self.dice.chance(3) {
                    again = true;
                    self.put_back(attempt, delivery);
                } else {
                    self.begin(attempt, delivery, account, recipients);
                }
            }
            if !again {
                break;
            }
        }
        self.check_idle();
    }

    /// An attempt is handed out: it must be one that may be.
    fn check_start(&mut self, delivery: DeliveryId, account: usize, recipients: u16) -> (u64, DeliveryId, usize, u16) {
        let now = self.now();
        self.tally.attempts += 1;
        self.numbers += 1;
        let attempt = self.numbers;
        let item = self.queue.get_mut(&delivery).expect("a delivery that is queued");
        assert!(item.state == State::Queued && !item.queued.held && item.queued.due <= now, "{delivery} may not go: {item:?}");
        assert!(item.accounts.contains(&account), "{delivery} goes on account {account}, and may only on {:?}", item.accounts);
        assert!((1..=item.recipients.len()).contains(&usize::from(recipients)), "{recipients} recipients of {item:?}");
        if let Some(promise) = item.promise.take() {
            let stands = promise.gifts == self.gifts && (!promise.fragile || promise.ends == self.ends);
            assert!(!stands || now >= promise.until, "{delivery} goes at {now}, and was to wait until {}", promise.until);
            self.tally.kept_promises += u64::from(stands && now == promise.until);
        }
        item.state = State::Flying;
        let (class, external) = (item.class, item.class == Class::External);
        let active = self.log.spent.iter().filter(|spent| spent.account == account && spent.end.is_none()).count();
        assert!(active < self.settings.accounts[account].connections, "account {account} has no connection free");
        assert!(self.suspended.get(&account).is_none_or(|until| until.is_some_and(|until| until <= now)), "account {account} is suspended");
        for gate in [Gate::Route, Gate::Account(account)] {
            assert!(self.closed(gate, class).is_none(), "{gate:?} is closed for {class}");
        }
        self.starts += 1;
        let reserved = u32::from(recipients);
        self.log.spent.push(Spent {
            attempt,
            account,
            external,
            recipients: reserved,
            reserved,
            message: true,
            end: None,
            kept: true,
            slack: 0,
        });
        // A gate that lets one attempt ahead must see it at once, before anybody else asks.
        let fates = item_fates(&self.queue[&delivery], recipients);
        let flight = Flight { delivery, account, started: now, fates, doubt: false, pause: None, stamped: false };
        self.flights.insert(attempt, flight);
        (attempt, delivery, account, recipients)
    }

    fn put_back(&mut self, attempt: u64, delivery: DeliveryId) {
        let now = self.now();
        let due = Timestamp::from_millis(now.as_millis() + if self.dice.chance(50) { 0 } else { self.dice.below(5_000) as i64 });
        self.s.put_back(now, delivery, due);
        self.flights.remove(&attempt);
        self.log.spent.retain(|spent| spent.attempt != attempt);
        let item = self.queue.get_mut(&delivery).expect("a delivery that is queued");
        (item.state, item.queued.due) = (State::Queued, due);
        self.gifts += 1;
        self.flush();
    }

    fn begin(&mut self, attempt: u64, delivery: DeliveryId, account: usize, recipients: u16) {
        let trouble = if self.calm { 0 } else { self.shape.trouble };
        let class = self.queue[&delivery].class;
        let flight = self.flights.get_mut(&attempt).expect("handed out");
        if self.dice.chance(trouble) {
            let scope = self.dice.pick(&[Scope::Recipient, Scope::Account, Scope::Account, Scope::Tenant, Scope::Connection]);
            let length = match self.dice.below(4) {
                0 => PauseLength::BackOff,
                1 => PauseLength::Suspended,
                _ => PauseLength::For(self.settings.accounts[account].limits.minute),
            };
            let class = if self.dice.chance(50) { Some(class) } else { None };
            let pause = Pause { scope, class, length, reason: format!("trouble {attempt}"), advice: String::new() };
            flight.pause = Some(pause).filter(|pause| pause.scope != Scope::Recipient);
            flight.fates.iter_mut().for_each(|(_, fate)| *fate = Fate::Deferred);
        } else if self.dice.chance(trouble / 2) {
            // The connection is lost after the final dot; the server may have the message.
            flight.doubt = true;
            if self.dice.chance(50) {
                flight.fates.iter_mut().for_each(|(_, fate)| *fate = Fate::Deferred);
            }
        } else {
            for (_, fate) in &mut flight.fates {
                if self.dice.chance(trouble / 2) {
                    *fate = self.dice.pick(&[Fate::Failed, Fate::Deferred]);
                }
            }
        }
        debug_assert_eq!(flight.fates.len(), usize::from(recipients));
        let lasts = self.dice.length(self.shape.latency);
        let counted = self.dice.below(lasts as u64 + 1) as i64;
        self.schedule(counted, Event::Stamp(attempt));
        self.schedule(lasts, Event::End(attempt));
    }

    /// The server counts what it takes.
    fn stamp(&mut self, attempt: u64, micros: i64) {
        let Some(flight) = self.flights.get_mut(&attempt) else { return };
        if std::mem::replace(&mut flight.stamped, true) {
            return;
        }
        let class = self.queue[&flight.delivery].class;
        let taken: Vec<u32> = flight.fates.iter().filter(|(_, fate)| *fate == Fate::Sent).map(|(recipient, _)| *recipient).collect();
        if taken.is_empty() {
            return;
        }
        let (account, count) = (flight.account, taken.len() as u32);
        taken.into_iter().for_each(|recipient| self.taken[recipient as usize] += 1);
        let own = self.upstream[account].count(micros, class, count, &self.settings.accounts[account].limits);
        let shared = self.tenant.count(micros, class, count, &self.settings.tenant);
        assert_eq!(own, Ok(()), "account {account} is over its limit");
        assert_eq!(shared, Ok(()), "the tenant is over its limit");
    }

    fn end(&mut self, attempt: u64) {
        self.stamp(attempt, self.micros);
        let now = self.now();
        let Some(flight) = self.flights.remove(&attempt) else { return };
        let Flight { delivery, started, fates, doubt, pause, .. } = flight;
        let item = &self.queue[&delivery];
        let reserved = fates.len() as u32;
        let taken = fates.iter().filter(|(_, fate)| *fate == Fate::Sent).count() as u32;
        let used = if doubt {
            fates.iter().for_each(|(recipient, _)| self.doubts[*recipient as usize] += 1);
            Used { recipients: reserved, message: true }
        } else {
            Used { recipients: taken, message: taken > 0 }
        };
        let class = item.class;
        let spent = self.log.spent.iter_mut().find(|spent| spent.attempt == attempt).expect("it was begun");
        (spent.end, spent.recipients, spent.message, spent.kept) =
            (Some(now.as_millis() - self.wall), used.recipients, used.message, false);
        self.ends += 1;
        self.gifts += u64::from(used.recipients < reserved);
        let wide = pause.as_ref().is_some_and(|pause| matches!(pause.scope, Scope::Tenant | Scope::Connection));
        let changes = self.s.ended(now, &Ended { delivery, started, used, pause });
        for change in changes {
            match change {
                Change::Closed { gate, until, pause } => {
                    let known = matches!(pause.length, PauseLength::For(_));
                    assert_eq!(matches!(gate, Who::Route(_)), wide);
                    self.gates.insert((self.gate(&gate), pause.class), Closure { since: now, until, known });
                }
                Change::Opened { gate } => {
                    let gate = self.gate(&gate);
                    for of in [None, Some(class)] {
                        if self.gates.get(&(gate, of)).is_some_and(|closure| !closure.known && started > closure.since) {
                            self.gates.remove(&(gate, of));
                        }
                    }
                }
            }
            self.gifts += 1;
        }
        let fates = fates.into_iter().map(|(recipient, fate)| (recipient, if doubt { Fate::Deferred } else { fate })).collect();
        let item = self.queue.get_mut(&delivery).expect("queued");
        item.queued.attempts += 1;
        let due = if self.dice.chance(20) { now } else { Scheduler::retry_at(&self.settings, now, delivery.message, item.queued.attempts) };
        item.state = State::Ended(fates, due);
        if self.dice.chance(80) {
            self.record(delivery);
        } else {
            let ahead = self.dice.length(self.shape.latency);
            self.schedule(ahead, Event::Record(delivery));
        }
    }

    fn record(&mut self, delivery: DeliveryId) {
        self.flush();
        let now = self.now();
        let Some(item) = self.queue.get_mut(&delivery) else { return };
        let State::Ended(fates, due) = &item.state else { return };
        let (fates, due) = (fates.clone(), *due);
        item.state = State::Queued;
        item.queued.due = due;
        let settled: BTreeSet<u32> = fates.iter().filter(|(_, fate)| *fate != Fate::Deferred).map(|(recipient, _)| *recipient).collect();
        item.recipients.retain(|recipient| !settled.contains(recipient));
        let remaining = item.recipients.len() as u16;
        item.queued.recipients = remaining;
        for (recipient, fate) in fates.into_iter().filter(|(_, fate)| *fate != Fate::Deferred) {
            self.settle(recipient, fate);
        }
        if remaining == 0 {
            self.queue.remove(&delivery);
        }
        self.s.settled(now, delivery, remaining, due);
    }

    fn settle(&mut self, recipient: u32, fate: Fate) {
        let before = self.fates[recipient as usize].replace(fate);
        assert_eq!(before, None, "recipient {recipient} comes to an end twice");
    }

    fn operate(&mut self) {
        let now = self.now();
        let ids: Vec<DeliveryId> = self.queue.keys().copied().collect();
        let some = if ids.is_empty() { None } else { Some(self.dice.pick(&ids)) };
        let account = self.dice.below(self.settings.accounts.len() as u64) as usize;
        self.gifts += 1;
        match (self.dice.below(6), some) {
            (0, Some(id)) => {
                let hold = self.dice.chance(60);
                assert!(self.s.hold(now, id, hold));
                self.queue.get_mut(&id).expect("queued").queued.held = hold;
            }
            (1, Some(id)) => {
                assert!(self.s.retry_now(now, id));
                let item = self.queue.get_mut(&id).expect("queued");
                if item.state == State::Queued && !item.queued.held {
                    item.queued.due = item.queued.due.min(now);
                }
            }
            (2, Some(id)) => {
                let idle = self.queue[&id].state == State::Queued;
                assert_eq!(self.s.withdraw(id), idle);
                if idle && let Some(item) = self.queue.remove(&id) {
                    item.recipients.iter().for_each(|recipient| self.settle(*recipient, Fate::Withdrawn));
                }
            }
            (3, _) => {
                let until = if self.dice.chance(50) {
                    None
                } else {
                    Some(Timestamp::from_millis(now.as_millis() + self.dice.below(3_600_000) as i64))
                };
                self.suspend(account, Some(until));
            }
            _ => self.suspend(account, None),
        }
    }

    fn suspend(&mut self, number: usize, until: Option<Option<Timestamp>>) {
        let suspension = until.map(|until| Suspension { until, reason: "audit".into() });
        assert!(self.s.suspend(&account(number), suspension));
        match until {
            Some(until) => {
                self.suspended.insert(number, until);
            }
            None => {
                self.suspended.remove(&number);
                self.gates.retain(|(gate, _), _| *gate != Gate::Account(number));
            }
        }
    }

    /// The relay is killed, and begins again with what the disk holds: with other limits perhaps, and with another wall clock.
    fn restart(&mut self) {
        self.tally.restarts += 1;
        let mut flights: Vec<(i64, u64)> = Vec::new();
        let down = self.dice.length(self.shape.latency);
        for attempt in self.flights.keys().copied().collect::<Vec<_>>() {
            flights.push((self.micros + self.dice.below(down as u64 + 1) as i64, attempt));
        }
        flights.sort_unstable();
        for (micros, attempt) in flights {
            if self.dice.chance(50) {
                self.stamp(attempt, micros);
            }
        }
        self.flights.clear();
        self.micros += down;
        let restart = self.true_millis();
        let (step, shift) = self.step_clock();
        for spent in &mut self.log.spent {
            if spent.end.is_none() || !spent.kept {
                (spent.end, spent.recipients, spent.message, spent.kept) = (Some(restart), spent.reserved, true, true);
            }
            if step != 0 {
                spent.slack += 1;
                if shift == 0 {
                    // Nobody told of the step: what was used seems so much later, but not later than now.
                    spent.end = spent.end.map(|end| (end - step).min(restart));
                }
            }
        }
        if self.dice.chance(40) {
            self.shape.reload(&mut self.dice);
            self.settings = self.shape.settings.clone();
        }
        let now = self.now();
        self.s = Scheduler::new(self.settings.clone());
        for owner in self.owners() {
            let rows: Vec<Row> = self.rows.iter().filter(|((of, ..), _)| *of == owner).map(|(_, row)| *row).collect();
            self.s.restore(owner.as_ref(), &rows, now, shift);
        }
        self.flush();
        let latest = now + self.settings.retry_max * 2;
        for item in self.queue.values_mut() {
            if item.state != State::Queued {
                item.recipients.iter().for_each(|recipient| self.doubts[*recipient as usize] += 1);
                (item.state, item.queued.due) = (State::Queued, now);
            }
            item.promise = None;
            item.queued.due = item.queued.due.min(latest);
            self.s.add(now, item.queued.clone());
        }
        self.gates.clear();
        let suspended = self.suspended.clone();
        suspended.into_iter().for_each(|(account, until)| self.suspend(account, Some(until)));
        self.gifts += 1;
    }

    /// How far the wall is stepped, in milliseconds, and how far the relay knows that it was.
    fn step_clock(&mut self) -> (i64, i64) {
        if !self.shape.steps || self.dice.chance(50) {
            return (0, 0);
        }
        let size = self.dice.length(self.shape.span) / 1_000;
        let (step, told) = if self.dice.chance(50) { (size, true) } else { (-size, self.dice.chance(50)) };
        self.wall += step;
        self.stepped |= step != 0;
        (step, if told { step } else { 0 })
    }

    fn owners(&self) -> Vec<Option<AccountName>> {
        self.settings.accounts.iter().map(|account| Some(account.name.clone())).chain([None]).collect()
    }

    /// What changed of the budgets goes to the disk. Now and then all of it is compared.
    fn flush(&mut self) {
        for change in self.s.budget_changes() {
            match change.change {
                budget::Change::Put(row) => self.rows.insert((change.account, row.limit, row.slot), row),
                budget::Change::Remove { limit, slot } => self.rows.remove(&(change.account, limit, slot)),
            };
        }
        self.log.spent.iter_mut().for_each(|spent| spent.kept = true);
        if self.dice.chance(5) {
            let state = self.s.budget_state().into_iter().map(|change| match change.change {
                budget::Change::Put(row) => ((change.account, row.limit, row.slot), row),
                budget::Change::Remove { .. } => panic!("a state removes nothing"),
            });
            assert_eq!(self.rows, state.collect::<Rows>(), "the changes do not add up to the state");
        }
    }

    /// No more trouble, so that everything comes to its end.
    fn calm_down(&mut self) {
        self.calm = true;
        let now = self.now();
        for account in 0..self.settings.accounts.len() {
            self.suspend(account, None);
        }
        for (id, item) in &mut self.queue {
            item.queued.held = false;
            assert!(self.s.hold(now, *id, false));
        }
        self.gifts += 1;
    }

    fn gate(&self, who: &Who) -> Gate {
        match who {
            Who::Route(_) => Gate::Route,
            Who::Account(name) => {
                Gate::Account(self.settings.accounts.iter().position(|account| account.name == *name).expect("an account"))
            }
        }
    }

    /// Whether a gate is closed for a class, and when it opens by itself.
    fn closed(&self, gate: Gate, class: Class) -> Option<Bound> {
        let now = self.now();
        let mut opens = None;
        for of in [None, Some(class)] {
            let Some(closure) = self.gates.get(&(gate, of)) else { continue };
            let passes = |flight: &&Flight| {
                flight.started >= closure.until
                    && (gate == Gate::Route || gate == Gate::Account(flight.account))
                    && of.is_none_or(|of| self.queue[&flight.delivery].class == of)
            };
            if now < closure.until {
                let at = closure.until.as_millis() - self.wall;
                opens = match opens {
                    Some(Bound::Unknown) => opens,
                    Some(Bound::Between(other, _)) => Some(Bound::Between(at.max(other), at.max(other))),
                    None => Some(Bound::Between(at, at)),
                };
            } else if !closure.known && self.flights.values().any(|flight| passes(&flight)) {
                opens = Some(Bound::Unknown);
            }
        }
        opens
    }

    /// All that keeps an account from taking mail of a class and priority, and until when, connections apart.
    fn hindrances(&self, number: usize, class: Class, priority: Priority) -> Vec<(Hindrance, Bound)> {
        let now = self.true_millis();
        let mut found = Vec::new();
        if let Some(until) = self.suspended.get(&number) {
            match until.map(|until| until.as_millis() - self.wall) {
                Some(until) if until <= now => {}
                Some(until) => found.push((Hindrance::Suspension, Bound::Between(until, until))),
                None => found.push((Hindrance::Suspension, Bound::Unknown)),
            }
        }
        for gate in [Gate::Route, Gate::Account(number)] {
            found.extend(self.closed(gate, class).map(|bound| (Hindrance::Gate, bound)));
        }
        let kept = if priority == Priority::High { 0 } else { self.shape.reserve * 10 };
        let budgets: [(Option<usize>, &Limits); 2] =
            [(Some(number), &self.settings.accounts[number].limits), (None, &self.settings.tenant)];
        for (whose, limits) in budgets {
            let bounds = self.log.bounds(now, whose, limits, class, kept);
            found.extend(bounds.into_iter().map(|(limit, bound)| (Hindrance::Budget(whose, limit), bound)));
        }
        found.retain(|(_, bound)| !matches!(bound, Bound::Between(_, late) if *late <= now));
        found
    }

    /// The scheduler says that there is nothing to do. It must be so, and what it says about the time must be so.
    fn check_idle(&mut self) {
        let now = self.now();
        let deadline = self.s.deadline(now);
        assert!(deadline.is_none_or(|deadline| deadline > now), "nothing to do, and a deadline that has passed");
        let waits = |item: &&Item| item.state == State::Queued;
        let ready = |item: &&Item| waits(item) && !item.queued.held && item.queued.due <= now;
        let count = |what: &dyn Fn(&Item) -> bool| self.queue.values().filter(|item| what(item)).count();
        let counts = Counts {
            active: count(&|item| !waits(&item)),
            ready: count(&|item| ready(&item)),
            deferred: count(&|item| waits(&item) && !item.queued.held && item.queued.due > now),
            held: count(&|item| waits(&item) && item.queued.held),
        };
        assert_eq!(self.s.counts(), counts);
        if !self.stepped {
            let idle = self.queue.values().filter(|item| waits(item) && !item.queued.held);
            let late = idle.into_iter().find(|item| item.queued.accepted_at + self.settings.lifetime <= now);
            assert!(late.is_none(), "{late:?} is past its lifetime");
        }
        let mut kinds: Vec<(Class, Priority, Vec<usize>)> = Vec::new();
        for item in self.queue.values().filter(ready) {
            let kind = (item.class, item.priority, item.accounts.clone());
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
        }
        let mut stands: Vec<Standing> = Vec::new();
        for (class, priority, accounts) in &kinds {
            self.tally.idle += 1;
            let mut standing = Standing::default();
            for number in accounts {
                let active = self.log.spent.iter().filter(|spent| spent.account == *number && spent.end.is_none()).count();
                let full = active >= self.settings.accounts[*number].connections;
                let hindrances = self.hindrances(*number, *class, *priority);
                assert!(full || !hindrances.is_empty(), "{class} mail of {priority} priority waits, and account {number} could take it");
                let mut opens = Bound::Between(self.true_millis(), self.true_millis());
                for (_, bound) in &hindrances {
                    opens = match (opens, *bound) {
                        (Bound::Between(early, late), Bound::Between(earlier, later)) => {
                            Bound::Between(early.max(earlier), late.max(later))
                        }
                        _ => Bound::Unknown,
                    };
                }
                if let (Bound::Between(_, late), false) = (opens, full) {
                    let latest = Timestamp::from_millis(late + self.wall);
                    assert!(deadline.is_some_and(|deadline| deadline <= latest), "{deadline:?} is later than {latest}, when mail can go");
                }
                standing.fragile |= full || opens == Bound::Unknown;
                standing.accounts.push((*number, full, opens, hindrances));
            }
            stands.push(standing);
        }
        let some: Vec<DeliveryId> = self.queue.iter().filter(|(_, item)| ready(item)).map(|(id, _)| *id).collect();
        let alone = some.len() == 1;
        for id in some {
            let item = &self.queue[&id];
            if let Some(promise) = item.promise
                && alone
                && !promise.fragile
                && (promise.gifts, promise.ends, promise.starts) == (self.gifts, self.ends, self.starts)
            {
                assert!(now < promise.until, "{id} was to go at {}, alone, and waits at {now}: {:?}", promise.until, self.s.why(now, id));
            }
            if self.dice.chance(if alone { 100 } else { 10 }) {
                let kind = kinds.iter().position(|kind| *kind == (item.class, item.priority, item.accounts.clone())).expect("a kind");
                self.check_why(id, &stands[kind]);
            }
        }
    }

    /// What the relay says about a delivery that waits must follow from what the log says.
    fn check_why(&mut self, id: DeliveryId, standing: &Standing) {
        let now = self.now();
        let why = self.s.why(now, id).expect("it is queued");
        self.tally.waits += 1;
        let true_until = why.until.map(|until| until.as_millis() - self.wall);
        let explained = |which: &dyn Fn(&Hindrance) -> bool| {
            let all = standing.accounts.iter().flat_map(|(.., hindrances)| hindrances);
            all.filter(|(hindrance, _)| which(hindrance)).any(|(_, bound)| match (bound, true_until) {
                (Bound::Unknown, until) => until.is_none(),
                (Bound::Between(early, late), until) => until.is_some_and(|until| (*early..=*late).contains(&until)),
            })
        };
        let right = match &why.reason {
            Reason::NoAccount => standing.accounts.is_empty(),
            Reason::Connections => {
                let past = |bound: &Bound| matches!(bound, Bound::Between(early, _) if *early <= self.true_millis());
                standing.accounts.iter().any(|(_, full, _, hindrances)| *full && hindrances.iter().all(|(_, bound)| past(bound)))
            }
            Reason::Suspended(words) => words == "audit" && explained(&|hindrance| *hindrance == Hindrance::Suspension),
            Reason::Paused { reason, .. } => reason.starts_with("trouble") && explained(&|hindrance| *hindrance == Hindrance::Gate),
            Reason::Budget { account: whose, limit } => {
                let number =
                    whose.as_ref().map(|name| self.settings.accounts.iter().position(|account| account.name == *name).expect("one"));
                explained(&|hindrance| *hindrance == Hindrance::Budget(number, *limit))
            }
            Reason::UnderWay | Reason::Held | Reason::Deferred | Reason::Turn => false,
        };
        assert!(right, "{id} waits for {why:?} at {now} (wall {}), and the log says {standing:?}", self.wall);
        match true_until {
            Some(until) => {
                let known = standing.accounts.iter().filter_map(|(_, _, opens, _)| match opens {
                    Bound::Between(early, late) => Some((*early, *late)),
                    Bound::Unknown => None,
                });
                let (early, late) = known.fold((i64::MAX, i64::MAX), |best, next| (best.0.min(next.0), best.1.min(next.1)));
                assert!((early..=late).contains(&until), "{id} is to wait until {until} ({why:?}), and the log says {standing:?}");
                let promise = Promise {
                    until: why.until.expect("a time"),
                    gifts: self.gifts,
                    ends: self.ends,
                    starts: self.starts,
                    fragile: standing.fragile,
                };
                self.queue.get_mut(&id).expect("queued").promise = Some(promise);
            }
            None => assert!(standing.fragile || standing.accounts.is_empty(), "{why:?} names no time, and the log does: {standing:?}"),
        }
    }

    /// Every recipient that was added has come to one end, and the server took each at most once, but for doubt.
    fn check_conservation(&self) {
        assert_eq!(self.s.counts(), Counts::default());
        assert!(self.queue.is_empty());
        for (recipient, fate) in self.fates.iter().enumerate() {
            let (taken, doubts) = (self.taken[recipient], self.doubts[recipient]);
            let fate = fate.expect("an end");
            assert!(taken <= 1 + doubts, "recipient {recipient} was sent to {taken} times, and {doubts} were in doubt");
            assert!(fate != Fate::Sent || taken >= 1, "recipient {recipient} was never sent to");
            assert!(fate == Fate::Sent || taken <= doubts, "recipient {recipient} was sent to, and is {fate:?}");
        }
    }
}

/// What keeps an account from taking mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hindrance {
    Suspension,
    Gate,
    Budget(Option<usize>, LimitName),
}

/// Number, every connection in use, when it opens, and what keeps it.
type AccountStanding = (usize, bool, Bound, Vec<(Hindrance, Bound)>);

/// How the accounts stand that may take a delivery.
#[derive(Debug, Default)]
struct Standing {
    accounts: Vec<AccountStanding>,
    /// The end of an attempt could change it.
    fragile: bool,
}

fn item_fates(item: &Item, recipients: u16) -> Vec<(u32, Fate)> {
    item.recipients.iter().take(usize::from(recipients)).map(|recipient| (*recipient, Fate::Sent)).collect()
}

fn lasting(event: &Event) -> bool {
    matches!(event, Event::Arrive { .. } | Event::Operator | Event::Restart)
}
