//! What can go wrong between the daemon and the kernel.

use std::{error::Error, fmt, io, path::PathBuf};

use aya::{EbpfError, maps::MapError, programs::ProgramError, sys::SyscallError};

/// Why the kernel side could not be loaded, attached or read.
#[derive(Debug)]
pub enum KernelError {
    /// The object could not be loaded at all.
    Load(EbpfError),
    /// The object lacks a map or program of this name: daemon and object do not fit.
    Missing(String),
    /// A map operation failed.
    Map(MapError),
    /// The kernel refused a program.
    Program {
        /// The program's name in the object.
        name: String,
        /// What the kernel said; holds the verifier's log where it spoke.
        source: Box<ProgramError>,
    },
    /// The kernel's type information could not be read, or lacks something.
    Types {
        /// What is wrong with it.
        what: String,
    },
    /// The cgroup folder could not be opened.
    Cgroup {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A map could not be mapped into memory.
    Memory(nix::Error),
    /// The own network namespace could not be opened.
    NetworkNamespace(io::Error),
    /// Pins could not be made, read or removed.
    Pins {
        /// The folder or pin.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder for pins does not lie in a BPF file system.
    NoBpfFileSystem(PathBuf),
    /// Another guard uses the folder for pins.
    PinsInUse(PathBuf),
    /// A file descriptor could not be duplicated.
    Descriptor(io::Error),
    /// A fault on purpose ([`crate::fault`]).
    Fault(io::Error),
    /// There is no interface of this name here.
    NoInterface(String),
    /// Another program sits on the interface's XDP hook.
    HookTaken {
        /// The interface.
        interface: String,
    },
    /// The interface's packets have no Ethernet header, where the packet programs begin to read.
    NoEthernet(String),
    /// The interface's driver cannot run XDP programs itself.
    NoNativeXdp(String),
    /// The interface's driver can, and does not now.
    XdpRefused {
        /// The interface.
        interface: String,
        /// What the kernel said.
        source: Box<ProgramError>,
    },
}

impl KernelError {
    /// An interface does not take an XDP program.
    pub(super) fn xdp(interface: &str, error: ProgramError) -> Self {
        let interface = interface.to_owned();
        match errno(&error) {
            // EBUSY: the hook is taken; EEXIST: it is taken in the other mode.
            Some(libc::EBUSY | libc::EEXIST) => Self::HookTaken { interface },
            Some(libc::EOPNOTSUPP) => Self::NoNativeXdp(interface),
            Some(_) => Self::XdpRefused {
                interface,
                source: Box::new(error),
            },
            None => Self::Program {
                name: "guard_ingress".to_owned(),
                source: Box::new(error),
            },
        }
    }

    /// The error and all its causes, without a remedy: for a line of status.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::HookTaken { .. } => "another XDP program is attached".to_owned(),
            Self::NoNativeXdp(_) => "its driver cannot run XDP programs".to_owned(),
            Self::NoEthernet(_) => "its packets have no Ethernet header".to_owned(),
            Self::Load(_)
            | Self::Missing(_)
            | Self::Map(_)
            | Self::Program { .. }
            | Self::Types { .. }
            | Self::Cgroup { .. }
            | Self::Memory(_)
            | Self::NetworkNamespace(_)
            | Self::Pins { .. }
            | Self::NoBpfFileSystem(_)
            | Self::PinsInUse(_)
            | Self::Descriptor(_)
            | Self::Fault(_)
            | Self::NoInterface(_)
            | Self::XdpRefused { .. } => {
                let mut text = self.to_string();
                let mut next = self.source();
                while let Some(error) = next {
                    text = format!("{text}: {error}");
                    next = error.source();
                }
                text
            }
        }
    }
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Load(_) => f.write_str("the kernel refused the guard's maps or programs"),
            Self::Missing(name) => write!(f, "the embedded kernel object has no {name:?}"),
            Self::Map(_) => f.write_str("a BPF map could not be read or written"),
            Self::Program { name, .. } => write!(f, "the kernel refused the program {name}"),
            Self::Types { what } => write!(
                f,
                "{what}; ftpguard needs a kernel that shows its types (CONFIG_DEBUG_INFO_BTF=y)"
            ),
            Self::Cgroup { path, .. } => write!(
                f,
                "cgroup v2 folder {} cannot be opened; name another with --cgroup",
                path.display()
            ),
            Self::Memory(_) => f.write_str(
                "a BPF map could not be mapped into memory, which needs Linux 5.5 or later",
            ),
            Self::NetworkNamespace(_) => {
                f.write_str("the own network namespace cannot be opened; is /proc mounted?")
            }
            Self::Pins { path, .. } => write!(
                f,
                "{} cannot be used for pins; name another folder with --pin-dir, or none with \
                 --pin=false",
                path.display()
            ),
            Self::NoBpfFileSystem(path) => write!(
                f,
                "{} is not in a BPF file system; mount one (mount -t bpf -o mode=0700 bpf /sys/fs/bpf) and \
                 name a folder in it with --pin-dir, or none with --pin=false",
                path.display()
            ),
            Self::PinsInUse(path) => write!(
                f,
                "another ftpguard uses {}; stop it, or give this one a folder of its own with \
                 --pin-dir",
                path.display()
            ),
            Self::Descriptor(_) => f.write_str("no further file can be opened (ulimit -n)"),
            Self::Fault(_) => f.write_str("a step of the start failed on purpose"),
            Self::NoInterface(name) => write!(
                f,
                "no interface {name:?} in this network namespace; `ip link` lists them"
            ),
            Self::HookTaken { interface } => write!(
                f,
                "interface {interface} already runs an XDP program; see it with \
                 `ip -details link show dev {interface}`, detach it, or use --xdp-mode tc"
            ),
            Self::NoEthernet(interface) => write!(
                f,
                "packets of {interface} have no Ethernet header; what comes by it is judged by \
                 the last gate only"
            ),
            Self::NoNativeXdp(interface) => write!(
                f,
                "the driver of {interface} cannot run XDP programs; use --xdp-mode auto or tc"
            ),
            Self::XdpRefused { interface, .. } => write!(
                f,
                "the driver of {interface} refuses XDP as it is set up now (MTU, offloads or \
                 queues; the kernel log may say which); change that, or use --xdp-mode auto or tc"
            ),
        }
    }
}

impl Error for KernelError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Load(source) => Some(source),
            Self::Map(source) => Some(source),
            Self::Program { source, .. } | Self::XdpRefused { source, .. } => Some(source),
            Self::Memory(source) => Some(source),
            Self::Cgroup { source, .. }
            | Self::NetworkNamespace(source)
            | Self::Pins { source, .. }
            | Self::Descriptor(source)
            | Self::Fault(source) => Some(source),
            Self::Missing(_)
            | Self::Types { .. }
            | Self::NoBpfFileSystem(_)
            | Self::PinsInUse(_)
            | Self::NoInterface(_)
            | Self::HookTaken { .. }
            | Self::NoEthernet(_)
            | Self::NoNativeXdp(_) => None,
        }
    }
}

pub(super) fn errno(error: &ProgramError) -> Option<i32> {
    if let ProgramError::SyscallError(SyscallError { io_error, .. }) = error {
        return io_error.raw_os_error();
    }
    io_errno(error)
}

/// The first operating system error in the chain.
pub(super) fn io_errno(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(code) = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error)
        {
            return Some(code);
        }
        next = error.source();
    }
    None
}

impl From<MapError> for KernelError {
    fn from(source: MapError) -> Self {
        Self::Map(source)
    }
}
