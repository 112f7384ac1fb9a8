//! Mailboxes and the paths that carry them (RFC 5321 §4.1.2, RFC 6531 §3.3).
//!
//! Parsing is strict about what could do harm (controls, angle brackets, line ends and blanks outside quotes never get into a [`Mailbox`],
//! so none can reach a header or an upstream command) and liberal about the rest: underscores in domains, dots where the grammar has none.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

/// `local-part@domain`, kept as it was written. The domain compares without regard to case, the local part with it.
#[derive(Debug, Clone, Eq)]
pub struct Mailbox {
    text: String,
    at: usize,
}

/// Why a text is not a mailbox; the message is meant for the person who wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing there.
    #[error("the address is empty")]
    Empty,
    /// No `@` outside quotes, or nothing behind it.
    #[error("the address has no domain: write name@domain")]
    NoDomain,
    /// Nothing before the `@`.
    #[error("the address has nothing before the @")]
    NoLocalPart,
    /// Controls, blanks, angle brackets, a second `@`, an open quote.
    #[error("the address has a character that is not allowed there")]
    BadCharacter,
    /// RFC 5321 §4.5.3.1: local part over 64 octets, domain over 255, or the whole over 254 (§4.5.3.1.3 less the brackets).
    #[error("the address is too long")]
    TooLong,
}

impl Mailbox {
    /// The part before the `@`, quotes included.
    pub fn local_part(&self) -> &str {
        &self.text[..self.at]
    }

    /// The part behind the `@`: a domain name or an address literal in brackets.
    pub fn domain(&self) -> &str {
        &self.text[self.at + 1..]
    }

    /// The whole as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it has octets beyond ASCII and so needs SMTPUTF8 (RFC 6531).
    pub fn is_international(&self) -> bool {
        !self.text.is_ascii()
    }
}

impl FromStr for Mailbox {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        let at = end_of_local_part(text)?;
        let domain = text.get(at + 1..).unwrap_or("");
        if at == 0 {
            return Err(AddressError::NoLocalPart);
        }
        if domain.is_empty() {
            return Err(AddressError::NoDomain);
        }
        let literal = domain.starts_with('[') && domain.ends_with(']');
        let name = if literal { &domain[1..domain.len() - 1] } else { domain };
        let allowed =
            |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_') || (literal && c == ':') || (!c.is_ascii() && !c.is_control());
        if name.is_empty() || !name.chars().all(allowed) {
            return Err(AddressError::BadCharacter);
        }
        if at > 64 || domain.len() > 255 || text.len() > 254 {
            return Err(AddressError::TooLong);
        }
        Ok(Self { text: text.to_owned(), at })
    }
}

/// The position of the `@` that ends the local part.
fn end_of_local_part(text: &str) -> Result<usize, AddressError> {
    let mut quoted = false;
    let mut escaped = false;
    for (i, c) in text.char_indices() {
        // Inside quotes anything printable is text, also behind a backslash; but angle brackets would end a path for a careless reader behind us.
        if c.is_control() || matches!(c, '<' | '>') {
            return Err(AddressError::BadCharacter);
        }
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' if quoted || i == 0 => quoted = !quoted,
            _ if quoted => {}
            '@' => return Ok(i),
            ' ' | '"' | '(' | ')' | ',' | ':' | ';' | '[' | ']' | '\\' => return Err(AddressError::BadCharacter),
            _ => {}
        }
    }
    Err(if quoted { AddressError::BadCharacter } else { AddressError::NoDomain })
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Mailbox {
    fn eq(&self, other: &Self) -> bool {
        self.local_part() == other.local_part() && self.domain().eq_ignore_ascii_case(other.domain())
    }
}

impl Hash for Mailbox {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.local_part().hash(state);
        self.domain().bytes().for_each(|octet| state.write_u8(octet.to_ascii_lowercase()));
    }
}

/// The path of MAIL FROM: a mailbox, or null (`<>`), which notices use so that nothing is ever answered to them (RFC 5321 §4.5.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReversePath {
    /// `<>`
    Null,
    /// Where notices about the message go.
    Mailbox(Mailbox),
}

impl ReversePath {
    /// The mailbox, unless the path is null.
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Null => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }
}

/// As between the angle brackets: empty for the null path.
impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.mailbox().map_or(Ok(()), |mailbox| mailbox.fmt(f))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_devices_write() {
        for text in [
            "a@b",
            "scan.3@mfp_3f.local",
            "\"a b\"@contoso.com",
            "a..b@x.y",
            ".a@x",
            "u@[192.0.2.7]",
            "u@[IPv6:2001:db8::1]",
            "jürgen@müller.example",
            "a+b=c@d",
        ] {
            let mailbox: Mailbox = text.parse().expect(text);
            assert_eq!(mailbox.as_str(), text);
        }
    }

    #[test]
    fn refuses_what_could_do_harm() {
        for (text, why) in [
            ("", AddressError::Empty),
            ("scanner", AddressError::NoDomain),
            ("a@", AddressError::NoDomain),
            ("@b", AddressError::NoLocalPart),
            ("a@b\r\nRCPT TO:<c@d>", AddressError::BadCharacter),
            ("a\0@b", AddressError::BadCharacter),
            ("a b@c", AddressError::BadCharacter),
            ("a@b@c", AddressError::BadCharacter),
            ("<a@b>", AddressError::BadCharacter),
            ("\"a>\"@b", AddressError::BadCharacter),
            ("\"a\\>\"@b", AddressError::BadCharacter),
            ("\"a\\<\"@b", AddressError::BadCharacter),
            ("\"a@b", AddressError::BadCharacter),
            ("a@b c", AddressError::BadCharacter),
            ("a@[]", AddressError::BadCharacter),
        ] {
            assert_eq!(text.parse::<Mailbox>(), Err(why), "{text:?}");
        }
        assert_eq!(format!("{}@b", "a".repeat(65)).parse::<Mailbox>(), Err(AddressError::TooLong));
    }

    #[test]
    fn compares_domains_without_case() {
        let parse = |text: &str| text.parse::<Mailbox>().expect(text);
        assert_eq!(parse("a@Contoso.COM"), parse("a@contoso.com"));
        assert_ne!(parse("A@contoso.com"), parse("a@contoso.com"));
    }
}
