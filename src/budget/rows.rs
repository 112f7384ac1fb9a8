//! What is kept of a budget on disk, and what changed of it.

use std::collections::BTreeMap;

use crate::clock::Timestamp;

use super::LimitName;

/// One stored fact of a budget, found by its limit and slot.
///
/// For a limit of a day: one minute of it, of which there are at most 1,442, and in the slot after them what is in flight. For a limit of a
/// minute, and for the pause: one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row {
    /// Which limit.
    pub limit: LimitName,
    /// Which of its rows.
    pub slot: u32,
    /// The last moment at which it may have been used. `None`: it is in flight.
    pub at: Option<Timestamp>,
    /// How much: units of a limit of a day; for a cell the recipients of its message, `u32::MAX` if nobody counted them.
    pub amount: u32,
}

/// What the store must do, in order, in the transaction of the attempt that caused it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Insert the row or replace the one with the same limit and slot.
    Put(Row),
    /// Delete the row of this limit and slot, if there is one.
    Remove {
        /// Which limit.
        limit: LimitName,
        /// Which of its rows.
        slot: u32,
    },
}

/// What turns `old` into `new`.
pub(super) fn difference(old: &[Row], new: &[Row]) -> Vec<Change> {
    let keyed = |rows: &[Row]| rows.iter().map(|row| ((row.limit, row.slot), *row)).collect::<BTreeMap<_, _>>();
    let (old, new) = (keyed(old), keyed(new));
    let gone = old.keys().filter(|key| !new.contains_key(key)).map(|&(limit, slot)| Change::Remove { limit, slot });
    let fresh = new.iter().filter(|(key, row)| old.get(key) != Some(row)).map(|(_, row)| Change::Put(*row));
    gone.chain(fresh).collect()
}
