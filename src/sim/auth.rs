//! AUTH (RFC 4954): the SASL mechanisms LOGIN, PLAIN (RFC 4616) and XOAUTH2, from the server's side.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::dialogue::{Dialogue, Hello, Login};
use super::endpoint::Seat;
use super::fault::{Event, Step};
use super::issuer::Verdict;
use super::record::{LoginAttempt, Violation};
use super::replies;
use super::settings::{Account, Mechanism};
use super::wire::{Line, Stream, Wire};
use crate::secret::Secret;

/// A user name and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Credentials {
    user: String,
    proof: Proof,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Proof {
    Password(Secret),
    Token(Secret),
}

impl Credentials {
    /// The two answers of LOGIN.
    fn login(user: String, password: String) -> Self {
        Self { user, proof: Proof::Password(Secret::new(password)) }
    }

    /// PLAIN: authorization identity, user name and password, with NUL between them. The first must be empty or the same as the second.
    fn plain(response: &str) -> Option<Self> {
        let mut parts = response.split('\0');
        let (authority, user, password) = (parts.next()?, parts.next()?, parts.next()?);
        let whole = parts.next().is_none() && (authority.is_empty() || authority == user);
        whole.then(|| Self::login(user.to_owned(), password.to_owned()))
    }

    /// XOAUTH2: `user=` address ^A `auth=Bearer ` token ^A ^A.
    fn xoauth2(response: &str) -> Option<Self> {
        let (user, rest) = response.strip_prefix("user=")?.split_once('\u{1}')?;
        let token = rest.strip_prefix("auth=Bearer ")?.strip_suffix("\u{1}\u{1}")?;
        Some(Self { user: user.to_owned(), proof: Proof::Token(Secret::new(token.to_owned())) })
    }

    /// Whether they are this account's.
    fn prove(&self, account: &Account) -> bool {
        self.user.eq_ignore_ascii_case(&account.user)
            && match &self.proof {
                Proof::Password(password) => *password == account.password,
                Proof::Token(token) => account.token.as_ref() == Some(token),
            }
    }
}

impl Dialogue {
    /// The whole of an AUTH. Every one is recorded, also one that is out of order or in plain text.
    pub(super) async fn auth<S: Stream>(&mut self, wire: &mut Wire<S>, argument: &str) -> io::Result<()> {
        let (name, initial) = argument.split_once(' ').map_or((argument, None), |(name, initial)| (name, Some(initial.to_owned())));
        let mechanism = mechanism(name);
        let offered = self.encrypted.then_some(mechanism).flatten().filter(|found| self.service.settings.mechanisms.contains(found));
        // Recorded before anything else happens: a connection that ends in the middle has had an AUTH all the same.
        let user = initial.as_deref().and_then(|initial| user_in(mechanism, initial)).unwrap_or_default();
        let attempt = LoginAttempt { connection: self.connection, user, mechanism, encrypted: self.encrypted, accepted: false };
        let number = self.service.records.note(|counters| {
            counters.logins.push(attempt);
            counters.logins.len() - 1
        });
        let outcome = match offered {
            _ if self.hello == Hello::None => Err(replies::HELLO_FIRST),
            _ if self.login.is_some() || self.transaction.is_some() => Err(replies::BAD_SEQUENCE),
            None => Err(replies::UNKNOWN_MECHANISM),
            Some(mechanism) => self.credentials(wire, mechanism, initial).await?,
        };
        let credentials = match outcome {
            Ok(credentials) => credentials,
            Err(text) => return self.send(wire, text).await,
        };
        self.service.records.note(|counters| counters.logins[number].user.clone_from(&credentials.user));
        let tenant = self.service.tenant(&credentials.user).cloned();
        let text = match &tenant {
            Some(tenant) => self.verdict(&credentials, &tenant.account),
            None => replies::AUTHENTICATION_FAILED,
        };
        // A malformed argument is refused at once; what is wrong with a token itself is described first.
        if matches!(credentials.proof, Proof::Token(_)) && text.starts_with("535") {
            let answer = self.ask(wire, replies::TOKEN_CHALLENGE).await?;
            if answer.is_some_and(|answer| !answer.is_empty()) {
                self.service.records.violation(Violation::AnsweredChallenge);
            }
        }
        let due = self.service.script.due(&Event { step: Step::Auth, account: Some(&credentials.user), recipients: &[] });
        if let (true, Some(tenant)) = (self.carry_out(wire, due, text).await?, tenant) {
            let seat = Seat::take(&tenant, self.service.settings.limits.connections);
            self.login = Some(Login { tenant, seat });
            self.service.records.note(|counters| counters.logins[number].accepted = true);
        }
        Ok(())
    }

    /// The reply to credentials for an account.
    fn verdict(&self, credentials: &Credentials, account: &Account) -> &'static str {
        match (&credentials.proof, &self.service.settings.issuer) {
            _ if credentials.prove(account) => replies::AUTHENTICATED,
            (Proof::Token(token), Some(issuer)) => match issuer.judge(token, &credentials.user) {
                Verdict::Good => replies::AUTHENTICATED,
                Verdict::Unknown => replies::AUTHENTICATION_FAILED,
                Verdict::Ended => replies::TOKEN_ENDED,
                Verdict::EndsSoon => replies::TOKEN_ENDS_SOON,
                Verdict::NotPermitted => replies::APP_NOT_PERMITTED,
                Verdict::NotAllowed => replies::APP_NOT_ALLOWED,
            },
            _ => replies::AUTHENTICATION_FAILED,
        }
    }

    /// Asks for what the mechanism needs; the inner `Err` is the reply.
    async fn credentials<S: Stream>(
        &mut self,
        wire: &mut Wire<S>,
        mechanism: Mechanism,
        initial: Option<String>,
    ) -> io::Result<Result<Credentials, &'static str>> {
        let prompt = if mechanism == Mechanism::Login { replies::USERNAME } else { replies::GO_ON };
        let first = match initial {
            Some(initial) => Some(initial),
            None => self.ask(wire, prompt).await?,
        };
        let Some(first) = first.as_deref().and_then(decode) else { return Ok(Err(replies::BAD_ARGUMENTS)) };
        Ok(match mechanism {
            Mechanism::Plain => Credentials::plain(&first).ok_or(replies::AUTHENTICATION_FAILED),
            Mechanism::Xoauth2 => Credentials::xoauth2(&first).ok_or(replies::MALFORMED_XOAUTH2),
            Mechanism::Login => match self.ask(wire, replies::PASSWORD).await?.as_deref().and_then(decode) {
                Some(password) => Ok(Credentials::login(first, password)),
                None => Err(replies::BAD_ARGUMENTS),
            },
        })
    }

    /// Sends a 334 and returns the line that answers it, unless that is not a line.
    async fn ask<S: Stream>(&mut self, wire: &mut Wire<S>, prompt: &str) -> io::Result<Option<String>> {
        if wire.has_more() {
            self.service.records.violation(Violation::Pipelined);
        }
        wire.reply(prompt);
        match wire.line().await? {
            None => Err(io::ErrorKind::UnexpectedEof.into()),
            Some(Line::Command(line)) => Ok(Some(line)),
            Some(_) => {
                self.service.records.violation(Violation::BadLine);
                Ok(None)
            }
        }
    }
}

/// The mechanism of that name, which is compared without regard to case.
fn mechanism(name: &str) -> Option<Mechanism> {
    [Mechanism::Login, Mechanism::Plain, Mechanism::Xoauth2].into_iter().find(|known| known.keyword().eq_ignore_ascii_case(name))
}

/// The user name in an initial response; nothing else of it may get into the records.
fn user_in(mechanism: Option<Mechanism>, initial: &str) -> Option<String> {
    let initial = decode(initial)?;
    match mechanism? {
        Mechanism::Login => Some(initial),
        Mechanism::Plain => Credentials::plain(&initial).map(|credentials| credentials.user),
        Mechanism::Xoauth2 => Credentials::xoauth2(&initial).map(|credentials| credentials.user),
    }
}

/// Decodes a response; `=` stands for an empty one (RFC 4954 §4).
fn decode(text: &str) -> Option<String> {
    let octets = if text == "=" { Vec::new() } else { STANDARD.decode(text).ok()? };
    String::from_utf8(octets).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_forms_of_the_mechanisms_and_no_other() {
        let account = Account { token: Some(Secret::new("t0k".into())), ..Account::new("hve01@contoso.com", "pass word") };
        let proves = |credentials: Option<Credentials>| credentials.map(|credentials| credentials.prove(&account));
        for (response, expected) in [
            ("\0HVE01@contoso.com\0pass word", Some(true)),
            ("hve01@contoso.com\0hve01@contoso.com\0pass word", Some(true)),
            ("\0hve01@contoso.com\0Pass word", Some(false)),
            ("\0hve02@contoso.com\0pass word", Some(false)),
            ("admin@contoso.com\0hve01@contoso.com\0pass word", None),
            ("hve01@contoso.com\0pass word", None),
            ("\0hve01@contoso.com\0pass word\0", None),
        ] {
            assert_eq!(proves(Credentials::plain(response)), expected, "{response:?}");
        }
        for (response, expected) in [
            ("user=hve01@contoso.com\u{1}auth=Bearer t0k\u{1}\u{1}", Some(true)),
            ("user=hve01@contoso.com\u{1}auth=Bearer pass word\u{1}\u{1}", Some(false)),
            ("user=hve01@contoso.com\u{1}auth=Bearer t0k\u{1}", None),
            ("user=hve01@contoso.com\u{1}auth=t0k\u{1}\u{1}", None),
        ] {
            assert_eq!(proves(Credentials::xoauth2(response)), expected, "{response:?}");
        }
        assert_eq!(decode("="), Some(String::new()));
        assert_eq!(decode("aA"), None, "padding is part of it");
    }
}
