//! Any byte string as a frame: the programs never pass what an independent reading of it says is
//! to be dropped, and never drop what that lets pass (rules I2 to I5).
//!
//! The model reads frames with etherparse, which is strict. What it cannot read, Linux discards or
//! the last gate judges; there the programs may do either.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{EtherType, LinkExtSlice, NetSlice, SlicedPacket, ip_number};
use ftpguard_common::{abi::Mode, verdict::Verdict};
use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    strategy::ValueTree as _,
    test_runner::{Config, TestRunner},
};

use crate::{
    Bed, INGRESS,
    bed::{
        CLIENT, CLIENT6, FOREIGN, LIVE, OUTSIDE, SERVER, SERVER6, THIEF, THIEF6, UNKNOWN, UNUSED,
    },
    frames::{
        SYN_HEADER, syn, tcp_frame, udp_frame, with_extensions, with_first_fragment,
        with_fragment4, with_fragment6, with_ipv4_options, with_one_tag, with_tcp_options,
        with_two_tags,
    },
};

/// How many frames; fifty times as many with `FTPGUARD_LONG=1`.
const CASES: u32 = 4_096;

#[test]
fn any_frame_is_judged_as_an_independent_model_judges_it() {
    let bed = Bed::new(Mode::Enforce);
    let long = std::env::var_os("FTPGUARD_LONG").is_some();
    let mut runner = TestRunner::new(Config {
        cases: CASES * if long { 50 } else { 1 },
        failure_persistence: None,
        ..Config::default()
    });
    let mut judged = [0_u32; 3];
    let result = runner.run(&frame(), |frame| {
        let wanted = model(&frame);
        for (program, pass, deny) in INGRESS {
            // BPF_PROG_TEST_RUN makes no packet of less than its network header.
            if program != "guard_ingress" && frame.len() < 14 + 40 {
                continue;
            }
            let action = bed.run(program, &frame);
            match wanted {
                Some(Verdict::Deny) => prop_assert_eq!(action, deny, "{}", program),
                Some(Verdict::Pass) => prop_assert_eq!(action, pass, "{}", program),
                None => {}
            }
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    // The frames are worth the name: the model has an opinion on many, of both kinds.
    let mut runner = TestRunner::deterministic();
    for _ in 0..2_000 {
        let frame = frame().new_tree(&mut runner).unwrap().current();
        judged[match model(&frame) {
            Some(Verdict::Deny) => 0,
            Some(Verdict::Pass) => 1,
            None => 2,
        }] += 1;
    }
    assert!(judged.iter().all(|count| *count > 200), "{judged:?}");
}

/// Frames: a few of plain noise, most of them good ones with some bytes changed, tags put in, or
/// an end cut off.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let noise = vec(any::<u8>(), 14..200);
    let changed = (
        proptest::sample::select(good()),
        vec((any::<Index>(), any::<u8>()), 0..4),
        vec(proptest::sample::select(vec![0x8100_u16, 0x88a8]), 0..3),
        prop_oneof![3 => Just(None), 1 => any::<Index>().prop_map(Some)],
    )
        .prop_map(|(mut frame, changes, tags, cut)| {
            for (place, byte) in changes {
                // Ethernet addresses are nobody's business.
                let place = 12 + place.index(frame.len() - 12);
                frame[place] = byte;
            }
            for tag in tags {
                let [high, low] = tag.to_be_bytes();
                frame.splice(12..12, [high, low, 0, 0]);
            }
            if let Some(cut) = cut {
                frame.truncate(14 + cut.index(frame.len() - 14));
            }
            frame
        });
    prop_oneof![1 => noise, 10 => changed, 5 => composed()]
}

/// Frames put together from every header in every order: tags, options or extension headers of any
/// length, a fragment of any place, a segment of any flags, all cut anywhere.
fn composed() -> impl Strategy<Value = Vec<u8>> {
    let tags = vec(proptest::sample::select(vec![0x8100_u16, 0x88a8]), 0..3);
    let segment = (
        proptest::sample::select(vec![LIVE, UNUSED, FOREIGN, OUTSIDE, UNKNOWN, 21, 22]),
        prop_oneof![Just(0x02_u8), any::<u8>()],
        0..=40_usize,
    )
        .prop_map(|(port, flags, length)| {
            let mut segment = SYN_HEADER.to_vec();
            segment[2..4].copy_from_slice(&port.to_be_bytes());
            segment[13] = flags;
            segment.resize(length.max(1), 1);
            segment
        });
    let fragment = prop_oneof![
        3 => Just((0_u16, false)),
        1 => Just((0, true)),
        1 => (0..3_u16, any::<bool>()),
    ];
    let extensions = vec(
        (
            proptest::sample::select(vec![0_u8, 43, 44, 51, 60, 135, 139, 140]),
            0..3_usize,
        ),
        0..5,
    );
    (
        tags,
        segment,
        fragment,
        any::<(bool, bool)>(),
        0..=10_usize,
        extensions,
    )
        .prop_map(
            |(tags, segment, fragment, (v6, stranger), options, extensions)| {
                let mut packet = if v6 {
                    ipv6(stranger, fragment, &extensions, &segment)
                } else {
                    ipv4(stranger, fragment, options, &segment)
                };
                let mut frame = vec![2; 12];
                for tag in tags {
                    frame.extend(tag.to_be_bytes());
                    frame.extend([0, 0]);
                }
                frame.extend(if v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
                frame.append(&mut packet);
                frame
            },
        )
}

fn ipv4(stranger: bool, (offset, more): (u16, bool), options: usize, segment: &[u8]) -> Vec<u8> {
    let client: Ipv4Addr = if stranger { THIEF } else { CLIENT }.parse().unwrap();
    let server: Ipv4Addr = SERVER.parse().unwrap();
    let header = 20 + 4 * options;
    let mut packet = vec![0x45 + u8::try_from(options).unwrap(), 0];
    let total = u16::try_from(header + segment.len()).unwrap();
    packet.extend(total.to_be_bytes());
    packet.extend([0, 7]);
    packet.extend((offset | u16::from(more) << 13).to_be_bytes());
    packet.extend([64, 6, 0, 0]);
    packet.extend(client.octets());
    packet.extend(server.octets());
    packet.resize(header, 1);
    packet.extend(segment);
    packet
}

/// Kind 44 is a fragment header, whatever length was drawn for it.
fn ipv6(
    stranger: bool,
    (offset, more): (u16, bool),
    extensions: &[(u8, usize)],
    segment: &[u8],
) -> Vec<u8> {
    let client: Ipv6Addr = if stranger { THIEF6 } else { CLIENT6 }.parse().unwrap();
    let server: Ipv6Addr = SERVER6.parse().unwrap();
    let kinds: Vec<u8> = extensions
        .iter()
        .map(|(kind, _)| *kind)
        .chain([6])
        .collect();
    let mut payload = Vec::new();
    for ((kind, units), next) in extensions.iter().zip(&kinds[1..]) {
        if *kind == 44 {
            payload.extend([*next, 0]);
            payload.extend((offset << 3 | u16::from(more)).to_be_bytes());
            payload.extend([0, 0, 0, 7]);
            continue;
        }
        // In units of eight bytes after the first; of four for an authentication header, of an
        // even number here.
        let length = if *kind == 51 { 2 * units } else { *units };
        payload.extend([*next, u8::try_from(length).unwrap()]);
        payload.extend([1, 4, 0, 0, 0, 0]);
        payload.resize(payload.len() + 8 * units, 0);
    }
    payload.extend(segment);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([kinds[0], 64]);
    packet.extend(client.octets());
    packet.extend(server.octets());
    packet.extend(payload);
    packet
}

fn good() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for port in [LIVE, UNUSED, FOREIGN, OUTSIDE, UNKNOWN, 21, 22] {
        for (client, server) in [
            (CLIENT, SERVER),
            (THIEF, SERVER),
            (CLIENT6, SERVER6),
            (THIEF6, SERVER6),
        ] {
            frames.push(syn(client, server, port));
        }
    }
    for client in [CLIENT, THIEF] {
        frames.push(with_ipv4_options(client));
        frames.push(with_tcp_options(client));
        frames.push(with_one_tag(client));
        frames.push(with_two_tags(client));
        frames.push(with_first_fragment(client));
        frames.push(with_fragment4(client, 1, SYN_HEADER));
        frames.push(with_fragment4(client, 2, SYN_HEADER));
        frames.push(tcp_frame(client, SERVER, LIVE, 0x10, b"data"));
        frames.push(udp_frame(client, LIVE));
    }
    for client in [CLIENT6, THIEF6] {
        for count in 1..=5 {
            frames.push(with_extensions(client, count));
        }
        frames.push(with_fragment6(client, 0, SYN_HEADER));
        frames.push(with_fragment6(client, 2, SYN_HEADER));
    }
    frames
}

/// What is to become of a frame; `None` where the model cannot read it.
fn model(frame: &[u8]) -> Option<Verdict> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    if packet.link_exts.len() > 2 {
        return None;
    }
    for tag in &packet.link_exts {
        // etherparse knows more kinds of tags than Linux takes off.
        let LinkExtSlice::Vlan(_) = tag else {
            return None;
        };
    }
    if tag_types(frame).any(|kind| kind == EtherType::VLAN_DOUBLE_TAGGED_FRAME) {
        return None;
    }
    match packet.net {
        None | Some(NetSlice::Arp(_)) => Some(Verdict::Pass),
        Some(NetSlice::Ipv4(packet)) => {
            let header = packet.header();
            if header.protocol() != ip_number::TCP {
                return Some(Verdict::Pass);
            }
            segment(
                header.source_addr().into(),
                header.destination_addr().into(),
                header.fragments_offset().value(),
                header.more_fragments(),
                packet.payload().payload,
            )
        }
        Some(NetSlice::Ipv6(packet)) => {
            let extensions = packet.extensions();
            let mut more = false;
            let mut count = 0;
            for extension in extensions.clone() {
                count += 1;
                if let etherparse::Ipv6ExtensionSlice::Fragment(fragment) = extension
                    && count <= 5
                {
                    more = fragment.more_fragments();
                    let offset = fragment.fragment_offset().value();
                    if offset != 0 {
                        // What follows is no header, whatever it looks like.
                        let over_flags = offset == 1 && fragment.next_header() == ip_number::TCP;
                        return Some(if over_flags {
                            Verdict::Deny
                        } else {
                            Verdict::Pass
                        });
                    }
                }
            }
            if count > 4 {
                return None;
            }
            // The programs follow these three as well; Linux does not, and discards the packet.
            if [ip_number::MOBILITY_HEADER, ip_number::HIP, ip_number::SHIM6]
                .contains(&packet.payload().ip_number)
            {
                return None;
            }
            if packet.payload().ip_number != ip_number::TCP {
                // A later fragment of something else, or no TCP at all.
                return Some(Verdict::Pass);
            }
            segment(
                packet.header().source_addr().into(),
                packet.header().destination_addr().into(),
                0,
                more,
                packet.payload().payload,
            )
        }
    }
}

/// The Ethernet type and those of the tags.
fn tag_types(frame: &[u8]) -> impl Iterator<Item = EtherType> {
    [12, 16, 20]
        .into_iter()
        .filter_map(|at| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?)))
        .map(EtherType)
}

/// What RFC 9293 section 3.1 puts where: the destination port in bytes 2 and 3, SYN and ACK in byte
/// 13. Options and whatever else follows are not waited for.
fn segment(
    source: IpAddr,
    destination: IpAddr,
    offset: u16,
    more: bool,
    bytes: &[u8],
) -> Option<Verdict> {
    match offset {
        0 => {}
        // It would overwrite the flags (RFC 3128).
        1 => return Some(Verdict::Deny),
        _ => return Some(Verdict::Pass),
    }
    let Some(&[_, _, high, low, .., flags]) = bytes.get(..14) else {
        // A first fragment without flags hides them (RFC 1858); a segment without is none.
        return more.then_some(Verdict::Deny);
    };
    if flags & 0x12 != 0x02 {
        return Some(Verdict::Pass);
    }
    connection(source, destination, u16::from_be_bytes([high, low]))
}

/// As the tables of the bed say.
fn connection(source: IpAddr, destination: IpAddr, port: u16) -> Option<Verdict> {
    let client = match source {
        IpAddr::V4(source) => source == CLIENT.parse::<Ipv4Addr>().unwrap(),
        IpAddr::V6(source) => source == CLIENT6.parse::<Ipv6Addr>().unwrap(),
    };
    let ours = [SERVER, SERVER6].map(|server| server.parse::<IpAddr>().unwrap());
    let is_ours = ours.contains(&destination);
    if destination.is_loopback() {
        return None;
    }
    let own_client = client && source.is_ipv4() == destination.is_ipv4();
    Some(match port {
        21 | FOREIGN => Verdict::Pass,
        LIVE | OUTSIDE if is_ours && !own_client => Verdict::Deny,
        // The listener is on the wildcard address.
        UNKNOWN if !client => Verdict::Deny,
        LIVE | OUTSIDE | UNKNOWN => Verdict::Pass,
        30_000..=30_999 if is_ours => Verdict::Deny,
        _ => Verdict::Pass,
    })
}
