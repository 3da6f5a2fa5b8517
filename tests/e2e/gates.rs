//! The last gate: what no early gate sees is judged before it reaches a listening socket
//! (rule I5).

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    os::fd::AsRawFd as _,
};

use ftpguard_common::verdict::Reason;
use ftpguard_tests::{
    FtpClient,
    client::{self, Commands},
    ftpd::{CONTROL_PORT, Kind, Settings},
    scenario::Stage,
};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, bind, connect, socket,
};

use crate::help::{guard, stage};

const THIEF: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Client, thief and ftpd are on one host (rule I5, over `lo`, which has no early gate).
#[test]
fn i5_loopback_is_guarded() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let (theft, _) = race_over_loopback(&stage);
    theft.expect("with the guard off the thief connects");

    let guard = guard(&stage);
    let (theft, honest) = race_over_loopback(&stage);
    let refusal = theft.expect_err("with the guard on the thief does not");
    assert_eq!(
        refusal.kind(),
        io::ErrorKind::ConnectionRefused,
        "{refusal}"
    );
    honest.expect("the client does");
    guard
        .wait_for_counter(Reason::NoPinhole, 1)
        .expect("it is counted");
}

/// The thief tries the announced port, then the client connects.
fn race_over_loopback(stage: &Stage) -> (io::Result<()>, anyhow::Result<()>) {
    let host = SocketAddr::from((Ipv4Addr::LOCALHOST, CONTROL_PORT));
    stage
        .sandbox
        .server()
        .enter(|| {
            let mut ftp = FtpClient::login(host)?;
            let announced = ftp.passive(Commands::Classic)?;
            let theft = connect_from(THIEF, announced);
            let honest = client::connect(announced).map(drop);
            Ok((theft, honest))
        })
        .expect("entering the server")
        .map_err(|error: anyhow::Error| error)
        .expect("a control connection")
}

fn connect_from(source: Ipv4Addr, target: SocketAddr) -> io::Result<()> {
    let SocketAddr::V4(target) = target else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let stream = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::Tcp,
    )?;
    let source = SockaddrIn::from(SocketAddrV4::new(source, 0));
    bind(stream.as_raw_fd(), &source)?;
    connect(stream.as_raw_fd(), &SockaddrIn::from(target))?;
    Ok(())
}
