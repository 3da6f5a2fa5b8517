//! Addresses and ports that a firewall translates on the way (rules I2, I5, K3).

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::Command,
    time::Duration,
};

use ftpguard_tests::{
    Family, FtpClient, Guard,
    attack::{self, Answer},
    client::Commands,
    ftpd::{Kind, Settings},
    guard::Options,
    sandbox::INTERFACE,
    scenario::Stage,
    target::Target,
};

use crate::{
    detours::{ip, nft},
    help::{control, guard_with, is_kept_out, race, race_to, stage, straight},
};

/// How far the public ports lie above the passive ones, where a firewall moves them.
const SHIFT: u16 = 10_000;

/// From public port to passive port, for a rule.
fn shifted() -> String {
    let pairs: Vec<String> = (50_000..=50_031)
        .map(|port| format!("{} : {port}", port + SHIFT))
        .collect();
    pairs.join(", ")
}

fn moved(mut address: SocketAddr) -> SocketAddr {
    address.set_port(address.port() + SHIFT);
    address
}

/// A firewall on the server redirects public ports to the passive range.
#[test]
fn ports_that_are_redirected() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let server = stage.sandbox.server();
    nft(
        &stage,
        server,
        &format!(
            "table ip nat {{ chain pre {{ type nat hook prerouting priority -100;
             tcp dport 60000-60031 redirect to : tcp dport map {{ {} }}
             }}
             }}",
            shifted()
        ),
    );
    let (theft, _) = race_to(&stage, control(server), moved);
    assert!(matches!(theft, Answer::Connected(_)), "{theft:?}");
    for xdp_mode in ["native", "tc"] {
        let guard = guard_with(
            &stage,
            &Options {
                xdp_mode,
                ..Options::default()
            },
        );
        for to in [straight, moved] {
            let (theft, honest) = race_to(&stage, control(server), to);
            assert!(is_kept_out(&theft), "{theft:?}\n{}", guard.log());
            assert_eq!(honest, Ok(()), "{}", guard.log());
        }
        let (theft, _) = race_to(&stage, control(server), moved);
        // The early gates do not see the port that it is for.
        assert!(matches!(theft, Answer::Refused), "{theft:?}");
    }
}

/// The container's address, and its host's in the same network.
const CONTAINER: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 2);

/// Makes the server a container on the third host, which publishes its ports as Docker does
/// without its proxy: by translation of the destination address. The passive ports also at
/// other numbers.
fn publish(stage: &Stage) -> SocketAddr {
    let (host, container) = (stage.sandbox.third(), stage.sandbox.server());
    let add = format!(
        "link add ctr type veth peer name eth1 netns {}",
        container.name()
    );
    ip(host, &add);
    ip(host, "address add 172.20.0.1/24 dev ctr");
    ip(host, "link set ctr up");
    ip(container, &format!("link set {INTERFACE} down"));
    ip(container, &format!("address add {CONTAINER}/24 dev eth1"));
    ip(container, "link set eth1 up");
    ip(container, "route add default via 172.20.0.1");
    host.set("net/ipv4/ip_forward", "1").expect("forwarding");
    nft(
        stage,
        host,
        &format!(
            "table ip nat {{ chain pre {{ type nat hook prerouting priority -100;
             fib daddr type != local accept
             tcp dport 21 dnat to {CONTAINER}
             tcp dport 50000-50031 dnat to {CONTAINER}
             tcp dport 60000-60031 dnat ip to {CONTAINER} : tcp dport map {{ {} }}
             }}
             }}",
            shifted()
        ),
    );
    control(host)
}

/// The guard runs on the container's host.
#[test]
fn a_container_behind_translation() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let published = publish(&stage);
    for to in [straight, moved] {
        let (theft, _) = race_to(&stage, published, to);
        assert!(matches!(theft, Answer::Connected(_)), "{theft:?}");
    }
    let guard_on = |interfaces| {
        let options = Options {
            interfaces,
            ..Options::default()
        };
        let (host, ftpd) = (stage.sandbox.third(), stage.sandbox.ftpd_cgroup());
        Guard::start_on(&stage.sandbox, host, ftpd, &options).expect("ftpguard becomes ready")
    };
    let guard = guard_on(Vec::new());
    for to in [straight, moved] {
        let (theft, honest) = race_to(&stage, published, to);
        assert!(
            matches!(theft, Answer::Silent),
            "{theft:?}\n{}",
            guard.log()
        );
        assert_eq!(honest, Ok(()), "{}", guard.log());
    }
    drop(guard);
    // Without a gate at the way to the container nobody sees the port that was meant.
    let guard = guard_on(vec![INTERFACE.to_owned()]);
    let (theft, honest) = race(&stage, published);
    assert!(
        matches!(theft, Answer::Silent),
        "{theft:?}\n{}",
        guard.log()
    );
    assert_eq!(honest, Ok(()), "{}", guard.log());
    let (theft, _) = race_to(&stage, published, moved);
    assert!(
        matches!(theft, Answer::Connected(_)),
        "a known limitation: {theft:?}"
    );
}

/// The guard runs in the container.
#[test]
fn a_guard_in_the_container() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let published = publish(&stage);
    let guard = guard_with(
        &stage,
        &Options {
            interfaces: vec!["eth1".to_owned()],
            ..Options::default()
        },
    );
    for to in [straight, moved] {
        let (theft, honest) = race_to(&stage, published, to);
        assert!(is_kept_out(&theft), "{theft:?}\n{}", guard.log());
        assert_eq!(honest, Ok(()), "{}", guard.log());
    }
}

/// The server's host is also a router or a bridge: what it passes on to others is not its
/// business, even to a port where its own ftpd listens.
#[test]
fn traffic_of_others_to_the_same_port() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let (server, client, thief, third) = (
        stage.sandbox.server(),
        stage.sandbox.client(),
        stage.sandbox.thief(),
        stage.sandbox.third(),
    );
    let far = third.address(Family::V4);
    pass_on(&stage);
    let _guard = guard_with(&stage, &Options::default());
    let mut ftp = client
        .enter(|| FtpClient::login(control(server)))
        .expect("namespace")
        .expect("a session");
    let announced = ftp.passive(Commands::Extended).expect("a port");
    let elsewhere = SocketAddr::new(far, announced.port());
    let _listener = third
        .enter(|| TcpListener::bind(elsewhere))
        .expect("namespace")
        .expect("a listener");
    let answer = attack::knock(thief, elsewhere).expect("a try");
    assert!(matches!(answer, Answer::Connected(_)), "{answer:?}");
}

/// An FTP server elsewhere, whose packets pass through the guarded host, opens an active data
/// connection to its own client.
#[test]
fn active_connections_of_others() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    pass_on(&stage);
    let guard = guard_with(&stage, &Options::default());
    let client = Target::start(stage.sandbox.third(), Family::V4, 0).expect("a client");
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--local-port", "20", "--max-time", "1"]);
    curl.arg(format!("telnet://{}", client.address()));
    stage
        .sandbox
        .thief()
        .run(&mut curl, Duration::from_secs(5))
        .expect("curl runs");
    assert_eq!(client.wait_for_accepted(1), 1, "{}", guard.log());
}

/// The server passes on what the thief sends to the third host.
fn pass_on(stage: &Stage) {
    let (server, v4) = (stage.sandbox.server(), Family::V4);
    server.set("net/ipv4/ip_forward", "1").expect("forwarding");
    // Without a word to the thief that there is a shorter way.
    for place in ["all", INTERFACE] {
        server
            .set(&format!("net/ipv4/conf/{place}/send_redirects"), "0")
            .expect("redirects");
    }
    let (far, via) = (stage.sandbox.third().address(v4), server.address(v4));
    ip(
        stage.sandbox.thief(),
        &format!("route add {far}/32 via {via}"),
    );
}
