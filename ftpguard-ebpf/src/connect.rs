//! The connect() guard: may this process of an ftpd connect there (rules O1 to O4)?

use aya_ebpf::{
    bindings::bpf_sock_addr, helpers::bpf_get_current_pid_tgid, programs::SockAddrContext,
};
use ftpguard_common::{
    abi::{Active, Advice, Process, SessionKey, advice_flags, process_flags},
    event::EventKind,
    net::{Address, Port},
    verdict::{Reason, Verdict},
};

use crate::{
    maps::{ADVICE, PROCESSES, SESSIONS},
    observer::{attribution::may_serve_unseen, process::ftpd_of, serving},
    peers::{is_listed, is_peer},
    report::{Ends, policy, settle, word_of},
};

const IPPROTO_TCP: u32 = 6;

/// Judges a connect() to an IPv4 address.
#[inline(always)]
pub(crate) fn judge_v4(ctx: &SockAddrContext) -> Verdict {
    // SAFETY: the kernel hands a valid context to every run of this program type.
    let call = unsafe { &*ctx.sock_addr };
    judge(call, Address::from_v4_word(call.user_ip4))
}

/// Judges a connect() to an IPv6 address; an IPv4-mapped one is IPv4 here as everywhere.
#[inline(always)]
pub(crate) fn judge_v6(ctx: &SockAddrContext) -> Verdict {
    // SAFETY: the kernel hands a valid context to every run of this program type.
    let call = unsafe { &*ctx.sock_addr };
    let [a, b, c, d] = call.user_ip6;
    judge(call, Address([a, b, c, d]))
}

#[inline(always)]
fn judge(call: &bpf_sock_addr, address: Address) -> Verdict {
    if call.protocol != IPPROTO_TCP {
        return Verdict::Pass;
    }
    // The kernel fills the lower half with the port in wire order.
    let port = Port::from_wire(call.user_port as u16);
    let Some(reason) = decide(address, port) else {
        return Verdict::Pass;
    };
    let ends = Ends {
        remote: address,
        remote_port: port,
        local: Address::WILDCARD,
        local_port: Port::NONE,
    };
    settle(
        reason,
        EventKind::ConnectRefused,
        &ends,
        current_tgid(),
        word_of(control_port()),
    )
}

/// The control port of the current process's ftpd.
#[inline(always)]
pub(crate) fn control_port() -> Port {
    let tgid = current_tgid();
    // SAFETY: as in `decide`.
    let process = unsafe { PROCESSES.get(&tgid) };
    process.map_or_else(|| ftpd_of(tgid), |process| process.control_port)
}

/// What is to be said of the current process connecting there; `None` where it belongs to no
/// guarded ftpd.
#[inline(always)]
pub(crate) fn decide(address: Address, port: Port) -> Option<Reason> {
    let tgid = current_tgid();
    // SAFETY: read at once; a change meanwhile is as good as one just before or after.
    let Some(process) = (unsafe { PROCESSES.get(&tgid) }) else {
        return of_unknown(ftpd_of(tgid), address, port);
    };
    if may_serve_unseen(process) {
        return of_unknown(process.control_port, address, port);
    }
    let shared = process.flags & process_flags::SHARED != 0;
    let turned_away = process.flags & process_flags::TURNED_AWAY != 0;
    if process.session_id == 0 && !shared && !turned_away {
        return Some(Reason::ConnectUnprompted);
    }
    if is_listed(address, port) {
        return Some(Reason::ConnectListed);
    }
    if process.session_id == 0 && !shared {
        // It serves a client for whom there was no room, and who is not to profit from that.
        return Some(Reason::ConnectToStranger);
    }
    if !reaches_clients() {
        return Some(Reason::ConnectWhileOff);
    }
    Some(match session_of(process, shared) {
        Some(session) => to_client(&session, address, port),
        None => to_any_client(process.control_port, address, port),
    })
}

/// The same where it is not known whom the process serves. One that is not known itself and
/// belongs to an ftpd is one for which there was no room (rule K9).
#[inline(always)]
fn of_unknown(control_port: Port, address: Address, port: Port) -> Option<Reason> {
    if control_port == Port::NONE {
        return None;
    }
    if is_listed(address, port) {
        return Some(Reason::ConnectListed);
    }
    if !reaches_clients() {
        return Some(Reason::ConnectWhileOff);
    }
    Some(to_any_client(control_port, address, port))
}

/// Whether active mode may reach clients at all.
#[inline(always)]
fn reaches_clients() -> bool {
    policy().is_some_and(|policy| policy.active == Active::Client as u32)
}

/// The session that the current thread serves, where that is known.
#[inline(always)]
fn session_of(process: &Process, shared: bool) -> Option<SessionKey> {
    if !shared {
        return Some(process.session);
    }
    if process.flags & process_flags::UNSAFE != 0 {
        return None;
    }
    serving::current().map(|serving| serving.session)
}

#[inline(always)]
fn to_client(session: &SessionKey, address: Address, port: Port) -> Reason {
    if address != session.client {
        return Reason::ConnectToStranger;
    }
    // SAFETY: read at once; the daemon replaces the whole value.
    let advice = unsafe { ADVICE.get(session) }.copied();
    if advice.is_some_and(|advice| is_closed(session, &advice)) {
        return Reason::ConnectAfterEpsvAll;
    }
    if port == session.client_port {
        return Reason::ConnectToControlSource;
    }
    if port.is_low() {
        return Reason::ConnectToLowPort;
    }
    if advice.is_some_and(|advice| is_narrowed_away(session, &advice, port)) {
        return Reason::ConnectToOtherPort;
    }
    Reason::ConnectToPeer
}

/// Whether the client asked for `EPSV ALL`, and for no end of it that the daemon has yet to learn
/// of (rule C5).
#[inline(always)]
fn is_closed(key: &SessionKey, advice: &Advice) -> bool {
    if advice.flags & advice_flags::EPSV_ALL == 0 {
        return false;
    }
    // SAFETY: one field is read once.
    let Some(session) = (unsafe { SESSIONS.get(key) }) else {
        return true;
    };
    !session.awaits_rein(advice.client_sequence)
}

/// Whether the client announced another port, and the daemon has read everything it sent
/// (rule O10).
#[inline(always)]
fn is_narrowed_away(key: &SessionKey, advice: &Advice, port: Port) -> bool {
    // SAFETY: one field is read once.
    let Some(session) = (unsafe { SESSIONS.get(key) }) else {
        return false;
    };
    advice.active_port != Port::NONE
        && advice.active_port != port
        && advice.client_sequence == session.client_sequence
}

/// Several sessions, and the thread does not tell which: any of their clients (rules O8, P4).
#[inline(always)]
fn to_any_client(control_port: Port, address: Address, port: Port) -> Reason {
    if !is_peer(address, control_port) {
        Reason::ConnectToStranger
    } else if port.is_low() {
        Reason::ConnectToLowPort
    } else {
        Reason::ConnectToPeer
    }
}

#[inline(always)]
fn current_tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}
