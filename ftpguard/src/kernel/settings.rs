//! What the kernel side is told.

use std::{collections::HashSet, ops::RangeInclusive, path::PathBuf};

use aya::maps::lpm_trie::Key;
use ftpguard_common::{
    abi::{EXCEPTION_PORT_BITS, Exception, Mode, Policy, port_word},
    net::{Address, Port},
};

use super::{error::KernelError, home::Pins, maps::Maps, words::PORTS};

/// What the kernel side is told before anything is attached, and when the settings change.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The policy in force.
    pub policy: Policy,
    /// The guarded ftpds.
    pub ftpds: Vec<FtpdPorts>,
    /// Ports from which an ftpd may open active data connections, 20 by default.
    pub data_source_ports: Vec<u16>,
    /// Destinations that an ftpd may connect to although they are no clients.
    pub exceptions: Vec<Destination>,
    /// Whether other people's ftpds are kept away from this host's ports below 1024 (rule O11).
    pub bounce_shield: bool,
    /// The cgroup v2 folder whose processes are watched; the hierarchy's root for all.
    pub cgroup: PathBuf,
    /// How many control connections are tracked at once. Sizes every table.
    pub max_sessions: u32,
    /// Where the kernel side lives on without the daemon.
    pub pins: Pins,
}

/// The ports of one ftpd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FtpdPorts {
    /// Those on which it accepts control connections.
    pub control: Vec<u16>,
    /// The declared passive ranges.
    pub passive: Vec<RangeInclusive<u16>>,
    /// Its mode, where it is not the policy's.
    pub mode: Option<Mode>,
}

/// A destination that an ftpd may connect to (rule O3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The address, of which `prefix` bits count.
    pub address: Address,
    /// How many bits of the address must match, counted in its 16-byte form.
    pub prefix: u8,
    /// The port, any port where there is none.
    pub port: Option<u16>,
}

/// Writes the settings. What `before` had and `after` lacks is taken away last, so that nothing
/// that both allow is refused in between.
pub(super) fn apply(
    maps: &mut Maps,
    before: Option<&Settings>,
    after: &Settings,
) -> Result<(), KernelError> {
    for destination in &after.exceptions {
        maps.exceptions.insert(&destination.key(), 1, 0)?;
    }
    maps.set_port_roles(&after.port_roles());
    maps.policy.set(0, after.policy, 0)?;
    let kept: HashSet<&Destination> = after.exceptions.iter().collect();
    let former = before.map_or(&[][..], |before| &before.exceptions);
    for destination in former {
        // One that is named twice is gone already.
        if !kept.contains(destination)
            && let Err(error) = maps.exceptions.remove(&destination.key())
            && !super::maps::is_absent(&error)
        {
            return Err(error.into());
        }
    }
    Ok(())
}

/// Writes the settings over those of an earlier daemon, which are not known but for what the maps
/// hold.
pub(super) fn take_over(maps: &mut Maps, after: &Settings) -> Result<(), KernelError> {
    let former: Vec<_> = maps.exceptions.keys().filter_map(Result::ok).collect();
    apply(maps, None, after)?;
    let kept: Vec<_> = after.exceptions.iter().map(Destination::key).collect();
    let is_kept = |key: &Key<Exception>| {
        kept.iter()
            .any(|kept| kept.prefix_len() == key.prefix_len() && kept.data() == key.data())
    };
    for key in former.iter().filter(|key| !is_kept(key)) {
        if let Err(error) = maps.exceptions.remove(key)
            && !super::maps::is_absent(&error)
        {
            return Err(error.into());
        }
    }
    Ok(())
}

impl Settings {
    fn port_roles(&self) -> Vec<u8> {
        let mut roles = vec![0; PORTS];
        let mut add = |port: u16, role: u64| {
            // Roles are the lowest byte of a word.
            let role = u8::try_from(role & port_word::ROLES).unwrap_or(0);
            if let Some(roles) = roles.get_mut(usize::from(port)) {
                *roles |= role;
            }
        };
        if self.bounce_shield {
            for port in 1..1024 {
                add(port, port_word::SHIELDED);
            }
        }
        for ftpd in &self.ftpds {
            let mode = mode_role(ftpd.mode);
            for port in ftpd.passive.iter().cloned().flatten() {
                add(port, port_word::PASSIVE | mode);
            }
            for port in &ftpd.control {
                add(*port, port_word::CONTROL | mode);
            }
        }
        let mode = mode_role(self.shared_mode());
        for port in &self.data_source_ports {
            add(*port, port_word::DATA_SOURCE | mode);
        }
        roles
    }

    /// The mode for what may be any ftpd's: monitor where one of them is only watched, for nobody's
    /// transfers may end because another is enforced; enforce where each of them is.
    fn shared_mode(&self) -> Option<Mode> {
        let is = |mode| move |ftpd: &FtpdPorts| ftpd.mode == Some(mode);
        if self.ftpds.iter().any(is(Mode::Monitor)) {
            Some(Mode::Monitor)
        } else if self.ftpds.iter().all(is(Mode::Enforce)) {
            Some(Mode::Enforce)
        } else {
            None
        }
    }
}

const fn mode_role(mode: Option<Mode>) -> u64 {
    match mode {
        Some(Mode::Monitor) => port_word::MONITORED,
        Some(Mode::Enforce) => port_word::ENFORCED,
        None => 0,
    }
}

impl Destination {
    /// The network, with the bits that do not count cleared: two spellings of one network are
    /// one entry.
    fn key(&self) -> Key<Exception> {
        Key::new(
            EXCEPTION_PORT_BITS + u32::from(self.prefix),
            Exception {
                port: self.port.map_or(Port::NONE, Port::new),
                pad: 0,
                address: self.address,
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;

    use super::*;

    fn ftpd(mode: Option<Mode>) -> FtpdPorts {
        FtpdPorts {
            control: Vec::new(),
            passive: Vec::new(),
            mode,
        }
    }

    #[test]
    fn m1_what_may_be_any_ftpds_is_only_refused_where_all_are_enforced() {
        let shared = |modes: &[Option<Mode>]| {
            Settings {
                policy: Policy::zeroed(),
                ftpds: modes.iter().copied().map(ftpd).collect(),
                data_source_ports: vec![20],
                exceptions: Vec::new(),
                bounce_shield: false,
                cgroup: PathBuf::new(),
                max_sessions: 1,
                pins: Pins::Nowhere,
            }
            .shared_mode()
        };
        let (monitor, enforce) = (Some(Mode::Monitor), Some(Mode::Enforce));
        assert_eq!(shared(&[None]), None);
        assert_eq!(shared(&[None, enforce]), None);
        assert_eq!(shared(&[enforce, enforce]), enforce);
        assert_eq!(shared(&[None, monitor]), monitor);
        assert_eq!(shared(&[enforce, monitor]), monitor);
    }
}
