//! Going on by another configuration: SIGHUP, or an operator's `hve-relay reload`.
//!
//! Everything that can fail comes first: the file is read, with the files that it names, endpoints and tokens are made ready, new listeners and the
//! operators' new socket are bound, the history and the log's file are opened. If anything is wrong, all of it is told and nothing has changed. Then
//! the dispatcher puts the new [`Setup`] in the place of the old one between two decisions, so that no attempt is chosen by one and made by the
//! other. Sessions and attempts under way keep to the one with which they began. Listeners that are gone accept nothing more, and their
//! sessions end by themselves. Then queued mail whose route does not take it any more is sent another way (`sorting`). Last, when whoever asked
//! has the answer, a socket that is gone is closed.
//!
//! This task owns the listeners, and carries out one reload after another. What cannot change while the process lives is the data directory: that is
//! refused in words.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};

use super::control::Way;
use super::dispatch::{Event, Switch};
use super::listening::{self, Listening};
use super::socket::Socket;
use super::sockets::Opening;
use super::web::{OpeningPage, Web};
use super::{Fault, Inherited, Phase, Setup, Shared, descriptors, history, service, sorting};
use crate::admin::{Operator, Refusal, Reloaded};
use crate::config::Config;
use crate::intake;
use crate::mail::{AccountName, RouteName};
use crate::notice::{Alarm, AlarmChange};
use crate::schedule::Who;
use crate::store::Spool;
use crate::store::history::History;
use crate::telemetry::{self, Prepared};

/// An operator who asks for a reload, and waits for what comes of it.
pub(super) struct Asked {
    pub by: Operator,
    pub answer: oneshot::Sender<Result<Reloaded, Refusal>>,
}

/// See the head of this file.
pub(super) struct Reloads {
    pub path: PathBuf,
    pub hangup: Signal,
    pub asked: mpsc::Receiver<Asked>,
    /// Mail was queued under another configuration than the one with which the relay has begun.
    pub sort_first: bool,
    pub last: Last,
    pub web: Web,
    /// To whoever serves the operators.
    pub ways: mpsc::UnboundedSender<Way>,
    /// Each closes a socket at which operators are heard; but for moments there is one.
    pub sockets: Vec<oneshot::Sender<()>>,
}

/// What was configured last, as far as it is compared.
pub(super) struct Last {
    data_dir: PathBuf,
    control_socket: PathBuf,
    keeps_history: bool,
    intake: intake::Settings,
}

impl Last {
    pub fn of(config: &Config) -> Self {
        Self {
            data_dir: config.store.data_dir.clone(),
            control_socket: config.control_socket.clone(),
            keeps_history: config.history.keep.is_some(),
            intake: config.intake.clone(),
        }
    }
}

/// All that could fail and did not.
struct Ready {
    opening: Opening,
    page: OpeningPage,
    /// None: it stays where it is.
    socket: Option<Socket>,
    /// None: there is one, or there is none, as before.
    history: Option<History>,
    log: Prepared,
    setup: Arc<Setup>,
}

impl Reloads {
    /// Has operators heard at this socket too.
    pub fn hear_at(&mut self, socket: Socket) {
        let (close, told) = oneshot::channel();
        // If nobody serves any more, the relay is ending.
        let _ = self.ways.send(Way::Socket(socket, told));
        self.sockets.push(close);
    }

    /// Has the page be as it is configured now.
    pub fn show(&mut self, page: OpeningPage) {
        for listener in self.web.follow(page) {
            let _ = self.ways.send(Way::Page(listener));
        }
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
            let former = self.sockets.len().saturating_sub(1);
            for close in self.sockets.drain(..former) {
                // What was asked there is answered before it is gone.
                let _ = close.send(());
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
        let (login_failures, store, keep) = (config.login_failures, config.store.clone(), config.history);
        let old = shared.setup();
        let Ready { opening, page, socket, history, log, setup } = self.prepare(shared, listening, config).await?;

        // From here on nothing fails.
        log.take_over();
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
        match history {
            Some(history) => keep_in(shared, history).await,
            None => shared.history.follow(&keep, store.reserve),
        }
        self.last = next;
        old.pool.succeeded_by(&setup.pool, |account| setup.accounts.contains_key(account) && !changed.accounts.contains(account));
        let listeners = listening.follow(shared, opening).iter().map(SocketAddr::to_string).collect();
        self.show(page);
        if let Some(socket) = socket {
            self.hear_at(socket);
        }
        changed.clear_alarms(shared);
        let rerouted = if rerouting { sorting::all(shared).await } else { 0 };
        let warnings = warnings.iter().map(ToString::to_string).collect();
        Ok(Reloaded { listeners, accounts: setup.schedule.accounts.len(), rerouted, warnings })
    }

    /// Does all that can fail.
    ///
    /// # Errors
    /// All that does. Then nothing has changed.
    async fn prepare<S: Spool>(
        &mut self,
        shared: &Arc<Shared<S>>,
        listening: &mut Listening,
        config: Config,
    ) -> Result<Ready, Vec<String>> {
        let Last { data_dir, control_socket, .. } = &self.last;
        if *data_dir != config.store.data_dir {
            let (path, old, new) = (self.path.display(), data_dir.display(), config.store.data_dir.display());
            // Nothing is tried in a directory that may be another relay's.
            return Err(vec![format!("{path}: data_dir: {new} in place of {old} needs a restart")]);
        }
        let mut problems = Vec::new();
        let nothing_passed_on = &mut Inherited::default();
        // The page may take a listener's place, and a listener the page's.
        let going = listening.going(&config.listeners).and(self.web.going(&config.admin));
        let opening = or_told(&mut problems, listening.open(&config.listeners, nothing_passed_on, &going));
        let entries = opening.as_ref().and_then(|opening| {
            let entries = listening::entries(opening, &config.listeners, &config.session, shared.clock.now());
            or_told(&mut problems, entries)
        });
        let page = or_told(&mut problems, self.web.open(&config.admin, nothing_passed_on, &going));
        let moved = (*control_socket != config.control_socket).then_some(&config.control_socket);
        let socket = moved.map(|path| Socket::bind(path).map_err(|why| Fault::control(path, why))).transpose();
        let socket = or_told(&mut problems, socket.map_err(Some));
        let history = or_told(&mut problems, self.history(shared, &config).await.map_err(Some));
        let log = or_told(&mut problems, telemetry::prepare(&config.log, data_dir, config.spared()).map_err(Some));
        let setup = entries.and_then(|entries| or_told(&mut problems, shared.setup().renewed(config, entries).map_err(Some)));
        let (Some(mut opening), Some(mut page), Some(socket), Some(history), Some(log), Some(setup)) =
            (opening, page, socket, history, log, setup)
        else {
            return Err(problems);
        };
        opening.listen(&going).and_then(|()| page.listen(&going)).map_err(|fault| vec![fault.to_string()])?;
        Ok(Ready { opening, page, socket, history, log, setup: Arc::new(setup) })
    }

    /// The history that takes the place of the present one, if it does not stay.
    async fn history<S: Spool>(&self, shared: &Shared<S>, config: &Config) -> Result<Option<History>, String> {
        if config.history.keep.is_none() {
            return Ok(shared.history.is_kept().then(History::off));
        }
        if shared.history.is_kept() {
            return Ok(None);
        }
        let (settings, data_dir, reserve) = (config.history, config.store.data_dir.clone(), config.store.reserve);
        let opened = tokio::task::spawn_blocking(move || history::open(&settings, &data_dir, reserve)).await;
        match opened.map_err(|error| error.to_string()).and_then(|opened| opened.map_err(|error| error.to_string())) {
            Ok(history) => Ok(Some(history)),
            // It was to be kept before, and could not be had either: that is no reason to refuse anything else.
            Err(why) if self.last.keeps_history => {
                telemetry::history_unavailable(&why);
                Ok(None)
            }
            Err(why) => Err(format!("no history can be kept: {why}")),
        }
    }
}

/// Keeps another history; the one before is written to its end.
async fn keep_in<S: Spool>(shared: &Arc<Shared<S>>, history: History) {
    let shared = shared.clone();
    // If the runtime is ending, so is the relay.
    let _ = tokio::task::spawn_blocking(move || shared.history.replace(history)).await;
}

/// What came of it; if nothing did, the problems are noted. A fault that is the only one comes as `Some`.
fn or_told<T, E: Display>(problems: &mut Vec<String>, tried: Result<T, impl IntoIterator<Item = E>>) -> Option<T> {
    tried.map_err(|faults| problems.extend(faults.into_iter().map(|fault| fault.to_string()))).ok()
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
