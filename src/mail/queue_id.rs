//! The name of a message from its acceptance to its last log line.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::clock::Timestamp;

/// Crockford's base 32: no I, L, O or U, so that an id can be read over the telephone.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const LENGTH: usize = 13;
/// 2020-01-01T00:00:00Z; 41 bits of milliseconds from there reach the year 2089.
const EPOCH_MILLIS: i64 = 1_577_836_800_000;
const NODE_BITS: u32 = 10;
const SEQUENCE_BITS: u32 = 12;

/// A queue id: 63 bits that sort by time of acceptance, written as 13 characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(i64);

impl QueueId {
    /// From the number that the store keeps; negative numbers are none.
    pub fn from_number(number: i64) -> Option<Self> {
        (number >= 0).then_some(Self(number))
    }

    /// The last id that could be given out at that time.
    pub fn last_of(at: Timestamp) -> Self {
        let millis = at.as_millis().saturating_sub(EPOCH_MILLIS).max(0);
        Self(millis.saturating_add(1).saturating_mul(1 << (NODE_BITS + SEQUENCE_BITS)) - 1)
    }

    /// The number that the store keeps.
    pub fn number(self) -> i64 {
        self.0
    }

    /// When it was given out, as far as the clock was not set back.
    pub fn time(self) -> Timestamp {
        Timestamp::from_millis((self.0 >> (NODE_BITS + SEQUENCE_BITS)) + EPOCH_MILLIS)
    }

    /// The lowest of those that are given out at a time.
    pub fn first_at(time: Timestamp) -> Self {
        Self(time.as_millis().saturating_sub(EPOCH_MILLIS).clamp(0, (1 << 41) - 1) << (NODE_BITS + SEQUENCE_BITS))
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; LENGTH];
        for (i, slot) in text.iter_mut().enumerate() {
            *slot = ALPHABET[(self.0 >> (5 * (LENGTH - 1 - i))) as usize & 31];
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

/// The text is not a queue id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a queue id: 13 characters from 0-9 and A-Z without I, L, O and U")]
pub struct NotAQueueId;

impl FromStr for QueueId {
    type Err = NotAQueueId;

    fn from_str(text: &str) -> Result<Self, NotAQueueId> {
        if text.len() != LENGTH {
            return Err(NotAQueueId);
        }
        let mut number: i64 = 0;
        for c in text.bytes() {
            let digit = ALPHABET.iter().position(|a| *a == c.to_ascii_uppercase()).ok_or(NotAQueueId)?;
            number = number.checked_mul(32).and_then(|n| n.checked_add(digit as i64)).ok_or(NotAQueueId)?;
        }
        Ok(Self(number))
    }
}

/// Gives out queue ids, each larger than the one before, also across a clock that was set back between two runs.
#[derive(Debug)]
pub struct QueueIds {
    node: i64,
    last: AtomicI64,
}

impl QueueIds {
    /// `node` (its low ten bits) keeps the ids of several nodes apart; `newest` is the highest id that the store knows.
    pub fn new(node: u16, newest: Option<QueueId>) -> Self {
        Self { node: i64::from(node) & ((1 << NODE_BITS) - 1), last: AtomicI64::new(newest.map_or(0, QueueId::number)) }
    }

    /// From here on each id is larger than this one, too.
    pub fn pass(&self, id: QueueId) {
        self.last.fetch_max(id.0, Ordering::Relaxed);
    }

    /// The next id.
    pub fn next(&self, now: Timestamp) -> QueueId {
        let millis = (now.as_millis() - EPOCH_MILLIS).clamp(0, (1 << 41) - 1);
        let fresh = (millis << NODE_BITS | self.node) << SEQUENCE_BITS;
        let step = |last: i64| Some(fresh.max(last + 1));
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).unwrap_or_default();
        QueueId(fresh.max(last + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_as_it_was_written() {
        for number in [0, 1, 31, 32, 1 << 40, i64::MAX] {
            let id = QueueId(number);
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(id.to_string().to_lowercase().parse(), Ok(id));
        }
        for bad in ["", "0", "0000000000000000", "ZZZZZZZZZZZZZ", "00000000000-0", "000000000000é"] {
            assert_eq!(bad.parse::<QueueId>(), Err(NotAQueueId), "{bad}");
        }
    }

    #[test]
    fn tells_when_it_was_given_out() {
        let now = Timestamp::from_millis(1_795_285_881_042);
        let id = QueueIds::new(7, None).next(now);
        assert_eq!(id.time(), now);
        assert!(QueueId::first_at(now) <= id && id < QueueId::first_at(Timestamp::from_millis(now.as_millis() + 1)));
        assert_eq!(QueueId::first_at(Timestamp::from_millis(0)), QueueId(0));
    }

    #[test]
    fn always_grows_even_when_the_clock_was_set_back() {
        let now = Timestamp::from_millis(1_795_285_881_042);
        let ids = QueueIds::new(7, None);
        let mut last = ids.next(now);
        for step in 0..10_000 {
            let next = ids.next(Timestamp::from_millis(now.as_millis() - step));
            assert!(next > last);
            last = next;
        }
        let restarted = QueueIds::new(3, Some(last));
        assert!(restarted.next(Timestamp::from_millis(0)) > last);
        let brought_in = QueueId(last.0 + 1_000);
        restarted.pass(brought_in);
        assert!(restarted.next(now) > brought_in);
        restarted.pass(last);
        assert!(restarted.next(now) > brought_in);
    }
}
