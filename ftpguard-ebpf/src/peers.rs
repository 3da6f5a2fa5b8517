//! Who holds control connections now.

use aya_ebpf::{bindings::BPF_NOEXIST, maps::lpm_trie::Key, programs::RawTracePointContext};
use ftpguard_common::{
    abi::{EXCEPTION_PORT_BITS, Exception, Peer, SessionKey},
    net::{Address, Port},
    verdict::Incident,
};

use crate::{
    atomic::add_u32,
    maps::{EXCEPTIONS, PEERS},
    report::note,
};

/// Counts one more control connection of a client.
#[inline(always)]
pub(crate) fn join(session: &SessionKey) {
    add(&session.peer(), 1);
    add(&Peer::of_any(session.client), 1);
}

/// Counts one control connection less.
#[inline(always)]
pub(crate) fn leave(session: &SessionKey) {
    subtract(&session.peer(), 1);
    subtract(&Peer::of_any(session.client), 1);
}

/// Changes one count for the daemon, whose arguments these are ([`Peer::step`]). A count that the
/// daemon wrote itself would undo what is counted while it writes.
#[inline(always)]
pub(crate) fn count(ctx: &RawTracePointContext) {
    let arguments: [u64; 4] = [ctx.arg(0), ctx.arg(1), ctx.arg(2), ctx.arg(3)];
    let (peer, step) = Peer::from_step(arguments);
    if step > 0 {
        add(&peer, step);
    } else {
        subtract(&peer, step.wrapping_neg());
    }
}

/// Whether this address holds a control connection to the ftpd with this control port;
/// [`Port::NONE`] asks for any.
#[inline(always)]
pub(crate) fn is_peer(client: Address, control_port: Port) -> bool {
    let key = Peer {
        client,
        control_port,
        pad: 0,
    };
    // SAFETY: the value is not read: an entry is there while its count is above 0.
    unsafe { PEERS.get(&key) }.is_some()
}

/// How many control connections this client holds, to any ftpd.
#[inline(always)]
pub(crate) fn held_by(client: Address) -> u32 {
    // SAFETY: one word is read once.
    unsafe { PEERS.get(&Peer::of_any(client)) }
        .copied()
        .unwrap_or(0)
}

/// Whether the operator listed this destination (rule O3).
#[inline(always)]
pub(crate) fn is_listed(address: Address, port: Port) -> bool {
    matches_exception(address, port) || matches_exception(address, Port::NONE)
}

#[inline(always)]
fn matches_exception(address: Address, port: Port) -> bool {
    let key = Key::new(
        EXCEPTION_PORT_BITS + 128,
        Exception {
            port,
            pad: 0,
            address,
        },
    );
    EXCEPTIONS.get(&key).is_some()
}

#[inline(always)]
fn add(peer: &Peer, step: i32) {
    if let Some(count) = PEERS.get_ptr_mut(peer) {
        // SAFETY: the entry stays valid for the time of this program, and is only added to.
        unsafe { add_u32(count, step) };
        return;
    }
    if PEERS
        .insert(peer, step.cast_unsigned(), BPF_NOEXIST.into())
        .is_ok()
    {
        return;
    }
    // Another processor was first, or there is no room: the client gets no more than its pinholes.
    match PEERS.get_ptr_mut(peer) {
        // SAFETY: as above.
        Some(count) => unsafe { add_u32(count, step) },
        None => note(Incident::PeerTableFull),
    }
}

#[inline(always)]
fn subtract(peer: &Peer, step: i32) {
    let Some(count) = PEERS.get_ptr_mut(peer) else {
        return;
    };
    // SAFETY: as in `add`.
    unsafe { add_u32(count, step.wrapping_neg()) };
    // SAFETY: as in `add`; volatile, because the compiler knows nothing of the addition.
    let left = unsafe { core::ptr::read_volatile(count) };
    if left.cast_signed() <= 0 {
        // Gone already: as good as removed. One that joins in this moment is not counted until the
        // daemon's next sweeps.
        let _ = PEERS.remove(peer);
    }
}
