//! Control connections: opened by a handshake on a control port, closed by the ftpd's side.

use ftpguard_common::{
    abi::{Listener, PinholeKey, Session, SessionKey, port_word},
    event::EventKind,
    net::Port,
    verdict::Incident,
};

use super::{
    listener::{close_pinhole, mark},
    process::in_scope,
};
use crate::{
    ingress::find_listener,
    maps::{ADVICE, PROCESSES, SESSIONS},
    peers,
    report::{emit, note, now, policy, session_event},
};

/// A handshake on a control port is complete. Runs in softirq: the current task is anybody.
#[inline(always)]
pub(crate) fn opened(key: &SessionKey, is_multipath: bool) {
    // Whether a watched process opened the control port that this connection came to.
    let Some(listener) = find_listener(key.server, key.server_port) else {
        return;
    };
    if is_multipath {
        mark_multipath(listener, key.server_port);
    }
    begin(key, now());
}

/// Nobody will be seen to read this connection: the kernel reads it for Multipath TCP's own
/// socket, which has no tracepoint. The control port is marked before the ftpd can read the first
/// command. So is the first control port of a process that has several: its processes go by that.
#[inline(always)]
fn mark_multipath(listener: &Listener, port: Port) {
    mark(port, port_word::MULTIPATH, port_word::ONE_MULTIPATH);
    // SAFETY: one field is read once.
    if let Some(process) = unsafe { PROCESSES.get(listener.tgid) } {
        mark(
            process.control_port,
            port_word::MULTIPATH,
            port_word::ONE_MULTIPATH,
        );
    }
}

/// A watched process reads a control connection whose beginning was not seen: somebody who is
/// not watched accepted it (rule F2). Gives the session's id, 0 where there is none.
#[inline(always)]
pub(crate) fn noticed(key: &SessionKey) -> u64 {
    if in_scope() { begin(key, 0) } else { 0 }
}

/// Adds the session, and gives its id; 0 where there is no room, or its client has had its share
/// (rule K9).
#[inline(always)]
fn begin(key: &SessionKey, opened_at: u64) -> u64 {
    let most = policy().map_or(0, |policy| policy.sessions_per_client);
    if peers::held_by(key.client) >= most {
        note(Incident::ClientQuota);
        return 0;
    }
    let at = now();
    let session = Session {
        // The time tells this session from a later one with the same four-tuple.
        id: at,
        opened_at,
        pinhole: PinholeKey::NONE,
        client_sequence: 0,
        rein_sequence: 0,
        pad: 0,
    };
    // Said too late about an earlier session with the same four-tuple.
    let _ = ADVICE.remove(key);
    if SESSIONS.insert(key, session, 0).is_err() {
        note(Incident::SessionTableFull);
        return 0;
    }
    peers::join(key);
    emit(&session_event(EventKind::SessionOpened, key, at, at));
    at
}

/// The ftpd's side of a control connection is closing: its pinhole goes (rules K5, C7).
#[inline(always)]
pub(crate) fn closed(key: &SessionKey) {
    let Some(session) = SESSIONS.get_ptr(key) else {
        return;
    };
    // SAFETY: the entry stays valid for the time of this program.
    let Session { id, pinhole, .. } = unsafe { *session };
    if SESSIONS.remove(key).is_err() {
        return;
    }
    // There only if the daemon had something to say.
    let _ = ADVICE.remove(key);
    peers::leave(key);
    if pinhole.port != Port::NONE {
        close_pinhole(&pinhole, id);
    }
    emit(&session_event(EventKind::SessionClosed, key, id, now()));
}
