//! `[notices]`, and `notify` of each client: who is told what, and how often.

use std::time::Duration;

use toml::de::DeValue;

use super::outbound::Accounts;
use super::problem::{At, Findings};
use super::reader::Document;
use super::value::{self, Wrong};
use super::{
    intake::{ClientSettings, Policy, Readers},
    notice,
};
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
        delay_warning: section.or(
            "delay_warning",
            value::or_none(value::duration(Duration::from_millis(100)..=Duration::from_secs(30 * 86_400))),
            default.delay_warning,
        ),
        digest_interval: section.or(
            "digest_interval",
            value::duration(Duration::from_millis(100)..=Duration::from_secs(86_400)),
            default.digest_interval,
        ),
        operators: operators.map(|found| readers(found, findings, accounts, (policy, &ClientName::new(notice::OWN)))).unwrap_or_default(),
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

/// Who is told what became of the mail of each client; they stand in the order of the file.
pub(super) fn of_clients(
    document: &Document<'_>,
    findings: &Findings<'_>,
    accounts: &Accounts,
    policy: &Policy,
    clients: &mut [ClientSettings],
) {
    for (section, client) in document.many("client").iter().zip(clients) {
        section.note("notify", "author", "default");
        let Some(At { value: form, .. }) = section.get("notify", form) else { continue };
        client.notify = match form {
            Form::Author => Readers::Author,
            Form::Nobody => Readers::Nobody,
            Form::List => {
                let list = section.list("notify", value::mailbox, FORMS);
                Readers::These(list.map(|found| readers(found, findings, accounts, (policy, &client.name))).unwrap_or_default())
            }
        };
    }
}

/// How `notify` may be written.
const FORMS: &str = "\"author\", \"none\", or a list of addresses such as [\"it@contoso.com\"]";

#[derive(Debug, Clone, Copy)]
enum Form {
    Author,
    Nobody,
    List,
}

fn form(value: &DeValue<'_>) -> Result<Form, Wrong> {
    match value {
        DeValue::Array(_) => Ok(Form::List),
        DeValue::String(text) if text == "author" => Ok(Form::Author),
        DeValue::String(text) if text == "none" => Ok(Form::Nobody),
        _ => Err(Wrong::is_not(value, "a word for who is told", format!("write {FORMS}"))),
    }
}

/// Addresses that can read what the relay writes to them as one of that client's notices.
fn readers(
    At { value: written, place }: At<Vec<At<Mailbox>>>,
    findings: &Findings<'_>,
    accounts: &Accounts,
    (policy, client): (&Policy, &ClientName),
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
        } else if let Err(refusal) = policy.recipient(client, &value, None) {
            findings.problem(&place, format!("mail to \"{value}\" has no route"), refusal.text().to_owned());
        } else {
            readers.push(value);
        }
    }
    readers
}
