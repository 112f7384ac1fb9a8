//! The server's side of one SMTP connection: commands in, replies out, in the order that RFC 5321 and Exchange want.
//!
//! The same dialogue runs before and after STARTTLS, over two different streams. An error ends the connection; `ConnectionAborted` stands
//! for an end that a fault asked for.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use super::content::{Content, Finished};
use super::endpoint::{Seat, Service, Tenant};
use super::fault::{Action, Event, Fault, Step};
use super::header;
use super::record::{Taken, Violation};
use super::replies;
use super::settings::{Extension, Keep, Profile, Security, Senders};
use super::transaction::{Chunks, Transaction, judge, judge_size, recipient, violations};
use super::wire::{Ended, Line, Stream, Wire};
use crate::smtp::Mailbox;

/// How a dialogue ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The TLS handshake is next.
    StartTls,
    Closed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hello {
    None,
    Helo,
    Ehlo,
}

pub(super) struct Login {
    pub(super) tenant: Arc<Tenant>,
    /// None: the account has too many connections.
    pub(super) seat: Option<Seat>,
}

pub(super) struct Dialogue {
    pub(super) service: Arc<Service>,
    pub(super) connection: u64,
    peer: IpAddr,
    pub(super) encrypted: bool,
    pub(super) hello: Hello,
    pub(super) login: Option<Login>,
    pub(super) transaction: Option<Transaction>,
}

/// What follows a command.
pub(super) enum Next {
    Command,
    End(End),
}

impl Dialogue {
    pub(super) fn new(service: Arc<Service>, connection: u64, peer: IpAddr) -> Self {
        Self { service, connection, peer, encrypted: false, hello: Hello::None, login: None, transaction: None }
    }

    /// Forgets all that was said in plain text (RFC 3207 §4.2).
    pub(super) fn secured(self) -> Self {
        Self { encrypted: true, ..Self::new(self.service, self.connection, self.peer) }
    }

    /// Sends the greeting.
    pub(super) async fn greet<S: Stream>(&mut self, wire: &mut Wire<S>) -> io::Result<()> {
        let text = replies::greeting(&self.service.settings.hostname, self.service.clock.now(), self.connection);
        self.answer(wire, Step::Greeting, &[], &text).await?;
        wire.flush().await
    }

    /// Answers commands until STARTTLS or the end.
    pub(super) async fn run<S: Stream>(&mut self, wire: &mut Wire<S>) -> io::Result<End> {
        loop {
            let line = match wire.line().await? {
                None => return Ok(End::Closed),
                Some(Line::Command(line)) => line,
                Some(bad) => {
                    self.service.records.violation(Violation::BadLine);
                    let fatal = bad == Line::TooLong;
                    self.send(wire, if fatal { replies::LINE_TOO_LONG } else { replies::UNKNOWN_COMMAND }).await?;
                    if fatal {
                        return Ok(End::Closed);
                    }
                    continue;
                }
            };
            if let Next::End(end) = self.command(wire, &line).await? {
                return Ok(end);
            }
        }
    }

    async fn command<S: Stream>(&mut self, wire: &mut Wire<S>, line: &str) -> io::Result<Next> {
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        let verb = known(verb);
        self.service.records.note(|counters| *counters.commands.entry(verb).or_default() += 1);
        if wire.has_more() && !matches!(verb, "STARTTLS" | "BDAT") && !(self.pipelines() && matches!(verb, "MAIL" | "RCPT" | "RSET")) {
            self.service.records.violation(Violation::Pipelined);
        }
        match verb {
            "EHLO" | "HELO" => self.hello(wire, verb, argument).await?,
            "STARTTLS" => return self.starttls(wire).await,
            "AUTH" => self.auth(wire, argument).await?,
            "MAIL" => self.mail(wire, argument).await?,
            "RCPT" => self.rcpt(wire, argument).await?,
            "DATA" => return self.data(wire).await,
            "BDAT" if self.offers(Extension::Chunking) => return self.bdat(wire, argument).await,
            "RSET" => {
                self.transaction = None;
                self.send(wire, replies::RESET).await?;
            }
            "NOOP" => self.send(wire, replies::OK).await?,
            "VRFY" => self.send(wire, replies::CANNOT_VERIFY).await?,
            "HELP" => self.send(wire, replies::HELP).await?,
            "QUIT" => {
                self.send(wire, replies::BYE).await?;
                return Ok(Next::End(End::Closed));
            }
            _ => self.send(wire, replies::UNKNOWN_COMMAND).await?,
        }
        Ok(Next::Command)
    }

    async fn hello<S: Stream>(&mut self, wire: &mut Wire<S>, verb: &str, name: &str) -> io::Result<()> {
        if name.is_empty() || name.contains(' ') {
            return self.send(wire, replies::BAD_NAME).await;
        }
        let settings = &self.service.settings;
        let mut offers = Vec::new();
        if verb == "EHLO" {
            offers.push(format!("SIZE {}", settings.size_limit));
            if self.is_secure() {
                offers.extend(settings.extensions.iter().map(|extension| extension.keyword().to_owned()));
                if !settings.mechanisms.is_empty() {
                    let names: Vec<&str> = settings.mechanisms.iter().map(|mechanism| mechanism.keyword()).collect();
                    offers.push(format!("AUTH {}", names.join(" ")));
                }
            }
            if !self.encrypted && settings.security != Security::None {
                offers.push("STARTTLS".to_owned());
            }
        }
        let text = replies::hello(&settings.hostname, self.peer, &offers);
        let step = if self.encrypted { Step::EhloInTls } else { Step::Ehlo };
        if self.answer(wire, step, &[], &text).await? {
            self.hello = if verb == "EHLO" { Hello::Ehlo } else { Hello::Helo };
            self.transaction = None;
        }
        Ok(())
    }

    async fn starttls<S: Stream>(&mut self, wire: &mut Wire<S>) -> io::Result<Next> {
        if self.service.settings.security == Security::None {
            self.send(wire, replies::UNKNOWN_COMMAND).await?;
            return Ok(Next::Command);
        }
        if self.hello != Hello::Ehlo || self.encrypted {
            let text = if self.encrypted { replies::BAD_SEQUENCE } else { replies::HELLO_FIRST };
            self.send(wire, text).await?;
            return Ok(Next::Command);
        }
        // Whoever can write into the connection before the handshake must not be heard behind it.
        if wire.has_more() {
            self.service.records.violation(Violation::PlaintextBehindStartTls);
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let due = self.due(Step::StartTls, &[]);
        let inject = match &due {
            Some(Fault { action: Action::Inject(octets), .. }) => octets.clone(),
            _ => Vec::new(),
        };
        let agreed = self.carry_out(wire, due, replies::READY_FOR_TLS).await?;
        wire.raw(&inject);
        wire.flush().await?;
        Ok(if agreed { Next::End(End::StartTls) } else { Next::Command })
    }

    async fn mail<S: Stream>(&mut self, wire: &mut Wire<S>, argument: &str) -> io::Result<()> {
        let early = match &self.login {
            _ if self.hello == Hello::None => Some(replies::HELLO_FIRST),
            _ if !self.is_secure() => Some(replies::TLS_REQUIRED),
            None if !self.service.settings.mechanisms.is_empty() => Some(replies::NOT_AUTHENTICATED),
            _ if self.transaction.is_some() => Some(replies::SENDER_GIVEN),
            _ => None,
        };
        if let Some(text) = early {
            return self.send(wire, text).await;
        }
        let begun = Transaction::begin(argument, &self.service, self.hello == Hello::Ehlo);
        let own = match &begun {
            Err(text) => text,
            Ok(transaction) if !self.may_send_as(transaction.reverse_path.mailbox()) => replies::NOT_THE_ACCOUNT,
            Ok(_) => replies::SENDER_OK,
        };
        if let (true, Ok(transaction)) = (self.answer(wire, Step::Mail, &[], own).await?, begun) {
            self.transaction = Some(transaction);
        }
        Ok(())
    }

    /// As secure as mail and the extensions must be here.
    fn is_secure(&self) -> bool {
        self.encrypted || matches!(self.service.settings.security, Security::Offered | Security::None)
    }

    fn may_send_as(&self, mailbox: Option<&Mailbox>) -> bool {
        match (&self.login, mailbox) {
            _ if self.service.settings.senders == Senders::Anybody => true,
            (Some(login), Some(mailbox)) => mailbox.as_str().eq_ignore_ascii_case(&login.tenant.account.user),
            _ => false,
        }
    }

    async fn rcpt<S: Stream>(&mut self, wire: &mut Wire<S>, argument: &str) -> io::Result<()> {
        let Some(transaction) = &self.transaction else { return self.send(wire, replies::NEED_MAIL).await };
        let (mailbox, dsn) = match recipient(argument, &self.service) {
            Ok(recipient) => recipient,
            Err(text) => return self.send(wire, text).await,
        };
        let external = !self.service.is_internal(&mailbox);
        let own = if transaction.recipients.len() >= self.service.settings.max_recipients {
            replies::TOO_MANY_RECIPIENTS
        } else if external && self.service.settings.profile == Profile::Ga {
            replies::NO_EXTERNAL
        } else if !external && self.service.is_unknown(&mailbox) {
            replies::RECIPIENT_NOT_FOUND
        } else {
            replies::RECIPIENT_OK
        };
        let accepted = self.answer(wire, Step::Rcpt, std::slice::from_ref(&mailbox), own).await?;
        if let (true, Some(transaction)) = (accepted, &mut self.transaction) {
            transaction.external += u64::from(external);
            transaction.recipients.push(mailbox);
            transaction.dsn.extend(dsn.into_iter().map(str::to_owned));
        }
        Ok(())
    }

    async fn data<S: Stream>(&mut self, wire: &mut Wire<S>) -> io::Result<Next> {
        let Some(transaction) = self.transaction.take() else {
            self.send(wire, replies::NEED_MAIL).await?;
            return Ok(Next::Command);
        };
        let early = match &transaction.chunks {
            _ if transaction.recipients.is_empty() => Some(replies::NEED_RCPT),
            Chunks::None => None,
            // RFC 3030 §2.
            Chunks::Open(_) | Chunks::Refused => Some(replies::BAD_SEQUENCE),
        };
        if let Some(text) = early {
            self.transaction = Some(transaction);
            self.send(wire, text).await?;
            return Ok(Next::Command);
        }
        if !self.answer(wire, Step::Data, &transaction.recipients, replies::START_INPUT).await? {
            // It stays open until RSET; only the end of data ends it (RFC 5321 §4.1.1.4).
            self.transaction = Some(transaction);
            return Ok(Next::Command);
        }
        let content = Content::new(self.service.settings.keep, self.service.settings.size_limit);
        let Some(content) = self.content(wire, &transaction.recipients, content).await? else { return Ok(Next::End(End::Closed)) };
        self.end_of_data(wire, transaction, content.finish()).await?;
        Ok(Next::Command)
    }

    /// Reads the content, or the chunk of it that has begun; `None` if the connection ended in it.
    pub(super) async fn content<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
        recipients: &[Mailbox],
        mut content: Content,
    ) -> io::Result<Option<Content>> {
        let begins = content.size() == 0;
        let due = if begins { self.due(Step::Content { after: 0 }, recipients) } else { None };
        if let Some(Fault { when: Step::Content { after }, action, .. }) = due {
            match (wire.content(&mut content, Some(after)).await?, action) {
                (Ended::Closed, _) => return Ok(None),
                (Ended::Whole, _) => return Ok(Some(content)),
                (Ended::Reached, Action::Reply(text)) => {
                    self.send(wire, &text).await?;
                    return Ok(None);
                }
                (Ended::Reached, Action::Drop | Action::TakeAndDrop) => return Err(io::ErrorKind::ConnectionAborted.into()),
                // Without reading, the client's writes come to a halt too.
                (Ended::Reached, Action::Silence) => std::future::pending().await,
                (Ended::Reached, Action::Delay(pause)) => tokio::time::sleep(pause).await,
                (Ended::Reached, Action::Inject(_)) => {}
            }
        }
        let ended = wire.content(&mut content, None).await?;
        Ok((ended == Ended::Whole).then_some(content))
    }

    pub(super) async fn end_of_data<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
        transaction: Transaction,
        content: Finished,
    ) -> io::Result<()> {
        let wrongs = violations(&transaction, &content);
        for violation in &wrongs {
            self.service.records.violation(*violation);
        }
        let due = self.due(Step::EndOfData, &transaction.recipients);
        let action = due.as_ref().map(|fault| &fault.action);
        if let Some(login) = &mut self.login {
            // Another connection may have ended since the login.
            login.seat = login.seat.take().or_else(|| Seat::take(&login.tenant, self.service.settings.limits.connections));
        }
        let verdict = match (&self.login, action) {
            // A scripted reply stands in the place of our judgement; what ends the dialogue here ends it before there is one.
            (_, Some(Action::Reply(_) | Action::Drop | Action::Silence)) => Ok(()),
            (Some(login), _) => judge(&self.service, &login.tenant, login.seat.is_some(), &transaction, &content),
            // MAIL was taken without.
            (None, _) => judge_size(&self.service, &content),
        };
        let own = match verdict {
            Ok(()) => {
                let host = &self.service.settings.hostname;
                let internal_id = self.service.next_internal_id();
                let message_id = header::message_id(&content.header).unwrap_or_else(|| format!("<{internal_id}@{host}>"));
                replies::queued(&message_id, internal_id, host, content.size)
            }
            Err(text) => text,
        };
        let taken = match action {
            Some(Action::Drop | Action::Silence) => false,
            Some(Action::Reply(text)) => text.starts_with('2'),
            _ => own.starts_with('2'),
        };
        if taken {
            self.take(transaction, content, wrongs, if let Some(Action::Reply(text)) = action { text.clone() } else { own.clone() });
        }
        self.carry_out(wire, due, &own).await.map(drop)
    }

    fn take(&self, transaction: Transaction, content: Finished, violations: Vec<Violation>, reply: String) {
        let keep = self.service.settings.keep;
        let taken = Taken {
            account: self.login.as_ref().map(|login| login.tenant.account.user.clone()).unwrap_or_default(),
            reverse_path: transaction.reverse_path,
            recipients: transaction.recipients,
            dsn: transaction.dsn,
            size: content.size,
            sha256: content.sha256,
            content: if keep == Keep::All { content.octets.into() } else { Default::default() },
            at: self.service.clock.now(),
            connection: self.connection,
            encrypted: self.encrypted,
            reply,
            violations,
        };
        self.service.records.take(taken, keep);
    }

    /// Behind the end of a content or a chunk, a client that may not pipeline waits.
    pub(super) fn count_haste<S: Stream>(&self, wire: &Wire<S>) {
        if wire.has_more() && !self.pipelines() {
            self.service.records.violation(Violation::Pipelined);
        }
    }

    fn pipelines(&self) -> bool {
        self.offers(Extension::Pipelining)
    }

    fn offers(&self, extension: Extension) -> bool {
        self.is_secure() && self.hello == Hello::Ehlo && self.service.settings.extensions.contains(&extension)
    }

    /// The fault whose turn it is at this step.
    pub(super) fn due(&self, step: Step, recipients: &[Mailbox]) -> Option<Fault> {
        let account = self.login.as_ref().map(|login| login.tenant.account.user.as_str());
        self.service.script.due(&Event { step, account, recipients })
    }

    /// Answers a step with this, or as the fault says whose turn it is. Whether the answer was 2yz or 3yz.
    async fn answer<S: Stream>(&mut self, wire: &mut Wire<S>, step: Step, recipients: &[Mailbox], own: &str) -> io::Result<bool> {
        let due = self.due(step, recipients);
        self.carry_out(wire, due, own).await
    }

    /// As [`Self::answer`], with the fault already looked up.
    pub(super) async fn carry_out<S: Stream>(&self, wire: &mut Wire<S>, due: Option<Fault>, own: &str) -> io::Result<bool> {
        match due.map(|fault| fault.action) {
            None | Some(Action::Inject(_)) => self.send(wire, own).await?,
            Some(Action::Reply(text)) => {
                self.send(wire, &text).await?;
                return Ok(is_positive(&text));
            }
            Some(Action::Drop | Action::TakeAndDrop) => {
                wire.flush().await?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            Some(Action::Silence) => {
                wire.fall_silent().await?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            Some(Action::Delay(pause)) => {
                wire.flush().await?;
                tokio::time::sleep(pause).await;
                self.send(wire, own).await?;
            }
        }
        Ok(is_positive(own))
    }

    /// Sends a reply; 421 closes (RFC 5321 §3.8).
    pub(super) async fn send<S: Stream>(&self, wire: &mut Wire<S>, text: &str) -> io::Result<()> {
        if text.starts_with(['4', '5']) {
            self.service.records.refusal(text);
        }
        wire.reply(text);
        if text.starts_with("421") {
            wire.close().await?;
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

fn is_positive(text: &str) -> bool {
    text.starts_with(['2', '3'])
}

/// The verb in upper case, or `?`.
fn known(verb: &str) -> &'static str {
    const VERBS: [&str; 13] = ["MAIL", "RCPT", "DATA", "BDAT", "RSET", "QUIT", "NOOP", "EHLO", "HELO", "STARTTLS", "AUTH", "VRFY", "HELP"];
    VERBS.into_iter().find(|known| known.eq_ignore_ascii_case(verb)).unwrap_or("?")
}
