//! A connection on which mail transactions can be made: greeted, encrypted, verified, authenticated.
//!
//! [`super::opening`] makes the TLS stream; from there lettre is the command and response engine. Each exchange ends in the reply as the wire's
//! tap has it, or in trouble, and runs under a time limit. lettre's futures do not survive being dropped halfway, so a connection on which
//! anything timed out is not usable any more.

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use lettre::transport::smtp::Error;
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Quit, Rset};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::Response;
use tokio::io::AsyncWriteExt;
use tokio::time::error::Elapsed;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::reply::{Cause, Step, Trouble};
use crate::smtp::Reply;

use super::framing::Frame;
use super::opening::{self, expect, expect_positive};
use super::wire::Wire;
use super::{Endpoint, Login, Offers, Timeouts};

/// How long a good-bye may take: nothing depends on it.
const QUIT_LIMIT: Duration = Duration::from_secs(2);

/// A connection to an upstream server.
pub struct Connection {
    lettre: AsyncSmtpConnection,
    pub(super) wire: Wire,
    pub(super) offers: Offers,
    pub(super) timeouts: Timeouts,
    peer: SocketAddr,
    pub(super) usable: bool,
    /// A transaction was left open, so that the next MAIL needs an RSET before it.
    pub(super) needs_reset: bool,
    /// The end of the present transaction's content was handed to the socket, whole.
    pub(super) handed_over: bool,
    pub(super) transactions: u32,
    opened_at: Instant,
    pub(super) idle_since: Instant,
}

impl Connection {
    /// Opens a connection, up to and including AUTH if there is a login.
    ///
    /// # Errors
    /// The step at which it stopped, [`Step::Connect`] to [`Step::Auth`], and why.
    pub async fn open(endpoint: &Endpoint, login: Option<&Login>) -> Result<Self, Trouble> {
        let opened = opening::open(endpoint).await?;
        let wire = Wire::new(opened.stream, opened.peer);
        // lettre greets the muted wire: no octet moves, so that this neither waits nor fails.
        let hello = ClientId::Domain(endpoint.helo.clone());
        let lettre = AsyncSmtpConnection::connect_with_transport(Box::new(wire.clone()), &hello)
            .await
            .map_err(|error| Trouble { step: Step::Ehlo, cause: Cause::Local(error.to_string()) })?;
        wire.unmute();
        let now = Instant::now();
        let mut connection = Self {
            lettre,
            wire,
            offers: opened.offers,
            timeouts: endpoint.timeouts,
            peer: opened.peer,
            usable: true,
            needs_reset: false,
            handed_over: false,
            transactions: 0,
            opened_at: now,
            idle_since: now,
        };
        if let Some(login) = login {
            connection.authenticate(login).await?;
        }
        Ok(connection)
    }

    /// What the server offered inside TLS, before AUTH.
    pub fn offers(&self) -> &Offers {
        &self.offers
    }

    /// The address that it leads to.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether another transaction may be tried on it.
    pub fn usable(&self) -> bool {
        self.usable
    }

    /// Whether it has carried a transaction before: then its end says nothing about the server.
    pub fn is_reused(&self) -> bool {
        self.transactions > 0
    }

    /// How many transactions it has carried.
    pub fn transactions(&self) -> u32 {
        self.transactions
    }

    /// How long it has been open.
    pub fn age(&self) -> Duration {
        self.opened_at.elapsed()
    }

    /// When its last transaction ended.
    pub fn idle_since(&self) -> Instant {
        self.idle_since
    }

    /// Whether it is usable and the server has neither closed it nor said anything unasked, such as 421, in the meantime.
    pub fn is_alive(&self) -> bool {
        self.usable && self.wire.is_quiet()
    }

    /// Says good-bye, as far as that is possible within two seconds.
    pub async fn quit(mut self) {
        if self.usable {
            let farewell = async {
                let _ = self.lettre.command(Quit).await;
                let _ = self.wire.shutdown().await;
            };
            let _ = timeout(QUIT_LIMIT, farewell).await;
        }
    }

    /// AUTH PLAIN (RFC 4616; one round trip) where it is offered, else LOGIN, which HVE has for certain.
    async fn authenticate(&mut self, login: &Login) -> Result<(), Trouble> {
        let stop = |cause| Trouble { step: Step::Auth, cause };
        let password = login.password.expose();
        let reply = if self.offers.offers_auth("PLAIN") {
            if login.user.contains('\0') || password.contains('\0') {
                return Err(stop(Cause::Local("a NUL cannot be part of a user name or password".to_owned())));
            }
            let message = Zeroizing::new(format!("\0{}\0{password}", login.user));
            self.secret("AUTH PLAIN ", &message).await?
        } else if self.offers.offers_auth("LOGIN") {
            let prompt = self.command(Step::Auth, "AUTH LOGIN\r\n", self.timeouts.command).await?;
            expect(Step::Auth, prompt, 334)?;
            let prompt = self.secret("", &login.user).await?;
            expect(Step::Auth, prompt, 334)?;
            self.secret("", password).await?
        } else {
            let offered = if self.offers.auth.is_empty() { "nothing".to_owned() } else { self.offers.auth.join(" ") };
            return Err(stop(Cause::Protocol(format!("a login is configured, but AUTH offers {offered}, neither PLAIN nor LOGIN"))));
        };
        expect_positive(Step::Auth, reply).map(drop)
    }

    /// Sends a line with a secret in it, around lettre, which would leave copies of it in memory.
    async fn secret(&mut self, verb: &str, secret: &str) -> Result<Reply, Trouble> {
        let encoded = Zeroizing::new(BASE64.encode(secret));
        let line = Zeroizing::new(format!("{verb}{}\r\n", *encoded));
        self.write(Step::Auth, line.as_bytes(), self.timeouts.command).await?;
        self.reply(Step::Auth, self.timeouts.command).await
    }

    /// Ends a transaction that was left open.
    pub(super) async fn reset(&mut self) -> Result<(), Trouble> {
        let reply = self.command(Step::Mail, Rset, self.timeouts.command).await?;
        self.was_reset(reply)
    }

    /// Takes the reply to RSET. A server that refuses it (RFC 5321 §4.1.1.5 does not let it) is in a state that we do not know.
    pub(super) fn was_reset(&mut self, reply: Reply) -> Result<(), Trouble> {
        if reply.is_positive() {
            self.needs_reset = false;
            return Ok(());
        }
        let cause = if reply.code == 421 { Cause::Reply(reply) } else { Cause::Protocol(format!("RSET was refused: {reply}")) };
        Err(Trouble { step: Step::Mail, cause })
    }

    /// Sends commands in one write, and takes the reply to the first of them.
    pub(super) async fn command(&mut self, step: Step, commands: impl Display, limit: Duration) -> Result<Reply, Trouble> {
        let answer = timeout(limit, self.lettre.command(commands)).await;
        self.take(step, limit, answer)
    }

    /// Takes the next reply.
    pub(super) async fn reply(&mut self, step: Step, limit: Duration) -> Result<Reply, Trouble> {
        let answer = timeout(limit, self.lettre.read_response()).await;
        self.take(step, limit, answer)
    }

    /// Writes around lettre, and waits until all of it was handed to the socket.
    pub(super) async fn write(&mut self, step: Step, octets: &[u8], limit: Duration) -> Result<(), Trouble> {
        let write = async {
            self.wire.write_all(octets).await?;
            self.wire.flush().await
        };
        let cause = match timeout(limit, write).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => Cause::Lost(super::wire::describe(&error)),
            Err(_) => Cause::TimedOut(limit),
        };
        self.usable = false;
        Err(Trouble { step, cause })
    }

    /// lettre says when a reply is there; the reply itself comes from the tap, whole.
    fn take(&mut self, step: Step, limit: Duration, answer: Result<Result<Response, Error>, Elapsed>) -> Result<Reply, Trouble> {
        let cause = match answer {
            Err(_) => Cause::TimedOut(limit),
            Ok(Err(error)) if error.status().is_none() => match (self.wire.ended(), self.wire.take_reply()) {
                (_, Frame::Malformed(what)) => Cause::Protocol(what),
                (Some(how), _) => Cause::Lost(how),
                (None, Frame::Whole(reply, _)) => Cause::Protocol(format!("the server's reply is not well-formed: {reply}")),
                (None, Frame::Partial) => Cause::Protocol(format!("the server's reply is not well-formed ({error})")),
            },
            Ok(_) => match self.wire.take_reply() {
                Frame::Whole(reply, _) => {
                    // RFC 5321 §3.8: after 421 the server closes.
                    self.usable &= reply.code != 421;
                    return Ok(reply);
                }
                Frame::Malformed(what) => Cause::Protocol(what),
                Frame::Partial => Cause::Protocol("the server's reply is not well-formed".to_owned()),
            },
        };
        self.usable = false;
        Err(Trouble { step, cause })
    }
}
