//! The tables of the file: FTP servers and exceptions, each with a name.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::ModeArg;
use crate::{
    kernel::{Destination, Network},
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
    /// By which addresses clients know it, beside those that the file names for all.
    #[serde(deserialize_with = "one_or_many::addresses")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub public_addresses: Vec<IpAddr>,
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
            public_addresses: Vec::new(),
            mode: None,
        }
    }
}

/// Destinations that an FTP server may connect to although they are no clients (rules O3, O7), and
/// addresses that may open data connections for clients with other addresses (rule I7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExceptionRule {
    /// What it is called in messages.
    pub name: String,
    /// Addresses, networks and ports.
    #[serde(default, deserialize_with = "one_or_many::destinations")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub connect_to: Vec<Destination>,
    /// Where data connections of `clients` may come from.
    #[serde(default, deserialize_with = "one_or_many::networks")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub data_from: Vec<Network>,
    /// Whose data connections may come from `data_from`; empty: those of clients that are among
    /// these addresses themselves.
    #[serde(default, deserialize_with = "one_or_many::networks")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub clients: Vec<Network>,
}
