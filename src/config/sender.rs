//! As whom mail goes out: `[sender]`, and what routes and clients say about it.

use std::collections::BTreeMap;

use toml::de::DeValue;

use super::Route;
use super::outbound::Accounts;
use super::problem::{At, Findings, Place};
use super::profile::{HVE_GA, HVE_PREVIEW};
use super::reader::{Document, Section};
use super::value::{self, Wrong};
use crate::{
    mail::{ClientName, DisplayName, Sender, SenderPolicy, Senders, Signatures},
    schedule::AccountSettings,
};

const SIGNATURES: &[(&str, Signatures)] = &[("remove", Signatures::Remove), ("keep", Signatures::Keep)];

/// What a route makes of the sender, if it says so.
pub(super) fn of_route(section: &Section<'_>, default: SenderPolicy, kind: &str) -> SenderPolicy {
    let word = match &default {
        SenderPolicy::Account => "account",
        SenderPolicy::Keep => "keep",
        SenderPolicy::Fixed(mailbox) => mailbox.as_str(),
    };
    section.note("sender", word, &format!("{kind} route"));
    section.get("sender", policy).map_or(default, |policy| policy.value)
}

/// What is said for all mail, and by each client for its own.
pub(super) fn senders(document: &Document<'_>, findings: &Findings<'_>, routes: &[Route], accounts: &Accounts) -> Senders {
    let common = document.one("sender");
    common.note("display_name", "keep", "default");
    let every = read(&common, &Sender::default());
    let mut clients = BTreeMap::new();
    for section in document.many("client") {
        let Some(name) = section.get("name", value::name) else { continue };
        let name = ClientName::new(name.value);
        let policy = section.get("sender", policy);
        for route in routes.iter().filter(|route| route.clients.as_ref().is_none_or(|clients| clients.contains(&name))) {
            warn_of_foreign_sender(policy.as_ref(), route, &accounts.settings, findings);
        }
        let own = Sender { policy: policy.map(|policy| policy.value), ..read(&section, &every) };
        for key in ["display_name", "dkim_signature"] {
            section.same_as(key, format!("sender.{key}"));
        }
        clients.insert(name, own);
    }
    for section in document.many("route") {
        let own = section.get("name", value::name).and_then(|name| routes.iter().find(|route| route.name.as_str() == name.value));
        if let Some(route) = own {
            let policy = section.get("sender", policy);
            warn_of_foreign_sender(policy.as_ref(), route, &accounts.settings, findings);
            report_no_account(policy.as_ref(), route, accounts, findings);
        }
    }
    Senders { every, clients }
}

/// The keys that `[sender]` and `[[client]]` share.
fn read(section: &Section<'_>, default: &Sender) -> Sender {
    Sender {
        policy: None,
        display_name: section.get("display_name", display_name).map_or_else(|| default.display_name.clone(), |name| name.value),
        signatures: section.or("dkim_signature", value::choice("a treatment", SIGNATURES), default.signatures),
    }
}

fn policy(value: &DeValue<'_>) -> Result<SenderPolicy, Wrong> {
    let hint = "write \"account\", \"keep\", or the one address that all mail is to come from, such as \"noreply@contoso.com\"";
    match value.as_str() {
        Some("account") => Ok(SenderPolicy::Account),
        Some("keep") => Ok(SenderPolicy::Keep),
        _ => value::mailbox(value).map(SenderPolicy::Fixed).map_err(|_| Wrong::is_not(value, "a sender", hint)),
    }
}

fn display_name(value: &DeValue<'_>) -> Result<DisplayName, Wrong> {
    let hint = "write \"keep\", or a text with {author_name}, {author}, {client} or {account} in it, such as \"{author_name} via {client}\"; \
                {{ and }} are braces";
    let Some(text) = value.as_str() else { return Err(Wrong::is_not(value, "a display name", hint)) };
    if text == "keep" {
        return Ok(DisplayName::default());
    }
    text.parse().map_err(|wrong| Wrong::because(value, wrong, hint))
}

/// Nothing can become an account's where there is none.
fn report_no_account(policy: Option<&At<SenderPolicy>>, route: &Route, accounts: &Accounts, findings: &Findings<'_>) {
    let Some(At { value: SenderPolicy::Account, place }) = policy else { return };
    let own = |account: &&AccountSettings| account.route == route.name;
    if accounts.settings.iter().find(own).is_some_and(|account| !accounts.is_written(&account.name)) {
        let found = format!("route \"{}\" has no account that its mail could come from", route.name);
        findings.problem(place, found, "write sender = \"keep\", or the one address that all its mail is to come from");
    }
}

/// High Volume Email has no Send As: mail in another name than the account's comes back.
fn warn_of_foreign_sender(policy: Option<&At<SenderPolicy>>, route: &Route, accounts: &[AccountSettings], findings: &Findings<'_>) {
    let Some(At { value, place }) = policy else { return };
    let mut on_route = accounts.iter().filter(|account| account.route == route.name);
    let written = match value {
        SenderPolicy::Account => return,
        SenderPolicy::Fixed(mailbox) if on_route.all(|account| account.name.as_str().eq_ignore_ascii_case(mailbox.as_str())) => return,
        SenderPolicy::Fixed(mailbox) => format!("\"{mailbox}\""),
        SenderPolicy::Keep => "\"keep\"".to_owned(),
    };
    if leads_to_hve(route) {
        let found =
            format!("{written} is not the account, and route \"{}\" leads to High Volume Email, which takes no other sender", route.name);
        warn(findings, place, found);
    }
}

fn warn(findings: &Findings<'_>, place: &Place, found: String) {
    findings.warning(place, found, "write sender = \"account\", or its mail is held back as refused (5.7.62)");
}

/// Whether the route's server is the service itself, or passes for it in a rehearsal.
fn leads_to_hve(route: &Route) -> bool {
    let name = route.server_name.to_str();
    [HVE_PREVIEW.host, HVE_GA.host].iter().any(|host| name.eq_ignore_ascii_case(host))
}
