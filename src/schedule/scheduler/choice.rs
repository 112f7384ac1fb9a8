//! Which account a delivery goes to, what is reserved for it there, and when one will take it.

use std::cmp::Ordering;

use super::places::is_alive;
use super::{Account, Client, Entry, Flight, Place, Scheduler, scatter};
use crate::budget::{Budget, Need, Share, Used};
use crate::clock::Timestamp;
use crate::mail::{Class, Priority};
use crate::schedule::gate::Gates;
use crate::schedule::lanes::{AccountSet, Group};
use crate::schedule::{Affinity, Chance, Decision};

impl Scheduler {
    /// When an account that has a connection free may take mail of a group; `None` if only the end of an attempt can tell.
    pub(super) fn group_opens(&self, now: Timestamp, group: &Group) -> Option<Timestamp> {
        let keep = self.kept(group.priority);
        let shared = self.shared(group.route).opens(now, group.class, keep)?;
        let mut earliest: Option<Timestamp> = None;
        for account in self.members(group.accounts).filter(|account| account.active < account.width.allowed()) {
            let Some(opens) = self.opens_apart_from_budgets(account, group.class).map(|opens| opens.max(shared)) else { continue };
            // Its own budget can only make it later.
            if earliest.is_some_and(|earliest| earliest <= opens.max(now)) {
                continue;
            }
            let Some(own) = account.budget.opens(now, group.class, keep).map(|own| own.max(opens)) else { continue };
            earliest = Some(earliest.map_or(own, |earliest| earliest.min(own)));
        }
        earliest
    }

    pub(in crate::schedule) fn opens_apart_from_budgets(&self, account: &Account, class: Class) -> Option<Timestamp> {
        let suspended = match &account.suspended {
            None => Some(Timestamp::default()),
            Some(suspension) => suspension.until,
        }?;
        self.before(account).try_fold(suspended, |latest, gates| Some(latest.max(gates.opens(class)?)))
    }

    /// The gates before an account.
    pub(in crate::schedule) fn before<'s>(&'s self, account: &'s Account) -> impl Iterator<Item = &'s Gates> {
        let route = &self.routes[usize::from(account.route)];
        let (app, tenant) = (account.app.map(|app| &self.apps[app].gates), Some(&self.tenant_gates).filter(|_| !route.apart));
        [Some(&route.gates), tenant, app, Some(&account.gates)].into_iter().flatten()
    }

    fn open(&self, now: Timestamp, account: &Account, class: Class) -> bool {
        account.active < account.width.allowed()
            && account.suspended.as_ref().is_none_or(|suspension| suspension.until.is_some_and(|until| until <= now))
            && self.before(account).all(|gates| gates.admit(now, class))
    }

    pub(super) fn can_go(&self, now: Timestamp, accounts: AccountSet, route: u16, class: Class, priority: Priority) -> bool {
        let keep = self.kept(priority);
        self.routes[usize::from(route)].gates.admit(now, class)
            && has_room(now, self.shared(route), class, keep)
            && self.members(accounts).any(|account| self.open(now, account, class) && has_room(now, &account.budget, class, keep))
    }

    /// Hands out the delivery whose turn it is in a lane, if an account takes it.
    pub(super) fn hand_out(&mut self, now: Timestamp, lane: u32) -> Option<Decision> {
        let entries = &self.entries;
        let ticket = self.lanes.head(lane, |ticket| is_alive(entries, ticket))?;
        let entry = &self.entries[ticket.slot as usize];
        let group = self.lanes.group(lane);
        let route = group.route;
        let apart = self.routes[usize::from(route)].apart;
        let client = &self.clients[self.lanes.key(lane).client as usize];
        let (chosen, recipients) = self.choose(now, group, entry, client)?;
        let (delivery, class, keep) = (entry.id, entry.class, self.kept(entry.priority));
        let chance = match (entry.second, entry.avoid) {
            (false, _) => Chance::First,
            (true, Some(avoid)) if usize::from(avoid) == chosen => Chance::Again,
            (true, _) => Chance::Elsewhere,
        };
        let need = Need { class, recipients };
        let shared = self.shared_mut(apart).reserve(now, need, keep).ok()?;
        let account = &mut self.accounts[chosen];
        let Ok(own) = account.budget.reserve(now, need, keep) else {
            self.shared_mut(apart).settle(shared, Used::NOTHING, now);
            return None;
        };
        self.turn += 1;
        account.active += 1;
        account.last_turn = self.turn;
        let name = account.name.clone();
        for holder in self.holders(chosen) {
            let Self { accounts, apps, routes, tenant_gates, .. } = self;
            holder.gates(accounts, apps, routes, tenant_gates).pass(now, class, delivery);
        }
        self.lanes.take(lane, recipients);
        self.ready -= 1;
        self.entries[ticket.slot as usize].place = Place::Active;
        self.flights.insert(ticket.slot, Flight { account: chosen, class, own, shared, apart });
        Some(Decision::Attempt { delivery, account: name, recipients: recipients as u16, chance })
    }

    /// The account for a delivery, and how many of its recipients can go on it.
    fn choose(&self, now: Timestamp, group: &Group, entry: &Entry, client: &Client) -> Option<(usize, u32)> {
        let (need, keep) = (Need { class: entry.class, recipients: u32::from(entry.recipients) }, self.kept(entry.priority));
        let shared = self.shared(group.route).fits(now, need, keep);
        let kept_to = match client.settings.affinity {
            Affinity::Client => client.mark,
            Affinity::Author => entry.author,
            Affinity::None => 0,
        };
        let mut best: Option<(bool, u32, u64, usize)> = None;
        for (i, account) in self.in_service().iter().enumerate().filter(|(i, _)| group.accounts & (1 << i) != 0) {
            if !self.open(now, account, entry.class) || !has_room(now, &account.budget, entry.class, keep) {
                continue;
            }
            // One that has just refused it comes last. All recipients at once come before everything else; then the account that is kept to.
            // Each key ranks all accounts in its own order (rendezvous hashing): when one is full, the same next one is taken.
            let fits = account.budget.fits(now, need, keep).min(shared);
            let affinity = if kept_to == 0 { 0 } else { scatter(kept_to ^ account.mark) };
            let other = entry.avoid.is_none_or(|avoid| usize::from(avoid) != i);
            let order = best.map_or(Ordering::Greater, |(another, most, key, _)| (other, fits, affinity).cmp(&(another, most, key)));
            if fits > 0 && order.then_with(|| self.prefer(now, i, best.map_or(i, |(.., other)| other), entry.class)).is_gt() {
                best = Some((other, fits, affinity, i));
            }
        }
        best.map(|(_, fits, _, account)| (account, fits))
    }

    /// Of two accounts the one with the most left, then the less busy, then the longer rested.
    fn prefer(&self, now: Timestamp, one: usize, other: usize, class: Class) -> Ordering {
        let [one, other] = [one, other].map(|i| &self.accounts[i]);
        let order = one.budget.headroom(now, class).total_cmp(&other.budget.headroom(now, class));
        order.then(other.active.cmp(&one.active)).then(other.last_turn.cmp(&one.last_turn))
    }

    /// The share of the day's budget that a priority must leave.
    pub(in crate::schedule) fn kept(&self, priority: Priority) -> Share {
        if priority == Priority::High { Share::NONE } else { self.settings.reserve }
    }

    /// What all accounts of a route share with those of others.
    pub(in crate::schedule) fn shared(&self, route: u16) -> &Budget {
        if self.routes[usize::from(route)].apart { &self.elsewhere } else { &self.tenant }
    }

    pub(super) fn shared_mut(&mut self, apart: bool) -> &mut Budget {
        if apart { &mut self.elsewhere } else { &mut self.tenant }
    }

    pub(in crate::schedule) fn members(&self, set: AccountSet) -> impl Iterator<Item = &Account> {
        self.in_service().iter().enumerate().filter(move |(i, _)| set & (1 << i) != 0).map(|(_, account)| account)
    }
}

/// Whether one more recipient fits into a budget.
fn has_room(now: Timestamp, budget: &Budget, class: Class, keep: Share) -> bool {
    budget.opens(now, class, keep).is_some_and(|opens| opens <= now)
}
