//! Hosts with odd networks: servers behind a bridge, and interfaces without offloads.

use std::{process::Command, time::Duration};

use ftpguard_tests::{
    Family, Ftpd, Guard,
    attack::Answer,
    ftpd::{CONTROL_PORT, Kind, Settings},
    guard::Options,
    namespace::Namespace,
    sandbox::INTERFACE,
    scenario::{Scene, Stage, Winner},
};

use crate::help::{guard_with, play, race, stage};

/// Two servers in network namespaces of their own, as containers are, behind a bridge on whose
/// host the guard runs: each is guarded at the bridge's ports (rules I2, K3).
#[test]
fn two_servers_behind_a_bridge() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let second = stage.sandbox.third();
    let _ftpd = Ftpd::start_on(second, &stage.sandbox, Settings::unchecked(Kind::Vsftpd))
        .expect("a second ftpd");
    let servers = [stage.sandbox.server(), second];
    for server in servers {
        let (theft, _) = race(&stage, server.socket(Family::V4, CONTROL_PORT));
        assert!(
            matches!(theft, Answer::Connected(_)),
            "guard off: {theft:?}"
        );
    }
    for xdp_mode in ["auto", "native"] {
        let options = Options {
            // The bridge itself runs no native XDP.
            interfaces: ["srv", "cli", "thf", "trd"].map(str::to_owned).to_vec(),
            xdp_mode,
            ..Options::default()
        };
        let guard = Guard::start_on(
            &stage.sandbox,
            stage.sandbox.lan(),
            stage.sandbox.ftpd_cgroup(),
            &options,
        );
        let guard = guard.expect("ftpguard becomes ready");
        for server in servers {
            for family in Family::ALL {
                let (theft, honest) = race(&stage, server.socket(family, CONTROL_PORT));
                assert!(
                    matches!(theft, Answer::Silent),
                    "{xdp_mode}: {theft:?}\n{}",
                    guard.log()
                );
                honest.expect("the client connects");
            }
        }
        play(&stage, Scene::Passive, Winner::Honest, Some(&guard));
        play(&stage, Scene::Active, Winner::Honest, Some(&guard));
    }
}

/// Segmentation, checksums and aggregation are done by software or not at all; with offloads on
/// every other test runs.
#[test]
fn without_offloads() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    switch_offloads_off(&stage);
    in_every_mode(&stage, |_, guard| {
        play(&stage, Scene::Passive, Winner::Honest, Some(guard));
    });
}

/// The thief wins without a guard; with one in each mode he loses, and transfers arrive. `passive`
/// makes those of passive mode.
fn in_every_mode(stage: &Stage, passive: impl Fn(&str, &Guard)) {
    play(stage, Scene::ThiefFirst, Winner::Attacker, None);
    for xdp_mode in ["native", "generic", "tc"] {
        let options = Options {
            xdp_mode,
            ..Options::default()
        };
        let guard = guard_with(stage, &options);
        play(stage, Scene::ThiefFirst, Winner::Honest, Some(&guard));
        passive(xdp_mode, &guard);
        play(stage, Scene::Active, Winner::Honest, Some(&guard));
    }
}

/// On both ways between client and server.
fn switch_offloads_off(stage: &Stage) {
    let sandbox = &stage.sandbox;
    no_offloads(sandbox.server(), INTERFACE);
    no_offloads(sandbox.client(), INTERFACE);
    no_offloads(sandbox.lan(), "srv");
    no_offloads(sandbox.lan(), "cli");
}

fn no_offloads(host: &Namespace, interface: &str) {
    let mut ethtool = Command::new("ethtool");
    ethtool.args(["--offload", interface]);
    for offload in ["tx", "rx", "sg", "tso", "gso", "gro"] {
        ethtool.args([offload, "off"]);
    }
    host.run(&mut ethtool, Duration::from_secs(5))
        .and_then(|done| done.success("ethtool"))
        .expect("offloads are off");
}

/// Frames of nine kilobytes: longer than a page, so XDP sees them in pieces. Transfers pass whole
/// in every mode, and so the thief's short SYN is judged there as well.
#[test]
fn large_frames() {
    const MTU: &str = "9000";
    /// More than the mean of frames of 1500 bytes can be.
    const LARGE: u64 = 2_000;
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let sandbox = &stage.sandbox;
    for (host, interfaces) in [
        (&**sandbox.server(), &[INTERFACE][..]),
        (&**sandbox.client(), &[INTERFACE]),
        (sandbox.lan(), &["srv", "cli", "bridge"]),
    ] {
        for interface in interfaces {
            host.ip(&["link", "set", interface, "mtu", MTU])
                .expect("a large MTU");
        }
    }
    switch_offloads_off(&stage);
    in_every_mode(&stage, |xdp_mode, guard| {
        let before = received(sandbox.server());
        play(&stage, Scene::Passive, Winner::Honest, Some(guard));
        let after = received(sandbox.server());
        // Most of what the server receives is what the client stores.
        let mean = (after.0 - before.0) / (after.1 - before.1);
        assert!(mean > LARGE, "{xdp_mode}: {mean} bytes in a frame");
    });
}

/// Bytes and frames that the host has received on its interface.
fn received(host: &Namespace) -> (u64, u64) {
    let told = host
        .ip(&["-json", "-statistics", "link", "show", INTERFACE])
        .expect("statistics");
    let links: serde_json::Value = serde_json::from_str(&told.stdout).expect("JSON");
    let count = |name: &str| links[0]["stats64"]["rx"][name].as_u64().expect("a count");
    (count("bytes"), count("packets"))
}
