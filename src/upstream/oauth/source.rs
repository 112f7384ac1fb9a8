//! Where an application's accounts get their token: one cache and one request at a time for all of them.
//!
//! The decisions are in [`super::memory`]; here is the task that makes a request and the waiting for its end. A request belongs to nobody who
//! waits for it: an attempt that is given up meanwhile does not take it along. Files and environment are read for each request, so that a
//! secret that was replaced is used at the next one.

use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};
use rustls::ClientConfig;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::answer::{self, Grant};
use super::app::{App, ClientProof, SecretPlace};
use super::assertion;
use super::certificate::ClientCertificate;
use super::claims::Claims;
use super::http::{Http, Unanswered};
use super::memory::{Answered, Memory, News, Token};
use crate::clock::Clock;
use crate::mail::AppName;
use crate::reply::{PauseLength, TokenFault};
use crate::secret::Secret;

/// RFC 7523 §2.2.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// A token that is older than this may lack a permission that was given since.
const OLD: Duration = Duration::from_secs(300);

/// Told of everything that happens to an application's token. It must not block.
pub type Tell = fn(&AppName, &News);

/// An application's tokens; cheap to clone. Its `Debug` form shows the application's name alone.
#[derive(Clone)]
pub struct TokenSource(Arc<Inner>);

struct Inner {
    app: App,
    http: Http,
    tell: Tell,
    memory: Mutex<Memory>,
    /// Changes with the end of each request.
    ended: watch::Sender<()>,
}

impl TokenSource {
    /// A source that has asked for nothing yet. `tls` verifies the token endpoint.
    pub fn new(app: App, tls: Arc<ClientConfig>, tell: Tell) -> Self {
        let (memory, http) = (Mutex::new(Memory::new(&app)), Http::new(tls, app.time_limit));
        Self(Arc::new(Inner { app, http, tell, memory, ended: watch::Sender::new(()) }))
    }

    /// What is configured.
    pub fn app(&self) -> &App {
        &self.0.app
    }

    /// A token to log in with now. Needs a tokio runtime. May be dropped at any time.
    ///
    /// # Errors
    /// Why there is none, at once if that is known from a request a moment ago.
    pub async fn token(&self) -> Result<Token, TokenFault> {
        // From before the look, so that no end falls between the two.
        let mut ended = self.0.ended.subscribe();
        loop {
            let (answered, fetch) = self.memory().ask(Instant::now());
            if fetch {
                tokio::spawn(self.clone().fetch());
            }
            match answered {
                Answered::With(token) => return Ok(token),
                Answered::Without(fault) => return Err(fault),
                // The sender lives as long as `self`.
                Answered::Wait => drop(ended.changed().await),
            }
        }
    }

    /// A server says that this token is stale: nobody logs in with it any more.
    pub fn stale(&self, token: &Token) {
        self.memory().refused(token, Instant::now(), Duration::ZERO);
    }

    /// A server has refused a login with this token for another reason. That may be put right in a later token: one that has been used for a
    /// while is not used again.
    pub fn refused(&self, token: &Token) {
        self.memory().refused(token, Instant::now(), OLD);
    }

    /// For how long the present token can still be used; nothing without one.
    pub fn left(&self) -> Duration {
        self.memory().left(Instant::now())
    }

    /// The operator has put something right: the next who asks for a token makes a request, whatever came of the last.
    pub fn forgive(&self) {
        self.memory().forgive();
    }

    /// Makes one request, whatever is remembered, for an operator who wants to know how it goes. A token that comes is there for the next who
    /// asks.
    pub async fn examine(&self) -> Examined {
        let begun = Instant::now();
        let (date, result) = match self.request().await {
            Ok((grant, date)) => (date, Ok(grant)),
            Err((fault, date)) => (date, Err(fault)),
        };
        let claims = result.as_ref().ok().and_then(|grant| Claims::read(&grant.token));
        let life = result.as_ref().map(|grant| grant.life).map_err(Clone::clone);
        let _ = self.memory().ended(begun, Instant::now(), result);
        Examined { date, life, claims }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // Nothing panics while it holds the lock.
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(self) {
        let begun = Instant::now();
        let result = self.request().await.map(|(grant, _)| grant).map_err(|(fault, _)| fault);
        let news = self.memory().ended(begun, Instant::now(), result);
        self.0.ended.send_replace(());
        if let Some(news) = news {
            (self.0.tell)(&self.0.app.name, &news);
        }
    }

    /// What came of a request, and the endpoint's `Date` if it answered.
    async fn request(&self) -> Result<(Grant, Option<String>), (TokenFault, Option<String>)> {
        let source = self.clone();
        // Reads files and signs.
        let prepared = tokio::task::spawn_blocking(move || prepare(&source.0.app)).await;
        let (form, told) = prepared.unwrap_or_else(|error| Err(missing(error.to_string()))).map_err(|fault| (fault, None))?;
        match self.0.http.post(&self.0.app.token_url, &form).await {
            Ok(answer) => match answer::judge(&self.0.app, &answer, &told) {
                Ok(grant) => Ok((grant, answer.date)),
                Err(fault) => Err((fault, answer.date)),
            },
            Err(Unanswered { why, advice }) => {
                let reason = format!("no token: {why}");
                Err((TokenFault { reason, pause: PauseLength::BackOff, advice: advice.to_owned() }, None))
            }
        }
    }
}

/// What one request for a token has shown. It holds no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// The endpoint's clock (RFC 9110 §6.6.1), as it has written it.
    pub date: Option<String>,
    /// How long the token lives, or why there is none.
    pub life: Result<Duration, TokenFault>,
    /// What the token says of itself.
    pub claims: Option<Claims>,
}

impl std::fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TokenSource").field(&self.0.app.name.as_str()).finish()
    }
}

/// The form of RFC 6749 §4.4.2, and what of it is told in confidence.
fn prepare(app: &App) -> Result<(Zeroizing<String>, Secret), TokenFault> {
    let mut form = Form::default();
    form.field("grant_type", "client_credentials");
    form.field("client_id", &app.client_id);
    form.field("scope", &app.scope);
    let told = match &app.proof {
        ClientProof::Secret(place) => {
            let secret = secret(place)?;
            form.field("client_secret", secret.expose());
            secret
        }
        ClientProof::Certificate { certificate, key } => {
            let certificate = ClientCertificate::read(certificate, key).map_err(|fault| missing(fault.to_string()))?;
            let mut id = [0; 16];
            let audience = app.token_url.to_string();
            let assertion = SystemRandom::new()
                .fill(&mut id)
                .ok()
                .and_then(|()| assertion::sign(&certificate, &app.client_id, &audience, Clock::wall(), &id))
                .ok_or_else(|| missing("the system has no randomness".to_owned()))?;
            form.field("client_assertion_type", ASSERTION_TYPE);
            form.field("client_assertion", assertion.expose());
            assertion
        }
    };
    Ok((form.0, told))
}

fn secret(place: &SecretPlace) -> Result<Secret, TokenFault> {
    let (octets, shown) = match place {
        SecretPlace::File(path) => match fs::read(path) {
            Ok(octets) => (Zeroizing::new(octets), path.display().to_string()),
            Err(error) => return Err(missing(format!("{} cannot be read: {error}", path.display()))),
        },
        SecretPlace::Variable(name) => (
            Zeroizing::new(std::env::var(name).unwrap_or_default().into_bytes()),
            "the environment variable of client_secret_env".to_owned(),
        ),
    };
    Secret::from_line(&octets).map_err(|why| missing(format!("{shown} {why}")))
}

/// What the application would prove itself with is not there.
fn missing(why: String) -> TokenFault {
    let advice = "Put the application's secret, or its certificate and key, back in place: they are read again at the next try.".to_owned();
    TokenFault { reason: why, pause: PauseLength::Suspended, advice }
}

/// `application/x-www-form-urlencoded`.
#[derive(Default)]
struct Form(Zeroizing<String>);

impl Form {
    fn field(&mut self, name: &str, value: &str) {
        // Grown in one step, so that no copy of a secret is left behind: an octet takes three at most.
        self.0.reserve_exact(name.len() + 3 * value.len() + 2);
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.push_str(name);
        self.0.push('=');
        for octet in value.bytes() {
            match octet {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => self.0.push(char::from(octet)),
                _ => {
                    const HEX: &[u8; 16] = b"0123456789ABCDEF";
                    self.0.push('%');
                    self.0.push(char::from(HEX[usize::from(octet >> 4)]));
                    self.0.push(char::from(HEX[usize::from(octet & 15)]));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_holds_any_value() {
        let mut form = Form::default();
        form.field("a", "x-._*~ &=+%");
        form.field("b", "\u{fc}\r\n");
        assert_eq!(form.0.as_str(), "a=x-._*%7E%20%26%3D%2B%25&b=%C3%BC%0D%0A");
    }
}
