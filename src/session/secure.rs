//! STARTTLS (RFC 3207), and what must be before mail may come.

use super::{Auth, Ending, Phase, Session, Tls, replies};
use crate::clock::Timestamp;
use crate::smtp::{LineSplitter, Reply};

impl Session {
    /// The command STARTTLS.
    pub(super) fn start_tls(&mut self) {
        if !self.settings.entrance.has_starttls() {
            return self.refuse(replies::tls_not_offered(), "STARTTLS");
        }
        if self.is_secured {
            return self.refuse(replies::tls_is_on(), "STARTTLS");
        }
        self.say("220 2.0.0 Begin the TLS handshake");
        self.phase = Phase::StartingTls;
    }

    /// What a client sends behind STARTTLS without waiting for the reply came over the plain connection, and perhaps from somebody else
    /// (CVE-2011-0411): nothing of it is looked at, and such a session is not gone on with.
    pub(super) fn octets_before_tls(&mut self) {
        self.end(replies::octets_before_tls(), "octets behind STARTTLS, before the handshake", Ending::TurnedAway);
    }

    /// RFC 3207 §4.2: the session starts anew, except for what it has used up of its limits.
    pub(super) fn tls_established(&mut self, now: Timestamp) {
        debug_assert!(matches!(self.phase, Phase::Securing), "answers follow questions");
        let Phase::Securing = self.phase else { return };
        self.phase = Phase::Command;
        self.waiting_since = now;
        self.is_secured = true;
        (self.hello, self.transaction, self.user) = (None, None, None);
        self.client = self.client_by_address();
        self.lines = LineSplitter::new(self.settings.command_line);
        self.secrets_may_follow = false;
    }

    /// Whether mail may come: whoever sends it is known, and as protected as the listener wants it.
    pub(super) fn may_send(&self) -> Result<(), Reply> {
        let entrance = &self.settings.entrance;
        if entrance.tls == Tls::StartTlsRequired && !self.is_secured {
            Err(replies::tls_first())
        } else if self.client.is_none() || (entrance.auth == Auth::Required && self.user.is_none()) {
            Err(replies::login_first(self.peer))
        } else {
            Ok(())
        }
    }
}
