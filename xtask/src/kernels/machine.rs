//! One virtual machine: boots a kernel, follows its reports, keeps its log.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use ftpguard_tests::vm::{Feature, Report};

use super::{fetch::Kernel, progress::Line};
use crate::exec::shown;

/// How long a kernel may take until user space runs.
const BOOT: Duration = Duration::from_mins(2);
/// How long a machine may be silent after that.
const SILENCE: Duration = Duration::from_mins(5);
/// How long a machine may take altogether.
const WHOLE: Duration = Duration::from_mins(20);

/// What one machine has reported.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// The kernel's release, once user space runs.
    pub(crate) release: Option<String>,
    /// Seconds from the start of QEMU until user space ran.
    pub(crate) boot: f64,
    /// Program and verified instructions.
    pub(crate) programs: BTreeMap<String, Option<u32>>,
    /// Whether features are there and used; one that was not looked at is not in the map.
    pub(crate) features: BTreeMap<Feature, bool>,
    /// How many tests have passed.
    pub(crate) passed: u32,
    /// One line for each failure.
    pub(crate) failures: Vec<String>,
    /// How long it took altogether.
    pub(crate) seconds: f64,
    /// Whether the kernel did not come up the first time.
    pub(crate) booted_twice: bool,
    done: bool,
}

/// Boots the kernel and follows it to its end. A kernel that does not come up is started once
/// more: emulated, one boot in some dozen fails. A test that fails is never run again.
pub(super) fn run(line: &Line, kernel: &Kernel, image: &Path, logs: &Path) -> Result<Outcome> {
    let first = start(line, kernel, image, &logs.join("serial.log"))?;
    if first.release.is_some() {
        return Ok(first);
    }
    line.say("did not come up, once more");
    fs::rename(logs.join("serial.log"), logs.join("serial-first-boot.log"))
        .context("keeping the log of the first boot")?;
    let mut second = start(line, kernel, image, &logs.join("serial.log"))?;
    second.booted_twice = true;
    Ok(second)
}

fn start(line: &Line, kernel: &Kernel, image: &Path, log: &Path) -> Result<Outcome> {
    let begun = Instant::now();
    let mut outcome = Outcome::default();
    let mut command = qemu(kernel, image);
    let mut machine = command
        .spawn()
        .with_context(|| format!("starting {}", shown(&command)))?;
    let ended = follow(line, &mut machine, log, begun, &mut outcome);
    let _ = machine.kill();
    let _ = machine.wait();
    if let Some(why) = ended? {
        outcome.failures.push(why);
    }
    outcome.seconds = begun.elapsed().as_secs_f64();
    Ok(outcome)
}

/// Reads the serial line until the machine has ended. Returns why it ended, unless all is done.
fn follow(
    progress: &Line,
    machine: &mut Child,
    log: &Path,
    begun: Instant,
    outcome: &mut Outcome,
) -> Result<Option<String>> {
    let serial = machine.stdout.take().context("no serial line")?;
    let mut log = File::create(log).with_context(|| format!("making {}", log.display()))?;
    let (sender, lines) = mpsc::channel();
    // Ends when the machine does.
    thread::spawn(move || {
        for line in BufReader::new(serial).split(b'\n').map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    loop {
        let whole = WHOLE.saturating_sub(begun.elapsed());
        let limit = if outcome.release.is_some() {
            SILENCE.min(whole)
        } else {
            BOOT.saturating_sub(begun.elapsed())
        };
        let line = match lines.recv_timeout(limit) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                return Ok(Some(format!(
                    "hangs; stopped after {:.0} s",
                    begun.elapsed().as_secs_f64()
                )));
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Ok((!outcome.done).then(|| "ended before all tests had run".to_owned()));
            }
        };
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches('\r');
        writeln!(log, "{line}").context("writing the log")?;
        if let Some(report) = Report::parse(line) {
            outcome.take(progress, report, begun.elapsed());
        }
    }
}

/// The machine. KVM is not asked for: emulation works everywhere.
fn qemu(kernel: &Kernel, image: &Path) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-accel", "tcg,thread=multi"])
        // With cx16, Linux 6.12 crashes in one boot of fourteen (QEMU 7.2).
        .args(["-cpu", "max,-cx16", "-m", "768", "-smp", "1"])
        .args(["-nodefaults", "-display", "none", "-serial", "stdio"])
        .arg("-no-reboot")
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(image)
        .args(["-append", "console=ttyS0 panic=-1 quiet mitigations=off"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    command
}

impl Outcome {
    /// The features that the kernel lacks.
    pub(crate) fn degraded(&self) -> impl Iterator<Item = Feature> {
        let lacking = self.features.iter().filter(|(_, used)| !**used);
        lacking.map(|(feature, _)| *feature)
    }

    /// Takes one report over, and shows how far the machine is.
    fn take(&mut self, progress: &Line, report: Report, elapsed: Duration) {
        match report {
            Report::Up { release, .. } => {
                self.boot = elapsed.as_secs_f64();
                progress.say(&format!("up after {:.1} s: {release}", self.boot));
                self.release = Some(release);
            }
            Report::Program { name, instructions } => {
                self.programs.insert(name, instructions);
            }
            Report::Feature { name, used } => {
                self.features.insert(name, used);
            }
            Report::Passed { test, seconds } => {
                self.passed += 1;
                progress.passed(&test, seconds);
            }
            Report::Failed { test, why } => {
                progress.say(&format!("FAILED  {test}: {why}"));
                self.failures.push(format!("{test}: {why}"));
            }
            Report::Done { passed, .. } => {
                self.done = true;
                if passed != self.passed {
                    let text = format!("{passed} tests passed, {} reports came", self.passed);
                    self.failures.push(text);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::progress::Progress, *};

    #[test]
    fn a_lost_report_is_a_failure() {
        let mut outcome = Outcome::default();
        let line = Progress::new().line("x");
        let take = |outcome: &mut Outcome, report| outcome.take(&line, report, Duration::ZERO);
        let passed = |test: &str| Report::Passed {
            test: test.to_owned(),
            seconds: 0.0,
        };
        take(&mut outcome, passed("one"));
        let done = Report::Done {
            passed: 2,
            failed: 0,
        };
        take(&mut outcome, done);
        assert_eq!((outcome.passed, outcome.failures.len()), (1, 1));
    }
}
