//! The part of a bounce for the person who sent the message: what it was about, who will not get it and why, what can be done, and the number
//! by which the help desk finds it. Lines of 72 columns where the words allow it.

use super::bounce::{Bounce, DIAGNOSTIC};
use super::explain::explain;
use super::text::{counted, in_words, wrap};
use crate::mail::{domain, words::one_line};

/// The part for the person who sent the message.
pub fn plain_words(about: &Bounce<'_>) -> String {
    let original = about.original;
    let mut text = String::new();
    let count = counted(about.failed.len(), "recipient");
    wrap(&mut text, "", &format!("Your message could not be delivered to {count}:"));
    text += "\r\n";
    let subject = if original.subject.is_empty() { "(none)" } else { &original.subject };
    wrap(&mut text, "  ", &format!("Subject: {subject}"));
    wrap(&mut text, "  ", &format!("Sent: {}", original.accepted_at.rfc5322()));
    if let Some(author) = &original.author {
        wrap(&mut text, "  ", &format!("From: {author}"));
    }
    for failed in about.failed {
        let explanation = explain(failed.status());
        text += "\r\n";
        wrap(&mut text, "", &format!("{}:", failed.address));
        wrap(&mut text, "  ", explanation.what);
        if failed.expired {
            wrap(&mut text, "  ", &format!("The relay kept trying for {}.", in_words(about.now.since(original.accepted_at))));
        }
        wrap(&mut text, "  ", explanation.advice);
        let diagnostic = one_line(&failed.outcome.diagnostic, DIAGNOSTIC);
        if !diagnostic.is_empty() {
            wrap(&mut text, "  ", if failed.expired { "The last attempt ended with:" } else { "In the words of the mail server:" });
            wrap(&mut text, "    ", &diagnostic);
        }
    }
    text += "\r\n";
    wrap(&mut text, "", "Recipients that are not named here are not affected.");
    text += "\r\n";
    wrap(&mut text, "", &format!("If you ask your help desk, tell them this number: {}", original.id));
    text += "\r\n";
    wrap(&mut text, "", &format!("This notice was written by the mail relay {}. Nobody reads answers to it.", domain(about.hostname)));
    text
}
