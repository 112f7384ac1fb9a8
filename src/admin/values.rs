//! What goes over the wire. Field names are part of the interface: they are added to, and never change their meaning within a version.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::clock::Timestamp;

/// A point in time, written as RFC 3339 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time: jiff::Timestamp = text.parse().map_err(serde::de::Error::custom)?;
        Ok(Self(Timestamp::from_millis(time.as_millisecond())))
    }
}

/// What a delivery or an account waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitsFor {
    /// The end of an attempt under way.
    UnderWay,
    /// An operator who releases it.
    Held,
    /// The time of its next attempt.
    Deferred,
    /// An account that may take it.
    NoAccount,
    /// The end of an operator's suspension.
    Suspended,
    /// The end of trouble upstream.
    Paused,
    /// A budget.
    Budget,
    /// A free connection.
    Connections,
    /// Its turn.
    Turn,
}

impl WaitsFor {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::UnderWay,
        Self::Held,
        Self::Deferred,
        Self::NoAccount,
        Self::Suspended,
        Self::Paused,
        Self::Budget,
        Self::Connections,
        Self::Turn,
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnderWay => "under-way",
            Self::Held => "held",
            Self::Deferred => "deferred",
            Self::NoAccount => "no-account",
            Self::Suspended => "suspended",
            Self::Paused => "paused",
            Self::Budget => "budget",
            Self::Connections => "connections",
            Self::Turn => "turn",
        }
    }
}

impl fmt::Display for WaitsFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why something waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// For what.
    pub waits_for: WaitsFor,
    /// The same as a sentence.
    pub reason: String,
    /// Who can do what about it; empty if there is nothing to be done.
    pub advice: String,
    /// The earliest moment at which it can change; none: it is not a matter of time.
    pub until: Option<Time>,
}

/// A part of the queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// When this was so.
    pub now: Time,
    /// Deliveries, oldest first.
    pub entries: Vec<Entry>,
    /// More may follow behind this delivery.
    pub next: Option<String>,
}

/// A delivery in a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name: queue id, dot, number.
    pub id: String,
    /// Who sent the message to the relay.
    pub client: String,
    /// MAIL FROM as the client gave it; empty for a notice.
    pub from: String,
    /// The message's subject, decoded.
    pub subject: String,
    /// Recipients that are not settled.
    pub recipients: usize,
    /// Octets of the message.
    pub size: u64,
    /// When it was accepted.
    pub accepted: Time,
    /// Seconds since then.
    pub age: u64,
    /// Attempts that counted.
    pub attempts: u32,
    /// `high`, `normal` or `bulk`.
    pub priority: String,
    /// `internal` or `external`.
    pub class: String,
    /// Where it goes.
    pub route: String,
    /// It is held until an operator releases it, if only from the end of an attempt under way.
    pub held: bool,
    /// Attempts that may have delivered it although the upstream server did not say so.
    pub doubts: u32,
    /// Why it waits.
    #[serde(flatten)]
    pub why: Why,
}

/// Everything about a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    /// When this was so.
    pub now: Time,
    /// The message.
    pub message: Letter,
    /// Its deliveries that are still queued, or the one that was asked for.
    pub deliveries: Vec<DeliveryEntry>,
}

/// What is known of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// Its queue id.
    pub id: String,
    /// `mail`, or `notice` for what the relay wrote itself.
    pub kind: String,
    /// Who sent it to the relay.
    pub client: String,
    /// From which address; none for a notice.
    pub peer: Option<String>,
    /// MAIL FROM as the client gave it; empty for a notice.
    pub from: String,
    /// Who wrote it, if the header tells.
    pub author: Option<String>,
    /// Its subject, decoded.
    pub subject: String,
    /// Its Message-ID.
    pub message_id: String,
    /// Octets.
    pub size: u64,
    /// `high`, `normal` or `bulk`.
    pub priority: String,
    /// When it was accepted.
    pub accepted: Time,
    /// Seconds since then.
    pub age: u64,
}

/// Everything about a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryEntry {
    /// Its name: queue id, dot, number.
    pub id: String,
    /// `internal` or `external`.
    pub class: String,
    /// Where it goes.
    pub route: String,
    /// The recipients that are not settled.
    pub recipients: Vec<String>,
    /// Attempts that counted.
    pub attempts: u32,
    /// The earliest time of the next attempt, as far as the last one decided it.
    pub due: Time,
    /// It is held until an operator releases it, if only from the end of an attempt under way.
    pub held: bool,
    /// Attempts that may have delivered it although the upstream server did not say so.
    pub doubts: u32,
    /// What the last attempt came to; empty before the first.
    pub last_reply: String,
    /// Why it waits.
    #[serde(flatten)]
    pub why: Why,
}

/// The state in one look.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// When this was so.
    pub now: Time,
    /// The relay's version.
    pub version: String,
    /// How many deliveries are where.
    pub queue: Counted,
    /// Attempts since the start that may have delivered their mail although the upstream server did not say so.
    pub in_doubt: u64,
    /// What waits, by priority and class.
    pub classes: Vec<ClassEntry>,
    /// The budgets that all accounts share.
    pub tenant: Vec<BudgetEntry>,
    /// Trouble of more than one account.
    #[serde(default)]
    pub troubles: Vec<TroubleEntry>,
}

/// Trouble of more than one account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TroubleEntry {
    /// Whose: `tenant`, or `app` or `route` with its name behind a blank.
    pub whose: String,
    /// What.
    #[serde(flatten)]
    pub health: HealthEntry,
}

/// How an account, or more, stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HealthEntry {
    /// `healthy`, `reduced`, `probing`, `closed` or `suspended`.
    pub state: String,
    /// For mail of this class only: `internal` or `external`.
    pub class: Option<String>,
    /// Since when it is not healthy.
    pub since: Option<Time>,
    /// When that can change by itself: a closed one opens, a suspended one is tried, a reduced one uses one connection more.
    pub until: Option<Time>,
    /// The kind of trouble: an entry of the catalogue, see `hve-relay explain`; empty if it is healthy.
    pub kind: String,
    /// What was met.
    pub reason: String,
    /// Who must do what; empty if it passes by itself.
    pub advice: String,
    /// Logins that were tried in this trouble.
    pub logins: u32,
}

/// How many deliveries are where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Attempts under way.
    pub under_way: usize,
    /// Due, and waiting for an account.
    pub ready: usize,
    /// Deferred to a later time.
    pub deferred: usize,
    /// Held until an operator releases them.
    pub held: usize,
}

/// What waits of one priority and class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassEntry {
    /// `high`, `normal` or `bulk`.
    pub priority: String,
    /// `internal` or `external`.
    pub class: String,
    /// Deliveries.
    pub deliveries: usize,
    /// Their recipients.
    pub recipients: u64,
    /// When the oldest was accepted.
    pub oldest: Time,
    /// When, going by the budgets, the last of them will have gone; none: it is not a matter of time.
    pub empty_at: Option<Time>,
}

/// How a budget stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BudgetEntry {
    /// The limit's key in the configuration.
    pub limit: String,
    /// What ended attempts used and still counts.
    pub used: u32,
    /// What attempts under way may use.
    pub in_flight: u32,
    /// How much there is in a window; none: it is counted and not limited.
    pub max: Option<u32>,
    /// The length of the window in seconds.
    pub window: f64,
    /// When the first of what is used stops counting; none: nothing is used, or it takes the end of an attempt.
    pub frees_at: Option<Time>,
}

/// A configuration that has come into force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Where the relay listens.
    pub listeners: Vec<String>,
    /// How many accounts there are, with the routes that stand for themselves.
    pub accounts: usize,
    /// Queued deliveries that go another way now.
    pub rerouted: usize,
    /// What is probably not meant.
    pub warnings: Vec<String>,
}

/// Every account, in the configuration's order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accounts {
    /// When this was so.
    pub now: Time,
    /// The accounts.
    pub accounts: Vec<AccountEntry>,
    /// Trouble of more than one account.
    #[serde(default)]
    pub troubles: Vec<TroubleEntry>,
}

/// An account as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccountEntry {
    /// Its address.
    pub name: String,
    /// Where it logs in.
    pub route: String,
    /// `ready`, or what mail of every class waits for: `suspended`, `paused`, `budget` or `connections`.
    pub state: String,
    /// The same as a sentence; empty if it is ready.
    pub reason: String,
    /// Who can do what about it; empty if there is nothing to be done.
    pub advice: String,
    /// The earliest moment at which it can change; none: it is ready, or it is not a matter of time.
    pub until: Option<Time>,
    /// How it stands by itself, trouble that it shares with others apart.
    pub health: HealthEntry,
    /// Its connections.
    pub connections: Connections,
    /// The classes that wait; a ready account may have one.
    pub waits: Vec<ClassWait>,
    /// What is used.
    pub budgets: Vec<BudgetEntry>,
}

/// An account's connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// In use.
    pub in_use: usize,
    /// Those that it may have now: fewer than configured where the server takes no more.
    pub max: usize,
    /// Those that are configured.
    pub configured: usize,
}

/// What mail of one class waits for at an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassWait {
    /// `internal` or `external`.
    pub class: String,
    /// Why it waits.
    #[serde(flatten)]
    pub why: Why,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Changed {
    /// Deliveries that changed.
    pub deliveries: usize,
    /// Their recipients; of removed ones: those that will not get the message.
    pub recipients: usize,
    /// Deliveries that were already as they should be, or to which it does not apply.
    pub unchanged: usize,
    /// Deliveries that were left because an attempt is under way.
    pub under_way: usize,
    /// There may be more behind this delivery.
    pub next: Option<String>,
}

/// How much there is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Messages.
    pub messages: usize,
    /// Deliveries.
    pub deliveries: usize,
    /// Recipients.
    pub recipients: usize,
    /// The last delivery that was counted.
    pub through: Option<String>,
    /// There may be more behind this delivery.
    pub next: Option<String>,
}

/// The query of `GET /v1/queue`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// Behind this delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// At most so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Of this client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Of this class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Of this priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    /// Waiting for this, see [`WaitsFor`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The body of requests that concern many deliveries: those for which all that is given holds. One that gives nothing but a range must say
/// `"all": true`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Selection {
    /// All are meant.
    pub all: bool,
    /// Of this client.
    pub client: Option<String>,
    /// Of this class.
    pub class: Option<String>,
    /// Of this priority.
    pub priority: Option<String>,
    /// Waiting for this, see [`WaitsFor`].
    pub reason: Option<String>,
    /// Behind this delivery.
    pub after: Option<String>,
    /// Not behind this delivery: what was accepted since it was counted stays.
    pub through: Option<String>,
}

/// The body of `suspend`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Suspend {
    /// For how long, `"2h"`; without it until an operator resumes the account.
    #[serde(rename = "for")]
    pub length: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// Every client, in the order of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clients {
    /// The relay's time.
    pub now: Time,
    /// Since when habits are counted.
    pub since: Time,
    /// The clients.
    pub clients: Vec<ClientEntry>,
}

/// A client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientEntry {
    /// Its name.
    pub name: String,
    /// The networks that it comes from.
    pub networks: Vec<String>,
    /// What it was seen to do.
    pub habits: Vec<HabitEntry>,
}

/// Something that a client does otherwise than the standards have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HabitEntry {
    /// Its name, see [`crate::intake::Habit`].
    pub habit: String,
    /// The same in words.
    pub words: String,
    /// What the relay does about it.
    pub outcome: String,
    /// How many messages had it; sessions, where it is outside of messages.
    pub count: u64,
    /// The first time.
    pub first: Time,
    /// The last time.
    pub last: Time,
    /// The address that it came from then.
    pub last_peer: String,
}

/// What an error looks like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorText {
    /// A sentence.
    pub error: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_were_written() {
        let time = Time(Timestamp::from_millis(1_795_285_881_042));
        let text = serde_json::to_string(&time).expect("written");
        assert_eq!(text, "\"2026-11-21T18:31:21.042Z\"");
        assert_eq!(serde_json::from_str::<Time>(&text).expect("read"), time);
    }

    #[test]
    fn what_is_waited_for_is_written_as_it_is_filtered_by() {
        for waits_for in WaitsFor::ALL {
            assert_eq!(serde_json::to_value(waits_for).expect("written"), waits_for.as_str());
        }
    }

    #[test]
    fn a_misspelt_selection_is_not_everything() {
        for text in [r#"{"al": true}"#, r#"{"clients": "erp"}"#, r#"{"all": "yes"}"#] {
            assert!(serde_json::from_str::<Selection>(text).is_err(), "{text}");
        }
    }
}
