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

/// The session that the current thread read last, if that was not long ago and the session is
/// still open.
#[inline(always)]
pub(crate) fn current() -> Option<Serving> {
    // SAFETY: only this thread writes its entry.
    let serving = *unsafe { SERVING.get(current_tid()) }?;
    let age = policy().map_or(0, |policy| policy.serving_age);
    if now().saturating_sub(serving.read_at) > age {
        return None;
    }
    is_open(&serving).then_some(serving)
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
