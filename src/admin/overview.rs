//! The whole relay in one answer, as the page shows it: whether mail flows, what waits for what, accounts, the last minutes, the last failures.

use serde::{Deserialize, Serialize};

use super::{AccountEntry, FailureEntry, Flow, Minutes, Status, Time, WaitsFor, Why, words};
use crate::clock::Timestamp;
use crate::schedule::{AccountStatus, Waiting};

/// How long ago mail may have moved for it to be flowing: minutes, the present one among them.
const RECENT: usize = 5;

/// See the head of this file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Overview {
    /// The state in figures.
    #[serde(flatten)]
    pub status: Status,
    /// The relay's own name.
    pub hostname: String,
    /// When it was started.
    pub since: Time,
    /// `idle`, `flowing`, `waiting` (for a time, by itself) or `stopped` (somebody must act).
    pub flow: String,
    /// The same as a sentence.
    pub sentence: String,
    /// What there is to add to it; empty if there is nothing.
    pub details: String,
    /// What waits for what, the most first. What an attempt is under way for is not among it.
    pub waiting: Vec<WaitingEntry>,
    /// Every account, in the configuration's order.
    pub accounts: Vec<AccountEntry>,
    /// The last minutes; the last of them is the present one.
    pub minutes: Minutes,
    /// The last failures, the newest first.
    pub failures: Vec<FailureEntry>,
}

/// Deliveries that wait for the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingEntry {
    /// `high`, `normal` or `bulk`.
    pub priority: String,
    /// `internal` or `external`.
    pub class: String,
    /// How many.
    pub deliveries: usize,
    /// Their recipients.
    pub recipients: u64,
    /// When the oldest was accepted.
    pub oldest: Time,
    /// Why they wait.
    #[serde(flatten)]
    pub why: Why,
}

/// Of which parts the answer is made.
pub struct Parts<'a> {
    /// When all of this is so.
    pub now: Timestamp,
    /// The relay's own name.
    pub hostname: &'a str,
    /// The state in figures.
    pub status: Status,
    /// What waits for what.
    pub waiting: &'a [Waiting],
    /// Every account.
    pub accounts: &'a [AccountStatus],
    /// What came and went.
    pub flow: &'a mut Flow,
}

/// Puts the parts together.
pub fn overview(parts: Parts<'_>) -> Overview {
    let Parts { now, hostname, status, waiting, accounts, flow } = parts;
    let waiting: Vec<WaitingEntry> = waiting
        .iter()
        .map(|waiting| WaitingEntry {
            priority: waiting.priority.to_string(),
            class: waiting.class.to_string(),
            deliveries: waiting.deliveries,
            recipients: waiting.recipients,
            oldest: Time(waiting.oldest),
            why: words::of_delivery(&waiting.wait, "", ""),
        })
        .collect();
    let accounts: Vec<AccountEntry> = accounts.iter().map(super::account).collect();
    let minutes = flow.minutes(now);
    let (word, sentence, details) = judge(&status, &waiting, &accounts, &minutes);
    Overview {
        status,
        hostname: hostname.to_owned(),
        since: Time(flow.since()),
        flow: word.to_owned(),
        sentence,
        details,
        waiting,
        accounts,
        minutes,
        failures: flow.failures().cloned().collect(),
    }
}

/// Whether mail flows: a word, a sentence, and what there is to add to it.
fn judge(status: &Status, waiting: &[WaitingEntry], accounts: &[AccountEntry], minutes: &Minutes) -> (&'static str, String, String) {
    let sent: u32 = minutes.sent.iter().rev().take(RECENT).sum();
    let queue = &status.queue;
    // What keeps the most deliveries waiting is what there is to say; that some wait for their turn is not worth it.
    let most = waiting.iter().find(|waiting| waiting.why.waits_for != WaitsFor::Held);
    let why = most.filter(|most| most.why.waits_for != WaitsFor::Turn);
    let down = accounts.iter().filter(|account| matches!(account.state.as_str(), "suspended" | "paused")).count();
    let (word, sentence, details) = if queue.under_way > 0 || (sent > 0 && down < accounts.len()) {
        let waits = |why: &WaitingEntry| format!("{}: {}", counted(why.deliveries, "delivery waits", "deliveries wait"), why.why.reason);
        ("flowing", "Mail is flowing.".to_owned(), why.map(waits))
    } else if let Some(account) = accounts.first().filter(|_| down == accounts.len()) {
        let text = if down == 1 { "The only account takes no mail.".to_owned() } else { format!("None of {down} accounts takes mail.") };
        ("stopped", text, Some(account.reason.clone()))
    } else if let Some(most) = most {
        let passes = most.why.until.is_some() || most.why.waits_for == WaitsFor::Turn;
        let text = format!("{}.", counted(queue.ready + queue.deferred, "delivery waits", "deliveries wait"));
        (if passes { "waiting" } else { "stopped" }, text, why.map(|why| why.why.reason.clone()))
    } else {
        ("idle", "Nothing waits.".to_owned(), None)
    };
    let held = (queue.held > 0).then(|| format!("{} held", counted(queue.held, "delivery is", "deliveries are")));
    let details = details.into_iter().chain(held).map(|text| format!("{}.", text.trim_end_matches('.'))).collect::<Vec<_>>().join(" ");
    (word, sentence, details)
}

fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// A number as people read it: 12,345.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{Connections, Counted, HealthEntry};

    fn account(state: &str) -> AccountEntry {
        AccountEntry {
            name: "hve01@contoso.com".to_owned(),
            route: "hve".to_owned(),
            state: state.to_owned(),
            reason: if state == "ready" { String::new() } else { "hve01@contoso.com is suspended: audit".to_owned() },
            advice: String::new(),
            until: None,
            connections: Connections { in_use: 0, max: 4, configured: 4 },
            health: HealthEntry::default(),
            waits: Vec::new(),
            budgets: Vec::new(),
        }
    }

    fn waiting(waits_for: WaitsFor, deliveries: usize, until: Option<i64>) -> WaitingEntry {
        WaitingEntry {
            priority: "normal".to_owned(),
            class: "internal".to_owned(),
            deliveries,
            recipients: 1,
            oldest: Time(Timestamp::default()),
            why: Why {
                waits_for,
                reason: format!("it is {waits_for}"),
                advice: String::new(),
                until: until.map(|at| Time(Timestamp::from_millis(at))),
            },
        }
    }

    fn said(ready: usize, held: usize, under_way: usize, waits: &[WaitingEntry], accounts: &[AccountEntry], sent: u32) -> String {
        let queue = Counted { under_way, ready, deferred: 0, held };
        let status = Status {
            now: Time(Timestamp::default()),
            version: String::new(),
            queue,
            in_doubt: 0,
            classes: vec![],
            tenant: vec![],
            troubles: vec![],
        };
        let minutes = Minutes { sent: vec![sent], ..Minutes::default() };
        let (word, sentence, details) = judge(&status, waits, accounts, &minutes);
        format!("{word}: {sentence} {details}").trim_end().to_owned()
    }

    #[test]
    fn one_sentence_says_whether_mail_flows() {
        let ready = [account("ready"), account("suspended")];
        let down = [account("suspended")];
        let budget = [waiting(WaitsFor::Budget, 12_345, Some(60_000))];
        let held = [waiting(WaitsFor::Held, 2, None)];
        let nobody = [waiting(WaitsFor::NoAccount, 1, None)];
        for (found, wanted) in [
            (said(0, 0, 0, &[], &ready, 0), "idle: Nothing waits."),
            (said(0, 2, 0, &held, &ready, 0), "idle: Nothing waits. 2 deliveries are held."),
            (said(0, 0, 1, &[], &ready, 0), "flowing: Mail is flowing."),
            (said(12_345, 0, 0, &budget, &ready, 3), "flowing: Mail is flowing. 12,345 deliveries wait: it is budget."),
            (said(12_345, 0, 0, &budget, &ready, 0), "waiting: 12,345 deliveries wait. it is budget."),
            (said(1, 0, 0, &nobody, &ready, 0), "stopped: 1 delivery waits. it is no-account."),
            (said(0, 0, 0, &[], &down, 9), "stopped: The only account takes no mail. hve01@contoso.com is suspended: audit."),
        ] {
            assert_eq!(found, wanted);
        }
    }
}
