//! Just enough MIME for a report: parts that are ASCII on the wire whatever they hold, and a boundary that occurs in none of them (RFC 2046).

use memchr::memmem;

use crate::mail::QueueId;

/// RFC 5322 §2.1.1, less the CRLF.
const LONGEST_LINE: usize = 998;
/// RFC 2045 §6.7 (5): an encoded line has at most 76 characters, the `=` of a soft break among them.
const QUOTED_LINE: usize = 76;

/// One part of a multipart body.
#[derive(Debug, Clone)]
pub struct Part {
    head: String,
    body: Vec<u8>,
}

impl Part {
    /// `body`: lines that end in CRLF. What cannot go as 7bit goes as quoted-printable.
    pub fn new(content_type: &str, description: &str, body: &[u8]) -> Self {
        let plain = is_seven_bit(body);
        let encoding = if plain { "7bit" } else { "quoted-printable" };
        let head =
            format!("Content-Type: {content_type}\r\nContent-Description: {description}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n");
        Self { head, body: if plain { body.to_vec() } else { quoted_printable(body) } }
    }

    /// Appends the part as the only one of a message: the rest of its header, and its body.
    pub fn write_as_body(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.head.as_bytes());
        out.extend_from_slice(&self.body);
    }
}

/// A boundary from the name of the message; it stands nowhere in any part, not even within a line, where careless readers see one too.
pub fn boundary(id: QueueId, parts: &[Part]) -> String {
    let occurs = |boundary: &String| parts.iter().any(|part| memmem::find(&part.body, boundary.as_bytes()).is_some());
    // Finite parts hold finitely many boundaries, so one is free.
    (0_u64..).map(|n| format!("=_{id}_{n}")).find(|candidate| !occurs(candidate)).unwrap_or_default()
}

/// Appends the parts between their boundaries.
pub fn write_parts(out: &mut Vec<u8>, boundary: &str, parts: &[Part]) {
    for part in parts {
        out.extend_from_slice(format!("--{boundary}\r\n{}", part.head).as_bytes());
        out.extend_from_slice(&part.body);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
}

/// RFC 2045 §2.7: lines of printable octets that are short enough, with CRLF at their ends and nowhere else.
pub(super) fn is_seven_bit(body: &[u8]) -> bool {
    body.split_inclusive(|octet| *octet == b'\n').all(|line| {
        let text = line.strip_suffix(b"\r\n").unwrap_or(line);
        text.len() <= LONGEST_LINE && text.iter().all(|octet| matches!(octet, b'\t' | b' '..=b'~'))
    })
}

fn quoted_printable(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + body.len() / 8);
    for line in body.split_inclusive(|octet| *octet == b'\n') {
        let text = line.strip_suffix(b"\r\n").unwrap_or(line);
        let mut column = 0;
        for (i, octet) in text.iter().enumerate() {
            let last = i + 1 == text.len();
            let literal = matches!(octet, b'!'..=b'<' | b'>'..=b'~') || (matches!(octet, b' ' | b'\t') && !last);
            let width = if literal { 1 } else { 3 };
            if column + width >= QUOTED_LINE {
                out.extend_from_slice(b"=\r\n");
                column = 0;
            }
            if literal {
                out.push(*octet);
            } else {
                out.extend_from_slice(format!("={octet:02X}").as_bytes());
            }
            column += width;
        }
        if line.ends_with(b"\r\n") {
            out.extend_from_slice(b"\r\n");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_what_seven_bits_cannot_carry() {
        for (body, encoded) in [
            ("ü = x\r\n", "=C3=BC =3D x\r\n"),
            ("blank \r\nend\t", "blank=20\r\nend=09"),
            ("\0\n", "=00=0A"),
            ("a\r\n\r\nb\r\n", "a\r\n\r\nb\r\n"),
        ] {
            assert_eq!(String::from_utf8_lossy(&quoted_printable(body.as_bytes())), encoded, "{body:?}");
        }
        let long = quoted_printable("xü ".repeat(1_000).as_bytes());
        assert!(is_seven_bit(&long) && long.split(|octet| *octet == b'\n').all(|line| line.len() <= QUOTED_LINE + 1));
    }

    #[test]
    fn knows_what_goes_as_it_is() {
        let longest = "x".repeat(998) + "\r\n";
        for (body, plain) in [
            ("", true),
            ("a\tb\r\n", true),
            (&longest, true),
            (&format!("x{longest}"), false),
            ("a\rb\r\n", false),
            ("a\nb", false),
            ("é", false),
        ] {
            assert_eq!(is_seven_bit(body.as_bytes()), plain, "{body:?}");
        }
    }

    #[test]
    fn a_boundary_occurs_in_no_part() {
        let id = QueueId::from_number(77).expect("positive");
        let part = |body: &str| Part::new("text/plain", "x", body.as_bytes());
        assert_eq!(boundary(id, &[part("x\r\n")]), "=_000000000002D_0");
        assert_eq!(boundary(id, &[part("--=_000000000002D_0--\r\n"), part("x =_000000000002D_1 \r\n")]), "=_000000000002D_2");
    }
}
