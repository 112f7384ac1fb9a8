//! What was counted, kept over restarts in two files beside the queue: clients' habits and the page's last hours.
//!
//! They are written once a minute if there was anything to count, and when the relay stops: a crash loses a minute of it, and nothing else
//! depends on it. What cannot be read is begun anew, and the log says so.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Phase, Shared, flow, habits};
use crate::store::Spool;
use crate::telemetry;

/// How often they are written.
const EVERY: Duration = Duration::from_secs(60);

/// Where they are.
#[derive(Debug)]
pub(super) struct Files {
    pub habits: PathBuf,
    pub flow: PathBuf,
}

impl Files {
    /// Those of a data directory.
    pub(super) fn of(data_dir: &Path) -> Self {
        Self { habits: data_dir.join("habits.json"), flow: data_dir.join("flow.json") }
    }
}

/// What an earlier run has written, if it can be read.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let read = fs::read(path).and_then(|octets| Ok(serde_json::from_slice(&octets)?));
    if let Err(error) = &read
        && error.kind() != io::ErrorKind::NotFound
    {
        telemetry::counts_unreadable(path, &error.to_string());
    }
    read.ok()
}

/// Writes them from time to time, until the relay stops.
pub(super) async fn run<S: Spool>(shared: Arc<Shared<S>>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => save(&shared).await,
            () = shared.shutdown.reached(Phase::Stopping) => return,
        }
    }
}

/// Writes what is new. What fails is tried again with the next.
pub(super) async fn save<S: Spool>(shared: &Shared<S>) {
    let kept = habits::kept(&mut shared.habits());
    if let Some(kept) = kept
        && !written(&shared.counts.habits, kept).await
    {
        shared.habits().note_changed();
    }
    let kept = flow::kept(&mut shared.flow(), shared.history.is_kept());
    if let Some(kept) = kept
        && !written(&shared.counts.flow, kept).await
    {
        shared.flow().note_changed();
    }
}

async fn written(path: &Path, kept: impl Serialize + Send + 'static) -> bool {
    let file = path.to_owned();
    match tokio::task::spawn_blocking(move || write(&file, &kept)).await {
        Ok(Err(error)) => {
            telemetry::counts_unsaved(path, &error.to_string());
            false
        }
        // If the runtime is ending, nobody is left to be told.
        _ => true,
    }
}

/// In place of the old one, so that whoever reads has one or the other.
fn write(path: &Path, kept: &impl Serialize) -> io::Result<()> {
    let part = path.with_extension("json.part");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    file.write_all(&serde_json::to_vec(kept)?)?;
    file.sync_data()?;
    fs::rename(&part, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::mail::ClientName;

    #[test]
    fn files_that_make_no_sense_are_begun_anew() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let (files, now) = (Files::of(temp.path()), Timestamp::from_millis(1_795_285_881_000));
        for text in ["", "{", "{\"since\": \"Monday\"}", "{\"since\": 1, \"counts\": [{}], \"last\": 7, \"minutes\": [[1, 2]]}", "\0\0\0"] {
            fs::write(&files.habits, text).expect("written");
            fs::write(&files.flow, text).expect("written");
            assert_eq!(habits::restored(read(&files.habits), now).since(), now, "{text}");
            assert_eq!(flow::restored(read(&files.flow), now).minutes(now).accepted, [0], "{text}");
        }
        let most = format!(r#"{{"last":{},"minutes":[[4294967295,0,0,0],[4294967295,0,0,0]],"failures":[]}}"#, u64::MAX);
        fs::write(&files.flow, most).expect("written");
        let mut flow = flow::restored(read(&files.flow), now);
        flow.count(now, |minute| minute.accepted += 1);
        assert_eq!(flow.minutes(now).accepted.iter().sum::<u32>(), 20_000_001);
        // What a newer version counts besides is passed over.
        let row = |habit: &str| format!(r#"{{"client":"erp","habit":"{habit}","count":7,"first":5,"last":6,"peer":"10.0.0.1","told":5}}"#);
        fs::write(&files.habits, format!(r#"{{"since":4,"counts":[{},{}]}}"#, row("nul"), row("sings"))).expect("written");
        let habits = habits::restored(read(&files.habits), now);
        assert_eq!((habits.since().as_millis(), habits.iter().count()), (4, 1));
        assert_eq!(habits.of(&ClientName::new("erp"))[0].1.count, 7);
    }
}
