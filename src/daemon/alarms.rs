//! Alarms on their way to the operators: into the log at once, into the store, and gathered into mail that goes through the queue like any other.
//!
//! Whoever sees that something is so, or no longer so, says it with [`Shared::alarm`], as often as it is seen; [`Alarms`] decides what is news.
//! Mail is written only while some account can send: with all of them suspended it would only wait, and say less than the mail that is written
//! when one is back. What cannot be seen from any event is looked at here from time to time: the disk, and the age of the oldest mail.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::attempt::queued;
use super::dispatch::Event;
use super::{Phase, Shared, sleep};
use crate::clock::Timestamp;
use crate::intake::Addressee;
use crate::mail::ClientName;
use crate::notice::{self, Alarm, AlarmChange, Alarms, Settings, Standing, alarm_mail};
use crate::reply::PauseLength;
use crate::schedule::{AccountSettings, Change, Who};
use crate::smtp::{Mailbox, RecipientDsn};
use crate::store::{AlarmRow, NewMessage, Spool, StoreError};
use crate::telemetry;
use crate::units::format_duration;

/// How often it is looked at what no event tells.
const WATCH: Duration = Duration::from_secs(60);

/// The alarms, and a bell that rings with each change.
#[derive(Debug)]
pub(super) struct Board {
    alarms: Mutex<Alarms>,
    changed: Notify,
}

impl Board {
    /// With what the store knows of alarms. Of those whose trouble is not there any more, such as that of an account which the configuration no
    /// longer has, nothing is told; `suspended` are those who are.
    pub(super) fn new(settings: &Settings, rows: Vec<AlarmRow>, suspended: &[Who]) -> Self {
        let known = rows.into_iter().filter_map(|AlarmRow { name, since, why, cleared, told }| {
            let alarm: Alarm = name.parse().ok()?;
            let gone = cleared.is_none() && who(&alarm).is_some_and(|who| !suspended.contains(&who));
            (!gone).then_some((alarm, Standing { since, why, cleared, told }))
        });
        let alarms = Alarms::new(settings.alarm_delay, settings.per_hour, known);
        Self { alarms: Mutex::new(alarms), changed: Notify::new() }
    }

    /// Goes on at another pace.
    pub(super) fn change(&self, settings: &Settings) {
        self.lock().pace(settings.alarm_delay, settings.per_hour);
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Alarms> {
        // Each change is whole before anything can panic.
        self.alarms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Spool> Shared<S> {
    /// Something that operators must know is so, or no longer so. To say it again changes nothing.
    pub(super) fn alarm(&self, alarm: Alarm, change: AlarmChange) {
        let now = self.clock.now();
        let mut alarms = self.alarms.lock();
        if !alarms.change(now, &alarm, &change) {
            return;
        }
        telemetry::alarm(&alarm, &change);
        if self.setup().notices.operators.is_empty() {
            let untold = alarms.untold();
            alarms.told(now, &untold);
        }
        drop(alarms);
        self.alarms.changed.notify_one();
    }

    /// The alarms that stand.
    pub(super) fn standing(&self) -> Vec<Alarm> {
        let alarms = self.alarms.lock();
        alarms.known().filter(|(alarm, _)| alarms.stands(alarm)).map(|(alarm, _)| alarm.clone()).collect()
    }

    /// What a gate says of an account, or of more. The tenant's alarm stands for those of its accounts.
    pub(super) fn alarm_of_gate(&self, change: &Change) {
        match change {
            Change::Closed { gate, pause, .. } if pause.length == PauseLength::Suspended => {
                if *gate == Who::Tenant {
                    let mut alarms = self.alarms.lock();
                    let schedule = &self.setup().schedule;
                    let members = schedule.accounts.iter().filter(|account| !schedule.apart.contains(&account.route));
                    members.for_each(|account| alarms.withdraw(&Alarm::AccountSuspended(account.name.clone())));
                }
                self.alarm(about(gate), AlarmChange::Raised(format!("{}. {}", pause.reason.trim_end_matches('.'), pause.advice)));
            }
            Change::Closed { .. } | Change::Narrowed { .. } | Change::Widened { .. } => {}
            Change::Opened { gate } => self.alarm(about(gate), AlarmChange::Cleared),
        }
    }
}

/// The alarm of those who are suspended.
fn about(who: &Who) -> Alarm {
    match who {
        Who::Account(account) => Alarm::AccountSuspended(account.clone()),
        Who::App(app) => Alarm::AppSuspended(app.clone()),
        Who::Route(route) => Alarm::RouteSuspended(route.clone()),
        Who::Tenant => Alarm::TenantSuspended,
    }
}

/// Whose suspension an alarm is about, if it is about one.
fn who(alarm: &Alarm) -> Option<Who> {
    match alarm {
        Alarm::AccountSuspended(account) => Some(Who::Account(account.clone())),
        Alarm::AppSuspended(app) => Some(Who::App(app.clone())),
        Alarm::RouteSuspended(route) => Some(Who::Route(route.clone())),
        Alarm::TenantSuspended => Some(Who::Tenant),
        Alarm::DiskLow | Alarm::CertificateEnding(_) | Alarm::SecretEnding(_) | Alarm::QueueOld => None,
    }
}

/// Keeps the store up to date and writes mail, until the relay stops.
pub(super) async fn run<S: Spool>(shared: Arc<Shared<S>>) {
    let mut not_before = Timestamp::default();
    loop {
        let now = shared.clock.now();
        let due = shared.alarms.lock().due().filter(|_| !shared.setup().notices.operators.is_empty()).map(|due| due.max(not_before));
        let changed = tokio::select! {
            () = shared.alarms.changed.notified() => true,
            () = sleep(due.map(|due| due.since(now))) => false,
            () = shared.shutdown.reached(Phase::Stopping) => return,
        };
        let now = shared.clock.now();
        if changed {
            let known = shared.alarms.lock().known().map(|(alarm, standing)| (alarm.clone(), standing.clone())).collect();
            keep(&shared, known, None).await;
        } else if !tell(&shared, now).await {
            not_before = now + shared.setup().notices.alarm_delay;
        }
    }
}

/// Writes the mail that is due. False if it cannot be sent yet, or could not be kept.
async fn tell<S: Spool>(shared: &Shared<S>, now: Timestamp) -> bool {
    let setup = shared.setup();
    let addressee = |address: &Mailbox| {
        let class = setup.policy.recipient(&ClientName::new(notice::OWN), address, None).ok()?;
        Some(Addressee { address: address.clone(), class, dsn: RecipientDsn::default() })
    };
    let addressees: Vec<Addressee> = setup.notices.operators.iter().filter_map(addressee).collect();
    if addressees.is_empty() {
        return false;
    }
    let (untold, after) = {
        let alarms = shared.alarms.lock();
        let sends = |account: &AccountSettings| {
            let alone = [Alarm::AccountSuspended(account.name.clone()), Alarm::RouteSuspended(account.route.clone())];
            let app = account.app.clone().map(Alarm::AppSuspended);
            let tenant = Some(Alarm::TenantSuspended).filter(|_| !setup.schedule.apart.contains(&account.route));
            !alone.iter().chain(&app).chain(&tenant).any(|alarm| alarms.stands(alarm))
        };
        if !setup.schedule.accounts.iter().any(sends) {
            return false;
        }
        let untold = alarms.untold();
        let after = alarms.after(&untold);
        (untold, after)
    };
    if untold.is_empty() {
        return true;
    }
    let id = shared.ids.next(now);
    let notice = alarm_mail(id, now, setup.hostname(), &setup.notices.operators, &untold);
    let size = notice.content.len() as u64;
    let Ok(deliveries) = setup.policy.split(&notice.message.client, addressees, size, id, now) else { return false };
    let queue = deliveries.iter().map(|delivery| queued(&notice.message, delivery)).collect();
    if !keep(shared, after, Some(NewMessage { message: notice.message, deliveries, content: notice.content })).await {
        return false;
    }
    shared.alarms.lock().told(now, &untold);
    telemetry::alarm_mail(id, untold.len());
    shared.tell(Event::Add(queue));
    true
}

async fn keep<S: Spool>(shared: &Shared<S>, alarms: Vec<(Alarm, Standing)>, mail: Option<NewMessage>) -> bool {
    let row = |(alarm, Standing { since, why, cleared, told }): (Alarm, Standing)| AlarmRow {
        name: alarm.to_string(),
        since,
        why,
        cleared,
        told,
    };
    match shared.store.keep_alarms(alarms.into_iter().map(row).collect(), mail).await {
        Ok(()) => return true,
        Err(StoreError::Fatal(why)) => shared.store_failed(&why),
        Err(error) => telemetry::store_busy("recording alarms", &error.to_string()),
    }
    false
}

/// Looks from time to time at what no event tells, until the relay stops.
pub(super) async fn watch<S: Spool>(shared: Arc<Shared<S>>) {
    let mut setups = shared.setup.subscribe();
    loop {
        let most = setups.borrow_and_update().notices.queue_age_alarm;
        let pause = most.map_or(WATCH, |most| (most / 4).clamp(Duration::from_millis(100), WATCH));
        // Room is claimed for the largest message, and given back at once.
        match shared.store.begin(shared.ids.next(shared.clock.now()), 0) {
            Ok(_) => shared.alarm(Alarm::DiskLow, AlarmChange::Cleared),
            Err(StoreError::Full(why)) => shared.alarm(Alarm::DiskLow, AlarmChange::Raised(why)),
            // Of the disk this says nothing.
            Err(StoreError::Unavailable(_) | StoreError::Fatal(_)) => {}
        }
        match most {
            Some(most) => watch_queue(&shared, most).await,
            None => shared.alarm(Alarm::QueueOld, AlarmChange::Cleared),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = setups.changed() => {}
            () = shared.shutdown.reached(Phase::Stopping) => return,
        }
    }
}

async fn watch_queue<S: Spool>(shared: &Shared<S>, most: Duration) {
    // Of what the store cannot tell now nothing is known.
    let Ok(first) = shared.store.list(None, 1).await else { return };
    let late = first.first().filter(|listed| shared.clock.now().since(listed.message.accepted_at) > most);
    let change = late.map_or(AlarmChange::Cleared, |listed| {
        let reply = if listed.last_reply.is_empty() { String::new() } else { format!(" Its last attempt: {}", listed.last_reply) };
        let (id, at) = (listed.delivery.id, listed.message.accepted_at.rfc5322());
        AlarmChange::Raised(format!("The oldest, {id}, was accepted on {at}: more than {} ago.{reply}", format_duration(most)))
    });
    shared.alarm(Alarm::QueueOld, change);
}
