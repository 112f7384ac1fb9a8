//! Cuts what a client sends into command lines.
//!
//! [`LineSplitter`] takes octets in pieces of any size. A line that lies whole in a piece is handed out in place; only one that is cut over
//! pieces is copied. LF ends a line, with a CR before it or without: a command has no content into which anything could be smuggled, and
//! devices exist that write bare LF (RFC 5321 §2.3.8 forbids it to them). Limit: a longer line than allowed takes no memory beyond that
//! limit; it is read to its end, and then reported.

use memchr::memchr;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line<'a> {
    /// A line, without its line end.
    Whole(&'a [u8]),
    /// The same of a line that ended in LF alone.
    BareLf(&'a [u8]),
    /// The end of a line that was longer than allowed, and is gone.
    TooLong,
}

/// Finds the lines in what comes.
#[derive(Debug, Default)]
pub struct LineSplitter {
    limit: usize,
    /// The beginning of a line whose end has not come, or the line that was handed out last.
    partial: Vec<u8>,
    handed_out: bool,
    discarding: bool,
}

impl LineSplitter {
    /// `limit`: octets of a line, its line end included.
    pub fn new(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// The next line in `input`, which is moved behind it. `None` if no line ends there; then all of the input has been taken.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Option<Line<'s>> {
        if std::mem::take(&mut self.handed_out) {
            self.partial.clear();
        }
        let Some(end) = memchr(b'\n', input) else {
            self.begin(input);
            *input = &[];
            return None;
        };
        let (line, rest) = input.split_at(end + 1);
        *input = rest;
        if std::mem::take(&mut self.discarding) || self.partial.len() + line.len() > self.limit {
            self.partial.clear();
            return Some(Line::TooLong);
        }
        if self.partial.is_empty() {
            return Some(Line::of(line));
        }
        self.partial.extend_from_slice(line);
        self.handed_out = true;
        Some(Line::of(&self.partial))
    }

    /// Whether nothing of the next line has come yet.
    pub fn is_at_line_start(&self) -> bool {
        !self.discarding && (self.handed_out || self.partial.is_empty())
    }

    fn begin(&mut self, input: &[u8]) {
        if self.discarding {
            return;
        }
        if self.partial.len() + input.len() >= self.limit {
            // The line end would be one octet too many.
            self.discarding = true;
            self.partial.clear();
        } else {
            self.partial.extend_from_slice(input);
        }
    }
}

impl<'a> Line<'a> {
    fn of(ended: &'a [u8]) -> Self {
        match ended.strip_suffix(b"\r\n") {
            Some(line) => Self::Whole(line),
            None => Self::BareLf(ended.strip_suffix(b"\n").unwrap_or(ended)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(limit: usize, pieces: &[&[u8]]) -> Vec<String> {
        let mut splitter = LineSplitter::new(limit);
        let mut lines = Vec::new();
        for piece in pieces {
            let mut rest = *piece;
            while let Some(line) = splitter.next(&mut rest) {
                lines.push(match line {
                    Line::Whole(line) => String::from_utf8_lossy(line).into_owned(),
                    Line::BareLf(line) => format!("{} (bare)", String::from_utf8_lossy(line)),
                    Line::TooLong => "too long".to_owned(),
                });
            }
        }
        lines
    }

    #[test]
    fn finds_the_same_lines_wherever_the_input_is_cut() {
        for (input, lines) in [
            ("", vec![]),
            ("NOOP", vec![]),
            ("NOOP\r\nQUIT\r\n", vec!["NOOP", "QUIT"]),
            ("NOOP\nQUIT\n", vec!["NOOP (bare)", "QUIT (bare)"]),
            ("\r\n\n", vec!["", " (bare)"]),
            ("a\rb\r\n", vec!["a\rb"]),
            ("12345678\r\n", vec!["12345678"]),
            ("123456789\r\nNOOP\r\n", vec!["too long", "NOOP"]),
            ("123456789\nNOOP\r\n", vec!["123456789 (bare)", "NOOP"]),
            ("1234567890\nNOOP\r\n", vec!["too long", "NOOP"]),
            ("12345678901234567890123\r\n\r\n", vec!["too long", ""]),
        ] {
            let octets = input.as_bytes();
            for cut in 0..=octets.len() {
                assert_eq!(split(10, &[&octets[..cut], &octets[cut..]]), lines, "{input:?} cut at {cut}");
            }
            assert_eq!(split(10, &octets.chunks(1).collect::<Vec<_>>()), lines, "{input:?} octet by octet");
        }
    }

    #[test]
    fn an_endless_line_takes_no_memory() {
        let mut splitter = LineSplitter::new(100);
        for _ in 0..1_000 {
            assert_eq!(splitter.next(&mut &[b'x'; 64][..]), None);
            assert!(splitter.partial.capacity() <= 256);
        }
        assert!(!splitter.is_at_line_start());
        assert_eq!(splitter.next(&mut &b"\n"[..]), Some(Line::TooLong));
        assert!(splitter.is_at_line_start());
    }
}
