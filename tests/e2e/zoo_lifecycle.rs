//! Every ftpd when the guard comes late, and when somebody else accepts for it.

use ftpguard_tests::{
    Family,
    attack::{self, Answer},
    client::{self, Commands},
    ftpd::{Activation, FILE, Kind, Settings},
    scenario::{Scene, Stage, Winner},
};

use crate::{
    help::{play, stage},
    zoo::{Tls, guard_for, origins, settings},
    zoo_stress::length,
};

/// K10: three sessions are open when the guard starts: one idle, one with a port announced, one
/// with a data connection made. All go on, and strangers get nothing.
///
/// Over one family, by turns; over both in the long form.
fn late_start(kind: Kind, tls: Tls, family: Family) {
    let families: &[Family] = if length() == 1 {
        &[family]
    } else {
        &Family::ALL
    };
    for &family in families {
        let stage = stage(settings(kind, tls));
        let commands = Commands::of(family);
        let told = |what: &str, log: &str| format!("{kind:?} {tls:?} {family:?}: {what}\n{log}");
        stage
            .sandbox
            .client()
            .enter(|| {
                let login = || stage.login(family).expect("login");
                let (mut idle, mut announced, mut connected) = (login(), login(), login());
                let port = announced.passive(commands).expect("PASV or EPSV");
                let data = connected.passive(commands).expect("PASV or EPSV");
                let data = client::connect(data).expect("without a guard");

                let guard = guard_for(&stage);
                let log = || format!("{}\n{}", guard.log(), stage.ftpd.log());
                let stranger = attack::knock(stage.sandbox.thief(), port).expect("a try");
                assert!(
                    matches!(stranger, Answer::Silent),
                    "{}",
                    told(&format!("{stranger:?}"), &log())
                );
                let own = client::connect(port)
                    .unwrap_or_else(|error| panic!("{}", told(&format!("{error:#}"), &log())));
                assert_eq!(own.syns_lost, 0, "{}", told("lost", &log()));
                for (ftp, data) in [(&mut announced, own), (&mut connected, data)] {
                    let content = ftp
                        .receive(FILE, data.stream)
                        .unwrap_or_else(|error| panic!("{}", told(&format!("{error:#}"), &log())));
                    assert!(stage.is_file(&content), "{}", told("other bytes", ""));
                }
                for ftp in [&mut idle, &mut announced, &mut connected] {
                    let content = ftp
                        .retrieve_passive(FILE, commands)
                        .unwrap_or_else(|error| panic!("{}", told(&format!("{error:#}"), &log())));
                    assert!(stage.is_file(&content), "{}", told("other bytes", ""));
                    let content = ftp
                        .retrieve_active(FILE, commands)
                        .unwrap_or_else(|error| panic!("{}", told(&format!("{error:#}"), &log())));
                    assert!(stage.is_file(&content), "{}", told("other bytes", ""));
                }
                // A session that begins now is like any other.
                play(&stage, Scene::ThiefFirst, Winner::Honest, Some(&guard));
            })
            .expect("namespace");
    }
}

#[test]
fn k10_late_start_of_process_ftpds() {
    late_start(Kind::Vsftpd, Tls::Explicit, Family::V4);
    late_start(Kind::Proftpd, Tls::Clear, Family::V6);
    late_start(Kind::PureFtpd, Tls::Explicit, Family::V4);
    late_start(Kind::Inetutils, Tls::Clear, Family::V6);
}

#[test]
fn k10_late_start_of_pyftpdlib() {
    late_start(Kind::Pyftpdlib, Tls::Explicit, Family::V4);
    late_start(Kind::PyftpdlibThreads, Tls::Clear, Family::V6);
    late_start(Kind::PyftpdlibProcesses, Tls::Clear, Family::V4);
    // Not forked in advance: those processes share one epoll instance and lose events when
    // several sessions are open, without a guard as well.
}

/// F2: the acceptor is not the ftpd, and may be outside the watched control group.
fn activated(kind: Kind, watched: bool) {
    let stage = stage(Settings {
        activation: Activation::Manager { watched },
        ..settings(kind, Tls::Clear)
    });
    let before = is_session_open(&stage);
    let guard = guard_for(&stage);
    drop(before);
    play(&stage, Scene::Passive, Winner::Honest, Some(&guard));
    play(&stage, Scene::Active, Winner::Honest, Some(&guard));
    play(&stage, Scene::ThiefFirst, Winner::Honest, Some(&guard));
    if kind != Kind::Inetutils {
        play(
            &stage,
            Scene::BounceToThirdHost,
            Winner::Honest,
            Some(&guard),
        );
    }
    let origins = origins(&guard);
    println!("{}, watched {watched}: {origins:?}", kind.label());
    assert!(
        origins.len() >= 8,
        "{kind:?} {watched} {origins:?}\n{}",
        guard.log()
    );
    assert!(
        origins.iter().all(|origin| origin == "exact"),
        "{origins:?}\n{}",
        guard.log()
    );
}

/// A session from before the guard.
fn is_session_open(stage: &Stage) -> ftpguard_tests::FtpClient {
    stage
        .sandbox
        .client()
        .enter(|| stage.login(Family::V4))
        .expect("namespace")
        .expect("login")
}

#[test]
fn f2_socket_activation() {
    for kind in [Kind::Vsftpd, Kind::Proftpd, Kind::PureFtpd, Kind::Inetutils] {
        activated(kind, true);
    }
}

#[test]
fn f2_socket_activation_from_outside() {
    for kind in [Kind::Vsftpd, Kind::Proftpd, Kind::PureFtpd, Kind::Inetutils] {
        activated(kind, false);
    }
}
