//! What the kernel side says while no daemon runs.

use std::path::Path;

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use ftpguard_common::abi::{Pinhole, PinholeKey, Policy, Session, SessionKey};

use super::{
    error::KernelError,
    home::{names, room, states},
    maps::{CpuCounters, sum_counters},
};

/// A kernel side without a daemon.
#[derive(Clone, Debug)]
pub struct Orphan {
    /// The policy in force.
    pub policy: Policy,
    /// When the daemon was last alive: nanoseconds of `CLOCK_MONOTONIC`.
    pub heartbeat: u64,
    /// How many control connections are open.
    pub sessions: usize,
    /// How many pinholes are open.
    pub pinholes: usize,
    /// The names of the hooks that are pinned.
    pub hooks: Vec<String>,
    /// Verdicts and incidents.
    pub counters: CpuCounters,
}

impl Orphan {
    /// Reads what lies in a pin folder; `None` where nothing does.
    pub fn read(folder: &Path) -> Result<Option<Self>, KernelError> {
        let failed = |source| KernelError::Pins {
            path: folder.to_owned(),
            source,
        };
        let Some(state) = states(folder).map_err(failed)?.pop() else {
            return Ok(None);
        };
        let pinned = |name: &str| MapData::from_pin(state.join(room::MAPS).join(name));
        let policy = Array::<_, Policy>::try_from(Map::Array(pinned("POLICY")?))?;
        let heartbeat = Array::<_, u64>::try_from(Map::Array(pinned("HEARTBEAT")?))?;
        let counters = PerCpuArray::<_, u64>::try_from(Map::PerCpuArray(pinned("COUNTERS")?))?;
        let sessions =
            HashMap::<_, SessionKey, Session>::try_from(Map::HashMap(pinned("SESSIONS")?))?;
        let pinholes =
            HashMap::<_, PinholeKey, Pinhole>::try_from(Map::HashMap(pinned("PINHOLES")?))?;
        Ok(Some(Self {
            policy: policy.get(&0, 0)?,
            heartbeat: heartbeat.get(&0, 0)?,
            sessions: count(sessions.keys()),
            pinholes: count(pinholes.keys()),
            hooks: names(&state.join(room::HOOKS)).map_err(failed)?,
            counters: sum_counters(&counters)?,
        }))
    }
}

fn count<K>(keys: impl Iterator<Item = Result<K, MapError>>) -> usize {
    keys.flatten().count()
}
