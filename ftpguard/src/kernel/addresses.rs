//! This host's addresses, for the kernel side.

use std::{collections::HashSet, io};

use ftpguard_common::net::Address;

use super::{KernelError, Maps};

impl Maps {
    /// Tells the kernel side the addresses of this network namespace; former ones are
    /// forgotten. Where they cannot be listed, it keeps those that it knows. Where there are more
    /// than it can know, it knows those of the interfaces that were there first: at the others,
    /// unused ports of the range look closed instead of filtered.
    pub fn refresh_addresses(&mut self) -> Result<(), KernelError> {
        let current = match local_addresses() {
            Ok(current) => current,
            Err(error) => {
                log::error!("the addresses of this host cannot be listed: {error}");
                return Ok(());
            }
        };
        let wanted: HashSet<Address> = current.iter().copied().collect();
        for (address, _) in Self::entries(&self.addresses) {
            if !wanted.contains(&address) {
                self.forget_address(address)?;
            }
        }
        // A slot may have become free, or be another guard's who knew none.
        let mut lacking = 0_usize;
        for address in current {
            lacking += usize::from(!self.add_address(address)?);
        }
        if lacking > 0 && !self.lacks_addresses {
            log::warn!(
                "this host has {} addresses, {lacking} more than the guard can know: at these, \
                 unused ports of the passive ranges look closed instead of filtered",
                wanted.len()
            );
        }
        self.lacks_addresses = lacking > 0;
        Ok(())
    }

    /// Tells the kernel side one address of this host. False where there is no room for it.
    pub fn add_address(&mut self, address: Address) -> Result<bool, KernelError> {
        if !Self::put(&mut self.addresses, &address, &1)? {
            return Ok(false);
        }
        // One that is there already stays: both are found, one of them faster.
        if self.address_at.get(&address.slot(), 0)? == Address::WILDCARD {
            self.address_at.set(address.slot(), address, 0)?;
        }
        Ok(true)
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

/// The addresses of every interface in the caller's network namespace, in the order of the
/// interfaces.
fn local_addresses() -> io::Result<Vec<Address>> {
    let addresses = nix::ifaddrs::getifaddrs()?.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| address.ip().into());
        let v6 = address.as_sockaddr_in6().map(|address| address.ip().into());
        v4.or(v6)
    });
    Ok(addresses.collect())
}
