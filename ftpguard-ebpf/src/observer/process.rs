//! The processes of guarded ftpds: descent, and which session each serves (rule F2).

use aya_ebpf::{
    helpers::{bpf_current_task_under_cgroup, bpf_get_current_pid_tgid},
    programs::RawTracePointContext,
};
use ftpguard_common::{
    abi::{Parent, Process, SessionKey, port_word, process_flags},
    event::{Event, EventKind},
    net::Port,
    verdict::Incident,
};

use super::{
    record::{Sock, task_pid},
    serving, session,
};
use crate::{
    maps::{CGROUP, PARENTS, PORTS, PROCESSES, SESSIONS},
    report::{emit_urgent, note, now, session_event},
};

/// `CLONE_THREAD` of `<linux/sched.h>`: a thread, and no process of its own.
const CLONE_THREAD: u64 = 0x0001_0000;

/// How far up a session claims the ancestors of the process that reads it. vsftpd needs two:
/// reader, privileged parent, acceptor.
const MAX_ANCESTORS: usize = 4;

/// A process that serves nobody yet.
#[inline(always)]
pub(crate) const fn idle(control_port: Port, parent: u32, flags: u16) -> Process {
    Process {
        session_id: 0,
        born: 0,
        session: SessionKey::NONE,
        parent,
        control_port,
        flags,
        reader: 0,
    }
}

/// The control port of the ftpd of a process that is not in `PROCESSES`, because there was no room
/// for it (rule K9); [`Port::NONE`] where it belongs to none.
#[inline(always)]
pub(crate) fn ftpd_of(tgid: u32) -> Port {
    noted(tgid).control_port
}

/// What is known of a process that is not in `PROCESSES`.
#[inline(always)]
fn noted(tgid: u32) -> Parent {
    // SAFETY: read at once.
    unsafe { PARENTS.get(&tgid) }.map_or(NOBODY, |known| *known)
}

/// Nothing.
const NOBODY: Parent = Parent {
    tgid: 0,
    control_port: Port::NONE,
    flags: 0,
};

/// The first process of the host. It is the parent of whatever lost its own, and of every service.
const INIT: u32 = 1;

/// Whether the current task is in the watched cgroup.
#[inline(always)]
pub(crate) fn in_scope() -> bool {
    // SAFETY: the map is a cgroup array with one element.
    let answer = unsafe { bpf_current_task_under_cgroup((&raw const CGROUP).cast_mut().cast(), 0) };
    answer == 1
}

/// The current process has opened a control port: its children are sessions.
#[inline(always)]
pub(crate) fn opened_control_port(port: Port) {
    let tgid = current_tgid();
    // Socket activation: the service manager listens, and is no ftpd (rule F2).
    if tgid == INIT {
        return;
    }
    if let Some(process) = PROCESSES.get_ptr_mut(tgid) {
        // SAFETY: the flags of a process are set by its own threads only.
        unsafe { (*process).flags |= process_flags::ACCEPTOR };
        return;
    }
    insert(tgid, &idle(port, 0, process_flags::ACCEPTOR));
}

/// A process was forked: a child of a guarded process is guarded. Of others it is noted who
/// forked them.
#[inline(always)]
pub(crate) fn forked(ctx: &RawTracePointContext) -> Option<()> {
    let parent_tgid = current_tgid();
    // The second argument of task_newtask.
    let flags: u64 = ctx.arg(1);
    if flags & CLONE_THREAD != 0 {
        return None;
    }
    let child = task_pid(ctx)?;
    // SAFETY: read at once.
    let Some(parent) = (unsafe { PROCESSES.get(&parent_tgid) }) else {
        let control_port = ftpd_of(parent_tgid);
        // What the service manager itself starts is no session yet.
        if control_port != Port::NONE || (parent_tgid != INIT && in_scope()) {
            note_parent(child, parent_tgid, control_port, 0);
        }
        return None;
    };
    let mut process = idle(parent.control_port, parent_tgid, 0);
    process.born = now();
    // What an acceptor forks is a new session; what a session forks belongs to it.
    if parent.flags & process_flags::ACCEPTOR == 0 {
        process.session_id = parent.session_id;
        process.session = parent.session;
        process.flags = parent.flags & (process_flags::SHARED | process_flags::TURNED_AWAY);
        if parent.session_id != 0 {
            process.flags |= process_flags::INHERITED;
        }
    }
    insert(child, &process);
    Some(())
}

/// A thread exits; with its first thread a process is forgotten.
#[inline(always)]
pub(crate) fn exited() {
    let pid_tgid = bpf_get_current_pid_tgid();
    let tgid = (pid_tgid >> 32) as u32;
    // SAFETY: the value is not read.
    let is_known = unsafe { PROCESSES.get(&tgid) }.is_some();
    if is_known {
        serving::forget();
    }
    if pid_tgid as u32 != tgid {
        return;
    }
    if is_known {
        // Just seen; gone already is as good.
        let _ = PROCESSES.remove(tgid);
    }
    // There only if a process forked it that is watched.
    let _ = PARENTS.remove(tgid);
}

/// The current thread read a control connection.
#[inline(always)]
pub(crate) fn control_read(ctx: &RawTracePointContext) -> Option<()> {
    let socket = Sock::of(ctx);
    let server_port = socket.local_port()?;
    let word = *PORTS.get(u32::from(server_port.number()))?;
    if word & port_word::CONTROL == 0 || !socket.is_of_host() {
        return None;
    }
    let key = SessionKey {
        client: socket.remote()?,
        server: socket.local()?,
        client_port: socket.remote_port()?,
        server_port,
    };
    // SAFETY: one field is read once.
    let mut id = unsafe { SESSIONS.get(&key) }.map_or(0, |session| session.id);
    if id == 0 {
        id = session::noticed(&key);
    }
    if id == 0 {
        turned_away(server_port);
        return None;
    }
    let pid_tgid = bpf_get_current_pid_tgid();
    let (tgid, tid) = ((pid_tgid >> 32) as u32, pid_tgid as u32);
    let Some(process) = PROCESSES.get_ptr_mut(tgid) else {
        found(tgid, tid, &key, id);
        return None;
    };
    // SAFETY: the entry stays valid for the time of this program.
    let process = unsafe { &mut *process };
    if process.reader != tid {
        if process.reader == 0 {
            process.reader = tid;
        } else {
            process.flags |= process_flags::MANY_READERS;
        }
    }
    if process.session_id == id && process.flags & process_flags::SHARED == 0 {
        process.flags &= !process_flags::INHERITED;
        return None;
    }
    if process.session_id == 0 || process.flags & process_flags::INHERITED != 0 {
        process.session = key;
        process.session_id = id;
        process.flags &= !process_flags::INHERITED;
        if process.flags & process_flags::ACCEPTOR == 0 {
            claim_ancestors(process.parent, &key, id);
        }
    } else if process.session_id != id {
        process.flags |= process_flags::SHARED;
    }
    if process.flags & process_flags::SHARED != 0 {
        let several = serving::remember(&key, id);
        // Threads that take turns: which one reads says little about which one listens.
        if several && process.flags & process_flags::MANY_READERS != 0 {
            process.flags |= process_flags::UNSAFE;
        }
    }
    Some(())
}

/// The current thread read a control connection that is not tracked (rule K9). What it opens for
/// that one is nobody else's.
#[inline(always)]
fn turned_away(control_port: Port) {
    let mut tgid = current_tgid();
    let Some(process) = PROCESSES.get_ptr_mut(tgid) else {
        // A service manager accepted it.
        if in_scope() {
            enlist(tgid, &idle(control_port, 0, process_flags::TURNED_AWAY));
        }
        return;
    };
    // SAFETY: the entry stays valid for the time of this program.
    let process = unsafe { &mut *process };
    serving::turn_away();
    process.flags |= process_flags::TURNED_AWAY;
    if process.session_id != 0 && process.flags & process_flags::INHERITED == 0 {
        // Its threads tell from now on which session is which.
        process.flags |= process_flags::SHARED;
        return;
    }
    if process.flags & process_flags::ACCEPTOR != 0 {
        return;
    }
    tgid = process.parent;
    for _ in 0..MAX_ANCESTORS {
        let Some(process) = PROCESSES.get_ptr_mut(tgid) else {
            return;
        };
        // SAFETY: as above.
        let process = unsafe { &mut *process };
        if process.flags & process_flags::ACCEPTOR != 0 {
            return;
        }
        process.flags |= process_flags::TURNED_AWAY;
        tgid = process.parent;
    }
}

/// A process that descends from no known one reads a control connection: a service manager
/// accepted it. The daemon looks up its ancestors.
#[inline(always)]
fn found(tgid: u32, tid: u32, key: &SessionKey, id: u64) {
    if !in_scope() {
        return;
    }
    let process = Process {
        session_id: id,
        session: *key,
        reader: tid,
        ..idle(key.server_port, 0, 0)
    };
    enlist(tgid, &process);
    emit_urgent(&Event {
        tgid,
        ..session_event(EventKind::ReaderFound, key, id, now())
    });
}

/// Adds a process that descends from no known one, and the one that forked it: vsftpd's privileged
/// parent never reads, and is the one that listens. An acceptor that there was no room for serves
/// nobody by being a parent.
#[inline(always)]
fn enlist(tgid: u32, process: &Process) {
    let known = noted(tgid);
    let parent = known.tgid;
    // SAFETY: the value is not read.
    if parent > INIT && unsafe { PROCESSES.get(&parent) }.is_none() {
        let above = noted(parent);
        if above.flags & process_flags::ACCEPTOR != 0 {
            insert(
                parent,
                &idle(above.control_port, above.tgid, process_flags::ACCEPTOR),
            );
        } else {
            insert(
                parent,
                &Process {
                    reader: 0,
                    ..*process
                },
            );
        }
    }
    insert(
        tgid,
        &Process {
            parent,
            flags: process.flags | known.flags,
            ..*process
        },
    );
}

/// The ancestors up to the acceptor serve the same session, unless they serve another already.
#[inline(always)]
fn claim_ancestors(first: u32, key: &SessionKey, id: u64) {
    let mut tgid = first;
    for _ in 0..MAX_ANCESTORS {
        let Some(process) = PROCESSES.get_ptr_mut(tgid) else {
            return;
        };
        // SAFETY: the entry stays valid for the time of this program.
        let process = unsafe { &mut *process };
        if process.flags & process_flags::ACCEPTOR != 0 || process.session_id == id {
            return;
        }
        if process.session_id != 0 {
            process.flags |= process_flags::SHARED;
            return;
        }
        process.session = *key;
        process.session_id = id;
        tgid = process.parent;
    }
}

/// Adds a process; where there is no room, it is noted whose it is.
#[inline(always)]
fn insert(tgid: u32, process: &Process) {
    if PROCESSES.insert(tgid, process, 0).is_err() {
        note(Incident::ProcessTableFull);
        let flags = process.flags & process_flags::ACCEPTOR;
        note_parent(tgid, process.parent, process.control_port, flags);
    }
}

#[inline(always)]
fn note_parent(tgid: u32, parent: u32, control_port: Port, flags: u16) {
    let parent = Parent {
        tgid: parent,
        control_port,
        flags,
    };
    // An LRU map always has room.
    let _ = PARENTS.insert(tgid, parent, 0);
}

#[inline(always)]
pub(crate) fn current_tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}
