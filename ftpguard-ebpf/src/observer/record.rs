//! Reading tracepoint records, whose layout differs between kernels.

use aya_ebpf::programs::TracePointContext;
use ftpguard_common::{
    abi::TracepointOffsets,
    net::{Address, Port},
    verdict::Incident,
};

use crate::report::note;

/// Where the fields lie; written by the daemon before this is loaded.
#[unsafe(no_mangle)]
static OFFSETS: TracepointOffsets = {
    use ftpguard_common::abi::{ReadOffsets, StateOffsets};
    TracepointOffsets {
        state: StateOffsets {
            socket: 0,
            old_state: 0,
            new_state: 0,
            source_port: 0,
            destination_port: 0,
            protocol: 0,
            source: 0,
            destination: 0,
        },
        read: ReadOffsets {
            source_port: 0,
            destination_port: 0,
            source: 0,
            destination: 0,
        },
        new_task_pid: 0,
        new_task_flags: 0,
    }
};

/// The offsets as the daemon set them, which the compiler must not take for the zeros above.
#[inline(always)]
pub(crate) fn offsets() -> TracepointOffsets {
    // SAFETY: a static of a plain type is always valid to read.
    unsafe { core::ptr::read_volatile(&raw const OFFSETS) }
}

/// Reads one field of a record; one that cannot be read is counted.
#[inline(always)]
pub(crate) fn field<T>(ctx: &TracePointContext, offset: u32) -> Option<T> {
    // SAFETY: the helper checks the address. Every field is read as a type for which any bytes
    // are a value.
    match unsafe { ctx.read_at(offset as usize) } {
        Ok(value) => Some(value),
        Err(_) => {
            note(Incident::TracepointUnread);
            None
        }
    }
}

/// Reads a port field: a number in host order.
#[inline(always)]
pub(crate) fn port(ctx: &TracePointContext, offset: u32) -> Option<Port> {
    field::<u16>(ctx, offset).map(Port::new)
}

/// Reads an address field: 16 bytes in wire order.
#[inline(always)]
pub(crate) fn address(ctx: &TracePointContext, offset: u32) -> Option<Address> {
    field(ctx, offset).map(Address)
}
