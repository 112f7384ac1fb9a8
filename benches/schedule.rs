//! What a decision of the scheduler costs: one attempt handed out, ended and settled, the changes of its budgets taken for the store, the time
//! asked for at which the next may go, and another delivery added in its place.
//!
//! `cargo bench --bench schedule`. With 1,000, 100,000 and 1,000,000 queued deliveries, on 1 and 20 accounts, of 1 and 500 clients; with and
//! without the limits of `hve-preview`. First it prints the memory that a million queued deliveries take.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group};
use hve_relay::budget::{Limits, Unit, Used};
use hve_relay::clock::Timestamp;
use hve_relay::mail::{AccountName, Class, ClientName, DeliveryId, Priority, QueueId, Queued, RouteName};
use hve_relay::schedule::{AccountSettings, ClientSettings, Decision, Ended, Scheduler, Settings};

const START: Timestamp = Timestamp::from_millis(1_795_285_881_000);

/// A scheduler with a queue, and the numbers to go on with.
struct Relay {
    scheduler: Scheduler,
    clients: Vec<ClientName>,
    route: RouteName,
    added: i64,
    now: Timestamp,
}

impl Relay {
    fn new(queued: i64, accounts: usize, clients: usize, limits: &Limits) -> Self {
        let route = RouteName::new("hve");
        let account = |i| AccountSettings {
            name: AccountName::new(format!("hve{i}@contoso.com")),
            route: route.clone(),
            app: None,
            connections: 4,
            limits: limits.clone(),
        };
        let clients: Vec<ClientName> = (0..clients).map(|i| ClientName::new(format!("client{i}"))).collect();
        let settings = Settings {
            accounts: (0..accounts).map(account).collect(),
            clients: clients.iter().map(|name| ClientSettings::new(name.clone())).collect(),
            ..Settings::default()
        };
        let mut relay = Self { scheduler: Scheduler::new(settings), clients, route, added: 0, now: START };
        (0..queued).for_each(|_| relay.add());
        relay
    }

    fn add(&mut self) {
        self.added += 1;
        let queued = Queued {
            id: DeliveryId { message: QueueId::from_number(self.added).expect("positive"), part: 1 },
            client: self.clients[self.added as usize % self.clients.len()].clone(),
            priority: Priority::ALL[self.added as usize % 3],
            author: None,
            held: false,
            route: self.route.clone(),
            class: if self.added % 4 == 0 { Class::External } else { Class::Internal },
            recipients: 1,
            size: 10_000,
            accepted_at: self.now,
            due: self.now,
            attempts: 0,
            in_doubt: None,
        };
        self.scheduler.add(self.now, queued);
    }

    /// One attempt from its decision to its end, after as much time as it takes until one may go.
    fn send_one(&mut self) {
        let attempt = loop {
            match self.scheduler.next(self.now) {
                Some(Decision::Attempt { delivery, recipients, .. }) => break (delivery, recipients),
                Some(Decision::Expire { .. }) => self.add(),
                Some(Decision::Probe { .. }) => unreachable!("nobody is suspended"),
                None => self.now = self.scheduler.deadline(self.now).expect("a moment at which one may go"),
            }
        };
        let (delivery, recipients) = attempt;
        let used = Used { recipients: u32::from(recipients), message: true };
        black_box(self.scheduler.ended(self.now, &Ended { delivery, started: self.now, used, pause: None }));
        self.scheduler.settled(self.now, delivery, 0, self.now);
        black_box(self.scheduler.budget_changes());
        black_box(self.scheduler.deadline(self.now));
        self.now = self.now + Duration::from_millis(1);
        self.add();
    }
}

fn preview() -> Limits {
    Limits {
        recipients_per_day: Some(100_000),
        external_recipients_per_day: Some(2_000),
        external_per_minute: Some((10, Unit::Messages)),
        ..Limits::NONE
    }
}

fn decisions(criterion: &mut Criterion) {
    for (name, limits) in [("no limits", Limits::NONE), ("hve-preview", preview())] {
        let mut group = criterion.benchmark_group(name);
        for queued in [1_000, 100_000, 1_000_000] {
            for accounts in [1, 20] {
                for clients in [1, 500] {
                    let mut relay = Relay::new(queued, accounts, clients, &limits);
                    // The accounts begin idle; what is measured is a day under way.
                    (0..5_000).for_each(|_| relay.send_one());
                    let id = BenchmarkId::from_parameter(format!("{queued} queued, {accounts} accounts, {clients} clients"));
                    group.bench_function(id, |bencher| bencher.iter(|| relay.send_one()));
                }
            }
        }
        group.finish();
    }
}

/// Prints what a queue takes, from what Linux says about this process.
fn memory() {
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default()
    };
    let before = resident();
    let relay = Relay::new(1_000_000, 20, 500, &preview());
    let after = resident();
    println!("1,000,000 queued deliveries: {} MB resident ({} MB in all)\n", (after - before) / 1_000, after / 1_000);
    drop(black_box(relay));
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1)).sample_size(20);
    targets = decisions
}

fn main() {
    memory();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
