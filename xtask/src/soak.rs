//! `cargo xtask soak`: everything at once, for as long as one likes.

use std::{
    env,
    path::PathBuf,
    process::ExitCode,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use ftpguard_tests::{
    ftpd::Kind,
    guard::Options,
    soak::{Outcome, Plan, soak as soak_one},
};

use crate::{
    build,
    exec::{as_root, is_root, run},
    setup,
};

/// What `soak` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// For how long
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// Where the choices begin; by default the time of day
    #[arg(long)]
    seed: Option<u64>,
    /// A built ftpguard binary; by default it is built first
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// What is soaked, side by side. pyftpdlib 1.5.7 is not among them: it resets one data connection
/// of two hundred by itself, without a guard.
const PARTS: [(Kind, &str); 3] = [
    (Kind::Vsftpd, "native"),
    (Kind::Proftpd, "generic"),
    (Kind::PureFtpd, "tc"),
];

/// Soaks every part, and prints what came of it.
pub(crate) fn soak(arguments: &Arguments) -> Result<ExitCode> {
    let binary = if let Some(binary) = &arguments.binary {
        binary.clone()
    } else {
        setup::setup()?;
        build::build()?
    };
    let seed = arguments.seed.unwrap_or_else(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |since| since.as_secs())
    });
    if !is_root() {
        let this = env::current_exe().context("finding this program")?;
        run(as_root(this, &[])
            .args(["soak", "--minutes", &arguments.minutes.to_string()])
            .args(["--seed", &seed.to_string(), "--binary"])
            .arg(binary))?;
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} minutes, seed {seed}", arguments.minutes);
    let time = Duration::try_from_secs_f64(arguments.minutes * 60.0).context("--minutes")?;
    let outcomes: Vec<Result<Outcome>> = thread::scope(|scope| {
        let running: Vec<_> = PARTS
            .into_iter()
            .map(|(kind, xdp_mode)| {
                let plan = Plan {
                    kind,
                    xdp_mode,
                    time,
                    seed,
                    options: Options {
                        binary: binary.clone(),
                        ..Options::default()
                    },
                };
                scope.spawn(move || soak_one(&plan))
            })
            .collect();
        running
            .into_iter()
            .map(|one| {
                one.join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    });
    let mut right = true;
    for ((kind, xdp_mode), outcome) in PARTS.into_iter().zip(outcomes) {
        println!("\n{} ({xdp_mode})", kind.label());
        match outcome {
            Ok(outcome) => {
                right &= outcome.holds();
                print(&outcome);
            }
            Err(error) => {
                right = false;
                println!("  {error:#}");
            }
        }
    }
    println!(
        "\n{}",
        if right {
            "everything held"
        } else {
            "NOT everything held"
        }
    );
    Ok(if right {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print(outcome: &Outcome) {
    println!(
        "  {} honest transfers, {} failed, {} first SYNs sent again",
        outcome.transfers,
        outcome.failures.len(),
        outcome.syns_lost
    );
    println!(
        "  {} thefts; {} of {} bounces arrived; {} sessions of a greedy client",
        outcome.thefts, outcome.bounced, outcome.bounces, outcome.greedy
    );
    for (deed, count) in &outcome.deeds {
        println!("  {count:>5} x {deed}");
    }
    let [first, most, last] = outcome.memory;
    println!("  daemon: {first} KiB at first, {most} at most, {last} at the end");
    let [first, last] = outcome.tables;
    println!("  maps: {first} KiB at first, {last} at the end");
    println!(
        "  one transfer counts {} time(s) in the end",
        outcome.counted_by_one
    );
    for failure in outcome.failures.iter().take(20) {
        println!("  FAILED {failure}");
    }
}
