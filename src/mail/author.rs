//! The authors of a message: the mailboxes of its From field (RFC 5322 §3.4, §3.6.2), read from whatever devices write there.
//!
//! One pass over the text, which knows quoted strings, comments, angle brackets and groups. Where the grammar is broken it is read as a person
//! would read it: `Müller, Jürgen <a@b>` is one author, `Scanner scanner@contoso.com` too. The names that come out are decoded and have no
//! controls in them; the addresses are [`Mailbox`]es and so cannot carry anything into a header either.

use super::words::{decoded, one_line, unfolded};
use crate::smtp::Mailbox;

/// Characters of a display name that are kept.
const NAME: usize = 200;
/// Authors of one field that are read.
pub const AUTHORS: usize = 20;
/// Octets of the longest text that may be an address; a longer one need not be looked at.
const ADDRESS: usize = 254;

/// One who wrote a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// The display name, decoded, on one line, cut to 200 characters; empty if there is none.
    pub name: String,
    /// The address, if it is one.
    pub address: Option<Mailbox>,
}

/// What a From field says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Authors {
    /// In their order; at most 20.
    pub list: Vec<Author>,
    /// Nothing had to be guessed: every reader of the field sees these authors and no other.
    pub certain: bool,
}

/// Reads the value of a From field.
pub fn authors(value: &[u8]) -> Authors {
    let text = unfolded(value);
    let mut found = Authors { list: Vec::new(), certain: std::str::from_utf8(value).is_ok() };
    // An address beyond ASCII is UTF-8 (RFC 6532); octets in another charset are none.
    let international = found.certain;
    let mut part = Part::default();
    for c in text.chars() {
        if found.list.len() == AUTHORS {
            found.certain = false;
            return found;
        }
        match part.read(c) {
            Step::On => {}
            Step::Odd => found.certain = false,
            Step::End => std::mem::take(&mut part).end(international, &mut found),
        }
    }
    found.certain &= matches!(part.place, Place::Text);
    part.end(international, &mut found);
    found
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Place {
    #[default]
    Text,
    Quote,
    Comment {
        depth: u32,
    },
    Angle,
    AngleQuote,
}

enum Step {
    /// The author goes on.
    On,
    /// The same, but the grammar does not allow what was just read.
    Odd,
    /// The author is complete.
    End,
}

/// One author on the way.
#[derive(Debug, Default)]
struct Part {
    place: Place,
    escaped: bool,
    /// The text as it was written, without comments.
    raw: String,
    /// Where its last word begins.
    word: usize,
    /// The same without quotes.
    name: String,
    comment: String,
    /// What stands between angle brackets.
    angle: Option<String>,
}

impl Part {
    fn read(&mut self, c: char) -> Step {
        let escaped = std::mem::take(&mut self.escaped);
        match self.place {
            Place::Text => return self.read_text(c),
            Place::Comment { depth } => match c {
                '\\' if !escaped => self.escaped = true,
                '(' if !escaped => self.place = Place::Comment { depth: depth + 1 },
                ')' if !escaped && depth == 1 => self.place = Place::Text,
                ')' if !escaped => self.place = Place::Comment { depth: depth - 1 },
                _ => self.comment.push(c),
            },
            Place::Quote => {
                self.raw.push(c);
                match c {
                    '\\' if !escaped => self.escaped = true,
                    '"' if !escaped => self.place = Place::Text,
                    _ => self.name.push(c),
                }
            }
            Place::Angle if c == '>' => self.place = Place::Text,
            Place::Angle | Place::AngleQuote => {
                match (self.place, c) {
                    (Place::Angle, '"') => self.place = Place::AngleQuote,
                    (Place::AngleQuote, '\\') if !escaped => self.escaped = true,
                    (Place::AngleQuote, '"') if !escaped => self.place = Place::Angle,
                    _ => {}
                }
                self.angle.get_or_insert_default().push(c);
            }
        }
        Step::On
    }

    fn read_text(&mut self, c: char) -> Step {
        match c {
            // Blanks before anything would be gone through again at each comma.
            _ if c.is_whitespace() && self.raw.is_empty() => Step::On,
            // What encodes names carelessly leaves these marks in the encoded word (RFC 2047 §5 (3) does not).
            ';' | ':' | ',' if self.is_in_encoded_word() => {
                self.raw.push(c);
                self.name.push(c);
                Step::Odd
            }
            ';' => Step::End,
            ',' if self.angle.is_some() || self.raw.trim().is_empty() || mailbox(&self.raw, true).is_some() => Step::End,
            '(' => {
                self.place = Place::Comment { depth: 1 };
                Step::On
            }
            '<' => {
                self.place = Place::Angle;
                if self.angle.replace(String::new()).is_some() { Step::Odd } else { Step::On }
            }
            // The name of a group (RFC 5322 §3.4) is not an author's.
            ':' if self.angle.is_none() => {
                *self = Self::default();
                Step::Odd
            }
            _ => {
                self.raw.push(c);
                if c.is_whitespace() {
                    self.word = self.raw.len();
                }
                if c == '"' {
                    self.place = Place::Quote;
                } else {
                    self.name.push(c);
                }
                let odd = matches!(c, ',' | '>') || (self.angle.is_some() && !c.is_whitespace());
                if odd { Step::Odd } else { Step::On }
            }
        }
    }

    fn is_in_encoded_word(&self) -> bool {
        self.angle.is_none() && self.raw[self.word..].starts_with("=?") && !self.raw.ends_with("?=")
    }

    fn end(self, international: bool, found: &mut Authors) {
        let named = |text: &str| one_line(&decoded(text), NAME);
        let comment = named(&self.comment);
        let or_comment = |name: String| if name.is_empty() { comment.clone() } else { name };
        let author = if let Some(angle) = &self.angle {
            // RFC 5322 §4.4: `<@hop,@hop:a@b>`, a route that nobody takes any more.
            let address = if angle.trim_start().starts_with('@') { angle.rsplit(':').next().unwrap_or(angle) } else { angle };
            Author { name: or_comment(named(&self.name)), address: mailbox(address, international) }
        } else if let Some(address) = mailbox(&self.raw, international) {
            Author { name: comment, address: Some(address) }
        } else {
            found.certain &= self.raw.trim().is_empty();
            let (before, last) = self.raw.trim().rsplit_once(char::is_whitespace).unwrap_or(("", self.raw.trim()));
            match mailbox(last.trim_matches(['<', '>', '"']), international) {
                Some(address) => Author { name: or_comment(named(before.trim_matches(['"', ' ']))), address: Some(address) },
                None => Author { name: or_comment(named(&self.name)), address: None },
            }
        };
        found.certain &= author.address.is_some();
        if author.address.is_some() || !author.name.is_empty() {
            found.list.push(author);
        }
    }
}

fn mailbox(text: &str, international: bool) -> Option<Mailbox> {
    let text = text.trim();
    (text.len() <= ADDRESS && (international || text.is_ascii())).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &[u8]) -> (Vec<(String, String)>, bool) {
        let found = authors(value);
        let address = |author: &Author| author.address.as_ref().map(Mailbox::to_string).unwrap_or_default();
        (found.list.iter().map(|author| (author.name.clone(), address(author))).collect(), found.certain)
    }

    #[test]
    fn reads_well_formed_authors() {
        for (value, expected) in [
            (&b" a@b"[..], vec![("", "a@b")]),
            (b"<a@b>", vec![("", "a@b")]),
            (b"Scan Er <a@b>", vec![("Scan Er", "a@b")]),
            (b"a@b <a@b>", vec![("a@b", "a@b")]),
            (b"\"a@b\" <a@b>", vec![("a@b", "a@b")]),
            (b"a@b (Scanner)", vec![("Scanner", "a@b")]),
            (b"\"O\\\"Neil, X\" <a@b>", vec![("O\"Neil, X", "a@b")]),
            (b"=?utf-8?Q?J=C3=BCrgen?= <a@b>", vec![("J\u{fc}rgen", "a@b")]),
            (b"\"=?utf-8?Q?J=C3=BCrgen?=\" <a@b>", vec![("J\u{fc}rgen", "a@b")]),
            (b"J\xc3\xbc <j\xc3\xbc@b>", vec![("J\u{fc}", "j\u{fc}@b")]),
            (b"\"a b\"@c", vec![("", "\"a b\"@c")]),
            (b"X <\"a>b\"@c>, d@e", vec![("X", ""), ("", "d@e")]),
            (b"A (x (y) \\) z) <a@b>,\r\n B <c@d>, e@f", vec![("A", "a@b"), ("B", "c@d"), ("", "e@f")]),
            (b"<@hop,@hop2:a@b>", vec![("", "a@b")]),
        ] {
            let (found, certain) = read(value);
            let expected: Vec<_> = expected.iter().map(|(name, address)| ((*name).to_owned(), (*address).to_owned())).collect();
            assert_eq!(found, expected, "{}", value.escape_ascii());
            assert_eq!(certain, expected.iter().all(|(_, address)| !address.is_empty()), "{}", value.escape_ascii());
        }
    }

    #[test]
    fn reads_broken_ones_as_a_person_would() {
        for (value, expected) in [
            (&b"M\xc3\xbcller, J <a@b>"[..], vec![("M\u{fc}ller, J", "a@b")]),
            (b"=?utf-8?Q?M=C3=BCller,_J?= <a@b>", vec![("M\u{fc}ller, J", "a@b")]),
            (b"=?utf-8?Q?Floor_3:_M=C3=BC;_x?= <a@b>", vec![("Floor 3: M\u{fc}; x", "a@b")]),
            (b"=?utf-8?Q?Floor?=: a@b;", vec![("", "a@b")]),
            (b"Scanner scanner@x", vec![("Scanner", "scanner@x")]),
            (b"\"Scanner <a@b>", vec![("Scanner", "a@b")]),
            (b"Scanner", vec![("Scanner", "")]),
            (b"Scanner <>", vec![("Scanner", "")]),
            (b"Scanner <scanner>", vec![("Scanner", "")]),
            (b"J\xfcrgen <j\xfc@b>", vec![("J\u{fc}rgen", "")]),
            (b"Floor 3: a@b, C <c@d>;", vec![("", "a@b"), ("C", "c@d")]),
            (b"A <a@b> <c@d>", vec![("A", "c@d")]),
            (b"nobody:;", vec![]),
            (b"A <a@b", vec![("A", "a@b")]),
            (b"", vec![]),
            (b"<>", vec![]),
            (b",,;(", vec![]),
        ] {
            let (found, certain) = read(value);
            let expected: Vec<_> = expected.iter().map(|(name, address)| ((*name).to_owned(), (*address).to_owned())).collect();
            assert_eq!(found, expected, "{}", value.escape_ascii());
            assert!(!certain, "{}", value.escape_ascii());
        }
    }

    #[test]
    fn hostile_values_take_linear_time() {
        for unit in ["a,", ",", "(", "=?:", "=?; ", "\"", "<", "=?aa?B?AA", "=?", "a@b,", "\\", ":", "x "] {
            assert!(authors(unit.repeat(200_000 / unit.len()).as_bytes()).list.len() <= AUTHORS);
        }
        let mut long = "x".repeat(100_000);
        long.push_str(&",".repeat(100_000));
        authors(long.as_bytes());
    }
}
