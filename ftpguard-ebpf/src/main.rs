//! ftpguard's kernel side: every entry point, and the table from verdict to action.
//!
//! ```text
//! packet in    guard_ingress (XDP) or guard_and_watch_ingress (TC): may this SYN come in?
//!              watch_ingress (TC, behind XDP): control bytes for the daemon
//!              guard_lookup (sk_lookup): the last gate, before a listening socket
//! packet out   guard_and_watch_egress (TC): may this SYN leave? control bytes
//! connect()    guard_connect4, guard_connect6 (cgroup): may the ftpd connect there?
//! sockets      socket_called, socket_state, control_read: the socket observer
//! processes    task_new, task_exit: who descends from an ftpd
//! tracepoints  on_socket_called and so on: each jumps to the observer's program of that name
//! ```
//!
//! A packet that cannot be parsed is counted and left to the kernel: the guard must not cut off
//! the machine because of something it does not know.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    clippy::inline_always,
    reason = "what is not inlined costs a call, and the verifier its proofs"
)]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a key passed by value is copied once more, on a stack of 512 bytes"
)]
#![expect(
    clippy::needless_pass_by_value,
    reason = "aya hands entry points their context by value"
)]
#![expect(clippy::similar_names, reason = "tgid and tid are the kernel's words")]
#![expect(
    clippy::cast_possible_truncation,
    reason = "halves of the kernel's composed numbers, and packet offsets below 64 KiB"
)]

mod access;
mod allowance;
mod atomic;
mod connect;
mod egress;
mod ingress;
mod lookup;
mod maps;
mod observer;
mod peers;
mod relaxation;
mod report;
mod watch;

use access::{XdpFrame, walk_tc};
use aya_ebpf::{
    bindings::sk_action,
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action},
    macros::{cgroup_sock_addr, classifier, raw_tracepoint, sk_lookup, xdp},
    programs::{RawTracePointContext, SkLookupContext, SockAddrContext, TcContext, XdpContext},
};
use ftpguard_common::{
    abi::observer_slot,
    event::Direction,
    packet::{Walk, walk_to_syn},
    verdict::Verdict,
};

// Of the programs with two variants the daemon loads the one that this kernel takes
// (`ftpguard/src/kernel/features.rs`).

#[xdp]
fn guard_ingress(ctx: XdpContext) -> u32 {
    judge_frame(&ctx)
}

/// The same for frames of several buffers; the headers are in the first.
#[xdp(frags)]
fn guard_ingress_frags(ctx: XdpContext) -> u32 {
    judge_frame(&ctx)
}

#[classifier]
fn guard_and_watch_ingress(ctx: TcContext) -> i32 {
    let found = walk_tc(&ctx);
    // A SYN is judged, anything else may hold control bytes. One or the other, because the
    // verifier would walk the second once for each way through the first.
    if let Walk::Tcp(segment) = &found
        && !segment.opens_connection()
    {
        watch::capture(&ctx, segment, Direction::ToServer);
        return NEXT_PROGRAM;
    }
    action(ingress::judge(&found))
}

#[classifier]
fn watch_ingress(ctx: TcContext) -> i32 {
    if let Walk::Tcp(segment) = walk_tc(&ctx) {
        watch::capture(&ctx, &segment, Direction::ToServer);
    }
    NEXT_PROGRAM
}

#[classifier]
fn guard_and_watch_egress(ctx: TcContext) -> i32 {
    let Walk::Tcp(segment) = walk_tc(&ctx) else {
        return NEXT_PROGRAM;
    };
    if !segment.opens_connection() {
        watch::capture(&ctx, &segment, Direction::ToClient);
        return NEXT_PROGRAM;
    }
    // SAFETY: the context is valid as long as the program runs.
    let came_by = unsafe { (*ctx.skb.skb).ingress_ifindex };
    action(if came_by == 0 {
        egress::judge_segment(&segment)
    } else {
        // Of another host or container, whose active data connections are its own affair.
        ingress::judge_forwarded(&segment, came_by)
    })
}

#[sk_lookup]
fn guard_lookup(ctx: SkLookupContext) -> u32 {
    judge_lookup::<false>(&ctx)
}

/// The same where the kernel tells which interface a segment came by.
#[sk_lookup]
fn guard_lookup_interface(ctx: SkLookupContext) -> u32 {
    judge_lookup::<true>(&ctx)
}

#[cgroup_sock_addr(connect4)]
fn guard_connect4(ctx: SockAddrContext) -> i32 {
    may_connect(connect::judge_v4(&ctx))
}

#[cgroup_sock_addr(connect6)]
fn guard_connect6(ctx: SockAddrContext) -> i32 {
    may_connect(connect::judge_v6(&ctx))
}

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
fn socket_called(ctx: RawTracePointContext) -> i32 {
    let _ = observer::state::called(&ctx);
    0
}

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
fn socket_state(ctx: RawTracePointContext) -> i32 {
    let _ = observer::state::changed(&ctx);
    0
}

#[raw_tracepoint(tracepoint = "tcp_rcv_space_adjust")]
fn control_read(ctx: RawTracePointContext) -> i32 {
    let _ = observer::process::control_read(&ctx);
    0
}

#[raw_tracepoint(tracepoint = "task_newtask")]
fn task_new(ctx: RawTracePointContext) -> i32 {
    let _ = observer::process::forked(&ctx);
    0
}

#[raw_tracepoint(tracepoint = "sched_process_exit")]
fn task_exit(_ctx: RawTracePointContext) -> i32 {
    observer::process::exited();
    0
}

/// Attached nowhere: the daemon runs it.
#[raw_tracepoint]
fn count_peer(ctx: RawTracePointContext) -> i32 {
    peers::count(&ctx);
    0
}

// What is attached to the tracepoints. A raw tracepoint's program cannot be replaced, so it only
// jumps to the one that can (`maps::OBSERVERS`). Where none is there yet, nothing happens.

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
fn on_socket_called(ctx: RawTracePointContext) -> i32 {
    observer::follow(&ctx, observer_slot::SOCKET_CALLED)
}

#[raw_tracepoint(tracepoint = "inet_sock_set_state")]
fn on_socket_state(ctx: RawTracePointContext) -> i32 {
    observer::follow(&ctx, observer_slot::SOCKET_STATE)
}

#[raw_tracepoint(tracepoint = "tcp_rcv_space_adjust")]
fn on_control_read(ctx: RawTracePointContext) -> i32 {
    observer::follow(&ctx, observer_slot::CONTROL_READ)
}

#[raw_tracepoint(tracepoint = "task_newtask")]
fn on_task_new(ctx: RawTracePointContext) -> i32 {
    observer::follow(&ctx, observer_slot::TASK_NEW)
}

#[raw_tracepoint(tracepoint = "sched_process_exit")]
fn on_task_exit(ctx: RawTracePointContext) -> i32 {
    observer::follow(&ctx, observer_slot::TASK_EXIT)
}

/// Other tools' programs on the same hook still run, then the kernel's own path: TC_ACT_UNSPEC
/// is TCX_NEXT to tcx.
const NEXT_PROGRAM: i32 = TC_ACT_UNSPEC;

#[inline(always)]
fn judge_frame(ctx: &XdpContext) -> u32 {
    match ingress::judge(&walk_to_syn(&XdpFrame(ctx))) {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Deny => xdp_action::XDP_DROP,
    }
}

#[inline(always)]
fn judge_lookup<const INTERFACE: bool>(ctx: &SkLookupContext) -> u32 {
    let Some(lookup) = lookup::Lookup::read(ctx) else {
        return sk_action::SK_PASS;
    };
    match ingress::judge_lookup::<INTERFACE>(&lookup) {
        Verdict::Pass => sk_action::SK_PASS,
        // The kernel answers as if nothing listened.
        Verdict::Deny => sk_action::SK_DROP,
    }
}

const fn action(verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Pass => NEXT_PROGRAM,
        Verdict::Deny => TC_ACT_SHOT,
    }
}

/// 1 lets the call go on, 0 makes it fail with `EPERM`.
const fn may_connect(verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Pass => 1,
        Verdict::Deny => 0,
    }
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// The verifier refuses a loop without end, and with it a panic that could be reached.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
