//! New settings for a running guard: `ftpguard reload`, SIGHUP, and `ftpguard mode`.
//!
//! Either everything the file says is put into force, or nothing is and the former settings stay.
//! Established connections are never judged, so no transfer ends.

use std::{
    collections::{BTreeSet, HashSet},
    error::Error,
    fmt,
};

use ftpguard_common::abi::MAX_EXCEPTIONS;
use serde::{Deserialize, Serialize};

use super::{Guard, settings};
use crate::{
    adopt::apply::disown,
    config::{Change, Config, HiddenArg, ModeArg, Unusable},
    events::{Ends, Happening},
    kernel::{Destination, KernelError},
    status::{FtpdMode, mode_text},
    why::evidence::Evidence,
};

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The file.
    pub file: String,
    /// The keys that changed.
    pub changed: Vec<String>,
    /// The mode in force.
    pub mode: String,
    /// The mode that file and command line name.
    pub configured: String,
}

/// What a change of the mode did, or the mode as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switched {
    /// The mode in force.
    pub mode: String,
    /// The mode that file and command line name, and a restart brings back.
    pub configured: String,
    /// The mode of each FTP server.
    #[serde(default)]
    pub ftpds: Vec<FtpdMode>,
    /// Why nothing is enforced although the mode says so (rule I8).
    #[serde(default)]
    pub not_enforced: Option<String>,
    /// What monitor mode would have refused; none where every FTP server is enforced.
    #[serde(default)]
    pub evidence: Option<Evidence>,
}

/// Why the former settings stay.
#[derive(Debug)]
pub(super) enum Kept {
    /// The file is wrong, or does not fit the command line.
    Unusable(Unusable),
    /// These keys differ, and a running guard cannot take a new value.
    NeedsRestart(Vec<String>),
    /// What is in force and what is to be have so many exceptions together, for which there is no
    /// room: new ones come before old ones go.
    Exceptions(usize),
    /// The kernel refused.
    Kernel(anyhow::Error),
    /// The settings are in force; something that follows from them failed.
    InForce(KernelError),
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable(unusable) => unusable.fmt(f)?,
            Self::NeedsRestart(keys) => write!(
                f,
                "{} cannot change while the guard runs; restart it",
                keys.join(", ")
            )?,
            Self::Exceptions(count) => write!(
                f,
                "the exceptions in force and the new ones are {count} together, and {MAX_EXCEPTIONS} \
                 have room; first reload a file without the old ones, or restart the guard"
            )?,
            Self::Kernel(error) => write!(f, "{error:#}")?,
            Self::InForce(error) => {
                return write!(
                    f,
                    "the new settings are in force, but not all that follows from them: {}; restart \
                     the guard",
                    error.reason()
                );
            }
        }
        f.write_str(" (nothing was changed)")
    }
}

impl Error for Kept {}

impl Guard {
    /// Reads file and command line again and puts what they say into force.
    pub(super) fn reload(&mut self) -> Result<Reloaded, Kept> {
        let fresh = self.args.given.resolve().map_err(Kept::Unusable)?;
        let changed: Vec<String> = self
            .configured
            .differences(&fresh)
            .into_iter()
            .map(|key| key.name.to_owned())
            .collect();
        let impossible = impossible(&self.configured, &fresh);
        if !impossible.is_empty() {
            return Err(Kept::NeedsRestart(impossible));
        }
        let mut next = fresh.clone();
        if fresh.mode == self.configured.mode {
            // Not the file's word: it was switched at run time, and stays.
            next.mode = self.config.mode;
        }
        if let Some(count) = too_many(self.config.destinations(), next.destinations()) {
            return Err(Kept::Exceptions(count));
        }
        self.put_into_force(&next)?;
        self.config = next;
        self.configured = fresh;
        self.judge_clients()
            .and_then(|()| self.mode_changed())
            .map_err(Kept::InForce)?;
        self.journal.tell(Happening::ConfigurationReloaded {
            changed: changed.join(" "),
        });
        Ok(Reloaded {
            file: self.args.given.file().display().to_string(),
            changed,
            mode: self.config.mode.label().to_owned(),
            configured: self.configured.mode.label().to_owned(),
        })
    }

    /// Switches the mode, until it is switched again, the file names another one, or the guard
    /// is restarted.
    pub(super) fn switch(&mut self, mode: ModeArg) -> Result<Switched, KernelError> {
        if mode != self.config.mode {
            self.config.mode = mode;
            // Hidden clients may keep it from enforcing (rule I8).
            self.judge_clients()?;
            self.mode_changed()?;
            self.journal.tell(Happening::ModeSwitched {
                mode: mode.label().into(),
            });
        }
        self.switched()
    }

    /// Evidence is collected while an ftpd is in monitor mode, from when none was before.
    pub(super) fn mode_changed(&mut self) -> Result<(), KernelError> {
        if !self.config.monitors() {
            self.monitored = None;
        } else if self.monitored.is_none() {
            self.begin_monitor()?;
        }
        Ok(())
    }

    /// The mode in force, and the one that a restart brings back.
    pub(super) fn switched(&self) -> Result<Switched, KernelError> {
        Ok(Switched {
            mode: self.config.mode.label().to_owned(),
            configured: self.configured.mode.label().to_owned(),
            ftpds: FtpdMode::all(&self.config),
            not_enforced: self.clients.refusal().filter(|_| self.config.enforces()),
            evidence: self.evidence()?,
        })
    }

    /// Puts `next` into force, or what was before.
    fn put_into_force(&mut self, next: &Config) -> Result<(), Kept> {
        let before = settings(&self.config, &self.host, self.args.pins(&self.config));
        let mut after = settings(next, &self.host, self.args.pins(next));
        if self.clients.refusal().is_some() && next.hidden_clients == HiddenArg::Refuse {
            after.policy.refused = 1;
        }
        let result = self
            .adopt_for(next)
            .and_then(|()| Ok(self.kernel.change(&before, &after)?))
            // What began to listen meanwhile.
            .and_then(|()| self.adopt_for(next));
        let Err(error) = result else {
            return Ok(());
        };
        if let Err(second) = self.kernel.change(&after, &before) {
            log::error!("the former settings cannot be put back: {second}; restart the guard");
        }
        // Hidden clients may keep the former settings from enforcing (rule I8).
        if let Err(second) = self.disown(next).and_then(|()| self.judge_clients()) {
            log::error!("what was adopted cannot be taken back: {second}; restart the guard");
        }
        Err(Kept::Kernel(error))
    }

    /// Learns what is open on ports that are new: other software's listeners in a new range
    /// would be closed, and sessions on a new control port not known.
    fn adopt_for(&mut self, next: &Config) -> anyhow::Result<()> {
        if next.ftpd == self.config.ftpd {
            return Ok(());
        }
        self.adopt(next, Some(self.new_control_ports(next)))
    }

    /// The control ports that are new in these settings.
    fn new_control_ports(&self, next: &Config) -> Vec<u16> {
        let known = self.config.control_ports();
        let mut new = next.control_ports();
        new.retain(|port| !known.contains(port));
        new
    }

    /// Takes back what was learnt for settings that did not come into force.
    fn disown(&mut self, next: &Config) -> Result<(), KernelError> {
        let new = self.new_control_ports(next);
        for (id, key) in disown(&mut self.kernel, &new)? {
            self.state.session_closed(id);
            self.forget_text(&key);
            self.journal
                .tell(Happening::SessionClosed(Ends::from(&key)));
        }
        self.state.reload(&self.kernel);
        Ok(())
    }
}

/// How many exceptions there are for a moment, where that is more than have room.
fn too_many(
    before: impl Iterator<Item = Destination>,
    after: impl Iterator<Item = Destination>,
) -> Option<usize> {
    let both: HashSet<Destination> = before.chain(after).collect();
    (both.len() > MAX_EXCEPTIONS as usize).then_some(both.len())
}

/// What differs and needs a restart.
fn impossible(before: &Config, after: &Config) -> Vec<String> {
    let mut keys: Vec<String> = before
        .differences(after)
        .into_iter()
        .filter(|key| key.change == Change::Restart)
        .map(|key| key.name.to_owned())
        .collect();
    // The kernel side sees a session end by its control port.
    let kept: BTreeSet<u16> = after.control_ports().into_iter().collect();
    keys.extend(
        before
            .control_ports()
            .into_iter()
            .filter(|port| !kept.contains(port))
            .map(|port| format!("control port {port}, which is dropped,")),
    );
    keys
}

impl Reloaded {
    /// For people, ending in a newline.
    #[must_use]
    pub fn render(&self) -> String {
        let changed = if self.changed.is_empty() {
            "nothing has changed".to_owned()
        } else {
            format!("in force now: {}", self.changed.join(", "))
        };
        let mut text = format!("{}: {changed}\n", self.file);
        text.push_str(&note(&self.mode, &self.configured));
        text
    }
}

impl Switched {
    /// For people, ending in a newline.
    #[must_use]
    pub fn render(&self, now: u64) -> String {
        let evidence = self
            .evidence
            .as_ref()
            .map(|evidence| evidence.render(now))
            .unwrap_or_default();
        let mode = mode_text(&self.mode, &self.ftpds);
        let note = note(&self.mode, &self.configured);
        let not_enforced = self
            .not_enforced
            .as_ref()
            .map(|reason| format!("not enforced: {reason}\n"))
            .unwrap_or_default();
        format!("mode {mode}\n{not_enforced}{note}{evidence}")
    }
}

fn note(mode: &str, configured: &str) -> String {
    if mode == configured {
        return String::new();
    }
    format!(
        "the mode is {mode} until the guard is restarted; the configuration says {configured}, \
         change it there to keep it\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Ftpd;

    fn ports(control_ports: &[u16]) -> Config {
        Config {
            ftpd: vec![Ftpd {
                control_ports: control_ports.to_vec(),
                ..Ftpd::default()
            }],
            ..Config::default()
        }
    }

    #[test]
    fn some_keys_need_a_restart() {
        let before = Config::default();
        let after = Config {
            mode: ModeArg::Monitor,
            bounce_shield: true,
            ..Config::default()
        };
        assert!(impossible(&before, &after).is_empty());
        let after = Config {
            interfaces: vec!["eth0".to_owned()],
            cgroup: "/sys/fs/cgroup/x".into(),
            ..after
        };
        let kept = Kept::NeedsRestart(impossible(&before, &after));
        assert_eq!(
            kept.to_string(),
            "interfaces, cgroup cannot change while the guard runs; restart it (nothing was changed)"
        );
    }

    /// Each of two files may be right, and both together have no room.
    #[test]
    fn exceptions_of_both_settings_need_room() {
        let destinations = |first: u32, count: u32| {
            (first..first + count).map(|number| Destination {
                address: std::net::IpAddr::from(std::net::Ipv4Addr::from_bits(number)).into(),
                prefix: 128,
                port: None,
            })
        };
        let full = || destinations(0, MAX_EXCEPTIONS);
        assert_eq!(too_many(full(), full()), None);
        assert_eq!(
            too_many(full(), destinations(1, MAX_EXCEPTIONS)),
            Some(1025)
        );
        let kept = Kept::Exceptions(1025).to_string();
        assert!(kept.ends_with("(nothing was changed)"), "{kept}");
        let changed = Kept::InForce(KernelError::Missing("X".to_owned())).to_string();
        assert!(!changed.contains("nothing was changed"), "{changed}");
    }

    #[test]
    fn a_control_port_can_be_added_but_not_dropped() {
        assert!(impossible(&ports(&[21]), &ports(&[21, 990])).is_empty());
        let kept = Kept::NeedsRestart(impossible(&ports(&[21, 990]), &ports(&[21])));
        assert_eq!(
            kept.to_string(),
            "control port 990, which is dropped, cannot change while the guard runs; restart it (nothing was changed)"
        );
    }

    #[test]
    fn a_mode_that_is_not_enforced_says_why() {
        let mut switched = Switched {
            mode: "enforce".to_owned(),
            configured: "enforce".to_owned(),
            ftpds: Vec::new(),
            not_enforced: None,
            evidence: None,
        };
        assert_eq!(switched.render(0), "mode enforce\n");
        switched.not_enforced = Some("all clients come from 10.0.0.1".to_owned());
        assert_eq!(
            switched.render(0),
            "mode enforce\nnot enforced: all clients come from 10.0.0.1\n"
        );
    }

    #[test]
    fn answers_for_people() {
        let mut reloaded = Reloaded {
            file: "/etc/ftpguard/ftpguard.toml".to_owned(),
            ..Reloaded::default()
        };
        assert_eq!(
            reloaded.render(),
            "/etc/ftpguard/ftpguard.toml: nothing has changed\n"
        );
        reloaded.changed = vec!["ftpd".to_owned(), "bounce_shield".to_owned()];
        reloaded.mode = "enforce".to_owned();
        reloaded.configured = "monitor".to_owned();
        assert_eq!(
            reloaded.render(),
            "\
/etc/ftpguard/ftpguard.toml: in force now: ftpd, bounce_shield
the mode is enforce until the guard is restarted; the configuration says monitor, change it there to keep it
"
        );
    }
}
