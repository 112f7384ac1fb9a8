//! What `--version` tells of the build: the commit, the target, the compiler. None of it is needed: without git, or outside of it, the commit is not
//! known, and everything else is as it was.
//!
//! A debug build does not ask for the commit: it would be compiled anew after each. Whoever builds from an archive of the source may give the commit
//! in `HVE_RELAY_COMMIT`.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=HVE_RELAY_COMMIT");
    let variable = |name: &str| env::var(name).ok().filter(|text| !text.is_empty());
    let commit = variable("HVE_RELAY_COMMIT").or_else(|| match variable("PROFILE").as_deref() {
        Some("release") => commit(),
        _ => Some("not asked for in a debug build".to_owned()),
    });
    let rustc = said(&variable("RUSTC").unwrap_or_else(|| "rustc".to_owned()), &["--version"]);
    let unknown = || "unknown".to_owned();
    println!("cargo::rustc-env=HVE_RELAY_COMMIT={}", commit.unwrap_or_else(unknown));
    println!("cargo::rustc-env=HVE_RELAY_TARGET={}", variable("TARGET").unwrap_or_else(unknown));
    println!("cargo::rustc-env=HVE_RELAY_RUSTC={}", rustc.unwrap_or_else(unknown));
}

/// The commit that is checked out, with a mark if the files differ from it.
fn commit() -> Option<String> {
    // Only if this folder is one that git keeps, and not a copy inside somebody else's.
    let folder = env::var("CARGO_MANIFEST_DIR").ok()?;
    if said("git", &["rev-parse", "--show-toplevel"])? != folder {
        return None;
    }
    for path in ["HEAD", "index"] {
        println!("cargo::rerun-if-changed={}", said("git", &["rev-parse", "--path-format=absolute", "--git-path", path])?);
    }
    let commit = said("git", &["rev-parse", "--short=12", "HEAD"])?;
    let changed = said("git", &["status", "--porcelain", "--untracked-files=no"]).is_some();
    Some(if changed { format!("{commit}, with changes") } else { commit })
}

/// The first line of what a program says, if it succeeds and says something.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    let line = String::from_utf8(output.stdout).ok()?.lines().next()?.trim().to_owned();
    (!line.is_empty()).then_some(line)
}
