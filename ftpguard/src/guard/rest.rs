//! How often the ring buffers are read in socket tracking, where the kernel side wakes the guard for
//! urgent events only.
//!
//! While nobody is there, four looks of five are left out. The first session then wakes the guard:
//! what its client says is to be read while the session is open.

use std::time::Duration;

/// While there are sessions, or anything happens.
pub(super) const EVERY: Duration = Duration::from_millis(50);
/// While nothing does.
const AT_REST: Duration = Duration::from_millis(250);

/// Whether the guard rests.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// Something was read since the last look.
    stirred: bool,
    /// The kernel side knows that the next session is to wake the guard.
    announced: bool,
}

/// When to look next, and what to do before.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Next {
    pub(super) after: Duration,
    /// The kernel side is to be told that the guard rests.
    pub(super) announce: bool,
}

impl Rest {
    /// A record was read.
    pub(super) fn stir(&mut self) {
        self.stirred = true;
    }

    /// Everything that there was is read. A session that opens before the kernel side is told
    /// wakes nobody, so there is one more look soon.
    pub(super) fn looked(&mut self, has_sessions: bool) -> Next {
        let rests = !std::mem::take(&mut self.stirred) && !has_sessions;
        let announce = rests && !self.announced;
        let after = if rests && self.announced {
            AT_REST
        } else {
            EVERY
        };
        self.announced = rests;
        Next { after, announce }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Next = Next {
        after: EVERY,
        announce: false,
    };
    const RESTS: Next = Next {
        after: EVERY,
        announce: true,
    };
    const LATER: Next = Next {
        after: AT_REST,
        announce: false,
    };

    #[test]
    fn who_is_alone_rests_until_something_happens() {
        let mut rest = Rest::default();
        assert_eq!(rest.looked(true), SOON, "a session is open");
        assert_eq!(rest.looked(false), RESTS);
        assert_eq!(rest.looked(false), LATER, "one more look was soon");
        assert_eq!(rest.looked(false), LATER);
        rest.stir();
        assert_eq!(rest.looked(false), SOON, "a session came and went");
        assert_eq!(rest.looked(false), RESTS, "the kernel side forgot");
        assert_eq!(rest.looked(false), LATER);
        assert_eq!(rest.looked(true), SOON);
    }
}
