//! What a client asks of notices about its message (RFC 3461): the parameters of MAIL and RCPT, and the text in which they carry other text.
//!
//! Reading is strict, unlike that of commands: who writes these parameters is a program, and a guess at what it meant would send a notice to
//! somebody who asked for none, or name a message that nobody sent. What has been read can be written into a header or a command as it is: no
//! controls, no octets beyond ASCII but in an address that is said to be UTF-8.

use std::fmt::{self, Write};
use std::str::FromStr;

/// Characters of ENVID's value (RFC 3461 §4.4).
const ENVID: usize = 100;
/// Characters of ORCPT's value (RFC 3461 §4.2).
const ORCPT: usize = 500;

/// The value of a parameter that it cannot have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a value that RFC 3461 knows for this parameter")]
pub struct NotADsnValue;

/// What MAIL asks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MessageDsn {
    /// RET: how much of the message comes back with a notice of a failure.
    pub ret: Option<Ret>,
    /// ENVID, decoded: the sender's own name for the transaction; printable ASCII and blanks.
    pub envid: Option<String>,
}

/// What RCPT asks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecipientDsn {
    /// NOTIFY: the occasions; not said: a failure, and a delay where that is the custom (RFC 3461 §4.1).
    pub notify: Option<Notify>,
    /// ORCPT: the address that the sender had in mind.
    pub orcpt: Option<Orcpt>,
}

/// How much of the message comes back (RFC 3461 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ret {
    /// All of it.
    Full,
    /// Its header.
    Headers,
}

/// On which occasions there is to be a notice (RFC 3461 §4.1); on none: `NEVER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Notify {
    /// It was delivered, or handed to a server that says no more about it.
    pub success: bool,
    /// It will not be delivered.
    pub failure: bool,
    /// It takes unusually long.
    pub delay: bool,
}

/// The address that the sender had in mind (RFC 3461 §4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orcpt {
    /// `rfc822`, or whatever else the sender says: letters, digits and hyphens.
    pub address_type: String,
    /// The address, decoded.
    pub address: String,
}

impl Notify {
    /// No notice whatever happens.
    pub const NEVER: Self = Self { success: false, failure: false, delay: false };
}

impl FromStr for Ret {
    type Err = NotADsnValue;

    fn from_str(text: &str) -> Result<Self, NotADsnValue> {
        match text {
            _ if text.eq_ignore_ascii_case("FULL") => Ok(Self::Full),
            _ if text.eq_ignore_ascii_case("HDRS") => Ok(Self::Headers),
            _ => Err(NotADsnValue),
        }
    }
}

impl fmt::Display for Ret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "FULL",
            Self::Headers => "HDRS",
        })
    }
}

impl FromStr for Notify {
    type Err = NotADsnValue;

    fn from_str(text: &str) -> Result<Self, NotADsnValue> {
        if text.eq_ignore_ascii_case("NEVER") {
            return Ok(Self::NEVER);
        }
        let mut notify = Self::NEVER;
        for occasion in text.split(',') {
            match occasion {
                _ if occasion.eq_ignore_ascii_case("SUCCESS") => notify.success = true,
                _ if occasion.eq_ignore_ascii_case("FAILURE") => notify.failure = true,
                _ if occasion.eq_ignore_ascii_case("DELAY") => notify.delay = true,
                _ => return Err(NotADsnValue),
            }
        }
        Ok(notify)
    }
}

impl fmt::Display for Notify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let occasions = [(self.success, "SUCCESS"), (self.failure, "FAILURE"), (self.delay, "DELAY")];
        let asked: Vec<&str> = occasions.into_iter().filter_map(|(asked, word)| asked.then_some(word)).collect();
        f.write_str(&if asked.is_empty() { "NEVER".to_owned() } else { asked.join(",") })
    }
}

/// Reads the value of ORCPT.
impl FromStr for Orcpt {
    type Err = NotADsnValue;

    fn from_str(text: &str) -> Result<Self, NotADsnValue> {
        let (address_type, address) = text.split_once(';').ok_or(NotADsnValue)?;
        let is_atom = !address_type.is_empty() && address_type.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
        let utf8 = address_type.eq_ignore_ascii_case("utf-8");
        // RFC 6533 §3 lets an international address stand as it is where SMTPUTF8 was asked for.
        let address = if utf8 && !address.is_ascii() { decode_around_utf8(address)? } else { decode_xtext(address)? };
        if text.chars().count() > ORCPT || !is_atom || address.is_empty() {
            return Err(NotADsnValue);
        }
        Ok(Self { address_type: address_type.to_owned(), address })
    }
}

/// The value of ORCPT, in ASCII.
impl fmt::Display for Orcpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{};{}", self.address_type, encode_xtext(&self.ascii_address()))
    }
}

impl Orcpt {
    /// The address as it may stand anywhere: of an international one, the characters beyond ASCII are written `\x{FC}` (RFC 6533 §3).
    pub fn ascii_address(&self) -> String {
        let mut ascii = String::with_capacity(self.address.len());
        for c in self.address.chars() {
            if c.is_ascii() {
                ascii.push(c);
            } else {
                // Writing to a String cannot fail.
                let _ = write!(ascii, "\\x{{{:02X}}}", u32::from(c));
            }
        }
        ascii
    }
}

/// Reads the value of ENVID.
///
/// # Errors
/// If it is empty, too long, or not the xtext of printable characters.
pub fn parse_envid(text: &str) -> Result<String, NotADsnValue> {
    let envid = decode_xtext(text)?;
    if text.len() > ENVID || envid.is_empty() { Err(NotADsnValue) } else { Ok(envid) }
}

/// Text as a parameter carries it (RFC 3461 §4: xtext). What is beyond printable ASCII has no place in it and becomes `?`.
pub fn encode_xtext(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '+' | '=' | ' ' => {
                // Writing to a String cannot fail.
                let _ = write!(encoded, "+{:02X}", u32::from(c));
            }
            '!'..='~' => encoded.push(c),
            _ => encoded.push('?'),
        }
    }
    encoded
}

/// What xtext stands for, if that is printable ASCII and blanks.
fn decode_xtext(text: &str) -> Result<String, NotADsnValue> {
    let mut decoded = String::with_capacity(text.len());
    let mut octets = text.bytes();
    while let Some(octet) = octets.next() {
        let meant = match octet {
            b'+' => match (octets.next().and_then(hex), octets.next().and_then(hex)) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err(NotADsnValue),
            },
            b'=' => return Err(NotADsnValue),
            b'!'..=b'~' => octet,
            _ => return Err(NotADsnValue),
        };
        if !matches!(meant, b' '..=b'~') {
            return Err(NotADsnValue);
        }
        decoded.push(char::from(meant));
    }
    Ok(decoded)
}

/// RFC 6533 §3, `utf-8-addr-unitext`: characters beyond ASCII as they are, the others as in xtext.
fn decode_around_utf8(text: &str) -> Result<String, NotADsnValue> {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if c.is_control() {
            return Err(NotADsnValue);
        }
        let end = if c.is_ascii() { rest.find(|c: char| !c.is_ascii()).unwrap_or(rest.len()) } else { c.len_utf8() };
        let (piece, behind) = rest.split_at(end);
        decoded += &if c.is_ascii() { decode_xtext(piece)? } else { piece.to_owned() };
        rest = behind;
    }
    Ok(decoded)
}

/// RFC 3461 §4 wants capitals; small letters cannot mean anything else.
fn hex(octet: u8) -> Option<u8> {
    char::from(octet).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_on_which_occasions_a_notice_is_wanted() {
        let of = |success, failure, delay| Ok(Notify { success, failure, delay });
        for (text, notify) in [
            ("NEVER", of(false, false, false)),
            ("never", of(false, false, false)),
            ("SUCCESS", of(true, false, false)),
            ("failure,Delay", of(false, true, true)),
            ("DELAY,SUCCESS,FAILURE,DELAY", of(true, true, true)),
            ("", Err(NotADsnValue)),
            ("NEVER,FAILURE", Err(NotADsnValue)),
            ("FAILURE,", Err(NotADsnValue)),
            ("ALWAYS", Err(NotADsnValue)),
        ] {
            assert_eq!(text.parse::<Notify>(), notify, "{text:?}");
        }
    }

    #[test]
    fn reads_how_much_comes_back() {
        assert_eq!(("full".parse(), "HDRS".parse(), "".parse::<Ret>()), (Ok(Ret::Full), Ok(Ret::Headers), Err(NotADsnValue)));
    }

    #[test]
    fn reads_the_address_that_was_meant() {
        let long = format!("rfc822;{}", "x".repeat(ORCPT - 7));
        for (text, address_type, address) in [
            ("rfc822;bob@contoso.com", "rfc822", "bob@contoso.com"),
            ("RFC822;bob+2Bscan@contoso.com", "RFC822", "bob+scan@contoso.com"),
            ("rfc822;+22a+20b+22@c", "rfc822", "\"a b\"@c"),
            ("x-erp;4711;1", "x-erp", "4711;1"),
            ("utf-8;j\\x{FC}rgen@m.example", "utf-8", "j\\x{FC}rgen@m.example"),
            ("utf-8;j\u{fc}r+2Bgen@m\u{fc}.example", "utf-8", "j\u{fc}r+gen@m\u{fc}.example"),
            (&long, "rfc822", &long[7..]),
        ] {
            let expected = Orcpt { address_type: address_type.to_owned(), address: address.to_owned() };
            assert_eq!(text.parse(), Ok(expected), "{text:?}");
        }
        let too_long = format!("{long}x");
        for text in [
            "",
            "rfc822",
            ";a@b",
            "rfc822;",
            "rfc822;a+b@c",
            "rfc822;a+2",
            "rfc822;a=b@c",
            "rfc822;a b@c",
            "rfc822;a+0D+0Ab@c",
            "rfc822;a+FC@c",
            "rfc822;j\u{fc}@c",
            "utf-8;j\u{fc}+0Ax@c",
            "utf-8;j\u{fc}\u{85}@c",
            "a type;a@b",
            &too_long,
        ] {
            assert_eq!(text.parse::<Orcpt>(), Err(NotADsnValue), "{text:?}");
        }
    }

    #[test]
    fn reads_the_name_of_a_transaction() {
        assert_eq!(parse_envid("QQ314159"), Ok("QQ314159".to_owned()));
        assert_eq!(parse_envid("a+20+2B+3D"), Ok("a +=".to_owned()));
        assert_eq!(parse_envid(&"x".repeat(100)), Ok("x".repeat(100)));
        for text in ["", "+0A", "a=b", "+", "\u{fc}", &"x".repeat(101)] {
            assert_eq!(parse_envid(text), Err(NotADsnValue), "{text:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_as_it_was_meant() {
        for text in ["SUCCESS,DELAY", "NEVER", "FAILURE"] {
            assert_eq!(text.parse::<Notify>().expect(text).to_string(), text);
        }
        for text in ["rfc822;bob+2Bscan+20x@contoso.com", "utf-8;j\\x{FC}rgen@m.example"] {
            assert_eq!(text.parse::<Orcpt>().expect(text).to_string(), text);
        }
        let international: Orcpt = "utf-8;j\u{fc}rgen@m.example".parse().expect("an address");
        assert_eq!(international.to_string(), "utf-8;j\\x{FC}rgen@m.example");
        let printable: String = (b' '..=b'~').map(char::from).collect();
        assert_eq!(decode_xtext(&encode_xtext(&printable)), Ok(printable));
        assert_eq!(encode_xtext("a\r\n\u{fc}"), "a???");
    }
}
