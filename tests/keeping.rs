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
use support::{World, mail, snapshot, until};

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
    let from = folder.path().join("0").display().to_string();
    Said::of(command(&config, &format!("restore --from {from}")).output().expect("it runs")).refused(74, "in use by another process (pid");
    stop.store(true, Ordering::Relaxed);
    let sent = traffic.join().expect("its end");
    world.taken(sent);
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
