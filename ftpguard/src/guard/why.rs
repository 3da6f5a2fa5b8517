//! Gathers what is known of a denial, an address or a port.

use std::{net::IpAddr, time::Instant};

use ftpguard_common::{
    abi::{Peer, Process},
    event::Event,
    net::{Address, Port},
    verdict::Verdict,
};

use super::Guard;
use crate::{
    doctor::predict::Sample,
    events::{Ends, Happening},
    kernel::{CpuCounters, KernelError, Maps},
    status::{self, Count},
    why::{
        PortState, Refusal, Subject, Why,
        evidence::{Evidence, propose},
        explain::explain,
        memory::{Around, Denied},
    },
};

/// When monitor mode began, and what was counted until then.
pub(super) struct Monitored {
    since: Instant,
    before: CpuCounters,
}

impl Guard {
    /// Remembers a denial with what surrounds it.
    pub(super) fn remember(&mut self, what: &Happening, event: &Event) {
        let maps = &self.kernel.maps;
        let peer = Peer::of_any(event.remote);
        let process: Option<Process> = match event.tgid {
            0 => None,
            tgid => Maps::find(&maps.processes, &tgid).ok().flatten(),
        };
        let around = Around {
            serves: process
                .filter(|process| process.session_id != 0)
                .map(|process| Ends::from(&process.session)),
            has_session: matches!(Maps::find(&maps.peers, &peer), Ok(Some(_))),
        };
        self.journal.remember(event.at, what, &around);
    }

    /// Notes which port an FTP server chose (rule D1).
    pub(super) fn note_port(&mut self, what: &Happening, event: &Event) {
        if matches!(what, Happening::PinholeMade { .. })
            && let Some(key) = self.state.session(event.session)
        {
            self.ports
                .note(key.server_port.number(), event.local_port.number());
        }
    }

    /// The passive ports that were seen, by FTP server.
    pub(super) fn port_samples(&self) -> Vec<Sample> {
        self.ports.samples(|control_port| {
            let ftpd = self
                .config
                .ftpd
                .iter()
                .find(|ftpd| ftpd.control_ports.contains(&control_port))?;
            let sizes = ftpd
                .passive_ports
                .iter()
                .map(|range| u32::try_from(range.ports().count()).unwrap_or(u32::MAX));
            Some(sizes.sum()).filter(|size| *size > 0)
        })
    }

    /// From here on monitor mode collects its evidence.
    pub(super) fn begin_monitor(&mut self) -> Result<(), KernelError> {
        self.journal.memory.begin_monitor();
        self.monitored = Some(Monitored {
            since: Instant::now(),
            before: self.kernel.counters()?,
        });
        Ok(())
    }

    /// What monitor mode would have refused.
    pub(super) fn evidence(&self) -> Result<Option<Evidence>, KernelError> {
        let Some(monitored) = &self.monitored else {
            return Ok(None);
        };
        let counters = self.kernel.counters()?;
        let mut sources = self.journal.memory.find(|denied| denied.passed);
        sources.sort_by_key(|denied| std::cmp::Reverse(denied.count));
        let mut reasons = since(status::verdicts(&counters), &monitored.before);
        if self.config.enforces() && self.clients.refusal().is_none() {
            reasons = only_passed(reasons, &sources);
        }
        Ok(Some(Evidence {
            since: monitored.since.elapsed().as_secs(),
            reasons,
            proposals: propose(&sources, &self.config.exception),
            sources,
            forgotten: self.journal.memory.forgotten_evidence(),
        }))
    }

    /// Answers why.
    pub(super) fn why(&self, subject: Subject) -> Why {
        let mut found = self.journal.memory.find(|denied| concerns(denied, subject));
        if subject == Subject::Last {
            found.truncate(1);
        }
        let concerned = |address: IpAddr, port: Option<u16>| match subject {
            Subject::Last => false,
            Subject::Address(wanted) => address == wanted,
            Subject::Port(wanted) => port == Some(wanted),
        };
        let mut sessions = self.sessions();
        sessions.retain(|row| concerned(row.ends.client, row.pinhole));
        let mut pinholes = self.pinholes();
        pinholes.retain(|row| concerned(row.way.client, Some(row.way.port)));
        Why {
            subject,
            mode: self.config.mode.label().to_owned(),
            uptime: self.ready_at.elapsed().as_secs(),
            denials: found
                .into_iter()
                .map(|denied| Refusal {
                    explanation: explain(&denied),
                    denied,
                })
                .collect(),
            forgotten: self.journal.memory.forgotten(),
            sessions,
            pinholes,
            port: match subject {
                Subject::Port(port) => Some(self.port_state(port)),
                Subject::Last | Subject::Address(_) => None,
            },
        }
    }

    fn port_state(&self, port: u16) -> PortState {
        let mut state = PortState {
            control: self.config.control_ports().contains(&port),
            declared: self
                .config
                .ftpd
                .iter()
                .find(|ftpd| ftpd.passive_ports.iter().any(|range| range.contains(port)))
                .map(|ftpd| ftpd.name.clone()),
            ..PortState::default()
        };
        for (endpoint, listener) in Maps::entries(&self.kernel.maps.listeners) {
            if endpoint.port.number() != port {
                continue;
            }
            let address = Address::ip(endpoint.address);
            if listener.control_port == Port::NONE {
                state.foreign.push(address);
            } else {
                state.guarded.push(address);
            }
        }
        state
    }
}

fn concerns(denied: &Denied, subject: Subject) -> bool {
    match subject {
        Subject::Last => true,
        Subject::Address(address) => {
            denied.remote == address
                || denied.open_for.contains(&address)
                || denied.requested_by == Some(address)
                || denied.serves.is_some_and(|ends| ends.client == address)
        }
        // Of a scan only the last port is remembered.
        Subject::Port(port) => denied.port == port,
    }
}

/// The denials that were counted since.
fn since(counts: Vec<Count>, before: &CpuCounters) -> Vec<Count> {
    let former = status::verdicts(before);
    counts
        .into_iter()
        .filter(|count| count.verdict == status::verdict_label(Verdict::Deny))
        .filter_map(|mut count| {
            let known = former.iter().find(|former| former.name == count.name);
            count.count -= known.map_or(0, |known| known.count).min(count.count);
            (count.count > 0).then_some(count)
        })
        .collect()
}

/// Where some FTP servers are enforced the counters do not tell which denials took effect; those
/// that were told one by one do.
fn only_passed(counts: Vec<Count>, passed: &[Denied]) -> Vec<Count> {
    counts
        .into_iter()
        .filter_map(|mut count| {
            let of_reason = passed.iter().filter(|denied| denied.reason == count.name);
            count.count = of_reason.map(|denied| denied.count).sum();
            (count.count > 0).then_some(count)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::why::memory::Attempt;

    #[test]
    fn a_denial_concerns_everybody_in_it() {
        let address = |last: u8| IpAddr::from([10, 0, 0, last]);
        let denied = Denied {
            attempt: Attempt::Syn,
            reason: "no-pinhole".to_owned(),
            passed: false,
            remote: address(3),
            port: 50_000,
            server: None,
            pid: None,
            serves: None,
            requested_by: Some(address(5)),
            open_for: vec![address(4)],
            has_session: false,
            count: 1,
            first: 0,
            last: 0,
        };
        for (subject, wanted) in [
            (Subject::Last, true),
            (Subject::Address(address(3)), true),
            (Subject::Address(address(4)), true),
            (Subject::Address(address(5)), true),
            (Subject::Address(address(6)), false),
            (Subject::Port(50_000), true),
            (Subject::Port(50_001), false),
        ] {
            assert_eq!(concerns(&denied, subject), wanted, "{subject:?}");
        }
    }
}
