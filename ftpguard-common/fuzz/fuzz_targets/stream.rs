//! Whatever segments come, each byte is told once, in order, or known to be lost; and a stream
//! that was told without a contradiction is what its segments say.
#![no_main]

use ftpguard_common::ftp::{Received, Segment, Sent, StreamEvent};
use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};

#[derive(Arbitrary, Debug)]
struct Piece<'a> {
    offset: i16,
    bytes: &'a [u8],
    missing: u16,
    flags: u8,
    milliseconds: u16,
}

fuzz_target!(|input: (u32, Vec<Piece>)| {
    let (first, pieces) = input;
    let mut received = Received::new();
    let mut sent = Sent::new();
    let mut told = [Told::default(), Told::default()];
    let mut now = 0;
    for (index, piece) in pieces.iter().enumerate() {
        now += u64::from(piece.milliseconds) * 1_000_000;
        let segment = Segment {
            sequence: first.wrapping_add_signed(i32::from(piece.offset)),
            bytes: piece.bytes,
            missing: if piece.flags & 4 == 0 {
                0
            } else {
                piece.missing.into()
            },
            syn: index == 0,
            fin: piece.flags & 3 == 3,
        };
        let [ingress, egress] = &mut told;
        received.segment(segment, now, &mut |event| ingress.take(event));
        sent.segment(segment, &mut |event| egress.take(event));
        if index == 0 {
            let empty = segment.bytes.is_empty() && segment.missing == 0;
            let start = segment.sequence.wrapping_add(u32::from(empty));
            told.iter_mut().for_each(|told| told.start = start);
        }
    }
    // What was told of a sequence number is what some segment says of it.
    for told in &told {
        for (at, byte) in &told.bytes {
            let at = told.start.wrapping_add(*at);
            assert!(pieces.iter().enumerate().any(|(index, piece)| {
                let empty = piece.bytes.is_empty() && (piece.flags & 4 == 0 || piece.missing == 0);
                let start = first
                    .wrapping_add_signed(i32::from(piece.offset))
                    .wrapping_add(u32::from(index == 0 && empty));
                piece.bytes.get(at.wrapping_sub(start) as usize) == Some(byte)
            }));
        }
    }
});

#[derive(Default)]
struct Told {
    start: u32,
    length: u32,
    /// Each byte and how far from the start.
    bytes: Vec<(u32, u8)>,
    over: bool,
}

impl Told {
    fn take(&mut self, event: StreamEvent<'_>) {
        assert!(!self.over, "{event:?} after the end");
        match event {
            StreamEvent::Bytes(bytes) => {
                for byte in bytes {
                    self.bytes.push((self.length, *byte));
                    self.length = self.length.wrapping_add(1);
                }
            }
            StreamEvent::Gap(lost) => self.length = self.length.wrapping_add(lost),
            StreamEvent::PickedUp => panic!("picked up after SYN"),
            StreamEvent::Contradiction | StreamEvent::End => self.over = true,
        }
    }
}
