//! VLAN devices and bonds, which the kernels of most build machines lack (rule I5).

use std::{
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use ftpguard_tests::{
    Family, FtpClient, Host,
    attack::{self, Answer},
    client::Commands,
    dress::{Dress, Ends},
    ftpd::{CONTROL_PORT, FILE, Kind, Settings},
    guard::Options,
    namespace::Namespace,
    raw::{RawWire, Reply, hardware_address},
    sandbox::INTERFACE,
    scenario::Stage,
};

use crate::{checks::test, scenes::start};

/// The VLAN device, of VLAN 7.
const VLAN: &str = "vlan7";
const ADD_VLAN: &str = "link add link eth0 name vlan7 type vlan id 7";

/// Addresses of the server, the client and the thief in VLAN 7.
const ADDRESSES: [Ipv4Addr; 3] = [
    Ipv4Addr::new(192, 0, 2, 1),
    Ipv4Addr::new(192, 0, 2, 2),
    Ipv4Addr::new(192, 0, 2, 3),
];

/// Tags by which a frame reaches VLAN 7: Linux takes off those of VLAN 0 before.
const TO_VLAN_7: [(&str, &[u8]); 5] = [
    ("802.1Q", &[0x81, 0, 0, 7]),
    ("802.1Q with priority 7", &[0x81, 0, 0xe0, 7]),
    ("VLAN 0 by 802.1Q, 802.1Q", &[0x81, 0, 0, 0, 0x81, 0, 0, 7]),
    (
        "VLAN 0 by 802.1ad, 802.1Q",
        &[0x88, 0xa8, 0, 0, 0x81, 0, 0, 7],
    ),
    (
        "VLAN 0 twice, 802.1Q",
        &[0x88, 0xa8, 0, 0, 0x81, 0, 0, 0, 0x81, 0, 0, 7],
    ),
];

/// Where the guard sits: `--iface` and `--xdp-mode`.
const ON_VLANS: [(&[&str], &str); 5] = [
    (&[INTERFACE], "native"),
    (&[INTERFACE], "generic"),
    (&[INTERFACE], "tc"),
    (&[VLAN], "auto"),
    (&[], "auto"),
];

/// Clients and thief in a VLAN of the server's interface.
pub(crate) fn vlan(name: &str) -> Result<()> {
    let stage = Stage::new(Settings::unchecked(Kind::Vsftpd))?;
    let hosts = [
        stage.sandbox.server(),
        stage.sandbox.client(),
        stage.sandbox.thief(),
    ];
    for (host, address) in hosts.into_iter().zip(ADDRESSES) {
        ip(host, ADD_VLAN)?;
        ip(host, &format!("address add {address}/24 dev {VLAN}"))?;
        ip(host, &format!("link set {VLAN} up"))?;
    }
    let control = SocketAddr::from((ADDRESSES[0], CONTROL_PORT));
    test(&format!("{name}: no guard, the thief wins"), || {
        let announced = Announced::new(&stage, control)?;
        let theft = announced.theft(&stage)?;
        ensure!(matches!(theft, Answer::Connected(_)), "{theft:?}");
        for (tags, reply) in knock_tagged(&stage, &Announced::new(&stage, control)?)? {
            ensure!(reply == Reply::Accepted, "{tags}: {reply:?}");
        }
        Ok(())
    })?;
    for (interfaces, xdp_mode) in ON_VLANS {
        let what = format!("{name}, {xdp_mode} on {}", named(interfaces));
        let guard = start(&what, &stage, &options(interfaces, xdp_mode))?;
        test(&format!("{what}: silence for the thief"), || {
            let announced = Announced::new(&stage, control)?;
            let theft = announced.theft(&stage)?;
            ensure!(matches!(theft, Answer::Silent), "{theft:?}");
            announced.transfer(&stage)?;
            let announced = Announced::new(&stage, control)?;
            for (tags, reply) in knock_tagged(&stage, &announced)? {
                println!("{what}, {tags}: {reply:?}");
                ensure!(reply != Reply::Accepted, "{tags}: {reply:?}");
            }
            announced.transfer(&stage)
        })
        .inspect_err(|_| println!("{}", guard.log()))?;
        test(&format!("{what}: priority tags"), || dressed(&stage))
            .inspect_err(|_| println!("{}", guard.log()))?;
    }
    Ok(())
}

/// The server has two cables, of which one is in use.
pub(crate) fn bond(name: &str) -> Result<()> {
    const CABLES: [&str; 2] = [INTERFACE, "eth1"];
    let stage = Stage::new(Settings::unchecked(Kind::Vsftpd))?;
    let server = stage.sandbox.server();
    stage.sandbox.plug(server, CABLES[1])?;
    ip(
        server,
        "link add bond0 type bond mode active-backup miimon 20",
    )?;
    for cable in CABLES {
        ip(server, &format!("link set {cable} down"))?;
        ip(server, &format!("link set {cable} master bond0"))?;
    }
    ip(server, "link set bond0 up")?;
    for (family, length) in [(Family::V4, 24), (Family::V6, 64)] {
        let address = server.address(family);
        // IPv6 addresses go with the link, the IPv4 address stays.
        let _ = server.ip(&[
            "address",
            "flush",
            "dev",
            INTERFACE,
            "to",
            &address.to_string(),
        ])?;
        ip(server, &format!("address add {address}/{length} dev bond0"))?;
    }
    let controls = Family::ALL.map(|family| server.socket(family, CONTROL_PORT));
    test(&format!("{name}: no guard, the thief wins"), || {
        for control in controls {
            let announced = Announced::new(&stage, control)?;
            let theft = announced.theft(&stage)?;
            ensure!(matches!(theft, Answer::Connected(_)), "{theft:?}");
        }
        Ok(())
    })?;
    let places: [(&[&str], &str); 3] = [
        (&["bond0"], "auto"),
        (&["eth0", "eth1"], "tc"),
        (&[], "auto"),
    ];
    for (interfaces, xdp_mode) in places {
        let what = format!("{name}, {xdp_mode} on {}", named(interfaces));
        let guard = start(&what, &stage, &options(interfaces, xdp_mode))?;
        for cut in CABLES {
            test(&format!("{what}: guarded while {cut} is cut"), || {
                ip(server, &format!("link set {cut} down"))?;
                let raced = controls.into_iter().try_for_each(|control| {
                    let announced = Announced::new(&stage, control)?;
                    let theft = announced.theft(&stage)?;
                    ensure!(matches!(theft, Answer::Silent), "{theft:?}");
                    announced.transfer(&stage)
                });
                ip(server, &format!("link set {cut} up"))?;
                raced
            })
            .inspect_err(|_| println!("{}", guard.log()))?;
        }
    }
    Ok(())
}

fn options(interfaces: &[&str], xdp_mode: &'static str) -> Options {
    Options {
        interfaces: interfaces.iter().map(|name| (*name).to_owned()).collect(),
        xdp_mode,
        ..Options::default()
    }
}

fn named(interfaces: &[&str]) -> String {
    if interfaces.is_empty() {
        "all".to_owned()
    } else {
        interfaces.join("+")
    }
}

fn ip(host: &Namespace, command: &str) -> Result<()> {
    let words: Vec<&str> = command.split(' ').collect();
    host.ip(&words)?.success(command)?;
    Ok(())
}

/// A session, and the port that was announced to it.
struct Announced {
    session: FtpClient,
    port: SocketAddr,
}

impl Announced {
    /// Where a link has just changed, the first try may find nobody.
    fn new(stage: &Stage, control: SocketAddr) -> Result<Self> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let client = stage.sandbox.client();
        let mut session = loop {
            match client.enter(|| FtpClient::login(control))? {
                Ok(session) => break session,
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
        };
        let port = session.passive(Commands::Extended)?;
        Ok(Self { session, port })
    }

    fn theft(&self, stage: &Stage) -> Result<Answer> {
        attack::knock(stage.sandbox.thief(), self.port)
    }

    /// The client's own transfer.
    fn transfer(mut self, stage: &Stage) -> Result<()> {
        let client = stage.sandbox.client();
        let content = client.enter(|| -> Result<Vec<u8>> {
            let data = ftpguard_tests::client::connect(self.port).context("honest")?;
            self.session.receive(FILE, data.stream)
        })??;
        ensure!(stage.is_file(&content), "the file is damaged");
        Ok(())
    }
}

/// What the thief gets for SYNs that he tags himself.
fn knock_tagged(stage: &Stage, announced: &Announced) -> Result<Vec<(&'static str, Reply)>> {
    let (server, thief) = (stage.sandbox.server(), stage.sandbox.thief());
    let wire = RawWire::open(thief)?;
    let hardware = [hardware_address(thief)?, hardware_address(server)?];
    let plain = plain()?;
    let sources = 21_000_u16..;
    for (source, (_, tags)) in sources.clone().zip(TO_VLAN_7) {
        let ends = Ends {
            hardware,
            addresses: [ADDRESSES[2].into(), ADDRESSES[0].into()],
            ports: [source, announced.port.port()],
        };
        for mut frame in plain.frames(&ends) {
            frame.splice(12..12, tags.iter().copied());
            wire.send(&frame)?;
        }
    }
    let replies = wire.replies(Duration::from_secs(1));
    Ok(sources
        .zip(TO_VLAN_7)
        .map(|(source, (name, _))| {
            let reply = replies.get(&source).copied().unwrap_or(Reply::Silent);
            (name, reply)
        })
        .collect())
}

fn plain() -> Result<Dress> {
    Dress::all()
        .into_iter()
        .find(|dress| dress.family == Family::V4 && dress.name == "plain")
        .context("no plain dress")
}

/// Every dress, on the parent, whose own traffic has no tags but those of VLAN 0.
fn dressed(stage: &Stage) -> Result<()> {
    let (server, thief) = (stage.sandbox.server(), stage.sandbox.thief());
    let ports = Family::ALL.map(|family| Announced::new(stage, control_of(server, family)));
    let [v4, v6] = ports;
    let (v4, v6) = (v4?, v6?);
    let wire = RawWire::open(thief)?;
    let hardware = [hardware_address(thief)?, hardware_address(server)?];
    let sources = 22_000_u16..;
    let dresses = Dress::all();
    for (source, dress) in sources.clone().zip(&dresses) {
        let port = match dress.family {
            Family::V4 => v4.port.port(),
            Family::V6 => v6.port.port(),
        };
        let ends = Ends {
            hardware,
            addresses: [thief, server].map(|host| host.address(dress.family)),
            ports: [source, port],
        };
        for frame in dress.frames(&ends) {
            wire.send(&frame)?;
        }
    }
    let replies = wire.replies(Duration::from_secs(1));
    for (source, dress) in sources.zip(&dresses) {
        if replies.get(&source) == Some(&Reply::Accepted) {
            bail!("{} over {} got in", dress.name, dress.family.label());
        }
    }
    v4.transfer(stage)?;
    v6.transfer(stage)
}

fn control_of(server: &Host, family: Family) -> SocketAddr {
    server.socket(family, CONTROL_PORT)
}
