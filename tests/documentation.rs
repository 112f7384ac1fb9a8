//! What the operator's page says of the log is true of the code.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn the_operators_page_names_every_event_and_no_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).expect(path);
    let source = read("src/telemetry/events.rs");
    let told: BTreeSet<&str> = source.split("event = \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let page = read("deploy/README.md");
    let log = page.split("## The log").nth(1).expect("a chapter about the log");
    let names = log.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|line| line.split(" | ").next());
    let documented: BTreeSet<&str> =
        names.flat_map(|names| names.split(", ")).chain(["connected", "disconnected"]).map(|name| name.trim_matches('`')).collect();
    assert!(told.len() > 10);
    assert_eq!(told, documented);
}
