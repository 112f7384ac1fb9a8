//! How long a given amount of mail would take: the scheduler itself, on a clock that only counts.
//!
//! The mail is there at the start, and each message occupies a connection for the same time. Deliveries are added as the queue empties, so that
//! a million messages need no more memory than a thousand. Whenever nothing can go, the time until something can is put to the account of what the
//! mail of each class then waits for.
//!
//! *Limits.* Nothing was used before the start, nothing else is sent, and nothing is refused. Mail that waits longer than the queue's
//! lifetime is sent all the same, and counted.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use crate::budget::{LimitName, Used};
use crate::clock::Timestamp;
use crate::mail::{Class, ClientName, DeliveryId, Priority, QueueId, Queued, RouteName};

use super::{Decision, Ended, Reason, Scheduler, Settings};

/// What is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// Whose mail it is.
    pub client: ClientName,
    /// The priority of it.
    pub priority: Priority,
    /// How many messages.
    pub messages: u64,
    /// Recipients of each message.
    pub recipients: u32,
    /// Of a hundred messages so many go to external recipients, the others to internal ones.
    pub external: u8,
    /// Octets of each message.
    pub size: u64,
    /// The way of internal mail.
    pub internal_way: Way,
    /// The way of external mail.
    pub external_way: Way,
}

/// How mail of a class travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The route that takes it.
    pub route: RouteName,
    /// The most recipients of one delivery.
    pub recipients_per_delivery: u32,
}

/// What would become of a load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// When the last message would be sent; none: some of it never.
    pub finished_at: Option<Timestamp>,
    /// What would be sent.
    pub sent: Amount,
    /// What of it would be older than the queue's lifetime, and so be given up instead.
    pub late: Amount,
    /// What each class would wait for, the longest first.
    pub bottlenecks: Vec<Bottleneck>,
}

/// An amount of mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// Transactions.
    pub deliveries: u64,
    /// Their recipients.
    pub recipients: u64,
}

/// What held mail up, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bottleneck {
    /// Mail of this class.
    pub class: Class,
    /// What it waited for.
    pub cause: Cause,
    /// How long, in all.
    pub length: Duration,
}

/// What mail waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A limit of the accounts.
    Account(LimitName),
    /// A limit of the tenant.
    Tenant(LimitName),
    /// Each connection is busy with another message.
    Connections,
    /// There is no account for it.
    NoAccount,
}

impl Cause {
    /// As a sentence for operators.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Account(limit) | Self::Tenant(limit) => limit.sentence(),
            Self::Connections => "each connection is busy with another message",
            Self::NoAccount => "no account may send it",
        }
    }
}

/// Plans a load: each message takes a connection for `each`.
pub fn plan(settings: &Settings, load: &Load, each: Duration, start: Timestamp) -> Plan {
    let lifetime = settings.lifetime;
    // Nothing is given up here; what would be is counted instead.
    let settings = Settings { lifetime: Duration::MAX, ..settings.clone() };
    let external = (u128::from(load.messages) * u128::from(load.external.min(100)) / 100) as u64;
    // As much as can go at one time, so that no account waits for mail that is yet to be added.
    let window = settings.accounts.iter().map(|account| account.connections).sum::<usize>() + 1;
    let mut run = Run {
        scheduler: Scheduler::new(settings),
        load,
        start,
        window,
        sources: [Source::new(load.messages - external), Source::new(external)],
        newest: 0,
        flying: BinaryHeap::new(),
        causes: BTreeMap::new(),
        plan: Plan { finished_at: None, sent: Amount::default(), late: Amount::default(), bottlenecks: Vec::new() },
    };
    run.finish(each, start + lifetime);
    run.plan
}

const CLASSES: [Class; 2] = [Class::Internal, Class::External];

struct Run<'l> {
    scheduler: Scheduler,
    load: &'l Load,
    start: Timestamp,
    /// How many deliveries of a class wait at a time.
    window: usize,
    /// In the order of [`CLASSES`].
    sources: [Source; 2],
    newest: i64,
    flying: BinaryHeap<Reverse<(Timestamp, DeliveryId, Class, u16)>>,
    causes: BTreeMap<(Class, Cause), Duration>,
    plan: Plan,
}

/// The mail of one class.
struct Source {
    messages: u64,
    /// Recipients of the message that is being divided.
    rest: u32,
    /// What waits in the scheduler, with its recipients.
    waiting: BTreeMap<DeliveryId, u16>,
    /// What of it is being sent in part, with the recipients that remain.
    parts: BTreeMap<DeliveryId, u16>,
}

impl Source {
    fn new(messages: u64) -> Self {
        Self { messages, rest: 0, waiting: BTreeMap::new(), parts: BTreeMap::new() }
    }
}

impl Run<'_> {
    fn finish(&mut self, each: Duration, end_of_life: Timestamp) {
        let mut now = self.start;
        loop {
            self.hand_out(now, each);
            let ends = self.flying.peek().map(|Reverse((at, ..))| *at);
            let opens = self.scheduler.deadline(now).filter(|_| self.waits());
            let Some(next) = ends.into_iter().chain(opens).min() else { break };
            self.blame(now, next);
            now = next;
            while let Some(Reverse((_, delivery, class, recipients))) = self.pop_ended(now) {
                self.end(now, delivery, class, recipients, end_of_life);
            }
        }
        self.plan.finished_at = Some(now).filter(|_| !self.waits());
        if self.plan.finished_at.is_none() {
            // What waits for no time waits for ever.
            self.blame(now, now);
        }
        self.plan.bottlenecks =
            self.causes.iter().map(|((class, cause), length)| Bottleneck { class: *class, cause: *cause, length: *length }).collect();
        self.plan.bottlenecks.sort_by_key(|bottleneck| Reverse(bottleneck.length));
    }

    fn hand_out(&mut self, now: Timestamp, each: Duration) {
        self.feed(now);
        while let Some(decision) = self.scheduler.next(now) {
            let Decision::Attempt { delivery, recipients, .. } = decision else { continue };
            for (class, source) in CLASSES.into_iter().zip(&mut self.sources) {
                if let Some(all) = source.waiting.remove(&delivery) {
                    source.parts.insert(delivery, all.saturating_sub(recipients));
                    self.flying.push(Reverse((now + each, delivery, class, recipients)));
                }
            }
            self.feed(now);
        }
    }

    /// Adds deliveries until enough of each class wait.
    fn feed(&mut self, now: Timestamp) {
        for class in CLASSES {
            let way = if class == Class::Internal { &self.load.internal_way } else { &self.load.external_way };
            let most = way.recipients_per_delivery.clamp(1, u32::from(u16::MAX));
            let source = &mut self.sources[class as usize];
            while source.waiting.len() < self.window && (source.rest > 0 || source.messages > 0) {
                if source.rest == 0 {
                    source.messages -= 1;
                    source.rest = self.load.recipients.max(1);
                }
                let recipients = source.rest.min(most) as u16;
                source.rest -= u32::from(recipients);
                self.newest += 1;
                let Some(message) = QueueId::from_number(self.newest) else { return };
                let id = DeliveryId { message, part: 1 };
                source.waiting.insert(id, recipients);
                self.scheduler.add(
                    now,
                    Queued {
                        id,
                        client: self.load.client.clone(),
                        priority: self.load.priority,
                        author: None,
                        held: false,
                        route: way.route.clone(),
                        class,
                        recipients,
                        size: self.load.size,
                        accepted_at: self.start,
                        due: self.start,
                        attempts: 0,
                        in_doubt: None,
                    },
                );
            }
        }
    }

    fn waits(&self) -> bool {
        self.sources.iter().any(|source| !source.waiting.is_empty())
    }

    fn pop_ended(&mut self, now: Timestamp) -> Option<Reverse<(Timestamp, DeliveryId, Class, u16)>> {
        let ended = self.flying.peek().is_some_and(|Reverse((at, ..))| *at <= now);
        if ended { self.flying.pop() } else { None }
    }

    fn end(&mut self, now: Timestamp, delivery: DeliveryId, class: Class, recipients: u16, end_of_life: Timestamp) {
        let used = Used { recipients: u32::from(recipients), message: true };
        self.scheduler.ended(now, &Ended { delivery, started: now, used, pause: None });
        let source = &mut self.sources[class as usize];
        let remaining = source.parts.remove(&delivery).unwrap_or_default();
        if remaining > 0 {
            source.waiting.insert(delivery, remaining);
        }
        self.scheduler.settled(now, delivery, remaining, now);
        let amounts = [Some(&mut self.plan.sent), Some(&mut self.plan.late).filter(|_| now > end_of_life)];
        for amount in amounts.into_iter().flatten() {
            amount.deliveries += 1;
            amount.recipients += u64::from(recipients);
        }
    }

    /// What waits from `now` to `next` waits for what the scheduler says.
    fn blame(&mut self, now: Timestamp, next: Timestamp) {
        for (class, source) in CLASSES.into_iter().zip(&self.sources) {
            let Some(wait) = source.waiting.keys().next().and_then(|delivery| self.scheduler.why(now, *delivery)) else { continue };
            let cause = match wait.reason {
                Reason::Budget { account: Some(_), limit } => Cause::Account(limit),
                Reason::Budget { account: None, limit } => Cause::Tenant(limit),
                Reason::NoAccount | Reason::Suspended(_) => Cause::NoAccount,
                _ => Cause::Connections,
            };
            *self.causes.entry((class, cause)).or_default() += next.since(now);
        }
    }
}

impl Plan {
    /// The cause that held mail up the longest.
    pub fn bottleneck(&self) -> Option<Bottleneck> {
        self.bottlenecks.first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{Limits, Unit};
    use crate::mail::AccountName;
    use crate::schedule::AccountSettings;

    const START: Timestamp = Timestamp::from_millis(1_795_285_881_000);
    const EACH: Duration = Duration::from_millis(500);

    fn settings(accounts: usize, limits: &Limits) -> Settings {
        let account = |i| AccountSettings {
            name: AccountName::new(format!("hve{i}@contoso.com")),
            route: RouteName::new("hve"),
            app: None,
            connections: 4,
            limits: limits.clone(),
        };
        Settings { accounts: (0..accounts).map(account).collect(), ..Settings::default() }
    }

    fn load(messages: u64, recipients: u32, external: u8) -> Load {
        let way = Way { route: RouteName::new("hve"), recipients_per_delivery: 50 };
        let (client, priority) = (ClientName::new("erp"), Priority::Normal);
        Load { client, priority, messages, recipients, external, size: 50_000, internal_way: way.clone(), external_way: way }
    }

    fn hours(plan: &Plan) -> f64 {
        plan.finished_at.expect("an end").since(START).as_secs_f64() / 3_600.0
    }

    #[test]
    fn unlimited_mail_takes_the_time_of_its_connections() {
        let plan = plan(&settings(2, &Limits::NONE), &load(8_000, 120, 0), EACH, START);
        assert_eq!(plan.sent, Amount { deliveries: 24_000, recipients: 960_000 }, "120 recipients travel in three deliveries");
        assert_eq!(plan.finished_at, Some(START + EACH * 3_000), "eight connections");
        assert_eq!(plan.bottleneck().map(|bottleneck| bottleneck.cause), Some(Cause::Connections));
    }

    #[test]
    fn the_limit_of_a_minute_and_then_that_of_a_day_hold_external_mail_up() {
        let minute = Limits { external_per_minute: Some((10, Unit::Messages)), ..Limits::NONE };
        let day = Limits { external_recipients_per_day: Some(2_000), ..minute.clone() };
        for (limits, accounts, messages, cause, from, to) in [
            (&minute, 1, 1_200, LimitName::ExternalPerMinute, 1.9, 2.1),
            (&minute, 20, 24_000, LimitName::ExternalPerMinute, 1.9, 2.1),
            (&day, 1, 6_000, LimitName::ExternalRecipientsPerDay, 48.0, 52.0),
            (&day, 5, 6_000, LimitName::ExternalPerMinute, 1.9, 2.1),
        ] {
            let plan = plan(&settings(accounts, limits), &load(messages, 1, 100), EACH, START);
            assert_eq!(plan.bottleneck().map(|bottleneck| bottleneck.cause), Some(Cause::Account(cause)), "{accounts} accounts: {plan:?}");
            assert!((from..to).contains(&hours(&plan)), "{accounts} accounts: {} h", hours(&plan));
        }
    }

    #[test]
    fn the_tenants_limit_is_named_as_such_and_internal_mail_goes_on_beside_external() {
        let tenant = Limits { recipients_per_day: Some(10_000), ..Limits::NONE };
        let with_tenant = Settings { tenant, ..settings(3, &Limits::NONE) };
        let plan_of = |settings: &Settings, external| plan(settings, &load(300, 50, external), EACH, START);
        let held_up = plan_of(&with_tenant, 0);
        assert_eq!(held_up.bottleneck().map(|bottleneck| bottleneck.cause), Some(Cause::Tenant(LimitName::RecipientsPerDay)));
        let minute = settings(1, &Limits { external_per_minute: Some((1, Unit::Messages)), ..Limits::NONE });
        let mixed = plan_of(&minute, 10);
        assert!(
            mixed.bottlenecks.iter().any(|bottleneck| bottleneck.class == Class::Internal && bottleneck.length < Duration::from_secs(60))
        );
        assert!((0.45..0.55).contains(&hours(&mixed)), "29 minutes for 30 external messages: {}", hours(&mixed));
    }

    #[test]
    fn what_can_never_go_has_no_end_and_what_is_too_old_is_counted() {
        let none = plan(&settings(0, &Limits::NONE), &load(10, 1, 0), EACH, START);
        assert_eq!((none.finished_at, none.bottleneck().map(|bottleneck| bottleneck.cause)), (None, Some(Cause::NoAccount)));
        let day = Limits { recipients_per_day: Some(100), ..Limits::NONE };
        let slow = plan(&settings(1, &day), &load(1_000, 1, 0), EACH, START);
        assert_eq!(slow.sent.deliveries, 1_000);
        assert_eq!(slow.late.deliveries, 500, "the lifetime is five days");
    }

    #[test]
    fn a_delivery_goes_in_parts_where_a_limit_is_smaller() {
        let day = Limits { recipients_per_day: Some(70), ..Limits::NONE };
        let plan = plan(&settings(1, &day), &load(7, 50, 0), EACH, START);
        assert_eq!(plan.sent.recipients, 350);
        assert!((96.0..97.0).contains(&hours(&plan)), "{} h", hours(&plan));
    }
}
