//! `hve-relay accounts`: every account as it stands, and an operator's word that one is not to be used.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::control::{Contact, Failure, encoded};
use super::show::{self, Lines, line, many, moment, table};
use crate::admin::{AccountEntry, Accounts, BudgetEntry, HealthEntry, Suspend, Time, TroubleEntry};

/// Columns of the terminal from which each fact has a column of its own.
const WIDE: u16 = 120;

/// What is asked for.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    contact: Contact,
    /// As JSON, as the relay gives it.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Use an account no more. Its mail goes over the others or stays queued; attempts under way end.
    Suspend {
        /// The account's address.
        name: String,
        /// For how long, such as 30m or 2h; without it until it is resumed.
        #[arg(long = "for", value_name = "DURATION")]
        length: Option<String>,
        /// Why; it is shown wherever mail waits for this account.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Use an account again, also one that rests because of trouble of its own.
    Resume {
        /// The account's address.
        name: String,
    },
}

/// Does it and returns the exit status.
pub(super) fn run(Arguments { contact, json, command }: Arguments) -> ExitCode {
    let done = match command {
        None => list(&contact, json),
        Some(Command::Suspend { name, length, reason }) => suspend(&contact, &name, &Suspend { length, reason }, json),
        Some(Command::Resume { name }) => resume(&contact, &name, json),
    };
    done.map_or_else(|failure| failure.tell(), |()| ExitCode::SUCCESS)
}

fn list(contact: &Contact, json: bool) -> Result<(), Failure> {
    let accounts: Accounts = contact.get("/v1/accounts")?;
    if json {
        show::json(&accounts);
        return Ok(());
    }
    let now = accounts.now;
    for trouble in &accounts.troubles {
        line(format_args!("{}", whose(trouble, now)));
    }
    if show::width() >= WIDE {
        let rows = accounts.accounts.iter().map(|account| {
            let (used, free) = limits(account, now).into_iter().unzip::<_, _, Vec<_>, Vec<_>>();
            let connections = format!("{}/{}", account.connections.in_use, account.connections.max);
            [account.name.clone(), state(account, now), connections, used.join("\n"), free.join("\n")]
        });
        line(table(Lines::Between, ["account", "state", "connections", "limits used", "next free"], rows));
    } else {
        let rows = accounts.accounts.iter().map(|account| {
            let mut used = vec![format!("connections {}/{}", account.connections.in_use, account.connections.max)];
            let next = |free: String| if free.is_empty() { free } else { format!(", next free {free}") };
            used.extend(limits(account, now).into_iter().map(|(used, free)| format!("{used}{}", next(free))));
            [account.name.clone(), state(account, now), used.join("\n")]
        });
        line(table(Lines::Between, ["account", "state", "limits used"], rows));
    }
    Ok(())
}

/// Whether it takes mail; if not, until when and why, and who can do what about it.
fn state(account: &AccountEntry, now: Time) -> String {
    let until = |until: Option<Time>| until.map(|until| format!(" until {}", moment(until, now))).unwrap_or_default();
    let mut lines = vec![format!("{}{}", account.state, until(account.until))];
    lines.extend([&account.reason, &account.advice].into_iter().filter(|text| !text.is_empty()).cloned());
    if account.health.state != "healthy" {
        lines.push(health(&account.health, now));
        for text in [&account.health.reason, &account.health.advice] {
            if !text.is_empty() && !lines.contains(text) {
                lines.push(text.clone());
            }
        }
    }
    if account.state == "ready" {
        lines.extend(account.waits.iter().map(|wait| format!("{} mail waits{}: {}", wait.class, until(wait.why.until), wait.why.reason)));
    }
    lines.join("\n")
}

/// How it stands, since when, and what comes next.
fn health(health: &HealthEntry, now: Time) -> String {
    let class = health.class.as_ref().map(|class| format!(" for {class} mail")).unwrap_or_default();
    let since = health.since.map(|since| format!(" since {}", moment(since, now))).unwrap_or_default();
    let logins = match health.logins {
        0 => String::new(),
        logins => format!(", {} tried", many(u64::from(logins), "login", "logins")),
    };
    let next = health.until.map(|until| {
        let what = match health.state.as_str() {
            "suspended" => "next login",
            "reduced" => "one connection more",
            _ => "until",
        };
        format!(", {what} {}", moment(until, now))
    });
    format!("{}{class}{since}{logins}{}", health.state, next.unwrap_or_default())
}

/// Trouble of more than one account, in a line or more.
pub(super) fn whose(trouble: &TroubleEntry, now: Time) -> String {
    let TroubleEntry { whose, health: it } = trouble;
    let mut text = format!("{} is {}: {}", show::printable(whose), health(it, now), show::printable(&it.reason));
    if !it.advice.is_empty() {
        text.push_str(&format!("\n  {}", show::printable(&it.advice)));
    }
    text
}

/// Each limit as used/max, and when the first of what is used is free again; empty if nothing is.
fn limits(account: &AccountEntry, now: Time) -> Vec<(String, String)> {
    let one = |budget: &BudgetEntry| {
        let used = format!("{} {}/{}", budget.limit, budget.used.saturating_add(budget.in_flight), budget.max?);
        Some((used, budget.frees_at.map(|at| moment(at, now)).unwrap_or_default()))
    };
    account.budgets.iter().filter_map(one).collect()
}

fn suspend(contact: &Contact, name: &str, suspend: &Suspend, json: bool) -> Result<(), Failure> {
    let account: AccountEntry = contact.post(&format!("/v1/accounts/{}/suspend", encoded(name)), suspend)?;
    if json {
        show::json(&account);
        return Ok(());
    }
    let until = account.until.map_or("until it is resumed".to_owned(), |Time(until)| format!("until {until}"));
    line(format_args!("{} is suspended {until}", account.name));
    Ok(())
}

fn resume(contact: &Contact, name: &str, json: bool) -> Result<(), Failure> {
    let account: AccountEntry = contact.post(&format!("/v1/accounts/{}/resume", encoded(name)), &json!({}))?;
    if json {
        show::json(&account);
        return Ok(());
    }
    let but = if account.state == "ready" { String::new() } else { format!("; {}", account.reason) };
    line(format_args!("{} is in use{but}", account.name));
    Ok(())
}
