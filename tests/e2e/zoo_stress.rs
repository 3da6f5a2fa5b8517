//! Clients side by side: every pinhole is the right client's, and no SYN is lost (rules F2, F3,
//! K2).
//!
//! `FTPGUARD_LONG=1` makes every run ten times as long.

use std::{
    env, fs,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use ftpguard_tests::{
    Family, FtpClient, Guard,
    attack::{self, Answer},
    client::{self, Commands},
    ftpd::{Kind, SMALL_FILE, Settings},
    guard::Options,
    sandbox::Host,
    scenario::Stage,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    help::{guard_with, is_kind, stage},
    zoo::{Tls, guard_for, options_for, origins, settings},
};

/// Sessions that transfer: so many from each of three addresses.
const SESSIONS: usize = 2;
/// Transfers of each, in the short form.
const TRANSFERS: usize = 12;
/// Wide, so that two sessions hardly ever choose one port at once.
const PORTS: RangeInclusive<u16> = 50_000..=53_999;
/// No run takes longer, whatever happens.
const LIMIT: Duration = Duration::from_mins(1);

/// What came of it.
#[derive(Clone, Debug, Default)]
struct Tally {
    /// Who was told which port, in the order of one session.
    announced: Vec<(IpAddr, u16)>,
    transfers: usize,
    failed: Vec<String>,
    lost: usize,
    /// Sessions in which the ftpd failed to listen.
    collided: usize,
}

/// How much longer than usual tests are to run.
pub(crate) fn length() -> usize {
    if env::var_os("FTPGUARD_LONG").is_some() {
        10
    } else {
        1
    }
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.announced.extend(other.announced);
        self.transfers += other.transfers;
        self.failed.extend(other.failed);
        self.lost += other.lost;
        self.collided += other.collided;
    }
}

/// One client: PASV, connect, RETR, over and over.
fn transfers(stage: &Stage, family: Family, count: usize) -> Tally {
    let mut tally = Tally::default();
    let deadline = Instant::now() + LIMIT;
    while tally.transfers < count && tally.failed.is_empty() {
        match session(stage, family, count, &mut tally) {
            Ok(()) => {}
            // Two processes or threads may bind one port before either listens, and one listen()
            // fails. pyftpdlib's threads also forget descriptors that are another's by then.
            Err(Failure::Passive(error)) if is_collision(stage, &error) => {
                tally.collided += 1;
            }
            Err(Failure::Passive(error) | Failure::Other(error)) => {
                tally.failed.push(format!("{error:#}"));
            }
        }
        if Instant::now() > deadline {
            tally.failed.push("too slow".to_owned());
        }
    }
    tally
}

fn is_collision(stage: &Stage, error: &anyhow::Error) -> bool {
    // The client may see the end of its session before the ftpd has written why.
    format!("{error:#}").contains("already in use")
        || (0..20).any(|_| {
            thread::sleep(Duration::from_millis(50));
            stage.ftpd.log().contains("unhandled exception")
        })
}

/// Where a session failed.
enum Failure {
    /// No answer to PASV or EPSV.
    Passive(anyhow::Error),
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

fn session(stage: &Stage, family: Family, count: usize, tally: &mut Tally) -> Result<(), Failure> {
    let mut ftp = stage.login(family)?;
    let own = ftp.local()?.ip();
    while tally.transfers < count {
        let announced = ftp
            .passive(Commands::of(family))
            .map_err(Failure::Passive)?;
        tally.announced.push((own, announced.port()));
        let data = client::connect(announced)?;
        tally.lost += usize::from(data.syns_lost > 0);
        let content = ftp.receive(SMALL_FILE, data.stream)?;
        if content.len() != 100 || !stage.ftpd.content().starts_with(&content) {
            return Err(anyhow::anyhow!("{own} received other bytes").into());
        }
        tally.transfers += 1;
    }
    Ok(())
}

/// One session that says nothing of interest, as often as it can. `begun` hears of the first reply.
fn flood(
    stage: &Stage,
    family: Family,
    begun: Sender<()>,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let mut ftp = stage.login(family)?;
    ftp.expect("NOOP", 200)?;
    drop(begun);
    // pyftpdlib's threads may end it before its time (see `transfers`).
    while !stop.load(Ordering::Relaxed) && ftp.expect("NOOP", 200).is_ok() {}
    Ok(())
}

/// Sessions from three addresses transfer side by side while two others flood.
fn side_by_side(stage: &Stage, family: Family) -> Tally {
    let sandbox = &stage.sandbox;
    let hosts: [&Host; 3] = [sandbox.client(), sandbox.thief(), sandbox.third()];
    let stop = &AtomicBool::new(false);
    let mut tally = Tally::default();
    thread::scope(|scope| {
        let (begun, all_begun) = mpsc::channel();
        let floods = [hosts[0], hosts[1]].map(|host| {
            let begun = begun.clone();
            scope.spawn(move || host.enter(move || flood(stage, family, begun, stop)))
        });
        drop(begun);
        // Nothing is sent: the channel ends when every flood has begun, or failed to.
        let _ = all_begun.recv_timeout(LIMIT);
        let sessions: Vec<_> = hosts
            .iter()
            .flat_map(|host| [*host; SESSIONS])
            .map(|host| {
                scope.spawn(|| host.enter(|| transfers(stage, family, TRANSFERS * length())))
            })
            .collect();
        for session in sessions {
            tally.add(session.join().expect("no panic").expect("namespace"));
        }
        stop.store(true, Ordering::Relaxed);
        for flood in floods {
            let result = flood.join().expect("no panic").expect("namespace");
            if let Err(error) = result {
                panic!("no flood: {error:#}\n{}", stage.ftpd.log());
            }
        }
    });
    tally
}

/// Pinholes that name another client than the one that was told the port.
fn wrong(pinholes: &[(IpAddr, u16)], announced: &[(IpAddr, u16)]) -> Vec<(IpAddr, u16)> {
    let mut left = announced.to_vec();
    pinholes
        .iter()
        .filter(
            |pinhole| match left.iter().position(|told| told == *pinhole) {
                Some(place) => {
                    left.swap_remove(place);
                    false
                }
                None => true,
            },
        )
        .copied()
        .collect()
}

fn pinholes(guard: &Guard) -> Vec<(IpAddr, u16)> {
    let field = |event: &Value| -> Option<(IpAddr, u16)> {
        let client = event["client"].as_str()?.parse().ok()?;
        let port = u16::try_from(event["port"].as_u64()?).ok()?;
        Some((client, port))
    };
    guard
        .events()
        .iter()
        .filter(|event| is_kind(event, "pinhole-made"))
        .filter_map(field)
        .collect()
}

/// Whether an ftpd is refused pinholes from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    /// Every announced port has one pinhole: the right client's.
    Never,
    /// Nobody can say for whom it listens.
    Always,
    /// That depends on how its threads take turns.
    Sometimes,
}

/// The run for one ftpd. Returns it, and the guard, still running.
fn stress(settings: &Settings, refused: Refused) -> (Stage, Guard) {
    let stage = stage(Settings {
        passive_ports: PORTS,
        ..settings.clone()
    });
    let options = Options {
        passive_ports: Some(PORTS),
        ..options_for(&stage)
    };
    let guard = guard_with(&stage, &options);
    let mut tally = Tally::default();
    for family in Family::ALL {
        tally.add(side_by_side(&stage, family));
    }
    let label = stage.ftpd.settings().kind.label();
    assert!(
        tally.failed.is_empty(),
        "{label}: {:?}\n{}",
        tally.failed,
        stage.ftpd.log()
    );
    let expected = 2 * 3 * SESSIONS * TRANSFERS * length();
    assert_eq!(tally.transfers, expected, "{label}");
    // The last pinholes' events may still be on their way; one too many may be as well.
    for _ in 0..50 {
        thread::sleep(Duration::from_millis(100));
        if pinholes(&guard).len() >= tally.announced.len() {
            break;
        }
    }
    let pinholes = pinholes(&guard);
    let wrong = wrong(&pinholes, &tally.announced);
    println!(
        "{label}, TLS {:?}: {} tries, {} pinholes, {} wrong, {} SYNs lost, \
         {} failed to listen",
        stage.ftpd.settings().tls,
        tally.transfers,
        pinholes.len(),
        wrong.len(),
        tally.lost,
        tally.collided
    );
    // Where listen() fails because another socket has the port by then, the pinhole made in it
    // is never announced.
    let about: Vec<Value> = guard
        .events()
        .into_iter()
        .filter(|event| wrong.iter().any(|(_, port)| event["port"] == *port))
        .collect();
    assert!(
        wrong.len() <= tally.collided,
        "{label}: {wrong:?}\n{about:#?}"
    );
    assert!(tally.collided * 10 <= tally.transfers, "{label}: {tally:?}");
    assert_eq!(tally.lost, 0, "{label}");
    let status = guard.status().expect("status");
    let is_unsafe = status["unsafe_processes"]
        .as_array()
        .is_some_and(|all| !all.is_empty());
    println!("{label}: refused: {is_unsafe}");
    match refused {
        Refused::Sometimes => {}
        Refused::Never | Refused::Always => {
            assert_eq!(is_unsafe, refused == Refused::Always, "{label}: {status:#}");
        }
    }
    if refused == Refused::Never {
        let made = pinholes.len() - wrong.len();
        assert_eq!(made, tally.announced.len(), "{label}");
    }
    (stage, guard)
}

#[test]
fn f2_stress_processes() {
    for kind in [
        Kind::Vsftpd,
        Kind::VsftpdOneProcess,
        Kind::Proftpd,
        Kind::PureFtpd,
    ] {
        stress(&settings(kind, Tls::Clear), Refused::Never);
    }
    stress(&settings(Kind::Inetutils, Tls::Clear), Refused::Never);
    stress(
        &settings(Kind::PyftpdlibProcesses, Tls::Clear),
        Refused::Never,
    );
}

#[test]
fn f3_stress_one_process() {
    // Not the processes forked in advance: those of pyftpdlib 1.5.7 share one epoll instance and
    // lose each other's events, guard or not.
    for kind in [Kind::Pyftpdlib, Kind::PyftpdlibThreads] {
        stress(&settings(kind, Tls::Clear), Refused::Never);
        stress(&settings(kind, Tls::Explicit), Refused::Never);
    }
}

#[test]
fn f1_stress_under_tls() {
    stress(&settings(Kind::Vsftpd, Tls::Explicit), Refused::Never);
    stress(&settings(Kind::Proftpd, Tls::Explicit), Refused::Never);
}

/// F3, P4: any thread of libunftp carries any session on, so it is refused as soon as one of them
/// has read two sessions. Before and after, nobody is named wrongly, and a stranger reaches nothing.
#[test]
fn f3_p4_stress_libunftp() {
    for tls in [Tls::Clear, Tls::Explicit] {
        let (stage, _guard) = stress(&settings(Kind::Libunftp, tls), Refused::Sometimes);
        let sandbox = &stage.sandbox;
        let mut ftp = sandbox
            .client()
            .enter(|| stage.login(Family::V4))
            .expect("namespace")
            .expect("login");
        let announced = ftp.passive(Commands::Classic).expect("PASV");
        let stranger = attack::knock(sandbox.thief(), announced).expect("a try");
        assert!(matches!(stranger, Answer::Silent), "{stranger:?}");
    }
}

/// F3: a shape that must be refused. Nobody is named wrongly, and honest clients are served.
#[test]
fn f3_stress_reactor() {
    for tls in [Tls::Clear, Tls::Implicit] {
        stress(&settings(Kind::Reactor, tls), Refused::Always);
    }
}

/// F3, P4: a client that is slow on purpose gets the level of its own listener lowered, and
/// nobody else's.
#[test]
fn f3_one_slow_client_does_not_lower_the_level_of_the_others() {
    let stage = stage(settings(Kind::Pyftpdlib, Tls::Clear));
    // A folder that takes a while to list.
    for number in 0..500 {
        let path = stage.ftpd.root().join(format!("file-{number}"));
        fs::write(path, "").expect("a file");
    }
    let guard = guard_for(&stage);
    let login = |host: &Host| -> FtpClient {
        host.enter(|| stage.login(Family::V4))
            .expect("namespace")
            .expect("login")
    };
    let mut honest = login(stage.sandbox.client());
    let mut slow = login(stage.sandbox.third());
    honest.expect("NOOP", 200).expect("a second session");
    // One read takes them all, and listen() comes more than a second later: the ftpd is stopped for
    // that long on the way, as a really busy one would be.
    let busy = format!("{}PASV", "STAT /\r\n".repeat(1_000));
    slow.send(&busy).expect("sent");
    slow.reply().expect("it has read them");
    let ftpd = Pid::from_raw(stage.ftpd.id().cast_signed());
    kill(ftpd, Signal::SIGSTOP).expect("it stops for a while");
    thread::sleep(Duration::from_millis(1_500));
    kill(ftpd, Signal::SIGCONT).expect("it goes on");
    guard
        .wait_for_event("of the late listener", |event| {
            is_kind(event, "unattributed")
        })
        .expect("it was slow enough");
    let content = stage
        .sandbox
        .client()
        .enter(|| honest.retrieve_passive(SMALL_FILE, Commands::Classic))
        .expect("namespace")
        .expect("the file");
    assert_eq!(content.len(), 100);
    let address = stage.sandbox.client().address(Family::V4).to_string();
    let made = guard
        .wait_for_event("of the honest client's pinhole", |event| {
            is_kind(event, "pinhole-made") && event["client"] == address
        })
        .expect("event");
    assert_eq!(made["origin"], "candidate");
    let status = guard.status().expect("status");
    let marked = status["unsafe_processes"].as_array().map(Vec::len);
    assert_eq!(marked, Some(0), "{status:#}");
}

/// P4: once it is refused, a reactor's listeners admit those who hold control connections, and
/// where the reply can be read, the client it was for only. Nobody else, ever.
#[test]
fn p4_a_reactor_gets_no_pinhole_from_the_kernel() {
    for tls in [Tls::Clear, Tls::Implicit] {
        let stage = stage(settings(Kind::Reactor, tls));
        let guard = guard_for(&stage);
        let sandbox = &stage.sandbox;
        let login = |host: &Host| -> FtpClient {
            host.enter(|| stage.login(Family::V4))
                .expect("namespace")
                .expect("login")
        };
        let mut other = login(sandbox.third());
        let mut ftp = login(sandbox.client());
        other.expect("NOOP", 200).expect("a second session");
        let seen = origins(&guard).len();
        let announced: SocketAddr = ftp.passive(Commands::Classic).expect("PASV");
        guard
            .wait_for_event("of the refusal", |event| is_kind(event, "unattributed"))
            .expect("event");
        let expected = if matches!(tls, Tls::Clear) {
            guard
                .wait_for_event("of the text", |event| {
                    is_kind(event, "pinhole-made") && event["origin"] == "text"
                })
                .expect("the reply is read");
            vec!["text".to_owned()]
        } else {
            Vec::new()
        };
        let knock = |host| attack::knock(host, announced).expect("a try");
        let stranger = knock(sandbox.thief());
        assert!(
            matches!(stranger, Answer::Silent),
            "{stranger:?}\n{}",
            guard.log()
        );
        // A client that is no stranger, but not the one the port is for.
        if matches!(tls, Tls::Clear) {
            let peer = knock(sandbox.third());
            assert!(matches!(peer, Answer::Silent), "{peer:?}\n{}", guard.log());
        }
        let content = sandbox
            .client()
            .enter(|| {
                let data = client::connect(announced)?;
                anyhow::ensure!(data.syns_lost == 0);
                ftp.receive(SMALL_FILE, data.stream)
            })
            .expect("namespace")
            .unwrap_or_else(|error| panic!("{error:#}\n{}", guard.log()));
        assert_eq!(content.len(), 100);
        assert_eq!(origins(&guard)[seen..], expected, "{}", guard.log());
        let status = guard.status().expect("status");
        assert_eq!(
            status["unsafe_processes"].as_array().map(Vec::len),
            Some(1),
            "{status:#}"
        );
    }
}

#[test]
fn wrong_pinholes_are_found() {
    let (a, b): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
    let told = [(a, 1), (b, 2), (a, 2)];
    assert!(wrong(&[(a, 2), (b, 2), (a, 1)], &told).is_empty());
    assert_eq!(wrong(&[(b, 1)], &told), [(b, 1)]);
    assert_eq!(wrong(&[(a, 1), (a, 1)], &told), [(a, 1)]);
}
