//! The receiving side of SMTP as a state machine (RFC 5321 §3 and §4): octets in, effects out. Pure: no sockets, no clock, no store.
//!
//! [`Session::handle`] takes what happened and the time; then [`Session::next_effect`] is drained until it is `None`; [`Session::deadline`]
//! says when to come back with [`Input::Tick`] if nothing else happens. Four effects are questions, [`Effect::Open`], [`Effect::Keep`],
//! [`Effect::StartTls`] and [`Effect::LogIn`]: until the answer is handed in, the session keeps what else comes (`wants_input` is false: read
//! no more, so that it is one read's worth at most) and no deadline runs. The replies to pipelined commands (RFC 2920) are gathered into one
//! write.
//!
//! Invariants:
//! * `250` to the end of data is said only after `Kept(Ok)`; `354` only after `Opened(Ok)`.
//! * Each `Open` that was answered with `Ok` is followed by exactly one of `Keep` and `Discard`, and `Content` comes in between only.
//! * No reply and no effect depends on how the input was cut into pieces.
//! * What a peer that is no client says is never looked at, unless the listener lets it log in; before it has, it can send no mail.
//! * Nothing that came before a TLS handshake is believed after it, neither octets nor what they meant.
//!
//! A device that sends one octet a second is served as long as it moves: each octet of content begins the wait anew, and each octet of a
//! command lengthens it by a second. So a client may hold its session for as long as it likes, where there is room for it. Where there is none,
//! [`Session::standing`] says what the session does, the door ([`crate::intake::Door`]) finds those that do nothing or next to nothing, and
//! [`Input::MakeRoom`] ends one.

mod commands;
mod effect;
mod login;
mod reception;
mod replies;
mod secure;
mod settings;
mod transaction;

pub use effect::{Dialect, Effect, Ending, Envelope, Input, LoginRefusal, Protocol, Underway};
pub use settings::{Auth, Entrance, Settings, Tls};

use std::collections::VecDeque;
use std::io::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};

use crate::clock::Timestamp;
use crate::intake::{ClientSettings, Habit, HabitSet, LineEndings, Policy, Standing};
use crate::mail::{Class, ClientName, QueueId};
use crate::smtp::{Exchange, LineSplitter, MailParameters, Reply};
use reception::{Progress, Reception};
use transaction::Transaction;

/// The first octet of a TLS record that holds a handshake (RFC 8446 §5.1); no command begins with it.
const TLS_HANDSHAKE: u8 = 0x16;

/// How long an octet of a command may take.
const OCTET: Duration = Duration::from_secs(1);

/// One connection of a client.
#[derive(Debug)]
pub struct Session {
    settings: Arc<Settings>,
    policy: Arc<Policy>,
    peer: IpAddr,
    client: Option<Arc<ClientSettings>>,
    phase: Phase,
    hello: Option<Hello>,
    transaction: Option<Transaction>,
    /// Since when the next command or the next piece of content is waited for.
    waiting_since: Timestamp,
    lines: LineSplitter,
    /// Octets that have come of a command whose end has not.
    begun: usize,
    /// What came while an answer was awaited.
    unread: BytesMut,
    /// Replies that are not sent yet.
    replies: Vec<u8>,
    effects: VecDeque<Effect>,
    transactions: usize,
    errors: usize,
    /// See [`Settings::commands_without_mail`].
    commands_without_mail: usize,
    eof: bool,
    shutting_down: bool,
    /// Others need the place.
    making_room: bool,
    /// AUTH was tried: what comes next may be a password, though nobody asked for it.
    secrets_may_follow: bool,
    /// What was told of the client since its last message.
    habits: HabitSet,
    /// TLS is on.
    is_secured: bool,
    /// Who has logged in.
    user: Option<String>,
    /// Until when a peer that is no client by its address must have logged in.
    login_deadline: Option<Timestamp>,
}

/// What comes next.
#[derive(Debug)]
enum Phase {
    /// A command.
    Command,
    /// The answer to `Open`.
    Opening,
    /// Content.
    Content(Box<Reception>),
    /// The answer to `Keep`.
    Keeping(QueueId),
    /// `StartTls`, as soon as everything else is drained.
    StartingTls,
    /// The answer to `StartTls`.
    Securing,
    /// A line that answers a challenge.
    Responding(Exchange),
    /// The answer to `LogIn`, for this user.
    LoggingIn(String),
    /// The time to refuse a login.
    Delaying(Reply, Timestamp),
    /// `Close`, as soon as everything else is drained.
    Ending(Ending),
    /// Nothing.
    Closed,
}

/// What the client said of itself.
#[derive(Debug)]
struct Hello {
    name: Option<String>,
    extended: bool,
}

impl Hello {
    fn dialect(&self, smtputf8: bool) -> Dialect {
        match self.extended {
            _ if smtputf8 => Dialect::Utf8Smtp,
            true => Dialect::Esmtp,
            false => Dialect::Smtp,
        }
    }
}

impl Session {
    /// A connection that was just made, with TLS if the listener begins with it; its greeting is the first effect. A peer that is no client, and
    /// cannot become one by logging in, is told so and closed.
    pub fn new(settings: Arc<Settings>, policy: Arc<Policy>, peer: IpAddr, now: Timestamp) -> Self {
        let peer = peer.to_canonical();
        let mut session = Self {
            is_secured: settings.entrance.tls == Tls::Implicit,
            lines: LineSplitter::new(settings.command_line),
            begun: 0,
            settings,
            policy,
            peer,
            client: None,
            phase: Phase::Command,
            hello: None,
            transaction: None,
            waiting_since: now,
            unread: BytesMut::new(),
            replies: Vec::new(),
            effects: VecDeque::new(),
            transactions: 0,
            errors: 0,
            commands_without_mail: 0,
            eof: false,
            shutting_down: false,
            making_room: false,
            secrets_may_follow: false,
            habits: HabitSet::default(),
            user: None,
            login_deadline: None,
        };
        session.client = session.client_by_address();
        if session.client.is_none() && session.settings.entrance.auth == Auth::None {
            session.end(replies::not_served(peer, session.policy.client(peer).map(|client| &client.name)), "connection", Ending::NotServed);
            return session;
        }
        session.login_deadline = session.client.is_none().then(|| now + session.settings.login_timeout);
        // Writing to a Vec cannot fail.
        let _ = write!(session.replies, "220 {} ESMTP hve-relay ready\r\n", session.settings.hostname);
        session
    }

    /// The client that the peer is by its address, if that one is served here.
    fn client_by_address(&self) -> Option<Arc<ClientSettings>> {
        self.policy.client(self.peer).filter(|client| self.settings.entrance.serves(&client.name)).cloned()
    }

    /// Takes what happened at the time `now`.
    pub fn handle(&mut self, now: Timestamp, input: Input<'_>) {
        match input {
            _ if matches!(self.phase, Phase::Ending(_) | Phase::Closed) => return,
            Input::Octets(octets) => {
                if matches!(self.phase, Phase::Content(_)) {
                    self.waiting_since = now;
                }
                if self.is_awaiting() || !self.unread.is_empty() {
                    self.unread.extend_from_slice(octets);
                } else {
                    let read = self.read(now, octets);
                    self.unread.extend_from_slice(&octets[read..]);
                }
            }
            Input::Eof => self.eof = true,
            Input::Tick => self.tick(now),
            Input::Shutdown => self.shutting_down = true,
            Input::MakeRoom => self.making_room = true,
            Input::Opened(answer) => self.opened(now, answer),
            Input::Kept(answer) => self.kept(now, answer),
            Input::TlsEstablished => self.tls_established(now),
            Input::LoggedIn(answer) => self.logged_in(now, answer),
        }
        if !self.unread.is_empty() && !self.is_awaiting() {
            let mut unread = std::mem::take(&mut self.unread);
            let read = self.read(now, &unread);
            unread.advance(read);
            self.unread = unread;
        }
        if self.shutting_down && matches!(self.phase, Phase::Command | Phase::Responding(_) | Phase::Delaying(..)) {
            self.end(replies::shutting_down(), "shutdown", Ending::Shutdown);
        }
        if self.making_room && matches!(self.phase, Phase::Command | Phase::Content(_) | Phase::Responding(_) | Phase::Delaying(..)) {
            self.end(replies::makes_room(), "others wait for a session", Ending::MadeRoom);
        }
        if self.eof {
            match self.phase {
                Phase::Command => {
                    // Whoever only looked whether somebody is there, as monitoring does, has nothing to say good-bye to.
                    if self.hello.is_some() {
                        self.note(Habit::NoQuit);
                    }
                    self.close(Ending::Gone);
                }
                Phase::Responding(_) | Phase::Delaying(..) | Phase::StartingTls | Phase::Securing => {
                    self.close(Ending::Gone);
                }
                Phase::Content(_) => self.close(Ending::GoneInContent),
                _ => {}
            }
        }
    }

    /// What is to be done next, if anything.
    pub fn next_effect(&mut self) -> Option<Effect> {
        if let Some(effect) = self.effects.pop_front() {
            return Some(effect);
        }
        // The answer to `Open` comes at once; its reply goes out with those before it.
        if !self.replies.is_empty() && !matches!(self.phase, Phase::Opening) {
            return Some(Effect::Send(std::mem::take(&mut self.replies)));
        }
        match self.phase {
            Phase::Ending(ending) => {
                self.phase = Phase::Closed;
                Some(Effect::Close(ending))
            }
            Phase::StartingTls => {
                self.phase = Phase::Securing;
                Some(Effect::StartTls)
            }
            _ => None,
        }
    }

    /// When [`Input::Tick`] is due; none while an answer is awaited and after the end.
    pub fn deadline(&self) -> Option<Timestamp> {
        match &self.phase {
            Phase::Command | Phase::Responding(_) => {
                let slowly = OCTET * u32::try_from(self.begun.min(self.settings.command_line)).unwrap_or(u32::MAX);
                let for_a_command = self.waiting_since + self.settings.command_timeout + slowly;
                Some(self.login_deadline.map_or(for_a_command, |for_a_login| for_a_login.min(for_a_command)))
            }
            Phase::Delaying(_, until) => Some(*until),
            Phase::Content(_) => Some(self.waiting_since + self.settings.data_timeout),
            _ => None,
        }
    }

    /// Whether octets may be handed in; if not, leave them where they are until an answer has been handed in.
    pub fn wants_input(&self) -> bool {
        !self.eof && matches!(self.phase, Phase::Command | Phase::Content(_) | Phase::Responding(_))
    }

    /// What it is doing, for those who wait for its place.
    pub fn standing(&self) -> Standing {
        match &self.phase {
            Phase::Command | Phase::Responding(_) if self.begun == 0 => Standing::Idle(self.waiting_since),
            Phase::Command | Phase::Responding(_) => Standing::Begun(self.waiting_since),
            Phase::Content(reception) => Standing::Content(reception.since, reception.size()),
            _ => Standing::Busy,
        }
    }

    /// Whose connection it is; `None` if nobody's, or nobody's yet.
    pub fn client(&self) -> Option<&ClientName> {
        self.client.as_ref().map(|client| &client.name)
    }

    /// Who has logged in, if anybody.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Where it comes from; an IPv4 address in IPv6 clothes has been undressed.
    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    /// The policy that the session's recipients were accepted under, and with which they must be split.
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    fn is_awaiting(&self) -> bool {
        matches!(self.phase, Phase::Opening | Phase::Keeping(_) | Phase::LoggingIn(_) | Phase::Delaying(..))
    }

    /// Reads as far as possible; returns how many octets have been used up.
    fn read(&mut self, now: Timestamp, input: &[u8]) -> usize {
        // A line is borrowed from the splitter while the session acts on it.
        let mut lines = std::mem::take(&mut self.lines);
        let mut rest = input;
        while !rest.is_empty() {
            match &mut self.phase {
                Phase::Command | Phase::Responding(_) if self.shutting_down => break,
                Phase::Responding(_) => {
                    let before = rest.len();
                    if let Some(line) = lines.next(&mut rest) {
                        (self.waiting_since, self.begun) = (now, 0);
                        self.response(line);
                    } else {
                        self.begun = self.begun.saturating_add(before);
                    }
                }
                Phase::Command => {
                    if rest[0] == TLS_HANDSHAKE && lines.is_at_line_start() {
                        self.note(Habit::TlsOnPlainPort);
                        self.end(replies::tls_on_plain_port(self.settings.entrance.has_starttls()), "a TLS handshake", Ending::TurnedAway);
                        continue;
                    }
                    let before = rest.len();
                    if let Some(line) = lines.next(&mut rest) {
                        (self.waiting_since, self.begun) = (now, 0);
                        self.line(now, line);
                    } else {
                        self.begun = self.begun.saturating_add(before);
                    }
                }
                Phase::Content(reception) => {
                    let mut content = Vec::new();
                    let was_refused = reception.refusal.is_some();
                    let progress = reception.take(rest, &mut content);
                    if reception.refusal.is_some() && !was_refused {
                        self.effects.push_back(Effect::Discard);
                    } else if !content.is_empty() {
                        self.effects.push_back(Effect::Content(content));
                    }
                    rest = match progress {
                        Progress::Ended(end) => &rest[end..],
                        Progress::More | Progress::Endless => &[],
                    };
                    if progress != Progress::More {
                        self.waiting_since = now;
                        self.end_of_data(progress);
                    }
                }
                Phase::Opening | Phase::Keeping(_) | Phase::LoggingIn(_) | Phase::Delaying(..) => break,
                Phase::StartingTls | Phase::Securing => self.octets_before_tls(),
                // What comes after the last reply means nothing.
                Phase::Ending(_) | Phase::Closed => rest = &[],
            }
        }
        self.lines = lines;
        input.len() - rest.len()
    }

    fn opened(&mut self, now: Timestamp, answer: Result<QueueId, Reply>) {
        debug_assert!(matches!(self.phase, Phase::Opening), "answers follow questions");
        let Phase::Opening = self.phase else { return };
        self.waiting_since = now;
        self.phase = Phase::Command;
        match answer {
            Ok(_) if self.shutting_down => self.effects.push_back(Effect::Discard),
            Ok(id) => {
                let limit = self.transaction.as_ref().map_or(self.settings.message_size, |transaction| transaction.limit);
                self.phase = Phase::Content(Box::new(Reception::new(id, now, limit, self.settings.header_size)));
                self.say("354 Send the message; end it with a line that has only a dot");
            }
            Err(reply) => {
                self.refuse(reply, "DATA");
                self.transaction = None;
            }
        }
    }

    fn end_of_data(&mut self, progress: Progress) {
        let Phase::Content(mut reception) = std::mem::replace(&mut self.phase, Phase::Command) else { return };
        if reception.has_bare_line_ends() {
            self.note(Habit::BareLineEnds);
            if reception.refusal.is_none() && self.refuses_bare_line_ends() {
                reception.refusal = Some(replies::bare_line_ends());
                self.effects.push_back(Effect::Discard);
            }
        }
        match (reception.refusal, progress) {
            (Some(reply), Progress::Endless) => self.end(reply, "content", Ending::TurnedAway),
            (Some(reply), _) => {
                self.refuse(reply, "end of data");
                self.transaction = None;
            }
            (None, _) => {
                if let Some(envelope) = self.envelope() {
                    self.effects.push_back(Effect::Keep(envelope));
                    self.phase = Phase::Keeping(reception.id);
                }
            }
        }
    }

    fn protocol(&self, hello: &Hello, smtputf8: bool) -> Protocol {
        Protocol { dialect: hello.dialect(smtputf8), tls: self.is_secured, login: self.user.is_some() }
    }

    /// The transaction that is under way; complete once [`Effect::Open`] has come.
    pub fn underway(&self) -> Option<Underway<'_>> {
        let (hello, transaction) = (self.hello.as_ref()?, self.transaction.as_ref()?);
        Some(Underway {
            helo: hello.name.as_deref(),
            protocol: self.protocol(hello, transaction.parameters.smtputf8),
            reverse_path: &transaction.reverse_path,
            only_recipient: match &transaction.recipients[..] {
                [only] => Some(&only.address),
                _ => None,
            },
        })
    }

    /// What the commands have said; all of it is there in a session that has come to its end of data.
    fn envelope(&mut self) -> Option<Envelope> {
        let (client, hello) = (self.client.as_ref()?, self.hello.as_ref()?);
        let MailParameters { eight_bit, smtputf8, dsn, .. } = self.transaction.as_ref()?.parameters.clone();
        let protocol = self.protocol(hello, smtputf8);
        let transaction = self.transaction.as_mut()?;
        Some(Envelope {
            client: client.name.clone(),
            peer: self.peer,
            user: self.user.clone(),
            helo: hello.name.clone(),
            protocol,
            reverse_path: transaction.reverse_path.clone(),
            recipients: std::mem::take(&mut transaction.recipients),
            smtputf8,
            eight_bit_declared: eight_bit,
            dsn,
        })
    }

    fn kept(&mut self, now: Timestamp, answer: Result<(), Reply>) {
        debug_assert!(matches!(self.phase, Phase::Keeping(_)), "answers follow questions");
        let Phase::Keeping(id) = self.phase else { return };
        self.waiting_since = now;
        self.phase = Phase::Command;
        match answer {
            Ok(()) => {
                self.commands_without_mail = 0;
                let _ = write!(self.replies, "250 2.0.0 Ok: queued as {id}\r\n");
            }
            Err(reply) => self.refuse(reply, "end of data"),
        }
        self.transaction = None;
        self.habits = HabitSet::default();
    }

    /// The largest message that this client may send, whoever its recipients are. One of whom no route takes anything is told so at RCPT, where
    /// it can be said why.
    fn message_size(&self) -> u64 {
        let limit = self.settings.message_size;
        let Some(client) = &self.client else { return limit };
        let largest = Class::ALL.into_iter().filter_map(|class| self.policy.largest(&client.name, class)).max();
        [client.message_size, largest].into_iter().flatten().fold(limit, u64::min)
    }

    fn refuses_bare_line_ends(&self) -> bool {
        self.client.as_ref().is_some_and(|client| client.line_endings == LineEndings::Refuse)
    }

    /// Tells a habit of the client's, once for each message. Strangers have none.
    fn note(&mut self, habit: Habit) {
        if self.client.is_some() && self.habits.insert(habit) {
            self.effects.push_back(Effect::Noticed(habit));
        }
    }

    fn tick(&mut self, now: Timestamp) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        let (reply, what) = match &self.phase {
            Phase::Content(reception) => {
                (replies::content_timed_out(self.settings.data_timeout, reception.has_lone_dot()), "silence in content")
            }
            Phase::Delaying(..) => return self.refuse_login(now),
            _ if self.login_deadline.is_some_and(|deadline| now >= deadline) => {
                (replies::login_timed_out(self.settings.login_timeout), "no login")
            }
            _ => (replies::command_timed_out(self.settings.command_timeout), "silence"),
        };
        self.end(reply, what, Ending::TimedOut);
    }

    fn say(&mut self, line: &str) {
        self.replies.extend_from_slice(line.as_bytes());
        self.replies.extend_from_slice(b"\r\n");
    }

    /// Sends and records a refusal; the one that is too many ends the session.
    fn refuse(&mut self, reply: Reply, what: impl Into<String>) {
        if reply.code == 421 {
            // RFC 5321 §4.2.2: who says 421 closes.
            return self.end(reply, what, Ending::TurnedAway);
        }
        self.record(reply, what);
        self.errors += 1;
        if self.errors >= self.settings.errors {
            self.end(replies::too_many_errors(self.settings.errors), "too many refusals", Ending::TurnedAway);
        }
    }

    /// The last reply, a refusal.
    fn end(&mut self, reply: Reply, what: impl Into<String>, ending: Ending) {
        self.record(reply, what);
        self.close(ending);
    }

    fn record(&mut self, reply: Reply, what: impl Into<String>) {
        reply.write_to(&mut self.replies);
        let reverse_path = self.transaction.as_ref().map(|transaction| transaction.reverse_path.clone());
        self.effects.push_back(Effect::Refused { reply, what: what.into(), reverse_path });
    }

    fn close(&mut self, ending: Ending) {
        // What was refused has been discarded already.
        if matches!(&self.phase, Phase::Content(reception) if reception.refusal.is_none()) {
            self.effects.push_back(Effect::Discard);
        }
        self.phase = Phase::Ending(ending);
        self.transaction = None;
        self.unread = BytesMut::new();
    }
}

#[cfg(test)]
mod tests;
