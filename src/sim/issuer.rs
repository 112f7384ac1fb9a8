//! Who gets a token and what it is good for: the applications of a simulated tenant, as Microsoft Entra and HVE judge them.
//!
//! The token endpoint issues here, and AUTH XOAUTH2 asks here. A token looks like one of Entra's (RFC 7519), with the claims that say whom it is
//! for, but its signature is a random word: all that counts of tokens is kept here, so that each refusal is the one that the service would give.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;

use super::assertion::{self, Assertions};
use super::record::lock;
use crate::clock::Clock;
use crate::secret::Secret;

/// An application that is registered in the tenant.
#[derive(Debug, Clone)]
pub struct App {
    /// Its application (client) id.
    pub client_id: String,
    /// How it proves who it is.
    pub proof: AppProof,
    /// How long its tokens live.
    pub life: Duration,
    /// A token that ends within this is refused at AUTH: `501 5.5.127`.
    pub refused_before_end: Duration,
    /// It has the permission Mail.Send, with consent; otherwise its tokens are refused at AUTH: `535 5.7.144`.
    pub permitted: bool,
    /// The accounts that it is allowed for; none: all. For others its tokens are refused at AUTH: `550 5.7.240`.
    pub accounts: Option<Vec<String>>,
}

/// What an application has registered to prove itself with.
#[derive(Debug, Clone)]
pub enum AppProof {
    /// A client secret.
    Secret(Secret),
    /// A certificate, PEM; assertions must be signed with its RSA key.
    Certificate(String),
}

impl App {
    /// An application with a secret, whose tokens live for an hour and are refused in the last ten minutes.
    pub fn new(client_id: impl Into<String>, proof: AppProof) -> Self {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let (life, refused_before_end) = (minutes(60), minutes(10));
        Self { client_id: client_id.into(), proof, life, refused_before_end, permitted: true, accounts: None }
    }
}

/// What a server finds of a token at AUTH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    Unknown,
    Ended,
    EndsSoon,
    NotPermitted,
    NotAllowed,
}

/// A refusal of the token endpoint: the status, the `error` field, Microsoft's number and words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: u16,
    pub error: &'static str,
    pub number: u32,
    pub words: String,
}

/// The tenant's applications and the tokens that they have; cheap to clone.
#[derive(Clone)]
pub struct Issuer(Arc<Mutex<State>>);

struct State {
    apps: Vec<App>,
    issued: HashMap<String, Issued>,
    assertions: Assertions,
}

struct Issued {
    client_id: String,
    end: Instant,
}

impl Issuer {
    /// A tenant with these applications.
    pub fn new(apps: Vec<App>) -> Self {
        Self(Arc::new(Mutex::new(State { apps, issued: HashMap::new(), assertions: Assertions::default() })))
    }

    /// Registers these applications in place of any others; tokens that were issued stay what they are.
    pub fn set_apps(&self, apps: Vec<App>) {
        lock(&self.0).apps = apps;
    }

    /// Ends all tokens at once, as if their time had come.
    pub fn end_all(&self) {
        let now = Instant::now();
        lock(&self.0).issued.values_mut().for_each(|issued| issued.end = now);
    }

    /// A token for a form, and how long it lives.
    pub(super) fn issue(&self, form: &HashMap<String, String>, audience: &str) -> Result<(String, Duration), Refusal> {
        let field = |name: &str| form.get(name).map(String::as_str);
        let need = |name: &'static str| {
            let words = || format!("The request body must contain the following parameter: '{name}'.");
            field(name).ok_or_else(|| Refusal { status: 400, error: "invalid_request", number: 900_144, words: words() })
        };
        if need("grant_type")? != "client_credentials" {
            let words = "The app requested an unsupported grant type.".to_owned();
            return Err(Refusal { status: 400, error: "unsupported_grant_type", number: 70_003, words });
        }
        let (client_id, scope) = (need("client_id")?, need("scope")?);
        if scope != "https://outlook.office.com/.default" {
            let words = format!("The provided request must include a 'scope' input parameter. The scope {scope} is not valid.");
            return Err(Refusal { status: 400, error: "invalid_scope", number: 70_011, words });
        }
        let state = &mut *lock(&self.0);
        let Some(app) = state.apps.iter().find(|app| app.client_id == client_id) else {
            let words = format!("Application with identifier '{client_id}' was not found in the directory 'Contoso'.");
            return Err(Refusal { status: 400, error: "unauthorized_client", number: 700_016, words });
        };
        let refused = |number, words: String| Refusal { status: 401, error: "invalid_client", number, words };
        match (&app.proof, field("client_secret"), field("client_assertion")) {
            (AppProof::Secret(secret), Some(given), None) if given == secret.expose() => {}
            (AppProof::Secret(_), Some(_), None) => {
                let words = "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client \
                             secret ID";
                return Err(refused(7_000_215, format!("{words}, for a secret added to app '{client_id}'.")));
            }
            (AppProof::Certificate(pem), None, Some(given)) if field("client_assertion_type") == Some(assertion::TYPE) => {
                let checked = state.assertions.check(given, pem, client_id, audience);
                checked.map_err(|why| {
                    refused(700_027, format!("The certificate with identifier used to sign the client assertion: {why}."))
                })?;
            }
            _ => {
                let words = "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.";
                return Err(refused(7_000_218, words.to_owned()));
            }
        }
        let token = token(app);
        state.issued.insert(token.clone(), Issued { client_id: client_id.to_owned(), end: Instant::now() + app.life });
        Ok((token, app.life))
    }

    /// What a token is worth for an account.
    pub(super) fn judge(&self, token: &Secret, account: &str) -> Verdict {
        let (state, now) = (lock(&self.0), Instant::now());
        let Some(issued) = state.issued.get(token.expose()) else { return Verdict::Unknown };
        let Some(app) = state.apps.iter().find(|app| app.client_id == issued.client_id) else { return Verdict::Unknown };
        let left = issued.end.saturating_duration_since(now);
        match app {
            _ if left.is_zero() => Verdict::Ended,
            App { refused_before_end, .. } if left <= *refused_before_end => Verdict::EndsSoon,
            App { permitted: false, .. } => Verdict::NotPermitted,
            App { accounts: Some(allowed), .. } if !allowed.iter().any(|user| user.eq_ignore_ascii_case(account)) => Verdict::NotAllowed,
            _ => Verdict::Good,
        }
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Issuer")
    }
}

/// As Entra's: a header, the claims, and a signature of 2048 bits.
fn token(app: &App) -> String {
    let mut signature = [0; 256];
    // Without randomness tokens of one second are the same; a test that needs them to differ then fails.
    let _ = SystemRandom::new().fill(&mut signature);
    let now = Clock::wall().as_millis() / 1_000;
    let mut claims = json!({
        "aud": "https://outlook.office.com",
        "iss": "https://sts.windows.net/5c1d9ab6-6f0e-4d4c-9a41-0d6f4b1f7a10/",
        "tid": "5c1d9ab6-6f0e-4d4c-9a41-0d6f4b1f7a10",
        "appid": app.client_id,
        "iat": now,
        "nbf": now,
        "exp": now + app.life.as_secs() as i64,
    });
    if app.permitted {
        claims["roles"] = json!(["Mail.Send"]);
    }
    let parts = [json!({"typ": "JWT", "alg": "RS256"}).to_string().into_bytes(), claims.to_string().into_bytes(), signature.to_vec()];
    parts.map(|part| BASE64URL.encode(part)).join(".")
}
