//! `hve-relay clients`: what each client does otherwise than the standards have it, so that devices can be found and set right.

use std::process::ExitCode;

use clap::Args;

use super::control::{Contact, Failure};
use super::show::{self, Lines, line, past, since, table};
use crate::admin::{ClientEntry, Clients, HabitEntry, Time};

/// What is asked for.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    contact: Contact,
    /// Begin to count anew, once this is shown: after devices were set right.
    #[arg(long)]
    forget: bool,
    /// As JSON, as the relay gives it.
    #[arg(long)]
    json: bool,
}

/// Does it and returns the exit status.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    list(arguments).map_or_else(|failure| failure.tell(), |()| ExitCode::SUCCESS)
}

fn list(Arguments { contact, forget, json }: &Arguments) -> Result<(), Failure> {
    let found: Clients = if *forget { contact.delete("/v1/habits")? } else { contact.get("/v1/habits")? };
    if *json {
        show::json(&found);
        return Ok(());
    }
    line(table(
        Lines::Between,
        ["client", "networks", "what it does, how often, where it last came from"],
        found.clients.iter().map(|client| row(client, &found)),
    ));
    line(format_args!("Counted since {}, once for each message.", since(found.since, found.now)));
    if *forget {
        line("From now on it is counted anew.");
    }
    Ok(())
}

fn row(client: &ClientEntry, found: &Clients) -> [String; 3] {
    let habits: Vec<String> = client.habits.iter().map(|habit| habit_in_words(habit, found.now)).collect();
    let habits = if habits.is_empty() { "nothing to mend".to_owned() } else { habits.join("\n") };
    [client.name.clone(), client.networks.join("\n"), habits]
}

/// `bare LF behind commands: 412 since Monday, last from 10.20.1.7 at 18:31:21Z, 5m ago (taken)`
fn habit_in_words(habit: &HabitEntry, now: Time) -> String {
    let HabitEntry { words, outcome, count, first, last, last_peer, .. } = habit;
    format!("{words}: {count} since {}, last from {last_peer} at {} ({outcome})", since(*first, now), past(*last, now))
}
