//! What the end of an attempt, or of a login without mail, says about whom: which gates close, which open, and how many connections an account uses.
//!
//! Four gates stand before each account: its own, that of its application, that of its route, that of the tenant (a route apart has the tenant
//! behind it to itself: its own gate serves for both). Trouble closes the one that it is about. That an attempt got as far as it did ends what any
//! of the four had met at an earlier step. Accounts of the tenant that are all suspended for the same kind of trouble are told of as the tenant.

use crate::clock::Timestamp;
use crate::mail::{AccountName, Class};
use crate::reply::{Pause, PauseLength, Scope, Step};

use super::gate::{Ahead, Closed, Gates, LOGIN};
use super::scheduler::{Account, App, Route};
use super::{Change, Ended, Probed, Scheduler, Who};

/// Who has a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    Account(usize),
    App(usize),
    Route(usize),
    Tenant,
}

impl Holder {
    /// Its gates.
    pub fn gates<'s>(
        self,
        accounts: &'s mut [Account],
        apps: &'s mut [App],
        routes: &'s mut [Route],
        tenant: &'s mut Gates,
    ) -> &'s mut Gates {
        match self {
            Self::Account(account) => &mut accounts[account].gates,
            Self::App(app) => &mut apps[app].gates,
            Self::Route(route) => &mut routes[route].gates,
            Self::Tenant => tenant,
        }
    }
}

/// What ended.
struct Word<'a> {
    account: usize,
    started: Timestamp,
    ahead: Ahead,
    said: Said<'a>,
}

enum Said<'a> {
    /// An attempt for a class met no trouble of an account or of more, and stopped at a step, or did not stop.
    Well(Class, Option<Step>),
    /// A login passed.
    LoggedIn,
    Trouble(&'a Pause),
}

impl Scheduler {
    /// Closes, opens or frees the gates that an ended attempt says something about.
    pub(super) fn heed(&mut self, now: Timestamp, account: usize, class: Class, ended: &Ended) -> Vec<Change> {
        // Where the server took nothing, it is known only that it let the account in.
        let stopped = if ended.used.message { None } else { Some(Step::Mail) };
        let said = ended.pause.as_ref().map_or(Said::Well(class, stopped), Said::Trouble);
        self.hear(now, &Word { account, started: ended.started, ahead: Ahead::Message(ended.delivery), said })
    }

    /// A login without mail has ended: see [`super::Decision::Probe`]. Returns the gates that this closed or opened, to be told.
    pub fn probed(&mut self, now: Timestamp, probed: &Probed) -> Vec<Change> {
        let Some(account) = self.accounts.iter().position(|account| account.name == probed.account && account.probing) else {
            return Vec::new();
        };
        self.accounts[account].probing = false;
        self.accounts[account].active -= 1;
        let said = probed.pause.as_ref().map_or(Said::LoggedIn, Said::Trouble);
        let ahead = Ahead::Login(self.accounts[account].mark);
        self.hear(now, &Word { account, started: probed.started, ahead, said })
    }

    /// A login that had been handed out did not begin: its account is tried when its time has come again.
    pub fn probe_put_back(&mut self, account: &AccountName) {
        let Some(number) = self.accounts.iter().position(|other| other.name == *account && other.probing) else { return };
        let account = &mut self.accounts[number];
        account.probing = false;
        account.active -= 1;
        let mark = account.mark;
        for holder in self.holders(number) {
            let Self { accounts, apps, routes, tenant_gates, .. } = self;
            holder.gates(accounts, apps, routes, tenant_gates).release(Ahead::Login(mark));
        }
    }

    fn hear(&mut self, now: Timestamp, word: &Word<'_>) -> Vec<Change> {
        let mut changes = Vec::new();
        let proven = self.is_proof(word);
        let pause = match &word.said {
            Said::Trouble(pause) => Some(self.booked(now, word.account, pause)),
            _ => None,
        };
        let narrowed = pause.as_ref().is_some_and(|pause| self.narrow(now, word, pause, &mut changes));
        let mine = pause.as_ref().map(|pause| self.holder(word.account, pause.scope));
        for holder in self.holders(word.account) {
            let Self { accounts, apps, routes, tenant_gates, settings, .. } = self;
            let gates = holder.gates(accounts, apps, routes, tenant_gates);
            let (mut opened, mut closed) = (false, None);
            match (&pause, &word.said) {
                (Some(pause), _) if narrowed => opened = gates.all.got_past(word.started, Some(pause.step)),
                (Some(pause), _) if mine == Some(holder) => closed = gates.of(pause.class).fail(now, word.started, pause, settings),
                (Some(pause), _) => opened = gates.all.got_past(word.started, Some(pause.step)),
                (None, Said::LoggedIn) => opened = gates.logged_in(now, word.started),
                (None, Said::Well(class, stopped)) => opened = gates.got_past(word.started, *class, *stopped),
                (None, Said::Trouble(_)) => {}
            }
            gates.release(word.ahead);
            if let (Some(until), Some(pause)) = (closed, &pause) {
                changes.push(Change::Closed { gate: self.who(holder), until, pause: pause.clone() });
            } else if opened {
                changes.push(Change::Opened { gate: self.who(holder) });
            }
        }
        self.health_changed = true;
        self.tell_alike(&mut changes, proven);
        self.look_after();
        changes
    }

    /// Whether this shows that an account is well whose trouble, which all accounts have, is over in the operator's opinion.
    fn is_proof(&mut self, word: &Word<'_>) -> bool {
        let ends = |stopped| self.alike().is_none_or(|(_, closed)| closed.ends_with(stopped));
        let (answers, proves) = match &word.said {
            Said::Well(_, stopped) => (ends(*stopped), true),
            Said::LoggedIn => (ends(LOGIN), true),
            // Of what passes by itself, or is not its own, it is nobody's answer.
            Said::Trouble(pause) => {
                (pause.length == PauseLength::Suspended && self.holder(word.account, pause.scope) == Holder::Account(word.account), false)
            }
        };
        self.accounts[word.account].unproven.take_if(|since| answers && word.started >= *since).is_some() && proves
    }

    /// Has an account use fewer connections, if that is what is asked for and can be done.
    fn narrow(&mut self, now: Timestamp, word: &Word<'_>, pause: &Pause, changes: &mut Vec<Change>) -> bool {
        if pause.length != PauseLength::FewerConnections {
            return false;
        }
        let account = &mut self.accounts[word.account];
        if !account.width.fewer(now, word.started, account.active, pause, &self.settings) {
            return false;
        }
        changes.push(Change::Narrowed {
            account: account.name.clone(),
            using: account.width.allowed(),
            configured: account.width.configured(),
            pause: pause.clone(),
        });
        true
    }

    /// Books what the server says is used up, so that it stays so across restarts: the pause then lasts until the budget frees.
    fn booked(&mut self, now: Timestamp, account: usize, pause: &Pause) -> Pause {
        let budget = if pause.scope == Scope::Tenant { &mut self.tenant } else { &mut self.accounts[account].budget };
        let until = pause.limit.and_then(|limit| budget.close(limit, now)).and_then(|wait| wait.until);
        let length = until.map_or(pause.length, |until| PauseLength::For(until.since(now)));
        Pause { length, ..pause.clone() }
    }

    /// Accounts that are all suspended alike are told of as the tenant, once; and when that is over, each of those that still are. `proven`: an
    /// account that was put right has shown that it is well.
    fn tell_alike(&mut self, changes: &mut Vec<Change>, proven: bool) {
        let alike = self.alike().map(|(accounts, closed)| {
            let reason = format!("all {accounts} accounts: {}", closed.pause.reason);
            (closed.until, Pause { scope: Scope::Tenant, reason, ..closed.pause.clone() })
        });
        let of_account = |change: &Change| matches!(change, Change::Closed { gate: Who::Account(_), pause, .. } if pause.length == PauseLength::Suspended);
        match (self.told_alike, alike) {
            (false, Some((until, pause))) => {
                changes.retain(|change| !of_account(change));
                changes.push(Change::Closed { gate: Who::Tenant, until, pause });
                self.told_alike = true;
            }
            (true, Some(_)) => changes.retain(|change| !of_account(change)),
            (true, None) => {
                self.told_alike = false;
                if self.tenant_gates.all.trouble().is_none() {
                    changes.push(Change::Opened { gate: Who::Tenant });
                }
                // What ended for one of them may have ended for all, and if not, it is their own trouble from here on.
                let proven = proven || changes.iter().any(|change| matches!(change, Change::Opened { gate: Who::Account(_) }));
                let Self { accounts, routes, .. } = self;
                let is_member = |account: &&mut Account| account.suspended.is_none() && !routes[usize::from(account.route)].apart;
                accounts.iter_mut().for_each(|account| account.unproven = None);
                for account in accounts.iter_mut().filter(is_member) {
                    let Some(closed) = account.gates.all.trouble().filter(|closed| closed.is_suspended()).cloned() else { continue };
                    let gate = Who::Account(account.name.clone());
                    if proven {
                        account.gates.hurry();
                    } else if !changes.iter().any(|change| matches!(change, Change::Closed { gate: other, .. } if *other == gate)) {
                        changes.push(Change::Closed { gate, until: closed.until, pause: closed.pause });
                    }
                }
            }
            (false, None) => {}
        }
    }

    /// The trouble for which all accounts of the tenant are suspended, if it is one and the same, and how many they are.
    pub(super) fn alike(&self) -> Option<(usize, &Closed)> {
        let member = |(number, account): &(usize, &Account)| !self.is_apart(*number) && account.suspended.is_none();
        let (mut accounts, mut found): (usize, Option<&Closed>) = (0, None);
        for (_, account) in self.in_service().iter().enumerate().filter(member) {
            accounts += 1;
            if account.unproven.is_some() {
                continue;
            }
            let closed = account.gates.all.trouble().filter(|closed| closed.is_suspended())?;
            if found.is_some_and(|first| first.pause.kind != closed.pause.kind) {
                return None;
            }
            found = found.filter(|first| first.since <= closed.since).or(Some(closed));
        }
        found.filter(|_| accounts > 1).map(|closed| (accounts, closed))
    }

    /// An account is no part of the tenant.
    pub(super) fn is_apart(&self, account: usize) -> bool {
        self.routes[usize::from(self.accounts[account].route)].apart
    }

    /// Those whose gates stand before an account.
    pub(super) fn holders(&self, account: usize) -> impl Iterator<Item = Holder> + use<> {
        let Account { route, app, .. } = &self.accounts[account];
        let route = usize::from(*route);
        let tenant = (!self.routes[route].apart).then_some(Holder::Tenant);
        [Some(Holder::Account(account)), app.map(Holder::App), Some(Holder::Route(route)), tenant].into_iter().flatten()
    }

    /// Whose trouble it is that an account met.
    fn holder(&self, account: usize, scope: Scope) -> Holder {
        let Account { route, app, .. } = &self.accounts[account];
        let route = usize::from(*route);
        match scope {
            Scope::Tenant if self.routes[route].apart => Holder::Route(route),
            Scope::Tenant => Holder::Tenant,
            Scope::Connection => Holder::Route(route),
            Scope::App => app.map_or(Holder::Account(account), Holder::App),
            Scope::Account | Scope::Recipient | Scope::Message => Holder::Account(account),
        }
    }

    pub(super) fn gates(&self, holder: Holder) -> &Gates {
        match holder {
            Holder::Account(account) => &self.accounts[account].gates,
            Holder::App(app) => &self.apps[app].gates,
            Holder::Route(route) => &self.routes[route].gates,
            Holder::Tenant => &self.tenant_gates,
        }
    }

    pub(super) fn who(&self, holder: Holder) -> Who {
        match holder {
            Holder::Account(account) => Who::Account(self.accounts[account].name.clone()),
            Holder::App(app) => Who::App(self.apps[app].name.clone()),
            Holder::Route(route) => Who::Route(self.routes[route].name.clone()),
            Holder::Tenant => Who::Tenant,
        }
    }

    /// Who is not well may be another now, and what was told of the tenant another matter.
    pub(super) fn look_anew(&mut self) {
        self.health_changed = true;
        let mut news = std::mem::take(&mut self.news);
        self.tell_alike(&mut news, false);
        self.news = news;
        self.look_after();
    }

    /// All who have a gate.
    pub(super) fn all_holders(&self) -> impl Iterator<Item = Holder> + use<> {
        let (accounts, apps, routes) = (self.accounts.len(), self.apps.len(), self.routes.len());
        let of_each = (0..accounts).map(Holder::Account).chain((0..apps).map(Holder::App)).chain((0..routes).map(Holder::Route));
        of_each.chain([Holder::Tenant])
    }
}
