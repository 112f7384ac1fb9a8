//! Which route takes a recipient: by class, by client, by the message's size.
//!
//! The rule is short, because an operator must be able to say in his head where a message goes: the client's own route if it names one and
//! that one takes the recipient; else the first route, in the order of the configuration, that does. A route takes a recipient if it takes the
//! class, has no list of clients or has the client in it, and the size is in its range. What depends on client and class alone is worked out
//! beforehand, so that a session only looks it up.

use std::collections::HashMap;

use super::ClientSettings;
use crate::mail::{Class, ClientName, RouteName};

/// Octets that relaying adds to a message, more or less: the longest sender, twice, and its longest name.
const GROWTH: u64 = 16 << 10;

/// One `[[route]]`, as far as it says what goes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSettings {
    /// Its name.
    pub name: RouteName,
    /// The classes of recipients that it takes.
    pub takes: Vec<Class>,
    /// The clients whose mail it takes; none: all.
    pub clients: Option<Vec<ClientName>>,
    /// It takes messages that have more octets than this only; 0: small ones too.
    pub size_over: u64,
    /// The largest message in octets that it takes.
    pub message_size: u64,
    /// The most recipients that travel together.
    pub recipients_per_delivery: usize,
    /// Fewer, for external recipients: as many as an account may send to in a minute, where the limit of a minute counts recipients. None: as
    /// many as others.
    pub external_recipients_per_delivery: Option<usize>,
}

impl RouteSettings {
    /// A route for all clients and all sizes.
    pub fn new(name: RouteName, takes: Vec<Class>) -> Self {
        Self {
            name,
            takes,
            clients: None,
            size_over: 0,
            message_size: u64::MAX,
            // What every server must take (RFC 5321 §4.5.3.1.8).
            recipients_per_delivery: 100,
            external_recipients_per_delivery: None,
        }
    }

    /// The recipients of a class that a delivery may have.
    pub fn most(&self, class: Class) -> usize {
        let of_all = self.recipients_per_delivery;
        let most = match class {
            Class::Internal => of_all,
            Class::External => self.external_recipients_per_delivery.map_or(of_all, |external| external.min(of_all)),
        };
        most.clamp(1, usize::from(u16::MAX))
    }

    fn takes_from(&self, client: Option<&ClientName>, class: Class) -> bool {
        let listed = |clients: &Vec<ClientName>| client.is_some_and(|client| clients.contains(client));
        self.takes.contains(&class) && self.clients.as_ref().is_none_or(listed)
    }

    fn takes_size(&self, size: u64) -> bool {
        (self.size_over == 0 || size > self.size_over) && size <= self.message_size
    }
}

/// See the head of this file.
#[derive(Debug, Clone)]
pub(super) struct Routes {
    all: Vec<RouteSettings>,
    by_client: HashMap<ClientName, [Ways; 2]>,
    /// Of a client that is not configured, as one whose mail was accepted before a restart may be.
    of_others: [Ways; 2],
}

/// What a client's recipients of one class can take.
#[derive(Debug, Clone, Default)]
struct Ways {
    /// Places in the list of all routes; the first that takes the size is taken.
    order: Vec<usize>,
    /// The largest message that one of them takes; none: there are none.
    largest: Option<u64>,
}

impl Routes {
    pub(super) fn new(all: Vec<RouteSettings>, clients: &[ClientSettings]) -> Self {
        let ways = |client: Option<&ClientName>, own: Option<&RouteName>| {
            Class::ALL.map(|class| {
                let mut order: Vec<usize> = (0..all.len()).filter(|i| all[*i].takes_from(client, class)).collect();
                order.sort_by_key(|i| own != Some(&all[*i].name));
                let largest = order.iter().map(|i| all[*i].message_size).max();
                Ways { order, largest }
            })
        };
        let by_client = clients.iter().map(|client| (client.name.clone(), ways(Some(&client.name), client.route.as_ref()))).collect();
        Self { by_client, of_others: ways(None, None), all }
    }

    /// The route of a client's recipients of a class, for a message of so many octets.
    pub(super) fn way(&self, client: &ClientName, class: Class, size: u64) -> Option<&RouteSettings> {
        let mut routes = self.of(client)[class as usize].order.iter().filter_map(|i| self.all.get(*i));
        routes.find(|route| route.takes_size(size))
    }

    /// The next route behind one that has not taken them. None comes twice, because the order is always the same.
    pub(super) fn way_behind(&self, route: &RouteName, client: &ClientName, class: Class, size: u64) -> Option<&RouteSettings> {
        let mut routes = self.of(client)[class as usize].order.iter().filter_map(|i| self.all.get(*i));
        routes.find(|known| known.name == *route)?;
        routes.find(|route| route.takes_size(size))
    }

    /// The way of mail that is queued for a route, if that one does not take it any more and another does.
    pub(super) fn elsewhere(&self, route: &RouteName, client: &ClientName, class: Class, size: u64) -> Option<&RouteName> {
        let stays = |known: &RouteSettings| {
            // Which of the sizes up to the largest it was when it came, with all that relaying adds, nobody remembers.
            let fits = size <= known.message_size && (known.size_over == 0 || size + GROWTH > known.size_over);
            known.name == *route && known.takes_from(Some(client), class) && fits
        };
        if self.all.iter().any(stays) {
            return None;
        }
        let sure = self.way(client, class, size).filter(|way| size + GROWTH <= way.message_size);
        let way = sure.or_else(|| self.way(client, class, size + GROWTH)).or_else(|| self.way(client, class, size));
        way.map(|way| &way.name).filter(|name| *name != route)
    }

    /// The largest message that can be sent to a client's recipients of a class; none: no message can.
    pub(super) fn largest(&self, client: &ClientName, class: Class) -> Option<u64> {
        self.of(client)[class as usize].largest
    }

    /// The routes that take a class from other clients only.
    pub(super) fn of_other_clients(&self, class: Class) -> impl Iterator<Item = &RouteName> {
        self.all.iter().filter(move |route| route.takes.contains(&class) && route.clients.is_some()).map(|route| &route.name)
    }

    fn of(&self, client: &ClientName) -> &[Ways; 2] {
        self.by_client.get(client).unwrap_or(&self.of_others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Option<Vec<ClientName>> {
        Some(names.iter().map(|name| ClientName::new(*name)).collect())
    }

    fn routes() -> Routes {
        let route = |name: &str, takes: &[Class]| RouteSettings::new(RouteName::new(name), takes.to_vec());
        let both = [Class::Internal, Class::External];
        let clients = ["devices", "erp", "web"].map(|name| ClientSettings::new(ClientName::new(name), Vec::new()));
        let [devices, erp, mut web] = clients;
        web.route = Some(RouteName::new("smarthost"));
        let all = vec![
            RouteSettings { clients: names(&["erp"]), size_over: 500, message_size: 900, ..route("archive", &[Class::Internal]) },
            RouteSettings { message_size: 1_000, ..route("hve", &[Class::Internal]) },
            RouteSettings { message_size: 3_000, clients: names(&["devices", "erp"]), ..route("connector", &both) },
            RouteSettings { message_size: 2_000, ..route("smarthost", &both) },
        ];
        Routes::new(all, &[devices, erp, web])
    }

    #[test]
    fn queued_mail_stays_with_a_route_that_takes_it_and_else_goes_where_it_would_go_now() {
        let routes = routes();
        for (route, client, class, size, expected) in [
            ("smarthost", "devices", Class::Internal, 1, None),
            ("hve", "devices", Class::Internal, 1_000, None),
            ("hve", "devices", Class::External, 1, Some("connector")),
            ("hve", "devices", Class::Internal, 1_001, Some("connector")),
            ("hve", "web", Class::External, 10, Some("smarthost")),
            ("connector", "web", Class::External, 10, Some("smarthost")),
            ("gone", "devices", Class::Internal, 10, Some("hve")),
            ("gone", "nobody any more", Class::External, 10, Some("smarthost")),
            ("gone", "devices", Class::External, 3_001, None),
            ("archive", "erp", Class::Internal, 400, None),
        ] {
            let found = routes.elsewhere(&RouteName::new(route), &ClientName::new(client), class, size);
            assert_eq!(found.map(RouteName::as_str), expected, "{route} {client} {class:?} {size}");
        }
    }

    #[test]
    fn a_clients_own_route_comes_first_and_then_the_first_that_takes_class_client_and_size() {
        let routes = routes();
        for (client, class, size, expected) in [
            ("devices", Class::Internal, 1, Some("hve")),
            ("devices", Class::Internal, 1_000, Some("hve")),
            ("devices", Class::Internal, 1_001, Some("connector")),
            ("devices", Class::External, 1, Some("connector")),
            ("devices", Class::External, 3_000, Some("connector")),
            ("devices", Class::External, 3_001, None),
            ("erp", Class::Internal, 500, Some("hve")),
            ("erp", Class::Internal, 501, Some("archive")),
            ("erp", Class::Internal, 901, Some("hve")),
            ("erp", Class::External, 700, Some("connector")),
            ("web", Class::Internal, 1, Some("smarthost")),
            ("web", Class::Internal, 2_000, Some("smarthost")),
            ("web", Class::Internal, 2_001, None),
            ("web", Class::External, 1, Some("smarthost")),
            ("gone", Class::Internal, 1, Some("hve")),
            ("gone", Class::External, 2_001, None),
        ] {
            let way = routes.way(&ClientName::new(client), class, size).map(|route| route.name.as_str());
            assert_eq!(way, expected, "{client} {class} {size}");
        }
    }

    #[test]
    fn what_a_route_has_not_taken_goes_by_the_next_that_takes_it_and_never_back() {
        let routes = routes();
        for (route, client, class, size, expected) in [
            ("hve", "devices", Class::Internal, 1, Some("connector")),
            ("connector", "devices", Class::Internal, 1, Some("smarthost")),
            ("connector", "devices", Class::Internal, 2_001, None),
            ("smarthost", "devices", Class::External, 1, None),
            ("archive", "erp", Class::Internal, 600, Some("hve")),
            ("hve", "erp", Class::Internal, 600, Some("connector")),
            ("smarthost", "web", Class::Internal, 1_000, Some("hve")),
            ("hve", "web", Class::Internal, 1_000, None),
            ("hve", "web", Class::External, 1, None),
            ("gone", "devices", Class::Internal, 1, None),
        ] {
            let way = routes.way_behind(&RouteName::new(route), &ClientName::new(client), class, size);
            assert_eq!(way.map(|route| route.name.as_str()), expected, "{route} {client} {class} {size}");
        }
    }

    #[test]
    fn the_largest_message_is_that_of_the_routes_that_the_client_may_use() {
        let routes = routes();
        let largest = |client: &str, class| routes.largest(&ClientName::new(client), class);
        assert_eq!(largest("devices", Class::Internal), Some(3_000));
        assert_eq!(largest("web", Class::External), Some(2_000));
        assert_eq!(Routes::new(Vec::new(), &[]).largest(&ClientName::new("web"), Class::External), None);
    }
}
