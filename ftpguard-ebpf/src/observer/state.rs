//! One change of a TCP socket's state (`inet_sk_state_store()`, `tcp_set_state()`).

use aya_ebpf::programs::TracePointContext;
use ftpguard_common::{
    abi::{Barred, PinholeKey, SessionKey, port_word},
    net::{Address, Port},
    verdict::{Incident, Verdict},
};

use super::{listener, record, session};
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

/// A TCP socket changed its state.
#[inline(always)]
pub(crate) fn changed(ctx: &TracePointContext) -> Option<()> {
    let offsets = record::offsets().state;
    let old: i32 = record::field(ctx, offsets.old_state)?;
    let new: i32 = record::field(ctx, offsets.new_state)?;
    if record::field::<u16>(ctx, offsets.protocol)? != IPPROTO_TCP {
        return None;
    }
    match (old, new) {
        (tcp::CLOSE, tcp::LISTEN) => {
            let (local, local_port) = local_end(ctx)?;
            listener::opened(ctx, local, local_port, socket_name(ctx)?)
        }
        (tcp::LISTEN, tcp::CLOSE) => {
            let (local, local_port) = local_end(ctx)?;
            listener::closed(local, local_port, socket_name(ctx)?)
        }
        (tcp::SYN_RECV, tcp::ESTABLISHED) => handshake_completed(ctx),
        (tcp::CLOSE, tcp::SYN_SENT) => connecting(&both_ends(ctx)?),
        (_, tcp::FIN_WAIT1 | tcp::LAST_ACK | tcp::CLOSE) => closing(ctx),
        _ => None,
    }
}

/// An accepted connection is established. Runs in softirq.
#[inline(always)]
fn handshake_completed(ctx: &TracePointContext) -> Option<()> {
    let word = local_word(ctx)?;
    if word & (port_word::CONTROL | port_word::GUARDED) == 0 {
        return None;
    }
    let socket = both_ends(ctx)?;
    if word & port_word::CONTROL != 0 {
        session::opened(&socket.session());
        return None;
    }
    let key = PinholeKey {
        client: socket.remote,
        server: socket.local,
        port: socket.local_port,
        pad: 0,
    };
    listener::accepted(&key, socket.remote_port)
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
            // An LRU map always has room.
            let _ = BARRED.insert(key, now(), 0);
            Some(())
        }
    }
}

/// The host's side of a connection is closing.
#[inline(always)]
fn closing(ctx: &TracePointContext) -> Option<()> {
    if local_word(ctx)? & port_word::CONTROL != 0 {
        session::closed(&both_ends(ctx)?.session());
    }
    None
}

/// The kernel's name for the socket.
#[inline(always)]
fn socket_name(ctx: &TracePointContext) -> Option<u64> {
    record::field(ctx, record::offsets().state.socket)
}

/// The word of the socket's local port.
#[inline(always)]
fn local_word(ctx: &TracePointContext) -> Option<u64> {
    let port = record::port(ctx, record::offsets().state.source_port)?;
    PORTS.get(u32::from(port.number())).copied()
}

#[inline(always)]
fn local_end(ctx: &TracePointContext) -> Option<(Address, Port)> {
    let offsets = record::offsets().state;
    Some((
        record::address(ctx, offsets.source)?,
        record::port(ctx, offsets.source_port)?,
    ))
}

#[inline(always)]
fn both_ends(ctx: &TracePointContext) -> Option<Socket> {
    let offsets = record::offsets().state;
    let (local, local_port) = local_end(ctx)?;
    Some(Socket {
        local,
        local_port,
        remote: record::address(ctx, offsets.destination)?,
        remote_port: record::port(ctx, offsets.destination_port)?,
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
