//! What the tests have in common.

use std::net::SocketAddr;

use ftpguard_tests::{
    Family, FtpClient, Guard, Host,
    attack::{self, Answer},
    client::{self, Commands},
    ftpd::{CONTROL_PORT, Settings},
    guard::Options,
    sandbox::INTERFACE,
    scenario::{Scene, Stage, Winner},
    tool::{Transfer, Way},
};
use serde_json::Value;

/// A sandbox with an ftpd in it.
pub(crate) fn stage(settings: Settings) -> Stage {
    Stage::new(settings).expect("the stage")
}

/// A guard that enforces, with sockets as its authority.
pub(crate) fn guard(stage: &Stage) -> Guard {
    guard_with(stage, &Options::default())
}

/// A guard with these options.
pub(crate) fn guard_with(stage: &Stage, options: &Options) -> Guard {
    Guard::start(&stage.sandbox, options).expect("ftpguard becomes ready")
}

/// Plays the scene over both families; fails unless the wanted side wins.
pub(crate) fn play(stage: &Stage, scene: Scene, wanted: Winner, guard: Option<&Guard>) {
    for family in Family::ALL {
        let played = scene.play(stage, family).expect("the scene can be played");
        assert_eq!(
            played.winner,
            wanted,
            "{} over {}, guard {}: {}\n{}",
            scene.title(),
            family.label(),
            if guard.is_some() { "on" } else { "off" },
            played.told,
            guard.map(Guard::log).unwrap_or_default(),
        );
    }
}

/// Plays the scene with the guard off, then on; fails unless each goes as it should.
/// Returns the guard, still running, for a look at its counters.
pub(crate) fn off_then_on(stage: &Stage, scene: Scene, options: &Options) -> Guard {
    play(stage, scene, scene.should_win(false), None);
    let guard = guard_with(stage, options);
    play(stage, scene, scene.should_win(true), Some(&guard));
    guard
}

/// Fetches and stores with every client in every way that it knows; compares the bytes.
pub(crate) fn transfer_with_all_tools(stage: &Stage, way: Way, guard: Option<&Guard>) {
    let log = || guard.map(Guard::log).unwrap_or_default();
    for (number, transfer) in Transfer::all(way).into_iter().enumerate() {
        let fetched = transfer
            .fetch(&stage.sandbox)
            .unwrap_or_else(|error| panic!("{transfer:?}: {error:#}\n{}", log()));
        assert!(stage.is_file(&fetched), "{transfer:?} fetched other bytes");
        let name = format!("tool-{way:?}-{number}-{}", guard.is_some());
        transfer
            .store(&stage.sandbox, &name, stage.ftpd.content())
            .unwrap_or_else(|error| panic!("{transfer:?}: {error:#}\n{}", log()));
        let stored = stage.ftpd.uploaded(&name).expect("the stored file");
        assert!(stage.is_file(&stored), "{transfer:?} stored other bytes");
    }
}

/// Whether the event is of this kind, as its field `event` says.
pub(crate) fn is_kind(event: &Value, kind: &str) -> bool {
    event.get("event").and_then(Value::as_str) == Some(kind)
}

/// What is attached to the server's interfaces, one line for each hook, as `ip` and `tc` see it.
/// They cannot show links of the newer kind (tcx).
pub(crate) fn attached(stage: &Stage) -> Vec<String> {
    let server = stage.sandbox.server();
    let limit = std::time::Duration::from_secs(5);
    let links = server
        .ip(&["-details", "link", "show"])
        .expect("ip link")
        .stdout;
    let mut found: Vec<String> = links
        .lines()
        .filter(|line| line.contains("xdp"))
        .map(|line| line.trim().to_owned())
        .collect();
    let tc = |arguments: &[&str]| {
        let mut command = std::process::Command::new("tc");
        let finished = server.run(command.args(arguments), limit);
        finished.expect("tc").stdout
    };
    let qdiscs = tc(&["qdisc", "show", "dev", INTERFACE]);
    found.extend(
        qdiscs
            .lines()
            .filter(|line| line.contains("clsact"))
            .map(str::to_owned),
    );
    for direction in ["ingress", "egress"] {
        let filters = tc(&["filter", "show", "dev", INTERFACE, direction]);
        found.extend(filters.lines().map(str::to_owned));
    }
    found
}

/// One announced port: the thief tries it, then the client connects. `to`: where the port is for
/// both of them.
pub(crate) fn race_to(
    stage: &Stage,
    control: SocketAddr,
    to: impl Fn(SocketAddr) -> SocketAddr,
) -> (Answer, Result<(), String>) {
    let client = stage.sandbox.client();
    let mut ftp = client
        .enter(|| FtpClient::login(control))
        .expect("namespace")
        .expect("a session");
    let announced = to(ftp.passive(Commands::Extended).expect("a port"));
    let theft = attack::knock(stage.sandbox.thief(), announced).expect("a try");
    let honest = client
        .enter(|| client::connect(announced).map(drop))
        .expect("namespace");
    (theft, honest.map_err(|error| format!("{error:#}")))
}

pub(crate) fn straight(address: SocketAddr) -> SocketAddr {
    address
}

/// The same where the port is as it was announced.
pub(crate) fn race(stage: &Stage, control: SocketAddr) -> (Answer, Result<(), String>) {
    race_to(stage, control, straight)
}

pub(crate) fn control(host: &Host) -> SocketAddr {
    host.socket(Family::V4, CONTROL_PORT)
}

pub(crate) fn is_kept_out(theft: &Answer) -> bool {
    matches!(theft, Answer::Refused | Answer::Silent)
}

/// One of the kernel's network counters in this host's network namespace
/// (Documentation/networking/snmp_counter.rst).
pub(crate) fn network_counter(host: &Host, group: &str, name: &str) -> u64 {
    let counters = host
        .enter(|| std::fs::read_to_string("/proc/thread-self/net/netstat"))
        .expect("namespace")
        .expect("counters");
    let mut lines = counters
        .lines()
        .filter_map(|line| line.strip_prefix(group)?.strip_prefix(": "));
    let (names, numbers) = (lines.next().expect("names"), lines.next().expect("numbers"));
    let (_, number) = names
        .split(' ')
        .zip(numbers.split(' '))
        .find(|(found, _)| *found == name)
        .expect("the counter");
    number.parse().expect("a number")
}
