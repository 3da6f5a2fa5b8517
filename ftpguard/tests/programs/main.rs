//! The packet programs on crafted frames, without a network (`BPF_PROG_TEST_RUN`).
//!
//! One frame goes in; the action and the counter of exactly one reason come out. Needs root.
#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

mod adopt;
mod bed;
mod connect;
mod events;
mod frames;
mod heartbeat;
mod model;
mod modes;
mod pinholes;
mod relaxation;

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use bed::{
    CLIENT, CLIENT6, FOREIGN, LIVE, OUTSIDE, SERVER, SERVER6, THIEF, THIEF6, UNKNOWN, UNUSED,
    address, listen, load,
};
use frames::{
    SYN_HEADER, data_syn, syn, tagged, tcp_frame, udp_frame, with_extensions, with_first_fragment,
    with_fragment4, with_fragment6, with_headers6, with_ipv4_options, with_one_tag,
    with_options_only6, with_tcp_options, with_two_tags,
};
use ftpguard::kernel::Kernel;
use ftpguard_common::{
    abi::{Admission, Endpoint, Mode},
    net::Port,
    verdict::{Reason, Verdict},
};

pub(crate) const INGRESS: [(&str, u32, u32); 2] = [
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

/// As docs/limitations.md says: whose a listener on the wildcard address is cannot be seen here.
#[test]
fn routed_traffic_to_a_port_with_a_listener_on_the_wildcard_is_judged() {
    let bed = Bed::new(Mode::Enforce);
    bed.ingress(&syn(THIEF, "192.0.2.77", UNKNOWN), Reason::NoPinhole);
    bed.ingress(&syn(CLIENT, "192.0.2.77", UNKNOWN), Reason::ControlPeer);
}

#[test]
fn an_address_that_goes_is_routed_traffic_again() {
    static MOVED: LazyLock<Mutex<Kernel>> =
        LazyLock::new(|| Mutex::new(load(Mode::Enforce, false)));
    let mut bed = Bed::of(&MOVED);
    // They share a slot, so only one of them is found without a search.
    let (first, second) = ("192.0.2.99", "192.1.3.99");
    assert_eq!(address(first).slot(), address(second).slot());
    for added in [first, second] {
        bed.kernel.maps.add_address(address(added)).unwrap();
        bed.ingress(&syn(CLIENT, added, UNUSED), Reason::ClosedPort);
    }
    bed.ingress(&syn(CLIENT, first, UNUSED), Reason::ClosedPort);
    // None of them is an address of this machine.
    bed.kernel.maps.refresh_addresses().unwrap();
    for gone in [first, second, SERVER] {
        bed.ingress(&syn(CLIENT, gone, UNUSED), Reason::NotOurAddress);
    }
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

/// Whatever hints the others leave in the port's word.
#[test]
fn listeners_of_one_port_at_several_addresses_are_told_apart_i4_p4() {
    const SECOND: &str = "192.0.2.2";
    const PORT: u16 = 30_005;
    static SHARED: LazyLock<Mutex<Kernel>> =
        LazyLock::new(|| Mutex::new(load(Mode::Enforce, false)));
    let mut bed = Bed::of(&SHARED);
    let at = |server, port| Endpoint::new(address(server), Port::new(port));
    bed.kernel.maps.add_address(address(SECOND)).unwrap();
    bed.ingress(&syn(THIEF, SECOND, LIVE), Reason::NoPinhole);
    bed.ingress(&syn(THIEF, SECOND, OUTSIDE), Reason::PortNotGuarded);

    listen(
        &mut bed.kernel.maps,
        at(SECOND, LIVE),
        0,
        Admission::Pinhole,
    );
    bed.ingress(&syn(THIEF, SECOND, LIVE), Reason::ForeignListener);
    bed.ingress(&syn(THIEF, SERVER, LIVE), Reason::NoPinhole);
    bed.ingress(&syn(CLIENT, SERVER, LIVE), Reason::Pinhole);

    listen(
        &mut bed.kernel.maps,
        at(SERVER, PORT),
        21,
        Admission::Pinhole,
    );
    bed.ingress(&syn(CLIENT, SECOND, PORT), Reason::NoPinhole);
    listen(
        &mut bed.kernel.maps,
        at(SECOND, PORT),
        21,
        Admission::ControlPeer,
    );
    bed.ingress(&syn(CLIENT, SECOND, PORT), Reason::ControlPeer);
    bed.ingress(&syn(THIEF, SECOND, PORT), Reason::NoPinhole);
    bed.ingress(&syn(CLIENT, SERVER, PORT), Reason::NoPinhole);
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
    type Dress = fn(&str) -> Vec<u8>;
    let bed = Bed::new(Mode::Enforce);
    let dresses: [(&str, Dress); 5] = [
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
    for kind in EXTENSIONS {
        println!("IPv6 extension header {kind}");
        bed.ingress(&with_headers6(CLIENT6, &[kind]), Reason::Pinhole);
        bed.ingress(&with_headers6(THIEF6, &[kind]), Reason::NoPinhole);
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

/// Every extension header that is followed, by its number (RFC 8200 section 4, RFC 4302, RFC 6275,
/// RFC 7401, RFC 5533).
const EXTENSIONS: [u8; 8] = [0, 43, 44, 51, 60, 135, 139, 140];

#[test]
fn a_frame_cut_anywhere_is_malformed_or_judged_alike() {
    let bed = Bed::new(Mode::Enforce);
    // Where the flags end; of a first fragment also from where on it is known to be one.
    let ipv4 = 14 + 20;
    let ipv6 = 14 + 40;
    let mut frames = vec![
        (syn(THIEF, SERVER, LIVE), ipv4 + 14, None),
        (with_one_tag(THIEF), ipv4 + 4 + 14, None),
        (with_two_tags(THIEF), ipv4 + 8 + 14, None),
        (with_ipv4_options(THIEF), ipv4 + 40 + 14, None),
        (with_tcp_options(THIEF), ipv4 + 14, None),
        (with_first_fragment(THIEF), ipv4 + 14, Some(ipv4)),
        (syn(THIEF6, SERVER6, LIVE), ipv6 + 14, None),
        (with_extensions(THIEF6, 2), ipv6 + 16 + 14, None),
        (with_extensions(THIEF6, 4), ipv6 + 32 + 14, None),
        (
            with_fragment6(THIEF6, 0, SYN_HEADER),
            ipv6 + 8 + 14,
            Some(ipv6 + 4),
        ),
    ];
    for kind in EXTENSIONS {
        let length = if kind == 51 { 16 } else { 8 };
        let whole = with_headers6(THIEF6, &[kind]);
        frames.push((whole, ipv6 + length + 14, None));
        let whole = with_headers6(THIEF6, &[0, kind, 60]);
        frames.push((whole, ipv6 + 8 + length + 8 + 14, None));
    }
    for kind in [0x8100, 0x88a8] {
        frames.push((tagged(syn(THIEF, SERVER, LIVE), kind), ipv4 + 4 + 14, None));
        frames.push((
            tagged(syn(THIEF6, SERVER6, LIVE), kind),
            ipv6 + 4 + 14,
            None,
        ));
    }
    for (whole, flags_end, fragment) in frames {
        // TEST_RUN wants an Ethernet header.
        for length in 14..=whole.len() {
            let reason = if length >= flags_end {
                Reason::NoPinhole
            } else if fragment.is_some_and(|from| length >= from) {
                Reason::TinyFragment
            } else {
                Reason::Malformed
            };
            bed.xdp(&whole[..length], reason);
            // And a whole network header for TC.
            if length >= 14 + 40 {
                bed.ingress(&whole[..length], reason);
            }
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
    bed.ingress(&with_options_only6(THIEF6), Reason::TinyFragment);
    // Later fragments carry no header and are not judged.
    bed.uncounted(&with_fragment4(THIEF, 2, &SYN_HEADER[..8]));
    bed.uncounted(&with_fragment6(THIEF6, 2, &SYN_HEADER[..8]));
}

#[test]
fn the_bounce_shield_keeps_other_ftpds_from_services_o11() {
    let bounce = |port| data_syn(THIEF, 20, SERVER, port);
    let bounce6 = |port| data_syn(THIEF6, 20, SERVER6, port);
    let open = Bed::new(Mode::Enforce);
    open.ingress(&bounce(25), Reason::PortNotGuarded);
    open.ingress(&bounce(21), Reason::ControlPort);
    drop(open);
    let bed = Bed::shielded();
    for port in [1, 21, 25, 1023] {
        bed.ingress(&bounce(port), Reason::Bounced);
        bed.ingress(&bounce6(port), Reason::Bounced);
    }
    // A data connection to a client on this host, and anything from another port.
    bed.ingress(&bounce(1024), Reason::PortNotGuarded);
    bed.ingress(&data_syn(THIEF, 21, SERVER, 25), Reason::PortNotGuarded);
    bed.ingress(&data_syn(THIEF, 21, SERVER, 21), Reason::ControlPort);
    // Routed traffic.
    let elsewhere = data_syn(THIEF, 20, "192.0.2.77", 25);
    bed.ingress(&elsewhere, Reason::PortNotGuarded);
}

#[test]
fn other_protocols_are_not_judged() {
    let bed = Bed::new(Mode::Enforce);
    bed.uncounted(&udp_frame(THIEF, LIVE));
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

/// The loaded programs, with maps as a running ftpd would leave them.
pub(crate) struct Bed {
    pub(crate) kernel: MutexGuard<'static, Kernel>,
}

impl Bed {
    /// Loading takes seconds on an emulated processor, so each mode is loaded once. A test has
    /// it to itself, leaves the tables as they are, and compares counters with those before.
    pub(crate) fn new(mode: Mode) -> Self {
        static MONITOR: LazyLock<Mutex<Kernel>> =
            LazyLock::new(|| Mutex::new(load(Mode::Monitor, false)));
        static ENFORCE: LazyLock<Mutex<Kernel>> =
            LazyLock::new(|| Mutex::new(load(Mode::Enforce, false)));
        let kernel = match mode {
            Mode::Monitor => &MONITOR,
            Mode::Enforce => &ENFORCE,
        };
        Self::of(kernel)
    }

    /// The same with the bounce shield.
    fn shielded() -> Self {
        static SHIELDED: LazyLock<Mutex<Kernel>> =
            LazyLock::new(|| Mutex::new(load(Mode::Enforce, true)));
        Self::of(&SHIELDED)
    }

    pub(crate) fn of(kernel: &'static Mutex<Kernel>) -> Self {
        Self {
            // A test that failed has changed no table.
            kernel: kernel.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }

    pub(crate) fn run(&self, program: &str, frame: &[u8]) -> u32 {
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
    pub(crate) fn ingress(&self, frame: &[u8], reason: Reason) {
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
