//! Secrets and certificates that end one day: announced weeks before, and shown to those who watch.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Phase, Shared};
use crate::clock::{Clock, Timestamp};
use crate::config::Config;
use crate::notice::{Alarm, AlarmChange, Expiry, SOON, days_left};
use crate::store::Spool;
use crate::telemetry;
use crate::tls;
use crate::upstream::oauth::{App, ClientCertificate, ClientProof};

/// How often it is looked whether something ends soon.
const LOOK: Duration = Duration::from_secs(3_600);

/// A secret or a certificate. Two uses of one file are one of these.
#[derive(Debug, Clone)]
pub(super) struct Ending {
    source: Source,
    /// For what it is used, such as `listener 10.0.0.1:587`.
    used_by: Vec<String>,
    /// What is the matter when it has ended, for each use.
    then: Vec<String>,
    /// What an operator must do before that.
    renewal: &'static str,
}

/// Where it is known from when it ends.
#[derive(Debug, Clone)]
enum Source {
    /// What the operator has said of an application's secret, if anything.
    Secret(String, Option<Timestamp>),
    /// An application's certificate and its key.
    OfApp(PathBuf, PathBuf),
    /// A certificate in PEM form.
    File(PathBuf),
}

/// All that the configuration names.
pub(super) fn of(config: &Config) -> Vec<Ending> {
    const PUT: &str = "Put a new certificate and its key in place of the old ones; a restart is not needed.";
    let mut found = BTreeMap::<String, Ending>::new();
    let mut add = |source: Source, used_by: String, then: String, renewal| {
        let ending = found.entry(source.alarm().to_string());
        let ending = ending.or_insert_with(|| Ending { source, used_by: Vec::new(), then: Vec::new(), renewal });
        ending.used_by.push(used_by);
        ending.then.push(then);
    };
    for App { name, proof, secret_ends, .. } in &config.apps {
        let source = match proof {
            ClientProof::Secret(_) => Source::Secret(name.to_string(), *secret_ends),
            ClientProof::Certificate { certificate, key } => Source::OfApp(certificate.clone(), key.clone()),
        };
        add(source, format!("app {name}"), format!("no mail leaves through app {name}"), proof.renewal());
    }
    for listener in &config.listeners {
        let Some(files) = &listener.certificate else { continue };
        let then = format!("clients that look at it send nothing to {}", listener.address);
        add(Source::File(files.chain.clone()), format!("listener {}", listener.address), then, PUT);
    }
    if let (Some(files), Some(address)) = (&config.admin.certificate, config.admin.listen.first()) {
        add(Source::File(files.chain.clone()), format!("page {address}"), "browsers warn of the page".to_owned(), PUT);
    }
    for route in &config.routes {
        let Some(identity) = &route.identity else { continue };
        let then = format!("the server of route {} may not know the relay any more", route.name);
        add(Source::File(identity.certificate_file.clone()), format!("route {}", route.name), then, PUT);
    }
    found.into_values().collect()
}

/// Announces what ends soon, until the relay stops. The files are read anew each time: a certificate that was replaced is heeded.
pub(super) async fn announce<S: Spool>(shared: Arc<Shared<S>>) {
    let mut expiries = BTreeMap::<String, Expiry>::new();
    let mut setups = shared.setup.subscribe();
    let ends = |alarm: &Alarm| matches!(alarm, Alarm::CertificateEnding(_) | Alarm::SecretEnding(_));
    let mut announced: BTreeSet<String> = shared.standing().iter().filter(|alarm| ends(alarm)).map(ToString::to_string).collect();
    loop {
        let endings = setups.borrow_and_update().endings.clone();
        // Of what is not used any more, perhaps since before a restart, there is nothing to say.
        let named: BTreeSet<String> = endings.iter().map(|ending| ending.source.alarm().to_string()).collect();
        for gone in announced.difference(&named).filter_map(|name: &String| name.parse().ok()) {
            shared.alarm(gone, AlarmChange::Cleared);
        }
        announced = named;
        let reading = endings.clone();
        let ends = tokio::task::spawn_blocking(move || reading.iter().map(Ending::end).collect::<Vec<_>>()).await.unwrap_or_default();
        let now = Clock::wall();
        for (ending, end) in endings.iter().zip(ends) {
            let alarm = ending.source.alarm();
            let Some(end) = end else {
                // Of a certificate that cannot be read nothing is known; of a secret the operator says no more.
                if matches!(ending.source, Source::Secret(..)) {
                    shared.alarm(alarm, AlarmChange::Cleared);
                }
                continue;
            };
            let days = days_left(end, now);
            if expiries.entry(alarm.to_string()).or_default().is_due(end, now) {
                let used_by = ending.used_by.join(", ");
                telemetry::credential_ends(&ending.source.name(), &used_by, ending.source.what(), end, days, ending.renewal);
            }
            let change = if days <= SOON { AlarmChange::Raised(ending.told(end, days)) } else { AlarmChange::Cleared };
            shared.alarm(alarm, change);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            _ = setups.changed() => {}
            () = shared.shutdown.reached(Phase::Stopping) => return,
        }
    }
}

impl Ending {
    /// For whom it is shown to. Blocks on the file system.
    pub(super) fn shown(&self) -> Option<telemetry::End> {
        let kind = if matches!(self.source, Source::Secret(..)) { "secret" } else { "certificate" };
        Some(telemetry::End { kind, name: self.source.name(), at: self.end()? })
    }

    /// When it ends, as far as that is known. A file that cannot be read is told of by those who need it. Blocks on the file system.
    fn end(&self) -> Option<Timestamp> {
        match &self.source {
            Source::Secret(_, ends) => *ends,
            Source::OfApp(certificate, key) => ClientCertificate::read(certificate, key).ok().map(|read| read.not_after()),
            Source::File(path) => Some(Timestamp::from_millis(tls::ends(path)?.saturating_mul(1_000))),
        }
    }

    fn told(&self, end: Timestamp, days: i64) -> String {
        let date = end.date();
        let when = if days == 0 { format!("It has ended, on {date}") } else { format!("It ends on {date}, within {days} days") };
        format!("{when}; then {}. {}", self.then.join(", "), self.renewal)
    }
}

impl Source {
    /// The application whose secret it is, or the file.
    fn name(&self) -> String {
        match self {
            Self::Secret(app, _) => app.clone(),
            Self::OfApp(path, _) | Self::File(path) => path.display().to_string(),
        }
    }

    fn alarm(&self) -> Alarm {
        match self {
            Self::Secret(app, _) => Alarm::SecretEnding(app.clone()),
            Self::OfApp(..) | Self::File(_) => Alarm::CertificateEnding(self.name()),
        }
    }

    fn what(&self) -> &'static str {
        match self {
            Self::Secret(..) => "client secret",
            Self::OfApp(..) | Self::File(_) => "certificate",
        }
    }
}
