//! What follows from a snapshot: the same rules as in the kernel's socket observer, applied to
//! what it could not see happen. Pure: no io.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use ftpguard_common::{
    abi::{
        Admission, Endpoint, Listener, Origin, Pinhole, PinholeKey, Process, Session, SessionKey,
        process_flags,
    },
    net::{Address, Port},
    verdict::Incident,
};

use super::snapshot::{Holder, ListeningSocket, Snapshot};
use crate::values::PortRange;

/// What the operator declared.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Ports of control connections.
    pub control_ports: Vec<u16>,
    /// The declared passive ranges.
    pub passive_ports: Vec<PortRange>,
    /// While the guard runs: the control ports that are new to it. `None` at its start, when
    /// everything is new.
    pub new_control_ports: Option<Vec<u16>>,
    /// How many control connections are tracked at once (rule K9).
    pub max_sessions: u32,
    /// How many of one client (rule K9).
    pub client_sessions: u32,
    /// How many data connections a pinhole admits.
    pub uses: u32,
    /// Now, in nanoseconds of `CLOCK_MONOTONIC`.
    pub now: u64,
}

/// Sessions that the kernel side has seen open, with their ids.
pub type KnownSessions = HashMap<SessionKey, u64>;

/// What is to be written, in the order of writing.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Processes of guarded ftpds, by process id.
    pub processes: Vec<(u32, Process)>,
    /// Control connections.
    pub sessions: Vec<(SessionKey, Session)>,
    /// Listeners: control ports, data ports, foreign ones.
    pub listeners: Vec<(Endpoint, Listener)>,
    /// Pinholes for data ports whose session is known.
    pub pinholes: Vec<(PinholeKey, Pinhole)>,
    /// Why control connections are not tracked (rule K9), one for each.
    pub left_out: Vec<Incident>,
}

impl Plan {
    /// Leaves only what a running guard cannot know yet: what belongs to these control ports,
    /// and other software's listeners. The rest is the kernel side's, and what was read of it
    /// here may be over by now.
    pub fn keep_new(&mut self, control_ports: &[u16]) {
        let new = |port: Port| control_ports.contains(&port.number());
        self.processes
            .retain(|(_, process)| new(process.control_port));
        self.sessions.retain(|(key, _)| new(key.server_port));
        self.listeners.retain(|(_, listener)| {
            listener.control_port == Port::NONE || new(listener.control_port)
        });
        self.pinholes
            .retain(|(_, pinhole)| new(pinhole.server_port));
    }
}

/// The service manager. It may hold the control port's socket (socket activation), but its
/// children are the whole host (rule F2).
const SERVICE_MANAGER: u32 = 1;

/// Decides what to adopt. `known` are the sessions that the kernel side has seen open, with
/// their ids.
#[must_use]
pub fn decide(snapshot: &Snapshot, rules: &Rules, known: &KnownSessions) -> Plan {
    let family = Family::find(snapshot, rules);
    let (sessions, left_out) = name_sessions(snapshot, rules, known);
    let served = family.served(&sessions);
    let processes = family.processes(&served, &sessions);
    let mut plan = Plan {
        processes,
        sessions: sessions
            .values()
            .filter(|(_, id)| *id != UNTRACKED)
            .map(|(key, id)| {
                (
                    *key,
                    Session {
                        id: *id,
                        opened_at: rules.now,
                        pinhole: PinholeKey::NONE,
                        client_sequence: 0,
                        rein_sequence: 0,
                        pad: 0,
                    },
                )
            })
            .collect(),
        left_out,
        ..Plan::default()
    };
    let mut endpoints: BTreeMap<(Address, u16), Listener> = BTreeMap::new();
    for socket in &snapshot.listeners {
        let Some(listener) = judge(socket, rules, &family, &served, &sessions, &mut plan) else {
            continue;
        };
        let endpoint = Endpoint::new(socket.address, socket.port);
        endpoints
            .entry((endpoint.address, endpoint.port.number()))
            .and_modify(|known| {
                let sockets = known.sockets + 1;
                // As in the kernel: a foreign one never takes a guarded one's place.
                if listener.control_port != Port::NONE {
                    *known = listener;
                }
                known.sockets = sockets;
            })
            .or_insert(listener);
    }
    plan.listeners = endpoints
        .into_iter()
        .map(|((address, port), listener)| (Endpoint::new(address, Port::new(port)), listener))
        .collect();
    if let Some(control_ports) = &rules.new_control_ports {
        plan.keep_new(control_ports);
    }
    let pinholes: BTreeMap<u64, PinholeKey> = plan
        .pinholes
        .iter()
        .map(|(key, pinhole)| (pinhole.session, *key))
        .collect();
    for (_, session) in &mut plan.sessions {
        if let Some(key) = pinholes.get(&session.id) {
            session.pinhole = *key;
        }
    }
    plan
}

/// Sessions by the inode of their socket, with their ids. Connections that nobody has accepted yet
/// have none, and a number of their own above every inode.
type Sessions = BTreeMap<u64, (SessionKey, u64)>;

/// In the place of an id: a control connection that there is no room for (rule K9).
const UNTRACKED: u64 = 0;

/// Gives the sessions, and why some of them are not tracked.
fn name_sessions(
    snapshot: &Snapshot,
    rules: &Rules,
    known: &KnownSessions,
) -> (Sessions, Vec<Incident>) {
    let mut sessions = Sessions::new();
    let mut left_out = Vec::new();
    let mut room = Room::new(rules, known);
    let taken: HashSet<u64> = known.values().copied().collect();
    // The kernel's ids are times at which connections opened; these are before now and one
    // nanosecond apart. Those of former rounds are taken.
    let mut free = (1..=rules.now).rev().filter(|id| !taken.contains(id));
    for (place, connection) in (0u64..).zip(&snapshot.connections) {
        let port = connection.key.server_port.number();
        let is_old = (rules.new_control_ports.as_ref()).is_some_and(|new| !new.contains(&port));
        let id = match known.get(&connection.key) {
            Some(id) => *id,
            // The kernel side saw it come, and had no room for it.
            None if is_old => UNTRACKED,
            None => match room.take(&connection.key) {
                Ok(()) => free.next().unwrap_or(UNTRACKED),
                Err(full) => {
                    left_out.push(full);
                    UNTRACKED
                }
            },
        };
        let inode = if connection.inode == 0 {
            u64::MAX - place
        } else {
            connection.inode
        };
        sessions.insert(inode, (connection.key, id));
    }
    (sessions, left_out)
}

/// What room there is for further sessions (rule K9).
struct Room<'a> {
    rules: &'a Rules,
    sessions: usize,
    of_client: HashMap<Address, u32>,
}

impl<'a> Room<'a> {
    fn new(rules: &'a Rules, known: &KnownSessions) -> Self {
        let mut of_client: HashMap<Address, u32> = HashMap::new();
        for key in known.keys() {
            *of_client.entry(key.client).or_default() += 1;
        }
        Self {
            rules,
            sessions: known.len(),
            of_client,
        }
    }

    /// Takes the room for a session, or says why there is none.
    fn take(&mut self, session: &SessionKey) -> Result<(), Incident> {
        let held = self.of_client.entry(session.client).or_default();
        if *held >= self.rules.client_sessions {
            return Err(Incident::ClientQuota);
        }
        if usize::try_from(self.rules.max_sessions).is_ok_and(|most| self.sessions >= most) {
            return Err(Incident::SessionTableFull);
        }
        *held += 1;
        self.sessions += 1;
        Ok(())
    }
}

/// The processes of the guarded ftpds.
struct Family<'a> {
    snapshot: &'a Snapshot,
    /// Who holds each socket, lowest process id first.
    holders: HashMap<u64, Vec<u32>>,
    /// The control port of each.
    control_ports: BTreeMap<u32, u16>,
    acceptors: BTreeSet<u32>,
}

impl<'a> Family<'a> {
    fn find(snapshot: &'a Snapshot, rules: &Rules) -> Self {
        let mut holders: HashMap<u64, Vec<u32>> = HashMap::new();
        for (pid, holder) in &snapshot.processes {
            for inode in &holder.inodes {
                holders.entry(*inode).or_default().push(*pid);
            }
        }
        let mut family = Self {
            snapshot,
            holders,
            control_ports: BTreeMap::new(),
            acceptors: BTreeSet::new(),
        };
        for socket in &snapshot.listeners {
            let port = socket.port.number();
            if rules.control_ports.contains(&port) {
                family.accept(socket.inode, port);
            }
        }
        for connection in &snapshot.connections {
            let port = connection.key.server_port.number();
            for pid in family.holders.get(&connection.inode).into_iter().flatten() {
                if *pid != SERVICE_MANAGER {
                    family.control_ports.entry(*pid).or_insert(port);
                }
            }
        }
        family.add_descendants();
        family
    }

    /// The topmost holders of a control port's socket accept. A child that merely inherited it
    /// is a session like any other child.
    fn accept(&mut self, inode: u64, port: u16) {
        let holders = self.holders_of(inode);
        let holds = |pid: u32| pid != SERVICE_MANAGER && holders.binary_search(&pid).is_ok();
        let is_top = |pid: &u32| {
            holds(*pid) && !self.holder(*pid).is_some_and(|holder| holds(holder.parent))
        };
        let top: Vec<u32> = holders.iter().copied().filter(is_top).collect();
        for pid in top {
            self.acceptors.insert(pid);
            self.control_ports.entry(pid).or_insert(port);
        }
    }

    fn add_descendants(&mut self) {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for (pid, holder) in &self.snapshot.processes {
            children.entry(holder.parent).or_default().push(*pid);
        }
        let mut grown: Vec<(u32, u16)> = (self.control_ports.iter())
            .map(|(pid, port)| (*pid, *port))
            .collect();
        while let Some((parent, port)) = grown.pop() {
            for pid in children.get(&parent).into_iter().flatten() {
                if !self.control_ports.contains_key(pid) {
                    self.control_ports.insert(*pid, port);
                    grown.push((*pid, port));
                }
            }
        }
    }

    /// Who holds this socket.
    fn holders_of(&self, inode: u64) -> &[u32] {
        self.holders.get(&inode).map_or(&[], Vec::as_slice)
    }

    fn holder(&self, pid: u32) -> Option<&Holder> {
        self.snapshot.processes.get(&pid)
    }

    fn contains(&self, pid: u32) -> bool {
        self.control_ports.contains_key(&pid)
    }

    /// The ancestors of a process up to, and without, the acceptor.
    fn ancestors(&self, pid: u32) -> impl Iterator<Item = u32> + '_ {
        let parent = move |pid: &u32| {
            self.holder(*pid)
                .map(|holder| holder.parent)
                .filter(|parent| self.contains(*parent) && !self.acceptors.contains(parent))
        };
        // A process table has no cycles; a torn reading of one may.
        std::iter::successors(parent(&pid), parent).take(self.snapshot.processes.len())
    }

    /// Which sessions each process serves: those it holds, and those that its descendants hold
    /// (rule F2: what they share is the inherited control socket).
    fn served(&self, sessions: &Sessions) -> BTreeMap<u32, BTreeSet<u64>> {
        let mut served: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
        for pid in self.control_ports.keys() {
            let Some(holder) = self.holder(*pid) else {
                continue;
            };
            let held: Vec<u64> = holder
                .inodes
                .iter()
                .copied()
                .filter(|inode| sessions.contains_key(inode))
                .collect();
            if held.is_empty() {
                continue;
            }
            served.entry(*pid).or_default().extend(&held);
            if !self.acceptors.contains(pid) {
                for ancestor in self.ancestors(*pid) {
                    served.entry(ancestor).or_default().extend(&held);
                }
            }
        }
        served
    }

    /// Parents come before their children, so that no child is ever without.
    fn processes(
        &self,
        served: &BTreeMap<u32, BTreeSet<u64>>,
        sessions: &Sessions,
    ) -> Vec<(u32, Process)> {
        let mut processes: Vec<(usize, u32, Process)> = self
            .control_ports
            .iter()
            .map(|(pid, control_port)| {
                let own = served.get(pid);
                // What a session forks belongs to it, until it reads for itself.
                let inherited = || {
                    self.ancestors(*pid)
                        .filter(|_| !self.acceptors.contains(pid))
                        .find_map(|ancestor| served.get(&ancestor))
                };
                let shared = own.or_else(inherited);
                let is_tracked =
                    |inode: &&u64| (sessions.get(inode)).is_some_and(|(_, id)| *id != UNTRACKED);
                let first = shared
                    .and_then(|inodes| inodes.iter().find(is_tracked))
                    .and_then(|inode| sessions.get(inode));
                let mut flags = 0;
                // As in the kernel: one that serves nobody who is tracked tells for whom it
                // listens.
                if first.is_some() && shared.is_some_and(|inodes| inodes.len() > 1) {
                    flags |= process_flags::SHARED;
                }
                if shared.is_some_and(|inodes| !inodes.iter().all(|inode| is_tracked(&inode))) {
                    flags |= process_flags::TURNED_AWAY;
                }
                if self.acceptors.contains(pid) {
                    flags |= process_flags::ACCEPTOR;
                } else if own.is_none() && shared.is_some() {
                    flags |= process_flags::INHERITED;
                }
                let process = Process {
                    session_id: first.map_or(0, |(_, id)| *id),
                    born: 0,
                    session: first.map_or(SessionKey::NONE, |(key, _)| *key),
                    // Who is none of the ftpd's, such as a supervisor, must never be taken for
                    // one because of its child.
                    parent: (self.holder(*pid))
                        .map(|holder| holder.parent)
                        .filter(|parent| self.contains(*parent))
                        .unwrap_or(0),
                    control_port: Port::new(*control_port),
                    flags,
                    reader: 0,
                };
                let depth =
                    self.ancestors(*pid).count() + usize::from(!self.acceptors.contains(pid));
                (depth, *pid, process)
            })
            .collect();
        processes.sort_by_key(|(depth, pid, _)| (*depth, *pid));
        processes
            .into_iter()
            .map(|(_, pid, process)| (pid, process))
            .collect()
    }
}

/// What a listening socket is; `None` where it is none of the guard's business. Adds the pinhole
/// where the session is known.
fn judge(
    socket: &ListeningSocket,
    rules: &Rules,
    family: &Family<'_>,
    served: &BTreeMap<u32, BTreeSet<u64>>,
    sessions: &Sessions,
    plan: &mut Plan,
) -> Option<Listener> {
    let holders = family.holders_of(socket.inode);
    let number = socket.port.number();
    let listener = |tgid, control_port| Listener {
        session: 0,
        socket: 0,
        pinhole: PinholeKey::NONE,
        tgid,
        control_port,
        admission: Admission::Pinhole as u16,
        sockets: 1,
    };
    if rules.control_ports.contains(&number) {
        // Of a watched process, the service manager included (socket activation).
        return holders.first().map(|pid| listener(*pid, socket.port));
    }
    let Some(pid) = holders.iter().copied().find(|pid| family.contains(*pid)) else {
        let declared = rules
            .passive_ports
            .iter()
            .any(|range| range.contains(number));
        let tgid = holders.first().copied().unwrap_or(0);
        return (declared && socket.here).then(|| listener(tgid, Port::NONE));
    };
    let control_port = family.control_ports.get(&pid).copied().unwrap_or(0);
    let mut listener = listener(pid, Port::new(control_port));
    if socket.port.is_low() {
        return Some(listener);
    }
    let mut all = holders.iter().filter_map(|pid| served.get(pid)).flatten();
    let only = (all.next())
        .filter(|first| all.all(|inode| inode == *first))
        .and_then(|inode| sessions.get(inode));
    match only {
        // Nobody is let in (rule K9).
        Some((_, UNTRACKED)) => {}
        Some((key, id)) => {
            listener.session = *id;
            listener.pinhole = key.pinhole(socket.port);
            plan.pinholes.push((
                listener.pinhole,
                Pinhole::of(key, *id, rules.now, rules.uses, Origin::Adopted),
            ));
        }
        None => listener.admission = Admission::ControlPeer as u16,
    }
    Some(listener)
}

#[cfg(test)]
mod tests;
