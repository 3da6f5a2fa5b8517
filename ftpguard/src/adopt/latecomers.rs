//! Processes that a service manager started for one session (inetd, systemd with `Accept=yes`).
//!
//! The acceptor is not the ftpd then, so the kernel side meets such a process when it first
//! reads, and does not know its parents. What makes a parent one of the session's processes is
//! the inherited control socket (rule F2); vsftpd's privileged parent is such a one, and it is
//! the one that listens.

use std::collections::{HashMap, HashSet};

use ftpguard_common::{
    abi::{Admission, Endpoint, Listener, Origin, Pinhole, PinholeKey, Process, SessionKey},
    net::{Address, Port},
    verdict::Incident,
};
use procfs::{
    net::TcpNetEntry,
    process::{FDTarget, Process as Entry},
};

use super::{
    alive,
    snapshot::{namespace, tables},
};
use crate::{
    clock,
    kernel::{Added, Kernel, KernelError, Maps},
};

/// How far up is looked, as in the kernel's socket observer.
const MAX_ANCESTORS: usize = 4;

/// The open TCP sockets of network namespaces by their inodes, each namespace read once: on a busy
/// host that is what a look costs.
#[derive(Default)]
pub struct Sockets(HashMap<u64, HashMap<u64, TcpNetEntry>>);

impl Sockets {
    /// Those of these sockets that are in the network namespace of a process; none where it is
    /// gone.
    fn find<'a>(
        &'a mut self,
        process: &Entry,
        held: &'a HashSet<u64>,
    ) -> impl Iterator<Item = &'a TcpNetEntry> {
        let known = namespace(process).map(|namespace| {
            self.0.entry(namespace).or_insert_with(|| {
                let open = tables(process).unwrap_or_default();
                open.into_iter().map(|open| (open.inode, open)).collect()
            })
        });
        known
            .into_iter()
            .flat_map(|known| held.iter().filter_map(|inode| known.get(inode)))
    }
}

/// Adds the ancestors of a process that was found reading a control connection, as far as they
/// hold the same socket. Gives how many were added.
pub fn adopt_ancestors(
    kernel: &mut Kernel,
    sockets: &mut Sockets,
    found: u32,
    session: &SessionKey,
    session_id: u64,
) -> Result<usize, KernelError> {
    let Some(inode) = inode_of(sockets, found, session) else {
        // Gone meanwhile.
        return Ok(0);
    };
    let maps = &mut kernel.maps;
    let mut child = found;
    let mut added = 0;
    while added < MAX_ANCESTORS {
        let Some(parent) = parent_of(child).filter(|parent| *parent > 1) else {
            break;
        };
        if !holds(parent, inode) {
            break;
        }
        let Some(known) = Maps::find(&maps.processes, &child)? else {
            break;
        };
        let ancestor = Process {
            session_id,
            born: 0,
            session: *session,
            parent: known_parent(maps, parent)?,
            control_port: session.server_port,
            flags: 0,
            reader: 0,
        };
        if alive::add(maps, parent, &ancestor)? != Added::New {
            break;
        }
        Maps::change(&mut maps.processes, &child, &Process { parent, ..known })?;
        added += 1;
        child = parent;
    }
    Ok(added)
}

/// Whose a listener turned out to be, whose process the kernel side did not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// The process holds no control connection. Other software (rule I4), unless the kernel side
    /// knows of what ftpd it is.
    Foreign,
    /// It lies in another network namespace, and is none of the guard's business.
    Elsewhere,
    /// The ftpd's after all: the process holds a control connection. Its listener is guarded
    /// now; the pinhole is open where the process holds just one.
    Ours(Option<PinholeKey>),
}

/// Looks again at a listener whose process the kernel side did not know: it may be a parent of a
/// reader that exited before anybody looked, as vsftpd's do, or there was no room for it.
pub fn look_again(
    kernel: &mut Kernel,
    sockets: &mut Sockets,
    endpoint: &Endpoint,
    pid: u32,
    uses: u32,
) -> Result<Stranger, KernelError> {
    let (Some(process), Ok(myself)) = (entry(pid), Entry::myself()) else {
        return Ok(Stranger::Foreign);
    };
    if namespace(&process).is_some_and(|other| Some(other) != namespace(&myself)) {
        return Ok(Stranger::Elsewhere);
    }
    let held = held(&process);
    let maps = &mut kernel.maps;
    let mut sessions = Vec::new();
    for open in sockets.find(&myself, &held) {
        let key = SessionKey {
            client: open.remote_address.ip().into(),
            server: open.local_address.ip().into(),
            client_port: Port::new(open.remote_address.port()),
            server_port: Port::new(open.local_address.port()),
        };
        if let Some(session) = Maps::find(&maps.sessions, &key)? {
            sessions.push((key, session.id));
        }
    }
    let Some((key, id)) = sessions.first().copied() else {
        return Ok(Stranger::Foreign);
    };
    let ancestor = Process {
        session_id: id,
        born: 0,
        session: key,
        parent: known_parent(maps, pid)?,
        control_port: key.server_port,
        flags: 0,
        reader: 0,
    };
    if alive::add(maps, pid, &ancestor)? == Added::NoRoom {
        maps.leave_out(Incident::ProcessTableFull);
    }
    let Some(listener) = Maps::find(&maps.listeners, endpoint)?
        .filter(|listener| is_open_to_others(listener) && listener.tgid == pid)
    else {
        return Ok(Stranger::Ours(None));
    };
    let exact = sessions.len() == 1 && !endpoint.port.is_low();
    let pinhole = if exact {
        key.pinhole(endpoint.port)
    } else {
        PinholeKey::NONE
    };
    let guarded = Listener {
        session: if exact { id } else { 0 },
        pinhole,
        control_port: key.server_port,
        admission: if exact {
            Admission::Pinhole
        } else {
            Admission::ControlPeer
        } as u16,
        ..listener
    };
    if exact {
        let made = Pinhole::of(&key, id, clock::monotonic_ns(), uses, Origin::Adopted);
        if !Maps::put(&mut maps.pinholes, &pinhole, &made)? {
            // The listener is guarded all the same, and admits nobody (rule K9).
            maps.leave_out(Incident::PinholeTableFull);
        }
    }
    let still_open = maps.replace_listener(endpoint, &listener, &guarded)?;
    if exact && !still_open {
        Maps::forget(&mut maps.pinholes, &pinhole)?;
        return Ok(Stranger::Ours(None));
    }
    Ok(Stranger::Ours(exact.then_some(pinhole)))
}

/// Whether a listener admits more than the clients with a pinhole.
fn is_open_to_others(listener: &Listener) -> bool {
    listener.control_port == Port::NONE || listener.admission == Admission::ControlPeer as u16
}

fn entry(pid: u32) -> Option<Entry> {
    Entry::new(i32::try_from(pid).ok()?).ok()
}

fn parent_of(pid: u32) -> Option<u32> {
    u32::try_from(entry(pid)?.stat().ok()?.ppid).ok()
}

/// The parent of a process where that is one of an ftpd's, else 0: the kernel side would take who
/// is named here for one where there is no room for the process (rule F2).
fn known_parent(maps: &Maps, pid: u32) -> Result<u32, KernelError> {
    let Some(parent) = parent_of(pid).filter(|parent| *parent > 1) else {
        return Ok(0);
    };
    let known = Maps::find(&maps.processes, &parent)?;
    Ok(known.map_or(0, |_| parent))
}

/// The socket of the session. The process may sit in a network namespace of its own, as vsftpd's
/// reader does; the socket is listed where it was made, which is the guard's or its parent's.
fn inode_of(sockets: &mut Sockets, pid: u32, session: &SessionKey) -> Option<u64> {
    let held = held(&entry(pid)?);
    let parent = parent_of(pid).and_then(entry);
    [Entry::myself().ok(), entry(pid), parent]
        .into_iter()
        .flatten()
        .find_map(|process| {
            sockets
                .find(&process, &held)
                .find(|open| {
                    open.local_address.port() == session.server_port.number()
                        && open.remote_address.port() == session.client_port.number()
                        && Address::from(open.remote_address.ip()) == session.client
                })
                .map(|open| open.inode)
        })
}

fn holds(pid: u32, inode: u64) -> bool {
    entry(pid).is_some_and(|process| held(&process).contains(&inode))
}

fn held(process: &Entry) -> HashSet<u64> {
    let Ok(files) = process.fd() else {
        return HashSet::new();
    };
    files
        .flatten()
        .filter_map(|file| {
            if let FDTarget::Socket(inode) = file.target {
                Some(inode)
            } else {
                None
            }
        })
        .collect()
}
