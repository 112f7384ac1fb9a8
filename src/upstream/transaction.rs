//! One mail transaction: MAIL, RCPT for each recipient, DATA, the content, its final dot (RFC 5321 §3.3, RFC 2920).
//!
//! With PIPELINING, MAIL, the RCPTs and DATA go out in one write and the replies are read in order; without it each command waits for its
//! reply. Both give the same report. After a refusal the connection stays usable; RSET goes before the next MAIL where a transaction was left
//! open, in the same write if that is pipelined.

use std::time::{Duration, Instant};

use bytes::Bytes;
use lettre::Address;
use lettre::transport::smtp::commands::{Data, Mail, Rcpt, Rset};
use lettre::transport::smtp::extension::{MailBodyParameter, MailParameter};

use crate::mail::Content;
use crate::reply::{Cause, End, Report, Step, Trouble};
use crate::smtp::{EnhancedStatus, Mailbox, Reply};

use super::Connection;
use super::content::{Piece, Pieces};
use super::opening::{expect, expect_positive};

/// RCPTs in one write. Their replies must fit in our receive buffer while we still write, or both sides would wait (RFC 2920 §3.1).
const WINDOW: usize = 100;
/// How long to look for a reply that explains why the server ended the connection in the middle of the content.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What is to be sent. On the wire the message is `header`, then `content` from `body_offset` on.
#[derive(Debug, Clone)]
pub struct Transaction<'a> {
    /// The mailbox of MAIL FROM; empty for the null path.
    pub reverse_path: String,
    /// The forward-paths.
    pub recipients: &'a [Mailbox],
    /// The header block as it is to be sent, with the empty line that ends it.
    pub header: Bytes,
    /// The stored content.
    pub content: &'a Content,
    /// Where its body begins.
    pub body_offset: u64,
    /// The content has octets beyond ASCII.
    pub eight_bit: bool,
    /// The message needs SMTPUTF8.
    pub smtputf8: bool,
}

/// How the envelope was taken.
enum Envelope {
    /// 354, and at least one recipient.
    GoAhead,
    /// No recipient was accepted.
    NoRecipient,
}

impl Connection {
    /// Makes one transaction. What happened is in the report; whether the connection can carry another, in [`Connection::usable`].
    pub async fn transact(&mut self, transaction: &Transaction<'_>) -> Report {
        let mut recipients: Vec<_> = transaction.recipients.iter().map(|recipient| self.unaskable(recipient)).collect();
        let end = match self.run(transaction, &mut recipients).await {
            Ok(end) => end,
            Err(trouble) => {
                // What was lost, came too late or broke the protocol leaves a connection of which we do not know what comes next.
                self.usable &= matches!(trouble.cause, Cause::Reply(_) | Cause::Local(_));
                End::Stopped(trouble)
            }
        };
        self.transactions += 1;
        self.idle_since = Instant::now();
        Report { recipients, end }
    }

    async fn run(&mut self, transaction: &Transaction<'_>, replies: &mut [Option<Reply>]) -> Result<End, Trouble> {
        let mail = self.mail(transaction)?;
        // Before anything is said, so that content that cannot be read costs nothing but this attempt.
        let opened = Pieces::open(transaction.header.clone(), transaction.content, transaction.body_offset).await;
        let (pieces, first) = opened.map_err(unreadable)?;
        let asked: Vec<usize> = (0..replies.len()).filter(|i| replies[*i].is_none()).collect();
        let envelope = if asked.is_empty() {
            Envelope::NoRecipient
        } else if self.offers.pipelining {
            self.pipelined(mail, transaction.recipients, &asked, replies).await?
        } else {
            self.lockstep(mail, transaction.recipients, &asked, replies).await?
        };
        match envelope {
            Envelope::NoRecipient => Ok(End::NoRecipient),
            Envelope::GoAhead => {
                if let Err(trouble) = self.send(pieces, first).await {
                    // The server waits for the rest of the content: there is no way back to commands.
                    self.usable = false;
                    return Err(trouble);
                }
                let reply = self.reply(Step::EndOfData, self.timeouts.end_of_data).await?;
                self.needs_reset = false;
                expect_positive(Step::EndOfData, reply).map(End::Accepted)
            }
        }
    }

    /// MAIL with the parameters that the server offers (RFC 1870, RFC 6152, RFC 6531).
    fn mail(&self, transaction: &Transaction<'_>) -> Result<Mail, Trouble> {
        let sender = match transaction.reverse_path.as_str() {
            "" => None,
            text => match text.parse::<Mailbox>() {
                Ok(mailbox) => Some(address(&mailbox)),
                Err(error) => return Err(Trouble { step: Step::Mail, cause: Cause::Local(format!("MAIL FROM {text:?}: {error}")) }),
            },
        };
        let mut parameters = Vec::new();
        if self.offers.declares_size {
            let size = transaction.header.len() as u64 + transaction.content.len().saturating_sub(transaction.body_offset);
            parameters.push(MailParameter::Size(usize::try_from(size).unwrap_or(usize::MAX)));
        }
        // Where it is not offered the octets go out all the same: the body is never re-encoded, and servers take them.
        if self.offers.eight_bit_mime && (transaction.eight_bit || transaction.smtputf8) {
            parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        if self.offers.smtputf8 && transaction.smtputf8 {
            parameters.push(MailParameter::SmtpUtfEight);
        }
        Ok(Mail::new(sender, parameters))
    }

    /// The reply that a recipient gets from us because the server could not even be asked (RFC 6531 §3.2).
    fn unaskable(&self, recipient: &Mailbox) -> Option<Reply> {
        let text = "The address has characters beyond ASCII, and the upstream server does not offer SMTPUTF8";
        (recipient.is_international() && !self.offers.smtputf8).then(|| Reply::new(553, EnhancedStatus::new(5, 6, 7), text))
    }

    async fn lockstep(
        &mut self,
        mail: Mail,
        recipients: &[Mailbox],
        asked: &[usize],
        replies: &mut [Option<Reply>],
    ) -> Result<Envelope, Trouble> {
        let limit = self.timeouts.command;
        if self.needs_reset {
            self.reset().await?;
        }
        let reply = self.command(Step::Mail, mail, limit).await?;
        expect_positive(Step::Mail, reply)?;
        self.needs_reset = true;
        for i in asked {
            let reply = self.command(Step::Rcpt, rcpt(&recipients[*i]), limit).await?;
            answered(&mut replies[*i], reply)?;
        }
        if !any_accepted(replies) {
            return Ok(Envelope::NoRecipient);
        }
        let reply = self.command(Step::Data, Data, self.timeouts.data).await?;
        expect(Step::Data, reply, 354).map(|_| Envelope::GoAhead)
    }

    async fn pipelined(
        &mut self,
        mail: Mail,
        recipients: &[Mailbox],
        asked: &[usize],
        replies: &mut [Option<Reply>],
    ) -> Result<Envelope, Trouble> {
        let mut windows = asked.chunks(WINDOW).peekable();
        let mut opening = true;
        while let Some(window) = windows.next() {
            let last = windows.peek().is_none();
            let mut group = String::new();
            if opening && self.needs_reset {
                group += &Rset.to_string();
            }
            if opening {
                group += &mail.to_string();
            }
            group.extend(window.iter().map(|i| rcpt(&recipients[*i]).to_string()));
            if last {
                group += &Data.to_string();
            }
            let mut group = Some(group);
            if opening && self.needs_reset {
                let reply = self.next(&mut group, Step::Mail).await?;
                self.was_reset(reply)?;
            }
            if opening {
                let reply = self.next(&mut group, Step::Mail).await?;
                if let Err(trouble) = expect_positive(Step::Mail, reply) {
                    self.discard(window.len(), last).await;
                    return Err(trouble);
                }
                (opening, self.needs_reset) = (false, true);
            }
            for i in window {
                let reply = self.next(&mut group, Step::Rcpt).await?;
                answered(&mut replies[*i], reply)?;
            }
        }
        if !any_accepted(replies) {
            self.discard(0, true).await;
            return Ok(Envelope::NoRecipient);
        }
        let reply = self.reply(Step::Data, self.timeouts.data).await?;
        expect(Step::Data, reply, 354).map(|_| Envelope::GoAhead)
    }

    /// The next reply; if the group of commands was not sent yet, sends it first.
    async fn next(&mut self, group: &mut Option<String>, step: Step) -> Result<Reply, Trouble> {
        match group.take() {
            Some(commands) => self.command(step, commands, self.timeouts.command).await,
            None => self.reply(step, self.timeouts.command).await,
        }
    }

    /// Reads the replies to commands that were sent before it was known that they had no use. A server that sends 354 nevertheless (it may:
    /// RFC 2920 §3.1) gets an end of data with nothing before it. The outcome of the transaction is known: trouble here only ends the connection.
    async fn discard(&mut self, recipients: usize, data: bool) {
        for _ in 0..recipients {
            if !self.usable || self.reply(Step::Rcpt, self.timeouts.command).await.is_err() {
                return;
            }
        }
        if data && self.usable && matches!(self.reply(Step::Data, self.timeouts.data).await, Ok(reply) if reply.code == 354) {
            let reply = self.command(Step::EndOfData, ".\r\n", self.timeouts.end_of_data).await;
            self.needs_reset &= reply.is_err();
        }
    }

    /// Sends the pieces; `Ok` if and only if the final dot was handed to the socket: TLS gives out its record only whole.
    async fn send(&mut self, mut pieces: Pieces, mut piece: Piece) -> Result<(), Trouble> {
        let mut spent = Vec::new();
        loop {
            if !piece.last {
                pieces = pieces.read_ahead(spent);
            }
            if let Err(trouble) = self.write(Step::Content, &piece.octets, self.timeouts.block).await {
                return Err(self.last_words(trouble).await);
            }
            if piece.last {
                return Ok(());
            }
            spent = piece.octets;
            (pieces, piece) = pieces.next().await.map_err(unreadable)?;
        }
    }

    /// A server that ends the connection in the middle of the content may have said why: a message too large would otherwise be tried for days.
    async fn last_words(&mut self, trouble: Trouble) -> Trouble {
        match self.reply(Step::Content, LAST_WORDS).await {
            Ok(reply) if reply.is_transient() || reply.is_permanent() => Trouble { step: Step::Content, cause: Cause::Reply(reply) },
            _ => trouble,
        }
    }
}

/// Takes the reply to a RCPT. A refusal is that recipient's alone, except 421, which ends the connection (RFC 5321 §3.8).
fn answered(slot: &mut Option<Reply>, reply: Reply) -> Result<(), Trouble> {
    match expect_positive(Step::Rcpt, reply.clone()) {
        Err(Trouble { cause: Cause::Reply(refusal), .. }) if refusal.code != 421 => *slot = Some(refusal),
        Err(trouble) => {
            *slot = matches!(trouble.cause, Cause::Reply(_)).then_some(reply);
            return Err(trouble);
        }
        Ok(reply) => *slot = Some(reply),
    }
    Ok(())
}

fn any_accepted(replies: &[Option<Reply>]) -> bool {
    replies.iter().flatten().any(Reply::is_positive)
}

fn rcpt(recipient: &Mailbox) -> Rcpt {
    Rcpt::new(address(recipient), Vec::new())
}

/// As lettre has it. Its own reading of addresses refuses some that devices use; a [`Mailbox`] has nothing in it that could end a command.
fn address(mailbox: &Mailbox) -> Address {
    Address::new_dangerous(mailbox.local_part(), mailbox.domain())
}

fn unreadable(error: std::io::Error) -> Trouble {
    Trouble { step: Step::Content, cause: Cause::Local(format!("the stored content cannot be read: {error}")) }
}
