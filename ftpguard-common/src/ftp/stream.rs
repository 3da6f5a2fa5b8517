//! Bytes in order out of captured TCP segments, one direction each (RFC 9293 section 3.4). Rules
//! S1 and S2.
//!
//! The two directions differ. What the host [`Sent`] is what its ftpd wrote: it leaves in order,
//! and a segment sent again has the same content. What the host [`Received`] is less than what the
//! wire showed: segments come twice, late or broken, and a hostile client sends the same sequence
//! numbers with different bytes, of which the host takes only some. It says how far it has taken
//! them in the acknowledgment number of whatever it sends; before that, nothing counts.

mod received;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a panic fails the test")]
mod tests;

pub use received::{AHEAD, BEHIND, Received};

use crate::event::{ControlHeader, MAX_CAPTURE};

/// One captured piece of a segment.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// The sequence number of the first byte of `bytes`; of SYN or FIN where there is no byte.
    pub sequence: u32,
    /// The beginning of the payload, as far as it was captured.
    pub bytes: &'a [u8],
    /// How many bytes of payload follow `bytes` that were not captured.
    pub missing: u32,
    /// The segment opens the connection.
    pub syn: bool,
    /// The sender's stream ends after this payload.
    pub fin: bool,
}

/// What a stream tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEvent<'a> {
    /// The next bytes.
    Bytes(&'a [u8]),
    /// The first segment was not the one that opens the connection: what came before it, if
    /// anything, is not known.
    PickedUp,
    /// Bytes were lost here. The number tells how many, modulo 2^32; 0 where nobody knows whether
    /// there were any.
    Gap(u32),
    /// The same bytes came with different content (rule S2). Nothing follows.
    Contradiction,
    /// The sender has closed its side. Nothing follows.
    End,
}

/// Where events go.
type Events<'a> = &'a mut dyn FnMut(StreamEvent<'_>);

const FIN: u16 = 0x01;
const SYN: u16 = 0x02;

impl<'a> Segment<'a> {
    /// The piece that a header and the bytes behind it describe.
    ///
    /// Every piece of a segment bears its flags, but FIN comes after the last one only. A full
    /// piece may not be the last: its FIN is left out, at the cost of an unseen end.
    #[must_use]
    pub fn captured(header: &ControlHeader, bytes: &'a [u8]) -> Self {
        let length = usize::try_from(header.length).unwrap_or(usize::MAX);
        let bytes = bytes.get(..length).unwrap_or(bytes);
        Self {
            sequence: header.sequence,
            bytes,
            missing: header.length - as_sequence(bytes.len()),
            syn: header.flags & SYN != 0,
            fin: header.flags & FIN != 0 && length != MAX_CAPTURE,
        }
    }

    /// Whether it carries nothing: an acknowledgement or a keep-alive.
    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.missing == 0
    }

    /// The sequence number of its first byte of payload.
    fn payload_sequence(&self) -> u32 {
        // SYN takes one number; with payload, the header tells the payload's.
        self.sequence
            .wrapping_add(u32::from(self.syn && self.is_empty()))
    }
}

/// The direction that this host sends. It takes 12 bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    next: Option<u32>,
    ended: bool,
}

const _: () = assert!(size_of::<Sent>() <= 12);

impl Sent {
    /// Nothing seen yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            next: None,
            ended: false,
        }
    }

    /// Takes the next captured piece. Bytes sent again count once (rule S2), whatever part of
    /// them the client acknowledged.
    pub fn segment(&mut self, segment: Segment<'_>, events: &mut dyn FnMut(StreamEvent<'_>)) {
        if self.ended || (segment.is_empty() && !segment.syn && !segment.fin) {
            return;
        }
        let start = segment.payload_sequence();
        if self.next.is_none() && !segment.syn {
            events(StreamEvent::PickedUp);
        }
        let next = self.next.unwrap_or(start);
        let ahead = distance(next, start);
        if let Ok(lost @ 1..) = u32::try_from(ahead) {
            events(StreamEvent::Gap(lost));
        }
        // What was sent before is not told again.
        let old = usize::try_from(-i64::from(ahead)).unwrap_or(0);
        let fresh = segment.bytes.get(old..).unwrap_or_default();
        if !fresh.is_empty() {
            events(StreamEvent::Bytes(fresh));
        }
        let captured_end = start.wrapping_add(as_sequence(segment.bytes.len()));
        let end = captured_end.wrapping_add(segment.missing);
        let reached = furthest(next, captured_end);
        if let Ok(lost @ 1..) = u32::try_from(distance(reached, end)) {
            events(StreamEvent::Gap(lost));
        }
        self.next = Some(furthest(reached, end));
        if segment.fin && self.next == Some(end) {
            self.ended = true;
            events(StreamEvent::End);
        }
    }
}

/// How far `to` lies behind `from` in a stream, negative where it lies before it.
fn distance(from: u32, to: u32) -> i32 {
    to.wrapping_sub(from).cast_signed()
}

/// The later one of two sequence numbers.
fn furthest(a: u32, b: u32) -> u32 {
    if distance(a, b) > 0 { b } else { a }
}

/// A length of a buffer as a step in sequence numbers.
fn as_sequence(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
