//! Listeners outside the declared range, and thieves who hammer those inside.

use std::{thread, time::Duration};

use ftpguard_tests::{
    Family,
    attack::{self, Answer, Hammer},
    client::{self, Commands},
    ftpd::{Kind, SMALL_FILE, Settings},
    guard::Options,
    scenario::Stage,
};

use crate::{
    help::{guard_with, stage},
    zoo::{Tls, options_for, settings},
    zoo_stress::length,
};

/// How far away the hammered client is.
const AWAY: Duration = Duration::from_millis(2);

/// I1, corner case 18: two ports for five clients. `ProFTPD` and pyftpdlib leave the range when
/// it is full, and are guarded there as well.
#[test]
fn i1_listeners_outside_the_range_are_guarded() {
    for (kind, tls) in [
        (Kind::Proftpd, Tls::Clear),
        (Kind::Proftpd, Tls::Explicit),
        (Kind::Pyftpdlib, Tls::Clear),
        (Kind::PyftpdlibProcesses, Tls::Clear),
    ] {
        let range = 50_000..=50_001;
        let stage = stage(Settings {
            passive_ports: range.clone(),
            ..settings(kind, tls)
        });
        let guard = guard_with(
            &stage,
            &Options {
                passive_ports: Some(range.clone()),
                ..options_for(&stage)
            },
        );
        let mut outside = 0;
        stage
            .sandbox
            .client()
            .enter(|| {
                let mut sessions: Vec<_> = (0..5)
                    .map(|_| {
                        let mut ftp = stage.login(Family::V4).expect("login");
                        let announced = ftp.passive(Commands::Classic).expect("PASV");
                        (ftp, announced)
                    })
                    .collect();
                for (ftp, announced) in &mut sessions {
                    outside += usize::from(!range.contains(&announced.port()));
                    let stranger = attack::knock(stage.sandbox.thief(), *announced).expect("a try");
                    assert!(
                        matches!(stranger, Answer::Silent),
                        "{kind:?} {announced}: {stranger:?}\n{}",
                        guard.log()
                    );
                    let data = client::connect(*announced)
                        .unwrap_or_else(|error| panic!("{error:#}\n{}", guard.log()));
                    assert_eq!(data.syns_lost, 0, "{}", guard.log());
                    let content = ftp.receive(SMALL_FILE, data.stream).expect("the file");
                    assert_eq!(content.len(), 100);
                }
            })
            .expect("namespace");
        assert!(
            outside >= 3,
            "{kind:?} stayed in its range: nothing is proven"
        );
    }
}

/// How many transfers arrive while a thief hammers the range, up to the first that does not, and
/// how often the thief got in.
fn hammered(stage: &Stage, wanted: usize) -> (usize, u64) {
    let server = stage.sandbox.server().address(Family::V4);
    let ports = stage.ftpd.settings().passive_ports.clone();
    let hammer = Hammer::start(stage.sandbox.thief(), server, ports).expect("thieves");
    let arrived = stage
        .sandbox
        .client()
        .enter(|| {
            let mut ftp = stage.login(Family::V4).expect("login");
            let mut one = || -> anyhow::Result<bool> {
                let announced = ftp.passive(Commands::Classic)?;
                // A client next door is nearly always faster than any thief.
                thread::sleep(AWAY);
                let data = client::connect(announced)?;
                let content = ftp.receive(SMALL_FILE, data.stream)?;
                Ok(content.len() == 100 && stage.ftpd.content().starts_with(&content))
            };
            (0..wanted)
                .take_while(|_| matches!(one(), Ok(true)))
                .count()
        })
        .expect("namespace");
    (arrived, hammer.stop())
}

/// T2: accept burn. Without a guard thieves spoil transfers; with it none fails.
#[test]
fn t2_no_transfer_fails_under_a_hammer() {
    let wanted = 200;
    // passive.rs does it to vsftpd, with curl.
    let kinds = [
        Kind::Proftpd,
        Kind::PureFtpd,
        Kind::VsftpdOneProcess,
        Kind::Pyftpdlib,
    ];
    let count = if length() == 1 { 2 } else { kinds.len() };
    for kind in kinds.into_iter().take(count) {
        let ports = 50_000..=50_003;
        let stage = stage(Settings {
            passive_ports: ports.clone(),
            ..settings(kind, Tls::Clear)
        });
        let (arrived, reached) = hammered(&stage, wanted);
        println!(
            "{}, no guard: {arrived} arrived before one failed, {reached} thieves",
            kind.label()
        );
        assert!(
            arrived < wanted && reached > 0,
            "{kind:?}: nothing is proven"
        );
        let guard = guard_with(
            &stage,
            &Options {
                passive_ports: Some(ports),
                ..options_for(&stage)
            },
        );
        let (arrived, reached) = hammered(&stage, wanted);
        println!(
            "{}, guarded: {arrived} of {wanted} arrived, {reached} thieves",
            kind.label()
        );
        assert_eq!((arrived, reached), (wanted, 0), "{kind:?}\n{}", guard.log());
    }
}
