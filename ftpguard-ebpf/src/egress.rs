//! The egress guard: the backstop for data connections that no connect() hook saw.

use ftpguard_common::{
    abi::{Barred, SessionKey, port_word},
    event::EventKind,
    net::Port,
    packet::Segment,
    verdict::{Reason, Verdict},
};

use crate::{
    maps::{BARRED, PORTS, SESSIONS},
    peers::{is_listed, is_peer},
    report::{Ends, now, policy, settle},
};

/// Judges one segment that leaves. Only SYNs from a data source port, or to a destination that
/// was refused a moment ago, are counted.
#[inline(always)]
pub(crate) fn judge_segment(segment: &Segment) -> Verdict {
    if !segment.opens_connection() {
        return Verdict::Pass;
    }
    let Some(reason) = decide(segment) else {
        return Verdict::Pass;
    };
    let ends = Ends {
        remote: segment.destination,
        remote_port: segment.destination_port,
        local: segment.source,
        local_port: segment.source_port,
    };
    settle(reason, EventKind::EgressDenied, &ends, 0)
}

#[inline(always)]
fn decide(segment: &Segment) -> Option<Reason> {
    if is_barred(segment) {
        return Some(Reason::DataBarred);
    }
    let word = PORTS
        .get(u32::from(segment.source_port.number()))
        .copied()
        .unwrap_or(0);
    if word & port_word::DATA_SOURCE == 0 {
        return None;
    }
    let (address, port) = (segment.destination, segment.destination_port);
    Some(if is_listed(address, port) {
        Reason::DataListed
    } else if !is_peer(address, Port::NONE) {
        Reason::DataToStranger
    } else if port.is_low() && !is_control_source(segment) {
        Reason::DataToLowPort
    } else {
        Reason::DataToPeer
    })
}

#[inline(always)]
fn is_barred(segment: &Segment) -> bool {
    let key = Barred {
        address: segment.destination,
        port: segment.destination_port,
        pad: 0,
    };
    // SAFETY: one word is read once.
    let Some(refused_at) = (unsafe { BARRED.get(&key) }) else {
        return false;
    };
    let age = policy().map_or(u64::MAX, |policy| policy.barred_age);
    now().saturating_sub(*refused_at) < age
}

/// Whether the destination is the source of a control connection to the port above the data
/// source port, where RFC 959 section 3.2 puts it (rule O2).
#[inline(always)]
fn is_control_source(segment: &Segment) -> bool {
    let key = SessionKey {
        client: segment.destination,
        server: segment.source,
        client_port: segment.destination_port,
        server_port: Port::new(segment.source_port.number().wrapping_add(1)),
    };
    // SAFETY: the value is not read.
    unsafe { SESSIONS.get(&key) }.is_some()
}
