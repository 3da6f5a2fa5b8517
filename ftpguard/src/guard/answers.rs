//! Answers to the questions that come over the control socket, read from the maps.

use std::process;

use ftpguard_common::{
    abi::{Origin, process_flags},
    net::Port,
};

use super::{
    Guard,
    interfaces::{CONNECT, LAST_GATE},
    summary,
};
use crate::{
    clock,
    control_socket::{Answer, Question, Reply, Request},
    events::{Ends, Way},
    kernel::{KernelError, Maps},
    status::{self, Endurance, FtpdMode, PinholeRow, ProgramRow, SessionRow, Status, age_ms},
};

impl Guard {
    pub(super) fn answer(&mut self, question: Question) {
        let mut feed = None;
        let reply = match question.request {
            Request::Status {} => match self.status() {
                Ok(status) => Reply::Status(Box::new(status)),
                Err(error) => Reply::Error(error.to_string()),
            },
            Request::Sessions {} => Reply::Sessions(self.sessions()),
            Request::Pinholes {} => Reply::Pinholes(self.pinholes()),
            // Ends the main loop before it comes here.
            Request::Detach {} => return,
            Request::Events { follow } => {
                feed = follow.then(|| self.journal.follow());
                Reply::Events(self.journal.kept())
            }
            Request::Reload {} => match self.reload() {
                Ok(reloaded) => Reply::Reloaded(reloaded),
                Err(kept) => Reply::Error(kept.to_string()),
            },
            Request::Mode { mode } => {
                let switched = match mode {
                    Some(mode) => self.switch(mode),
                    None => self.switched(),
                };
                switched.map_or_else(|error| Reply::Error(error.to_string()), Reply::Mode)
            }
            Request::Ports {} => Reply::Ports(self.port_samples()),
            Request::Why { subject } => Reply::Why(Box::new(self.why(subject))),
        };
        // The client may have gone away meanwhile.
        let _ = question.answer.send(Answer { reply, feed });
    }

    fn status(&self) -> Result<Status, KernelError> {
        let maps = &self.kernel.maps;
        let counters = self.kernel.counters()?;
        let (mut guarded, mut foreign) = (0, 0);
        for (_, listener) in Maps::entries(&maps.listeners) {
            if listener.control_port == Port::NONE {
                foreign += 1;
            } else {
                guarded += 1;
            }
        }
        let mut unsafe_processes: Vec<u32> = Maps::entries(&maps.processes)
            .into_iter()
            .filter(|(_, process)| process.flags & process_flags::UNSAFE != 0)
            .map(|(tgid, _)| tgid)
            .collect();
        unsafe_processes.sort_unstable();
        let held = self.kernel.held()?;
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: process::id(),
            mode: self.config.mode.label().to_owned(),
            ftpd_modes: FtpdMode::all(&self.config),
            not_enforced: self.clients.refusal(),
            tracking: self.config.tracking.label().to_owned(),
            active: self.config.active.label().to_owned(),
            kernel: self.host.release.clone(),
            degraded: self
                .kernel
                .features()
                .missing()
                .map(|feature| format!("{}: {}", feature.label(), feature.without()))
                .collect(),
            uptime: self.ready_at.elapsed().as_secs(),
            cgroup: self.host.cgroup.display().to_string(),
            control_ports: self.config.control_ports(),
            passive_ports: summary::ranges(&self.config),
            endurance: Endurance {
                pins: self.kernel.pins().map(|pins| pins.display().to_string()),
                without_daemon: self.config.without_daemon.label().to_owned(),
                heartbeat_age: age_ms(maps.heartbeat.get(&0, 0).map_err(KernelError::from)?),
                max_sessions: self.config.max_sessions,
                client_sessions: self.config.client_sessions,
                memory: self.kernel.memory(),
            },
            interfaces: self.hooks(&held),
            last_gate: held.last_gate(),
            last_gate_note: self.interfaces.why_unmended(LAST_GATE),
            connect: held.connect(),
            connect_note: self.interfaces.why_unmended(CONNECT),
            sessions: count(Maps::entries(&maps.sessions).len()),
            pinholes: count(Maps::entries(&maps.pinholes).len()),
            guarded_listeners: guarded,
            foreign_listeners: foreign,
            unsafe_processes,
            ftpds: self.ftpds(),
            programs: self
                .kernel
                .run_times()
                .into_iter()
                .map(|(name, runs, nanoseconds)| ProgramRow {
                    name,
                    runs,
                    nanoseconds,
                })
                .collect(),
            totals: self.state.tally,
            verdicts: status::verdicts(&counters),
            incidents: status::incidents(&counters),
        })
    }

    pub(super) fn sessions(&self) -> Vec<SessionRow> {
        let now = clock::monotonic_ns();
        let mut rows: Vec<SessionRow> = Maps::entries(&self.kernel.maps.sessions)
            .into_iter()
            .map(|(key, session)| {
                let label = self.watcher.label(&key);
                SessionRow {
                    ends: Ends::from(&key),
                    age: age(
                        now,
                        match session.opened_at {
                            // It is named by when it was first seen.
                            0 => session.id,
                            at => at,
                        },
                    ),
                    // The session may still name one that is used or closed.
                    pinhole: Maps::find(&self.kernel.maps.pinholes, &session.pinhole)
                        .ok()
                        .flatten()
                        .and_then(|_| number(session.pinhole.port)),
                    active_port: self.text.active_port(&key).and_then(number),
                    text: label.text.to_owned(),
                    latest: label.latest,
                }
            })
            .collect();
        rows.sort_by_key(|row| (row.ends.client, row.ends.client_port));
        rows
    }

    pub(super) fn pinholes(&self) -> Vec<PinholeRow> {
        let now = clock::monotonic_ns();
        let mut rows: Vec<PinholeRow> = Maps::entries(&self.kernel.maps.pinholes)
            .into_iter()
            .map(|(key, pinhole)| PinholeRow {
                way: Way {
                    client: key.client.ip(),
                    server: key.server.ip(),
                    port: key.port.number(),
                },
                origin: Origin::from_number(pinhole.origin)
                    .map_or("unknown", Origin::label)
                    .to_owned(),
                age: age(now, pinhole.made_at),
                uses: pinhole.uses,
                client_port: pinhole.client_port.number(),
                control_port: pinhole.server_port.number(),
            })
            .collect();
        rows.sort_by_key(|row| (row.way.client, row.way.port));
        rows
    }
}

fn number(port: Port) -> Option<u16> {
    (port != Port::NONE).then(|| port.number())
}

fn age(now: u64, since: u64) -> u64 {
    now.saturating_sub(since) / 1_000_000_000
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
