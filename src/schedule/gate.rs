//! A gate before an account or a route: open, or closed until a time for a reason.
//!
//! Passing trouble closes it for a short time at first and longer each time that the first attempt after it meets trouble again; that first
//! attempt goes alone. Reports of attempts that had begun before the gate closed say nothing new and change nothing.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::mail::{Class, DeliveryId};
use crate::reply::{Pause, PauseLength};

use super::Settings;

/// See the head of this file.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate {
    closed: Option<Closed>,
}

/// A closed gate.
#[derive(Debug, Clone)]
pub(super) struct Closed {
    pub since: Timestamp,
    pub until: Timestamp,
    pub pause: Pause,
    /// How often trouble met it in a row; zero for a pause of known length, which needs no probe.
    level: u32,
    probe: Option<DeliveryId>,
}

impl Gate {
    /// Whether an attempt may pass.
    pub fn admits(&self, now: Timestamp) -> bool {
        self.closed.as_ref().is_none_or(|closed| now >= closed.until && (closed.level == 0 || closed.probe.is_none()))
    }

    /// When an attempt may pass next; `None` while a probe is on its way and its end will tell.
    pub fn opens(&self) -> Option<Timestamp> {
        match &self.closed {
            None => Some(Timestamp::default()),
            Some(closed) if closed.level > 0 && closed.probe.is_some() => None,
            Some(closed) => Some(closed.until),
        }
    }

    /// Why it is closed, if it is.
    pub fn closed(&self, now: Timestamp) -> Option<&Closed> {
        self.closed.as_ref().filter(|_| !self.admits(now))
    }

    /// An attempt passes.
    pub fn pass(&mut self, now: Timestamp, delivery: DeliveryId) {
        match &mut self.closed {
            Some(closed) if closed.level > 0 && now >= closed.until => closed.probe = Some(delivery),
            Some(closed) if closed.level == 0 && now >= closed.until => self.closed = None,
            _ => {}
        }
    }

    /// An attempt that had begun at `started` met no trouble here. Returns whether this opened the gate.
    pub fn succeed(&mut self, started: Timestamp) -> bool {
        self.closed.take_if(|closed| closed.level > 0 && started > closed.since).is_some()
    }

    /// An attempt met trouble. Returns the time until which the gate is now closed, or `None` if it was closed already and stays as it was.
    pub fn fail(&mut self, now: Timestamp, started: Timestamp, pause: &Pause, settings: &Settings) -> Option<Timestamp> {
        let known = self.closed.as_ref().is_some_and(|closed| started <= closed.since && now < closed.until);
        let level = self.closed.as_ref().map_or(0, |closed| closed.level);
        let (until, level) = match pause.length {
            PauseLength::For(length) => (now + length, 0),
            _ if known => return None,
            PauseLength::BackOff | PauseLength::FewerConnections => {
                (now + doubled(settings.pause_min, settings.pause_max, level), level + 1)
            }
            PauseLength::Suspended => (now + settings.probe, level + 1),
        };
        if self.closed.as_ref().is_some_and(|closed| closed.until >= until && now < closed.until) {
            return None;
        }
        self.closed = Some(Closed { since: now, until, pause: pause.clone(), level, probe: None });
        Some(until)
    }

    /// An attempt ended without a word about this gate: if it was the probe, the next may try.
    pub fn release(&mut self, delivery: DeliveryId) {
        if let Some(closed) = &mut self.closed {
            closed.probe.take_if(|probe| *probe == delivery);
        }
    }
}

/// One gate for everything and one for each class.
#[derive(Debug, Clone, Default)]
pub(super) struct Gates {
    pub all: Gate,
    pub internal: Gate,
    pub external: Gate,
}

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

    pub fn admit(&self, now: Timestamp, class: Class) -> bool {
        self.all.admits(now) && self.by_class(class).admits(now)
    }

    pub fn opens(&self, class: Class) -> Option<Timestamp> {
        Some(self.all.opens()?.max(self.by_class(class).opens()?))
    }

    pub fn pass(&mut self, now: Timestamp, class: Class, delivery: DeliveryId) {
        self.all.pass(now, delivery);
        self.of(Some(class)).pass(now, delivery);
    }

    pub fn succeed(&mut self, started: Timestamp, class: Class) -> bool {
        let own = self.of(Some(class)).succeed(started);
        self.all.succeed(started) || own
    }

    pub fn release(&mut self, delivery: DeliveryId) {
        for gate in [&mut self.all, &mut self.internal, &mut self.external] {
            gate.release(delivery);
        }
    }
}

/// `min` doubled `times` times, at most `max`.
pub(super) fn doubled(min: Duration, max: Duration, times: u32) -> Duration {
    min.saturating_mul(1 << times.min(30)).min(max)
}
