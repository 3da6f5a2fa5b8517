//! The one place that touches aya: loads the kernel side, attaches it, and gives a typed handle
//! to each map.
//!
//! Nothing is pinned: when the [`Kernel`] is dropped, or the process dies, every program is
//! detached and every map is gone.

mod addresses;
mod attach;
mod driver;
mod error;
mod features;
mod filter;
mod gates;
mod maps;
mod memory;
mod offsets;
mod ring;
mod settings;
mod words;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::fd::{AsFd as _, AsRawFd as _},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{CgroupArray, MapData, RingBuf},
    programs::{Program, ProgramError, TestRun as _, TestRunOptions, TestRunResult},
};
use ftpguard_common::{abi::Policy, verdict::Incident};

pub use self::{
    attach::{Attached, EgressHook, IngressHook, XdpChoice, interface_names},
    error::KernelError,
    features::{Feature, Features},
    gates::{Gates, Held},
    maps::{CpuCounters, Maps},
    ring::Ring,
    settings::{Destination, Settings},
};
use self::{gates::Hooked, offsets::read_offsets};

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
        memory::give_back();
        Ok(Self {
            hooked: BTreeMap::new(),
            ebpf,
            maps,
            features,
            cgroup,
        })
    }

    /// Puts other settings into force while the guards are attached; established connections go
    /// on. Where it fails, a part of them may be in force: call it again with the former ones.
    ///
    /// The caller adopts what a new port brings with it, and changes no cgroup.
    pub fn change(&mut self, before: &Settings, after: &Settings) -> Result<(), KernelError> {
        settings::apply(&mut self.maps, Some(before), after)
    }

    /// Puts a policy into force.
    pub fn set_policy(&mut self, policy: Policy) -> Result<(), KernelError> {
        Ok(self.maps.policy.set(0, policy, 0)?)
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
    maps.refresh_addresses()?;
    settings::apply(maps, None, settings)
}
