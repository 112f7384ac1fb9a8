//! The catalogue of upstream replies: data in, one entry for any reply out.
//!
//! What a reply means is written in `catalogue.toml`, not in code, because Microsoft changes texts and numbers without notice; the file is
//! built in and says itself how it is read. Entries are tried in the file's order and the first that matches decides. A reply that no entry
//! knows follows its basic code, where a 5yz whose text begins with an enhanced 4.y.z counts as 4yz: doubt defers.

use std::sync::LazyLock;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use crate::mail::Class;
use crate::smtp::{EnhancedStatus, Reply};

use super::{Scope, Step};

static BUILTIN: LazyLock<Catalogue> =
    LazyLock::new(|| include_str!("catalogue.toml").parse().expect("the catalogue that is built in is well-formed: a test reads it"));

/// What the known replies mean.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    #[serde(rename = "reply")]
    entries: Vec<Entry>,
    transient: Entry,
    permanent: Entry,
}

/// What one kind of reply means.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Its name in logs.
    pub name: String,
    #[serde(default, rename = "match")]
    patterns: Vec<Pattern>,
    #[serde(default)]
    steps: Vec<StepName>,
    /// Whose trouble it is.
    #[serde(deserialize_with = "scope")]
    pub scope: Scope,
    /// What is to be done.
    pub action: Action,
    /// How long [`Action::Wait`] waits.
    #[serde(default, rename = "for", deserialize_with = "duration")]
    pub wait: Option<Duration>,
    /// The only recipients that a pause concerns, if any.
    #[serde(default, deserialize_with = "class")]
    pub class: Option<Class>,
    /// Who must do what; empty if it passes by itself.
    #[serde(default)]
    pub advice: String,
}

/// What is to be done about a reply; the catalogue's head says it in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The recipients fail, if the basic code is 5yz.
    Fail,
    /// Try again later.
    Retry,
    /// The recipients go in a transaction of their own.
    Rest,
    /// The recipients go one by one; a single one fails.
    Split,
    /// An operator must look at the message.
    Hold,
    /// Pause the scope, longer each time.
    BackOff,
    /// Pause the scope until the operator has acted.
    Suspend,
    /// Pause the scope for a known time.
    Wait,
}

/// All that is given must fit.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pattern {
    #[serde(default, deserialize_with = "codes")]
    code: Vec<u16>,
    #[serde(default, deserialize_with = "statuses")]
    status: Option<StatusRange>,
    /// In lower case.
    #[serde(default, deserialize_with = "lower_case")]
    text: Option<String>,
}

#[derive(Debug)]
struct StatusRange {
    first: EnhancedStatus,
    last: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum StepName {
    Greeting,
    Ehlo,
    Starttls,
    Auth,
    Mail,
    Rcpt,
    Data,
    Content,
    EndOfData,
}

impl Catalogue {
    /// The catalogue that comes with the relay.
    pub fn builtin() -> &'static Self {
        &BUILTIN
    }

    /// What a reply means that came at `step`.
    pub fn lookup(&self, step: Step, reply: &Reply) -> &Entry {
        let status = effective_status(reply);
        let text = reply.text().to_lowercase();
        let fits = |entry: &&Entry| entry.holds_at(step) && entry.patterns.iter().any(|pattern| pattern.fits(reply.code, status, &text));
        let disagrees = status.is_some_and(|status| status.class == 4);
        let unknown = if reply.is_permanent() && !disagrees { &self.permanent } else { &self.transient };
        self.entries.iter().find(fits).unwrap_or(unknown)
    }
}

impl std::str::FromStr for Catalogue {
    type Err = toml::de::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        toml::from_str(text)
    }
}

/// The reply's enhanced status, or the one that its text begins with although it disagrees with the basic code.
pub(super) fn effective_status(reply: &Reply) -> Option<EnhancedStatus> {
    reply.enhanced.or_else(|| reply.lines.first()?.split_whitespace().next()?.parse().ok())
}

impl Entry {
    fn holds_at(&self, step: Step) -> bool {
        self.steps.is_empty() || self.steps.iter().any(|name| name.step() == step)
    }
}

impl Pattern {
    fn fits(&self, code: u16, status: Option<EnhancedStatus>, text: &str) -> bool {
        let code_fits = self.code.is_empty() || self.code.contains(&code);
        let status_fits = self.status.as_ref().is_none_or(|range| status.is_some_and(|status| range.has(status)));
        let text_fits = self.text.as_ref().is_none_or(|part| text.contains(part));
        code_fits && status_fits && text_fits
    }
}

impl StatusRange {
    fn has(&self, status: EnhancedStatus) -> bool {
        (status.class, status.subject) == (self.first.class, self.first.subject) && (self.first.detail..=self.last).contains(&status.detail)
    }
}

impl StepName {
    fn step(self) -> Step {
        match self {
            Self::Greeting => Step::Greeting,
            Self::Ehlo => Step::Ehlo,
            Self::Starttls => Step::StartTls,
            Self::Auth => Step::Auth,
            Self::Mail => Step::Mail,
            Self::Rcpt => Step::Rcpt,
            Self::Data => Step::Data,
            Self::Content => Step::Content,
            Self::EndOfData => Step::EndOfData,
        }
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
    let text = String::deserialize(input)?;
    let (first, last) = text.split_once('-').map_or((text.as_str(), None), |(first, last)| (first, Some(last)));
    let first: EnhancedStatus = first.parse().map_err(de::Error::custom)?;
    let last = last.map_or(Ok(first.detail), str::parse).map_err(de::Error::custom)?;
    Ok(Some(StatusRange { first, last }))
}

fn lower_case<'de, D: Deserializer<'de>>(input: D) -> Result<Option<String>, D::Error> {
    String::deserialize(input).map(|text| Some(text.to_lowercase()))
}

fn duration<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
    crate::units::parse_duration(&String::deserialize(input)?).map(Some).map_err(de::Error::custom)
}

fn scope<'de, D: Deserializer<'de>>(input: D) -> Result<Scope, D::Error> {
    Ok(match String::deserialize(input)?.as_str() {
        "recipient" => Scope::Recipient,
        "message" => Scope::Message,
        "account" => Scope::Account,
        "app" => Scope::App,
        "tenant" => Scope::Tenant,
        "connection" => Scope::Connection,
        other => return Err(de::Error::unknown_variant(other, &["recipient", "message", "account", "app", "tenant", "connection"])),
    })
}

fn class<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Class>, D::Error> {
    match String::deserialize(input)?.as_str() {
        "internal" => Ok(Some(Class::Internal)),
        "external" => Ok(Some(Class::External)),
        other => Err(de::Error::unknown_variant(other, &["internal", "external"])),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_built_in_catalogue_is_consistent() {
        let catalogue = Catalogue::builtin();
        let names: BTreeSet<&str> = catalogue.entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names.len(), catalogue.entries.len(), "a name is used twice");
        for entry in &catalogue.entries {
            let pauses = matches!(entry.action, Action::BackOff | Action::Suspend | Action::Wait);
            let about_mail = matches!(entry.scope, Scope::Recipient | Scope::Message);
            assert!(!entry.patterns.is_empty(), "{} matches nothing", entry.name);
            assert!(!(pauses && about_mail), "{} pauses what cannot pause", entry.name);
            assert_eq!(entry.wait.is_some(), entry.action == Action::Wait, "{}", entry.name);
            assert!(entry.action != Action::Suspend || !entry.advice.is_empty(), "{} needs advice", entry.name);
            assert!(entry.action != Action::Fail || about_mail, "{} fails mail for trouble that is not its own", entry.name);
            assert!(entry.class.is_none() || pauses, "{} has a class without a pause", entry.name);
            for pattern in &entry.patterns {
                assert!(!pattern.code.is_empty() || pattern.status.is_some() || pattern.text.is_some(), "{} matches all", entry.name);
                assert!(pattern.status.as_ref().is_none_or(|range| range.first.detail <= range.last), "{}", entry.name);
            }
        }
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let tail = "[transient]\nname='t'\nscope='message'\naction='retry'\n[permanent]\nname='p'\nscope='message'\naction='fail'\n";
        for bad in [
            "scope='galaxy'\naction='fail'",
            "scope='message'\naction='explode'",
            "scope='message'\naction='fail'\nfoo=1",
            "scope='account'\naction='wait'\nfor='soon'",
            "scope='message'\naction='fail'\nmatch=[{status='5.7'}]",
            "scope='message'\naction='fail'\nsteps=['connect']",
            "scope='message'\naction='fail'\nclass='other'",
        ] {
            assert!(format!("[[reply]]\nname='x'\n{bad}\n{tail}").parse::<Catalogue>().is_err(), "{bad}");
        }
    }

    #[test]
    fn where_the_numbers_disagree_the_text_decides() {
        let name = |line: &str| {
            let reply = Reply::parse([line]).expect(line);
            Catalogue::builtin().lookup(Step::EndOfData, &reply).name.clone()
        };
        assert_eq!(name("550 4.5.104 Message rejected. Excessive message rate from sender."), "external-rate");
        assert_eq!(name("550 5.2.252 Sender throttled due to continuous unknown-recipient errors"), "account-punished");
        assert_eq!(name("554 5.2.252 SendAsDenied"), "sender-differs");
        assert_eq!(name("550 5.2.252 SendAsDenied"), "sender-differs");
        assert_eq!(name("554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException"), "submission-quota");
        assert_eq!(name("550 4.4.999 whatever"), "unknown-transient");
        assert_eq!(name("450 5.9.9 whatever"), "unknown-transient");
        assert_eq!(name("550 whatever"), "unknown-permanent");
    }
}
