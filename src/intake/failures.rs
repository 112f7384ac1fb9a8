//! Logins that failed, counted for each address: each is answered later than the one before it, and after a number of them no further login is
//! tried from there for a while.
//!
//! Nobody can lock a user out: addresses are counted, not names. Of IPv6 a /64 counts as one address, for that is what one host may have.
//! An address whose last failure is older than [`MEMORY`] is forgotten, and so is one that has logged in. Limit: [`ADDRESSES`]; beyond, the
//! address is forgotten whose last failure is longest ago.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::smtp::{EnhancedStatus, Reply};

/// How long a failure counts.
const MEMORY: Duration = Duration::from_secs(600);
/// Addresses that are remembered: some hundred octets each.
const ADDRESSES: usize = 10_000;
/// What the first failure costs; each further one costs twice as much as the one before.
const FIRST_DELAY: Duration = Duration::from_millis(500);
/// What it costs at most.
const LONGEST_DELAY: Duration = Duration::from_secs(16);

/// The failures so far.
#[derive(Debug, Clone)]
pub struct Failures {
    most: usize,
    addresses: HashMap<IpAddr, Failed>,
}

#[derive(Debug, Clone, Copy)]
struct Failed {
    count: usize,
    last: Timestamp,
}

impl Failures {
    /// None yet; after `most` an address is barred.
    pub fn new(most: usize) -> Self {
        Self { most, addresses: HashMap::new() }
    }

    /// Another number; what failed still counts.
    pub fn change(&mut self, most: usize) {
        self.most = most;
    }

    /// A login failed. Returns how long its refusal is to wait, and how many failures there have been.
    pub fn failed(&mut self, peer: IpAddr, now: Timestamp) -> (Duration, usize) {
        let address = counted(peer);
        if !self.addresses.contains_key(&address) && self.addresses.len() >= ADDRESSES {
            self.make_room(now);
        }
        let failed = self.addresses.entry(address).or_insert(Failed { count: 0, last: now });
        if now.since(failed.last) > MEMORY {
            failed.count = 0;
        }
        failed.count += 1;
        failed.last = now;
        let doublings = u32::try_from(failed.count - 1).unwrap_or(u32::MAX).min(16);
        ((FIRST_DELAY * 2_u32.pow(doublings)).min(LONGEST_DELAY), failed.count)
    }

    /// A login succeeded.
    pub fn succeeded(&mut self, peer: IpAddr) {
        self.addresses.remove(&counted(peer));
    }

    /// Whether another login may be tried from there.
    ///
    /// # Errors
    /// The 421 for an address with too many failures.
    pub fn admit(&self, peer: IpAddr, now: Timestamp) -> Result<(), Reply> {
        match self.addresses.get(&counted(peer)) {
            Some(failed) if failed.count >= self.most && now.since(failed.last) <= MEMORY => {
                let minutes = MEMORY.as_secs() / 60;
                let text = format!(
                    "{} logins from {peer} have failed: correct user name and password in the device, and try again {minutes} minutes after the last",
                    failed.count
                );
                Err(Reply::new(421, EnhancedStatus::new(4, 7, 0), text))
            }
            _ => Ok(()),
        }
    }

    fn make_room(&mut self, now: Timestamp) {
        self.addresses.retain(|_, failed| now.since(failed.last) <= MEMORY);
        if self.addresses.len() >= ADDRESSES
            && let Some(oldest) = self.addresses.iter().min_by_key(|(_, failed)| failed.last).map(|(address, _)| *address)
        {
            self.addresses.remove(&oldest);
        }
    }
}

/// The address that a peer counts as.
fn counted(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_000_000);

    fn address(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn each_failure_costs_twice_as_much_until_the_address_is_barred() {
        let mut failures = Failures::new(8);
        let a = address("10.0.0.1");
        let mut delays = Vec::new();
        while failures.admit(a, START).is_ok() {
            delays.push(failures.failed(a, START).0.as_millis());
        }
        assert_eq!(delays, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 16_000, 16_000]);
        let refusal = failures.admit(a, START).expect_err("barred").to_string();
        assert!(refusal.starts_with("421 4.7.0 8 logins from 10.0.0.1 have failed"), "{refusal}");
        assert_eq!(failures.admit(address("10.0.0.2"), START), Ok(()));
        assert_eq!(failures.admit(a, START + MEMORY + Duration::from_millis(1)), Ok(()));
    }

    #[test]
    fn a_login_or_time_lets_failures_be_forgotten() {
        let mut failures = Failures::new(2);
        let a = address("10.0.0.1");
        failures.failed(a, START);
        failures.succeeded(address("::ffff:10.0.0.1"));
        assert_eq!(failures.failed(a, START), (FIRST_DELAY, 1));
        let later = START + MEMORY + Duration::from_millis(1);
        assert_eq!(failures.failed(a, later), (FIRST_DELAY, 1));
        assert_eq!(failures.failed(a, later), (FIRST_DELAY * 2, 2));
    }

    #[test]
    fn a_host_with_many_addresses_is_one_host() {
        let mut failures = Failures::new(2);
        failures.failed(address("2001:db8::1"), START);
        failures.failed(address("2001:db8::ffff:2"), START);
        assert!(failures.admit(address("2001:db8::3"), START).is_err());
        assert!(failures.admit(address("2001:db8:0:1::3"), START).is_ok());
    }

    #[test]
    fn no_number_of_addresses_takes_more_room_than_it_may() {
        let mut failures = Failures::new(2);
        for number in 0..ADDRESSES as u32 + 100 {
            failures.failed(IpAddr::V4(number.into()), START + Duration::from_millis(u64::from(number) / 100));
        }
        assert_eq!(failures.addresses.len(), ADDRESSES);
        failures.failed(address("192.0.2.1"), START + MEMORY * 2);
        assert_eq!(failures.addresses.len(), 1);
    }
}
