//! Typed handles to the kernel side's maps.

use std::{borrow::BorrowMut as _, collections::BTreeMap};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, PerCpuValues},
};
use ftpguard_common::{
    abi::{
        Advice, Barred, Endpoint, Exception, Listener, Parent, Peer, Pinhole, PinholeKey, Policy,
        Process, Refusal, Relaxed, Session, SessionKey, port_word,
    },
    event::EventBudget,
    net::{Address, Port},
    verdict::{COUNTER_COUNT, Incident, Reason},
};

use super::{error::KernelError, take, words::PortWords};

/// One handle for each map that the daemon reads or writes. What a map holds, and who writes
/// it, is said in `ftpguard-ebpf/src/maps.rs`.
pub struct Maps {
    /// Control connections.
    pub sessions: HashMap<MapData, SessionKey, Session>,
    /// What the daemon read of each session's text.
    pub advice: HashMap<MapData, SessionKey, Advice>,
    /// Open pinholes.
    pub pinholes: HashMap<MapData, PinholeKey, Pinhole>,
    /// Listening sockets: the ftpds', and foreign ones in the declared range.
    pub listeners: HashMap<MapData, Endpoint, Listener>,
    /// Processes of guarded ftpds, by process id.
    pub processes: HashMap<MapData, u32, Process>,
    /// What is known of other processes, by process id.
    pub parents: HashMap<MapData, u32, Parent>,
    /// How many control connections each client holds.
    pub peers: HashMap<MapData, Peer, u32>,
    /// One word for each port, see [`ftpguard_common::abi::port_word`].
    words: PortWords,
    /// The same map, which the programs look up by its descriptor when they are loaded.
    _ports: MapData,
    /// This host's addresses.
    pub addresses: HashMap<MapData, Address, u32>,
    /// The same, each at its slot.
    pub(super) address_at: Array<MapData, Address>,
    /// Destinations refused a moment ago, with the time of refusal in nanoseconds of
    /// `CLOCK_MONOTONIC`.
    pub barred: HashMap<MapData, Barred, Refusal>,
    /// Indices of the interfaces that have an early gate.
    pub gates: HashMap<MapData, u32, u32>,
    /// The policy in force.
    pub policy: Array<MapData, Policy>,
    /// Destinations that an ftpd may connect to.
    pub exceptions: LpmTrie<MapData, Exception, u32>,
    /// Who may open data connections for whom.
    pub relaxed: LpmTrie<MapData, Address, Relaxed>,
    /// When the daemon was last alive: nanoseconds of `CLOCK_MONOTONIC`.
    pub heartbeat: Array<MapData, u64>,
    /// Not 0 while the next event is to wake the daemon.
    pub asleep: Array<MapData, u32>,
    /// Reasons and incidents, counted for each CPU.
    pub counters: PerCpuArray<MapData, u64>,
    /// How many denials each CPU may still report one by one.
    pub event_budget: PerCpuArray<MapData, EventBudget>,
    /// What the daemon left out because a table was full, beside what the kernel side counts.
    left_out: BTreeMap<u32, u64>,
    /// Whether some of this host's addresses have no room.
    pub(super) lacks_addresses: bool,
}

/// What became of an entry that was to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Added {
    /// It is there now.
    New,
    /// There is one already, which stays.
    Known,
    /// The table is full: it is not there.
    NoRoom,
}

impl Maps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let ports = ports(ebpf)?;
        Ok(Self {
            sessions: typed(ebpf, "SESSIONS")?,
            advice: typed(ebpf, "ADVICE")?,
            pinholes: typed(ebpf, "PINHOLES")?,
            listeners: typed(ebpf, "LISTENERS")?,
            processes: typed(ebpf, "PROCESSES")?,
            parents: typed(ebpf, "PARENTS")?,
            peers: typed(ebpf, "PEERS")?,
            words: PortWords::map(ports.fd()).map_err(KernelError::Memory)?,
            _ports: ports,
            addresses: typed(ebpf, "ADDRESSES")?,
            address_at: typed(ebpf, "ADDRESS_AT")?,
            barred: typed(ebpf, "BARRED")?,
            gates: typed(ebpf, "GATES")?,
            policy: typed(ebpf, "POLICY")?,
            exceptions: typed(ebpf, "EXCEPTIONS")?,
            relaxed: typed(ebpf, "RELAXED")?,
            heartbeat: typed(ebpf, "HEARTBEAT")?,
            asleep: typed(ebpf, "ASLEEP")?,
            counters: typed(ebpf, "COUNTERS")?,
            event_budget: typed(ebpf, "EVENT_BUDGET")?,
            left_out: BTreeMap::new(),
            lacks_addresses: false,
        })
    }

    /// Gives each port its roles, see [`ftpguard_common::abi::port_word`]: one byte for each,
    /// port 0 first. The kernel side may count listeners meanwhile.
    pub fn set_port_roles(&mut self, roles: &[u8]) {
        for (port, roles) in (0..=u16::MAX).zip(roles) {
            let roles = u64::from(*roles);
            if self.words.roles(port) != roles {
                self.words.set_roles(port, roles);
            }
        }
    }

    /// A port's word, see [`ftpguard_common::abi::port_word`].
    #[must_use]
    pub fn port_word(&self, port: Port) -> u64 {
        self.words.get(port.number())
    }

    /// Every entry of a hash map. Entries that come or go meanwhile may be missed.
    pub fn entries<K: Pod, V: Pod>(map: &HashMap<MapData, K, V>) -> Vec<(K, V)> {
        map.iter().filter_map(Result::ok).collect()
    }

    /// The counters, summed over all CPUs.
    pub fn counters(&self) -> Result<CpuCounters, KernelError> {
        let mut counters = sum_counters(&self.counters)?;
        for (counter, count) in &self.left_out {
            counters.add_at(*counter, *count);
        }
        Ok(counters)
    }

    /// How often one thing happened to the guard.
    pub fn incident(&self, incident: Incident) -> Result<u64, KernelError> {
        let counter = incident.counter();
        let here = self.left_out.get(&counter).copied().unwrap_or(0);
        Ok(here + self.counters.get(&counter, 0)?.iter().sum::<u64>())
    }

    /// Counts something that the daemon had no room for (rule K9).
    pub fn leave_out(&mut self, incident: Incident) {
        *self.left_out.entry(incident.counter()).or_default() += 1;
    }

    /// Lets all CPUs together report this many denials of each kind one by one until the next
    /// call, and each at least one. More are only counted. A new `salt` begins a new second for
    /// every source.
    pub fn refill_event_budget(&mut self, denials: u32, salt: u32) -> Result<(), KernelError> {
        let cpus = self.event_budget.get(&0, 0)?.len();
        let share = denials / u32::try_from(cpus).unwrap_or(u32::MAX);
        let budget = EventBudget {
            left: [share.max(1); 4],
            salt,
            pad: 0,
        };
        let values = PerCpuValues::try_from(vec![budget; cpus]).map_err(MapError::IoError)?;
        self.event_budget.set(0, values, 0)?;
        Ok(())
    }

    /// The value of a key, if there is one.
    pub fn find<K: Pod, V: Pod>(
        map: &HashMap<MapData, K, V>,
        key: &K,
    ) -> Result<Option<V>, KernelError> {
        match map.get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes an entry, over a former one. False where the table is full and there was none.
    pub fn put<K: Pod, V: Pod>(
        map: &mut HashMap<MapData, K, V>,
        key: &K,
        value: &V,
    ) -> Result<bool, KernelError> {
        match map.insert(key, value, 0) {
            Ok(()) => Ok(true),
            Err(error) if is_full(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Adds an entry unless there is one. What the kernel side wrote in the meantime is newer and
    /// stays.
    pub fn add<K: Pod, V: Pod>(
        map: &mut HashMap<MapData, K, V>,
        key: &K,
        value: &V,
    ) -> Result<Added, KernelError> {
        match map.insert(key, value, u64::from(BPF_NOEXIST)) {
            Ok(()) => Ok(Added::New),
            Err(error) if errno(&error) == Some(libc::EEXIST) => Ok(Added::Known),
            Err(error) if is_full(&error) => Ok(Added::NoRoom),
            Err(error) => Err(error.into()),
        }
    }

    /// Changes an entry if it is still there: whether it was.
    pub fn change<K: Pod, V: Pod>(
        map: &mut HashMap<MapData, K, V>,
        key: &K,
        value: &V,
    ) -> Result<bool, KernelError> {
        match map.insert(key, value, u64::from(BPF_EXIST)) {
            Ok(()) => Ok(true),
            Err(error) if errno(&error) == Some(libc::ENOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps the hints in a port's word as the kernel side does: for a listener that was open
    /// before the guard.
    pub fn hint_listener(&mut self, port: Port, listener: &Listener) {
        self.mark_lenient(port, listener);
        self.words.add(port.number(), listener.hint());
    }

    /// The same for a guarded one that there was no room for (rule K9): its pinhole is asked for
    /// all the same. Once, however often it is found.
    pub fn hint_crowded(&mut self, port: Port, listener: &Listener) {
        if !port_word::is_crowded(self.port_word(port)) {
            self.words.mark(port.number(), port_word::ONE_CROWDED);
            self.hint_listener(port, listener);
        }
    }

    /// The same where a listener takes another's place.
    pub fn change_hint(&mut self, port: Port, before: &Listener, after: &Listener) {
        self.mark_lenient(port, after);
        let step = after.hint().wrapping_sub(before.hint());
        self.words.add(port.number(), step);
    }

    /// Marks the port's word, before its listener admits clients without a pinhole.
    pub fn mark_lenient(&mut self, port: Port, listener: &Listener) {
        if !listener.is_strict() {
            self.words.mark(port.number(), port_word::ONE_LENIENT);
        }
    }

    /// Whether this control port had a connection over Multipath TCP.
    #[must_use]
    pub fn saw_multipath(&self, control_port: Port) -> bool {
        self.port_word(control_port) & port_word::MULTIPATH != 0
    }

    /// Whether this process may serve clients over Multipath TCP, which it is not seen to read. The
    /// kernel side asks the same.
    #[must_use]
    pub fn may_serve_unseen(&self, process: &Process) -> bool {
        self.saw_multipath(process.control_port) && !process.is_of_one_session()
    }

    /// Writes what a listener turned out to be, if it is still there: whether it was.
    pub fn replace_listener(
        &mut self,
        endpoint: &Endpoint,
        before: &Listener,
        after: &Listener,
    ) -> Result<bool, KernelError> {
        // The hint first: a guarded listener must never be without.
        self.change_hint(endpoint.port, before, after);
        let replaced = Self::change(&mut self.listeners, endpoint, after);
        if !matches!(replaced, Ok(true)) {
            // Who removed it meanwhile took back the hint that it had.
            self.change_hint(endpoint.port, after, before);
        }
        replaced
    }

    /// Removes a listener, and its hint: whether it was there. Who removes it takes back the hint,
    /// and nobody else.
    pub fn forget_listener(&mut self, endpoint: &Endpoint) -> Result<bool, KernelError> {
        let Some(listener) = Self::find(&self.listeners, endpoint)? else {
            return Ok(false);
        };
        let removed = Self::remove(&mut self.listeners, endpoint)?;
        if removed {
            let hint = listener.hint().wrapping_neg();
            self.words.add(endpoint.port.number(), hint);
        }
        Ok(removed)
    }

    /// Removes an entry; one that is not there is as good as removed.
    pub fn forget<K: Pod, V: Pod>(
        map: &mut HashMap<MapData, K, V>,
        key: &K,
    ) -> Result<(), KernelError> {
        Self::remove(map, key).map(drop)
    }

    /// Removes an entry: whether it was there.
    pub fn remove<K: Pod, V: Pod>(
        map: &mut HashMap<MapData, K, V>,
        key: &K,
    ) -> Result<bool, KernelError> {
        match map.borrow_mut().remove(key) {
            Ok(()) => Ok(true),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// The sum over all CPUs of each reason and incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuCounters(Vec<u64>);

impl CpuCounters {
    /// How many SYNs or calls were decided for this reason.
    #[must_use]
    pub fn reason(&self, reason: Reason) -> u64 {
        self.at(reason.counter())
    }

    /// How often this happened to the guard.
    #[must_use]
    pub fn incident(&self, incident: Incident) -> u64 {
        self.at(incident.counter())
    }

    /// Adds what is counted elsewhere.
    pub(super) fn add(&mut self, incident: Incident, count: u64) {
        self.add_at(incident.counter(), count);
    }

    fn add_at(&mut self, counter: u32, count: u64) {
        let place = usize::try_from(counter);
        if let Some(sum) = place.ok().and_then(|place| self.0.get_mut(place)) {
            *sum += count;
        }
    }

    fn at(&self, index: u32) -> u64 {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.0.get(index))
            .copied()
            .unwrap_or(0)
    }
}

/// Adds up what the CPUs counted.
pub(super) fn sum_counters(
    counters: &PerCpuArray<MapData, u64>,
) -> Result<CpuCounters, KernelError> {
    let mut sums = Vec::with_capacity(COUNTER_COUNT as usize);
    for index in 0..COUNTER_COUNT {
        sums.push(counters.get(&index, 0)?.iter().sum());
    }
    Ok(CpuCounters(sums))
}

fn ports(ebpf: &mut Ebpf) -> Result<MapData, KernelError> {
    const NAME: &str = "PORTS";
    if let Map::Array(map) = take(ebpf, NAME)? {
        Ok(map)
    } else {
        Err(KernelError::Missing(NAME.to_owned()))
    }
}

fn typed<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> Result<T, KernelError> {
    Ok(T::try_from(take(ebpf, name)?)?)
}

/// Flag of `BPF_MAP_UPDATE_ELEM`: only where there is no entry.
const BPF_NOEXIST: u32 = 1;
/// Flag of `BPF_MAP_UPDATE_ELEM`: only where there is an entry.
const BPF_EXIST: u32 = 2;

/// Whether the kernel found no such entry.
pub(super) fn is_absent(error: &MapError) -> bool {
    matches!(error, MapError::KeyNotFound) || errno(error) == Some(libc::ENOENT)
}

/// Whether a hash map has no room for another entry (`alloc_htab_elem()` in
/// kernel/bpf/hashtab.c).
fn is_full(error: &MapError) -> bool {
    errno(error) == Some(libc::E2BIG)
}

/// The kernel's error number, where the kernel refused.
fn errno(error: &MapError) -> Option<i32> {
    if let MapError::SyscallError(error) = error {
        error.io_error.raw_os_error()
    } else {
        None
    }
}
