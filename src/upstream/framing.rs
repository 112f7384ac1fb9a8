//! Where one reply ends and the next begins, in the octets that came from a server. Pure.
//!
//! Stricter than most clients: a line ends with CRLF and has no other CR or LF in it. A lenient reader could be made to see another number of
//! replies than the server sent, and from there on would take each reply for that of the next command.

use crate::smtp::Reply;

/// Octets of one line; RFC 5321 §4.5.3.1.5 has 512, servers send more.
const LINE: usize = 2_048;
/// Octets of one reply. An EHLO reply has some 20 lines.
const REPLY: usize = 16 << 10;

/// What stands at the beginning of the received octets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// Not yet a whole reply.
    Partial,
    /// A reply and the octets that it takes.
    Whole(Reply, usize),
    /// Something else; in words.
    Malformed(String),
}

/// Finds the first reply of `octets`. Text that is not UTF-8 has its odd octets replaced.
pub(super) fn first_reply(octets: &[u8]) -> Frame {
    let mut lines = Vec::new();
    let mut used = 0;
    while let Some(end) = memchr::memchr(b'\n', &octets[used..]) {
        let line = &octets[used..used + end];
        used += end + 1;
        let Some(line) = line.strip_suffix(b"\r") else { return malformed(line) };
        if line.len() > LINE || used > REPLY || memchr::memchr(b'\r', line).is_some() {
            return malformed(line);
        }
        let last = line.get(3) != Some(&b'-');
        lines.push(String::from_utf8_lossy(line));
        if last {
            return match Reply::parse(lines.iter().map(AsRef::as_ref)) {
                Some(reply) => Frame::Whole(reply, used),
                None => malformed(&octets[..used]),
            };
        }
    }
    if octets.len() - used > LINE { malformed(&octets[used..]) } else { Frame::Partial }
}

fn malformed(octets: &[u8]) -> Frame {
    let shown = String::from_utf8_lossy(&octets[..octets.len().min(200)]);
    Frame::Malformed(format!("the server sent what is no reply: {}", shown.trim_end().escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_end_of_a_reply() {
        let whole = |octets: &[u8]| match first_reply(octets) {
            Frame::Whole(reply, used) => Some((reply.to_string(), used)),
            _ => None,
        };
        assert_eq!(whole(b"250 ok\r\n"), Some(("250 ok".to_owned(), 8)));
        assert_eq!(whole(b"250 ok\r\n550 no\r\n"), Some(("250 ok".to_owned(), 8)));
        assert_eq!(whole(b"250-a\r\n250-b\r\n250 c\r\n"), Some(("250 a b c".to_owned(), 21)));
        assert_eq!(whole(b"250\r\n"), Some(("250".to_owned(), 5)));
        assert_eq!(whole(b"451 4.7.0 Gr\xfc\xdfe\r\n"), Some(("451 4.7.0 Gr\u{fffd}\u{fffd}e".to_owned(), 17)));
    }

    #[test]
    fn waits_for_the_rest() {
        for partial in [&b""[..], b"2", b"250 ok", b"250 ok\r", b"250-a\r\n", b"250-a\r\n250"] {
            assert_eq!(first_reply(partial), Frame::Partial, "{partial:?}");
        }
    }

    #[test]
    fn refuses_what_could_be_counted_in_two_ways() {
        for bad in [&b"250 a\n"[..], b"250 a\rb\r\n", b"250-a\n250 b\r\n", b"250-a\r\n550 b\r\n", b"hello\r\n", b"\r\n", b"99 a\r\n"] {
            assert!(matches!(first_reply(bad), Frame::Malformed(_)), "{bad:?}");
        }
        assert!(matches!(first_reply(&[b'2'; LINE + 1]), Frame::Malformed(_)));
        assert!(matches!(first_reply(&b"250-a\r\n".repeat(REPLY / 7 + 1)), Frame::Malformed(_)));
    }
}
