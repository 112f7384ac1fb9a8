//! A queue that is saved and put back, written to files and read from them, looked at and set right: by the real binary, also when it is killed on its
//! way, and beside a relay that goes on relaying.

#[path = "store/samples.rs"]
mod samples;
mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use hve_relay::mail::{DeliveryId, QueueId};
use hve_relay::sim::{Fault, Step};
use hve_relay::store::sqlite::{OpenError, Sqlite};
use hve_relay::store::{Listed, Settings, Spool};
use samples::{SIZES, accept, id, is_intact, settled, start};
use serde_json::Value;
use support::client::Client;
use support::relay::Relay;
use support::{World, field, mail, snapshot, until};

/// Messages in a queue; a third of them with contents in files.
const MESSAGES: i64 = 30;

/// A data directory that no relay uses, and a configuration that names it.
struct Bed(tempfile::TempDir);

impl Bed {
    /// With an empty queue, or none.
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        support::secure::put(&folder.path().join("hve01.password"), "secret");
        let toml = format!(
            "data_dir = \"{0}/data\"\nhostname = \"relay.contoso.com\"\n[tenant]\nprofile = \"hve-preview\"\naccepted_domains = [\"contoso.com\"]\n\
             [[listener]]\naddress = \"127.0.0.1:0\"\n[[client]]\nname = \"devices\"\nnetworks = [\"127.0.0.0/8\"]\n\
             [[account]]\naddress = \"hve01@contoso.com\"\npassword_file = \"{0}/hve01.password\"\n",
            folder.path().display()
        );
        fs::write(folder.path().join("hve-relay.toml"), toml).expect("written");
        Self(folder)
    }

    /// With so many messages; the first is being attempted.
    fn with(messages: i64) -> Self {
        let bed = Self::new();
        support::runtime().block_on(async {
            let spool = bed.open();
            for number in 1..=messages {
                accept(&spool, id(number), SIZES[number as usize % SIZES.len()], &[2, 1]).await.expect("accepted");
            }
            start(&spool, part(1), 2, Vec::new()).await.expect("there");
            spool.close().await;
        });
        bed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn open(&self) -> Sqlite {
        self.try_open().expect("opened")
    }

    fn try_open(&self) -> Result<Sqlite, OpenError> {
        Sqlite::open(&Settings { data_dir: self.path("data"), reserve: 0, message_size: 10_485_760 })
    }

    /// Everything that is queued. Each message must be whole.
    fn queued(&self) -> Vec<Listed> {
        support::runtime().block_on(async {
            let spool = self.open();
            assert_eq!(spool.recovered().damaged, [], "damaged");
            let listed = spool.list(None, 1_000).await.expect("listed");
            for Listed { delivery, .. } in &listed {
                let job = spool.load(delivery.id).await.expect("served").expect("there");
                assert!(is_intact(&job), "{}", delivery.id);
            }
            spool.close().await;
            listed
        })
    }

    fn ids(&self) -> Vec<QueueId> {
        let mut ids: Vec<QueueId> = self.queued().into_iter().map(|listed| listed.message.id).collect();
        ids.dedup();
        ids
    }

    fn command(&self, line: &str) -> Command {
        command(&self.path("hve-relay.toml"), &line.replace("DIR", &self.0.path().display().to_string()))
    }

    fn run(&self, line: &str) -> Said {
        Said::of(self.command(line).output().expect("it runs"))
    }

    /// Runs a command on a bed like this one and kills it after a part of the time that it takes; again and again, each time later. Each time
    /// `after` looks at what is there.
    fn killed(line: &str, make: impl Fn() -> Self, mut after: impl FnMut(&Self, usize)) {
        const TIMES: u32 = 7;
        let bed = make();
        let begun = Instant::now();
        bed.run(line).ok();
        let whole = begun.elapsed();
        for time in 1..=TIMES {
            let bed = make();
            let mut child = bed.command(line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
            let end = Instant::now() + whole * time / (TIMES + 1);
            while Instant::now() < end && child.try_wait().expect("its state").is_none() {
                std::thread::yield_now();
            }
            // It may have come to its end before: then there is nothing to be killed.
            let _ = child.kill();
            child.wait().expect("its end");
            after(&bed, time as usize);
        }
    }
}

fn part(number: i64) -> DeliveryId {
    DeliveryId { message: id(number), part: 1 }
}

fn all() -> Vec<QueueId> {
    (1..=MESSAGES).map(id).collect()
}

fn command(config: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hve-relay"));
    command.args(line.split(' ')).arg("--config").arg(config).stdin(Stdio::null());
    command
}

fn run(config: &Path, line: &str) -> Said {
    Said::of(command(config, line).output().expect("it runs"))
}

struct Said {
    status: i32,
    out: String,
    err: String,
}

impl Said {
    fn of(output: Output) -> Self {
        let text = |octets: Vec<u8>| String::from_utf8(octets).expect("text");
        Self { status: output.status.code().expect("an exit status"), out: text(output.stdout), err: text(output.stderr) }
    }

    fn ok(self) -> String {
        assert_eq!(self.status, 0, "{}{}", self.out, self.err);
        self.out
    }

    fn refused(self, status: i32, with: &str) {
        assert_eq!(self.status, status, "{}{}", self.out, self.err);
        assert!(format!("{}{}", self.out, self.err).contains(with), "{:?}{:?} does not say {with:?}", self.out, self.err);
    }
}

#[test]
fn what_is_restored_is_what_was_queued_and_is_held_until_somebody_knows() {
    let bed = Bed::with(MESSAGES);
    let before = bed.queued();
    let folder = bed.0.path().display().to_string();
    let said = bed.run("backup --to DIR/backup").ok();
    assert!(said.contains("30 messages in 60 deliveries") && said.contains("verified"), "{said}");
    snapshot::same("backup", &said, &[(&folder, "DIR")]);
    // Two leave after that, and the disk is lost.
    support::runtime().block_on(async {
        let spool = bed.open();
        for number in [1, 2] {
            spool.settle(settled(part(number), &[0, 1])).await.expect("settled");
        }
        spool.close().await;
    });
    fs::remove_dir_all(bed.path("data")).expect("lost");
    let said = bed.run("restore --from DIR/backup").ok();
    assert!(said.contains("All of it is held") && said.contains("Budgets count as used up"), "{said}");
    snapshot::same("restore", &said, &[(&folder, "DIR")]);
    let after = bed.queued();
    assert_eq!(after.len(), before.len());
    for (before, after) in before.iter().zip(&after) {
        assert!(after.held && after.hold_reason.contains("restored from the backup of 20"), "{after:?}");
        let (held, hold_reason, doubts) = (before.held, before.hold_reason.clone(), before.doubts);
        assert_eq!(after.doubts, before.doubts + 1);
        assert_eq!(Listed { held, hold_reason, doubts, ..after.clone() }, *before, "otherwise it is the same");
    }
    // The attempt that was under way is found as cut off when the relay starts.
    let doubtful = support::runtime().block_on(async {
        let mut doubtful = Vec::new();
        bed.open().queued(|queued| doubtful.extend(queued.in_doubt.is_some().then_some(queued.id))).await.expect("read");
        doubtful
    });
    assert_eq!(doubtful, [part(1)]);

    // The same once more: what is there is kept, its budgets are believed, and this time all of it is to go.
    let said = bed.run("restore --from DIR/backup --in-doubt resend").ok();
    assert!(said.contains("comes twice") && said.contains("Budgets are as the replaced queue had them"), "{said}");
    assert!(bed.queued().iter().all(|listed| !listed.held && listed.doubts == 1));
    assert!(bed.path("data/before-restore-1/queue.db").is_file() && bed.path("data/before-restore-1/content").is_dir());
    assert!(bed.run("fsck").ok().contains("30 queued messages, 9 contents in files: sound"));
}

#[test]
fn a_backup_that_is_not_whole_is_not_restored() {
    let bed = Bed::with(MESSAGES);
    bed.run("backup --to DIR/backup").ok();
    bed.run("backup --to DIR/backup").refused(74, "not empty");
    bed.run("restore --from DIR/nowhere").refused(74, "it is no backup");
    let shelf = fs::read_dir(bed.path("backup/content")).expect("contents").next().expect("a shelf").expect("an entry").path();
    let content = fs::read_dir(shelf).expect("a shelf").next().expect("a content").expect("an entry").path();
    let octets = fs::read(&content).expect("readable");
    fs::write(&content, &octets[1..]).expect("written");
    bed.run("restore --from DIR/backup").refused(74, "octets, and had");
    let mut other = octets.clone();
    other[7] ^= 1;
    fs::write(&content, &other).expect("written");
    bed.run("restore --from DIR/backup").refused(74, "its content is another");
    fs::write(&content, &octets).expect("written");
    let manifest = fs::read_to_string(bed.path("backup/backup.json")).expect("a manifest");
    fs::write(bed.path("backup/backup.json"), manifest.replace("\"format\": 1", "\"format\": 2")).expect("written");
    bed.run("restore --from DIR/backup").refused(74, "made by a newer hve-relay");
    assert_eq!(bed.ids(), all(), "nothing was touched");
    fs::write(bed.path("backup/backup.json"), manifest).expect("written");
    bed.run("restore --from DIR/backup").ok();
}

#[test]
fn a_backup_that_is_killed_is_none_and_harms_nothing() {
    Bed::killed(
        "backup --to DIR/backup",
        || Bed::with(MESSAGES),
        |bed, time| {
            assert_eq!(bed.ids(), all(), "{time}");
            if !bed.path("backup/backup.json").exists() {
                bed.run("restore --from DIR/backup").refused(74, "it is no backup, or one that was not finished");
            }
            bed.run("backup --to DIR/another").ok();
            fs::remove_dir_all(bed.path("data")).expect("lost");
            bed.run("restore --from DIR/another").ok();
            assert_eq!(bed.ids(), all(), "{time}");
        },
    );
}

#[test]
fn a_restore_that_is_killed_is_finished_by_the_next_and_deletes_nothing() {
    let saved = Bed::with(MESSAGES);
    saved.run("backup --to DIR/backup").ok();
    let line = format!("restore --from {}", saved.path("backup").display());
    // What is replaced has two more messages.
    let make = || Bed::with(MESSAGES + 2);
    Bed::killed(&line, make, |bed, time| {
        match bed.try_open() {
            Ok(spool) => drop(spool),
            // No relay starts on half of one queue and half of another.
            Err(OpenError::Restoring { .. }) => {}
            Err(error) => panic!("{time}: {error}"),
        }
        let held = |bed: &Bed| bed.queued().iter().all(|listed| listed.held);
        if !bed.path("data/restoring").exists() {
            let ids = bed.ids();
            assert!(ids == all() && held(bed) || ids.len() == MESSAGES as usize + 2, "{time}: {ids:?}");
        }
        bed.run(&line).ok();
        assert_eq!(bed.ids(), all(), "{time}");
        assert!(held(bed));
        let kept: Vec<PathBuf> =
            (1..9).map(|number| bed.path(&format!("data/before-restore-{number}/queue.db"))).filter(|path| path.is_file()).collect();
        assert!(!kept.is_empty(), "{time}");
        let count = |path: &PathBuf| {
            let connection = rusqlite::Connection::open(path).expect("opened");
            connection.query_row("SELECT count(*) FROM message", [], |row| row.get::<_, i64>(0)).expect("a count")
        };
        assert!(kept.iter().any(|path| count(path) == MESSAGES + 2), "{time}: what was there is kept");
    });
}

#[test]
fn messages_go_into_files_and_come_back_the_same_once() {
    let bed = Bed::with(MESSAGES);
    let before = bed.queued();
    let said = bed.run(&format!("queue export {} {} --to DIR/two", id(3), id(99))).out;
    assert!(said.contains("1 message written") && said.contains(&format!("{} is not queued", id(99))), "{said}");
    bed.run("queue export --all --to DIR/mail").ok();
    let envelope: Value = serde_json::from_slice(&fs::read(bed.path(&format!("mail/{}.json", id(3)))).expect("an envelope")).expect("JSON");
    assert_eq!(envelope["deliveries"][0]["recipients"][1]["address"], "user1@contoso.com");
    assert_eq!(fs::read(bed.path(&format!("mail/{}.eml", id(3)))).expect("a content"), samples::content(id(3), SIZES[3]));

    let other = Bed::new();
    let line = format!("queue import {} --in-doubt resend", bed.path("mail").display());
    assert!(other.run(&line).ok().contains("30 messages brought in"));
    let after = other.queued();
    assert_eq!(after.len(), before.len());
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((after.held, after.doubts), (false, before.doubts + 1));
        assert_eq!(Listed { doubts: before.doubts, ..after.clone() }, *before);
    }
    assert!(other.run(&line).ok().contains("0 messages brought in"), "once");
    assert_eq!(other.ids(), all());
    // What comes next gets a higher id.
    assert_eq!(other.open().newest(), Some(id(MESSAGES)));

    let held = Bed::new();
    held.run(&format!("queue import {}", bed.path("two").display())).ok();
    assert!(held.queued().iter().all(|listed| listed.held && listed.hold_reason.contains("may have been delivered")));

    fs::write(bed.path(&format!("two/{}.eml", id(3))), "another").expect("written");
    fs::write(bed.path("two/odd.json"), "{}").expect("written");
    let said = Bed::new().run(&format!("queue import {}", bed.path("two").display()));
    assert!(said.out.contains("its envelope says") && said.out.contains("it is no envelope"), "{}", said.out);
    assert_eq!(said.status, 1);
}

#[test]
fn an_export_or_import_that_is_killed_leaves_whole_messages_and_is_gone_on_with() {
    Bed::killed(
        "queue export --all --to DIR/mail",
        || Bed::with(MESSAGES),
        |bed, time| {
            for entry in fs::read_dir(bed.path("mail")).into_iter().flatten() {
                let path = entry.expect("an entry").path();
                if path.extension().is_some_and(|it| it == "json") {
                    let envelope: Value = serde_json::from_slice(&fs::read(&path).expect("readable")).expect("JSON");
                    let content = fs::metadata(path.with_extension("eml")).expect("its content");
                    assert_eq!(envelope["size"], content.len(), "{time}");
                }
            }
            bed.run("queue export --all --to DIR/mail").ok();
            assert_eq!(bed.ids(), all());
        },
    );
    let saved = Bed::with(MESSAGES);
    saved.run("queue export --all --to DIR/mail").ok();
    let line = format!("queue import {}", saved.path("mail").display());
    Bed::killed(
        &line,
        || Bed::with(2),
        |bed, time| {
            assert!(bed.queued().iter().all(|listed| listed.held || [id(1), id(2)].contains(&listed.message.id)), "{time}");
            bed.run(&line).ok();
            assert_eq!(bed.ids(), all(), "{time}");
        },
    );
}

/// A queue with each kind of flaw; a relay that started there would report or remove them.
fn flawed() -> Bed {
    let bed = Bed::with(MESSAGES);
    let files = |number: i64| {
        let name = format!("{}.eml", id(number));
        let shelves = fs::read_dir(bed.path("data/content")).expect("contents").map(|shelf| shelf.expect("a shelf").path().join(&name));
        shelves.into_iter().find(|path| path.is_file()).expect("a file")
    };
    fs::remove_file(files(5)).expect("removed");
    fs::write(files(7), "half").expect("written");
    fs::write(files(8).with_file_name(format!("{}.eml", id(77))), "no row").expect("written");
    let connection = rusqlite::Connection::open(bed.path("data/queue.db")).expect("opened");
    connection.execute_batch("DELETE FROM recipient WHERE message = 11; DELETE FROM content WHERE message = 2; UPDATE content SET octets = x'00' WHERE message = 4;").expect("changed");
    bed
}

#[test]
fn fsck_finds_what_is_wrong_and_moves_it_where_nothing_is_lost() {
    let bed = flawed();
    let said = bed.run("fsck");
    for words in [
        format!("{} is queued, and its content is not there", id(5)),
        format!("{} is queued, and its content in ", id(7)),
        format!("{}.eml belongs to no queued message", id(77)),
        format!("{} is queued without recipients", id(11)),
        format!("{} is queued, and its content is not in the database", id(2)),
        "6 flaws".to_owned(),
        "fsck --repair".to_owned(),
    ] {
        assert!(said.out.contains(&words), "{words:?} is not in {}", said.out);
    }
    assert_eq!(said.status, 1);
    let mut lines: Vec<&str> = said.out.lines().collect();
    lines.sort_unstable();
    snapshot::same("fsck", &lines.join("\n"), &[(&bed.0.path().display().to_string(), "DIR")]);
    bed.run("fsck --repair").ok();
    is_repaired(&bed);
    assert!(bed.run("fsck").ok().contains(": sound"));
}

/// The flaws are gone from the queue, and all that there was of them is in lost+found.
fn is_repaired(bed: &Bed) {
    let flawed = [2, 4, 5, 7, 11].map(id);
    let whole: Vec<QueueId> = all().into_iter().filter(|id| !flawed.contains(id)).collect();
    assert_eq!(bed.ids(), whole);
    let lost = |name: String| fs::read(bed.path("data/lost+found").join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    for id in flawed {
        let envelope: Value = serde_json::from_slice(&lost(format!("{id}.json"))).expect("JSON");
        assert_eq!(envelope["subject"], "Scan für Sie");
    }
    assert_eq!(lost(format!("{}.eml", id(77))), b"no row");
    assert_eq!(lost(format!("{}.eml", id(7))), b"half");
    assert_eq!(lost(format!("{}.eml", id(11))), samples::content(id(11), SIZES[1]));
    assert_eq!(lost(format!("{}.eml", id(4))), [0]);
}

#[test]
fn a_repair_that_is_killed_loses_nothing_and_is_finished_by_the_next() {
    Bed::killed("fsck --repair", flawed, |bed, _| {
        bed.run("fsck --repair").ok();
        is_repaired(bed);
    });
}

/// Of nobody else's than the data directory's owner: what root has written there would be in the relay's way.
fn is_of_one_owner(dir: &Path) {
    let owner = fs::metadata(dir).expect("a directory").uid();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("readable") {
            let path = entry.expect("an entry").path();
            let facts = fs::symlink_metadata(&path).expect("facts");
            assert_eq!(facts.uid(), owner, "{}", path.display());
            folders.extend(facts.is_dir().then_some(path));
        }
    }
}

#[test]
fn what_root_restores_brings_in_or_repairs_is_the_relays_own() {
    let bed = flawed();
    bed.run("queue export --all --to DIR/mail");
    bed.run("backup --to DIR/backup").refused(1, "30 messages");
    if rustix::process::geteuid().is_root() {
        // Nobody's uid on Debian. Who is not root owns what he makes in any case.
        let given = Command::new("chown").args(["-R", "65534:65534"]).arg(bed.path("data")).status().expect("chown");
        assert!(given.success());
    }
    bed.run("fsck --repair").ok();
    is_of_one_owner(&bed.path("data"));
    bed.run("queue import DIR/mail");
    is_of_one_owner(&bed.path("data"));
    bed.run("restore --from DIR/backup").ok();
    is_of_one_owner(&bed.path("data"));
}

#[test]
fn a_damaged_database_is_named_and_left_alone() {
    let bed = Bed::with(MESSAGES);
    let path = bed.path("data/queue.db");
    let mut octets = fs::read(&path).expect("readable");
    let middle = octets.len() / 2;
    octets[middle..middle + 4_096].fill(0xA5);
    fs::write(&path, &octets).expect("written");
    bed.run("fsck --repair").refused(1, "queue.db is damaged");
    assert_eq!(fs::read(&path).expect("readable"), octets);
    bed.run("backup --to DIR/backup").refused(74, "is damaged");
    assert!(!bed.path("backup/backup.json").exists());
    // A queue of a newer program is nobody's to touch.
    octets[60..64].copy_from_slice(&99_u32.to_be_bytes());
    fs::write(&path, &octets).expect("written");
    bed.run("fsck").refused(74, "version 99");
}

/// The queues of all older versions (see `store/main.rs`), saved and put back by this program.
#[test]
fn a_backup_of_an_older_queue_is_brought_up_when_it_is_restored() {
    let older = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store");
    for version in 1.. {
        let Ok(queue) = fs::read(older.join(format!("v{version}.db"))) else {
            assert!(version > 3, "{version}");
            break;
        };
        let bed = Bed::new();
        fs::create_dir_all(bed.path("data/content/00")).expect("made");
        fs::write(bed.path("data/queue.db"), queue).expect("written");
        if version == 1 {
            fs::write(bed.path("data/content/00").join(format!("{}.eml", id(4))), samples::content(id(4), 40_000)).expect("written");
        }
        let count = |name: &str| {
            let connection = rusqlite::Connection::open(bed.path(name)).expect("opened");
            let number = |query: &str| connection.query_row(query, [], |row| row.get::<_, i64>(0)).expect("a number");
            (number("PRAGMA user_version"), number("SELECT count(*) FROM message"))
        };
        let before = count("data/queue.db");
        assert_eq!(before.0, version);
        bed.run("queue export --all --to DIR/mail").refused(74, "start the relay once");
        bed.run("backup --to DIR/backup").ok();
        assert_eq!(count("backup/queue.db"), before, "a backup changes nothing");
        fs::remove_dir_all(bed.path("data")).expect("lost");
        bed.run("restore --from DIR/backup").ok();
        let after = count("data/queue.db");
        assert!(after.0 > version && after.1 == before.1, "{after:?}");
        assert!(bed.run("fsck").ok().contains(": sound"), "{version}");
        bed.run("queue export --all --to DIR/mail").ok();
    }
}

#[test]
fn a_backup_beside_a_relay_that_goes_on_is_whole() {
    let world = World::with(2, |_| {}, |setup| setup.patient());
    let config = world.setup.folder().join("hve-relay.toml");
    world.faults([Fault::reply(Step::Rcpt, "452 4.2.2 Mailbox full").recipient("full@contoso.com")]);
    let mut client = world.client();
    let large = vec![b'x'; 60_000].chunks(78).fold(Vec::new(), |body, line| [&body, line, b"\r\n"].concat());
    for number in 0..10 {
        client.accepted(
            "app@contoso.com",
            &["full@contoso.com"],
            &mail(&format!("waits-{number}"), if number % 2 == 0 { &large } else { b"x\r\n" }),
        );
    }
    let (stop, address) = (Arc::new(AtomicBool::new(false)), world.relay.address);
    let (stopped, body) = (stop.clone(), large.clone());
    let traffic = std::thread::spawn(move || {
        let mut client = Client::hello(address);
        let mut sent = 0_u64;
        while !stopped.load(Ordering::Relaxed) {
            client.accepted("app@contoso.com", &["you@contoso.com"], &mail(&format!("goes-{sent}"), &body));
            sent += 1;
        }
        sent
    });
    let folder = tempfile::tempdir().expect("a folder");
    for number in 0..5 {
        Said::of(command(&config, &format!("backup --to {}/{number}", folder.path().display())).output().expect("it runs")).ok();
        assert_eq!(Said::of(command(&config, "fsck").output().expect("it runs")).status, 0, "also while it runs");
    }
    // Put back beside it, nothing comes twice: what waits is there, and of the rest the history knows.
    let said = run(&config, &format!("restore --from {}/4 --in-doubt resend", folder.path().display())).ok();
    assert!(said.contains(": 0 messages in 0 deliveries put back") && said.contains("messages are queued still"), "{said}");
    stop.store(true, Ordering::Relaxed);
    let sent = traffic.join().expect("its end");
    assert_eq!(world.taken(sent).len() as u64, sent);
    for number in 0..5 {
        let bed = Bed::new();
        bed.run(&format!("restore --from {}/{number}", folder.path().display())).ok();
        assert!(bed.run("fsck").ok().contains(": sound"));
        let spool = bed.open();
        assert_eq!(spool.recovered().damaged, []);
        let listed = support::runtime().block_on(spool.list(None, 1_000)).expect("listed");
        assert_eq!(listed.iter().filter(|listed| listed.message.subject.starts_with("waits-")).count(), 10);
    }
}

#[test]
fn nothing_of_a_restored_queue_goes_before_it_is_released_and_budget_is_free() {
    let world = World::with(1, |_| {}, |setup| setup.patient());
    let config = world.setup.folder().join("hve-relay.toml");
    let fault = Fault::reply(Step::Rcpt, "452 4.2.2 Mailbox full");
    world.faults([fault.clone()]);
    let id = world.client().accepted("app@contoso.com", &["you@contoso.com"], &mail("waits", b"x\r\n"));
    world.relay.wait_for("its deferral", |line| line["event"] == "delivery" && line["status"] == "deferred");
    // It is told before it is recorded.
    until("the record", || listed(&config)[0]["waits_for"] == "deferred");
    let backup = world.setup.folder().join("backup").display().to_string();
    Said::of(command(&config, &format!("backup --to {backup}")).output().expect("it runs")).ok();
    let mut world = world;
    world.relay.kill();
    fs::remove_dir_all(world.setup.data_dir()).expect("lost");
    world.faults([]);
    Said::of(command(&config, &format!("restore --from {backup}")).output().expect("it runs")).ok();
    world.relay = Relay::start(&config);
    let operate = |line: &str| Said::of(command(&config, line).output().expect("it runs")).ok();
    let listed = operate("queue list --reason held");
    assert!(listed.contains(&id) && listed.contains("restored from the backup"), "{listed}");
    operate(&format!("queue release {id}"));
    operate(&format!("queue retry {id}"));
    let entry = || serde_json::from_str::<Value>(&operate("queue list --json")).expect("JSON")["entries"][0].clone();
    until("it waits for a budget", || entry()["waits_for"] == "budget");
    let frees: jiff::Timestamp = entry()["until"].as_str().expect("a time").parse().expect("a time");
    assert!(frees.duration_since(jiff::Timestamp::now()).as_hours() >= 23, "{frees}: what was sent in the last day is not known");
    assert_eq!(world.sim.counters().messages, 0);

    // Whoever knows that nothing was sent since says so.
    world.relay.kill();
    let line = format!("restore --from {backup} --in-doubt resend --budgets backup");
    let said = Said::of(command(&config, &line).output().expect("it runs")).ok();
    assert!(said.contains("Budgets are as they were in the backup"), "{said}");
    world.relay = Relay::start(&config);
    operate(&format!("queue retry {id}"));
    assert_eq!(world.taken(1).len(), 1);
}

/// What a relay has queued, as it shows it.
fn listed(config: &Path) -> Vec<Value> {
    let said = run(config, "queue list --limit 1000 --json").ok();
    serde_json::from_str::<Value>(&said).expect("JSON")["entries"].as_array().expect("entries").clone()
}

fn ids_of(entries: &[Value]) -> Vec<String> {
    let id = |entry: &Value| entry["id"].as_str().and_then(|id| id.split('.').next()).expect("an id").to_owned();
    let mut ids: Vec<String> = entries.iter().map(id).collect();
    ids.dedup();
    ids
}

/// A relay that keeps what it gets, because its server puts off everybody.
fn waiting() -> World {
    let world = World::with(1, |_| {}, |setup| setup.patient());
    world.faults([Fault::reply(Step::Rcpt, "452 4.2.2 Mailbox full")]);
    world
}

fn config(world: &World) -> PathBuf {
    world.setup.folder().join("hve-relay.toml")
}

/// Waits until so many recipients were put off.
fn deferred(world: &World, recipients: usize) {
    world.relay.wait_for_all("deferrals", recipients, |line| line["event"] == "delivery" && line["status"] == "deferred");
}

#[test]
fn files_are_brought_into_a_running_relay_and_go_out_octet_for_octet_and_once() {
    let (from, to) = (waiting(), World::with(1, |_| {}, |setup| setup.patient().with("[admin]\nlisten = \"127.0.0.1:0\"")));
    let (mut client, mut other) = (from.client(), to.client());
    let large = vec![b'x'; 300_000].chunks(78).fold(Vec::new(), |body, line| [&body, line, b"\r\n"].concat());
    let bodies = [b"small\r\n".to_vec(), large, b"for two\r\n".to_vec()];
    let readers: [&[&str]; 3] = [&["you@contoso.com"], &["you@contoso.com"], &["you@contoso.com", "me@contoso.com"]];
    let send =
        |(number, (body, to)): (usize, (&Vec<u8>, &[&str]))| client.accepted("app@contoso.com", to, &mail(&format!("m{number}"), body));
    let ids: Vec<String> = bodies.iter().zip(readers).enumerate().map(send).collect();
    deferred(&from, 4);
    let folder = tempfile::tempdir().expect("a folder");
    let mail_in = folder.path().display().to_string();
    run(&config(&from), &format!("queue export --all --to {mail_in}")).ok();
    fs::write(folder.path().join("odd.json"), "{}").expect("written");

    let line = format!("queue import {mail_in}");
    let said = run(&config(&to), &line);
    assert!(said.out.contains("3 messages brought in, held until") && said.out.contains("odd.json: it is no envelope"), "{}", said.out);
    assert_eq!(said.status, 1);
    let held = listed(&config(&to));
    assert_eq!(ids_of(&held), ids);
    assert!(held.iter().all(|entry| entry["waits_for"] == "held" && entry["doubts"] == 1), "{held:?}");
    let told = to.relay.wait_for("its event", |line| line["event"] == "queue-brought-in" && line["queue_id"] == ids[2].as_str());
    assert_eq!((&told["nrcpt"], &told["client"], &told["why"]), (&2.into(), &"devices".into(), &"from files".into()));
    assert!(told["by"].as_str().is_some_and(|by| by.starts_with("uid ")), "{told}");
    fs::remove_file(folder.path().join("odd.json")).expect("removed");
    let said = run(&config(&to), &line).ok();
    assert!(said.contains("0 messages brought in") && said.contains(&format!("{} is queued already", ids[0])), "{said}");
    // Its past is known here, too.
    until("the history", || run(&config(&to), &format!("trace {}", ids[2])).out.contains("me@contoso.com"));

    // Mail goes on meanwhile, and then those go as well.
    other.accepted("app@contoso.com", &["you@contoso.com"], &mail("between", b"text\r\n"));
    to.taken(1);
    run(&config(&to), "queue release --all").ok();
    run(&config(&to), "queue retry --all").ok();
    let taken = to.taken(4);
    for (number, (body, recipients)) in bodies.iter().zip(readers).enumerate() {
        let subject = format!("m{number}");
        let found: Vec<_> = taken.iter().filter(|taken| field(taken, "Subject") == [subject.clone()]).collect();
        assert_eq!(found.len(), 1, "{subject}");
        let to: Vec<&str> = found[0].recipients.iter().map(|to| to.as_str()).collect();
        assert_eq!((support::body(found[0]), to.as_slice()), (body.as_slice(), recipients), "{subject}");
    }
    ids.iter().for_each(|id| to.removed(id));
    let said = run(&config(&to), &format!("{line} --in-doubt resend")).ok();
    assert!(said.contains("0 messages brought in") && said.contains(&format!("{} has left the queue since", ids[1])), "{said}");

    // What was removed is wanted again by who brings it in.
    run(&config(&from), &format!("queue remove {} --yes", ids[0])).ok();
    let socket = from.setup.data_dir().join("control.sock").display().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_hve-relay")).args(["queue", "import", &mail_in, "--socket", &socket]).output();
    let said = Said::of(output.expect("it runs")).ok();
    assert!(said.contains("1 message brought in") && said.contains(&format!("{} is queued already", ids[1])), "{said}");
    assert_eq!(ids_of(&listed(&config(&from))), ids);

    // Over TCP nothing is brought in.
    assert_eq!(support::http::post(to.relay.page(), "/v1/letters", &[], "{}").status, 401);
    assert_eq!((to.sim.taken().len(), listed(&config(&to)).len()), (4, 0));
}

#[test]
fn a_backup_is_merged_into_a_running_relay_without_what_has_left_since() {
    let mut world = waiting();
    let config = config(&world);
    let mut client = world.client();
    let send = |client: &mut Client, subject: &str, to: &[&str]| client.accepted("app@contoso.com", to, &mail(subject, b"text\r\n"));
    let sent = send(&mut client, "sent", &["a@contoso.com"]);
    let parted = send(&mut client, "half", &["b@contoso.com", "full@contoso.com"]);
    let removed = send(&mut client, "removed", &["c@contoso.com"]);
    let waits = send(&mut client, "waits", &["full@contoso.com"]);
    let stays = send(&mut client, "stays", &["full@contoso.com"]);
    deferred(&world, 6);
    let backup = world.setup.folder().join("backup").display().to_string();
    run(&config, &format!("backup --to {backup}")).ok();
    let folder = tempfile::tempdir().expect("a folder");
    run(&config, &format!("queue export {stays} --to {}", folder.path().display())).ok();

    // Since then one has gone, one to half of its readers, and one was removed.
    world.faults([Fault::reply(Step::Rcpt, "452 4.2.2 Mailbox full").recipient("full@contoso.com")]);
    run(&config, &format!("queue remove {removed} --yes")).ok();
    run(&config, "queue retry --all").ok();
    world.taken(2);
    world.removed(&sent);
    deferred(&world, 9);
    until("the history", || run(&config, &format!("trace {sent}")).out.contains("sent"));
    until("the history", || run(&config, &format!("trace {parted}")).out.contains("sent"));
    // Then the queue is lost, and the history is not.
    world.relay.stop();
    let data = world.setup.data_dir();
    for entry in fs::read_dir(&data).expect("the directory") {
        let path = entry.expect("an entry").path();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("queue.db")) {
            fs::remove_file(path).expect("lost");
        }
    }
    fs::remove_dir_all(data.join("content")).expect("lost");
    world.relay = Relay::start(&config);
    let since = send(&mut world.client(), "since", &["full@contoso.com"]);
    deferred(&world, 1);
    run(&config, &format!("queue import {}", folder.path().display())).ok();

    run(&config, &format!("restore --from {backup} --budgets backup")).refused(64, "Leave --budgets out");
    let socket = data.join("control.sock").display().to_string();
    run(&config, &format!("restore --from {backup} --budgets backup --socket {socket}")).refused(64, "Leave --budgets out");
    let said = run(&config, &format!("restore --from {backup}")).ok();
    snapshot::same("restore-into-a-relay", &said, &[(&world.setup.folder().display().to_string(), "DIR")]);
    for words in
        ["2 messages in 2 deliveries put back", "1 message is queued still", "2 messages have left the queue", "1 recipient was left out"]
    {
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
    let entries = listed(&config);
    assert_eq!(ids_of(&entries), [&parted, &waits, &stays, &since].map(String::clone));
    let reasons: Vec<(bool, bool)> = entries
        .iter()
        .map(|entry| (entry["recipients"] == 1, entry["reason"].as_str().is_some_and(|why| why.contains("restored from the backup of 20"))))
        .collect();
    assert_eq!(reasons, [(true, true), (true, true), (true, false), (true, false)], "{entries:?}");
    let told = world.relay.wait_for("its event", |line| line["event"] == "queue-brought-in" && line["queue_id"] == parted.as_str());
    assert!(told["why"].as_str().is_some_and(|why| why.starts_with("from the backup of 20")), "{told}");

    let said = run(&config, &format!("restore --from {backup} --in-doubt resend")).ok();
    assert!(said.contains(": 0 messages in 0 deliveries") && said.contains("3 messages are queued still"), "{said}");
    world.faults([]);
    run(&config, "queue release --all").ok();
    run(&config, "queue retry --all").ok();
    let mut arrived: Vec<String> =
        world.taken(6).iter().flat_map(|taken| taken.recipients.iter().map(|to| format!("{to} {:?}", field(taken, "Subject")))).collect();
    arrived.sort();
    let all = [
        "a@contoso.com [\"sent\"]",
        "b@contoso.com [\"half\"]",
        "full@contoso.com [\"half\"]",
        "full@contoso.com [\"since\"]",
        "full@contoso.com [\"stays\"]",
        "full@contoso.com [\"waits\"]",
    ];
    assert_eq!(arrived, all, "each of them once");
    [&parted, &waits, &stays, &since].into_iter().for_each(|id| world.removed(id));
    let said = run(&config, &format!("restore --from {backup} --in-doubt resend")).ok();
    assert!(said.contains(": 0 messages in 0 deliveries") && said.contains("5 messages have left the queue since"), "{said}");
    assert_eq!(world.sim.taken().len(), 6);
}

/// Messages that are brought in while the relay, or the command, is killed in the middle; and then by the same command once more.
fn is_killed_while_it_is_brought_in(line: &str, killed: Killed) {
    for after in [1, 9, 24] {
        let mut world = World::with(1, |_| {}, |setup| setup.patient());
        let config = config(&world);
        let mut child = command(&config, line).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
        let come = |line: &Value| line["event"] == "queue-brought-in";
        world.relay.wait_for_all("messages", after, come);
        match killed {
            Killed::Relay => {
                world.relay.kill();
                let output = child.wait_with_output().expect("its end");
                let said = String::from_utf8_lossy(&output.stderr);
                // It may have come to its end before.
                assert!(matches!(output.status.code(), Some(0 | 69)), "{said}");
                assert!(output.status.success() || said.contains("the same command once more"), "{said}");
                world.relay = Relay::start(&config);
            }
            Killed::Command => {
                let _ = child.kill();
                child.wait().expect("its end");
            }
        }
        run(&config, line).ok();
        let entries = listed(&config);
        assert_eq!(ids_of(&entries), all().iter().map(ToString::to_string).collect::<Vec<_>>(), "{after}");
        assert_eq!(entries.len(), 2 * MESSAGES as usize, "{after}");
        assert!(entries.iter().all(|entry| entry["held"] == true && entry["class"] == "internal"), "by the present rules: {entries:?}");
        assert!(run(&config, "fsck").ok().contains(": sound"));
        let data_dir = world.setup.data_dir();
        world.relay.stop();
        let settings = Settings { data_dir, reserve: 0, message_size: 10_485_760 };
        support::runtime().block_on(async {
            let spool = Sqlite::open(&settings).expect("opened");
            assert_eq!((spool.recovered().orphans, &spool.recovered().damaged[..]), (0, &[][..]));
            for listed in spool.list(None, 1_000).await.expect("listed") {
                let job = spool.load(listed.delivery.id).await.expect("served").expect("there");
                assert!(is_intact(&job), "{}", listed.delivery.id);
            }
            spool.close().await;
        });
    }
}

#[derive(Debug, Clone, Copy)]
enum Killed {
    Relay,
    Command,
}

#[test]
fn whoever_is_killed_while_files_are_brought_in_each_message_is_there_once() {
    let saved = Bed::with(MESSAGES);
    saved.run("queue export --all --to DIR/mail").ok();
    let line = format!("queue import {}", saved.path("mail").display());
    is_killed_while_it_is_brought_in(&line, Killed::Relay);
    is_killed_while_it_is_brought_in(&line, Killed::Command);
}

#[test]
fn whoever_is_killed_while_a_backup_is_merged_each_message_is_there_once() {
    let saved = Bed::with(MESSAGES);
    saved.run("backup --to DIR/backup").ok();
    let line = format!("restore --from {}", saved.path("backup").display());
    is_killed_while_it_is_brought_in(&line, Killed::Relay);
    is_killed_while_it_is_brought_in(&line, Killed::Command);
}

#[test]
fn what_a_running_relay_cannot_take_is_told_and_the_rest_is_taken() {
    let saved = Bed::with(MESSAGES);
    saved.run("queue export --all --to DIR/mail").ok();
    fs::write(saved.path(&format!("mail/{}.eml", id(1))), "shorter").expect("written");
    fs::remove_file(saved.path(&format!("mail/{}.eml", id(2)))).expect("removed");
    let world = World::with(1, |_| {}, |setup| setup.patient().with("[limits]\nmessage_size = \"64 KiB\""));
    let config = config(&world);
    let line = format!("queue import {}", saved.path("mail").display());
    let said = run(&config, &line);
    // Of ten sizes two are larger than 64 KiB.
    assert!(said.out.contains("22 messages brought in"), "{}", said.out);
    for words in [format!("{}: it has 131072 octets, and limits.message_size is 65536", id(7)), "octets, and its envelope says".to_owned()]
    {
        assert!(said.out.contains(&words), "{words:?} is not in {}", said.out);
    }
    assert_eq!((said.status, said.out.lines().count()), (1, 1 + 8));
    let text = fs::read_to_string(&config).expect("a configuration").replace("64 KiB", "1 MiB");
    fs::write(&config, text).expect("written");
    run(&config, "reload").ok();
    assert!(run(&config, &line).out.contains("6 messages brought in"));
}

#[test]
fn where_somebody_has_the_queue_and_no_relay_answers_that_is_said() {
    let bed = Bed::with(3);
    bed.run("queue export --all --to DIR/mail").ok();
    bed.run("backup --to DIR/backup").ok();
    let spool = bed.open();
    for line in ["queue import DIR/mail", "restore --from DIR/backup"] {
        bed.run(line).refused(69, &format!("is in use by another process (pid {}), and no relay answers at", std::process::id()));
    }
    drop(spool);
    assert_eq!(bed.ids(), [1, 2, 3].map(id));
}

/// The queues of all older versions, put back into a running relay of this one.
#[test]
fn a_backup_of_an_older_queue_is_merged_into_a_running_relay() {
    let queue = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/v3.db");
    let bed = Bed::new();
    fs::create_dir_all(bed.path("data/content/00")).expect("made");
    fs::copy(queue, bed.path("data/queue.db")).expect("copied");
    bed.run("backup --to DIR/backup").ok();
    let world = World::with(1, |_| {}, |setup| setup.patient());
    let config = config(&world);
    let socket = world.setup.data_dir().join("control.sock").display().to_string();
    let command = format!("restore --from {} --socket", bed.path("backup").display());
    // It never takes the place of a queue, and there is no need to enter its folder.
    run(&config, &format!("{command} {socket}.none")).refused(69, "no relay answers at ");
    let said = run(&config, &format!("{command} {socket}")).out;
    let entries = ids_of(&listed(&config));
    assert!(!entries.is_empty() && said.contains("put back into the running relay"), "{said}");
    let said = run(&config, &format!("restore --from {}", bed.path("backup").display())).ok();
    assert!(said.contains("queued still") && ids_of(&listed(&config)) == entries, "{said}");
    assert!(!world.setup.data_dir().join("restore.part").exists());
    assert!(run(&config, "fsck").ok().contains(": sound"));
}
