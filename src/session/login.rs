//! AUTH (RFC 4954): who may log in when, the exchange, and what comes of it.
//!
//! Nothing that a client says in an exchange gets into a reply, an effect for the log, or the record of what was refused; the one place that
//! it goes to is [`Effect::LogIn`]. A refused login is answered only after the time that the answer says, and until then the session reads
//! nothing.

use super::{Auth, Effect, Phase, Session, replies};
use crate::clock::Timestamp;
use crate::intake::Habit;
use crate::mail::ClientName;
use crate::session::LoginRefusal;
use crate::smtp::{Exchange, Line, Mechanism, Reply, SaslError, Step};

impl Session {
    /// The command AUTH.
    pub(super) fn auth(&mut self, mechanism: &[u8], initial: Option<&[u8]>) {
        // Whatever comes of it, a client that is not answered as it expects may go on with its password.
        self.secrets_may_follow = true;
        if self.settings.entrance.auth == Auth::None {
            self.note(Habit::AuthNotOffered);
        }
        match self.may_log_in(mechanism) {
            Err(reply) => self.refuse(reply, "AUTH"),
            Ok(mechanism) => {
                let exchange = Exchange::new(mechanism);
                match initial {
                    Some(response) => self.respond(exchange, response),
                    None => self.challenge(exchange),
                }
            }
        }
    }

    /// Whether a login is offered now: not without TLS, except to clients of which the configuration says so.
    pub(super) fn offers_auth(&self) -> bool {
        let is_protected = self.is_secured || self.client.as_ref().is_some_and(|client| client.allow_plaintext_auth);
        self.settings.entrance.auth != Auth::None && self.user.is_none() && is_protected
    }

    fn may_log_in(&self, mechanism: &[u8]) -> Result<Mechanism, Reply> {
        if self.settings.entrance.auth == Auth::None {
            return Err(replies::auth_not_offered());
        }
        if self.user.is_some() {
            return Err(replies::logged_in_already());
        }
        if !self.offers_auth() {
            return Err(replies::auth_needs_tls(self.settings.entrance.has_starttls()));
        }
        if self.hello.is_none() {
            return Err(replies::hello_first());
        }
        if self.transaction.is_some() {
            return Err(replies::auth_within_a_message());
        }
        Mechanism::named(mechanism).ok_or_else(replies::unknown_mechanism)
    }

    /// A line within an exchange.
    pub(super) fn response(&mut self, line: Line<'_>) {
        let Phase::Responding(exchange) = std::mem::replace(&mut self.phase, Phase::Command) else { return };
        match line {
            Line::BareLf(_) if self.refuses_bare_line_ends() => self.refuse(replies::bare_lf_in_command(), "AUTH"),
            Line::Whole(line) | Line::BareLf(line) => self.respond(exchange, line.trim_ascii()),
            Line::TooLong => self.refuse(replies::response_too_long(), "AUTH"),
        }
    }

    fn respond(&mut self, exchange: Exchange, response: &[u8]) {
        match exchange.answer(response) {
            Ok(Step::Next(exchange)) => self.challenge(exchange),
            Ok(Step::Complete(credentials)) => {
                self.phase = Phase::LoggingIn(credentials.user.clone());
                self.effects.push_back(Effect::LogIn(credentials));
            }
            Err(SaslError::Cancelled) => self.refuse(replies::login_cancelled(), "AUTH"),
            Err(SaslError::NotBase64 | SaslError::Malformed) => self.refuse(replies::not_a_response(), "AUTH"),
        }
    }

    fn challenge(&mut self, exchange: Exchange) {
        self.say(&format!("334 {}", exchange.challenge()));
        self.phase = Phase::Responding(exchange);
    }

    /// The answer to `LogIn`.
    pub(super) fn logged_in(&mut self, now: Timestamp, answer: Result<ClientName, LoginRefusal>) {
        debug_assert!(matches!(self.phase, Phase::LoggingIn(_)), "answers follow questions");
        let Phase::LoggingIn(user) = std::mem::replace(&mut self.phase, Phase::Command) else { return };
        self.waiting_since = now;
        match answer.map(|name| (self.policy.client_named(&name).filter(|_| self.settings.entrance.serves(&name)).cloned(), name)) {
            Ok((Some(client), _)) => {
                self.say("235 2.7.0 Logged in");
                (self.client, self.user) = (Some(client), Some(user));
                self.login_deadline = None;
                self.secrets_may_follow = false;
            }
            Ok((None, name)) => self.refuse(replies::client_not_served_here(&name), "AUTH"),
            Err(LoginRefusal { reply, after }) => self.phase = Phase::Delaying(reply, now + after),
        }
    }

    /// The time to say that a login was refused.
    pub(super) fn refuse_login(&mut self, now: Timestamp) {
        let Phase::Delaying(reply, _) = std::mem::replace(&mut self.phase, Phase::Command) else { return };
        self.waiting_since = now;
        self.refuse(reply, "AUTH");
    }
}
