//! How fast control bytes are read: `cargo bench -p ftpguard-common`.
#![expect(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ftpguard_common::{
    event::Direction,
    ftp::{Dialogue, Received, Segment, Sent},
};

/// What one passive transfer says on the control connection.
const TRANSFER: [(Direction, &[u8]); 5] = [
    (Direction::ToServer, b"PASV\r\n"),
    (
        Direction::ToClient,
        b"227 Entering Passive Mode (192,0,2,1,19,137).\r\n",
    ),
    (
        Direction::ToServer,
        b"RETR directory/some-file-name.tar.gz\r\n",
    ),
    (
        Direction::ToClient,
        b"150 Opening BINARY mode data connection (1024 bytes).\r\n",
    ),
    (Direction::ToClient, b"226 Transfer complete.\r\n"),
];

fn dialogue(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dialogue");
    let length: usize = TRANSFER.iter().map(|(_, bytes)| bytes.len()).sum();
    group.throughput(Throughput::Bytes(length as u64));
    let mut dialogue = Dialogue::new();
    dialogue.feed(Direction::ToClient, b"220 ready\r\n", 0, &mut |_| {});
    group.bench_function("passive transfer", |bencher| {
        bencher.iter(|| {
            let mut events = 0;
            for (direction, bytes) in TRANSFER {
                dialogue.feed(direction, black_box(bytes), 0, &mut |_| events += 1);
            }
            assert_eq!(events, 2);
        });
    });
    let listing = b"-rw-r--r-- 1 ftp ftp 1024 Jan 01 00:00 some-file-name.tar.gz\r\n".repeat(30);
    group.throughput(Throughput::Bytes(listing.len() as u64));
    group.bench_function("text of a block", |bencher| {
        // Within an answer: text outside one would not be FTP, and not be read on.
        let mut dialogue = Dialogue::new();
        dialogue.feed(Direction::ToClient, b"220 ready\r\n", 0, &mut |_| {});
        dialogue.feed(Direction::ToServer, b"STAT\r\n", 0, &mut |_| {});
        dialogue.feed(Direction::ToClient, b"213-Status\r\n", 0, &mut |_| {});
        bencher.iter(|| {
            dialogue.feed(Direction::ToClient, black_box(&listing), 0, &mut |_| {});
        });
        let mut events = 0;
        dialogue.feed(Direction::ToClient, b"213 End\r\n", 0, &mut |_| {});
        dialogue.feed(Direction::ToServer, b"PASV\r\n", 0, &mut |_| events += 1);
        assert!(events > 0, "it reads on");
    });
    // What everything else is measured against: lines are found, and not read.
    group.bench_function("lines split at LF only", |bencher| {
        bencher.iter(|| {
            let lines = black_box(&listing[..]).split(|byte| *byte == b'\n');
            assert_eq!(lines.map(black_box).count(), 31);
        });
    });
    group.finish();
    println!(
        "memory of a connection: dialogue {} bytes, received {}, sent {}",
        size_of::<Dialogue>(),
        size_of::<Received>(),
        size_of::<Sent>()
    );
}

/// Segments of commands, each acknowledged.
fn received(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("received");
    for (name, bytes) in [
        (
            "a command a segment",
            b"RETR some-file-name.tar.gz\r\n".to_vec(),
        ),
        (
            "full segments",
            b"MDTM some-file-name.tar.gz\r\n".repeat(52),
        ),
    ] {
        let length = u32::try_from(bytes.len()).unwrap();
        group.throughput(Throughput::Bytes(u64::from(length)));
        let mut stream = Received::new();
        stream.accept(0, &mut |_| {});
        let mut sequence = 0u32;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let segment = Segment {
                    sequence,
                    bytes: black_box(&bytes),
                    missing: 0,
                    syn: false,
                    fin: false,
                };
                let mut told = 0;
                let mut tell = |_: ftpguard_common::ftp::StreamEvent<'_>| told += 1;
                stream.segment(segment, &mut tell);
                sequence = sequence.wrapping_add(length);
                stream.accept(sequence, &mut tell);
                assert!(told > 0);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, dialogue, received);
criterion_main!(benches);
