//! `hve-relay accounts`: every account as it stands, and an operator's word that one is not to be used.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::control::{Contact, Failure, encoded};
use super::show::{self, line, moment, table};
use crate::admin::{AccountEntry, Accounts, Suspend, Time};

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
    let rows = accounts.accounts.iter().map(|account| {
        let connections = format!("{}/{}", account.connections.in_use, account.connections.max);
        [account.name.clone(), state(account, now), connections, budgets(account), next_free(account, now)]
    });
    line(table(["account", "state", "connections", "budgets used", "next free"], rows));
    Ok(())
}

/// Why it takes no mail, and of which class; or that it does.
fn state(account: &AccountEntry, now: Time) -> String {
    let told = |reason: &str, advice: &str, until: Option<Time>| {
        let until = until.map(|until| format!(" (until {})", moment(until, now))).unwrap_or_default();
        let advice = if advice.is_empty() { String::new() } else { format!("; {advice}") };
        format!("{reason}{until}{advice}")
    };
    if account.state != "ready" {
        return format!("{}: {}", account.state, told(&account.reason, &account.advice, account.until));
    }
    let classes = account.waits.iter().map(|wait| format!("; not for {} mail: {}", wait.class, told(&wait.why.reason, "", wait.why.until)));
    format!("ready{}", classes.collect::<String>())
}

/// Each limit as used/max, one on a line.
fn budgets(account: &AccountEntry) -> String {
    let one = |budget: &crate::admin::BudgetEntry| {
        let max = budget.max?;
        Some(format!("{} {}/{max}", budget.limit, budget.used.saturating_add(budget.in_flight)))
    };
    let lines: Vec<String> = account.budgets.iter().filter_map(one).collect();
    if lines.is_empty() { "not limited".to_owned() } else { lines.join("\n") }
}

/// For each limit of which something is used, when the first of it is free again.
fn next_free(account: &AccountEntry, now: Time) -> String {
    let limited = account.budgets.iter().filter(|budget| budget.max.is_some());
    limited.map(|budget| budget.frees_at.map(|at| moment(at, now)).unwrap_or_default()).collect::<Vec<_>>().join("\n")
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
