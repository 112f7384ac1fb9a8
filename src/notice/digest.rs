//! The digest: one notice about many messages, for a reader to whom a notice about each would be one too many.
//!
//! It has the form of a report (RFC 3464), so that programs find each recipient in it; the fields that a report has once, for its only message,
//! stand with each recipient here, under names of our own. For a person the recipients are put together by what happened to them.

use std::time::Duration;

use super::explain::{Explanation, explain};
use super::letter::{Letter, Notice, field};
use super::mime::Part;
use super::status::{self, status};
use super::text::{counted, wrap};
use crate::clock::Timestamp;
use crate::mail::words::one_line;
use crate::mail::{Action, Gathered, Priority, QueueId, Reported, domain};
use crate::smtp::Mailbox;

/// Recipients that the text names for each thing that happened; all of them are in the report.
const NAMED: usize = 50;
/// Characters of the server's words for one of many recipients.
const DIAGNOSTIC: usize = 300;
/// Characters of a subject in the list.
const SUBJECT: usize = 60;

/// What a digest is about.
#[derive(Debug, Clone, Copy)]
pub struct Digest<'a> {
    /// The name of the notice, a new one.
    pub id: QueueId,
    /// The present time.
    pub now: Timestamp,
    /// Our own name.
    pub hostname: &'a str,
    /// Who is told.
    pub reader: &'a Mailbox,
    /// How long messages are tried.
    pub lifetime: Duration,
    /// What was gathered for that reader, in the order in which it happened.
    pub gathered: &'a [Gathered],
}

/// Writes a digest; none about nothing.
pub fn digest(about: &Digest<'_>) -> Option<Notice> {
    let first = about.gathered.first()?;
    let failed = count(about, |action| matches!(action, Action::Failed | Action::Expired));
    let delayed = count(about, |action| action == Action::Delayed);
    let subject = match (failed, delayed) {
        (0, 0) => format!("Sent on: your messages to {}", counted(about.gathered.len(), "recipient")),
        (0, _) => format!("Not delivered yet: your messages to {}", counted(delayed, "recipient")),
        (..) => format!("Not delivered: your messages to {}", counted(failed, "recipient")),
    };
    let parts = [
        Part::new("text/plain; charset=utf-8", "What happened", plain_words(about).as_bytes()),
        Part::new("message/delivery-status", "Delivery report", &delivery_status(about)),
    ];
    let letter = Letter {
        id: about.id,
        now: about.now,
        hostname: about.hostname,
        recipients: vec![about.reader.clone()],
        subject,
        client: first.client.clone(),
        priority: Priority::Normal,
        in_reply_to: None,
    };
    Some(letter.report(&parts))
}

fn count(about: &Digest<'_>, wanted: impl Fn(Action) -> bool) -> usize {
    about.gathered.iter().filter(|gathered| wanted(gathered.recipient.action)).count()
}

/// What happened, as far as it is the same for many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Case {
    action: Action,
    /// Of failures.
    explanation: Option<Explanation>,
}

impl Case {
    fn of(recipient: &Reported) -> Self {
        let fails = matches!(recipient.action, Action::Failed | Action::Expired);
        Self { action: recipient.action, explanation: fails.then(|| explain(status(recipient))) }
    }

    fn headline(self, recipients: usize) -> String {
        let recipients = counted(recipients, "recipient");
        match (self.action, self.explanation) {
            (Action::Relayed, _) => format!("Given to the mail service for {recipients}, as you asked to be told."),
            (Action::Delayed, _) => format!("Not delivered yet to {recipients}, and still tried. You need not send these again."),
            (_, Some(Explanation { what, .. })) => format!("Not delivered to {recipients}. {what}"),
            (_, None) => format!("Not delivered to {recipients}."),
        }
    }
}

fn plain_words(about: &Digest<'_>) -> String {
    let mut cases: Vec<(Case, Vec<&Gathered>)> = Vec::new();
    for gathered in about.gathered {
        let case = Case::of(&gathered.recipient);
        match cases.iter_mut().find(|(other, _)| *other == case) {
            Some((_, list)) => list.push(gathered),
            None => cases.push((case, vec![gathered])),
        }
    }
    cases.sort_by_key(|(case, _)| case.action);

    let mut text = String::new();
    let from = about.gathered.iter().map(|gathered| gathered.at).min().unwrap_or(about.now);
    wrap(
        &mut text,
        "",
        &format!("This is what became of messages of yours since {}. It comes in one notice, to spare you one for each.", from.rfc5322()),
    );
    for (case, list) in &cases {
        text += "\r\n";
        wrap(&mut text, "", &case.headline(list.len()));
        if let Some(explanation) = case.explanation {
            wrap(&mut text, "", explanation.advice);
        }
        text += "\r\n";
        for Gathered { message, subject, recipient, .. } in list.iter().take(NAMED) {
            let subject = one_line(subject, SUBJECT);
            let subject = if subject.is_empty() { String::new() } else { format!(", {subject}") };
            wrap(&mut text, "  ", &format!("{} ({message}{subject})", recipient.address));
        }
        if list.len() > NAMED {
            wrap(&mut text, "  ", &format!("... and {} more, whom the attached report names.", list.len() - NAMED));
        }
        // What the server said is the same for most of them; the report has it for each.
        let said =
            list.iter().find_map(|gathered| Some(one_line(&gathered.recipient.diagnostic, DIAGNOSTIC)).filter(|said| !said.is_empty()));
        if let Some(said) = said.filter(|_| case.action != Action::Relayed) {
            text += "\r\n";
            wrap(&mut text, "  ", &format!("In the words of the mail server, for the first: {said}"));
        }
    }
    text += "\r\n";
    wrap(&mut text, "", "If you ask your help desk, tell them the number that stands behind the address.");
    text += "\r\n";
    wrap(&mut text, "", &format!("This notice was written by the mail relay {}. Nobody reads answers to it.", domain(about.hostname)));
    text
}

fn delivery_status(about: &Digest<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    field(&mut out, "Reporting-MTA", &format!("dns; {}", domain(about.hostname)));
    for Gathered { message, accepted_at, envid, recipient, .. } in about.gathered {
        out.extend_from_slice(b"\r\n");
        let short = Reported { diagnostic: one_line(&recipient.diagnostic, DIAGNOSTIC), ..recipient.clone() };
        status::write_recipient(&mut out, &short, *accepted_at + about.lifetime);
        field(&mut out, "X-HVE-Relay-Queue-ID", &message.to_string());
        field(&mut out, "X-HVE-Relay-Arrival-Date", &accepted_at.rfc5322());
        if let Some(envid) = envid {
            field(&mut out, "X-HVE-Relay-Original-Envelope-Id", envid);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use mail_parser::{MessageParser, MimeHeaders, PartType};

    use super::*;
    use crate::mail::ClientName;
    use crate::smtp::EnhancedStatus;

    fn gathered(number: i64, action: Action, status: EnhancedStatus, diagnostic: &str) -> Gathered {
        let at = Timestamp::from_millis(1_795_285_881_042 + 1_000 * number);
        Gathered {
            reader: "erp@contoso.com".parse().expect("a mailbox"),
            at,
            message: QueueId::from_number(number).expect("positive"),
            client: ClientName::new("erp"),
            accepted_at: at,
            subject: format!("Invoice {number} für Sie"),
            envid: (number % 2 == 0).then(|| format!("PO {number}")),
            recipient: Reported {
                address: format!("customer{number}@contoso.com").parse().expect("a mailbox"),
                orcpt: None,
                action,
                status,
                diagnostic: diagnostic.to_owned(),
                remote_mta: Some("smtp-hve.office365.com".to_owned()),
                last_attempt: Some(at),
            },
        }
    }

    fn unknown(number: i64) -> Gathered {
        gathered(number, Action::Failed, EnhancedStatus::new(5, 1, 10), "550 5.1.10 RESOLVER.ADR.RecipientNotFound; not found")
    }

    fn written(gathered: &[Gathered]) -> Option<Notice> {
        let (id, now) = (QueueId::from_number(9_999).expect("positive"), Timestamp::from_millis(1_795_286_781_042));
        let reader = &"erp@contoso.com".parse().expect("a mailbox");
        digest(&Digest { id, now, hostname: "relay.contoso.com", reader, lifetime: Duration::from_secs(432_000), gathered })
    }

    #[test]
    fn puts_together_what_is_the_same() {
        let waits = gathered(5, Action::Delayed, EnhancedStatus::new(4, 2, 2), "452 4.2.2 Mailbox full");
        let list = [unknown(1), waits, unknown(2), gathered(3, Action::Relayed, EnhancedStatus::new(2, 1, 5), "250 2.1.5 Ok")];
        let notice = written(&list).expect("a notice");
        let content = String::from_utf8(notice.content).expect("ASCII").replace("\r\n", "\n");
        assert!(content == include_str!("golden/digest.eml"), "what is written now:\n{content}<<<");
        assert_eq!(written(&[]), None);
    }

    #[test]
    fn names_everybody_in_the_report_and_not_too_many_in_the_text() {
        let list: Vec<Gathered> = (1..=super::super::DIGEST as i64).map(unknown).collect();
        let notice = written(&list).expect("a notice");
        assert!(notice.content.is_ascii() && notice.content.len() < 1_000_000, "{}", notice.content.len());
        let parsed = MessageParser::default().parse(&notice.content).expect("a message");
        let PartType::Multipart(children) = &parsed.root_part().body else { panic!("not multipart") };
        let read = |n: usize| String::from_utf8_lossy(parsed.parts[children[n] as usize].contents()).into_owned();
        assert_eq!(parsed.content_type().and_then(|kind| kind.attribute("report-type")), Some("delivery-status"));
        assert_eq!(read(1).matches("\r\nFinal-Recipient: rfc822; customer").count(), list.len());
        assert_eq!(read(0).matches("customer").count(), NAMED);
        assert!(read(0).contains("... and 950 more") && parsed.subject().is_some_and(|subject| subject.ends_with("1000 recipients")));
    }
}
