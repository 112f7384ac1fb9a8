//! The fuzz targets' entry points on stable, for a bounded time: with dialogues that are made up, and with those of `tests/dialogues/`, changed.
//! `tests/fuzz/Cargo.toml` says how to run them for longer.

#[path = "support/dialogue.rs"]
mod dialogue;
#[path = "fuzz/entry.rs"]
mod entry;

use std::sync::LazyLock;

use dialogue::{Action, scripts};
use proptest::prelude::*;
use proptest::sample::Index;

/// What the client sends in each script. Those that go on for very long add nothing here.
static DIALOGUES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let sent = |script: &dialogue::Script| {
        let steps = script.steps.iter().filter_map(|step| if let Action::Send(octets) = &step.action { Some(&octets[..]) } else { None });
        steps.collect::<Vec<_>>().concat()
    };
    scripts().iter().map(sent).filter(|octets| (1..8_000).contains(&octets.len())).collect()
});

/// Pieces that mean something somewhere.
const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b".",
    b"\0",
    b" ",
    b"\t",
    b"<",
    b">",
    b"\"",
    b"\\",
    b"@",
    b":",
    b"\xff",
    b"\xc3\xbc",
    b"\x16\x03\x01",
    b"\r\n.\r\n",
    b"\n.\n",
    b"\r\n.\r\r\n",
    b"DATA\r\n",
    b"RSET\r\n",
    b"MAIL FROM:<a@b>\r\n",
    b"RCPT TO:<a@contoso.com>\r\n",
    b"BDAT 5\r\n",
    b"QUIT\r\n",
    b"AUTH LOGIN\r\n",
    b"AUTH PLAIN AGluAHg=\r\n",
    b"aW4=\r\n",
    b"*\r\n",
    b"STARTTLS\r\n",
    b"EHLO x\r\n",
    b" SIZE=99999999999999999999",
    b"From: ",
    b"\r\n ",
    b"Received: x\r\n",
    b"GET / HTTP/1.1\r\n",
];

/// One change of a dialogue.
#[derive(Debug, Clone)]
enum Change {
    /// An octet is another one.
    Octet(Index, u8),
    /// A piece is put in.
    Insert(Index, &'static [u8]),
    /// A stretch is left out.
    Remove(Index, usize),
    /// A stretch comes a second time.
    Repeat(Index, usize),
    /// From there on it is another dialogue.
    Splice(Index, Index, Index),
}

impl Change {
    fn apply(&self, octets: &mut Vec<u8>) {
        let stretch = |octets: &[u8], at: &Index, length: usize| {
            let start = at.index(octets.len() + 1);
            start..(start + length).min(octets.len())
        };
        match self {
            Self::Octet(..) if octets.is_empty() => {}
            Self::Octet(at, octet) => {
                let at = at.index(octets.len());
                octets[at] = *octet;
            }
            Self::Insert(at, piece) => {
                let at = at.index(octets.len() + 1);
                octets.splice(at..at, piece.iter().copied());
            }
            Self::Remove(at, length) => drop(octets.drain(stretch(octets, at, *length))),
            Self::Repeat(at, length) => {
                let range = stretch(octets, at, *length);
                let again = octets[range.clone()].to_vec();
                octets.splice(range.start..range.start, again);
            }
            Self::Splice(at, other, from) => {
                let other = other.get(&DIALOGUES);
                octets.truncate(at.index(octets.len() + 1));
                octets.extend_from_slice(&other[from.index(other.len())..]);
            }
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<Index>;
    prop_oneof![
        (index(), any::<u8>()).prop_map(|(at, octet)| Change::Octet(at, octet)),
        (index(), prop::sample::select(PIECES)).prop_map(|(at, piece)| Change::Insert(at, piece)),
        (index(), 1..40_usize).prop_map(|(at, length)| Change::Remove(at, length)),
        (index(), 1..80_usize).prop_map(|(at, length)| Change::Repeat(at, length)),
        (index(), index(), index()).prop_map(|(at, other, from)| Change::Splice(at, other, from)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_change_of_a_dialogue_breaks_a_promise(way: u8, which: Index, changes in proptest::collection::vec(change(), 0..6)) {
        let mut octets = which.get(&DIALOGUES).clone();
        changes.iter().for_each(|change| change.apply(&mut octets));
        entry::session(&[&[way], &octets[..]].concat());
    }

    #[test]
    fn nothing_that_is_made_up_breaks_a_promise(
        way: u8,
        pieces in proptest::collection::vec(prop_oneof![4 => prop::sample::select(PIECES).prop_map(<[u8]>::to_vec), 1 => proptest::collection::vec(any::<u8>(), 0..30)], 0..60),
    ) {
        entry::session(&[&[way], &pieces.concat()[..]].concat());
    }

    #[test]
    fn no_message_breaks_a_promise(
        pieces in proptest::collection::vec(prop_oneof![4 => prop::sample::select(PIECES).prop_map(<[u8]>::to_vec), 2 => "[A-Za-z-]{1,12}: [ -~]{0,40}\r\n".prop_map(String::into_bytes), 1 => proptest::collection::vec(any::<u8>(), 0..60)], 0..40),
    ) {
        entry::message(&pieces.concat());
    }
}
