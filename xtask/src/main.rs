//! `cargo xtask`: builds and proves ftpguard. One file for each subcommand.
#![forbid(unsafe_code)]

mod bench;
mod build;
mod check;
mod cost;
mod dist;
mod exec;
mod ftpds;
mod fuzz;
mod kernels;
mod record;
mod run;
mod setup;
mod soak;
mod supply;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds and proves ftpguard.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing on this machine to build and test ftpguard
    Setup,
    /// Build the release binary, target/release/ftpguard
    Build,
    /// Check the format, lint both the host's code and the kernel side, and look at dependencies
    Check,
    /// Run everything: setup, check, unit tests, program runs, end-to-end tests, soak, kernels
    Test(test::Arguments),
    /// Show ftpguard at work in a sandbox; with arguments, run ftpguard itself on this host
    Run(run::Arguments),
    /// Measure the guard beside what people use today, and write a report
    Bench(bench::Arguments),
    /// Record transcripts of real ftpds and clients into tests/transcripts/recorded
    Record(record::Arguments),
    /// Measure what each program of the kernel side costs under load
    Cost(cost::Arguments),
    /// Make the packages: a tarball, a .deb and an .rpm; install, upgrade and purge the .deb
    Dist(dist::Arguments),
    /// Boot every supported kernel in QEMU, and run the tests there
    Kernels(kernels::Arguments),
    /// Run the fuzz targets of everything that reads bytes of strangers
    Fuzz(fuzz::Arguments),
    /// Kill, restart, hang, upgrade and reload the daemon while clients transfer and others attack
    ///
    /// SIGTERM ends it early: what was done until then is judged, and everything is cleaned up.
    Soak(soak::Arguments),
    /// The part of `run` that needs root
    #[command(hide = true)]
    Demo(run::Demo),
    /// The part of `dist` that needs root
    #[command(hide = true)]
    QuickStart(dist::QuickStart),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Setup => setup::setup().map(|()| ExitCode::SUCCESS),
        Task::Build => build::build().map(|_| ExitCode::SUCCESS),
        Task::Check => Ok(check::check()),
        Task::Test(arguments) => test::test(&arguments),
        Task::Run(arguments) => run::run(&arguments),
        Task::Bench(arguments) => bench::bench(&arguments),
        Task::Record(arguments) => record::record(&arguments),
        Task::Cost(arguments) => cost::cost(&arguments),
        Task::Dist(arguments) => dist::dist(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Kernels(arguments) => kernels::kernels(&arguments),
        Task::Fuzz(arguments) => fuzz::fuzz(&arguments),
        Task::Soak(arguments) => soak::soak(&arguments),
        Task::QuickStart(arguments) => dist::quick_start(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Demo(arguments) => run::demo(&arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
