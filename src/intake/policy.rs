//! Who is served, what its recipients are, and in which deliveries they travel.
//!
//! [`Policy`] is built once from [`Settings`] and then only asked. A peer is a client if one of the client's networks holds its address; the
//! longest such network decides, and of two equal ones the first that was written. Without a client nobody is served. A recipient is internal
//! if its domain is one of the accepted domains, exactly: a subdomain is another domain. The priority of a message is its client's, or the one
//! that its header asks for where the client lets it.
//!
//! What a client may do beyond that is told by its own settings: as whom (`allowed_senders`, `required_from_domain`), to whom
//! (`allowed_recipients`), how much in a minute (`rates`). Copies of a policy share what has been used of a minute.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::rates::Rates;
use super::routes::Routes;
use super::{ClientSettings, Facts, Pattern, Rate, RouteSettings, Settings};
use crate::clock::Timestamp;
use crate::mail::{Class, ClientName, Delivery, DeliveryId, Priority, QueueId, Recipient, RouteName};
use crate::smtp::{AddressError, EnhancedStatus, Mailbox, RecipientDsn, Reply, ReversePath};

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
    /// All but the clients and the routes.
    settings: Settings,
    clients: Vec<Arc<ClientSettings>>,
    /// Every client's networks, the longest first, with the client's place in the settings.
    networks: Vec<(IpNet, usize)>,
    domains: HashSet<String>,
    routes: Routes,
    rates: Arc<Rates>,
}

impl Policy {
    /// The policy that the settings mean.
    pub fn new(settings: Settings) -> Self {
        let rates = Rates::new(&settings.clients);
        Self::with(settings, rates)
    }

    /// The policy that other settings mean; what was used of a minute still counts where its limit is as before.
    pub fn renewed(&self, settings: Settings) -> Self {
        let rates = self.rates.renewed(&settings.clients);
        Self::with(settings, rates)
    }

    fn with(mut settings: Settings, rates: Rates) -> Self {
        let mut networks: Vec<(IpNet, usize)> =
            settings.clients.iter().enumerate().flat_map(|(i, client)| client.networks.iter().map(move |network| (*network, i))).collect();
        networks.sort_by_key(|(network, _)| std::cmp::Reverse(network.prefix_len()));
        let domains = settings.accepted_domains.iter().map(|domain| canonical(domain)).collect();
        let routes = Routes::new(std::mem::take(&mut settings.routes), &settings.clients);
        let clients = std::mem::take(&mut settings.clients).into_iter().map(Arc::new).collect();
        Self { settings, clients, networks, domains, routes, rates: Arc::new(rates) }
    }

    /// The client that a peer's address belongs to, if any. An IPv4 address in IPv6 clothes counts as the IPv4 address.
    pub fn client(&self, peer: IpAddr) -> Option<&Arc<ClientSettings>> {
        let peer = peer.to_canonical();
        let (_, i) = self.networks.iter().find(|(network, _)| network.contains(&peer))?;
        self.clients.get(*i)
    }

    /// The client of that name, if there still is one.
    pub fn client_named(&self, name: &ClientName) -> Option<&Arc<ClientSettings>> {
        self.clients.iter().find(|client| client.name == *name)
    }

    /// All clients, in the order of the configuration.
    pub fn clients(&self) -> &[Arc<ClientSettings>] {
        &self.clients
    }

    /// Takes one of what a client may begin in a minute.
    ///
    /// # Errors
    /// The refusal if it has had all of it: to be tried again, and when.
    pub fn take(&self, now: Timestamp, client: &ClientName, rate: Rate) -> Result<(), Reply> {
        self.rates.take(now, client, rate)
    }

    /// Lets in a connection from there. Whoever is no client is told so by its session.
    ///
    /// # Errors
    /// The refusal if its client has made too many in a minute.
    pub fn connect(&self, now: Timestamp, peer: IpAddr) -> Result<(), Reply> {
        self.client(peer).map_or(Ok(()), |client| self.take(now, &client.name, Rate::Connections))
    }

    /// The priority of a client's message whose header asks for `asked` ([`super::Facts::asked_priority`]). Of a client that is gone, nothing is
    /// known: its mail is normal.
    pub fn priority(&self, client: &ClientName, asked: Option<Priority>) -> Priority {
        let Some(client) = self.client_named(client) else { return Priority::default() };
        asked.filter(|_| client.may_choose_priority).unwrap_or(client.priority)
    }

    /// Whether a client may name this sender in MAIL FROM. The null path is for everybody: of its message [`Self::author`] looks at the header.
    ///
    /// # Errors
    /// The refusal; it names the setting that would change that.
    pub fn sender(&self, client: &ClientSettings, reverse_path: &ReversePath) -> Result<(), Reply> {
        let Some(mailbox) = reverse_path.mailbox().filter(|mailbox| !is_among(client.allowed_senders.as_deref(), mailbox)) else {
            return Ok(());
        };
        Err(not_allowed(format!(
            "<{mailbox}> is not in allowed_senders of client \"{}\": set another sender in the device, or add this one there",
            client.name
        )))
    }

    /// Whether a client may send what its header says of its authors.
    ///
    /// # Errors
    /// As of [`Self::sender`].
    pub fn author(&self, client: &ClientName, reverse_path: &ReversePath, facts: &Facts) -> Result<(), Reply> {
        let Some(client) = self.client_named(client) else { return Ok(()) };
        if let Some(required) = &client.required_from_domain
            && let Some(other) = facts.author_domains.iter().find(|domain| !required.contains(domain))
        {
            let found = if other.is_empty() { "without an address".to_owned() } else { format!("of {other}") };
            return Err(not_allowed(format!(
                "The message's From has an author {found}, and required_from_domain of client \"{}\" is {}: set another From, or add the domain there",
                client.name,
                required.join(", ")
            )));
        }
        let author = facts.author.as_ref();
        if *reverse_path == ReversePath::Null
            && let Some(allowed) = client.allowed_senders.as_deref()
            && !author.is_some_and(|author| is_among(Some(allowed), author))
        {
            let author = author.map_or("nobody", Mailbox::as_str);
            return Err(not_allowed(format!(
                "MAIL FROM is <> and the message is from {author}, who is not in allowed_senders of client \"{}\": set another From, or add it there",
                client.name
            )));
        }
        Ok(())
    }

    /// Whether a client may send to this recipient.
    ///
    /// # Errors
    /// As of [`Self::sender`].
    pub fn addressee(&self, client: &ClientSettings, mailbox: &Mailbox) -> Result<(), Reply> {
        if is_among(client.allowed_recipients.as_deref(), mailbox) {
            return Ok(());
        }
        Err(not_allowed(format!(
            "<{mailbox}> is not in allowed_recipients of client \"{}\": add the address or @its-domain there",
            client.name
        )))
    }

    /// Whether a mailbox is in the tenant.
    pub fn class(&self, mailbox: &Mailbox) -> Class {
        if self.domains.contains(&canonical(mailbox.domain())) { Class::Internal } else { Class::External }
    }

    /// The class of a client's recipient that can be sent to; `announced` is the message's size, as far as the client has told it.
    ///
    /// # Errors
    /// The refusal for one that no route takes, or none at that size; it names the settings that would change that.
    pub fn recipient(&self, client: &ClientName, mailbox: &Mailbox, announced: Option<u64>) -> Result<Class, Reply> {
        let class = self.class(mailbox);
        match self.routes.largest(client, class) {
            Some(largest) if announced.is_none_or(|announced| announced <= largest) => Ok(class),
            Some(largest) => Err(too_large(announced.unwrap_or_default(), largest, class)),
            None => Err(self.no_route(client, mailbox, class)),
        }
    }

    /// The largest message that a client can send to recipients of a class; none: it can send none.
    pub fn largest(&self, client: &ClientName, class: Class) -> Option<u64> {
        self.routes.largest(client, class)
    }

    /// The route of a client's recipients of a class, for a message of so many octets.
    pub fn way(&self, client: &ClientName, class: Class, size: u64) -> Option<&RouteSettings> {
        self.routes.way(client, class, size)
    }

    /// The next route for recipients that `route` has not taken: behind it in the client's order, so that a message never comes back to one.
    pub fn way_behind(&self, route: &RouteName, client: &ClientName, class: Class, size: u64) -> Option<&RouteSettings> {
        self.routes.way_behind(route, client, class, size)
    }

    /// Where queued mail goes whose route does not take it any more: to the route that would be its own if it came now. None: it stays, because
    /// its route takes it, or because no other does.
    pub fn elsewhere(&self, route: &RouteName, client: &ClientName, class: Class, size: u64) -> Option<&RouteName> {
        self.routes.elsewhere(route, client, class, size)
    }

    fn no_route(&self, client: &ClientName, mailbox: &Mailbox, class: Class) -> Reply {
        let others: Vec<String> = self.routes.of_other_clients(class).map(|route| format!("\"{route}\"")).collect();
        let text = match class {
            _ if !others.is_empty() => format!(
                "<{mailbox}> is {class} and no route takes {class} recipients from client \"{client}\": add the client to the clients of [[route]] {}, \
                 or add another [[route]]",
                others.join(" or ")
            ),
            Class::Internal => format!("<{mailbox}> is internal and no route takes internal recipients: add a [[route]] that does"),
            Class::External => format!(
                "<{mailbox}> is external and no route takes external recipients (High Volume Email sends inside the tenant only): \
                 add a [[route]] that does, or, if {} is yours, add it to accepted_domains",
                mailbox.domain()
            ),
        };
        Reply::new(550, EnhancedStatus::new(5, 7, 1), text)
    }

    /// Adds the first accepted domain to a local part that came without one.
    ///
    /// # Errors
    /// If the whole is not a mailbox.
    pub fn qualify(&self, local_part: &str) -> Result<Mailbox, AddressError> {
        let domain = self.settings.accepted_domains.first().ok_or(AddressError::NoDomain)?;
        format!("{local_part}@{domain}").parse()
    }

    /// The deliveries of a client's message of so many octets: recipients of one class travel together, in the order in which they were given,
    /// up to the number that a delivery of the class may have on its route. Each recipient is in exactly one of them.
    ///
    /// # Errors
    /// The refusal of the message if there is a recipient that no route takes at that size. The size is known only when all of it is there, so
    /// [`Self::recipient`] may have said otherwise.
    pub fn split(
        &self,
        client: &ClientName,
        recipients: Vec<Addressee>,
        size: u64,
        id: QueueId,
        now: Timestamp,
    ) -> Result<Vec<Delivery>, Reply> {
        let mut deliveries: Vec<Delivery> = Vec::new();
        let ways = Class::ALL.map(|class| self.routes.way(client, class, size));
        // For each class the delivery that still has room.
        let mut open: [Option<usize>; 2] = [None, None];
        for Addressee { address, class, dsn } in recipients {
            let Some(way) = ways[class as usize] else {
                let largest = self.routes.largest(client, class).filter(|largest| size > *largest);
                return Err(largest.map_or_else(|| self.no_route(client, &address, class), |largest| too_large(size, largest, class)));
            };
            let slot = &mut open[class as usize];
            let with_room = slot.filter(|i| deliveries[*i].recipients.len() < way.most(class));
            let i = with_room.unwrap_or(deliveries.len());
            *slot = Some(i);
            if i == deliveries.len() {
                let part = u16::try_from(i + 1).unwrap_or(u16::MAX);
                let id = DeliveryId { message: id, part };
                deliveries.push(Delivery { id, route: way.name.clone(), class, recipients: Vec::new(), attempts: 0, due: now });
            }
            let recipients = &mut deliveries[i].recipients;
            recipients.push(Recipient { ordinal: recipients.len() as u16, address, dsn });
        }
        Ok(deliveries)
    }
}

/// The refusal of a message of which no route takes so much to recipients of the class.
fn too_large(size: u64, largest: u64, class: Class) -> Reply {
    let text = format!(
        "{size} octets, with what relaying adds, are more than the {largest} that a route takes to {class} recipients: send less in one message, \
         scan at a lower resolution, or add a [[route]] with a larger message_size"
    );
    Reply::new(552, EnhancedStatus::new(5, 3, 4), text)
}

/// Whether a mailbox is allowed; without a list all are.
fn is_among(allowed: Option<&[Pattern]>, mailbox: &Mailbox) -> bool {
    allowed.is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(mailbox)))
}

fn not_allowed(text: String) -> Reply {
    Reply::new(550, EnhancedStatus::new(5, 7, 1), text)
}

/// A domain as it is compared: in lower case, without the root's dot.
fn canonical(domain: &str) -> String {
    domain.strip_suffix('.').unwrap_or(domain).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::RouteName;

    fn client(name: &str, networks: &[&str]) -> ClientSettings {
        let networks = networks.iter().map(|network| network.parse().expect("a network")).collect();
        ClientSettings::new(ClientName::new(name), networks)
    }

    fn settings() -> Settings {
        Settings {
            accepted_domains: vec!["contoso.com".to_owned(), "Müller.example".to_owned()],
            clients: vec![
                client("everything", &["10.0.0.0/8", "2001:db8::/32"]),
                client("erp", &["10.20.0.0/16", "10.20.30.40/32"]),
                client("printer", &["10.20.30.0/24"]),
            ],
            routes: vec![route("hve", Class::Internal), route("connector", Class::External)],
            ..Settings::default()
        }
    }

    fn policy() -> Policy {
        Policy::new(settings())
    }

    fn route(name: &str, class: Class) -> RouteSettings {
        RouteSettings { message_size: 1_000, recipients_per_delivery: 2, ..RouteSettings::new(RouteName::new(name), vec![class]) }
    }

    fn erp() -> ClientName {
        ClientName::new("erp")
    }

    fn with_routes(routes: Vec<RouteSettings>) -> Policy {
        Policy::new(Settings { routes, ..settings() })
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
        assert_eq!(policy().recipient(&erp(), &mailbox("a@example.org"), None), Ok(Class::External));
        let policy = with_routes(vec![route("hve", Class::Internal)]);
        assert_eq!(policy.recipient(&erp(), &mailbox("a@contoso.com"), Some(0)), Ok(Class::Internal));
        let refusal = policy.recipient(&erp(), &mailbox("a@example.org"), None).expect_err("refused").to_string();
        assert!(refusal.starts_with("550 5.7.1 <a@example.org> is external"), "{refusal}");
        assert!(refusal.contains("[[route]]") && refusal.contains("accepted_domains"), "{refusal}");
        let connector = RouteSettings { clients: Some(vec![ClientName::new("printer")]), ..route("connector", Class::External) };
        let policy = with_routes(vec![route("hve", Class::Internal), connector]);
        assert_eq!(policy.recipient(&ClientName::new("printer"), &mailbox("a@example.org"), None), Ok(Class::External));
        let refusal = policy.recipient(&erp(), &mailbox("a@example.org"), None).expect_err("refused").to_string();
        assert!(refusal.starts_with("550 5.7.1 <a@example.org> is external") && refusal.contains("\"erp\""), "{refusal}");
        assert!(refusal.contains("the clients of [[route]] \"connector\""), "{refusal}");
    }

    #[test]
    fn refuses_what_is_too_large_for_every_route_as_soon_as_the_size_is_known() {
        let policy = policy();
        assert_eq!(policy.recipient(&erp(), &mailbox("a@contoso.com"), Some(1_000)), Ok(Class::Internal));
        let at_rcpt = policy.recipient(&erp(), &mailbox("a@contoso.com"), Some(1_001)).expect_err("too large");
        let id = QueueId::from_number(7).expect("positive");
        let recipients = || vec![addressee("a@contoso.com", Class::Internal)];
        assert!(policy.split(&erp(), recipients(), 1_000, id, Timestamp::default()).is_ok());
        let at_the_end = policy.split(&erp(), recipients(), 1_001, id, Timestamp::default()).expect_err("too large");
        assert_eq!(at_rcpt, at_the_end);
        let refusal = at_the_end.to_string();
        assert!(refusal.starts_with("552 5.3.4 1001 octets, ") && refusal.contains("1000"), "{refusal}");
        assert!(refusal.contains("internal recipients") && refusal.contains("message_size"), "{refusal}");
    }

    #[test]
    fn a_client_sends_as_whom_and_to_whom_it_may() {
        let pattern = |text: &str| match text.strip_prefix('@') {
            Some(domain) => Pattern::Domain(domain.to_owned()),
            None => Pattern::Mailbox(mailbox(text)),
        };
        let mut settings = settings();
        settings.clients[0].allowed_senders = Some(vec![pattern("erp@contoso.com"), pattern("@printers.contoso.com")]);
        settings.clients[0].allowed_recipients = Some(vec![pattern("@contoso.com"), pattern("a@x.example")]);
        let policy = Policy::new(settings);
        let (limited, free) = (&policy.clients()[0], &policy.clients()[1]);
        for (sender, is_allowed) in
            [("erp@contoso.com", true), ("ERP@Contoso.com", true), ("any@printers.contoso.com", true), ("boss@contoso.com", false)]
        {
            let path = ReversePath::Mailbox(mailbox(sender));
            assert_eq!(policy.sender(limited, &path).is_ok(), is_allowed, "{sender}");
            assert_eq!(policy.sender(free, &path), Ok(()));
        }
        assert_eq!(policy.sender(limited, &ReversePath::Null), Ok(()));
        for (recipient, is_allowed) in
            [("b@contoso.com", true), ("a@x.example", true), ("b@x.example", false), ("b@sub.contoso.com", false)]
        {
            assert_eq!(policy.addressee(limited, &mailbox(recipient)).is_ok(), is_allowed, "{recipient}");
            assert_eq!(policy.addressee(free, &mailbox(recipient)), Ok(()));
        }
        let refusal = policy.addressee(limited, &mailbox("b@x.example")).expect_err("refused").to_string();
        assert!(refusal.starts_with("550 5.7.1 <b@x.example> is not in allowed_recipients of client \"everything\""), "{refusal}");
    }

    #[test]
    fn authors_are_looked_at_where_a_client_says_so() {
        let mut settings = settings();
        settings.clients[0].required_from_domain = Some(vec!["contoso.com".to_owned(), "x.example".to_owned()]);
        settings.clients[1].allowed_senders = Some(vec![Pattern::Mailbox(mailbox("erp@contoso.com"))]);
        let policy = Policy::new(settings);
        let facts = |authors: &[&str]| Facts {
            author: authors.first().and_then(|author| author.parse().ok()),
            author_domains: authors.iter().map(|author| author.split_once('@').map_or("", |(_, domain)| domain).to_owned()).collect(),
            ..Facts::default()
        };
        let path = ReversePath::Mailbox(mailbox("bounces@elsewhere.example"));
        for (client, path, authors, is_allowed) in [
            ("everything", &path, &["a@contoso.com"][..], true),
            ("everything", &ReversePath::Null, &["a@contoso.com", "b@x.example"], true),
            ("everything", &path, &["a@contoso.com", "b@evil.example"], false),
            ("everything", &path, &["a@sub.contoso.com"], false),
            ("everything", &path, &["Scanner"], false),
            ("erp", &path, &["b@evil.example"], true),
            ("erp", &ReversePath::Null, &["b@evil.example"], false),
            ("erp", &ReversePath::Null, &["Scanner"], false),
            ("erp", &ReversePath::Null, &["erp@contoso.com"], true),
            ("printer", &ReversePath::Null, &["b@evil.example"], true),
            ("gone", &ReversePath::Null, &["b@evil.example"], true),
        ] {
            let outcome = policy.author(&ClientName::new(client), path, &facts(authors));
            assert_eq!(outcome.is_ok(), is_allowed, "{client} <{path}> {authors:?}: {outcome:?}");
        }
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
        let deliveries = policy.split(&erp(), recipients, 900, id, Timestamp::from_millis(5)).expect("a route for each");
        let shown: Vec<_> = deliveries
            .iter()
            .map(|delivery| {
                let recipients: Vec<_> = delivery.recipients.iter().map(|r| format!("{}:{}", r.ordinal, r.address.local_part())).collect();
                format!("{} {} {} {}", delivery.id.part, delivery.route, delivery.class, recipients.join(" "))
            })
            .collect();
        assert_eq!(shown, ["1 hve internal 0:1 1:3", "2 connector external 0:2 1:5", "3 hve internal 0:4", "4 connector external 0:6"]);
        assert!(deliveries.iter().all(|d| d.id.message == id && d.due == Timestamp::from_millis(5) && d.attempts == 0));
        assert_eq!(policy.split(&erp(), Vec::new(), 900, id, Timestamp::default()), Ok(Vec::new()));
    }

    #[test]
    fn external_recipients_travel_in_smaller_parts_where_they_must() {
        let id = QueueId::from_number(7).expect("positive");
        for (of_all, external, sizes) in [(3, None, [3, 1, 3, 1]), (3, Some(2), [3, 1, 2, 2]), (2, Some(3), [2, 2, 2, 2])] {
            let mut routes = settings().routes;
            for route in &mut routes {
                (route.recipients_per_delivery, route.external_recipients_per_delivery) = (of_all, external);
            }
            let policy = with_routes(routes);
            let internal = (0..4).map(|i| addressee(&format!("{i}@contoso.com"), Class::Internal));
            let others = (0..4).map(|i| addressee(&format!("{i}@x.example"), Class::External));
            let deliveries = policy.split(&erp(), internal.chain(others).collect(), 900, id, Timestamp::default());
            let deliveries = deliveries.expect("a route for each");
            assert_eq!(deliveries.iter().map(|delivery| delivery.recipients.len()).collect::<Vec<_>>(), sizes, "{external:?}");
        }
    }

    #[test]
    fn a_header_is_heard_only_where_the_client_lets_it() {
        let mut settings = settings();
        settings.clients[0].priority = Priority::Bulk;
        settings.clients[1].priority = Priority::Bulk;
        settings.clients[1].may_choose_priority = true;
        let policy = Policy::new(settings);
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
