//! Frames, built with a library.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{
    IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6FragmentHeader, Ipv6Header,
    Ipv6RawExtHeader, PacketBuilder, TcpHeader, VlanId, ip_number,
};

use crate::bed::{LIVE, SERVER, SERVER6};

pub(crate) fn syn(client: &str, server: &str, port: u16) -> Vec<u8> {
    tcp_frame(client, server, port, 0x02, b"")
}

pub(crate) fn data_syn(server: &str, source_port: u16, client: &str, port: u16) -> Vec<u8> {
    frame(server, client, &tcp(source_port, port, 0x02), b"")
}

pub(crate) fn tcp_frame(
    client: &str,
    server: &str,
    port: u16,
    flags: u8,
    payload: &[u8],
) -> Vec<u8> {
    frame(client, server, &tcp(50_000, port, flags), payload)
}

/// A UDP datagram to the server's address.
pub(crate) fn udp_frame(client: &str, port: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(v4(client).octets(), v4(SERVER).octets(), 64)
        .udp(5000, port)
        .write(&mut frame, b"data")
        .unwrap();
    frame
}

fn tcp(source: u16, destination: u16, flags: u8) -> TcpHeader {
    let mut header = TcpHeader::new(source, destination, 1, 1024);
    header.fin = flags & 0x01 != 0;
    header.syn = flags & 0x02 != 0;
    header.rst = flags & 0x04 != 0;
    header.psh = flags & 0x08 != 0;
    header.ack = flags & 0x10 != 0;
    header.urg = flags & 0x20 != 0;
    header.ece = flags & 0x40 != 0;
    header.cwr = flags & 0x80 != 0;
    header
}

fn frame(source: &str, destination: &str, header: &TcpHeader, payload: &[u8]) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let step = if source.contains(':') {
        ethernet.ipv6(v6(source).octets(), v6(destination).octets(), 64)
    } else {
        ethernet.ipv4(v4(source).octets(), v4(destination).octets(), 64)
    };
    let mut frame = Vec::new();
    step.tcp_header(header.clone())
        .write(&mut frame, payload)
        .unwrap();
    frame
}

/// A SYN's TCP header to the live port, in bytes.
pub(crate) const SYN_HEADER: &[u8] = &[
    0xc3, 0x50, 0x75, 0x31, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0x04, 0, 0, 0, 0, 0,
];

fn ethernet(ethertype: u16, rest: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 2, 2, 2, 2, 2, 4, 4, 4, 4, 4, 4];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(rest);
    frame
}

fn ipv4_frame(client: &str, change: impl FnOnce(&mut Ipv4Header), payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    let mut header = Ipv4Header::new(
        length,
        64,
        ip_number::TCP,
        v4(client).octets(),
        v4(SERVER).octets(),
    )
    .unwrap();
    change(&mut header);
    let mut packet = Vec::new();
    header.write(&mut packet).unwrap();
    packet.extend(payload);
    ethernet(0x0800, &packet)
}

pub(crate) fn with_ipv4_options(client: &str) -> Vec<u8> {
    let mut frame = ipv4_frame(
        client,
        |header| header.options = Ipv4Options::try_from(&[1_u8; 40][..]).unwrap(),
        SYN_HEADER,
    );
    // etherparse counts the payload only; the options lengthen the packet.
    let total = u16::try_from(frame.len() - 14).unwrap();
    frame[16..18].copy_from_slice(&total.to_be_bytes());
    frame
}

pub(crate) fn with_tcp_options(client: &str) -> Vec<u8> {
    let mut header = tcp(50_000, LIVE, 0x02);
    header.set_options_raw(&[1; 40]).unwrap();
    frame(client, SERVER, &header, b"fast open data")
}

pub(crate) fn with_one_tag(client: &str) -> Vec<u8> {
    // A priority tag, VID 0, reaches an untagged interface.
    let mut tagged = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .single_vlan(VlanId::ZERO)
        .ipv4(v4(client).octets(), v4(SERVER).octets(), 64)
        .tcp_header(tcp(50_000, LIVE, 0x02))
        .write(&mut tagged, b"")
        .unwrap();
    tagged
}

pub(crate) fn with_two_tags(client: &str) -> Vec<u8> {
    let mut tagged = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .double_vlan(VlanId::ZERO, VlanId::ZERO)
        .ipv4(v4(client).octets(), v4(SERVER).octets(), 64)
        .tcp_header(tcp(50_000, LIVE, 0x02))
        .write(&mut tagged, b"")
        .unwrap();
    tagged
}

pub(crate) fn with_first_fragment(client: &str) -> Vec<u8> {
    with_fragment4(client, 0, SYN_HEADER)
}

/// A fragment at `units` of eight bytes, with more to follow.
pub(crate) fn with_fragment4(client: &str, units: u16, payload: &[u8]) -> Vec<u8> {
    ipv4_frame(
        client,
        |header| {
            header.more_fragments = true;
            header.dont_fragment = false;
            header.fragment_offset = IpFragOffset::try_new(units).unwrap();
        },
        payload,
    )
}

fn ipv6_frame(client: &str, next: IpNumber, payload: &[u8]) -> Vec<u8> {
    let header = Ipv6Header {
        payload_length: u16::try_from(payload.len()).unwrap(),
        next_header: next,
        hop_limit: 64,
        source: v6(client).octets(),
        destination: v6(SERVER6).octets(),
        ..Default::default()
    };
    let mut packet = Vec::new();
    header.write(&mut packet).unwrap();
    packet.extend(payload);
    ethernet(0x86dd, &packet)
}

/// `count` destination options headers of eight bytes before the TCP header.
pub(crate) fn with_extensions(client: &str, count: usize) -> Vec<u8> {
    let mut payload = Vec::new();
    for left in (0..count).rev() {
        let next = if left == 0 {
            ip_number::TCP
        } else {
            ip_number::IPV6_DEST_OPTIONS
        };
        Ipv6RawExtHeader::new_raw(next, &[1, 4, 0, 0, 0, 0])
            .unwrap()
            .write(&mut payload)
            .unwrap();
    }
    payload.extend(SYN_HEADER);
    ipv6_frame(client, ip_number::IPV6_DEST_OPTIONS, &payload)
}

/// One header of each of these kinds before the TCP header, the shortest that its kind allows; a
/// fragment header is that of a whole packet.
pub(crate) fn with_headers6(client: &str, kinds: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    let next = kinds.iter().skip(1).chain([&ip_number::TCP.0]);
    for (kind, next) in kinds.iter().zip(next) {
        match kind {
            // RFC 8200 section 4.5: no offset, none to follow.
            44 => payload.extend([*next, 0, 0, 0, 0, 0, 0, 9]),
            // RFC 4302 section 2: in units of four bytes, less two.
            51 => payload.extend([*next, 2, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]),
            _ => payload.extend([*next, 0, 1, 4, 0, 0, 0, 0]),
        }
    }
    payload.extend(SYN_HEADER);
    ipv6_frame(client, IpNumber(kinds[0]), &payload)
}

/// The frame behind one more tag of this type.
pub(crate) fn tagged(mut frame: Vec<u8>, kind: u16) -> Vec<u8> {
    let [high, low] = kind.to_be_bytes();
    frame.splice(12..12, [high, low, 0, 0]);
    frame
}

/// A first fragment that ends behind a destination options header.
pub(crate) fn with_options_only6(client: &str) -> Vec<u8> {
    let mut frame = with_fragment6(client, 0, &[ip_number::TCP.0, 0, 1, 4, 0, 0, 0, 0]);
    frame[14 + 40] = ip_number::IPV6_DEST_OPTIONS.0;
    frame
}

pub(crate) fn with_fragment6(client: &str, units: u16, payload: &[u8]) -> Vec<u8> {
    let fragment = Ipv6FragmentHeader::new(
        ip_number::TCP,
        IpFragOffset::try_new(units).unwrap(),
        true,
        9,
    );
    let mut whole = Vec::new();
    fragment.write(&mut whole).unwrap();
    whole.extend(payload);
    ipv6_frame(client, ip_number::IPV6_FRAGMENTATION_HEADER, &whole)
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}
