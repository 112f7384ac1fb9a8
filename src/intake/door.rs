//! How many sessions there may be at a time, in total and from one address.
//!
//! The limit per address keeps one client gone mad, or one that leaks connections, from shutting out all others.

use std::collections::HashMap;
use std::net::IpAddr;

use super::Settings;
use crate::smtp::{EnhancedStatus, Reply};

/// Counts the sessions that are open.
#[derive(Debug, Clone)]
pub struct Door {
    most: usize,
    most_per_address: usize,
    total: usize,
    per_address: HashMap<IpAddr, usize>,
}

impl Door {
    /// Nobody is in yet.
    pub fn new(settings: &Settings) -> Self {
        Self { most: settings.sessions, most_per_address: settings.sessions_per_address, total: 0, per_address: HashMap::new() }
    }

    /// Other limits; whoever is in stays.
    pub fn change(&mut self, settings: &Settings) {
        (self.most, self.most_per_address) = (settings.sessions, settings.sessions_per_address);
    }

    /// Lets a connection in; then [`Door::leave`] must be called when it ends.
    ///
    /// # Errors
    /// The greeting with which to send it away (421, to be tried again later); then it is not counted.
    pub fn admit(&mut self, peer: IpAddr) -> Result<(), Reply> {
        let peer = peer.to_canonical();
        if self.total >= self.most {
            return Err(self.all_in_use());
        }
        let count = self.per_address.get(&peer).copied().unwrap_or(0);
        if count >= self.most_per_address {
            return Err(busy(format!(
                "{peer} has {count} sessions open, the most that one address may have: close some, or raise the limit `sessions_per_address`"
            )));
        }
        self.per_address.insert(peer, count + 1);
        self.total += 1;
        Ok(())
    }

    /// Lets in a connection of which only the load balancer is known that passes it on; then [`Door::name`] or [`Door::leave_unnamed`] must be
    /// called.
    ///
    /// # Errors
    /// As [`Door::admit`].
    pub fn admit_unnamed(&mut self) -> Result<(), Reply> {
        if self.total >= self.most {
            return Err(self.all_in_use());
        }
        self.total += 1;
        Ok(())
    }

    /// Says whose a connection is that was let in unnamed; from then on it is as if [`Door::admit`] had let it in.
    ///
    /// # Errors
    /// If that address has too many; then the connection still counts, unnamed.
    pub fn name(&mut self, peer: IpAddr) -> Result<(), Reply> {
        self.leave_unnamed();
        self.admit(peer).inspect_err(|_| self.total += 1)
    }

    /// A connection that was let in unnamed has ended.
    pub fn leave_unnamed(&mut self) {
        self.total = self.total.saturating_sub(1);
    }

    /// A connection that was admitted has ended.
    pub fn leave(&mut self, peer: IpAddr) {
        let peer = peer.to_canonical();
        let Some(count) = self.per_address.get_mut(&peer) else { return };
        *count -= 1;
        self.total -= 1;
        if *count == 0 {
            self.per_address.remove(&peer);
        }
    }

    fn all_in_use(&self) -> Reply {
        busy(format!("All {} sessions are in use: try again later, or raise the limit `sessions`", self.most))
    }

    /// How many sessions are open.
    pub fn sessions(&self) -> usize {
        self.total
    }
}

fn busy(text: String) -> Reply {
    Reply::new(421, EnhancedStatus::new(4, 7, 0), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn admits_up_to_the_limits_and_again_after_somebody_left() {
        let mut door = Door::new(&Settings { sessions: 3, sessions_per_address: 2, ..Settings::default() });
        let (a, b, c) = (address("10.0.0.1"), address("10.0.0.2"), address("10.0.0.3"));
        assert_eq!(door.admit(a), Ok(()));
        assert_eq!(door.admit(address("::ffff:10.0.0.1")), Ok(()));
        let refusal = door.admit(a).expect_err("one address has too many").to_string();
        assert!(refusal.starts_with("421 4.7.0 10.0.0.1 has 2 sessions open"), "{refusal}");
        assert_eq!(door.admit(b), Ok(()));
        let refusal = door.admit(c).expect_err("too many in total").to_string();
        assert!(refusal.starts_with("421 4.7.0 All 3 sessions are in use"), "{refusal}");
        door.leave(a);
        assert_eq!(door.admit(c), Ok(()));
        assert_eq!(door.sessions(), 3);
    }

    #[test]
    fn a_lower_limit_lets_nobody_in_until_enough_have_left() {
        let mut door = Door::new(&Settings { sessions: 3, sessions_per_address: 3, ..Settings::default() });
        let (a, b) = (address("10.0.0.1"), address("10.0.0.2"));
        [a, a, b].into_iter().for_each(|peer| door.admit(peer).expect("room"));
        door.change(&Settings { sessions: 2, sessions_per_address: 1, ..Settings::default() });
        door.admit(b).expect_err("all are in use");
        door.leave(a);
        door.leave(b);
        door.admit(a).expect_err("it has as many as it may");
        assert_eq!(door.admit(b), Ok(()));
        assert_eq!(door.sessions(), 2);
    }

    #[test]
    fn forgets_addresses_that_have_left() {
        let mut door = Door::new(&Settings { sessions: 10, sessions_per_address: 1, ..Settings::default() });
        door.admit(address("10.0.0.1")).expect("room");
        door.leave(address("10.0.0.1"));
        door.leave(address("10.0.0.1"));
        assert_eq!((door.sessions(), door.per_address.len()), (0, 0));
    }

    #[test]
    fn a_connection_counts_for_its_client_and_not_for_the_balancer() {
        let mut door = Door::new(&Settings { sessions: 3, sessions_per_address: 1, ..Settings::default() });
        let (a, b) = (address("10.0.0.1"), address("10.0.0.2"));
        for client in [a, b] {
            door.admit_unnamed().expect("room");
            door.name(client).expect("its first");
        }
        door.admit_unnamed().expect("room");
        door.name(a).expect_err("its second");
        assert_eq!(door.sessions(), 3);
        door.admit_unnamed().expect_err("all are in use");
        door.leave_unnamed();
        door.leave(a);
        door.leave(b);
        assert_eq!((door.sessions(), door.per_address.len()), (0, 0));
    }

    #[test]
    fn a_refused_address_is_not_remembered() {
        let mut door = Door::new(&Settings { sessions: 10, sessions_per_address: 0, ..Settings::default() });
        door.admit(address("10.0.0.1")).expect_err("no room for anybody");
        assert!(door.per_address.is_empty());
    }
}
