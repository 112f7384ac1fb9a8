//! Whom the relay serves.

use std::net::IpAddr;
use std::num::NonZeroU32;

use ipnet::IpNet;

use super::{Rate, RouteSettings};
use crate::mail::{ClientName, Priority, RouteName};
use crate::smtp::Mailbox;

/// The policy as configured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// The tenant's accepted domains, in lower case: recipients in them are internal. Never empty once resolved.
    pub accepted_domains: Vec<String>,
    /// Who is served; the longest network that holds the peer's address decides.
    pub clients: Vec<ClientSettings>,
    /// Where mail goes, in the configuration's order.
    pub routes: Vec<RouteSettings>,
    /// Sessions at a time, in total.
    pub sessions: usize,
    /// Sessions at a time from one address.
    pub sessions_per_address: usize,
    /// Whether somebody who is no client by his address can become one, on some listener.
    pub strangers_may_log_in: bool,
}

/// Who is told what became of a client's mail.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Readers {
    /// Who sent the message: its reverse-path.
    #[default]
    Author,
    /// These, whoever sent it.
    These(Vec<Mailbox>),
    /// Nobody; the log says it all the same.
    Nobody,
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
    /// The route that its mail takes before any other, where it can.
    pub route: Option<RouteName>,
    /// Whether it may log in without TLS, from one of its networks.
    pub allow_plaintext_auth: bool,
    /// Whom its MAIL FROM may name; none: anybody. With the null path, the header's From is looked at in its place.
    pub allowed_senders: Option<Vec<Pattern>>,
    /// Whom it may send to; none: anybody for whom there is a route.
    pub allowed_recipients: Option<Vec<Pattern>>,
    /// The domains, in lower case, one of which each author in the header's From must have; none: any.
    pub required_from_domain: Option<Vec<String>>,
    /// Its largest message in octets, where that is less than everybody's.
    pub message_size: Option<u64>,
    /// What is made of line ends that are none.
    pub line_endings: LineEndings,
    /// What EHLO does not tell it of, in capitals: for devices that cannot bear an extension.
    pub ehlo_keywords_hidden: Vec<String>,
    /// Connections that it may make in a minute.
    pub connections_per_minute: Option<NonZeroU32>,
    /// Messages that it may begin in a minute.
    pub messages_per_minute: Option<NonZeroU32>,
    /// Recipients that it may name in a minute.
    pub recipients_per_minute: Option<NonZeroU32>,
    /// Who is told what became of its mail.
    pub notify: Readers,
}

impl ClientSettings {
    /// A client of which nothing else is said.
    pub fn new(name: ClientName, networks: Vec<IpNet>) -> Self {
        Self {
            name,
            networks,
            priority: Priority::default(),
            may_choose_priority: false,
            route: None,
            allow_plaintext_auth: false,
            allowed_senders: None,
            allowed_recipients: None,
            required_from_domain: None,
            message_size: None,
            line_endings: LineEndings::default(),
            ehlo_keywords_hidden: Vec::new(),
            connections_per_minute: None,
            messages_per_minute: None,
            recipients_per_minute: None,
            notify: Readers::default(),
        }
    }

    /// Its limit of a kind.
    pub fn per_minute(&self, rate: Rate) -> Option<NonZeroU32> {
        match rate {
            Rate::Connections => self.connections_per_minute,
            Rate::Messages => self.messages_per_minute,
            Rate::Recipients => self.recipients_per_minute,
        }
    }

    /// Whether EHLO tells it of an extension.
    pub fn is_told_of(&self, keyword: &str) -> bool {
        !self.ehlo_keywords_hidden.iter().any(|hidden| hidden == keyword)
    }
}

/// What is made of a bare LF or a bare CR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LineEndings {
    /// It is a line end, and leaves as CRLF.
    #[default]
    Normalize,
    /// The command or the message is refused.
    Refuse,
}

/// One address, or all of a domain; case does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// This one.
    Mailbox(Mailbox),
    /// `@domain`: all of this domain, without its subdomains.
    Domain(String),
}

impl Pattern {
    /// Whether a mailbox is meant.
    pub fn matches(&self, mailbox: &Mailbox) -> bool {
        let domain = |domain: &str| domain.strip_suffix('.').unwrap_or(domain).to_lowercase();
        match self {
            Self::Mailbox(own) => {
                own.local_part().to_lowercase() == mailbox.local_part().to_lowercase() && domain(own.domain()) == domain(mailbox.domain())
            }
            Self::Domain(own) => domain(own) == domain(mailbox.domain()),
        }
    }
}

/// Two clients whose networks have addresses in common: of these the smaller network decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    /// Who is served there.
    pub decides: ClientName,
    /// The smaller network.
    pub inner: IpNet,
    /// Whose larger network it lies in.
    pub other: ClientName,
    /// That network.
    pub outer: IpNet,
}

impl Settings {
    /// The networks that lie in one of another client; of several that a network lies in, the smallest.
    pub fn overlaps(&self) -> Vec<Overlap> {
        let all: Vec<(&ClientName, IpNet)> =
            self.clients.iter().flat_map(|client| client.networks.iter().map(|network| (&client.name, *network))).collect();
        let around = |name: &ClientName, inner: IpNet| {
            let others = all.iter().filter(|(other, outer)| *other != name && *outer != inner && outer.contains(&inner));
            others.max_by_key(|(_, outer)| outer.prefix_len())
        };
        let overlap = |(name, inner): &(&ClientName, IpNet)| {
            let (other, outer) = around(name, *inner)?;
            Some(Overlap { decides: (*name).clone(), inner: *inner, other: (*other).clone(), outer: *outer })
        };
        all.iter().filter_map(overlap).collect()
    }
}

/// Whether a network has addresses that are routed on the internet, as far as that can be told from the address: it is not all inside one of
/// those that are for private use (RFC 1918, RFC 4193), for one link (RFC 3927, RFC 4291), for one host or behind a provider's NAT (RFC 6598).
pub fn is_public(network: &IpNet) -> bool {
    const PRIVATE: [(IpAddr, u8); 9] = {
        use std::net::{Ipv4Addr, Ipv6Addr};
        [
            (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 8),
            (IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), 12),
            (IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), 16),
            (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
            (IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
            (IpAddr::V4(Ipv4Addr::new(100, 64, 0, 0)), 10),
            (IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), 7),
            (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
            (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
        ]
    };
    !PRIVATE.iter().any(|(address, length)| IpNet::new(*address, *length).is_ok_and(|private| private.contains(network)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect(text)
    }

    #[test]
    fn a_pattern_is_one_address_or_one_domain() {
        let one = Pattern::Mailbox("Scan@Contoso.com".parse().expect("a mailbox"));
        let all = Pattern::Domain("contoso.com".to_owned());
        for (address, is_one, is_all) in [
            ("scan@contoso.com", true, true),
            ("SCAN@CONTOSO.COM.", true, true),
            ("scan2@contoso.com", false, true),
            ("scan@sub.contoso.com", false, false),
            ("scan@notcontoso.com", false, false),
            ("\"x@contoso.com\"@evil.example", false, false),
        ] {
            let mailbox: Mailbox = address.parse().expect(address);
            assert_eq!((one.matches(&mailbox), all.matches(&mailbox)), (is_one, is_all), "{address}");
        }
    }

    #[test]
    fn knows_private_networks_from_public_ones() {
        for text in ["10.0.0.0/8", "10.1.2.3/32", "172.31.0.0/16", "192.168.7.0/24", "127.0.0.0/8", "100.64.0.0/10", "fd00::/8", "::1/128"]
        {
            assert!(!is_public(&net(text)), "{text}");
        }
        for text in ["10.0.0.0/7", "172.32.0.0/16", "192.0.0.0/8", "8.8.8.8/32", "0.0.0.0/0", "2001:db8::/32", "::/0", "::/127"] {
            assert!(is_public(&net(text)), "{text}");
        }
    }

    #[test]
    fn finds_where_clients_overlap_and_who_decides() {
        let client = |name: &str, networks: &[&str]| {
            ClientSettings::new(ClientName::new(name), networks.iter().map(|network| net(network)).collect())
        };
        let settings = Settings {
            clients: vec![
                client("all", &["10.0.0.0/8", "10.9.0.0/16", "2001:db8::/32"]),
                client("erp", &["10.20.0.0/16"]),
                client("printers", &["10.20.30.0/24", "10.9.0.0/24", "192.168.0.0/16"]),
            ],
            ..Settings::default()
        };
        let found: Vec<String> = settings
            .overlaps()
            .iter()
            .map(|overlap| format!("{} {} in {} {}", overlap.decides, overlap.inner, overlap.other, overlap.outer))
            .collect();
        let expected =
            ["erp 10.20.0.0/16 in all 10.0.0.0/8", "printers 10.20.30.0/24 in erp 10.20.0.0/16", "printers 10.9.0.0/24 in all 10.9.0.0/16"];
        assert_eq!(found, expected);
    }
}
