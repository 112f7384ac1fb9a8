//! The load generator: plain SMTP in lockstep, as cheap as it can be, because it shares the processors with what it measures.
//!
//! Everything that is said is built once; a session reuses one buffer. A message counts as accepted when its 250 has been read.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// What is to be sent, and how much of it is still to come.
pub struct Load {
    address: SocketAddr,
    messages: usize,
    per_session: usize,
    begun: AtomicUsize,
    recipients: Vec<Vec<u8>>,
    content: Vec<u8>,
}

/// What came of it.
pub struct Sent {
    /// From the first connection to the last 250.
    pub accepted_in: Duration,
    pub first_accepted: Instant,
    /// From the final dot's write to its reply; sorted.
    pub waits: Vec<Duration>,
}

impl Load {
    pub fn new(address: SocketAddr, messages: usize, size: usize, recipients: usize, per_session: usize) -> Self {
        let recipients = (0..recipients).map(|n| format!("RCPT TO:<user{n:03}@contoso.com>\r\n").into_bytes()).collect();
        Self { address, messages, per_session, begun: AtomicUsize::new(0), recipients, content: content(size) }
    }

    /// Sends all messages over so many sessions at a time.
    ///
    /// # Errors
    /// If a connection breaks or anything is refused.
    pub async fn run(self: Arc<Self>, sessions: usize) -> io::Result<Sent> {
        let start = Instant::now();
        let sessions: Vec<_> = (0..sessions).map(|_| tokio::spawn(self.clone().send())).collect();
        let (mut waits, mut first, mut last) = (Vec::with_capacity(self.messages), None, start);
        for session in sessions {
            for (done, wait) in session.await.map_err(io::Error::other)?? {
                first = Some(first.map_or(done, |first: Instant| first.min(done)));
                last = last.max(done);
                waits.push(wait);
            }
        }
        waits.sort_unstable();
        Ok(Sent { accepted_in: last - start, first_accepted: first.unwrap_or(start), waits })
    }

    /// One session after the other, until no message is left. Returns when each was accepted, and how long that took.
    async fn send(self: Arc<Self>) -> io::Result<Vec<(Instant, Duration)>> {
        let mut accepted = Vec::with_capacity(self.messages / 4);
        let mut replies = vec![0; 2_048];
        while self.turn() {
            let mut session = Session { stream: TcpStream::connect(self.address).await?, replies: &mut replies };
            session.stream.set_nodelay(true)?;
            session.reply(b'2').await?;
            session.say(b"EHLO load.contoso.com\r\n", b'2').await?;
            for number in 1.. {
                accepted.push(session.message(&self).await?);
                if number >= self.per_session || !self.turn() {
                    break;
                }
            }
            session.say(b"QUIT\r\n", b'2').await?;
        }
        Ok(accepted)
    }

    /// Whether there is another message to be sent.
    fn turn(&self) -> bool {
        self.begun.fetch_add(1, Ordering::Relaxed) < self.messages
    }
}

struct Session<'a> {
    stream: TcpStream,
    replies: &'a mut [u8],
}

impl Session<'_> {
    async fn message(&mut self, load: &Load) -> io::Result<(Instant, Duration)> {
        self.say(b"MAIL FROM:<printer@contoso.com>\r\n", b'2').await?;
        for recipient in &load.recipients {
            self.say(recipient, b'2').await?;
        }
        self.say(b"DATA\r\n", b'3').await?;
        self.stream.write_all(&load.content).await?;
        let sent = Instant::now();
        self.reply(b'2').await?;
        let done = Instant::now();
        Ok((done, done - sent))
    }

    async fn say(&mut self, line: &[u8], expected: u8) -> io::Result<()> {
        self.stream.write_all(line).await?;
        self.reply(expected).await
    }

    async fn reply(&mut self, expected: u8) -> io::Result<()> {
        let mut length = 0;
        loop {
            match self.stream.read(&mut self.replies[length..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                more => length += more,
            }
            let reply = &self.replies[..length];
            let Some(lines) = reply.strip_suffix(b"\r\n") else { continue };
            let last = lines.iter().rposition(|octet| *octet == b'\n').map_or(0, |end| end + 1);
            // RFC 5321 §4.2.1: a hyphen behind the code says that more lines follow.
            if lines.get(last + 3) == Some(&b'-') {
                continue;
            }
            if lines.first() != Some(&expected) {
                return Err(io::Error::other(String::from_utf8_lossy(lines).into_owned()));
            }
            return Ok(());
        }
    }
}

/// A message of that many octets with the header that a device writes, and its final dot.
fn content(size: usize) -> Vec<u8> {
    let mut content = b"From: \"Printer 3, 2nd floor\" <printer@contoso.com>\r\nTo: <user000@contoso.com>\r\n\
        Subject: Scanned document\r\nDate: Sat, 21 Nov 2026 10:00:00 +0100\r\nMessage-ID: <20261121.100000.1@printer.contoso.com>\r\n\
        MIME-Version: 1.0\r\nContent-Type: application/pdf; name=\"scan.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        .to_vec();
    const LINE: &[u8] = b"JVBERi0xLjcKJeLjz9MKMSAwIG9iago8PC9UeXBlL0NhdGFsb2cvUGFnZXMgMiAwIFI+PgplbmRv\r\n";
    while content.len() + LINE.len() <= size {
        content.extend_from_slice(LINE);
    }
    content.extend_from_slice(b".\r\n");
    content
}
