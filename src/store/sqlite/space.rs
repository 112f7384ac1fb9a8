//! Whether there is room: the rule by which new mail is refused before the disk is full, and the ballast for when it is full anyway.
//!
//! A message is let in only if the free space, less the reserve and less what every other message on its way in may still need, holds it; the
//! same for inodes. The file system is asked at most once a second, and after each [`SPENT_MAX`] octets written; in between, what is written is
//! counted off. The ballast is a preallocated file. SQLite needs room even to delete, so when a delivery cannot be recorded the ballast is
//! given up; new mail does not get that room, because the reserve grows by as much until the ballast is back.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, StatVfs, fallocate, statvfs};

use super::fault;
use crate::store::StoreError;

/// How old the figures may be.
const AGE_MAX: Duration = Duration::from_secs(1);
/// How much may be written before the file system is asked again.
const SPENT_MAX: u64 = 64 << 20;
/// Inodes that must stay free; a message takes at most one.
const INODES_RESERVED: u64 = 256;
/// Octets of the ballast, on a file system of at least 16 times as much; on a smaller one a 16th of it. More than the write-ahead log has
/// before it is copied into the database, which the database may have to grow for.
const BALLAST: u64 = 16 << 20;
/// How often it is tried to make the ballast again.
const BALLAST_EVERY: Duration = Duration::from_secs(5);

/// The free space of one file system and the claims on it.
#[derive(Debug)]
pub(super) struct Space {
    dir: PathBuf,
    reserve: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    read: Instant,
    free: u64,
    /// `None` on a file system that has no fixed number of inodes.
    inodes: Option<u64>,
    spent: u64,
    claimed: u64,
    claims: u64,
    /// What is kept free on top of the reserve while the ballast is gone.
    ballast_gone: u64,
}

impl Space {
    /// # Errors
    /// If the file system cannot be asked.
    pub(super) fn new(dir: PathBuf, reserve: u64) -> io::Result<Self> {
        let found = statvfs(&dir)?;
        let state = State {
            read: Instant::now(),
            free: octets_free(&found),
            inodes: inodes_free(&found),
            spent: 0,
            claimed: 0,
            claims: 0,
            ballast_gone: 0,
        };
        Ok(Self { dir, reserve: AtomicU64::new(reserve), state: Mutex::new(state) })
    }

    /// Keeps so much free from now on, besides what is claimed.
    pub(super) fn keep_free(&self, reserve: u64) {
        self.reserve.store(reserve, Ordering::Relaxed);
    }

    /// Claims room for a message of that many octets.
    ///
    /// # Errors
    /// [`StoreError::Full`] if there is not enough.
    pub(super) fn claim(self: &Arc<Self>, octets: u64) -> Result<Claim, StoreError> {
        self.with_fresh(|state| {
            self.holds(state, octets)?;
            state.claimed = state.claimed.saturating_add(octets);
            state.claims += 1;
            Ok(Claim { space: self.clone(), octets })
        })
    }

    /// Octets that new mail may still take.
    pub(super) fn spare(&self) -> u64 {
        self.with_fresh(|state| Ok(state.free.saturating_sub(self.needed(state)))).unwrap_or(0)
    }

    fn needed(&self, state: &State) -> u64 {
        self.reserve.load(Ordering::Relaxed).saturating_add(state.ballast_gone).saturating_add(state.claimed)
    }

    fn holds(&self, state: &State, octets: u64) -> Result<(), StoreError> {
        let needed = self.needed(state).saturating_add(octets);
        if state.free < needed {
            return Err(StoreError::Full(format!("{} octets are free, {needed} are needed", state.free)));
        }
        match state.inodes {
            Some(inodes) if inodes < INODES_RESERVED + state.claims => Err(StoreError::Full(format!("{inodes} inodes are free"))),
            _ => Ok(()),
        }
    }

    fn with_fresh<T>(&self, ask: impl FnOnce(&mut State) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.read.elapsed() > AGE_MAX || state.spent > SPENT_MAX {
            let found = statvfs(&self.dir).map_err(|errno| fault::of_file("cannot ask for the free space", &errno.into()))?;
            state.read = Instant::now();
            state.free = octets_free(&found);
            state.inodes = inodes_free(&found);
            state.spent = 0;
        }
        ask(&mut state)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Room that one message may take; given back when dropped.
#[derive(Debug)]
pub(super) struct Claim {
    space: Arc<Space>,
    octets: u64,
}

impl Claim {
    /// Octets of it have been written: they are no longer claimed but gone.
    pub(super) fn spend(&mut self, octets: u64) {
        let covered = octets.min(self.octets);
        self.octets -= covered;
        self.space.change(|state| {
            state.claimed = state.claimed.saturating_sub(covered);
            state.free = state.free.saturating_sub(octets);
            state.spent = state.spent.saturating_add(octets);
        });
    }

    /// Looks again whether there is room for what is still to be written.
    ///
    /// # Errors
    /// [`StoreError::Full`] if there is no longer.
    pub(super) fn confirm(&self, unwritten: u64) -> Result<(), StoreError> {
        self.space.with_fresh(|state| {
            state.claimed = state.claimed.saturating_sub(self.octets);
            let held = self.space.holds(state, unwritten);
            state.claimed = state.claimed.saturating_add(self.octets);
            held
        })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.space.change(|state| {
            state.claimed = state.claimed.saturating_sub(self.octets);
            state.claims = state.claims.saturating_sub(1);
        });
    }
}

/// Room that is taken so that it can be given up.
#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
    space: Arc<Space>,
    size: u64,
    present: bool,
    tried: Option<Instant>,
}

impl Ballast {
    /// Takes the room if new mail does not need it; gives up what an earlier run took if the disk is full.
    pub(super) fn new(path: PathBuf, space: Arc<Space>) -> Self {
        let size = statvfs(&space.dir).map_or(0, |found| BALLAST.min(found.f_blocks.saturating_mul(found.f_frsize) / 16));
        let present = fs::metadata(&path).is_ok_and(|file| file.len() >= size);
        let mut ballast = Self { path, space, size, present, tried: None };
        let almost_full = ballast.space.with_fresh(|state| Ok(state.free < size)).unwrap_or(true);
        if ballast.present && almost_full {
            ballast.release();
        } else if !ballast.present {
            ballast.space.change(|state| state.ballast_gone = size);
            ballast.restore();
        }
        ballast
    }

    /// Gives the room up. False if that was done before.
    pub(super) fn release(&mut self) -> bool {
        let released = self.present && fs::remove_file(&self.path).is_ok();
        if released {
            self.present = false;
            self.tried = Some(Instant::now());
            self.space.change(|state| state.ballast_gone = self.size);
        }
        released
    }

    /// Takes the room again, once there is twice as much of it; looks every few seconds only.
    pub(super) fn restore(&mut self) {
        if self.present || self.tried.is_some_and(|tried| tried.elapsed() < BALLAST_EVERY) {
            return;
        }
        self.tried = Some(Instant::now());
        // `spare` leaves out the room of the missing ballast already, so this is enough for two.
        if self.space.spare() >= self.size && self.make().is_ok() {
            self.present = true;
            self.space.change(|state| {
                state.ballast_gone = 0;
                state.free = state.free.saturating_sub(self.size);
            });
        }
    }

    /// On a file system that cannot preallocate there is none, and a full disk stops deliveries until there is room.
    fn make(&self) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&self.path)?;
        fallocate(&file, FallocateFlags::empty(), 0, self.size.max(1)).map_err(|errno| {
            let _ = fs::remove_file(&self.path);
            errno.into()
        })
    }
}

fn octets_free(found: &StatVfs) -> u64 {
    found.f_bavail.saturating_mul(found.f_frsize)
}

fn inodes_free(found: &StatVfs) -> Option<u64> {
    (found.f_files > 0).then_some(found.f_favail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(reserve: u64) -> (tempfile::TempDir, Arc<Space>) {
        let temp = tempfile::tempdir().expect("temporary directory");
        let space = Space::new(temp.path().to_owned(), reserve).expect("a file system");
        (temp, Arc::new(space))
    }

    #[test]
    fn what_is_announced_is_not_promised_twice() {
        let (_temp, space) = space(0);
        let half = space.spare() / 2;
        let first = space.claim(half + (64 << 20)).expect("more than a half");
        assert!(matches!(space.claim(half + (64 << 20)), Err(StoreError::Full(_))), "not twice");
        drop(first);
        space.claim(half + (64 << 20)).expect("given back");
    }

    #[test]
    fn the_reserve_is_left_alone() {
        let (_temp, space) = space(u64::MAX);
        let refusal = space.claim(1).expect_err("nothing left");
        assert!(matches!(refusal, StoreError::Full(_)), "{refusal}");
    }

    #[test]
    fn what_was_written_is_neither_claimed_nor_free() {
        let (_temp, space) = space(0);
        let mut claim = space.claim(1_000_000).expect("room");
        space.change(|state| state.free = 2_000_000);
        claim.spend(600_000);
        space.change(|state| assert_eq!((state.free, state.claimed), (1_400_000, 400_000)));
        claim.spend(600_000);
        space.change(|state| assert_eq!((state.free, state.claimed), (800_000, 0)));
        assert_eq!(claim.confirm(800_000), Ok(()));
        assert!(matches!(claim.confirm(800_001), Err(StoreError::Full(_))));
        drop(claim);
        space.change(|state| assert_eq!((state.claimed, state.claims), (0, 0)));
    }

    #[test]
    fn new_mail_does_not_get_the_room_of_the_ballast() {
        let (temp, space) = space(0);
        let mut ballast = Ballast::new(temp.path().join("ballast"), space.clone());
        assert!(ballast.present);
        assert_eq!(fs::metadata(temp.path().join("ballast")).expect("a file").len(), ballast.size);
        assert!(ballast.release() && !ballast.release(), "once");
        space.change(|state| assert_eq!(state.ballast_gone, ballast.size));
        ballast.restore();
        assert!(!ballast.present, "not at once");
        ballast.tried = None;
        ballast.restore();
        space.change(|state| assert_eq!(state.ballast_gone, 0));
    }
}
