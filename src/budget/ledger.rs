//! At most so many units in every window of a day's length.
//!
//! What was used is kept in buckets of a 1,440th of the window, a minute of a day. A bucket counts until it has left the window entirely, so a
//! unit counts for up to one bucket's length too long and never too short. What is in flight counts without end; when the attempt ends, what
//! it used is booked in the bucket of that end, the latest moment at which the server can have counted it. Whatever the network's delay,
//! a window of the server then holds no more than was counted here when the last of its attempts began.
//!
//! Without a maximum it counts all the same, so that a limit that is configured later knows the day before it. 1,442 buckets at most, only
//! those in use: 23 KiB.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::clock::Timestamp;

use super::{LimitName, Row, Usage, millis};

/// Into how many buckets a window is divided.
const BUCKETS: i64 = 1_440;
/// So many buckets can count at a time: those of the window, the one being filled and the one that is leaving.
const SLOTS: i64 = BUCKETS + 2;
/// The slot of what is in flight.
const IN_FLIGHT: u32 = SLOTS as u32;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Ledger {
    name: LimitName,
    max: Option<u32>,
    /// In milliseconds, as is `length`.
    window: i64,
    /// Of a bucket.
    length: i64,
    /// Oldest first, none of them empty.
    buckets: VecDeque<Bucket>,
    /// The sum of the buckets.
    total: u64,
    in_flight: u64,
    dirty: BTreeSet<u32>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Its start in lengths since the epoch.
    number: i64,
    amount: u32,
}

impl Ledger {
    pub fn new(name: LimitName, max: Option<u32>, window: Duration) -> Self {
        let window = millis(window);
        let length = (window / BUCKETS + i64::from(window % BUCKETS > 0)).max(1);
        Self { name, max, window, length, buckets: VecDeque::new(), total: 0, in_flight: 0, dirty: BTreeSet::new() }
    }

    /// Which limit it keeps.
    pub fn name(&self) -> LimitName {
        self.name
    }

    /// The maximum, if there is one.
    pub fn max(&self) -> Option<u32> {
        self.max
    }

    /// How many units fit now.
    pub fn free(&self, now: Timestamp) -> u32 {
        let Some(max) = self.max else { return u32::MAX };
        let taken = self.used(now).saturating_add(self.in_flight);
        u64::from(max).saturating_sub(taken) as u32
    }

    /// The moment at which `units` fit: `now`, or when enough buckets have left the window; `None` if it takes more than that.
    pub fn fits_at(&self, now: Timestamp, units: u64) -> Option<Timestamp> {
        let Some(max) = self.max else { return Some(now) };
        let taken = self.used(now).saturating_add(self.in_flight);
        let mut lacking = taken.saturating_add(units).saturating_sub(u64::from(max));
        if lacking == 0 {
            return Some(now);
        }
        for bucket in self.buckets.iter().filter(|bucket| self.leaves(bucket.number) > now) {
            lacking = lacking.saturating_sub(u64::from(bucket.amount));
            if lacking == 0 {
                return Some(self.leaves(bucket.number));
            }
        }
        None
    }

    /// Takes units that [`Self::free`] has.
    pub fn reserve(&mut self, now: Timestamp, units: u32) {
        if units > 0 {
            self.expire(now);
            self.in_flight = self.in_flight.saturating_add(u64::from(units));
            self.dirty.insert(IN_FLIGHT);
        }
    }

    /// Of the `reserved` units `used` were used by `ended`; the others are free again.
    pub fn settle(&mut self, reserved: u32, used: u32, ended: Timestamp) {
        if reserved > 0 {
            self.in_flight = self.in_flight.saturating_sub(u64::from(reserved));
            self.dirty.insert(IN_FLIGHT);
            self.book(ended, used);
        }
    }

    /// Counts `amount` as used at `at`, and forgets what has left the window by then.
    pub fn book(&mut self, at: Timestamp, amount: u32) {
        self.expire(at);
        let number = at.as_millis().div_euclid(self.length);
        // An end that is told so late that its window is over counts no more; its slot may be in use again.
        let over = self.buckets.back().is_some_and(|last| self.leaves(number).as_millis() <= last.number.saturating_mul(self.length));
        if amount == 0 || over {
            return;
        }
        let place = match self.buckets.back() {
            Some(last) if last.number >= number => self.buckets.partition_point(|bucket| bucket.number < number),
            _ => self.buckets.len(),
        };
        if self.buckets.get(place).is_none_or(|bucket| bucket.number != number) {
            self.buckets.insert(place, Bucket { number, amount: 0 });
        }
        let bucket = &mut self.buckets[place];
        let sum = bucket.amount.saturating_add(amount);
        self.total += u64::from(sum - bucket.amount);
        bucket.amount = sum;
        self.dirty.insert(slot(number));
    }

    /// Counts as full from now on: what seems free is booked as used now.
    pub fn close(&mut self, now: Timestamp) {
        if self.max.is_some() {
            self.book(now, self.free(now));
        }
    }

    /// Another limit; what is used and in flight stays. A window that is made longer knows only what the shorter one still held.
    pub fn change(&mut self, now: Timestamp, max: Option<u32>, window: Duration) {
        let mut next = Self::new(self.name, max, window);
        if next.window == self.window {
            self.max = max;
            return;
        }
        for bucket in &self.buckets {
            next.book(self.last_moment(bucket.number).min(now), bucket.amount);
        }
        next.in_flight = self.in_flight;
        *self = next;
    }

    pub fn usage(&self, now: Timestamp) -> Usage {
        Usage {
            limit: self.name,
            used: u32::try_from(self.used(now)).unwrap_or(u32::MAX),
            in_flight: u32::try_from(self.in_flight).unwrap_or(u32::MAX),
            max: self.max,
            window: Duration::from_millis(self.window.unsigned_abs()),
            frees_at: self.buckets.iter().map(|bucket| self.leaves(bucket.number)).find(|leaves| *leaves > now),
        }
    }

    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        self.buckets.iter().map(|bucket| self.row(bucket)).chain(self.in_flight_row())
    }

    /// The slots that changed since the last call, each with its row if it still has one.
    pub fn drain(&mut self) -> Vec<(u32, Option<Row>)> {
        let dirty = std::mem::take(&mut self.dirty);
        dirty.into_iter().map(|at| (at, if at == IN_FLIGHT { self.in_flight_row() } else { self.row_in(at) })).collect()
    }

    /// What counts now of the buckets.
    fn used(&self, now: Timestamp) -> u64 {
        let left = self.buckets.iter().take_while(|bucket| self.leaves(bucket.number) <= now);
        self.total - left.map(|bucket| u64::from(bucket.amount)).sum::<u64>()
    }

    /// When a bucket has left the window entirely: a window after its end.
    fn leaves(&self, number: i64) -> Timestamp {
        Timestamp::from_millis(number.saturating_add(1).saturating_mul(self.length).saturating_add(self.window))
    }

    fn last_moment(&self, number: i64) -> Timestamp {
        Timestamp::from_millis(number.saturating_add(1).saturating_mul(self.length).saturating_sub(1))
    }

    fn expire(&mut self, now: Timestamp) {
        while let Some(&Bucket { number, amount }) = self.buckets.front()
            && self.leaves(number) <= now
        {
            self.buckets.pop_front();
            self.total -= u64::from(amount);
            self.dirty.insert(slot(number));
        }
    }

    fn row(&self, bucket: &Bucket) -> Row {
        Row { limit: self.name, slot: slot(bucket.number), at: Some(self.last_moment(bucket.number)), amount: bucket.amount }
    }

    fn row_in(&self, wanted: u32) -> Option<Row> {
        // What changed is nearly always the newest.
        self.buckets.iter().rev().find(|bucket| slot(bucket.number) == wanted).map(|bucket| self.row(bucket))
    }

    fn in_flight_row(&self) -> Option<Row> {
        let amount = u32::try_from(self.in_flight).unwrap_or(u32::MAX);
        (amount > 0).then_some(Row { limit: self.name, slot: IN_FLIGHT, at: None, amount })
    }
}

/// Where a bucket is stored. No two that count at a time share one.
fn slot(number: i64) -> u32 {
    number.rem_euclid(SLOTS) as u32
}
