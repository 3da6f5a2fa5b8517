//! Keeps the sets of a firewall in line with the live pinholes (option `nft_set`).

use std::{collections::HashSet, io, time::Duration};

use anyhow::Result;
use ftpguard_common::net::{Address, Port};

use super::{Guard, sweep::BACKSTOP};
use crate::nft::{NftSet, Sets};

/// How much longer than a pinhole an element lives at most.
const GRACE: Duration = Duration::from_secs(30);

/// The sets, and what is in them.
pub(super) struct Firewall {
    sets: Option<Sets>,
    elements: HashSet<(Address, Port)>,
}

impl Firewall {
    pub(super) fn open(named: &NftSet) -> Result<Self> {
        Ok(Self {
            sets: Sets::open(named)?,
            elements: HashSet::new(),
        })
    }

    /// Adds what is missing and removes what should not be there.
    fn change(&mut self, wanted: &HashSet<(Address, Port)>) -> io::Result<()> {
        let Some(sets) = &self.sets else {
            return Ok(());
        };
        align(
            &mut self.elements,
            wanted,
            |(client, port)| sets.add(client, port, BACKSTOP + GRACE),
            |(client, port)| sets.remove(client, port),
        )
    }
}

/// Adds and removes until there is what is wanted. What fails holds nothing else up: the set of one
/// family may be missing. Gives the first failure.
fn align(
    elements: &mut HashSet<(Address, Port)>,
    wanted: &HashSet<(Address, Port)>,
    add: impl Fn((Address, Port)) -> io::Result<()>,
    remove: impl Fn((Address, Port)) -> io::Result<()>,
) -> io::Result<()> {
    let mut first = Ok(());
    for element in wanted.difference(&elements.clone()) {
        match add(*element) {
            Ok(()) => {
                elements.insert(*element);
            }
            // It took its whole time, as each of the others would.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return first.and(Err(error));
            }
            failed => first = first.and(failed),
        }
    }
    for element in elements.clone().difference(wanted) {
        match remove(*element) {
            Ok(()) => {
                elements.remove(element);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return first.and(Err(error));
            }
            failed => first = first.and(failed),
        }
    }
    first
}

impl Drop for Firewall {
    /// Nothing stays open behind the guard.
    fn drop(&mut self) {
        let _ = self.change(&HashSet::new());
    }
}

impl Guard {
    /// Brings the firewall's sets in line with the pinholes.
    pub(super) fn tell_firewall(&mut self) {
        if self.firewall.sets.is_none() || !self.state.has_changed() {
            return;
        }
        if let Err(error) = self.firewall.change(&self.state.ways()) {
            // Somebody may be loading the rules anew; the next look over tries again.
            log::error!("the sets of nftables cannot be changed: {error}");
        }
    }

    /// The same, from what the sets should hold: somebody may have emptied them.
    pub(super) fn fill_firewall(&mut self) {
        if self.firewall.sets.is_some() {
            self.firewall.elements.clear();
            self.state.touch();
            self.tell_firewall();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        net::{Ipv4Addr, Ipv6Addr},
    };

    use super::*;

    /// Without its set nothing of IPv6 can be added or removed; all of IPv4 is.
    #[test]
    fn a_missing_family_does_not_hold_up_the_other() {
        let v4 = |port| (Address::from(Ipv4Addr::LOCALHOST), Port::new(port));
        let v6 = |port| (Address::from(Ipv6Addr::LOCALHOST), Port::new(port));
        let failures = Cell::new(0);
        let change = |(client, _): (Address, Port)| {
            if client.ip().is_ipv4() {
                return Ok(());
            }
            failures.set(failures.get() + 1);
            Err(io::Error::other(failures.get().to_string()))
        };
        let old: HashSet<_> = (1..9).flat_map(|port| [v4(port), v6(port)]).collect();
        let wanted: HashSet<_> = (11..19).flat_map(|port| [v4(port), v6(port)]).collect();
        let mut elements = old;
        let error = align(&mut elements, &wanted, change, change).expect_err("no IPv6");
        assert_eq!(error.to_string(), "1", "the first one is told");
        assert_eq!(failures.get(), 16, "everything was tried");
        let left: HashSet<_> = (1..9).map(v6).chain((11..19).map(v4)).collect();
        assert_eq!(elements, left);
    }
}
