//! `deploy/`: the units are what systemd takes, and what the guides tell people to run does run.
//!
//! A fenced block behind `<!-- run -->` is run as it stands, by a shell or by Python, against a relay in front of the simulated endpoint. What is
//! `/etc/hve-relay` and `relay.contoso.com` port 25 there is that relay's here.

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hve_relay::config::Config;
use support::World;

const BINARY: &str = env!("CARGO_BIN_EXE_hve-relay");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Whether a program that `tests/run` installs is here. Plain `cargo test` passes over what needs it.
fn is_here(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    assert!(found || std::env::var_os("HVE_RELAY_REQUIRE_CLIENTS").is_none(), "{program} is not installed");
    found
}

/// The units, with the program where it is here.
fn units() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["hve-relay.service", "hve-relay.socket"] {
        let unit = text(&format!("deploy/systemd/{name}")).replace("/usr/bin/hve-relay", BINARY);
        fs::write(folder.path().join(name), unit).expect("written");
    }
    folder
}

#[test]
fn systemd_takes_the_units() {
    if !is_here("systemd-analyze") {
        return;
    }
    let folder = units();
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(["hve-relay.service", "hve-relay.socket"].map(|name| folder.path().join(name)))
        .output()
        .expect("it runs");
    // It warns of what it does not know and still ends with 0.
    let own: Vec<String> = said(&output).lines().filter(|line| line.contains("hve-relay")).map(str::to_owned).collect();
    assert!(output.status.success() && own.is_empty(), "{}", said(&output));
}

#[test]
fn systemd_says_that_the_service_is_confined() {
    if !is_here("systemd-analyze") {
        return;
    }
    let folder = units();
    let analyze = |threshold: &str| {
        let threshold = format!("--threshold={threshold}");
        let arguments = ["security", "--offline=true", "--no-pager", threshold.as_str()];
        Command::new("systemd-analyze").args(arguments).arg(folder.path().join("hve-relay.service")).output().expect("it runs")
    };
    // Exposure in tenths: below 5.0 it is "OK"; this is near the best that a service with a network can have.
    let output = analyze("20");
    assert!(output.status.success() && said(&output).contains(" OK "), "{}", said(&output));
    assert!(!analyze("5").status.success(), "the threshold means nothing");
}

#[test]
fn the_unit_fits_what_the_relay_does() {
    let unit = text("deploy/systemd/hve-relay.service");
    let value = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(&format!("{key}="))).unwrap_or_else(|| panic!("no {key}"));
        line.to_owned()
    };
    let config = reference();
    let stop: u64 = value("TimeoutStopSec").trim_end_matches('s').parse().expect("seconds");
    assert!(stop > config.grace.as_secs(), "systemd would kill a relay that is still within shutdown.grace");
    assert!(value("RestartPreventExitStatus").split(' ').any(|status| status == "78"));
    assert_eq!(config.store.data_dir, Path::new("/var/lib").join(value("StateDirectory")));
    let socket = text("deploy/systemd/hve-relay.socket");
    let held: Vec<&str> = socket.lines().filter_map(|line| line.strip_prefix("ListenStream=")).collect();
    let listeners: Vec<String> = config.listeners.iter().map(|listener| listener.address.to_string()).collect();
    assert_eq!(held, listeners, "the relay does not start with a socket that is no listener's");
}

/// The reference configuration, which listens as the one of the packages does.
fn reference() -> Config {
    let folder = tempfile::tempdir().expect("a folder");
    let password = folder.path().join("password");
    fs::write(&password, "secret\n").expect("written");
    fs::set_permissions(&password, Permissions::from_mode(0o600)).expect("mode set");
    let text = text("config/hve-relay.toml").replace("/etc/hve-relay/hve01.password", password.to_str().expect("UTF-8"));
    Config::from_str(&text, Path::new("hve-relay.toml")).unwrap_or_else(|problems| panic!("{problems}")).0
}

/// The configuration of the packages is one to start from: what is left to write, and nothing else, is told.
#[test]
fn check_explains_the_configuration_of_the_packages() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().to_str().expect("UTF-8");
    for sub in ["conf.d", "secrets"] {
        fs::create_dir(folder.path().join(sub)).expect("a folder");
    }
    let path = folder.path().join("hve-relay.toml");
    fs::write(&path, text("deploy/package/hve-relay.toml").replace("/etc/hve-relay", dir)).expect("written");
    let problems = Config::load(&path).expect_err("something is to be written");
    let keys: Vec<&str> = problems.list().iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["tenant.accepted_domains", "account[0].address", "account[0].password_file"], "{problems}");
}

/// A block of a guide that is run.
struct Block {
    place: String,
    language: String,
    text: String,
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut pages: Vec<PathBuf> =
        fs::read_dir(root().join("deploy")).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    pages.sort();
    for page in pages.iter().filter(|page| page.extension().is_some_and(|extension| extension == "md")) {
        let text = fs::read_to_string(page).expect("readable");
        let mut lines = text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            if line != "<!-- run -->" {
                continue;
            }
            let fence = lines.next().map(|(_, line)| line).unwrap_or_default();
            let language = fence.strip_prefix("```").unwrap_or_else(|| panic!("{}:{number}: no block", page.display()));
            let inside: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
            let place = format!("{}:{}", page.file_name().expect("a name").to_string_lossy(), number + 1);
            blocks.push(Block { place, language: language.to_owned(), text: inside.join("\n") });
        }
    }
    blocks
}

#[test]
fn what_the_guides_say_to_run_runs() {
    let world = World::new(1);
    let folder = world.setup.folder();
    // The command as people type it finds its configuration in /etc.
    let wrapper = folder.join("hve-relay");
    let config = folder.join("hve-relay.toml");
    let script = format!(
        "#!/bin/sh\ncase \"$1 $*\" in\n*--config*|explain*|demo*|sim*|password*|certificate*|-*) exec {BINARY} \"$@\" ;;\n\
         *) exec {BINARY} \"$@\" --config {} ;;\nesac\n",
        config.display()
    );
    fs::write(&wrapper, script).expect("written");
    fs::set_permissions(&wrapper, Permissions::from_mode(0o755)).expect("mode set");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").expect("a path"));
    let (host, port) = ("127.0.0.1", world.relay.address.port());

    let blocks = blocks();
    assert!(blocks.len() >= 6, "only {} blocks found", blocks.len());
    let mut sent = 0;
    for Block { place, language, text } in &blocks {
        let text = text
            .replace("relay.contoso.com:25", &format!("{host}:{port}"))
            .replace("\"relay.contoso.com\", 25", &format!("\"{host}\", {port}"))
            .replace("/etc/hve-relay", folder.to_str().expect("UTF-8"));
        let mut command = match language.as_str() {
            "sh" => Command::new("sh"),
            "python" => Command::new("python3"),
            other => panic!("{place}: nobody here runs {other:?}"),
        };
        let needed = ["swaks", "curl", "python3"].into_iter().filter(|program| text.contains(program) || command.get_program() == *program);
        if !needed.into_iter().all(is_here) {
            continue;
        }
        let flag = if language == "sh" { "-ec" } else { "-c" };
        let output = command.args([flag, &text]).env("PATH", &path).current_dir(folder).output().expect("it runs");
        assert!(output.status.success(), "{place}:\n{text}\n{}", said(&output));
        if text.contains(host) {
            sent += 1;
            assert_eq!(world.taken(sent).len() as u64, sent, "{place}: the message did not arrive");
        }
    }
}

#[test]
fn the_guides_lead_to_each_other_and_nowhere_else() {
    let mut wrong = Vec::new();
    for entry in fs::read_dir(root().join("deploy")).expect("a folder") {
        let page = entry.expect("an entry").path();
        if page.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = fs::read_to_string(&page).expect("readable");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()).filter(|link| !link.contains("://")) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { page.with_file_name("").join(path) };
            let there = target.exists() && (heading.is_empty() || headings(&target).iter().any(|found| found == heading));
            if !there {
                wrong.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The anchors of a page's headings, as they are made of their text.
fn headings(page: &Path) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap_or_default();
    let heading = |line: &str| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_')).map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    text.lines().filter(|line| line.starts_with('#')).map(heading).collect()
}
