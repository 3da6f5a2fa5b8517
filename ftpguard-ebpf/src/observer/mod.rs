//! The socket observer: which process serves which control connection, and what it then does.
//!
//! Tracepoints tell it when sockets change state, when a control connection is read, when
//! processes come and go. It is the authority on pinholes wherever it can name the session
//! (rule P1).
//!
//! They are raw tracepoints. A program on an ordinary one is left out whenever its processor is
//! in the middle of anything else that has to do with BPF and tracing, even another program's
//! system call on a map (`trace_call_bpf()`): a listen() would go unseen.

use aya_ebpf::programs::RawTracePointContext;

use crate::maps::OBSERVERS;

pub(crate) mod attribution;
pub(crate) mod listener;
pub(crate) mod process;
pub(crate) mod record;
pub(crate) mod serving;
pub(crate) mod session;
pub(crate) mod state;

/// Goes on in the program of this slot, and does not come back. `slot` is a constant, which the
/// kernel turns into a plain jump.
#[inline(always)]
pub(crate) fn follow(ctx: &RawTracePointContext, slot: u32) -> i32 {
    // SAFETY: nothing here waits to be dropped.
    unsafe { OBSERVERS.tail_call(ctx, slot) };
    0
}
