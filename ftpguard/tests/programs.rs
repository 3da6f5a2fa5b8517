//! The packet programs on crafted frames, without a network (`BPF_PROG_TEST_RUN`).
//!
//! One frame goes in; the action and the counter of exactly one reason come out. Needs root.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6FragmentHeader, Ipv6Header,
    Ipv6RawExtHeader, PacketBuilder, TcpHeader, VlanId, ip_number,
};
use ftpguard::kernel::{Destination, Kernel, Maps, Settings};
use ftpguard_common::{
    abi::{
        Active, Admission, Barred, Endpoint, Listener, Mode, Origin, Peer, Pinhole, PinholeKey,
        Policy, SessionKey, Tracking, port_word,
    },
    net::{Address, Port},
    verdict::{Reason, Verdict},
};

const SERVER: &str = "192.0.2.1";
const CLIENT: &str = "198.51.100.7";
const THIEF: &str = "203.0.113.9";
const SERVER6: &str = "2001:db8::1";
const CLIENT6: &str = "2001:db8:1::7";
const THIEF6: &str = "2001:db8:2::9";

/// A live port of the ftpd with a pinhole for the client, inside the declared range.
const LIVE: u16 = 30_001;
/// A port of the range without a listener.
const UNUSED: u16 = 30_002;
/// A port of the range where other software listens.
const FOREIGN: u16 = 30_003;
/// A listener of the ftpd outside the range.
const OUTSIDE: u16 = 41_000;
/// A listener on the wildcard address, whose session is not known.
const UNKNOWN: u16 = 30_004;

const INGRESS: [(&str, u32, u32); 2] = [
    // Program, action for pass, action for deny: XDP_PASS and XDP_DROP, TC_ACT_UNSPEC and
    // TC_ACT_SHOT of <linux/bpf.h> and <linux/pkt_cls.h>.
    ("guard_ingress", 2, 1),
    ("guard_and_watch_ingress", u32::MAX, 2),
];
const EGRESS: (&str, u32, u32) = ("guard_and_watch_egress", u32::MAX, 2);

#[test]
fn syn_with_pinhole_passes_and_without_is_dropped_i2() {
    let bed = Bed::new(Mode::Enforce);
    for (server, client, thief) in [(SERVER, CLIENT, THIEF), (SERVER6, CLIENT6, THIEF6)] {
        bed.ingress(&syn(client, server, LIVE), Reason::Pinhole);
        bed.ingress(&syn(thief, server, LIVE), Reason::NoPinhole);
        // Outside the declared range a listener of the ftpd is guarded all the same (rule I1).
        bed.ingress(&syn(client, server, OUTSIDE), Reason::Pinhole);
        bed.ingress(&syn(thief, server, OUTSIDE), Reason::NoPinhole);
    }
}

#[test]
fn unused_ports_of_the_range_are_closed_i1() {
    let bed = Bed::new(Mode::Enforce);
    for (server, client) in [(SERVER, CLIENT), (SERVER6, CLIENT6)] {
        bed.ingress(&syn(client, server, UNUSED), Reason::ClosedPort);
        bed.ingress(&syn(client, server, 40_999), Reason::PortNotGuarded);
        bed.ingress(&syn(client, server, 21), Reason::ControlPort);
    }
}

#[test]
fn routed_traffic_to_the_range_is_left_alone() {
    let bed = Bed::new(Mode::Enforce);
    bed.ingress(&syn(CLIENT, "192.0.2.77", UNUSED), Reason::NotOurAddress);
    bed.ingress(&syn(CLIENT6, "2001:db8::77", UNUSED), Reason::NotOurAddress);
}

#[test]
fn foreign_listeners_in_the_range_are_left_alone_i4() {
    let bed = Bed::new(Mode::Enforce);
    for (server, thief) in [(SERVER, THIEF), (SERVER6, THIEF6)] {
        bed.ingress(&syn(thief, server, FOREIGN), Reason::ForeignListener);
    }
}

#[test]
fn a_listener_without_a_known_session_admits_control_peers_only_p4() {
    let bed = Bed::new(Mode::Enforce);
    for (server, client, thief) in [(SERVER, CLIENT, THIEF), (SERVER6, CLIENT6, THIEF6)] {
        bed.ingress(&syn(client, server, UNKNOWN), Reason::ControlPeer);
        bed.ingress(&syn(thief, server, UNKNOWN), Reason::NoPinhole);
    }
}

#[test]
fn only_syn_without_ack_is_judged_i3() {
    let bed = Bed::new(Mode::Enforce);
    for flags in 0_u8..=0xff {
        let frame = tcp_frame(THIEF, SERVER, LIVE, flags, b"payload");
        let opens = flags & 0x12 == 0x02;
        for (program, pass, deny) in INGRESS {
            let action = bed.run(program, &frame);
            assert_eq!(
                action,
                if opens { deny } else { pass },
                "flags {flags:#04x}"
            );
        }
    }
}

#[test]
fn options_tags_and_extension_headers_hide_nothing_i5() {
    let bed = Bed::new(Mode::Enforce);
    let dresses: Vec<(&str, fn(&str) -> Vec<u8>)> = vec![
        ("ipv4 options", with_ipv4_options),
        ("one VLAN tag", with_one_tag),
        ("two VLAN tags", with_two_tags),
        ("a first fragment", with_first_fragment),
        ("TCP options", with_tcp_options),
    ];
    for (name, dress) in dresses {
        println!("{name}");
        bed.ingress(&dress(CLIENT), Reason::Pinhole);
        bed.ingress(&dress(THIEF), Reason::NoPinhole);
    }
    for count in 1..=4 {
        println!("{count} IPv6 extension headers");
        bed.ingress(&with_extensions(CLIENT6, count), Reason::Pinhole);
        bed.ingress(&with_extensions(THIEF6, count), Reason::NoPinhole);
    }
    println!("an IPv6 first fragment");
    bed.ingress(&with_fragment6(CLIENT6, 0, SYN_HEADER), Reason::Pinhole);
    bed.ingress(&with_fragment6(THIEF6, 0, SYN_HEADER), Reason::NoPinhole);
}

#[test]
fn what_the_hook_cannot_follow_is_counted_and_left_to_the_kernel_i5() {
    let bed = Bed::new(Mode::Enforce);
    bed.ingress(&with_extensions(THIEF6, 5), Reason::TooDeep);
    let three_tags = {
        let mut frame = with_two_tags(THIEF);
        let tag = frame[12..16].to_vec();
        frame.splice(12..12, tag);
        frame
    };
    bed.ingress(&three_tags, Reason::TooDeep);
    let mut short_ihl = syn(THIEF, SERVER, LIVE);
    short_ihl[14] = 0x44;
    bed.ingress(&short_ihl, Reason::Malformed);
    let mut wrong_version = syn(THIEF6, SERVER6, LIVE);
    wrong_version[14] = 0x40;
    bed.ingress(&wrong_version, Reason::Malformed);
}

#[test]
fn a_frame_cut_anywhere_is_malformed_or_judged_alike() {
    let bed = Bed::new(Mode::Enforce);
    for (whole, flags_end) in [
        (syn(THIEF, SERVER, LIVE), 14 + 20 + 14),
        (syn(THIEF6, SERVER6, LIVE), 14 + 40 + 14),
        (with_extensions(THIEF6, 2), 14 + 40 + 16 + 14),
    ] {
        // TEST_RUN wants an Ethernet header.
        for length in 14..whole.len() {
            let reason = if length < flags_end {
                Reason::Malformed
            } else {
                Reason::NoPinhole
            };
            bed.xdp(&whole[..length], reason);
        }
    }
}

#[test]
fn fragments_that_hide_or_overwrite_flags_are_dropped_i5() {
    let bed = Bed::new(Mode::Enforce);
    // RFC 1858 section 3: a first fragment of eight bytes, and the second one at offset eight.
    bed.ingress(
        &with_fragment4(THIEF, 0, &SYN_HEADER[..8]),
        Reason::TinyFragment,
    );
    bed.ingress(
        &with_fragment4(THIEF, 1, &SYN_HEADER[..8]),
        Reason::TinyFragment,
    );
    bed.ingress(
        &with_fragment6(THIEF6, 0, &SYN_HEADER[..8]),
        Reason::TinyFragment,
    );
    bed.ingress(
        &with_fragment6(THIEF6, 1, &SYN_HEADER[..8]),
        Reason::TinyFragment,
    );
    // Later fragments carry no header and are not judged.
    bed.uncounted(&with_fragment4(THIEF, 2, &SYN_HEADER[..8]));
    bed.uncounted(&with_fragment6(THIEF6, 2, &SYN_HEADER[..8]));
}

#[test]
fn other_protocols_are_not_judged() {
    let bed = Bed::new(Mode::Enforce);
    let mut udp = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(v4(THIEF).octets(), v4(SERVER).octets(), 64)
        .udp(5000, LIVE)
        .write(&mut udp, b"data")
        .unwrap();
    bed.uncounted(&udp);
    let mut arp = vec![0_u8; 60];
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    bed.uncounted(&arp);
}

#[test]
fn monitor_mode_counts_the_denial_and_lets_pass_m1() {
    let bed = Bed::new(Mode::Monitor);
    let before = bed.count(Reason::NoPinhole);
    for (program, pass, _) in INGRESS {
        assert_eq!(bed.run(program, &syn(THIEF, SERVER, LIVE)), pass);
    }
    assert_eq!(bed.count(Reason::NoPinhole), before + 2);
    let before = bed.count(Reason::DataToStranger);
    let (program, pass, _) = EGRESS;
    assert_eq!(bed.run(program, &data_syn(SERVER, 20, THIEF, 5000)), pass);
    assert_eq!(bed.count(Reason::DataToStranger), before + 1);
}

#[test]
fn data_connections_leave_for_clients_only_o1_o2() {
    let bed = Bed::new(Mode::Enforce);
    for (server, client, thief) in [(SERVER, CLIENT, THIEF), (SERVER6, CLIENT6, THIEF6)] {
        bed.egress(&data_syn(server, 20, client, 5000), Reason::DataToPeer);
        bed.egress(&data_syn(server, 20, thief, 5000), Reason::DataToStranger);
        bed.egress(&data_syn(server, 20, client, 25), Reason::DataToLowPort);
        // The client's control connection comes from port 1000: RFC 959 section 3.2.
        bed.egress(&data_syn(server, 20, client, 1000), Reason::DataToPeer);
        bed.egress(&data_syn(server, 20, client, 7070), Reason::DataBarred);
    }
    bed.egress(
        &data_syn(SERVER, 20, "203.0.113.200", 389),
        Reason::DataListed,
    );
    // Other software's connections are not judged.
    let before = bed.counters();
    let (program, pass, _) = EGRESS;
    assert_eq!(bed.run(program, &data_syn(SERVER, 40_000, THIEF, 25)), pass);
    assert_eq!(bed.counters(), before);
}

#[test]
fn a_denial_is_an_event_within_the_budget_and_counted_beyond() {
    use ftpguard_common::{event::Event, verdict::Incident};
    let mut bed = Bed::new(Mode::Enforce);
    let mut events = bed.kernel.take_events().unwrap();
    bed.kernel.maps.refill_event_budget(3).unwrap();
    // One run is on one CPU from start to end, and so is its budget.
    bed.kernel
        .test_run("guard_ingress", &syn(THIEF, SERVER, LIVE), 10)
        .unwrap();
    let mut reported = 0;
    while let Some(item) = events.next() {
        let event: Event = bytemuck::pod_read_unaligned(&item);
        assert_eq!(event.reason, Reason::NoPinhole as u32);
        assert_eq!(event.remote, address(THIEF));
        assert_eq!(event.local, address(SERVER));
        assert_eq!(event.local_port.number(), LIVE);
        reported += 1;
    }
    assert_eq!(reported, 3);
    let counters = bed.kernel.maps.counters().unwrap();
    assert_eq!(counters.incident(Incident::EventSuppressed), 7);
}

/// The loaded programs, with maps as a running ftpd would leave them.
struct Bed {
    kernel: Kernel,
}

impl Bed {
    fn new(mode: Mode) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests load BPF programs: run them as root"
        );
        let host = ftpguard::preflight::check(&["lo".to_owned()], None).unwrap();
        let settings = Settings {
            policy: Policy {
                mode: mode as u32,
                tracking: Tracking::Socket as u32,
                active: Active::Client as u32,
                uses: 1,
                serving_age: 1_000_000_000,
                barred_age: 60_000_000_000,
            },
            control_ports: vec![21],
            passive_ports: Some(30_000..=30_999),
            data_source_ports: vec![20],
            exceptions: vec![Destination {
                address: address("203.0.113.192"),
                prefix: 96 + 26,
                port: Some(389),
            }],
            cgroup: host.cgroup,
        };
        let mut kernel = Kernel::load(&settings).unwrap();
        for (server, client) in [(SERVER, CLIENT), (SERVER6, CLIENT6)] {
            open(&mut kernel.maps, address(server), address(client));
        }
        Self { kernel }
    }

    fn run(&self, program: &str, frame: &[u8]) -> u32 {
        self.kernel
            .test_run(program, frame, 1)
            .unwrap()
            .return_value
    }

    fn count(&self, reason: Reason) -> u64 {
        self.kernel.maps.counters().unwrap().reason(reason)
    }

    fn counters(&self) -> Vec<u64> {
        let counters = self.kernel.maps.counters().unwrap();
        Reason::ALL
            .iter()
            .map(|reason| counters.reason(*reason))
            .collect()
    }

    /// Both ingress programs decide so, and count just this reason.
    fn ingress(&self, frame: &[u8], reason: Reason) {
        for (program, pass, deny) in INGRESS {
            self.check(program, frame, reason, pass, deny);
        }
    }

    fn xdp(&self, frame: &[u8], reason: Reason) {
        let (program, pass, deny) = INGRESS[0];
        self.check(program, frame, reason, pass, deny);
    }

    fn egress(&self, frame: &[u8], reason: Reason) {
        let (program, pass, deny) = EGRESS;
        self.check(program, frame, reason, pass, deny);
    }

    fn check(&self, program: &str, frame: &[u8], reason: Reason, pass: u32, deny: u32) {
        let mut expected = self.counters();
        expected[reason as usize] += 1;
        let action = self.run(program, frame);
        let wanted = match reason.verdict() {
            Verdict::Pass => pass,
            Verdict::Deny => deny,
        };
        assert_eq!(action, wanted, "{program} on {}", reason.label());
        let counted = self.counters();
        for (place, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(
                counted[place],
                expected[place],
                "{program}: counter {}",
                reason.label()
            );
        }
    }

    /// Both ingress programs pass the frame and count nothing.
    fn uncounted(&self, frame: &[u8]) {
        let before = self.counters();
        for (program, pass, _) in INGRESS {
            assert_eq!(self.run(program, frame), pass);
        }
        assert_eq!(self.counters(), before);
    }
}

/// Writes what the socket observer would have written for one client.
fn open(maps: &mut Maps, server: Address, client: Address) {
    maps.addresses.insert(server, 1, 0).unwrap();
    let session = SessionKey {
        client,
        server,
        client_port: Port::new(1000),
        server_port: Port::new(21),
    };
    maps.sessions
        .insert(
            session,
            ftpguard_common::abi::Session {
                id: 7,
                opened_at: 0,
                pinhole: session.pinhole(Port::new(LIVE)),
                active_port: Port::NONE,
                flags: 0,
            },
            0,
        )
        .unwrap();
    for control_port in [Port::new(21), Port::NONE] {
        let peer = Peer {
            client,
            control_port,
            pad: 0,
        };
        maps.peers.insert(peer, 1, 0).unwrap();
    }
    for port in [LIVE, OUTSIDE] {
        let key = session.pinhole(Port::new(port));
        let pinhole = Pinhole {
            session: 7,
            made_at: 0,
            uses: 1,
            origin: Origin::Exact as u32,
            client_port: session.client_port,
            server_port: session.server_port,
            pad: 0,
        };
        maps.pinholes.insert(key, pinhole, 0).unwrap();
        listen(
            maps,
            Endpoint::new(server, Port::new(port)),
            21,
            Admission::Pinhole,
        );
    }
    let wildcard = |port| Endpoint::new(Address::WILDCARD, Port::new(port));
    listen(maps, wildcard(FOREIGN), 0, Admission::Pinhole);
    listen(maps, wildcard(UNKNOWN), 21, Admission::ControlPeer);
    let barred = Barred {
        address: client,
        port: Port::new(7070),
        pad: 0,
    };
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    let now = std::time::Duration::from(now);
    maps.barred
        .insert(barred, u64::try_from(now.as_nanos()).unwrap(), 0)
        .unwrap();
}

fn listen(maps: &mut Maps, endpoint: Endpoint, control_port: u16, admission: Admission) {
    let control_port = Port::new(control_port);
    let listener = Listener {
        session: 0,
        pinhole: PinholeKey::NONE,
        tgid: 0,
        control_port,
        admission: admission as u16,
        sockets: 1,
    };
    maps.listeners.insert(endpoint, listener, 0).unwrap();
    let hint = if control_port == Port::NONE {
        port_word::ONE_FOREIGN
    } else {
        port_word::ONE_GUARDED
    };
    maps.add_port_role(endpoint.port.number(), hint).unwrap();
}

fn address(text: &str) -> Address {
    text.parse::<IpAddr>().unwrap().into()
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// An address of the other family of this test's constants.
fn server_for(client: &str) -> &'static str {
    if client.contains(':') {
        SERVER6
    } else {
        SERVER
    }
}

fn syn(client: &str, server: &str, port: u16) -> Vec<u8> {
    tcp_frame(client, server, port, 0x02, b"")
}

fn data_syn(server: &str, source_port: u16, client: &str, port: u16) -> Vec<u8> {
    frame(server, client, &tcp(source_port, port, 0x02), b"")
}

fn tcp_frame(client: &str, server: &str, port: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    frame(client, server, &tcp(50_000, port, flags), payload)
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
const SYN_HEADER: &[u8] = &[
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

fn with_ipv4_options(client: &str) -> Vec<u8> {
    ipv4_frame(
        client,
        |header| header.options = Ipv4Options::try_from(&[1_u8; 40][..]).unwrap(),
        SYN_HEADER,
    )
    .tap(|frame| {
        // etherparse counts the payload only; the options lengthen the packet.
        let total = u16::try_from(frame.len() - 14).unwrap();
        frame[16..18].copy_from_slice(&total.to_be_bytes());
    })
}

fn with_tcp_options(client: &str) -> Vec<u8> {
    let mut header = tcp(50_000, LIVE, 0x02);
    header.set_options_raw(&[1; 40]).unwrap();
    frame(client, server_for(client), &header, b"fast open data")
}

fn with_one_tag(client: &str) -> Vec<u8> {
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

fn with_two_tags(client: &str) -> Vec<u8> {
    let mut tagged = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .double_vlan(VlanId::ZERO, VlanId::ZERO)
        .ipv4(v4(client).octets(), v4(SERVER).octets(), 64)
        .tcp_header(tcp(50_000, LIVE, 0x02))
        .write(&mut tagged, b"")
        .unwrap();
    tagged
}

fn with_first_fragment(client: &str) -> Vec<u8> {
    with_fragment4(client, 0, SYN_HEADER)
}

/// A fragment at `units` of eight bytes, with more to follow.
fn with_fragment4(client: &str, units: u16, payload: &[u8]) -> Vec<u8> {
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
fn with_extensions(client: &str, count: usize) -> Vec<u8> {
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

fn with_fragment6(client: &str, units: u16, payload: &[u8]) -> Vec<u8> {
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

trait Tap: Sized {
    fn tap(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

impl Tap for Vec<u8> {}
