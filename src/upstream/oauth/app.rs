//! What is configured of an OAuth application, and the address of a token endpoint.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use hyper::Uri;

use crate::clock::Timestamp;
use crate::mail::AppName;

/// An OAuth application: by whom, where and for what tokens are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    /// Its name in logs.
    pub name: AppName,
    /// The application (client) id in Entra.
    pub client_id: String,
    /// Whom it asks.
    pub token_url: TokenUrl,
    /// What it asks for.
    pub scope: String,
    /// How it proves who it is.
    pub proof: ClientProof,
    /// When its secret ends, if the operator has said so.
    pub secret_ends: Option<Timestamp>,
    /// How long before its end a token is renewed; of a token that lives shorter than twice that, half its life.
    pub renew_before: Duration,
    /// The authorities that the token endpoint's certificate may come from, in PEM form; none: those of the operating system.
    pub tls_ca_file: Option<PathBuf>,
    /// How long one request may take.
    pub time_limit: Duration,
    /// How long a fault that passes by itself is the answer to everybody who asks.
    pub remember_passing: Duration,
    /// The same for a refusal that the operator must act upon.
    pub remember_refusal: Duration,
}

impl ClientProof {
    /// What it is that ends one day, for an operator.
    pub fn what(&self) -> &'static str {
        match self {
            Self::Secret(_) => "client secret",
            Self::Certificate { .. } => "certificate",
        }
    }

    /// What an operator must do before it ends.
    pub fn renewal(&self) -> &'static str {
        match self {
            Self::Secret(_) => {
                "Make a new client secret in Entra, put its value in place of the old one, and write its end into client_secret_expires."
            }
            Self::Certificate { .. } => {
                "Make a new certificate, upload it to the application in Entra, and put it and its key in place of the old ones; a restart is not needed."
            }
        }
    }
}

/// How an application proves who it is. Secrets, certificates and keys are read anew for each request, so that they can be replaced while the
/// relay runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientProof {
    /// A client secret.
    Secret(SecretPlace),
    /// An assertion signed with the key of a certificate (RFC 7523).
    Certificate {
        /// The certificate, PEM.
        certificate: PathBuf,
        /// Its RSA key, PEM.
        key: PathBuf,
    },
}

/// Where a client secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretPlace {
    /// In a file that holds nothing else.
    File(PathBuf),
    /// In an environment variable.
    Variable(String),
}

/// The address of a token endpoint: `https`, a host, a path, and nothing that could be a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenUrl(Uri);

/// The text is not the address of a token endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the address of a token endpoint begins with https:// and has a host, perhaps a port, and a path, and no user, query or fragment")]
pub struct NotATokenUrl;

impl TokenUrl {
    /// The endpoint of a Microsoft Entra tenant, given by its id or by one of its domains.
    ///
    /// # Errors
    /// If the tenant has characters that cannot stand in a path as they are.
    pub fn of_tenant(tenant: &str) -> Result<Self, NotATokenUrl> {
        let plain = !tenant.is_empty() && tenant.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'));
        if plain { format!("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token").parse() } else { Err(NotATokenUrl) }
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.0
    }

    /// Its host, without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        self.0.host().unwrap_or_default().trim_matches(['[', ']'])
    }

    pub(super) fn port(&self) -> u16 {
        self.0.port_u16().unwrap_or(443)
    }
}

impl FromStr for TokenUrl {
    type Err = NotATokenUrl;

    fn from_str(text: &str) -> Result<Self, NotATokenUrl> {
        let uri: Uri = text.parse().map_err(|_| NotATokenUrl)?;
        let harmless = !text.contains(['@', '#', '?']);
        let whole = uri.scheme_str() == Some("https") && uri.host().is_some_and(|host| !host.is_empty());
        if harmless && whole { Ok(Self(uri)) } else { Err(NotATokenUrl) }
    }
}

/// As it was written.
impl fmt::Display for TokenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_https_addresses_without_credentials_and_no_other() {
        for good in
            ["https://login.microsoftonline.com/contoso.com/oauth2/v2.0/token", "https://127.0.0.1:8443/t/token", "https://[::1]:1/t"]
        {
            assert_eq!(good.parse::<TokenUrl>().map(|url| url.to_string()), Ok(good.to_owned()));
        }
        for bad in
            ["http://login.example/token", "login.example/token", "https://", "https://u:p@x/t", "https://x/t?a=b", "https://x/#", "/t", ""]
        {
            assert_eq!(bad.parse::<TokenUrl>(), Err(NotATokenUrl), "{bad}");
        }
        let url: TokenUrl = "https://[::1]:1/t".parse().expect("an address");
        assert_eq!((url.host(), url.port()), ("::1", 1));
    }

    #[test]
    fn a_tenant_has_its_own_address() {
        let url = TokenUrl::of_tenant("0f1e2d3c-0000-4000-8000-000000000000").expect("an address").to_string();
        assert_eq!(url, "https://login.microsoftonline.com/0f1e2d3c-0000-4000-8000-000000000000/oauth2/v2.0/token");
        for bad in ["", "a/b", "a?b", "a b", "common\u{fc}"] {
            assert_eq!(TokenUrl::of_tenant(bad), Err(NotATokenUrl), "{bad}");
        }
    }
}
