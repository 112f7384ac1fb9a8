//! The notice to the sender of a message about what became of its recipients (RFC 3464, RFC 6522, RFC 3834): they will not get it, they still
//! wait for it, or, where that was asked for, another server has it.
//!
//! Three parts: plain words for a person, the same as fields for a program, and the header of the message it is about, or all of it where its
//! sender asked for that and it is small. Everything is ASCII on the wire with lines of at most 998 octets, whatever the message, the addresses
//! or the server's words have in them; only an international address of the notice's own reader stands in `To` as it is (RFC 6532).
//!
//! No notice is ever written about a notice, so none can be answered with another. A device's reverse-path may not exist; then the notice itself
//! fails, and that is the end of it.

use super::letter::{Letter, Notice, field};
use super::mime::{Part, is_seven_bit};
use super::plain::plain_words;
use super::status;
use crate::clock::Timestamp;
use crate::mail::{Action, Header, Kind, Message, QueueId, Reported, domain};
use crate::smtp::{Mailbox, Ret};

/// Octets of the original's header that a notice carries; whole fields only.
const HEADER: usize = 64 * 1024;
/// Octets of a message that comes back whole with RET=FULL: a notice should not be what fills the mailbox of who made a mistake in bulk.
pub const WHOLE: u64 = 64 * 1024;

/// What a notice is about.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// The name of the notice, a new one.
    pub id: QueueId,
    /// The present time.
    pub now: Timestamp,
    /// Our own name.
    pub hostname: &'a str,
    /// Who is told.
    pub reader: &'a Mailbox,
    /// The message.
    pub original: &'a Message,
    /// Its stored header.
    pub header: &'a [u8],
    /// All of it, if it has at most [`WHOLE`] octets.
    pub whole: Option<&'a [u8]>,
    /// Until when those that wait will be tried.
    pub retry_until: Timestamp,
    /// What became of its recipients.
    pub recipients: &'a [Reported],
}

/// How much of the message comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Returned {
    /// Its header, as usual.
    Header,
    /// All of it.
    Whole,
    /// Its header, although its sender asked for all of it.
    HeaderOnly,
}

/// Writes a notice; none about a notice, and none about nobody.
pub fn report(about: &Report<'_>) -> Option<Notice> {
    if about.original.kind == Kind::Notice || about.recipients.is_empty() {
        return None;
    }
    let returned = returned(about);
    let original = match (returned, about.whole) {
        (Returned::Whole, Some(whole)) => Part::new("message/rfc822", "The message", whole),
        _ => Part::new("text/rfc822-headers", "Header of the message", original_header(about.header)),
    };
    let parts = [
        Part::new("text/plain; charset=utf-8", "What happened", plain_words(about, returned).as_bytes()),
        Part::new("message/delivery-status", "Delivery report", &delivery_status(about)),
        original,
    ];
    let said = match about.recipients.iter().map(|recipient| recipient.action).min() {
        Some(Action::Relayed) => "Sent on",
        Some(Action::Delayed) => "Not delivered yet",
        _ => "Not delivered",
    };
    let subject = match about.original.subject.as_str() {
        "" => format!("{said}: your message of {}", about.original.accepted_at.rfc5322()),
        subject => format!("{said}: {subject}"),
    };
    let letter = Letter {
        id: about.id,
        now: about.now,
        hostname: about.hostname,
        recipients: vec![about.reader.clone()],
        subject,
        client: about.original.client.clone(),
        priority: about.original.priority,
        in_reply_to: Some(&about.original.message_id),
    };
    Some(letter.report(&parts))
}

/// RFC 3461 §4.3: RET is about notices of failures. A message with octets beyond ASCII would have to be encoded anew, which nothing but its
/// sender may do (RFC 2046 §5.2.1).
fn returned(about: &Report<'_>) -> Returned {
    let failed = about.recipients.iter().any(|recipient| matches!(recipient.action, Action::Failed | Action::Expired));
    match about.whole {
        _ if about.original.dsn.ret != Some(Ret::Full) || !failed => Returned::Header,
        Some(whole) if is_seven_bit(whole) => Returned::Whole,
        _ => Returned::HeaderOnly,
    }
}

/// The part for programs (RFC 3464 §2).
fn delivery_status(about: &Report<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(envid) = &about.original.dsn.envid {
        field(&mut out, "Original-Envelope-Id", envid);
    }
    field(&mut out, "Reporting-MTA", &format!("dns; {}", domain(about.hostname)));
    field(&mut out, "X-HVE-Relay-Queue-ID", &about.original.id.to_string());
    field(&mut out, "Arrival-Date", &about.original.accepted_at.rfc5322());
    for recipient in about.recipients {
        out.extend_from_slice(b"\r\n");
        status::write_recipient(&mut out, recipient, about.retry_until);
    }
    out
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
    use crate::smtp::{EnhancedStatus, MessageDsn, ReversePath};

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

    fn failed(address: &str, status: EnhancedStatus, diagnostic: &str) -> Reported {
        Reported {
            address: address.parse().expect("a mailbox"),
            orcpt: None,
            action: Action::Failed,
            status,
            diagnostic: diagnostic.to_owned(),
            remote_mta: Some("smtp-hve.office365.com".to_owned()),
            last_attempt: Some(Timestamp::from_millis(1_795_285_884_000)),
        }
    }

    fn unknown() -> Reported {
        let words = "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient bob@contoso.com not found by SMTP address lookup";
        failed("bob@contoso.com", EnhancedStatus::new(5, 1, 10), words)
    }

    fn written(original: &Message, header: &[u8], recipients: &[Reported]) -> Option<Notice> {
        returning(original, header, None, recipients)
    }

    fn returning(original: &Message, header: &[u8], whole: Option<&[u8]>, recipients: &[Reported]) -> Option<Notice> {
        let id = QueueId::from_number(78).expect("positive");
        let lifetime = std::time::Duration::from_secs(5 * 86_400);
        let late = recipients.iter().any(|recipient| recipient.action == Action::Expired);
        let now = Timestamp::from_millis(1_795_285_885_000 + if late { 5 * 86_400_000 } else { 0 });
        let somebody = "scan@contoso.com".parse().expect("a mailbox");
        let reader = original.reverse_path.mailbox().unwrap_or(&somebody);
        let retry_until = original.accepted_at + lifetime;
        report(&Report { id, now, hostname: "relay.contoso.com", reader, original, header, whole, retry_until, recipients })
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

    fn waiting(address: &str, diagnostic: &str) -> Reported {
        let (action, remote_mta, last_attempt) = (Action::Delayed, None, None);
        Reported { action, remote_mta, last_attempt, ..failed(address, EnhancedStatus::new(4, 2, 2), diagnostic) }
    }

    fn sent_on(address: &str) -> Reported {
        Reported {
            action: Action::Relayed,
            ..failed(address, EnhancedStatus::new(2, 6, 0), "250 2.6.0 <1@printer> Queued mail for delivery")
        }
    }

    #[test]
    fn recipients_that_wait() {
        let list = [waiting("a@contoso.com", "452 4.2.2 Mailbox full"), waiting("b@contoso.com", "Much other mail waits before it.")];
        let notice = written(&original("Scan"), HEADER, &list).expect("a notice");
        assert_golden(&notice, include_str!("golden/delayed.eml"));
        let [_, status, _] = parts(&notice);
        assert!(status.contains("Diagnostic-Code: x-hve-relay; Much other mail waits before it.\r\nWill-Retry-Until: "));
    }

    #[test]
    fn some_failed_some_wait_and_some_were_sent_on() {
        let dsn = MessageDsn { ret: Some(Ret::Full), envid: Some("QQ 1".to_owned()) };
        let list = [sent_on("a@contoso.com"), waiting("b@contoso.com", "452 4.2.2 Mailbox full"), unknown()];
        let notice = returning(&Message { dsn, ..original("Scan") }, HEADER, None, &list).expect("a notice");
        assert_golden(&notice, include_str!("golden/mixed.eml"));
        let [text, status, _] = parts(&notice);
        assert!(text.contains("more than 64 KiB") && status.matches("Action: ").count() == 3);
        let relayed = written(&original("Scan"), HEADER, &[sent_on("a@contoso.com")]).expect("a notice");
        assert_eq!(relayed.message.subject, "Sent on: Scan");
        let [text, ..] = parts(&relayed);
        assert!(text.starts_with("Your message has been given to the mail service for 1 recipient") && !text.contains("250 2.6.0"));
    }

    #[test]
    fn the_whole_message_comes_back_where_that_was_asked_and_can_be() {
        let whole = [HEADER, b"text\r\n"].concat();
        let eight_bit = [HEADER, "für Sie\r\n".as_bytes()].concat();
        let full = |whole: Option<&[u8]>, recipient: Reported| {
            let dsn = MessageDsn { ret: Some(Ret::Full), envid: None };
            let content = returning(&Message { dsn, ..original("Scan") }, HEADER, whole, &[recipient]).expect("a notice").content;
            String::from_utf8(content).expect("ASCII")
        };
        let back = full(Some(&whole), unknown());
        assert!(back.contains("Content-Type: message/rfc822\r\n") && back.contains("\r\n\r\ntext\r\n") && !back.contains("64 KiB"));
        for (whole, recipient, said) in
            [(None, unknown(), true), (Some(&eight_bit[..]), unknown(), true), (Some(&whole[..]), waiting("a@b", "451 4.3.0 Later"), false)]
        {
            let header = full(whole, recipient);
            assert!(header.contains("Content-Type: text/rfc822-headers\r\n") && header.contains("more than 64 KiB") == said, "{header}");
        }
    }

    #[test]
    fn several_recipients_expired_international_and_in_other_words() {
        let late = Reported {
            action: Action::Expired,
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
        assert_eq!(written(&original("x"), HEADER, &[]), None);
    }

    #[test]
    fn nothing_in_the_message_or_the_reply_can_break_the_notice() {
        let hostile = Message { message_id: "<a\r\nBcc: x@y>".to_owned(), ..original("=?utf-8?Q?x?= \"") };
        let reply =
            format!("550 5.7.1 {}\r\n\r\n--=_000000000002E_0--\r\nStatus: 2.0.0 {}", "x".repeat(1_500), "\u{1b}[31m\u{fc}".repeat(500));
        let header = format!("X: {}\r\nY: \0\u{fc}\r\n --=_000000000002E_0\r\n--=_000000000002E_0: z\r\nZ: end\r\n", "x".repeat(5_000));
        let remote = Reported { remote_mta: Some("a b\r\nc".to_owned()), ..failed("a@b", EnhancedStatus::new(2, 0, 0), &reply) };
        let notice = written(&hostile, header.as_bytes(), &[remote]).expect("a notice");
        let [_, status, found] = parts(&notice);
        assert!(found.contains("Z: end") && status.contains("\r\nStatus: 5.0.0\r\n") && !status.contains("\r\nStatus: 2"));
        let text = String::from_utf8_lossy(&notice.content).into_owned();
        assert!(!text.contains("\r\nBcc") && !text.contains("In-Reply-To") && text.contains("Remote-MTA: dns; a?b??c\r\n"));
    }

    #[test]
    fn a_message_that_was_never_tried_expires_without_words() {
        let untried =
            Reported { action: Action::Expired, last_attempt: None, remote_mta: None, ..failed("a@b", EnhancedStatus::new(4, 4, 7), " ") };
        let [text, status, _] = parts(&written(&original("x"), HEADER, &[untried]).expect("a notice"));
        assert!(text.contains("kept trying for 5 days.") && !text.contains("The last attempt"));
        assert!(status.contains("Status: 4.4.7") && !status.contains("Diagnostic-Code") && !status.contains("Last-Attempt-Date"));
    }

    #[test]
    fn says_again_what_the_sender_called_the_message_and_the_recipient() {
        let dsn = MessageDsn { ret: None, envid: Some("QQ 314159".to_owned()) };
        let orcpt = "rfc822;Bob+2BScan@contoso.com".parse().ok();
        let [_, status, _] =
            parts(&written(&Message { dsn, ..original("x") }, HEADER, &[Reported { orcpt, ..unknown() }]).expect("a notice"));
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
