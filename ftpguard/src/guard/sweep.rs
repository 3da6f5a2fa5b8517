//! The backstop: what events should have told and did not, and what outlives its time.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, Hash, RandomState},
    time::{Duration, Instant},
};

use ftpguard_common::{
    abi::{Endpoint, Listener, Peer, Session, SessionKey},
    net::socket_addr,
    verdict::Incident,
};

use super::Guard;
use crate::{
    adopt::{self, alive, apply::Open},
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

/// A client's count of control connections that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Miscount {
    /// How many there are.
    sessions: u32,
    /// How many are counted.
    counted: u32,
}

impl Miscount {
    /// What is missing.
    fn step(self) -> i32 {
        self.sessions
            .cast_signed()
            .wrapping_sub(self.counted.cast_signed())
    }
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
    /// Clients whose count of control connections did not fit.
    doubtful: HashMap<Peer, Miscount>,
    /// Sessions that had no socket when it was last looked, with their ids.
    missing: HashMap<SessionKey, u64>,
    /// Listeners that had no socket when it was last looked.
    closed: HashMap<Endpoint, Listener>,
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

    /// Compares what the kernel side knows with the sockets that there are.
    fn reconcile(&mut self) -> Result<(), KernelError> {
        let sessions = Maps::entries(&self.kernel.maps.sessions);
        let listeners = Maps::entries(&self.kernel.maps.listeners);
        if sessions.is_empty() && listeners.is_empty() {
            self.sweep.missing.clear();
            self.sweep.closed.clear();
            return Ok(());
        }
        let Some(open) = self.read_open() else {
            return Ok(());
        };
        self.end_sessions(sessions, &open)?;
        self.forget_closed_listeners(listeners, open)
    }

    /// Which sockets are open; `None` where that cannot be read.
    fn read_open(&self) -> Option<Open> {
        match self.reader(&self.config).open() {
            Ok(open) => Some(open),
            Err(error) => {
                log::warn!("open sockets cannot be read, so that missed ends stay: {error}");
                None
            }
        }
    }

    /// Ends sessions whose end the kernel side did not see: those that had no socket twice in a
    /// row. One that has none once may be just opening.
    fn end_sessions(
        &mut self,
        sessions: Vec<(SessionKey, Session)>,
        open: &Open,
    ) -> Result<(), KernelError> {
        let missing = sessions
            .into_iter()
            .filter(|(key, _)| !open.sessions.contains(key))
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

    /// Forgets listeners whose end the kernel side did not see, with their pinholes: those that had
    /// no socket twice in a row, and have none when it is looked for them once more. One that is
    /// forgotten and open is no longer guarded; so what cannot be seen stays.
    fn forget_closed_listeners(
        &mut self,
        listeners: Vec<(Endpoint, Listener)>,
        mut open: Open,
    ) -> Result<(), KernelError> {
        let missing = listeners
            .into_iter()
            .filter(|(endpoint, _)| !open.listeners.contains(endpoint));
        let closed = twice(&mut self.sweep.closed, missing);
        if closed.is_empty() {
            return Ok(());
        }
        let Some(again) = self.read_open() else {
            return Ok(());
        };
        open.add(again);
        let maps = &mut self.kernel.maps;
        for (endpoint, listener) in adopt::apply::forget_listeners(maps, &open, &closed)? {
            log::info!(
                "nothing listens at {}, whose end was not seen",
                socket_addr(endpoint.address, endpoint.port)
            );
            if adopt::apply::has_pinhole(&self.kernel.maps, &listener)? {
                self.close_pinhole(&listener.pinhole, Ending::Closed)?;
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

    /// A client's last session may leave on one processor while its next one comes on another, and
    /// is not counted then. A count that was wrong in the same way twice is set right; one that is
    /// wrong once may just be changing, and so may one of a client whose sessions change while
    /// counts are read.
    fn mend_peers(&mut self) -> Result<(), KernelError> {
        let maps = &self.kernel.maps;
        let before = count_sessions(Maps::entries(&maps.sessions));
        let counts = Maps::entries(&maps.peers).into_iter().collect();
        let after = count_sessions(Maps::entries(&maps.sessions));
        let wrong = miscounted(&before, &counts, &after);
        for (peer, miscount) in &wrong {
            if self.sweep.doubtful.get(peer) != Some(miscount)
                // Not if it has changed since.
                || Maps::find(&maps.peers, peer)?.unwrap_or(0) != miscount.counted
            {
                continue;
            }
            self.kernel.count_peer(peer, miscount.step())?;
        }
        self.sweep.doubtful = wrong;
        Ok(())
    }
}

/// How many control connections each client has.
fn count_sessions(sessions: Vec<(SessionKey, Session)>) -> HashMap<Peer, u32> {
    let mut count = HashMap::new();
    for (key, _) in sessions {
        for peer in adopt::apply::peers(&key) {
            *count.entry(peer).or_default() += 1;
        }
    }
    count
}

/// The counts that fit neither the sessions that there were before they were read, nor those after
/// it, where both are the same.
fn miscounted(
    before: &HashMap<Peer, u32>,
    counts: &HashMap<Peer, u32>,
    after: &HashMap<Peer, u32>,
) -> HashMap<Peer, Miscount> {
    let of = |map: &HashMap<Peer, u32>, peer| map.get(peer).copied().unwrap_or(0);
    // Those that hold sessions and are not counted at all, too.
    let all = counts.keys().chain(after.keys());
    all.filter_map(|peer| {
        let (sessions, counted) = (of(after, peer), of(counts, peer));
        let miscount = Miscount { sessions, counted };
        (of(before, peer) == sessions && sessions != counted).then_some((*peer, miscount))
    })
    .collect()
}

/// Whether a pinhole has outlived the backstop time (rule K5). Both in nanoseconds since the
/// machine's start; one that was made while this was looked at is not old.
fn is_old(made_at: u64, now: u64) -> bool {
    Duration::from_nanos(now.saturating_sub(made_at)) >= BACKSTOP
}

/// Of what is missing now, with what tells it from others, that which was already missing in
/// `before`; what is missing for the first time is remembered there for the next time.
fn twice<K: Copy + Eq + Hash, V: Eq>(
    before: &mut HashMap<K, V>,
    missing: impl Iterator<Item = (K, V)>,
) -> Vec<(K, V)> {
    let (again, first): (Vec<_>, Vec<_>) =
        missing.partition(|(key, is)| before.get(key) == Some(is));
    *before = first.into_iter().collect();
    again
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use bytemuck::Zeroable as _;
    use ftpguard_common::net::Port;

    use super::*;

    fn counts(of: &[(u8, u32)]) -> HashMap<Peer, u32> {
        of.iter()
            .map(|(client, count)| (peer(*client), *count))
            .collect()
    }

    fn peer(client: u8) -> Peer {
        Peer::of_any(Ipv4Addr::new(10, 0, 0, client).into())
    }

    /// K9: a client's sessions come and go while they are counted. Only a count that fits neither
    /// what was before nor what is after is wrong.
    #[test]
    fn k9_a_count_that_is_just_changing_is_not_wrong() {
        let none = HashMap::new();
        let wrong = |before: &[_], counted: &[_], after: &[_]| {
            miscounted(&counts(before), &counts(counted), &counts(after))
        };
        // One came between the sessions and the counts, and one went.
        assert_eq!(wrong(&[(2, 1)], &[(2, 2)], &[(2, 2)]), none);
        assert_eq!(wrong(&[(2, 2)], &[(2, 1)], &[(2, 1)]), none);
        assert_eq!(wrong(&[(2, 1)], &[], &[]), none);
        assert_eq!(wrong(&[], &[(2, 1)], &[(2, 1)]), none);
        // One came after the counts.
        assert_eq!(wrong(&[(2, 1)], &[(2, 1)], &[(2, 2)]), none);
        // Whatever is counted, it changed meanwhile.
        assert_eq!(wrong(&[(2, 1)], &[(2, 7)], &[(2, 3)]), none);
        assert_eq!(wrong(&[], &[], &[]), none);
    }

    #[test]
    fn k9_a_wrong_count_is_remembered_as_it_is() {
        let sessions = counts(&[(2, 2), (3, 1), (4, 1)]);
        let counted = counts(&[(2, 1), (4, 1), (5, 3)]);
        let wrong = miscounted(&sessions, &counted, &sessions);
        let miscount = |sessions, counted| Miscount { sessions, counted };
        let expected = [
            (peer(2), miscount(2, 1)),
            // Not counted at all.
            (peer(3), miscount(1, 0)),
            // Gone.
            (peer(5), miscount(0, 3)),
        ];
        assert_eq!(wrong, HashMap::from(expected));
        // Another wrong count in the next round is another one.
        let counted = counts(&[(2, 3), (3, 1), (4, 1)]);
        let next = miscounted(&sessions, &counted, &sessions);
        assert_ne!(wrong.get(&peer(2)), next.get(&peer(2)));
    }

    #[test]
    fn k9_a_session_counts_for_its_ftpd_and_for_all() {
        let key = SessionKey {
            client: Ipv4Addr::new(10, 0, 0, 2).into(),
            server_port: Port::new(21),
            ..SessionKey::NONE
        };
        let open = Session::zeroed();
        let count = count_sessions(vec![(key, open), (key, open)]);
        assert_eq!(count, HashMap::from([(key.peer(), 2), (peer(2), 2)]));
    }

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
