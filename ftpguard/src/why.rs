//! Why something was refused: which rule did it, and what would have allowed it (principle P6).
//!
//! - [`memory`]: what the guard remembers of denials; bounded, whoever causes them.
//! - [`explain`]: from a reason to its rules and remedies.
//! - [`evidence`]: what monitor mode would have refused, and the exceptions it would need.
//! - `render`: the answers for people.

pub mod evidence;
pub mod explain;
pub mod memory;
mod render;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use self::{explain::Explanation, memory::Denied};
use crate::status::{PinholeRow, SessionRow};

/// What is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// The latest denial.
    Last,
    /// Denials of this address: a client, or a destination of connect().
    Address(IpAddr),
    /// Denials at this port: a data port of this host, or a destination's.
    Port(u16),
}

impl std::str::FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        text.parse()
            .ok()
            .filter(|port| *port != 0)
            .map(Self::Port)
            .ok_or_else(|| {
                format!("{text:?} is neither an IP address nor a port; give one of them, or --last")
            })
    }
}

/// The answer to a question why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// What was asked about.
    pub subject: Subject,
    /// `monitor` or `enforce`.
    pub mode: String,
    /// Seconds since the guard was ready; it remembers nothing from before.
    pub uptime: u64,
    /// Each kind of denial that concerns the subject, the latest first, explained.
    pub denials: Vec<Refusal>,
    /// How many kinds of denials were forgotten because there were too many.
    pub forgotten: u64,
    /// The subject's control connections now.
    pub sessions: Vec<SessionRow>,
    /// The open pinholes of the subject.
    pub pinholes: Vec<PinholeRow>,
    /// What is known of the port, where one was asked about.
    pub port: Option<PortState>,
}

/// One kind of denial and its explanation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What, how often, when.
    #[serde(flatten)]
    pub denied: Denied,
    /// Why, and what would have allowed it.
    #[serde(flatten)]
    pub explanation: Explanation,
}

/// What the guard holds a port for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortState {
    /// It accepts control connections.
    pub control: bool,
    /// The declared passive range that it lies in, with the FTP server's name.
    pub declared: Option<String>,
    /// Addresses at which a guarded FTP server listens on it.
    pub guarded: Vec<IpAddr>,
    /// Addresses at which other software listens on it.
    pub foreign: Vec<IpAddr>,
}
