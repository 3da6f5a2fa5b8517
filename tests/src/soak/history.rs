//! What was done to one daemon and its link, and when.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// What is done to the daemon, its settings, and the links.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// SIGKILL, and a new daemon after a while.
    Kill,
    /// The new daemon is killed at a step of its start; the one after it is not.
    KillAtStart,
    /// A step of the new daemon's start fails.
    FailAtStart,
    /// The daemon is stopped, and its hooks stay.
    StopAndKeep,
    /// The daemon does nothing for longer than it takes to be called dead.
    Hang,
    /// The new daemon has tables of another size.
    Replace,
    /// The new daemon has tables so small that a greedy client fills them.
    Crowd,
    /// The configuration changes, and the daemon is told.
    Reload,
    /// The server's link is lost for a moment.
    Flap,
    /// An interface comes and goes.
    Appear,
}

impl Deed {
    /// To a daemon that dies again and again.
    pub(super) const OFTEN_KILLED: [Self; 10] = [
        Self::Kill,
        Self::Crowd,
        Self::KillAtStart,
        Self::Flap,
        Self::Replace,
        Self::Reload,
        Self::FailAtStart,
        Self::StopAndKeep,
        Self::Appear,
        Self::Hang,
    ];
    /// To a daemon that lives on.
    pub(super) const NEVER_KILLED: [Self; 3] = [Self::Reload, Self::Flap, Self::Appear];

    /// In a few words.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Kill => "killed, started again",
            Self::KillAtStart => "killed, killed again while starting, started again",
            Self::FailAtStart => "killed, failed to start, started again",
            Self::StopAndKeep => "stopped with --on-stop keep, started again",
            Self::Hang => "hung for a while",
            Self::Replace => "killed, started with tables of another size",
            Self::Crowd => "killed, started with tables that a greedy client fills, and back",
            Self::Reload => "told of a changed configuration by SIGHUP",
            Self::Flap => "link lost for a moment",
            Self::Appear => "an interface came and went",
        }
    }

    /// Those that take seconds in which nothing else is done are done less often.
    pub(super) const fn one_turn_in(self) -> u32 {
        match self {
            // Around a lost link a lost SYN says nothing.
            Self::Flap => 2,
            Self::Hang => 3,
            Self::Crowd => 4,
            Self::Kill
            | Self::KillAtStart
            | Self::FailAtStart
            | Self::StopAndKeep
            | Self::Replace
            | Self::Reload
            | Self::Appear => 1,
        }
    }
}

/// A lost link loses what is sent in this time after it is back: Linux may wait a second until it
/// sends by it again (linkwatch).
const LINK_COMES_BACK: Duration = Duration::from_millis(1_500);
/// And what was sent just before it went, when the answer did not come through any more.
const ON_ITS_WAY: Duration = Duration::from_millis(300);
/// How many deeds are remembered.
const KEPT: usize = 64;

/// The deeds of late, each with its time.
#[derive(Debug, Default)]
pub(super) struct History(Mutex<VecDeque<Entry>>);

#[derive(Debug)]
struct Entry {
    deed: Deed,
    begun: Instant,
    ended: Option<Instant>,
}

impl History {
    pub(super) fn begin(&self, deed: Deed, now: Instant) {
        let mut entries = self.lock();
        if entries.len() == KEPT {
            entries.pop_front();
        }
        entries.push_back(Entry {
            deed,
            begun: now,
            ended: None,
        });
    }

    pub(super) fn end(&self, now: Instant) {
        if let Some(entry) = self.lock().back_mut() {
            entry.ended = Some(now);
        }
    }

    /// Whether a SYN sent at that time may have been lost because the link was.
    pub(super) fn link_was_lost(&self, sent: Instant) -> bool {
        self.lock().iter().any(|entry| {
            entry.deed == Deed::Flap
                && entry.begun <= sent + ON_ITS_WAY
                && entry
                    .ended
                    .is_none_or(|ended| sent <= ended + LINK_COMES_BACK)
        })
    }

    /// What was done since then, the latest first.
    pub(super) fn told(&self, since: Instant, now: Instant) -> String {
        let mut told = String::new();
        for entry in self.lock().iter().rev() {
            if entry.ended.is_some_and(|ended| ended < since) {
                break;
            }
            let ago = now.saturating_duration_since(entry.begun).as_secs_f64();
            let label = entry.deed.label();
            let _ = match entry.ended {
                Some(ended) => {
                    let took = ended.saturating_duration_since(entry.begun).as_secs_f64();
                    write!(told, "; {label} ({ago:.1} s ago, took {took:.1} s)")
                }
                None => write!(told, "; {label} (since {ago:.1} s)"),
            };
        }
        match told.strip_prefix("; ") {
            Some(told) => told.to_owned(),
            None => "nothing".to_owned(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lost_link_excuses_a_lost_syn() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let history = History::default();
        history.begin(Deed::Kill, at(1_000));
        history.end(at(2_000));
        assert!(!history.link_was_lost(at(1_500)), "it was not the link");
        history.begin(Deed::Flap, at(10_000));
        assert!(history.link_was_lost(at(10_100)), "it is lost now");
        history.end(at(10_200));
        assert!(history.link_was_lost(at(9_900)), "its answer was lost");
        assert!(history.link_was_lost(at(11_000)), "not quite back");
        assert!(!history.link_was_lost(at(9_000)), "long before");
        assert!(!history.link_was_lost(at(12_000)), "long after");
    }

    #[test]
    fn a_failure_is_told_with_what_was_done_before() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let history = History::default();
        assert_eq!(history.told(at(0), at(1)), "nothing");
        history.begin(Deed::Kill, at(1));
        history.end(at(2));
        history.begin(Deed::Flap, at(10));
        history.end(at(11));
        history.begin(Deed::Reload, at(12));
        let expected = "told of a changed configuration by SIGHUP (since 1.0 s); \
                        link lost for a moment (3.0 s ago, took 1.0 s)";
        assert_eq!(history.told(at(5), at(13)), expected);
    }
}
