//! A guard's state as metrics, in the OpenMetrics text format.
//!
//! Names follow the conventions of Prometheus: the prefix `ftpguard_`, `_total` for what only
//! grows, base units (`_seconds`, `_bytes`), and `process_` names for the daemon's own process.
//! Labels take their values from closed lists, never from the network, so that no client can
//! make time series. `docs/metrics.md` lists every name; a test compares.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use ftpguard_common::verdict::{Incident, Reason, Verdict};
use procfs::process::Process;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

use crate::{
    kernel::capacity,
    status::{Count, Hooks, Status},
};

/// The media type of the text that [`exposition`] makes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    verdict: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByIncident {
    incident: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByMode {
    mode: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByFtpdAndMode {
    ftpd: String,
    mode: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOwner {
    owner: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByTable {
    table: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByHook {
    interface: String,
    direction: &'static str,
    hook: String,
}

/// What the kernel says of the daemon's own process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Seconds of processor time since it started.
    pub cpu_seconds: f64,
    /// Bytes of it in memory.
    pub resident_bytes: u64,
    /// Open file descriptors.
    pub open_fds: u64,
}

impl Usage {
    /// Reads it of this process. What cannot be read is 0.
    #[must_use]
    pub fn of_this_process() -> Self {
        let Ok(process) = Process::myself() else {
            return Self::default();
        };
        let mut usage = Self::default();
        if let Ok(stat) = process.stat() {
            #[expect(
                clippy::cast_precision_loss,
                reason = "exact up to 2^53 ticks, which is longer than any uptime"
            )]
            let seconds =
                (stat.utime + stat.stime) as f64 / procfs::ticks_per_second().max(1) as f64;
            usage.cpu_seconds = seconds;
            usage.resident_bytes = stat.rss * procfs::page_size();
        }
        usage.open_fds = process
            .fd_count()
            .map_or(0, |count| u64::try_from(count).unwrap_or(u64::MAX));
        usage
    }
}

/// The metrics of a guard in this state, as text that ends with `# EOF`.
pub fn exposition(status: &Status, usage: &Usage) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    let guard = registry.sub_registry_with_prefix("ftpguard");
    add_verdicts(guard, status);
    add_totals(guard, status);
    add_tables(guard, status);
    add_state(guard, status);
    add_process(registry.sub_registry_with_prefix("process"), usage);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// Every reason and incident has its series from the start, so that the first denial is an
/// increase and not a new series, which `rate()` would not see.
fn add_verdicts(registry: &mut Registry, status: &Status) {
    let verdicts = Family::<ByReason, Counter>::default();
    for reason in Reason::ALL {
        let labels = ByReason {
            verdict: match reason.verdict() {
                Verdict::Pass => "pass",
                Verdict::Deny => "deny",
            },
            reason: reason.label(),
        };
        let count = count_of(&status.verdicts, reason.label());
        verdicts.get_or_create(&labels).inc_by(count);
    }
    registry.register(
        "verdicts",
        "Verdicts on SYNs and connect() calls; in monitor mode those that deny take no effect",
        verdicts,
    );
    let incidents = Family::<ByIncident, Counter>::default();
    for incident in Incident::ALL {
        let labels = ByIncident {
            incident: incident.label(),
        };
        let count = count_of(&status.incidents, incident.label());
        incidents.get_or_create(&labels).inc_by(count);
    }
    registry.register(
        "incidents",
        "What happened to the guard itself: full tables, lost events",
        incidents,
    );
}

fn count_of(counts: &[Count], name: &str) -> u64 {
    counts
        .iter()
        .find(|count| count.name == name)
        .map_or(0, |count| count.count)
}

fn add_totals(registry: &mut Registry, status: &Status) {
    let totals = &status.totals;
    for (name, help, count) in [
        (
            "sessions_opened",
            "Control connections seen, adopted ones included",
            totals.sessions,
        ),
        ("pinholes_made", "Pinholes made", totals.pinholes_made),
        (
            "pinholes_used",
            "Pinholes whose data connection was established",
            totals.pinholes_used,
        ),
        (
            "unreadable_records",
            "Records of the kernel side that made no sense to the daemon",
            totals.unreadable,
        ),
        (
            "unread_sessions",
            "Control connections whose text was not read because too many others were",
            totals.unread,
        ),
        (
            "malformed_arguments",
            "PORT, EPRT and LPRT commands with an argument that could not be read",
            totals.malformed_arguments,
        ),
    ] {
        let counter: Counter = Counter::default();
        counter.inc_by(count);
        registry.register(name, help, counter);
    }
}

fn add_tables(registry: &mut Registry, status: &Status) {
    registry.register(
        "sessions",
        "Open control connections",
        gauge(status.sessions),
    );
    registry.register("pinholes", "Open pinholes", gauge(status.pinholes));
    let listeners = Family::<ByOwner, Gauge>::default();
    for (owner, count) in [
        ("guarded", status.guarded_listeners),
        ("foreign", status.foreign_listeners),
    ] {
        listeners
            .get_or_create(&ByOwner { owner })
            .set(whole(count));
    }
    registry.register(
        "listeners",
        "Listening sockets: the FTP server's, and those of other software in the declared range",
        listeners,
    );
    let capacities = Family::<ByTable, Gauge>::default();
    for (table, map) in [
        ("sessions", "SESSIONS"),
        ("pinholes", "PINHOLES"),
        ("listeners", "LISTENERS"),
    ] {
        let most = capacity(map, status.endurance.max_sessions);
        capacities
            .get_or_create(&ByTable { table })
            .set(most.into());
    }
    registry.register(
        "table_capacity",
        "How many entries a table takes; a newcomer to a full one is refused",
        capacities,
    );
}

fn add_state(registry: &mut Registry, status: &Status) {
    let mode = Family::<ByMode, Gauge>::default();
    for name in ["enforce", "monitor"] {
        mode.get_or_create(&ByMode { mode: name })
            .set(i64::from(status.effective_mode() == name));
    }
    registry.register("mode", "1 for the mode in force, 0 for the other", mode);
    let ftpds = Family::<ByFtpdAndMode, Gauge>::default();
    for ftpd in &status.ftpd_modes {
        let in_force = status.in_force(&ftpd.mode);
        for mode in ["enforce", "monitor"] {
            ftpds
                .get_or_create(&ByFtpdAndMode {
                    ftpd: ftpd.name.clone(),
                    mode,
                })
                .set(i64::from(in_force == mode));
        }
    }
    registry.register(
        "ftpd_mode",
        "1 for the mode in force for an FTP server, 0 for the other",
        ftpds,
    );
    registry.register(
        "enforcement_refused",
        "1 while enforce mode takes no effect because a proxy hides the clients",
        gauge(status.is_refused().into()),
    );
    let is_unguarded = |hooks: &&Hooks| hooks.ingress == Hooks::NONE;
    registry.register(
        "unguarded_interfaces",
        "Interfaces that could not be guarded",
        gauge(whole_len(
            status.interfaces.iter().filter(is_unguarded).count(),
        )),
    );
    let hooks = Family::<ByHook, Gauge>::default();
    for interface in &status.interfaces {
        for (direction, hook, holds) in [
            ("ingress", &interface.ingress, interface.ingress_holds),
            ("egress", &interface.egress, interface.egress_holds),
        ] {
            if hook == Hooks::NONE {
                continue;
            }
            hooks
                .get_or_create(&ByHook {
                    interface: interface.interface.clone(),
                    direction,
                    hook: hook.clone(),
                })
                .set(i64::from(holds));
        }
    }
    registry.register(
        "hook_attached",
        "1 for a hook that is in place on its interface, 0 for one that somebody detached",
        hooks,
    );
    registry.register(
        "unsafe_processes",
        "Processes of the FTP server that get no pinhole from sockets",
        gauge(whole_len(status.unsafe_processes.len())),
    );
    registry.register(
        "missing_kernel_features",
        "Kernel features that the guard does without",
        gauge(whole_len(status.degraded.len())),
    );
    registry.register_with_unit(
        "uptime",
        "Time since the guard was ready",
        Unit::Seconds,
        gauge(status.uptime),
    );
    registry.register(
        "build",
        "The guard's version, and the kernel it runs on",
        Info::new([
            ("version", status.version.clone()),
            ("kernel", status.kernel.clone()),
        ]),
    );
}

fn add_process(registry: &mut Registry, usage: &Usage) {
    let cpu = Counter::<f64, AtomicU64>::default();
    cpu.inner()
        .store(usage.cpu_seconds.to_bits(), Ordering::Relaxed);
    registry.register_with_unit(
        "cpu",
        "Processor time of the daemon, in user space and in the kernel",
        Unit::Seconds,
        cpu,
    );
    registry.register_with_unit(
        "resident_memory",
        "Memory of the daemon that is in use, without the kernel side's tables",
        Unit::Bytes,
        gauge(usage.resident_bytes),
    );
    registry.register(
        "open_fds",
        "Open file descriptors of the daemon",
        gauge(usage.open_fds),
    );
}

fn gauge(value: u64) -> Gauge {
    let gauge: Gauge = Gauge::default();
    gauge.set(whole(value));
    gauge
}

fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn whole_len(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests;
