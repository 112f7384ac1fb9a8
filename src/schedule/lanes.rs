//! The order of what is due: fair shares between clients, oldest first within each.
//!
//! A *lane* holds what may go the same ways: one client's deliveries of one priority, route and class, for the same accounts. Lanes that
//! differ in the client alone form a *group*: whether anything of it can go is asked once, for all its clients. A client's lanes of one
//! priority form a *flow*, which has a virtual time: what it sent, divided by its weight. The lane whose flow is furthest behind goes first
//! (start-time fair queueing, Goyal et al. 1996); a flow that was idle starts at the present, so that idleness earns nothing. Within a lane
//! new mail and retries take turns, each first come first served, so that neither starves the other.
//!
//! What leaves a lane out of turn is marked only, and skipped when its turn comes; marks are swept before they outnumber what lives.

use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::mail::{Class, Priority};

/// Virtual time of one recipient at weight 1.
const UNIT: u64 = 1 << 20;

/// A set of accounts, by their numbers.
pub(super) type AccountSet = u128;

/// What the deliveries of a lane have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LaneKey {
    pub priority: Priority,
    pub route: u16,
    pub class: Class,
    pub accounts: AccountSet,
    pub client: u32,
}

/// A delivery in a lane: its place in the table of deliveries, and the number of its last entry into a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    pub slot: u32,
    pub stamp: u32,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    by_key: HashMap<LaneKey, u32>,
    groups: Vec<Group>,
    flows: Vec<Flow>,
    by_client: HashMap<(Priority, u32), u32>,
    /// The virtual present of each priority.
    present: [u64; Priority::ALL.len()],
}

/// Lanes that differ in the client alone.
#[derive(Debug)]
pub(super) struct Group {
    pub priority: Priority,
    pub route: u16,
    pub class: Class,
    pub accounts: AccountSet,
    /// Its lanes that are not empty, the one whose turn it is first.
    waiting: BTreeSet<(u64, u32)>,
}

#[derive(Debug)]
struct Lane {
    key: LaneKey,
    group: u32,
    flow: u32,
    fresh: VecDeque<Ticket>,
    retries: VecDeque<Ticket>,
    retry_next: bool,
    /// How many are not marked.
    alive: usize,
    /// The virtual time under which it waits in its group.
    listed: Option<u64>,
}

#[derive(Debug)]
struct Flow {
    priority: Priority,
    weight: u64,
    time: u64,
    lanes: Vec<u32>,
}

impl Lanes {
    /// The lane with this key, which begins to be if it is not; `weight` counts then.
    pub fn lane(&mut self, key: LaneKey, weight: u32) -> u32 {
        if let Some(lane) = self.by_key.get(&key) {
            return *lane;
        }
        let alike = |group: &Group| {
            (group.priority, group.route, group.class, group.accounts) == (key.priority, key.route, key.class, key.accounts)
        };
        let group = self.groups.iter().position(alike).unwrap_or_else(|| {
            let LaneKey { priority, route, class, accounts, .. } = key;
            self.groups.push(Group { priority, route, class, accounts, waiting: BTreeSet::new() });
            self.groups.len() - 1
        });
        let flow = *self.by_client.entry((key.priority, key.client)).or_insert_with(|| {
            self.flows.push(Flow { priority: key.priority, weight: u64::from(weight.max(1)), time: 0, lanes: Vec::new() });
            (self.flows.len() - 1) as u32
        });
        let lane = self.lanes.len() as u32;
        self.lanes.push(Lane {
            key,
            group: group as u32,
            flow,
            fresh: VecDeque::new(),
            retries: VecDeque::new(),
            retry_next: false,
            alive: 0,
            listed: None,
        });
        self.flows[flow as usize].lanes.push(lane);
        self.by_key.insert(key, lane);
        lane
    }

    /// Everything that waits, by what it waits for.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(|group| !group.waiting.is_empty())
    }

    /// Appends a delivery to a lane.
    pub fn push(&mut self, lane: u32, ticket: Ticket, retry: bool) {
        let entry = &mut self.lanes[lane as usize];
        if retry {
            entry.retries.push_back(ticket)
        } else {
            entry.fresh.push_back(ticket)
        }
        entry.alive += 1;
        let flow = &mut self.flows[entry.flow as usize];
        if entry.listed.is_none() {
            let idle = flow.lanes.iter().all(|lane| self.lanes[*lane as usize].listed.is_none());
            if idle {
                flow.time = flow.time.max(self.present[flow.priority as usize]);
            }
            let time = flow.time;
            self.list(lane, time);
        }
    }

    /// The delivery whose turn it is in a lane, `alive` telling which are still there; it stays until [`Self::take`].
    pub fn head(&mut self, lane: u32, alive: impl Fn(Ticket) -> bool) -> Option<Ticket> {
        let lane = &mut self.lanes[lane as usize];
        for queue in [&mut lane.fresh, &mut lane.retries] {
            while queue.front().is_some_and(|ticket| !alive(*ticket)) {
                queue.pop_front();
            }
        }
        let retry = lane.retry_next && !lane.retries.is_empty() || lane.fresh.is_empty();
        if retry { lane.retries.front().copied() } else { lane.fresh.front().copied() }
    }

    /// The head of a lane leaves it, and its flow has sent so many recipients.
    pub fn take(&mut self, lane: u32, recipients: u32) {
        let entry = &mut self.lanes[lane as usize];
        let retry = entry.retry_next && !entry.retries.is_empty() || entry.fresh.is_empty();
        if retry {
            entry.retries.pop_front()
        } else {
            entry.fresh.pop_front()
        };
        entry.retry_next = !retry;
        entry.alive -= 1;
        let flow_number = entry.flow as usize;
        let flow = &mut self.flows[flow_number];
        let present = &mut self.present[flow.priority as usize];
        *present = (*present).max(flow.time);
        flow.time += u64::from(recipients.max(1)) * UNIT / flow.weight;
        let time = flow.time;
        // All lanes of the flow have moved back; those that are now empty leave.
        for lane in self.flows[flow_number].lanes.clone() {
            self.unlist(lane);
            if self.lanes[lane as usize].alive > 0 {
                self.list(lane, time);
            }
        }
    }

    /// A delivery has left a lane out of turn.
    pub fn mark(&mut self, lane: u32, alive: impl Fn(Ticket) -> bool) {
        let entry = &mut self.lanes[lane as usize];
        entry.alive -= 1;
        if entry.fresh.len() + entry.retries.len() > 2 * entry.alive + 64 {
            entry.fresh.retain(|ticket| alive(*ticket));
            entry.retries.retain(|ticket| alive(*ticket));
        }
        if entry.alive == 0 {
            entry.fresh.clear();
            entry.retries.clear();
            self.unlist(lane);
        }
    }

    /// What the deliveries of a lane have in common.
    pub fn key(&self, lane: u32) -> LaneKey {
        self.lanes[lane as usize].key
    }

    /// The group of a lane.
    pub fn group(&self, lane: u32) -> &Group {
        &self.groups[self.lanes[lane as usize].group as usize]
    }

    fn list(&mut self, lane: u32, time: u64) {
        let entry = &mut self.lanes[lane as usize];
        entry.listed = Some(time);
        self.groups[entry.group as usize].waiting.insert((time, lane));
    }

    fn unlist(&mut self, lane: u32) {
        let entry = &mut self.lanes[lane as usize];
        if let Some(time) = entry.listed.take() {
            self.groups[entry.group as usize].waiting.remove(&(time, lane));
        }
    }
}

impl Group {
    /// The lane whose turn it is, and its virtual time.
    pub fn first(&self) -> Option<(u64, u32)> {
        self.waiting.first().copied()
    }
}
