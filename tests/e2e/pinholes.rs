//! Where a pinhole is, what uses it up, and when it ends (rules K3, K5, K6).

use std::{net::SocketAddr, thread, time::Duration};

use etherparse::PacketBuilder;
use ftpguard_common::verdict::Reason;
use ftpguard_tests::{
    Family, FtpClient, Guard,
    attack::{self, Answer},
    client::Commands,
    ftpd::{FILE, Kind, Settings},
    raw::{RawWire, hardware_address},
    sandbox::INTERFACE,
    scenario::Stage,
};

use crate::help::{guard, stage};

/// Documentation addresses (RFC 5737, RFC 3849): more addresses of the server.
const MORE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

fn login(stage: &Stage, family: Family) -> FtpClient {
    let host = stage.sandbox.client();
    host.enter(|| stage.login(family))
        .expect("namespace")
        .expect("login")
}

fn wait_for_pinholes(guard: &Guard, wanted: u64) {
    for _ in 0..100 {
        if guard.status().expect("status")["pinholes"] == wanted {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("{wanted} pinholes expected\n{}", guard.log());
}

/// K5: the ftpd closes the listener, because its client chose active mode after all, and the
/// session goes on; or the control connection ends.
#[test]
fn k5_a_pinhole_ends_with_its_listener_or_control_connection() {
    for kind in Kind::ALL {
        let stage = stage(Settings::unchecked(kind));
        let guard = guard(&stage);
        let client = stage.sandbox.client();
        let closed = |announced| {
            wait_for_pinholes(&guard, 0);
            let answer = attack::knock(client, announced).expect("a try");
            assert!(matches!(answer, Answer::Silent), "{kind:?}: {answer:?}");
        };
        for family in Family::ALL {
            let mut ftp = login(&stage, family);
            let announced = ftp.passive(Commands::of(family)).expect("PASV or EPSV");
            wait_for_pinholes(&guard, 1);
            let content = client.enter(|| ftp.retrieve_active(FILE, Commands::of(family)));
            let content = content.expect("namespace").expect("a transfer");
            assert!(stage.is_file(&content), "{kind:?}");
            closed(announced);
            ftp.expect("NOOP", 200).expect("the session goes on");
            let announced = ftp.passive(Commands::of(family)).expect("PASV or EPSV");
            wait_for_pinholes(&guard, 1);
            drop(ftp);
            closed(announced);
        }
    }
}

/// A SYN that says it comes from `from`.
fn syn(from: SocketAddr, to: SocketAddr, hardware: [u8; 6]) -> Vec<u8> {
    let ethernet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], hardware);
    let ip = match (from, to) {
        (SocketAddr::V4(from), SocketAddr::V4(to)) => {
            ethernet.ipv4(from.ip().octets(), to.ip().octets(), 64)
        }
        (SocketAddr::V6(from), SocketAddr::V6(to)) => {
            ethernet.ipv6(from.ip().octets(), to.ip().octets(), 64)
        }
        (SocketAddr::V4(_), SocketAddr::V6(_)) | (SocketAddr::V6(_), SocketAddr::V4(_)) => {
            panic!("one family")
        }
    };
    let mut frame = Vec::new();
    ip.tcp(from.port(), to.port(), 1, 65_000)
        .syn()
        .write(&mut frame, &[])
        .expect("a frame");
    frame
}

/// K6, A3, corner cases 11 and 12: SYNs with the client's address, from several ports, sent by
/// somebody who sees no answer. They pass, and burn nothing: the client is served afterwards.
#[test]
fn k6_a_forged_syn_burns_nothing() {
    for kind in Kind::ALL {
        let stage = stage(Settings::unchecked(kind));
        let guard = guard(&stage);
        let (server, client) = (stage.sandbox.server(), stage.sandbox.client());
        let hardware = hardware_address(server).expect("an address");
        let forger = RawWire::open(stage.sandbox.thief()).expect("a wire");
        for (round, family) in (1..).zip(Family::ALL) {
            let mut ftp = login(&stage, family);
            let announced = ftp.passive(Commands::of(family)).expect("PASV or EPSV");
            for port in 40_000..40_005 {
                let frame = syn(client.socket(family, port), announced, hardware);
                forger.send(&frame).expect("a SYN");
            }
            // Each passes the gate, and the client's own host ends what it knows nothing of.
            guard
                .wait_for_counter(Reason::Pinhole, 6 * round - 1)
                .expect("they pass");
            thread::sleep(Duration::from_millis(100));
            let status = guard.status().expect("status");
            assert_eq!(status["pinholes"], 1, "{kind:?}\n{}", guard.log());
            let content = client.enter(|| {
                ftp.retrieve_announced(FILE, announced)
                    .unwrap_or_else(|error| panic!("{kind:?}: {error:#}\n{}", guard.log()))
            });
            assert!(stage.is_file(&content.expect("namespace")));
            wait_for_pinholes(&guard, 0);
        }
    }
}

/// K3: the ftpd listens on the wildcard address, so any address of the host would do. The pinhole
/// is at the address that the client spoke to.
#[test]
fn k3_a_pinhole_is_at_the_control_connections_address() {
    let stage = stage(Settings::unchecked(Kind::Wayward));
    let (server, client) = (stage.sandbox.server(), stage.sandbox.client());
    for (address, length) in MORE.iter().zip(["32", "128"]) {
        let own = format!("{address}/{length}");
        server
            .ip(&["address", "add", &own, "dev", INTERFACE, "nodad"])
            .expect("one more address");
        client
            .ip(&["route", "add", &own, "dev", INTERFACE])
            .expect("a way to it");
    }
    let elsewhere = |family, port| {
        let address = match family {
            Family::V4 => MORE[0],
            Family::V6 => MORE[1],
        };
        SocketAddr::new(address.parse().expect("an address"), port)
    };
    let announce = |family| {
        let mut ftp = login(&stage, family);
        ftp.expect("SITE WIDE", 200).expect("WIDE");
        let announced = ftp.passive(Commands::of(family)).expect("PASV or EPSV");
        (ftp, announced)
    };
    for family in Family::ALL {
        let (_ftp, announced) = announce(family);
        let answer = attack::knock(client, elsewhere(family, announced.port())).expect("a try");
        assert!(
            matches!(answer, Answer::Connected(_)),
            "without a guard: {answer:?}"
        );
    }
    let guard = guard(&stage);
    for family in Family::ALL {
        let (mut ftp, announced) = announce(family);
        let answer = attack::knock(client, elsewhere(family, announced.port())).expect("a try");
        assert!(
            matches!(answer, Answer::Silent),
            "{answer:?}\n{}",
            guard.log()
        );
        let content = client.enter(|| {
            ftp.retrieve_announced(FILE, announced)
                .expect("the address it spoke to")
        });
        assert!(stage.is_file(&content.expect("namespace")));
    }
}
