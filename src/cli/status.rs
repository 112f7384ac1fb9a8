//! `hve-relay status`: the running relay in one look.

use std::process::ExitCode;

use clap::Args;

use super::accounts::whose;
use super::control::{Contact, Failure};
use super::show::{self, Lines, line, many, moment, past, table};
use crate::admin::{AccountEntry, Accounts, Status};

/// What is asked for.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    contact: Contact,
    /// As JSON, as the relay gives it.
    #[arg(long)]
    json: bool,
}

/// Shows it and returns the exit status.
pub(super) fn run(Arguments { contact, json }: Arguments) -> ExitCode {
    show(&contact, json).map_or_else(|failure| failure.tell(), |()| ExitCode::SUCCESS)
}

fn show(contact: &Contact, json: bool) -> Result<(), Failure> {
    let status: Status = contact.get("/v1/status")?;
    if json {
        show::json(&status);
        return Ok(());
    }
    let accounts: Accounts = contact.get("/v1/accounts")?;
    let now = status.now;
    line(format_args!("hve-relay {}, {}", status.version, standing(&accounts)));
    for trouble in &status.troubles {
        line(format_args!("{}", whose(trouble, now)));
    }
    let queue = &status.queue;
    line(format_args!(
        "queue: {} under way, {} ready, {} deferred, {} held",
        many(queue.under_way as u64, "delivery", "deliveries"),
        queue.ready,
        queue.deferred,
        queue.held
    ));
    if status.in_doubt > 0 {
        line(format_args!("in doubt: {} since the start, see the log's in-doubt events", many(status.in_doubt, "attempt", "attempts")));
    }
    if !status.classes.is_empty() {
        let rows = status.classes.iter().map(|class| {
            [
                format!("{} {}", class.priority, class.class),
                class.deliveries.to_string(),
                class.recipients.to_string(),
                past(class.oldest, now),
                class.empty_at.map_or("not a matter of time".to_owned(), |at| moment(at, now)),
            ]
        });
        line(table(Lines::None, ["waiting", "deliveries", "recipients", "oldest", "empty"], rows));
    }
    let limits = status.tenant.iter().filter_map(|budget| {
        let used = format!("{}/{}", budget.used.saturating_add(budget.in_flight), budget.max?);
        Some([budget.limit.clone(), used, budget.frees_at.map(|at| moment(at, now)).unwrap_or_default()])
    });
    let limits: Vec<[String; 3]> = limits.collect();
    if !limits.is_empty() {
        line(table(Lines::None, ["tenant's limit", "used", "next free"], limits));
    }
    Ok(())
}

/// How many accounts take mail, and which do not.
fn standing(Accounts { accounts, troubles, .. }: &Accounts) -> String {
    let (ready, others): (Vec<_>, Vec<_>) = accounts.iter().partition(|account| account.state == "ready");
    let mut text = format!("{} of {} ready", ready.len(), many(accounts.len() as u64, "account", "accounts"));
    // Twenty accounts with the same trouble have one, and it is told once.
    let told = |account: &AccountEntry| troubles.iter().any(|trouble| trouble.health.reason.ends_with(&account.reason));
    for account in others.into_iter().filter(|account| !told(account)) {
        text.push_str(&format!("\n  {} is {}: {}", account.name, account.state, show::printable(&account.reason)));
    }
    text
}
