//! The connect() hooks. The kernel runs them for real calls only, so this process is the ftpd:
//! for a moment it sits in a cgroup of its own, to which they are attached.

use std::{
    fs,
    io::ErrorKind,
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process,
    time::Duration,
};

use ftpguard::kernel::{Destination, Kernel, Settings};
use ftpguard_common::{
    abi::{
        Active, Admission, Advice, Endpoint, Mode, PinholeKey, Policy, Process, Session,
        SessionKey, advice_flags,
    },
    net::Port,
    verdict::{Reason, Verdict},
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::bed::{address, settings};

/// How far the client's side was captured.
const SEQUENCE: u32 = 4_711;
/// The port that the client announced, and another one.
const ANNOUNCED: u16 = 5_000;
const OTHER: u16 = 5_001;
/// The client's port of the control connection.
const CONTROL_SOURCE: u16 = 1_000;

#[test]
fn connect_calls_of_an_ftpd_o1_o2_o3_o10_c5() {
    let room = Room::enter();
    let mut bed = Bed::new(&room);
    let narrow = |active_port, client_sequence| Advice {
        active_port: Port::new(active_port),
        flags: 0,
        client_sequence,
    };
    let epsv_all = |client_sequence| Advice {
        flags: advice_flags::EPSV_ALL,
        ..narrow(0, client_sequence)
    };
    // IPv4 and IPv6, a client and a stranger on this host.
    for (client, stranger) in [("127.0.0.9", "127.0.0.8"), ("::1", "fe80::1")] {
        let session = bed.serve(client);
        bed.advise(&session, None);
        bed.check(client, OTHER, Some(Reason::ConnectToPeer));
        bed.check(client, 25, Some(Reason::ConnectToLowPort));
        bed.check(client, CONTROL_SOURCE, Some(Reason::ConnectToControlSource));
        bed.check(stranger, OTHER, Some(Reason::ConnectToStranger));
        // Narrowed to one port (rule O10).
        bed.advise(&session, Some(narrow(ANNOUNCED, SEQUENCE)));
        bed.check(client, ANNOUNCED, Some(Reason::ConnectToPeer));
        bed.check(client, OTHER, Some(Reason::ConnectToOtherPort));
        bed.check(client, CONTROL_SOURCE, Some(Reason::ConnectToControlSource));
        // Not while the client has said more than was read (rule O5).
        bed.advise(&session, Some(narrow(ANNOUNCED, SEQUENCE - 1)));
        bed.check(client, OTHER, Some(Reason::ConnectToPeer));
        // After EPSV ALL to nobody, whatever was read (rule C5).
        for read in [SEQUENCE, SEQUENCE - 1] {
            bed.advise(&session, Some(epsv_all(read)));
            for port in [ANNOUNCED, OTHER, CONTROL_SOURCE, 25] {
                bed.check(client, port, Some(Reason::ConnectAfterEpsvAll));
            }
            bed.check(stranger, OTHER, Some(Reason::ConnectToStranger));
        }
        // Nor after a REIN that was read and answered, but while one is not.
        let closed = Reason::ConnectAfterEpsvAll;
        let open = Reason::ConnectToPeer;
        for (rein, read, reason) in [
            (SEQUENCE, SEQUENCE, closed),
            (SEQUENCE - 6, SEQUENCE, closed),
            (SEQUENCE, SEQUENCE - 1, open),
            // Sequence numbers wrap around.
            (2, u32::MAX - 3, open),
            (u32::MAX - 3, 2, closed),
        ] {
            bed.rein(&session, rein);
            bed.advise(&session, Some(epsv_all(read)));
            bed.check(client, OTHER, Some(reason));
        }
        bed.check(stranger, OTHER, Some(Reason::ConnectToStranger));
        bed.rein(&session, 0);
        bed.advise(&session, None);
        bed.check(client, OTHER, Some(Reason::ConnectToPeer));
        for active in [Active::Exceptions, Active::Off] {
            bed.set_active(active);
            bed.check(client, OTHER, Some(Reason::ConnectWhileOff));
        }
        bed.set_active(Active::Client);
    }
    // Other software on the host.
    bed.forget();
    bed.check("127.0.0.8", OTHER, None);
}

/// The client's port 20 (Microsoft's exception), and a third host (FXP): refused, until they are
/// named; then just these.
#[test]
fn named_exceptions_are_allowed_and_nothing_else_o3_o7() {
    const DATA: u16 = 20;
    let room = Room::enter();
    let targets = [("127.0.0.9", "127.0.0.7"), ("::1", "fe80::7")];
    let mut bed = Bed::new(&room);
    for (client, partner) in targets {
        bed.serve(client);
        bed.check(client, DATA, Some(Reason::ConnectToLowPort));
        bed.check(partner, OTHER, Some(Reason::ConnectToStranger));
    }
    drop(bed);
    let exceptions = targets
        .into_iter()
        .flat_map(|(client, partner)| [(client, Some(DATA)), (partner, None)])
        .map(|(host, port)| Destination {
            address: address(host),
            prefix: 128,
            port,
        })
        .collect();
    let mut bed = Bed::with(&room, exceptions);
    for (client, partner) in targets {
        bed.serve(client);
        bed.check(client, DATA, Some(Reason::ConnectListed));
        bed.check(client, DATA + 1, Some(Reason::ConnectToLowPort));
        bed.check(partner, OTHER, Some(Reason::ConnectListed));
    }
    bed.check("127.0.0.8", OTHER, Some(Reason::ConnectToStranger));
}

/// The FTP server that calls has the mode, and not the host that is called.
#[test]
fn m1_a_watched_ftpd_may_connect() {
    let room = Room::enter();
    let mut bed = Bed::new(&room);
    bed.serve("127.0.0.9");
    let stranger = Some(Reason::ConnectToStranger);
    bed.check("127.0.0.8", OTHER, stranger);
    let settings = |own| {
        let mut settings = settings(Mode::Enforce, false);
        settings.ftpds[0].mode = own;
        settings
    };
    bed.kernel
        .change(&settings(None), &settings(Some(Mode::Monitor)))
        .unwrap();
    bed.call("127.0.0.8", OTHER, stranger, false);
    bed.call("127.0.0.9", 25, Some(Reason::ConnectToLowPort), false);
    bed.kernel
        .change(&settings(Some(Mode::Monitor)), &settings(None))
        .unwrap();
    bed.check("127.0.0.8", OTHER, stranger);
}

/// Nobody is seen to read a control connection over Multipath TCP. From the first one on a process
/// may be serving any client of its ftpd, unless it was forked for the one that it reads.
#[test]
fn a_client_over_multipath_tcp_may_be_anybodys_o4_f2_p4() {
    const SERVER: &str = "127.0.0.9";
    const PLAIN: &str = "127.0.0.6";
    const MULTIPATH: &str = "127.0.0.7";
    const STRANGER: &str = "127.0.0.8";
    let room = Room::enter();
    let mut bed = Bed::new(&room);
    bed.kernel.attach_observer().unwrap();
    let Ok(control) = multipath() else {
        // This kernel has no Multipath TCP.
        return;
    };
    control.set_reuse_address(true).unwrap();
    control.bind(&end(SERVER, 21)).unwrap();
    control.listen(4).unwrap();
    bed.check(STRANGER, OTHER, Some(Reason::ConnectUnprompted));

    let plain = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let sockets = [
        (PLAIN, plain, false),
        (MULTIPATH, multipath().unwrap(), true),
    ];
    let mut sessions = Vec::new();
    for (client, socket, marks) in sockets {
        socket.bind(&end(client, 0)).unwrap();
        socket.connect(&end(SERVER, 21)).unwrap();
        sessions.push((socket, control.accept().unwrap()));
        assert_eq!(
            bed.kernel.maps.saw_multipath(Port::new(21)),
            marks,
            "{client}"
        );
    }
    for client in [PLAIN, MULTIPATH] {
        bed.check(client, OTHER, Some(Reason::ConnectToPeer));
        bed.check(client, 25, Some(Reason::ConnectToLowPort));
    }
    bed.check(STRANGER, OTHER, Some(Reason::ConnectToStranger));
    assert_eq!(bed.listen(SERVER, 30_500), (Admission::ControlPeer, None));

    // The session that `serve` writes is number 7.
    let owner = "127.0.0.5";
    for (born, certain) in [(8, true), (6, false)] {
        let session = bed.serve(owner);
        bed.born(born);
        let (reason, listener) = if certain {
            let pinhole = session.pinhole(Port::new(30_500));
            let listener = (Admission::Pinhole, Some(pinhole));
            bed.check(owner, OTHER, Some(Reason::ConnectToPeer));
            (Reason::ConnectToStranger, listener)
        } else {
            (Reason::ConnectToPeer, (Admission::ControlPeer, None))
        };
        bed.check(MULTIPATH, OTHER, Some(reason));
        bed.check(STRANGER, OTHER, Some(Reason::ConnectToStranger));
        assert_eq!(bed.listen(SERVER, 30_500), listener);
    }
}

fn multipath() -> std::io::Result<Socket> {
    let protocol = Protocol::from(libc::IPPROTO_MPTCP);
    Socket::new(Domain::IPV4, Type::STREAM, Some(protocol))
}

fn end(host: &str, port: u16) -> SockAddr {
    SocketAddr::new(host.parse().unwrap(), port).into()
}

/// The loaded programs, attached to the room.
struct Bed {
    kernel: Kernel,
    policy: Policy,
}

impl Bed {
    fn new(room: &Room) -> Self {
        Self::with(room, Vec::new())
    }

    fn with(room: &Room, exceptions: Vec<Destination>) -> Self {
        let settings = Settings {
            cgroup: room.path.clone(),
            exceptions,
            ..settings(Mode::Enforce, false)
        };
        let mut kernel = Kernel::load(&settings).unwrap();
        kernel.attach_connect().unwrap();
        Self {
            kernel,
            policy: settings.policy,
        }
    }

    /// This process serves a session of this client.
    fn serve(&mut self, client: &str) -> SessionKey {
        let client = address(client);
        let key = SessionKey {
            client,
            server: client,
            client_port: Port::new(CONTROL_SOURCE),
            server_port: Port::new(21),
        };
        let session = Session {
            id: 7,
            opened_at: 1,
            pinhole: PinholeKey::NONE,
            client_sequence: SEQUENCE,
            rein_sequence: 0,
            pad: 0,
        };
        let process = Process {
            session_id: 7,
            born: 8,
            session: key,
            parent: 1,
            control_port: Port::new(21),
            flags: 0,
            reader: 0,
        };
        let maps = &mut self.kernel.maps;
        maps.sessions.insert(key, session, 0).unwrap();
        maps.processes.insert(process::id(), process, 0).unwrap();
        key
    }

    /// The session's client has sent `REIN`, up to this sequence number.
    fn rein(&mut self, key: &SessionKey, sequence: u32) {
        let sessions = &mut self.kernel.maps.sessions;
        let mut session = sessions.get(key, 0).unwrap();
        session.rein_sequence = sequence;
        sessions.insert(key, session, 0).unwrap();
    }

    /// When this process was forked.
    fn born(&mut self, at: u64) {
        let processes = &mut self.kernel.maps.processes;
        let known = processes.get(&process::id(), 0).unwrap();
        let process = Process { born: at, ..known };
        processes.insert(process::id(), process, 0).unwrap();
    }

    /// Whom a listener of this process would admit.
    fn listen(&self, host: &str, port: u16) -> (Admission, Option<PinholeKey>) {
        let at = SocketAddr::new(host.parse().unwrap(), port);
        let listener = TcpListener::bind(at).unwrap();
        let endpoint = Endpoint::new(address(host), Port::new(port));
        let known = self.kernel.maps.listeners.get(&endpoint, 0).unwrap();
        drop(listener);
        let admission = if known.is_strict() {
            Admission::Pinhole
        } else {
            Admission::ControlPeer
        };
        let pinhole = (known.pinhole != PinholeKey::NONE).then_some(known.pinhole);
        (admission, pinhole)
    }

    fn forget(&mut self) {
        self.kernel.maps.processes.remove(&process::id()).unwrap();
    }

    fn advise(&mut self, key: &SessionKey, advice: Option<Advice>) {
        let map = &mut self.kernel.maps.advice;
        match advice {
            Some(advice) => map.insert(key, advice, 0).unwrap(),
            // There may be none yet.
            None => drop(map.remove(key)),
        }
    }

    fn set_active(&mut self, active: Active) {
        self.policy.active = active as u32;
        self.kernel.maps.policy.set(0, self.policy, 0).unwrap();
    }

    /// A call is decided so, and counted once: it fails with EPERM at once, or it does not.
    fn check(&self, host: &str, port: u16, reason: Option<Reason>) {
        let denied = reason.is_some_and(|reason| reason.verdict() == Verdict::Deny);
        self.call(host, port, reason, denied);
    }

    /// A call is decided so, and counted once; it fails with EPERM at once where it is `denied`.
    fn call(&self, host: &str, port: u16, reason: Option<Reason>, denied: bool) {
        let before = self.counts();
        let target = SocketAddr::new(host.parse().unwrap(), port);
        // Nobody listens there; what it comes to is another error.
        let refused = TcpStream::connect_timeout(&target, Duration::from_millis(50))
            .is_err_and(|error| error.kind() == ErrorKind::PermissionDenied);
        assert_eq!(refused, denied, "{target}: {reason:?}");
        let mut expected = before;
        if let Some(reason) = reason {
            expected[reason as usize] += 1;
        }
        assert_eq!(self.counts(), expected, "{target}: {reason:?}");
    }

    fn counts(&self) -> Vec<u64> {
        let counters = self.kernel.maps.counters().unwrap();
        Reason::ALL
            .iter()
            .map(|reason| counters.reason(*reason))
            .collect()
    }
}

/// A cgroup of this process's own. When this value is dropped the process is back where it was.
struct Room {
    path: PathBuf,
    before: PathBuf,
}

impl Room {
    fn enter() -> Self {
        let top = settings(Mode::Enforce, false).cgroup;
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
        let before = top.join(own.unwrap());
        let path = top.join(format!("ftpguard-programs-{}", process::id()));
        fs::create_dir(&path).unwrap();
        let room = Self { path, before };
        fs::write(room.path.join("cgroup.procs"), "0").unwrap();
        room
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // A test that failed already is not to abort.
        let _ = fs::write(self.before.join("cgroup.procs"), "0");
        let _ = fs::remove_dir(&self.path);
    }
}
