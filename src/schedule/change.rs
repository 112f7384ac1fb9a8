//! Other settings while the queue goes on.
//!
//! What is used stays used: limits change in place, and an account that is removed stays known, out of service, until nothing of it counts any
//! more; whoever brings it back finds its budget and an operator's suspension as they were. An attempt under way ends on the account on which it
//! began, whether that is still there or not. All deliveries are lined up anew, oldest first, each where the new settings send it.

use std::collections::HashMap;

use crate::budget::{self, Limits};
use crate::clock::Timestamp;
use crate::mail::{AccountName, Class, ClientName, DeliveryId, RouteName};

use super::heed::Holder;
use super::lanes::LaneKey;
use super::scheduler::{Account, Place, Scheduler};
use super::{ACCOUNTS_MAX, AccountSettings, BudgetChange, Change, Settings, Who};

impl Scheduler {
    /// Goes on by other settings.
    pub fn change(&mut self, now: Timestamp, settings: Settings) {
        if settings.tenant != self.settings.tenant {
            self.tenant.change(now, &settings.tenant);
        }
        let former = std::mem::replace(&mut self.settings, settings);
        self.change_accounts(now, &former);
        for i in 0..self.routes.len() {
            let number = i as u16;
            let of_route = self.in_service().iter().enumerate().filter(|(_, account)| account.route == number);
            let accounts = of_route.fold(0, |set, (i, _)| set | 1 << i);
            let route = &mut self.routes[i];
            (route.accounts, route.apart) = (accounts, self.settings.apart.contains(&route.name));
        }
        self.line_up_anew();
        self.look_anew();
    }

    /// What stood in the way of an account or a route may have been put right: it is tried at once.
    pub fn try_again(&mut self, now: Timestamp, who: &Who) {
        match who {
            Who::Account(name) => {
                let Some(number) = self.accounts.iter().position(|account| account.name == *name) else { return };
                // What it shares with others is tried at once, and with this account.
                for holder in self.holders(number) {
                    let Self { accounts, apps, routes, tenant_gates, .. } = self;
                    holder.gates(accounts, apps, routes, tenant_gates).hurry();
                }
                let account = &mut self.accounts[number];
                account.probed_in = 0;
                account.width.forget();
                self.put_right(now, Holder::Account(number));
            }
            who => {
                let found = self.all_holders().find(|holder| self.who(*holder) == *who);
                found.into_iter().for_each(|holder| self.put_right(now, holder));
            }
        }
        self.look_anew();
    }

    fn put_right(&mut self, now: Timestamp, holder: Holder) {
        let troubled = self.gates(holder).each().into_iter().any(|gate| gate.trouble().is_some());
        let Self { accounts, apps, routes, tenant_gates, .. } = self;
        holder.gates(accounts, apps, routes, tenant_gates).put_right(now);
        match holder {
            // One of those that are all suspended alike: of the tenant is told when it has shown that it is well.
            Holder::Account(number) if troubled && self.told_alike && !self.is_apart(number) => self.accounts[number].unproven = Some(now),
            _ if troubled => self.news.push(Change::Opened { gate: self.who(holder) }),
            _ => {}
        }
    }

    /// A delivery goes another way from now on, as mail of that class. An attempt under way ends as it began. Returns whether there is one by this
    /// name.
    pub fn reroute(&mut self, delivery: DeliveryId, route: &RouteName, class: Class) -> bool {
        let Some(slot) = self.slot(delivery) else { return false };
        let route = self.route(route);
        let entry = &self.entries[slot as usize];
        let (author, place, LaneKey { priority, client, .. }) = (entry.author, entry.place, self.lanes.key(entry.lane));
        let lane = self.lane(priority, route, class, client, author);
        if place == Place::Ready {
            self.leave(slot);
        }
        let entry = &mut self.entries[slot as usize];
        (entry.class, entry.lane) = (class, lane);
        if place == Place::Ready {
            self.enter_lane(slot);
        }
        true
    }

    /// The account of that name; one that is not in service begins to be known.
    pub(super) fn known(&mut self, name: &AccountName) -> &mut Account {
        let known = self.accounts.iter().position(|account| account.name == *name);
        let i = known.unwrap_or_else(|| {
            // It takes no mail, so the name of its route does not matter.
            let route = self.route(&RouteName::new(String::new()));
            let (name, app) = (name.clone(), None);
            let settings =
                AccountSettings { name, route: RouteName::new(String::new()), app, connections: 0, limits: self.without_limits() };
            self.accounts.push(Account::new(&settings, route, None));
            self.accounts.len() - 1
        });
        &mut self.accounts[i]
    }

    /// Counts what is used and limits nothing.
    pub(super) fn without_limits(&self) -> Limits {
        Limits { day: self.settings.tenant.day, minute: self.settings.tenant.minute, ..Limits::NONE }
    }

    fn change_accounts(&mut self, now: Timestamp, former: &Settings) {
        let mut old: Vec<Option<Account>> = std::mem::take(&mut self.accounts).into_iter().map(Some).collect();
        let mut places = vec![0; old.len()];
        for wanted in self.settings.accounts.clone().into_iter().take(ACCOUNTS_MAX) {
            let route = self.route(&wanted.route);
            let app = wanted.app.clone().map(|app| self.app(app));
            let known = old.iter().position(|account| account.as_ref().is_some_and(|account| account.name == wanted.name));
            let account = match known.and_then(|i| Some((i, old[i].take()?))) {
                Some((i, mut account)) => {
                    places[i] = self.accounts.len();
                    let stays = former.accounts.iter().find(|former| former.name == wanted.name);
                    if stays.is_none_or(|former| former.limits != wanted.limits) {
                        account.budget.change(now, &wanted.limits);
                    }
                    if stays.is_none_or(|former| former.route != wanted.route) {
                        // What stood in its way was there.
                        account.gates.put_right(now);
                    }
                    if stays.is_none_or(|former| former.app != wanted.app) {
                        // It logs in otherwise.
                        account.gates.put_right(now);
                    }
                    if stays.is_none() {
                        account.width.forget();
                    }
                    (account.route, account.app) = (route, app);
                    account.width.configure(wanted.connections);
                    account
                }
                None => Account::new(&wanted, route, app),
            };
            self.accounts.push(account);
        }
        for (i, account) in old.into_iter().enumerate() {
            let Some(account) = account else { continue };
            if account.active > 0 || account.suspended.is_some() || !account.budget.is_idle(now) {
                places[i] = self.accounts.len();
                self.accounts.push(account);
            } else {
                self.forget(account);
            }
        }
        self.flights.values_mut().for_each(|flight| flight.account = places[flight.account]);
    }

    /// What is recorded of an account of which nothing counts any more goes too.
    fn forget(&mut self, Account { name, mut budget, .. }: Account) {
        let rows = budget.state();
        let gone = rows.into_iter().map(|row| budget::Change::Remove { limit: row.limit, slot: row.slot });
        let changes = budget.changes().into_iter().chain(gone);
        self.forgotten.extend(changes.map(|change| BudgetChange { account: Some(name.clone()), change }));
    }

    fn line_up_anew(&mut self) {
        let former_names: Vec<ClientName> = std::mem::take(&mut self.clients).into_iter().map(|client| client.settings.name).collect();
        let lanes = std::mem::take(&mut self.lanes);
        self.client_numbers.clear();
        for client in self.settings.clients.clone() {
            self.add_client(client);
        }
        // Many deliveries share a lane.
        let mut clients: HashMap<u32, u32> = HashMap::new();
        let slots: Vec<u32> = self.index.values().chain(self.held.values()).copied().collect();
        for slot in slots {
            let entry = &self.entries[slot as usize];
            let (class, author, place) = (entry.class, entry.author, entry.place);
            let LaneKey { priority, route, client, .. } = lanes.key(entry.lane);
            let client = match clients.get(&client) {
                Some(number) => *number,
                None => {
                    let number = self.client(&former_names[client as usize]);
                    clients.insert(client, number);
                    number
                }
            };
            let lane = self.lane(priority, route, class, client, author);
            let entry = &mut self.entries[slot as usize];
            // The accounts have other numbers now.
            (entry.lane, entry.avoid, entry.second) = (lane, None, false);
            if place == Place::Ready {
                self.line_up(slot);
            }
        }
    }
}
