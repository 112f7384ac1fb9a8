//! Tenants whose accounts all fail alike for a while, as when somebody turns on Security Defaults: one alarm and not twenty, one login each time and
//! not twenty, and all of them well again soon after it is over, whatever restarts and operators do meanwhile.
//!
//! The observer knows of each account only whether the last that was heard of it was a refusal. The relay must have told of the tenant exactly while
//! that is so for all of them, and then of no account alone; and never of one that is well.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::Range;
use std::time::Duration;

use hve_relay::budget::{Limits, Used};
use hve_relay::clock::Timestamp;
use hve_relay::mail::{Class, ClientName, DeliveryId, Priority, QueueId, Queued, RouteName};
use hve_relay::reply::{Pause, PauseLength, Scope, Step};
use hve_relay::schedule::{AccountSettings, Change, Decision, Ended, Probed, Scheduler, Settings, Who};

use super::dice::Dice;
use super::world::account;

/// How long an attempt or login lasts at most, in milliseconds: far less than the shortest time between two logins.
const LATENCY: u64 = 2_000;
const DAY: i64 = 86_400_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrive(i64),
    Attempt(DeliveryId, usize, i64, bool),
    Login(usize, i64, bool),
    Restart,
    Resume(usize),
}

struct Tenant {
    dice: Dice,
    settings: Settings,
    s: Scheduler,
    now: i64,
    outage: Range<i64>,
    events: BinaryHeap<Reverse<(i64, Event)>>,
    queue: BTreeMap<DeliveryId, Queued>,
    /// When the refusal was heard that was the last word of an account.
    refused: BTreeMap<usize, i64>,
    /// When an operator had it tried last: what had begun before says nothing.
    resumed: BTreeMap<usize, i64>,
    /// Those of which nothing was heard since, while the tenant is told of.
    unproven: BTreeSet<usize>,
    told: BTreeSet<usize>,
    tenant_told: bool,
    /// The last login while the tenant was told of.
    last_login: Option<i64>,
    /// How often the tenant was told of, and how many logins there were meanwhile.
    seen: [u64; 2],
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_795_285_881_000 + millis)
}

fn refusal() -> Pause {
    let (kind, reason, advice) = ("basic-auth-blocked".into(), "AUTH: 535 5.7.139 no".to_owned(), "Act.".to_owned());
    let (scope, length, step) = (Scope::Account, PauseLength::Suspended, Step::Auth);
    Pause { scope, class: None, length, every: None, limit: None, step, kind, reason, advice }
}

impl Tenant {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let accounts = 2 + dice.below(19) as usize;
        let account =
            |i| AccountSettings { name: account(i), route: RouteName::new("hve"), app: None, connections: 1 + i % 3, limits: Limits::NONE };
        let settings = Settings {
            accounts: (0..accounts).map(account).collect(),
            probe: Duration::from_secs(60 + dice.below(1_800)),
            ..Settings::default()
        };
        let from = dice.below(3_600_000) as i64;
        let outage = from..from + dice.below(8 * 3_600_000) as i64;
        let mut events = BinaryHeap::new();
        for number in 1..=(20 * accounts as i64) {
            events.push(Reverse((dice.below(4 * 3_600_000) as i64, Event::Arrive(number))));
        }
        // What is cut off just after the end would come again only when its time has come.
        for _ in 0..dice.below(4) {
            events.push(Reverse((dice.below(outage.end as u64 + 1) as i64, Event::Restart)));
        }
        for _ in 0..dice.below(6) {
            let number = dice.below(accounts as u64) as usize;
            events.push(Reverse((dice.below(outage.end as u64 + 1) as i64, Event::Resume(number))));
        }
        Self {
            dice,
            s: Scheduler::new(settings.clone()),
            settings,
            now: 0,
            outage,
            events,
            queue: BTreeMap::new(),
            refused: BTreeMap::new(),
            resumed: BTreeMap::new(),
            unproven: BTreeSet::new(),
            told: BTreeSet::new(),
            tenant_told: false,
            last_login: None,
            seen: [0, 0],
        }
    }

    fn run(mut self) -> [u64; 2] {
        let interval = self.settings.probe.as_millis() as i64;
        let well_by = self.outage.end + interval + 4 * LATENCY as i64;
        let mut checked = false;
        loop {
            self.go();
            let deadline = self.s.deadline(at(self.now)).map(|deadline| deadline.as_millis() - at(0).as_millis());
            let next = self.events.peek().map(|Reverse((time, _))| *time);
            let Some(time) = deadline.into_iter().chain(next).min() else { break };
            if !checked && time > well_by {
                checked = true;
                assert_eq!((self.s.troubles(at(well_by)), self.told.len()), (vec![], 0), "it was over at {}", self.outage.end);
                assert!(self.refused.is_empty() && !self.tenant_told);
            }
            assert!(time < 3 * DAY, "it does not come to an end");
            self.now = self.now.max(time);
            if next == Some(time)
                && let Some(Reverse((_, event))) = self.events.pop()
            {
                self.happen(event);
            }
        }
        assert!(self.queue.is_empty(), "everything is sent");
        self.seen
    }

    /// Carries out what the scheduler decides.
    fn go(&mut self) {
        while let Some(decision) = self.s.next(at(self.now)) {
            let lasts = 1 + self.dice.below(LATENCY) as i64;
            let refused = self.outage.contains(&(self.now + self.dice.below(lasts as u64 + 1) as i64));
            let number = |name| self.settings.accounts.iter().position(|account| account.name == name).expect("an account");
            match decision {
                Decision::Attempt { delivery, account, .. } => {
                    self.events.push(Reverse((self.now + lasts, Event::Attempt(delivery, number(account), self.now, refused))));
                }
                Decision::Probe { account } => {
                    self.events.push(Reverse((self.now + lasts, Event::Login(number(account), self.now, refused))));
                    if self.tenant_told {
                        let interval = self.settings.probe.as_millis() as i64;
                        let soon = self.last_login.replace(self.now).filter(|last| self.now - last < interval);
                        assert_eq!(soon, None, "a login at {} for all, and another already", self.now);
                        self.seen[1] += 1;
                    }
                }
                Decision::Expire { .. } => panic!("nothing is so old"),
            }
        }
    }

    fn happen(&mut self, event: Event) {
        let now = at(self.now);
        match event {
            Event::Arrive(number) => {
                let id = DeliveryId { message: QueueId::from_number(number).expect("positive"), part: 1 };
                let (client, route) = (ClientName::new("devices"), RouteName::new("hve"));
                let (priority, class, author) = (Priority::Normal, Class::Internal, None);
                let (held, recipients, size, attempts, in_doubt) = (false, 1, 1_000, 0, None);
                let (accepted_at, due) = (now, now);
                let queued =
                    Queued { id, client, priority, author, held, route, class, recipients, size, accepted_at, due, attempts, in_doubt };
                self.queue.insert(id, queued.clone());
                self.s.add(now, queued);
            }
            Event::Attempt(delivery, number, started, refused) => {
                let used = if refused { Used::NOTHING } else { Used { recipients: 1, message: true } };
                let pause = refused.then(refusal);
                let changes = self.s.ended(now, &Ended { delivery, started: at(started), used, pause });
                self.s.settled(now, delivery, u16::from(refused), now);
                if !refused {
                    self.queue.remove(&delivery);
                }
                self.hear(number, started, refused, changes);
            }
            Event::Login(number, started, refused) => {
                let pause = refused.then(refusal);
                let changes = self.s.probed(now, &Probed { account: account(number), started: at(started), pause });
                self.hear(number, started, refused, changes);
            }
            Event::Restart => {
                let health = self.s.health_state();
                self.s = Scheduler::new(self.settings.clone());
                self.queue.values().for_each(|queued| self.s.add(now, queued.clone()));
                self.s.restore_health(now, health);
                // Whatever was under way is cut off.
                self.events.retain(|Reverse((_, event))| !matches!(event, Event::Attempt(..) | Event::Login(..)));
                // That an operator has had somebody tried is not remembered: he is well until he is not.
                let unproven = std::mem::take(&mut self.unproven);
                self.refused.retain(|number, _| !unproven.contains(number));
                self.tenant_told &= unproven.is_empty();
                self.check();
            }
            Event::Resume(number) => {
                assert!(self.s.suspend(now, &account(number), None));
                let changes = self.s.news();
                self.resumed.insert(number, self.now);
                if self.tenant_told {
                    // Nothing has shown yet that it is over.
                    self.unproven.insert(number);
                } else {
                    self.refused.remove(&number);
                }
                self.listen(changes);
            }
        }
    }

    fn hear(&mut self, number: usize, started: i64, refused: bool, changes: Vec<Change>) {
        let heard = self.resumed.get(&number).is_none_or(|resumed| started >= *resumed);
        let news = self.unproven.contains(&number) || self.refused.get(&number).is_none_or(|before| started > *before);
        if heard && news {
            match refused {
                true => drop(self.refused.insert(number, self.now)),
                false => drop(self.refused.remove(&number)),
            }
            self.unproven.remove(&number);
        }
        if self.refused.len() < self.settings.accounts.len() {
            self.unproven.clear();
        }
        self.listen(changes);
    }

    fn listen(&mut self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Closed { gate: Who::Tenant, pause, .. } => {
                    assert!(!std::mem::replace(&mut self.tenant_told, true), "it was told");
                    assert_eq!(pause.reason, format!("all {} accounts: AUTH: 535 5.7.139 no", self.settings.accounts.len()));
                    self.told.clear();
                    self.last_login = None;
                    self.seen[0] += 1;
                }
                Change::Opened { gate: Who::Tenant } => assert!(std::mem::replace(&mut self.tenant_told, false), "nobody was told"),
                Change::Closed { gate: Who::Account(name), .. } => {
                    self.told.extend((0..self.settings.accounts.len()).find(|number| account(*number) == name));
                }
                Change::Opened { gate: Who::Account(name) } => self.told.retain(|number| account(*number) != name),
                change => panic!("{change:?}"),
            }
        }
        self.check();
    }

    fn check(&self) {
        let all = self.refused.len() == self.settings.accounts.len();
        assert_eq!(self.tenant_told, all, "at {}: {:?} of {}", self.now, self.refused, self.settings.accounts.len());
        assert!(!all || self.told.is_empty(), "{:?} are told of besides the tenant", self.told);
        let refused: BTreeSet<usize> = self.refused.keys().copied().collect();
        assert!(self.told.is_subset(&refused), "{:?} are told of, and {refused:?} refused", self.told);
    }
}

#[test]
fn accounts_that_all_fail_alike_are_one_alarm_and_one_login_each_time() {
    let mut seen = [0, 0];
    for seed in 0..400 {
        let of_seed = std::panic::catch_unwind(|| Tenant::new(seed).run()).unwrap_or_else(|cause| {
            eprintln!("\nthe tenant of seed {seed} broke a law\n");
            std::panic::resume_unwind(cause)
        });
        (0..2).for_each(|i| seen[i] += of_seed[i]);
    }
    println!("{seen:?}");
    assert!(seen[0] > 100 && seen[1] > 500, "{seen:?}");
}
