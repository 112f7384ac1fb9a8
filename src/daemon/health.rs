//! What the scheduler has learned of accounts, between it and the store.
//!
//! It is few lines, so all of it is written each time that something of it has changed, together with an anchor of its own (see `ledger`): the
//! lines and the clock that their times are of are never of different minds. A line that this version cannot read says nothing.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::mail::{AccountName, AppName, Class, RouteName};
use crate::reply::{Pause, PauseLength, Scope, Step};
use crate::schedule::{Closed, HealthRow, Learned, Who};
use crate::store::Ailment;

/// Every step, as it is kept.
const STEPS: [(&str, Step); 12] = [
    ("token", Step::Token),
    ("connect", Step::Connect),
    ("greeting", Step::Greeting),
    ("ehlo", Step::Ehlo),
    ("starttls", Step::StartTls),
    ("tls", Step::Tls),
    ("auth", Step::Auth),
    ("mail", Step::Mail),
    ("rcpt", Step::Rcpt),
    ("data", Step::Data),
    ("content", Step::Content),
    ("end-of-data", Step::EndOfData),
];
/// What stands for the number of connections, where a gate's line has a class.
const CONNECTIONS: &str = "connections";

/// As it is kept.
pub(super) fn written(row: HealthRow) -> Ailment {
    let of = |who: &Who, about: &str, pause: Pause| {
        let (length, lasts) = match pause.length {
            PauseLength::For(length) => ("for", Some(length)),
            PauseLength::FewerConnections => ("fewer-connections", None),
            PauseLength::BackOff => ("back-off", None),
            PauseLength::Suspended => ("suspended", None),
        };
        Ailment {
            holder: holder(who),
            about: about.to_owned(),
            since: Timestamp::default(),
            met: Timestamp::default(),
            until: Timestamp::default(),
            level: 0,
            logins: 0,
            passed: false,
            using: None,
            scope: pause.scope.as_str().to_owned(),
            length: length.to_owned(),
            lasts,
            every: pause.every,
            limit: pause.limit.map(|limit| limit.as_str().to_owned()),
            step: STEPS.iter().find(|(_, step)| *step == pause.step).map_or("", |(word, _)| word).to_owned(),
            kind: pause.kind.to_string(),
            reason: pause.reason,
            advice: pause.advice,
        }
    };
    match row {
        HealthRow::Gate { who, class, closed } => {
            let Closed { since, met, until, pause, level, logins, passed } = closed;
            Ailment { since, met, until, level, logins, passed, ..of(&who, class.map_or("", Class::as_str), pause) }
        }
        HealthRow::Width { account, learned } => {
            let Learned { using, since, met, grows_at, level, pause } = learned;
            let using = Some(u32::try_from(using).unwrap_or(u32::MAX));
            Ailment { since, met, until: grows_at, level, using, ..of(&Who::Account(account), CONNECTIONS, pause) }
        }
    }
}

/// As it was, with its times moved by `shift` milliseconds; none if this version does not know what it is about.
pub(super) fn read(ailment: Ailment, shift: i64) -> Option<HealthRow> {
    let moved = |time: Timestamp| Timestamp::from_millis(time.as_millis().saturating_add(shift));
    let Ailment { holder, about, since, met, until, level, logins, passed, using, scope, length, lasts, every, limit, step, kind, .. } =
        ailment;
    let who = match holder.split_once(' ') {
        Some(("account", name)) => Who::Account(AccountName::new(name)),
        Some(("app", name)) => Who::App(AppName::new(name)),
        Some(("route", name)) => Who::Route(RouteName::new(name)),
        None if holder == "tenant" => Who::Tenant,
        _ => return None,
    };
    let length = match (length.as_str(), lasts) {
        ("for", Some(lasts)) => PauseLength::For(lasts),
        ("fewer-connections", _) => PauseLength::FewerConnections,
        ("back-off", _) => PauseLength::BackOff,
        ("suspended", _) => PauseLength::Suspended,
        _ => return None,
    };
    let class = [Class::Internal, Class::External].into_iter().find(|class| class.as_str() == about);
    let pause = Pause {
        scope: Scope::WORDS.iter().find(|(word, _)| *word == scope)?.1,
        class,
        length,
        every: every.filter(|every| *every > Duration::ZERO),
        limit: limit.and_then(|limit| limit.parse().ok()),
        step: STEPS.iter().find(|(word, _)| *word == step)?.1,
        kind: kind.into(),
        reason: ailment.reason,
        advice: ailment.advice,
    };
    let (since, met, until) = (moved(since), moved(met), moved(until));
    match (using, who) {
        (Some(using), Who::Account(account)) if about == CONNECTIONS => {
            let using = usize::try_from(using).ok()?;
            Some(HealthRow::Width { account, learned: Learned { using, since, met, grows_at: until, level, pause } })
        }
        (None, who) if class.is_some() || about.is_empty() => {
            Some(HealthRow::Gate { who, class, closed: Closed { since, met, until, pause, level, logins, passed } })
        }
        _ => None,
    }
}

fn holder(who: &Who) -> String {
    match who {
        Who::Account(name) => format!("account {name}"),
        Who::App(name) => format!("app {name}"),
        Who::Route(name) => format!("route {name}"),
        Who::Tenant => "tenant".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::LimitName;

    fn pause(scope: Scope, class: Option<Class>, length: PauseLength) -> Pause {
        let (every, limit) = (Some(Duration::from_secs(300)), Some(LimitName::ExternalPerMinute));
        let (kind, reason, advice) = ("kind".into(), "AUTH: 535 5.7.3 no".to_owned(), "Act.".to_owned());
        Pause { scope, class, length, every, limit, step: Step::Auth, kind, reason, advice }
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let at = |seconds: i64| Timestamp::from_millis(1_795_285_881_000 + 1_000 * seconds);
        let closed = |pause, shift| {
            let (since, met, until) = (at(shift), at(1 + shift), at(1_200 + shift));
            Closed { since, met, until, pause, level: 3, logins: 2, passed: true }
        };
        let whose = [
            Who::Account(AccountName::new("hve01@contoso.com")),
            Who::App(AppName::new("mailer")),
            Who::Route(RouteName::new("hve")),
            Who::Tenant,
        ];
        for shift in [0, 3_600, -3_600] {
            for who in whose.clone() {
                for (class, length) in [
                    (None, PauseLength::Suspended),
                    (Some(Class::Internal), PauseLength::BackOff),
                    (Some(Class::External), PauseLength::For(Duration::from_millis(86_400_001))),
                ] {
                    let row = |shift| {
                        let pause = pause(Scope::Tenant, class, length);
                        HealthRow::Gate { who: who.clone(), class, closed: closed(pause, shift) }
                    };
                    assert_eq!(read(written(row(0)), 1_000 * shift), Some(row(shift)));
                }
            }
            let row = |shift| {
                let pause = pause(Scope::Account, None, PauseLength::FewerConnections);
                let (account, since, met, grows_at) = (AccountName::new("hve01@contoso.com"), at(shift), at(2 + shift), at(600 + shift));
                HealthRow::Width { account, learned: Learned { using: 3, since, met, grows_at, level: 1, pause } }
            };
            assert_eq!(read(written(row(0)), 1_000 * shift), Some(row(shift)));
        }
    }

    #[test]
    fn every_step_has_its_word_and_what_is_not_known_says_nothing() {
        for (_, step) in STEPS {
            let pause = Pause { step, ..pause(Scope::Account, None, PauseLength::Suspended) };
            let closed = Closed {
                since: Timestamp::default(),
                met: Timestamp::default(),
                until: Timestamp::default(),
                pause,
                level: 1,
                logins: 0,
                passed: false,
            };
            let row = HealthRow::Gate { who: Who::Tenant, class: None, closed };
            let ailment = written(row.clone());
            assert_eq!(read(ailment.clone(), 0), Some(row));
            for unknown in [
                Ailment { holder: "planet earth".into(), ..ailment.clone() },
                Ailment { length: "for ever".into(), ..ailment.clone() },
                Ailment { step: "handshake".into(), ..ailment.clone() },
                Ailment { about: "other".into(), ..ailment.clone() },
                Ailment { scope: String::new(), ..ailment },
            ] {
                assert_eq!(read(unknown, 0), None);
            }
        }
    }
}
