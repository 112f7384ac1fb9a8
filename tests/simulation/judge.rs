//! Whether what the scheduler says is right: that nothing can go when it has nothing to do, why each delivery waits and until when, and in the end
//! that nothing was lost.

use std::time::Duration;

use hve_relay::budget::{LimitName, Limits};
use hve_relay::clock::Timestamp;
use hve_relay::mail::{Class, DeliveryId, Priority};
use hve_relay::schedule::{Counts, Reason};

use super::super::observer::Bound;
use super::{Fate, Flight, Gate, Item, Promise, State, World};

/// What keeps an account from taking mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hindrance {
    Suspension,
    Gate,
    /// A gate that a login must open.
    Login,
    Budget(Option<usize>, LimitName),
}

/// An account: its number, whether every connection is in use, when it opens, and what keeps it.
type Opening = (usize, bool, Bound, Vec<(Hindrance, Bound)>);

/// How the accounts stand that may take a delivery.
#[derive(Debug, Default)]
struct Standing {
    accounts: Vec<Opening>,
    /// The end of an attempt could change it.
    fragile: bool,
}

impl World {
    /// The scheduler says that there is nothing to do. It must be so, and what it says about the time must be so.
    pub(super) fn check_idle(&mut self) {
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
            let late = |item: &&Item| waits(item) && !item.queued.held && item.queued.accepted_at + self.settings.lifetime <= now;
            let late = self.queue.values().find(late);
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
                let active = self.active(*number);
                let full = active >= self.allowed(*number);
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
                let by_login = hindrances.iter().any(|(hindrance, _)| *hindrance == Hindrance::Login);
                // One login at a time: the next gate of the account waits for its end.
                let busy = full || by_login && self.logins.contains_key(number);
                if let (Bound::Between(_, late), false) = (opens, busy) {
                    let latest = Timestamp::from_millis(late + self.wall);
                    assert!(
                        deadline.is_some_and(|deadline| deadline <= latest),
                        "{deadline:?} is later than {latest}, when mail can go on account {number}: {hindrances:?}, {:?}, {:?}",
                        self.gates,
                        self.logins
                    );
                }
                standing.fragile |= full || opens == Bound::Unknown || by_login;
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
            Reason::Paused { reason, .. } => {
                reason.starts_with("trouble") && explained(&|hindrance| matches!(hindrance, Hindrance::Gate | Hindrance::Login))
            }
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
    pub(super) fn check_conservation(&self) {
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

    /// Whether a gate is closed for a class, and when it opens by itself.
    pub(super) fn closed(&self, gate: Gate, class: Class) -> Option<Bound> {
        let now = self.now();
        let mut opens = None;
        for of in [None, Some(class)] {
            let Some(closure) = self.gates.get(&(gate, of)) else { continue };
            let passes = |flight: &&Flight| {
                flight.started >= closure.until
                    && self.gates_of(flight.account).contains(&gate)
                    && of.is_none_or(|of| self.queue[&flight.delivery].class == of)
            };
            let by_login = closure.suspended && !closure.passed;
            if closure.ahead.is_some() && !closure.known || by_login && closure.until <= now {
                opens = Some(Bound::Unknown);
            } else if now < closure.until {
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

    /// Whether anything may keep an account from taking mail of a class and priority, connections apart.
    pub(super) fn is_hindered(&self, number: usize, class: Class, priority: Priority) -> bool {
        !self.hindrances(number, class, priority).is_empty()
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
        for gate in self.gates_of(number) {
            let by_login = [None, Some(class)].iter().filter_map(|of| self.gates.get(&(gate, *of))).any(|it| it.suspended && !it.passed);
            let hindrance = if by_login { Hindrance::Login } else { Hindrance::Gate };
            found.extend(self.closed(gate, class).map(|bound| (hindrance, bound)));
        }
        let kept = if priority == Priority::High { 0 } else { self.shape.reserve * 10 };
        let budgets: [(Option<usize>, &Limits); 2] =
            [(Some(number), &self.settings.accounts[number].limits), (None, &self.settings.tenant)];
        for (whose, limits) in budgets {
            let bounds = self.log.bounds(now, whose, limits, class, kept);
            found.extend(bounds.into_iter().map(|(limit, bound)| (Hindrance::Budget(whose, limit), bound)));
        }
        // What nobody knew when it came back is full for a window at most.
        if let Some(since) = self.blind.get(&number) {
            let Limits { external_per_minute, messages_per_minute, minimum_pause, minute, .. } = &self.settings.accounts[number].limits;
            let external = external_per_minute.is_some() && class == Class::External;
            let rates = [
                external.then_some((LimitName::ExternalPerMinute, *minute)),
                messages_per_minute.map(|_| (LimitName::MessagesPerMinute, *minute)),
                minimum_pause.map(|pause| (LimitName::MinimumPause, pause)),
            ];
            let until = |window: Duration| since + 1 + window.as_millis() as i64;
            let blind = rates.into_iter().flatten();
            found.extend(blind.map(|(limit, window)| (Hindrance::Budget(Some(number), limit), Bound::Between(now, until(window)))));
        }
        found.retain(|(_, bound)| !matches!(bound, Bound::Between(_, late) if *late <= now));
        found
    }
}
