//! Everything is bounded: a client's share, every table, and what a full one does (rule K9).

use std::{
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use ftpguard_common::{abi::MAX_ADDRESSES, verdict::Reason};
use ftpguard_tests::{
    Family, FtpClient, Guard,
    attack::{self, Answer},
    client::{self, Commands},
    ftpd::{Activation, FILE, Kind, Settings},
    guard::{self, Options, binary},
    process,
    sandbox::Host,
    scenario::{Scene, Stage, Winner},
};
use nix::sys::signal::Signal;

use crate::{
    help::{guard_with, is_kind, play, stage},
    zoo::{distinct, origins},
};

fn with(more: &[&str]) -> Options {
    Options {
        more: more.iter().map(|&one| one.to_owned()).collect(),
        ..Options::default()
    }
}

/// How often an incident was counted.
pub(crate) fn incident(guard: &Guard, name: &str) -> u64 {
    let status = guard.status().expect("status");
    status["incidents"]
        .as_array()
        .and_then(|incidents| incidents.iter().find(|one| one["name"] == name))
        .and_then(|one| one["count"].as_u64())
        .unwrap_or_default()
}

/// Opens `count` sessions from one host and asks each for a port; gives how many of the announced
/// ports let their client in, first to last.
pub(crate) fn admitted(stage: &Stage, host: &Host, count: usize) -> Vec<bool> {
    host.enter(|| {
        let mut sessions = Vec::new();
        for _ in 0..count {
            sessions.push(stage.login(Family::V4).expect("login"));
        }
        sessions
            .iter_mut()
            .map(|ftp| {
                let port = ftp.passive(Commands::Classic).expect("PASV");
                matches!(
                    attack::knock(host, port).expect("a try"),
                    Answer::Connected(_)
                )
            })
            .collect()
    })
    .expect("namespace")
}

fn one_transfer(stage: &Stage, host: &Host) {
    host.enter(|| {
        let mut ftp = stage.login(Family::V4).expect("login");
        let data = client::connect(ftp.passive(Commands::Classic).expect("PASV"));
        let data = data.expect("data connection");
        let content = ftp.receive(FILE, data.stream).expect("the file");
        assert!(stage.is_file(&content));
    })
    .expect("namespace");
}

/// K9: one client's control connections do not take anybody else's place. What is over its share
/// works as a control connection (P5) and gets no data connections; it is counted and told.
#[test]
fn k9_a_client_has_its_share_and_no_more() {
    for kind in [Kind::Vsftpd, Kind::Proftpd, Kind::Pyftpdlib] {
        let stage = stage(Settings::unchecked(kind));
        let unbounded = guard_with(&stage, &with(&[]));
        let greedy = stage.sandbox.third();
        assert_eq!(admitted(&stage, greedy, 5), [true; 5], "nothing is proven");
        drop(unbounded);
        let options = with(&["--client-sessions=3"]);
        let guard = guard_with(&stage, &options);
        let expected = [true, true, true, false, false];
        let log = || format!("{kind:?}\n{}", guard.log());
        assert_eq!(admitted(&stage, greedy, 5), expected, "{}", log());
        assert!(incident(&guard, "client-quota") >= 2, "{}", log());
        one_transfer(&stage, stage.sandbox.client());
        // Its sessions are closed: its share is free again.
        guard.wait_until_idle().expect("they have ended");
        one_transfer(&stage, greedy);
        let event = guard
            .wait_for_event("of the quota", |event| is_kind(event, "out-of-room"))
            .expect("event");
        assert_eq!(event["what"], "client-quota", "{event}");
        // K10: a daemon that takes over does not tell again what the former one told. It looks
        // once a second.
        let status = guard.status().expect("status");
        let runtime = guard.kill().expect("it is killed");
        let guard = Guard::start_in(&stage.sandbox, &options, &runtime).expect("it starts again");
        assert!(incident(&guard, "client-quota") >= 2, "{}", guard.log());
        thread::sleep(Duration::from_millis(2_200));
        let events = guard.events();
        let told_again = events.iter().any(|event| is_kind(event, "out-of-room"));
        assert!(!told_again, "{kind:?}: {events:?}");
        let marked = status["unsafe_processes"].as_array().expect("a list");
        assert!(marked.is_empty(), "{kind:?}: {status:#}");
    }
}

/// K9, O1: nor does it reach anybody in active mode, so its share cannot be left to bounce.
#[test]
fn k9_a_session_over_its_share_cannot_bounce() {
    let manager = Activation::Manager { watched: true };
    for (kind, activation) in [
        (Kind::Vsftpd, Activation::Own),
        (Kind::Proftpd, Activation::Own),
        (Kind::Pyftpdlib, Activation::Own),
        (Kind::Vsftpd, manager),
        (Kind::Proftpd, manager),
    ] {
        let stage = stage(Settings {
            activation,
            ..Settings::unchecked(kind)
        });
        let scene = Scene::BounceToThirdHost;
        play(&stage, scene, Winner::Attacker, None);
        let guard = guard_with(&stage, &with(&["--client-sessions=1"]));
        let login = || Family::ALL.map(|family| stage.login(family).expect("login"));
        let held = stage.sandbox.client().enter(login).expect("namespace");
        for family in Family::ALL {
            let played = scene.play(&stage, family).expect("the scene can be played");
            println!("{kind:?} {activation:?}: {}", played.told);
            assert_ne!(played.winner, Winner::Attacker, "{}", guard.log());
        }
        let refused = guard.counter(Reason::ConnectToStranger).expect("status");
        assert!(refused >= 2, "{kind:?} {activation:?}\n{}", guard.log());
        drop(held);
    }
}

/// K9, K4: a session that is over its client's share harms no other session of the same process.
#[test]
fn k9_a_session_without_room_takes_no_other_pinhole() {
    let stage = stage(Settings::unchecked(Kind::Pyftpdlib));
    let guard = guard_with(&stage, &with(&["--max-sessions=1"]));
    let honest = stage.sandbox.client();
    honest
        .enter(|| {
            let mut first = stage.login(Family::V4).expect("login");
            let port = first.passive(Commands::Classic).expect("PASV");
            let other = admitted(&stage, stage.sandbox.third(), 1);
            assert_eq!(other, [false], "{}", guard.log());
            let content = first
                .retrieve_announced(FILE, port)
                .expect("its pinhole is there");
            assert!(stage.is_file(&content));
            let content = first
                .retrieve_passive(FILE, Commands::Classic)
                .expect("the next one is made");
            assert!(stage.is_file(&content));
        })
        .expect("namespace");
}

/// K9, K10: a start that finds more control connections than there is room for, or than one client
/// may hold, adopts what fits. The others are newcomers like any.
#[test]
fn k9_a_start_adopts_what_fits() {
    for (kind, option, fits, told) in [
        (Kind::Vsftpd, "--max-sessions=2", 2, "session-table-full"),
        (Kind::Vsftpd, "--client-sessions=1", 1, "client-quota"),
        (Kind::Pyftpdlib, "--client-sessions=1", 1, "client-quota"),
    ] {
        let stage = stage(Settings::unchecked(kind));
        let honest = stage.sandbox.client();
        honest
            .enter(|| {
                let mut open: Vec<_> = (0..3)
                    .map(|_| stage.login(Family::V4).expect("login"))
                    .collect();
                let guard = guard_with(&stage, &with(&[option]));
                let log = || format!("{kind:?} {option}\n{}", guard.log());
                let admitted = open.iter_mut().filter_map(|ftp| {
                    let port = ftp.passive(Commands::Classic).expect("PASV");
                    let answer = attack::knock(honest, port).expect("a try");
                    matches!(answer, Answer::Connected(_)).then_some(())
                });
                assert_eq!(admitted.count(), fits, "{}", log());
                guard
                    .wait_for_event("of those left out", |event| {
                        is_kind(event, "out-of-room") && event["what"] == told
                    })
                    .expect("event");
                assert!(incident(&guard, told) >= 3 - fits as u64, "{}", log());
                drop(open);
                guard.wait_until_idle().expect("they have ended");
                one_transfer(&stage, honest);
            })
            .expect("namespace");
    }
}

/// A host with more addresses than the guard remembers (those of Kubernetes services, all on one
/// interface) is guarded, and goes on being guarded when one more comes.
#[test]
fn more_addresses_than_fit_are_no_reason_to_end() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let server = stage.sandbox.server();
    let mut batch = "link add services0 type veth peer name services1\n".to_owned();
    for number in 0..MAX_ADDRESSES {
        let address = Ipv4Addr::from_bits(0x0a60_0000 + number);
        writeln!(batch, "address add {address}/32 dev services0").expect("a line");
    }
    let file = stage.sandbox.folder().join("addresses");
    fs::write(&file, batch).expect("a file");
    let ip = |arguments: &[&str]| {
        server
            .ip(arguments)
            .and_then(|done| done.success("ip"))
            .expect("ip");
    };
    ip(&["-batch", file.to_str().expect("a path")]);
    let guard = guard_with(&stage, &with(&[]));
    ip(&["address", "add", "198.51.100.1/32", "dev", "services0"]);
    // Longer than changes are followed at most.
    thread::sleep(Duration::from_millis(200));
    assert!(guard.status().is_ok(), "{}", guard.log());
    one_transfer(&stage, stage.sandbox.client());
    play(&stage, Scene::ThiefFirst, Winner::Honest, Some(&guard));
}

/// A program that is the guard, with this at its standard error.
fn with_stderr(stage: &Stage, before: &str, stderr: &str) -> PathBuf {
    dressed(stage, before, &format!("2>{stderr}"))
}

/// A program that is the guard, with something done before it starts.
fn dressed(stage: &Stage, before: &str, after: &str) -> PathBuf {
    let folder = guard::folder(&stage.sandbox, "dressed").expect("a folder");
    let path = folder.join("ftpguard");
    let script = format!(
        "#!/bin/sh\n{before}\nexec {} \"$@\" {after}\n",
        binary().display()
    );
    fs::write(&path, script).expect("the script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("permissions");
    path
}

/// Nobody reads the log: its pipe is full, and the guard goes on all the same, and ends.
#[test]
fn a_log_that_nobody_reads_stalls_nothing() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let pipe = stage.sandbox.folder().join("nobody-reads");
    // Both ends are the guard's own, so that it never breaks; and it is full from the start.
    let before = format!(
        "mkfifo {0}\nexec 3<>{0}\ntimeout 1 cat /dev/zero >&3",
        pipe.display()
    );
    let options = Options {
        binary: with_stderr(&stage, &before, "&3"),
        ..Options::default()
    };
    let guard = guard_with(&stage, &options);
    // Each is a line; more than wait for a reader.
    for _ in 0..1_500 {
        guard.signal(Signal::SIGHUP).expect("a signal");
        thread::sleep(Duration::from_micros(500));
    }
    one_transfer(&stage, stage.sandbox.client());
    play(&stage, Scene::ThiefFirst, Winner::Honest, Some(&guard));
    assert!(guard.status().is_ok());
    let stopped = guard.stop(Signal::SIGTERM).expect("it stops");
    assert!(stopped.status.success(), "{stopped:?}");
    play(&stage, Scene::ThiefFirst, Winner::Attacker, None);
}

/// The disk with the log is full: nothing is lost but the log, and a failure is still told by the
/// exit status.
#[test]
fn a_full_disk_stalls_nothing() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let full = with_stderr(&stage, "", "/dev/full");
    let options = Options {
        binary: full.clone(),
        ..Options::default()
    };
    let guard = guard_with(&stage, &options);
    guard.signal(Signal::SIGHUP).expect("a signal");
    one_transfer(&stage, stage.sandbox.client());
    let stopped = guard.stop(Signal::SIGTERM).expect("it stops");
    assert!(stopped.status.success(), "{stopped:?}");
    for (arguments, status) in [
        (
            &["run", "--iface", "nowhere", "--config", "/dev/null"][..],
            1,
        ),
        (&["run", "--config", "/no/such/file"], 3),
        (&["nonsense"], 2),
    ] {
        let mut command = Command::new(&full);
        let ended = stage
            .sandbox
            .server()
            .run(command.args(arguments), Duration::from_secs(20))
            .expect("it ends");
        assert_eq!(
            ended.status.code(),
            Some(status),
            "{arguments:?}: {ended:?}"
        );
    }
}

/// The host has more processes than the guard may open files: it starts, adopts who is there, and
/// still looks at all sockets while it runs.
#[test]
fn more_processes_than_the_guard_may_open_files() {
    const FILES: usize = 200;
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let cgroup = stage.sandbox.ftpd_cgroup();
    let sleepers = format!("for one in $(seq {}); do sleep 600 & done; wait", 2 * FILES);
    let mut command = cgroup.command("sh");
    // They end with their cgroup.
    let _sleepers = stage
        .sandbox
        .server()
        .spawn(command.args(["-c", &sleepers]))
        .expect("sleepers");
    let deadline = Instant::now() + Duration::from_secs(20);
    while cgroup.processes().len() < 2 * FILES {
        assert!(Instant::now() < deadline, "too few processes");
        thread::sleep(Duration::from_millis(50));
    }
    let options = Options {
        binary: dressed(&stage, &format!("ulimit -n {FILES}"), ""),
        ..Options::default()
    };
    let honest = stage.sandbox.client();
    honest
        .enter(|| {
            let mut ftp = stage.login(Family::V4).expect("login");
            let announced = ftp.passive(Commands::Classic).expect("PASV");
            let guard = guard_with(&stage, &options);
            let content = ftp
                .retrieve_announced(FILE, announced)
                .expect("its pinhole was adopted");
            assert!(stage.is_file(&content));
            play(&stage, Scene::ThiefFirst, Winner::Honest, Some(&guard));
            // Longer than between two looks at all sockets.
            thread::sleep(Duration::from_secs(32));
            let log = guard.log();
            assert!(!log.contains("cannot be read"), "{log}");
        })
        .expect("namespace");
}

/// A service manager and most shells give a program few files, and let it have more.
#[test]
fn the_limit_of_open_files_is_raised() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let options = Options {
        binary: dressed(&stage, "ulimit -S -n 300\nulimit -H -n 700", ""),
        ..Options::default()
    };
    let guard = guard_with(&stage, &options);
    let limits = fs::read_to_string(format!("/proc/{}/limits", guard.id())).expect("its limits");
    let files = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .expect("a line");
    let numbers: Vec<&str> = files.split_whitespace().collect();
    assert_eq!(numbers[..2], ["700", "700"], "{limits}");
}

/// K9: a full table denies the newcomer, counts and tells; who is in it stays.
#[test]
fn k9_a_full_table_denies_the_newcomer() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let guard = guard_with(&stage, &with(&["--max-sessions=4"]));
    let honest = stage.sandbox.client();
    let flooder = stage.sandbox.third();
    honest
        .enter(|| {
            let mut first = stage.login(Family::V4).expect("login");
            let admitted = admitted(&stage, flooder, 6);
            assert_eq!(admitted, [true, true, true, false, false, false]);
            let content = first
                .retrieve_passive(FILE, Commands::Classic)
                .expect("the one that was there first is not touched");
            assert!(stage.is_file(&content));
        })
        .expect("namespace");
    assert!(incident(&guard, "session-table-full") >= 3);
    let event = guard
        .wait_for_event("of the full table", |event| is_kind(event, "out-of-room"))
        .expect("event");
    assert_eq!(event["what"], "session-table-full", "{event}");
    guard.wait_until_idle().expect("they have ended");
    one_transfer(&stage, honest);
    let status = guard.status().expect("status");
    let tables = |status: &serde_json::Value| status["endurance"]["memory"].as_u64();
    let small = tables(&status).expect("memory");
    drop(guard);
    let guard = guard_with(&stage, &with(&["--max-sessions=20000"]));
    let large = tables(&guard.status().expect("status")).expect("memory");
    println!("4 sessions: {small} bytes, 20000: {large}");
    assert!(large > small + 20_000 * 100, "{small} {large}");
}

/// Does something to a map of the guard (`bpf_maps.py`); gives what that printed.
pub(crate) fn touch_map(guard: &Guard, action: &str, map: &str, more: &[String]) -> String {
    let pins = guard::pins(guard.runtime_dir());
    let mut states = fs::read_dir(pins).expect("its pins");
    let state = states.next().expect("a state").expect("a state").path();
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", include_str!("bpf_maps.py"), action]);
    command.arg(state.join("maps").join(map)).args(more);
    process::run(&mut command, Duration::from_secs(30))
        .expect("the map takes it")
        .stdout
}

/// K9, I4, O4: a process that there was no room for belongs to the ftpd all the same, whether the
/// daemon has looked at it or not: nobody without a control connection reaches it, and it reaches
/// nobody else. Its own client loses nothing.
#[test]
fn k9_a_process_without_room_is_guarded_all_the_same() {
    let manager = Activation::Manager { watched: true };
    for (kind, activation) in [
        (Kind::Vsftpd, Activation::Own),
        (Kind::Proftpd, Activation::Own),
        (Kind::Vsftpd, manager),
    ] {
        let stage = stage(Settings {
            activation,
            ..Settings::unchecked(kind)
        });
        let attacks = [Scene::ThiefFirst, Scene::BounceToThirdHost];
        for scene in attacks {
            play(&stage, scene, Winner::Attacker, None);
        }
        let guard = guard_with(&stage, &with(&["--max-sessions=20"]));
        touch_map(&guard, "fill", "PROCESSES", &[]);
        for (daemon, looks) in [(Signal::SIGSTOP, false), (Signal::SIGCONT, true)] {
            guard.signal(daemon).expect("it stops, or goes on");
            for scene in attacks.into_iter().chain([Scene::Passive, Scene::Active]) {
                for family in Family::ALL {
                    let played = scene.play(&stage, family).expect("the scene can be played");
                    let told = format!(
                        "{kind:?} {activation:?}, daemon looks: {looks}: {}",
                        played.told
                    );
                    println!("{told}");
                    assert_eq!(played.winner, Winner::Honest, "{told}\n{}", guard.log());
                }
            }
        }
        assert!(incident(&guard, "process-table-full") >= 8);
        let refused = guard.counter(Reason::ConnectToStranger).expect("status");
        assert!(refused >= 4, "{kind:?} {activation:?}\n{}", guard.log());
    }
}

/// K9, F2: a service manager whose ftpds there was no room for does not become one of theirs: all
/// that it starts would be guarded.
#[test]
fn k9_who_starts_a_process_without_room_is_no_ftpd() {
    let stage = stage(Settings {
        activation: Activation::Manager { watched: false },
        ..Settings::unchecked(Kind::PureFtpd)
    });
    let guard = guard_with(&stage, &with(&["--max-sessions=20"]));
    touch_map(&guard, "fill", "PROCESSES", &[]);
    let (client, manager) = (stage.sandbox.client(), stage.ftpd.id());
    client
        .enter(|| {
            let mut ftp = stage.login(Family::V4).expect("login");
            ftp.passive(Commands::Classic).expect("PASV");
            // The daemon looks at its listener; then it reads again.
            thread::sleep(Duration::from_millis(500));
            let content = ftp.retrieve_passive(FILE, Commands::Classic);
            assert!(stage.is_file(&content.expect("the file")));
            let key = [manager
                .to_ne_bytes()
                .map(|byte| format!("{byte:02x}"))
                .concat()];
            for map in ["PARENTS", "PROCESSES"] {
                let found = touch_map(&guard, "find", map, &key);
                assert_eq!(found, "", "{map}: {manager}\n{}", guard.log());
            }
        })
        .expect("namespace");
    assert!(incident(&guard, "process-table-full") >= 1);
}

/// K9, F2: an ftpd that opened its control port while there was no room accepts sessions all the
/// same: once there is room, each of its processes serves its own client.
#[test]
fn k9_an_acceptor_without_room_is_none_of_its_sessions() {
    for kind in [Kind::Vsftpd, Kind::Proftpd] {
        let mut stage = stage(Settings::unchecked(kind));
        stage.ftpd.stop();
        let guard = guard_with(&stage, &with(&["--max-sessions=20"]));
        touch_map(&guard, "fill", "PROCESSES", &[]);
        stage.restart().expect("the ftpd starts again");
        touch_map(&guard, "empty", "PROCESSES", &[]);
        let before = login(&stage, stage.sandbox.third());
        for _ in 0..3 {
            let mut ftp = login(&stage, stage.sandbox.client());
            let announced = ftp.passive(Commands::Classic).expect("PASV");
            let answer = attack::knock(stage.sandbox.third(), announced).expect("a try");
            assert!(
                !matches!(answer, Answer::Connected(_)),
                "{kind:?}: {answer:?}\n{}",
                guard.log()
            );
            let content = stage.sandbox.client().enter(|| {
                ftp.retrieve_announced(FILE, announced)
                    .expect("its own client")
            });
            assert!(stage.is_file(&content.expect("namespace")));
        }
        let origins = origins(&guard);
        assert_eq!(distinct(&origins), ["exact"], "{kind:?}\n{}", guard.log());
        drop(before);
    }
}

fn login(stage: &Stage, host: &Host) -> FtpClient {
    host.enter(|| stage.login(Family::V4))
        .expect("namespace")
        .expect("login")
}

/// K9: in each of the other tables, too, who finds no room harms nobody, is let in by nobody else's
/// place, and is counted and told.
#[test]
fn k9_a_full_table_of_any_kind_harms_nobody_else() {
    let declared = Options::default().passive_ports;
    for (map, told, passive_ports) in [
        ("LISTENERS", "listener-table-full", declared.clone()),
        ("LISTENERS", "listener-table-full", None),
        ("PEERS", "peer-table-full", declared.clone()),
        ("PROCESSES", "process-table-full", declared),
    ] {
        let stage = stage(Settings::unchecked(Kind::Vsftpd));
        let options = Options {
            passive_ports,
            ..with(&["--max-sessions=20"])
        };
        let guard = guard_with(&stage, &options);
        let log = || format!("{map} {:?}\n{}", options.passive_ports, guard.log());
        let honest = stage.sandbox.client();
        honest
            .enter(|| {
                let mut first = stage.login(Family::V4).expect("login");
                let announced = first.passive(Commands::Classic).expect("PASV");
                let added = touch_map(&guard, "fill", map, &[]);
                assert!(added.trim().parse::<u32>().is_ok_and(|added| added > 10));

                let newcomer = || {
                    let mut ftp = stage
                        .login(Family::V4)
                        .expect("its control connection works");
                    let port = ftp.passive(Commands::Classic).expect("PASV");
                    (ftp, port)
                };
                let (_held, port) = stage.sandbox.third().enter(newcomer).expect("namespace");
                for port in [port, announced] {
                    let thief = attack::knock(stage.sandbox.thief(), port).expect("a try");
                    assert!(!matches!(thief, Answer::Connected(_)), "{}", log());
                }
                let own = attack::knock(stage.sandbox.third(), port).expect("a try");
                println!("{map}: the newcomer: {own:?}");

                let content = first
                    .retrieve_announced(FILE, announced)
                    .expect("its pinhole is there");
                assert!(stage.is_file(&content), "{}", log());
            })
            .expect("namespace");
        guard
            .wait_for_event("of the full table", |event| {
                is_kind(event, "out-of-room") && event["what"] == told
            })
            .expect("event");
        assert!(incident(&guard, told) >= 1, "{}", log());
    }
}
