//! What happens to the relay from outside: an operator, kills and restarts, a wall clock that is stepped, and what is on the disk.

use hve_relay::budget::{self, Limits, Row};
use hve_relay::clock::Timestamp;
use hve_relay::mail::{AccountName, DeliveryId};
use hve_relay::schedule::{Change, Closed, HealthRow, Learned, Scheduler, Suspension, Suspicions, Who};

use super::{Fate, Gate, Rows, State, World, account};

impl World {
    pub(super) fn operate(&mut self) {
        let now = self.now();
        let ids: Vec<DeliveryId> = self.queue.keys().copied().collect();
        let some = if ids.is_empty() { None } else { Some(self.dice.pick(&ids)) };
        let present: Vec<usize> = self.present.iter().copied().collect();
        let account = self.dice.pick(&present);
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

    pub(super) fn suspend(&mut self, number: usize, until: Option<Option<Timestamp>>) {
        let suspension = until.map(|until| Suspension { until, reason: "audit".into() });
        assert!(self.s.suspend(self.now(), &account(number), suspension));
        // What an operator opens is told.
        let closed = self.gates.keys().any(|(gate, _)| *gate == Gate::Account(number));
        for change in self.s.news() {
            let told = matches!(&change, Change::Opened { gate: Who::Account(name) } if *name == account(number));
            assert!(told && closed && until.is_none(), "{change:?}");
        }
        match until {
            Some(until) => {
                self.suspended.insert(number, until);
            }
            None => {
                self.suspended.remove(&number);
                self.widths.remove(&number);
                self.gates.retain(|(gate, _), _| *gate != Gate::Account(number));
                // What stands before others too may be tried at once.
                let shared = self.gates_of(number);
                for (_, closure) in self.gates.iter_mut().filter(|((gate, _), closure)| shared.contains(gate) && !closure.known) {
                    closure.until = closure.until.min(closure.since);
                }
            }
        }
    }

    /// The relay is killed, and begins again with what the disk holds: with other limits perhaps, and with another wall clock.
    pub(super) fn restart(&mut self) {
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
        let all = self.settings.accounts.len();
        self.strange = (0..all).filter(|number| !self.present.contains(number)).collect();
        self.blind.values_mut().for_each(|since| *since = restart);
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
        self.s = Scheduler::new(self.configured());
        // Of an application that nobody configured uses nothing is known any more.
        if self.present.iter().all(|number| self.settings.accounts[*number].app.is_none()) {
            self.gates.retain(|(gate, _), _| *gate != Gate::App);
        }
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
            (item.promise, item.avoid) = (None, None);
            item.queued.due = item.queued.due.min(latest);
            self.s.add(now, item.queued.clone());
        }
        self.s.restore_health(now, shifted(&self.health, shift));
        self.logins.clear();
        self.suspicions = Suspicions::default();
        self.rows_refused.clear();
        (self.gates, self.widths) = self.kept.clone();
        let longest = self.settings.pause_max;
        for closure in self.gates.values_mut() {
            closure.ahead = None;
            let move_by = |at: Timestamp| Timestamp::from_millis(at.as_millis() + shift);
            (closure.since, closure.until) = (move_by(closure.since), move_by(closure.until));
            // What lies further ahead than it ever could comes from a clock that was ahead.
            closure.until = closure.until.min(now + closure.length.unwrap_or(if closure.suspended { closure.interval } else { longest }));
        }
        let suspended = self.suspended.clone();
        // The store knows them by name, whether they are there or not.
        suspended.into_iter().for_each(|(account, until)| self.suspend(account, Some(until)));
        self.gifts += 1;
    }

    /// Another configuration while everything goes on: other limits, accounts that go or come back, clients that may use others.
    pub(super) fn reload(&mut self) {
        self.tally.reloads += 1;
        let now = self.now();
        self.shape.reload(&mut self.dice);
        self.settings = self.shape.settings.clone();
        let all = self.settings.accounts.len();
        for number in 0..all {
            if self.dice.chance(30) && !(self.present.len() == 1 && self.present.contains(&number)) {
                self.toggle(number);
            }
        }
        for i in 0..self.settings.clients.len() {
            if self.dice.chance(20) {
                let accounts = self.dice.chance(50).then(|| (0..all).filter(|_| self.dice.chance(60)).map(account).collect());
                self.settings.clients[i].accounts = accounts;
            }
        }
        self.shape.settings = self.settings.clone();
        self.apply(now);
    }

    /// An account goes, or comes back.
    fn toggle(&mut self, number: usize) {
        if !self.present.remove(&number) {
            self.present.insert(number);
            if self.strange.remove(&number) {
                self.blind.insert(number, self.true_millis());
            }
            // What stood in its way before is tried anew.
            self.gates.retain(|(gate, _), _| *gate != Gate::Account(number));
            self.widths.remove(&number);
        }
    }

    fn apply(&mut self, now: Timestamp) {
        self.s.change(now, self.configured());
        for flight in self.flights.values_mut() {
            let [own, shared] = &mut flight.limits;
            *own = looser(own, &self.settings.accounts[flight.account].limits);
            *shared = looser(shared, &self.settings.tenant);
        }
        let permitted: Vec<(DeliveryId, Vec<usize>)> = self.queue.iter().map(|(id, item)| (*id, self.permitted(&item.queued))).collect();
        for (id, accounts) in permitted {
            let item = self.queue.get_mut(&id).expect("queued");
            (item.accounts, item.promise, item.avoid) = (accounts, None, None);
        }
        self.gifts += 1;
        self.flush();
    }

    /// How far the wall is stepped, in milliseconds, and how far the relay knows that it was.
    pub(super) fn step_clock(&mut self) -> (i64, i64) {
        if !self.shape.steps || self.dice.chance(50) {
            return (0, 0);
        }
        let size = self.dice.length(self.shape.span) / 1_000;
        let (step, told) = if self.dice.chance(50) { (size, true) } else { (-size, self.dice.chance(50)) };
        self.wall += step;
        self.stepped |= step != 0;
        (step, if told { step } else { 0 })
    }

    pub(super) fn owners(&self) -> Vec<Option<AccountName>> {
        self.settings.accounts.iter().map(|account| Some(account.name.clone())).chain([None]).collect()
    }

    /// What changed of the budgets goes to the disk. Now and then all of it is compared.
    pub(super) fn flush(&mut self) {
        for change in self.s.budget_changes() {
            match change.change {
                budget::Change::Put(row) => self.rows.insert((change.account, row.limit, row.slot), row),
                budget::Change::Remove { limit, slot } => self.rows.remove(&(change.account, limit, slot)),
            };
        }
        if let Some(health) = self.s.health_changes() {
            self.health = health;
        }
        self.kept = (self.gates.clone(), self.widths.clone());
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
    pub(super) fn calm_down(&mut self) {
        self.calm = true;
        self.ill = 0..0;
        let now = self.now();
        for account in 0..self.settings.accounts.len() {
            if !self.present.contains(&account) {
                self.toggle(account);
            }
        }
        self.settings.clients.iter_mut().for_each(|client| client.accounts = None);
        self.shape.settings = self.settings.clone();
        self.apply(now);
        for account in 0..self.settings.accounts.len() {
            self.suspend(account, None);
        }
        for (id, item) in &mut self.queue {
            item.queued.held = false;
            assert!(self.s.hold(now, *id, false));
        }
        self.gifts += 1;
    }
}

/// What one of two may let through.
fn looser(one: &Limits, other: &Limits) -> Limits {
    let most = |one: Option<u32>, other: Option<u32>| one.zip(other).map(|(one, other)| one.max(other));
    Limits {
        recipients_per_day: most(one.recipients_per_day, other.recipients_per_day),
        external_recipients_per_day: most(one.external_recipients_per_day, other.external_recipients_per_day),
        external_per_minute: one.external_per_minute.zip(other.external_per_minute).map(|((one, unit), (other, _))| (one.max(other), unit)),
        messages_per_minute: most(one.messages_per_minute, other.messages_per_minute),
        ..other.clone()
    }
}

/// With their times on a clock that is ahead by so much.
fn shifted(rows: &[HealthRow], shift: i64) -> Vec<HealthRow> {
    let moved = |at: Timestamp| Timestamp::from_millis(at.as_millis() + shift);
    let row = |row: &HealthRow| match row.clone() {
        HealthRow::Gate { who, class, closed } => {
            let (since, met, until) = (moved(closed.since), moved(closed.met), moved(closed.until));
            HealthRow::Gate { who, class, closed: Closed { since, met, until, ..closed } }
        }
        HealthRow::Width { account, learned } => {
            let (since, met, grows_at) = (moved(learned.since), moved(learned.met), moved(learned.grows_at));
            HealthRow::Width { account, learned: Learned { since, met, grows_at, ..learned } }
        }
    };
    rows.iter().map(row).collect()
}
