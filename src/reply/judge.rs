//! From what happened to what follows: an outcome for each recipient, a pause for whoever needs one.
//!
//! Up to AUTH nothing has been said about any mail, so nothing there is a mail's fault: all is deferred, the attempt does not count, and the
//! endpoint, the account or its application pauses, whatever the code. From MAIL on the catalogue decides. A recipient fails for an explicit
//! 5yz only, and only if the reply is about the recipient or the message; all else defers. Trouble of an account, or of more, pauses it and
//! does not count against the delivery, which may go by another account at once. What the server may have taken although it did not say so
//! is in doubt.
//!
//! *A 5yz that nobody knows*, in a transaction that the server took for nobody, may be the message's fault or the account's. One transaction
//! cannot tell; it is marked here (`doubtful`), and whoever remembers other messages decides (`schedule::Suspicions`).

use std::sync::Arc;
use std::time::Duration;

use crate::mail::Class;
use crate::smtp::{EnhancedStatus, Reply};

use super::catalogue::effective_status;
use super::{
    Action, Catalogue, Cause, Disposition, End, Entry, Judgement, Outcome, Pause, PauseLength, Report, Rest, Scope, Step, Trouble,
};

/// The catalogue's name for it.
const STALE_TOKEN: &str = "token-stale";

const REFUSED_LOGIN: &str = "The server refuses this account's login: look at its password, at the account's policies, and at the reply.";
const REFUSES_EVERYTHING: &str = "The service refuses all mail of this account, in words that the relay does not know: look at the account, at its billing policy and at the tenant.";
const REFUSED_HOST: &str = "The server refuses connections from this relay: look at the reply, and whether host and port are right.";
const WRONG_CERTIFICATE: &str =
    "Nothing is sent until the certificate is right: check tls_server_name, tls_ca_file and the clock, and who answers at this address.";
const WRONG_SERVER: &str =
    "The server is not what is configured: check the route's host and port, and whether something on the path interferes.";
const WRONG_LOGIN: &str = "The account's user name or password cannot be sent: correct them.";

/// What follows for one recipient.
#[derive(Clone)]
struct Verdict {
    outcome: Outcome,
    pause: Option<Pause>,
    counts: Counts,
    rest: Rest,
    /// It failed, for a reply that nobody knows.
    unknown: bool,
    /// It failed, because this route does not take it.
    misrouted: bool,
}

/// Whether a deferral makes the delivery's next attempt back off.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counts {
    Yes,
    No,
    /// Only if the transaction took nobody else along: otherwise it came forward.
    UnlessSomeWent,
    /// Not if it can be tried on another account or connection at once.
    UnlessElsewhere,
}

/// Judges a transaction. `class` is that of the delivery's recipients.
pub fn judge(catalogue: &Catalogue, report: &Report, class: Class) -> Judgement {
    let accepted = report.recipients.iter().flatten().filter(|reply| reply.is_positive()).count();
    let asked_in_vain = || stop(Step::Rcpt, Disposition::Deferred, None, "the transaction did not come to this recipient".to_owned());
    let whole = match &report.end {
        End::Accepted(reply) => Some(said(Step::EndOfData, Disposition::Sent, reply)),
        End::NoRecipient => None,
        End::Stopped(Trouble { step, cause: Cause::Reply(reply) }) if *step >= Step::Mail => {
            // Before any RCPT was answered, all of the delivery's recipients are concerned.
            let concerned = if *step <= Step::Rcpt { report.recipients.len() } else { accepted };
            Some(refused(catalogue, *step, reply, class, concerned))
        }
        End::Stopped(trouble) if trouble.step >= Step::Mail => Some(broke_off(trouble)),
        End::Stopped(trouble) => Some(before_mail(catalogue, trouble)),
    };
    let verdicts = report.recipients.iter().map(|reply| match reply {
        Some(reply) if !reply.is_positive() => refused(catalogue, Step::Rcpt, reply, class, 1),
        // 250 to the end of data is for those only that were accepted.
        None if matches!(report.end, End::Accepted(_)) => asked_in_vain(),
        _ => whole.as_ref().map_or_else(asked_in_vain, Verdict::clone),
    });
    let in_doubt =
        matches!(&report.end, End::Stopped(trouble) if trouble.step == Step::EndOfData && !matches!(trouble.cause, Cause::Reply(_)));
    // Where the server took somebody, the account is well.
    let nobody = if matches!(report.end, End::NoRecipient) { accepted == 0 } else { !matches!(report.end, End::Accepted(_)) };
    Judgement { in_doubt, ..sum(verdicts, if nobody { Unknown::Doubtful } else { Unknown::Believed }) }
}

/// Judges a connection that could not be opened for a delivery of so many recipients.
pub fn judge_open(catalogue: &Catalogue, trouble: &Trouble, recipients: usize) -> Judgement {
    let verdict = before_mail(catalogue, trouble);
    let pause = verdict.pause.clone();
    Judgement { pause, ..sum((0..recipients).map(|_| verdict.clone()), Unknown::Believed) }
}

/// Whether a refused AUTH asks for nothing but a fresh token.
pub fn is_stale_token(catalogue: &Catalogue, reply: &Reply) -> bool {
    &*catalogue.lookup(Step::Auth, reply).name == STALE_TOKEN
}

/// The pause of an account that has refused so many messages, one after the other, for replies that nobody knows.
pub fn refuses_everything(outcome: &Outcome, messages: usize) -> Pause {
    Pause {
        scope: Scope::Account,
        class: None,
        length: PauseLength::Suspended,
        every: None,
        limit: None,
        step: outcome.step,
        kind: Arc::from("refuses-everything"),
        reason: format!("{messages} messages in a row: {}: {}", outcome.step, outcome.diagnostic),
        advice: REFUSES_EVERYTHING.to_owned(),
    }
}

/// What is thought of a 5yz that nobody knows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unknown {
    Believed,
    Doubtful,
}

fn sum(verdicts: impl Iterator<Item = Verdict>, unknown: Unknown) -> Judgement {
    let verdicts: Vec<Verdict> = verdicts.collect();
    let some_went = verdicts.iter().any(|verdict| verdict.outcome.disposition == Disposition::Sent);
    let counting: Vec<Counts> = verdicts.iter().map(|verdict| verdict.counts).filter(|counts| *counts != Counts::No).collect();
    let counts = counting.iter().any(|counts| *counts != Counts::UnlessSomeWent || !some_went);
    let elsewhere = counts && counting.iter().all(|counts| *counts == Counts::UnlessElsewhere);
    let rest = verdicts.iter().map(|verdict| verdict.rest).max().unwrap_or_default();
    let doubtful = verdicts.iter().enumerate().filter(|(_, verdict)| verdict.unknown && unknown == Unknown::Doubtful);
    let doubtful = doubtful.map(|(place, _)| place).collect();
    let misrouted = verdicts.iter().enumerate().filter(|(_, verdict)| verdict.misrouted).map(|(place, _)| place).collect();
    let mut outcomes = Vec::with_capacity(verdicts.len());
    let mut pause: Option<Pause> = None;
    for verdict in verdicts {
        outcomes.push(verdict.outcome);
        if weight(&verdict.pause) > weight(&pause) {
            pause = verdict.pause;
        }
    }
    Judgement { outcomes, pause, counts, elsewhere, in_doubt: false, rest, doubtful, misrouted }
}

/// Of several pauses the widest holds, and of those the longest.
fn weight(pause: &Option<Pause>) -> (u8, u8, Duration) {
    let Some(pause) = pause else { return (0, 0, Duration::ZERO) };
    let scope = match pause.scope {
        Scope::Recipient | Scope::Message => 1,
        Scope::Connection => 2,
        Scope::Account => 3,
        Scope::App => 4,
        Scope::Tenant => 5,
    };
    match pause.length {
        PauseLength::FewerConnections => (scope, 1, Duration::ZERO),
        PauseLength::BackOff => (scope, 2, Duration::ZERO),
        PauseLength::For(duration) => (scope, 3, duration),
        PauseLength::Suspended => (scope, 4, Duration::ZERO),
    }
}

/// A refusal from MAIL on, that concerns so many recipients.
fn refused(catalogue: &Catalogue, step: Step, reply: &Reply, class: Class, concerned: usize) -> Verdict {
    let entry = catalogue.lookup(step, reply);
    let fails = match entry.action {
        Action::Fail | Action::Reroute => true,
        Action::Split => concerned <= 1,
        _ => false,
    };
    if fails && reply.is_permanent() {
        let (unknown, misrouted) = (catalogue.is_unknown(entry), entry.action == Action::Reroute);
        return Verdict { unknown, misrouted, ..said(step, Disposition::Failed, reply) };
    }
    let pause = pause(entry, step, reply);
    // A pause for another class does not hold this delivery back: without a count it would be tried again at once, without end.
    let held_back = pause.as_ref().is_some_and(|pause| pause.class.is_none_or(|paused| paused == class));
    let counts = match entry.action {
        _ if held_back => Counts::No,
        Action::Rest => Counts::UnlessSomeWent,
        // What a server says of a recipient it says on every connection.
        Action::Retry if entry.scope == Scope::Connection || entry.scope == Scope::Message && step != Step::Rcpt => Counts::UnlessElsewhere,
        _ => Counts::Yes,
    };
    let rest = match entry.action {
        Action::Hold => Rest::Held,
        Action::Split if concerned > 1 => Rest::Apart,
        _ => Rest::Together,
    };
    // Alone, each is a new start.
    let counts = if rest == Rest::Apart { Counts::No } else { counts };
    Verdict { pause, counts, rest, ..said(step, Disposition::Deferred, reply) }
}

/// A connection that ended, or a step of ours that went wrong, from MAIL on. Behind the final dot a second copy is not sent in a hurry.
fn broke_off(trouble: &Trouble) -> Verdict {
    let passing = matches!(trouble.cause, Cause::Lost(_) | Cause::TimedOut(_)) && trouble.step < Step::EndOfData;
    Verdict { counts: if passing { Counts::UnlessElsewhere } else { Counts::Yes }, ..happened(trouble) }
}

/// Trouble before MAIL: the endpoint's or the account's, never the mail's.
fn before_mail(catalogue: &Catalogue, trouble: &Trouble) -> Verdict {
    let pausing = |kind: &str, scope, length, advice: &str| Pause {
        scope,
        class: None,
        length,
        every: None,
        limit: None,
        step: trouble.step,
        kind: Arc::from(kind),
        reason: trouble.to_string(),
        advice: advice.to_owned(),
    };
    let (back_off, login) = (PauseLength::BackOff, trouble.step == Step::Auth);
    let (verdict, pause) = match &trouble.cause {
        Cause::Reply(reply) => {
            // A server that refuses one login has said nothing about the others.
            let (scope, advice) = if login { (Scope::Account, REFUSED_LOGIN) } else { (Scope::Connection, REFUSED_HOST) };
            let entry = catalogue.lookup(trouble.step, reply);
            let passing = entry.action == Action::Retry || reply.is_transient();
            let unknown = || match (passing, login) {
                (true, _) => pausing(&entry.name, scope, back_off, &entry.advice),
                (false, true) => pausing(&entry.name, scope, PauseLength::Suspended, advice),
                // An endpoint is not suspended: what stands in its way is mostly repaired elsewhere, and nobody would tell us.
                (false, false) => pausing(&entry.name, scope, back_off, advice),
            };
            let known = pause(entry, trouble.step, reply);
            (said(trouble.step, Disposition::Deferred, reply), known.unwrap_or_else(unknown))
        }
        Cause::Lost(_) => (happened(trouble), pausing("connection-lost", Scope::Connection, back_off, "")),
        Cause::TimedOut(_) => (happened(trouble), pausing("no-answer", Scope::Connection, back_off, "")),
        // The certificate may be renewed without us: the endpoint is tried again soon, but somebody should look.
        Cause::Tls(_) => (happened(trouble), pausing("wrong-certificate", Scope::Connection, back_off, WRONG_CERTIFICATE)),
        Cause::Protocol(_) => (happened(trouble), pausing("wrong-server", Scope::Connection, back_off, WRONG_SERVER)),
        Cause::Local(_) if login => (happened(trouble), pausing("unusable-login", Scope::Account, PauseLength::Suspended, WRONG_LOGIN)),
        Cause::Local(_) => (happened(trouble), pausing("local", Scope::Connection, back_off, "")),
        Cause::Token(fault) => (happened(trouble), pausing("token", Scope::App, fault.pause, &fault.advice)),
    };
    Verdict { pause: Some(pause), counts: Counts::No, ..verdict }
}

/// The pause that an entry asks for, if it does.
fn pause(entry: &Entry, step: Step, reply: &Reply) -> Option<Pause> {
    let length = match entry.action {
        Action::FewerConnections => PauseLength::FewerConnections,
        Action::BackOff => PauseLength::BackOff,
        Action::Suspend => PauseLength::Suspended,
        Action::Wait => PauseLength::For(entry.wait.unwrap_or_default()),
        Action::Fail | Action::Retry | Action::Rest | Action::Split | Action::Reroute | Action::Hold => return None,
    };
    Some(Pause {
        scope: entry.scope,
        class: entry.class,
        length,
        every: entry.wait.filter(|_| length == PauseLength::Suspended),
        limit: entry.limit,
        step,
        kind: entry.name.clone(),
        reason: format!("{step}: {reply}"),
        advice: entry.advice.clone(),
    })
}

/// A verdict from a reply. A failure never bears the status of a success or a deferral, and so on (RFC 3464 §2.3.4); but a deferral may bear 5.y.z,
/// where a 5yz is the account's trouble: it tells the operator which.
fn said(step: Step, disposition: Disposition, reply: &Reply) -> Verdict {
    let status = effective_status(reply).filter(|status| match disposition {
        Disposition::Sent => status.class == 2,
        Disposition::Deferred => status.class != 2,
        Disposition::Failed => status.class == 5,
    });
    stop(step, disposition, status, reply.to_string())
}

/// A verdict from anything but a reply.
fn happened(trouble: &Trouble) -> Verdict {
    // RFC 3463 §3: no answer from host, bad connection, cryptographic failure, other protocol status, other mail system status.
    let (subject, detail) = match &trouble.cause {
        Cause::Lost(_) | Cause::TimedOut(_) if trouble.step == Step::Connect => (4, 1),
        Cause::Lost(_) | Cause::TimedOut(_) => (4, 2),
        Cause::Tls(_) => (7, 5),
        Cause::Protocol(_) | Cause::Reply(_) => (5, 0),
        Cause::Local(_) => (3, 0),
        // Other security status.
        Cause::Token(_) => (7, 0),
    };
    stop(trouble.step, Disposition::Deferred, Some(EnhancedStatus::new(4, subject, detail)), trouble.cause.to_string())
}

fn stop(step: Step, disposition: Disposition, status: Option<EnhancedStatus>, diagnostic: String) -> Verdict {
    let (class, counts) = match disposition {
        Disposition::Sent => (2, Counts::No),
        Disposition::Deferred => (4, Counts::Yes),
        Disposition::Failed => (5, Counts::No),
    };
    let status = status.unwrap_or(EnhancedStatus::new(class, 0, 0));
    let outcome = Outcome { disposition, status, diagnostic, step };
    Verdict { outcome, pause: None, counts, rest: Rest::Together, unknown: false, misrouted: false }
}
