//! Interfaces and addresses that come and go while the guard runs, and gates that others take
//! away.

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    time::{Duration, Instant},
};

use super::Guard;
use crate::{
    events::Happening,
    kernel::{Attached, Gates, Held, KernelError},
    network::{Interface, interfaces},
    status::Hooks,
};

/// How often changes are followed at most: a container host makes dozens at once.
const AT_MOST_EVERY: Duration = Duration::from_millis(50);

/// Gates of no interface, as events and the log name them.
pub(super) const LAST_GATE: &str = "sk_lookup";
pub(super) const CONNECT: &str = "connect";

/// How long after a failure interfaces are listed again.
const LIST_AGAIN: Duration = Duration::from_secs(1);

/// What is known of interfaces beside those that are guarded.
#[derive(Default)]
pub(super) struct Interfaces {
    /// When the latest change is followed; `None` where there is none.
    pub(super) follow_at: Option<Instant>,
    followed_at: Option<Instant>,
    /// Those that could not be guarded, and why.
    unguarded: BTreeMap<Interface, String>,
    /// Gates of no interface that could not be attached again, and why.
    unmended: BTreeMap<&'static str, String>,
    /// What runs in the watched cgroup, which is a new one, is still to be adopted.
    adopts_anew: bool,
}

impl Interfaces {
    /// Something has changed.
    pub(super) fn changed(&mut self) {
        let now = Instant::now();
        let earliest = self.followed_at.map_or(now, |at| at + AT_MOST_EVERY);
        self.follow_at = Some(self.follow_at.unwrap_or_else(|| earliest.max(now)));
    }

    /// Why this gate could not be attached again.
    pub(super) fn why_unmended(&self, hook: &str) -> Option<String> {
        self.unmended.get(hook).cloned()
    }

    /// A gate was attached again, or not. Each reason is told once, however often it is tried.
    fn tried(&mut self, hook: &'static str, attached: Result<(), String>) {
        let Err(reason) = attached else {
            if self.unmended.remove(hook).is_some() {
                log::info!("{hook} is attached again");
            }
            return;
        };
        let known = self.unmended.insert(hook, reason.clone());
        if known.as_ref() != Some(&reason) {
            log::warn!("{hook} cannot be attached again: {reason}; it is tried every ten seconds");
        }
    }
}

impl Guard {
    /// Brings hooks and addresses in line with the interfaces that there are now.
    pub(super) fn follow_network(&mut self) -> Result<(), KernelError> {
        self.interfaces.follow_at = None;
        self.interfaces.followed_at = Some(Instant::now());
        self.kernel.maps.refresh_addresses()?;
        let present = match interfaces() {
            Ok(present) => present,
            // What is not listed is not gone.
            Err(error) => {
                log::error!("the interfaces of this host cannot be listed: {error}");
                self.interfaces.follow_at = Some(Instant::now() + LIST_AGAIN);
                return Ok(());
            }
        };
        self.let_go(&present)?;
        for interface in &present {
            let known = self
                .attached
                .iter_mut()
                .find(|attached| attached.index == interface.index);
            if let Some(attached) = known {
                // It may have been renamed.
                attached.interface.clone_from(&interface.name);
            } else if self.is_wanted(&interface.name) {
                self.guard_interface(interface);
            }
        }
        Ok(())
    }

    /// Attaches again what others detached, and tries again what could not be attached.
    pub(super) fn mend_gates(&mut self) -> Result<(), KernelError> {
        let held = match self.kernel.held() {
            Ok(held) => held,
            Err(error) => {
                log::error!(
                    "what the guard's links hold cannot be read: {}",
                    error.reason()
                );
                return Ok(());
            }
        };
        let (last_gate, connect) = (held.last_gate(), held.connect());
        let lost: Vec<(Attached, Gates)> = self
            .attached
            .iter()
            .map(|attached| (attached.clone(), held.gates(attached)))
            .filter(|(_, gates)| !gates.all())
            .collect();
        for (attached, gates) in &lost {
            let hook = match gates {
                Gates { ingress: false, .. } => attached.ingress.label(),
                Gates { .. } => attached.egress.label(),
            };
            self.journal.tell(Happening::GateLost {
                interface: Some(attached.interface.clone()),
                hook: hook.into(),
            });
            self.kernel.detach_interface(attached.index)?;
            self.attached.retain(|other| other.index != attached.index);
        }
        if !last_gate {
            self.tell_lost(LAST_GATE);
            let attached = self.kernel.attach_lookup();
            let attached = attached.map_err(|error| error.reason());
            self.interfaces.tried(LAST_GATE, attached);
        }
        if !connect || self.interfaces.adopts_anew {
            self.mend_connect();
        }
        if !lost.is_empty() || !self.interfaces.unguarded.is_empty() {
            self.follow_network()?;
        }
        Ok(())
    }

    /// Follows the watched cgroup: a service manager removes that of a service that stops, and
    /// makes another one when it starts again.
    pub(super) fn follow_cgroup(&mut self) {
        // One that is not there is told where its hooks are missed.
        if self.kernel.is_cgroup_new().unwrap_or(false) {
            self.mend_connect();
        }
    }

    /// Attaches the connect() hooks again, to the cgroup that is there now.
    fn mend_connect(&mut self) {
        self.tell_lost(CONNECT);
        let attached = self.attach_connect_again();
        self.interfaces.tried(CONNECT, attached);
    }

    fn attach_connect_again(&mut self) -> Result<(), String> {
        match self.kernel.follow_cgroup() {
            Ok(false) => {}
            Ok(true) => {
                log::warn!(
                    "cgroup {} was removed and made again; what runs in it is guarded from now on",
                    self.host.cgroup.display()
                );
                self.interfaces.adopts_anew = true;
            }
            Err(KernelError::Cgroup { path, source }) if source.kind() == ErrorKind::NotFound => {
                return Err(format!("cgroup {} is gone", path.display()));
            }
            Err(error) => return Err(error.reason()),
        }
        let mut adopted = Ok(());
        if self.interfaces.adopts_anew {
            let config = self.config.clone();
            adopted = self.adopt(&config, Some(config.control_ports()));
            self.interfaces.adopts_anew = adopted.is_err();
        }
        // In any case: of what is not known it refuses nothing.
        self.kernel
            .attach_connect()
            .map_err(|error| error.reason())?;
        adopted.map_err(|error| format!("{error:#}"))
    }

    /// Tells that a gate of no interface was found detached, once until it is attached again.
    fn tell_lost(&mut self, hook: &'static str) {
        if self.interfaces.why_unmended(hook).is_none() {
            self.journal.tell(Happening::GateLost {
                interface: None,
                hook: hook.into(),
            });
        }
    }

    /// What sits on each interface, and whether it holds, as the kernel says now.
    pub(super) fn hooks(&self, held: &Held<'_>) -> Vec<Hooks> {
        let guarded = self.attached.iter().map(|attached| {
            let gates = held.gates(attached);
            Hooks {
                interface: attached.interface.clone(),
                ingress: attached.ingress.label().to_owned(),
                ingress_holds: gates.ingress && gates.watcher,
                egress: attached.egress.label().to_owned(),
                egress_holds: gates.egress,
                note: attached.fallback.clone(),
            }
        });
        let unguarded = self
            .interfaces
            .unguarded
            .iter()
            .map(|(interface, reason)| Hooks {
                interface: interface.name.clone(),
                ingress: Hooks::NONE.to_owned(),
                ingress_holds: false,
                egress: Hooks::NONE.to_owned(),
                egress_holds: false,
                note: Some(reason.clone()),
            });
        guarded.chain(unguarded).collect()
    }

    /// Whether the operator wants an interface of this name guarded.
    fn is_wanted(&self, name: &str) -> bool {
        if self.config.interfaces.is_empty() {
            name != "lo"
        } else {
            self.config.interfaces.iter().any(|wanted| wanted == name)
        }
    }

    /// Forgets the interfaces that are gone.
    fn let_go(&mut self, present: &[Interface]) -> Result<(), KernelError> {
        let is_present = |index| present.iter().any(|interface| interface.index == index);
        let gone: Vec<Attached> = self
            .attached
            .extract_if(.., |attached| !is_present(attached.index))
            .collect();
        for attached in gone {
            self.kernel.detach_interface(attached.index)?;
            self.journal.tell(Happening::InterfaceGone {
                interface: attached.interface,
            });
        }
        self.interfaces
            .unguarded
            .retain(|interface, _| present.contains(interface));
        Ok(())
    }

    /// Guards one more interface. One that cannot be guarded is no reason to leave the others:
    /// the last gate judges what comes by it.
    fn guard_interface(&mut self, interface: &Interface) {
        let choice = self.config.xdp_mode.into();
        match self.kernel.attach_interface(&interface.name, choice) {
            Ok(attached) => {
                self.interfaces.unguarded.remove(interface);
                self.journal.tell(Happening::InterfaceGuarded {
                    interface: attached.interface.clone(),
                    ingress: attached.ingress.label().into(),
                    egress: attached.egress.label().into(),
                });
                self.attached.push(attached);
            }
            // Gone again, or gone and back under another number: that will be told too.
            Err(KernelError::NoInterface(_)) => {}
            Err(error) => {
                let reason = error.reason();
                let known = self
                    .interfaces
                    .unguarded
                    .insert(interface.clone(), reason.clone());
                if known.as_ref() != Some(&reason) {
                    self.journal.tell(Happening::InterfaceUnguarded {
                        interface: interface.name.clone(),
                        reason: error.to_string().into(),
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_gate_is_missing_is_known_until_it_is_there() {
        let mut interfaces = Interfaces::default();
        interfaces.tried(CONNECT, Err("gone".to_owned()));
        assert_eq!(interfaces.why_unmended(CONNECT).as_deref(), Some("gone"));
        assert_eq!(interfaces.why_unmended(LAST_GATE), None);
        interfaces.tried(CONNECT, Ok(()));
        assert_eq!(interfaces.why_unmended(CONNECT), None);
    }
}
