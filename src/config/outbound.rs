//! The sending side: accounts, upstream connections, the queue.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::app::Apps;
use super::inbound::Tenant;
use super::limits::{self, Written};
use super::problem::{At, Findings, Place};
use super::profile::{Kind, Service};
use super::reader::{Document, Section};
use super::routes::{self, Draft};
use super::{Credentials, PoolSettings, Upstream, value};
use crate::{
    mail::AccountName,
    schedule::{self, ACCOUNTS_MAX, AccountSettings, OnDoubt},
    smtp::Mailbox,
    store,
    units::format_duration,
    upstream::Timeouts,
};

/// What must stay free on the file system of the queue: room for the bookkeeping of what is queued already, and for the rest of the machine.
const FREE_SPACE_RESERVE: u64 = 256 << 20;

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

    /// Whether it is an `[[account]]`, and not a route without one.
    pub fn is_written(&self, name: &AccountName) -> bool {
        self.known.contains(name)
    }
}

/// The accounts and their credentials.
pub(super) fn accounts(document: &Document<'_>, findings: &Findings<'_>, tenant: &Tenant, routes: &[Draft], apps: &mut Apps) -> Accounts {
    let sections = if routes.iter().all(Draft::is_for_accounts) {
        document.at_least_one("account", "address = \"hve01@contoso.com\" and password_file")
    } else {
        document.many("account")
    };
    let mut accounts = Accounts { unknown: sections.is_empty(), ..Accounts::default() };
    let mut of_hve: Vec<&Section<'_>> = Vec::new();
    let hve = Service::of(Kind::Hve, tenant.profile);
    let every = Written::from(&hve.limits);
    for section in &sections {
        let address = section.need("address", value::mailbox, "address = \"hve01@contoso.com\"");
        let credentials = apps.credentials(section, address.as_ref().map(|address| &address.value), findings);
        let draft = routes::of_account(section, findings, routes);
        of_hve.extend(draft.filter(|draft| draft.route.kind == Kind::Hve).map(|_| section));
        // Of an account on no route the values are looked at all the same.
        let (service, limits) = draft.map_or((&hve, &every), |draft| (&draft.service, &draft.limits));
        let connections = section.or("connections", value::count(1..=1_000), draft.map_or(hve.connections, |draft| draft.connections));
        if let Some(draft) = draft {
            section.same_as("connections", format!("{}.connections", draft.table));
            section.note("route", draft.route.name.as_str(), "default");
        }
        let limits = limits::of_an_account(section, findings, service, limits);
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
        let route = draft.map(|draft| draft.route.name.clone());
        accounts.settings.extend(route.map(|route| AccountSettings {
            name: name.clone(),
            route,
            app: credentials.as_ref().and_then(|credentials| credentials.proof.app().cloned()),
            connections,
            limits,
        }));
        accounts.logins.extend(credentials.map(|credentials| (name, credentials)));
    }
    if let Some(first) = of_hve.get(tenant.profile.accounts) {
        let found = format!("there are {} accounts, and {} allows {}", of_hve.len(), tenant.profile.name, tenant.profile.accounts);
        findings.problem(first.place(), found, "remove those from here on");
    }
    if !accounts.settings.is_empty() || sections.is_empty() {
        routes::report_idle(findings, routes, &accounts.settings);
    }
    accounts.settings.extend(routes::without_accounts(routes, &accounts.settings));
    if let Some(section) = sections.get(ACCOUNTS_MAX).filter(|_| accounts.settings.len() > ACCOUNTS_MAX) {
        let found = format!("{} accounts and routes without one are more than the {ACCOUNTS_MAX} of one relay", accounts.settings.len());
        findings.problem(section.place(), found, "remove some, or divide them between two relays");
    }
    accounts
}

fn warn_of_foreign_domain(address: &Mailbox, place: &Place, tenant: &Tenant, findings: &Findings<'_>) {
    let domain = address.domain().to_lowercase();
    if !tenant.accepted_domains.is_empty() && !tenant.accepted_domains.contains(&domain) {
        let found = format!("{domain:?} is not one of tenant.accepted_domains");
        findings.warning(place, found, "add it there if the tenant has it, or correct the address");
    }
}

/// `[upstream]`: how connections are used.
pub(super) fn upstream(document: &Document<'_>) -> Upstream {
    let section = document.one("upstream");
    let default = Upstream::default();
    let wait = || value::duration(Duration::from_millis(100)..=Duration::from_secs(3_600));
    section.note("messages_per_connection", default.pool.transactions, "default");
    Upstream {
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
    }
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
        in_doubt: section.or("in_doubt", value::choice("a way to treat mail in doubt", OnDoubt::WORDS), default.in_doubt),
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
