//! The findings, for people and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::{predict::Predictability, processes::Found, version};
use crate::values::printable;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// It is as it should be.
    Good,
    /// It can be better, or may surprise.
    Odd,
    /// The guard cannot work so.
    Bad,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub level: Level,
    /// What was found.
    pub what: String,
    /// What to do; empty where nothing need be, or where `what` says it.
    pub remedy: String,
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "callers format what they found"
)]
impl Finding {
    pub(super) fn good(what: String) -> Self {
        Self {
            level: Level::Good,
            what: printable(&what),
            remedy: String::new(),
        }
    }

    pub(super) fn odd(what: String, remedy: &str) -> Self {
        Self {
            level: Level::Odd,
            what: printable(&what),
            remedy: remedy.to_owned(),
        }
    }

    pub(super) fn bad(what: String, remedy: &str) -> Self {
        Self {
            level: Level::Bad,
            what: printable(&what),
            remedy: remedy.to_owned(),
        }
    }
}

/// One FTP server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FoundServer {
    /// Its program.
    pub program: String,
    /// Its version, where its program shows it.
    pub version: Option<String>,
    /// The process that listens.
    pub pid: u32,
    /// Its effective user: anybody may call a program as he likes.
    pub uid: Option<u32>,
    /// Where it accepts control connections.
    pub control_ports: Vec<u16>,
    /// Its passive range.
    pub passive_ports: Option<String>,
    /// The address in its 227 replies, where it is not its own.
    pub public_address: Option<String>,
    /// The file that says so.
    pub file: Option<String>,
    /// What is wrong or odd with it.
    pub findings: Vec<Finding>,
}

impl FoundServer {
    pub(super) fn of(found: &Found) -> Self {
        let said = &found.said;
        let mut findings: Vec<Finding> = found
            .version
            .iter()
            .flat_map(|version| version::faults(found.product, version))
            .map(|fault| Finding::odd(fault, "the guard stands in for it (I2); upgrade"))
            .collect();
        findings.extend(
            said.weak
                .iter()
                .map(|weak| Finding::odd(weak.clone(), "the guard stands in for it (I2, O4)")),
        );
        findings.extend(said.odd.iter().map(|odd| Finding::odd(odd.clone(), "")));
        if said.passive_ports.is_none() {
            findings.push(Finding::odd(
                "no passive range is known of it".to_owned(),
                "its data ports are guarded wherever they are; a range of its own, declared in \
                 both files, closes the unused ports too",
            ));
        }
        if let Some(address) = &said.public_address {
            findings.push(Finding::good(format!(
                "its 227 replies name {address}; the guard takes no address from text (P2, R7)"
            )));
        }
        Self {
            program: printable(&found.program),
            version: found.version.as_deref().map(printable),
            pid: found.pid,
            uid: found.uid,
            control_ports: found.control_ports.clone(),
            passive_ports: said.passive_ports.map(|range| range.to_string()),
            public_address: said.public_address.as_deref().map(printable),
            file: said
                .file
                .as_ref()
                .map(|file| printable(&file.to_string_lossy())),
            findings,
        }
    }
}

/// Everything that was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Of the host.
    pub host: Vec<Finding>,
    /// FTP servers.
    pub servers: Vec<FoundServer>,
    /// Whether a running guard answered.
    pub running: bool,
    /// How well passive ports can be guessed, by FTP server, from a running guard.
    pub ports: Vec<Predictability>,
    /// FTP servers of which too few ports were seen: control port, how many.
    pub too_few: Vec<(u16, usize)>,
    /// The proposed configuration.
    pub proposal: Option<String>,
    /// Where it was written.
    pub written: Option<String>,
}

impl Report {
    /// How many findings keep the guard from working.
    pub(super) fn bad(&self) -> usize {
        self.host
            .iter()
            .filter(|finding| finding.level == Level::Bad)
            .count()
    }

    /// For people, ending in a newline.
    pub(super) fn render(&self) -> String {
        let mut text = "host\n".to_owned();
        findings(&mut text, &self.host);
        text.push_str("\nFTP servers\n");
        if self.servers.is_empty() {
            text.push_str("  none was found: nobody listens on a control port, and no process has a known name\n");
        }
        for server in &self.servers {
            server.render(&mut text);
        }
        text.push_str("\npassive ports, as a running guard saw them (D1)\n");
        if !self.running {
            text.push_str("  no guard is running that could tell\n");
        } else if self.ports.is_empty() && self.too_few.is_empty() {
            text.push_str("  none was opened yet\n");
        }
        for (port, seen) in &self.too_few {
            let _ = writeln!(text, "  control port {port}: {seen} seen, too few to judge");
        }
        for ports in &self.ports {
            ports.render(&mut text);
        }
        match (&self.proposal, &self.written) {
            (_, Some(file)) => {
                let _ = writeln!(text, "\nthe proposed configuration was written to {file}");
            }
            (Some(proposal), None) => {
                text.push_str("\nproposed configuration (--write puts it into place)\n\n");
                // Defaults need not be read here.
                for line in essence(proposal) {
                    if line.starts_with('[') {
                        text.push('\n');
                    }
                    let _ = writeln!(text, "{line}");
                }
            }
            (None, None) => {}
        }
        text
    }
}

/// The lines of a file without its explanations.
fn essence(file: &str) -> impl Iterator<Item = &str> {
    file.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
}

impl FoundServer {
    fn render(&self, text: &mut String) {
        let version = self
            .version
            .as_ref()
            .map_or_else(String::new, |version| format!(" {version}"));
        let ports: Vec<String> = self.control_ports.iter().map(u16::to_string).collect();
        let _ = writeln!(
            text,
            "  {}{version}, pid {}, uid {}, control ports {}, passive ports {}{}",
            self.program,
            self.pid,
            self.uid
                .map_or_else(|| "not known".to_owned(), |uid| uid.to_string()),
            ports.join(", "),
            self.passive_ports.as_deref().unwrap_or("not known"),
            self.file
                .as_ref()
                .map_or_else(String::new, |file| format!(" ({file})"))
        );
        findings(text, &self.findings);
    }
}

impl Predictability {
    fn render(&self, text: &mut String) {
        let (step, share) = self.step;
        let _ = writeln!(
            text,
            "  control port {}: {} seen, {} different of {}, entropy {:.1} of {:.1} bits, {} repeats,",
            self.control_port,
            self.seen,
            self.distinct,
            self.choices,
            self.entropy,
            self.possible,
            self.repeats
        );
        let _ = writeln!(
            text,
            "    correlation {:.2}, {:.0} % even, commonest step {step:+} ({:.0} %)",
            self.correlation,
            self.even * 100.0,
            share * 100.0
        );
        if self.weak.is_empty() {
            text.push_str("    ok    no weakness shows\n");
        }
        for weak in &self.weak {
            let _ = writeln!(text, "    weak  {weak}");
        }
    }
}

fn findings(text: &mut String, findings: &[Finding]) {
    for finding in findings {
        let word = match finding.level {
            Level::Good => "ok",
            Level::Odd => "note",
            Level::Bad => "BAD",
        };
        let _ = writeln!(text, "    {word:<5} {}", finding.what);
        if !finding.remedy.is_empty() {
            let _ = writeln!(text, "          -> {}", finding.remedy);
        }
    }
}

#[cfg(test)]
mod tests;
