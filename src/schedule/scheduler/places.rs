//! Where each delivery is: in a lane, waiting for its time, held, or under way; and the numbers that names have here.

use super::{Account, App, Client, Entry, Place, Route, Scheduler, hash};
use crate::clock::Timestamp;
use crate::mail::{AccountName, AppName, Class, ClientName, DeliveryId, Priority, QueueId, RouteName};
use crate::schedule::gate::Gates;
use crate::schedule::lanes::{AccountSet, Group, LaneKey, Ticket};
use crate::schedule::{ACCOUNTS_MAX, ClientSettings};

impl Scheduler {
    /// Puts a delivery that is nowhere, or whose attempt has ended, where it must wait.
    pub(super) fn place(&mut self, now: Timestamp, slot: u32, due: Timestamp) {
        let entry = &mut self.entries[slot as usize];
        if entry.held {
            entry.place = Place::Held(due);
            self.index.remove(&entry.id);
            self.held.insert(entry.id, slot);
        } else if due > now {
            entry.place = Place::Waiting(due);
            self.waiting.insert((due, slot));
        } else {
            self.enter_lane(slot);
        }
    }

    /// Takes a delivery from where it waits and places it anew.
    pub(super) fn move_to(&mut self, now: Timestamp, slot: u32, due: Timestamp) {
        self.leave(slot);
        self.place(now, slot, due);
    }

    pub(in crate::schedule) fn enter_lane(&mut self, slot: u32) {
        self.entries[slot as usize].place = Place::Ready;
        self.ready += 1;
        self.line_up(slot);
    }

    /// Puts what is ready at the end of its lane.
    pub(in crate::schedule) fn line_up(&mut self, slot: u32) {
        let entry = &mut self.entries[slot as usize];
        entry.stamp = entry.stamp.wrapping_add(1);
        self.lanes.push(entry.lane, Ticket { slot, stamp: entry.stamp }, entry.attempted);
    }

    pub(in crate::schedule) fn leave(&mut self, slot: u32) {
        let place = std::mem::replace(&mut self.entries[slot as usize].place, Place::Gone);
        match place {
            Place::Ready => {
                self.ready -= 1;
                let (lane, entries) = (self.entries[slot as usize].lane, &self.entries);
                self.lanes.mark(lane, |ticket| is_alive(entries, ticket));
            }
            Place::Waiting(due) => {
                self.waiting.remove(&(due, slot));
            }
            Place::Held(_) => {
                let id = self.entries[slot as usize].id;
                self.held.remove(&id);
                self.index.insert(id, slot);
            }
            Place::Active | Place::Gone => {}
        }
    }

    pub(super) fn remove(&mut self, delivery: DeliveryId) {
        if let Some(slot) = self.slot(delivery) {
            self.leave(slot);
            self.index.remove(&delivery);
            self.free.push(slot);
        }
    }

    /// The oldest delivery that is not active, and when it expires. Queue ids sort by time, so the oldest expires first.
    pub(super) fn first_idle(&self) -> Option<(DeliveryId, Timestamp)> {
        let entries = self.index.values().map(|slot| &self.entries[*slot as usize]);
        entries.filter(|entry| entry.place != Place::Active).map(|entry| (entry.id, entry.accepted_at + self.settings.lifetime)).next()
    }

    pub(in crate::schedule) fn entry(&self, delivery: DeliveryId) -> Option<&Entry> {
        self.slot(delivery).map(|slot| &self.entries[slot as usize])
    }

    pub(in crate::schedule) fn group_of(&self, entry: &Entry) -> &Group {
        self.lanes.group(entry.lane)
    }

    /// All deliveries: those that are not held, oldest first, then those that are.
    pub(in crate::schedule) fn all(&self) -> impl Iterator<Item = &Entry> {
        self.index.values().chain(self.held.values()).map(|slot| &self.entries[*slot as usize])
    }

    /// Whether there is a delivery of a message.
    pub fn knows(&self, message: QueueId) -> bool {
        let all = DeliveryId { message, part: 0 }..=DeliveryId { message, part: u16::MAX };
        self.index.range(all.clone()).chain(self.held.range(all)).next().is_some()
    }

    pub(in crate::schedule) fn slot(&self, delivery: DeliveryId) -> Option<u32> {
        self.index.get(&delivery).or_else(|| self.held.get(&delivery)).copied()
    }

    /// Where a delivery waits when it is due.
    pub(in crate::schedule) fn lane(&mut self, priority: Priority, route: u16, class: Class, client: u32, author: u64) -> u32 {
        let Client { settings, accounts, .. } = &self.clients[client as usize];
        let mut accounts = accounts & self.routes[usize::from(route)].accounts;
        // An author that is an account is not to be rewritten into another one.
        let own = self.in_service().iter().position(|account| account.mark == author);
        if let Some(own) = own.filter(|own| accounts & (1 << own) != 0) {
            accounts = 1 << own;
        }
        self.lanes.lane(LaneKey { priority, route, class, accounts, client }, settings.weight)
    }

    pub(in crate::schedule) fn route(&mut self, name: &RouteName) -> u16 {
        let known = self.routes.iter().position(|route| route.name == *name);
        let number = known.unwrap_or_else(|| {
            let apart = self.settings.apart.contains(name);
            self.routes.push(Route { name: name.clone(), gates: Gates::default(), accounts: 0, apart });
            self.routes.len() - 1
        });
        number as u16
    }

    pub(in crate::schedule) fn app(&mut self, name: AppName) -> usize {
        self.apps.iter().position(|app| app.name == name).unwrap_or_else(|| {
            self.apps.push(App { name, gates: Gates::default() });
            self.apps.len() - 1
        })
    }

    pub(in crate::schedule) fn client(&mut self, name: &ClientName) -> u32 {
        match self.client_numbers.get(name) {
            Some(number) => *number,
            None => self.add_client(ClientSettings::new(name.clone())),
        }
    }

    pub(in crate::schedule) fn add_client(&mut self, settings: ClientSettings) -> u32 {
        let named = |name: &AccountName| self.in_service().iter().position(|account| account.name == *name);
        let accounts = match &settings.accounts {
            None => AccountSet::MAX,
            Some(names) => names.iter().filter_map(named).fold(0, |set, i| set | 1 << i),
        };
        let number = self.clients.len() as u32;
        self.client_numbers.insert(settings.name.clone(), number);
        let mark = hash(settings.name.as_str());
        self.clients.push(Client { settings, accounts, mark });
        number
    }

    /// The accounts of the settings.
    pub(in crate::schedule) fn in_service(&self) -> &[Account] {
        &self.accounts[..self.settings.accounts.len().min(ACCOUNTS_MAX)]
    }
}

/// Whether a ticket still stands for its delivery.
pub(super) fn is_alive(entries: &[Entry], ticket: Ticket) -> bool {
    entries.get(ticket.slot as usize).is_some_and(|entry| entry.place == Place::Ready && entry.stamp == ticket.stamp)
}
