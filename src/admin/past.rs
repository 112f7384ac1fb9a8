//! What became of mail: questions about the past, and the answers as they go over the wire.

use serde::{Deserialize, Serialize};

use super::{DeliveryEntry, Letter, Refusal, Time};
use crate::clock::Timestamp;
use crate::mail::{Kind, QueueId};
use crate::reply::upstream_id;
use crate::store::history::{Chapter, Group, LIMIT_MAX, Left, Line, Past, Search, Story, What};
use crate::units::parse_duration;

/// Stories in one answer, where nothing else is asked for.
pub const STORIES: usize = 20;

/// The query of `GET /v1/trace`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceQuery {
    /// A queue id, a Message-ID, an address, a client, or words of a subject; without it everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// Only what came in since then: a span before now (`2d`), a day (`2026-11-21`), or a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Only what failed for a recipient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<bool>,
    /// Only what came in before this message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// At most so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// What became of messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// When this was so.
    pub now: Time,
    /// The messages, newest first.
    pub stories: Vec<StoryEntry>,
    /// There may be more that came in before this message.
    pub next: Option<String>,
}

/// A message and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoryEntry {
    /// The message.
    pub message: Letter,
    /// Recipients whose server has it.
    pub sent: usize,
    /// Recipients that never get it.
    pub failed: usize,
    /// Recipients from whom an operator has removed it.
    pub removed: usize,
    /// Recipients that wait.
    pub waiting: usize,
    /// Its deliveries with all attempts.
    pub deliveries: Vec<PastEntry>,
    /// Its deliveries that are queued, with the reason and until when.
    pub queued: Vec<DeliveryEntry>,
}

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastEntry {
    /// Its name: queue id, dot, number.
    pub id: String,
    /// `internal` or `external`; empty if it is not known.
    pub class: String,
    /// Where it went.
    pub route: String,
    /// Its recipients.
    pub recipients: Vec<String>,
    /// What was tried, in order.
    pub attempts: Vec<AttemptEntry>,
}

/// One answer to one attempt; an attempt with several is told several times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptEntry {
    /// When it began.
    pub started: Time,
    /// When it ended.
    pub ended: Time,
    /// On which account; empty if it was no attempt, or the account is not known.
    pub account: String,
    /// With which server, `host:port`.
    pub relay: String,
    /// As whom it went out, in MAIL FROM and From; empty if as it was.
    pub sender: String,
    /// What came of it: `sent`, `deferred`, `failed`, `expired`, `removed` or `in-doubt`.
    pub result: String,
    /// The status (RFC 3463).
    pub status: String,
    /// At which step of the dialogue.
    pub step: String,
    /// The server's whole reply, or what happened instead.
    pub reply: String,
    /// The server's own name for the message, if it took it and said so: the key into its message trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_id: Option<String>,
    /// Whom this answer is about.
    pub recipients: Vec<String>,
    /// The earliest time of the next attempt, if there was to be one.
    pub retry: Option<Time>,
}

/// The query of `GET /v1/report`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportQuery {
    /// `client`, `account`, `sender`, `day` or `class`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Of which month, `2026-11`; without it of the present one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub month: Option<String>,
}

/// A month, added up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// When this was so.
    pub now: Time,
    /// The month, `2026-11`, in UTC.
    pub month: String,
    /// By what it is added up.
    pub by: String,
    /// What a million recipients cost.
    pub price_per_million: f64,
    /// One for each group.
    pub lines: Vec<ReportLine>,
}

/// One group of a report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReportLine {
    /// Its name; empty: none.
    pub name: String,
    /// Messages that came in.
    pub messages: u64,
    /// Recipients whose server has the message.
    pub recipients: u64,
    /// Octets of these messages, once for each delivery.
    pub bytes: u64,
    /// Recipients that never get it.
    pub failed: u64,
    /// How often a recipient was deferred.
    pub deferrals: u64,
    /// Seconds from acceptance to delivery, for a recipient in the middle; none: nothing was delivered.
    pub median: Option<f64>,
    /// The same for the slowest of a hundred.
    pub p99: Option<f64>,
    /// What the recipients cost.
    pub cost: f64,
}

/// A month of the calendar, in UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Month {
    /// As it is written: `2026-11`.
    pub name: String,
    /// Its beginning.
    pub from: Timestamp,
    /// The beginning of the next.
    pub until: Timestamp,
}

impl TraceQuery {
    /// What the history is asked.
    ///
    /// # Errors
    /// If something of it makes no sense.
    pub fn search(&self, now: Timestamp) -> Result<Search, Refusal> {
        let limit = self.limit.unwrap_or(STORIES);
        if limit == 0 || limit > LIMIT_MAX {
            return Err(Refusal::Invalid(format!("limit is a number from 1 to {LIMIT_MAX}")));
        }
        let before = |text: &String| {
            text.parse::<QueueId>().map_err(|_| Refusal::Invalid(format!("{text:?} is not a queue id, and before needs one")))
        };
        Ok(Search {
            what: What::read(self.what.as_deref().unwrap_or_default()),
            since: self.since.as_deref().map(|text| since(text, now)).transpose()?,
            failed: self.failed.unwrap_or_default(),
            before: self.before.as_ref().map(before).transpose()?,
            limit,
        })
    }
}

fn since(text: &str, now: Timestamp) -> Result<Timestamp, Refusal> {
    let ago = || parse_duration(text).ok().map(|span| now - span);
    let time = || text.parse::<jiff::Timestamp>().ok().map(|time| Timestamp::from_millis(time.as_millisecond()));
    let found = ago().or_else(|| Timestamp::from_date(text)).or_else(time);
    found.ok_or_else(|| {
        Refusal::Invalid(format!(
            "since is a span such as 2d or 90m, a day such as 2026-11-21, or a time such as 2026-11-21T08:00:00Z, and not {text:?}"
        ))
    })
}

impl Month {
    /// From how it is written; nothing is the present one.
    ///
    /// # Errors
    /// If it is no month.
    pub fn read(text: Option<&str>, now: Timestamp) -> Result<Self, Refusal> {
        let name = text.map_or_else(|| now.date().chars().take(7).collect(), str::to_owned);
        let invalid = || Refusal::Invalid(format!("a month is written as 2026-11, and not {name:?}"));
        let (year, month) = name.split_once('-').filter(|_| name.len() == 7).ok_or_else(invalid)?;
        let (year, month): (u16, u16) = year.parse().ok().zip(month.parse().ok()).ok_or_else(invalid)?;
        let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
        let first = |year: u16, month: u16| Timestamp::from_date(&format!("{year:04}-{month:02}-01")).ok_or_else(invalid);
        Ok(Self { from: first(year, month)?, until: first(next_year, next_month)?, name })
    }
}

/// By what a report is added up; by client if nothing is said.
///
/// # Errors
/// If there is no such thing; the text names those that there are.
pub fn group(text: Option<&str>) -> Result<Group, Refusal> {
    let Some(text) = text else { return Ok(Group::Client) };
    let words = || Group::ALL.map(Group::as_str).join(", ");
    let found = Group::ALL.into_iter().find(|group| group.as_str() == text);
    found.ok_or_else(|| Refusal::Invalid(format!("a report is by one of {}, and not by {text:?}", words())))
}

/// A line of a report.
pub fn report_line(line: Line, price_per_million: f64) -> ReportLine {
    let Line { name, messages, sent, octets, failed, deferrals, median, p99 } = line;
    let cost = sent as f64 * price_per_million / 1e6;
    let seconds = |span: Option<std::time::Duration>| span.map(|span| span.as_secs_f64());
    ReportLine { name, messages, recipients: sent, bytes: octets, failed, deferrals, median: seconds(median), p99: seconds(p99), cost }
}

/// A story, with what is queued of it.
pub fn story(now: Timestamp, story: &Story, queued: Vec<DeliveryEntry>) -> StoryEntry {
    let Story { message, chapters } = story;
    let (mut sent, mut failed, mut removed) = (0, 0, 0);
    for Chapter { answer, .. } in chapters {
        let count = answer.ordinals.len();
        match answer.left {
            Left::Sent => sent += count,
            Left::Failed | Left::Expired => failed += count,
            Left::Removed => removed += count,
            Left::Deferred | Left::InDoubt => {}
        }
    }
    let deliveries = message.deliveries.iter().map(|delivery| PastEntry {
        id: format!("{}.{}", message.id, delivery.part),
        class: delivery.class.to_string(),
        route: delivery.route.clone(),
        recipients: delivery.recipients.iter().flatten().cloned().collect(),
        attempts: chapters.iter().filter(|chapter| chapter.part == delivery.part).map(|chapter| attempt(message, chapter)).collect(),
    });
    let deliveries = deliveries.collect();
    let waiting = queued.iter().map(|delivery| delivery.recipients.len()).sum();
    StoryEntry { message: letter(now, message), sent, failed, removed, waiting, deliveries, queued }
}

fn attempt(message: &Past, chapter: &Chapter) -> AttemptEntry {
    let Chapter { part, started, ended, account, relay, sender, answer } = chapter;
    let known = message.deliveries.iter().find(|delivery| delivery.part == *part);
    let recipient = |ordinal: &u16| known?.recipients.get(usize::from(*ordinal))?.clone();
    AttemptEntry {
        started: Time(*started),
        ended: Time(*ended),
        account: account.clone(),
        relay: relay.clone(),
        sender: sender.clone(),
        result: answer.left.to_string(),
        status: answer.status.to_string(),
        step: answer.step.clone(),
        reply: answer.reply.clone(),
        upstream_id: upstream_id(&answer.reply).filter(|_| answer.left == Left::Sent).map(str::to_owned),
        recipients: answer.ordinals.iter().filter_map(recipient).collect(),
        retry: answer.due.map(Time),
    }
}

fn letter(now: Timestamp, message: &Past) -> Letter {
    Letter {
        id: message.id.to_string(),
        kind: match message.kind {
            Kind::Mail => "mail",
            Kind::Notice => "notice",
        }
        .to_owned(),
        client: message.client.clone(),
        peer: message.peer.clone(),
        from: message.reverse_path.clone(),
        author: message.author.clone(),
        subject: message.subject.clone(),
        message_id: message.message_id.clone(),
        size: message.size,
        priority: message.priority.clone(),
        accepted: Time(message.accepted_at),
        age: now.since(message.accepted_at).as_secs(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_in_the_past_is_a_span_a_day_or_a_time() {
        let now = Timestamp::from_millis(1_795_285_881_042);
        for (text, at) in [("2d", 1_795_113_081_042), ("2026-11-21", 1_795_219_200_000), ("2026-11-21T08:00:00Z", 1_795_248_000_000)] {
            assert_eq!(since(text, now), Ok(Timestamp::from_millis(at)), "{text}");
        }
        for text in ["yesterday", "", "2026-13-01", "2"] {
            assert!(matches!(since(text, now), Err(Refusal::Invalid(_))), "{text}");
        }
    }

    #[test]
    fn a_month_is_read_and_ends_where_the_next_begins() {
        let now = Timestamp::from_millis(1_795_285_881_042);
        let month = |text| Month::read(text, now).map(|month| (month.name, month.from.date(), month.until.date()));
        let found = |name: &str, from: &str, until: &str| Ok((name.to_owned(), from.to_owned(), until.to_owned()));
        assert_eq!(month(None), found("2026-11", "2026-11-01", "2026-12-01"));
        assert_eq!(month(Some("2026-12")), found("2026-12", "2026-12-01", "2027-01-01"));
        for text in ["2026-13", "2026-00", "2026", "2026-1", "november", "2026-é"] {
            assert!(month(Some(text)).is_err(), "{text}");
        }
    }
}
