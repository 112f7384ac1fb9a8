//! One attempt, whose begin is recorded in the store, up to the record of its end; and the end of what became too old.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::sync::oneshot;

use super::dispatch::Event;
use super::notices::{self, Told};
use super::{Phase, Setup, Shared, Upstream, doubt, history, parting};
use crate::budget::Used;
use crate::clock::Timestamp;
use crate::mail::{
    self, AccountName, Action, Content, DeliveryId, InDoubt, Kind, Message, QueueId, Queued, Recipient, Reported, Rewrite, Rewritten,
};
use crate::reply::{self, Cause, Disposition, Judgement, Outcome, PauseLength, Step, Trouble};
use crate::schedule::{Blame, Chance, Ended, Scheduler};
use crate::smtp::{EnhancedStatus, Mailbox};
use crate::store::history::{Left, Record, Tried};
use crate::store::{Job, Settled, Settlement, Spool, Start, Started, StoreError};
use crate::telemetry;
use crate::upstream::{self, Protection, Transaction};

/// How long to wait before the store is asked again for what it could not do.
pub(super) const STORE_RETRY: Duration = Duration::from_secs(1);

/// Tries one delivery, to so many of its recipients, on one account and records what came of it; by this configuration, as it was decided at
/// that time. It begins when `begun` says that this is recorded; if that says nothing, it does not. `heard` is what [`Upstream::heard`] said
/// at that time.
pub(super) async fn run<S: Spool>(
    shared: Arc<Shared<S>>,
    setup: Arc<Setup>,
    (Start { delivery, account, recipients }, chance, heard): (Start, Chance, u64),
    started: Timestamp,
    begun: oneshot::Receiver<Started>,
) {
    let mut job = match begun.await {
        Ok(Started::Begun(job)) => job,
        Ok(Started::Gone) => return shared.tell(Event::Gone(delivery)),
        Ok(Started::Unreadable(why)) => {
            telemetry::store_busy("starting an attempt", &why);
            return shared.tell(Event::PutBack { delivery, due: shared.clock.now() + STORE_RETRY });
        }
        Err(_) => return,
    };
    let left_out = job.delivery.recipients.split_off(usize::from(recipients).min(job.delivery.recipients.len())).len();
    let Some(upstream) = setup.accounts.get(&account) else {
        return shared.tell(Event::PutBack { delivery, due: started + STORE_RETRY });
    };
    if chance == Chance::Again {
        setup.pool.renew(&account);
    }
    let mut course = Course { started, chance, protection: None, passed_dsn_on: false, steps: Vec::new() };
    let result = attempt(&setup, (upstream, heard), &account, &job, &mut course).await;
    if course.passed_dsn_on {
        // RFC 3461 §5.2.2: then it is for the next server to tell of success.
        job.delivery.recipients.iter_mut().filter_map(|recipient| recipient.dsn.notify.as_mut()).for_each(|notify| notify.success = false);
    }
    let mut judgement = match result {
        Ok(report) => reply::judge(&setup.catalogue, &report, job.delivery.class),
        Err(trouble) => reply::judge_open(&setup.catalogue, &trouble, job.delivery.recipients.len()),
    };
    weigh(&shared, (&account, started), job.message.id, &mut judgement);
    settle(&shared, (&setup, upstream), account, course, *job, left_out, judgement).await;
}

/// Where a reply that nobody knows refuses a message for good: finds out, as far as that can be known, whether the message or the account is to blame.
fn weigh<S: Spool>(shared: &Shared<S>, (account, started): (&AccountName, Timestamp), message: QueueId, judgement: &mut Judgement) {
    let (now, mut suspicions) = (shared.clock.now(), shared.suspicions());
    if judgement.outcomes.iter().any(|outcome| outcome.disposition == Disposition::Sent) {
        suspicions.took(now, started, account, message);
        return;
    }
    let Some(outcome) = judgement.doubtful.first().map(|place| &judgement.outcomes[*place]) else { return };
    match suspicions.refused(now, started, account, message) {
        Blame::Message => {}
        Blame::Unclear => judgement.defer_doubtful(),
        Blame::Account(messages) => {
            let pause = reply::refuses_everything(outcome, messages);
            judgement.pause.get_or_insert(pause);
            judgement.defer_doubtful();
        }
    }
}

/// What is to be known of an attempt besides its outcome.
struct Course {
    started: Timestamp,
    chance: Chance,
    /// How its connection was protected, if there was one.
    protection: Option<Protection>,
    /// The server was told what the sender asked of notices.
    passed_dsn_on: bool,
    /// The steps that were completed, and what each took.
    steps: Vec<(Step, Duration)>,
}

async fn attempt(
    setup: &Setup,
    (upstream, heard): (&Upstream, u64),
    account: &AccountName,
    job: &Job,
    course: &mut Course,
) -> Result<reply::Report, Trouble> {
    let local =
        |why: std::io::Error| Trouble { step: Step::Connect, cause: Cause::Local(format!("the stored content cannot be read: {why}")) };
    let head = head(&job.content, setup.session.header_size).await.map_err(local)?;
    let body_offset = mail::header_end(&head).unwrap_or(head.len());
    let (message, own) = (&job.message, setup.senders.of(&job.message.client));
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
    let login = upstream.login.as_ref().map(|login| (login, heard));
    let upstream::Attempt { result, protection, converted, passed_dsn_on, steps, shows_hang_ups, .. } =
        upstream::deliver(&setup.pool, &upstream.endpoint, login, account, &transaction).await;
    if shows_hang_ups {
        telemetry::content_waits(&upstream.relay);
    }
    (course.protection, course.passed_dsn_on) = (protection, passed_dsn_on);
    course.steps = steps;
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
pub(super) async fn head(content: &Content, header_size: usize) -> std::io::Result<Bytes> {
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
    (setup, upstream): (&Setup, &Upstream),
    account: AccountName,
    Course { started, chance, protection, steps, .. }: Course,
    job: Job,
    left_out: usize,
    mut judgement: Judgement,
) {
    let Job { message, delivery, .. } = &job;
    let ended = shared.clock.now();
    // The account is free before that is recorded, and what is given back may be used by others: a crash between the two leaves the delivery
    // in doubt, and its budget as it was really used. The next attempt on its connection begins while the end of this one is still being told.
    let (pause, refused) = (judgement.pause.clone(), upstream.refused(judgement.pause.as_ref()));
    shared.tell(Event::Ended(Ended { delivery: delivery.id, started, used: used(&judgement), pause }, refused));
    let elsewhere = judgement.elsewhere && chance == Chance::First;
    let counts = judgement.counts && !elsewhere;
    let attempts = delivery.attempts + u32::from(counts);
    let due = if counts { Scheduler::retry_at(&setup.schedule, ended, message.id, attempts) } else { ended };
    // A reload may have changed the routes meanwhile: new deliveries follow the present ones.
    let parted = parting::of(&shared.setup().policy, message, delivery, &mut judgement, (due, ended));
    let due_of = |ordinal| parted.iter().find(|parted| parted.ordinals.contains(&ordinal)).map_or(due, |parted| parted.due);
    let results: Vec<(&Recipient, &Outcome)> = delivery.recipients.iter().zip(&judgement.outcomes).collect();
    let of = |wanted: Disposition| results.iter().filter(move |(_, outcome)| outcome.disposition == wanted);
    let reported = |(recipient, outcome): &(&Recipient, &Outcome)| {
        let wanted = recipient.dsn.notify;
        let action = match outcome.disposition {
            Disposition::Failed => Some(Action::Failed).filter(|_| wants_failure(recipient)),
            // RFC 3461 §5.2.2: of what another server has, and will say no more about.
            Disposition::Sent => Some(Action::Relayed).filter(|_| wanted.is_some_and(|notify| notify.success)),
            Disposition::Deferred => None,
        };
        action.map(|action| Reported {
            address: recipient.address.clone(),
            orcpt: recipient.dsn.orcpt.clone(),
            action,
            status: outcome.status,
            diagnostic: outcome.diagnostic.clone(),
            remote_mta: Some(upstream.endpoint.host.clone()),
            last_attempt: Some(ended),
        })
    };
    let to_report: Vec<Reported> = results.iter().filter_map(reported).collect();
    let failed_readers: Vec<&Recipient> = match message.kind {
        Kind::Mail => Vec::new(),
        Kind::Notice => of(Disposition::Failed).map(|(recipient, _)| *recipient).collect(),
    };
    let mut last_reply = of(Disposition::Deferred).next().map(|(_, outcome)| outcome.diagnostic.clone()).unwrap_or_default();
    let gone: usize = parted.iter().map(|parted| parted.ordinals.len()).sum();
    let remaining = (of(Disposition::Deferred).count() + left_out - gone) as u16;
    let settled = results
        .iter()
        .filter(|(_, outcome)| outcome.disposition != Disposition::Deferred)
        .map(|(recipient, _)| recipient.ordinal)
        .collect();

    let mut hold = None;
    let answers = history::answers(&results, &judgement, due_of);
    if judgement.in_doubt {
        let attempt = InDoubt { account: account.clone(), started, recipients: delivery.recipients.len() as u16 };
        hold = doubt::meet(setup.schedule.in_doubt(&message.client), delivery.id, &attempt);
        shared.doubts.fetch_add(1, Ordering::Relaxed);
        last_reply = format!("in doubt: {last_reply}");
    }
    if judgement.rest == reply::Rest::Held && remaining > 0 && hold.is_none() {
        // The reply says what the operator must look at; it is shown with the delivery.
        hold = Some(last_reply.clone());
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
    shared.has_ended(message, &job.delivery, &judgement.outcomes, ended);
    for (recipient, outcome) in results {
        telemetry::recipient_settled(message, &recipient.address, &attempt, outcome, Some(due_of(recipient.ordinal)));
    }
    telemetry::attempt_ended(delivery.id, &account, &judgement, &steps);
    failed_readers.iter().for_each(|reader| notices::failed(shared, &reader.address, ended));
    let told = notices::tell_of(shared, setup, message, &job.content, to_report, ended).await;
    let (held, in_doubt) = (hold.is_some(), judgement.in_doubt);
    let settlement = Settlement {
        delivery: delivery.id,
        settled,
        parted: parted.clone(),
        due,
        last_reply,
        attempts,
        telling: told.telling.clone(),
        hold,
        in_doubt,
    };
    let Some(recorded) = record(shared, settlement).await else { return };
    let notices = told.telling.notices.clone();
    leave(shared, message, told, recorded.last, ended);
    let parted = parting::recorded(shared, message, delivery, attempts, parted.into_iter().zip(recorded.parted));
    let too_many = judgement.pause.as_ref().is_some_and(|pause| pause.length == PauseLength::FewerConnections);
    let better = if elsewhere { Some(Chance::First) } else { Some(Chance::Elsewhere).filter(|_| too_many) };
    let elsewhere = better.map(|chance| (account.clone(), chance));
    let id = delivery.id;
    let (sender, relay) = (setup.sender_of(message, upstream), upstream.relay.clone());
    let Job { message, delivery, .. } = job;
    let tried = Tried { message, delivery, account: account.to_string(), relay, sender, started, ended, answers };
    // Before the scheduler forgets the delivery: whoever finds it nowhere finds in the history what became of it (see `letters`).
    shared.history.remember(Record::Ended(Box::new(tried))).await;
    shared.tell(Event::Settled { delivery: id, remaining, due, held, elsewhere });
    if let Some(parted) = parted {
        shared.history.remember(parted).await;
    }
    shared.remember_own(notices).await;
}

/// Whether the sender wants to hear of it if this recipient fails; if it did not say so, it does (RFC 3461 §4.1).
fn wants_failure(recipient: &Recipient) -> bool {
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
    let setup = shared.setup();
    let lifetime = setup.schedule.lifetime;
    let expired = |recipient: &Recipient| Reported {
        address: recipient.address.clone(),
        orcpt: recipient.dsn.orcpt.clone(),
        action: Action::Expired,
        // RFC 3463 §3.5: delivery time expired.
        status: EnhancedStatus::new(4, 4, 7),
        diagnostic: job.last_reply.clone(),
        remote_mta: None,
        last_attempt: None,
    };
    let recipients = job.delivery.recipients.iter().filter(|recipient| wants_failure(recipient)).map(expired).collect();
    let told = notices::tell_of(&shared, &setup, &job.message, &job.content, recipients, now).await;
    let settled = job.delivery.recipients.iter().map(|recipient| recipient.ordinal).collect();
    let telling = told.telling.clone();
    let settlement = Settlement { settled, telling, ..Settlement::unchanged(&job.delivery, now, String::new()) };
    // Before it is recorded, as in `settle`.
    telemetry::expired(&job.message, &job.delivery, lifetime);
    shared.has_expired(&job.message, &job.delivery, &job.last_reply, now);
    let Some(recorded) = record(&shared, settlement).await else { return };
    let notices = told.telling.notices.clone();
    leave(&shared, &job.message, told, recorded.last, now);
    let Job { message, delivery, .. } = job;
    let why = format!("not delivered within {}", crate::units::format_duration(lifetime));
    shared.history.remember(history::ended(message, delivery, Left::Expired, EnhancedStatus::new(4, 4, 7), why, now)).await;
    shared.remember_own(notices).await;
}

/// Records a settlement, however long the store needs; `None` if it never will.
async fn record<S: Spool>(shared: &Shared<S>, settlement: Settlement) -> Option<Settled> {
    loop {
        match shared.store.settle(settlement.clone()).await {
            Ok(settled) => return Some(settled),
            Err(StoreError::Fatal(why)) => {
                shared.store_failed(&why);
                return None;
            }
            Err(error) => telemetry::store_busy("recording the end of an attempt", &error.to_string()),
        }
        tokio::time::sleep(STORE_RETRY).await;
    }
}

/// What follows from a recorded settlement: what is told of it, and the end of the message's story if it was the last.
fn leave<S: Spool>(shared: &Shared<S>, message: &Message, told: Told, last: bool, now: Timestamp) {
    notices::recorded(shared, message, told, now);
    if last {
        telemetry::removed(message.id);
    }
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
