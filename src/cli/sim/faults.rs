//! The file of faults: what goes wrong on purpose, for whom, when and how often.
//!
//! ```toml
//! [[fault]]
//! at = "rcpt"                          # where in the dialogue
//! recipient = "full@contoso.com"       # only for this recipient; account = "…" for one account
//! reply = "452 4.2.2 Mailbox full"     # or action = "drop", "take-and-drop" or "silence"; or delay = "5s"
//! first = 3                            # only the first three times; nth = 3: only the third time
//! from = "1m"                          # only in this time since the start, or since the file was read again
//! until = "5m"
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use crate::sim::{Action, Fault, Step, Times};
use crate::units::parse_duration;

/// Why a file of faults cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// It cannot be read.
    #[error("{}: {why}", file.display())]
    Unreadable { file: PathBuf, why: std::io::Error },
    /// It is not the TOML that it should be.
    #[error("{}: {why}", file.display())]
    Malformed { file: PathBuf, why: Box<toml::de::Error> },
    /// A fault does not say what it must.
    #[error("{}:{line}: {what}", file.display())]
    Fault { file: PathBuf, line: usize, what: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    fault: Vec<Spanned<Written>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    at: String,
    after_octets: Option<u64>,
    account: Option<String>,
    recipient: Option<String>,
    reply: Option<String>,
    action: Option<String>,
    delay: Option<String>,
    first: Option<u32>,
    nth: Option<u32>,
    from: Option<String>,
    until: Option<String>,
}

const STEPS: &[(&str, Step)] = &[
    ("greeting", Step::Greeting),
    ("ehlo", Step::Ehlo),
    ("starttls", Step::StartTls),
    ("tls", Step::Tls),
    ("ehlo-in-tls", Step::EhloInTls),
    ("auth", Step::Auth),
    ("mail", Step::Mail),
    ("rcpt", Step::Rcpt),
    ("data", Step::Data),
    ("content", Step::Content { after: 0 }),
    ("end-of-data", Step::EndOfData),
];
const ACTIONS: &[(&str, Action)] = &[("drop", Action::Drop), ("take-and-drop", Action::TakeAndDrop), ("silence", Action::Silence)];

/// Reads a file of faults.
pub(super) fn read(file: &Path) -> Result<Vec<Fault>, Error> {
    let text = fs::read_to_string(file).map_err(|why| Error::Unreadable { file: file.to_owned(), why })?;
    parse(file, &text)
}

fn parse(file: &Path, text: &str) -> Result<Vec<Fault>, Error> {
    let document: Document = toml::from_str(text).map_err(|why| Error::Malformed { file: file.to_owned(), why: Box::new(why) })?;
    let fault = |written: Spanned<Written>| {
        let line = text[..written.span().start].matches('\n').count() + 1;
        resolve(written.into_inner()).map_err(|what| Error::Fault { file: file.to_owned(), line, what })
    };
    document.fault.into_iter().map(fault).collect()
}

fn resolve(written: Written) -> Result<Fault, String> {
    let when = match (choice("at", &written.at, STEPS)?, written.after_octets) {
        (Step::Content { .. }, after) => Step::Content { after: after.unwrap_or(0) },
        (_, Some(_)) => return Err("after_octets belongs to at = \"content\"".to_owned()),
        (step, None) => step,
    };
    let action = match (written.reply, written.action, written.delay) {
        (Some(reply), None, None) => Action::Reply(checked(reply)?),
        (None, Some(action), None) => choice("action", &action, ACTIONS)?,
        (None, None, Some(delay)) => Action::Delay(time("delay", &delay)?),
        _ => return Err("write one of reply = \"451 4.7.0 Try again\", action = \"drop\" and delay = \"5s\"".to_owned()),
    };
    let times = match (written.first, written.nth) {
        (None, None) => Times::Always,
        (Some(times), None) => Times::First(times),
        (None, Some(0)) => return Err("nth counts from 1".to_owned()),
        (None, Some(time)) => Times::Nth(time),
        (Some(_), Some(_)) => return Err("write first or nth, not both".to_owned()),
    };
    let from = written.from.as_deref().map(|text| time("from", text)).transpose()?;
    let until = written.until.as_deref().map(|text| time("until", text)).transpose()?;
    let between = (from.is_some() || until.is_some()).then(|| from.unwrap_or_default()..until.unwrap_or(Duration::MAX));
    if between.as_ref().is_some_and(|between| between.is_empty()) {
        return Err("from must be before until".to_owned());
    }
    Ok(Fault { when, account: written.account, recipient: written.recipient, between, times, action })
}

fn choice<T: Clone>(key: &str, word: &str, choices: &[(&str, T)]) -> Result<T, String> {
    let found = choices.iter().find(|(name, _)| *name == word).map(|(_, value)| value.clone());
    found.ok_or_else(|| {
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
        format!("{key} = {word:?}: write one of {}", names.join(", "))
    })
}

fn time(key: &str, text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| format!("{key} = {text:?}: {error}"))
}

/// Each line of a reply needs its code, or a client would wait for the rest of it.
fn checked(reply: String) -> Result<String, String> {
    let is_line = |line: &str| {
        let (code, rest) = line.split_at_checked(3).unwrap_or((line, ""));
        code.parse::<u16>().is_ok_and(|code| (200..600).contains(&code)) && (rest.is_empty() || rest.starts_with([' ', '-']))
    };
    let last = reply.lines().last().unwrap_or_default();
    if reply.is_empty() || !reply.lines().all(is_line) || last[3..].starts_with('-') {
        return Err(format!(
            "reply = {reply:?}: write a code and a text, such as \"451 4.7.0 Try again\"; several lines have each their code"
        ));
    }
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<Fault, String> {
        parse(Path::new("faults.toml"), &format!("[[fault]]\n{text}")).map(|mut faults| faults.remove(0)).map_err(|error| error.to_string())
    }

    #[test]
    fn says_what_a_fault_can_say() {
        let seconds = Duration::from_secs;
        for (text, fault) in [
            (
                "at = \"rcpt\"\nrecipient = \"a@b.c\"\nreply = \"452 4.2.2 Full\"\nfirst = 3",
                Fault::reply(Step::Rcpt, "452 4.2.2 Full").recipient("a@b.c").first(3),
            ),
            (
                "at = \"auth\"\naccount = \"a@b.c\"\naction = \"silence\"\nnth = 2",
                Fault::new(Step::Auth, Action::Silence).account("a@b.c").nth(2),
            ),
            (
                "at = \"content\"\nafter_octets = 100\naction = \"drop\"\nfrom = \"10s\"\nuntil = \"1m\"",
                Fault::new(Step::Content { after: 100 }, Action::Drop).between(seconds(10)..seconds(60)),
            ),
            ("at = \"greeting\"\ndelay = \"5s\"\nfrom = \"3s\"", {
                Fault::new(Step::Greeting, Action::Delay(seconds(5))).between(seconds(3)..Duration::MAX)
            }),
        ] {
            assert_eq!(one(text), Ok(fault), "{text}");
        }
    }

    #[test]
    fn says_where_a_fault_is_wrong_and_what_to_write() {
        for (text, wanted) in [
            ("at = \"helo\"\nreply = \"451 x\"", "faults.toml:1: at = \"helo\": write one of \"greeting\""),
            ("at = \"rcpt\"", "write one of reply"),
            ("at = \"rcpt\"\nreply = \"451 x\"\naction = \"drop\"", "write one of reply"),
            ("at = \"rcpt\"\nreply = \"try later\"", "write a code and a text"),
            ("at = \"rcpt\"\nreply = \"451-x\"", "write a code and a text"),
            ("at = \"rcpt\"\nreply = \"4ß1 x\"", "write a code and a text"),
            ("at = \"rcpt\"\naction = \"explode\"", "write one of \"drop\""),
            ("at = \"rcpt\"\ndelay = \"soon\"", "a duration is"),
            ("at = \"rcpt\"\naction = \"drop\"\nfirst = 1\nnth = 1", "first or nth"),
            ("at = \"rcpt\"\naction = \"drop\"\nnth = 0", "counts from 1"),
            ("at = \"rcpt\"\naction = \"drop\"\nafter_octets = 1", "belongs to"),
            ("at = \"rcpt\"\naction = \"drop\"\nfrom = \"2m\"\nuntil = \"1m\"", "before until"),
            ("at = \"rcpt\"\naction = \"drop\"\nwhen = 1", "unknown field `when`"),
            ("action = \"drop\"", "missing field `at`"),
        ] {
            let error = one(text).expect_err(text);
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
