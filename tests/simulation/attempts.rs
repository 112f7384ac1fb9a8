//! What becomes of a decision: the attempt begins, the server counts at some moment, the relay learns of the end, and the disk later still.

use std::collections::BTreeSet;
use std::time::Duration;

use hve_relay::budget::Used;
use hve_relay::clock::Timestamp;
use hve_relay::mail::{Class, DeliveryId};
use hve_relay::reply::{Pause, PauseLength, Scope, Step};
use hve_relay::schedule::{Blame, Chance, Decision, Ended, Scheduler};

use super::super::dice::Dice;
use super::super::observer::Spent;
use super::health::Said;
use super::{Event, Fate, Flight, State, World};

impl World {
    /// Carries out what the scheduler decides until it has nothing more to say, and then looks whether it is right.
    pub(super) fn drain(&mut self, must_be_idle: bool) {
        let now = self.now();
        loop {
            let mut handed_out = Vec::new();
            while let Some(decision) = self.s.next(now) {
                self.hear_news();
                assert!(!must_be_idle, "{now}: {decision:?} comes before the deadline, and nothing has happened");
                match decision {
                    Decision::Attempt { delivery, account, recipients, chance } => {
                        let account = self.settings.accounts.iter().position(|settings| settings.name == account).expect("an account");
                        assert!(self.present.contains(&account), "account {account} is not there any more");
                        self.check_elsewhere(delivery, account, chance);
                        handed_out.push(self.check_start(delivery, account, recipients));
                    }
                    Decision::Probe { account } => {
                        let account = self.settings.accounts.iter().position(|settings| settings.name == account).expect("an account");
                        self.begin_login(account);
                    }
                    Decision::Expire { delivery } => {
                        let item = self.queue.remove(&delivery).expect("a delivery that is queued");
                        assert!(item.state == State::Queued && !item.queued.held, "{delivery} expires while it is held, or under way");
                        assert!(now >= item.queued.accepted_at + self.settings.lifetime, "{delivery} expires early");
                        item.recipients.iter().for_each(|recipient| self.settle(*recipient, Fate::Expired));
                    }
                }
            }
            self.hear_news();
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
        let active = self.active(account);
        let allowed = self.allowed(account);
        assert!(active < allowed, "account {account} has no connection free: {active} of {allowed}");
        assert!(self.suspended.get(&account).is_none_or(|until| until.is_some_and(|until| until <= now)), "account {account} is suspended");
        for gate in self.gates_of(account) {
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
        let fates =
            self.queue[&delivery].recipients.iter().take(usize::from(recipients)).map(|recipient| (*recipient, Fate::Sent)).collect();
        let limits = [self.settings.accounts[account].limits.clone(), self.settings.tenant.clone()];
        let flight = Flight { delivery, account, started: now, fates, doubt: false, pause: None, refused: false, stamped: false, limits };
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
        let active = self.flights.values().filter(|flight| flight.account == account).count();
        let too_many = !self.calm && active > self.shape.server_connections[account];
        let flight = self.flights.get_mut(&attempt).expect("handed out");
        if too_many || self.dice.chance(trouble) {
            let pause = if too_many {
                let (scope, length) = (Scope::Account, PauseLength::FewerConnections);
                let reason = format!("trouble {attempt}");
                let (kind, step, advice) = ("too-many".into(), Step::Mail, String::new());
                Pause { scope, class: None, length, every: None, limit: None, step, kind, reason, advice }
            } else {
                let class = if self.dice.chance(50) { Some(class) } else { None };
                let length = self.settings.accounts[account].limits.minute;
                trouble_of(&mut self.dice, account, attempt, class, length)
            };
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
        let whose = self.shape.illness.and_then(|(whose, ..)| whose);
        let ill = self.ill.contains(&(self.micros + counted)) && whose.is_none_or(|whose| whose == account);
        if flight.pause.is_none() && !flight.doubt && (ill || !self.calm && self.odd.contains(&delivery)) {
            flight.refused = true;
            flight.fates.iter_mut().for_each(|(_, fate)| *fate = Fate::Deferred);
        }
        self.schedule(counted, Event::Stamp(attempt));
        self.schedule(lasts, Event::End(attempt));
    }

    /// The server counts what it takes.
    pub(super) fn stamp(&mut self, attempt: u64, micros: i64) {
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
        let [of_account, of_tenant] = flight.limits.clone();
        let own = self.upstream[account].count(micros, class, count, &of_account);
        let shared = self.tenant.count(micros, class, count, &of_tenant);
        assert_eq!(own, Ok(()), "account {account} is over its limit");
        assert_eq!(shared, Ok(()), "the tenant is over its limit");
    }

    pub(super) fn end(&mut self, attempt: u64) {
        self.stamp(attempt, self.micros);
        let now = self.now();
        let Some(flight) = self.flights.remove(&attempt) else { return };
        let Flight { delivery, account: flight_account, started, mut fates, doubt, mut pause, refused, .. } = flight;
        if refused {
            pause = self.weigh(delivery, flight_account, started, &mut fates);
        } else if !doubt && fates.iter().any(|(_, fate)| *fate == Fate::Sent) {
            let name = &self.settings.accounts[flight_account].name;
            self.suspicions.took(now, started, name, delivery.message);
            self.rows_refused.remove(&flight_account);
        }
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
        let said = pause.clone().map_or(Said::Well(class, if used.message { None } else { Some(Step::Mail) }), Said::Trouble);
        let changes = self.s.ended(now, &Ended { delivery, started, used, pause });
        self.hear(flight_account, started, said, changes);
        let fates = fates.into_iter().map(|(recipient, fate)| (recipient, if doubt { Fate::Deferred } else { fate })).collect();
        let item = self.queue.get_mut(&delivery).expect("queued");
        item.queued.attempts += 1;
        item.last = Some(flight_account);
        let due = if self.dice.chance(20) { now } else { Scheduler::retry_at(&self.settings, now, delivery.message, item.queued.attempts) };
        item.state = State::Ended(fates, due);
        if self.dice.chance(80) {
            self.record(delivery);
        } else {
            let ahead = self.dice.length(self.shape.latency);
            self.schedule(ahead, Event::Record(delivery));
        }
    }

    /// A refusal that nobody knows: nothing fails for it but what the server refuses whatever it is, and an account is suspended for the third
    /// different message in a row, and for no fewer.
    fn weigh(&mut self, delivery: DeliveryId, account: usize, started: Timestamp, fates: &mut [(u32, Fate)]) -> Option<Pause> {
        let now = self.now();
        let blame = self.suspicions.refused(now, started, &self.settings.accounts[account].name, delivery.message);
        let row = self.rows_refused.entry(account).or_default();
        match blame {
            Blame::Message => {
                assert!(self.odd.contains(&delivery), "{delivery} fails, and is as good as any");
                fates.iter_mut().for_each(|(_, fate)| *fate = Fate::Failed);
                self.tally.blamed[0] += 1;
                None
            }
            Blame::Unclear => {
                row.insert(delivery);
                assert!(row.len() < 3, "account {account} has refused {row:?}, and goes on");
                None
            }
            Blame::Account(messages) => {
                row.insert(delivery);
                assert_eq!((messages, row.len()), (3, 3), "{row:?}");
                row.clear();
                self.tally.blamed[1] += 1;
                let (scope, length, step) = (Scope::Account, PauseLength::Suspended, Step::EndOfData);
                let (kind, reason, advice) = (format!("refuses of {account}").into(), format!("trouble {delivery}"), String::new());
                Some(Pause { scope, class: None, length, every: None, limit: None, step, kind, reason, advice })
            }
        }
    }

    pub(super) fn record(&mut self, delivery: DeliveryId) {
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
        let last = self.queue.get(&delivery).and_then(|item| item.last).filter(|_| due <= now && self.dice.chance(50));
        if let Some(account) = last {
            self.s.try_elsewhere(delivery, &self.settings.accounts[account].name);
        }
        if let Some(item) = self.queue.get_mut(&delivery) {
            item.avoid = last;
        }
    }

    /// What was refused a moment ago goes on another account, if another can take it.
    fn check_elsewhere(&mut self, delivery: DeliveryId, account: usize, chance: Chance) {
        let item = &self.queue[&delivery];
        let expected = match item.avoid {
            None => Chance::First,
            Some(avoid) if avoid == account => Chance::Again,
            Some(_) => Chance::Elsewhere,
        };
        assert_eq!(chance, expected, "{item:?}");
        if chance == Chance::Again {
            let others = item.accounts.iter().filter(|other| **other != account);
            let open = |other: &usize| self.active(*other) < self.allowed(*other) && !self.is_hindered(*other, item.class, item.priority);
            let open: Vec<usize> = others.copied().filter(open).collect();
            assert!(open.is_empty(), "{delivery} goes on {account} again, and {open:?} could take it");
        }
        self.tally.elsewhere += u64::from(chance == Chance::Elsewhere);
    }

    pub(super) fn settle(&mut self, recipient: u32, fate: Fate) {
        let before = self.fates[recipient as usize].replace(fate);
        assert_eq!(before, None, "recipient {recipient} comes to an end twice");
    }
}

/// Trouble of whoever it may be, which at most this class of mail meets.
pub(super) fn trouble_of(dice: &mut Dice, account: usize, number: u64, class: Option<Class>, minute: Duration) -> Pause {
    let scopes = [Scope::Recipient, Scope::Account, Scope::Account, Scope::App, Scope::Tenant, Scope::Connection];
    let scope = dice.pick(&scopes);
    let length = match dice.below(4) {
        0 => PauseLength::BackOff,
        1 => PauseLength::Suspended,
        _ => PauseLength::For(minute),
    };
    let step = dice.pick(&[Step::Auth, Step::Mail, Step::EndOfData]);
    let class = class.filter(|_| step > Step::Auth);
    // Of accounts in the same trouble the tenant is told: that has its own tests.
    let kind = format!("trouble of {account}").into();
    let every = if dice.chance(30) { Some(minute * 3) } else { None };
    let (reason, advice) = (format!("trouble {number}"), String::new());
    Pause { scope, class, length, every, limit: None, step, kind, reason, advice }
}
