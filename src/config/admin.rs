//! The web page and the HTTP interface: `[admin]`, with `[[admin.user]]` and `[[admin.token]]`.

use std::net::{Ipv4Addr, SocketAddr};

use super::inbound::unique;
use super::listener;
use super::password::{self, TOKEN};
use super::problem::{At, Findings};
use super::reader::{Document, Section};
use super::{user, value};
use crate::intake::PasswordHash;
use crate::secret::Secret;
use crate::session::Tls;
use crate::tls::CertificateFiles;

/// Where the page is if nothing else is said.
const DEFAULT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8025);
/// Characters of a token, at least: enough of them cannot be guessed, however they were chosen.
const SHORTEST_TOKEN: usize = 20;

/// See the head of this file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// Where to listen: all addresses of the name that was written, or none.
    pub listen: Vec<SocketAddr>,
    /// Somebody has written that. If not, the relay carries mail without its page where it cannot have the address.
    pub is_written: bool,
    /// What it shows; always there if it listens beyond loopback.
    pub certificate: Option<CertificateFiles>,
    /// The names under which browsers may ask for it, besides addresses and `localhost`, in lower case.
    pub names: Vec<String>,
    /// Who may log in.
    pub users: Vec<AdminUser>,
    /// What programs may show, each with the name that the log gives it.
    pub tokens: Vec<(String, Secret)>,
}

/// One `[[admin.user]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminUser {
    /// Its name; case does not count.
    pub name: String,
    /// What its password is verified against.
    pub password: PasswordHash,
}

/// Where nothing else is said, it may be asked by the relay's own name.
pub(super) fn admin(document: &Document<'_>, findings: &Findings<'_>, hostname: &str) -> Admin {
    let section = document.one("admin");
    section.note("listen", DEFAULT.to_string(), "where it can be had, default");
    section.note("names", vec![hostname], "the hostname");
    let written = section.get("listen", listen);
    let names = section.list("names", value::host_name, "names = [\"relay.contoso.com\"], or leave it out");
    let with_tls = ["certificate_file", "key_file"].into_iter().any(|key| section.has(key));
    let certificate = listener::certificate(&section, findings, if with_tls { Tls::Implicit } else { Tls::None });
    let admin = Admin {
        is_written: written.is_some(),
        certificate,
        names: match names {
            Some(names) => names.value.into_iter().map(|name| name.value.to_lowercase()).collect(),
            None => vec![hostname.to_lowercase()],
        },
        users: users(document, findings),
        tokens: tokens(document, findings),
        listen: written.as_ref().map_or_else(|| vec![DEFAULT], |written| written.value.clone()),
    };
    if let Some(At { value, place }) = &written
        && let Some(open) = value.iter().find(|address| !address.ip().is_loopback())
    {
        if !with_tls {
            let hint = "write certificate_file below [admin], or listen on 127.0.0.1 alone";
            findings.problem(place, format!("{open} can be reached from other machines, and there is no TLS"), hint);
        }
        if !document.has("admin.user") && !document.has("admin.token") {
            let hint = "add an [[admin.user]] with what `hve-relay password` prints, or listen on 127.0.0.1 alone";
            findings.problem(place, format!("{open} can be reached from other machines, and nobody can log in"), hint);
        }
    }
    admin
}

/// Where to listen, or `"none"`.
fn listen(value: &toml::de::DeValue<'_>) -> Result<Vec<SocketAddr>, value::Wrong> {
    match value.as_str() {
        Some("none") => Ok(Vec::new()),
        _ => value::listen(value).map_err(|wrong| value::Wrong {
            hint: "write an address and a port, such as \"127.0.0.1:8025\", or \"none\" for no page at all".to_owned(),
            ..wrong
        }),
    }
}

fn users(document: &Document<'_>, findings: &Findings<'_>) -> Vec<AdminUser> {
    let mut names: Vec<At<String>> = Vec::new();
    let mut users = Vec::new();
    for section in document.many("admin.user") {
        let name = named(&section, findings, &mut names, "name = \"anna\"");
        // Who has written the password itself was told so, and what to write instead.
        let password = match section.has("password") && !section.has("password_hash") {
            true => None,
            false => section.need("password_hash", user::hash, "password_hash = \"...\", with what `hve-relay password` prints"),
        };
        if let (Some(name), Some(password)) = (name, password) {
            users.push(AdminUser { name, password: password.value });
        }
    }
    users
}

fn tokens(document: &Document<'_>, findings: &Findings<'_>) -> Vec<(String, Secret)> {
    let mut names: Vec<At<String>> = Vec::new();
    let mut tokens = Vec::new();
    for section in document.many("admin.token") {
        let name = named(&section, findings, &mut names, "name = \"monitoring\"");
        let Some((_, token)) = password::read(&section, findings, TOKEN) else { continue };
        if token.expose().chars().count() < SHORTEST_TOKEN {
            let hint = "make one with: openssl rand -base64 30";
            let key = ["token_credential", "token_env"].into_iter().find(|key| section.has(key)).unwrap_or("token_file");
            findings.problem(&section.place_of(key), format!("the token has less than {SHORTEST_TOKEN} characters"), hint);
        }
        tokens.extend(name.map(|name| (name, token)));
    }
    tokens
}

/// The name of a user or a token, which no other has.
fn named(section: &Section<'_>, findings: &Findings<'_>, names: &mut Vec<At<String>>, hint: &str) -> Option<String> {
    let At { value, place } = section.need("name", user::name, hint)?;
    let name = At { value: value.to_lowercase(), place };
    unique(&name, names, findings);
    names.push(name);
    Some(value)
}
