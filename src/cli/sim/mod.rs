//! `hve-relay sim`: the simulated HVE endpoint alone, so that anyone can try a migration, a script or another sender before the tenant sees it.
//!
//! What it takes goes into a folder (`folder`), what goes wrong on purpose comes from a file (`faults`), and the terminal tells what happens,
//! a line for each message and refusal. Its CA is kept in the folder, so that a client needs to be told to trust it only once.

mod faults;
mod folder;
mod tokens;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use self::folder::Folder;
use self::tokens::Tokens;
use super::EX_IOERR;
use crate::secret::Secret;
use crate::sim::{Account, App, Counters, ExternalUnit, Limits, Profile, Settings, Sim, Taken};
use crate::smtp::Mailbox;

/// sysexits(3): a configuration that cannot be used.
const EX_CONFIG: u8 = 78;
/// How long nothing may happen before the counts are looked at all the same.
const QUIET: Duration = Duration::from_secs(3_600);
/// The password where none is given: nothing here is worth protecting.
const PASSWORD: &str = "rehearsal";
/// Accounts where none is given.
const ACCOUNTS: usize = 2;

/// What `hve-relay sim` can be told.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Where it listens.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:1587")]
    listen: SocketAddr,
    /// Whose limits and rules: hve-preview takes external recipients within limits, hve-ga none.
    #[arg(long, value_name = "PROFILE", default_value = "hve-preview", value_parser = profile)]
    profile: Profile,
    /// An account that may log in; give it several times for several. Without it: hve01 and hve02 of the first domain, "rehearsal".
    #[arg(long = "account", value_name = "ADDRESS=PASSWORD", value_parser = account)]
    accounts: Vec<Account>,
    /// An application that gets tokens for all accounts, with its secret; give it several times for several. With it there is a token endpoint,
    /// as Microsoft Entra's is, and accounts may log in with XOAUTH2.
    #[arg(long = "app", value_name = "CLIENT_ID=SECRET", value_parser = tokens::app)]
    apps: Vec<App>,
    /// Where the token endpoint listens.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:1588", requires = "apps")]
    token_listen: SocketAddr,
    /// A domain of the tenant: recipients in all others are external. Give it several times for several.
    #[arg(long = "domain", value_name = "DOMAIN", default_value = "contoso.com")]
    domains: Vec<String>,
    /// Recipients in those domains that do not exist; a `*` at the end stands for anything.
    #[arg(long = "unknown", value_name = "ADDRESS", default_values = ["nobody*", "unknown*"])]
    unknown: Vec<String>,
    /// Where it keeps what it takes: one .eml for each message, a line of JSON for each in taken.jsonl, and its CA certificate.
    #[arg(long, value_name = "DIR", default_value = "hve-sim")]
    keep: PathBuf,
    /// What goes wrong on purpose, in TOML; deploy/README.md describes it. SIGHUP reads it again.
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// Whether the external mail of a minute is counted in messages or in recipients; the sources disagree.
    #[arg(long, value_name = "UNIT", default_value = "messages", value_parser = unit)]
    external_unit: ExternalUnit,
    /// Hold no limits of rate and day.
    #[arg(long)]
    unlimited: bool,
    /// Connections that an account may have at a time; the service documents no number.
    #[arg(long, value_name = "N")]
    connections: Option<usize>,
    /// Answer each command so much later, as over a slow network: 30ms.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = crate::units::parse_duration)]
    delay: Duration,
}

fn profile(text: &str) -> Result<Profile, &'static str> {
    match text {
        "hve-preview" => Ok(Profile::Preview),
        "hve-ga" => Ok(Profile::Ga),
        _ => Err("write hve-preview or hve-ga"),
    }
}

fn unit(text: &str) -> Result<ExternalUnit, &'static str> {
    match text {
        "messages" => Ok(ExternalUnit::Messages),
        "recipients" => Ok(ExternalUnit::Recipients),
        _ => Err("write messages or recipients"),
    }
}

fn account(text: &str) -> Result<Account, String> {
    let (address, password) = text.split_once('=').ok_or("write ADDRESS=PASSWORD, such as hve01@contoso.com=rehearsal")?;
    let address: Mailbox = address.parse().map_err(|error| format!("{address:?} is not an address: {error}"))?;
    Ok(Account { user: address.as_str().to_owned(), password: Secret::new(password.to_owned()), token: None })
}

/// Runs the endpoint until Ctrl-C.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let faults = match arguments.faults.as_deref().map(faults::read).transpose() {
        Ok(faults) => faults.unwrap_or_default(),
        Err(error) => {
            eprintln!("hve-relay sim: {error}");
            return ExitCode::from(EX_CONFIG);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(serve(arguments, faults))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hve-relay sim: {error}");
            ExitCode::from(EX_IOERR)
        }
    }
}

fn settings(arguments: &Arguments, folder: &Folder) -> io::Result<Settings> {
    let limits = match (arguments.unlimited, arguments.profile) {
        (true, _) | (_, Profile::Ga) => Limits::NONE,
        (false, Profile::Preview) => Limits::PREVIEW,
    };
    let default = Settings::default();
    let domain = arguments.domains.first().map_or("contoso.com", String::as_str);
    let accounts = match arguments.accounts.as_slice() {
        [] => (1..=ACCOUNTS).map(|i| Account::new(format!("hve{i:02}@{domain}"), PASSWORD)).collect(),
        given => given.to_vec(),
    };
    let mut names = default.names.clone();
    names.extend([arguments.listen, arguments.token_listen].map(|address| address.ip().to_string()));
    names.sort();
    names.dedup();
    Ok(Settings {
        listen: arguments.listen,
        identity: Some(folder.identity(&names)?),
        accounts,
        accepted_domains: arguments.domains.clone(),
        unknown_recipients: arguments.unknown.clone(),
        profile: arguments.profile,
        limits: Limits { external_unit: arguments.external_unit, connections: arguments.connections, ..limits },
        delay: arguments.delay,
        ..default
    })
}

async fn serve(arguments: &Arguments, faults: Vec<crate::sim::Fault>) -> io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    let mut folder = Folder::open(&arguments.keep)?;
    let mut settings = settings(arguments, &folder)?;
    let tokens = match (arguments.apps.as_slice(), &settings.identity) {
        ([], _) | (_, None) => None,
        (apps, Some(identity)) => Some(Tokens::start(apps, arguments.token_listen, identity.clone(), &folder).await?),
    };
    settings.issuer = tokens.as_ref().map(Tokens::issuer);
    let sim = Sim::start(settings.clone()).await.map_err(|why| io::Error::new(why.kind(), format!("{}: {why}", arguments.listen)))?;
    sim.set_faults(faults);
    say(&introduction(&sim, &settings, arguments, &folder));
    if let Some(tokens) = &tokens {
        say(&tokens.introduction(&folder));
    }
    let mut told = Counters::default();
    loop {
        let known = (told.messages, told.refused(""));
        let news = |counters: &Counters| (counters.messages, counters.refused("")) != known;
        tokio::select! {
            // Time without news is no fault.
            _ = sim.wait_until(news, QUIET) => {}
            () = tokens::asked(tokens.as_ref()) => {}
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reread(&sim, arguments.faults.as_deref()),
        }
        told = tell(&sim, &mut folder, &told)?;
        tokens.iter().for_each(Tokens::tell);
    }
    tell(&sim, &mut folder, &told)?;
    let counters = sim.counters();
    say(&format!("taken: {} messages for {} recipients, {} octets\n", counters.messages, counters.recipients, counters.octets));
    Ok(())
}

/// A file that cannot be read leaves the faults as they are.
fn reread(sim: &Sim, file: Option<&Path>) {
    match file.map(faults::read) {
        None => {}
        Some(Ok(faults)) => {
            say(&format!("faults read again: {}\n", faults.len()));
            sim.set_faults(faults);
        }
        Some(Err(error)) => eprintln!("hve-relay sim: the faults stay as they are: {error}"),
    }
}

/// Keeps and tells what is new; returns the counts as they are told now.
fn tell(sim: &Sim, folder: &mut Folder, before: &Counters) -> io::Result<Counters> {
    for taken in &sim.drain() {
        let file = folder.keep(taken)?;
        say(&format!("{}\n", told(taken, &file)));
    }
    let counters = sim.counters();
    for (text, count) in &counters.refusals {
        match count - before.refusals.get(text).copied().unwrap_or(0) {
            0 => {}
            1 => say(&format!("refused: {text}\n")),
            times => say(&format!("refused {times} times: {text}\n")),
        }
    }
    Ok(counters)
}

fn told(taken: &Taken, file: &str) -> String {
    let recipients = match taken.recipients.as_slice() {
        [only] => only.to_string(),
        many => format!("{} recipients", many.len()),
    };
    let wrong = if taken.violations.is_empty() { String::new() } else { format!(", although {:?}", taken.violations) };
    format!("taken {file}: from {} to {recipients}, {} octets{wrong}", taken.account, taken.size)
}

/// What somebody must know who wants to send something here.
fn introduction(sim: &Sim, settings: &Settings, arguments: &Arguments, folder: &Folder) -> String {
    let address = sim.address();
    let profile = if settings.profile == Profile::Ga { "hve-ga" } else { "hve-preview" };
    let names: Vec<&str> = settings.accounts.iter().map(|account| account.user.as_str()).collect();
    let password = if arguments.accounts.is_empty() { format!("  password {PASSWORD:?}") } else { String::new() };
    let ca = folder.ca();
    let auth = if arguments.apps.is_empty() { "AUTH LOGIN" } else { "AUTH LOGIN, XOAUTH2" };
    let first = names.first().copied().unwrap_or_default();
    format!(
        "simulated HVE endpoint  {address}  ({profile}, STARTTLS, {auth})\n\
         accounts                {}{password}\n\
         CA certificate          {}\n\
         kept in                 {}\n\n\
         a route of hve-relay    [[route]]\n                        name = \"rehearsal\"\n                        host = \"{}\"\n                        port = {}\n                        \
         tls_ca_file = \"{}\"\n                        tls_server_name = \"smtp-hve.office365.com\"\n\n\
         by hand                 swaks --server {}:{} --tls --auth LOGIN --auth-user {first} --from {first} --to you@{}\n\n",
        names.join(", "),
        ca.display(),
        arguments.keep.display(),
        address.ip(),
        address.port(),
        ca.display(),
        address.ip(),
        address.port(),
        settings.accepted_domains.first().map_or("contoso.com", String::as_str),
    )
}

/// A reader that has gone away changes nothing about the rehearsal.
fn say(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
    let _ = io::stdout().flush();
}
