//! The relay's own listeners: whether they can be had, what they show, and whether a stranger gets mail through them.
//!
//! The probe plays the usual tricks of those who look for open relays. It never comes to DATA: nothing is accepted, whatever the answers are. To be a
//! stranger it takes an address of this machine that is no client's; where all of them are clients' it says so.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::findings::{Finding, Level};
use super::servers;
use crate::cli::dialogue::{self, Dialogue};
use crate::clock::Timestamp;
use crate::config::{Config, Listener};
use crate::daemon;
use crate::intake::Policy;
use crate::notice::SOON;
use crate::tls::CertificateFiles;

/// An address that is surely nobody's client: of documentation (RFC 5737).
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 66));
/// A domain that does not exist (RFC 2606).
const OUTSIDE: &str = "relay-test.example";

/// Looks at every listener.
pub(super) async fn look(config: &Config, running: bool, now: Timestamp) -> Vec<Finding> {
    let mut findings = everybody(config);
    let policy = Policy::new(config.intake.clone());
    for listener in &config.listeners {
        let about = format!("listener {}", listener.address);
        findings.extend(certificate(&about, listener.certificate.as_ref(), now));
        if listener.address.port() == 0 {
            findings.push(Finding::pass(&about, "port 0 is a free port of the system's choice, another one at each start"));
            continue;
        }
        match greeted(config, listener).await {
            Served::ByTheRelay => {
                findings.push(Finding::pass(&about, "the relay answers there"));
                findings.push(probe(config, listener, &policy).await);
            }
            Served::Waiting => {
                let found = "connections are taken, and nobody greets: a socket of the service manager waits for the relay, or another program has the port";
                let to_do = "start the relay; if it runs, `ss -ltnp` says who listens there";
                findings.push(Finding::of(if running { Level::Fail } else { Level::Warn }, about, found, to_do));
            }
            Served::ByAnother(greeting) => {
                let to_do = "another program listens there, and the relay does not start beside it: `ss -ltnp` names it";
                findings.push(Finding::fail(about, format!("somebody else answers there: {greeting}"), to_do));
            }
            Served::ByNobody if running => {
                let to_do = "is this the configuration that it runs with? After a change of [[listener]] it must read it again";
                findings.push(Finding::fail(about, "the relay runs, and nobody answers there", to_do));
            }
            Served::ByNobody => findings.push(bound(about, listener.address)),
        }
    }
    findings
}

/// A client that is everybody is allowed where it was asked for in so many words, and never a good idea.
fn everybody(config: &Config) -> Vec<Finding> {
    let open = config.intake.clients.iter().filter(|client| client.networks.iter().any(|network| network.prefix_len() == 0));
    let finding = |name: &str| {
        let to_do =
            "write the networks of the devices instead: whoever reaches a listener may send to everybody whom this client may send to";
        Finding::warn(format!("client {name}"), "its networks are the whole world", to_do)
    };
    open.map(|client| finding(client.name.as_str())).collect()
}

/// How long a certificate lasts that is shown, if one is.
pub(super) fn certificate(about: &str, files: Option<&CertificateFiles>, now: Timestamp) -> Option<Finding> {
    let files = files?;
    // Whether it can be used at all, the configuration has looked.
    let own = CertificateDer::from_pem_slice(&fs::read(&files.chain).ok()?).ok()?;
    let (text, left) = servers::described(&own, now)?;
    let level = match left {
        ..=0 => Level::Fail,
        1..=SOON => Level::Warn,
        _ => Level::Pass,
    };
    let to_do = format!(
        "put a new certificate and its key in place of {} and {}: they are read again by themselves",
        files.chain.display(),
        files.key.display()
    );
    Some(Finding::of(level, about, format!("its certificate: {text}"), to_do))
}

enum Served {
    ByTheRelay,
    ByAnother(String),
    /// Somebody takes connections and says nothing.
    Waiting,
    ByNobody,
}

async fn greeted(config: &Config, listener: &Listener) -> Served {
    let own = &config.session.hostname;
    let from = dialogue::reach(listener.address).ip();
    let claimed = balanced(listener, from).then_some(STRANGER);
    match Dialogue::connect(listener, own, from, claimed).await {
        Ok((dialogue, greeting)) => {
            dialogue.quit().await;
            // Whom it does not serve it tells so in place of a greeting, and names the setting.
            let ours = greeting.text().contains(own.as_str()) || greeting.code == 554 && greeting.text().contains("is not a client");
            if ours { Served::ByTheRelay } else { Served::ByAnother(greeting.to_string()) }
        }
        Err(_) if dialogue::answers(listener.address).await => Served::Waiting,
        Err(_) => Served::ByNobody,
    }
}

/// Whether an address can be had on which nobody answers.
pub(super) fn bound(about: String, address: SocketAddr) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::pass(about, "it can be listened on; the relay does not run"),
        Err(error) => {
            let hint = daemon::bind_hint(&error).trim_start_matches("; ");
            let hint = if hint.is_empty() { "look at the system's words" } else { hint };
            Finding::fail(about, format!("it cannot be listened on: {error}"), hint)
        }
    }
}

fn balanced(listener: &Listener, from: IpAddr) -> bool {
    listener.proxy_from.iter().any(|network| network.contains(&from))
}

/// Tries to get mail to strangers through a listener.
async fn probe(config: &Config, listener: &Listener, policy: &Policy) -> Finding {
    let about = format!("open relay {}", listener.address);
    let here = dialogue::own_addresses(dialogue::reach(listener.address));
    // Behind a balancer one is who the balancer says.
    let through = here.iter().copied().find(|from| balanced(listener, *from)).filter(|_| policy.client(STRANGER).is_none());
    let stranger = here.iter().copied().find(|from| policy.client(*from).is_none() && !balanced(listener, *from));
    let (from, claimed) = match (through, stranger) {
        (Some(balancer), _) => (balancer, Some(STRANGER)),
        (None, Some(stranger)) => (stranger, None),
        (None, None) => {
            let client = here.first().and_then(|from| policy.client(*from)).map(|client| client.name.to_string()).unwrap_or_default();
            let found = format!("not tried: every address of this machine is client {client:?}, and may send as that one may");
            return Finding::pass(about, found);
        }
    };
    let who = claimed.unwrap_or(from);
    match tried(config, listener, from, claimed).await {
        Ok((_, accepted)) if !accepted.is_empty() => {
            let to_do = "take the relay off the network until this is understood, and report it: nobody but a client may send";
            Finding::fail(about, format!("a stranger ({who}) got through with {}", accepted.join("; ")), to_do)
        }
        Ok((0, _)) => Finding::pass(about, format!("a stranger ({who}) is turned away at once")),
        Ok((tricks, _)) => Finding::pass(about, format!("a stranger ({who}) tried {tricks} tricks, and every one was refused")),
        Err(why) => Finding::warn(about, format!("it could not be tried to its end as {who}: {why}"), "try it again"),
    }
}

/// How many tricks could be tried, and which of them got through.
async fn tried(config: &Config, listener: &Listener, from: IpAddr, claimed: Option<IpAddr>) -> Result<(usize, Vec<String>), String> {
    let own = config.session.hostname.as_str();
    let (mut dialogue, greeting) = Dialogue::connect(listener, own, from, claimed).await?;
    if !greeting.is_positive() {
        return Ok((0, Vec::new()));
    }
    let hello = format!("EHLO {OUTSIDE}");
    dialogue.command(&hello).await?;
    if listener.entrance.has_starttls() && dialogue.command("STARTTLS").await?.is_positive() {
        dialogue = dialogue.starttls(listener, own).await?;
        dialogue.command(&hello).await?;
    }
    let domain = config.intake.accepted_domains.first().map_or("contoso.com", String::as_str);
    let (mut count, mut accepted) = (0, Vec::new());
    for (sender, recipient) in tricks(own, domain) {
        count += 1;
        let mail = dialogue.command(&format!("MAIL FROM:{sender}")).await?;
        let rcpt = dialogue.command(&format!("RCPT TO:{recipient}")).await?;
        if rcpt.is_positive() {
            accepted.push(format!("MAIL FROM:{sender} RCPT TO:{recipient} ({rcpt})"));
        }
        if [&mail, &rcpt].iter().any(|reply| reply.code == 421) {
            break;
        }
        dialogue.command("RSET").await?;
    }
    dialogue.quit().await;
    Ok((count, accepted))
}

/// The usual list: false senders, and recipients that a careless server takes for its own.
fn tricks(hostname: &str, domain: &str) -> Vec<(String, String)> {
    let plain = format!("<victim@{OUTSIDE}>");
    let senders = [
        format!("<spam@{OUTSIDE}>"),
        "<>".to_owned(),
        format!("<spam@{domain}>"),
        format!("<spam@{hostname}>"),
        "<spam@[127.0.0.1]>".to_owned(),
        "<spam@localhost>".to_owned(),
        "<spam>".to_owned(),
    ];
    let recipients = [
        format!("<victim%{OUTSIDE}@{domain}>"),
        format!("<victim%{OUTSIDE}@{hostname}>"),
        format!("<victim%{OUTSIDE}>"),
        format!("<\"victim@{OUTSIDE}\">"),
        format!("<\"victim@{OUTSIDE}\"@{domain}>"),
        format!("<victim@{OUTSIDE}@{domain}>"),
        format!("<@{domain}:victim@{OUTSIDE}>"),
        format!("<@{hostname}:victim@{OUTSIDE}>"),
        format!("<{OUTSIDE}!victim>"),
        format!("<{OUTSIDE}!victim@{domain}>"),
    ];
    let false_senders = senders.into_iter().map(|sender| (sender, plain.clone()));
    let tricky = recipients.into_iter().map(|recipient| (format!("<spam@{domain}>"), recipient));
    false_senders.chain(tricky).collect()
}
