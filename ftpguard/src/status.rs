//! What a running guard answers, and how people read it.

use std::{fmt::Write as _, net::IpAddr};

use ftpguard_common::verdict::{Incident, Reason, Verdict};
use serde::{Deserialize, Serialize};

use crate::{
    events::{Ends, Way},
    kernel::CpuCounters,
};

/// The state of a running guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// ftpguard's version.
    pub version: String,
    /// The guard's process.
    pub pid: u32,
    /// `monitor` or `enforce`.
    pub mode: String,
    /// `socket` or `text`.
    pub tracking: String,
    /// Whom active mode may reach: `client`, `exceptions` or `off`.
    pub active: String,
    /// The kernel's release.
    pub kernel: String,
    /// Seconds since the guard was ready.
    pub uptime: u64,
    /// The cgroup whose processes are watched.
    pub cgroup: String,
    /// Ports of control connections.
    pub control_ports: Vec<u16>,
    /// The declared passive range.
    pub passive_ports: Option<String>,
    /// Features that this kernel lacks, and what the guard does without.
    #[serde(default)]
    pub degraded: Vec<String>,
    /// What sits on each interface.
    pub interfaces: Vec<Hooks>,
    /// How many control connections are open.
    pub sessions: u64,
    /// How many pinholes are open.
    pub pinholes: u64,
    /// How many listeners of ftpds are guarded.
    pub guarded_listeners: u64,
    /// How many listeners of other software are left alone.
    pub foreign_listeners: u64,
    /// Processes of ftpds that get no pinhole from the socket observer.
    pub unsafe_processes: Vec<u32>,
    /// Verdicts, counted by reason; those that did not occur are left out.
    pub verdicts: Vec<Count>,
    /// What happened to the guard itself; what did not is left out.
    pub incidents: Vec<Count>,
}

/// What sits on one interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// The interface.
    pub interface: String,
    /// Where SYNs that come in are judged.
    pub ingress: String,
    /// Where SYNs that leave are judged.
    pub egress: String,
}

/// How often something happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Its name.
    pub name: String,
    /// `pass` or `deny`; empty for incidents.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub verdict: String,
    /// How often.
    pub count: u64,
    /// What it means.
    pub text: String,
}

/// One control connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// Both ends.
    #[serde(flatten)]
    pub ends: Ends,
    /// Seconds since it was opened.
    pub age: u64,
    /// The port of its pinhole.
    pub pinhole: Option<u16>,
    /// The only port that its active mode may reach, where it is narrowed (rule O10).
    pub active_port: Option<u16>,
    /// Whether its text is read: `clear`, `desynchronised`, why not, `unread` where nothing was.
    pub text: String,
    /// The latest thing the text said about data connections.
    pub latest: Option<String>,
}

/// One open pinhole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinholeRow {
    /// Who may reach what.
    #[serde(flatten)]
    pub way: Way,
    /// Who made it.
    pub origin: String,
    /// Seconds since it was made.
    pub age: u64,
    /// How many data connections it still admits.
    pub uses: u32,
    /// The client's port of the control connection it was made for.
    pub client_port: u16,
    /// The control port of that connection.
    pub control_port: u16,
}

/// The verdicts that occurred, denials last.
#[must_use]
pub fn verdicts(counters: &CpuCounters) -> Vec<Count> {
    let with = |wanted| {
        Reason::ALL
            .iter()
            .filter(move |reason| reason.verdict() == wanted)
            .map(|reason| Count {
                name: reason.label().to_owned(),
                verdict: verdict_label(reason.verdict()).to_owned(),
                count: counters.reason(*reason),
                text: reason.text().to_owned(),
            })
            .filter(|count| count.count > 0)
    };
    with(Verdict::Pass).chain(with(Verdict::Deny)).collect()
}

/// What happened to the guard itself.
#[must_use]
pub fn incidents(counters: &CpuCounters) -> Vec<Count> {
    Incident::ALL
        .iter()
        .map(|incident| Count {
            name: incident.label().to_owned(),
            verdict: String::new(),
            count: counters.incident(*incident),
            text: incident.text().to_owned(),
        })
        .filter(|count| count.count > 0)
        .collect()
}

const fn verdict_label(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Deny => "deny",
    }
}

impl Status {
    /// The status for people: aligned, ending in a newline.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = format!(
            "ftpguard {}, pid {}, up for {}\n",
            self.version,
            self.pid,
            duration(self.uptime)
        );
        let mut field = |name: &str, value: &str| {
            let _ = writeln!(text, "  {name:<14} {value}");
        };
        field("mode", &self.mode);
        field("tracking", &self.tracking);
        field("active mode", &self.active);
        field("kernel", &self.kernel);
        for (place, lack) in self.degraded.iter().enumerate() {
            field(if place == 0 { "without" } else { "" }, lack);
        }
        for (place, hooks) in self.interfaces.iter().enumerate() {
            let name = if place == 0 { "interfaces" } else { "" };
            field(
                name,
                &format!(
                    "{}: ingress {}, egress {}",
                    hooks.interface, hooks.ingress, hooks.egress
                ),
            );
        }
        field("last gate", "sk_lookup, for every interface");
        field("cgroup", &format!("{}: connect4, connect6", self.cgroup));
        field("control ports", &list(&self.control_ports));
        field(
            "passive ports",
            self.passive_ports
                .as_deref()
                .unwrap_or("none declared: listeners only"),
        );
        field("sessions", &self.sessions.to_string());
        field("pinholes", &self.pinholes.to_string());
        field(
            "listeners",
            &format!(
                "{} guarded, {} foreign",
                self.guarded_listeners, self.foreign_listeners
            ),
        );
        if !self.unsafe_processes.is_empty() {
            field(
                "not exact",
                &format!(
                    "pid {}: its threads do not tell whom they serve",
                    list(&self.unsafe_processes)
                ),
            );
        }
        for (title, verdict) in [("passed", "pass"), ("denied", "deny")] {
            let counts: Vec<&Count> = self
                .verdicts
                .iter()
                .filter(|count| count.verdict == verdict)
                .collect();
            let title = if self.mode == "monitor" && verdict == "deny" {
                "would be denied"
            } else {
                title
            };
            section(&mut text, title, &counts);
        }
        section(
            &mut text,
            "incidents",
            &self.incidents.iter().collect::<Vec<_>>(),
        );
        text
    }
}

fn section(text: &mut String, title: &str, counts: &[&Count]) {
    if counts.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{title}");
    for count in counts {
        let _ = writeln!(
            text,
            "  {:<25} {:>10}  {}",
            count.name, count.count, count.text
        );
    }
}

/// The sessions for people, as a table ending in a newline.
#[must_use]
pub fn render_sessions(rows: &[SessionRow]) -> String {
    let port = |port: Option<u16>| port.map_or_else(|| "-".to_owned(), |port| port.to_string());
    table(
        [
            "CLIENT", "SERVER", "AGE", "PINHOLE", "ACTIVE", "TEXT", "LATEST",
        ],
        rows.iter().map(|row| {
            [
                end(row.ends.client, row.ends.client_port),
                end(row.ends.server, row.ends.port),
                duration(row.age),
                port(row.pinhole),
                port(row.active_port),
                row.text.clone(),
                row.latest.clone().unwrap_or_else(|| "-".to_owned()),
            ]
        }),
    )
}

/// The pinholes for people, as a table ending in a newline.
#[must_use]
pub fn render_pinholes(rows: &[PinholeRow]) -> String {
    table(
        ["CLIENT", "MAY REACH", "ORIGIN", "AGE", "USES", "SESSION"],
        rows.iter().map(|row| {
            [
                row.way.client.to_string(),
                end(row.way.server, row.way.port),
                row.origin.clone(),
                duration(row.age),
                row.uses.to_string(),
                format!("{} -> {}", row.client_port, row.control_port),
            ]
        }),
    )
}

fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut all = vec![head.map(str::to_owned)];
    all.extend(rows);
    let mut widths = [0; N];
    for row in &all {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let mut text = String::new();
    for row in &all {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn end(address: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(address, port).to_string()
}

fn list<T: ToString>(items: &[T]) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// A number of seconds in its two largest units.
fn duration(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    if seconds < MINUTE {
        format!("{seconds} s")
    } else if seconds < HOUR {
        format!("{} min {} s", seconds / MINUTE, seconds % MINUTE)
    } else if seconds < DAY {
        format!("{} h {} min", seconds / HOUR, seconds % HOUR / MINUTE)
    } else {
        format!("{} d {} h", seconds / DAY, seconds % DAY / HOUR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(name: &str, verdict: &str, count: u64, text: &str) -> Count {
        Count {
            name: name.to_owned(),
            verdict: verdict.to_owned(),
            count,
            text: text.to_owned(),
        }
    }

    fn status() -> Status {
        Status {
            version: "0.1.0".to_owned(),
            pid: 4242,
            mode: "enforce".to_owned(),
            tracking: "socket".to_owned(),
            active: "client".to_owned(),
            kernel: "6.18.44".to_owned(),
            degraded: vec!["xdp.frags: TC where the MTU is large".to_owned()],
            uptime: 3_725,
            cgroup: "/sys/fs/cgroup".to_owned(),
            control_ports: vec![21, 990],
            passive_ports: Some("50000-50099".to_owned()),
            interfaces: vec![
                Hooks {
                    interface: "eth0".to_owned(),
                    ingress: "xdp-native".to_owned(),
                    egress: "tcx".to_owned(),
                },
                Hooks {
                    interface: "wg0".to_owned(),
                    ingress: "tc".to_owned(),
                    egress: "tcx".to_owned(),
                },
            ],
            sessions: 2,
            pinholes: 1,
            guarded_listeners: 3,
            foreign_listeners: 1,
            unsafe_processes: vec![77],
            verdicts: vec![
                count("pinhole", "pass", 5, "SYN through a pinhole"),
                count("no-pinhole", "deny", 12, "SYN to the ftpd's listener"),
            ],
            incidents: vec![count("event-lost", "", 1, "event lost")],
        }
    }

    #[test]
    fn a_status_is_aligned() {
        assert_eq!(
            status().render(),
            "\
ftpguard 0.1.0, pid 4242, up for 1 h 2 min
  mode           enforce
  tracking       socket
  active mode    client
  kernel         6.18.44
  without        xdp.frags: TC where the MTU is large
  interfaces     eth0: ingress xdp-native, egress tcx
                 wg0: ingress tc, egress tcx
  last gate      sk_lookup, for every interface
  cgroup         /sys/fs/cgroup: connect4, connect6
  control ports  21, 990
  passive ports  50000-50099
  sessions       2
  pinholes       1
  listeners      3 guarded, 1 foreign
  not exact      pid 77: its threads do not tell whom they serve

passed
  pinhole                            5  SYN through a pinhole

denied
  no-pinhole                        12  SYN to the ftpd's listener

incidents
  event-lost                         1  event lost
"
        );
    }

    #[test]
    fn monitor_says_would() {
        let monitor = Status {
            mode: "monitor".to_owned(),
            passive_ports: None,
            ..status()
        };
        let text = monitor.render();
        assert!(text.contains("\nwould be denied\n"));
        assert!(text.contains("none declared: listeners only"));
    }

    #[test]
    fn a_status_survives_its_json() {
        let json = serde_json::to_string(&status()).expect("JSON");
        assert_eq!(
            serde_json::from_str::<Status>(&json).expect("status"),
            status()
        );
    }

    #[test]
    fn sessions_and_pinholes_are_tables() {
        let ends = Ends {
            client: [10, 0, 0, 2].into(),
            client_port: 4711,
            server: [10, 0, 0, 1].into(),
            port: 21,
        };
        let row = SessionRow {
            ends,
            age: 90_061,
            pinhole: Some(50_000),
            active_port: None,
            text: "clear".to_owned(),
            latest: Some("quit".to_owned()),
        };
        assert_eq!(
            render_sessions(&[row]),
            "\
CLIENT         SERVER       AGE      PINHOLE  ACTIVE  TEXT   LATEST
10.0.0.2:4711  10.0.0.1:21  1 d 1 h  50000    -       clear  quit
"
        );
        let pinhole = PinholeRow {
            way: Way {
                client: ends.client,
                server: ends.server,
                port: 50_000,
            },
            origin: "exact".to_owned(),
            age: 61,
            uses: 1,
            client_port: 4711,
            control_port: 21,
        };
        assert_eq!(
            render_pinholes(&[pinhole]),
            "\
CLIENT    MAY REACH       ORIGIN  AGE        USES  SESSION
10.0.0.2  10.0.0.1:50000  exact   1 min 1 s  1     4711 -> 21
"
        );
        assert_eq!(
            render_pinholes(&[]),
            "CLIENT  MAY REACH  ORIGIN  AGE  USES  SESSION\n"
        );
    }
}
