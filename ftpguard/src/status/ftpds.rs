//! What is said of each ftpd: which processes it is, and how surely its listeners are attributed.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::state::OriginCounts;

/// How many process ids are listed.
const PIDS: usize = 4;

/// One ftpd: who serves one control port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FtpdRow {
    /// The control port.
    pub control_port: u16,
    /// What its process is called.
    pub name: String,
    /// The processes that accept its sessions. Where a service manager does, those that serve them
    /// now.
    pub pids: Vec<u32>,
    /// The level reached (rule P4): `exact`, `candidate`, `text`, `control-peer`, or `none` while
    /// there was nothing to attribute. The least certain one that occurred.
    pub level: String,
    /// Why it is that level.
    pub why: String,
    /// How many pinholes of each origin were made since the guard started.
    pub origins: OriginCounts,
}

/// How surely an ftpd's listeners are attributed, from the most to the least certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// There was nothing to attribute.
    None,
    /// The listening process serves one session (rule F2).
    Exact,
    /// The listening thread read the session last (rule F3).
    Candidate,
    /// The reply says for whom the port is.
    Text,
    /// Whoever holds a control connection (rule P4).
    ControlPeer,
}

impl Level {
    /// The least certain level that occurred.
    #[must_use]
    pub const fn reached(origins: &OriginCounts) -> Self {
        if origins.unattributed > 0 {
            Self::ControlPeer
        } else if origins.text > 0 {
            Self::Text
        } else if origins.candidate > 0 {
            Self::Candidate
        } else if origins.exact > 0 || origins.adopted > 0 {
            Self::Exact
        } else {
            Self::None
        }
    }

    /// The name in status.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Exact => "exact",
            Self::Candidate => "candidate",
            Self::Text => "text",
            Self::ControlPeer => "control-peer",
        }
    }

    /// Why. `threads`: its threads do not tell for whom they listen; `reused`: sockets are the
    /// authority, and text spoke for listeners that are announced again; `unseen`: it had clients
    /// over Multipath TCP.
    #[must_use]
    pub const fn why(self, threads: bool, reused: bool, unseen: bool) -> &'static str {
        match self {
            Self::None => "no transfer needed a listener yet",
            Self::Exact => "the process that listens serves one session",
            Self::Candidate => {
                "one process serves several sessions; who it read last is the client"
            }
            Self::Text if reused => "a listener is announced again; the reply says to whom",
            Self::Text => "the reply says for whom the port is",
            Self::ControlPeer if unseen => {
                "it has clients over Multipath TCP, which it is not seen to serve"
            }
            Self::ControlPeer if threads => "its threads do not tell whom they serve",
            Self::ControlPeer => "it listened without serving a session",
        }
    }
}

impl FtpdRow {
    /// Two lines for people: who it is and what was reached; how often.
    #[must_use]
    pub fn render(&self) -> [String; 2] {
        let who = if self.pids.is_empty() {
            "no process".to_owned()
        } else {
            let mut pids: Vec<String> = self.pids.iter().take(PIDS).map(u32::to_string).collect();
            if self.pids.len() > PIDS {
                pids.push(format!("{} more", self.pids.len() - PIDS));
            }
            format!("{}, pid {}", self.name, pids.join(", "))
        };
        let first = format!("{}: {who}: {}, {}", self.control_port, self.level, self.why);
        let mut second = String::from("pinholes made:");
        let OriginCounts {
            exact,
            candidate,
            text,
            adopted,
            unattributed,
        } = self.origins;
        let mut separator = "";
        for (name, count) in [
            ("exact", exact),
            ("candidate", candidate),
            ("text", text),
            ("adopted", adopted),
        ] {
            if count > 0 {
                let _ = write!(second, "{separator} {count} {name}");
                separator = ",";
            }
        }
        if separator.is_empty() {
            second.push_str(" none");
        }
        if unattributed > 0 {
            let _ = write!(second, "; {unattributed} listeners without");
        }
        [first, second]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p4_the_least_certain_level_counts() {
        let mut origins = OriginCounts::default();
        let reached = |origins: &OriginCounts| Level::reached(origins).label();
        assert_eq!(reached(&origins), "none");
        origins.adopted = 1;
        assert_eq!(reached(&origins), "exact");
        origins.exact = 9;
        assert_eq!(reached(&origins), "exact");
        origins.candidate = 1;
        assert_eq!(reached(&origins), "candidate");
        origins.text = 1;
        assert_eq!(reached(&origins), "text");
        origins.unattributed = 1;
        assert_eq!(reached(&origins), "control-peer");
    }

    #[test]
    fn an_ftpd_is_two_lines() {
        let mut row = FtpdRow {
            control_port: 21,
            name: "python3".to_owned(),
            pids: vec![7, 8],
            level: Level::Candidate.label().to_owned(),
            why: "so".to_owned(),
            origins: OriginCounts {
                exact: 2,
                candidate: 5,
                unattributed: 1,
                ..OriginCounts::default()
            },
        };
        assert_eq!(
            row.render(),
            [
                "21: python3, pid 7, 8: candidate, so",
                "pinholes made: 2 exact, 5 candidate; 1 listeners without"
            ]
        );
        row.pids = (1..=6).collect();
        row.origins = OriginCounts::default();
        assert_eq!(
            row.render(),
            [
                "21: python3, pid 1, 2, 3, 4, 2 more: candidate, so",
                "pinholes made: none"
            ]
        );
    }
}
