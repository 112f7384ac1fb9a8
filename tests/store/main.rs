//! The spools against their contract, and what is particular to the embedded one.

mod conformance;
mod samples;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use conformance::{Bed, queued};
use hve_relay::mail::{Content, DeliveryId};
use hve_relay::store::sqlite::{OpenError, Sqlite};
use hve_relay::store::{Incoming, Settings, Settlement, Spool};
use samples::{accept, id, now};

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
    let settlement = Settlement { delivery, settled: vec![0], due: now(), attempts: 1, notice: None };
    spool.settle(settlement).await.expect("settled");
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
