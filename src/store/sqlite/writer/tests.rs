//! What the writer does with groups, with guilty operations and with a database that is full.

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::store::sqlite::place::Place;
use crate::store::sqlite::read::{self, Readers};
use crate::store::sqlite::space::Space;
use crate::store::sqlite::{Latch, Recent, samples, schema};

type Answer = oneshot::Receiver<Result<Done, StoreError>>;

/// A store whose writer runs when the test says so.
struct Bench {
    _temp: TempDir,
    shared: Arc<Shared>,
    connection: Connection,
}

impl Bench {
    fn new() -> Self {
        let temp = tempfile::tempdir().expect("temporary directory");
        let (place, _lock) = Place::take(temp.path()).expect("a place");
        let connection = schema::open(&place.database()).expect("a database");
        let space = Arc::new(Space::new(temp.path().to_owned(), 0).expect("a file system"));
        let readers = Readers::new(place.database());
        let (latch, recent, counters) = (Latch::default(), Recent::default(), Counters::default());
        Self { _temp: temp, shared: Arc::new(Shared { place, space, latch, readers, recent, counters }), connection }
    }

    /// Has the writer do all of these, which were all waiting when it came to them.
    fn run(&mut self, operations: Vec<Operation>) -> Vec<Result<Done, StoreError>> {
        let connection = std::mem::replace(&mut self.connection, Connection::open_in_memory().expect("a placeholder"));
        let ballast = Ballast::new(self.shared.place.ballast(), self.shared.space.clone());
        let mut writer = Writer::new(connection, self.shared.clone(), ballast);
        let (requests, answers): (Vec<Request>, Vec<Answer>) = operations
            .into_iter()
            .map(|operation| {
                let (answer, answered) = oneshot::channel();
                (Request { operation, answer }, answered)
            })
            .unzip();
        writer.record(requests);
        writer.keep_log_short(LOG_PAGES);
        self.connection = writer.connection;
        answers.into_iter().map(|mut answer| answer.try_recv().expect("each is answered")).collect()
    }

    fn queued(&self) -> Vec<DeliveryId> {
        let mut found = Vec::new();
        read::queued(&self.connection, |queued| {
            found.push(queued.id);
            true
        })
        .expect("readable");
        found
    }

    /// Index and amount of all lines of the ledgers.
    fn used(&self) -> Vec<(u32, u32)> {
        read::ledger(&self.connection).expect("readable").budget.into_iter().map(|row| (row.index, row.amount)).collect()
    }

    /// How many rows are changed by what is done.
    fn changes(&mut self, done: impl FnOnce(&mut Self)) -> u64 {
        let before = self.connection.total_changes();
        done(self);
        self.connection.total_changes() - before
    }

    fn count(&self, table: &str) -> i64 {
        self.connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("a count")
    }
}

fn accept(number: i64, octets: usize) -> Operation {
    let (message, deliveries) = samples::message(number, &[1]);
    Operation::Accept { message, deliveries, body: Body::Row(Bytes::from(vec![b'x'; octets])) }
}

fn settle(number: i64) -> Operation {
    let (_, deliveries) = samples::message(number, &[1]);
    let delivery = deliveries[0].id;
    let due = Timestamp::default();
    Operation::Settle(Settlement {
        delivery,
        settled: vec![0],
        parted: Vec::new(),
        due,
        last_reply: String::new(),
        attempts: 1,
        telling: Telling::default(),
        hold: None,
        in_doubt: false,
    })
}

/// What is used, by one attempt and by all.
fn using(number: i64, amount: u32) -> Operation {
    let at = Some(Timestamp::default());
    let row = |index, amount| BudgetRow { account: None, limit: "day".into(), index, at, amount };
    Operation::KeepLedger(Bookkeeping::Changed(vec![row(0, amount), row(number as u32, amount)]))
}

#[test]
fn what_waits_together_is_committed_together() {
    let mut bench = Bench::new();
    let answers = bench.run((0..100).map(|number| accept(number, 100)).collect());
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(bench.shared.counters.commits.load(Ordering::Relaxed), 1);
    assert_eq!(bench.shared.counters.operations.load(Ordering::Relaxed), 100);
    assert_eq!(bench.queued().len(), 100);
}

/// The groups that are made of these, which have all been sent; of each whether its operations are ends of attempts.
fn groups(linger: Duration, operations: Vec<Operation>) -> Vec<Vec<bool>> {
    let (send, requests) = mpsc::channel(operations.len());
    for operation in operations {
        send.try_send(Request { operation, answer: oneshot::channel().0 }).expect("room");
    }
    let mut waiting = Waiting::new(requests, linger);
    let mut groups = vec![waiting.group().expect("the first")];
    drop(send);
    groups.extend(std::iter::from_fn(|| waiting.group()));
    groups.iter().map(|group| group.iter().map(|request| matches!(request.operation, Operation::Settle(_))).collect()).collect()
}

#[test]
fn ends_of_attempts_gather_and_keep_nobody_waiting() {
    let ends_and_mail = || vec![settle(1), accept(2, 10), settle(3), accept(4, 10)];
    assert_eq!(groups(Duration::from_secs(3_600), ends_and_mail()), [[false, false], [true, true]]);
    assert_eq!(groups(Duration::ZERO, ends_and_mail()), [[false, false, true, true]], "their time has come");
    assert_eq!(groups(LINGER, vec![settle(1), settle(2)]), [[true, true]], "and comes without anything else");
    let many = || (0..2 * GROUP_MAX as i64).map(settle).collect();
    assert_eq!(groups(Duration::from_secs(3_600), many()).iter().map(Vec::len).collect::<Vec<_>>(), [GROUP_MAX, GROUP_MAX]);
}

#[test]
fn only_the_guilty_fails() {
    let mut bench = Bench::new();
    let answers = bench.run(vec![accept(1, 10), accept(2, 10), accept(1, 10), accept(3, 10)]);
    let failed: Vec<bool> = answers.iter().map(Result::is_err).collect();
    assert_eq!(failed, [false, false, true, false]);
    assert!(matches!(answers[2], Err(StoreError::Unavailable(_))), "{:?}", answers[2]);
    assert_eq!(bench.count("message"), 3);
}

#[test]
fn a_line_of_a_ledger_is_written_once_for_all_who_wait_together() {
    let mut bench = Bench::new();
    let changed = bench.changes(|bench| drop(bench.run((1..=50).map(|number| using(number, 1_000 - number as u32)).collect())));
    assert_eq!(changed, 50 + 1, "a line each, and one for all");
    assert_eq!(bench.used()[0], (0, 950), "what the last one said, although it is not the most");
}

#[test]
fn a_full_database_refuses_mail_and_still_records_deliveries() {
    let mut bench = Bench::new();
    let pages: i64 = bench.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).expect("a number");
    bench.connection.query_row(&format!("PRAGMA max_page_count = {}", pages + 100), [], |_| Ok(())).expect("a limit");

    let answers = bench.run((0..40).map(|number| accept(number, 20_000)).collect());
    let acknowledged = answers.iter().filter(|answer| answer.is_ok()).count();
    assert!((5..40).contains(&acknowledged), "{acknowledged}");
    assert!(answers.iter().all(|answer| matches!(answer, Ok(_) | Err(StoreError::Full(_)))), "{answers:?}");
    assert_eq!(bench.queued().len(), acknowledged, "what was acknowledged is there, and nothing else");

    let done = bench.run(vec![settle(0), settle(1), settle(2)]);
    assert!(done.iter().all(Result::is_ok), "{done:?}");
    assert!(bench.run(vec![accept(100, 20_000)])[0].is_ok(), "there is room again");
    assert!(!bench.shared.latch.is_closed());
}

#[test]
fn a_settled_message_leaves_nothing() {
    let mut bench = Bench::new();
    bench.run(vec![accept(1, 100), settle(1)]);
    for table in ["message", "content", "delivery", "recipient"] {
        assert_eq!(bench.count(table), 0, "{table}");
    }
    assert_eq!(statements::newest(&bench.connection).expect("readable"), QueueId::from_number(1), "but its id is not given again");
}

#[test]
fn after_a_fatal_fault_nothing_is_written() {
    let mut bench = Bench::new();
    bench.run(vec![accept(1, 10)]);
    bench.shared.latch.note(StoreError::Fatal("disk I/O error".into()));
    let answers = bench.run(vec![accept(2, 10), settle(1)]);
    assert!(answers.iter().all(|answer| matches!(answer, Err(StoreError::Fatal(_)))), "{answers:?}");
    assert_eq!(bench.queued().len(), 1);
}

#[test]
fn the_log_is_copied_into_the_database_before_it_grows() {
    let mut bench = Bench::new();
    for group in 0..40 {
        bench.run((0..10).map(|number| accept(group * 10 + number, 20_000)).collect());
    }
    assert!(bench.shared.counters.checkpoints.load(Ordering::Relaxed) >= 1);
    let log = std::fs::metadata(bench.shared.place.database().with_extension("db-wal")).expect("the log").len();
    assert!(log < 12 << 20, "{log}");
}
