//! What a running guard answers, and how people read it.

mod endurance;
mod ftpds;
mod render;

use std::fmt::Write as _;

pub use endurance::{Endurance, Orphaned, age_ms};
pub use ftpds::{FtpdRow, Level};
use ftpguard_common::verdict::{Incident, Reason, Verdict};
pub(crate) use render::duration;
pub use render::{render_pinholes, render_sessions};
use serde::{Deserialize, Serialize};

use crate::{
    config::{Config, ModeArg},
    events::{Ends, Way},
    kernel::CpuCounters,
    state::Tally,
};

/// The state of a running guard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// ftpguard's version.
    pub version: String,
    /// The guard's process.
    pub pid: u32,
    /// `monitor` or `enforce`.
    pub mode: String,
    /// The mode of each FTP server.
    #[serde(default)]
    pub ftpd_modes: Vec<FtpdMode>,
    /// Why denials take no effect although they should.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_enforced: Option<String>,
    /// `socket` or `text`.
    pub tracking: String,
    /// Whom active mode may reach: `client`, `exceptions` or `off`.
    pub active: String,
    /// The kernel's release.
    pub kernel: String,
    /// Seconds since the guard was ready.
    pub uptime: u64,
    /// The cgroup whose processes are watched.
    pub cgroup: String,
    /// Ports of control connections.
    pub control_ports: Vec<u16>,
    /// The declared passive range.
    pub passive_ports: Option<String>,
    /// Features that this kernel lacks, and what the guard does without.
    #[serde(default)]
    pub degraded: Vec<String>,
    /// How it lasts.
    #[serde(default)]
    pub endurance: Endurance,
    /// What sits on each interface.
    pub interfaces: Vec<Hooks>,
    /// Whether the lookup gate holds.
    pub last_gate: bool,
    /// Why it could not be attached again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_gate_note: Option<String>,
    /// Whether the `connect()` hooks hold.
    pub connect: bool,
    /// Why they could not be attached again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_note: Option<String>,
    /// How many control connections are open.
    pub sessions: u64,
    /// How many pinholes are open.
    pub pinholes: u64,
    /// How many listeners of ftpds are guarded.
    pub guarded_listeners: u64,
    /// How many listeners of other software are left alone.
    pub foreign_listeners: u64,
    /// Processes of ftpds that get no pinhole from the socket observer.
    pub unsafe_processes: Vec<u32>,
    /// The ftpds, and how surely their listeners are attributed.
    #[serde(default)]
    pub ftpds: Vec<FtpdRow>,
    /// What each program of the kernel side costs; empty unless the kernel measures it
    /// (`sysctl kernel.bpf_stats_enabled=1`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<ProgramRow>,
    /// What happened since the start.
    #[serde(default)]
    pub totals: Tally,
    /// Verdicts, counted by reason; those that did not occur are left out.
    pub verdicts: Vec<Count>,
    /// What happened to the guard itself; what did not is left out.
    pub incidents: Vec<Count>,
}

impl Status {
    /// The mode that packets and calls meet: while denials take no effect, monitor mode.
    #[must_use]
    pub fn effective_mode(&self) -> &str {
        self.in_force(&self.mode)
    }

    /// The same where this mode is set, for the guard or for one FTP server.
    #[must_use]
    pub fn in_force<'a>(&self, mode: &'a str) -> &'a str {
        if self.not_enforced.is_some() {
            ModeArg::Monitor.label()
        } else {
            mode
        }
    }
}

impl Status {
    /// Whether something is to be enforced and is not: the clients are hidden (rule I8).
    #[must_use]
    pub fn is_refused(&self) -> bool {
        let enforce = ModeArg::Enforce.label();
        let is_wanted =
            self.mode == enforce || self.ftpd_modes.iter().any(|ftpd| ftpd.mode == enforce);
        self.not_enforced.is_some() && is_wanted
    }

    /// For whom denials take effect.
    #[must_use]
    pub fn effect(&self) -> Effect {
        let mode = self.effective_mode();
        let mut ftpds = self.ftpd_modes.iter();
        if ftpds.any(|ftpd| self.in_force(&ftpd.mode) != mode) {
            Effect::Partly
        } else if mode == ModeArg::Monitor.label() {
            Effect::Nowhere
        } else {
            Effect::Everywhere
        }
    }
}

/// For whom denials take effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// For every FTP server.
    Everywhere,
    /// For some: their modes differ.
    Partly,
    /// For none.
    Nowhere,
}

/// The mode of one FTP server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FtpdMode {
    /// What it is called in the configuration.
    pub name: String,
    /// Its control ports.
    pub control_ports: Vec<u16>,
    /// `monitor` or `enforce`.
    pub mode: String,
}

impl FtpdMode {
    /// Those of every FTP server.
    #[must_use]
    pub fn all(config: &Config) -> Vec<Self> {
        config
            .modes()
            .map(|(ftpd, mode)| Self {
                name: ftpd.name.clone(),
                control_ports: ftpd.control_ports.clone(),
                mode: mode.label().to_owned(),
            })
            .collect()
    }
}

/// The guard's mode, and those of FTP servers that differ from it.
#[must_use]
pub fn mode_text(mode: &str, ftpds: &[FtpdMode]) -> String {
    let mut text = mode.to_owned();
    for ftpd in ftpds.iter().filter(|ftpd| ftpd.mode != mode) {
        let _ = write!(text, ", {} for {}", ftpd.mode, ftpd.name);
    }
    text
}

impl Hooks {
    /// Where nothing sits: the interface could not be guarded.
    pub const NONE: &str = "none";
}

/// What sits on one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// The interface.
    pub interface: String,
    /// Where SYNs that come in are judged.
    pub ingress: String,
    /// Whether what sits there still does.
    pub ingress_holds: bool,
    /// Where SYNs that leave are judged.
    pub egress: String,
    /// Whether what sits there still does.
    pub egress_holds: bool,
    /// Why it is not otherwise, where there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// What one program of the kernel side cost while the kernel measured it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramRow {
    /// Its name.
    pub name: String,
    /// How often it ran.
    pub runs: u64,
    /// How long that took altogether, in nanoseconds.
    pub nanoseconds: u64,
}

/// How often something happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Its name.
    pub name: String,
    /// `pass` or `deny`; empty for incidents.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub verdict: String,
    /// How often.
    pub count: u64,
    /// What it means.
    pub text: String,
}

/// One control connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// Both ends.
    #[serde(flatten)]
    pub ends: Ends,
    /// Seconds since it was opened.
    pub age: u64,
    /// The port of its pinhole.
    pub pinhole: Option<u16>,
    /// The only port that its active mode may reach, where it is narrowed (rule O10).
    pub active_port: Option<u16>,
    /// Whether its text is read: `clear`, `desynchronised`, why not, `unread` where nothing was.
    pub text: String,
    /// The latest thing the text said about data connections.
    pub latest: Option<String>,
}

/// One open pinhole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinholeRow {
    /// Who may reach what.
    #[serde(flatten)]
    pub way: Way,
    /// Who made it.
    pub origin: String,
    /// Seconds since it was made.
    pub age: u64,
    /// How many data connections it still admits.
    pub uses: u32,
    /// The client's port of the control connection it was made for.
    pub client_port: u16,
    /// The control port of that connection.
    pub control_port: u16,
}

/// The verdicts that occurred, denials last.
#[must_use]
pub fn verdicts(counters: &CpuCounters) -> Vec<Count> {
    let with = |wanted| {
        Reason::ALL
            .iter()
            .filter(move |reason| reason.verdict() == wanted)
            .map(|reason| Count {
                name: reason.label().to_owned(),
                verdict: verdict_label(reason.verdict()).to_owned(),
                count: counters.reason(*reason),
                text: reason.text().to_owned(),
            })
            .filter(|count| count.count > 0)
    };
    with(Verdict::Pass).chain(with(Verdict::Deny)).collect()
}

/// What happened to the guard itself.
#[must_use]
pub fn incidents(counters: &CpuCounters) -> Vec<Count> {
    Incident::ALL
        .iter()
        .map(|incident| Count {
            name: incident.label().to_owned(),
            verdict: String::new(),
            count: counters.incident(*incident),
            text: incident.text().to_owned(),
        })
        .filter(|count| count.count > 0)
        .collect()
}

pub(crate) const fn verdict_label(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Deny => "deny",
    }
}

#[cfg(test)]
mod tests;
