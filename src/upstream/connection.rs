//! A connection on which mail transactions can be made: greeted, encrypted, verified, authenticated, as its route has it.
//!
//! [`super::opening`] makes the stream; from there lettre is the command and response engine. Each exchange ends in the reply as the wire's
//! tap has it, or in trouble, and runs under a time limit. lettre's futures do not survive being dropped halfway, so a connection on which
//! anything timed out is not usable any more.

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lettre::transport::smtp::Error;
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::commands::{Quit, Rset};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::response::Response;
use tokio::io::AsyncWriteExt;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use crate::reply::{Cause, Step, Trouble};
use crate::smtp::Reply;

use super::auth;
use super::framing::Frame;
use super::laps::Laps;
use super::opening;
use super::wire::Wire;
use super::{Credential, Endpoint, Login, Offers, Protection, Timeouts, TlsFacts};

/// How long a good-bye may take: nothing depends on it.
const QUIT_LIMIT: Duration = Duration::from_secs(2);

/// A connection to an upstream server.
pub struct Connection {
    lettre: AsyncSmtpConnection,
    pub(super) wire: Wire,
    pub(super) offers: Offers,
    pub(super) timeouts: Timeouts,
    peer: SocketAddr,
    protection: Protection,
    greeting: Reply,
    pub(super) usable: bool,
    /// A transaction was left open, so that the next MAIL needs an RSET before it.
    pub(super) needs_reset: bool,
    /// The end of the present transaction's content was handed to the socket, whole.
    pub(super) handed_over: bool,
    /// In the last transaction, a part of the content was not sent as it came.
    pub(super) converted: bool,
    /// What each step took since that was asked last.
    pub(super) laps: Laps,
    pub(super) transactions: u32,
    /// Once it has carried a transaction, the content waits for the replies to the envelope.
    pub(super) asks_first: bool,
    opened_at: Instant,
    pub(super) idle_since: Instant,
    /// When the token that it was opened with is too near its end.
    pub(super) expires_at: Option<Instant>,
}

impl Connection {
    /// Opens a connection, up to and including AUTH if there is a login. If the server finds a token stale, it is opened once more with a fresh
    /// one. With a login goes what [`Turns::heard`](super::Turns::heard) said when it was decided to try it.
    ///
    /// # Errors
    /// The step at which it stopped, [`Step::Token`] to [`Step::Auth`], and why.
    pub async fn open(endpoint: &Endpoint, login: Option<(&Login, u64)>) -> Result<Self, Trouble> {
        let Some((login, heard)) = login else { return Self::greeted(endpoint).await };
        if !endpoint.security.is_verified() {
            let text = "a login is only sent to a server whose certificate was verified";
            return Err(Trouble { step: Step::Auth, cause: Cause::Local(text.to_owned()) });
        }
        match &login.credential {
            Credential::Password(password) => {
                let mut connection = Self::greeted(endpoint).await?;
                login.turns.log_in(heard, connection.authenticate(&login.user, password)).await?;
                Ok(connection)
            }
            Credential::Token(source) => auth::open(endpoint, login, source, heard).await,
        }
    }

    /// Opens a connection up to what comes before AUTH.
    pub(super) async fn greeted(endpoint: &Endpoint) -> Result<Self, Trouble> {
        let opened = opening::open(endpoint).await?;
        let wire = Wire::new(opened.stream, opened.peer);
        // lettre greets the muted wire: no octet moves, so that this neither waits nor fails.
        let hello = ClientId::Domain(endpoint.helo.clone());
        let lettre = AsyncSmtpConnection::connect_with_transport(Box::new(wire.clone()), &hello)
            .await
            .map_err(|error| Trouble { step: Step::Ehlo, cause: Cause::Local(error.to_string()) })?;
        wire.unmute();
        let now = Instant::now();
        Ok(Self {
            lettre,
            wire,
            offers: opened.offers,
            timeouts: endpoint.timeouts,
            peer: opened.peer,
            protection: opened.protection,
            greeting: opened.greeting,
            laps: opened.laps,
            usable: true,
            needs_reset: false,
            handed_over: false,
            converted: false,
            transactions: 0,
            asks_first: false,
            opened_at: now,
            idle_since: now,
            expires_at: None,
        })
    }

    /// How it is protected.
    pub fn protection(&self) -> Protection {
        self.protection
    }

    /// What came of the TLS handshake, if there was one.
    pub fn tls(&self) -> Option<TlsFacts> {
        self.wire.tls()
    }

    /// The server's 220.
    pub fn greeting(&self) -> &Reply {
        &self.greeting
    }

    /// What the server offered, inside TLS if there is TLS, before AUTH.
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

    /// When it must be closed because of the token that it was opened with, if there is one.
    pub fn expires_at(&self) -> Option<Instant> {
        self.expires_at
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
                    self.laps.lap(step);
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
