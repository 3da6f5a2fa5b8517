//! Whatever a client puts on the wire, and whatever of it the host takes: no byte is told but
//! the one that the host took, each once and in order (rule S2).

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Unstructured};
use ftpguard_common::ftp::{Received, Segment, Sent, StreamEvent};

#[derive(Arbitrary, Debug)]
struct Piece<'a> {
    /// From where the host stands.
    offset: i16,
    bytes: &'a [u8],
    /// Its end was not captured.
    hidden: bool,
    /// The host does not take it: a bad checksum, for example.
    refused: bool,
    /// The host prefers it to what it holds already, out of order.
    preferred: bool,
    fin: bool,
    /// The host then says how far it is.
    acknowledged: bool,
}

/// Panics unless the property holds for this input.
pub fn check(data: &[u8]) {
    let Ok(input) = <(u32, Vec<Piece<'_>>)>::arbitrary_take_rest(Unstructured::new(data)) else {
        return;
    };
    let (first, pieces) = input;
    let mut host = Host::default();
    let mut received = Received::new();
    let mut told = Told::default();
    let mut sent = Sent::new();
    let mut resent = Told::default();
    received.accept(first, &mut |event| assert_eq!(event, StreamEvent::PickedUp));
    for (index, piece) in pieces.iter().enumerate() {
        let place = host.next + i64::from(piece.offset);
        let captured = if piece.hidden {
            piece.bytes.len() / 2
        } else {
            piece.bytes.len()
        };
        let segment = Segment {
            sequence: first.wrapping_add(place as u32),
            bytes: &piece.bytes[..captured],
            missing: (piece.bytes.len() - captured) as u32,
            syn: false,
            fin: piece.fin,
        };
        received.segment(segment, &mut |event| told.take(event));
        if !piece.refused {
            host.take(place, piece);
        }
        if piece.acknowledged {
            let number = first.wrapping_add(host.next as u32);
            received.accept(number, &mut |event| told.take(event));
        }
        // What this host sends is what it sent before.
        let syn = index == 0;
        sent.segment(Segment { syn, ..segment }, &mut |event| resent.take(event));
    }
    for (at, byte) in told.bytes {
        assert_eq!(host.taken.get(&at), Some(&byte), "at {at}");
    }
}

/// A TCP receiver, as far as it matters here.
#[derive(Default)]
struct Host {
    next: i64,
    taken: BTreeMap<i64, u8>,
    end: Option<i64>,
    ended: bool,
}

impl Host {
    fn take(&mut self, place: i64, piece: &Piece) {
        for (at, &byte) in (place..).zip(piece.bytes) {
            if self.ended || at < self.next || self.end.is_some_and(|end| at >= end) {
                continue;
            }
            if piece.preferred {
                self.taken.insert(at, byte);
            } else {
                self.taken.entry(at).or_insert(byte);
            }
        }
        let end = place + piece.bytes.len() as i64;
        if piece.fin && self.end.is_none() && end >= self.next {
            self.end = Some(end);
            self.taken.split_off(&end);
        }
        while self.taken.contains_key(&self.next) {
            self.next += 1;
        }
        if self.end == Some(self.next) && !self.ended {
            self.next += 1;
            self.ended = true;
        }
    }
}

#[derive(Default)]
struct Told {
    next: i64,
    /// Each byte and how far from the start.
    bytes: Vec<(i64, u8)>,
    over: bool,
}

impl Told {
    fn take(&mut self, event: StreamEvent<'_>) {
        assert!(!self.over, "{event:?} after the end");
        match event {
            StreamEvent::Bytes(bytes) => {
                for byte in bytes {
                    self.bytes.push((self.next, *byte));
                    self.next += 1;
                }
            }
            StreamEvent::Gap(lost) => self.next += i64::from(lost),
            StreamEvent::PickedUp => panic!("picked up twice"),
            StreamEvent::Contradiction | StreamEvent::End => self.over = true,
        }
    }
}
