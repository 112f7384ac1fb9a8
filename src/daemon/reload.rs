//! Going on by another configuration: SIGHUP, or an operator's `hve-relay reload`.
//!
//! Everything that can fail comes first: the file is read, with the files that it names, endpoints and tokens are made ready, new listeners are
//! bound, the log's file is opened. If anything is wrong, all of it is told and nothing has changed. Then the dispatcher puts the new [`Setup`]
//! in the place of the old one between two decisions, so that no attempt is chosen by one and made by the other. Sessions and attempts under way
//! keep to the one with which they began. Listeners that are gone accept nothing more, and their sessions end by themselves. Last, queued mail
//! whose route does not take it any more is sent another way (`sorting`).
//!
//! This task owns the listeners, and carries out one reload after another. What cannot change while the process lives is refused in words.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};

use super::dispatch::{Event, Switch};
use super::listening::Listening;
use super::{Fault, Inherited, Phase, Setup, Shared, descriptors, service, sorting};
use crate::admin::{Operator, Refusal, Reloaded};
use crate::config::{Admin, Config};
use crate::intake;
use crate::mail::{AccountName, RouteName};
use crate::notice::{Alarm, AlarmChange};
use crate::schedule::Who;
use crate::store::Spool;
use crate::telemetry;

/// An operator who asks for a reload, and waits for what comes of it.
pub(super) struct Asked {
    pub by: Operator,
    pub answer: oneshot::Sender<Result<Reloaded, Refusal>>,
}

/// See the head of this file.
pub(super) struct Reloads {
    path: PathBuf,
    hangup: Signal,
    asked: mpsc::Receiver<Asked>,
    /// Mail was queued under another configuration than the one with which the relay has begun.
    pub sort_first: bool,
    /// What was configured last, as far as it is compared.
    last: Last,
}

/// See [`Reloads::last`].
struct Last {
    fixed: Vec<(&'static str, String)>,
    /// None: there is no page.
    admin: Option<Admin>,
    intake: intake::Settings,
}

impl Last {
    fn of(config: &Config) -> Self {
        let admin = Some(config.admin.clone()).filter(|admin| !admin.listen.is_empty());
        Self { fixed: fixed(config), admin, intake: config.intake.clone() }
    }
}

/// What stays as it is as long as the process lives, by its key.
fn fixed(config: &Config) -> Vec<(&'static str, String)> {
    vec![
        ("data_dir", config.store.data_dir.display().to_string()),
        ("control_socket", config.control_socket.display().to_string()),
        ("log.format", format!("{:?}", config.log.format).to_lowercase()),
        ("history.keep", config.history.keep.map_or("none", |_| "a time").to_owned()),
    ]
}

impl Reloads {
    /// For a relay that was started with this configuration, from that file.
    pub fn new(path: PathBuf, config: &Config, hangup: Signal, asked: mpsc::Receiver<Asked>) -> Self {
        Self { path, hangup, asked, sort_first: false, last: Last::of(config) }
    }

    /// Runs until the relay stops and the sessions of all listeners have ended.
    pub async fn run<S: Spool>(mut self, shared: Arc<Shared<S>>, mut listening: Listening) {
        if self.sort_first {
            sorting::all(&shared).await;
        }
        loop {
            let asked = tokio::select! {
                _ = self.hangup.recv() => None,
                Some(asked) = self.asked.recv() => Some(asked),
                () = shared.shutdown.reached(Phase::Stopping) => break,
            };
            let by = asked.as_ref().map_or("SIGHUP", |asked| asked.by.0.as_str());
            service::reloading();
            // Whoever has moved the log's file away wants a new one, whatever the configuration is like.
            telemetry::hang_up();
            let outcome = self.reload(&shared, &mut listening).await;
            match &outcome {
                Ok(Reloaded { listeners, accounts, rerouted, warnings }) => {
                    warnings.iter().for_each(|warning| telemetry::config_warning(warning));
                    telemetry::reloaded(by, listeners, *accounts, *rerouted);
                }
                Err(problems) => {
                    problems.iter().for_each(|problem| telemetry::reload_failed(by, problem));
                }
            }
            service::ready();
            if let Some(asked) = asked {
                // Whoever asked may have gone.
                let _ = asked.answer.send(outcome.map_err(|problems| Refusal::Conflict(problems.join("\n"))));
            }
        }
        drop(self.asked);
        listening.ended(&shared.shutdown).await;
    }

    /// # Errors
    /// All that is wrong. Then nothing has changed.
    async fn reload<S: Spool>(&mut self, shared: &Arc<Shared<S>>, listening: &mut Listening) -> Result<Reloaded, Vec<String>> {
        let path = self.path.clone();
        let loaded = tokio::task::spawn_blocking(move || Config::load(&path)).await.map_err(|error| vec![error.to_string()])?;
        let (mut config, warnings) = loaded.map_err(|problems| problems.to_string().lines().map(str::to_owned).collect::<Vec<_>>())?;
        descriptors::provide(&mut config);
        let next = Last::of(&config);
        let moved = self.last.fixed.iter().zip(&next.fixed).filter(|(old, new)| old != new);
        let mut moved: Vec<String> = moved
            .map(|((key, old), (_, new))| format!("{}: {key}: {new} in place of {old} needs a restart", self.path.display()))
            .collect();
        if self.last.admin != next.admin {
            // What stands there may be a secret.
            moved.push(format!("{}: admin: another listener, or other names, users or tokens for it, need a restart", self.path.display()));
        }
        if !moved.is_empty() {
            return Err(moved);
        }
        let now = shared.clock.now();
        let why = |fault: Fault| vec![fault.to_string()];
        let opening = listening.open(&config.listeners, &mut Inherited::default()).map_err(why)?;
        let entries = opening.entries(&config.listeners, &config.session, now).map_err(why)?;
        let (log, spared) = (config.log.clone(), config.spared());
        let (login_failures, store, history) = (config.login_failures, config.store.clone(), config.history);
        let old = shared.setup();
        let setup = Arc::new(old.renewed(config, entries).map_err(why)?);
        telemetry::reconfigure(&log, &store.data_dir, spared).map_err(|fault| vec![fault.to_string()])?;

        // From here on nothing fails.
        let rerouting = routes_differ(&self.last.intake, &next.intake);
        let changed = changed(&old, &setup);
        let (done, switched) = oneshot::channel();
        shared.tell(Event::Switch(Box::new(Switch { setup: setup.clone(), try_again: changed.all(), resting: rerouting, done })));
        switched.await.map_err(|_| vec!["the relay is stopping".to_owned()])?;
        shared.doorway.keep_to(&next.intake);
        shared.logins.change(login_failures);
        shared.desk.change(&setup.notices);
        shared.alarms.change(&setup.notices);
        shared.store.follow(&store);
        shared.history.follow(&history, store.reserve);
        self.last = next;
        old.pool.succeeded_by(&setup.pool, |account| setup.accounts.contains_key(account) && !changed.accounts.contains(account));
        let listeners = listening.follow(shared, opening).iter().map(SocketAddr::to_string).collect();
        changed.clear_alarms(shared);
        let rerouted = if rerouting { sorting::all(shared).await } else { 0 };
        let warnings = warnings.iter().map(ToString::to_string).collect();
        Ok(Reloaded { listeners, accounts: setup.schedule.accounts.len(), rerouted, warnings })
    }
}

/// Whether queued mail may have to go another way.
fn routes_differ(old: &intake::Settings, new: &intake::Settings) -> bool {
    let by_client = |settings: &intake::Settings| -> Vec<_> {
        settings.clients.iter().map(|client| (client.name.clone(), client.route.clone())).collect()
    };
    old.routes != new.routes || old.accepted_domains != new.accepted_domains || by_client(old) != by_client(new)
}

/// The accounts and routes that are not as they were.
struct Changed {
    accounts: BTreeSet<AccountName>,
    routes: BTreeSet<RouteName>,
    gone: BTreeSet<AccountName>,
    gone_routes: BTreeSet<RouteName>,
}

fn changed(old: &Setup, new: &Setup) -> Changed {
    let routes_of = |setup: &Setup| setup.schedule.accounts.iter().map(|account| account.route.clone()).collect::<BTreeSet<_>>();
    let gone = old.accounts.keys().filter(|account| !new.accounts.contains_key(*account)).cloned().collect();
    let gone_routes = routes_of(old).difference(&routes_of(new)).cloned().collect();
    let mut changed = Changed { accounts: BTreeSet::new(), routes: BTreeSet::new(), gone, gone_routes };
    for (account, upstream) in &new.accounts {
        let Some(before) = old.accounts.get(account) else { continue };
        if before.written != upstream.written {
            changed.accounts.insert(account.clone());
        }
        if before.written.route != upstream.written.route {
            changed.routes.insert(upstream.written.route.name.clone());
        }
    }
    changed
}

impl Changed {
    /// What stood in the way of these may have been put right.
    fn all(&self) -> Vec<Who> {
        let accounts = self.accounts.iter().cloned().map(Who::Account);
        accounts.chain(self.routes.iter().cloned().map(Who::Route)).collect()
    }

    /// What is not there any more is nobody's trouble.
    fn clear_alarms<S: Spool>(&self, shared: &Shared<S>) {
        for account in &self.gone {
            shared.alarm(Alarm::AccountSuspended(account.clone()), AlarmChange::Cleared);
        }
        for route in &self.gone_routes {
            shared.alarm(Alarm::RouteSuspended(route.clone()), AlarmChange::Cleared);
        }
    }
}
