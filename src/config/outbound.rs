//! The sending side: routes, accounts, upstream connections, the queue.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

use super::app::Apps;
use super::inbound::{Tenant, unique};
use super::problem::{At, Findings, Place};
use super::profile::Profile;
use super::reader::{Document, Section};
use super::{Credentials, PoolSettings, Route, Upstream, limits, password, sender, value};
use crate::{
    mail::{AccountName, Class, RouteName, SenderPolicy},
    schedule::{self, AccountSettings},
    smtp::Mailbox,
    store,
    units::format_duration,
    upstream::{Extension, Timeouts},
};

/// The route that the profile stands for where none is configured.
const DEFAULT_ROUTE: &str = "hve";
/// Connections of an account: HVE documents no limit, other services of the kind allow few.
const CONNECTIONS: usize = 4;
/// What must stay free on the file system of the queue: room for the bookkeeping of what is queued already, and for the rest of the machine.
const FREE_SPACE_RESERVE: u64 = 256 << 20;

const CLASSES: &[(&str, Class)] = &[("internal", Class::Internal), ("external", Class::External)];

/// `[[account]]`
#[derive(Default)]
pub(super) struct Accounts {
    pub settings: Vec<AccountSettings>,
    pub logins: BTreeMap<AccountName, Credentials>,
    /// Those with an address that can be read, whatever else is wrong with them.
    known: BTreeSet<AccountName>,
    /// There are others.
    unknown: bool,
}

impl Accounts {
    /// Whether there is an account of that name. One without a readable address was reported, and may be the one.
    pub fn may_exist(&self, name: &AccountName) -> bool {
        self.unknown || self.known.contains(name)
    }
}

/// The routes, or the profile's endpoint if there are none.
pub(super) fn routes(document: &Document<'_>, findings: &Findings<'_>, profile: &Profile) -> Vec<Route> {
    let sections = document.many("route");
    let mut names: Vec<At<String>> = Vec::new();
    let mut routes: Vec<Route> = Vec::new();
    for section in &sections {
        let name = section.need("name", value::name, &format!("name = {DEFAULT_ROUTE:?}"));
        if let Some(name) = &name {
            unique(name, &names, findings);
        }
        let host = section.need("host", value::host, &format!("host = {:?}", profile.host));
        let host = host.map_or_else(|| profile.host.to_owned(), |host| host.value);
        let port = section.or("port", value::port, profile.port);
        let tls_ca_file = section.get("tls_ca_file", value::path);
        if let Some(At { value, place }) = &tls_ca_file {
            check_certificates(value, place, findings);
        }
        let server_name = section.get("tls_server_name", value::server_name).map(|name| name.value);
        let takes = takes(section, findings, profile, &routes);
        let sender = sender::of_route(section);
        let keyword = value::choice("an extension that can be done without", Extension::WORDS);
        let ignored = section.list("ehlo_keywords_ignored", keyword, "ehlo_keywords_ignored = [\"CHUNKING\"], or leave it out");
        routes.extend(server_name.or_else(|| ServerName::try_from(host.clone()).ok()).map(|server_name| Route {
            name: RouteName::new(name.as_ref().map_or("", |name| name.value.as_str())),
            host,
            port,
            tls_ca_file: tls_ca_file.map(|file| file.value),
            server_name,
            takes,
            sender,
            ignored: ignored.map(|ignored| ignored.value.into_iter().map(|extension| extension.value).collect()).unwrap_or_default(),
        }));
        names.extend(name);
    }
    if sections.is_empty() {
        routes.extend(ServerName::try_from(profile.host).ok().map(|server_name| Route {
            name: RouteName::new(DEFAULT_ROUTE),
            host: profile.host.to_owned(),
            port: profile.port,
            tls_ca_file: None,
            server_name,
            takes: profile.takes.to_vec(),
            sender: SenderPolicy::default(),
            ignored: Vec::new(),
        }));
    }
    routes
}

/// The classes that a route takes; each may have one route only.
fn takes(section: &Section<'_>, findings: &Findings<'_>, profile: &Profile, earlier: &[Route]) -> Vec<Class> {
    let written = section.list("takes", value::choice("a class of recipients", CLASSES), "takes = [\"internal\"], or leave it out");
    let (classes, place) = match written {
        Some(At { value, place }) => (value.into_iter().map(|class| class.value).collect(), place),
        None => (profile.takes.to_vec(), section.place().clone()),
    };
    let owner = |class| earlier.iter().find(|route| route.takes.contains(&class));
    let (taken, free): (Vec<Class>, Vec<Class>) = classes.into_iter().partition(|class| owner(*class).is_some());
    if let Some((class, route)) = taken.first().and_then(|class| Some((class, owner(*class)?))) {
        let hint = "write takes = [\"internal\"] with one route and takes = [\"external\"] with another, so that every class has one route";
        findings.problem(&place, format!("{class} mail goes to route \"{}\" already", route.name), hint);
    }
    free
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

/// The accounts and their credentials.
pub(super) fn accounts(document: &Document<'_>, findings: &Findings<'_>, tenant: &Tenant, routes: &[Route], apps: &mut Apps) -> Accounts {
    let sections = document.at_least_one("account", "address = \"hve01@contoso.com\" and password_file");
    let mut accounts = Accounts { unknown: sections.is_empty(), ..Accounts::default() };
    let every = limits::of_every_account(document, findings, tenant.profile);
    if let Some(first) = sections.get(tenant.profile.accounts) {
        let found = format!("there are {} accounts, and {} allows {}", sections.len(), tenant.profile.name, tenant.profile.accounts);
        findings.problem(first.place(), found, "remove those from here on");
    }
    for section in &sections {
        let address = section.need("address", value::mailbox, "address = \"hve01@contoso.com\"");
        let credentials = apps.credentials(section, address.as_ref().map(|address| &address.value), findings);
        let connections = section.or("connections", value::count(1..=1_000), CONNECTIONS);
        let route = route(section, findings, routes);
        let limits = limits::of_an_account(section, findings, tenant.profile, &every);
        let Some(At { value: address, place }) = address else {
            accounts.unknown = true;
            continue;
        };
        let name = AccountName::new(address.as_str().to_lowercase());
        if !accounts.known.insert(name.clone()) {
            findings.problem(&place, format!("\"{address}\" stands in another account already"), "remove one of the two");
            continue;
        }
        warn_of_foreign_domain(&address, &place, tenant, findings);
        accounts.settings.extend(route.map(|route| AccountSettings {
            name: name.clone(),
            route,
            app: credentials.as_ref().and_then(|credentials| credentials.proof.app().cloned()),
            connections,
            limits,
        }));
        accounts.logins.extend(credentials.map(|credentials| (name, credentials)));
    }
    report_idle_routes(document, findings, routes, &accounts.settings);
    accounts
}

/// The route that an account names, else the first.
fn route(section: &Section<'_>, findings: &Findings<'_>, routes: &[Route]) -> Option<RouteName> {
    let Some(At { value, place }) = section.get("route", value::name) else {
        return routes.first().map(|route| route.name.clone());
    };
    let found = routes.iter().find(|route| route.name.as_str() == value).map(|route| route.name.clone());
    if found.is_none() {
        let named = routes.iter().filter(|route| !route.name.as_str().is_empty());
        let names: Vec<String> = named.map(|route| format!("\"{}\"", route.name)).collect();
        let hint = match names.as_slice() {
            [] => "write a [[route]] of that name".to_owned(),
            names => format!("write {}, or a [[route]] of that name", names.join(" or ")),
        };
        findings.problem(&place, format!("{value:?} is not a route"), hint);
    }
    found
}

fn warn_of_foreign_domain(address: &Mailbox, place: &Place, tenant: &Tenant, findings: &Findings<'_>) {
    let domain = address.domain().to_lowercase();
    if !tenant.accepted_domains.is_empty() && !tenant.accepted_domains.contains(&domain) {
        let found = format!("{domain:?} is not one of tenant.accepted_domains");
        findings.warning(place, found, "add it there if the tenant has it, or correct the address");
    }
}

/// Mail to a route without an account would wait for ever.
fn report_idle_routes(document: &Document<'_>, findings: &Findings<'_>, routes: &[Route], accounts: &[AccountSettings]) {
    for section in document.many("route").iter().filter(|_| !accounts.is_empty()) {
        let Some(name) = section.get("name", value::name) else { continue };
        let known = routes.iter().any(|route| route.name.as_str() == name.value);
        if known && !accounts.iter().any(|account| account.route.as_str() == name.value) {
            let found = format!("route {:?} has no account", name.value);
            findings.problem(
                &name.place,
                found,
                format!("write route = {:?} with at least one [[account]], or remove the route", name.value),
            );
        }
    }
}

/// `[upstream]`: how connections are used, and how many recipients travel together.
pub(super) fn upstream(document: &Document<'_>, findings: &Findings<'_>, profile: &Profile) -> (Upstream, usize) {
    let section = document.one("upstream");
    let default = Upstream::default();
    let recipients = section.get("recipients_per_delivery", value::count(1..=1_000));
    if let Some(most) = recipients.as_ref().filter(|most| most.value > profile.recipients_per_delivery) {
        let found = format!("{} recipients are more than the {} that {} takes", most.value, profile.recipients_per_delivery, profile.name);
        findings.warning(&most.place, found, "lower it, unless all routes lead elsewhere");
    }
    let wait = || value::duration(Duration::from_millis(100)..=Duration::from_secs(3_600));
    let upstream = Upstream {
        timeouts: Timeouts {
            connect: section.or("connect", wait(), default.timeouts.connect),
            greeting: section.or("greeting", wait(), default.timeouts.greeting),
            command: section.or("command", wait(), default.timeouts.command),
            data: section.or("data", wait(), default.timeouts.data),
            block: section.or("block", wait(), default.timeouts.block),
            end_of_data: section.or("end_of_data", wait(), default.timeouts.end_of_data),
        },
        pool: PoolSettings {
            idle: section.or("idle", wait(), default.pool.idle),
            age: section.or("age", value::duration(Duration::from_secs(10)..=Duration::from_secs(86_400)), default.pool.age),
            transactions: section
                .get("messages_per_connection", value::number(1..=1_000_000))
                .map_or(default.pool.transactions, |most| u32::try_from(most.value).unwrap_or(u32::MAX)),
        },
    };
    (upstream, recipients.map_or(profile.recipients_per_delivery, |most| most.value))
}

/// `[queue]`, as far as it says when things are tried; the rest of the settings is still empty.
pub(super) fn schedule(document: &Document<'_>, findings: &Findings<'_>) -> schedule::Settings {
    let section = document.one("queue");
    let default = schedule::Settings::default();
    let wait = || value::duration(Duration::from_millis(100)..=Duration::from_secs(7 * 86_400));
    let settings = schedule::Settings {
        retry_min: section.or("retry_min", wait(), default.retry_min),
        retry_max: section.or("retry_max", wait(), default.retry_max),
        lifetime: section.or("lifetime", value::duration(Duration::from_secs(1)..=Duration::from_secs(365 * 86_400)), default.lifetime),
        pause_min: section.or("pause_min", wait(), default.pause_min),
        pause_max: section.or("pause_max", wait(), default.pause_max),
        probe: section.or("probe", wait(), default.probe),
        ..default
    };
    let order = |small: &str, least: Duration, large: &str, most: Duration| {
        if least > most {
            let place = section.place_of(if section.has(large) { large } else { small });
            let found = format!("{small}, {}, is more than {large}, {}", format_duration(least), format_duration(most));
            findings.problem(&place, found, format!("lower {small}, or raise {large}"));
        }
    };
    order("retry_min", settings.retry_min, "retry_max", settings.retry_max);
    order("retry_min", settings.retry_min, "lifetime", settings.lifetime);
    order("pause_min", settings.pause_min, "pause_max", settings.pause_max);
    settings
}

/// Where the queue lies.
pub(super) fn data_dir(document: &Document<'_>, findings: &Findings<'_>) -> PathBuf {
    let Some(At { value, place }) = document.top().need("data_dir", value::path, "data_dir = \"/var/lib/hve-relay\"") else {
        return PathBuf::new();
    };
    if value.exists() && !value.is_dir() {
        findings.problem(&place, format!("{} is not a directory", value.display()), "write the path of a directory of the relay's own");
    }
    value
}

/// The queue's directory, and what must stay free there.
pub(super) fn store(document: &Document<'_>, data_dir: PathBuf, message_size: u64) -> store::Settings {
    let reserve = document.one("queue").or("free_space_reserve", value::size(0..=1 << 40), FREE_SPACE_RESERVE);
    store::Settings { data_dir, reserve, message_size }
}
