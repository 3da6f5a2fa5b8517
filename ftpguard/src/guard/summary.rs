//! The first and the last line of a guard.

use std::fmt::Write as _;

use ftpguard_common::verdict::{Reason, Verdict};
use serde_json::json;

use super::Guard;
use crate::{
    config::Config,
    kernel::CpuCounters,
    state::Tally,
    status::{self, FtpdMode, mode_text},
};

impl Guard {
    /// One line that says what is in force.
    pub(super) fn ready_line(&self) -> String {
        let mut line = format!(
            "ready: {}, {} tracking, control ports {}, passive ports {}, on",
            mode_text(self.config.mode.label(), &FtpdMode::all(&self.config)),
            self.config.tracking.label(),
            self.config
                .control_ports()
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" "),
            ranges(&self.config).unwrap_or_else(|| "not declared".to_owned()),
        );
        for (place, hooks) in self.attached.iter().enumerate() {
            let before = if place == 0 { "" } else { "," };
            let _ = write!(
                line,
                "{before} {} ({}, {})",
                hooks.interface,
                hooks.ingress.label(),
                hooks.egress.label()
            );
        }
        line
    }
}

/// The declared passive ranges, `None` where there are none.
pub(super) fn ranges(config: &Config) -> Option<String> {
    let ranges: Vec<String> = config
        .passive_ports()
        .iter()
        .map(ToString::to_string)
        .collect();
    (!ranges.is_empty()).then(|| ranges.join(" "))
}

/// What happened, in one line: for people, or as one JSON object.
pub(super) fn totals(tally: &Tally, counters: &CpuCounters, json: bool) -> String {
    if json {
        let by_label = |counts: Vec<status::Count>| -> serde_json::Map<String, serde_json::Value> {
            counts
                .into_iter()
                .map(|count| (count.name, count.count.into()))
                .collect()
        };
        return json!({
            "event": "totals",
            "sessions": tally.sessions,
            "pinholes_made": tally.pinholes_made,
            "pinholes_used": tally.pinholes_used,
            "unreadable": tally.unreadable,
            "unread": tally.unread,
            "malformed_arguments": tally.malformed_arguments,
            "verdicts": by_label(status::verdicts(counters)),
            "incidents": by_label(status::incidents(counters)),
        })
        .to_string();
    }
    let mut line = format!(
        "totals: {} sessions, {} pinholes made, {} used",
        tally.sessions, tally.pinholes_made, tally.pinholes_used
    );
    let denied: Vec<_> = Reason::ALL
        .iter()
        .filter(|reason| reason.verdict() == Verdict::Deny)
        .map(|reason| (reason.label(), counters.reason(*reason)))
        .filter(|(_, count)| *count > 0)
        .collect();
    let _ = write!(
        line,
        ", {} denied",
        denied.iter().map(|(_, count)| count).sum::<u64>()
    );
    for (place, (label, count)) in denied.iter().enumerate() {
        let before = if place == 0 { " (" } else { ", " };
        let _ = write!(line, "{before}{label} {count}");
    }
    if !denied.is_empty() {
        line.push(')');
    }
    for incident in status::incidents(counters) {
        let _ = write!(line, ", {} {}", incident.name, incident.count);
    }
    line
}
