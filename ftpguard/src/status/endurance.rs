//! How long the guard lasts: pins, heartbeat, bounds, memory; and what there is to say of a
//! kernel side whose daemon is gone.

use std::fmt::Write as _;

use ftpguard_common::abi::Mode;
use serde::{Deserialize, Serialize};

use super::{Count, incidents, verdicts};
use crate::{
    clock,
    config::{ModeArg, WithoutDaemonArg},
    kernel::Orphan,
};

/// How the guard lasts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endurance {
    /// Where the kernel side outlives the daemon; `None` where it does not.
    pub pins: Option<String>,
    /// Whom listeners that need the daemon admit while it is dead or hung.
    pub without_daemon: String,
    /// Milliseconds since the daemon last showed the kernel side that it is alive.
    pub heartbeat_age: u64,
    /// How many control connections are tracked at once.
    pub max_sessions: u32,
    /// How many of them may be one client's.
    pub client_sessions: u32,
    /// What the maps take, in bytes.
    pub memory: u64,
}

impl Endurance {
    /// For people: names and values.
    pub(super) fn fields(&self) -> [(&'static str, String); 3] {
        let after = self.pins.as_ref().map_or_else(
            || "nothing: the kernel side ends with the daemon".to_owned(),
            |pins| {
                format!(
                    "the kernel goes on guarding; what needs the daemon: {} ({pins})",
                    self.without_daemon
                )
            },
        );
        [
            ("after a crash", after),
            ("heartbeat", format!("{} ms ago", self.heartbeat_age)),
            (
                "tables",
                format!(
                    "{} sessions, {} for each client, {} KiB",
                    self.max_sessions,
                    self.client_sessions,
                    self.memory / 1024
                ),
            ),
        ]
    }
}

/// A kernel side whose daemon is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orphaned {
    /// Always `gone`.
    pub daemon: String,
    /// Where it is pinned.
    pub pins: String,
    /// `monitor` or `enforce`.
    pub mode: String,
    /// Whom listeners that need the daemon admit.
    pub without_daemon: String,
    /// Milliseconds since the daemon was last alive.
    pub heartbeat_age: u64,
    /// How many control connections are open.
    pub sessions: usize,
    /// How many pinholes are open.
    pub pinholes: usize,
    /// What is attached.
    pub hooks: Vec<String>,
    /// Verdicts, counted by reason.
    pub verdicts: Vec<Count>,
    /// What happened to the guard itself.
    pub incidents: Vec<Count>,
}

impl Orphaned {
    /// What is to be said of it.
    #[must_use]
    pub fn of(orphan: &Orphan, pins: &std::path::Path) -> Self {
        let mode = if orphan.policy.mode_for(0) == Mode::Monitor as u32 {
            ModeArg::Monitor
        } else {
            ModeArg::Enforce
        };
        Self {
            daemon: "gone".to_owned(),
            pins: pins.display().to_string(),
            mode: mode.label().to_owned(),
            without_daemon: WithoutDaemonArg::from_number(orphan.policy.without_daemon)
                .label()
                .to_owned(),
            heartbeat_age: age_ms(orphan.heartbeat),
            sessions: orphan.sessions,
            pinholes: orphan.pinholes,
            hooks: orphan.hooks.clone(),
            verdicts: verdicts(&orphan.counters),
            incidents: incidents(&orphan.counters),
        }
    }

    /// For people.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = format!(
            "the daemon is gone since {} s; the kernel goes on guarding\n",
            self.heartbeat_age / 1000
        );
        let mut field = |name: &str, value: &str| {
            let _ = writeln!(text, "  {name:<14} {value}");
        };
        field("mode", &self.mode);
        field("needs daemon", &self.without_daemon);
        field("sessions", &self.sessions.to_string());
        field("pinholes", &self.pinholes.to_string());
        field("hooks", &self.hooks.join(" "));
        field("pins", &self.pins);
        for count in self.verdicts.iter().chain(&self.incidents) {
            field(&count.count.to_string(), &count.name);
        }
        text
    }
}

/// Milliseconds since a time of `CLOCK_MONOTONIC` in nanoseconds.
#[must_use]
pub fn age_ms(stamp: u64) -> u64 {
    clock::monotonic_ns().saturating_sub(stamp) / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_side_without_daemon_is_told() {
        let orphaned = Orphaned {
            daemon: "gone".to_owned(),
            pins: "/sys/fs/bpf/ftpguard".to_owned(),
            mode: "enforce".to_owned(),
            without_daemon: "control-peer".to_owned(),
            heartbeat_age: 61_500,
            sessions: 2,
            pinholes: 1,
            hooks: vec!["connect4".to_owned(), "xdp-native-2".to_owned()],
            verdicts: vec![Count {
                name: "no-pinhole".to_owned(),
                verdict: "deny".to_owned(),
                count: 12,
                text: "SYN to the ftpd's listener".to_owned(),
            }],
            incidents: Vec::new(),
        };
        assert_eq!(
            orphaned.render(),
            "\
the daemon is gone since 61 s; the kernel goes on guarding
  mode           enforce
  needs daemon   control-peer
  sessions       2
  pinholes       1
  hooks          connect4 xdp-native-2
  pins           /sys/fs/bpf/ftpguard
  12             no-pinhole
"
        );
    }
}
