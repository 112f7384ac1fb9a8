//! What devices do otherwise than the standards have it, and is taken all the same: counted, so that an operator can find and mend them.
//!
//! Each [`Habit`] has a name for programs and a sentence for people. A session tells one habit once for each message, and once for what is
//! said outside of messages, however often it was met there. [`Habits`] counts per client; its size is bounded by the clients that there are
//! and were in the configuration. It says since when, and whether there is anything that whoever keeps it has not seen.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::mail::ClientName;

/// From how long after the last time on it is worth a line in the log again.
const A_DAY: Duration = Duration::from_secs(86_400);

/// Something that a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Habit {
    /// Commands end in LF alone (RFC 5321 §2.3.8).
    BareLfInCommands,
    /// Lines of content end in LF or CR alone (RFC 5321 §2.3.8).
    BareLineEnds,
    /// HELO or EHLO without a name (RFC 5321 §4.1.1.1).
    NoHeloName,
    /// A name that is neither a host name nor an address in brackets: an underscore, a bare address.
    OddHeloName,
    /// `MAIL FROM: <a@b>`, `MAIL FROM:a@b` and the like (RFC 5321 §3.3).
    LoosePaths,
    /// A sender or a recipient without `@domain`.
    NoDomain,
    /// Parameters that were not offered.
    UnknownParameters,
    /// A login where none was offered.
    AuthNotOffered,
    /// The connection is closed without QUIT.
    NoQuit,
    /// A TLS handshake where TLS does not begin at once.
    TlsOnPlainPort,
    /// A request of HTTP.
    Http,
    /// No Date field (RFC 5322 §3.6).
    NoDate,
    /// No From field.
    NoFrom,
    /// More than one From field.
    SeveralFrom,
    /// No Message-ID field.
    NoMessageId,
    /// Lines of more than 998 octets (RFC 5322 §2.1.1).
    LongLines,
    /// NUL in the content (RFC 5322 §2.2 and §4).
    Nul,
    /// Octets beyond ASCII without BODY=8BITMIME (RFC 6152).
    UndeclaredEightBit,
}

impl Habit {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::BareLfInCommands,
        Self::BareLineEnds,
        Self::NoHeloName,
        Self::OddHeloName,
        Self::LoosePaths,
        Self::NoDomain,
        Self::UnknownParameters,
        Self::AuthNotOffered,
        Self::NoQuit,
        Self::TlsOnPlainPort,
        Self::Http,
        Self::NoDate,
        Self::NoFrom,
        Self::SeveralFrom,
        Self::NoMessageId,
        Self::LongLines,
        Self::Nul,
        Self::UndeclaredEightBit,
    ];

    /// Its name, in logs and for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BareLfInCommands => "bare-lf-in-commands",
            Self::BareLineEnds => "bare-line-ends",
            Self::NoHeloName => "no-helo-name",
            Self::OddHeloName => "odd-helo-name",
            Self::LoosePaths => "loose-paths",
            Self::NoDomain => "no-domain",
            Self::UnknownParameters => "unknown-parameters",
            Self::AuthNotOffered => "auth-not-offered",
            Self::NoQuit => "no-quit",
            Self::TlsOnPlainPort => "tls-on-plain-port",
            Self::Http => "http",
            Self::NoDate => "no-date",
            Self::NoFrom => "no-from",
            Self::SeveralFrom => "several-from",
            Self::NoMessageId => "no-message-id",
            Self::LongLines => "long-lines",
            Self::Nul => "nul",
            Self::UndeclaredEightBit => "undeclared-8bit",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|habit| habit.as_str() == name)
    }

    /// What the client does, in words.
    pub fn words(self) -> &'static str {
        match self {
            Self::BareLfInCommands => "bare LF behind commands",
            Self::BareLineEnds => "bare LF or CR in content",
            Self::NoHeloName => "HELO without a name",
            Self::OddHeloName => "HELO with a name that is none",
            Self::LoosePaths => "addresses not written :<name@domain>",
            Self::NoDomain => "addresses without a domain",
            Self::UnknownParameters => "parameters that were not offered",
            Self::AuthNotOffered => "login where none is offered",
            Self::NoQuit => "hangs up without QUIT",
            Self::TlsOnPlainPort => "TLS on a port that does not begin with it",
            Self::Http => "HTTP in place of SMTP",
            Self::NoDate => "no Date field",
            Self::NoFrom => "no From field",
            Self::SeveralFrom => "several From fields",
            Self::NoMessageId => "no Message-ID field",
            Self::LongLines => "lines of more than 998 octets",
            Self::Nul => "NUL in content",
            Self::UndeclaredEightBit => "8-bit content that is not declared",
        }
    }

    /// What the relay does about it: whether the mail goes through.
    pub fn outcome(self) -> &'static str {
        match self {
            Self::BareLfInCommands => "taken; line_endings = \"refuse\" refuses it",
            Self::BareLineEnds => "made CR LF; line_endings = \"refuse\" refuses it",
            Self::NoHeloName | Self::OddHeloName | Self::LoosePaths | Self::NoQuit => "taken",
            Self::NoDomain => "the first of accepted_domains is added",
            Self::UnknownParameters => "passed over",
            Self::AuthNotOffered => "refused, and the session goes on",
            Self::TlsOnPlainPort | Self::Http => "refused and closed: this device sends no mail until it is set right",
            Self::NoDate | Self::NoFrom | Self::NoMessageId => "added",
            Self::SeveralFrom => "the first counts",
            Self::LongLines | Self::Nul | Self::UndeclaredEightBit => "kept as it is",
        }
    }
}

/// Some habits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HabitSet(u32);

impl HabitSet {
    /// Adds one; whether it was not there.
    pub fn insert(&mut self, habit: Habit) -> bool {
        let before = self.0;
        self.0 |= 1 << habit as u32;
        self.0 != before
    }

    /// Those that are in it.
    pub fn iter(self) -> impl Iterator<Item = Habit> {
        Habit::ALL.into_iter().filter(move |habit| self.0 & (1 << *habit as u32) != 0)
    }
}

impl FromIterator<Habit> for HabitSet {
    fn from_iter<I: IntoIterator<Item = Habit>>(habits: I) -> Self {
        let mut set = Self::default();
        habits.into_iter().for_each(|habit| {
            set.insert(habit);
        });
        set
    }
}

/// How often a client has shown a habit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Messages, or sessions for what is said outside of messages.
    pub count: u64,
    /// The first time.
    pub first: Timestamp,
    /// The last time.
    pub last: Timestamp,
    /// Where it came from then.
    pub peer: IpAddr,
    /// When it was worth a line in the log.
    pub told: Timestamp,
}

/// The habits of all clients.
#[derive(Debug, Clone)]
pub struct Habits {
    since: Timestamp,
    counts: BTreeMap<(ClientName, Habit), Count>,
    has_changed: bool,
}

impl Habits {
    /// Nothing has been seen yet.
    pub fn new(now: Timestamp) -> Self {
        Self { since: now, counts: BTreeMap::new(), has_changed: true }
    }

    /// What was seen earlier, since then.
    pub fn restored(since: Timestamp, counts: impl IntoIterator<Item = ((ClientName, Habit), Count)>) -> Self {
        Self { since, counts: counts.into_iter().collect(), has_changed: false }
    }

    /// Whether there is anything new since this was asked last.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.has_changed)
    }

    /// There is something new to be kept, for what was taken was not.
    pub fn note_changed(&mut self) {
        self.has_changed = true;
    }

    /// All that was seen.
    pub fn iter(&self) -> impl Iterator<Item = (&ClientName, Habit, Count)> {
        self.counts.iter().map(|((client, habit), count)| (client, *habit, *count))
    }

    /// Counts one. The count comes back if this is worth a line in the log: the first time, and then once a day.
    pub fn note(&mut self, now: Timestamp, client: &ClientName, peer: IpAddr, habit: Habit) -> Option<u64> {
        self.has_changed = true;
        let first = Count { count: 0, first: now, last: now, peer, told: now };
        let count = self.counts.entry((client.clone(), habit)).or_insert(first);
        count.count += 1;
        (count.last, count.peer) = (now, peer);
        let is_new = count.count == 1 || now.since(count.told) >= A_DAY;
        if is_new {
            count.told = now;
        }
        is_new.then_some(count.count)
    }

    /// Since when they are counted.
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// What a client was seen to do, in the order of [`Habit::ALL`].
    pub fn of(&self, client: &ClientName) -> Vec<(Habit, Count)> {
        Habit::ALL.into_iter().filter_map(|habit| Some((habit, *self.counts.get(&(client.clone(), habit))?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_habit_has_its_place_and_its_name() {
        for (place, habit) in Habit::ALL.into_iter().enumerate() {
            assert_eq!(habit as usize, place);
            assert_eq!(Habit::named(habit.as_str()), Some(habit));
        }
        let names: BTreeSet<&str> = Habit::ALL.into_iter().map(Habit::as_str).collect();
        let words: BTreeSet<&str> = Habit::ALL.into_iter().map(Habit::words).collect();
        assert_eq!((names.len(), words.len()), (Habit::ALL.len(), Habit::ALL.len()));
    }

    #[test]
    fn a_set_has_each_once() {
        let mut set = HabitSet::default();
        assert!(set.insert(Habit::Nul) && set.insert(Habit::NoQuit) && !set.insert(Habit::Nul));
        assert_eq!(set.iter().collect::<Vec<_>>(), [Habit::NoQuit, Habit::Nul]);
        assert_eq!(Habit::ALL.into_iter().collect::<HabitSet>().iter().count(), Habit::ALL.len());
    }

    #[test]
    fn counts_per_client_and_tells_once_a_day() {
        let at = |hours: u64| Timestamp::from_millis(1_795_285_881_000) + Duration::from_secs(3_600 * hours);
        let (devices, erp) = (ClientName::new("devices"), ClientName::new("erp"));
        let (one, two) = (IpAddr::from([10, 20, 0, 1]), IpAddr::from([10, 20, 0, 2]));
        let mut habits = Habits::new(at(0));
        assert_eq!(habits.note(at(1), &devices, one, Habit::Nul), Some(1));
        assert_eq!(habits.note(at(2), &devices, two, Habit::Nul), None);
        assert_eq!(habits.note(at(2), &erp, two, Habit::Nul), Some(1));
        assert_eq!(habits.note(at(3), &devices, two, Habit::NoDate), Some(1));
        assert_eq!(habits.note(at(24), &devices, one, Habit::Nul), None);
        assert_eq!(habits.note(at(25), &devices, one, Habit::Nul), Some(4));
        assert_eq!(habits.note(at(26), &devices, two, Habit::Nul), None);
        let nul = Count { count: 5, first: at(1), last: at(26), peer: two, told: at(25) };
        let no_date = Count { count: 1, first: at(3), last: at(3), peer: two, told: at(3) };
        assert_eq!(habits.of(&devices), [(Habit::NoDate, no_date), (Habit::Nul, nul)]);
        assert_eq!((habits.of(&erp).len(), habits.of(&ClientName::new("x")).len(), habits.since()), (1, 0, at(0)));
        assert!(habits.take_changed() && !habits.take_changed());
        let kept: Vec<_> = habits.iter().map(|(client, habit, count)| ((client.clone(), habit), count)).collect();
        let mut restored = Habits::restored(habits.since(), kept);
        assert_eq!((restored.of(&devices), restored.since(), restored.take_changed()), (habits.of(&devices), at(0), false));
        assert_eq!(restored.note(at(27), &devices, one, Habit::Nul), None, "told yesterday, in another life");
        assert!(restored.take_changed());
    }
}
