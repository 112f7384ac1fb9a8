//! AUTH (RFC 4954): PLAIN or LOGIN with a password, XOAUTH2 with a token.
//!
//! Secrets are written around lettre, which would leave copies of them in memory.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use crate::reply::{Catalogue, Cause, Step, Trouble, is_stale_token};
use crate::secret::Secret;
use crate::smtp::Reply;

use super::oauth::{Token, TokenSource};
use super::opening::{expect, expect_positive};
use super::{Connection, Endpoint, Login};

/// Opens a connection with a token; if the server finds it stale, once more with a fresh one, in the same turn. `heard` as for
/// [`Connection::open`].
pub(super) async fn open(endpoint: &Endpoint, login: &Login, source: &TokenSource, heard: u64) -> Result<Connection, Trouble> {
    // Where there is none, no server need be troubled.
    token(source).await?;
    let connection = Connection::greeted(endpoint).await?;
    login.turns.log_in(heard, with_token(connection, endpoint, &login.user, source)).await
}

async fn with_token(mut connection: Connection, endpoint: &Endpoint, user: &str, source: &TokenSource) -> Result<Connection, Trouble> {
    // The one whose turn it was before may have found the former stale.
    let mut token = token(source).await?;
    let mut result = connection.xoauth2(user, token.secret()).await;
    if is_stale(&result) {
        source.stale(&token);
        token = self::token(source).await?;
        connection = Connection::greeted(endpoint).await?;
        result = connection.xoauth2(user, token.secret()).await;
    }
    if matches!(result, Err(Trouble { step: Step::Auth, cause: Cause::Reply(_) })) {
        source.refused(&token);
    }
    result?;
    connection.expires_at = Some(token.spent_at());
    Ok(connection)
}

fn is_stale(result: &Result<(), Trouble>) -> bool {
    matches!(result, Err(Trouble { step: Step::Auth, cause: Cause::Reply(reply) }) if is_stale_token(Catalogue::builtin(), reply))
}

async fn token(source: &TokenSource) -> Result<Token, Trouble> {
    source.token().await.map_err(|fault| Trouble { step: Step::Token, cause: Cause::Token(fault) })
}

impl Connection {
    /// AUTH PLAIN (RFC 4616; one round trip) where it is offered, else LOGIN, which HVE has for certain.
    pub(super) async fn authenticate(&mut self, user: &str, password: &Secret) -> Result<(), Trouble> {
        let password = password.expose();
        let reply = if self.offers.offers_auth("PLAIN") {
            if user.contains('\0') || password.contains('\0') {
                return Err(stop(Cause::Local("a NUL cannot be part of a user name or password".to_owned())));
            }
            let message = Zeroizing::new(format!("\0{user}\0{password}"));
            self.secret("AUTH PLAIN ", &message).await?
        } else if self.offers.offers_auth("LOGIN") {
            let prompt = self.command(Step::Auth, "AUTH LOGIN\r\n", self.timeouts.command).await?;
            expect(Step::Auth, prompt, 334)?;
            let prompt = self.secret("", user).await?;
            expect(Step::Auth, prompt, 334)?;
            self.secret("", password).await?
        } else {
            return Err(self.not_offered("a login is configured", "neither PLAIN nor LOGIN"));
        };
        expect_positive(Step::Auth, reply).map(drop)
    }

    /// AUTH XOAUTH2. A refusal may come in two steps: 334 with a description in base 64, which the client must answer with an empty line, and
    /// then the reply that counts.
    async fn xoauth2(&mut self, user: &str, token: &Secret) -> Result<(), Trouble> {
        if !self.offers.offers_auth("XOAUTH2") {
            return Err(self.not_offered("a login with a token is configured", "not XOAUTH2"));
        }
        if user.contains('\u{1}') {
            return Err(stop(Cause::Local("a control character cannot be part of a user name".to_owned())));
        }
        let message = Zeroizing::new(format!("user={user}\u{1}auth=Bearer {}\u{1}\u{1}", token.expose()));
        let mut reply = self.secret("AUTH XOAUTH2 ", &message).await?;
        if reply.code == 334 {
            reply = self.command(Step::Auth, "\r\n", self.timeouts.command).await?;
        }
        expect_positive(Step::Auth, reply).map(drop)
    }

    fn not_offered(&self, what: &str, lacking: &str) -> Trouble {
        let offered = if self.offers.auth.is_empty() { "nothing".to_owned() } else { self.offers.auth.join(" ") };
        stop(Cause::Protocol(format!("{what}, but AUTH offers {offered}, {lacking}")))
    }

    /// Sends a line with a secret in it.
    async fn secret(&mut self, verb: &str, secret: &str) -> Result<Reply, Trouble> {
        let encoded = Zeroizing::new(BASE64.encode(secret));
        let line = Zeroizing::new(format!("{verb}{}\r\n", *encoded));
        self.write(Step::Auth, line.as_bytes(), self.timeouts.command).await?;
        self.reply(Step::Auth, self.timeouts.command).await
    }
}

fn stop(cause: Cause) -> Trouble {
    Trouble { step: Step::Auth, cause }
}
