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

use super::{alive, apply::Open};

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

/// Where a reading of sockets looked.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The network namespaces, by what tells them apart.
    pub namespaces: HashSet<u64>,
    /// Whether these are those of every process of the host.
    pub is_whole: bool,
}

impl View {
    /// Adds that of another reading.
    pub fn add(&mut self, other: Self) {
        self.namespaces.extend(other.namespaces);
        self.is_whole &= other.is_whole;
    }

    /// Whether sockets of this process would have been seen: it is gone, or each of its threads is
    /// where this looked.
    #[must_use]
    pub fn has(&self, pid: u32) -> bool {
        let threads = match fs::read_dir(format!("/proc/{pid}/task")) {
            Ok(threads) => threads,
            Err(error) => return is_gone(&error),
        };
        threads.into_iter().all(|thread| {
            thread.is_ok_and(|thread| match namespace_at(&thread.path().join("ns/net")) {
                Ok(Some(namespace)) => self.namespaces.contains(&namespace),
                Ok(None) => true,
                Err(_) => false,
            })
        })
    }
}

/// It may be closed to everybody, and is no ftpd.
const SERVICE_MANAGER: i32 = 1;

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
        let (mut snapshot, _) = self.sockets(&pids)?;
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

    /// What is open now, whoever holds it, in the network namespace of any process.
    pub fn open(&self) -> ProcResult<Open> {
        let (snapshot, view) = self.sockets(&everybody()?)?;
        Ok(Open::of(&snapshot, view))
    }

    /// Sockets of the own network namespace and of those that these processes are in, without
    /// their holders; and which namespaces these are.
    ///
    /// One process at a time is open: a host may have more of them than this one may open files.
    fn sockets(&self, pids: &[i32]) -> ProcResult<(Snapshot, View)> {
        let myself = Process::myself()?;
        let mut snapshot = Snapshot::default();
        self.add_sockets(&mut snapshot, tables(&myself)?, true);
        let mut view = View {
            namespaces: namespace(&myself).into_iter().collect(),
            is_whole: alive::sees_every_process(),
        };
        let mut missed = HashSet::new();
        for pid in pids {
            let namespace = match namespace_at(&of_process(*pid)) {
                Ok(Some(namespace)) => namespace,
                // Gone meanwhile.
                Ok(None) => continue,
                Err(error) if lacks_room(&error) => return Err(error.into()),
                // Not ours to look at: its sockets cannot be seen. What the service manager itself
                // opened is asked of it by its number, see `View::has`.
                Err(_) => {
                    view.is_whole &= *pid == SERVICE_MANAGER;
                    continue;
                }
            };
            if view.namespaces.contains(&namespace) {
                continue;
            }
            let read = unless_gone(Process::new(*pid).and_then(|process| tables(&process)))?;
            match read.filter(|_| namespace_of(*pid) == Some(namespace)) {
                Some(entries) => {
                    self.add_sockets(&mut snapshot, entries, false);
                    view.namespaces.insert(namespace);
                }
                // Another process of that namespace may be looked at.
                None => {
                    missed.insert(namespace);
                }
            }
        }
        view.is_whole &= missed.is_subset(&view.namespaces);
        Ok((snapshot, view))
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
        // The kernel has no IPv6.
        Err(ProcError::NotFound(_)) => {}
        Err(error) => return Err(error),
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
    namespace_at(&of_process(pid)).ok().flatten()
}

fn of_process(pid: i32) -> PathBuf {
    format!("/proc/{pid}/ns/net").into()
}

/// The network namespace that this leads to; `None` where its process is gone.
fn namespace_at(link: &Path) -> io::Result<Option<u64>> {
    match fs::metadata(link) {
        Ok(link) => Ok(Some(link.ino())),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a process or thread was not there to be read.
fn is_gone(error: &io::Error) -> bool {
    let number = error.raw_os_error().map(Errno::from_raw);
    matches!(number, Some(Errno::ENOENT | Errno::ESRCH))
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

/// Every process of the host.
fn everybody() -> io::Result<Vec<i32>> {
    let names = fs::read_dir("/proc")?.map(|entry| Ok(entry?.file_name()));
    let names: Vec<_> = names.collect::<io::Result<_>>()?;
    let pids = names.iter().filter_map(|name| name.to_str()?.parse().ok());
    Ok(pids.collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of every process shows this one, and says when somebody is left out.
    #[test]
    fn a_view_knows_where_it_looked() {
        let myself = std::process::id();
        let own = namespace_of(myself.cast_signed()).expect("its namespace");
        assert!(everybody().expect("a list").contains(&myself.cast_signed()));
        let mut view = View {
            namespaces: [own].into(),
            is_whole: true,
        };
        assert!(view.has(myself));
        // No process id is that large (PID_MAX_LIMIT is 2^22).
        assert!(view.has(5_000_000));
        view.namespaces = [own + 1].into();
        assert!(!view.has(myself));
        view.add(View {
            namespaces: [own].into(),
            is_whole: false,
        });
        assert!(view.has(myself) && !view.is_whole);
    }

    /// That no further file can be opened is not taken for a process that is gone.
    #[test]
    fn who_has_no_descriptors_sees_nothing_and_says_so() {
        let failed = |errno: Errno| {
            let error = ProcError::from(io::Error::from(errno));
            unless_gone::<()>(Err(error))
        };
        for errno in [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM] {
            assert!(failed(errno).is_err(), "{errno}");
        }
        for errno in [Errno::ENOENT, Errno::ESRCH, Errno::EACCES] {
            assert!(failed(errno).is_ok_and(|read| read.is_none()), "{errno}");
        }
    }
}
