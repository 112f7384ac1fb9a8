//! `hve-relay backup` and `hve-relay restore`: a data directory into a folder, and back.
//!
//! Where no relay runs, a restore puts the backup in place of what is there. A running relay goes on, and gets those messages of the backup that it
//! lacks, one by one, as `queue import` brings them in.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::EX_IOERR;
use super::control::{Contact, Failure};
use super::letters::{self, Handed};
use super::show::{line, many};
use crate::admin::Time;
use crate::budget::{self, Budget, LimitName, Limits};
use crate::clock::{Clock, Timestamp};
use crate::config::{Config, Problems};
use crate::daemon;
use crate::mail::AccountName;
use crate::store::sqlite::{self, Budgets, Holder, Manifest, OpenError, RestoreError, Restored, Saved};
use crate::store::{Anchor, BudgetRow, Ledger, MayHaveLeft};

/// What is copied, and where to.
#[derive(Debug, Args)]
pub(super) struct Backup {
    /// The configuration; it names the data directory.
    #[arg(long, value_name = "FILE", default_value = super::CONFIG)]
    config: PathBuf,
    /// The folder for the backup, which must not be there yet, or be empty.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Leave the history out: what became of mail is not needed to send what waits.
    #[arg(long)]
    without_history: bool,
}

/// What is put back, and how.
#[derive(Debug, Args)]
pub(super) struct Restore {
    /// The configuration; it names the data directory.
    #[arg(long, value_name = "FILE", default_value = super::CONFIG)]
    config: PathBuf,
    /// The running relay's socket: with it a restore never takes the place of what is there.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The folder that `hve-relay backup` has made.
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    #[command(flatten)]
    doubt: Doubt,
    /// What counts as used of the accounts' limits. A running relay knows it, and is not to be told.
    #[arg(long, value_name = "WHAT", default_value = "known")]
    budgets: Used,
}

/// See [`Restore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Used {
    /// What the queue that is replaced has. If that cannot be read, all of it as of now: no limit is exceeded, and a limit of a day is free only
    /// a day later.
    Known,
    /// What was used when the backup was made: mail goes at once, and the server may refuse some, because of what was sent since.
    Backup,
}

/// What becomes of mail of which nobody knows whether it was delivered since it was copied.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Doubt {
    /// What becomes of mail that may have been delivered since it was copied.
    #[arg(long = "in-doubt", value_name = "WHAT", default_value = "hold")]
    pub mail: Choice,
}

/// See [`Doubt`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Choice {
    /// It is held until somebody has looked into the message trace, and releases or removes it.
    Hold,
    /// It is sent. Somebody may get it twice.
    Resend,
}

impl From<Choice> for MayHaveLeft {
    fn from(choice: Choice) -> Self {
        match choice {
            Choice::Hold => Self::Hold,
            Choice::Resend => Self::Resend,
        }
    }
}

/// A bar on a terminal; elsewhere nothing is shown.
pub(super) fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:14} {bar:30} {percent}%").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}

/// Says on standard error what went wrong; the exit status is 74.
pub(super) fn failed(why: &impl std::fmt::Display) -> ExitCode {
    // Nobody is left to tell if standard error is gone.
    let _ = writeln!(io::stderr(), "hve-relay: {why}");
    ExitCode::from(EX_IOERR)
}

/// Says on standard error what is wrong with the configuration.
pub(super) fn unusable(problems: &Problems) -> ExitCode {
    let _ = writeln!(io::stderr(), "{problems}");
    ExitCode::from(problems.exit_status())
}

/// Makes the backup. Exit status 0; 1 if a queued message has no content; 74 if there is no backup.
pub(super) fn backup(arguments: &Backup) -> ExitCode {
    let data_dir = match Config::data_dir(&arguments.config) {
        Ok(data_dir) => data_dir,
        Err(problems) => return unusable(&problems),
    };
    let bar = bar();
    let told = |what: &str, done, all| {
        bar.set_message(what.to_owned());
        bar.set_length(all);
        bar.set_position(done);
    };
    let made = sqlite::backup(&data_dir, &arguments.to, !arguments.without_history, told);
    bar.finish_and_clear();
    let made = match made {
        Ok(made) => made,
        Err(error) => return failed(&error),
    };
    let history = if made.history { "with the history" } else { "without the history" };
    let (messages, deliveries) =
        (many(made.manifest.messages, "message", "messages"), many(made.manifest.deliveries, "delivery", "deliveries"));
    line(format_args!("{}: {messages} in {deliveries}, {history}; read back and verified", arguments.to.display()));
    if made.left > 0 {
        line(format_args!(
            "{} left while it was made, and {} not in it",
            many(made.left, "message", "messages"),
            if made.left == 1 { "is" } else { "are" }
        ));
    }
    for id in &made.damaged {
        line(format_args!("{id} is queued, and its content is not there as it was accepted: hve-relay fsck says more"));
    }
    if made.damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Restores. Exit status 0; 1 if a message could not be put back into a running relay; 69 if a relay runs and does not answer; 74 if it did not
/// come to its end.
pub(super) fn restore(arguments: &Restore) -> ExitCode {
    if let Some(socket) = &arguments.socket {
        return restore_at(arguments, socket).unwrap_or_else(|failure| failure.tell());
    }
    let config = match Config::load(&arguments.config) {
        Ok((config, _)) => config,
        Err(problems) => return unusable(&problems),
    };
    let spinner = ProgressBar::new_spinner();
    let data_dir = &config.store.data_dir;
    let told = |what: &str| spinner.set_message(what.to_owned());
    let budgets = |ledger: &Ledger, present: Option<Budgets>| match (arguments.budgets, &ledger.anchor) {
        (Used::Backup, Some(anchor)) => (ledger.budget.clone(), anchor.clone()),
        _ => present.unwrap_or_else(|| used_up(&config, ledger)),
    };
    let restored = sqlite::restore(&arguments.from, data_dir, arguments.doubt.mail.into(), budgets, told);
    spinner.finish_and_clear();
    match restored {
        Ok(restored) => {
            tell(data_dir, arguments, &restored);
            ExitCode::SUCCESS
        }
        Err(RestoreError::Open(OpenError::InUse { holder, .. })) => {
            restore_into_relay(arguments, data_dir, holder).unwrap_or_else(|failure| failure.tell())
        }
        Err(error) => failed(&error),
    }
}

/// The relay that has the data directory gets what it lacks.
fn restore_into_relay(arguments: &Restore, data_dir: &Path, holder: Holder) -> Result<ExitCode, Failure> {
    know_no_budgets(arguments, data_dir, &holder.to_string())?;
    let contact = Contact::of(&arguments.config);
    letters::reach(&contact, data_dir, holder)?;
    merge(arguments, &contact, (data_dir, data_dir))
}

/// The relay that answers at the socket gets what it lacks. Its data directory may be closed to whoever asks.
fn restore_at(arguments: &Restore, socket: &Path) -> Result<ExitCode, Failure> {
    know_no_budgets(arguments, socket, "the running relay")?;
    let contact = Contact::at(socket.to_owned());
    contact.get::<Value>("/v1/status")?;
    match tempfile::tempdir() {
        Ok(room) => merge(arguments, &contact, (socket, room.path())),
        Err(error) => Ok(failed(&format_args!("cannot make a temporary folder: {error}"))),
    }
}

fn know_no_budgets(arguments: &Restore, place: &Path, holder: &str) -> Result<(), Failure> {
    if arguments.budgets == Used::Known {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "{} is in use by {holder}: a running relay knows what is used of its budgets. Leave --budgets out; or stop it, and the backup takes the \
         place of what is there",
        place.display()
    )))
}

/// Puts back what a running relay lacks of the backup, and tells of it under a name. An older backup is brought up in a folder.
fn merge(arguments: &Restore, contact: &Contact, (name, room): (&Path, &Path)) -> Result<ExitCode, Failure> {
    let spinner = ProgressBar::new_spinner();
    spinner.set_message("verifying the backup");
    let opened = Saved::open(&arguments.from, room).and_then(|saved| Ok((saved.ids()?, saved)));
    spinner.finish_and_clear();
    let (ids, saved) = match opened {
        Ok(opened) => opened,
        Err(error) => return Ok(failed(&error)),
    };
    let (bar, mut handed) = (bar(), Handed::default());
    bar.set_length(ids.len() as u64);
    let parcels = ids.iter().inspect(|_| bar.inc(1)).map(|id| saved.parcel(*id));
    let taken_at = Time(Timestamp::from_millis(saved.manifest.taken_at));
    let done = handed.over(contact, (arguments.doubt.mail.into(), Some(taken_at)), parcels);
    bar.finish_and_clear();
    tell_of_relay(name, arguments, &saved.manifest, &handed);
    match done {
        Ok(()) if handed.failed.is_empty() => Ok(ExitCode::SUCCESS),
        Ok(()) => Ok(ExitCode::FAILURE),
        Err(failure) => {
            let status = failure.tell();
            let otherwise = match arguments.socket {
                None => "; while none runs, a restore takes the place of what is there",
                Some(_) => "",
            };
            failed(&format_args!(
                "not all of the backup was looked at. See that the relay runs, and run the same command once more{otherwise}"
            ));
            Ok(status)
        }
    }
}

fn tell_of_relay(name: &Path, arguments: &Restore, manifest: &Manifest, handed: &Handed) {
    let taken = Timestamp::from_millis(manifest.taken_at);
    let (messages, deliveries) = (many(handed.taken, "message", "messages"), many(handed.deliveries, "delivery", "deliveries"));
    line(format_args!(
        "{}: {messages} in {deliveries} put back into the running relay, as they were queued on {taken}; what it has was left as it is",
        name.display()
    ));
    if !handed.queued.is_empty() {
        let (these, were) = match handed.queued.len() {
            1 => ("1 message is".to_owned(), "was"),
            number => (format!("{number} messages are"), "were"),
        };
        line(format_args!("{these} queued still, and {were} left alone."));
    }
    if !handed.left.is_empty() {
        let these = many(handed.left.len() as u64, "message has", "messages have");
        line(format_args!("{these} left the queue since; `hve-relay trace ID` tells how."));
    }
    handed.tell();
    if handed.taken > 0 {
        line(match arguments.doubt.mail {
            Choice::Hold => {
                "What was put back is held, because it may have been delivered since: `hve-relay queue list --reason held` names it, `hve-relay trace \
                 ID` and Microsoft's message trace tell what has left; then `hve-relay queue release` or `remove`."
            }
            Choice::Resend => "What was put back is sent; what was delivered since without the history knowing it comes twice.",
        });
    }
    line("Budgets and history are the running relay's.");
}

fn tell(data_dir: &Path, arguments: &Restore, Restored { manifest, kept, history, budgets_known }: &Restored) {
    let taken = Timestamp::from_millis(manifest.taken_at);
    let (messages, deliveries) = (many(manifest.messages, "message", "messages"), many(manifest.deliveries, "delivery", "deliveries"));
    line(format_args!(
        "{}: {messages} in {deliveries}, as they were queued on {taken}; what was accepted since is not in it",
        data_dir.display()
    ));
    line(match arguments.doubt.mail {
        Choice::Hold => {
            "All of it is held, because it may have been delivered since: start the relay; `hve-relay queue list --reason held` names it, `hve-relay \
             trace ID` and Microsoft's message trace tell what has left; then `hve-relay queue release` or `remove`."
        }
        Choice::Resend => "All of it is sent when the relay starts; what was delivered since comes twice.",
    });
    line(match (budgets_known, arguments.budgets) {
        (_, Used::Backup) => "Budgets are as they were in the backup; what was sent since is not counted.",
        (true, Used::Known) => "Budgets are as the replaced queue had them.",
        (false, Used::Known) => {
            "Budgets count as used up as of now, because nobody knows what was sent since: limits of a minute are free in a minute, those of a day in \
             a day. If little was sent since, restore it once more with --budgets backup."
        }
    });
    if *history {
        line("The history is the backup's.");
    }
    if let Some(kept) = kept {
        line(format_args!("What was there before is in {}; remove it when it is certain that nothing of it is needed.", kept.display()));
    }
}

/// All limits, with nothing of them free.
fn used_up(config: &Config, ledger: &Ledger) -> Budgets {
    let clock = Clock::start();
    let (at, boot) = clock.reading();
    let accounts = config.schedule.accounts.iter().map(|account| (Some(&account.name), &account.limits));
    let rows = accounts.chain([(None, &config.schedule.tenant)]).flat_map(|(account, limits)| full(account, limits, ledger, at)).collect();
    (rows, Anchor { boot_id: daemon::boot_id(), boot, at, ahead: 0 })
}

fn full(account: Option<&AccountName>, limits: &Limits, ledger: &Ledger, now: Timestamp) -> Vec<BudgetRow> {
    let known = ledger.budget.iter().filter(|row| row.account.as_ref() == account);
    let known =
        known.filter_map(|row| Some(budget::Row { limit: row.limit.parse().ok()?, slot: row.index, at: row.at, amount: row.amount }));
    let mut budget = Budget::restore(limits, &known.collect::<Vec<_>>(), now, 0);
    for limit in LimitName::ALL {
        let _ = budget.close(limit, now);
    }
    let row = |row: budget::Row| BudgetRow {
        account: account.cloned(),
        limit: row.limit.as_str().to_owned(),
        index: row.slot,
        at: row.at,
        amount: row.amount,
    };
    budget.state().into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::budget::{Need, Share};
    use crate::mail::Class;

    #[test]
    fn after_a_restore_no_budget_has_anything_free() {
        let limits = Limits {
            recipients_per_day: Some(100),
            external_recipients_per_day: Some(10),
            messages_per_minute: Some(3),
            ..Limits::default()
        };
        let now = Timestamp::from_millis(1_795_285_881_042);
        let rows = full(None, &limits, &Ledger::default(), now);
        let read =
            |row: &BudgetRow| budget::Row { limit: row.limit.parse().expect("a limit"), slot: row.index, at: row.at, amount: row.amount };
        let rows: Vec<budget::Row> = rows.iter().map(read).collect();
        let budget = |later: u64| (Budget::restore(&limits, &rows, now + Duration::from_secs(later), 0), now + Duration::from_secs(later));
        for (later, class, free) in [(0, Class::Internal, 0), (70, Class::Internal, 0), (86_400 + 120, Class::Internal, 50)] {
            let (budget, at) = budget(later);
            assert_eq!(budget.fits(at, Need { class, recipients: 50 }, Share::NONE), free, "{later} s later");
        }
    }
}
