//! What is remembered of the mail that comes and goes: the daemon's side of [`crate::store::history`].

use std::path::Path;

use super::Shared;
use crate::clock::Timestamp;
use crate::mail::{Delivery, InDoubt, Message, Queued, Recipient};
use crate::reply::{Disposition, Judgement, Outcome, Step};
use crate::smtp::EnhancedStatus;
use crate::store::history::{Attempt, History, Left, OpenError, Record, Tried};
use crate::store::{HistorySettings, NewMessage, Spool};
use crate::telemetry;

/// Opens the history, if one is to be kept. Blocks.
///
/// # Errors
/// If it cannot be used.
pub(super) fn open(settings: &HistorySettings, data_dir: &Path, reserve: u64) -> Result<History, OpenError> {
    History::open(settings, data_dir, reserve, |trouble| telemetry::history_lost(&trouble))
}

/// What the recipients of an attempt were answered, one entry for each different answer; `due` tells of an ordinal that was deferred when it is
/// tried again.
pub(super) fn answers(results: &[(&Recipient, &Outcome)], judgement: &Judgement, due: impl Fn(u16) -> Timestamp) -> Vec<Attempt> {
    let mut answers: Vec<Attempt> = Vec::new();
    for (recipient, outcome) in results {
        let left = match outcome.disposition {
            Disposition::Sent => Left::Sent,
            Disposition::Failed => Left::Failed,
            Disposition::Deferred if judgement.in_doubt && outcome.step == Step::EndOfData => Left::InDoubt,
            Disposition::Deferred => Left::Deferred,
        };
        let step = outcome.step.to_string();
        let due = matches!(left, Left::Deferred | Left::InDoubt).then(|| due(recipient.ordinal));
        let same = |answer: &&mut Attempt| {
            let Attempt { left: known, status, reply, due: until, .. } = &**answer;
            (known, status, &answer.step, reply, until) == (&left, &outcome.status, &step, &outcome.diagnostic, &due)
        };
        match answers.iter_mut().find(same) {
            Some(answer) => answer.ordinals.push(recipient.ordinal),
            None => answers.push(Attempt {
                left,
                status: outcome.status,
                reply: outcome.diagnostic.clone(),
                ordinals: vec![recipient.ordinal],
                due,
                step,
            }),
        }
    }
    answers
}

/// What happened to all recipients of a delivery without an attempt.
pub(super) fn ended(message: Message, delivery: Delivery, left: Left, status: EnhancedStatus, reply: String, at: Timestamp) -> Record {
    let ordinals = delivery.recipients.iter().map(|recipient| recipient.ordinal).collect();
    let answers = vec![Attempt { left, status, step: String::new(), reply, ordinals, due: None }];
    let none = String::new;
    Record::Ended(Box::new(Tried { message, delivery, account: none(), relay: none(), sender: none(), started: at, ended: at, answers }))
}

/// An attempt that was found at start, if there is one.
pub(super) fn in_doubt(queued: &Queued, now: Timestamp) -> Option<Record> {
    let InDoubt { account, started, .. } = queued.in_doubt.as_ref()?;
    Some(Record::InDoubt { delivery: queued.id, account: account.to_string(), started: *started, found: now })
}

impl<S: Spool> Shared<S> {
    /// Remembers what the relay has written itself.
    pub(super) async fn remember_own(&self, written: Vec<NewMessage>) {
        for NewMessage { message, deliveries, .. } in written {
            self.history.remember(Record::Accepted(Box::new((message, deliveries)))).await;
        }
    }
}
