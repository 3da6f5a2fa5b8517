//! Whether a process is still there.
//!
//! The kernel side forgets a process when it exits. What the daemon adds after that stays: when the
//! process id is used again, an unrelated process would serve the dead one's session (rule F2).

use std::fs;

use ftpguard_common::{
    abi::{Parent, Process, process_flags},
    net::Port,
};
use nix::{errno::Errno, sys::signal::kill, unistd::Pid};
use procfs::process::Process as Entry;

use crate::kernel::{Added, KernelError, Maps};

/// `PF_EXITING` of `<linux/sched.h>`: set before the kernel side is told of the exit.
const EXITING: u32 = 0x4;

/// Adds a process unless it is known, and takes it back where it has exited: either that is seen
/// here, or the kernel side sees the exit after it was added. One without room is noted to be
/// the ftpd's all the same (rule K9).
pub(super) fn add(maps: &mut Maps, pid: u32, process: &Process) -> Result<Added, KernelError> {
    let added = Maps::add(&mut maps.processes, &pid, process)?;
    match added {
        Added::Known => {}
        Added::New => {
            if has_exited(pid) {
                Maps::forget(&mut maps.processes, &pid)?;
                return Ok(Added::Known);
            }
        }
        Added::NoRoom => {
            let is_ftpds = is_ftpds(maps, process.parent)?;
            let left_out = Parent {
                tgid: if is_ftpds { process.parent } else { 0 },
                control_port: process.control_port,
                flags: process.flags & process_flags::ACCEPTOR,
            };
            // The oldest goes where that table is full.
            let _ = Maps::put(&mut maps.parents, &pid, &left_out)?;
            if has_exited(pid) {
                Maps::forget(&mut maps.parents, &pid)?;
            }
        }
    }
    Ok(added)
}

/// Whether a process is known to belong to an ftpd. What is noted as a parent becomes one of the
/// ftpd's processes once there is room: the service manager must not.
fn is_ftpds(maps: &Maps, pid: u32) -> Result<bool, KernelError> {
    let noted = Maps::find(&maps.parents, &pid)?;
    Ok(noted.is_some_and(|noted| noted.control_port != Port::NONE)
        || Maps::find(&maps.processes, &pid)?.is_some())
}

/// Whether a process is gone, or has begun to exit. A zombie has exited.
fn has_exited(pid: u32) -> bool {
    let stat = i32::try_from(pid)
        .ok()
        .and_then(|pid| Entry::new(pid).ok()?.stat().ok());
    stat.is_none_or(|stat| stat.flags & EXITING != 0 || matches!(stat.state, 'Z' | 'X'))
}

/// Whether no process has this id, so that it can be given to another one.
pub(crate) fn is_free(pid: u32) -> bool {
    i32::try_from(pid).is_ok_and(|pid| kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH))
}

/// Whether process ids mean here what they mean to the kernel side: not in a pid namespace.
pub(crate) fn sees_every_process() -> bool {
    fs::read_link("/proc/self/ns/pid")
        .is_ok_and(|namespace| namespace.as_os_str() == FIRST_NAMESPACE)
}

/// `PROC_PID_INIT_INO` of `<linux/proc_ns.h>`.
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

#[cfg(test)]
mod tests {
    use std::process::{self, Command};

    use super::*;

    #[test]
    fn a_zombie_has_exited_and_its_id_is_not_free() {
        let mut child = Command::new("true").spawn().expect("a child");
        let pid = child.id();
        while !has_exited(pid) {
            std::thread::yield_now();
        }
        assert!(!is_free(pid));
        child.wait().expect("its end");
        assert!(has_exited(pid));
        assert!(is_free(pid));
        assert!(!has_exited(process::id()));
        assert!(!is_free(process::id()));
    }
}
