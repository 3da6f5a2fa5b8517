//! What a virtual machine of the kernel matrix reports over its serial line.
//!
//! One report is one line: a prefix that nothing else writes, then JSON. Everything else on the
//! line is the log.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The prefix of a report's line.
const PREFIX: &str = "ftpguard-vm: ";

/// One report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "report")]
pub enum Report {
    /// User space runs.
    Up {
        /// The kernel's release.
        release: String,
        /// Seconds since the kernel started.
        seconds: f64,
    },
    /// A program was verified.
    Program {
        /// Its name in the object.
        name: String,
        /// How many instructions the verifier walked; `None` before Linux 5.16.
        instructions: Option<u32>,
    },
    /// What the guard makes of a feature that kernels differ in.
    Feature {
        /// Its name.
        name: Feature,
        /// Whether it is there and used.
        used: bool,
    },
    /// A test passed.
    Passed {
        /// Its name.
        test: String,
        /// How long it took.
        seconds: f64,
    },
    /// A test failed. The log before this line says more.
    Failed {
        /// Its name.
        test: String,
        /// Why, in one line.
        why: String,
    },
    /// All tests have run.
    Done {
        /// How many have passed.
        passed: u32,
        /// How many have failed.
        failed: u32,
    },
}

/// A feature that some supported kernels lack. The guard then does with less, and says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    /// TC programs are attached by tcx links (Linux 6.6); else as filters of a clsact qdisc.
    Tcx,
    /// The kernel tells how many instructions the verifier walked (Linux 5.16).
    InstructionCount,
    /// XDP programs take frames of several buffers (Linux 5.18).
    XdpFragments,
    /// Socket lookup programs see the interface (Linux 5.17).
    LookupInterface,
}

impl Feature {
    /// The name in tables.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::InstructionCount => "instruction count",
            Self::XdpFragments => "xdp.frags",
            Self::LookupInterface => "sk_lookup interface",
        }
    }
}

impl Report {
    /// The report that a line of the serial console holds.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        // The kernel may have written before it on the same line.
        let (_, json) = line.rsplit_once(PREFIX)?;
        serde_json::from_str(json.trim_end()).ok()
    }

    /// Writes the report to standard output, on a line of its own.
    pub fn print(&self) {
        println!("{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        write!(f, "{PREFIX}{json}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_back_from_its_line() {
        for report in [
            Report::Up {
                release: "5.10.0-32".to_owned(),
                seconds: 3.25,
            },
            Report::Feature {
                name: Feature::Tcx,
                used: false,
            },
            Report::Failed {
                test: "a test".to_owned(),
                why: "two\nlines".to_owned(),
            },
        ] {
            let line = report.to_string();
            assert!(!line.contains('\n'));
            assert_eq!(Report::parse(&line), Some(report.clone()));
            let with_kernel_text = format!("[    3.1] clocksource: {line}\r\n");
            assert_eq!(Report::parse(&with_kernel_text), Some(report));
        }
        assert_eq!(Report::parse("test a ... ok"), None);
        assert_eq!(Report::parse("ftpguard-vm: {"), None);
    }
}
