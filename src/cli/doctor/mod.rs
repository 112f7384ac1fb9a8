//! `hve-relay doctor`: looks at everything that a relay needs, from the configuration to each account's login, and says what to do about what is
//! not well. It sends nothing, and changes nothing.
//!
//! The parts: the machine (`host`), the data directory (`disk`), the relay's own listeners (`listeners`) and its page's (`page`), the servers and
//! accounts (`servers`) and the applications' tokens (`tokens`). Each tells what it finds (`findings`); the worst of it is the exit status.

mod disk;
mod findings;
mod host;
mod listeners;
mod page;
mod servers;
mod tokens;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;

use self::findings::Finding;
use super::EX_IOERR;
use super::control::Contact;
use crate::admin;
use crate::clock::Clock;
use crate::config::{Config, Problems, Warning};
use crate::store::sqlite;

/// What is looked at, and how.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration that is looked at.
    #[arg(long, value_name = "FILE", default_value = super::CONFIG)]
    config: PathBuf,
    /// Log in with this account alone; give it several times for several. Each login counts as one at the server.
    #[arg(long = "account", value_name = "ADDRESS", conflicts_with = "offline")]
    accounts: Vec<String>,
    /// Connect to no server: look at this machine alone.
    #[arg(long)]
    offline: bool,
    /// How long each step of a conversation with a server may take.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = crate::units::parse_duration)]
    timeout: Duration,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// What the servers have said in passing.
#[derive(Debug, Default)]
struct Seen {
    /// By how many milliseconds this machine's clock is ahead of each server's.
    dates: Vec<(String, i64)>,
}

impl Seen {
    /// A server has said this just now, and there may be a date in it.
    fn date(&mut self, server: &str, text: impl AsRef<str>) {
        if let Some(theirs) = host::date_in(text.as_ref()) {
            self.dates.push((server.to_owned(), Clock::wall().as_millis() - theirs.as_millis()));
        }
    }
}

/// What is being looked at, on a terminal; elsewhere nothing is shown.
struct Progress(ProgressBar);

impl Progress {
    fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(bar)
    }

    fn say(&self, what: &str) {
        self.0.set_message(what.to_owned());
    }
}

/// Looks, tells, and returns the exit status: 0 if all is well, 1 with warnings, 2 if something fails; 74 if it could not look.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let (config, warnings) = match Config::load(&arguments.config) {
        Ok(loaded) => loaded,
        Err(problems) => return findings::show(&unusable(&problems), arguments.json),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.map(|runtime| runtime.block_on(look(arguments, &config, &warnings))) {
        Ok(findings) => findings::show(&findings, arguments.json),
        Err(error) => {
            eprintln!("hve-relay doctor: {error}");
            ExitCode::from(EX_IOERR)
        }
    }
}

/// Without a configuration there is nothing else to look at.
fn unusable(problems: &Problems) -> Vec<Finding> {
    const ABOUT: &str = "configuration";
    match problems {
        Problems::Unreadable { file, reason } => {
            vec![Finding::fail(
                ABOUT,
                format!("{} {reason}", file.display()),
                "name the file with --config, or run this as the relay's user",
            )]
        }
        Problems::Found(found) => {
            let place = |problem: &crate::config::Problem| match problem.key.as_str() {
                "" => format!("{}:{}", problem.file.display(), problem.line),
                key => format!("{}:{}: {key}", problem.file.display(), problem.line),
            };
            found.iter().map(|problem| Finding::fail(ABOUT, format!("{}: {}", place(problem), problem.found), &problem.hint)).collect()
        }
    }
}

async fn look(arguments: &Arguments, config: &Config, warnings: &[Warning]) -> Vec<Finding> {
    let progress = Progress::new();
    let mut findings = vec![Finding::pass("configuration", format!("{}: {config}", arguments.config.display()))];
    findings.extend(warnings.iter().map(|Warning(problem)| {
        let found = format!("{}:{}: {}: {}", problem.file.display(), problem.line, problem.key, problem.found);
        Finding::warn("configuration", found, &problem.hint)
    }));
    let (running, finding) = relay(config).await;
    findings.push(finding);
    progress.say("data directory");
    let store = config.store.clone();
    findings.extend(tokio::task::spawn_blocking(move || disk::look(&store, running)).await.unwrap_or_default());
    progress.say("listeners");
    findings.extend(listeners::look(config, running, Clock::wall()).await);
    findings.extend(page::look(config, running, Clock::wall()).await);
    let mut seen = Seen::default();
    let servers = match arguments.offline {
        true => Vec::new(),
        false => servers::look(config, &arguments.accounts, arguments.timeout, &mut seen, &progress).await,
    };
    findings.push(host::clock(&seen));
    let holder = sqlite::holder(&config.store.data_dir).filter(|_| running);
    findings.extend(host::service(config, holder));
    findings.extend(servers);
    progress.0.finish_and_clear();
    findings
}

/// Whether a relay runs with this configuration.
async fn relay(config: &Config) -> (bool, Finding) {
    let contact = Contact::at(config.control_socket.clone());
    let asked = tokio::task::spawn_blocking(move || contact.get::<admin::Status>("/v1/status"));
    match asked.await.map_err(io::Error::other) {
        Ok(Ok(status)) => (true, Finding::pass("relay", format!("hve-relay {} runs", status.version))),
        // Somebody has the directory although nobody answers: it is starting, stopping, or not to be asked by this user.
        Ok(Err(failure)) if sqlite::holder(&config.store.data_dir).is_some() => {
            let to_do = "run this as the relay's user or as root; if it is that already, look at its log";
            (true, Finding::warn("relay", format!("it runs, and cannot be asked: {failure}"), to_do))
        }
        _ => (false, Finding::pass("relay", "it does not run")),
    }
}
