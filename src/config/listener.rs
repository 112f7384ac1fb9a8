//! Where to listen, and what each listener offers to whom: `[[listener]]`.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use ipnet::IpNet;

use super::problem::{At, Findings, Place};
use super::reader::{Document, Section};
use super::{ending, password, value};
use crate::mail::ClientName;
use crate::session::{Auth, Entrance, Tls};
use crate::tls::{Certificate, CertificateError, CertificateFiles};

const TLS: &[(&str, Tls)] =
    &[("none", Tls::None), ("starttls", Tls::StartTls), ("starttls-required", Tls::StartTlsRequired), ("implicit", Tls::Implicit)];
const AUTH: &[(&str, Auth)] = &[("none", Auth::None), ("offered", Auth::Offered), ("required", Auth::Required)];

/// One address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub address: SocketAddr,
    /// What it offers, and whom it is for.
    pub entrance: Entrance,
    /// What it shows; always there if it offers TLS.
    pub certificate: Option<CertificateFiles>,
    /// The load balancers that say with a PROXY header whose connection they pass on, and must.
    pub proxy_from: Vec<IpNet>,
}

/// The listeners; the names of their clients are looked at by [`check_clients`].
pub(super) fn listeners(document: &Document<'_>, findings: &Findings<'_>) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = Vec::new();
    for section in document.at_least_one("listener", "address = \"0.0.0.0:25\"") {
        let address = section.need("address", value::listen, "address = \"0.0.0.0:25\"");
        let entrance = Entrance {
            tls: section.or("tls", value::choice("a way to begin TLS", TLS), Tls::None),
            auth: section.or("auth", value::choice("a rule about logins", AUTH), Auth::None),
            clients: clients(&section, findings),
        };
        let certificate = certificate(&section, findings, entrance.tls);
        let networks = section.list("proxy_from", value::network, "proxy_from = [\"10.0.0.5\"], or leave it out");
        let proxy_from = networks.map(|networks| networks.value).unwrap_or_default();
        for network in proxy_from.iter().filter(|network| network.value.prefix_len() == 0) {
            let hint = "write the balancers' own addresses, for whoever is believed here can say that it is any client";
            findings.problem(&network.place, format!("\"{}\" is everybody", network.value), hint);
        }
        let proxy_from: Vec<IpNet> = proxy_from.into_iter().map(|network| network.value).collect();
        let Some(At { value, place }) = address else { continue };
        for address in value {
            // Port 0 is a free port of the system's choice, another one each time.
            if address.port() != 0 && listeners.iter().any(|other| other.address == address) {
                findings.problem(&place, format!("{address} is listened on already"), "remove one of the two");
            } else {
                let (entrance, certificate, proxy_from) = (entrance.clone(), certificate.clone(), proxy_from.clone());
                listeners.push(Listener { address, entrance, certificate, proxy_from });
            }
        }
    }
    listeners
}

/// The clients that are served there, each once.
fn clients(section: &Section<'_>, findings: &Findings<'_>) -> Option<Vec<ClientName>> {
    let written = section.list("clients", value::name, "clients = [\"devices\"], or leave it out")?;
    let mut clients: Vec<ClientName> = Vec::new();
    for At { value, place } in written.value {
        let name = ClientName::new(value);
        if clients.contains(&name) {
            findings.warning(&place, format!("\"{name}\" stands in the list already"), "remove it");
        } else {
            clients.push(name);
        }
    }
    Some(clients)
}

/// The certificate's files, which are read now to find out whether they will do; they are read again when the relay starts.
pub(super) fn certificate(section: &Section<'_>, findings: &Findings<'_>, tls: Tls) -> Option<CertificateFiles> {
    const HINT: &str = "certificate_file = \"/etc/hve-relay/relay.pem\"; `hve-relay certificate` makes one that signs itself";
    if tls == Tls::None {
        for key in ["certificate_file", "key_file"].into_iter().filter(|key| section.has(key)) {
            let _ = section.get(key, value::path);
            findings.warning(&section.place_of(key), "nothing uses it without TLS", "write tls = \"starttls\", or remove it");
        }
        return None;
    }
    let chain = section.need("certificate_file", value::path, HINT);
    let key = section.get("key_file", value::path);
    section.same_as("key_file", section.place_of("certificate_file").key);
    if key.is_none() && section.has("key_file") {
        return None;
    }
    let chain = chain?;
    let key_place = key.as_ref().map_or(chain.place.clone(), |key| key.place.clone());
    let files = CertificateFiles { key: key.map_or_else(|| chain.value.clone(), |key| key.value), chain: chain.value };
    if let Err(error) = Certificate::load(files.clone()) {
        let place = if error.is_about_the_key(&files) { &key_place } else { &chain.place };
        report(&error, place, findings);
    } else {
        ending::warn_of(&files.chain, "who looks at it ends the connection", &chain.place, "put a new one in its place", findings);
    }
    Some(files)
}

fn report(error: &CertificateError, place: &Place, findings: &Findings<'_>) {
    let (found, hint) = match error {
        CertificateError::Unreadable { path, cause } => (
            format!("{} cannot be read: {}", path.display(), password::reason(cause)),
            "write the path of a file that the relay's user can read".to_owned(),
        ),
        CertificateError::Open { path, .. } => (error.to_string(), format!("run: chmod o= {}", path.display())),
        CertificateError::NotAFile { .. } | CertificateError::NoCertificate { .. } => {
            (error.to_string(), "write the path of a file with the certificate and those between it and the root, in PEM form".to_owned())
        }
        CertificateError::NoKey { .. } => {
            (error.to_string(), "write key_file with the path of the key, in PEM form, without a password".to_owned())
        }
        CertificateError::Mismatch { .. } => (error.to_string(), "write the key that the certificate was made for".to_owned()),
    };
    findings.problem(place, found, hint);
}

/// The names of clients that listeners are for must be clients; and where nobody can log in, nobody need be offered it.
pub(super) fn check_clients(document: &Document<'_>, findings: &Findings<'_>, known: &BTreeSet<String>, has_users: bool) {
    for section in document.many("listener") {
        let written = section.list("clients", value::name, "clients = [\"devices\"], or leave it out");
        for name in written.into_iter().flat_map(|written| written.value).filter(|name| !known.contains(&name.value)) {
            findings.problem(
                &name.place,
                format!("\"{}\" is not a client", name.value),
                "write the name of a [[client]], or add one with it",
            );
        }
        let auth = section.get("auth", value::choice("a rule about logins", AUTH)).filter(|auth| auth.value != Auth::None);
        if let Some(auth) = auth.filter(|_| !has_users) {
            findings.problem(&auth.place, "there is no [[user]] who could log in", "add a [[user]], or remove it");
        }
    }
}
