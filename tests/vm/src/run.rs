//! Runs every check, each as a process of its own.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use ftpguard_tests::vm::Report;

use crate::checks::Check;

/// The suite of program runs in the kernel, as a test program of its own.
const SUITE: &str = "/bin/programs";

/// How long one check may take. Everything is slow on an emulated processor.
const LIMIT: Duration = Duration::from_mins(4);

/// What has passed and failed so far.
#[derive(Default)]
struct Tally {
    passed: u32,
    failed: u32,
}

/// Runs all checks and the suite.
pub(crate) fn all() -> Result<()> {
    let uptime = fs::read_to_string("/proc/uptime").context("reading the uptime")?;
    let release =
        fs::read_to_string("/proc/sys/kernel/osrelease").context("reading the release")?;
    Report::Up {
        release: release.trim().to_owned(),
        seconds: uptime
            .split(' ')
            .next()
            .and_then(|seconds| seconds.parse().ok())
            .unwrap_or_default(),
    }
    .print();

    let mut tally = Tally::default();
    for check in Check::ALL {
        let mut command = Command::new("/proc/self/exe");
        command.args(["check", check.name()]);
        tally.run(check.name(), &mut command, Report::parse);
        if check == Check::Programs && tally.failed > 0 {
            // Nothing else can work.
            break;
        }
        if check == Check::Programs {
            let mut command = Command::new(SUITE);
            command.arg("--test-threads=1");
            let mut last = Instant::now();
            tally.run("program runs", &mut command, |line| {
                let report = result_of_test(line, last.elapsed())?;
                last = Instant::now();
                Some(report)
            });
        }
    }
    Report::Done {
        passed: tally.passed,
        failed: tally.failed,
    }
    .print();
    Ok(())
}

impl Tally {
    /// Runs one program to its end. `read` finds the reports in its output.
    fn run(&mut self, name: &str, command: &mut Command, read: impl FnMut(&str) -> Option<Report>) {
        let (passed, failed) = (self.passed, self.failed);
        let why = match self.watch(command, read) {
            Ok(()) if (self.passed, self.failed) == (passed, failed) => {
                "reported nothing".to_owned()
            }
            Ok(()) => return,
            // It has said itself what failed.
            Err(_) if self.failed > failed => return,
            Err(error) => format!("{error:#}"),
        };
        self.failed += 1;
        Report::Failed {
            test: name.to_owned(),
            why,
        }
        .print();
    }

    fn watch(
        &mut self,
        command: &mut Command,
        mut read: impl FnMut(&str) -> Option<Report>,
    ) -> Result<()> {
        let begun = Instant::now();
        let mut child = command
            .env("RUST_BACKTRACE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting")?;
        let output = child.stdout.take().context("no standard output")?;
        let status = thread::scope(|scope| {
            let waiter = scope.spawn(|| wait(&mut child, begun));
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                match read(&line) {
                    Some(report) => {
                        self.passed += u32::from(matches!(report, Report::Passed { .. }));
                        self.failed += u32::from(matches!(report, Report::Failed { .. }));
                        report.print();
                    }
                    None => println!("{line}"),
                }
            }
            waiter
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        if !status.success() {
            bail!("{status}");
        }
        Ok(())
    }
}

fn wait(child: &mut Child, begun: Instant) -> Result<std::process::ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().context("waiting")? {
            return Ok(status);
        }
        if begun.elapsed() > LIMIT {
            let _ = child.kill();
            let _ = child.wait();
            bail!("took longer than {} s, killed", LIMIT.as_secs());
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// The report that a line of a Rust test program makes: `test name ... ok`.
fn result_of_test(line: &str, took: Duration) -> Option<Report> {
    let (test, result) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let test = format!("program runs: {test}");
    Some(match result {
        "ok" => Report::Passed {
            test,
            seconds: took.as_secs_f64(),
        },
        other => Report::Failed {
            test,
            why: other.to_owned(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ok_is_a_pass() {
        let second = Duration::from_secs(1);
        let report = |line| result_of_test(line, second);
        assert!(
            matches!(report("test a::b ... ok"), Some(Report::Passed { seconds, .. }) if seconds >= 1.0)
        );
        assert!(matches!(
            report("test a ... FAILED"),
            Some(Report::Failed { .. })
        ));
        assert!(matches!(
            report("test a ... ignored"),
            Some(Report::Failed { .. })
        ));
        assert!(report("test result: ok. 3 passed; 0 failed").is_none());
    }
}
