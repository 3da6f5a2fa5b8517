//! An FTP proxy in front of an ftpd (rule O9): each is guarded where it runs, both data sides.

use std::{net::IpAddr, ops::RangeInclusive, thread, time::Duration};

use ftpguard_common::verdict::Reason;
use ftpguard_tests::{
    Family, FtpClient, Guard,
    attack::{self, Answer, Hammer},
    client::{self, Commands},
    ftpd::{CONTROL_PORT, FILE, Kind, Settings},
    guard::Options,
    proxy::FtpProxy,
    sandbox::Host,
    scenario::{AT_ONCE, Stage},
    target::Target,
    wire::SynWatch,
};

use crate::help::stage;

/// Few, so that thieves who try all of them are always there first.
const PORTS: RangeInclusive<u16> = 50_000..=50_003;

/// How often the thieves try before nothing is proven: the proxy is on a quick way to its ftpd.
const ROUNDS: usize = 40;

/// How far away the client is.
const AWAY: Duration = Duration::from_millis(2);

/// How the client, and how the proxy, opens data connections.
const WAYS: [(bool, &str); 2] = [(true, "passive"), (false, "passive")];

fn login(stage: &Stage) -> anyhow::Result<FtpClient> {
    let third = stage.sandbox.third().socket(Family::V4, CONTROL_PORT);
    FtpClient::login(third)
}

fn fetch(ftp: &mut FtpClient, passive: bool) -> anyhow::Result<Vec<u8>> {
    if passive {
        let announced = ftp.passive(Commands::Classic)?;
        // A client next door is nearly always faster than any thief.
        thread::sleep(AWAY);
        let data = client::connect(announced)?;
        ftp.receive(FILE, data.stream)
    } else {
        ftp.retrieve_active(FILE, Commands::Classic)
    }
}

/// A guard on each of the two hosts. The proxy may reach its ftpd, and nothing else may.
fn guards(stage: &Stage) -> [Guard; 2] {
    let sandbox = &stage.sandbox;
    let options = Options {
        passive_ports: Some(PORTS),
        ..Options::default()
    };
    let ftpd = Guard::start(sandbox, &options).expect("the ftpd's guard");
    let server = sandbox.server().address(Family::V4);
    let options = Options {
        allow_connect: vec![server.to_string()],
        ..options
    };
    let proxy = Guard::start_on(sandbox, sandbox.third(), sandbox.proxy_cgroup(), &options)
        .expect("the proxy's guard");
    [ftpd, proxy]
}

fn proxied_stage() -> Stage {
    stage(Settings {
        passive_ports: PORTS,
        ..Settings::unchecked(Kind::Vsftpd)
    })
}

/// Transfers up to the first that fails, while thieves hammer the passive ports of these hosts.
/// How many arrived, and how often a thief got in at each.
fn hammered<const N: usize>(
    stage: &Stage,
    hosts: [&Host; N],
    passive: bool,
    wanted: usize,
) -> (usize, [u64; N]) {
    let sandbox = &stage.sandbox;
    let hammer = |address: IpAddr| Hammer::start(sandbox.thief(), address, PORTS).expect("a thief");
    let hammers = hosts.map(|host| hammer(host.address(Family::V4)));
    let arrived = sandbox.client().enter(|| {
        let mut ftp = login(stage).expect("login");
        (0..wanted)
            .take_while(|_| fetch(&mut ftp, passive).is_ok_and(|content| stage.is_file(&content)))
            .count()
    });
    (arrived.expect("namespace"), hammers.map(Hammer::stop))
}

/// O9, I1, T2: on both data sides a thief gets in without guards, and never with them.
#[test]
fn o9_both_data_sides_of_a_proxy_are_guarded() {
    let wanted = 30;
    let stage = proxied_stage();
    let [ftpd, front] = [stage.sandbox.server(), stage.sandbox.third()];
    for (passive, upstream) in WAYS {
        let proxy = FtpProxy::start(&stage.sandbox, upstream, &PORTS).expect("the proxy");
        // One host at a time: a thief at the proxy would end the transfer before the ftpd's turn.
        let stolen_at = |host| {
            (0..ROUNDS).any(|_| {
                let (arrived, [thief]) = hammered(&stage, [host], passive, wanted);
                println!("client passive {passive}, no guard: {arrived} arrived, thief {thief}");
                thief > 0
            })
        };
        assert!(stolen_at(ftpd), "nothing is proven at the ftpd");
        assert!(
            !passive || stolen_at(front),
            "nothing is proven at the proxy"
        );

        let guards = guards(&stage);
        let (arrived, thieves) = hammered(&stage, [ftpd, front], passive, wanted);
        println!("client passive {passive}, guarded: {arrived} arrived, thieves {thieves:?}");
        let log = || {
            let [ftpd, proxy] = guards.each_ref().map(Guard::log);
            format!("{ftpd}\n{proxy}")
        };
        assert_eq!(
            (arrived, thieves),
            (wanted, [0, 0]),
            "{}\n{}",
            log(),
            proxy.log()
        );
        for guard in &guards {
            let denied = guard.counter(Reason::NoPinhole).expect("status")
                + guard.counter(Reason::ClosedPort).expect("status");
            assert!(denied > 0, "{}", guard.log());
        }
    }
}

/// O4, O9: through the proxy nobody is reached but the client and the ftpd behind it.
#[test]
fn o9_a_proxy_cannot_be_made_to_bounce() {
    let stage = proxied_stage();
    let sandbox = &stage.sandbox;
    let target = Target::start(sandbox.thief(), Family::V4, 0).expect("target");
    let _proxy = FtpProxy::start(sandbox, "passive", &PORTS).expect("the proxy");
    let bounce = || {
        sandbox
            .client()
            .enter(|| {
                let mut ftp = login(&stage)?;
                let reply = ftp.active(target.address(), Commands::Classic)?;
                if reply.code == 200 {
                    return ftp.command(&format!("RETR {FILE}"));
                }
                Ok(reply)
            })
            .expect("namespace")
    };
    bounce().expect("a reply");
    assert_eq!(target.wait_for_accepted(1), 1, "without a guard");
    let guards = guards(&stage);
    let watch = SynWatch::start(sandbox.third()).expect("watch");
    let reply = bounce().expect("a reply");
    assert!(matches!(reply.code, 400..600), "{reply:?}");
    assert!(reply.took < AT_ONCE, "{reply:?}");
    let syns = watch.stop().expect("watch");
    assert!(!syns.contains(&target.address()), "{syns:?}");
    assert_eq!(target.accepted(), 1);
    let [_, proxy] = &guards;
    proxy
        .wait_for_counter(Reason::ConnectToStranger, 1)
        .expect("it is counted");
}

/// O9: a stranger is not answered at the port that the proxy announced, and the client is.
#[test]
fn o9_strangers_first_at_the_proxy() {
    let stage = proxied_stage();
    let sandbox = &stage.sandbox;
    let _proxy = FtpProxy::start(sandbox, "passive", &PORTS).expect("the proxy");
    let guards = guards(&stage);
    let content = sandbox.client().enter(|| {
        let mut ftp = login(&stage).expect("login");
        let announced = ftp.passive(Commands::Classic).expect("PASV");
        for host in [sandbox.thief(), sandbox.server()] {
            let answer = attack::knock(host, announced).expect("a try");
            assert!(matches!(answer, Answer::Silent), "{answer:?}");
        }
        ftp.retrieve_announced(FILE, announced).expect("connect")
    });
    assert!(stage.is_file(&content.expect("namespace")));
    for guard in &guards {
        let status = guard.status().expect("status");
        assert_eq!(status["ftpds"][0]["level"], "exact", "{status:#}");
    }
}

/// O9, not kept in full: where the proxy has its ftpd connect to it, the guard takes the proxy's
/// listener for one that waits for the client, and the ftpd is kept out. It fails closed.
#[test]
fn o9_a_proxy_that_listens_for_its_ftpd_gets_nothing() {
    let stage = proxied_stage();
    let sandbox = &stage.sandbox;
    let _proxy = FtpProxy::start(sandbox, "active", &PORTS).expect("the proxy");
    let transfer = || {
        sandbox
            .client()
            .enter(|| fetch(&mut login(&stage)?, false))
            .expect("namespace")
    };
    let content = transfer().expect("without a guard");
    assert!(stage.is_file(&content));
    let [_ftpd, proxy] = guards(&stage);
    assert!(transfer().is_err());
    let server = sandbox.server().address(Family::V4).to_string();
    proxy
        .wait_for_event("of the ftpd that was kept out", |event| {
            event["event"] == "syn-denied" && event["client"] == server
        })
        .expect("event");
}
