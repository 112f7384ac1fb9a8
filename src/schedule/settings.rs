//! What the scheduler keeps to.

use std::time::Duration;

use crate::budget::{Limits, Share};
use crate::mail::{AccountName, AppName, ClientName, RouteName};

/// The scheduler's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The accounts, in the configuration's order; at most [`ACCOUNTS_MAX`].
    pub accounts: Vec<AccountSettings>,
    /// What all accounts together may send.
    pub tenant: Limits,
    /// The routes whose accounts are no part of that: they lead to other servers.
    pub apart: Vec<RouteName>,
    /// The clients; one that is queued and not here any more has the defaults of [`ClientSettings::new`].
    pub clients: Vec<ClientSettings>,
    /// The share of each day's budget that only mail of high priority may use.
    pub reserve: Share,
    /// Back-off after the first deferral; it doubles with each further one.
    pub retry_min: Duration,
    /// The longest back-off.
    pub retry_max: Duration,
    /// A message older than this is given up (RFC 5321 §4.5.4.1: at least 4 to 5 days).
    pub lifetime: Duration,
    /// First and longest pause of an account or endpoint in passing trouble.
    pub pause_min: Duration,
    /// See `pause_min`.
    pub pause_max: Duration,
    /// How often a suspended account is tried.
    pub probe: Duration,
    /// What becomes of mail in doubt, where its client says nothing else.
    pub in_doubt: OnDoubt,
}

impl Settings {
    /// What becomes of a client's mail in doubt.
    pub fn in_doubt(&self, client: &ClientName) -> OnDoubt {
        self.clients.iter().find(|settings| settings.name == *client).and_then(|settings| settings.in_doubt).unwrap_or(self.in_doubt)
    }
}

/// What becomes of mail that the upstream server may have although it did not say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDoubt {
    /// It is sent again: nothing is lost, and something may come twice.
    #[default]
    Resend,
    /// It is held until an operator has found out.
    Hold,
}

impl OnDoubt {
    /// Both, as they are written in a configuration.
    pub const WORDS: &'static [(&'static str, Self)] = &[("resend", Self::Resend), ("hold", Self::Hold)];
}

/// The most accounts that one scheduler can hold: a set of them is a word of 128 bits. HVE allows 100.
pub const ACCOUNTS_MAX: usize = 128;

/// One account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountSettings {
    /// Its address.
    pub name: AccountName,
    /// The route whose endpoint it logs in at.
    pub route: RouteName,
    /// The OAuth application that it logs in with; none: it has a password of its own, or no login.
    pub app: Option<AppName>,
    /// Connections at a time.
    pub connections: usize,
    /// What it may send.
    pub limits: Limits,
}

/// How a client's mail is treated beside that of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// Its name.
    pub name: ClientName,
    /// Its share among the clients of the same priority, at least 1.
    pub weight: u32,
    /// The accounts that its mail may go through; none: all.
    pub accounts: Option<Vec<AccountName>>,
    /// What keeps to one account as long as that one can go on.
    pub affinity: Affinity,
    /// What becomes of its mail in doubt; none: what becomes of all.
    pub in_doubt: Option<OnDoubt>,
}

/// What keeps to one account as long as that one can go on, so that recipients see the same sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affinity {
    /// All mail of the client.
    Client,
    /// All mail of one author.
    Author,
    /// Nothing: the account with the most left is taken.
    None,
}

impl Affinity {
    /// Every kind, as it is written in a configuration.
    pub const WORDS: &'static [(&'static str, Self)] = &[("client", Self::Client), ("author", Self::Author), ("none", Self::None)];
}

impl ClientSettings {
    /// A client of which only the name is known.
    pub fn new(name: ClientName) -> Self {
        Self { name, weight: 1, accounts: None, affinity: Affinity::Client, in_doubt: None }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            accounts: Vec::new(),
            tenant: Limits::default(),
            apart: Vec::new(),
            clients: Vec::new(),
            reserve: Share::NONE,
            retry_min: Duration::from_secs(60),
            retry_max: Duration::from_secs(3_600),
            lifetime: Duration::from_secs(5 * 86_400),
            pause_min: Duration::from_secs(5),
            pause_max: Duration::from_secs(600),
            probe: Duration::from_secs(1_200),
            in_doubt: OnDoubt::default(),
        }
    }
}
