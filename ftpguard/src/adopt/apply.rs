//! Writing what was decided, next to what the kernel side writes at the same time.

use std::collections::HashSet;

use ftpguard_common::{
    abi::{Endpoint, Listener, Peer, Process, SessionKey, process_flags},
    net::Port,
    verdict::Incident,
};

use super::{
    alive,
    decide::{KnownSessions, Plan},
    snapshot::{Snapshot, View},
};
use crate::kernel::{Added, Kernel, KernelError, Maps};

/// What one round added.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// How many entries.
    pub added: usize,
    /// The sessions among them.
    pub opened: Vec<(u64, SessionKey)>,
    /// The listeners among them.
    pub listening: Vec<(Endpoint, Listener)>,
    /// What there was no room for (rule K9), one for each entry.
    pub left_out: Vec<Incident>,
}

impl Applied {
    /// Whether the entry was added.
    fn note(&mut self, added: Added, full: Incident) -> bool {
        if added == Added::NoRoom {
            self.left_out.push(full);
        }
        self.added += usize::from(added == Added::New);
        added == Added::New
    }
}

/// The sessions that the maps hold, with their ids.
#[must_use]
pub fn known_sessions(kernel: &Kernel) -> KnownSessions {
    Maps::entries(&kernel.maps.sessions)
        .into_iter()
        .map(|(key, session)| (key, session.id))
        .collect()
}

/// Adds what is not there yet. What the kernel side wrote is newer and stays.
///
/// Processes come first, so that a fork or read that happens meanwhile finds its parent; then
/// sessions; then listeners with their pinholes, which need both.
pub fn apply(kernel: &mut Kernel, plan: &Plan) -> Result<Applied, KernelError> {
    let maps = &mut kernel.maps;
    let mut applied = Applied {
        left_out: plan.left_out.clone(),
        ..Applied::default()
    };
    for (pid, process) in &plan.processes {
        let known = Maps::find(&maps.processes, pid)?;
        if let Some(right) = known.and_then(|known| set_right(&known, process)) {
            applied.added += usize::from(Maps::change(&mut maps.processes, pid, &right)?);
            continue;
        }
        let added = alive::add(maps, *pid, process)?;
        applied.note(added, Incident::ProcessTableFull);
    }
    for (key, session) in &plan.sessions {
        if Maps::find(&kernel.maps.sessions, key)?.is_some() {
            continue;
        }
        // It counts before it is there: the kernel side may see it end at once.
        count(kernel, key, 1)?;
        let added = Maps::add(&mut kernel.maps.sessions, key, session)?;
        if applied.note(added, Incident::SessionTableFull) {
            applied.opened.push((session.id, *key));
        } else {
            count(kernel, key, -1)?;
        }
    }
    let maps = &mut kernel.maps;
    // With its listener only: a listener that the kernel side saw open has its pinhole, or had it
    // and it is used.
    let mut fresh = HashSet::new();
    for (endpoint, listener) in &plan.listeners {
        let known = Maps::find(&maps.listeners, endpoint)?;
        if known.is_none_or(|known| is_mistaken(&known, listener)) {
            fresh.insert(listener.pinhole);
        }
    }
    for (key, pinhole) in &plan.pinholes {
        if fresh.contains(key) {
            let added = Maps::add(&mut maps.pinholes, key, pinhole)?;
            applied.note(added, Incident::PinholeTableFull);
        }
    }
    for (endpoint, listener) in &plan.listeners {
        if let Some(known) = Maps::find(&maps.listeners, endpoint)?
            && is_mistaken(&known, listener)
        {
            let guarded = Listener {
                socket: known.socket,
                sockets: known.sockets,
                ..*listener
            };
            if maps.replace_listener(endpoint, &known, &guarded)? {
                applied.added += 1;
            } else {
                forget_pinhole(maps, listener)?;
            }
            continue;
        }
        let added = Maps::add(&mut maps.listeners, endpoint, listener)?;
        if added == Added::NoRoom && listener.control_port != Port::NONE {
            maps.hint_crowded(endpoint.port, listener);
        }
        if applied.note(added, Incident::ListenerTableFull) {
            maps.hint_listener(endpoint.port, listener);
            applied.listening.push((*endpoint, *listener));
        }
    }
    Ok(applied)
}

/// What a process should be that the kernel side took for what it is not, because it did not know
/// yet who accepts sessions (rules F2, K10): a child that read its control connection made its
/// acceptor one of that session, and the acceptor's further children inherited it.
fn set_right(known: &Process, process: &Process) -> Option<Process> {
    let has = |process: &Process, flag| process.flags & flag != 0;
    if has(process, process_flags::ACCEPTOR) {
        // It may read sessions itself, at this moment: its threads tell which.
        let flags = process_flags::ACCEPTOR | process_flags::SHARED;
        return (!has(known, process_flags::ACCEPTOR)).then_some(Process {
            flags: known.flags | flags,
            ..*known
        });
    }
    // It has read nothing itself; what it holds is another session's than what it inherited.
    let is_wrong = has(known, process_flags::INHERITED)
        && !has(process, process_flags::SHARED | process_flags::INHERITED)
        && process.session_id != 0
        && process.session_id != known.session_id;
    is_wrong.then_some(Process {
        born: known.born,
        ..*process
    })
}

/// Whether the kernel side took a guarded listener for other software's, and so for open to all:
/// its process was not yet written when it began to listen (rule K10).
fn is_mistaken(known: &Listener, listener: &Listener) -> bool {
    known.control_port == Port::NONE && listener.control_port != Port::NONE
}

/// What is open on the ftpd's side.
#[derive(Clone, Debug, Default)]
pub struct Open {
    /// Control connections.
    pub sessions: HashSet<SessionKey>,
    /// Where sockets listen.
    pub listeners: HashSet<Endpoint>,
    /// Where was looked for them.
    pub view: View,
}

impl Open {
    /// What a snapshot showed.
    #[must_use]
    pub fn of(snapshot: &Snapshot, view: View) -> Self {
        Self {
            sessions: snapshot.connections.iter().map(|open| open.key).collect(),
            listeners: (snapshot.listeners.iter())
                .map(|socket| Endpoint::new(socket.address, socket.port))
                .collect(),
            view,
        }
    }

    /// Adds what another one showed: what changes while /proc is read may be left out of one.
    pub fn add(&mut self, other: Self) {
        self.sessions.extend(other.sessions);
        self.listeners.extend(other.listeners);
        self.view.add(other.view);
    }

    /// Whether it is sure that this listener's socket is gone: nothing listens there in the network
    /// namespace of any process. What cannot be seen may be open.
    fn lacks(&self, endpoint: &Endpoint, listener: &Listener) -> bool {
        self.view.is_whole && !self.listeners.contains(endpoint) && self.view.has(listener.tgid)
    }
}

/// Takes back what closed between being read and being written: nobody else would. So it does with
/// sessions of a daemon that was killed before it came to that.
///
/// `known` are the sessions that the maps held, `listeners` those that were added, both before it
/// was read what is `open`. Gives the sessions that went.
pub fn forget_closed(
    kernel: &mut Kernel,
    open: &Open,
    known: &KnownSessions,
    listeners: &[(Endpoint, Listener)],
) -> Result<HashSet<u64>, KernelError> {
    let mut gone = HashSet::new();
    for (key, id) in known {
        if !open.sessions.contains(key) && forget(kernel, *id, key)? {
            gone.insert(*id);
        }
    }
    for (endpoint, listener) in listeners {
        if !open.listeners.contains(endpoint) {
            forget_listener(kernel, endpoint, listener)?;
        }
    }
    Ok(gone)
}

/// Takes listeners back whose end the kernel side did not see, without their pinholes: `known` are
/// some that the maps held before it was read what is `open`. Gives those that went.
pub fn forget_listeners(
    maps: &mut Maps,
    open: &Open,
    known: &[(Endpoint, Listener)],
) -> Result<Vec<(Endpoint, Listener)>, KernelError> {
    let mut gone = Vec::new();
    for (endpoint, listener) in known {
        if open.lacks(endpoint, listener)
            // Not if another socket has joined it, or taken its place.
            && Maps::find(&maps.listeners, endpoint)? == Some(*listener)
            && maps.forget_listener(endpoint)?
        {
            gone.push((*endpoint, *listener));
        }
    }
    Ok(gone)
}

/// Takes back a listener and its pinhole. Another socket that has the endpoint by now stays.
fn forget_listener(
    kernel: &mut Kernel,
    endpoint: &Endpoint,
    listener: &Listener,
) -> Result<(), KernelError> {
    let maps = &mut kernel.maps;
    let Some(known) = Maps::find(&maps.listeners, endpoint)? else {
        return Ok(());
    };
    if known == *listener {
        maps.forget_listener(endpoint)?;
    } else if known.socket != 0 && known.sockets > 1 {
        let sockets = known.sockets - 1;
        Maps::change(
            &mut maps.listeners,
            endpoint,
            &Listener { sockets, ..known },
        )?;
    }
    forget_pinhole(maps, listener)
}

/// Takes back the pinhole of a listener that is gone.
pub(super) fn forget_pinhole(maps: &mut Maps, listener: &Listener) -> Result<(), KernelError> {
    if has_pinhole(maps, listener)? {
        Maps::forget(&mut maps.pinholes, &listener.pinhole)?;
    }
    Ok(())
}

/// Whether the pinhole that was made for a listener is still there.
pub fn has_pinhole(maps: &Maps, listener: &Listener) -> Result<bool, KernelError> {
    let pinhole = &listener.pinhole;
    Ok(pinhole.port != Port::NONE
        && Maps::find(&maps.pinholes, pinhole)?
            .is_some_and(|known| known.session == listener.session))
}

/// Takes a session back whose end the kernel side did not see. Whether it was there.
pub fn forget(kernel: &mut Kernel, id: u64, key: &SessionKey) -> Result<bool, KernelError> {
    let maps = &mut kernel.maps;
    // Not if the same four-tuple was opened anew.
    let Some(session) = Maps::find(&maps.sessions, key)?.filter(|session| session.id == id) else {
        return Ok(false);
    };
    if !Maps::remove(&mut maps.sessions, key)? {
        // The kernel side saw its end by now, and does the rest.
        return Ok(false);
    }
    Maps::forget(&mut maps.advice, key)?;
    if session.pinhole.port != Port::NONE {
        Maps::forget(&mut maps.pinholes, &session.pinhole)?;
    }
    count(kernel, key, -1)?;
    Ok(true)
}

/// Counts a session more, or less, as its client's.
fn count(kernel: &Kernel, key: &SessionKey, step: i32) -> Result<(), KernelError> {
    peers(key)
        .iter()
        .try_for_each(|peer| kernel.count_peer(peer, step))
}

/// Takes back what was adopted of these control ports: they are not to be guarded after all. Gives
/// the sessions, with their ids.
pub fn disown(
    kernel: &mut Kernel,
    control_ports: &[u16],
) -> Result<Vec<(u64, SessionKey)>, KernelError> {
    let is_one = |port: Port| control_ports.contains(&port.number());
    for (pid, process) in Maps::entries(&kernel.maps.processes) {
        if is_one(process.control_port) {
            Maps::forget(&mut kernel.maps.processes, &pid)?;
        }
    }
    let mut sessions = Vec::new();
    for (key, session) in Maps::entries(&kernel.maps.sessions) {
        if is_one(key.server_port) && forget(kernel, session.id, &key)? {
            sessions.push((session.id, key));
        }
    }
    for (endpoint, listener) in Maps::entries(&kernel.maps.listeners) {
        if is_one(listener.control_port) {
            kernel.maps.forget_listener(&endpoint)?;
        }
    }
    Ok(sessions)
}

/// Both entries in which a session counts.
#[must_use]
pub fn peers(key: &SessionKey) -> [Peer; 2] {
    [key.peer(), Peer::of_any(key.client)]
}
