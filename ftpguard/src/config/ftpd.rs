//! The tables of the file: FTP servers and exceptions, each with a name.

use serde::{Deserialize, Serialize};

use super::ModeArg;
use crate::{
    kernel::Destination,
    values::{PortRange, one_or_many},
};

/// One FTP server.
///
/// Interfaces and the other keys of the file hold for all of them: the gates judge every packet of
/// their interface, and the last one every packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ftpd {
    /// What it is called in messages.
    pub name: String,
    /// Ports on which it accepts control connections.
    #[serde(deserialize_with = "one_or_many::ports")]
    pub control_ports: Vec<u16>,
    /// The ranges from which it takes its passive ports.
    #[serde(deserialize_with = "one_or_many::ranges")]
    pub passive_ports: Vec<PortRange>,
    /// Its mode, where it is not that of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<ModeArg>,
}

impl Default for Ftpd {
    fn default() -> Self {
        Self {
            name: "ftpd".to_owned(),
            control_ports: vec![21],
            passive_ports: Vec::new(),
            mode: None,
        }
    }
}

/// Destinations that an FTP server may connect to although they are no clients (rules O3, O7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExceptionRule {
    /// What it is called in messages.
    pub name: String,
    /// Addresses, networks and ports.
    #[serde(deserialize_with = "one_or_many::destinations")]
    pub connect_to: Vec<Destination>,
}
