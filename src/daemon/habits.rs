//! What is kept of clients' habits: see `counts`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::intake::{Count, Habit, Habits};
use crate::mail::ClientName;

/// What is in the file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Since when it is counted, in milliseconds since 1970, as all times here.
    since: i64,
    counts: Vec<Row>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    client: String,
    habit: String,
    count: u64,
    first: i64,
    last: i64,
    peer: IpAddr,
    told: i64,
}

/// What an earlier run has counted.
pub(super) fn restored(kept: Option<Kept>, now: Timestamp) -> Habits {
    let Some(kept) = kept else { return Habits::new(now) };
    let at = Timestamp::from_millis;
    let counts = kept.counts.into_iter().filter_map(|row| {
        // A newer version may know more of them.
        let habit = Habit::named(&row.habit)?;
        let count = Count { count: row.count, first: at(row.first), last: at(row.last), peer: row.peer, told: at(row.told) };
        Some(((ClientName::new(row.client), habit), count))
    });
    Habits::restored(at(kept.since), counts)
}

/// What is to be kept, if there is anything new.
pub(super) fn kept(habits: &mut Habits) -> Option<Kept> {
    let row = |(client, habit, count): (&ClientName, Habit, Count)| Row {
        client: client.to_string(),
        habit: habit.as_str().to_owned(),
        count: count.count,
        first: count.first.as_millis(),
        last: count.last.as_millis(),
        peer: count.peer,
        told: count.told.as_millis(),
    };
    habits.take_changed().then(|| Kept { since: habits.since().as_millis(), counts: habits.iter().map(row).collect() })
}
