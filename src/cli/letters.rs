//! `hve-relay queue export` and `queue import`: messages out of a queue into files, and back into one.
//!
//! Into the queue of a running relay each message is handed over its socket, which is also how `restore` does it. The relay answers when the
//! message is safe; so whatever ends in between, the same command once more brings the rest.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::backup::{Doubt, bar, failed, unusable};
use super::control::{Contact, Failure};
use super::show::{line, many, printable};
use crate::admin::{BringIn, BroughtIn, Outcome, Time};
use crate::config::Config;
use crate::mail::QueueId;
use crate::store::MayHaveLeft;
use crate::store::sqlite::{self, Holder, NotALetter, OpenError, Parcel};

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

/// What became of messages that were handed to a running relay.
#[derive(Debug, Default)]
pub(super) struct Handed {
    /// Brought in.
    pub taken: u64,
    /// Their deliveries.
    pub deliveries: u64,
    /// Recipients of those who were left out.
    pub settled: u64,
    /// Queued already.
    pub queued: Vec<String>,
    /// Have left since they were written.
    pub left: Vec<String>,
    /// Could not be brought in.
    pub failed: Vec<NotALetter>,
}

impl Handed {
    /// Hands over one message after another; ends early if the relay can take no more.
    pub fn over(
        &mut self,
        contact: &Contact,
        (in_doubt, backup_of): (MayHaveLeft, Option<Time>),
        parcels: impl Iterator<Item = Result<Parcel, NotALetter>>,
    ) -> Result<(), Failure> {
        for parcel in parcels {
            let Parcel { envelope, content } = match parcel {
                Ok(parcel) => parcel,
                Err(not) => {
                    self.failed.push(not);
                    continue;
                }
            };
            let (id, size) = (envelope.id().to_owned(), envelope.size());
            let asked = BringIn { in_doubt, backup_of, envelope };
            match contact.hand::<BroughtIn>("/v1/letters", &asked, size, content) {
                Ok(BroughtIn { outcome: Outcome::Taken, deliveries, settled }) => {
                    self.taken += 1;
                    self.deliveries += deliveries as u64;
                    self.settled += settled as u64;
                }
                Ok(BroughtIn { outcome: Outcome::Queued, .. }) => self.queued.push(id),
                Ok(BroughtIn { outcome: Outcome::Left, .. }) => self.left.push(id),
                Err(Failure::Refused(why)) => self.failed.push(NotALetter { path: PathBuf::from(id), why }),
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Says who was left out and what failed.
    pub fn tell(&self) {
        if self.settled > 0 {
            line(format_args!(
                "Of these messages, {} left out, because the history says what became of them since; `hve-relay trace ID` tells it.",
                many(self.settled, "recipient was", "recipients were")
            ));
        }
        self.failed.iter().for_each(|why| line(printable(&why.to_string())));
    }
}

/// Whether a relay answers for a data directory that is in use.
pub(super) fn reach(contact: &Contact, data_dir: &Path, holder: Holder) -> Result<(), Failure> {
    contact.get::<Value>("/v1/status").map(drop).map_err(|failure| match failure {
        Failure::NoAnswer(why) => Failure::NoAnswer(format!("{} is in use by {holder}, and {why}", data_dir.display())),
        other => other,
    })
}

/// Brings them in. Exit status 0; 1 if a file could not be brought in; 69 if a relay runs and does not answer; 74.
pub(super) fn import(contact: &Contact, import: &Import) -> ExitCode {
    if contact.names_socket() {
        return import_into_relay(contact, import);
    }
    let data_dir = match Config::data_dir(contact.config()) {
        Ok(data_dir) => data_dir,
        Err(problems) => return unusable(&problems),
    };
    let bar = bar();
    let imported = sqlite::import(&data_dir, &import.from, import.doubt.mail.into(), |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let sqlite::Imported { taken, queued, failed } = match imported {
        Ok(imported) => imported,
        Err(OpenError::InUse { holder, .. }) => {
            return match reach(contact, &data_dir, holder) {
                Ok(()) => import_into_relay(contact, import),
                Err(failure) => failure.tell(),
            };
        }
        Err(error) => return self::failed(&error),
    };
    say(import, taken.len() as u64, "sent when the relay starts");
    queued.iter().for_each(|id| line(format_args!("{id} is queued already, and was left as it is")));
    failed.iter().for_each(|why| line(printable(&why.to_string())));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn say(Import { from, doubt }: &Import, taken: u64, sent: &str) {
    let held = match doubt.mail.into() {
        MayHaveLeft::Hold => "held until `hve-relay queue release`, because they may have been delivered since they were written",
        MayHaveLeft::Resend => sent,
    };
    line(format_args!("{}: {} brought in, {held}", from.display(), many(taken, "message", "messages")));
}

fn import_into_relay(contact: &Contact, import: &Import) -> ExitCode {
    let envelopes = match sqlite::envelopes(&import.from) {
        Ok(envelopes) => envelopes,
        Err(error) => return failed(&error),
    };
    let (bar, mut handed) = (bar(), Handed::default());
    bar.set_length(envelopes.len() as u64);
    let parcels = envelopes.iter().inspect(|_| bar.inc(1)).map(|path| sqlite::parcel(path));
    let done = handed.over(contact, (import.doubt.mail.into(), None), parcels);
    bar.finish_and_clear();
    say(import, handed.taken, "and the running relay sends them");
    handed.queued.iter().for_each(|id| line(format_args!("{id} is queued already, and was left as it is")));
    for id in &handed.left {
        line(format_args!("{id} has left the queue since, and was not brought in: `hve-relay trace {id}` tells how"));
    }
    handed.tell();
    match done {
        Ok(()) if handed.failed.is_empty() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(failure) => {
            let status = failure.tell();
            failed(&"what is not named above was not brought in; the same command once more brings it");
            status
        }
    }
}
