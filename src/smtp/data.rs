//! The content of a message as it comes over the wire, turned into what is kept: CRLF line ends only, not dot-stuffed (RFC 5321 §4.5.2).
//!
//! [`DataDecoder`] takes octets in pieces of any size, may stop behind any of them, and copies long runs of ordinary text whole: it looks
//! only at line ends and at what stands behind them.
//!
//! Invariants, on which the safety against smuggled messages rests:
//! * The end of data is `CRLF . CRLF` (the CRLF of the DATA command counts as the first) and nothing else. A dot next to a bare LF or a bare
//!   CR, on either side, never ends a message: `LF . LF`, `LF . CRLF`, `CR . CRLF`, `CRLF . LF`, `CRLF . CR CRLF` are text.
//! * What comes out has no CR without LF and no LF without CR. A bare LF or a bare CR ends a line, as its writer meant it to, and leaves as
//!   CRLF; whoever sends the content on stuffs its dots anew, so nothing that was text here can end a message there.
//! * A line that begins behind CRLF loses its first dot, always. A line that begins behind a bare LF or CR loses a dot only if it has two:
//!   a client that stuffs such lines has written two, one that stuffs only behind CRLF has written what it means.
//! * NUL and octets beyond ASCII pass.

use memchr::memchr2;

const CR: u8 = b'\r';
const LF: u8 = b'\n';
const CRLF: &[u8] = b"\r\n";

/// What stands before the next octet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// CRLF, or nothing yet.
    #[default]
    LineStart,
    /// CRLF and a dot, which is held back for good.
    Dot,
    /// CRLF, a dot and a CR, which is held back.
    DotCr,
    /// A bare LF or a bare CR.
    BareStart,
    /// A bare LF or a bare CR, and a dot, which has been passed on.
    BareDot,
    /// Text.
    Text,
    /// Text or a line end, and a CR, which is held back.
    Cr,
}

/// Decodes content octet by octet as far as its results go, run by run as far as its work goes.
#[derive(Debug, Clone, Default)]
pub struct DataDecoder {
    state: State,
    lone_dot: bool,
    bare: bool,
}

impl DataDecoder {
    /// At the beginning of a message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends to `out` what `input` means. Returns how many octets of `input` belong to the message if its end of data is among them, else
    /// `None`, and then all of them do. Never appends more than twice as many octets as it takes, and two.
    ///
    /// Behind the end of data the decoder stands at the beginning of the next message.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let mut at = 0;
        while let Some(&octet) = input.get(at) {
            // Each arm says what the octet makes of the state, and whether it is used up or to be looked at again in that state.
            let (state, used) = match (self.state, octet) {
                (State::Text, _) => {
                    at = self.text(input, at, out);
                    continue;
                }
                (State::LineStart, b'.') => (State::Dot, true),
                (State::BareStart, b'.') => {
                    out.push(b'.');
                    (State::BareDot, true)
                }
                (State::BareDot, b'.') => (State::Text, true),
                (State::BareDot, CR | LF) | (State::Dot, LF) => {
                    self.lone_dot = true;
                    (State::Text, false)
                }
                (State::LineStart | State::BareStart | State::BareDot, _) => (State::Text, false),
                (State::Dot, CR) => (State::DotCr, true),
                (State::Dot, _) => (State::Text, false),
                (State::DotCr, LF) => {
                    *self = Self { bare: self.bare, ..Self::new() };
                    return Some(at + 1);
                }
                (State::Cr, LF) => {
                    out.extend_from_slice(CRLF);
                    (State::LineStart, true)
                }
                (State::Cr | State::DotCr, _) => {
                    self.lone_dot |= self.state == State::DotCr;
                    self.bare = true;
                    out.extend_from_slice(CRLF);
                    (State::BareStart, false)
                }
            };
            self.state = state;
            at += usize::from(used);
        }
        None
    }

    /// Whether the client has sent a line of one dot that is not the end of data because a line end next to it is not CRLF. If nothing
    /// comes after it, that is what the client takes for the end.
    pub fn has_lone_dot(&self) -> bool {
        self.lone_dot
    }

    /// Whether a line end was a bare LF or a bare CR, in this message or in one before it.
    pub fn has_bare_line_ends(&self) -> bool {
        self.bare
    }

    /// Copies text from `from` on; stops at the end of the input or where a line end needs a closer look. Returns where it stopped.
    fn text(&mut self, input: &[u8], from: usize, out: &mut Vec<u8>) -> usize {
        let mut at = from;
        let (copied, stopped) = loop {
            let Some(found) = memchr2(CR, LF, &input[at..]) else { break (input.len(), input.len()) };
            let end = at + found;
            match (input[end], input.get(end + 1), input.get(end + 2)) {
                (LF, ..) => {
                    self.state = State::BareStart;
                    self.bare = true;
                    out.extend_from_slice(&input[from..end]);
                    out.extend_from_slice(CRLF);
                    return end + 1;
                }
                // Nearly every line of nearly every message: it ends in CRLF, and the next one does not begin with a dot.
                (_, Some(&LF), Some(next)) if *next != b'.' => at = end + 2,
                (_, Some(&LF), _) => {
                    self.state = State::LineStart;
                    break (end + 2, end + 2);
                }
                _ => {
                    self.state = State::Cr;
                    break (end, end + 1);
                }
            }
        };
        out.extend_from_slice(&input[from..copied]);
        stopped
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Decodes the pieces one after the other: the content, and what is left behind the end of data if that came.
    fn decode(pieces: &[&[u8]]) -> (Vec<u8>, Option<Vec<u8>>) {
        let (mut decoder, mut out, mut rest) = (DataDecoder::new(), Vec::new(), None::<Vec<u8>>);
        for piece in pieces {
            match &mut rest {
                Some(rest) => rest.extend_from_slice(piece),
                None => rest = decoder.decode(piece, &mut out).map(|end| piece[end..].to_vec()),
            }
        }
        (out, rest)
    }

    /// The invariants of the file once more, as slow and as plain as possible.
    fn reference(input: &[u8]) -> (Vec<u8>, Option<Vec<u8>>) {
        let wire = [CRLF, input].concat();
        let end = memchr::memmem::find(&wire, b"\r\n.\r\n");
        let (text, rest) = match end {
            Some(end) => (&wire[2..end.max(2)], Some(wire[end + 5..].to_vec())),
            None => (&wire[2..], None),
        };
        // With the end of data, the CRLF before its dot is the last line's.
        let text = if end.is_some_and(|end| end > 0) { [text, CRLF].concat() } else { text.to_vec() };
        let (mut out, mut at, mut after_crlf) = (Vec::new(), 0, true);
        while at < text.len() {
            let length = memchr2(CR, LF, &text[at..]).unwrap_or(text.len() - at);
            let mut line = &text[at..at + length];
            at += length;
            if line.starts_with(if after_crlf { b"." } else { b".." }) {
                line = &line[1..];
            }
            out.extend_from_slice(line);
            after_crlf = text[at..].starts_with(CRLF);
            if at < text.len() {
                out.extend_from_slice(CRLF);
                at += if after_crlf { 2 } else { 1 };
            }
        }
        (out, rest)
    }

    fn has_only_crlf(content: &[u8]) -> bool {
        let crlfs = memchr::memmem::find_iter(content, CRLF).count();
        memchr::memchr_iter(CR, content).count() == crlfs && memchr::memchr_iter(LF, content).count() == crlfs
    }

    fn stuff(content: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        for line in content.split_inclusive(|octet| *octet == LF) {
            if line.starts_with(b".") {
                wire.push(b'.');
            }
            wire.extend_from_slice(line);
        }
        wire.extend_from_slice(b".\r\n");
        wire
    }

    #[test]
    fn takes_and_unstuffs_what_proper_clients_send() {
        for (wire, content, rest) in [
            (".\r\n", "", ""),
            ("\r\n.\r\n", "\r\n", ""),
            ("a\r\n.\r\nQUIT\r\n", "a\r\n", "QUIT\r\n"),
            ("a\r\n\r\nb\r\n.\r\n", "a\r\n\r\nb\r\n", ""),
            ("..\r\n.\r\n", ".\r\n", ""),
            ("..a\r\n...\r\n.\r\n", ".a\r\n..\r\n", ""),
            (".a\r\n.\r\n", "a\r\n", ""),
            ("a.\r\n.\r\n", "a.\r\n", ""),
            ("a\0\u{e9}\r\n.\r\n", "a\0\u{e9}\r\n", ""),
        ] {
            let expected = (content.as_bytes().to_vec(), Some(rest.as_bytes().to_vec()));
            assert_eq!(decode(&[wire.as_bytes()]), expected, "{wire:?}");
        }
    }

    #[test]
    fn a_dot_next_to_a_bare_line_end_ends_nothing() {
        for (wire, content) in [
            ("a\n.\nMAIL", "a\r\n.\r\nMAIL"),
            ("a\n.\r\nMAIL", "a\r\n.\r\nMAIL"),
            ("a\r.\rMAIL", "a\r\n.\r\nMAIL"),
            ("a\r.\r\nMAIL", "a\r\n.\r\nMAIL"),
            ("a\r\n.\nMAIL", "a\r\n\r\nMAIL"),
            ("a\r\n.\rMAIL", "a\r\n\r\nMAIL"),
            ("a\r\n.\r\rMAIL", "a\r\n\r\n\r\nMAIL"),
            ("a\r\n.\r\r\nMAIL", "a\r\n\r\n\r\nMAIL"),
            ("a\n.\n.\r\nMAIL", "a\r\n.\r\n.\r\nMAIL"),
            (".\nMAIL", "\r\nMAIL"),
            ("\n.\r\nMAIL", "\r\n.\r\nMAIL"),
            ("a\n..\nb", "a\r\n.\r\nb"),
            ("a\n.b", "a\r\n.b"),
            ("a\r\n\0.\r\nMAIL", "a\r\n\0.\r\nMAIL"),
        ] {
            assert_eq!(decode(&[wire.as_bytes()]), (content.as_bytes().to_vec(), None), "{wire:?}");
        }
    }

    #[test]
    fn notices_what_a_careless_client_takes_for_the_end() {
        for (wire, lone) in
            [("a\n.\n", true), ("a\n.\r\n", true), ("a\r\n.\n", true), ("a\r\n.\rx", true), ("a\n.b\n", false), ("a\r\n..\r\n", false)]
        {
            let mut decoder = DataDecoder::new();
            assert_eq!(decoder.decode(wire.as_bytes(), &mut Vec::new()), None);
            assert_eq!(decoder.has_lone_dot(), lone, "{wire:?}");
        }
    }

    #[test]
    fn notices_every_line_end_that_is_none() {
        for (wire, bare) in [
            ("a\r\nb\r\n.\r\n", false),
            ("\r\n..\r\n.\r\n", false),
            ("a\nb\r\n.\r\n", true),
            ("a\rb\r\n.\r\n", true),
            ("\n\r\n.\r\n", true),
            ("a\r\r\n.\r\n", true),
            (".\n\r\n.\r\n", true),
            (".\rx\r\n.\r\n", true),
        ] {
            for cut in 0..wire.len() {
                let mut decoder = DataDecoder::new();
                let (first, second) = wire.as_bytes().split_at(cut);
                assert_eq!(decoder.decode(first, &mut Vec::new()), None);
                assert!(decoder.decode(second, &mut Vec::new()).is_some());
                assert_eq!(decoder.has_bare_line_ends(), bare, "{wire:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn every_short_wire_means_what_the_definition_says_wherever_it_is_cut() {
        const ALPHABET: [u8; 4] = [CR, LF, b'.', b'a'];
        for length in 0..=8_u32 {
            for number in 0..4_usize.pow(length) {
                let mut wire: Vec<u8> = (0..length).map(|i| ALPHABET[number >> (2 * i) & 3]).collect();
                // A letter brings out what is held back.
                wire.push(b'a');
                let expected = reference(&wire);
                for cut in 0..wire.len() {
                    assert_eq!(decode(&[&wire[..cut], &wire[cut..]]), expected, "{} cut at {cut}", wire.escape_ascii());
                }
            }
        }
    }

    proptest! {
        #[test]
        fn what_comes_out_has_crlf_only_wherever_it_is_cut(
            wire in proptest::collection::vec(prop_oneof![Just(CR), Just(LF), Just(b'.'), any::<u8>()], 0..300),
            cut in any::<prop::sample::Index>(),
        ) {
            let cut = cut.index(wire.len() + 1);
            let whole = decode(&[&wire]);
            prop_assert!(has_only_crlf(&whole.0));
            prop_assert!(whole.0.len() <= 2 * wire.len() + 2);
            prop_assert_eq!(&decode(&[&wire[..cut], &wire[cut..]]), &whole);
            let octets: Vec<&[u8]> = wire.chunks(1).collect();
            prop_assert_eq!(&decode(&octets), &whole);
        }

        #[test]
        fn what_was_decoded_is_decoded_from_its_own_encoding(
            wire in proptest::collection::vec(prop_oneof![Just(CR), Just(LF), Just(b'.'), Just(b'a')], 0..200),
        ) {
            let (content, rest) = decode(&[&wire, b"\r\n.\r\n"]);
            prop_assert!(rest.is_some());
            prop_assert!(content.is_empty() || content.ends_with(CRLF));
            prop_assert_eq!(decode(&[&stuff(&content)]), (content, Some(Vec::new())));
        }
    }
}
