//! Makes the next SYN of a flood out of the last one: another source, other ports.
//!
//! Run with live frames (`BPF_F_TEST_XDP_LIVE_FRAMES`, Linux 5.18), which keep what the program
//! wrote into a frame. So every field that changes is written each time, and the checksums are
//! made anew from sums over what does not change (RFC 1071).

use aya_ebpf::{
    helpers::{bpf_get_prandom_u32, bpf_ktime_get_ns, bpf_redirect},
    macros::map,
    maps::Array,
    programs::XdpContext,
};
use ftpguard_common::yardstick::Flood;

/// Whether the frames are IPv6's.
pub(crate) const V4: bool = false;
/// See [`V4`].
pub(crate) const V6: bool = true;

/// What to send, at index 0. Written by the benchmark; the time of the next SYN here.
#[map]
static FLOOD: Array<Flood> = Array::with_max_entries(1, 0);

const IP: usize = 14;
/// The most looks at the clock between two SYNs, about 20 us.
const MAX_WAITS: u32 = 512;

/// Writes the next SYN. `None` where the frame is too short for one.
#[inline(always)]
pub(crate) fn next<const FAMILY: bool>(ctx: &XdpContext) -> Option<u32> {
    let flood = FLOOD.get_ptr_mut(0)?;
    wait(flood);
    // SAFETY: written before the first run and not during one, but for `next`.
    let flood = unsafe { &*flood };
    // SAFETY: the helper takes nothing and cannot fail.
    let random = unsafe { bpf_get_prandom_u32() };
    // SAFETY: as above.
    let other = unsafe { bpf_get_prandom_u32() };
    let source = [random as u16, (random >> 16) as u16 & flood.source_mask];
    let source = [source[0], source[1] | flood.source_base];
    let source_port = (other as u16) | 0x0004;
    let port = flood
        .first_port
        .wrapping_add((other >> 16) as u16 & flood.port_mask)
        .to_be();

    let (source_at, tcp) = if FAMILY == V6 {
        (IP + 8 + 12, IP + 40)
    } else {
        (IP + 12, IP + 20)
    };
    // The network's half of an IPv4 address comes first on the wire.
    let halves = [source[1], source[0]];
    put(ctx, source_at, halves[0])?;
    put(ctx, source_at + 2, halves[1])?;
    put(ctx, tcp, source_port)?;
    put(ctx, tcp + 2, port)?;
    let addresses = u32::from(halves[0]) + u32::from(halves[1]);
    if FAMILY == V4 {
        put(ctx, IP + 10, fold(flood.ip_sum + addresses))?;
    }
    let ports = u32::from(source_port) + u32::from(port);
    put(ctx, tcp + 16, fold(flood.tcp_sum + addresses + ports))?;
    // SAFETY: the helper takes numbers and cannot fail.
    Some(unsafe { bpf_redirect(flood.interface, 0) }.cast_unsigned() as u32)
}

/// Waits until it is time for the next SYN.
#[inline(always)]
fn wait(flood: *mut Flood) {
    // SAFETY: the pointer is to the map's one element; nothing else writes during a run.
    let flood = unsafe { &mut *flood };
    if flood.interval == 0 {
        return;
    }
    let mut now = 0;
    for _ in 0..MAX_WAITS {
        // SAFETY: the helper takes nothing and cannot fail.
        now = unsafe { bpf_ktime_get_ns() };
        if now >= flood.next {
            break;
        }
    }
    // What was late by much is not made up for.
    let due = if now > flood.next + flood.slack {
        now
    } else {
        flood.next
    };
    flood.next = due + flood.interval;
}

/// The one's complement of a one's complement sum, as a checksum field holds it.
#[inline(always)]
fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

#[inline(always)]
fn put(ctx: &XdpContext, offset: usize, value: u16) -> Option<()> {
    let at = ctx.data() + offset;
    if at + 2 > ctx.data_end() {
        return None;
    }
    // SAFETY: `at` and the byte after it lie in the frame, as just checked, and a frame's
    // headers are aligned to two bytes.
    unsafe { *(at as *mut u16) = value };
    Some(())
}
