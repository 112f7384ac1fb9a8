//! `hve-relay queue export` and `queue import`: messages out of a queue into files, and back into one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::backup::{Choice, Doubt, bar, failed, unusable};
use super::show::{line, many, printable};
use crate::config::Config;
use crate::mail::QueueId;
use crate::store::sqlite;

/// What is written, and where to.
#[derive(Debug, Args)]
pub(super) struct Export {
    /// Queue ids.
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<QueueId>,
    /// All that is queued.
    #[arg(long)]
    all: bool,
    /// The folder; it is made if it is not there.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

/// What is brought in.
#[derive(Debug, Args)]
pub(super) struct Import {
    /// The folder that `queue export` has written.
    #[arg(value_name = "DIR")]
    from: PathBuf,
    #[command(flatten)]
    doubt: Doubt,
}

/// Writes them. Exit status 0; 1 if one is not queued, or left meanwhile; 74.
pub(super) fn export(config: &Path, Export { ids, all, to }: &Export) -> ExitCode {
    let data_dir = match Config::data_dir(config) {
        Ok(data_dir) => data_dir,
        Err(problems) => return unusable(&problems),
    };
    let bar = bar();
    let exported = sqlite::export(&data_dir, (!all).then_some(ids.as_slice()), to, |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let (written, gone) = match exported {
        Ok(exported) => exported,
        Err(error) => return failed(&error),
    };
    line(format_args!("{}: {} written; they stay queued", to.display(), many(written.len() as u64, "message", "messages")));
    gone.iter()
        .for_each(|id| line(format_args!("{id} is not queued, or its content is not there: `hve-relay trace {id}` and `fsck` tell")));
    // Of all that is queued some may leave meanwhile.
    if gone.is_empty() || *all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Brings them in. Exit status 0; 1 if a file could not be brought in; 74.
pub(super) fn import(config: &Path, Import { from, doubt }: &Import) -> ExitCode {
    let data_dir = match Config::data_dir(config) {
        Ok(data_dir) => data_dir,
        Err(problems) => return unusable(&problems),
    };
    let bar = bar();
    let imported = sqlite::import(&data_dir, from, doubt.mail.into(), |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let imported = match imported {
        Ok(imported) => imported,
        Err(error) => return failed(&error),
    };
    let held = match doubt.mail {
        Choice::Hold => "held until `hve-relay queue release`, because they may have been delivered since they were written",
        Choice::Resend => "sent when the relay starts",
    };
    line(format_args!("{}: {} brought in, {held}", from.display(), many(imported.taken.len() as u64, "message", "messages")));
    imported.queued.iter().for_each(|id| line(format_args!("{id} is queued already, and was left as it is")));
    imported.failed.iter().for_each(|why| line(printable(&why.to_string())));
    if imported.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
