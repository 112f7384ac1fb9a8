//! A gate before an account, an application, a route or the tenant: open, or closed until a time for a reason.
//!
//! Passing trouble closes it for a short time at first and longer each time that the first attempt after it meets trouble again; that first
//! attempt goes alone. A gate that only an operator's act can open is *suspended*: now and then a login is tried through it, without mail.
//! What a login alone had met is over when one passes; what a message had met, a single message must try once a login has passed. When a login
//! begins, the time of the next one is set at once: however the first ends, and whatever becomes of the relay meanwhile, the next comes no earlier.
//!
//! Reports of attempts that had begun before the gate closed say nothing new and change nothing; nor do those that had begun before it was
//! opened because what stood in the way was put right: they may have met what was there before.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::mail::{Class, DeliveryId};
use crate::reply::{Pause, PauseLength, Step};

use super::Settings;

/// See the head of this file.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate {
    closed: Option<Closed>,
    /// What goes ahead to find out whether the trouble is over.
    ahead: Option<Ahead>,
    /// When it was opened by hand last.
    put_right: Timestamp,
}

/// A closed gate, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// When its trouble began.
    pub since: Timestamp,
    /// When it was met last.
    pub met: Timestamp,
    /// Until when nothing passes; a suspended gate is not tried before.
    pub until: Timestamp,
    /// What was met.
    pub pause: Pause,
    /// How often trouble met it in a row; zero for a pause of known length, which needs nobody to go ahead.
    pub level: u32,
    /// How many logins were tried in this trouble, the one that met it included.
    pub logins: u32,
    /// It is suspended for what a message met, and a login has passed since.
    pub passed: bool,
}

/// See [`Gate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ahead {
    /// An attempt to deliver something.
    Message(DeliveryId),
    /// A login of the account that has this mark.
    Login(u64),
}

/// How far a login without mail gets.
pub(super) const LOGIN: Option<Step> = Some(Step::Mail);

impl Closed {
    /// Only an operator's act ends it.
    pub fn is_suspended(&self) -> bool {
        self.pause.length == PauseLength::Suspended
    }

    /// A login passes before anything else does.
    fn wants_login(&self) -> bool {
        self.is_suspended() && !self.passed
    }

    /// What got past each step before `stopped`, past all of them if that is none, shows its end.
    pub(super) fn ends_with(&self, stopped: Option<Step>) -> bool {
        stopped.is_none_or(|stopped| self.pause.step < stopped)
    }
}

impl Gate {
    /// Whether an attempt may pass.
    pub fn admits(&self, now: Timestamp) -> bool {
        self.opens().is_some_and(|opens| opens <= now)
    }

    /// When an attempt may pass next; `None` while the end of what goes ahead will tell.
    pub fn opens(&self) -> Option<Timestamp> {
        match &self.closed {
            None => Some(Timestamp::default()),
            Some(closed) if closed.level > 0 && (self.ahead.is_some() || closed.wants_login()) => None,
            Some(closed) => Some(closed.until),
        }
    }

    /// When a login is to be tried through it; `None` if none is.
    pub fn login_due(&self) -> Option<Timestamp> {
        self.closed.as_ref().filter(|closed| closed.wants_login() && self.ahead.is_none()).map(|closed| closed.until)
    }

    /// When a login may pass that another gate asks for; `None` while the end of what goes ahead will tell.
    pub fn lets_login(&self) -> Option<Timestamp> {
        match &self.closed {
            None => Some(Timestamp::default()),
            Some(closed) if closed.level > 0 && self.ahead.is_some() => None,
            Some(closed) => Some(closed.until),
        }
    }

    /// Why it is closed, if it is.
    pub fn closed(&self, now: Timestamp) -> Option<&Closed> {
        self.closed.as_ref().filter(|_| !self.admits(now))
    }

    /// Its trouble, also while an attempt may pass to find out whether that is over.
    pub fn trouble(&self) -> Option<&Closed> {
        self.closed.as_ref()
    }

    /// Something is on its way to find out whether the trouble is over.
    pub fn is_tried(&self) -> bool {
        self.ahead.is_some()
    }

    /// An attempt passes.
    pub fn pass(&mut self, now: Timestamp, delivery: DeliveryId) {
        match &self.closed {
            Some(closed) if closed.level > 0 && now >= closed.until => self.ahead = Some(Ahead::Message(delivery)),
            Some(closed) if closed.level == 0 && now >= closed.until => self.closed = None,
            _ => {}
        }
    }

    /// A login begins. The next one of a suspended gate comes when its interval has passed.
    pub fn pass_login(&mut self, now: Timestamp, account: u64, settings: &Settings) {
        let Some(closed) = self.closed.as_mut().filter(|closed| closed.level > 0 && now >= closed.until) else { return };
        self.ahead = Some(Ahead::Login(account));
        if closed.wants_login() {
            closed.logins += 1;
            closed.until = now + interval(&closed.pause, settings);
        }
    }

    /// Another's login has begun, which tells of this gate's trouble too.
    pub fn postpone(&mut self, until: Timestamp) {
        if let Some(closed) = self.closed.as_mut().filter(|closed| closed.wants_login()) {
            closed.until = closed.until.max(until);
        }
    }

    /// An attempt that had begun at `started` got past each step before `stopped`; past all of them, if that is none. Returns whether this opened
    /// the gate.
    pub fn got_past(&mut self, started: Timestamp, stopped: Option<Step>) -> bool {
        self.closed.take_if(|closed| closed.level > 0 && started > closed.met && closed.ends_with(stopped)).is_some()
    }

    /// A login that had begun at `started` passed. Returns whether this opened the gate.
    pub fn logged_in(&mut self, now: Timestamp, started: Timestamp) -> bool {
        let Some(closed) = self.closed.as_mut().filter(|closed| closed.level > 0 && started > closed.met) else { return false };
        if closed.ends_with(LOGIN) {
            self.closed = None;
            return true;
        }
        if closed.wants_login() {
            (closed.passed, closed.until) = (true, now);
        }
        false
    }

    /// An attempt met trouble. Returns the time until which the gate is now closed, or `None` if it was closed already and stays as it was.
    pub fn fail(&mut self, now: Timestamp, started: Timestamp, pause: &Pause, settings: &Settings) -> Option<Timestamp> {
        if started < self.put_right {
            return None;
        }
        let known = self.closed.as_ref().is_some_and(|closed| started <= closed.met && now < closed.until);
        let level = self.closed.as_ref().map_or(0, |closed| closed.level);
        let (until, level) = match pause.length {
            PauseLength::For(length) => (now + length, 0),
            _ if known => return None,
            PauseLength::BackOff | PauseLength::FewerConnections => {
                (now + doubled(settings.pause_min, settings.pause_max, level), level + 1)
            }
            PauseLength::Suspended => (now + interval(pause, settings), level + 1),
        };
        let suspends = pause.length == PauseLength::Suspended;
        let stays = self.closed.as_ref().is_some_and(|closed| match (closed.is_suspended(), suspends) {
            // What passes by itself does not end what an operator must end, unless the message that was to tell has met it.
            (true, false) => !matches!(self.ahead, Some(Ahead::Message(_))),
            (false, true) => false,
            _ => self.ahead.is_none() && closed.until >= until && now < closed.until,
        });
        if stays {
            return None;
        }
        let former = self.closed.as_ref().filter(|closed| closed.pause.kind == pause.kind);
        let since = former.map_or(now, |closed| closed.since);
        let by_login = matches!(self.ahead, Some(Ahead::Login(_)));
        let logins = former.map_or(0, |closed| closed.logins) + u32::from(pause.step == Step::Auth && !(by_login && former.is_some()));
        self.closed = Some(Closed { since, met: now, until, pause: pause.clone(), level, logins, passed: false });
        // Whatever else went ahead had begun before, and tells nothing of this.
        self.ahead = None;
        Some(until)
    }

    /// An attempt or login ended without a word about this gate: if it went ahead, the next may try.
    pub fn release(&mut self, ahead: Ahead) {
        self.ahead.take_if(|it| *it == ahead);
    }

    /// What kept it closed was put right.
    fn put_right(&mut self, now: Timestamp) {
        *self = Self { put_right: now, ..Self::default() };
    }

    /// What keeps it closed may be over: what is to find that out may do so at once.
    pub fn hurry(&mut self) {
        if let Some(closed) = self.closed.as_mut().filter(|closed| closed.level > 0) {
            closed.until = closed.until.min(closed.met);
        }
    }

    /// As it was before a restart.
    pub fn restore(&mut self, closed: Closed) {
        *self = Self { closed: Some(closed), ..Self::default() };
    }
}

/// How often a suspended gate is tried.
pub(super) fn interval(pause: &Pause, settings: &Settings) -> Duration {
    pause.every.unwrap_or(settings.probe)
}

/// One gate for everything and one for each class.
#[derive(Debug, Clone, Default)]
pub(super) struct Gates {
    pub all: Gate,
    pub internal: Gate,
    pub external: Gate,
}

/// The gates of one holder, by the class that they are for.
pub(super) const CLASSES: [Option<Class>; 3] = [None, Some(Class::Internal), Some(Class::External)];

impl Gates {
    pub fn of(&mut self, class: Option<Class>) -> &mut Gate {
        match class {
            None => &mut self.all,
            Some(Class::Internal) => &mut self.internal,
            Some(Class::External) => &mut self.external,
        }
    }

    pub fn by_class(&self, class: Class) -> &Gate {
        match class {
            Class::Internal => &self.internal,
            Class::External => &self.external,
        }
    }

    pub fn each(&self) -> [&Gate; 3] {
        [&self.all, &self.internal, &self.external]
    }

    fn each_mut(&mut self) -> [&mut Gate; 3] {
        [&mut self.all, &mut self.internal, &mut self.external]
    }

    pub fn admit(&self, now: Timestamp, class: Class) -> bool {
        self.all.admits(now) && self.by_class(class).admits(now)
    }

    pub fn opens(&self, class: Class) -> Option<Timestamp> {
        Some(self.all.opens()?.max(self.by_class(class).opens()?))
    }

    /// When one of them asks for a login.
    pub fn login_due(&self) -> Option<Timestamp> {
        self.each().into_iter().filter_map(Gate::login_due).min()
    }

    /// When a login may pass: a gate for one class does not concern it.
    pub fn let_login(&self) -> Option<Timestamp> {
        self.all.lets_login()
    }

    pub fn pass(&mut self, now: Timestamp, class: Class, delivery: DeliveryId) {
        self.all.pass(now, delivery);
        self.of(Some(class)).pass(now, delivery);
    }

    pub fn pass_login(&mut self, now: Timestamp, account: u64, settings: &Settings) {
        self.each_mut().into_iter().for_each(|gate| gate.pass_login(now, account, settings));
    }

    pub fn got_past(&mut self, started: Timestamp, class: Class, stopped: Option<Step>) -> bool {
        let own = self.of(Some(class)).got_past(started, stopped);
        self.all.got_past(started, stopped) || own
    }

    pub fn logged_in(&mut self, now: Timestamp, started: Timestamp) -> bool {
        // Each of them hears it.
        self.each_mut().map(|gate| gate.logged_in(now, started)).contains(&true)
    }

    pub fn release(&mut self, ahead: Ahead) {
        self.each_mut().into_iter().for_each(|gate| gate.release(ahead));
    }

    pub fn put_right(&mut self, now: Timestamp) {
        self.each_mut().into_iter().for_each(|gate| gate.put_right(now));
    }

    pub fn hurry(&mut self) {
        self.each_mut().into_iter().for_each(Gate::hurry);
    }
}

/// `min` doubled `times` times, at most `max`.
pub(super) fn doubled(min: Duration, max: Duration, times: u32) -> Duration {
    min.saturating_mul(1 << times.min(30)).min(max)
}
