//! Sessions that come and go while the daemon does (rules K9, K10): none is counted that is gone.

use std::{
    io::Read as _,
    net::TcpStream,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use ftpguard_tests::{
    Family, Guard,
    ftpd::{CONTROL_PORT, Kind, Settings},
    guard::Options,
    scenario::Stage,
};

use crate::{
    bounds::admitted,
    help::{guard_with, stage},
};

/// How many control connections a client may hold, and how many of them are opened and closed at
/// once.
const SHARE: usize = 4;
const THREADS: usize = 4;

fn with_share_of(share: usize) -> Options {
    Options {
        more: vec![format!("--client-sessions={share}")],
        ..Options::default()
    }
}

/// Opens and closes control connections of the client all the time, while this is done.
fn while_sessions_come_and_go<T: Send>(stage: &Stage, what: impl FnOnce() -> T + Send) -> T {
    let (client, control) = (
        stage.sandbox.client(),
        stage.sandbox.server().socket(Family::V4, CONTROL_PORT),
    );
    let done = AtomicBool::new(false);
    let come_and_go = || {
        client
            .enter(|| {
                let mut count = 0;
                while !done.load(Ordering::Relaxed) {
                    let mut session = TcpStream::connect(control).expect("a session");
                    let wait = Some(Duration::from_secs(5));
                    session.set_read_timeout(wait).expect("a time limit");
                    // Its end may come before its beginning is read.
                    let _ = session.read(&mut [0; 1]);
                    count += 1;
                }
                count
            })
            .expect("namespace")
    };
    let result = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(come_and_go)).collect();
        let result = what();
        done.store(true, Ordering::Relaxed);
        let counts: Vec<u32> = threads
            .into_iter()
            .map(|thread| thread.join().expect("a client"))
            .collect();
        assert!(counts.iter().all(|count| *count > 10), "{counts:?}");
        result
    });
    // The ftpd ends what was closed last. The guard's own sweeps take three times as long.
    thread::sleep(Duration::from_secs(3));
    result
}

fn assert_share_is_free(stage: &Stage, guard: &Guard) {
    let mut expected = [true; SHARE + 1];
    expected[SHARE] = false;
    let client = stage.sandbox.client();
    let admitted = admitted(stage, client, SHARE + 1);
    assert_eq!(admitted, expected, "{}", guard.log());
}

/// K9: a client's control connections are counted right, on however many processors they come and
/// go at once.
#[test]
fn k9_sessions_are_counted_on_all_processors_at_once() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let guard = guard_with(&stage, &with_share_of(SHARE));
    while_sessions_come_and_go(&stage, || thread::sleep(Duration::from_secs(4)));
    assert_share_is_free(&stage, &guard);
}

/// Processes beside the ftpd with so many open files that looking through them takes a while.
const CROWD: &str = "
import os, sys, time
with open(sys.argv[1] + '/cgroup.procs', 'w') as procs:
    procs.write(str(os.getpid()))
files = [open('/dev/null') for _ in range(200)]
for _ in range(100):
    if os.fork() == 0:
        break
else:
    print('ready', flush=True)
time.sleep(120)
";

/// K10: sessions that close while a daemon takes over are not taken for open ones.
#[test]
fn k10_sessions_that_close_while_a_daemon_starts_are_not_kept() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let mut crowd = Command::new("/usr/bin/python3");
    crowd.args(["-c", CROWD]);
    crowd.arg(stage.sandbox.ftpd_cgroup().path());
    let mut crowd = stage.sandbox.server().spawn(&mut crowd).expect("a crowd");
    crowd
        .wait_for_line("crowd", Duration::from_secs(10), |line| line == "ready")
        .expect("a crowd");
    // As many as come and go at once, and more.
    let options = with_share_of(50);
    let mut guard = guard_with(&stage, &options);
    guard = while_sessions_come_and_go(&stage, || {
        for _ in 0..5 {
            let runtime = guard.kill().expect("its end");
            guard = Guard::start_in(&stage.sandbox, &options, &runtime).expect("a new one");
        }
        guard
    });
    let sessions = guard.list("sessions").expect("sessions");
    assert_eq!(sessions.as_array().map(Vec::len), Some(0), "{sessions:#}");
}
