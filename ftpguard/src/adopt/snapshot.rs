//! What /proc says about sockets and the processes that hold them.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs,
    path::{Path, PathBuf},
};

use ftpguard_common::{
    abi::SessionKey,
    net::{Address, Port},
};
use procfs::{
    ProcResult,
    net::{TcpNetEntry, TcpState},
    process::{FDTarget, Process},
};

use super::apply::Open;

/// The sockets that matter, and who holds them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Listening sockets.
    pub listeners: Vec<ListeningSocket>,
    /// Control connections that are open on the ftpd's side.
    pub connections: Vec<Connection>,
    /// The processes of the watched cgroup, by process id.
    pub processes: BTreeMap<u32, Holder>,
}

/// A listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListeningSocket {
    /// Its address.
    pub address: Address,
    /// Its port.
    pub port: Port,
    /// What names it in `/proc/PID/fd`.
    pub inode: u64,
    /// Whether it lies in the guard's own network namespace.
    pub here: bool,
}

/// A control connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its four-tuple.
    pub key: SessionKey,
    /// What names it in `/proc/PID/fd`; 0 where nobody has accepted it yet.
    pub inode: u64,
}

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// Its parent.
    pub parent: u32,
    /// The sockets of the snapshot that it holds.
    pub inodes: BTreeSet<u64>,
}

/// Reads snapshots.
#[derive(Clone, Debug)]
pub struct Reader {
    /// The cgroup whose processes are watched.
    pub cgroup: PathBuf,
    /// Ports of control connections.
    pub control_ports: Vec<u16>,
}

impl Reader {
    /// Reads the sockets of the own network namespace and of every other one that a watched
    /// process is in, then who holds them.
    pub fn read(&self) -> ProcResult<Snapshot> {
        let (mut snapshot, processes) = self.sockets()?;
        let wanted: HashSet<u64> = snapshot
            .listeners
            .iter()
            .map(|listener| listener.inode)
            .chain(snapshot.connections.iter().map(|open| open.inode))
            .filter(|inode| *inode != 0)
            .collect();
        for process in &processes {
            if let Some((pid, holder)) = holder(process, &wanted) {
                snapshot.processes.insert(pid, holder);
            }
        }
        Ok(snapshot)
    }

    /// What is open now, whoever holds it.
    pub fn open(&self) -> ProcResult<Open> {
        let (snapshot, _) = self.sockets()?;
        Ok(Open::of(&snapshot))
    }

    /// Sockets of every namespace, without their holders; and the watched processes.
    fn sockets(&self) -> ProcResult<(Snapshot, Vec<Process>)> {
        let processes: Vec<Process> = watched(&self.cgroup)
            .into_iter()
            .filter_map(|pid| Process::new(pid).ok())
            .collect();
        let myself = Process::myself()?;
        let mut snapshot = Snapshot::default();
        self.add_sockets(&mut snapshot, tables(&myself)?, true);
        let mut seen: HashSet<_> = namespace(&myself).into_iter().collect();
        for process in &processes {
            // Gone meanwhile, or not ours to look at: its sockets cannot be seen.
            if let Some(namespace) = namespace(process)
                && seen.insert(namespace)
                && let Ok(entries) = tables(process)
            {
                self.add_sockets(&mut snapshot, entries, false);
            }
        }
        Ok((snapshot, processes))
    }

    fn add_sockets(&self, snapshot: &mut Snapshot, entries: Vec<TcpNetEntry>, here: bool) {
        for entry in entries {
            let (local, remote) = (entry.local_address, entry.remote_address);
            match entry.state {
                TcpState::Listen => snapshot.listeners.push(ListeningSocket {
                    address: local.ip().into(),
                    port: Port::new(local.port()),
                    inode: entry.inode,
                    here,
                }),
                // As long as the ftpd has not closed its side (rule C7).
                TcpState::Established | TcpState::CloseWait
                    if self.control_ports.contains(&local.port()) =>
                {
                    snapshot.connections.push(Connection {
                        key: SessionKey {
                            client: remote.ip().into(),
                            server: local.ip().into(),
                            client_port: Port::new(remote.port()),
                            server_port: Port::new(local.port()),
                        },
                        inode: entry.inode,
                    });
                }
                TcpState::Established
                | TcpState::CloseWait
                | TcpState::SynSent
                | TcpState::SynRecv
                | TcpState::FinWait1
                | TcpState::FinWait2
                | TcpState::TimeWait
                | TcpState::Close
                | TcpState::LastAck
                | TcpState::Closing
                | TcpState::NewSynRecv => {}
            }
        }
    }
}

pub(super) fn tables(process: &Process) -> ProcResult<Vec<TcpNetEntry>> {
    let mut entries = process.tcp()?;
    // Missing where the kernel has no IPv6.
    entries.extend(process.tcp6().unwrap_or_default());
    Ok(entries)
}

/// What tells one network namespace from another.
pub(super) fn namespace(process: &Process) -> Option<u64> {
    let namespaces = process.namespaces().ok()?;
    namespaces
        .0
        .values()
        .find(|namespace| namespace.ns_type == "net")
        .map(|namespace| namespace.identifier)
}

/// `None` for a process that is gone meanwhile, and for threads' leftovers.
fn holder(process: &Process, wanted: &HashSet<u64>) -> Option<(u32, Holder)> {
    let stat = process.stat().ok()?;
    let mut inodes = BTreeSet::new();
    if let Ok(files) = process.fd() {
        for file in files.flatten() {
            if let FDTarget::Socket(inode) = file.target
                && wanted.contains(&inode)
            {
                inodes.insert(inode);
            }
        }
    }
    Some((
        u32::try_from(process.pid()).ok()?,
        Holder {
            parent: u32::try_from(stat.ppid).ok()?,
            inodes,
        },
    ))
}

/// The processes of a cgroup v2 folder and of those below it.
fn watched(folder: &Path) -> Vec<i32> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // Unreadable where it is gone meanwhile, and in threaded cgroups, whose processes are
        // listed by the domain above.
        let list = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        // A process of another pid namespace is listed as 0.
        found.extend(
            list.lines()
                .filter_map(|line| line.parse::<i32>().ok())
                .filter(|pid| *pid > 0),
        );
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        folders.extend(
            entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
    found
}
