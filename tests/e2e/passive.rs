//! Passive mode: honest clients are not hindered, thieves reach nothing.

use std::time::Duration;

use ftpguard_common::verdict::Reason;
use ftpguard_tests::{
    Family,
    attack::{Answer, Hammer, knock},
    client::{self, Commands},
    ftpd::{FILE, Kind, Settings},
    guard::Options,
    measure,
    scenario::{Scene, Winner},
    tool::{Tool, Transfer, Way},
};

use crate::help::{guard, is_kind, off_then_on, play, stage, transfer_with_all_tools};

/// Plays a scene against every ftpd, with its own checks off, and looks at the guard's reason.
fn against_every_ftpd(scene: Scene, reason: Reason) {
    for kind in Kind::ALL {
        let stage = stage(Settings::unchecked(kind));
        let guard = off_then_on(&stage, scene, &Options::default());
        if (scene, kind) == (Scene::ThiefAfter, Kind::Pyftpdlib) {
            // It closes its listener as soon as it has accepted: which comes first is open.
            let count = |reason| guard.counter(reason).expect("status");
            assert_eq!(count(reason) + count(Reason::ClosedPort), 2);
            continue;
        }
        guard.wait_for_counter(reason, 2).expect("it is counted");
    }
}

fn every_client_works(kind: Kind) {
    let stage = stage(Settings::of(kind));
    let guard = guard(&stage);
    play(&stage, Scene::Passive, Winner::Honest, Some(&guard));
    transfer_with_all_tools(&stage, Way::Passive, Some(&guard));
    let made = guard.counter(Reason::Pinhole).expect("status");
    assert!(made >= 20, "{made} SYNs through pinholes");
    let denied = guard.counter(Reason::NoPinhole).expect("status");
    assert_eq!(denied, 0, "no honest SYN is denied\n{}", guard.log());
}

#[test]
fn i2_honest_clients_of_vsftpd() {
    every_client_works(Kind::Vsftpd);
}

#[test]
fn i2_honest_clients_of_vsftpd_with_one_process() {
    every_client_works(Kind::VsftpdOneProcess);
}

#[test]
fn f3_honest_clients_of_pyftpdlib() {
    every_client_works(Kind::Pyftpdlib);
}

/// T1
#[test]
fn i2_thief_before_the_client() {
    against_every_ftpd(Scene::ThiefFirst, Reason::NoPinhole);
}

#[test]
fn i2_thief_after_the_client() {
    against_every_ftpd(Scene::ThiefAfter, Reason::NoPinhole);
}

/// T4: the scan learns nothing, neither of listeners nor of unused ports.
#[test]
fn i1_scan_of_the_whole_range() {
    against_every_ftpd(Scene::Scan, Reason::ClosedPort);
}

/// T2: with the ftpd's own check, a thief does not get the file; the client loses it all the same.
#[test]
fn i2_transfers_survive_a_thief_where_the_ftpd_checks_itself() {
    for kind in [Kind::Vsftpd, Kind::VsftpdOneProcess] {
        let stage = stage(Settings::of(kind));
        off_then_on(&stage, Scene::ThiefFirst, &Options::default());
    }
}

/// I1: without a declared range, the ftpd's listeners are guarded all the same.
#[test]
fn i1_listeners_are_guarded_without_a_range() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let options = Options {
        passive_ports: None,
        ..Options::default()
    };
    let guard = off_then_on(&stage, Scene::ThiefFirst, &options);
    play(&stage, Scene::ThiefAfter, Winner::Honest, Some(&guard));
    play(&stage, Scene::Passive, Winner::Honest, Some(&guard));
    let unused = stage.sandbox.server().socket(Family::V4, 50_000);
    let answer = knock(stage.sandbox.thief(), unused).expect("a try");
    assert!(matches!(answer, Answer::Refused), "{answer:?}");
}

/// I2 in every place where SYNs can be judged.
#[test]
fn i2_in_every_xdp_mode() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    for xdp_mode in ["native", "generic", "tc"] {
        let options = Options {
            xdp_mode,
            ..Options::default()
        };
        let guard = off_then_on(&stage, Scene::ThiefFirst, &options);
        play(&stage, Scene::Passive, Winner::Honest, Some(&guard));
        play(&stage, Scene::Active, Winner::Honest, Some(&guard));
        let status = guard.status().expect("status");
        let ingress = &status["interfaces"][0]["ingress"];
        assert!(
            ingress.as_str().is_some_and(|hook| hook.contains(xdp_mode)),
            "{ingress} is not {xdp_mode}"
        );
    }
}

/// T2 as a race with a real client: thieves hammer both ports of a small range.
#[test]
fn i2_curl_wins_against_thieves_that_hammer_the_range() {
    const TRANSFERS: usize = 20;
    let ports = 50_000..=50_001;
    let stage = stage(Settings {
        passive_ports: ports.clone(),
        ..Settings::of(Kind::Vsftpd)
    });
    let curl = Transfer {
        tool: Tool::Curl,
        family: Family::V4,
        way: Way::Passive,
        commands: Commands::Extended,
    };
    let server = stage.sandbox.server().address(Family::V4);
    // How many transfers arrived before the first that did not, and how often thieves got in.
    let race = || {
        let hammer = Hammer::start(stage.sandbox.thief(), server, ports.clone()).expect("thieves");
        let arrived = (0..TRANSFERS)
            .take_while(|_| {
                let fetched = curl.fetch(&stage.sandbox);
                fetched.is_ok_and(|content| stage.is_file(&content))
            })
            .count();
        (arrived, hammer.stop())
    };
    let (arrived, reached) = race();
    assert!(
        arrived < TRANSFERS && reached > 0,
        "no thief was faster than curl: nothing is proven"
    );
    let options = Options {
        passive_ports: Some(ports.clone()),
        ..Options::default()
    };
    let guard = crate::help::guard_with(&stage, &options);
    assert_eq!(race(), (TRANSFERS, 0), "{}", guard.log());
}

/// The pinhole is there before the reply is: a client that is as fast as can be loses no SYN.
#[test]
fn k2_no_first_syn_is_lost() {
    for kind in Kind::ALL {
        let stage = stage(Settings::of(kind));
        let guard = guard(&stage);
        for family in Family::ALL {
            let sequence = measure::passive(&stage, family, 300, Duration::from_secs(30))
                .expect("sequential transfers");
            assert_eq!(sequence.times.len(), 300);
            assert_eq!(sequence.lost, 0, "{kind:?} {family:?}\n{}", guard.log());
        }
    }
}

/// K6: a second connection through a used pinhole is denied, to its owner as well.
#[test]
fn k6_a_pinhole_is_used_once() {
    let stage = stage(Settings::of(Kind::Vsftpd));
    let guard = guard(&stage);
    stage
        .sandbox
        .client()
        .enter(|| {
            let mut ftp = stage.login(Family::V4).expect("login");
            let announced = ftp.passive(Commands::Classic).expect("PASV");
            let data = client::connect(announced).expect("the first connection");
            let again = knock(stage.sandbox.client(), announced).expect("a try");
            assert!(matches!(again, Answer::Silent), "{again:?}");
            let content = ftp.receive(FILE, data.stream).expect("the file");
            assert!(stage.is_file(&content));
        })
        .expect("namespace");
    guard
        .wait_for_event("of a used pinhole", |event| is_kind(event, "pinhole-used"))
        .expect("event");
}

/// K7, corner case 15: the control connection goes, the transfer goes on.
#[test]
fn k7_transfers_outlive_their_pinhole() {
    let stage = stage(Settings::of(Kind::Vsftpd));
    let guard = guard(&stage);
    stage
        .sandbox
        .client()
        .enter(|| {
            let mut ftp = stage.login(Family::V4).expect("login");
            let announced = ftp.passive(Commands::Classic).expect("PASV");
            let data = client::connect(announced).expect("data connection");
            ftp.command(&format!("RETR {FILE}"))
                .and_then(|reply| reply.opens("RETR"))
                .expect("the transfer begins");
            // Its pinhole is used up and its listener closed by now.
            guard
                .wait_for_event("of a used pinhole", |event| is_kind(event, "pinhole-used"))
                .expect("event");
            let content = client::read_all(data.stream).expect("the file");
            assert!(stage.is_file(&content));
        })
        .expect("namespace");
}

/// Corner case 13: a second PASV without a use of the first; the first port is closed to all, and
/// the second works. (These ftpds close the first one themselves; `revocation.rs` has one that does
/// not.)
#[test]
fn a_second_pasv_after_an_unused_one() {
    for kind in Kind::ALL {
        let stage = stage(Settings::of(kind));
        let guard = guard(&stage);
        stage
            .sandbox
            .client()
            .enter(|| {
                let mut ftp = stage.login(Family::V4).expect("login");
                let first = ftp.passive(Commands::Classic).expect("PASV");
                let second = loop {
                    let second = ftp.passive(Commands::Extended).expect("EPSV");
                    if second != first {
                        break second;
                    }
                };
                let answer = knock(stage.sandbox.client(), first).expect("a try");
                assert!(matches!(answer, Answer::Silent), "{kind:?}: {answer:?}");
                let content = ftp
                    .retrieve_announced(FILE, second)
                    .expect("data connection");
                assert!(stage.is_file(&content), "{kind:?}\n{}", guard.log());
            })
            .expect("namespace");
    }
}

/// I4, A7: other software in the passive range is left alone.
#[test]
fn i4_foreign_listeners_stay_reachable() {
    let stage = stage(Settings::of(Kind::Vsftpd));
    let server = stage.sandbox.server();
    let reach = |port| {
        let answer = knock(stage.sandbox.thief(), server.socket(Family::V4, port));
        matches!(answer.expect("a try"), Answer::Connected(_))
    };
    let early = ftpguard_tests::target::Target::start(server, Family::V4, 50_007).expect("early");
    assert!(reach(early.address().port()));
    let guard = guard(&stage);
    assert!(reach(early.address().port()), "{}", guard.log());
    let late = ftpguard_tests::target::Target::start(server, Family::V4, 50_008).expect("late");
    assert!(reach(late.address().port()), "{}", guard.log());
    guard
        .wait_for_counter(Reason::ForeignListener, 2)
        .expect("it is counted");
}
