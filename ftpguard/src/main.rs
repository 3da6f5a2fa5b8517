//! The `ftpguard` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    ftpguard::run_command(std::env::args_os()).into()
}
