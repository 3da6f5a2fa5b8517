//! A SYN in every dress that reaches a Linux host: as the frames that carry it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6FragmentHeader, Ipv6Header,
    Ipv6RawExtHeader, TcpHeader, ip_number,
};

use crate::sandbox::Family;

/// Between whom.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Hardware addresses, source and destination.
    pub hardware: [[u8; 6]; 2],
    /// Source and destination, of one family.
    pub addresses: [IpAddr; 2],
    /// Source port and destination port.
    pub ports: [u16; 2],
}

/// One way to send a SYN.
#[derive(Clone, Copy, Debug)]
pub struct Dress {
    /// What is odd about it.
    pub name: &'static str,
    /// Over what.
    pub family: Family,
    frames: fn(&Ends) -> Vec<Vec<u8>>,
}

impl Dress {
    /// The frames that carry the SYN, in order.
    #[must_use]
    pub fn frames(&self, ends: &Ends) -> Vec<Vec<u8>> {
        (self.frames)(ends)
    }

    /// Every one, IPv4 first.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let v4 = V4.iter().map(|row| (Family::V4, row));
        let v6 = V6.iter().map(|row| (Family::V6, row));
        v4.chain(v6)
            .map(|(family, &(name, frames))| Self {
                name,
                family,
                frames,
            })
            .collect()
    }
}

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const URG: u8 = 0x20;
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;

const TYPE_8021Q: u16 = 0x8100;
const TYPE_8021AD: u16 = 0x88a8;

/// No operation, as often as it fits (RFC 791 section 3.1, RFC 9293 section 3.2).
const NOPS: [u8; 40] = [1; 40];

type Row = (&'static str, fn(&Ends) -> Vec<Vec<u8>>);

const V4: &[Row] = &[
    ("plain", |ends| one(ends, &[], &tcp(ends, SYN, &[], b""))),
    ("ECE, CWR", |ends| {
        one(ends, &[], &tcp(ends, SYN | ECE | CWR, &[], b""))
    }),
    ("PSH, URG", |ends| {
        one(ends, &[], &tcp(ends, SYN | PSH | URG, &[], b""))
    }),
    ("FIN", |ends| {
        one(ends, &[], &tcp(ends, SYN | FIN, &[], b""))
    }),
    ("RST", |ends| {
        one(ends, &[], &tcp(ends, SYN | RST, &[], b""))
    }),
    ("data", |ends| {
        one(ends, &[], &tcp(ends, SYN, &[], b"a fast open"))
    }),
    ("40 bytes of TCP options", |ends| {
        one(ends, &[], &tcp(ends, SYN, &NOPS, b""))
    }),
    ("40 bytes of IP options", |ends| {
        let packet = v4(ends, &NOPS, None, &tcp(ends, SYN, &[], b""));
        vec![ethernet(ends, &[], 0x0800, &packet)]
    }),
    ("priority tag 802.1Q", |ends| {
        one(ends, &[TYPE_8021Q], &tcp(ends, SYN, &[], b""))
    }),
    ("priority tag 802.1ad", |ends| {
        one(ends, &[TYPE_8021AD], &tcp(ends, SYN, &[], b""))
    }),
    ("priority tags 802.1ad, 802.1Q", |ends| {
        let tags = [TYPE_8021AD, TYPE_8021Q];
        one(ends, &tags, &tcp(ends, SYN, &[], b""))
    }),
    ("three priority tags", |ends| {
        let tags = [TYPE_8021AD, TYPE_8021Q, TYPE_8021Q];
        one(ends, &tags, &tcp(ends, SYN, &[], b""))
    }),
    ("four priority tags", |ends| {
        let tags = [TYPE_8021AD, TYPE_8021Q, TYPE_8021Q, TYPE_8021Q];
        one(ends, &tags, &tcp(ends, SYN, &[], b""))
    }),
    ("two fragments, the first with the flags", |ends| {
        fragments4(ends, &tcp(ends, SYN, &NOPS, b""), &[(0, 24), (24, 60)])
    }),
    ("two fragments, the second first", |ends| {
        fragments4(ends, &tcp(ends, SYN, &NOPS, b""), &[(24, 60), (0, 24)])
    }),
    ("first fragment of eight bytes", |ends| {
        fragments4(ends, &tcp(ends, SYN, &NOPS, b""), &[(0, 8), (8, 60)])
    }),
    ("first fragment of eight bytes, its next one last", |ends| {
        let parts = [(0, 8), (16, 60), (8, 16)];
        fragments4(ends, &tcp(ends, SYN, &NOPS, b""), &parts)
    }),
    ("fragment that overwrites the flags", |ends| {
        // The first shows ACK; the second would turn it into SYN (RFC 3128).
        let (shown, meant) = (tcp(ends, 0x10, &NOPS, b""), tcp(ends, SYN, &NOPS, b""));
        let mut frames = fragments4(ends, &shown, &[(0, 24)]);
        frames.extend(fragments4(ends, &meant, &[(8, 60)]));
        frames
    }),
];

const V6: &[Row] = &[
    ("plain", |ends| one(ends, &[], &tcp(ends, SYN, &[], b""))),
    ("data", |ends| {
        one(ends, &[], &tcp(ends, SYN, &[], b"a fast open"))
    }),
    ("priority tags 802.1ad, 802.1Q", |ends| {
        let tags = [TYPE_8021AD, TYPE_8021Q];
        one(ends, &tags, &tcp(ends, SYN, &[], b""))
    }),
    ("hop-by-hop options", |ends| {
        extended(ends, &[ip_number::IPV6_HEADER_HOP_BY_HOP])
    }),
    ("destination options", |ends| {
        extended(ends, &[ip_number::IPV6_DEST_OPTIONS])
    }),
    ("four extension headers", |ends| {
        extended(ends, &[ip_number::IPV6_DEST_OPTIONS; 4])
    }),
    ("five extension headers", |ends| {
        extended(ends, &[ip_number::IPV6_DEST_OPTIONS; 5])
    }),
    ("atomic fragment", |ends| {
        fragments6(ends, &tcp(ends, SYN, &[], b""), &[(0, 20)])
    }),
    ("two fragments, the first with the flags", |ends| {
        fragments6(ends, &tcp(ends, SYN, &NOPS, b""), &[(0, 24), (24, 60)])
    }),
    ("first fragment of eight bytes", |ends| {
        fragments6(ends, &tcp(ends, SYN, &NOPS, b""), &[(0, 8), (8, 60)])
    }),
    ("first fragment without the TCP header", |ends| {
        let whole = [
            options(ip_number::TCP).as_slice(),
            &tcp(ends, SYN, &[], b""),
        ]
        .concat();
        fragments6_of(
            ends,
            ip_number::IPV6_DEST_OPTIONS,
            &whole,
            &[(0, 8), (8, 28)],
        )
    }),
];

/// One frame with these VLAN tags, all of VLAN 0.
fn one(ends: &Ends, tags: &[u16], segment: &[u8]) -> Vec<Vec<u8>> {
    vec![match ends.addresses {
        [IpAddr::V4(_), IpAddr::V4(_)] => {
            ethernet(ends, tags, 0x0800, &v4(ends, &[], None, segment))
        }
        _ => ethernet(ends, tags, 0x86dd, &v6(ends, ip_number::TCP, segment)),
    }]
}

/// A TCP segment with its checksum.
fn tcp(ends: &Ends, flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let [source, destination] = ends.ports;
    let mut header = TcpHeader::new(source, destination, 0x0f7b_0000, 64_240);
    header.fin = flags & FIN != 0;
    header.syn = flags & SYN != 0;
    header.rst = flags & RST != 0;
    header.psh = flags & PSH != 0;
    header.ack = flags & 0x10 != 0;
    header.urg = flags & URG != 0;
    header.ece = flags & ECE != 0;
    header.cwr = flags & CWR != 0;
    header
        .set_options_raw(options)
        .expect("at most 40 bytes of options");
    header.checksum = match ends.addresses {
        [IpAddr::V4(source), IpAddr::V4(destination)] => {
            header.calc_checksum_ipv4_raw(source.octets(), destination.octets(), payload)
        }
        _ => {
            let [source, destination] = v6_ends(ends);
            header.calc_checksum_ipv6_raw(source.octets(), destination.octets(), payload)
        }
    }
    .expect("a short segment");
    let mut segment = Vec::new();
    header.write(&mut segment).expect("memory");
    segment.extend(payload);
    segment
}

fn ethernet(ends: &Ends, tags: &[u16], ethertype: u16, packet: &[u8]) -> Vec<u8> {
    let [source, destination] = ends.hardware;
    let mut frame = [destination, source].concat();
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 0]);
    }
    frame.extend(ethertype.to_be_bytes());
    frame.extend(packet);
    frame
}

/// An IPv4 packet; `part` is the fragment's offset in bytes, and whether more follow.
fn v4(ends: &Ends, options: &[u8], part: Option<(usize, bool)>, payload: &[u8]) -> Vec<u8> {
    let [source, destination] = v4_ends(ends);
    let length = u16::try_from(payload.len()).expect("a short packet");
    let mut header = Ipv4Header::new(
        length,
        64,
        ip_number::TCP,
        source.octets(),
        destination.octets(),
    )
    .expect("a short packet");
    header.options = Ipv4Options::try_from(options).expect("at most 40 bytes of options");
    header
        .set_payload_len(payload.len())
        .expect("a short packet");
    header.dont_fragment = false;
    // Fragments belong together by this and the addresses.
    [header.identification, _] = ends.ports;
    if let Some((offset, more)) = part {
        header.fragment_offset = units(offset);
        header.more_fragments = more;
    }
    let mut packet = Vec::new();
    header.write(&mut packet).expect("memory");
    packet.extend(payload);
    packet
}

/// An IPv6 packet.
fn v6(ends: &Ends, next: IpNumber, payload: &[u8]) -> Vec<u8> {
    let [source, destination] = v6_ends(ends);
    let header = Ipv6Header {
        payload_length: u16::try_from(payload.len()).expect("a short packet"),
        next_header: next,
        hop_limit: 64,
        source: source.octets(),
        destination: destination.octets(),
        ..Default::default()
    };
    let mut packet = Vec::new();
    header.write(&mut packet).expect("memory");
    packet.extend(payload);
    packet
}

/// A SYN behind these extension headers, each of eight bytes of padding (RFC 8200 section 4.2).
fn extended(ends: &Ends, headers: &[IpNumber]) -> Vec<Vec<u8>> {
    let mut payload = Vec::new();
    let after = headers.iter().skip(1).chain([&ip_number::TCP]);
    for next in after {
        payload.extend(options(*next));
    }
    payload.extend(tcp(ends, SYN, &[], b""));
    let first = headers.first().copied().unwrap_or(ip_number::TCP);
    vec![ethernet(ends, &[], 0x86dd, &v6(ends, first, &payload))]
}

/// An options header with nothing but padding.
fn options(next: IpNumber) -> Vec<u8> {
    let mut bytes = Vec::new();
    Ipv6RawExtHeader::new_raw(next, &[1, 4, 0, 0, 0, 0])
        .expect("eight bytes")
        .write(&mut bytes)
        .expect("memory");
    bytes
}

fn fragments4(ends: &Ends, whole: &[u8], parts: &[(usize, usize)]) -> Vec<Vec<u8>> {
    parts
        .iter()
        .map(|&(from, to)| {
            let packet = v4(ends, &[], Some((from, to < whole.len())), &whole[from..to]);
            ethernet(ends, &[], 0x0800, &packet)
        })
        .collect()
}

fn fragments6(ends: &Ends, whole: &[u8], parts: &[(usize, usize)]) -> Vec<Vec<u8>> {
    fragments6_of(ends, ip_number::TCP, whole, parts)
}

/// Fragments of what begins with a header of kind `first` (RFC 8200 section 4.5).
fn fragments6_of(
    ends: &Ends,
    first: IpNumber,
    whole: &[u8],
    parts: &[(usize, usize)],
) -> Vec<Vec<u8>> {
    let [identification, _] = ends.ports;
    parts
        .iter()
        .map(|&(from, to)| {
            let more = to < whole.len();
            let header =
                Ipv6FragmentHeader::new(first, units(from), more, u32::from(identification));
            let mut payload = Vec::new();
            header.write(&mut payload).expect("memory");
            payload.extend(&whole[from..to]);
            let packet = v6(ends, ip_number::IPV6_FRAGMENTATION_HEADER, &payload);
            ethernet(ends, &[], 0x86dd, &packet)
        })
        .collect()
}

fn units(offset: usize) -> IpFragOffset {
    u16::try_from(offset / 8)
        .ok()
        .and_then(|units| IpFragOffset::try_new(units).ok())
        .expect("a small offset")
}

fn v4_ends(ends: &Ends) -> [Ipv4Addr; 2] {
    ends.addresses.map(|address| match address {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    })
}

fn v6_ends(ends: &Ends) -> [Ipv6Addr; 2] {
    ends.addresses.map(|address| match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    })
}
