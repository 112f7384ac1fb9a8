//! Who is served, what its recipients are, and in which deliveries they travel.
//!
//! [`Policy`] is built once from [`Settings`] and then only asked. A peer is a client if one of the client's networks holds its address; the
//! longest such network decides, and of two equal ones the first that was written. Without a client nobody is served. A recipient is internal
//! if its domain is one of the accepted domains, exactly: a subdomain is another domain. The priority of a message is its client's, or the one
//! that its header asks for where the client lets it.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{ClientSettings, Settings};
use crate::clock::Timestamp;
use crate::mail::{Class, ClientName, Delivery, DeliveryId, Priority, QueueId, Recipient, RouteName};
use crate::smtp::{AddressError, EnhancedStatus, Mailbox, RecipientDsn, Reply};

/// A recipient that was accepted, before it has a place in a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressee {
    /// The forward-path.
    pub address: Mailbox,
    /// Whether it is in the tenant.
    pub class: Class,
    /// What RCPT asked of notices about it (RFC 3461).
    pub dsn: RecipientDsn,
}

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

    /// The client of that name, if there still is one.
    pub fn client_named(&self, name: &ClientName) -> Option<&ClientSettings> {
        self.settings.clients.iter().find(|client| client.name == *name)
    }

    /// The priority of a client's message whose header asks for `asked` ([`super::Facts::asked_priority`]). Of a client that is gone, nothing is
    /// known: its mail is normal.
    pub fn priority(&self, client: &ClientName, asked: Option<Priority>) -> Priority {
        let Some(client) = self.client_named(client) else { return Priority::default() };
        asked.filter(|_| client.may_choose_priority).unwrap_or(client.priority)
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
    /// delivery of the class may have. Each recipient is in exactly one of them.
    ///
    /// A class whose route is gone goes the other class's way, so that nothing that was accepted is without a delivery; that cannot happen
    /// as long as the policy that splits is the one that accepted.
    pub fn split(&self, recipients: Vec<Addressee>, id: QueueId, now: Timestamp) -> Vec<Delivery> {
        let any = self.settings.internal_route.as_ref().or(self.settings.external_route.as_ref());
        let mut deliveries: Vec<Delivery> = Vec::new();
        // For each class the delivery that still has room.
        let mut open: [Option<usize>; 2] = [None, None];
        for Addressee { address, class, dsn } in recipients {
            let slot = &mut open[class as usize];
            let with_room = slot.filter(|i| deliveries[*i].recipients.len() < self.most(class));
            let i = with_room.unwrap_or(deliveries.len());
            *slot = Some(i);
            if i == deliveries.len() {
                let Some(route) = self.route(class).or(any) else { break };
                let part = u16::try_from(i + 1).unwrap_or(u16::MAX);
                let id = DeliveryId { message: id, part };
                deliveries.push(Delivery { id, route: route.clone(), class, recipients: Vec::new(), attempts: 0, due: now });
            }
            let recipients = &mut deliveries[i].recipients;
            recipients.push(Recipient { ordinal: recipients.len() as u16, address, dsn });
        }
        deliveries
    }

    /// The recipients that a delivery of the class may have.
    fn most(&self, class: Class) -> usize {
        let of_all = self.settings.recipients_per_delivery;
        let most = match class {
            Class::Internal => of_all,
            Class::External => self.settings.external_recipients_per_delivery.map_or(of_all, |external| external.min(of_all)),
        };
        most.clamp(1, usize::from(u16::MAX))
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
    fn client(name: &str, networks: &[&str]) -> ClientSettings {
        let networks = networks.iter().map(|network| network.parse().expect("a network")).collect();
        ClientSettings::new(ClientName::new(name), networks)
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

    fn addressee(text: &str, class: Class) -> Addressee {
        Addressee { address: mailbox(text), class, dsn: RecipientDsn::default() }
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
        let recipients = addresses.iter().map(|text| addressee(text, policy.class(&mailbox(text)))).collect();
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

    #[test]
    fn external_recipients_travel_in_smaller_parts_where_they_must() {
        let id = QueueId::from_number(7).expect("positive");
        for (of_all, external, sizes) in [(3, None, [3, 1, 3, 1]), (3, Some(2), [3, 1, 2, 2]), (2, Some(3), [2, 2, 2, 2])] {
            let mut policy = policy();
            policy.settings.recipients_per_delivery = of_all;
            policy.settings.external_recipients_per_delivery = external;
            let internal = (0..4).map(|i| addressee(&format!("{i}@contoso.com"), Class::Internal));
            let others = (0..4).map(|i| addressee(&format!("{i}@x.example"), Class::External));
            let deliveries = policy.split(internal.chain(others).collect(), id, Timestamp::default());
            assert_eq!(deliveries.iter().map(|delivery| delivery.recipients.len()).collect::<Vec<_>>(), sizes, "{external:?}");
        }
    }

    #[test]
    fn a_header_is_heard_only_where_the_client_lets_it() {
        let mut policy = policy();
        policy.settings.clients[0].priority = Priority::Bulk;
        policy.settings.clients[1].priority = Priority::Bulk;
        policy.settings.clients[1].may_choose_priority = true;
        for (name, asked, priority) in [
            ("everything", None, Priority::Bulk),
            ("everything", Some(Priority::High), Priority::Bulk),
            ("erp", None, Priority::Bulk),
            ("erp", Some(Priority::High), Priority::High),
            ("erp", Some(Priority::Normal), Priority::Normal),
            ("printer", Some(Priority::High), Priority::Normal),
            ("gone", Some(Priority::High), Priority::Normal),
        ] {
            assert_eq!(policy.priority(&ClientName::new(name), asked), priority, "{name} {asked:?}");
        }
        assert!(policy.client_named(&ClientName::new("gone")).is_none());
    }
}
