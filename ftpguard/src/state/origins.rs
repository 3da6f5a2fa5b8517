//! How surely each ftpd's listeners were attributed so far, by its control port.

use std::collections::BTreeMap;

use ftpguard_common::{abi::Origin, net::Port};
use serde::{Deserialize, Serialize};

/// How many pinholes of each origin were made, and how many listeners got none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginCounts {
    /// The listening process serves one session only (rule F2).
    pub exact: u64,
    /// The listening thread read this session last (rule F3).
    pub candidate: u64,
    /// The ftpd's reply named the port.
    pub text: u64,
    /// Found open when the guard started, or found out about late.
    pub adopted: u64,
    /// Listeners without a pinhole, which admit every client with a control connection (rule P4).
    pub unattributed: u64,
}

/// The counts of every ftpd.
#[derive(Clone, Debug, Default)]
pub struct Origins(BTreeMap<u16, OriginCounts>);

impl Origins {
    /// A pinhole was made; `origin` is a number of [`Origin`].
    pub fn made(&mut self, control_port: Port, origin: u32) {
        let counts = self.0.entry(control_port.number()).or_default();
        match Origin::from_number(origin) {
            Some(Origin::Exact) => counts.exact += 1,
            Some(Origin::Candidate) => counts.candidate += 1,
            Some(Origin::Text) => counts.text += 1,
            Some(Origin::Adopted) => counts.adopted += 1,
            None => {}
        }
    }

    /// A listener could not be attributed.
    pub fn unattributed(&mut self, control_port: Port) {
        self.0
            .entry(control_port.number())
            .or_default()
            .unattributed += 1;
    }

    /// The counts of the ftpd with this control port.
    #[must_use]
    pub fn of(&self, control_port: u16) -> OriginCounts {
        self.0.get(&control_port).copied().unwrap_or_default()
    }
}
