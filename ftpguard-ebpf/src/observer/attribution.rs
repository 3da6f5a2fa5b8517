//! Whose listener is it? (rules F2, F3, P4)

use ftpguard_common::abi::{Origin, Process, SessionKey, port_word, process_flags};

use super::serving;
use crate::{maps::SESSIONS, report::word_of};

/// The session a listener was opened for, and how surely that is known.
pub(crate) struct Attribution {
    pub session: SessionKey,
    pub session_id: u64,
    pub origin: Origin,
}

/// Names the session that the current thread of this process opens a listener for. `None` where
/// it cannot be named.
#[inline(always)]
pub(crate) fn attribute(process: &Process) -> Option<Attribution> {
    if process.flags & process_flags::UNSAFE != 0 || may_serve_unseen(process) {
        return None;
    }
    if process.flags & process_flags::SHARED != 0 {
        let serving = serving::current()?;
        return Some(Attribution {
            session: serving.session,
            session_id: serving.session_id,
            origin: Origin::Candidate,
        });
    }
    if process.session_id == 0 {
        return None;
    }
    // SAFETY: one field is read once.
    let open = unsafe { SESSIONS.get(&process.session) }?;
    (open.id == process.session_id).then_some(Attribution {
        session: process.session,
        session_id: process.session_id,
        origin: Origin::Exact,
    })
}

/// Whether this process may serve clients over Multipath TCP, which it is not seen to read.
#[inline(always)]
pub(crate) fn may_serve_unseen(process: &Process) -> bool {
    word_of(process.control_port) & port_word::MULTIPATH != 0 && !process.is_of_one_session()
}
