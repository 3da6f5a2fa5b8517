//! What no single value can show, and what is tidied before use.

use std::collections::{BTreeMap, HashSet};

use ftpguard_common::abi::{MAX_EXCEPTIONS, MAX_RELAXATIONS, MAX_RELAXED};

use nix::unistd::Group;

use super::{Config, file::Step};
use crate::values::PortRange;

/// More sessions than any host can have from its clients' ports to a few of its own.
const MOST_SESSIONS: u32 = 1_000_000;

/// Something that makes no sense, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The way to the value, from the top of the file.
    pub place: Vec<Step>,
    /// What, and how to put it right.
    pub message: String,
}

impl Problem {
    fn new(place: impl Into<Vec<Step>>, message: String) -> Self {
        Self {
            place: place.into(),
            message,
        }
    }
}

impl Config {
    /// Drops repetitions, then checks what no single value can show: the first problem found.
    pub fn check(&mut self) -> Result<(), Problem> {
        self.tidy();
        self.check_bounds()?;
        self.check_socket_group()?;
        if !(1..=16).contains(&self.uses) {
            return Err(Problem::new(
                [Step::key("uses")],
                format!("{} data connections to one port; from 1 to 16", self.uses),
            ));
        }
        self.check_ftpds()?;
        self.check_exceptions()
    }

    fn tidy(&mut self) {
        tidy_ports(&mut self.data_source_ports);
        for ftpd in &mut self.ftpd {
            tidy_ports(&mut ftpd.control_ports);
        }
        let mut seen = HashSet::new();
        self.interfaces.retain(|name| seen.insert(name.clone()));
    }

    fn check_bounds(&self) -> Result<(), Problem> {
        let bounds = [
            ("max_sessions", self.max_sessions, MOST_SESSIONS),
            ("client_sessions", self.client_sessions, u32::MAX),
        ];
        for (key, value, most) in bounds {
            if value == 0 || value > most {
                return Err(Problem::new(
                    [Step::key(key)],
                    format!("{key} cannot be {value}; write a number from 1 to {most}"),
                ));
            }
        }
        Ok(())
    }

    fn check_socket_group(&self) -> Result<(), Problem> {
        let name = &self.socket_group;
        if name.is_empty() {
            return Ok(());
        }
        let what = match Group::from_name(name) {
            Ok(Some(_)) => return Ok(()),
            Ok(None) => {
                format!("no group {name:?} on this host; make it (groupadd) or name another")
            }
            Err(error) => format!("the group {name:?} cannot be looked up: {error}"),
        };
        Err(Problem::new([Step::key("socket_group")], what))
    }

    fn check_ftpds(&self) -> Result<(), Problem> {
        if self.ftpd.is_empty() {
            return Err(Problem::new(
                [Step::key("ftpd")],
                "no FTP server to guard; add a table [[ftpd]]".to_owned(),
            ));
        }
        let mut names = HashSet::new();
        let mut owners: BTreeMap<u16, &str> = BTreeMap::new();
        for (place, ftpd) in self.ftpd.iter().enumerate() {
            let at = |key| [Step::key("ftpd"), Step::Place(place), Step::key(key)];
            if !names.insert(ftpd.name.as_str()) {
                return Err(Problem::new(
                    at("name"),
                    format!(
                        "two FTP servers are called {:?}; give each a name of its own",
                        ftpd.name
                    ),
                ));
            }
            if ftpd.control_ports.is_empty() {
                return Err(Problem::new(
                    at("control_ports"),
                    "no control port; name the port on which the FTP server accepts sessions, as in [21]".to_owned(),
                ));
            }
            for port in &ftpd.control_ports {
                if let Some(other) = owners.insert(*port, &ftpd.name) {
                    return Err(Problem::new(
                        at("control_ports"),
                        format!(
                            "port {port} is a control port of {other:?} already; drop it here or there"
                        ),
                    ));
                }
            }
        }
        self.check_ranges(&owners)
    }

    fn check_ranges(&self, owners: &BTreeMap<u16, &str>) -> Result<(), Problem> {
        for (place, ftpd) in self.ftpd.iter().enumerate() {
            for range in &ftpd.passive_ports {
                if let Some(port) = owners.keys().find(|port| range.contains(**port)) {
                    return Err(Problem::new(
                        [
                            Step::key("ftpd"),
                            Step::Place(place),
                            Step::key("passive_ports"),
                        ],
                        format!(
                            "the passive range {range} contains the control port {port}; end the \
                             range below it or start it above, in the FTP server's settings too"
                        ),
                    ));
                }
            }
            // An unused port of a range is closed, or not, for the mode of the range.
            let other = self.ftpd.iter().take(place).find(|other| {
                other.mode != ftpd.mode && overlap(&other.passive_ports, &ftpd.passive_ports)
            });
            if let Some(other) = other {
                return Err(Problem::new(
                    [Step::key("ftpd"), Step::Place(place), Step::key("mode")],
                    format!(
                        "{:?} and {:?} share passive ports, so they cannot differ in mode; give \
                         each a range of its own, in the FTP servers' settings too",
                        other.name, ftpd.name
                    ),
                ));
            }
        }
        Ok(())
    }

    fn check_exceptions(&self) -> Result<(), Problem> {
        let mut names = HashSet::new();
        let mut count = 0;
        let mut relaxations = 0;
        let mut networks = 0;
        for (place, rule) in self.exception.iter().enumerate() {
            let at = |key| [Step::key("exception"), Step::Place(place), Step::key(key)];
            if !names.insert(rule.name.as_str()) {
                return Err(Problem::new(
                    at("name"),
                    format!(
                        "two exceptions are called {:?}; give each a name of its own",
                        rule.name
                    ),
                ));
            }
            if rule.data_from.is_empty() && !rule.clients.is_empty() {
                return Err(Problem::new(
                    at("clients"),
                    "clients without data_from; name where their data connections may come from"
                        .to_owned(),
                ));
            }
            if rule.connect_to.is_empty() && rule.data_from.is_empty() {
                return Err(Problem::new(
                    at("connect_to"),
                    "no destination; name one, as in [\"192.0.2.10:389\"], or data_from, or drop \
                     the table"
                        .to_owned(),
                ));
            }
            count += rule.connect_to.len();
            if count > MAX_EXCEPTIONS as usize {
                return Err(Problem::new(
                    at("connect_to"),
                    format!("more than {MAX_EXCEPTIONS} destinations; join them to networks"),
                ));
            }
            if !rule.data_from.is_empty() {
                relaxations += 1;
                networks += rule.data_from.len() + rule.clients.len();
            }
            if relaxations > MAX_RELAXATIONS || networks > MAX_RELAXED as usize {
                return Err(Problem::new(
                    at("data_from"),
                    format!(
                        "more than {MAX_RELAXATIONS} tables with data_from, or more than \
                         {MAX_RELAXED} networks in them; join them"
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// Whether the ranges have a port in common.
fn overlap(some: &[PortRange], others: &[PortRange]) -> bool {
    some.iter()
        .any(|one| others.iter().any(|other| one.overlaps(*other)))
}

fn tidy_ports(ports: &mut Vec<u16>) {
    ports.sort_unstable();
    ports.dedup();
}
