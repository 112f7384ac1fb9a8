//! The part of a notice for the person who sent the message: what it was about, what became of whom and why, what can be done, and the number
//! by which the help desk finds it. Lines of 72 columns where the words allow it.

use super::explain::explain;
use super::report::{Report, Returned, WHOLE};
use super::status::{DIAGNOSTIC, status};
use super::text::{counted, in_words, wrap};
use crate::mail::{Action, Reported, domain, words::one_line};
use crate::units::ByteSize;

/// The part for the person who sent the message.
pub(super) fn plain_words(about: &Report<'_>, returned: Returned) -> String {
    let of =
        |wanted: &[Action]| -> Vec<&Reported> { about.recipients.iter().filter(|recipient| wanted.contains(&recipient.action)).collect() };
    let (failed, waiting, sent) = (of(&[Action::Failed, Action::Expired]), of(&[Action::Delayed]), of(&[Action::Relayed]));
    let mut text = String::new();
    let mut is_first = true;
    let mut begin = |text: &mut String, said: &str| {
        if !is_first {
            *text += "\r\n";
        }
        wrap(text, "", said);
        if std::mem::take(&mut is_first) {
            message(text, about);
        }
    };
    if !failed.is_empty() {
        begin(&mut text, &format!("Your message could not be delivered to {}:", counted(failed.len(), "recipient")));
        failed.iter().for_each(|recipient| failure(&mut text, about, recipient));
    }
    if !waiting.is_empty() {
        begin(&mut text, &format!("Your message has not been delivered yet to {}:", counted(waiting.len(), "recipient")));
        waiting.iter().for_each(|recipient| delay(&mut text, recipient));
        text += "\r\n";
        wrap(
            &mut text,
            "",
            &format!(
                "It has been waiting for {}, and will be tried until {}. You need not send it again. \
                 If it is urgent, reach the recipients in another way.",
                in_words(about.now.since(about.original.accepted_at)),
                about.retry_until.rfc5322()
            ),
        );
    }
    if !sent.is_empty() {
        begin(
            &mut text,
            &format!("Your message has been given to the mail service for {}, as you asked to be told:", counted(sent.len(), "recipient")),
        );
        text += "\r\n";
        sent.iter().for_each(|recipient| wrap(&mut text, "", recipient.address.as_str()));
        text += "\r\n";
        wrap(&mut text, "", "The mail service sends no notice of its own when it delivers a message.");
    }
    text += "\r\n";
    wrap(&mut text, "", "Recipients that are not named here are not affected.");
    if returned == Returned::HeaderOnly {
        text += "\r\n";
        let limit = ByteSize(WHOLE);
        wrap(
            &mut text,
            "",
            &format!(
                "The whole message was to come back with this notice. Only its header does: it has more than {limit}, or is not plain ASCII."
            ),
        );
    }
    text += "\r\n";
    wrap(&mut text, "", &format!("If you ask your help desk, tell them this number: {}", about.original.id));
    text += "\r\n";
    wrap(&mut text, "", &format!("This notice was written by the mail relay {}. Nobody reads answers to it.", domain(about.hostname)));
    text
}

/// Which message it is about.
fn message(text: &mut String, about: &Report<'_>) {
    let original = about.original;
    *text += "\r\n";
    let subject = if original.subject.is_empty() { "(none)" } else { &original.subject };
    wrap(text, "  ", &format!("Subject: {subject}"));
    wrap(text, "  ", &format!("Sent: {}", original.accepted_at.rfc5322()));
    if let Some(author) = &original.author {
        wrap(text, "  ", &format!("From: {author}"));
    }
}

fn failure(text: &mut String, about: &Report<'_>, recipient: &Reported) {
    let explanation = explain(status(recipient));
    let expired = recipient.action == Action::Expired;
    *text += "\r\n";
    wrap(text, "", &format!("{}:", recipient.address));
    wrap(text, "  ", explanation.what);
    if expired {
        wrap(text, "  ", &format!("The relay kept trying for {}.", in_words(about.now.since(about.original.accepted_at))));
    }
    wrap(text, "  ", explanation.advice);
    quote(text, if expired { "The last attempt ended with:" } else { "In the words of the mail server:" }, recipient);
}

fn delay(text: &mut String, recipient: &Reported) {
    *text += "\r\n";
    wrap(text, "", &format!("{}:", recipient.address));
    if recipient.last_attempt.is_some() || recipient.diagnostic.starts_with(|c: char| c.is_ascii_digit()) {
        quote(text, "The last attempt ended with:", recipient);
    } else {
        wrap(text, "  ", &one_line(&recipient.diagnostic, DIAGNOSTIC));
    }
}

fn quote(text: &mut String, said: &str, recipient: &Reported) {
    let diagnostic = one_line(&recipient.diagnostic, DIAGNOSTIC);
    if !diagnostic.is_empty() {
        wrap(text, "  ", said);
        wrap(text, "    ", &diagnostic);
    }
}
