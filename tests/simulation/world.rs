//! A relay in a world that a seed makes up: the real scheduler, and around it clients, accounts, a network, a disk, a clock and an operator.
//!
//! Time is virtual, in microseconds; the relay sees it through a wall clock that a restart may step. Everything that is asserted is computed
//! here or by the observers, from what happened alone.

mod attempts;
mod health;
mod judge;
mod operations;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Range;
use std::time::Duration;

use hve_relay::budget::{LimitName, Limits, Row};
use hve_relay::clock::Timestamp;
use hve_relay::mail::{AccountName, Class, DeliveryId, Priority, QueueId, Queued, RouteName};
use hve_relay::reply::{Pause, Step};
use hve_relay::schedule::{HealthRow, Scheduler, Settings, Suspicions};

use super::dice::Dice;
use super::observer::{Log, Upstream};
use super::shape::Shape;
use health::Login;

/// What a run looked at, so that a simulation that looks at nothing is noticed.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    pub deliveries: u64,
    pub attempts: u64,
    pub restarts: u64,
    pub reloads: u64,
    /// Moments at which nothing could go, proven.
    pub idle: u64,
    /// Waits whose reason and time were compared with the log.
    pub waits: u64,
    /// Waits that named a time at which, as then seen, it went.
    pub kept_promises: u64,
    /// Logins without mail.
    pub logins: u64,
    /// Changes of the connections that an account uses.
    pub widths: u64,
    /// Messages that failed, and accounts that were suspended, for a refusal that nobody knows.
    pub blamed: [u64; 2],
    /// Attempts that went elsewhere than the one before.
    pub elsewhere: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.deliveries += other.deliveries;
        self.attempts += other.attempts;
        self.restarts += other.restarts;
        self.reloads += other.reloads;
        self.idle += other.idle;
        self.waits += other.waits;
        self.kept_promises += other.kept_promises;
        self.logins += other.logins;
        self.widths += other.widths;
        self.elsewhere += other.elsewhere;
        (0..2).for_each(|i| self.blamed[i] += other.blamed[i]);
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
    /// The relay learns of the end of an account's login without mail.
    Probed(usize, u64),
    /// The end of an attempt is on the disk.
    Record(DeliveryId),
    Operator,
    Restart,
    Reload,
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
    /// The account of its last attempt, and the one that it is better off without.
    last: Option<usize>,
    avoid: Option<usize>,
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
    /// The server refuses it in words that nobody knows.
    refused: bool,
    stamped: bool,
    /// The loosest limits of its account and of the tenant since it began: it may be counted by any of them.
    limits: [Limits; 2],
}

#[derive(Debug, Clone)]
struct Closure {
    since: Timestamp,
    until: Timestamp,
    /// It opens by itself; else one attempt goes ahead.
    known: bool,
    /// So long, if that is known.
    length: Option<Duration>,
    /// A login goes ahead, so often.
    suspended: bool,
    interval: Duration,
    /// That has passed, and a message may follow.
    passed: bool,
    /// Where its trouble was met.
    step: Step,
    /// The account whose login is under way.
    ahead: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Gate {
    Route,
    App,
    Tenant,
    Account(usize),
}

type Gates = BTreeMap<(Gate, Option<Class>), Closure>;

type Rows = BTreeMap<(Option<AccountName>, LimitName, u32), Row>;

pub struct World {
    dice: Dice,
    shape: Shape,
    /// Of all accounts that there ever are.
    settings: Settings,
    /// Those that are configured now.
    present: BTreeSet<usize>,
    /// Those that were not there when the relay began last: of them it knows the days, and not the minutes.
    strange: BTreeSet<usize>,
    /// When those came back, in milliseconds.
    blind: BTreeMap<usize, i64>,
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
    gates: Gates,
    logins: BTreeMap<usize, Login>,
    /// The connections that accounts use, where they have learned it.
    widths: BTreeMap<usize, usize>,
    /// What the disk holds of it, and how the world stood then.
    health: Vec<HealthRow>,
    kept: (Gates, BTreeMap<usize, usize>),
    suspended: BTreeMap<usize, Option<Timestamp>>,
    suspicions: Suspicions,
    /// Messages that the server refuses whatever it is.
    odd: BTreeSet<DeliveryId>,
    /// The different messages that each account has refused since it took one, or was suspended for them.
    rows_refused: BTreeMap<usize, BTreeSet<DeliveryId>>,
    /// When the illness begins and ends, in true microseconds.
    ill: Range<i64>,
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
            present: (0..accounts).collect(),
            strange: BTreeSet::new(),
            blind: BTreeMap::new(),
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
            logins: BTreeMap::new(),
            widths: BTreeMap::new(),
            health: Vec::new(),
            kept: Default::default(),
            suspended: BTreeMap::new(),
            suspicions: Suspicions::default(),
            odd: BTreeSet::new(),
            rows_refused: BTreeMap::new(),
            ill: 0..0,
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
        if let Some((_, after, long)) = world.shape.illness {
            let begins = world.micros + after.as_micros() as i64;
            world.ill = begins..begins + long.as_micros() as i64;
        }
        for client in 0..world.shape.clients.len() {
            let (at, left) = (world.dice.length(world.shape.span), world.shape.clients[client].messages);
            world.schedule(at, Event::Arrive { client, left });
        }
        for _ in 0..world.shape.operations {
            let at = world.dice.below(world.shape.span.as_micros() as u64) as i64;
            world.schedule(at, Event::Operator);
        }
        for _ in 0..world.shape.reloads {
            let at = world.dice.below(world.shape.span.as_micros() as u64) as i64;
            world.schedule(at, Event::Reload);
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
            // Where nothing is left but what an operator holds or suspends, he lets it go on.
            let Some(at) = [deadline, next].into_iter().flatten().min().or((!self.calm).then_some(end_of_trouble)) else { break };
            self.micros = self.micros.max(at);
            let mut eventless = true;
            if next == Some(at)
                && let Some(Reverse((_, _, event))) = self.events.pop()
            {
                eventless = event == Event::Look;
                self.happen(event);
            }
            if !self.calm && self.micros >= end_of_trouble && !self.events.iter().any(|Reverse((.., event))| lasting(event)) {
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
            Event::Probed(account, number) => self.end_login(account, number),
            Event::Record(delivery) => self.record(delivery),
            Event::Operator => self.operate(),
            Event::Restart => self.restart(),
            Event::Reload => self.reload(),
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
        let accounts = self.permitted(&queued);
        self.tally.deliveries += 1;
        self.s.add(now, queued.clone());
        if self.dice.chance(self.shape.odd) {
            self.odd.insert(queued.id);
        }
        let recipients = (first..first + count).collect();
        self.queue.insert(
            queued.id,
            Item { class, priority, queued, accounts, recipients, state: State::Queued, last: None, avoid: None, promise: None },
        );
        if left > 1 {
            let gap = self.shape.clients[client].gap;
            let ahead = self.dice.length(gap);
            self.schedule(ahead, Event::Arrive { client, left: left - 1 });
        }
    }

    /// The accounts that may take a delivery now.
    fn permitted(&self, queued: &Queued) -> Vec<usize> {
        let client = self.settings.clients.iter().find(|client| client.name == queued.client).expect("a client");
        let permitted = |i: &&usize| client.accounts.as_ref().is_none_or(|names| names.contains(&account(**i)));
        let accounts: Vec<usize> = self.present.iter().filter(permitted).copied().collect();
        let author = queued.author.as_ref();
        let own = author.and_then(|author| accounts.iter().copied().find(|i| author.as_str().eq_ignore_ascii_case(account(*i).as_str())));
        own.map_or(accounts, |own| vec![own])
    }

    /// What the relay is configured to.
    fn configured(&self) -> Settings {
        let accounts = self.present.iter().map(|i| self.settings.accounts[*i].clone()).collect();
        Settings { accounts, ..self.settings.clone() }
    }

    fn queue_number(&mut self) -> i64 {
        self.numbers += 1;
        self.numbers as i64
    }
}

fn lasting(event: &Event) -> bool {
    matches!(event, Event::Arrive { .. } | Event::Operator | Event::Restart | Event::Reload)
}
