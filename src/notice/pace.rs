//! How often one reader gets a notice: the first thing is told at once, what follows closely is gathered and told together.
//!
//! After each notice to a reader an interval begins in which all that comes for it is gathered; at its end that is told in one digest, and the
//! next interval begins. As soon as a digest is full it goes without waiting, as long as the reader has not had its notices of an hour. A reader
//! to which a notice could not be delivered is told nothing for a day: devices send as addresses that do not exist.
//!
//! Pure, and in memory only: what is gathered is in the store, and is announced to a new `Pace` with [`Pace::restore`]. What else a restart
//! forgets costs each reader one notice that comes early.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::smtp::Mailbox;

/// Recipients in one digest.
pub const DIGEST: usize = 1_000;
/// How long a reader to which a notice could not be delivered is left alone.
const UNREACHABLE: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3_600);
/// Readers that are remembered; of more, those of which nothing is gathered are forgotten.
const READERS: usize = 20_000;

/// What to do with something that a reader is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    /// Tell it.
    AtOnce,
    /// Keep it for the digest.
    Gather,
    /// Forget it: notices do not reach this reader.
    Unreachable,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    per_hour: usize,
    readers: HashMap<Mailbox, Reader>,
}

#[derive(Debug, Default)]
struct Reader {
    /// When the last notices were written, as many as an hour may have.
    notices: VecDeque<Timestamp>,
    /// How many recipients are gathered, and since when.
    gathered: Option<(usize, Timestamp)>,
    unreachable_until: Option<Timestamp>,
}

impl Reader {
    /// The earliest time of the next notice.
    fn next(&self, interval: Duration, per_hour: usize) -> Timestamp {
        let full = self.gathered.is_some_and(|(count, _)| count >= DIGEST);
        let since = self.notices.back().copied().or(self.gathered.map(|(_, since)| since));
        let paced = since.map_or(Timestamp::default(), |since| if full { since } else { since + interval });
        let oldest = self.notices.front().filter(|_| self.notices.len() >= per_hour);
        paced.max(oldest.map_or(Timestamp::default(), |oldest| *oldest + HOUR))
    }

    fn is_idle(&self, now: Timestamp, interval: Duration) -> bool {
        self.gathered.is_none()
            && self.unreachable_until.is_none_or(|until| until <= now)
            && self.notices.back().is_none_or(|last| *last + interval.max(HOUR) <= now)
    }
}

impl Pace {
    /// A reader gets what is gathered in an `interval` together, and at most `per_hour` notices in an hour.
    pub fn new(interval: Duration, per_hour: usize) -> Self {
        Self { interval, per_hour, readers: HashMap::new() }
    }

    /// Another pace; what is gathered, and what each reader has had, still counts.
    pub fn change(&mut self, interval: Duration, per_hour: usize) {
        (self.interval, self.per_hour) = (interval, per_hour);
    }

    /// So many recipients have been gathered for a reader, the first at that time.
    pub fn restore(&mut self, reader: Mailbox, count: usize, since: Timestamp) {
        self.readers.entry(reader).or_default().gathered = Some((count, since));
    }

    /// Something is to be told at the time `now`. What is told at once counts from here on; what is gathered, from [`Self::gathered`] on.
    pub fn course(&mut self, now: Timestamp, reader: &Mailbox) -> Course {
        let (interval, per_hour) = (self.interval, self.per_hour);
        self.forget(now);
        let entry = self.readers.entry(reader.clone()).or_default();
        if entry.unreachable_until.is_some_and(|until| now < until) {
            return Course::Unreachable;
        }
        if entry.gathered.is_none() && entry.next(interval, per_hour) <= now {
            entry.wrote(now, per_hour);
            return Course::AtOnce;
        }
        Course::Gather
    }

    /// So many recipients are now kept for a reader's digest.
    pub fn gathered(&mut self, now: Timestamp, reader: &Mailbox, recipients: usize) {
        let entry = self.readers.entry(reader.clone()).or_default();
        let (count, since) = entry.gathered.unwrap_or((0, now));
        entry.gathered = Some((count + recipients, since));
    }

    /// When the next digest is due, if one is.
    pub fn due(&self) -> Option<Timestamp> {
        self.gathering().map(|(_, reader)| reader.next(self.interval, self.per_hour)).min()
    }

    /// The readers whose digest is due.
    pub fn ready(&self, now: Timestamp) -> Vec<Mailbox> {
        let ready = self.gathering().filter(|(_, reader)| reader.next(self.interval, self.per_hour) <= now);
        ready.map(|(mailbox, _)| mailbox.clone()).collect()
    }

    /// A digest with so many of those recipients was written at the time `now`.
    pub fn digested(&mut self, now: Timestamp, reader: &Mailbox, recipients: usize) {
        let per_hour = self.per_hour;
        if let Some(entry) = self.readers.get_mut(reader) {
            entry.wrote(now, per_hour);
            entry.took(now, recipients);
        }
    }

    /// So many of those recipients are gathered no longer, and nobody was told.
    pub fn dropped(&mut self, now: Timestamp, reader: &Mailbox, recipients: usize) {
        if let Some(entry) = self.readers.get_mut(reader) {
            entry.took(now, recipients);
        }
    }

    /// A notice to this reader has failed.
    pub fn unreachable(&mut self, now: Timestamp, reader: &Mailbox) {
        self.forget(now);
        self.readers.entry(reader.clone()).or_default().unreachable_until = Some(now + UNREACHABLE);
    }

    /// Whether notices do not reach this reader.
    pub fn is_unreachable(&self, now: Timestamp, reader: &Mailbox) -> bool {
        self.readers.get(reader).and_then(|reader| reader.unreachable_until).is_some_and(|until| now < until)
    }

    fn gathering(&self) -> impl Iterator<Item = (&Mailbox, &Reader)> {
        self.readers.iter().filter(|(_, reader)| reader.gathered.is_some())
    }

    /// Makes room: of those that nothing is gathered for, first the idle ones go and then all.
    fn forget(&mut self, now: Timestamp) {
        if self.readers.len() < READERS {
            return;
        }
        let interval = self.interval;
        self.readers.retain(|_, reader| !reader.is_idle(now, interval));
        if self.readers.len() >= READERS {
            self.readers.retain(|_, reader| reader.gathered.is_some());
        }
    }
}

impl Reader {
    fn wrote(&mut self, now: Timestamp, per_hour: usize) {
        self.notices.push_back(now);
        while self.notices.len() > per_hour {
            self.notices.pop_front();
        }
    }

    fn took(&mut self, now: Timestamp, recipients: usize) {
        self.gathered = self.gathered.and_then(|(count, _)| Some((count.checked_sub(recipients).filter(|left| *left > 0)?, now)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_795_285_881_000);

    fn at(minutes: u64) -> Timestamp {
        START + Duration::from_secs(60 * minutes)
    }

    fn reader(number: usize) -> Mailbox {
        format!("app{number}@contoso.com").parse().expect("a mailbox")
    }

    fn pace(per_hour: usize) -> Pace {
        Pace::new(Duration::from_secs(900), per_hour)
    }

    /// Something that is not told at once is kept.
    fn gather(pace: &mut Pace, now: Timestamp, reader: &Mailbox, recipients: usize) {
        assert_eq!(pace.course(now, reader), Course::Gather);
        pace.gathered(now, reader, recipients);
    }

    #[test]
    fn the_first_is_told_at_once_and_the_others_together_at_the_end_of_the_interval() {
        let mut pace = pace(20);
        assert_eq!(pace.course(at(0), &reader(1)), Course::AtOnce);
        for minute in 1..=14 {
            gather(&mut pace, at(minute), &reader(1), 2);
        }
        assert_eq!(pace.course(at(3), &reader(2)), Course::AtOnce, "each reader has its own pace");
        assert_eq!((pace.due(), pace.ready(at(14))), (Some(at(15)), vec![]));
        assert_eq!(pace.ready(at(15)), [reader(1)]);
        pace.digested(at(15), &reader(1), 28);
        assert_eq!((pace.due(), pace.ready(at(99))), (None, vec![]));
        gather(&mut pace, at(29), &reader(1), 1);
        assert_eq!(pace.due(), Some(at(30)));
        pace.digested(at(30), &reader(1), 1);
        assert_eq!(pace.course(at(45), &reader(1)), Course::AtOnce);
    }

    #[test]
    fn a_full_digest_does_not_wait_but_an_hour_has_only_so_many() {
        let mut pace = pace(3);
        assert_eq!(pace.course(at(0), &reader(1)), Course::AtOnce);
        gather(&mut pace, at(0), &reader(1), 5 * DIGEST);
        let mut digests = Vec::new();
        for minute in 0..180 {
            while pace.ready(at(minute)) == [reader(1)] {
                pace.digested(at(minute), &reader(1), DIGEST);
                digests.push(minute);
            }
        }
        assert_eq!(digests, [0, 0, 60, 60, 60]);
    }

    #[test]
    fn what_a_digest_leaves_over_goes_with_the_next() {
        let mut pace = pace(20);
        pace.course(at(0), &reader(1));
        gather(&mut pace, at(1), &reader(1), DIGEST + 1);
        assert_eq!(pace.due(), Some(at(0)));
        pace.digested(at(1), &reader(1), DIGEST);
        assert_eq!(pace.due(), Some(at(16)));
    }

    #[test]
    fn a_restart_keeps_what_was_gathered_waiting() {
        let mut pace = pace(20);
        pace.restore(reader(1), 7, at(0));
        assert_eq!(pace.course(at(1), &reader(1)), Course::Gather);
        assert_eq!(pace.due(), Some(at(15)));
    }

    #[test]
    fn a_reader_that_does_not_exist_is_left_alone_for_a_day() {
        let mut pace = pace(20);
        pace.course(at(0), &reader(1));
        gather(&mut pace, at(0), &reader(1), 3);
        pace.unreachable(at(1), &reader(1));
        assert_eq!(pace.course(at(2), &reader(1)), Course::Unreachable);
        assert!(pace.is_unreachable(at(1_400), &reader(1)));
        pace.dropped(at(15), &reader(1), 3);
        assert_eq!(pace.due(), None);
        assert_eq!(pace.course(at(1_441), &reader(1)), Course::AtOnce);
    }

    #[test]
    fn remembers_only_so_many_readers_and_all_that_something_is_gathered_for() {
        let mut pace = pace(20);
        pace.restore(reader(0), 1, at(0));
        for number in 1..3 * READERS {
            assert_eq!(pace.course(at(1), &reader(number)), Course::AtOnce);
        }
        assert!(pace.readers.len() <= READERS);
        assert_eq!(pace.due(), Some(at(15)));
    }
}
