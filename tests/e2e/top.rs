//! `ftpguard top` in a real terminal.

use std::process::Command;

use ftpguard_tests::{
    Family, attack,
    client::Commands,
    ftpd::{Kind, Settings},
    guard::binary,
    process::Process,
    terminal::Terminal,
};
use nix::sys::signal::Signal;

use crate::help::{guard, stage};

/// The view shows the session, its pinhole, and the thief who scans the range (rule I1); it takes
/// a new size, says when the guard is gone, and ends at a key.
#[test]
fn the_view_shows_sessions_and_attackers() {
    let stage = stage(Settings::of(Kind::Vsftpd));
    let guard = guard(&stage);
    let runtime = guard.runtime_dir().to_str().expect("a path").to_owned();
    let program = binary();
    let terminal = Terminal::open(
        stage.sandbox.folder(),
        (80, 24),
        &[
            program.to_str().expect("a path"),
            "top",
            "--runtime-dir",
            &runtime,
        ],
    )
    .expect("a terminal");
    let empty = terminal.wait_for(&["enforce", "Sessions (0)", "Attackers (0)", "q quits"]);
    empty.expect("the view");

    let client = stage.sandbox.client();
    let (ftp, port) = client
        .enter(|| {
            let mut ftp = stage.login(Family::V4).expect("login");
            let port = ftp.passive(Commands::Classic).expect("a port");
            (ftp, port)
        })
        .expect("the client's namespace");
    let thief = stage.sandbox.thief();
    attack::knock(thief, port).expect("a knock");
    let server = stage.sandbox.server().address(Family::V4);
    attack::scan(thief, server, 50_000..=50_003).expect("a scan");

    let client = ftp.local().expect("an address").to_string();
    let thief = thief.address(Family::V4).to_string();
    let shown = [
        "Sessions (1)",
        "Pinholes (1)",
        "Attackers (1)",
        &client,
        &port.port().to_string(),
        &thief,
        "no-pinhole",
        "exact",
    ];
    let screen = terminal.wait_for(&shown).expect("all of it");
    assert_eq!(screen.lines().count(), 24, "{screen}");

    terminal.resize((132, 40)).expect("another size");
    let screen = terminal.wait_for(&shown).expect("all of it, larger");
    let head = screen.lines().find(|line| line.contains("Attackers"));
    assert!(head.expect("a title").chars().count() > 100, "{screen}");

    drop(ftp);
    terminal.wait_for(&["Sessions (0)"]).expect("it is closed");
    guard.stop(Signal::SIGTERM).expect("the guard ends");
    terminal
        .wait_for(&["no ftpguard answers"])
        .expect("it says that the guard is gone");
    terminal.press("q").expect("a key");
    terminal.wait_until_closed().expect("it ends");
}

/// In a pipe, and without a guard: one line, and no screen.
#[test]
fn top_says_what_it_needs() {
    let mut command = Command::new(binary());
    command.args(["top", "--runtime-dir", "/nonexistent"]);
    let finished = Process::spawn(&mut command)
        .and_then(|process| process.wait(std::time::Duration::from_secs(10)))
        .expect("it ends");
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
    assert!(finished.stderr.contains("terminal"), "{finished:?}");
    assert_eq!(finished.stdout, "");

    let folder = std::env::temp_dir().join(format!("ftpguard-top-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a folder");
    let shell = format!(
        "{} top --runtime-dir /nonexistent; sleep 5",
        binary().display()
    );
    let terminal = Terminal::open(&folder, (80, 24), &["sh", "-c", &shell]).expect("a terminal");
    let screen = terminal.wait_for(&["/nonexistent"]).expect("a line");
    assert!(screen.contains("no ftpguard answers"), "{screen}");
    drop(terminal);
    std::fs::remove_dir_all(&folder).expect("removed");
}
