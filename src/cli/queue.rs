//! `hve-relay queue`: what waits and why, and what can be done about it.

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::control::{self, Contact, Failure, encoded};
use super::letters::{self, Export, Import};
use super::show::{self, Lines, fact, line, many, moment, past, size, span, table};
use crate::admin::{Action, Changed, DeliveryEntry, Detail, Entry, LIMIT_MAX, ListQuery, Page, Selection, Time, Totals, WaitsFor, Why};

/// Columns of the terminal from which a listing tells everything.
const WIDE: u16 = 120;

/// What is asked for.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    contact: Contact,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What is queued, oldest first: each delivery with the reason why it waits, and until when.
    List {
        #[command(flatten)]
        filter: Filter,
        /// At most so many.
        #[arg(long, default_value_t = 100, value_name = "NUMBER")]
        limit: usize,
        /// As JSON, as the relay gives it.
        #[arg(long)]
        json: bool,
    },
    /// Everything about a message, or about one of its deliveries.
    Show {
        /// A queue id; with a dot and a number behind it, that delivery alone.
        id: String,
        /// As JSON, as the relay gives it.
        #[arg(long)]
        json: bool,
    },
    /// Hold mail back until it is released. An attempt under way ends first.
    Hold(Chosen),
    /// Let held mail go on.
    Release(Chosen),
    /// Try deferred mail now.
    Retry(Chosen),
    /// Remove mail for good: its recipients do not get it, and nobody is told.
    Remove {
        #[command(flatten)]
        chosen: Chosen,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Write queued messages into a folder, each as a .eml file and its envelope in JSON. They stay queued. The relay may run or not.
    Export(Export),
    /// Bring in the messages of such a folder, under the queue ids that they had. The relay may run or not.
    ///
    /// Messages that are queued stay as they are. A running relay also leaves out who is known to have got a message since, or never will; and
    /// takes it by the routes of its configuration at once.
    Import(Import),
}

/// Which mail.
#[derive(Debug, Args)]
struct Chosen {
    /// Queue ids; with a dot and a number behind it, that delivery alone.
    #[arg(value_name = "ID", conflicts_with_all = ["all", "client", "class", "priority", "reason"])]
    ids: Vec<String>,
    /// All that is queued.
    #[arg(long, conflicts_with_all = ["client", "class", "priority", "reason"])]
    all: bool,
    #[command(flatten)]
    filter: Filter,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Args)]
struct Filter {
    /// Of this client.
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
    /// Of this class: internal or external.
    #[arg(long)]
    class: Option<String>,
    /// Of this priority: high, normal or bulk.
    #[arg(long)]
    priority: Option<String>,
    /// Waiting for this: under-way, held, deferred, no-account, suspended, paused, budget, connections or turn.
    #[arg(long)]
    reason: Option<String>,
}

/// Does it and returns the exit status.
pub(super) fn run(Arguments { contact, command }: Arguments) -> ExitCode {
    let done = match command {
        Command::List { filter, limit, json } => list(&contact, &filter, limit, json),
        Command::Show { id, json } => show(&contact, &id, json),
        Command::Hold(chosen) => chosen.check().and_then(|()| change(&contact, Action::Hold, &chosen)),
        Command::Release(chosen) => chosen.check().and_then(|()| change(&contact, Action::Release, &chosen)),
        Command::Retry(chosen) => chosen.check().and_then(|()| change(&contact, Action::Retry, &chosen)),
        Command::Export(export) => return letters::export(contact.config(), &export),
        Command::Import(import) => return letters::import(&contact, &import),
        Command::Remove { chosen, yes } => chosen.check().and_then(|()| remove(&contact, &chosen, yes)),
    };
    done.unwrap_or_else(|failure| failure.tell())
}

impl Chosen {
    /// Nothing that was left out stands for everything.
    fn check(&self) -> Result<(), Failure> {
        if self.ids.is_empty() && !self.all && self.filter == Filter::default() {
            return Err(Failure::Usage(
                "name queue ids, or say --all, or which mail with --client, --class, --priority or --reason".to_owned(),
            ));
        }
        Ok(())
    }
}

fn list(contact: &Contact, filter: &Filter, limit: usize, json: bool) -> Result<ExitCode, Failure> {
    let mut page = page(contact, filter, limit, None)?;
    while page.entries.len() < limit
        && let Some(next) = page.next.take()
    {
        let further = self::page(contact, filter, limit - page.entries.len(), Some(next))?;
        page.entries.extend(further.entries);
        page.next = further.next;
    }
    if json {
        show::json(&page);
        return Ok(ExitCode::SUCCESS);
    }
    if page.entries.is_empty() {
        line("nothing is queued that fits");
        return Ok(ExitCode::SUCCESS);
    }
    let now = page.now;
    if show::width() >= WIDE {
        let header = ["id", "client", "from", "to", "size", "age", "tries", "class", "waits because", "until"];
        line(table(Lines::None, header, page.entries.iter().map(|entry| wide(entry, now))));
    } else {
        let header = ["id", "to", "age", "class", "waits because", "until"];
        line(table(Lines::None, header, page.entries.iter().map(|entry| narrow(entry, now))));
    }
    if page.next.is_some() {
        line(format_args!("There is more; --limit {} shows more of it.", limit.saturating_mul(10)));
    }
    Ok(ExitCode::SUCCESS)
}

fn page(contact: &Contact, filter: &Filter, limit: usize, after: Option<String>) -> Result<Page, Failure> {
    let Filter { client, class, priority, reason } = filter.clone();
    let query = ListQuery { after, limit: Some(limit.clamp(1, LIMIT_MAX)), client, class, priority, reason };
    contact.get(&control::query("/v1/queue", &query))
}

fn wide(entry: &Entry, now: Time) -> [String; 10] {
    let [id, to, age, class, reason, until] = narrow(entry, now);
    let from = if entry.from.is_empty() { "<>".to_owned() } else { entry.from.clone() };
    [id, entry.client.clone(), from, to, size(entry.size), age, entry.attempts.to_string(), class, reason, until]
}

fn narrow(entry: &Entry, now: Time) -> [String; 6] {
    // That most mail is of normal priority need not be said of each.
    let class = if entry.priority == "normal" { entry.class.clone() } else { format!("{}, {}", entry.class, entry.priority) };
    let age = span(Duration::from_secs(entry.age));
    [entry.id.clone(), entry.recipients.to_string(), age, class, entry.why.reason.clone(), until(&entry.why, now)]
}

fn until(why: &Why, now: Time) -> String {
    match why {
        Why { until: Some(until), .. } => moment(*until, now),
        Why { waits_for: WaitsFor::Held, .. } => "it is released".to_owned(),
        Why { waits_for: WaitsFor::Suspended, .. } => "it is resumed".to_owned(),
        Why { waits_for: WaitsFor::Budget | WaitsFor::Connections | WaitsFor::Paused, .. } => "an attempt ends".to_owned(),
        _ => String::new(),
    }
}

fn show(contact: &Contact, id: &str, json: bool) -> Result<ExitCode, Failure> {
    let detail: Detail = contact.get(&format!("/v1/queue/{}", encoded(id)))?;
    if json {
        show::json(&detail);
        return Ok(ExitCode::SUCCESS);
    }
    let (now, message) = (detail.now, &detail.message);
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
    ] {
        fact(name, &value);
    }
    for delivery in &detail.deliveries {
        line("");
        show_delivery(delivery, now);
    }
    Ok(ExitCode::SUCCESS)
}

fn show_delivery(delivery: &DeliveryEntry, now: Time) {
    let held = if delivery.held && delivery.why.waits_for != WaitsFor::Held { " (held from the end of the attempt)" } else { "" };
    for (name, value) in [
        ("delivery", delivery.id.clone()),
        ("route", format!("{}, {}", delivery.route, delivery.class)),
        ("attempts", delivery.attempts.to_string()),
        ("last reply", delivery.last_reply.clone()),
        ("in doubt", doubts(delivery.doubts)),
        ("waits", format!("{}{held}", delivery.why.reason)),
        ("until", until(&delivery.why, now)),
        ("to do", delivery.why.advice.clone()),
        ("recipients", delivery.recipients.join("\n            ")),
    ] {
        fact(name, &value);
    }
}

fn doubts(attempts: u32) -> String {
    match attempts {
        0 => String::new(),
        _ => format!("{} may have delivered it, although the server did not say so", many(attempts.into(), "attempt", "attempts")),
    }
}

fn change(contact: &Contact, action: Action, chosen: &Chosen) -> Result<ExitCode, Failure> {
    if chosen.ids.is_empty() {
        let changed = change_all(contact, action, selection(chosen))?;
        line(done(action, &changed, "the queue"));
        return Ok(ExitCode::SUCCESS);
    }
    each(&chosen.ids, |id| {
        let changed: Changed = contact.post(&format!("/v1/queue/{}/{}", encoded(id), action.as_str()), &json!({}))?;
        line(done(action, &changed, id));
        Ok(())
    })
}

fn remove(contact: &Contact, chosen: &Chosen, yes: bool) -> Result<ExitCode, Failure> {
    let mut selection = selection(chosen);
    let mut totals = Totals::default();
    if chosen.ids.is_empty() {
        totals = count(contact, &selection)?;
        if totals.deliveries == 0 {
            line("nothing is queued that fits");
            return Ok(ExitCode::SUCCESS);
        }
        // What comes in from now on was not agreed to.
        selection.through = totals.through.clone();
    }
    for id in &chosen.ids {
        let detail: Detail = contact.get(&format!("/v1/queue/{}", encoded(id)))?;
        totals.messages += 1;
        totals.recipients += detail.deliveries.iter().map(|delivery| delivery.recipients.len()).sum::<usize>();
    }
    let what = many(totals.messages as u64, "message", "messages");
    let who = many(totals.recipients as u64, "recipient will not get it", "recipients will not get it");
    if !yes && !agreed(&format!("{what}: {who}, and nobody is told."))? {
        line("nothing was removed");
        return Ok(ExitCode::FAILURE);
    }
    if chosen.ids.is_empty() {
        let changed = change_all(contact, Action::Remove, selection)?;
        line(done(Action::Remove, &changed, "the queue"));
        return Ok(ExitCode::SUCCESS);
    }
    each(&chosen.ids, |id| {
        let changed: Changed = contact.post(&format!("/v1/queue/{}/remove", encoded(id)), &json!({}))?;
        line(done(Action::Remove, &changed, id));
        Ok(())
    })
}

/// Asks at the terminal.
fn agreed(question: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::Usage(format!("{question} Without a terminal to ask at, say --yes to remove it")));
    }
    let _ = write!(io::stderr(), "{question} Remove? [y/N] ");
    let mut answer = String::new();
    // No answer is no.
    let _ = io::stdin().lock().read_line(&mut answer);
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Does something for each id, also after one for which it failed; that one's refusal is told at once, and in the exit status.
fn each(ids: &[String], mut act: impl FnMut(&str) -> Result<(), Failure>) -> Result<ExitCode, Failure> {
    let mut status = ExitCode::SUCCESS;
    for id in ids {
        match act(id) {
            Ok(()) => {}
            Err(refused @ Failure::Refused(_)) => status = refused.tell(),
            Err(failure) => return Err(failure),
        }
    }
    Ok(status)
}

fn selection(chosen: &Chosen) -> Selection {
    let Filter { client, class, priority, reason } = chosen.filter.clone();
    Selection { all: chosen.all, client, class, priority, reason, after: None, through: None }
}

/// One request looks at a part of the queue; this asks until all of it was looked at.
fn change_all(contact: &Contact, action: Action, mut selection: Selection) -> Result<Changed, Failure> {
    let mut sum = Changed::default();
    loop {
        let part: Changed = contact.post(&format!("/v1/queue/{}", action.as_str()), &selection)?;
        sum.deliveries += part.deliveries;
        sum.recipients += part.recipients;
        sum.unchanged += part.unchanged;
        sum.under_way += part.under_way;
        if part.next.is_none() {
            return Ok(sum);
        }
        selection.after = part.next;
    }
}

fn count(contact: &Contact, selection: &Selection) -> Result<Totals, Failure> {
    let (mut sum, mut selection) = (Totals::default(), selection.clone());
    loop {
        let part: Totals = contact.post("/v1/queue/count", &selection)?;
        sum.messages += part.messages;
        sum.deliveries += part.deliveries;
        sum.recipients += part.recipients;
        sum.through = part.through.or(sum.through);
        if part.next.is_none() {
            return Ok(sum);
        }
        selection.after = part.next;
    }
}

/// What was done, in a sentence.
fn done(action: Action, changed: &Changed, what: &str) -> String {
    let deliveries = many(changed.deliveries as u64, "delivery", "deliveries");
    let recipients = many(changed.recipients as u64, "recipient", "recipients");
    let mut text = match action {
        Action::Hold => format!("{what}: {deliveries} held"),
        Action::Release => format!("{what}: {deliveries} released"),
        Action::Retry => format!("{what}: {deliveries} due now"),
        Action::Remove => format!("{what}: {deliveries} removed; {recipients} will not get it"),
    };
    let same = match action {
        Action::Hold => "held already",
        Action::Release => "not held",
        Action::Retry => "not deferred (`hve-relay queue show` says what they wait for)",
        Action::Remove => "left",
    };
    if changed.unchanged > 0 {
        text.push_str(&format!("; {} {same}", many(changed.unchanged as u64, "delivery", "deliveries")));
    }
    if changed.under_way > 0 {
        text.push_str(&format!("; {} left, as an attempt is under way", many(changed.under_way as u64, "delivery", "deliveries")));
    }
    text
}
