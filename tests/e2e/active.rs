//! Active mode: honest clients are not hindered, nobody is reached by a bounce.

use std::{process::Command, time::Duration};

use ftpguard_common::verdict::Reason;
use ftpguard_tests::{
    Family,
    client::Commands,
    ftpd::{Kind, SMALL_FILE, Settings},
    guard::Options,
    scenario::{AT_ONCE, Scene, Winner},
    target::Target,
    tool::Way,
    wire::SynWatch,
};

use crate::help::{guard, guard_with, is_kind, off_then_on, play, stage, transfer_with_all_tools};

fn every_client_works(settings: Settings) {
    let stage = stage(settings);
    let guard = guard(&stage);
    play(&stage, Scene::Active, Winner::Honest, Some(&guard));
    transfer_with_all_tools(&stage, Way::Active, Some(&guard));
    for reason in [Reason::ConnectToStranger, Reason::ConnectToLowPort] {
        let denied = guard.counter(reason).expect("status");
        assert_eq!(denied, 0, "{}\n{}", reason.label(), guard.log());
    }
    assert!(guard.counter(Reason::ConnectToPeer).expect("status") >= 10);
}

#[test]
fn o1_honest_clients_of_vsftpd() {
    every_client_works(Settings::of(Kind::Vsftpd));
}

#[test]
fn o1_honest_clients_of_vsftpd_with_one_process() {
    every_client_works(Settings::of(Kind::VsftpdOneProcess));
}

#[test]
fn o1_honest_clients_of_pyftpdlib() {
    every_client_works(Settings::of(Kind::Pyftpdlib));
}

/// O6: with the data source port of RFC 959, which the egress guard watches as well.
#[test]
fn o6_honest_clients_of_vsftpd_from_port_20() {
    for kind in [Kind::Vsftpd, Kind::VsftpdOneProcess] {
        every_client_works(Settings {
            from_port_20: true,
            ..Settings::of(kind)
        });
    }
}

fn bounce_fails(settings: Settings, scene: Scene, reason: Reason) {
    let stage = stage(settings);
    let guard = off_then_on(&stage, scene, &Options::default());
    guard.wait_for_counter(reason, 2).expect("it is counted");
    let event = guard
        .wait_for_event("of the refusal", |event| is_kind(event, "connect-refused"))
        .expect("event");
    assert_eq!(event["reason"], reason.label(), "{event}");
}

/// T5: 425 at once, and no SYN on the wire.
#[test]
fn o4_bounce_to_a_third_host() {
    for kind in Kind::ALL {
        bounce_fails(
            Settings::unchecked(kind),
            Scene::BounceToThirdHost,
            Reason::ConnectToStranger,
        );
    }
}

/// T5, from the data source port: the `connect()` hook is the first to refuse, not the backstop.
#[test]
fn o4_bounce_from_port_20() {
    let settings = Settings {
        from_port_20: true,
        ..Settings::unchecked(Kind::VsftpdOneProcess)
    };
    bounce_fails(
        settings,
        Scene::BounceToThirdHost,
        Reason::ConnectToStranger,
    );
}

/// O1: ports below 1024 of the user's own host are service ports.
#[test]
fn o1_bounce_to_a_port_below_1024() {
    bounce_fails(
        Settings::unchecked(Kind::Pyftpdlib),
        Scene::BounceToLowPort,
        Reason::ConnectToLowPort,
    );
}

/// O1, corner case 21: the ftpd's own host, by its address and by loopback, is no peer.
#[test]
fn o1_bounce_to_the_server_itself() {
    let stage = stage(Settings::unchecked(Kind::Pyftpdlib));
    let server = stage.sandbox.server();
    let target = Target::start(server, Family::V4, 6_000).expect("a local service");
    let line = |ip: std::net::IpAddr| format!("EPRT |1|{ip}|6000|");
    let ask = |line: &str| {
        let reply = stage.sandbox.client().enter(|| {
            let mut ftp = stage.login(Family::V4)?;
            ftp.command(line)
        });
        reply.expect("namespace").expect("a reply")
    };
    let own = line(server.address(Family::V4));
    assert_eq!(ask(&own).code, 200);
    assert_eq!(
        target.wait_for_accepted(1),
        1,
        "without a guard the bounce succeeds"
    );

    let guard = guard(&stage);
    let watch = SynWatch::start(server).expect("watch");
    for line in [own, line([127, 0, 0, 1].into()), line([0, 0, 0, 0].into())] {
        let reply = ask(&line);
        assert_eq!(reply.code, 425, "{line}: {}\n{}", reply.text, guard.log());
        assert!(reply.took < AT_ONCE, "{line}: {reply:?}");
    }
    assert_eq!(target.accepted(), 1);
    let syns = watch.stop().expect("watch");
    assert!(!syns.contains(&target.address()), "{syns:?}");
}

/// O2: the client's own control port as the data port, the default of RFC 959 section 3.2.
#[test]
fn o2_the_default_data_port_is_allowed() {
    let stage = stage(Settings::of(Kind::Pyftpdlib));
    let guard = guard(&stage);
    let reply = stage
        .sandbox
        .client()
        .enter(|| {
            let mut ftp = stage.login(Family::V4)?;
            let own = ftp.local()?;
            ftp.active(own, Commands::Extended)
        })
        .expect("namespace")
        .expect("a reply");
    // Nobody listens there, so the ftpd cannot connect; what counts is that it was let try.
    assert_eq!(reply.code, 425, "{}", reply.text);
    let tried = guard.counter(Reason::ConnectToPeer).expect("status")
        + guard
            .counter(Reason::ConnectToControlSource)
            .expect("status");
    assert_eq!(tried, 1, "{}", guard.log());
}

/// O4 for sessions of two clients in one process: each may be reached, a third host may not.
#[test]
fn o8_two_clients_of_one_process() {
    let stage = stage(Settings::unchecked(Kind::Pyftpdlib));
    let guard = guard(&stage);
    let thief = stage.sandbox.thief();
    let _other = thief
        .enter(|| stage.login(Family::V4))
        .expect("namespace")
        .expect("a second client, who now is a peer as well");
    play(&stage, Scene::Active, Winner::Honest, Some(&guard));
    // The thief's session cannot send the first client's data to the thief: this thread read
    // the first client's command last.
    let target = Target::start(thief, Family::V4, 0).expect("target");
    let reply = stage
        .sandbox
        .client()
        .enter(|| {
            let mut ftp = stage.login(Family::V4)?;
            let reply = ftp.active(target.address(), Commands::Classic)?;
            if reply.code == 200 {
                return ftp.command(&format!("RETR {SMALL_FILE}"));
            }
            Ok(reply)
        })
        .expect("namespace")
        .expect("a reply");
    assert_eq!(reply.code, 425, "{}\n{}", reply.text, guard.log());
    assert_eq!(target.accepted(), 0);
}

/// O11: an ftpd elsewhere, talked into a connection to a service of this host, comes from port 20.
#[test]
fn o11_other_ftpds_are_kept_from_services() {
    const SMTP: u16 = 25;
    let stage = stage(Settings::of(Kind::Vsftpd));
    let service = Target::start(stage.sandbox.server(), Family::V4, SMTP).expect("a service");
    let bounce = |from: &str| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--local-port", from, "--max-time", "1"]);
        curl.arg(format!("telnet://{}", service.address()));
        let thief = stage.sandbox.thief();
        let before = service.accepted();
        thief
            .run(&mut curl, Duration::from_secs(5))
            .expect("curl runs");
        service.accepted() - before
    };
    let guard = guard_with(
        &stage,
        &Options {
            bounce_shield: true,
            ..Options::default()
        },
    );
    assert_eq!(bounce("20"), 0, "guard on");
    assert!(guard.counter(Reason::Bounced).expect("status") >= 1);
    assert_eq!(bounce("2020"), 1, "anybody else");
    play(&stage, Scene::Active, Winner::Honest, Some(&guard));
    // Last, because then the port is not free again at once.
    drop(guard);
    assert_eq!(bounce("20"), 1, "guard off");
}
