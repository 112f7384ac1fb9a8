//! Each function tells what its row of the table says, and the table knows each function.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};

use super::*;
use crate::clock::Timestamp;
use crate::intake::Habit;
use crate::mail::{AccountName, AppName, Class, ClientName, Delivery, DeliveryId, InDoubt, Kind, Message, Priority, Recipient, RouteName};
use crate::notice::{Alarm, AlarmChange};
use crate::reply::{Disposition, Judgement, Outcome, Pause, PauseLength, Rest, Scope, Step, TokenFault};
use crate::schedule::{Change, Who};
use crate::smtp::{EnhancedStatus, Mailbox, MessageDsn, RecipientDsn, Reply, ReversePath};
use crate::store::history::Trouble;
use crate::store::sqlite::Damaged;
use crate::upstream::Protection;
use crate::upstream::oauth::News;

/// One line: its target, its level, its fields.
#[derive(Debug, Clone, Default)]
struct Told {
    target: String,
    level: String,
    fields: BTreeMap<String, String>,
}

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.insert(field.name().to_owned(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.insert(field.name().to_owned(), value.to_owned());
    }
}

/// Keeps all that is told.
#[derive(Debug, Clone, Default)]
struct Ear(Arc<Mutex<Vec<Told>>>);

impl Subscriber for Ear {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let (target, level) = (event.metadata().target().to_owned(), event.metadata().level().as_str().to_ascii_lowercase());
        let mut told = Told { target, level, ..Told::default() };
        event.record(&mut told);
        self.0.lock().expect("unpoisoned").push(told);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn heard(tell: impl FnOnce()) -> Vec<Told> {
    let ear = Ear::default();
    tracing::subscriber::with_default(ear.clone(), tell);
    ear.0.lock().expect("unpoisoned").clone()
}

fn mailbox() -> Mailbox {
    "you@contoso.com".parse().expect("an address")
}

fn message() -> Message {
    Message {
        id: "01KAF7N3W5Z2Q".parse().expect("an id"),
        accepted_at: Timestamp::from_millis(0),
        kind: Kind::Mail,
        client: ClientName::new("devices"),
        priority: Priority::Normal,
        peer: Some([10, 20, 0, 5].into()),
        reverse_path: ReversePath::Mailbox(mailbox()),
        author: Some(mailbox()),
        subject: "a secret plan".to_owned(),
        message_id: "<1@copier>".to_owned(),
        size: 1_000,
        eight_bit: false,
        smtputf8: false,
        dsn: MessageDsn::default(),
    }
}

fn delivery(id: DeliveryId) -> Delivery {
    let recipient = Recipient { ordinal: 0, address: mailbox(), dsn: RecipientDsn::default() };
    let due = Timestamp::from_millis(0);
    Delivery { id, route: RouteName::new("hve"), class: Class::Internal, recipients: vec![recipient], attempts: 3, due }
}

/// Has everything told, in each of its ways.
fn tell_all() {
    let (peer, client) = ([10, 20, 0, 5].into(), ClientName::new("devices"));
    let (message, at) = (message(), Timestamp::from_millis(1_000));
    let id = DeliveryId { message: message.id, part: 1 };
    let (account, route, by) = (AccountName::new("hve01@contoso.com"), RouteName::new("hve"), "uid 1000");
    let reply = Reply::new(550, EnhancedStatus::new(5, 7, 1), "No");
    let listener = "127.0.0.1:25".parse().expect("an address");

    started("1.0.0", &[listener], 2, 3, 1);
    stopping(Duration::from_secs(30));
    failed("the disk");
    stopped(3);
    watchdog_missed("the store");
    config_warning("odd");
    reloaded("SIGHUP", &["127.0.0.1:25".to_owned()], 1, 0);
    reload_failed("uid 0", "hve-relay.toml:1: x: found: write y");
    log_lost(7);
    log_file_failed(Path::new("/relay.log"), "full");
    log_file_written(Path::new("/relay.log"));
    log_level_set(Level::Debug, Some(Room::Session), by);
    connection_refused(peer, &reply);
    accept_failed(listener, "too many open files", 3);
    sessions_lowered(1_000, 40, 256, 2_300);
    connected(peer, &client);
    disconnected(peer, &client, "quit");
    refused(peer, Some(&client), "RCPT", Some(&message.reverse_path), &reply);
    habit(peer, &client, Habit::NoHeloName, 1);
    habits_forgotten(by);
    counts_unreadable(Path::new("/habits.json"), "no JSON");
    counts_unsaved(Path::new("/habits.json"), "the disk is full");
    tls_failed(peer, "an alert");
    certificate_renewed(Path::new("/relay.pem"));
    certificate_unusable(Path::new("/relay.pem"), "no key");
    proxy_failed(peer, "no header");
    logged_in(peer, "erp", &client);
    login_failed(peer, "erp", 2);
    accepted(&message, &Arrival { protocol: "ESMTP", helo: "copier", user: "erp", tls: "TLSv1.3", took: Duration::ZERO }, 1);

    for disposition in [Disposition::Sent, Disposition::Deferred, Disposition::Failed] {
        let outcome = Outcome {
            disposition,
            status: EnhancedStatus::new(2, 0, 0),
            diagnostic: "250 [InternalId=7]".to_owned(),
            step: Step::EndOfData,
        };
        let attempt = Attempt {
            delivery: id,
            class: Class::Internal,
            account: &account,
            relay: "smtp.example.com:587",
            protection: Some(Protection::Verified),
            number: 1,
            started: at,
            ended: at,
        };
        recipient_settled(&message, &mailbox(), &attempt, &outcome, Some(at));
    }
    let judgement = Judgement {
        outcomes: Vec::new(),
        pause: None,
        counts: false,
        elsewhere: false,
        rest: Rest::Together,
        doubtful: Vec::new(),
        misrouted: Vec::new(),
        in_doubt: false,
    };
    attempt_ended(id, &account, &judgement, &[(Step::Connect, Duration::from_millis(20))]);
    expired(&message, &delivery(id), Duration::from_secs(60));
    dkim_signature_removed(id, &client, &mailbox(), &["contoso.com".to_owned()]);
    content_waits("smtp-hve.office365.com:587");
    content_converted(id, &client, "smtp.example.com:587");
    let attempt = InDoubt { account: account.clone(), started: at, recipients: 1 };
    in_doubt(id, &attempt);
    held_in_doubt(id, &attempt);
    parted(id, &delivery(id), &client);
    removed(message.id);

    notice_queued(message.id, message.id, &mailbox());
    notice_gathered(message.id, &mailbox(), 1);
    digest_queued(message.id, &mailbox());
    digest_impossible(&mailbox(), 1);
    notice_impossible(&message, "no route");
    alarm(&Alarm::DiskLow, &AlarmChange::Raised("full".to_owned()));
    alarm(&Alarm::DiskLow, &AlarmChange::Cleared);
    alarm_mail(message.id, 2);

    login_tried(&account, "AUTH: 535 5.7.3 Authentication unsuccessful");
    for gate_of in [Who::Account(account.clone()), Who::App(AppName::new("mailer")), Who::Route(route.clone()), Who::Tenant] {
        let pause = Pause {
            scope: Scope::Account,
            class: None,
            length: PauseLength::BackOff,
            every: None,
            limit: None,
            step: Step::Auth,
            kind: "throttled".into(),
            reason: "busy".to_owned(),
            advice: String::new(),
        };
        gate(&Change::Closed { gate: gate_of.clone(), until: at, pause: pause.clone() });
        gate(&Change::Narrowed { account: account.clone(), using: 3, configured: 5, pause });
        gate(&Change::Widened { account: account.clone(), using: 4, configured: 5 });
        gate(&Change::Opened { gate: gate_of });
    }
    route_unknown(id, &route);
    rerouted(id, &route, &route, Class::External);
    token(&AppName::new("relay"), &News::Fetched { life: Duration::from_secs(3_600) });
    for pause in [PauseLength::Suspended, PauseLength::BackOff] {
        let fault = TokenFault { reason: "refused".to_owned(), pause, advice: "ask".to_owned() };
        token(&AppName::new("relay"), &News::Failed { fault, left: Some(Duration::from_secs(60)) });
    }
    credential_ends("/etc/hve-relay/relay.pem", "listener 10.0.0.1:587, page 10.0.0.1:8025", "certificate", at, 3, "renew it");
    credential_ends("hve", "app hve", "client secret", at, 14, "renew it");

    disk_low("full");
    store_busy("accepting", "locked");
    store_failed("a sync");
    orphans_removed(2);
    content_damaged(&Damaged { id: message.id, path: "/x.eml".into(), expected: 9, found: None });
    history_unavailable("damaged");
    history_lost(&Trouble { records: 3, why: "full".to_owned() });
    queue_held(id, &client, by);
    queue_released(id, &client, by);
    queue_retried(id, &client, by);
    queue_removed(id, &client, 1, by);
    queue_brought_in(&message, 2, "from files", by);
    account_suspended(&account, Some(at), "holiday", by);
    account_resumed_by_operator(&account, by);
    admin_listening(listener);
    admin_unavailable(listener, "taken");
    operator_logged_in(peer, "user anna");
    operator_refused(peer);
}

#[test]
fn each_event_is_told_as_its_row_says() {
    let mut seen: BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
    for told in heard(tell_all) {
        let name = told.fields.get("event").unwrap_or_else(|| panic!("a line without `event`: {told:?}"));
        let row = event(name).unwrap_or_else(|| panic!("`{name}` is not in the table: add it to src/telemetry/table.rs"));
        assert_eq!(told.target, row.room.target(), "`{name}` is told with the target of another room");
        assert!(!told.fields["message"].is_empty(), "`{name}` says nothing");
        let (levels, fields) = seen.entry(name.clone()).or_default();
        levels.insert(told.level);
        fields.extend(told.fields.into_keys().filter(|field| !["event", "message"].contains(&field.as_str())));
    }
    for row in EVENTS {
        let (levels, fields) = seen.get(row.name).unwrap_or_else(|| panic!("`{}` is not told: call its function in `tell_all`", row.name));
        let (row_levels, row_fields): (BTreeSet<String>, BTreeSet<String>) =
            (row.levels.iter().map(|level| level.as_str().to_owned()).collect(), row.field_names().map(str::to_owned).collect());
        assert_eq!(*levels, row_levels, "the levels of `{}`", row.name);
        assert_eq!(*fields, row_fields, "the fields of `{}`", row.name);
    }
}

#[test]
fn every_function_is_called_above() {
    let names = |source: &str| -> BTreeSet<String> {
        source.split("event = \"").skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect()
    };
    let rows: BTreeSet<String> = EVENTS.iter().map(|row| row.name.to_owned()).collect();
    assert_eq!(names(include_str!("events.rs")), rows, "events.rs and table.rs know different events");
}

#[test]
fn names_stand_once_and_fields_are_explained() {
    fn once(names: Vec<&'static str>) -> BTreeSet<&'static str> {
        let distinct: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(distinct.len(), names.len(), "twice in {names:?}");
        distinct
    }
    once(EVENTS.iter().map(|row| row.name).collect());
    let fields = once(FIELDS.iter().map(|field| field.name).collect());
    assert!(FIELDS.is_sorted_by_key(|field| field.name), "fields stand in the order of their names");
    let used: BTreeSet<&str> = EVENTS.iter().flat_map(|row| row.field_names()).collect();
    assert_eq!(used, fields, "fields of events, and those that are explained");
    for row in EVENTS.iter().filter(|row| row.levels.contains(&Level::Error)) {
        assert!(!row.advice.is_empty(), "`{}` wants somebody: for what?", row.name);
    }
}

#[test]
fn a_queue_id_is_in_every_line_of_a_message() {
    let about = |row: &&super::Event| row.field_names().any(|field| ["to", "part"].contains(&field));
    for row in EVENTS.iter().filter(about).filter(|row| !row.name.starts_with("digest-")) {
        assert!(row.field_names().any(|field| field == "queue_id"), "{}", row.name);
    }
}

#[test]
fn every_metric_of_the_table_is_in_a_scrape_and_no_other() {
    heard(tell_all);
    let names = |text: &str| -> BTreeSet<String> {
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).filter_map(|rest| rest.split(' ').next()).map(str::to_owned).collect()
    };
    // What is asked for at the scrape is there with what it is about.
    let state = State { habits: vec![(ClientName::new("devices"), Habit::NoHeloName, 1)], ..State::default() };
    let found = names(&scrape(&state));
    let known: BTreeSet<String> = METRICS.iter().map(|metric| metric.name.to_owned()).collect();
    let strange: Vec<&String> = found.difference(&known).collect();
    assert!(strange.is_empty(), "{strange:?}");
    let counted: BTreeSet<String> = METRICS.iter().filter(|metric| metric.kind != "gauge").map(|metric| metric.name.to_owned()).collect();
    let missing: Vec<&String> = counted.difference(&found).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
