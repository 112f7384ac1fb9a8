//! What the header of an entity says about its body (RFC 2045 §5, §6; RFC 2046).

use crate::mail::header::Header;
use crate::mail::words::unfolded;

/// The longest boundary that is looked for; RFC 2046 §5.1.1 allows 70 characters.
const BOUNDARY: usize = 250;

/// Where an entity stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// It is a message: the whole one, or one in a message/rfc822.
    Message,
    /// It is a part.
    Part,
    /// It is a part of a multipart/digest, and so a message/rfc822 unless it says otherwise (RFC 2046 §5.1.5).
    Digested,
}

/// What a body is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shape {
    /// Text, to be read by people.
    Text,
    /// Octets.
    Octets,
    /// Parts between delimiters.
    Multipart { boundary: Vec<u8>, digest: bool },
    /// A message.
    Message,
    /// Somebody vouches for it as it is, or only the recipient can read it (RFC 1847).
    Sealed,
    /// It may not be encoded (RFC 2045 §6.4), and what is in it is not known.
    Opaque,
}

/// How a body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// It is as it is: 7bit, or nothing said.
    None,
    /// The same, but it is said to be 8bit or binary.
    EightBit,
    QuotedPrintable,
    Base64,
    /// In a way that is not known.
    Other,
}

impl Encoding {
    /// Whether the body is there as it is.
    pub fn is_identity(self) -> bool {
        matches!(self, Self::None | Self::EightBit)
    }
}

/// An entity: a message or a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entity {
    pub level: Level,
    pub shape: Shape,
    pub encoding: Encoding,
    /// Whether the header says what the body is.
    pub typed: bool,
}

impl Entity {
    pub fn read(header: Header<'_>, level: Level) -> Self {
        let value = |name| header.named(name).next().map(|field| unfolded(field.value()));
        let content_type = value("Content-Type");
        let encoding = match value("Content-Transfer-Encoding").map(|value| token(&value)).as_deref() {
            None | Some("7bit" | "") => Encoding::None,
            Some("8bit" | "binary") => Encoding::EightBit,
            Some("quoted-printable") => Encoding::QuotedPrintable,
            Some("base64") => Encoding::Base64,
            Some(_) => Encoding::Other,
        };
        let shape = match content_type.as_deref() {
            Some(text) => shape(text, encoding),
            None if level == Level::Digested && encoding.is_identity() => Shape::Message,
            None => Shape::Text,
        };
        Self { level, shape, encoding, typed: content_type.is_some() }
    }
}

fn shape(text: &str, encoding: Encoding) -> Shape {
    let (media_type, subtype) = match token(text).split_once('/') {
        Some((media_type, subtype)) => (media_type.to_owned(), subtype.to_owned()),
        None => return Shape::Text,
    };
    match (media_type.as_str(), subtype.as_str()) {
        ("text", _) => Shape::Text,
        ("multipart", "signed" | "encrypted") => Shape::Sealed,
        ("multipart", subtype) => {
            let boundary = parameters(text).into_iter().find(|parameter| parameter.name == "boundary");
            match boundary.map(|parameter| parameter.value.trim_end().as_bytes().to_vec()) {
                Some(boundary) if (1..=BOUNDARY).contains(&boundary.len()) && boundary.is_ascii() => {
                    Shape::Multipart { boundary, digest: subtype == "digest" }
                }
                _ => Shape::Opaque,
            }
        }
        // RFC 6532 §3.7: message/global and its kin may be encoded.
        ("message", subtype) if !encoding.is_identity() || subtype.starts_with("global") => Shape::Octets,
        ("message", "rfc822" | "news") => Shape::Message,
        ("message", _) => Shape::Opaque,
        _ => Shape::Octets,
    }
}

/// The first word of a value, in lower case, without what follows it: parameters, comments.
fn token(value: &str) -> String {
    let text = value.trim_start();
    let end = text.find(|c: char| c.is_whitespace() || matches!(c, ';' | '(')).unwrap_or(text.len());
    text[..end].to_ascii_lowercase()
}

/// A parameter of Content-Type or Content-Disposition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parameter<'a> {
    /// In lower case.
    pub name: String,
    /// Without its quotes.
    pub value: String,
    /// All of it as it was written.
    pub raw: &'a str,
}

/// The parameters behind the first semicolon of a value that is on one line.
pub(super) fn parameters(value: &str) -> Vec<Parameter<'_>> {
    semicolons(value).into_iter().skip(1).map(str::trim).filter(|raw| !raw.is_empty()).map(parameter).collect()
}

fn parameter(raw: &str) -> Parameter<'_> {
    let (name, value) = raw.split_once('=').unwrap_or((raw, ""));
    let value = value.trim();
    let value = match value.strip_prefix('"') {
        Some(open) => unquoted(open),
        None => value[..value.find([' ', '\t', '(']).unwrap_or(value.len())].to_owned(),
    };
    Parameter { name: name.trim().to_ascii_lowercase(), value, raw }
}

/// The pieces of a value between its semicolons, those in quotes and comments aside.
pub(super) fn semicolons(value: &str) -> Vec<&str> {
    let (mut quoted, mut escaped, mut depth, mut start) = (false, false, 0_u32, 0);
    let mut pieces = Vec::new();
    for (i, c) in value.char_indices() {
        match c {
            _ if std::mem::take(&mut escaped) => {}
            '\\' if quoted || depth > 0 => escaped = true,
            '"' if depth == 0 => quoted = !quoted,
            _ if quoted => {}
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ';' if depth == 0 => {
                pieces.push(&value[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    pieces.push(&value[start..]);
    pieces
}

/// What stands before the closing quote.
fn unquoted(open: &str) -> String {
    let mut text = String::new();
    let mut escaped = false;
    for c in open.chars() {
        match c {
            _ if std::mem::take(&mut escaped) => text.push(c),
            '\\' => escaped = true,
            '"' => break,
            _ => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entity(header: &str) -> Entity {
        Entity::read(Header::scan(header.as_bytes()), Level::Part)
    }

    #[test]
    fn knows_what_a_body_is_made_of() {
        let multipart = |boundary: &str| Shape::Multipart { boundary: boundary.as_bytes().to_vec(), digest: false };
        for (content_type, shape) in [
            ("TEXT/Plain; charset=utf-8", Shape::Text),
            ("text", Shape::Text),
            ("application/octet-stream", Shape::Octets),
            ("multipart/mixed; boundary=b", multipart("b")),
            ("multipart/mixed;\r\n\tx=\"boundary=no; \\\"\"; Boundary = \"a b;c \" (comment; boundary=z)", multipart("a b;c")),
            ("multipart/mixed (boundary=x; y) ; boundary=b(c)", multipart("b")),
            ("multipart/digest; boundary=\"b\\\"c\"", Shape::Multipart { boundary: b"b\"c".to_vec(), digest: true }),
            ("multipart/mixed", Shape::Opaque),
            ("multipart/mixed; boundary=\"\"", Shape::Opaque),
            ("multipart/mixed; boundary=\u{fc}", Shape::Opaque),
            ("Multipart/Signed; boundary=b", Shape::Sealed),
            ("multipart/encrypted", Shape::Sealed),
            ("message/rfc822", Shape::Message),
            ("message/global", Shape::Octets),
            ("message/partial", Shape::Opaque),
        ] {
            assert_eq!(entity(&format!("Content-Type: {content_type}\r\n\r\n")).shape, shape, "{content_type}");
        }
        assert_eq!(entity("\r\n").shape, Shape::Text);
        assert_eq!(Entity::read(Header::scan(b"\r\n"), Level::Digested).shape, Shape::Message);
        let encoded = entity("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\n");
        assert_eq!(encoded.shape, Shape::Octets, "what is encoded cannot be walked into");
    }

    #[test]
    fn knows_how_a_body_is_encoded() {
        for (value, encoding) in [
            ("7bit", Encoding::None),
            ("", Encoding::None),
            (" 8BIT ", Encoding::EightBit),
            ("binary (all of it)", Encoding::EightBit),
            ("Quoted-Printable", Encoding::QuotedPrintable),
            ("base64;", Encoding::Base64),
            ("x-uuencode", Encoding::Other),
        ] {
            assert_eq!(entity(&format!("Content-Transfer-Encoding:{value}\r\n\r\n")).encoding, encoding, "{value}");
        }
    }
}
