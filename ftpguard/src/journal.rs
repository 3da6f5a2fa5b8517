//! Where events go: standard output, the latest kept in memory, and whoever follows them over
//! the control socket.

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::broadcast;

use crate::{
    clock,
    events::{Happening, Record},
    output::Output,
    why::memory::{Around, Memory},
};

/// How many of the latest events are kept.
const KEPT: usize = 256;

/// How many events may wait for one follower.
const FOLLOWER_QUEUE: usize = 1_024;

/// How many denials are told at once, and how many a second in the long run. Anyone on the
/// network can cause denials; the rest is counted and told as a number.
const DENIALS: Allowance = Allowance {
    burst: 200,
    per_second: 50,
};

/// The same for everything else, which takes an established control connection to cause.
const OTHERS: Allowance = Allowance {
    burst: 4_000,
    per_second: 1_000,
};

/// The events of this guard.
pub struct Journal {
    output: Output,
    kept: VecDeque<Record>,
    followers: broadcast::Sender<Arc<Record>>,
    denials: Bucket,
    others: Bucket,
    /// What is remembered of denials, also of those that are not told one by one here.
    pub memory: Memory,
}

impl Journal {
    /// A journal that writes to standard output, as JSON or for people.
    pub fn start(json: bool) -> io::Result<Self> {
        Ok(Self {
            output: Output::start(json)?,
            kept: VecDeque::with_capacity(KEPT),
            followers: broadcast::channel(FOLLOWER_QUEUE).0,
            denials: Bucket::new(DENIALS),
            others: Bucket::new(OTHERS),
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
        let bucket = if what.is_denial() {
            &mut self.denials
        } else {
            &mut self.others
        };
        if bucket.take(Instant::now()) {
            self.publish(stamp, what);
        }
    }

    /// Remembers a denial that happened at `stamp`.
    pub fn remember(&mut self, stamp: u64, what: &Happening, around: &Around) {
        self.memory.note(clock::wall_ms_at(stamp), what, around);
    }

    /// Tells how many denials were counted but not told: those the kernel side held back since
    /// the last call, and those held back here.
    pub fn tell_held_back(&mut self, by_kernel: u64) {
        let count = by_kernel + self.denials.held_back();
        if count > 0 {
            self.publish(0, Happening::DenialsNotTold { count });
        }
        let lost = self.others.held_back();
        if lost > 0 {
            self.publish(0, Happening::EventsLost { count: lost });
        }
    }

    /// Whether denials were held back here since the last [`Self::tell_held_back`].
    #[must_use]
    pub const fn holds_back(&self) -> bool {
        self.denials.held_back > 0 || self.others.held_back > 0
    }

    /// Writes one line that is no event: `ready: ...`, `totals: ...`.
    pub fn line(&mut self, line: String) {
        self.output.line(line);
    }

    /// The latest events, oldest first.
    #[must_use]
    pub fn kept(&self) -> Vec<Record> {
        self.kept.iter().cloned().collect()
    }

    /// Every event from now on.
    #[must_use]
    pub fn follow(&self) -> broadcast::Receiver<Arc<Record>> {
        self.followers.subscribe()
    }

    /// How many lines standard output did not take.
    #[must_use]
    pub const fn dropped_lines(&self) -> u64 {
        self.output.dropped()
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
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(record.clone());
        if self.followers.receiver_count() > 0 {
            // Fails only when the last follower has just gone.
            let _ = self.followers.send(Arc::new(record));
        }
    }
}

#[derive(Clone, Copy)]
struct Allowance {
    burst: u32,
    per_second: u32,
}

/// A token bucket.
struct Bucket {
    allowance: Allowance,
    tokens: f64,
    filled: Instant,
    held_back: u64,
}

impl Bucket {
    fn new(allowance: Allowance) -> Self {
        Self {
            allowance,
            tokens: f64::from(allowance.burst),
            filled: Instant::now(),
            held_back: 0,
        }
    }

    /// Whether one more may be told; one that may not is counted.
    fn take(&mut self, now: Instant) -> bool {
        let since: Duration = now.saturating_duration_since(self.filled);
        self.filled = now;
        self.tokens = (self.tokens + since.as_secs_f64() * f64::from(self.allowance.per_second))
            .min(f64::from(self.allowance.burst));
        if self.tokens < 1.0 {
            self.held_back += 1;
            return false;
        }
        self.tokens -= 1.0;
        true
    }

    fn held_back(&mut self) -> u64 {
        std::mem::take(&mut self.held_back)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_tells_a_burst_then_a_trickle_and_counts_the_rest() {
        let mut bucket = Bucket::new(Allowance {
            burst: 3,
            per_second: 2,
        });
        let start = bucket.filled;
        let told = |bucket: &mut Bucket, after| {
            (0..10)
                .filter(|_| bucket.take(start + Duration::from_millis(after)))
                .count()
        };
        assert_eq!(told(&mut bucket, 0), 3);
        assert_eq!(bucket.held_back(), 7);
        assert_eq!(told(&mut bucket, 1_000), 2);
        assert_eq!(told(&mut bucket, 1_000), 0);
        // A long pause saves up no more than the burst.
        assert_eq!(told(&mut bucket, 3_600_000), 3);
        assert_eq!(bucket.held_back(), 8 + 10 + 7);
        assert_eq!(bucket.held_back(), 0);
    }
}
