use std::net::{IpAddr, Ipv4Addr};

use super::{super::snapshot::Connection, *};

const SERVER: [u8; 4] = [10, 0, 0, 1];
/// The acceptor's listening socket.
const CONTROL: u64 = 100;
/// The data port's listening socket.
const DATA: u64 = 300;

fn v4(octets: [u8; 4]) -> Address {
    Ipv4Addr::from(octets).into()
}

fn session(client: u8) -> SessionKey {
    SessionKey {
        client: v4([10, 0, 0, client]),
        server: v4(SERVER),
        client_port: Port::new(4000 + u16::from(client)),
        server_port: Port::new(21),
    }
}

fn rules() -> Rules {
    Rules {
        control_ports: vec![21],
        passive_ports: vec!["50000-50099".parse().expect("a range")],
        new_control_ports: None,
        max_sessions: 100,
        client_sessions: 100,
        uses: 1,
        now: 1_000,
    }
}

/// A host: listeners as (inode, port), connections as (inode, client), processes as
/// (pid, parent, inodes).
fn host(
    listeners: &[(u64, u16)],
    connections: &[(u64, u8)],
    processes: &[(u32, u32, &[u64])],
) -> Snapshot {
    Snapshot {
        listeners: listeners
            .iter()
            .map(|(inode, port)| ListeningSocket {
                address: if *port == 21 {
                    IpAddr::from(Ipv4Addr::UNSPECIFIED).into()
                } else {
                    v4(SERVER)
                },
                port: Port::new(*port),
                inode: *inode,
                here: true,
            })
            .collect(),
        connections: connections
            .iter()
            .map(|(inode, client)| Connection {
                key: session(*client),
                inode: *inode,
            })
            .collect(),
        processes: processes
            .iter()
            .map(|(pid, parent, inodes)| {
                (
                    *pid,
                    Holder {
                        parent: *parent,
                        inodes: inodes.iter().copied().collect(),
                    },
                )
            })
            .collect(),
    }
}

fn plan(snapshot: &Snapshot) -> Plan {
    decide(snapshot, &rules(), &HashMap::new())
}

fn process(plan: &Plan, pid: u32) -> Process {
    plan.processes
        .iter()
        .find(|(known, _)| *known == pid)
        .map_or_else(
            || panic!("process {pid} is adopted"),
            |(_, process)| *process,
        )
}

fn listener(plan: &Plan, port: u16) -> Option<Listener> {
    plan.listeners
        .iter()
        .find(|(endpoint, _)| endpoint.port == Port::new(port))
        .map(|(_, listener)| *listener)
}

fn may_reach(plan: &Plan) -> Vec<(IpAddr, u16)> {
    plan.pinholes
        .iter()
        .map(|(key, _)| (key.client.ip(), key.port.number()))
        .collect()
}

#[test]
fn k10_vsftpd_with_a_listener_of_the_privileged_parent() {
    // Acceptor 10, privileged parent 20, reader 30: the last two share the control socket, the
    // parent listens.
    let plan = plan(&host(
        &[(CONTROL, 21), (DATA, 50_000)],
        &[(200, 2)],
        &[
            (10, 1, &[CONTROL]),
            (20, 10, &[200, DATA]),
            (30, 20, &[200]),
        ],
    ));
    let acceptor = process(&plan, 10);
    assert_eq!(acceptor.flags, process_flags::ACCEPTOR);
    assert_eq!(acceptor.session_id, 0);
    for pid in [20, 30] {
        assert_eq!(process(&plan, pid).session, session(2));
        assert_eq!(process(&plan, pid).flags, 0);
    }
    assert_eq!(process(&plan, 30).parent, 20);
    assert_eq!(process(&plan, 20).parent, 10);
    assert_eq!(may_reach(&plan), [([10, 0, 0, 2].into(), 50_000)]);
    assert_eq!(
        plan.sessions[0].1.pinhole,
        session(2).pinhole(Port::new(50_000))
    );
    let data = listener(&plan, 50_000).expect("guarded");
    assert_eq!(data.control_port, Port::new(21));
    assert_eq!(data.session, plan.sessions[0].1.id);
    // The control port itself, so that sessions count on it.
    assert!(listener(&plan, 21).is_some());
    // Parents first.
    let order: Vec<u32> = plan.processes.iter().map(|(pid, _)| *pid).collect();
    assert_eq!(order, [10, 20, 30]);
}

/// F2: whoever started the ftpd, or an instance of it, is not named as a parent: the kernel side
/// would take it for a process of the ftpd where there is no room for its child.
#[test]
fn f2_a_parent_that_is_not_of_the_ftpd_is_not_named() {
    // A supervisor 5 started the acceptor 10; the service manager one instance, 40.
    let plan = plan(&host(
        &[(CONTROL, 21)],
        &[(200, 2), (201, 3)],
        &[
            (1, 0, &[CONTROL]),
            (5, 1, &[]),
            (10, 5, &[CONTROL]),
            (20, 10, &[200]),
            (40, 1, &[201]),
        ],
    ));
    let parents = [10, 20, 40].map(|pid| process(&plan, pid).parent);
    assert_eq!(parents, [0, 10, 0]);
}

#[test]
fn f2_the_parent_that_holds_no_control_socket_is_claimed_by_its_child() {
    let plan = plan(&host(
        &[(CONTROL, 21), (DATA, 50_000)],
        &[(200, 2)],
        &[(10, 1, &[CONTROL]), (20, 10, &[DATA]), (30, 20, &[200])],
    ));
    assert_eq!(process(&plan, 20).session, session(2));
    assert_eq!(may_reach(&plan), [([10, 0, 0, 2].into(), 50_000)]);
}

#[test]
fn p4_a_process_with_several_sessions_names_nobody() {
    let plan = plan(&host(
        &[(CONTROL, 21), (DATA, 50_000)],
        &[(200, 2), (201, 3)],
        &[(10, 1, &[CONTROL, 200, 201, DATA])],
    ));
    assert_eq!(
        process(&plan, 10).flags,
        process_flags::ACCEPTOR | process_flags::SHARED
    );
    assert!(plan.pinholes.is_empty());
    let data = listener(&plan, 50_000).expect("guarded");
    assert_eq!(data.admission, Admission::ControlPeer as u16);
    assert_eq!(plan.sessions.len(), 2);
}

#[test]
fn f2_two_sessions_of_one_acceptor_stay_apart() {
    let plan = plan(&host(
        &[(CONTROL, 21), (DATA, 50_000), (301, 50_001)],
        &[(200, 2), (201, 3)],
        &[
            (10, 1, &[CONTROL]),
            (20, 10, &[200, DATA]),
            (21, 10, &[201, 301]),
        ],
    ));
    let mut reach = may_reach(&plan);
    reach.sort_unstable();
    assert_eq!(
        reach,
        [
            ([10, 0, 0, 2].into(), 50_000),
            ([10, 0, 0, 3].into(), 50_001)
        ]
    );
}

#[test]
fn f2_the_service_manager_is_no_acceptor() {
    // Socket activation: pid 1 holds the control port's socket. Process 40 is some other
    // service, 20 an instance of the ftpd.
    let plan = plan(&host(
        &[(CONTROL, 21), (DATA, 50_000)],
        &[(200, 2)],
        &[(1, 0, &[CONTROL]), (20, 1, &[200, DATA]), (40, 1, &[])],
    ));
    let adopted: Vec<u32> = plan.processes.iter().map(|(pid, _)| *pid).collect();
    assert_eq!(adopted, [20]);
    assert_eq!(may_reach(&plan), [([10, 0, 0, 2].into(), 50_000)]);
    // Sessions that come later count on its port all the same.
    assert!(listener(&plan, 21).is_some());
}

#[test]
fn f2_an_ftpd_that_was_handed_the_socket_is_the_acceptor() {
    let plan = plan(&host(
        &[(CONTROL, 21)],
        &[],
        &[
            (1, 0, &[CONTROL]),
            (10, 1, &[CONTROL]),
            (11, 10, &[CONTROL]),
        ],
    ));
    assert_eq!(process(&plan, 10).flags, process_flags::ACCEPTOR);
    // A prefork worker that inherited it reads for itself later.
    assert_eq!(process(&plan, 11).flags, 0);
}

#[test]
fn a_helper_of_a_session_inherits_it() {
    let plan = plan(&host(
        &[(CONTROL, 21), (DATA, 50_000)],
        &[(200, 2)],
        &[(10, 1, &[CONTROL]), (20, 10, &[200]), (30, 20, &[DATA])],
    ));
    let helper = process(&plan, 30);
    assert_eq!(helper.session, session(2));
    assert_eq!(helper.flags, process_flags::INHERITED);
    // Whether it is alone in this the sockets do not say.
    let data = listener(&plan, 50_000).expect("guarded");
    assert_eq!(data.admission, Admission::ControlPeer as u16);
}

#[test]
fn i4_foreign_listeners_count_in_the_range_only() {
    let plan = plan(&host(
        &[(CONTROL, 21), (400, 50_050), (401, 8_080)],
        &[],
        &[(10, 1, &[CONTROL]), (50, 1, &[400, 401])],
    ));
    let foreign = listener(&plan, 50_050).expect("known");
    assert_eq!((foreign.control_port, foreign.tgid), (Port::NONE, 50));
    assert!(listener(&plan, 8_080).is_none());
}

#[test]
fn i1_a_guarded_listener_outside_the_range_counts() {
    let plan = plan(&host(
        &[(CONTROL, 21), (DATA, 33_333)],
        &[(200, 2)],
        &[(10, 1, &[CONTROL]), (20, 10, &[200, DATA])],
    ));
    assert!(listener(&plan, 33_333).is_some());
}

#[test]
fn r8_a_low_listener_gets_no_pinhole() {
    let plan = plan(&host(
        &[(CONTROL, 21), (DATA, 1_023)],
        &[(200, 2)],
        &[(10, 1, &[CONTROL]), (20, 10, &[200, DATA])],
    ));
    assert!(plan.pinholes.is_empty());
    let low = listener(&plan, 1_023).expect("guarded");
    assert_eq!(low.admission, Admission::Pinhole as u16);
}

#[test]
fn sessions_that_the_kernel_knows_keep_their_id() {
    let snapshot = host(
        &[(CONTROL, 21)],
        &[(200, 2), (0, 3), (0, 4)],
        &[(10, 1, &[CONTROL]), (20, 10, &[200])],
    );
    let plan = decide(&snapshot, &rules(), &HashMap::from([(session(2), 77)]));
    assert_eq!(process(&plan, 20).session_id, 77);
    let mut ids: Vec<u64> = plan
        .sessions
        .iter()
        .map(|(_, session)| session.id)
        .collect();
    ids.sort_unstable();
    ids.dedup();
    // Those that wait to be accepted are sessions too, each with an id of its own.
    assert_eq!(ids.len(), 3);
    assert!(ids.iter().all(|id| *id != 0));
}

#[test]
fn shared_endpoints_are_counted() {
    let plan = plan(&host(
        &[(CONTROL, 21), (400, 50_050), (DATA, 50_050)],
        &[(200, 2)],
        &[(10, 1, &[CONTROL]), (20, 10, &[200, DATA]), (50, 1, &[400])],
    ));
    let both = listener(&plan, 50_050).expect("known");
    assert_eq!((both.sockets, both.control_port), (2, Port::new(21)));
}

/// K9: what there is no room for is not tracked, and its listeners admit nobody. Who is known already
/// counts, and stays.
#[test]
fn k9_adopts_only_what_fits() {
    let snapshot = host(
        &[(CONTROL, 21), (DATA, 50_000)],
        &[(200, 2), (201, 2), (202, 3)],
        &[
            (10, 1, &[CONTROL]),
            (20, 10, &[200]),
            (21, 10, &[201, DATA]),
            (22, 10, &[202]),
        ],
    );
    let mut quota = rules();
    quota.client_sessions = 1;
    let mut other = session(2);
    other.client_port = Port::new(1);
    let known = HashMap::from([(other, 7)]);
    let plan = decide(&snapshot, &quota, &known);
    let adopted: Vec<SessionKey> = plan.sessions.iter().map(|(key, _)| *key).collect();
    assert_eq!(adopted, [session(3)]);
    assert_eq!(plan.left_out, [Incident::ClientQuota; 2]);
    assert_eq!(may_reach(&plan), []);
    assert_eq!(process(&plan, 21).session_id, 0);
    assert_eq!(process(&plan, 21).flags, process_flags::TURNED_AWAY);
    let closed = listener(&plan, 50_000).expect("it is guarded");
    assert_eq!(closed.admission, Admission::Pinhole as u16);
    assert_eq!(closed.pinhole, PinholeKey::NONE);

    let mut full = rules();
    full.max_sessions = 2;
    let plan = decide(&snapshot, &full, &HashMap::from([(session(3), 7)]));
    assert_eq!(plan.sessions.len(), 2);
    assert_eq!(plan.left_out, [Incident::SessionTableFull]);
    assert_eq!(process(&plan, 22).session_id, 7);
}

/// K9: a process that serves one who is tracked and one who is not: its threads tell which.
#[test]
fn k9_one_process_serves_somebody_without_room() {
    let snapshot = host(
        &[(CONTROL, 21)],
        &[(200, 2), (201, 3)],
        &[(10, 1, &[CONTROL, 200, 201])],
    );
    let mut full = rules();
    full.max_sessions = 1;
    let plan = decide(&snapshot, &full, &HashMap::new());
    let server = process(&plan, 10);
    assert_eq!(server.session, session(2));
    assert_eq!(
        server.flags,
        process_flags::ACCEPTOR | process_flags::SHARED | process_flags::TURNED_AWAY
    );
}

/// A round that finds a further session names it anew: two sessions of one id would close each
/// other's pinholes.
#[test]
fn k10_sessions_of_different_rounds_have_different_ids() {
    let processes: &[(u32, u32, &[u64])] = &[(10, 1, &[CONTROL]), (11, 10, &[1]), (12, 10, &[2])];
    let first = plan(&host(&[(CONTROL, 21)], &[(1, 2)], processes));
    let known: KnownSessions = first
        .sessions
        .iter()
        .map(|(key, session)| (*key, session.id))
        .collect();
    // The new one stands first.
    let again = host(&[(CONTROL, 21)], &[(2, 3), (1, 2)], processes);
    let second = decide(&again, &rules(), &known);
    let ids: HashSet<u64> = second
        .sessions
        .iter()
        .map(|(_, session)| session.id)
        .collect();
    assert_eq!(ids.len(), 2, "{:?}", second.sessions);
    assert!(known.values().all(|id| ids.contains(id)));
}

/// A busy host: thousands of sessions, each with a process and a data port. Asking every process
/// for every socket would be a hundred million questions.
#[test]
fn k10_thousands_of_sessions_are_adopted() {
    const SESSIONS: u32 = 10_000;
    let acceptor: (u32, Holder) = (
        10,
        Holder {
            parent: 1,
            inodes: [CONTROL].into(),
        },
    );
    let mut snapshot = host(&[(CONTROL, 21)], &[], &[]);
    snapshot.processes.extend([acceptor]);
    for number in 0..SESSIONS {
        let (control, data) = (1_000 + u64::from(number), 100_000 + u64::from(number));
        let client = Ipv4Addr::from_bits(0x0a01_0000 + number).into();
        snapshot.connections.push(Connection {
            key: SessionKey {
                client,
                ..session(2)
            },
            inode: control,
        });
        snapshot.listeners.push(ListeningSocket {
            address: v4(SERVER),
            port: Port::new(u16::try_from(20_000 + number).expect("a port")),
            inode: data,
            here: true,
        });
        let inodes = [control, data].into();
        let process = Holder { parent: 10, inodes };
        snapshot.processes.insert(100 + number, process);
    }
    let rules = Rules {
        max_sessions: SESSIONS,
        now: u64::from(2 * SESSIONS),
        ..rules()
    };
    let plan = decide(&snapshot, &rules, &HashMap::new());
    assert_eq!(plan.sessions.len(), SESSIONS as usize);
    assert_eq!(plan.pinholes.len(), SESSIONS as usize);
    let clients: HashSet<Address> = plan.pinholes.iter().map(|(key, _)| key.client).collect();
    assert_eq!(clients.len(), SESSIONS as usize);
}

/// One process that serves everybody: whose a data port is cannot be said, and is not asked of
/// each session.
#[test]
fn k10_thousands_of_sessions_of_one_process_are_adopted() {
    let inodes: Vec<u64> = (1_000..11_000).collect();
    let mut snapshot = host(
        &[(CONTROL, 21)],
        &[],
        &[(10, 1, &inodes), (11, 1, &[CONTROL])],
    );
    for (number, inode) in (0_u16..).zip(&inodes) {
        if number < 5_000 {
            let client_port = Port::new(1_000 + number);
            let key = SessionKey {
                client_port,
                ..session(2)
            };
            let inode = *inode;
            snapshot.connections.push(Connection { key, inode });
        } else {
            snapshot.listeners.push(ListeningSocket {
                address: v4(SERVER),
                port: Port::new(20_000 + number),
                inode: *inode,
                here: true,
            });
        }
    }
    let rules = Rules {
        max_sessions: 5_000,
        client_sessions: 5_000,
        now: 10_000,
        ..rules()
    };
    let plan = decide(&snapshot, &rules, &HashMap::new());
    assert_eq!(plan.sessions.len(), 5_000);
    assert!(plan.pinholes.is_empty());
    let open = |listener: &Listener| listener.admission == Admission::ControlPeer as u16;
    let shared = plan.listeners.iter().filter(|(_, known)| open(known));
    assert_eq!(shared.count(), 5_000);
}
