//! How many connections an account may use at a time: as many as are configured, or fewer where the server has said that they are too many.
//!
//! Each refusal takes the account below what was in use when it came, so that a burst of which some were refused ends at what the server takes.
//! After a while without such trouble one connection more is tried, and so on up to what is configured; each time that this meets the same
//! trouble again, the next try comes later.

use crate::clock::Timestamp;
use crate::reply::Pause;

use super::Settings;
use super::gate::doubled;

/// See the head of this file.
#[derive(Debug, Clone)]
pub(super) struct Width {
    configured: usize,
    learned: Option<Learned>,
}

/// What a server's refusals have taught.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Learned {
    /// So many connections at a time.
    pub using: usize,
    /// Since when there are fewer than configured.
    pub since: Timestamp,
    /// When it was met last.
    pub met: Timestamp,
    /// When one more is tried.
    pub grows_at: Timestamp,
    /// How often a try has met the trouble again.
    pub level: u32,
    /// What the server said.
    pub pause: Pause,
}

/// The longest time until one more is tried, in the longest pauses.
const PATIENCE: u32 = 16;

impl Width {
    pub fn new(configured: usize) -> Self {
        Self { configured, learned: None }
    }

    /// So many are configured from now on.
    pub fn configure(&mut self, connections: usize) {
        self.configured = connections;
        self.learned.take_if(|learned| learned.using >= connections);
    }

    /// Connections that may be used at a time.
    pub fn allowed(&self) -> usize {
        self.learned.as_ref().map_or(self.configured, |learned| learned.using.min(self.configured))
    }

    pub fn configured(&self) -> usize {
        self.configured
    }

    pub fn learned(&self) -> Option<&Learned> {
        self.learned.as_ref().filter(|learned| learned.using < self.configured)
    }

    /// The server refused an attempt that had begun at `started` because there are too many connections; so many others are in use. Returns
    /// whether there are fewer now; if not, there is but one, and the account must rest.
    pub fn fewer(&mut self, now: Timestamp, started: Timestamp, in_use: usize, pause: &Pause, settings: &Settings) -> bool {
        let before = self.allowed();
        // One of several that were refused together: each was one too many. Else it was the last of those in use that was too much.
        let known = self.learned.as_ref().is_some_and(|learned| started <= learned.met);
        let using = if known { before.saturating_sub(1) } else { before.saturating_sub(1).min(in_use) };
        if before <= 1 {
            return false;
        }
        let (since, level) = self.learned().map_or((now, 0), |learned| (learned.since, learned.level + u32::from(!known)));
        let grows_at = now + doubled(settings.pause_max, settings.pause_max * PATIENCE, level);
        self.learned = Some(Learned { using: using.max(1), since, met: now, grows_at, level, pause: pause.clone() });
        true
    }

    /// Uses one more, if it is time. Returns whether it did.
    pub fn grow(&mut self, now: Timestamp, settings: &Settings) -> bool {
        let Some(learned) = self.learned.as_mut().filter(|learned| learned.grows_at <= now) else { return false };
        learned.using += 1;
        learned.grows_at = now + doubled(settings.pause_max, settings.pause_max * PATIENCE, learned.level);
        if learned.using >= self.configured {
            self.learned = None;
        }
        true
    }

    /// When [`Self::grow`] has something to do.
    pub fn grows_at(&self) -> Option<Timestamp> {
        self.learned.as_ref().map(|learned| learned.grows_at)
    }

    /// Forgets what was learned.
    pub fn forget(&mut self) {
        self.learned = None;
    }

    /// As it was before a restart, which may have another configuration.
    pub fn restore(&mut self, learned: Learned) {
        self.learned = Some(learned).filter(|learned| (1..self.configured).contains(&learned.using));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::reply::{PauseLength, Scope, Step};

    const START: Timestamp = Timestamp::from_millis(1_795_285_881_000);

    fn at(seconds: u64) -> Timestamp {
        START + Duration::from_secs(seconds)
    }

    fn pause() -> Pause {
        let (scope, length, kind, reason) = (Scope::Account, PauseLength::FewerConnections, "many".into(), "432 4.3.2".into());
        Pause { scope, class: None, length, every: None, limit: None, step: Step::Mail, kind, reason, advice: String::new() }
    }

    #[test]
    fn a_burst_ends_at_what_the_server_took() {
        let settings = Settings::default();
        let mut width = Width::new(5);
        // Five began together, and the server takes three.
        assert!(width.fewer(at(1), at(0), 4, &pause(), &settings));
        assert_eq!(width.allowed(), 4);
        // Meanwhile one of those that it took has ended: that says nothing about how many it takes.
        assert!(width.fewer(at(2), at(0), 2, &pause(), &settings));
        assert_eq!(width.allowed(), 3);
        assert_eq!(width.learned().map(|learned| (learned.since, learned.level)), Some((at(1), 0)));
    }

    #[test]
    fn what_is_in_use_counts_and_not_what_is_configured() {
        let settings = Settings::default();
        let mut width = Width::new(20);
        assert!(width.fewer(at(1), at(0), 3, &pause(), &settings));
        assert_eq!(width.allowed(), 3);
        assert!(width.fewer(at(9), at(8), 0, &pause(), &settings));
        assert_eq!(width.allowed(), 1);
        assert!(!width.fewer(at(20), at(19), 0, &pause(), &settings), "with one there is nothing left but to rest");
    }

    #[test]
    fn it_grows_back_one_by_one_and_more_slowly_where_that_meets_the_trouble_again() {
        let settings = Settings::default();
        let mut width = Width::new(5);
        assert!(width.fewer(at(0), at(0), 3, &pause(), &settings));
        assert_eq!((width.allowed(), width.grows_at()), (3, Some(at(600))));
        assert!(!width.grow(at(599), &settings) && width.grow(at(600), &settings));
        assert_eq!((width.allowed(), width.grows_at()), (4, Some(at(1_200))));
        assert!(width.fewer(at(700), at(699), 3, &pause(), &settings));
        assert_eq!((width.allowed(), width.grows_at()), (3, Some(at(700 + 1_200))));
        assert!(width.grow(at(1_900), &settings) && width.grow(at(3_100), &settings));
        assert_eq!((width.allowed(), width.grows_at(), width.learned()), (5, None, None), "and then it is as it was");
    }

    #[test]
    fn what_is_restored_fits_the_configuration() {
        let settings = Settings::default();
        let mut before = Width::new(5);
        before.fewer(at(0), at(0), 3, &pause(), &settings);
        let learned = before.learned().expect("learned").clone();
        for (configured, allowed) in [(5, 3), (4, 3), (3, 3), (2, 2)] {
            let mut after = Width::new(configured);
            after.restore(learned.clone());
            assert_eq!((after.allowed(), after.learned().is_some()), (allowed, configured > 3), "{configured}");
        }
    }
}
