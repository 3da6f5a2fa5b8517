//! What the guard is told, by the file and by the command line.
//!
//! Every key stands once, in the table below: it makes the option, the key of the file, the
//! default, the text of the shipped file and the answer to "can a running guard take it?". To add
//! a key, add an entry there and let `FTPGUARD_BLESS=1 cargo test -p ftpguard shipped` write it
//! into `packaging/ftpguard.toml`.
//!
//! - [`file`](mod@file): reads the file; every error has its line and column.
//! - [`ftpd`]: the tables `[[ftpd]]` and `[[exception]]`.
//! - [`choices`]: the words that keys may have as values.
//! - `check`: what no single value can show.
//! - `given`: the command line over the file.
//! - `say`: `ftpguard check`.
//! - `render`: the file that says what a [`Config`] says, explained.

mod check;
pub mod choices;
pub mod file;
pub mod ftpd;
mod given;
mod keys;
mod render;
mod say;

use std::{net::IpAddr, path::PathBuf};

use clap::Args;
use ftpguard_common::{abi::MAX_SESSIONS, net::Address};
use serde::{Deserialize, Serialize};

use self::keys::keys;
pub use self::{
    check::Problem,
    choices::{ActiveArg, HiddenArg, ModeArg, OnStop, TrackingArg, WithoutDaemonArg, XdpArg},
    file::Wrong,
    ftpd::{ExceptionRule, Ftpd},
    given::Unusable,
    say::say,
};
use crate::{
    metrics::MetricsAddress,
    nft::NftSet,
    values::{PortRange, parse_address, parse_port},
};

/// Where the file lies unless `--config` names another.
pub const DEFAULT_FILE: &str = "/etc/ftpguard/ftpguard.toml";

/// One key of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name in the file.
    pub name: &'static str,
    /// What it means, line by line.
    pub explained: &'static [&'static str],
    /// Whether a running guard can take a new value.
    pub change: Change,
}

/// Whether a running guard can take a new value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It takes it while transfers go on.
    Now,
    /// It must be started again.
    Restart,
}

keys! {
    /// Whether denials take effect: "enforce", or "monitor" to let everything pass and report
    /// what would be refused. `ftpguard mode` switches a running guard.
    #[arg(long, value_name = "MODE")]
    mode: ModeArg = ModeArg::Enforce, now;

    /// Interfaces to guard. None named: every one but lo
    #[arg(long = "iface", value_name = "IFACE")]
    interfaces: Vec<String> = Vec::new(), restart;

    /// Where SYNs are judged: "native" or "generic" for XDP in the driver or in the network
    /// stack, "tc", or "auto" for XDP where the driver has it and TC elsewhere
    #[arg(long, value_name = "WHERE")]
    xdp_mode: XdpArg = XdpArg::Auto, restart;

    /// Who makes pinholes: "socket" for the FTP server's own listen(), which also works under
    /// TLS, or "text" for the replies on the wire
    #[arg(long, value_name = "BY")]
    tracking: TrackingArg = TrackingArg::Socket, restart;

    /// Whom active mode may reach: the session's "client" and the exceptions below, the
    /// "exceptions" only, or nobody ("off")
    #[arg(long, value_name = "WHOM")]
    active: ActiveArg = ActiveArg::Client, now;

    /// How many data connections the client may open to one announced port, 1 to 16. More than
    /// one is for clients that transfer in parallel (MODE B or E)
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..=16))]
    uses: u8 = 1, now;

    /// Ports from which the FTP server opens active data connections
    #[arg(long = "data-source-port", value_name = "PORT", value_parser = parse_port)]
    #[serde(deserialize_with = "crate::values::one_or_many::some_ports")]
    data_source_ports: Vec<u16> = vec![20], now;

    /// Addresses by which clients know the FTP servers where address translation hides this host's:
    /// replies that name them are no fault (pasv_address, MasqueradeAddress, ForcePassiveIP)
    #[arg(long = "public-address", value_name = "ADDR", value_parser = parse_address)]
    #[serde(deserialize_with = "crate::values::one_or_many::some_addresses")]
    public_addresses: Vec<IpAddr> = Vec::new(), now;

    /// Drop SYNs from port 20 to this host's ports below 1024: other FTP servers cannot be made
    /// to attack its services
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    bounce_shield: bool = false, now;

    /// Where all clients come from one address, of this host or of its gateway, a proxy hides
    /// them: "refuse" to enforce and say so, or "enforce" all the same
    #[arg(long, value_name = "WHAT")]
    hidden_clients: HiddenArg = HiddenArg::Refuse, now;

    /// Sets of a firewall that are kept filled with the live pinholes: "inet filter ftp" for ftp4
    /// (ipv4_addr . inet_service) and ftp6 (ipv6_addr . inet_service) in the table filter of the
    /// family inet, or "off"
    #[arg(long, value_name = "FAMILY TABLE NAME")]
    nft_set: NftSet = NftSet::Off, restart;

    /// cgroup v2 folder whose processes are watched. Empty: the root of the hierarchy, which
    /// stands for every process of the host
    #[arg(long, value_name = "DIR")]
    cgroup: PathBuf = PathBuf::new(), restart;

    /// Whether the kernel goes on guarding when the daemon dies: pinned in a BPF file system
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pin: bool = true, restart;

    /// What happens when the daemon is told to stop: "detach" leaves the host unguarded, "keep"
    /// lets the kernel go on guarding, as after a crash
    #[arg(long, value_name = "WHAT")]
    on_stop: OnStop = OnStop::Detach, now;

    /// Whom ports that need the daemon admit while it is dead or hung: clients that hold a control
    /// connection ("control-peer"), nobody ("closed") or everybody ("open")
    #[arg(long, value_name = "WHOM")]
    without_daemon: WithoutDaemonArg = WithoutDaemonArg::ControlPeer, now;

    /// How many control connections are tracked at once: sizes every table. 16384 take about
    /// 32 MiB
    #[arg(long, value_name = "COUNT")]
    max_sessions: u32 = MAX_SESSIONS, restart;

    /// How many control connections of one client are tracked at once. Further ones get no data
    /// connections
    #[arg(long, value_name = "COUNT")]
    client_sessions: u32 = 64, now;

    /// Where metrics for Prometheus are served, on this host only: "127.0.0.1:9821",
    /// "unix:/run/ftpguard/metrics.sock", or "off"
    #[arg(long, value_name = "ADDR:PORT|unix:PATH")]
    metrics: MetricsAddress = MetricsAddress::Off, restart;

    /// Group whose members may ask a running guard for its state, beside root. They cannot
    /// change anything. Empty: root alone
    #[arg(long, value_name = "GROUP")]
    socket_group: String = String::new(), restart;

    /// The FTP servers of this host
    #[arg(skip)]
    ftpd: Vec<Ftpd> = vec![Ftpd::default()], now;

    /// Whom an FTP server may reach beside its own clients
    #[arg(skip)]
    exception: Vec<ExceptionRule> = Vec::new(), now;
}

impl Config {
    /// The control ports of every FTP server, sorted.
    #[must_use]
    pub fn control_ports(&self) -> Vec<u16> {
        let mut ports: Vec<u16> = self
            .ftpd
            .iter()
            .flat_map(|ftpd| ftpd.control_ports.iter().copied())
            .collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// The passive ranges of every FTP server, as they are written.
    #[must_use]
    pub fn passive_ports(&self) -> Vec<PortRange> {
        self.ftpd
            .iter()
            .flat_map(|ftpd| ftpd.passive_ports.iter().copied())
            .collect()
    }

    /// Whether clients know the FTP server with this control port by this address (rule R7).
    #[must_use]
    pub fn is_public(&self, address: Address, control_port: u16) -> bool {
        let own = self
            .ftpd
            .iter()
            .filter(|ftpd| ftpd.control_ports.contains(&control_port))
            .flat_map(|ftpd| &ftpd.public_addresses);
        self.public_addresses
            .iter()
            .chain(own)
            .any(|public| Address::from(*public) == address)
    }

    /// Each FTP server with the mode that holds for it.
    pub fn modes(&self) -> impl Iterator<Item = (&Ftpd, ModeArg)> {
        self.ftpd
            .iter()
            .map(|ftpd| (ftpd, ftpd.mode.unwrap_or(self.mode)))
    }

    /// Whether an FTP server is in monitor mode.
    #[must_use]
    pub fn monitors(&self) -> bool {
        self.modes().any(|(_, mode)| mode == ModeArg::Monitor)
    }

    /// Whether an FTP server is in enforce mode.
    #[must_use]
    pub fn enforces(&self) -> bool {
        self.modes().any(|(_, mode)| mode == ModeArg::Enforce)
    }

    /// The destinations of every exception.
    pub fn destinations(&self) -> impl Iterator<Item = crate::kernel::Destination> {
        self.exception
            .iter()
            .flat_map(|rule| rule.connect_to.iter().copied())
    }

    /// Who may open data connections for whom.
    pub fn relaxations(&self) -> impl Iterator<Item = crate::kernel::Relaxation> {
        self.exception
            .iter()
            .filter(|rule| !rule.data_from.is_empty())
            .map(|rule| crate::kernel::Relaxation {
                clients: if rule.clients.is_empty() {
                    rule.data_from.clone()
                } else {
                    rule.clients.clone()
                },
                data_from: rule.data_from.clone(),
            })
    }

    /// The folder given as `cgroup`, if one is.
    #[must_use]
    pub fn cgroup(&self) -> Option<&std::path::Path> {
        (!self.cgroup.as_os_str().is_empty()).then_some(self.cgroup.as_path())
    }
}

#[cfg(test)]
mod tests;
