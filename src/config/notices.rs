//! `[notices]`: who is told what, and how often.

use std::time::Duration;

use super::outbound::Accounts;
use super::problem::{At, Findings};
use super::reader::Document;
use super::{intake::Policy, notice, value};
use crate::{
    mail::{AccountName, ClientName},
    smtp::Mailbox,
};

/// Addresses in one list; more are a list of their own at the mail server.
const ADDRESSES: usize = 20;

pub(super) fn settings(document: &Document<'_>, findings: &Findings<'_>, accounts: &Accounts, policy: &Policy) -> notice::Settings {
    let section = document.one("notices");
    let default = notice::Settings::default();
    let operators = section.list("operators", value::mailbox, "operators = [\"ops@contoso.com\"], or leave it out");
    notice::Settings {
        operators: operators.map(|found| readers(found, findings, accounts, policy)).unwrap_or_default(),
        alarm_delay: section.or(
            "alarm_delay",
            value::duration(Duration::from_millis(100)..=Duration::from_secs(86_400)),
            default.alarm_delay,
        ),
        queue_age_alarm: section.or(
            "queue_age_alarm",
            value::or_none(value::duration(Duration::from_secs(1)..=Duration::from_secs(30 * 86_400))),
            default.queue_age_alarm,
        ),
        per_hour: section.or("per_hour", value::count(1..=1_000), default.per_hour),
    }
}

/// Addresses that can read what the relay writes to them.
fn readers(
    At { value: written, place }: At<Vec<At<Mailbox>>>,
    findings: &Findings<'_>,
    accounts: &Accounts,
    policy: &Policy,
) -> Vec<Mailbox> {
    let mut readers: Vec<Mailbox> = Vec::new();
    if written.len() > ADDRESSES {
        let found = format!("the list has {} addresses", written.len());
        findings.problem(&place, found, format!("write {ADDRESSES} at most, or the address of a group"));
    }
    for At { value, place } in written {
        if readers.contains(&value) {
            findings.warning(&place, format!("\"{value}\" stands in the list already"), "remove it");
        } else if accounts.settings.iter().any(|account| account.name == AccountName::new(value.as_str().to_lowercase())) {
            findings.problem(
                &place,
                format!("\"{value}\" is an account, and accounts have no mailbox"),
                "write an address that somebody reads",
            );
        } else if let Err(refusal) = policy.recipient(&ClientName::new(notice::OWN), &value, None) {
            findings.problem(&place, format!("mail to \"{value}\" has no route"), refusal.text().to_owned());
        } else {
            readers.push(value);
        }
    }
    readers
}
