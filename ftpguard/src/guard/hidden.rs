//! Clients whose addresses are hidden by a proxy or by address translation (rule I8).
//!
//! A userland proxy (Docker's, a load balancer) or a gateway that translates source addresses
//! makes all clients of an ftpd look like one, with an address of this host or of its gateway.
//! Then a pinhole protects nobody from anybody; and where data connections come another way, with
//! their real addresses, every honest one would be denied. So nothing is enforced, and it is said
//! why.

use std::net::IpAddr;

use ftpguard_common::{
    abi::{Mode, Policy},
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

/// Where the control connections came from.
#[derive(Debug, Default)]
pub(super) struct Clients {
    sessions: u32,
    only: Option<Address>,
    are_several: bool,
    /// What hides them, as it was last told.
    hidden: Option<Hidden>,
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
    pub(super) fn add(&mut self, client: Address) {
        self.sessions = self.sessions.saturating_add(1);
        self.are_several |= self.only.is_some_and(|only| only != client);
        self.only = Some(client);
    }

    /// The address that all clients have.
    fn shared(&self) -> Option<Address> {
        self.only
            .filter(|_| self.sessions >= ENOUGH && !self.are_several)
    }

    /// Why nothing is enforced.
    pub(super) fn refusal(&self) -> Option<String> {
        self.hidden.map(Hidden::reason)
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
        let hidden = match self.config.hidden_clients {
            HiddenArg::Enforce => None,
            HiddenArg::Refuse => self.clients.shared().and_then(|address| {
                let by = self.whose(address)?;
                let address = address.ip();
                Some(Hidden { address, by })
            }),
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
        self.apply_mode()
    }

    /// Puts the mode in force that the configuration and the clients' addresses make.
    fn apply_mode(&mut self) -> Result<(), KernelError> {
        let current = self.kernel.maps.policy.get(&0, 0)?;
        let mode = match self.clients.hidden {
            Some(_) => Mode::Monitor,
            None => Mode::from(self.config.mode),
        };
        if current.mode != mode as u32 {
            let policy = Policy {
                mode: mode as u32,
                ..current
            };
            self.kernel.maps.policy.set(0, policy, 0)?;
        }
        Ok(())
    }

    /// Whose address it is, if clients cannot have it themselves.
    fn whose(&self, address: Address) -> Option<Whose> {
        let ip = address.ip();
        let is_local = Maps::find(&self.kernel.maps.addresses, &address)
            .ok()
            .flatten()
            .is_some();
        if is_local || ip.is_loopback() {
            return Some(Whose::ThisHost);
        }
        gateways().contains(&ip).then_some(Whose::Gateway)
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
        let mut clients = Clients::default();
        assert_eq!(clients.shared(), None);
        for _ in 0..ENOUGH {
            assert_eq!(clients.shared(), None);
            clients.add(address(1));
        }
        assert_eq!(clients.shared(), Some(address(1)));
        clients.add(address(2));
        assert_eq!(clients.shared(), None);
        for _ in 0..10 * ENOUGH {
            clients.add(address(2));
        }
        assert_eq!(clients.shared(), None);
    }
}
