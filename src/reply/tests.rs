//! What each known reply leads to, as a table: at which step it comes, what becomes of the recipients, who pauses, and whether it counts.

use std::time::Duration;

use crate::mail::Class;
use crate::smtp::{EnhancedStatus, Reply};

use super::*;

const SENT: Disposition = Disposition::Sent;
const DEFERRED: Disposition = Disposition::Deferred;
const FAILED: Disposition = Disposition::Failed;

const MINUTE: PauseLength = PauseLength::For(Duration::from_secs(60));
const DAY: PauseLength = PauseLength::For(Duration::from_secs(86_400));
const BACK_OFF: PauseLength = PauseLength::BackOff;
const SUSPENDED: PauseLength = PauseLength::Suspended;
const FEWER: PauseLength = PauseLength::FewerConnections;

fn reply(line: &str) -> Reply {
    Reply::parse(line.split('\n')).expect(line)
}

fn refusal(step: Step, line: &str) -> Trouble {
    Trouble { step, cause: Cause::Reply(reply(line)) }
}

fn token(reason: &str, pause: PauseLength, advice: &str) -> Cause {
    Cause::Token(TokenFault { reason: reason.to_owned(), pause, advice: advice.to_owned() })
}

/// A transaction with two recipients in which the reply came at the step; at RCPT the first recipient got it, and the other was accepted.
fn transaction(step: Step, line: &str) -> Judgement {
    let good = || Some(reply("250 2.1.5 Recipient OK"));
    let report = match step {
        Step::Mail => Report { recipients: vec![None, None], end: End::Stopped(refusal(step, line)) },
        Step::Rcpt => Report { recipients: vec![Some(reply(line)), good()], end: End::Accepted(reply("250 2.6.0 Queued")) },
        step => Report { recipients: vec![good(), good()], end: End::Stopped(refusal(step, line)) },
    };
    judge(Catalogue::builtin(), &report, Class::External)
}

struct Row(Step, &'static str, Disposition, Option<(Scope, Option<Class>, PauseLength)>, bool);

const EXTERNAL: Option<Class> = Some(Class::External);

#[rustfmt::skip]
const TRANSACTIONS: &[Row] = &[
    // Budgets
    Row(Step::EndOfData, "450 4.5.104 Message rejected. Excessive message rate from sender. The HVE message can't be submitted because the rate limit for external emails has been exceeded.", DEFERRED, Some((Scope::Account, EXTERNAL, MINUTE)), false),
    Row(Step::Rcpt, "550 4.5.104 Message rejected. Excessive message rate from sender.", DEFERRED, Some((Scope::Account, EXTERNAL, MINUTE)), false),
    Row(Step::EndOfData, "450 4.5.102 Message rejected. Excessive message rate from sender. The HVE message can't be submitted because the sender's submission tenant quota for external recipients was exceeded.", DEFERRED, Some((Scope::Account, EXTERNAL, DAY)), false),
    Row(Step::EndOfData, "450 4.5.127 Message rejected. Excessive message rate from sender.", DEFERRED, Some((Scope::Account, None, BACK_OFF)), false),
    Row(Step::Mail, "450 4.5.199 Excessive message rate", DEFERRED, Some((Scope::Account, None, BACK_OFF)), false),
    Row(Step::EndOfData, "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process message", DEFERRED, Some((Scope::Account, None, DAY)), false),
    Row(Step::EndOfData, "550 5.1.90 Your message can't be sent because you've reached your daily limit", DEFERRED, Some((Scope::Account, None, DAY)), false),
    Row(Step::EndOfData, "550 5.2.2 Submission quota exceeded", DEFERRED, Some((Scope::Account, None, DAY)), false),
    Row(Step::EndOfData, "550 5.7.233 Your message can't be sent because your tenant exceeded its daily limit for external recipients", DEFERRED, Some((Scope::Tenant, EXTERNAL, DAY)), false),
    // Connections
    Row(Step::Mail, "432 4.3.2 Concurrent connections limit exceeded", DEFERRED, Some((Scope::Account, None, FEWER)), false),
    Row(Step::EndOfData, "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded", DEFERRED, Some((Scope::Account, None, FEWER)), false),
    Row(Step::EndOfData, "432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded", DEFERRED, None, true),
    Row(Step::Rcpt, "550 5.2.121 Recipient's per hour message limit exceeded", DEFERRED, None, true),
    Row(Step::Rcpt, "550 5.2.122 The recipient has exceeded their limit", DEFERRED, None, true),
    Row(Step::Mail, "421 4.3.2 Service not available", DEFERRED, None, true),
    Row(Step::EndOfData, "451 4.7.0 Temporary server error. Please try again later. PRX4", DEFERRED, None, true),
    Row(Step::Data, "454 4.7.0 Temporary", DEFERRED, None, true),
    // The account, the application, the tenant
    Row(Step::Mail, "530 5.7.57 Client was not authenticated to send anonymous mail during MAIL FROM", DEFERRED, Some((Scope::Account, None, SUSPENDED)), false),
    Row(Step::Mail, "550 5.7.240 The application is not allowed for use with this High Volume Email account", DEFERRED, Some((Scope::Account, None, SUSPENDED)), false),
    Row(Step::Mail, "550 5.2.240 Not an HVE account", DEFERRED, Some((Scope::Account, None, SUSPENDED)), false),
    Row(Step::Rcpt, "550 5.2.251 Sender throttled due to continuous errors", DEFERRED, Some((Scope::Account, None, SUSPENDED)), false),
    Row(Step::Rcpt, "550 5.2.252 Sender throttled due to continuous invalid recipients errors", DEFERRED, Some((Scope::Account, None, SUSPENDED)), false),
    Row(Step::EndOfData, "550 5.2.255 Sender throttled", DEFERRED, Some((Scope::Account, None, SUSPENDED)), false),
    Row(Step::Mail, "451 4.7.500 Access denied, please try again later", DEFERRED, Some((Scope::Account, None, SUSPENDED)), false),
    Row(Step::Rcpt, "451 4.7.699 Access denied, please try again later", DEFERRED, Some((Scope::Account, None, SUSPENDED)), false),
    Row(Step::EndOfData, "451 4.7.850 Access denied, please try again later", DEFERRED, Some((Scope::Account, None, SUSPENDED)), false),
    Row(Step::EndOfData, "550 5.1.8 Access denied, bad outbound sender", DEFERRED, Some((Scope::Account, None, SUSPENDED)), false),
    Row(Step::EndOfData, "550 5.7.501 Access denied, spam abuse detected", DEFERRED, Some((Scope::Account, None, SUSPENDED)), false),
    Row(Step::EndOfData, "550 5.7.503 Access denied, banned sender", DEFERRED, Some((Scope::Account, None, SUSPENDED)), false),
    Row(Step::EndOfData, "550 5.7.705 Access denied, tenant has exceeded threshold", DEFERRED, Some((Scope::Tenant, None, SUSPENDED)), false),
    Row(Step::Rcpt, "550 5.7.708 Access denied, traffic not accepted from this IP", DEFERRED, Some((Scope::Tenant, None, SUSPENDED)), false),
    Row(Step::Mail, "550 5.7.750 Client blocked from sending from unregistered domains", DEFERRED, Some((Scope::Tenant, None, SUSPENDED)), false),
    Row(Step::Mail, "550 5.1.7 Invalid sender", DEFERRED, Some((Scope::Account, None, SUSPENDED)), false),
    // The sender
    Row(Step::Mail, "550 5.7.62 MAIL FROM differs from the account", DEFERRED, None, true),
    Row(Step::EndOfData, "550 5.6.241 The header From differs from the account", DEFERRED, None, true),
    Row(Step::EndOfData, "550 5.7.60 SMTP; Client does not have permissions to send as this sender", DEFERRED, None, true),
    Row(Step::EndOfData, "554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied", DEFERRED, None, true),
    Row(Step::EndOfData, "554 5.2.252 SendAsDenied; hve01@contoso.com not allowed to send as scanner@contoso.com", DEFERRED, None, true),
    // Recipients
    Row(Step::Rcpt, "550 5.5.105 External sending is not supported for High Volume Email accounts", FAILED, None, false),
    Row(Step::EndOfData, "550 5.5.105 External sending is not supported for High Volume Email accounts", FAILED, None, false),
    Row(Step::Rcpt, "550 5.1.1 User unknown", FAILED, None, false),
    Row(Step::Rcpt, "550-5.1.10 RESOLVER.ADR.RecipientNotFound;\n550 5.1.10 Recipient not found", FAILED, None, false),
    Row(Step::Rcpt, "550 5.4.1 Recipient address rejected: Access denied", FAILED, None, false),
    Row(Step::Rcpt, "550 5.7.1 Unable to relay", FAILED, None, false),
    Row(Step::Rcpt, "550 5.7.12 Sender was not authenticated by organization", FAILED, None, false),
    Row(Step::Rcpt, "550 5.7.124 Sender not in allowed-senders list", FAILED, None, false),
    Row(Step::Rcpt, "550 5.7.133 Sender not authenticated for group", FAILED, None, false),
    Row(Step::Rcpt, "550 5.7.134 Sender not authenticated for mailbox", FAILED, None, false),
    Row(Step::Rcpt, "550 5.7.136 Sender not authenticated for mail user", FAILED, None, false),
    Row(Step::Rcpt, "550 5.7.703 Your message can't be delivered because messages to this recipient are blocked", FAILED, None, false),
    Row(Step::EndOfData, "550 5.7.703 Your message can't be delivered because messages to a recipient are blocked", DEFERRED, None, false),
    Row(Step::Rcpt, "452 4.5.3 Too many recipients", DEFERRED, None, false),
    Row(Step::Rcpt, "552 5.5.3 Too many recipients", DEFERRED, None, false),
    Row(Step::Data, "452 4.5.3 Too many recipients", DEFERRED, None, true),
    // The message
    Row(Step::EndOfData, "550 5.6.11 SMTPSEND.BareLinefeedsAreIllegal", FAILED, None, false),
    Row(Step::EndOfData, "550 5.7.512 Access denied, message must be RFC 5322 section 3.6.2 compliant", FAILED, None, false),
    Row(Step::EndOfData, "550 5.1.20 Multiple From addresses", FAILED, None, false),
    Row(Step::Mail, "552 5.3.4 Message size exceeds fixed maximum message size", FAILED, None, false),
    Row(Step::Content, "552 5.3.4 Message size exceeds fixed maximum message size", FAILED, None, false),
    Row(Step::EndOfData, "552 5.2.3 Message exceeds local size limit", FAILED, None, false),
    // Whatever else
    Row(Step::Mail, "451 later", DEFERRED, None, true),
    Row(Step::Rcpt, "450 4.2.1 mailbox busy", DEFERRED, None, true),
    Row(Step::Rcpt, "550 no", FAILED, None, false),
    Row(Step::Mail, "550 no", FAILED, None, false),
    Row(Step::Data, "554 no", FAILED, None, false),
    Row(Step::EndOfData, "554 5.6.0 no", FAILED, None, false),
    Row(Step::Mail, "503 5.5.1 Bad sequence of commands", DEFERRED, None, true),
    Row(Step::Data, "500 what?", DEFERRED, None, true),
    Row(Step::Rcpt, "450 5.1.1 Recipient not found", DEFERRED, None, true),
    Row(Step::EndOfData, "550 4.4.999 something that passes", DEFERRED, None, true),
];

#[test]
fn every_known_reply_leads_to_what_the_table_says() {
    for Row(step, line, disposition, pause, counts) in TRANSACTIONS {
        let judgement = transaction(*step, line);
        let asked: Vec<_> = judgement.outcomes.iter().map(|outcome| outcome.disposition).collect();
        let wanted = if *step == Step::Rcpt { vec![*disposition, SENT] } else { vec![*disposition; 2] };
        assert_eq!(asked, wanted, "{step}: {line}");
        assert_eq!(judgement.pause.as_ref().map(|p| (p.scope, p.class, p.length)), *pause, "{step}: {line}");
        assert_eq!(judgement.counts, *counts, "{step}: {line}");
        assert!(!judgement.in_doubt, "{step}: {line}");
        assert_eq!(judgement.outcomes[0].diagnostic, reply(line).to_string());
        assert_eq!(judgement.outcomes[0].step, *step);
        assert!(judgement.pause.is_none_or(|pause| pause.reason == format!("{step}: {}", reply(line))), "{line}");
    }
}

#[test]
fn nothing_before_mail_is_a_mails_fault() {
    let account = |length| (Scope::Account, length);
    let connection = (Scope::Connection, BACK_OFF);
    for (step, line, wanted) in [
        (Step::Greeting, "554 5.7.1 go away", connection),
        (Step::Greeting, "421 4.3.2 The maximum number of concurrent server connections has exceeded a limit", connection),
        (Step::Greeting, "432 4.3.2 Concurrent connections limit exceeded", account(FEWER)),
        (Step::Ehlo, "550 5.1.1 odd", connection),
        (Step::StartTls, "454 4.7.0 TLS not available", connection),
        (Step::Auth, "535 5.7.3 Authentication unsuccessful [AM0PR01CA0123]", account(SUSPENDED)),
        (Step::Auth, "535 5.7.139 Authentication unsuccessful, basic auth is blocked", account(SUSPENDED)),
        (Step::Auth, "535 5.7.139 Authentication unsuccessful, the organization configuration doesn't allow this", account(SUSPENDED)),
        (Step::Auth, "550 5.7.30 Basic authentication is not supported for Client Submission.", (Scope::Tenant, SUSPENDED)),
        (Step::Auth, "501 5.5.121 Invalid XOAUTH2 argument", account(SUSPENDED)),
        (Step::Auth, "501 5.5.126 Invalid XOAUTH2 argument", account(SUSPENDED)),
        (Step::Auth, "501 5.5.127 Invalid XOAUTH2 argument. Token will expire soon", account(BACK_OFF)),
        (Step::Auth, "535 5.7.142 Token expired", account(BACK_OFF)),
        (Step::Auth, "535 5.7.143 Token expired", account(BACK_OFF)),
        (Step::Auth, "535 5.7.144 Authentication unsuccessful, Invalid API permissions", (Scope::App, SUSPENDED)),
        (Step::Auth, "535 5.7.8 credentials invalid", account(SUSPENDED)),
        (Step::Auth, "454 4.7.0 Temporary authentication failure", account(BACK_OFF)),
        (Step::Auth, "432 4.3.2 Concurrent connections limit exceeded", account(FEWER)),
        (Step::Auth, "552 5.3.4 too large", account(SUSPENDED)),
    ] {
        let judgement = judge_open(Catalogue::builtin(), &refusal(step, line), 3);
        let pause = judgement.pause.expect(line);
        assert_eq!((pause.scope, pause.length), wanted, "{step}: {line}");
        assert!(pause.length != SUSPENDED || !pause.advice.is_empty(), "{step}: {line}");
        assert!(!judgement.counts && !judgement.in_doubt, "{step}: {line}");
        assert!(judgement.outcomes.iter().all(|outcome| outcome.disposition == DEFERRED), "{step}: {line}");
        assert_eq!(judgement.outcomes.len(), 3);
    }
}

/// The replies that an entry's patterns are about, each at its narrowest, as they are written in the file.
fn examples(entry: &Entry) -> Vec<Reply> {
    let file: toml::Table = include_str!("catalogue.toml").parse().expect("TOML");
    let written = file["reply"].as_array().expect("a list").iter().find(|table| table["name"].as_str() == Some(&*entry.name));
    let example = |pattern: &toml::Value| {
        let status = pattern.get("status").and_then(|status| status.as_str()?.split('-').next());
        let class = status.map_or(if matches!(entry.action, Action::Fail | Action::Reroute) { "5" } else { "4" }, |status| &status[..1]);
        let code = pattern.get("code").map(|code| code.as_array().map_or(code, |codes| &codes[0]).to_string());
        let code = code.unwrap_or_else(|| format!("{class}50"));
        let text = pattern.get("text").and_then(|text| text.as_str()).unwrap_or("Words of the server.");
        reply([&*code, status.unwrap_or_default(), text].join(" ").replace("  ", " ").as_str())
    };
    written.expect("it is in the file")["match"].as_array().expect("a list").iter().map(example).collect()
}

#[test]
fn every_entry_is_heeded_at_every_step_at_which_it_can_come() {
    let catalogue = Catalogue::builtin();
    for entry in catalogue.entries() {
        for (_, step) in Step::WORDS.iter().filter(|(_, step)| entry.steps.is_empty() || entry.steps.contains(step)) {
            for reply in examples(entry) {
                let what = format!("{} at {step}: {reply}", entry.name);
                assert_eq!(catalogue.lookup(*step, &reply).name, entry.name, "{what}: another entry stands before it");
                let before_mail = *step < Step::Mail;
                let judgement = match step {
                    _ if before_mail => judge_open(catalogue, &refusal(*step, &reply.to_string()), 2),
                    _ => transaction(*step, &reply.to_string()),
                };
                // What becomes of the mail.
                let first = &judgement.outcomes[0];
                let alone = entry.action == Action::Split && *step == Step::Rcpt;
                let fails = (matches!(entry.action, Action::Fail | Action::Reroute) || alone) && reply.is_permanent() && !before_mail;
                assert_eq!(first.disposition, if fails { FAILED } else { DEFERRED }, "{what}");
                assert_eq!((first.step, &first.diagnostic), (*step, &reply.to_string()), "{what}");
                assert!(judgement.doubtful.is_empty() && !judgement.in_doubt, "{what}");
                assert_eq!(judgement.misrouted.contains(&0), fails && entry.action == Action::Reroute, "{what}");
                let rest = match entry.action {
                    Action::Hold if !before_mail => Rest::Held,
                    Action::Split if *step != Step::Rcpt && !before_mail => Rest::Apart,
                    _ => Rest::Together,
                };
                assert_eq!(judgement.rest, rest, "{what}");
                // Who pauses, and whether the operator is told what to do.
                let asked = match entry.action {
                    Action::FewerConnections => Some(FEWER),
                    Action::BackOff => Some(BACK_OFF),
                    Action::Suspend => Some(SUSPENDED),
                    Action::Wait => entry.wait.map(PauseLength::For),
                    _ => None,
                };
                let pause = judgement.pause.as_ref();
                assert_eq!(pause.is_some(), before_mail || asked.is_some(), "{what}");
                let Some(pause) = pause else { continue };
                assert_eq!((&pause.kind, pause.step), (&entry.name, *step), "{what}");
                assert_eq!(pause.reason, format!("{step}: {reply}"), "{what}");
                assert!(!judgement.counts && !judgement.elsewhere, "{what}: trouble of others does not count");
                match asked {
                    Some(length) => {
                        assert_eq!((pause.scope, pause.class, pause.length), (entry.scope, entry.class, length), "{what}");
                        assert_eq!((pause.limit, &pause.advice), (entry.limit, &entry.advice), "{what}");
                    }
                    // What would be a mail's trouble later is the login's or the server's here.
                    None => assert_eq!(pause.scope, if *step == Step::Auth { Scope::Account } else { Scope::Connection }, "{what}"),
                }
            }
        }
    }
}

#[test]
fn what_may_be_one_connections_trouble_may_be_tried_elsewhere_at_once() {
    let lost = |step| Report { recipients: vec![None], end: End::Stopped(Trouble { step, cause: Cause::Lost("gone".to_owned()) }) };
    let elsewhere = |judgement: Judgement| (judgement.counts, judgement.elsewhere);
    for step in [Step::Mail, Step::Data, Step::Content] {
        assert_eq!(elsewhere(judge(Catalogue::builtin(), &lost(step), Class::Internal)), (true, true), "{step}");
    }
    assert_eq!(
        elsewhere(judge(Catalogue::builtin(), &lost(Step::EndOfData), Class::Internal)),
        (true, false),
        "a copy is not sent in a hurry"
    );
    for (step, line, expected) in [
        (Step::Mail, "421 4.3.2 Service not available", true),
        (Step::EndOfData, "451 4.7.0 Temporary server error. Please try again later. PRX4", true),
        (Step::EndOfData, "451 4.9.9 Something unheard of", true),
        (Step::Rcpt, "451 4.9.9 Something about a recipient", false),
        (Step::Rcpt, "550 5.2.122 The recipient has exceeded their limit", false),
        (Step::EndOfData, "550 5.7.62 not the account", false),
    ] {
        assert_eq!(elsewhere(transaction(step, line)), (true, expected), "{step}: {line}");
    }
}

#[test]
fn a_5yz_that_nobody_knows_is_doubtful_where_nobody_was_taken() {
    for (step, line, doubtful) in [
        (Step::Mail, "550 5.9.9 no", vec![0, 1]),
        (Step::Data, "554 no", vec![0, 1]),
        (Step::EndOfData, "554 5.6.0 no", vec![0, 1]),
        (Step::EndOfData, "552 5.3.4 Message size exceeds fixed maximum message size", vec![]),
        (Step::Rcpt, "550 5.9.9 no", vec![]),
    ] {
        assert_eq!(transaction(step, line).doubtful, doubtful, "{step}: {line}");
    }
    let refused = |lines: &[&str]| Report { recipients: lines.iter().map(|line| Some(reply(line))).collect(), end: End::NoRecipient };
    let of = |lines: &[&str]| judge(Catalogue::builtin(), &refused(lines), Class::Internal).doubtful;
    assert_eq!(of(&["550 5.9.9 no", "550 5.1.1 unknown", "550 5.9.9 no"]), [0, 2], "a known fault is a known fault");
    let report = Report {
        recipients: vec![Some(reply("550 5.9.9 no")), Some(reply("250 ok"))],
        end: End::Stopped(refusal(Step::EndOfData, "554 5.6.0 no")),
    };
    assert_eq!(judge(Catalogue::builtin(), &report, Class::Internal).doubtful, [0, 1]);
}

#[test]
fn a_token_that_is_not_had_pauses_the_application_as_long_as_the_fault_says() {
    for length in [BACK_OFF, SUSPENDED, MINUTE] {
        let trouble = Trouble { step: Step::Token, cause: token("temporarily_unavailable", length, "") };
        let pause = judge_open(Catalogue::builtin(), &trouble, 2).pause.expect("a pause");
        assert_eq!((pause.scope, pause.length, pause.reason.as_str()), (Scope::App, length, "getting a token: temporarily_unavailable"));
    }
}

#[test]
fn a_stale_token_is_known_by_its_code_or_its_words() {
    for (line, stale) in [
        ("501 5.5.127 Invalid XOAUTH2 argument. Token will expire soon", true),
        ("535 5.7.142 Token expired", true),
        ("535 5.7.143 Token expired", true),
        ("535 5.7.3 Authentication unsuccessful", false),
        ("535 5.7.144 Invalid API permissions", false),
        ("421 4.3.2 Service not available", false),
    ] {
        assert_eq!(is_stale_token(Catalogue::builtin(), &reply(line)), stale, "{line}");
    }
}

#[test]
fn an_endpoint_that_cannot_be_reached_pauses() {
    let lost = || Cause::Lost("connection refused".to_owned());
    for (step, cause, status, scope, alarm) in [
        (Step::Connect, lost(), "4.4.1", Scope::Connection, false),
        (Step::Greeting, Cause::TimedOut(Duration::from_secs(300)), "4.4.2", Scope::Connection, false),
        (Step::StartTls, Cause::Protocol("no STARTTLS".to_owned()), "4.5.0", Scope::Connection, true),
        (Step::Tls, Cause::Tls("wrong name".to_owned()), "4.7.5", Scope::Connection, true),
        (Step::Auth, lost(), "4.4.2", Scope::Connection, false),
        (Step::Auth, Cause::Local("NUL".to_owned()), "4.3.0", Scope::Account, true),
        (Step::Token, token("invalid_client", SUSPENDED, "Renew it."), "4.7.0", Scope::App, true),
        (Step::Token, token("no answer", BACK_OFF, ""), "4.7.0", Scope::App, false),
    ] {
        let judgement = judge_open(Catalogue::builtin(), &Trouble { step, cause: cause.clone() }, 1);
        let pause = judgement.pause.expect("a pause");
        assert_eq!((pause.scope, !pause.advice.is_empty()), (scope, alarm), "{step}: {cause}");
        assert_eq!(judgement.outcomes[0].status.to_string(), status, "{step}: {cause}");
        assert_eq!((judgement.outcomes[0].disposition, judgement.counts), (DEFERRED, false), "{step}: {cause}");
        assert_eq!(judgement.outcomes[0].diagnostic, cause.to_string());
    }
}

#[test]
fn only_the_end_of_data_leaves_doubt() {
    for step in [Step::Mail, Step::Rcpt, Step::Data, Step::Content, Step::EndOfData] {
        for cause in [Cause::Lost("gone".to_owned()), Cause::TimedOut(Duration::from_secs(1)), Cause::Protocol("what?".to_owned())] {
            let report = Report { recipients: vec![None, None], end: End::Stopped(Trouble { step, cause }) };
            let judgement = judge(Catalogue::builtin(), &report, Class::Internal);
            assert_eq!(judgement.in_doubt, step == Step::EndOfData, "{step}");
            assert!(judgement.counts && judgement.pause.is_none(), "{step}");
            assert!(judgement.outcomes.iter().all(|outcome| outcome.disposition == DEFERRED && outcome.step == step), "{step}");
        }
    }
}

#[test]
fn each_recipient_has_its_own_outcome() {
    let report = Report {
        recipients: vec![Some(reply("250 2.1.5 ok")), Some(reply("550 5.1.10 not found")), Some(reply("451 4.2.1 busy"))],
        end: End::Accepted(reply("250 2.6.0 <id> [InternalId=7] Queued mail for delivery")),
    };
    let judgement = judge(Catalogue::builtin(), &report, Class::Internal);
    let seen: Vec<_> = judgement.outcomes.iter().map(|o| (o.disposition, o.status.to_string(), o.step)).collect();
    assert_eq!(
        seen,
        [
            (SENT, "2.6.0".to_owned(), Step::EndOfData),
            (FAILED, "5.1.10".to_owned(), Step::Rcpt),
            (DEFERRED, "4.2.1".to_owned(), Step::Rcpt)
        ]
    );
    assert_eq!(judgement.outcomes[0].diagnostic, "250 2.6.0 <id> [InternalId=7] Queued mail for delivery");
    assert!(judgement.counts);
}

#[test]
fn a_refused_recipient_stays_refused_when_the_rest_is_lost() {
    let lost = Trouble { step: Step::EndOfData, cause: Cause::Lost("gone".to_owned()) };
    let report = Report { recipients: vec![Some(reply("550 5.1.1 no")), Some(reply("250 ok"))], end: End::Stopped(lost) };
    let judgement = judge(Catalogue::builtin(), &report, Class::Internal);
    assert_eq!(judgement.outcomes.iter().map(|o| o.disposition).collect::<Vec<_>>(), [FAILED, DEFERRED]);
    assert!(judgement.in_doubt);
}

#[test]
fn the_widest_pause_wins_and_account_trouble_does_not_count() {
    let recipients = vec![Some(reply("450 4.5.104 rate")), Some(reply("550 5.7.705 tenant")), Some(reply("451 4.7.500 denied"))];
    let report = Report { recipients, end: End::NoRecipient };
    let judgement = judge(Catalogue::builtin(), &report, Class::External);
    assert_eq!(judgement.pause.map(|pause| (pause.scope, pause.length)), Some((Scope::Tenant, SUSPENDED)));
    assert!(!judgement.counts);
}

#[test]
fn a_pause_for_another_class_counts_or_it_would_be_tried_without_end() {
    let report = Report { recipients: vec![Some(reply("450 4.5.104 rate"))], end: End::NoRecipient };
    let judgement = judge(Catalogue::builtin(), &report, Class::Internal);
    assert_eq!(judgement.pause.and_then(|pause| pause.class), Some(Class::External));
    assert!(judgement.counts);
}

#[test]
fn too_many_recipients_counts_only_if_nobody_went() {
    let rest = || Some(reply("452 4.5.3 Too many recipients"));
    let report = Report { recipients: vec![rest(), rest()], end: End::NoRecipient };
    assert!(judge(Catalogue::builtin(), &report, Class::Internal).counts);
}

#[test]
fn a_single_recipient_that_spoils_the_message_fails() {
    let end = || End::Stopped(refusal(Step::EndOfData, "550 5.7.703 blocked"));
    let report = Report { recipients: vec![Some(reply("550 5.1.1 no")), Some(reply("250 ok"))], end: end() };
    let judgement = judge(Catalogue::builtin(), &report, Class::Internal);
    assert_eq!(judgement.outcomes.iter().map(|o| o.disposition).collect::<Vec<_>>(), [FAILED, FAILED]);
}

#[test]
fn a_status_never_contradicts_its_disposition_in_a_failure_or_a_success() {
    let report = Report { recipients: vec![Some(reply("250 ok"))], end: End::Accepted(reply("250 thanks")) };
    assert_eq!(judge(Catalogue::builtin(), &report, Class::Internal).outcomes[0].status, EnhancedStatus::new(2, 0, 0));
    let report = Report { recipients: vec![Some(reply("550 no"))], end: End::NoRecipient };
    assert_eq!(judge(Catalogue::builtin(), &report, Class::Internal).outcomes[0].status, EnhancedStatus::new(5, 0, 0));
}
