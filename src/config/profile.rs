//! What is known about the two eras of High Volume Email and about other servers that mail can go to, as the values that a configuration starts
//! from.

use crate::{
    budget::{Limits, Unit},
    mail::{Class, SenderPolicy},
};

/// One era of the service: its endpoint and its limits.
#[derive(Debug, PartialEq, Eq)]
pub struct Profile {
    /// As it stands in the configuration.
    pub name: &'static str,
    /// The endpoint's name, which is also its certificate's.
    pub host: &'static str,
    /// The endpoint's port.
    pub port: u16,
    /// The largest message in octets, as the endpoint's EHLO announces it.
    pub message_size: u64,
    /// Recipients in one transaction.
    pub recipients_per_delivery: usize,
    /// Accounts in one tenant.
    pub accounts: usize,
    /// The classes of recipients that its accounts may send to.
    pub takes: &'static [Class],
    /// What one account may send.
    pub account_limits: Limits,
    /// What all accounts together may send.
    pub tenant_limits: Limits,
}

/// 2024 to early 2026. Recipients a day are told of the tenant by some sources and of the account by others, so both are limited; of what is
/// counted in a minute, messages with external recipients or these recipients, the service's own texts say the former.
pub static HVE_PREVIEW: Profile = Profile {
    name: "hve-preview",
    host: "smtp-hve.office365.com",
    port: 587,
    message_size: 10_485_760,
    recipients_per_delivery: 50,
    accounts: 20,
    takes: &[Class::Internal, Class::External],
    account_limits: Limits {
        recipients_per_day: Some(100_000),
        external_recipients_per_day: Some(2_000),
        external_per_minute: Some((10, Unit::Messages)),
        ..Limits::NONE
    },
    tenant_limits: Limits { recipients_per_day: Some(100_000), ..Limits::NONE },
};

/// Since the end of March 2026: general availability, metered, inside the tenant only (`550 5.5.105`). No limit of a rate or of a day is
/// documented.
pub static HVE_GA: Profile = Profile {
    name: "hve-ga",
    host: "smtp.hve.mx.microsoft",
    port: 587,
    message_size: 10_485_760,
    recipients_per_delivery: 50,
    accounts: 100,
    takes: &[Class::Internal],
    account_limits: Limits::NONE,
    tenant_limits: Limits::NONE,
};

/// What is known of a route's server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// High Volume Email, as the tenant's profile has it.
    Hve,
    /// Client submission of Exchange Online.
    Office365,
    /// An SMTP relay connector of the tenant: it knows the relay by its address or its certificate.
    Connector,
    /// Any other server.
    Smarthost,
}

impl Kind {
    /// Every kind, as it is written in a configuration.
    pub const WORDS: &'static [(&'static str, Self)] =
        &[("hve", Self::Hve), ("office365", Self::Office365), ("connector", Self::Connector), ("smarthost", Self::Smarthost)];

    /// How its host is written, where it has none by itself.
    pub(super) fn host_hint(self) -> &'static str {
        match self {
            Self::Connector => "host = \"contoso-com.mail.protection.outlook.com\", the MX of your domain",
            _ => "host = \"smtp.example.net\"",
        }
    }
}

/// The values that a route of a kind starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    /// As messages call it.
    pub name: &'static str,
    /// Its name, if it has the same everywhere.
    pub host: Option<&'static str>,
    pub port: u16,
    pub takes: &'static [Class],
    pub message_size: u64,
    pub recipients_per_delivery: usize,
    /// Connections of an account at a time.
    pub connections: usize,
    /// What an account may send; of HVE's that stands in `[account_limits]`.
    pub limits: Limits,
    /// What becomes of senders.
    pub sender: SenderPolicy,
}

const BOTH: &[Class] = &[Class::Internal, Class::External];
/// Of servers that document no limit: others of the kind allow few.
const CONNECTIONS: usize = 4;
/// What Exchange Online lets a mailbox send unless its administrator allows more: MaxSendSize, 35 MB. It announces SIZE 157286400.
const EXCHANGE_SIZE: u64 = 35 << 20;

impl Service {
    pub fn of(kind: Kind, profile: &Profile) -> Self {
        match kind {
            Kind::Hve => Self {
                name: profile.name,
                host: Some(profile.host),
                port: profile.port,
                takes: profile.takes,
                message_size: profile.message_size,
                recipients_per_delivery: profile.recipients_per_delivery,
                connections: CONNECTIONS,
                limits: profile.account_limits.clone(),
                sender: SenderPolicy::Account,
            },
            // "Exchange Online limits": 3 connections, 30 messages a minute, 10,000 recipients a day; RecipientLimits is 500 by default.
            Kind::Office365 => Self {
                name: "smtp.office365.com",
                host: Some("smtp.office365.com"),
                port: 587,
                takes: BOTH,
                message_size: EXCHANGE_SIZE,
                recipients_per_delivery: 500,
                connections: 3,
                limits: Limits { recipients_per_day: Some(10_000), messages_per_minute: Some(30), ..Limits::NONE },
                sender: SenderPolicy::Account,
            },
            // Microsoft documents "reasonable limits" and no numbers. 100 recipients: RFC 5321 §4.5.3.1.8.
            Kind::Connector => Self {
                name: "a connector",
                host: None,
                port: 25,
                takes: BOTH,
                message_size: EXCHANGE_SIZE,
                recipients_per_delivery: 100,
                connections: CONNECTIONS,
                limits: Limits::NONE,
                sender: SenderPolicy::Keep,
            },
            // Of a server of which nothing is known: the message_size_limit that Postfix comes with.
            Kind::Smarthost => Self {
                name: "a smarthost",
                host: None,
                port: 587,
                takes: BOTH,
                message_size: 10_240_000,
                recipients_per_delivery: 100,
                connections: CONNECTIONS,
                limits: Limits::NONE,
                sender: SenderPolicy::Keep,
            },
        }
    }
}

/// For the configuration: what may be written, and what it means.
pub(super) const PROFILES: &[(&str, &Profile)] = &[("hve-preview", &HVE_PREVIEW), ("hve-ga", &HVE_GA)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_by_its_own_name() {
        for (word, profile) in PROFILES {
            assert_eq!(*word, profile.name);
        }
    }
}
