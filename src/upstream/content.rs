//! A message as it goes over the wire, in few large pieces: behind DATA dot-stuffed and with its end of data (RFC 5321 §4.5.2), behind BDAT
//! as it is (RFC 3030).
//!
//! A small message and its end are one piece, and so one TLS write. A file is read on the blocking threads, the next piece while the
//! last one is being sent, so that at most two pieces are in memory whatever the size. The input has CRLF line ends only (the store's
//! invariant); octets are otherwise passed on as they are.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use bytes::{Buf, Bytes};
use memchr::memmem;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::mail::Content;
use crate::mail::sevenbit::Conversion;

/// How the other end knows where the content ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// By a line with a dot; lines that begin with one get another. A last line without its end gets one.
    Dots,
    /// By its length, which was said before. It is sent octet for octet.
    Length,
}

/// Octets of content in one piece, before dot-stuffing.
const PIECE: usize = 128 << 10;

/// Some octets for the wire.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) octets: Vec<u8>,
    /// It is the end of the content, with the final dot where there is to be one.
    pub(super) last: bool,
}

/// The pieces of one message, in order.
pub(super) enum Pieces {
    /// Nothing under way.
    Idle(Box<Reader>),
    /// The next piece is being read elsewhere.
    Ahead(JoinHandle<(Box<Reader>, io::Result<Piece>)>),
}

/// Where the octets come from.
enum Source {
    Memory(Bytes),
    File { file: File, buffer: Vec<u8> },
}

/// Reads and stuffs one piece after the other.
pub(super) struct Reader {
    header: Bytes,
    source: Source,
    /// Octets of the source that are still to come.
    left: u64,
    /// What turns them into those to send, how many of those are still to come, and room for them.
    conversion: Option<(Conversion, u64, Vec<u8>)>,
    framer: Framer,
}

impl Pieces {
    /// Opens `content` at `offset`, behind `header`, as it is or converted into so many octets, and reads the first piece, so that what cannot be read is known before anything is said.
    ///
    /// # Errors
    /// If the file cannot be opened or read, or is shorter than recorded.
    pub(super) async fn open(
        header: Bytes,
        content: &Content,
        offset: u64,
        framing: Framing,
        conversion: Option<(Conversion, u64)>,
    ) -> io::Result<(Self, Piece)> {
        let left = content.len().checked_sub(offset).ok_or_else(|| io::Error::other("the body begins behind the end of the content"))?;
        let conversion = conversion.map(|(conversion, length)| (conversion, length, Vec::new()));
        let start = |source| Box::new(Reader { header, source, left, conversion, framer: Framer::new(framing) });
        let pieces = match content {
            Content::Inline(octets) => {
                let mut octets = octets.clone();
                octets.advance(usize::try_from(offset).unwrap_or(octets.len()).min(octets.len()));
                Self::Idle(start(Source::Memory(octets)))
            }
            Content::File { path, .. } => {
                let path = path.clone();
                let open = move || {
                    let mut file = File::open(path)?;
                    file.seek(SeekFrom::Start(offset))?;
                    Ok::<_, io::Error>(file)
                };
                let file = spawn_blocking(open).await.map_err(io::Error::other)??;
                Self::Idle(start(Source::File { file, buffer: Vec::new() }))
            }
        };
        pieces.read_ahead(Vec::new()).next().await
    }

    /// Begins to read the next piece into a spent buffer, if that needs reading at all.
    pub(super) fn read_ahead(self, mut spent: Vec<u8>) -> Self {
        match self {
            Self::Idle(mut reader) if matches!(reader.source, Source::File { .. }) => Self::Ahead(spawn_blocking(move || {
                spent.clear();
                let piece = reader.next(spent);
                (reader, piece)
            })),
            pieces => pieces,
        }
    }

    /// The next piece. Not to be called after the last one.
    pub(super) async fn next(self) -> io::Result<(Self, Piece)> {
        let (reader, piece) = match self {
            Self::Idle(mut reader) => {
                let piece = reader.next(Vec::new());
                (reader, piece)
            }
            Self::Ahead(job) => job.await.map_err(io::Error::other)?,
        };
        Ok((Self::Idle(reader), piece?))
    }
}

impl Reader {
    fn next(&mut self, mut octets: Vec<u8>) -> io::Result<Piece> {
        let take = self.left.min(PIECE as u64) as usize;
        // Room for the final dot, and for the dots that a text has; more only if it has more.
        octets.reserve(self.header.len() + take + take / 64 + 8);
        self.framer.push(&std::mem::take(&mut self.header), &mut octets);
        let in_memory;
        let read = match &mut self.source {
            Source::Memory(memory) => {
                in_memory = memory.split_to(take);
                &in_memory[..]
            }
            Source::File { file, buffer } => {
                buffer.resize(take, 0);
                file.read_exact(buffer)?;
                &buffer[..]
            }
        };
        self.left -= take as u64;
        let last = self.left == 0;
        match &mut self.conversion {
            None => self.framer.push(read, &mut octets),
            Some((conversion, to_come, converted)) => {
                converted.clear();
                conversion.push(read, converted).map_err(io::Error::other)?;
                if last {
                    conversion.finish(converted).map_err(io::Error::other)?;
                }
                // The content was read before: what it became then was promised to the server.
                let other = || io::Error::other("it is not what it was a moment ago");
                *to_come = to_come.checked_sub(converted.len() as u64).filter(|to_come| !last || *to_come == 0).ok_or_else(other)?;
                self.framer.push(converted, &mut octets);
            }
        }
        if last {
            self.framer.finish(&mut octets);
        }
        Ok(Piece { octets, last })
    }
}

/// How the octets so far end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Tail {
    /// At the beginning of a line; so it begins.
    #[default]
    LineStart,
    /// A CR whose LF may come with the next piece.
    Cr,
    /// Within a line.
    Text,
}

/// Dot-stuffing across pieces, where there is any.
#[derive(Debug)]
struct Framer {
    framing: Framing,
    tail: Tail,
}

impl Framer {
    fn new(framing: Framing) -> Self {
        Self { framing, tail: Tail::default() }
    }

    /// Appends `input` to `out`, with a second dot where a line begins with one.
    fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        if self.framing == Framing::Length {
            return out.extend_from_slice(input);
        }
        let mut copied = 0;
        let mut stuff = |dot: usize| {
            out.extend_from_slice(&input[copied..dot]);
            out.push(b'.');
            copied = dot;
        };
        // A line that begins at, or right behind, the seam to the piece before.
        match self.tail {
            Tail::LineStart if input.starts_with(b".") => stuff(0),
            Tail::Cr if input.starts_with(b"\n.") => stuff(1),
            _ => {}
        }
        memmem::find_iter(input, b"\r\n.").for_each(|line_end| stuff(line_end + 2));
        out.extend_from_slice(&input[copied..]);
        self.tail = match (input, self.tail) {
            ([], tail) => tail,
            ([.., b'\r', b'\n'], _) | ([b'\n'], Tail::Cr) => Tail::LineStart,
            ([.., b'\r'], _) => Tail::Cr,
            _ => Tail::Text,
        };
    }

    /// Appends the end of data; a last line without its end gets one, and no line gets two.
    fn finish(&mut self, out: &mut Vec<u8>) {
        if self.framing == Framing::Length {
            return;
        }
        out.extend_from_slice(if self.tail == Tail::LineStart { b".\r\n" } else { b"\r\n.\r\n" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::sevenbit::Survey;

    fn stuffed(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut framer, mut out) = (Framer::new(Framing::Dots), Vec::new());
        pieces.iter().for_each(|piece| framer.push(piece, &mut out));
        framer.finish(&mut out);
        out
    }

    const TEXTS: &[(&[u8], &[u8])] = &[
        (b"", b".\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b"a\r\n", b"a\r\n.\r\n"),
        (b"a\r\n\r\n", b"a\r\n\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b".\r\n", b"..\r\n.\r\n"),
        (b"..\r\n.\r\n", b"...\r\n..\r\n.\r\n"),
        (b"a\r\n.\r\nb\r\n", b"a\r\n..\r\nb\r\n.\r\n"),
        (b"a\r\n.b.\r\n.c", b"a\r\n..b.\r\n..c\r\n.\r\n"),
        (b"a.\r\r\n.b", b"a.\r\r\n..b\r\n.\r\n"),
        (b"a\r", b"a\r\r\n.\r\n"),
    ];

    #[test]
    fn doubles_the_dots_that_begin_lines() {
        for (text, wire) in TEXTS {
            assert_eq!(stuffed(&[text]), *wire, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn cuts_make_no_difference() {
        for (text, wire) in TEXTS {
            for i in 0..=text.len() {
                for j in i..=text.len() {
                    assert_eq!(stuffed(&[&text[..i], &text[i..j], &text[j..]]), *wire, "{} cut at {i} and {j}", text.escape_ascii());
                }
            }
        }
    }

    async fn read(content: &Content, offset: u64, framing: Framing) -> io::Result<Vec<Piece>> {
        read_all(Bytes::from_static(b"Subject: x\r\n\r\n"), content, offset, framing, None).await
    }

    async fn read_all(
        header: Bytes,
        content: &Content,
        offset: u64,
        framing: Framing,
        conversion: Option<(Conversion, u64)>,
    ) -> io::Result<Vec<Piece>> {
        let (mut pieces, first) = Pieces::open(header, content, offset, framing, conversion).await?;
        let mut all = vec![first];
        while !all.last().expect("one").last {
            let (rest, piece) = pieces.read_ahead(Vec::new()).next().await?;
            pieces = rest;
            all.push(piece);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn a_small_message_is_one_piece() {
        let content = Content::Inline(Bytes::from_static(b"Old: y\r\n\r\nbody\r\n"));
        for (framing, wanted) in
            [(Framing::Dots, &b"Subject: x\r\n\r\nbody\r\n.\r\n"[..]), (Framing::Length, b"Subject: x\r\n\r\nbody\r\n")]
        {
            let pieces = read(&content, 10, framing).await.expect("readable");
            assert_eq!(pieces.len(), 1);
            assert_eq!(pieces[0].octets, wanted);
        }
    }

    #[tokio::test]
    async fn a_file_gives_the_same_octets_as_memory() {
        let text = b"line\r\n.dot\r\n".repeat(50_000);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("1.eml");
        std::fs::write(&path, &text).expect("written");
        let file = Content::File { path: path.clone(), len: text.len() as u64 };
        let memory = Content::Inline(text.clone().into());
        let join = |pieces: Vec<Piece>| pieces.into_iter().flat_map(|piece| piece.octets).collect::<Vec<u8>>();
        for framing in [Framing::Dots, Framing::Length] {
            let from_file = read(&file, 6, framing).await.expect("readable");
            assert!(from_file.iter().all(|piece| piece.octets.len() < 2 * PIECE) && from_file.len() > 4);
            assert_eq!(join(from_file), join(read(&memory, 6, framing).await.expect("readable")));
        }
        let plain = join(read(&file, 6, Framing::Length).await.expect("readable"));
        assert_eq!(plain, [b"Subject: x\r\n\r\n", &text[6..]].concat(), "octet for octet");
    }

    #[tokio::test]
    async fn a_file_that_is_not_whole_never_comes_to_its_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("1.eml");
        std::fs::write(&path, "short").expect("written");
        for framing in [Framing::Dots, Framing::Length] {
            let kinds = [
                read(&Content::File { path: path.clone(), len: 6 }, 0, framing).await,
                read(&Content::File { path: path.clone(), len: 5 }, 6, framing).await,
                read(&Content::File { path: folder.path().join("none"), len: 5 }, 0, framing).await,
            ];
            assert!(kinds.iter().all(Result::is_err));
        }
    }

    #[tokio::test]
    async fn what_is_converted_is_as_long_as_was_said_or_does_not_come_to_its_end() {
        let header = b"Content-Type: text/plain; charset=utf-8\r\n\r\n";
        let text = "K\u{e4}se und Brot\r\n.\r\n".repeat(50_000);
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("1.eml");
        std::fs::write(&path, &text).expect("written");
        let mut survey = Survey::new(header).expect("ASCII");
        survey.push(text.as_bytes()).expect("convertible");
        let plan = survey.finish().expect("convertible");
        let wanted = "K=C3=A4se und Brot\r\n.\r\n".repeat(50_000);
        for content in [Content::Inline(text.clone().into()), Content::File { path, len: text.len() as u64 }] {
            for (promised, kept) in [(wanted.len(), true), (wanted.len() - 1, false), (wanted.len() + 1, false)] {
                let conversion = Some((plan.conversion(), promised as u64));
                let read = read_all(Bytes::new(), &content, 0, Framing::Length, conversion).await;
                let octets = read.map(|pieces| pieces.into_iter().flat_map(|piece| piece.octets).collect::<Vec<u8>>());
                assert_eq!(octets.is_ok(), kept, "{promised}");
                assert!(octets.is_err() || octets.is_ok_and(|octets| octets == wanted.as_bytes()));
            }
        }
    }
}
