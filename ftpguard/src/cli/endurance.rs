//! What the operator may say about the kernel side's life without the daemon, and about bounds.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use ftpguard_common::abi::{MAX_SESSIONS, WithoutDaemon};

use super::{AskArgs, DEFAULT_RUNTIME_DIR};
use crate::kernel::Pins;

/// What `run` takes of these.
#[derive(Args, Clone, Debug)]
pub struct EnduranceArgs {
    /// Folder in a BPF file system in which the kernel side outlives the daemon
    /// [default: /sys/fs/bpf/ftpguard, or another for another --runtime-dir]
    #[arg(long, value_name = "DIR", conflicts_with = "no_pin")]
    pub pin_dir: Option<PathBuf>,
    /// Let everything in the kernel end with the daemon, however it ends
    #[arg(long)]
    pub no_pin: bool,
    /// What becomes of the kernel side when the daemon is told to stop
    #[arg(
        long,
        value_name = "WHAT",
        default_value = "detach",
        conflicts_with = "no_pin"
    )]
    pub on_stop: OnStop,
    /// Whom listeners that need the daemon admit while it is dead or hung
    #[arg(long, value_name = "WHOM", default_value = "control-peer")]
    pub without_daemon: WithoutDaemonArg,
    /// How many control connections are tracked at once; sizes every table
    #[arg(long, value_name = "COUNT", default_value_t = MAX_SESSIONS,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_sessions: u32,
    /// How many control connections of one client are tracked at once; further ones get no data
    /// connections
    #[arg(long, value_name = "COUNT", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub client_sessions: u32,
}

/// What `status` and `detach` take.
#[derive(Args, Clone, Debug)]
pub struct EnduringAskArgs {
    /// Whom to ask, and how to print.
    #[command(flatten)]
    pub ask: AskArgs,
    /// Folder of the guard's pins [default: as for `run`]
    #[arg(long, value_name = "DIR")]
    pub pin_dir: Option<PathBuf>,
}

/// Choices of `--on-stop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnStop {
    /// Everything is removed from the kernel: the host is unguarded
    Detach,
    /// The kernel goes on guarding, as after a crash
    Keep,
}

/// Choices of `--without-daemon`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WithoutDaemonArg {
    /// Every client that holds a control connection
    ControlPeer,
    /// Nobody
    Closed,
    /// Everybody
    Open,
}

impl WithoutDaemonArg {
    /// The name in status.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::ControlPeer => "control-peer",
            Self::Closed => "closed",
            Self::Open => "open",
        }
    }

    /// The choice with this number of [`WithoutDaemon`].
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Closed,
            2 => Self::Open,
            _ => Self::ControlPeer,
        }
    }
}

impl From<WithoutDaemonArg> for WithoutDaemon {
    fn from(choice: WithoutDaemonArg) -> Self {
        match choice {
            WithoutDaemonArg::ControlPeer => Self::ControlPeer,
            WithoutDaemonArg::Closed => Self::Closed,
            WithoutDaemonArg::Open => Self::Open,
        }
    }
}

impl EnduranceArgs {
    /// Where pins lie, of a guard with this runtime folder.
    #[must_use]
    pub fn pins(&self, runtime: &Path) -> Pins {
        let folder = pin_folder(self.pin_dir.as_deref(), runtime);
        if self.no_pin {
            Pins::Formerly(folder)
        } else {
            Pins::In(folder)
        }
    }
}

impl EnduringAskArgs {
    /// Where the pins of the guard in question lie.
    #[must_use]
    pub fn pin_folder(&self) -> PathBuf {
        pin_folder(self.pin_dir.as_deref(), &self.ask.runtime_dir)
    }
}

/// Guards with different runtime folders have different pins, without being told.
fn pin_folder(chosen: Option<&Path>, runtime: &Path) -> PathBuf {
    const FILE_SYSTEM: &str = "/sys/fs/bpf";
    if let Some(folder) = chosen {
        return folder.to_owned();
    }
    if runtime == Path::new(DEFAULT_RUNTIME_DIR) {
        return Path::new(FILE_SYSTEM).join("ftpguard");
    }
    // A BPF file system takes no dots in names.
    let name: String = runtime
        .to_string_lossy()
        .chars()
        .map(|character| match character {
            '/' | '.' => '-',
            other => other,
        })
        .collect();
    Path::new(FILE_SYSTEM).join(format!("ftpguard{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_follow_the_runtime_folder() {
        let default = pin_folder(None, Path::new("/run/ftpguard"));
        assert_eq!(default, Path::new("/sys/fs/bpf/ftpguard"));
        let other = pin_folder(None, Path::new("/tmp/a.b/guard-1"));
        assert_eq!(other, Path::new("/sys/fs/bpf/ftpguard-tmp-a-b-guard-1"));
        let chosen = pin_folder(Some(Path::new("/bpf/x")), Path::new("/tmp"));
        assert_eq!(chosen, Path::new("/bpf/x"));
    }

    #[test]
    fn numbers_and_choices_fit() {
        for choice in [
            WithoutDaemonArg::ControlPeer,
            WithoutDaemonArg::Closed,
            WithoutDaemonArg::Open,
        ] {
            let number = WithoutDaemon::from(choice) as u32;
            assert_eq!(WithoutDaemonArg::from_number(number), choice);
        }
    }
}
