//! The fields of `message/delivery-status` that a recipient has (RFC 3464 §2.3).

use super::letter::field;
use crate::clock::Timestamp;
use crate::mail::words::{one_line, write_field};
use crate::mail::{Action, Reported, domain};
use crate::smtp::{EnhancedStatus, Mailbox};

/// Characters of the server's words for one recipient.
pub(super) const DIAGNOSTIC: usize = 2_000;
/// RFC 3463 §3.5: delivery time expired.
const EXPIRED: EnhancedStatus = EnhancedStatus::new(4, 4, 7);

/// RFC 3464 §2.3.4: of what failed the class is 5, or 4 where only time ran out; of what waits it is 4, of what was sent 2.
pub(super) fn status(recipient: &Reported) -> EnhancedStatus {
    let class = match recipient.action {
        Action::Expired => return EXPIRED,
        Action::Failed => 5,
        Action::Delayed => 4,
        Action::Relayed => 2,
    };
    Some(recipient.status).filter(|status| status.class == class).unwrap_or(EnhancedStatus::new(class, 0, 0))
}

/// Appends the fields of a recipient, without the empty line before them.
pub(super) fn write_recipient(out: &mut Vec<u8>, recipient: &Reported, retry_until: Timestamp) {
    if let Some(orcpt) = &recipient.orcpt {
        field(out, "Original-Recipient", &format!("{}; {}", orcpt.address_type, orcpt.ascii_address()));
    }
    field(out, "Final-Recipient", &typed(&recipient.address));
    let action = match recipient.action {
        Action::Failed | Action::Expired => "failed",
        Action::Delayed => "delayed",
        Action::Relayed => "relayed",
    };
    field(out, "Action", action);
    field(out, "Status", &status(recipient).to_string());
    if let Some(remote) = &recipient.remote_mta {
        field(out, "Remote-MTA", &format!("dns; {}", domain(remote)));
    }
    if !recipient.diagnostic.trim().is_empty() {
        write_field(out, "Diagnostic-Code", &diagnostic_code(&recipient.diagnostic));
    }
    if let Some(at) = recipient.last_attempt {
        field(out, "Last-Attempt-Date", &at.rfc5322());
    }
    if recipient.action == Action::Delayed {
        field(out, "Will-Retry-Until", &retry_until.rfc5322());
    }
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
            text.push_str(&format!("\\x{{{:02X}}}", c as u32));
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
