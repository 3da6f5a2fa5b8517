//! Interfaces and addresses that come and go while the guard runs, and gates that are taken away.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use ftpguard_tests::{
    Guard, Host,
    attack::{self, Answer},
    cgroup,
    ftpd::{CONTROL_PORT, Kind, Settings},
    guard::{self, Options},
    process::Process,
    sandbox::INTERFACE,
    scenario::{Scene, Stage, Winner},
};
use serde_json::Value;

use crate::help::{guard_with, is_kind, play, race, stage};

/// Attaches and detaches BPF programs as other software does.
pub(crate) const BPF_OTHER: &str = include_str!("bpf_other.py");

/// The interface that comes and goes.
const SECOND: &str = "eth1";
/// The server's address on it, and those of client and thief.
const ADDRESSES: [Ipv4Addr; 3] = [
    Ipv4Addr::new(192, 0, 2, 1),
    Ipv4Addr::new(192, 0, 2, 2),
    Ipv4Addr::new(192, 0, 2, 3),
];
/// A port of the declared range where nothing listens.
const UNUSED: u16 = 50_031;

/// Joins the server to the network by a second interface, with an address of its own.
fn plug(stage: &Stage) {
    let server = stage.sandbox.server();
    stage.sandbox.plug(server, SECOND).expect("a cable");
    // Each interface answers for its own address only.
    server
        .set("net/ipv4/conf/all/arp_ignore", "1")
        .expect("arp");
    add_address(server, SECOND, ADDRESSES[0]);
}

/// Takes the second interface away.
fn unplug(stage: &Stage) {
    let server = stage.sandbox.server();
    server
        .ip(&["link", "delete", SECOND])
        .and_then(|done| done.success("ip link delete"))
        .expect("the interface goes");
}

fn add_address(host: &Host, interface: &str, address: Ipv4Addr) {
    let address = format!("{address}/24");
    host.ip(&["address", "add", &address, "dev", interface])
        .and_then(|done| done.success("ip address add"))
        .expect("an address");
}

/// A stage where client and thief have addresses in the second interface's network.
fn two_networks() -> Stage {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    add_address(stage.sandbox.client(), INTERFACE, ADDRESSES[1]);
    add_address(stage.sandbox.thief(), INTERFACE, ADDRESSES[2]);
    stage
}

/// The control port by the second interface.
fn second() -> SocketAddr {
    (ADDRESSES[0], CONTROL_PORT).into()
}

/// The guard's row for an interface.
fn hooks(guard: &Guard, interface: &str) -> Option<Value> {
    let status = guard.status().expect("a status");
    let rows = status["interfaces"].as_array().expect("rows").clone();
    rows.into_iter().find(|row| row["interface"] == interface)
}

/// Waits until what `wanted` says of the guard's row for an interface is true.
fn wait_for_hooks(guard: &Guard, interface: &str, wanted: impl Fn(Option<&Value>) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let row = hooks(guard, interface);
        if wanted(row.as_ref()) {
            return;
        }
        assert!(Instant::now() < deadline, "{row:?}\n{}", guard.log());
        thread::sleep(Duration::from_millis(20));
    }
}

/// The BPF links that the guard holds on interfaces, and how many files it has open.
fn holdings(guard: &Guard) -> (Vec<String>, usize) {
    holdings_on(guard, "ifindex:")
}

/// The same of links whose place has this name in `/proc/PID/fdinfo`.
fn holdings_on(guard: &Guard, place: &str) -> (Vec<String>, usize) {
    let folder = format!("/proc/{}/fdinfo", guard.id());
    let files: Vec<String> = fs::read_dir(folder)
        .expect("the guard's files")
        .flatten()
        .filter_map(|file| fs::read_to_string(file.path()).ok())
        .collect();
    let field = |text: &str, name: &str| {
        text.lines()
            .find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
    };
    let links = files
        .iter()
        .filter(|text| field(text, place).is_some_and(|index| index != "0"))
        .filter_map(|text| field(text, "link_id:"))
        .collect();
    (links, files.len())
}

/// I5: an interface that appears is guarded early, with its address, and again when it comes
/// back; nothing is left of one that is gone.
#[test]
fn an_interface_that_comes_goes_and_comes_back() {
    let stage = two_networks();
    plug(&stage);
    let (theft, _) = race(&stage, second());
    assert!(
        matches!(theft, Answer::Connected(_)),
        "guard off: {theft:?}"
    );
    unplug(&stage);

    let guard = guard_with(
        &stage,
        &Options {
            interfaces: Vec::new(),
            ..Options::default()
        },
    );
    assert!(!guard.ready().contains(SECOND), "{}", guard.ready());
    let before = holdings(&guard);
    for round in 0..3 {
        plug(&stage);
        wait_for_hooks(&guard, SECOND, |row| {
            row.is_some_and(|row| row["ingress_holds"] == true && row["egress_holds"] == true)
        });
        // The early gate drops silently; the last one would answer.
        let (theft, honest) = race(&stage, second());
        assert!(matches!(theft, Answer::Silent), "round {round}: {theft:?}");
        honest.expect("the client connects");
        let unused = SocketAddr::from((ADDRESSES[0], UNUSED));
        wait_until_silent(&stage, unused);
        unplug(&stage);
        wait_for_hooks(&guard, SECOND, |row| row.is_none());
        // It may not have closed the connection of the latest question yet.
        wait_for_files(&guard, before.1);
        assert_eq!(holdings(&guard), before, "round {round}");
    }
    for kind in ["interface-guarded", "interface-gone"] {
        let told = guard.all_events().expect("events");
        let told = told
            .iter()
            .filter(|event| is_kind(event, kind) && event["interface"] == SECOND);
        assert_eq!(told.count(), 3, "{kind}\n{}", guard.log());
    }
}

/// A named interface is waited for once it was there; others are left alone.
#[test]
fn only_named_interfaces_are_guarded() {
    let stage = two_networks();
    let guard = guard_with(&stage, &Options::default());
    plug(&stage);
    // What is told of comes in order: this one after the interface.
    add_address(
        stage.sandbox.server(),
        INTERFACE,
        Ipv4Addr::new(198, 51, 100, 1),
    );
    let (theft, honest) = race(&stage, second());
    // By the last gate.
    assert!(matches!(theft, Answer::Refused), "{theft:?}");
    honest.expect("the client connects");
    assert_eq!(hooks(&guard, SECOND), None);
    let server = stage.sandbox.server();
    let rename = |from: &str, to: &str| {
        server
            .ip(&["link", "set", from, "name", to])
            .and_then(|done| done.success("ip link set name"))
            .expect("a name");
    };
    // A guarded interface stays guarded under another name.
    rename(INTERFACE, "wan0");
    wait_for_hooks(&guard, "wan0", |row| {
        row.is_some_and(|row| row["ingress_holds"] == true)
    });
    // And one that gets the wanted name is guarded from then on.
    rename(SECOND, INTERFACE);
    wait_for_hooks(&guard, INTERFACE, |row| {
        row.is_some_and(|row| row["ingress_holds"] == true)
    });
    let (theft, _) = race(&stage, second());
    assert!(matches!(theft, Answer::Silent), "{theft:?}");
}

/// I1: unused ports of the range are closed at an address as soon as the host has it.
#[test]
fn an_address_that_is_added_is_guarded() {
    let stage = two_networks();
    let guard = guard_with(&stage, &Options::default());
    let target = SocketAddr::from((ADDRESSES[0], UNUSED));
    add_address(stage.sandbox.server(), INTERFACE, ADDRESSES[0]);
    wait_until_silent(&stage, target);
    drop(guard);
}

/// Waits until this unused port is closed to strangers: well before the guard looks everything over
/// by itself.
fn wait_until_silent(stage: &Stage, target: SocketAddr) {
    let deadline = Instant::now() + Duration::from_secs(4);
    loop {
        let probe = attack::knock(stage.sandbox.thief(), target).expect("a try");
        if matches!(probe, Answer::Silent) {
            return;
        }
        assert!(Instant::now() < deadline, "{probe:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Takes these BPF links off what they hold, as others do.
fn detach(links: &[String]) {
    let mut detach = Command::new("/usr/bin/python3");
    detach.args(["-c", BPF_OTHER, "detach"]).args(links);
    Process::spawn(&mut detach)
        .and_then(|process| process.wait(Duration::from_secs(5)))
        .and_then(|done| done.success("detaching"))
        .expect("they are detached");
}

/// Somebody detaches every program of the guard from the interface. `status` says so at once,
/// the last gate holds, and the others are attached again.
#[test]
fn gates_that_are_taken_away() {
    let stage = two_networks();
    let guard = guard_with(
        &stage,
        &Options {
            xdp_mode: "native",
            ..Options::default()
        },
    );
    let holds = |name: &'static str, wanted: bool| {
        move |row: Option<&Value>| row.is_some_and(|row| row[name] == wanted)
    };
    assert!(holds("ingress_holds", true)(
        hooks(&guard, INTERFACE).as_ref()
    ));
    let (links, _) = holdings(&guard);
    assert_eq!(links.len(), 3, "XDP, and TC in both directions: {links:?}");
    detach(&links);

    let now = hooks(&guard, INTERFACE);
    assert!(holds("ingress_holds", false)(now.as_ref()), "{now:?}");
    assert!(holds("egress_holds", false)(now.as_ref()), "{now:?}");
    add_address(stage.sandbox.server(), INTERFACE, ADDRESSES[0]);
    let (theft, honest) = race(&stage, second());
    assert!(matches!(theft, Answer::Refused), "{theft:?}");
    honest.expect("the client connects");

    wait_for_hooks(&guard, INTERFACE, holds("ingress_holds", true));
    wait_for_hooks(&guard, INTERFACE, holds("egress_holds", true));
    let lost = guard.events();
    let lost = lost.iter().find(|event| is_kind(event, "gate-lost"));
    assert!(lost.is_some(), "{}", guard.log());
    let (theft, honest) = race(&stage, second());
    assert!(matches!(theft, Answer::Silent), "{theft:?}");
    honest.expect("the client connects");
}

/// How often this hook, which sits on no interface, was told as lost.
fn losses(guard: &Guard, hook: &str) -> usize {
    let events = guard.events();
    let told = events
        .iter()
        .filter(|event| is_kind(event, "gate-lost") && event["hook"] == hook);
    told.count()
}

/// Waits until this hook was told as lost so often, and is attached.
fn wait_until_mended(guard: &Guard, hook: &str, told: usize) {
    let field = if hook == "connect" { hook } else { "last_gate" };
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let status = guard.status().expect("a status");
        if losses(guard, hook) == told && status[field] == true {
            return;
        }
        assert!(Instant::now() < deadline, "{status:#}\n{}", guard.log());
        thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until the guard has so many files open: whoever asked it a moment ago may still be there.
fn wait_for_files(guard: &Guard, wanted: usize) {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let (_, files) = holdings(guard);
        if files == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{files}, not {wanted}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// What the guard has pinned of hooks that sit on no interface.
fn pinned(guard: &Guard) -> Vec<String> {
    let states = fs::read_dir(guard::pins(guard.runtime_dir())).expect("its pins");
    let mut names: Vec<String> = states
        .flat_map(|state| fs::read_dir(state.expect("a state").path().join("hooks")))
        .flatten()
        .map(|hook| {
            hook.expect("a hook")
                .file_name()
                .into_string()
                .expect("a name")
        })
        .filter(|name| name.starts_with("guard_"))
        .collect();
    names.sort();
    names
}

/// M2: somebody detaches the last gate, and one of the connect() hooks. They are attached and pinned
/// again, so they hold also when the daemon is then killed; nothing is left over of the former ones.
#[test]
fn m2_the_last_gate_is_pinned_again() {
    let stage = two_networks();
    plug(&stage);
    let guard = guard_with(&stage, &Options::default());
    let (cgroup_links, files) = holdings_on(&guard, "cgroup_id:");
    let pins = pinned(&guard);
    assert_eq!(pins, ["guard_connect4", "guard_connect6", "guard_lookup"]);
    for round in 1..=2 {
        let (mut links, _) = holdings_on(&guard, "netns_ino:");
        assert_eq!(links.len(), 1, "{links:?}");
        let (connect, _) = holdings_on(&guard, "cgroup_id:");
        assert_eq!(connect.len(), cgroup_links.len(), "{connect:?}");
        links.extend(connect.into_iter().next());
        detach(&links);
        wait_until_mended(&guard, "sk_lookup", round);
        wait_until_mended(&guard, "connect", round);
        assert_eq!(pinned(&guard), pins, "round {round}\n{}", guard.log());
        wait_for_files(&guard, files);
    }
    let (theft, honest) = race(&stage, second());
    assert!(matches!(theft, Answer::Refused), "{theft:?}");
    honest.expect("the client connects");
    guard.kill().expect("it is killed");
    let (theft, honest) = race(&stage, second());
    assert!(matches!(theft, Answer::Refused), "killed: {theft:?}");
    honest.expect("the client connects");
    play(&stage, Scene::BounceToThirdHost, Winner::Honest, None);
}

/// A service manager removes the cgroup of an ftpd that stops, and makes another one when it starts
/// it again. The guard goes on, says what is missing, and guards the new ftpd, also one that was
/// there before anybody looked.
#[test]
fn a_watched_cgroup_that_is_made_again_is_followed() {
    let mut stage = stage(Settings::unchecked(Kind::Vsftpd));
    let cgroup = stage.sandbox.ftpd_cgroup().path().to_owned();
    let scenes = [
        Scene::Passive,
        Scene::Active,
        Scene::ThiefFirst,
        Scene::BounceToThirdHost,
    ];
    let guard = guard_with(&stage, &Options::default());
    let play_all = |stage: &Stage, guard: Option<&Guard>| {
        for scene in scenes {
            play(stage, scene, Winner::Honest, guard);
        }
    };
    play_all(&stage, Some(&guard));
    let (_, files) = holdings(&guard);
    for round in 1..=2 {
        stage.ftpd.stop();
        cgroup::remove(&cgroup);
        assert!(!cgroup.exists());
        if round == 1 {
            // It looks everything over every ten seconds.
            let deadline = Instant::now() + Duration::from_secs(30);
            loop {
                let status = guard.status().expect("it is still there");
                let note = status["connect_note"].as_str().unwrap_or_default();
                if status["connect"] == false && note.ends_with("is gone") {
                    break;
                }
                assert!(Instant::now() < deadline, "{status:#}");
                thread::sleep(Duration::from_millis(100));
            }
            let told = |guard: &Guard| guard.log().contains("cannot be attached again");
            while !told(&guard) && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(100));
            }
            let warnings = guard.log();
            assert_eq!(
                warnings.matches("cannot be attached again").count(),
                1,
                "{warnings}"
            );
        }
        fs::create_dir(&cgroup).expect("another one");
        stage.restart().expect("the ftpd starts again");
        wait_until_mended(&guard, "connect", round);
        let status = guard.status().expect("a status");
        assert_eq!(status["connect_note"], Value::Null, "{status:#}");
        play_all(&stage, Some(&guard));
        wait_for_files(&guard, files);
    }
    // And one that starts while the guard knows where.
    stage.restart().expect("the ftpd starts again");
    play_all(&stage, Some(&guard));
    let runtime = guard.kill().expect("it is killed");
    play_all(&stage, None);
    let guard = Guard::start_in(&stage.sandbox, &Options::default(), &runtime);
    let guard = guard.expect("it takes over");
    play_all(&stage, Some(&guard));
}

/// The guard cannot ask which interfaces and addresses there are, because it may open no file:
/// nothing is taken for gone.
#[test]
fn what_cannot_be_listed_is_not_gone() {
    let stage = two_networks();
    let guard = guard_with(&stage, &Options::default());
    let limit = |most: &str| {
        let mut command = Command::new("prlimit");
        command.args([
            "--pid",
            &guard.id().to_string(),
            &format!("--nofile={most}"),
        ]);
        Process::spawn(&mut command)
            .and_then(|process| process.wait(Duration::from_secs(5)))
            .and_then(|done| done.success("prlimit"))
            .expect("a limit");
    };
    limit("3:4096");
    add_address(stage.sandbox.server(), INTERFACE, ADDRESSES[0]);
    thread::sleep(Duration::from_millis(300));
    limit("4096:4096");
    let gone = guard.events();
    let gone = gone
        .iter()
        .find(|event| is_kind(event, "interface-gone") || is_kind(event, "gate-lost"));
    assert!(gone.is_none(), "{}", guard.log());
    let row = hooks(&guard, INTERFACE);
    assert!(
        row.as_ref()
            .is_some_and(|row| row["ingress_holds"] == true && row["egress_holds"] == true),
        "{row:?}\n{}",
        guard.log()
    );
    // And the change is followed when it can be seen.
    let target = SocketAddr::from((ADDRESSES[0], UNUSED));
    wait_until_silent(&stage, target);
}
