//! Child processes with a captured log, a time limit, and an end.

use std::{
    io::{BufRead as _, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long a process may take to end after a signal before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// A running child process. It is killed when this value is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: Arc<Log>,
}

/// A process that has ended.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

/// What a process writes, also after the process was given away.
#[derive(Clone, Debug)]
pub struct Transcript(Arc<Log>);

/// Which stream a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    lines: Vec<(Stream, String)>,
    ended: usize,
}

impl Process {
    /// Starts the command with both outputs captured line by line and no input.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        let name = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let log = Arc::new(Log::default());
        if let Some(out) = child.stdout.take() {
            collect(&log, Stream::Out, out);
        }
        if let Some(err) = child.stderr.take() {
            collect(&log, Stream::Err, err);
        }
        Ok(Self { name, child, log })
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything written so far to both outputs, in the order it was read.
    #[must_use]
    pub fn log(&self) -> String {
        let lines = self.log.lock();
        let texts: Vec<&str> = lines.lines.iter().map(|(_, line)| line.as_str()).collect();
        texts.join("\n")
    }

    /// The log, to be read by others.
    #[must_use]
    pub fn transcript(&self) -> Transcript {
        Transcript(Arc::clone(&self.log))
    }

    /// The lines written so far to standard output.
    #[must_use]
    pub fn output(&self) -> Vec<String> {
        self.log.lock().of(Stream::Out)
    }

    /// Waits until `wanted` accepts a line of standard output, and returns that line.
    ///
    /// Fails with the captured log when the process ends or the time is over before.
    pub fn wait_for_line(
        &mut self,
        what: &str,
        timeout: Duration,
        mut wanted: impl FnMut(&str) -> bool,
    ) -> Result<String> {
        let deadline = Instant::now() + timeout;
        let mut seen = 0;
        loop {
            let ended = self.child.try_wait().context("waiting")?;
            {
                let mut lines = self.log.lock();
                // A process that has ended may still have output on its way.
                if ended.is_none() {
                    (lines, _) = self
                        .log
                        .changed
                        .wait_timeout_while(lines, Duration::from_millis(20), |lines| {
                            lines.lines.len() <= seen
                        })
                        .unwrap_or_else(PoisonError::into_inner);
                }
                for (stream, line) in &lines.lines[seen..] {
                    if *stream == Stream::Out && wanted(line) {
                        return Ok(line.clone());
                    }
                }
                seen = lines.lines.len();
                if let Some(status) = ended
                    && lines.ended == 2
                {
                    drop(lines);
                    bail!(
                        "{} ended ({status}) before {what}; its output:\n{}",
                        self.name,
                        self.log()
                    );
                }
            }
            if ended.is_some() {
                thread::sleep(Duration::from_millis(5));
            }
            if Instant::now() > deadline {
                bail!(
                    "{}: no {what} within {timeout:?}; its output:\n{}",
                    self.name,
                    self.log()
                );
            }
        }
    }

    /// Waits for the end. A process that takes longer than `timeout` is killed, which is an error.
    pub fn wait(mut self, timeout: Duration) -> Result<Finished> {
        let start = Instant::now();
        let Some(status) = self.poll(timeout)? else {
            self.end();
            bail!(
                "{} took longer than {timeout:?} and was killed; its output:\n{}",
                self.name,
                self.log()
            );
        };
        let took = start.elapsed();
        // Grandchildren may hold the pipes open; what the process itself wrote is there by then.
        let lines = self.log.lock();
        let (lines, _) = self
            .log
            .changed
            .wait_timeout_while(lines, Duration::from_secs(2), |lines| lines.ended < 2)
            .unwrap_or_else(PoisonError::into_inner);
        Ok(Finished {
            status,
            stdout: lines.of(Stream::Out).join("\n"),
            stderr: lines.of(Stream::Err).join("\n"),
            took,
        })
    }

    /// Sends the signal and waits for the end.
    pub fn stop(self, signal: Signal) -> Result<Finished> {
        kill(self.pid(), signal).with_context(|| format!("sending {signal} to {}", self.name))?;
        self.wait(GRACE)
    }

    /// The exit status, if the process has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("waiting")
    }

    fn poll(&mut self, timeout: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait().context("waiting")? {
                return Ok(Some(status));
            }
            if Instant::now() > deadline {
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Ends the process if it still runs: asks first, so that it can clean up, then kills.
    pub fn end(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = kill(self.pid(), Signal::SIGTERM);
            if !matches!(self.poll(GRACE), Ok(Some(_))) {
                let _ = self.child.kill();
            }
        }
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

impl Transcript {
    /// The lines of both outputs so far that `wanted` accepts.
    pub fn lines(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let lines = self.0.lock();
        let lines = lines.lines.iter().map(|(_, line)| line);
        lines.filter(|line| wanted(line)).cloned().collect()
    }
}

impl Finished {
    /// Fails with both outputs unless the process ended with status 0.
    pub fn success(self, what: &str) -> Result<Self> {
        if !self.status.success() {
            bail!("{what}: {}\n{}{}", self.status, self.stdout, self.stderr);
        }
        Ok(self)
    }
}

/// Runs a command of this machine to its end; fails with its output unless it succeeds.
pub fn run(command: &mut Command, timeout: Duration) -> Result<Finished> {
    let name = format!("{command:?}");
    Process::spawn(command)?.wait(timeout)?.success(&name)
}

fn collect(log: &Arc<Log>, stream: Stream, source: impl Read + Send + 'static) {
    let log = Arc::clone(log);
    thread::spawn(move || {
        let mut source = BufReader::new(source);
        let mut line = Vec::new();
        while matches!(source.read_until(b'\n', &mut line), Ok(1..)) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            log.lock().lines.push((stream, text));
            log.changed.notify_all();
            line.clear();
        }
        log.lock().ended += 1;
        log.changed.notify_all();
    });
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn of(&self, wanted: Stream) -> Vec<String> {
        self.lines
            .iter()
            .filter(|(stream, _)| *stream == wanted)
            .map(|(_, line)| line.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn captures_both_outputs_and_the_status() {
        let ended = Process::spawn(&mut shell("echo out; echo err >&2; exit 3"))
            .and_then(|process| process.wait(Duration::from_secs(5)))
            .expect("runs");
        assert_eq!(ended.status.code(), Some(3));
        assert_eq!(
            (ended.stdout.as_str(), ended.stderr.as_str()),
            ("out", "err")
        );
        assert!(ended.success("exit 3").is_err());
    }

    #[test]
    fn a_line_that_never_comes_is_reported_with_the_log() {
        let mut process = Process::spawn(&mut shell("echo trouble >&2; exit 1")).expect("starts");
        let error = process
            .wait_for_line("ready line", Duration::from_secs(5), |line| line == "ready")
            .expect_err("there is no such line");
        assert!(error.to_string().contains("trouble"), "{error}");
    }

    #[test]
    fn a_process_that_hangs_is_killed() {
        let started = Instant::now();
        let error = run(&mut shell("exec sleep 60"), Duration::from_millis(100))
            .expect_err("takes too long");
        assert!(error.to_string().contains("killed"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}
