//! One attempt, whose begin is recorded in the store, up to the record of its end; and the end of what became too old.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncReadExt;

use super::dispatch::Event;
use super::doubt;
use super::{Phase, Shared, Upstream};
use crate::budget::Used;
use crate::clock::Timestamp;
use crate::intake::Addressee;
use crate::mail::{self, AccountName, Content, DeliveryId, InDoubt, Message, Queued, Recipient, Rewrite, Rewritten};
use crate::notice::{self, Alarm, AlarmChange, Bounce, FailedRecipient, Notice};
use crate::reply::{self, Cause, Disposition, Judgement, Outcome, Step, Trouble};
use crate::schedule::{Ended, Scheduler};
use crate::smtp::{EnhancedStatus, Mailbox, RecipientDsn};
use crate::store::{Job, NewMessage, Settlement, Spool, StoreError};
use crate::telemetry;
use crate::upstream::{self, Protection, Transaction};

/// How long to wait before the store is asked again for what it could not do.
pub(super) const STORE_RETRY: Duration = Duration::from_secs(1);

/// Tries one delivery, to so many of its recipients, on one account and records what came of it. That it begins is recorded.
pub(super) async fn run<S: Spool>(shared: Arc<Shared<S>>, account: AccountName, recipients: u16, started: Timestamp, mut job: Job) {
    let left_out = job.delivery.recipients.split_off(usize::from(recipients).min(job.delivery.recipients.len())).len();
    let Some(upstream) = shared.accounts.get(&account) else {
        return shared.tell(Event::PutBack { delivery: job.delivery.id, due: started + STORE_RETRY });
    };
    let mut course = Course { started, protection: None };
    let judgement = match attempt(&shared, upstream, &account, &job, &mut course).await {
        Ok(report) => reply::judge(&shared.catalogue, &report, job.delivery.class),
        Err(trouble) => reply::judge_open(&shared.catalogue, &trouble, job.delivery.recipients.len()),
    };
    settle(&shared, upstream, account, course, job, left_out, judgement).await;
}

/// What the log wants to know of an attempt besides its outcome.
struct Course {
    started: Timestamp,
    /// How its connection was protected, if there was one.
    protection: Option<Protection>,
}

async fn attempt<S: Spool>(
    shared: &Shared<S>,
    upstream: &Upstream,
    account: &AccountName,
    job: &Job,
    course: &mut Course,
) -> Result<reply::Report, Trouble> {
    let local =
        |why: std::io::Error| Trouble { step: Step::Connect, cause: Cause::Local(format!("the stored content cannot be read: {why}")) };
    let head = head(&job.content, shared.session.header_size).await.map_err(local)?;
    let body_offset = mail::header_end(&head).unwrap_or(head.len());
    let (message, own) = (&job.message, shared.senders.of(&job.message.client));
    let sender = own.policy.as_ref().unwrap_or(&upstream.sender).mailbox(upstream.address.as_ref());
    let context = Rewrite {
        sender,
        display_name: &own.display_name,
        signatures: own.signatures,
        account,
        client: &message.client,
        reverse_path: &message.reverse_path,
        kind: message.kind,
    };
    let Rewritten { header, unsigned } = mail::rewrite(&head[..body_offset], &context);
    let transaction = Transaction {
        reverse_path: sender.map_or_else(|| message.reverse_path.to_string(), Mailbox::to_string),
        recipients: &job.delivery.recipients,
        header: header.into(),
        content: &job.content,
        body_offset: body_offset as u64,
        eight_bit: message.eight_bit,
        smtputf8: message.smtputf8 || sender.is_some_and(Mailbox::is_international),
        dsn: &message.dsn,
    };
    let upstream::Attempt { result, protection, converted, .. } =
        upstream::deliver(&shared.pool, &upstream.endpoint, upstream.login.as_ref(), account, &transaction).await;
    course.protection = protection;
    if let Ok(reply::Report { end: reply::End::Accepted(_), .. }) = &result {
        if let (Some(sender), false) = (sender, unsigned.is_empty()) {
            telemetry::dkim_signature_removed(job.delivery.id, &message.client, sender, &unsigned);
        }
        if converted {
            telemetry::content_converted(job.delivery.id, &message.client, &upstream.relay);
        }
    }
    result
}

/// The beginning of a content, at least up to the end of its header. What the relay itself put on top of the header fits into the margin.
async fn head(content: &Content, header_size: usize) -> std::io::Result<Bytes> {
    const MARGIN: usize = 16 << 10;
    match content {
        Content::Inline(octets) => Ok(octets.clone()),
        Content::File { path, .. } => {
            let mut head = Vec::with_capacity(32 << 10);
            let mut file = tokio::fs::File::open(path).await?.take((header_size + MARGIN) as u64);
            while mail::header_end(&head).is_none() {
                if file.read_buf(&mut head).await? == 0 {
                    break;
                }
            }
            Ok(head.into())
        }
    }
}

/// Tells the log of the end of an attempt, records it, and tells the scheduler.
async fn settle<S: Spool>(
    shared: &Shared<S>,
    upstream: &Upstream,
    account: AccountName,
    Course { started, protection }: Course,
    job: Job,
    left_out: usize,
    judgement: Judgement,
) {
    let Job { message, delivery, .. } = &job;
    let ended = shared.clock.now();
    let attempts = delivery.attempts + u32::from(judgement.counts);
    let due = if judgement.counts { Scheduler::retry_at(&shared.schedule, ended, message.id, attempts) } else { ended };
    let results: Vec<(&Recipient, &Outcome)> = delivery.recipients.iter().zip(&judgement.outcomes).collect();
    let of = |wanted: Disposition| results.iter().filter(move |(_, outcome)| outcome.disposition == wanted);
    let failed: Vec<FailedRecipient> = of(Disposition::Failed)
        .filter(|(recipient, _)| wants_bounce(recipient))
        .map(|(recipient, outcome)| FailedRecipient {
            address: recipient.address.clone(),
            orcpt: recipient.dsn.orcpt.clone(),
            outcome: (*outcome).clone(),
            expired: false,
            remote_mta: Some(upstream.endpoint.host.clone()),
            last_attempt: Some(ended),
        })
        .collect();
    let mut last_reply = of(Disposition::Deferred).next().map(|(_, outcome)| outcome.diagnostic.clone()).unwrap_or_default();
    let remaining = (of(Disposition::Deferred).count() + left_out) as u16;
    let settled = results
        .iter()
        .filter(|(_, outcome)| outcome.disposition != Disposition::Deferred)
        .map(|(recipient, _)| recipient.ordinal)
        .collect();

    let mut hold = None;
    if judgement.in_doubt {
        let attempt = InDoubt { account: account.clone(), started, recipients: delivery.recipients.len() as u16 };
        hold = doubt::meet(shared.schedule.in_doubt(&message.client), delivery.id, &attempt);
        shared.doubts.fetch_add(1, Ordering::Relaxed);
        last_reply = format!("in doubt: {last_reply}");
    }
    // Told before it is recorded: what the upstream server has said stays true whatever becomes of the store, and the deliveries of a
    // message that end at the same time are all told before one of them finds that it was the last.
    let attempt = telemetry::Attempt {
        delivery: delivery.id,
        class: delivery.class,
        account: &account,
        relay: &upstream.relay,
        protection,
        number: delivery.attempts + 1,
        started,
        ended,
    };
    for (recipient, outcome) in results {
        telemetry::recipient_settled(message, &recipient.address, &attempt, outcome, Some(due));
    }
    if used(&judgement).message && !judgement.in_doubt {
        shared.alarm(Alarm::AccountSuspended(account.clone()), AlarmChange::Cleared);
        shared.alarm(Alarm::RouteSuspended(delivery.route.clone()), AlarmChange::Cleared);
    }
    let notice = notice(shared, &job, &failed, ended).await;
    // The account is free before that is recorded, and what is given back may be used by others: a crash between the two leaves the delivery
    // in doubt, and its budget as it was really used.
    shared.tell(Event::Ended(Ended { delivery: delivery.id, started, used: used(&judgement), pause: judgement.pause.clone() }));
    let (held, in_doubt) = (hold.is_some(), judgement.in_doubt);
    let settlement = Settlement { delivery: delivery.id, settled, due, last_reply, attempts, notice: notice.clone(), hold, in_doubt };
    let Some(last) = record(shared, settlement).await else { return };
    told(shared, message, &failed, notice, last);
    shared.tell(Event::Settled { delivery: delivery.id, remaining, due, held });
}

/// Whether the sender wants to hear of it if this recipient fails; if it did not say so, it does (RFC 3461 §4.1).
fn wants_bounce(recipient: &Recipient) -> bool {
    recipient.dsn.notify.is_none_or(|notify| notify.failure)
}

/// What the upstream server counts of an attempt, or may count.
fn used(judgement: &Judgement) -> Used {
    let counted = |outcome: &&Outcome| match outcome.disposition {
        Disposition::Sent => true,
        Disposition::Deferred => judgement.in_doubt && outcome.step == Step::EndOfData,
        Disposition::Failed => false,
    };
    let recipients = judgement.outcomes.iter().filter(counted).count() as u32;
    Used { recipients, message: recipients > 0 }
}

/// Gives up a delivery whose message is older than the queue's lifetime.
pub(super) async fn expire<S: Spool>(shared: Arc<Shared<S>>, delivery: DeliveryId) {
    let job = loop {
        match shared.store.load(delivery).await {
            Ok(Some(job)) => break job,
            Ok(None) => return,
            Err(StoreError::Fatal(why)) => return shared.store_failed(&why),
            Err(error) => {
                telemetry::store_busy("reading an expired delivery", &error.to_string());
                tokio::time::sleep(STORE_RETRY).await;
            }
        }
    };
    let now = shared.clock.now();
    let lifetime = shared.schedule.lifetime;
    let outcome = Outcome {
        disposition: Disposition::Failed,
        // RFC 3463 §3.5: delivery time expired.
        status: EnhancedStatus::new(4, 4, 7),
        diagnostic: format!("not delivered within {}", crate::units::format_duration(lifetime)),
        step: Step::Connect,
    };
    let failed: Vec<FailedRecipient> = job
        .delivery
        .recipients
        .iter()
        .filter(|recipient| wants_bounce(recipient))
        .map(|recipient| FailedRecipient {
            address: recipient.address.clone(),
            orcpt: recipient.dsn.orcpt.clone(),
            outcome: outcome.clone(),
            expired: true,
            remote_mta: None,
            last_attempt: None,
        })
        .collect();
    let notice = notice(&shared, &job, &failed, now).await;
    let settled = job.delivery.recipients.iter().map(|recipient| recipient.ordinal).collect();
    let settlement = Settlement { settled, notice: notice.clone(), ..Settlement::unchanged(&job.delivery, now, String::new()) };
    // Before it is recorded, as in `settle`.
    telemetry::expired(&job.message, &job.delivery, lifetime);
    let Some(last) = record(&shared, settlement).await else { return };
    told(&shared, &job.message, &failed, notice, last);
}

/// Records a settlement, however long the store needs; `None` if it never will. Returns whether the message has left the queue.
async fn record<S: Spool>(shared: &Shared<S>, settlement: Settlement) -> Option<bool> {
    loop {
        match shared.store.settle(settlement.clone()).await {
            Ok(last) => return Some(last),
            Err(StoreError::Fatal(why)) => {
                shared.store_failed(&why);
                return None;
            }
            Err(error) => telemetry::store_busy("recording the end of an attempt", &error.to_string()),
        }
        tokio::time::sleep(STORE_RETRY).await;
    }
}

/// What follows from a recorded settlement: the notice enters the queue, and the log says so.
fn told<S: Spool>(shared: &Shared<S>, message: &Message, failed: &[FailedRecipient], notice: Option<NewMessage>, last: bool) {
    match notice {
        Some(notice) => {
            if let Some(to) = notice.deliveries.first().and_then(|delivery| delivery.recipients.first()) {
                telemetry::notice_queued(message.id, notice.message.id, &to.address);
            }
            shared.tell(Event::Add(notice.deliveries.iter().map(|delivery| queued(&notice.message, delivery)).collect()));
        }
        None if !failed.is_empty() => telemetry::notice_impossible(message),
        None => {}
    }
    if last {
        telemetry::removed(message.id);
    }
}

/// The notice about failed recipients, if there is anybody to tell and a route to tell it by.
async fn notice<S: Spool>(shared: &Shared<S>, job: &Job, failed: &[FailedRecipient], now: Timestamp) -> Option<NewMessage> {
    if failed.is_empty() {
        return None;
    }
    // A header that cannot be read any more only makes the notice shorter.
    let head = head(&job.content, shared.session.header_size).await.unwrap_or_default();
    let header = &head[..mail::header_end(&head).unwrap_or(head.len())];
    let id = shared.ids.next(now);
    let Notice { message, recipients, content } =
        notice::bounce(&Bounce { id, now, hostname: &shared.hostname, original: &job.message, header, failed })?;
    let size = content.len() as u64;
    let addressee = |address: Mailbox| {
        let class = shared.policy.recipient(&message.client, &address, Some(size)).ok()?;
        Some(Addressee { class, address, dsn: RecipientDsn::default() })
    };
    let recipients: Vec<Addressee> = recipients.into_iter().filter_map(addressee).collect();
    let deliveries = shared.policy.split(&message.client, recipients, size, id, now).ok()?;
    (!deliveries.is_empty()).then_some(NewMessage { message, deliveries, content })
}

/// What the scheduler must know of a delivery.
pub(super) fn queued(message: &Message, delivery: &mail::Delivery) -> Queued {
    Queued {
        id: delivery.id,
        client: message.client.clone(),
        priority: message.priority,
        author: message.author.clone(),
        held: false,
        route: delivery.route.clone(),
        class: delivery.class,
        recipients: delivery.recipients.len() as u16,
        size: message.size,
        accepted_at: message.accepted_at,
        due: delivery.due,
        attempts: delivery.attempts,
        in_doubt: None,
    }
}

impl<S: Spool> Shared<S> {
    /// Tells the dispatcher. It outlives every task but in the last moments of a shutdown, when the store knows all that it would hear.
    pub(super) fn tell(&self, event: Event) {
        let _ = self.dispatcher.send(event);
    }

    /// The store failed for good: nothing more is accepted or sent, and the process ends.
    pub(super) fn store_failed(&self, why: &str) {
        if self.shutdown.fail(why) {
            telemetry::store_failed(why);
            self.shutdown.advance(Phase::Ending);
        }
    }
}
