//! What the configuration says, as one value: whoever begins something takes it as it is then, and keeps to it until that has ended. So nothing
//! is ever done by half of one configuration and half of another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::Fault;
use super::tokens::Tokens;
use crate::config::Config;
use crate::intake::{Policy, Users};
use crate::mail::{AccountName, Message, SenderPolicy, Senders};
use crate::notice;
use crate::reply::Catalogue;
use crate::schedule;
use crate::session;
use crate::smtp::Mailbox;
use crate::upstream::{Endpoint, Login, Pool};

/// See the head of this file.
pub(super) struct Setup {
    pub policy: Arc<Policy>,
    pub session: Arc<session::Settings>,
    pub users: Arc<Users>,
    pub schedule: schedule::Settings,
    pub senders: Senders,
    pub accounts: HashMap<AccountName, Upstream>,
    pub tokens: Tokens,
    pub pool: Pool,
    pub catalogue: Catalogue,
    pub notices: notice::Settings,
    pub price_per_million: f64,
    /// How long a stop waits for what is under way.
    pub grace: Duration,
}

/// An account and where it logs in; or a route without accounts.
pub(super) struct Upstream {
    /// None: it has none, and nobody's mail becomes its own.
    pub address: Option<Mailbox>,
    /// What its route makes of the sender.
    pub sender: SenderPolicy,
    pub endpoint: Endpoint,
    /// `host:port`, as logs show it.
    pub relay: String,
    pub login: Option<Login>,
}

impl Setup {
    /// What a configuration means.
    ///
    /// # Errors
    /// If the certificates of an authority cannot be had.
    pub fn new(config: Config) -> Result<Self, Fault> {
        let tokens = Tokens::new(&config.apps)?;
        Ok(Self {
            accounts: upstreams(&config, &tokens)?,
            tokens,
            policy: Arc::new(Policy::new(config.intake)),
            session: Arc::new(config.session),
            users: Arc::new(Users::new(config.users)),
            schedule: config.schedule,
            senders: config.senders,
            pool: Pool::new(config.upstream.pool),
            catalogue: Catalogue::extended(config.replies),
            notices: config.notices,
            price_per_million: config.price_per_million,
            grace: config.grace,
        })
    }

    /// The name that the relay gives itself.
    pub fn hostname(&self) -> &str {
        &self.session.hostname
    }

    /// As whom a message goes out upstream; empty if as it came.
    pub fn sender_of(&self, message: &Message, upstream: &Upstream) -> String {
        let own = &self.senders.of(&message.client).policy;
        let sender = own.as_ref().unwrap_or(&upstream.sender).mailbox(upstream.address.as_ref());
        sender.map_or_else(String::new, Mailbox::to_string)
    }
}

/// Each account with its endpoint; and each route without accounts, under its own name.
fn upstreams(config: &Config, tokens: &Tokens) -> Result<HashMap<AccountName, Upstream>, Fault> {
    let mut upstreams = HashMap::new();
    for route in &config.routes {
        let endpoint = config.endpoint(route)?;
        for account in config.schedule.accounts.iter().filter(|account| account.route == route.name) {
            let login = config.logins.get(&account.name).and_then(|credentials| tokens.login(credentials));
            let address = account.name.as_str().parse().ok().filter(|_| login.is_some());
            let relay = format!("{}:{}", route.host, route.port);
            let sender = route.sender.clone();
            upstreams.insert(account.name.clone(), Upstream { address, sender, endpoint: endpoint.clone(), relay, login });
        }
    }
    Ok(upstreams)
}
