//! The envelope of a transaction: MAIL and a RCPT for each recipient, and what follows the last RCPT in the same breath.
//!
//! With PIPELINING commands go out in groups, and the replies are read in order (RFC 2920); without it each command waits for its reply.

use lettre::transport::smtp::commands::{Data, Mail, Rset};

use crate::mail::Recipient;
use crate::reply::{Cause, Step, Trouble};
use crate::smtp::Reply;

use super::Connection;
use super::opening::{expect, expect_positive};
use super::transaction::LAST_WORDS;

/// RCPTs in one write. Their replies must fit in our receive buffer while we still write, or both sides would wait (RFC 2920 §3.1).
const WINDOW: usize = 100;

/// The commands, and where the replies go.
pub(super) struct Envelope<'a> {
    pub(super) mail: Mail,
    pub(super) recipients: &'a [Recipient],
    /// Which of them the server is asked about: at least one.
    pub(super) asked: &'a [usize],
    /// One for each of them.
    pub(super) replies: &'a mut [Option<Reply>],
    pub(super) tail: Tail<'a>,
}

/// What follows the last RCPT.
#[derive(Clone, Copy)]
pub(super) enum Tail<'a> {
    /// DATA; the content goes after its 354.
    Data,
    /// BDAT LAST and the content, in the same write as the commands: with PIPELINING only.
    Content(&'a [u8]),
    /// Nothing: BDAT goes when the replies are known.
    Nothing,
}

/// How the envelope was taken.
pub(super) enum Answer {
    /// At least one recipient was accepted, and the content may come.
    GoAhead,
    /// No recipient was accepted.
    NoRecipient,
    /// At least one recipient was accepted, and this is the reply to the content, which went along.
    Content(Reply),
}

impl Connection {
    pub(super) async fn envelope(&mut self, envelope: Envelope<'_>) -> Result<Answer, Trouble> {
        if self.offers.pipelining { self.pipelined(envelope).await } else { self.lockstep(envelope).await }
    }

    async fn lockstep(&mut self, envelope: Envelope<'_>) -> Result<Answer, Trouble> {
        let Envelope { mail, recipients, asked, replies, tail } = envelope;
        let limit = self.timeouts.command;
        if self.needs_reset {
            self.reset().await?;
        }
        let reply = self.command(Step::Mail, mail, limit).await?;
        expect_positive(Step::Mail, reply)?;
        self.needs_reset = true;
        for i in asked {
            let reply = self.command(Step::Rcpt, self.rcpt(&recipients[*i]), limit).await?;
            answered(&mut replies[*i], reply)?;
        }
        if !any_accepted(replies) {
            return Ok(Answer::NoRecipient);
        }
        match tail {
            Tail::Data => {
                let reply = self.command(Step::Data, Data, self.timeouts.data).await?;
                expect(Step::Data, reply, 354).map(|_| Answer::GoAhead)
            }
            Tail::Content(_) | Tail::Nothing => Ok(Answer::GoAhead),
        }
    }

    async fn pipelined(&mut self, envelope: Envelope<'_>) -> Result<Answer, Trouble> {
        let Envelope { mail, recipients, asked, replies, tail } = envelope;
        let mut opening = Some(mail);
        let mut windows = asked.chunks(WINDOW).peekable();
        let mut cut = None;
        while let Some(window) = windows.next() {
            let tail = if windows.peek().is_none() { tail } else { Tail::Nothing };
            let mut group = Vec::new();
            let reset = opening.is_some() && self.needs_reset;
            if reset {
                group.extend_from_slice(Rset.to_string().as_bytes());
            }
            if let Some(mail) = &opening {
                group.extend_from_slice(mail.to_string().as_bytes());
            }
            window.iter().for_each(|i| group.extend_from_slice(self.rcpt(&recipients[*i]).to_string().as_bytes()));
            cut = self.post(group, tail).await;
            if reset {
                let reply = self.answer(&cut, Step::Mail).await?;
                self.was_reset(reply)?;
            }
            if opening.take().is_some() {
                let reply = self.answer(&cut, Step::Mail).await?;
                if let Err(trouble) = expect_positive(Step::Mail, reply) {
                    self.discard(window.len(), tail).await;
                    return Err(trouble);
                }
                self.needs_reset = true;
            }
            for i in window {
                let reply = self.answer(&cut, Step::Rcpt).await?;
                answered(&mut replies[*i], reply)?;
            }
        }
        if !any_accepted(replies) {
            self.discard(0, tail).await;
            return Ok(Answer::NoRecipient);
        }
        match tail {
            Tail::Data => expect(Step::Data, self.answer(&cut, Step::Data).await?, 354).map(|_| Answer::GoAhead),
            Tail::Content(_) => self.answer(&cut, Step::EndOfData).await.map(Answer::Content),
            Tail::Nothing => Ok(Answer::GoAhead),
        }
    }

    /// Sends a group of commands in one write. Returns why not all of it got out, if so.
    async fn post(&mut self, mut group: Vec<u8>, tail: Tail<'_>) -> Option<Cause> {
        let limit = match tail {
            Tail::Data => {
                group.extend_from_slice(Data.to_string().as_bytes());
                self.timeouts.command
            }
            Tail::Content(octets) => {
                group.extend_from_slice(octets);
                self.timeouts.block
            }
            Tail::Nothing => self.timeouts.command,
        };
        match self.write(Step::Content, &group, limit).await {
            Ok(()) => {
                self.handed_over = matches!(tail, Tail::Content(_));
                None
            }
            Err(trouble) => Some(trouble.cause),
        }
    }

    /// The next reply to a group. One that did not get out whole may have been answered all the same, with 421 for one.
    async fn answer(&mut self, cut: &Option<Cause>, step: Step) -> Result<Reply, Trouble> {
        let limit = match step {
            Step::EndOfData => self.timeouts.end_of_data,
            Step::Data => self.timeouts.data,
            _ => self.timeouts.command,
        };
        match cut {
            None => self.reply(step, limit).await,
            // The end of the content was not reached.
            Some(cause) => self.reply(step, LAST_WORDS).await.map_err(|_| Trouble { step: step.min(Step::Content), cause: cause.clone() }),
        }
    }

    /// Reads the replies to what was sent before it was known that it had no use. A server that sends 354 nevertheless (it may: RFC 2920 §3.1)
    /// gets an end of data with nothing before it. The outcome of the transaction is known: trouble here only ends the connection.
    async fn discard(&mut self, recipients: usize, tail: Tail<'_>) {
        for _ in 0..recipients {
            if !self.usable || self.reply(Step::Rcpt, self.timeouts.command).await.is_err() {
                return;
            }
        }
        match tail {
            Tail::Data if self.usable => {
                if matches!(self.reply(Step::Data, self.timeouts.data).await, Ok(reply) if reply.code == 354) {
                    let reply = self.command(Step::EndOfData, ".\r\n", self.timeouts.end_of_data).await;
                    self.needs_reset &= reply.is_err();
                }
            }
            Tail::Content(_) if self.usable => {
                // RFC 3030 §2: it is read and refused, and then the transaction is to be reset.
                self.needs_reset = true;
                let _ = self.reply(Step::Data, self.timeouts.data).await;
            }
            _ => {}
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
