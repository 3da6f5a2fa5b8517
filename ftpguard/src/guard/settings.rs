//! What the kernel side is told, from the configuration.

use std::time::Duration;

use ftpguard_common::abi::{Active, Mode, Policy, Tracking, WithoutDaemon};

use crate::{
    config::{Config, Ftpd},
    kernel::{FtpdPorts, Pins, Settings},
    nft::NftSet,
    preflight::Host,
};

/// How long a thread's last read of a control connection may name its session (rule F3). An
/// ftpd that serves several sessions in one process handles a command in one go; a second is a
/// busy host's worth of it.
const SERVING_AGE: Duration = Duration::from_secs(1);
/// How long the egress guard remembers a refused destination.
const BARRED_AGE: Duration = Duration::from_secs(5);
/// How old the last such sign may be before the daemon counts as dead or hung (rule M2).
const HEARTBEAT_AGE: Duration = Duration::from_secs(5);

pub(crate) fn settings(config: &Config, host: &Host, pins: Pins) -> Settings {
    Settings {
        policy: policy(config),
        ftpds: config.ftpd.iter().map(ftpd_ports).collect(),
        data_source_ports: config.data_source_ports.clone(),
        exceptions: config.destinations().collect(),
        relaxations: config.relaxations().collect(),
        bounce_shield: config.bounce_shield,
        cgroup: host.cgroup.clone(),
        max_sessions: config.max_sessions,
        pins: if host.has_bpffs { pins } else { Pins::Nowhere },
    }
}

fn ftpd_ports(ftpd: &Ftpd) -> FtpdPorts {
    FtpdPorts {
        control: ftpd.control_ports.clone(),
        passive: ftpd
            .passive_ports
            .iter()
            .map(|range| range.ports())
            .collect(),
        mode: ftpd.mode.map(Mode::from),
    }
}

fn policy(config: &Config) -> Policy {
    Policy {
        mode: Mode::from(config.mode) as u32,
        tracking: Tracking::from(config.tracking) as u32,
        active: Active::from(config.active) as u32,
        uses: u32::from(config.uses),
        serving_age: nanoseconds(SERVING_AGE),
        barred_age: nanoseconds(BARRED_AGE),
        heartbeat_age: nanoseconds(HEARTBEAT_AGE),
        without_daemon: WithoutDaemon::from(config.without_daemon) as u32,
        sessions_per_client: config.client_sessions,
        wake: u32::from(config.nft_set != NftSet::Off),
        refused: 0,
        relaxed: config.relaxations().next().is_some().into(),
        pad: 0,
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
