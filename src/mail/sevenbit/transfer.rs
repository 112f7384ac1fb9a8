//! The content-transfer-encodings, as they are written (RFC 2045 §6.7, §6.8), octets in pieces.
//!
//! What comes out has lines of at most 76 characters and decodes to what came in, octet for octet. The last line is left without its end, because
//! in a multipart the line end before a delimiter is the delimiter's.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// RFC 2045 §6.7 (5), §6.8: characters of a line.
const LINE: usize = 76;
/// Octets that fill a line of base64.
const GROUP: usize = LINE / 4 * 3;

/// How a body is changed on its way.
#[derive(Debug)]
pub(super) enum Encoder {
    /// Not at all.
    None,
    QuotedPrintable(QuotedPrintable),
    Base64(Base64),
    /// What is in quoted-printable already, but not only: octets beyond ASCII are quoted, the rest stays.
    Requote,
    /// What is in base64 already, but not only: octets beyond ASCII mean nothing there (RFC 2045 §6.8) and go.
    Strip,
}

impl Encoder {
    /// Appends what the octets become.
    pub fn push(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::None => out.extend_from_slice(octets),
            Self::QuotedPrintable(encoder) => octets.iter().for_each(|octet| encoder.push(*octet, out)),
            Self::Base64(encoder) => {
                encoder.held.extend_from_slice(octets);
                let full = encoder.held.len() / GROUP * GROUP;
                let rest = encoder.held.split_off(full);
                let groups = std::mem::replace(&mut encoder.held, rest);
                groups.chunks(GROUP).for_each(|group| encoder.line(group, out));
            }
            Self::Requote => {
                for octet in octets {
                    if octet.is_ascii() { out.push(*octet) } else { quote(*octet, out) }
                }
            }
            Self::Strip => out.extend(octets.iter().filter(|octet| octet.is_ascii())),
        }
    }

    /// The body has ended.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::QuotedPrintable(encoder) => encoder.finish(out),
            Self::Base64(encoder) if encoder.held.is_empty() => {}
            Self::Base64(encoder) => {
                let last = std::mem::take(&mut encoder.held);
                encoder.line(&last, out);
            }
            Self::None | Self::Requote | Self::Strip => {}
        }
        *self = Self::None;
    }
}

/// Base64, in lines.
#[derive(Debug, Default)]
pub(super) struct Base64 {
    /// What does not fill a line yet.
    held: Vec<u8>,
    /// There is a line, which has no end yet.
    begun: bool,
}

impl Base64 {
    fn line(&mut self, group: &[u8], out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.begun, true) {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(STANDARD.encode(group).as_bytes());
    }
}

/// Quoted-printable for text: its line ends stay, and so does most that can be read.
#[derive(Debug, Default)]
pub(super) struct QuotedPrintable {
    /// Characters on the line so far.
    column: usize,
    /// The line was begun by us and not by the text.
    continued: bool,
    /// A blank or CR, which means something else at the end of a line.
    held: Option<u8>,
}

impl QuotedPrintable {
    fn push(&mut self, octet: u8, out: &mut Vec<u8>) {
        match (self.held.take(), octet) {
            (Some(b'\r'), b'\n') => {
                out.extend_from_slice(b"\r\n");
                (self.column, self.continued) = (0, false);
                return;
            }
            // RFC 2045 §6.7 (3): blanks at the end of a line are lost on the way.
            (Some(blank @ (b' ' | b'\t')), b'\r') => self.quoted(blank, out),
            (Some(b'\r'), _) => self.quoted(b'\r', out),
            (Some(blank), _) => self.literal(blank, out),
            (None, _) => {}
        }
        match octet {
            b' ' | b'\t' | b'\r' => self.held = Some(octet),
            b'=' => self.quoted(octet, out),
            // What stands at the beginning of a line of our making must not look like a delimiter.
            b'-' if self.continued && self.column == 0 => self.quoted(octet, out),
            b'-' if self.column + 1 >= LINE => self.quoted(octet, out),
            33..=126 => self.literal(octet, out),
            _ => self.quoted(octet, out),
        }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if let Some(held) = self.held.take() {
            self.quoted(held, out);
        }
    }

    fn literal(&mut self, octet: u8, out: &mut Vec<u8>) {
        self.make_room(1, out);
        out.push(octet);
    }

    fn quoted(&mut self, octet: u8, out: &mut Vec<u8>) {
        self.make_room(3, out);
        quote(octet, out);
    }

    /// The line ends softly, in `=`, if that many characters and another `=` do not fit.
    fn make_room(&mut self, characters: usize, out: &mut Vec<u8>) {
        if self.column + characters >= LINE {
            out.extend_from_slice(b"=\r\n");
            (self.column, self.continued) = (0, true);
        }
        self.column += characters;
    }
}

fn quote(octet: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[b'=', DIGITS[usize::from(octet >> 4)], DIGITS[usize::from(octet & 15)]]);
}

#[cfg(test)]
mod tests {
    use mail_parser::decoders::base64::base64_decode;
    use mail_parser::decoders::quoted_printable::quoted_printable_decode;
    use proptest::prelude::*;

    use super::*;

    fn encoded(mut encoder: Encoder, pieces: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        pieces.iter().for_each(|piece| encoder.push(piece, &mut out));
        encoder.finish(&mut out);
        out
    }

    fn quoted(text: &[u8]) -> String {
        String::from_utf8(encoded(Encoder::QuotedPrintable(QuotedPrintable::default()), &[text])).expect("ASCII")
    }

    #[test]
    fn quotes_what_must_be_and_nothing_else() {
        for (text, written) in [
            (&b""[..], ""),
            (b"plain text.\r\n.\r\n\r\nFrom x\r\n", "plain text.\r\n.\r\n\r\nFrom x\r\n"),
            (b"K\xc3\xa4se = \xff", "K=C3=A4se =3D =FF"),
            (b"blank \r\ntab\t\r\n \r\nend ", "blank=20\r\ntab=09\r\n=20\r\nend=20"),
            (b"a  b \t\r\n", "a  b =09\r\n"),
            (b"a\rb\nc\r\r\n\r", "a=0Db=0Ac=0D\r\n=0D"),
            (b"a\0\x7f\r\n-- \r\n--b\r\n", "a=00=7F\r\n--=20\r\n--b\r\n"),
        ] {
            assert_eq!(quoted(text), written, "{}", text.escape_ascii());
        }
        let line = "x".repeat(75);
        assert_eq!(quoted(format!("{line}yz").as_bytes()), format!("{line}=\r\nyz"));
        assert_eq!(quoted(format!("{line}--b\r\n").as_bytes()), format!("{line}=\r\n=2D-b\r\n"), "no delimiter comes into being");
        assert_eq!(quoted(format!("{}\u{e4}--b", "x".repeat(68)).as_bytes()), format!("{}=C3=A4-=\r\n=2Db", "x".repeat(68)));
    }

    #[test]
    fn mends_what_is_not_quite_encoded() {
        assert_eq!(encoded(Encoder::Requote, &[b"=C3=A4 \xc3\xa4=\r\n"]), b"=C3=A4 =C3=A4=\r\n");
        assert_eq!(encoded(Encoder::Strip, &[b"QU\xa0JD\r\n"]), b"QUJD\r\n");
    }

    proptest! {
        #[test]
        fn what_is_decoded_is_what_came(octets in proptest::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b" \t\r\n-=a".to_vec())], 0..600), piece in 1_usize..200) {
            let pieces: Vec<&[u8]> = octets.chunks(piece).collect();
            let out = encoded(Encoder::QuotedPrintable(QuotedPrintable::default()), &pieces);
            prop_assert!(out.is_ascii() && out.split(|octet| *octet == b'\n').all(|line| line.len() <= LINE + 1));
            prop_assert_eq!(quoted_printable_decode(&out).expect("well-formed"), octets.clone());
            let out = encoded(Encoder::Base64(Base64::default()), &pieces);
            prop_assert!(out.is_ascii() && !out.ends_with(b"\n") && out.split(|octet| *octet == b'\n').all(|line| line.len() <= LINE + 1));
            prop_assert_eq!(base64_decode(&out).expect("well-formed"), octets);
        }
    }
}
