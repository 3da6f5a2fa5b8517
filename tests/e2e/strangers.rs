//! Users of the host who have nothing to do with its FTP server, and listen on ports of its range.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use ftpguard_tests::{
    ftpd::{Kind, Settings},
    guard::Options,
    process::Process,
    scenario::{Scene, Stage, Winner},
};
use nix::sys::signal::Signal;

use crate::help::{guard_with, play, stage};

const LISTENS: &str = include_str!("listens.py");
/// Where strangers listen, each on so many ports.
const FIRST: u16 = 51_000;
const EACH: u16 = 512;
/// How long they are watched.
const WATCHED: Duration = Duration::from_secs(8);
/// How late the heartbeat, an answer and the end may be. The daemon counts as dead after five
/// seconds.
const LIMIT: Duration = Duration::from_secs(3);

/// Somebody who listens on so many ports in a loop, and holds so many files.
fn listens(stage: &Stage, number: u16, files: u32) -> Process {
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", LISTENS]).args([
        (FIRST + number * EACH).to_string(),
        EACH.to_string(),
        files.to_string(),
    ]);
    let mut process = stage.sandbox.server().spawn(&mut command).expect("python3");
    process
        .wait_for_line("begin", Duration::from_secs(20), |line| line == "begun")
        .expect("it begins");
    process
}

/// So many strangers listen while they hold so many files: the daemon shows that it is alive,
/// answers, guards and ends as it does without them.
fn nothing_starves(strangers: u16, files: u32) {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let options = Options {
        passive_ports: Some(50_000..=FIRST + strangers * EACH),
        ..Options::default()
    };
    let guard = guard_with(&stage, &options);
    let mut strangers: Vec<Process> = (0..strangers)
        .map(|number| listens(&stage, number, files))
        .collect();
    let end = Instant::now() + WATCHED;
    let mut latest = Duration::ZERO;
    while Instant::now() < end {
        let asked = Instant::now();
        let status = guard
            .status()
            .unwrap_or_else(|error| panic!("{error:#}\n{}", guard.log()));
        assert!(asked.elapsed() < LIMIT, "{:?}", asked.elapsed());
        let age = status["endurance"]["heartbeat_age"].as_u64();
        latest = latest.max(Duration::from_millis(age.expect("an age")));
        assert!(latest < LIMIT, "{latest:?}\n{}", guard.log());
        thread::sleep(Duration::from_millis(50));
    }
    play(&stage, Scene::ThiefFirst, Winner::Honest, Some(&guard));
    for stranger in &mut strangers {
        assert!(stranger.ended().expect("a process").is_none());
    }
    let stopped = guard.stop(Signal::SIGTERM).expect("it ends");
    assert!(stopped.took < LIMIT, "{:?}", stopped.took);
    println!(
        "heartbeat {latest:?} late at most, end after {:?}",
        stopped.took
    );
}

/// M2: events come faster than they are read.
#[test]
fn m2_who_listens_in_a_loop_starves_nothing() {
    nothing_starves(4, 0);
}

/// M2: what the daemon looks up about each of them takes long.
#[test]
fn m2_who_holds_many_files_holds_nothing_up() {
    nothing_starves(1, 15_000);
}
