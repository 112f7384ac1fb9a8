//! The content of one message on its way in: decoded, measured, and refused as soon as it is too large.
//!
//! What is refused is still read to its end of data, because only there does a client listen. Limits: the message's size, the size of its
//! header, and a bound on how much is swallowed for the sake of a reply.

use memchr::memmem;

use super::replies;
use crate::clock::Timestamp;
use crate::mail::QueueId;
use crate::smtp::{DataDecoder, Reply};

/// A client that goes on beyond this many times the largest message is cut off instead of listened to.
const SWALLOWED: u64 = 10;

/// A message between 354 and its end of data.
#[derive(Debug)]
pub(super) struct Reception {
    /// The message's name.
    pub id: QueueId,
    /// When it began.
    pub since: Timestamp,
    /// Why it will not be kept, once that is known.
    pub refusal: Option<Reply>,
    decoder: DataDecoder,
    size: u64,
    header: Header,
    message_limit: u64,
    header_limit: usize,
}

/// How far the header goes.
#[derive(Debug)]
struct Header {
    /// Octets, without the empty line behind it.
    size: u64,
    /// The last octets, as long as the empty line has not come.
    tail: Option<[u8; 3]>,
}

/// What has come of some octets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// All of them are content, and more is to come.
    More,
    /// The end of data is among them; so many belong to the message.
    Ended(usize),
    /// Nobody can be expected to listen to this any longer.
    Endless,
}

impl Reception {
    /// From now on; octets of the message and of its header, at most.
    pub(super) fn new(id: QueueId, since: Timestamp, message_limit: u64, header_limit: usize) -> Self {
        // Nothing yet is as good as behind a line end: an empty line at once means an empty header.
        let header = Header { size: 0, tail: Some(*b"\0\r\n") };
        Self { id, since, refusal: None, decoder: DataDecoder::new(), size: 0, header, message_limit, header_limit }
    }

    /// Takes octets; what they mean is put into `content`, which is empty before, unless the message is refused.
    pub(super) fn take(&mut self, octets: &[u8], content: &mut Vec<u8>) -> Progress {
        content.reserve(octets.len() + 2);
        let end = self.decoder.decode(octets, content);
        self.size += content.len() as u64;
        if self.refusal.is_none() {
            self.refusal = self.judge(content);
        }
        if self.refusal.is_some() {
            content.clear();
        }
        match end {
            _ if self.size / SWALLOWED > self.message_limit => Progress::Endless,
            Some(end) => Progress::Ended(end),
            None => Progress::More,
        }
    }

    /// Octets so far.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Whether the client may believe that it has sent its end of data.
    pub(super) fn has_lone_dot(&self) -> bool {
        self.decoder.has_lone_dot()
    }

    /// Whether a line ended in a bare LF or a bare CR.
    pub(super) fn has_bare_line_ends(&self) -> bool {
        self.decoder.has_bare_line_ends()
    }

    fn judge(&mut self, content: &[u8]) -> Option<Reply> {
        self.header.follow(content);
        // The limit that an octet-by-octet reader would meet first, so that the reply does not depend on the pieces.
        let header_comes_first = self.header_limit as u64 <= self.message_limit;
        if header_comes_first && self.header.size > self.header_limit as u64 {
            return Some(replies::header_too_large(self.header_limit));
        }
        (self.size > self.message_limit).then(|| replies::content_too_large(self.message_limit))
    }
}

impl Header {
    /// Looks for the empty line, also where it is cut over pieces. Content has CRLF line ends only, so LF CR is the end of one line and an
    /// empty next one.
    fn follow(&mut self, content: &[u8]) {
        let Some(tail) = &mut self.tail else { return };
        let last = content.len().min(3);
        let mut seam = [0; 6];
        seam[..3].copy_from_slice(tail);
        seam[3..3 + last].copy_from_slice(&content[..last]);
        let in_seam = memmem::find(&seam[..3 + last], b"\n\r\n").map(|at| self.size + at as u64 + 1 - 3);
        if let Some(end) = in_seam.or_else(|| memmem::find(content, b"\n\r\n").map(|at| self.size + at as u64 + 1)) {
            *self = Self { size: end, tail: None };
            return;
        }
        self.size += content.len() as u64;
        tail.rotate_left(last);
        tail[3 - last..].copy_from_slice(&content[content.len() - last..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reception(message_limit: u64, header_limit: usize) -> Reception {
        Reception::new(QueueId::from_number(1).expect("positive"), Timestamp::from_millis(0), message_limit, header_limit)
    }

    /// Takes the pieces; the word by which the refusal is known, if there is one.
    fn refusal(pieces: &[&[u8]], mut reception: Reception) -> Option<&'static str> {
        let mut content = Vec::new();
        for piece in pieces {
            content.clear();
            reception.take(piece, &mut content);
        }
        reception.refusal.map(|reply| if reply.text().contains("header") { "header" } else { "size" })
    }

    #[test]
    fn measures_header_and_message_wherever_they_are_cut() {
        for (wire, message_size, header_size, why) in [
            (&b"A: b\r\n\r\nbody\r\n.\r\n"[..], 14, 6, None),
            (b"A: b\r\n\r\nbody\r\n.\r\n", 13, 13, Some("size")),
            (b"A: b\r\nC: d\r\n\r\n.\r\n", 100, 12, None),
            (b"A: b\r\nC: de\r\n\r\n.\r\n", 100, 12, Some("header")),
            (b"A: b\r\nC: d\r\nE: f\r\n.\r\n", 100, 12, Some("header")),
            (b"\r\na very long body\r\n.\r\n", 100, 2, None),
            (b"\n\na very long body\r\n.\r\n", 100, 2, None),
            (b"A: b\n\na very long body\r\n.\r\n", 100, 6, None),
            (b"A: b\r\nC: d\r\nE: f\r\n.\r\n", 13, 12, Some("header")),
            (b"A: b\r\nC: d\r\nE: f\r\n.\r\n", 12, 13, Some("size")),
            (b"A: b\r\n\r\nbody\r\n.\r\n", 13, 12, Some("size")),
            (b".\r\n", 0, 0, None),
            (b"..\r\n.\r\n", 3, 3, None),
        ] {
            let reception = || reception(message_size, header_size);
            let octets: Vec<&[u8]> = wire.chunks(1).collect();
            assert_eq!(refusal(&octets, reception()), why, "{} octet by octet", wire.escape_ascii());
            for cut in 0..wire.len() {
                let pieces = [&wire[..cut], &wire[cut..]];
                assert_eq!(refusal(&pieces, reception()), why, "{} cut at {cut}", wire.escape_ascii());
            }
        }
    }

    #[test]
    fn passes_nothing_on_of_what_is_refused_and_cuts_off_what_never_ends() {
        let (mut reception, mut content) = (reception(100, 100), Vec::new());
        assert_eq!(reception.take(b"\r\n", &mut content), Progress::More);
        assert_eq!(content, b"\r\n");
        let mut pieces = 0;
        loop {
            content.clear();
            match reception.take(&[b'x'; 99], &mut content) {
                Progress::Endless => break,
                progress => assert_eq!(progress, Progress::More),
            }
            pieces += 1;
            assert!(content.is_empty() || pieces < 2);
        }
        assert_eq!(pieces, 10);
    }
}
