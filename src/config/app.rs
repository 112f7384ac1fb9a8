//! OAuth applications, `[[app]]`, and how each account logs in: with a password of its own or with the token of an application.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::inbound::unique;
use super::password::{self, CLIENT_SECRET, PASSWORD};
use super::problem::{At, Findings, Place};
use super::reader::{Document, Section};
use super::routes::check_certificates;
use super::{Credentials, Proof, ending, value};
use crate::{
    mail::AppName,
    schedule,
    smtp::Mailbox,
    upstream::{
        Timeouts,
        oauth::{App, CertificateFault, ClientCertificate, ClientProof, TokenUrl},
    },
};

/// For HVE; smtp.office365.com wants `https://outlook.office365.com/.default`.
const SCOPE: &str = "https://outlook.office.com/.default";
/// HVE refuses tokens that end soon, within some ten minutes; twice that is in use elsewhere.
const RENEW_BEFORE: Duration = Duration::from_secs(1_200);
/// What is the matter when its secret or certificate has ended.
const NO_MAIL: &str = "no mail leaves through this application";
/// How long a refusal is the answer to everybody who asks, unless accounts are tried again sooner.
const REMEMBERED: Duration = Duration::from_secs(30);
/// `[[app]]`
pub(super) struct Apps {
    /// By name.
    known: BTreeMap<String, Known>,
    /// There are others, without a readable name.
    unknown: bool,
}

struct Known {
    place: Place,
    /// None if there was a problem with it.
    app: Option<App>,
    used: bool,
}

/// The applications, as far as they can be read.
pub(super) fn apps(document: &Document<'_>, findings: &Findings<'_>, schedule: &schedule::Settings, timeouts: &Timeouts) -> Apps {
    let mut names: Vec<At<String>> = Vec::new();
    let mut apps = Apps { known: BTreeMap::new(), unknown: false };
    for section in document.many("app") {
        let name = section.need("name", value::name, "name = \"hve\"");
        let app = app(&section, findings, name.as_ref().map_or("", |name| name.value.as_str()), schedule, timeouts);
        let Some(name) = name else {
            apps.unknown = true;
            continue;
        };
        unique(&name, &names, findings);
        apps.known.insert(name.value.clone(), Known { place: name.place.clone(), app, used: false });
        names.push(name);
    }
    apps
}

fn app(section: &Section<'_>, findings: &Findings<'_>, name: &str, schedule: &schedule::Settings, timeouts: &Timeouts) -> Option<App> {
    let client_id = section.need("client_id", value::word, "client_id = \"00000000-0000-0000-0000-000000000000\", as Entra shows it");
    let token_url = token_url(section, findings);
    section.note("scope", SCOPE, "default");
    let scope = section.get("scope", value::word).map_or_else(|| SCOPE.to_owned(), |scope| scope.value);
    let renew_before = section.or("renew_before", value::duration(Duration::from_secs(1)..=Duration::from_secs(3_600)), RENEW_BEFORE);
    let tls_ca_file = section.get("tls_ca_file", value::path);
    if let Some(At { value, place }) = &tls_ca_file {
        check_certificates(value, place, findings);
    }
    let secret_ends = section.get("client_secret_expires", value::date);
    let proof = proof(section, findings);
    if let (Some(ends), Some(ClientProof::Certificate { .. })) = (&secret_ends, &proof) {
        findings.problem(
            &ends.place,
            "this application has a certificate and no secret",
            "remove it: a certificate says itself when it ends",
        );
    } else if let Some(ends) = &secret_ends {
        ending::warn(ends.value, ("the client secret", NO_MAIL), &ends.place, "make a new one in Entra", findings);
    }
    Some(App {
        name: AppName::new(name),
        client_id: client_id?.value,
        token_url: token_url?,
        scope,
        proof: proof?,
        secret_ends: secret_ends.map(|ends| ends.value),
        renew_before,
        tls_ca_file: tls_ca_file.map(|file| file.value),
        time_limit: timeouts.connect,
        remember_passing: schedule.pause_min.min(REMEMBERED),
        remember_refusal: schedule.probe.min(REMEMBERED),
    })
}

/// Of `tenant_id` and `token_url` there is one.
fn token_url(section: &Section<'_>, findings: &Findings<'_>) -> Option<TokenUrl> {
    let tenant = section.get("tenant_id", value::tenant);
    let written = section.get("token_url", value::token_url);
    match (section.has("tenant_id"), section.has("token_url")) {
        (true, true) => {
            let place = section.place_of("token_url");
            findings.problem(&place, "the token endpoint is known already, by tenant_id", "keep one of the two");
            None
        }
        (false, false) => {
            section.need("tenant_id", value::tenant, "tenant_id = \"contoso.onmicrosoft.com\", or the tenant's id");
            None
        }
        _ => tenant.or(written).map(|url| url.value),
    }
}

/// A secret, or a certificate with its key.
fn proof(section: &Section<'_>, findings: &Findings<'_>) -> Option<ClientProof> {
    let certificate = section.get("certificate_file", value::path);
    let key = section.get("key_file", value::path);
    let of_certificate = ["certificate_file", "key_file"].into_iter().find(|key| section.has(key));
    match of_certificate {
        Some(key) if CLIENT_SECRET.is_written(section) => {
            findings.problem(&section.place_of(key), "the application has a client secret already", "keep one of the two");
            None
        }
        Some(_) => {
            section.need("certificate_file", value::path, "certificate_file = \"/etc/hve-relay/app.pem\", beside its key_file");
            section.need("key_file", value::path, "key_file = \"/etc/hve-relay/app.key\", beside its certificate_file");
            let (certificate, key) = (certificate?, key?);
            check_identity(&certificate, &key, findings);
            Some(ClientProof::Certificate { certificate: certificate.value, key: key.value })
        }
        None => password::read(section, findings, CLIENT_SECRET).map(|(place, _)| ClientProof::Secret(place)),
    }
}

/// Finds out now whether certificate and key will do; they are read again for every token. One that has ended is no problem of the
/// configuration: the relay takes mail and keeps it until there is another.
fn check_identity(certificate: &At<PathBuf>, key: &At<PathBuf>, findings: &Findings<'_>) {
    if let Err(wrong) = password::check_private(&key.value) {
        return findings.problem(&key.place, wrong.found, wrong.hint);
    }
    match ClientCertificate::read(&certificate.value, &key.value) {
        Ok(read) => {
            let what = certificate.value.display().to_string();
            let hint = "upload a new one to the application in Entra, and put it here";
            ending::warn(read.not_after(), (&what, NO_MAIL), &certificate.place, hint, findings);
        }
        Err(fault @ CertificateFault::Certificate { .. }) => {
            findings.problem(&certificate.place, fault.to_string(), "write the path of the application's certificate in PEM form");
        }
        Err(fault @ CertificateFault::Key { .. }) => {
            findings.problem(
                &key.place,
                fault.to_string(),
                "write the path of the certificate's RSA key in PEM form, without a passphrase",
            );
        }
        Err(fault @ CertificateFault::Mismatch { .. }) => {
            findings.problem(&key.place, fault.to_string(), "write the two that were made together");
        }
    }
}

impl Apps {
    /// How an account logs in, unless there is a problem with that.
    pub fn credentials(&mut self, account: &Section<'_>, address: Option<&Mailbox>, findings: &Findings<'_>) -> Option<Credentials> {
        let proof = if account.has("app") {
            let named = account.get("app", value::name);
            if PASSWORD.is_written(account) {
                let found = "the account logs in with the tokens of this application, and has a password too";
                findings.problem(&account.place_of("app"), found, "keep one of the two");
            }
            self.named(&named?, findings).map(Proof::App)
        } else {
            password::read(account, findings, PASSWORD).map(|(_, password)| Proof::Password(password))
        };
        Some(Credentials { user: address?.as_str().to_owned(), proof: proof? })
    }

    fn named(&mut self, name: &At<String>, findings: &Findings<'_>) -> Option<AppName> {
        if let Some(known) = self.known.get_mut(&name.value) {
            known.used = true;
            return Some(AppName::new(name.value.as_str()));
        }
        // One without a readable name was reported, and may be the one.
        if !self.unknown {
            let names: Vec<String> = self.known.keys().map(|name| format!("{name:?}")).collect();
            let hint = match names.as_slice() {
                [] => "write an [[app]] of that name".to_owned(),
                names => format!("write {}, or an [[app]] of that name", names.join(" or ")),
            };
            findings.problem(&name.place, format!("{:?} is not an app", name.value), hint);
        }
        None
    }

    /// All of them; one that no account uses is probably not meant.
    pub fn finish(self, findings: &Findings<'_>) -> Vec<App> {
        for (name, known) in self.known.iter().filter(|(_, known)| !known.used) {
            let hint = format!("write app = {name:?} with an [[account]] in place of its password, or remove the app");
            findings.warning(&known.place, format!("no account uses app {name:?}"), hint);
        }
        self.known.into_values().filter_map(|known| known.app).collect()
    }
}
