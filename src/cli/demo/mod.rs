//! `hve-relay demo`: the whole journey on one machine, with nothing to install or configure.
//!
//! It starts the simulated HVE endpoint in this process and the relay as a child of the same binary, with a configuration file, a spool and
//! log lines like any other relay; sends it a small workload over plain SMTP; and tells what became of it from the relay's own log. The
//! outcomes are checked twice: what the relay says, and what the endpoint got. Until Ctrl-C more mail comes and goes (`live`), for the web page, whose
//! address is printed with a token that may try everything there is on it.

mod live;
mod relay;
mod story;
mod workload;

use std::collections::HashSet;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use self::relay::{Child, LogLine};
use self::story::Story;
use super::EX_IOERR;
use crate::sim::{Account, Settings, Sim};

/// How long the workload may take; it needs a second.
const PATIENCE: Duration = Duration::from_secs(60);

const ACCOUNTS: [(&str, &str); 3] =
    [("hve01@contoso.com", "correct horse 1"), ("hve02@contoso.com", "battery staple 2"), ("hve03@contoso.com", "tr0ub4dor 3")];

/// Runs the demonstration; `once` ends it after the table.
pub(super) fn run(once: bool, port: u16) -> ExitCode {
    let outcome =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().and_then(|runtime| runtime.block_on(demonstrate(once, port)));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("hve-relay demo: {error}");
            ExitCode::from(EX_IOERR)
        }
    }
}

/// Returns whether every message had the outcome it should.
async fn demonstrate(once: bool, port: u16) -> io::Result<bool> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let accounts = ACCOUNTS.iter().map(|(user, password)| Account::new(*user, *password)).collect();
    let sim = Sim::start(Settings { accounts, ..Settings::default() }).await?;
    println!("simulated HVE endpoint  {}  (STARTTLS, private CA)", sim.address());
    let folder = tempfile::Builder::new().prefix("hve-relay-demo-").tempdir()?;
    let mut child = Child::start(folder.path(), port, &sim, &ACCOUNTS).await?;
    println!("relay                   {}  ({} accounts)", child.address, ACCOUNTS.len());
    println!("web page                {}", child.page);
    println!("configuration and spool {}\n", folder.path().display());

    let good = tokio::select! {
        good = show(&sim, &mut child) => good?,
        _ = terminate.recv() => false,
        _ = interrupt.recv() => false,
    };
    if !once && good {
        explain(&child);
        let (mut own, mut living) = (HashSet::new(), JoinSet::new());
        living.spawn(live::run(child.address));
        loop {
            tokio::select! {
                line = child.next() => match line {
                    Some(line) if is_own(&line, &mut own) => {}
                    Some(line) => tell(&line),
                    None => break,
                },
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
        }
        println!("\nstopping");
    }
    child.stop().await?;
    Ok(good)
}

/// Sends the workload, follows it to its end, and prints the table.
async fn show(sim: &Sim, child: &mut Child) -> io::Result<bool> {
    let mails = workload::mails();
    let mut story = Story::new(&mails);
    let bar = ProgressBar::new(story.expected() as u64).with_style(
        ProgressStyle::with_template("{bar:30} {pos}/{len} recipients settled  {msg}").unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    let mut senders = JoinSet::new();
    for (i, mail) in mails.iter().cloned().enumerate() {
        let address = child.address;
        senders.spawn(async move { workload::send(address, &mail).await.map(|id| (i, id)) });
    }
    let finished = tokio::time::timeout(PATIENCE, async {
        while !story.is_finished() {
            tokio::select! {
                line = child.next() => story.hear(line.ok_or_else(|| io::Error::other("the relay has ended"))?),
                Some(sent) = senders.join_next() => {
                    let (i, id) = sent.map_err(io::Error::other)??;
                    bar.println(format!("accepted {id}  {}", mails[i].title));
                    story.accepted(i, id);
                }
            }
            bar.set_position(story.settled() as u64);
        }
        Ok::<(), io::Error>(())
    });
    let finished = finished.await;
    bar.finish_and_clear();
    match finished {
        Ok(heard) => heard?,
        Err(_) => println!("not everything was settled within {} s", PATIENCE.as_secs()),
    }
    println!("\n{}\n", story.table());
    let complaints = story.complaints(&mails, &sim.taken());
    for complaint in &complaints {
        println!("NOT AS IT SHOULD BE: {complaint}");
    }
    if complaints.is_empty() {
        println!("Every message had the outcome it should: the relay says so, and the endpoint got what was sent, octet for octet.");
    }
    Ok(complaints.is_empty())
}

fn explain(child: &Child) {
    let (host, port) = (child.address.ip(), child.address.port());
    println!("\nThe page shows it live, with more mail that comes and goes by itself:\n\n  {}", child.page);
    println!("\nNow send one yourself:\n");
    println!("  swaks --server {host} --port {port} --from scanner@contoso.com --to you@contoso.com");
    println!(
        "  python3 -c 'import smtplib; smtplib.SMTP(\"{host}\", {port}).sendmail(\"app@contoso.com\", [\"you@contoso.com\"], \"Subject: hello\\n\\nhello\")'"
    );
    println!("\nRecipients that begin with \"nobody\" are refused by the endpoint; other domains than contoso.com are external.");
    println!("Ctrl-C ends the demonstration and removes its files.\n");
}

/// Whether a line is about the traffic that goes on by itself: that is for the page, and would hide here what people send.
fn is_own(line: &LogLine, own: &mut HashSet<String>) -> bool {
    let id = line.text("queue_id");
    match line.event() {
        "accepted" if live::is_from(line.text("from")) => own.insert(id.to_owned()),
        "notice-queued" if own.contains(id) => own.insert(line.text("notice").to_owned()),
        "removed" => own.remove(id),
        _ => own.contains(id),
    }
}

/// One line for people of what the relay's log says.
fn tell(line: &LogLine) {
    match line.event() {
        "accepted" => println!(
            "{}  accepted from {}: {} recipients, {} octets",
            line.text("queue_id"),
            line.text("from"),
            line.number("nrcpt"),
            line.number("size")
        ),
        "delivery" => println!(
            "{}  {} to {} through {}: {}",
            line.text("queue_id"),
            line.text("status"),
            line.text("to"),
            line.text("account"),
            line.text("reply")
        ),
        "refused" | "connection-refused" => println!("refused: {}", line.text("reply")),
        _ => {}
    }
}
