//! The stage itself, with the guard off: honest transfers work, every attack succeeds. Without
//! this, an attack that fails with the guard on would prove nothing.

use std::{path::Path, thread, time::Duration};

use ftpguard_tests::{
    Family, FtpClient, Ftpd, Sandbox,
    attack::{self, Answer},
    cgroup, client,
    ftpd::{CONTROL_PORT, Kind, Settings},
    scenario::{Scene, Winner},
    tool::Way,
};

use crate::help::{play, stage, transfer_with_all_tools};

#[test]
fn every_scene_goes_as_it_should_without_a_guard() {
    for kind in Kind::ALL {
        let stage = stage(Settings::unchecked(kind));
        for scene in Scene::ALL.into_iter().filter(|scene| scene.suits(kind)) {
            play(&stage, scene, scene.should_win(false), None);
        }
    }
}

#[test]
fn every_client_works_without_a_guard() {
    for kind in Kind::ALL {
        let stage = stage(Settings::of(kind));
        transfer_with_all_tools(&stage, Way::Passive, None);
        transfer_with_all_tools(&stage, Way::Active, None);
    }
}

/// T2: vsftpd's own check keeps the file from the thief, and costs the client its transfer.
#[test]
fn t2_own_checks_do_not_save_the_transfer() {
    let stage = stage(Settings::of(Kind::Vsftpd));
    play(&stage, Scene::ThiefFirst, Winner::Attacker, None);
}

#[test]
fn answers_are_told_apart() {
    let stage = stage(Settings::of(Kind::Vsftpd));
    let server = stage.sandbox.server();
    let thief = stage.sandbox.thief();
    let knock = |address| attack::knock(thief, address).expect("a try");
    for family in Family::ALL {
        let open = knock(server.socket(family, CONTROL_PORT));
        assert!(matches!(open, Answer::Connected(_)), "{open:?}");
        let closed = knock(server.socket(family, 50_000));
        assert!(matches!(closed, Answer::Refused), "{closed:?}");
    }
    // A host without a link answers nothing, not even to address resolution.
    server
        .ip(&["link", "set", "eth0", "down"])
        .expect("link down");
    for family in Family::ALL {
        let answer = attack::knock(thief, server.socket(family, CONTROL_PORT));
        assert!(
            !matches!(answer, Ok(Answer::Connected(_) | Answer::Refused)),
            "{answer:?}"
        );
    }
}

/// K2 is measured with this: a first SYN that is lost must show.
#[test]
fn a_lost_first_syn_is_seen() {
    let stage = stage(Settings::of(Kind::Vsftpd));
    let (server, client) = (stage.sandbox.server(), stage.sandbox.client());
    let route = client.address(Family::V4).to_string();
    let data = client
        .enter(|| {
            let mut ftp = stage.login(Family::V4)?;
            let announced = ftp.passive(client::Commands::Classic)?;
            // The server cannot answer the first SYN, and answers the second after a second.
            server.ip(&["route", "add", "blackhole", &route])?;
            thread::scope(|scope| {
                scope.spawn(|| {
                    thread::sleep(Duration::from_millis(300));
                    server.ip(&["route", "del", "blackhole", &route])
                });
                client::connect(announced)
            })
        })
        .expect("namespace")
        .expect("the second SYN is answered");
    assert!(data.syns_lost >= 1, "{data:?}");
}

#[test]
fn a_sandbox_leaves_nothing_behind() {
    let sandbox = Sandbox::new().expect("a sandbox");
    let other = Sandbox::new().expect("a second one beside it");
    for family in Family::ALL {
        assert_ne!(
            sandbox.server().address(family),
            other.server().address(family)
        );
    }
    let (name, folder, cgroup) = (
        sandbox.server().name().to_owned(),
        sandbox.folder().to_owned(),
        sandbox.ftpd_cgroup().path().to_owned(),
    );
    let ftpd = Ftpd::start(&sandbox, Settings::of(Kind::Vsftpd)).expect("the ftpd");
    // A session that is open when everything goes.
    let session = sandbox
        .client()
        .enter(|| FtpClient::login(sandbox.server().socket(Family::V6, CONTROL_PORT)))
        .expect("namespace")
        .expect("a session");
    let processes = sandbox.ftpd_cgroup().processes();
    assert!(processes.len() >= 3, "{processes:?}");
    assert!(processes.contains(&ftpd.id().cast_signed()));
    drop(ftpd);
    drop(sandbox);
    drop(session);
    let is_there = |path: &Path| path.exists();
    assert!(!is_there(&folder), "{folder:?}");
    assert!(!is_there(&cgroup), "{cgroup:?}");
    assert!(!is_there(&Path::new("/run/netns").join(&name)), "{name}");
    for process in processes {
        let status = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        assert!(status.is_empty() || status.contains(") Z "), "{status}");
    }
    assert!(is_there(&cgroup::mount().expect("cgroup v2")));
}
