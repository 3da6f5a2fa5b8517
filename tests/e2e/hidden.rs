//! Clients whose addresses a proxy hides (rule I8).

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
};

use ftpguard_tests::{
    Family, FtpClient, Guard,
    attack::{self, Answer},
    client::Commands,
    ftpd::{CONTROL_PORT, Kind, Settings},
    scenario::{Scene, Stage, Winner},
};

use crate::{
    detours::ip,
    help::{guard, is_kind, play, stage},
};

/// Where the proxy accepts control connections.
const PROXY_PORT: u16 = 2121;
/// So many sessions from one address are enough.
const ENOUGH: usize = 5;

/// Starts a proxy on the server that hands control connections on to the ftpd, as Docker's
/// userland proxy does: the ftpd sees the server's own address. It ends with the test.
fn start_proxy(stage: &Stage) {
    let server = stage.sandbox.server();
    let address = server.socket(Family::V4, PROXY_PORT);
    let ftpd = server.socket(Family::V4, CONTROL_PORT);
    server
        .enter(|| {
            let listener = TcpListener::bind(address).expect("the proxy's port");
            // The thread is made in the namespace and stays there.
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let Ok(onward) = TcpStream::connect(ftpd) else {
                        continue;
                    };
                    for (from, to) in [(&stream, &onward), (&onward, &stream)] {
                        let (from, to) = (from.try_clone(), to.try_clone());
                        thread::spawn(move || pass_on(&from?, &to?));
                    }
                }
            });
        })
        .expect("namespace");
}

fn pass_on(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    let copied = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
    copied.map(drop)
}

/// Whether a session by the proxy gets a data connection past it, from the client's own address.
fn transfers(stage: &Stage, control: SocketAddr) -> bool {
    let client = stage.sandbox.client();
    let mut ftp = client
        .enter(|| FtpClient::login(control))
        .expect("namespace")
        .expect("a session");
    let announced = ftp.passive(Commands::Classic).expect("a port");
    let answer = attack::knock(client, announced).expect("a try");
    matches!(answer, Answer::Connected(_))
}

fn refusal(guard: &Guard) -> Option<String> {
    let status = guard.status().expect("a status");
    status["not_enforced"].as_str().map(str::to_owned)
}

/// I8: all clients come from the server's own address. What would break every honest transfer is
/// not enforced, and it is said why; with the first client that has an address of its own it is.
#[test]
fn i8_a_proxy_hides_all_clients() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    start_proxy(&stage);
    let by_proxy = stage.sandbox.server().socket(Family::V4, PROXY_PORT);
    assert!(transfers(&stage, by_proxy), "with the guard off it works");
    let guard = guard(&stage);
    for session in 1..ENOUGH {
        assert!(!transfers(&stage, by_proxy), "denied as anybody else's");
        assert_eq!(refusal(&guard), None, "session {session}");
    }
    // With the session that makes it plain the guard stops, as soon as it reads of it.
    let _ = transfers(&stage, by_proxy);
    guard
        .wait_for_event("that nothing is enforced", |event| {
            is_kind(event, "enforcement-refused")
        })
        .expect("it is told");
    let said = refusal(&guard).unwrap_or_else(|| panic!("no reason:\n{}", guard.log()));
    let address = stage.sandbox.server().address(Family::V4).to_string();
    for word in [
        address.as_str(),
        "an address of this host",
        "proxy",
        "hidden_clients",
    ] {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
    assert!(guard.log().contains("not enforcing"), "{}", guard.log());
    assert!(transfers(&stage, by_proxy), "nothing is enforced");

    play(&stage, Scene::Passive, Winner::Honest, Some(&guard));
    guard
        .wait_for_event("that it enforces again", |event| {
            is_kind(event, "enforcement-resumed")
        })
        .expect("it is told");
    assert_eq!(refusal(&guard), None);
    play(&stage, Scene::ThiefFirst, Winner::Honest, Some(&guard));
    assert!(!transfers(&stage, by_proxy), "denied again");
}

/// I8: all clients come from this host's gateway, which translates their addresses. A pinhole
/// protects none of them from any other: the guard says so, and does not pretend to.
#[test]
fn i8_a_gateway_hides_all_clients() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let (server, gateway) = (stage.sandbox.server(), stage.sandbox.third());
    let address = gateway.address(Family::V4).to_string();
    let control = server.socket(Family::V4, CONTROL_PORT);
    let sessions = || -> Vec<FtpClient> {
        let login = || gateway.enter(|| FtpClient::login(control));
        let session = |_| login().expect("namespace").expect("a session");
        (0..ENOUGH).map(session).collect()
    };
    // From a neighbour so many sessions are nothing strange.
    let guard_before = guard(&stage);
    let open = sessions();
    play(
        &stage,
        Scene::ThiefFirst,
        Winner::Honest,
        Some(&guard_before),
    );
    assert_eq!(refusal(&guard_before), None);
    drop((open, guard_before));

    ip(server, &format!("route add default via {address}"));
    let guard = guard(&stage);
    let open = sessions();
    guard
        .wait_for_event("that nothing is enforced", |event| {
            is_kind(event, "enforcement-refused")
        })
        .expect("it is told");
    let said = refusal(&guard).unwrap_or_else(|| panic!("no reason:\n{}", guard.log()));
    for word in [address.as_str(), "this host's gateway", "hidden_clients"] {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
    drop(open);
    play(&stage, Scene::Passive, Winner::Honest, Some(&guard));
    guard
        .wait_for_event("that it enforces again", |event| {
            is_kind(event, "enforcement-resumed")
        })
        .expect("it is told");
    play(&stage, Scene::ThiefFirst, Winner::Honest, Some(&guard));
}
