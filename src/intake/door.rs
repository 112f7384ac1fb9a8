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

    /// Lets a connection in; then [`Door::leave`] must be called when it ends.
    ///
    /// # Errors
    /// The greeting with which to send it away (421, to be tried again later); then it is not counted.
    pub fn admit(&mut self, peer: IpAddr) -> Result<(), Reply> {
        let peer = peer.to_canonical();
        if self.total >= self.most {
            return Err(busy(format!("All {} sessions are in use: try again later, or raise the limit `sessions`", self.most)));
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
    fn forgets_addresses_that_have_left() {
        let mut door = Door::new(&Settings { sessions: 10, sessions_per_address: 1, ..Settings::default() });
        door.admit(address("10.0.0.1")).expect("room");
        door.leave(address("10.0.0.1"));
        door.leave(address("10.0.0.1"));
        assert_eq!((door.sessions(), door.per_address.len()), (0, 0));
    }

    #[test]
    fn a_refused_address_is_not_remembered() {
        let mut door = Door::new(&Settings { sessions: 10, sessions_per_address: 0, ..Settings::default() });
        door.admit(address("10.0.0.1")).expect_err("no room for anybody");
        assert!(door.per_address.is_empty());
    }
}
