//! The other end: each route's server, each application's tokens, each account's login. Nothing is sent: what comes behind AUTH is QUIT.
//!
//! A login that is refused is tried once and no more, so that nobody is locked out by looking. Where a server cannot be had at all, its accounts
//! are not tried; neither are those of an application without a token.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::timeout;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::findings::{Finding, Level};
use super::{Progress, Seen, tokens};
use crate::clock::Timestamp;
use crate::config::{Config, Proof, Route};
use crate::mail::{AccountName, AppName};
use crate::notice::days_left;
use crate::reply::{self, Catalogue, Cause, Step, Trouble};
use crate::tls::Opportunistic;
use crate::units::{ByteSize, format_duration};
use crate::upstream::oauth::TokenSource;
use crate::upstream::{Connection, Credential, Endpoint, Login, Offers, Security, Timeouts, TlsFacts, Turns};

/// Accounts that are tried at a time.
const AT_ONCE: usize = 4;
/// Days before the end of a server's certificate from which it is odd that there is no new one.
const SOON: i64 = 7;

/// Looks at every route, application and account; `only` these accounts, if any are named.
pub(super) async fn look(config: &Config, only: &[String], limit: Duration, seen: &mut Seen, progress: &Progress) -> Vec<Finding> {
    let mut findings = Vec::new();
    let sources = tokens::look(config, limit, seen, progress, &mut findings).await;
    let catalogue = Arc::new(Catalogue::extended(config.replies.clone()));
    for route in &config.routes {
        let about = format!("route {}", route.name);
        progress.say(&about);
        if route.host.parse::<IpAddr>().is_err() && !resolved(&about, route, limit, &mut findings).await {
            continue;
        }
        let endpoint = match config.endpoint(route) {
            Ok(endpoint) => Endpoint { timeouts: hurried(endpoint.timeouts, limit), ..endpoint },
            Err(error) => {
                findings.push(Finding::fail(&about, error.to_string(), "mend the certificate files of the route"));
                continue;
            }
        };
        match Connection::open(&endpoint, None).await {
            Ok(connection) => {
                seen.date(&route.host, connection.greeting().text());
                findings.extend(met(config, route, &about, &connection));
                connection.quit().await;
            }
            Err(trouble) => {
                findings.push(failed(&about, &trouble, &catalogue));
                findings.extend(shown(&about, route, &endpoint, &trouble).await);
                continue;
            }
        }
        findings.extend(accounts(config, route, only, &endpoint, &sources, &catalogue, progress).await);
    }
    findings
}

/// An operator waits for the answer, and less patiently than a message does.
fn hurried(timeouts: Timeouts, limit: Duration) -> Timeouts {
    Timeouts {
        connect: timeouts.connect.min(limit),
        greeting: timeouts.greeting.min(limit),
        command: timeouts.command.min(limit),
        ..timeouts
    }
}

async fn resolved(about: &str, route: &Route, limit: Duration, findings: &mut Vec<Finding>) -> bool {
    let to_do = "ask the resolver by hand (getent hosts NAME), and look at /etc/resolv.conf; is the name of the route's host right?";
    let begun = Instant::now();
    let found = match timeout(limit, lookup_host((route.host.as_str(), route.port))).await {
        Err(_) => Err(format!("no answer within {}", format_duration(limit))),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(addresses)) => Ok(addresses.map(|address| address.ip().to_string()).collect::<Vec<_>>()),
    };
    let finding = match found {
        Ok(addresses) if !addresses.is_empty() => {
            Finding::pass(about, format!("{} is {} ({} ms)", route.host, addresses.join(", "), begun.elapsed().as_millis()))
        }
        Ok(_) => Finding::fail(about, format!("{} has no address", route.host), to_do),
        Err(why) => Finding::fail(about, format!("the name {} leads nowhere: {why}", route.host), to_do),
    };
    let well = finding.level == Level::Pass;
    findings.push(finding);
    well
}

/// What a server that answers has shown of itself.
fn met(config: &Config, route: &Route, about: &str, connection: &Connection) -> Vec<Finding> {
    let now = crate::clock::Clock::wall();
    let mut findings = Vec::new();
    let peer = connection.peer();
    match connection.tls() {
        Some(TlsFacts { version, cipher, chain }) => {
            let verified = connection.protection().as_str();
            findings.push(Finding::pass(about, format!("{peer} answers; {version} {cipher}, {verified}")));
            findings.extend(certificates(about, &chain, now));
        }
        None => findings.push(Finding::pass(about, format!("{peer} answers, in clear as configured"))),
    }
    findings.push(offered(config, route, about, connection.offers()));
    findings
}

fn certificates(about: &str, chain: &[CertificateDer<'_>], now: Timestamp) -> Vec<Finding> {
    let finding = |certificate: &CertificateDer<'_>| {
        let (text, left) = described(certificate, now)?;
        let level = if left <= SOON { Level::Warn } else { Level::Pass };
        let to_do = "whoever runs the server must renew it; when it has ended nothing is sent";
        Some(Finding::of(level, about, format!("certificate: {text}"), to_do))
    };
    chain.iter().filter_map(finding).collect()
}

/// A certificate in words, and the days that it is still valid.
pub(super) fn described(certificate: &CertificateDer<'_>, now: Timestamp) -> Option<(String, i64)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let end = Timestamp::from_millis(parsed.validity().not_after.timestamp().saturating_mul(1_000));
    let left = days_left(end, now);
    let ends = if left > 0 { format!("ends {} (in {left} days)", end.date()) } else { format!("has ended {}", end.date()) };
    Some((format!("{}, issued by {}, {ends}", parsed.subject(), parsed.issuer()), left))
}

fn offered(config: &Config, route: &Route, about: &str, offers: &Offers) -> Finding {
    let size = offers.size.map(|size| format!("SIZE {size}"));
    let words = [
        (offers.pipelining, "PIPELINING"),
        (offers.chunking, "CHUNKING"),
        (offers.eight_bit_mime, "8BITMIME"),
        (offers.smtputf8, "SMTPUTF8"),
        (offers.dsn, "DSN"),
        (offers.enhanced_status_codes, "ENHANCEDSTATUSCODES"),
    ];
    let words = words.into_iter().filter(|(offered, _)| *offered).map(|(_, word)| word.to_owned());
    let auth = (!offers.auth.is_empty()).then(|| format!("AUTH {}", offers.auth.join(" ")));
    let all: Vec<String> = size.into_iter().chain(words).chain(auth).collect();
    let found = format!("it offers {}", if all.is_empty() { "nothing".to_owned() } else { all.join(", ") });
    let accounts = || config.schedule.accounts.iter().filter(|account| account.route == route.name);
    let proofs = accounts().filter_map(|account| config.logins.get(&account.name)).map(|login| &login.proof);
    let lacking = |proof: &Proof| match proof {
        Proof::Password(_) => !offers.offers_auth("PLAIN") && !offers.offers_auth("LOGIN"),
        Proof::App(_) => !offers.offers_auth("XOAUTH2"),
    };
    if proofs.clone().any(lacking) {
        return Finding::fail(about, found, "accounts are to log in there, and it does not offer how: is this the right server and port?");
    }
    match offers.size {
        Some(size) if size < route.message_size.min(config.session.message_size) => {
            let to_do = format!(
                "clients may send up to {}, and what is larger than the server takes comes back: lower message_size",
                ByteSize(config.session.message_size)
            );
            Finding::warn(about, found, to_do)
        }
        _ => Finding::pass(about, found),
    }
}

/// What went wrong, with what the catalogue says of it.
fn failed(about: &str, trouble: &Trouble, catalogue: &Catalogue) -> Finding {
    let advised = reply::judge_open(catalogue, trouble, 1).pause.map(|pause| pause.advice).unwrap_or_default();
    let to_do = match (&trouble.cause, trouble.step) {
        _ if !advised.is_empty() => advised,
        (Cause::Token(fault), _) if !fault.advice.is_empty() => fault.advice.clone(),
        (_, Step::Connect | Step::Greeting) => {
            "is the port open in the firewall from here? Try: openssl s_client -starttls smtp -connect HOST:587".to_owned()
        }
        (_, Step::Tls | Step::StartTls) => {
            "look at host, tls, tls_server_name and tls_ca_file of the route, at the clock, and whether a firewall opens TLS".to_owned()
        }
        _ => "try again; if it stays, ask whoever runs the server with these words".to_owned(),
    };
    Finding::fail(about, trouble.to_string(), to_do)
}

/// The certificate that was not believed. It is asked for once more without believing it; no login goes over that connection.
async fn shown(about: &str, route: &Route, endpoint: &Endpoint, trouble: &Trouble) -> Vec<Finding> {
    if trouble.step != Step::Tls || !matches!(endpoint.security, Security::Required(_)) {
        return Vec::new();
    }
    let Ok(tls) = Opportunistic::new(route.tls_ca_file.as_deref(), route.identity.as_ref()) else { return Vec::new() };
    let endpoint = Endpoint { security: Security::Opportunistic(Arc::new(tls)), ..endpoint.clone() };
    let Ok(connection) = Connection::open(&endpoint, None).await else { return Vec::new() };
    let chain = connection.tls().map(|facts| facts.chain).unwrap_or_default();
    connection.quit().await;
    certificates(about, &chain, crate::clock::Clock::wall())
}

/// Logs in with each account of a route.
async fn accounts(
    config: &Config,
    route: &Route,
    only: &[String],
    endpoint: &Endpoint,
    sources: &BTreeMap<AppName, Option<TokenSource>>,
    catalogue: &Arc<Catalogue>,
    progress: &Progress,
) -> Vec<Finding> {
    let named = |name: &AccountName| only.is_empty() || only.iter().any(|only| only.eq_ignore_ascii_case(name.as_str()));
    let of_the_route = config.schedule.accounts.iter().filter(|account| account.route == route.name && named(&account.name));
    let mut waiting = of_the_route.filter_map(|account| Some((account.name.clone(), config.logins.get(&account.name)?))).enumerate();
    let (mut found, mut running) = (BTreeMap::new(), JoinSet::new());
    loop {
        while running.len() < AT_ONCE
            && let Some((i, (name, credentials))) = waiting.next()
        {
            let about = format!("account {name}");
            let credential = match &credentials.proof {
                Proof::Password(password) => Credential::Password(password.clone()),
                Proof::App(app) => match sources.get(app) {
                    Some(Some(source)) => Credential::Token(source.clone()),
                    _ => {
                        found.insert(i, Finding::fail(about, format!("not tried: app {app} has no token"), "see what is said of the app"));
                        continue;
                    }
                },
            };
            let login = Login { user: credentials.user.clone(), credential, turns: Turns::default() };
            let (endpoint, catalogue) = (endpoint.clone(), catalogue.clone());
            running.spawn(async move { (i, logged_in(about, &endpoint, &login, &catalogue).await) });
        }
        let Some(ended) = running.join_next().await else { return found.into_values().collect() };
        if let Ok((i, finding)) = ended {
            progress.say(&finding.about);
            found.insert(i, finding);
        }
    }
}

async fn logged_in(about: String, endpoint: &Endpoint, login: &Login, catalogue: &Catalogue) -> Finding {
    let begun = Instant::now();
    match Connection::open(endpoint, Some((login, 0))).await {
        Ok(connection) => {
            let how = if matches!(login.credential, Credential::Token(_)) { "a token" } else { "its password" };
            let finding = Finding::pass(about, format!("logged in with {how} ({} ms)", begun.elapsed().as_millis()));
            connection.quit().await;
            finding
        }
        Err(trouble) => failed(&about, &trouble, catalogue),
    }
}
