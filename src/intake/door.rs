//! How many sessions there may be at a time, and which of them makes room when there is no place left.
//!
//! Beside the limits in total and for each address there is a fair share: half of the places are shared out evenly among the clients, and
//! nobody else gets those; the other half is for whoever comes first. So no client can shut out another one, whatever it does. Strangers,
//! who may log in somewhere, and connections that a balancer has not said yet whose they are, count as one client more.
//!
//! Where a client finds no place, a session that does nothing is asked to go for it, its own or one that has a place of those for everybody:
//! an idle one first, then one that is slower than any device has to be; of several, one of the address that has the most, and of its own the
//! one that has done nothing for the longest time. Nobody gets room at the cost of an address with fewer sessions. As long as there is room,
//! everybody may be as idle as the time limits let him, and as slow as he likes.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::Settings;
use crate::clock::Timestamp;
use crate::mail::ClientName;
use crate::smtp::{EnhancedStatus, Reply};

/// How long a session must have been idle before it is asked to go. Postfix gives clients as long when it is under stress.
const IDLE: Duration = Duration::from_secs(10);
/// For how long it must have been slow.
const SLOW: Duration = Duration::from_secs(60);
/// Octets of content in a second, on average, below which it is slow: what a serial line of 9,600 baud carries.
const SLOW_RATE: u64 = 1_000;
/// How long it is believed that nobody can be asked to go: to find out means to look at everybody.
const IN_VAIN: Duration = Duration::from_secs(1);

/// A session's place, until it is given back with [`Door::leave`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// A connection that is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// Its place.
    pub ticket: Ticket,
    /// The session that is to be asked to go for it.
    pub instead_of: Option<Ticket>,
}

/// Whose connection it is: the address, and whose that is.
pub type Visitor = (IpAddr, Option<ClientName>);

/// What a session is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It waits for the relay.
    Busy,
    /// Nothing has come of a command, a handshake or a header since then.
    Idle(Timestamp),
    /// Something has come, and its end has not.
    Begun(Timestamp),
    /// Content comes in, so much since then.
    Content(Timestamp, u64),
}

impl Standing {
    /// For how long it has done nothing useful, if it is long enough to be asked to go; and whether that is nothing at all.
    fn useless(self, now: Timestamp) -> Option<(bool, Duration)> {
        let (is_idle, since) = match self {
            Self::Busy => return None,
            Self::Idle(since) => (true, since),
            Self::Begun(since) => (false, since),
            Self::Content(since, octets) if octets / SLOW_RATE >= now.since(since).as_secs() => return None,
            Self::Content(since, _) => (false, since),
        };
        let long = now.since(since);
        (long >= if is_idle { IDLE } else { SLOW }).then_some((is_idle, long))
    }
}

/// Counts the sessions that are open.
#[derive(Debug, Clone)]
pub struct Door {
    most: usize,
    most_per_address: usize,
    /// Places for whoever comes first.
    common: usize,
    next: u64,
    places: HashMap<Ticket, Place>,
    /// Sessions of each address; here as in the shares, those that were asked to go no longer count.
    addresses: HashMap<IpAddr, usize>,
    /// `None`: strangers.
    shares: HashMap<Option<ClientName>, Share>,
}

#[derive(Debug, Clone)]
struct Place {
    /// None: of a balancer that has not said whose it is.
    peer: Option<IpAddr>,
    client: Option<ClientName>,
    standing: Standing,
    is_leaving: bool,
}

#[derive(Debug, Clone, Default)]
struct Share {
    /// Places that nobody else gets.
    own: usize,
    sessions: usize,
    in_vain: Option<InVain>,
}

impl Share {
    fn of_common(&self) -> usize {
        self.sessions.saturating_sub(self.own)
    }
}

/// When nobody was found who could be asked to go, for somebody whose address has so many sessions.
#[derive(Debug, Clone, Copy)]
struct InVain(Timestamp, usize);

impl InVain {
    fn holds(self, now: Timestamp, sessions: usize) -> bool {
        now.since(self.0) < IN_VAIN && sessions >= self.1
    }
}

impl Door {
    /// Nobody is in yet.
    pub fn new(settings: &Settings) -> Self {
        let mut door = Self {
            most: 0,
            most_per_address: 0,
            common: 0,
            next: 0,
            places: HashMap::new(),
            addresses: HashMap::new(),
            shares: HashMap::new(),
        };
        door.keep_to(settings);
        door
    }

    /// Keeps to these from now on. Who is in stays, also where there are too many.
    pub fn keep_to(&mut self, settings: &Settings) {
        let strangers = settings.strangers_may_log_in.then_some(None);
        let clients = settings.clients.iter().filter(|client| !client.networks.is_empty()).map(|client| Some(client.name.clone()));
        let claimants: Vec<Option<ClientName>> = clients.chain(strangers).collect();
        let own = settings.sessions / 2 / claimants.len().max(1);
        (self.most, self.most_per_address) = (settings.sessions, settings.sessions_per_address);
        self.common = settings.sessions - own * claimants.len();
        self.shares.retain(|_, share| share.sessions > 0);
        self.shares.values_mut().for_each(|share| share.own = 0);
        claimants.into_iter().for_each(|client| self.shares.entry(client).or_default().own = own);
    }

    /// Lets a connection in; `None` is one of which only the load balancer is known that passes it on: then [`Door::name`] follows.
    ///
    /// # Errors
    /// The greeting with which to send it away (421, to be tried again later); then it has no place.
    pub fn admit(&mut self, now: Timestamp, visitor: Option<Visitor>) -> Result<Admission, Reply> {
        let (peer, client) = visitor.map_or((None, None), |(peer, client)| (Some(peer.to_canonical()), client));
        let instead_of = self.room(now, peer, &client)?;
        self.next += 1;
        let ticket = Ticket(self.next);
        let place = Place { peer, client, standing: Standing::Idle(now), is_leaving: false };
        self.count(&place);
        self.places.insert(ticket, place);
        Ok(Admission { ticket, instead_of })
    }

    /// Says whose a connection is that was let in without; returns who is to be asked to go for it.
    ///
    /// # Errors
    /// As [`Door::admit`]; then it still has its place.
    pub fn name(&mut self, now: Timestamp, ticket: Ticket, (peer, client): Visitor) -> Result<Option<Ticket>, Reply> {
        let Some(mut place) = self.take(ticket).filter(|place| !place.is_leaving) else { return Ok(None) };
        let peer = Some(peer.to_canonical());
        let room = self.room(now, peer, &client);
        if room.is_ok() {
            (place.peer, place.client) = (peer, client);
        }
        self.count(&place);
        self.places.insert(ticket, place);
        room
    }

    /// Notes what a session is doing.
    pub fn stands(&mut self, ticket: Ticket, standing: Standing) {
        if let Some(place) = self.places.get_mut(&ticket) {
            place.standing = standing;
        }
    }

    /// A connection has ended.
    pub fn leave(&mut self, ticket: Ticket) {
        self.take(ticket);
    }

    /// How many sessions are open.
    pub fn sessions(&self) -> usize {
        self.places.len()
    }

    fn take(&mut self, ticket: Ticket) -> Option<Place> {
        let place = self.places.remove(&ticket)?;
        if !place.is_leaving {
            self.discount(&place);
        }
        Some(place)
    }

    fn count(&mut self, place: &Place) {
        if let Some(peer) = place.peer {
            *self.addresses.entry(peer).or_default() += 1;
        }
        self.shares.entry(place.client.clone()).or_default().sessions += 1;
    }

    fn discount(&mut self, place: &Place) {
        if let Some(peer) = place.peer
            && let Some(count) = self.addresses.get_mut(&peer)
        {
            *count -= 1;
            if *count == 0 {
                self.addresses.remove(&peer);
            }
        }
        if let Some(share) = self.shares.get_mut(&place.client) {
            share.sessions -= 1;
        }
    }

    /// Sees to it that there is room for one more; returns who is to be asked to go for it.
    fn room(&mut self, now: Timestamp, peer: Option<IpAddr>, client: &Option<ClientName>) -> Result<Option<Ticket>, Reply> {
        let of_address = peer.map_or(0, |peer| self.sessions_of(peer));
        if let Some(peer) = peer.filter(|_| of_address >= self.most_per_address) {
            return Err(busy(format!(
                "{peer} has {of_address} sessions open, the most that one address may have: close some, or raise the limit `sessions_per_address`"
            )));
        }
        let share = self.shares.entry(client.clone()).or_default();
        let (own, sessions) = (share.own, share.sessions);
        if sessions < own || self.shares.values().map(Share::of_common).sum::<usize>() < self.common {
            return Ok(None);
        }
        let asked = self.ask(now, of_address, client);
        asked.map(Some).ok_or_else(|| self.none_left(client, sessions))
    }

    /// Finds who can be asked to go for a client that has had its share, and one more of whose address is to come in.
    fn ask(&mut self, now: Timestamp, of_address: usize, client: &Option<ClientName>) -> Option<Ticket> {
        if self.shares.get(client).and_then(|share| share.in_vain).is_some_and(|in_vain| in_vain.holds(now, of_address)) {
            return None;
        }
        let found = self.least_useful(now, of_address, client);
        if let Some(ticket) = found
            && let Some(mut place) = self.take(ticket)
        {
            place.is_leaving = true;
            self.places.insert(ticket, place);
        } else if let Some(share) = self.shares.get_mut(client) {
            share.in_vain = Some(InVain(now, of_address));
        }
        found
    }

    fn least_useful(&self, now: Timestamp, of_address: usize, client: &Option<ClientName>) -> Option<Ticket> {
        let makes_room =
            |place: &Place| place.client == *client || self.shares.get(&place.client).is_some_and(|share| share.of_common() > 0);
        let ranked = self.places.iter().filter(|(_, place)| !place.is_leaving).filter_map(|(ticket, place)| {
            let (is_idle, long) = place.standing.useless(now)?;
            // A balancer that does not say whose its connections are has nobody who could miss them.
            let others = place.peer.map_or(usize::MAX, |peer| self.sessions_of(peer));
            (others >= of_address && makes_room(place)).then_some((is_idle, others, long, Reverse(*ticket)))
        });
        ranked.max().map(|(.., Reverse(ticket))| ticket)
    }

    fn sessions_of(&self, peer: IpAddr) -> usize {
        self.addresses.get(&peer).copied().unwrap_or(0)
    }

    fn none_left(&self, client: &Option<ClientName>, sessions: usize) -> Reply {
        let left = self.most.saturating_sub(self.shares.values().map(|share| share.sessions).sum());
        if left == 0 {
            return busy(format!("All {} sessions are in use: try again later, or raise the limit `sessions`", self.most));
        }
        let who = client.as_ref().map_or_else(|| "Those who are no client".to_owned(), |client| format!("The client {client}"));
        let has = if client.is_some() { "has" } else { "have" };
        busy(format!(
            "{who} {has} {sessions} sessions open, and the {left} of {} that are left are for others: close some, or raise the limit `sessions`",
            self.most
        ))
    }
}

fn busy(text: String) -> Reply {
    Reply::new(421, EnhancedStatus::new(4, 7, 0), text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intake::ClientSettings;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_795_285_881_000) + Duration::from_secs(seconds)
    }

    /// With so many clients, that are named as their networks: `10.1` for `10.1.0.0/16`.
    fn settings(clients: usize, sessions: usize, sessions_per_address: usize) -> Settings {
        let client =
            |n| ClientSettings::new(ClientName::new(format!("10.{n}")), vec![format!("10.{n}.0.0/16").parse().expect("a network")]);
        Settings { sessions, sessions_per_address, clients: (1..=clients).map(client).collect(), ..Settings::default() }
    }

    fn door(clients: usize, sessions: usize, sessions_per_address: usize) -> Door {
        Door::new(&settings(clients, sessions, sessions_per_address))
    }

    fn visitor(address: &str) -> Option<Visitor> {
        let client = address.rsplitn(3, '.').last().expect("a network");
        Some((address.parse().expect(address), Some(ClientName::new(client))))
    }

    fn refusal(answer: Result<Admission, Reply>) -> String {
        answer.expect_err("no room").to_string()
    }

    /// As many as are let in, of which nobody is asked to go.
    fn fill(door: &mut Door, now: Timestamp, address: &str) -> Vec<Ticket> {
        std::iter::from_fn(|| door.admit(now, visitor(address)).ok().filter(|admission| admission.instead_of.is_none()))
            .map(|admission| admission.ticket)
            .collect()
    }

    #[test]
    fn admits_up_to_the_limits_and_again_after_somebody_left() {
        let mut door = door(1, 3, 2);
        let first = door.admit(at(0), visitor("10.1.0.1")).expect("room").ticket;
        let mapped = Some(("::ffff:10.1.0.1".parse().expect("an address"), Some(ClientName::new("10.1"))));
        door.admit(at(0), mapped).expect("room");
        let told = refusal(door.admit(at(0), visitor("10.1.0.1")));
        assert!(told.starts_with("421 4.7.0 10.1.0.1 has 2 sessions open"), "{told}");
        door.admit(at(0), visitor("10.1.0.2")).expect("room");
        let told = refusal(door.admit(at(0), visitor("10.1.0.3")));
        assert!(told.starts_with("421 4.7.0 All 3 sessions are in use"), "{told}");
        door.leave(first);
        door.leave(first);
        door.admit(at(0), visitor("10.1.0.3")).expect("a place was given back");
        assert_eq!(door.sessions(), 3);
    }

    #[test]
    fn half_of_the_places_are_for_whoever_comes_first_and_the_rest_for_each_client() {
        let mut door = door(5, 1_000, 1_000);
        assert_eq!(fill(&mut door, at(0), "10.1.0.1").len(), 600);
        let told = refusal(door.admit(at(0), visitor("10.1.0.2")));
        assert_eq!(
            told,
            "421 4.7.0 The client 10.1 has 600 sessions open, and the 400 of 1000 that are left are for others: close some, or raise the limit `sessions`"
        );
        let told = refusal(door.admit(at(0), Some(("192.0.2.1".parse().expect("an address"), None))));
        assert!(told.starts_with("421 4.7.0 Those who are no client have 0 sessions open"), "{told}");
        for network in 2..=5 {
            assert_eq!(fill(&mut door, at(0), &format!("10.{network}.0.1")).len(), 100);
        }
        let told = refusal(door.admit(at(0), visitor("10.5.0.2")));
        assert!(told.contains("All 1000 sessions are in use"), "{told}");
    }

    #[test]
    fn strangers_have_a_share_where_they_may_log_in() {
        let settings = Settings { sessions: 100, sessions_per_address: 100, strangers_may_log_in: true, ..Settings::default() };
        let client = ClientSettings::new(ClientName::new("10.1"), vec!["10.1.0.0/16".parse().expect("a network")]);
        // Nobody comes from its networks: whoever sends as this one comes as a stranger.
        let of_users = ClientSettings::new(ClientName::new("erp"), Vec::new());
        let mut door = Door::new(&Settings { clients: vec![client, of_users], ..settings });
        assert_eq!(fill(&mut door, at(0), "10.1.0.1").len(), 75);
        let stranger = || Some(("192.0.2.1".parse().expect("an address"), None));
        assert_eq!((0..100).filter(|_| door.admit(at(0), stranger()).is_ok()).count(), 25);
    }

    #[test]
    fn where_no_place_is_left_the_idlest_session_of_who_has_most_makes_room() {
        let mut door = door(1, 10, 10);
        let [many, some] = [("10.1.0.1", 5), ("10.1.0.2", 3)]
            .map(|(address, count)| (1..=count).map(|i| door.admit(at(i), visitor(address)).expect("room").ticket).collect::<Vec<_>>());
        for address in ["10.1.0.3", "10.1.0.4"] {
            door.admit(at(1), visitor(address)).expect("room");
        }
        let told = refusal(door.admit(at(9), visitor("10.1.0.8")));
        assert!(told.contains("All 10 sessions are in use"), "nobody is idle for ten seconds: {told}");
        door.stands(many[0], Standing::Idle(at(20)));
        many[2..].iter().for_each(|busy| door.stands(*busy, Standing::Busy));
        assert_eq!(door.admit(at(25), visitor("10.1.0.8")).expect("room").instead_of, Some(many[1]), "although others are idle for longer");
        assert_eq!(door.admit(at(25), visitor("10.1.0.9")).expect("room").instead_of, Some(some[0]), "each is asked once");
        assert_eq!(door.sessions(), 12, "until they have gone");
        let told = refusal(door.admit(at(25), visitor("10.1.0.1")));
        assert!(told.contains("in use"), "who has four gets none at the cost of those who have two: {told}");
        door.admit(at(25), visitor("10.1.0.10")).expect("that somebody with more was refused a moment ago harms nobody");
        door.leave(many[1]);
        door.leave(some[0]);
        assert_eq!(door.sessions(), 11);
    }

    #[test]
    fn what_another_client_has_for_itself_makes_no_room() {
        for (idle, is_one_of_them) in [(2, false), (3, true)] {
            let mut door = door(2, 8, 8);
            let idle: Vec<Ticket> = (0..idle).map(|_| door.admit(at(0), visitor("10.2.0.1")).expect("room").ticket).collect();
            for busy in fill(&mut door, at(0), "10.1.0.1") {
                door.stands(busy, Standing::Busy);
            }
            let admission = door.admit(at(60), visitor("10.1.0.2"));
            assert_eq!(admission.is_ok_and(|admission| admission.instead_of == Some(idle[0])), is_one_of_them, "{idle:?}");
            refusal(door.admit(at(60), visitor("10.1.0.2")));
        }
    }

    #[test]
    fn slow_sessions_go_last_and_only_if_they_are_slower_than_any_device() {
        for (standing, slow) in [
            (Standing::Busy, None),
            (Standing::Idle(at(51)), None),
            (Standing::Idle(at(50)), Some(true)),
            (Standing::Begun(at(1)), None),
            (Standing::Begun(at(0)), Some(false)),
            (Standing::Content(at(1), 1), None),
            (Standing::Content(at(0), 58_000), Some(false)),
            (Standing::Content(at(0), 60_000), None),
        ] {
            assert_eq!(standing.useless(at(60)).map(|(is_idle, _)| is_idle), slow, "{standing:?}");
        }
        let mut door = door(1, 3, 3);
        let places: Vec<Ticket> = (1..4).map(|i| door.admit(at(0), visitor(&format!("10.1.0.{i}"))).expect("room").ticket).collect();
        door.stands(places[0], Standing::Content(at(0), 50));
        door.stands(places[1], Standing::Idle(at(50)));
        door.stands(places[2], Standing::Content(at(0), 5_000_000));
        let mut gone = |address: &str| door.admit(at(60), visitor(address)).ok().and_then(|admission| admission.instead_of);
        assert_eq!(gone("10.1.0.7"), Some(places[1]), "the idle one although it is young");
        assert_eq!(gone("10.1.0.8"), Some(places[0]));
        assert_eq!(gone("10.1.0.9"), None, "who moves stays");
    }

    #[test]
    fn that_nobody_can_go_is_believed_for_a_second() {
        let mut door = door(1, 2, 2);
        door.admit(at(8), visitor("10.1.0.1")).expect("room");
        let two = door.admit(at(0), visitor("10.1.0.2")).expect("room").ticket;
        door.stands(two, Standing::Busy);
        refusal(door.admit(at(10), visitor("10.1.0.3")));
        door.stands(two, Standing::Idle(at(0)));
        refusal(door.admit(at(10), visitor("10.1.0.3")));
        assert_eq!(door.admit(at(11), visitor("10.1.0.3")).expect("room").instead_of, Some(two));
    }

    #[test]
    fn a_connection_counts_for_its_client_and_not_for_the_balancer() {
        let mut door = door(1, 4, 1);
        for client in ["10.1.0.1", "10.1.0.2"] {
            let ticket = door.admit(at(0), None).expect("room").ticket;
            assert_eq!(door.name(at(0), ticket, visitor(client).expect("one")), Ok(None), "its first");
        }
        let unnamed = door.admit(at(0), None).expect("room").ticket;
        door.name(at(0), unnamed, visitor("10.1.0.1").expect("one")).expect_err("its second");
        door.admit(at(0), None).expect("room");
        assert_eq!(door.sessions(), 4);
        refusal(door.admit(at(0), None));
        let admission = door.admit(at(10), None).expect("room");
        assert_eq!(admission.instead_of, Some(unnamed), "the balancer that says nothing makes room");
    }

    #[test]
    fn keeps_to_other_limits_from_one_moment_to_the_next() {
        let mut door = door(1, 10, 100);
        let own = fill(&mut door, at(0), "10.1.0.1");
        door.keep_to(&settings(2, 4, 100));
        let told = refusal(door.admit(at(0), visitor("10.1.0.1")));
        assert!(told.contains("All 4 sessions are in use"), "{told}");
        assert_eq!(fill(&mut door, at(0), "10.2.0.1").len(), 1, "its own");
        own.into_iter().for_each(|ticket| door.leave(ticket));
        assert_eq!((fill(&mut door, at(0), "10.1.0.1").len(), door.sessions()), (3, 4));
    }

    #[test]
    fn forgets_addresses_that_have_left_or_were_refused() {
        let mut door = door(1, 10, 1);
        let ticket = door.admit(at(0), visitor("10.1.0.1")).expect("room").ticket;
        refusal(door.admit(at(0), visitor("10.1.0.1")));
        door.leave(ticket);
        assert!(door.places.is_empty() && door.addresses.is_empty());
        door.stands(ticket, Standing::Busy);
        assert_eq!(door.sessions(), 0);
    }
}
