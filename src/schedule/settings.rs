//! What the scheduler keeps to.

use std::time::Duration;

use crate::mail::{AccountName, RouteName};

/// The scheduler's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The accounts, in the configuration's order.
    pub accounts: Vec<AccountSettings>,
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
}

/// One account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountSettings {
    /// Its address.
    pub name: AccountName,
    /// The route whose endpoint it logs in at.
    pub route: RouteName,
    /// Connections at a time.
    pub connections: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            accounts: Vec::new(),
            retry_min: Duration::from_secs(60),
            retry_max: Duration::from_secs(3_600),
            lifetime: Duration::from_secs(5 * 86_400),
            pause_min: Duration::from_secs(5),
            pause_max: Duration::from_secs(600),
            probe: Duration::from_secs(1_200),
        }
    }
}
