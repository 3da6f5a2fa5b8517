//! `cargo xtask soak`: everything at once, for as long as one likes.

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use ftpguard_tests::{
    ftpd::Kind,
    guard::Options,
    soak::{Memory, Outcome, Plan, soak as soak_one},
};
use signal_hook::consts::SIGTERM;

use crate::{
    build,
    exec::{as_root, is_root, run},
    setup,
};

/// What `soak` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// For how long
    #[arg(long, default_value_t = SHORT)]
    minutes: f64,
    /// Where the choices begin; by default the time of day
    #[arg(long)]
    seed: Option<u64>,
    /// A built ftpguard binary; by default it is built first
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// How long the form takes that continuous integration runs.
const SHORT: f64 = 2.0;

/// What is soaked, side by side: with `--xdp-mode`, and whether one daemon lives on throughout.
/// pyftpdlib 1.5.7 is not among them: it resets one data connection of two hundred by itself,
/// without a guard.
const PARTS: [(Kind, &str, bool); 4] = [
    (Kind::Vsftpd, "native", false),
    (Kind::Proftpd, "generic", false),
    (Kind::PureFtpd, "tc", false),
    (Kind::VsftpdOneProcess, "auto", true),
];

/// The short form, with this binary. Fails unless everything held.
pub(crate) fn smoke(binary: &Path) -> Result<()> {
    let mut soak = as_root(env::current_exe().context("finding this program")?, &[]);
    soak.args(["soak", "--minutes", &SHORT.to_string(), "--binary"]);
    run(soak.arg(binary))
}

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
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGTERM, Arc::clone(&stop)).context("waiting for SIGTERM")?;
    let outcomes: Vec<Result<Outcome>> = thread::scope(|scope| {
        let running: Vec<_> = PARTS
            .into_iter()
            .zip(0..)
            .map(|((kind, xdp_mode, lives_on), place)| {
                let plan = Plan {
                    place,
                    kind,
                    xdp_mode,
                    lives_on,
                    stop: Arc::clone(&stop),
                    tell: |line| println!("{line}"),
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
    for ((kind, xdp_mode, _), outcome) in PARTS.into_iter().zip(outcomes) {
        println!("\n{} ({xdp_mode})", kind.label());
        match outcome {
            Ok(outcome) => {
                print(&outcome);
                for fault in outcome.faults() {
                    right = false;
                    println!("  FAILED {fault}");
                }
            }
            Err(error) => {
                right = false;
                println!("  FAILED {error:#}");
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
        "  {} honest transfers, {} failures, {} first SYNs lost with the link",
        outcome.transfers,
        outcome.failures.len(),
        outcome.syns_lost
    );
    let [v4, v6] = outcome.knocks;
    println!(
        "  {} thefts in {v4} tries over IPv4 and {v6} over IPv6; {} bounces arrived, {} refused",
        outcome.thefts, outcome.bounced, outcome.bounces
    );
    println!(
        "  {} sessions of a greedy client, {} of them refused",
        outcome.greedy, outcome.greedy_denied
    );
    for (deed, count) in &outcome.deeds {
        println!("  {count:>5} x {}", deed.label());
    }
    let Memory { first, most, last } = outcome.memory;
    if outcome.lived_on {
        println!("  one daemon: {first} KiB when warm, {most} at most, {last} at the end");
    } else {
        let [wanted, broken] = outcome.broken_starts;
        println!("  {broken} starts broken, {wanted} tried");
        println!("  daemons: {first} KiB at first, {most} at most, {last} at the end");
    }
    let [first, last] = outcome.tables;
    println!("  maps: {first} KiB at first, {last} at the end");
    println!(
        "  one transfer counts {} time(s) in the end",
        outcome.counted_by_one
    );
    println!("  {} sessions known that are over", outcome.left);
}
