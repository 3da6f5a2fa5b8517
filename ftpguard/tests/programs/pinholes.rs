//! What a pinhole is the key to (rules K1, K8).

use std::sync::{LazyLock, Mutex};

use ftpguard::kernel::Kernel;
use ftpguard_common::{
    abi::{Mode, Origin, Pinhole, PinholeKey},
    net::Port,
    verdict::Reason,
};

use crate::{
    Bed,
    bed::{CLIENT, CLIENT6, LIVE, OUTSIDE, SERVER, SERVER6, THIEF, THIEF6, UNUSED, address, load},
    frames::{data_syn, syn},
};

/// Another address of the server.
const OTHER: &str = "192.0.2.2";
const OTHER6: &str = "2001:db8::2";

#[test]
fn a_pinhole_is_for_any_source_port_and_one_server_address_k1() {
    static OWN: LazyLock<Mutex<Kernel>> = LazyLock::new(|| Mutex::new(load(Mode::Enforce, false)));
    let mut bed = Bed::of(&OWN);
    for (server, other, client) in [(SERVER, OTHER, CLIENT), (SERVER6, OTHER6, CLIENT6)] {
        for source in [1, 20, 21, 1023, 1024, 50_000, 65_535] {
            bed.ingress(&data_syn(client, source, server, LIVE), Reason::Pinhole);
        }
        bed.kernel.maps.add_address(address(other)).unwrap();
        bed.ingress(&syn(client, other, LIVE), Reason::NoPinhole);
        bed.ingress(&syn(client, server, UNUSED), Reason::ClosedPort);
    }
}

/// Two clients have pinholes for one port. Each keeps its own when the other one's is gone.
#[test]
fn two_clients_may_hold_pinholes_for_one_port_k8() {
    let mut bed = Bed::new(Mode::Enforce);
    for (server, client, second) in [(SERVER, CLIENT, THIEF), (SERVER6, CLIENT6, THIEF6)] {
        let key = PinholeKey {
            client: address(second),
            server: address(server),
            port: Port::new(OUTSIDE),
            ..PinholeKey::NONE
        };
        let pinhole = Pinhole {
            session: 8,
            made_at: 0,
            uses: 1,
            origin: Origin::Exact as u32,
            client_port: Port::new(2000),
            server_port: Port::new(21),
            pad: 0,
        };
        bed.ingress(&syn(second, server, OUTSIDE), Reason::NoPinhole);
        bed.kernel.maps.pinholes.insert(key, pinhole, 0).unwrap();
        bed.ingress(&syn(second, server, OUTSIDE), Reason::Pinhole);
        bed.ingress(&syn(client, server, OUTSIDE), Reason::Pinhole);
        bed.kernel.maps.pinholes.remove(&key).unwrap();
        bed.ingress(&syn(second, server, OUTSIDE), Reason::NoPinhole);
        bed.ingress(&syn(client, server, OUTSIDE), Reason::Pinhole);
    }
}
