//! Multipath TCP (RFC 8684).

use std::{process::Command, thread, time::Duration};

use ftpguard_tests::{
    attack::Answer,
    ftpd::{CONTROL_PORT, Kind, Settings},
    guard::Options,
};

use crate::help::{control, guard_with, network_counter, race, stage};

/// An ftpd whose sockets are Multipath TCP's, as programs in Go have them by default.
const MULTIPATH: &str = include_str!("mptcp_ftpd.py");

/// A transfer by ftplib; with "multipath" over Multipath TCP.
const FETCH: &str = "
import socket, sys
if sys.argv[2] == 'multipath':
    plain = socket.socket
    class Multipath(plain):
        def __init__(self, family=-1, type=-1, proto=-1, fileno=None):
            if fileno is None and proto in (-1, 0, 6):
                proto = 262
            super().__init__(family, type, proto, fileno)
    socket.socket = Multipath
from ftplib import FTP
ftp = FTP(sys.argv[1], timeout=5)
ftp.login()
got = []
ftp.retrbinary('RETR data.bin', got.append)
print(len(b''.join(got)))
";

/// Rules I2 and K2 hold for Multipath TCP as for TCP.
#[test]
fn multipath_tcp() {
    let mut stage = stage(Settings::unchecked(Kind::Pyftpdlib));
    stage.ftpd.stop();
    let (server, client) = (stage.sandbox.server(), stage.sandbox.client());
    let script = "echo $$ > \"$1/cgroup.procs\"; shift; exec /usr/bin/python3 \"$@\"";
    let mut ftpd = Command::new("sh");
    ftpd.args(["-c", script, "sh"])
        .arg(stage.sandbox.ftpd_cgroup().path())
        .args(["-c", MULTIPATH])
        .arg(stage.sandbox.folder().join("ftp"))
        .arg(CONTROL_PORT.to_string());
    let ftpd = server.spawn(&mut ftpd).expect("the ftpd");
    thread::sleep(Duration::from_secs(2));
    let fetch = |kind: &str| {
        let address = control(server).ip().to_string();
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", FETCH, &address, kind]);
        let done = client
            .run(&mut command, Duration::from_secs(20))
            .expect("ftplib");
        (done.stdout.trim().to_owned(), done.stderr)
    };
    let length = stage.ftpd.content().len().to_string();
    assert_eq!(fetch("plain").0, length, "{}", ftpd.log());
    assert_eq!(fetch("multipath").0, length, "{}", ftpd.log());
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
            let (fetched, error) = fetch(kind);
            assert_eq!(fetched, length, "{kind}: {error}\n{}", guard.log());
        }
    }
    // Without word from the kernel the test would pass over plain TCP just as well.
    // Control and data connection of each transfer.
    let established = network_counter(server, "MPTcpExt", "MPCapableACKRX");
    assert!(
        established >= 8,
        "{established} connections over Multipath TCP"
    );
}
