//! How many data connections one announced port admits (rules K4, K6): `--uses`.

use std::{net::TcpStream, thread};

use ftpguard_common::verdict::Reason;
use ftpguard_tests::{
    Family,
    attack::{self, Answer},
    client::{self, Commands},
    ftpd::{FILE, Kind, Settings},
    guard::Options,
};

use crate::help::{guard_with, is_kind, stage};

/// As many connections as configured reach the port, at once or one after the other; the next one
/// is not answered, nor is a stranger's at any time.
fn admits(kind: Kind, uses: u8, at_once: bool) {
    let stage = stage(Settings::unchecked(kind));
    let guard = guard_with(
        &stage,
        &Options {
            uses,
            ..Options::default()
        },
    );
    let sandbox = &stage.sandbox;
    let told = |what: &str| format!("{kind:?}, {uses} uses: {what}\n{}", guard.log());
    for family in Family::ALL {
        let content = sandbox.client().enter(|| {
            let mut ftp = stage.login(family).expect("login");
            let announced = ftp.passive(Commands::of(family)).expect("PASV or EPSV");
            let silent = |host, what: &str| {
                let answer = attack::knock(host, announced).expect("a try");
                assert!(matches!(answer, Answer::Silent), "{}", told(what));
            };
            silent(sandbox.thief(), "a stranger first");
            let connect = || -> TcpStream {
                let data = client::connect(announced)
                    .unwrap_or_else(|error| panic!("{}", told(&format!("{error:#}"))));
                assert_eq!(data.syns_lost, 0, "{}", told("lost"));
                data.stream
            };
            let mut streams: Vec<TcpStream> = if at_once {
                // Threads inherit the namespace.
                thread::scope(|scope| {
                    let threads: Vec<_> = (0..uses).map(|_| scope.spawn(connect)).collect();
                    threads
                        .into_iter()
                        .map(|thread| thread.join().expect("connected"))
                        .collect()
                })
            } else {
                (0..uses).map(|_| connect()).collect()
            };
            silent(sandbox.client(), "one more");
            silent(sandbox.thief(), "a stranger after");
            if at_once {
                // Which of them the ftpd takes first is not known.
                return Vec::new();
            }
            ftp.receive(FILE, streams.remove(0)).expect("the file")
        });
        let content = content.expect("namespace");
        assert!(
            at_once || stage.is_file(&content),
            "{}",
            told("other bytes")
        );
    }
    let told_uses = guard
        .all_events()
        .expect("events")
        .iter()
        .filter(|event| is_kind(event, "pinhole-used"))
        .count();
    assert_eq!(told_uses, 2 * usize::from(uses), "{}", told("uses told"));
    assert!(guard.counter(Reason::NoPinhole).expect("status") >= 6);
}

#[test]
fn k6_one_use_is_the_default() {
    assert_eq!(Options::default().uses, 1);
    admits(Kind::Proftpd, 1, false);
}

#[test]
fn k4_k6_several_uses_for_parallel_modes() {
    // These ask for a queue of one connection, in which the kernel lets two wait.
    admits(Kind::Proftpd, 2, false);
    admits(Kind::PureFtpd, 2, false);
    admits(Kind::Wayward, 3, false);
    admits(Kind::Wayward, 16, true);
}
