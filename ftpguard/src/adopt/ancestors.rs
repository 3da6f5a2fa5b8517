//! Processes that a service manager started for one session (inetd, systemd with `Accept=yes`).
//!
//! The acceptor is not the ftpd then, so the kernel side meets such a process when it first
//! reads, and does not know its parents. What makes a parent one of the session's processes is
//! the inherited control socket (rule F2); vsftpd's privileged parent is such a one, and it is
//! the one that listens.

use std::collections::HashSet;

use ftpguard_common::{
    abi::{Process, SessionKey},
    net::Address,
};
use procfs::process::{FDTarget, Process as Entry};

use super::snapshot::tables;
use crate::kernel::{Kernel, KernelError, Maps};

/// How far up is looked, as in the kernel's socket observer.
const MAX_ANCESTORS: usize = 4;

/// Adds the ancestors of a process that was found reading a control connection, as far as they
/// hold the same socket. Gives how many were added.
pub fn adopt_ancestors(
    kernel: &mut Kernel,
    found: u32,
    session: &SessionKey,
    session_id: u64,
) -> Result<usize, KernelError> {
    let Some(inode) = inode_of(found, session) else {
        // Gone meanwhile.
        return Ok(0);
    };
    let processes = &mut kernel.maps.processes;
    let mut child = found;
    let mut added = 0;
    while added < MAX_ANCESTORS {
        let Some(parent) = parent_of(child).filter(|parent| *parent > 1) else {
            break;
        };
        if !holds(parent, inode) {
            break;
        }
        let Some(known) = Maps::find(processes, &child)? else {
            break;
        };
        let ancestor = Process {
            session_id,
            session: *session,
            parent: parent_of(parent).unwrap_or(0),
            control_port: session.server_port,
            flags: 0,
            reader: 0,
        };
        if !Maps::add(processes, &parent, &ancestor)? {
            break;
        }
        Maps::change(processes, &child, &Process { parent, ..known })?;
        added += 1;
        child = parent;
    }
    Ok(added)
}

fn entry(pid: u32) -> Option<Entry> {
    Entry::new(i32::try_from(pid).ok()?).ok()
}

fn parent_of(pid: u32) -> Option<u32> {
    u32::try_from(entry(pid)?.stat().ok()?.ppid).ok()
}

/// The socket of the session. The process may sit in a network namespace of its own, as vsftpd's
/// reader does; the socket is listed where it was made, which is the guard's or its parent's.
fn inode_of(pid: u32, session: &SessionKey) -> Option<u64> {
    let held = sockets(&entry(pid)?);
    let parent = parent_of(pid).and_then(entry);
    [Entry::myself().ok(), entry(pid), parent]
        .into_iter()
        .flatten()
        .filter_map(|process| tables(&process).ok())
        .flatten()
        .find(|open| {
            held.contains(&open.inode)
                && open.local_address.port() == session.server_port.number()
                && open.remote_address.port() == session.client_port.number()
                && Address::from(open.remote_address.ip()) == session.client
        })
        .map(|open| open.inode)
}

fn holds(pid: u32, inode: u64) -> bool {
    entry(pid).is_some_and(|process| sockets(&process).contains(&inode))
}

fn sockets(process: &Entry) -> HashSet<u64> {
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
