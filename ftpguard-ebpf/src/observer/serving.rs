//! What each thread of a shared process read last.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use ftpguard_common::abi::{Serving, SessionKey};

use crate::{
    maps::{SERVING, SESSIONS},
    report::{now, policy},
};

/// Remembers that the current thread just read this session. Returns whether it has read
/// several sessions that were open at once.
#[inline(always)]
pub(crate) fn remember(session: &SessionKey, id: u64) -> bool {
    let tid = current_tid();
    // SAFETY: only this thread writes its entry.
    let several = match unsafe { SERVING.get(tid) } {
        Some(former) if former.several != 0 => 1,
        Some(former) if former.session_id != id => u32::from(is_open(former)),
        Some(_) | None => 0,
    };
    let serving = Serving {
        session_id: id,
        read_at: now(),
        session: *session,
        several,
    };
    // An LRU map always has room.
    let _ = SERVING.insert(tid, serving, 0);
    several != 0
}

/// Remembers that the current thread just read a session that is not tracked.
#[inline(always)]
pub(crate) fn turn_away() {
    let tid = current_tid();
    // SAFETY: only this thread writes its entry.
    let several = unsafe { SERVING.get(tid) }.map_or(0, |former| former.several);
    let nobody = Serving {
        session_id: 0,
        read_at: now(),
        session: SessionKey::NONE,
        several,
    };
    // An LRU map always has room.
    let _ = SERVING.insert(tid, nobody, 0);
}

/// Whether what the current thread read last, and not long ago, is not tracked.
#[inline(always)]
pub(crate) fn is_turned_away() -> bool {
    // SAFETY: only this thread writes its entry.
    unsafe { SERVING.get(current_tid()) }
        .is_some_and(|serving| serving.session_id == 0 && is_fresh(serving))
}

/// Whether the current thread has read a control connection at all.
#[inline(always)]
pub(crate) fn has_read() -> bool {
    // SAFETY: the value is not read.
    unsafe { SERVING.get(current_tid()) }.is_some()
}

/// Whether this was read not long ago (rule F3).
#[inline(always)]
fn is_fresh(serving: &Serving) -> bool {
    let age = policy().map_or(0, |policy| policy.serving_age);
    now().saturating_sub(serving.read_at) <= age
}

/// The session that the current thread read last, if that was not long ago and the session is
/// still open.
#[inline(always)]
pub(crate) fn current() -> Option<Serving> {
    // SAFETY: only this thread writes its entry.
    let serving = *unsafe { SERVING.get(current_tid()) }?;
    (is_fresh(&serving) && is_open(&serving)).then_some(serving)
}

/// Forgets the current thread.
#[inline(always)]
pub(crate) fn forget() {
    // Not there: as good as forgotten.
    let _ = SERVING.remove(current_tid());
}

#[inline(always)]
fn is_open(serving: &Serving) -> bool {
    // SAFETY: one field is read once.
    unsafe { SESSIONS.get(&serving.session) }.is_some_and(|open| open.id == serving.session_id)
}

#[inline(always)]
fn current_tid() -> u32 {
    bpf_get_current_pid_tgid() as u32
}
