//! Listening sockets, and the pinholes that are made inside listen() (rule K2).

use aya_ebpf::programs::RawTracePointContext;
use aya_log_ebpf::debug;
use ftpguard_common::{
    abi::{
        Admission, Endpoint, Listener, Pinhole, PinholeKey, Process, SessionKey, Tracking,
        port_word, process_flags,
    },
    event::{Event, EventKind},
    net::{Address, Port},
    verdict::Incident,
};

use super::{
    attribution::{Attribution, attribute, may_serve_unseen},
    process::{current_tgid, ftpd_of, in_scope, opened_control_port},
    serving,
};
use crate::{
    atomic::{add_u32, add_u64},
    ingress::{find_listener, remember},
    maps::{FORMER_LISTENERS, LISTENERS, PINHOLES, PORTS, PROCESSES, SESSIONS},
    relaxation,
    report::{
        Ends, emit, emit_pinhole, emit_urgent, event, note, now, pinhole_event, policy, word_of,
    },
};

/// A socket begins to listen. Runs inside listen(), before it returns to the ftpd.
#[inline(always)]
pub(crate) fn opened(
    ctx: &RawTracePointContext,
    address: Address,
    port: Port,
    socket: u64,
) -> Option<()> {
    let endpoint = Endpoint::new(address, port);
    let word = *PORTS.get(u32::from(port.number()))?;
    let tgid = current_tgid();
    if word & port_word::CONTROL != 0 {
        if in_scope() {
            opened_control_port(port);
            add(&endpoint, &plain(tgid, port, socket));
        }
        return None;
    }
    let mut process = PROCESSES.get_ptr_mut(tgid).map(|process| {
        // SAFETY: the entry stays valid for the time of this program.
        unsafe { &mut *process }
    });
    let control_port = match &process {
        Some(process) => process.control_port,
        None => ftpd_of(tgid),
    };
    if control_port == Port::NONE {
        if word & port_word::PASSIVE != 0 {
            opened_foreign(&endpoint, tgid, socket);
        }
        return None;
    }
    let mut listener = plain(tgid, control_port, socket);
    if port.is_low() {
        note(Incident::LowListener);
    } else if policy()?.tracking == Tracking::Text as u32 {
        listener.admission = Admission::Daemon as u16;
        report_listener(EventKind::ListenerOpened, &endpoint, tgid);
    } else {
        match process.as_deref().and_then(attribute) {
            Some(attribution) => {
                let key = attribution.session.pinhole(port);
                if make_pinhole(&key, &attribution) {
                    remember(&key);
                    listener.pinhole = key;
                }
                listener.session = attribution.session_id;
            }
            // No pinhole, and nobody is let in: it is for a session that there was no room for.
            None if process.as_deref().is_some_and(is_turned_away) => {}
            None => {
                note(Incident::Unattributed);
                if let Some(process) = &mut process {
                    refuse(process);
                }
                listener.admission = Admission::ControlPeer as u16;
                debug!(ctx, "process {} listens and its session is not known", tgid);
                report_listener(EventKind::Unattributed, &endpoint, tgid);
            }
        }
    }
    add(&endpoint, &listener);
    Some(())
}

/// A socket stops listening.
#[inline(always)]
pub(crate) fn closed(address: Address, port: Port, socket: u64) -> Option<()> {
    let endpoint = Endpoint::new(address, port);
    let Some(listener) = LISTENERS.get_ptr_mut(&endpoint) else {
        closed_unknown(port);
        return None;
    };
    // SAFETY: the entry stays valid for the time of this program.
    let listener = unsafe { &mut *listener };
    // Else it is at the same endpoint in another network namespace.
    if !is_same(listener, socket) {
        return None;
    }
    if listener.sockets > 1 {
        leave(listener, port, socket);
        return None;
    }
    let Listener {
        session, pinhole, ..
    } = *listener;
    let hint = listener.hint();
    if LISTENERS.remove(&endpoint).is_err() {
        return None;
    }
    add_to_word(port, hint.wrapping_neg());
    if pinhole.port != Port::NONE {
        close_pinhole(&pinhole, session);
    }
    Some(())
}

/// A socket stops listening that is not known. Where it may be one that there was no room for, its
/// hint goes; one that is closed by the end of its process leaves it behind.
#[inline(always)]
fn closed_unknown(port: Port) {
    if port_word::is_crowded(word_of(port)) && is_guarded_process() {
        add_to_word(port, port_word::ONE_GUARDED.wrapping_neg());
    }
}

/// A socket that shares its endpoint with others stops listening there, or a listen() failed
/// because another socket had the port by then: the kernel tells of it as of one that listened
/// for a moment (`inet_csk_listen_start()`). Its pinhole goes, and what was there before is there
/// again.
#[inline(always)]
fn leave(listener: &mut Listener, port: Port, socket: u64) {
    let left = listener.sockets - 1;
    if listener.socket == socket {
        let Listener {
            session, pinhole, ..
        } = *listener;
        let hint = listener.hint();
        // SAFETY: read at once.
        if let Some(former) = unsafe { FORMER_LISTENERS.get(socket) } {
            *listener = *former;
            change_hint(port, hint, listener.hint());
            // Just seen; gone already is as good.
            let _ = FORMER_LISTENERS.remove(socket);
        } else {
            listener.pinhole = PinholeKey::NONE;
            listener.session = 0;
        }
        if pinhole == listener.pinhole {
            // Of the same client, for another session: it is the former one's again.
            if let Some(pinhole) = PINHOLES.get_ptr_mut(&pinhole) {
                // SAFETY: the entry stays valid for the time of this program.
                unsafe { (*pinhole).session = listener.session };
            }
        } else if pinhole.port != Port::NONE {
            close_pinhole(&pinhole, session);
        }
    } else {
        former_left(listener, socket);
    }
    listener.sockets = left;
}

/// The socket before the latest one stops listening at the same endpoint: its client is not to
/// reach the latest one.
#[inline(always)]
fn former_left(listener: &Listener, socket: u64) {
    // SAFETY: fields are read once each.
    let Some(former) = (unsafe { FORMER_LISTENERS.get(listener.socket) }) else {
        return;
    };
    if former.socket != socket || former.pinhole == listener.pinhole {
        return;
    }
    let (pinhole, session) = (former.pinhole, former.session);
    // Just seen; gone already is as good.
    let _ = FORMER_LISTENERS.remove(listener.socket);
    if pinhole.port != Port::NONE {
        close_pinhole(&pinhole, session);
    }
}

/// Whether this socket is the listener, or one of those that share its endpoint. Where its name
/// is not known, the process that closes it tells.
#[inline(always)]
fn is_same(listener: &Listener, socket: u64) -> bool {
    if listener.sockets == 1 && listener.socket != 0 {
        return listener.socket == socket;
    }
    let is_foreign = listener.control_port == Port::NONE;
    listener.socket == socket
        // It may be on its way out, and no longer among the processes of the ftpd.
        || listener.tgid == current_tgid()
        || is_guarded_process()
        || (is_foreign && listener.tgid == 0)
}

#[inline(always)]
fn is_guarded_process() -> bool {
    let tgid = current_tgid();
    // SAFETY: the value is not read.
    unsafe { PROCESSES.get(&tgid) }.is_some() || ftpd_of(tgid) != Port::NONE
}

/// A handshake on a guarded listener is complete: the pinhole has served (rule K6). Runs in
/// softirq.
#[inline(always)]
pub(crate) fn accepted(key: &PinholeKey, client_port: Port) -> Option<()> {
    let Some(pinhole) = PINHOLES.get_ptr_mut(key) else {
        return accepted_relaxed(key, client_port);
    };
    used(key, pinhole, client_port);
    Some(())
}

/// The same for a client that may use another one's pinhole (rule I7).
#[inline(always)]
fn accepted_relaxed(key: &PinholeKey, client_port: Port) -> Option<()> {
    if !relaxation::is_any() {
        return None;
    }
    let listener = find_listener(key.server, key.port)?;
    if !relaxation::admits(listener, key.client) {
        return None;
    }
    let key = listener.pinhole;
    used(&key, PINHOLES.get_ptr_mut(&key)?, client_port);
    Some(())
}

#[inline(always)]
fn used(key: &PinholeKey, pinhole: *mut Pinhole, client_port: Port) {
    // SAFETY: the entry stays valid for the time of this program.
    let copy = unsafe { *pinhole };
    if !use_once(pinhole) {
        // Gone already: as good as removed.
        let _ = PINHOLES.remove(key);
        clear_session(key, &copy);
    }
    emit(&pinhole_event(
        EventKind::PinholeUsed,
        key,
        &copy,
        client_port,
    ));
}

/// Takes one use off a pinhole; false where none is left. Atomic: several handshakes may be
/// completed at once.
#[inline(always)]
fn use_once(pinhole: *mut Pinhole) -> bool {
    // SAFETY: the field lies within the entry, which stays valid for the time of this program.
    let uses = unsafe { &raw mut (*pinhole).uses };
    // SAFETY: the pointer is valid and aligned, and uses are only ever taken off.
    unsafe { add_u32(uses, -1) };
    // SAFETY: as above; volatile, because the compiler knows nothing of the addition. Who comes
    // second may read what the other one has subtracted too, and then both remove the pinhole.
    let left = unsafe { core::ptr::read_volatile(uses) };
    left.cast_signed() > 0
}

/// Removes a session's pinhole that was not used up, if it is still there and still that
/// session's.
#[inline(always)]
pub(crate) fn close_pinhole(key: &PinholeKey, session_id: u64) {
    let Some(pinhole) = PINHOLES.get_ptr(key) else {
        return;
    };
    // SAFETY: the entry stays valid for the time of this program.
    let pinhole = unsafe { *pinhole };
    if pinhole.session != session_id || PINHOLES.remove(key).is_err() {
        return;
    }
    clear_session(key, &pinhole);
    emit(&pinhole_event(
        EventKind::PinholeClosed,
        key,
        &pinhole,
        Port::NONE,
    ));
}

/// Makes the pinhole of an attributed listener; the session's former one goes (rule K4).
#[inline(always)]
fn make_pinhole(key: &PinholeKey, attribution: &Attribution) -> bool {
    let Some(policy) = policy() else {
        return false;
    };
    let session = SESSIONS.get_ptr_mut(&attribution.session);
    if let Some(session) = session {
        // SAFETY: the entry stays valid for the time of this program.
        let former = unsafe { (*session).pinhole };
        if former.port != Port::NONE && former != *key {
            close_pinhole(&former, attribution.session_id);
        }
        // SAFETY: as above; one ftpd thread at a time listens for a session.
        unsafe { (*session).pinhole = *key };
    }
    let pinhole = Pinhole::of(
        &attribution.session,
        attribution.session_id,
        now(),
        policy.uses,
        attribution.origin,
    );
    if PINHOLES.insert(key, pinhole, 0).is_err() {
        note(Incident::PinholeTableFull);
        return false;
    }
    emit_pinhole(&pinhole_event(
        EventKind::PinholeMade,
        key,
        &pinhole,
        attribution.session.client_port,
    ));
    true
}

/// The session of a pinhole that is gone has none.
#[inline(always)]
fn clear_session(key: &PinholeKey, pinhole: &Pinhole) {
    let session = SessionKey {
        client: key.client,
        server: key.server,
        client_port: pinhole.client_port,
        server_port: pinhole.server_port,
    };
    if let Some(session) = SESSIONS.get_ptr_mut(&session) {
        // SAFETY: the entry stays valid for the time of this program.
        let session = unsafe { &mut *session };
        if session.pinhole == *key {
            session.pinhole = PinholeKey::NONE;
        }
    }
}

/// A shared process listens in a thread that does not tell for whom. One that never read a control
/// connection never will. One whose last read is too old, or was of a session that has ended, does
/// the next time: a client must not be able to switch that off by being slow or gone.
#[inline(always)]
fn refuse(process: &mut Process) {
    if process.flags & process_flags::SHARED != 0 && !serving::has_read() {
        process.flags |= process_flags::UNSAFE;
    }
}

/// Whether this listener is for a session that is not tracked (rule K9).
#[inline(always)]
fn is_turned_away(process: &Process) -> bool {
    if process.flags & process_flags::UNSAFE != 0 || may_serve_unseen(process) {
        false
    } else if process.flags & process_flags::SHARED != 0 {
        serving::is_turned_away()
    } else {
        process.session_id == 0 && process.flags & process_flags::TURNED_AWAY != 0
    }
}

/// Other software listens in the declared range: left alone and reported (rule I4).
#[inline(always)]
fn opened_foreign(endpoint: &Endpoint, tgid: u32, socket: u64) {
    add(endpoint, &plain(tgid, Port::NONE, socket));
    report_listener(EventKind::ForeignListener, endpoint, tgid);
}

/// A listener that admits clients with a pinhole, or a foreign one where there is no control
/// port.
#[inline(always)]
const fn plain(tgid: u32, control_port: Port, socket: u64) -> Listener {
    Listener {
        session: 0,
        socket,
        pinhole: PinholeKey::NONE,
        tgid,
        control_port,
        admission: Admission::Pinhole as u16,
        sockets: 1,
    }
}

/// Adds a listener. One that shares the endpoint of a guarded one (`SO_REUSEPORT`) counts with
/// it; a foreign one never takes a guarded one's place.
#[inline(always)]
fn add(endpoint: &Endpoint, listener: &Listener) {
    if !listener.is_strict() {
        // The port's listeners have to be asked from now on.
        mark(endpoint.port, port_word::LENIENT, port_word::ONE_LENIENT);
    }
    if let Some(known) = LISTENERS.get_ptr_mut(endpoint) {
        // SAFETY: the entry stays valid for the time of this program.
        let known = unsafe { &mut *known };
        let sockets = known.sockets + 1;
        if listener.control_port != Port::NONE {
            change_hint(endpoint.port, known.hint(), listener.hint());
            // An LRU map always has room.
            let _ = FORMER_LISTENERS.insert(listener.socket, *known, 0);
            *known = *listener;
        }
        known.sockets = sockets;
        return;
    }
    if LISTENERS.insert(endpoint, listener, 0).is_err() {
        note(Incident::ListenerTableFull);
        if listener.control_port == Port::NONE {
            return;
        }
        // Its pinhole is asked for all the same, by way of the port's word.
        mark(endpoint.port, port_word::CROWDED, port_word::ONE_CROWDED);
    }
    add_to_word(endpoint.port, listener.hint());
}

/// Another listener has taken an endpoint.
#[inline(always)]
fn change_hint(port: Port, before: u64, after: u64) {
    if before != after {
        add_to_word(port, after.wrapping_sub(before));
    }
}

/// Sets a mark in the port's word for good. Only where it is not set yet, so that it cannot run
/// over.
#[inline(always)]
pub(crate) fn mark(port: Port, mark: u64, one: u64) {
    let known = PORTS.get(u32::from(port.number()));
    if known.is_some_and(|word| word & mark == 0) {
        add_to_word(port, one);
    }
}

/// Keeps the hints in the port's word. Atomic, because ports are shared by CPUs.
#[inline(always)]
fn add_to_word(port: Port, step: u64) {
    if let Some(word) = PORTS.get_ptr_mut(u32::from(port.number())) {
        // SAFETY: the pointer is to an element of the array: aligned, valid, and changed by
        // additions only once programs are attached.
        unsafe { add_u64(word, step) };
    }
}

#[inline(always)]
fn report_listener(kind: EventKind, endpoint: &Endpoint, tgid: u32) {
    let ends = Ends {
        remote: Address::WILDCARD,
        remote_port: Port::NONE,
        local: endpoint.address,
        local_port: endpoint.port,
    };
    emit_urgent(&Event {
        at: now(),
        tgid,
        ..event(kind, &ends)
    });
}
