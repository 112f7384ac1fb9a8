//! A device that speaks TLS, and certificates for the relay.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::client::{Client, stuffed};
use super::relay::PATIENCE;

/// A certificate that signs itself.
pub struct Shown {
    pub certificate: CertificateDer<'static>,
    pub pem: String,
    pub key_pem: String,
}

impl Shown {
    pub fn make(name: &str) -> Self {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
        Self { certificate: made.cert.der().clone(), pem: made.cert.pem(), key_pem: made.signing_key.serialize_pem() }
    }

    /// Puts it where a relay looks for it: `relay.pem` and `relay.key`, each file in one step.
    pub fn install(&self, folder: &Path) {
        put(&folder.join("relay.key"), &self.key_pem);
        put(&folder.join("relay.pem"), &self.pem);
    }
}

/// Puts a file into the place of another.
pub fn put(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("written");
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).expect("mode set");
    std::fs::rename(&new, path).expect("renamed");
}

/// A session under TLS.
pub struct Secure {
    reader: BufReader<StreamOwned<ClientConnection, TcpStream>>,
}

impl Secure {
    /// TLS from the first octet on, trusting `shown` alone; takes the greeting.
    pub fn connect(address: SocketAddr, name: &str, shown: &Shown) -> Self {
        let mut secure = Self::handshake(TcpStream::connect(address).expect("the relay listens"), name, shown);
        let greeting = secure.reply();
        assert!(greeting.starts_with("220 "), "{greeting}");
        secure
    }

    /// The handshake on a connection.
    pub fn handshake(stream: TcpStream, name: &str, shown: &Shown) -> Self {
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        let mut roots = RootCertStore::empty();
        roots.add(shown.certificate.clone()).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
        let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let tls = ClientConnection::new(config, name).expect("a client");
        Self { reader: BufReader::new(StreamOwned::new(tls, stream)) }
    }

    /// EHLO and STARTTLS on a plain session, then the handshake.
    pub fn starttls(mut plain: Client, name: &str, shown: &Shown) -> Self {
        plain.expect("STARTTLS", "220 2.0.0");
        Self::handshake(plain.into_stream(), name, shown)
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

    /// Sends octets as they are.
    pub fn raw(&mut self, octets: &[u8]) {
        self.reader.get_mut().write_all(octets).expect("the relay reads");
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

    /// Sends a message that must be accepted; returns its queue id.
    pub fn accepted(&mut self, from: &str, to: &[&str], content: &[u8]) -> String {
        self.expect(&format!("MAIL FROM:<{from}>"), "250");
        for recipient in to {
            self.expect(&format!("RCPT TO:<{recipient}>"), "250");
        }
        self.expect("DATA", "354");
        self.raw(&stuffed(content));
        let reply = self.reply();
        assert!(reply.starts_with("250 2.0.0 "), "{reply}");
        reply.rsplit(' ').next().expect("an id").to_owned()
    }

    /// Whether the relay has closed the connection, in the order that TLS has for it.
    pub fn closed(&mut self) -> bool {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).is_ok() && rest.is_empty()
    }

    /// Whether a relay that begins with TLS shows this certificate.
    pub fn is_shown(address: SocketAddr, name: &str, shown: &Shown) -> bool {
        let mut secure = Self::handshake(TcpStream::connect(address).expect("the relay listens"), name, shown);
        let StreamOwned { conn, sock } = secure.reader.get_mut();
        while conn.is_handshaking() {
            if conn.complete_io(sock).is_err() {
                return false;
            }
        }
        true
    }
}
