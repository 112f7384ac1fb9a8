//! The header with which a load balancer says whose connection it passes on: PROXY protocol, versions 1 and 2
//! (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).
//!
//! [`ProxyHeader::parse`] is fed what has come so far and says how many octets are missing for certain, so that the caller never reads beyond
//! the header: what follows may belong to TLS. Limits: a header of version 1 has 107 octets at most (§2.1); one of version 2 is taken up to
//! [`LONGEST`], far more than its addresses need, and what its extensions say is not looked at.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Octets of a header of version 2 that are taken.
pub const LONGEST: usize = 4_096;

/// §2.2: no command and no TLS record begins like this.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Octets of a header of version 2 before its addresses.
const FIXED: usize = 16;
/// Octets of a header of version 1, its line end included (§2.1).
const LONGEST_LINE: usize = 107;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// The connection is this client's.
    Client(IpAddr),
    /// It is the balancer's own, as for a health check (LOCAL), or of a kind that has no addresses (UNKNOWN, AF_UNSPEC, AF_UNIX): its true
    /// addresses count.
    Own,
}

/// What has come so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// At least so many octets are missing; never zero.
    Missing(usize),
    /// All of it.
    Whole(ProxyHeader),
}

/// It is no header, or none of a kind that can be here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// It begins otherwise.
    #[error("no PROXY header")]
    NotThere,
    /// It begins like a header and is none.
    #[error("a malformed PROXY header")]
    Malformed,
    /// It is longer than any that makes sense.
    #[error("a PROXY header that is too long")]
    TooLong,
}

impl ProxyHeader {
    /// Reads what has come so far, from its first octet on.
    ///
    /// # Errors
    /// If that is no header.
    pub fn parse(octets: &[u8]) -> Result<Parsed, ProxyError> {
        const WORD: &[u8] = b"PROXY ";
        let begins = |with: &[u8]| octets.iter().zip(with).all(|(octet, wanted)| octet == wanted);
        if begins(WORD) {
            line(octets)
        } else if begins(SIGNATURE) {
            binary(octets)
        } else {
            Err(ProxyError::NotThere)
        }
    }
}

/// Version 1: `PROXY TCP4 192.0.2.7 10.0.0.1 51234 25` CRLF, or `PROXY UNKNOWN` and anything.
fn line(octets: &[u8]) -> Result<Parsed, ProxyError> {
    /// The shortest one: `PROXY UNKNOWN` CRLF.
    const SHORTEST: usize = 15;
    if octets.len() < SHORTEST {
        return Ok(Parsed::Missing(SHORTEST - octets.len()));
    }
    let Some(line) = octets.strip_suffix(b"\r\n") else {
        let missing = if octets.last() == Some(&b'\r') { 1 } else { 2 };
        return if octets.len() + missing <= LONGEST_LINE { Ok(Parsed::Missing(missing)) } else { Err(ProxyError::TooLong) };
    };
    let text = std::str::from_utf8(line).map_err(|_| ProxyError::Malformed)?;
    let mut words = text.split(' ').skip(1);
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(Parsed::Whole(ProxyHeader::Own));
    }
    let mut word = || words.next().ok_or(ProxyError::Malformed);
    let (source, _, source_port, port) = (word()?, word()?, word()?, word()?);
    let is_port = |text: &str| text.parse::<u16>().is_ok_and(|port| port.to_string() == text);
    if words.next().is_some() || !is_port(source_port) || !is_port(port) {
        return Err(ProxyError::Malformed);
    }
    let source = match family {
        "TCP4" => source.parse().map(IpAddr::V4),
        "TCP6" => source.parse().map(IpAddr::V6),
        _ => return Err(ProxyError::Malformed),
    };
    source.map(|address| Parsed::Whole(ProxyHeader::Client(address.to_canonical()))).map_err(|_| ProxyError::Malformed)
}

/// Version 2: signature, version and command, family and protocol, length; then the addresses, the source first.
fn binary(octets: &[u8]) -> Result<Parsed, ProxyError> {
    let Some(fixed) = octets.get(..FIXED) else { return Ok(Parsed::Missing(FIXED - octets.len())) };
    let length = FIXED + usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if length > LONGEST {
        return Err(ProxyError::TooLong);
    }
    if octets.len() < length {
        return Ok(Parsed::Missing(length - octets.len()));
    }
    let addresses = &octets[FIXED..];
    let header = match (fixed[12], fixed[13] >> 4) {
        // LOCAL: whatever stands in the rest.
        (0x20, _) => ProxyHeader::Own,
        // AF_INET: two addresses and two ports.
        (0x21, 0x1) if addresses.len() >= 12 => ProxyHeader::Client(IpAddr::V4(Ipv4Addr::from(array(addresses)?))),
        (0x21, 0x2) if addresses.len() >= 36 => ProxyHeader::Client(IpAddr::V6(Ipv6Addr::from(array::<16>(addresses)?)).to_canonical()),
        // AF_UNSPEC and AF_UNIX.
        (0x21, 0x0 | 0x3) => ProxyHeader::Own,
        _ => return Err(ProxyError::Malformed),
    };
    Ok(Parsed::Whole(header))
}

fn array<const N: usize>(octets: &[u8]) -> Result<[u8; N], ProxyError> {
    octets.first_chunk().copied().ok_or(ProxyError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Result<Parsed, ProxyError> {
        Ok(Parsed::Whole(ProxyHeader::Client(text.parse().expect("an address"))))
    }

    /// Reads as the daemon does: never more than is missing. What is left over stays unread.
    fn fed(mut wire: &[u8]) -> (Result<Parsed, ProxyError>, usize) {
        let mut read = Vec::new();
        loop {
            match ProxyHeader::parse(&read) {
                Ok(Parsed::Missing(missing)) if missing <= wire.len() => {
                    assert!(missing > 0);
                    let (head, rest) = wire.split_at(missing);
                    read.extend_from_slice(head);
                    wire = rest;
                }
                end => return (end, wire.len()),
            }
        }
    }

    fn binary(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).expect("short").to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, addresses].concat()
    }

    #[test]
    fn reads_both_versions_and_not_one_octet_more() {
        let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 0xc8, 0x22, 0, 25];
        let v6 = ["2001:db8::7", "::1"].map(|text| text.parse::<Ipv6Addr>().expect("an address").octets()).concat();
        let v6 = [&v6[..], &[0xc8, 0x22, 0, 25]].concat();
        let with_extension = [&v4[..], &[0x04, 0, 1, 0]].concat();
        for (wire, wanted) in [
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 51234 25\r\n".to_vec(), client("192.0.2.7")),
            (b"PROXY TCP6 2001:db8::7 ::1 1 65535\r\n".to_vec(), client("2001:db8::7")),
            (b"PROXY TCP6 ::ffff:10.1.2.3 ::1 1 2\r\n".to_vec(), client("10.1.2.3")),
            (b"PROXY UNKNOWN\r\n".to_vec(), Ok(Parsed::Whole(ProxyHeader::Own))),
            (b"PROXY UNKNOWN ffff:f::f ffff::f 65535 65535\r\n".to_vec(), Ok(Parsed::Whole(ProxyHeader::Own))),
            (binary(0x21, 0x11, &v4), client("192.0.2.7")),
            (binary(0x21, 0x11, &with_extension), client("192.0.2.7")),
            (binary(0x21, 0x21, &v6), client("2001:db8::7")),
            (binary(0x20, 0x00, &[]), Ok(Parsed::Whole(ProxyHeader::Own))),
            (binary(0x20, 0x11, &v4), Ok(Parsed::Whole(ProxyHeader::Own))),
            (binary(0x21, 0x00, &[]), Ok(Parsed::Whole(ProxyHeader::Own))),
            (binary(0x21, 0x31, &[0; 216]), Ok(Parsed::Whole(ProxyHeader::Own))),
        ] {
            assert_eq!(fed(&[&wire[..], b"EHLO x\r\n"].concat()), (wanted, 8), "{}", wire.escape_ascii());
            for cut in 0..wire.len() {
                assert!(matches!(fed(&wire[..cut]).0, Ok(Parsed::Missing(_))), "{} cut at {cut}", wire.escape_ascii());
            }
        }
    }

    #[test]
    fn refuses_what_is_none() {
        use ProxyError::*;
        let long = [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat();
        for (wire, why) in [
            (b"EHLO mfp.example\r\n".to_vec(), NotThere),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\0\0\0\0".to_vec(), NotThere),
            (b"\r\n\r\nEHLO mfp.example\r\n".to_vec(), NotThere),
            (b"proxy TCP4 192.0.2.7 10.0.0.1 1 2\r\n".to_vec(), NotThere),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 1\r\n".to_vec(), Malformed),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2 3\r\n".to_vec(), Malformed),
            (b"PROXY TCP4 2001:db8::7 ::1 1 2\r\n".to_vec(), Malformed),
            (b"PROXY TCP4 192.0.2.07 10.0.0.1 1 2\r\n".to_vec(), Malformed),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 1 65536\r\n".to_vec(), Malformed),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 +1 2\r\n".to_vec(), Malformed),
            (b"PROXY UDP4 192.0.2.7 10.0.0.1 1 2\r\n".to_vec(), Malformed),
            (b"PROXY TCP4 \xff\xff\xff\xff\xff\xff\r\n".to_vec(), Malformed),
            (long, TooLong),
            (binary(0x11, 0x11, &[0; 12]), Malformed),
            (binary(0x22, 0x11, &[0; 12]), Malformed),
            (binary(0x21, 0x11, &[0; 11]), Malformed),
            (binary(0x21, 0x21, &[0; 35]), Malformed),
            (binary(0x21, 0x41, &[0; 12]), Malformed),
            (binary(0x21, 0x11, &[0; 5_000]), TooLong),
        ] {
            assert_eq!(fed(&wire).0, Err(why), "{}", wire.escape_ascii());
        }
    }
}
