//! The direction that this host receives.

use core::fmt;

use super::{Events, Segment, StreamEvent, as_sequence, distance};

/// How many bytes may wait for earlier ones. A hole before more of them is given up.
pub const AHEAD: u32 = 4096;
/// How many bytes are remembered, to compare with what comes again. Older ones that come again
/// cannot be compared and count as a contradiction: honest clients have fewer bytes of commands
/// unacknowledged.
pub const BEHIND: u32 = 4096;
/// How long a hole may stay before what follows is told without it, in nanoseconds: time for a
/// retransmission or two (RFC 6298), but a client that waits for its answer is not kept waiting.
pub const HOLE_AGE: u64 = 3_000_000_000;
/// How far from the expected sequence number a segment may lie. Beyond it, it is no part of this
/// stream: a forger guesses, or so much was lost that [`MAX_STRAY`] of them come in a row.
pub const PLAUSIBLE: u32 = 65_536;
/// How many implausible segments in a row show that bytes were lost.
pub const MAX_STRAY: u8 = 8;

const WINDOW: usize = (AHEAD + BEHIND) as usize;
const WORDS: usize = WINDOW / 64;

/// The direction that this host receives. It takes a bit more than 9 KiB and never more; keep it
/// in a box.
pub struct Received {
    state: State,
    /// The sequence number of the next byte to tell.
    pub(super) next: u32,
    /// Where FIN stands.
    end: Option<u32>,
    /// The bytes from `next - BEHIND` to `next + AHEAD`, each at its number modulo the window.
    window: [u8; WINDOW],
    /// Which of them are known.
    known: [u64; WORDS],
    /// How many known bytes wait for earlier ones.
    waiting: u32,
    /// Since when.
    waiting_since: u64,
    /// How many implausible segments came in a row.
    strays: u8,
}

const _: () = {
    assert!(WINDOW.is_power_of_two());
    assert!(size_of::<Received>() <= WINDOW + WINDOW / 8 + 64);
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing seen yet.
    New,
    /// Only the SYN was seen.
    Opened,
    Open,
    /// It ended, or contradicted itself.
    Over,
}

impl Received {
    /// Nothing seen yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: State::New,
            next: 0,
            end: None,
            window: [0; WINDOW],
            known: [0; WORDS],
            waiting: 0,
            waiting_since: 0,
            strays: 0,
        }
    }

    /// The sequence number of the first byte that was not told yet: everything before it was, or
    /// was given up.
    #[must_use]
    pub const fn next_sequence(&self) -> u32 {
        self.next
    }

    /// Takes the next captured piece. `now` is any clock that never goes back, in nanoseconds.
    pub fn segment(
        &mut self,
        segment: Segment<'_>,
        now: u64,
        events: &mut dyn FnMut(StreamEvent<'_>),
    ) {
        self.elapse(now, events);
        if self.state == State::Over || !self.place(&segment, events) {
            return;
        }
        if segment.is_empty() && !segment.fin {
            return;
        }
        self.state = State::Open;
        let waited = self.waiting > 0;
        let start = segment.payload_sequence();
        let captured_end = start.wrapping_add(as_sequence(segment.bytes.len()));
        let end = captured_end.wrapping_add(segment.missing);
        let before = self.next;
        if (segment.fin && !self.finish(end)) || !self.take(start, segment.bytes, events) {
            self.state = State::Over;
            events(StreamEvent::Contradiction);
            return;
        }
        self.miss(captured_end, end, events);
        if !waited || self.next != before {
            self.waiting_since = now;
        }
        self.close(events);
    }

    /// Lets time pass, which may give up a hole.
    pub fn elapse(&mut self, now: u64, events: &mut dyn FnMut(StreamEvent<'_>)) {
        if self.state != State::Over
            && self.waiting > 0
            && now.saturating_sub(self.waiting_since) >= HOLE_AGE
        {
            self.give_up(self.next.wrapping_add(AHEAD), events);
            self.waiting_since = now;
            self.close(events);
        }
    }

    /// Finds the segment's place in the stream; false where it has none.
    fn place(&mut self, segment: &Segment<'_>, events: Events<'_>) -> bool {
        let start = segment.payload_sequence();
        if segment.syn {
            // A later SYN belongs to another connection, or to nobody.
            if self.state == State::Open {
                return false;
            }
            self.state = State::Opened;
            self.next = start;
            return true;
        }
        if segment.is_empty() && !segment.fin {
            return false;
        }
        if self.state == State::New {
            self.next = start;
            events(StreamEvent::PickedUp);
        }
        if distance(self.next, start).unsigned_abs() <= PLAUSIBLE {
            self.strays = 0;
            return true;
        }
        self.strays += 1;
        if self.strays < MAX_STRAY {
            return false;
        }
        self.strays = 0;
        self.end = None;
        let lost = start.wrapping_sub(self.next);
        self.restart(start);
        events(StreamEvent::Gap(lost));
        true
    }

    /// FIN stands here, and nothing counts behind it; false where that cannot be.
    fn finish(&mut self, end: u32) -> bool {
        let ahead = u32::try_from(distance(self.next, end));
        let Ok(ahead) = ahead.map(|ahead| ahead.min(AHEAD)) else {
            return false;
        };
        if self.end.is_some_and(|known| known != end) {
            return false;
        }
        self.end = Some(end);
        for offset in ahead..AHEAD {
            let at = self.next.wrapping_add(offset);
            self.waiting -= u32::from(self.is_known(at));
            self.mark(at, false);
        }
        true
    }

    /// Takes bytes; false where they contradict what is known.
    fn take(&mut self, start: u32, bytes: &[u8], events: Events<'_>) -> bool {
        if is_keep_alive(self.next, start, bytes) {
            return true;
        }
        let mut at = start;
        for &byte in bytes {
            // Nothing comes after FIN.
            if self.end.is_some_and(|end| distance(end, at) >= 0) {
                break;
            }
            if distance(self.next, at) >= AHEAD.cast_signed() {
                self.deliver(events);
            }
            while distance(self.next, at) >= AHEAD.cast_signed() {
                self.give_up(at, events);
            }
            if distance(self.next.wrapping_sub(BEHIND), at) < 0 || !self.put(at, byte) {
                return false;
            }
            at = at.wrapping_add(1);
        }
        self.deliver(events);
        true
    }

    /// Bytes up to `end` were not captured. They are lost unless something earlier is due still.
    fn miss(&mut self, start: u32, end: u32, events: Events<'_>) {
        let end = match self.end {
            Some(fin) if distance(fin, end) > 0 => fin,
            _ => end,
        };
        if distance(start, self.next) >= 0 {
            while distance(self.next, end) > 0 {
                self.give_up(end, events);
            }
        }
    }

    /// Tells the bytes that are in order.
    fn deliver(&mut self, events: Events<'_>) {
        while self.is_known(self.next) {
            let from = slot(self.next);
            let mut length = 1;
            while from + length < WINDOW
                && length < AHEAD as usize
                && self.is_known(self.next.wrapping_add(as_sequence(length)))
            {
                length += 1;
            }
            let run = self.window.get(from..from + length).unwrap_or_default();
            events(StreamEvent::Bytes(run));
            self.waiting -= as_sequence(length);
            self.advance(as_sequence(length));
        }
    }

    /// Gives up the hole before the next known byte, but no more than up to `limit`; tells what
    /// follows.
    fn give_up(&mut self, limit: u32, events: Events<'_>) {
        let wanted = u32::try_from(distance(self.next, limit)).unwrap_or(0);
        let lost = (0..wanted.min(AHEAD))
            .find(|&offset| self.is_known(self.next.wrapping_add(offset)))
            .unwrap_or(wanted);
        if lost > 0 {
            self.advance(lost);
            events(StreamEvent::Gap(lost));
        }
        self.deliver(events);
    }

    fn close(&mut self, events: Events<'_>) {
        if self.end.is_some_and(|end| distance(end, self.next) >= 0) {
            self.state = State::Over;
            events(StreamEvent::End);
        }
    }

    /// Remembers one byte, which lies within the window; false where it is known with another
    /// content.
    fn put(&mut self, at: u32, byte: u8) -> bool {
        let known = self.is_known(at);
        let ahead = distance(self.next, at) >= 0;
        let Some(place) = self.window.get_mut(slot(at)) else {
            return false;
        };
        if known {
            return *place == byte;
        }
        // What was lost and comes too late is nothing to compare with: it was not told.
        if ahead {
            *place = byte;
            self.waiting += 1;
            self.mark(at, true);
        }
        true
    }

    /// Moves on. The slots of the oldest bytes become those of bytes to come.
    fn advance(&mut self, count: u32) {
        if count as usize >= WINDOW {
            return self.restart(self.next.wrapping_add(count));
        }
        for _ in 0..count {
            self.mark(self.next.wrapping_add(AHEAD), false);
            self.next = self.next.wrapping_add(1);
        }
    }

    fn restart(&mut self, next: u32) {
        self.next = next;
        self.known = [0; WORDS];
        self.waiting = 0;
    }

    fn is_known(&self, at: u32) -> bool {
        let slot = slot(at);
        let word = self.known.get(slot / 64).copied().unwrap_or(0);
        word & (1 << (slot % 64)) != 0
    }

    fn mark(&mut self, at: u32, known: bool) {
        let slot = slot(at);
        if let Some(word) = self.known.get_mut(slot / 64) {
            let bit = 1 << (slot % 64);
            *word = if known { *word | bit } else { *word & !bit };
        }
    }
}

impl Default for Received {
    fn default() -> Self {
        Self::new()
    }
}

/// Prints no text: it may be a password (rule S10).
impl fmt::Debug for Received {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Received")
            .field("state", &self.state)
            .field("next", &self.next)
            .field("end", &self.end)
            .field("waiting", &self.waiting)
            .field("strays", &self.strays)
            .finish_non_exhaustive()
    }
}

/// A keep-alive may carry one byte of garbage, at the number before the next (RFC 9293 section
/// 3.8.4). Those that do send zero; a NUL is the one byte with which hiding another one gains
/// nothing (rule S4).
fn is_keep_alive(next: u32, start: u32, bytes: &[u8]) -> bool {
    bytes == [0] && start == next.wrapping_sub(1)
}

fn slot(at: u32) -> usize {
    at as usize % WINDOW
}
