//! The egress guard: the backstop for data connections that no connect() hook saw.

use ftpguard_common::{
    abi::{Barred, SessionKey, port_word},
    event::EventKind,
    net::Port,
    packet::Segment,
    verdict::{Reason, Verdict},
};

use crate::{
    maps::{BARRED, SESSIONS},
    peers::{is_listed, is_peer},
    report::{Ends, now, policy, settle, word_of},
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
    // Whose it is, a packet does not tell: the word of a data source port stands for every ftpd.
    let port = match barred_by(segment) {
        Some(control_port) => control_port,
        None => segment.source_port,
    };
    settle(reason, EventKind::EgressDenied, &ends, 0, word_of(port))
}

#[inline(always)]
fn decide(segment: &Segment) -> Option<Reason> {
    if barred_by(segment).is_some() {
        return Some(Reason::DataBarred);
    }
    if word_of(segment.source_port) & port_word::DATA_SOURCE == 0 {
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

/// The control port of the ftpd whose connect() to this destination was refused a moment ago.
#[inline(always)]
fn barred_by(segment: &Segment) -> Option<Port> {
    let key = Barred {
        address: segment.destination,
        port: segment.destination_port,
        pad: 0,
    };
    // SAFETY: each field is read once; whichever refusal it is of, there was one.
    let refusal = unsafe { BARRED.get(&key) }?;
    let age = policy().map_or(u64::MAX, |policy| policy.barred_age);
    (now().saturating_sub(refusal.at) < age).then_some(refusal.control_port)
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
