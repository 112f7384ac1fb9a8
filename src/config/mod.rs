//! The configuration: what was written, and what it means.
//!
//! A file, with those that it includes (`include`), goes through three steps, and whatever is wrong in any of them is told in one go, with line, key, what was found and what to write:
//! 1. the text becomes TOML (`reader`), and keys that nobody knows are reported (`schema`);
//! 2. each value becomes what it means (`value`), or a problem, or its default. A default is the one of the room whose setting it is, or stands
//!    in `profile` (the service's own numbers) or here;
//! 3. the values are held against each other (`inbound`, `routes`, `outbound`, `limits`): duplicates, names that lead nowhere, limits of the service.
//!
//! What comes out are the rooms' own settings types; no room knows this one. A [`Config`] is plain data: reading it opens the files that it
//! names (passwords, certificates, keys) and resolves listener names, and does nothing else.

mod admin;
mod app;
mod control;
mod effective;
mod ending;
mod history;
mod inbound;
mod include;
mod limits;
mod listener;
mod log;
mod notices;
mod outbound;
mod password;
mod problem;
mod profile;
mod reader;
mod replies;
mod routes;
mod schema;
mod sender;
mod summary;
mod unreached;
mod user;
mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeTable;

pub use admin::{Admin, AdminUser};
pub use listener::Listener;
pub use problem::{Problem, Problems, Warning};
pub use profile::{HVE_GA, HVE_PREVIEW, Kind, Profile};
pub use routes::{Route, Tls};
pub use schema::{Form, SCHEMA, Table};

use crate::{
    budget::Share,
    intake::{self, UserSettings},
    mail::{AccountName, AppName, Class, Senders},
    notice,
    reply::Entry,
    schedule,
    secret::Secret,
    session, store, telemetry,
    tls::{self, Opportunistic, TlsError},
    upstream::{Endpoint, PoolSettings, Security, Timeouts, oauth::App},
};
use problem::{Findings, Reader};
use reader::Document;

/// Everything that was configured.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The service's era, from which endpoint and limits come.
    pub profile: &'static Profile,
    /// Where to listen. A name with several addresses stands here with all of them.
    pub listeners: Vec<Listener>,
    /// The receiving side of SMTP.
    pub session: session::Settings,
    /// Whom the relay serves.
    pub intake: intake::Settings,
    /// Who may log in.
    pub users: Vec<UserSettings>,
    /// Failed logins after which an address may not try again for a while.
    pub login_failures: usize,
    /// What goes next, on which account.
    pub schedule: schedule::Settings,
    /// Where the queue lies.
    pub store: store::Settings,
    /// How much of the past is kept.
    pub history: store::HistorySettings,
    /// What a million recipients cost, for reports.
    pub price_per_million: f64,
    /// The Unix socket on which the running relay answers the operator's commands; at most 100 octets.
    pub control_socket: PathBuf,
    /// Where it answers over HTTP, and to whom.
    pub admin: Admin,
    /// The servers that mail goes to; never empty.
    pub routes: Vec<Route>,
    /// Each account's credentials. Its keys are those of `schedule.accounts` but for routes without an account, which stand there too, under
    /// their own names.
    pub logins: BTreeMap<AccountName, Credentials>,
    /// The OAuth applications, by name.
    pub apps: Vec<App>,
    /// As whom each client's mail goes out.
    pub senders: Senders,
    /// How connections to those servers are used.
    pub upstream: Upstream,
    /// What servers' replies mean, before what the built-in catalogue says.
    pub replies: Vec<Entry>,
    /// What is logged, where, and in which form.
    pub log: telemetry::Settings,
    /// Who is told what, and how often.
    pub notices: notice::Settings,
    /// How long a stop waits for deliveries in flight.
    pub grace: Duration,
}

/// How an account logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Its user name.
    pub user: String,
    /// What proves that it is who it says.
    pub proof: Proof,
}

/// See [`Credentials`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// A password of its own.
    Password(Secret),
    /// The tokens of an application: one of [`Config::apps`].
    App(AppName),
}

impl Proof {
    /// The application, if there is one.
    pub fn app(&self) -> Option<&AppName> {
        match self {
            Self::Password(_) => None,
            Self::App(name) => Some(name),
        }
    }
}

/// A configuration that a person looks at.
#[derive(Debug, Clone, PartialEq)]
pub struct Examined {
    /// What it means. Accounts whose password is a credential of systemd have no login here.
    pub config: Config,
    /// What is probably not meant.
    pub warnings: Vec<Warning>,
    /// The whole of it, what was not written included, each value with where it comes from; secrets are `(hidden)`.
    pub effective: String,
    /// The files that it names, each with where it does so (`FILE:LINE`).
    pub files: Vec<(String, PathBuf)>,
}

/// How upstream connections are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Upstream {
    /// How long each step of a conversation may take.
    pub timeouts: Timeouts,
    /// How long connections stay warm.
    pub pool: PoolSettings,
}

impl Config {
    /// Reads a configuration file and the files that it names.
    ///
    /// # Errors
    /// All problems of the file at once, or that it could not be read.
    pub fn load(path: &Path) -> Result<(Self, Vec<Warning>), Problems> {
        Self::from_str(&include::text_of(path)?, path)
    }

    /// Reads a configuration file, and the files that it names, for a look at it. Credentials that systemd gives to the relay alone need not be
    /// there.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn examine(path: &Path) -> Result<Examined, Problems> {
        let (config, warnings, (effective, files)) = read(&include::text_of(path)?, path, Reader::Person, effective::print)?;
        Ok(Examined { config, warnings, effective, files })
    }

    /// The `control_socket` of a configuration file, whatever else it says, and without reading the files that it names or includes: an operator
    /// who may use the socket need not be able to read the accounts' passwords, and who has made a mistake further down is told of it by the
    /// relay.
    ///
    /// # Errors
    /// If the file cannot be read, or says nothing that makes sense about the socket.
    pub fn control_socket(path: &Path) -> Result<PathBuf, Problems> {
        Self::places(&include::any_text_of(path)?, path).map(|(_, socket)| socket)
    }

    /// The `data_dir` of a configuration file, in the same way: whoever saves or repairs what lies there need not be able to read the passwords.
    ///
    /// # Errors
    /// As [`Self::control_socket`], and if the file is not one that a relay would read.
    pub fn data_dir(path: &Path) -> Result<PathBuf, Problems> {
        Self::places(&include::text_of(path)?, path).map(|(data_dir, _)| data_dir)
    }

    fn places(text: &str, path: &Path) -> Result<(PathBuf, PathBuf), Problems> {
        const KEYS: [&str; 2] = ["data_dir", "control_socket"];
        // They stand before the first table, and whether the rest is TOML does not matter.
        let top: String = text.split_inclusive('\n').take_while(|line| !line.starts_with('[')).collect();
        let findings = Findings::new(&top, path);
        let (table, errors) = DeTable::parse_recoverable(&top);
        // What is no TOML may be the very line that says it.
        let is_wrong = |line: &str, start: usize| {
            let within = |span: std::ops::Range<usize>| span.start < start + line.len() && start <= span.end;
            errors.iter().any(|error| error.span().is_none_or(within))
        };
        let mut start = 0;
        let is_lost = top.split_inclusive('\n').any(|line| {
            let key = KEYS.into_iter().find(|key| line.trim_start().starts_with(key));
            let is_lost = key.is_some_and(|key| !table.get_ref().contains_key(key) || is_wrong(line, start));
            start += line.len();
            is_lost
        });
        if is_lost && !errors.is_empty() {
            reader::report_syntax(&top, 0, errors, &findings);
            return Err(findings.problems());
        }
        let document = Document::new(table.get_ref(), &findings);
        let data_dir = outbound::data_dir(&document, &findings);
        let socket = control::socket(&document, &findings, &data_dir);
        match findings.problems() {
            Problems::Found(mut found) => {
                found.retain(|problem| KEYS.contains(&problem.key.as_str()));
                if found.is_empty() { Ok((data_dir, socket)) } else { Err(Problems::Found(found)) }
            }
            unreadable => Err(unreadable),
        }
    }

    /// Reads a configuration from its text and the files that it names and includes; the path serves to name the file in messages, and to find
    /// what it includes.
    ///
    /// # Errors
    /// All problems of the text at once.
    pub fn from_str(text: &str, path: &Path) -> Result<(Self, Vec<Warning>), Problems> {
        read(text, path, Reader::Relay, |_, _| ()).map(|(config, warnings, ())| (config, warnings))
    }

    /// The server of a route, ready to be connected to.
    ///
    /// # Errors
    /// If the certificates that it is verified with, or those that it is shown, cannot be read.
    pub fn endpoint(&self, route: &Route) -> Result<Endpoint, TlsError> {
        let (ca_file, identity) = (route.tls_ca_file.as_deref(), route.identity.as_ref());
        Ok(Endpoint {
            host: route.host.clone(),
            port: route.port,
            server_name: route.server_name.clone(),
            security: match route.tls {
                Tls::Required => Security::Required(tls::client_config_as(ca_file, identity)?),
                Tls::Implicit => Security::Implicit(tls::client_config_as(ca_file, identity)?),
                Tls::Opportunistic => Security::Opportunistic(Arc::new(Opportunistic::new(ca_file, identity)?)),
                Tls::None => Security::None,
            },
            helo: self.session.hostname.clone(),
            ignored: route.ignored.clone(),
            timeouts: self.upstream.timeouts,
        })
    }

    /// Addresses that the log shows whatever `redact` says: the accounts' own, in lower case.
    pub fn spared(&self) -> Vec<String> {
        self.schedule.accounts.iter().map(|account| account.name.as_str().to_lowercase()).collect()
    }

    /// The classes of recipients that have no route: clients are told so at RCPT.
    pub fn unrouted(&self) -> Vec<Class> {
        let routed = |class| self.routes.iter().any(|route| route.takes.contains(&class));
        Class::ALL.into_iter().filter(|class| !routed(*class)).collect()
    }
}

/// From the text to what it means, and what is to be made of both besides.
fn read<R>(
    text: &str,
    path: &Path,
    reader: Reader,
    besides: impl FnOnce(&Document<'_>, &Findings<'_>) -> R,
) -> Result<(Config, Vec<Warning>, R), Problems> {
    let findings = Findings::of(text, path, reader);
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What the parser made of the rest of the text would only confuse.
        reader::report_syntax(text, 0, errors, &findings);
        return Err(findings.problems());
    }
    let included = include::read(table.get_ref(), path, &findings);
    let mut table = table.into_inner();
    include::merge(&mut table, &included, path, &findings);
    if findings.has_problems() {
        // Nor would what a file that is not there is said to lack.
        return Err(findings.problems());
    }
    let document = Document::new(&table, &findings);
    let config = resolve(&document, &findings);
    let besides = besides(&document, &findings);
    Ok((config, findings.finish()?, besides))
}

/// What the text means. Where a problem was reported, the value is a stand-in, and the whole is not used.
fn resolve(document: &Document<'_>, findings: &Findings<'_>) -> Config {
    let data_dir = outbound::data_dir(document, findings);
    let tenant = inbound::tenant(document, findings);
    let listeners = listener::listeners(document, findings);
    let every_account = limits::of_every_account(document, findings, tenant.profile);
    let mut routes = routes::routes(document, findings, tenant.profile, &every_account);
    let session = inbound::session(document, findings, &routes, tenant.profile);
    let (sessions, sessions_per_address) = inbound::sessions(document, findings);
    let upstream = outbound::upstream(document);
    let schedule = outbound::schedule(document, findings);
    let mut apps = app::apps(document, findings, &schedule, &upstream.timeouts);
    let accounts = outbound::accounts(document, findings, &tenant, &routes, &mut apps);
    routes.retain(|draft| draft.is_written() || accounts.settings.iter().any(|account| account.route == draft.route.name));
    routes::note_implied(document, &routes);
    let tenant_limits = limits::of_the_tenant(document, findings, tenant.profile);
    let clients = inbound::clients(document, findings, session.message_size, &accounts, &routes);
    let client_names = inbound::client_names(&clients);
    let users = user::users(document, findings, &client_names);
    listener::check_clients(document, findings, &client_names, !users.is_empty() || document.has("user"));
    unreached::report(document, findings, &listeners, &clients.intake);
    inbound::check_reserve(
        document,
        findings,
        tenant.reserve,
        &clients,
        accounts.settings.iter().map(|account| &account.limits).chain([&tenant_limits]),
    );
    let mut intake = intake::Settings {
        accepted_domains: tenant.accepted_domains,
        clients: clients.intake,
        routes: routes::for_intake(&routes, &accounts.settings, &tenant_limits),
        sessions,
        sessions_per_address,
        strangers_may_log_in: listeners.iter().any(|listener| listener.entrance.auth != crate::session::Auth::None),
    };
    let policy = intake::Policy::new(intake.clone());
    let notices = notices::settings(document, findings, &accounts, &policy);
    notices::of_clients(document, findings, &accounts, &policy, &mut intake.clients);
    routes::check_reach(findings, &routes, &intake, &policy, session.message_size);
    let routes: Vec<Route> = routes.into_iter().map(|draft| draft.route).collect();
    let senders = sender::senders(document, findings, &routes, &accounts);
    let apart = routes.iter().filter(|route| route.kind != Kind::Hve).map(|route| route.name.clone()).collect();
    Config {
        profile: tenant.profile,
        listeners,
        control_socket: control::socket(document, findings, &data_dir),
        admin: admin::admin(document, findings, &session.hostname),
        store: outbound::store(document, data_dir, session.message_size),
        history: history::settings(document),
        price_per_million: history::price(document),
        session,
        intake,
        users,
        login_failures: document.one("limits").or("login_failures", value::count(1..=10_000), 10),
        schedule: schedule::Settings {
            accounts: accounts.settings,
            tenant: tenant_limits,
            apart,
            clients: clients.schedule,
            reserve: Share::percent(tenant.reserve),
            ..schedule
        },
        routes,
        logins: accounts.logins,
        apps: apps.finish(findings),
        senders,
        upstream,
        replies: replies::replies(document, findings),
        log: log::settings(document, findings),
        notices,
        grace: document.one("shutdown").or("grace", value::duration(Duration::ZERO..=Duration::from_secs(3_600)), Duration::from_secs(30)),
    }
}
