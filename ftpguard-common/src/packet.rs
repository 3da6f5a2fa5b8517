//! The walk from an Ethernet frame to a TCP header.
//!
//! One walk serves XDP, TC and tests through [`View`]. It follows up to two VLAN tags
//! (802.1Q, 802.1ad), IPv4 with options, IPv6 with up to [`MAX_EXTENSIONS`] extension headers,
//! and first fragments. It never trusts a length: every offset is checked by the view, and
//! header lengths are checked against their minimum (RFC 791 section 3.1, RFC 9293 section 3.1).
#![forbid(unsafe_code)]

use crate::net::{Address, Port};

/// Bytes of one packet, from its Ethernet header on.
pub trait View {
    /// `N` pairs of bytes from `offset` on, each as it lies in memory; `None` where the packet
    /// ends before. `offset` is even.
    ///
    /// Pairs, because headers are aligned to two bytes in an Ethernet frame and no better.
    fn pairs<const N: usize>(&self, offset: usize) -> Option<[u16; N]>;

    /// Length of the whole packet in bytes.
    fn length(&self) -> usize;
}

/// The most VLAN tags that are followed.
pub const MAX_TAGS: usize = 2;
/// The most IPv6 extension headers that are followed.
pub const MAX_EXTENSIONS: usize = 4;

const ETHERNET_LENGTH: usize = 14;
const TAG_LENGTH: usize = 4;
const TYPE_IPV4: u16 = 0x0800;
const TYPE_IPV6: u16 = 0x86dd;
const TYPE_8021Q: u16 = 0x8100;
const TYPE_8021AD: u16 = 0x88a8;
const PROTOCOL_TCP: u8 = 6;

/// TCP flags, as in byte 13 of the header (RFC 9293 section 3.1).
pub mod flags {
    /// No more data from sender.
    pub const FIN: u8 = 0x01;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgment field is significant.
    pub const ACK: u8 = 0x10;
}

/// The part of a TCP segment's headers that is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port.
    pub source_port: Port,
    /// Destination port.
    pub destination_port: Port,
    /// TCP flags, see [`flags`].
    pub flags: u8,
    /// Where the TCP header begins in the packet.
    pub tcp: usize,
    /// Where the IP packet ends, by its own length field; 0 where it states none (a jumbo or
    /// an aggregated segment), and the packet's length counts.
    pub end: usize,
    /// Whether it is the first fragment of a segment: more of it follows, where it is not looked
    /// for.
    pub is_fragment: bool,
}

impl Segment {
    /// Whether this segment asks for a connection: SYN without ACK (rule I2). FIN, RST and
    /// data beside the SYN change nothing.
    #[inline(always)]
    #[must_use]
    pub const fn opens_connection(&self) -> bool {
        opens_connection(self.flags)
    }
}

#[inline(always)]
const fn opens_connection(flags: u8) -> bool {
    flags & (flags::SYN | flags::ACK) == flags::SYN
}

/// What the walk found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    /// A TCP segment, or the first fragment of one.
    Tcp(Segment),
    /// Nothing that is judged: not IP, not TCP, or a later fragment without a header.
    Other,
    /// The packet ends inside a header, or a header contradicts itself.
    Malformed,
    /// More nested headers than are followed.
    TooDeep,
    /// A TCP fragment that hides its flags, or would overwrite those of another (RFC 1858
    /// section 3, RFC 3128).
    TinyFragment,
}

/// Walks from the Ethernet header to the TCP header.
#[inline(always)]
pub fn walk(view: &impl View) -> Walk {
    follow::<false>(view)
}

/// The same for who judges only what asks for a connection: any other segment is [`Walk::Other`],
/// and its addresses are not read.
#[inline(always)]
pub fn walk_to_syn(view: &impl View) -> Walk {
    follow::<true>(view)
}

#[inline(always)]
fn follow<const SYN_ONLY: bool>(view: &impl View) -> Walk {
    let Some([.., ethertype]) = view.pairs::<7>(0) else {
        return Walk::Malformed;
    };
    let mut ethertype = u16::from_be(ethertype);
    let mut offset = ETHERNET_LENGTH;
    for _ in 0..MAX_TAGS {
        if ethertype != TYPE_8021Q && ethertype != TYPE_8021AD {
            break;
        }
        let Some([_, inner]) = view.pairs::<2>(offset) else {
            return Walk::Malformed;
        };
        ethertype = u16::from_be(inner);
        offset += TAG_LENGTH;
    }
    match ethertype {
        TYPE_IPV4 => walk_v4::<SYN_ONLY>(view, offset),
        TYPE_IPV6 => walk_v6::<SYN_ONLY>(view, offset),
        TYPE_8021Q | TYPE_8021AD => Walk::TooDeep,
        _ => Walk::Other,
    }
}

/// Walks from an IPv4 header (RFC 791 section 3.1).
#[inline(always)]
fn walk_v4<const SYN_ONLY: bool>(view: &impl View, offset: usize) -> Walk {
    let Some(header) = view.pairs::<10>(offset) else {
        return Walk::Malformed;
    };
    let [version_and_length, _] = header[0].to_ne_bytes();
    let header_length = usize::from(version_and_length & 0x0f) * 4;
    if version_and_length >> 4 != 4 || header_length < 20 {
        return Walk::Malformed;
    }
    let [_, protocol] = header[4].to_ne_bytes();
    if protocol != PROTOCOL_TCP {
        return Walk::Other;
    }
    let fragment = u16::from_be(header[3]);
    let fragment_offset = fragment & 0x1fff;
    if fragment_offset != 0 {
        // In units of eight bytes: one at 1 would write over the flags, which lie at byte 13.
        return if fragment_offset == 1 {
            Walk::TinyFragment
        } else {
            Walk::Other
        };
    }
    let more_fragments = fragment & 0x2000 != 0;
    let total_length = usize::from(u16::from_be(header[1]));
    let end = if total_length == 0 {
        0
    } else {
        offset + total_length
    };
    let around = Around {
        tcp: offset + header_length,
        end,
        first_fragment: more_fragments,
    };
    read_tcp::<SYN_ONLY>(view, around, || {
        let pairs = view.pairs::<4>(offset + 12)?;
        let source = Address::from_v4_word(word(pairs[0], pairs[1]));
        let destination = Address::from_v4_word(word(pairs[2], pairs[3]));
        Some((source, destination))
    })
}

/// Walks from an IPv6 header (RFC 8200 section 3) through its extension headers.
#[inline(always)]
fn walk_v6<const SYN_ONLY: bool>(view: &impl View, offset: usize) -> Walk {
    let Some(header) = view.pairs::<20>(offset) else {
        return Walk::Malformed;
    };
    let [version, _] = header[0].to_ne_bytes();
    if version >> 4 != 6 {
        return Walk::Malformed;
    }
    let payload_length = usize::from(u16::from_be(header[2]));
    let [mut next, _] = header[3].to_ne_bytes();
    let end = if payload_length == 0 {
        0
    } else {
        offset + 40 + payload_length
    };
    let mut at = offset + 40;
    let mut first_fragment = false;
    for _ in 0..=MAX_EXTENSIONS {
        let length = match next {
            PROTOCOL_TCP => {
                let around = Around {
                    tcp: at,
                    end,
                    first_fragment,
                };
                return read_tcp::<SYN_ONLY>(view, around, || {
                    let pairs = view.pairs::<16>(offset + 8)?;
                    Some((v6_address(&pairs, 0), v6_address(&pairs, 8)))
                });
            }
            // Hop-by-hop options, routing, destination options, mobility, HIP, Shim6: length in
            // units of eight bytes after the first eight (RFC 8200 section 4, RFC 6564).
            0 | 43 | 60 | 135 | 139 | 140 => {
                let Some([next_and_length]) = view.pairs::<1>(at) else {
                    return Walk::Malformed;
                };
                let [after, units] = next_and_length.to_ne_bytes();
                next = after;
                8 + usize::from(units) * 8
            }
            // Authentication header: length in units of four bytes after the first eight
            // (RFC 4302 section 2.2).
            51 => {
                let Some([next_and_length]) = view.pairs::<1>(at) else {
                    return Walk::Malformed;
                };
                let [after, units] = next_and_length.to_ne_bytes();
                next = after;
                8 + usize::from(units) * 4
            }
            // Fragment header (RFC 8200 section 4.5).
            44 => {
                let Some([next_and_zero, fragment]) = view.pairs::<2>(at) else {
                    return Walk::Malformed;
                };
                let [after, _] = next_and_zero.to_ne_bytes();
                let fragment = u16::from_be(fragment);
                let fragment_offset = fragment >> 3;
                if fragment_offset != 0 {
                    return if fragment_offset == 1 && after == PROTOCOL_TCP {
                        Walk::TinyFragment
                    } else {
                        Walk::Other
                    };
                }
                first_fragment = fragment & 1 != 0;
                next = after;
                8
            }
            _ => return Walk::Other,
        };
        at += length;
    }
    Walk::TooDeep
}

/// What the IP header says about the TCP header that follows it.
#[derive(Clone, Copy)]
struct Around {
    tcp: usize,
    end: usize,
    first_fragment: bool,
}

/// Reads ports and flags (RFC 9293 section 3.1), and the addresses where they are wanted: put
/// together from pairs of bytes, those of IPv6 cost as much as all the rest.
#[inline(always)]
fn read_tcp<const SYN_ONLY: bool>(
    view: &impl View,
    around: Around,
    addresses: impl FnOnce() -> Option<(Address, Address)>,
) -> Walk {
    // Ports, sequence and acknowledgment numbers, data offset and flags: bytes 0 to 13. The
    // fragment may end earlier than the frame, which can be padded.
    let fits = around.end == 0 || around.tcp + 14 <= around.end;
    let Some(header) = view.pairs::<7>(around.tcp).filter(|_| fits) else {
        return if around.first_fragment {
            Walk::TinyFragment
        } else {
            Walk::Malformed
        };
    };
    let [_, flags] = header[6].to_ne_bytes();
    if SYN_ONLY && !opens_connection(flags) {
        return Walk::Other;
    }
    let Some((source, destination)) = addresses() else {
        return Walk::Malformed;
    };
    Walk::Tcp(Segment {
        source,
        destination,
        source_port: Port::from_wire(header[0]),
        destination_port: Port::from_wire(header[1]),
        flags,
        tcp: around.tcp,
        end: around.end,
        is_fragment: around.first_fragment,
    })
}

/// Two pairs as one word, as they lie in memory.
#[inline(always)]
fn word(first: u16, second: u16) -> u32 {
    if cfg!(target_endian = "little") {
        u32::from(first) | u32::from(second) << 16
    } else {
        u32::from(first) << 16 | u32::from(second)
    }
}

#[inline(always)]
fn v6_address(header: &[u16; 16], at: usize) -> Address {
    Address([
        word(header[at], header[at + 1]),
        word(header[at + 2], header[at + 3]),
        word(header[at + 4], header[at + 5]),
        word(header[at + 6], header[at + 7]),
    ])
}
