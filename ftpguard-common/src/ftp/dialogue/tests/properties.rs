//! What holds for every dialogue.

extern crate std;
use std::vec::Vec;

use proptest::prelude::*;

use super::{super::*, SECOND};

/// A piece of a plausible or hostile dialogue.
fn piece() -> impl Strategy<Value = (bool, Vec<u8>)> {
    let fixed: Vec<&'static [u8]> = [
        "PASV\r\n",
        "EPSV\r\n",
        "EPSV ALL\n",
        "PORT 1,2,3,4,5,6\r\n",
        "AUTH TLS\r\n",
        "REIN\r\n",
        "QUIT\r\n",
        "NOOP\r\n",
        "PORT x\r\n",
        "227 (1,2,3,4,5,6)\r\n",
        "229 (|||5000|)\r\n",
        "200 ok\r\n",
        "211-Status\r\n",
        "211 End\r\n",
        "226 x\r\n",
        "234 go\r\n",
        "150 x\r\n",
        "\0",
        "\r",
        "\n",
    ]
    .iter()
    .map(|text| text.as_bytes())
    .collect();
    (
        any::<bool>(),
        prop_oneof![
            8 => prop::sample::select(fixed).prop_map(<[u8]>::to_vec),
            1 => prop::collection::vec(any::<u8>(), 0..20),
        ],
    )
}

fn direction(to_server: bool) -> Direction {
    if to_server {
        Direction::ToServer
    } else {
        Direction::ToClient
    }
}

fn play(pieces: &[(bool, Vec<u8>)], sizes: &[usize]) -> Vec<DialogueEvent> {
    let mut dialogue = Dialogue::new();
    let mut events = Vec::new();
    let mut sizes = sizes.iter().cycle();
    for (index, (to_server, bytes)) in pieces.iter().enumerate() {
        let now = index as u64 * SECOND / 2;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let size = *sizes.next().unwrap_or(&usize::MAX);
            let (now_fed, later) = rest.split_at(size.clamp(1, rest.len()));
            dialogue.feed(direction(*to_server), now_fed, now, &mut |event| {
                events.push(event);
            });
            rest = later;
        }
    }
    events
}

proptest! {
    #[test]
    fn s1_any_cut_of_the_same_bytes_gives_the_same_events(
        pieces in prop::collection::vec(piece(), 0..40),
        sizes in prop::collection::vec(1usize..10, 1..10),
    ) {
        prop_assert_eq!(play(&pieces, &sizes), play(&pieces, &[]));
    }

    #[test]
    fn s5_telnet_sequences_anywhere_change_nothing(
        pieces in prop::collection::vec(piece(), 0..40),
        places in prop::collection::vec((any::<prop::sample::Index>(), 0usize..5), 0..20),
    ) {
        let sequences: [&[u8]; 5] = [
            b"\xff\xf4", b"\xff\xfb\x01", b"\xff\xfe\xff", b"\xff\xfa\x18\0x\n\xff\xff\xff\xf0",
            b"\xff\xf2",
        ];
        // An IAC of the piece itself may not be torn from what follows it.
        let pieces: Vec<_> = pieces
            .into_iter()
            .map(|(to_server, mut bytes)| {
                bytes.retain(|&byte| byte != 0xff);
                (to_server, bytes)
            })
            .collect();
        let mut with = pieces.clone();
        for (place, sequence) in places {
            if with.is_empty() {
                break;
            }
            let (_, bytes) = &mut with[place.index(pieces.len())];
            // Not into a sequence inserted before.
            if bytes.contains(&0xff) {
                continue;
            }
            let at = place.index(bytes.len() + 1);
            bytes.splice(at..at, sequences[sequence].iter().copied());
        }
        prop_assert_eq!(play(&with, &[]), play(&pieces, &[]));
    }

    #[test]
    fn p3_no_announcement_without_an_answered_command(
        pieces in prop::collection::vec(piece(), 0..60),
    ) {
        let events = play(&pieces, &[]);
        let count = |wanted: fn(&DialogueEvent) -> bool| {
            events.iter().filter(|event| wanted(event)).count()
        };
        let requested = count(|event| matches!(event, DialogueEvent::PassiveRequested(_)));
        let announced = count(|event| matches!(event, DialogueEvent::PassiveAnnounced { .. }));
        prop_assert!(announced <= requested);
    }

    #[test]
    fn no_bytes_make_it_panic(
        pieces in prop::collection::vec((any::<bool>(), any::<Vec<u8>>(), 0u8..10, any::<u64>()), 0..20),
    ) {
        let mut dialogue = Dialogue::adopted();
        for (to_server, bytes, act, now) in pieces {
            let direction = direction(to_server);
            match act {
                0 => dialogue.gap(direction, &mut |_| {}),
                1 => dialogue.elapse(now, &mut |_| {}),
                _ => dialogue.feed(direction, &bytes, now, &mut |_| {}),
            }
        }
    }
}
