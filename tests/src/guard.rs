//! The guard itself, run as its users run it.

use std::{
    env,
    ffi::OsString,
    fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use ftpguard_common::verdict::Reason;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    cgroup::Cgroup,
    ftpd::CONTROL_PORT,
    namespace::Namespace,
    process::{Finished, Process, Transcript},
    sandbox::{INTERFACE, Sandbox},
};

/// The environment variable that names the binary to test.
pub const BINARY: &str = "FTPGUARD_BIN";

/// How long the guard may take until it says that it is ready.
const READY: Duration = Duration::from_mins(1);
/// How long a command that is to end by itself may take.
const SHORT: Duration = Duration::from_mins(1);
/// How long it is waited for what the guard is to say or to count.
const SOON: Duration = Duration::from_secs(10);

/// What `ftpguard run` is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The binary; by default [`binary`].
    pub binary: PathBuf,
    /// `--config`; by default an empty file, for that of the machine must not change what is tested.
    pub config: PathBuf,
    /// `--mode`
    pub mode: &'static str,
    /// `--tracking`
    pub tracking: &'static str,
    /// `--xdp-mode`
    pub xdp_mode: &'static str,
    /// `--iface`, one for each; none for all but `lo`.
    pub interfaces: Vec<String>,
    /// `--nft-set`
    pub nft_set: Option<&'static str>,
    /// `--allow-connect`
    pub allow_connect: Vec<String>,
    /// `--uses`
    pub uses: u8,
    /// `--bounce-shield`
    pub bounce_shield: bool,
    /// `--control-port`
    pub control_port: u16,
    /// `--passive-ports`, none for listeners only.
    pub passive_ports: Option<RangeInclusive<u16>>,
    /// Further arguments.
    pub more: Vec<String>,
    /// Which step of the start is to fail, as the guard reads it from `FTPGUARD_FAULT`.
    pub fault: Option<String>,
    /// `--metrics`
    pub metrics: Option<String>,
    /// What it logs (`RUST_LOG`), where that is not its default.
    pub log: Option<&'static str>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            binary: binary(),
            config: "/dev/null".into(),
            mode: "enforce",
            tracking: "socket",
            xdp_mode: "auto",
            interfaces: vec![INTERFACE.to_owned()],
            nft_set: None,
            allow_connect: Vec::new(),
            uses: 1,
            bounce_shield: false,
            control_port: CONTROL_PORT,
            passive_ports: Some(50_000..=50_031),
            more: Vec::new(),
            fault: None,
            metrics: None,
            log: None,
        }
    }
}

/// A running guard. It is asked to end, and waited for, when this value is dropped.
#[derive(Debug)]
pub struct Guard {
    process: Process,
    binary: PathBuf,
    runtime: PathBuf,
    ready: String,
    started_in: Duration,
}

/// A guard that has ended.
#[derive(Debug)]
pub struct Stopped {
    /// How it ended.
    pub status: ExitStatus,
    /// How long it took from the signal on.
    pub took: Duration,
    /// Its last line of standard output: the totals.
    pub totals: Value,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Guard {
    /// Starts the guard on the sandbox's server, and waits until it is ready.
    pub fn start(sandbox: &Sandbox, options: &Options) -> Result<Self> {
        Self::start_in(sandbox, options, &folder(sandbox, "guard")?)
    }

    /// Starts the guard with the runtime folder of one that has gone, and waits until it is
    /// ready.
    pub fn start_in(sandbox: &Sandbox, options: &Options, runtime: &Path) -> Result<Self> {
        Self::spawn(sandbox.server(), sandbox.ftpd_cgroup(), options, runtime)
    }

    /// Starts a guard in a network namespace, of what runs in this control group.
    pub fn start_on(
        sandbox: &Sandbox,
        place: &Namespace,
        cgroup: &Cgroup,
        options: &Options,
    ) -> Result<Self> {
        Self::spawn(place, cgroup, options, &folder(sandbox, "guard")?)
    }

    fn spawn(
        place: &Namespace,
        cgroup: &Cgroup,
        options: &Options,
        runtime: &Path,
    ) -> Result<Self> {
        let begun = Instant::now();
        let mut command = Command::new(&options.binary);
        command.args(["run", "--json"]);
        for interface in &options.interfaces {
            command.args(["--iface", interface]);
        }
        command.arg("--config").arg(&options.config);
        command.args(["--control-port", &options.control_port.to_string()]);
        if let Some(ports) = &options.passive_ports {
            let ports = format!("{}-{}", ports.start(), ports.end());
            command.args(["--passive-ports", &ports]);
        }
        command.args(&options.more);
        if let Some(fault) = &options.fault {
            command.env("FTPGUARD_FAULT", fault);
        }
        if let Some(log) = options.log {
            command.env("RUST_LOG", log);
        }
        for destination in &options.allow_connect {
            command.args(["--allow-connect", destination]);
        }
        command.arg("--cgroup").arg(cgroup.path());
        command.arg("--runtime-dir").arg(runtime);
        command.args(["--mode", options.mode, "--tracking", options.tracking]);
        command.args(["--xdp-mode", options.xdp_mode]);
        if let Some(set) = options.nft_set {
            command.args(["--nft-set", set]);
        }
        command.args(["--uses", &options.uses.to_string()]);
        if options.bounce_shield {
            command.arg("--bounce-shield");
        }
        if let Some(metrics) = &options.metrics {
            command.args(["--metrics", metrics]);
        }
        let mut process = place.spawn(&mut command)?;
        let ready =
            process.wait_for_line("ready line", READY, |line| line.starts_with("ready:"))?;
        Ok(Self {
            process,
            binary: options.binary.clone(),
            runtime: runtime.to_owned(),
            ready,
            started_in: begun.elapsed(),
        })
    }

    /// Starts the guard as [`Guard::start`] does, with this file and nothing over it but where it
    /// works.
    pub fn start_with_file(sandbox: &Sandbox, file: &Path) -> Result<Self> {
        let begun = Instant::now();
        let runtime = folder(sandbox, "guard")?;
        let mut command = Command::new(binary());
        command.args(["run", "--json", "--iface", INTERFACE, "--config"]);
        command.arg(file);
        command.arg("--cgroup").arg(sandbox.ftpd_cgroup().path());
        command.arg("--runtime-dir").arg(&runtime);
        let mut process = sandbox.server().spawn(&mut command)?;
        let ready =
            process.wait_for_line("ready line", READY, |line| line.starts_with("ready:"))?;
        Ok(Self {
            process,
            binary: binary(),
            runtime,
            ready,
            started_in: begun.elapsed(),
        })
    }

    /// Asks it with a command of `ftpguard`, such as `["mode", "enforce"]`.
    pub fn ask(&self, arguments: &[&str]) -> Result<Finished> {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .arg("--runtime-dir")
            .arg(&self.runtime);
        Process::spawn(&mut command)?.wait(SHORT)
    }

    /// Sends it a signal that does not end it.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.id()).context("process id")?;
        kill(Pid::from_raw(id), signal).context("sending a signal")
    }

    /// Runs `ftpguard` on the sandbox's server with arguments that make it end by itself.
    pub fn run(sandbox: &Sandbox, arguments: &[OsString]) -> Result<Finished> {
        let mut command = Command::new(binary());
        command.args(arguments);
        sandbox.server().run(&mut command, SHORT)
    }

    /// The line that said that it is ready.
    #[must_use]
    pub fn ready(&self) -> &str {
        &self.ready
    }

    /// How long it took to be ready.
    #[must_use]
    pub fn started_in(&self) -> Duration {
        self.started_in
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its `--runtime-dir`.
    #[must_use]
    pub fn runtime_dir(&self) -> &Path {
        &self.runtime
    }

    /// Everything it wrote so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// What it writes, to be read by others while it runs and after it has ended.
    #[must_use]
    pub fn transcript(&self) -> Transcript {
        self.process.transcript()
    }

    /// The events so far: the lines of standard output that are JSON objects.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        self.process
            .output()
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(Value::is_object)
            .collect()
    }

    /// The events so far, with all of what the kernel told before this: the guard reads that before
    /// it answers, and what it has written is waited for.
    pub fn all_events(&self) -> Result<Vec<Value>> {
        let finished = self.ask(&["events", "--json"])?.success("ftpguard")?;
        let last = finished.stdout.lines().last();
        let last: Option<Value> = last
            .map(serde_json::from_str)
            .transpose()
            .with_context(|| format!("no JSON:\n{}", finished.stdout))?;
        self.poll(|| {
            let events = self.events();
            Ok(match &last {
                Some(last) if !events.contains(last) => Err(format!("{last} was not written")),
                Some(_) | None => Ok(events),
            })
        })
    }

    /// Waits until the guard has read what the kernel told and captured before: it does so before
    /// it answers a question.
    pub fn settle(&self) -> Result<()> {
        self.list("sessions").map(drop)
    }

    /// Waits until there is a pinhole for this port.
    pub fn wait_for_pinhole(&self, port: u16) -> Result<()> {
        self.poll(|| {
            let pinholes = self.list("pinholes")?;
            let mut rows = pinholes.as_array().into_iter().flatten();
            let is_there = rows.any(|row| row["port"] == port);
            Ok(is_there
                .then_some(())
                .ok_or_else(|| format!("none for port {port} among {pinholes:#}")))
        })
    }

    /// Waits until no control connection is open, as the guard sees it.
    pub fn wait_until_idle(&self) -> Result<()> {
        self.poll(|| {
            let sessions = self.list("sessions")?;
            let is_idle = sessions.as_array().is_some_and(Vec::is_empty);
            Ok(is_idle
                .then_some(())
                .ok_or_else(|| format!("still open: {sessions:#}")))
        })
    }

    /// Waits for an event that `wanted` accepts.
    pub fn wait_for_event(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        self.poll(|| {
            let found = self.events().into_iter().find(&wanted);
            Ok(found.ok_or_else(|| format!("no event {what}")))
        })
    }

    /// Asks until there is an answer instead of a reason to wait.
    fn poll<T>(&self, mut ask: impl FnMut() -> Result<Result<T, String>>) -> Result<T> {
        let deadline = Instant::now() + SOON;
        loop {
            match ask()? {
                Ok(answer) => return Ok(answer),
                Err(why) if Instant::now() > deadline => {
                    bail!("{why}; the guard's output:\n{}", self.log());
                }
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// What `ftpguard status --json` says.
    pub fn status(&self) -> Result<Value> {
        self.list("status")
    }

    /// What this question (`status`, `sessions`, `pinholes`) is answered with, as JSON.
    pub fn list(&self, question: &str) -> Result<Value> {
        let mut command = Command::new(&self.binary);
        command
            .args([question, "--json", "--runtime-dir"])
            .arg(&self.runtime);
        let finished = Process::spawn(&mut command)?
            .wait(SHORT)?
            .success("ftpguard")?;
        serde_json::from_str(&finished.stdout)
            .with_context(|| format!("{question} is not JSON:\n{}", finished.stdout))
    }

    /// How often this reason was counted, as [`Guard::status`] says, which leaves out zeros.
    pub fn counter(&self, reason: Reason) -> Result<u64> {
        let status = self.status()?;
        let verdicts = status
            .get("verdicts")
            .and_then(Value::as_array)
            .with_context(|| format!("no verdicts in\n{status:#}"))?;
        Ok(verdicts
            .iter()
            .find(|verdict| verdict["name"] == reason.label())
            .and_then(|verdict| verdict["count"].as_u64())
            .unwrap_or_default())
    }

    /// Waits until the counter is at least `count`, and returns it.
    pub fn wait_for_counter(&self, reason: Reason, count: u64) -> Result<u64> {
        self.poll(|| {
            let now = self.counter(reason)?;
            Ok(if now >= count {
                Ok(now)
            } else {
                Err(format!("{} is {now}, not {count}", reason.label()))
            })
        })
    }

    /// Kills it, as the kernel does when memory runs out. Gives its runtime folder.
    pub fn kill(self) -> Result<PathBuf> {
        self.process.stop(Signal::SIGKILL)?;
        Ok(self.runtime)
    }

    /// Sends the signal and waits for the end.
    pub fn stop(self, signal: Signal) -> Result<Stopped> {
        let begun = Instant::now();
        let finished = self.process.stop(signal)?;
        let totals = finished
            .stdout
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|line| line["event"] == "totals")
            .with_context(|| {
                format!(
                    "no totals ({}); the guard's output:\n{}\n{}",
                    finished.status, finished.stdout, finished.stderr
                )
            })?;
        Ok(Stopped {
            status: finished.status,
            took: begun.elapsed(),
            totals,
            stderr: finished.stderr,
        })
    }
}

/// The binary to test: what [`BINARY`] says, else the release build of this workspace.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = env::var_os(BINARY) {
        return path.into();
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    target.join("release/ftpguard")
}

/// Where the guard with this runtime folder pins what outlives it.
#[must_use]
pub fn pins(runtime: &Path) -> PathBuf {
    let name = runtime.to_string_lossy().replace(['/', '.'], "-");
    Path::new(PINS).join(format!("ftpguard{name}"))
}

/// Where BPF objects are pinned.
pub const PINS: &str = "/sys/fs/bpf";

/// A new folder in the sandbox.
pub fn folder(sandbox: &Sandbox, name: &str) -> Result<PathBuf> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = sandbox.folder().join(format!("{name}-{number}"));
    fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
    Ok(path)
}
