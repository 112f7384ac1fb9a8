//! What is known about the two eras of High Volume Email, as the values that a configuration starts from.

use crate::mail::Class;

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
}

/// 2024 to early 2026: 2,000 external recipients a day for each account.
pub static HVE_PREVIEW: Profile = Profile {
    name: "hve-preview",
    host: "smtp-hve.office365.com",
    port: 587,
    message_size: 10_485_760,
    recipients_per_delivery: 50,
    accounts: 20,
    takes: &[Class::Internal, Class::External],
};

/// Since the end of March 2026: general availability, metered, inside the tenant only (`550 5.5.105`).
pub static HVE_GA: Profile = Profile {
    name: "hve-ga",
    host: "smtp.hve.mx.microsoft",
    port: 587,
    message_size: 10_485_760,
    recipients_per_delivery: 50,
    accounts: 100,
    takes: &[Class::Internal],
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
