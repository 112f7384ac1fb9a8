//! One connection's octets: lines and content in, replies out.
//!
//! Replies gather until the input is used up, then go out in one write, so that pipelined commands get their replies together. That write is
//! also where the endpoint's delay is applied: counted from the moment at which the input came.

use std::io;
use std::time::Duration;

use memchr::memchr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until};

use super::content::Content;

const INPUT_BUFFER: usize = 32 * 1024;
/// RFC 4954 §4 wants 12,288 octets for AUTH, the longest of all lines.
const LINE_LIMIT: usize = 12_288;
/// How much of a timer's lateness is made up for with the next reply; more than that is the machine's load, not the timer's grain.
const TIMER_GRAIN: Duration = Duration::from_millis(2);

/// What a client sent up to its next line end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A command line without its CRLF.
    Command(String),
    /// A line with a bare CR or LF, or that is not UTF-8.
    Bad,
    /// More than a line may have, and no end in sight. The connection cannot go on.
    TooLong,
}

/// How reading a content ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// By its final dot, or because the chunk is whole.
    Whole,
    /// As many octets as were waited for have come.
    Reached,
    Closed,
}

/// What a dialogue runs over: TCP, or TLS on it.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

pub(super) struct Wire<S> {
    stream: S,
    input: Box<[u8]>,
    start: usize,
    end: usize,
    output: Vec<u8>,
    delay: Duration,
    arrived: Instant,
    late: Duration,
}

impl<S: Stream> Wire<S> {
    pub(super) fn new(stream: S, delay: Duration) -> Self {
        let input = vec![0; INPUT_BUFFER].into_boxed_slice();
        Self { stream, input, start: 0, end: 0, output: Vec::new(), delay, arrived: Instant::now(), late: Duration::ZERO }
    }

    /// Whether the client has sent more than was asked for yet.
    pub(super) fn has_more(&self) -> bool {
        self.start < self.end
    }

    /// The stream, for a TLS handshake on it.
    pub(super) fn into_stream(self) -> S {
        self.stream
    }

    /// The next line; `None` if the client closed the connection. Sends what is due before it waits.
    pub(super) async fn line(&mut self) -> io::Result<Option<Line>> {
        let mut seen = 0;
        loop {
            let buffered = &self.input[self.start..self.end];
            if let Some(found) = memchr(b'\n', &buffered[seen..]) {
                let (line, length) = (&buffered[..seen + found], seen + found + 1);
                let line = match line.strip_suffix(b"\r") {
                    Some(line) if line.len() > LINE_LIMIT => Line::TooLong,
                    Some(line) if memchr(b'\r', line).is_none() => {
                        std::str::from_utf8(line).map_or(Line::Bad, |text| Line::Command(text.to_owned()))
                    }
                    _ => Line::Bad,
                };
                self.start += length;
                return Ok(Some(line));
            }
            seen = buffered.len();
            if seen > LINE_LIMIT {
                return Ok(Some(Line::TooLong));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// Reads content until its final dot or the end of the chunk, or until so many octets of it have come. Behind BDAT the replies that are
    /// due wait for the chunk: it is on its way already, and who pipelines gets all in one piece.
    pub(super) async fn content(&mut self, content: &mut Content, until: Option<u64>) -> io::Result<Ended> {
        let mut left = until.unwrap_or(u64::MAX);
        loop {
            if content.has_chunk() {
                return Ok(Ended::Whole);
            }
            if left == 0 {
                self.flush().await?;
                return Ok(Ended::Reached);
            }
            if self.start == self.end {
                if !content.is_chunked() {
                    self.flush().await?;
                }
                if !self.read().await? {
                    return Ok(Ended::Closed);
                }
            }
            let piece = usize::try_from(left).unwrap_or(usize::MAX).min(self.end - self.start);
            let (used, done) = content.push(&self.input[self.start..self.start + piece]);
            self.start += used;
            left -= used as u64;
            if done {
                return Ok(Ended::Whole);
            }
        }
    }

    /// Puts a reply behind those that are due; its lines are separated by `\n`.
    pub(super) fn reply(&mut self, text: &str) {
        for line in text.split('\n') {
            self.output.extend_from_slice(line.as_bytes());
            self.output.extend_from_slice(b"\r\n");
        }
    }

    /// Puts octets behind the replies that are due.
    pub(super) fn raw(&mut self, octets: &[u8]) {
        self.output.extend_from_slice(octets);
    }

    /// Sends what is due, in one write.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        if !self.delay.is_zero() {
            // The timer wakes up to 2 ms late; what it was late last time it is early this time, so that the average holds.
            let due = self.arrived + self.delay - self.late.min(self.delay);
            sleep_until(due).await;
            self.late = due.elapsed().min(TIMER_GRAIN);
        }
        self.stream.write_all(&self.output).await?;
        self.output.clear();
        self.stream.flush().await
    }

    /// Sends what is due and ends the connection in order.
    pub(super) async fn close(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.stream.shutdown().await
    }

    /// Sends what is due, then only listens, until the client closes the connection.
    pub(super) async fn fall_silent(&mut self) -> io::Result<()> {
        loop {
            self.start = self.end;
            if !self.fill().await? {
                return Ok(());
            }
        }
    }

    /// Waits until the client has sent anything.
    pub(super) async fn hear(&mut self) -> io::Result<()> {
        self.fill().await.map(drop)
    }

    async fn fill(&mut self) -> io::Result<bool> {
        self.flush().await?;
        self.read().await
    }

    async fn read(&mut self) -> io::Result<bool> {
        if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let count = self.stream.read(&mut self.input[self.end..]).await?;
        self.end += count;
        self.arrived = Instant::now();
        Ok(count > 0)
    }
}
