//! Whom the relay serves.

use ipnet::IpNet;

use crate::mail::{ClientName, Priority, RouteName};

/// The policy as configured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// The tenant's accepted domains, in lower case: recipients in them are internal. Never empty once resolved.
    pub accepted_domains: Vec<String>,
    /// Who is served; the longest network that holds the peer's address decides.
    pub clients: Vec<ClientSettings>,
    /// The route that takes internal recipients, if one does.
    pub internal_route: Option<RouteName>,
    /// The route that takes external recipients, if one does.
    pub external_route: Option<RouteName>,
    /// The most recipients that travel together on a route (HVE: 50).
    pub recipients_per_delivery: usize,
    /// Fewer, for external recipients: as many as an account may send to in a minute, where the limit of a minute counts recipients. None: as
    /// many as others.
    pub external_recipients_per_delivery: Option<usize>,
    /// Sessions at a time, in total.
    pub sessions: usize,
    /// Sessions at a time from one address.
    pub sessions_per_address: usize,
}

/// One `[[client]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// Its name in logs and reports.
    pub name: ClientName,
    /// The networks that its connections come from.
    pub networks: Vec<IpNet>,
    /// The priority of its mail.
    pub priority: Priority,
    /// Whether a message's own header may ask for another one.
    pub may_choose_priority: bool,
}

impl ClientSettings {
    /// A client of which nothing else is said.
    pub fn new(name: ClientName, networks: Vec<IpNet>) -> Self {
        Self { name, networks, priority: Priority::default(), may_choose_priority: false }
    }
}
