//! What the guard is measured against: the least that any program in its place would do.

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use ftpguard_common::packet::{Walk, walk};

use crate::access::XdpFrame;

/// Walks to the TCP header and looks at its flags, nothing more.
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
