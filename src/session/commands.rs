//! What each command does to a session (RFC 5321 §4.1.1 and §4.1.4).

use std::io::Write;

use super::transaction::Transaction;
use super::{Effect, Ending, Hello, Phase, Session, Settings, replies};
use crate::intake::Addressee;
use crate::smtp::{AddressError, Command, CommandError, Line, MailParameters, Mailbox, NotOffered, RecipientDsn, Reply, ReversePath};

/// The most characters of a command that go into a log.
const SHOWN: usize = 300;

impl Session {
    /// Acts on a command line.
    pub(super) fn line(&mut self, line: Line<'_>) {
        let line = match line {
            Line::Whole(line) => line,
            Line::TooLong => return self.refuse(replies::line_too_long(self.settings.command_line), "a line that is too long"),
        };
        match Command::parse(line) {
            Ok(command) => self.command(command, line),
            Err(CommandError::Http) => self.end(replies::command_error(CommandError::Http), shown(line), Ending::TurnedAway),
            Err(CommandError::Unknown) if self.secrets_may_follow => {
                self.refuse(replies::command_error(CommandError::Unknown), "a line that may hold a password");
            }
            Err(error) => self.refuse(replies::command_error(error), shown(line)),
        }
    }

    fn command(&mut self, command: Command<'_>, line: &[u8]) {
        let outcome = match command {
            Command::Helo(name) => return self.hello(&name, false),
            Command::Ehlo(name) => return self.hello(&name, true),
            Command::Mail { .. } if self.transactions >= self.settings.transactions => {
                return self.end(replies::too_many_transactions(self.settings.transactions), shown(line), Ending::TurnedAway);
            }
            Command::Mail { path, parameters } => self.mail(path, parameters),
            Command::Rcpt { path, dsn } => self.rcpt(path, dsn),
            Command::Data => self.data(),
            Command::Rset => {
                self.transaction = None;
                return self.say("250 2.0.0 Ok");
            }
            Command::Noop => return self.say("250 2.0.0 Ok"),
            Command::Vrfy => return self.say("252 2.0.0 Addresses are not verified here: send RCPT TO and see its reply"),
            Command::Help => return replies::help().write_to(&mut self.replies),
            Command::Quit => {
                self.say("221 2.0.0 Bye");
                return self.close(Ending::Quit);
            }
            Command::NotOffered(extension) => return self.not_offered(extension, line),
        };
        if let Err(reply) = outcome {
            self.refuse(reply, shown(line));
        }
    }

    fn hello(&mut self, name: &str, extended: bool) {
        // RFC 5321 §4.1.4: a greeting drops what was begun, as RSET does.
        self.transaction = None;
        self.hello = Some(Hello { name: helo_name(name), extended });
        let Settings { hostname, message_size, .. } = &*self.settings;
        // Writing to a Vec cannot fail.
        let _ = if extended {
            write!(
                self.replies,
                "250-{hostname} Hello {}\r\n250-SIZE {message_size}\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n\
                 250-ENHANCEDSTATUSCODES\r\n250-DSN\r\n250 HELP\r\n",
                self.peer
            )
        } else {
            write!(self.replies, "250 {hostname} Hello {}\r\n", self.peer)
        };
    }

    fn mail(&mut self, path: &str, parameters: MailParameters) -> Result<(), Reply> {
        if self.hello.is_none() {
            return Err(replies::hello_first());
        }
        if self.transaction.is_some() {
            return Err(replies::nested_mail());
        }
        let limit = self.settings.message_size;
        if let Some(announced) = parameters.size.filter(|announced| *announced > limit) {
            return Err(replies::announced_too_large(announced, limit));
        }
        let reverse_path = match path {
            "" => ReversePath::Null,
            _ => ReversePath::Mailbox(self.mailbox(path, parameters.smtputf8, |_| true, replies::bad_sender)?),
        };
        self.transactions += 1;
        self.transaction = Some(Transaction::new(reverse_path, parameters));
        self.say("250 2.1.0 Sender accepted");
        Ok(())
    }

    fn rcpt(&mut self, path: &str, dsn: RecipientDsn) -> Result<(), Reply> {
        self.transaction.as_mut().ok_or_else(replies::mail_first)?.had_recipients = true;
        match (self.recipient(path, dsn)?, &mut self.transaction) {
            (Some(recipient), Some(transaction)) => {
                transaction.add(recipient);
                self.say("250 2.1.5 Recipient accepted");
            }
            _ => self.say("250 2.1.5 Recipient accepted already"),
        }
        Ok(())
    }

    /// The recipient that a forward-path names, and `None` if the transaction has it already.
    fn recipient(&self, path: &str, dsn: RecipientDsn) -> Result<Option<Addressee>, Reply> {
        let transaction = self.transaction.as_ref().ok_or_else(replies::mail_first)?;
        // RFC 5321 §4.5.1: every domain has a postmaster, and so has the place where no domain is said.
        let is_postmaster = |local_part: &str| local_part.eq_ignore_ascii_case("postmaster");
        let mailbox = self.mailbox(path, transaction.parameters.smtputf8, is_postmaster, replies::bad_recipient)?;
        if transaction.has(&mailbox) {
            return Ok(None);
        }
        let class = self.policy.recipient(&mailbox)?;
        if transaction.recipients.len() >= self.settings.recipients {
            return Err(replies::too_many_recipients(self.settings.recipients));
        }
        Ok(Some(Addressee { address: mailbox, class, dsn }))
    }

    /// Reads an address; one without a domain gets ours if `may_qualify` says so.
    fn mailbox(
        &self,
        path: &str,
        smtputf8: bool,
        may_qualify: impl Fn(&str) -> bool,
        refusal: impl Fn(AddressError) -> Reply,
    ) -> Result<Mailbox, Reply> {
        if !smtputf8 && !path.is_ascii() {
            return Err(replies::needs_smtputf8());
        }
        let mailbox = match path.parse() {
            Err(AddressError::NoDomain) if !path.ends_with('@') && may_qualify(path) => self.policy.qualify(path),
            parsed => parsed,
        };
        mailbox.map_err(refusal)
    }

    fn data(&mut self) -> Result<(), Reply> {
        let transaction = self.transaction.as_ref().ok_or_else(replies::mail_first)?;
        if transaction.recipients.is_empty() {
            return Err(if transaction.had_recipients { replies::no_recipients_left() } else { replies::recipients_first() });
        }
        // RFC 1870 §6.1: 0 says that the size is not known.
        let announced = transaction.parameters.size.filter(|size| *size > 0).unwrap_or(self.settings.message_size);
        self.effects.push_back(Effect::Open { announced });
        self.phase = Phase::Opening;
        Ok(())
    }

    fn not_offered(&mut self, extension: NotOffered, line: &[u8]) {
        let reply = replies::not_offered(extension);
        match extension {
            NotOffered::Auth => {
                self.secrets_may_follow = true;
                self.refuse(reply, "AUTH");
            }
            // The chunk is on its way; what a stranger wrote into it must not be taken for commands.
            NotOffered::Bdat => self.end(reply, shown(line), Ending::TurnedAway),
            NotOffered::Expn | NotOffered::StartTls => self.refuse(reply, shown(line)),
        }
    }
}

/// The name that a client gave itself, as it may stand in a header and in a log.
fn helo_name(given: &str) -> Option<String> {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-._:[]".contains(c) { c } else { '?' };
    (!given.is_empty()).then(|| given.chars().take(255).map(safe).collect())
}

/// A line of the client's as it may stand in a log.
fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    text.trim().chars().take(SHOWN).map(|c| if c.is_control() { '?' } else { c }).collect()
}
