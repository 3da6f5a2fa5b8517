//! `cargo xtask bench`: what the guard costs, beside what people use today.
//!
//! Every way to protect data connections is measured in turn, round after round, because a
//! machine's speed changes within minutes. One file for each part, one for each way to show it.

mod attack;
mod bulk;
mod flood;
mod host;
mod html;
mod packet;
mod plot;
mod progress;
mod report;
mod scale;
mod set_up;
mod share;
mod smoke;
mod stats;
mod table;
mod ways;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

pub(crate) use self::smoke::smoke;
use self::{host::Host, progress::Progress, report::Report};
use crate::{
    build,
    exec::{as_root, cargo, is_root, output, run, shown, target},
    setup,
};

/// What `bench` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A first impression in less than two minutes
    #[arg(long)]
    quick: bool,
    /// Measure only this; can be given several times
    #[arg(long, value_enum, value_name = "NAME")]
    only: Vec<Name>,
    /// In how many rounds; each takes all ways in turn
    #[arg(long)]
    rounds: Option<usize>,
    /// Where to write the report [default: target/bench]
    #[arg(long)]
    out: Option<PathBuf>,
    /// A built ftpguard binary; by default it is built first
    #[arg(long, requires = "helper")]
    binary: Option<PathBuf>,
    /// The built part that loads BPF programs
    #[arg(long, hide = true, requires = "binary")]
    helper: Option<PathBuf>,
}

/// The parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Name {
    /// Nanoseconds for each packet
    PerPacket,
    /// Setting up data connections
    SetUp,
    /// What each part of the guard adds to that; not with --quick
    Share,
    /// A flood of SYNs
    Flood,
    /// Large transfers
    Bulk,
    /// Transfers while a thief hammers the passive range
    Attack,
    /// Many sessions, pinholes and interfaces
    Scale,
}

impl Name {
    const ALL: [Self; 7] = [
        Self::PerPacket,
        Self::SetUp,
        Self::Share,
        Self::Flood,
        Self::Bulk,
        Self::Attack,
        Self::Scale,
    ];

    fn measure(self, bench: &Bench, part: &mut report::Part) -> Result<()> {
        match self {
            Self::PerPacket => packet::measure(bench, part),
            Self::SetUp => set_up::measure(bench, part),
            Self::Share => share::measure(bench, part),
            Self::Flood => flood::measure(bench, part),
            Self::Bulk => bulk::measure(bench, part),
            Self::Attack => attack::measure(bench, part),
            Self::Scale => scale::measure(bench, part),
        }
    }
}

/// What every part needs.
struct Bench {
    /// The guard.
    binary: PathBuf,
    /// The part that loads BPF programs (`ftpguard/benches/kernel`).
    helper: PathBuf,
    quick: bool,
    rounds: Option<usize>,
    progress: Progress,
}

impl Bench {
    /// One or the other, by what the user wants.
    fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// How many rounds, unless the user said how many.
    fn rounds(&self, quick: usize, full: usize) -> usize {
        self.rounds.unwrap_or_else(|| self.pick(quick, full)).max(1)
    }

    /// What the helper says to these arguments.
    fn ask_helper(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = Command::new(&self.helper);
        command.args(arguments).stderr(Stdio::inherit());
        let Some(answer) = output(&mut command) else {
            bail!("failed: {}", shown(&command));
        };
        serde_json::from_str(&answer).with_context(|| format!("no JSON: {}", shown(&command)))
    }
}

/// Builds, measures, and writes the report.
pub(crate) fn bench(arguments: &Arguments) -> Result<ExitCode> {
    let (binary, helper) = match (&arguments.binary, &arguments.helper) {
        (Some(binary), Some(helper)) => (binary.clone(), helper.clone()),
        _ => {
            setup::setup()?;
            (build::build()?, build_helper(Pace::Measured)?)
        }
    };
    if !is_root() {
        return become_root(arguments, &binary, &helper);
    }
    let names: Vec<Name> = Name::ALL
        .into_iter()
        .filter(|name| match arguments.only.as_slice() {
            [] => !arguments.quick || *name != Name::Share,
            only => only.contains(name),
        })
        .collect();
    let bench = Bench {
        binary,
        helper,
        quick: arguments.quick,
        rounds: arguments.rounds,
        progress: Progress::new(),
    };
    let mut report = Report {
        host: Host::ask(arguments.quick),
        parts: Vec::new(),
    };
    for name in names {
        let start = Instant::now();
        let mut part = report::Part::default();
        if let Err(error) = name.measure(&bench, &mut part) {
            part.failure = Some(format!("{error:#}"));
        }
        part.seconds = start.elapsed().as_secs_f64();
        bench.progress.say(&part.text());
        report.parts.push(part);
    }
    report.host.finish();
    bench.progress.finish();
    let folder = arguments.out.clone().unwrap_or_else(report_folder);
    write(&report, &folder)?;
    let failed = report.parts.iter().any(|part| part.failure.is_some());
    Ok(ExitCode::from(u8::from(failed)))
}

/// Whether it matters how fast the helper itself is.
#[derive(Clone, Copy)]
enum Pace {
    Measured,
    Any,
}

/// Builds the part that loads BPF programs, and returns its path.
fn build_helper(pace: Pace) -> Result<PathBuf> {
    let mut command = cargo();
    command.arg("build");
    match pace {
        Pace::Measured => command.args(["--release", "--package", "ftpguard"]),
        // As the tests are built, so that little is left to build.
        Pace::Any => command.args(["--workspace", "--exclude", "ftpguard-ebpf"]),
    };
    command.args([
        "--bench",
        "kernel",
        "--message-format=json-render-diagnostics",
    ]);
    let Some(messages) = output(command.stderr(Stdio::inherit())) else {
        bail!("does not build: {}", shown(&command));
    };
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["kind"][0] == "bench")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo does not say where it put the benchmark")
}

fn become_root(arguments: &Arguments, binary: &Path, helper: &Path) -> Result<ExitCode> {
    let this = env::current_exe().context("finding this program")?;
    let mut command = as_root(this, &["CARGO_TARGET_DIR"]);
    command.arg("bench").arg("--binary").arg(binary);
    command.arg("--helper").arg(helper);
    if let Some(folder) = &arguments.out {
        command.arg("--out").arg(folder);
    }
    if arguments.quick {
        command.arg("--quick");
    }
    if let Some(rounds) = arguments.rounds {
        command.args(["--rounds", &rounds.to_string()]);
    }
    for name in &arguments.only {
        let value = clap::ValueEnum::to_possible_value(name).context("a part has no name")?;
        command.args(["--only", value.get_name()]);
    }
    run(&mut command)?;
    Ok(ExitCode::SUCCESS)
}

/// Where a report lies unless the user wants it elsewhere.
fn report_folder() -> PathBuf {
    target().join("bench")
}

fn write(report: &Report, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let json = serde_json::to_string_pretty(&report.json()).context("writing JSON")?;
    for (name, text) in [("report.json", json), ("report.html", html::page(report))] {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        println!("bench: {}", path.display());
    }
    Ok(())
}

/// Microseconds.
fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// As a number that can be divided.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn number(count: usize) -> f64 {
    count as f64
}
