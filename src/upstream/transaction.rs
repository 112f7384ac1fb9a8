//! One mail transaction: the envelope ([`super::envelope`]), the content, the reply to its end (RFC 5321 §3.3, RFC 2920, RFC 3030).
//!
//! How it goes depends on what the server offers. Each line is a round trip, with *n* recipients:
//!
//! | PIPELINING | CHUNKING | |
//! |---|---|---|
//! | – | – | MAIL · *n* × RCPT · DATA · content |
//! | – | yes | MAIL · *n* × RCPT · BDAT LAST with the content |
//! | yes | – | MAIL RCPT DATA · content |
//! | yes | yes | MAIL RCPT BDAT LAST with the content |
//!
//! All give the same report. The content is one chunk, whatever its size: it has one reply, and nothing can go wrong between chunks. It goes in
//! one write with the envelope only if it is small, and only on a connection that was in use just now. A large one that nobody wants would be
//! sent for nothing; on a connection that rested, the server may have hung up meanwhile, and with the content on its way nobody could say whether
//! it was taken. Where the server has shown that it hangs up without a word on connections that have carried messages, such a connection is asked
//! first in any case ([`super::Pool`] remembers that).
//!
//! After a refusal the connection stays usable; RSET goes before the next MAIL where a transaction was left open, in the same write if that is
//! pipelined.
//!
//! Invariant: trouble that is not the server's word is at [`Step::EndOfData`] if and only if the end of the content, its final dot or the last
//! octet of its chunk, was handed to the socket. Then the server may have the message.

use std::time::{Duration, Instant};

use bytes::Bytes;
use lettre::Address;
use lettre::transport::smtp::commands::{Mail, Rcpt};
use lettre::transport::smtp::extension::{MailBodyParameter, MailParameter, RcptParameter};

use crate::mail::{Content, Recipient};
use crate::reply::{Cause, End, Report, Step, Trouble};
use crate::smtp::{Mailbox, MessageDsn, RecipientDsn, Reply};

use super::Connection;
use super::adapt::{Adapted, unaskable};
use super::content::{Framing, Piece, Pieces};
use super::envelope::{Answer, Envelope, Tail};
use super::opening::expect_positive;

/// How long to look for a reply that explains why the server ended the connection in the middle of the content.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(1);
/// A connection that was idle for so long may have been given up by the server. Servers wait for minutes (RFC 5321 §4.5.3.2.7: 5), some for
/// seconds; who sends without a break never rests so long.
const RESTED: Duration = Duration::from_secs(1);

/// What is to be sent: `header`, then `content` from `body_offset` on; on the wire as the server takes it ([`super::adapt`]).
#[derive(Debug, Clone)]
pub struct Transaction<'a> {
    /// The mailbox of MAIL FROM; empty for the null path.
    pub reverse_path: String,
    /// The forward-paths, with what is asked of notices about each.
    pub recipients: &'a [Recipient],
    /// The header block as it is to be sent, with the empty line that ends it.
    pub header: Bytes,
    /// The stored content.
    pub content: &'a Content,
    /// Where its body begins.
    pub body_offset: u64,
    /// The content has octets beyond ASCII.
    pub eight_bit: bool,
    /// The client asked for SMTPUTF8, or the sender needs it.
    pub smtputf8: bool,
    /// What is asked of notices about the message.
    pub dsn: &'a MessageDsn,
}

impl Connection {
    /// Makes one transaction. What happened is in the report; whether the connection can carry another, in [`Connection::usable`].
    pub async fn transact(&mut self, transaction: &Transaction<'_>) -> Report {
        let mut recipients: Vec<_> = transaction.recipients.iter().map(|recipient| unaskable(&self.offers, &recipient.address)).collect();
        (self.handed_over, self.converted) = (false, false);
        self.laps.begin();
        let end = match self.run(transaction, &mut recipients).await {
            Ok(end) => end,
            Err(Trouble { cause: cause @ (Cause::Reply(_) | Cause::Local(_)), step }) => End::Stopped(Trouble { step, cause }),
            Err(Trouble { cause, step }) => {
                // What was lost, came too late or broke the protocol leaves a connection of which we do not know what comes next; and if the
                // content was out, it does not matter which of the replies was missed.
                self.usable = false;
                End::Stopped(Trouble { step: if self.handed_over { Step::EndOfData } else { step }, cause })
            }
        };
        self.transactions += 1;
        self.idle_since = Instant::now();
        Report { recipients, end }
    }

    async fn run(&mut self, transaction: &Transaction<'_>, replies: &mut [Option<Reply>]) -> Result<End, Trouble> {
        let adapted = Adapted::to(&self.offers, transaction).await?;
        self.converted = adapted.is_converted();
        let mail = self.mail(transaction, &adapted)?;
        let framing = if self.offers.chunking { Framing::Length } else { Framing::Dots };
        // Before anything is said, so that content that cannot be read costs nothing but this attempt.
        let (pieces, mut first) = adapted.open(framing).await.map_err(unreadable)?;
        let asked: Vec<usize> = (0..replies.len()).filter(|i| replies[*i].is_none()).collect();
        if asked.is_empty() {
            return Ok(End::NoRecipient);
        }
        if framing == Framing::Length {
            let command = format!("BDAT {} LAST\r\n", adapted.size);
            first.octets.splice(..0, command.into_bytes());
        }
        let rested = self.transactions > 0 && (self.asks_first || self.idle_since.elapsed() >= RESTED);
        let tail = match framing {
            Framing::Dots => Tail::Data,
            Framing::Length if self.offers.pipelining && first.last && !rested => Tail::Content(&first.octets),
            Framing::Length => Tail::Nothing,
        };
        let envelope = Envelope { mail, recipients: transaction.recipients, asked: &asked, replies, tail };
        let reply = match self.envelope(envelope).await? {
            Answer::NoRecipient => return Ok(End::NoRecipient),
            Answer::Content(reply) => reply,
            Answer::GoAhead => {
                if let Err(trouble) = self.send(pieces, first).await {
                    // The server waits for the rest of the content: there is no way back to commands.
                    self.usable = false;
                    return Err(trouble);
                }
                self.handed_over = true;
                self.laps.lap(Step::Content);
                self.reply(Step::EndOfData, self.timeouts.end_of_data).await?
            }
        };
        // RFC 3030 §2: after a refused chunk the transaction is to be reset. Behind a final dot there is none, whatever the reply.
        self.needs_reset = framing == Framing::Length && !reply.is_positive();
        expect_positive(Step::EndOfData, reply).map(End::Accepted)
    }

    /// MAIL with the parameters that the server offers (RFC 1870, RFC 3461, RFC 6152, RFC 6531).
    fn mail(&self, transaction: &Transaction<'_>, adapted: &Adapted<'_>) -> Result<Mail, Trouble> {
        let sender = match transaction.reverse_path.as_str() {
            "" => None,
            text => match text.parse::<Mailbox>() {
                Ok(mailbox) => Some(address(&mailbox)),
                Err(error) => return Err(Trouble { step: Step::Mail, cause: Cause::Local(format!("MAIL FROM {text:?}: {error}")) }),
            },
        };
        let mut parameters = Vec::new();
        if self.offers.declares_size {
            parameters.push(MailParameter::Size(usize::try_from(adapted.size).unwrap_or(usize::MAX)));
        }
        if adapted.eight_bit {
            parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
        }
        if adapted.smtputf8 {
            parameters.push(MailParameter::SmtpUtfEight);
        }
        if self.offers.dsn {
            // lettre writes the values as xtext, which changes nothing of RET's.
            let MessageDsn { ret, envid } = transaction.dsn;
            let given = [("RET", ret.map(|ret| ret.to_string())), ("ENVID", envid.clone())];
            let other =
                |(keyword, value): (&str, Option<String>)| Some(MailParameter::Other { keyword: keyword.to_owned(), value: Some(value?) });
            parameters.extend(given.into_iter().filter_map(other));
        }
        Ok(Mail::new(sender, parameters))
    }

    /// RCPT with the parameters that the server offers (RFC 3461).
    pub(super) fn rcpt(&self, recipient: &Recipient) -> Rcpt {
        let Recipient { address: mailbox, dsn: RecipientDsn { notify, orcpt }, .. } = recipient;
        let mut parameters = Vec::new();
        if self.offers.dsn {
            let orcpt = orcpt.as_ref().map(|orcpt| format!("{};{}", orcpt.address_type, orcpt.ascii_address()));
            let given = [("NOTIFY", notify.map(|notify| notify.to_string())), ("ORCPT", orcpt)];
            let other =
                |(keyword, value): (&str, Option<String>)| Some(RcptParameter::Other { keyword: keyword.to_owned(), value: Some(value?) });
            parameters.extend(given.into_iter().filter_map(other));
        }
        Rcpt::new(address(mailbox), parameters)
    }

    /// Sends the pieces; `Ok` if and only if the end of the last was handed to the socket: TLS gives out its record only whole.
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

/// As lettre has it. Its own reading of addresses refuses some that devices use; a [`Mailbox`] has nothing in it that could end a command.
fn address(mailbox: &Mailbox) -> Address {
    Address::new_dangerous(mailbox.local_part(), mailbox.domain())
}

pub(super) fn unreadable(error: std::io::Error) -> Trouble {
    Trouble { step: Step::Content, cause: Cause::Local(format!("the stored content cannot be read: {error}")) }
}
