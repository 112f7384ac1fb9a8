//! What upstream servers' replies mean beyond what the relay knows: `[[reply]]`.
//!
//! The keys are those of the built-in catalogue (`src/reply/catalogue.toml`); what makes sense together is the reply room's own word.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use super::inbound::unique;
use super::problem::{At, Findings};
use super::reader::{Document, Section};
use super::value::{self, Wrong};
use crate::budget::LimitName;
use crate::mail::Class;
use crate::reply::{Action, Entry, Pattern, Scope, Step};

const CLASSES: &[(&str, Class)] = &[("internal", Class::Internal), ("external", Class::External)];
const LIMITS: &[(&str, LimitName)] = &[
    ("recipients_per_day", LimitName::RecipientsPerDay),
    ("external_recipients_per_day", LimitName::ExternalRecipientsPerDay),
    ("external_per_minute", LimitName::ExternalPerMinute),
    ("messages_per_minute", LimitName::MessagesPerMinute),
    ("minimum_pause", LimitName::MinimumPause),
];
/// RFC 5321 §4.2: the codes of refusals.
const CODES: RangeInclusive<u64> = 400..=599;
const TIME: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);
const PATTERN: &str = "match = [{ code = 550, status = \"5.7.3\", text = \"words of the reply\" }], with at least one of the three in each";

/// The entries that are tried before the built-in ones, in the file's order.
pub(super) fn replies(document: &Document<'_>, findings: &Findings<'_>) -> Vec<Entry> {
    let mut names: Vec<At<String>> = Vec::new();
    let mut entries = Vec::new();
    for section in &document.many("reply") {
        let name = section.need("name", value::name, "name = \"my-reply\"");
        if let Some(name) = &name {
            unique(name, &names, findings);
        }
        entries.extend(entry(section, name.as_ref(), findings));
        names.extend(name);
    }
    entries
}

/// One entry; none if a problem was reported that leaves no meaning.
fn entry(section: &Section<'_>, name: Option<&At<String>>, findings: &Findings<'_>) -> Option<Entry> {
    let patterns = section.need_list("match", pattern, PATTERN);
    let steps = section.list("steps", value::choice("a step", Step::WORDS), "steps = [\"rcpt\"], or leave it out");
    let scope = section.need("scope", value::choice("a scope", Scope::WORDS), "scope = \"account\"");
    let action = section.need("action", value::choice("an action", Action::WORDS), "action = \"wait\"");
    let wait = section.get("for", value::duration(TIME));
    let class = section.get("class", value::choice("a class of recipients", CLASSES));
    let limit = section.get("limit", value::choice("a limit", LIMITS));
    let advice = section.get("advice", sentence);
    // What was written and could not be read is no reason to say that it is missing.
    let read = [
        (section.has("match"), !patterns.is_empty()),
        (section.has("for"), wait.is_some()),
        (section.has("class"), class.is_some()),
        (section.has("limit"), limit.is_some()),
        (section.has("advice"), advice.is_some()),
    ];
    if read.iter().any(|(written, read)| *written && !*read) || patterns.is_empty() {
        return None;
    }
    let entry = Entry {
        name: name?.value.as_str().into(),
        patterns: patterns.into_iter().map(|pattern| pattern.value).collect(),
        steps: steps.map(|steps| steps.value.into_iter().map(|step| step.value).collect()).unwrap_or_default(),
        scope: scope?.value,
        action: action?.value,
        wait: wait.map(|wait| wait.value),
        class: class.map(|class| class.value),
        limit: limit.map(|limit| limit.value),
        advice: advice.map(|advice| advice.value).unwrap_or_default(),
    };
    if let Some(flaw) = entry.flaw() {
        findings.problem(&section.place_of(flaw.key), flaw.found, flaw.hint);
    }
    Some(entry)
}

/// `{ code = 550, status = "5.7.3", text = "..." }`
fn pattern(written: &DeValue<'_>) -> Result<Pattern, Wrong> {
    let Some(table) = written.as_table() else { return Err(Wrong::is_not(written, "a pattern", format!("write {PATTERN}"))) };
    let mut pattern = Pattern::default();
    for (key, value) in table {
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("code", DeValue::Array(codes)) => {
                pattern.code = codes.iter().map(|code| self::code(code.get_ref())).collect::<Result<_, _>>()?;
            }
            ("code", one) => pattern.code = vec![code(one)?],
            ("status", status) => {
                let range = status.as_str().and_then(|text| text.parse().ok());
                let hint = "write one such as \"5.7.3\", or \"5.5.121-126\" for several that differ in the last number";
                pattern.status = Some(range.ok_or_else(|| Wrong::is_not(status, "an enhanced status", hint))?);
            }
            ("text", text) => pattern.text = Some(sentence(text)?),
            (other, _) => {
                return Err(Wrong { found: format!("a pattern has no {other:?}"), hint: "write code, status or text".to_owned() });
            }
        }
    }
    Ok(pattern)
}

fn code(value: &DeValue<'_>) -> Result<u16, Wrong> {
    let number = value::number(CODES)(value).map_err(|_| Wrong::is_not(value, "the code of a refusal", "write one from 400 to 599"))?;
    Ok(u16::try_from(number).unwrap_or_default())
}

/// Words on one line.
fn sentence(value: &DeValue<'_>) -> Result<String, Wrong> {
    let fits = |text: &&str| !text.trim().is_empty() && text.len() <= 500 && !text.contains(char::is_control);
    let text = value.as_str().filter(fits).map(str::to_owned);
    text.ok_or_else(|| Wrong::is_not(value, "a sentence", "write up to 500 letters on one line, in quotes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_can_be_named() {
        assert_eq!(LIMITS.iter().map(|(_, limit)| *limit).collect::<Vec<_>>(), LimitName::ALL);
        assert!(LIMITS.iter().all(|(word, limit)| *word == limit.as_str()));
    }
}
