//! The answers as people read them.

use std::fmt::Write as _;

use super::{
    PortState, Refusal, Subject, Why,
    evidence::Evidence,
    explain::end,
    memory::{Attempt, Denied},
};
use crate::status::{duration, render_pinholes, render_sessions};

/// How many kinds of denials are shown to people; JSON has all.
const SHOWN: usize = 8;

impl Why {
    /// The answer for people, ending in a newline. `now` is in milliseconds since 1970.
    #[must_use]
    pub fn render(&self, now: u64) -> String {
        let mut text = String::new();
        let since = duration(self.uptime);
        match (self.subject, self.denials.first()) {
            (Subject::Last, None) => {
                let _ = writeln!(
                    text,
                    "nothing was refused in the {since} since the guard started"
                );
            }
            (Subject::Last, Some(_)) => {}
            (Subject::Address(address), None) => {
                let _ = writeln!(
                    text,
                    "{address} was refused nothing in the {since} since the guard started"
                );
            }
            (Subject::Port(port), None) => {
                let _ = writeln!(
                    text,
                    "nothing was refused at port {port} in the {since} since the guard started"
                );
            }
            (Subject::Address(_) | Subject::Port(_), Some(_)) => {
                let total: u64 = self
                    .denials
                    .iter()
                    .map(|refusal| refusal.denied.count)
                    .sum();
                let _ = writeln!(
                    text,
                    "{}: {total} refused in the {since} since the guard started",
                    match self.subject {
                        Subject::Address(address) => address.to_string(),
                        Subject::Port(port) => format!("port {port}"),
                        Subject::Last => String::new(),
                    }
                );
            }
        }
        for (place, refusal) in self.denials.iter().take(SHOWN).enumerate() {
            if place > 0 || self.subject != Subject::Last {
                text.push('\n');
            }
            refusal.render(&mut text, now);
        }
        if self.denials.len() > SHOWN {
            let _ = writeln!(
                text,
                "\nand {} more kinds; --json shows them",
                self.denials.len() - SHOWN
            );
        }
        if self.mode == "monitor" && !self.denials.is_empty() {
            text.push_str("\nmode monitor: what would be refused passes\n");
        }
        if self.forgotten > 0 {
            let _ = writeln!(
                text,
                "\n{} older kinds of denials were forgotten: there were too many",
                self.forgotten
            );
        }
        if let (Subject::Port(port), Some(state)) = (self.subject, &self.port) {
            let _ = writeln!(text, "\nport {port} now: {}", state.describe());
        }
        if !self.sessions.is_empty() {
            text.push_str("\nits control connections now\n");
            indent(&mut text, &render_sessions(&self.sessions));
        } else if let Subject::Address(address) = self.subject {
            let _ = writeln!(text, "\n{address} holds no control connection now");
        }
        if !self.pinholes.is_empty() {
            text.push_str("\nopen pinholes\n");
            indent(&mut text, &render_pinholes(&self.pinholes));
        }
        text
    }
}

impl Refusal {
    fn render(&self, text: &mut String, now: u64) {
        let Self {
            denied,
            explanation,
        } = self;
        let times = if denied.count == 1 {
            String::new()
        } else {
            format!(", {} times", denied.count)
        };
        let _ = writeln!(
            text,
            "{}{times}, last {} ago",
            denied.reason,
            ago(now, denied.last)
        );
        let mut line = |name: &str, what: &str| {
            let _ = writeln!(text, "  {name:<7} {what}");
        };
        line("what", &explanation.what);
        line(
            "rule",
            &format!("{} ({})", explanation.rule, explanation.rules.join(", ")),
        );
        line("allow", &explanation.allow);
    }
}

impl PortState {
    fn describe(&self) -> String {
        if self.control {
            return "a control port, open to everybody".to_owned();
        }
        let mut parts = Vec::new();
        if let Some(name) = &self.declared {
            parts.push(format!("in the passive range of {name:?}"));
        }
        for address in &self.guarded {
            parts.push(format!("a guarded FTP server listens at {address}"));
        }
        for address in &self.foreign {
            parts.push(format!(
                "other software listens at {address} and is left alone"
            ));
        }
        if self.guarded.is_empty() && self.foreign.is_empty() {
            parts.push(
                if self.declared.is_some() {
                    "nobody listens, so it is closed to everybody"
                } else {
                    "not in a passive range, and no FTP server listens: not guarded"
                }
                .to_owned(),
            );
        }
        parts.join("; ")
    }
}

impl Evidence {
    /// The evidence for people, ending in a newline; empty where there is none.
    #[must_use]
    pub fn render(&self, now: u64) -> String {
        if self.reasons.is_empty() {
            return format!(
                "nothing would have been refused in the last {}\n",
                duration(self.since)
            );
        }
        let mut text = format!(
            "\nwould have been refused in the last {}\n",
            duration(self.since)
        );
        for count in &self.reasons {
            let _ = writeln!(
                text,
                "  {:<25} {:>10}  {}",
                count.name, count.count, count.text
            );
        }
        text.push_str("\nby reason and address\n");
        for denied in self.sources.iter().take(SHOWN) {
            let _ = writeln!(
                text,
                "  {:<25} {:>10}  {}, last {} ago",
                denied.reason,
                denied.count,
                whom(denied),
                ago(now, denied.last)
            );
        }
        if self.sources.len() > SHOWN {
            let _ = writeln!(
                text,
                "  and {} more; --json shows them",
                self.sources.len() - SHOWN
            );
        }
        if self.is_incomplete() {
            text.push_str(
                "\nnot everything that was counted could be remembered: there was too much. The \
                 server may need\nmore than is proposed here; stay in monitor mode until the counts \
                 stand still\n",
            );
        } else if self.proposals.is_empty() {
            text.push_str("\nno exception is needed for what was seen: `ftpguard mode enforce`\n");
        }
        if self.proposals.is_empty() {
            return text;
        }
        text.push_str("\nto think about before `ftpguard mode enforce`\n");
        for proposal in &self.proposals {
            text.push('\n');
            for line in proposal.reason.lines() {
                let _ = writeln!(text, "# {line}");
            }
            if !proposal.setting.is_empty() {
                let _ = writeln!(text, "{}", proposal.setting);
            }
        }
        text
    }
}

fn whom(denied: &Denied) -> String {
    match denied.attempt {
        Attempt::Syn => format!("from {} to port {}", denied.remote, denied.port),
        Attempt::Connect | Attempt::OutgoingSyn => {
            format!("to {}", end(denied.remote, denied.port))
        }
    }
}

fn ago(now: u64, then: u64) -> String {
    duration(now.saturating_sub(then) / 1_000)
}

fn indent(text: &mut String, table: &str) {
    for line in table.lines() {
        let _ = writeln!(text, "  {line}");
    }
}

#[cfg(test)]
mod tests;
