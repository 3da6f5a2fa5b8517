//! The loaded programs, with maps as a running ftpd would leave them.

use std::net::IpAddr;

use ftpguard::kernel::{Destination, FtpdPorts, Kernel, Maps, Pins, Settings};
use ftpguard_common::{
    abi::{
        Active, Admission, Barred, Endpoint, Listener, MAX_SESSIONS, Mode, Origin, Peer, Pinhole,
        PinholeKey, Policy, Refusal, Session, SessionKey, Tracking,
    },
    net::{Address, Port},
};

pub(crate) const SERVER: &str = "192.0.2.1";
pub(crate) const CLIENT: &str = "198.51.100.7";
pub(crate) const THIEF: &str = "203.0.113.9";
pub(crate) const SERVER6: &str = "2001:db8::1";
pub(crate) const CLIENT6: &str = "2001:db8:1::7";
pub(crate) const THIEF6: &str = "2001:db8:2::9";

/// A live port of the ftpd with a pinhole for the client, inside the declared range.
pub(crate) const LIVE: u16 = 30_001;
/// A port of the range without a listener.
pub(crate) const UNUSED: u16 = 30_002;
/// A port of the range where other software listens.
pub(crate) const FOREIGN: u16 = 30_003;
/// A listener of the ftpd outside the range.
pub(crate) const OUTSIDE: u16 = 41_000;
/// A listener on the wildcard address, whose session is not known.
pub(crate) const UNKNOWN: u16 = 30_004;

/// Loads the programs, with or without the bounce shield (rule O11), and fills their maps.
pub(crate) fn load(mode: Mode, bounce_shield: bool) -> Kernel {
    let mut kernel = Kernel::load(&settings(mode, bounce_shield)).unwrap();
    fill(&mut kernel);
    kernel
}

/// Fills the maps as a running ftpd would.
pub(crate) fn fill(kernel: &mut Kernel) {
    for (server, client) in [(SERVER, CLIENT), (SERVER6, CLIENT6)] {
        open(&mut kernel.maps, address(server), address(client));
    }
}

/// What the programs are told before they run.
pub(crate) fn settings(mode: Mode, bounce_shield: bool) -> Settings {
    assert!(
        nix::unistd::geteuid().is_root(),
        "these tests load BPF programs: run them as root"
    );
    let host = ftpguard::preflight::check(&["lo".to_owned()], None).unwrap();
    Settings {
        policy: Policy {
            mode: mode as u32,
            tracking: Tracking::Socket as u32,
            active: Active::Client as u32,
            uses: 1,
            serving_age: 1_000_000_000,
            barred_age: 3_600_000_000_000,
            // There is no daemon, and tests take their time.
            heartbeat_age: u64::MAX,
            without_daemon: 0,
            sessions_per_client: 64,
            wake: 0,
            refused: 0,
            relaxed: 0,
            pad: 0,
        },
        ftpds: vec![FtpdPorts {
            control: vec![21],
            passive: vec![30_000..=30_999],
            mode: None,
        }],
        data_source_ports: vec![20],
        exceptions: vec![Destination {
            address: address("203.0.113.192"),
            prefix: 96 + 26,
            port: Some(389),
        }],
        relaxations: Vec::new(),
        bounce_shield,
        cgroup: host.cgroup,
        max_sessions: MAX_SESSIONS,
        pins: Pins::Nowhere,
    }
}

/// Writes what the socket observer would have written for one client.
fn open(maps: &mut Maps, server: Address, client: Address) {
    maps.add_address(server).unwrap();
    let session = SessionKey {
        client,
        server,
        client_port: Port::new(1000),
        server_port: Port::new(21),
    };
    maps.sessions
        .insert(
            session,
            Session {
                id: 7,
                opened_at: 0,
                pinhole: session.pinhole(Port::new(LIVE)),
                client_sequence: 0,
                rein_sequence: 0,
                pad: 0,
            },
            0,
        )
        .unwrap();
    for peer in [session.peer(), Peer::of_any(client)] {
        maps.peers.insert(peer, 1, 0).unwrap();
    }
    for port in [LIVE, OUTSIDE] {
        let key = session.pinhole(Port::new(port));
        let pinhole = Pinhole::of(&session, 7, 0, 1, Origin::Exact);
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
    bar(maps, client, 7070, 21);
}

/// A connect() of the ftpd with this control port was refused just now.
pub(crate) fn bar(maps: &mut Maps, address: Address, port: u16, control_port: u16) {
    let barred = Barred {
        address,
        port: Port::new(port),
        pad: 0,
    };
    let refusal = Refusal {
        at: ftpguard::clock::monotonic_ns(),
        control_port: Port::new(control_port),
        pad: [0; 3],
    };
    maps.barred.insert(barred, refusal, 0).unwrap();
}

/// Writes a listener, and the hint that there is one.
pub(crate) fn listen(maps: &mut Maps, endpoint: Endpoint, control_port: u16, admission: Admission) {
    let control_port = Port::new(control_port);
    let listener = Listener {
        session: 0,
        socket: 0,
        pinhole: PinholeKey::NONE,
        tgid: 0,
        control_port,
        admission: admission as u16,
        sockets: 1,
    };
    maps.listeners.insert(endpoint, listener, 0).unwrap();
    maps.hint_listener(endpoint.port, &listener);
}

pub(crate) fn address(text: &str) -> Address {
    text.parse::<IpAddr>().unwrap().into()
}
