//! What the configuration says, as one value: whoever begins something takes it as it is then, and keeps to it until that has ended. So nothing
//! is ever done by half of one configuration and half of another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::Fault;
use super::endings::{self, Ending};
use super::listener::Entry;
use super::tokens::Tokens;
use crate::config::{Config, Credentials, Route};
use crate::intake::{Policy, Users};
use crate::mail::{AccountName, ClientName, Message, SenderPolicy, Senders};
use crate::notice;
use crate::reply::{Catalogue, Pause, Step};
use crate::schedule;
use crate::session;
use crate::smtp::Mailbox;
use crate::telemetry;
use crate::upstream::oauth::App;
use crate::upstream::{Endpoint, Login, Pool, Timeouts, Turns};

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
    /// What each listener does with its connections, by the listener's number.
    pub entries: HashMap<usize, Arc<Entry>>,
    /// Secrets and certificates.
    pub endings: Arc<[Ending]>,
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
    /// The most recipients that travel together.
    pub most: u16,
    pub written: Written,
}

/// What an upstream was made of, to be compared with another configuration.
#[derive(Debug, PartialEq)]
pub(super) struct Written {
    pub route: Route,
    credentials: Option<Credentials>,
    app: Option<App>,
    timeouts: Timeouts,
    hostname: String,
}

impl Upstream {
    /// Of how many refusals of its logins the dispatcher has heard, for what it sends now; see [`Turns`].
    pub fn heard(&self) -> u64 {
        self.login.as_ref().map_or(0, |login| login.turns.heard())
    }

    /// The logins of whose refusal the dispatcher is to hear, where that is what was met.
    pub fn refused(&self, pause: Option<&Pause>) -> Option<Turns> {
        let login = self.login.as_ref().filter(|_| pause.is_some_and(|pause| pause.step == Step::Auth));
        login.map(|login| login.turns.clone())
    }
}

impl Setup {
    /// What a configuration means.
    ///
    /// # Errors
    /// If the certificates of an authority cannot be had.
    pub fn new(config: Config, entries: HashMap<usize, Arc<Entry>>) -> Result<Self, Fault> {
        let tokens = Tokens::new(&config.apps, None)?;
        let policy = Policy::new(config.intake.clone());
        Self::with(config, entries, tokens, policy, &HashMap::new())
    }

    /// What another configuration means: tokens, what clients have used of a minute, and whose turn it is to log in on an account that stays as
    /// it was, are taken over.
    ///
    /// # Errors
    /// As of [`Self::new`].
    pub fn renewed(&self, config: Config, entries: HashMap<usize, Arc<Entry>>) -> Result<Self, Fault> {
        let tokens = Tokens::new(&config.apps, Some(&self.tokens))?;
        let policy = self.policy.renewed(config.intake.clone());
        Self::with(config, entries, tokens, policy, &self.accounts)
    }

    fn with(
        config: Config,
        entries: HashMap<usize, Arc<Entry>>,
        tokens: Tokens,
        policy: Policy,
        former: &HashMap<AccountName, Upstream>,
    ) -> Result<Self, Fault> {
        let clients: Vec<ClientName> = config.intake.clients.iter().map(|client| client.name.clone()).collect();
        let names: Vec<AccountName> = config.schedule.accounts.iter().map(|account| account.name.clone()).collect();
        telemetry::expect(&clients, &names);
        Ok(Self {
            accounts: upstreams(&config, &tokens, former)?,
            endings: endings::of(&config).into(),
            tokens,
            entries,
            policy: Arc::new(policy),
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
fn upstreams(config: &Config, tokens: &Tokens, former: &HashMap<AccountName, Upstream>) -> Result<HashMap<AccountName, Upstream>, Fault> {
    let mut upstreams = HashMap::new();
    for route in &config.routes {
        let endpoint = config.endpoint(route)?;
        for account in config.schedule.accounts.iter().filter(|account| account.route == route.name) {
            let mut login = config.logins.get(&account.name).and_then(|credentials| tokens.login(credentials));
            let address = account.name.as_str().parse().ok().filter(|_| login.is_some());
            let relay = format!("{}:{}", route.host, route.port);
            let sender = route.sender.clone();
            let credentials = config.logins.get(&account.name).cloned();
            let app = credentials.as_ref().and_then(|credentials| credentials.proof.app());
            let written = Written {
                route: route.clone(),
                app: config.apps.iter().find(|known| Some(&known.name) == app).cloned(),
                credentials,
                timeouts: config.upstream.timeouts,
                hostname: config.session.hostname.clone(),
            };
            let kept = former.get(&account.name).filter(|former| former.written == written);
            if let (Some(login), Some(kept)) = (&mut login, kept.and_then(|former| former.login.as_ref())) {
                login.turns = kept.turns.clone();
            }
            let most = config.intake.routes.iter().find(|settings| settings.name == route.name);
            let most = most.map_or(u16::MAX, |settings| settings.recipients_per_delivery.clamp(1, usize::from(u16::MAX)) as u16);
            let endpoint = endpoint.clone();
            upstreams.insert(account.name.clone(), Upstream { address, sender, endpoint, relay, login, most, written });
        }
    }
    Ok(upstreams)
}
