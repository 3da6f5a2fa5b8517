//! The stage itself, with the guard off: honest transfers work, every attack succeeds. Without
//! this, an attack that fails with the guard on would prove nothing.

use ftpguard_tests::{
    Family, FtpClient, Sandbox,
    attack::{self, Answer},
    cgroup, client,
    scenario::{Scene, Winner},
    tool::Way,
    vsftpd::CONTROL_PORT,
};

use crate::help::{model, play, stage, transfer_with_all_tools, unchecked};

#[test]
fn every_scene_goes_as_it_should_without_a_guard() {
    for one_process in [false, true] {
        let stage = stage(unchecked(one_process));
        for scene in Scene::ALL {
            play(&stage, scene, scene.should_win(false), None);
        }
    }
}

#[test]
fn every_client_works_without_a_guard() {
    for one_process in [false, true] {
        let stage = stage(model(one_process));
        transfer_with_all_tools(&stage, Way::Passive, None);
        transfer_with_all_tools(&stage, Way::Active, None);
    }
}

/// T2: vsftpd's own check keeps the file from the thief, and costs the client its transfer.
#[test]
fn t2_own_checks_do_not_save_the_transfer() {
    let stage = stage(model(false));
    play(&stage, Scene::ThiefFirst, Winner::Attacker, None);
}

#[test]
fn answers_are_told_apart() {
    let stage = stage(model(false));
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
    let stage = stage(model(false));
    let server = stage.sandbox.server();
    let drop_first = "table inet t { chain c { type filter hook input priority 0; \
         tcp dport 50000-50031 tcp flags syn / syn,ack meter m { ip saddr limit rate over 1/minute burst 1 packets } accept; \
         tcp dport 50000-50031 tcp flags syn / syn,ack drop; } }";
    server
        .run(
            std::process::Command::new("nft").arg(drop_first),
            std::time::Duration::from_secs(5),
        )
        .and_then(|finished| finished.success("nft"))
        .expect("a rule that drops the first SYN");
    let data = stage
        .sandbox
        .client()
        .enter(|| {
            let mut ftp = stage.login(Family::V4)?;
            let announced = ftp.passive(client::Commands::Classic)?;
            client::connect(announced)
        })
        .expect("namespace")
        .expect("the second SYN arrives");
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
    let vsftpd = ftpguard_tests::Vsftpd::start(&sandbox, model(false)).expect("vsftpd");
    // A session that is open when everything goes.
    let session = sandbox
        .client()
        .enter(|| FtpClient::login(sandbox.server().socket(Family::V6, CONTROL_PORT)))
        .expect("namespace")
        .expect("a session");
    let processes = sandbox.ftpd_cgroup().processes();
    assert!(processes.len() >= 3, "{processes:?}");
    assert!(processes.contains(&vsftpd.id().cast_signed()));
    drop(vsftpd);
    drop(sandbox);
    drop(session);
    let is_there = |path: &std::path::Path| path.exists();
    assert!(!is_there(&folder), "{folder:?}");
    assert!(!is_there(&cgroup), "{cgroup:?}");
    assert!(
        !is_there(&std::path::Path::new("/run/netns").join(&name)),
        "{name}"
    );
    for process in processes {
        let status = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        assert!(status.is_empty() || status.contains(") Z "), "{status}");
    }
    assert!(is_there(&cgroup::mount().expect("cgroup v2")));
}
