//! Every ftpd, in clear and under TLS, passive and active, over IPv4 and IPv6 (rules F1 to F3):
//! strangers come first and get nothing, the client's bytes arrive whole, the bounce is refused
//! at once.

use std::thread;

use crate::help::{guard_with, is_kind, play, stage};
use ftpguard_common::verdict::Reason;
use ftpguard_tests::{
    Family, Guard,
    attack::{self, Answer},
    client::{self, Commands},
    ftpd::{FILE, Kind, Settings},
    guard::Options,
    scenario::{Scene, Stage, Winner},
    tls::{Handshake, Version},
};

/// How control connections are protected.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tls {
    /// Not at all.
    Clear,
    /// Explicit TLS; data connections need not resume.
    Explicit,
    /// Explicit TLS; data connections must resume the control connection's TLS session.
    Reuse,
    /// TLS from the first byte on, on port 990.
    Implicit,
}

/// What the socket observer can say of an ftpd.
pub(crate) fn origin(kind: Kind) -> &'static [&'static str] {
    match kind {
        // A process for each session.
        Kind::Vsftpd
        | Kind::VsftpdOneProcess
        | Kind::Proftpd
        | Kind::PureFtpd
        | Kind::Inetutils
        | Kind::PyftpdlibProcesses
        | Kind::Wayward => &["exact"],
        // It is exact while there is one session, then refused; text may name it.
        Kind::Reactor => &["exact", "text"],
        // A process for all: exact until it has served a second session.
        Kind::Pyftpdlib | Kind::PyftpdlibThreads | Kind::PyftpdlibPrefork => {
            &["exact", "candidate"]
        }
        // Refused once its threads are seen to take turns.
        Kind::Libunftp => &["exact", "candidate", "text"],
    }
}

/// Settings without the ftpd's own checks, under TLS as wanted.
pub(crate) fn settings(kind: Kind, tls: Tls) -> Settings {
    Settings {
        tls: match tls {
            Tls::Clear => None,
            Tls::Explicit | Tls::Reuse => Some(Handshake::Explicit),
            Tls::Implicit => Some(Handshake::Implicit),
        },
        tls_reuse: matches!(tls, Tls::Reuse),
        ..Settings::unchecked(kind)
    }
}

/// A guard for this ftpd.
pub(crate) fn guard_for(stage: &Stage) -> Guard {
    guard_with(stage, &options_for(stage))
}

pub(crate) fn options_for(stage: &Stage) -> Options {
    Options {
        control_port: stage.ftpd.settings().control_port(),
        ..Options::default()
    }
}

/// A row of the table: everything with one ftpd, set up in one way.
fn row(kind: Kind, tls: Tls) {
    let stage = stage(settings(kind, tls));
    let guard = guard_for(&stage);
    for family in Family::ALL {
        strangers_first(&stage, family, &guard);
    }
    play(&stage, Scene::Passive, Winner::Honest, Some(&guard));
    play(&stage, Scene::Active, Winner::Honest, Some(&guard));
    if kind == Kind::Inetutils {
        refuses_the_bounce_itself(&stage);
    } else {
        play(
            &stage,
            Scene::BounceToThirdHost,
            Winner::Honest,
            Some(&guard),
        );
        guard
            .wait_for_counter(Reason::ConnectToStranger, 2)
            .expect("both bounces are counted");
    }
    guard
        .wait_for_counter(Reason::NoPinhole, 4)
        .expect("strangers' SYNs are counted");
    let origins = origins(&guard);
    // One for each family here, and two or four for the scene of honest transfers.
    assert!(origins.len() >= 8, "{origins:?}\n{}", guard.log());
    for found in &origins {
        assert!(
            origin(kind).contains(&found.as_str()),
            "{kind:?}: {found}\n{}",
            guard.log()
        );
    }
    println!(
        "{}, {tls:?}: {} pinholes, {}",
        kind.label(),
        origins.len(),
        distinct(&origins).join(" and ")
    );
}

/// T1, T2: two strangers try the announced port before the client does. Over IPv4 the client
/// speaks TLS 1.2, over IPv6 TLS 1.3, where it speaks TLS.
pub(crate) fn strangers_first(stage: &Stage, family: Family, guard: &Guard) {
    let version = match family {
        Family::V4 => Version::Tls12,
        Family::V6 => Version::Tls13,
    };
    let sandbox = &stage.sandbox;
    let log = || format!("{}\n{}", stage.ftpd.log(), guard.log());
    sandbox
        .client()
        .enter(|| {
            let mut ftp = stage
                .login_by(family, version)
                .unwrap_or_else(|error| panic!("login: {error:#}\n{}", log()));
            let announced = ftp.passive(Commands::of(family)).expect("PASV or EPSV");
            let answers = thread::scope(|scope| {
                [sandbox.thief(), sandbox.third()]
                    .map(|host| scope.spawn(move || attack::knock(host, announced)))
                    .map(|thread| thread.join().expect("no panic").expect("a try"))
            });
            for answer in answers {
                assert!(
                    matches!(answer, Answer::Silent),
                    "{answer:?} at {announced}\n{}",
                    log()
                );
            }
            let data =
                client::connect(announced).unwrap_or_else(|error| panic!("{error:#}\n{}", log()));
            assert_eq!(data.syns_lost, 0, "{}", log());
            let content = ftp
                .receive(FILE, data.stream)
                .unwrap_or_else(|error| panic!("{error:#}\n{}", log()));
            assert!(stage.is_file(&content), "{family:?}: other bytes");
        })
        .expect("namespace");
}

/// inetutils' ftpd has a check that cannot be turned off: there is no bounce to guard against.
fn refuses_the_bounce_itself(stage: &Stage) {
    let third = stage.sandbox.third().socket(Family::V4, 6_000);
    let reply = stage
        .sandbox
        .client()
        .enter(|| stage.login(Family::V4)?.active(third, Commands::Classic))
        .expect("namespace")
        .expect("a reply");
    assert_eq!(reply.code, 500, "{}", reply.text);
}

/// Who made the pinholes so far.
pub(crate) fn origins(guard: &Guard) -> Vec<String> {
    guard
        .all_events()
        .expect("events")
        .iter()
        .filter(|event| is_kind(event, "pinhole-made"))
        .filter_map(|event| event["origin"].as_str().map(str::to_owned))
        .collect()
}

pub(crate) fn distinct(origins: &[String]) -> Vec<&str> {
    let mut distinct: Vec<&str> = origins.iter().map(String::as_str).collect();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
}

fn rows(kind: Kind, all: &[Tls]) {
    for tls in all {
        row(kind, *tls);
    }
}

#[test]
fn f1_f2_vsftpd() {
    rows(
        Kind::Vsftpd,
        &[Tls::Clear, Tls::Explicit, Tls::Reuse, Tls::Implicit],
    );
}

#[test]
fn f1_f2_vsftpd_with_one_process() {
    rows(Kind::VsftpdOneProcess, &[Tls::Clear]);
}

#[test]
fn f1_f2_proftpd() {
    rows(
        Kind::Proftpd,
        &[Tls::Clear, Tls::Explicit, Tls::Reuse, Tls::Implicit],
    );
}

#[test]
fn f1_f2_pure_ftpd() {
    rows(Kind::PureFtpd, &[Tls::Clear, Tls::Explicit]);
}

#[test]
fn f2_inetutils_ftpd_under_inetd() {
    rows(Kind::Inetutils, &[Tls::Clear]);
}

#[test]
fn f1_f3_pyftpdlib() {
    rows(Kind::Pyftpdlib, &[Tls::Clear, Tls::Explicit]);
}

#[test]
fn f1_f3_pyftpdlib_with_threads() {
    rows(Kind::PyftpdlibThreads, &[Tls::Clear, Tls::Explicit]);
}

#[test]
fn f1_f2_pyftpdlib_with_processes() {
    rows(Kind::PyftpdlibProcesses, &[Tls::Clear, Tls::Explicit]);
}

#[test]
fn f1_f3_pyftpdlib_forked_in_advance() {
    rows(Kind::PyftpdlibPrefork, &[Tls::Clear, Tls::Explicit]);
}
