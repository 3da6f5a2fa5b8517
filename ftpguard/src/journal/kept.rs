//! The latest events. Denials have a room of their own, so that no talk displaces them.

use std::collections::VecDeque;

use crate::events::Record;

/// How many of the latest denials are kept, and how many of the latest other events.
const KEPT: usize = 256;

/// The latest events, numbered in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Kept {
    denials: VecDeque<(u64, Record)>,
    others: VecDeque<(u64, Record)>,
    next: u64,
}

impl Kept {
    /// Keeps one more; the oldest of its kind goes.
    pub(super) fn add(&mut self, record: Record) {
        let room = if record.what.attack().is_some() {
            &mut self.denials
        } else {
            &mut self.others
        };
        if room.len() == KEPT {
            room.pop_front();
        }
        room.push_back((self.next, record));
        self.next += 1;
    }

    /// All of them, oldest first.
    pub(super) fn all(&self) -> Vec<Record> {
        let mut all: Vec<_> = self.denials.iter().chain(&self.others).collect();
        all.sort_unstable_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, record)| record.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{Happening, Way};

    /// I6: a thief cannot hide behind talk.
    #[test]
    fn other_events_displace_no_denial() {
        let mut kept = Kept::default();
        let record = |what| Record { time: 0, what };
        let events = |count| record(Happening::EventsLost { count });
        kept.add(events(1));
        kept.add(record(Happening::SynDenied {
            way: Way {
                client: [192, 0, 2, 9].into(),
                server: [192, 0, 2, 1].into(),
                port: 50_000,
            },
            client_port: 4_711,
            reason: "no-pinhole".into(),
            attack: "theft-attempt".into(),
            mode: "enforce".into(),
            open_for: Vec::new(),
        }));
        for count in 2..1_000 {
            kept.add(events(count));
        }
        let all = kept.all();
        assert_eq!(all.len(), KEPT + 1);
        assert!(all[0].what.attack().is_some());
        assert_eq!(all.last(), Some(&events(999)));
    }
}
