//! What is known about the two eras of High Volume Email, as the values that a configuration starts from.

use crate::{
    budget::{Limits, Unit},
    mail::Class,
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
