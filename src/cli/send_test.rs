//! `hve-relay send-test`: one real message through the running relay, followed to its outcome.
//!
//! It goes in as any device's mail does, at a listener that serves this machine, and out over the accounts: what it proves is the whole way. An
//! author that is an account pins a message to it; so with `--account` the author is that account.

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;

use super::EX_IOERR;
use super::control::{Contact, Failure, encoded, query};
use super::dialogue::{self, Dialogue};
use super::show::{self, fact};
use crate::admin::{Detail, Trace, TraceQuery, WaitsFor, Why};
use crate::clock::Clock;
use crate::config::{Config, Listener};
use crate::intake::Policy;
use crate::mail::ClientName;
use crate::session::{Auth, Tls};
use crate::smtp::{Mailbox, Reply, ReversePath};
use crate::units::parse_duration;

/// sysexits(3): it may still come to something.
const EX_TEMPFAIL: u8 = 75;
/// How often it is asked what became of it.
const EVERY: Duration = Duration::from_millis(250);
/// How often the queue and the history may both not know it, before it is certain that nobody remembers it: what was settled is written to the
/// history within milliseconds.
const LOOKS: u32 = 12;

/// What is sent.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    contact: Contact,
    /// Who gets it.
    #[arg(long, value_name = "ADDRESS")]
    to: Mailbox,
    /// On this account and no other; without it the relay chooses.
    #[arg(long, value_name = "ADDRESS")]
    account: Option<Mailbox>,
    /// As whom it is handed to the relay (MAIL FROM); without it the account, or postmaster of the first of the tenant's domains.
    #[arg(long, value_name = "ADDRESS")]
    from: Option<Mailbox>,
    /// How long to wait for its outcome.
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = parse_duration)]
    wait: Duration,
    /// As JSON, when it is over.
    #[arg(long)]
    json: bool,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "result")]
enum Outcome {
    /// The upstream server has it.
    Delivered { account: String, relay: String, reply: String },
    /// It never gets there, or an operator has removed it.
    Failed { account: String, relay: String, reply: String },
    /// It still waits.
    Waiting {
        why: String,
        to_do: String,
        /// It is on its way, and waits for nothing that anybody need hear of.
        #[serde(skip)]
        going: bool,
    },
    /// It has left the queue, and nobody remembers how.
    Unknown,
}

#[derive(Debug, Serialize)]
struct Told<'a> {
    id: &'a str,
    seconds: f64,
    #[serde(flatten)]
    outcome: &'a Outcome,
}

/// Sends, follows, and returns the exit status: 0 delivered, 1 refused or failed, 75 it still waits or nobody knows, 69 no relay answers.
pub(super) fn run(arguments: &Arguments) -> ExitCode {
    send(arguments).unwrap_or_else(|failure| failure.tell())
}

fn send(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let config = Config::examine(arguments.contact.config()).map_err(Failure::Config)?.config;
    let named = |account: &Mailbox| config.schedule.accounts.iter().any(|known| known.name.as_str().eq_ignore_ascii_case(account.as_str()));
    if let Some(account) = arguments.account.as_ref().filter(|account| !named(account)) {
        let known: Vec<&str> = config.schedule.accounts.iter().map(|known| known.name.as_str()).collect();
        return Err(Failure::Usage(format!("{account} is no account; there are {}", known.join(", "))));
    }
    let letter = Letter::new(arguments, &config)?;
    let way = Way::choose(&config, &letter)?;
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let handed = match runtime.map(|runtime| runtime.block_on(letter.hand_over(&config, &way))) {
        Ok(handed) => handed,
        Err(error) => {
            eprintln!("hve-relay: {error}");
            return Ok(ExitCode::from(EX_IOERR));
        }
    };
    let id = handed?;
    if !arguments.json {
        let at = dialogue::reach(way.listener.address);
        fact("accepted", &format!("{id} from {} to {}, of client {:?} at {at}", letter.from, letter.to, way.client.as_str()));
    }
    let outcome = follow(arguments, &id, begun)?;
    tell(arguments.json, &id, begun.elapsed(), &outcome);
    Ok(match outcome {
        Outcome::Delivered { .. } => ExitCode::SUCCESS,
        Outcome::Failed { .. } => ExitCode::FAILURE,
        Outcome::Waiting { .. } | Outcome::Unknown => ExitCode::from(EX_TEMPFAIL),
    })
}

/// The message.
struct Letter<'a> {
    from: Mailbox,
    to: &'a Mailbox,
    content: String,
}

impl<'a> Letter<'a> {
    fn new(arguments: &'a Arguments, config: &Config) -> Result<Self, Failure> {
        let domain = config.intake.accepted_domains.first().map_or("localhost", String::as_str);
        let postmaster =
            || format!("postmaster@{domain}").parse().map_err(|error| Failure::Usage(format!("{domain}: {error}; say --from")));
        let from = match arguments.from.as_ref().or(arguments.account.as_ref()) {
            Some(from) => from.clone(),
            None => postmaster()?,
        };
        let author = arguments.account.as_ref().unwrap_or(&from);
        let (now, hostname) = (Clock::wall(), &config.session.hostname);
        let content = format!(
            "From: {author}\r\nTo: {to}\r\nSubject: Test of hve-relay on {hostname}\r\nDate: {date}\r\nMessage-ID: <{millis}.{pid}.test@{hostname}>\r\n\
             \r\nThis message was sent by hve-relay send-test on {hostname}, to try the way to you.\r\n",
            to = arguments.to,
            date = now.rfc5322(),
            millis = now.as_millis(),
            pid = std::process::id(),
        );
        Ok(Self { from, to: &arguments.to, content })
    }

    /// One transaction; returns the queue id.
    async fn hand_over(&self, config: &Config, way: &Way<'_>) -> Result<String, Failure> {
        let own = config.session.hostname.as_str();
        let at = dialogue::reach(way.listener.address);
        let lost = |why: String| Failure::NoAnswer(format!("the relay does not take it at {at}: {why}"));
        let refused = |step: &str, reply: &Reply| Failure::Refused(format!("the relay refuses it: {step}: {reply}"));
        let (mut dialogue, greeting) = Dialogue::connect(way.listener, own, way.from, None).await.map_err(lost)?;
        if !greeting.is_positive() {
            return Err(refused("greeting", &greeting));
        }
        let hello = format!("EHLO {own}");
        let mut reply = dialogue.command(&hello).await.map_err(lost)?;
        if way.listener.entrance.tls == Tls::StartTlsRequired {
            let ready = dialogue.command("STARTTLS").await.map_err(lost)?;
            if !ready.is_positive() {
                return Err(refused("STARTTLS", &ready));
            }
            dialogue = dialogue.starttls(way.listener, own).await.map_err(lost)?;
            reply = dialogue.command(&hello).await.map_err(lost)?;
        }
        if !reply.is_positive() {
            return Err(refused("EHLO", &reply));
        }
        for (step, command) in [("MAIL FROM", format!("MAIL FROM:<{}>", self.from)), ("RCPT TO", format!("RCPT TO:<{}>", self.to))] {
            let reply = dialogue.command(&command).await.map_err(lost)?;
            if !reply.is_positive() {
                return Err(refused(step, &reply));
            }
        }
        let ready = dialogue.command("DATA").await.map_err(lost)?;
        if ready.code != 354 {
            return Err(refused("DATA", &ready));
        }
        dialogue.send(format!("{}.\r\n", self.content).as_bytes()).await.map_err(lost)?;
        let reply = dialogue.reply().await.map_err(lost)?;
        if !reply.is_positive() {
            return Err(refused("end of data", &reply));
        }
        dialogue.quit().await;
        Ok(reply.text().rsplit(' ').next().unwrap_or_default().to_owned())
    }
}

/// Where it goes in: a listener, and the address of this machine that makes it a client's.
struct Way<'a> {
    listener: &'a Listener,
    from: IpAddr,
    client: ClientName,
}

impl<'a> Way<'a> {
    fn choose(config: &'a Config, letter: &Letter<'_>) -> Result<Self, Failure> {
        let policy = Policy::new(config.intake.clone());
        let mut ways = Vec::new();
        for listener in config.listeners.iter().filter(|listener| listener.entrance.auth != Auth::Required && listener.address.port() != 0)
        {
            for from in dialogue::own_addresses(dialogue::reach(listener.address)) {
                let balanced = listener.proxy_from.iter().any(|network| network.contains(&from));
                if let Some(client) = policy.client(from).filter(|client| !balanced && listener.entrance.serves(&client.name)) {
                    let sender = ReversePath::Mailbox(letter.from.clone());
                    let may = policy.sender(client, &sender).and_then(|()| policy.addressee(client, letter.to));
                    let may = may.and_then(|()| policy.recipient(&client.name, letter.to, None));
                    ways.push((may.is_err(), Self { listener, from, client: client.name.clone() }));
                }
            }
        }
        // One that may send it, if there is one; else the relay says why none may.
        ways.sort_by_key(|(refused, _)| *refused);
        ways.into_iter().next().map(|(_, way)| way).ok_or_else(|| {
            Failure::Refused(
                "no listener serves this machine without a login, so that nothing can be handed in here: add a [[client]] with networks = [\"127.0.0.1\"]"
                    .to_owned(),
            )
        })
    }
}

/// Asks until it is settled, or `--wait` is over; tells when it waits for something else.
fn follow(arguments: &Arguments, id: &str, begun: Instant) -> Result<Outcome, Failure> {
    let spinner = ProgressBar::new_spinner();
    spinner.enable_steady_tick(EVERY);
    let (mut told, mut unseen) = (String::new(), 0);
    let outcome = loop {
        let outcome = ask(&arguments.contact, id)?;
        match &outcome {
            Outcome::Waiting { why, going, .. } => {
                unseen = 0;
                spinner.set_message(why.clone());
                if *why != told && !going && !arguments.json {
                    spinner.suspend(|| fact("waits", why));
                }
                told = why.clone();
            }
            Outcome::Unknown => unseen += 1,
            _ => break outcome,
        }
        if unseen >= LOOKS || begun.elapsed() >= arguments.wait {
            break outcome;
        }
        std::thread::sleep(EVERY);
    };
    spinner.finish_and_clear();
    Ok(outcome)
}

/// What the relay knows of it now.
fn ask(contact: &Contact, id: &str) -> Result<Outcome, Failure> {
    let trace: Trace = contact.get(&query("/v1/trace", &TraceQuery { what: Some(id.to_owned()), ..TraceQuery::default() }))?;
    let story = trace.stories.into_iter().find(|story| story.message.id == id);
    if let Some(story) = story {
        let last = story.deliveries.iter().flat_map(|delivery| &delivery.attempts).next_back();
        let (account, relay, reply) = last.map(|last| (last.account.clone(), last.relay.clone(), last.reply.clone())).unwrap_or_default();
        match (story.sent, story.failed + story.removed) {
            (0, 0) => {}
            (0, _) => return Ok(Outcome::Failed { account, relay, reply }),
            _ => return Ok(Outcome::Delivered { account, relay, reply }),
        }
        if let Some(queued) = story.queued.first() {
            return Ok(waiting(&queued.why));
        }
    }
    match contact.get::<Detail>(&format!("/v1/queue/{}", encoded(id))) {
        Ok(detail) => Ok(detail.deliveries.first().map_or(Outcome::Unknown, |delivery| waiting(&delivery.why))),
        Err(Failure::Refused(_)) => Ok(Outcome::Unknown),
        Err(failure) => Err(failure),
    }
}

fn waiting(why: &Why) -> Outcome {
    let going = matches!(why.waits_for, WaitsFor::UnderWay | WaitsFor::Turn);
    Outcome::Waiting { why: why.reason.clone(), to_do: why.advice.clone(), going }
}

fn tell(json: bool, id: &str, took: Duration, outcome: &Outcome) {
    let seconds = took.as_millis() as f64 / 1_000.0;
    if json {
        show::json(&Told { id, seconds, outcome });
        return;
    }
    match outcome {
        Outcome::Delivered { account, relay, reply } => {
            fact("delivered", &format!("after {seconds:.1} s on {account} to {relay}"));
            fact("reply", reply);
        }
        Outcome::Failed { account, relay, reply } => {
            let by = if account.is_empty() { String::new() } else { format!(" on {account} to {relay}") };
            fact("failed", &format!("after {seconds:.1} s{by}"));
            fact("reply", reply);
        }
        Outcome::Waiting { to_do, .. } => {
            fact("still", &format!("queued after {seconds:.1} s; hve-relay trace {id} tells what becomes of it"));
            fact("to do", to_do);
        }
        Outcome::Unknown => {
            fact("unknown", &format!("{id} has left the queue, and the history does not have it (history.keep): the log says how"))
        }
    }
}
