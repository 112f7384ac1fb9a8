//! All limits of one account, or of the tenant, as one thing that is reserved and settled.

use std::cell::Cell;
use std::cmp::{Ordering, Reverse};

use crate::{clock::Timestamp, mail::Class};

use super::ledger::Ledger;
use super::rate::{Claim, MOST, Rate, UNKNOWN, Use};
use super::rows::difference;
use super::{Change, LimitName, Limits, Need, Row, Share, Unit, Usage, Used, Wait};

/// What one account, or the tenant, has used of its limits and may still use.
///
/// `now` must not go back between calls; if it does, nothing is freed early.
#[derive(Debug)]
pub struct Budget {
    limits: Limits,
    recipients: Ledger,
    external: Ledger,
    /// In the order of [`RATES`].
    rates: [Option<Rate>; 3],
    /// The id of the next rate.
    next_rate: u32,
    /// Reservations out, internal and external.
    in_flight: [u32; 2],
    /// Changes of a reload or a restart; those of reservations are noted in the ledgers and rates.
    pending: Vec<Change>,
    /// Something may have changed since [`Self::changes`] was asked.
    touched: bool,
    /// What [`Self::opens`] has found out since the last change: by class, each without and with something kept.
    openings: Cell<[[Option<Opening>; 2]; 2]>,
}

/// When one more recipient fits if so much is kept; `None`: it is not a matter of time.
type Opening = (Share, Option<Timestamp>);

/// The limits that are kept by cells.
const RATES: [LimitName; 3] = [LimitName::ExternalPerMinute, LimitName::MessagesPerMinute, LimitName::MinimumPause];

/// The right to one attempt. It must come back to [`Budget::settle`] of the budget that gave it: dropped, it counts until the next restart.
#[derive(Debug)]
#[must_use = "what is reserved counts until it is settled"]
pub struct Reservation {
    need: Need,
    claims: [Option<Claim>; 3],
}

impl Reservation {
    /// What was reserved.
    pub fn need(&self) -> Need {
        self.need
    }
}

impl Budget {
    /// A budget of which nothing was ever used.
    pub fn new(limits: &Limits) -> Self {
        Self::with_past(limits, [const { Vec::new() }; 3])
    }

    fn with_past(limits: &Limits, past: [Vec<Use>; 3]) -> Self {
        let mut budget = Self {
            limits: limits.clone(),
            recipients: Ledger::new(LimitName::RecipientsPerDay, limits.recipients_per_day, limits.day),
            external: Ledger::new(LimitName::ExternalRecipientsPerDay, limits.external_recipients_per_day, limits.day),
            rates: [const { None }; 3],
            next_rate: 0,
            in_flight: [0; 2],
            pending: Vec::new(),
            touched: true,
            openings: Cell::default(),
        };
        for (place, past) in past.iter().enumerate() {
            budget.rates[place] = budget.rate(RATES[place], past);
        }
        budget
    }

    /// The budget that the rows describe. `shift` milliseconds are added to their stamps, so that they tell the time as `now` does: the caller
    /// knows from the boot clock how far the wall was stepped. A stamp that is still in the future counts as now. What was in flight counts as
    /// used now.
    pub fn restore(limits: &Limits, rows: &[Row], now: Timestamp, shift: i64) -> Self {
        let ended = |row: &Row| row.at.map_or(now, |at| Timestamp::from_millis(at.as_millis().saturating_add(shift)).min(now));
        let past = RATES.map(|name| {
            let max = size(limits, name).map_or(0, |(max, _)| max);
            let by_recipients = name == LimitName::ExternalPerMinute && unit(limits) == Some(Unit::Recipients);
            let mut rows: Vec<&Row> = rows.iter().filter(|row| row.limit == name).collect();
            rows.sort_by_key(|row| Reverse(ended(row)));
            let uses = rows.into_iter().flat_map(|row| {
                // A message that was counted as one counts for its recipients if these are counted now.
                let units = if by_recipients || row.amount == UNKNOWN { row.amount.min(max) } else { 1 };
                let amount = if by_recipients && row.amount != UNKNOWN { 1 } else { row.amount };
                (0..units).map(move |_| Use { ended: ended(row), amount })
            });
            let mut past: Vec<Use> = uses.take(MOST as usize).collect();
            past.reverse();
            past
        });
        let mut budget = Self::with_past(limits, past);
        // In the order of their times, so that nothing is taken for older than a window while it is not.
        let mut days: Vec<&Row> = rows.iter().filter(|row| !RATES.contains(&row.limit)).collect();
        days.sort_by_key(|row| ended(row));
        for row in days {
            let ledger = if row.limit == LimitName::RecipientsPerDay { &mut budget.recipients } else { &mut budget.external };
            ledger.book(ended(row), row.amount);
        }
        budget.forget_changes();
        budget.pending = difference(rows, &budget.state());
        budget.touch();
        budget
    }

    /// All that must be kept; [`Self::changes`] keeps it up to date.
    pub fn state(&self) -> Vec<Row> {
        let rates = self.rates.iter().flatten().flat_map(Rate::rows);
        self.recipients.rows().chain(self.external.rows()).chain(rates).collect()
    }

    /// What changed since the last call, to be written in the transaction of the attempt that caused it.
    pub fn changes(&mut self) -> Vec<Change> {
        // Asked of every account for each attempt of one.
        if !std::mem::take(&mut self.touched) {
            return Vec::new();
        }
        let mut changes = std::mem::take(&mut self.pending);
        let mut note = |limit, slots: Vec<(u32, Option<Row>)>| {
            changes.extend(slots.into_iter().map(|(slot, row)| row.map_or(Change::Remove { limit, slot }, Change::Put)));
        };
        note(LimitName::RecipientsPerDay, self.recipients.drain());
        note(LimitName::ExternalRecipientsPerDay, self.external.drain());
        for (name, rate) in RATES.into_iter().zip(&mut self.rates) {
            if let Some(rate) = rate {
                note(name, rate.drain());
            }
        }
        changes
    }

    /// The most recipients of a class that one message can have while nothing else is used: more can never be reserved.
    pub fn capacity(&self, class: Class, keep: Share) -> u32 {
        let days = self.days(class).filter_map(|ledger| ledger.max()).map(|max| max - keep.of(max));
        let rates = self.lanes(class).map(|(rate, by)| by.most(rate.max()));
        days.chain(rates).min().unwrap_or(u32::MAX)
    }

    /// How many of `need.recipients` could go in one message now, leaving `keep` of each day's budget to others.
    pub fn fits(&self, now: Timestamp, need: Need, keep: Share) -> u32 {
        let days = self.days(need.class).map(|ledger| ledger.free(now).saturating_sub(ledger.max().map_or(0, |max| keep.of(max))));
        let rates = self.lanes(need.class).map(|(rate, by)| by.most(rate.free(now)));
        days.chain(rates).fold(need.recipients, u32::min)
    }

    /// What keeps the whole of `need` from going now, and until when; `None` if nothing does. Of several limits the one that frees last.
    pub fn wait(&self, now: Timestamp, need: Need, keep: Share) -> Option<Wait> {
        let days = self.days(need.class).map(|ledger| {
            let units = u64::from(need.recipients) + u64::from(ledger.max().map_or(0, |max| keep.of(max)));
            (ledger.name(), if need.recipients == 0 { Some(now) } else { ledger.fits_at(now, units) })
        });
        let rates = self.lanes(need.class).map(|(rate, by)| (rate.name(), rate.fits_at(now, by.units(need.recipients))));
        let mut binding: Option<Wait> = None;
        for (limit, until) in days.chain(rates).filter(|(_, until)| until.is_none_or(|until| until > now)) {
            if binding.is_none_or(|wait| later(until, wait.until) == Ordering::Greater) {
                binding = Some(Wait { limit, until });
            }
        }
        binding
    }

    /// The moment from which one more recipient of a class fits, as [`Self::wait`] has it: it may have passed. `None`: it takes the end of an
    /// attempt, or can never be. Time alone does not change the answer, so it is remembered until something is reserved, settled or changed.
    pub fn opens(&self, now: Timestamp, class: Class, keep: Share) -> Option<Timestamp> {
        let mut openings = self.openings.get();
        let known = &mut openings[class as usize][usize::from(keep != Share::NONE)];
        if let Some((kept, opens)) = known
            && *kept == keep
        {
            return *opens;
        }
        let opens = self.wait(now, Need { class, recipients: 1 }, keep).map_or(Some(now), |wait| wait.until);
        *known = Some((keep, opens));
        self.openings.set(openings);
        opens
    }

    /// Reserves `need` in every limit, leaving `keep` of each day's budget to others.
    ///
    /// # Errors
    /// If one limit does not have it: then none is touched, and the answer is that of [`Self::wait`].
    pub fn reserve(&mut self, now: Timestamp, need: Need, keep: Share) -> Result<Reservation, Wait> {
        if let Some(wait) = self.wait(now, need, keep) {
            return Err(wait);
        }
        self.touch();
        let mut claims = [const { None }; 3];
        for (place, rate) in self.rates.iter_mut().enumerate() {
            let (Some(rate), Some(by)) = (rate, lane(&self.limits, RATES[place], need.class)) else { continue };
            claims[place] = rate.take(now, by.units(need.recipients), need.recipients);
        }
        self.recipients.reserve(now, need.recipients);
        if need.class == Class::External {
            self.external.reserve(now, need.recipients);
        }
        self.in_flight[need.class as usize] += 1;
        Ok(Reservation { need, claims })
    }

    /// The attempt ended at `ended`: what it used counts from then, the rest is free again.
    ///
    /// What is not known to be refused is used: pass [`Used::all`] when in doubt.
    pub fn settle(&mut self, reservation: Reservation, used: Used, ended: Timestamp) {
        self.touch();
        let Reservation { need, claims } = reservation;
        let used = Used { recipients: used.recipients.min(need.recipients), ..used };
        self.recipients.settle(need.recipients, used.recipients, ended);
        if need.class == Class::External {
            self.external.settle(need.recipients, used.recipients, ended);
        }
        for ((place, rate), claim) in self.rates.iter_mut().enumerate().zip(claims) {
            let (Some(rate), Some(by)) = (rate, lane(&self.limits, RATES[place], need.class)) else { continue };
            match claim.filter(|claim| rate.knows(claim)) {
                Some(claim) => rate.settle(&claim, by.used(used), ended),
                None => rate.stranger_ended(ended),
            }
        }
        self.in_flight[need.class as usize] = self.in_flight[need.class as usize].saturating_sub(1);
    }

    /// The server said that a limit is used up although it did not seem so here. Settle the refused attempt first.
    ///
    /// A limit of a minute is then full for a minute. A limit of a day is full, with what seemed free booked as used now, until the oldest of
    /// what is known leaves the window: before that the server's window cannot have freed. Returns when the next unit fits; `None` if there is no
    /// such limit here, so that nothing could be booked and the caller must pause by itself.
    pub fn close(&mut self, limit: LimitName, now: Timestamp) -> Option<Wait> {
        self.touch();
        let until = if let Some(place) = RATES.iter().position(|name| *name == limit) {
            let rate = self.rates[place].as_mut()?;
            rate.close(now);
            rate.fits_at(now, 1)
        } else {
            let ledger = if limit == LimitName::RecipientsPerDay { &mut self.recipients } else { &mut self.external };
            ledger.max()?;
            ledger.close(now);
            ledger.fits_at(now, 1)
        };
        Some(Wait { limit, until })
    }

    /// Other limits, as after a reload. What is used stays used, and reservations that are out stay valid.
    pub fn change(&mut self, now: Timestamp, limits: &Limits) {
        let mut pending = self.changes();
        let before = self.state();
        let old = std::mem::replace(&mut self.limits, limits.clone());
        self.recipients.change(now, limits.recipients_per_day, limits.day);
        self.external.change(now, limits.external_recipients_per_day, limits.day);
        for (place, name) in RATES.into_iter().enumerate() {
            let same_unit = unit(&old) == unit(limits) || name != LimitName::ExternalPerMinute;
            match (size(limits, name), &mut self.rates[place]) {
                (Some((max, window)), Some(rate)) if same_unit => rate.change(now, max, window),
                (Some(_), _) => {
                    let [internal, external] = self.in_flight;
                    let strangers = if name == LimitName::ExternalPerMinute { external } else { internal + external };
                    let mut rate = self.rate(name, &[]);
                    rate.iter_mut().for_each(|rate| rate.begin_blind(now, strangers));
                    self.rates[place] = rate;
                }
                (None, rate) => *rate = None,
            }
        }
        self.forget_changes();
        pending.extend(difference(&before, &self.state()));
        self.pending = pending;
        self.touch();
    }

    /// Whether nothing of it counts any more, so that it is as good as new.
    pub fn is_idle(&self, now: Timestamp) -> bool {
        // Recipients are counted whether they are limited or not, and for longer than all else.
        self.usage(now).iter().all(|usage| usage.used == 0 && usage.in_flight == 0)
    }

    /// The share of the tightest limit for a class that is still free: 1 if nothing is used, 0 if nothing can go.
    pub fn headroom(&self, now: Timestamp, class: Class) -> f64 {
        let share = |free: u32, max: u32| if max == 0 { 0.0 } else { f64::from(free) / f64::from(max) };
        let days = self.days(class).filter_map(|ledger| ledger.max().map(|max| share(ledger.free(now), max)));
        let rates = self.lanes(class).map(|(rate, _)| share(rate.free(now), rate.max()));
        days.chain(rates).fold(1.0, f64::min)
    }

    /// How each limit stands, in the order of [`LimitName`]. Recipients are listed also where they are not limited.
    pub fn usage(&self, now: Timestamp) -> Vec<Usage> {
        let days = [&self.recipients, &self.external].map(|ledger| ledger.usage(now));
        days.into_iter().chain(self.rates.iter().flatten().map(|rate| rate.usage(now))).collect()
    }

    /// The ledgers in which a recipient of the class counts.
    fn days(&self, class: Class) -> impl Iterator<Item = &Ledger> {
        [Some(&self.recipients), Some(&self.external).filter(|_| class == Class::External)].into_iter().flatten()
    }

    /// The rates in which a message of the class counts, and by what.
    fn lanes(&self, class: Class) -> impl Iterator<Item = (&Rate, Unit)> {
        self.rates.iter().zip(RATES).filter_map(move |(rate, name)| Some((rate.as_ref()?, lane(&self.limits, name, class)?)))
    }

    fn rate(&mut self, name: LimitName, past: &[Use]) -> Option<Rate> {
        let (max, window) = size(&self.limits, name)?;
        self.next_rate = self.next_rate.wrapping_add(1);
        Some(Rate::new(name, self.next_rate, max, window, past))
    }

    /// Something is about to change, or has.
    fn touch(&mut self) {
        self.touched = true;
        self.openings.take();
    }

    fn forget_changes(&mut self) {
        self.recipients.drain();
        self.external.drain();
        self.rates.iter_mut().flatten().for_each(|rate| drop(rate.drain()));
    }
}

impl Unit {
    /// What a message to so many recipients counts.
    fn units(self, recipients: u32) -> u32 {
        match self {
            Self::Messages => 1,
            Self::Recipients => recipients,
        }
    }

    /// What an attempt used.
    fn used(self, used: Used) -> u32 {
        match self {
            Self::Messages => u32::from(used.message),
            Self::Recipients => used.recipients,
        }
    }

    /// To how many recipients one message can go if so many units are free.
    fn most(self, free: u32) -> u32 {
        match self {
            Self::Messages if free == 0 => 0,
            Self::Messages => u32::MAX,
            Self::Recipients => free,
        }
    }
}

/// By what a message of the class counts in a rate, if it does.
fn lane(limits: &Limits, name: LimitName, class: Class) -> Option<Unit> {
    match name {
        LimitName::ExternalPerMinute => unit(limits).filter(|_| class == Class::External),
        _ => Some(Unit::Messages),
    }
}

fn unit(limits: &Limits) -> Option<Unit> {
    limits.external_per_minute.map(|(_, unit)| unit)
}

/// How many in which window.
fn size(limits: &Limits, name: LimitName) -> Option<(u32, std::time::Duration)> {
    match name {
        LimitName::ExternalPerMinute => limits.external_per_minute.map(|(max, _)| (max, limits.minute)),
        LimitName::MessagesPerMinute => limits.messages_per_minute.map(|max| (max, limits.minute)),
        LimitName::MinimumPause => limits.minimum_pause.filter(|pause| !pause.is_zero()).map(|pause| (1, pause)),
        LimitName::RecipientsPerDay | LimitName::ExternalRecipientsPerDay => None,
    }
}

/// An unknown moment is later than any.
fn later(one: Option<Timestamp>, other: Option<Timestamp>) -> Ordering {
    match (one, other) {
        (Some(one), Some(other)) => one.cmp(&other),
        (one, other) => other.is_some().cmp(&one.is_some()),
    }
}
