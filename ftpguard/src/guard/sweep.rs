//! The backstop: what events should have told and did not, and what outlives its time.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hash, RandomState},
    time::{Duration, Instant},
};

use ftpguard_common::{
    abi::{Peer, SessionKey},
    verdict::Incident,
};

use super::Guard;
use crate::{
    adopt::{self, alive},
    clock,
    events::{Ending, Ends, Happening},
    kernel::{KernelError, Maps},
};

/// How long a pinhole lives at most (rule K5).
pub(super) const BACKSTOP: Duration = Duration::from_mins(15);

/// In which of how many rounds sessions are compared with the sockets that there are: every half
/// minute.
const RECONCILE_EVERY: u64 = 3;
const SECOND: Duration = Duration::from_secs(1);

/// A number that nobody outside can guess.
pub(super) fn salt() -> u32 {
    let [a, b, c, d, ..] = RandomState::new().hash_one(0).to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

/// What the last sweep saw.
#[derive(Default)]
pub(super) struct Sweep {
    /// When it was last said how many denials were not told.
    told_at: Option<Instant>,
    /// The second in the kernel's books.
    salt: u32,
    suppressed: u64,
    lost: u64,
    lost_bytes: u64,
    /// Clients whose count of control connections did not fit, with the right count.
    doubtful: HashMap<Peer, u32>,
    /// Sessions that had no socket when it was last looked, with their ids.
    missing: HashMap<SessionKey, u64>,
    /// Processes of ftpds that were gone when it was last looked, with their sessions' ids.
    gone: HashMap<u32, u64>,
    /// The memory is to be read anew from the maps once every event is read.
    reads_anew: bool,
    /// How often everything was looked over.
    rounds: u64,
}

impl Sweep {
    /// From here on; what an earlier daemon's counters hold was told by that one.
    pub(super) fn begin<E>(count: impl Fn(Incident) -> Result<u64, E>) -> Result<Self, E> {
        Ok(Self {
            suppressed: count(Incident::EventSuppressed)?,
            lost: count(Incident::EventLost)?,
            lost_bytes: count(Incident::ControlBytesLost)?,
            ..Self::default()
        })
    }
}

impl Guard {
    /// Lets the kernel side report denials one by one again. Once a second every source may be
    /// told of again, and it is said how many denials were not told.
    pub(super) fn refill(&mut self) -> Result<(), KernelError> {
        let now = Instant::now();
        let next_second = self.sweep.told_at.map_or(now, |at| at + SECOND);
        if now < next_second {
            self.refill_at = Some(next_second);
            let maps = &mut self.kernel.maps;
            return maps.refill_event_budget(super::EVENT_BUDGET, self.sweep.salt);
        }
        self.sweep.told_at = Some(now);
        self.sweep.salt = salt();
        let maps = &mut self.kernel.maps;
        maps.refill_event_budget(super::EVENT_BUDGET, self.sweep.salt)?;
        let suppressed = maps.incident(Incident::EventSuppressed)?;
        let new = suppressed.saturating_sub(self.sweep.suppressed);
        self.sweep.suppressed = suppressed;
        if new > 0 {
            // It may go on without a single event, where each source is told of enough.
            self.refill_at = Some(now + SECOND);
        }
        self.journal.tell_held_back(new);
        Ok(())
    }

    /// Looks everything over.
    pub(super) fn look_over(&mut self) -> Result<(), KernelError> {
        self.refill()?;
        self.journal.tell_lost_lines();
        self.check_losses()?;
        self.sweep.reads_anew = true;
        self.end_old_pinholes()?;
        self.sweep.rounds += 1;
        if self.sweep.rounds.is_multiple_of(RECONCILE_EVERY) {
            self.reconcile()?;
            self.forget_processes()?;
        }
        self.mend_peers()?;
        self.drop_stale_advice()?;
        self.kernel.maps.refresh_addresses()?;
        self.mend_gates()?;
        self.judge_clients()?;
        self.fill_firewall();
        let Self {
            watcher,
            journal,
            text,
            ..
        } = self;
        watcher.elapse(clock::monotonic_ns(), &mut |key, event| {
            text.hear(key, event);
            if let Some(what) = super::text::remark(&key, &event) {
                journal.tell(what);
            }
        });
        Ok(())
    }

    /// After lost events the memory is read anew, see [`Self::read_anew`].
    pub(super) fn check_losses(&mut self) -> Result<(), KernelError> {
        let lost = self.kernel.maps.incident(Incident::EventLost)?;
        if lost > self.sweep.lost {
            self.journal.tell(Happening::EventsLost {
                count: lost - self.sweep.lost,
            });
            self.sweep.lost = lost;
            self.sweep.reads_anew = true;
        }
        Ok(())
    }

    /// How many pieces of control connections were lost since this was last asked.
    pub(super) fn newly_lost_bytes(&mut self) -> Result<u64, KernelError> {
        let lost = self.kernel.maps.incident(Incident::ControlBytesLost)?;
        let before = std::mem::replace(&mut self.sweep.lost_bytes, lost);
        Ok(lost.saturating_sub(before))
    }

    /// Every event is read. Where some may have been lost, what is remembered is read anew from the
    /// maps, and what is remembered of sessions that are not there is forgotten. Not earlier: events
    /// of before would then be taken for news.
    pub(super) fn read_anew(&mut self) {
        if !std::mem::take(&mut self.sweep.reads_anew) {
            return;
        }
        self.state.reload(&self.kernel);
        let open = self.state.open_sessions();
        self.watcher.keep(&open);
        self.text.keep(&open);
        self.tell_firewall();
    }

    /// What was said about a session that closed in that moment.
    fn drop_stale_advice(&mut self) -> Result<(), KernelError> {
        let maps = &mut self.kernel.maps;
        for (key, _) in Maps::entries(&maps.advice) {
            if Maps::find(&maps.sessions, &key)?.is_none() {
                Maps::forget(&mut maps.advice, &key)?;
            }
        }
        Ok(())
    }

    /// Ends sessions whose end the kernel side did not see: those that had no socket twice in a
    /// row. One that has none once may be just opening.
    fn reconcile(&mut self) -> Result<(), KernelError> {
        let sessions = Maps::entries(&self.kernel.maps.sessions);
        if sessions.is_empty() {
            self.sweep.missing.clear();
            return Ok(());
        }
        let open = match self.reader(&self.config).open() {
            Ok(open) => open.sessions,
            Err(error) => {
                log::warn!("open sockets cannot be read, so that missed ends stay: {error}");
                return Ok(());
            }
        };
        let missing = sessions
            .into_iter()
            .filter(|(key, _)| !open.contains(key))
            .map(|(key, session)| (key, session.id));
        for (key, id) in twice(&mut self.sweep.missing, missing) {
            if adopt::apply::forget(&mut self.kernel, id, &key)? {
                self.state.session_closed(id);
                self.forget_text(&key);
                self.journal
                    .tell(Happening::SessionClosed(Ends::from(&key)));
            }
        }
        Ok(())
    }

    /// Forgets processes whose end the kernel side did not see, or saw before it was told of them:
    /// those that were gone twice in a row. Else the next process with that id would be one of the
    /// ftpd's (rule F2).
    fn forget_processes(&mut self) -> Result<(), KernelError> {
        if !alive::sees_every_process() {
            return Ok(());
        }
        let processes = &mut self.kernel.maps.processes;
        let gone = Maps::entries(processes)
            .into_iter()
            .filter(|(pid, _)| alive::is_free(*pid))
            .map(|(pid, process)| (pid, process.session_id));
        for (pid, _) in twice(&mut self.sweep.gone, gone) {
            Maps::forget(processes, &pid)?;
        }
        Ok(())
    }

    fn end_old_pinholes(&mut self) -> Result<(), KernelError> {
        let now = clock::monotonic_ns();
        for (key, pinhole) in Maps::entries(&self.kernel.maps.pinholes) {
            if is_old(pinhole.made_at, now) {
                self.close_pinhole(&key, Ending::Expired)?;
            }
        }
        Ok(())
    }

    /// A client's last session may leave while its next one comes, and this daemon writes what the
    /// kernel side adds to. A count that was wrong in the same way twice is set right; one that is
    /// wrong once may just be changing.
    fn mend_peers(&mut self) -> Result<(), KernelError> {
        let mut right: HashMap<Peer, u32> = HashMap::new();
        for (key, _) in Maps::entries(&self.kernel.maps.sessions) {
            for peer in adopt::apply::peers(&key) {
                *right.entry(peer).or_default() += 1;
            }
        }
        let mut wrong: HashMap<Peer, u32> = HashMap::new();
        let maps = &mut self.kernel.maps;
        for (peer, count) in Maps::entries(&maps.peers) {
            let expected = right.remove(&peer).unwrap_or(0);
            if expected != count {
                wrong.insert(peer, expected);
            }
        }
        // Those that hold sessions and are not counted at all.
        wrong.extend(right);
        for (peer, expected) in &wrong {
            if self.sweep.doubtful.get(peer) != Some(expected) {
                continue;
            }
            if *expected == 0 {
                Maps::forget(&mut maps.peers, peer)?;
            } else {
                // Without room it stays as it is: that was counted when the session came.
                Maps::put(&mut maps.peers, peer, expected)?;
            }
        }
        self.sweep.doubtful = wrong;
        Ok(())
    }
}

/// Whether a pinhole has outlived the backstop time (rule K5). Both in nanoseconds since the
/// machine's start; one that was made while this was looked at is not old.
fn is_old(made_at: u64, now: u64) -> bool {
    Duration::from_nanos(now.saturating_sub(made_at)) >= BACKSTOP
}

/// Of what is missing now, with ids, that which was already missing in `before`; what is missing
/// for the first time is remembered there for the next time.
fn twice<K: Copy + Eq + Hash>(
    before: &mut HashMap<K, u64>,
    missing: impl Iterator<Item = (K, u64)>,
) -> Vec<(K, u64)> {
    let (again, first): (Vec<_>, Vec<_>) =
        missing.partition(|(key, id)| before.get(key) == Some(id));
    *before = first.into_iter().collect();
    again
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k5_the_backstop_is_a_quarter_of_an_hour() {
        let second = 1_000_000_000;
        assert!(!is_old(5 * second, (5 + 899) * second));
        assert!(is_old(5 * second, (5 + 900) * second));
        assert!(!is_old(5 * second, 4 * second));
    }

    /// A close that was missed is seen in the second round; a session that just opens, or one
    /// that took an old one's four-tuple, is left alone.
    #[test]
    fn only_what_is_missing_twice_is_gone() {
        let mut before = HashMap::new();
        let gone = twice(&mut before, [(2, 20), (3, 30)].into_iter());
        assert_eq!(gone, []);
        assert_eq!(before, HashMap::from([(2, 20), (3, 30)]));
        // The third was opened anew, and closed.
        let gone = twice(&mut before, [(2, 20), (3, 31)].into_iter());
        assert_eq!(gone, [(2, 20)]);
        assert_eq!(before, HashMap::from([(3, 31)]));
        // None is missing.
        assert_eq!(twice(&mut before, std::iter::empty()), []);
        assert_eq!(before, HashMap::new());
    }
}
