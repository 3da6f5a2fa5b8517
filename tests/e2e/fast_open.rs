//! TCP Fast Open (RFC 7413): data in the SYN, for which the server hands the connection to its
//! process before the handshake is complete.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, SocketAddrV4, TcpStream},
    os::fd::AsRawFd as _,
    time::Duration,
};

use ftpguard_common::verdict::Reason;
use ftpguard_tests::{
    Family, FtpClient, Host,
    client::Commands,
    ftpd::{CONTROL_PORT, Kind, Settings, UPLOADS},
    guard::Options,
};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, connect, setsockopt, socket, sockopt,
};

use crate::help::{guard_with, network_counter, stage};

/// Connects without sending anything, where the client has a cookie of this server: the SYN goes
/// with what is written first. Without a cookie it goes at once, and asks for one.
fn open(to: SocketAddrV4) -> io::Result<TcpStream> {
    let stream = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::empty(),
        None,
    )?;
    setsockopt(&stream, sockopt::TcpFastOpenConnect, &true)?;
    connect(stream.as_raw_fd(), &SockaddrIn::from(to))?;
    let stream = TcpStream::from(stream);
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    Ok(stream)
}

fn login(host: &Host, control: SocketAddr) -> FtpClient {
    host.enter(|| FtpClient::login(control))
        .expect("namespace")
        .expect("a session")
}

fn announced(ftp: &mut FtpClient) -> SocketAddrV4 {
    match ftp.passive(Commands::Extended).expect("a port") {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(address) => panic!("{address}"),
    }
}

/// Writes into the data connection, with its SYN, and then stores.
fn store(host: &Host, ftp: &mut FtpClient, to: SocketAddrV4, name: &str) {
    let mut data = host
        .enter(|| open(to))
        .expect("namespace")
        .expect("a data connection");
    data.write_all(b"in the SYN").expect("writing");
    data.shutdown(Shutdown::Write).expect("the end");
    ftp.command(&format!("STOR {UPLOADS}/{name}"))
        .and_then(|reply| reply.opens("STOR"))
        .expect("STOR");
    ftp.reply()
        .and_then(|reply| reply.expect(226, "STOR"))
        .expect("the stored file");
}

/// A SYN with a valid cookie and data is a SYN (rule I2): a stranger's meets no listener, the
/// client's does, data and all.
#[test]
fn i2_data_in_the_syn() {
    let mut stage = stage(Settings::unchecked(Kind::Vsftpd));
    // On for servers, and for every new listener, whether it asked or not; with cookies.
    let parameter = "net/ipv4/tcp_fastopen";
    let server = stage.sandbox.server();
    server.set(parameter, "1026").expect("Fast Open");
    stage.restart().expect("the ftpd listens anew");
    let (server, client, thief) = (
        stage.sandbox.server(),
        stage.sandbox.client(),
        stage.sandbox.thief(),
    );
    let control = server.socket(Family::V4, CONTROL_PORT);
    let SocketAddr::V4(control_v4) = control else {
        panic!("{control}");
    };
    let accepted = || network_counter(server, "TcpExt", "TCPFastOpenPassive");
    for host in [client, thief] {
        // Asks for the cookie.
        host.enter(|| open(control_v4).and_then(|mut stream| stream.read(&mut [0; 1])))
            .expect("namespace")
            .expect("a greeting");
    }
    let steal = |to| {
        let before = accepted();
        let mut stream = thief
            .enter(|| open(to))
            .expect("namespace")
            .expect("cookie");
        // It waits for an answer to the SYN, and shall not wait for long.
        let wait = Some(Duration::from_millis(300));
        stream.set_write_timeout(wait).expect("a time limit");
        let _ = stream.write_all(b"a lie");
        accepted() - before
    };
    let mut ftp = login(client, control);
    let to = announced(&mut ftp);
    assert_eq!(steal(to), 1, "without a guard the data is accepted");
    drop(ftp);
    for xdp_mode in ["native", "tc"] {
        let guard = guard_with(
            &stage,
            &Options {
                xdp_mode,
                ..Options::default()
            },
        );
        let mut ftp = login(client, control);
        for round in 0..3 {
            let to = announced(&mut ftp);
            assert_eq!(steal(to), 0, "{}", guard.log());
            let before = accepted();
            let name = format!("fast-open-{xdp_mode}-{round}");
            store(client, &mut ftp, to, &name);
            assert_eq!(accepted(), before + 1, "{}", guard.log());
            let stored = stage.ftpd.uploaded(&name).expect("the stored file");
            assert_eq!(stored, b"in the SYN");
        }
        let denied = guard.counter(Reason::NoPinhole).expect("a counter");
        assert!(denied >= 3, "{denied}");
    }
}
