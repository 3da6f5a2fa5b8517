//! The answers as people read them.

use std::{fmt::Write as _, net::IpAddr};

use super::{Count, Effect, FtpdRow, Hooks, PinholeRow, ProgramRow, SessionRow, Status, mode_text};

impl Status {
    /// The status for people: aligned, ending in a newline.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "one statement for each field")]
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
        field("mode", &mode_text(&self.mode, &self.ftpd_modes));
        if let Some(reason) = &self.not_enforced {
            field("NOT ENFORCED", reason);
        }
        field("tracking", &self.tracking);
        field("active mode", &self.active);
        field("kernel", &self.kernel);
        for (place, lack) in self.degraded.iter().enumerate() {
            field(if place == 0 { "without" } else { "" }, lack);
        }
        for (name, value) in self.endurance.fields() {
            field(name, &value);
        }
        for (place, hooks) in self.interfaces.iter().enumerate() {
            let name = if place == 0 { "interfaces" } else { "" };
            field(name, &hooks.render());
        }
        field(
            "last gate",
            &format!(
                "sk_lookup, for every interface{}{}",
                loss(self.last_gate, "sk_lookup"),
                note(self.last_gate_note.as_deref())
            ),
        );
        field(
            "cgroup",
            &format!(
                "{}: connect4, connect6{}{}",
                self.cgroup,
                loss(self.connect, "connect"),
                note(self.connect_note.as_deref())
            ),
        );
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
        let mut name = "ftpds";
        for line in self.ftpds.iter().flat_map(FtpdRow::render) {
            field(name, &line);
            name = "";
        }
        if !self.unsafe_processes.is_empty() {
            field(
                "not exact",
                &format!(
                    "pid {}: its threads do not tell whom they serve",
                    list(&self.unsafe_processes)
                ),
            );
        }
        let denied = match self.effect() {
            Effect::Everywhere => "denied",
            Effect::Partly => "denied, or would be",
            Effect::Nowhere => "would be denied",
        };
        for (title, verdict) in [("passed", "pass"), (denied, "deny")] {
            let counts: Vec<&Count> = self
                .verdicts
                .iter()
                .filter(|count| count.verdict == verdict)
                .collect();
            section(&mut text, title, &counts);
        }
        section(
            &mut text,
            "incidents",
            &self.incidents.iter().collect::<Vec<_>>(),
        );
        if !self.programs.is_empty() {
            let _ = writeln!(text, "\nprograms{:>28} {:>8}", "runs", "ns each");
        }
        for ProgramRow {
            name,
            runs,
            nanoseconds,
        } in &self.programs
        {
            let _ = writeln!(
                text,
                "  {name:<25} {runs:>8} {:>8}",
                nanoseconds / (*runs).max(1)
            );
        }
        text
    }
}

impl Hooks {
    fn render(&self) -> String {
        format!(
            "{}: ingress {}{}, egress {}{}{}",
            self.interface,
            self.ingress,
            loss(self.ingress_holds, &self.ingress),
            self.egress,
            loss(self.egress_holds, &self.egress),
            note(self.note.as_deref()),
        )
    }
}

/// What there is to say of hooks, behind them.
fn note(text: Option<&str>) -> String {
    text.map(|text| format!(" ({text})")).unwrap_or_default()
}

/// What is said of a hook that others detached. It is attached again when the guard looks next.
fn loss(holds: bool, hook: &str) -> &'static str {
    if holds || hook == Hooks::NONE {
        ""
    } else {
        " LOST"
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
pub(crate) fn duration(seconds: u64) -> String {
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
