//! A device: a plain SMTP client over TCP that shows every reply.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// A connection to the relay.
pub struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    /// Connects and takes the greeting.
    pub fn connect(address: SocketAddr) -> Self {
        let (client, greeting) = Self::greeted(address);
        assert!(greeting.starts_with("220 "), "{greeting}");
        client
    }

    /// Connects and returns whatever the relay says first.
    pub fn greeted(address: SocketAddr) -> (Self, String) {
        let mut client = Self::over(TcpStream::connect(address).expect("the relay listens"));
        let greeting = client.reply();
        (client, greeting)
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("an option");
        Self { reader: BufReader::new(stream) }
    }

    /// Connects and says EHLO.
    pub fn hello(address: SocketAddr) -> Self {
        let mut client = Self::connect(address);
        client.expect("EHLO scanner.contoso.com", "250");
        client
    }

    /// A connection from another local address.
    pub fn from(local: &str, address: SocketAddr) -> TcpStream {
        let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).expect("a socket");
        rustix::net::bind(&socket, &SocketAddr::new(local.parse().expect("an address"), 0)).expect("a local address");
        rustix::net::connect(&socket, &address).expect("the relay listens");
        TcpStream::from(socket)
    }

    /// Connects from another local address and says EHLO.
    pub fn hello_from(local: &str, address: SocketAddr) -> Self {
        let mut client = Self::over(Self::from(local, address));
        let greeting = client.reply();
        assert!(greeting.starts_with("220 "), "{greeting}");
        client.expect("EHLO scanner.contoso.com", "250");
        client
    }

    /// A session over a connection that was made otherwise; takes no greeting.
    pub fn on(stream: TcpStream) -> Self {
        Self::over(stream)
    }

    /// The connection, of which nothing must have been read ahead.
    pub fn into_stream(self) -> TcpStream {
        assert!(self.reader.buffer().is_empty(), "the relay has said more");
        self.reader.into_inner()
    }

    /// Sends octets as they are.
    pub fn raw(&mut self, octets: &[u8]) {
        self.reader.get_mut().write_all(octets).expect("the relay reads");
    }

    /// Sends a line and returns the reply.
    pub fn command(&mut self, line: &str) -> String {
        self.raw(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    /// Sends a line; the reply must begin so.
    pub fn expect(&mut self, line: &str, reply: &str) -> String {
        let got = self.command(line);
        assert!(got.starts_with(reply), "{line:?} was answered {got:?}, not {reply:?}");
        got
    }

    /// The next reply, its lines joined by `\n`; empty at the end of the connection.
    pub fn reply(&mut self) -> String {
        let mut text = String::new();
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).expect("a reply in time") == 0 {
                return text;
            }
            let line = line.trim_end_matches("\r\n");
            text.push_str(line);
            if line.as_bytes().get(3) != Some(&b'-') {
                return text;
            }
            text.push('\n');
        }
    }

    /// One mail transaction; `content` is dot-stuffed here and must end in CRLF unless it is empty. Returns the reply to the final dot.
    pub fn send(&mut self, from: &str, to: &[&str], content: &[u8]) -> String {
        self.expect(&format!("MAIL FROM:<{from}>"), "250");
        for recipient in to {
            self.expect(&format!("RCPT TO:<{recipient}>"), "250");
        }
        self.expect("DATA", "354");
        self.raw(&stuffed(content));
        self.reply()
    }

    /// One mail transaction on a connection that may break at any moment: `None` if it did.
    pub fn try_send(&mut self, from: &str, to: &[&str], content: &[u8]) -> Option<String> {
        let mut ask = |octets: &[u8]| {
            self.reader.get_mut().write_all(octets).ok()?;
            let mut line = String::new();
            self.reader.read_line(&mut line).ok().filter(|read| *read > 0).map(|_| line.trim_end().to_owned())
        };
        ask(format!("MAIL FROM:<{from}>\r\n").as_bytes())?;
        for recipient in to {
            ask(format!("RCPT TO:<{recipient}>\r\n").as_bytes())?;
        }
        ask(b"DATA\r\n")?;
        ask(&stuffed(content))
    }

    /// Sends a message that must be accepted; returns its queue id.
    pub fn accepted(&mut self, from: &str, to: &[&str], content: &[u8]) -> String {
        let reply = self.send(from, to, content);
        assert!(reply.starts_with("250 2.0.0 "), "{reply}");
        reply.rsplit(' ').next().expect("an id").to_owned()
    }

    /// Will send nothing more.
    pub fn hang_up(&mut self) {
        self.reader.get_mut().shutdown(Shutdown::Write).expect("still connected");
    }

    /// Whether the relay has closed the connection: reads until it has.
    pub fn closed(&mut self) -> bool {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).is_ok() && rest.is_empty()
    }
}

/// Dot-stuffed, with the end of data.
pub fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 64);
    for line in content.split_inclusive(|octet| *octet == b'\n') {
        if line.first() == Some(&b'.') {
            out.push(b'.');
        }
        out.extend_from_slice(line);
    }
    out.extend_from_slice(b".\r\n");
    out
}
