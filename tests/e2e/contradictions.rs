//! Replies that say something else than the sockets (rules P1, P2, R7, R8, R9): sockets win, no
//! address is taken from text, and an event tells.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    thread,
    time::Duration,
};

use ftpguard_tests::{
    Family, FtpClient, Guard, Sandbox,
    attack::{self, Answer},
    client::{self, Commands},
    ftpd::{CONTROL_PORT, FILE, Kind, Settings},
    guard::Options,
    sandbox::Host,
    scripted::{CONTENT, Scripted},
};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::help::{self, is_kind};

/// Within the range; nobody listens there, as this server chooses others.
const OTHER: u16 = 50_040;

/// The scripted server in a sandbox.
pub(crate) struct Bed {
    _server: Scripted,
    pub(crate) sandbox: Sandbox,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let sandbox = Sandbox::new().expect("a sandbox");
        let server = Scripted::start(&sandbox).expect("the server");
        Self {
            _server: server,
            sandbox,
        }
    }

    pub(crate) fn guard(&self, tracking: &'static str) -> Guard {
        self.guard_with(Options {
            tracking,
            ..Options::default()
        })
    }

    pub(crate) fn guard_with(&self, options: Options) -> Guard {
        let options = Options {
            passive_ports: Some(50_000..=50_063),
            ..options
        };
        Guard::start(&self.sandbox, &options).expect("ftpguard becomes ready")
    }

    fn login(&self) -> FtpClient {
        self.login_from(self.sandbox.client())
    }

    pub(crate) fn login_from(&self, host: &Host) -> FtpClient {
        let server = self.sandbox.server().socket(Family::V4, CONTROL_PORT);
        host.enter(|| FtpClient::login(server))
            .expect("namespace")
            .expect("login")
    }

    fn server(&self, port: u16) -> SocketAddr {
        self.sandbox.server().socket(Family::V4, port)
    }
}

/// Asks for a port; the reply names this address and port, whatever the server listens on.
fn claim(ftp: &mut FtpClient, ip: IpAddr, port: u16) {
    let ip = ip.to_string().replace('.', ",");
    let [high, low] = port.to_be_bytes();
    ftp.expect(&format!("SITE MODE claim {ip},{high},{low}"), 200)
        .expect("MODE");
    ftp.expect("PASV", 227).expect("PASV");
}

pub(crate) fn is_silent(host: &Host, target: SocketAddr) -> bool {
    let answer = attack::knock(host, target).expect("a try");
    matches!(answer, Answer::Silent)
}

/// The ports of the pinholes that were made.
fn pinholes(guard: &Guard) -> Vec<Value> {
    let events = guard.events().into_iter();
    let made = events.filter(|event| is_kind(event, "pinhole-made"));
    made.map(|event| event["port"].clone()).collect()
}

/// Text tracking: a port without a listener, and one below 1024 where there is one.
#[test]
fn p1_r8_a_phantom_port_gets_nothing() {
    let bed = Bed::new();
    let guard = bed.guard("text");
    let client = bed.sandbox.client();
    let own = bed.sandbox.server().address(Family::V4);
    let mut ftp = bed.login();
    for (port, why) in [(OTHER, "no-listener"), (CONTROL_PORT, "low-port")] {
        claim(&mut ftp, own, port);
        let event = guard
            .wait_for_event("of the phantom port", |event| {
                is_kind(event, "phantom-port") && event["port"] == port
            })
            .expect("event");
        assert_eq!(event["reason"], why, "{event}");
    }
    assert!(is_silent(client, bed.server(OTHER)), "{}", guard.log());
    assert!(pinholes(&guard).is_empty(), "{}", guard.log());
    // An honest reply of the same session.
    ftp.expect("SITE MODE whole", 200).expect("MODE");
    let announced = ftp.passive(Commands::Classic).expect("PASV");
    let content = client
        .enter(|| ftp.receive(FILE, client::connect(announced)?.stream))
        .expect("namespace")
        .unwrap_or_else(|error| panic!("{error:#}\n{}", guard.log()));
    assert_eq!(content, CONTENT);
}

/// Socket tracking, where only the replies tell whom a process listens for: a reply that names a
/// port below 1024 opens nothing, though the process listens there.
#[test]
fn p3_r8_a_low_port_that_only_text_can_attribute() {
    let stage = help::stage(Settings::of(Kind::Reactor));
    let sandbox = &stage.sandbox;
    let client = sandbox.client();
    let low = sandbox.server().socket(Family::V4, 1023);
    let login = |host: &Host| host.enter(|| stage.login(Family::V4)).expect("namespace");
    let listen_low = |ftp: &mut FtpClient| {
        ftp.expect("SITE PLACE 1023", 200).expect("PLACE");
        assert_eq!(ftp.passive(Commands::Classic).expect("PASV"), low);
    };
    let mut ftp = login(client).expect("login");
    listen_low(&mut ftp);
    let answer = attack::knock(client, low).expect("a try");
    assert!(matches!(answer, Answer::Connected(_)), "without a guard");
    drop(ftp);

    let guard = help::guard(&stage);
    let mut ftp = login(client).expect("login");
    let _other = login(sandbox.thief()).expect("login");
    // An honest port: from here on the guard knows that sockets do not tell.
    let announced = ftp.passive(Commands::Classic).expect("PASV");
    guard
        .wait_for_event("of the pinhole", |event| {
            is_kind(event, "pinhole-made") && event["port"] == announced.port()
        })
        .expect("event");
    listen_low(&mut ftp);
    let event = guard
        .wait_for_event("of the low port", |event| is_kind(event, "phantom-port"))
        .expect("event");
    assert_eq!(
        (&event["reason"], &event["port"]),
        (&"low-port".into(), &1023.into())
    );
    assert!(is_silent(client, low), "{}", guard.log());
    assert_eq!(pinholes(&guard), [announced.port()], "{}", guard.log());
}

/// Socket tracking: the reply names another port than the one that the session's ftpd opened.
#[test]
fn p1_r9_sockets_win_where_text_contradicts_them() {
    let bed = Bed::new();
    let guard = bed.guard("socket");
    let client = bed.sandbox.client();
    let mut ftp = bed.login();
    claim(&mut ftp, bed.sandbox.server().address(Family::V4), OTHER);
    let event = guard
        .wait_for_event("of the contradiction", |event| {
            is_kind(event, "text-mismatch")
        })
        .expect("event");
    assert_eq!(event["announced"], OTHER, "{event}");
    guard.settle().expect("it is read");
    let made = pinholes(&guard);
    assert_eq!(made, [event["port"].clone()], "{}", guard.log());
    assert!(is_silent(client, bed.server(OTHER)), "{}", guard.log());
    let port = event["port"].as_u64().expect("a port");
    let real = bed.server(port.try_into().expect("a port"));
    assert!(is_silent(bed.sandbox.thief(), real), "{}", guard.log());
    let content = client.enter(|| ftp.receive(FILE, client::connect(real)?.stream));
    assert_eq!(content.expect("namespace").expect("the file"), CONTENT);
}

/// Text tracking: the reply names somebody else's address. The pinhole is at this host's and for
/// the session's client all the same.
#[test]
fn p2_r7_no_address_is_taken_from_text() {
    let bed = Bed::new();
    let client = bed.sandbox.client();
    let third = bed.sandbox.third().address(Family::V4);
    let guard = bed.guard("text");
    let mut ftp = bed.login();
    // The only port that is left to the server.
    let fixed = 50_031;
    let taken: Vec<_> = (50_000..fixed)
        .map(|port| {
            let listen = || TcpListener::bind(bed.server(port));
            bed.sandbox.server().enter(listen).expect("namespace")
        })
        .collect();
    assert!(taken.iter().all(Result::is_ok), "all others are taken");
    claim(&mut ftp, third, fixed);
    let event = guard
        .wait_for_event("of the pinhole", |event| is_kind(event, "pinhole-made"))
        .expect("event");
    let own = bed.sandbox.server().address(Family::V4);
    assert_eq!(event["server"], own.to_string(), "{event}");
    let is_hint = |event: &Value| event["remark"] == "address-mismatch";
    guard
        .wait_for_event("of the address", is_hint)
        .expect("event");
    assert_eq!(
        event["client"],
        client.address(Family::V4).to_string(),
        "{event}"
    );
    assert!(
        is_silent(bed.sandbox.third(), bed.server(fixed)),
        "{}",
        guard.log()
    );
    let connect = || client::connect(bed.server(fixed));
    let data = client.enter(connect).expect("namespace").expect("its port");
    let content = client.enter(|| ftp.receive(FILE, data.stream));
    assert_eq!(content.expect("namespace").expect("the file"), CONTENT);
    // It is told once for each address, and an own one is none.
    for (count, ip) in [(2, third), (3, own)] {
        claim(&mut ftp, ip, fixed);
        let made = (0..150).any(|_| {
            thread::sleep(Duration::from_millis(20));
            pinholes(&guard).len() >= count
        });
        assert!(made, "{}", guard.log());
    }
    let events = guard.events();
    let hints = events.iter().filter(|event| is_hint(event)).count();
    assert_eq!(hints, 1, "{}", guard.log());
}

/// R7: a server behind address translation names its public address, as it is meant to. Where the
/// configuration says so, nothing is hinted at.
#[test]
fn r7_a_configured_public_address_is_no_mismatch() {
    let public = Ipv4Addr::new(192, 0, 2, 77);
    let stage = help::stage(Settings {
        public_address: Some(public),
        ..Settings::of(Kind::Vsftpd)
    });
    let client = stage.sandbox.client();
    let is_hint = |event: &Value| event["remark"] == "address-mismatch";
    let transfer = |guard: &Guard| {
        let content = client.enter(|| {
            let mut ftp = stage.login(Family::V4).expect("login");
            let reply = ftp.expect("PASV", 227).expect("PASV");
            assert!(reply.text.contains("(192,0,2,77,"), "{}", reply.text);
            let content = ftp
                .retrieve_passive(FILE, Commands::Classic)
                .unwrap_or_else(|error| panic!("{error:#}\n{}", guard.log()));
            // Asking makes the guard read what it has, of sessions that are open.
            let rows = guard.list("sessions").expect("sessions");
            let latest = rows[0]["latest"].as_str().unwrap_or_default();
            assert!(latest.contains("192.0.2.77"), "{rows:#}");
            content
        });
        assert!(stage.is_file(&content.expect("namespace")));
    };
    let guard = help::guard(&stage);
    transfer(&guard);
    guard
        .wait_for_event("of the address", is_hint)
        .expect("event");
    drop(guard);
    let guard = help::guard_with(
        &stage,
        &Options {
            more: vec!["--public-address".to_owned(), public.to_string()],
            ..Options::default()
        },
    );
    transfer(&guard);
    assert!(!guard.events().iter().any(is_hint), "{}", guard.log());
}

/// C1: counted, and nothing more: the ftpd's answer and the connection are its own affair.
#[test]
fn c1_malformed_arguments_are_counted() {
    let bed = Bed::new();
    let guard = bed.guard("socket");
    let mut ftp = bed.login();
    let counted = || {
        let status = guard.status().expect("status");
        status["totals"]["malformed_arguments"].clone()
    };
    ftp.expect("PORT 10,0,0,1,4,1", 200).expect("PORT");
    assert_eq!(counted(), 0);
    for (line, code) in [
        ("PORT 10,0,0,1,4", 200),
        ("PORT +10,0,0,1,4,1", 200),
        ("EPRT |1|10.0.0.1|70000|", 500),
    ] {
        ftp.expect(line, code).expect("an answer");
    }
    assert_eq!(counted(), 3);
    let stopped = guard.stop(Signal::SIGTERM).expect("it stops");
    assert_eq!(stopped.totals["malformed_arguments"], 3);
}
