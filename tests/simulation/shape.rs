//! What a seed makes of the world: accounts and their limits, clients and their habits, how bad the network is.

use std::time::Duration;

use hve_relay::budget::{Limits, Share, Unit};
use hve_relay::mail::{AppName, Class, ClientName, Priority, RouteName};
use hve_relay::schedule::{AccountSettings, Affinity, ClientSettings, OnDoubt, Settings};
use hve_relay::smtp::Mailbox;

use super::dice::Dice;
use super::world::account;

pub struct Shape {
    pub settings: Settings,
    pub clients: Vec<Habits>,
    /// In hundredths.
    pub reserve: u32,
    /// How long trouble, operators and restarts go on.
    pub span: Duration,
    /// The longest attempt.
    pub latency: Duration,
    /// How many connections of each account the server takes at a time.
    pub server_connections: Vec<usize>,
    /// How many attempts in a hundred meet trouble.
    pub trouble: u64,
    pub operations: u64,
    pub restarts: u64,
    pub reloads: u64,
    /// Messages in a hundred that the server refuses for good, on whatever account, in words that nobody knows.
    pub odd: u64,
    /// Who refuses every message so for a time: one account, or all of them if that is none. From when on and how long, within the span.
    pub illness: Option<(Option<usize>, Duration, Duration)>,
    /// The wall clock is stepped at restarts.
    pub steps: bool,
}

/// How a client sends.
pub struct Habits {
    pub messages: u32,
    pub gap: Duration,
    pub recipients: u32,
    /// In a hundred messages.
    pub external: u64,
    pub priorities: Vec<Priority>,
    pub authors: Vec<Option<Mailbox>>,
}

impl Shape {
    pub fn new(dice: &mut Dice) -> Self {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let windows = (dice.pick(&[minutes(10), minutes(60), minutes(180)]), dice.pick(&[Duration::from_secs(5), minutes(1)]));
        let accounts = if dice.chance(20) { 1 + dice.below(20) } else { 1 + dice.below(3) } as usize;
        let same = if dice.chance(50) { Some(limits(dice, windows, 1)) } else { None };
        let accounts: Vec<AccountSettings> = (0..accounts)
            .map(|i| AccountSettings {
                name: account(i),
                route: RouteName::new("hve"),
                app: dice.chance(30).then(|| AppName::new("mailer")),
                connections: 1 + dice.below(4) as usize,
                limits: same.clone().unwrap_or_else(|| limits(dice, windows, 1)),
            })
            .collect();
        let server_connections = accounts.iter().map(|_| if dice.chance(30) { 1 + dice.below(4) as usize } else { usize::MAX }).collect();
        let tenant = if dice.chance(30) {
            limits(dice, windows, accounts.len() as u32)
        } else {
            Limits { day: windows.0, minute: windows.1, ..Limits::NONE }
        };
        let reserve = dice.pick(&[0, 0, 10, 33]);
        let count = 1 + dice.below(5) as usize;
        let clients = (0..count)
            .map(|i| ClientSettings {
                name: ClientName::new(format!("client{i}")),
                weight: 1 + dice.below(4) as u32,
                accounts: dice.chance(25).then(|| (0..accounts.len()).filter(|_| dice.chance(60)).map(account).collect()),
                affinity: dice.pick(&[Affinity::Client, Affinity::Author, Affinity::None]),
                in_doubt: None,
            })
            .collect();
        let settings = Settings {
            accounts,
            tenant,
            apart: Vec::new(),
            clients,
            reserve: Share::percent(reserve as u8),
            retry_min: Duration::from_secs(1 + dice.below(60)),
            retry_max: Duration::from_secs(60 + dice.below(600)),
            lifetime: if dice.chance(20) { minutes(30) } else { minutes(60 * 24 * 5) },
            pause_min: Duration::from_secs(1 + dice.below(5)),
            pause_max: Duration::from_secs(10 + dice.below(600)),
            probe: Duration::from_secs(10 + dice.below(1_200)),
            in_doubt: OnDoubt::Resend,
        };
        let habits = |dice: &mut Dice| Habits {
            messages: if dice.chance(20) { 40 } else { 1 + dice.below(12) as u32 },
            gap: dice.pick(&[Duration::ZERO, Duration::from_millis(50), Duration::from_secs(10), minutes(10)]),
            recipients: dice.pick(&[1, 1, 5, 50]),
            external: dice.pick(&[0, 50, 100]),
            priorities: dice.pick(&[vec![Priority::Normal], Priority::ALL.to_vec()]),
            authors: dice.pick(&[vec![None], vec![None, mailbox("anna@contoso.com"), mailbox("HVE0@contoso.com")]]),
        };
        let span = dice.pick(&[minutes(1), minutes(20), minutes(300)]);
        let illness = dice.chance(30).then(|| {
            let whose = if dice.chance(50) { Some(dice.below(settings.accounts.len() as u64) as usize) } else { None };
            let part = |dice: &mut Dice| span.mul_f64(dice.below(50) as f64 / 100.0);
            (whose, part(dice), part(dice))
        });
        Self {
            clients: (0..count).map(|_| habits(dice)).collect(),
            settings,
            reserve,
            span,
            server_connections,
            latency: dice.pick(&[Duration::ZERO, Duration::from_millis(2), Duration::from_secs(1), Duration::from_secs(100)]),
            trouble: dice.pick(&[0, 0, 10, 40]),
            operations: dice.pick(&[0, 0, 3, 10]),
            restarts: dice.pick(&[0, 0, 1, 4]),
            reloads: dice.pick(&[0, 0, 1, 5]),
            odd: dice.pick(&[0, 0, 5]),
            illness,
            steps: dice.chance(50),
        }
    }

    /// The most recipients of a delivery: intake makes none that a limit of a minute could never let through.
    pub fn recipients(&self, _class: Class) -> u32 {
        50
    }

    /// Other limits. One of a minute is not introduced: nobody knows the minute before it.
    pub fn reload(&mut self, dice: &mut Dice) {
        let all = self.settings.accounts.iter_mut().map(|account| &mut account.limits).chain([&mut self.settings.tenant]);
        for limits in all {
            let mut other = |limit: &mut Option<u32>| {
                if let Some(most) = limit.as_mut()
                    && dice.chance(60)
                {
                    *most = (*most * (25 + dice.below(200) as u32) / 100).max(1);
                }
            };
            other(&mut limits.recipients_per_day);
            other(&mut limits.external_recipients_per_day);
            other(&mut limits.messages_per_minute);
            let mut most = limits.external_per_minute.map(|(most, _)| most);
            other(&mut most);
            limits.external_per_minute = limits.external_per_minute.zip(most).map(|((_, unit), most)| (most, unit));
            if dice.chance(10) {
                limits.messages_per_minute = None;
            }
            if dice.chance(20) {
                limits.external_recipients_per_day = Some(10 + dice.below(100) as u32);
            }
        }
    }
}

fn limits(dice: &mut Dice, (day, minute): (Duration, Duration), times: u32) -> Limits {
    let mut some = |percent, from: u64, to: u64| dice.chance(percent).then(|| (from + dice.below(to - from)) as u32 * times);
    Limits {
        recipients_per_day: some(40, 20, 400),
        external_recipients_per_day: some(40, 5, 100),
        external_per_minute: some(70, 1, 12).map(|most| (most, Unit::Messages)),
        messages_per_minute: some(30, 1, 20),
        minimum_pause: None,
        day,
        minute,
    }
    .with_more(dice)
}

trait More {
    fn with_more(self, dice: &mut Dice) -> Self;
}

impl More for Limits {
    fn with_more(mut self, dice: &mut Dice) -> Self {
        if dice.chance(30) {
            self.external_per_minute = self.external_per_minute.map(|(most, _)| (most, Unit::Recipients));
        }
        if dice.chance(15) {
            self.minimum_pause = Some(Duration::from_millis(1 + dice.below(5_000)));
        }
        self
    }
}

fn mailbox(text: &str) -> Option<Mailbox> {
    Some(text.parse().expect("a mailbox"))
}
