//! `cargo xtask measure`: what the guard costs an honest client.

use std::{env, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use ftpguard_tests::{
    Family, Guard,
    ftpd::{Kind, Settings},
    guard::Options,
    measure::{Sequence, passive},
    scenario::Stage,
};

use crate::{
    build,
    exec::{as_root, is_root, run},
    setup,
};

/// What `measure` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many passive transfers, for each way to run the guard
    #[arg(long, default_value_t = 10_000)]
    transfers: usize,
    /// In how many rounds: each round takes all ways in turn, since a machine's speed changes
    #[arg(long, default_value_t = 10)]
    rounds: usize,
    /// A built ftpguard binary; by default it is built first
    #[arg(long)]
    binary: Option<PathBuf>,
}

/// The most time for one round of one way. A lost SYN costs a second.
const LIMIT: Duration = Duration::from_secs(20);

/// No guard, or one with this tracking.
const WAYS: [(&str, Option<&str>); 3] = [
    ("guard off", None),
    ("socket tracking", Some("socket")),
    ("text tracking", Some("text")),
];

/// Measures, and prints a table.
pub(crate) fn measure(arguments: &Arguments) -> Result<ExitCode> {
    let binary = if let Some(binary) = &arguments.binary {
        binary.clone()
    } else {
        setup::setup()?;
        build::build()?
    };
    if !is_root() {
        let this = env::current_exe().context("finding this program")?;
        run(as_root(this, &[])
            .args(["measure", "--transfers", &arguments.transfers.to_string()])
            .args(["--rounds", &arguments.rounds.to_string(), "--binary"])
            .arg(binary))?;
        return Ok(ExitCode::SUCCESS);
    }
    let stage = Stage::new(Settings::of(Kind::Vsftpd))?;
    let rounds = arguments.rounds.max(1);
    for family in Family::ALL {
        let mut sequences = WAYS.map(|_| Sequence::default());
        for round in 0..rounds {
            for ((name, tracking), sequence) in WAYS.iter().zip(&mut sequences) {
                eprintln!("{}, round {}: {name}", family.label(), round + 1);
                let _guard = tracking
                    .map(|tracking| start(&stage, &binary, tracking))
                    .transpose()?;
                let count = arguments.transfers.div_ceil(rounds);
                sequence.extend(&passive(&stage, family, count, LIMIT)?);
            }
        }
        print_table(family, &sequences);
    }
    Ok(ExitCode::SUCCESS)
}

fn start(stage: &Stage, binary: &std::path::Path, tracking: &'static str) -> Result<Guard> {
    let options = Options {
        binary: binary.to_owned(),
        tracking,
        ..Options::default()
    };
    Guard::start(&stage.sandbox, &options).context("starting ftpguard")
}

fn print_table(family: Family, sequences: &[Sequence]) {
    println!(
        "\nvsftpd, sequential passive transfers over {}; PASV to connected, in microseconds",
        family.label()
    );
    println!("                   transfers  first SYNs lost    p50  ratio     p99  ratio");
    let micros = |sequence: &Sequence, share| sequence.quantile(share).as_secs_f64() * 1e6;
    let base = |share| sequences.first().map_or(0.0, |first| micros(first, share));
    for ((name, _), sequence) in WAYS.iter().zip(sequences) {
        let (p50, p99) = (micros(sequence, 0.5), micros(sequence, 0.99));
        println!(
            "{name:<17}  {:>9}  {:>15}  {p50:>5.0}  {:>5.2}  {p99:>6.0}  {:>5.2}",
            sequence.times.len(),
            sequence.lost,
            p50 / base(0.5),
            p99 / base(0.99),
        );
    }
}
