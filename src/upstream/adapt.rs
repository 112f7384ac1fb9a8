//! A message as this server takes it: what it does not offer is done without, or the message does not go.
//!
//! | not offered | what is done |
//! |---|---|
//! | 8BITMIME (RFC 6152) | content beyond ASCII is converted, [`crate::mail::sevenbit`]; 554 5.6.3 for what cannot be |
//! | SMTPUTF8 (RFC 6531) | headers become ASCII where the client asked for it; 553 5.6.7 for addresses beyond ASCII |
//! | room for it (SIZE, RFC 1870) | 552 5.3.4 |
//!
//! Refusals are ours: nothing was said to the server. Where 8BITMIME is offered, the body goes as it came, octet for octet. A conversion reads
//! the content twice before anything is sent (what must be done, and how long it becomes) and once more while it is sent, so that it needs
//! neither memory nor disk of the message's size.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use bytes::Bytes;
use tokio::task::spawn_blocking;

use crate::mail::Content;
use crate::mail::sevenbit::{Plan, Survey, Unfit, header_in_ascii};
use crate::reply::{Cause, Step, Trouble};
use crate::smtp::{EnhancedStatus, Mailbox, Reply};

use super::content::{Framing, Piece, Pieces};
use super::{Offers, Transaction};

/// Octets that are looked at at a time.
const PIECE: usize = 128 << 10;

/// What of a transaction goes over a connection, and how.
pub(super) struct Adapted<'a> {
    header: Bytes,
    content: &'a Content,
    body_offset: u64,
    conversion: Option<Plan>,
    /// Octets of the message as it is sent: not dot-stuffed, without the final dot (RFC 1870 §3).
    pub(super) size: u64,
    /// BODY=8BITMIME is to be said.
    pub(super) eight_bit: bool,
    /// SMTPUTF8 is to be said.
    pub(super) smtputf8: bool,
}

/// Why a content is not converted.
enum Obstacle {
    Unfit(Unfit),
    Unreadable(io::Error),
}

impl<'a> Adapted<'a> {
    /// Adapts a message to what is offered.
    ///
    /// # Errors
    /// A refusal of ours, at MAIL; or that the content cannot be read.
    pub(super) async fn to(offers: &Offers, transaction: &Transaction<'a>) -> Result<Self, Trouble> {
        // RFC 6531 §3.1: who offers SMTPUTF8 must take 8-bit content too.
        let takes_eight_bit = offers.eight_bit_mime || offers.smtputf8;
        let &Transaction { content, body_offset, .. } = transaction;
        let (mut header, mut conversion) = (transaction.header.clone(), None);
        let mut body = content.len().saturating_sub(body_offset);
        check_sender(offers, &transaction.reverse_path)?;
        if !takes_eight_bit && (transaction.eight_bit || !header.is_ascii()) {
            let (plan, length) = survey(header, content, body_offset).await.map_err(|obstacle| match obstacle {
                Obstacle::Unfit(unfit) => refused(&unfit),
                Obstacle::Unreadable(error) => super::transaction::unreadable(error),
            })?;
            header = Bytes::copy_from_slice(plan.header());
            (conversion, body) = (Some(plan), length);
        } else if transaction.smtputf8 && !offers.smtputf8 && !header.is_ascii() {
            header = header_in_ascii(&header).map_err(|unfit| refused(&unfit))?.into();
        }
        let size = header.len() as u64 + body;
        if let Some(limit) = offers.size.filter(|limit| size > *limit) {
            let text = format!("Not sent: the message has {size} octets, and the upstream server takes at most {limit} (its SIZE)");
            return Err(refusal(552, EnhancedStatus::new(5, 3, 4), text));
        }
        let smtputf8 = offers.smtputf8 && transaction.smtputf8;
        let eight_bit = offers.eight_bit_mime && (transaction.eight_bit || smtputf8);
        Ok(Self { header, content, body_offset, conversion, size, eight_bit, smtputf8 })
    }

    /// Whether a part of the content is not sent as it came.
    pub(super) fn is_converted(&self) -> bool {
        self.conversion.as_ref().is_some_and(Plan::converts_anything)
    }

    /// Begins to read what is to be sent.
    ///
    /// # Errors
    /// If the content cannot be opened or read.
    pub(super) async fn open(&self, framing: Framing) -> io::Result<(Pieces, Piece)> {
        let body = self.size - self.header.len() as u64;
        let conversion = self.conversion.as_ref().map(|plan| (plan.conversion(), body));
        Pieces::open(self.header.clone(), self.content, self.body_offset, framing, conversion).await
    }
}

fn check_sender(offers: &Offers, reverse_path: &str) -> Result<(), Trouble> {
    if reverse_path.is_ascii() || offers.smtputf8 {
        return Ok(());
    }
    let text =
        format!("Not sent: the sender <{reverse_path}> has characters beyond ASCII, and the upstream server does not offer SMTPUTF8");
    Err(refusal(553, EnhancedStatus::new(5, 6, 7), text))
}

/// The reply that a recipient gets from us because the server could not even be asked (RFC 6531 §3.2).
pub(super) fn unaskable(offers: &Offers, recipient: &Mailbox) -> Option<Reply> {
    let text = "Not sent: the address has characters beyond ASCII, and the upstream server does not offer SMTPUTF8";
    (recipient.is_international() && !offers.smtputf8).then(|| Reply::new(553, EnhancedStatus::new(5, 6, 7), text))
}

fn refused(unfit: &Unfit) -> Trouble {
    match unfit {
        Unfit::International(_) => {
            refusal(553, EnhancedStatus::new(5, 6, 7), format!("Not sent: the upstream server does not offer SMTPUTF8, and {unfit}"))
        }
        // RFC 3463 §3.7: conversion required but not supported.
        Unfit::Sealed | Unfit::Opaque | Unfit::TooComplex => {
            refusal(554, EnhancedStatus::new(5, 6, 3), format!("Not sent: the upstream server does not offer 8BITMIME, and {unfit}"))
        }
    }
}

fn refusal(code: u16, status: EnhancedStatus, text: String) -> Trouble {
    Trouble { step: Step::Mail, cause: Cause::Reply(Reply::new(code, status, text)) }
}

/// Finds out what must become of a message, and how long its body becomes.
async fn survey(header: Bytes, content: &Content, offset: u64) -> Result<(Plan, u64), Obstacle> {
    match content {
        Content::Inline(octets) => {
            let body = octets.slice(usize::try_from(offset).unwrap_or(octets.len()).min(octets.len())..);
            planned(&header, |take| take(&body))
        }
        Content::File { path, len } => {
            let (path, left) = (path.clone(), len.saturating_sub(offset));
            let job = move || {
                let mut file = File::open(path)?;
                planned(&header, |take| {
                    file.seek(SeekFrom::Start(offset))?;
                    read_through(&mut file, left, take)
                })
            };
            spawn_blocking(job).await.map_err(io::Error::other)?
        }
    }
}

/// Whoever takes the octets of a body.
type Taker<'t> = dyn FnMut(&[u8]) -> Result<(), Obstacle> + 't;

/// `body` gives out the whole body, as often as it is asked to.
fn planned(header: &[u8], mut body: impl FnMut(&mut Taker<'_>) -> Result<(), Obstacle>) -> Result<(Plan, u64), Obstacle> {
    let mut survey = Survey::new(header)?;
    body(&mut |octets| Ok(survey.push(octets)?))?;
    let plan = survey.finish()?;
    let (mut conversion, mut length, mut out) = (plan.conversion(), 0, Vec::new());
    body(&mut |octets| {
        conversion.push(octets, &mut out)?;
        length += out.len() as u64;
        out.clear();
        Ok(())
    })?;
    conversion.finish(&mut out)?;
    Ok((plan, length + out.len() as u64))
}

fn read_through(file: &mut File, mut left: u64, take: &mut Taker<'_>) -> Result<(), Obstacle> {
    let mut buffer = vec![0; PIECE];
    while left > 0 {
        let piece = &mut buffer[..left.min(PIECE as u64) as usize];
        file.read_exact(piece)?;
        take(piece)?;
        left -= piece.len() as u64;
    }
    Ok(())
}

impl From<Unfit> for Obstacle {
    fn from(unfit: Unfit) -> Self {
        Self::Unfit(unfit)
    }
}

impl From<io::Error> for Obstacle {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}
