//! The OAuth applications: what proves them, whether they get a token, and what that token is good for. The token itself is never shown.

use std::collections::BTreeMap;
use std::time::Duration;

use super::findings::{Finding, Level};
use super::{Progress, Seen};
use crate::clock::{Clock, Timestamp};
use crate::config::Config;
use crate::mail::AppName;
use crate::notice::{SOON, days_left};
use crate::tls;
use crate::units::format_duration;
use crate::upstream::oauth::{App, Claims, ClientCertificate, ClientProof, TokenSource};

/// Asks for a token of each application; returns where its accounts get theirs, if there is one.
pub(super) async fn look(
    config: &Config,
    limit: Duration,
    seen: &mut Seen,
    progress: &Progress,
    findings: &mut Vec<Finding>,
) -> BTreeMap<AppName, Option<TokenSource>> {
    let mut sources = BTreeMap::new();
    for app in &config.apps {
        let about = format!("app {}", app.name);
        progress.say(&about);
        findings.extend(proof(&about, app, Clock::wall()));
        let source = match tls::client_config(app.tls_ca_file.as_deref()) {
            // The log of a running relay is not the place for what an operator tries.
            Ok(tls) => TokenSource::new(App { time_limit: app.time_limit.min(limit), ..app.clone() }, tls, |_, _| {}),
            Err(error) => {
                findings.push(Finding::fail(&about, error.to_string(), "mend the app's tls_ca_file"));
                sources.insert(app.name.clone(), None);
                continue;
            }
        };
        let examined = source.examine().await;
        if let Some(date) = examined.date {
            seen.date(app.token_url.host(), date);
        }
        let got = match examined.life {
            Ok(life) => {
                let lives = format!("it gets a token that lives for {}", format_duration(life));
                findings.push(
                    examined.claims.map_or_else(|| Finding::pass(&about, lives.clone()), |claims| judged(&about, app, &claims, &lives)),
                );
                Some(source)
            }
            Err(fault) => {
                let to_do = if fault.advice.is_empty() {
                    "it passes by itself, or the way to the token endpoint is closed: see HTTPS_PROXY"
                } else {
                    &fault.advice
                };
                findings.push(Finding::fail(&about, &fault.reason, to_do));
                None
            }
        };
        sources.insert(app.name.clone(), got);
    }
    sources
}

/// When what proves the application ends.
fn proof(about: &str, app: &App, now: Timestamp) -> Option<Finding> {
    let end = match &app.proof {
        ClientProof::Secret(_) => app.secret_ends?,
        // Of one that cannot be read the request for a token says more.
        ClientProof::Certificate { certificate, key } => ClientCertificate::read(certificate, key).ok()?.not_after(),
    };
    let left = days_left(end, now);
    let level = match left {
        ..=0 => Level::Fail,
        1..=SOON => Level::Warn,
        _ => Level::Pass,
    };
    let found = format!("its {} ends {} (in {left} days)", app.proof.what(), end.date());
    Some(Finding::of(level, about, found, app.proof.renewal()))
}

/// Holds what a token says of itself against what the service wants to see.
fn judged(about: &str, app: &App, claims: &Claims, lives: &str) -> Finding {
    let roles = if claims.roles.is_empty() { "none".to_owned() } else { claims.roles.join(" ") };
    let found = format!(
        "{lives}: aud {}, roles {roles}, appid {}, tenant {}, until {}",
        claims.audience, claims.app_id, claims.tenant, claims.ends
    );
    let service = app.scope.trim_end_matches("/.default");
    let role = match service {
        "https://outlook.office.com" => Some("Mail.Send"),
        "https://outlook.office365.com" => Some("SMTP.SendAsApp"),
        _ => None,
    };
    if let Some(role) = role.filter(|role| !claims.roles.iter().any(|has| has == role)) {
        let to_do = format!(
            "the role {role} is missing, and without it every login is refused (535 5.7.144): in Entra give the application the permission {role} of \
             Office 365 Exchange Online, as an application permission, and grant admin consent; a new token has it within minutes"
        );
        return Finding::fail(about, found, to_do);
    }
    if !claims.audience.trim_end_matches('/').eq_ignore_ascii_case(service) {
        return Finding::warn(about, found, format!("the token is not for {service}: correct the app's scope, or leave it out"));
    }
    if !claims.app_id.is_empty() && !claims.app_id.eq_ignore_ascii_case(&app.client_id) {
        return Finding::warn(
            about,
            found,
            "the token is of another application than client_id says: is something on the path answering in its place?",
        );
    }
    Finding::pass(about, found)
}
