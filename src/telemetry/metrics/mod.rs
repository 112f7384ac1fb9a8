//! Metrics, in the format of OpenMetrics: what has happened since the start, counted by the functions that tell of it in the log, and what is so at
//! the moment of the scrape, as the relay says it then ([`State`]).
//!
//! To count costs a look into a table that is only ever read, and an addition; nothing is written as text before somebody asks for it. Which
//! metrics there are is in the table [`METRICS`], from which `deploy/metrics.md` is written (`hve-relay reference metrics`).

mod counters;
mod labels;
mod state;

use std::fmt::Write;

pub(super) use counters::COUNTERS;
pub use state::{End, State};

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// Its name, without the suffixes that counters (`_total`) and histograms (`_bucket`, `_sum`, `_count`) have.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Its labels, with blanks between them.
    pub labels: &'static str,
    /// What it says.
    pub help: &'static str,
}

const fn metric(name: &'static str, kind: &'static str, labels: &'static str, help: &'static str) -> Metric {
    Metric { name, kind, labels, help }
}

/// Every metric.
#[rustfmt::skip]
pub const METRICS: &[Metric] = &[
    metric("hve_relay_build_info", "gauge", "version", "1; the version is the label"),
    metric("hve_relay_ready", "gauge", "", "1 if /readyz says so, else 0"),
    metric("hve_relay_start_time_seconds", "gauge", "", "When the relay started, in seconds since 1970"),
    metric("hve_relay_sessions", "counter", "client", "Sessions that clients have begun"),
    metric("hve_relay_sessions_open", "gauge", "", "Sessions that are open"),
    metric("hve_relay_connections_refused", "counter", "status", "Connections refused before they became a session, by the status (RFC 3463) of the reply"),
    metric("hve_relay_refusals", "counter", "client status", "Commands and messages refused, by the status (RFC 3463) of the reply; the client is empty where it is not known"),
    metric("hve_relay_logins", "counter", "result", "Logins of users: accepted or failed"),
    metric("hve_relay_tls_failures", "counter", "", "TLS handshakes of clients that failed"),
    metric("hve_relay_accepted_messages", "counter", "client", "Messages answered 250"),
    metric("hve_relay_accepted_recipients", "counter", "client", "Their recipients"),
    metric("hve_relay_accepted_bytes", "counter", "client", "Their octets"),
    metric("hve_relay_accept_seconds", "histogram", "", "From the end of data to the 250: what the store needs to make a message safe"),
    metric("hve_relay_habits", "counter", "client habit", "What clients do otherwise than the standards have it"),
    metric("hve_relay_queue_deliveries", "gauge", "state", "Queued deliveries: under-way, ready, deferred or held"),
    metric("hve_relay_waiting_deliveries", "gauge", "priority class", "Deliveries that wait"),
    metric("hve_relay_waiting_recipients", "gauge", "priority class", "Their recipients"),
    metric("hve_relay_oldest_seconds", "gauge", "priority class", "How long the oldest of them has waited since it was accepted"),
    metric("hve_relay_empty_in_seconds", "gauge", "priority class", "Until the last of them will have gone, going by the budgets; absent where it is not a matter of time"),
    metric("hve_relay_attempts", "counter", "account outcome scope", "Attempts that ended: sent, partial, deferred, bounced or in-doubt; whose trouble it was: none, recipient, message, account, app, tenant or connection"),
    metric("hve_relay_recipients", "counter", "account class outcome", "Recipients of ended attempts: sent, deferred or bounced; and expired, without an account"),
    metric("hve_relay_in_doubt", "counter", "account", "Attempts in doubt: the upstream server may have the message, and nobody knows"),
    metric("hve_relay_queue_seconds", "histogram", "class", "From acceptance to the upstream server's 250, for each recipient"),
    metric("hve_relay_upstream_step_seconds", "histogram", "step", "Completed steps of conversations with upstream servers: connect, greeting, ehlo, starttls, tls, auth, mail, rcpt, data, content, end-of-data"),
    metric("hve_relay_account_connections", "gauge", "account", "Connections of the account that are in use"),
    metric("hve_relay_account_usable", "gauge", "account class", "1 if the account takes mail of the class now, else 0"),
    metric("hve_relay_account_suspended", "gauge", "account", "1 if an operator has suspended the account, else 0"),
    metric("hve_relay_budget_used", "gauge", "holder limit", "What is used of a budget, attempts in flight included; the holder is an account, or tenant"),
    metric("hve_relay_budget_limit", "gauge", "holder limit", "The budget; absent where there is none"),
    metric("hve_relay_token_left_seconds", "gauge", "app", "For how long the present token can still be used; 0 without one"),
    metric("hve_relay_credential_ends_seconds", "gauge", "kind name", "When a client secret (secret, by its application) or a certificate (certificate, by its file) ends, in seconds since 1970"),
    metric("hve_relay_store_commit_seconds", "histogram", "", "Transactions of the queue's database, from their begin to the end of the sync"),
    metric("hve_relay_store_commit_operations", "histogram", "", "Operations that one transaction recorded"),
    metric("hve_relay_store_spare_bytes", "gauge", "", "Octets that new mail may still take on the disk: what is free less the reserve"),
    metric("hve_relay_store_refusals", "counter", "result", "What the store did not do: full (no room), busy (not for the moment) or failed (for good)"),
    metric("hve_relay_history_records_lost", "counter", "", "Records of what became of mail that could not be written"),
    metric("hve_relay_log_lines_lost", "counter", "", "Log lines that nobody read in time"),
    metric("hve_relay_notices_queued", "counter", "", "Notices and digests that were queued"),
    metric("hve_relay_alarms_raised", "counter", "alarm", "Alarms that were raised"),
    metric("hve_relay_alarms_standing", "gauge", "alarm", "Alarms that stand"),
];

/// The help of a metric; `name` is without the prefix.
fn help(name: &str) -> &'static str {
    let found = METRICS.iter().find(|metric| metric.name.strip_prefix(PREFIX).and_then(|rest| rest.strip_prefix('_')) == Some(name));
    debug_assert!(found.is_some(), "{name} is not in the table of metrics");
    found.map_or("", |metric| metric.help)
}

const PREFIX: &str = "hve_relay";

/// All metrics as text, in the format of OpenMetrics 1.0.
pub fn scrape(state: &State) -> String {
    let mut text = String::with_capacity(32 << 10);
    let written = COUNTERS.write_to(&mut text).and_then(|()| state.write_to(&mut text));
    // Nothing here can fail to be written into a string.
    debug_assert!(written.is_ok());
    text.push_str("# EOF\n");
    text
}

/// The table as a page of Markdown: `deploy/metrics.md`.
pub fn metrics_page() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         Written by `hve-relay reference metrics` from the table in the code; tests hold a real scrape against it. In a scrape the names of counters\n\
         end in `_total`, and a histogram is `_bucket`, `_sum` and `_count`. Clients, accounts and applications are those of the configuration.\n\n\
         | metric | kind | labels | what it says |\n|---|---|---|---|\n",
    );
    for Metric { name, kind, labels, help } in METRICS {
        let labels = labels.split_ascii_whitespace().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        let _ = writeln!(page, "| `{name}` | {kind} | {} | {help} |", if labels.is_empty() { "–" } else { &labels });
    }
    page
}
