//! Why something waits and until when: the same questions that [`Scheduler::next`] asks, answered in words instead of with a decision.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::budget::{Budget, LimitName, Limits, Need, Usage, Used};
use crate::clock::Timestamp;
use crate::mail::{AccountName, Class, DeliveryId, Priority, RouteName};

use super::gate::Gates;
use super::health::Health;
use super::scheduler::{Account, Entry, Place, Scheduler, Suspension};

/// What a delivery waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// What.
    pub reason: Reason,
    /// The earliest moment at which that can change; none: it is not a matter of time.
    pub until: Option<Timestamp>,
}

/// Why a delivery or an account waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It does not: an attempt is under way.
    UnderWay,
    /// An operator holds it.
    Held,
    /// Its last attempt did not succeed, and the next has a time.
    Deferred,
    /// No account may take it: its route has none, or its client is allowed none there.
    NoAccount,
    /// Its account, or each one that may take it, is suspended by an operator; these are his words.
    Suspended(String),
    /// Something went wrong upstream.
    Paused {
        /// What.
        reason: String,
        /// Who must do what; empty if it passes by itself.
        advice: String,
    },
    /// A budget is used up.
    Budget {
        /// Whose; none: the tenant's.
        account: Option<AccountName>,
        /// Which.
        limit: LimitName,
    },
    /// Every connection is in use.
    Connections,
    /// Others are before it.
    Turn,
}

/// An account as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountStatus {
    /// Its name.
    pub name: AccountName,
    /// Its route.
    pub route: RouteName,
    /// Connections in use.
    pub active: usize,
    /// Connections that it may use: fewer than configured where the server takes no more.
    pub connections: usize,
    /// Connections that are configured.
    pub configured: usize,
    /// How it stands by itself.
    pub health: Health,
    /// Why it takes no mail of each class now, and until when; none: it does.
    pub waits: Vec<(Class, Wait)>,
    /// What is used of each budget.
    pub usage: Vec<Usage>,
    /// What an operator said, if it is suspended.
    pub suspended: Option<Suspension>,
}

/// What waits of one priority and class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassStatus {
    /// The priority.
    pub priority: Priority,
    /// The class.
    pub class: Class,
    /// Deliveries.
    pub deliveries: usize,
    /// Their recipients.
    pub recipients: u64,
    /// When the oldest was accepted.
    pub oldest: Timestamp,
    /// When, going by the budgets, the last of them will have gone; none: it is not a matter of time. Deferred and held ones are not waited for.
    pub empty_at: Option<Timestamp>,
}

impl Scheduler {
    /// What a delivery waits for; none if it is not queued.
    pub fn why(&self, now: Timestamp, delivery: DeliveryId) -> Option<Wait> {
        let entry = self.entry(delivery)?;
        let wait = match entry.place {
            Place::Active | Place::Gone => Wait { reason: Reason::UnderWay, until: None },
            Place::Held(_) => Wait { reason: Reason::Held, until: None },
            Place::Waiting(due) => Wait { reason: Reason::Deferred, until: Some(due) },
            Place::Ready => self.why_ready(now, entry),
        };
        Some(wait)
    }

    /// Every account as it stands, in the configuration's order.
    pub fn accounts(&self, now: Timestamp) -> Vec<AccountStatus> {
        let status = |account: &Account| AccountStatus {
            name: account.name.clone(),
            route: self.routes[usize::from(account.route)].name.clone(),
            active: account.active,
            connections: account.width.allowed(),
            configured: account.width.configured(),
            health: self.health(now, account),
            waits: [Class::Internal, Class::External]
                .into_iter()
                .filter_map(|class| Some((class, self.why_account(now, account, class, Priority::High)?)))
                .collect(),
            usage: account.budget.usage(now),
            suspended: account.suspended.clone(),
        };
        self.in_service().iter().map(status).collect()
    }

    /// What is used of the tenant's budgets.
    pub fn tenant(&self, now: Timestamp) -> Vec<Usage> {
        self.tenant.usage(now)
    }

    /// What waits, by priority and class. Looks at every delivery.
    pub fn classes(&self, now: Timestamp) -> Vec<ClassStatus> {
        let mut classes: Vec<ClassStatus> = Vec::new();
        // The same by route, as deliveries and recipients: what one route's accounts may send helps no other's mail.
        let mut loads: BTreeMap<(Priority, Class, u16), (usize, u64)> = BTreeMap::new();
        for entry in self.all() {
            let load = loads.entry((entry.priority, entry.class, self.group_of(entry).route)).or_default();
            *load = (load.0 + 1, load.1 + u64::from(entry.recipients));
            let known = classes.iter_mut().find(|status| (status.priority, status.class) == (entry.priority, entry.class));
            match known {
                Some(status) => {
                    status.deliveries += 1;
                    status.recipients += u64::from(entry.recipients);
                    status.oldest = status.oldest.min(entry.accepted_at);
                }
                None => classes.push(ClassStatus {
                    priority: entry.priority,
                    class: entry.class,
                    deliveries: 1,
                    recipients: u64::from(entry.recipients),
                    oldest: entry.accepted_at,
                    empty_at: None,
                }),
            }
        }
        classes.sort_by_key(|status| (status.priority, status.class));
        for status in &mut classes {
            let (priority, class) = (status.priority, status.class);
            let of_class = loads.range((priority, class, 0)..=(priority, class, u16::MAX));
            let mut ends = of_class.map(|((.., route), load)| self.forecast(now, *route, class, priority, *load));
            status.empty_at = ends.try_fold(now, |latest, end| Some(latest.max(end?)));
        }
        classes
    }

    /// When so much mail of a route and class, in deliveries and recipients, will have gone, if it alone were queued: attempts are dealt to copies
    /// of the budgets, each taking no time.
    fn forecast(&self, now: Timestamp, route: u16, class: Class, priority: Priority, load: (usize, u64)) -> Option<Timestamp> {
        /// Beyond so many attempts the rest is taken to go as the first did.
        const STEPS: usize = 2_000;
        let (keep, (deliveries, recipients)) = (self.kept(priority), load);
        let each = u32::try_from(recipients.div_ceil(deliveries.max(1) as u64)).unwrap_or(u32::MAX);
        let copy = |budget: &Budget, limits: &Limits| Budget::restore(limits, &budget.state(), now, 0);
        let apart = self.routes[usize::from(route)].apart;
        let mut shared = copy(self.shared(route), if apart { &Limits::NONE } else { &self.settings.tenant });
        let settings = self.accounts.iter().zip(&self.settings.accounts).filter(|(account, _)| account.route == route);
        let mut accounts: Vec<_> = settings.map(|(account, settings)| (account, copy(&account.budget, &settings.limits))).collect();
        let (mut time, mut left) = (now, recipients);
        for _ in 0..STEPS {
            if left == 0 {
                return Some(time);
            }
            let need = Need { class, recipients: each.min(u32::try_from(left).unwrap_or(u32::MAX)) };
            let mut best: Option<(Timestamp, usize)> = None;
            for (i, (account, budget)) in accounts.iter().enumerate() {
                let one = Need { class, recipients: 1 };
                // Of one that waits for more than time nothing is expected.
                let Some(gates) = self.opens_apart_from_budgets(account, class) else { continue };
                let waits = [budget.wait(time, one, keep), shared.wait(time, one, keep)];
                let opens = waits.into_iter().flatten().try_fold(gates.max(time), |opens, wait| wait.until.map(|until| opens.max(until)));
                if let Some(opens) = opens.filter(|opens| best.is_none_or(|(best, _)| *opens < best)) {
                    best = Some((opens, i));
                }
            }
            let (opens, chosen) = best?;
            time = opens;
            let budget = &mut accounts[chosen].1;
            let fits = budget.fits(time, need, keep).min(shared.fits(time, need, keep));
            let need = Need { class, recipients: fits.max(1) };
            let (Ok(own), Ok(both)) = (budget.reserve(time, need, keep), shared.reserve(time, need, keep)) else { return None };
            budget.settle(own, Used::all(need), time);
            shared.settle(both, Used::all(need), time);
            left -= u64::from(need.recipients).min(left);
        }
        let gone = recipients - left;
        Some(now + Duration::from_secs_f64(time.since(now).as_secs_f64() * recipients as f64 / gone.max(1) as f64))
    }

    pub(super) fn why_ready(&self, now: Timestamp, entry: &Entry) -> Wait {
        let group = self.group_of(entry);
        let mut waits = self.members(group.accounts).map(|account| self.why_account(now, account, entry.class, entry.priority)).peekable();
        if waits.peek().is_none() {
            return Wait { reason: Reason::NoAccount, until: None };
        }
        // The account that opens first is the one that is waited for: one that is merely busy can at any moment, one of which nothing is known
        // comes last.
        let first = waits.min_by_key(|wait| match wait {
            None => (0, None),
            Some(Wait { reason: Reason::Connections, .. }) => (1, None),
            Some(Wait { until: Some(until), .. }) => (2, Some(*until)),
            Some(Wait { until: None, .. }) => (3, None),
        });
        first.flatten().unwrap_or(Wait { reason: Reason::Turn, until: Some(now) })
    }

    /// What keeps an account from taking mail; of several things the one that ends last, and that of which no end is known before all.
    fn why_account(&self, now: Timestamp, account: &Account, class: Class, priority: Priority) -> Option<Wait> {
        let suspension = account.suspended.as_ref().filter(|suspension| suspension.until.is_none_or(|until| until > now));
        let suspended = suspension.map(|suspension| Wait { reason: Reason::Suspended(suspension.reason.clone()), until: suspension.until });
        let gates = self.before(account).filter_map(|gates| why_gates(now, gates, class));
        let (need, keep) = (Need { class, recipients: 1 }, self.kept(priority));
        let budgets =
            [(Some(&account.name), &account.budget), (None, self.shared(account.route))].into_iter().filter_map(|(whose, budget)| {
                let wait = budget.wait(now, need, keep)?;
                Some(Wait { reason: Reason::Budget { account: whose.cloned(), limit: wait.limit }, until: wait.until })
            });
        // Of those that end together the first is named.
        let binding =
            suspended.into_iter().chain(gates).chain(budgets).reduce(|one, other| if ends_later(&other, &one) { other } else { one });
        binding.or_else(|| (account.active >= account.width.allowed()).then_some(Wait { reason: Reason::Connections, until: None }))
    }
}

/// An end that is not known is later than any.
fn ends_later(one: &Wait, other: &Wait) -> bool {
    match (one.until, other.until) {
        (Some(one), Some(other)) => one > other,
        (one, other) => one.is_none() && other.is_some(),
    }
}

/// The gate for everything, or that of the class, whichever opens later.
fn why_gates(now: Timestamp, gates: &Gates, class: Class) -> Option<Wait> {
    let closed = [&gates.all, gates.by_class(class)].into_iter().filter_map(|gate| Some((gate, gate.closed(now)?)));
    let waits = closed.map(|(gate, closed)| {
        let reason = Reason::Paused { reason: closed.pause.reason.clone(), advice: closed.pause.advice.clone() };
        // What goes ahead may come back at any moment.
        Wait { reason, until: Some(closed.until).filter(|until| *until > now && !gate.is_tried()) }
    });
    waits.reduce(|one, other| if ends_later(&other, &one) { other } else { one })
}
