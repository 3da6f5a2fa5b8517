//! Every step of the start fails once, and is the last one once: what remains?
//!
//! The short form takes every fourth step, each test others; `FTPGUARD_LONG=1` takes them all.

use std::{fmt::Write as _, path::Path};

use ftpguard_tests::{
    Family, Guard,
    client::Commands,
    ftpd::{FILE, Kind, Settings},
    guard::{self, Options},
    sandbox::INTERFACE,
    scenario::{Scene, Stage, Winner},
};
use nix::sys::signal::Signal;

use crate::{
    help::{attached, play, stage},
    zoo_stress::length,
};

/// More steps than any start has.
const MANY: u32 = 100;

/// The steps to be tried, until a start succeeds.
fn steps(first: u32) -> impl Iterator<Item = u32> {
    let (first, stride) = if length() == 1 { (first, 4) } else { (1, 1) };
    (first..MANY).step_by(stride)
}

fn options(fault: Option<String>) -> Options {
    Options {
        xdp_mode: "native",
        fault,
        ..Options::default()
    }
}

/// The step that failed, as the guard named it.
fn step(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let step = text
        .lines()
        .find_map(|line| line.split_once("injected: "))
        .unwrap_or_else(|| panic!("not the fault: {text}"));
    step.1.to_owned()
}

/// Whether a stranger is kept from a port that is announced to somebody else, and that one is not.
fn winner(stage: &Stage) -> Winner {
    let played = Scene::ThiefFirst.play(stage, Family::V4).expect("playable");
    played.winner
}

/// A start on an unguarded host fails: nothing is attached, nothing pinned, nobody is hindered.
#[test]
fn a_start_that_fails_leaves_nothing() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let before = attached(&stage);
    let mut table = String::new();
    for number in steps(1) {
        let runtime = guard::folder(&stage.sandbox, "fault").expect("folder");
        let options = options(Some(number.to_string()));
        let error = match Guard::start_in(&stage.sandbox, &options, &runtime) {
            Ok(guard) => {
                assert!(number > 15, "only {number} steps\n{table}");
                guard.stop(Signal::SIGTERM).expect("it stops");
                break;
            }
            Err(error) => error,
        };
        let step = step(&error);
        assert_eq!(attached(&stage), before, "{step}");
        assert!(!guard::pins(&runtime).exists(), "{step}");
        let _ = writeln!(table, "{number:>3} {step}: nothing attached");
        // That nothing which `ip` and `tc` cannot show is left, at some of the steps.
        if number % 3 == 0 {
            assert_eq!(winner(&stage), Winner::Attacker, "{step}");
        }
    }
    println!("{table}");
    play(&stage, Scene::ThiefFirst, Winner::Attacker, None);
    play(&stage, Scene::BounceToThirdHost, Winner::Attacker, None);
}

/// A start that is to take over fails, or is killed: the host stays guarded, no pinhole is lost,
/// and the next start takes over as if nothing had happened.
fn takes_over_at_last(from: u32, prefix: &str, change: Option<&str>) {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let former = Guard::start(&stage.sandbox, &options(None)).expect("it starts");
    let runtime = former.kill().expect("it is killed");
    let mut table = String::new();
    let changed = |number: u32, fault| Options {
        // What differs each time is made anew each time.
        more: change
            .map(|option| format!("{option}={}", 100 + number))
            .into_iter()
            .collect(),
        ..options(fault)
    };
    for number in steps(from) {
        let fault = changed(number, Some(format!("{prefix}{number}")));
        let started = one_round(&stage, &fault, &runtime, &mut table);
        if let Some(guard) = started {
            assert!(number > 15, "only {number} steps\n{table}");
            drop(guard);
            break;
        }
    }
    println!("{table}");
    assert!(!guard::pins(&runtime).exists());
    play(&stage, Scene::ThiefFirst, Winner::Attacker, None);
}

/// One try to start while a port is announced. Gives the guard if it starts.
fn one_round(
    stage: &Stage,
    options: &Options,
    runtime: &Path,
    table: &mut String,
) -> Option<Guard> {
    stage
        .sandbox
        .client()
        .enter(|| {
            let mut ftp = stage.login(Family::V4).expect("login");
            let announced = ftp.passive(Commands::Classic).expect("PASV");
            let started = Guard::start_in(&stage.sandbox, options, runtime);
            let step = started.as_ref().err().map(step);
            let told = || format!("{step:?}");
            let content = ftp
                .retrieve_announced(FILE, announced)
                .unwrap_or_else(|error| panic!("{}: {error:#}", told()));
            assert!(stage.is_file(&content), "{}", told());
            assert_eq!(winner(stage), Winner::Honest, "{}", told());
            if let Some(step) = &step {
                let _ = writeln!(table, "{step}: guarded, transfer whole");
            }
            started.ok()
        })
        .expect("namespace")
}

#[test]
fn a_takeover_that_fails_leaves_the_host_guarded() {
    takes_over_at_last(2, "", None);
}

#[test]
fn a_takeover_that_is_killed_leaves_the_host_guarded() {
    takes_over_at_last(3, "kill:", None);
}

/// The same where the former state does not fit and is replaced.
#[test]
fn a_replacement_that_fails_leaves_the_host_guarded() {
    takes_over_at_last(4, "", Some("--max-sessions"));
}

#[test]
fn a_replacement_that_is_killed_leaves_the_host_guarded() {
    takes_over_at_last(1, "kill:", Some("--max-sessions"));
}

/// A first start that is killed hinders nobody, and the next one starts afresh.
#[test]
fn a_first_start_that_is_killed_hinders_nobody() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let runtime = guard::folder(&stage.sandbox, "fault").expect("folder");
    for number in steps(5).step_by(2) {
        let killed = options(Some(format!("kill:{number}")));
        if Guard::start_in(&stage.sandbox, &killed, &runtime).is_ok() {
            break;
        }
        play(&stage, Scene::Passive, Winner::Honest, None);
        play(&stage, Scene::Active, Winner::Honest, None);
        let guard = Guard::start_in(&stage.sandbox, &options(None), &runtime).expect("it starts");
        assert_eq!(winner(&stage), Winner::Honest);
        guard.stop(Signal::SIGTERM).expect("it stops");
        assert!(!guard::pins(&runtime).exists());
    }
}

/// The second interface.
const SECOND: &str = "eth1";

/// In which mode XDP runs on each interface that has it, sorted.
fn xdp(stage: &Stage) -> Vec<String> {
    let shown = stage.sandbox.server().ip(&["-json", "link", "show"]);
    let shown = shown.expect("ip link").stdout;
    let links: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let mut found: Vec<String> = links
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|link| Some(format!("{} {}", link["ifname"], link.get("xdp")?["mode"])))
        .collect();
    found.sort();
    found
}

/// Lets every step of a start fail that follows another guard with `before`; each interface's XDP
/// gate is to stay as it was. Then it succeeds. Gives what XDP is like in the end.
fn keeps_xdp(stage: &Stage, before: &Options, after: &Options, what: &[&str]) -> Vec<String> {
    let former = Guard::start(&stage.sandbox, before).expect("it starts");
    let gates = xdp(stage);
    let runtime = former.kill().expect("it is killed");
    assert_eq!(xdp(stage), gates);
    let mut table = String::new();
    // Whatever comes before it is tried by the others.
    for number in 24..MANY {
        let fault = Options {
            fault: Some(number.to_string()),
            ..after.clone()
        };
        match Guard::start_in(&stage.sandbox, &fault, &runtime) {
            Ok(guard) => {
                let changed = xdp(stage);
                assert_eq!(winner(stage), Winner::Honest, "{}", guard.log());
                guard.stop(Signal::SIGTERM).expect("it stops");
                assert_eq!(xdp(stage), Vec::<String>::new());
                assert!(!guard::pins(&runtime).exists());
                for step in what {
                    assert!(table.contains(step), "{step} never failed\n{table}");
                }
                return changed;
            }
            Err(error) => {
                let step = step(&error);
                let _ = writeln!(table, "{number:>3} {step}");
                let is_over = step == "giving up privileges";
                if !is_over {
                    assert_eq!(xdp(stage), gates, "{step}");
                }
                assert_eq!(winner(stage), Winner::Honest, "{step}");
                if is_over {
                    // It has replaced what was there before, and stays.
                    assert_eq!(xdp(stage).len(), gates.len(), "{step}");
                }
            }
        }
    }
    panic!("it never starts\n{table}");
}

fn with_mode(xdp_mode: &'static str, more: &[&str]) -> Options {
    Options {
        xdp_mode,
        interfaces: vec![INTERFACE.to_owned(), SECOND.to_owned()],
        more: more.iter().map(|&one| one.to_owned()).collect(),
        ..Options::default()
    }
}

fn two_interfaces() -> Stage {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    stage
        .sandbox
        .plug(stage.sandbox.server(), SECOND)
        .expect("a second interface");
    stage
}

/// Two interfaces' XDP hooks are taken from a former state: where the second cannot be, the first
/// is given back.
#[test]
fn a_replacement_that_fails_keeps_xdp_on_every_interface() {
    let stage = two_interfaces();
    let gates = keeps_xdp(
        &stage,
        &with_mode("native", &[]),
        &with_mode("native", &["--max-sessions=300"]),
        &["taking XDP on eth0 over", "taking XDP on eth1 over"],
    );
    assert_eq!(gates.len(), 2, "{gates:?}");
}

/// Another mode of XDP: the former one holds until the start is sure to succeed, whether the state
/// fits or is replaced.
#[test]
fn a_start_in_another_xdp_mode_that_fails_keeps_the_former() {
    let stage = two_interfaces();
    let steps = [
        "ending XDP on eth0",
        "XDP on eth0 in the other mode",
        "ending XDP on eth1",
        "XDP on eth1 in the other mode",
    ];
    for (before, after, more) in [
        ("native", "generic", &[][..]),
        ("generic", "native", &["--max-sessions=300"]),
    ] {
        let (before, after) = (with_mode(before, &[]), with_mode(after, more));
        let gates = keeps_xdp(&stage, &before, &after, &steps);
        assert_eq!(gates.len(), 2, "{gates:?}");
    }
}

/// M1: a start in monitor mode that fails does not take the former guard's mode away.
#[test]
fn m1_a_takeover_that_fails_leaves_the_mode() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let former = Guard::start(&stage.sandbox, &options(None)).expect("it starts");
    let runtime = former.kill().expect("it is killed");
    let monitor = |fault| Options {
        mode: "monitor",
        ..options(fault)
    };
    let mut failed = Vec::new();
    for number in (12..MANY).step_by(3) {
        match Guard::start_in(&stage.sandbox, &monitor(Some(number.to_string())), &runtime) {
            Ok(guard) => {
                assert!(failed.len() > 3, "{failed:?}");
                assert_eq!(winner(&stage), Winner::Attacker, "{}", guard.log());
                return;
            }
            Err(error) => failed.push(step(&error)),
        }
        if failed
            .last()
            .is_some_and(|step| step == "giving up privileges")
        {
            continue;
        }
        assert_eq!(winner(&stage), Winner::Honest, "{failed:?}");
    }
    panic!("it never starts: {failed:?}");
}
