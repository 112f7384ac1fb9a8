//! A session's place at the door, and the bell that asks it to go.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore};

use super::Shared;
use super::descriptors::TURNED_AWAY;
use crate::intake::{Door, Policy, Settings, Standing, Ticket, Visitor};
use crate::smtp::Reply;
use crate::store::Spool;

/// The door with what it takes to ask somebody to go.
pub(super) struct Doorway {
    inside: Mutex<Inside>,
    /// Those who are told at their leisure why they are refused: that takes descriptors too.
    pub turned_away: Semaphore,
}

struct Inside {
    door: Door,
    bells: HashMap<Ticket, Arc<Notify>>,
}

impl Doorway {
    /// Nobody is in yet.
    pub fn new(settings: &Settings) -> Self {
        let inside = Mutex::new(Inside { door: Door::new(settings), bells: HashMap::new() });
        Self { inside, turned_away: Semaphore::new(TURNED_AWAY) }
    }

    /// How many sessions are open.
    pub fn sessions(&self) -> usize {
        self.inside().door.sessions()
    }

    /// Other limits; whoever is in stays.
    pub fn keep_to(&self, settings: &Settings) {
        self.inside().door.keep_to(settings);
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        // Counting cannot panic half-way, so a poisoned lock still guards true numbers.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inside {
    fn ring(&self, ticket: Option<Ticket>) {
        if let Some(bell) = ticket.and_then(|ticket| self.bells.get(&ticket)) {
            bell.notify_one();
        }
    }
}

/// A place, given back however its session ends.
pub(super) struct Place<'a, S: Spool> {
    shared: &'a Shared<S>,
    ticket: Ticket,
    bell: Arc<Notify>,
}

impl<'a, S: Spool> Place<'a, S> {
    /// For a connection from there; `None`: it is a balancer's, which will say where from.
    ///
    /// # Errors
    /// The refusal if there is no room.
    pub fn take(shared: &'a Shared<S>, peer: Option<IpAddr>) -> Result<Self, Reply> {
        let bell = Arc::new(Notify::new());
        let visitor = peer.map(|peer| visitor(&shared.setup().policy, peer));
        let mut inside = shared.doorway.inside();
        let admission = inside.door.admit(shared.clock.now(), visitor)?;
        inside.bells.insert(admission.ticket, bell.clone());
        inside.ring(admission.instead_of);
        Ok(Self { shared, ticket: admission.ticket, bell })
    }

    /// Whose connection a balancer has passed on.
    ///
    /// # Errors
    /// As [`Place::take`].
    pub fn name(&self, peer: IpAddr) -> Result<(), Reply> {
        let visitor = visitor(&self.shared.setup().policy, peer);
        let mut inside = self.shared.doorway.inside();
        let instead_of = inside.door.name(self.shared.clock.now(), self.ticket, visitor)?;
        inside.ring(instead_of);
        Ok(())
    }

    /// Says what the session is doing, for those who wait for a place.
    pub fn stands(&self, standing: Standing) {
        self.shared.doorway.inside().door.stands(self.ticket, standing);
    }

    /// Returns when the session is to go, once.
    pub async fn asked_to_go(&self) {
        self.bell.notified().await;
    }
}

impl<S: Spool> Drop for Place<'_, S> {
    fn drop(&mut self) {
        let mut inside = self.shared.doorway.inside();
        inside.door.leave(self.ticket);
        inside.bells.remove(&self.ticket);
    }
}

fn visitor(policy: &Policy, peer: IpAddr) -> Visitor {
    (peer, policy.client(peer).map(|client| client.name.clone()))
}
