//! This host's addresses, for the kernel side.

use std::collections::HashSet;

use ftpguard_common::net::Address;

use super::{KernelError, Maps};

impl Maps {
    /// Tells the kernel side the addresses of this network namespace; former ones are
    /// forgotten.
    pub fn refresh_addresses(&mut self) -> Result<(), KernelError> {
        let current = local_addresses();
        let known: HashSet<Address> = Self::entries(&self.addresses)
            .into_iter()
            .map(|(address, _)| address)
            .collect();
        for address in known.difference(&current) {
            self.forget_address(*address)?;
        }
        // A slot may have become free, or be another guard's who knew none.
        for address in current {
            self.add_address(address)?;
        }
        Ok(())
    }

    /// Tells the kernel side one address of this host.
    pub fn add_address(&mut self, address: Address) -> Result<(), KernelError> {
        self.addresses.insert(address, 1, 0)?;
        // One that is there already stays: both are found, one of them faster.
        if self.address_at.get(&address.slot(), 0)? == Address::WILDCARD {
            self.address_at.set(address.slot(), address, 0)?;
        }
        Ok(())
    }

    fn forget_address(&mut self, address: Address) -> Result<(), KernelError> {
        Self::forget(&mut self.addresses, &address)?;
        let slot = address.slot();
        if self.address_at.get(&slot, 0)? == address {
            self.address_at.set(slot, Address::WILDCARD, 0)?;
        }
        Ok(())
    }
}

/// The addresses of every interface in the caller's network namespace.
fn local_addresses() -> HashSet<Address> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else {
        return HashSet::new();
    };
    interfaces
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| address.ip().into());
            let v6 = address.as_sockaddr_in6().map(|address| address.ip().into());
            v4.or(v6)
        })
        .collect()
}
