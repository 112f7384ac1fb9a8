//! The OAuth applications of the running relay: where their tokens come from, and the announcement of secrets and certificates that end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Phase, Shared};
use crate::clock::{Clock, Timestamp};
use crate::config::{Credentials, Proof};
use crate::mail::AppName;
use crate::notice::{Alarm, AlarmChange};
use crate::store::Spool;
use crate::telemetry;
use crate::tls::{self, TlsError};
use crate::upstream::oauth::{App, ClientCertificate, ClientProof, Expiry, TokenSource, days_left};
use crate::upstream::{Credential, Login, Turns};

/// How often it is looked whether something ends soon.
const LOOK: Duration = Duration::from_secs(3_600);
/// Days before the end from which it is an alarm.
const SOON: i64 = 30;

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

/// Announces what ends soon, until the relay stops. The files are read anew each time: a certificate that was replaced is heeded.
pub(super) async fn announce<S: Spool>(shared: Arc<Shared<S>>) {
    let mut expiries = BTreeMap::<AppName, Expiry>::new();
    let mut setups = shared.setup.subscribe();
    let mut announced = BTreeSet::new();
    loop {
        let apps: Arc<Vec<App>> = Arc::new(setups.borrow_and_update().tokens.0.values().map(|source| source.app().clone()).collect());
        // Of what is not used any more there is nothing to say.
        let named: BTreeSet<String> = apps.iter().map(|app| alarm(app).to_string()).collect();
        for gone in announced.difference(&named).filter_map(|name: &String| name.parse().ok()) {
            shared.alarm(gone, AlarmChange::Cleared);
        }
        announced = named;
        let reading = apps.clone();
        let ends = tokio::task::spawn_blocking(move || reading.iter().map(end).collect::<Vec<_>>()).await.unwrap_or_default();
        let now = Clock::wall();
        for (app, end) in apps.iter().zip(ends) {
            let Some(end) = end else {
                // Of a certificate that cannot be read nothing is known; of a secret the operator says no more.
                if matches!(app.proof, ClientProof::Secret(_)) {
                    shared.alarm(alarm(app), AlarmChange::Cleared);
                }
                continue;
            };
            let days = days_left(end, now);
            if expiries.entry(app.name.clone()).or_default().is_due(end, now) {
                telemetry::credential_ends(app, end, days);
            }
            shared.alarm(alarm(app), if days <= SOON { AlarmChange::Raised(told(app, end, days)) } else { AlarmChange::Cleared });
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = setups.changed() => {}
            () = shared.shutdown.reached(Phase::Stopping) => return,
        }
    }
}

fn alarm(app: &App) -> Alarm {
    match &app.proof {
        ClientProof::Secret(_) => Alarm::SecretEnding(app.name.to_string()),
        ClientProof::Certificate { certificate, .. } => Alarm::CertificateEnding(certificate.display().to_string()),
    }
}

fn told(app: &App, end: Timestamp, days: i64) -> String {
    let date = end.date();
    let when = if days == 0 { format!("It has ended, on {date}") } else { format!("It ends on {date}, within {days} days") };
    format!("{when}; then no mail leaves through app {}. {}", app.name, app.proof.renewal())
}

/// An application's secret or certificate, for whom it is shown to. Blocks on the file system.
pub(super) fn seen(app: &App) -> Option<telemetry::End> {
    let (kind, name) = match &app.proof {
        ClientProof::Secret(_) => ("secret", app.name.to_string()),
        ClientProof::Certificate { certificate, .. } => ("certificate", certificate.display().to_string()),
    };
    Some(telemetry::End { kind, name, at: end(app)? })
}

/// When the application's secret or certificate ends, as far as that is known. A file that cannot be read is told of when a token is needed.
fn end(app: &App) -> Option<Timestamp> {
    match &app.proof {
        ClientProof::Secret(_) => app.secret_ends,
        ClientProof::Certificate { certificate, key } => ClientCertificate::read(certificate, key).ok().map(|read| read.not_after()),
    }
}
