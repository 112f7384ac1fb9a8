//! One session: octets from the socket to the state machine, its effects to socket and store.

use std::cell::Cell;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::attempt::queued;
use super::dispatch::Event;
use super::listener::{Entry, others_wait};
use super::place::Place;
use super::stream::Stream;
use super::{Phase, Setup, Shared};
use crate::intake::{Facts, Habit, Repair, RepairError};
use crate::mail::Trace;
use crate::mail::{Kind, Message, QueueId};
use crate::notice::{Alarm, AlarmChange};
use crate::session::{Effect, Ending, Envelope, Input, Session};
use crate::smtp::{Credentials, EnhancedStatus, Reply};
use crate::store::history::Record;
use crate::store::{Incoming, Spool, StoreError};
use crate::telemetry;

/// What is read at once. Large enough for a scan's content to come in few pieces, small enough for thousands of idle sessions.
const READ: usize = 16 << 10;

/// Serves one client until it leaves, misbehaves, or the relay stops.
pub(super) async fn run<S: Spool>(
    shared: Arc<Shared<S>>,
    setup: Arc<Setup>,
    entry: &Entry,
    place: &Place<'_, S>,
    stream: Stream,
    peer: IpAddr,
) {
    let session = Session::new(entry.settings.clone(), setup.policy.clone(), peer, shared.clock.now());
    let mut conversation = Conversation { shared, setup, entry, place, stream, peer, session, incoming: None };
    let how = match conversation.hold().await {
        Ok(ending) => ending.to_string(),
        Err(error) => error.to_string(),
    };
    if let Some(client) = conversation.session.client() {
        telemetry::disconnected(peer, client, &how);
    }
}

/// The server's side of a TLS handshake. A relay that is about to stop does not wait for it, nor do those who need the place.
pub(super) async fn secure<S: Spool>(shared: &Shared<S>, entry: &Entry, place: &Place<'_, S>, stream: &mut Stream) -> io::Result<()> {
    let config = entry.tls(shared.clock.now()).await?;
    tokio::select! {
        secured = stream.secure(config, entry.settings.handshake_timeout) => secured,
        () = place.asked_to_go() => Err(others_wait()),
        () = shared.shutdown.reached(Phase::Stopping) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the relay is about to stop")),
    }
}

struct Conversation<'a, S: Spool> {
    shared: Arc<Shared<S>>,
    /// As it was when the session began.
    setup: Arc<Setup>,
    entry: &'a Entry,
    place: &'a Place<'a, S>,
    stream: Stream,
    peer: IpAddr,
    session: Session,
    incoming: Option<Draft<S>>,
}

/// A message whose content is coming in.
struct Draft<S: Spool> {
    id: QueueId,
    repair: Repair,
    content: S::Incoming,
    /// Why it cannot be kept, once that is known; the rest of the content is only swallowed.
    refusal: Option<Reply>,
    /// Canonical octets on their way from `repair` to `content`.
    buffer: Vec<u8>,
}

impl<S: Spool> Conversation<'_, S> {
    async fn hold(&mut self) -> io::Result<Ending> {
        if let Some(client) = self.session.client() {
            telemetry::connected(self.peer, client);
        }
        let shutdown = self.shared.shutdown.clone();
        let mut told = false;
        loop {
            while let Some(effect) = self.session.next_effect() {
                if let Some(ending) = self.carry_out(effect).await? {
                    let stream = std::mem::replace(&mut self.stream, Stream::Closed);
                    stream.part(shutdown.reached(Phase::Stopping)).await;
                    return Ok(ending);
                }
            }
            self.place.stands(self.session.standing());
            let now = self.shared.clock.now();
            let patience = self.session.deadline().map(|deadline| deadline.since(now));
            tokio::select! {
                ready = self.stream.readable(), if self.session.wants_input() => {
                    ready?;
                    self.read().await?;
                }
                () = self.place.asked_to_go() => self.session.handle(self.shared.clock.now(), Input::MakeRoom),
                () = super::sleep(patience) => self.session.handle(self.shared.clock.now(), Input::Tick),
                () = shutdown.reached(Phase::Stopping), if !told => {
                    told = true;
                    self.session.handle(self.shared.clock.now(), Input::Shutdown);
                }
            }
        }
    }

    /// Reads what is there. The buffer is the thread's: an idle session holds none.
    async fn read(&mut self) -> io::Result<()> {
        thread_local!(static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) });
        let mut buffer = BUFFER.take();
        buffer.clear();
        buffer.reserve_exact(READ);
        let read = self.stream.read(&mut buffer).await;
        if let Ok(Some(read)) = read {
            let input = if read == 0 { Input::Eof } else { Input::Octets(&buffer) };
            self.session.handle(self.shared.clock.now(), input);
        }
        BUFFER.set(buffer);
        read.map(drop)
    }

    /// Returns how the session ended, if it did.
    async fn carry_out(&mut self, effect: Effect) -> io::Result<Option<Ending>> {
        match effect {
            Effect::Send(octets) => tokio::select! {
                // A session that has been asked to go may still say why.
                biased;
                sent = self.stream.send(&octets, self.entry.settings.command_timeout) => sent?,
                () = self.place.asked_to_go() => return Err(others_wait()),
            },
            Effect::Open { announced } => {
                let opened = self.open(announced);
                self.session.handle(self.shared.clock.now(), Input::Opened(opened));
            }
            Effect::Content(octets) => self.write(&octets).await,
            Effect::Keep(envelope) => {
                let kept = self.keep(envelope).await;
                self.session.handle(self.shared.clock.now(), Input::Kept(kept));
            }
            Effect::Discard => self.incoming = None,
            Effect::StartTls => self.secure().await?,
            Effect::LogIn(credentials) => self.log_in(credentials).await,
            Effect::Refused { reply, what, reverse_path } => {
                telemetry::refused(self.peer, self.session.client(), &what, reverse_path.as_ref(), &reply);
            }
            Effect::Noticed(habit) => self.note(habit),
            Effect::Close(ending) => return Ok(Some(ending)),
        }
        Ok(None)
    }

    /// Counts a habit of the client's; the first time of each day it is told.
    fn note(&self, habit: Habit) {
        let Some(client) = self.session.client() else { return };
        let told = self.shared.habits().note(self.shared.clock.now(), client, self.peer, habit);
        if let Some(count) = told {
            telemetry::habit(self.peer, client, habit, count);
        }
    }

    /// Begins TLS, as the client has asked for it.
    async fn secure(&mut self) -> io::Result<()> {
        if let Err(error) = secure(&self.shared, self.entry, self.place, &mut self.stream).await {
            telemetry::tls_failed(self.peer, &error.to_string());
            return Err(error);
        }
        self.session.handle(self.shared.clock.now(), Input::TlsEstablished);
        Ok(())
    }

    async fn log_in(&mut self, credentials: Credentials) {
        self.place.stands(self.session.standing());
        let answer = self.shared.logins.log_in(&self.setup.users, self.peer, credentials, || self.shared.clock.now()).await;
        self.session.handle(self.shared.clock.now(), Input::LoggedIn(answer));
    }

    fn open(&mut self, announced: u64) -> Result<QueueId, Reply> {
        let Some(underway) = self.session.underway() else {
            debug_assert!(false, "a message is opened only in a transaction");
            return Err(local_error());
        };
        let now = self.shared.clock.now();
        let id = self.shared.ids.next(now);
        let content = self.shared.store.begin(id, announced).map_err(|error| self.store_reply(error))?;
        let trace = Trace {
            hostname: self.setup.hostname().to_owned(),
            helo: underway.helo.map(str::to_owned),
            peer: Some(self.peer),
            protocol: underway.protocol.as_str(),
            id,
            at: now,
            only_recipient: underway.only_recipient.cloned(),
        };
        let repair = Repair::new(trace, underway.reverse_path, self.setup.session.header_size);
        self.incoming = Some(Draft { id, repair, content, refusal: None, buffer: Vec::new() });
        Ok(id)
    }

    async fn write(&mut self, octets: &[u8]) {
        let Some(draft) = &mut self.incoming else { return };
        if draft.refusal.is_some() {
            return;
        }
        draft.buffer.clear();
        // What the relay adds to a header is short.
        draft.buffer.reserve(octets.len() + 1_024);
        draft.refusal = match draft.repair.push(octets, &mut draft.buffer) {
            Err(error) => Some(repair_reply(&error)),
            Ok(()) => draft.content.write(&draft.buffer).await.err().map(|error| self.shared.store_reply(error)),
        };
    }

    async fn keep(&mut self, envelope: Envelope) -> Result<(), Reply> {
        // Who waits for the relay is not idle.
        self.place.stands(self.session.standing());
        let begun = Instant::now();
        let Some(mut draft) = self.incoming.take() else {
            debug_assert!(false, "a message is kept only after it was opened");
            return Err(local_error());
        };
        if let Some(refusal) = draft.refusal {
            return Err(refusal);
        }
        draft.buffer.clear();
        let facts = draft.repair.finish(&mut draft.buffer).map_err(|error| repair_reply(&error))?;
        facts.habits.iter().chain(envelope.habit(&facts)).for_each(|habit| self.note(habit));
        self.session.policy().author(&envelope.client, &envelope.reverse_path, &facts)?;
        draft.content.write(&draft.buffer).await.map_err(|error| self.store_reply(error))?;
        // What is answered 250 must fit the upstream server's limit with everything that the relay adds to it.
        let limit = self.setup.session.message_size;
        let size = facts.size + facts.growth;
        if size > limit {
            let text = format!(
                "Message too large: {size} octets with what relaying adds; the limit is {limit}. Send it in parts, or scan at a lower resolution"
            );
            return Err(Reply::new(552, EnhancedStatus::new(5, 3, 4), text));
        }
        let message = self.message(draft.id, &envelope, facts);
        let policy = self.session.policy();
        let deliveries = policy.split(&envelope.client, envelope.recipients, size, draft.id, message.accepted_at)?;
        let recipients = deliveries.iter().map(|delivery| delivery.recipients.len()).sum();
        let queue: Vec<_> = deliveries.iter().map(|delivery| queued(&message, delivery)).collect();
        let record = self.shared.history.is_kept().then(|| Record::Accepted(Box::new((message.clone(), deliveries.clone()))));
        self.shared.store.accept(message.clone(), deliveries, draft.content).await.map_err(|error| self.store_reply(error))?;
        let how = telemetry::Arrival {
            protocol: envelope.protocol.as_str(),
            helo: envelope.helo.as_deref().unwrap_or_default(),
            user: envelope.user.as_deref().unwrap_or_default(),
            tls: &self.stream.protection(),
            took: begun.elapsed(),
        };
        telemetry::accepted(&message, &how, recipients);
        self.shared.has_come();
        self.shared.tell(Event::Add(queue));
        if let Some(record) = record {
            self.shared.history.remember(record).await;
        }
        Ok(())
    }

    fn message(&self, id: QueueId, envelope: &Envelope, facts: Facts) -> Message {
        Message {
            id,
            accepted_at: self.shared.clock.now(),
            kind: Kind::Mail,
            client: envelope.client.clone(),
            priority: self.session.policy().priority(&envelope.client, facts.asked_priority),
            peer: Some(self.peer),
            reverse_path: envelope.reverse_path.clone(),
            author: facts.author,
            subject: facts.subject,
            message_id: facts.message_id,
            size: facts.size,
            eight_bit: facts.eight_bit,
            smtputf8: envelope.smtputf8,
            dsn: envelope.dsn.clone(),
        }
    }

    fn store_reply(&self, error: StoreError) -> Reply {
        self.shared.store_reply(error)
    }
}

impl<S: Spool> Shared<S> {
    /// What the client is told when the store cannot keep its message: always to try again, never that the message is at fault.
    fn store_reply(&self, error: StoreError) -> Reply {
        match error {
            StoreError::Full(why) => {
                telemetry::disk_low(&why);
                self.alarm(Alarm::DiskLow, AlarmChange::Raised(why));
                Reply::new(452, EnhancedStatus::new(4, 3, 1), "Not enough disk space at the relay; try again later")
            }
            StoreError::Unavailable(why) => {
                telemetry::store_busy("accepting a message", &why);
                Reply::new(451, EnhancedStatus::new(4, 3, 0), "The relay cannot store mail at the moment; try again later")
            }
            StoreError::Fatal(why) => {
                self.store_failed(&why);
                Reply::new(451, EnhancedStatus::new(4, 3, 0), "The relay cannot store mail at the moment; try again later")
            }
        }
    }
}

fn local_error() -> Reply {
    Reply::new(451, EnhancedStatus::new(4, 3, 0), "The relay has lost track of this message; send it again")
}

fn repair_reply(error: &RepairError) -> Reply {
    match error {
        RepairError::HeaderTooLarge => {
            Reply::new(552, EnhancedStatus::new(5, 3, 4), "The message's header is too large; shorten its fields")
        }
        RepairError::Looping => {
            let text = "The message has passed through more than 50 servers and goes in a circle; check that no server behind this relay sends mail back to it";
            Reply::new(554, EnhancedStatus::new(5, 4, 6), text)
        }
    }
}
