//! Clients whose addresses are hidden by a proxy or by address translation (rule I8).
//!
//! A userland proxy (Docker's, a load balancer) or a gateway that translates source addresses
//! makes all clients of an ftpd look like one, with an address of this host or of its gateway.
//! Then a pinhole protects nobody from anybody; and where data connections come another way, with
//! their real addresses, every honest one would be denied. So nothing is enforced, and it is said
//! why.

use std::{collections::HashMap, net::IpAddr};

use ftpguard_common::{
    abi::{Mode, Policy, SessionKey},
    net::Address,
};

use super::Guard;
use crate::{
    config::HiddenArg,
    events::Happening,
    kernel::{KernelError, Maps},
};

/// How many sessions from one address are enough to see that there is no other.
const ENOUGH: u32 = 5;

/// How many addresses of ftpds are remembered.
const MAX_SERVERS: usize = 1_024;

/// Where the control connections came from.
#[derive(Debug, Default)]
pub(super) struct Clients {
    /// By the address that they went to: each is taken for an ftpd of its own.
    of: HashMap<Address, Seen>,
    /// What hides them, as it was last told.
    hidden: Option<Hidden>,
}

/// Where the control connections to one address came from.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    sessions: u32,
    only: Option<Address>,
    are_several: bool,
}

/// What all clients come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hidden {
    address: IpAddr,
    by: Whose,
}

/// Whose address it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    ThisHost,
    Gateway,
}

impl Clients {
    /// A control connection was opened, or found open.
    pub(super) fn add(&mut self, session: &SessionKey) {
        if self.of.len() < MAX_SERVERS || self.of.contains_key(&session.server) {
            self.of
                .entry(session.server)
                .or_default()
                .add(session.client);
        }
    }

    /// Why nothing is enforced.
    pub(super) fn refusal(&self) -> Option<String> {
        self.hidden.map(Hidden::reason)
    }
}

impl Seen {
    fn add(&mut self, client: Address) {
        self.sessions = self.sessions.saturating_add(1);
        self.are_several |= self.only.is_some_and(|only| only != client);
        self.only = Some(client);
    }

    /// The address that all clients have.
    fn shared(self) -> Option<Address> {
        self.only
            .filter(|_| self.sessions >= ENOUGH && !self.are_several)
    }
}

impl Hidden {
    fn reason(self) -> String {
        let Self { address, by } = self;
        let whose = match by {
            Whose::ThisHost => "an address of this host",
            Whose::Gateway => "this host's gateway",
        };
        format!(
            "all clients come from {address}, {whose}: a proxy or address translation hides them; \
             hand their addresses through, or set hidden_clients = \"enforce\""
        )
    }
}

impl Guard {
    /// Enforces or not, as the clients' addresses allow.
    pub(super) fn judge_clients(&mut self) -> Result<(), KernelError> {
        self.notice_hidden();
        self.apply_mode()
    }

    /// Finds out whether clients are hidden, and tells when that changes.
    pub(super) fn notice_hidden(&mut self) {
        let hidden = match self.config.hidden_clients {
            HiddenArg::Enforce => None,
            HiddenArg::Refuse => self.find_hidden(),
        };
        if hidden != self.clients.hidden {
            self.clients.hidden = hidden;
            self.journal.tell(match hidden {
                Some(hidden) => {
                    log::warn!("not enforcing: {}", hidden.reason());
                    Happening::EnforcementRefused {
                        client: hidden.address,
                        reason: hidden.reason().into(),
                    }
                }
                None => Happening::EnforcementResumed {},
            });
        }
    }

    /// What hides the clients of an ftpd; `None` where one at an address of this host has clients
    /// that can be told apart. Sessions in other network namespaces count only where their clients
    /// are hidden by this host.
    fn find_hidden(&self) -> Option<Hidden> {
        let mut hidden = None;
        for (server, seen) in &self.clients.of {
            let found = seen.shared().and_then(|address| {
                let by = self.whose(address)?;
                let address = address.ip();
                Some(Hidden { address, by })
            });
            if found.is_none() && seen.sessions > 0 && self.is_local(*server) {
                return None;
            }
            hidden = hidden.or(found);
        }
        hidden
    }

    /// Puts the mode in force that the configuration and the clients' addresses make.
    fn apply_mode(&mut self) -> Result<(), KernelError> {
        let current = self.kernel.maps.policy.get(&0, 0)?;
        let policy = Policy {
            mode: Mode::from(self.config.mode) as u32,
            refused: self.clients.hidden.is_some().into(),
            ..current
        };
        if policy != current {
            self.kernel.maps.policy.set(0, policy, 0)?;
        }
        Ok(())
    }

    /// Whose address it is, if clients cannot have it themselves.
    fn whose(&self, address: Address) -> Option<Whose> {
        let ip = address.ip();
        if self.is_local(address) || ip.is_loopback() {
            return Some(Whose::ThisHost);
        }
        gateways().contains(&ip).then_some(Whose::Gateway)
    }

    /// Whether this host has the address.
    fn is_local(&self, address: Address) -> bool {
        Maps::find(&self.kernel.maps.addresses, &address)
            .ok()
            .flatten()
            .is_some()
    }
}

/// The next hops of the IPv4 routes of this network namespace. Those of IPv6 are link-local
/// addresses, which no client's packet carries.
fn gateways() -> Vec<IpAddr> {
    procfs::net::route()
        .unwrap_or_default()
        .into_iter()
        .map(|route| route.gateway)
        .filter(|gateway| !gateway.is_unspecified())
        .map(IpAddr::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> Address {
        IpAddr::from([10, 0, 0, last]).into()
    }

    #[test]
    fn clients_share_an_address_until_one_has_another() {
        let mut seen = Seen::default();
        assert_eq!(seen.shared(), None);
        for _ in 0..ENOUGH {
            assert_eq!(seen.shared(), None);
            seen.add(address(1));
        }
        assert_eq!(seen.shared(), Some(address(1)));
        seen.add(address(2));
        assert_eq!(seen.shared(), None);
        for _ in 0..10 * ENOUGH {
            seen.add(address(2));
        }
        assert_eq!(seen.shared(), None);
    }
}
