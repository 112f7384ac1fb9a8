//! Who is looked after: suspended accounts, applications and tenants are tried with a login now and then, and accounts that use fewer connections
//! than configured try one more.
//!
//! A login goes through all gates before its account, and no gate sees more than one at a time. Where several accounts could try the gate of an
//! application or of the tenant, they take turns; an account that is itself suspended only when its own time has come, so that no account logs in
//! in vain more often than its own gate has it. Where all accounts are suspended alike, they take turns too, as if it were the tenant's gate.

use crate::clock::Timestamp;

use super::scheduler::Account;
use super::{Change, Decision, Scheduler};

impl Scheduler {
    /// What is to be done for those who are not well, if it is time.
    pub(super) fn tend(&mut self, now: Timestamp) -> Option<Decision> {
        if !self.ailing {
            return None;
        }
        self.grow(now);
        let (_, _, account) = self.logins().filter(|(at, ..)| *at <= now).min()?;
        for holder in self.holders(account) {
            let Self { accounts, apps, routes, tenant_gates, settings, .. } = self;
            let mark = accounts[account].mark;
            holder.gates(accounts, apps, routes, tenant_gates).pass_login(now, mark, settings);
        }
        self.postpone_others(account);
        self.turn += 1;
        let turn = self.turn;
        let account = &mut self.accounts[account];
        (account.probing, account.probed_in) = (true, turn);
        account.active += 1;
        self.health_changed = true;
        Some(Decision::Probe { account: account.name.clone() })
    }

    /// Where all accounts are suspended alike, the login of one tells of all.
    fn postpone_others(&mut self, account: usize) {
        if !self.told_alike {
            return;
        }
        let Some(until) = self.accounts[account].gates.all.trouble().map(|closed| closed.until) else { return };
        let others = (0..self.accounts.len()).filter(|other| *other != account && !self.is_apart(*other)).collect::<Vec<_>>();
        others.into_iter().for_each(|other| self.accounts[other].gates.all.postpone(until));
    }

    /// The next moment at which [`Self::tend`] has something to do.
    pub(super) fn tends_at(&self) -> Option<Timestamp> {
        if !self.ailing {
            return None;
        }
        let grow = self.accounts.iter().filter_map(|account| account.width.grows_at());
        self.logins().map(|(at, ..)| at).chain(grow).min()
    }

    /// Notes whether there is anybody to look after: as long as all are well, that costs nothing.
    pub(super) fn look_after(&mut self) {
        let suspended = |gate: &super::gate::Gate| gate.trouble().is_some_and(super::Closed::is_suspended);
        let gates = self.all_holders().any(|holder| self.gates(holder).each().into_iter().any(suspended));
        self.ailing = gates || self.accounts.iter().any(|account| account.width.grows_at().is_some());
    }

    fn grow(&mut self, now: Timestamp) {
        let mut grown = false;
        for Account { name, width, .. } in &mut self.accounts {
            if width.grow(now, &self.settings) {
                grown = true;
                let (account, using, configured) = (name.clone(), width.allowed(), width.configured());
                self.news.push(Change::Widened { account, using, configured });
                self.health_changed = true;
            }
        }
        if grown {
            self.look_after();
        }
    }

    /// The logins that are to be tried: when, whose last try was when, and on which account.
    fn logins(&self) -> impl Iterator<Item = (Timestamp, u64, usize)> {
        let free = |account: &Account| !account.probing && account.active < account.width.allowed();
        self.in_service().iter().enumerate().filter(move |(_, account)| free(account)).filter_map(|(number, account)| {
            let asked = self.holders(number).filter_map(|holder| self.gates(holder).login_due()).min()?;
            let allowed = account.suspended.as_ref().map_or(Some(Timestamp::default()), |suspension| suspension.until)?;
            let mut let_by = self.holders(number).map(|holder| self.gates(holder).let_login());
            let at = let_by.try_fold(asked.max(allowed), |at, opens| Some(at.max(opens?)))?;
            Some((at, account.probed_in, number))
        })
    }
}
