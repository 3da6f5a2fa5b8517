//! What the kernel side is told.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    ops::RangeInclusive,
    path::PathBuf,
};

use aya::{
    Pod,
    maps::{LpmTrie, MapData, lpm_trie::Key},
};
use ftpguard_common::{
    abi::{EXCEPTION_PORT_BITS, Exception, Mode, Policy, Relaxed, port_word},
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
    /// Who may open data connections for whom, although the addresses differ.
    pub relaxations: Vec<Relaxation>,
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

/// Data connections for sessions of `clients` may come from `data_from` (rule I7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relaxation {
    /// Whose sessions.
    pub clients: Vec<Network>,
    /// Where their data connections may come from.
    pub data_from: Vec<Network>,
}

/// Some addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network {
    /// The address, of which `prefix` bits count.
    pub address: Address,
    /// How many bits of the address must match, counted in its 16-byte form.
    pub prefix: u8,
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
    if before.is_none_or(|before| before.relaxations != after.relaxations) {
        relax(maps, after)?;
    }
    maps.policy.set(0, after.policy, 0)?;
    let kept: HashSet<&Destination> = after.exceptions.iter().collect();
    let former = before.map_or(&[][..], |before| &before.exceptions);
    for destination in former {
        // One that is named twice is gone already.
        if !kept.contains(destination) {
            remove(&mut maps.exceptions, &destination.key())?;
        }
    }
    Ok(())
}

/// Writes the relaxations. None holds while that is done: the bits of one must not meet those of
/// another.
fn relax(maps: &mut Maps, after: &Settings) -> Result<(), KernelError> {
    let policy = Policy {
        relaxed: 0,
        ..after.policy
    };
    maps.policy.set(0, policy, 0)?;
    let former: Vec<_> = maps.relaxed.keys().filter_map(Result::ok).collect();
    for key in former {
        remove(&mut maps.relaxed, &key)?;
    }
    for (network, relaxed) in relaxed(&after.relaxations) {
        maps.relaxed.insert(&network.key(), relaxed, 0)?;
    }
    Ok(())
}

/// Each network with the relaxations that hold in it: its own, and those of the networks around it.
fn relaxed(relaxations: &[Relaxation]) -> BTreeMap<Network, Relaxed> {
    let bits = |network: &Network, of: fn(&Relaxation) -> &Vec<Network>| {
        (0..u64::BITS)
            .zip(relaxations)
            .filter(|(_, one)| of(one).iter().any(|known| known.contains(network)))
            .fold(0, |bits, (place, _)| bits | 1 << place)
    };
    relaxations
        .iter()
        .flat_map(|one| one.clients.iter().chain(&one.data_from))
        .map(|network| {
            let relaxed = Relaxed {
                source: bits(network, |one| &one.data_from),
                client: bits(network, |one| &one.clients),
            };
            (*network, relaxed)
        })
        .collect()
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
        remove(&mut maps.exceptions, key)?;
    }
    Ok(())
}

/// Removes an entry; one that is not there is as good as removed.
fn remove<K: Pod, V: Pod>(
    map: &mut LpmTrie<MapData, K, V>,
    key: &Key<K>,
) -> Result<(), KernelError> {
    match map.remove(key) {
        Err(error) if !super::maps::is_absent(&error) => Err(error.into()),
        _ => Ok(()),
    }
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

impl Network {
    fn key(&self) -> Key<Address> {
        Key::new(self.prefix.into(), self.address)
    }

    /// Whether every address of the other one is in it.
    fn contains(&self, other: &Self) -> bool {
        let bits = |network: &Self| match network.address.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
            IpAddr::V6(address) => address.to_bits(),
        };
        let unused = u32::from(128_u8.saturating_sub(self.prefix));
        self.prefix <= other.prefix
            && (bits(self) ^ bits(other)).checked_shr(unused).unwrap_or(0) == 0
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
                relaxations: Vec::new(),
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

    /// I7: the trie gives the longest match only, so that one holds what is around it.
    #[test]
    fn i7_a_network_holds_the_relaxations_of_those_around_it() {
        let network = |text: &str| {
            let destination = crate::values::parse_destination(text).expect(text);
            Network {
                address: destination.address,
                prefix: destination.prefix,
            }
        };
        let [wide, narrow, host, other] =
            ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "192.0.2.0/24"].map(network);
        let relaxation = |clients: &[Network], data_from: &[Network]| Relaxation {
            clients: clients.to_vec(),
            data_from: data_from.to_vec(),
        };
        let all = relaxed(&[
            relaxation(&[wide], &[other]),
            relaxation(&[host], &[narrow]),
            relaxation(&[network("::/0")], &[network("2001:db8::/32")]),
        ]);
        let bits = |network: Network| (all[&network].source, all[&network].client);
        assert_eq!(bits(wide), (0, 0b101));
        assert_eq!(bits(narrow), (0b10, 0b101));
        assert_eq!(bits(host), (0b10, 0b111));
        assert_eq!(bits(other), (1, 0b100));
        assert_eq!(bits(network("2001:db8::/32")), (0b100, 0b100));
    }
}
