//! `hve-relay plan`: when a given amount of mail would have gone, what would hold it up, and what more accounts would change.
//!
//! The configuration's own scheduler runs on a clock that only counts ([`crate::schedule::plan`]); nothing is sent and no data is read.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::EX_USAGE;
use crate::clock::{Clock, Timestamp};
use crate::config::Config;
use crate::intake::Policy;
use crate::mail::{AccountName, Class, ClientName, Priority};
use crate::schedule::{self, Bottleneck, Cause, Load, Plan, Settings, Way};
use crate::units::{ByteSize, format_duration};

/// What is to be planned.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = super::CONFIG)]
    config: PathBuf,
    /// How many messages, all there at the start.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    messages: u64,
    /// Recipients of each message.
    #[arg(long, value_name = "R", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    recipients: u32,
    /// How many of a hundred messages go to external recipients; the others go to internal ones.
    #[arg(long, value_name = "P%", default_value = "0%", value_parser = percentage)]
    external: u8,
    /// The size of each message.
    #[arg(long, value_name = "SIZE", default_value = "50 KB")]
    size: ByteSize,
    /// The client that sends them: its priority and its accounts. Without it: all accounts, normal priority.
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
    /// When they are there: now, or the next HH:MM, in UTC.
    #[arg(long, value_name = "TIME", default_value = "now", value_parser = start)]
    start: Start,
    /// How long a message takes on a connection besides its transfer at 1 MB/s, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5, value_parser = seconds)]
    seconds_per_message: f64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// When the mail is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Now,
    /// Minutes after midnight, UTC.
    At(u64),
}

/// Assumed of the network; what a message takes besides is an argument.
const OCTETS_PER_SECOND: f64 = 1_000_000.0;
/// The numbers of accounts that are compared.
const COMPARED: [usize; 5] = [1, 2, 5, 10, 20];
const DAY: Duration = Duration::from_secs(86_400);
const MINUTE: Duration = Duration::from_secs(60);

/// Prints the plan. Exit status 0, 64 (wrong usage), or that of a configuration that cannot be used.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let (config, warnings) = match Config::examine(&arguments.config) {
        Ok(examined) => (examined.config, examined.warnings),
        Err(problems) => {
            let _ = writeln!(io::stderr(), "{problems}");
            return ExitCode::from(problems.exit_status());
        }
    };
    for warning in &warnings {
        let _ = writeln!(io::stderr(), "{warning}");
    }
    let load = match load(arguments, &config) {
        Ok(load) => load,
        Err(problem) => {
            let _ = writeln!(io::stderr(), "hve-relay plan: {problem}");
            return ExitCode::from(EX_USAGE);
        }
    };
    let each = Duration::from_secs_f64(arguments.seconds_per_message + arguments.size.0 as f64 / OCTETS_PER_SECOND);
    let start = arguments.start.after(Clock::start().now());
    let outlook = Outlook::new(&config, load, each, start);
    // A reader that has gone away, such as `head`, changes nothing about the result.
    let _ = if arguments.json { writeln!(io::stdout(), "{:#}", outlook.json()) } else { outlook.print(&mut io::stdout().lock()) };
    ExitCode::SUCCESS
}

fn load(arguments: &Arguments, config: &Config) -> Result<Load, String> {
    let (client, priority) = match &arguments.client {
        None => (ClientName::new("any client"), Priority::default()),
        Some(name) => match config.intake.clients.iter().find(|client| client.name.as_str() == name) {
            Some(client) => (client.name.clone(), client.priority),
            None => {
                let names: Vec<&str> = config.intake.clients.iter().map(|client| client.name.as_str()).collect();
                return Err(format!("there is no client \"{name}\": name one of {}", names.join(", ")));
            }
        },
    };
    let policy = Policy::new(config.intake.clone());
    let way = |class| {
        policy
            .way(&client, class, arguments.size.0)
            .map(|route| Way { route: route.name.clone(), recipients_per_delivery: u32::try_from(route.most(class)).unwrap_or(u32::MAX) })
    };
    let (internal, external) = (way(Class::Internal), way(Class::External));
    for (class, way, mail) in [(Class::Internal, &internal, arguments.external < 100), (Class::External, &external, arguments.external > 0)]
    {
        if mail && way.is_none() {
            return Err(match policy.largest(&client, class) {
                Some(largest) => format!("{} octets to {class} recipients is more than the {largest} that a route takes", arguments.size.0),
                None => format!("no route takes {class} recipients: let one take them, or plan without them"),
            });
        }
    }
    // A class of which there is no mail has no way either; any other's stands for it.
    let Some(any) = internal.clone().or(external.clone()) else { return Err("there is no route".to_owned()) };
    Ok(Load {
        client,
        priority,
        messages: arguments.messages,
        recipients: arguments.recipients,
        external: arguments.external,
        size: arguments.size.0,
        internal_way: internal.unwrap_or(any.clone()),
        external_way: external.unwrap_or(any),
    })
}

/// All that is printed.
struct Outlook {
    load: Load,
    each: Duration,
    start: Timestamp,
    accounts: usize,
    plan: Plan,
    /// With other numbers of accounts.
    compared: Vec<(usize, Plan)>,
}

impl Outlook {
    fn new(config: &Config, load: Load, each: Duration, start: Timestamp) -> Self {
        let settings = &config.schedule;
        let plan = schedule::plan(settings, &load, each, start);
        let most = config.profile.accounts;
        let numbers = COMPARED.into_iter().filter(|number| *number <= most && !settings.accounts.is_empty());
        let compared =
            numbers.map(|number| (number, schedule::plan(&with_accounts(settings, &load, number), &load, each, start))).collect();
        Self { accounts: settings.accounts.len(), load, each, start, plan, compared }
    }

    fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let Load { client, messages, recipients, external, size, .. } = &self.load;
        let to = if *recipients == 1 { "one recipient".to_owned() } else { format!("{recipients} recipients") };
        writeln!(out, "{messages} messages of {size} octets to {to} each, {external} % of them to external ones, from {client}")?;
        writeln!(
            out,
            "from {} on {} accounts that have used nothing; each message takes {} on a connection",
            self.start,
            self.accounts,
            rounded(self.each)
        )?;
        writeln!(out)?;
        match self.plan.finished_at {
            Some(at) => writeln!(out, "finished at {at}, after {}", rounded(at.since(self.start)))?,
            None => writeln!(
                out,
                "never finished: {} deliveries to {} recipients can go",
                self.plan.sent.deliveries, self.plan.sent.recipients
            )?,
        }
        if self.plan.late.recipients > 0 {
            let late = self.plan.late;
            writeln!(out, "{} recipients would wait longer than the queue's lifetime and be given up", late.recipients)?;
        }
        for Bottleneck { class, cause, length } in &self.plan.bottlenecks {
            writeln!(out, "  {class} mail waits {} for {}: {}", rounded(*length), name(*cause), cause.sentence())?;
        }
        writeln!(out)?;
        writeln!(out, "{:>8}  {:<24}  {:<16}  bottleneck", "accounts", "finished", "after")?;
        for (number, plan) in &self.compared {
            let (at, after) = match plan.finished_at {
                Some(at) => (at.to_string(), rounded(at.since(self.start))),
                None => ("never".to_owned(), "-".to_owned()),
            };
            let bottleneck =
                plan.bottleneck().map_or_else(|| "none".to_owned(), |most| format!("{} mail: {}", most.class, name(most.cause)));
            writeln!(out, "{number:>8}  {at:<24}  {after:<16}  {bottleneck}")?;
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let plan = |accounts: usize, plan: &Plan| {
            json!({
                "accounts": accounts,
                "finished_at": plan.finished_at.map(|at| at.to_string()),
                "seconds": plan.finished_at.map(|at| at.since(self.start).as_secs_f64()),
                "deliveries": plan.sent.deliveries,
                "recipients": plan.sent.recipients,
                "recipients_past_lifetime": plan.late.recipients,
                "waits": plan.bottlenecks.iter().map(|Bottleneck { class, cause, length }| json!({
                    "class": class.as_str(),
                    "limit": name(*cause),
                    "seconds": length.as_secs_f64(),
                })).collect::<Vec<_>>(),
            })
        };
        json!({
            "messages": self.load.messages,
            "recipients_per_message": self.load.recipients,
            "external_percent": self.load.external,
            "size": self.load.size,
            "client": self.load.client.as_str(),
            "start": self.start.to_string(),
            "seconds_per_message": self.each.as_secs_f64(),
            "plan": plan(self.accounts, &self.plan),
            "compared": self.compared.iter().map(|(accounts, other)| plan(*accounts, other)).collect::<Vec<_>>(),
        })
    }
}

/// The settings as if there were so many accounts like those that there are, all of them open to the load's client.
fn with_accounts(settings: &Settings, load: &Load, number: usize) -> Settings {
    let mut settings = settings.clone();
    let used = settings.accounts.iter().filter(|account| [&load.internal_way.route, &load.external_way.route].contains(&&account.route));
    // The tenant's accounts can become more; what leads elsewhere stays as it is, unless there is nothing else.
    let (others, own): (Vec<_>, Vec<_>) = used.cloned().partition(|account| settings.apart.contains(&account.route));
    let (others, like) = if own.is_empty() { (Vec::new(), others) } else { (others, own) };
    settings.accounts = like.iter().cycle().take(if like.is_empty() { 0 } else { number }).cloned().chain(others).collect();
    for (i, account) in settings.accounts.iter_mut().enumerate() {
        account.name = AccountName::new(format!("{i}"));
    }
    settings.clients.iter_mut().for_each(|client| client.accounts = None);
    settings
}

/// The key of the limit, as it stands in the configuration.
fn name(cause: Cause) -> String {
    match cause {
        Cause::Account(limit) => format!("account_limits.{limit}"),
        Cause::Tenant(limit) => format!("tenant_limits.{limit}"),
        Cause::Connections => "connections".to_owned(),
        Cause::NoAccount => "accounts".to_owned(),
    }
}

/// To the second, where it is longer than one.
fn rounded(length: Duration) -> String {
    if length < Duration::from_secs(10) { format_duration(length) } else { format_duration(Duration::from_secs(length.as_secs())) }
}

impl Start {
    /// The moment itself, `now` or later.
    fn after(self, now: Timestamp) -> Timestamp {
        let Self::At(minutes) = self else { return now };
        let of_day = |time: Timestamp| time.as_millis().rem_euclid(DAY.as_millis() as i64) as u64;
        let wanted = minutes * MINUTE.as_millis() as u64;
        let ahead = (wanted + DAY.as_millis() as u64 - of_day(now)) % DAY.as_millis() as u64;
        now + Duration::from_millis(ahead)
    }
}

fn start(text: &str) -> Result<Start, String> {
    let wrong = || format!("\"{text}\" is neither `now` nor a time such as 07:30");
    if text == "now" {
        return Ok(Start::Now);
    }
    let (hours, minutes) = text.split_once(':').ok_or_else(wrong)?;
    match (hours.parse::<u64>(), minutes.parse::<u64>(), minutes.len()) {
        (Ok(hours @ 0..=23), Ok(minutes @ 0..=59), 2) => Ok(Start::At(hours * 60 + minutes)),
        _ => Err(wrong()),
    }
}

fn percentage(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse().ok();
    number.filter(|percent| *percent <= 100).ok_or_else(|| format!("\"{text}\" is not a share from 0% to 100%"))
}

fn seconds(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|seconds| (0.0..=3_600.0).contains(seconds));
    number.ok_or_else(|| format!("\"{text}\" is not a number of seconds from 0 to 3600"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_arguments() {
        for (text, expected) in [("now", Ok(Start::Now)), ("07:30", Ok(Start::At(450))), ("0:05", Ok(Start::At(5)))] {
            assert_eq!(start(text), expected, "{text}");
        }
        for text in ["", "24:00", "7:3", "7", "12:60", "-1:00"] {
            assert!(start(text).is_err(), "{text}");
        }
        assert_eq!((percentage("20%"), percentage("5")), (Ok(20), Ok(5)));
        assert!(percentage("101%").is_err() && percentage("x").is_err());
        assert!(seconds("-1").is_err() && seconds("NaN").is_err() && seconds("0.25") == Ok(0.25));
    }

    #[test]
    fn a_start_is_the_next_moment_of_that_time() {
        let now = Timestamp::from_millis(1_795_285_881_000);
        assert_eq!(now.to_string(), "2026-11-21T18:31:21.000Z");
        assert_eq!(Start::At(19 * 60).after(now).to_string(), "2026-11-21T19:00:00.000Z");
        assert_eq!(Start::At(7 * 60 + 30).after(now).to_string(), "2026-11-22T07:30:00.000Z");
        assert_eq!(Start::Now.after(now), now);
    }
}
