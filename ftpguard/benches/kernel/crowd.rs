//! Many sessions in the tables.

use std::{net::Ipv4Addr, ops::Range};

use ftpguard::kernel::Maps;
use ftpguard_common::{
    abi::{Admission, Endpoint, Origin, Pinhole, Session, SessionKey},
    net::{Address, Port},
};

use crate::bed::{self, SERVER};

/// The lowest port of their listeners: no port that a measured frame goes to.
const FIRST_PORT: u32 = 42_000;

/// Adds sessions of other clients, each with a listener of its own and a pinhole to it.
pub(crate) fn add(maps: &mut Maps, numbers: Range<u32>) {
    let server = bed::address(SERVER);
    for number in numbers {
        let session = SessionKey {
            client: Address::from(Ipv4Addr::from(0x0a00_0000 | number)),
            server,
            client_port: Port::new(1000),
            server_port: Port::new(21),
        };
        let port = Port::new(u16::try_from(FIRST_PORT + number).unwrap());
        let value = Session {
            id: u64::from(number) + 100,
            opened_at: 0,
            pinhole: session.pinhole(port),
            client_sequence: 0,
            rein_sequence: 0,
            pad: 0,
        };
        maps.sessions.insert(session, value, 0).unwrap();
        maps.peers.insert(session.peer(), 1, 0).unwrap();
        let pinhole = Pinhole::of(&session, value.id, 0, 1, Origin::Exact);
        maps.pinholes.insert(value.pinhole, pinhole, 0).unwrap();
        bed::listen(maps, Endpoint::new(server, port), 21, Admission::Pinhole);
    }
}
