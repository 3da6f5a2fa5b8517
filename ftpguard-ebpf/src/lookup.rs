//! What the lookup gate sees of a segment that looks for a listening socket
//! (`struct bpf_sk_lookup`).

use core::ptr::read_volatile;

use aya_ebpf::{bindings::bpf_sk_lookup, programs::SkLookupContext};
use ftpguard_common::net::{Address, Port};

use crate::{maps::GATES, report::Ends};

const IPPROTO_TCP: u32 = 6;
const AF_INET: u32 = 2;

/// One segment that looks for a listening socket.
pub(crate) struct Lookup<'a> {
    pub(crate) ends: Ends,
    context: &'a bpf_sk_lookup,
}

impl<'a> Lookup<'a> {
    /// `None` for what is not TCP.
    #[inline(always)]
    pub(crate) fn read(ctx: &'a SkLookupContext) -> Option<Self> {
        // SAFETY: the kernel hands a valid context to every run of this program type.
        let context = unsafe { &*ctx.lookup };
        if context.protocol != IPPROTO_TCP {
            return None;
        }
        // Volatile, so that every field is read at its own fixed offset: the compiler would
        // choose the offset by the family, which the verifier does not allow.
        // Those of the other family read as 0.
        let v4 = (word(&context.remote_ip4), word(&context.local_ip4));
        let v6 = (
            Address(context.remote_ip6.each_ref().map(word)),
            Address(context.local_ip6.each_ref().map(word)),
        );
        let (remote, local) = if context.family == AF_INET {
            (Address::from_v4_word(v4.0), Address::from_v4_word(v4.1))
        } else {
            v6
        };
        Some(Self {
            ends: Ends {
                remote,
                remote_port: Port::from_wire(context.remote_port),
                local,
                // A number in host order, unlike the other side's.
                local_port: Port::new(context.local_port as u16),
            },
            context,
        })
    }

    /// Whether no early gate has judged this segment. Where the kernel does not tell the
    /// interface (`KNOWN` is false), one has.
    #[inline(always)]
    pub(crate) fn is_first_gate<const KNOWN: bool>(&self) -> bool {
        if !KNOWN {
            return false;
        }
        let interface = self.context.ingress_ifindex;
        // SAFETY: the value is not read.
        unsafe { GATES.get(interface) }.is_none()
    }
}

#[inline(always)]
fn word(field: &u32) -> u32 {
    // SAFETY: a reference is valid to read.
    unsafe { read_volatile(field) }
}
