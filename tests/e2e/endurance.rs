//! The kernel side outlives the daemon (rules K10, M2).

use std::{
    fs, mem,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use ftpguard_common::{
    abi::{Endpoint, Listener, PinholeKey, Session, SessionKey, port_word},
    verdict::Reason,
};
use ftpguard_tests::{
    Family, Guard,
    attack::{self, Answer},
    client::{self, Commands},
    ftpd::{CONTROL_PORT, FILE, Kind, Settings},
    guard::{self, Options},
    process::Finished,
    scenario::{Scene, Stage, Winner},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    bounds::{incident, touch_map},
    help::{attached, guard, guard_with, is_kind, play, stage},
    zoo_stress::length,
};

fn again(stage: &Stage, options: &Options, runtime: &Path) -> Guard {
    Guard::start_in(&stage.sandbox, options, runtime).expect("it starts again")
}

fn ask(stage: &Stage, command: &str, runtime: &Path) -> Finished {
    let arguments = [
        command.into(),
        "--json".into(),
        "--runtime-dir".into(),
        runtime.into(),
    ];
    Guard::run(&stage.sandbox, &arguments).expect("it ends")
}

/// Every honest and dishonest scene that does not take long, over IPv4 and IPv6.
fn play_all(stage: &Stage, guard: Option<&Guard>) {
    for scene in [
        Scene::Passive,
        Scene::Active,
        Scene::ThiefFirst,
        Scene::BounceToThirdHost,
    ] {
        play(stage, scene, Winner::Honest, guard);
    }
}

/// How many SYNs one honest passive transfer counts: more than one, if gates are attached twice.
fn counted_by_one_transfer(stage: &Stage, guard: &Guard) -> u64 {
    let before = guard.counter(Reason::Pinhole).expect("status");
    stage
        .sandbox
        .client()
        .enter(|| {
            let mut ftp = stage.login(Family::V4).expect("login");
            let content = ftp
                .retrieve_passive(FILE, Commands::Classic)
                .expect("the file");
            assert!(stage.is_file(&content));
        })
        .expect("namespace");
    guard.counter(Reason::Pinhole).expect("status") - before
}

fn states(runtime: &Path) -> usize {
    fs::read_dir(guard::pins(runtime)).map_or(0, Iterator::count)
}

/// M2: SIGKILL, and the host is guarded as before: pinholes are made, thieves and bounces denied.
/// Then a new daemon takes over what it finds.
#[test]
fn m2_the_kernel_goes_on_guarding_without_the_daemon() {
    for (kind, xdp_mode) in [(Kind::Vsftpd, "native"), (Kind::Pyftpdlib, "tc")] {
        let stage = stage(Settings::unchecked(kind));
        let options = Options {
            xdp_mode,
            ..Options::default()
        };
        let before = attached(&stage);
        let guard = guard_with(&stage, &options);
        let runtime = stage
            .sandbox
            .client()
            .enter(|| {
                let mut announced = stage.login(Family::V4).expect("login");
                let port = announced.passive(Commands::Classic).expect("PASV");
                let mut idle = stage.login(Family::V6).expect("login");
                let runtime = guard.kill().expect("it is killed");
                let content = announced
                    .retrieve_announced(FILE, port)
                    .expect("the pinhole is there");
                assert!(stage.is_file(&content));
                play_all(&stage, None);
                let content = idle
                    .retrieve_passive(FILE, Commands::Extended)
                    .expect("the file");
                assert!(stage.is_file(&content));

                let shown = ask(&stage, "status", &runtime);
                assert_eq!(shown.status.code(), Some(1), "{shown:?}");
                let status: serde_json::Value =
                    serde_json::from_str(&shown.stdout).expect("status is JSON");
                assert_eq!(status["daemon"], "gone", "{status:#}");
                assert!(status["heartbeat_age"].as_u64() >= Some(100), "{status:#}");

                let port = announced.passive(Commands::Classic).expect("PASV");
                let guard = again(&stage, &options, &runtime);
                let content = announced
                    .retrieve_announced(FILE, port)
                    .expect("the pinhole is there still");
                assert!(stage.is_file(&content));
                play_all(&stage, Some(&guard));
                assert_eq!(counted_by_one_transfer(&stage, &guard), 1);
                assert_eq!(states(&runtime), 1);
                guard.stop(Signal::SIGTERM).expect("it stops");
                runtime
            })
            .expect("namespace");
        assert_eq!(attached(&stage), before);
        assert_eq!(states(&runtime), 0);
        assert!(!guard::pins(&runtime).exists());
        play(&stage, Scene::ThiefFirst, Winner::Attacker, None);
        play(&stage, Scene::BounceToThirdHost, Winner::Attacker, None);
    }
}

/// Another size of the tables, and the maps do not fit: the new daemon makes its own, adopts what
/// is open, and removes the former ones. The same happens when maps change with a version.
#[test]
fn k10_a_state_that_does_not_fit_is_replaced() {
    for xdp_mode in if length() == 1 {
        &["native"][..]
    } else {
        &["native", "generic", "tc"]
    } {
        let stage = stage(Settings::unchecked(Kind::Vsftpd));
        let options = Options {
            xdp_mode,
            ..Options::default()
        };
        let other = Options {
            more: vec!["--max-sessions=300".into()],
            ..options.clone()
        };
        let guard = guard_with(&stage, &options);
        stage
            .sandbox
            .client()
            .enter(|| {
                let mut announced = stage.login(Family::V4).expect("login");
                let port = announced.passive(Commands::Classic).expect("PASV");
                let runtime = guard.kill().expect("it is killed");
                let guard = again(&stage, &other, &runtime);
                let content = announced
                    .retrieve_announced(FILE, port)
                    .expect("an adopted pinhole");
                assert!(stage.is_file(&content));
                assert_eq!(states(&runtime), 1, "the former one is gone");
                assert_eq!(counted_by_one_transfer(&stage, &guard), 1);
                play_all(&stage, Some(&guard));
                // And to none at all.
                let runtime = guard.kill().expect("it is killed");
                let unpinned = Options {
                    more: vec!["--pin=false".into()],
                    ..options.clone()
                };
                let guard = again(&stage, &unpinned, &runtime);
                assert_eq!(states(&runtime), 0);
                assert_eq!(counted_by_one_transfer(&stage, &guard), 1);
                guard.kill().expect("it is killed");
                play(&stage, Scene::ThiefFirst, Winner::Attacker, None);
            })
            .expect("namespace");
    }
}

/// `ftpguard detach`, with a daemon and without.
#[test]
fn detach_leaves_nothing() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let before = attached(&stage);
    for killed in [false, true] {
        let options = Options {
            xdp_mode: "native",
            ..Options::default()
        };
        let guard = guard_with(&stage, &options);
        let runtime = guard.runtime_dir().to_owned();
        let mut running = None;
        if killed {
            guard.kill().expect("it is killed");
            play(&stage, Scene::ThiefFirst, Winner::Honest, None);
        } else {
            running = Some(guard);
        }
        let done = ask(&stage, "detach", &runtime)
            .success("detach")
            .expect("detach");
        assert_eq!(attached(&stage), before, "{}", done.stdout);
        assert!(!guard::pins(&runtime).exists());
        play(&stage, Scene::ThiefFirst, Winner::Attacker, None);
        play(&stage, Scene::BounceToThirdHost, Winner::Attacker, None);
        drop(running);
        // Nothing to do is no failure.
        ask(&stage, "detach", &runtime)
            .success("detach")
            .expect("detach");
    }
}

/// Somebody who may not ask is told so, and not that nothing is attached; the guard stays.
#[test]
fn detach_by_somebody_else_fails() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let guard = guard(&stage);
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(guard::binary())
        .args(["detach", "--runtime-dir"])
        .arg(guard.runtime_dir());
    let done = stage
        .sandbox
        .server()
        .run(&mut command, Duration::from_secs(5))
        .expect("it ends");
    assert_eq!(done.status.code(), Some(1), "{done:?}");
    assert!(done.stderr.contains("no permission to ask"), "{done:?}");
    assert!(!done.stdout.contains("nothing is attached"), "{done:?}");
    play(&stage, Scene::ThiefFirst, Winner::Honest, Some(&guard));
}

/// `--on-stop keep`: as after a crash.
#[test]
fn a_stop_that_keeps_guarding() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let options = Options {
        more: vec!["--on-stop=keep".into()],
        ..Options::default()
    };
    let guard = guard_with(&stage, &options);
    let runtime = guard.runtime_dir().to_owned();
    guard.stop(Signal::SIGTERM).expect("it stops");
    play_all(&stage, None);
    let guard = again(&stage, &Options::default(), &runtime);
    play_all(&stage, Some(&guard));
    guard.stop(Signal::SIGTERM).expect("it stops");
    play(&stage, Scene::ThiefFirst, Winner::Attacker, None);
}

/// K10, K2: a restart of the service, or an upgrade, ends the daemon with SIGUSR1. Whatever
/// `on_stop` says, the kernel goes on guarding until the next daemon has taken over: a thief never
/// gets in, a transfer goes on, and an announced port is reached with the first SYN.
#[test]
fn k10_a_restart_leaves_no_gap() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let options = Options {
        xdp_mode: "native",
        more: vec!["--on-stop=detach".into()],
        ..Options::default()
    };
    let guard = guard_with(&stage, &options);
    let runtime = guard.runtime_dir().to_owned();
    let client = stage.sandbox.client();
    let knock = |port| attack::knock(stage.sandbox.thief(), port).expect("a try");
    let guard = client
        .enter(|| {
            let mut running = stage.login(Family::V4).expect("login");
            let port = running.passive(Commands::Classic).expect("PASV");
            let data = client::connect(port).expect("data connection");
            let mut announced = stage.login(Family::V6).expect("login");
            let port = announced.passive(Commands::Extended).expect("EPSV");

            let stopped = guard.stop(Signal::SIGUSR1).expect("it stops");
            assert!(stopped.status.success(), "{stopped:?}");
            assert!(stopped.stderr.contains("goes on guarding"), "{stopped:?}");
            let thief = knock(port);
            assert!(matches!(thief, Answer::Silent), "no daemon: {thief:?}");
            // Made and used while there is none.
            play(&stage, Scene::Passive, Winner::Honest, None);
            play(&stage, Scene::ThiefFirst, Winner::Honest, None);

            let guard = again(&stage, &options, &runtime);
            let thief = knock(port);
            assert!(matches!(thief, Answer::Silent), "taken over: {thief:?}");
            let content = running.receive(FILE, data.stream).expect("the file");
            assert!(stage.is_file(&content));
            let content = announced
                .retrieve_announced(FILE, port)
                .expect("the announced port");
            assert!(stage.is_file(&content));
            guard
        })
        .expect("namespace");
    assert_eq!(states(&runtime), 1);
    play_all(&stage, Some(&guard));
    // A stop is a stop.
    guard.stop(Signal::SIGTERM).expect("it stops");
    assert_eq!(states(&runtime), 0);
    play(&stage, Scene::ThiefFirst, Winner::Attacker, None);
}

/// Where nothing is pinned nothing can stay, and that is said.
#[test]
fn a_restart_without_pins_detaches() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let options = Options {
        more: vec!["--pin=false".into()],
        ..Options::default()
    };
    let stopped = guard_with(&stage, &options).stop(Signal::SIGUSR1);
    let stopped = stopped.expect("it stops");
    assert!(stopped.stderr.contains("nothing is pinned"), "{stopped:?}");
    play(&stage, Scene::ThiefFirst, Winner::Attacker, None);
}

/// Two daemons at once: the second refuses, also with a runtime folder of its own.
#[test]
fn a_second_daemon_refuses_the_same_pins() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let guard = guard(&stage);
    let pins = guard::pins(guard.runtime_dir());
    let options = Options {
        more: vec![format!("--pin-dir={}", pins.display())],
        ..Options::default()
    };
    let error = Guard::start(&stage.sandbox, &options).expect_err("refused");
    assert!(
        error.to_string().contains("another ftpguard uses"),
        "{error:#}"
    );
    play_all(&stage, Some(&guard));
    assert_eq!(counted_by_one_transfer(&stage, &guard), 1);
}

/// A folder for pins that somebody else has made, or may write in, is not used: what lies in it
/// would be taken over, and removed by name.
#[test]
fn pins_in_a_folder_of_somebody_else_are_refused() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let runtime = guard::folder(&stage.sandbox, "others").expect("folder");
    let pins = guard::pins(&runtime);
    fs::create_dir(&pins).expect("a folder");
    chown(&pins, Some(65_534), Some(65_534)).expect("another owner");
    let started = Guard::start_in(&stage.sandbox, &Options::default(), &runtime);
    fs::remove_dir(&pins).expect("nothing was put there");
    let error = started.expect_err("refused");
    assert!(
        error.to_string().contains("belongs to user 65534"),
        "{error:#}"
    );
}

/// K10, K2: killed at any moment and started again, over and over, while clients transfer: no
/// transfer fails, no first SYN is lost, no thief gets in.
#[test]
fn k10_killed_over_and_over_while_clients_transfer() {
    let kills = 3 * length();
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let options = Options {
        xdp_mode: "native",
        ..Options::default()
    };
    let mut guard = guard_with(&stage, &options);
    let done = AtomicBool::new(false);
    // Also when something fails meanwhile.
    let latest = Instant::now() + Duration::from_mins(5);
    let transfers = |family| {
        let mut count = 0;
        stage
            .sandbox
            .client()
            .enter(|| {
                while !done.load(Ordering::Relaxed) && Instant::now() < latest {
                    let mut ftp = stage.login(family).expect("login");
                    for _ in 0..5 {
                        let announced = ftp.passive(Commands::of(family)).expect("passive");
                        let content = ftp
                            .retrieve_announced(FILE, announced)
                            .expect("data connection");
                        assert!(stage.is_file(&content));
                        count += 1;
                    }
                    ftp.quit().expect("QUIT");
                }
            })
            .expect("namespace");
        count
    };
    let (v4, v6, guard) = thread::scope(|scope| {
        let v4 = scope.spawn(|| transfers(Family::V4));
        let v6 = scope.spawn(|| transfers(Family::V6));
        for number in 0..kills {
            play(&stage, Scene::ThiefFirst, Winner::Honest, None);
            let runtime = guard.kill().expect("it is killed");
            // At another moment of the start each time.
            let fault = Options {
                fault: Some(format!("kill:{}", 3 + number % 8 * 4)),
                ..options.clone()
            };
            Guard::start_in(&stage.sandbox, &fault, &runtime).expect_err("killed at the start");
            guard = again(&stage, &options, &runtime);
        }
        done.store(true, Ordering::Relaxed);
        (
            v4.join().expect("transfers"),
            v6.join().expect("transfers"),
            guard,
        )
    });
    println!("{v4} + {v6} transfers, {} kills", 2 * kills);
    assert!(v4 > 10 && v6 > 10, "{v4} {v6}");
    assert_eq!(counted_by_one_transfer(&stage, &guard), 1);
    thread::sleep(Duration::from_millis(100));
    let status = guard.status().expect("status");
    assert!(status["endurance"]["heartbeat_age"].as_u64() < Some(3_000));
}

/// M2: with `--tracking text` the daemon makes the pinholes. While it hangs, clients with a control
/// connection are let in and strangers are not; with `closed` nobody is; then it goes on as before.
#[test]
fn m2_a_daemon_that_hangs_is_noticed() {
    let policies = [("control-peer", true), ("closed", false)];
    let count = if length() == 1 { 1 } else { policies.len() };
    for (policy, transfers) in policies.into_iter().take(count) {
        let stage = stage(Settings::unchecked(Kind::Vsftpd));
        let options = Options {
            tracking: "text",
            more: vec![format!("--without-daemon={policy}")],
            ..Options::default()
        };
        let guard = guard_with(&stage, &options);
        play(&stage, Scene::Passive, Winner::Honest, Some(&guard));
        let id = Pid::from_raw(guard.id().cast_signed());
        kill(id, Signal::SIGSTOP).expect("it is stopped");
        thread::sleep(Duration::from_millis(6_500));
        stage
            .sandbox
            .client()
            .enter(|| {
                let mut ftp = stage.login(Family::V4).expect("login");
                let port = ftp.passive(Commands::Classic).expect("PASV");
                let thief = attack::knock(stage.sandbox.thief(), port).expect("a try");
                assert!(matches!(thief, Answer::Silent), "{policy}: {thief:?}");
                let own = attack::knock(stage.sandbox.client(), port).expect("a try");
                assert_eq!(matches!(own, Answer::Connected(_)), transfers, "{policy}");
            })
            .expect("namespace");
        kill(id, Signal::SIGCONT).expect("it goes on");
        thread::sleep(Duration::from_millis(1_500));
        play(&stage, Scene::Passive, Winner::Honest, Some(&guard));
        guard
            .wait_for_counter(Reason::DaemonGone, 1)
            .expect("it was counted");
    }
}

/// What it does not need any more is given up, and everything still works.
#[test]
fn capabilities_are_given_up() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let guard = guard(&stage);
    // CAP_BPF 39, CAP_PERFMON 38, CAP_SYS_PTRACE 19, CAP_NET_ADMIN 12, CAP_DAC_READ_SEARCH 2.
    let kept: u64 = 1 << 39 | 1 << 38 | 1 << 19 | 1 << 12 | 1 << 2;
    let process = Path::new("/proc").join(guard.id().to_string());
    let threads = fs::read_dir(process.join("task")).expect("its threads");
    let threads: Vec<PathBuf> = threads.map(|thread| thread.expect("one").path()).collect();
    assert!(threads.len() >= 2, "the main one, and one that writes");
    for thread in threads {
        let is_main = thread.file_name() == process.file_name();
        let status = fs::read_to_string(thread.join("status")).expect("status");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.expect(name).trim_start_matches(':').trim().to_owned()
        };
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            let held = u64::from_str_radix(&field(set), 16).expect("a mask");
            // Without other capabilities and with no_new_privs the last set gives nothing.
            if is_main || set != "CapBnd" {
                assert_eq!(held & !kept, 0, "{set}: {held:#x}");
            }
        }
        assert_eq!(field("CapInh"), "0000000000000000");
        assert_eq!(field("CapAmb"), "0000000000000000");
        assert_eq!(field("NoNewPrivs"), "1");
    }
    play_all(&stage, Some(&guard));
    guard.stop(Signal::SIGTERM).expect("it stops");
    play(&stage, Scene::ThiefFirst, Winner::Attacker, None);
}

/// How many sessions the guard knows.
fn sessions(guard: &Guard) -> Option<u64> {
    guard.status().expect("status")["sessions"].as_u64()
}

/// Writes a listener of the FTP server, as if its close had been missed: no socket has it. `socket`
/// is how the kernel side named it, 0 where it was adopted.
fn stale_listener(guard: &Guard, port: u16, socket: u64) {
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
    };
    let mut changes = Vec::new();
    let mut change = |part: &str, offset: usize, bytes: &[u8]| {
        changes.extend([part.to_owned(), offset.to_string(), hex(bytes)]);
    };
    change("key", mem::offset_of!(Endpoint, port), &port.to_be_bytes());
    change("value", mem::offset_of!(Listener, session), &[0; 8]);
    change(
        "value",
        mem::offset_of!(Listener, socket),
        &socket.to_ne_bytes(),
    );
    let pinhole = mem::offset_of!(Listener, pinhole) + mem::offset_of!(PinholeKey, port);
    change("value", pinhole, &[0; 2]);
    let control_port = CONTROL_PORT.to_be_bytes();
    change(
        "value",
        mem::offset_of!(Listener, control_port),
        &control_port,
    );
    change("value", mem::offset_of!(Listener, admission), &[0; 2]);
    touch_map(guard, "copy", "LISTENERS", &changes);
    let hint = [port.to_string(), port_word::ONE_GUARDED.to_string()];
    touch_map(guard, "add", "PORTS", &hint);
}

/// How many listeners of FTP servers the guard knows.
fn listeners(guard: &Guard) -> Option<u64> {
    guard.status().expect("status")["guarded_listeners"].as_u64()
}

/// A stranger at an unused port of the range; fails unless it is refused for this reason.
fn assert_refused(stage: &Stage, guard: &Guard, port: u16, reason: Reason) {
    let before = guard.counter(reason).expect("status");
    let target = stage.sandbox.server().socket(Family::V4, port);
    let thief = attack::knock(stage.sandbox.thief(), target).expect("a try");
    assert!(matches!(thief, Answer::Silent), "{thief:?}");
    let refused = guard.counter(reason).expect("status");
    assert!(refused > before, "{}: {}", reason.label(), guard.log());
}

/// K10: a start that was killed between adopting and looking again leaves listeners whose sockets
/// closed meanwhile. The next start knows better.
#[test]
fn k10_a_start_forgets_listeners_that_a_killed_one_left() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let options = Options::default();
    let guard = guard_with(&stage, &options);
    stage
        .sandbox
        .client()
        .enter(|| {
            let mut ftp = stage.login(Family::V4).expect("login");
            let announced = ftp.passive(Commands::Classic).expect("PASV");
            let known = listeners(&guard);
            stale_listener(&guard, 50_040, 0);
            assert_eq!(listeners(&guard), known.map(|known| known + 1));
            let runtime = guard.kill().expect("it is killed");
            let guard = again(&stage, &options, &runtime);
            assert_eq!(listeners(&guard), known, "{}", guard.log());
            let content = ftp
                .retrieve_announced(FILE, announced)
                .expect("the pinhole is there still");
            assert!(stage.is_file(&content));
            play(&stage, Scene::ThiefFirst, Winner::Honest, Some(&guard));
        })
        .expect("namespace");
}

/// A close that was missed: a session or listener that has no socket is ended in the second round
/// of a look at all sockets, and the one that has one stays.
#[test]
fn what_has_no_socket_is_swept() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let guard = guard(&stage);
    stage
        .sandbox
        .client()
        .enter(|| {
            let mut ftp = stage.login(Family::V4).expect("login");
            let bytes = |offset: usize, hex: &str| [offset.to_string(), hex.to_owned()];
            let mut changes = vec!["key".to_owned()];
            // 192.0.2.99, port 4711.
            changes.extend(bytes(
                mem::offset_of!(SessionKey, client),
                "00000000000000000000ffffc0000263",
            ));
            changes.push("key".to_owned());
            changes.extend(bytes(mem::offset_of!(SessionKey, client_port), "1267"));
            changes.push("value".to_owned());
            changes.extend(bytes(mem::offset_of!(Session, id), "4d00000000000000"));
            touch_map(&guard, "copy", "SESSIONS", &changes);
            let announced = ftp.passive(Commands::Classic).expect("PASV");
            let known = listeners(&guard);
            let left_behind = if announced.port() == 50_031 {
                50_030
            } else {
                50_031
            };
            stale_listener(&guard, left_behind, 1);
            assert_refused(&stage, &guard, left_behind, Reason::NoPinhole);
            assert_eq!(listeners(&guard), known.map(|known| known + 1));
            let is_its_end = |event: &serde_json::Value| {
                is_kind(event, "session-closed") && event["client"] == "192.0.2.99"
            };
            // Two rounds of half a minute, and up to one until the first. Where a process ends while
            // its namespace is looked at, listeners wait for the next two.
            let deadline = Instant::now() + Duration::from_secs(160);
            while !guard.events().iter().any(is_its_end) || listeners(&guard) != known {
                assert!(Instant::now() < deadline, "{}", guard.log());
                // Its session would end after two minutes.
                ftp.expect("NOOP", 200).expect("NOOP");
                thread::sleep(Duration::from_millis(500));
            }
            assert_eq!(sessions(&guard), Some(1), "{}", guard.log());
            assert_refused(&stage, &guard, left_behind, Reason::ClosedPort);
            assert_refused(&stage, &guard, announced.port(), Reason::NoPinhole);
            let content = ftp
                .retrieve_announced(FILE, announced)
                .expect("its pinhole is there");
            assert!(stage.is_file(&content));
            let content = ftp
                .retrieve_passive(FILE, Commands::Classic)
                .expect("the file");
            assert!(stage.is_file(&content));
        })
        .expect("namespace");
}

/// The ring buffer of events is full while the daemon hangs: what was lost is counted and told, and
/// the daemon then knows what is true all the same.
#[test]
fn lost_events_are_counted_and_the_truth_is_read_anew() {
    // Each is an event; the ring buffer has room for about ten thousand.
    const LISTENS: &str = "
import socket
for number in range(30000):
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(('0.0.0.0', 50016 + number % 16))
    one.listen()
    one.close()
";
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let guard = guard(&stage);
    let login = || stage.login(Family::V4).expect("login");
    let client = stage.sandbox.client();
    let closed = [client.enter(login), client.enter(login)];
    assert_eq!(sessions(&guard), Some(2), "{}", guard.log());
    let id = Pid::from_raw(guard.id().cast_signed());
    kill(id, Signal::SIGSTOP).expect("it is stopped");
    let mut listens = Command::new("/usr/bin/python3");
    let listened = stage
        .sandbox
        .server()
        .run(listens.args(["-c", LISTENS]), Duration::from_secs(30));
    // Nobody tells of these.
    let opened = client.enter(login);
    drop(closed);
    thread::sleep(Duration::from_millis(200));
    kill(id, Signal::SIGCONT).expect("it goes on");
    listened
        .and_then(|done| done.success("listens"))
        .expect("they listen");
    // It looks for losses every ten seconds.
    let deadline = Instant::now() + Duration::from_secs(30);
    while !guard.events().iter().any(|it| is_kind(it, "events-lost")) {
        assert!(Instant::now() < deadline, "{}", guard.log());
        thread::sleep(Duration::from_millis(200));
    }
    assert!(incident(&guard, "event-lost") > 0, "{}", guard.log());
    assert_eq!(sessions(&guard), Some(1), "{}", guard.log());
    let mut ftp = opened.expect("namespace");
    client
        .enter(|| {
            let content = ftp
                .retrieve_passive(FILE, Commands::Classic)
                .expect("the file");
            assert!(stage.is_file(&content));
        })
        .expect("namespace");
    play(&stage, Scene::ThiefFirst, Winner::Honest, Some(&guard));
}
