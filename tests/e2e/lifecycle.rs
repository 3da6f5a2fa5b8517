//! Starting, watching and leaving.

use std::{process::Command, time::Duration};

use ftpguard_common::verdict::Reason;
use ftpguard_tests::{
    Family, Ftpd, Guard, Sandbox,
    client::{self, Commands},
    ftpd::{FILE, Kind, Settings},
    guard::Options,
    scenario::{Scene, Stage, Winner},
};
use nix::sys::signal::Signal;

use crate::help::{attached, guard, guard_with, is_kind, play, stage};

/// M1: everything is decided and counted, and passes.
#[test]
fn m1_monitor_mode_counts_and_passes() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let options = Options {
        mode: "monitor",
        ..Options::default()
    };
    let guard = guard_with(&stage, &options);
    for scene in [
        Scene::Passive,
        Scene::Active,
        Scene::ThiefFirst,
        Scene::ThiefAfter,
        Scene::Scan,
        Scene::BounceToThirdHost,
    ] {
        play(&stage, scene, scene.should_win(false), Some(&guard));
    }
    for reason in [
        Reason::NoPinhole,
        Reason::ClosedPort,
        Reason::ConnectToStranger,
    ] {
        guard
            .wait_for_counter(reason, 2)
            .expect("what would be denied is counted");
    }
    let event = guard
        .wait_for_event("of a denial", |event| is_kind(event, "syn-denied"))
        .expect("event");
    assert_eq!(event["mode"], "monitor", "{event}");
}

/// K10: sessions that are open when the guard starts work on, and thieves do not profit.
#[test]
fn k10_sessions_that_are_open_at_the_start_are_adopted() {
    for kind in Kind::ALL {
        let stage = stage(Settings::unchecked(kind));
        for family in Family::ALL {
            let commands = Commands::of(family);
            stage
                .sandbox
                .client()
                .enter(|| {
                    let mut ftp = stage.login(family).expect("login");
                    // One session has a port announced already, the other asks for one later.
                    let mut announced = stage.login(family).expect("login");
                    let port = announced.passive(commands).expect("PASV or EPSV");
                    let guard = guard(&stage);
                    let log = || format!("{kind:?} {family:?}\n{}", guard.log());

                    let content = announced
                        .retrieve_announced(FILE, port)
                        .unwrap_or_else(|error| panic!("{error:#} {}", log()));
                    assert!(stage.is_file(&content));

                    let content = ftp
                        .retrieve_passive(FILE, commands)
                        .unwrap_or_else(|error| panic!("{error:#} {}", log()));
                    assert!(stage.is_file(&content));
                    let content = ftp
                        .retrieve_active(FILE, commands)
                        .unwrap_or_else(|error| panic!("{error:#} {}", log()));
                    assert!(stage.is_file(&content));
                    play(&stage, Scene::ThiefFirst, Winner::Honest, Some(&guard));
                })
                .expect("namespace");
        }
    }
}

/// The other order, as after a restart of the ftpd: the guard is there first.
#[test]
fn an_ftpd_that_starts_after_the_guard_is_guarded() {
    for kind in Kind::ALL {
        let sandbox = Sandbox::new().expect("the sandbox");
        let guard = Guard::start(&sandbox, &Options::default()).expect("ftpguard becomes ready");
        let ftpd = Ftpd::start(&sandbox, Settings::unchecked(kind)).expect("the ftpd");
        let mut stage = Stage { ftpd, sandbox };
        let play_all = |stage: &Stage| {
            for scene in Scene::ALL.into_iter().filter(|scene| scene.suits(kind)) {
                play(stage, scene, Winner::Honest, Some(&guard));
            }
        };
        play_all(&stage);
        let id = stage.ftpd.id();
        stage.restart().expect("the ftpd starts again");
        assert_ne!(stage.ftpd.id(), id);
        play_all(&stage);
    }
}

/// D: events tell the story of one transfer, in order.
#[test]
fn events_tell_of_session_and_pinhole() {
    let stage = stage(Settings::of(Kind::Vsftpd));
    let guard = guard(&stage);
    let (client, port) = stage
        .sandbox
        .client()
        .enter(|| {
            let mut ftp = stage.login(Family::V6).expect("login");
            let announced = ftp.passive(Commands::Extended).expect("EPSV");
            let data = client::connect(announced).expect("data connection");
            ftp.receive(FILE, data.stream).expect("the file");
            let client = ftp.local().expect("address");
            ftp.quit().expect("QUIT");
            (client, announced.port())
        })
        .expect("namespace");
    guard
        .wait_for_event("of the end", |event| is_kind(event, "session-closed"))
        .expect("event");
    let story: Vec<_> = guard
        .events()
        .into_iter()
        .filter(|event| event["client"] == client.ip().to_string())
        .map(|event| event["event"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(
        story,
        [
            "session-opened",
            "pinhole-made",
            "pinhole-used",
            "session-closed"
        ],
        "{}",
        guard.log()
    );
    let made = guard
        .wait_for_event("of the pinhole", |event| is_kind(event, "pinhole-made"))
        .expect("event");
    assert_eq!(made["port"], port);
    assert_eq!(made["origin"], "exact");
}

/// P6: a denial says who, which port, and for whom it was open.
#[test]
fn p6_a_denial_names_thief_port_and_owner() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let guard = guard(&stage);
    let played = Scene::ThiefAfter
        .play(&stage, Family::V4)
        .and_then(|_| Scene::ThiefFirst.play(&stage, Family::V4))
        .expect("the scene can be played");
    assert_eq!(played.winner, Winner::Honest, "{}", played.told);
    let thief = stage.sandbox.thief().address(Family::V4).to_string();
    let owner = stage.sandbox.client().address(Family::V4).to_string();
    let event = guard
        .wait_for_event("that names the owner", |event| {
            is_kind(event, "syn-denied")
                && event["client"] == thief
                && event["open_for"][0] == owner
        })
        .expect("event");
    assert_eq!(event["reason"], Reason::NoPinhole.label());
    assert!(event["port"].as_u64().is_some_and(|port| port >= 50_000));
}

fn leaves_nothing(signal: Signal) {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let before = attached(&stage);
    assert_eq!(before, Vec::<String>::new(), "nothing is attached at first");
    for xdp_mode in ["native", "generic", "tc"] {
        let options = Options {
            xdp_mode,
            ..Options::default()
        };
        let guard = guard_with(&stage, &options);
        if xdp_mode != "tc" {
            assert_ne!(attached(&stage), before, "{xdp_mode}: the hook is visible");
        }
        play(&stage, Scene::ThiefFirst, Winner::Honest, Some(&guard));
        let stopped = guard.stop(signal).expect("it stops");
        assert!(stopped.status.success(), "{stopped:?}");
        assert!(stopped.took < Duration::from_secs(2), "{stopped:?}");
        let totals = &stopped.totals;
        assert!(totals["sessions"].as_u64() >= Some(2), "{totals}");
        let denied = &totals["verdicts"][Reason::NoPinhole.label()];
        assert!(denied.as_u64() >= Some(2), "{totals}");
        assert_eq!(attached(&stage), before, "{xdp_mode}");
        // And the ftpd is as open as it was: hooks that `ip` and `tc` cannot show are gone too.
        play(&stage, Scene::ThiefFirst, Winner::Attacker, None);
        play(&stage, Scene::BounceToThirdHost, Winner::Attacker, None);
    }
}

#[test]
fn sigterm_detaches_everything_and_prints_totals() {
    leaves_nothing(Signal::SIGTERM);
}

#[test]
fn sigint_detaches_everything_and_prints_totals() {
    leaves_nothing(Signal::SIGINT);
}

/// A signal may come in the moment of `ready:`. The guard once died of it, without totals.
#[test]
fn a_signal_right_after_ready_is_not_missed() {
    let stage = stage(Settings::of(Kind::Vsftpd));
    for _ in 0..10 {
        guard(&stage)
            .stop(Signal::SIGTERM)
            .expect("it stops in good order, with totals");
    }
}

/// K7: transfers that are under way when the guard starts and stops go on.
#[test]
fn k7_transfers_outlive_start_and_stop() {
    let stage = stage(Settings::of(Kind::Vsftpd));
    stage
        .sandbox
        .client()
        .enter(|| {
            let mut ftp = stage.login(Family::V4).expect("login");
            let announced = ftp.passive(Commands::Classic).expect("PASV");
            let data = client::connect(announced).expect("data connection");
            let guard = guard(&stage);
            let content = ftp.receive(FILE, data.stream).expect("the file");
            assert!(stage.is_file(&content));
            let announced = ftp.passive(Commands::Classic).expect("PASV");
            let data = client::connect(announced).expect("data connection");
            guard.stop(Signal::SIGTERM).expect("it stops");
            let content = ftp.receive(FILE, data.stream).expect("the file");
            assert!(stage.is_file(&content));
        })
        .expect("namespace");
}

/// `ftpguard status` for people, and without a running guard.
#[test]
fn status_shows_what_is_in_force() {
    let stage = stage(Settings::of(Kind::Vsftpd));
    let guard = guard(&stage);
    play(&stage, Scene::Passive, Winner::Honest, Some(&guard));
    let status = guard.status().expect("status");
    assert_eq!(status["mode"], "enforce");
    assert_eq!(status["tracking"], "socket");
    assert_eq!(status["interfaces"][0]["interface"], "eth0");
    let runtime = guard.runtime_dir().to_owned();
    let ask = |stage: &Stage| {
        let mut arguments = vec!["status".into(), "--runtime-dir".into()];
        arguments.push(runtime.clone().into_os_string());
        Guard::run(&stage.sandbox, &arguments).expect("it ends")
    };
    let shown = ask(&stage);
    assert!(shown.status.success(), "{shown:?}");
    for word in ["enforce", "socket", "eth0", "50000-50031"] {
        assert!(
            shown.stdout.contains(word),
            "no {word} in\n{}",
            shown.stdout
        );
    }
    guard.stop(Signal::SIGTERM).expect("it stops");
    let shown = ask(&stage);
    assert!(!shown.status.success(), "{shown:?}");
    assert_eq!(shown.stderr.lines().count(), 1, "{}", shown.stderr);
}

/// Two guards on one machine, each with a sandbox of its own, do not see each other's sessions.
#[test]
fn two_guards_beside_each_other() {
    let (one, two) = (
        stage(Settings::unchecked(Kind::Vsftpd)),
        stage(Settings::unchecked(Kind::Vsftpd)),
    );
    let guards = [guard(&one), guard(&two)];
    for (stage, guard) in [&one, &two].into_iter().zip(&guards) {
        play(stage, Scene::Passive, Winner::Honest, Some(guard));
        play(stage, Scene::ThiefFirst, Winner::Honest, Some(guard));
    }
    let [first, _second] = guards;
    first.stop(Signal::SIGTERM).expect("it stops");
    play(&one, Scene::ThiefFirst, Winner::Attacker, None);
    play(&two, Scene::ThiefFirst, Winner::Honest, None);
}

/// An ftpd in another network namespace listens on the same wildcard address and control port.
/// That it ends, or starts, is nothing to the guarded one.
#[test]
fn ftpds_in_other_namespaces_do_not_matter() {
    for kind in Kind::ALL {
        let other = stage(Settings::of(kind));
        let stage = stage(Settings::unchecked(kind));
        let guard = guard(&stage);
        let play_all = || {
            for scene in [Scene::Passive, Scene::Active, Scene::ThiefFirst] {
                play(&stage, scene, Winner::Honest, Some(&guard));
            }
        };
        drop(other);
        play_all();
        let other = crate::help::stage(Settings::of(kind));
        play_all();
        drop(other);
        play_all();
    }
}

/// The table of another program's hooks is untouched by start and stop.
#[test]
fn other_tc_programs_stay() {
    let stage = stage(Settings::of(Kind::Vsftpd));
    let server = stage.sandbox.server();
    let tc = |arguments: &[&str]| {
        server
            .run(Command::new("tc").args(arguments), Duration::from_secs(5))
            .and_then(|finished| finished.success("tc"))
            .expect("tc")
            .stdout
    };
    tc(&["qdisc", "add", "dev", "eth0", "clsact"]);
    tc(&[
        "filter", "add", "dev", "eth0", "egress", "protocol", "ip", "prio", "7", "u32", "match",
        "u32", "0", "0", "classid", "1:1",
    ]);
    let show = || tc(&["filter", "show", "dev", "eth0", "egress"]);
    let before = show();
    assert!(before.contains("u32"), "{before}");
    for xdp_mode in ["native", "tc"] {
        let guard = guard_with(
            &stage,
            &Options {
                xdp_mode,
                ..Options::default()
            },
        );
        play(&stage, Scene::Passive, Winner::Honest, Some(&guard));
        guard.stop(Signal::SIGTERM).expect("it stops");
        assert_eq!(show(), before, "{xdp_mode}");
    }
}
