//! The direction that this host receives.

use core::fmt;

use super::{Events, Segment, StreamEvent, as_sequence, distance};
use crate::ftp::line::COMMAND_LIMIT;

/// How many bytes may wait for the host's acknowledgment: more than the longest line (rule S6).
/// What a client sends beyond them is a gap, once it is acknowledged.
pub const AHEAD: u32 = 4096 + 64;
/// How many acknowledged bytes are remembered, to compare with what comes again. Older ones need
/// no comparing: the host has taken them, and takes nothing else in their place.
pub const BEHIND: u32 = 448;

const WINDOW: usize = (AHEAD + BEHIND) as usize;
const WORDS: usize = WINDOW / 64;

/// The direction that this host receives. It takes a bit more than 5 KiB and never more; keep it
/// in a box.
///
/// Bytes wait until the host has [accepted](Self::accept) them. What it never accepts (a bad
/// checksum, a stale timestamp, a number out of its window) is never told. Where two copies of a
/// byte came before it was accepted and they differ, nobody knows which one the host took: then
/// the connection contradicts itself (rule S2).
pub struct Received {
    state: State,
    /// The sequence number of the next byte to tell. Once it is open, what the host expects next.
    pub(super) next: u32,
    /// After the furthest byte that came.
    furthest: u32,
    /// Where the earliest FIN stands that is not accepted yet.
    end: Option<u32>,
    /// The earliest byte that came with different content and is not accepted yet.
    disputed: Option<u32>,
    /// First and last but one of the bytes that came but could not be kept: another copy of them
    /// must not be taken for the only one.
    unkept: Option<(u32, u32)>,
    /// The slot of `next`.
    origin: usize,
    /// The bytes from `next - BEHIND` to `next + AHEAD`, in a ring.
    window: [u8; WINDOW],
    /// Which of them are known.
    known: [u64; WORDS],
}

const _: () = {
    assert!(AHEAD as usize > COMMAND_LIMIT);
    assert!(WINDOW.is_multiple_of(64));
    assert!(size_of::<Received>() <= WINDOW + WINDOW / 8 + 64);
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing seen yet.
    New,
    /// Something came; where the host stands is not known.
    Floating,
    /// Where the host stands is known.
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
            furthest: 0,
            end: None,
            disputed: None,
            unkept: None,
            origin: 0,
            window: [0; WINDOW],
            known: [0; WORDS],
        }
    }

    /// Takes the next captured piece. Its bytes are told once they are accepted.
    pub fn segment(&mut self, segment: Segment<'_>, events: &mut dyn FnMut(StreamEvent<'_>)) {
        if self.state == State::Over || !self.place(&segment) {
            return;
        }
        let start = segment.payload_sequence();
        let captured_end = start.wrapping_add(as_sequence(segment.bytes.len()));
        let end = captured_end.wrapping_add(segment.missing);
        if !self.take(start, segment.bytes) {
            self.state = State::Over;
            events(StreamEvent::Contradiction);
            return;
        }
        self.leave_out(captured_end, end);
        if distance(self.furthest, end) > 0 {
            self.furthest = end;
        }
        // One before what is accepted already was none.
        if segment.fin && distance(self.next, end) >= 0 {
            self.end = Some(earliest(self.end, end));
        }
    }

    /// The host has accepted everything before this sequence number: it said so in the
    /// acknowledgment number of a segment that it sent.
    pub fn accept(&mut self, acknowledgment: u32, events: &mut dyn FnMut(StreamEvent<'_>)) {
        match self.state {
            State::Over => return,
            State::Open => {}
            State::New => {
                self.next = acknowledgment;
                self.furthest = acknowledgment;
                self.state = State::Open;
                events(StreamEvent::PickedUp);
            }
            State::Floating => {
                if distance(self.next, acknowledgment) < 0 {
                    self.step_back(acknowledgment);
                }
                events(StreamEvent::PickedUp);
                // The host may have left out the beginning of what came.
                self.state = State::Open;
                let floated = distance(self.next, acknowledgment) > 0;
                self.tell_before(acknowledgment, events);
                if floated && self.state == State::Open {
                    events(StreamEvent::Gap(0));
                }
            }
        }
        self.tell_before(acknowledgment, events);
    }

    /// Tells everything before this number, as long as nothing is over.
    fn tell_before(&mut self, acknowledgment: u32, events: Events<'_>) {
        if self.state != State::Open {
            return;
        }
        while distance(self.next, acknowledgment) > 0 {
            if self.disputed == Some(self.next) {
                self.state = State::Over;
                return events(StreamEvent::Contradiction);
            }
            if self.end == Some(self.next) {
                self.state = State::Over;
                // FIN takes one number. If a byte came with it too, or more is accepted, it was
                // another copy that counted.
                let last = acknowledgment == self.next.wrapping_add(1);
                return events(if last && !self.is_known(self.next) {
                    StreamEvent::End
                } else {
                    StreamEvent::Contradiction
                });
            }
            self.tell(acknowledgment, events);
        }
        if distance(self.furthest, self.next) > 0 {
            self.furthest = self.next;
        }
        self.unkept = self.unkept.filter(|&(_, end)| distance(self.next, end) > 0);
    }

    /// The sequence number after the last byte that was told.
    #[must_use]
    pub const fn accepted(&self) -> u32 {
        self.next
    }

    /// The bytes that came and are not accepted yet; `None` where it is not known what they are.
    #[must_use]
    pub fn waiting(&self) -> Option<impl Iterator<Item = u8> + '_> {
        let length = u32::try_from(distance(self.next, self.furthest)).unwrap_or(0);
        let numbers = move || (0..length).map(move |offset| self.next.wrapping_add(offset));
        let clear = self.disputed.is_none()
            && self.unkept.is_none()
            && self.state != State::Over
            && numbers().all(|at| self.is_known(at));
        clear.then(|| numbers().filter_map(|at| self.window.get(self.slot(at)?).copied()))
    }

    /// Finds the segment's place in the stream; false where it brings nothing.
    fn place(&mut self, segment: &Segment<'_>) -> bool {
        let start = segment.payload_sequence();
        if segment.syn {
            // A later SYN belongs to another connection, or to nobody.
            if self.state != State::New {
                return false;
            }
            self.state = State::Open;
            self.next = start;
            self.furthest = start;
        }
        if segment.is_empty() && !segment.fin {
            return false;
        }
        if self.state == State::New {
            self.state = State::Floating;
            self.next = start;
            self.furthest = start;
        }
        if self.state == State::Floating && distance(self.next, start) < 0 {
            self.step_back(start);
        }
        true
    }

    /// Takes bytes; false where they contradict accepted ones.
    fn take(&mut self, start: u32, bytes: &[u8]) -> bool {
        if is_keep_alive(self.next, start, bytes) {
            return true;
        }
        let mut at = start;
        for &byte in bytes {
            let Some(slot) = self.slot(at) else {
                if distance(self.next, at) > 0 {
                    let end = start.wrapping_add(as_sequence(bytes.len()));
                    self.leave_out(at, end);
                    break;
                }
                at = at.wrapping_add(1);
                continue;
            };
            let accepted = distance(self.next, at) < 0;
            if self.is_known(at) {
                if self.window.get(slot) != Some(&byte) {
                    if accepted {
                        return false;
                    }
                    self.disputed = Some(earliest(self.disputed, at));
                }
            } else if !accepted && !self.is_unkept(at) {
                if let Some(place) = self.window.get_mut(slot) {
                    *place = byte;
                }
                self.mark(slot, true);
            }
            at = at.wrapping_add(1);
        }
        true
    }

    /// These bytes came but are not kept. What is known of them from another copy is in dispute.
    fn leave_out(&mut self, from: u32, to: u32) {
        let from = if distance(self.next, from) < 0 {
            self.next
        } else {
            from
        };
        let Ok(length @ 1..) = u32::try_from(distance(from, to)) else {
            return;
        };
        let known = (0..length.min(AHEAD)).find(|&offset| self.is_known(from.wrapping_add(offset)));
        if let Some(offset) = known {
            self.disputed = Some(earliest(self.disputed, from.wrapping_add(offset)));
        }
        self.unkept = Some(match self.unkept {
            None => (from, to),
            Some((first, last)) => (earliest(Some(first), from), super::furthest(last, to)),
        });
    }

    fn is_unkept(&self, at: u32) -> bool {
        self.unkept
            .is_some_and(|(from, to)| distance(from, at) >= 0 && distance(at, to) > 0)
    }

    /// Tells the next bytes, or that they were lost; at least one, at most up to `limit`, and
    /// nothing behind what needs a look first.
    fn tell(&mut self, limit: u32, events: Events<'_>) {
        let mut wanted = limit.wrapping_sub(self.next);
        for stop in [self.disputed, self.end].into_iter().flatten() {
            if let Ok(ahead) = u32::try_from(distance(self.next, stop)) {
                wanted = wanted.min(ahead);
            }
        }
        let known = self.is_known(self.next);
        let alike = (0..wanted.min(AHEAD))
            .find(|&offset| self.is_known(self.next.wrapping_add(offset)) != known);
        if known {
            let room = as_sequence(WINDOW - self.origin);
            let length = alike.unwrap_or(wanted.min(AHEAD)).min(room);
            let run = self.origin..self.origin + length as usize;
            events(StreamEvent::Bytes(self.window.get(run).unwrap_or_default()));
            self.advance(length);
        } else {
            let lost = alike.unwrap_or(wanted);
            self.advance(lost);
            events(StreamEvent::Gap(lost));
        }
    }

    /// Moves on. The slots of the oldest bytes become those of bytes to come.
    fn advance(&mut self, count: u32) {
        if count as usize >= WINDOW {
            self.known = [0; WORDS];
            self.next = self.next.wrapping_add(count);
            return;
        }
        for _ in 0..count {
            let oldest = (self.origin + AHEAD as usize) % WINDOW;
            self.mark(oldest, false);
            self.origin = (self.origin + 1) % WINDOW;
            self.next = self.next.wrapping_add(1);
        }
    }

    /// Something earlier than `next` comes first, while nothing has been accepted.
    fn step_back(&mut self, to: u32) {
        let steps = self.next.wrapping_sub(to);
        let waiting = self.furthest.wrapping_sub(self.next);
        if steps.saturating_add(waiting) <= AHEAD {
            self.origin = (self.origin + WINDOW - steps as usize) % WINDOW;
            self.next = to;
            return;
        }
        let (from, end) = (self.next, self.furthest);
        self.known = [0; WORDS];
        self.next = to;
        self.leave_out(from, end);
    }

    /// Where the byte with this number is, if it lies within the window.
    fn slot(&self, at: u32) -> Option<usize> {
        let index = distance(self.next.wrapping_sub(BEHIND), at);
        let index = usize::try_from(index).ok().filter(|&at| at < WINDOW)?;
        Some((self.origin + WINDOW - BEHIND as usize + index) % WINDOW)
    }

    fn is_known(&self, at: u32) -> bool {
        self.slot(at).is_some_and(|slot| {
            self.known
                .get(slot / 64)
                .is_some_and(|word| word >> (slot % 64) & 1 == 1)
        })
    }

    fn mark(&mut self, slot: usize, known: bool) {
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
            .field("furthest", &self.furthest)
            .field("end", &self.end)
            .field("disputed", &self.disputed)
            .finish_non_exhaustive()
    }
}

/// A keep-alive may carry one byte of garbage, at the number before the next (RFC 9293 section
/// 3.8.4). Those that do send zero; a NUL is the one byte with which hiding another one gains
/// nothing (rule S4).
fn is_keep_alive(next: u32, start: u32, bytes: &[u8]) -> bool {
    bytes == [0] && start == next.wrapping_sub(1)
}

/// The earlier one of two sequence numbers.
fn earliest(known: Option<u32>, other: u32) -> u32 {
    match known {
        Some(known) if distance(known, other) >= 0 => known,
        Some(_) | None => other,
    }
}
