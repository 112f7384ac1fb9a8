//! What each command does to a session (RFC 5321 §4.1.1 and §4.1.4).

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::transaction::Transaction;
use super::{Effect, Ending, Hello, Phase, Session, replies};
use crate::clock::Timestamp;
use crate::intake::{Addressee, Habit, Rate};
use crate::smtp::{
    AddressError, Command, CommandError, Line, MailParameters, Mailbox, Mechanism, NotOffered, RecipientDsn, Reply, ReversePath, Strays,
};

/// The most characters of a command that go into a log.
const SHOWN: usize = 300;

impl Session {
    /// Acts on a command line.
    pub(super) fn line(&mut self, now: Timestamp, line: Line<'_>) {
        let line = match line {
            Line::Whole(line) => line,
            Line::BareLf(line) => {
                self.note(Habit::BareLfInCommands);
                if self.refuses_bare_line_ends() {
                    return self.refuse(replies::bare_lf_in_command(), "a line that ends in a bare LF");
                }
                line
            }
            Line::TooLong => return self.refuse(replies::line_too_long(self.settings.command_line), "a line that is too long"),
        };
        match Command::parse(line) {
            Ok(command) => self.command(now, command, line),
            Err(CommandError::Http) => {
                self.note(Habit::Http);
                self.end(replies::command_error(CommandError::Http), shown(line), Ending::TurnedAway);
            }
            Err(CommandError::Unknown) if self.secrets_may_follow => {
                self.refuse(replies::command_error(CommandError::Unknown), "a line that may hold a password");
            }
            Err(error) => self.refuse(replies::command_error(error), shown(line)),
        }
    }

    fn command(&mut self, now: Timestamp, command: Command<'_>, line: &[u8]) {
        // MAIL and DATA have limits of their own; a recipient counts if it brings nothing new.
        if !matches!(command, Command::Mail { .. } | Command::Rcpt { .. } | Command::Data | Command::Quit) && self.is_one_too_many() {
            return self.end(replies::too_many_commands(self.settings.commands_without_mail), "too many commands", Ending::TurnedAway);
        }
        let outcome = match command {
            Command::Helo(name) => return self.hello(&name, false),
            Command::Ehlo(name) => return self.hello(&name, true),
            Command::Mail { .. } if self.transactions >= self.settings.transactions => {
                return self.end(replies::too_many_transactions(self.settings.transactions), shown(line), Ending::TurnedAway);
            }
            Command::Mail { path, parameters, strays } => {
                self.note_strays(strays);
                self.mail(now, path, parameters)
            }
            Command::Rcpt { path, dsn, strays } => {
                self.note_strays(strays);
                self.rcpt(now, path, dsn)
            }
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
            Command::StartTls => return self.start_tls(),
            Command::Auth { mechanism, initial } => return self.auth(mechanism, initial),
            Command::NotOffered(extension) => return self.not_offered(extension, line),
        };
        if let Err(reply) = outcome {
            self.refuse(reply, shown(line));
        }
    }

    /// Counts a command that brings no mail on its way; whether there are more of them than may be.
    fn is_one_too_many(&mut self) -> bool {
        self.commands_without_mail += 1;
        self.commands_without_mail > self.settings.commands_without_mail
    }

    fn hello(&mut self, name: &str, extended: bool) {
        // RFC 5321 §4.1.4: a greeting drops what was begun, as RSET does.
        self.transaction = None;
        self.hello = Some(Hello { name: helo_name(name), extended });
        if name.is_empty() {
            self.note(Habit::NoHeloName);
        } else if !is_proper_name(name) {
            self.note(Habit::OddHeloName);
        }
        let offers = if extended { self.offers() } else { Vec::new() };
        let mut lines = format!("{} Hello {}", self.settings.hostname, self.peer);
        // Writing to a String cannot fail.
        offers.iter().for_each(|offer| _ = write!(lines, "\n{offer}"));
        Reply::plain(250, lines).write_to(&mut self.replies);
    }

    /// What EHLO tells this client of.
    fn offers(&self) -> Vec<String> {
        let size = format!("SIZE {}", self.message_size());
        let starttls = (self.settings.entrance.has_starttls() && !self.is_secured).then_some("STARTTLS");
        let auth = self.offers_auth().then(|| format!("AUTH {}", Mechanism::ALL));
        let always = [size.as_str(), "PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN"];
        let all = always.into_iter().chain(starttls).chain(auth.as_deref()).chain(["HELP"]);
        let keyword = |offer: &str| offer.split(' ').next().unwrap_or_default().to_owned();
        let is_told = |offer: &&str| self.client.as_ref().is_none_or(|client| client.is_told_of(&keyword(offer)));
        all.filter(is_told).map(str::to_owned).collect()
    }

    fn note_strays(&mut self, strays: Strays) {
        if strays.path {
            self.note(Habit::LoosePaths);
        }
        if strays.parameters {
            self.note(Habit::UnknownParameters);
        }
    }

    fn mail(&mut self, now: Timestamp, path: &str, parameters: MailParameters) -> Result<(), Reply> {
        if self.hello.is_none() {
            return Err(replies::hello_first());
        }
        self.may_send()?;
        if self.transaction.is_some() {
            return Err(replies::nested_mail());
        }
        let limit = self.message_size();
        if let Some(announced) = parameters.size.filter(|announced| *announced > limit) {
            return Err(replies::announced_too_large(announced, limit));
        }
        let reverse_path = match path {
            "" => ReversePath::Null,
            _ => ReversePath::Mailbox(self.mailbox(path, parameters.smtputf8, |_| true, replies::bad_sender)?),
        };
        if let Some(client) = &self.client {
            self.policy.sender(client, &reverse_path)?;
            self.policy.take(now, &client.name, Rate::Messages)?;
        }
        self.transactions += 1;
        self.transaction = Some(Transaction::new(reverse_path, parameters, limit));
        self.say("250 2.1.0 Sender accepted");
        Ok(())
    }

    fn rcpt(&mut self, now: Timestamp, path: &str, dsn: RecipientDsn) -> Result<(), Reply> {
        self.transaction.as_mut().ok_or_else(replies::mail_first)?.had_recipients = true;
        let recipient = self.recipient(now, path, dsn);
        if let (Err(refusal), Some(transaction)) = (&recipient, &mut self.transaction) {
            transaction.had_deferred |= refusal.is_transient();
        }
        if let (Some(recipient), Some(transaction)) = (recipient?, &mut self.transaction) {
            let limit = self.client.as_ref().and_then(|client| self.policy.largest(&client.name, recipient.class));
            transaction.add(recipient, limit.unwrap_or_default());
            self.say("250 2.1.5 Recipient accepted");
        } else if self.is_one_too_many() {
            return Err(replies::too_many_commands(self.settings.commands_without_mail));
        } else {
            self.say("250 2.1.5 Recipient accepted already");
        }
        Ok(())
    }

    /// The recipient that a forward-path names, and `None` if the transaction has it already.
    fn recipient(&mut self, now: Timestamp, path: &str, dsn: RecipientDsn) -> Result<Option<Addressee>, Reply> {
        let smtputf8 = self.transaction.as_ref().is_some_and(|transaction| transaction.parameters.smtputf8);
        // RFC 5321 §4.5.1: every domain has a postmaster, and so has the place where no domain is said.
        let is_postmaster = |local_part: &str| local_part.eq_ignore_ascii_case("postmaster");
        let mailbox = self.mailbox(path, smtputf8, is_postmaster, replies::bad_recipient)?;
        let transaction = self.transaction.as_ref().ok_or_else(replies::mail_first)?;
        if transaction.has(&mailbox) {
            return Ok(None);
        }
        let client = self.client.as_ref().ok_or_else(|| replies::login_first(self.peer))?;
        let class = self.policy.recipient(&client.name, &mailbox, transaction.parameters.size)?;
        self.policy.addressee(client, &mailbox)?;
        if transaction.recipients.len() >= self.settings.recipients {
            return Err(replies::too_many_recipients(self.settings.recipients));
        }
        self.policy.take(now, &client.name, Rate::Recipients)?;
        Ok(Some(Addressee { address: mailbox, class, dsn }))
    }

    /// Reads an address; one without a domain gets ours if `may_qualify` says so.
    fn mailbox(
        &mut self,
        path: &str,
        smtputf8: bool,
        may_qualify: impl Fn(&str) -> bool,
        refusal: impl Fn(AddressError) -> Reply,
    ) -> Result<Mailbox, Reply> {
        if !smtputf8 && !path.is_ascii() {
            return Err(replies::needs_smtputf8());
        }
        let mailbox = match path.parse() {
            Err(AddressError::NoDomain) if !path.ends_with('@') && may_qualify(path) => {
                self.note(Habit::NoDomain);
                self.policy.qualify(path)
            }
            parsed => parsed,
        };
        mailbox.map_err(refusal)
    }

    fn data(&mut self) -> Result<(), Reply> {
        let transaction = self.transaction.as_ref().ok_or_else(replies::mail_first)?;
        if transaction.recipients.is_empty() {
            return Err(match transaction.had_recipients {
                _ if transaction.had_deferred => replies::recipients_deferred(),
                true => replies::no_recipients_left(),
                false => replies::recipients_first(),
            });
        }
        // RFC 1870 §6.1: 0 says that the size is not known.
        let announced = transaction.parameters.size.filter(|size| *size > 0).unwrap_or(transaction.limit);
        self.effects.push_back(Effect::Open { announced });
        self.phase = Phase::Opening;
        Ok(())
    }

    fn not_offered(&mut self, extension: NotOffered, line: &[u8]) {
        let reply = replies::not_offered(extension);
        match extension {
            // The chunk is on its way; what a stranger wrote into it must not be taken for commands.
            NotOffered::Bdat => self.end(reply, shown(line), Ending::TurnedAway),
            NotOffered::Expn => self.refuse(reply, shown(line)),
        }
    }
}

/// The name that a client gave itself, as it may stand in a header and in a log.
fn helo_name(given: &str) -> Option<String> {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-._:[]".contains(c) { c } else { '?' };
    (!given.is_empty()).then(|| given.chars().take(255).map(safe).collect())
}

/// Whether it is a host name or an address in brackets (RFC 5321 §4.1.2 and §4.1.3), with dots in it or without.
fn is_proper_name(name: &str) -> bool {
    if let Some(literal) = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        let v6 = literal.get(..5).filter(|tag| tag.eq_ignore_ascii_case("IPv6:")).map(|_| literal[5..].parse::<Ipv6Addr>().is_ok());
        return v6.unwrap_or_else(|| literal.parse::<Ipv4Addr>().is_ok());
    }
    let label = |label: &str| {
        let inside = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-';
        !label.is_empty() && label.bytes().all(inside) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.parse::<Ipv4Addr>().is_err() && name.split('.').all(label)
}

/// A line of the client's as it may stand in a log.
fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    text.trim().chars().take(SHOWN).map(|c| if c.is_control() { '?' } else { c }).collect()
}
