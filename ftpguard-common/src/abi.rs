//! Keys, values and limits of every BPF map.
//!
//! Who writes which map, and what happens when one is full, stands beside the map in
//! `ftpguard-ebpf/src/maps.rs`.
#![forbid(unsafe_code)]

mod layout;
pub mod port_word;

use bytemuck::{Pod, Zeroable};

pub use self::layout::LAYOUT;
use crate::net::{Address, Port};

/// How many sessions are tracked at once, unless the operator says otherwise.
pub const MAX_SESSIONS: u32 = 16_384;
/// How many pinholes are open at once.
pub const MAX_PINHOLES: u32 = 16_384;
/// How many listeners are known at once.
pub const MAX_LISTENERS: u32 = 16_384;
/// How many listeners are remembered whose endpoint another socket shares.
pub const MAX_FORMER_LISTENERS: u32 = 1_024;
/// How many processes of guarded ftpds are known at once.
pub const MAX_PROCESSES: u32 = 32_768;
/// How many threads of processes with several sessions are remembered.
pub const MAX_SERVING: u32 = 16_384;
/// How many clients may hold control connections at once.
pub const MAX_PEERS: u32 = 16_384;
/// How many configured destinations there may be.
pub const MAX_EXCEPTIONS: u32 = 1_024;
/// How many refused destinations the egress guard remembers.
pub const MAX_BARRED: u32 = 4_096;
/// Pinholes at addresses that are not this host's, found by client and port.
pub const MAX_ELSEWHERE: u32 = 4_096;
/// How many addresses this host may have.
pub const MAX_ADDRESSES: u32 = 4_096;
/// How many of this host's addresses are found without a search: a power of two.
pub const ADDRESS_SLOTS: u32 = 256;
/// How many interfaces may have an early gate.
pub const MAX_GATES: u32 = 4_096;
/// How many programs the socket observer has, each on a tracepoint.
pub const OBSERVER_SLOTS: u32 = 5;
/// Size of the event ring buffer in bytes: a power of two.
pub const EVENTS_BYTES: u32 = 1 << 20;
/// Size of the ring buffer for control bytes: a power of two.
pub const CONTROL_BYTES: u32 = 1 << 21;

/// One control connection while it lasts (RFC 959 section 2.2): its four-tuple.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct SessionKey {
    /// The peer of the ftpd.
    pub client: Address,
    /// The ftpd's own address on this connection.
    pub server: Address,
    /// The peer's port.
    pub client_port: Port,
    /// The control port.
    pub server_port: Port,
}

/// What is known of one session.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Session {
    /// Tells this session from a later one with the same four-tuple. Never 0.
    pub id: u64,
    /// When the control connection was established: nanoseconds of `CLOCK_MONOTONIC`. 0 where
    /// its beginning was not seen, because nobody who is watched accepted it.
    pub opened_at: u64,
    /// The pinhole of this session; its port is [`Port::NONE`] where there is none (rule K4).
    pub pinhole: PinholeKey,
    /// The TCP sequence number after the last byte that was captured from the client.
    pub client_sequence: u32,
    /// The same after its last segment that began with `REIN`; 0 where there was none.
    pub rein_sequence: u32,
    /// Zero.
    pub pad: u32,
}

/// What the daemon has to say about a session. In a map of its own, so that each map has one
/// writer: the kernel side writes what it sees, the daemon what it read.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Advice {
    /// The only port this session's active mode may reach, [`Port::NONE`] for any (rule O10).
    pub active_port: Port,
    /// Bits of [`advice_flags`].
    pub flags: u16,
    /// How far the daemon has read what the client sent, as in [`Session::client_sequence`].
    /// While the client has sent more, `active_port` does not bind: the ftpd may already be
    /// following a command that the daemon has not read (rule O5). With
    /// [`advice_flags::EPSV_ALL`] it goes only as far as every `REIN` is answered.
    pub client_sequence: u32,
}

/// Bits of [`Advice::flags`].
pub mod advice_flags {
    /// The daemon does not want this session's bytes: they are encrypted or not trusted.
    pub const OPAQUE: u16 = 1;
    /// The session's `EPSV ALL` was accepted: its ftpd opens no data connection (rule C5), but
    /// while the client's `REIN`, which ends it, is unread or unanswered. What the client sends
    /// is for the daemon at once.
    pub const EPSV_ALL: u16 = 2;
}

/// One permission (rule K1): this client may reach this address and port now.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct PinholeKey {
    /// Who may.
    pub client: Address,
    /// The address to reach: the control connection's local address (rule K3).
    pub server: Address,
    /// The port to reach.
    pub port: Port,
    /// Zero.
    pub pad: u16,
}

/// What is known of one pinhole.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Pinhole {
    /// [`Session::id`] of the session it was made for.
    pub session: u64,
    /// When it was made: nanoseconds of `CLOCK_MONOTONIC`.
    pub made_at: u64,
    /// How many data connections it still admits (rule K6).
    pub uses: u32,
    /// A number of [`Origin`].
    pub origin: u32,
    /// The control connection's client port, which names the session together with the key.
    pub client_port: Port,
    /// The control port.
    pub server_port: Port,
    /// Zero.
    pub pad: u32,
}

/// Who made a pinhole, from the most to the least certain (rule P4).
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Socket observer: the listening process serves this session only (rule F2).
    Exact = 1,
    /// Socket observer: the listening thread read this session last (rule F3).
    Candidate = 2,
    /// Text watcher: the ftpd said so in a 227, 228 or 229.
    Text = 3,
    /// Found open when the guard started (rule K10).
    Adopted = 4,
}

impl Origin {
    /// The origin with this number.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Exact),
            2 => Some(Self::Candidate),
            3 => Some(Self::Text),
            4 => Some(Self::Adopted),
            _ => None,
        }
    }

    /// The origin's name in events and status.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Candidate => "candidate",
            Self::Text => "text",
            Self::Adopted => "adopted",
        }
    }
}

/// Where a socket listens. Control listeners are among them, so that a session counts only on
/// a control port that a watched process opened. The address is as [`Address::with_one_wildcard`] gives it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Endpoint {
    /// The listener's address, or [`Address::WILDCARD`].
    pub address: Address,
    /// The listener's port.
    pub port: Port,
    /// Zero.
    pub pad: u16,
}

/// What is known of one listener.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Listener {
    /// [`Session::id`] of the session it serves, 0 where that is not known.
    pub session: u64,
    /// The kernel's name for the socket that began to listen last, 0 where it was adopted. It
    /// tells this listener from one at the same endpoint in another network namespace.
    pub socket: u64,
    /// The pinhole made for it; its port is [`Port::NONE`] where there is none.
    pub pinhole: PinholeKey,
    /// The process that called listen(); 0 where it was adopted without one.
    pub tgid: u32,
    /// The control port of the ftpd it belongs to, [`Port::NONE`] where it is foreign (rule I4).
    pub control_port: Port,
    /// A number of [`Admission`].
    pub admission: u16,
    /// How many sockets share the endpoint (`SO_REUSEPORT`).
    pub sockets: u32,
}

impl Listener {
    /// What it counts in its port's word.
    #[must_use]
    #[inline(always)]
    pub const fn hint(&self) -> u64 {
        if self.control_port.number() == Port::NONE.number() {
            port_word::ONE_FOREIGN
        } else {
            port_word::ONE_GUARDED
        }
    }

    /// Whether clients with a pinhole are the only ones that it admits.
    #[must_use]
    #[inline(always)]
    pub const fn is_strict(&self) -> bool {
        self.admission == Admission::Pinhole as u16
    }
}

/// Whom a guarded listener admits.
#[repr(u16)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Admission {
    /// Clients with a pinhole, and nobody else.
    Pinhole = 0,
    /// Clients with a pinhole, and every client that holds a control connection (rule P4).
    ControlPeer = 1,
    /// Clients with a pinhole, which the daemon makes. While it is dead or hung,
    /// [`Policy::without_daemon`] holds.
    Daemon = 2,
}

/// Whom listeners that need the daemon admit while it is dead or hung (rule M2). Pinholes that
/// the kernel side makes are not touched by it.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WithoutDaemon {
    /// Every client that holds a control connection.
    ControlPeer = 0,
    /// Nobody.
    Closed = 1,
    /// Everybody.
    Open = 2,
}

/// What is known of one process of a guarded ftpd.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Process {
    /// [`Session::id`] of the session it serves, 0 for none.
    pub session_id: u64,
    /// When it was forked: nanoseconds of `CLOCK_MONOTONIC`. 0 where that was not seen.
    pub born: u64,
    /// The session it serves, meaningful where `session_id` is not 0.
    pub session: SessionKey,
    /// The process that forked it.
    pub parent: u32,
    /// The control port of its ftpd.
    pub control_port: Port,
    /// Bits of [`process_flags`].
    pub flags: u16,
    /// The thread that was first to read a control connection, 0 for none.
    pub reader: u32,
}

impl Process {
    /// Whether it serves this one session and no other, read or not: it was forked when the session
    /// was there already, and it read that session itself, or the process that it forked for it
    /// did. One that was forked in advance accepts sessions like an acceptor; if clients waited
    /// already, it passes for one of these until it has read a second session.
    #[must_use]
    #[inline(always)]
    pub const fn is_of_one_session(&self) -> bool {
        let doubtful = process_flags::ACCEPTOR
            | process_flags::INHERITED
            | process_flags::SHARED
            | process_flags::UNSAFE;
        // A session's id is the time at which it was established.
        self.flags & doubtful == 0 && self.session_id != 0 && self.session_id < self.born
    }
}

/// Bits of [`Process::flags`].
pub mod process_flags {
    /// It has served more than one session; only its threads can tell which (rule F3).
    pub const SHARED: u16 = 1;
    /// It is shared and its threads cannot tell either: one that had read no control connection
    /// called listen(), or several threads take turns in reading several sessions. It gets no
    /// pinhole from the socket observer.
    pub const UNSAFE: u16 = 2;
    /// It opened the control port: it accepts sessions, and serves none by being a parent.
    pub const ACCEPTOR: u16 = 4;
    /// Its session is its parent's; it has read no control connection itself.
    pub const INHERITED: u16 = 8;
    /// More than one of its threads has read control connections.
    pub const MANY_READERS: u16 = 16;
    /// It has read a control connection that is not tracked, because there is no room for it or
    /// its client has had its share (rule K9). While it serves no other, its listeners admit
    /// nobody.
    pub const TURNED_AWAY: u16 = 32;
}

/// What is known of a process that is not among the [`Process`]es.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Parent {
    /// The process that forked it, 0 where that is not known, or where it is none of the ftpd's.
    pub tgid: u32,
    /// The control port of the ftpd that it belongs to, where there was no room for it among the
    /// processes (rule K9); else [`Port::NONE`].
    pub control_port: Port,
    /// [`process_flags::ACCEPTOR`] where that is known of it, and no other.
    pub flags: u16,
}

/// The session that a thread of a shared process read last.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Serving {
    /// [`Session::id`].
    pub session_id: u64,
    /// When it was read: nanoseconds of `CLOCK_MONOTONIC`.
    pub read_at: u64,
    /// The session.
    pub session: SessionKey,
    /// Not 0 where the thread has read several sessions that were open at once.
    pub several: u32,
}

/// A client of one ftpd; the value counts its control connections.
///
/// With [`Port::NONE`] it counts those to every guarded ftpd: the egress guard sees a packet, and
/// not whose it is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Peer {
    /// The client.
    pub client: Address,
    /// The ftpd's control port.
    pub control_port: Port,
    /// Zero.
    pub pad: u16,
}

/// A destination that the ftpd may connect to although it is no client: key of an LPM trie, so
/// the port comes first and is always matched whole ([`Port::NONE`] stands for any port).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Exception {
    /// The port, in four bytes to keep the address aligned.
    pub port: Port,
    /// Zero.
    pub pad: u16,
    /// The address, of which the trie's prefix length covers a part.
    pub address: Address,
}

/// In which relaxations an address takes part (rule I7), one bit for each: the value of an LPM
/// trie of networks. Each network's value holds that of the wider ones around it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Relaxed {
    /// Data connections may come from it.
    pub source: u64,
    /// They may be for its sessions.
    pub client: u64,
}

/// How many relaxations there are room for.
pub const MAX_RELAXATIONS: u32 = u64::BITS;
/// How many networks they may name together.
pub const MAX_RELAXED: u32 = 1_024;

/// Bits of an [`Exception`] that come before the address.
pub const EXCEPTION_PORT_BITS: u32 = 32;

/// A connect() that was refused although its SYN may still leave.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Barred {
    /// The destination.
    pub address: Address,
    /// The destination's port.
    pub port: Port,
    /// Zero.
    pub pad: u16,
}

/// Why a destination is barred.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Refusal {
    /// When the connect() was refused: nanoseconds of `CLOCK_MONOTONIC`.
    pub at: u64,
    /// The control port of the ftpd that called it.
    pub control_port: Port,
    /// Zero.
    pub pad: [u16; 3],
}

/// The policy in force: the one value of the `POLICY` map.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Policy {
    /// A number of [`Mode`]: for every ftpd that has none of its own
    /// ([`port_word::MONITORED`], [`port_word::ENFORCED`]).
    pub mode: u32,
    /// A number of [`Tracking`].
    pub tracking: u32,
    /// A number of [`Active`].
    pub active: u32,
    /// How many data connections one pinhole admits (rule K6).
    pub uses: u32,
    /// How long a thread's last read of a control connection may name its session (rule F3),
    /// in nanoseconds.
    pub serving_age: u64,
    /// How long the egress guard remembers a refused destination, in nanoseconds.
    pub barred_age: u64,
    /// How old the daemon's last heartbeat may be, in nanoseconds.
    pub heartbeat_age: u64,
    /// A number of [`WithoutDaemon`].
    pub without_daemon: u32,
    /// How many control connections one client may hold and have tracked (rule K9). Each has
    /// one pinhole at most (rule K4), so this bounds a client's pinholes too.
    pub sessions_per_client: u32,
    /// Not 0 where the daemon is woken for each pinhole that is made: a firewall waits for it.
    pub wake: u32,
    /// Not 0 where no denial takes effect, whatever the modes are: the clients' addresses are
    /// hidden (rule I8).
    pub refused: u32,
    /// Not 0 where the `RELAXED` map holds anything (rule I7).
    pub relaxed: u32,
    /// Zero.
    pub pad: u32,
}

impl Policy {
    /// The mode in force for the port with this word ([`port_word`]): the number of a [`Mode`].
    #[must_use]
    #[inline(always)]
    pub const fn mode_for(&self, word: u64) -> u32 {
        if self.refused != 0 || word & port_word::MONITORED != 0 {
            Mode::Monitor as u32
        } else if word & port_word::ENFORCED != 0 {
            Mode::Enforce as u32
        } else {
            self.mode
        }
    }
}

/// Whether denials take effect.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Decide, count and report; let everything pass.
    Monitor = 0,
    /// Denials take effect.
    Enforce = 1,
}

/// Who makes pinholes.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tracking {
    /// The socket observer, inside listen().
    Socket = 0,
    /// The daemon, from the replies it reads on the wire.
    Text = 1,
}

/// Whom active mode may reach (rule O10; the three groups of CERT CA-97.27).
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Active {
    /// The session's client, and configured exceptions.
    Client = 0,
    /// Configured exceptions only.
    Exceptions = 1,
    /// Nobody.
    Off = 2,
}

/// Places in the `OBSERVERS` map: which program follows which tracepoint.
pub mod observer_slot {
    /// `task_newtask`.
    pub const TASK_NEW: u32 = 0;
    /// `sched_process_exit`.
    pub const TASK_EXIT: u32 = 1;
    /// `tcp_rcv_space_adjust`.
    pub const CONTROL_READ: u32 = 2;
    /// `inet_sock_set_state`: changes that packets bring about.
    pub const SOCKET_STATE: u32 = 3;
    /// `inet_sock_set_state`: changes that a process asked for.
    pub const SOCKET_CALLED: u32 = 4;
}

/// Where the kernel side finds fields of the kernel's own structures, in bytes from the start.
///
/// They differ between kernels; the daemon reads them from the kernel's type information (BTF)
/// and hands them over as a global before the programs are loaded.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct KernelOffsets {
    /// `struct sock`: `skc_family`, a `u16`.
    pub family: u32,
    /// `struct sock`: `sk_protocol`, a `u16`.
    pub protocol: u32,
    /// `struct inet_sock`: `inet_sport`, in wire order. Unlike `skc_num` it is still there when
    /// the socket has given its port back.
    pub source_port: u32,
    /// `struct sock`: `skc_dport`, in wire order.
    pub destination_port: u32,
    /// `struct inet_sock`: `inet_saddr`, an IPv4 address in wire order.
    pub source_v4: u32,
    /// `struct sock`: `skc_daddr`, an IPv4 address in wire order.
    pub destination_v4: u32,
    /// `struct sock`: `skc_v6_rcv_saddr`, 16 bytes in wire order. Unused without IPv6.
    pub source_v6: u32,
    /// `struct sock`: `skc_v6_daddr`, 16 bytes in wire order. Unused without IPv6.
    pub destination_v6: u32,
    /// `struct task_struct`: `pid`, an `int`.
    pub task_pid: u32,
    /// `struct sock`: `skc_net`, a pointer to a `struct net`.
    pub network: u32,
    /// `struct net`: `user_ns`, a pointer to a `struct user_namespace`.
    pub owner: u32,
    /// `struct user_namespace`: `level`, an `int`: 0 for the first one.
    pub level: u32,
    /// `struct tcp_sock`: `is_mptcp`, a `bool`. 0 where the kernel has no Multipath TCP.
    pub multipath: u32,
}

impl Session {
    /// Whether the client has sent a `REIN` that goes beyond what is read (rule C5).
    #[inline(always)]
    #[must_use]
    pub const fn awaits_rein(&self, read: u32) -> bool {
        // Sequence numbers wrap around (RFC 9293 section 3.4).
        self.rein_sequence != 0 && self.rein_sequence.wrapping_sub(read).cast_signed() > 0
    }
}

impl SessionKey {
    /// No session.
    pub const NONE: Self = Self {
        client: Address::WILDCARD,
        server: Address::WILDCARD,
        client_port: Port::NONE,
        server_port: Port::NONE,
    };

    /// The client as a key of the `PEERS` map.
    #[inline(always)]
    #[must_use]
    pub const fn peer(&self) -> Peer {
        Peer {
            client: self.client,
            control_port: self.server_port,
            pad: 0,
        }
    }

    /// The key of a pinhole of this session, to the given port.
    #[inline(always)]
    #[must_use]
    pub const fn pinhole(&self, port: Port) -> PinholeKey {
        PinholeKey {
            client: self.client,
            server: self.server,
            port,
            pad: 0,
        }
    }
}

impl Peer {
    /// The arguments with which the daemon has the kernel side change a count by this step
    /// (`count_peer`).
    #[must_use]
    pub fn step(&self, step: i32) -> [u64; 4] {
        let [a, b, c, d] = self.client.0.map(u64::from);
        let step = i64::from(step).cast_unsigned();
        [
            a | b << 32,
            c | d << 32,
            self.control_port.number().into(),
            step,
        ]
    }

    /// The count and the step that these arguments tell.
    #[inline(always)]
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "halves of words, and what came from smaller numbers"
    )]
    pub const fn from_step([low, high, port, step]: [u64; 4]) -> (Self, i32) {
        let client = [
            low as u32,
            (low >> 32) as u32,
            high as u32,
            (high >> 32) as u32,
        ];
        let peer = Self {
            client: Address(client),
            control_port: Port::new(port as u16),
            pad: 0,
        };
        (peer, step as i32)
    }

    /// Counts a client's control connections to all ftpds together.
    #[inline(always)]
    #[must_use]
    pub const fn of_any(client: Address) -> Self {
        Self {
            client,
            control_port: Port::NONE,
            pad: 0,
        }
    }
}

impl Pinhole {
    /// A pinhole of this session, whose [`Session::id`] is `id`. `made_at` is in nanoseconds of
    /// `CLOCK_MONOTONIC`.
    #[inline(always)]
    #[must_use]
    pub const fn of(key: &SessionKey, id: u64, made_at: u64, uses: u32, origin: Origin) -> Self {
        Self {
            session: id,
            made_at,
            uses,
            origin: origin as u32,
            client_port: key.client_port,
            server_port: key.server_port,
            pad: 0,
        }
    }
}

impl PinholeKey {
    /// No pinhole.
    pub const NONE: Self = Self {
        client: Address::WILDCARD,
        server: Address::WILDCARD,
        port: Port::NONE,
        pad: 0,
    };
}

impl Endpoint {
    /// The endpoint of a listener bound to this address and port.
    #[inline(always)]
    #[must_use]
    pub const fn new(address: Address, port: Port) -> Self {
        Self {
            address: address.with_one_wildcard(),
            port,
            pad: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f2_a_process_is_certain_that_was_forked_for_the_session_it_read() {
        let forked_for_it = Process {
            session_id: 7,
            born: 8,
            session: SessionKey::NONE,
            parent: 1,
            control_port: Port::NONE,
            flags: process_flags::MANY_READERS,
            reader: 0,
        };
        assert!(forked_for_it.is_of_one_session());
        let doubtful = |flags, session_id, born| Process {
            session_id,
            born,
            flags,
            ..forked_for_it
        };
        for process in [
            // Forked in advance, or adopted.
            doubtful(0, 7, 6),
            doubtful(0, 7, 0),
            // It was not seen to read.
            doubtful(0, 0, 8),
            doubtful(process_flags::INHERITED, 7, 8),
            doubtful(process_flags::ACCEPTOR, 7, 8),
            doubtful(process_flags::SHARED, 7, 8),
            doubtful(process_flags::UNSAFE, 7, 8),
        ] {
            assert!(!process.is_of_one_session(), "{process:?}");
        }
    }
}
