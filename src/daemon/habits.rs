//! What was counted of clients' habits, kept over restarts in a file beside the queue.
//!
//! It is written once a minute if there was anything to count, and when the relay stops: a crash loses a minute of it, and nothing else
//! depends on it. What cannot be read is begun anew, and the log says so.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Phase, Shared};
use crate::clock::Timestamp;
use crate::intake::{Count, Habit, Habits};
use crate::mail::ClientName;
use crate::store::Spool;
use crate::telemetry;

/// How often it is written.
const EVERY: Duration = Duration::from_secs(60);

/// What is in the file.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    /// Since when it is counted, in milliseconds since 1970, as all times here.
    since: i64,
    counts: Vec<Row>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    client: String,
    habit: String,
    count: u64,
    first: i64,
    last: i64,
    peer: IpAddr,
    told: i64,
}

/// The file of a data directory.
pub(super) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("habits.json")
}

/// What an earlier run has counted.
pub(super) fn restore(path: &Path, now: Timestamp) -> Habits {
    let read = fs::read(path).and_then(|octets| Ok(serde_json::from_slice::<Kept>(&octets)?));
    let kept = match read {
        Ok(kept) => kept,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                telemetry::habits_unreadable(path, &error.to_string());
            }
            return Habits::new(now);
        }
    };
    let at = Timestamp::from_millis;
    let counts = kept.counts.into_iter().filter_map(|row| {
        // A newer version may know more of them.
        let habit = Habit::named(&row.habit)?;
        let count = Count { count: row.count, first: at(row.first), last: at(row.last), peer: row.peer, told: at(row.told) };
        Some(((ClientName::new(row.client), habit), count))
    });
    Habits::restored(at(kept.since), counts)
}

/// Writes it from time to time, until the relay stops.
pub(super) async fn run<S: Spool>(shared: Arc<Shared<S>>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => save(&shared).await,
            () = shared.shutdown.reached(Phase::Stopping) => return,
        }
    }
}

/// Writes it if there is anything new.
pub(super) async fn save<S: Spool>(shared: &Shared<S>) {
    let kept = {
        let mut habits = shared.habits();
        if !habits.take_changed() {
            return;
        }
        let row = |(client, habit, count): (&ClientName, Habit, Count)| Row {
            client: client.to_string(),
            habit: habit.as_str().to_owned(),
            count: count.count,
            first: count.first.as_millis(),
            last: count.last.as_millis(),
            peer: count.peer,
            told: count.told.as_millis(),
        };
        Kept { since: habits.since().as_millis(), counts: habits.iter().map(row).collect() }
    };
    let path = shared.habits_file.clone();
    // If it fails, the next minute tries again.
    if let Ok(Err(error)) = tokio::task::spawn_blocking(move || write(&path, &kept)).await {
        shared.habits().note_changed();
        telemetry::habits_unsaved(&shared.habits_file, &error.to_string());
    }
}

/// In place of the old one, so that whoever reads has one or the other.
fn write(path: &Path, kept: &Kept) -> io::Result<()> {
    let part = path.with_extension("json.part");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    file.write_all(&serde_json::to_vec(kept)?)?;
    file.sync_data()?;
    fs::rename(&part, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_makes_no_sense_is_begun_anew() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let (file, now) = (path(temp.path()), Timestamp::from_millis(1_795_285_881_000));
        for text in ["", "{", "{\"since\": \"Monday\"}", "{\"since\": 1, \"counts\": [{}]}", "\0\0\0"] {
            fs::write(&file, text).expect("written");
            assert_eq!(restore(&file, now).since(), now, "{text}");
        }
        // What a newer version counts besides is passed over.
        let row = |habit: &str| format!(r#"{{"client":"erp","habit":"{habit}","count":7,"first":5,"last":6,"peer":"10.0.0.1","told":5}}"#);
        fs::write(&file, format!(r#"{{"since":4,"counts":[{},{}]}}"#, row("nul"), row("sings"))).expect("written");
        let habits = restore(&file, now);
        assert_eq!((habits.since().as_millis(), habits.iter().count()), (4, 1));
        assert_eq!(habits.of(&ClientName::new("erp"))[0].1.count, 7);
    }
}
