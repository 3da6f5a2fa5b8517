//! `cargo xtask fuzz`: what reads bytes of strangers, run on inputs that libFuzzer makes up.
//!
//! Built here as cargo-fuzz builds it, so that continuous integration does without that program.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    exec::{NIGHTLY, nightly_cargo, output, run, shown, target, workspace},
    setup,
};

/// The targets, as in `ftpguard-common/fuzz/Cargo.toml`.
const TARGETS: [&str; 5] = ["line", "command", "reply", "dialogue", "stream"];

/// The compiler counts which code an input reaches (`SanitizerCoverage` of LLVM), and
/// AddressSanitizer watches memory.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Zsanitizer=address -Cdebug-assertions -Ccodegen-units=1 --cfg fuzzing";

/// What `fuzz` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long each target runs
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Only these targets: line, command, reply, dialogue, stream
    #[arg(long, value_name = "NAME", value_parser = TARGETS)]
    only: Vec<String>,
}

/// Runs the targets one after the other.
pub(crate) fn fuzz(arguments: &Arguments) -> Result<ExitCode> {
    setup::setup()?;
    let built = build()?;
    for name in TARGETS {
        if arguments.only.is_empty() || arguments.only.iter().any(|only| only == name) {
            try_out(&built, name, arguments.seconds)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs every target for this time: how each ended.
pub(crate) fn run_all(seconds: u32) -> Vec<Result<()>> {
    match build() {
        Ok(built) => TARGETS
            .iter()
            .map(|name| try_out(&built, name, seconds))
            .collect(),
        Err(error) => vec![Err(error)],
    }
}

fn folder() -> PathBuf {
    workspace().join("ftpguard-common/fuzz")
}

/// Builds the targets, and returns the folder that they lie in.
fn build() -> Result<PathBuf> {
    let mut compiler = Command::new("rustup");
    compiler.args(["run", NIGHTLY, "rustc", "-vV"]);
    let told = output(&mut compiler).context("asking the nightly compiler for its version")?;
    let host = told
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("the compiler does not name its host")?;
    let into = target().join("fuzz");
    let mut command = nightly_cargo();
    command.args(["build", "--quiet", "--release", "--locked"]);
    // With a target the flags are not for build scripts and macros.
    command.args(["--target", host]);
    command
        .arg("--manifest-path")
        .arg(folder().join("Cargo.toml"));
    command.arg("--target-dir").arg(&into);
    command.env("RUSTFLAGS", FLAGS);
    run(&mut command)?;
    Ok(into.join(host).join("release"))
}

/// Begins with what was kept of earlier runs, and keeps what it finds in a folder beside it.
fn try_out(built: &Path, name: &str, seconds: u32) -> Result<()> {
    let corpus = target().join("fuzz/corpus").join(name);
    unpack(name, &corpus)?;
    let findings = target().join("fuzz/findings").join(name);
    fs::create_dir_all(&findings).with_context(|| format!("making {}", findings.display()))?;
    let mut command = Command::new(built.join(name));
    command.arg(format!("-max_total_time={seconds}"));
    command.arg("-print_final_stats=1");
    command.arg(format!("-dict={}", folder().join("ftp.dict").display()));
    command.arg(format!("-artifact_prefix={}/", findings.display()));
    command.arg(&corpus);
    let mut child = command
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", shown(&command)))?;
    let stderr = child.stderr.take().context("no standard error")?;
    let mut told = Vec::new();
    for line in BufReader::new(stderr).lines() {
        told.push(line.context("reading what the fuzzer says")?);
    }
    let status = child.wait().context("waiting for the fuzzer")?;
    ensure!(
        status.success(),
        "fuzz: {name} found something ({status}), kept in {}:\n{}",
        findings.display(),
        told.join("\n")
    );
    let runs = told
        .iter()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))
        .context("the fuzzer does not say how often it ran")?;
    println!("fuzz: {name}: {} runs, nothing found", runs.trim());
    Ok(())
}

/// Makes a file of each line of what was kept, as the fuzzer wants it.
fn unpack(name: &str, corpus: &Path) -> Result<()> {
    fs::create_dir_all(corpus).with_context(|| format!("making {}", corpus.display()))?;
    let kept = folder().join("kept").join(format!("{name}.hex"));
    let text = fs::read_to_string(&kept).with_context(|| format!("reading {}", kept.display()))?;
    for (number, line) in text.lines().enumerate() {
        let input = bytes(line).with_context(|| format!("{}: line {number}", kept.display()))?;
        fs::write(corpus.join(format!("kept-{number}")), input).context("unpacking the corpus")?;
    }
    Ok(())
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| {
            let pair = str::from_utf8(pair).context("no hex")?;
            u8::from_str_radix(pair, 16).context("no hex")
        })
        .collect()
}
