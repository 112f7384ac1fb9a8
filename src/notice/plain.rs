//! The part of a bounce for the person who sent the message: what it was about, who will not get it and why, what can be done, and the number
//! by which the help desk finds it. Lines of 72 columns where the words allow it.

use std::time::Duration;

use super::bounce::{Bounce, DIAGNOSTIC};
use super::explain::explain;
use crate::mail::{domain, words::one_line};

const WIDTH: usize = 72;

/// The part for the person who sent the message.
pub fn plain_words(about: &Bounce<'_>) -> String {
    let original = about.original;
    let mut text = String::new();
    let count = match about.failed.len() {
        1 => "1 recipient".to_owned(),
        n => format!("{n} recipients"),
    };
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

/// Appends a paragraph with each line behind `indent`, broken between words.
fn wrap(out: &mut String, indent: &str, paragraph: &str) {
    let mut column = 0;
    for word in paragraph.split_whitespace() {
        let width = word.chars().count();
        if column > 0 && column + 1 + width <= WIDTH {
            out.push(' ');
            column += 1 + width;
        } else {
            out.push_str(if column > 0 { "\r\n" } else { "" });
            out.push_str(indent);
            column = indent.len() + width;
        }
        out.push_str(word);
    }
    out.push_str("\r\n");
}

/// As a person would say it: `5 days`, `1 hour`.
fn in_words(duration: Duration) -> String {
    let minutes = duration.as_secs() / 60;
    let (count, unit) = match minutes {
        0..=119 => (minutes.max(1), "minute"),
        120..=2_879 => (minutes / 60, "hour"),
        _ => (minutes / 1_440, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_durations_as_a_person_would() {
        for (seconds, said) in [(0, "1 minute"), (600, "10 minutes"), (7_200, "2 hours"), (172_799, "47 hours"), (432_003, "5 days")] {
            assert_eq!(in_words(Duration::from_secs(seconds)), said);
        }
    }

    #[test]
    fn breaks_lines_between_words_only() {
        let mut out = String::new();
        wrap(&mut out, "  ", &format!("{} {} x", "a ".repeat(40), "y".repeat(100)));
        let lines: Vec<&str> = out.lines().collect();
        assert!(lines[0].len() <= WIDTH && lines.iter().all(|line| line.starts_with("  ")), "{lines:?}");
        assert_eq!(lines[2].trim(), "y".repeat(100));
    }
}
