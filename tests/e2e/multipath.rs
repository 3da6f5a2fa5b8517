//! Multipath TCP (RFC 8684).

use std::{process::Command, time::Duration};

use ftpguard_common::verdict::Reason;
use ftpguard_tests::{
    Family, FtpClient,
    attack::{self, Answer},
    client::Commands,
    ftpd::{CONTROL_PORT, FILE, Kind, Settings},
    guard::Options,
    process::{Finished, Process},
    sandbox::Host,
    scenario::Stage,
    target::Target,
};

use crate::help::{control, guard, guard_with, network_counter, race, stage};

/// An ftpd whose sockets are Multipath TCP's, as programs in Go have them by default.
const FTPD: &str = include_str!("mptcp_ftpd.py");

/// One process for all sessions, and one for each.
const ONE_PROCESS: &str = "FTPServer";
const PROCESSES: &str = "MultiprocessFTPServer";

/// A transfer by ftplib, passive, active, or to a third host; with "multipath" over Multipath TCP.
const CLIENT: &str = "
import socket, sys
host, kind, way, *target = sys.argv[1:]
if kind == 'multipath':
    plain = socket.socket
    class Multipath(plain):
        def __init__(self, family=-1, type=-1, proto=-1, fileno=None):
            if fileno is None and proto in (-1, 0, 6):
                proto = 262
            super().__init__(family, type, proto, fileno)
    socket.socket = Multipath
from ftplib import FTP
ftp = FTP(host, timeout=5)
ftp.login()
if way == 'bounce':
    ftp.sendport(target[0], int(target[1]))
    print(ftp.sendcmd('RETR data.bin'))
else:
    ftp.set_pasv(way == 'passive')
    got = []
    ftp.retrbinary('RETR data.bin', got.append)
    print(len(b''.join(got)))
";

/// A stage with this server of pyftpdlib on Multipath TCP in place of its own ftpd.
fn multipath_stage(class: &str) -> (Stage, Process) {
    let mut stage = stage(Settings::unchecked(Kind::Pyftpdlib));
    stage.ftpd.stop();
    let script = "echo $$ > \"$1/cgroup.procs\"; shift; exec /usr/bin/python3 \"$@\"";
    let mut ftpd = Command::new("sh");
    ftpd.args(["-c", script, "sh"])
        .arg(stage.sandbox.ftpd_cgroup().path())
        .args(["-c", FTPD])
        .arg(stage.sandbox.folder().join("ftp"))
        .args([&CONTROL_PORT.to_string(), class]);
    let mut ftpd = stage.sandbox.server().spawn(&mut ftpd).expect("the ftpd");
    ftpd.wait_for_line("listener", Duration::from_secs(30), |line| {
        line == "listening"
    })
    .expect("it listens");
    (stage, ftpd)
}

/// What a client on this host comes to, which is called so: `kind`, `way` and target.
fn run(stage: &Stage, host: &Host, arguments: &[&str]) -> Finished {
    let address = control(stage.sandbox.server()).ip().to_string();
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", CLIENT, &address]).args(arguments);
    host.run(&mut command, Duration::from_secs(20))
        .expect("ftplib")
}

/// A whole transfer of the client's.
fn fetch(stage: &Stage, kind: &str, way: &str) -> Result<(), String> {
    let done = run(stage, stage.sandbox.client(), &[kind, way]);
    let is_whole = done.stdout.trim() == stage.ftpd.content().len().to_string();
    is_whole.then_some(()).ok_or(done.stderr)
}

/// Without word from the kernel the tests would pass over plain TCP just as well.
fn assert_multipath(stage: &Stage, at_least: u64) {
    let server = stage.sandbox.server();
    let established = network_counter(server, "MPTcpExt", "MPCapableACKRX");
    assert!(
        established >= at_least,
        "{established} connections over Multipath TCP"
    );
}

/// Rules I2 and K2 hold for Multipath TCP as for TCP.
#[test]
fn multipath_tcp() {
    let (stage, ftpd) = multipath_stage(ONE_PROCESS);
    let server = stage.sandbox.server();
    for kind in ["plain", "multipath"] {
        assert_eq!(fetch(&stage, kind, "passive"), Ok(()), "{}", ftpd.log());
    }
    let (theft, _) = race(&stage, control(server));
    assert!(matches!(theft, Answer::Connected(_)), "{theft:?}");
    let guard = guard_with(&stage, &Options::default());
    for _ in 0..3 {
        let (theft, honest) = race(&stage, control(server));
        assert!(
            matches!(theft, Answer::Silent),
            "{theft:?}\n{}",
            guard.log()
        );
        assert_eq!(honest, Ok(()), "{}", guard.log());
        for kind in ["plain", "multipath"] {
            let fetched = fetch(&stage, kind, "passive");
            assert_eq!(fetched, Ok(()), "{kind}\n{}", guard.log());
        }
    }
    // Control and data connection of each transfer.
    assert_multipath(&stage, 8);
}

/// O4: nobody is seen to read a control connection over Multipath TCP. What its client asks for is
/// no call of an ftpd that serves nobody.
#[test]
fn o4_bounce_over_multipath_tcp() {
    for class in [ONE_PROCESS, PROCESSES] {
        let (stage, ftpd) = multipath_stage(class);
        let (client, third) = (stage.sandbox.client(), stage.sandbox.third());
        let target = Target::start(third, Family::V4, 0).expect("a target");
        let address = target.address();
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let bounce = || run(&stage, client, &["multipath", "bounce", &ip, &port]);
        let free = bounce();
        let reached = target.was_reached(Duration::from_secs(2));
        assert!(reached, "{class}: {}\n{}", free.stderr, ftpd.log());
        let accepted = target.accepted();

        let guard = guard(&stage);
        for _ in 0..2 {
            let refused = bounce();
            let told = format!("{class}: {}\n{}", refused.stderr, guard.log());
            assert_eq!(target.accepted(), accepted, "{told}");
            assert!(refused.stderr.contains("425"), "{told}");
        }
        let reason = Reason::ConnectToStranger;
        guard.wait_for_counter(reason, 2).expect("it is counted");
        for kind in ["multipath", "plain"] {
            let fetched = fetch(&stage, kind, "active");
            assert_eq!(fetched, Ok(()), "{class}, {kind}\n{}", guard.log());
        }
        assert_multipath(&stage, 3);
    }
}

/// F3, P4: one process serves a client that it is seen to read and another one that it is not. The
/// listener of the second is not the first one's.
#[test]
fn f3_a_client_over_multipath_tcp_beside_another() {
    let (stage, _ftpd) = multipath_stage(ONE_PROCESS);
    let server = stage.sandbox.server();
    let guard = guard(&stage);
    let other = stage.sandbox.third();
    let login = other.enter(|| FtpClient::login(control(server)));
    let mut beside = login.expect("namespace").expect("a session");
    for way in ["passive", "active", "passive", "active"] {
        beside.expect("NOOP", 200).expect("an answer");
        let fetched = fetch(&stage, "multipath", way);
        assert_eq!(fetched, Ok(()), "{way}\n{}", guard.log());
    }
    // A stranger at once, and another client of the ftpd once the reply is read.
    let (theft, honest) = race(&stage, control(server));
    let told = format!("{theft:?}\n{}", guard.log());
    assert!(matches!(theft, Answer::Silent), "{told}");
    assert_eq!(honest, Ok(()), "{told}");
    let client = stage.sandbox.client();
    let mut ftp = client
        .enter(|| FtpClient::login(control(server)))
        .expect("namespace")
        .expect("a session");
    let announced = ftp.passive(Commands::Classic).expect("a port");
    guard
        .wait_for_pinhole(announced.port())
        .expect("the reply is read");
    let theft = attack::knock(other, announced).expect("a try");
    let told = format!("{theft:?}\n{}", guard.log());
    assert!(matches!(theft, Answer::Silent), "{told}");
    let content = client
        .enter(|| ftp.retrieve_announced(FILE, announced))
        .expect("namespace");
    assert!(content.is_ok_and(|content| stage.is_file(&content)));
    drop(beside);
    let status = guard.status().expect("status");
    let why = status["ftpds"][0]["why"].as_str().unwrap_or_default();
    assert!(why.contains("Multipath TCP"), "{status:#}");
    assert_multipath(&stage, 4);
}

/// F2: a process that was forked for the one session that it reads is as certain as ever: not even
/// another client of the same ftpd gets in.
#[test]
fn f2_a_process_for_each_session_beside_multipath_tcp() {
    let (stage, _ftpd) = multipath_stage(PROCESSES);
    let server = stage.sandbox.server();
    let guard = guard(&stage);
    assert_eq!(fetch(&stage, "multipath", "passive"), Ok(()));
    let login = || FtpClient::login(control(server)).expect("a session");
    let thiefs_own = stage.sandbox.thief().enter(login).expect("namespace");
    let (theft, honest) = race(&stage, control(server));
    let told = format!("{theft:?}\n{}", guard.log());
    assert!(matches!(theft, Answer::Silent), "{told}");
    assert_eq!(honest, Ok(()), "{told}");
    drop(thiefs_own);
    assert_multipath(&stage, 1);
}
