//! The OAuth applications of the running relay: where their tokens come from.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::{Credentials, Proof};
use crate::mail::AppName;
use crate::telemetry;
use crate::tls::{self, TlsError};
use crate::upstream::oauth::{App, TokenSource};
use crate::upstream::{Credential, Login, Turns};

/// The applications, by name.
pub(super) struct Tokens(BTreeMap<AppName, TokenSource>);

impl Tokens {
    /// Reads the authorities' certificates and asks for nothing yet. An application that is as it was keeps its token.
    pub fn new(apps: &[App], former: Option<&Self>) -> Result<Self, TlsError> {
        let source = |app: &App| {
            if let Some(kept) = former.and_then(|former| former.0.get(&app.name)).filter(|kept| kept.app() == app) {
                // Its secret may be another one now.
                kept.forgive();
                return Ok((app.name.clone(), kept.clone()));
            }
            let tls = tls::client_config(app.tls_ca_file.as_deref())?;
            Ok((app.name.clone(), TokenSource::new(app.clone(), tls, telemetry::token)))
        };
        apps.iter().map(source).collect::<Result<_, _>>().map(Self)
    }

    /// Each application, and for how long its present token can still be used.
    pub fn each(&self) -> impl Iterator<Item = (&App, Duration)> {
        self.0.values().map(|source| (source.app(), source.left()))
    }

    /// What an account logs in with; none if its application is not here.
    pub fn login(&self, credentials: &Credentials) -> Option<Login> {
        let credential = match &credentials.proof {
            Proof::Password(password) => Credential::Password(password.clone()),
            Proof::App(name) => Credential::Token(self.0.get(name)?.clone()),
        };
        Some(Login { user: credentials.user.clone(), credential, turns: Turns::default() })
    }
}
