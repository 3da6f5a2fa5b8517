//! Any byte string as a frame: the programs never pass what an independent reading of it says is
//! to be dropped, and never drop what that lets pass (rules I2 to I5).
//!
//! The model reads frames with etherparse, which is strict. What it cannot read, Linux discards or
//! the last gate judges; there the programs may do either.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{EtherType, LinkExtSlice, NetSlice, SlicedPacket, TcpHeaderSlice, ip_number};
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
    prop_oneof![1 => noise, 15 => changed]
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
                packet.payload().payload,
            )
        }
        Some(NetSlice::Ipv6(packet)) => {
            let extensions = packet.extensions();
            let mut offset = 0;
            let mut count = 0;
            for extension in extensions.clone() {
                count += 1;
                if let etherparse::Ipv6ExtensionSlice::Fragment(fragment) = extension {
                    offset = fragment.fragment_offset().value();
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
                offset,
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

fn segment(source: IpAddr, destination: IpAddr, offset: u16, bytes: &[u8]) -> Option<Verdict> {
    match offset {
        0 => {}
        // It would overwrite the flags (RFC 3128).
        1 => return Some(Verdict::Deny),
        _ => return Some(Verdict::Pass),
    }
    let tcp = TcpHeaderSlice::from_slice(bytes).ok()?;
    if !tcp.syn() || tcp.ack() {
        return Some(Verdict::Pass);
    }
    connection(source, destination, tcp.destination_port())
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
