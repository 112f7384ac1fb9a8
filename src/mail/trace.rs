//! Trace information: the Received field that the relay puts on top of each message (RFC 5321 §4.4).
//!
//! All that comes from outside is made harmless here: a HELO name keeps its letters, digits and the few marks that names and address literals
//! have; every other character becomes `?`. So nothing in the field can end a line, open a comment, or be anything but ASCII (the `for`
//! clause of an international recipient excepted, which is written only under SMTPUTF8).

use std::net::IpAddr;

use super::QueueId;
use crate::clock::Timestamp;
use crate::smtp::Mailbox;

/// Octets of a domain or an address literal (RFC 5321 §4.5.3.1.2).
const DOMAIN: usize = 255;

/// What is known about how a message came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Our own name.
    pub hostname: String,
    /// What the client called itself, if it did.
    pub helo: Option<String>,
    /// Where it came from.
    pub peer: Option<IpAddr>,
    /// How: `SMTP`, `ESMTP` or `UTF8SMTP` (RFC 3848, RFC 6531 §4.3).
    pub protocol: &'static str,
    /// The message's name.
    pub id: QueueId,
    /// When.
    pub at: Timestamp,
    /// The recipient, if it is the only one: with several, naming one would disclose a blind copy to the others (RFC 5321 §7.2).
    pub only_recipient: Option<Mailbox>,
}

impl Trace {
    /// Appends the Received field.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let mut field = String::from("Received: ");
        let literal = self.peer.map(|peer| match peer.to_canonical() {
            IpAddr::V4(v4) => format!("[{v4}]"),
            IpAddr::V6(v6) => format!("[IPv6:{v6}]"),
        });
        let helo = self.helo.as_deref().map(domain).filter(|helo| !helo.is_empty());
        match (&helo, &literal) {
            (Some(helo), Some(literal)) => field += &format!("from {helo} ({literal})\r\n\t"),
            (None, Some(literal)) => field += &format!("from {literal} ({literal})\r\n\t"),
            (Some(helo), None) => field += &format!("from {helo}\r\n\t"),
            (None, None) => {}
        }
        field += &format!("by {} (hve-relay) with {} id {}", domain(&self.hostname), domain(self.protocol), self.id);
        match self.only_recipient.as_ref().filter(|only| !only.is_international() || self.protocol.starts_with("UTF8")) {
            Some(only) => field += &format!("\r\n\tfor <{only}>; {}\r\n", self.at.rfc5322()),
            None => field += &format!(";\r\n\t{}\r\n", self.at.rfc5322()),
        }
        out.extend_from_slice(field.as_bytes());
    }

    /// The Message-ID of a message that came without, and of a notice.
    pub fn message_id(&self) -> String {
        message_id(self.id, &self.hostname)
    }
}

/// `<01KA…@relay.contoso.com>`: no two messages have the same, as no two queue ids are.
pub fn message_id(id: QueueId, hostname: &str) -> String {
    format!("<{id}@{}>", domain(hostname))
}

/// A host name or an address literal as it may stand in a field, whatever it was.
pub fn domain(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':' | '[' | ']');
    text.trim().chars().take(DOMAIN).map(|c| if plain(c) { c } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(helo: Option<&str>, peer: Option<&str>, only: Option<&str>, protocol: &'static str) -> String {
        let trace = Trace {
            hostname: "relay.contoso.com".to_owned(),
            helo: helo.map(str::to_owned),
            peer: peer.map(|peer| peer.parse().expect("an address")),
            protocol,
            id: QueueId::from_number(77).expect("positive"),
            at: Timestamp::from_millis(1_795_285_881_042),
            only_recipient: only.map(|only| only.parse().expect("a mailbox")),
        };
        let mut out = Vec::new();
        trace.write_to(&mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn writes_the_received_field() {
        assert_eq!(
            received(Some("mfp_3f"), Some("10.20.0.9"), Some("bob@contoso.com"), "ESMTP"),
            "Received: from mfp_3f ([10.20.0.9])\r\n\tby relay.contoso.com (hve-relay) with ESMTP id 000000000002D\r\n\
             \tfor <bob@contoso.com>; Sat, 21 Nov 2026 18:31:21 +0000\r\n"
        );
        assert_eq!(
            received(None, Some("::ffff:10.20.0.9"), None, "SMTP"),
            "Received: from [10.20.0.9] ([10.20.0.9])\r\n\tby relay.contoso.com (hve-relay) with SMTP id 000000000002D;\r\n\
             \tSat, 21 Nov 2026 18:31:21 +0000\r\n"
        );
        assert!(received(Some("x"), Some("2001:db8::1"), None, "SMTP").starts_with("Received: from x ([IPv6:2001:db8::1])\r\n"));
        assert!(received(Some(" "), None, None, "SMTP").starts_with("Received: by relay.contoso.com "));
    }

    #[test]
    fn a_helo_name_can_do_no_harm() {
        let field = received(Some("x) (y\r\nBcc: <a@b>;\0é"), Some("10.0.0.1"), None, "SMTP");
        assert!(field.starts_with("Received: from x???y??Bcc:??a?b???? ([10.0.0.1])\r\n\tby "), "{field}");
        let long = received(Some(&"x".repeat(10_000)), None, None, "SMTP");
        assert!(long.lines().all(|line| line.len() < 300));
    }

    #[test]
    fn an_international_recipient_is_named_only_under_smtputf8() {
        assert!(!received(None, None, Some("jürgen@b"), "ESMTP").contains("for"));
        assert!(received(None, None, Some("jürgen@b"), "UTF8SMTP").contains("for <jürgen@b>;"));
    }
}
