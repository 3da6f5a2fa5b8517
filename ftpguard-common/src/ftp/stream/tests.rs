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

/// What happens at the receiving host.
#[derive(Clone, Copy)]
enum Step<'a> {
    /// A segment came.
    Came(Segment<'a>),
    /// The host said that it has accepted everything before this number.
    Accepted(u32),
}
use Step::{Accepted, Came};

fn received(steps: &[Step<'_>]) -> String {
    let mut stream = Received::new();
    let mut told = Told::default();
    for step in steps {
        match *step {
            Came(segment) => stream.segment(segment, &mut |event| told.event(event)),
            Accepted(number) => stream.accept(number, &mut |event| told.event(event)),
        }
    }
    told.0
}

/// A host that accepts the first copy of each byte, and says so at once.
#[derive(Default)]
struct Host {
    next: Option<u32>,
    early: std::collections::HashSet<u32>,
}

impl Host {
    fn takes(&mut self, segment: &Segment<'_>) -> u32 {
        let start = segment.payload_sequence();
        let end = start.wrapping_add(as_sequence(segment.bytes.len()) + segment.missing);
        let mut next = *self.next.get_or_insert(start);
        let mut at = start;
        while at != end.wrapping_add(u32::from(segment.fin)) {
            if distance(next, at) >= 0 {
                self.early.insert(at);
            }
            at = at.wrapping_add(1);
        }
        while self.early.remove(&next) {
            next = next.wrapping_add(1);
        }
        self.next = Some(next);
        next
    }
}

fn received_at_once(segments: &[Segment<'_>]) -> String {
    let mut host = Host::default();
    let steps: Vec<_> = segments
        .iter()
        .flat_map(|segment| [Came(*segment), Accepted(host.takes(segment))])
        .collect();
    received(&steps)
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
    assert_eq!(received_at_once(&waiting), "PO<contradiction>");
    let partly = [syn(0), data(1, b"abc"), data(3, b"cd"), data(3, b"xd")];
    assert_eq!(received_at_once(&partly), "abcd<contradiction>");
}

#[test]
fn s2_only_what_the_host_accepted_is_told() {
    let steps = [
        Came(syn(0)),
        Came(data(1, b"PASV\r\n")),
        Accepted(1),
        Came(data(7, b"NOOP\r\n")),
    ];
    assert_eq!(received(&steps), "");
    // Half of it, the rest, and the same again.
    for (accepted, told) in [(4, "PAS"), (7, "PASV\r\n"), (13, "PASV\r\nNOOP\r\n")] {
        let steps = [&steps[..], &[Accepted(accepted), Accepted(3)]].concat();
        assert_eq!(received(&steps), told);
    }
}

#[test]
fn s2_what_the_host_refused_and_then_took_in_another_form_is_a_contradiction() {
    // The first copy had a bad checksum, or the second one came too late: nobody can tell.
    let steps = [
        Came(syn(0)),
        Came(data(1, b"NOOP\r\nPASV\r\n")),
        Came(data(1, b"NOOP\r\nNOOP\r\n")),
        Accepted(13),
    ];
    assert_eq!(received(&steps[..3]), "");
    assert_eq!(received(&steps), "NOOP\r\n<contradiction>");
    // Refused and sent again as it was, as by an honest client.
    let steps = [
        Came(syn(0)),
        Came(data(1, b"PASV\r\n")),
        Accepted(1),
        Came(data(1, b"PASV\r\n")),
        Accepted(7),
    ];
    assert_eq!(received(&steps), "PASV\r\n");
}

#[test]
fn s2_what_was_too_far_ahead_is_never_another_copys() {
    let long = vec![b'x'; AHEAD as usize + 10];
    let forged = vec![b'y'; 10];
    let steps = [
        Came(syn(0)),
        // The host takes all of it.
        Came(data(1, &long)),
        Accepted(100),
        // There would be room for these now.
        Came(data(1 + AHEAD, &forged)),
        Accepted(AHEAD + 11),
    ];
    let told = received(&steps);
    assert_eq!(told, format!("{}<lost 10>", "x".repeat(AHEAD as usize)));
    // What comes behind it counts again.
    let steps = [
        &steps[..],
        &[Came(data(AHEAD + 11, b"z")), Accepted(AHEAD + 12)],
    ]
    .concat();
    assert!(received(&steps).ends_with("x<lost 10>z"));
}

#[test]
fn a_stream_begins_where_the_host_stands() {
    // The client speaks first, and not in order.
    let steps = [
        Came(data(705, b"NOOP\r\n")),
        Came(data(700, b"PASV\n")),
        Accepted(711),
    ];
    // Where its first byte belongs is not known: the host may have left some out.
    assert_eq!(received(&steps), "<picked up>PASV\nNOOP\r\n<lost 0>");
    let steps = [
        Accepted(700),
        Came(data(705, b"NOOP\r\n")),
        Came(data(700, b"PASV\n")),
    ];
    let told = received(&[&steps[..], &[Accepted(711)]].concat());
    assert_eq!(told, "<picked up>PASV\nNOOP\r\n");
    // The first that was seen is none that the host took.
    let steps = [
        Came(data(705, b"NOOP\r\n")),
        Accepted(700),
        Came(data(700, b"PASV\n")),
        Accepted(705),
    ];
    assert_eq!(received(&steps), "<picked up>PASV\n");
    // Nor far before, nor far behind.
    for start in [
        700u32.wrapping_sub(10_000),
        700 + 10_000,
        0x8000_0000 + 700,
        0x7fff_ff00,
    ] {
        let steps = [
            Came(data(start, b"forged")),
            Accepted(700),
            Came(data(700, b"PASV\n")),
            Accepted(705),
        ];
        let told = received(&steps);
        let (before, after) = told.rsplit_once('>').expect("picked up");
        assert_eq!(after, "PASV\n");
        assert!(
            !before.contains("forged") || before.ends_with("<lost 0"),
            "{told}"
        );
    }
}

#[test]
fn what_waits_is_known_only_without_holes_and_disputes() {
    fn waiting(segments: &[Segment<'_>]) -> Option<Vec<u8>> {
        let mut stream = Received::new();
        for segment in segments {
            stream.segment(*segment, &mut |_| {});
        }
        stream.accept(4, &mut |_| {});
        stream.waiting().map(Iterator::collect)
    }
    let whole = [syn(0), data(1, b"abcdef")];
    assert_eq!(waiting(&whole).as_deref(), Some(&b"def"[..]));
    assert_eq!(
        waiting(&[syn(0), data(1, b"abc")]).as_deref(),
        Some(&b""[..])
    );
    let hole = [syn(0), data(1, b"abcd"), data(6, b"f")];
    assert_eq!(waiting(&hole), None);
    let disputed = [syn(0), data(1, b"abcdef"), data(6, b"x")];
    assert_eq!(waiting(&disputed), None);
    let long = vec![0; AHEAD as usize + 10];
    assert_eq!(waiting(&[syn(0), data(1, &long)]), None);
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
fn s2_bytes_too_old_to_compare_change_nothing() {
    let long = vec![b'x'; BEHIND as usize];
    let mut segments = vec![syn(0), data(1, b"a"), data(2, &long[1..])];
    segments.push(data(1, b"b"));
    assert!(received_at_once(&segments).ends_with("x<contradiction>"));
    segments.pop();
    segments.push(data(BEHIND + 1, b"y"));
    // The host has taken the first copy, and takes no other.
    segments.push(data(1, b"b"));
    assert!(received_at_once(&segments).ends_with("xy"));
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
fn a_hole_is_waited_for_until_the_host_has_it() {
    let mut steps = vec![Came(syn(0)), Came(data(1, b"a")), Came(data(4, b"d"))];
    steps.push(Accepted(2));
    assert_eq!(received(&steps), "a");
    // It came another way, or was not captured.
    steps.push(Accepted(5));
    assert_eq!(received(&steps), "a<lost 2>d");
    // What comes too late is neither told nor compared.
    steps.extend([Came(data(1, b"abcd")), Came(data(5, b"e")), Accepted(6)]);
    assert_eq!(received(&steps), "a<lost 2>de");
    // The last known bytes still are.
    steps.push(Came(data(4, b"x")));
    assert_eq!(received(&steps), "a<lost 2>de<contradiction>");
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
    assert_eq!(received_at_once(&waiting), "ab<lost 2><contradiction>");
    // Another copy of it may not be what the host took.
    let forged = [
        Came(syn(0)),
        Came(cut),
        Came(data(3, b"xyzuv")),
        Accepted(8),
    ];
    assert_eq!(received(&forged), "ab<lost 5>");
    // Nor may an earlier one (found by fuzzing).
    let forged = [
        Came(syn(0)),
        Came(data(3, b"xyzuv")),
        Came(cut),
        Accepted(8),
    ];
    assert_eq!(received(&forged), "ab<contradiction>");
    assert_eq!(sent(&[syn(0), data(1, b"a"), data(9, b"b")]), "a<lost 7>b");
}

#[test]
fn nothing_comes_after_fin() {
    let segments = [syn(0), fin(1, b"QUIT"), data(6, b"PASV"), data(1, b"x")];
    assert_eq!(received_at_once(&segments), "QUIT<end>");
    let steps = [
        Came(syn(0)),
        Came(fin(5, b"")),
        Came(data(1, b"QUIT")),
        Accepted(6),
        Came(data(6, b"PASV")),
        Accepted(10),
    ];
    assert_eq!(received(&steps), "QUIT<end>");
    assert_eq!(sent(&[syn(0), fin(1, b"221"), data(4, b"227")]), "221<end>");
}

#[test]
fn s2_an_end_and_bytes_in_the_same_place_are_a_contradiction() {
    let quit = [Came(syn(0)), Came(data(1, b"QUIT")), Came(fin(5, b""))];
    // The host takes more than the FIN, or perhaps something else than the FIN.
    for after in [vec![Accepted(9)], vec![Came(data(5, b"x")), Accepted(6)]] {
        let steps = [&quit[..], &after].concat();
        assert_eq!(received(&steps), "QUIT<contradiction>");
    }
    // One that came too late never counted.
    let steps = [Came(syn(0)), Came(data(1, b"QUIT")), Accepted(5)];
    let steps = [
        &steps[..],
        &[Came(fin(3, b"")), Came(data(5, b"x")), Accepted(6)],
    ]
    .concat();
    assert_eq!(received(&steps), "QUITx");
}

#[test]
fn s10_debug_shows_no_text() {
    let mut stream = Received::new();
    stream.segment(data(1, b"PASS secret\r\n"), &mut |_| {});
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
    fn s2_order_and_repetition_change_nothing(
        (isn, bytes, segments) in shuffled(), often in 1usize..6,
    ) {
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
        let mut host = Host::default();
        stream.segment(syn(isn), &mut events);
        host.takes(&syn(isn));
        for (index, &(start, end)) in segments.iter().enumerate() {
            let segment = data(number(isn, start), &bytes[start..end]);
            stream.segment(segment, &mut events);
            let accepted = host.takes(&segment);
            // The host need not say so each time.
            if index % often == 0 {
                stream.accept(accepted, &mut events);
            }
        }
        stream.accept(number(isn, bytes.len()), &mut events);
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
        stream.segment(syn(isn), &mut events);
        for (index, &(start, end)) in segments.iter().enumerate() {
            let content = if index == place { &forged[..] } else { &bytes[start..end] };
            stream.segment(data(number(isn, start), content), &mut events);
        }
        stream.accept(number(isn, bytes.len()), &mut events);
        prop_assert_eq!(contradictions, 1);
    }

    #[test]
    fn no_segments_make_it_panic_and_every_number_is_accounted_for(
        first: u32,
        segments in prop::collection::vec(
            (
                -6000i32..70_000, prop::collection::vec(0u8..2, 0..100), 0u32..3000, 0u8..20,
                -200i32..9000,
            ),
            0..60,
        ),
    ) {
        let mut received = Received::new();
        let mut sent = Sent::new();
        let mut told = [0u32; 2];
        let mut over = [false; 2];
        let mut next = first;
        let mut opened_empty = false;
        for (index, (step, bytes, missing, act, accept)) in segments.into_iter().enumerate() {
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
            received.segment(segment, &mut |event| account(0, event));
            if act % 3 == 0 {
                let number = next.wrapping_add_signed(if act == 18 { accept } else { 0 });
                received.accept(number, &mut |event| account(0, event));
            }
            sent.segment(segment, &mut |event| account(1, event));
            let opened = first.wrapping_add(u32::from(opened_empty));
            prop_assert_eq!(received.next, opened.wrapping_add(told[0]));
            prop_assert_eq!(sent.next, Some(opened.wrapping_add(told[1])));
        }
    }
}
