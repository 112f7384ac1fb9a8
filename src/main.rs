//! The one binary. What it can do is in [`hve_relay::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    hve_relay::cli::main()
}
