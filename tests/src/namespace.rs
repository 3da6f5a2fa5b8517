//! Network namespaces, made and removed with iproute2.

use std::{fs::File, path::PathBuf, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns};

use crate::process::{self, Finished, Process};

/// Where iproute2 keeps named network namespaces.
const DIRECTORY: &str = "/run/netns";

/// A network namespace that goes when this value is dropped.
///
/// Commands are started from a thread inside the namespace, not with `ip netns exec`: that one
/// mounts a new /sys, in which tracefs, bpffs and cgroup v2 are not to be seen.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// Makes a namespace with its loopback interface up and duplicate address detection off.
    pub fn new(name: &str) -> Result<Self> {
        ip(&["netns", "add", name]).context("making a network namespace (needs root)")?;
        let path = PathBuf::from(DIRECTORY).join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) => {
                remove(name);
                return Err(anyhow!(error).context(format!("opening {}", path.display())));
            }
        };
        let namespace = Self {
            name: name.to_owned(),
            file,
        };
        namespace.ip(&["link", "set", "lo", "up"])?;
        // An address under detection cannot be used for a second or two.
        namespace.set("net/ipv6/conf/default/accept_dad", "0")?;
        namespace.set("net/ipv6/conf/all/accept_dad", "0")?;
        Ok(namespace)
    }

    /// The name, as iproute2 knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` on this namespace.
    pub fn ip(&self, arguments: &[&str]) -> Result<Finished> {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend(arguments);
        ip(&all)
    }

    /// Sets a network parameter, named by its path below /proc/sys.
    pub fn set(&self, parameter: &str, value: &str) -> Result<()> {
        let path = PathBuf::from("/proc/sys").join(parameter);
        self.enter(|| std::fs::write(&path, value))?
            .with_context(|| format!("writing {} in {}", path.display(), self.name))
    }

    /// Calls `inside` on a thread of its own in this namespace, and returns what it returns.
    ///
    /// Sockets and processes made there belong to the namespace for good.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("entering network namespace {}", self.name))?;
                Ok(inside())
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a command in this namespace.
    pub fn spawn(&self, command: &mut Command) -> Result<Process> {
        self.enter(|| Process::spawn(command))?
    }

    /// Runs a command in this namespace to its end, whatever its exit status.
    pub fn run(&self, command: &mut Command, timeout: Duration) -> Result<Finished> {
        self.spawn(command)?.wait(timeout)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// The names of all network namespaces that begin with `prefix`.
#[must_use]
pub fn named(prefix: &str) -> Vec<String> {
    std::fs::read_dir(DIRECTORY)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect()
}

/// Removes a namespace; one that is gone already is no error.
pub fn remove(name: &str) {
    let _ = ip(&["netns", "delete", name]);
}

fn ip(arguments: &[&str]) -> Result<Finished> {
    process::run(Command::new("ip").args(arguments), Duration::from_secs(10))
}
