//! Control groups (v2) of our own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A cgroup v2 directory. When this value is dropped its processes are killed and it goes.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes a control group below the root of the cgroup v2 hierarchy.
    pub fn new(name: &str) -> Result<Self> {
        Self::at(mount()?.join(name))
    }

    /// Makes a control group below this one.
    pub fn child(&self, name: &str) -> Result<Self> {
        Self::at(self.path.join(name))
    }

    fn at(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path).with_context(|| format!("making cgroup {}", path.display()))?;
        Ok(Self { path })
    }

    /// Where it lies in the file system.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A command that runs `program` in this control group, from its first instruction on.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo 0 > \"$0\" && exec \"$@\""])
            .arg(self.path.join("cgroup.procs"))
            .arg(program);
        command
    }

    /// The processes in it.
    #[must_use]
    pub fn processes(&self) -> Vec<i32> {
        processes(&self.path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Where cgroup v2 is mounted: at /sys/fs/cgroup, or beside v1 in the hybrid layout.
pub fn mount() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    for line in mounts.lines() {
        let mut fields = line.split(' ');
        if let (Some(_), Some(path), Some("cgroup2")) =
            (fields.next(), fields.next(), fields.next())
        {
            return Ok(PathBuf::from(path));
        }
    }
    bail!("cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup")
}

/// Kills the processes of a control group that was made here, and removes it with those below.
pub fn remove(path: &Path) {
    // New ones may be forked while the old ones are killed, and the kernel needs a moment.
    for _ in 0..1000 {
        for child in fs::read_dir(path).into_iter().flatten().flatten() {
            if child.file_type().is_ok_and(|kind| kind.is_dir()) {
                remove(&child.path());
            }
        }
        for process in processes(path) {
            let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
        }
        match fs::remove_dir(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                thread::sleep(Duration::from_millis(5));
            }
            _ => return,
        }
    }
}

fn processes(path: &Path) -> Vec<i32> {
    fs::read_to_string(path.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect()
}
