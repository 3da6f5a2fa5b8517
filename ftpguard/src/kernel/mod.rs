//! The one place that touches aya: loads the kernel side, attaches it, and gives a typed handle
//! to each map.
//!
//! Nothing is pinned: when the [`Kernel`] is dropped, or the process dies, every program is
//! detached and every map is gone.

mod attach;
mod driver;
mod error;
mod features;
mod filter;
mod gates;
mod maps;
mod offsets;
mod ring;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    ops::RangeInclusive,
    os::fd::{AsFd as _, AsRawFd as _},
    path::PathBuf,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{CgroupArray, MapData, RingBuf, lpm_trie::Key},
    programs::{Program, ProgramError, TestRun as _, TestRunOptions, TestRunResult},
};
use ftpguard_common::{
    abi::{EXCEPTION_PORT_BITS, Exception, Policy, port_word},
    net::{Address, Port},
    verdict::Incident,
};

pub use self::{
    attach::{Attached, EgressHook, IngressHook, XdpChoice, interface_names},
    error::KernelError,
    features::{Feature, Features},
    gates::{Gates, Held},
    maps::{CpuCounters, Maps},
    ring::Ring,
};
use self::{gates::Hooked, offsets::read_offsets};

/// What the kernel side is told once, before anything is attached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The policy in force from the first packet on.
    pub policy: Policy,
    /// Ports on which the guarded ftpds accept control connections.
    pub control_ports: Vec<u16>,
    /// The declared passive ranges.
    pub passive_ports: Vec<RangeInclusive<u16>>,
    /// Ports from which an ftpd may open active data connections, 20 by default.
    pub data_source_ports: Vec<u16>,
    /// Destinations that an ftpd may connect to although they are no clients.
    pub exceptions: Vec<Destination>,
    /// Whether other people's ftpds are kept away from this host's ports below 1024 (rule O11).
    pub bounce_shield: bool,
    /// The cgroup v2 folder whose processes are watched; the hierarchy's root for all.
    pub cgroup: PathBuf,
}

/// A destination that an ftpd may connect to (rule O3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The address, of which `prefix` bits count.
    pub address: Address,
    /// How many bits of the address must match, counted in its 16-byte form.
    pub prefix: u8,
    /// The port, any port where there is none.
    pub port: Option<u16>,
}

/// The loaded kernel side.
pub struct Kernel {
    // Dropped before the programs that it holds.
    hooked: BTreeMap<u32, Hooked>,
    ebpf: Ebpf,
    /// Typed handles to the maps.
    pub maps: Maps,
    features: Features,
    cgroup: File,
}

impl Kernel {
    /// Loads every program and fills the maps that must be complete before anything is
    /// attached. Nothing is attached yet.
    pub fn load(settings: &Settings) -> Result<Self, KernelError> {
        let offsets = read_offsets()?;
        let mut ebpf = EbpfLoader::new()
            .override_global("OFFSETS", &offsets, true)
            .load(OBJECT)
            .map_err(KernelError::Load)?;
        let mut maps = Maps::take(&mut ebpf)?;
        fill(&mut maps, settings)?;

        let cgroup = File::open(&settings.cgroup).map_err(|source| KernelError::Cgroup {
            path: settings.cgroup.clone(),
            source,
        })?;
        let mut scope = CgroupArray::try_from(take(&mut ebpf, "CGROUP")?)?;
        scope.set(0, cgroup.as_raw_fd(), 0)?;

        let features = Features::load(&mut ebpf)?;
        Ok(Self {
            hooked: BTreeMap::new(),
            ebpf,
            maps,
            features,
            cgroup,
        })
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
        self.ebpf
            .programs()
            .filter_map(|(_, program)| program.fd().ok())
            .filter_map(|program| {
                let number = program.as_fd().as_raw_fd();
                let facts = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).ok()?;
                let count = facts
                    .lines()
                    .find_map(|line| line.strip_prefix("recursion_misses:"))?;
                count.trim().parse::<u64>().ok()
            })
            .sum()
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
    maps.policy.set(0, settings.policy, 0)?;
    maps.refresh_addresses()?;
    for range in &settings.passive_ports {
        for port in range.clone() {
            maps.add_port_role(port, port_word::PASSIVE)?;
        }
    }
    if settings.bounce_shield {
        for port in 1..1024 {
            maps.add_port_role(port, port_word::SHIELDED)?;
        }
    }
    for port in &settings.control_ports {
        maps.add_port_role(*port, port_word::CONTROL)?;
    }
    for port in &settings.data_source_ports {
        maps.add_port_role(*port, port_word::DATA_SOURCE)?;
    }
    for destination in &settings.exceptions {
        let key = Key::new(
            EXCEPTION_PORT_BITS + u32::from(destination.prefix),
            Exception {
                port: destination.port.map_or(Port::NONE, Port::new),
                pad: 0,
                address: destination.address,
            },
        );
        maps.exceptions.insert(&key, 1, 0)?;
    }
    Ok(())
}
