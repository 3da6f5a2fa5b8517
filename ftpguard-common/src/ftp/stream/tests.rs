//! What the wire may do, and what comes out of it.

extern crate std;
use core::fmt::Write as _;
use std::{format, string::String, vec, vec::Vec};

use proptest::prelude::*;

use super::*;
use crate::{
    abi::SessionKey,
    net::{Address, Port},
};

const SECOND: u64 = 1_000_000_000;

fn data(sequence: u32, bytes: &[u8]) -> Segment<'_> {
    Segment {
        sequence,
        bytes,
        missing: 0,
        syn: false,
        fin: false,
    }
}

fn syn(sequence: u32) -> Segment<'static> {
    Segment {
        syn: true,
        ..data(sequence, b"")
    }
}

fn fin(sequence: u32, bytes: &[u8]) -> Segment<'_> {
    Segment {
        fin: true,
        ..data(sequence, bytes)
    }
}

/// What was told, in a short form; bytes that follow each other are one.
#[derive(Default)]
struct Told(String);

impl Told {
    fn event(&mut self, event: StreamEvent<'_>) {
        match event {
            StreamEvent::Bytes(bytes) => self.0.push_str(&String::from_utf8_lossy(bytes)),
            StreamEvent::PickedUp => self.0.push_str("<picked up>"),
            StreamEvent::Gap(lost) => write!(self.0, "<lost {lost}>").unwrap(),
            StreamEvent::Contradiction => self.0.push_str("<contradiction>"),
            StreamEvent::End => self.0.push_str("<end>"),
        }
    }
}

fn received(segments: &[(u64, Segment<'_>)]) -> String {
    let mut stream = Received::new();
    let mut told = Told::default();
    for &(now, segment) in segments {
        stream.segment(segment, now, &mut |event| told.event(event));
    }
    told.0
}

fn received_at_once(segments: &[Segment<'_>]) -> String {
    let segments: Vec<_> = segments.iter().map(|&segment| (0, segment)).collect();
    received(&segments)
}

fn sent(segments: &[Segment<'_>]) -> String {
    let mut stream = Sent::new();
    let mut told = Told::default();
    for &segment in segments {
        stream.segment(segment, &mut |event| told.event(event));
    }
    told.0
}

#[test]
fn s2_syn_takes_one_number_and_numbers_wrap() {
    let segments = [syn(u32::MAX - 2), data(u32::MAX - 1, b"abc"), data(1, b"d")];
    assert_eq!(received_at_once(&segments), "abcd");
    assert_eq!(sent(&segments), "abcd");
}

#[test]
fn s2_a_stream_may_be_picked_up_in_the_middle() {
    let segments = [data(700, b""), data(700, b"ab"), data(702, b"c")];
    assert_eq!(received_at_once(&segments), "<picked up>abc");
    assert_eq!(sent(&segments), "<picked up>abc");
}

#[test]
fn s2_the_same_bytes_again_change_nothing() {
    let segments = [
        syn(0),
        syn(0),
        data(1, b"PASV\r\n"),
        data(1, b"PASV\r\n"),
        data(3, b"SV"),
        // Partly old, partly new.
        data(5, b"\r\nNOOP"),
        syn(0),
        data(7, b"NOOP\r\n"),
    ];
    assert_eq!(received_at_once(&segments), "PASV\r\nNOOP\r\n");
    assert_eq!(sent(&segments), "PASV\r\nNOOP\r\n");
}

#[test]
fn s2_what_comes_early_waits() {
    let segments = [syn(0), data(5, b"ef"), data(3, b"cd"), data(1, b"ab")];
    assert_eq!(received_at_once(&segments), "abcdef");
}

#[test]
fn s2_other_content_is_a_contradiction_whether_told_or_waiting() {
    let told = [
        syn(0),
        data(1, b"NOOP\r\n"),
        data(1, b"PASV\r\n"),
        data(7, b"x"),
    ];
    assert_eq!(received_at_once(&told), "NOOP\r\n<contradiction>");
    let waiting = [syn(0), data(3, b"SV"), data(1, b"PORT")];
    assert_eq!(received_at_once(&waiting), "<contradiction>");
    let partly = [syn(0), data(1, b"abc"), data(3, b"cd"), data(3, b"xd")];
    assert_eq!(received_at_once(&partly), "abcd<contradiction>");
}

#[test]
fn s2_host_sent_bytes_count_once_however_the_client_acknowledges_them() {
    // A client that acknowledges half a line has the host begin its retransmission there.
    let segments = [
        syn(0),
        data(1, b"500 227 (1,2,3,4,5,6)\r\n"),
        data(5, b"227 (1,2,3,4,5,6)\r\n"),
        data(24, b"200 ok\r\n"),
    ];
    assert_eq!(sent(&segments), "500 227 (1,2,3,4,5,6)\r\n200 ok\r\n");
}

#[test]
fn s2_bytes_too_old_to_compare_are_a_contradiction() {
    let long = vec![b'x'; BEHIND as usize];
    let mut segments = vec![syn(0), data(1, b"a"), data(2, &long[1..])];
    segments.push(data(1, b"a"));
    assert!(!received_at_once(&segments).contains('<'));
    segments.push(data(BEHIND + 1, b"y"));
    segments.push(data(1, b"a"));
    assert!(received_at_once(&segments).ends_with("xy<contradiction>"));
}

#[test]
fn a_keep_alive_is_no_contradiction() {
    let segments = [
        syn(0),
        data(1, b"NOOP\r\n"),
        data(6, b""),
        data(6, b"\0"),
        data(7, b"x"),
    ];
    assert_eq!(received_at_once(&segments), "NOOP\r\nx");
    assert_eq!(
        received_at_once(&[syn(0), data(1, b"NOOP\r\n"), data(6, b"x")]),
        "NOOP\r\n<contradiction>"
    );
}

#[test]
fn a_hole_is_given_up_after_a_while() {
    let mut segments = vec![(0, syn(0)), (0, data(1, b"a")), (SECOND, data(4, b"d"))];
    segments.push((4 * SECOND - 1, data(6, b"f")));
    assert_eq!(received(&segments), "a");
    segments.push((4 * SECOND, data(7, b"g")));
    assert_eq!(received(&segments), "a<lost 2>d");
    // What comes too late is neither told nor compared.
    segments.push((4 * SECOND, data(1, b"abcd")));
    segments.push((4 * SECOND, data(5, b"e")));
    assert_eq!(received(&segments), "a<lost 2>defg");
    // The last known bytes still are.
    segments.push((4 * SECOND, data(4, b"x")));
    assert_eq!(received(&segments), "a<lost 2>defg<contradiction>");
}

#[test]
fn a_second_hole_has_its_own_time() {
    let segments = [
        (0, syn(0)),
        (0, data(3, b"c")),
        (0, data(5, b"e")),
        (2 * SECOND, data(1, b"ab")),
        (5 * SECOND - 1, data(7, b"g")),
        (5 * SECOND, data(7, b"g")),
    ];
    assert_eq!(received(&segments[..5]), "abc");
    assert_eq!(received(&segments), "abc<lost 1>e");
}

#[test]
fn a_hole_is_given_up_when_too_much_waits_behind_it() {
    let long = vec![b'x'; AHEAD as usize];
    let told = received_at_once(&[syn(0), data(3, b"c"), data(6, &long)]);
    assert_eq!(told, format!("<lost 2>c<lost 2>{}", "x".repeat(4096)));
}

#[test]
fn bytes_that_were_not_captured_are_a_gap() {
    let cut = Segment {
        missing: 5,
        ..data(1, b"ab")
    };
    let segments = [syn(0), cut, data(8, b"h")];
    assert_eq!(received_at_once(&segments), "ab<lost 5>h");
    assert_eq!(sent(&segments), "ab<lost 5>h");
    // Sent again, a part of it is known.
    let again = [syn(0), data(1, b"abc"), cut, data(5, b"e"), data(8, b"h")];
    assert_eq!(received_at_once(&again), "abc<lost 4>h");
    assert_eq!(sent(&again), "abc<lost 4>h");
    let waiting = [syn(0), data(5, b"e"), cut, data(8, b"h")];
    assert_eq!(received_at_once(&waiting), "ab<lost 2>e<lost 2>h");
    assert_eq!(sent(&[syn(0), data(1, b"a"), data(9, b"b")]), "a<lost 7>b");
}

#[test]
fn nothing_comes_after_fin() {
    for segments in [
        vec![syn(0), fin(1, b"QUIT"), data(5, b"PASV"), data(1, b"x")],
        vec![syn(0), fin(5, b""), data(1, b"QUITPASV")],
        vec![syn(0), data(5, b"PASV"), fin(5, b""), data(1, b"QUIT")],
        vec![syn(0), fin(5, b""), data(7, b"SV"), data(1, b"QUIT")],
    ] {
        assert_eq!(received_at_once(&segments), "QUIT<end>");
    }
    assert_eq!(sent(&[syn(0), fin(1, b"221"), data(4, b"227")]), "221<end>");
}

#[test]
fn two_ends_are_a_contradiction() {
    assert_eq!(
        received_at_once(&[syn(0), fin(5, b""), fin(7, b"")]),
        "<contradiction>"
    );
    assert_eq!(
        received_at_once(&[syn(0), data(1, b"abc"), fin(2, b"")]),
        "abc<contradiction>"
    );
}

#[test]
fn implausible_segments_are_ignored_until_they_are_many() {
    let mut segments = vec![syn(0), data(1, b"a")];
    for _ in 1..MAX_STRAY {
        segments.push(data(0x4000_0000, b"forged"));
    }
    segments.push(data(2, b"b"));
    for _ in 1..MAX_STRAY {
        segments.push(data(0x8000_0000, b"forged"));
    }
    assert_eq!(received_at_once(&segments), "ab");
    segments.push(data(100_003, b"c"));
    segments.push(data(100_004, b"d"));
    assert_eq!(received_at_once(&segments), "ab<lost 100000>cd");
}

#[test]
fn s10_debug_shows_no_text() {
    let mut stream = Received::new();
    stream.segment(data(1, b"PASS secret\r\n"), 0, &mut |_| {});
    let shown = format!("{stream:?}");
    assert!(
        !shown.contains("115") && !shown.contains("secret"),
        "{shown}"
    );
}

#[test]
fn a_header_and_its_bytes_are_a_segment() {
    let mut header = ControlHeader {
        session: SessionKey {
            client: Address::WILDCARD,
            server: Address::WILDCARD,
            client_port: Port::NONE,
            server_port: Port::NONE,
        },
        sequence: 7,
        acknowledgment: 0,
        length: 5,
        captured: 3,
        direction: 0,
        flags: 0x11,
    };
    let segment = Segment::captured(&header, b"abc");
    assert_eq!((segment.bytes, segment.missing), (&b"abc"[..], 2));
    assert!(segment.fin && !segment.syn);
    // More bytes than the header names are not the segment's.
    let segment = Segment::captured(&header, b"abcdefg");
    assert_eq!((segment.bytes, segment.missing), (&b"abcde"[..], 0));
    // A full piece may be followed by another.
    header.length = u32::try_from(MAX_CAPTURE).expect("a small number");
    assert!(!Segment::captured(&header, b"").fin);
    header.flags = 0x02;
    assert!(Segment::captured(&header, b"").syn);
}

/// A stream cut into segments that come in any order, some of them twice.
fn shuffled() -> impl Strategy<Value = (u32, Vec<u8>, Vec<(usize, usize)>)> {
    (any::<u32>(), prop::collection::vec(any::<u8>(), 1..3000)).prop_flat_map(|(isn, bytes)| {
        let length = bytes.len();
        let cuts = prop::collection::btree_set(0..length, 0..30);
        let again = prop::collection::vec((0..length, 1usize..200), 0..20);
        (Just(isn), Just(bytes), cuts, again)
            .prop_map(move |(isn, bytes, cuts, again)| {
                let mut ends: Vec<usize> = cuts.into_iter().filter(|&cut| cut > 0).collect();
                ends.push(length);
                let mut start = 0;
                let mut segments = Vec::new();
                for end in ends {
                    segments.push((start, end));
                    start = end;
                }
                for (start, size) in again {
                    segments.push((start, (start + size).min(length)));
                }
                (isn, bytes, segments)
            })
            .prop_flat_map(|(isn, bytes, segments)| {
                (Just(isn), Just(bytes), Just(segments).prop_shuffle())
            })
    })
}

fn number(isn: u32, offset: usize) -> u32 {
    isn.wrapping_add(1).wrapping_add(as_sequence(offset))
}

proptest! {
    #[test]
    fn s2_order_and_repetition_change_nothing((isn, bytes, segments) in shuffled()) {
        let mut stream = Received::new();
        let mut told = Vec::new();
        let mut other = 0;
        let mut events = |event: StreamEvent<'_>| {
            if let StreamEvent::Bytes(bytes) = event {
                told.extend_from_slice(bytes);
            } else {
                other += 1;
            }
        };
        stream.segment(syn(isn), 0, &mut events);
        for &(start, end) in &segments {
            stream.segment(data(number(isn, start), &bytes[start..end]), 0, &mut events);
        }
        prop_assert_eq!(other, 0);
        prop_assert_eq!(told, bytes);
    }

    #[test]
    fn s2_any_other_content_is_found(
        (isn, bytes, mut segments) in shuffled(), victim: prop::sample::Index, at: prop::sample::Index,
        place: prop::sample::Index, flip in 1u8..,
    ) {
        let (start, end) = segments[victim.index(segments.len())];
        let mut forged = bytes[start..end].to_vec();
        let at = at.index(forged.len());
        forged[at] ^= flip;
        // A byte of garbage at the end would be a keep-alive.
        prop_assume!(forged != [0]);
        let place = place.index(segments.len() + 1);
        segments.insert(place, (start, end));
        let mut stream = Received::new();
        let mut contradictions = 0;
        let mut events = |event: StreamEvent<'_>| {
            contradictions += u32::from(event == StreamEvent::Contradiction);
        };
        stream.segment(syn(isn), 0, &mut events);
        for (index, &(start, end)) in segments.iter().enumerate() {
            let content = if index == place { &forged[..] } else { &bytes[start..end] };
            stream.segment(data(number(isn, start), content), 0, &mut events);
        }
        prop_assert_eq!(contradictions, 1);
    }

    #[test]
    fn no_segments_make_it_panic_and_every_number_is_accounted_for(
        first: u32,
        segments in prop::collection::vec(
            (-6000i32..70_000, prop::collection::vec(0u8..2, 0..100), 0u32..3000, 0u8..20, 0u64..SECOND),
            0..60,
        ),
    ) {
        let mut received = Received::new();
        let mut sent = Sent::new();
        let mut told = [0u32; 2];
        let mut over = [false; 2];
        let mut next = first;
        let mut now = 0;
        let mut opened_empty = false;
        for (index, (step, bytes, missing, act, time)) in segments.into_iter().enumerate() {
            now += time;
            // Most segments follow the one before.
            let start = if act < 12 || index == 0 { next } else { next.wrapping_add_signed(step) };
            let segment = Segment {
                sequence: start,
                bytes: &bytes,
                missing: if act % 4 == 0 { missing } else { 0 },
                syn: index == 0,
                fin: act == 19,
            };
            if index == 0 {
                opened_empty = segment.is_empty();
            }
            next = segment.payload_sequence().wrapping_add(as_sequence(bytes.len()));
            let mut account = |which: usize, event: StreamEvent<'_>| {
                assert!(!over[which], "{event:?} after the end");
                match event {
                    StreamEvent::Bytes(bytes) => {
                        assert!(!bytes.is_empty());
                        told[which] = told[which].wrapping_add(as_sequence(bytes.len()));
                    }
                    StreamEvent::Gap(lost) => {
                        assert_ne!(lost, 0);
                        told[which] = told[which].wrapping_add(lost);
                    }
                    StreamEvent::PickedUp => panic!("picked up after SYN"),
                    StreamEvent::Contradiction | StreamEvent::End => over[which] = true,
                }
            };
            received.segment(segment, now, &mut |event| account(0, event));
            sent.segment(segment, &mut |event| account(1, event));
            let opened = first.wrapping_add(u32::from(opened_empty));
            prop_assert_eq!(received.next, opened.wrapping_add(told[0]));
            prop_assert_eq!(sent.next, Some(opened.wrapping_add(told[1])));
        }
    }
}
