//! What the operator's pages say is true of the code.

use std::fs;
use std::path::Path;

use hve_relay::telemetry;

#[test]
fn the_page_of_events_is_as_the_table_has_it() {
    holds("deploy/events.md", &telemetry::events_page(), "cargo run -- reference events > deploy/events.md");
}

#[test]
fn the_page_of_metrics_is_as_the_table_has_it() {
    holds("deploy/metrics.md", &telemetry::metrics_page(), "cargo run -- reference metrics > deploy/metrics.md");
}

fn holds(path: &str, wanted: &str, command: &str) {
    let found = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path);
    let differs = found.lines().zip(wanted.lines()).enumerate().find(|(_, (found, wanted))| found != wanted);
    let first =
        differs.map_or(String::new(), |(number, (found, wanted))| format!(", first in line {}:\n  {found}\n  {wanted}", number + 1));
    assert!(found == wanted, "{path} differs from the table in the code{first}\nWrite it anew: {command}");
}
