//! What the simulated endpoint is: its accounts, its offers, its limits, its pace.
//!
//! The defaults are HVE's of the preview as far as they are known; where they are not, what smtp.office365.com does.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::{Identity, Issuer};
use crate::secret::Secret;

/// All of it. `Settings { accounts, ..Settings::default() }` is the common way to make one.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it listens; port 0 takes a free one, see [`super::Sim::address`].
    pub listen: SocketAddr,
    /// What it calls itself in its greeting and its replies.
    pub hostname: String,
    /// The names in its certificate, where `identity` gives none.
    pub names: Vec<String>,
    /// Its certificate and the CA behind it; made at start if there is none.
    pub identity: Option<Identity>,
    /// How connections are protected.
    pub security: Security,
    /// The CA whose certificates its clients must show, in PEM form; none: they are asked for none.
    pub client_ca: Option<String>,
    /// Who may log in.
    pub accounts: Vec<Account>,
    /// Who issues the tokens that XOAUTH2 takes besides the accounts' own.
    pub issuer: Option<Issuer>,
    /// The tenant's domains; a recipient in any other is external.
    pub accepted_domains: Vec<String>,
    /// Internal recipients that do not exist: whole addresses, or the beginning of one and a `*`. Compared without regard to case.
    pub unknown_recipients: Vec<String>,
    /// In whose name an account may send.
    pub senders: Senders,
    /// What becomes of external recipients.
    pub profile: Profile,
    /// What each account may send.
    pub limits: Limits,
    /// What it offers after TLS besides SIZE and AUTH.
    pub extensions: Vec<Extension>,
    /// How one may log in; none: AUTH is not offered, and mail is taken without it.
    pub mechanisms: Vec<Mechanism>,
    /// The largest content in octets, as SIZE announces it (RFC 1870): not dot-stuffed, CRLF counted, the final dot not.
    pub size_limit: u64,
    /// Recipients of one message.
    pub max_recipients: usize,
    /// Each reply goes out so long after its command came in, as if the network were that slow: the replies to pipelined commands, which
    /// come together, also go together. Exact on average; a single one may be up to 2 ms off.
    pub delay: Duration,
    /// What is kept of each message.
    pub keep: Keep,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            hostname: "ic3-transport-smtp-lob-deployment-878945f44-7brv5".into(),
            names: ["smtp-hve.office365.com", "smtp.hve.mx.microsoft", "localhost", "127.0.0.1"].map(Into::into).into(),
            identity: None,
            security: Security::Required,
            client_ca: None,
            accounts: Vec::new(),
            issuer: None,
            accepted_domains: vec!["contoso.com".into()],
            unknown_recipients: vec!["nobody*".into(), "unknown*".into()],
            senders: Senders::Account,
            profile: Profile::Preview,
            limits: Limits::PREVIEW,
            extensions: vec![Extension::Pipelining, Extension::EnhancedStatusCodes, Extension::EightBitMime, Extension::SmtpUtf8],
            mechanisms: vec![Mechanism::Login, Mechanism::Xoauth2],
            size_limit: 10_485_760,
            max_recipients: 50,
            delay: Duration::ZERO,
            keep: Keep::All,
        }
    }
}

/// One HVE account.
#[derive(Debug, Clone)]
pub struct Account {
    /// Its address, which is its user name too. Compared without regard to case.
    pub user: String,
    /// For LOGIN and PLAIN.
    pub password: Secret,
    /// An access token that XOAUTH2 may show, whoever issued it.
    pub token: Option<Secret>,
}

impl Account {
    /// An account that logs in with a password.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: user.into(), password: Secret::new(password.into()), token: None }
    }
}

/// The two eras of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// External recipients are taken, within the account's budgets.
    Preview,
    /// General availability: external recipients are refused, `550 5.5.105`.
    Ga,
}

/// How connections are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// STARTTLS comes before anything else, as HVE has it.
    Required,
    /// STARTTLS is offered, and mail is taken without it too.
    Offered,
    /// TLS from the first octet.
    Implicit,
    /// There is no TLS.
    None,
}

/// In whose name an account may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Senders {
    /// Its own: MAIL FROM and the header's From are the account.
    Account,
    /// Anybody's, as with other smarthosts and Exchange's connectors.
    Anybody,
}

/// So much within any window of this length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// How much.
    pub count: u64,
    /// What was used at time *t* counts until *t* + window, and from then on no more.
    pub window: Duration,
}

/// The budgets of each account; `None` is without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Recipients: 100,000 in 24 hours.
    pub recipients: Option<Limit>,
    /// Messages that have an external recipient: 10 in a minute. The sources disagree about what is counted, see `external_unit`.
    pub external_messages: Option<Limit>,
    /// What `external_messages` counts.
    pub external_unit: ExternalUnit,
    /// External recipients: 2,000 in 24 hours.
    pub external_recipients: Option<Limit>,
    /// Connections that are logged in at once. Not documented for HVE.
    pub connections: Option<usize>,
}

impl Limits {
    /// None at all.
    pub const NONE: Self = Self {
        recipients: None,
        external_messages: None,
        external_unit: ExternalUnit::Messages,
        external_recipients: None,
        connections: None,
    };
    /// Those of the preview.
    pub const PREVIEW: Self = Self {
        recipients: Some(Limit { count: 100_000, window: DAY }),
        external_messages: Some(Limit { count: 10, window: Duration::from_secs(60) }),
        external_unit: ExternalUnit::Messages,
        external_recipients: Some(Limit { count: 2_000, window: DAY }),
        connections: None,
    };
}

/// What the limit of external mail in a minute counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExternalUnit {
    /// A message that has external recipients, once.
    Messages,
    /// Each external recipient.
    Recipients,
}

const DAY: Duration = Duration::from_secs(86_400);

/// What may be offered after TLS. What is not offered is refused where it is used all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extension {
    /// RFC 2920.
    Pipelining,
    /// RFC 3461; its parameters are accepted and shown.
    Dsn,
    /// RFC 2034. The replies have enhanced codes in any case, as Exchange's do.
    EnhancedStatusCodes,
    /// RFC 6152.
    EightBitMime,
    /// RFC 6531.
    SmtpUtf8,
    /// RFC 3030; without BINARYMIME, so that lines end with CRLF behind BDAT too.
    Chunking,
}

impl Extension {
    /// Its EHLO keyword.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Pipelining => "PIPELINING",
            Self::Dsn => "DSN",
            Self::EnhancedStatusCodes => "ENHANCEDSTATUSCODES",
            Self::EightBitMime => "8BITMIME",
            Self::SmtpUtf8 => "SMTPUTF8",
            Self::Chunking => "CHUNKING",
        }
    }
}

/// A SASL mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// User name and password, each asked for.
    Login,
    /// RFC 4616.
    Plain,
    /// A bearer token.
    Xoauth2,
}

impl Mechanism {
    /// Its SASL name.
    pub fn keyword(self) -> &'static str {
        match self {
            Self::Login => "LOGIN",
            Self::Plain => "PLAIN",
            Self::Xoauth2 => "XOAUTH2",
        }
    }
}

/// What is kept of a message that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// It is counted, no more: for benchmarks.
    Nothing,
    /// Its envelope, its size and its hash.
    Hash,
    /// These and its content.
    All,
}
