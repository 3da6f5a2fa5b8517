//! Interfaces and addresses that come and go while the guard runs, and gates that others take
//! away.

use std::{
    collections::BTreeMap,
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
}

impl Interfaces {
    /// Something has changed.
    pub(super) fn changed(&mut self) {
        let now = Instant::now();
        let earliest = self.followed_at.map_or(now, |at| at + AT_MOST_EVERY);
        self.follow_at = Some(self.follow_at.unwrap_or_else(|| earliest.max(now)));
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
        for (holds, hook) in [(last_gate, "sk_lookup"), (connect, "connect")] {
            if !holds {
                self.journal.tell(Happening::GateLost {
                    interface: None,
                    hook: hook.into(),
                });
            }
        }
        if !last_gate {
            self.kernel.attach_lookup()?;
        }
        if !connect {
            self.kernel.attach_connect()?;
        }
        if !lost.is_empty() || !self.interfaces.unguarded.is_empty() {
            self.follow_network()?;
        }
        Ok(())
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
