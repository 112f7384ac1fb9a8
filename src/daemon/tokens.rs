//! The OAuth applications of the running relay: where their tokens come from, and the announcement of secrets and certificates that end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Timestamp};
use crate::config::{Credentials, Proof};
use crate::mail::AppName;
use crate::telemetry;
use crate::tls::{self, TlsError};
use crate::upstream::oauth::{App, ClientCertificate, ClientProof, Expiry, TokenSource, days_left};
use crate::upstream::{Credential, Login};

/// How often it is looked whether something ends soon.
const LOOK: Duration = Duration::from_secs(3_600);

/// The applications, by name.
pub(super) struct Tokens(BTreeMap<AppName, TokenSource>);

impl Tokens {
    /// Reads the authorities' certificates and asks for nothing yet.
    pub fn new(apps: &[App]) -> Result<Self, TlsError> {
        let source = |app: &App| {
            let tls = tls::client_config(app.tls_ca_file.as_deref())?;
            Ok((app.name.clone(), TokenSource::new(app.clone(), tls, telemetry::token)))
        };
        apps.iter().map(source).collect::<Result<_, _>>().map(Self)
    }

    /// What an account logs in with; none if its application is not here.
    pub fn login(&self, credentials: &Credentials) -> Option<Login> {
        let credential = match &credentials.proof {
            Proof::Password(password) => Credential::Password(password.clone()),
            Proof::App(name) => Credential::Token(self.0.get(name)?.clone()),
        };
        Some(Login { user: credentials.user.clone(), credential })
    }

    /// What there is to announce, at start and from then on.
    pub fn apps(&self) -> Vec<App> {
        self.0.values().map(|source| source.app().clone()).collect()
    }
}

/// Announces what ends soon, until it is dropped. The files are read anew each time: a certificate that was replaced is heeded.
pub(super) async fn announce(apps: Vec<App>) {
    let (apps, mut expiries) = (Arc::new(apps), BTreeMap::<AppName, Expiry>::new());
    while !apps.is_empty() {
        let reading = apps.clone();
        let ends = tokio::task::spawn_blocking(move || reading.iter().map(end).collect::<Vec<_>>()).await.unwrap_or_default();
        let now = Clock::wall();
        for (app, end) in apps.iter().zip(ends).filter_map(|(app, end)| Some((app, end?))) {
            if expiries.entry(app.name.clone()).or_default().is_due(end, now) {
                telemetry::credential_ends(app, end, days_left(end, now));
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// When the application's secret or certificate ends, as far as that is known. A file that cannot be read is told of when a token is needed.
fn end(app: &App) -> Option<Timestamp> {
    match &app.proof {
        ClientProof::Secret(_) => app.secret_ends,
        ClientProof::Certificate { certificate, key } => ClientCertificate::read(certificate, key).ok().map(|read| read.not_after()),
    }
}
