//! The spools against their contract, and what is particular to the embedded one.

mod conformance;
mod samples;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use conformance::{Bed, queued};
use hve_relay::mail::{AccountName, Content, DeliveryId, InDoubt, Kind, Message, Priority, RouteName};
use hve_relay::smtp::{MessageDsn, RecipientDsn, Ret, ReversePath};
use hve_relay::store::sqlite::{OpenError, Sqlite};
use hve_relay::store::{Incoming, Ledger, Listed, Parted, Settings, Settled, Settlement, Spool};
use samples::{accept, id, is_intact, now, settled};

struct SqliteBed(tempfile::TempDir);

impl SqliteBed {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("temporary directory"))
    }

    fn settings(&self) -> Settings {
        Settings { data_dir: self.0.path().to_owned(), reserve: 0, message_size: 10_485_760 }
    }

    /// All files under `content/`.
    fn files(&self) -> Vec<PathBuf> {
        let entries = |dir: &Path| std::fs::read_dir(dir).expect("readable").map(|entry| entry.expect("an entry").path());
        entries(&self.0.path().join("content")).flat_map(|shelf| entries(&shelf).collect::<Vec<_>>()).collect()
    }
}

impl Bed for SqliteBed {
    type Spool = Sqlite;

    fn open(&self) -> Sqlite {
        Sqlite::open(&self.settings()).expect("opened")
    }
}

mod sqlite {
    crate::conformance::conformance!(crate::SqliteBed::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_wait_together_share_a_sync() {
    let bed = SqliteBed::new();
    let spool = Arc::new(bed.open());
    let journeys: Vec<_> = (0..64)
        .map(|client| {
            let spool = spool.clone();
            tokio::spawn(async move {
                for number in 0..16 {
                    accept(&*spool, id(client * 16 + number), 4_096, &[1]).await.expect("accepted");
                }
            })
        })
        .collect();
    for journey in journeys {
        journey.await.expect("to its end");
    }
    let stats = spool.stats();
    assert_eq!(stats.operations, 1_024);
    assert!(stats.commits < 512, "{stats:?}");
}

#[tokio::test]
async fn large_contents_are_files_that_go_with_their_message() {
    let bed = SqliteBed::new();
    let spool = bed.open();
    accept(&spool, id(1), 32_768, &[1]).await.expect("accepted");
    assert_eq!(bed.files(), Vec::<PathBuf>::new(), "small ones are in the database");

    accept(&spool, id(2), 32_769, &[1]).await.expect("accepted");
    let delivery = DeliveryId { message: id(2), part: 1 };
    let Content::File { path, len } = spool.load(delivery).await.expect("served").expect("found").content else { panic!("in a file") };
    assert_eq!((bed.files(), len), (vec![path], 32_769));
    spool.settle(settled(delivery, &[0])).await.expect("settled");
    assert_eq!(bed.files(), Vec::<PathBuf>::new());

    let mut incoming = spool.begin(id(3), 1_000_000).expect("room");
    incoming.write(&samples::content(id(3), 1_000_000)).await.expect("written");
    assert_eq!(bed.files().len(), 1, "on its way");
    drop(incoming);
    assert_eq!(bed.files(), Vec::<PathBuf>::new(), "given up");
}

#[tokio::test]
async fn what_a_crash_left_is_set_right() {
    let bed = SqliteBed::new();
    let spool = bed.open();
    assert_eq!((spool.newest(), spool.recovered()), (None, &Default::default()));
    for number in 1..=3 {
        accept(&spool, id(number), 50_000, &[1]).await.expect("accepted");
    }
    spool.close().await;

    let mut files = bed.files();
    files.sort();
    std::fs::remove_file(&files[0]).expect("removed");
    std::fs::write(files[0].with_extension("eml.part"), b"half").expect("written");
    std::fs::write(files[0].with_file_name(format!("{}.eml", id(77))), b"no row").expect("written");

    let spool = bed.open();
    assert_eq!(spool.newest(), Some(id(3)));
    assert_eq!(spool.recovered().orphans, 2);
    let damaged: Vec<_> = spool.recovered().damaged.iter().map(|damaged| (damaged.id, damaged.found)).collect();
    assert_eq!(damaged, [(id(1), None)]);
    assert_eq!(queued(&spool).await.len(), 3, "reported, not dropped");
    assert_eq!(bed.files().len(), 2);
}

#[test]
fn one_process_at_a_time() {
    let bed = SqliteBed::new();
    let first = bed.open();
    let refusal = Sqlite::open(&bed.settings()).expect_err("in use");
    assert!(matches!(refusal, OpenError::InUse { .. }));
    drop(first);
    bed.open();
}

#[tokio::test]
async fn closing_leaves_all_in_the_database_itself() {
    let bed = SqliteBed::new();
    let spool = bed.open();
    accept(&spool, id(1), 100, &[1]).await.expect("accepted");
    assert_eq!(queued(&spool).await.len(), 1);
    spool.close().await;
    let log = bed.0.path().join("queue.db-wal");
    assert!(std::fs::metadata(&log).map_or(0, |log| log.len()) == 0);
    assert_eq!(queued(&bed.open()).await.len(), 1);
}

/// `v1.db` as version 1 left it: 1 deferred with one of its recipients settled, which notice 5 is about; 2 never tried; 3 in doubt with two of
/// its recipients settled; 4 with its content in a file; 6 gone.
#[tokio::test]
async fn a_queue_of_version_1_is_brought_up_whole() {
    let bed = SqliteBed::new();
    let v1 = include_bytes!("v1.db");
    std::fs::write(bed.0.path().join("queue.db"), v1).expect("written");
    let shelf = bed.0.path().join("content/00");
    std::fs::create_dir_all(&shelf).expect("created");
    std::fs::write(shelf.join(format!("{}.eml", id(4))), samples::content(id(4), 40_000)).expect("written");

    // The second time there is nothing to be brought up.
    for _ in 0..2 {
        let spool = bed.open();
        assert_eq!((spool.newest(), spool.recovered()), (Some(id(6)), &Default::default()));
        let found = queued(&spool).await;
        let parts = |number, parts: &[(u16, u16, u32)]| -> Vec<_> {
            let part =
                |(part, recipients, attempts): &(u16, u16, u32)| (DeliveryId { message: id(number), part: *part }, *recipients, *attempts);
            parts.iter().map(part).collect()
        };
        let expected = [
            parts(1, &[(1, 2, 1), (2, 1, 0)]),
            parts(2, &[(1, 2, 0)]),
            parts(3, &[(1, 3, 2)]),
            parts(4, &[(1, 1, 0)]),
            parts(5, &[(1, 1, 0)]),
        ];
        assert_eq!(found.iter().map(|it| (it.id, it.recipients, it.attempts)).collect::<Vec<_>>(), expected.concat());
        assert!(found.iter().all(|it| it.priority == Priority::Normal && !it.held));
        assert_eq!(found[0].due, now() + Duration::from_secs(60));
        let doubts: Vec<_> = found.iter().filter_map(|it| Some((it.id.message, it.in_doubt.clone()?))).collect();
        let doubt = InDoubt { account: AccountName::new("hve01@contoso.com"), started: now(), recipients: 3 };
        assert_eq!(doubts, [(id(3), doubt)], "it was to all that were left");

        for (queued, listed) in found.iter().zip(spool.list(None, 100).await.expect("listed")) {
            let job = spool.load(queued.id).await.expect("served").expect("found");
            assert!(is_intact(&job), "{}", queued.id);
            assert_eq!((&job.message, &job.delivery), (&listed.message, &listed.delivery));
            assert_eq!((listed.held, listed.last_reply.as_str()), (false, ""));
            let (sample, _) = samples::message(queued.id.message, job.message.size as usize, &[]);
            let expected = match queued.id.message {
                notice if notice == id(5) => {
                    let (kind, peer, reverse_path) = (Kind::Notice, None, ReversePath::Null);
                    Message { priority: Priority::Normal, dsn: MessageDsn::default(), kind, peer, reverse_path, ..sample }
                }
                _ => Message { priority: Priority::Normal, dsn: MessageDsn::default(), ..sample },
            };
            assert_eq!(job.message, expected);
        }
        let left = |number| spool.load(DeliveryId { message: id(number), part: 1 });
        let ordinals: Vec<_> = left(3).await.expect("served").expect("found").delivery.recipients.iter().map(|it| it.ordinal).collect();
        assert_eq!(ordinals, [1, 2, 3]);
        assert_eq!(spool.ledger().await, Ok(Ledger::default()));
        spool.close().await;
    }

    // Who goes back to version 1 finds what it left.
    let copy = std::fs::read(bed.0.path().join("queue.db.v1")).expect("kept");
    let mode = std::fs::metadata(bed.0.path().join("queue.db.v1")).expect("kept").permissions().mode();
    assert_eq!((copy.len(), mode & 0o777), (v1.len(), 0o600));
    std::fs::write(bed.0.path().join("queue.db"), copy).expect("written");
    let spool = bed.open();
    assert_eq!(queued(&spool).await.len(), 6);
    // And what is brought up is a queue like any other.
    let delivery = DeliveryId { message: id(3), part: 1 };
    assert!(spool.settle(settled(delivery, &[1, 2, 3])).await.expect("settled").last);
    accept(&spool, id(7), 100, &[1]).await.expect("accepted");
    assert_eq!(queued(&spool).await.len(), 6);
}

/// `v2.db` as version 2 left it: of 1 one recipient settled and one part held; 2 in doubt with the first of its recipients; an account suspended.
#[tokio::test]
async fn a_queue_of_version_2_is_brought_up_whole() {
    let bed = SqliteBed::new();
    std::fs::write(bed.0.path().join("queue.db"), include_bytes!("v2.db")).expect("written");
    for _ in 0..2 {
        let spool = bed.open();
        assert_eq!((spool.newest(), spool.recovered()), (Some(id(4)), &Default::default()));
        let listed = spool.list(None, 100).await.expect("listed");
        let shown: Vec<_> = listed.iter().map(|it| (it.delivery.id.to_string(), it.delivery.recipients.len(), it.held)).collect();
        let part = |number, part| DeliveryId { message: id(number), part }.to_string();
        assert_eq!(shown, [(part(1, 1), 2, false), (part(1, 2), 1, true), (part(2, 1), 2, false)]);
        assert_eq!(listed[0].last_reply, "432 4.3.2 Concurrent connections limit exceeded");
        for Listed { message, delivery, .. } in &listed {
            let (sample, _) = samples::message(message.id, message.size as usize, &[]);
            assert_eq!(*message, Message { dsn: MessageDsn::default(), ..sample });
            assert!(delivery.recipients.iter().all(|recipient| recipient.dsn == RecipientDsn::default()));
            assert!(is_intact(&spool.load(delivery.id).await.expect("served").expect("found")));
        }
        let doubts: Vec<_> = queued(&spool).await.into_iter().filter_map(|it| Some((it.id.to_string(), it.in_doubt?.recipients))).collect();
        assert_eq!(doubts, [(part(2, 1), 1)]);
        let Ledger { budget, anchor, suspended, alarms, gathering, health, health_anchor } = spool.ledger().await.expect("served");
        assert_eq!((health, health_anchor), (Vec::new(), None));
        assert_eq!(
            (budget.len(), anchor.map(|anchor| anchor.boot), suspended.len(), alarms.len() + gathering.len()),
            (1, Some(5_000), 1, 0)
        );
        spool.close().await;
    }
    assert!(bed.0.path().join("queue.db.v2").exists(), "kept for who goes back");
}

/// `v3.db` as version 3 left it: the held part of `v2.db`, an alarm, a notice that could not go yet, and two messages whose sender wants to hear
/// of them.
#[tokio::test]
async fn a_queue_of_version_3_is_brought_up_whole() {
    let bed = SqliteBed::new();
    std::fs::write(bed.0.path().join("queue.db"), include_bytes!("v3.db")).expect("written");
    for _ in 0..2 {
        let spool = bed.open();
        let listed = spool.list(None, 100).await.expect("listed");
        let shown: Vec<_> = listed.iter().map(|it| (it.delivery.id.to_string(), it.delivery.recipients.len(), it.held)).collect();
        let expected = [
            ("0000000000001.2", 1, true),
            ("0SCAMGJKFPM00.1", 1, false),
            ("0SCAMGZ2KPM00.1", 2, false),
            ("0SCAMGZ2KPM00.2", 1, false),
            ("0SCAMGZ3QPM00.1", 1, false),
        ];
        assert_eq!(shown, expected.map(|(id, recipients, held)| (id.to_owned(), recipients, held)));
        assert_eq!(
            (listed[1].message.kind, listed[1].last_reply.as_str()),
            (Kind::Notice, "127.0.0.1:9: Connection refused (os error 111)")
        );
        let asked = &listed[3];
        assert_eq!(asked.message.dsn, MessageDsn { ret: Some(Ret::Headers), envid: Some("QQ314159".into()) });
        let notify = "SUCCESS,DELAY".parse().ok();
        let orcpt = "rfc822;c@fabrikam.example".parse().ok();
        assert_eq!(asked.delivery.recipients[0].dsn, RecipientDsn { notify, orcpt });
        let Ledger { alarms, health, health_anchor, .. } = spool.ledger().await.expect("served");
        assert_eq!((alarms.len(), health.len(), health_anchor), (1, 0, None));
        spool.close().await;
    }
    let spool = bed.open();
    let delivery: DeliveryId = "0SCAMGZ2KPM00.1".parse().expect("an id");
    let parted = vec![Parted { ordinals: vec![1], route: RouteName::new("connector"), due: now() }];
    let recorded = spool.settle(Settlement { parted, ..settled(delivery, &[]) }).await;
    assert_eq!(recorded, Ok(Settled { last: false, parted: vec![Some(3)] }), "a queue like any other");
    assert!(bed.0.path().join("queue.db.v3").exists(), "kept for who goes back");
}

#[test]
fn a_queue_of_a_newer_version_is_refused_and_left_alone() {
    let bed = SqliteBed::new();
    let mut newer = include_bytes!("v1.db").to_vec();
    // The user version (SQLite's file format, section 1.3).
    newer[60..64].copy_from_slice(&7_u32.to_be_bytes());
    let path = bed.0.path().join("queue.db");
    std::fs::write(&path, &newer).expect("written");
    let refusal = Sqlite::open(&bed.settings()).expect_err("newer");
    assert!(matches!(refusal, OpenError::Version { found: 7, known: 4, .. }), "{refusal}");
    assert!(std::fs::read(&path).expect("readable") == newer);
    assert!(!path.with_extension("db.v7").exists());

    // Whoever makes a new version keeps a queue of the one before here, and a test above that brings it up.
    let OpenError::Version { known, .. } = refusal else { panic!("{refusal}") };
    let kept = |version: i64| Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/store/v{version}.db")).is_file();
    assert_eq!((1..known).find(|version| !kept(*version)), None);
}
