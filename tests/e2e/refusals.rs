//! Bad input: one line that names the thing and the remedy, a status that is not 0, and nothing
//! left attached.

use std::{ffi::OsString, fs, os::unix::fs::PermissionsExt as _, process::Command, time::Duration};

use ftpguard_tests::{
    Guard,
    ftpd::{Kind, Settings},
    guard::{self, binary},
    process::Finished,
    scenario::Stage,
};

use crate::help::{attached, stage};

/// `ftpguard run` with a good command line, in which these options are replaced or added.
fn command_line(stage: &Stage, changed: &[(&str, &str)]) -> Vec<OsString> {
    let runtime = guard::folder(&stage.sandbox, "refused").expect("a folder");
    let mut options: Vec<(&str, OsString)> = vec![
        ("--iface", "eth0".into()),
        ("--control-port", "21".into()),
        ("--passive-ports", "50000-50031".into()),
        ("--cgroup", stage.sandbox.ftpd_cgroup().path().into()),
        ("--runtime-dir", runtime.into()),
    ];
    for (name, value) in changed {
        options.retain(|(other, _)| other != name);
        options.push((name, value.into()));
    }
    let mut line = vec!["run".into()];
    for (name, value) in options {
        line.extend([name.into(), value]);
    }
    line
}

/// Fails unless the command was refused as it should be.
fn assert_refused(stage: &Stage, finished: &Finished, words: &[&str]) {
    assert!(!finished.status.success(), "{finished:?}");
    assert!(
        finished.status.code().is_some(),
        "ended by a signal: {finished:?}"
    );
    assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
    for word in words {
        let text = finished.stderr.to_lowercase();
        assert!(text.contains(word), "no {word:?} in {}", finished.stderr);
    }
    assert!(!finished.stderr.contains("panicked"), "{finished:?}");
    assert_eq!(attached(stage), Vec::<String>::new());
}

fn refused(changed: &[(&str, &str)], words: &[&str]) {
    let stage = stage(Settings::of(Kind::Vsftpd));
    let line = command_line(&stage, changed);
    let finished = Guard::run(&stage.sandbox, &line).expect("it ends by itself");
    assert_refused(&stage, &finished, words);
}

#[test]
fn an_interface_that_is_not_there() {
    refused(&[("--iface", "eth9")], &["eth9", "eth0"]);
}

#[test]
fn a_range_that_is_reversed() {
    refused(
        &[("--passive-ports", "50031-50000")],
        &["passive-ports", "50000-50031"],
    );
}

#[test]
fn ranges_that_are_none() {
    for range in ["50000", "50000-", "0-50000", "50000-65536", "a-b", ""] {
        refused(&[("--passive-ports", range)], &["passive-ports"]);
    }
}

#[test]
fn a_control_port_in_the_passive_range() {
    refused(&[("--control-port", "50010")], &["50010", "50000-50031"]);
}

#[test]
fn a_control_port_that_is_none() {
    for port in ["0", "65536", "ftp"] {
        refused(&[("--control-port", port)], &["control-port", port]);
    }
}

#[test]
fn a_mode_that_does_not_exist() {
    refused(&[("--mode", "strict")], &["strict", "monitor"]);
}

#[test]
fn metrics_that_others_could_read() {
    for address in ["0.0.0.0:9821", "[::]:9821", "192.0.2.1:9821"] {
        let words = ["--metrics", "other hosts", "127.0.0.1"];
        refused(&[("--metrics", address)], &words);
    }
    let words = ["/nonexistent/m.sock", "--metrics"];
    refused(&[("--metrics", "unix:/nonexistent/m.sock")], &words);
}

#[test]
fn a_cgroup_that_is_none() {
    refused(&[("--cgroup", "/nonexistent")], &["/nonexistent", "cgroup"]);
    refused(&[("--cgroup", "/proc")], &["/proc", "cgroup"]);
}

#[test]
fn a_runtime_folder_that_cannot_be() {
    refused(
        &[("--runtime-dir", "/proc/ftpguard")],
        &["/proc/ftpguard", "runtime-dir"],
    );
}

/// Another guard, or any other native XDP program, holds the hook.
#[test]
fn an_xdp_program_in_the_way() {
    let stage = stage(Settings::of(Kind::Vsftpd));
    let other = crate::help::guard_with(
        &stage,
        &guard::Options {
            xdp_mode: "native",
            ..guard::Options::default()
        },
    );
    let before = attached(&stage);
    let line = command_line(&stage, &[("--xdp-mode", "native")]);
    let finished = Guard::run(&stage.sandbox, &line).expect("it ends by itself");
    assert!(!finished.status.success(), "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
    for word in ["xdp", "eth0", "ip -details link show", "--xdp-mode"] {
        let text = finished.stderr.to_lowercase();
        assert!(text.contains(word), "no {word:?} in {}", finished.stderr);
    }
    assert_eq!(attached(&stage), before, "the other program's hooks stay");
    other
        .stop(nix::sys::signal::Signal::SIGTERM)
        .expect("the other one still runs");
    assert_eq!(attached(&stage), Vec::<String>::new());
}

/// Two guards on one control socket.
#[test]
fn a_guard_that_runs_already() {
    let stage = stage(Settings::of(Kind::Vsftpd));
    let other = crate::help::guard(&stage);
    let runtime = other.runtime_dir().to_str().expect("a path").to_owned();
    let before = attached(&stage);
    let line = command_line(
        &stage,
        &[("--runtime-dir", &runtime), ("--xdp-mode", "generic")],
    );
    let finished = Guard::run(&stage.sandbox, &line).expect("it ends by itself");
    assert!(!finished.status.success(), "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
    assert!(finished.stderr.contains(&runtime), "{}", finished.stderr);
    assert_eq!(attached(&stage), before);
    assert!(other.status().is_ok(), "the other one still answers");
}

/// As a user without any capability; the binary is copied to where he may read it.
#[test]
fn not_root() {
    let stage = stage(Settings::of(Kind::Vsftpd));
    let copy = stage.sandbox.folder().join("ftpguard");
    fs::copy(binary(), &copy).expect("a copy of the binary");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("permissions");
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"])
        .args(["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"])
        .arg(&copy)
        .args(command_line(&stage, &[]));
    let finished = stage
        .sandbox
        .server()
        .run(&mut command, Duration::from_secs(10))
        .expect("it ends by itself");
    assert_refused(&stage, &finished, &["permission", "root"]);
}
