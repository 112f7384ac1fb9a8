//! What has happened since the start. The functions of `events` count here; nobody else does.

use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use prometheus_client::encoding::text::encode_registry;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use super::labels::{
    Account, Client, OfAccount, OfAlarm, OfAttempt, OfClass, OfClient, OfRecipient, OfRefusal, OfResult, OfStatus, OfStep, Status, class,
    step,
};
use super::{PREFIX, help};
use crate::clock::Clock;
use crate::mail::{AccountName, Class, ClientName};
use crate::notice::Alarm;
use crate::reply::{Disposition, Judgement, Scope, Step};
use crate::smtp::Reply;

/// The counters of this process.
pub(in crate::telemetry) static COUNTERS: LazyLock<Counters> = LazyLock::new(Counters::new);

/// See the head of this file.
pub(in crate::telemetry) struct Counters {
    registry: Registry,
    sessions: Family<OfClient, Counter>,
    connections_refused: Family<OfStatus, Counter>,
    refusals: Family<OfRefusal, Counter>,
    logins: Family<OfResult, Counter>,
    pub tls_failures: Counter,
    accepted_messages: Family<OfClient, Counter>,
    accepted_recipients: Family<OfClient, Counter>,
    accepted_bytes: Family<OfClient, Counter>,
    accept_seconds: Histogram,
    attempts: Family<OfAttempt, Counter>,
    recipients: Family<OfRecipient, Counter>,
    in_doubt: Family<OfAccount, Counter>,
    queue_seconds: Family<OfClass, Histogram, fn() -> Histogram>,
    upstream_step_seconds: Family<OfStep, Histogram, fn() -> Histogram>,
    store_commit_seconds: Histogram,
    store_commit_operations: Histogram,
    store_refusals: Family<OfResult, Counter>,
    pub history_records_lost: Counter,
    pub log_lines_lost: Counter,
    pub notices_queued: Counter,
    alarms_raised: Family<OfAlarm, Counter>,
}

/// From a commit on a fast disk to a server that thinks about spam.
fn seconds() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0])
}

/// From a message that goes at once to one that waits for the budget of the day after tomorrow.
fn waits() -> Histogram {
    Histogram::new([0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 43_200.0, 86_400.0, 172_800.0])
}

impl Counters {
    fn new() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let start = Gauge::<i64>::default();
        start.set(Clock::wall().as_millis() / 1_000);
        register(&mut registry, "start_time_seconds", start);
        let counters = Self {
            sessions: register(&mut registry, "sessions", Family::default()),
            connections_refused: register(&mut registry, "connections_refused", Family::default()),
            refusals: register(&mut registry, "refusals", Family::default()),
            logins: register(&mut registry, "logins", Family::default()),
            tls_failures: register(&mut registry, "tls_failures", Counter::default()),
            accepted_messages: register(&mut registry, "accepted_messages", Family::default()),
            accepted_recipients: register(&mut registry, "accepted_recipients", Family::default()),
            accepted_bytes: register(&mut registry, "accepted_bytes", Family::default()),
            accept_seconds: register(&mut registry, "accept_seconds", seconds()),
            attempts: register(&mut registry, "attempts", Family::default()),
            recipients: register(&mut registry, "recipients", Family::default()),
            in_doubt: register(&mut registry, "in_doubt", Family::default()),
            queue_seconds: register(&mut registry, "queue_seconds", Family::new_with_constructor(waits as fn() -> Histogram)),
            upstream_step_seconds: register(
                &mut registry,
                "upstream_step_seconds",
                Family::new_with_constructor(seconds as fn() -> Histogram),
            ),
            store_commit_seconds: register(&mut registry, "store_commit_seconds", seconds()),
            store_commit_operations: register(
                &mut registry,
                "store_commit_operations",
                Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0]),
            ),
            store_refusals: register(&mut registry, "store_refusals", Family::default()),
            history_records_lost: register(&mut registry, "history_records_lost", Counter::default()),
            log_lines_lost: register(&mut registry, "log_lines_lost", Counter::default()),
            notices_queued: register(&mut registry, "notices_queued", Counter::default()),
            alarms_raised: register(&mut registry, "alarms_raised", Family::default()),
            registry,
        };
        // What has not happened yet is 0 and not unknown: an alert upon its growth would miss the first time.
        ["accepted", "failed"].into_iter().for_each(|result| drop(counters.logins.get_or_create(&OfResult { result })));
        ["full", "busy", "failed"].into_iter().for_each(|result| drop(counters.store_refusals.get_or_create(&OfResult { result })));
        ALARMS.into_iter().for_each(|alarm| drop(counters.alarms_raised.get_or_create(&OfAlarm { alarm })));
        Class::ALL.into_iter().for_each(|of| drop(counters.queue_seconds.get_or_create(&class(of))));
        counters
    }

    /// What is counted for clients and accounts begins at 0.
    pub fn expect(&self, clients: &[ClientName], accounts: &[AccountName]) {
        for client in clients {
            let client = of(client);
            for family in [&self.sessions, &self.accepted_messages, &self.accepted_recipients, &self.accepted_bytes] {
                drop(family.get_or_create(&client));
            }
        }
        for account in accounts {
            drop(self.in_doubt.get_or_create(&OfAccount { account: Account(account.clone()) }));
        }
    }

    pub fn session(&self, client: &ClientName) {
        self.sessions.get_or_create(&of(client)).inc();
    }

    pub fn connection_refused(&self, reply: &Reply) {
        self.connections_refused.get_or_create(&OfStatus { status: Status::of(reply) }).inc();
    }

    pub fn refused(&self, client: Option<&ClientName>, reply: &Reply) {
        let client = Client(client.cloned().unwrap_or_else(|| ClientName::new("")));
        self.refusals.get_or_create(&OfRefusal { client, status: Status::of(reply) }).inc();
    }

    pub fn login(&self, result: &'static str) {
        self.logins.get_or_create(&OfResult { result }).inc();
    }

    pub fn accepted(&self, client: &ClientName, recipients: usize, size: u64, took: Duration) {
        let client = of(client);
        self.accepted_messages.get_or_create(&client).inc();
        self.accepted_recipients.get_or_create(&client).inc_by(recipients as u64);
        self.accepted_bytes.get_or_create(&client).inc_by(size);
        self.accept_seconds.observe(took.as_secs_f64());
    }

    pub fn attempt(&self, account: &AccountName, judgement: &Judgement, steps: &[(Step, Duration)]) {
        let (outcome, scope) = (outcome(judgement), scope(judgement));
        self.attempts.get_or_create(&OfAttempt { account: Account(account.clone()), outcome, scope }).inc();
        for (of, took) in steps {
            self.upstream_step_seconds.get_or_create(&step(*of)).observe(took.as_secs_f64());
        }
    }

    /// `waited`: since it was accepted; it counts where it was sent.
    pub fn recipient(&self, account: &AccountName, of: Class, disposition: Disposition, waited: f64) {
        let outcome = match disposition {
            Disposition::Sent => "sent",
            Disposition::Deferred => "deferred",
            Disposition::Failed => "bounced",
        };
        self.recipients.get_or_create(&OfRecipient { account: Account(account.clone()), class: of.as_str(), outcome }).inc();
        if disposition == Disposition::Sent {
            self.queue_seconds.get_or_create(&class(of)).observe(waited);
        }
    }

    pub fn expired(&self, class: Class, recipients: usize) {
        let account = Account(AccountName::new(""));
        self.recipients.get_or_create(&OfRecipient { account, class: class.as_str(), outcome: "expired" }).inc_by(recipients as u64);
    }

    pub fn in_doubt(&self, account: &AccountName) {
        self.in_doubt.get_or_create(&OfAccount { account: Account(account.clone()) }).inc();
    }

    pub fn committed(&self, operations: usize, took: Duration) {
        self.store_commit_seconds.observe(took.as_secs_f64());
        self.store_commit_operations.observe(operations as f64);
    }

    pub fn store_refused(&self, result: &'static str) {
        self.store_refusals.get_or_create(&OfResult { result }).inc();
    }

    pub fn alarm(&self, alarm: &Alarm) {
        self.alarms_raised.get_or_create(&OfAlarm { alarm: alarm_word(alarm) }).inc();
    }

    pub fn write_to(&self, text: &mut String) -> fmt::Result {
        encode_registry(text, &self.registry)
    }
}

/// The kinds of alarms.
const ALARMS: [&str; 8] = [
    "account-suspended",
    "app-suspended",
    "route-suspended",
    "tenant-suspended",
    "disk-low",
    "certificate-ending",
    "secret-ending",
    "queue-old",
];

/// An alarm's kind.
pub(super) fn alarm_word(alarm: &Alarm) -> &'static str {
    match alarm {
        Alarm::AccountSuspended(_) => "account-suspended",
        Alarm::AppSuspended(_) => "app-suspended",
        Alarm::RouteSuspended(_) => "route-suspended",
        Alarm::TenantSuspended => "tenant-suspended",
        Alarm::DiskLow => "disk-low",
        Alarm::CertificateEnding(_) => "certificate-ending",
        Alarm::SecretEnding(_) => "secret-ending",
        Alarm::QueueOld => "queue-old",
    }
}

/// What became of an attempt, in one word.
fn outcome(judgement: &Judgement) -> &'static str {
    let all = |disposition| judgement.outcomes.iter().all(|outcome| outcome.disposition == disposition);
    if judgement.in_doubt {
        "in-doubt"
    } else if all(Disposition::Sent) {
        "sent"
    } else if all(Disposition::Deferred) {
        "deferred"
    } else if all(Disposition::Failed) {
        "bounced"
    } else {
        "partial"
    }
}

/// Whose trouble it was.
fn scope(judgement: &Judgement) -> &'static str {
    let steps = || judgement.outcomes.iter().filter(|outcome| outcome.disposition != Disposition::Sent).map(|outcome| outcome.step);
    match judgement.pause.as_ref().map(|pause| pause.scope) {
        Some(Scope::Account) => "account",
        Some(Scope::App) => "app",
        Some(Scope::Tenant) => "tenant",
        Some(Scope::Connection) => "connection",
        Some(Scope::Message) => "message",
        Some(Scope::Recipient) => "recipient",
        None if steps().next().is_none() => "none",
        None if judgement.in_doubt => "connection",
        None if steps().all(|step| step == Step::Rcpt) => "recipient",
        None => "message",
    }
}

fn of(client: &ClientName) -> OfClient {
    OfClient { client: Client(client.clone()) }
}

fn register<M: Metric + Clone>(registry: &mut Registry, name: &'static str, metric: M) -> M {
    registry.register(name, help(name), metric.clone());
    metric
}
