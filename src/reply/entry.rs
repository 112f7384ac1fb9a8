//! One entry of the catalogue: which replies it is about, and what they mean.
//!
//! The words in which entries are written, in `catalogue.toml` and in the configuration, are tables here, so that there is one list of each.
//! [`Entry::flaw`] says what is wrong with an entry whose single values are right: that a recipient cannot pause, that only waiting has a time.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use crate::budget::LimitName;
use crate::mail::Class;
use crate::smtp::EnhancedStatus;

use super::{Scope, Step};

/// What one kind of reply means.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its name in logs; no two entries of a catalogue have the same.
    #[serde(deserialize_with = "name")]
    pub name: Arc<str>,
    /// One of them must fit.
    #[serde(default, rename = "match")]
    pub patterns: Vec<Pattern>,
    /// Where it holds; empty: everywhere.
    #[serde(default, deserialize_with = "steps")]
    pub steps: Vec<Step>,
    /// Whose trouble it is.
    #[serde(deserialize_with = "scope")]
    pub scope: Scope,
    /// What is to be done.
    #[serde(deserialize_with = "action")]
    pub action: Action,
    /// How long [`Action::Wait`] waits, and how often a scope that [`Action::Suspend`] closes is tried, if not as the settings say.
    #[serde(default, rename = "for", deserialize_with = "duration")]
    pub wait: Option<Duration>,
    /// The only recipients that a pause concerns, if any.
    #[serde(default, deserialize_with = "class")]
    pub class: Option<Class>,
    /// The limit that the server says is used up, if it says so of one that the relay counts too.
    #[serde(default, deserialize_with = "limit")]
    pub limit: Option<LimitName>,
    /// Who must do what; empty if it passes by itself.
    #[serde(default)]
    pub advice: String,
}

/// What is to be done about a reply; the catalogue's head says it in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The recipients fail, if the basic code is 5yz.
    Fail,
    /// Try again later.
    Retry,
    /// The recipients go in a transaction of their own.
    Rest,
    /// The recipients go one by one; a single one fails.
    Split,
    /// The recipients go by another route if one takes them, else they fail, if the basic code is 5yz.
    Reroute,
    /// An operator must look at the message.
    Hold,
    /// Use fewer connections at a time.
    FewerConnections,
    /// Pause the scope, longer each time.
    BackOff,
    /// Pause the scope until the operator has acted.
    Suspend,
    /// Pause the scope for a known time.
    Wait,
}

/// Which replies: all that is given must fit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pattern {
    /// The reply code is one of these; empty: any.
    #[serde(default, deserialize_with = "codes")]
    pub code: Vec<u16>,
    /// The enhanced status is one of these.
    #[serde(default, deserialize_with = "statuses")]
    pub status: Option<StatusRange>,
    /// This is in the text, in whatever case.
    #[serde(default)]
    pub text: Option<String>,
}

/// Enhanced statuses that differ in their last number alone: `5.7.1`, or `5.5.121-126`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusRange {
    class: u8,
    subject: u16,
    details: RangeInclusive<u16>,
}

/// What is wrong with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flaw {
    /// The key that is to be corrected.
    pub key: &'static str,
    /// What was found.
    pub found: &'static str,
    /// What to write.
    pub hint: &'static str,
}

impl Scope {
    /// Every scope, as it is written.
    pub const WORDS: &'static [(&'static str, Self)] = &[
        ("recipient", Self::Recipient),
        ("message", Self::Message),
        ("account", Self::Account),
        ("app", Self::App),
        ("tenant", Self::Tenant),
        ("connection", Self::Connection),
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        word(Self::WORDS, self)
    }
}

impl Action {
    /// Every action, as it is written.
    pub const WORDS: &'static [(&'static str, Self)] = &[
        ("fail", Self::Fail),
        ("retry", Self::Retry),
        ("rest", Self::Rest),
        ("split", Self::Split),
        ("reroute", Self::Reroute),
        ("hold", Self::Hold),
        ("fewer-connections", Self::FewerConnections),
        ("back-off", Self::BackOff),
        ("suspend", Self::Suspend),
        ("wait", Self::Wait),
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        word(Self::WORDS, self)
    }

    /// Whether it keeps mail away from its scope.
    fn pauses(self) -> bool {
        matches!(self, Self::FewerConnections | Self::BackOff | Self::Suspend | Self::Wait)
    }
}

impl Step {
    /// The steps at which a server replies, as they are written.
    pub const WORDS: &'static [(&'static str, Self)] = &[
        ("greeting", Self::Greeting),
        ("ehlo", Self::Ehlo),
        ("starttls", Self::StartTls),
        ("auth", Self::Auth),
        ("mail", Self::Mail),
        ("rcpt", Self::Rcpt),
        ("data", Self::Data),
        ("content", Self::Content),
        ("end-of-data", Self::EndOfData),
    ];
}

/// The word for a value. Every value has one: a test goes through them.
fn word<T: PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, meaning)| *meaning == value).map_or("", |(word, _)| word)
}

/// The classes of recipients, as they are written.
const CLASSES: &[(&str, Class)] = &[("internal", Class::Internal), ("external", Class::External)];

impl Entry {
    /// Whether it is about a reply that came at a step.
    pub(super) fn fits(&self, step: Step, code: u16, status: Option<EnhancedStatus>, text: &str) -> bool {
        let holds = self.steps.is_empty() || self.steps.contains(&step);
        holds && self.patterns.iter().any(|pattern| pattern.fits(code, status, text))
    }

    /// What is wrong with it, if anything.
    pub fn flaw(&self) -> Option<Flaw> {
        let about_mail = matches!(self.scope, Scope::Recipient | Scope::Message);
        let wrong = |key, found, hint| Some(Flaw { key, found, hint });
        match self.action {
            _ if self.patterns.is_empty() => wrong("match", "it matches nothing", "write match = [{ status = \"5.7.3\" }]"),
            _ if self.patterns.contains(&Pattern::default()) => {
                wrong("match", "a pattern without code, status and text would match every reply", "give each at least one of them")
            }
            action if action.pauses() && about_mail => wrong(
                "action",
                "a recipient or a message cannot pause",
                "write fail, retry, rest, split, reroute or hold, or another scope",
            ),
            Action::FewerConnections if self.scope != Scope::Account => {
                wrong("scope", "connections are counted by account", "write scope = \"account\"")
            }
            Action::Fail | Action::Rest | Action::Split | Action::Reroute | Action::Hold if !about_mail => wrong(
                "action",
                "mail does not answer for the trouble of others",
                "write retry, wait, back-off or suspend, or another scope",
            ),
            Action::Wait if self.wait.is_none() => wrong("for", "nothing says how long to wait", "write for = \"10m\""),
            Action::Wait | Action::Suspend => self.flaw_of_a_pause(),
            _ if self.wait.is_some() => wrong("for", "only wait and suspend have a time", "remove it, or write action = \"wait\""),
            _ => self.flaw_of_a_pause(),
        }
    }

    fn flaw_of_a_pause(&self) -> Option<Flaw> {
        let wrong = |key, found, hint| Some(Flaw { key, found, hint });
        let outside = matches!(self.limit, Some(LimitName::ExternalPerMinute | LimitName::ExternalRecipientsPerDay));
        let counted = matches!(self.scope, Scope::Account | Scope::Tenant);
        match self.action {
            Action::Suspend if self.advice.is_empty() => {
                wrong("advice", "nobody is told what must be done before it goes on", "write a sentence for the operator")
            }
            action if self.class.is_some() && (!action.pauses() || action == Action::FewerConnections) => {
                wrong("class", "only a pause concerns one class of recipients", "remove it, or write wait, back-off or suspend")
            }
            Action::Wait | Action::BackOff if self.limit.is_some() && !counted => {
                wrong("limit", "limits are counted by account and for the tenant", "write one of these as the scope, or remove the limit")
            }
            Action::Wait | Action::BackOff if outside && self.class != Some(Class::External) => {
                wrong("class", "this limit is used up for external recipients alone", "write class = \"external\"")
            }
            Action::Wait | Action::BackOff => None,
            _ if self.limit.is_some() => {
                wrong("limit", "a limit that is used up frees by itself", "write action = \"wait\" or \"back-off\"")
            }
            _ => None,
        }
    }
}

impl Pattern {
    /// `text` is in lower case.
    fn fits(&self, code: u16, status: Option<EnhancedStatus>, text: &str) -> bool {
        let code_fits = self.code.is_empty() || self.code.contains(&code);
        let status_fits = self.status.as_ref().is_none_or(|range| status.is_some_and(|status| range.has(status)));
        let text_fits = self.text.as_ref().is_none_or(|part| text.contains(&part.to_lowercase()));
        code_fits && status_fits && text_fits
    }
}

impl StatusRange {
    fn has(&self, status: EnhancedStatus) -> bool {
        (status.class, status.subject) == (self.class, self.subject) && self.details.contains(&status.detail)
    }
}

/// A text that is no enhanced status and no range of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an enhanced status such as 5.7.3, nor a range such as 5.5.121-126")]
pub struct NotAStatusRange;

impl std::str::FromStr for StatusRange {
    type Err = NotAStatusRange;

    fn from_str(text: &str) -> Result<Self, NotAStatusRange> {
        let (first, last) = text.split_once('-').map_or((text, None), |(first, last)| (first, Some(last)));
        let EnhancedStatus { class, subject, detail } = first.parse().map_err(|_| NotAStatusRange)?;
        let last = last.map_or(Ok(detail), |last| last.parse().map_err(|_| NotAStatusRange))?;
        if (detail..=999).contains(&last) { Ok(Self { class, subject, details: detail..=last }) } else { Err(NotAStatusRange) }
    }
}

fn codes<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<u16>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Codes {
        One(u16),
        Several(Vec<u16>),
    }
    Ok(match Codes::deserialize(input)? {
        Codes::One(code) => vec![code],
        Codes::Several(codes) => codes,
    })
}

fn statuses<'de, D: Deserializer<'de>>(input: D) -> Result<Option<StatusRange>, D::Error> {
    String::deserialize(input)?.parse().map(Some).map_err(de::Error::custom)
}

fn name<'de, D: Deserializer<'de>>(input: D) -> Result<Arc<str>, D::Error> {
    String::deserialize(input).map(Arc::from)
}

fn duration<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
    crate::units::parse_duration(&String::deserialize(input)?).map(Some).map_err(de::Error::custom)
}

fn steps<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<Step>, D::Error> {
    Vec::<String>::deserialize(input)?.iter().map(|text| meaning(text, Step::WORDS)).collect()
}

fn scope<'de, D: Deserializer<'de>>(input: D) -> Result<Scope, D::Error> {
    meaning(&String::deserialize(input)?, Scope::WORDS)
}

fn action<'de, D: Deserializer<'de>>(input: D) -> Result<Action, D::Error> {
    meaning(&String::deserialize(input)?, Action::WORDS)
}

fn class<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Class>, D::Error> {
    meaning(&String::deserialize(input)?, CLASSES).map(Some)
}

fn limit<'de, D: Deserializer<'de>>(input: D) -> Result<Option<LimitName>, D::Error> {
    String::deserialize(input)?.parse().map(Some).map_err(de::Error::custom)
}

fn meaning<T: Copy, E: de::Error>(text: &str, words: &[(&str, T)]) -> Result<T, E> {
    let known = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
    known.ok_or_else(|| {
        E::custom(format_args!("{text:?} is none of {}", words.iter().map(|(word, _)| *word).collect::<Vec<_>>().join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> Result<Entry, toml::de::Error> {
        toml::from_str(&format!("name = 'x'\n{text}"))
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for bad in [
            "scope='galaxy'\naction='fail'",
            "scope='message'\naction='explode'",
            "scope='message'\naction='fail'\nfoo=1",
            "scope='account'\naction='wait'\nfor='soon'",
            "scope='message'\naction='fail'\nmatch=[{status='5.7'}]",
            "scope='message'\naction='fail'\nmatch=[{status='5.7.9-3'}]",
            "scope='message'\naction='fail'\nmatch=[{status='5.7.9-1000'}]",
            "scope='message'\naction='fail'\nsteps=['connect']",
            "scope='message'\naction='fail'\nclass='other'",
            "scope='account'\naction='wait'\nfor='1m'\nlimit='patience'",
        ] {
            assert!(entry(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_an_entry_whose_values_are_right() {
        for (text, key) in [
            ("scope='message'\naction='fail'", Some("match")),
            ("scope='message'\naction='fail'\nmatch=[{}]", Some("match")),
            ("scope='message'\naction='suspend'\nmatch=[{code=1}]", Some("action")),
            ("scope='account'\naction='fail'\nmatch=[{code=1}]", Some("action")),
            ("scope='tenant'\naction='fewer-connections'\nmatch=[{code=1}]", Some("scope")),
            ("scope='account'\naction='wait'\nmatch=[{code=1}]", Some("for")),
            ("scope='account'\naction='back-off'\nfor='1m'\nmatch=[{code=1}]", Some("for")),
            ("scope='account'\naction='suspend'\nmatch=[{code=1}]", Some("advice")),
            ("scope='message'\naction='fail'\nclass='internal'\nmatch=[{code=1}]", Some("class")),
            ("scope='message'\naction='fail'\nlimit='messages_per_minute'\nmatch=[{code=1}]", Some("limit")),
            ("scope='connection'\naction='wait'\nfor='1m'\nlimit='messages_per_minute'\nmatch=[{code=1}]", Some("limit")),
            ("scope='account'\naction='wait'\nfor='1m'\nlimit='external_per_minute'\nmatch=[{code=1}]", Some("class")),
            ("scope='account'\naction='suspend'\nfor='1h'\nadvice='Act.'\nclass='external'\nmatch=[{code=1}]", None),
            ("scope='tenant'\naction='back-off'\nlimit='messages_per_minute'\nmatch=[{code=1}]", None),
            ("scope='account'\naction='fewer-connections'\nmatch=[{code=1}]", None),
            ("scope='connection'\naction='retry'\nmatch=[{code=1}]", None),
        ] {
            assert_eq!(entry(text).expect(text).flaw().map(|flaw| flaw.key), key, "{text}");
        }
    }

    #[test]
    fn every_value_has_its_word() {
        for (word, scope) in Scope::WORDS {
            assert_eq!(scope.as_str(), *word);
        }
        for (word, action) in Action::WORDS {
            assert_eq!(action.as_str(), *word);
        }
    }
}
