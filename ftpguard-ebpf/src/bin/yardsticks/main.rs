//! What `cargo xtask bench` measures the guard with: the least that any program in its place
//! would do, and a source of SYNs. An object of its own; the daemon does not carry it.
#![no_std]
#![no_main]
#![expect(
    clippy::inline_always,
    reason = "what is not inlined costs a call, and the verifier its proofs"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "aya hands entry points their context by value"
)]
#![expect(
    clippy::cast_possible_truncation,
    reason = "halves of random numbers and checksums"
)]

#[expect(dead_code, reason = "there are no yardsticks for TC")]
#[path = "../../access.rs"]
mod access;
mod flood;

use access::XdpFrame;
use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use ftpguard_common::packet::{Walk, walk};

/// Walks to the TCP header and looks at its flags, nothing more: drops what asks for a
/// connection.
#[xdp]
fn parse_only(ctx: XdpContext) -> u32 {
    match walk(&XdpFrame(&ctx)) {
        Walk::Tcp(segment) if segment.opens_connection() => xdp_action::XDP_DROP,
        Walk::Tcp(_) | Walk::Other | Walk::Malformed | Walk::TooDeep | Walk::TinyFragment => {
            xdp_action::XDP_PASS
        }
    }
}

/// Drops everything at once.
#[xdp]
fn drop_all(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_DROP
}

/// Sends the next SYN of a flood over IPv4.
#[xdp]
fn send_syns_v4(ctx: XdpContext) -> u32 {
    flood::next::<{ flood::V4 }>(&ctx).unwrap_or(xdp_action::XDP_ABORTED)
}

/// The same over IPv6.
#[xdp]
fn send_syns_v6(ctx: XdpContext) -> u32 {
    flood::next::<{ flood::V6 }>(&ctx).unwrap_or(xdp_action::XDP_ABORTED)
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// The verifier refuses a loop without end, and with it a panic that could be reached.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
