//! Data connections from another address than the session's client's, where the configuration
//! names both (rule I7): several exits of one NAT, partners of server-to-server transfers.

use aya_ebpf::maps::lpm_trie::Key;
use ftpguard_common::{
    abi::{Listener, Relaxed},
    net::{Address, Port},
};

use crate::{
    maps::{PINHOLES, RELAXED},
    report::policy,
};

/// Whether a relaxation lets `remote` use the pinhole that was made for this listener.
#[inline(always)]
pub(crate) fn admits(listener: &Listener, remote: Address) -> bool {
    let key = listener.pinhole;
    if !is_any() || key.port == Port::NONE {
        return false;
    }
    let source = relaxed(remote).source;
    if source == 0 || source & relaxed(key.client).client == 0 {
        return false;
    }
    // SAFETY: the value is not read.
    unsafe { PINHOLES.get(&key) }.is_some()
}

/// Whether there is any relaxation.
#[inline(always)]
pub(crate) fn is_any() -> bool {
    policy().is_some_and(|policy| policy.relaxed != 0)
}

#[inline(always)]
fn relaxed(address: Address) -> Relaxed {
    RELAXED
        .get(&Key::new(128, address))
        .copied()
        .unwrap_or_default()
}
