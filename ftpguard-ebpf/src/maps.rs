//! Every map: who writes it, who reads it, what happens when it is full.

use aya_ebpf::{
    macros::map,
    maps::{Array, CgroupArray, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf},
};
use ftpguard_common::{
    abi::{
        ADDRESS_SLOTS, Advice, Barred, CONTROL_BYTES, EVENTS_BYTES, Endpoint, Exception, Listener,
        MAX_ADDRESSES, MAX_BARRED, MAX_ELSEWHERE, MAX_EXCEPTIONS, MAX_FORMER_LISTENERS, MAX_GATES,
        MAX_LISTENERS, MAX_PEERS, MAX_PINHOLES, MAX_PROCESSES, MAX_RELAXED, MAX_SERVING,
        MAX_SESSIONS, OBSERVER_SLOTS, Parent, Peer, Pinhole, PinholeKey, Policy, Process, Refusal,
        Relaxed, Serving, Session, SessionKey,
    },
    event::{ControlHeader, EventBudget, MAX_CAPTURE, SOURCES, Told},
    net::Address,
    verdict::COUNTER_COUNT,
};

/// Who may reach which port now. Written by the socket observer at listen(), by the daemon when
/// it adopts or reads text; read for each SYN to a guarded port. Full: the newcomer gets none,
/// counted as `pinhole-table-full`.
#[map]
pub(crate) static PINHOLES: HashMap<PinholeKey, Pinhole> =
    HashMap::with_max_entries(MAX_PINHOLES, 0);

/// Servers at addresses that are not this host's, as containers have them, by the client and the
/// port of a pinhole made there; the key's server is the wildcard. Written by the socket observer,
/// read for SYNs that would be denied: their destination may be translated later. It says where to
/// look for a pinhole, no more. Full: the oldest is forgotten.
#[map]
pub(crate) static ELSEWHERE: LruHashMap<PinholeKey, Address> =
    LruHashMap::with_max_entries(MAX_ELSEWHERE, 0);

/// Not 0 once there was anything in `ELSEWHERE`: on most hosts there never is. Written by the
/// socket observer.
#[map]
pub(crate) static ANY_ELSEWHERE: Array<u32> = Array::with_max_entries(1, 0);

/// Listening sockets of guarded ftpds, and foreign ones in the declared range. Written by the
/// socket observer, by the daemon when it adopts; read for SYNs without a pinhole. Full: the
/// listener is not known, counted as `listener-table-full`.
#[map]
pub(crate) static LISTENERS: HashMap<Endpoint, Listener> =
    HashMap::with_max_entries(MAX_LISTENERS, 0);

/// What `LISTENERS` said of an endpoint before this socket, named as the kernel does, began to
/// listen there too. Written and read by the socket observer only. Full: the oldest is forgotten,
/// and an endpoint that several sockets share keeps the newest one's entry.
#[map]
pub(crate) static FORMER_LISTENERS: LruHashMap<u64, Listener> =
    LruHashMap::with_max_entries(MAX_FORMER_LISTENERS, 0);

/// Control connections. Written by the socket observer, by the daemon when it adopts or
/// narrows. Full: the session is not tracked, counted as `session-table-full`.
#[map]
pub(crate) static SESSIONS: HashMap<SessionKey, Session> =
    HashMap::with_max_entries(MAX_SESSIONS, 0);

/// What the daemon read of each session's text. Written by the daemon; the socket observer
/// removes it with the session. Full: the session is not narrowed.
#[map]
pub(crate) static ADVICE: HashMap<SessionKey, Advice> = HashMap::with_max_entries(MAX_SESSIONS, 0);

/// Processes of guarded ftpds by process id. Written by the socket observer, by the daemon when
/// it adopts. Full: the process is not known, counted as `process-table-full`.
#[map]
pub(crate) static PROCESSES: HashMap<u32, Process> = HashMap::with_max_entries(MAX_PROCESSES, 0);

/// Who forked a watched process that belongs to no ftpd as far as is known: one that a service
/// manager started may turn out to. And which processes do belong to one, while there is no room for
/// them in `PROCESSES`. Written by the socket observer, by the daemon when it adopts. Full: the one
/// unused for longest is forgotten, and the daemon looks it up when it is missed.
#[map]
pub(crate) static PARENTS: LruHashMap<u32, Parent> = LruHashMap::with_max_entries(MAX_PROCESSES, 0);

/// What each thread of a shared process read last, by thread id. Written and read by the socket
/// observer only. Full: the thread that read longest ago is forgotten.
#[map]
pub(crate) static SERVING: LruHashMap<u32, Serving> = LruHashMap::with_max_entries(MAX_SERVING, 0);

/// How many control connections a client holds. Written by the socket observer, by the daemon
/// when it adopts. Full: the client gets no more than its pinholes, counted as
/// `peer-table-full`.
#[map]
pub(crate) static PEERS: HashMap<Peer, u32> = HashMap::with_max_entries(MAX_PEERS, 0);

/// One word for each port (`abi::port_word`). The daemon writes roles, the socket observer counts
/// listeners, both by atomic instructions: the daemon maps it into its memory.
#[map]
pub(crate) static PORTS: Array<u64> =
    Array::with_max_entries(1 << 16, aya_ebpf::bindings::BPF_F_MMAPABLE);

/// This host's addresses. Written by the daemon. Full: unused ports at the others look closed
/// instead of filtered.
#[map]
pub(crate) static ADDRESSES: HashMap<Address, u32> = HashMap::with_max_entries(MAX_ADDRESSES, 0);

/// The same addresses, each at its `Address::slot`: a flood is sent to one of them, and the
/// lookup of a hash costs more than all else that is done for its packets. Where two share a
/// slot, one is there. Written by the daemon.
#[map]
pub(crate) static ADDRESS_AT: Array<Address> = Array::with_max_entries(ADDRESS_SLOTS, 0);

/// Interfaces (by index) with an early gate. Written by the daemon.
#[map]
pub(crate) static GATES: HashMap<u32, u32> = HashMap::with_max_entries(MAX_GATES, 0);

/// The policy in force. Written by the daemon; read where something is refused, never for what
/// passes.
#[map]
pub(crate) static POLICY: Array<Policy> = Array::with_max_entries(1, 0);

/// When the daemon was last alive: nanoseconds of `CLOCK_MONOTONIC`. Written by the daemon about
/// once a second; read for SYNs to listeners that need it (rule M2).
#[map]
pub(crate) static HEARTBEAT: Array<u64> = Array::with_max_entries(1, 0);

/// Not 0 while the daemon rarely looks at the ring buffers, and the next event is to wake it.
/// Written by the daemon; whoever wakes it sets it back.
#[map]
pub(crate) static ASLEEP: Array<u32> = Array::with_max_entries(1, 0);

/// The socket observer's programs, one for each tracepoint (`observer::Slot`). Written by the
/// daemon, which replaces them one by one while the tracepoints stay attached: no event is missed
/// and none is seen twice.
#[map]
pub(crate) static OBSERVERS: ProgramArray = ProgramArray::with_max_entries(OBSERVER_SLOTS, 0);

/// Destinations that an ftpd may connect to. Written by the daemon.
#[map]
pub(crate) static EXCEPTIONS: LpmTrie<Exception, u32> =
    LpmTrie::with_max_entries(MAX_EXCEPTIONS, BPF_F_NO_PREALLOC);

/// Networks from which data connections for other clients may come, and whose those clients are
/// (rule I7). Written by the daemon; read for SYNs that would be denied.
#[map]
pub(crate) static RELAXED: LpmTrie<Address, Relaxed> =
    LpmTrie::with_max_entries(MAX_RELAXED, BPF_F_NO_PREALLOC);

/// Refused connect() calls whose SYN may still leave. Written by the
/// socket observer, read by the egress guard. Full: the oldest is forgotten.
#[map]
pub(crate) static BARRED: LruHashMap<Barred, Refusal> = LruHashMap::with_max_entries(MAX_BARRED, 0);

/// The cgroup whose processes are watched, at index 0. Written by the daemon.
#[map]
pub(crate) static CGROUP: CgroupArray = CgroupArray::with_max_entries(1, 0);

/// Reasons and incidents (`verdict::Reason::counter`, `verdict::Incident::counter`). Written
/// here, read by the daemon.
#[map]
pub(crate) static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTER_COUNT, 0);

/// How many denials of each kind this CPU may still report one by one. Written by the daemon,
/// counted down here. At 0 denials are only counted, as `event-suppressed`.
#[map]
pub(crate) static EVENT_BUDGET: PerCpuArray<EventBudget> = PerCpuArray::with_max_entries(1, 0);

/// How many denials this CPU has reported of each source in this second, by kind of attack and a
/// hash of the source. Written and read here only. Sources that share a place share an allowance
/// until the next second.
#[map]
pub(crate) static TOLD: PerCpuArray<Told> = PerCpuArray::with_max_entries(4 * SOURCES, 0);

/// Typed events for the daemon. Full: counted as `event-lost`.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_BYTES, 0);

/// Captured control bytes for the daemon. Full: counted as `control-bytes-lost`.
#[map]
pub(crate) static CONTROL: RingBuf = RingBuf::with_byte_size(CONTROL_BYTES, 0);

/// Where one piece of control bytes is put together.
#[map]
pub(crate) static PIECE: PerCpuArray<Piece> = PerCpuArray::with_max_entries(1, 0);

/// One piece of control bytes, as it is written to `CONTROL`, and where the next one begins.
#[repr(C)]
pub(crate) struct Piece {
    pub header: ControlHeader,
    pub bytes: [u8; MAX_CAPTURE],
    /// Offset in the packet of the first byte not yet copied.
    pub at: u32,
    /// Offset in the packet where the payload ends.
    pub end: u32,
    /// Not 0 where the daemon is to read it at once.
    pub urgent: u32,
}

/// An LPM trie must be made with this flag (`trie_alloc()` in kernel/bpf/lpm_trie.c).
const BPF_F_NO_PREALLOC: u32 = aya_ebpf::bindings::BPF_F_NO_PREALLOC;
