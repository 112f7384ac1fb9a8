//! The real scheduler in worlds that seeds make up, on a virtual clock, judged by observers that share no code with it.
//!
//! `SEED=123 cargo test --test simulation` runs one world again. What is asserted in each:
//! *never over* any limit in any window at the server, whatever the network, restarts, reloads and clocks do; *never under*: whenever the scheduler has
//! nothing to do, no open account could take anything that waits; the reasons and times that it gives; that what it writes to the disk piece by
//! piece is what it knows; that a login without mail is tried when somebody is suspended and his time has come, and never before, across restarts
//! too; that no message fails for what is its account's trouble; and that every recipient comes to exactly one end.

#[path = "simulation/alike.rs"]
mod alike;
#[path = "simulation/courses.rs"]
mod courses;
#[path = "simulation/dice.rs"]
mod dice;
#[path = "simulation/observer.rs"]
mod observer;
#[path = "simulation/shape.rs"]
mod shape;
#[path = "simulation/world.rs"]
mod world;

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};

use world::{Tally, World};

/// How many worlds: about a minute on two cores in a build without optimisation. `SEEDS=20000` tries more.
const WORLDS: u64 = 2_000;

#[test]
fn every_world_keeps_every_law() {
    let seeds = match std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(WORLDS),
    };
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut tally = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return tally;
            }
            match panic::catch_unwind(AssertUnwindSafe(|| World::new(seed).run())) {
                Ok(more) => tally += more,
                Err(cause) => {
                    next.store(seeds.end, Ordering::Relaxed);
                    eprintln!("\nthe world of SEED={seed} broke a law\n");
                    panic::resume_unwind(cause);
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let tally = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut tally = Tally::default();
        for worker in workers {
            match worker.join() {
                Ok(more) => tally += more,
                Err(cause) => panic::resume_unwind(cause),
            }
        }
        tally
    });
    println!("{tally:?}");
    if seeds.end - seeds.start == WORLDS {
        assert!(
            tally.restarts > 1_000 && tally.reloads > 1_000 && tally.idle > 100_000 && tally.waits > 10_000 && tally.kept_promises > 1_000,
            "{tally:?}"
        );
        assert!(tally.blamed.iter().all(|times| *times > 50), "{tally:?}");
        assert!(tally.logins > 1_000 && tally.widths > 500 && tally.elsewhere > 500, "{tally:?}");
    }
}
