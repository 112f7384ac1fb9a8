//! The bounce: the notice to the sender of a message that some of its recipients will not get it (RFC 3464, RFC 6522, RFC 3834).
//!
//! Three parts: plain words for a person, the same as fields for a program, and the header of the message it is about. Everything is ASCII on
//! the wire with lines of at most 998 octets, whatever the message, the addresses or the server's words have in them; only an international
//! address of the notice's own recipient stands in `To` as it is, since there is no other form for it (RFC 6532).
//!
//! No notice is ever written about a notice or to the null path, so none can be answered with another. A device's reverse-path may not exist;
//! then the notice itself fails, and that is the end of it.

use std::fmt::Write;

use super::letter::{Letter, Notice, field};
use super::mime::Part;
use super::plain::plain_words;
use crate::clock::Timestamp;
use crate::mail::words::{one_line, write_field};
use crate::mail::{Header, Kind, Message, QueueId, domain};
use crate::reply::Outcome;
use crate::smtp::{EnhancedStatus, Mailbox, Orcpt};

/// Octets of the original's header that a notice carries; whole fields only.
const HEADER: usize = 64 * 1024;
/// Characters of the server's words for one recipient.
pub(super) const DIAGNOSTIC: usize = 2_000;
/// RFC 3463 §3.5: delivery time expired.
const EXPIRED: EnhancedStatus = EnhancedStatus::new(4, 4, 7);
const FAILED: EnhancedStatus = EnhancedStatus::new(5, 0, 0);

/// What a bounce is about.
#[derive(Debug, Clone, Copy)]
pub struct Bounce<'a> {
    /// The name of the notice, a new one.
    pub id: QueueId,
    /// The present time.
    pub now: Timestamp,
    /// Our own name.
    pub hostname: &'a str,
    /// The message.
    pub original: &'a Message,
    /// Its stored header.
    pub header: &'a [u8],
    /// Those who will not get it.
    pub failed: &'a [FailedRecipient],
}

/// One who will not get the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedRecipient {
    /// The forward-path.
    pub address: Mailbox,
    /// The address that the sender had in mind, if it said so (RFC 3461 §4.2).
    pub orcpt: Option<Orcpt>,
    /// What the last attempt came to.
    pub outcome: Outcome,
    /// It did not fail by itself, the time for it ran out.
    pub expired: bool,
    /// The server that said so, if one did.
    pub remote_mta: Option<String>,
    /// When the last attempt ended, if there was one.
    pub last_attempt: Option<Timestamp>,
}

impl FailedRecipient {
    /// RFC 3464 §2.3.4: of what failed the class is 5, or 4 where only time ran out.
    pub(super) fn status(&self) -> EnhancedStatus {
        match self.outcome.status {
            _ if self.expired => EXPIRED,
            status if status.class == 5 => status,
            _ => FAILED,
        }
    }
}

/// Writes a bounce; none about a notice, none to the null path, none about nobody.
pub fn bounce(about: &Bounce<'_>) -> Option<Notice> {
    let recipient = about.original.reverse_path.mailbox()?;
    if about.original.kind == Kind::Notice || about.failed.is_empty() {
        return None;
    }
    let parts = [
        Part::new("text/plain; charset=utf-8", "What happened", plain_words(about).as_bytes()),
        Part::new("message/delivery-status", "Delivery report", &delivery_status(about)),
        Part::new("text/rfc822-headers", "Header of the message", original_header(about.header)),
    ];
    let subject = match about.original.subject.as_str() {
        "" => format!("Not delivered: your message of {}", about.original.accepted_at.rfc5322()),
        subject => format!("Not delivered: {subject}"),
    };
    let letter = Letter {
        id: about.id,
        now: about.now,
        hostname: about.hostname,
        recipients: vec![recipient.clone()],
        subject,
        client: about.original.client.clone(),
        priority: about.original.priority,
        in_reply_to: Some(&about.original.message_id),
    };
    Some(letter.report(&parts))
}

/// The part for programs (RFC 3464 §2).
fn delivery_status(about: &Bounce<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(envid) = &about.original.dsn.envid {
        field(&mut out, "Original-Envelope-Id", envid);
    }
    field(&mut out, "Reporting-MTA", &format!("dns; {}", domain(about.hostname)));
    field(&mut out, "X-HVE-Relay-Queue-ID", &about.original.id.to_string());
    field(&mut out, "Arrival-Date", &about.original.accepted_at.rfc5322());
    for failed in about.failed {
        out.extend_from_slice(b"\r\n");
        if let Some(orcpt) = &failed.orcpt {
            field(&mut out, "Original-Recipient", &format!("{}; {}", orcpt.address_type, orcpt.ascii_address()));
        }
        field(&mut out, "Final-Recipient", &typed(&failed.address));
        field(&mut out, "Action", "failed");
        field(&mut out, "Status", &failed.status().to_string());
        if let Some(remote) = &failed.remote_mta {
            field(&mut out, "Remote-MTA", &format!("dns; {}", domain(remote)));
        }
        if !failed.outcome.diagnostic.trim().is_empty() {
            write_field(&mut out, "Diagnostic-Code", &diagnostic_code(&failed.outcome.diagnostic));
        }
        if let Some(at) = failed.last_attempt {
            field(&mut out, "Last-Attempt-Date", &at.rfc5322());
        }
    }
    out
}

/// An address with its type. One beyond ASCII is written in the form of RFC 6533 §3 that is safe in `message/delivery-status` (`utf-8-addr-xtext`).
fn typed(address: &Mailbox) -> String {
    if !address.is_international() {
        return format!("rfc822; {address}");
    }
    let mut text = "utf-8; ".to_owned();
    for c in address.as_str().chars() {
        if c.is_ascii_graphic() && !matches!(c, '\\' | '+' | '=') {
            text.push(c);
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{{{:02X}}}", c as u32);
        }
    }
    text
}

/// The server's words, or ours if no server spoke, as words that fit into a line (RFC 3464 §2.3.6).
fn diagnostic_code(diagnostic: &str) -> Vec<String> {
    let text: String = one_line(diagnostic, DIAGNOSTIC).chars().map(|c| if c.is_ascii() { c } else { '?' }).collect();
    let is_reply = text.split(' ').next().is_some_and(|code| code.len() == 3 && code.bytes().all(|b| b.is_ascii_digit()));
    let mut words = vec![if is_reply { "smtp;" } else { "x-hve-relay;" }.to_owned()];
    for word in text.split_whitespace() {
        // The text is ASCII, so any cut is between characters; a line has at most 998 octets.
        words.extend(word.as_bytes().chunks(900).map(|piece| String::from_utf8_lossy(piece).into_owned()));
    }
    words
}

/// The fields of the header, as many whole ones as the limit allows.
fn original_header(header: &[u8]) -> &[u8] {
    let fields = Header::scan(header);
    let mut end = 0;
    for field in fields.fields() {
        if end + field.whole().len() > HEADER {
            break;
        }
        end += field.whole().len();
    }
    &fields.octets()[..end]
}

#[cfg(test)]
mod tests {
    use mail_parser::{MessageParser, MimeHeaders, PartType};

    use super::*;
    use crate::mail::ClientName;
    use crate::reply::{Disposition, Step};
    use crate::smtp::{MessageDsn, ReversePath};

    fn original(subject: &str) -> Message {
        Message {
            id: QueueId::from_number(77).expect("positive"),
            accepted_at: Timestamp::from_millis(1_795_285_881_042),
            kind: Kind::Mail,
            client: ClientName::new("devices"),
            priority: crate::mail::Priority::Normal,
            peer: None,
            reverse_path: ReversePath::Mailbox("scan@contoso.com".parse().expect("a mailbox")),
            author: "scan@contoso.com".parse().ok(),
            subject: subject.to_owned(),
            message_id: "<1@printer>".to_owned(),
            size: 1_000,
            eight_bit: false,
            smtputf8: false,
            dsn: MessageDsn::default(),
        }
    }

    fn failed(address: &str, status: EnhancedStatus, diagnostic: &str) -> FailedRecipient {
        let outcome = Outcome { disposition: Disposition::Failed, status, diagnostic: diagnostic.to_owned(), step: Step::Rcpt };
        FailedRecipient {
            address: address.parse().expect("a mailbox"),
            orcpt: None,
            outcome,
            expired: false,
            remote_mta: Some("smtp-hve.office365.com".to_owned()),
            last_attempt: Some(Timestamp::from_millis(1_795_285_884_000)),
        }
    }

    fn unknown() -> FailedRecipient {
        let words = "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient bob@contoso.com not found by SMTP address lookup";
        failed("bob@contoso.com", EnhancedStatus::new(5, 1, 10), words)
    }

    fn written(original: &Message, header: &[u8], failed: &[FailedRecipient]) -> Option<Notice> {
        let id = QueueId::from_number(78).expect("positive");
        let now = Timestamp::from_millis(1_795_285_885_000 + if failed.iter().any(|f| f.expired) { 5 * 86_400_000 } else { 0 });
        bounce(&Bounce { id, now, hostname: "relay.contoso.com", original, header, failed })
    }

    /// The three parts, decoded, of a notice that is sound on the wire.
    fn parts(notice: &Notice) -> [String; 3] {
        let content = &notice.content;
        assert!(content.is_ascii() && content.ends_with(b"\r\n"));
        let text = String::from_utf8(content.clone()).expect("ASCII");
        assert!(text.split("\r\n").all(|line| line.len() <= 998 && !line.contains(['\r', '\n'])));
        let parsed = MessageParser::default().parse(content).expect("a message");
        let kind = parsed.content_type().expect("a type");
        assert_eq!((kind.ctype(), kind.subtype(), kind.attribute("report-type")), ("multipart", Some("report"), Some("delivery-status")));
        let PartType::Multipart(children) = &parsed.root_part().body else { panic!("not multipart") };
        let read = |n: usize, kind: &str| {
            let part = &parsed.parts[children[n] as usize];
            let found = part.content_type().expect("a type");
            assert_eq!(format!("{}/{}", found.ctype(), found.subtype().unwrap_or_default()), kind);
            String::from_utf8_lossy(part.contents()).into_owned()
        };
        assert_eq!(children.len(), 3);
        assert_eq!(parsed.subject().map(str::to_owned).as_deref(), Some(notice.message.subject.as_str()));
        [read(0, "text/plain"), read(1, "message/delivery-status"), read(2, "text/rfc822-headers")]
    }

    fn assert_golden(notice: &Notice, golden: &str) {
        let content = String::from_utf8(notice.content.clone()).expect("ASCII").replace("\r\n", "\n");
        assert!(content == golden, "what is written now:\n{content}<<<");
    }

    const HEADER: &[u8] = b"Received: from printer ([10.20.0.9])\r\n\tby relay.contoso.com (hve-relay) with SMTP id 000000000002D;\r\n\
        \tSat, 21 Nov 2026 18:31:21 +0000\r\nFrom: Scanner <scan@contoso.com>\r\nSubject: Scan\r\nMessage-ID: <1@printer>\r\n\r\n";

    #[test]
    fn one_recipient_that_does_not_exist() {
        let notice = written(&original("Scan"), HEADER, &[unknown()]).expect("a notice");
        assert_golden(&notice, include_str!("golden/no_such_address.eml"));
        let [_, status, header] = parts(&notice);
        assert!(status.contains("Final-Recipient: rfc822; bob@contoso.com\r\nAction: failed\r\nStatus: 5.1.10\r\n"));
        assert!(header.starts_with("Received: from printer") && header.contains("Message-ID: <1@printer>"));
        assert_eq!(notice.recipients[0].as_str(), "scan@contoso.com");
        assert_eq!((notice.message.kind, &notice.message.reverse_path), (Kind::Notice, &ReversePath::Null));
        assert_eq!((notice.message.size, notice.message.smtputf8), (notice.content.len() as u64, false));
    }

    #[test]
    fn several_recipients_expired_international_and_in_other_words() {
        let late = FailedRecipient {
            expired: true,
            remote_mta: None,
            ..failed("late@contoso.com", EnhancedStatus::new(4, 4, 1), "connecting: no answer within 30s")
        };
        let abroad = failed("j\u{fc}rgen+x@m\u{fc}ller.example", EnhancedStatus::new(5, 5, 105), "550 5.5.105 Nicht möglich");
        let header = "From: a@b\r\nSubject: Prüfbericht\r\n\r\n".as_bytes();
        let notice = written(&original("Prüfbericht"), header, &[late, abroad]).expect("a notice");
        assert_golden(&notice, include_str!("golden/several.eml"));
        let [text, status, header] = parts(&notice);
        assert!(text.contains("Prüfbericht") && text.contains("jürgen+x@müller.example") && text.contains("Nicht möglich"));
        assert!(status.contains("Final-Recipient: utf-8; j\\x{FC}rgen\\x{2B}x@m\\x{FC}ller.example\r\n"));
        assert!(status.contains("Status: 4.4.7\r\nDiagnostic-Code: x-hve-relay; connecting: no answer within 30s\r\n"));
        assert!(header.contains("Subject: Prüfbericht"));
    }

    #[test]
    fn is_never_about_a_notice_nor_to_nobody() {
        let notice = written(&original("x"), HEADER, &[unknown()]).expect("a notice");
        assert_eq!(written(&notice.message, HEADER, &[unknown()]), None);
        assert_eq!(written(&Message { kind: Kind::Notice, ..original("x") }, HEADER, &[unknown()]), None);
        assert_eq!(written(&Message { reverse_path: ReversePath::Null, ..original("x") }, HEADER, &[unknown()]), None);
        assert_eq!(written(&original("x"), HEADER, &[]), None);
    }

    #[test]
    fn nothing_in_the_message_or_the_reply_can_break_the_notice() {
        let hostile = Message { message_id: "<a\r\nBcc: x@y>".to_owned(), ..original("=?utf-8?Q?x?= \"") };
        let reply =
            format!("550 5.7.1 {}\r\n\r\n--=_000000000002E_0--\r\nStatus: 2.0.0 {}", "x".repeat(1_500), "\u{1b}[31m\u{fc}".repeat(500));
        let header = format!("X: {}\r\nY: \0\u{fc}\r\n --=_000000000002E_0\r\n--=_000000000002E_0: z\r\nZ: end\r\n", "x".repeat(5_000));
        let remote = FailedRecipient { remote_mta: Some("a b\r\nc".to_owned()), ..failed("a@b", EnhancedStatus::new(2, 0, 0), &reply) };
        let notice = written(&hostile, header.as_bytes(), &[remote]).expect("a notice");
        let [_, status, found] = parts(&notice);
        assert!(found.contains("Z: end") && status.contains("\r\nStatus: 5.0.0\r\n") && !status.contains("\r\nStatus: 2"));
        let text = String::from_utf8_lossy(&notice.content).into_owned();
        assert!(!text.contains("\r\nBcc") && !text.contains("In-Reply-To") && text.contains("Remote-MTA: dns; a?b??c\r\n"));
    }

    #[test]
    fn a_message_that_was_never_tried_expires_without_words() {
        let untried = FailedRecipient { expired: true, last_attempt: None, remote_mta: None, ..failed("a@b", EXPIRED, " ") };
        let [text, status, _] = parts(&written(&original("x"), HEADER, &[untried]).expect("a notice"));
        assert!(text.contains("kept trying for 5 days.") && !text.contains("The last attempt"));
        assert!(status.contains("Status: 4.4.7") && !status.contains("Diagnostic-Code") && !status.contains("Last-Attempt-Date"));
    }

    #[test]
    fn says_again_what_the_sender_called_the_message_and_the_recipient() {
        let dsn = MessageDsn { ret: None, envid: Some("QQ 314159".to_owned()) };
        let orcpt = "rfc822;Bob+2BScan@contoso.com".parse().ok();
        let [_, status, _] =
            parts(&written(&Message { dsn, ..original("x") }, HEADER, &[FailedRecipient { orcpt, ..unknown() }]).expect("a notice"));
        assert!(status.starts_with("Original-Envelope-Id: QQ 314159\r\nReporting-MTA: dns; relay.contoso.com\r\n"), "{status}");
        assert!(
            status.contains("Original-Recipient: rfc822; Bob+Scan@contoso.com\r\nFinal-Recipient: rfc822; bob@contoso.com\r\n"),
            "{status}"
        );
    }

    #[test]
    fn a_huge_header_is_cut_between_fields() {
        let header = "X: y\r\n ü\r\n".repeat(50_000);
        let notice = written(&original("x"), header.as_bytes(), &[unknown()]).expect("a notice");
        let [.., found] = parts(&notice);
        assert!(found.len() <= super::HEADER && found.trim_end().ends_with("X: y\r\n ü"));
    }

    #[test]
    fn a_notice_to_an_international_address_says_what_it_needs() {
        let path = ReversePath::Mailbox("j\u{fc}rgen@contoso.com".parse().expect("a mailbox"));
        let notice = written(&Message { reverse_path: path, ..original("") }, HEADER, &[unknown()]).expect("a notice");
        assert!(notice.message.smtputf8 && notice.message.eight_bit);
        assert_eq!(notice.message.subject, "Not delivered: your message of Sat, 21 Nov 2026 18:31:21 +0000");
    }
}
