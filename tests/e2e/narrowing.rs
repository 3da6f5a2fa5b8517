//! What text narrows (rules O10, C5), and that no honest client loses a transfer by it (rule O5).

use std::{fs, io::Read as _, net::TcpListener, thread};

use ftpguard_common::verdict::Reason;
use ftpguard_tests::{
    Family, FtpClient, Guard,
    client::{self, Commands},
    ftpd::{FILE, Kind, SMALL_FILE, Settings},
    sandbox::Host,
    scenario::{AT_ONCE, Stage},
    target::Target,
    wire::SynWatch,
};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    help::{guard, is_kind, stage},
    zoo_stress::length,
};

/// Logs in from this host.
fn login(stage: &Stage, host: &Host, family: Family) -> FtpClient {
    host.enter(|| stage.login(family))
        .expect("namespace")
        .expect("login")
}

/// The row of the client's session in `ftpguard sessions`.
fn session(guard: &Guard, ftp: &FtpClient) -> Value {
    let own = ftp.local().expect("own address").port();
    let rows = guard.list("sessions").expect("sessions");
    rows.as_array()
        .and_then(|rows| rows.iter().find(|row| row["client_port"] == own))
        .cloned()
        .unwrap_or_else(|| panic!("no session from port {own} in {rows:#}"))
}

/// O5, O10: five sessions from three addresses fetch in active mode, each transfer over another
/// port. The ftpd connects before its 200, or when there is something to send. None is refused,
/// though each accepted PORT narrows its session.
fn nothing_is_lost(kind: Kind, side_by_side: bool) {
    let stage = stage(Settings::of(kind));
    let guard = guard(&stage);
    let sandbox = &stage.sandbox;
    let hosts = [
        sandbox.client(),
        sandbox.thief(),
        sandbox.third(),
        sandbox.thief(),
        sandbox.client(),
    ];
    let transfers = 60 * length();
    for family in Family::ALL {
        let mut sessions = hosts.map(|host| (host, login(&stage, host, family)));
        let fetch = |(host, ftp): &mut (&Host, FtpClient)| {
            let content = host
                .enter(|| ftp.retrieve_active(SMALL_FILE, Commands::of(family)))
                .expect("namespace")
                .unwrap_or_else(|error| panic!("{kind:?}: {error:#}\n{}", guard.log()));
            assert_eq!(content.len(), 100);
        };
        if side_by_side {
            thread::scope(|scope| {
                for session in &mut sessions {
                    scope.spawn(|| (0..transfers).for_each(|_| fetch(session)));
                }
            });
        } else {
            for _ in 0..transfers {
                sessions.iter_mut().for_each(fetch);
            }
        }
        for (_, ftp) in &sessions {
            // The guard may have much to read.
            let narrowed = (0..100).any(|_| session(&guard, ftp)["active_port"].is_number());
            assert!(narrowed, "{}\n{}", session(&guard, ftp), guard.log());
        }
    }
    let refused = guard.counter(Reason::ConnectToOtherPort).expect("status");
    let made = guard.counter(Reason::ConnectToPeer).expect("status");
    println!(
        "{}: {made} active transfers, {refused} refused by narrowing",
        kind.label()
    );
    assert_eq!(refused, 0, "{}", guard.log());
    assert_eq!(usize::try_from(made), Ok(2 * hosts.len() * transfers));
}

#[test]
fn o10_narrowing_refuses_no_honest_client() {
    // One process for all, which connects before its 200. Its sessions take turns: side by side
    // pyftpdlib 1.5.7 loses some of its own connections, without a guard as well.
    nothing_is_lost(Kind::Pyftpdlib, false);
    nothing_is_lost(Kind::Vsftpd, true);
}

/// O5: a client sends all its commands at once. The ftpd follows the second PORT while the guard
/// has read it, and the answer to the first one only.
#[test]
fn o5_pipelined_ports() {
    let stage = stage(Settings::of(Kind::Wayward));
    let guard = guard(&stage);
    let client = stage.sandbox.client();
    let mut ftp = login(&stage, client, Family::V4);
    let received = client.enter(|| {
        let own = ftp.local().expect("own address").ip();
        let listeners = [(); 3].map(|()| TcpListener::bind((own, 0)).expect("bind"));
        let lines = listeners.each_ref().map(|listener| {
            let port = listener.local_addr().expect("port").port();
            format!("EPRT |1|{own}|{port}|\r\nRETR {SMALL_FILE}\r\nSITE WAIT")
        });
        ftp.send(&lines.join("\r\n")).expect("sent");
        listeners.map(|listener| {
            for code in [200, 150, 226, 200] {
                ftp.reply()
                    .and_then(|reply| reply.expect(code, "a pipelined command"))
                    .unwrap_or_else(|error| panic!("{error:#}\n{}", guard.log()));
            }
            guard.settle().expect("it is read");
            go_on(&stage);
            let (data, _) = listener.accept().expect("the ftpd connected");
            client::read_all(data).expect("data").len()
        })
    });
    assert_eq!(received.expect("namespace"), [100; 3]);
    assert_eq!(
        guard.counter(Reason::ConnectToOtherPort).expect("status"),
        0
    );
}

/// O10: an accepted PORT narrows the session to its port. Without a guard, and until there is
/// a PORT, the ftpd connects to any port of its client; then to this one only.
#[test]
fn o10_an_accepted_port_narrows() {
    let stage = stage(Settings::of(Kind::Wayward));
    let client = stage.sandbox.client();
    for family in Family::ALL {
        let target = Target::start(client, family, 0).expect("target");
        let connect = format!("SITE CONNECT {}", target.address().port());
        let commands = Commands::of(family);
        let announce = |ftp: &mut FtpClient| {
            client
                .enter(|| {
                    let own = ftp.local().expect("own address").ip();
                    let listener = TcpListener::bind((own, 0)).expect("bind");
                    let address = listener.local_addr().expect("port");
                    ftp.active(address, commands)
                        .and_then(|reply| reply.expect(200, "PORT"))
                        .expect("accepted");
                    listener
                })
                .expect("namespace")
        };
        let mut ftp = login(&stage, client, family);
        let _listener = announce(&mut ftp);
        ftp.expect(&connect, 200).expect("without a guard");
        drop(ftp);

        let guard = guard(&stage);
        let log = || guard.log();
        let mut ftp = login(&stage, client, family);
        ftp.expect(&connect, 200)
            .unwrap_or_else(|error| panic!("before PORT: {error:#}\n{}", log()));
        let listener = announce(&mut ftp);
        // Asking makes the guard read what it has.
        let narrowed = session(&guard, &ftp)["active_port"].clone();
        let port = listener.local_addr().expect("port").port();
        assert_eq!(narrowed, port, "{}", log());
        // While SITE is not read it binds nothing: narrowing waits for the daemon.
        ftp.send("NOOP").expect("sent");
        ftp.reply().expect("reply");
        let reason = Reason::ConnectToOtherPort;
        refused(&stage, &guard, &mut ftp, &connect, reason);
        let mut content = Vec::new();
        ftp.send(&format!("RETR {SMALL_FILE}")).expect("sent");
        let (mut data, _) = listener.accept().expect("the announced port is open");
        data.read_to_end(&mut content).expect("data");
        assert_eq!(content.len(), 100);
        ftp.reply()
            .and_then(|reply| reply.expect(150, "RETR"))
            .expect("150");
        ftp.reply()
            .and_then(|reply| reply.expect(226, "RETR"))
            .expect("226");
        // A PASV takes it back.
        ftp.passive(Commands::Extended).expect("EPSV");
        assert!(session(&guard, &ftp)["active_port"].is_null());
        ftp.expect(&connect, 200).expect("nothing is narrow");
        assert_eq!(target.wait_for_accepted(3), 3);
    }
}

/// C7, O10: what PORT narrowed, REIN widens again: the next user has named no port yet.
#[test]
fn c7_o10_rein_ends_narrowing() {
    let stage = stage(Settings::of(Kind::Wayward));
    let client = stage.sandbox.client();
    let guard = guard(&stage);
    for family in Family::ALL {
        let target = Target::start(client, family, 0).expect("target");
        let connect = format!("SITE CONNECT {}", target.address().port());
        let mut ftp = login(&stage, client, family);
        let own = ftp.local().expect("own address").ip();
        ftp.active((own, 40_000).into(), Commands::of(family))
            .and_then(|reply| reply.expect(200, "PORT"))
            .expect("accepted");
        assert_eq!(session(&guard, &ftp)["active_port"], 40_000);
        let reason = Reason::ConnectToOtherPort;
        refused(&stage, &guard, &mut ftp, &connect, reason);
        for (line, code) in [("REIN", 220), ("USER anonymous", 331), ("PASS x", 230)] {
            ftp.expect(line, code).expect("anew");
        }
        assert!(session(&guard, &ftp)["active_port"].is_null());
        ftp.expect(&connect, 200)
            .unwrap_or_else(|error| panic!("after REIN: {error:#}\n{}", guard.log()));
        assert_eq!(target.wait_for_accepted(1), 1);
    }
}

/// The ftpd is told to connect, goes on when the guard has read it, and may not.
fn refused(stage: &Stage, guard: &Guard, ftp: &mut FtpClient, line: &str, reason: Reason) {
    let before = guard.counter(reason).expect("status");
    ftp.send(&format!("SITE WAIT\r\n{line}")).expect("sent");
    ftp.reply()
        .and_then(|reply| reply.expect(200, "WAIT"))
        .expect("200");
    guard.settle().expect("it is read");
    go_on(stage);
    let reply = ftp.reply().expect("a reply");
    assert_eq!(reply.code, 425, "{}\n{}", reply.text, guard.log());
    assert!(reply.text.contains("not permitted"), "{}", reply.text);
    assert!(reply.took < AT_ONCE, "{reply:?}");
    let after = guard
        .wait_for_counter(reason, before + 1)
        .expect("it is counted");
    assert_eq!(after, before + 1);
    let event = guard
        .wait_for_event("of the refusal", |event| {
            is_kind(event, "connect-refused") && event["reason"] == reason.label()
        })
        .expect("event");
    assert_eq!(event["reason"], reason.label());
}

/// Ends a `SITE WAIT`.
fn go_on(stage: &Stage) {
    fs::write(stage.ftpd.root().join("go"), "").expect("a file");
}

/// C5: after EPSV ALL the client opens every data connection itself. An ftpd that obeys PORT all
/// the same is kept from it until REIN; passive mode goes on.
#[test]
fn c5_after_epsv_all_the_ftpd_connects_to_nobody() {
    let stage = stage(Settings::of(Kind::Wayward));
    let client = stage.sandbox.client();
    let server = stage.sandbox.server();
    for family in Family::ALL {
        let target = Target::start(client, family, 0).expect("target");
        let commands = Commands::of(family);
        let active = |ftp: &mut FtpClient| {
            ftp.active(target.address(), commands)
                .and_then(|reply| reply.expect(200, "PORT"))
                .expect("the ftpd accepts it");
        };
        let retrieve = format!("RETR {SMALL_FILE}");
        let mut ftp = login(&stage, client, family);
        ftp.expect("EPSV ALL", 200).expect("EPSV ALL");
        active(&mut ftp);
        ftp.expect(&retrieve, 150).expect("without a guard");
        drop(ftp);
        assert_eq!(target.wait_for_accepted(1), 1);

        let guard = guard(&stage);
        let watch = SynWatch::start(server).expect("watch");
        let mut ftp = login(&stage, client, family);
        ftp.expect("EPSV ALL", 200).expect("EPSV ALL");
        session(&guard, &ftp);
        active(&mut ftp);
        refused(
            &stage,
            &guard,
            &mut ftp,
            &retrieve,
            Reason::ConnectAfterEpsvAll,
        );
        let syns = watch.stop().expect("watch");
        assert!(!syns.contains(&target.address()), "{syns:?}");
        let content = client
            .enter(|| ftp.retrieve_passive(FILE, Commands::Extended))
            .expect("namespace")
            .unwrap_or_else(|error| panic!("passive: {error:#}\n{}", guard.log()));
        assert!(stage.is_file(&content));
        refused(
            &stage,
            &guard,
            &mut ftp,
            &format!("SITE CONNECT {}", target.address().port()),
            Reason::ConnectAfterEpsvAll,
        );
        guard
            .wait_for_event("of the violation", |event| {
                event["remark"] == "protocol-violation"
            })
            .expect("event");
        // However late the daemon learns of a REIN.
        guard.signal(Signal::SIGSTOP).expect("it stops");
        for (line, code) in [("rein", 220), ("USER anonymous", 331), ("PASS x", 230)] {
            ftp.expect(line, code).expect("anew");
        }
        active(&mut ftp);
        let retrieved = ftp.expect(&retrieve, 150);
        guard.signal(Signal::SIGCONT).expect("it goes on");
        retrieved.unwrap_or_else(|error| panic!("after REIN: {error:#}\n{}", guard.log()));
        assert_eq!(target.wait_for_accepted(2), 2);
        let counted = guard.counter(Reason::ConnectAfterEpsvAll).expect("status");
        assert_eq!(counted, 2, "{}", guard.log());
    }
}

/// C5, with an ftpd that keeps the rule itself: an EPSV ALL after a PORT closes active mode too.
#[test]
fn c5_epsv_all_after_port() {
    let stage = stage(Settings::of(Kind::Vsftpd));
    let client = stage.sandbox.client();
    let run = |guard: Option<&Guard>| {
        let target = Target::start(client, Family::V4, 0).expect("target");
        let mut ftp = login(&stage, client, Family::V4);
        ftp.active(target.address(), Commands::Classic)
            .and_then(|reply| reply.expect(200, "PORT"))
            .expect("accepted");
        ftp.expect("EPSV ALL", 200).expect("EPSV ALL");
        if let Some(guard) = guard {
            session(guard, &ftp);
        }
        let reply = ftp.command(&format!("RETR {SMALL_FILE}")).expect("a reply");
        (reply.code, target.accepted())
    };
    assert_eq!(run(None).0, 150, "without a guard");
    let guard = guard(&stage);
    assert_eq!(run(Some(&guard)), (425, 0), "{}", guard.log());
    assert_eq!(
        guard.counter(Reason::ConnectAfterEpsvAll).expect("status"),
        1
    );
}
