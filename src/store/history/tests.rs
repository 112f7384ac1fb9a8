//! The history from outside: what goes in comes out, is found by what people have of it, goes in time, and never stops mail.

use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::*;
use crate::clock::Clock;
use crate::mail::{Class, ClientName, Delivery, DeliveryId, Kind, Message, Priority, QueueIds, Recipient, RouteName};
use crate::smtp::{EnhancedStatus, MessageDsn, RecipientDsn, ReversePath};

const DAY: Duration = Duration::from_secs(86_400);

struct Case {
    temp: tempfile::TempDir,
    connection: Connection,
    ids: QueueIds,
    now: Timestamp,
}

impl Case {
    fn new() -> Self {
        let temp = tempfile::tempdir().expect("temporary directory");
        let connection = tables::open(&temp.path().join("history.db")).expect("opened");
        Self { temp, connection, ids: QueueIds::new(1, None), now: Timestamp::from_millis(1_795_285_881_042) }
    }

    fn message(&self, ago: Duration, subject: &str, to: &[&str]) -> (Message, Vec<Delivery>) {
        let accepted_at = self.now - ago;
        let id = self.ids.next(accepted_at);
        let message = Message {
            id,
            accepted_at,
            kind: Kind::Mail,
            client: ClientName::new("copier-3"),
            priority: Priority::Normal,
            peer: Some([10, 20, 0, 7].into()),
            reverse_path: ReversePath::Mailbox("Scan@contoso.com".parse().expect("a mailbox")),
            author: None,
            subject: subject.to_owned(),
            message_id: format!("<{id}@copier.contoso.com>"),
            size: 4_000,
            eight_bit: false,
            smtputf8: false,
            dsn: MessageDsn::default(),
        };
        let recipient = |(ordinal, address): (u16, &&str)| Recipient {
            ordinal,
            address: address.parse().expect("a mailbox"),
            dsn: RecipientDsn::default(),
        };
        let delivery = Delivery {
            id: DeliveryId { message: id, part: 1 },
            route: RouteName::new("hve"),
            class: Class::Internal,
            recipients: (0..).zip(to).map(recipient).collect(),
            attempts: 0,
            due: accepted_at,
        };
        (message, vec![delivery])
    }

    fn accepted(&self, ago: Duration, subject: &str, to: &[&str]) -> (Message, Vec<Delivery>) {
        let accepted = self.message(ago, subject, to);
        self.remember(&Record::Accepted(Box::new(accepted.clone())));
        accepted
    }

    fn remember(&self, record: &Record) {
        writer::remember(&self.connection, record).expect("written");
    }

    fn tried(&self, (message, deliveries): &(Message, Vec<Delivery>), after: Duration, answers: Vec<Attempt>) {
        let started = message.accepted_at + after;
        self.remember(&Record::Ended(Box::new(Tried {
            message: message.clone(),
            delivery: deliveries[0].clone(),
            account: "hve01@contoso.com".to_owned(),
            relay: "smtp-hve.office365.com:587".to_owned(),
            sender: "hve01@contoso.com".to_owned(),
            started,
            ended: started + Duration::from_millis(200),
            answers,
        })));
    }

    fn found(&self, change: impl FnOnce(&mut Search)) -> Found {
        let mut search = Search { what: What::All, since: None, failed: false, before: None, limit: 10 };
        change(&mut search);
        search::find(&self.connection, &search).expect("read")
    }

    fn by(&self, text: &str) -> Vec<QueueId> {
        self.found(|search| search.what = What::read(text)).stories.iter().map(|story| story.message.id).collect()
    }

    fn count(&self, table: &str) -> i64 {
        self.connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("a count")
    }
}

fn answer(left: Left, ordinals: &[u16]) -> Attempt {
    Attempt {
        left,
        status: EnhancedStatus::new(2, 0, 0),
        step: "end of data".to_owned(),
        reply: format!("it was {left}"),
        ordinals: ordinals.to_vec(),
        due: None,
    }
}

#[test]
fn recipients_that_parted_are_found_with_what_became_of_them() {
    // Whether its acceptance was remembered or not.
    for whole in [true, false] {
        let case = Case::new();
        let (message, deliveries) = case.message(DAY, "parted", &["a@contoso.com", "b@contoso.com"]);
        let mut alone = deliveries[0].clone();
        (alone.id.part, alone.route) = (2, RouteName::new("connector"));
        alone.recipients.remove(0);
        if whole {
            case.remember(&Record::Accepted(Box::new((message.clone(), deliveries.clone()))));
        }
        let parted = (message.clone(), vec![alone]);
        case.tried(&(message, deliveries), Duration::from_secs(1), vec![answer(Left::Sent, &[0]), answer(Left::Deferred, &[1])]);
        // Twice is once.
        case.remember(&Record::Parted(Box::new(parted.clone())));
        case.tried(&parted, Duration::from_secs(2), vec![answer(Left::Sent, &[1])]);
        case.remember(&Record::Parted(Box::new(parted)));

        let found = case.found(|search| search.what = What::read("b@contoso.com"));
        let Story { message, chapters } = &found.stories[0];
        let parts: Vec<_> = message.deliveries.iter().map(|it| (it.part, it.route.as_str(), it.recipients.clone())).collect();
        let (a, b) = (Some("a@contoso.com".to_owned()), Some("b@contoso.com".to_owned()));
        assert_eq!(parts, [(1, "hve", vec![a, b.clone()]), (2, "connector", vec![None, b])], "{whole}");
        let ends: Vec<_> = chapters.iter().map(|chapter| (chapter.part, chapter.answer.left)).collect();
        assert_eq!(ends, [(1, Left::Sent), (1, Left::Deferred), (2, Left::Sent)], "{whole}");
    }
}

#[test]
fn who_is_settled_for_good_is_known_by_address_also_behind_a_parting() {
    let case = Case::new();
    let accepted = case.accepted(DAY, "settled", &["a@contoso.com", "b@contoso.com", "c@contoso.com", "d@contoso.com"]);
    let (message, deliveries) = accepted.clone();
    let id = message.id;
    assert_eq!(search::settled(&case.connection, id), Ok(Vec::new()));
    let answers = vec![answer(Left::Failed, &[0]), answer(Left::Deferred, &[1, 3]), answer(Left::InDoubt, &[2])];
    case.tried(&accepted, Duration::from_secs(1), answers);
    let mut alone = deliveries[0].clone();
    alone.id.part = 2;
    alone.recipients.drain(..3);
    let parted = (message, vec![alone]);
    case.remember(&Record::Parted(Box::new(parted.clone())));
    case.tried(&parted, Duration::from_secs(2), vec![answer(Left::Removed, &[3])]);
    case.tried(&accepted, Duration::from_secs(3), vec![answer(Left::Sent, &[1])]);
    let mut settled = search::settled(&case.connection, id).expect("read");
    settled.sort();
    let expected = [("a@contoso.com", Left::Failed), ("b@contoso.com", Left::Sent), ("d@contoso.com", Left::Removed)];
    assert_eq!(settled, expected.map(|(address, left)| (address.to_owned(), left)));
}

#[tokio::test]
async fn what_was_given_just_before_is_known() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let settings = HistorySettings { keep: Some(DAY * 30), size: 1 << 30 };
    let history = History::open(&settings, temp.path(), 0, |trouble| panic!("{trouble:?}")).expect("opened");
    let case = Case { now: Clock::wall(), ..Case::new() };
    for _ in 0..50 {
        let (message, deliveries) = case.message(Duration::ZERO, "just now", &["a@contoso.com"]);
        let (id, at) = (message.id, message.accepted_at);
        history.remember(Record::Accepted(Box::new((message.clone(), deliveries.clone())))).await;
        let none = String::new;
        let (answers, delivery) = (vec![answer(Left::Sent, &[0])], deliveries[0].clone());
        let tried = Tried { message, delivery, account: none(), relay: none(), sender: none(), started: at, ended: at, answers };
        history.remember(Record::Ended(Box::new(tried))).await;
        assert_eq!(history.settled(id).await, Ok(vec![("a@contoso.com".to_owned(), Left::Sent)]));
    }
    assert_eq!(History::off().settled(case.ids.next(case.now)).await, Ok(Vec::new()));
}

#[test]
fn a_message_is_found_by_whatever_somebody_has_of_it() {
    let case = Case::new();
    let (wanted, _) = case.accepted(DAY * 3, "Re: Monthly report scan-2026.pdf", &["You@contoso.com", "me@contoso.com"]);
    let (other, _) = case.accepted(DAY, "Monthly invoice", &["else@contoso.com"]);
    for text in [
        &wanted.id.to_string(),
        &format!("{}.1", wanted.id).to_lowercase(),
        &wanted.message_id,
        wanted.message_id.trim_matches(['<', '>']),
        "you@contoso.com",
        "ME@CONTOSO.COM",
        "report",
        "monthly Report",
        "scan-2026.pdf",
        "pdf copier-3",
    ] {
        assert_eq!(case.by(text), [wanted.id], "{text}");
    }
    for text in ["", "copier-3", "10.20.0.7", "scan@contoso.com", "monthly"] {
        assert_eq!(case.by(text), [other.id, wanted.id], "{text}: newest first");
    }
    for text in ["nobody@contoso.com", "report invoice", "0000000000000", "mont"] {
        assert_eq!(case.by(text), [], "{text}");
    }
    let since = |days| case.found(|search| search.since = Some(case.now - DAY * days)).stories.len();
    assert_eq!((since(1), since(2), since(4)), (1, 1, 2));
}

#[test]
fn a_word_that_looks_like_a_queue_id_is_a_word_all_the_same() {
    let case = Case::new();
    let (message, _) = case.accepted(DAY, "notification0 ready", &["you@contoso.com"]);
    assert!(matches!(What::read("0000000000042"), What::Message(_)));
    let (numbered, _) = case.accepted(DAY, "order 0000000000042", &["you@contoso.com"]);
    assert_eq!(case.by("0000000000042"), [numbered.id]);
    assert_eq!(case.by("notification0"), [message.id]);
}

#[test]
fn a_story_has_every_attempt_with_its_whole_reply() {
    let case = Case::new();
    let accepted = case.accepted(DAY, "s", &["a@contoso.com", "b@contoso.com", "c@contoso.com"]);
    let minute = Duration::from_secs(60);
    case.tried(&accepted, minute, vec![answer(Left::Sent, &[0]), answer(Left::Deferred, &[1, 2])]);
    case.tried(&accepted, minute * 2, vec![answer(Left::Failed, &[1]), answer(Left::Sent, &[2])]);
    // A settlement that is recorded twice happened once.
    case.tried(&accepted, minute * 2, vec![answer(Left::Failed, &[1]), answer(Left::Sent, &[2])]);
    let found = case.found(|search| search.failed = true);
    let story = &found.stories[0];
    let told: Vec<_> = story.chapters.iter().map(|chapter| (chapter.answer.left, chapter.answer.ordinals.clone())).collect();
    assert_eq!(told, [(Left::Sent, vec![0]), (Left::Deferred, vec![1, 2]), (Left::Failed, vec![1]), (Left::Sent, vec![2])]);
    assert_eq!(story.chapters[3].answer.reply, "it was sent");
    assert_eq!(story.chapters[3].ended, accepted.0.accepted_at + minute * 2 + Duration::from_millis(200));
    assert_eq!(story.message.deliveries[0].recipients.len(), 3);
    assert_eq!(case.found(|search| search.what = What::read("s")).next, None);
}

#[test]
fn an_attempt_brings_back_a_message_whose_acceptance_was_lost() {
    let case = Case::new();
    let (message, mut deliveries) = case.message(DAY, "lost", &["a@contoso.com", "b@contoso.com"]);
    // One recipient was settled before.
    deliveries[0].recipients.remove(0);
    case.tried(&(message.clone(), deliveries.clone()), DAY / 24, vec![answer(Left::Sent, &[1])]);
    deliveries[0].id.part = 2;
    deliveries[0].recipients[0].address = "c@contoso.com".parse().expect("a mailbox");
    case.tried(&(message.clone(), deliveries), DAY / 24, vec![answer(Left::Sent, &[1])]);
    for text in ["lost", "b@contoso.com", "c@contoso.com"] {
        assert_eq!(case.by(text), [message.id], "{text}");
    }
    let story = search::story(&case.connection, message.id).expect("read").expect("a story");
    assert_eq!((story.message.deliveries.len(), story.chapters.len()), (2, 2));
    assert_eq!(story.message.deliveries[0].recipients, [None, Some("b@contoso.com".to_owned())]);
}

#[test]
fn pages_follow_each_other_without_gap_and_overlap() {
    let case = Case::new();
    let mut all: Vec<QueueId> = (0..25).map(|n| case.accepted(DAY / 6 * (25 - n), "page", &["you@contoso.com"]).0.id).collect();
    all.reverse();
    for text in ["", "page", "page you@contoso.com"] {
        for limit in [1, 4, 25, 100] {
            let (mut seen, mut before) = (Vec::new(), None);
            loop {
                let found = case.found(|search| {
                    *search = Search { what: What::read(text), before, limit, ..search.clone() };
                });
                seen.extend(found.stories.iter().map(|story| story.message.id));
                before = found.next;
                if before.is_none() {
                    break;
                }
            }
            assert_eq!(seen, all, "{text:?} {limit}");
        }
    }
}

#[test]
fn what_is_too_old_goes_and_takes_everything_with_it() {
    let case = Case::new();
    for days in 0..40 {
        for _ in 0..20 {
            let accepted = case.accepted(DAY * (39 - days), "old", &["you@contoso.com"]);
            case.tried(&accepted, DAY / 24, vec![answer(Left::Sent, &[0])]);
        }
    }
    assert_eq!((case.count("message"), case.count("attempt")), (800, 800));
    let limits = prune::Limits { keep: DAY * 10, size: u64::MAX, reserve: 0 };
    let mut slowest = Duration::ZERO;
    let mut steps = 0;
    loop {
        let began = Instant::now();
        let more = prune::step(&case.connection, &limits, case.now).expect("pruned");
        slowest = slowest.max(began.elapsed());
        steps += 1;
        if !more {
            break;
        }
    }
    assert!(steps > 2, "in steps");
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    // What came in exactly ten days ago is kept.
    assert_eq!((case.count("message"), case.count("attempt")), (220, 220));
    let days: i64 = case.connection.query_row("SELECT count(DISTINCT day) FROM term", [], |row| row.get(0)).expect("a count");
    assert_eq!(days, 11);
    assert_eq!(case.by("old").len(), 10);
}

#[test]
fn what_is_too_much_goes_from_its_oldest_end() {
    let case = Case::new();
    let newest = (0..2_000).map(|_| case.accepted(DAY, &"much ".repeat(20), &["you@contoso.com"]).0.id).last().expect("some");
    let before = prune::size(&case.connection).expect("a size");
    let limits = prune::Limits { keep: DAY * 90, size: before / 2, reserve: 0 };
    for _ in 0..100 {
        prune::step(&case.connection, &limits, case.now).expect("pruned");
    }
    let left = case.count("message");
    assert!((1..1_900).contains(&left), "{left}");
    assert_eq!(case.by("much").first(), Some(&newest));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_remembered_is_there_after_a_restart() {
    let case = Case::new();
    let dir = case.temp.path();
    let open = || History::open(&HistorySettings::default(), dir, 0, |trouble| panic!("{trouble:?}")).expect("opened");
    let history = open();
    let now = Clock::wall();
    let recent = Case { now, ..Case::new() };
    for n in 0..5_000 {
        history.remember(Record::Accepted(Box::new(recent.message(Duration::ZERO, &format!("n{n}"), &["you@contoso.com"])))).await;
    }
    drop(history);
    let history = open();
    let search = |text: &str| Search { what: What::read(text), since: None, failed: false, before: None, limit: 10 };
    for subject in ["n0", "n2500", "n4999"] {
        assert_eq!(history.find(search(subject)).await.expect("found").stories.len(), 1, "{subject}");
    }
    assert_eq!(History::off().find(search("n0")).await, Ok(Found::default()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trouble_is_told_and_keeps_nobody_waiting() {
    let case = Case::new();
    let (told, heard) = mpsc::channel();
    let tell = move |trouble| told.send(trouble).expect("heard");
    // More than any disk has.
    let history = History::open(&HistorySettings::default(), case.temp.path(), u64::MAX, tell).expect("opened");
    for _ in 0..3 * WAITING_MAX {
        history.remember(Record::Accepted(Box::new(case.message(DAY, "s", &["you@contoso.com"])))).await;
    }
    let trouble = heard.recv_timeout(Duration::from_secs(60)).expect("told");
    assert!(trouble.records > 0 && trouble.why.contains("free_space_reserve"), "{trouble:?}");
}

#[test]
fn nobody_else_can_read_it() {
    let case = Case::new();
    for name in ["history.db", "history.db-wal", "history.db-shm"] {
        let mode = std::fs::metadata(case.temp.path().join(name)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_file_that_is_none_is_refused_with_its_name() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let open = || History::open(&HistorySettings::default(), temp.path(), 0, |_| {});
    std::fs::write(temp.path().join("history.db"), "no database, and longer than the header of one would be".repeat(10)).expect("written");
    let refusal = open().expect_err("no database").to_string();
    assert!(refusal.contains("history.db"), "{refusal}");
    std::fs::remove_file(temp.path().join("history.db")).expect("removed");
    tables::open(&temp.path().join("history.db")).expect("created").pragma_update(None, "user_version", 9).expect("set");
    assert!(matches!(open(), Err(OpenError::Version { found: 9, .. })));
}

#[test]
fn a_month_is_added_up_by_each_group() {
    let case = Case::new();
    let to = &["a@contoso.com", "b@contoso.com"];
    case.accepted(DAY * 60, "another month", to);
    for n in 1..=100 {
        let accepted = case.accepted(DAY, "s", to);
        case.tried(&accepted, Duration::from_secs(n), vec![answer(Left::Deferred, &[0, 1])]);
        case.tried(&accepted, Duration::from_secs(2 * n), vec![answer(Left::Sent, &[0]), answer(Left::Failed, &[1])]);
    }
    let ids = QueueId::first_at(case.now - DAY * 30)..QueueId::first_at(case.now);
    for (group, name) in [
        (Group::Client, "copier-3"),
        (Group::Account, "hve01@contoso.com"),
        (Group::Sender, "scan@contoso.com"),
        (Group::Day, "2026-11-20"),
        (Group::Class, "internal"),
    ] {
        let lines = report::report(&case.connection, group, ids.clone()).expect("read");
        let wait = |seconds: u64| Some(Duration::from_millis(seconds * 1_000 + 200));
        let line = Line {
            name: name.to_owned(),
            messages: 100,
            sent: 100,
            octets: 400_000,
            failed: 100,
            deferrals: 200,
            median: wait(100),
            p99: wait(198),
        };
        assert_eq!(lines, [line], "{group:?}");
    }
}
