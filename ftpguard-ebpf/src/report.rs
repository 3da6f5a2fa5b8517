//! Counting, the action that follows from a reason, and events.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::bpf_ktime_get_ns,
    maps::RingBuf,
};
use ftpguard_common::{
    abi::{EVENTS_BYTES, Mode, Pinhole, PinholeKey, Policy, SessionKey, Tracking, port_word},
    event::{Event, EventKind},
    net::{Address, Port},
    verdict::{Incident, Reason, Verdict},
};

use crate::{
    allowance,
    maps::{ASLEEP, COUNTERS, EVENTS, POLICY, PORTS},
};

/// The two ends of what is reported.
#[derive(Clone, Copy)]
pub(crate) struct Ends {
    pub remote: Address,
    pub remote_port: Port,
    pub local: Address,
    pub local_port: Port,
}

/// Counts a reason and returns its verdict as it takes effect in the mode in force for the port
/// with this word. A denial is reported while this CPU's budget lasts.
#[inline(always)]
pub(crate) fn settle(
    reason: Reason,
    kind: EventKind,
    ends: &Ends,
    tgid: u32,
    word: u64,
) -> Verdict {
    count(reason.counter());
    match reason.verdict() {
        Verdict::Pass => Verdict::Pass,
        Verdict::Deny => {
            let mode = mode_for(word);
            if allowance::takes(reason.attack(), ends.remote) {
                emit(&Event {
                    reason: reason as u32,
                    mode,
                    tgid,
                    ..event(kind, ends)
                });
            } else {
                note(Incident::EventSuppressed);
            }
            if mode == Mode::Monitor as u32 {
                Verdict::Pass
            } else {
                Verdict::Deny
            }
        }
    }
}

/// Counts something that happened to the guard.
#[inline(always)]
pub(crate) fn note(incident: Incident) {
    count(incident.counter());
}

/// The policy in force. The array has one element, so `None` never happens; the verifier wants
/// it said, and callers choose the closed side.
#[inline(always)]
pub(crate) fn policy() -> Option<&'static Policy> {
    POLICY.get(0)
}

/// The mode in force for the port with this word.
#[inline(always)]
pub(crate) fn mode_for(word: u64) -> u32 {
    policy().map_or(Mode::Enforce as u32, |policy| policy.mode_for(word))
}

/// What is known of this port (`abi::port_word`). The array has an element for each.
#[inline(always)]
pub(crate) fn word_of(port: Port) -> u64 {
    PORTS
        .get(u32::from(port.number()))
        .copied()
        .unwrap_or(port_word::PASSIVE)
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper takes nothing and cannot fail.
    unsafe { bpf_ktime_get_ns() }
}

/// An event without time, session and reason.
#[inline(always)]
pub(crate) fn event(kind: EventKind, ends: &Ends) -> Event {
    Event {
        at: 0,
        session: 0,
        kind: kind as u32,
        reason: 0,
        tgid: 0,
        origin: 0,
        remote: ends.remote,
        local: ends.local,
        remote_port: ends.remote_port,
        local_port: ends.local_port,
        mode: 0,
    }
}

/// An event about a session.
#[inline(always)]
pub(crate) fn session_event(kind: EventKind, key: &SessionKey, id: u64, at: u64) -> Event {
    Event {
        at,
        session: id,
        ..event(
            kind,
            &Ends {
                remote: key.client,
                remote_port: key.client_port,
                local: key.server,
                local_port: key.server_port,
            },
        )
    }
}

/// An event about a pinhole. `remote_port` is the data connection's, where there is one.
#[inline(always)]
pub(crate) fn pinhole_event(
    kind: EventKind,
    key: &PinholeKey,
    pinhole: &Pinhole,
    remote_port: Port,
) -> Event {
    Event {
        at: now(),
        session: pinhole.session,
        origin: pinhole.origin,
        ..event(
            kind,
            &Ends {
                remote: key.client,
                remote_port,
                local: key.server,
                local_port: key.port,
            },
        )
    }
}

/// Hands an event to the daemon, which reads it when it looks next; one that is asleep is woken.
#[inline(always)]
pub(crate) fn emit(event: &Event) {
    output(event, wakeup(&EVENTS, EVENTS_BYTES, wakes_daemon()));
}

/// Hands over that a pinhole was made; wakes the daemon where a firewall is to be opened for it.
#[inline(always)]
pub(crate) fn emit_pinhole(event: &Event) {
    let urgent = wakes_daemon() || policy().is_some_and(|policy| policy.wake != 0);
    output(event, wakeup(&EVENTS, EVENTS_BYTES, urgent));
}

/// Hands an event to the daemon, and wakes it: it has something to do.
#[inline(always)]
pub(crate) fn emit_urgent(event: &Event) {
    output(event, wakeup(&EVENTS, EVENTS_BYTES, true));
}

/// Whether the daemon is asleep, and to be woken: whoever asks first does it.
#[inline(always)]
fn wakes_daemon() -> bool {
    let Some(asleep) = ASLEEP.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: the pointer is to the array's element, which is valid and aligned. Two who ask at once
    // may both read it, and then both wake the daemon.
    let is_asleep = unsafe { *asleep } != 0;
    if is_asleep {
        // SAFETY: as above.
        unsafe { *asleep = 0 };
    }
    is_asleep
}

/// Whether a record wakes the daemon up.
///
/// In socket tracking it does not: a daemon that wakes up for each event of a transfer competes
/// with client and ftpd for the processor while the transfer is being set up. It looks by
/// itself many times a second, and is woken when the ring fills up. In text tracking clients
/// wait for what it reads.
#[inline(always)]
pub(crate) fn wakeup(ring: &RingBuf, size: u32, urgent: bool) -> u64 {
    let text = policy().is_some_and(|policy| policy.tracking == Tracking::Text as u32);
    if text {
        // The kernel's own choice: wake a reader that had caught up.
        0
    } else if urgent || ring.query(u64::from(BPF_RB_AVAIL_DATA)) > u64::from(size / 4) {
        u64::from(BPF_RB_FORCE_WAKEUP)
    } else {
        u64::from(BPF_RB_NO_WAKEUP)
    }
}

#[inline(always)]
fn output(event: &Event, flags: u64) {
    if EVENTS.output::<Event>(event, flags).is_err() {
        note(Incident::EventLost);
    }
}

#[inline(always)]
fn count(counter: u32) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter) {
        // SAFETY: the pointer is to this CPU's element, which no other CPU writes; a program
        // that interrupts this one can lose one count.
        unsafe { *value += 1 };
    }
}
