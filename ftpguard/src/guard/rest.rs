//! How often the ring buffers are read in socket tracking, where the kernel side wakes the guard for
//! urgent events only.
//!
//! While nobody is there, they are read with each heartbeat only. The first event then wakes the
//! guard: that of a session comes before anything that its client says.

use std::time::Duration;

/// How often, while there are sessions or anything happens.
pub(super) const EVERY: Duration = Duration::from_millis(50);

/// Whether the guard rests.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// Something was read since the last look.
    stirred: bool,
    /// The kernel side knows that the next event is to wake the guard.
    announced: bool,
}

/// How it goes on after a look.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// With a look soon.
    Busy,
    /// The same, and the kernel side is to be told that the guard is about to rest: what happens
    /// before that wakes nobody.
    Announce,
    /// It rests: the next look is with the heartbeat.
    Rest,
}

impl Rest {
    /// A record was read.
    pub(super) fn stir(&mut self) {
        self.stirred = true;
    }

    /// Everything that there was is read.
    pub(super) fn looked(&mut self, has_sessions: bool) -> Next {
        let is_busy = std::mem::take(&mut self.stirred) || has_sessions;
        let was_announced = std::mem::replace(&mut self.announced, !is_busy);
        match (is_busy, was_announced) {
            (true, _) => Next::Busy,
            (false, false) => Next::Announce,
            (false, true) => Next::Rest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_alone_rests_until_something_happens() {
        let mut rest = Rest::default();
        assert_eq!(rest.looked(true), Next::Busy, "a session is open");
        assert_eq!(rest.looked(false), Next::Announce);
        assert_eq!(rest.looked(false), Next::Rest, "one more look was soon");
        assert_eq!(rest.looked(false), Next::Rest);
        rest.stir();
        assert_eq!(rest.looked(false), Next::Busy, "a session came and went");
        assert_eq!(rest.looked(false), Next::Announce, "the kernel side forgot");
        assert_eq!(rest.looked(false), Next::Rest);
        assert_eq!(rest.looked(true), Next::Busy);
    }
}
