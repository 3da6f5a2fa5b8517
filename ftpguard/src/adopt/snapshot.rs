//! What /proc says about sockets and the processes that hold them.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use ftpguard_common::{
    abi::SessionKey,
    net::{Address, Port},
};
use nix::errno::Errno;
use procfs::{
    ProcError, ProcResult,
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
        let pids = watched(&self.cgroup)?;
        let mut snapshot = self.sockets(&pids)?;
        let wanted: HashSet<u64> = snapshot
            .listeners
            .iter()
            .map(|listener| listener.inode)
            .chain(snapshot.connections.iter().map(|open| open.inode))
            .filter(|inode| *inode != 0)
            .collect();
        for pid in pids {
            if let Some((pid, holder)) = unless_gone(holder(pid, &wanted))? {
                snapshot.processes.insert(pid, holder);
            }
        }
        Ok(snapshot)
    }

    /// What is open now, whoever holds it.
    pub fn open(&self) -> ProcResult<Open> {
        Ok(Open::of(&self.sockets(&watched(&self.cgroup)?)?))
    }

    /// Sockets of the own network namespace and of those that these processes are in, without
    /// their holders.
    ///
    /// One process at a time is open: a host may have more of them than this one may open files.
    fn sockets(&self, pids: &[i32]) -> ProcResult<Snapshot> {
        let myself = Process::myself()?;
        let mut snapshot = Snapshot::default();
        self.add_sockets(&mut snapshot, tables(&myself)?, true);
        let mut seen: HashSet<_> = namespace(&myself).into_iter().collect();
        for pid in pids {
            // Gone meanwhile, or not ours to look at: its sockets cannot be seen. Another process
            // of its namespace may be looked at.
            if let Some(namespace) = namespace_of(*pid)
                && !seen.contains(&namespace)
                && let Some(entries) =
                    unless_gone(Process::new(*pid).and_then(|process| tables(&process)))?
                && namespace_of(*pid) == Some(namespace)
            {
                seen.insert(namespace);
                self.add_sockets(&mut snapshot, entries, false);
            }
        }
        Ok(snapshot)
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
    match process.tcp6() {
        Ok(more) => entries.extend(more),
        Err(error) if is_exhausted(&error) => return Err(error),
        // Missing where the kernel has no IPv6.
        Err(_) => {}
    }
    Ok(entries)
}

/// What was read of a process; `None` where it is gone meanwhile, or not ours to look at. That this
/// process can open no further file says nothing about the other one.
fn unless_gone<T>(read: ProcResult<T>) -> ProcResult<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if is_exhausted(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Whether something was not read because this process, or the host, has no file or memory left.
fn is_exhausted(error: &ProcError) -> bool {
    matches!(error, ProcError::Io(error, _) if lacks_room(error))
}

fn lacks_room(error: &io::Error) -> bool {
    let number = error.raw_os_error().map(Errno::from_raw);
    matches!(number, Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM))
}

/// What tells one network namespace from another.
pub(super) fn namespace(process: &Process) -> Option<u64> {
    namespace_of(process.pid())
}

/// The same by the process id. Opens nothing.
fn namespace_of(pid: i32) -> Option<u64> {
    let link = fs::metadata(format!("/proc/{pid}/ns/net")).ok()?;
    Some(link.ino())
}

/// Fails for a process that is gone meanwhile, and for threads' leftovers.
fn holder(pid: i32, wanted: &HashSet<u64>) -> ProcResult<(u32, Holder)> {
    let process = Process::new(pid)?;
    let stat = process.stat()?;
    let mut inodes = BTreeSet::new();
    if let Some(files) = unless_gone(process.fd())? {
        for file in files.flatten() {
            if let FDTarget::Socket(inode) = file.target
                && wanted.contains(&inode)
            {
                inodes.insert(inode);
            }
        }
    }
    let parent = u32::try_from(stat.ppid).unwrap_or(0);
    Ok((pid.unsigned_abs(), Holder { parent, inodes }))
}

/// The processes of a cgroup v2 folder and of those below it.
fn watched(folder: &Path) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // Unreadable where it is gone meanwhile, and in threaded cgroups, whose processes are
        // listed by the domain above.
        let list = match fs::read_to_string(folder.join("cgroup.procs")) {
            Ok(list) => list,
            Err(error) if lacks_room(&error) => return Err(error),
            Err(_) => String::new(),
        };
        // A process of another pid namespace is listed as 0.
        found.extend(
            list.lines()
                .filter_map(|line| line.parse::<i32>().ok())
                .filter(|pid| *pid > 0),
        );
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if lacks_room(&error) => return Err(error),
            Err(_) => continue,
        };
        folders.extend(
            entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
    Ok(found)
}
