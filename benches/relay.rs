//! How fast the relay is: load generator → the real binary → the simulated endpoint over real TLS, all on this machine.
//!
//! ```text
//! cargo bench --bench relay                    every scenario, about a minute
//! cargo bench --bench relay -- a e             only these
//! cargo bench --bench relay -- --quick         a tenth of the messages: whether it runs, not how fast
//! HVE_RELAY_BENCH_DIR=/var/tmp cargo bench …   the queue in a folder of that one, to measure another disk
//! ```
//!
//! Each scenario starts a relay with an empty queue, sends it all messages as fast as it takes them, and ends when the endpoint has taken the
//! last. The relay has its defaults but for the limits of sessions; it logs JSON to a file. The load generator speaks in lockstep, as devices do.
//!
//! What is measured: *accepted*, messages from the first connection to the last 250; *delivered*, from the first 250 until the endpoint has
//! taken the last, and in (e) also *once connected*, from the first that it has taken: seven replies come before that, which the ceiling does not
//! know; and *once all was accepted*, when nothing comes in any more and the load generator takes no processor; *250 after DATA*, from the final dot's write to the reply; processor time of the relay's process alone, from its start to
//! the last delivery; its peak memory. Load generator and endpoint share the cores with the relay, so the rates are a lower bound; they suffer from
//! whatever else runs on the machine, the processor time far less.
//!
//! The reference is a tuned Postfix on two cores, shared in the same way.

#[path = "support/load.rs"]
mod load;
#[path = "support/process.rs"]
mod process;
#[path = "support/report.rs"]
mod report;
#[path = "support/scenario.rs"]
mod scenario;

use std::path::PathBuf;
use std::process::ExitCode;

use scenario::{SCENARIOS, Scenario};

/// Where the queue is to be; else under the build's folder, which is on a disk where /tmp often is none.
const DIR: &str = "HVE_RELAY_BENCH_DIR";

fn main() -> ExitCode {
    let mut quick = false;
    let mut chosen: Vec<&Scenario> = Vec::new();
    // cargo adds `--bench`.
    for argument in std::env::args().skip(1).filter(|argument| argument != "--bench") {
        let before = chosen.len();
        chosen.extend(SCENARIOS.iter().filter(|scenario| scenario.letter == argument));
        match argument.as_str() {
            "--quick" => quick = true,
            _ if chosen.len() > before => {}
            _ => {
                eprintln!("unknown argument {argument:?}: letters from a to e choose scenarios, --quick makes them short");
                return ExitCode::from(64);
            }
        }
    }
    if chosen.is_empty() {
        chosen.extend(SCENARIOS);
    }
    let parent = std::env::var_os(DIR).map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    report::surroundings(&parent);
    let failed: Vec<String> = chosen
        .iter()
        .filter_map(|scenario| match scenario.run(&parent, quick) {
            Ok(figures) => {
                report::figures(scenario, &figures);
                None
            }
            Err(why) => Some(format!("({}) {}: {why}", scenario.letter, scenario.title)),
        })
        .collect();
    failed.iter().for_each(|line| eprintln!("FAILED {line}"));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
