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
        for element @ (client, port) in wanted.difference(&self.elements.clone()) {
            sets.add(*client, *port, BACKSTOP + GRACE)?;
            self.elements.insert(*element);
        }
        for element @ (client, port) in self.elements.clone().difference(wanted) {
            sets.remove(*client, *port)?;
            self.elements.remove(element);
        }
        Ok(())
    }
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
