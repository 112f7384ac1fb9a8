//! Adding up what was sent, for charging it to somebody and for seeing what is slow: one pass over the months' messages and attempts.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use rusqlite::{Connection, Result};

use super::search::ordinals;
use super::values::Left;
use crate::clock::Timestamp;
use crate::mail::QueueId;

/// By what it is added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Who sent it to the relay.
    Client,
    /// The account that it went out on; what was on none has no name.
    Account,
    /// MAIL FROM as the client gave it.
    Sender,
    /// The day on which it came in, UTC.
    Day,
    /// Inside the tenant or outside.
    Class,
}

impl Group {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Client, Self::Account, Self::Sender, Self::Day, Self::Class];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Account => "account",
            Self::Sender => "sender",
            Self::Day => "day",
            Self::Class => "class",
        }
    }

    fn expression(self) -> &'static str {
        match self {
            Self::Client => "m.client",
            Self::Account => "coalesce(a.account, '')",
            Self::Sender => "lower(m.reverse_path)",
            Self::Day => "strftime('%Y-%m-%d', m.accepted_at / 1000, 'unixepoch')",
            Self::Class => "coalesce(a.class, '')",
        }
    }
}

/// What was sent of one group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// Messages of which something happened in this group.
    pub messages: u64,
    /// Recipients whose server has the message.
    pub sent: u64,
    /// Octets of the messages, once for each delivery that the server took.
    pub octets: u64,
    /// Recipients that never get it.
    pub failed: u64,
    /// How often a recipient was deferred.
    pub deferrals: u64,
    /// From acceptance to delivery, for a recipient in the middle.
    pub median: Option<Duration>,
    /// The same for the slowest of a hundred.
    pub p99: Option<Duration>,
}

#[derive(Debug, Default)]
struct Sum {
    line: Line,
    last: Option<i64>,
    /// How long so many recipients waited, in milliseconds.
    waits: Vec<(u64, u32)>,
}

/// What was sent of the messages of these names.
pub(super) fn report(connection: &Connection, group: Group, ids: Range<QueueId>) -> Result<Vec<Line>> {
    let select = format!(
        "SELECT {}, m.id, m.size, m.accepted_at, a.came_to, a.ordinals, a.ended FROM message m LEFT JOIN attempt a ON a.message = m.id
          WHERE m.id >= ?1 AND m.id < ?2 ORDER BY m.id",
        group.expression()
    );
    let mut select = connection.prepare_cached(&select)?;
    let mut rows = select.query([ids.start.number(), ids.end.number()])?;
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let name = row.get_ref(0)?.as_str()?;
        if !sums.contains_key(name) {
            sums.insert(name.to_owned(), Sum { line: Line { name: name.to_owned(), ..Line::default() }, ..Sum::default() });
        }
        let Some(sum) = sums.get_mut(name) else { continue };
        let id: i64 = row.get(1)?;
        // The rows of a message come together.
        sum.line.messages += u64::from(sum.last.replace(id) != Some(id));
        let Some(left) = row.get_ref(4)?.as_str_or_null()?.and_then(|text| text.parse::<Left>().ok()) else { continue };
        let recipients = ordinals(row.get_ref(5)?.as_str()?).len() as u32;
        match left {
            Left::Sent => {
                sum.line.sent += u64::from(recipients);
                sum.line.octets += row.get::<_, i64>(2)?.unsigned_abs();
                let waited = Timestamp::from_millis(row.get(6)?).since(Timestamp::from_millis(row.get(3)?));
                sum.waits.push((waited.as_millis() as u64, recipients));
            }
            Left::Deferred => sum.line.deferrals += u64::from(recipients),
            Left::Failed | Left::Expired => sum.line.failed += u64::from(recipients),
            Left::Removed | Left::InDoubt => {}
        }
    }
    Ok(sums.into_values().map(Sum::finish).collect())
}

impl Sum {
    fn finish(mut self) -> Line {
        self.waits.sort_unstable();
        let all = self.line.sent;
        let at = |share: u64| {
            // The first that so many of a hundred do not exceed.
            let mut left = (all * share).div_ceil(100);
            let found = self.waits.iter().find(|(_, recipients)| {
                left = left.saturating_sub(u64::from(*recipients));
                left == 0
            });
            found.map(|(millis, _)| Duration::from_millis(*millis))
        };
        let (median, p99) = (at(50), at(99));
        Line { median, p99, ..self.line }
    }
}
