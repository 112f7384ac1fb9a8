//! How accounts, applications, routes and the tenant stand, in words and times; and what of it is kept across restarts.

use crate::clock::Timestamp;
use crate::mail::{AccountName, Class};
use crate::reply::PauseLength;

use super::gate::{CLASSES, Closed, Gate, interval};
use super::heed::Holder;
use super::scheduler::Account;
use super::width::Learned;
use super::{Scheduler, Settings, Who};

/// How somebody stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Nothing is known against it.
    Healthy,
    /// It uses fewer connections than configured, because the server takes no more.
    Reduced,
    /// Something goes ahead to find out whether its trouble is over, or the next message will.
    Probing,
    /// It takes nothing until a time.
    Closed,
    /// An operator must act; until then it is tried now and then.
    Suspended,
}

impl State {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Reduced => "reduced",
            Self::Probing => "probing",
            Self::Closed => "closed",
            Self::Suspended => "suspended",
        }
    }
}

/// How somebody stands, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// In one word.
    pub state: State,
    /// For mail of this class only.
    pub class: Option<Class>,
    /// Since when it is not healthy.
    pub since: Option<Timestamp>,
    /// When that can change by itself: when a closed gate opens, a suspended one is tried, one connection more is used.
    pub until: Option<Timestamp>,
    /// The kind of trouble: its entry in the catalogue.
    pub kind: String,
    /// What was met; empty if it is healthy.
    pub reason: String,
    /// Who must do what; empty if it passes by itself.
    pub advice: String,
    /// How many logins were tried in this trouble.
    pub logins: u32,
}

impl Health {
    /// Nothing is known against it.
    pub const GOOD: Self = Self {
        state: State::Healthy,
        class: None,
        since: None,
        until: None,
        kind: String::new(),
        reason: String::new(),
        advice: String::new(),
        logins: 0,
    };
}

/// Trouble of more than one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// Whose.
    pub who: Who,
    /// What.
    pub health: Health,
}

/// What is kept across restarts, one line of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealthRow {
    /// A gate is closed.
    Gate {
        /// Whose.
        who: Who,
        /// For mail of this class only.
        class: Option<Class>,
        /// How.
        closed: Closed,
    },
    /// An account uses fewer connections.
    Width {
        /// Which account.
        account: AccountName,
        /// What was learned.
        learned: Learned,
    },
}

impl Scheduler {
    /// Trouble that concerns more than one account: of applications, routes and the tenant, the widest first.
    pub fn troubles(&self, now: Timestamp) -> Vec<Trouble> {
        let wide = |holder: &Holder| !matches!(holder, Holder::Account(_));
        let of_gates = self.all_holders().filter(wide).flat_map(|holder| {
            let of_each = CLASSES.into_iter().zip(self.gates(holder).each());
            of_each.filter_map(move |(class, gate)| Some(Trouble { who: self.who(holder), health: of_gate(now, class, gate)? }))
        });
        let alike = self.alike().map(|(accounts, closed)| {
            let members = self.in_service().iter().filter(|account| account.gates.all.trouble().is_some_and(Closed::is_suspended));
            let until = members.filter_map(|account| account.gates.all.trouble()).map(|closed| closed.until).min();
            let reason = format!("all {accounts} accounts: {}", closed.pause.reason);
            let kind = closed.pause.kind.to_string();
            let advice = closed.pause.advice.clone();
            let since = Some(closed.since);
            let until = until.filter(|until| *until > now);
            Trouble { who: Who::Tenant, health: Health { state: State::Suspended, since, until, kind, reason, advice, ..Health::GOOD } }
        });
        let mut troubles: Vec<Trouble> = of_gates.chain(alike).collect();
        troubles.sort_by(|one, other| other.who.cmp(&one.who));
        troubles
    }

    /// Those who are suspended until an operator has acted: the tenant, where all of its accounts are, for them.
    pub fn suspended(&self) -> Vec<Who> {
        let is_suspended = |gate: &Gate| gate.trouble().is_some_and(Closed::is_suspended);
        let alike = self.alike().is_some();
        let told = |holder: &Holder| match holder {
            Holder::Tenant if alike => true,
            Holder::Account(account) if alike && !self.routes[usize::from(self.accounts[*account].route)].apart => false,
            holder => self.gates(*holder).each().into_iter().any(is_suspended),
        };
        self.all_holders().filter(told).map(|holder| self.who(holder)).collect()
    }

    /// How an account stands by itself, trouble that it shares with others apart.
    pub(super) fn health(&self, now: Timestamp, account: &Account) -> Health {
        let gates = CLASSES.into_iter().zip(account.gates.each()).filter_map(|(class, gate)| of_gate(now, class, gate));
        // The worst of them; of the same the one for all mail.
        let worst = gates.reduce(|worst, other| if other.state > worst.state { other } else { worst });
        worst.or_else(|| account.width.learned().map(|learned| reduced(account, learned))).unwrap_or(Health::GOOD)
    }

    /// What was learned, if it has changed since the last call. It must be durable before a [`Decision::Probe`](super::Decision::Probe) is
    /// carried out that [`Self::next`] gave out before the call.
    pub fn health_changes(&mut self) -> Option<Vec<HealthRow>> {
        if !std::mem::take(&mut self.health_changed) {
            return None;
        }
        // Every end of an attempt may have changed something, and hardly one has: to write that down costs a sync.
        let state = Some(self.health_state());
        if state == self.health_told {
            return None;
        }
        self.health_told.clone_from(&state);
        state
    }

    /// All that was learned and is to be kept.
    pub fn health_state(&self) -> Vec<HealthRow> {
        let gates = self.all_holders().flat_map(|holder| {
            let of_each = CLASSES.into_iter().zip(self.gates(holder).each());
            of_each.filter_map(move |(class, gate)| Some(HealthRow::Gate { who: self.who(holder), class, closed: gate.trouble()?.clone() }))
        });
        let widths = self
            .accounts
            .iter()
            .filter_map(|account| Some(HealthRow::Width { account: account.name.clone(), learned: account.width.learned()?.clone() }));
        gates.chain(widths).collect()
    }

    /// What was learned before a restart, with its times on the present clock. Whom the configuration no longer has is left out.
    pub fn restore_health(&mut self, now: Timestamp, rows: Vec<HealthRow>) {
        for row in rows {
            match row {
                HealthRow::Gate { who, class, closed } => {
                    let until = closed.until.min(now + longest(&closed, &self.settings));
                    let found = self.all_holders().find(|holder| self.who(*holder) == who);
                    if let Some(holder) = found {
                        let Self { accounts, apps, routes, tenant_gates, .. } = self;
                        holder.gates(accounts, apps, routes, tenant_gates).of(class).restore(Closed { until, ..closed });
                    }
                }
                HealthRow::Width { account, learned } => {
                    if let Some(account) = self.accounts.iter_mut().find(|other| other.name == account) {
                        account.width.restore(learned);
                    }
                }
            }
        }
        self.told_alike = self.alike().is_some();
        self.health_changed = true;
        self.look_after();
    }
}

/// The longest time that a gate is closed for: what is later comes from a clock that was ahead.
fn longest(closed: &Closed, settings: &Settings) -> std::time::Duration {
    match closed.pause.length {
        PauseLength::For(length) => length,
        PauseLength::Suspended => interval(&closed.pause, settings),
        PauseLength::BackOff | PauseLength::FewerConnections => settings.pause_max,
    }
}

fn of_gate(now: Timestamp, class: Option<Class>, gate: &Gate) -> Option<Health> {
    let closed = gate.trouble()?;
    let waits = closed.until > now;
    let state = match closed.pause.length {
        _ if gate.is_tried() => State::Probing,
        PauseLength::Suspended if !closed.passed => State::Suspended,
        PauseLength::For(_) if !waits => return None,
        _ if waits => State::Closed,
        _ => State::Probing,
    };
    Some(Health {
        state,
        class,
        since: Some(closed.since),
        until: Some(closed.until).filter(|_| waits && state != State::Probing),
        kind: closed.pause.kind.to_string(),
        reason: closed.pause.reason.clone(),
        advice: closed.pause.advice.clone(),
        logins: closed.logins,
    })
}

fn reduced(account: &Account, learned: &Learned) -> Health {
    Health {
        state: State::Reduced,
        since: Some(learned.since),
        until: Some(learned.grows_at),
        kind: learned.pause.kind.to_string(),
        reason: format!(
            "configured {} connections, using {} since {} because {}",
            account.width.configured(),
            account.width.allowed(),
            learned.since,
            learned.pause.reason
        ),
        advice: learned.pause.advice.clone(),
        ..Health::GOOD
    }
}
