//! A flood of SYNs: what the guard tells of it, and what that costs (rule I6).

use std::{
    net::{IpAddr, SocketAddr},
    thread,
    time::Duration,
};

use ftpguard_common::verdict::Reason;
use ftpguard_tests::{
    Family, Host,
    attack::{self, Answer},
    client::{self, Commands},
    flood::{Flood, processor_time, sent},
    ftpd::{Kind, Settings},
    guard::Options,
    raw::hardware_address,
};

use crate::help::{guard_with, is_kind, stage};

const SECONDS: u32 = 3;
/// SYNs a second, if the machine can make so many.
const RATE: u32 = 1_000_000;
/// What the daemon may take of one processor.
const SHARE: f64 = 0.05;

fn v4(host: &Host) -> std::net::Ipv4Addr {
    match host.address(Family::V4) {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => std::net::Ipv4Addr::UNSPECIFIED,
    }
}

/// Random sources flood an unused port of the range, then a live one. The daemon's share of a
/// processor stays small, its log short, the client's transfer goes on, and a thief is named.
#[test]
fn i6_a_flood_of_random_sources() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let (server, client) = (stage.sandbox.server(), stage.sandbox.client());
    let thief = stage.sandbox.thief();
    let guard = guard_with(
        &stage,
        &Options {
            xdp_mode: "native",
            ..Options::default()
        },
    );
    let hardware = hardware_address(server).expect("an address");
    let flood = |port| Flood {
        interface: "srv",
        hardware,
        destination: v4(server),
        port,
        rate: RATE,
        seconds: SECONDS,
        source: None,
    };
    let mut ftp = client
        .enter(|| stage.login(Family::V4))
        .expect("namespace")
        .expect("a session");
    let announced = ftp.passive(Commands::Classic).expect("a port");
    let unused = (50_000..=50_031).find(|port| *port != announced.port());
    for (port, reason) in [
        (unused.expect("a port"), Reason::ClosedPort),
        (announced.port(), Reason::NoPinhole),
    ] {
        let counted = guard.counter(reason).expect("a counter");
        let lines = guard.log().lines().count();
        let before = processor_time(guard.id()).expect("its time");
        let running = flood(port).start(stage.sandbox.lan()).expect("a flood");
        if reason == Reason::ClosedPort {
            // A thief in the middle of it is told of by name.
            let target = SocketAddr::new(server.address(Family::V4), announced.port());
            let theft = attack::knock(thief, target).expect("a try");
            assert!(matches!(theft, Answer::Silent), "{theft:?}");
            let address = thief.address(Family::V4).to_string();
            guard
                .wait_for_event("theft-attempt", |event| {
                    is_kind(event, "syn-denied")
                        && event["attack"] == "theft-attempt"
                        && event["client"] == address.as_str()
                })
                .expect("the thief is named");
        }
        let sent = sent(running).expect("the flood ends");
        let taken = processor_time(guard.id()).expect("its time");
        let share = taken.saturating_sub(before).as_secs_f64() / f64::from(SECONDS);
        let seen = guard.counter(reason).expect("a counter") - counted;
        let lines = guard.log().lines().count() - lines;
        println!(
            "{}: {sent} SYNs sent, {seen} denied in {SECONDS} s; the daemon took {:.2} % of a \
             processor and wrote {lines} lines",
            reason.label(),
            share * 100.0,
        );
        assert!(seen > sent / 2, "{seen} of {sent} were judged");
        assert!(share < SHARE, "the daemon took {share}");
        assert!(lines < 600, "{lines} lines");
    }
    let data = client.enter(|| client::connect(announced).map(drop));
    data.expect("namespace").expect("the client connects");
}

/// One source floods the live port; another thief is told of all the same.
#[test]
fn i6_one_source_does_not_hide_another() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let (server, client) = (stage.sandbox.server(), stage.sandbox.client());
    // Native, so that the server's end takes frames that carry no packet yet.
    let options = Options {
        xdp_mode: "native",
        ..Options::default()
    };
    let guard = guard_with(&stage, &options);
    let mut ftp = client
        .enter(|| stage.login(Family::V4))
        .expect("namespace")
        .expect("a session");
    let announced = ftp.passive(Commands::Classic).expect("a port");
    let loud = "198.18.0.1";
    let flood = Flood {
        interface: "srv",
        hardware: hardware_address(server).expect("an address"),
        destination: v4(server),
        port: announced.port(),
        rate: 20_000,
        seconds: 2,
        source: Some(loud.parse().expect("an address")),
    };
    let running = flood.start(stage.sandbox.lan()).expect("a flood");
    thread::sleep(Duration::from_secs(1));
    let thief = stage.sandbox.thief();
    let theft = attack::knock(thief, announced).expect("a try");
    assert!(matches!(theft, Answer::Silent), "{theft:?}");
    let of = |address: &str| {
        let events = guard.events();
        let told = events
            .iter()
            .filter(|event| is_kind(event, "syn-denied") && event["client"] == address);
        told.count()
    };
    let sent = sent(running).expect("the flood ends");
    let address = thief.address(Family::V4).to_string();
    guard
        .wait_for_event("of the quiet thief", |event| {
            is_kind(event, "syn-denied") && event["client"] == address.as_str()
        })
        .expect("it is told of");
    let loud = of(loud);
    // Ten a second, and the flood may touch four seconds.
    assert!((1..=40).contains(&loud), "{loud} of {sent} told");
}
