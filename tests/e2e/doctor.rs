//! `ftpguard doctor` on a host with real FTP servers.

use std::{ffi::OsString, fs, path::Path, process::Command, time::Duration};

use ftpguard_tests::{
    Family, Guard,
    client::Commands,
    ftpd::{Kind, Settings},
    guard,
    process::Finished,
    scenario::Stage,
};

use crate::help::stage;

fn doctor(stage: &Stage, file: &Path, more: &[&str]) -> Finished {
    let mut line: Vec<OsString> = vec!["doctor".into(), "--config".into(), file.into()];
    line.push("--cgroup".into());
    line.push(stage.sandbox.ftpd_cgroup().path().into());
    line.extend(more.iter().map(Into::into));
    Guard::run(&stage.sandbox, &line).expect("it ends")
}

fn nft(stage: &Stage, line: &str) {
    let mut command = Command::new("nft");
    command.args(line.split(' '));
    let finished = stage
        .sandbox
        .server()
        .run(&mut command, Duration::from_secs(5));
    finished.expect("nft").success("nft").expect("the rule");
}

/// The servers are found by their processes, their settings in their own files; the proposal
/// is written once, is valid, and a guard starts with it.
#[test]
fn servers_are_found_and_a_valid_configuration_is_proposed() {
    for (kind, program, version, range) in [
        (Kind::Vsftpd, "vsftpd", "3.0.3", Some("50000-50031")),
        (Kind::Proftpd, "proftpd", "1.3.8", None),
        (Kind::PureFtpd, "pure-ftpd", "1.0.50", None),
    ] {
        let stage = stage(Settings::unchecked(kind));
        let file = guard::folder(&stage.sandbox, "etc")
            .expect("a folder")
            .join("ftpguard.toml");
        let told = doctor(&stage, &file, &["--write"]);
        assert!(told.status.success(), "{kind:?} {told:?}");
        let status =
            fs::read_to_string(format!("/proc/{}/status", stage.ftpd.id())).expect("status");
        let uid = status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1))
            .expect("its effective user");
        let head = format!(
            "  {program} {version}, pid {}, uid {uid}, control ports 21,",
            stage.ftpd.id()
        );
        assert!(
            told.stdout.contains(&head),
            "no {head:?} in\n{}",
            told.stdout
        );
        if let Some(range) = range {
            let words = format!("passive ports {range} (");
            assert!(told.stdout.contains(&words), "{}", told.stdout);
            assert!(
                told.stdout
                    .contains("pasv_promiscuous=YES turns its own check")
            );
        }
        assert_eq!(
            told.stdout
                .contains("does not check by default who connects"),
            kind == Kind::Proftpd,
            "{}",
            told.stdout
        );
        assert!(
            told.stdout
                .contains("the kernel takes every program and map")
        );

        let text = fs::read_to_string(&file).expect("the file was written");
        assert!(text.contains("mode = \"monitor\""), "{text}");
        assert!(text.contains(&format!("name = \"{program}\"")), "{text}");
        let again = doctor(&stage, &file, &["--write"]);
        assert_eq!(again.status.code(), Some(1), "{again:?}");
        assert!(again.stderr.contains("--force"), "{again:?}");
        let forced = doctor(&stage, &file, &["--write", "--force"]);
        assert!(forced.status.success(), "{forced:?}");
        let guard = Guard::start_with_file(&stage.sandbox, &file).expect("it starts");
        assert!(
            guard.ready().contains("ready: monitor"),
            "{}",
            guard.ready()
        );
    }
}

/// A firewall that drops by default is named with what it drops, until it accepts that.
#[test]
fn a_firewall_that_would_still_block_is_named() {
    let stage = stage(Settings::of(Kind::Vsftpd));
    let file = guard::folder(&stage.sandbox, "etc")
        .expect("a folder")
        .join("ftpguard.toml");
    let told = || doctor(&stage, &file, &[]).stdout;
    assert!(told().contains("nftables blocks neither"), "{}", told());
    nft(&stage, "add table inet filter");
    nft(
        &stage,
        "add chain inet filter input { type filter hook input priority 0 ; policy drop ; }",
    );
    nft(
        &stage,
        "add rule inet filter input ct state established,related accept",
    );
    let text = told();
    assert!(
        text.contains("chain inet filter input drops control ports 21 and 32 passive ports"),
        "{text}"
    );
    nft(&stage, "add rule inet filter input tcp dport 21 accept");
    // The ruleset of docs/networks.md; without nft_set nobody fills the set.
    nft(
        &stage,
        "add set inet filter ftp4 { type ipv4_addr . inet_service ; flags timeout ; }",
    );
    nft(
        &stage,
        "add rule inet filter input ip saddr . tcp dport @ftp4 accept",
    );
    let text = told();
    assert!(
        text.contains("cannot be told whether its sets and maps accept 32 passive ports"),
        "{text}"
    );
    fs::write(&file, "nft_set = \"inet filter ftp\"\n").expect("written");
    assert!(told().contains("nftables blocks neither"), "{}", told());
    fs::remove_file(&file).expect("removed");
    nft(
        &stage,
        "add rule inet filter input tcp dport { 50000-50031 } accept",
    );
    assert!(told().contains("nftables blocks neither"), "{}", told());
}

/// D1: the ports that a running guard saw the server choose are judged.
#[test]
fn d1_passive_ports_are_judged_from_what_a_running_guard_saw() {
    let stage = stage(Settings::of(Kind::Vsftpd));
    let file = guard::folder(&stage.sandbox, "etc")
        .expect("a folder")
        .join("ftpguard.toml");
    fs::write(&file, "[[ftpd]]\npassive_ports = \"50000-50031\"\n").expect("written");
    let guard = Guard::start_with_file(&stage.sandbox, &file).expect("it starts");
    let runtime = guard.runtime_dir().display().to_string();
    let told = || doctor(&stage, &file, &["--runtime-dir", &runtime]).stdout;
    assert!(told().contains("none was opened yet"), "{}", told());
    stage
        .sandbox
        .client()
        .enter(|| {
            let mut ftp = stage.login(Family::V4).expect("login");
            for _ in 0..60 {
                ftp.passive(Commands::Classic).expect("PASV");
            }
        })
        .expect("the client's host");
    let text = told();
    assert!(text.contains("control port 21: 60 seen, "), "{text}");
    assert!(text.contains("different of 32, entropy "), "{text}");
    assert!(
        text.contains("32 ports to choose from are tried in a moment"),
        "{text}"
    );
}

/// Nobody listens: nothing is proposed, and nothing written.
#[test]
fn without_a_server_nothing_is_written() {
    let mut stage = stage(Settings::of(Kind::Vsftpd));
    stage.ftpd.stop();
    let file = guard::folder(&stage.sandbox, "etc")
        .expect("a folder")
        .join("ftpguard.toml");
    let told = doctor(&stage, &file, &["--write"]);
    assert_eq!(told.status.code(), Some(1), "{told:?}");
    assert!(told.stderr.contains("no FTP server was found"), "{told:?}");
    assert!(!file.exists());
}
