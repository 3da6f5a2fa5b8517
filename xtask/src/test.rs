//! `cargo xtask test`: everything, and one closing line.

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use ftpguard_tests::guard::BINARY;
use serde_json::Value;

use crate::{
    bench, build, check,
    exec::{as_root, cargo, output, shown},
    fuzz,
    kernels::{self, Matrix},
    setup, soak,
};

/// What `test` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Run only tests whose name contains this; leave out the checks
    filter: Option<String>,
}

/// A test program that cargo built.
#[derive(Debug, PartialEq, Eq)]
struct Suite {
    /// Package and target.
    name: String,
    executable: PathBuf,
    /// The package's folder, where cargo would run it.
    folder: PathBuf,
    /// Whether it loads BPF programs or makes network namespaces.
    needs_root: bool,
}

/// How many tests passed, and which failed.
#[derive(Debug, Default)]
struct Tally {
    passed: u64,
    failed: u64,
    /// One line for each failure.
    failures: Vec<String>,
    /// One line for each part that could not run here.
    skipped: Vec<String>,
}

/// Sets up, checks, builds, and runs every test there is.
pub(crate) fn test(arguments: &Arguments) -> Result<ExitCode> {
    let start = Instant::now();
    setup::setup()?;
    let mut tally = Tally::default();
    if arguments.filter.is_none() {
        for failure in check::failures() {
            tally.fail(format!("check: {failure}"));
        }
    }
    match build::build() {
        Ok(binary) => {
            run_suites(arguments, &binary, &mut tally);
            if arguments.filter.is_none() {
                run_fuzz(&mut tally);
                run_bench(&binary, &mut tally);
                run_soak(&binary, &mut tally);
                run_kernels(&mut tally);
            }
        }
        Err(error) => tally.fail(format!("build: {error:#}")),
    }
    println!("\ntests took {}", seconds(start.elapsed()));
    for failure in &tally.failures {
        println!("failed: {failure}");
    }
    for skipped in &tally.skipped {
        println!("skipped: {skipped}");
    }
    if tally.passed + tally.failed == 0 {
        println!("no test ran");
    }
    println!("{}", tally.closing_line());
    Ok(if tally.failed == 0 && tally.passed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn run_suites(arguments: &Arguments, binary: &Path, tally: &mut Tally) {
    let suites = match suites() {
        Ok(suites) => suites,
        Err(error) => {
            tally.fail(format!("{error:#}"));
            return;
        }
    };
    for suite in &suites {
        println!("\n== {}", suite.name);
        let start = Instant::now();
        let mut command = suite.command(binary, arguments.filter.as_deref());
        if let Err(error) = run_suite(&suite.name, &mut command, tally) {
            tally.fail(format!("{}: {error:#}", suite.name));
        }
        println!("== {} took {}", suite.name, seconds(start.elapsed()));
    }
    println!("\n== examples in the documentation");
    let mut examples = cargo();
    examples.args(["test", "--quiet", "--workspace", "--doc"]);
    examples.args(["--exclude", "ftpguard-ebpf"]);
    if let Err(error) = run_suite("documentation", &mut examples, tally) {
        tally.fail(format!("documentation: {error:#}"));
    }
}

/// How long each fuzz target runs.
const FUZZ_SECONDS: u32 = 8;

/// Runs the fuzz targets for a moment, on what was kept and what it leads to.
fn run_fuzz(tally: &mut Tally) {
    println!("\n== fuzz targets");
    for result in fuzz::run_all(FUZZ_SECONDS) {
        match result {
            Ok(()) => tally.passed += 1,
            Err(error) => tally.fail(format!("{error:#}")),
        }
    }
}

/// Measures once, so that the benchmark goes on working.
fn run_bench(binary: &Path, tally: &mut Tally) {
    println!("\n== benchmark");
    match bench::smoke(binary) {
        Ok(()) => tally.passed += 1,
        Err(error) => tally.fail(format!("benchmark: {error:#}")),
    }
}

/// Two minutes of everything at once: the daemon is killed while clients transfer and others attack.
fn run_soak(binary: &Path, tally: &mut Tally) {
    println!("\n== soak");
    let start = Instant::now();
    match soak::smoke(binary) {
        Ok(()) => tally.passed += 1,
        Err(error) => tally.fail(format!("soak: {error:#}")),
    }
    println!("== soak took {}", seconds(start.elapsed()));
}

/// Boots the kernel matrix. Where it cannot run, that is a failure in continuous integration, and
/// on a developer's machine a part that was left out and is counted as such.
fn run_kernels(tally: &mut Tally) {
    println!("\n== kernels");
    let arguments = kernels::Arguments::default();
    let matrix = match Matrix::prepare(&arguments) {
        Ok(matrix) => matrix,
        Err(error) => {
            let what = format!("kernels: {error:#}; `cargo xtask kernels` needs QEMU and network");
            if env::var_os("CI").is_some() {
                tally.fail(what);
            } else {
                tally.skipped.push(what);
            }
            return;
        }
    };
    match matrix.run() {
        Ok(runs) => {
            for run in runs {
                tally.passed += u64::from(run.passed());
                for failure in run.failures() {
                    tally.fail(format!("kernel {}: {failure}", run.name));
                }
            }
        }
        Err(error) => tally.fail(format!("kernels: {error:#}")),
    }
}

/// Builds all test programs, and lists them: quick ones first, those that need root last.
fn suites() -> Result<Vec<Suite>> {
    let mut build = cargo();
    build.args(["test", "--no-run", "--workspace"]);
    build.args(["--exclude", "ftpguard-ebpf"]);
    build.arg("--message-format=json-render-diagnostics");
    let Some(messages) = output(build.stderr(Stdio::inherit())) else {
        bail!("the tests do not build: {}", shown(&build));
    };
    let mut suites: Vec<Suite> = messages.lines().filter_map(suite).collect();
    suites.sort_by(|a, b| (a.needs_root, &a.name).cmp(&(b.needs_root, &b.name)));
    Ok(suites)
}

/// The test program that one of cargo's messages tells of.
fn suite(message: &str) -> Option<Suite> {
    let message: Value = serde_json::from_str(message).ok()?;
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let folder = Path::new(message["manifest_path"].as_str()?).parent()?;
    let package = folder.file_name()?.to_str()?;
    let target = message["target"]["name"].as_str()?;
    let kind = message["target"]["kind"][0].as_str()?;
    Some(Suite {
        name: format!("{package}: {kind} {target}"),
        executable: message["executable"].as_str()?.into(),
        folder: folder.to_owned(),
        needs_root: package == "tests" || (package == "ftpguard" && kind == "test"),
    })
}

impl Suite {
    fn command(&self, binary: &Path, filter: Option<&str>) -> Command {
        let mut command = if self.needs_root {
            let mut command = as_root(
                &self.executable,
                &[BINARY, "FTPGUARD_LONG", "RUST_BACKTRACE"],
            );
            // They share the machine's BPF hooks and its processors.
            command.arg("--test-threads=1");
            command
        } else {
            Command::new(&self.executable)
        };
        command.args(filter);
        command.current_dir(&self.folder).env(BINARY, binary);
        command
    }
}

/// Runs a test program, shows what it writes, and adds its results.
fn run_suite(name: &str, command: &mut Command, tally: &mut Tally) -> Result<()> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", shown(command)))?;
    let stdout = child.stdout.take().context("no standard output")?;
    let mut reported = false;
    let failed_before = tally.failed;
    for line in BufReader::new(stdout).lines() {
        let line = line.context("reading its output")?;
        println!("{line}");
        let _ = std::io::stdout().flush();
        reported |= tally.read(name, &line);
    }
    let status = child.wait().context("waiting")?;
    if !reported {
        bail!("ended without a result: {status}");
    }
    if !status.success() && tally.failed == failed_before {
        bail!("{status}");
    }
    Ok(())
}

impl Tally {
    /// What is printed last.
    fn closing_line(&self) -> String {
        let mut line = format!("{} passed, {} failed", self.passed, self.failed);
        if !self.skipped.is_empty() {
            let _ = write!(line, ", {} skipped", self.skipped.len());
        }
        line
    }

    fn fail(&mut self, what: String) {
        self.failed += 1;
        self.failures.push(what);
    }

    /// Takes one line of a test program's output. Returns whether it is the result.
    fn read(&mut self, suite: &str, line: &str) -> bool {
        if let Some(rest) = line.strip_prefix("test result: ") {
            let counts = counts(rest);
            let count = |name: &str| counts.get(name).copied().unwrap_or_default();
            self.passed += count("passed");
            self.failed += count("failed");
            // A test that was not run has not passed.
            let ignored = count("ignored");
            self.failed += ignored;
            if ignored > 0 {
                self.failures
                    .push(format!("{suite}: {ignored} tests ignored"));
            }
            return true;
        }
        if let Some(test) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.strip_suffix("... FAILED"))
        {
            self.failures.push(format!("{suite}: {}", test.trim()));
        }
        false
    }
}

/// The counts in `ok. 3 passed; 0 failed; ...; finished in 0.1s`.
fn counts(result: &str) -> BTreeMap<&str, u64> {
    result
        .split([';', '.'])
        .filter_map(|part| {
            let (count, name) = part.trim().split_once(' ')?;
            Some((name, count.parse().ok()?))
        })
        .collect()
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up() {
        let mut tally = Tally::default();
        let result = "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; \
                      2 filtered out; finished in 0.13s";
        assert!(!tally.read("a", "test one::two ... ok"));
        assert!(!tally.read("a", "test one::three ... FAILED"));
        assert!(tally.read("a", result));
        assert!(tally.read("b", "test result: ok. 4 passed; 0 failed; 0 ignored"));
        assert_eq!((tally.passed, tally.failed), (7, 1));
        assert_eq!(tally.failures, ["a: one::three"]);
        assert_eq!(tally.closing_line(), "7 passed, 1 failed");
        tally.skipped.push("kernels".to_owned());
        assert_eq!(tally.closing_line(), "7 passed, 1 failed, 1 skipped");
    }

    #[test]
    fn a_test_that_did_not_run_has_failed() {
        let mut tally = Tally::default();
        assert!(tally.read("a", "test result: ok. 1 passed; 0 failed; 2 ignored"));
        assert_eq!((tally.passed, tally.failed), (1, 2));
    }

    #[test]
    fn a_suite_is_read_from_cargos_message() {
        let message = r#"{"reason":"compiler-artifact","manifest_path":"/w/ftpguard/Cargo.toml",
            "target":{"kind":["test"],"name":"packets"},"profile":{"test":true},
            "executable":"/w/target/debug/deps/packets-1"}"#;
        let expected = Suite {
            name: "ftpguard: test packets".to_owned(),
            executable: "/w/target/debug/deps/packets-1".into(),
            folder: "/w/ftpguard".into(),
            needs_root: true,
        };
        assert_eq!(suite(message), Some(expected));
        assert_eq!(suite(&message.replace("true", "false")), None);
        assert_eq!(suite("not json"), None);
    }
}
