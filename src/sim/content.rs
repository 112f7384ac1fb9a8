//! The content of a message, from 354 to the final dot (RFC 5321 §4.1.1.4, §4.5.2) or chunk by chunk (RFC 3030), as strictly as it can be read.
//!
//! A state for each position that matters, and memchr from one line end to the next, so that pieces of any size go through in long runs. A
//! line begins after CRLF and nowhere else: a dot behind a bare LF or CR neither ends the content nor is it unstuffed.
//! Memory is bounded by the size limit; what comes beyond is counted and dropped.

use memchr::{memchr2, memchr2_iter, memmem};
use ring::digest::{Context, SHA256};

use super::record::{Violation, digest};
use super::settings::Keep;

/// How much of the content is looked at as header.
const HEADER_LIMIT: usize = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    LineStart,
    Text,
    /// Behind a CR that may be half of a line end.
    Cr,
    /// Behind a dot at the start of a line; it is withheld.
    Dot,
    /// Behind that dot and a CR; both are withheld.
    DotCr,
}

/// Reads a content piece by piece.
pub(super) struct Content {
    state: State,
    /// What the present chunk still lacks; none: a final dot ends the content.
    chunk: Option<u64>,
    limit: u64,
    size: u64,
    hash: Option<Context>,
    octets: Option<Vec<u8>>,
    header: Vec<u8>,
    in_header: bool,
    eight_bit: bool,
    bare_lf: bool,
    bare_cr: bool,
    unstuffed: bool,
}

/// A content that has come to its end.
pub(super) struct Finished {
    pub(super) size: u64,
    pub(super) sha256: [u8; 32],
    pub(super) octets: Vec<u8>,
    /// Up to and with the line end before the empty line.
    pub(super) header: Vec<u8>,
    pub(super) eight_bit: bool,
    pub(super) bare_line_ends: bool,
    pub(super) violations: Vec<Violation>,
}

impl Content {
    pub(super) fn new(keep: Keep, limit: u64) -> Self {
        Self {
            state: State::LineStart,
            chunk: None,
            limit,
            size: 0,
            hash: (keep != Keep::Nothing).then(|| Context::new(&SHA256)),
            octets: (keep == Keep::All).then(Vec::new),
            header: Vec::new(),
            in_header: true,
            eight_bit: false,
            bare_lf: false,
            bare_cr: false,
            unstuffed: false,
        }
    }

    /// So many octets follow as they are.
    pub(super) fn begin_chunk(&mut self, octets: u64) {
        self.chunk = Some(octets);
    }

    /// Whether the chunk that was begun is whole.
    pub(super) fn has_chunk(&self) -> bool {
        self.chunk == Some(0)
    }

    /// Whether it comes in chunks.
    pub(super) fn is_chunked(&self) -> bool {
        self.chunk.is_some()
    }

    /// Octets so far.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Takes a piece as it is on the wire. Returns how much of it was used and whether the content, or the chunk, is at its end; what is left
    /// then are commands.
    pub(super) fn push(&mut self, piece: &[u8]) -> (usize, bool) {
        if let Some(left) = self.chunk {
            let used = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            self.chunk = Some(left - used as u64);
            self.take(&piece[..used]);
            return (used, self.has_chunk());
        }
        // What of the piece is content, but not yet handed on, begins at `run`.
        let (mut at, mut run) = (0, 0);
        while at < piece.len() {
            let octet = piece[at];
            match self.state {
                State::LineStart if octet == b'.' => {
                    self.keep(&piece[run..at]);
                    at += 1;
                    run = at;
                    self.state = State::Dot;
                }
                State::LineStart | State::Text => match memchr2(b'\r', b'\n', &piece[at..]) {
                    None => {
                        at = piece.len();
                        self.state = State::Text;
                    }
                    Some(ahead) => {
                        at += ahead;
                        let cr = piece[at] == b'\r';
                        self.bare_lf |= !cr;
                        self.state = if cr { State::Cr } else { State::Text };
                        at += 1;
                    }
                },
                State::Cr if octet == b'\n' => {
                    at += 1;
                    self.state = State::LineStart;
                }
                State::Cr => {
                    self.bare_cr = true;
                    self.state = State::Text;
                }
                State::Dot if octet == b'\r' => {
                    at += 1;
                    run = at;
                    self.state = State::DotCr;
                }
                State::Dot => {
                    self.unstuffed |= octet != b'.';
                    self.state = State::Text;
                }
                State::DotCr if octet == b'\n' => return (at + 1, true),
                State::DotCr => {
                    self.keep(b"\r");
                    self.bare_cr = true;
                    self.unstuffed = true;
                    self.state = State::Text;
                }
            }
        }
        self.keep(&piece[run..]);
        (piece.len(), false)
    }

    /// Takes octets of a chunk. Lines end with CRLF there too: BINARYMIME is not offered.
    fn take(&mut self, octets: &[u8]) {
        self.bare_cr |= self.state == State::Cr && octets.first().is_some_and(|first| *first != b'\n');
        for end in memchr2_iter(b'\r', b'\n', octets) {
            let before = if end == 0 { self.state == State::Cr } else { octets[end - 1] == b'\r' };
            self.bare_lf |= octets[end] == b'\n' && !before;
            self.bare_cr |= octets[end] == b'\r' && octets.get(end + 1).is_some_and(|next| *next != b'\n');
        }
        self.state = match octets.last() {
            None => self.state,
            Some(b'\r') => State::Cr,
            Some(_) => State::Text,
        };
        self.keep(octets);
    }

    fn keep(&mut self, run: &[u8]) {
        self.size += run.len() as u64;
        if run.is_empty() || self.size > self.limit {
            return;
        }
        self.eight_bit |= !run.is_ascii();
        if let Some(hash) = &mut self.hash {
            hash.update(run);
        }
        if let Some(octets) = &mut self.octets {
            octets.extend_from_slice(run);
        }
        if self.in_header {
            self.keep_header(run);
        }
    }

    fn keep_header(&mut self, run: &[u8]) {
        // The empty line may have begun in the run before.
        let from = self.header.len().saturating_sub(3);
        self.header.extend_from_slice(run);
        let end = match memmem::find(&self.header[from..], b"\r\n\r\n") {
            _ if self.header.starts_with(b"\r\n") => Some(0),
            Some(found) => Some(from + found + 2),
            None => (self.header.len() > HEADER_LIMIT).then_some(HEADER_LIMIT),
        };
        if let Some(end) = end {
            self.header.truncate(end);
            self.in_header = false;
        }
    }

    pub(super) fn finish(mut self) -> Finished {
        self.bare_cr |= self.state == State::Cr;
        let found = [(self.bare_lf, Violation::BareLf), (self.bare_cr, Violation::BareCr), (self.unstuffed, Violation::UnstuffedDot)];
        Finished {
            size: self.size,
            sha256: self.hash.map(|hash| digest(hash.finish())).unwrap_or_default(),
            octets: self.octets.unwrap_or_default(),
            header: self.header,
            eight_bit: self.eight_bit,
            bare_line_ends: self.bare_lf || self.bare_cr,
            violations: found.into_iter().filter_map(|(there, violation)| there.then_some(violation)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::sha256;
    use super::*;

    /// The content, and what came behind it; in pieces of this length.
    fn read(wire: &[u8], piece: usize) -> Option<(Finished, Vec<u8>)> {
        let mut content = Content::new(Keep::All, 1 << 20);
        let mut at = 0;
        while at < wire.len() {
            let end = wire.len().min(at + piece);
            let (used, done) = content.push(&wire[at..end]);
            at += used;
            if done {
                return Some((content.finish(), wire[at..].to_vec()));
            }
        }
        None
    }

    #[test]
    fn ends_at_crlf_dot_crlf_alone() {
        use Violation::{BareCr, BareLf, UnstuffedDot};
        let cases: &[(&[u8], &[u8], &[Violation])] = &[
            (b".\r\n", b"", &[]),
            (b"a\r\n.\r\n", b"a\r\n", &[]),
            (b"..\r\n.\r\n", b".\r\n", &[]),
            (b"...\r\n..a\r\n.\r\n", b"..\r\n.a\r\n", &[]),
            (b"a\r\n..\r\nb..\r\n.\r\n", b"a\r\n.\r\nb..\r\n", &[]),
            (b"\r\n\r\n.\r\n", b"\r\n\r\n", &[]),
            (b"a\n.\nb\r\n.\r\n", b"a\n.\nb\r\n", &[BareLf]),
            (b"a\n.\r\nb\r\n.\r\n", b"a\n.\r\nb\r\n", &[BareLf]),
            (b"a\r\n.\nb\r\n.\r\n", b"a\r\n\nb\r\n", &[BareLf, UnstuffedDot]),
            (b"a\r.\r\nb\r\n.\r\n", b"a\r.\r\nb\r\n", &[BareCr]),
            (b"a\r\r\n.\r\n", b"a\r\r\n", &[BareCr]),
            (b"a\r\n.\rb\r\n.\r\n", b"a\r\n\rb\r\n", &[BareCr, UnstuffedDot]),
            (b"a\r\n.\r\r\n.\r\n", b"a\r\n\r\r\n", &[BareCr, UnstuffedDot]),
            (b".a\r\n.\r\n", b"a\r\n", &[UnstuffedDot]),
        ];
        for (wire, expected, violations) in cases {
            for piece in 1..=wire.len() {
                let (finished, rest) = read(&[wire, b"QUIT".as_slice()].concat(), piece).unwrap_or_else(|| panic!("no end in {wire:?}"));
                assert_eq!(finished.octets, *expected, "{wire:?} in pieces of {piece}");
                assert_eq!(finished.violations, *violations, "{wire:?} in pieces of {piece}");
                assert!(b"QUIT".starts_with(&rest) || rest == b"QUIT", "{wire:?}");
            }
        }
        for open in [b".".as_slice(), b".\r", b"a\r\n.", b"a\r\n.\n", b"a\n.\n", b"a.\r\n", b"..\r\n"] {
            assert!(read(open, 64).is_none(), "{open:?}");
        }
    }

    #[test]
    fn a_chunk_is_taken_as_it_is() {
        use Violation::{BareCr, BareLf};
        let cases: &[(&[u8], &[Violation])] = &[
            (b"", &[]),
            (b".\r\n..\r\nQUIT\r\n.\r\n", &[]),
            (b"no end", &[]),
            (b"a\nb\r\n", &[BareLf]),
            (b"\n", &[BareLf]),
            (b"a\rb\r\n", &[BareCr]),
            (b"a\r\r\n", &[BareCr]),
            (b"a\r", &[BareCr]),
        ];
        for (octets, violations) in cases {
            let wire = [*octets, b"QUIT\r\n"].concat();
            // In pieces of any length, and cut into two chunks anywhere.
            for (piece, cut) in (1..=wire.len()).flat_map(|piece| (0..=octets.len()).map(move |cut| (piece, cut))) {
                let (mut content, mut at) = (Content::new(Keep::All, 1 << 20), 0);
                for length in [cut, octets.len() - cut] {
                    content.begin_chunk(length as u64);
                    while !content.has_chunk() {
                        at += content.push(&wire[at..wire.len().min(at + piece)]).0;
                    }
                }
                let finished = content.finish();
                assert_eq!((finished.octets.as_slice(), &wire[at..]), (*octets, &b"QUIT\r\n"[..]));
                assert_eq!(finished.violations, *violations, "{octets:?} in pieces of {piece}, cut at {cut}");
            }
        }
    }

    #[test]
    fn tells_the_header_from_the_body() {
        let cases: &[(&[u8], &[u8])] =
            &[(b"A: b\r\nC: d\r\n\r\nE: f\r\n\r\n", b"A: b\r\nC: d\r\n"), (b"\r\nA: b\r\n\r\n", b""), (b"A: b\r\n", b"A: b\r\n")];
        for (octets, header) in cases {
            for piece in 1..12 {
                let (finished, _) = read(&[octets, b".\r\n".as_slice()].concat(), piece).expect("an end");
                assert_eq!(finished.header, *header, "{octets:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn counts_but_does_not_keep_what_is_too_large() {
        let mut content = Content::new(Keep::All, 100);
        for _ in 0..100 {
            content.push(&[b'x'; 1_000]);
        }
        assert_eq!(content.push(b"\r\n.\r\n"), (5, true));
        let finished = content.finish();
        assert_eq!((finished.size, finished.octets.len()), (100_002, 0));
    }

    proptest! {
        #[test]
        fn any_content_of_crlf_lines_comes_through(lines in prop::collection::vec("[.a-z]{0,6}", 0..20), piece in 1_usize..40) {
            let content: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let stuffed: String = lines.iter().map(|line| format!("{}{line}\r\n", if line.starts_with('.') { "." } else { "" })).collect();
            let (finished, _) = read(format!("{stuffed}.\r\n").as_bytes(), piece).expect("an end");
            prop_assert_eq!(&finished.octets, content.as_bytes());
            prop_assert_eq!(finished.size, content.len() as u64);
            prop_assert_eq!(finished.sha256, sha256(content.as_bytes()));
            prop_assert!(finished.violations.is_empty());
        }
    }
}
