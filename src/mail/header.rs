//! The header of a message as fields: where each begins and ends, and where the body begins (RFC 5322 §2.2).
//!
//! The scanner is strict, because what it takes for the header decides what is rewritten. A line is the start of a field only if it has a field
//! name (`ftext`, RFC 5322 §3.6.8), at most blanks behind it (§4.5.3, as old mailers wrote) and a colon within its first 256 octets. A line that
//! begins with a blank continues the field before it. Everything else ends the header: an empty line, or a line that is no field, which then is
//! the first of the body. A message that begins with something that is no field has no header at all.
//!
//! Nothing is copied or allocated; a scan looks at each octet once. Input is in canonical form: its lines end in CRLF.

use memchr::memchr;

/// A field name and the blanks behind it, with the colon: longer than any in use, and short enough to tell a field from a long line of text early.
const NAME_AND_COLON: usize = 256;

/// What a line of a message is, told by its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Nothing: the end of the header.
    Blank,
    /// The first line of a field.
    Field,
    /// It begins with a blank, and so belongs to the line before it.
    Continuation,
    /// Text.
    Other,
    /// More of the line must be known.
    Undecided,
}

impl Line {
    /// What a line is whose first octets, or all of it, are `start`. Never [`Line::Undecided`] if its line end is among them.
    pub fn of(start: &[u8]) -> Self {
        match start {
            [] | [b'\r'] => return Self::Undecided,
            [b'\r', b'\n', ..] | [b'\n', ..] => return Self::Blank,
            [b' ' | b'\t', ..] => return Self::Continuation,
            _ => {}
        }
        let head = &start[..start.len().min(NAME_AND_COLON)];
        let name = head.iter().take_while(|octet| is_ftext(**octet)).count();
        let blanks = head[name..].iter().take_while(|octet| matches!(octet, b' ' | b'\t')).count();
        match head.get(name + blanks) {
            Some(b':') if name > 0 => Self::Field,
            None if name > 0 && head.len() < NAME_AND_COLON => Self::Undecided,
            _ => Self::Other,
        }
    }
}

fn is_ftext(octet: u8) -> bool {
    octet.is_ascii_graphic() && octet != b':'
}

/// The header of a message.
#[derive(Debug, Clone, Copy)]
pub struct Header<'a> {
    octets: &'a [u8],
    body: usize,
    ended: bool,
}

impl<'a> Header<'a> {
    /// Finds the header at the beginning of `octets`: of a whole message, of its first part, or of a header alone.
    pub fn scan(octets: &'a [u8]) -> Self {
        let mut at = 0;
        loop {
            let rest = &octets[at..];
            match Line::of(rest) {
                Line::Continuation if at == 0 => return Self { octets: &[], body: 0, ended: true },
                Line::Field | Line::Continuation => at += line_length(rest),
                Line::Blank => return Self { octets: &octets[..at], body: at + line_length(rest), ended: true },
                Line::Other => return Self { octets: &octets[..at], body: at, ended: true },
                Line::Undecided => return Self { octets: &octets[..at], body: at, ended: false },
            }
        }
    }

    /// All fields, without the empty line behind them.
    pub fn octets(&self) -> &'a [u8] {
        self.octets
    }

    /// Where the body begins: behind the empty line, or at the line that is no field.
    pub fn body(&self) -> usize {
        self.body
    }

    /// Whether its end was seen; if not, what was scanned may be continued by another line of the header.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The fields in their order.
    pub fn fields(&self) -> Fields<'a> {
        Fields { rest: self.octets }
    }

    /// The fields of that name, in their order.
    pub fn named(&self, name: &'static str) -> impl Iterator<Item = Field<'a>> {
        self.fields().filter(move |field| field.is(name))
    }
}

/// The fields of a header in their order.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let colon = memchr(b':', self.rest)?;
        let mut end = line_length(self.rest);
        while let Some(b' ' | b'\t') = self.rest.get(end) {
            end += line_length(&self.rest[end..]);
        }
        let (whole, rest) = self.rest.split_at(end);
        self.rest = rest;
        // Every first line in a header has a colon, so it never lies behind the field; `min` keeps that from being a matter of trust.
        Some(Field { whole, colon: colon.min(whole.len()) })
    }
}

/// One field.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    whole: &'a [u8],
    colon: usize,
}

impl<'a> Field<'a> {
    /// From its name to its last CRLF.
    pub fn whole(&self) -> &'a [u8] {
        self.whole
    }

    /// Its name as it was written.
    pub fn name(&self) -> &'a [u8] {
        self.whole[..self.colon].trim_ascii_end()
    }

    /// What stands behind the colon, line ends of its folds included, that of its last line not.
    pub fn value(&self) -> &'a [u8] {
        let value = self.whole.get(self.colon + 1..).unwrap_or_default();
        value.strip_suffix(b"\r\n").or_else(|| value.strip_suffix(b"\n")).unwrap_or(value)
    }

    /// Whether it has that name; field names know no case.
    pub fn is(&self, name: &str) -> bool {
        self.name().eq_ignore_ascii_case(name.as_bytes())
    }

    /// Whether its value is nothing but blanks.
    pub fn is_blank(&self) -> bool {
        self.value().trim_ascii().is_empty()
    }
}

/// Where the body begins in a stored message or its first part; `None` if the header goes on beyond it.
pub fn header_end(content: &[u8]) -> Option<usize> {
    let header = Header::scan(content);
    header.ended().then_some(header.body())
}

/// Octets up to and with the line end; all of it if there is none.
fn line_length(octets: &[u8]) -> usize {
    memchr(b'\n', octets).map_or(octets.len(), |end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(message: &str) -> (Vec<(String, String)>, String) {
        let header = Header::scan(message.as_bytes());
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        let fields = header.fields().map(|field| (text(field.name()), text(field.value()))).collect();
        (fields, message[header.body()..].to_owned())
    }

    #[test]
    fn finds_fields_folds_and_the_body() {
        let (found, body) = fields("From: a@b\r\nSubject : x\r\n\ty: z\r\n \r\nX:\r\n\r\nTo: body\r\n");
        let expected = [("From", " a@b"), ("Subject", " x\r\n\ty: z\r\n "), ("X", "")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(body, "To: body\r\n");
    }

    #[test]
    fn a_line_that_is_no_field_ends_the_header() {
        for (message, count, body) in [
            ("", 0, ""),
            ("\r\n", 0, ""),
            ("\r\nA: b\r\n", 0, "A: b\r\n"),
            ("Hello\r\nA: b\r\n", 0, "Hello\r\nA: b\r\n"),
            ("no field: x\r\n", 0, "no field: x\r\n"),
            (" A: b\r\n", 0, " A: b\r\n"),
            (": b\r\n", 0, ": b\r\n"),
            ("From a@b Sat 10:00:00\r\nA: b\r\n", 0, "From a@b Sat 10:00:00\r\nA: b\r\n"),
            ("A: b\r\nF r o m: c@d\r\nB: e\r\n", 1, "F r o m: c@d\r\nB: e\r\n"),
            ("A: b\r\nFröm: c@d\r\n", 1, "Fröm: c@d\r\n"),
            ("A: b\r\ntext\r\n\r\nmore", 1, "text\r\n\r\nmore"),
        ] {
            let (found, rest) = fields(message);
            assert_eq!((found.len(), rest.as_str()), (count, body), "{message:?}");
        }
    }

    #[test]
    fn says_whether_the_header_has_ended() {
        for (part, end) in [
            ("A: b\r\n\r\n", Some(8)),
            ("A: b\r\n\r\nbody", Some(8)),
            ("A: b\r\ntext\r\n", Some(6)),
            ("", None),
            ("A: b", None),
            ("A: b\r\n", None),
            ("A: b\r\n\r", None),
            ("A: b\r\nB", None),
        ] {
            assert_eq!(header_end(part.as_bytes()), end, "{part:?}");
        }
    }

    #[test]
    fn tells_a_long_line_of_text_from_a_field_early() {
        assert_eq!(Line::of(&[b'x'; NAME_AND_COLON - 1]), Line::Undecided);
        assert_eq!(Line::of(&[b'x'; NAME_AND_COLON]), Line::Other);
        assert_eq!(Line::of(format!("{}:", "x".repeat(NAME_AND_COLON - 1)).as_bytes()), Line::Field);
        assert_eq!(Line::of(format!("X{}:", " ".repeat(NAME_AND_COLON)).as_bytes()), Line::Other);
    }

    #[test]
    fn hostile_headers_take_linear_time() {
        let many = "A:\r\n".repeat(500_000) + "\r\n";
        assert_eq!(Header::scan(many.as_bytes()).fields().count(), 500_000);
        let folds = "A:\r\n".to_owned() + &" x\r\n".repeat(500_000) + "\r\n";
        assert_eq!(Header::scan(folds.as_bytes()).fields().count(), 1);
    }
}
