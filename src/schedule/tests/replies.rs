//! Every reply that High Volume Email is known for, at each step at which it can come: what becomes of the mail, of the account, of the others,
//! and what is told of it.

use super::*;
use crate::mail::AppName;
use crate::reply::{Catalogue, Cause, Disposition, End as Ending, Judgement, Report, Rest, Trouble as Met, judge, judge_open};
use crate::smtp::Reply;

/// What becomes of the mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mail {
    /// It fails.
    Fails,
    /// It is tried again at once, by whoever may.
    GoesOn,
    /// It is tried again later; where another account or connection may do better, there at once.
    Later,
    /// An operator must look at it.
    Held,
    /// Its recipients are tried one by one.
    Apart,
}
use Mail::{Apart, Fails, GoesOn, Held, Later};

/// Who rests, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rests {
    Nobody,
    Account(How),
    App(How),
    Tenant(How),
    /// The account goes on with fewer connections.
    Fewer,
}
use Rests::{Account, App, Fewer, Nobody, Tenant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Suspended,
    BackOff,
    For(u64),
    /// The same, for external mail alone.
    External(u64),
}
use How::{BackOff, External, For, Suspended};

struct Row(&'static str, &'static [Step], Mail, Rests);

const MINUTE: u64 = 60;
const DAY: u64 = 86_400;
/// From MAIL on, wherever the server can refuse everything.
const ALL: &[Step] = &[Step::Mail, Step::Rcpt, Step::Data, Step::Content, Step::EndOfData];
const WHOLE: &[Step] = &[Step::Mail, Step::Data, Step::Content, Step::EndOfData];
const RCPT: &[Step] = &[Step::Rcpt];
const CONTENT: &[Step] = &[Step::Data, Step::Content, Step::EndOfData];

#[rustfmt::skip]
const REPLIES: &[Row] = &[
    Row("450 4.5.104 Message rejected. Excessive message rate from sender. The HVE message can't be submitted because the rate limit for external emails has been exceeded.", ALL, GoesOn, Account(External(MINUTE))),
    Row("450 4.5.102 Message rejected. Excessive message rate from sender. The HVE message can't be submitted because the sender's submission tenant quota for external recipients was exceeded.", ALL, GoesOn, Account(External(DAY))),
    Row("450 4.5.127 Message rejected. Excessive message rate from sender.", ALL, GoesOn, Account(BackOff)),
    Row("550 5.5.105 External sending is not supported for High Volume Email accounts", ALL, Fails, Nobody),
    Row("535 5.7.3 Authentication unsuccessful", ALL, GoesOn, Account(Suspended)),
    Row("535 5.7.139 Authentication unsuccessful, the organization configuration doesn't allow this authentication request", ALL, GoesOn, Account(Suspended)),
    Row("535 5.7.139 Authentication unsuccessful, basic auth is blocked", ALL, GoesOn, Account(Suspended)),
    Row("550 5.7.30 Basic authentication is not supported for Client Submission.", ALL, GoesOn, Tenant(Suspended)),
    Row("501 5.5.121 Invalid XOAUTH2 argument", ALL, GoesOn, Account(Suspended)),
    Row("501 5.5.126 Invalid XOAUTH2 argument", ALL, GoesOn, Account(Suspended)),
    Row("501 5.5.127 Invalid XOAUTH2 argument. Token will expire soon", ALL, Later, Nobody),
    Row("535 5.7.142 Token expired", ALL, Later, Nobody),
    Row("535 5.7.143 Token expired", ALL, Later, Nobody),
    Row("535 5.7.144 Authentication unsuccessful, Invalid API permissions", ALL, GoesOn, App(Suspended)),
    Row("550 5.7.240 The application is not allowed for use with this High Volume Email account", ALL, GoesOn, Account(Suspended)),
    Row("550 5.2.240 Not a High Volume Email account", ALL, GoesOn, Account(Suspended)),
    Row("550 5.7.62 MAIL FROM differs", ALL, Held, Nobody),
    Row("550 5.6.241 From differs", ALL, Held, Nobody),
    Row("550 5.7.60 SMTP; Client does not have permissions to send as this sender", ALL, Held, Nobody),
    Row("554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied", ALL, Held, Nobody),
    Row("554 5.2.252 SendAsDenied; hve01@contoso.com not allowed to send as scanner@contoso.com", ALL, Held, Nobody),
    Row("550 5.2.251 Sender throttled due to continuous errors", ALL, GoesOn, Account(Suspended)),
    Row("550 5.2.252 Sender throttled due to continuous invalid recipients errors", ALL, GoesOn, Account(Suspended)),
    Row("554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException", ALL, GoesOn, Account(For(DAY))),
    Row("550 5.1.90 Your message can't be sent because you've reached your daily limit", ALL, GoesOn, Account(For(DAY))),
    Row("550 5.2.2 Submission quota exceeded", ALL, GoesOn, Account(For(DAY))),
    Row("432 4.3.2 Concurrent connections limit exceeded", ALL, GoesOn, Fewer),
    Row("432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded", ALL, GoesOn, Fewer),
    Row("432 4.3.2 STOREDRV.Deliver; recipient thread limit exceeded", ALL, Later, Nobody),
    Row("550 5.2.121 Recipient's per hour message limit exceeded", ALL, Later, Nobody),
    Row("550 5.2.122 The recipient has exceeded their limit", ALL, Later, Nobody),
    Row("451 4.7.0 Temporary server error. Please try again later. PRX4", ALL, Later, Nobody),
    Row("421 4.3.2 Service not available", ALL, Later, Nobody),
    Row("454 4.7.0 Temporary failure", ALL, Later, Nobody),
    Row("451 4.7.500 Access denied, please try again later", ALL, GoesOn, Account(Suspended)),
    Row("451 4.7.699 Access denied, please try again later", ALL, GoesOn, Account(Suspended)),
    Row("451 4.7.850 Access denied, please try again later", ALL, GoesOn, Account(Suspended)),
    Row("550 5.1.8 Access denied, bad outbound sender", ALL, GoesOn, Account(Suspended)),
    Row("550 5.7.501 Access denied, spam abuse detected", ALL, GoesOn, Account(Suspended)),
    Row("550 5.7.503 Access denied, banned sender", ALL, GoesOn, Account(Suspended)),
    Row("550 5.7.705 Access denied, tenant has exceeded threshold", ALL, GoesOn, Tenant(Suspended)),
    Row("550 5.7.708 Access denied, traffic not accepted from this IP", ALL, GoesOn, Tenant(Suspended)),
    Row("550 5.7.750 Client blocked from sending from unregistered domains", ALL, GoesOn, Tenant(Suspended)),
    Row("550 5.7.233 Your tenant exceeded its daily limit for external recipients", ALL, GoesOn, Tenant(External(DAY))),
    Row("530 5.7.57 Client was not authenticated to send anonymous mail during MAIL FROM", ALL, GoesOn, Account(Suspended)),
    Row("550 5.1.1 User unknown", RCPT, Fails, Nobody),
    Row("550 5.1.10 Recipient not found", RCPT, Fails, Nobody),
    Row("550 5.4.1 Recipient address rejected: Access denied", RCPT, Fails, Nobody),
    Row("550 5.7.1 Unable to relay", RCPT, Fails, Nobody),
    Row("550 5.7.12 Sender was not authenticated by organization", RCPT, Fails, Nobody),
    Row("550 5.7.124 Sender not in allowed-senders list", RCPT, Fails, Nobody),
    Row("550 5.7.133 Sender not authenticated for group", RCPT, Fails, Nobody),
    Row("550 5.7.134 Sender not authenticated for mailbox", RCPT, Fails, Nobody),
    Row("550 5.7.136 Sender not authenticated for mail user", RCPT, Fails, Nobody),
    Row("550 5.7.703 Messages to this recipient are blocked", RCPT, Fails, Nobody),
    Row("550 5.7.703 Messages to a recipient are blocked", CONTENT, Apart, Nobody),
    Row("452 4.5.3 Too many recipients", ALL, Later, Nobody),
    Row("550 5.6.11 SMTPSEND.BareLinefeedsAreIllegal", ALL, Fails, Nobody),
    Row("550 5.7.512 Access denied, message must be RFC 5322 section 3.6.2 compliant", ALL, Fails, Nobody),
    Row("550 5.1.20 Multiple From addresses", ALL, Fails, Nobody),
    Row("552 5.3.4 Message size exceeds fixed maximum message size", ALL, Fails, Nobody),
    Row("552 5.2.3 Message exceeds local size limit", ALL, Fails, Nobody),
    // Nobody knows these: see also the suspicion that the account is to blame.
    Row("451 4.9.9 Something that passes", ALL, Later, Nobody),
    Row("550 5.9.9 Something for good", WHOLE, Fails, Nobody),
    Row("550 4.4.999 Something in two minds", ALL, Later, Nobody),
];

/// Four accounts: two of an application, one with a password, one on a route apart. The first has four attempts under way.
fn world() -> (Scheduler, Attempt) {
    let mut settings = settings(4, 4, &Limits::NONE);
    settings.accounts[..2].iter_mut().for_each(|account| account.app = Some(AppName::new("mailer")));
    settings.accounts[3].route = RouteName::new("apart");
    settings.apart = vec![RouteName::new("apart")];
    let mut s = Scheduler::new(settings);
    (1..=9).for_each(|n| s.add(START, queued(n, Class::External)));
    let first = drain(&mut s, START).into_iter().find(|attempt| attempt.account == name(0)).expect("one on the first account");
    (s, first)
}

fn judged(step: Step, reply: &Reply) -> Judgement {
    let (good, refusal) = (|| Reply::parse(["250 2.1.5 ok"]), Met { step, cause: Cause::Reply(reply.clone()) });
    let (recipients, end) = match step {
        step if step < Step::Mail => return judge_open(Catalogue::builtin(), &refusal, 2),
        Step::Mail => (vec![None, None], Ending::Stopped(refusal)),
        Step::Rcpt => (vec![Some(reply.clone()), Some(reply.clone())], Ending::NoRecipient),
        _ => (vec![good(), good()], Ending::Stopped(refusal)),
    };
    judge(Catalogue::builtin(), &Report { recipients, end }, Class::External)
}

/// Which of the accounts take another message now, as far as they have connections.
fn take_more(s: &mut Scheduler, now: Timestamp, class: Class) -> Vec<usize> {
    for n in 100..140 {
        let route = if n % 4 == 0 { "apart" } else { "hve" };
        s.add(now, Queued { route: RouteName::new(route), due: now, ..queued(n, class) });
    }
    let mut taken: Vec<usize> =
        drain(s, now).iter().map(|attempt| (0..4).find(|i| name(*i) == attempt.account).expect("an account")).collect();
    taken.sort_unstable();
    taken.dedup();
    taken
}

#[test]
fn every_reply_at_each_step_does_what_the_table_says_to_mail_account_others_and_log() {
    let mut looked_at = 0;
    for Row(line, steps, mail, rests) in REPLIES {
        let reply = Reply::parse([*line]).expect(line);
        let before: &[Step] = &[Step::Greeting, Step::Ehlo, Step::StartTls, Step::Auth];
        for step in before.iter().chain(*steps) {
            looked_at += 1;
            let what = format!("{step}: {line}");
            let judgement = judged(*step, &reply);
            // The mail.
            let fate = match (judgement.rest, judgement.outcomes[0].disposition) {
                (Rest::Held, _) => Held,
                (Rest::Apart, _) => Apart,
                (_, Disposition::Failed) => Fails,
                _ if judgement.counts => Later,
                _ => GoesOn,
            };
            // Before MAIL nothing is a mail's fault; but one that spoils what it is in comes alone at RCPT, and with all at the end.
            assert_eq!(fate, if *step < Step::Mail { GoesOn } else { *mail }, "{what}");
            assert!(judgement.outcomes.iter().all(|outcome| outcome.disposition != Disposition::Sent) && !judgement.in_doubt, "{what}");
            // The account and what is told.
            let (mut s, attempt) = world();
            let (now, used) = (at(1), Used::NOTHING);
            let changes = s.ended(now, &Ended { delivery: attempt.delivery, started: START, used, pause: judgement.pause.clone() });
            let rests = match (rests, *step) {
                (Nobody, Step::Auth) => Account(if reply.is_permanent() && !is_passing(&reply, *step) { Suspended } else { BackOff }),
                (Nobody, Step::Greeting | Step::Ehlo | Step::StartTls) => Nobody,
                _ => *rests,
            };
            let of_route = rests == Nobody && *step < Step::Auth;
            match &changes[..] {
                [] => assert_eq!((rests, of_route), (Nobody, false), "{what}"),
                [Change::Narrowed { account, .. }] => assert_eq!((rests, account), (Fewer, &name(0)), "{what}"),
                [Change::Closed { gate, until, pause }] => {
                    let how = match (pause.length, pause.class) {
                        (PauseLength::Suspended, None) => Suspended,
                        (PauseLength::BackOff, None) => BackOff,
                        (PauseLength::For(length), None) => For(length.as_secs()),
                        (PauseLength::For(length), Some(Class::External)) => External(length.as_secs()),
                        other => panic!("{what}: {other:?}"),
                    };
                    let found = match gate {
                        Who::Account(account) if *account == name(0) => Account(how),
                        Who::App(_) => App(how),
                        Who::Tenant => Tenant(how),
                        Who::Route(_) if of_route && how == BackOff => Nobody,
                        other => panic!("{what}: {other:?}"),
                    };
                    assert_eq!(found, rests, "{what}");
                    assert!(*until > now && pause.reason.starts_with(&format!("{step}: ")), "{what}: {pause:?}");
                    assert!(how != Suspended || !pause.advice.is_empty(), "{what}: nobody is told what to do");
                }
                other => panic!("{what}: {other:?}"),
            }
            // The others, and what this account does for the other class.
            let external = take_more(&mut s, now, Class::External);
            let expected: &[usize] = match rests {
                _ if of_route => &[3],
                Nobody => &[0, 1, 2, 3],
                Fewer | Account(_) => &[1, 2, 3],
                App(_) => &[2, 3],
                Tenant(_) => &[3],
            };
            assert_eq!(external, expected, "{what}");
            if matches!(rests, Account(External(_)) | Tenant(External(_))) {
                let (mut s, attempt) = world();
                s.ended(now, &Ended { delivery: attempt.delivery, started: START, used, pause: judgement.pause });
                assert!(take_more(&mut s, now, Class::Internal).contains(&0), "{what}: internal mail goes on");
            }
        }
    }
    assert!(looked_at > 400, "{looked_at}");
}

/// What the catalogue says of a reply is that it passes.
fn is_passing(reply: &Reply, step: Step) -> bool {
    Catalogue::builtin().lookup(step, reply).action == crate::reply::Action::Retry
}
