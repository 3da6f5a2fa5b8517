//! One change of a TCP socket's state (`inet_sk_state_store()`, `tcp_set_state()`).

use aya_ebpf::programs::RawTracePointContext;
use ftpguard_common::{
    abi::{Barred, PinholeKey, Refusal, SessionKey, port_word},
    net::{Address, Port},
    verdict::{Incident, Verdict},
};

use super::{listener, record::Sock, session};
use crate::{
    connect,
    maps::{BARRED, PORTS},
    report::{note, now},
};

const IPPROTO_TCP: u16 = 6;

/// States of `include/net/tcp_states.h`.
mod tcp {
    pub(super) const ESTABLISHED: i32 = 1;
    pub(super) const SYN_SENT: i32 = 2;
    pub(super) const SYN_RECV: i32 = 3;
    pub(super) const FIN_WAIT1: i32 = 4;
    pub(super) const CLOSE: i32 = 7;
    pub(super) const LAST_ACK: i32 = 9;
    pub(super) const LISTEN: i32 = 10;
}

/// The two ends of the socket.
struct Socket {
    local: Address,
    local_port: Port,
    remote: Address,
    remote_port: Port,
}

/// The tracepoint's second and third arguments: the states before and after.
#[inline(always)]
fn states(ctx: &RawTracePointContext) -> (i32, i32) {
    (ctx.arg(1), ctx.arg(2))
}

#[inline(always)]
fn is_tcp(socket: Sock) -> bool {
    socket.protocol() == Some(IPPROTO_TCP)
}

/// A TCP socket changed its state because its process asked for it: listen(), connect(), and the
/// end of a listener.
///
/// These have a program of their own. The kernel does not run a program that it has interrupted
/// on the same processor, and packets that arrive meanwhile change sockets too.
#[inline(always)]
pub(crate) fn called(ctx: &RawTracePointContext) -> Option<()> {
    let change = states(ctx);
    if !matches!(
        change,
        (tcp::CLOSE, tcp::LISTEN | tcp::SYN_SENT) | (tcp::LISTEN, tcp::CLOSE)
    ) {
        return None;
    }
    let socket = Sock::of(ctx);
    if !is_tcp(socket) || !socket.is_of_host() {
        return None;
    }
    match change {
        (tcp::CLOSE, tcp::LISTEN) => {
            listener::opened(ctx, socket.local()?, socket.local_port()?, socket.name())
        }
        (tcp::LISTEN, _) => listener::closed(socket.local()?, socket.local_port()?, socket.name()),
        _ => connecting(&both_ends(socket)?),
    }
}

/// A connection changed its state, mostly because a packet arrived.
#[inline(always)]
pub(crate) fn changed(ctx: &RawTracePointContext) -> Option<()> {
    let change = states(ctx);
    if !matches!(
        change,
        (tcp::SYN_RECV, tcp::ESTABLISHED) | (_, tcp::FIN_WAIT1 | tcp::LAST_ACK | tcp::CLOSE)
    ) || change.0 == tcp::LISTEN
    {
        return None;
    }
    let socket = Sock::of(ctx);
    if !is_tcp(socket) {
        return None;
    }
    if change.1 == tcp::ESTABLISHED {
        handshake_completed(socket)
    } else {
        closing(socket)
    }
}

/// An accepted connection is established. Runs in softirq.
#[inline(always)]
fn handshake_completed(socket: Sock) -> Option<()> {
    let word = local_word(socket)?;
    if word & (port_word::CONTROL | port_word::GUARDED) == 0 || !socket.is_of_host() {
        return None;
    }
    let ends = both_ends(socket)?;
    if word & port_word::CONTROL != 0 {
        session::opened(&ends.session(), socket.is_multipath());
        return None;
    }
    let key = PinholeKey {
        client: ends.remote,
        server: ends.local,
        port: ends.local_port,
        pad: 0,
    };
    listener::accepted(&key, ends.remote_port)
}

/// A connection is about to send its SYN. Where the connect() hook did its work, a refused one
/// does not get here; one that missed the hook is left to the egress guard.
#[inline(always)]
fn connecting(socket: &Socket) -> Option<()> {
    match connect::decide(socket.remote, socket.remote_port)?.verdict() {
        Verdict::Pass => None,
        Verdict::Deny => {
            note(Incident::HookMissed);
            let key = Barred {
                address: socket.remote,
                port: socket.remote_port,
                pad: 0,
            };
            let refusal = Refusal {
                at: now(),
                control_port: connect::control_port(),
                pad: [0; 3],
            };
            // An LRU map always has room.
            let _ = BARRED.insert(key, refusal, 0);
            Some(())
        }
    }
}

/// The host's side of a connection is closing.
#[inline(always)]
fn closing(socket: Sock) -> Option<()> {
    if local_word(socket)? & port_word::CONTROL != 0 && socket.is_of_host() {
        session::closed(&both_ends(socket)?.session());
    }
    None
}

/// The word of the socket's local port.
#[inline(always)]
fn local_word(socket: Sock) -> Option<u64> {
    PORTS.get(u32::from(socket.local_port()?.number())).copied()
}

#[inline(always)]
fn both_ends(socket: Sock) -> Option<Socket> {
    Some(Socket {
        local: socket.local()?,
        local_port: socket.local_port()?,
        remote: socket.remote()?,
        remote_port: socket.remote_port()?,
    })
}

impl Socket {
    /// The socket as the server's side of a control connection.
    #[inline(always)]
    const fn session(&self) -> SessionKey {
        SessionKey {
            client: self.remote,
            server: self.local,
            client_port: self.remote_port,
            server_port: self.local_port,
        }
    }
}
