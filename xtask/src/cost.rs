//! `cargo xtask cost`: nanoseconds for each run of each program of the kernel side, under load.
//!
//! The kernel measures it while somebody holds a file for that (`BPF_ENABLE_STATS`, the same as
//! `kernel.bpf_stats_enabled`), which costs some nanoseconds itself.

use std::{
    collections::BTreeMap,
    env,
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context as _, Result};
use aya::sys::{Stats, enable_stats};
use ftpguard_tests::{
    Family, Guard,
    attack::Hammer,
    client::Commands,
    ftpd::{Kind, SMALL_FILE, Settings},
    guard::Options,
    scenario::Stage,
};

use crate::{
    build,
    exec::{as_root, is_root, run},
    setup,
};

/// What `cost` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many transfers each of four clients makes in a round
    #[arg(long, default_value_t = 300)]
    transfers: usize,
    /// In how many rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// A built ftpguard binary; by default it is built first
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// Runs and nanoseconds of each program, for each round.
type Rounds = BTreeMap<String, Vec<(u64, u64)>>;

/// Measures, and prints a table for each ftpd.
pub(crate) fn cost(arguments: &Arguments) -> Result<ExitCode> {
    let binary = if let Some(binary) = &arguments.binary {
        binary.clone()
    } else {
        setup::setup()?;
        build::build()?
    };
    if !is_root() {
        let this = env::current_exe().context("finding this program")?;
        run(as_root(this, &[])
            .args(["cost", "--transfers", &arguments.transfers.to_string()])
            .args(["--rounds", &arguments.rounds.to_string(), "--binary"])
            .arg(binary))?;
        return Ok(ExitCode::SUCCESS);
    }
    // Until this is closed, also by a signal: then the kernel measures no more.
    let _statistics = enable_stats(Stats::RunTime).context("having the kernel measure programs")?;
    for kind in [Kind::Vsftpd, Kind::Pyftpdlib] {
        let mut rounds = Rounds::new();
        for round in 0..arguments.rounds.max(1) {
            eprintln!("{}, round {}", kind.label(), round + 1);
            one_round(kind, arguments, &binary, &mut rounds)?;
        }
        print_table(kind, &rounds);
    }
    Ok(ExitCode::SUCCESS)
}

/// Four clients fetch a small file over and over, in turn passive and active, while a thief hammers
/// four ports and one session floods NOOP.
fn one_round(
    kind: Kind,
    arguments: &Arguments,
    binary: &std::path::Path,
    rounds: &mut Rounds,
) -> Result<()> {
    let stage = Stage::new(Settings::of(kind))?;
    let options = Options {
        binary: binary.to_owned(),
        ..Options::default()
    };
    let guard = Guard::start(&stage.sandbox, &options).context("starting ftpguard")?;
    let sandbox = &stage.sandbox;
    let server = sandbox.server().address(Family::V4);
    let hammer = Hammer::start(sandbox.thief(), server, 50_000..=50_003)?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        let flood = scope.spawn(|| {
            sandbox.third().enter(|| -> Result<()> {
                let mut ftp = stage.login(Family::V4)?;
                while !over.load(Ordering::Relaxed) {
                    ftp.expect("NOOP", 200)?;
                }
                Ok(())
            })?
        });
        let clients: Vec<_> = [sandbox.client(), sandbox.third()]
            .into_iter()
            .flat_map(|host| [(host, Family::V4), (host, Family::V6)])
            .map(|(host, family)| {
                let stage = &stage;
                scope.spawn(move || {
                    host.enter(|| -> Result<()> {
                        let mut ftp = stage.login(family)?;
                        for number in 0..arguments.transfers {
                            // Side by side pyftpdlib 1.5.7 loses active connections of its own.
                            if number % 2 == 0 || kind == Kind::Pyftpdlib {
                                ftp.retrieve_passive(SMALL_FILE, Commands::Extended)?;
                            } else {
                                ftp.retrieve_active(SMALL_FILE, Commands::Extended)?;
                            }
                        }
                        Ok(())
                    })?
                })
            })
            .collect();
        let mut ended = Ok(());
        for client in clients {
            let result = client
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            ended = ended.and(result);
        }
        over.store(true, Ordering::Relaxed);
        let flooded = flood
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        ended.and(flooded)
    })?;
    let reached = hammer.stop();
    anyhow::ensure!(reached == 0, "the thief got in {reached} times");
    let status = guard.status()?;
    for row in status["programs"].as_array().into_iter().flatten() {
        if let (Some(name), Some(runs), Some(nanoseconds)) = (
            row["name"].as_str(),
            row["runs"].as_u64(),
            row["nanoseconds"].as_u64(),
        ) {
            let all = rounds.entry(name.to_owned()).or_default();
            all.push((runs, nanoseconds));
        }
    }
    Ok(())
}

fn print_table(kind: Kind, rounds: &Rounds) {
    println!(
        "\n{}: nanoseconds for each run, least and median round",
        kind.label()
    );
    println!(
        "{:<26} {:>10} {:>7} {:>7}",
        "program", "runs", "least", "median"
    );
    for (name, rounds) in rounds {
        let mut each: Vec<u64> = rounds
            .iter()
            .map(|(runs, nanoseconds)| nanoseconds / (*runs).max(1))
            .collect();
        each.sort_unstable();
        let total: u64 = rounds.iter().map(|(runs, _)| runs).sum();
        println!(
            "{name:<26} {total:>10} {:>7} {:>7}",
            each.first().copied().unwrap_or_default(),
            each.get(each.len() / 2).copied().unwrap_or_default(),
        );
    }
}
