//! BDAT (RFC 3030 §2): content by its length, in one chunk or several.
//!
//! A chunk that is not wanted is read all the same, to its last octet, before it is refused: what is behind it are commands.

use std::io;

use super::content::Content;
use super::dialogue::{Dialogue, End, Next};
use super::replies;
use super::settings::Keep;
use super::transaction::Chunks;
use super::wire::{Ended, Stream, Wire};

/// The argument of BDAT.
#[derive(Debug, PartialEq, Eq)]
struct Chunk {
    octets: u64,
    last: bool,
}

impl Chunk {
    fn read(argument: &str) -> Option<Self> {
        let (number, last) = match argument.split_once(' ') {
            None => (argument, false),
            Some((number, word)) => (number, word.eq_ignore_ascii_case("LAST").then_some(true)?),
        };
        // RFC 3030 §2: 1*DIGIT, without a sign.
        number.bytes().all(|octet| octet.is_ascii_digit()).then(|| number.parse().ok()).flatten().map(|octets| Self { octets, last })
    }
}

impl Dialogue {
    pub(super) async fn bdat<S: Stream>(&mut self, wire: &mut Wire<S>, argument: &str) -> io::Result<Next> {
        let Some(Chunk { octets, last }) = Chunk::read(argument) else {
            // Nobody knows where it ends, and none of it may be taken for commands.
            self.send(wire, replies::BAD_ARGUMENTS).await?;
            return Ok(Next::End(End::Closed));
        };
        let settings = &self.service.settings;
        let (keep, limit) = (settings.keep, settings.size_limit);
        let wanted = match &mut self.transaction {
            None => Err(replies::NEED_MAIL),
            Some(transaction) if transaction.recipients.is_empty() => Err(replies::NEED_RCPT),
            Some(transaction) => match std::mem::replace(&mut transaction.chunks, Chunks::Refused) {
                Chunks::None => Ok((Content::new(keep, limit), transaction.recipients.clone())),
                Chunks::Open(content) => Ok((*content, transaction.recipients.clone())),
                Chunks::Refused => Err(replies::BAD_SEQUENCE),
            },
        };
        let (mut content, recipients) = match wanted {
            Ok(wanted) => wanted,
            Err(text) => return self.refuse_chunk(wire, octets, text).await,
        };
        content.begin_chunk(octets);
        let Some(content) = self.content(wire, &recipients, content).await? else { return Ok(Next::End(End::Closed)) };
        if last && let Some(transaction) = self.transaction.take() {
            self.end_of_data(wire, transaction, content.finish()).await?;
            return Ok(Next::Command);
        }
        self.count_haste(wire);
        if content.size() > limit {
            // The transaction stays as one that had a chunk refused.
            self.send(wire, replies::TOO_LARGE).await?;
            return Ok(Next::Command);
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.chunks = Chunks::Open(Box::new(content));
        }
        self.send(wire, &replies::chunk_received(octets)).await?;
        Ok(Next::Command)
    }

    async fn refuse_chunk<S: Stream>(&mut self, wire: &mut Wire<S>, octets: u64, text: &str) -> io::Result<Next> {
        let mut unwanted = Content::new(Keep::Nothing, 0);
        unwanted.begin_chunk(octets);
        if wire.content(&mut unwanted, None).await? != Ended::Whole {
            return Ok(Next::End(End::Closed));
        }
        self.count_haste(wire);
        self.send(wire, text).await?;
        Ok(Next::Command)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_a_number_and_the_last_says_so() {
        let read = |argument| Chunk::read(argument).map(|Chunk { octets, last }| (octets, last));
        assert_eq!(read("0"), Some((0, false)));
        assert_eq!(read("86 LAST"), Some((86, true)));
        assert_eq!(read("86 last"), Some((86, true)));
        for bad in ["", " LAST", "LAST", "-1", "+1", "1x", "1 LAST ", "1 FIRST", "1  LAST", "99999999999999999999", "0x10"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
