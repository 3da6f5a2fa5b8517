//! The ingress guard: may this SYN reach the host?

use ftpguard_common::{
    abi::{Admission, Endpoint, Listener, PinholeKey, port_word},
    event::EventKind,
    net::{Address, Port},
    packet::{Segment, Walk},
    verdict::{Reason, Verdict},
};

use crate::{
    maps::{ADDRESSES, LISTENERS, PINHOLES, PORTS},
    report::{Ends, settle},
};

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
        Walk::Malformed => settle(Reason::Malformed, EventKind::SynDenied, &nobody, 0),
        Walk::TooDeep => settle(Reason::TooDeep, EventKind::SynDenied, &nobody, 0),
        Walk::TinyFragment => settle(Reason::TinyFragment, EventKind::SynDenied, &nobody, 0),
    }
}

/// Judges one segment that comes in.
#[inline(always)]
pub(crate) fn judge_segment(segment: &Segment) -> Verdict {
    if !segment.opens_connection() {
        return Verdict::Pass;
    }
    let ends = Ends {
        remote: segment.source,
        remote_port: segment.source_port,
        local: segment.destination,
        local_port: segment.destination_port,
    };
    settle(decide(segment), EventKind::SynDenied, &ends, 0)
}

#[inline(always)]
fn decide(segment: &Segment) -> Reason {
    let port = segment.destination_port;
    // Every port has a word; the array has 65536 elements.
    let word = PORTS
        .get(u32::from(port.number()))
        .copied()
        .unwrap_or(port_word::PASSIVE);
    if word & port_word::CONTROL != 0 {
        return Reason::ControlPort;
    }
    let declared = word & port_word::PASSIVE != 0;
    if word & (port_word::GUARDED | port_word::FOREIGN) == 0 {
        return if declared {
            unused(segment.destination)
        } else {
            Reason::PortNotGuarded
        };
    }
    if word & port_word::GUARDED != 0 && has_pinhole(segment) {
        return Reason::Pinhole;
    }
    match find_listener(segment.destination, port) {
        None if declared => unused(segment.destination),
        None => Reason::PortNotGuarded,
        Some(listener) if listener.control_port == Port::NONE => Reason::ForeignListener,
        Some(listener) if admits_peer(listener, segment.source) => Reason::ControlPeer,
        Some(_) => Reason::NoPinhole,
    }
}

/// A port of the range without a listener. Where the address is not known as this host's there
/// is nothing to reach either; it may be routed traffic.
#[inline(always)]
fn unused(destination: Address) -> Reason {
    // SAFETY: the value is not read.
    if unsafe { ADDRESSES.get(&destination) }.is_some() {
        Reason::ClosedPort
    } else {
        Reason::NotOurAddress
    }
}

#[inline(always)]
fn has_pinhole(segment: &Segment) -> bool {
    let key = PinholeKey {
        client: segment.source,
        server: segment.destination,
        port: segment.destination_port,
        pad: 0,
    };
    // SAFETY: the value is not read.
    unsafe { PINHOLES.get(&key) }.is_some()
}

/// The listener that a SYN to this address and port would meet: one bound to the address wins
/// over one bound to the wildcard, as in `inet_lookup_listener()`.
#[inline(always)]
fn find_listener(address: Address, port: Port) -> Option<&'static Listener> {
    // SAFETY: the entry is read at once; if it is replaced meanwhile, old and new are both
    // answers that were true during this packet.
    unsafe { LISTENERS.get(&Endpoint::new(address, port)) }
        // SAFETY: as above.
        .or_else(|| unsafe { LISTENERS.get(&Endpoint::new(Address::WILDCARD, port)) })
}

#[inline(always)]
fn admits_peer(listener: &Listener, client: Address) -> bool {
    listener.admission == Admission::ControlPeer as u16
        && crate::peers::is_peer(client, listener.control_port)
}
