//! `hve-relay fsck`: whether the data directory is sound, and what of it can be set right.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;

use super::backup::{failed, unusable};
use super::show::{self, line, many, printable};
use crate::config::Config;
use crate::store::sqlite::{self, Flaw, Inspected};

/// What is looked at, and whether it is set right.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration; it names the data directory.
    #[arg(long, value_name = "FILE", default_value = super::CONFIG)]
    config: PathBuf,
    /// Move what is wrong into lost+found in the data directory. The relay must not run. Nothing is deleted.
    #[arg(long)]
    repair: bool,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Told {
    messages: u64,
    files: u64,
    flaws: Vec<String>,
    moved: Vec<PathBuf>,
}

/// Looks, and repairs if it is to. Exit status 0: sound, or all of it was set right; 1: something is wrong; 74: it could not look.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let data_dir = match Config::data_dir(&arguments.config) {
        Ok(data_dir) => data_dir,
        Err(problems) => return unusable(&problems),
    };
    let running = sqlite::holder(&data_dir).is_some();
    let spinner = ProgressBar::new_spinner();
    let inspected = sqlite::inspect(&data_dir, running, |what| spinner.set_message(format!("looking at {what}")));
    spinner.finish_and_clear();
    let Inspected { messages, files, flaws } = match inspected {
        Ok(inspected) => inspected,
        Err(error) => return failed(&error),
    };
    let all: Vec<String> = flaws.iter().map(|flaw| printable(&flaw.to_string())).collect();
    let damaged = flaws.iter().any(|flaw| matches!(flaw, Flaw::Database { .. }));
    let (moved, left) = match arguments.repair && !flaws.is_empty() {
        true => match sqlite::repair(&data_dir, flaws) {
            Ok((moved, left)) => (moved, left.len()),
            Err(error) => return failed(&error),
        },
        false => (Vec::new(), flaws.len()),
    };
    if arguments.json {
        show::json(&Told { messages, files, flaws: all, moved });
    } else {
        all.iter().for_each(line);
        moved.iter().for_each(|path| line(format_args!("moved to {}", path.display())));
        let state = if all.is_empty() { "sound".to_owned() } else { many(all.len() as u64, "flaw", "flaws") };
        line(format_args!(
            "{}: {}, {}: {state}",
            data_dir.display(),
            many(messages, "queued message", "queued messages"),
            many(files, "content in a file", "contents in files")
        ));
        line_if(
            left > 0 && !arguments.repair && !damaged,
            "Stop the relay, and `hve-relay fsck --repair` moves what is wrong into lost+found.",
        );
        line_if(
            damaged,
            "A damaged database is beyond repair here. history.db: stop the relay, move history.db* away, and start it. queue.db: stop the relay, \
             save the data directory, `sqlite3 queue.db .recover` into a new file or `hve-relay restore` a backup; and look at the disk.",
        );
    }
    if left == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn line_if(so: bool, text: &str) {
    if so {
        line(text);
    }
}
