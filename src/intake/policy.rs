//! Who is served, what its recipients are, and in which deliveries they travel.
//!
//! [`Policy`] is built once from [`Settings`] and then only asked. A peer is a client if one of the client's networks holds its address; the
//! longest such network decides, and of two equal ones the first that was written. Without a client nobody is served. A recipient is internal
//! if its domain is one of the accepted domains, exactly: a subdomain is another domain.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{ClientSettings, Settings};
use crate::clock::Timestamp;
use crate::mail::{Class, Delivery, DeliveryId, QueueId, Recipient, RouteName};
use crate::smtp::{AddressError, EnhancedStatus, Mailbox, Reply};

/// The policy in force.
#[derive(Debug, Clone)]
pub struct Policy {
    settings: Settings,
    /// Every client's networks, the longest first, with the client's place in the settings.
    networks: Vec<(IpNet, usize)>,
    domains: HashSet<String>,
}

impl Policy {
    /// The policy that the settings mean.
    pub fn new(settings: Settings) -> Self {
        let mut networks: Vec<(IpNet, usize)> =
            settings.clients.iter().enumerate().flat_map(|(i, client)| client.networks.iter().map(move |network| (*network, i))).collect();
        networks.sort_by_key(|(network, _)| std::cmp::Reverse(network.prefix_len()));
        let domains = settings.accepted_domains.iter().map(|domain| canonical(domain)).collect();
        Self { settings, networks, domains }
    }

    /// The client that a peer's address belongs to, if any. An IPv4 address in IPv6 clothes counts as the IPv4 address.
    pub fn client(&self, peer: IpAddr) -> Option<&ClientSettings> {
        let peer = peer.to_canonical();
        let (_, i) = self.networks.iter().find(|(network, _)| network.contains(&peer))?;
        self.settings.clients.get(*i)
    }

    /// Whether a mailbox is in the tenant.
    pub fn class(&self, mailbox: &Mailbox) -> Class {
        if self.domains.contains(&canonical(mailbox.domain())) { Class::Internal } else { Class::External }
    }

    /// The class of a recipient that can be sent to.
    ///
    /// # Errors
    /// The refusal for one that no route takes; it names the settings that would change that.
    pub fn recipient(&self, mailbox: &Mailbox) -> Result<Class, Reply> {
        let class = self.class(mailbox);
        if self.route(class).is_some() {
            return Ok(class);
        }
        let text = match class {
            Class::Internal => format!("<{mailbox}> is internal and no route takes internal recipients: add a [[route]] that does"),
            Class::External => format!(
                "<{mailbox}> is external and no route takes external recipients (High Volume Email sends inside the tenant only): \
                 add a [[route]] that does, or, if {} is yours, add it to accepted_domains",
                mailbox.domain()
            ),
        };
        Err(Reply::new(550, EnhancedStatus::new(5, 7, 1), text))
    }

    /// Adds the first accepted domain to a local part that came without one.
    ///
    /// # Errors
    /// If the whole is not a mailbox.
    pub fn qualify(&self, local_part: &str) -> Result<Mailbox, AddressError> {
        let domain = self.settings.accepted_domains.first().ok_or(AddressError::NoDomain)?;
        format!("{local_part}@{domain}").parse()
    }

    /// The deliveries of a message: recipients of one class travel together, in the order in which they were given, up to the number that a
    /// delivery may have. Each recipient is in exactly one of them.
    ///
    /// A class whose route is gone goes the other class's way, so that nothing that was accepted is without a delivery; that cannot happen
    /// as long as the policy that splits is the one that accepted.
    pub fn split(&self, recipients: Vec<(Mailbox, Class)>, id: QueueId, now: Timestamp) -> Vec<Delivery> {
        let most = self.settings.recipients_per_delivery.clamp(1, usize::from(u16::MAX));
        let any = self.settings.internal_route.as_ref().or(self.settings.external_route.as_ref());
        let mut deliveries: Vec<Delivery> = Vec::new();
        // For each class the delivery that still has room.
        let mut open: [Option<usize>; 2] = [None, None];
        for (address, class) in recipients {
            let slot = &mut open[class as usize];
            let with_room = slot.filter(|i| deliveries[*i].recipients.len() < most);
            let i = with_room.unwrap_or(deliveries.len());
            *slot = Some(i);
            if i == deliveries.len() {
                let Some(route) = self.route(class).or(any) else { break };
                let part = u16::try_from(i + 1).unwrap_or(u16::MAX);
                let id = DeliveryId { message: id, part };
                deliveries.push(Delivery { id, route: route.clone(), class, recipients: Vec::new(), attempts: 0, due: now });
            }
            let recipients = &mut deliveries[i].recipients;
            recipients.push(Recipient { ordinal: recipients.len() as u16, address });
        }
        deliveries
    }

    fn route(&self, class: Class) -> Option<&RouteName> {
        match class {
            Class::Internal => self.settings.internal_route.as_ref(),
            Class::External => self.settings.external_route.as_ref(),
        }
    }
}

/// A domain as it is compared: in lower case, without the root's dot.
fn canonical(domain: &str) -> String {
    domain.strip_suffix('.').unwrap_or(domain).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::ClientName;

    fn client(name: &str, networks: &[&str]) -> ClientSettings {
        let networks = networks.iter().map(|network| network.parse().expect("a network")).collect();
        ClientSettings { name: ClientName::new(name), networks }
    }

    fn policy() -> Policy {
        Policy::new(Settings {
            accepted_domains: vec!["contoso.com".to_owned(), "Müller.example".to_owned()],
            clients: vec![
                client("everything", &["10.0.0.0/8", "2001:db8::/32"]),
                client("erp", &["10.20.0.0/16", "10.20.30.40/32"]),
                client("printer", &["10.20.30.0/24"]),
            ],
            internal_route: Some(RouteName::new("hve")),
            external_route: Some(RouteName::new("connector")),
            recipients_per_delivery: 2,
            ..Settings::default()
        })
    }

    fn mailbox(text: &str) -> Mailbox {
        text.parse().expect(text)
    }

    #[test]
    fn the_longest_network_decides() {
        let policy = policy();
        for (peer, name) in [
            ("10.1.1.1", Some("everything")),
            ("10.20.1.1", Some("erp")),
            ("10.20.30.1", Some("printer")),
            ("10.20.30.40", Some("erp")),
            ("::ffff:10.20.30.1", Some("printer")),
            ("2001:db8::7", Some("everything")),
            ("11.0.0.1", None),
            ("::1", None),
            ("127.0.0.1", None),
        ] {
            let client = policy.client(peer.parse().expect("an address"));
            assert_eq!(client.map(|client| client.name.as_str()), name, "{peer}");
        }
    }

    #[test]
    fn without_a_client_nobody_is_served() {
        assert!(Policy::new(Settings::default()).client("127.0.0.1".parse().expect("an address")).is_none());
    }

    #[test]
    fn internal_is_an_accepted_domain_exactly() {
        let policy = policy();
        for (address, class) in [
            ("a@contoso.com", Class::Internal),
            ("a@CONTOSO.com", Class::Internal),
            ("a@contoso.com.", Class::Internal),
            ("a@MÜLLER.example", Class::Internal),
            ("a@sub.contoso.com", Class::External),
            ("a@contoso.com.evil.example", Class::External),
            ("a@notcontoso.com", Class::External),
            ("a@[10.0.0.1]", Class::External),
        ] {
            assert_eq!(policy.class(&mailbox(address)), class, "{address}");
        }
    }

    #[test]
    fn refuses_what_no_route_takes_and_says_what_to_change() {
        let mut policy = policy();
        assert_eq!(policy.recipient(&mailbox("a@example.org")), Ok(Class::External));
        policy.settings.external_route = None;
        assert_eq!(policy.recipient(&mailbox("a@contoso.com")), Ok(Class::Internal));
        let refusal = policy.recipient(&mailbox("a@example.org")).expect_err("refused").to_string();
        assert!(refusal.starts_with("550 5.7.1 <a@example.org> is external"), "{refusal}");
        assert!(refusal.contains("[[route]]") && refusal.contains("accepted_domains"), "{refusal}");
    }

    #[test]
    fn qualifies_with_the_first_domain() {
        assert_eq!(policy().qualify("scanner"), Ok(mailbox("scanner@contoso.com")));
        assert_eq!(policy().qualify("a scanner"), Err(AddressError::BadCharacter));
        assert_eq!(Policy::new(Settings::default()).qualify("scanner"), Err(AddressError::NoDomain));
    }

    #[test]
    fn splits_by_class_and_number_and_loses_nobody() {
        let policy = policy();
        let addresses = ["1@contoso.com", "2@x.example", "3@contoso.com", "4@contoso.com", "5@y.example", "6@x.example"];
        let recipients = addresses.iter().map(|text| (mailbox(text), policy.class(&mailbox(text)))).collect();
        let id = QueueId::from_number(7).expect("positive");
        let deliveries = policy.split(recipients, id, Timestamp::from_millis(5));
        let shown: Vec<_> = deliveries
            .iter()
            .map(|delivery| {
                let recipients: Vec<_> = delivery.recipients.iter().map(|r| format!("{}:{}", r.ordinal, r.address.local_part())).collect();
                format!("{} {} {} {}", delivery.id.part, delivery.route, delivery.class, recipients.join(" "))
            })
            .collect();
        assert_eq!(shown, ["1 hve internal 0:1 1:3", "2 connector external 0:2 1:5", "3 hve internal 0:4", "4 connector external 0:6"]);
        assert!(deliveries.iter().all(|d| d.id.message == id && d.due == Timestamp::from_millis(5) && d.attempts == 0));
        assert_eq!(policy.split(Vec::new(), id, Timestamp::default()), []);
    }
}
