//! The laws of a budget, tried with random histories against observers that know nothing of buckets and cells.
//!
//! The observer of *never over* stands at the server: it counts each attempt at any moment between its start and its end, to the microsecond,
//! and looks at every window. The observer of *never under* keeps a log of what was used and computes what must fit from that alone.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{clock::Timestamp, mail::Class};

const CLASSES: [Class; 2] = [Class::Internal, Class::External];

/// Something that happens. Numbers are taken modulo what there is.
#[derive(Debug, Clone)]
enum Event {
    Pass { micros: i64 },
    Send { external: bool, recipients: u32, keep: u8 },
    End { which: usize, used: u32, message: bool, counted: i64 },
    Crash { micros: i64, step: i64, told: bool },
    Change { limits: Limits },
    Close { limit: LimitName },
}

/// An attempt as the server counted it, with the limits under which it was reserved.
#[derive(Debug, Clone)]
struct Counted {
    order: usize,
    at: i64,
    class: Class,
    used: Used,
    limits: Limits,
}

#[derive(Debug)]
struct Flying {
    reservation: Reservation,
    order: usize,
    started: i64,
    limits: Limits,
}

/// A relay with its budget, its disk and its clock, and what the server sees of it.
#[derive(Debug)]
struct World {
    /// The true time in microseconds.
    micros: i64,
    /// What the relay's wall clock adds to it, in milliseconds.
    wall: i64,
    limits: Limits,
    budget: Budget,
    disk: BTreeMap<(LimitName, u32), Row>,
    flying: Vec<Flying>,
    sent: usize,
    counted: Vec<Counted>,
    /// What ended, in the relay's own time.
    ended: Vec<(i64, Class, Used)>,
}

impl World {
    fn new(limits: Limits) -> Self {
        let budget = Budget::new(&limits);
        let (disk, flying, counted, ended) = (BTreeMap::new(), Vec::new(), Vec::new(), Vec::new());
        Self { micros: 5_000_000, wall: 1_000_000, limits, budget, disk, flying, sent: 0, counted, ended }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.micros.div_euclid(1_000) + self.wall)
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Pass { micros } => self.micros += micros,
            Event::Send { external, recipients, keep } => self.send(CLASSES[usize::from(*external)], *recipients, Share::percent(*keep)),
            Event::End { which, used, message, counted } if !self.flying.is_empty() => {
                let which = which % self.flying.len();
                self.end(which, *used, *message, *counted);
            }
            Event::End { .. } => {}
            Event::Crash { micros, step, told } => self.crash(*micros, *step, *told),
            Event::Change { limits } => {
                self.budget.change(self.now(), limits);
                self.limits = limits.clone();
            }
            Event::Close { limit } => {
                let wait = self.budget.close(*limit, self.now());
                assert!(wait.is_none_or(|wait| wait.until.is_none_or(|until| until > self.now())));
            }
        }
        for change in self.budget.changes() {
            match change {
                Change::Put(row) => self.disk.insert((row.limit, row.slot), row),
                Change::Remove { limit, slot } => self.disk.remove(&(limit, slot)),
            };
        }
        let mut state = self.budget.state();
        state.sort_unstable();
        let mut disk: Vec<Row> = self.disk.values().copied().collect();
        disk.sort_unstable();
        assert_eq!(state, disk, "the changes keep the disk complete");
    }

    fn send(&mut self, class: Class, recipients: u32, keep: Share) {
        let fits = self.budget.fits(self.now(), Need { class, recipients }, keep);
        assert!(fits <= recipients);
        if fits < recipients {
            let need = Need { class, recipients: fits + 1 };
            let wait = self.budget.wait(self.now(), need, keep);
            assert!(wait.is_some(), "what does not fit waits");
            assert_eq!(self.budget.reserve(self.now(), need, keep).err(), wait);
        }
        if fits > 0 {
            let need = Need { class, recipients: fits };
            let reservation = self.budget.reserve(self.now(), need, keep).expect("what fits can be reserved");
            self.flying.push(Flying { reservation, order: self.sent, started: self.micros, limits: self.limits.clone() });
            self.sent += 1;
        }
    }

    fn end(&mut self, which: usize, used: u32, message: bool, counted: i64) {
        let flying = self.flying.swap_remove(which);
        let need = flying.reservation.need();
        let recipients = used % (need.recipients + 1);
        let used = Used { recipients, message: message || recipients > 0 };
        self.count(&flying, used, counted);
        let ended = self.now();
        self.ended.push((ended.as_millis(), need.class, used));
        self.budget.settle(flying.reservation, used, ended);
    }

    fn count(&mut self, flying: &Flying, used: Used, counted: i64) {
        let at = flying.started + counted % (self.micros - flying.started + 1);
        let class = flying.reservation.need().class;
        self.counted.push(Counted { order: flying.order, at, class, used, limits: flying.limits.clone() });
    }

    /// The server may have counted what was in flight, even after the crash.
    fn crash(&mut self, micros: i64, step: i64, told: bool) {
        self.micros += micros;
        for flying in std::mem::take(&mut self.flying) {
            let used = Used::all(flying.reservation.need());
            self.count(&flying, used, micros.wrapping_mul(7_919));
        }
        // A wall that went forward unnoticed would free budget: that is for the boot clock to tell. One that went back must not.
        let step = if told { step } else { -step.abs() };
        self.wall += step;
        let rows: Vec<Row> = self.disk.values().copied().collect();
        self.budget = Budget::restore(&self.limits, &rows, self.now(), if told { step } else { 0 });
    }

    /// For every attempt and every window of a limit that holds it: what was reserved before it, and it, are at most the limit.
    fn nothing_is_over(&self) {
        let mut counted: Vec<&Counted> = self.counted.iter().collect();
        counted.sort_by_key(|attempt| attempt.order);
        for (place, last) in counted.iter().enumerate() {
            for limit in LimitName::ALL {
                let Some((max, window)) = size(&last.limits, limit) else { continue };
                let amount = |attempt: &Counted| amount(&last.limits, limit, attempt.class, attempt.used);
                let near = counted[..=place].iter().filter(|other| (other.at - last.at).abs() < window);
                let near: Vec<(i64, u32)> = near.map(|other| (other.at, amount(other))).collect();
                for (start, _) in near.iter().filter(|(start, _)| *start <= last.at && amount(last) > 0) {
                    let sum: u32 = near.iter().filter(|(at, _)| (*start..start + window).contains(at)).map(|(_, amount)| amount).sum();
                    assert!(sum <= max, "{limit}: {sum} of {max} in the window of {window} µs from {start}: {counted:#?}");
                }
            }
        }
    }

    /// What must fit and what can fit, if a unit that ended at `e` counts until `e` plus the window, and in a ledger up to a bucket longer.
    fn bounds(&self, need: Need) -> (u32, u32) {
        let now = self.now().as_millis();
        let (mut least, mut most) = (need.recipients, need.recipients);
        for limit in LimitName::ALL {
            let Some((max, window)) = size(&self.limits, limit) else { continue };
            if amount(&self.limits, limit, need.class, Used::all(need)) == 0 {
                continue;
            }
            let window = window / 1_000;
            let day = matches!(limit, LimitName::RecipientsPerDay | LimitName::ExternalRecipientsPerDay);
            let (short, long) = if day { (window, window + (window + 1_439) / 1_440) } else { (window + 1, window + 1) };
            let flying = self.flying.iter().map(|flying| flying.reservation.need());
            let flying: u32 = flying.map(|need| amount(&self.limits, limit, need.class, Used::all(need))).sum();
            let free = |window: i64| {
                let inside = self.ended.iter().filter(|(ended, ..)| ended + window > now);
                let used: u32 = inside.map(|(_, class, used)| amount(&self.limits, limit, *class, *used)).sum();
                max.saturating_sub(flying + used)
            };
            let by_messages = !day && self.limits.external_per_minute.is_none_or(|(_, unit)| unit == Unit::Messages)
                || matches!(limit, LimitName::MessagesPerMinute | LimitName::MinimumPause);
            let recipients = |free: u32| if by_messages && free > 0 { u32::MAX } else { free };
            (least, most) = (least.min(recipients(free(long))), most.min(recipients(free(short))));
        }
        (least, most)
    }
}

fn size(limits: &Limits, limit: LimitName) -> Option<(u32, i64)> {
    let max = match limit {
        LimitName::RecipientsPerDay => limits.recipients_per_day.map(|max| (max, limits.day)),
        LimitName::ExternalRecipientsPerDay => limits.external_recipients_per_day.map(|max| (max, limits.day)),
        LimitName::ExternalPerMinute => limits.external_per_minute.map(|(max, _)| (max, limits.minute)),
        LimitName::MessagesPerMinute => limits.messages_per_minute.map(|max| (max, limits.minute)),
        LimitName::MinimumPause => limits.minimum_pause.map(|pause| (1, pause)),
    };
    max.map(|(max, window)| (max, window.as_micros() as i64))
}

fn amount(limits: &Limits, limit: LimitName, class: Class, used: Used) -> u32 {
    let external = class == Class::External;
    match (limit, limits.external_per_minute) {
        (LimitName::RecipientsPerDay, _) => used.recipients,
        (LimitName::ExternalRecipientsPerDay, _) if external => used.recipients,
        (LimitName::ExternalPerMinute, Some((_, Unit::Recipients))) if external => used.recipients,
        (LimitName::ExternalPerMinute, Some((_, Unit::Messages))) if external => u32::from(used.message),
        (LimitName::MessagesPerMinute | LimitName::MinimumPause, _) => u32::from(used.message),
        _ => 0,
    }
}

prop_compose! {
    fn limits()(
        recipients in prop::option::of(5..40_u32),
        external in prop::option::of(3..20_u32),
        per_minute in prop::option::of((1..8_u32, prop::bool::ANY)),
        messages in prop::option::of(1..8_u32),
        pause in prop::option::weighted(0.3, 1..15_u64),
    ) -> Limits {
        Limits {
            recipients_per_day: recipients,
            external_recipients_per_day: external,
            external_per_minute: per_minute.map(|(max, unit)| (max, if unit { Unit::Messages } else { Unit::Recipients })),
            messages_per_minute: messages,
            minimum_pause: pause.map(Duration::from_millis),
            day: Duration::from_millis(300),
            minute: Duration::from_millis(40),
        }
    }
}

/// The lengths of a day: with a bucket of a millisecond, and longer ones.
const DAYS: [u64; 4] = [100, 300, 1_500, 4_000];

fn traffic() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..30_000_i64).prop_map(|micros| Event::Pass { micros }),
        1 => (0..400_000_i64).prop_map(|micros| Event::Pass { micros }),
        6 => (any::<bool>(), 1..8_u32, prop_oneof![4 => Just(0_u8), 1 => Just(20)])
            .prop_map(|(external, recipients, keep)| Event::Send { external, recipients, keep }),
        4 => (any::<usize>(), 0..1_000_u32, any::<bool>(), 0..i64::MAX)
            .prop_map(|(which, used, message, counted)| Event::End { which, used, message, counted }),
    ]
}

fn trouble() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => traffic(),
        1 => (0..80_000_i64, -500..500_i64, any::<bool>()).prop_map(|(micros, step, told)| Event::Crash { micros, step, told }),
        1 => limits().prop_map(|limits| Event::Change { limits }),
        1 => prop::sample::select(&LimitName::ALL[..]).prop_map(|limit| Event::Close { limit }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn never_over_in_any_window_whatever_happens(
        limits in limits(), day in prop::sample::select(&DAYS[..]), events in prop::collection::vec(trouble(), 1..100),
    ) {
        let with_day = |limits: &Limits| Limits { day: Duration::from_millis(day), ..limits.clone() };
        let mut world = World::new(with_day(&limits));
        for event in &events {
            match event {
                Event::Change { limits } => world.happen(&Event::Change { limits: with_day(limits) }),
                event => world.happen(event),
            }
        }
        world.crash(0, 0, true);
        world.nothing_is_over();
    }

    #[test]
    fn never_under_and_every_forecast_comes_true(
        limits in limits(), day in prop::sample::select(&DAYS[..]), events in prop::collection::vec(traffic(), 1..100), recipients in 1..10_u32,
    ) {
        let mut world = World::new(Limits { day: Duration::from_millis(day), ..limits });
        for event in &events {
            world.happen(event);
            for class in CLASSES {
                let now = world.now();
                let need = Need { class, recipients };
                let fits = world.budget.fits(now, need, Share::NONE);
                let (least, most) = world.bounds(need);
                prop_assert!((least..=most).contains(&fits), "{fits} fit, {least} to {most} must");
                match world.budget.wait(now, need, Share::NONE) {
                    None => prop_assert_eq!(fits, recipients),
                    Some(Wait { until: Some(until), .. }) => {
                        prop_assert!(fits < recipients && until > now);
                        prop_assert_eq!(world.budget.wait(until, need, Share::NONE), None);
                        let before = until - Duration::from_millis(1);
                        prop_assert!(world.budget.wait(before, need, Share::NONE).is_some(), "not earlier either");
                    }
                    Some(Wait { until: None, .. }) => {
                        let capacity = world.budget.capacity(class, Share::NONE);
                        prop_assert!(fits < recipients && (capacity < recipients || !world.flying.is_empty()));
                    }
                }
                let headroom = world.budget.headroom(now, class);
                let one = world.budget.fits(now, Need { class, recipients: 1 }, Share::NONE);
                prop_assert!((0.0..=1.0).contains(&headroom));
                prop_assert_eq!(headroom > 0.0, one > 0);
            }
        }
    }

    #[test]
    fn a_damaged_disk_blocks_for_a_window_at_most(
        limits in limits(),
        rows in prop::collection::vec((prop::sample::select(&LimitName::ALL[..]), any::<u32>(), prop::option::of(any::<i64>()), any::<u32>()), 0..60),
        shift in any::<i64>(), now in 0..2_000_000_000_000_i64,
    ) {
        let at = |millis: Option<i64>| millis.map(Timestamp::from_millis);
        let rows: Vec<Row> = rows.into_iter().map(|(limit, slot, millis, amount)| Row { limit, slot, at: at(millis), amount }).collect();
        let now = Timestamp::from_millis(now);
        let budget = Budget::restore(&limits, &rows, now, shift);
        let later = now + limits.day + limits.minute;
        for class in CLASSES {
            let capacity = budget.capacity(class, Share::NONE).min(50);
            prop_assert_eq!(budget.fits(later, Need { class, recipients: capacity }, Share::NONE), capacity);
        }
    }
}
