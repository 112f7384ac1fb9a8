//! A raw client: it sends exactly the octets that it is given and returns exactly what came back.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::{Account, Settings, Sim};

pub const USER: &str = "hve01@contoso.com";
pub const PASSWORD: &str = "correct horse";
pub const LIMIT: Duration = Duration::from_secs(20);

pub fn settings() -> Settings {
    Settings { accounts: vec![Account::new(USER, PASSWORD), Account::new("hve02@contoso.com", "battery")], ..Settings::default() }
}

pub async fn sim(settings: Settings) -> Sim {
    Sim::start(settings).await.expect("an endpoint")
}

pub struct Client<S> {
    stream: BufReader<S>,
}

impl Client<TcpStream> {
    pub async fn connect(sim: &Sim) -> Self {
        let stream = TcpStream::connect(sim.address()).await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        Self { stream: BufReader::new(stream) }
    }

    /// Everything before the handshake.
    pub async fn until_starttls(sim: &Sim) -> Self {
        let mut client = Self::connect(sim).await;
        assert!(client.reply().await.starts_with("220 "));
        assert!(client.command("EHLO relay.contoso.com").await.ends_with("250 STARTTLS"));
        assert_eq!(client.command("STARTTLS").await, "220 2.0.0 SMTP server ready");
        client
    }

    pub async fn handshake(self, ca_pem: &str, name: &'static str) -> io::Result<Client<TlsStream<TcpStream>>> {
        self.handshake_with(ca_pem, name, rustls::ALL_VERSIONS).await
    }

    pub async fn handshake_with(
        self,
        ca_pem: &str,
        name: &'static str,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> io::Result<Client<TlsStream<TcpStream>>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).expect("a certificate")).expect("a root");
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name).expect("a name");
        assert!(self.stream.buffer().is_empty(), "plain text behind the 220");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, self.stream.into_inner()).await?;
        Ok(Client { stream: BufReader::new(stream) })
    }
}

impl Client<TlsStream<TcpStream>> {
    /// Everything before AUTH.
    pub async fn encrypted(sim: &Sim) -> Self {
        let client = Client::until_starttls(sim).await.handshake(sim.ca_pem(), "localhost").await;
        let mut client = client.expect("a handshake");
        client.command("EHLO relay.contoso.com").await;
        client
    }

    /// Everything before MAIL.
    pub async fn ready(sim: &Sim) -> Self {
        let mut client = Self::encrypted(sim).await;
        assert_eq!(client.login(USER, PASSWORD).await, "235 2.7.0 Authentication successful");
        client
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub async fn send(&mut self, octets: impl AsRef<[u8]>) {
        // A connection that the other end has dropped is noticed when reading.
        let _ = self.stream.write_all(octets.as_ref()).await;
        let _ = self.stream.flush().await;
    }

    /// One reply, its lines joined by `\n`; empty if the connection ended.
    pub async fn reply(&mut self) -> String {
        let read = async {
            let mut text = String::new();
            loop {
                let mut line = String::new();
                if self.stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                    return text;
                }
                let line = line.strip_suffix("\r\n").expect("CRLF");
                text += line;
                if line.as_bytes().get(3) != Some(&b'-') {
                    return text;
                }
                text.push('\n');
            }
        };
        tokio::time::timeout(LIMIT, read).await.expect("a reply in time")
    }

    pub async fn command(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n")).await;
        self.reply().await
    }

    pub async fn login(&mut self, user: &str, password: &str) -> String {
        use base64::Engine;
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        assert_eq!(self.command("AUTH LOGIN").await, "334 VXNlcm5hbWU6");
        assert_eq!(self.command(&encode(user)).await, "334 UGFzc3dvcmQ6");
        self.command(&encode(password)).await
    }

    /// MAIL, RCPT and DATA up to the 354.
    pub async fn until_content(&mut self, recipients: &[&str]) {
        assert_eq!(self.command(&format!("MAIL FROM:<{USER}>")).await, "250 2.1.0 Sender OK");
        for recipient in recipients {
            assert_eq!(self.command(&format!("RCPT TO:<{recipient}>")).await, "250 2.1.5 Recipient OK");
        }
        assert_eq!(self.command("DATA").await, "354 Start mail input; end with <CRLF>.<CRLF>");
    }

    /// A whole transaction; the content is sent as it is, with the final dot behind it.
    pub async fn transaction(&mut self, recipients: &[&str], content: impl AsRef<[u8]>) -> String {
        self.until_content(recipients).await;
        self.send([content.as_ref(), b".\r\n"].concat()).await;
        self.reply().await
    }

    /// Whatever comes until the connection ends.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut octets = Vec::new();
        // An end without a goodbye is an end too.
        let _ = tokio::time::timeout(LIMIT, self.stream.read_to_end(&mut octets)).await.expect("the end in time");
        octets
    }
}

pub fn mail(body: &str) -> String {
    format!("From: Scanner <{USER}>\r\nMessage-ID: <1@contoso.com>\r\nSubject: scan\r\n\r\n{body}")
}
