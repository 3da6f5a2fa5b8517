//! Other software's BPF programs on the guarded interface.

use std::{process::Command, time::Duration};

use ftpguard_tests::{
    Guard, Host,
    attack::Answer,
    ftpd::{Kind, Settings},
    guard::Options,
    process::Process,
    sandbox::INTERFACE,
    scenario::{Scene, Winner},
};

use crate::{
    detours::ip,
    help::{attached, control, guard, guard_with, play, race, stage},
    interfaces::BPF_OTHER,
};

/// Attaches a program of other software's on the server, for as long as the process lives.
fn attach(host: &Host, arguments: &[&str]) -> Process {
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", BPF_OTHER]).args(arguments);
    let mut other = host.spawn(&mut command).expect("python3");
    other
        .wait_for_line("a program", Duration::from_secs(5), |line| {
            line == "attached"
        })
        .expect("it is attached");
    other
}

/// How many packets the other program counted so far.
fn count(other: &Process) -> u64 {
    let output = other.output();
    let mut counts = output.iter().filter_map(|line| line.strip_prefix("count "));
    counts
        .next_back()
        .map_or(0, |count| count.parse().expect("a number"))
}

fn first_interface(guard: &Guard) -> serde_json::Value {
    guard.status().expect("a status")["interfaces"][0].clone()
}

/// One native XDP program to an interface: who comes second is told so, or goes to TC.
#[test]
fn another_xdp_program_is_in_the_way() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let other = attach(stage.sandbox.server(), &["xdp", INTERFACE, "native"]);
    play(&stage, Scene::ThiefFirst, Winner::Attacker, None);
    for xdp_mode in ["native", "generic"] {
        let options = Options {
            xdp_mode,
            ..Options::default()
        };
        let refused = Guard::start(&stage.sandbox, &options).expect_err("it is taken");
        let told = format!("{refused:#}");
        for word in [INTERFACE, "already runs an XDP program", "--xdp-mode tc"] {
            assert!(told.contains(word), "{xdp_mode}: no {word:?} in {told}");
        }
    }
    let guard = guard(&stage);
    assert_eq!(first_interface(&guard)["ingress"], "tc");
    play(&stage, Scene::ThiefFirst, Winner::Honest, Some(&guard));
    play(&stage, Scene::Passive, Winner::Honest, Some(&guard));
    drop(guard);
    drop(other);
    let options = Options {
        xdp_mode: "native",
        ..Options::default()
    };
    let guard = guard_with(&stage, &options);
    assert_eq!(first_interface(&guard)["ingress"], "xdp-native");
}

/// On an interface with a driver that runs XDP, `auto` takes it when it can, and says why not.
#[test]
fn auto_says_why_it_is_not_native() {
    const TAP: &str = "tap0";
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let server = stage.sandbox.server();
    // The one kind of interface here that names a bus, as network cards do.
    let mut make = Command::new("ip");
    make.args(["tuntap", "add", "dev", TAP, "mode", "tap"]);
    server
        .run(&mut make, Duration::from_secs(5))
        .and_then(|done| done.success("ip tuntap"))
        .expect("a tap device");
    let options = Options {
        interfaces: vec![TAP.to_owned()],
        ..Options::default()
    };
    let alone = guard_with(&stage, &options);
    assert_eq!(first_interface(&alone)["ingress"], "xdp-native");
    drop(alone);
    let _other = attach(server, &["xdp", TAP, "native"]);
    let second = guard_with(&stage, &options);
    let row = first_interface(&second);
    assert_eq!(row["ingress"], "tc", "{row}");
    assert_eq!(row["ingress_holds"], true, "{row}");
    assert_eq!(row["note"], "another XDP program is attached", "{row}");
    assert!(
        second.log().contains("TC judges instead"),
        "{}",
        second.log()
    );
}

/// Where the driver refuses XDP, `native` names interface and remedy, and `auto` takes TC.
#[test]
fn a_driver_that_refuses_xdp() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let server = stage.sandbox.server();
    // A bridge's driver has no XDP at all (`br_netdev_ops` in net/bridge/br_device.c).
    for command in ["link add plain type bridge", "link set plain up"] {
        ip(server, command);
    }
    let with = |xdp_mode| Options {
        interfaces: [INTERFACE, "plain"].map(str::to_owned).to_vec(),
        xdp_mode,
        ..Options::default()
    };
    let refused = Guard::start(&stage.sandbox, &with("native")).expect_err("there is no XDP");
    let told = format!("{refused:#}");
    for word in ["plain", "--xdp-mode"] {
        assert!(told.contains(word), "no {word:?} in {told}");
    }
    assert_eq!(attached(&stage), [""; 0], "half attached");
    let guard = guard_with(&stage, &with("auto"));
    let status = guard.status().expect("a status");
    let rows = status["interfaces"].as_array().expect("rows");
    for row in rows {
        assert_eq!(row["ingress"], "tc", "{row}");
    }
    play(&stage, Scene::ThiefFirst, Winner::Honest, Some(&guard));
}

/// Other tools' tcx programs run before and after the guard's, and go on doing so.
#[test]
fn other_tcx_programs_go_on_running() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let server = stage.sandbox.server();
    let mut others = Vec::new();
    let start = |place| {
        ["ingress", "egress"]
            .map(|direction| attach(server, &["tcx", INTERFACE, direction, place, "next"]))
    };
    others.extend(start("first"));
    let guard = guard(&stage);
    others.extend(start("first"));
    others.extend(start("last"));
    let before: Vec<u64> = others.iter().map(count).collect();
    play(&stage, Scene::ThiefFirst, Winner::Honest, Some(&guard));
    play(&stage, Scene::Passive, Winner::Honest, Some(&guard));
    play(&stage, Scene::Active, Winner::Honest, Some(&guard));
    let (theft, _) = race(&stage, control(stage.sandbox.server()));
    assert!(matches!(theft, Answer::Silent), "{theft:?}");
    for (place, (other, before)) in others.iter().zip(before).enumerate() {
        // Each reports every 20 milliseconds.
        let goes_on = (0..250).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            count(other) > before + 50
        });
        assert!(goes_on, "program {place}: {before}, then {}", count(other));
    }
}

/// A program before the guard's that passes packets itself takes the early gate out; the last
/// one stays (rule I5).
#[test]
fn a_tcx_program_that_decides_leaves_the_last_gate() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let _guard = guard(&stage);
    let _other = attach(
        stage.sandbox.server(),
        &["tcx", INTERFACE, "ingress", "first", "pass"],
    );
    let (theft, honest) = race(&stage, control(stage.sandbox.server()));
    assert!(matches!(theft, Answer::Refused), "{theft:?}");
    honest.expect("the client connects");
}
