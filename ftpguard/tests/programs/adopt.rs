//! What the daemon writes when it adopts.

use std::{
    env,
    net::{TcpListener, TcpStream},
    os::unix::process::parent_id,
    process::{self, Command, Stdio},
    sync::{LazyLock, Mutex},
    thread,
};

use bytemuck::Zeroable as _;
use ftpguard::{
    adopt::{
        apply::{Open, apply, disown, forget_closed, forget_listeners, known_sessions},
        decide::Plan,
        latecomers::{Sockets, Stranger, look_again},
        snapshot::{Reader, View},
    },
    kernel::{Kernel, Maps},
};
use ftpguard_common::{
    abi::{
        Admission, Endpoint, Listener, Mode, Origin, Peer, Pinhole, Process, Session, SessionKey,
        port_word, process_flags,
    },
    net::Port,
    verdict::Reason,
};

use crate::{
    Bed,
    bed::{CLIENT, SERVER, THIEF, address, listen, settings},
    frames::syn,
};

/// F2: a process that ended between being read and being written leaves nothing behind that the
/// next one with its id would inherit.
#[test]
fn f2_a_process_that_is_gone_is_not_adopted() {
    let mut kernel = Kernel::load(&settings(Mode::Enforce, false)).unwrap();
    // Itself: the machines of the kernel matrix have few other programs.
    let this = env::current_exe().unwrap();
    let mut gone = Command::new(this)
        .arg("--list")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    gone.wait().unwrap();
    let alive = process::id();
    let entry = Process {
        session_id: 7,
        born: 0,
        session: SessionKey {
            client_port: Port::new(1000),
            server_port: Port::new(21),
            ..SessionKey::NONE
        },
        parent: 1,
        control_port: Port::new(21),
        flags: 0,
        reader: 0,
    };
    let plan = Plan {
        processes: vec![(gone.id(), entry), (alive, entry)],
        ..Plan::default()
    };
    let applied = apply(&mut kernel, &plan).unwrap();
    assert_eq!(applied.added, 1);
    let known: Vec<u32> = Maps::entries(&kernel.maps.processes)
        .into_iter()
        .map(|(pid, _)| pid)
        .collect();
    assert_eq!(known, [alive]);

    // Another ftpd's, whose settings did not come into force.
    assert!(disown(&mut kernel, &[990]).unwrap().is_empty());
    assert_eq!(Maps::entries(&kernel.maps.processes).len(), 1);
    disown(&mut kernel, &[21]).unwrap();
    assert!(Maps::entries(&kernel.maps.processes).is_empty());
}

/// K9: the daemon counts a client's sessions while the kernel side does: nothing is lost, and who
/// holds none is no peer.
#[test]
fn k9_counts_of_both_sides_add_up() {
    const TIMES: i32 = 20_000;
    let kernel = Kernel::load(&settings(Mode::Enforce, false)).unwrap();
    let mut peer = Peer::of_any(address(CLIENT));
    for control_port in [Port::NONE, Port::new(21), Port::new(u16::MAX)] {
        peer.control_port = control_port;
        kernel.count_peer(&peer, 3).unwrap();
        thread::scope(|scope| {
            for step in [1, -1, 2, -2] {
                let (kernel, peer) = (&kernel, &peer);
                // Never below what is there already, so that no entry goes.
                kernel.count_peer(peer, TIMES * 2).unwrap();
                scope.spawn(move || {
                    for _ in 0..TIMES / 2 {
                        kernel.count_peer(peer, step).unwrap();
                    }
                });
            }
        });
        let count = Maps::find(&kernel.maps.peers, &peer).unwrap();
        assert_eq!(count, Some(3 + 8 * TIMES.unsigned_abs()));
        kernel.count_peer(&peer, -8 * TIMES - 2).unwrap();
        assert_eq!(Maps::find(&kernel.maps.peers, &peer).unwrap(), Some(1));
        kernel.count_peer(&peer, -1).unwrap();
        assert_eq!(Maps::find(&kernel.maps.peers, &peer).unwrap(), None);
        // Nothing can be taken off it.
        kernel.count_peer(&peer, -1).unwrap();
        assert_eq!(Maps::find(&kernel.maps.peers, &peer).unwrap(), None);
    }
}

/// F2, K10: before the guard knows who accepts sessions, the first child that reads makes its
/// acceptor a process of that session, and others inherit it. Adoption sets both right.
#[test]
fn f2_an_acceptor_that_was_taken_for_a_session_is_adopted() {
    let mut kernel = Kernel::load(&settings(Mode::Enforce, false)).unwrap();
    let session = |client_port| SessionKey {
        client_port: Port::new(client_port),
        server_port: Port::new(21),
        ..SessionKey::NONE
    };
    let process = |session_id: u64, flags| Process {
        session_id,
        born: 0,
        session: session(1000 + u16::try_from(session_id).unwrap()),
        parent: 1,
        control_port: Port::new(21),
        flags,
        reader: 0,
    };
    // Processes that are alive: this one, its parent, and the first one.
    let [acceptor, child, reader] = [process::id(), parent_id(), 1];
    let wrong = [
        (acceptor, process(7, 0)),
        (
            child,
            process(7, process_flags::INHERITED | process_flags::SHARED),
        ),
        (reader, process(7, 0)),
    ];
    for (pid, process) in &wrong {
        kernel.maps.processes.insert(pid, process, 0).unwrap();
    }
    let plan = Plan {
        processes: vec![
            (acceptor, process(0, process_flags::ACCEPTOR)),
            (child, process(8, 0)),
            // What it has read itself is newer than what was seen of it.
            (reader, process(9, 0)),
        ],
        ..Plan::default()
    };
    assert_eq!(apply(&mut kernel, &plan).unwrap().added, 2);
    let known = |pid| kernel.maps.processes.get(&pid, 0).unwrap();
    assert_ne!(known(acceptor).flags & process_flags::ACCEPTOR, 0);
    assert_eq!(known(child), process(8, 0));
    assert_eq!(known(reader), process(7, 0));
    // Once is enough, or adoption would not come to an end.
    assert_eq!(apply(&mut kernel, &plan).unwrap().added, 0);
}

/// What listeners count in a port's word.
const HINTS: u64 = port_word::GUARDED | port_word::FOREIGN;

/// A kernel side that knows nothing yet but the server's address.
fn adopting() -> Mutex<Kernel> {
    let mut kernel = Kernel::load(&settings(Mode::Enforce, false)).unwrap();
    kernel.maps.add_address(address(SERVER)).unwrap();
    Mutex::new(kernel)
}

/// The client's session there.
fn session() -> SessionKey {
    SessionKey {
        client: address(CLIENT),
        server: address(SERVER),
        client_port: Port::new(1000),
        server_port: Port::new(21),
    }
}

/// F2: a process that holds a control connection belongs to the ftpd; who started it does not, unless
/// that is known.
#[test]
fn f2_a_latecomers_parent_is_named_only_where_it_is_known() {
    let mut kernel = Kernel::load(&settings(Mode::Enforce, false)).unwrap();
    // A control connection of this very process.
    let control = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(control.local_addr().unwrap()).unwrap();
    let (server, _) = control.accept().unwrap();
    let (local, remote) = (server.local_addr().unwrap(), server.peer_addr().unwrap());
    let session = SessionKey {
        client: remote.ip().into(),
        server: local.ip().into(),
        client_port: Port::new(remote.port()),
        server_port: Port::new(local.port()),
    };
    let open = Session {
        id: 7,
        ..Session::zeroed()
    };
    kernel.maps.sessions.insert(session, open, 0).unwrap();
    let endpoint = Endpoint::new(session.server, Port::new(30_001));
    let mut parent = |is_known| {
        let processes = &mut kernel.maps.processes;
        if is_known {
            let entry = Process {
                control_port: Port::new(21),
                ..Process::zeroed()
            };
            processes.insert(parent_id(), entry, 0).unwrap();
        }
        Maps::forget(processes, &process::id()).unwrap();
        let mut sockets = Sockets::default();
        let found = look_again(&mut kernel, &mut sockets, &endpoint, process::id(), 1);
        assert_eq!(found.unwrap(), Stranger::Ours(None));
        let known = Maps::find(&kernel.maps.processes, &process::id()).unwrap();
        known.unwrap().parent
    };
    assert_eq!(parent(false), 0);
    assert_eq!(parent(true), parent_id());
    drop(client);
}

/// K10, I1: a listener that began to listen before its process was written was taken for other
/// software's, and is guarded as soon as it is adopted.
#[test]
fn k10_a_listener_that_was_taken_for_foreign_is_adopted() {
    static ADOPTING: LazyLock<Mutex<Kernel>> = LazyLock::new(adopting);
    let mut bed = Bed::of(&ADOPTING);
    let session = session();
    let endpoint = Endpoint::new(session.server, Port::new(30_001));
    listen(&mut bed.kernel.maps, endpoint, 0, Admission::Pinhole);
    let pinhole = session.pinhole(endpoint.port);
    let listener = Listener {
        session: 7,
        pinhole,
        control_port: Port::new(21),
        ..Maps::find(&bed.kernel.maps.listeners, &endpoint)
            .unwrap()
            .unwrap()
    };
    let made = Pinhole::of(&session, 7, 0, 1, Origin::Adopted);
    let plan = Plan {
        pinholes: vec![(pinhole, made)],
        listeners: vec![(endpoint, listener)],
        ..Plan::default()
    };
    bed.ingress(&syn(THIEF, SERVER, 30_001), Reason::ForeignListener);
    assert_eq!(apply(&mut bed.kernel, &plan).unwrap().added, 2);
    bed.ingress(&syn(THIEF, SERVER, 30_001), Reason::NoPinhole);
    bed.ingress(&syn(CLIENT, SERVER, 30_001), Reason::Pinhole);
    assert_eq!(apply(&mut bed.kernel, &plan).unwrap().added, 0);
}

/// I1: a listener closes in the moment in which it turns out to be the ftpd's. The kernel side has
/// taken its hint back, and nothing stays in the port's word.
#[test]
fn a_listener_that_closes_while_it_is_replaced_leaves_no_hint() {
    static ADOPTING: LazyLock<Mutex<Kernel>> = LazyLock::new(adopting);
    let mut bed = Bed::of(&ADOPTING);
    let endpoint = Endpoint::new(address(SERVER), Port::new(30_001));
    listen(&mut bed.kernel.maps, endpoint, 0, Admission::Pinhole);
    let maps = &mut bed.kernel.maps;
    let foreign = Maps::find(&maps.listeners, &endpoint).unwrap().unwrap();
    assert!(maps.forget_listener(&endpoint).unwrap());
    // Once.
    assert!(!maps.forget_listener(&endpoint).unwrap());
    let guarded = Listener {
        control_port: Port::new(21),
        ..foreign
    };
    let replaced = maps.replace_listener(&endpoint, &foreign, &guarded);
    assert!(!replaced.unwrap());
    assert_eq!(maps.port_word(endpoint.port) & HINTS, 0);
    bed.ingress(&syn(THIEF, SERVER, 30_001), Reason::ClosedPort);
}

/// K10, K5: a listener that closed between being read and being written is not kept, nor its
/// pinhole: the next socket there would inherit both.
#[test]
fn k10_what_closed_meanwhile_is_not_kept() {
    static ADOPTING: LazyLock<Mutex<Kernel>> = LazyLock::new(adopting);
    let mut bed = Bed::of(&ADOPTING);
    let session = session();
    let at = |port| Endpoint::new(session.server, Port::new(port));
    let listener = |port| Listener {
        session: 7,
        socket: 0,
        pinhole: session.pinhole(Port::new(port)),
        tgid: process::id(),
        control_port: Port::new(21),
        admission: Admission::Pinhole as u16,
        sockets: 1,
    };
    let ports = [30_001, 30_002, 30_003];
    let plan = Plan {
        listeners: ports.map(|port| (at(port), listener(port))).to_vec(),
        pinholes: ports
            .map(|port| {
                let made = Pinhole::of(&session, 7, 0, 1, Origin::Adopted);
                (session.pinhole(Port::new(port)), made)
            })
            .to_vec(),
        ..Plan::default()
    };
    let applied = apply(&mut bed.kernel, &plan).unwrap();
    assert_eq!(applied.listening.len(), 3);
    // Another client's socket took the third port, as the kernel side writes it.
    let other = Listener {
        session: 8,
        socket: 1,
        sockets: 2,
        ..listener(30_003)
    };
    let listeners = &mut bed.kernel.maps.listeners;
    assert!(Maps::change(listeners, &at(30_003), &other).unwrap());

    let mut other_session = session;
    other_session.client_port = Port::new(1001);
    for (id, key) in [(7, session), (9, other_session)] {
        let open = Session {
            id,
            ..Session::zeroed()
        };
        bed.kernel.maps.sessions.insert(key, open, 0).unwrap();
    }
    let known = known_sessions(&bed.kernel);
    let open = Open {
        sessions: [session].into(),
        listeners: [at(30_001)].into(),
        ..Open::default()
    };
    let gone = forget_closed(&mut bed.kernel, &open, &known, &applied.listening).unwrap();
    assert_eq!(gone, [9].into());
    assert_eq!(known_sessions(&bed.kernel), [(session, 7)].into());
    bed.ingress(&syn(CLIENT, SERVER, 30_001), Reason::Pinhole);
    bed.ingress(&syn(CLIENT, SERVER, 30_002), Reason::ClosedPort);
    bed.ingress(&syn(CLIENT, SERVER, 30_003), Reason::NoPinhole);
    let left = Maps::find(&bed.kernel.maps.listeners, &at(30_003)).unwrap();
    assert_eq!(
        left,
        Some(Listener {
            sockets: 1,
            ..other
        })
    );
}

/// A listener without a socket goes, with its hint. Any other stays: one that is open, one that
/// another socket has joined, and whatever cannot be seen.
#[test]
fn only_a_listener_that_is_surely_closed_is_forgotten() {
    static SWEPT: LazyLock<Mutex<Kernel>> = LazyLock::new(adopting);
    let mut bed = Bed::of(&SWEPT);
    let at = |port| Endpoint::new(address(SERVER), Port::new(port));
    let ports = [30_001, 30_002, 30_003];
    for port in ports {
        listen(&mut bed.kernel.maps, at(port), 21, Admission::Pinhole);
    }
    let mut known = Maps::entries(&bed.kernel.maps.listeners);
    known.sort_unstable_by_key(|(endpoint, _)| endpoint.port.number());
    let mut open = Open {
        listeners: [at(30_001)].into(),
        view: View {
            is_whole: true,
            ..View::default()
        },
        ..Open::default()
    };
    let joined = Listener {
        socket: 1,
        sockets: 2,
        ..known[1].1
    };
    let maps = &mut bed.kernel.maps;
    assert!(Maps::change(&mut maps.listeners, &at(30_002), &joined).unwrap());
    // Some namespace was not looked at, or the process that listens is in another one.
    open.view.is_whole = false;
    assert_eq!(forget_listeners(maps, &open, &known).unwrap(), []);
    open.view.is_whole = true;
    let elsewhere = Listener {
        tgid: process::id(),
        ..known[2].1
    };
    let unseen = [(at(30_003), elsewhere)];
    assert!(Maps::change(&mut maps.listeners, &at(30_003), &elsewhere).unwrap());
    assert_eq!(forget_listeners(maps, &open, &unseen).unwrap(), []);
    assert!(Maps::change(&mut maps.listeners, &at(30_003), &known[2].1).unwrap());
    let gone = forget_listeners(maps, &open, &known).unwrap();
    assert_eq!(gone, [known[2]]);
    assert_eq!(forget_listeners(maps, &open, &known).unwrap(), []);
    assert_eq!(maps.port_word(Port::new(30_003)) & HINTS, 0);
    bed.ingress(&syn(THIEF, SERVER, 30_003), Reason::ClosedPort);
    for port in [30_001, 30_002] {
        bed.ingress(&syn(THIEF, SERVER, port), Reason::NoPinhole);
    }
}

/// Wherever on the host something listens, it is seen, and everybody was asked.
#[test]
fn open_sockets_of_the_whole_host_are_seen() {
    let host = ftpguard::preflight::check(&["lo".to_owned()], None).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let here = listener.local_addr().unwrap();
    let reader = Reader {
        cgroup: host.cgroup,
        control_ports: vec![21],
    };
    let endpoint = Endpoint::new(here.ip().into(), Port::new(here.port()));
    let open = reader.open().unwrap();
    assert!(open.listeners.contains(&endpoint));
    assert!(open.view.has(process::id()));
    // A process that ends at this moment may be the only one of its namespace.
    assert!((0..20).any(|_| reader.open().unwrap().view.is_whole));
    drop(listener);
    assert!(!reader.open().unwrap().listeners.contains(&endpoint));
}
