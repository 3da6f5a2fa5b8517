//! `cargo xtask check`: format, lints, and what the project is built with.

use std::process::{Command, ExitCode};

use crate::{
    exec::{cargo, nightly_cargo, run},
    supply,
};

/// Runs all checks, and names those that failed at the end.
pub(crate) fn check() -> ExitCode {
    let failed = failures();
    for failure in &failed {
        eprintln!("check: {failure}");
    }
    if !failed.is_empty() {
        return ExitCode::FAILURE;
    }
    println!("check: format, lints and dependencies are as they should be");
    ExitCode::SUCCESS
}

/// Runs all checks, and returns one line for each that failed.
pub(crate) fn failures() -> Vec<String> {
    checks()
        .iter_mut()
        .filter_map(|command| run(command).err())
        .map(|error| format!("{error:#}"))
        .chain(supply::failures())
        .collect()
}

fn checks() -> Vec<Command> {
    let mut format = cargo();
    format.args(["fmt", "--all", "--check"]);

    let mut host = cargo();
    host.args(["clippy", "--quiet", "--workspace", "--all-targets"]);
    // The kernel side is linted for its own target.
    host.args(["--exclude", "ftpguard-ebpf", "--", "-D", "warnings"]);

    let mut kernel = nightly_cargo();
    kernel.args(["clippy", "--quiet", "--package", "ftpguard-ebpf"]);
    kernel.args(["-Z", "build-std=core", "--target", "bpfel-unknown-none"]);
    kernel.args(["--", "-D", "warnings"]);

    vec![format, host, kernel]
}
