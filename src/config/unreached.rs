//! Clients that no connection can ever be: each of them works for nobody, which is not what was meant.

use std::net::IpAddr;

use ipnet::IpNet;

use super::listener::Listener;
use super::problem::Findings;
use super::reader::Document;
use crate::intake::ClientSettings;
use crate::session::Auth;

/// Warns of clients that no listener serves, whose networks no listener can be reached from, whose addresses are all other clients', and that
/// could only log in where nobody can.
pub(super) fn report(document: &Document<'_>, findings: &Findings<'_>, listeners: &[Listener], clients: &[ClientSettings]) {
    if listeners.is_empty() {
        return;
    }
    for (section, client) in document.many("client").iter().zip(clients) {
        let name = &client.name;
        let serves = |listener: &&Listener| listener.entrance.clients.as_ref().is_none_or(|clients| clients.contains(name));
        let serving: Vec<&Listener> = listeners.iter().filter(serves).collect();
        if serving.is_empty() {
            let hint = "add it to clients of a [[listener]], or remove it";
            findings.warning(&section.place_of("name"), format!("no listener serves client \"{name}\""), hint);
        } else if client.networks.is_empty() {
            // Without networks it is there for users alone.
            if section.has("name") && !section.has("networks") && serving.iter().all(|listener| listener.entrance.auth == Auth::None) {
                let found = format!("client \"{name}\" has no networks, and no listener that serves it lets users log in");
                findings.warning(&section.place_of("name"), found, "write auth = \"offered\" with a [[listener]], or networks here");
            }
        } else if !client.networks.iter().any(|network| serving.iter().any(|listener| sees(listener, network))) {
            let found = format!("no listener can be reached from the networks of client \"{name}\"");
            let hint = "add a [[listener]] with an address of their kind, such as \"0.0.0.0:25\" or \"[::]:25\"";
            findings.warning(&section.place_of("networks"), found, hint);
        } else if client.networks.iter().all(|network| is_others(network, client, clients)) {
            let found = format!("every address of client \"{name}\" lies in a smaller network of another client");
            findings.warning(&section.place_of("networks"), found, "remove it, or the networks that take its addresses away");
        }
    }
}

/// Whether a connection to the listener can come from there.
fn sees(listener: &Listener, network: &IpNet) -> bool {
    let meet = |loopback: &str| loopback.parse().is_ok_and(|loopback: IpNet| loopback.contains(network) || network.contains(&loopback));
    // What a balancer says is of either kind.
    !listener.proxy_from.is_empty()
        || match (listener.address.ip(), network) {
            (IpAddr::V4(address), IpNet::V4(_)) => !address.is_loopback() || meet("127.0.0.0/8"),
            // IPv4 comes to [::] too, unless net.ipv6.bindv6only says otherwise.
            (IpAddr::V6(address), IpNet::V4(_)) => address.is_unspecified(),
            (IpAddr::V6(address), IpNet::V6(_)) => !address.is_loopback() || meet("::1/128"),
            (IpAddr::V4(_), IpNet::V6(_)) => false,
        }
}

/// Whether longer prefixes, which go before, leave nothing of it.
fn is_others(network: &IpNet, client: &ClientSettings, clients: &[ClientSettings]) -> bool {
    let others = clients.iter().filter(|other| other.name != client.name).flat_map(|other| &other.networks);
    let inside: Vec<IpNet> = others.filter(|other| *other != network && network.contains(*other)).copied().collect();
    IpNet::aggregate(&inside).contains(network)
}
