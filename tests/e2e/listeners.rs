//! Listeners that come about in unusual ways: a listen() that fails, one that is announced again,
//! one from before any session, one of a process that nobody saw (rules F2, F4, I4, K3).

use std::{net::SocketAddr, thread, time::Duration};

use ftpguard_tests::{
    Family, FtpClient, Guard,
    attack::{self, Answer},
    client::{self, Commands},
    ftpd::{Activation, FILE, Kind, Settings},
    sandbox::Host,
    scenario::Stage,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    help::{guard, stage},
    zoo::origins,
};

fn login(stage: &Stage, host: &Host, family: Family) -> FtpClient {
    host.enter(|| stage.login(family))
        .expect("namespace")
        .expect("login")
}

/// Nobody answers this host there.
fn assert_silent(host: &Host, announced: SocketAddr, guard: &Guard, who: &str) {
    let answer = attack::knock(host, announced).expect("a try");
    assert!(
        matches!(answer, Answer::Silent),
        "{who} at {announced}: {answer:?}\n{}",
        guard.log()
    );
}

/// Two sessions take the same port; one listens, and then the other one's listen() fails
/// (`EADDRINUSE`). Its client must not reach the first one's listener, whose own client does.
#[test]
fn f2_a_listen_that_fails_leaves_no_pinhole() {
    for family in Family::ALL {
        let stage = stage(Settings::unchecked(Kind::Wayward));
        let (client, other) = (stage.sandbox.client(), stage.sandbox.third());
        let guard = guard(&stage);
        for port in [50_020, 50_021] {
            let mut first = login(&stage, client, family);
            let mut second = login(&stage, other, family);
            for ftp in [&mut first, &mut second] {
                ftp.expect(&format!("SITE BIND {port}"), 200).expect("BIND");
            }
            first.expect("SITE LISTEN", 200).expect("LISTEN");
            let reply = second.expect("SITE LISTEN", 425).expect("it fails");
            assert!(reply.text.contains("already in use"), "{}", reply.text);
            let announced = stage.sandbox.server().socket(family, port);
            assert_silent(
                other,
                announced,
                &guard,
                "the client of the failed listen()",
            );
            let own = client
                .enter(|| client::connect(announced))
                .expect("namespace")
                .unwrap_or_else(|error| panic!("{error:#}\n{}", guard.log()));
            assert_eq!(own.syns_lost, 0, "{}", guard.log());
            // Used up, and gone with its listener.
            assert_silent(client, announced, &guard, "the first client again");
            drop(first);
            drop(second);
        }
        // Each port is closed as an unused one of the range is: nothing is left of it.
        let status = (0..500)
            .map(|_| {
                thread::sleep(Duration::from_millis(10));
                guard.status().expect("status")
            })
            .find(|status| status["guarded_listeners"] == 2)
            .unwrap_or_default();
        assert_eq!(status["pinholes"], 0, "{status:#}");
        // The control port, and the one from before any session.
        assert_eq!(status["guarded_listeners"], 2, "{status:#}");
    }
}

/// The same beside other software: its listener stays foreign, and nobody is kept from it.
#[test]
fn i4_a_listen_that_fails_leaves_a_foreign_listener_alone() {
    let stage = stage(Settings::unchecked(Kind::Wayward));
    let server = stage.sandbox.server();
    let guard = guard(&stage);
    let mut ftp = login(&stage, stage.sandbox.client(), Family::V4);
    ftp.expect("SITE BIND 50020", 200).expect("BIND");
    let database = ftpguard_tests::target::Target::start(server, Family::V4, 50_020)
        .expect("a listener of other software");
    let status = guard.status().expect("status");
    assert_eq!(status["foreign_listeners"], 1, "{status:#}");
    ftp.expect("SITE LISTEN", 425).expect("it fails");
    let status = guard.status().expect("status");
    assert_eq!(status["foreign_listeners"], 1, "{status:#}");
    assert_eq!(status["pinholes"], 0, "{status:#}");
    let answer = attack::knock(stage.sandbox.thief(), database.address()).expect("a try");
    assert!(matches!(answer, Answer::Connected(_)), "{answer:?}");
}

/// K8: two sessions listen at one endpoint (`SO_REUSEPORT`). When the first one closes its socket,
/// its client has lost its way in: the other one's listener is not for it.
#[test]
fn k8_a_shared_endpoint_that_its_first_socket_leaves() {
    let stage = stage(Settings::unchecked(Kind::Wayward));
    let (client, other) = (stage.sandbox.client(), stage.sandbox.third());
    for family in Family::ALL {
        for guarded in [false, true] {
            let guard = guarded.then(|| guard(&stage));
            let log = || guard.as_ref().map(Guard::log).unwrap_or_default();
            let mut first = login(&stage, client, family);
            let mut second = login(&stage, other, family);
            for ftp in [&mut first, &mut second] {
                ftp.expect("SITE SHARE 50020", 200).expect("SHARE");
            }
            first.expect("SITE LEAVE", 200).expect("LEAVE");
            let announced = second.passive(Commands::of(family)).expect("PASV or EPSV");
            let answer = attack::knock(client, announced).expect("a try");
            let got_in = matches!(answer, Answer::Connected(_));
            assert_eq!(got_in, !guarded, "{answer:?}\n{}", log());
            if guarded {
                let content = other.enter(|| {
                    second
                        .retrieve_announced(FILE, announced)
                        .expect("its own client")
                });
                assert!(stage.is_file(&content.expect("namespace")), "{}", log());
            }
        }
    }
}

/// F4: one listener for several transfers. The first pinhole comes from listen(), the next ones
/// from the replies; each admits one connection, and only its client's.
#[test]
fn f4_a_listener_that_is_announced_again() {
    let stage = stage(Settings::unchecked(Kind::Wayward));
    let (client, thief) = (stage.sandbox.client(), stage.sandbox.thief());
    let guard = guard(&stage);
    for family in Family::ALL {
        let mut ftp = login(&stage, client, family);
        let before = origins(&guard).len();
        ftp.expect("SITE KEEP", 200).expect("KEEP");
        let mut ports = Vec::new();
        for round in 0..4 {
            let announced = ftp.passive(Commands::of(family)).expect("PASV or EPSV");
            ports.push(announced.port());
            assert_silent(thief, announced, &guard, "a stranger");
            let content = client.enter(|| {
                // Slower than the guard, so that no SYN is lost.
                let data = client::connect(announced)
                    .unwrap_or_else(|error| panic!("{round}: {error:#}\n{}", guard.log()));
                assert_silent(client, announced, &guard, "the client once more");
                ftp.receive(FILE, data.stream)
                    .unwrap_or_else(|error| panic!("{round}: {error:#}\n{}", guard.log()))
            });
            assert!(stage.is_file(&content.expect("namespace")));
        }
        ports.dedup();
        assert_eq!(ports.len(), 1, "one listener: {ports:?}");
        let made = &origins(&guard)[before..];
        assert_eq!(made.len(), 4, "{made:?}\n{}", guard.log());
        assert!(
            made.iter().skip(1).all(|origin| origin == "text"),
            "{made:?}"
        );
    }
}

/// F4, P4: a listener from before any session admits whoever holds a control connection.
#[test]
fn f4_a_listener_bound_in_advance() {
    let stage = stage(Settings::unchecked(Kind::Wayward));
    let sandbox = &stage.sandbox;
    let guard = guard(&stage);
    for family in Family::ALL {
        let mut ftp = login(&stage, sandbox.client(), family);
        ftp.expect("SITE ADVANCE", 200).expect("ADVANCE");
        for _ in 0..3 {
            let announced = ftp.passive(Commands::of(family)).expect("PASV or EPSV");
            assert_eq!(announced.port(), 50_000);
            assert_silent(sandbox.thief(), announced, &guard, "a stranger");
            let content = sandbox.client().enter(|| {
                ftp.retrieve_announced(FILE, announced)
                    .unwrap_or_else(|error| panic!("{error:#}\n{}", guard.log()))
            });
            assert!(stage.is_file(&content.expect("namespace")));
        }
    }
}

/// F2: somebody else accepts, and who reads is gone before the guard can look whose child it was.
/// So the process that listens is not known, its listener looks like other software's, and only a
/// second look at who holds the control connection tells.
#[test]
fn f2_the_process_that_listens_was_never_seen() {
    let stage = stage(Settings {
        activation: Activation::Manager { watched: false },
        ..Settings::unchecked(Kind::Wayward)
    });
    let sandbox = &stage.sandbox;
    let guard = guard(&stage);
    for family in Family::ALL {
        for _ in 0..3 {
            let before = origins(&guard).len();
            // Whoever reads is gone when the guard wakes up.
            signal(&guard, Signal::SIGSTOP);
            let mut ftp = login(&stage, sandbox.client(), family);
            let announced = ftp.passive(Commands::of(family)).expect("PASV or EPSV");
            signal(&guard, Signal::SIGCONT);
            let made = (0..300).any(|_| {
                thread::sleep(Duration::from_millis(10));
                origins(&guard).len() > before
            });
            assert!(made, "{}", guard.log());
            assert_silent(sandbox.thief(), announced, &guard, "a stranger");
            let content = sandbox.client().enter(|| {
                ftp.retrieve_announced(FILE, announced)
                    .unwrap_or_else(|error| panic!("{error:#}\n{}", guard.log()))
            });
            assert!(stage.is_file(&content.expect("namespace")));
        }
    }
    assert_eq!(origins(&guard), ["adopted"; 6], "{}", guard.log());
}

fn signal(guard: &Guard, signal: Signal) {
    kill(Pid::from_raw(guard.id().cast_signed()), signal).expect("the guard is there");
}
