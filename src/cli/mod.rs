//! The command line: what can be asked of the binary, and its exit status (sysexits(3): 0 done, 64 wrong usage, 66 no such file,
//! 69 the relay does not answer, 74 input/output, 78 configuration; 1: the relay refuses).

mod accounts;
mod backup;
mod certificate;
mod check;
mod clients;
mod control;
mod demo;
mod dialogue;
mod doctor;
mod explain;
mod fsck;
mod letters;
mod log;
mod manual;
mod password;
mod plan;
mod queue;
mod reload;
mod report;
mod run;
mod send_test;
mod show;
mod sim;
mod status;
mod trace;
mod version;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::telemetry::Format;

/// An SMTP relay for devices and applications in front of Microsoft 365 High Volume Email.
#[derive(Debug, Parser)]
#[command(name = "hve-relay", version, long_version = version::facts(), about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the relay until SIGTERM or Ctrl-C.
    Run {
        /// The configuration, in TOML; config/hve-relay.toml documents every key.
        #[arg(long, value_name = "FILE", default_value = CONFIG)]
        config: PathBuf,
        /// How log lines on standard error look: auto (pretty on a terminal, else JSON), json or pretty. Overrides log.format.
        #[arg(long, value_name = "FORMAT")]
        log: Option<Format>,
    },
    /// Check a configuration: all its problems at once, each with what to write instead. Exit status 78 if there are any.
    Check(check::Arguments),
    /// Look at everything that a relay needs: configuration, disk, clock, listeners, servers, certificates, logins and tokens. Sends nothing.
    ///
    /// Exit status 0: all is well; 1: there are warnings; 2: something fails. Each finding says what to do.
    Doctor(doctor::Arguments),
    /// Send one real message through the running relay, and follow it to its outcome.
    ///
    /// Exit status 0: the upstream server has it; 1: it was refused or has failed; 75: it still waits; 69: no relay answers.
    SendTest(send_test::Arguments),
    /// Have the running relay go on by its configuration as it is now, without losing a session or a message; like SIGHUP, and waits for it.
    ///
    /// Exit status 78 if the configuration cannot be used: then all its problems are printed, and nothing has changed.
    Reload(reload::Arguments),
    /// The running relay in one look: what waits, until when, and which accounts do not take mail.
    Status(status::Arguments),
    /// What waits in the running relay's queue, why and until when; hold, release, retry or remove it.
    Queue(queue::Arguments),
    /// Copy the queue, its contents and the history into a folder, while the relay runs or not. The copy is read back and verified.
    Backup(backup::Backup),
    /// Put a backup in place of what is in the data directory; or, while the relay runs, give it back those messages of the backup that it lacks.
    ///
    /// The relay stopped: what is there is moved aside, not deleted. The relay running: what it has stays, what has left since as its history knows
    /// stays away, and its budgets and its history are its own.
    ///
    /// What was queued when the backup was made may have been delivered since; so it is held until somebody has found out, unless --in-doubt resend
    /// says that it is to be sent, and may come twice. What was accepted since is not in the backup. Budgets, with the relay stopped, are those of the
    /// queue that is replaced, or count as used up where it cannot be read.
    Restore(backup::Restore),
    /// Look whether the data directory is sound: both databases, messages without content, contents without message.
    Fsck(fsck::Arguments),
    /// What became of mail: what was accepted from where, each attempt with its reply, and why the rest waits.
    Trace(trace::Arguments),
    /// A month of mail, added up by client, account, sender, day or class: how much, how fast, and what it cost.
    Report(report::Arguments),
    /// How the running relay's accounts stand, why they wait and until when; suspend or resume one.
    Accounts(accounts::Arguments),
    /// What the running relay's clients do otherwise than the standards have it, how often and where, so that devices can be set right.
    Clients(clients::Arguments),
    /// What the running relay logs; more or less of it, until SIGHUP.
    Log(log::Arguments),
    /// Make the hash of a password for a [[user]]: asks for it twice, or reads it from standard input where that is no terminal.
    Password,
    /// Make a certificate that signs itself, and its key, for listeners with TLS. Existing files are left alone.
    Certificate(certificate::Arguments),
    /// When an amount of mail would have gone, what would hold it up, and what more accounts would change. Sends nothing.
    Plan(plan::Arguments),
    /// What the relay makes of an upstream server's reply: whose trouble it is, and what becomes of the mail, the account and the others.
    Explain(explain::Arguments),
    /// A simulated HVE endpoint, alone: to try a migration, a script or another sender before it meets the tenant.
    ///
    /// It speaks STARTTLS and AUTH, holds the profile's limits with the service's own replies, refuses foreign senders and (at general
    /// availability) external recipients, and keeps what it takes. Ctrl-C ends it; SIGHUP reads the faults again.
    Sim(sim::Arguments),
    /// Try it out: a simulated HVE endpoint, the relay on 127.0.0.1:2525, and a small workload. Needs nothing and keeps nothing.
    Demo {
        /// End after the table; exit status 0 only if every message had the outcome it should.
        #[arg(long)]
        once: bool,
        /// The port on 127.0.0.1 at which the relay listens.
        #[arg(long, default_value_t = 2525, value_name = "PORT")]
        port: u16,
    },
    /// Completions for a shell, to standard output.
    Completions {
        /// Which.
        shell: manual::Kind,
    },
    /// The manual page, to standard output; or a page for each command, into a folder.
    Man {
        /// The folder; it is made if it is not there.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// What the relay can say of itself, as a page of Markdown, to standard output.
    Reference {
        /// Which page.
        page: manual::Page,
    },
}

/// Where the configuration is if nothing else is said.
const CONFIG: &str = "/etc/hve-relay/hve-relay.toml";

/// sysexits(3): wrong usage.
pub(crate) const EX_USAGE: u8 = 64;
/// sysexits(3): an error of input or output.
pub(crate) const EX_IOERR: u8 = 74;

/// Reads the arguments, does what they ask, and returns the exit status.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let status = if error.use_stderr() { ExitCode::from(EX_USAGE) } else { ExitCode::SUCCESS };
            // Nobody is left to tell if the terminal is gone.
            let _ = error.print();
            return status;
        }
    };
    match arguments.command {
        Command::Run { config, log } => run::run(&config, log),
        Command::Check(arguments) => check::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::SendTest(arguments) => send_test::run(&arguments),
        Command::Reload(arguments) => reload::run(arguments),
        Command::Status(arguments) => status::run(arguments),
        Command::Queue(arguments) => queue::run(arguments),
        Command::Backup(arguments) => backup::backup(&arguments),
        Command::Restore(arguments) => backup::restore(&arguments),
        Command::Fsck(arguments) => fsck::run(&arguments),
        Command::Trace(arguments) => trace::run(arguments),
        Command::Report(arguments) => report::run(arguments),
        Command::Accounts(arguments) => accounts::run(arguments),
        Command::Clients(arguments) => clients::run(&arguments),
        Command::Log(arguments) => log::run(&arguments),
        Command::Password => password::run(),
        Command::Certificate(arguments) => certificate::run(&arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Sim(arguments) => sim::run(&arguments),
        Command::Demo { once, port } => demo::run(once, port),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { out } => manual::man(out.as_ref()),
        Command::Reference { page } => manual::reference(page),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn commands_are_read_as_they_are_documented() {
        for line in [
            "queue list --client erp --class external --priority bulk --reason budget --json --limit 5",
            "queue --socket /run/x show 01K",
            "queue hold 01K 01L",
            "queue release --all",
            "queue retry --client erp",
            "queue remove --reason held --yes --config /x",
            "queue export --all --to /x --config /y",
            "queue export 01KAF7N3W5Z2Q 01KAF7N3W5Z2R --to /x",
            "queue import /x --in-doubt resend",
            "backup --to /x --without-history --config /y",
            "restore --from /x",
            "restore --from /x --in-doubt hold --budgets backup --config /y",
            "fsck --repair --json --config /x",
            "status --json --socket /run/x",
            "check --effective --config /etc/hve-relay/hve-relay.toml",
            "reload --json --config /x",
            "password",
            "certificate --name relay.contoso.com --name 10.20.0.5 --out /etc/hve-relay --days 365",
            "doctor --config /x --account hve01@contoso.com --account hve02@contoso.com --timeout 5s --json",
            "doctor --offline",
            "send-test --to you@contoso.com --account hve01@contoso.com --from me@contoso.com --wait 10s --json --config /x",
            "trace",
            "trace monthly report --since 2d --failed --json --limit 5 --config /x",
            "trace <scan-1@copier.contoso.com>",
            "report --by class --month 2026-11 --csv",
            "accounts --json",
            "accounts --socket /x suspend hve01@contoso.com --for 2h --reason audit",
            "accounts resume hve01@contoso.com",
            "explain 535 5.7.139 --step auth --config /x",
            "clients",
            "clients --json --socket /x",
            "reference events",
            "log",
            "log debug --room session --json",
            "log --word-for you@contoso.com --socket /x",
            "sim",
            "sim --app 0000-01=secret --app 0000-02=secret --token-listen 127.0.0.1:0",
            "sim --listen 0.0.0.0:587 --profile hve-ga --faults /x --keep /y --domain contoso.com --account a@contoso.com=secret",
        ] {
            assert!(Arguments::try_parse_from(format!("hve-relay {line}").split(' ')).is_ok(), "{line}");
        }
        for line in [
            "explain",
            "explain 550 --step connect",
            "queue",
            "queue hold 01K --all",
            "queue export --to /x",
            "queue export 01KAF7N3W5Z2Q --all --to /x",
            "queue export 01KAF7N3W5Z2Q",
            "queue import /x --in-doubt perhaps",
            "backup",
            "restore --to /x",
            "queue remove 01K --client erp",
            "queue release --all --client erp",
            "accounts suspend",
            "doctor --offline --account hve01@contoso.com",
            "send-test",
            "send-test --to nobody",
            "log loud",
            "log --room session",
            "certificate",
            "password hunter2",
            "sim --token-listen 127.0.0.1:1588",
            "sim --app id",
        ] {
            assert!(Arguments::try_parse_from(format!("hve-relay {line}").split(' ')).is_err(), "{line}");
        }
    }
}
