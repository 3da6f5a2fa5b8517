//! Which ftpds there are, by their control ports, and how surely they are attributed (rule P4).

use std::collections::BTreeMap;

use ftpguard_common::{
    abi::{Process, process_flags},
    net::Port,
};

use super::Guard;
use crate::{
    config::TrackingArg,
    kernel::Maps,
    status::{FtpdRow, Level},
    values::printable,
};

impl Guard {
    /// One row for each control port that a process serves.
    pub(super) fn ftpds(&self) -> Vec<FtpdRow> {
        let mut by_port: BTreeMap<u16, Vec<(u32, Process)>> = BTreeMap::new();
        for (pid, process) in Maps::entries(&self.kernel.maps.processes) {
            by_port
                .entry(process.control_port.number())
                .or_default()
                .push((pid, process));
        }
        // An ftpd whose last session is over still has its counts.
        for port in self.config.control_ports() {
            if self.state.origins.of(port) != crate::state::OriginCounts::default() {
                by_port.entry(port).or_default();
            }
        }
        by_port
            .into_iter()
            .map(|(control_port, processes)| self.ftpd(control_port, &processes))
            .collect()
    }

    fn ftpd(&self, control_port: u16, processes: &[(u32, Process)]) -> FtpdRow {
        let origins = self.state.origins.of(control_port);
        let level = Level::reached(&origins);
        let threads = processes
            .iter()
            .any(|(_, process)| process.flags & process_flags::UNSAFE != 0);
        let reused = self.config.tracking == TrackingArg::Socket;
        let unseen = self.kernel.maps.saw_multipath(Port::new(control_port));
        let pids = heads(processes);
        FtpdRow {
            control_port,
            name: pids.first().and_then(|pid| name(*pid)).unwrap_or_default(),
            pids,
            level: level.label().to_owned(),
            why: level.why(threads, reused, unseen).to_owned(),
            origins,
        }
    }
}

/// Those that accept sessions; where a service manager does, those whose parents are not the
/// ftpd's.
fn heads(processes: &[(u32, Process)]) -> Vec<u32> {
    let is_acceptor = |process: &Process| process.flags & process_flags::ACCEPTOR != 0;
    let is_known = |pid: u32| processes.iter().any(|(known, _)| *known == pid);
    let accepting = processes.iter().any(|(_, process)| is_acceptor(process));
    let mut pids: Vec<u32> = processes
        .iter()
        .filter(|(_, process)| {
            if accepting {
                is_acceptor(process)
            } else {
                !is_known(process.parent)
            }
        })
        .map(|(pid, _)| *pid)
        .collect();
    pids.sort_unstable();
    pids
}

/// What the process is called, without anything that a terminal would obey.
fn name(pid: u32) -> Option<String> {
    let process = procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?;
    let name = process.stat().ok()?.comm;
    Some(printable(&name))
}
