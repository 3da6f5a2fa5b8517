//! Processes of an ftpd that the kernel side could not know: a service manager started them
//! (rule F2).
//!
//! Anybody who may listen on a port of the range can ask for a look, as often as he likes, and a
//! look reads /proc. So those that ask wait for the next look, which is for all of them, and between
//! two looks everything else has its time.

use std::time::{Duration, Instant};

use ftpguard_common::{
    abi::{Endpoint, Origin},
    event::{Event, EventKind},
};

use super::Guard;
use crate::{
    adopt::latecomers::{Sockets, Stranger, adopt_ancestors, look_again},
    events::Happening,
    kernel::Maps,
    state,
};

/// How many may wait for a look.
const MOST: usize = 256;
/// How long a look lasts at most, and the one that it has begun. What it does not come to waits for
/// the next: whoever asks may hold hundreds of thousands of files, all of which are looked at.
const LONGEST: Duration = Duration::from_millis(100);
/// How long after a look the next one comes at the earliest.
const PAUSE: Duration = Duration::from_millis(20);
/// The same, in times that the look took.
const SHARE: u32 = 10;

/// Who waits for a look at /proc.
#[derive(Default)]
pub(super) struct Latecomers {
    waiting: Vec<Event>,
    /// When the latest look allows the next one.
    next: Option<Instant>,
}

impl Latecomers {
    /// The process of this event is looked at soon. False where too many wait.
    pub(super) fn wait(&mut self, event: &Event) -> bool {
        // First: whoever fills this up asks far more often.
        if self.waiting.len() >= MOST {
            return false;
        }
        let same = |other: &Event| {
            Event {
                at: event.at,
                ..*other
            } == *event
        };
        if !self.waiting.iter().any(same) {
            self.waiting.push(*event);
        }
        true
    }

    /// When there is something to be looked at.
    pub(super) fn look_at(&self, now: Instant) -> Option<Instant> {
        (!self.waiting.is_empty()).then(|| self.next.unwrap_or(now))
    }

    /// Who is looked at now.
    fn take(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.waiting)
    }

    /// These were not looked at after all, and come first the next time.
    fn put_back(&mut self, events: impl Iterator<Item = Event>) {
        self.waiting.splice(..0, events);
    }

    /// A look took that long.
    fn looked(&mut self, now: Instant, took: Duration) {
        self.next = Some(now + PAUSE.max(took * SHARE));
    }
}

impl Guard {
    /// Looks at those who wait.
    pub(super) fn look_at_latecomers(&mut self) {
        let begun = Instant::now();
        let mut sockets = Sockets::default();
        let mut waiting = self.latecomers.take().into_iter();
        while begun.elapsed() < LONGEST
            && let Some(event) = waiting.next()
        {
            let Some(what) = Happening::from_event(&event) else {
                continue;
            };
            if let Happening::ReaderFound { pid, .. } = what {
                self.adopt_ancestors(&mut sockets, pid, &event);
            } else if let Happening::ForeignListener { pid, .. }
            | Happening::Unattributed { pid, .. } = what
                && self.is_foreign(&mut sockets, pid, &event)
            {
                self.journal.tell_at(event.at, what);
            }
        }
        self.latecomers.put_back(waiting);
        let now = Instant::now();
        self.latecomers.looked(now, now - begun);
        self.tell_firewall();
    }

    /// A process without known ancestors reads a control connection.
    fn adopt_ancestors(&mut self, sockets: &mut Sockets, pid: u32, event: &Event) {
        let session = state::session_key(event);
        match adopt_ancestors(&mut self.kernel, sockets, pid, &session, event.session) {
            Ok(added) => log::debug!("process {pid}: {added} ancestors adopted"),
            Err(error) => log::error!("process {pid}: {error}"),
        }
    }

    /// Whether a listener stays what the kernel side, which did not know its process, took it for.
    fn is_foreign(&mut self, sockets: &mut Sockets, pid: u32, event: &Event) -> bool {
        let endpoint = Endpoint::new(event.local, event.local_port);
        let uses = u32::from(self.config.uses);
        match look_again(&mut self.kernel, sockets, &endpoint, pid, uses) {
            Ok(Stranger::Foreign) => true,
            Ok(Stranger::Elsewhere) => false,
            Ok(Stranger::Ours(None)) => event.kind == EventKind::Unattributed as u32,
            Ok(Stranger::Ours(Some(pinhole))) => {
                // It may be used already.
                if let Ok(Some(made)) = Maps::find(&self.kernel.maps.pinholes, &pinhole) {
                    self.state.pinhole_made(&pinhole, &made);
                }
                self.journal.tell(Happening::PinholeMade {
                    way: super::text::way(&pinhole),
                    origin: Origin::Adopted.label().into(),
                });
                false
            }
            Err(error) => {
                log::error!("process {pid}: {error}");
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;
    use ftpguard_common::net::Port;

    use super::*;

    fn listens(port: u16, at: u64) -> Event {
        Event {
            kind: EventKind::ForeignListener as u32,
            tgid: 7,
            local_port: Port::new(port),
            at,
            ..Event::zeroed()
        }
    }

    #[test]
    fn a_loop_of_listens_is_one_look() {
        let now = Instant::now();
        let mut late = Latecomers::default();
        assert_eq!(late.look_at(now), None);
        for at in 0..10_000 {
            assert!(late.wait(&listens(50_000, at)));
        }
        assert_eq!(late.look_at(now), Some(now), "the first one at once");
        assert_eq!(late.take().len(), 1);
        late.looked(now, Duration::from_millis(50));
        assert_eq!(late.look_at(now), None);
        assert!(late.wait(&listens(50_000, 0)));
        let next = late.look_at(now).expect("one waits");
        assert_eq!(next - now, Duration::from_millis(500));
    }

    #[test]
    fn what_a_look_did_not_come_to_is_first_in_the_next() {
        let now = Instant::now();
        let mut late = Latecomers::default();
        for port in [1, 2, 3] {
            assert!(late.wait(&listens(port, 0)));
        }
        let mut waiting = late.take().into_iter();
        waiting.next();
        late.put_back(waiting);
        late.looked(now, LONGEST);
        assert_eq!(late.look_at(now), Some(now + LONGEST * SHARE));
        assert!(late.wait(&listens(4, 0)));
        let ports: Vec<u16> = (late.take().iter())
            .map(|event| event.local_port.number())
            .collect();
        assert_eq!(ports, [2, 3, 4]);
    }

    #[test]
    fn only_so_many_wait() {
        let mut late = Latecomers::default();
        let took = (1..2_000).filter(|port| late.wait(&listens(*port, 0)));
        assert_eq!(took.count(), MOST);
    }
}
