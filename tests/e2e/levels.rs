//! What `status` says of each ftpd: who it is, how surely its listeners are attributed, and why
//! (rule P4).

use ftpguard_tests::{
    Family, FtpClient,
    client::{self, Commands},
    ftpd::{Activation, Kind, SMALL_FILE, Settings},
    sandbox::Host,
};
use serde_json::Value;

use crate::{
    help::stage,
    zoo::{Tls, guard_for, settings},
};

fn fetch(host: &Host, ftp: &mut FtpClient) {
    let content = host
        .enter(|| {
            let announced = ftp.passive(Commands::Classic)?;
            let data = client::connect(announced)?;
            ftp.receive(SMALL_FILE, data.stream)
        })
        .expect("namespace")
        .expect("the file");
    assert_eq!(content.len(), 100);
}

/// Two clients, the second of whom comes while the first one is there. What is said of the ftpd
/// after each.
fn levels(settings: Settings, name: &str, expected: [(&str, &str); 2]) {
    let stage = stage(settings);
    let guard = guard_for(&stage);
    let port = stage.ftpd.settings().control_port();
    let row = || -> Value {
        let status = guard.status().expect("status");
        let rows = status["ftpds"].as_array().expect("rows").clone();
        assert_eq!(rows.len(), 1, "{status:#}");
        rows.into_iter().next().expect("a row")
    };
    let hosts = [stage.sandbox.client(), stage.sandbox.third()];
    let mut sessions = Vec::new();
    for (host, (level, why)) in hosts.into_iter().zip(expected) {
        let ftp = host.enter(|| stage.login(Family::V4));
        sessions.push((host, ftp.expect("namespace").expect("login")));
        // A thread that has read both sessions is what tells a shared process.
        for (host, ftp) in &mut sessions {
            fetch(host, ftp);
        }
        let row = row();
        let told = format!("{row:#}\n{}", guard.log());
        assert_eq!(row["level"], level, "{told}");
        assert!(
            row["why"].as_str().is_some_and(|text| text.contains(why)),
            "{told}"
        );
        assert_eq!(row["name"], name, "{told}");
        assert_eq!(row["control_port"], port, "{told}");
        let pids = row["pids"].as_array().expect("pids");
        let cgroup = stage.sandbox.ftpd_cgroup().processes();
        assert!(!pids.is_empty(), "{told}");
        for pid in pids {
            let pid = pid.as_i64().and_then(|pid| i32::try_from(pid).ok());
            assert!(pid.is_some_and(|pid| cgroup.contains(&pid)), "{told}");
        }
        if stage.ftpd.settings().activation == Activation::Own {
            assert_eq!(pids.len(), 1, "{told}");
        }
    }
    let row = row();
    let counts: u64 = ["exact", "candidate", "text", "adopted", "unattributed"]
        .iter()
        .filter_map(|origin| row["origins"][origin].as_u64())
        .sum();
    assert!(counts >= 3, "{row:#}");
}

#[test]
fn p4_levels_in_status() {
    let one = "serves one session";
    levels(
        settings(Kind::Vsftpd, Tls::Clear),
        "vsftpd",
        [("exact", one); 2],
    );
    levels(
        Settings {
            activation: Activation::Manager { watched: false },
            ..settings(Kind::Vsftpd, Tls::Clear)
        },
        "vsftpd",
        [("exact", one); 2],
    );
    levels(
        settings(Kind::Pyftpdlib, Tls::Explicit),
        "python3",
        [("exact", one), ("candidate", "several sessions")],
    );
    levels(
        settings(Kind::Reactor, Tls::Implicit),
        "python3",
        [("exact", one), ("control-peer", "threads do not tell")],
    );
}
