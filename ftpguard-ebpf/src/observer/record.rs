//! Reading the kernel's own structures, whose layout differs between kernels.

use aya_ebpf::{helpers::bpf_probe_read_kernel, programs::RawTracePointContext};
use ftpguard_common::{
    abi::KernelOffsets,
    net::{Address, Port},
    verdict::Incident,
};

use crate::report::note;

const AF_INET6: u16 = 10;

/// Where the fields lie; written by the daemon before this is loaded.
#[unsafe(no_mangle)]
static OFFSETS: KernelOffsets = KernelOffsets {
    family: 0,
    protocol: 0,
    source_port: 0,
    destination_port: 0,
    source_v4: 0,
    destination_v4: 0,
    source_v6: 0,
    destination_v6: 0,
    task_pid: 0,
    network: 0,
    owner: 0,
    level: 0,
    multipath: 0,
};

/// The offsets as the daemon set them, which the compiler must not take for the zeros above.
#[inline(always)]
fn offsets() -> KernelOffsets {
    // SAFETY: a static of a plain type is always valid to read.
    unsafe { core::ptr::read_volatile(&raw const OFFSETS) }
}

/// Reads one field; one that cannot be read is counted.
#[inline(always)]
fn field<T>(base: u64, offset: u32) -> Option<T> {
    let address = (base + u64::from(offset)) as *const T;
    // SAFETY: the helper checks the address. Every field is read as a type for which any bytes
    // are a value.
    match unsafe { bpf_probe_read_kernel(address) } {
        Ok(value) => Some(value),
        Err(_) => {
            note(Incident::SocketUnread);
            None
        }
    }
}

/// A `struct sock` of the kernel.
#[derive(Clone, Copy)]
pub(crate) struct Sock(u64);

impl Sock {
    /// The tracepoint's first argument.
    #[inline(always)]
    pub(crate) fn of(ctx: &RawTracePointContext) -> Self {
        Self(ctx.arg(0))
    }

    /// Its address in the kernel, used as a name only.
    #[inline(always)]
    pub(crate) const fn name(self) -> u64 {
        self.0
    }

    /// `IPPROTO_TCP` or another protocol.
    #[inline(always)]
    pub(crate) fn protocol(self) -> Option<u16> {
        field(self.0, offsets().protocol)
    }

    /// Whether its network namespace belongs to the host's own user namespace.
    ///
    /// In any other its addresses say nothing: any local user may make one, and give it the
    /// host's addresses and everybody else's.
    #[inline(always)]
    pub(crate) fn is_of_host(self) -> bool {
        self.owner_level() == Some(0)
    }

    /// Whether it is a TCP socket that carries Multipath TCP.
    #[inline(always)]
    pub(crate) fn is_multipath(self) -> bool {
        let offset = offsets().multipath;
        offset != 0 && field::<u8>(self.0, offset).is_some_and(|is_mptcp| is_mptcp != 0)
    }

    #[inline(always)]
    fn owner_level(self) -> Option<i32> {
        let offsets = offsets();
        let network: u64 = field(self.0, offsets.network)?;
        let owner: u64 = field(network, offsets.owner)?;
        field(owner, offsets.level)
    }

    /// The port on this side.
    #[inline(always)]
    pub(crate) fn local_port(self) -> Option<Port> {
        field(self.0, offsets().source_port).map(Port::from_wire)
    }

    /// The port on the other side.
    #[inline(always)]
    pub(crate) fn remote_port(self) -> Option<Port> {
        field(self.0, offsets().destination_port).map(Port::from_wire)
    }

    /// The address on this side.
    #[inline(always)]
    pub(crate) fn local(self) -> Option<Address> {
        let offsets = offsets();
        self.address(offsets.source_v4, offsets.source_v6)
    }

    /// The address on the other side.
    #[inline(always)]
    pub(crate) fn remote(self) -> Option<Address> {
        let offsets = offsets();
        self.address(offsets.destination_v4, offsets.destination_v6)
    }

    #[inline(always)]
    fn address(self, v4: u32, v6: u32) -> Option<Address> {
        if field::<u16>(self.0, offsets().family)? == AF_INET6 {
            // IPv4 over an IPv6 socket is in its mapped form already.
            return field(self.0, v6).map(Address);
        }
        field(self.0, v4).map(Address::from_v4_word)
    }
}

/// The number of the task that is the tracepoint's first argument.
#[inline(always)]
pub(crate) fn task_pid(ctx: &RawTracePointContext) -> Option<u32> {
    field(ctx.arg(0), offsets().task_pid)
}
