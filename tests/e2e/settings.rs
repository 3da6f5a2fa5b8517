//! Settings that change while the guard runs, and who may change them.

use std::{
    fs,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use ftpguard_common::verdict::Reason;
use ftpguard_tests::{
    Family, Guard,
    attack::{self, Answer},
    client::{self, Commands},
    ftpd::{FILE, Ftpd, Kind, Settings, UPLOADS},
    guard::{self, binary},
    process::{Finished, Process},
    scenario::{Scene, Stage, Winner},
    target::Target,
    tls::Handshake,
};
use nix::sys::signal::Signal;

use crate::help::{is_kind, play, stage};

/// The file of this stage, with these lines at its top and this passive range.
fn write(path: &Path, top: &str, range: &str) {
    let text = format!("{top}\n[[ftpd]]\ncontrol_ports = 21\npassive_ports = \"{range}\"\n");
    fs::write(path, text).expect("the file is written");
}

fn file(stage: &Stage) -> PathBuf {
    let folder = guard::folder(&stage.sandbox, "etc").expect("a folder");
    folder.join("ftpguard.toml")
}

fn start(stage: &Stage, file: &Path) -> Guard {
    Guard::start_with_file(&stage.sandbox, file).expect("ftpguard becomes ready")
}

fn finished(command: &mut Command) -> Finished {
    Process::spawn(command)
        .and_then(|process| process.wait(Duration::from_secs(10)))
        .expect("it ends")
}

/// Its standard output.
fn ask(guard: &Guard, arguments: &[&str]) -> String {
    let finished = guard.ask(arguments).expect("it ends");
    assert!(finished.status.success(), "{finished:?}");
    finished.stdout
}

/// Its one line of standard error.
fn refused(guard: &Guard, arguments: &[&str]) -> String {
    let finished = guard.ask(arguments).expect("it ends");
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
    finished.stderr
}

fn knock(stage: &Stage, port: u16) -> Answer {
    let target = stage.sandbox.server().socket(Family::V4, port);
    attack::knock(stage.sandbox.thief(), target).expect("a knock")
}

fn is_silent(answer: &Answer) -> bool {
    matches!(answer, Answer::Silent)
}

/// A transfer that is under way, a pinhole that is open and a session that is idle live through
/// a reload; what the file says is in force afterwards (rules K7, I1, I4).
#[test]
fn k7_a_reload_drops_no_transfer() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let file = file(&stage);
    write(&file, "", "50000-50031");
    let guard = start(&stage, &file);
    let server = stage.sandbox.server();
    // Other software, in the range that is to come.
    let foreign = Target::start(server, Family::V4, 50_040).expect("a listener");
    assert!(matches!(knock(&stage, 50_035), Answer::Refused));

    stage
        .sandbox
        .client()
        .enter(|| {
            let content = stage.ftpd.content();
            let (first, second) = content.split_at(content.len() / 2);
            let mut storing = stage.login(Family::V4).expect("login");
            let port = storing.passive(Commands::Classic).expect("PASV");
            let mut data = client::connect(port).expect("data connection").stream;
            let name = format!("STOR {UPLOADS}/reloaded.bin");
            storing
                .command(&name)
                .expect("STOR")
                .opens("STOR")
                .expect("150");
            data.write_all(first).expect("the first half");

            let mut announced = stage.login(Family::V4).expect("login");
            let open = announced.passive(Commands::Classic).expect("PASV");
            let mut idle = stage.login(Family::V4).expect("login");

            write(&file, "bounce_shield = true", "50000-50063");
            let told = ask(&guard, &["reload"]);
            assert!(
                told.trim_end()
                    .ends_with("in force now: bounce_shield, ftpd"),
                "{told}"
            );

            data.write_all(second).expect("the second half");
            drop(data);
            storing
                .reply()
                .expect("a reply")
                .expect(226, "STOR")
                .expect("226");
            let stored = stage.ftpd.uploaded("reloaded.bin").expect("the file");
            assert!(stage.is_file(&stored), "{}", guard.log());
            let data =
                client::connect(open).unwrap_or_else(|error| panic!("{error:#}\n{}", guard.log()));
            let fetched = announced.receive(FILE, data.stream).expect("the file");
            assert!(stage.is_file(&fetched));
            let fetched = idle
                .retrieve_passive(FILE, Commands::Classic)
                .expect("the file");
            assert!(stage.is_file(&fetched));
        })
        .expect("the client's host");

    // The new range is closed but for the other software's listener, which was there before.
    assert!(is_silent(&knock(&stage, 50_035)), "{}", guard.log());
    assert!(matches!(knock(&stage, 50_040), Answer::Connected(_)));
    // Software that starts now is left alone, too.
    let later = Target::start(server, Family::V4, 50_041).expect("a listener");
    assert!(matches!(knock(&stage, 50_041), Answer::Connected(_)));
    drop((foreign, later));
    play(&stage, Scene::ThiefFirst, Winner::Honest, Some(&guard));

    // And back, by a signal.
    write(&file, "bounce_shield = true", "50000-50031");
    guard.signal(Signal::SIGHUP).expect("SIGHUP");
    guard
        .wait_for_event("of the second reload", |event| {
            is_kind(event, "configuration-reloaded") && event["changed"] == "ftpd"
        })
        .expect("an event");
    assert!(matches!(knock(&stage, 50_035), Answer::Refused));
    assert!(is_silent(&knock(&stage, 50_031)));
    play(&stage, Scene::ThiefFirst, Winner::Honest, Some(&guard));
}

/// A file that is wrong, or that a running guard cannot follow, changes nothing.
#[test]
fn a_reload_that_is_refused_changes_nothing() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let file = file(&stage);
    write(&file, "", "50000-50031");
    let guard = start(&stage, &file);

    // The first key could be followed, the second not.
    write(
        &file,
        "bounce_shield = true\ntracking = \"text\"",
        "50000-50063",
    );
    let line = refused(&guard, &["reload"]);
    assert!(
        line.contains("tracking cannot change while the guard runs; restart it"),
        "{line}"
    );
    write(&file, "bounce_shield = maybe", "50000-50063");
    let line = refused(&guard, &["reload"]);
    assert!(line.contains("ftpguard.toml:1:17: "), "{line}");
    fs::remove_file(&file).expect("removed");
    let line = refused(&guard, &["reload"]);
    assert!(line.contains("does not exist"), "{line}");

    assert!(matches!(knock(&stage, 50_035), Answer::Refused));
    assert!(is_silent(&knock(&stage, 50_031)));
    assert!(
        !guard
            .events()
            .iter()
            .any(|event| is_kind(event, "configuration-reloaded"))
    );
    play(&stage, Scene::ThiefFirst, Winner::Honest, Some(&guard));
}

/// A control port that is added is guarded from then on, with the sessions that were open on it
/// (rule K10).
#[test]
fn k10_a_reload_adopts_what_a_new_control_port_brings() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let file = file(&stage);
    fs::write(&file, "[[ftpd]]\ncontrol_ports = 2121\n").expect("written");
    let guard = start(&stage, &file);
    stage
        .sandbox
        .client()
        .enter(|| {
            let mut before = stage.login(Family::V4).expect("login");
            let mut announced = stage.login(Family::V4).expect("login");
            let open = announced.passive(Commands::Classic).expect("PASV");
            fs::write(&file, "[[ftpd]]\ncontrol_ports = [21, 2121]\n").expect("written");
            ask(&guard, &["reload"]);
            let data =
                client::connect(open).unwrap_or_else(|error| panic!("{error:#}\n{}", guard.log()));
            let fetched = announced.receive(FILE, data.stream).expect("the file");
            assert!(stage.is_file(&fetched));
            let fetched = before
                .retrieve_passive(FILE, Commands::Classic)
                .unwrap_or_else(|error| panic!("{error:#}\n{}", guard.log()));
            assert!(stage.is_file(&fetched));
        })
        .expect("the client's host");
    play(&stage, Scene::ThiefFirst, Winner::Honest, Some(&guard));
    fs::write(&file, "[[ftpd]]\ncontrol_ports = [2121]\n").expect("written");
    let line = refused(&guard, &["reload"]);
    assert!(
        line.contains("control port 21, which is dropped,"),
        "{line}"
    );
}

/// M1: one command makes it bite, one takes it back, and no connection is dropped.
#[test]
fn m1_the_mode_is_switched_at_run_time() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let file = file(&stage);
    write(&file, "mode = \"monitor\"", "50000-50031");
    let guard = start(&stage, &file);
    assert_eq!(ask(&guard, &["mode"]).lines().next(), Some("mode monitor"));
    play(&stage, Scene::ThiefFirst, Winner::Attacker, Some(&guard));

    stage
        .sandbox
        .client()
        .enter(|| {
            let mut storing = stage.login(Family::V4).expect("login");
            let port = storing.passive(Commands::Classic).expect("PASV");
            let mut data = client::connect(port).expect("data connection").stream;
            let name = format!("STOR {UPLOADS}/switched.bin");
            storing
                .command(&name)
                .expect("STOR")
                .opens("STOR")
                .expect("150");
            let content = stage.ftpd.content();
            let (first, second) = content.split_at(content.len() / 2);
            data.write_all(first).expect("the first half");
            let told = ask(&guard, &["mode", "enforce"]);
            assert!(told.contains("the configuration says monitor"), "{told}");
            data.write_all(second).expect("the second half");
            drop(data);
            storing
                .reply()
                .expect("a reply")
                .expect(226, "STOR")
                .expect("226");
        })
        .expect("the client's host");
    let stored = stage.ftpd.uploaded("switched.bin").expect("the file");
    assert!(stage.is_file(&stored));
    play(&stage, Scene::ThiefFirst, Winner::Honest, Some(&guard));
    assert_eq!(guard.status().expect("status")["mode"], "enforce");

    // A reload does not take back what was switched, for the file still says what it said.
    ask(&guard, &["reload"]);
    assert_eq!(guard.status().expect("status")["mode"], "enforce");
    assert!(is_silent(&knock(&stage, 50_031)));

    ask(&guard, &["mode", "monitor"]);
    assert!(matches!(knock(&stage, 50_031), Answer::Refused));
    guard
        .wait_for_counter(Reason::ClosedPort, 2)
        .expect("counted in both modes");
    for mode in ["enforce", "monitor"] {
        guard
            .wait_for_event("of the switch", |event| {
                is_kind(event, "mode-switched") && event["mode"] == mode
            })
            .expect("an event");
    }
}

/// Two FTP servers, the second under TLS; the modes of the file and of the second one.
fn write_two(path: &Path, mode: &str, own: &str) {
    let text = format!(
        "mode = \"{mode}\"\n\
         [[ftpd]]\nname = \"first\"\npassive_ports = \"50000-50031\"\n\
         [[ftpd]]\nname = \"second\"\ncontrol_ports = 990\npassive_ports = \"51000-51031\"\n\
         mode = \"{own}\"\n"
    );
    fs::write(path, text).expect("the file is written");
}

/// M1: one FTP server is watched while the other is enforced, and a reload turns that round.
#[test]
fn m1_each_ftpd_may_have_its_own_mode() {
    let mut stage = stage(Settings::unchecked(Kind::Vsftpd));
    let second = Settings {
        passive_ports: 51_000..=51_031,
        tls: Some(Handshake::Implicit),
        ..Settings::unchecked(Kind::Vsftpd)
    };
    let mut second = Ftpd::start(&stage.sandbox, second).expect("a second ftpd");
    let file = file(&stage);
    write_two(&file, "enforce", "monitor");
    let guard = start(&stage, &file);
    let mut of_both = |first: Winner, other: Winner| {
        for winner in [first, other] {
            let mut ftp = stage
                .sandbox
                .client()
                .enter(|| stage.login(Family::V4))
                .expect("namespace")
                .expect("login");
            let announced = ftp.passive(Commands::Classic).expect("a port");
            let answer = attack::knock(stage.sandbox.thief(), announced).expect("a knock");
            assert_eq!(
                is_silent(&answer),
                winner == Winner::Honest,
                "{answer:?}\n{}",
                guard.log()
            );
            play(&stage, Scene::BounceToThirdHost, winner, Some(&guard));
            std::mem::swap(&mut stage.ftpd, &mut second);
        }
        assert_eq!(
            [50_031, 51_031].map(|port| is_silent(&knock(&stage, port))),
            [first, other].map(|winner| winner == Winner::Honest)
        );
    };
    of_both(Winner::Honest, Winner::Attacker);
    let told = ask(&guard, &["mode"]);
    assert!(
        told.starts_with("mode enforce, monitor for second\n"),
        "{told}"
    );
    assert!(told.contains("connect-to-stranger"), "{told}");
    let modes = guard.status().expect("status")["ftpd_modes"].clone();
    assert_eq!(modes[0]["mode"], "enforce", "{modes}");
    assert_eq!(modes[1]["mode"], "monitor", "{modes}");

    write_two(&file, "monitor", "enforce");
    let told = ask(&guard, &["reload"]);
    assert!(
        told.trim_end().ends_with("in force now: mode, ftpd"),
        "{told}"
    );
    of_both(Winner::Attacker, Winner::Honest);

    // Its own mode stays, whatever the others' is switched to.
    ask(&guard, &["mode", "enforce"]);
    of_both(Winner::Honest, Winner::Honest);
}

/// P6: whoever was refused, and whatever the ftpd was refused, is explained; monitor mode shows
/// the same before it bites, with the exception that would allow it.
#[test]
fn p6_every_refusal_is_explained() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let file = file(&stage);
    write(&file, "mode = \"monitor\"", "50000-50031");
    let guard = start(&stage, &file);
    let nothing = ask(&guard, &["why"]);
    assert!(nothing.starts_with("nothing was refused"), "{nothing}");
    play(
        &stage,
        Scene::BounceToThirdHost,
        Winner::Attacker,
        Some(&guard),
    );
    let third = stage.sandbox.third().socket(Family::V4, 0).ip().to_string();
    let client = stage
        .sandbox
        .client()
        .socket(Family::V4, 0)
        .ip()
        .to_string();
    let evidence = ask(&guard, &["mode"]);
    for words in [
        "connect-to-stranger".to_owned(),
        format!("{client} had the server connect to {third}:"),
        format!("connect_to = [\"{third}\"]"),
    ] {
        assert!(
            evidence.contains(&words),
            "no {words:?} in\n{evidence}\n{}",
            guard.log()
        );
    }

    // All that is proposed is taken by the file as it is, and allows what it says.
    let (_, exceptions) = evidence
        .split_once("to think about before `ftpguard mode enforce`\n")
        .expect("proposals");
    fs::write(
        &file,
        format!("mode = \"enforce\"\n[[ftpd]]\npassive_ports = \"50000-50031\"\n{exceptions}\n"),
    )
    .expect("written");
    ask(&guard, &["reload"]);
    assert_eq!(guard.status().expect("status")["mode"], "enforce");
    // A partner takes another port for each transfer.
    play(
        &stage,
        Scene::BounceToThirdHost,
        Winner::Attacker,
        Some(&guard),
    );
    write(&file, "mode = \"enforce\"", "50000-50031");
    ask(&guard, &["reload"]);

    play(&stage, Scene::ThiefFirst, Winner::Honest, Some(&guard));
    play(
        &stage,
        Scene::BounceToThirdHost,
        Winner::Honest,
        Some(&guard),
    );
    let thief = stage.sandbox.thief().socket(Family::V4, 0).ip().to_string();
    let told = ask(&guard, &["why", &thief]);
    for words in [
        "no-pinhole".to_owned(),
        format!("a data port that was open for {client}"),
        format!("{thief} held no control connection"),
        "(I2, K1)".to_owned(),
        format!("{thief} holds no control connection now"),
    ] {
        assert!(told.contains(&words), "no {words:?} in\n{told}");
    }
    let last = ask(&guard, &["why", "--last"]);
    assert!(last.starts_with("connect-to-stranger"), "{last}");
    assert!(
        last.contains("(O1, O4)") && last.contains("bounce attack"),
        "{last}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&ask(&guard, &["why", "--json", &thief])).expect("JSON");
    assert_eq!(json["denials"][0]["reason"], "no-pinhole", "{json}");
    assert_eq!(json["denials"][0]["rules"][0], "I2", "{json}");
    let port = ask(&guard, &["why", "50031"]);
    assert!(
        port.contains("port 50031 now: in the passive range of \"ftpd\"; nobody listens"),
        "{port}"
    );
    let wrong = guard.ask(&["why", "nobody"]).expect("it ends");
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
}

/// Members of the socket's group may look and not touch; others may do neither.
#[test]
fn the_socket_group_looks_and_does_not_touch() {
    const NOBODY: u32 = 65_534;
    const STRANGERS: u32 = 65_533;
    let stage = stage(Settings::of(Kind::Vsftpd));
    let file = file(&stage);
    let group = nix::unistd::Group::from_name("adm")
        .expect("readable")
        .expect("every Debian has it");
    write(&file, "socket_group = \"adm\"", "50000-50031");
    let guard = start(&stage, &file);
    let ask_as = |gid: u32, arguments: &[&str]| {
        let mut command = Command::new(binary());
        command
            .args(arguments)
            .arg("--runtime-dir")
            .arg(guard.runtime_dir());
        command.uid(NOBODY).gid(gid);
        finished(&mut command)
    };
    let member = group.gid.as_raw();
    let looked = ask_as(member, &["status"]);
    assert!(looked.status.success(), "{looked:?}");
    assert!(
        looked.stdout.contains("mode           enforce"),
        "{looked:?}"
    );
    for arguments in [&["reload"][..], &["mode", "monitor"]] {
        let touched = ask_as(member, arguments);
        assert_eq!(touched.status.code(), Some(1), "{touched:?}");
        assert!(
            touched.stderr.contains("only root may change"),
            "{touched:?}"
        );
    }
    let stranger = ask_as(STRANGERS, &["status"]);
    assert!(!stranger.status.success(), "{stranger:?}");
    assert!(stranger.stderr.contains("no permission"), "{stranger:?}");
    assert_eq!(guard.status().expect("status")["mode"], "enforce");
}

/// `ftpguard check` names file, line and column, and does not need root.
#[test]
fn check_needs_neither_root_nor_kernel() {
    let stage = stage(Settings::of(Kind::Vsftpd));
    let file = file(&stage);
    let check = |text: &str| {
        fs::write(&file, text).expect("written");
        let mut command = Command::new(binary());
        command.arg("check").arg("--config").arg(&file);
        command.uid(65_534).gid(65_534);
        finished(&mut command)
    };
    let valid = check("mode = \"monitor\"\n[[ftpd]]\npassive_ports = \"50000-50031\"\n");
    assert!(valid.status.success(), "{valid:?}");
    assert!(valid.stdout.contains("valid, mode monitor"), "{valid:?}");
    let wrong = check("mode = \"monitor\"\n[[ftpd]]\npassive_port = \"50000-50031\"\n");
    assert_eq!(wrong.status.code(), Some(3), "{wrong:?}");
    assert_eq!(wrong.stderr.lines().count(), 1, "{wrong:?}");
    assert!(
        wrong
            .stderr
            .contains("ftpguard.toml:3:1: unknown key `passive_port`"),
        "{wrong:?}"
    );
}
