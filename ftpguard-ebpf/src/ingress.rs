//! The ingress guard: may this SYN reach the host?
//!
//! Early gates (XDP, TC) judge packets of the interfaces they are attached to. The lookup gate
//! judges what comes to a listening socket by whatever way: loopback, tunnels, interfaces that
//! appeared later, reassembled fragments, headers too deep for the early gates (rule I5).

use ftpguard_common::{
    abi::{Admission, Endpoint, Listener, Mode, PinholeKey, WithoutDaemon, port_word},
    event::EventKind,
    net::{Address, Port},
    packet::{Segment, Walk},
    verdict::{Reason, Verdict},
};

use crate::{
    lookup::Lookup,
    maps::{
        ADDRESS_AT, ADDRESSES, ANY_ELSEWHERE, ELSEWHERE, GATES, HEARTBEAT, LISTENERS, PINHOLES,
    },
    peers::is_peer,
    relaxation,
    report::{Ends, mode_for, now, policy, settle, word_of},
};

/// Where an ftpd's active data connections come from (RFC 959 section 3.2, port L-1).
const FTP_DATA: Port = Port::new(20);

/// Judges one packet that comes in. Segments that ask for no connection pass uncounted
/// (rule I3).
#[inline(always)]
pub(crate) fn judge(found: &Walk) -> Verdict {
    let nobody = Ends {
        remote: Address::WILDCARD,
        remote_port: Port::NONE,
        local: Address::WILDCARD,
        local_port: Port::NONE,
    };
    match found {
        Walk::Other => Verdict::Pass,
        Walk::Tcp(segment) => judge_segment(segment),
        Walk::Malformed => settle(Reason::Malformed, EventKind::SynDenied, &nobody, 0, 0),
        Walk::TooDeep => settle(Reason::TooDeep, EventKind::SynDenied, &nobody, 0, 0),
        Walk::TinyFragment => settle(Reason::TinyFragment, EventKind::SynDenied, &nobody, 0, 0),
    }
}

/// Judges one segment that comes in.
#[inline(always)]
pub(crate) fn judge_segment(segment: &Segment) -> Verdict {
    if !segment.opens_connection() {
        return Verdict::Pass;
    }
    let ends = ends(segment);
    let (mut reason, word) = decide(&ends);
    if matches!(reason, Reason::NoPinhole | Reason::ClosedPort) && has_pinhole_elsewhere(&ends) {
        reason = Reason::Pinhole;
    }
    settle(reason, EventKind::SynDenied, &ends, 0, word)
}

/// Judges one segment that is passed on to another host or container, at its way out: the
/// addresses are those that it arrives with, whatever was translated. `came_by`: the interface
/// that it came by.
///
/// Only denials are counted, as at the last gate.
#[inline(always)]
pub(crate) fn judge_forwarded(segment: &Segment, came_by: u32) -> Verdict {
    let ends = ends(segment);
    let Some((reason, word)) = decide_forwarded(&ends) else {
        return Verdict::Pass;
    };
    if matches!(reason.verdict(), Verdict::Pass) {
        return Verdict::Pass;
    }
    // SAFETY: the value is not read.
    if is_monitor(word) && unsafe { GATES.get(came_by) }.is_some() {
        return Verdict::Pass;
    }
    settle(reason, EventKind::SynDenied, &ends, 0, word)
}

/// The ends of a segment on its way in.
#[inline(always)]
const fn ends(segment: &Segment) -> Ends {
    Ends {
        remote: segment.source,
        remote_port: segment.source_port,
        local: segment.destination,
        local_port: segment.destination_port,
    }
}

/// The reason, and the word that tells the mode; `None` where no listener is known.
#[inline(always)]
fn decide_forwarded(ends: &Ends) -> Option<(Reason, u64)> {
    let port = ends.local_port;
    let word = word_of(port);
    if word & port_word::GUARDED == 0 || word & port_word::CONTROL != 0 || has_pinhole(ends) {
        return None;
    }
    // SAFETY: as in `find_listener`.
    let listener = match unsafe { LISTENERS.get(&Endpoint::new(ends.local, port)) } {
        Some(listener) => listener,
        None => {
            // SAFETY: as in `find_listener`.
            let wildcard = unsafe { LISTENERS.get(&Endpoint::new(Address::WILDCARD, port)) }?;
            // Of another namespace, or of this one.
            if wildcard.pinhole.server != ends.local {
                return None;
            }
            wildcard
        }
    };
    Some((
        without_pinhole(listener, ends.remote),
        word_of(listener.control_port),
    ))
}

/// Whether this client has a pinhole for this port at an address that is not this host's, to
/// which the destination may be translated. Then a later gate judges: the one at the way out, or
/// the last.
#[inline(always)]
fn has_pinhole_elsewhere(ends: &Ends) -> bool {
    if ANY_ELSEWHERE.get(0).is_none_or(|any| *any == 0) {
        return false;
    }
    let key = elsewhere(ends.remote, ends.local_port);
    // SAFETY: an address is read at once; one that is replaced meanwhile is checked all the same.
    let Some(server) = (unsafe { ELSEWHERE.get(&key) }) else {
        return false;
    };
    let key = PinholeKey {
        server: *server,
        ..key
    };
    // SAFETY: the value is not read.
    unsafe { PINHOLES.get(&key) }.is_some()
}

const fn elsewhere(client: Address, port: Port) -> PinholeKey {
    PinholeKey {
        client,
        server: Address::WILDCARD,
        port,
        pad: 0,
    }
}

/// A pinhole was made. Where it is for an address that is not this host's, it is remembered.
#[inline(always)]
pub(crate) fn remember(pinhole: &PinholeKey) {
    if is_ours(pinhole.server) {
        return;
    }
    let key = elsewhere(pinhole.client, pinhole.port);
    // An LRU map always has room.
    let _ = ELSEWHERE.insert(&key, &pinhole.server, 0);
    let _ = ANY_ELSEWHERE.set(0, &1, 0);
}

/// Judges what looks for a listening socket: the last gate.
///
/// Only denials are counted: what passes here was counted by an early gate, or came by a way
/// that has none. A port where nothing listens is left to the kernel, which refuses it.
/// `INTERFACE`: whether the kernel tells which interface the segment came by.
#[inline(always)]
pub(crate) fn judge_lookup<const INTERFACE: bool>(lookup: &Lookup) -> Verdict {
    let (reason, word) = decide(&lookup.ends);
    match reason.verdict() {
        Verdict::Pass => Verdict::Pass,
        Verdict::Deny if matches!(reason, Reason::ClosedPort) => Verdict::Pass,
        // In monitor mode an early gate counted it and let it pass.
        Verdict::Deny if is_monitor(word) && !lookup.is_first_gate::<INTERFACE>() => Verdict::Pass,
        Verdict::Deny => settle(reason, EventKind::SynDenied, &lookup.ends, 0, word),
    }
}

#[inline(always)]
fn is_monitor(word: u64) -> bool {
    mode_for(word) == Mode::Monitor as u32
}

/// The reason, and the word that tells the mode: that of the port, or of the control port of the
/// ftpd that listens on it.
#[inline(always)]
fn decide(ends: &Ends) -> (Reason, u64) {
    let port = ends.local_port;
    let word = word_of(port);
    if word & port_word::SHIELDED != 0 && ends.remote_port == FTP_DATA && is_ours(ends.local) {
        return (Reason::Bounced, word);
    }
    if word & port_word::CONTROL != 0 {
        return (Reason::ControlPort, word);
    }
    let declared = word & port_word::PASSIVE != 0;
    if word & (port_word::GUARDED | port_word::FOREIGN) == 0 {
        let reason = if declared {
            unused(ends.local)
        } else {
            Reason::PortNotGuarded
        };
        return (reason, word);
    }
    if word & port_word::GUARDED != 0 && has_pinhole(ends) {
        return (Reason::Pinhole, word);
    }
    // In a flood most SYNs end here. The listener is guarded and strict, or it is bound to another
    // address and this port of the range is unused. In a monitored range an enforced ftpd may
    // listen.
    let is_open = word & (port_word::FOREIGN | port_word::LENIENT | port_word::MONITORED) != 0;
    if declared && !is_open && is_ours(ends.local) && !relaxation::is_any() {
        return (Reason::NoPinhole, word);
    }
    match find_listener(ends.local, port) {
        None if port_word::is_crowded(word) && is_ours(ends.local) => (Reason::NoPinhole, word),
        None if declared => (unused(ends.local), word),
        None => (Reason::PortNotGuarded, word),
        Some(listener) => (
            without_pinhole(listener, ends.remote),
            word_of(listener.control_port),
        ),
    }
}

/// What a listener makes of a client without a pinhole.
#[inline(always)]
fn without_pinhole(listener: &Listener, client: Address) -> Reason {
    if listener.control_port == Port::NONE {
        return Reason::ForeignListener;
    }
    if relaxation::admits(listener, client) {
        return Reason::Relaxation;
    }
    if listener.is_strict() {
        return Reason::NoPinhole;
    }
    let alive = daemon_is_alive();
    if alive && listener.admission == Admission::Daemon as u16 {
        return Reason::NoPinhole;
    }
    let policy = policy().map_or(WithoutDaemon::Closed as u32, |policy| policy.without_daemon);
    if !alive && policy == WithoutDaemon::Open as u32 {
        return Reason::FailedOpen;
    }
    let closed = !alive && policy == WithoutDaemon::Closed as u32;
    if !closed && is_peer(client, listener.control_port) {
        return Reason::ControlPeer;
    }
    if alive {
        Reason::NoPinhole
    } else {
        Reason::DaemonGone
    }
}

/// Whether the daemon's last heartbeat is recent (rule M2).
#[inline(always)]
fn daemon_is_alive() -> bool {
    let age = policy().map_or(0, |policy| policy.heartbeat_age);
    HEARTBEAT
        .get(0)
        .is_some_and(|beat| now().saturating_sub(*beat) <= age)
}

/// A port of the range without a listener. Where the address is not known as this host's there
/// is nothing to reach either; it may be routed traffic.
#[inline(always)]
fn unused(destination: Address) -> Reason {
    if is_ours(destination) {
        Reason::ClosedPort
    } else {
        Reason::NotOurAddress
    }
}

/// Whether this is an address of this host.
#[inline(always)]
fn is_ours(address: Address) -> bool {
    // An empty slot is `::`, which nobody may send to (RFC 4291 section 2.5.2).
    if ADDRESS_AT
        .get(address.slot())
        .is_some_and(|known| *known == address)
    {
        return true;
    }
    // SAFETY: the value is not read.
    unsafe { ADDRESSES.get(&address) }.is_some()
}

#[inline(always)]
fn has_pinhole(ends: &Ends) -> bool {
    let key = PinholeKey {
        client: ends.remote,
        server: ends.local,
        port: ends.local_port,
        pad: 0,
    };
    // SAFETY: the value is not read.
    unsafe { PINHOLES.get(&key) }.is_some()
}

/// The listener that a SYN to this address and port would meet: one bound to the address wins
/// over one bound to the wildcard, as in `inet_lookup_listener()`.
#[inline(always)]
pub(crate) fn find_listener(address: Address, port: Port) -> Option<&'static Listener> {
    // SAFETY: the entry is read at once; if it is replaced meanwhile, old and new are both
    // answers that were true during this packet.
    unsafe { LISTENERS.get(&Endpoint::new(address, port)) }
        // SAFETY: as above.
        .or_else(|| unsafe { LISTENERS.get(&Endpoint::new(Address::WILDCARD, port)) })
}
