//! What all mail of the relay's own has in common: its header, and how it enters the queue.
//!
//! Everything is ASCII on the wire with lines of at most 998 octets, except an international address of a recipient: that stands in `To` as it
//! is, since there is no other form for it (RFC 6532). The reverse-path is null, so that nothing is ever answered to it (RFC 5321 §4.5.5).

use super::mime::{Part, boundary, write_parts};
use crate::clock::Timestamp;
use crate::mail::words::{unstructured, write_field};
use crate::mail::{ClientName, Kind, Message, Priority, QueueId, domain, message_id};
use crate::smtp::{Mailbox, MessageDsn, ReversePath};

/// A notice, ready for the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What is known about it; its reverse-path is null.
    pub message: Message,
    /// Whom it goes to.
    pub recipients: Vec<Mailbox>,
    /// Its content.
    pub content: Vec<u8>,
}

/// The outside of a notice.
#[derive(Debug, Clone)]
pub(super) struct Letter<'a> {
    /// Its name, a new one.
    pub id: QueueId,
    /// The present time.
    pub now: Timestamp,
    /// Our own name.
    pub hostname: &'a str,
    /// Whom it goes to; not empty.
    pub recipients: Vec<Mailbox>,
    /// What it says in a line.
    pub subject: String,
    /// The client whose mail it is about.
    pub client: ClientName,
    /// How urgent it is.
    pub priority: Priority,
    /// The Message-ID of the message that it answers, if it is about one.
    pub in_reply_to: Option<&'a str>,
}

impl Letter<'_> {
    /// With a text and nothing else.
    pub fn plain(self, text: &str) -> Notice {
        let mut content = self.header("auto-generated");
        Part::new("text/plain; charset=utf-8", "What happened", text.as_bytes()).write_as_body(&mut content);
        self.notice(content)
    }

    /// With the parts of a report (RFC 6522).
    pub fn report(self, parts: &[Part]) -> Notice {
        // RFC 3834 §5.
        let mut content = self.header("auto-replied");
        let boundary = boundary(self.id, parts);
        field(&mut content, "Content-Type", &format!("multipart/report; report-type=delivery-status;\r\n boundary=\"{boundary}\""));
        content.extend_from_slice(b"\r\n");
        write_parts(&mut content, &boundary, parts);
        self.notice(content)
    }

    fn header(&self, auto_submitted: &str) -> Vec<u8> {
        let mut header = Vec::new();
        field(&mut header, "Date", &self.now.rfc5322());
        field(&mut header, "From", &format!("Mail Delivery System <{}>", self.postmaster()));
        let to: Vec<String> = self.recipients.iter().map(|recipient| format!("<{recipient}>")).collect();
        field(&mut header, "To", &to.join(",\r\n "));
        write_field(&mut header, "Subject", &unstructured(&self.subject));
        field(&mut header, "Message-ID", &message_id(self.id, self.hostname));
        if let Some(answered) = self.in_reply_to.filter(|answered| is_message_id(answered)) {
            field(&mut header, "In-Reply-To", answered);
            field(&mut header, "References", answered);
        }
        // The second keeps Exchange's out-of-office replies away from an account without a mailbox.
        field(&mut header, "Auto-Submitted", auto_submitted);
        field(&mut header, "X-Auto-Response-Suppress", "All");
        field(&mut header, "MIME-Version", "1.0");
        header
    }

    fn postmaster(&self) -> String {
        format!("postmaster@{}", domain(self.hostname))
    }

    fn notice(self, content: Vec<u8>) -> Notice {
        let message = Message {
            id: self.id,
            accepted_at: self.now,
            kind: Kind::Notice,
            author: self.postmaster().parse().ok(),
            message_id: message_id(self.id, self.hostname),
            client: self.client,
            priority: self.priority,
            peer: None,
            reverse_path: ReversePath::Null,
            subject: self.subject,
            size: content.len() as u64,
            eight_bit: !content.is_ascii(),
            smtputf8: self.recipients.iter().any(Mailbox::is_international),
            dsn: MessageDsn::default(),
        };
        Notice { message, recipients: self.recipients, content }
    }
}

/// Appends a field whose value needs no folding.
pub(super) fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
}

fn is_message_id(text: &str) -> bool {
    let inner = text.strip_prefix('<').and_then(|text| text.strip_suffix('>'));
    text.len() <= 900
        && inner.is_some_and(|inner| !inner.is_empty() && inner.bytes().all(|b| b.is_ascii_graphic() && b != b'<' && b != b'>'))
}
