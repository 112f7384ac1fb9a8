//! How accounts stand, as the world knows it: which gates are closed for what, and when logins without mail may be tried.
//!
//! It is computed here from what the server was made to say, by the rules that the operators are told, and compared with what the relay does.

use hve_relay::clock::Timestamp;
use hve_relay::mail::Class;
use hve_relay::reply::{Pause, PauseLength, Scope, Step};
use hve_relay::schedule::{Change, Probed, Who};

use super::attempts::trouble_of;
use super::{Closure, Event, Gate, World};

/// What the end of an attempt or login said.
pub(super) enum Said {
    /// No trouble, for this class; it stopped at a step, or did not.
    Well(Class, Option<Step>),
    LoggedIn,
    Trouble(Pause),
}

/// A login under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Login {
    started: Timestamp,
    number: u64,
}

impl World {
    /// Connections that an account may use.
    pub(super) fn allowed(&self, account: usize) -> usize {
        let configured = self.settings.accounts[account].connections;
        self.widths.get(&account).map_or(configured, |using| (*using).min(configured))
    }

    /// Connections that an account uses.
    pub(super) fn active(&self, account: usize) -> usize {
        let attempts = self.log.spent.iter().filter(|spent| spent.account == account && spent.end.is_none()).count();
        attempts + usize::from(self.logins.contains_key(&account))
    }

    /// The gates before an account.
    pub(super) fn gates_of(&self, account: usize) -> Vec<Gate> {
        let app = self.settings.accounts[account].app.is_some().then_some(Gate::App);
        [Some(Gate::Account(account)), app, Some(Gate::Route), Some(Gate::Tenant)].into_iter().flatten().collect()
    }

    /// The relay logs in without mail: it must be for somebody who is suspended, and whose time has come.
    pub(super) fn begin_login(&mut self, account: usize) {
        let now = self.now();
        assert!(!self.logins.contains_key(&account), "account {account} logs in twice");
        assert!(self.suspended.get(&account).is_none_or(|until| until.is_some_and(|until| until <= now)), "account {account} is suspended");
        let gates = self.gates_of(account);
        let mine = |(gate, _): &(Gate, Option<Class>)| gates.contains(gate);
        let asked = |closure: &Closure| closure.suspended && !closure.passed && closure.ahead.is_none() && closure.until <= now;
        let asks = self.gates.iter().any(|(of, closure)| mine(of) && asked(closure));
        assert!(asks, "nobody asks for a login of account {account} at {now}: {:?}", self.gates);
        for ((gate, class), closure) in self.gates.iter_mut().filter(|(of, _)| mine(of)) {
            assert!(class.is_some() || closure.until <= now, "{gate:?} is closed for a login until {}", closure.until);
            assert!(class.is_some() || closure.ahead.is_none(), "{gate:?} has a login under way");
            if closure.known || closure.until > now {
                continue;
            }
            closure.ahead = Some(account);
            if closure.suspended && !closure.passed {
                closure.until = now + closure.interval;
            }
        }
        self.tally.logins += 1;
        self.numbers += 1;
        self.logins.insert(account, Login { started: now, number: self.numbers });
        let (number, lasts) = (self.numbers, self.dice.length(self.shape.latency));
        self.schedule(lasts, Event::Probed(account, number));
    }

    pub(super) fn end_login(&mut self, account: usize, number: u64) {
        // A restart may have cut it off.
        let Some(Login { started, .. }) = self.logins.get(&account).copied().filter(|login| login.number == number) else { return };
        self.logins.remove(&account);
        let now = self.now();
        let chance = if self.calm { 0 } else { 60 };
        let minute = self.settings.accounts[account].limits.minute;
        let pause = if self.dice.chance(chance) { Some(trouble_of(&mut self.dice, account, number, None, minute)) } else { None };
        let pause = pause.map(|pause| Pause { step: pause.step.min(Step::Auth), ..pause }).filter(|pause| pause.scope != Scope::Recipient);
        let said = pause.clone().map_or(Said::LoggedIn, Said::Trouble);
        let account_name = self.settings.accounts[account].name.clone();
        let changes = self.s.probed(now, &Probed { account: account_name, started, pause });
        self.ends += 1;
        self.hear(account, started, said, changes);
    }

    /// What the end of an attempt or login means for the gates; what the relay says of them must be the same.
    pub(super) fn hear(&mut self, account: usize, started: Timestamp, said: Said, changes: Vec<Change>) {
        let now = self.now();
        let narrowed = changes.iter().any(|change| matches!(change, Change::Narrowed { .. }));
        let mut closed = Vec::new();
        let mut opened_by_relay = Vec::new();
        for change in changes {
            match change {
                Change::Closed { gate, until, pause } => closed.push((self.gate(&gate), until, pause)),
                Change::Opened { gate } => opened_by_relay.push(self.gate(&gate)),
                change => self.note(change),
            }
            self.gifts += 1;
        }
        let mut opened = Vec::new();
        for gate in self.gates_of(account) {
            let past = |closure: &Closure, stopped: Option<Step>| {
                !closure.known && started > closure.since && stopped.is_none_or(|stopped| closure.step < stopped)
            };
            let over: Vec<Option<Class>> = match &said {
                Said::Trouble(pause)
                    if !narrowed && holder(account, self.settings.accounts[account].app.is_some(), pause.scope) == gate =>
                {
                    Vec::new()
                }
                Said::Trouble(pause) => vec![None].into_iter().filter(|of| self.is(gate, *of, |it| past(it, Some(pause.step)))).collect(),
                Said::Well(class, stopped) => {
                    [None, Some(*class)].into_iter().filter(|of| self.is(gate, *of, |it| past(it, *stopped))).collect()
                }
                Said::LoggedIn => ALL.into_iter().filter(|of| self.is(gate, *of, |it| past(it, Some(Step::Mail)))).collect(),
            };
            for of in over {
                self.gates.remove(&(gate, of));
                if !opened.contains(&gate) {
                    opened.push(gate);
                }
            }
            for of in ALL {
                let Some(closure) = self.gates.get_mut(&(gate, of)) else { continue };
                if matches!(said, Said::LoggedIn) && closure.suspended && !closure.passed && started > closure.since {
                    (closure.passed, closure.until) = (true, now);
                    self.gifts += 1;
                }
                closure.ahead.take_if(|ahead| *ahead == account && !self.logins.contains_key(&account));
            }
        }
        assert_eq!(opened_by_relay, opened, "at {now}: {:?}", self.gates);
        for (gate, until, pause) in closed {
            let expected = match pause.length {
                PauseLength::For(length) => Some(length),
                PauseLength::Suspended => Some(pause.every.unwrap_or(self.settings.probe)),
                PauseLength::BackOff | PauseLength::FewerConnections => None,
            };
            assert!(expected.is_none_or(|length| until == now + length), "{gate:?} is closed until {until} at {now}, by {pause:?}");
            let closure = Closure {
                since: now,
                until,
                known: matches!(pause.length, PauseLength::For(_)),
                length: expected.filter(|_| pause.length != PauseLength::Suspended),
                suspended: pause.length == PauseLength::Suspended,
                passed: false,
                interval: pause.every.unwrap_or(self.settings.probe),
                step: pause.step,
                ahead: None,
            };
            self.gates.insert((gate, pause.class), closure);
        }
    }

    /// What has changed by time alone.
    pub(super) fn hear_news(&mut self) {
        for change in self.s.news() {
            self.note(change);
            self.gifts += 1;
        }
    }

    fn note(&mut self, change: Change) {
        let (name, using, configured) = match change {
            Change::Narrowed { account, using, configured, .. } | Change::Widened { account, using, configured } => {
                (account, using, configured)
            }
            Change::Closed { .. } | Change::Opened { .. } => panic!("{change:?} without an attempt that ended"),
        };
        let account = self.settings.accounts.iter().position(|account| account.name == name).expect("an account");
        assert!((1..=configured).contains(&using) && configured == self.settings.accounts[account].connections);
        self.tally.widths += 1;
        self.widths.insert(account, using);
    }

    fn is(&self, gate: Gate, class: Option<Class>, what: impl Fn(&Closure) -> bool) -> bool {
        self.gates.get(&(gate, class)).is_some_and(what)
    }

    fn gate(&self, who: &Who) -> Gate {
        match who {
            Who::Route(_) => Gate::Route,
            Who::App(_) => Gate::App,
            Who::Tenant => Gate::Tenant,
            Who::Account(name) => {
                Gate::Account(self.settings.accounts.iter().position(|account| account.name == *name).expect("an account"))
            }
        }
    }
}

const ALL: [Option<Class>; 3] = [None, Some(Class::Internal), Some(Class::External)];

fn holder(account: usize, has_app: bool, scope: Scope) -> Gate {
    match scope {
        Scope::Tenant => Gate::Tenant,
        Scope::Connection => Gate::Route,
        Scope::App if has_app => Gate::App,
        _ => Gate::Account(account),
    }
}
