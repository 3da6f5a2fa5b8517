//! Giving up what the daemon does not need any more once everything is attached.

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl::set_no_new_privs;

/// What it goes on needing: interfaces that appear are guarded, tables are read (on older kernels
/// that needs a capability too), and processes are looked up in /proc. Not `CAP_CHOWN`, which only the
/// control socket's group needs at the start. See docs/capabilities.md.
const KEPT: [Capability; 5] = [
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_READ_SEARCH,
];

/// Drops every capability of this thread, which is not the main one: for good.
pub fn drop_all() -> Result<()> {
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).context("dropping capabilities")?;
    }
    set_no_new_privs().context("giving up further privileges")
}

/// Drops every other capability of the main thread for good, and the way to get any back. Threads
/// that were started before keep theirs.
pub fn drop_the_rest() -> Result<()> {
    let kept: CapsHashSet = KEPT.into_iter().collect();
    // First what other programs could be started with, which needs CAP_SETPCAP.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).unwrap_or(false) {
        for capability in caps::read(None, CapSet::Bounding).context("reading capabilities")? {
            if !kept.contains(&capability) {
                caps::drop(None, CapSet::Bounding, capability).context("dropping capabilities")?;
            }
        }
    }
    caps::clear(None, CapSet::Ambient).context("dropping capabilities")?;
    caps::clear(None, CapSet::Inheritable).context("dropping capabilities")?;
    for set in [CapSet::Effective, CapSet::Permitted] {
        let held = caps::read(None, set).context("reading capabilities")?;
        let rest: CapsHashSet = held.intersection(&kept).copied().collect();
        caps::set(None, set, &rest).context("dropping capabilities")?;
    }
    set_no_new_privs().context("giving up further privileges")
}
