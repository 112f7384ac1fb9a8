//! The receiving side: tenant, clients, the limits of sessions.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use ipnet::IpNet;

use super::outbound::Accounts;
use super::problem::{At, Findings, Place};
use super::profile::{HVE_PREVIEW, PROFILES, Profile};
use super::reader::{Document, Section};
use super::routes::Draft;
use super::user::clients_with_users;
use super::value;
use super::{intake, schedule};
use crate::{
    budget::Limits,
    intake::{LineEndings, Rate},
    mail::{AccountName, ClientName, Priority, RouteName},
    schedule::{AccountSettings, Affinity, OnDoubt},
    session,
};

const LINE_ENDINGS: &[(&str, LineEndings)] = &[("normalize", LineEndings::Normalize), ("refuse", LineEndings::Refuse)];
const PRIORITIES: &[(&str, Priority)] = &[("high", Priority::High), ("normal", Priority::Normal), ("bulk", Priority::Bulk)];

/// `[tenant]`
pub(super) struct Tenant {
    pub profile: &'static Profile,
    /// In lower case, each once.
    pub accepted_domains: Vec<String>,
    /// The share of each day's budget that only mail of high priority may use, in hundredths.
    pub reserve: u8,
}

/// `[[client]]`, once for each room that knows clients.
#[derive(Default)]
pub(super) struct Clients {
    pub intake: Vec<intake::ClientSettings>,
    pub schedule: Vec<schedule::ClientSettings>,
}

pub(super) fn tenant(document: &Document<'_>, findings: &Findings<'_>) -> Tenant {
    let section = document.one("tenant");
    let profile = section.or("profile", value::choice("a profile", PROFILES), &HVE_PREVIEW);
    let mut accepted_domains: Vec<String> = Vec::new();
    for At { value, place } in section.need_list("accepted_domains", value::domain, "accepted_domains = [\"contoso.com\"]") {
        if accepted_domains.contains(&value) {
            findings.warning(&place, format!("{value:?} stands in the list already"), "remove it");
        } else {
            accepted_domains.push(value);
        }
    }
    section.note("reserve", "0%", "default");
    let reserve = section.get("reserve", value::percentage(0..=90)).map_or(0, |share| share.value);
    Tenant { profile, accepted_domains, reserve }
}

/// The clients, which name accounts.
pub(super) fn clients(
    document: &Document<'_>,
    findings: &Findings<'_>,
    message_size: u64,
    accounts: &Accounts,
    routes: &[Draft],
) -> Clients {
    let mut names: Vec<At<String>> = Vec::new();
    let mut seen: Vec<At<IpNet>> = Vec::new();
    let mut clients = Clients::default();
    let with_users = clients_with_users(document);
    for section in document.at_least_one("client", "name = \"devices\" and networks = [\"10.20.0.0/16\"]") {
        let name = section.need("name", value::name, "name = \"devices\"");
        if let Some(name) = &name {
            unique(name, &names, findings);
        }
        let any_address = section.or("allow_any_address", value::truth, false);
        // Whoever is reached by logging in needs no network.
        let has_users = name.as_ref().is_some_and(|name| with_users.contains(&name.value));
        let networks = if has_users && !section.has("networks") {
            Vec::new()
        } else {
            section.need_list("networks", value::network, "networks = [\"10.20.0.0/16\"]")
        };
        for network in &networks {
            if let Some(first) = seen.iter().find(|first| first.value == network.value) {
                let found = format!("\"{}\" stands at {} already", network.value, first.place.key);
                findings.problem(&network.place, found, "keep it in one place, for it decides which client a connection is");
            } else if !any_address {
                refuse_open_relay(network, findings);
                warn_of_public(network, findings);
            }
        }
        seen.extend(networks.iter().cloned());
        let own = ClientName::new(name.as_ref().map_or("", |name| name.value.as_str()));
        let networks = networks.into_iter().map(|network| network.value).collect();
        let default = intake::ClientSettings::new(own.clone(), networks);
        let route = own_route(&section, findings, default.name.as_str(), routes);
        clients.intake.push(permissions(&section, findings, message_size, intake::ClientSettings { route, ..default }));
        let default = schedule::ClientSettings::new(own);
        section.note("weight", default.weight, "default");
        section.same_as("in_doubt", "queue.in_doubt");
        clients.schedule.push(schedule::ClientSettings {
            weight: section.get("weight", value::number(1..=1_000)).map_or(default.weight, |weight| weight.value as u32),
            accounts: permitted(&section, findings, accounts, routes),
            affinity: section.or("affinity", value::choice("an affinity", Affinity::WORDS), default.affinity),
            in_doubt: section.get("in_doubt", value::choice("a way to treat mail in doubt", OnDoubt::WORDS)).map(|found| found.value),
            ..default
        });
        names.extend(name);
    }
    clients
}

/// What a client may do, where it is not what all may; the largest message of all is given.
fn permissions(
    section: &Section<'_>,
    findings: &Findings<'_>,
    message_size: u64,
    default: intake::ClientSettings,
) -> intake::ClientSettings {
    let patterns = |key, hint| {
        let written = section.list(key, value::pattern, hint)?;
        Some(written.value.into_iter().map(|pattern| pattern.value).collect())
    };
    let per_minute = |key| {
        let most = section.or(key, value::or_none(value::number(1..=u64::from(intake::MOST_PER_MINUTE))), None)?;
        u32::try_from(most).ok().and_then(NonZeroU32::new)
    };
    section.same_as("message_size", "limits.message_size");
    let size = section.get("message_size", value::size(64 << 10..=1 << 30));
    if let Some(At { value, place }) = size.as_ref().filter(|size| size.value > message_size) {
        let found = format!("{value} octets are more than everybody's limit, {message_size}");
        findings.problem(place, found, "lower it, or raise limits.message_size");
    }
    let hidden = section.list("ehlo_keywords_hidden", value::keyword, "ehlo_keywords_hidden = [\"SMTPUTF8\"], or leave it out");
    intake::ClientSettings {
        priority: section.or("priority", value::choice("a priority", PRIORITIES), default.priority),
        may_choose_priority: section.or("may_choose_priority", value::truth, default.may_choose_priority),
        allow_plaintext_auth: section.or("allow_plaintext_auth", value::truth, default.allow_plaintext_auth),
        allowed_senders: patterns("allowed_senders", "allowed_senders = [\"scanner@contoso.com\", \"@contoso.com\"], or leave it out"),
        allowed_recipients: patterns("allowed_recipients", "allowed_recipients = [\"@contoso.com\"], or leave it out"),
        required_from_domain: section.one_or_more("required_from_domain", value::domain, "required_from_domain = \"contoso.com\""),
        message_size: size.map(|size| size.value).filter(|size| *size < message_size),
        line_endings: section.or("line_endings", value::choice("what becomes of line ends", LINE_ENDINGS), default.line_endings),
        ehlo_keywords_hidden: hidden.map(|hidden| hidden.value.into_iter().map(|keyword| keyword.value).collect()).unwrap_or_default(),
        connections_per_minute: per_minute(Rate::Connections.key()),
        messages_per_minute: per_minute(Rate::Messages.key()),
        recipients_per_minute: per_minute(Rate::Recipients.key()),
        ..default
    }
}

/// The route that the client's mail is to take before any other.
fn own_route(section: &Section<'_>, findings: &Findings<'_>, client: &str, routes: &[Draft]) -> Option<RouteName> {
    let At { value, place } = section.get("route", value::name)?;
    let Some(Draft { route, .. }) = routes.iter().find(|draft| draft.route.name.as_str() == value) else {
        findings.problem(&place, format!("{value:?} is not a route"), "write the name of a [[route]], or add one of that name");
        return None;
    };
    if route.clients.as_ref().is_some_and(|clients| !clients.iter().any(|listed| listed.as_str() == client)) {
        let hint = format!("add {client:?} there, or write another route here");
        findings.problem(&place, format!("route {value:?} has a list of clients without this one"), hint);
    }
    Some(route.name.clone())
}

/// The accounts that a client's mail may go through, if not all. Where a route has no accounts, all may go by it.
fn permitted(section: &Section<'_>, findings: &Findings<'_>, accounts: &Accounts, routes: &[Draft]) -> Option<Vec<AccountName>> {
    let At { value: written, place } = section.list("accounts", value::mailbox, "accounts = [\"hve01@contoso.com\"], or leave it out")?;
    let mut permitted: Vec<AccountName> = Vec::new();
    for At { value, place } in written {
        let name = AccountName::new(value.as_str().to_lowercase());
        if permitted.contains(&name) {
            findings.warning(&place, format!("\"{value}\" stands in the list already"), "remove it");
        } else if !accounts.may_exist(&name) {
            findings.problem(&place, format!("\"{value}\" is not an account"), "write the address of an [[account]], or add one with it");
        } else {
            permitted.push(name);
        }
    }
    permitted.extend(accounts.settings.iter().map(|account| &account.name).filter(|name| !accounts.is_written(name)).cloned());
    warn_of_routes_without(&permitted, &accounts.settings, routes, &place, findings);
    Some(permitted)
}

/// Mail of a client to a route on which none of its accounts is would wait until it is given up.
fn warn_of_routes_without(
    permitted: &[AccountName],
    accounts: &[AccountSettings],
    routes: &[Draft],
    place: &Place,
    findings: &Findings<'_>,
) {
    let reached: Vec<&RouteName> =
        accounts.iter().filter(|account| permitted.contains(&account.name)).map(|account| &account.route).collect();
    let routes = routes.iter().map(|draft| &draft.route);
    for route in routes.filter(|route| !reached.is_empty() && !route.takes.is_empty() && !reached.contains(&&route.name)) {
        let classes: Vec<&str> = route.takes.iter().map(|class| class.as_str()).collect();
        let found = format!("none of these accounts is on route \"{}\"", route.name);
        let hint = format!("add one that is, for the client's {} mail would wait until it is given up", classes.join(" and "));
        findings.warning(place, found, hint);
    }
}

/// A reserve that nobody can use, or that is a share of nothing, is probably not meant.
pub(super) fn check_reserve<'l>(
    document: &Document<'_>,
    findings: &Findings<'_>,
    reserve: u8,
    clients: &Clients,
    mut limits: impl Iterator<Item = &'l Limits>,
) {
    if reserve == 0 {
        return;
    }
    let place = document.one("tenant").place_of("reserve");
    if !limits.any(|limits| limits.recipients_per_day.or(limits.external_recipients_per_day).is_some()) {
        let hint = "remove it, or write recipients_per_day below [account_limits] or [tenant_limits]";
        findings.warning(&place, "nothing limits the recipients of a day, so there is nothing to keep a share of", hint);
    } else if !clients.intake.iter().any(|client| client.priority == Priority::High || client.may_choose_priority) {
        let hint = "write priority = \"high\" or may_choose_priority = true with a client, or remove it";
        findings.warning(&place, "no client's mail has high priority, so nobody can use what is kept", hint);
    }
}

/// Nobody has a network this large: it is a slip of the pen, or an open relay.
fn refuse_open_relay(network: &At<IpNet>, findings: &Findings<'_>) {
    let (prefix, least) = match network.value {
        IpNet::V4(v4) => (v4.prefix_len(), 8),
        IpNet::V6(v6) => (v6.prefix_len(), 7),
    };
    if prefix < least {
        let found = format!("\"{}\" would make an open relay", network.value);
        let hint = "write the networks of your own devices; if something else keeps strangers out, write allow_any_address = true with this client";
        findings.problem(&network.place, found, hint);
    }
}

/// Whoever has an address there can send through the relay, unless something else keeps strangers out. A single address is nobody else's.
fn warn_of_public(network: &At<IpNet>, findings: &Findings<'_>) {
    if network.value.prefix_len() < network.value.max_prefix_len() && intake::is_public(&network.value) {
        let found = format!("\"{}\" has public addresses, and whoever has one of them can send mail as yours", network.value);
        findings.warning(&network.place, found, "make sure that all of them are your own, or write the private networks of your devices");
    }
}

/// Reports a name that another table of the kind has.
pub(super) fn unique(name: &At<String>, earlier: &[At<String>], findings: &Findings<'_>) {
    if let Some(first) = earlier.iter().find(|first| first.value == name.value) {
        let found = format!("{:?} is the name of another one, in line {}", name.value, findings.line(&first.place, &name.place));
        findings.problem(&name.place, found, "give each its own name");
    }
}

/// What every session keeps to: `[limits]`, `[timeouts]`, and the name.
pub(super) fn session(document: &Document<'_>, findings: &Findings<'_>, routes: &[Draft], profile: &Profile) -> session::Settings {
    let default = session::Settings::default();
    let limits = document.one("limits");
    let timeouts = document.one("timeouts");
    // RFC 5321 §4.5.3.1.7: a server must take messages of 64 KiB at least.
    let message_size = limits.get("message_size", value::size(64 << 10..=1 << 30));
    let largest = routes.iter().map(|draft| draft.route.message_size).max().unwrap_or(profile.message_size);
    if let Some(size) = message_size.as_ref().filter(|size| size.value > largest) {
        let found = format!("{} octets are more than the {largest} that a route takes", size.value);
        findings.warning(
            &size.place,
            found,
            "lower it, or add a [[route]] with a larger message_size: until then mail above that is refused",
        );
    }
    limits.note("message_size", largest, "the largest that a route takes");
    let wait = || value::duration(Duration::from_secs(1)..=Duration::from_secs(86_400));
    session::Settings {
        hostname: hostname(document, findings, &default.hostname),
        message_size: message_size.map_or(largest, |size| size.value),
        // RFC 5321 §4.5.3.1.8: 100 at least.
        recipients: limits.or("recipients", value::count(100..=100_000), default.recipients),
        transactions: limits.or("transactions", value::count(1..=1_000_000), default.transactions),
        // RFC 5321 §4.5.3.1.4: 512 at least.
        command_line: limits.or("command_line", value::octets(512..=64 << 10), default.command_line),
        header_size: limits.or("header_size", value::octets(4 << 10..=16 << 20), default.header_size),
        errors: limits.or("errors", value::count(1..=10_000), default.errors),
        commands_without_mail: limits.or("commands_without_mail", value::count(10..=1_000_000), default.commands_without_mail),
        command_timeout: timeouts.or("command", wait(), default.command_timeout),
        data_timeout: timeouts.or("data", wait(), default.data_timeout),
        handshake_timeout: timeouts.or("handshake", wait(), default.handshake_timeout),
        login_timeout: timeouts.or("login", wait(), default.login_timeout),
        // What is offered is each listener's own.
        entrance: default.entrance,
    }
}

/// The names of the clients, as written.
pub(super) fn client_names(clients: &Clients) -> BTreeSet<String> {
    clients.intake.iter().map(|client| client.name.to_string()).collect()
}

/// Sessions at a time, in total and from one address.
pub(super) fn sessions(document: &Document<'_>, findings: &Findings<'_>) -> (usize, usize) {
    let limits = document.one("limits");
    let total = limits.or("sessions", value::count(1..=100_000), 1_000);
    let each = limits.get("sessions_per_address", value::count(1..=100_000));
    if let Some(each) = each.as_ref().filter(|each| each.value > total) {
        findings.warning(
            &each.place,
            format!("{} is more than limits.sessions, {total}", each.value),
            "lower it, or raise limits.sessions",
        );
    }
    limits.note("sessions_per_address", 100.min(total), "default");
    (total, each.map_or(100.min(total), |each| each.value))
}

/// The name as configured, else the machine's.
fn hostname(document: &Document<'_>, findings: &Findings<'_>, last_resort: &str) -> String {
    let top = document.top();
    let (name, place) = match top.get("hostname", value::host_name) {
        Some(At { value, place }) => (value, place),
        None if top.has("hostname") => return last_resort.to_owned(),
        None => {
            let place = Place { key: "hostname".to_owned(), offset: 0 };
            match rustix::system::uname().nodename().to_str() {
                Ok(name) if name.is_ascii() && value::is_host_name(name) => (name.to_owned(), place),
                _ => (last_resort.to_owned(), place),
            }
        }
    };
    top.note("hostname", &name, "the machine's name");
    if !name.contains('.') {
        let hint = format!("write hostname = \"{name}.contoso.com\", with your domain: some servers mistrust names without one");
        findings.warning(&place, format!("the relay calls itself {name:?}"), hint);
    }
    name
}
