//! Notices on their way: what became of mail is told to its sender or to whom its client names, at once or gathered into a digest.
//!
//! What is told is composed before it is recorded, and recorded in one transaction with what it is about: a power cut leaves neither a failure
//! without its notice nor a notice without its failure. What the pace makes wait lies in the store until its digest is written, in one
//! transaction with its removal. Two things are done here by themselves: digests when they are due, and warnings of mail that waits for long.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::attempt::{STORE_RETRY, head, queued};
use super::control::ask;
use super::dispatch::Event;
use super::{Phase, Setup, Shared, sleep};
use crate::clock::Timestamp;
use crate::intake::{Addressee, Readers};
use crate::mail::{self, Action, Content, Gathered, Header, Kind, Message, Recipient, Reported};
use crate::notice::{self, Course, DIGEST, Digest, Notice, Pace, Report, Settings, WHOLE};
use crate::schedule::Reason;
use crate::smtp::{EnhancedStatus, Mailbox, RecipientDsn, Ret};
use crate::store::{Gathering, Listed, NewMessage, Spool, StoreError, Telling};
use crate::telemetry;

/// How often it is looked for mail that waits for long.
const WATCH: Duration = Duration::from_secs(60);
/// Deliveries that are read in one go then.
const AT_ONCE: usize = 100;

/// How often each reader gets a notice, and a bell that rings when something is gathered.
#[derive(Debug)]
pub(super) struct Desk {
    pace: Mutex<Pace>,
    gathered: Notify,
}

impl Desk {
    /// With what was gathered before.
    pub(super) fn new(settings: &Settings, gathering: Vec<Gathering>) -> Self {
        let mut pace = Pace::new(settings.digest_interval, settings.per_hour);
        gathering.into_iter().for_each(|Gathering { reader, count, since }| pace.restore(reader, count, since));
        Self { pace: Mutex::new(pace), gathered: Notify::new() }
    }

    /// Goes on at another pace.
    pub(super) fn change(&self, settings: &Settings) {
        self.pace().change(settings.digest_interval, settings.per_hour);
        self.gathered.notify_one();
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        // Each change is whole before anything can panic.
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What somebody is told of a message.
pub(super) struct Told {
    /// For the store.
    pub telling: Telling,
    /// Why nobody is, where somebody should be.
    nobody: Option<&'static str>,
}

/// Composes what is told of these recipients.
pub(super) async fn tell_of<S: Spool>(
    shared: &Shared<S>,
    setup: &Setup,
    message: &Message,
    content: &Content,
    recipients: Vec<Reported>,
    now: Timestamp,
) -> Told {
    let mut told = Told { telling: Telling::default(), nobody: None };
    if recipients.is_empty() {
        return told;
    }
    // A header that cannot be read any more only makes the notice shorter.
    let head = head(content, setup.session.header_size).await.unwrap_or_default();
    let header = &head[..mail::header_end(&head).unwrap_or(head.len())];
    let readers = match readers(setup, message, header) {
        Ok(readers) => readers,
        Err(why) => return Told { nobody: Some(why), ..told },
    };
    let whole = if message.dsn.ret == Some(Ret::Full) { whole(content).await } else { None };
    for reader in readers {
        let course = shared.desk.pace().course(now, &reader);
        match course {
            Course::AtOnce => {
                let id = shared.ids.next(now);
                let notice = notice::report(&Report {
                    id,
                    now,
                    hostname: setup.hostname(),
                    reader: &reader,
                    original: message,
                    header,
                    whole: whole.as_deref(),
                    retry_until: message.accepted_at + setup.schedule.lifetime,
                    recipients: &recipients,
                });
                match notice.and_then(|notice| addressed(setup, notice)) {
                    Some(notice) => told.telling.notices.push(notice),
                    None => told.nobody = Some("no route takes the notice"),
                }
            }
            Course::Gather => told.telling.gathered.extend(recipients.iter().map(|recipient| Gathered {
                reader: reader.clone(),
                at: now,
                message: message.id,
                client: message.client.clone(),
                accepted_at: message.accepted_at,
                subject: message.subject.clone(),
                envid: message.dsn.envid.clone(),
                recipient: recipient.clone(),
            })),
            Course::Unreachable => told.nobody = Some("notices do not reach its sender"),
        }
    }
    told
}

/// Who is told of a message; or why nobody can be. Nobody, and no reason, where nobody is to be.
fn readers(setup: &Setup, message: &Message, header: &[u8]) -> Result<Vec<Mailbox>, &'static str> {
    if message.kind == Kind::Notice {
        return Err("it is a notice itself");
    }
    let readers = setup.policy.client_named(&message.client).map_or(&Readers::Author, |client| &client.notify);
    let author = match readers {
        Readers::Nobody => return Ok(Vec::new()),
        Readers::These(readers) => return Ok(readers.iter().map(canonical).collect()),
        Readers::Author => message.reverse_path.mailbox().ok_or("it came from the null path")?,
    };
    if is_reply_of_a_program(header) {
        return Err("it is an automatic reply");
    }
    if setup.accounts.keys().any(|account| account.as_str() == author.as_str().to_lowercase()) {
        return Err("its sender is an account, and accounts have no mailbox");
    }
    if setup.policy.recipient(&message.client, author, None).is_err() {
        return Err("no route leads to its sender");
    }
    Ok(vec![canonical(author)])
}

/// The same for all ways to write a reader's domain: by its text the store finds what is gathered for it.
fn canonical(reader: &Mailbox) -> Mailbox {
    format!("{}@{}", reader.local_part(), reader.domain().to_lowercase()).parse().unwrap_or_else(|_| reader.clone())
}

/// RFC 3834 §5: what a program answered to a program would be answered once more. What a device or an application sends of itself
/// (`auto-generated`) is a message like any other, and somebody wants to know when it fails.
fn is_reply_of_a_program(header: &[u8]) -> bool {
    let is_reply = |value: &[u8]| {
        let word = value.trim_ascii().split(|octet| matches!(octet, b';' | b' ' | b'\t' | b'\r' | b'(')).next().unwrap_or_default();
        word.eq_ignore_ascii_case(b"auto-replied") || word.eq_ignore_ascii_case(b"auto-notified")
    };
    Header::scan(header).named("Auto-Submitted").any(|field| is_reply(field.value()))
}

/// All of a content, if it is small enough to come back with a notice.
async fn whole(content: &Content) -> Option<Bytes> {
    match content {
        _ if content.len() > WHOLE => None,
        Content::Inline(octets) => Some(octets.clone()),
        Content::File { path, .. } => tokio::fs::read(path).await.ok().map(Bytes::from),
    }
}

/// A notice with the deliveries that bring it to its readers, if a route leads to one of them.
fn addressed(setup: &Setup, Notice { message, recipients, content }: Notice) -> Option<NewMessage> {
    let size = content.len() as u64;
    let addressee = |address: Mailbox| {
        let class = setup.policy.recipient(&message.client, &address, Some(size)).ok()?;
        Some(Addressee { address, class, dsn: RecipientDsn::default() })
    };
    let addressees: Vec<Addressee> = recipients.into_iter().filter_map(addressee).collect();
    let deliveries = setup.policy.split(&message.client, addressees, size, message.id, message.accepted_at).ok()?;
    (!deliveries.is_empty()).then_some(NewMessage { message, deliveries, content })
}

/// What follows once it is recorded: the notices enter the queue, the digests know of what was gathered, and the log says so.
pub(super) fn recorded<S: Spool>(shared: &Shared<S>, message: &Message, Told { telling, nobody }: Told, now: Timestamp) {
    for notice in &telling.notices {
        enters(shared, notice, Some(message));
    }
    let mut readers: Vec<&Mailbox> = telling.gathered.iter().map(|gathered| &gathered.reader).collect();
    readers.dedup();
    for reader in readers {
        let count = telling.gathered.iter().filter(|gathered| gathered.reader == *reader).count();
        shared.desk.pace().gathered(now, reader, count);
        telemetry::notice_gathered(message.id, reader, count);
        shared.desk.gathered.notify_one();
    }
    if let Some(why) = nobody {
        telemetry::notice_impossible(message, why);
    }
}

/// A notice has been recorded.
fn enters<S: Spool>(shared: &Shared<S>, notice: &NewMessage, about: Option<&Message>) {
    for recipient in notice.deliveries.iter().flat_map(|delivery| &delivery.recipients) {
        match about {
            Some(message) => telemetry::notice_queued(message.id, notice.message.id, &recipient.address),
            None => telemetry::digest_queued(notice.message.id, &recipient.address),
        }
    }
    shared.tell(Event::Add(notice.deliveries.iter().map(|delivery| queued(&notice.message, delivery)).collect()));
}

/// A notice could not be delivered: its reader is left alone for a while.
pub(super) fn failed<S: Spool>(shared: &Shared<S>, reader: &Mailbox, now: Timestamp) {
    shared.desk.pace().unreachable(now, reader);
}

/// Writes digests when they are due, until the relay stops.
pub(super) async fn run<S: Spool>(shared: Arc<Shared<S>>) {
    let mut not_before = Timestamp::default();
    loop {
        let due = shared.desk.pace().due().map(|due| due.max(not_before));
        let now = shared.clock.now();
        tokio::select! {
            () = shared.desk.gathered.notified() => continue,
            () = sleep(due.map(|due| due.since(now))) => {}
            () = shared.shutdown.reached(Phase::Stopping) => return,
        }
        let now = shared.clock.now();
        let ready = shared.desk.pace().ready(now);
        for reader in ready {
            match digest(&shared, &reader, now).await {
                Ok(()) => {}
                Err(StoreError::Fatal(why)) => return shared.store_failed(&why),
                Err(error) => {
                    telemetry::store_busy("writing a digest", &error.to_string());
                    not_before = now + STORE_RETRY;
                }
            }
        }
    }
}

async fn digest<S: Spool>(shared: &Shared<S>, reader: &Mailbox, now: Timestamp) -> Result<(), StoreError> {
    let (gathered, mark) = shared.store.gathered(reader, DIGEST).await?;
    let id = shared.ids.next(now);
    let setup = shared.setup();
    let lifetime = setup.schedule.lifetime;
    let digest = notice::digest(&Digest { id, now, hostname: setup.hostname(), reader, lifetime, gathered: &gathered });
    let digest = digest.filter(|_| !shared.desk.pace().is_unreachable(now, reader)).and_then(|digest| addressed(&setup, digest));
    shared.store.digest(reader, mark, digest.clone()).await?;
    match digest {
        Some(digest) => {
            shared.desk.pace().digested(now, reader, gathered.len());
            enters(shared, &digest, None);
        }
        None => {
            // With nothing there, nothing is left to wait for either.
            let dropped = if gathered.is_empty() { usize::MAX } else { gathered.len() };
            shared.desk.pace().dropped(now, reader, dropped);
            telemetry::digest_impossible(reader, gathered.len());
        }
    }
    Ok(())
}

/// Warns of mail that waits for long, until the relay stops.
pub(super) async fn watch<S: Spool>(shared: Arc<Shared<S>>) {
    let mut setups = shared.setup.subscribe();
    loop {
        let patience = setups.borrow_and_update().notices.delay_warning;
        let before = patience.map_or(Timestamp::default(), |patience| shared.clock.now() - patience);
        while patience.is_some()
            && let Ok(delayed) = shared.store.delayed(before, AT_ONCE).await
        {
            let more = delayed.len() == AT_ONCE;
            for listed in delayed {
                match warn(&shared, listed).await {
                    Ok(()) => {}
                    Err(StoreError::Fatal(why)) => return shared.store_failed(&why),
                    Err(error) => telemetry::store_busy("recording a warning", &error.to_string()),
                }
            }
            if !more || shared.shutdown.phase() != Phase::Running {
                break;
            }
        }
        tokio::select! {
            () = sleep(patience.map(|patience| (patience / 4).clamp(Duration::from_millis(100), WATCH))) => {}
            _ = setups.changed() => {}
            () = shared.shutdown.reached(Phase::Stopping) => return,
        }
    }
}

async fn warn<S: Spool>(shared: &Shared<S>, Listed { message, delivery, last_reply, .. }: Listed) -> Result<(), StoreError> {
    let now = shared.clock.now();
    let id = delivery.id;
    // What the dispatcher no longer knows has just ended.
    let Some(wait) = ask(shared, move |scheduler, now| scheduler.why(now, id)).await.ok().flatten() else { return Ok(()) };
    let Some(job) = shared.store.load(id).await? else { return Ok(()) };
    let diagnostic = if last_reply.is_empty() { in_plain_words(&wait.reason).to_owned() } else { last_reply };
    // Of a reply that has one, else RFC 3463 §3.1: other or undefined.
    let status = diagnostic.split(' ').take(3).find_map(|word| word.parse::<EnhancedStatus>().ok()).unwrap_or(EnhancedStatus::new(4, 0, 0));
    let delayed = |recipient: &Recipient| Reported {
        address: recipient.address.clone(),
        orcpt: recipient.dsn.orcpt.clone(),
        action: Action::Delayed,
        status,
        diagnostic: diagnostic.clone(),
        remote_mta: None,
        last_attempt: None,
    };
    // RFC 3461 §4.1: who did not say what it wants to hear of is warned, as is the custom.
    let wants = |recipient: &&Recipient| recipient.dsn.notify.is_none_or(|notify| notify.delay);
    let recipients = delivery.recipients.iter().filter(wants).map(delayed).collect();
    let told = tell_of(shared, &shared.setup(), &message, &job.content, recipients, now).await;
    if shared.store.warn(id, told.telling.clone()).await? {
        recorded(shared, &message, told, now);
    }
    Ok(())
}

/// Why something waits, for who sent it.
fn in_plain_words(reason: &Reason) -> &'static str {
    match reason {
        Reason::Held => "It is held back by an operator of the mail relay.",
        Reason::Suspended(_) | Reason::Paused { .. } | Reason::NoAccount => {
            "The mail service does not take mail from the relay at the moment."
        }
        Reason::Budget { .. } => "As much mail has been sent as the mail service allows, and it waits until more may be sent.",
        Reason::UnderWay | Reason::Deferred | Reason::Connections | Reason::Turn => "Much other mail waits before it.",
    }
}
