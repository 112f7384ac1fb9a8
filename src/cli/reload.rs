//! `hve-relay reload`: the running relay goes on by its configuration as it is now.
//!
//! It is the relay that reads it, and says what is wrong with it, in its log too; here it is only asked where the relay listens for that.

use std::process::ExitCode;

use clap::Args;

use super::control::{Contact, Failure};
use super::show::{self, line, many};
use crate::admin::Reloaded;

/// What is asked for.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    contact: Contact,
    /// As JSON, as the relay gives it.
    #[arg(long)]
    json: bool,
}

/// sysexits(3): the configuration cannot be used.
const EX_CONFIG: u8 = 78;

/// Waits for what comes of it and returns the exit status.
pub(super) fn run(Arguments { contact, json }: Arguments) -> ExitCode {
    match contact.post::<Reloaded>("/v1/reload", &serde_json::json!({})) {
        Ok(reloaded) if json => show::json(&reloaded),
        Ok(reloaded) => say(&reloaded),
        // The problems name their file and line, as `check` prints them.
        Err(Failure::Refused(problems)) => {
            eprintln!("{problems}\nhve-relay: nothing has changed");
            return ExitCode::from(EX_CONFIG);
        }
        Err(failure) => return failure.tell(),
    }
    ExitCode::SUCCESS
}

fn say(Reloaded { listeners, accounts, rerouted, warnings }: &Reloaded) {
    warnings.iter().for_each(|warning| line(format_args!("{warning}")));
    let accounts = many(*accounts as u64, "account", "accounts");
    line(format_args!("the new configuration is in force: {accounts}, listening on {}", listeners.join(", ")));
    if *rerouted > 0 {
        line(format_args!("{} go another way now", many(*rerouted as u64, "queued delivery", "queued deliveries")));
    }
}
