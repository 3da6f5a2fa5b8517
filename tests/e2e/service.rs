//! The unit of the packages, under a real systemd, and its capabilities.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use ftpguard_tests::{
    Family, FtpClient, Guard, Sandbox,
    attack::{self, Answer},
    client::Commands,
    ftpd::{Kind, Settings},
    guard::{self, Options, binary},
    process,
    scenario::{Scene, Stage},
    service_manager::ServiceManager,
};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::help::{off_then_on, stage};

const UNIT: &str = include_str!("../../packaging/ftpguard.service");
const NAME: &str = "ftpguard.service";

/// The folder with what the packages install.
fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging")
}

/// The values of a setting of the unit.
fn setting(name: &str) -> Vec<&'static str> {
    UNIT.lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        .flat_map(str::split_whitespace)
        .collect()
}

/// The unit's command in the sandbox, with these options and this section of its own.
fn drop_in(options: &str, service: &str) -> String {
    let command = setting("ExecStart")
        .join(" ")
        .replace("/usr/bin/", "/mnt/")
        .replace("/etc/ftpguard/", "/mnt/");
    let reload = setting("ExecReload")
        .join(" ")
        .replace("/usr/bin/", "/mnt/");
    format!(
        "[Service]\nExecStart=\nExecStart={command} --iface eth0 {options}\n\
         ExecReload=\nExecReload={reload}\n{service}\n"
    )
}

fn boot(sandbox: &Sandbox, drop_in: &str) -> ServiceManager {
    ServiceManager::boot(
        sandbox,
        &[(NAME, UNIT), ("ftpguard.service.d/sandbox.conf", drop_in)],
        &[
            ("ftpguard", &binary()),
            ("ftpguard.toml", &packaging().join("ftpguard.toml")),
        ],
        NAME,
    )
    .expect("systemd")
}

/// Needed for `socket_group` only, and given up before the guard is ready.
const FOR_A_MOMENT: &str = "CAP_CHOWN";

/// The mask of capabilities.
fn mask(names: &[&str]) -> u64 {
    names
        .iter()
        .map(|name| match *name {
            FOR_A_MOMENT => 1 << 0,
            "CAP_DAC_READ_SEARCH" => 1 << 2,
            "CAP_NET_ADMIN" => 1 << 12,
            "CAP_SYS_PTRACE" => 1 << 19,
            "CAP_PERFMON" => 1 << 38,
            "CAP_BPF" => 1 << 39,
            other => panic!("{other} is new: what is its number?"),
        })
        .sum()
}

/// As shipped but for the mode, the interface, the range and the group that may ask: it becomes ready
/// inside all of its restrictions, closes the range (rule I1), and its events are in the journal with fields.
#[test]
fn the_unit_guards_under_systemd() {
    let sandbox = Sandbox::new().expect("sandbox");
    let options = "--mode enforce --passive-ports 50000-50031 --socket-group adm";
    let manager = boot(&sandbox, &drop_in(options, ""));
    let id = manager.wait_until_active(NAME).expect("the guard is ready");

    let status = manager
        .run(&["cat", &format!("/proc/{id}/status")])
        .expect("its status")
        .stdout;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {status}"))
            .trim()
    };
    let bounded = setting("CapabilityBoundingSet");
    let mut kept = bounded.clone();
    kept.retain(|name| *name != FOR_A_MOMENT);
    for (set, names) in [
        ("CapBnd:", bounded),
        ("CapPrm:", kept.clone()),
        ("CapEff:", kept),
    ] {
        let held = u64::from_str_radix(field(set), 16).expect("a mask");
        assert_eq!(held, mask(&names), "{set} {held:x}");
    }
    assert_eq!(field("CapInh:").trim_start_matches('0'), "");
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1", "2"));

    let socket = ["stat", "--format=%G %a", "/run/ftpguard/control.sock"];
    let socket = manager.run(&socket).expect("the control socket").stdout;
    assert_eq!(socket.trim(), "adm 660");

    let target = sandbox.server().socket(Family::V4, 50_005);
    let answer = attack::knock(sandbox.thief(), target).expect("a knock");
    assert!(matches!(answer, Answer::Silent), "{answer:?}");

    let thief = sandbox.thief().address(Family::V4).to_string();
    let entry = manager
        .wait_for("entry in the journal", || {
            let told = manager
                .run(&[
                    "journalctl",
                    "--output=json",
                    "--unit",
                    NAME,
                    "FTPGUARD_EVENT=syn-denied",
                    "FTPGUARD_REASON=closed-port",
                    &format!("FTPGUARD_CLIENT={thief}"),
                ])
                .ok()?
                .stdout;
            serde_json::from_str::<Value>(told.lines().next()?).ok()
        })
        .expect("the denial is in the journal");
    for (name, value) in [
        ("PRIORITY", "4"),
        ("SYSLOG_IDENTIFIER", "ftpguard"),
        ("FTPGUARD_PORT", "50005"),
        ("FTPGUARD_MODE", "enforce"),
    ] {
        assert_eq!(entry[name], value, "{name} in {entry:#}");
    }
    let message = entry["MESSAGE"].as_str().expect("a message");
    assert!(message.contains(&thief), "{message}");

    let status = manager.run(&["/mnt/ftpguard", "status"]).expect("status");
    assert!(status.stdout.contains("closed-port"), "{status:?}");

    // A wrong file is refused, and the guard goes on as it was.
    let reload = || manager.run(&["systemctl", "reload", NAME]).expect("reload");
    assert!(reload().status.success(), "{}", manager.log());
    let spoil = "echo 'nonsense = 1' >> /mnt/ftpguard.toml";
    let spoiled = manager.run(&["sh", "-c", spoil]).expect("a wrong file");
    assert!(spoiled.status.success(), "{spoiled:?}");
    assert!(!reload().status.success(), "a wrong file was accepted");
    assert!(manager.log().contains("nonsense"), "{}", manager.log());
    let same = manager.property(NAME, "MainPID").expect("its process");
    assert_eq!(same, id);

    let stopped = manager.run(&["systemctl", "stop", NAME]).expect("stop");
    assert!(stopped.status.success(), "{stopped:?}");
    assert_eq!(manager.property(NAME, "Result").expect("result"), "success");
}

/// What the filter of system calls refuses ends the guard here, instead of with an error that it
/// might not notice: it makes no call that the unit does not allow.
#[test]
fn the_unit_allows_every_call_that_the_guard_makes() {
    const DEADLY: &str = "SystemCallErrorNumber=kill\nRestart=no";
    let sandbox = Sandbox::new().expect("sandbox");
    let result = |manager: &ServiceManager| manager.property(NAME, "Result").unwrap_or_default();
    // It would be seen: without one that the guard needs, it is killed.
    let without = drop_in("", &format!("{DEADLY}\nSystemCallFilter=~bpf"));
    let manager = boot(&sandbox, &without);
    manager
        .wait_for("end by a refused call", || {
            ["signal", "core-dump"]
                .contains(&result(&manager).as_str())
                .then_some(())
        })
        .expect("it is killed");
    let signal = manager.property(NAME, "ExecMainStatus").expect("a status");
    assert_eq!(signal, (Signal::SIGSYS as i32).to_string());
    drop(manager);

    let options = "--mode enforce --passive-ports 50000-50031 --socket-group adm";
    let manager = boot(&sandbox, &drop_in(options, DEADLY));
    manager.wait_until_active(NAME).expect("the guard is ready");
    let target = sandbox.server().socket(Family::V4, 50_005);
    for verb in ["reload", "restart"] {
        let answer = attack::knock(sandbox.thief(), target).expect("a knock");
        assert!(matches!(answer, Answer::Silent), "{answer:?}");
        let done = manager.run(&["systemctl", verb, NAME]).expect(verb);
        assert!(done.status.success(), "{verb}: {}", manager.log());
    }
    for question in ["status", "sessions", "why", "mode"] {
        let told = manager.run(&["/mnt/ftpguard", question]).expect(question);
        assert!(told.status.success(), "{question}: {}", manager.log());
    }
    // Longer than everything is looked over.
    thread::sleep(Duration::from_secs(11));
    assert_eq!(
        manager.property(NAME, "ActiveState").expect("state"),
        "active"
    );
    let stopped = manager.run(&["systemctl", "stop", NAME]).expect("stop");
    assert!(stopped.status.success(), "{stopped:?}");
    assert_eq!(result(&manager), "success", "{}", manager.log());
}

/// The hooks of the guard, by the numbers of their pins.
fn hooks(manager: &ServiceManager) -> Vec<String> {
    let find = "find /sys/fs/bpf/ftpguard/state-*/hooks -type f -printf '%i %f\\n' | sort";
    let found = manager.run(&["sh", "-c", find]).expect("the pins");
    found.stdout.lines().map(str::to_owned).collect()
}

/// K10: `systemctl restart`, as an upgrade of the package does, takes over the hooks as they are;
/// `systemctl stop` leaves none.
#[test]
fn k10_a_restart_of_the_unit_keeps_the_hooks() {
    let sandbox = Sandbox::new().expect("sandbox");
    let options = "--mode enforce --passive-ports 50000-50031";
    let manager = boot(&sandbox, &drop_in(options, ""));
    let first = manager.wait_until_active(NAME).expect("the guard is ready");
    let before = hooks(&manager);
    assert!(before.len() > 5, "{before:?}");
    let target = sandbox.server().socket(Family::V4, 50_005);
    let done = AtomicBool::new(false);
    let answers = thread::scope(|scope| {
        let knocks = scope.spawn(|| {
            let mut answers = Vec::new();
            while !done.load(Ordering::Relaxed) {
                answers.push(attack::knock(sandbox.thief(), target).expect("a knock"));
            }
            answers
        });
        for verb in ["restart", "try-restart"] {
            let restarted = manager.run(&["systemctl", verb, NAME]);
            assert!(restarted.is_ok_and(|it| it.status.success()), "{verb}");
        }
        done.store(true, Ordering::Relaxed);
        knocks.join().expect("knocks")
    });
    let second = manager.wait_until_active(NAME).expect("it is ready again");
    assert_ne!(first, second);
    assert_eq!(hooks(&manager), before, "{}", manager.log());
    let let_through = answers
        .iter()
        .filter(|answer| !matches!(answer, Answer::Silent));
    assert_eq!(let_through.count(), 0, "{answers:?}");
    let stopped = manager.run(&["systemctl", "stop", NAME]).expect("stop");
    assert!(stopped.status.success(), "{stopped:?}");
    assert_eq!(hooks(&manager), Vec::<String>::new());
}

/// `ftpguard detach` ends the service's daemon, while systemd takes the runtime folder away behind it.
#[test]
fn detach_ends_the_guard_of_the_unit() {
    let sandbox = Sandbox::new().expect("sandbox");
    let manager = boot(&sandbox, &drop_in("", ""));
    // More starts in ten seconds systemd does not make (StartLimitBurst=).
    for round in 0..3 {
        manager.wait_until_active(NAME).expect("the guard is ready");
        assert!(hooks(&manager).len() > 5, "round {round}");
        let done = manager.run(&["/mnt/ftpguard", "detach"]).expect("detach");
        assert!(done.status.success(), "round {round}: {done:?}");
        assert!(done.stdout.contains("the daemon has ended"), "{done:?}");
        assert_eq!(hooks(&manager), Vec::<String>::new());
        let started = manager.run(&["systemctl", "start", NAME]).expect("start");
        assert!(started.status.success(), "round {round}: {started:?}");
    }
}

/// A guard that hangs is started again, and one that works is not.
#[test]
fn the_watchdog_starts_a_guard_that_hangs_again() {
    let sandbox = Sandbox::new().expect("sandbox");
    let manager = boot(&sandbox, &drop_in("", "WatchdogSec=5\nRestartSec=100ms"));
    let first = manager.wait_until_active(NAME).expect("the guard is ready");
    thread::sleep(Duration::from_secs(7));
    let restarts = || manager.property(NAME, "NRestarts").expect("restarts");
    assert_eq!(restarts(), "0", "{}", manager.log());

    let stopped = manager.run(&["kill", "-STOP", &first]).expect("kill");
    assert!(stopped.status.success(), "{stopped:?}");
    let second = manager
        .wait_for("second guard", || {
            (restarts() == "1").then(|| manager.wait_until_active(NAME).ok())?
        })
        .expect("it is started again");
    assert_ne!(first, second);
}

/// The score counts what a taken-over guard could still do, from 0 (nothing) to 10.
#[test]
fn the_units_exposure_is_small() {
    let unit = packaging().join(NAME);
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--no-pager", "--threshold=28"]);
    let finished = process::run(command.arg(&unit), Duration::from_secs(30)).expect("2.8 or less");
    assert!(finished.stdout.contains("exposure level"), "{finished:?}");
}

/// A program that runs ftpguard with these capabilities and no others.
fn with_capabilities(sandbox: &Sandbox, capabilities: &[&str]) -> PathBuf {
    let mut set = "-all".to_owned();
    for name in capabilities {
        let name = name.trim_start_matches("CAP_").to_lowercase();
        let _ = write!(set, ",+{name}");
    }
    let folder = guard::folder(sandbox, "bounded").expect("a folder");
    let path = folder.join("ftpguard");
    let script = format!(
        "#!/bin/sh\nexec setpriv --bounding-set={set} --inh-caps=-all --no-new-privs {} \"$@\"\n",
        binary().display()
    );
    fs::write(&path, script).expect("the script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("permissions");
    path
}

fn bounded(stage: &Stage, capabilities: &[&str]) -> Options {
    Options {
        binary: with_capabilities(&stage.sandbox, capabilities),
        ..Options::default()
    }
}

/// The unit's capabilities are enough for every scene, every way in and both families.
#[test]
fn the_units_capabilities_are_enough() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let all = setting("CapabilityBoundingSet");
    for scene in [Scene::ThiefFirst, Scene::Scan, Scene::BounceToThirdHost] {
        drop(off_then_on(&stage, scene, &bounded(&stage, &all)));
    }
    for xdp_mode in ["native", "generic", "tc"] {
        let options = Options {
            xdp_mode,
            ..bounded(&stage, &all)
        };
        drop(off_then_on(&stage, Scene::ThiefFirst, &options));
    }
}

/// An ftpd that has never been root: who may look at its open files?
const UNPRIVILEGED: &str = "
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer
FTPHandler.authorizer = DummyAuthorizer()
FTPHandler.authorizer.add_anonymous('/')
server = FTPServer(('0.0.0.0', 2121), FTPHandler)
print('listening', flush=True)
server.serve_forever()
";

/// Starts a guard with these capabilities while another user's session has a port announced, and
/// says how many pinholes it adopts (rule K10), with its log.
fn late_start(capabilities: &[&str]) -> (Option<u64>, String) {
    let sandbox = Sandbox::new().expect("sandbox");
    let mut ftpd = sandbox.ftpd_cgroup().command("setpriv");
    ftpd.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
    ftpd.args(["/usr/bin/python3", "-c", UNPRIVILEGED]);
    let mut ftpd = sandbox.server().spawn(&mut ftpd).expect("the ftpd");
    ftpd.wait_for_line("start", Duration::from_secs(10), |line| line == "listening")
        .expect("the ftpd listens");
    let options = Options {
        binary: with_capabilities(&sandbox, capabilities),
        control_port: 2121,
        ..Options::default()
    };
    sandbox
        .client()
        .enter(|| {
            let server = sandbox.server().socket(Family::V4, 2121);
            let mut ftp = FtpClient::login(server).expect("login");
            ftp.passive(Commands::Classic).expect("a port");
            let guard = Guard::start(&sandbox, &options).expect("ftpguard becomes ready");
            let status = guard.status().expect("status");
            (status["pinholes"].as_u64(), guard.log())
        })
        .expect("the client's namespace")
}

/// Each of them is needed: what fails without it.
#[test]
fn every_capability_of_the_unit_is_needed() {
    let all = setting("CapabilityBoundingSet");
    let without = |name: &str| -> Vec<&str> {
        assert!(all.contains(&name), "{name} is not in the unit");
        all.iter().copied().filter(|other| *other != name).collect()
    };
    let (adopted, log) = late_start(&all);
    assert_eq!(adopted, Some(1), "{log}");
    for name in ["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"] {
        let (adopted, log) = late_start(&without(name));
        assert_eq!(adopted, Some(0), "without {name}\n{log}");
        assert!(log.contains(name), "{log}");
    }
    let stage = stage(Settings::of(Kind::Vsftpd));
    let needed = ["CAP_NET_ADMIN", "CAP_BPF", "CAP_PERFMON"];
    for name in needed {
        let options = bounded(&stage, &without(name));
        let error = Guard::start(&stage.sandbox, &options).expect_err("refused");
        assert!(format!("{error:#}").contains(name), "{error:#}");
    }
    let options = Options {
        more: vec!["--socket-group=adm".to_owned()],
        ..bounded(&stage, &without(FOR_A_MOMENT))
    };
    let error = Guard::start(&stage.sandbox, &options).expect_err("refused");
    assert!(format!("{error:#}").contains(FOR_A_MOMENT), "{error:#}");
    assert_eq!(all.len(), needed.len() + 3, "{all:?}");
}
