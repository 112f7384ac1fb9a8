//! At most so many units in every window of a minute's length, and all of them at once when idle.
//!
//! GCRA with a burst of *b* and a rate of *r* admits *b + rT* in a window *T*: nearly twice the limit. So a limit of N is N cells, each of them a
//! governor limiter of one per window, and a unit takes the cell that has been free the longest. A cell is occupied from the start of
//! the attempt to its end, and only then does its window begin: the server, which counts at some moment between the two, sees two units of
//! one cell at least a window apart, and so never more than N in a window, whatever the network's delay.
//!
//! The cells are governor's `StateStore`, and ours to read and write: governor decides, and what is given back, saved or restored is written
//! into its state. Governor's time is a bare number; here it is milliseconds since the epoch, so that nothing overflows.
//! Peeking is O(log N); taking and settling are O(1) as long as attempts end about in the order of their windows.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};

use crate::clock::Timestamp;

use super::{LimitName, Row, Usage, millis};

/// A rate has at most so many cells. A larger limit is kept as this one, which is stricter and takes 2 MB.
pub(super) const MOST: u32 = 100_000;

/// The state of a cell that was never used.
const IDLE: u64 = 0;
/// The state of a cell whose attempt has not ended.
const OCCUPIED: u64 = u64::MAX;
/// The recipients of what was used without being counted here.
pub(super) const UNKNOWN: u32 = u32::MAX;
/// A stamp is cut to the millisecond: what ended at it may have ended up to one later.
const TICK: u64 = 1;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Rate {
    name: LimitName,
    /// Tells this rate from one that had its place before it, and from which a claim may still be out.
    id: u32,
    max: usize,
    /// In milliseconds.
    window: u64,
    limiter: Limiter,
    cells: Cells,
    hand: Hand,
    /// The cells that are not occupied, in the order in which they become free.
    order: VecDeque<u32>,
    /// How many are occupied. With those of `order` they are `max`, or more if the limit was lowered while they were in flight.
    occupied: usize,
    /// Cells that are too many for a limit that was lowered. They remember their last use, in case that it is raised
    /// again. Sorted, and none would be free after one of `order`.
    retired: Vec<u32>,
    /// The recipients of the message that used a cell, for the store.
    amounts: Vec<u32>,
    /// The beginning of the window of what was used, but not counted in any cell; a cell that is added begins no earlier.
    blind: u64,
    /// Attempts in flight that began before this rate existed and hold no cell of it. Nothing is free until they have ended.
    strangers: u32,
    dirty: BTreeSet<u32>,
}

/// The cells that an attempt occupies.
#[derive(Debug)]
pub(super) struct Claim {
    rate: u32,
    /// Each with the beginning of the window that it had before, for the case that it is given back.
    cells: Vec<(u32, u64)>,
}

/// A use of the past: when it ended, and the recipients of its message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Use {
    pub ended: Timestamp,
    pub amount: u32,
}

/// One unit per window for each cell.
type Limiter = RateLimiter<u32, Cells, Hand, NoOpMiddleware<Nanos>>;

/// For each cell the time from which it is free.
#[derive(Debug, Clone)]
struct Cells(Arc<[AtomicU64]>);

impl Cells {
    fn get(&self, cell: u32) -> u64 {
        self.0.get(cell as usize).map_or(OCCUPIED, |state| state.load(Ordering::Relaxed))
    }

    fn set(&self, cell: u32, free_from: u64) {
        if let Some(state) = self.0.get(cell as usize) {
            state.store(free_from, Ordering::Relaxed);
        }
    }
}

impl StateStore for Cells {
    type Key = u32;

    fn measure_and_replace<T, F, E>(&self, cell: &u32, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        // Nobody else writes: a rate is changed through `&mut self` only.
        decide(Some(Nanos::new(self.get(*cell)))).map(|(outcome, free_from)| {
            self.set(*cell, free_from.as_u64());
            outcome
        })
    }
}

/// The clock that governor reads: it stands where the caller's `now` was put.
#[derive(Debug, Clone, Default)]
struct Hand(Arc<AtomicU64>);

impl Clock for Hand {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(self.0.load(Ordering::Relaxed))
    }
}

impl Rate {
    /// A rate with a past, oldest use first; of more uses than `max` the latest bind.
    pub fn new(name: LimitName, id: u32, max: u32, window: Duration, past: &[Use]) -> Self {
        let max = max.min(MOST) as usize;
        let window = millis(window).max(1).unsigned_abs();
        let length = past.len().max(max);
        let mut states: Vec<u64> = past.iter().map(|used| begins(used.ended) + window).collect();
        let mut amounts: Vec<u32> = past.iter().map(|used| used.amount).collect();
        states.resize(length, IDLE);
        amounts.resize(length, UNKNOWN);
        let (limiter, cells, hand) = arm(window, states);
        let (surplus, known) = (length - max, past.len() as u32);
        let order = (known..length as u32).chain(surplus as u32..known).collect();
        let retired = (0..surplus as u32).collect();
        let blind = past.iter().filter(|used| used.amount == UNKNOWN).map(|used| begins(used.ended)).max().unwrap_or(IDLE);
        let (occupied, strangers, dirty) = (0, 0, BTreeSet::new());
        Self { name, id, max, window, limiter, cells, hand, order, occupied, retired, amounts, blind, strangers, dirty }
    }

    /// Which limit it keeps.
    pub fn name(&self) -> LimitName {
        self.name
    }

    /// The most units that can be used in a window.
    pub fn max(&self) -> u32 {
        self.max as u32
    }

    /// Attempts are in flight that this rate knows nothing of, and perhaps others ended less than a window ago: it is full until they have
    /// ended, and for a window from there, or from now.
    pub fn begin_blind(&mut self, now: Timestamp, strangers: u32) {
        self.strangers = strangers;
        self.close(now);
    }

    /// How many units fit now.
    pub fn free(&self, now: Timestamp) -> u32 {
        if self.strangers > 0 { 0 } else { self.order.partition_point(|cell| self.cells.get(*cell) <= stamp(now)) as u32 }
    }

    /// The moment at which `units` fit; `None` if it takes the end of an attempt, or can never be.
    pub fn fits_at(&self, now: Timestamp, units: u32) -> Option<Timestamp> {
        let Some(last) = units.checked_sub(1) else { return Some(now) };
        let cell = self.order.get(last as usize).filter(|_| self.strangers == 0)?;
        Some(moment(self.cells.get(*cell)).max(now))
    }

    /// Occupies a cell for each of `units`, all or none. `recipients` of the one message that uses them are noted for the store.
    pub fn take(&mut self, now: Timestamp, units: u32, recipients: u32) -> Option<Claim> {
        if units > self.free(now) {
            return None;
        }
        self.hand.0.store(stamp(now), Ordering::Relaxed);
        let mut claim = Claim { rate: self.id, cells: Vec::with_capacity(units as usize) };
        for _ in 0..units {
            let cell = self.order.front().copied().map(|cell| (cell, self.cells.get(cell)));
            let Some((cell, free_from)) = cell.filter(|(cell, _)| self.limiter.check_key(cell).is_ok()) else {
                self.settle(&claim, 0, now);
                return None;
            };
            self.order.pop_front();
            self.occupied += 1;
            self.cells.set(cell, OCCUPIED);
            self.amounts[cell as usize] = if units == 1 { recipients } else { 1 };
            self.dirty.insert(cell);
            claim.cells.push((cell, free_from.saturating_sub(self.window)));
        }
        Some(claim)
    }

    /// An attempt ended: the first `used` of its cells begin their window, the others are given back; but what was closed in the meantime stays
    /// closed.
    pub fn settle(&mut self, claim: &Claim, used: u32, ended: Timestamp) {
        for (place, (cell, before)) in claim.cells.iter().enumerate() {
            let given_back = (*before).max(self.blind);
            let begin = if place < used as usize { begins(ended) } else { given_back };
            if begin == self.blind {
                self.amounts[*cell as usize] = UNKNOWN;
            }
            self.occupied = self.occupied.saturating_sub(1);
            self.put(*cell, if begin == IDLE { IDLE } else { begin + self.window });
        }
        self.trim();
    }

    /// Whether a claim is on the cells of this rate.
    pub fn knows(&self, claim: &Claim) -> bool {
        claim.rate == self.id
    }

    /// An attempt that holds no cell of this rate ended: nobody counted what it used, so the rate is full for a window.
    pub fn stranger_ended(&mut self, ended: Timestamp) {
        self.strangers = self.strangers.saturating_sub(1);
        self.dirty.extend(&self.retired);
        self.close(ended);
    }

    /// The server says that the limit is used up: it is, for a window from now. Which of its units the server counts in the running minute is
    /// not known here any more, and asking again too early is punished (`5.2.25x`).
    pub fn close(&mut self, now: Timestamp) {
        self.blind = self.blind.max(begins(now));
        let until = self.blind + self.window;
        for cell in &self.order {
            self.cells.set(*cell, self.cells.get(*cell).max(until));
            self.amounts[*cell as usize] = UNKNOWN;
            self.dirty.insert(*cell);
        }
        self.order.make_contiguous().sort_by_key(|cell| self.cells.get(*cell));
    }

    /// Another limit; what is used and in flight stays.
    pub fn change(&mut self, now: Timestamp, max: u32, window: Duration) {
        let max = max.min(MOST) as usize;
        let window = millis(window).max(1).unsigned_abs();
        // A cell remembers its last use only: what a longer window holds of the time before is not known.
        if window > self.window {
            self.blind = self.blind.max(begins(now));
        }
        let rebased = |state: u64| match state {
            IDLE | OCCUPIED => state,
            free_from => free_from.saturating_sub(self.window) + window,
        };
        let lacking = max.saturating_sub(self.order.len() + self.occupied);
        let known = self.amounts.len() as u32;
        let length = self.amounts.len() + lacking.saturating_sub(self.retired.len());
        let states = (0..length as u32).map(|cell| if cell < known { rebased(self.cells.get(cell)) } else { IDLE });
        (self.limiter, self.cells, self.hand) = arm(window, states.collect());
        (self.max, self.window) = (max, window);
        self.amounts.resize(length, UNKNOWN);
        let fresh = known..length as u32;
        let latest = self.retired.len() - lacking.min(self.retired.len());
        for cell in self.retired.split_off(latest).into_iter().chain(fresh) {
            let remembered = self.cells.get(cell);
            let blind = if self.blind == IDLE { IDLE } else { self.blind + window };
            if blind > remembered {
                self.amounts[cell as usize] = UNKNOWN;
            }
            self.put(cell, blind.max(remembered));
        }
        self.trim();
    }

    pub fn usage(&self, now: Timestamp) -> Usage {
        let free = self.order.partition_point(|cell| self.cells.get(*cell) <= stamp(now));
        Usage {
            limit: self.name,
            used: (self.order.len() - free) as u32,
            in_flight: self.occupied as u32,
            max: Some(self.max()),
            window: Duration::from_millis(self.window),
            frees_at: self.order.get(free).filter(|_| self.strangers == 0).map(|cell| moment(self.cells.get(*cell))),
        }
    }

    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        (0..self.amounts.len() as u32).filter_map(|cell| self.row(cell))
    }

    /// The slots that changed since the last call, each with its row if it still has one.
    pub fn drain(&mut self) -> Vec<(u32, Option<Row>)> {
        let dirty = std::mem::take(&mut self.dirty);
        dirty.into_iter().map(|cell| (cell, self.row(cell))).collect()
    }

    fn row(&self, cell: u32) -> Option<Row> {
        let at = match self.cells.get(cell) {
            IDLE => return None,
            // Until the strangers have ended every cell is theirs, also for a restart in between.
            _ if self.strangers > 0 => None,
            OCCUPIED => None,
            free_from => Some(moment(free_from.saturating_sub(self.window + TICK))),
        };
        Some(Row { limit: self.name, slot: cell, at, amount: self.amounts.get(cell as usize).copied().unwrap_or(1) })
    }

    /// Puts a cell where its time has it.
    fn put(&mut self, cell: u32, free_from: u64) {
        self.cells.set(cell, free_from);
        let place = match self.order.back() {
            Some(last) if self.cells.get(*last) > free_from => self.order.partition_point(|other| self.cells.get(*other) <= free_from),
            _ => self.order.len(),
        };
        self.order.insert(place, cell);
        self.dirty.insert(cell);
    }

    /// Puts cells aside that are too many, those first that are free first: the latest uses are those that bind.
    fn trim(&mut self) {
        while self.order.len() + self.occupied > self.max
            && let Some(cell) = self.order.pop_front()
        {
            self.retire(cell);
        }
        // What was given back may be free earlier than what had been put aside.
        while let (Some(first), Some(last)) = (self.order.front(), self.retired.last())
            && self.cells.get(*first) < self.cells.get(*last)
            && let (Some(first), Some(last)) = (self.order.pop_front(), self.retired.pop())
        {
            self.retire(first);
            self.put(last, self.cells.get(last));
        }
    }

    fn retire(&mut self, cell: u32) {
        let place = self.retired.partition_point(|other| self.cells.get(*other) <= self.cells.get(cell));
        self.retired.insert(place, cell);
    }
}

/// A limiter of one per window for each cell. Its clock stands at zero, so its times count from the epoch.
fn arm(window: u64, states: Vec<u64>) -> (Limiter, Cells, Hand) {
    let cells = Cells(states.into_iter().map(AtomicU64::new).collect());
    let hand = Hand::default();
    // A burst of one is the default of `with_period`; the period is none only if it is zero, which `window` is not.
    let quota = Quota::with_period(Duration::from_nanos(window)).unwrap_or(Quota::per_second(std::num::NonZeroU32::MIN));
    (RateLimiter::new(quota, cells.clone(), hand.clone()), cells, hand)
}

/// When the window of a use begins.
fn begins(ended: Timestamp) -> u64 {
    stamp(ended) + TICK
}

fn stamp(time: Timestamp) -> u64 {
    time.as_millis().max(0).unsigned_abs()
}

fn moment(stamp: u64) -> Timestamp {
    Timestamp::from_millis(i64::try_from(stamp).unwrap_or(i64::MAX))
}
