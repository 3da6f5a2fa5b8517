//! What `cargo xtask bench` tells its source of SYNs. No part of the guard.
#![forbid(unsafe_code)]

use bytemuck::{Pod, Zeroable};

/// The one value of the yardsticks' `FLOOD` map.
///
/// A SYN's source address ends in 32 bits of which those in `source_mask` and the low 16 are
/// random.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Flood {
    /// When the next SYN is due: nanoseconds of `CLOCK_MONOTONIC`. Written by the program.
    pub next: u64,
    /// Nanoseconds from SYN to SYN; 0 sends as fast as it goes.
    pub interval: u64,
    /// By how many nanoseconds a SYN may be late and the next ones still be early.
    pub slack: u64,
    /// Sum of all two-byte words of the IPv4 header that do not change, as they lie in memory.
    pub ip_sum: u32,
    /// The same of the TCP header and its pseudo header (RFC 9293 section 3.1).
    pub tcp_sum: u32,
    /// The upper half of what changes in the source address, as it lies in memory.
    pub source_base: u16,
    /// Which bits of the upper half are random, as they lie in memory.
    pub source_mask: u16,
    /// The lowest destination port.
    pub first_port: u16,
    /// The number of destination ports, a power of two, less one.
    pub port_mask: u16,
    /// The interface by which the SYNs leave.
    pub interface: u32,
    /// Zero.
    pub pad: u32,
}

const _: () = assert!(size_of::<Flood>() == 48);
