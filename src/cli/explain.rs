//! `hve-relay explain`: what the relay makes of a reply of an upstream server, step by step of the dialogue. Connects to nothing.
//!
//! The reply is judged as the running relay would judge it, and what is printed are the words for that judgement, so that they cannot say
//! anything else than what happens. Steps at which the same happens are told together.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{EX_USAGE, show};
use crate::config::{Config, Examined};
use crate::mail::Class;
use crate::reply::{
    self, Action, Catalogue, Cause, Disposition, End, Entry, Judgement, Pause, PauseLength, Report, Rest, Scope, Step, Trouble,
};
use crate::schedule::Settings;
use crate::smtp::Reply;
use crate::units::format_duration;

/// What is to be explained.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The reply, in quotes, such as '535 5.7.139 Authentication unsuccessful'.
    #[arg(required = true)]
    reply: Vec<String>,
    /// Where it comes: greeting, ehlo, starttls, auth, mail, rcpt, data, content or end-of-data. Default: all steps.
    #[arg(long, value_name = "STEP", value_parser = step)]
    step: Option<Step>,
    /// A configuration, for its own [[reply]] entries and times. Default: what is built in.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Prints it and returns the exit status.
pub(super) fn run(Arguments { reply, step, config }: &Arguments) -> ExitCode {
    let text = reply.join(" ");
    let parsed = Reply::parse(text.trim().split('\n').map(|line| line.trim_end_matches('\r')));
    let Some(reply) = parsed.filter(|reply| !reply.is_positive() && reply.code >= 400) else {
        eprintln!(
            "{text:?} is not the refusal of a mail server: write its code, from 400 to 599, and its text, such as '550 5.7.3 Not now'"
        );
        return ExitCode::from(EX_USAGE);
    };
    let (catalogue, settings) = match config.as_deref().map(Config::examine) {
        None => (Catalogue::builtin().clone(), Settings::default()),
        Some(Ok(Examined { config, .. })) => (Catalogue::extended(config.replies), config.schedule),
        Some(Err(problems)) => {
            eprintln!("{problems}");
            return ExitCode::from(problems.exit_status());
        }
    };
    let steps = step.map_or_else(|| Step::WORDS.iter().map(|(_, step)| *step).collect(), |step| vec![step]);
    show::line(explain(&catalogue, &settings, &reply, &steps));
    ExitCode::SUCCESS
}

fn step(text: &str) -> Result<Step, String> {
    let words: Vec<&str> = Step::WORDS.iter().map(|(word, _)| *word).collect();
    let known = Step::WORDS.iter().find(|(word, _)| *word == text).map(|(_, step)| *step);
    known.ok_or_else(|| format!("write one of {}", words.join(", ")))
}

/// All of it, in paragraphs.
fn explain(catalogue: &Catalogue, settings: &Settings, reply: &Reply, steps: &[Step]) -> String {
    let mut told: Vec<(&Entry, Vec<Step>, String)> = Vec::new();
    for step in steps {
        let entry = catalogue.lookup(*step, reply);
        let words = consequences(&judged(catalogue, *step, reply), entry, settings);
        match told.iter_mut().find(|(known, _, same)| known.name == entry.name && *same == words) {
            Some((_, steps, _)) => steps.push(*step),
            None => told.push((entry, vec![*step], words)),
        }
    }
    let mut paragraphs = vec![show::printable(&reply.to_string())];
    let mut before = None;
    for (entry, steps, words) in told {
        let mut lines = Vec::new();
        if before.replace(&entry.name) != Some(&entry.name) {
            lines.push(about(catalogue, entry, reply));
        }
        let steps: Vec<String> = steps.iter().map(Step::to_string).collect();
        lines.push(format!("  at {}:\n{words}", steps.join(", ")));
        paragraphs.push(lines.join("\n"));
    }
    paragraphs.join("\n\n")
}

/// What the catalogue has.
fn about(catalogue: &Catalogue, entry: &Entry, reply: &Reply) -> String {
    let mut lines = vec![if catalogue.is_unknown(entry) {
        let rule = if reply.is_permanent() && entry.action == Action::Retry {
            "its enhanced code speaks of passing trouble, and doubt defers"
        } else {
            "so its basic code counts"
        };
        format!("{}: no entry of the catalogue knows it, {rule}", entry.name)
    } else {
        let class = entry.class.map(|class| format!(" for {class} recipients")).unwrap_or_default();
        let wait = entry.wait.map(|wait| format!(", {}", format_duration(wait))).unwrap_or_default();
        format!("{}: {}'s trouble{class}; action {}{wait}", entry.name, entry.scope.as_str(), entry.action.as_str())
    }];
    lines.extend((!entry.advice.is_empty()).then(|| format!("  what to do: {}", entry.advice)));
    lines.join("\n")
}

/// The reply at a step, to a message with two recipients; at RCPT the other one is accepted.
fn judged(catalogue: &Catalogue, step: Step, reply: &Reply) -> Judgement {
    let trouble = || Trouble { step, cause: Cause::Reply(reply.clone()) };
    let accepted = || Some(Reply::plain(250, "OK"));
    let class = catalogue.lookup(step, reply).class.unwrap_or(Class::Internal);
    let report = match step {
        _ if step < Step::Mail => return reply::judge_open(catalogue, &trouble(), 2),
        Step::Mail => Report { recipients: vec![None, None], end: End::Stopped(trouble()) },
        Step::Rcpt => Report { recipients: vec![Some(reply.clone()), accepted()], end: End::Accepted(Reply::plain(250, "OK")) },
        _ => Report { recipients: vec![accepted(), accepted()], end: End::Stopped(trouble()) },
    };
    reply::judge(catalogue, &report, class)
}

/// What follows for the mail, for the account and for the others.
fn consequences(judgement: &Judgement, entry: &Entry, settings: &Settings) -> String {
    let pause = judgement.pause.as_ref();
    let lines =
        [("the mail", mail(judgement, entry, settings)), ("the account", account(pause, settings)), ("others", others(pause).to_owned())];
    lines.map(|(whom, what)| format!("    {whom:<12} {what}")).join("\n")
}

fn mail(judgement: &Judgement, entry: &Entry, settings: &Settings) -> String {
    let at_once = if judgement.elsewhere { "is tried once at once, on another account or connection, and then" } else { "is tried again" };
    let later = format!("{at_once} after {}, and less and less often", format_duration(settings.retry_min));
    let failed = judgement.outcomes.first().is_some_and(|outcome| outcome.disposition == Disposition::Failed);
    match (judgement.rest, &judgement.pause) {
        _ if !judgement.doubtful.is_empty() => {
            "is tried again, on another account at once; fails once other mail shows that the account is well".to_owned()
        }
        _ if failed && entry.action == Action::Reroute => {
            "goes by the next route that takes it; without one it fails, and its author is told".to_owned()
        }
        _ if failed && entry.scope == Scope::Recipient => "fails for this recipient, and its author is told".to_owned(),
        _ if failed => "fails, and its author is told".to_owned(),
        (Rest::Held, _) => "waits for an operator: hve-relay queue release, or remove".to_owned(),
        (Rest::Apart, _) => "goes to each recipient by itself, at once; alone, each has its own answer".to_owned(),
        (_, Some(pause)) if !judgement.counts => match pause.scope {
            Scope::Tenant | Scope::Connection => "stays queued, and goes as soon as the pause is over".to_owned(),
            _ => "stays queued, and goes over another account at once if there is one".to_owned(),
        },
        _ if entry.action == Action::Rest => "goes to the recipients that were refused in another transaction".to_owned(),
        _ => later,
    }
}

fn account(pause: Option<&Pause>, settings: &Settings) -> String {
    let Some(pause) = pause else { return "goes on".to_owned() };
    let whose = match pause.scope {
        Scope::App => "rests with all accounts of its application: ",
        Scope::Tenant => "rests with all accounts of the tenant: ",
        Scope::Connection => "rests with all accounts of this server: ",
        _ => "",
    };
    let which = pause.class.map_or("mail".to_owned(), |class| format!("{class} mail"));
    let step_by_step = || {
        format!(
            "takes no {which} for {}, longer each time up to {}",
            format_duration(settings.pause_min),
            format_duration(settings.pause_max)
        )
    };
    let what = match pause.length {
        PauseLength::For(length) => format!("takes no {which} for {}", format_duration(length)),
        PauseLength::BackOff => step_by_step(),
        PauseLength::FewerConnections => format!(
            "uses fewer connections at a time than it did, and one more again after {}, and so on; if it used one, it {}",
            format_duration(settings.pause_max),
            step_by_step()
        ),
        PauseLength::Suspended => format!(
            "takes no {which} until the operator has acted; every {} a login without mail tries whether it does again{}",
            format_duration(pause.every.unwrap_or(settings.probe)),
            if pause.step > Step::Auth { ", and then a single message" } else { "" }
        ),
    };
    let counted =
        pause.limit.map(|limit| format!("; where {limit} is limited, until that frees: it counts as used up")).unwrap_or_default();
    format!("{whose}{what}{counted}")
}

fn others(pause: Option<&Pause>) -> &'static str {
    match pause.map(|pause| pause.scope) {
        Some(Scope::Tenant) => "wait too; routes to other servers go on",
        Some(Scope::Connection) => "wait too where they log in at this server",
        Some(Scope::App) => "wait too where they use the same application; accounts of another one, or with a password, go on",
        _ => "go on",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str, step: Option<&str>) -> String {
        let steps = step.map_or_else(|| Step::WORDS.iter().map(|(_, step)| *step).collect(), |word| vec![self::step(word).expect(word)]);
        explain(Catalogue::builtin(), &Settings::default(), &Reply::parse(line.split('\n')).expect(line), &steps)
    }

    #[test]
    fn says_what_happens_to_the_mail_to_the_account_and_to_the_others() {
        for (line, step, words) in [
            (
                "535 5.7.139 basic auth is blocked",
                "auth",
                &["basic-auth-blocked: account's", "Security Defaults", "every 20m", "over another account at once"][..],
            ),
            ("550 5.7.240 The application is not allowed", "mail", &["app-not-allowed", "Add-HVEAppAccess", "every 5m"]),
            ("550 5.7.750 blocked", "rcpt", &["tenant-blocked: tenant's", "rests with all accounts of the tenant", "wait too"]),
            ("450 4.5.104 rate", "end-of-data", &["external-rate", "no external mail for 1m", "external_per_minute is limited"]),
            (
                "432 4.3.2 Concurrent connections limit exceeded",
                "end-of-data",
                &["uses fewer connections", "longer each time", "others       go on"],
            ),
            ("550 5.1.10 not found", "rcpt", &["fails for this recipient"]),
            ("550 5.7.62 not you", "mail", &["waits for an operator"]),
            ("550 5.7.703 blocked", "end-of-data", &["to each recipient by itself"]),
            ("550 5.5.105 External sending is not supported", "rcpt", &["external-not-supported", "next route that takes it"]),
            ("550 5.9.9 no", "end-of-data", &["unknown-permanent: no entry", "basic code counts", "fails once other mail shows"]),
            ("550 4.9.9 no", "end-of-data", &["unknown-transient", "doubt defers", "on another account or connection", "after 1m"]),
            ("554 5.3.2 no", "greeting", &["unknown-permanent", "as soon as the pause is over", "all accounts of this server"]),
        ] {
            let said = said(line, Some(step));
            for words in words {
                assert!(said.contains(words), "{words:?} is not in:\n{said}");
            }
        }
    }

    #[test]
    fn tells_steps_together_at_which_the_same_happens() {
        let said = said("450 4.5.127 Excessive message rate from sender", None);
        assert_eq!(said.matches("  at ").count(), 1, "{said}");
        assert!(said.contains("at greeting, EHLO, STARTTLS, AUTH, MAIL FROM, RCPT TO, DATA, sending the content, end of data:"), "{said}");
    }
}
