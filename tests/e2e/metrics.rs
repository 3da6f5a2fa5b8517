//! Metrics of a running guard, read with curl.

use std::{
    collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, process::Command, time::Duration,
};

use ftpguard_common::verdict::Reason;
use ftpguard_tests::{
    Family, Guard,
    ftpd::{Kind, Settings},
    guard::Options,
    process::Finished,
    sandbox::Host,
    scenario::{Scene, Stage, Winner},
};
use nix::sys::signal::Signal;

use crate::help::{guard_with, play, stage};

/// Runs curl on the host; fails only when it cannot be started.
fn curl(host: &Host, arguments: &[&str]) -> Finished {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--max-time", "10"]);
    command.args(arguments);
    host.run(&mut command, Duration::from_secs(15))
        .expect("curl runs")
}

/// The series and their values, comments left out.
fn series(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

/// The value of a series that is a whole number.
fn value(series: &BTreeMap<String, String>, name: &str) -> u64 {
    let value = series
        .get(name)
        .unwrap_or_else(|| panic!("no {name} in {series:#?}"));
    value.parse().expect("a whole number")
}

fn denied(reason: Reason) -> String {
    format!(
        "ftpguard_verdicts_total{{verdict=\"deny\",reason=\"{}\"}}",
        reason.label()
    )
}

fn guard_at(stage: &Stage, metrics: &str) -> Guard {
    guard_with(
        stage,
        &Options {
            metrics: Some(metrics.to_owned()),
            ..Options::default()
        },
    )
}

/// What the metrics say is what the kernel counted, and an attack is seen in them (rule I2).
#[test]
fn an_attack_is_seen_in_the_metrics() {
    let stage = stage(Settings::of(Kind::Vsftpd));
    play(&stage, Scene::ThiefFirst, Winner::Attacker, None);
    let guard = guard_at(&stage, "127.0.0.1:9821");
    let url = "http://127.0.0.1:9821/metrics";
    let server = stage.sandbox.server();
    let before = curl(server, &[url]).success("curl").expect("metrics");
    let before = series(&before.stdout);
    assert_eq!(value(&before, &denied(Reason::NoPinhole)), 0);
    assert_eq!(value(&before, "ftpguard_mode{mode=\"enforce\"}"), 1);

    play(&stage, Scene::ThiefFirst, Winner::Honest, Some(&guard));
    std::thread::sleep(Duration::from_millis(1_100));
    let after = curl(server, &[url]).success("curl").expect("metrics");
    let after = series(&after.stdout);
    let status = guard.status().expect("status");
    assert!(value(&after, &denied(Reason::NoPinhole)) > 0, "{after:#?}");
    for verdict in status["verdicts"].as_array().expect("verdicts") {
        let name = format!(
            "ftpguard_verdicts_total{{verdict={},reason={}}}",
            verdict["verdict"], verdict["name"]
        );
        let told = value(&after, &name);
        assert_eq!(Some(told), verdict["count"].as_u64(), "{name}");
    }
    assert!(value(&after, "ftpguard_pinholes_used_total") >= 2);
    assert!(value(&after, "process_resident_memory_bytes") > 1_000_000);

    // Nobody else can ask: nothing listens on the address that others reach.
    let address = server.socket(Family::V4, 9821);
    let url = format!("http://{address}/metrics");
    let outside = curl(stage.sandbox.thief(), &[&url]);
    assert!(!outside.status.success(), "{outside:?}");
}

/// A Unix socket is root's alone, and goes with the guard.
#[test]
fn metrics_on_a_unix_socket() {
    let stage = stage(Settings::of(Kind::Vsftpd));
    let path = stage.sandbox.folder().join("metrics.sock");
    let path = path.to_str().expect("a path");
    let guard = guard_at(&stage, &format!("unix:{path}"));
    let answer = curl(
        stage.sandbox.server(),
        &["--unix-socket", path, "http://localhost/metrics"],
    )
    .success("curl")
    .expect("metrics");
    assert!(series(&answer.stdout).contains_key("ftpguard_sessions"));
    let mode = fs::metadata(path).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    guard.stop(Signal::SIGTERM).expect("it ends");
    assert!(fs::metadata(path).is_err(), "the socket is still there");
}
