//! Every table and key that a configuration may have, and the search for those that it may not.
//!
//! The table [`SCHEMA`] is the list that the reference configuration is tested against. A key that is not in it is a problem, told with the
//! nearest key that is, or with the table where a key of this name belongs: most unknown keys are typing errors or stand below the wrong header.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Findings, Place};

/// How often a table may stand in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The top of the file, before the first header.
    Top,
    /// `[name]`
    One,
    /// `[[name]]`
    Many,
}

/// One table of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Table {
    /// Its name, behind that of the table that it is in, if it is in one (`admin.user`); empty for the top of the file.
    pub name: &'static str,
    /// How often it may stand there.
    pub form: Form,
    /// Its keys.
    pub keys: &'static [&'static str],
}

const fn table(name: &'static str, form: Form, keys: &'static [&'static str]) -> Table {
    Table { name, form, keys }
}

/// What may be limited of an account or of the tenant.
const LIMITS: &[&str] = &[
    "recipients_per_day",
    "external_recipients_per_day",
    "external_per_minute",
    "external_per_minute_unit",
    "messages_per_minute",
    "minimum_pause",
    "day",
    "minute",
];

/// All that there is, in the order of the reference configuration.
pub const SCHEMA: &[Table] = &[
    table("", Form::Top, &["include", "data_dir", "control_socket", "hostname"]),
    table("tenant", Form::One, &["profile", "accepted_domains", "reserve"]),
    table("listener", Form::Many, &["address", "tls", "certificate_file", "key_file", "auth", "clients", "proxy_from"]),
    table(
        "client",
        Form::Many,
        &[
            "name",
            "networks",
            "allow_any_address",
            "allow_plaintext_auth",
            "priority",
            "may_choose_priority",
            "weight",
            "accounts",
            "affinity",
            "in_doubt",
            "route",
            "sender",
            "display_name",
            "dkim_signature",
            "allowed_senders",
            "allowed_recipients",
            "required_from_domain",
            "connections_per_minute",
            "messages_per_minute",
            "recipients_per_minute",
            "message_size",
            "line_endings",
            "ehlo_keywords_hidden",
            "notify",
        ],
    ),
    table("user", Form::Many, &["name", "password_hash", "client"]),
    table(
        "account",
        Form::Many,
        &[
            "address",
            "password_file",
            "password_credential",
            "password_env",
            "app",
            "connections",
            "route",
            "recipients_per_day",
            "external_recipients_per_day",
            "external_per_minute",
            "external_per_minute_unit",
            "messages_per_minute",
            "minimum_pause",
        ],
    ),
    table(
        "app",
        Form::Many,
        &[
            "name",
            "tenant_id",
            "client_id",
            "client_secret_file",
            "client_secret_credential",
            "client_secret_env",
            "client_secret_expires",
            "certificate_file",
            "key_file",
            "token_url",
            "scope",
            "renew_before",
            "tls_ca_file",
        ],
    ),
    table(
        "route",
        Form::Many,
        &[
            "name",
            "kind",
            "host",
            "port",
            "tls",
            "tls_ca_file",
            "tls_server_name",
            "client_certificate_file",
            "client_key_file",
            "takes",
            "clients",
            "size_over",
            "message_size",
            "recipients_per_delivery",
            "connections",
            "recipients_per_day",
            "external_recipients_per_day",
            "external_per_minute",
            "external_per_minute_unit",
            "messages_per_minute",
            "minimum_pause",
            "sender",
            "ehlo_keywords_ignored",
        ],
    ),
    table("sender", Form::One, &["display_name", "dkim_signature"]),
    table("reply", Form::Many, &["name", "match", "steps", "scope", "action", "for", "class", "limit", "advice"]),
    table("account_limits", Form::One, LIMITS),
    table("tenant_limits", Form::One, LIMITS),
    table(
        "limits",
        Form::One,
        &[
            "message_size",
            "recipients",
            "sessions",
            "sessions_per_address",
            "transactions",
            "command_line",
            "header_size",
            "errors",
            "commands_without_mail",
            "login_failures",
        ],
    ),
    table("timeouts", Form::One, &["command", "data", "handshake", "login"]),
    table(
        "upstream",
        Form::One,
        &[
            "recipients_per_delivery",
            "messages_per_connection",
            "idle",
            "age",
            "connect",
            "greeting",
            "command",
            "data",
            "block",
            "end_of_data",
        ],
    ),
    table("queue", Form::One, &["retry_min", "retry_max", "lifetime", "pause_min", "pause_max", "probe", "in_doubt", "free_space_reserve"]),
    table("history", Form::One, &["keep", "size", "price_per_million"]),
    table("notices", Form::One, &["delay_warning", "digest_interval", "per_hour", "operators", "alarm_delay", "queue_age_alarm"]),
    table("log", Form::One, &["format", "level", "levels", "redact", "file", "file_size", "file_age", "files_kept"]),
    table("admin", Form::One, &["listen", "certificate_file", "key_file", "names"]),
    table("admin.user", Form::Many, &["name", "password_hash"]),
    table("admin.token", Form::Many, &["name", "token_file", "token_credential", "token_env"]),
    table("shutdown", Form::One, &["grace"]),
];

/// Keys that people expect and that are refused on purpose: table, key, what to do.
const REFUSED: &[(&str, &str, &str, &str)] = &[
    (
        "account",
        "password",
        "a password does not belong in this file",
        "put it into a file that only the relay can read and write password_file = \"/etc/hve-relay/hve01.password\"",
    ),
    (
        "account",
        "auth",
        "an OAuth application has a table of its own, because several accounts share it",
        "write [[app]] with name = \"hve\" and what stands here, and app = \"hve\" with the account",
    ),
    (
        "app",
        "client_secret",
        "a secret does not belong in this file",
        "put it into a file that only the relay can read and write client_secret_file = \"/etc/hve-relay/app.secret\"",
    ),
    ("user", "password", "a password does not belong in this file", "run `hve-relay password` and write password_hash with what it prints"),
    (
        "admin.user",
        "password",
        "a password does not belong in this file",
        "run `hve-relay password` and write password_hash with what it prints",
    ),
    (
        "admin.token",
        "token",
        "a token does not belong in this file",
        "put it into a file that only the relay can read and write token_file = \"/etc/hve-relay/admin.token\"",
    ),
];

impl Table {
    /// As its header is written: `[tenant]`, `[[client]]`.
    pub fn header(&self) -> String {
        match self.form {
            Form::Top => "the top of the file".to_owned(),
            Form::One => format!("[{}]", self.name),
            Form::Many => format!("[[{}]]", self.name),
        }
    }
}

/// The table of that name, if there is one.
pub(super) fn find(name: &str) -> Option<&'static Table> {
    SCHEMA.iter().find(|table| table.name == name)
}

/// One table as written: its dotted path, where it stands, and what is in it.
pub(super) type Written<'t> = (String, usize, &'t DeTable<'t>);

/// The tables that stand under a name, whether they were written as `[name]`, `[[name]]` or inline; what is no table is left out.
pub(super) fn tables<'t>(name: &str, value: &'t Spanned<DeValue<'t>>) -> Vec<Written<'t>> {
    let many = find(name).is_some_and(|table| table.form == Form::Many);
    match value.get_ref() {
        DeValue::Table(table) => vec![(if many { format!("{name}[0]") } else { name.to_owned() }, value.span().start, table)],
        DeValue::Array(array) => array
            .iter()
            .enumerate()
            .filter_map(|(i, entry)| Some((format!("{name}[{i}]"), entry.span().start, entry.get_ref().as_table()?)))
            .collect(),
        _ => Vec::new(),
    }
}

/// Reports every key and table that is not in [`SCHEMA`].
pub(super) fn report_unknown(document: &DeTable<'_>, findings: &Findings<'_>) {
    for (key, value) in document {
        let name = key.get_ref().as_ref();
        match find(name).filter(|table| within(&SCHEMA[0], table.name).is_some()) {
            Some(table) => report_unknown_in(table, value, findings),
            None if SCHEMA[0].keys.contains(&name) => {}
            None => report(&SCHEMA[0], name, &Place { key: name.to_owned(), offset: key.span().start }, findings),
        }
    }
}

fn report_unknown_in(table: &Table, value: &Spanned<DeValue<'_>>, findings: &Findings<'_>) {
    for (path, _, entries) in tables(table.name, value) {
        for (key, value) in entries {
            let name = key.get_ref().as_ref();
            match find(&format!("{}.{name}", table.name)) {
                Some(inner) => report_unknown_in(inner, value, findings),
                None if table.keys.contains(&name) => {}
                None => report(table, name, &Place { key: format!("{path}.{name}"), offset: key.span().start }, findings),
            }
        }
    }
}

fn report(table: &Table, key: &str, place: &Place, findings: &Findings<'_>) {
    if let Some((.., found, hint)) = REFUSED.iter().find(|(name, refused, ..)| *name == table.name && *refused == key) {
        return findings.problem(place, *found, *hint);
    }
    let hint = match nearest(key, names(table)) {
        Some(near) => format!("did you mean {near:?}?"),
        None => match SCHEMA.iter().filter(|other| other.keys.contains(&key)).collect::<Vec<_>>().as_slice() {
            [] => format!("{} takes {}", table.header(), names(table).collect::<Vec<_>>().join(", ")),
            [top, ..] if top.form == Form::Top => "it belongs at the top of the file, before the first [table]".to_owned(),
            owners => format!("it belongs below {}", owners.iter().map(|owner| owner.header()).collect::<Vec<_>>().join(" or ")),
        },
    };
    findings.problem(place, "unknown key", hint);
}

/// What may stand in a table: its keys, and the tables that are in it.
fn names(table: &Table) -> impl Iterator<Item = &'static str> {
    table.keys.iter().copied().chain(SCHEMA.iter().filter_map(|inner| within(table, inner.name)))
}

/// A table's name as it is written within another one; none if it is not directly in that.
fn within(table: &Table, name: &'static str) -> Option<&'static str> {
    let rest = if table.form == Form::Top { name } else { name.strip_prefix(table.name)?.strip_prefix('.')? };
    Some(rest).filter(|rest| !rest.is_empty() && !rest.contains('.'))
}

/// Whether an unknown entry was probably meant to be this key or table: then it has been told already, and is not missing besides.
pub(super) fn is_misspelt(entries: &DeTable<'_>, table: &Table, key: &str) -> bool {
    let unknown = entries.keys().map(|entry| entry.get_ref().as_ref()).filter(|entry| names(table).all(|name| name != *entry));
    unknown.into_iter().any(|entry| nearest(entry, names(table)) == Some(key))
}

/// The candidate that a typing error most likely meant: at most a third of its letters wrong.
fn nearest<'c>(key: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let key = key.to_lowercase().replace('-', "_");
    candidates
        .map(|candidate| (distance(&key, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, remove, replace or swap with their neighbour to make one word of the other (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_letters_of_a_typing_error() {
        for (a, b, n) in [("", "", 0), ("", "abc", 3), ("adress", "address", 1), ("netwroks", "networks", 1), ("kitten", "sitting", 3)] {
            assert_eq!(distance(a, b), n, "{a} {b}");
            assert_eq!(distance(b, a), n, "{b} {a}");
        }
    }

    #[test]
    fn suggests_only_what_is_near() {
        let names = || ["name", "networks", "allow_any_address"].into_iter();
        for (key, near) in [
            ("network", Some("networks")),
            ("Networks", Some("networks")),
            ("nmae", Some("name")),
            ("allow-any-address", Some("allow_any_address")),
            ("host", None),
            ("x", None),
        ] {
            assert_eq!(nearest(key, names()), near, "{key}");
        }
    }

    #[test]
    fn no_table_and_no_key_stands_twice() {
        for (i, table) in SCHEMA.iter().enumerate() {
            assert!(SCHEMA[..i].iter().all(|other| other.name != table.name), "{}", table.name);
            for (j, key) in table.keys.iter().enumerate() {
                assert!(!table.keys[..j].contains(key), "{}.{key}", table.name);
            }
        }
    }
}
