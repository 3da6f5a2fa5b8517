//! How fast control bytes are read: `cargo run --release -p ftpguard-common --example throughput`.
//!
//! A rough figure of one run on one core, to see a change of a factor.

use std::{cell::Cell, hint::black_box, time::Instant};

use ftpguard_common::{
    event::Direction,
    ftp::{Dialogue, Received, Segment, StreamEvent},
};

const ROUNDS: u32 = 200_000;

fn main() {
    let mut dialogue = Dialogue::new();
    let events = Cell::new(0);
    let mut tell = |event| {
        black_box(event);
        events.set(events.get() + 1);
    };
    dialogue.feed(Direction::ToClient, b"220 ready\r\n", 0, &mut tell);
    let start = Instant::now();
    for _ in 0..ROUNDS {
        dialogue.feed(Direction::ToServer, b"PASV\r\n", 0, &mut tell);
        let reply = b"227 Entering Passive Mode (192,0,2,1,19,137).\r\n";
        dialogue.feed(Direction::ToClient, reply, 0, &mut tell);
        dialogue.feed(Direction::ToServer, b"RETR file\r\n", 0, &mut tell);
        let reply = b"150 Opening data connection.\r\n226 Transfer complete.\r\n";
        dialogue.feed(Direction::ToClient, reply, 0, &mut tell);
    }
    let time = start.elapsed();
    assert_eq!(events.get(), 2 * ROUNDS);
    println!("transfer begun and ended: {:?}", time / ROUNDS);

    let listing = b"-rw-r--r-- 1 ftp ftp 1024 Jan 01 00:00 some-file-name.tar.gz\r\n".repeat(30);
    let start = Instant::now();
    for _ in 0..ROUNDS / 10 {
        dialogue.feed(Direction::ToClient, &listing, 0, &mut tell);
    }
    println!("reply text: {} MB/s", rate(listing.len(), start));

    let mut stream = Received::new();
    let mut sequence = 0u32;
    let start = Instant::now();
    for _ in 0..ROUNDS / 10 {
        for bytes in listing.chunks(1448) {
            let segment = Segment {
                sequence,
                bytes,
                missing: 0,
                syn: false,
                fin: false,
            };
            stream.segment(segment, 0, &mut |event: StreamEvent<'_>| {
                black_box(event);
            });
            sequence = sequence.wrapping_add(u32::try_from(bytes.len()).unwrap_or(0));
        }
    }
    println!("received segments: {} MB/s", rate(listing.len(), start));
    println!(
        "size: {} bytes a dialogue, {} a received direction",
        size_of::<Dialogue>(),
        size_of::<Received>()
    );
}

/// Megabytes per second of that many bytes in each of `ROUNDS / 10` rounds.
fn rate(length: usize, start: Instant) -> u128 {
    let bytes = length as u128 * u128::from(ROUNDS / 10);
    bytes / start.elapsed().as_micros().max(1)
}
