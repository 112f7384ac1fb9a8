//! The law of imports: a room imports only rooms below it, and the few side-steps named here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Each room and the rooms that it may import. What a room is for stands in its own `mod.rs`.
const LAW: &[(&str, &[&str])] = &[
    // speaking
    ("clock", &[]),
    ("units", &[]),
    ("secret", &[]),
    ("smtp", &["secret"]),
    ("mail", &["smtp", "clock", "units"]),
    // deciding
    // It names the limits that a reply says are used up.
    ("reply", &["budget", "mail", "smtp", "clock", "units"]),
    ("intake", &["mail", "smtp", "clock", "units", "secret"]),
    ("session", &["intake", "mail", "smtp", "clock", "units", "secret"]),
    ("budget", &["mail", "smtp", "clock", "units"]),
    ("schedule", &["budget", "mail", "reply", "smtp", "clock", "units"]),
    ("notice", &["mail", "reply", "smtp", "clock", "units"]),
    // touching the world
    ("tls", &[]),
    ("store", &["budget", "mail", "smtp", "clock", "units"]),
    ("upstream", &["reply", "tls", "mail", "smtp", "clock", "units", "secret"]),
    (
        "config",
        &[
            "telemetry",
            "session",
            "intake",
            "schedule",
            "store",
            "upstream",
            "reply",
            "budget",
            "notice",
            "tls",
            "mail",
            "smtp",
            "clock",
            "units",
            "secret",
        ],
    ),
    // telling
    // The budgets are among what a scrape shows.
    (
        "telemetry",
        &["session", "intake", "schedule", "budget", "store", "upstream", "reply", "notice", "tls", "mail", "smtp", "clock", "units"],
    ),
    // showing
    (
        "admin",
        &[
            "telemetry",
            "session",
            "intake",
            "schedule",
            "budget",
            "store",
            "upstream",
            "reply",
            "notice",
            "tls",
            "mail",
            "smtp",
            "clock",
            "units",
            // What operators show when they ask.
            "secret",
        ],
    ),
    // beside
    ("sim", &["smtp", "tls", "clock", "units", "secret"]),
];
/// They turn actions into IO and may import everything.
const WIRING: &[&str] = &["main", "lib", "cli", "daemon"];

#[test]
fn every_room_keeps_the_law_of_imports() {
    let law: BTreeMap<&str, BTreeSet<&str>> = LAW.iter().map(|(room, may)| (*room, may.iter().copied().collect())).collect();
    let mut offences = Vec::new();
    for (room, file, line) in lines_of_source() {
        if WIRING.contains(&room.as_str()) {
            continue;
        }
        let Some(may) = law.get(room.as_str()) else {
            offences.push(format!("{file}: the room `{room}` is not in the law"));
            continue;
        };
        for import in imports(&line) {
            if import != room && !may.contains(import.as_str()) {
                offences.push(format!("{file}: `{room}` must not import `{import}`: {}", line.trim()));
            }
        }
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn deciding_rooms_touch_nothing() {
    const PURE: &[&str] = &["smtp", "mail", "reply", "intake", "session", "budget", "schedule", "notice", "units"];
    const WORLD: &[&str] =
        &["std::fs", "std::net::Tcp", "tokio::", "SystemTime::now", "Instant::now", "std::thread", "tracing::", "std::env"];
    let offences: Vec<String> = lines_of_source()
        .filter(|(room, ..)| PURE.contains(&room.as_str()))
        .filter(|(_, _, line)| WORLD.iter().any(|word| line.contains(word)))
        .map(|(_, file, line)| format!("{file}: {}", line.trim()))
        .collect();
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

/// Every line of `src/` that is not a comment, with its room and its file.
fn lines_of_source() -> impl Iterator<Item = (String, String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&src, &mut files);
    assert!(files.len() > 10, "no source found");
    files.into_iter().flat_map(move |file| {
        let inside = Path::new(&file).strip_prefix(&src).expect("below src").to_path_buf();
        let first = inside.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
        let room = first.trim_end_matches(".rs").to_owned();
        let text = fs::read_to_string(&file).expect("readable source");
        let shown = inside.display().to_string();
        let lines: Vec<String> = text.lines().filter(|line| !line.trim_start().starts_with("//")).map(str::to_owned).collect();
        lines.into_iter().map(move |line| (room.clone(), shown.clone(), line))
    })
}

fn collect(folder: &Path, files: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("readable folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            files.push(path.to_string_lossy().into_owned());
        }
    }
}

/// The rooms named behind `crate::` in a line, also in `crate::{a::X, b::Y}`.
fn imports(line: &str) -> Vec<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    line.split("crate::")
        .skip(1)
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(group) => group.split(", ").map(name).collect::<Vec<_>>(),
            None => vec![name(rest)],
        })
        .filter(|room| !room.is_empty())
        .collect()
}
