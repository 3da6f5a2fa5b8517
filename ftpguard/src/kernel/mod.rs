//! The one place that touches aya: loads the kernel side, attaches it, and gives a typed handle
//! to each map.
//!
//! What is attached lies pinned in a folder ([`Pins`]): it goes on when the process dies, and is
//! taken over by the next one. When the [`Kernel`] is dropped, every program is detached and every
//! map is gone, unless [`Kernel::keep`] was called.

mod addresses;
mod attach;
mod dismantle;
mod driver;
mod error;
mod features;
mod filter;
mod gates;
mod handover;
mod home;
mod hook;
mod layout;
mod maps;
mod offline;
mod offsets;
mod ring;
mod settings;
mod sys;
mod words;

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use crate::{clock, fault};
use aya::{
    Ebpf, EbpfLoader,
    maps::{CgroupArray, MapData, ProgramArray, RingBuf},
    programs::{
        Program, ProgramError, RawTracePointRunOptions, TestRun as _, TestRunOptions, TestRunResult,
    },
};
use ftpguard_common::{abi::Peer, verdict::Incident};

use self::{
    attach::OBSERVER,
    gates::Hooked,
    handover::Handover,
    home::Home,
    hook::{Fate, Hook},
    offsets::read_offsets,
};
pub use self::{
    attach::{Attached, EgressHook, IngressHook, XdpChoice, interface_names},
    error::KernelError,
    features::{Feature, Features},
    gates::{Gates, Held},
    home::{Detached, Pins, detach},
    maps::{Added, CpuCounters, Maps},
    offline::Orphan,
    ring::Ring,
    settings::{Destination, FtpdPorts, Network, Relaxation, Settings},
};

/// The loaded kernel side.
pub struct Kernel {
    // Dropped in this order: what denies before what observes, and the pinned maps last.
    hooked: BTreeMap<u32, Hooked>,
    lookup: Option<Hook>,
    connect: BTreeMap<&'static str, Hook>,
    observer: Vec<Hook>,
    /// XDP hooks that somebody else still holds.
    handovers: Vec<Handover>,
    home: Home,
    /// The programs on the tracepoints.
    entries: Vec<OwnedFd>,
    observers: ProgramArray<MapData>,
    fate: Fate,
    ebpf: Ebpf,
    /// Typed handles to the maps.
    pub maps: Maps,
    features: Features,
    cgroup: File,
    cgroup_path: PathBuf,
    /// Which cgroup the observer watches.
    scope: CgroupArray<MapData>,
    memory: u64,
}

impl Kernel {
    /// Loads every program, and fills the maps that must be complete before anything is
    /// attached, unless the maps of an earlier daemon are taken over. Nothing is attached or
    /// replaced yet.
    pub fn load(settings: &Settings) -> Result<Self, KernelError> {
        let offsets = read_offsets()?;
        let fate = Fate::default();
        let entries = OBSERVER.map(|(_, _, entry, _)| entry);
        let home = Home::open(&settings.pins, layout::number(settings)?, &entries, &fate)?;
        step("loading")?;
        let mut loader = EbpfLoader::new();
        loader.override_global("OFFSETS", &offsets, true);
        for (table, _) in TABLES {
            loader.map_max_entries(table, capacity(table, settings.max_sessions));
        }
        for name in MAPS {
            if let Some(path) = home.map(name) {
                loader.map_pin_path(name, path);
            }
        }
        let mut ebpf = loader.load(OBJECT).map_err(KernelError::Load)?;
        let mut maps = Maps::take(&mut ebpf)?;
        if !home.is_inherited() {
            fill(&mut maps, settings)?;
        }

        let cgroup = File::open(&settings.cgroup).map_err(cgroup_error(&settings.cgroup))?;
        let mut scope = CgroupArray::try_from(take(&mut ebpf, "CGROUP")?)?;
        scope.set(0, cgroup.as_raw_fd(), 0)?;
        let observers = ProgramArray::try_from(take(&mut ebpf, "OBSERVERS")?)?;

        step("verifying")?;
        let features = Features::load(&mut ebpf)?;
        let mut kernel = Self {
            hooked: BTreeMap::new(),
            lookup: None,
            connect: BTreeMap::new(),
            observer: Vec::new(),
            handovers: Vec::new(),
            home,
            entries: Vec::new(),
            observers,
            fate,
            ebpf,
            maps,
            features,
            cgroup,
            cgroup_path: settings.cgroup.clone(),
            scope,
            memory: maps_memory(),
        };
        kernel.beat()?;
        Ok(kernel)
    }

    /// Everything is attached: takes the hooks that others still hold, puts the settings into
    /// force where an earlier daemon's were, and removes what it left and nobody needs. From now
    /// on dropping this detaches. Where it fails, what others held is given back.
    pub fn commit(&mut self, settings: &Settings) -> Result<(), KernelError> {
        let unclaimed = match self.put_into_force(settings) {
            Ok(unclaimed) => unclaimed,
            Err(error) => {
                // Now, not when this is dropped: the observer is still there.
                for handover in self.handovers.drain(..).rev() {
                    handover.give_back();
                }
                return Err(error);
            }
        };
        self.home.finish();
        drop(unclaimed);
        if let Err(error) = self.settle_xdp().and_then(|()| self.forget_interfaces()) {
            log::error!("what an earlier guard left: {}", error.reason());
        }
        Ok(())
    }

    fn put_into_force(&mut self, settings: &Settings) -> Result<Vec<Hook>, KernelError> {
        self.take_xdp()?;
        let unclaimed = self.home.unclaimed()?;
        if self.home.is_inherited() {
            step("settings")?;
            self.maps.refresh_addresses()?;
            settings::take_over(&mut self.maps, settings)?;
        }
        Ok(unclaimed)
    }

    /// Forgets interfaces that an earlier daemon guarded and this one does not.
    fn forget_interfaces(&mut self) -> Result<(), KernelError> {
        let known: Vec<u32> = self.maps.gates.keys().filter_map(Result::ok).collect();
        for index in known {
            if !self.hooked.contains_key(&index) {
                // Links went with their pins.
                dismantle::remove_filters_from(index, self.home.filter_handle());
                Maps::forget(&mut self.maps.gates, &index)?;
            }
        }
        Ok(())
    }

    /// The kernel goes on guarding when this is dropped. Only where something is pinned.
    pub fn keep(&self) {
        if self.home.folder().is_some() {
            self.fate.keep();
        }
    }

    /// Whether this follows a daemon that left its hooks behind.
    #[must_use]
    pub fn follows_another(&self) -> bool {
        self.home.follows_another()
    }

    /// Whether the maps are those of an earlier daemon.
    #[must_use]
    pub fn is_inherited(&self) -> bool {
        self.home.is_inherited()
    }

    /// The folder in which the kernel side lives on without the daemon, where it does.
    #[must_use]
    pub fn pins(&self) -> Option<&Path> {
        self.home.folder()
    }

    /// What the maps take, in bytes, as the kernel estimates it.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// The daemon is alive (rule M2).
    pub fn beat(&mut self) -> Result<(), KernelError> {
        Ok(self.maps.heartbeat.set(0, clock::monotonic_ns(), 0)?)
    }

    /// The daemon is about to rest: the next event wakes it.
    pub fn rest(&mut self) -> Result<(), KernelError> {
        Ok(self.maps.asleep.set(0, 1, 0)?)
    }

    /// Puts other settings into force while the guards are attached; established connections go
    /// on. Where it fails, a part of them may be in force: call it again with the former ones.
    ///
    /// The caller adopts what a new port brings with it, and changes no cgroup.
    pub fn change(&mut self, before: &Settings, after: &Settings) -> Result<(), KernelError> {
        settings::apply(&mut self.maps, Some(before), after)
    }

    /// Whether the folder of the watched cgroup is another one by now: it was removed and made
    /// again.
    pub fn is_cgroup_new(&self) -> Result<bool, KernelError> {
        let failed = cgroup_error(&self.cgroup_path);
        let held = self.cgroup.metadata().map_err(&failed)?;
        let there = fs::metadata(&self.cgroup_path).map_err(&failed)?;
        Ok((held.dev(), held.ino()) != (there.dev(), there.ino()))
    }

    /// Watches the cgroup that is there now, if that is another one; whether it is. The caller
    /// adopts what runs in it, and attaches the connect() hooks.
    pub fn follow_cgroup(&mut self) -> Result<bool, KernelError> {
        let is_new = self.is_cgroup_new()?;
        if is_new {
            let cgroup = File::open(&self.cgroup_path).map_err(cgroup_error(&self.cgroup_path))?;
            self.scope.set(0, cgroup.as_raw_fd(), 0)?;
            self.cgroup = cgroup;
        }
        Ok(is_new)
    }

    /// What this kernel has of what kernels differ in.
    #[must_use]
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// The ring buffer of [`ftpguard_common::event::Event`]s. Can be taken once.
    pub fn take_events(&mut self) -> Result<RingBuf<MapData>, KernelError> {
        Ok(RingBuf::try_from(take(&mut self.ebpf, "EVENTS")?)?)
    }

    /// The ring buffer of captured control bytes
    /// ([`ftpguard_common::event::ControlHeader`]). Can be taken once.
    pub fn take_control(&mut self) -> Result<RingBuf<MapData>, KernelError> {
        Ok(RingBuf::try_from(take(&mut self.ebpf, "CONTROL")?)?)
    }

    /// How many instructions the verifier walked for each loaded program; `None` before Linux
    /// 5.16.
    #[must_use]
    pub fn verified_instructions(&self) -> Vec<(String, Option<u32>)> {
        self.ebpf
            .programs()
            .filter_map(|(name, program)| {
                let info = program.info().ok()?;
                Some((name.to_owned(), info.verified_instruction_count()))
            })
            .collect()
    }

    /// Every verdict and incident so far, summed over the CPUs.
    pub fn counters(&self) -> Result<CpuCounters, KernelError> {
        let mut counters = self.maps.counters()?;
        counters.add(Incident::ObserverSkipped, self.skipped());
        Ok(counters)
    }

    /// How often the kernel left the observer's programs out (`bpf_prog_inc_misses_counter()`,
    /// Linux 5.12; older kernels never do).
    fn skipped(&self) -> u64 {
        self.facts()
            .filter_map(|(_, facts)| fact(&facts, "recursion_misses:"))
            .sum()
    }

    /// How often each program ran and how long it took altogether, in nanoseconds. The kernel
    /// counts while its statistics are on (`kernel.bpf_stats_enabled`); programs that did not run
    /// meanwhile are left out.
    #[must_use]
    pub fn run_times(&self) -> Vec<(String, u64, u64)> {
        self.facts()
            .filter_map(|(name, facts)| {
                let runs = fact(&facts, "run_cnt:").filter(|runs| *runs > 0)?;
                Some((name, runs, fact(&facts, "run_time_ns:")?))
            })
            .collect()
    }

    /// What the kernel says of each program at work (`bpf_prog_show_fdinfo()`). The observer's are
    /// counted with those that sit on the tracepoints and call them.
    fn facts(&self) -> impl Iterator<Item = (String, String)> {
        let is_entry = |name: &str| OBSERVER.iter().any(|(_, _, entry, _)| *entry == name);
        let loaded = self
            .ebpf
            .programs()
            .filter(move |(name, _)| !is_entry(name))
            .filter_map(|(name, program)| {
                Some((name.to_owned(), program.fd().ok()?.as_fd().as_raw_fd()))
            });
        let entries = OBSERVER
            .iter()
            .zip(&self.entries)
            .map(|((_, _, entry, _), descriptor)| ((*entry).to_owned(), descriptor.as_raw_fd()));
        loaded.chain(entries).filter_map(|(name, number)| {
            let facts = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).ok()?;
            Some((name, facts))
        })
    }

    /// Changes how many control connections of a client are counted. The kernel side does it, so
    /// that nothing is lost which is counted meanwhile; what finds no room it counts too.
    pub fn count_peer(&self, peer: &Peer, step: i32) -> Result<(), KernelError> {
        const PROGRAM: &str = "count_peer";
        let Some(Program::RawTracePoint(program)) = self.ebpf.program(PROGRAM) else {
            return Err(KernelError::Missing(PROGRAM.to_owned()));
        };
        let mut options = RawTracePointRunOptions::new();
        for (argument, value) in options.args.iter_mut().zip(peer.step(step)) {
            *argument = value;
        }
        let done = program.test_run(options);
        done.map(drop).map_err(|source| KernelError::Program {
            name: PROGRAM.to_owned(),
            source: Box::new(source),
        })
    }

    /// Runs one program on one frame, `repeat` times, without a network
    /// (`BPF_PROG_TEST_RUN`). For tests and benchmarks.
    pub fn test_run(
        &self,
        program: &str,
        frame: &[u8],
        repeat: u32,
    ) -> Result<TestRunResult, KernelError> {
        let options = TestRunOptions {
            data_in: Some(frame),
            repeat,
            ..TestRunOptions::new()
        };
        let result = match self.ebpf.program(self.features.variant(program)) {
            Some(Program::Xdp(program)) => program.test_run(options),
            Some(Program::SchedClassifier(program)) => program.test_run(options),
            _ => return Err(KernelError::Missing(program.to_owned())),
        };
        result.map_err(|source| KernelError::Program {
            name: program.to_owned(),
            source: Box::new(source),
        })
    }
}

/// The kernel side as built by `build.rs`.
const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ftpguard-ebpf"));

fn cgroup_error(path: &Path) -> impl Fn(io::Error) -> KernelError + use<> {
    let path = path.to_owned();
    move |source| KernelError::Cgroup {
        path: path.clone(),
        source,
    }
}

/// The number behind this name.
fn fact(facts: &str, name: &str) -> Option<u64> {
    let number = facts.lines().find_map(|line| line.strip_prefix(name))?;
    number.trim().parse().ok()
}

fn take(ebpf: &mut Ebpf, name: &str) -> Result<aya::maps::Map, KernelError> {
    ebpf.take_map(name)
        .ok_or_else(|| KernelError::Missing(name.to_owned()))
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "aya knows thirty kinds; one that is added to the object fails at once"
)]
fn load_program(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::Xdp(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        Program::RawTracePoint(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::SkLookup(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn fill(maps: &mut Maps, settings: &Settings) -> Result<(), KernelError> {
    maps.refresh_addresses()?;
    settings::apply(maps, None, settings)
}

/// A step of the start, which tests let fail.
fn step(what: &str) -> Result<(), KernelError> {
    fault::step(what).map_err(KernelError::Fault)
}

/// Every map that outlives a daemon. Those that hold constants belong to one set of programs.
const MAPS: [&str; 29] = [
    "ADDRESSES",
    "ADDRESS_AT",
    "ADVICE",
    "ANY_ELSEWHERE",
    "ASLEEP",
    "BARRED",
    "CGROUP",
    "CONTROL",
    "COUNTERS",
    "ELSEWHERE",
    "EVENTS",
    "EVENT_BUDGET",
    "EXCEPTIONS",
    "FORMER_LISTENERS",
    "GATES",
    "HEARTBEAT",
    "LISTENERS",
    "OBSERVERS",
    "PARENTS",
    "PEERS",
    "PIECE",
    "PINHOLES",
    "POLICY",
    "PORTS",
    "PROCESSES",
    "RELAXED",
    "SERVING",
    "SESSIONS",
    "TOLD",
];

/// Tables that grow with the number of sessions, and how many entries each session may need.
const TABLES: [(&str, u32); 8] = [
    ("SESSIONS", 1),
    ("ADVICE", 1),
    ("PINHOLES", 1),
    ("SERVING", 1),
    ("LISTENERS", 2),
    // A client counts for its ftpd, and for all.
    ("PEERS", 2),
    // vsftpd has two processes and more for each session.
    ("PROCESSES", 4),
    ("PARENTS", 2),
];

/// How many entries this map takes where it may have so many sessions; 0 where it does not grow
/// with them.
#[must_use]
pub(crate) fn capacity(map: &str, max_sessions: u32) -> u32 {
    TABLES
        .iter()
        .find(|(name, _)| *name == map)
        .map_or(0, |(_, share)| max_sessions.saturating_mul(*share))
}

/// What every map that this process holds takes.
fn maps_memory() -> u64 {
    let mut seen = HashSet::new();
    let Ok(descriptors) = fs::read_dir("/proc/self/fdinfo") else {
        return 0;
    };
    descriptors
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .filter_map(|facts| {
            let value = |name: &str| {
                let line = facts.lines().find_map(|line| line.strip_prefix(name))?;
                line.trim().parse::<u64>().ok()
            };
            value("map_type:")?;
            // Each map once, however many descriptors there are.
            seen.insert(value("map_id:")?).then(|| value("memlock:"))?
        })
        .sum()
}
