//! Ways to a listener that are not the straight one: tunnels, stacked devices, connections that
//! the kernel opens (rule I5).

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    time::Duration,
};

use ftpguard_tests::{
    Family, Host,
    attack::Answer,
    ftpd::{CONTROL_PORT, Kind, Settings},
    guard::Options,
    namespace::Namespace,
    sandbox::INTERFACE,
    scenario::Stage,
};

use crate::help::{control, guard_with, is_kept_out, race, stage};

/// Runs `nft` on the host with this as its input.
pub(crate) fn nft(stage: &Stage, host: &Namespace, script: &str) {
    let file = stage.sandbox.folder().join("detour.nft");
    std::fs::write(&file, script).expect("the rules");
    let mut command = Command::new("nft");
    command.arg("--file").arg(&file);
    host.run(&mut command, Duration::from_secs(5))
        .and_then(|done| done.success("nft"))
        .expect("nft");
}

pub(crate) fn ip(host: &Namespace, command: &str) {
    let words: Vec<&str> = command.split(' ').collect();
    host.ip(&words)
        .and_then(|done| done.success(command))
        .expect("ip");
}

/// Addresses of the server, the client and the thief in a network of their own.
const OVERLAY: [Ipv4Addr; 3] = [
    Ipv4Addr::new(192, 0, 2, 1),
    Ipv4Addr::new(192, 0, 2, 2),
    Ipv4Addr::new(192, 0, 2, 3),
];

fn overlay(stage: &Stage, make: impl Fn(&Host)) -> SocketAddr {
    let hosts = [
        stage.sandbox.server(),
        stage.sandbox.client(),
        stage.sandbox.thief(),
    ];
    for (host, address) in hosts.into_iter().zip(OVERLAY) {
        make(host);
        ip(host, &format!("address add {address}/24 dev over0"));
        ip(host, "link set over0 up");
    }
    SocketAddr::from((OVERLAY[0], CONTROL_PORT))
}

fn guarded_by_both(stage: &Stage, control: SocketAddr, names: &[&str]) {
    let (theft, _) = race(stage, control);
    assert!(matches!(theft, Answer::Connected(_)), "{theft:?}");
    for interfaces in [vec![], names.to_vec()] {
        let guard = guard_with(
            stage,
            &Options {
                interfaces: interfaces.iter().map(|name| (*name).to_owned()).collect(),
                ..Options::default()
            },
        );
        let (theft, honest) = race(stage, control);
        assert!(is_kept_out(&theft), "{theft:?}\n{}", guard.log());
        if interfaces.is_empty() {
            assert!(
                matches!(theft, Answer::Silent),
                "{theft:?}\n{}",
                guard.ready()
            );
        }
        assert_eq!(honest, Ok(()), "{}", guard.log());
    }
}

/// Ethernet in UDP, the other hosts reached by multicast.
#[test]
fn a_vxlan_tunnel() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let control = overlay(&stage, |host| {
        ip(
            host,
            "link add over0 type vxlan id 5 group 239.1.1.1 dev eth0 dstport 4789",
        );
    });
    guarded_by_both(&stage, control, &[INTERFACE]);
}

/// A macvlan device has the traffic of its parent that is for its own hardware address.
#[test]
fn a_macvlan_device() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let control = overlay(&stage, |host| {
        ip(
            host,
            "link add link eth0 name over0 type macvlan mode bridge",
        );
    });
    guarded_by_both(&stage, control, &[INTERFACE]);
    guarded_by_both(&stage, control, &["over0"]);
}

/// An interface whose packets have no Ethernet header, as those of WireGuard and most tunnels:
/// VXLAN-GPE with routes that name the other end.
#[test]
fn a_tunnel_without_ethernet() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let v4 = Family::V4;
    let hosts = [
        stage.sandbox.server(),
        stage.sandbox.client(),
        stage.sandbox.thief(),
    ];
    let control = overlay(&stage, |host| {
        ip(host, "link add over0 type vxlan gpe external dstport 4790");
        host.set("net/ipv4/conf/all/rp_filter", "0")
            .expect("rp_filter");
    });
    for host in hosts {
        for (other, address) in hosts.into_iter().zip(OVERLAY) {
            if host.name() != other.name() {
                ip(
                    host,
                    &format!(
                        "route add {address}/32 encap ip id 7 dst {} dev over0",
                        other.address(v4)
                    ),
                );
            }
        }
    }
    let (theft, _) = race(&stage, control);
    assert!(matches!(theft, Answer::Connected(_)), "{theft:?}");
    for (interfaces, wanted) in [(vec![], Some("none")), (vec![INTERFACE.to_owned()], None)] {
        let guard = guard_with(
            &stage,
            &Options {
                interfaces,
                ..Options::default()
            },
        );
        let (theft, honest) = race(&stage, control);
        assert!(
            matches!(theft, Answer::Refused),
            "{theft:?}\n{}",
            guard.log()
        );
        assert_eq!(honest, Ok(()), "{}", guard.log());
        let status = guard.status().expect("a status");
        let rows = status["interfaces"].as_array().expect("rows");
        let row = rows.iter().find(|row| row["interface"] == "over0");
        // All interfaces are wanted in the first round, in the second only the other one.
        let ingress = row.map(|row| row["ingress"].clone());
        assert_eq!(ingress, wanted.map(Into::into), "{status:#}");
    }
}

/// Every SYN is answered with a cookie, as in a flood: no half-open connection is kept.
#[test]
fn syn_cookies() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let server = stage.sandbox.server();
    server.set("net/ipv4/tcp_syncookies", "2").expect("cookies");
    guarded_by_both(&stage, control(server), &["lo"]);
}

/// The kernel opens connections for clients, and tells the ftpd once they are open.
#[test]
fn a_syn_proxy_in_front() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let server = stage.sandbox.server();
    server
        .set("net/netfilter/nf_conntrack_tcp_loose", "0")
        .expect("conntrack");
    nft(
        &stage,
        server,
        "table ip shield {
            chain pre { type filter hook prerouting priority -300;
                tcp dport 50000-50031 tcp flags syn notrack; }
            chain input { type filter hook input priority 0;
                tcp dport 50000-50031 ct state invalid,untracked synproxy mss 1460 wscale 7 timestamp sack-perm; }
        }",
    );
    let guard = guard_with(&stage, &Options::default());
    let (theft, honest) = race(&stage, control(server));
    assert!(
        matches!(theft, Answer::Silent),
        "{theft:?}\n{}",
        guard.log()
    );
    assert_eq!(honest, Ok(()), "{}", guard.log());
}
