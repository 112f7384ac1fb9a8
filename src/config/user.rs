//! Who may log in: `[[user]]`.

use std::collections::BTreeSet;

use toml::de::DeValue;

use super::inbound::unique;
use super::problem::{At, Findings};
use super::reader::Document;
use super::value::{self, Wrong};
use crate::intake::{HashError, PasswordHash, UserSettings};
use crate::mail::ClientName;

/// The users; each sends as one of the `clients`.
pub(super) fn users(document: &Document<'_>, findings: &Findings<'_>, clients: &BTreeSet<String>) -> Vec<UserSettings> {
    let mut names: Vec<At<String>> = Vec::new();
    let mut users = Vec::new();
    for section in document.many("user") {
        let name = section.need("name", name, "name = \"erp\"");
        if let Some(name) = &name {
            // Case does not count when somebody logs in, so neither does it here.
            unique(&At { value: name.value.to_lowercase(), place: name.place.clone() }, &names, findings);
        }
        // Who has written the password itself was told so, and what to write instead.
        let password = match section.has("password") && !section.has("password_hash") {
            true => None,
            false => section.need("password_hash", hash, "password_hash = \"...\", with what `hve-relay password` prints"),
        };
        let client = section.need("client", value::name, "client = \"devices\", the [[client]] as which the user sends");
        if let Some(client) = client.as_ref().filter(|client| !clients.contains(&client.value)) {
            findings.problem(
                &client.place,
                format!("\"{}\" is not a client", client.value),
                "write the name of a [[client]], or add one with it",
            );
        }
        if let (Some(name), Some(password), Some(client)) = (&name, password, client) {
            users.push(UserSettings { name: name.value.clone(), password: password.value, client: ClientName::new(client.value) });
        }
        names.extend(name.map(|name| At { value: name.value.to_lowercase(), place: name.place }));
    }
    users
}

/// The clients that users send as, as written.
pub(super) fn clients_with_users(document: &Document<'_>) -> BTreeSet<String> {
    document.many("user").iter().filter_map(|section| section.get("client", value::name)).map(|client| client.value).collect()
}

/// What a device may be set to: names, numbers, mail addresses.
pub(super) fn name(value: &DeValue<'_>) -> Result<String, Wrong> {
    let fits = |text: &&str| (1..=255).contains(&text.chars().count()) && !text.chars().any(|c| c.is_control() || c.is_whitespace());
    value
        .as_str()
        .filter(fits)
        .map(str::to_owned)
        .ok_or_else(|| Wrong::is_not(value, "the name of a user", "write up to 255 characters without blanks, such as \"erp\""))
}

/// A hash; the value is not shown, because it may be the password itself.
pub(super) fn hash(value: &DeValue<'_>) -> Result<PasswordHash, Wrong> {
    let hint = "write what `hve-relay password` prints".to_owned();
    let text = value.as_str().ok_or(HashError::Malformed);
    text.and_then(PasswordHash::parse)
        .map_err(|error| Wrong { found: format!("the value (not shown: it may be the password itself) is {error}"), hint })
}
