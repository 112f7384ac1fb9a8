//! `[[route]]`: the servers that mail goes to, and what goes there.
//!
//! The kind of a route says what is known of its server: HVE itself, by the tenant's profile; smtp.office365.com; a relay connector of the
//! tenant; any other smarthost. All that it says is a default. HVE need not be written: where no route is of its kind, one stands before those
//! that are, unless no account is on it.

use std::fs;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

use super::inbound::unique;
use super::limits::{self, Written};
use super::problem::{At, Findings, Place};
use super::profile::{Kind, Profile, Service};
use super::reader::{Document, Section};
use super::{ending, password, reader, sender, value};
use crate::{
    budget::Limits,
    intake::{self, Policy},
    mail::{AccountName, Class, ClientName, RouteName, SenderPolicy},
    schedule::AccountSettings,
    tls::{self, Identity, TlsError},
    units::ByteSize,
    upstream::Extension,
};

/// The route that the profile stands for where none of its kind is configured.
const DEFAULT_ROUTE: &str = "hve";
/// Of a listener or a connector (RFC 8314 §3.3: submission with TLS from the first octet; RFC 5321; RFC 6409).
const IMPLICIT_TLS: u16 = 465;
const CLASSES: &[(&str, Class)] = &[("internal", Class::Internal), ("external", Class::External)];

/// How the connection to a route's server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// STARTTLS with a verified certificate, or nothing is sent.
    Required,
    /// TLS from the first octet, with a verified certificate.
    Implicit,
    /// STARTTLS where it is offered, whatever the certificate; else in clear.
    Opportunistic,
    /// In clear.
    None,
}

impl Tls {
    const WORDS: &'static [(&'static str, Self)] =
        &[("required", Self::Required), ("implicit", Self::Implicit), ("opportunistic", Self::Opportunistic), ("none", Self::None)];

    /// As it stands in the configuration.
    pub fn as_str(self) -> &'static str {
        Self::WORDS.iter().find(|(_, tls)| *tls == self).map_or("", |(word, _)| word)
    }

    /// Whether nothing goes out before the server is known to be the one that is meant.
    fn is_verified(self) -> bool {
        matches!(self, Self::Required | Self::Implicit)
    }
}

/// Where recipients of some classes go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its name.
    pub name: RouteName,
    /// What is known of its server.
    pub kind: Kind,
    /// The server: a name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub tls: Tls,
    /// The certificates of the authorities that are trusted there, in PEM form; none: those of the operating system.
    pub tls_ca_file: Option<PathBuf>,
    /// The name that its certificate must have.
    pub server_name: ServerName<'static>,
    /// What the relay shows of itself where the server asks for it.
    pub identity: Option<Identity>,
    /// The classes of recipients that it takes.
    pub takes: Vec<Class>,
    /// The clients whose mail it takes; none: all.
    pub clients: Option<Vec<ClientName>>,
    /// It takes messages with more octets than this only; 0: small ones too.
    pub size_over: u64,
    /// The largest message in octets that it takes.
    pub message_size: u64,
    /// The most recipients that travel together.
    pub recipients_per_delivery: usize,
    /// What its mail's sender becomes, unless the client says otherwise.
    pub sender: SenderPolicy,
    /// What is not used there although the server offers it.
    pub ignored: Vec<Extension>,
}

/// A route as it was read, with what its accounts start from.
pub(super) struct Draft {
    pub route: Route,
    pub service: Service,
    /// What each of its accounts may send, or itself if it has none.
    pub limits: Written,
    /// Connections of each.
    pub connections: usize,
    /// The table with its keys, where it is looked up what they mean.
    pub table: String,
    /// Where its name stands; none: it was not written.
    place: Option<Place>,
    /// Where `clients`, `size_over` and `tls` stand, or would.
    clients: Vec<At<String>>,
    size_over: Place,
    tls: Place,
}

impl Draft {
    /// Whether it stands in the file.
    pub fn is_written(&self) -> bool {
        self.place.is_some()
    }

    /// Whether it has, or would have, accounts that log in.
    pub fn is_for_accounts(&self) -> bool {
        matches!(self.route.kind, Kind::Hve | Kind::Office365)
    }
}

/// The routes as they were written, and HVE's before them if none of these is HVE's.
pub(super) fn routes(document: &Document<'_>, findings: &Findings<'_>, profile: &Profile, every: &Written) -> Vec<Draft> {
    let mut names: Vec<At<String>> = Vec::new();
    let mut drafts: Vec<Draft> = Vec::new();
    let hve_recipients = hve_recipients(document, findings, profile);
    for section in document.many("route") {
        let name = section.need("name", value::name, &format!("name = {DEFAULT_ROUTE:?}"));
        if let Some(name) = &name {
            unique(name, &names, findings);
            report_alike(name, &names, findings);
        }
        let route = RouteName::new(name.as_ref().map_or("", |name| name.value.as_str()));
        drafts.extend(draft(&section, findings, profile, every, route, hve_recipients));
        names.extend(name);
    }
    // One of which nothing could be read may have been HVE's.
    let all_read = drafts.len() == document.many("route").len();
    if all_read && !drafts.iter().any(|draft| draft.route.kind == Kind::Hve) {
        drafts.splice(0..0, unwritten(profile, every, hve_recipients));
    }
    drafts
}

/// A route may stand among the accounts under its name, where case does not count.
fn report_alike(name: &At<String>, earlier: &[At<String>], findings: &Findings<'_>) {
    let alike = |first: &&At<String>| first.value != name.value && first.value.eq_ignore_ascii_case(&name.value);
    if let Some(first) = earlier.iter().find(alike) {
        let found =
            format!("{:?} differs from {:?} in line {} in case alone", name.value, first.value, findings.line(&first.place, &name.place));
        findings.problem(&name.place, found, "give each its own name");
    }
}

fn unwritten(profile: &Profile, every: &Written, recipients_per_delivery: usize) -> Option<Draft> {
    let service = Service::of(Kind::Hve, profile);
    let place = || Place { key: "route".to_owned(), offset: 0 };
    let route = Route {
        name: RouteName::new(DEFAULT_ROUTE),
        kind: Kind::Hve,
        host: profile.host.to_owned(),
        port: profile.port,
        tls: Tls::Required,
        tls_ca_file: None,
        server_name: ServerName::try_from(profile.host).ok()?,
        identity: None,
        takes: service.takes.to_vec(),
        clients: None,
        size_over: 0,
        message_size: service.message_size,
        recipients_per_delivery,
        sender: service.sender.clone(),
        ignored: Vec::new(),
    };
    let (limits, connections) = (every.clone(), service.connections);
    Some(Draft {
        route,
        service,
        limits,
        connections,
        table: reader::implied("route"),
        place: None,
        clients: Vec::new(),
        size_over: place(),
        tls: place(),
    })
}

/// What the keys of the route would mean that is there without being written, if it is.
pub(super) fn note_implied(document: &Document<'_>, drafts: &[Draft]) {
    let Some(Draft { route, service, .. }) = drafts.iter().find(|draft| !draft.is_written()) else { return };
    let section = document.unwritten("route");
    section.note("name", route.name.as_str(), "not written: HVE is there by itself");
    section.note("kind", "hve", "default");
    section.note("host", &route.host, service.name);
    note_rest(&section, route, service);
    section.note("connections", service.connections, "default");
    section.note("size_over", route.size_over, "default");
    section.note("tls", route.tls.as_str(), "default");
    section.same_as("tls_server_name", format!("{}.host", section.place().key));
    section.note("sender", "account", &format!("{} route", service.name));
}

/// What those keys of a route mean whose default is not one of `Section::or`'s.
fn note_rest(section: &Section<'_>, route: &Route, service: &Service) {
    section.note("port", route.port, service.name);
    let takes: Vec<&str> = route.takes.iter().map(|class| class.as_str()).collect();
    section.note("takes", takes, service.name);
    section.note("message_size", route.message_size, service.name);
    match route.kind {
        Kind::Hve => section.same_as("recipients_per_delivery", "upstream.recipients_per_delivery"),
        _ => section.note("recipients_per_delivery", route.recipients_per_delivery, service.name),
    }
}

/// `[upstream] recipients_per_delivery`, which says it for HVE.
fn hve_recipients(document: &Document<'_>, findings: &Findings<'_>, profile: &Profile) -> usize {
    let section = document.one("upstream");
    section.note("recipients_per_delivery", profile.recipients_per_delivery, profile.name);
    let written = section.get("recipients_per_delivery", value::count(1..=1_000));
    warn_of_many_recipients(written.as_ref(), &Service::of(Kind::Hve, profile), findings);
    written.map_or(profile.recipients_per_delivery, |most| most.value)
}

fn warn_of_many_recipients(written: Option<&At<usize>>, service: &Service, findings: &Findings<'_>) {
    if let Some(most) = written.filter(|most| most.value > service.recipients_per_delivery) {
        let found = format!("{} recipients are more than the {} that {} takes", most.value, service.recipients_per_delivery, service.name);
        findings.warning(&most.place, found, "lower it, unless all routes lead elsewhere");
    }
}

/// One `[[route]]`; none if it has no host that could be connected to.
fn draft(
    section: &Section<'_>,
    findings: &Findings<'_>,
    profile: &Profile,
    every: &Written,
    name: RouteName,
    hve_recipients: usize,
) -> Option<Draft> {
    let kind = section.or("kind", value::choice("a kind of route", Kind::WORDS), Kind::Hve);
    let service = Service::of(kind, profile);
    let tls = section.or("tls", value::choice("a protection", Tls::WORDS), Tls::Required);
    let host = match service.host {
        Some(host) => section.or_from("host", value::host, host.to_owned(), service.name),
        None => section.need("host", value::host, kind.host_hint()).map(|host| host.value)?,
    };
    let port = port(section, findings, tls, &service);
    let tls_ca_file = section.get("tls_ca_file", value::path);
    if let Some(At { value, place }) = &tls_ca_file {
        check_certificates(value, place, findings);
    }
    let server_name = section.get("tls_server_name", value::server_name).map(|name| name.value);
    if tls != Tls::None {
        section.same_as("tls_server_name", section.place_of("host").key);
    }
    let identity = identity(section, findings);
    if tls == Tls::None {
        report_unused(section, findings);
    }
    let takes = section.list("takes", value::choice("a class of recipients", CLASSES), "takes = [\"internal\"], or leave it out");
    let clients = section.list("clients", value::name, "clients = [\"devices\"], or leave it out");
    let size_over = section.or("size_over", value::size(0..=1 << 30), 0);
    let message_size = section.get("message_size", value::size(64 << 10..=1 << 30));
    if let Some(size) = message_size.as_ref().filter(|size| kind == Kind::Hve && size.value > service.message_size) {
        let found = format!("{} octets are more than the {} that {} takes", size.value, service.message_size, service.name);
        findings.warning(&size.place, found, "lower it, unless the route leads elsewhere");
    }
    let message_size = message_size.map_or(service.message_size, |size| size.value);
    let recipients = section.get("recipients_per_delivery", value::count(1..=1_000));
    if kind == Kind::Hve {
        warn_of_many_recipients(recipients.as_ref(), &service, findings);
    }
    let default_recipients = if kind == Kind::Hve { hve_recipients } else { service.recipients_per_delivery };
    let keyword = value::choice("an extension that can be done without", Extension::WORDS);
    let ignored = section.list("ehlo_keywords_ignored", keyword, "ehlo_keywords_ignored = [\"CHUNKING\"], or leave it out");
    let limits = limits::of_a_route(section, findings, &service, kind, every);
    let connections = section.or("connections", value::count(1..=1_000), service.connections);
    let route = Route {
        name,
        kind,
        server_name: server_name.or_else(|| ServerName::try_from(host.clone()).ok())?,
        host,
        port,
        tls,
        tls_ca_file: tls_ca_file.map(|file| file.value),
        identity,
        takes: takes.map_or(service.takes.to_vec(), |takes| takes.value.into_iter().map(|class| class.value).collect()),
        clients: clients.as_ref().map(|clients| clients.value.iter().map(|name| ClientName::new(name.value.as_str())).collect()),
        size_over,
        message_size,
        recipients_per_delivery: recipients.map_or(default_recipients, |most| most.value),
        sender: sender::of_route(section, service.sender.clone(), service.name),
        ignored: ignored.map(|ignored| ignored.value.into_iter().map(|extension| extension.value).collect()).unwrap_or_default(),
    };
    note_rest(section, &route, &service);
    Some(Draft {
        route,
        service,
        limits,
        connections,
        table: section.place().key.clone(),
        place: Some(section.place_of("name")),
        clients: clients.map(|clients| clients.value).unwrap_or_default(),
        size_over: section.place_of("size_over"),
        tls: section.place_of("tls"),
    })
}

/// The port that goes with the protection. One that is known to go with another is probably a slip.
fn port(section: &Section<'_>, findings: &Findings<'_>, tls: Tls, service: &Service) -> u16 {
    let default = if tls == Tls::Implicit { IMPLICIT_TLS } else { service.port };
    let Some(At { value: port, place }) = section.get("port", value::port) else { return default };
    if port == IMPLICIT_TLS && tls != Tls::Implicit {
        findings.warning(&place, format!("on port {port} servers speak TLS from the first octet"), "write tls = \"implicit\"");
    } else if matches!(port, 25 | 587) && tls == Tls::Implicit {
        findings.warning(&place, format!("on port {port} servers begin in clear"), "write tls = \"required\"");
    }
    port
}

/// The client's own certificate, if it has one that can be used.
fn identity(section: &Section<'_>, findings: &Findings<'_>) -> Option<Identity> {
    let certificate = section.get("client_certificate_file", value::path);
    let key = section.get("client_key_file", value::path);
    let (certificate, key) = match (certificate, key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (Some(_), None) if !section.has("client_key_file") => {
            let hint = "write the path of the file with the key to that certificate";
            findings.problem(&section.place_of("client_key_file"), "is missing", hint);
            return None;
        }
        (None, Some(_)) if !section.has("client_certificate_file") => {
            let hint = "write the path of the file with the certificate that the key belongs to";
            findings.problem(&section.place_of("client_certificate_file"), "is missing", hint);
            return None;
        }
        _ => return None,
    };
    if let Err(wrong) = password::check_private(&key.value) {
        findings.problem(&key.place, wrong.found, wrong.hint);
        return None;
    }
    let identity = Identity { certificate_file: certificate.value, key_file: key.value };
    // It is read again when connections are made.
    match tls::check_identity(&identity) {
        Ok(()) => {
            let (then, hint) = ("the server may not know the relay any more", "put a new one and its key in their place");
            ending::warn_of(&identity.certificate_file, then, &certificate.place, hint, findings);
            return Some(identity);
        }
        Err(TlsError::Refused(_)) => {
            let (own, certificate) = (identity.key_file.display(), identity.certificate_file.display());
            let hint = "write the path of the key that belongs to the first certificate of client_certificate_file";
            findings.problem(&key.place, format!("{own} is not the key to {certificate}"), hint);
        }
        Err(error @ TlsError::Key(_)) => {
            let hint = "write the path of a file with the key in PEM form, without a passphrase";
            findings.problem(&key.place, format!("{}: {error}", identity.key_file.display()), hint);
        }
        Err(error) => {
            let hint =
                "write the path of a file with the relay's own certificate, in PEM form, and those that lead from it to its authority";
            findings.problem(&certificate.place, format!("{}: {error}", identity.certificate_file.display()), hint);
        }
    }
    None
}

/// What is about certificates means nothing where there are none.
fn report_unused(section: &Section<'_>, findings: &Findings<'_>) {
    for key in ["tls_ca_file", "tls_server_name", "client_certificate_file", "client_key_file"] {
        if section.has(key) {
            findings.problem(&section.place_of(key), "tls = \"none\" has no use for it", "remove it, or write tls = \"required\"");
        }
    }
}

/// Finds out now whether the file will do; it is read again when connections are made.
pub(super) fn check_certificates(file: &Path, place: &Place, findings: &Findings<'_>) {
    let hint = "write the path of a file with the authority's certificate in PEM form";
    let octets = match fs::read(file) {
        Ok(octets) => octets,
        Err(error) => return findings.problem(place, format!("{} cannot be read: {}", file.display(), password::reason(&error)), hint),
    };
    let mut roots = RootCertStore::empty();
    let mut usable = true;
    for certificate in CertificateDer::pem_slice_iter(&octets) {
        usable &= certificate.is_ok_and(|certificate| roots.add(certificate).is_ok());
    }
    if !usable {
        findings.problem(place, format!("{} holds a certificate that cannot be used", file.display()), hint);
    } else if roots.is_empty() {
        findings.problem(place, format!("{} holds no certificate", file.display()), hint);
    }
}

/// The route that an account names, else the first of HVE's.
pub(super) fn of_account<'d>(section: &Section<'_>, findings: &Findings<'_>, drafts: &'d [Draft]) -> Option<&'d Draft> {
    let Some(At { value, place }) = section.get("route", value::name) else {
        return drafts.iter().find(|draft| draft.route.kind == Kind::Hve).filter(|_| !section.has("route"));
    };
    let Some(draft) = drafts.iter().find(|draft| draft.route.name.as_str() == value) else {
        let named = drafts.iter().filter(|draft| !draft.route.name.as_str().is_empty());
        let names: Vec<String> = named.map(|draft| format!("\"{}\"", draft.route.name)).collect();
        let hint = match names.as_slice() {
            [] => "write a [[route]] of that name".to_owned(),
            names => format!("write {}, or a [[route]] of that name", names.join(" or ")),
        };
        findings.problem(&place, format!("{value:?} is not a route"), hint);
        return None;
    };
    if draft.route.kind == Kind::Connector {
        let found = format!("route {value:?} is a connector, which knows the relay by its address or certificate and takes no login");
        findings.problem(&place, found, "write kind = \"smarthost\" with that route, or another route here");
        return None;
    }
    if !draft.route.tls.is_verified() {
        let found = format!("\"{}\" is not for route {value:?}: accounts log in there", draft.route.tls.as_str());
        let hint = "write tls = \"required\" or tls = \"implicit\": a password only goes out to a server whose certificate was verified";
        findings.problem(&draft.tls, found, hint);
    }
    Some(draft)
}

/// What takes the place of accounts on routes that need none: the route itself, under its own name.
pub(super) fn without_accounts(drafts: &[Draft], accounts: &[AccountSettings]) -> Vec<AccountSettings> {
    let alone = |draft: &&Draft| !draft.is_for_accounts() && !accounts.iter().any(|account| account.route == draft.route.name);
    drafts
        .iter()
        .filter(alone)
        .map(|draft| AccountSettings {
            name: AccountName::new(draft.route.name.as_str().to_lowercase()),
            route: draft.route.name.clone(),
            app: None,
            connections: draft.connections,
            limits: draft.limits.limits.clone(),
        })
        .collect()
}

/// Mail to a route of accounts that has none would wait for ever.
pub(super) fn report_idle(findings: &Findings<'_>, drafts: &[Draft], accounts: &[AccountSettings]) {
    for Draft { route, place, .. } in drafts.iter().filter(|draft| draft.is_for_accounts()) {
        let Some(place) = place.as_ref().filter(|_| !accounts.iter().any(|account| account.route == route.name)) else { continue };
        let hint = format!("write route = \"{}\" with at least one [[account]], or remove the route", route.name);
        findings.problem(place, format!("route \"{}\" has no account", route.name), hint);
    }
}

/// What the intake must know of them.
pub(super) fn for_intake(drafts: &[Draft], accounts: &[AccountSettings], tenant: &Limits) -> Vec<intake::RouteSettings> {
    let settings = |draft: &Draft| {
        let route = &draft.route;
        let own = accounts.iter().filter(|account| account.route == route.name).map(|account| &account.limits);
        let shared = Some(tenant).filter(|_| route.kind == Kind::Hve);
        intake::RouteSettings {
            name: route.name.clone(),
            takes: route.takes.clone(),
            clients: route.clients.clone(),
            size_over: route.size_over,
            message_size: route.message_size,
            recipients_per_delivery: route.recipients_per_delivery,
            external_recipients_per_delivery: limits::external_recipients(own.chain(shared)),
        }
    };
    drafts.iter().map(settings).collect()
}

/// Reports what nobody's mail reaches, and small mail that has no way where large mail has one. `most` is the largest message that is accepted.
pub(super) fn check_reach(findings: &Findings<'_>, drafts: &[Draft], intake: &intake::Settings, policy: &Policy, most: u64) {
    for At { value, place } in drafts.iter().flat_map(|draft| &draft.clients) {
        if !intake.clients.iter().any(|client| client.name.as_str() == value) {
            findings.problem(place, format!("{value:?} is not a client"), "write the name of a [[client]]");
        }
    }
    // Between these sizes the choice of a route does not change.
    let mut sizes: Vec<u64> = drafts.iter().flat_map(|draft| [1, draft.route.size_over + 1, draft.route.message_size + 1]).collect();
    sizes.retain(|size| *size <= most);
    sizes.sort_unstable();
    let mut reached: Vec<&RouteName> = Vec::new();
    for client in &intake.clients {
        for class in Class::ALL {
            let ways: Vec<Option<&RouteName>> =
                sizes.iter().map(|size| policy.way(&client.name, class, *size).map(|route| &route.name)).collect();
            let gap = ways.iter().position(Option::is_some).filter(|first| *first > 0);
            if let Some(draft) = gap.and_then(|first| drafts.iter().find(|draft| Some(&draft.route.name) == ways[first])) {
                let found =
                    format!("no route takes {class} mail of {} or less from client \"{}\"", ByteSize(draft.route.size_over), client.name);
                findings.problem(&draft.size_over, found, "lower it, or add a [[route]] that does");
            }
            reached.extend(drafts.iter().map(|draft| &draft.route.name).filter(|name| ways.contains(&Some(name))));
        }
    }
    for Draft { route, place, .. } in drafts.iter().filter(|draft| !intake.clients.is_empty() && !draft.route.takes.is_empty()) {
        if let Some(place) = place.as_ref().filter(|_| !route.name.as_str().is_empty() && !reached.contains(&&route.name)) {
            let found = format!("no mail reaches route \"{}\": others before it take it all, or the relay takes none so large", route.name);
            let hint = "move it up, for the first that takes a recipient gets it, or narrow takes, clients or sizes of those before it";
            findings.problem(place, found, hint);
        }
    }
}
