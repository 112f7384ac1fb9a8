//! `hve-relay trace`: what became of mail.

use std::process::ExitCode;

use clap::Args;

use super::control::{Contact, Failure, query};
use super::show::{self, Lines, line, many, moment, past, printable, size, table};
use crate::admin::{AttemptEntry, STORIES, StoryEntry, Time, Trace, TraceQuery};

/// Columns of the terminal from which a listing tells everything.
const WIDE: u16 = 120;
/// Recipients that are named where there are many.
const NAMED: usize = 10;

/// What is asked for.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    contact: Contact,
    /// A queue id, a Message-ID, an address, a client, or words of the subject. All words must be there; without any, everything is listed.
    #[arg(value_name = "WHAT")]
    what: Vec<String>,
    /// Only what came in since then: 2d, 90m, 2026-11-21 or 2026-11-21T08:00:00Z.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only what failed for a recipient.
    #[arg(long)]
    failed: bool,
    /// At most so many messages.
    #[arg(long, default_value_t = STORIES, value_name = "NUMBER")]
    limit: usize,
    /// Only what came in before this message.
    #[arg(long, value_name = "ID")]
    before: Option<String>,
    /// As JSON, as the relay gives it.
    #[arg(long)]
    json: bool,
}

/// Shows it and returns the exit status: 1 if nothing was found.
pub(super) fn run(arguments: Arguments) -> ExitCode {
    show(arguments).unwrap_or_else(|failure| failure.tell())
}

fn show(arguments: Arguments) -> Result<ExitCode, Failure> {
    let Arguments { contact, what, since, failed, limit, before, json } = arguments;
    let what = Some(what.join(" ")).filter(|what| !what.is_empty());
    let asked = TraceQuery { what, since, failed: failed.then_some(true), before, limit: Some(limit) };
    let trace: Trace = contact.get(&query("/v1/trace", &asked))?;
    let status = if trace.stories.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    if json {
        show::json(&trace);
        return Ok(status);
    }
    match trace.stories.as_slice() {
        [] if trace.next.is_none() => line("nothing is remembered that fits"),
        [] => line("nothing was found in the time that a question has"),
        [story] => tell(story, trace.now),
        stories => list(stories, trace.now),
    }
    if let Some(next) = &trace.next {
        line(format_args!("There may be more: --before {next} goes on, --since shortens the search."));
    }
    Ok(status)
}

fn list(stories: &[StoryEntry], now: Time) {
    let from = |story: &StoryEntry| if story.message.from.is_empty() { "<>".to_owned() } else { story.message.from.clone() };
    if show::width() >= WIDE {
        let rows = stories.iter().map(|story| {
            let message = &story.message;
            [
                message.id.clone(),
                past(message.accepted, now),
                message.client.clone(),
                from(story),
                to(story),
                message.subject.clone(),
                state(story),
            ]
        });
        line(table(Lines::None, ["id", "accepted", "client", "from", "to", "subject", "state"], rows));
    } else {
        let rows = stories.iter().map(|story| [story.message.id.clone(), past(story.message.accepted, now), to(story), state(story)]);
        line(table(Lines::None, ["id", "accepted", "to", "state"], rows));
    }
}

/// To whom: by name if it is one, else how many.
fn to(story: &StoryEntry) -> String {
    let mut recipients = story.deliveries.iter().flat_map(|delivery| &delivery.recipients);
    match (recipients.next(), recipients.count()) {
        (Some(first), 0) => first.clone(),
        (Some(_), further) => many(further as u64 + 1, "recipient", "recipients"),
        (None, _) => String::new(),
    }
}

/// `3 sent, 1 failed`.
fn state(story: &StoryEntry) -> String {
    let counts = [(story.sent, "sent"), (story.failed, "failed"), (story.removed, "removed"), (story.waiting, "waiting")];
    let alone = counts.iter().filter(|(count, _)| *count > 0).count() == 1;
    let part = |(count, what): &(usize, &str)| if alone && *count == 1 { (*what).to_owned() } else { format!("{count} {what}") };
    let parts: Vec<String> = counts.iter().filter(|(count, _)| *count > 0).map(part).collect();
    if parts.is_empty() { "not known".to_owned() } else { parts.join(", ") }
}

fn tell(story: &StoryEntry, now: Time) {
    let message = &story.message;
    let from = if message.from.is_empty() { format!("<> ({} of the relay)", message.kind) } else { message.from.clone() };
    let client = message.peer.as_ref().map_or_else(|| message.client.clone(), |peer| format!("{} at {peer}", message.client));
    for (name, value) in [
        ("message", message.id.clone()),
        ("accepted", past(message.accepted, now)),
        ("client", client),
        ("from", from),
        ("author", message.author.clone().unwrap_or_default()),
        ("subject", message.subject.clone()),
        ("message-id", message.message_id.clone()),
        ("size", size(message.size)),
        ("priority", message.priority.clone()),
        ("state", state(story)),
    ] {
        show::fact(name, &value);
    }
    for delivery in &story.deliveries {
        line("");
        show::fact("delivery", &delivery.id);
        show::fact("route", &format!("{}, {}", delivery.route, delivery.class));
        show::fact("recipients", &names(&delivery.recipients));
        for attempt in &delivery.attempts {
            line(format_args!("  {}", printable(&attempted(attempt, &delivery.recipients))));
        }
        for queued in story.queued.iter().filter(|queued| queued.id == delivery.id) {
            let until = queued.why.until.map(|until| format!(" until {}", moment(until, now))).unwrap_or_default();
            line(format_args!("  waits{until}: {}", printable(&queued.why.reason)));
            if !queued.why.advice.is_empty() {
                line(format_args!("         {}", printable(&queued.why.advice)));
            }
        }
    }
}

fn names(recipients: &[String]) -> String {
    let mut text = recipients.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if recipients.len() > NAMED {
        text.push_str(&format!(", and {} more (--json has all)", recipients.len() - NAMED));
    }
    text
}

/// `2026-11-21T18:31:21.042Z sent on hve01@contoso.com in 0.204s: 250 2.6.0 Queued`
fn attempted(attempt: &AttemptEntry, all: &[String]) -> String {
    let mut text = format!("{} {}", attempt.started.0, attempt.result);
    if !attempt.account.is_empty() {
        let took = attempt.ended.0.since(attempt.started.0);
        text.push_str(&format!(" on {} in {:.3}s", attempt.account, took.as_secs_f64()));
    }
    if !attempt.sender.is_empty() && attempt.sender != attempt.account {
        text.push_str(&format!(" as {}", attempt.sender));
    }
    if !attempt.step.is_empty() {
        text.push_str(&format!(", {}", attempt.step));
    }
    text.push_str(&format!(": {}", attempt.reply));
    if let Some(id) = &attempt.upstream_id {
        text.push_str(&format!("\n      the server's own id: {id}"));
    }
    if let Some(retry) = attempt.retry {
        text.push_str(&format!("\n      next attempt not before {}", retry.0));
    }
    if attempt.recipients.len() < all.len() {
        text.push_str(&format!("\n      to {}", names(&attempt.recipients)));
    }
    text
}
