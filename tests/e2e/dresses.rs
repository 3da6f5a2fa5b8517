//! A SYN in every dress against every gate, with real packets (rules I2, I5): the table in
//! `docs/verdicts.md` is what comes out.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use ftpguard_tests::{
    Family, FtpClient, Guard, Host,
    client::Commands,
    dress::{Dress, Ends},
    ftpd::{Kind, Settings},
    guard::Options,
    raw::{RawWire, Reply, hardware_address},
    scenario::Stage,
};

use crate::help::{guard_with, stage};

/// What is promised.
const TABLE: &str = include_str!("../../docs/verdicts.md");

/// How long answers are waited for: hosts in the sandbox answer within a millisecond.
const QUIET: Duration = Duration::from_millis(400);

/// The columns of the table: `--iface` and `--xdp-mode`. A guard on `lo` has the last gate only
/// for what comes by the network.
const GUARDS: [(&str, &str); 4] = [
    ("eth0", "native"),
    ("eth0", "generic"),
    ("eth0", "tc"),
    ("lo", "tc"),
];

/// An announced port of each family, and the sessions that keep them open.
struct Announced {
    ports: HashMap<&'static str, u16>,
    _sessions: Vec<FtpClient>,
}

impl Announced {
    fn new(stage: &Stage) -> Self {
        let mut ports = HashMap::new();
        let mut sessions = Vec::new();
        for family in Family::ALL {
            let session = stage.sandbox.client().enter(|| stage.login(family));
            let mut session = session.expect("namespace").expect("a session");
            let announced = session.passive(Commands::Extended).expect("a port");
            ports.insert(family.label(), announced.port());
            sessions.push(session);
        }
        Self {
            ports,
            _sessions: sessions,
        }
    }
}

/// Sends a SYN in each dress from this host, and says what came back for each.
fn try_all(stage: &Stage, from: &Host, announced: &Announced) -> Vec<Reply> {
    // Other ports each time: they also number fragments, which the server keeps for a while.
    static ROUND: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + 100 * ROUND.fetch_add(1, Ordering::Relaxed);
    let server = stage.sandbox.server();
    let wire = RawWire::open(from).expect("a packet socket");
    let hardware = [from, server].map(|host| hardware_address(host).expect("an address"));
    let dresses = Dress::all();
    for (number, dress) in (first..).zip(&dresses) {
        let ends = Ends {
            hardware,
            addresses: [from, server].map(|host| host.address(dress.family)),
            ports: [number, announced.ports[dress.family.label()]],
        };
        for frame in dress.frames(&ends) {
            wire.send(&frame).expect("it is sent");
        }
    }
    let replies = wire.replies(QUIET);
    (first..)
        .zip(&dresses)
        .map(|(port, _)| replies.get(&port).copied().unwrap_or(Reply::Silent))
        .collect()
}

fn word(reply: Reply) -> &'static str {
    match reply {
        Reply::Accepted => "accepted",
        Reply::Refused => "refused",
        Reply::Silent => "silence",
    }
}

/// I2, I5: whatever a SYN wears, no gate lets it reach somebody else's port, and no gate takes
/// it from the client whose port it is.
#[test]
fn a_syn_in_every_dress_at_every_gate() {
    let stage = stage(Settings::unchecked(Kind::Vsftpd));
    let (client, thief) = (stage.sandbox.client(), stage.sandbox.thief());
    // Neighbours are known before the first raw frame asks for an answer.
    for host in [client, thief] {
        for family in Family::ALL {
            let session = host.enter(|| stage.login(family)).expect("namespace");
            session.expect("a session");
        }
    }
    let open = try_all(&stage, thief, &Announced::new(&stage));
    let mut columns = vec![open.clone()];
    for (interface, xdp_mode) in GUARDS {
        let guard = guard_with(
            &stage,
            &Options {
                interfaces: vec![interface.to_owned()],
                xdp_mode,
                ..Options::default()
            },
        );
        let announced = Announced::new(&stage);
        let tried = try_all(&stage, thief, &announced);
        let honest = try_all(&stage, client, &announced);
        check(&guard, &open, &tried, &honest);
        columns.push(tried);
    }
    let mut missing = Vec::new();
    for (place, dress) in Dress::all().iter().enumerate() {
        let cells: Vec<&str> = columns.iter().map(|column| word(column[place])).collect();
        let row = format!(
            "| {} | {} | {} |",
            dress.family.label(),
            dress.name,
            cells.join(" | ")
        );
        if !TABLE.contains(&row) {
            missing.push(row);
        }
    }
    assert!(
        missing.is_empty(),
        "docs/verdicts.md says otherwise:\n{}",
        missing.join("\n")
    );
}

fn check(guard: &Guard, open: &[Reply], tried: &[Reply], honest: &[Reply]) {
    for (place, dress) in Dress::all().iter().enumerate() {
        let what = || {
            format!(
                "{} over {}: {}",
                dress.name,
                dress.family.label(),
                guard.ready()
            )
        };
        assert_ne!(tried[place], Reply::Accepted, "{}", what());
        // Fragments that only an attacker sends are dropped, whoever sends them (RFC 1858,
        // RFC 3128, RFC 7112 section 5).
        if !dress.name.contains("first fragment") {
            assert_eq!(honest[place], open[place], "honest, {}", what());
        }
    }
}
