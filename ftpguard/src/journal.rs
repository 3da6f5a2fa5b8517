//! Where events go: standard output, the latest kept in memory, and whoever follows them over
//! the control socket.

mod allowance;
mod kept;

use std::{io, sync::Arc, time::Instant};

use tokio::sync::broadcast;

use self::{
    allowance::{Denials, Others},
    kept::Kept,
};
use crate::{
    clock,
    events::{Happening, Record},
    output::Output,
    why::memory::{Around, Memory},
};

/// How many events may wait for one follower.
const FOLLOWER_QUEUE: usize = 1_024;

/// The events of this guard.
pub struct Journal {
    output: Output,
    /// How many lines that standard output did not take have been told.
    lost_told: u64,
    kept: Kept,
    followers: broadcast::Sender<Arc<Record>>,
    denials: Denials,
    others: Others,
    /// What is remembered of denials, also of those that are not told one by one here.
    pub memory: Memory,
}

impl Journal {
    /// A journal that writes to standard output, as JSON or for people.
    pub fn start(json: bool) -> io::Result<Self> {
        Ok(Self {
            output: Output::start(json)?,
            lost_told: 0,
            kept: Kept::default(),
            followers: broadcast::channel(FOLLOWER_QUEUE).0,
            denials: Denials::new(),
            others: Others::new(),
            memory: Memory::default(),
        })
    }

    /// Tells of something that happened just now.
    pub fn tell(&mut self, what: Happening) {
        self.tell_at(0, what);
    }

    /// Tells of something that happened at `stamp`, nanoseconds of `CLOCK_MONOTONIC`; 0 for now.
    pub fn tell_at(&mut self, stamp: u64, what: Happening) {
        if matches!(what, Happening::ForeignPortRequest { .. }) {
            // It explains the connect() that may follow.
            self.remember(stamp, &what, &Around::default());
        }
        let now = Instant::now();
        let is_told = match what.attack() {
            Some((attack, source)) => self.denials.take(attack, source, now),
            None => self.others.take(what.speaker(), now),
        };
        if is_told {
            self.publish(stamp, what);
        }
    }

    /// Remembers a denial that happened at `stamp`.
    pub fn remember(&mut self, stamp: u64, what: &Happening, around: &Around) {
        self.memory.note(clock::wall_ms_at(stamp), what, around);
    }

    /// Tells how many denials were counted but not told: those the kernel side held back since
    /// the last call, and those held back here; and how many other events.
    pub fn tell_held_back(&mut self, by_kernel: u64) {
        let count = by_kernel + self.denials.held_back();
        if count > 0 {
            self.publish(0, Happening::DenialsNotTold { count });
        }
        let count = self.others.held_back();
        if count > 0 {
            self.publish(0, Happening::EventsNotTold { count });
        }
    }

    /// Writes one line that is no event: `ready: ...`, `totals: ...`.
    pub fn line(&mut self, line: String) {
        self.output.line(line);
    }

    /// The latest denials and the latest other events, oldest first.
    #[must_use]
    pub fn kept(&self) -> Vec<Record> {
        self.kept.all()
    }

    /// Every event from now on.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<Arc<Record>> {
        self.followers.subscribe()
    }

    /// Logs how many lines standard output did not take since the last call, if there are any.
    pub fn tell_lost_lines(&mut self) {
        let lost = self.output.dropped();
        let new = lost - self.lost_told;
        if new > 0 {
            log::warn!("{new} lines were not taken by standard output, {lost} since the start");
            self.lost_told = lost;
        }
    }

    /// Waits for the last lines to be written.
    pub fn finish(self) {
        self.output.finish();
    }

    fn publish(&mut self, stamp: u64, what: Happening) {
        let record = Record {
            time: clock::wall_ms_at(stamp),
            what,
        };
        self.output.event(&record);
        self.kept.add(record.clone());
        if self.followers.receiver_count() > 0 {
            // Fails only when the last follower has just gone.
            let _ = self.followers.send(Arc::new(record));
        }
    }
}
