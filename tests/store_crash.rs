//! Kill, fill and break the store in a process of its own, then look at what is left.
//!
//! The child is this same test binary, told by the environment what to do. It prints a line after each thing that was acknowledged to it (and
//! one before each that begins); the parent ends it, opens what it left, and holds it to those lines.

#[path = "store/samples.rs"]
mod samples;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use hve_relay::mail::{AccountName, DeliveryId, QueueId, QueueIds, Queued};
use hve_relay::store::sqlite::Sqlite;
use hve_relay::store::{Bookkeeping, BudgetRow, Incoming, Settings, Spool, StoreError};
use samples::{SIZES, accept, is_intact, now, settled, start};

const ROLE: &str = "STORE_CRASH_ROLE";
const DIR: &str = "STORE_CRASH_DIR";

/// How many lines a child may print before it is killed; so near to the start, and so far into it.
const KILL_AFTER: [usize; 9] = [1, 2, 5, 17, 40, 100, 250, 600, 1_000];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let mut acknowledged = BTreeSet::new();
    for lines in KILL_AFTER {
        acknowledged.extend(run_until_killed("accept", temp.path(), lines).into_iter().map(|(_, id)| id));
        let left = left_in(temp.path()).await;
        let missing: Vec<_> = acknowledged.iter().filter(|id| !left.contains_key(id)).collect();
        assert!(missing.is_empty(), "after {lines} lines: {missing:?}");
    }
    assert!(acknowledged.len() >= KILL_AFTER.iter().sum());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_settled_stays_so_and_what_was_started_is_in_doubt() {
    for lines in KILL_AFTER {
        let temp = tempfile::tempdir().expect("temporary directory");
        let mut last: BTreeMap<QueueId, String> = BTreeMap::new();
        for (state, id) in run_until_killed("deliver", temp.path(), lines) {
            last.insert(id, state);
        }
        let left = left_in(temp.path()).await;
        for (id, state) in &last {
            let found = left.get(id);
            let as_promised = match state.as_str() {
                "accepted" => found == Some(&Left { in_doubt: false, attempts: 0 }),
                "starting" => found.is_some(),
                "started" => found == Some(&Left { in_doubt: true, attempts: 0 }),
                "settling" => true,
                "deferred" => found == Some(&Left { in_doubt: false, attempts: 1 }),
                "settled" => found.is_none(),
                other => panic!("{other}"),
            };
            assert!(as_promised, "after {lines} lines: {id} was {state} and is {found:?}");
        }
        // What an attempt uses of the budgets is recorded if and only if its begin is.
        let used = used_in(temp.path()).await;
        let begun = |id: &&QueueId| left.get(id).is_none_or(|left| left.in_doubt || left.attempts == 1);
        assert!(last.keys().all(|id| begun(&id) == used.contains(&id.to_string())), "after {lines} lines");
        assert!(left.iter().filter(|(id, _)| !last.contains_key(id)).all(|(_, left)| left.attempts == 0), "nothing is done unheard");
    }
}

#[test]
fn a_second_process_is_told_who_has_the_directory() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let _first = Sqlite::open(&settings(temp.path())).expect("opened");
    let output = child("open", temp.path()).output().expect("run");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains(&format!("pid {}", std::process::id())), "{told}");
}

/// A file size limit makes the write-ahead log fail as a broken disk would: in the middle of a commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_write_is_final_and_loses_nothing() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let inner = child("break", temp.path());
    let mut limited = Command::new("sh");
    // Blocks of 512 octets. Without the trap the limit would kill the process instead of failing its write.
    limited.args(["-c", "trap '' XFSZ; ulimit -f 4096; exec \"$0\" \"$@\""]).arg(inner.get_program()).args(inner.get_args());
    limited.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = limited.output().expect("run");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("latched"), "{told} {}", String::from_utf8_lossy(&output.stderr));

    let left = left_in(temp.path()).await;
    let acknowledged: Vec<_> = lines_of(told.as_bytes()).collect();
    assert!(acknowledged.len() > 20, "{}", acknowledged.len());
    assert!(acknowledged.iter().all(|(_, id)| left.contains_key(id)));
}

/// On a small file system of the child's own, where the system lets us make one: mail is refused, deliveries are recorded, mail is taken again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_mail_and_still_records_deliveries() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let mounted = |program: &str| {
        let mut command = Command::new("unshare");
        let script = "mount -t tmpfs -o size=64m tmpfs \"$0\" && exec \"$@\"";
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]).arg(temp.path()).arg(program);
        command
    };
    if !mounted("true").output().is_ok_and(|output| output.status.success()) {
        eprintln!("this system does not let users mount; the writer's unit tests cover a full database");
        return;
    }
    let inner = child("fill", temp.path());
    let mut command = mounted(&inner.get_program().to_string_lossy());
    command.args(inner.get_args()).envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.output().expect("run");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("served again"), "{told} {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_large_message_is_never_held_in_memory() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let output = child("large", temp.path()).output().expect("run");
    let told = String::from_utf8_lossy(&output.stdout);
    let grown = told.lines().find_map(|line| line.strip_prefix("grown by ")).and_then(|kib| kib.parse::<u64>().ok());
    assert!(grown.is_some_and(|kib| kib < 4 << 10), "{told} {}", String::from_utf8_lossy(&output.stderr));
}

/// Not a test: what the child does. Without a role it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_process() {
    let (Ok(role), Ok(dir)) = (std::env::var(ROLE), std::env::var(DIR)) else { return };
    // The test runner has begun a line of its own.
    say(format_args!(""));
    let spool = match Sqlite::open(&settings(Path::new(&dir))) {
        Ok(spool) => Arc::new(spool),
        Err(refusal) => return say(format_args!("{refusal}")),
    };
    match role.as_str() {
        "open" => {}
        "accept" | "deliver" => endless_mail(spool, role == "deliver").await,
        "break" => until_it_breaks(&spool).await,
        "fill" => fill(&spool).await,
        "large" => one_large_message(&spool).await,
        other => panic!("{other}"),
    }
}

/// Eight sessions that accept, and if wanted deliver, until the process is killed.
async fn endless_mail(spool: Arc<Sqlite>, deliver: bool) {
    let ids = Arc::new(QueueIds::new(1, spool.newest()));
    let sessions: Vec<_> = (0..8)
        .map(|session: usize| {
            let (spool, ids) = (spool.clone(), ids.clone());
            tokio::spawn(async move {
                for number in session.. {
                    let id = ids.next(now());
                    accept(&*spool, id, SIZES[number % SIZES.len()], &[2]).await.expect("accepted");
                    say(format_args!("accepted {id}"));
                    if deliver {
                        attempt(&spool, id, number % 4).await;
                    }
                }
            })
        })
        .collect();
    for session in sessions {
        session.await.expect("endless");
    }
}

async fn attempt(spool: &Sqlite, id: QueueId, kind: usize) {
    let delivery = DeliveryId { message: id, part: 1 };
    say(format_args!("starting {id}"));
    // A line of its own, and one that all write.
    let budget = vec![used(&id.to_string(), 1), used("all", 2)];
    let job = start(spool, delivery, 2, budget).await.expect("found");
    assert!(is_intact(&job));
    say(format_args!("started {id}"));
    let (ordinals, outcome) = match kind {
        0 => return,
        1 => (&[1][..], "deferred"),
        _ => (&[0, 1][..], "settled"),
    };
    say(format_args!("settling {id}"));
    spool.keep_ledger(Bookkeeping::Changed(vec![used("all", 1)])).await.expect("kept");
    spool.settle(settled(delivery, ordinals)).await.expect("settled");
    say(format_args!("{outcome} {id}"));
}

async fn until_it_breaks(spool: &Sqlite) {
    for number in 1.. {
        let id = samples::id(number);
        match accept(spool, id, 5_000, &[1]).await {
            Ok(()) => say(format_args!("accepted {id}")),
            Err(StoreError::Fatal(_)) => break,
            Err(other) => panic!("{other}"),
        }
    }
    let first = DeliveryId { message: samples::id(1), part: 1 };
    let after = [accept(spool, samples::id(9_999_999), 10, &[1]).await, spool.settle(settled(first, &[0])).await.map(drop)];
    assert!(after.iter().all(|outcome| matches!(outcome, Err(StoreError::Fatal(_)))), "{after:?}");
    say(format_args!("latched"));
}

async fn fill(spool: &Sqlite) {
    // As something else would fill the disk: not by mail alone, which stops before.
    let dir = std::env::var(DIR).expect("a directory");
    let mut accepted = 0;
    while accepted < 200 {
        accepted += 1;
        accept(spool, samples::id(accepted), 20_000, &[1]).await.expect("accepted");
    }
    let other = Path::new(&dir).join("other");
    let mut file = std::fs::File::create(&other).expect("created");
    while file.write_all(&[1; 4_096]).is_ok() {}

    let refused = loop {
        match accept(spool, samples::id(accepted + 1), 20_000, &[1]).await {
            Ok(()) => accepted += 1,
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, StoreError::Full(_)), "{refused}");
    for number in 1..=accepted {
        let delivery = DeliveryId { message: samples::id(number), part: 1 };
        let job = start(spool, delivery, 1, vec![used(&delivery.message.to_string(), 1)]).await.expect("found");
        assert!(is_intact(&job));
        spool.keep_ledger(Bookkeeping::Changed(vec![used("all", 1)])).await.expect("recorded");
        spool.settle(settled(delivery, &[0])).await.expect("recorded");
    }
    assert!(!Path::new(&dir).join("spool/ballast").exists(), "it was needed");
    drop(file);
    std::fs::remove_file(&other).expect("removed");
    // The free space is looked at once a second.
    while let Err(refused) = accept(spool, samples::id(accepted + 1), 20_000, &[1]).await {
        assert!(matches!(refused, StoreError::Full(_)), "{refused}");
        tokio::task::yield_now().await;
    }
    say(format_args!("served again"));
}

async fn one_large_message(spool: &Sqlite) {
    accept(spool, samples::id(1), 1_000_000, &[1]).await.expect("accepted");
    let before = peak_kib();
    let (message, deliveries) = samples::message(samples::id(2), 64 << 20, &[1]);
    let mut incoming = spool.begin(samples::id(2), 64 << 20).expect("room");
    let piece = vec![b'x'; 16 << 10];
    for _ in 0..4_096 {
        incoming.write(&piece).await.expect("written");
    }
    spool.accept(message, deliveries, incoming).await.expect("accepted");
    say(format_args!("grown by {}", peak_kib() - before));
}

/// The most memory that this process ever had.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("readable");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("on Linux");
    peak.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn say(line: std::fmt::Arguments) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn settings(dir: &Path) -> Settings {
    Settings { data_dir: dir.join("spool"), reserve: 0, message_size: 10_485_760 }
}

fn child(role: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["child_process", "--exact", "--nocapture", "--test-threads=1"]).env(ROLE, role).env(DIR, dir);
    command
}

/// Runs a child, kills it after so many lines, and returns all that it had printed by then.
fn run_until_killed(role: &str, dir: &Path, lines: usize) -> Vec<(String, QueueId)> {
    let mut child = child(role, dir).stdout(Stdio::piped()).spawn().expect("run");
    let mut out = BufReader::new(child.stdout.take().expect("piped"));
    let mut told = Vec::new();
    let mut counted = 0;
    while counted < lines {
        let begin = told.len();
        assert!(out.read_until(b'\n', &mut told).expect("readable") > 0, "the child ended by itself");
        counted += lines_of(&told[begin..]).count();
    }
    child.kill().expect("killed");
    while out.read_until(b'\n', &mut told).expect("readable") > 0 {}
    child.wait().expect("ended");
    lines_of(&told[..]).collect()
}

/// What a child said about its messages; a line that was cut off is none.
fn lines_of(told: &[u8]) -> impl Iterator<Item = (String, QueueId)> {
    let whole = told.split_inclusive(|octet| *octet == b'\n').filter(|line| line.ends_with(b"\n"));
    whole.filter_map(|line| {
        let (state, id) = std::str::from_utf8(line).ok()?.trim_end().split_once(' ')?;
        Some((state.to_owned(), id.parse().ok()?))
    })
}

/// What is used of a limit, by one account.
fn used(limit: &str, amount: u32) -> BudgetRow {
    BudgetRow { account: Some(AccountName::new("hve01@contoso.com")), limit: limit.into(), index: 0, at: Some(now()), amount }
}

/// The limits of which something is used.
async fn used_in(dir: &Path) -> BTreeSet<String> {
    let spool = Sqlite::open(&settings(dir)).expect("opened");
    let ledger = spool.ledger().await.expect("served");
    spool.close().await;
    ledger.budget.into_iter().map(|row| row.limit).collect()
}

/// What is left of a message.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    in_doubt: bool,
    attempts: u32,
}

/// Opens what is left and checks that all of it is whole.
async fn left_in(dir: &Path) -> BTreeMap<QueueId, Left> {
    let spool = Sqlite::open(&settings(dir)).expect("opened");
    assert!(spool.recovered().damaged.is_empty(), "{:?}", spool.recovered());
    let mut left = BTreeMap::new();
    let note = |queued: Queued| {
        left.insert(queued.id.message, Left { in_doubt: queued.in_doubt.is_some(), attempts: queued.attempts });
    };
    spool.queued(note).await.expect("listed");
    for id in left.keys() {
        let job = spool.load(DeliveryId { message: *id, part: 1 }).await.expect("served").expect("found");
        assert!(is_intact(&job), "{id}");
    }
    spool.close().await;
    left
}
