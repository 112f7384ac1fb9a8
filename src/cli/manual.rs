//! `hve-relay man`, `completions` and `reference`: what the program knows of itself, for `man`, for the shell and for the operator.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Arguments, EX_IOERR};
use crate::telemetry;

/// The shells whose completions can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    /// `hve-relay completions bash > /usr/share/bash-completion/completions/hve-relay`
    Bash,
    /// `hve-relay completions fish > /usr/share/fish/vendor_completions.d/hve-relay.fish`
    Fish,
    /// `hve-relay completions zsh > /usr/share/zsh/vendor-completions/_hve-relay`
    Zsh,
}

/// The pages of reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Page {
    /// Every event of the log: `deploy/events.md`
    Events,
    /// Every metric: `deploy/metrics.md`
    Metrics,
}

/// Prints a page of reference.
pub(super) fn reference(page: Page) -> ExitCode {
    let text = match page {
        Page::Events => telemetry::events_page(),
        Page::Metrics => telemetry::metrics_page(),
    };
    told(io::stdout().write_all(text.as_bytes()))
}

/// Prints a shell's completions.
pub(super) fn completions(kind: Kind) -> ExitCode {
    let shell = match kind {
        Kind::Bash => Shell::Bash,
        Kind::Fish => Shell::Fish,
        Kind::Zsh => Shell::Zsh,
    };
    // Gathered before it is written: the generator panics where a reader has gone away.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "hve-relay", &mut text);
    told(io::stdout().write_all(&text))
}

/// Prints the page of the whole, or writes a page for each command into a folder.
pub(super) fn man(folder: Option<&PathBuf>) -> ExitCode {
    let command = Arguments::command();
    told(match folder {
        None => Man::new(command).render(&mut io::stdout()),
        Some(folder) => fs::create_dir_all(folder).and_then(|()| clap_mangen::generate_to(command, folder)),
    })
}

/// A reader that has gone away has seen what it wanted.
fn told(done: io::Result<()>) -> ExitCode {
    match done {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let _ = writeln!(io::stderr(), "hve-relay: {error}");
            ExitCode::from(EX_IOERR)
        }
        _ => ExitCode::SUCCESS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(man(Some(&folder.path().to_owned())), ExitCode::SUCCESS);
        for page in ["hve-relay", "hve-relay-run", "hve-relay-queue-list", "hve-relay-accounts-suspend"] {
            let text = fs::read_to_string(folder.path().join(format!("{page}.1"))).expect(page);
            assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{text}");
        }
    }
}
